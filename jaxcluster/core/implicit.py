"""Implicit differentiation: derivatives of converged iterations by the implicit function and the envelope theorem.

Every function here returns one of its arguments unchanged, and costs nothing until a derivative is computed. The
derivatives are functions too, and can be differentiated again.

Source: A. Griewank and A. Walther, Evaluating Derivatives (2008), ch. 15, on implicit functions and iterations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxcluster.core.validation import is_traced

GMRES_RESTART = 32
"""Krylov vectors of GMRES between restarts: products with the Jacobian of the step."""

GMRES_RESTARTS = 16
"""Most restarts of GMRES."""


def implicit_fixed_point(step: Callable[..., Any], solution: Any, *inputs: Any) -> Any:
    """``solution``, with its derivative as the fixed point s = step(s, *inputs).

    By the implicit function theorem, ds = (I − ∂step/∂s)⁻¹·(∂step/∂inputs)·d(inputs), solved by GMRES: memory does
    not grow with the number of steps. It is right where the iteration has converged, so ask for a small tol.

    Args:
        step: (s, *inputs) -> s, a contraction near the solution. s is a pytree of arrays; leaves that are not floating,
            such as counts and labels, are constants. Values that it closes over are inputs too.
        solution: final state of the iteration.
        inputs: pytrees that the solution depends on.

    Returns:
        ``solution``.
    """
    step, more = _closure_convert(step, solution, *inputs)
    return _implicit_fixed_point(step, solution, *inputs, *more)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _implicit_fixed_point(step, solution, *inputs):
    return solution


@_implicit_fixed_point.defjvp
def _implicit_fixed_point_jvp(step, primals, tangents):
    solution, *inputs = primals
    _, *input_tangents = tangents
    # Not the bare solution: for a second derivative it has to depend on the inputs.
    solution = _implicit_fixed_point(step, solution, *inputs)
    leaves, tree = jax.tree.flatten(solution)
    floating = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves]

    def floating_step(variables, *inputs):
        variables = iter(variables)
        state = [next(variables) if mark else leaf for leaf, mark in zip(leaves, floating, strict=True)]
        return _select(jax.tree.leaves(step(jax.tree.unflatten(tree, state), *inputs)), floating)

    point = _select(leaves, floating)
    _, input_part = jax.jvp(lambda *inputs: floating_step(point, *inputs), tuple(inputs), tuple(input_tangents))
    _, jacobian_product = jax.linearize(lambda point: floating_step(point, *inputs), point)

    # One vector: a leaf that no input reaches directly would be a symbolic zero, which has no transpose.
    right, as_leaves = ravel_pytree(input_part)

    def equation(direction):
        return direction - ravel_pytree(jacobian_product(as_leaves(direction)))[0]

    tangents = iter(as_leaves(jax.lax.custom_linear_solve(equation, right, solve=_solve, transpose_solve=_solve)))
    zeros = [np.zeros(np.shape(leaf), jax.dtypes.float0) for leaf in leaves]
    tangents_out = [next(tangents) if mark else zero for zero, mark in zip(zeros, floating, strict=True)]
    return solution, jax.tree.unflatten(tree, tangents_out)


def _select(leaves, marks):
    return [leaf for leaf, mark in zip(leaves, marks, strict=True) if mark]


def _solve(operator, right):
    # Near rounding: the error of the linear solve is an error of the gradient.
    options = {"tol": 16 * float(jnp.finfo(right.dtype).eps), "restart": GMRES_RESTART, "maxiter": GMRES_RESTARTS}
    return jax.scipy.sparse.linalg.gmres(operator, right, **options)[0]


def with_derivative_of(function: Callable[..., Any], value: Any, *inputs: Any) -> Any:
    """``value``, with the derivative of ``function(*inputs)``.

    The function is equal to the value but costs more to compute, or its derivative is a surrogate. Values that it
    closes over are inputs too.
    """
    function, more = _closure_convert(function, *inputs)
    return _with_derivative_of(function, value, *inputs, *more)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _with_derivative_of(function, value, *inputs):
    return value


@_with_derivative_of.defjvp
def _with_derivative_of_jvp(function, primals, tangents):
    value, *inputs = primals
    _, *input_tangents = tangents
    _, derivative = jax.jvp(function, tuple(inputs), tuple(input_tangents))
    return _with_derivative_of(function, value, *inputs), derivative


def at_optimum(function: Callable[..., Any], value: Any, variables: Any, *inputs: Any) -> Any:
    """``value``, with the derivative of ``function(variables, *inputs)`` at optimal ``variables``.

    By the envelope theorem the first derivative is that of the function at constant variables. The second one includes
    the derivative of the variables by the inputs, such as that of `implicit_fixed_point`, which costs nothing until
    then. Values that the function closes over are inputs too.
    """
    function, more = _closure_convert(function, variables, *inputs)
    return _at_optimum(function, value, variables, *inputs, *more)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _at_optimum(function, value, variables, *inputs):
    return value


@_at_optimum.defjvp
def _at_optimum_jvp(function, primals, tangents):
    value, variables, *inputs = primals
    _, _, *input_tangents = tangents
    _, derivative = jax.jvp(partial(function, variables), tuple(inputs), tuple(input_tangents))
    return _at_optimum(function, value, variables, *inputs), derivative


NO_GRADIENT_OF_LABELS = (
    "A gradient through labels was asked for, but labels are integers, which have none. Differentiate probabilities "
    "instead: soft_kmeans.responsibilities or gmm.predict_proba, made hard by soft_kmeans.straight_through if need be. "
    "If the labels are meant as constants, pass jax.lax.stop_gradient of the rows and of the model to predict."
)
"""Error where a gradient goes through labels."""

NO_GRADIENT_OF_SPARSE_ROWS = (
    "A gradient through a fit of sparse rows was asked for, which has none. Fit dense rows, or pass "
    "jax.lax.stop_gradient of the rows and weights if the fit is meant as a constant."
)
"""Error where a gradient goes through a fit of sparse rows."""


def non_differentiable(value: Any, *inputs: Any, message: str = NO_GRADIENT_OF_LABELS) -> Any:
    """``value``, whose derivative with respect to ``inputs`` raises TypeError with the message."""
    # JAX alone would return a gradient of 0, which looks like an optimum.
    return _non_differentiable(message, value, *inputs) if is_traced(inputs) else value


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _non_differentiable(message, value, *inputs):
    return value


@_non_differentiable.defjvp
def _non_differentiable_jvp(message, primals, tangents):
    raise TypeError(message)


def _closure_convert(function, *arguments):
    """Closure conversion.

    Returns:
        The function with the traced values that it closes over as further arguments, and these values.
    """
    bare = function
    while isinstance(bare, partial) and not is_traced(bare.args, bare.keywords):
        bare = bare.func
    if isinstance(bare, FunctionType) and bare.__closure__ is None:
        return function, ()
    return jax.closure_convert(function, *arguments)

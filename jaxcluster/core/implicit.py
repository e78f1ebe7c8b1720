"""Gradients at a fixed point: what an iteration converged to is differentiated by its equation, not by its steps.

Every function here returns a value that it is given to the bit, and costs nothing until a derivative is asked for. The
derivatives are functions too: they can be differentiated again.

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

from jaxcluster.core.check import is_traced

RESTART = 32
"""Directions that the linear solver keeps: products with the step's Jacobian in a round of it."""

ROUNDS = 16
"""The most rounds of the linear solver."""


def at_fixed_point(step: Callable[..., Any], solution: Any, *inputs: Any) -> Any:
    """``solution`` itself, with the derivative that it has as the s that solves s = step(s, *inputs).

    By the implicit function theorem, ds = (I − ∂step/∂s)⁻¹·(∂step/∂inputs)·d(inputs), solved by GMRES: memory does
    not grow with the number of steps. It is right where the iteration has converged: ask for a small tol.

    Args:
        step: (s, *inputs) -> s, a contraction near the solution; s is a pytree of arrays, of which those that are not
            floating, such as counts and labels, are constants. What it closes over is an input too.
        solution: where the iteration ended.
        inputs: pytrees that the solution depends on.
    """
    step, more = _opened(step, solution, *inputs)
    return _at_fixed_point(step, solution, *inputs, *more)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _at_fixed_point(step, solution, *inputs):
    return solution


@_at_fixed_point.defjvp
def _at_fixed_point_jvp(step, primals, tangents):
    solution, *inputs = primals
    _, *moved = tangents
    # Not the bare solution: a second derivative has to know that it depends on the inputs.
    solution = _at_fixed_point(step, solution, *inputs)
    leaves, tree = jax.tree.flatten(solution)
    floating = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves]

    def moving(changed, *inputs):
        changed = iter(changed)
        whole = [next(changed) if mark else leaf for leaf, mark in zip(leaves, floating, strict=True)]
        return _marked(jax.tree.leaves(step(jax.tree.unflatten(tree, whole), *inputs)), floating)

    point = _marked(leaves, floating)
    _, pushed = jax.jvp(lambda *inputs: moving(point, *inputs), tuple(inputs), tuple(moved))
    _, push = jax.linearize(lambda point: moving(point, *inputs), point)

    # One vector: a leaf that the inputs do not reach by themselves would be a known zero, which has no transpose.
    right, as_leaves = ravel_pytree(pushed)

    def equation(direction):
        return direction - ravel_pytree(push(as_leaves(direction)))[0]

    found = iter(as_leaves(jax.lax.custom_linear_solve(equation, right, solve=_solve, transpose_solve=_solve)))
    none = [np.zeros(np.shape(leaf), jax.dtypes.float0) for leaf in leaves]
    slopes = [next(found) if mark else zero for zero, mark in zip(none, floating, strict=True)]
    return solution, jax.tree.unflatten(tree, slopes)


def _marked(leaves, marks):
    return [leaf for leaf, mark in zip(leaves, marks, strict=True) if mark]


def _solve(operator, right):
    options = {"tol": 16 * float(jnp.finfo(right.dtype).eps), "restart": RESTART, "maxiter": ROUNDS}
    return jax.scipy.sparse.linalg.gmres(operator, right, **options)[0]


def with_derivative_of(function: Callable[..., Any], value: Any, *inputs: Any) -> Any:
    """``value`` itself, with the derivative of ``function(*inputs)``.

    That is what the value is equal to and costs more to compute, or what stands in for a derivative that it lacks.
    What the function closes over is an input too.
    """
    function, more = _opened(function, *inputs)
    return _with_derivative_of(function, value, *inputs, *more)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _with_derivative_of(function, value, *inputs):
    return value


@_with_derivative_of.defjvp
def _with_derivative_of_jvp(function, primals, tangents):
    value, *inputs = primals
    _, *moved = tangents
    _, derivative = jax.jvp(function, tuple(inputs), tuple(moved))
    return _with_derivative_of(function, value, *inputs), derivative


def at_optimum(function: Callable[..., Any], value: Any, variables: Any, *inputs: Any) -> Any:
    """``value`` itself, with the derivative of ``function(variables, *inputs)`` where ``variables`` are optimal.

    By the envelope theorem the first derivative is that of the function with the variables held. The second one knows
    how they move with the inputs: from their own derivative, which is that of `at_fixed_point`, say, and which costs
    nothing until a second derivative is asked for. What the function closes over is an input too.
    """
    function, more = _opened(function, variables, *inputs)
    return _at_optimum(function, value, variables, *inputs, *more)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _at_optimum(function, value, variables, *inputs):
    return value


@_at_optimum.defjvp
def _at_optimum_jvp(function, primals, tangents):
    value, variables, *inputs = primals
    _, _, *moved = tangents
    _, derivative = jax.jvp(partial(function, variables), tuple(inputs), tuple(moved))
    return _at_optimum(function, value, variables, *inputs), derivative


def without_derivative(labels: Any, *inputs: Any) -> Any:
    """``labels`` themselves, of which a derivative with respect to ``inputs`` raises TypeError where it is asked for.

    Whole numbers do not move with what they were found from; JAX alone would call that a gradient of zero.
    """
    return _without_derivative(labels, *inputs) if is_traced(inputs) else labels


@jax.custom_jvp
def _without_derivative(labels, *inputs):
    return labels


@_without_derivative.defjvp
def _without_derivative_jvp(primals, tangents):
    raise TypeError(
        "A gradient through labels was asked for, but labels are whole numbers, which have none. Differentiate shares "
        "instead: soft_kmeans.responsibilities or gmm.predict_proba, made hard by soft_kmeans.straight_through if need "
        "be. If the labels are meant as constants, pass jax.lax.stop_gradient of the rows and of the model to predict."
    )


def _opened(function, *arguments):
    """The function with the traced values that it closes over as further arguments, and these values."""
    bare = function
    while isinstance(bare, partial) and not is_traced(bare.args, bare.keywords):
        bare = bare.func
    if isinstance(bare, FunctionType) and bare.__closure__ is None:
        return function, ()
    return jax.closure_convert(function, *arguments)

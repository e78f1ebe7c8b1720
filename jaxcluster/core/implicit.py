"""Gradients at a fixed point: what an iteration converged to is differentiated by its equation, not by its steps.

Both functions return their second argument to the bit and cost nothing until a derivative is asked for. They take
everything traced as arguments; the function they differentiate must not close over traced values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

RESTART = 32
"""Directions that the linear solver keeps: products with the step's Jacobian in a round of it."""

ROUNDS = 16
"""The most rounds of the linear solver."""


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def at_fixed_point(step: Callable[..., Any], solution: Any, *inputs: Any) -> Any:
    """``solution`` itself, with the derivative that it has as the s that solves s = step(s, *inputs).

    By the implicit function theorem, ds = (I − ∂step/∂s)⁻¹·(∂step/∂inputs)·d(inputs), solved by GMRES: memory does
    not grow with the number of steps. It is right where the iteration has converged: ask for a small tol.

    Args:
        step: (s, *inputs) -> s, a contraction near the solution; s is a pytree of floating arrays.
        solution: where the iteration ended.
        inputs: what the solution depends on.
    """
    return solution


@at_fixed_point.defjvp
def _at_fixed_point_jvp(step, primals, tangents):
    solution, *inputs = primals
    _, *moved = tangents
    _, pushed = jax.jvp(lambda *inputs: step(solution, *inputs), tuple(inputs), tuple(moved))
    _, push = jax.linearize(lambda solution: step(solution, *inputs), solution)

    # One vector: a leaf that the inputs do not reach by themselves would be a known zero, which has no transpose.
    right, as_tree = ravel_pytree(pushed)

    def equation(direction):
        return direction - ravel_pytree(push(as_tree(direction)))[0]

    return solution, as_tree(jax.lax.custom_linear_solve(equation, right, solve=_solve, transpose_solve=_solve))


def _solve(operator, right):
    options = {"tol": 16 * float(jnp.finfo(right.dtype).eps), "restart": RESTART, "maxiter": ROUNDS}
    return jax.scipy.sparse.linalg.gmres(operator, right, **options)[0]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def with_derivative_of(function: Callable[..., Any], value: Any, *inputs: Any) -> Any:
    """``value`` itself, with the derivative of ``function(*inputs)``, which it is equal to and which costs more."""
    return value


@with_derivative_of.defjvp
def _with_derivative_of_jvp(function, primals, tangents):
    value, *inputs = primals
    _, *moved = tangents
    _, derivative = jax.jvp(function, tuple(inputs), tuple(moved))
    return value, derivative

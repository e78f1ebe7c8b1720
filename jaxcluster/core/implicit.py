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

MOST_ROUNDS = 200
"""Rounds of the linear solver, each two products with the step's Jacobian."""


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def at_fixed_point(step: Callable[..., Any], solution: Any, *inputs: Any) -> Any:
    """``solution`` itself, with the derivative that it has as the s that solves s = step(s, *inputs).

    By the implicit function theorem, ds = (I − ∂step/∂s)⁻¹·(∂step/∂inputs)·d(inputs), solved by BiCGSTAB: memory does
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

    def equation(direction):
        return jax.tree.map(jnp.subtract, direction, push(direction))

    derivative = jax.lax.custom_linear_solve(equation, pushed, solve=_solve, transpose_solve=_solve)
    return solution, derivative


def _solve(operator, right):
    eps = float(jnp.finfo(jnp.result_type(*jax.tree.leaves(right))).eps)
    return jax.scipy.sparse.linalg.bicgstab(operator, right, tol=16 * eps, maxiter=MOST_ROUNDS)[0]


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

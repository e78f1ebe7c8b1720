"""The only two loop drivers: `iterate` stops by itself, `trace` takes a fixed number of steps.

A state is a NamedTuple of arrays with a scalar ``residual``, the number its iteration stops on, and a
scalar ``objective``, the number its history keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from jaxcluster.types import Array, Fit, Float, Int, Status

State = TypeVar("State")

DEFAULT_CAPACITY = 512


def history_capacity(max_steps) -> int:
    """A static length for the history that hardly ever changes with ``max_steps``, so neither does the program."""
    if isinstance(max_steps, jax.core.Tracer):
        return DEFAULT_CAPACITY
    return max(DEFAULT_CAPACITY, 1 << (int(max_steps) - 1).bit_length())


def status_of(residual: Float[Array, ""], tol) -> Int[Array, ""]:
    """CONVERGED, MAX_STEPS or NOT_FINITE; NaN, in the residual or the tolerance, is never taken for convergence."""
    finished = jnp.where(residual <= tol, Status.CONVERGED, Status.MAX_STEPS)
    return jnp.where(jnp.isnan(residual) | jnp.isnan(tol), Status.NOT_FINITE, finished).astype(jnp.int32)


def status_with(status, *, objective: Float[Array, ""], incomplete=False, collapsed=False) -> Int[Array, ""]:
    """``status`` with what only the finished fit shows: no finite objective, or clusters empty or collapsed."""
    status = jnp.where(incomplete, Status.EMPTY_CLUSTERS, status)
    status = jnp.where(collapsed & (status != Status.NOT_FINITE), Status.COLLAPSED, status)
    return jnp.where(jnp.isfinite(objective), status, Status.NOT_FINITE).astype(jnp.int32)


def iterate(
    step: Callable[[State], State],
    state: State,
    *,
    tol,
    max_steps,
    capacity: int = DEFAULT_CAPACITY,
    after: Fit | None = None,
) -> Fit:
    """Repeats ``step`` until ``state.residual <= tol``, NaN, or ``max_steps`` steps.

    Args:
        step: state -> state, both with scalar ``residual`` and ``objective``.
        state: the start; its residual is read before the first step.
        tol: in the units of the residual; traced.
        max_steps: traced.
        capacity: static length of the history; later steps are not recorded.
        after: a fit that is continued: its steps and its history, of the same length, are kept.
    """

    def unfinished(carry):
        state, steps, _ = carry
        return (state.residual > tol) & (steps < max_steps)

    def advance(carry):
        state, steps, history = carry
        state = step(state)
        return state, steps + 1, history.at[steps].set(state.objective, mode="drop")

    history = jnp.zeros((capacity,), jnp.result_type(state.objective)) if after is None else after.history
    steps = jnp.int32(0) if after is None else after.steps
    state, steps, history = jax.lax.while_loop(unfinished, advance, (state, steps, history))
    return Fit(state, None, steps, status_of(state.residual, tol), history)


def trace(step: Callable[[State], State], state: State, *, steps: int) -> Fit:
    """Takes exactly ``steps`` steps (static) with every objective kept; reverse-differentiable."""

    def advance(state, _):
        state = step(state)
        return state, state.objective

    state, history = jax.lax.scan(advance, state, length=steps)
    return Fit(state, None, jnp.int32(steps), status_of(state.residual, jnp.inf), history)

"""Loop drivers: `iterate` stops at convergence, `trace` takes a fixed number of steps.

A state is a NamedTuple of arrays with a scalar ``residual``, compared with the tolerance, and a scalar ``objective``,
recorded in the history.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxcluster.types import Array, Fit, Float, Int, Status


@runtime_checkable
class LoopState(Protocol):
    """State of a loop: a NamedTuple of arrays with these two scalars."""

    @property
    def residual(self) -> Any:
        """Number that stops the loop."""

    @property
    def objective(self) -> Any:
        """Number that the history records."""


State = TypeVar("State", bound=LoopState)

DEFAULT_CAPACITY = 512
"""Least length of a history."""

MAX_CAPACITY = 1 << 20
"""Greatest length of a history: one is a part of every program, however few steps are taken."""


def history_capacity(max_steps) -> int:
    """Static length of a history: a power of two, so that another ``max_steps`` rarely compiles another program.

    Steps beyond `MAX_CAPACITY` are taken, and not recorded.
    """
    if isinstance(max_steps, Tracer):
        return DEFAULT_CAPACITY
    return min(MAX_CAPACITY, max(DEFAULT_CAPACITY, 1 << (int(max_steps) - 1).bit_length()))


def status_of(residual: Float[Array, ""], tol) -> Int[Array, ""]:
    """Status by the residual: CONVERGED, MAX_STEPS, or NOT_FINITE for a residual or tolerance of NaN."""
    finished = jnp.where(residual <= tol, Status.CONVERGED, Status.MAX_STEPS)
    return jnp.where(jnp.isnan(residual) | jnp.isnan(tol), Status.NOT_FINITE, finished).astype(jnp.int32)


def status_with(
    status: Any, *, objective: Float[Array, ""], incomplete: Any = False, collapsed: Any = False
) -> Int[Array, ""]:
    """Status of a finished fit: ``status``, unless clusters are empty or collapsed or the objective is not finite.

    That of an interrupted fit remains: a step more may fill its clusters.
    """
    ended = status != Status.INTERRUPTED
    status = jnp.where(incomplete & ended, Status.EMPTY_CLUSTERS, status)
    status = jnp.where(collapsed & ended & (status != Status.NOT_FINITE), Status.COLLAPSED, status)
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
    """Iteration of ``step`` until ``state.residual <= tol``, NaN, or ``max_steps`` steps.

    Args:
        step: state -> state, both with scalar ``residual`` and ``objective``.
        state: initial state; its residual is compared before the first step.
        tol: tolerance, in the units of the residual; traced.
        max_steps: most steps; traced.
        capacity: static length of the history; later steps are not recorded.
        after: fit to continue, whose steps and history, of the same length, are kept.

    Returns:
        `Fit` without labels.
    """
    fit = begin(state, capacity) if after is None else after._replace(state=state, labels=None)
    return advance(step, fit, tol=tol, max_steps=max_steps)


def begin(state: LoopState, capacity: int = DEFAULT_CAPACITY) -> Fit:
    """Fit of no steps, for `advance`: its status is MAX_STEPS."""
    history = jnp.zeros((capacity,), jnp.result_type(state.objective))
    return Fit(state, None, jnp.int32(0), jnp.int32(Status.MAX_STEPS), history)


def advance(step: Callable[[State], State], fit: Fit, *, tol, max_steps) -> Fit:
    """A fit with the steps of `iterate` that are left to it, up to number ``max_steps``."""

    def unfinished(carry):
        state, steps, _ = carry
        # False for a residual or a tolerance of NaN, which therefore ends the loop.
        return (state.residual > tol) & (steps < max_steps)

    def one_step(carry):
        state, steps, history = carry
        state = step(state)
        # Beyond the capacity the write is dropped, and the loop goes on.
        return state, steps + 1, history.at[steps].set(state.objective, mode="drop")

    state, steps, history = jax.lax.while_loop(unfinished, one_step, (fit.state, fit.steps, fit.history))
    return Fit(state, None, steps, status_of(state.residual, tol), history)


def trace(step: Callable[[State], State], state: State, *, steps: int) -> Fit:
    """Iteration of exactly ``steps`` steps (static), reverse-differentiable; the history has every objective."""

    def advance(state, _):
        state = step(state)
        return state, state.objective

    state, history = jax.lax.scan(advance, state, length=steps)
    return Fit(state, None, jnp.int32(steps), status_of(state.residual, jnp.inf), history)

"""The rounds one after another: quick ones for as long as they are exact, a careful one where they are not.

Two loops, one inside the other, and not a choice in every round: a batch of problems under vmap would pay for both
sides of a choice each time, and XLA would copy a kept kernel through it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.sinkhorn.cost import KEPT, TileCost, matrix_tile
from jaxcluster.cluster.sinkhorn.problem import Problem
from jaxcluster.cluster.sinkhorn.rounds import (
    Round,
    exact_round,
    kernel_of,
    kernel_round,
    mean_cost,
    quick_round,
    sinkhorn_round,
    translated,
)
from jaxcluster.core.iterate import trace
from jaxcluster.types import Array, Float, Int

WINDOW = 16
"""Rounds that an over-relaxation has to settle in, and as many again to measure the error's rate."""

MOST_OMEGA = 1.95
"""Over-relaxation chosen from a rate goes no further: near 2 a round hardly contracts."""

PACE = 0.5
"""What a round on the way down to ε adds to √(mean cost/ε): a plan follows a smaller ε more slowly."""

MOST_FALLING = 4
"""The way down to ε takes no more than 1/MOST_FALLING of the rounds there are, if ``anneal`` lets it."""

NEAR = 0.1
"""Error (a share of the weights) from which on rounds are taken to contract by a rate: before, none is over-relaxed."""


class Options(NamedTuple):
    """Options that change the program."""

    cost: TileCost
    rounds: int | None
    symmetric: bool
    annealed: bool
    adaptive: bool
    capacity: int


class SinkhornState(NamedTuple):
    """Potentials, the ε that the next round takes, and the error that the last one found: infinite on the way to ε."""

    f: Float[Array, " n"]
    g: Float[Array, " m"]
    epsilon: Float[Array, ""]
    residual: Float[Array, ""]
    objective: Float[Array, ""]


class Fall(NamedTuple):
    """How ε falls: where it begins, the least factor of a round, and what a round adds to √(first/ε)."""

    first: Float[Array, ""]
    anneal: Float[Array, ""]
    pace: Float[Array, ""]


class Running(NamedTuple):
    """A state, how often it moved, and its relaxation: rounds since it was chosen, the error WINDOW rounds after."""

    state: SinkhornState
    steps: Int[Array, ""]
    history: Float[Array, " capacity"]
    omega: Float[Array, ""]
    mark: Float[Array, ""]
    age: Int[Array, ""]


def run(options: Options, problem: Problem, start, omega, anneal, tol, max_steps) -> Running:
    """Rounds until the error is at most ``tol``, NaN, or ``max_steps`` are taken."""
    cost, problem = _kept(options.cost, problem)
    omega = jnp.asarray(omega, start.dtype)
    state = _begin(options, cost, problem, start)
    forward = partial(_advance, options, problem, _fall(problem, state.epsilon, anneal, max_steps))

    def unfinished(running):
        return (running.state.residual > tol) & (running.steps < max_steps)

    def burst(running):
        quick, prepared = _quick(cost, problem, running.state)

        def going(carry):
            running, whole = carry
            # Not "equal": an ε of NaN would never be, and no round would be taken to find that out.
            return whole & unfinished(running) & ~(running.state.epsilon < prepared)

        def go(carry):
            running, _ = carry
            state = running.state
            taken, whole = quick(state.f, state.g, state.epsilon, running.omega)
            moved = forward(running, taken)
            return jax.tree.map(partial(jnp.where, whole), moved, running), whole

        def carefully(running):
            state = running.state
            return forward(running, exact_round(cost, problem, state.f, state.g, state.epsilon, running.omega))

        running, whole = jax.lax.while_loop(going, go, (running, jnp.bool_(True)))
        return jax.lax.cond(whole, lambda running: running, carefully, running)

    most = jnp.asarray(jnp.inf, start.dtype)
    history = jnp.full((options.capacity,), jnp.nan, start.dtype)
    running = Running(state, jnp.int32(0), history, omega, most, jnp.int32(0))
    return jax.lax.while_loop(unfinished, burst, running)


def unrolled(options: Options, problem: Problem, start, omega, anneal) -> tuple[Array, Array]:
    """The potentials after ``options.rounds`` rounds, which can be differentiated backwards through all of them."""
    omega = jnp.asarray(omega, start.dtype)
    begin = _begin(options, options.cost, problem, start)
    fall = _fall(problem, begin.epsilon, anneal, options.rounds)

    def advance(state):
        taken = sinkhorn_round(options.cost, problem, state.f, state.g, state.epsilon, omega)
        return _next_state(options, problem, fall, state, taken)

    state = trace(advance, begin, steps=options.rounds).state
    return state.f, state.g


def _kept(cost: TileCost, problem: Problem) -> tuple[TileCost, Problem]:
    """The problem with its costs computed once, where all of them are no more than a tile elsewhere."""
    if cost is matrix_tile or problem.a.shape[0] * problem.b.shape[0] > KEPT:
        return cost, problem
    return matrix_tile, problem._replace(rows=cost(problem.rows, problem.columns), columns=())


def _quick(cost, problem, state) -> tuple[Callable[..., tuple[Round, Array]], Any]:
    """A round that may not be exact, and the ε that it is good for: any, unless exponentials are kept for one."""
    if problem.a.shape[0] * problem.b.shape[0] > KEPT:
        return partial(quick_round, cost, problem), state.epsilon
    return partial(kernel_round, problem, kernel_of(problem, state.g, state.epsilon)), state.epsilon


def _begin(options, cost, problem, start):
    first = jnp.maximum(problem.epsilon, mean_cost(cost, problem)) if options.annealed else problem.epsilon
    most = jnp.asarray(jnp.inf, start.dtype)
    return SinkhornState(jnp.zeros_like(problem.a), start, first, most, most)


def _fall(problem, first, anneal, max_steps) -> Fall:
    pace = jnp.maximum(PACE, MOST_FALLING * jnp.sqrt(first / problem.epsilon) / max_steps)
    return Fall(first, jnp.asarray(anneal, first.dtype), pace)


def _next_state(options, problem, fall: Fall, state, taken: Round) -> SinkhornState:
    f, g = taken.f, taken.g
    if options.symmetric:
        # Between a potential and its transform: at the fixed point both are the same, in a few rounds.
        f = g = (state.f + taken.f) / 2
    f, g = translated(problem, f, g)
    left = jnp.where(state.epsilon > problem.epsilon, jnp.inf, taken.error)
    # The smaller ε is, the more rounds a plan needs to follow it: by one factor all the way down, it is left behind.
    share = 1 / jnp.square(1 + fall.pace * jnp.sqrt(state.epsilon / fall.first))
    epsilon = jnp.maximum(problem.epsilon, state.epsilon * jnp.maximum(fall.anneal, share))
    return SinkhornState(f, g, epsilon, left, taken.error)


def _advance(options, problem, fall, running: Running, taken: Round) -> Running:
    state = _next_state(options, problem, fall, running.state, taken)
    history = running.history.at[running.steps].set(state.objective, mode="drop")
    moved = running._replace(state=state, steps=running.steps + 1, history=history)
    return _relaxed(moved) if options.adaptive else moved


def _relaxed(running: Running) -> Running:
    """Over-relaxation from the rate at which the error falls, chosen anew from time to time.

    With the rate r of rounds at ω, plain ones have θ with (r + ω − 1)² = r·ω²·θ, and the best ω is 2/(1 + √(1 − θ)).
    Another ω makes another mix of errors first, so a window passes before the one that is measured. Errors that rise
    take ω half of the way back to 1, large ones all of it.
    """
    error, omega = running.state.residual, running.omega
    # Without an end to the way to ε there is no error to measure yet.
    age = jnp.where(jnp.isinf(error) & (running.age == 0), 0, running.age + 1)
    mark = jnp.where(age == WINDOW, error, running.mark)
    due = age == 2 * WINDOW
    rate = jnp.clip((error / mark) ** (1 / WINDOW), 1e-3, None)
    plain = jnp.clip(jnp.square(rate + omega - 1) / (rate * jnp.square(omega)), 0, 1)
    best = jnp.clip(2 / (1 + jnp.sqrt(1 - plain)), omega, MOST_OMEGA)
    chosen = jnp.where(rate < 1, best, (1 + omega) / 2)
    chosen = jnp.where(error < NEAR, chosen, 1)
    return running._replace(omega=jnp.where(due, chosen, omega), mark=mark, age=jnp.where(due, 0, age))

"""The rounds one after another: quick ones for as long as they are exact, a careful one where they are not.

They end with potentials whose own error was measured, not with those of one more round, and where that error is no more
than the rounding of the exponents that it is made of: further rounds would only move it about.

Two loops, one inside the other, and not a choice in every round: a batch of problems under vmap would pay for both
sides of a choice each time, and XLA would copy a kept kernel through it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.sinkhorn.cost import KEPT, Rounding, TileCost
from jaxcluster.cluster.sinkhorn.problem import Problem
from jaxcluster.cluster.sinkhorn.rounds import (
    Round,
    exact_round,
    kernel_of,
    kernel_round,
    quick_round,
    sinkhorn_round,
    translated,
    typical_cost,
)
from jaxcluster.core.iterate import trace
from jaxcluster.types import Array, Bool, Float, Int

WINDOW = 16
"""Rounds that an over-relaxation has to settle in, and as many again to measure the error's rate."""

MOST_OMEGA = 1.95
"""Over-relaxation chosen from a rate goes no further: near 2 a round hardly contracts."""

PACE = 0.5
"""What a round on the way down to ε adds to √(typical cost/ε): a plan follows a smaller ε more slowly."""

MOST_FALLING = 4
"""The way down to ε takes no more than 1/MOST_FALLING of the rounds there are, if ``anneal`` lets it."""

NEAR = 0.1
"""Error (a share of the weights) from which on rounds are taken to contract by a rate: before, none is over-relaxed."""

EXPONENT_ROUNDING = 0.5
"""Units in the last place of |f| + |g| by which f + g − C, an exponent times ε, may be off. Rounding f, g, their sum
and the difference is 2 at most, and less on average: over random points and matrices, with ε from 1e-3 to 1 of the
range of the costs, the marginal error in float64 of the returned plan was within half of this of what float32 measured.
"""

SUM_ROUNDING = 1
"""Units in the last place of 1 by which the sums of a plan may be off at any ε: measured as 0.5 where ε is large."""


class Options(NamedTuple):
    """Options that change the program."""

    cost: TileCost
    rounds: int | None
    symmetric: bool
    annealed: bool
    adaptive: bool
    capacity: int


class SinkhornState(NamedTuple):
    """Potentials, the ε that the next round takes, and how far their plan is off.

    Attributes:
        f: (n,) potentials of the rows.
        g: (m,) potentials of the columns.
        epsilon: () strength of the entropy in the next round.
        residual: () the marginal error of the last round; infinite on the way to ε.
        objective: () the same, on the way too.
        rounding: () the part of it that may be rounding.
        ended: () whether f and g are those whose error was measured, and no further round is worth its while.
    """

    f: Float[Array, " n"]
    g: Float[Array, " m"]
    epsilon: Float[Array, ""]
    residual: Float[Array, ""]
    objective: Float[Array, ""]
    rounding: Float[Array, ""]
    ended: Bool[Array, ""]


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


def run(cost: TileCost, options: Options, problem: Problem, rounding: Rounding, start, omega, anneal, tol, max_steps):
    """Rounds until the error and its rounding are at most ``tol``, the error is all rounding, or NaN; a `Running`.

    No more than ``max_steps`` are taken.
    """
    omega = jnp.asarray(omega, start.dtype)
    state = _begin(options, cost, problem, start)
    fall = _fall(problem, state.epsilon, anneal, max_steps)
    forward = partial(_advance, options, problem, rounding, fall, tol)

    def unfinished(running):
        # NaN ends it too.
        return ~running.state.ended & (running.state.residual >= 0) & (running.steps < max_steps)

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
    history = jnp.zeros((options.capacity,), start.dtype)
    running = Running(state, jnp.int32(0), history, omega, most, jnp.int32(0))
    return jax.lax.while_loop(unfinished, burst, running)


def unrolled(
    cost: TileCost, options: Options, problem: Problem, rounding: Rounding, start, omega, anneal
) -> tuple[Array, Array]:
    """The potentials after ``options.rounds`` rounds, which can be differentiated backwards through all of them."""
    omega = jnp.asarray(omega, start.dtype)
    begin = _begin(options, cost, problem, start)
    fall = _fall(problem, begin.epsilon, anneal, options.rounds)

    def advance(state):
        taken = sinkhorn_round(cost, problem, state.f, state.g, state.epsilon, omega)
        return _next_state(options, problem, rounding, fall, None, state, taken)

    state = trace(advance, begin, steps=options.rounds).state
    return state.f, state.g


def exponent_rounding(problem: Problem, rounding: Rounding, f, g, epsilon) -> Float[Array, ""]:
    """How far rounding may bring the sums of a plan off, as a share of the weights: the mean error of its exponents.

    Costs between which mass moves are about f + g, so that the mean of √C is at most √(⟨a, f⟩ + ⟨b, g⟩).
    """

    def mean(weight, values):
        return weight @ values / jnp.sum(weight)

    size = mean(problem.a, jnp.abs(f)) + mean(problem.b, jnp.abs(g))
    worth = jnp.maximum(mean(problem.a, f) + mean(problem.b, g), 0)
    eps = jnp.finfo(f.dtype).eps
    exponents = EXPONENT_ROUNDING * eps * size + rounding.fixed + rounding.rooted * jnp.sqrt(worth)
    return SUM_ROUNDING * eps + exponents / epsilon


def _quick(cost, problem, state) -> tuple[Callable[..., tuple[Round, Array]], Any]:
    """A round that may not be exact, and the ε that it is good for: any, unless exponentials are kept for one."""
    if problem.a.shape[0] * problem.b.shape[0] > KEPT:
        return partial(quick_round, cost, problem), state.epsilon
    return partial(kernel_round, problem, kernel_of(problem, state.g, state.epsilon)), state.epsilon


def _begin(options, cost, problem, start):
    first = jnp.maximum(problem.epsilon, typical_cost(cost, problem)) if options.annealed else problem.epsilon
    # ε may be NaN, and the start too: a round finds that out.
    most = jnp.asarray(jnp.inf, start.dtype)
    return SinkhornState(jnp.zeros_like(problem.a), start, first, most, most, jnp.zeros_like(most), jnp.bool_(False))


def _fall(problem, first, anneal, max_steps) -> Fall:
    most = jnp.asarray(max_steps).astype(first.dtype)
    pace = jnp.maximum(PACE, MOST_FALLING * jnp.sqrt(first / problem.epsilon) / most)
    return Fall(first, jnp.asarray(anneal, first.dtype), pace)


def _next_state(options, problem, rounding, fall: Fall, tol, state, taken: Round) -> SinkhornState:
    """The state after a round; without a ``tol`` it never ends."""
    f, g = taken.f, taken.g
    if options.symmetric:
        # Between a potential and its transform: at the fixed point both are the same, in a few rounds.
        f = g = (state.f + taken.f) / 2
    f, g = translated(problem, f, g)
    falling = state.epsilon > problem.epsilon
    left = jnp.where(falling, jnp.inf, taken.error)
    noise = exponent_rounding(problem, rounding, taken.f, state.g, problem.epsilon)
    ended = jnp.bool_(False)
    if tol is not None:
        ended = ~falling & ((taken.error + 2 * noise <= tol) | (taken.error <= noise))
        f, g = jnp.where(ended, taken.f, f), jnp.where(ended, state.g, g)
    # The smaller ε is, the more rounds a plan needs to follow it: by one factor all the way down, it is left behind.
    share = 1 / jnp.square(1 + fall.pace * jnp.sqrt(state.epsilon / fall.first))
    epsilon = jnp.maximum(problem.epsilon, state.epsilon * jnp.maximum(fall.anneal, share))
    return SinkhornState(f, g, epsilon, left, taken.error, noise, ended)


def _advance(options, problem, rounding, fall, tol, running: Running, taken: Round) -> Running:
    state = _next_state(options, problem, rounding, fall, tol, running.state, taken)
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
    rate = jnp.clip((error / jnp.where(mark > 0, mark, 1)) ** (1 / WINDOW), 1e-3, None)
    plain = jnp.clip(jnp.square(rate + omega - 1) / (rate * jnp.square(omega)), 0, 1)
    best = jnp.clip(2 / (1 + jnp.sqrt(1 - plain)), omega, MOST_OMEGA)
    chosen = jnp.where(rate < 1, best, (1 + omega) / 2)
    chosen = jnp.where(error < NEAR, chosen, 1)
    return running._replace(omega=jnp.where(due, chosen, omega), mark=mark, age=jnp.where(due, 0, age))

"""Loop of the Sinkhorn iterations: annealing of ε, bursts of fast updates, over-relaxation by the rate, and its end.

The loop ends with the potentials whose marginal error was measured, not with those of one more update, and where that
error is no more than the rounding of the exponents: further updates would only move the potentials about.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.sinkhorn.problem import MAX_CACHED_COSTS, Problem, TileCost
from jaxcluster.cluster.sinkhorn.updates import (
    Kernel,
    PotentialUpdate,
    Rounding,
    exponent_rounding,
    fast_update,
    gibbs_kernel,
    kernel_update,
    recenter_potentials,
    stable_update,
    typical_cost,
)
from jaxcluster.core import chunks, signals
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.iterate import trace
from jaxcluster.types import Absent, Array, Bool, Float, Int

RATE_WINDOW = 16
"""Iterations for an over-relaxation to take effect, and as many again to measure the rate of convergence."""

MAX_OMEGA = 1.95
"""Upper bound of the over-relaxation chosen from a rate: near 2 an iteration hardly contracts."""

ANNEAL_STEP = 0.5
"""Growth of √(first ε/ε) in an iteration of annealing: a plan follows a smaller ε more slowly."""

MAX_ANNEAL_FRACTION_INV = 4
"""Annealing takes at most 1/4 of the iterations allowed, if the factor of the schedule permits."""

RATE_ESTIMATION_ERROR = 0.1
"""Marginal error below which convergence is taken to be linear; above it there is no over-relaxation."""


class Options(NamedTuple):
    """Static options: each choice compiles a program of its own."""

    cost: TileCost
    num_iters: int | Absent
    symmetric: bool
    annealed: bool
    adaptive: bool
    capacity: int


class SinkhornState(NamedTuple):
    """Potentials, the ε of the next iteration, and the marginal error.

    Attributes:
        f: (n,) potentials of the rows.
        g: (m,) potentials of the columns.
        epsilon: () strength of the entropy in the next iteration.
        residual: () marginal error of the last iteration; infinite while ε is annealed.
        objective: () marginal error of the last iteration, while ε is annealed too.
        rounding: () part of the error that may be rounding.
        ended: () True if f and g are those whose error was measured, and no further iteration can help.
    """

    f: Float[Array, " n"]
    g: Float[Array, " m"]
    epsilon: Float[Array, ""]
    residual: Float[Array, ""]
    objective: Float[Array, ""]
    rounding: Float[Array, ""]
    ended: Bool[Array, ""]


class EpsilonSchedule(NamedTuple):
    """Annealing of ε: its first value, the least factor of an iteration, and the growth of √(first/ε)."""

    first: Float[Array, ""]
    decay: Float[Array, ""]
    growth: Float[Array, ""]


class LoopState(NamedTuple):
    """A state, its iterations and its over-relaxation.

    Attributes:
        state: potentials and error.
        steps: () iterations so far.
        history: (capacity,) marginal error of each iteration.
        omega: () over-relaxation.
        mark: () error RATE_WINDOW iterations after ``omega`` was chosen.
        age: () iterations since ``omega`` was chosen.
    """

    state: SinkhornState
    steps: Int[Array, ""]
    history: Float[Array, " capacity"]
    omega: Float[Array, ""]
    mark: Float[Array, ""]
    age: Int[Array, ""]


class Burst(NamedTuple):
    """Fast updates at one ε, with one kernel.

    Attributes:
        loop: state of the loop.
        kernel: that all of them use; None where costs are not cached.
        epsilon: () ε of the first.
        exact: () False if the last one was not exact, so that it was not made.
    """

    loop: LoopState
    kernel: Kernel | Absent
    epsilon: Float[Array, ""]
    exact: Bool[Array, ""]


def iterate_bursts(cost: TileCost, options: Options, numbers: tuple[Any, ...], loop: LoopState) -> LoopState:
    """Updates until the error and its rounding are at most ``tol``, the error is all rounding, or NaN.

    The inner loop takes fast updates for as long as they are exact, the outer one a stable update where they are not.
    Two loops, and not a choice in every iteration: a batch of problems under vmap would pay for both branches of a
    choice each time, and XLA would copy a cached kernel through it.

    Args:
        cost: the cost function.
        options: static options.
        numbers: problem, rounding, schedule, tol and max_steps; without a tol the error does not end it.
        loop: of `begin_loop`.
    """

    def burst(loop):
        return end_burst(cost, options, numbers, continue_burst(cost, options, numbers, begin_burst(numbers[0], loop)))

    return jax.lax.while_loop(partial(_unfinished, numbers[-1]), burst, loop)


def begin_loop(
    cost: TileCost, options: Options, problem: Problem, start, omega, decay, max_steps
) -> tuple[LoopState, EpsilonSchedule]:
    """Begin the loop.

    Returns:
        The loop before its first iteration, and the schedule of ε.
    """
    state = initial_state(options, cost, problem, start)
    schedule = epsilon_schedule(problem, state.epsilon, decay, max_steps)
    most = jnp.asarray(jnp.inf, start.dtype)
    history = jnp.zeros((options.capacity,), start.dtype)
    omega = jnp.asarray(omega, start.dtype)
    return LoopState(state, jnp.int32(0), history, omega, most, jnp.int32(0)), schedule


def begin_burst(problem: Problem, loop: LoopState) -> Burst:
    """Burst of fast updates before its first, with a cached kernel where all costs are cached."""
    kernel = None
    if problem.a.shape[0] * problem.b.shape[0] <= MAX_CACHED_COSTS:
        # The kernel belongs to one ε: a burst ends when ε falls below it.
        kernel = gibbs_kernel(problem, loop.state.g, loop.state.epsilon)
    return Burst(loop, kernel, loop.state.epsilon, jnp.bool_(True))


def continue_burst(
    cost: TileCost, options: Options, numbers: tuple[Any, ...], burst: Burst, limit: Any = None
) -> Burst:
    """The burst after its last exact update, or at iteration ``limit``."""
    problem, rounding, schedule, tol, max_steps = numbers
    if burst.kernel is None:
        fast = partial(fast_update, cost, problem)
    else:
        fast = partial(kernel_update, problem, burst.kernel)

    def unbroken(carry):
        loop, exact = carry
        goes_on = is_unbroken(max_steps, burst._replace(loop=loop, exact=exact))
        return goes_on if limit is None else goes_on & (loop.steps < limit)

    def fast_step(carry):
        loop, _ = carry
        state = loop.state
        update, exact = fast(state.f, state.g, state.epsilon, loop.omega)
        following = _advance(options, problem, rounding, schedule, tol, loop, update)
        return jax.tree.map(partial(jnp.where, exact), following, loop), exact

    loop, exact = jax.lax.while_loop(unbroken, fast_step, (burst.loop, burst.exact))
    return burst._replace(loop=loop, exact=exact)


def is_unbroken(max_steps: Any, burst: Burst) -> Bool[Array, ""]:
    """True if a burst has further updates."""
    # Not "equal": an ε of NaN would never be, and no iteration would find that out.
    return burst.exact & _unfinished(max_steps, burst.loop) & ~(burst.loop.state.epsilon < burst.epsilon)


def end_burst(cost: TileCost, options: Options, numbers: tuple[Any, ...], burst: Burst) -> LoopState:
    """The loop after a burst: where its last update was not exact, a stable one is made in its place."""
    problem, rounding, schedule, tol, _ = numbers

    def stable_step(loop):
        state = loop.state
        update = stable_update(cost, problem, state.f, state.g, state.epsilon, loop.omega)
        return _advance(options, problem, rounding, schedule, tol, loop, update)

    return jax.lax.cond(burst.exact, lambda loop: loop, stable_step, burst.loop)


def _unfinished(max_steps, loop):
    # NaN ends it too.
    return ~loop.state.ended & (loop.state.residual >= 0) & (loop.steps < max_steps)


@persistent_jit(static_argnums=(0, 1))
def _chunk(cost, options, numbers, burst, limit):
    """A burst up to a limit, the next one where it is over before that, and whether that one has updates."""
    burst = continue_burst(cost, options, numbers, burst, limit)
    return burst, is_unbroken(numbers[-1], burst)


@persistent_jit(static_argnums=(0, 1))
def _next_burst(cost, options, numbers, burst):
    """The burst after one that is over, and whether it has updates."""
    loop = end_burst(cost, options, numbers, burst)
    return begin_burst(numbers[0], loop), _unfinished(numbers[-1], loop)


_first_burst = persistent_jit(begin_burst)


def iterate_in_chunks(
    cost: TileCost, options: Options, numbers: tuple[Any, ...], loop: LoopState, work: float
) -> tuple[LoopState, bool]:
    """`iterate_bursts` of a concrete problem, with its arguments.

    Args:
        work: products and sums of an iteration.

    Returns:
        The loop at its end, and whether Ctrl-C ended it.
    """
    burst, budget = _first_burst(numbers[0], loop), chunks.Budget(work)
    unfinished, steps, most = True, 0, int(min(numbers[-1], jnp.iinfo(jnp.int32).max))
    while unfinished:
        if signals.interrupted():
            return burst.loop, True
        with budget:
            burst, goes_on = _chunk(cost, options, numbers, burst, min(steps + budget.steps, most))
            goes_on, before, steps = bool(goes_on), steps, int(burst.loop.steps)
            budget.taken = steps - before  # few, while every iteration has an ε of its own
        if not goes_on:
            burst, unfinished = _next_burst(cost, options, numbers, burst)
            unfinished = bool(unfinished)
    return burst.loop, False


def unrolled_updates(
    cost: TileCost, options: Options, problem: Problem, rounding: Rounding, start, omega, decay
) -> tuple[Array, Array]:
    """Potentials after ``options.num_iters`` iterations, differentiable backwards through all of them.

    Returns:
        f and g.
    """
    omega = jnp.asarray(omega, start.dtype)
    begin = initial_state(options, cost, problem, start)
    schedule = epsilon_schedule(problem, begin.epsilon, decay, options.num_iters)

    def advance(state):
        arguments = (problem, state.f, state.g, state.epsilon, omega)
        fast, exact = fast_update(cost, *arguments)
        update = jax.lax.cond(exact, lambda *_: fast, lambda *inputs: stable_update(cost, *inputs), *arguments)
        return next_state(options, problem, rounding, schedule, None, state, update)

    state = trace(advance, begin, steps=options.num_iters).state
    return state.f, state.g


def initial_state(options: Options, cost: TileCost, problem: Problem, start) -> SinkhornState:
    """State before the first update: f = 0, g = ``start``, and ε, or the cost it is annealed from."""
    first = jnp.maximum(problem.epsilon, typical_cost(cost, problem)) if options.annealed else problem.epsilon
    # ε may be NaN, and the start too: the first update finds that out.
    most = jnp.asarray(jnp.inf, start.dtype)
    return SinkhornState(jnp.zeros_like(problem.a), start, first, most, most, jnp.zeros_like(most), jnp.bool_(False))


def epsilon_schedule(problem: Problem, first, decay, max_steps) -> EpsilonSchedule:
    """Schedule from the first ε down to that of the problem."""
    most = jnp.asarray(max_steps).astype(first.dtype)
    growth = jnp.maximum(ANNEAL_STEP, MAX_ANNEAL_FRACTION_INV * jnp.sqrt(first / problem.epsilon) / most)
    return EpsilonSchedule(first, jnp.asarray(decay, first.dtype), growth)


def next_state(
    options: Options, problem: Problem, rounding: Rounding, schedule: EpsilonSchedule, tol, state, update
) -> SinkhornState:
    """State after a `PotentialUpdate`; without a ``tol`` it never ends."""
    f, g = update.f, update.g
    if options.symmetric:
        # The mean of a potential and its transform: at the fixed point both are equal, after a few iterations.
        f = g = (state.f + update.f) / 2
    f, g = recenter_potentials(problem, f, g)
    annealing = state.epsilon > problem.epsilon
    residual = jnp.where(annealing, jnp.inf, update.error)
    noise = exponent_rounding(problem, rounding, update.f, state.g, problem.epsilon)
    ended = jnp.bool_(False)
    if tol is not None:
        ended = ~annealing & ((update.error + 2 * noise <= tol) | (update.error <= noise))
        f, g = jnp.where(ended, update.f, f), jnp.where(ended, state.g, g)
    # √(first/ε) grows linearly, so ε falls as 1/t²: the smaller ε is, the more updates a plan needs to follow it, and
    # one factor all the way down would leave it behind.
    factor = 1 / jnp.square(1 + schedule.growth * jnp.sqrt(state.epsilon / schedule.first))
    epsilon = jnp.maximum(problem.epsilon, state.epsilon * jnp.maximum(schedule.decay, factor))
    return SinkhornState(f, g, epsilon, residual, update.error, noise, ended)


def _advance(options, problem, rounding, schedule, tol, loop: LoopState, update: PotentialUpdate) -> LoopState:
    state = next_state(options, problem, rounding, schedule, tol, loop.state, update)
    history = loop.history.at[loop.steps].set(state.objective, mode="drop")
    loop = loop._replace(state=state, steps=loop.steps + 1, history=history)
    return _with_adapted_omega(loop) if options.adaptive else loop


def _with_adapted_omega(loop: LoopState) -> LoopState:
    """Over-relaxation from the rate of convergence, chosen again after each two windows."""
    error, omega = loop.state.residual, loop.omega
    # While ε is annealed there is no error to measure.
    age = jnp.where(jnp.isinf(error) & (loop.age == 0), 0, loop.age + 1)
    # Another ω makes another mix of errors first, so a window passes before the one that is measured.
    mark = jnp.where(age == RATE_WINDOW, error, loop.mark)
    due = age == 2 * RATE_WINDOW
    rate = jnp.clip((error / jnp.where(mark > 0, mark, 1)) ** (1 / RATE_WINDOW), 1e-3, None)
    # With the rate r at ω, plain updates have the rate θ with (r + ω − 1)² = r·ω²·θ, and the best ω is
    # 2/(1 + √(1 − θ)).
    plain = jnp.clip(jnp.square(rate + omega - 1) / (rate * jnp.square(omega)), 0, 1)
    best = jnp.clip(2 / (1 + jnp.sqrt(1 - plain)), omega, MAX_OMEGA)
    # Errors that rise take ω half of the way back to 1, large ones all of it.
    chosen = jnp.where(rate < 1, best, (1 + omega) / 2)
    chosen = jnp.where(error < RATE_ESTIMATION_ERROR, chosen, 1)
    return loop._replace(omega=jnp.where(due, chosen, omega), mark=mark, age=jnp.where(due, 0, age))

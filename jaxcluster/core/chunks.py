"""Loops on concrete arrays in chunks of compiled steps, between which Ctrl-C is answered and progress is shown.

A compiled loop listens to nothing until it returns. So a long one runs as many calls of one program, which takes the
number of steps as an argument: a chunk lasts about `CHUNK_SECONDS`, by the time that the chunk before has taken. The
steps are the same, so that the result is, bit by bit, that of one call. Traced loops and short ones are one call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import loop_checkpoints, signals, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.iterate import advance
from jaxcluster.core.loop_checkpoints import LoopCheckpoints
from jaxcluster.types import Fit, KeyArray, Status

SHORT_WORK = 1 << 36
"""Products and sums of a fit that always ends within about a second on two cores: it is one compiled program."""

FIRST_WORK = 1 << 29
"""Products and sums of the first chunk, whose time is not known yet: at most about 0.2 seconds on two cores."""

CHUNK_SECONDS = 0.3
"""Time of a chunk: short enough for an answer within a second, long enough for its call to cost nothing."""

MAX_GROWTH = 16
"""Largest factor between the steps of two chunks: the first one's time may be that of the compiler."""


class Step(NamedTuple):
    """Step function with its static options; with `jax.tree_util.Partial` and its operands it is an argument of jit.

    Attributes:
        function: (static, *operands, state) -> state.
        static: hashable options.
    """

    function: Callable[..., Any]
    static: Any

    def __call__(self, *operands: Any) -> Any:
        """The state after a step."""
        return self.function(self.static, *operands)


class Progress(NamedTuple):
    """Progress of a loop after a chunk.

    Attributes:
        steps: number of steps so far.
        max_steps: largest number of steps.
        objectives: the objective after each step of the chunk, in the caller's units.
        seconds_left: time of the steps that are left, if all are taken; None after the last step, and after the first
            chunk, whose time may be that of the compiler.
    """

    steps: int
    max_steps: int
    objectives: np.ndarray
    seconds_left: float | None


Observer = Callable[[Progress], object]

_observers: list[tuple[Observer, bool]] = []


@contextmanager
def watching(observer: Observer, *, short: bool = True) -> Iterator[None]:
    """Context in which ``observer`` is called after every chunk, with ``short`` also of fits that need no chunks."""
    _observers.append((observer, short))
    try:
        yield
    finally:
        _observers.remove((observer, short))


def bind(function: Callable[..., Any], static: Any, *operands: Any) -> jax.tree_util.Partial:
    """Step ``state -> function(static, *operands, state)`` that finds its compiled program again."""
    return jax.tree_util.Partial(Step(function, static), *operands)


def is_long(work: float, max_steps: Any, *arguments: Any) -> bool:
    """True for a fit of concrete arguments that may take longer than an answer to Ctrl-C should.

    Args:
        work: products and sums of a step, of all starts together.
        max_steps: largest number of steps.
        arguments: of the fit. One that is watched counts as long.
    """
    if validation.is_traced(max_steps, *arguments):
        return False
    return work * max_steps > SHORT_WORK or any(short for _, short in _observers)


class Runner:
    """Calls of compiled steps by one process; `jaxcluster.core.row_loops` has those of a loop over a mesh."""

    def advance(self, step: jax.tree_util.Partial, fit: Fit, tol: Any, limit: Any) -> Fit:
        """The fit with the steps up to number ``limit``."""
        return _chunk(step, fit, tol, limit)

    def agree(self, steps: int) -> int:
        """Number of steps of the next chunk, of which this process can take so many."""
        return steps

    def stop_requested(self) -> bool:
        """True if a signal has requested the process to stop."""
        return signals.stop_requested() is not None

    def interrupted(self) -> bool:
        """`signals.interrupted`."""
        return signals.interrupted()

    def end(self, fit: Fit) -> Fit:
        """The fit with the status of one that was interrupted."""
        return fit._replace(status=_interrupted(fit.status))


ALONE = Runner()


def resume(
    step: jax.tree_util.Partial,
    fit: Fit,
    *,
    tol: Any,
    max_steps: Any,
    work: float = 0,
    shown: Callable[[np.ndarray], Any] | None = None,
    runner: Runner = ALONE,
    saved: LoopCheckpoints | None = None,
) -> Fit:
    """Iteration of a fit until it converges or has taken ``max_steps`` steps.

    Args:
        step: made by `bind`.
        fit: made by `jaxcluster.core.iterate.begin`, or a fit to continue.
        tol: tolerance, in the units of the residual; traced.
        max_steps: most steps; traced.
        work: products and sums of a step, from which the first chunk is chosen.
        shown: history in the frame -> in the caller's units; None for a loop that observers are not told of.
        runner: of the steps.
        saved: checkpoints of the loop, which the caller has restored; None for those of `resumable`.

    Returns:
        The fit. Where Ctrl-C ended it before it had converged, its status is INTERRUPTED.
    """
    if validation.is_traced(step, fit, tol, max_steps):
        return advance(step, fit, tol=tol, max_steps=max_steps)
    if saved is None and runner is ALONE:
        saved = loop_checkpoints.next_loop(step)
        fit = fit if saved is None else saved.restore(fit)
    budget, steps, most, unfinished = Budget(work), int(fit.steps), int(max_steps), True
    while unfinished:
        before, more = steps, runner.agree(budget.steps)
        if _asked_to_stop(runner, saved, fit):
            return runner.end(fit)
        with budget:
            budget.taken = more
            fit = runner.advance(step, fit, tol, min(most, steps + more))
            steps, status = int(fit.steps), int(fit.status)
        unfinished = status == Status.MAX_STEPS and steps < most
        if saved is not None:
            saved.after_chunk(fit, steps, ended=not unfinished)
        if _observers and shown is not None:
            # The first chunk includes the compilation: its seconds say nothing of the others.
            left = (most - steps) * budget.seconds / max(1, steps - before) if unfinished and before else None
            progress = Progress(steps, most, np.asarray(shown(np.asarray(fit.history)))[before:steps], left)
            tell(progress)
    return fit


class End:
    """Last part of a fit, which is compiled before its loop.

    Args:
        program: (static, fit, *operands) -> result, made by `persistent_jit`.
        static: hashable options.
        operands: what the program takes besides the fit.
    """

    def __init__(self, program: Any, static: Any, *operands: Any) -> None:
        self._program, self._static, self._operands = program, static, operands

    def __call__(self, fit: Fit) -> Any:
        """The result."""
        return self._program(self._static, fit, *self._operands)

    def compile(self, fit: Any) -> Any:
        """Compile it by a fit before its first step, or by the shapes of one; returns the shapes of the result."""
        return self._program.compile(self._static, fit, *self._operands)


def _asked_to_stop(runner, saved, fit):
    """`Runner.interrupted`, after the fit is saved."""
    if saved is not None and runner.stop_requested():
        saved.stop(fit, int(fit.steps))
    return runner.interrupted()


def tell(progress: Progress) -> None:
    """Tell all observers of the steps of a loop on the host."""
    for observer, _ in tuple(_observers):
        observer(progress)


def runs_at_once(work: float, runs: int) -> int | None:
    """Most of several runs that a thread should take in one call, for `batching.map_threaded`.

    Args:
        work: products and sums of one run, at most.
        runs: their number.

    Returns:
        None where all of them are one call, as no one has to wait for it.
    """
    return None if work * runs <= SHORT_WORK else max(1, int(SHORT_WORK // 4 // max(work, 1)))


def in_parts(run: Callable[[int, int], object], count: int, work: float) -> None:
    """Calls of ``run`` on parts of a range, between which Ctrl-C raises KeyboardInterrupt.

    Args:
        run: (start, stop) -> anything; it returns when its part is done.
        count: length of the range.
        work: products and sums of one of its elements.
    """
    start, budget = 0, Budget(work)
    while start < count:
        signals.check_stopped()
        stop = min(count, start + budget.steps)
        with budget:
            run(start, stop)
        start = stop


class Budget:
    """Number of steps of the next chunk; as a context it measures the chunk, and is renewed at its end.

    Args:
        work: products and sums of a step, from which the first chunk is chosen.

    Attributes:
        steps: number of steps that last `CHUNK_SECONDS`, by the time of the chunk before.
        taken: steps of the chunk; to be set in the context where they may be fewer.
        seconds: time of the chunk before.
    """

    def __init__(self, work: float) -> None:
        self.steps = self.taken = max(1, int(FIRST_WORK // max(work, 1)))
        self.seconds = self._start = 0.0

    def __enter__(self) -> None:
        self.taken, self._start = self.steps, time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self._start
        self.steps = max(1, int(self.taken * min(MAX_GROWTH, CHUNK_SECONDS / max(self.seconds, 1e-6))))


class Loop:
    """Fit of three parts, in one program or in chunks that Ctrl-C can end.

    Args:
        start: (static, *arguments) -> operands of the step, fit made by `iterate.begin`, tolerance, most steps.
        step: (static, *operands, state) -> state.
        end: (static, fit, operands, *arguments) -> result.
    """

    def __init__(self, start: Callable[..., Any], step: Callable[..., Any], end: Callable[..., Any]) -> None:
        self._start, self._step, self._end = start, step, end
        self._compiled_start = persistent_jit(start, static_argnums=0)
        self._compiled_end = persistent_jit(end, static_argnums=0)
        self._compiled = persistent_jit(partial(_whole, start, step, end), static_argnums=0)

    def __call__(
        self,
        static: Any,
        *arguments: Any,
        work: float,
        max_steps: Any,
        shown: Callable[[np.ndarray], Any] | None = None,
    ) -> Any:
        """The result.

        Args:
            static: hashable options.
            arguments: traced, or concrete.
            work: products and sums of a step.
            max_steps: most steps, or an upper bound.
            shown: as in `resume`.
        """
        if not is_long(work, max_steps, *arguments):
            return self._compiled(static, *arguments)
        operands, fit, tol, most = self._compiled_start(static, *arguments)
        end, step = End(self._compiled_end, static, operands, *arguments), bind(self._step, static, *operands)
        end.compile(fit)
        return end(resume(step, fit, tol=tol, max_steps=most, work=work, shown=shown))

    def compile(self, static: Any, *arguments: Any) -> None:
        """Compile the first and the last part of a long fit that is called later."""
        operands, fit, *_ = self._compiled_start.compile(static, *arguments)
        End(self._compiled_end, static, operands, *arguments).compile(fit)

    def whole(self, static: Any, *arguments: Any) -> Any:
        """The result as one traced loop."""
        return _whole(self._start, self._step, self._end, static, *arguments)


def _whole(start, step, end, static, *arguments):
    operands, fit, tol, most = start(static, *arguments)
    fit = advance(partial(step, static, *operands), fit, tol=tol, max_steps=most)
    return end(static, fit, operands, *arguments)


def best_of_starts(run: Callable[[KeyArray], Fit], key: KeyArray, runs: int, runner: Runner = ALONE) -> Fit:
    """Best of several runs, one after the other, as `batching.best_run` has it; Ctrl-C ends them with the best so far.

    Args:
        run: key -> fit whose state has an ``objective``; a run that is not finite loses.
        key: random key; a single run has the whole of it.
        runs: their number.
        runner: of their steps.
    """
    if runs == 1:
        return run(key)
    fits: list[Fit] = []
    for i in range(runs):
        fits = [*fits, run(key_of_run(key, runs, i))]
        best = min(fits, key=lambda fit: float(np.nan_to_num(fit.state.objective, nan=np.inf)))  # the first of equals
        runner.agree(0)
        if runner.interrupted():
            return runner.end(best)
        fits = [best]
    return fits[0]


@persistent_jit(static_argnums=1)
def key_of_run(key: KeyArray, runs: int, i: Any) -> KeyArray:
    """Key of the i-th of several runs."""
    return jax.random.split(key, runs)[i]


@persistent_jit
def _chunk(step, fit, tol, limit):
    return advance(step, fit, tol=tol, max_steps=limit)


@persistent_jit
def _interrupted(status):
    """INTERRUPTED, unless the fit has failed already."""
    return jnp.where(status == Status.NOT_FINITE, status, Status.INTERRUPTED).astype(jnp.int32)

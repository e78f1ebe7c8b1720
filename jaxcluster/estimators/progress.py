"""Lines that a fit with ``verbose`` prints as it goes on: plain text, on a terminal, in a file and in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jaxcluster.core import chunks
from jaxcluster.core.chunks import Progress

SHOWN_SECONDS = 1.0
"""Seconds that a fit may still take, from which on a line says so."""


class StepPrinter:
    """Observer of a fit that prints a line for each step, and after a chunk of them the time that is left at most.

    Args:
        line: (step from 0, objective) -> line.
        head: line before the first step of each start; empty for none.
    """

    def __init__(self, line: Callable[[int, float], str], head: str = "") -> None:
        self._line, self._head = line, head
        self._printed = self._starts = 0

    def __call__(self, progress: Progress) -> None:
        """Print the steps of a chunk."""
        if progress.steps == len(progress.objectives):
            self._printed, self._starts = 0, self._starts + 1
            print(self._head, end="\n" if self._head else "")
        self._print_from(progress.objectives, progress.steps - len(progress.objectives))
        self._printed = progress.steps
        if progress.seconds_left is not None and progress.seconds_left >= SHOWN_SECONDS:
            print(f"{left_in_words(progress)}.", flush=True)

    def finish(self, history: Any) -> None:
        """Print the steps of a finished fit that no chunk has shown."""
        if self._starts == 0 and self._head:
            print(self._head)
        if self._starts < 2:
            self._print_from(history[self._printed :], self._printed)

    def _print_from(self, objectives, first):
        for step, objective in enumerate(objectives, start=first):
            print(self._line(step, objective), flush=True)


def left_in_words(progress: Progress) -> str:
    """Steps so far and, where it is known, the time that is left at most, in words.

    >>> left_in_words(Progress(20, 300, (), 140.0))
    '20 of at most 300 steps, at most 140 s left'
    """
    left = "" if progress.seconds_left is None else f", at most {progress.seconds_left:,.0f} s left"
    return f"{progress.steps:,} of at most {progress.max_steps:,} steps{left}"


class PrintsSteps:
    """Base of estimators whose ``verbose`` prints the steps of a fit."""

    history_: Any

    @contextmanager
    def _printed_live(self) -> Iterator[None]:
        """Context of the fit, in which each step is printed as it is done, if ``verbose`` is set."""
        if not getattr(self, "verbose", False):
            yield
            return
        self._printer = StepPrinter(self._step_line, self._start_line)
        try:
            with chunks.watching(self._printer):
                yield
        except BaseException:
            del self._printer
            raise

    _start_line = ""
    """Line that ``verbose`` prints before the first step."""

    def _step_line(self, step: int, objective: float) -> str:
        """Line that ``verbose`` prints after a step, numbered from 0."""
        return f"{type(self).__name__} step {step + 1}: {objective:.6g}"

    def _print_history(self) -> None:
        """Print the steps that `_printed_live` has not shown, if the estimator has ``verbose`` and it is set."""
        if getattr(self, "verbose", False):
            printer = vars(self).pop("_printer", None) or StepPrinter(self._step_line, self._start_line)
            printer.finish(self.history_)

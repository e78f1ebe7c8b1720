"""Messages of a fit: the steps that ``verbose`` prints, warnings about its ending, and its table in a notebook."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from jaxcluster.core import chunks
from jaxcluster.core.chunks import Progress
from jaxcluster.core.dtypes import float_dtype
from jaxcluster.core.messages import facts, sizes_in_words, sparkline
from jaxcluster.core.preparation import counting
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.estimators.input_tables import row_bytes
from jaxcluster.types import Status

SHOWN_SECONDS = 1.0
"""Seconds that a fit may still take, from which on a line says so."""

ENDINGS = {
    Status.CONVERGED: "converged",
    Status.MAX_STEPS: "step limit reached",
    Status.NOT_FINITE: "not finite",
    Status.EMPTY_CLUSTERS: "empty clusters",
    Status.COLLAPSED: "collapsed",
    Status.PRECISION: "precision limit",
    Status.INTERRUPTED: "interrupted",
}
"""Status of a fit, in a word or two."""


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

    ENDINGS: ClassVar[Mapping[Status, str]] = ENDINGS
    """Status of the last fit, in words for the repr."""

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


def empty_message(n_clusters: int, X: Any, weights: np.ndarray | None, labels: np.ndarray | None) -> str:
    """Cause of empty clusters, in words: too few distinct samples, too few of positive weight, or precision."""
    # The first cause that explains the count is reported: duplicates, zero weights, weights below the dtype's
    # resolution, precision.
    positive = np.ones(X.shape[0], bool) if weights is None else weights > 0
    occupied = "fewer" if labels is None else np.unique(labels[positive]).size
    message = f"Number of distinct clusters ({occupied}) found smaller than n_clusters ({n_clusters}). "
    distinct = distinct_rows(X, positive)
    if distinct < n_clusters and distinct < positive.sum():
        return message + (
            f"Possibly due to duplicate points in X. X has {distinct} distinct row{'' if distinct == 1 else 's'} "
            "of positive weight: pass fewer clusters."
        )
    if distinct < n_clusters:
        return message + f"Only {distinct} row{' has' if distinct == 1 else 's have'} a positive sample_weight."
    dtype = float_dtype(X.dtype)
    counted = positive if weights is None else counting(weights, dtype)
    if (heavy := distinct_rows(X, counted)) < n_clusters:
        return message + (
            f"Only {heavy} of {distinct} distinct rows count: the other weights are too small beside the largest for "
            f"{dtype}. Pass weights that differ by less than 1e38, or fewer clusters."
        )
    return message + (
        f"X has {distinct} distinct rows, so some cannot be told apart in the precision of the computation, or "
        "were never nearest to a center: scale the columns, pass another init, or compute in float64 with "
        "jax.config.update('jax_enable_x64', True)."
    )


def distinct_rows(X: Any, counted: np.ndarray) -> int:
    """Number of distinct rows among those that the mask ``counted`` selects."""
    if is_sparse(X):
        return len(set(row_bytes(X[counted])))
    return len(np.unique(X[counted], axis=0))


PRECISION_MESSAGE = (
    "Rows of X differ by less than float32 can tell apart beside their distance from the other rows, so labels may not "
    "be those of exact arithmetic. Scale the columns, drop rows that are far away, subtract what integers beyond 2^53 "
    "have in common, or compute in float64 with jax.config.update('jax_enable_x64', True)."
)
"""Warning of a fit whose status is PRECISION, with its remedies."""


def fit_html(estimator: Any) -> str:
    """A table of the last fit: its ending, the sizes of the clusters, and a curve of the objective; empty before it."""
    if not estimator.__sklearn_is_fitted__():
        return ""
    history = getattr(estimator, "history_", None)
    labels = getattr(estimator, "labels_", None)
    objective = estimator.info.objective or "objective"
    rows = {
        "fit": html.escape(estimator._summary()),
        "clusters": "" if labels is None or np.ndim(labels) != 1 or not len(labels) else sizes_in_words(labels),
        objective: "" if history is None or np.ndim(history) != 1 else sparkline(history, objective),
    }
    return facts("", rows)

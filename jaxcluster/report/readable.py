"""Rows of a report in the units and words of the data: columns of numbers, of words and of dates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster.report.profiles import readable_columns

if TYPE_CHECKING:
    from jaxcluster.report.context import ReportContext

MAX_CHOICE_ROWS = 2_000
"""Rows from which the columns that differ most between clusters are chosen."""


class Readable(NamedTuple):
    """Some rows, and all or some columns, as a person reads them.

    Attributes:
        order: names of the columns as they come in the data.
        numbers: float64 by name, NaN for missing cells; dates are days since 1970-01-01.
        words: objects by name, None for missing cells.
        dates: names of the numbers that are dates.
        width: number of all columns.
    """

    order: list[str]
    numbers: dict[str, np.ndarray]
    words: dict[str, np.ndarray]
    dates: frozenset[str]
    width: int


def readable_rows(run: ReportContext, rows: np.ndarray, most: int) -> Readable:
    """The rows, in at most ``most`` columns: those in which clusters differ most, where there are more.

    Args:
        run: the run, with a table of the rows as a person reads them, or with rows that a scaling is undone on.
        rows: (m,) numbers of rows.
        most: number of columns.
    """
    named = isinstance(run.table, Mapping) or hasattr(run.table, "columns")
    if named:
        return _of_table(run, rows, most)
    x, scaling = (run.dataset.x, run.scaling) if run.table is None else (np.asarray(run.table), None)
    chosen = np.arange(x.shape[1])
    if len(chosen) > most:
        some = rows[:: -(-len(rows) // MAX_CHOICE_ROWS)]
        chosen = np.sort(np.argsort(-separation(x[some], run.labels[some]), kind="stable")[:most])
    cells = np.asarray(x[np.ix_(rows, chosen)], np.float64)
    if scaling is not None and scaling.shift is not None:
        cells = cells * scaling.factor[chosen] + scaling.shift[chosen]
    if scaling is not None and scaling.origin is not None:
        cells = cells + np.array(scaling.origin, np.float64)[chosen]
    names = run.dataset.columns
    names = [f"column {j}" for j in chosen] if names is None else [str(names[j]) for j in chosen]
    if len(set(names)) < len(names):
        names = [f"{name} ({j})" for name, j in zip(names, chosen, strict=True)]
    return Readable(names, dict(zip(names, cells.T, strict=True)), {}, frozenset(), x.shape[1])


def _of_table(run: ReportContext, rows: np.ndarray, most: int) -> Readable:
    table: Any = run.table
    names = list(table if isinstance(table, Mapping) else table.columns)
    named = readable_columns(None, {str(name): np.asarray(table[name])[rows] for name in names})
    order = list(map(str, names))
    width = len(order)
    if width > most:
        apart = {}
        if named.numbers:
            values = separation(np.column_stack(list(named.numbers.values())), run.labels[rows])
            apart = dict(zip(named.numbers, values.tolist(), strict=True))
        # Words have no variance: half of the places are theirs, in the order of the table.
        words = [name for name in order if name in named.words][: most if not apart else most // 2]
        numbers = sorted(apart, key=lambda name: -apart[name])[: most - len(words)]
        order = [name for name in order if name in {*words, *numbers}]
    numbers = {name: named.numbers[name] for name in order if name in named.numbers}
    words = {name: named.words[name] for name in order if name in named.words}
    return Readable(order, numbers, words, named.dates, width)


def separation(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n_features,) share of the variance of each column that lies between clusters (η²); 0 for a constant column.

    >>> separation(np.array([[0.0, 1.0], [0.0, 2.0], [9.0, 1.0], [9.0, 2.0]]), np.array([0, 0, 1, 1])).tolist()
    [1.0, 0.0]
    """
    x = np.asarray(x, np.float64)
    low, high = np.fmin.reduce(x, axis=0), np.fmax.reduce(x, axis=0)
    width = np.where(high > low, high - low, 1)
    # In units of the range: squares of large numbers would overflow. A missing cell counts as the middle.
    x = np.nan_to_num((x - low) / width, nan=0.5)
    x = x - x.mean(axis=0)
    codes = np.unique(labels, return_inverse=True)[1].ravel()
    counts = np.bincount(codes)
    sums = np.zeros((len(counts), x.shape[1]))
    np.add.at(sums, codes, x)
    between, total = np.sum(sums**2 / counts[:, None], axis=0), np.sum(x**2, axis=0)
    return np.where(total > 0, between / np.where(total > 0, total, 1), 0.0)

"""Rows of a report in the units and words of the data, and box plots of its columns in each cluster.

A box plot is one small SVG that needs no script. A box reaches from the first to the third quartile, with the median as
a line; whiskers end at the last row within 1.5 times that range of the box. Source: J. W. Tukey, Exploratory Data
Analysis, Addison-Wesley 1977.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster.datasets.base import DataError
from jaxcluster.datasets.dataframes import as_rows, is_missing
from jaxcluster.plots.style import color_of, is_noise, sample_indices
from jaxcluster.report import tables

if TYPE_CHECKING:
    from jaxcluster.report.context import ReportContext

MAX_CHOICE_ROWS = 2_000
"""Rows from which the columns that differ most between clusters are chosen."""


class Columns(NamedTuple):
    """Columns of a table by kind.

    Attributes:
        numbers: float64 by name, NaN for missing cells; dates are days since 1970-01-01.
        words: objects by name, None for missing cells.
        dates: names of the numbers that are dates.
    """

    numbers: dict[str, np.ndarray]
    words: dict[str, np.ndarray]
    dates: frozenset[str]


def readable_columns(model: Any, table: Any, columns: Sequence[str] | None = None) -> Columns:
    """Columns of a table, a mapping of columns, or an array.

    Args:
        model: fitted estimator, whose names and codes of columns an array has.
        table: (n_samples, n_features).
        columns: names of the columns of an array.

    Raises:
        ValueError: another number of names than columns.
    """
    table = as_rows(table)
    if not isinstance(table, Mapping) and not hasattr(table, "columns"):
        table = _named_array(model, np.asarray(table), columns)
    named = table if isinstance(table, Mapping) else {str(name): table[name] for name in table.columns}
    numbers, words, dates = {}, {}, set()
    for name, column in named.items():
        values = np.asarray(column)
        if values.dtype.kind in "iuf":
            numbers[name] = values.astype(np.float64)
        elif values.dtype.kind == "M":
            moments = values.astype("datetime64[ms]")
            numbers[name] = np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / 86_400_000)
            dates.add(name)
        elif values.dtype.kind == "b":
            words[name] = np.where(values, "true", "false").astype(object)
        else:
            words[name] = np.array([None if is_missing(cell) else str(cell) for cell in values], object)
    return Columns(numbers, words, frozenset(dates))


def names_of(model: Any, width: int) -> Sequence[str] | None:
    """Names that a model knows of its columns: those of its fit, or the terms of texts."""
    vectorizer = getattr(model, "input_vectorizer_", None)
    known = getattr(model, "feature_names_in_", () if vectorizer is None else vectorizer.vocabulary)
    return known if len(known) == width else None


def _named_array(model: Any, x: np.ndarray, columns: Sequence[str] | None) -> dict[str, np.ndarray]:
    encoding, names = getattr(model, "input_encoding_", None), columns
    if encoding is not None and x.shape[1] == len(encoding.features):
        return encoding.decode(x)
    if names is None:
        names = names_of(model, x.shape[1])
        names = [f"column {j}" for j in range(x.shape[1])] if names is None else names
    if len(names) != x.shape[1]:
        raise DataError(f"{len(names)} names do not fit {x.shape[1]} columns: one each is needed.")
    # Names may repeat in a file.
    repeated = len(set(names)) < len(names)
    return {f"{name} ({j})" if repeated else str(name): x[:, j] for j, name in enumerate(names)}


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


MAX_COLUMNS, MAX_CLUSTERS, MAX_ROWS = 9, 20, 50_000
"""Columns that are drawn, those in which the clusters differ most; clusters, the largest; and rows that are counted."""

WHISKER_RANGES = 1.5
"""Quartile ranges from the box that a whisker reaches at most."""


class Box(NamedTuple):
    """Quartiles, ends of the whiskers, and number of rows beyond them."""

    low: float
    first: float
    median: float
    third: float
    high: float
    outside: int


def box_of(values: np.ndarray) -> Box:
    """The box of at least one finite number.

    >>> box_of(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 99.0]))
    Box(low=0.0, first=1.25, median=2.5, third=3.75, high=4.0, outside=1)
    """
    first, median, third = np.quantile(values, [0.25, 0.5, 0.75])
    inside = values[
        (values >= first - WHISKER_RANGES * (third - first)) & (values <= third + WHISKER_RANGES * (third - first))
    ]
    ends = (inside.min(), inside.max()) if len(inside) else (first, third)
    low, high = float(min(ends[0], first)), float(max(ends[1], third))
    return Box(low, float(first), float(median), float(third), high, len(values) - len(inside))


def box_plots(run: ReportContext) -> str:
    """Cards of box plots by cluster, one for each column of numbers; empty for images and for rows of noise alone."""
    if run.dataset.image_shape is not None or run.noise.all():
        return ""
    rows = sample_indices(len(run.labels), MAX_ROWS)
    table, labels = readable_rows(run, rows, MAX_COLUMNS), run.labels[rows]
    clusters, counts = np.unique(labels[~is_noise(labels)], return_counts=True)
    shown = np.sort(clusters[np.argsort(-counts, kind="stable")][:MAX_CLUSTERS]).tolist()
    cards = "".join(
        f'<figure class="card">{_svg(name, [(each, table.numbers[name][labels == each]) for each in shown])}</figure>'
        for name in _by_separation(table, labels)
    )
    if not cards:
        return ""
    few = f", of the {len(shown)} largest clusters" if len(shown) < len(clusters) else ""
    caption = (
        f"Box plots, in the data's units{few}: the middle half of the rows, their median, and whiskers of at most "
        f"{WHISKER_RANGES} times the box."
    )
    return f'<p class="note">{caption}</p><div class="boxes">{cards}</div>'


def _by_separation(table: Readable, labels: np.ndarray) -> list[str]:
    """Names of the columns of numbers that are no dates and vary, those in which the clusters differ most first."""
    names = [name for name in table.numbers if name not in table.dates]
    names = [name for name in names if len(np.unique(table.numbers[name][np.isfinite(table.numbers[name])])) > 1]
    if not names:
        return []
    apart = separation(np.column_stack([table.numbers[name] for name in names]), labels)
    return [names[i] for i in np.argsort(-apart, kind="stable")]


def _svg(name: str, groups: Sequence[tuple[int, np.ndarray]]) -> str:
    """Boxes side by side, one for each group of numbers of a column."""
    boxes = [(cluster, box_of(cells[np.isfinite(cells)])) for cluster, cells in groups if np.isfinite(cells).any()]
    low, high = min(box.low for _, box in boxes), max(box.high for _, box in boxes)
    half = high / 2 - low / 2  # the range itself may overflow
    height, top, left, width = 150, 24, 64, 300

    def up(value: float) -> float:
        return top + height * (1 - ((value / 2 - low / 2) / half if half > 0 else 0.5))

    step = (width - left - 6) / len(boxes)
    parts = []
    for i, (cluster, box) in enumerate(boxes):
        middle, wide = left + (i + 0.5) * step, min(26.0, 0.62 * step)
        y = [up(value) for value in box[:5]]
        title = html.escape(
            f"{name}, cluster {cluster}: median {tables.number(box.median)}, half of the rows from "
            f"{tables.number(box.first)} to {tables.number(box.third)}; {box.outside:,} rows outside"
        )
        parts.append(
            f'<g><title>{title}</title><path class="whisker" d="M{middle:.1f} {y[0]:.1f}V{y[4]:.1f}"/>'
            f'<rect x="{middle - wide / 2:.1f}" y="{y[3]:.1f}" width="{wide:.1f}" height="{max(y[1] - y[3], 1):.1f}" '
            f'fill="{color_of(cluster)}"/><path class="median" d="M{middle - wide / 2:.1f} {y[2]:.1f}h{wide:.1f}"/>'
            f'<text x="{middle:.1f}" y="{top + height + 17}" text-anchor="middle">{cluster}</text></g>'
        )
    ticks = [(high, up(high)), (low, up(low))] if half > 0 else [(low, up(low))]
    labels = "".join(
        f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tables.number(v, 3)}</text>' for v, y in ticks
    )
    head = f'<text class="name" x="4" y="13">{html.escape(name if len(name) <= 40 else name[:39] + "…")}</text>'
    alt = html.escape(
        f"Box plots of {name} in {len(boxes)} clusters, from {tables.number(low)} to {tables.number(high)}."
    )
    size = f"0 0 {width} {top + height + 24}"
    return f'<svg viewBox="{size}" role="img" aria-label="{alt}">{head}{labels}{"".join(parts)}</svg>'

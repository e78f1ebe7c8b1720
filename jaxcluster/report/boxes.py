"""Box plots of a column in each cluster, as one small SVG that needs no script.

A box reaches from the first to the third quartile, with the median as a line; whiskers end at the last row within 1.5
times that range of the box. Source: J. W. Tukey, Exploratory Data Analysis, Addison-Wesley 1977.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxcluster.plots.style import color_of, is_noise, sample_indices
from jaxcluster.report import tables
from jaxcluster.report.readable import Readable, readable_rows, separation

if TYPE_CHECKING:
    from jaxcluster.report.context import ReportContext

MAX_COLUMNS, MAX_CLUSTERS, MAX_ROWS = 9, 20, 50_000
"""Columns that are drawn, those in which the clusters differ most; clusters, the largest; and rows that are counted."""

REACH = 1.5
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
    inside = values[(values >= first - REACH * (third - first)) & (values <= third + REACH * (third - first))]
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
        f"{REACH} times the box."
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

"""One page on new rows of a fitted model: their clusters, their columns, and rows far from every center."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from jaxcluster.datasets.dates import date_text
from jaxcluster.report import tables
from jaxcluster.report.context import version
from jaxcluster.report.data_page import BINS, histogram
from jaxcluster.report.drift import FAR_SHARE, LARGE, SMALL, ColumnDrift
from jaxcluster.report.page import page, section

MAX_COLUMNS, MAX_CLUSTERS = 60, 100
"""Columns and clusters that are shown."""


class NewRows(NamedTuple):
    """New rows of a model, beside those that it was fitted to.

    Attributes:
        name: of the new data.
        model: the fitted method, in a word.
        fitted, labels: (n,) and (m,) clusters of the fitted and of the new rows, -1 for noise.
        columns: changes, the largest first.
        dates: names of the columns that are days since 1970-01-01.
        far: share of the new rows beyond the bound that 1 of 100 fitted rows exceed; None for a method without centers.
        far_what: the distance or density that the bound is of.
    """

    name: str
    model: str
    fitted: np.ndarray
    labels: np.ndarray
    columns: Sequence[ColumnDrift]
    dates: frozenset[str] = frozenset()
    far: float | None = None
    far_what: str = "distance to the center"


def drift_page(rows: NewRows) -> str:
    """The page as HTML."""
    n, m = len(rows.fitted), len(rows.labels)
    lead = f"{m:,} new rows of {rows.name}, beside the {n:,} rows that {rows.model} was fitted to."
    changed = [each for each in rows.columns if each.drifts]
    parts = [_alerts(rows, changed), _tiles(rows, changed), _clusters(rows), _columns(rows)]
    footer = f"Written by jaxcluster {version('jaxcluster')} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    return page("New rows", lead, parts, footer)


def _alerts(rows: NewRows, changed: Sequence[ColumnDrift]) -> str:
    sentences = []
    if changed:
        names = ", ".join(each.name for each in changed[:8]) + (
            f" and {len(changed) - 8:,} more" if len(changed) > 8 else ""
        )
        sentences.append(f"Columns that are distributed otherwise than in the fitted rows: {names}.")
    if rows.far is not None and rows.far > 5 * FAR_SHARE:
        sentences.append(
            f"{rows.far:.1%} of the new rows are farther from every center than all but {FAR_SHARE:.0%} of the fitted "
            "rows: their clusters say little. Look at them, or fit again with them."
        )
    return "".join(f'<p class="warn" role="note">{html.escape(each)}</p>' for each in sentences)


def _tiles(rows: NewRows, changed: Sequence[ColumnDrift]) -> str:
    shown = {
        "new rows": f"{len(rows.labels):,}",
        "clusters with new rows": f"{len(np.unique(rows.labels[rows.labels >= 0])):,}",
        "columns that changed": f"{len(changed):,} of {len(rows.columns):,}",
    }
    if rows.far is not None:
        shown["far from every center"] = f"{rows.far:.1%}"
    items = (f'<div class="card"><dt>{name}</dt><dd>{value}</dd></div>' for name, value in shown.items())
    return f'<dl class="tiles">{"".join(items)}</dl>'


def _clusters(rows: NewRows) -> str:
    before, now = (
        dict(zip(*map(np.ndarray.tolist, np.unique(part, return_counts=True)), strict=True))
        for part in (rows.fitted, rows.labels)
    )
    names = sorted(before.keys() | now.keys())
    before, now = (dict.fromkeys(names, 0) | each for each in (before, now))
    n, m = max(1, len(rows.fitted)), max(1, len(rows.labels))
    order = sorted(names, key=lambda name: -max(before[name] / n, now[name] / m))[:MAX_CLUSTERS]
    lines = (
        (
            "noise" if name < 0 else tables.swatch(name),
            [
                f"{now[name]:,}",
                f"{before[name] / n:.1%}",
                f"{now[name] / m:.1%}",
                f"{100 * (now[name] / m - before[name] / n):+.1f}",
            ],
        )
        for name in sorted(order)
    )
    heads = ["cluster", "new rows", "share of fitted rows", "share of new rows", "difference in points"]
    note = f"The {MAX_CLUSTERS} largest of {len(names):,} clusters." if len(order) < len(names) else ""
    return section("Clusters", note, tables.grid("Clusters", heads, lines))


def _columns(rows: NewRows) -> str:
    lines = [_line(each, rows.dates) for each in rows.columns[:MAX_COLUMNS]]
    heads = ("column", "fitted rows", "new rows", "missing", "shift", "KS", "PSI", "", "fitted and new rows")
    note = (
        "Bars are the fitted rows, the line is the new ones. Shift: difference of the means in standard deviations of "
        "the fitted rows. KS: statistic of Kolmogorov and Smirnov, the largest difference of the two distribution "
        "functions. PSI: population stability index, Σ (p − q)·log(p / q) over the deciles of the fitted rows, or over "
        f"the words: below {SMALL} little has changed, above {LARGE} much (N. Siddiqi, Credit Risk Scorecards, 2006). "
        "A change is pointed out where the index is larger than chance explains, too."
    )
    if len(lines) < len(rows.columns):
        note += f" The {len(lines)} columns with the largest index of {len(rows.columns):,}."
    if rows.far is not None:
        note += (
            f" Far from every center: a {rows.far_what} that only {FAR_SHARE:.0%} of the fitted rows exceed; among new "
            "rows like them about as many do."
        )
    return section("Columns", note, tables.cells_table("Columns", heads, lines))


def _line(each: ColumnDrift, dates: frozenset[str]) -> tuple[str, ...]:
    missing = (
        "—" if each.missing_before == each.missing_now == 0 else f"{each.missing_before:.1%} → {each.missing_now:.1%}"
    )
    return (
        each.name,
        *(_cell(value, date=each.name in dates) for value in (each.before, each.now)),
        missing,
        "—" if each.shift is None else f"{each.shift:+.2f} sd",
        "—" if each.ks is None else f"{each.ks:.3f}",
        f"{each.psi:.3f}",
        "changed" if each.drifts else "",
        two_histograms(each.counts, f"Histograms of {each.name} in the fitted and in the new rows."),
    )


def _cell(value: float | str | None, *, date: bool) -> str:
    if value is None or isinstance(value, str):
        return value or "—"
    return date_text(round(value)) if date else tables.number(value)


def two_histograms(counts: np.ndarray, alt: str) -> str:
    """The shares of fitted rows as bars, and those of new rows as a line of steps above them, in one small SVG."""
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    top, height, width = max(float(fractions.max()), 1e-12), 26, 4
    bars = histogram(np.rint(1000 * fractions[0] / top).astype(np.int64), alt, top=1000)
    tall = height * fractions[1] / top
    steps = "".join(f"V{height - each:.1f}h{width}" for each in tall)
    line = f'<path class="now" d="M0 {height}{steps}V{height}"/>'
    return bars.replace("</svg>", f"{line}</svg>") if counts.shape[1] <= BINS else bars

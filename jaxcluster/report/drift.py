"""Drift of new rows against the rows of a fit: by column, by cluster, and by the distance from every center.

>>> import numpy as np
>>> fitted, new = np.arange(100.0), np.arange(100.0) + 29.0
>>> moved = number_drift("x", fitted, new)
>>> round(moved.shift, 2), round(moved.ks, 2), moved.drifts
(1.0, 0.29, True)

Sources: the two-sample statistic of N. V. Smirnov, Bulletin mathématique de l'Université de Moscou 2, 1939. The
population stability index and its bounds: N. Siddiqi, Credit Risk Scorecards, Wiley 2006.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from jaxcluster.datasets.dates import date_text
from jaxcluster.report import tables
from jaxcluster.report.context import version
from jaxcluster.report.data_page import BINS, histogram
from jaxcluster.report.page import page, section

STABILITY_BINS = 10
"""Bins of the stability index of a column of numbers: the deciles of the fitted rows."""

STABLE_INDEX, UNSTABLE_INDEX = 0.1, 0.25
"""Stability indices below which a column is taken as unchanged, and above which as changed, after Siddiqi."""

MAX_WORDS = 30
"""Words that are compared one by one, the commonest of the fitted rows; the others count as one."""

FAR_SHARE = 0.01
"""Share of the fitted rows that lies farther from every center than the bound for new rows."""

PICTURE_BINS = 24


class ColumnDrift(NamedTuple):
    """Change of one column.

    Attributes:
        name: of the column.
        before, now: mean of a column of numbers, or the commonest word, of the fitted and of the new rows.
        missing_before, missing_now: shares of missing cells.
        shift: difference of the means in standard deviations of the fitted rows; None for words.
        ks: largest difference of the two distribution functions, 0 to 1; None for words.
        psi: population stability index, Σ (p − q)·log(p / q) over bins or words; 0 for equal shares.
        chance: bound that the index of an unchanged column exceeds in 1 of 20 cases, for so many rows.
        counts: (2, n) rows of both in the bins of a picture.
    """

    name: str
    before: float | str | None
    now: float | str | None
    missing_before: float
    missing_now: float
    shift: float | None
    ks: float | None
    psi: float
    chance: float
    counts: np.ndarray

    @property
    def drifts(self) -> bool:
        """True for an index that is large, and larger than chance explains."""
        return bool(self.psi > max(UNSTABLE_INDEX, self.chance))


def number_drift(name: str, fitted: np.ndarray, new: np.ndarray) -> ColumnDrift:
    """Change of a column of numbers; missing cells are a bin of their own.

    Args:
        name: of the column.
        fitted, new: (n,) and (m,) numbers, NaN for missing cells.
    """
    old, now = fitted[np.isfinite(fitted)], new[np.isfinite(new)]
    missing, means = (_missing(old, fitted), _missing(now, new)), (_mean(old), _mean(now))
    if not len(old) or not len(now):
        psi, chance = _stability(
            *(np.array([len(part), len(whole) - len(part)]) for part, whole in ((old, fitted), (now, new)))
        )
        nothing = np.zeros((2, 1), np.int64)
        return ColumnDrift(name, means[0], means[1], missing[0], missing[1], None, None, psi, chance, nothing)
    inner = np.unique(np.quantile(old, np.linspace(0, 1, STABILITY_BINS + 1)[1:-1]))
    counts = [
        np.append(np.bincount(np.searchsorted(inner, part, side="left"), minlength=len(inner) + 1), whole - len(part))
        for part, whole in ((old, len(fitted)), (now, len(new)))
    ]
    # In units of the range of both: squares and differences of large numbers would overflow.
    low, high = min(old.min(), now.min()), max(old.max(), now.max())
    scale = high / 2 - low / 2 or 1.0
    old_share, new_share = ((part / 2 - low / 2) / scale for part in (old, now))
    spread, difference = float(np.std(old_share)), float(new_share.mean() - old_share.mean())
    shift = difference / spread if spread > 0 else float(np.copysign(np.inf, difference)) if difference else 0.0
    shown = np.stack([np.histogram(part, PICTURE_BINS, (0, 1))[0] for part in (old_share, new_share)])
    psi, chance = _stability(*counts)
    ks = two_sample(old, now)
    return ColumnDrift(name, means[0], means[1], missing[0], missing[1], shift, ks, psi, chance, shown)


def word_drift(name: str, fitted: np.ndarray, new: np.ndarray) -> ColumnDrift:
    """Change of a column of words.

    Args:
        name: of the column.
        fitted, new: (n,) and (m,) text, None for missing cells.
    """
    parts = [
        np.array([cell for cell in part.tolist() if cell is not None], object).astype(str) for part in (fitted, new)
    ]
    words, counts = np.unique(parts[0], return_counts=True)
    known = words[np.argsort(-counts, kind="stable")][:MAX_WORDS].tolist()
    place = {word: i for i, word in enumerate(known)}
    counted = []
    for part, whole in zip(parts, (fitted, new), strict=True):
        at = np.array([place.get(word, len(known)) for word in part.tolist()], np.int64)
        counted.append(np.append(np.bincount(at, minlength=len(known) + 1), len(whole) - len(part)))
    old, now = parts
    shown, (psi, chance) = np.stack([each[:PICTURE_BINS] for each in counted]), _stability(*counted)
    missing, common = (_missing(old, fitted), _missing(now, new)), (_commonest(old), _commonest(now))
    return ColumnDrift(name, common[0], common[1], missing[0], missing[1], None, None, psi, chance, shown)


def drift_of(fitted: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> list[ColumnDrift]:
    """Change of each column, the largest stability index first.

    Args:
        fitted, new: columns by name, of floats or of text as objects; those of ``fitted`` are compared.
    """
    changes = [
        number_drift(name, old, np.asarray(new[name], np.float64))
        if old.dtype.kind == "f"
        else word_drift(name, old, np.asarray(new[name], object))
        for name, old in fitted.items()
    ]
    return sorted(changes, key=lambda each: -each.psi)


def two_sample(x: np.ndarray, y: np.ndarray) -> float:
    """Kolmogorov-Smirnov statistic: the largest difference of the two empirical distribution functions, 0 to 1."""
    x, y = np.sort(x), np.sort(y)
    both = np.concatenate([x, y])
    below = [np.searchsorted(part, both, side="right") / len(part) for part in (x, y)]
    return float(np.abs(below[0] - below[1]).max())


def far_bound(fitted: np.ndarray) -> float:
    """The distance that `FAR_SHARE` of the fitted rows exceed."""
    return float(np.quantile(fitted, 1 - FAR_SHARE))


def _stability(old: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    """Population stability index of two rows of counts.

    Half a row is added to each bin, so that an empty one does not make it infinite.

    Returns:
        The index, and the bound that one of 20 unchanged columns exceeds: the index is about (1/n + 1/m) times a
        chi-squared variable, as twice the divergence of Kullback and Leibler is.
    """
    from scipy.special import chdtri

    seen = (old > 0) | (new > 0)
    old, new = old[seen], new[seen]
    if len(old) < 2:
        return 0.0, 0.0
    p, q = ((each + 0.5) / (each.sum() + 0.5 * len(each)) for each in (old, new))
    chance = float(chdtri(len(old) - 1, 0.05)) * (1 / max(1, old.sum()) + 1 / max(1, new.sum()))
    return float(np.sum((p - q) * np.log(p / q))), chance


def _missing(known: np.ndarray, whole: np.ndarray) -> float:
    return 1 - len(known) / max(1, len(whole))


def _mean(cells: np.ndarray) -> float | None:
    with np.errstate(over="ignore"):
        return float(np.mean(cells)) if len(cells) else None


def _commonest(words: np.ndarray) -> str | None:
    if not len(words):
        return None
    names, counts = np.unique(words, return_counts=True)
    return str(names[counts.argmax()])


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
        f"the words: below {STABLE_INDEX} little has changed, above {UNSTABLE_INDEX} much (N. Siddiqi, Credit "
        "Risk Scorecards, 2006). A change is pointed out where the index is larger than chance explains, too."
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

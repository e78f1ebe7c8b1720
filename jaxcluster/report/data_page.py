"""The data of a report: for each column its kind, missing cells and distribution, and warnings about the data."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxcluster.datasets.base import listing
from jaxcluster.datasets.dates import date_text
from jaxcluster.plots.style import sample_indices
from jaxcluster.report import tables
from jaxcluster.report.readable import Readable, readable_rows

if TYPE_CHECKING:
    from jaxcluster.report.context import ReportContext

MAX_ROWS, MAX_COLUMNS = 50_000, 40
"""Rows that the columns are described from, and columns that are described."""

BINS = 24

DOMINANT_SHARE, MISSING_SHARE, REPEATED_SHARE = 0.5, 0.05, 0.05
"""Shares of the variance, of the cells of a column and of the rows from which a reader is warned."""

MOST_NAMES = 8

MOST_CORRELATED, MAX_PAIRED, EQUAL_CORRELATION = 12, 300, 0.99
"""Columns in the table of correlations, columns whose pairs are looked at, and the correlation of equal ones."""


class Line(NamedTuple):
    """A column in words: its name, kind, missing cells, distinct values, and what they are; the last is HTML."""

    name: str
    kind: str
    missing: str
    distinct: str
    least: str
    median: str
    most: str
    picture: str


def data_page(run: ReportContext) -> tuple[str, str]:
    """The section on the data.

    Returns:
        Its note and its content, both HTML.
    """
    n = len(run.labels)
    rows = sample_indices(n, MAX_ROWS)
    sentences = alerts(run, rows)
    warned = "".join(f"<li>{html.escape(each)}</li>" for each in sentences)
    content = f'<ul class="alerts">{warned}</ul>' if warned else ""
    note = "" if len(rows) == n else f"Counted among {len(rows):,} of {n:,} rows drawn at random. "
    if run.dataset.image_shape is not None:
        pixels = run.in_data_units(run.dataset.x[rows[:2_000]]).ravel()
        pixels = pixels[np.isfinite(pixels)]
        return note.strip(), content + tables.cells_table("Pixels", HEADS, [_number_line("all pixels", pixels, 0.0)])
    table = readable_rows(run, rows, MAX_COLUMNS)
    if table.width > len(table.order):
        note += f"Shown are the {len(table.order)} of {table.width:,} columns in which the clusters differ most. "
    lines = [_line(table, name) for name in table.order]
    return note.strip(), content + tables.cells_table("Columns", HEADS, lines) + correlations(table)


HEADS = ("column", "kind", "missing", "distinct", "least", "median", "most", "distribution")


def alerts(run: ReportContext, rows: np.ndarray) -> list[str]:
    """Sentences on columns and rows that make clusters say little."""
    x = run.dataset.x[rows]
    n = len(x)
    low, high = np.fmin.reduce(x, axis=0), np.fmax.reduce(x, axis=0)
    varies = low < high
    names = run.dataset.columns
    title = (lambda j: f"column {j}") if names is None else (lambda j: str(names[j]))
    sentences = []
    constant = np.flatnonzero(~varies)
    if constant.size and run.dataset.image_shape is None:
        shown = ", ".join(title(j) for j in constant[:MOST_NAMES].tolist())
        more = f" and {len(constant) - MOST_NAMES:,} more" if len(constant) > MOST_NAMES else ""
        sentences.append(f"Constant, and telling no rows apart: {shown}{more}.")
    if varies.sum() > 1 and run.dataset.image_shape is None and _by_euclidean_distances(run):
        # In units of the greatest range: squares of large or small numbers would over- or underflow.
        width = float(np.max((high - low)[varies]))
        variance = np.nanvar((x[:, varies] - low[varies]) / width, axis=0)
        share = variance.max() / variance.sum()
        if share > DOMINANT_SHARE and share > 2 / varies.sum():
            sentences.append(
                f"{title(int(np.flatnonzero(varies)[variance.argmax()]))} holds {share:.1%} of the variance of all "
                "columns as they were clustered: by Euclidean distances it decides most."
            )
    sentences += _equal_columns(x[:, varies], [title(j) for j in np.flatnonzero(varies)], run)
    holes = np.isnan(x).mean(axis=0)
    if (holes > MISSING_SHARE).any():
        worst = np.argsort(-holes, kind="stable")[:MOST_NAMES]
        shown = listing([f"{title(j)} {holes[j]:.0%}" for j in worst.tolist() if holes[j] > MISSING_SHARE])
        sentences.append(f"Missing cells: {shown}.")
    repeated = n - len({row.tobytes() for row in np.ascontiguousarray(x)})
    if repeated > REPEATED_SHARE * n:
        sentences.append(f"{repeated:,} of {n:,} rows repeat another one.")
    return sentences


def _by_euclidean_distances(run: ReportContext) -> bool:
    """False where units of the columns do not matter: components of a mixture stretch along with them."""
    stretched = run.components is not None and run.components.covariance_type != "spherical"
    return run.metric == "euclidean" and not stretched


def _equal_columns(x: np.ndarray, names: Sequence[str], run: ReportContext) -> list[str]:
    """Sentences on pairs of columns that say almost the same, which counts twice in a distance."""
    if run.dataset.image_shape is not None or not 2 <= len(names) <= MAX_PAIRED:
        return []
    values = correlation(x)
    pairs = [(abs(values[i, j]), names[i], names[j]) for i, j in combinations(range(len(names)), 2)]
    pairs = sorted((each for each in pairs if each[0] > EQUAL_CORRELATION), reverse=True)[:MOST_NAMES]
    if not pairs:
        return []
    shown = listing([f"{one} and {other} ({value:.3f})" for value, one, other in pairs])
    return [f"Columns that say almost the same, by their correlation: {shown}. In distances they count twice."]


def correlation(x: np.ndarray) -> np.ndarray:
    """(n_features, n_features) Pearson correlations, a missing cell as the mean of its column; 0 for a constant column.

    >>> correlation(np.array([[0.0, 0.0, 5.0], [1.0, -2.0, 5.0], [np.nan, -1.0, 5.0]])).round(2).tolist()
    [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    x = np.asarray(x, np.float64)
    low, high = np.fmin.reduce(x, axis=0), np.fmax.reduce(x, axis=0)
    half = np.nan_to_num(high / 2 - low / 2)
    # In units of the range: squares of large numbers would overflow.
    x = (x / 2 - low / 2) / np.where(half > 0, half, 1)
    seen = np.isfinite(x)
    means = np.where(seen, x, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    x = np.where(seen, x - means, 0)
    length = np.sqrt(np.sum(x**2, axis=0))
    x = x / np.where(length > 0, length, 1)
    return np.clip(x.T @ x, -1, 1)


def correlations(table: Readable) -> str:
    """Table of the correlations of the columns of numbers, shaded by their size; empty for fewer than two."""
    names = [name for name in table.order if name in table.numbers][:MOST_CORRELATED]
    if len(names) < 2:
        return ""
    values = correlation(np.column_stack([table.numbers[name] for name in names]))
    head = "".join(f'<th scope="col" class="number">{html.escape(name)}</th>' for name in names)
    lines = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(
            f'<td class="number" style="background:rgb(var(--heat) / {0.62 * abs(value):.2f})">{value:.2f}</td>'
            for value in line
        )
        + "</tr>"
        for name, line in zip(names, (values.round(2) + 0.0).tolist(), strict=True)
    )
    few = "" if len(names) == len(table.numbers) else f" of {len(names)} columns"
    return (
        '<div class="scroll fit card" role="region" tabindex="0" aria-label="Correlations"><table class="grid">'
        f"<caption>Pearson correlations{few}; darker is stronger, of either sign</caption>"
        f'<thead><tr><th scope="col">column</th>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
    )


def _line(table: Readable, name: str) -> Line:
    if name in table.words:
        return _word_line(name, table.words[name])
    cells = table.numbers[name]
    known = cells[np.isfinite(cells)]
    return _number_line(name, known, 1 - len(known) / max(1, len(cells)), date=name in table.dates)


def _number_line(name: str, known: np.ndarray, missing: float, *, date: bool = False) -> Line:
    distinct = len(np.unique(known))
    if not known.size:
        return Line(name, "empty", _share(missing), "0", "—", "—", "—", "")
    whole = bool((known == np.rint(known)).all())
    kind = (
        "date" if date else "constant" if distinct == 1 else "yes or no" if set(np.unique(known)) <= {0.0, 1.0} else ""
    )
    kind = kind or ("whole number" if whole else "number")
    values = [float(known.min()), float(np.median(known)), float(known.max())]
    shown = [
        date_text(value) if date else tables.number(int(value) if whole and abs(value) < 1e15 else value)
        for value in values
    ]
    counts = np.histogram((known - values[0]) / ((values[2] - values[0]) or 1), BINS, (0, 1))[0]
    alt = f"Histogram of {name}, from {shown[0]} to {shown[2]}; half lies below {shown[1]}."
    return Line(name, kind, _share(missing), f"{distinct:,}", shown[0], shown[1], shown[2], histogram(counts, alt))


def _word_line(name: str, column: np.ndarray) -> Line:
    known = np.array([str(cell) for cell in column if cell is not None], object)
    words, counts = np.unique(known.astype(str), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shown = [f"{words[i]} {counts[i] / len(known):.0%}" for i in order[:3]]
    more = f", {len(words) - 3:,} more" if len(words) > 3 else ""
    kind = "constant" if len(words) == 1 else "all different" if len(words) == len(known) > 1 else "words"
    picture = (
        histogram(counts[order[:BINS]], f"Counts of the words of {name}, the commonest first.") if len(words) else ""
    )
    text = f'<span class="words">{html.escape(", ".join(shown) + more)}</span>'
    missing = 1 - len(known) / max(1, len(column))
    return Line(name, kind, _share(missing), f"{len(words):,}", "", "", "", picture + text)


def _share(share: float) -> str:
    return "—" if share == 0 else f"{share:.1%}"


def histogram(counts: Sequence[int] | np.ndarray, alt: str, *, top: int | None = None) -> str:
    """A histogram as a small SVG: a bar for each count, and a hairline where a bar would be too low to be seen.

    Args:
        counts: of each bar.
        alt: description for those who do not see it.
        top: count of a bar as high as the picture; None for the largest.
    """
    top, width, height = top or max(1, int(np.max(counts))), 4, 26
    tall = [max(1.0, height * int(count) / top) for count in counts]
    bars = (f"M{i * width} {height}v-{each:.1f}h{width - 1}v{each:.1f}z" for i, each in enumerate(tall) if counts[i])
    path = "".join(bars)
    box = f"0 0 {max(len(counts), BINS) * width} {height}"
    return f'<svg class="histogram" viewBox="{box}" role="img" aria-label="{html.escape(alt)}"><path d="{path}"/></svg>'

"""The report's tables. All text that comes from outside is escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcluster.datasets.base import listing
from jaxcluster.plots.style import color_of, colors_of, is_noise
from jaxcluster.report.scores import score_info

MOST_CLUSTERS, MOST_CLASSES, MOST_COLUMNS = 60, 40, 16


def number(value: Any, digits: int = 4) -> str:
    """A number as a person writes it: 1,797 rows, 0.6665, 1,165,189."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    value = float(value)
    if not np.isfinite(value):
        return "not a number" if np.isnan(value) else ("infinite" if value > 0 else "minus infinite")
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e12 else f"{value:.4g}"
    if abs(value) >= 10:
        return f"{value:#.{digits}g}".rstrip(".")
    return f"{value:.{digits}f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.{digits}g}"


def text(value: Any) -> str:
    """Any value of a configuration, escaped and short."""
    if value is None or isinstance(value, (bool, np.bool_)):
        shown = {None: "—", True: "yes", False: "no"}[value if value is None else bool(value)]
    elif isinstance(value, (float, np.floating)):
        shown = f"{value:.6g}"
    elif np.ndim(value) and hasattr(value, "shape"):
        shown = f"array {tuple(value.shape)}"
    elif isinstance(value, (list, tuple)):
        shown = listing(value)
    else:
        shown = str(value)
    return html.escape(shown if len(shown) <= 300 else shown[:300] + "…")


def facts(rows: Mapping[str, Any] | Iterable[tuple[str, Any]], caption: str) -> str:
    """A table of names and values; a mapping inside is spread out with dotted names."""
    lines = "".join(
        f'<tr><th scope="row">{html.escape(str(name))}</th><td>{text(value)}</td></tr>' for name, value in _flat(rows)
    )
    return f'<table class="facts"><caption>{html.escape(caption)}</caption><tbody>{lines}</tbody></table>'


def _flat(rows: Mapping[str, Any] | Iterable[tuple[str, Any]], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in rows.items() if isinstance(rows, Mapping) else rows:
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def scores(values: Mapping[str, Any], caption: str) -> str:
    """Each score with a bar if it lies between 0 and 1, its range, and its description."""
    lines = []
    for name, value in values.items():
        info = score_info(name)
        bar = ""
        if info.unit and value is not None and np.isfinite(value):
            bar = f'<span class="bar" aria-hidden="true"><span style="width:{min(max(value, 0), 1):.1%}"></span></span>'
        shown = "—" if value is None else number(value)
        lines.append(
            f'<tr><th scope="row">{html.escape(info.title)}</th><td class="number">{shown}</td><td>{bar}</td>'
            f"<td>{html.escape(info.description)}</td><td>{html.escape(info.range)}</td></tr>"
        )
    head = '<th scope="col">Score</th><th scope="col" class="number">Value</th><td></td>'
    head += '<th scope="col">Measures</th><th scope="col">Range</th>'
    return (
        f'<div class="scroll card" role="region" tabindex="0" aria-label="{html.escape(caption)}">'
        f'<table class="scores"><caption>{html.escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def contingency(labels: np.ndarray, truth: np.ndarray) -> str:
    """Clusters by classes: how many rows of each class a cluster has, shaded by its share of the cluster.

    Clusters are ordered by their commonest class, so that a good clustering is a dark diagonal.
    """
    clusters, cluster = np.unique(labels, return_inverse=True)
    classes, class_ = np.unique(truth, return_inverse=True)
    if len(clusters) > MOST_CLUSTERS or len(classes) > MOST_CLASSES:
        return f'<p class="note">{len(clusters)} clusters by {len(classes)} classes are too many for a table here.</p>'
    counts = np.zeros((len(clusters), len(classes)), np.int64)
    np.add.at(counts, (cluster, class_), 1)
    colors, noise = colors_of(labels), is_noise(clusters)
    order = np.lexsort((-counts.max(1), counts.argmax(1), noise))
    head = "".join(f'<th scope="col" class="number">{html.escape(str(name))}</th>' for name in classes.tolist())
    lines = []
    for i in order:
        name = clusters[i].item()
        label = "noise" if noise[i] else name
        swatch = f'<span class="swatch" style="background:{colors[name]}"></span>'
        line = counts[i].tolist()
        cells = "".join(_cell(count, count / max(1, sum(line))) for count in line)
        lines.append(
            f'<tr><th scope="row">{swatch}{html.escape(str(label))}</th>{cells}'
            f'<td class="number total">{sum(line):,}</td></tr>'
        )
    foot = "".join(f'<td class="number total">{total:,}</td>' for total in counts.sum(0))
    return (
        '<div class="scroll fit card" role="region" tabindex="0" aria-label="Clusters by classes"><table class="grid">'
        "<caption>Rows of each class in each cluster; darker is a larger share of the cluster</caption>"
        f'<thead><tr><th scope="col">cluster</th>{head}<th scope="col" class="number">rows</th></tr></thead>'
        f'<tbody>{"".join(lines)}</tbody><tfoot><tr><th scope="row">rows</th>{foot}'
        f'<td class="number total">{counts.sum():,}</td></tr></tfoot></table></div>'
    )


def _cell(count: int, share: float) -> str:
    shade = f' style="background:rgb(var(--heat) / {0.62 * share:.2f})"' if count else ""
    return f'<td class="number{"" if count else " zero"}"{shade}>{count:,}</td>'


def centers(
    values: np.ndarray, columns: Sequence[str] | None, *, title: str = "Centers", units: str = "in the data's units"
) -> str:
    """The centers as numbers and categories, for data of few columns."""
    heads = ["cluster", *_names(columns, values.shape[1])]
    cells = zip(*(_words_or_numbers(column) for column in np.asarray(values).T), strict=True)
    lines = ((swatch(j), list(line)) for j, line in enumerate(cells))
    return grid(title, heads, lines, caption=f"{title}, {units}")


def _words_or_numbers(column: np.ndarray) -> list[str]:
    """Cells of a column of numbers, or of categories as they are."""
    if column.dtype.kind != "O" or all(isinstance(cell, float) for cell in column):
        return numbers(column.astype(float))
    return [str(cell) for cell in column]


def numbers(column: np.ndarray, digits: int = 4) -> list[str]:
    """Numbers of one column, with so many decimals that different ones differ: seconds since 1970, for example."""
    if np.isfinite(column).all():
        # The rounding of float32 is no value: a mean of zeros beside one of ones is 0 and not 2.7e-07.
        column = np.where(np.abs(column) < 1e-6 * np.abs(column).max(initial=0), 0, column)
    shown = [number(value, digits) for value in column]
    if len(set(shown)) == len(set(column.tolist())) or not np.isfinite(column).all():
        return shown
    # Equal at 4 digits: as many decimals as resolve a tenth of the range tell them apart.
    spread = float(np.ptp(column))
    decimals = int(np.clip(1 - np.floor(np.log10(spread)), 0, 12)) if spread > 0 else 0
    return [f"{value:,.{decimals}f}" if abs(value) < 1e16 else f"{value:.17g}" for value in column.tolist()]


def components(
    weights: np.ndarray,
    rows: np.ndarray,
    means: np.ndarray,
    spreads: np.ndarray,
    columns: Sequence[str] | None,
    *,
    units: str = "in the data's units",
) -> str:
    """The components of a mixture: weight, rows that have its label, and mean ± standard deviation of each column.

    Of data of many columns, one deviation stands for all: the root of their mean variance.
    """
    heads, caption = ["component", "weight", "rows"], f"Components, {units}"
    if means.shape[1] <= MOST_COLUMNS:
        heads += _names(columns, means.shape[1])
        caption += ": mean ± standard deviation"
        columns_of_cells = [
            [f"{mean} ± {number(spread, 3)}" for mean, spread in zip(numbers(each, 3), spread_of, strict=True)]
            for each, spread_of in zip(means.T, spreads.T, strict=True)
        ]
        cells = [list(line) for line in zip(*columns_of_cells, strict=True)]
    else:
        heads += ["typical deviation"]
        cells = [[number(value)] for value in np.sqrt(np.mean(np.square(spreads), axis=1))]
    counted = zip(weights, rows, cells, strict=True)
    lines = ((swatch(j), [number(w), number(n), *cells]) for j, (w, n, cells) in enumerate(counted))
    return grid("Components", heads, lines, caption=caption)


def grid(
    label: str,
    heads: Sequence[str],
    lines: Iterable[tuple[str, Sequence[str]]],
    *,
    caption: str = "",
    css: str = "fit",
    words: Sequence[str] = (),
) -> str:
    """A table of numbers.

    Args:
        label: what the table is, for those who do not see it.
        heads: names of the columns, the first of them that of the lines' heads.
        lines: the head of each line, as HTML, and its cells, as text.
        caption: what stands above.
        css: "fit" for a card as wide as the table, or nothing.
        words: those of ``heads`` whose cells are words.
    """
    first, *others = map(html.escape, heads)
    kinds = ["" if name in words else ' class="number"' for name in heads[1:]]
    head = f'<th scope="col">{first}</th>' + "".join(
        f'<th scope="col"{kind}>{name}</th>' for name, kind in zip(others, kinds, strict=True)
    )
    body = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(f"<td{kind}>{html.escape(cell)}</td>" for cell, kind in zip(cells, kinds, strict=True))
        + "</tr>"
        for name, cells in lines
    )
    above = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    classes = " ".join(filter(None, ("scroll", css, "card")))
    return (
        f'<div class="{classes}" role="region" tabindex="0" aria-label="{html.escape(label)}">'
        f'<table class="grid">{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def cells_table(label: str, heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of text, whose first cells are the heads of its lines and whose last cells are HTML."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + f"<td>{last}</td></tr>"
        for first, *cells, last in lines
    )
    return (
        f'<div class="scroll fit card" role="region" tabindex="0" aria-label="{html.escape(label)}">'
        f'<table class="grid"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def swatch(cluster: int, before: str = "") -> str:
    """A cluster's number beside its color, with a text before it."""
    return f'<span class="swatch" style="background:{color_of(cluster)}"></span>{before}{cluster}'


def _names(columns: Sequence[str] | None, d: int) -> list[str]:
    return [f"column {j}" for j in range(d)] if columns is None else [str(name) for name in columns]

"""One page on several runs: settings that differ, scores, agreement of the labels, and maps side by side."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jaxcluster import metrics
from jaxcluster.core.messages import sizes_in_words
from jaxcluster.plots.maps import Plane, draw_plane, plane
from jaxcluster.plots.style import colors_like
from jaxcluster.report import tables
from jaxcluster.report.context import version
from jaxcluster.report.figures import figure
from jaxcluster.report.page import figures, page, section
from jaxcluster.report.scores import score_info, split

MAX_MAPS = 12

READING = ("columns", "drop", "row_id", "truth", "weights", "encode", "dates", "na", "text", "stop_words", "max_terms")
READING += ("header", "delimiter", "decimal", "encoding")
"""Options of the shell that decide which columns of a file are read, and how."""

STDIN = "-"
"""The name of standard input, which may be another table each time."""


class RunSummary(NamedTuple):
    """A finished run.

    Attributes:
        name: unique among the runs that are compared.
        settings: by dotted name.
        scores: by the names of `jaxcluster.report.scores`; None where one is undefined.
        labels: (n_samples,) clusters, -1 for noise.
        rows: (n_samples,) names of the rows, by which labels of two runs are known to be of the same ones.
        seconds: of all stages.
        data: the entry "data" of config.json, by which rows that are only numbered are known to be the same.
        method: what decides how the data are read: the algorithm and its metric.
    """

    name: str
    settings: Mapping[str, Any]
    scores: Mapping[str, float | None]
    labels: np.ndarray
    rows: np.ndarray
    seconds: float
    data: Mapping[str, Any] = MappingProxyType({})
    method: Any = None


def same_rows(run: RunSummary, other: RunSummary) -> bool:
    """True if the labels of two runs are of the same rows, in the same order.

    Rows that a column names are the same under the same names. Rows that are only numbered are the same in one file, if
    it has not changed, and in files of the same content.
    """
    if not np.array_equal(run.rows, other.rows):
        return False
    one, two = ({**each, "data": os.path.abspath(str(each.get("data")))} for each in (run.data, other.data))
    if one.get("sha256") == two.get("sha256") or (one.get("id_name") is not None and two.get("id_name") is not None):
        return True
    if one.get("id_name") != two.get("id_name") or any(one.get(name) != two.get(name) for name in ("data", "key")):
        return False
    alike = run.method == other.method and all(one.get(name) == two.get(name) for name in READING)
    return run.data.get("data") != STDIN and not alike  # read alike, and still of another content: the file has changed


def compare_page(runs: Sequence[RunSummary], x: np.ndarray | None, notes: Sequence[str] = ()) -> str:
    """The page as HTML.

    Args:
        runs: at least two.
        x: (n_samples, n_features) rows of the first run as it clustered them, for the maps; None for no maps.
        notes: sentences on what must be known to read the page.
    """
    head = "".join(f'<p class="note">{html.escape(each)}</p>' for each in notes)
    parts = [head, _settings(runs), _scores(runs), _agreement(runs), "" if x is None else _maps(runs, x)]
    footer = f"Written by jaxcluster {version('jaxcluster')} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    sizes = sorted({len(run.labels) for run in runs})
    lead = f"{len(runs)} runs on {' and '.join(f'{n:,}' for n in sizes)} rows."
    return page("Runs compared", lead, parts, footer)


def _settings(runs: Sequence[RunSummary]) -> str:
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    differ = [name for name in names if len({str(run.settings[name]) for run in runs if name in run.settings}) > 1]
    some = [name for name in names if name not in differ and any(name not in run.settings for run in runs)]
    lines = [*_setting_lines(runs, differ), ("clusters", [sizes_in_words(run.labels) for run in runs])]
    lines.append(("time", [f"{run.seconds:.3g} s" for run in runs]))
    heads = ["setting", *(run.name for run in runs)]
    shown = tables.grid("Settings that differ", heads, lines)
    if some:
        more = tables.grid("Settings of some runs", heads, _setting_lines(runs, some))
        shown += f'<details class="more"><summary>Settings that only some runs have</summary>{more}</details>'
    same = len(names) - len(differ) - len(some)
    return section("Settings that differ", f"{same} other settings are the same." if same else "", shown)


def _setting_lines(runs: Sequence[RunSummary], names: Sequence[str]) -> list[tuple[str, list[str]]]:
    return [(html.escape(name), [_setting(run.settings.get(name)) for run in runs]) for name in names]


def _setting(value: Any) -> str:
    shown = "—" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return shown if len(shown) <= 60 else shown[:59] + "…"


def _scores(runs: Sequence[RunSummary]) -> str:
    shown, other_rows = "", not all(same_rows(run, runs[0]) for run in runs)
    for which, caption in enumerate(("Against the truth", "Without the truth")):
        names = list(dict.fromkeys(name for run in runs for name in split(run.scores)[which]))
        lines = []
        for name in names:
            info = score_info(name)
            values = [run.scores.get(name) for run in runs]
            best = set() if other_rows else _best(values, info.range)
            cells = ["—" if value is None else tables.number(value) for value in values]
            lines.append(
                (html.escape(info.title), [f"{cell} ★" if i in best else cell for i, cell in enumerate(cells)])
            )
        heads = ["score", *(run.name for run in runs)]
        shown += tables.grid(caption, heads, lines, caption=caption) if lines else ""
    note = (
        "Some runs are of other rows or of other files: their scores do not say which run is better, and no line has a "
        "star."
        if other_rows
        else "A star is the best of the line. Scores without the truth are of the rows as each run clustered them, so "
        "that they compare runs of one scaling only."
    )
    return section("Scores", note, shown) if shown else ""


def _best(values: Sequence[float | None], text: str) -> set[int]:
    """Positions of the best values; none where the range does not say which end is better, or all are equal."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    if len(set(known)) < 2 or not ("higher is better" in text or "lower is better" in text or text.endswith("chance")):
        return set()
    best = min(known) if "lower is better" in text else max(known)
    return {i for i, value in enumerate(values) if value == best}


def agreement(runs: Sequence[RunSummary]) -> np.ndarray:
    """(n_runs, n_runs) adjusted Rand index of the labels of each two runs; NaN where the names of their rows differ."""
    shown = np.full((len(runs), len(runs)), np.nan)
    for i, run in enumerate(runs):
        for j, other in enumerate(runs[: i + 1]):
            if np.array_equal(run.rows, other.rows):
                value = 1.0 if i == j else float(metrics.adjusted_rand_score(run.labels, other.labels))
                shown[i, j] = shown[j, i] = value
    return shown


def _agreement(runs: Sequence[RunSummary]) -> str:
    head = "".join(f'<th scope="col" class="number">{html.escape(run.name)}</th>' for run in runs)
    lines = ""
    doubt = False
    for run, values in zip(runs, agreement(runs), strict=True):
        unsure = [not np.isnan(value) and not same_rows(run, other) for value, other in zip(values, runs, strict=True)]
        doubt = doubt or any(unsure)
        cells = "".join(
            '<td class="number">—</td>'
            if np.isnan(value)
            else f'<td class="number" style="background:rgb(var(--heat) / {0.62 * max(value, 0):.2f})">{value:.3f}'
            f"{' †' * by_number}</td>"
            for value, by_number in zip(values, unsure, strict=True)
        )
        lines += f'<tr><th scope="row">{html.escape(run.name)}</th>{cells}</tr>'
    table = (
        '<div class="scroll fit card" role="region" tabindex="0" aria-label="Agreement"><table class="grid">'
        f'<thead><tr><th scope="col">run</th>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
    )
    note = (
        "The adjusted Rand index of the labels of two runs: 1 for the same clusters, about 0 for unrelated ones; noise "
        "counts as one more cluster. A dash stands for runs on other rows."
    )
    if doubt:
        note += (
            " † These runs are of different files, or of one that has changed, and their rows have no names: they are "
            "taken for the same ones in the same order, and the number says nothing if they are not. Name them (--id)."
        )
    return section("Agreement", note, table)


def _maps(runs: Sequence[RunSummary], x: np.ndarray) -> str:
    at, first = plane(x), runs[0]
    drawn = [run for run in runs if same_rows(run, first)][:MAX_MAPS]
    shown = [_map(at, run, first, i) for i, run in enumerate(drawn)]
    note = (
        f"All maps show the rows as {html.escape(first.name)} has them. A cluster has the color of the cluster of "
        f"{html.escape(first.name)} that it shares most rows with, one to one."
    )
    return section("Maps", note, figures(shown))


def _map(at: Plane, run: RunSummary, first: RunSummary, number: int) -> str:
    colors = colors_like(run.labels, first.labels)
    draw: Any = partial(draw_plane, at, run.labels, title=run.name, colors=colors)
    alt = f"{run.name}: the rows as points in the plane, in {len(np.unique(run.labels[run.labels >= 0])):,} clusters."
    return figure(draw, alt, name=f"run-{number}", height=5.2)

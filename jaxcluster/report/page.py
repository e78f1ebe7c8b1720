"""One HTML page that needs no other and no network: head, contents, sections, and the explorer with its script."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

from jaxcluster.core.messages import valid_html

if TYPE_CHECKING:
    from jaxcluster.report.context import ReportContext
    from jaxcluster.report.exploration import View

SECTION = re.compile(r'<section id="([^"]+)">.*?<h2>(.*?)</h2>', re.DOTALL)


def page(title: str, lead: str, parts: Iterable[str], footer: str, *, data: str = "") -> str:
    """The page as text.

    Args:
        title, lead, footer: texts, which are escaped.
        parts: pieces of HTML; empty ones are left out. Those of `section` are listed in the table of contents.
        data: JSON for the script of the explorer; the page has no script without it.
    """
    body = "\n".join(filter(None, parts))
    found = SECTION.findall(body)
    links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, heading in found)
    script = ""
    if data:
        source = _file("explorer.js")
        script = f'<script type="application/json" id="explorer-data">{data}</script>\n<script>\n{source}</script>'
    filled = Template(_file("template.html")).substitute(
        title=html.escape(title),
        lead=html.escape(lead),
        style=_file("page.css"),
        ready='<script>document.documentElement.classList.add("js");</script>' if data else "",
        contents=f'<nav class="contents" aria-label="Contents"><ol>{links}</ol></nav>' if len(found) > 1 else "",
        body=body,
        footer=html.escape(footer),
        script=script,
    )
    return valid_html(filled)


def _file(name: str) -> str:
    return resources.files("jaxcluster.report").joinpath(name).read_text(encoding="utf-8")


def section(title: str, note: str, content: str, *, fold: bool = False) -> str:
    """A section with its heading.

    Args:
        title: of the section; unique on the page.
        note: HTML under the heading.
        content: HTML.
        fold: a reader can fold the section.
    """
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    note = f"<p>{note}</p>\n" if note else ""
    if fold:
        inside = f"<details open>\n<summary><h2>{title}</h2></summary>\n{note}{content}\n</details>"
        return f'<section id="{name}">\n{inside}\n</section>'
    return f'<section id="{name}">\n<h2>{title}</h2>\n{note}{content}\n</section>'


def figures(shown: list[str]) -> str:
    """Figures side by side where there is room."""
    return f'<div class="pictures{" one" if len(shown) == 1 else ""}">{"".join(shown)}</div>'


HELP = (
    "Point at a row to see its values. Zoom with the wheel or the keys + and -, move by dragging or with the arrows, "
    "and choose rows with the lasso, or by dragging with Shift. A click in the legend shows one cluster alone, with "
    "Shift several."
)

SILHOUETTE = """
<div class="explorer-silhouette">
<p class="head">Silhouettes <span id="explorer-silhouette-mean"></span></p>
<canvas id="explorer-silhouette" role="img" aria-label="Silhouette of each row, sorted within its cluster. Drag over
bars to select their rows."></canvas>
</div>"""

ELEMENTS = """<div class="explorer" role="group" aria-label="Explorer of the rows">
<p class="note">{note}</p>
<div class="card explorer-panel">
<div class="explorer-tools">
<label>Map <select id="explorer-choose-map"></select></label>
<label>Color <select id="explorer-choose-color"></select></label>
<span id="explorer-scale" hidden><span id="explorer-scale-low"></span><span id="explorer-scale-bar"></span><span
id="explorer-scale-high"></span></span>
<span class="push"></span>
<button type="button" id="explorer-lasso" aria-pressed="false">Lasso</button>
<button type="button" id="explorer-out" aria-label="Zoom out">−</button>
<button type="button" id="explorer-in" aria-label="Zoom in">+</button>
<button type="button" id="explorer-home" disabled>Whole map</button>
</div>
<div class="explorer-body{columns}">
<div class="explorer-map">
<canvas id="explorer-map" tabindex="0" role="application" aria-label="Map of the rows. Plus and minus zoom, arrows
move, 0 shows the whole map, Escape clears the selection. The table below has the same rows."></canvas>
<div id="explorer-tip" class="card" hidden></div>
<p class="small" id="explorer-axes"></p>
</div>{silhouette}
<div class="explorer-legend">
<p class="head">{legend} <button type="button" id="explorer-all" disabled>Show all</button></p>
<div id="explorer-legend" role="group" aria-label="Clusters: a click shows one alone"></div>
</div>
</div>
<div class="explorer-selection">
<p role="status" id="explorer-status" data-empty="No rows selected."></p>
<button type="button" id="explorer-clear" disabled>Clear selection</button>
<button type="button" id="explorer-save" disabled>Save as CSV</button>
</div>
</div>
<div class="card explorer-rows">
<div class="explorer-tools">
<label>Search the rows <input type="search" id="explorer-search" autocomplete="off"></label>
<span class="push"></span>
<button type="button" id="explorer-before" disabled>Before</button>
<span id="explorer-page" role="status"></span>
<button type="button" id="explorer-after" disabled>After</button>
</div>
<div class="scroll" role="region" tabindex="0" aria-label="Rows">
<table class="grid" id="explorer-table"><thead><tr></tr></thead><tbody></tbody></table>
</div>
</div>
</div>
"""

FILM = """<div class="card film" role="group" aria-label="Codes through the training">
<div class="explorer-tools">
<button type="button" id="explorer-play">Play</button>
<label>Moment <input type="range" id="explorer-moment" min="0" step="1"></label>
<output id="explorer-moment-name" for="explorer-moment"></output>
</div>
<canvas id="explorer-film" role="img" aria-label="Map of the codes of the rows at the chosen moment."></canvas>
</div>
"""


def explorer(run: ReportContext, view: View) -> str:
    """The elements, hidden where the page runs no script."""
    n, m = len(run.labels), len(view.rows)
    note = HELP if m == n else f"{HELP} It holds {m:,} of the {n:,} rows, drawn at random."
    legend = "Clusters" if run.dataset.y is None else "Cluster · class"
    silhouette = "" if view.silhouettes is None else SILHOUETTE
    return ELEMENTS.format(note=note, silhouette=silhouette, legend=legend, columns="" if silhouette else " two")

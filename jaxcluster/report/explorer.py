"""Elements of the explorer, which the script of the page fills: map, silhouettes, legend and table of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxcluster.report.context import ReportContext
    from jaxcluster.report.exploration import View

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

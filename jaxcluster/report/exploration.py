"""Explored rows of a report: the rows, coordinates, silhouettes and cells that its script shows, as JSON.

Arrays travel as base64 of little-endian typed arrays: coordinates in 16 bits, cells in float32 from an origin in
float64.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster.core.messages import INVALID_IN_HTML
from jaxcluster.plots.bars import silhouette_values
from jaxcluster.plots.maps import Plane, nearest_to_median, plane
from jaxcluster.plots.style import (
    MAX_NUMBERED,
    NOISE,
    PALETTE,
    color_of,
    colors_like,
    contrast_color,
    is_noise,
    match_classes,
    sample_indices,
)
from jaxcluster.report.readable import readable_rows

if TYPE_CHECKING:
    from jaxcluster.report.context import ReportContext

MAX_ROWS, MAX_COLUMNS = 10_000, 12
"""Rows and columns that are explored: a page stays below 2 MB."""

MAX_IMAGE_BYTES, MAX_IMAGE_SIDE = 300_000, 16
"""Bytes of all small images, and pixels of a side of one; larger images are thinned."""

MAX_MOMENT_ROWS, MAX_MOMENTS = 2_000, 16
"""Rows and moments of the codes through a training."""

MAX_TEXT = 80
"""Characters of a name or a word; longer ones are cut."""

TEXT_BYTES = 300_000
"""Bytes of the names of all rows, and of the words of all columns; longer ones are cut further."""

TSNE_ROWS = 2_500
"""Rows up to which t-SNE is drawn unasked: for more it takes longer than most fits."""

ABSENT = 65_535
"""Coordinate of a row that a map does not have."""


class View(NamedTuple):
    """Projections and silhouettes of a run, computed once for pictures and script.

    Attributes:
        planes: maps of the rows, the principal plane or the columns themselves first.
        codes: maps of the codes of a network; empty without one.
        rows: (m,) sorted numbers of the explored rows.
        silhouettes: (m,) NaN for noise; None where they are not defined.
    """

    planes: Sequence[Plane]
    codes: Sequence[Plane]
    rows: np.ndarray
    silhouettes: np.ndarray | None


def view_of(run: ReportContext, tsne: bool | None = None) -> View:
    """Project and sample the rows of a run; ``tsne`` as for `jaxcluster.report.write_report`."""
    x, occupied, codes = run.dataset.x, run.occupied, []
    methods = _methods(x, tsne)
    centers = None if run.centers is None else run.centers[occupied]
    planes = [
        plane(x, centers=centers, method=method, columns=run.axes)._replace(clusters=occupied) for method in methods
    ]
    if run.centers is None:
        planes = [each._replace(clusters=occupied[:0]) for each in planes]
    if run.training is not None:
        of_codes, latent = np.asarray(run.training.codes), np.shape(run.training.codes)[1]
        methods = _methods(of_codes, tsne) if latent > 2 else ("pca",)
        names = [f"code {j}" for j in range(latent)]
        means = np.asarray(run.training.centers)
        codes = [plane(of_codes, centers=means, method=method, columns=names) for method in methods]
        codes = [each._replace(title=each.title.replace("Clusters", "Codes", 1)) for each in codes]
    kept = planes[0].kept
    rows = kept[sample_indices(len(kept), MAX_ROWS)]
    return View(planes, codes, rows, _silhouettes(run, rows))


def _methods(x: np.ndarray, tsne: bool | None) -> tuple[str, ...]:
    """Projections to the plane: PCA, and t-SNE if it is asked for or there are few rows."""
    n, d = x.shape
    # t-SNE of at most two columns shows no more than the plane itself.
    return ("pca", "tsne") if (d > 2 and 4 <= n <= TSNE_ROWS if tsne is None else tsne) else ("pca",)


def _silhouettes(run: ReportContext, rows: np.ndarray) -> np.ndarray | None:
    """(m,) silhouettes among the explored rows in clusters, NaN for noise; None where they are not defined."""
    inside = np.flatnonzero(~run.noise[rows])
    labels = run.labels[rows[inside]]
    if run.missing or not 2 <= len(np.unique(labels)) < len(labels):
        return None
    shown = np.full(len(rows), np.nan)
    shown[inside] = silhouette_values(run.dataset.x[rows[inside]], labels, metric=run.metric, p=run.p)
    return shown


def payload(run: ReportContext, view: View, orders: Mapping[str, np.ndarray]) -> str:
    """JSON of the explored rows, safe inside a ``<script>`` element.

    Args:
        run: the run.
        view: its projections.
        orders: by the name of a picture, numbers of rows in the order in which its shapes have them.
    """
    rows = view.rows
    # Clusters without an explored row have nothing to show.
    names = np.unique(run.labels[rows])
    names = np.concatenate([names[~is_noise(names)], names[is_noise(names)]])
    index = {name: i for i, name in enumerate(names.tolist())}
    labels = np.array([index[name] for name in run.labels[rows].tolist()])
    data: dict[str, Any] = {
        "idName": "row" if run.dataset.ids is None else _cut(run.dataset.id_name or "id"),
        "ids": None if run.dataset.ids is None else cut_to(np.asarray(run.dataset.ids)[rows].tolist(), TEXT_BYTES),
        "rows": _encoded(rows, "<u4"),
        "labels": _encoded(labels, "<u2"),
        "clusters": _clusters(run, names),
        "palette": list(PALETTE),
        "truth": None,
        "classes": [],
        "silhouettes": None if view.silhouettes is None else _encoded(view.silhouettes, "<f4"),
        "maps": [_map(each, rows, index, run) for each in _by_use(run, view)],
        "columns": _columns(run, rows),
        "images": _images(run, rows),
        "moments": _moments(run, index),
        "orders": {name: _explored(order, rows) for name, order in orders.items()},
    }
    if run.dataset.y is not None:
        truth = np.asarray(run.dataset.y)
        classes, of_rows = np.unique(truth[rows], return_inverse=True)
        colors = colors_like(truth, run.labels)
        data["truth"] = _encoded(of_rows.ravel(), "<u2")
        data["classes"] = [{"name": _cut(name), "color": colors[name]} for name in classes.tolist()]
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # An HTML parser ends a script at "</script", whatever language it holds.
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return INVALID_IN_HTML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _by_use(run: ReportContext, view: View) -> list[Plane]:
    """The maps, those of codes first; t-SNE first where the principal plane shows less than half of the variance."""
    flat = view.planes[0]
    with np.errstate(over="ignore", invalid="ignore"):
        whole = np.nansum(np.nanvar(np.asarray(run.dataset.x[flat.kept], np.float64), axis=0))
        planar = bool(np.var(flat.points, axis=0).sum() >= 0.5 * whole)
    return [*view.codes[::-1], *(view.planes if planar else view.planes[::-1])]


def _cut(name: Any) -> str:
    text = str(name)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def cut_to(names: Sequence[Any], most_bytes: int) -> list[str]:
    """Names as text, all cut to one length where they would take more bytes on the page; 8 characters always stay.

    >>> cut_to(["a short one", "another that is long"], 30), cut_to(["abc", 1.5], 10)
    (['a short one', 'another that i…'], ['abc', '1.5'])
    """
    texts = [_cut(each) for each in names]
    # Signs that an HTML parser could take for markup are written with 6 bytes each.
    sizes = [len(each.encode(errors="replace")) + 5 * sum(map(each.count, "<>&")) for each in texts]
    if sum(sizes) <= most_bytes:
        return texts
    most = max(8, round(most_bytes / sum(sizes) * sum(map(len, texts)) / len(texts)))
    return [each if len(each) <= most else each[: most - 1] + "…" for each in texts]


def _encoded(values: Any, dtype: str) -> str:
    with np.errstate(over="ignore", invalid="ignore"):
        return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()


def _clusters(run: ReportContext, names: np.ndarray) -> list[dict[str, Any]]:
    counted = dict(zip(*map(np.ndarray.tolist, np.unique(run.labels, return_counts=True)), strict=True))
    matches = {} if run.dataset.y is None else match_classes(np.asarray(run.dataset.y), run.labels)
    classes = {cluster: name for name, cluster in matches.items()}
    entries = []
    for name, noise in zip(names.tolist(), is_noise(names), strict=True):
        color = NOISE if noise else color_of(int(name))
        entries.append(
            {
                "name": "noise" if noise else str(name),
                "label": name,
                "noise": bool(noise),
                "color": color,
                "ink": contrast_color(color),
                "size": counted[name],
                "match": _cut(classes[name]) if name in classes else None,
            }
        )
    return entries


def _map(at: Plane, rows: np.ndarray, index: Mapping[Any, int], run: ReportContext) -> dict[str, Any]:
    """A map with coordinates from 0 to 65,534 over its range."""
    position = np.full(len(run.labels), -1)
    position[at.kept] = np.arange(len(at.kept))
    found = position[rows]
    points = np.where((found >= 0)[:, None], at.points[found], np.nan)
    discs = [
        (point, index[cluster])
        for point, cluster in zip(at.centers, at.clusters.tolist(), strict=False)
        if cluster in index and len(at.centers) <= MAX_NUMBERED
    ]
    numbers = [] if len(at.centers) else _middles(at, run, index)
    everything = np.concatenate([at.points, *(point[None] for point, _ in discs)])
    low, high = everything.min(axis=0), everything.max(axis=0)
    # Some room, so that no point lies on the frame; a range of 0 is drawn in the middle.
    room = np.where(high > low, 0.02 * (high - low), np.where(low == 0, 1.0, np.abs(low)))
    low, high = low - room, high + room
    at_range = np.clip((points - low) / (high - low), 0, 1)
    ticks = np.where(np.isnan(at_range), ABSENT, np.rint(np.nan_to_num(at_range) * (ABSENT - 1)))
    return {
        "title": at.title,
        "xlabel": _cut(at.xlabel),
        "ylabel": _cut(at.ylabel),
        "range": [*map(float, (low[0], high[0], low[1], high[1]))],
        "x": _encoded(ticks[:, 0], "<u2"),
        "y": _encoded(ticks[:, 1], "<u2"),
        "centers": [[*((point - low) / (high - low)).tolist(), cluster] for point, cluster in discs],
        "numbers": [[*((point - low) / (high - low)).tolist(), cluster] for point, cluster in numbers],
    }


def _middles(at: Plane, run: ReportContext, index: Mapping[Any, int]) -> list[tuple[np.ndarray, int]]:
    """Place of the number of each cluster on a map: its row nearest to the median."""
    labels = run.labels[at.kept]
    names = [name for name in np.unique(labels[~is_noise(labels)]).tolist() if name in index]
    if len(names) > MAX_NUMBERED:
        return []
    return [(nearest_to_median(at.points[labels == name]), index[name]) for name in names]


def _columns(run: ReportContext, rows: np.ndarray) -> list[dict[str, Any]]:
    """The explored columns, in the units and words of the data; images are shown as such."""
    if run.dataset.image_shape is not None:
        return []
    table = readable_rows(run, rows, MAX_COLUMNS)
    columns = []
    for name in table.order:
        if name in table.words:
            words, codes = _coded_words(table.words[name], TEXT_BYTES // len(table.words))
            columns.append({"name": _cut(name), "kind": "word", "words": words, "data": _encoded(codes, "<u2")})
            continue
        cells = table.numbers[name]
        known = cells[np.isfinite(cells)]
        origin = float(known[0]) if known.size else 0.0
        kind = "date" if name in table.dates else "number"
        entry = {"name": _cut(name), "kind": kind, "origin": origin, "decimals": decimals(known)}
        columns.append(entry | {"data": _encoded(cells - origin, "<f4")})
    return columns


def _coded_words(column: np.ndarray, most_bytes: int) -> tuple[list[str], np.ndarray]:
    """Words of a column as numbers.

    Returns:
        Distinct words, the commonest first, and the number of each cell's word from 1; 0 for a missing cell.
    """
    known = np.array([cell is not None for cell in column], bool)
    words, code, counts = np.unique(column[known].astype(str), return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(words), np.int64)
    rank[order] = np.arange(1, len(words) + 1)
    codes = np.zeros(len(column), np.int64)
    codes[known] = rank[code.ravel()]
    return cut_to([words[i] for i in order], most_bytes), codes


def decimals(known: np.ndarray) -> int | None:
    """Decimals that show the numbers of a column, at least to a thousandth of their spread; None for 4 digits of each.

    >>> decimals(np.array([1.0, 2.0])), decimals(np.array([5.1, 4.9])), decimals(np.array([1e-9, 2e-9, 1e9]))
    (0, 1, None)
    """
    size = float(np.abs(known).max(initial=0))
    if size < 1e12 and (known == np.rint(known)).all():
        return 0
    if not 1e-4 < size < 1e12 or np.quantile(np.abs(known), 0.25) < 1e-4 * size:
        return None  # numbers of very different size: no number of decimals fits all
    for places in range(1, 5):
        if np.allclose(np.round(known, places), known, rtol=0, atol=1e-6 * size):
            return places
    least, most = np.quantile(known, [0.05, 0.95])
    spread = float(most - least) or float(np.ptp(known)) or size
    return int(np.clip(3 - np.floor(np.log10(spread)), 0, 9))


def _images(run: ReportContext, rows: np.ndarray) -> dict[str, Any] | None:
    """Small images of the first explored rows, in bytes; thinned where they are large."""
    shape = run.dataset.image_shape
    if shape is None:
        return None
    height, width, channels = (*shape, 1)[:3]
    step = -(-max(height, width) // MAX_IMAGE_SIDE)
    size = len(range(0, height, step)) * len(range(0, width, step)) * channels
    count = min(len(rows), max(1, MAX_IMAGE_BYTES // size))
    cells = np.nan_to_num(run.in_data_units(run.dataset.x[rows[:count]]).astype(np.float64))
    cells = cells.reshape(count, height, width, channels)[:, ::step, ::step]
    low, high = cells.min(), cells.max()
    cells = np.rint(255 * (cells - low) / ((high - low) or 1))
    shown = {"width": cells.shape[2], "height": cells.shape[1], "channels": channels, "count": count}
    return shown | {"data": _encoded(cells, "u1")}


def _moments(run: ReportContext, index: Mapping[Any, int]) -> dict[str, Any] | None:
    """Codes of the tracked rows through the training, on the principal plane of the last moment."""
    from jaxcluster.report.training import moment_title

    if run.training is None or len(run.training.moments) < 2:
        return None
    tracked = np.asarray(run.training.rows)
    known = np.array([name in index for name in run.labels[tracked].tolist()], bool)
    at = np.flatnonzero(known)
    at = at[sample_indices(len(at), MAX_MOMENT_ROWS)]
    names = list(run.training.moments)
    chosen = np.unique(np.linspace(0, len(names) - 1, min(MAX_MOMENTS, len(names))).round().astype(int))
    codes = {names[i]: np.asarray(run.training.moments[names[i]], np.float64)[at] for i in chosen}
    last = next(reversed(codes.values()))
    if not len(at) or not all(np.isfinite(each).all() for each in codes.values()):
        return None
    basis = plane(last).basis
    maps = [{"name": moment_title(name), **_coordinates(each @ basis)} for name, each in codes.items()]
    labels = [index[name] for name in run.labels[tracked[at]].tolist()]
    return {"rows": _encoded(tracked[at], "<u4"), "labels": _encoded(labels, "<u2"), "maps": maps}


def _coordinates(points: np.ndarray) -> dict[str, str]:
    """Coordinates from 0 to 65,534 over their own range."""
    low, width = points.min(axis=0), np.ptp(points, axis=0)
    at_range = np.where(width > 0, (points - low) / np.where(width > 0, width, 1), 0.5)
    return {name: _encoded(np.rint(at_range[:, j] * (ABSENT - 1)), "<u2") for j, name in enumerate("xy")}


def _explored(order: np.ndarray, rows: np.ndarray) -> str:
    """Positions among the explored rows, in an order of all rows; rows that are not explored keep their place."""
    at = np.searchsorted(rows, order)
    at = np.where((at < len(rows)) & (rows[np.minimum(at, len(rows) - 1)] == order), at, ABSENT)
    return _encoded(at, "<u2")

"""Figures of a report: plots as inline SVG, with the colors of the page so that they fit a dark one too."""

from __future__ import annotations

import base64
import html
import io
import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster.plots import style
from jaxcluster.plots.maps import Plane, draw_plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes

THEMED = {style.INK: "ink", style.MUTED: "muted", style.GRID: "line", style.PAPER: "card", style.NOISE: "noise"}
"""Colors of the plots, and the page's variables that stand for them."""


def figure(
    draw: Callable[..., Axes],
    alt: str,
    *,
    name: str,
    width: float = 6.4,
    height: float = 4.2,
    tight: bool = False,
    css: str = "",
    shapes: Callable[[], Sequence[Shape]] | None = None,
) -> str:
    """A ``<figure>`` of a plot.

    Args:
        draw: function that draws on ``ax``, the Axes of a new figure.
        alt: description for readers who do not see the figure.
        name: unique on the page; prefixes the ids inside, which would clash with those of another figure.
        width, height: in inches; on the page it grows and shrinks with its column.
        tight: cut away the empty margins.
        css: a further class of the ``<figure>``.
        shapes: function for the regions of the plot that stand for rows, which the script of the page makes selectable.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), layout="constrained")  # not pyplot's: nothing to close, no window
    stream = io.StringIO()
    # A constant salt makes the ids, and so the page, the same for the same run.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        # Text stays text, which the browser draws in fonts that have its letters.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        ax = draw(ax=drawn.add_subplot())
        drawn.savefig(
            stream,
            format="svg",
            transparent=True,
            dpi=150,
            metadata={"Date": None},
            bbox_inches="tight" if tight else None,
        )
    svg = inline(stream.getvalue(), alt, name)
    if shapes is not None and not tight:
        svg = svg.removesuffix("</svg>") + "".join(_polygon(shape, ax, drawn) for shape in shapes()) + "</svg>"
    return f'<figure class="{f"card {css}".strip()}">{svg}</figure>'


class Shape(NamedTuple):
    """A region of a plot that stands for rows.

    Attributes:
        corners: (m, 2) in the units of the axes.
        title: what it is.
        cluster: the cluster whose rows it stands for, or None.
        order, start, stop: of rows in an order, the name of the order and the range in it; the name is empty else.
    """

    corners: np.ndarray
    title: str
    cluster: Any = None
    order: str = ""
    start: int = 0
    stop: int = 0


def _polygon(shape: Shape, ax: Axes, drawn: Any) -> str:
    """The region as a polygon of the SVG, whose unit is 1/72 inch and whose y axis points down."""
    at = ax.transData.transform(np.asarray(shape.corners, float)) * 72 / drawn.dpi
    points = " ".join(f"{x:.1f},{72 * drawn.get_figheight() - y:.1f}" for x, y in at)
    if shape.order:
        rows = f'data-order="{shape.order}" data-from="{shape.start}" data-to="{shape.stop}"'
    else:
        rows = f'data-cluster="{html.escape(str(shape.cluster))}"'
    title = html.escape(shape.title)
    return f'<polygon class="hit" points="{points}" {rows} aria-label="{title}"><title>{title}</title></polygon>'


def inline(svg: str, alt: str, name: str) -> str:
    """An SVG file as part of an HTML page: no prolog, metadata or size, ids of its own, and the colors of the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    box = next(re.finditer(r'viewBox="([^"]*)"', svg))[1]
    svg = re.sub(r"<svg\b[^>]*>", f'<svg viewBox="{box}" role="img" aria-label="{html.escape(alt)}">', svg, count=1)
    # Ids and the references to them have the figure's name: matplotlib uses the same ids in every file.
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    for color, variable in THEMED.items():
        svg = svg.replace(color, f"var(--{variable})")
    # A hundredth of a point cannot be seen: with fewer digits and colors a page is half as large.
    svg = re.sub(r'(?<= d=")[^"]*', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", " ".join(path[0].split())), svg)
    svg = re.sub(r"(data:image/png;base64,)([^\"]*)", lambda image: image[1] + _with_palette(image[2]), svg)
    return re.sub(r"\n\s+", "\n", svg).strip()


def _with_palette(image: str) -> str:
    """A PNG in base64 with 256 colors in place of four channels; the image itself where that is not smaller."""
    from PIL import Image

    stream = io.BytesIO()
    drawn = Image.open(io.BytesIO(base64.b64decode(image)))
    if drawn.mode != "RGBA":
        return image
    drawn.quantize(256, method=Image.Quantize.FASTOCTREE).save(stream, format="png", optimize=True)
    shorter = base64.b64encode(stream.getvalue()).decode()
    return min(image, shorter, key=len)


def map_figures(
    planes: Sequence[Plane], labels: np.ndarray, truth: np.ndarray | None, *, prefix: str = "", what: str = "Clusters"
) -> list[str]:
    """Figures of the rows in the plane, colored by cluster, and by class where the truth is known.

    A class has the color of the cluster that it is matched with.

    Args:
        planes: projections of the rows.
        labels, truth: (n_samples,).
        prefix: of the figures' names, which must be unique on the page.
        what: first word of the titles.
    """
    shown = []
    for at in planes:
        method = "tsne" if at.basis is None else "pca"
        alt = f"{at.title}: {len(at.kept):,} rows as points colored by their cluster."
        shown.append(figure(partial(draw_plane, at, labels), alt, name=f"{prefix}{method}", height=5.2))
        if truth is not None:
            title = at.title.replace(what, "Truth" if what == "Clusters" else f"{what} by class", 1)
            colors = style.colors_like(np.asarray(truth), labels)
            draw_truth: Any = partial(
                draw_plane, at._replace(centers=at.centers[:0]), truth, title=title, colors=colors
            )
            alt = f"{title}: the same points colored by their known class."
            shown.append(figure(draw_truth, alt, name=f"{prefix}{method}-truth", height=5.2))
    return shown

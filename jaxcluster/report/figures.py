"""Figures of a report: plots as inline SVG, with the colors of the page so that they fit a dark one too."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.plots import style
from jaxcluster.plots.maps import draw_plane, plane

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
) -> str:
    """A ``<figure>`` of a plot.

    Args:
        draw: function that draws on ``ax``, the Axes of a new figure.
        alt: description for readers who do not see the figure.
        name: unique on the page; prefixes the ids inside, which would clash with those of another figure.
        width, height: in inches; on the page it grows and shrinks with its column.
        tight: cut away the empty margins.
        css: a further class of the ``<figure>``.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), layout="constrained")  # not pyplot's: nothing to close, no window
    stream = io.StringIO()
    # A constant salt makes the ids, and so the page, the same for the same run.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        draw(ax=drawn.add_subplot())
        drawn.savefig(
            stream,
            format="svg",
            transparent=True,
            dpi=150,
            metadata={"Date": None},
            bbox_inches="tight" if tight else None,
        )
    return f'<figure class="{f"card {css}".strip()}">{inline(stream.getvalue(), alt, name)}</figure>'


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
    return svg.strip()


def map_figures(
    x: np.ndarray,
    labels: np.ndarray,
    truth: np.ndarray | None,
    *,
    centers: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
    columns: Sequence[str] | None = None,
    methods: Sequence[str] = ("pca",),
    prefix: str = "",
    what: str = "Clusters",
) -> list[str]:
    """Figures of the rows in the plane, colored by cluster, and by class where the truth is known.

    A class has the color of the cluster that it is matched with.

    Args:
        x: (n_samples, n_features).
        labels, truth: (n_samples,).
        centers: (n_clusters, n_features), and in ``clusters`` the number of each.
        columns: names of the features.
        methods: of `jaxcluster.plots.maps.plane`.
        prefix: of the figures' names, which must be unique on the page.
        what: first word of the titles.
    """
    shown = []
    for method in methods:
        at = plane(x, centers=centers, method=method, columns=columns)
        at = at._replace(title=at.title.replace("Clusters", what, 1))
        at = at if clusters is None else at._replace(clusters=clusters)
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

"""Plots as inline SVG that takes its colors from the page, so that it is at home on a dark one too."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from jaxcluster.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

THEMED = {style.INK: "ink", style.MUTED: "muted", style.GRID: "line", style.PAPER: "card", style.NOISE: "noise"}
"""Colors of the plots, and the page's variables that stand for them."""


def picture(
    draw: Callable[..., Axes],
    alt: str,
    *,
    name: str,
    width: float = 6.4,
    height: float = 4.2,
    tight: bool = False,
    css: str = "",
) -> str:
    """A ``<figure>`` holding what ``draw`` draws.

    Args:
        draw: called with ``ax``, the Axes of a new figure.
        alt: what the picture shows, for those who do not see it.
        name: unique on the page; prefixes the ids inside, which would clash with another picture's.
        width, height: in inches; on the page it grows and shrinks with its column.
        tight: whether to cut away what is left empty around.
        css: a further class of the ``<figure>``.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")  # not pyplot's: nothing to close, no window
    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        draw(ax=figure.add_subplot())
        figure.savefig(
            stream,
            format="svg",
            transparent=True,
            dpi=150,
            metadata={"Date": None},
            bbox_inches="tight" if tight else None,
        )
    return f'<figure class="{f"card {css}".strip()}">{inline(stream.getvalue(), alt, name)}</figure>'


def inline(svg: str, alt: str, name: str) -> str:
    """An SVG file as part of an HTML page: no prolog, metadata or size, ids of its own, the page's colors."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]*)"', svg)[1]
    svg = re.sub(r"<svg\b[^>]*>", f'<svg viewBox="{box}" role="img" aria-label="{html.escape(alt)}">', svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    for color, variable in THEMED.items():
        svg = svg.replace(color, f"var(--{variable})")
    return svg.strip()

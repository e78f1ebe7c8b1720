"""Small pieces of HTML for notebooks: a table of facts, and a curve without axes.

>>> "polyline" in sparkline([3.0, 2.0, 1.5])
True
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import numpy as np

MAX_POINTS = 200
"""Points of a curve: more cannot be seen."""


def sparkline(values: Any, title: str = "") -> str:
    """A curve of the finite values as an SVG in the color of the text around it; empty for fewer than 2 of them."""
    values = np.asarray(values, np.float64).ravel()
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return ""
    chosen = values[np.linspace(0, len(values) - 1, min(MAX_POINTS, len(values))).round().astype(int)]
    least, height = chosen.min(), np.ptp(chosen)
    up = (chosen - least) / height if height > 0 else np.full(len(chosen), 0.5)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(np.linspace(2, 118, len(chosen)), 22 - 20 * up, strict=True))
    label = html.escape(f"{title} from {values[0]:.6g} to {values[-1]:.6g}".strip())
    return (
        f'<svg width="120" height="24" viewBox="0 0 120 24" role="img" aria-label="{label}"><title>{label}</title>'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
    )


def facts(title: str, rows: Mapping[str, str]) -> str:
    """A table of names and values; the values are HTML, and lines without one are left out."""
    lines = "".join(
        f'<tr><th scope="row" style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{value}</td></tr>'
        for name, value in rows.items()
        if value
    )
    return f'<table><caption style="text-align:left">{html.escape(title)}</caption><tbody>{lines}</tbody></table>'


def sizes_in_words(labels: Any) -> str:
    """The number of clusters and of the rows in them, for HTML: 3 clusters of 38 to 62 rows, 4 rows of noise."""
    names, counts = np.unique(np.asarray(labels), return_counts=True)
    inside = counts[names != -1]
    noise = int(counts[names == -1].sum())
    if not len(inside):
        return f"no clusters: all {noise:,} rows are noise"
    least, most = int(inside.min()), int(inside.max())
    rows = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    text = f"{len(inside):,} cluster{'s' * (len(inside) > 1)} of {rows} rows"
    return f"{text}, {noise:,} row{'s' * (noise > 1)} of noise" if noise else text

"""Eigenvalues of a graph's Laplacian, and the gap that tells how many clusters the graph has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.plots.style import INK, MUTED, PALETTE, PAPER, finish, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def eigengap(eigenvalues: Any, *, k: int | None = None, ax: Axes | None = None) -> Axes:
    """The least eigenvalues of a Laplacian, ascending, and the widest gap between two: k before it suggest k clusters.

    Source: U. von Luxburg, A tutorial on spectral clustering, Statistics and Computing, 2007.

    Args:
        eigenvalues: (m,) in any order, at least one.
        k: the number of clusters that was chosen, marked if the gap after it is among these eigenvalues.

    Raises:
        ValueError: where there is none, or one that is not finite.
    """
    values = np.sort(np.asarray(eigenvalues, float).ravel())
    if not values.size or not np.isfinite(values).all():
        raise ValueError(
            f"eigenvalues must be finite, at least one of them: got {values.size} of which "
            f"{int(np.isfinite(values).sum())} are."
        )
    ax = new_axes(ax)
    at = np.arange(1, len(values) + 1)
    gaps = np.diff(values)
    widest = int(np.argmax(gaps)) + 1 if gaps.size else None
    for number, color in {k: MUTED, widest: PALETTE[1]}.items():
        if number is not None and number < len(values):
            _mark(ax, values, number, color)
    before = at <= (k or widest or len(values))
    ax.plot(at, values, color=MUTED, linewidth=1, zorder=1)
    style = {"s": 42, "edgecolors": PAPER, "linewidths": 1, "zorder": 3}
    ax.scatter(at[before], values[before], color=PALETTE[0], **style)
    ax.scatter(at[~before], values[~before], color=MUTED, **style)
    ax.margins(y=0.12)
    finish(ax, f"Least {len(values)} eigenvalues of the Laplacian", "number", "eigenvalue", integer=True)
    if widest is not None:
        _say(ax, values, widest, k)
    return ax


def _mark(ax: Axes, values: np.ndarray, number: int, color: str) -> None:
    """A band from one eigenvalue to the next."""
    ax.axhspan(values[number - 1], values[number], color=color, alpha=0.16, linewidth=0, zorder=0)


def _say(ax: Axes, values: np.ndarray, widest: int, k: int | None) -> None:
    """The widest gap in words, where the curve is not: left of it and above its lower end, or right of it below."""
    text = f"widest gap after {widest}" + ("" if k in (None, widest) else f"; {k} chosen")
    middle = (values[widest - 1] + values[widest]) / 2
    leftwards = widest + 0.5 > (1 + len(values)) / 2
    style = {"color": INK, "fontsize": 9.5, "fontweight": "bold", "va": "center"}
    ax.annotate(
        text,
        (widest + 0.5, middle),
        (-14 if leftwards else 14, 0),
        textcoords="offset points",
        ha="right" if leftwards else "left",
        **style,
    )

"""Transport plans, as lines between samples or as a matrix.

>>> from matplotlib import use
>>> use("Agg")
>>> transport_plan(np.eye(2) / 2).get_title(loc="left")
'Plan of 2 rows onto 2'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.plots.maps import plane
from jaxcluster.plots.style import GRID, INK, MUTED, color_of, new_axes, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LINES = 2_000
"""Number of lines beyond which they hide each other."""

SHOWN_MASS = 0.99
"""Fraction of the mass after which the lightest lines are left out."""


def transport_plan(
    plan: Any, x: Any = None, y: Any = None, *, labels: Any = None, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """A transport plan: lines between samples in the plane, or the matrix without samples.

    Lines are the darker the more mass they carry, and the lightest are left out. More than two features are projected
    to the principal plane of all samples.

    Args:
        plan: (n, m) mass >= 0 from each sample of x to each of y.
        x: (n, n_features) samples, or None.
        y: (m, n_features) samples, or None.
        labels: (n,) clusters of x, which color its samples and lines; None for one color.
        title: instead of the default.

    Raises:
        ValueError: plan, samples and labels that do not fit, or negative mass.
    """
    plan = np.asarray(plan, float)
    if plan.ndim != 2 or not (plan >= 0).all():
        raise ValueError(f"plan must be an (n, m) matrix of numbers >= 0, got shape {plan.shape}, least {plan.min()}.")
    if (x is None) != (y is None):
        raise ValueError("x and y go together: pass both, or neither for a picture of the matrix.")
    if x is None:
        return _matrix(plan, new_axes(ax, 6.4, 5.2), title)
    x, y = np.asarray(x), np.asarray(y)
    if (len(x), len(y)) != plan.shape or x.shape[1:] != y.shape[1:] or x.ndim != 2:
        raise ValueError(f"plan {plan.shape} does not fit rows {x.shape} and {y.shape}: (n, d) and (m, d) are needed.")
    if labels is not None and np.shape(labels) != (len(x),):
        raise ValueError(f"labels {np.shape(labels)} do not fit {len(x)} rows: one label per row is needed.")
    return _lines(plan, x, y, labels, new_axes(ax, 6.4, 5.2), title)


def _matrix(plan: np.ndarray, ax: Axes, title: str | None) -> Axes:
    from matplotlib.colors import LinearSegmentedColormap

    # From transparent, so that zeros show the background of a light or dark page.
    shades = LinearSegmentedColormap.from_list("mass", ["#ffffff00", color_of(0)])
    image = ax.imshow(plan, cmap=shades, aspect="auto", interpolation="nearest", vmin=0)
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.045, pad=0.02)
    bar.set_label("mass", color=MUTED, fontsize=10)
    bar.ax.tick_params(colors=MUTED, labelsize=9, length=0)
    bar.outline.set_edgecolor(GRID)
    style_axes(
        ax, title or f"Plan of {plan.shape[0]:,} rows onto {plan.shape[1]:,}", "row of y", "row of x", integer=True
    )
    ax.grid(False)
    return ax


def _lines(plan: np.ndarray, x: np.ndarray, y: np.ndarray, labels: Any, ax: Axes, title: str | None) -> Axes:
    from matplotlib.collections import LineCollection

    n = len(x)
    # One projection for both, or lines between them would have no meaning.
    at = plane(np.concatenate([x, y]))
    if len(at.kept) < n + len(y):
        raise ValueError(f"{n + len(y):,} rows are too many to draw: pass some of them, and that part of the plan.")
    points, others = at.points[:n], at.points[n:]
    from_row, to_row, mass = _heaviest(plan)
    colors = np.array([color_of(0)] * n if labels is None else [color_of(int(label)) for label in labels])
    # At least 0.03: lighter lines could not be seen.
    alpha = np.clip(0.75 * mass / plan.max(), 0.03, 0.75) if mass.size else []
    ends = np.stack([points[from_row], others[to_row]], axis=1)
    ax.add_collection(LineCollection(list(ends), colors=colors[from_row], alpha=alpha, linewidths=0.9, zorder=0.9))
    ax.scatter(*points.T, s=26, c=colors, linewidths=0, zorder=2, label="x")
    ax.scatter(*others.T, s=30, facecolors="none", edgecolors=INK, linewidths=1.1, zorder=2, label="y")
    ax.legend(loc="best", frameon=False, fontsize=9.5, labelcolor=MUTED)
    carried = mass.sum() / plan.sum() if plan.sum() > 0 else 0
    style_axes(ax, title or f"Plan: {len(mass):,} lines carry {carried:.0%} of the mass", at.xlabel, at.ylabel)
    if not at.xlabel:
        ax.set_xticks([])
        ax.set_yticks([])
    return ax


def _heaviest(plan: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries that carry `SHOWN_MASS` of the mass, ascending, so that heavier lines are drawn on top.

    Returns:
        Row indices, column indices and masses.
    """
    order = np.argsort(plan, axis=None)[::-1][:MAX_LINES]
    mass = plan.ravel()[order]
    count = int(np.searchsorted(np.cumsum(mass), SHOWN_MASS * plan.sum())) + 1
    order = order[:count][plan.ravel()[order[:count]] > 0][::-1]
    rows, columns = np.unravel_index(order, plan.shape)
    return rows, columns, plan.ravel()[order]

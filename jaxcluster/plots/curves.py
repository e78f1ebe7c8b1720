"""Curves: the objective over the steps, and scores over the number of clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster import select
from jaxcluster.plots.style import INK, MUTED, PALETTE, PAPER, compact, finish, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def elbow(ks: Any, inertias: Any, ax: Axes | None = None) -> Axes:
    """Inertia by number of clusters, its elbow marked: the point farthest below the chord (Satopää et al., 2011).

    ``inertias`` is (len(ks),), or (len(ks), n_seeds): then the least of each k are joined and the others are dots.
    Raises ValueError where the two do not fit.
    """
    ks, inertias = _curve(ks, inertias)
    best = np.nanmin(inertias, axis=1)
    ax = new_axes(ax)
    _line(ax, ks, best, inertias)
    knee = select.elbow(ks, best)
    if knee is not None:
        _callout(ax, float(knee), float(best[ks == knee][0]), f"elbow at k = {knee}")
    return finish(ax, "Inertia by number of clusters", "clusters k", "inertia", integer=True)


def sweep(ks: Any, scores: Any, *, name: str = "score", best: str = "max", ax: Axes | None = None) -> Axes:
    """A score by number of clusters, its best k marked; ``best`` is "max" or "min".

    ``scores`` is (len(ks),) or (len(ks), n_seeds), as in `elbow`.
    """
    if best not in ("max", "min"):
        raise ValueError(f"best={best!r} is not known; choose 'max' or 'min'.")
    ks, scores = _curve(ks, scores)
    curve = (np.nanmax if best == "max" else np.nanmin)(scores, axis=1)
    at = int((np.argmax if best == "max" else np.argmin)(curve))
    ax = new_axes(ax)
    _line(ax, ks, curve, scores)
    _callout(ax, float(ks[at]), float(curve[at]), f"best at k = {ks[at]:g}")
    return finish(ax, f"{_title(name)} by number of clusters", "clusters k", name, integer=True)


def history(history: Any, ax: Axes | None = None, *, name: str = "inertia") -> Axes:
    """The objective after each step; the NaN that pads a history is left out. Raises ValueError if nothing is left."""
    values = np.asarray(history, float).ravel()
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise ValueError("history holds no finite value: there is no step to draw.")
    ax = new_axes(ax)
    steps = np.arange(1, len(values) + 1)
    marker = "o" if len(values) <= 60 else None
    ax.plot(steps, values, color=PALETTE[0], linewidth=2, marker=marker, markersize=4)
    ax.annotate(
        compact(values[-1]),
        (steps[-1], values[-1]),
        (0, 9),
        textcoords="offset points",
        ha="right",
        color=INK,
        fontsize=9.5,
        fontweight="bold",
    )
    plural = "" if len(values) == 1 else "s"
    return finish(ax, f"{_title(name)} over {len(values)} step{plural}", "step", name, integer=True)


def _curve(ks: Any, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """k ascending, and (len(ks), n_seeds) values."""
    ks, values = np.asarray(ks), np.asarray(values, float)
    if ks.ndim != 1 or values.ndim not in (1, 2) or len(values) != len(ks) or not values.size:
        raise ValueError(f"ks {ks.shape} and values {values.shape} do not fit: (m,) and (m,) or (m, seeds) are needed.")
    order = np.argsort(ks)
    return ks[order], values.reshape(len(ks), -1)[order]


def _line(ax: Axes, ks: np.ndarray, best: np.ndarray, every: np.ndarray) -> None:
    if every.shape[1] > 1:
        ax.scatter(np.repeat(ks, every.shape[1]), every, s=14, color=MUTED, alpha=0.45, linewidths=0)
    ax.plot(ks, best, color=PALETTE[0], linewidth=2, marker="o", markersize=5)


def _callout(ax: Axes, k: float, value: float, text: str) -> None:
    """Marks one point; its text stands on the side that has more room."""
    leftwards = k > np.mean(ax.get_xlim())
    ax.axvline(k, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    style = {"marker": "o", "markersize": 10, "markeredgecolor": PAPER, "markeredgewidth": 1.6}
    ax.plot([k], [value], color=PALETTE[1], zorder=4, **style)
    ax.annotate(
        text,
        (k, 1),
        (-10 if leftwards else 10, -4),
        xycoords=ax.get_xaxis_transform(),
        textcoords="offset points",
        ha="right" if leftwards else "left",
        va="top",
        color=INK,
        fontsize=9.5,
        fontweight="bold",
    )


def _title(name: str) -> str:
    return name[:1].upper() + name[1:]

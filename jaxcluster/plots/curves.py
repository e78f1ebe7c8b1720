"""Curves: the objective over the steps, and scores over the number of clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster import select
from jaxcluster.plots.style import INK, MUTED, PALETTE, PAPER, color_of, compact, finish, new_axes
from jaxcluster.types import Fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def elbow(ks: Any, inertias: Any, ax: Axes | None = None, *, name: str = "inertia") -> Axes:
    """Inertia by number of clusters, its elbow marked: the point farthest below the chord (Satopää et al., 2011).

    ``inertias`` is (len(ks),), or (len(ks), n_seeds): then the least of each k are joined and the others are dots;
    ``name`` is what they are called. Raises ValueError where the two do not fit.
    """
    ks, inertias = _curve(ks, inertias)
    best = np.nanmin(inertias, axis=1)
    ax = new_axes(ax)
    _line(ax, ks, best, inertias)
    knee = select.elbow(ks, best)
    if knee is not None:
        _callout(ax, float(knee), float(best[ks == knee][0]), f"elbow at k = {knee}")
    return finish(ax, f"{_title(name)} by number of clusters", "clusters k", name, integer=True)


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


def information_criteria(ks: Any, values: Any, *, name: str = "BIC", ax: Axes | None = None) -> Axes:
    """An information criterion by number of components, the least of all marked.

    Args:
        ks: (m,) numbers of components.
        values: (m,) or (m, n_seeds) as in `elbow`, or a mapping of covariance types to such values: a line each. What
            is not finite, as for a mixture that collapsed, is left out.
        name: what the criterion is called.

    Raises:
        ValueError: where ks and values do not fit, or none of the values is finite.
    """
    named = isinstance(values, Mapping)
    lines = {label: _curve(ks, each) for label, each in (values if named else {"": values}).items()}
    least = {label: np.where(np.isfinite(each), each, np.inf).min(axis=1) for label, (_, each) in lines.items()}
    best = min(least, key=lambda label: least[label].min(), default=None)
    if best is None or not np.isfinite(least[best]).any():
        raise ValueError("values holds no finite number: there is no line to draw.")
    k, lowest = lines[best][0][least[best].argmin()], least[best].min()
    ax, colors = new_axes(ax), {label: color_of(i) for i, label in enumerate(lines)}
    for label, (at, each) in lines.items():
        curve = np.where(np.isfinite(least[label]), least[label], np.nan)
        _line(ax, at, curve, each, color=colors[label], dots=colors[label] if named else MUTED, label=label)
    ax.margins(y=0.12)  # the callout's text stands above the lines
    _callout(ax, float(k), float(lowest), f"least at k = {k:g}" + (f", {best}" if named else ""), colors[best])
    finish(ax, f"{_title(name)} by number of components", "components k", name, integer=True, pad=30 if named else 10)
    if named:
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.3}  # between the title and the axes
        ax.legend(ncols=len(lines), frameon=False, fontsize=9.5, labelcolor=INK, handlelength=1.4, **place)
    return ax


def history(history: Any, ax: Axes | None = None, *, name: str = "inertia") -> Axes:
    """The objective after each step. Raises ValueError where no step has a finite one.

    Args:
        history: ``history_`` of an estimator, or a `jaxcluster.types.Fit`; of the history of a fit alone pass
            ``fit.history[: fit.steps]``, for what follows are zeros. What is not finite is left out.
        name: what the objective is called.
    """
    values = steps_of(history)
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


def steps_of(history: Any) -> np.ndarray:
    """The finite objectives of a history, that of a `Fit` cut to the steps that were taken."""
    if isinstance(history, Fit):
        history = np.asarray(history.history)[: int(history.steps)]
    values = np.asarray(history, float).ravel()
    return values[np.isfinite(values)]


def _curve(ks: Any, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """k ascending, and (len(ks), n_seeds) values."""
    ks, values = np.asarray(ks), np.asarray(values, float)
    if ks.ndim != 1 or values.ndim not in (1, 2) or len(values) != len(ks) or not values.size:
        raise ValueError(f"ks {ks.shape} and values {values.shape} do not fit: (m,) and (m,) or (m, seeds) are needed.")
    order = np.argsort(ks)
    return ks[order], values.reshape(len(ks), -1)[order]


def _line(
    ax: Axes,
    ks: np.ndarray,
    best: np.ndarray,
    every: np.ndarray,
    *,
    color: str = PALETTE[0],
    dots: str = MUTED,
    label: str = "",
) -> None:
    if every.shape[1] > 1:
        ax.scatter(np.repeat(ks, every.shape[1]), every, s=14, color=dots, alpha=0.45, linewidths=0)
    ax.plot(ks, best, color=color, linewidth=2, marker="o", markersize=5, label=label)


def _callout(ax: Axes, k: float, value: float, text: str, color: str = PALETTE[1]) -> None:
    """Marks one point; its text stands on the side that has more room."""
    leftwards = k > np.mean(ax.get_xlim())
    ax.axvline(k, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    style = {"marker": "o", "markersize": 10, "markeredgecolor": PAPER, "markeredgewidth": 1.6}
    ax.plot([k], [value], color=color, zorder=4, **style)
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

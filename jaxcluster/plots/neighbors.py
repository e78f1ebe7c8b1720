"""Distances to neighbors: the reachability plot of OPTICS, and sorted k-distances to choose the radius of DBSCAN.

>>> from matplotlib import use
>>> use("Agg")
>>> neighbor_distances([0.5, 0.1, 0.4], min_samples=2).get_title(loc="left")
'Distance to the 2nd nearest row, sorted'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.metrics.contingency import narrow_labels
from jaxcluster.plots.style import (
    MAX_NUMBERED,
    MUTED,
    PALETTE,
    annotate,
    colors_of,
    escape_text,
    format_number,
    halo,
    is_noise,
    new_axes,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_BARS = 4_000
"""Bars that can be seen; for more samples each bar stands for several."""

MAX_BAR_RATIO = 3
"""Height of the tallest bar relative to the 95th percentile; taller ones are cut off, or they would flatten valleys."""

MIN_TICK_DISTANCE = 0.025
"""Least distance of the numbers of two clusters, as a fraction of the axis."""

DASHED = (0, (4, 3))


def reachability(
    reachability: Any, ordering: Any, labels: Any, *, eps: float | None = None, ax: Axes | None = None
) -> Axes:
    """Reachability plot (Ankerst et al., 1999): a bar for each sample, in the order of OPTICS; valleys are clusters.

    A sample of infinite reachability, the first of its component, has a bar to the top; so do samples whose
    reachability is several times that of nearly all others. Beyond 4,000 samples, consecutive ones share a bar: the
    maximum, in the color of the middle one; the title says so.

    Args:
        reachability: (n_samples,) reachability distances, may be infinite.
        ordering: (n_samples,) indices of the samples in the order of OPTICS.
        labels: (n_samples,) clusters, -1 for noise.
        eps: distance of a DBSCAN cut, drawn as a line.

    Raises:
        ValueError: arrays that do not fit, or an ordering that is not a permutation.
    """
    reachability, ordering, labels = np.asarray(reachability, float), np.asarray(ordering), narrow_labels(labels)
    n = len(ordering)
    if reachability.shape != (n,) or labels.shape != (n,) or not np.array_equal(np.sort(ordering), np.arange(n)):
        raise ValueError(
            f"reachability {reachability.shape}, ordering {ordering.shape} and labels {labels.shape} do not fit: each "
            "must be (n,), and the ordering hold each row once."
        )
    heights, bar_labels, group = _bars(reachability[ordering], labels[ordering])
    eps = eps if eps is not None and np.isfinite(eps) else None
    top = _top(heights[np.isfinite(heights)], eps)
    ax = new_axes(ax, 8.0, 4.0)
    _draw_bars(ax, np.minimum(heights, top), bar_labels)
    title = "Reachability of each row, in order" + ("" if group == 1 else f" (the highest of every {group})")
    style_axes(ax, title, "rows in order, and their clusters", "reachability")
    ax.set(xlim=(0, len(heights)), ylim=(0, top))
    ax.grid(False, axis="x")
    _number(ax, bar_labels)
    if eps is not None:
        _mark_eps(ax, eps)
    return ax


def neighbor_distances(distances: Any, *, min_samples: int, eps: float | None = None, ax: Axes | None = None) -> Axes:
    """Sorted k-distances: distance of each sample to its min_samples-th neighbor; core samples lie below ``eps``.

    A radius at the bend, where distances begin to rise, separates clusters from noise (Ester et al., 1996).

    Args:
        distances: (n_samples,) core distances, or those of a subset, in any order; infinite ones are left out.
        min_samples: number of the neighbor, the sample itself counted as the first.
        eps: the radius, drawn as a line.

    Raises:
        ValueError: no finite distance.
    """
    distances = np.asarray(distances, float).ravel()
    distances = np.sort(distances[np.isfinite(distances)])
    if not distances.size:
        raise ValueError("distances holds no finite number: there is no curve to draw.")
    eps = eps if eps is not None and np.isfinite(eps) else None
    ax = new_axes(ax)
    # Fractions instead of counts, so that a subset shows the same curve as all samples.
    quantiles = np.arange(1, len(distances) + 1) / len(distances)
    ax.plot(100 * quantiles, distances, color=PALETTE[0], linewidth=2, drawstyle="steps-pre")
    if eps is not None:
        core = float(np.mean(distances <= eps))
        ax.fill_between([0, 100 * core], 0, eps, color=PALETTE[0], alpha=0.1, linewidth=0)
        _mark_eps(ax, eps, f"eps {format_number(eps)}: {core:.1%} are core rows")
        ax.set_ylim(0, max(1.08 * distances[-1], 1.25 * eps))
    else:
        ax.set_ylim(bottom=0)
    nearest = f"{min_samples}{_ordinal_suffix(min_samples)} nearest"
    style_axes(ax, f"Distance to the {nearest} row, sorted", "rows (%)", "distance")
    ax.set_xlim(0, 100)
    return ax


def _top(finite: np.ndarray, eps: float | None) -> float:
    """Upper limit of the plot: above eps and all bars, within `MAX_BAR_RATIO`."""
    if not finite.size:
        return eps or 1.0
    highest = min(float(finite.max()), MAX_BAR_RATIO * float(np.quantile(finite, 0.95)))
    return 1.08 * max(highest or float(finite.max()), eps or 0) or 1.0


def _bars(heights: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Group consecutive samples into at most `MAX_BARS` bars.

    Returns:
        Heights and labels of the bars, and the number of samples per bar.
    """
    group = -(-len(heights) // MAX_BARS)
    if group == 1:
        return heights, labels, 1
    starts = np.arange(0, len(heights), group)
    middles = np.minimum(starts + group // 2, len(heights) - 1)
    return np.maximum.reduceat(heights, starts), labels[middles], group


def _draw_bars(ax: Axes, heights: np.ndarray, labels: np.ndarray) -> None:
    from matplotlib.collections import PolyCollection

    colors, left = colors_of(labels), np.arange(len(heights))
    x = np.stack([left, left, left + 1, left + 1], axis=1)
    y = np.stack([np.zeros_like(heights), heights, heights, np.zeros_like(heights)], axis=1)
    bars = PolyCollection(
        np.stack([x, y], axis=2),  # pyright: ignore[reportArgumentType]  # an array is faster, and not in the stub
        facecolors=[colors[label] for label in labels.tolist()],
        linewidths=0,
        # Antialiased edges would let the background through between bars.
        antialiased=False,
        rasterized=len(heights) > 500,
    )
    ax.add_collection(bars)


def _number(ax: Axes, labels: np.ndarray) -> None:
    """Write each cluster's number under the middle of its samples, where there is room."""
    names = np.unique(labels[~is_noise(labels)]).tolist()
    middles = {name: float(np.median(np.flatnonzero(labels == name))) + 0.5 for name in names}
    ticks: list[tuple[float, str]] = []
    # Median positions, as a cluster may be cut in two by the order.
    for name in sorted(names, key=middles.__getitem__) if len(names) <= MAX_NUMBERED else ():
        if not ticks or middles[name] - ticks[-1][0] >= MIN_TICK_DISTANCE * len(labels):
            ticks.append((middles[name], escape_text(name)))
    ax.set_xticks([at for at, _ in ticks], [name for _, name in ticks])


def _mark_eps(ax: Axes, eps: float, text: str = "") -> None:
    """Draw a dashed line at eps, with a text."""
    ax.axhline(eps, color=MUTED, linewidth=1.2, linestyle=DASHED)
    place = {"ha": "left", "va": "bottom", "xycoords": ax.get_yaxis_transform()}
    annotate(ax, text or f"eps {format_number(eps)}", (0, eps), (8, 4), path_effects=halo(), **place)


def _ordinal_suffix(number: int) -> str:
    """Suffix of an ordinal: 1st, 2nd, 3rd, 4th."""
    return "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")

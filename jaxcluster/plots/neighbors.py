"""How far rows are from their neighbors: in the order of OPTICS, and sorted, to choose a radius for DBSCAN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.plots.style import (
    INK,
    MUTED,
    NUMBERED,
    PALETTE,
    colors_of,
    compact,
    finish,
    halo,
    is_noise,
    new_axes,
    plain,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BARS = 4_000
"""Bars that a picture can show; of more rows each bar stands for several."""

TOWERING = 3
"""How many times as high as nineteen in twenty others a bar may be drawn."""

NEAREST_TICKS = 0.025
"""How near, as a share of the axis, the numbers of two clusters may stand."""

DASHED = (0, (4, 3))


def reachability(
    reachability: Any, ordering: Any, labels: Any, *, eps: float | None = None, ax: Axes | None = None
) -> Axes:
    """The reachability plot (Ankerst et al., 1999): a bar for each row, in order; valleys are clusters.

    A row that no other reaches, the first of its part of the data, has a bar to the top; so have rows that are reached
    from several times as far as nearly all others, which would make the valleys too shallow to see. Of more than 4,000
    rows consecutive ones share a bar: the highest of them, in the color of the one in the middle; the title says so.

    Args:
        reachability: (n,) distance at which each row is reached, infinite where it is not.
        ordering: (n,) the rows in the order in which they were reached.
        labels: (n,) clusters, -1 for noise.
        eps: a distance at which the order is cut, drawn as a line.

    Raises:
        ValueError: where the three do not fit, or ordering is not an order of the rows.
    """
    reachability, ordering, labels = np.asarray(reachability, float), np.asarray(ordering), np.asarray(labels)
    n = len(ordering)
    if reachability.shape != (n,) or labels.shape != (n,) or not np.array_equal(np.sort(ordering), np.arange(n)):
        raise ValueError(
            f"reachability {reachability.shape}, ordering {ordering.shape} and labels {labels.shape} do not fit: each "
            "must be (n,), and the ordering hold each row once."
        )
    heights, shown, share = _bars(reachability[ordering], labels[ordering])
    eps = eps if eps is not None and np.isfinite(eps) else None
    top = _top(heights[np.isfinite(heights)], eps)
    ax = new_axes(ax, 8.0, 4.0)
    _draw(ax, np.minimum(heights, top), shown)
    title = "Reachability of each row, in order" + ("" if share == 1 else f" (the highest of every {share})")
    finish(ax, title, "rows in order, and their clusters", "reachability")
    ax.set(xlim=(0, len(heights)), ylim=(0, top))
    ax.grid(False, axis="x")
    _number(ax, shown)
    if eps is not None:
        _level(ax, eps)
    return ax


def neighbor_distances(distances: Any, *, min_samples: int, eps: float | None = None, ax: Axes | None = None) -> Axes:
    """Distance of each row to its min_samples-th neighbor, sorted: what lies below ``eps`` is a core row of DBSCAN.

    A radius at the bend, where distances begin to rise, takes clusters apart from noise (Ester et al., 1996).

    Args:
        distances: (n,) of the rows, or of a sample of them, in any order; infinite ones are left out.
        min_samples: which neighbor, the row itself counted as the first.
        eps: the radius, drawn as a line.

    Raises:
        ValueError: where no distance is finite.
    """
    distances = np.asarray(distances, float).ravel()
    distances = np.sort(distances[np.isfinite(distances)])
    if not distances.size:
        raise ValueError("distances holds no finite number: there is no curve to draw.")
    ax = new_axes(ax)
    shares = np.arange(1, len(distances) + 1) / len(distances)
    ax.plot(100 * shares, distances, color=PALETTE[0], linewidth=2, drawstyle="steps-pre")
    if eps is not None:
        core = float(np.mean(distances <= eps))
        ax.fill_between([0, 100 * core], 0, eps, color=PALETTE[0], alpha=0.1, linewidth=0)
        _level(ax, eps, f"eps {compact(eps)}: {core:.1%} are core rows")
        ax.set_ylim(0, max(1.08 * distances[-1], 1.25 * eps))
    else:
        ax.set_ylim(bottom=0)
    nearest = f"{min_samples}{_ending(min_samples)} nearest"
    finish(ax, f"Distance to the {nearest} row, sorted", "rows (%)", "distance")
    ax.set_xlim(0, 100)
    return ax


def _top(finite: np.ndarray, eps: float | None) -> float:
    """Where the plot ends: above all bars, but for those that are `TOWERING`, and above eps."""
    if not finite.size:
        return eps or 1.0
    highest = min(float(finite.max()), TOWERING * float(np.quantile(finite, 0.95)))
    return 1.08 * max(highest or float(finite.max()), eps or 0) or 1.0


def _bars(heights: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """At most `MOST_BARS` heights with their labels, and how many rows share each."""
    share = -(-len(heights) // MOST_BARS)
    if share == 1:
        return heights, labels, 1
    starts = np.arange(0, len(heights), share)
    middles = np.minimum(starts + share // 2, len(heights) - 1)
    return np.maximum.reduceat(heights, starts), labels[middles], share


def _draw(ax: Axes, heights: np.ndarray, labels: np.ndarray) -> None:
    from matplotlib.collections import PolyCollection

    colors, left = colors_of(labels), np.arange(len(heights))
    x = np.stack([left, left, left + 1, left + 1], axis=1)
    y = np.stack([np.zeros_like(heights), heights, heights, np.zeros_like(heights)], axis=1)
    bars = PolyCollection(
        np.stack([x, y], axis=2),
        facecolors=[colors[label] for label in labels.tolist()],
        linewidths=0,
        antialiased=False,  # or else paper shines through between neighbors
        rasterized=len(heights) > 500,
    )
    ax.add_collection(bars)


def _number(ax: Axes, labels: np.ndarray) -> None:
    """Each cluster's number in the middle of its rows, where there is room for it."""
    names = np.unique(labels[~is_noise(labels)]).tolist()
    middles = {name: float(np.median(np.flatnonzero(labels == name))) + 0.5 for name in names}
    ticks: list[tuple[float, str]] = []
    for name in sorted(names, key=middles.get) if len(names) <= NUMBERED else ():
        if not ticks or middles[name] - ticks[-1][0] >= NEAREST_TICKS * len(labels):
            ticks.append((middles[name], plain(name)))
    ax.set_xticks([at for at, _ in ticks], [name for _, name in ticks])


def _level(ax: Axes, eps: float, text: str = "") -> None:
    """A dashed line at a distance, and what it is."""
    ax.axhline(eps, color=MUTED, linewidth=1.2, linestyle=DASHED)
    style = {"ha": "left", "va": "bottom", "color": INK, "fontsize": 9.5, "fontweight": "bold"}
    ax.annotate(
        text or f"eps {compact(eps)}",
        (0, eps),
        (8, 4),
        xycoords=ax.get_yaxis_transform(),
        textcoords="offset points",
        path_effects=halo(),
        **style,
    )


def _ending(number: int) -> str:
    """The ending of 1st, 2nd, 3rd, 4th."""
    return "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")

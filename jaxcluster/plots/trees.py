"""Trees of clusters: a dendrogram's last merges, and HDBSCAN's condensed tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.plots.style import INK, MUTED, NOISE, PAPER, color_of, finish, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIXED = -2
"""What a branch that holds several clusters is labelled."""

UPRIGHT = 80
"""How many characters fit side by side under a dendrogram."""


def dendrogram(
    linkage: Any, labels: Any = None, *, most: int = 30, name: str = "distance", ax: Axes | None = None
) -> Axes:
    """The last merges of a hierarchy: which groups of rows were joined, how far apart they were, and how many rows.

    Args:
        linkage: (n - 1, 4) merges as ``scipy.cluster.hierarchy`` has them.
        labels: (n,) clusters, -1 for noise: a branch that holds one of them alone, but for noise, has its colour.
        most: how many groups are shown below; what was merged earlier is one of them.
        name: what the heights are.

    Raises:
        ValueError: where linkage and labels do not fit, or ``most`` is below 2.
    """
    from scipy.cluster import hierarchy

    linkage = np.array(linkage, float)
    if linkage.ndim != 2 or linkage.shape[1] != 4 or not len(linkage):
        raise ValueError(f"linkage {linkage.shape} must be (n - 1, 4), the merges of at least 2 rows.")
    n = len(linkage) + 1
    if labels is not None and np.shape(labels) != (n,):
        raise ValueError(f"labels {np.shape(labels)} do not fit {n} rows: one label a row is needed.")
    if most < 2:
        raise ValueError(f"most={most} must be at least 2: there is no merge of fewer groups.")
    heights = linkage[:, 2]
    finite = heights[np.isfinite(heights)].max(initial=0)
    linkage[:, 2] = np.minimum(heights, 1.15 * finite or 1.0)  # what is infinitely far apart is joined at the top
    branches = _branch_labels(linkage, np.full(n, -1) if labels is None else np.asarray(labels))
    colors = [INK if labels is None else _branch_color(label) for label in branches.tolist()]
    tree = hierarchy.dendrogram(
        linkage, p=most, truncate_mode="lastp", no_plot=True, link_color_func=lambda node: colors[node]
    )
    ax = new_axes(ax, 8.0, 4.4)
    for x, y, color in zip(tree["icoord"], tree["dcoord"], tree["color_list"], strict=True):
        ax.plot(x, y, color=color, linewidth=1.6, solid_joinstyle="miter")
    shown = min(most, n)
    title = "Dendrogram" if shown == n else f"Dendrogram, the last {shown - 1:,} of {n - 1:,} merges"
    finish(ax, title, "rows in each group", name)
    ax.grid(False, axis="x")
    ax.set_ylim(0, 1.04 * linkage[:, 2].max() or 1.0)
    _leaves(ax, tree["leaves"], linkage, colors)
    return ax


def _branch_labels(linkage: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cluster of each row and each merge: -1 where all is noise, `MIXED` where there are several clusters."""
    found = np.concatenate([labels, np.empty(len(linkage), labels.dtype)])
    for merge, (a, b) in enumerate(linkage[:, :2].astype(int), len(labels)):
        one, other = found[a], found[b]
        found[merge] = one if other in (-1, one) else other if one == -1 else MIXED
    return found


def _branch_color(label: int) -> str:
    return {-1: NOISE, MIXED: MUTED}.get(label) or color_of(label)


def _leaves(ax: Axes, leaves: list[int], linkage: np.ndarray, colors: list[str]) -> None:
    """Under each group a dot in the colour of its cluster, and how many rows it has."""
    n = len(linkage) + 1
    counts = [f"{1 if leaf < n else int(linkage[leaf - n, 3]):,}" for leaf in leaves]
    at = 10 * np.arange(len(leaves)) + 5
    style = {"s": 26, "clip_on": False, "zorder": 4, "edgecolors": PAPER, "linewidths": 0.8}
    ax.scatter(at, np.zeros(len(at)), c=[colors[leaf] for leaf in leaves], **style)
    upright = len(leaves) * max(map(len, counts)) <= UPRIGHT
    ax.set_xticks(at, counts, rotation=0 if upright else 90)
    ax.set_xlim(-2, 10 * len(leaves) + 2)
    ax.tick_params(axis="x", pad=6)

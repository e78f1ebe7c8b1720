"""Trees of clusters: a dendrogram's last merges, and HDBSCAN's condensed tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster.plots.style import INK, MUTED, NOISE, PAPER, color_of, finish, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIXED = -2
"""What a branch that holds several clusters is labeled."""

UPRIGHT = 80
"""How many characters fit side by side under a dendrogram."""


class Branches(NamedTuple):
    """A hierarchy of the branches that are large enough to be drawn.

    Attributes:
        linkage: (m - 1, 4) merges of m branches, as ``scipy.cluster.hierarchy`` has them.
        rows: (2m - 1,) how many rows each branch holds when it is joined with another, and each merge.
        labels: (2m - 1,) the cluster of each, as `_branch_labels` has them.
    """

    linkage: np.ndarray
    rows: np.ndarray
    labels: np.ndarray


def dendrogram(
    linkage: Any,
    labels: Any = None,
    *,
    most: int = 30,
    least: int = 1,
    name: str = "distance",
    ax: Axes | None = None,
) -> Axes:
    """The last merges of a hierarchy: which groups of rows were joined, how far apart they were, and how many rows.

    Args:
        linkage: (n - 1, 4) merges as ``scipy.cluster.hierarchy`` has them.
        labels: (n,) clusters, -1 for noise: a branch that holds one of them alone, but for noise, has its color.
        most: how many groups are shown below; what was merged earlier is one of them.
        least: rows of a branch, below which it is left out: single linkage joins rows that lie apart one by one, and
            they hide how the others were joined.
        name: what the heights are.

    Raises:
        ValueError: where linkage and labels do not fit, ``most`` is below 2, or no two branches are large enough.
    """
    linkage, labels = _checked(linkage, labels, most)
    named = labels is not None
    branches = _large(linkage, _branch_labels(linkage, labels if named else np.full(len(linkage) + 1, -1)), least)
    if not len(branches.linkage):
        raise ValueError(f"no two branches of at least={least} rows are joined: there is no merge to draw.")
    ax, merges = new_axes(ax, 8.0, 4.4), len(branches.linkage)
    _draw(ax, branches, most, [_branch_color(label) if named else INK for label in branches.labels.tolist()])
    shown = f"the last {most - 1:,} of " if merges > most - 1 else ""
    large = f" of groups of at least {least:,} rows" if least > 1 else ""
    finish(ax, f"Dendrogram: {shown}{merges:,} merge{'s' * (merges > 1)}{large}", "rows in each group", name)
    ax.grid(False, axis="x")
    return ax


def _checked(linkage: Any, labels: Any, most: int) -> tuple[np.ndarray, np.ndarray | None]:
    """A copy of the merges in which infinite heights are a little above the others, and the labels."""
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
    linkage[:, 2] = np.minimum(heights, 1.15 * finite or 1.0)
    return linkage, None if labels is None else np.asarray(labels)


def _draw(ax: Axes, branches: Branches, most: int, colors: list[str]) -> None:
    from scipy.cluster import hierarchy

    tree = hierarchy.dendrogram(
        branches.linkage, p=most, truncate_mode="lastp", no_plot=True, link_color_func=lambda node: colors[node]
    )
    tops = {(10.0 * i + 5, 0.0): colors[leaf] for i, leaf in enumerate(tree["leaves"])}
    links = list(zip(tree["icoord"], tree["dcoord"], tree["color_list"], strict=True))
    tops |= {((x[1] + x[2]) / 2, y[1]): color for x, y, color in links}
    for x, y, color in links:
        style = {"linewidth": 1.6, "solid_capstyle": "projecting"}
        ax.plot(x[1:3], y[1:3], color=color, zorder=2.1, **style)
        for side in (slice(0, 2), slice(3, 1, -1)):  # a leg has the color of what it stands on
            ax.plot(x[side], y[side], color=tops[x[side][0], y[side][0]], **style)
    ax.set_ylim(0, 1.04 * branches.linkage[:, 2].max() or 1.0)
    _leaves(ax, tree["leaves"], branches.rows, colors)


def _large(linkage: np.ndarray, labels: np.ndarray, least: int) -> Branches:
    """The hierarchy without branches of fewer rows than ``least``: what they join goes on as if they were not there."""
    n = len(linkage) + 1
    rows = np.concatenate([np.ones(n), linkage[:, 3]]).astype(int)
    if least <= 1:
        return Branches(linkage, rows, labels)
    part_of: list[int | None] = [None] * (2 * n - 1)  # the branch of each row and merge: one from 0, or a merge from n
    ends: dict[int, int] = {}  # where each is joined with another
    merges: list[tuple[int, int, float, int]] = []
    held: dict[
        int | None, int
    ] = {}  # how many branches each is made of, which is what counts as rows of this hierarchy
    branches = 0
    for node, (a, b, height, count) in enumerate(linkage.tolist(), n):
        one, other = part_of[int(a)], part_of[int(b)]
        if one is not None and other is not None:
            part_of[node] = n + len(merges)
            held[part_of[node]] = held[one] + held[other]
            merges.append((one, other, height, held[part_of[node]]))
        elif one is None and other is None and count >= least:
            part_of[node], held[branches] = branches, 1
            branches += 1
        else:
            part_of[node] = other if one is None else one
        if part_of[node] is not None:
            ends[part_of[node]] = node
    last = [ends[branch] for branch in sorted(ends)]
    table = np.array(merges).reshape(-1, 4)
    table[:, :2] -= np.where(table[:, :2] >= n, n - branches, 0)
    return Branches(table, rows[last], labels[last])


def _branch_labels(linkage: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cluster of each row and each merge: -1 where all is noise, `MIXED` where there are several clusters."""
    found = np.concatenate([labels, np.empty(len(linkage), labels.dtype)])
    for merge, (a, b) in enumerate(linkage[:, :2].astype(int), len(labels)):
        one, other = found[a], found[b]
        found[merge] = one if other in (-1, one) else other if one == -1 else MIXED
    return found


def _branch_color(label: int) -> str:
    return {-1: NOISE, MIXED: MUTED}.get(label) or color_of(label)


def _leaves(ax: Axes, leaves: list[int], rows: np.ndarray, colors: list[str]) -> None:
    """Under each group a dot in the color of its cluster, and how many rows it has."""
    counts, at = [f"{rows[leaf]:,}" for leaf in leaves], 10 * np.arange(len(leaves)) + 5
    style = {"s": 26, "clip_on": False, "zorder": 4, "edgecolors": PAPER, "linewidths": 0.8}
    ax.scatter(at, np.zeros(len(at)), c=[colors[leaf] for leaf in leaves], **style)
    upright = len(leaves) * max(map(len, counts)) <= UPRIGHT
    ax.set_xticks(at, counts, rotation=0 if upright else 90)
    ax.set_xlim(-2, 10 * len(leaves) + 2)
    ax.tick_params(axis="x", pad=6)

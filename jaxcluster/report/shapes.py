"""Regions of a report's plots that stand for rows: bars, valleys, and the branches of trees."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxcluster.plots.neighbors import MAX_BARS
from jaxcluster.plots.style import is_noise
from jaxcluster.plots.trees import icicles_of, large_branches, outline, tree_edges
from jaxcluster.report.figures import Shape

MAX_SHAPES = 300
"""Regions of a plot: more are too small to be met by a pointer."""

MAX_LEAVES = 30
"""Leaves of a dendrogram, as `jaxcluster.plots.dendrogram` draws them."""

MAX_CORNERS = 60
"""Corners of an icicle's region, which need not follow each step of its outline."""


def size_bars(labels: np.ndarray) -> list[Shape]:
    """The bars of `jaxcluster.plots.cluster_sizes`, as high as the plot."""
    names, counts = np.unique(labels, return_counts=True)
    order = np.argsort(is_noise(names), kind="stable")
    if len(names) > MAX_SHAPES:
        return []
    top = 1.04 * counts.max()
    return [
        Shape(_box(i - 0.5, i + 0.5, 0, top), f"{_title(names[j])}: {counts[j]:,} rows", cluster=names[j].item())
        for i, j in enumerate(order)
    ]


def _title(label: Any) -> str:
    return "Noise" if label == -1 else f"Cluster {label}"


def _box(left: Any, right: Any, low: Any, high: Any) -> np.ndarray:
    return np.array([[left, low], [right, low], [right, high], [left, high]])


def valleys(reachability: Any, ordering: Any, labels: np.ndarray) -> list[Shape]:
    """The runs of rows of one cluster in `jaxcluster.plots.reachability`, the longest ones."""
    heights, ordered = np.asarray(reachability, float)[ordering], labels[np.asarray(ordering)]
    # The plot cuts off tall bars; a region as high as the highest finite one covers it.
    top = float(heights[np.isfinite(heights)].max(initial=0)) or 1.0
    top = min(top, 3 * float(np.quantile(heights[np.isfinite(heights)], 0.95))) if np.isfinite(heights).any() else top
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    stops = np.r_[starts[1:], len(ordered)]
    kept = np.flatnonzero(~is_noise(ordered[starts]))
    kept = np.sort(kept[np.argsort(starts[kept] - stops[kept], kind="stable")[:MAX_SHAPES]])
    group = -(-len(ordered) // MAX_BARS)
    return [
        Shape(
            _box(starts[i] / group, stops[i] / group, 0, top),
            f"{_title(ordered[starts[i]])}: {stops[i] - starts[i]:,} rows in a row",
            order="reachability",
            start=int(starts[i]),
            stop=int(stops[i]),
        )
        for i in kept
    ]


def icicle_shapes(tree: Any, labels: np.ndarray) -> tuple[list[Shape], np.ndarray]:
    """The clusters of `jaxcluster.plots.condensed_tree`.

    Returns:
        Their regions, and the numbers of all rows in an order in which each cluster has a range.
    """
    icicles, _ = icicles_of(tree, labels)
    parents, children, _, _ = tree_edges(tree)
    n = len(labels)
    by_parent = np.argsort(parents, kind="stable")
    nodes, firsts = np.unique(parents[by_parent], return_index=True)
    below = dict(zip(nodes.tolist(), np.split(children[by_parent], firsts[1:]), strict=True))
    order: list[int] = []
    ranges: dict[int, tuple[int, int]] = {}
    starts: dict[int, int] = {}
    stack = [(int(nodes[0]), False)]
    while stack:
        node, done = stack.pop()
        if done:
            ranges[node] = starts[node], len(order)
            continue
        starts[node] = len(order)
        own = below[node]
        order += own[own < n].tolist()
        stack.append((node, True))
        stack += [(int(child), False) for child in own[own >= n]]
    largest = sorted(icicles, key=lambda each: ranges[each.node][0] - ranges[each.node][1])[:MAX_SHAPES]
    shapes = []
    for icicle in largest:
        start, stop = ranges[icicle.node]
        corners = outline(icicle)
        chosen = np.unique(np.linspace(0, len(corners) - 1, min(len(corners), MAX_CORNERS)).round().astype(int))
        title = "A branch with several clusters" if icicle.label == -1 else _title(icicle.label)
        shapes.append(Shape(corners[chosen], f"{title}: {stop - start:,} rows", None, "condensed-tree", start, stop))
    return shapes, np.array(order)


def branch_shapes(linkage: Any, labels: np.ndarray, least: int) -> tuple[list[Shape], np.ndarray]:
    """The branches of `jaxcluster.plots.dendrogram`.

    Returns:
        Their regions, and the numbers of all rows in an order in which each branch has a range.
    """
    from scipy.cluster import hierarchy

    branches = large_branches(linkage, labels, most=MAX_LEAVES, least=least)
    n = len(labels)
    sizes = np.concatenate([np.ones(n), np.asarray(linkage)[:, 3]]).astype(int)
    starts = np.zeros(2 * n - 1, int)
    for merge in range(n - 2, -1, -1):
        one, other = map(int, np.asarray(linkage)[merge, :2])
        starts[one] = starts[n + merge]
        starts[other] = starts[one] + sizes[one]
    order = np.empty(n, int)
    order[starts[:n]] = np.arange(n)
    drawn = hierarchy.dendrogram(
        branches.linkage, p=MAX_LEAVES, truncate_mode="lastp", no_plot=True, link_color_func=str
    )
    boxes = []
    for x, y, node in zip(drawn["icoord"], drawn["dcoord"], drawn["color_list"], strict=True):
        boxes.append((_box(x[0] - 3, x[3] + 3, 0, y[1]), int(node)))
        boxes += [
            (_box(x[end] - 3, x[end] + 3, 0, 0.97 * y[1]), drawn["leaves"][round((x[end] - 5) / 10)])
            for end in (0, 3)
            if y[end] == 0
        ]
    # A branch within another is drawn over it.
    boxes.sort(key=lambda each: -branches.rows[each[1]])
    shapes = []
    for corners, branch in boxes:
        node, label = int(branches.nodes[branch]), branches.labels[branch]
        start, stop = int(starts[node]), int(starts[node] + sizes[node])
        title = "Branch of several clusters" if label < -1 else "Branch of noise" if label == -1 else _title(label)
        shapes.append(Shape(corners, f"{title}: {stop - start:,} rows", None, "dendrogram", start, stop))
    return shapes, order

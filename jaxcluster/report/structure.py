"""Structures that labels come from, medoids, orders, trees and graphs: their report, and regions of its plots."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster import plots
from jaxcluster.plots.neighbors import MAX_BARS
from jaxcluster.plots.style import is_noise
from jaxcluster.plots.trees import icicles_of, large_branches, outline, tree_edges
from jaxcluster.report.figures import Shape, figure

if TYPE_CHECKING:
    from jaxcluster.report.context import ReportContext

TALL: dict[str, Any] = {"height": 5.2}
WIDE: dict[str, Any] = {"width": 8.0, "height": 4.4}
"""Sizes of figures that are nearly square, and of wide ones."""


class Structure(NamedTuple):
    """Medoids, orders, trees and graphs of a run; None for those that its method does not have.

    Attributes:
        reachability, ordering: (n_samples,) reachability distance of each row, and the rows in the order of OPTICS.
        neighbor_distances: (n_sampled,) distance of rows, or of a sample of them, to their min_samples-th neighbor.
        min_samples: number of that neighbor, the row itself counted.
        eps: radius of DBSCAN, or the distance that the reachability is cut at.
        condensed_tree: edges of HDBSCAN's tree, as `jaxcluster.plots.condensed_tree` takes them.
        merges: (n_samples - 1, 4) linkage matrix of a hierarchy, as in ``scipy.cluster.hierarchy``.
        least_branch: rows of the smallest branch of it that is drawn.
        eigenvalues: (n_eigenvalues,) the least of a graph's Laplacian.
        graph: (n_samples, n_samples) weights between rows, SciPy sparse.
        medoids: (n_clusters,) number of the row that is the medoid of each cluster.
    """

    reachability: Any = None
    ordering: Any = None
    neighbor_distances: Any = None
    min_samples: int | None = None
    eps: float | None = None
    condensed_tree: Any = None
    merges: Any = None
    least_branch: int = 1
    eigenvalues: Any = None
    graph: Any = None
    medoids: Any = None

    def check(self, n: int) -> None:
        """Raise ValueError if its parts do not fit n rows."""
        lengths = {"reachability": n, "ordering": n, "merges": n - 1, "graph": n}
        for name, length in lengths.items():
            part = getattr(self, name)
            if part is not None and part.shape[0] != length:
                raise ValueError(f"{name} {part.shape} does not fit {n} rows: its length must be {length}.")
        if (self.reachability is None) != (self.ordering is None):
            raise ValueError("reachability and ordering go together: pass both.")


def structure_parts(run: ReportContext) -> tuple[list[tuple[str, str, list[str]]], dict[str, np.ndarray]]:
    """Parts of a report on the structure of a run.

    Returns:
        Title, note and pictures of each part that there is something for; and by the name of a picture, the numbers of
        all rows in the order to which its shapes refer.
    """
    structure = run.structure
    if structure is None:
        return [], {}
    orders: dict[str, np.ndarray] = {}
    parts = [
        ("Medoids", *_medoids(run, structure)),
        ("Density", *_density(run, structure, orders)),
        ("Tree", *_tree(run, structure, orders)),
        ("Graph", *_graph(run, structure)),
    ]
    return [(title, note, drawn) for title, note, drawn in parts if drawn], orders


def _medoids(run: ReportContext, structure: Structure) -> tuple[str, list[str]]:
    if structure.medoids is None:
        return "", []
    note = "A disc is a medoid: the row of its cluster from which the others are least far away, all together."
    draw = partial(plots.medoids, run.dataset.x, run.labels, structure.medoids, columns=run.axes)
    alt = f"The rows as points in the plane, each joined with one of {len(run.sizes):,} medoids."
    return note, [figure(draw, alt, name="medoids", **TALL)]


def _density(run: ReportContext, structure: Structure, orders: dict[str, np.ndarray]) -> tuple[str, list[str]]:
    """The order of OPTICS, or the distances by which a radius is chosen."""
    notes, drawn = [], []
    if structure.reachability is not None:
        notes.append("A valley is a region where rows lie close together; the peaks between are the ways across.")
        draw = partial(plots.reachability, structure.reachability, structure.ordering, run.labels, eps=structure.eps)
        alt = f"A bar of reachability for each of {len(run.labels):,} rows, in order, colored by cluster."
        orders["reachability"] = np.asarray(structure.ordering)
        shapes = partial(valleys, structure.reachability, structure.ordering, run.labels)
        drawn.append(figure(draw, alt, name="reachability", shapes=shapes, **WIDE))
    if structure.neighbor_distances is not None:
        notes.append("A good radius lies where the curve begins to bend upwards; rows above the line are no core rows.")
        chosen = {"min_samples": structure.min_samples, "eps": structure.eps}
        draw = partial(plots.neighbor_distances, structure.neighbor_distances, **chosen)
        alt = f"Curve of the sorted distances of rows to their neighbor number {structure.min_samples}, and the radius."
        drawn.append(figure(draw, alt, name="neighbor-distances"))
    return " ".join(notes), drawn


def _tree(run: ReportContext, structure: Structure, orders: dict[str, np.ndarray]) -> tuple[str, list[str]]:
    notes, drawn = [], []
    if structure.condensed_tree is not None:
        notes.append("From above to below the density rises that rows must have; a cluster that lasts is a stable one.")
        draw = partial(plots.condensed_tree, structure.condensed_tree, run.labels)
        alt = f"Clusters as icicles, as wide as they have rows, the {len(run.sizes):,} selected ones colored."
        icicles, orders["condensed-tree"] = icicle_shapes(structure.condensed_tree, run.labels)
        drawn.append(figure(draw, alt, name="condensed-tree", shapes=lambda: icicles, **WIDE))
    if structure.merges is not None:
        notes.append("The dendrogram joins the groups that were nearest, from below to above.")
        name = "mutual reachability" if structure.condensed_tree is not None else "distance"
        draw = partial(plots.dendrogram, structure.merges, run.labels, least=structure.least_branch, name=name)
        alt = "The last merges of the hierarchy, their distances, and the rows in each group, colored by cluster."
        branches, orders["dendrogram"] = branch_shapes(structure.merges, run.labels, structure.least_branch)
        drawn.append(figure(draw, alt, name="dendrogram", shapes=lambda: branches, **WIDE))
    return " ".join(notes), drawn


def _graph(run: ReportContext, structure: Structure) -> tuple[str, list[str]]:
    notes, drawn = [], []
    if structure.eigenvalues is not None:
        notes.append("Eigenvalues near 0 count weakly connected parts of the graph: a gap after k suggests k clusters.")
        draw = partial(plots.eigengap, structure.eigenvalues, k=len(run.sizes))
        alt = f"The least {len(np.ravel(structure.eigenvalues))} eigenvalues of the Laplacian and their widest gap."
        drawn.append(figure(draw, alt, name="eigengap"))
    if structure.graph is not None:
        notes.append("Dark edges of the graph join different clusters: the fewer, the better the cut.")
        draw = partial(plots.neighbor_graph, run.dataset.x, run.labels, structure.graph, columns=run.axes)
        alt = "The rows in the plane and the edges of the graph between them, dark where they join clusters."
        drawn.append(figure(draw, alt, name="graph", **TALL))
    return " ".join(notes), drawn


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

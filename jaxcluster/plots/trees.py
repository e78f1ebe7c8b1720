"""Trees of clusters: a dendrogram of the last merges, and HDBSCAN's condensed tree as icicles.

>>> from matplotlib import use
>>> use("Agg")
>>> dendrogram([[0, 1, 0.5, 2], [2, 3, 4.0, 3]]).get_title(loc="left")
'Dendrogram: 2 merges'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster.metrics.contingency import narrow_labels
from jaxcluster.plots.style import (
    INK,
    MAX_NUMBERED,
    MUTED,
    NOISE,
    PAPER,
    color_of,
    escape_text,
    halo,
    new_axes,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEVERAL = -2
"""Label of a branch that holds several clusters."""

MAX_UPRIGHT_CHARACTERS = 80
"""Characters that fit side by side under a dendrogram; more are written upwards."""

MAX_OUTLINE_STEPS = 400
"""Steps in the outline of a cluster: more cannot be seen."""

MIN_NUMBERED_WIDTH = 0.02
"""Width of a cluster, as a fraction of all samples, below which its number does not fit."""

SHOWN_FRACTION = 0.98
"""Fraction of samples that have left where the plot ends: the last few, near duplicates, stay to a very high λ."""


class Branches(NamedTuple):
    """The hierarchy of the branches that are large enough to be drawn.

    Attributes:
        linkage: (m - 1, 4) merges of m branches, in the format of ``scipy.cluster.hierarchy``.
        rows: (2m - 1,) number of samples of each branch, when it is merged, and of each merge.
        labels: (2m - 1,) the cluster of each; see `_branch_labels`.
        nodes: (2m - 1,) the sample or merge of the whole hierarchy that each ends with.
    """

    linkage: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    nodes: np.ndarray


def dendrogram(
    linkage: Any,
    labels: Any = None,
    *,
    most: int = 30,
    least: int = 1,
    name: str = "distance",
    ax: Axes | None = None,
) -> Axes:
    """Dendrogram of the last merges of a hierarchy, with the height of each merge and the size of each group.

    Args:
        linkage: (n_samples - 1, 4) merges in the format of ``scipy.cluster.hierarchy``.
        labels: (n_samples,) clusters, -1 for noise: a branch of one cluster, and noise, has its color.
        most: number of leaves; earlier merges are collapsed into them.
        least: number of samples below which a branch is left out: single linkage merges outliers one by one, and they
            would hide the other merges.
        name: of the height axis.

    Raises:
        ValueError: linkage and labels that do not fit, ``most`` below 2, or no two branches of ``least`` samples.
    """
    named = labels is not None
    branches = large_branches(linkage, labels, most=most, least=least)
    if not len(branches.linkage):
        raise ValueError(f"no two branches of at least={least} rows are joined: there is no merge to draw.")
    ax, merges = new_axes(ax, 8.0, 4.4), len(branches.linkage)
    _draw(ax, branches, most, [_branch_color(label) if named else INK for label in branches.labels.tolist()])
    shown = f"the last {most - 1:,} of " if merges > most - 1 else ""
    large = f" of groups of at least {least:,} rows" if least > 1 else ""
    style_axes(ax, f"Dendrogram: {shown}{merges:,} merge{'s' * (merges > 1)}{large}", "rows in each group", name)
    ax.grid(False, axis="x")
    return ax


def large_branches(linkage: Any, labels: Any, *, most: int = 30, least: int = 1) -> Branches:
    """The hierarchy that `dendrogram` draws, with its arguments."""
    linkage, labels = _check_linkage(linkage, labels, most)
    return _large(linkage, _branch_labels(linkage, np.full(len(linkage) + 1, -1) if labels is None else labels), least)


def _check_linkage(linkage: Any, labels: Any, most: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Check the arguments of `dendrogram`.

    Returns:
        A copy of the merges with infinite heights a little above the others, and the labels.
    """
    linkage = np.array(linkage, float)
    if linkage.ndim != 2 or linkage.shape[1] != 4 or not len(linkage):
        raise ValueError(f"linkage {linkage.shape} must be (n - 1, 4), the merges of at least 2 rows.")
    n = len(linkage) + 1
    if labels is not None and np.shape(labels) != (n,):
        raise ValueError(f"labels {np.shape(labels)} do not fit {n} rows: one label per row is needed.")
    if most < 2:
        raise ValueError(f"most={most} must be at least 2: there is no merge of fewer groups.")
    heights = linkage[:, 2]
    finite = heights[np.isfinite(heights)].max(initial=0)
    # Infinite heights join disconnected components; they are drawn a little above the highest finite merge.
    linkage[:, 2] = np.minimum(heights, 1.15 * finite or 1.0)
    return linkage, None if labels is None else narrow_labels(labels)


def _draw(ax: Axes, branches: Branches, most: int, colors: list[str]) -> None:
    from scipy.cluster import hierarchy

    tree = hierarchy.dendrogram(
        branches.linkage, p=most, truncate_mode="lastp", no_plot=True, link_color_func=lambda node: colors[node]
    )
    # SciPy places leaf i at x = 10·i + 5. The top of each branch, a leaf or a merge, is looked up by its coordinates.
    tops = {(10.0 * i + 5, 0.0): colors[leaf] for i, leaf in enumerate(tree["leaves"])}
    links = list(zip(tree["icoord"], tree["dcoord"], tree["color_list"], strict=True))
    tops |= {((x[1] + x[2]) / 2, y[1]): color for x, y, color in links}
    for x, y, color in links:
        style = {"linewidth": 1.6, "solid_capstyle": "projecting"}
        ax.plot(x[1:3], y[1:3], color=color, zorder=2.1, **style)
        # A leg has the color of the branch below it.
        for side in (slice(0, 2), slice(3, 1, -1)):
            ax.plot(x[side], y[side], color=tops[x[side][0], y[side][0]], **style)
    ax.set_ylim(0, 1.04 * branches.linkage[:, 2].max() or 1.0)
    _leaves(ax, tree["leaves"], branches.rows, colors)


def _large(linkage: np.ndarray, labels: np.ndarray, least: int) -> Branches:
    """The hierarchy without branches of fewer than ``least`` samples: merges with them are skipped."""
    n = len(linkage) + 1
    rows = np.concatenate([np.ones(n), linkage[:, 3]]).astype(int)
    if least <= 1:
        return Branches(linkage, rows, labels, np.arange(2 * n - 1))
    # The branch of each sample and merge: a leaf of the new hierarchy from 0, or one of its merges from n.
    part_of: list[int | None] = [None] * (2 * n - 1)
    ends: dict[int, int] = {}  # the last node of each branch, before it is merged with another
    merges: list[tuple[int, int, float, int]] = []
    leaf_counts: dict[int | None, int] = {}  # leaves below each branch: the counts of the new linkage
    branches = 0
    for node, (a, b, height, count) in enumerate(linkage.tolist(), n):
        one, other = part_of[int(a)], part_of[int(b)]
        if one is not None and other is not None:
            part_of[node] = n + len(merges)
            leaf_counts[part_of[node]] = leaf_counts[one] + leaf_counts[other]
            merges.append((one, other, height, leaf_counts[part_of[node]]))
        elif one is None and other is None and count >= least:
            part_of[node], leaf_counts[branches] = branches, 1
            branches += 1
        else:
            part_of[node] = other if one is None else one
        branch = part_of[node]
        if branch is not None:
            ends[branch] = node
    # Merges were numbered from n, as the number of leaves was unknown; they now follow the leaves.
    last = [ends[branch] for branch in sorted(ends)]
    table = np.array(merges).reshape(-1, 4)
    table[:, :2] -= np.where(table[:, :2] >= n, n - branches, 0)
    return Branches(table, rows[last], labels[last], np.array(last))


def _branch_labels(linkage: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cluster of each sample and merge: -1 if all are noise, `SEVERAL` for several clusters."""
    branch = np.concatenate([labels, np.empty(len(linkage), labels.dtype)])
    for merge, (a, b) in enumerate(linkage[:, :2].astype(int), len(labels)):
        one, other = branch[a], branch[b]
        branch[merge] = one if other in (-1, one) else other if one == -1 else SEVERAL
    return branch


def _branch_color(label: int) -> str:
    return {-1: NOISE, SEVERAL: MUTED}.get(label) or color_of(label)


def _leaves(ax: Axes, leaves: list[int], rows: np.ndarray, colors: list[str]) -> None:
    """Draw a dot in the color of its cluster and the number of samples under each leaf."""
    counts, at = [f"{rows[leaf]:,}" for leaf in leaves], 10 * np.arange(len(leaves)) + 5
    style = {"s": 26, "clip_on": False, "zorder": 4, "edgecolors": PAPER, "linewidths": 0.8}
    ax.scatter(at, np.zeros(len(at)), c=[colors[leaf] for leaf in leaves], **style)
    upright = len(leaves) * max(map(len, counts)) <= MAX_UPRIGHT_CHARACTERS
    ax.set_xticks(at, counts, rotation=0 if upright else 90)
    ax.set_xlim(-2, 10 * len(leaves) + 2)
    ax.tick_params(axis="x", pad=6)


class Icicle(NamedTuple):
    """A cluster of the condensed tree as a shape.

    Attributes:
        levels: (m,) ascending λ at which samples leave, the first the λ of its birth.
        left, right: (m,) its horizontal extent from each level on.
        label: the cluster of all its samples; -1 if they are in several, or some are noise.
        node: its number in the tree.
    """

    levels: np.ndarray
    left: np.ndarray
    right: np.ndarray
    label: int
    node: int


def condensed_tree(tree: Any, labels: Any, ax: Axes | None = None) -> Axes:
    """HDBSCAN's condensed tree: each cluster is an icicle, as wide as its number of samples, from its birth λ down.

    Samples that leave make it narrower; it ends where it splits in two or is empty. Selected clusters have their color,
    with everything below them; the others are gray. The last few samples, which stay to a very high λ, are cut off.

    Args:
        tree: edges in fields ``parent``, ``child``, ``lambda_val`` and ``child_size``: a structured array or an object;
            children below n_samples are samples, and the least parent is the root. λ is 1/distance.
        labels: (n_samples,) clusters, -1 for noise.

    Raises:
        ValueError: labels that do not fit the tree.

    Source: R. Campello, D. Moulavi and J. Sander, Density-based clustering based on hierarchical density estimates,
    PAKDD 2013.
    """
    from matplotlib.collections import PolyCollection

    labels, levels = narrow_labels(labels), tree_edges(tree)[2]
    icicles, bottom = icicles_of(tree, labels)
    ax = new_axes(ax, 8.0, 4.4)
    outlines = [outline(icicle) for icicle in icicles]
    colors = [NOISE if icicle.label == -1 else color_of(icicle.label) for icicle in icicles]
    ax.add_collection(PolyCollection(outlines, facecolors=colors, edgecolors=PAPER, linewidths=0.6))
    _number(ax, icicles)
    style_axes(
        ax,
        f"Condensed tree of {len(icicles):,} cluster{'s' * (len(icicles) > 1)}, those selected in color",
        "rows",
        "λ = 1 / distance",
    )
    ax.set(xlim=(0, len(labels)), ylim=(bottom, 0.9 * min(float(levels.min()), bottom)))
    ax.grid(False, axis="x")
    return ax


def icicles_of(tree: Any, labels: np.ndarray) -> tuple[list[Icicle], float]:
    """The shapes that `condensed_tree` draws, with its arguments.

    Returns:
        The icicles, the root first, and the λ at which the plot ends.
    """
    parents, children, levels, sizes = tree_edges(tree)
    n = int(np.sum(children < parents.min())) if parents.size else 0
    if not n or labels.shape != (n,):
        raise ValueError(f"labels {labels.shape} do not fit a tree of {n} rows: one label per row is needed.")
    bottom = _last_level(levels[children < n], levels[children >= n])
    return _icicles(parents, children, np.minimum(levels, bottom), sizes, labels), bottom


def tree_edges(tree: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Edges of the tree.

    Returns:
        Parents, children, λ and child sizes.
    """
    names = ("parent", "child", "lambda_val", "child_size")
    parts = (tree[name] if isinstance(tree, np.ndarray) else getattr(tree, name) for name in names)
    parents, children, levels, sizes = map(np.asarray, parts)
    return parents, children, levels.astype(float), sizes


def _last_level(rows: np.ndarray, clusters: np.ndarray) -> float:
    """The λ at which the plot ends: `SHOWN_FRACTION` of the samples have left, and every cluster has been born."""
    rows, clusters = rows[np.isfinite(rows)], clusters[np.isfinite(clusters)]
    if not rows.size:
        return 2 * float(clusters.max(initial=0.5))
    # Duplicates leave at λ = 1/0: they are excluded above, and clipped to the last level.
    most = float(np.quantile(rows, SHOWN_FRACTION, method="higher"))
    return min(max(most, 1.25 * float(clusters.max(initial=0))), float(rows.max())) or 1.0


def _icicles(
    parents: np.ndarray, children: np.ndarray, levels: np.ndarray, sizes: np.ndarray, labels: np.ndarray
) -> list[Icicle]:
    """The clusters from the root downwards, the children of each side by side around its middle."""
    n, order = len(labels), np.argsort(parents, kind="stable")
    nodes, starts = np.unique(parents[order], return_index=True)
    edges = dict(zip(nodes.tolist(), np.split(order, starts[1:]), strict=True))
    root = int(nodes[0])
    icicles: dict[int, Icicle] = {}
    stack = [(root, 0.0, float(sizes[edges[root]].sum()) / 2)]
    while stack:
        node, begins, middle = stack.pop()
        own = edges[node][np.argsort(levels[edges[node]], kind="stable")]
        subclusters = own[children[own] >= n]
        leaving = np.where(children[own] < n, sizes[own], 0)
        widths = sizes[own].sum() - np.concatenate([[0], np.cumsum(leaving)])
        # No level may lie below the birth of the cluster, also after rounding.
        at = np.concatenate([[begins], np.maximum(levels[own], begins)])
        # Evenly chosen steps, the first and the last among them.
        steps = np.unique(np.linspace(0, len(at) - 1, min(len(at), MAX_OUTLINE_STEPS)).round().astype(int))
        icicles[node] = Icicle(at[steps], middle - widths[steps] / 2, middle + widths[steps] / 2, -1, node)
        left = middle - sizes[subclusters].sum() / 2
        for edge in subclusters:
            stack.append((int(children[edge]), float(levels[edge]), left + sizes[edge] / 2))
            left += sizes[edge]
    node_labels = _node_labels(list(icicles), edges, children, labels)
    return [icicle._replace(label=node_labels[node]) for node, icicle in icicles.items()]


def _node_labels(
    nodes: list[int], edges: dict[int, np.ndarray], children: np.ndarray, labels: np.ndarray
) -> dict[int, int]:
    """The one label of all samples below each node, or -1; parents come before their children in ``nodes``."""
    node_labels: dict[int, int] = {}
    for node in reversed(nodes):
        below = children[edges[node]]
        rows = below < len(labels)
        distinct = {*np.unique(labels[below[rows]]).tolist(), *(node_labels[part] for part in below[~rows].tolist())}
        node_labels[node] = distinct.pop() if len(distinct) == 1 else -1
    return node_labels


def outline(icicle: Icicle) -> np.ndarray:
    """(m, 2) corners of the polygon: down the left side in steps, and up the right."""
    down = np.repeat(icicle.levels, 2)[1:]
    left, right = (np.repeat(side, 2)[:-1] for side in (icicle.left, icicle.right))
    return np.concatenate([np.column_stack([left, down]), np.column_stack([right, down])[::-1]])


def _number(ax: Axes, icicles: list[Icicle]) -> None:
    """Write the number of each selected cluster at its top, if it is wide enough."""
    widest = icicles[0].right[0] - icicles[0].left[0]
    tops = {icicle.label: icicle for icicle in reversed(icicles) if icicle.label != -1}
    tops = {
        label: icicle
        for label, icicle in tops.items()
        if icicle.right[0] - icicle.left[0] >= MIN_NUMBERED_WIDTH * widest
    }
    for label, icicle in tops.items() if len(tops) <= MAX_NUMBERED else ():
        at = ((icicle.left[0] + icicle.right[0]) / 2, icicle.levels[0])
        style = {"ha": "center", "va": "top", "fontsize": 10, "fontweight": "bold", "zorder": 5}
        ax.annotate(
            escape_text(label), at, (0, -4), textcoords="offset points", color=INK, path_effects=halo(), **style
        )

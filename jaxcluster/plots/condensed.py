"""HDBSCAN's condensed tree, drawn as icicles: how long each cluster lasts as the density it must have rises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster.plots.style import INK, NOISE, NUMBERED, PAPER, color_of, finish, halo, new_axes, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_STEPS = 400
"""Steps in the outline of a cluster: more cannot be seen."""

NARROW = 0.02
"""Share of the rows below which a cluster is too narrow for its number."""

SHOWN = 0.98
"""Share of the rows that have left when the picture ends: the last few, near copies of each other, stay very long."""


class Icicle(NamedTuple):
    """A cluster of the tree as it is drawn.

    Attributes:
        levels: (m,) ascending densities at which rows leave, the first that at which it begins.
        left, right: (m,) where it lies after each.
        label: the cluster that all its rows are in; -1 where they are in several, or some in none.
    """

    levels: np.ndarray
    left: np.ndarray
    right: np.ndarray
    label: int


def condensed_tree(tree: Any, labels: Any, ax: Axes | None = None) -> Axes:
    """Each cluster of the tree as an icicle, as wide as it has rows, from the density at which it begins downwards.

    Rows that leave it make it narrower, and it ends where it splits in two or has none left. Those that were selected
    have their color, with all that is below them; the others are gray. The last few rows, which stay very long, are
    cut off.

    Source: R. Campello, D. Moulavi and J. Sander, Density-based clustering based on hierarchical density estimates,
    PAKDD 2013, whose λ is one over the distance.

    Args:
        tree: edges in fields ``parent``, ``child``, ``lambda_val`` and ``child_size``: a structured array or an object;
            children below n are rows, and the least parent is the root.
        labels: (n,) clusters, -1 for noise.

    Raises:
        ValueError: where labels do not fit the tree.
    """
    from matplotlib.collections import PolyCollection

    parents, children, levels, sizes = _fields(tree)
    labels = np.asarray(labels)
    n = int(np.sum(children < parents.min())) if parents.size else 0
    if not n or labels.shape != (n,):
        raise ValueError(f"labels {labels.shape} do not fit a tree of {n} rows: one label a row is needed.")
    bottom = _bottom(levels[children < n], levels[children >= n])
    icicles = _icicles(parents, children, np.minimum(levels, bottom), sizes, labels)
    ax = new_axes(ax, 8.0, 4.4)
    outlines = [_outline(icicle) for icicle in icicles]
    colors = [NOISE if icicle.label == -1 else color_of(icicle.label) for icicle in icicles]
    ax.add_collection(PolyCollection(outlines, facecolors=colors, edgecolors=PAPER, linewidths=0.6))
    _number(ax, icicles)
    finish(
        ax,
        f"Condensed tree of {len(icicles):,} cluster{'s' * (len(icicles) > 1)}, those selected in color",
        "rows",
        "λ = 1 / distance",
    )
    ax.set(xlim=(0, n), ylim=(bottom, 0.9 * min(float(levels.min()), bottom)))
    ax.grid(False, axis="x")
    return ax


def _fields(tree: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Parents, children, densities and sizes of the edges."""
    names = ("parent", "child", "lambda_val", "child_size")
    parts = (tree[name] if isinstance(tree, np.ndarray) else getattr(tree, name) for name in names)
    parents, children, levels, sizes = map(np.asarray, parts)
    return parents, children, levels.astype(float), sizes


def _bottom(rows: np.ndarray, clusters: np.ndarray) -> float:
    """The density at which the picture ends: `SHOWN` of the rows have left by then, and every cluster has begun."""
    rows, clusters = rows[np.isfinite(rows)], clusters[np.isfinite(clusters)]
    if not rows.size:
        return 2 * float(clusters.max(initial=0.5))
    most = float(np.quantile(rows, SHOWN, method="higher"))
    return min(max(most, 1.25 * float(clusters.max(initial=0))), float(rows.max())) or 1.0


def _icicles(
    parents: np.ndarray, children: np.ndarray, levels: np.ndarray, sizes: np.ndarray, labels: np.ndarray
) -> list[Icicle]:
    """The clusters from the root downwards, the parts of each side by side in its middle."""
    n, order = len(labels), np.argsort(parents, kind="stable")
    nodes, starts = np.unique(parents[order], return_index=True)
    edges = dict(zip(nodes.tolist(), np.split(order, starts[1:]), strict=True))
    root = int(nodes[0])
    found: dict[int, Icicle] = {}
    stack = [(root, 0.0, float(sizes[edges[root]].sum()) / 2)]
    while stack:
        node, begins, middle = stack.pop()
        own = edges[node][np.argsort(levels[edges[node]], kind="stable")]
        parts = own[children[own] >= n]
        leaving = np.where(children[own] < n, sizes[own], 0)
        widths = sizes[own].sum() - np.concatenate([[0], np.cumsum(leaving)])
        at = np.concatenate([[begins], np.maximum(levels[own], begins)])
        kept = _thinned(len(at))
        found[node] = Icicle(at[kept], middle - widths[kept] / 2, middle + widths[kept] / 2, -1)
        left = middle - sizes[parts].sum() / 2
        for part in parts:
            stack.append((int(children[part]), float(levels[part]), left + sizes[part] / 2))
            left += sizes[part]
    named = _labeled(list(found), edges, children, labels)
    return [icicle._replace(label=named[node]) for node, icicle in found.items()]


def _thinned(m: int) -> np.ndarray:
    """At most `MOST_STEPS` of m places, the first and the last among them."""
    return np.unique(np.linspace(0, m - 1, min(m, MOST_STEPS)).round().astype(int))


def _labeled(
    nodes: list[int], edges: dict[int, np.ndarray], children: np.ndarray, labels: np.ndarray
) -> dict[int, int]:
    """The one label of all rows below each node, -1 where there is none; parents come before their parts."""
    named: dict[int, int] = {}
    for node in reversed(nodes):
        below = children[edges[node]]
        rows = below < len(labels)
        held = {*np.unique(labels[below[rows]]).tolist(), *(named[part] for part in below[~rows].tolist())}
        named[node] = held.pop() if len(held) == 1 else -1
    return named


def _outline(icicle: Icicle) -> np.ndarray:
    """(m, 2) corners: down the left side in steps, and up the right."""
    down = np.repeat(icicle.levels, 2)[1:]
    left, right = (np.repeat(side, 2)[:-1] for side in (icicle.left, icicle.right))
    return np.concatenate([np.column_stack([left, down]), np.column_stack([right, down])[::-1]])


def _number(ax: Axes, icicles: list[Icicle]) -> None:
    """The number of each selected cluster, at its top, where it is wide enough for it."""
    widest = icicles[0].right[0] - icicles[0].left[0]
    tops = {icicle.label: icicle for icicle in reversed(icicles) if icicle.label != -1}
    tops = {label: icicle for label, icicle in tops.items() if icicle.right[0] - icicle.left[0] >= NARROW * widest}
    for label, icicle in tops.items() if len(tops) <= NUMBERED else ():
        at = ((icicle.left[0] + icicle.right[0]) / 2, icicle.levels[0])
        style = {"ha": "center", "va": "top", "fontsize": 10, "fontweight": "bold", "zorder": 5}
        ax.annotate(plain(label), at, (0, -4), textcoords="offset points", color=INK, path_effects=halo(), **style)

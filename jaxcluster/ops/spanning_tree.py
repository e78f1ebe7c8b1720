"""The minimum spanning tree of rows under their distance, or under mutual reachability, exactly.

By Borůvka: every part of the tree takes the lightest edge that leaves it, until there is one part. While the nearest
rows of each row hold that edge beyond doubt, no other rows are looked at. Then pairs of blocks are: those that lie
near enough to hold an edge lighter than the best that is known, and not wholly in one part.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from scipy.sparse import coo_array, csgraph

from jaxcluster.ops.crossings import Crossings
from jaxcluster.ops.neighbors import nearest_rows
from jaxcluster.ops.pairwise import Pairwise, Space

FEW_ROWS = 512
"""Rows up to which a tree is grown row by row."""

NEIGHBORS = 6
"""Nearest rows that are looked at first, beyond those that core distances are measured by."""


class Tree(NamedTuple):
    """Edges of a spanning tree.

    Attributes:
        edges: (n − 1, 2) int32 rows that each edge joins.
        weights: (n − 1,) float64 distances; infinite where parts of the rows cannot be reached from each other.
    """

    edges: np.ndarray
    weights: np.ndarray


def minimum_spanning_tree(
    space: Space | Pairwise,
    core: np.ndarray | None = None,
    *,
    neighbors: tuple[np.ndarray, np.ndarray] | None = None,
) -> Tree:
    """The tree of least total weight that joins all rows.

    Args:
        space: n rows.
        core: (n,) float64; an edge weighs the greatest of its length and the core distances of its two rows. None for
            its length alone.
        neighbors: what `nearest_rows` gave for these rows, if it was asked already.
    """
    core = np.zeros(space.n) if core is None else core
    if isinstance(space, Pairwise) or space.n <= FEW_ROWS:
        return _grow(space, core)
    forest = _Forest(space.n)
    index, distances = nearest_rows(space, min(2 * NEIGHBORS, space.n)) if neighbors is None else neighbors
    lists = _lists(core, index, distances)
    while forest.parts > 1 and _join_listed(forest, lists):
        pass
    if forest.parts > 1:
        with jax.enable_x64(True):
            crossings = Crossings(space, core)
            while forest.parts > 1:
                _join_crossings(forest, lists, crossings)
    return Tree(np.concatenate(forest.edges).astype(np.int32), np.concatenate(forest.weights))


def _grow(space, core):
    """By Prim: one row after the other, each the nearest to those before it."""
    n = space.n
    weights, parents = np.full(n, np.inf), np.zeros(n, np.int32)
    outside = np.ones(n, bool)
    edges, lengths, row = np.empty((n - 1, 2), np.int32), np.empty(n - 1), 0
    for step in range(n - 1):
        outside[row] = False
        reach = np.maximum(np.maximum(space.rows(np.array([row]))[0], core), core[row])
        nearer = outside & (reach < weights)
        weights[nearer], parents[nearer] = reach[nearer], row
        left = np.flatnonzero(outside)
        row = int(left[np.argmin(weights[left])])
        edges[step], lengths[step] = (parents[row], row), weights[row]
    return Tree(edges, lengths)


class _Forest:
    """A tree in the making: which part each row is in, and the edges so far."""

    def __init__(self, n):
        self.labels, self.parts = np.arange(n), n
        self.edges, self.weights = [], []

    def least(self, values):
        """(parts,) least of the (n,) values of each part's rows."""
        least = np.full(self.parts, np.inf)
        np.minimum.at(least, self.labels, values)
        return least

    def one_each(self, rows):
        """The first of some rows in each part."""
        return rows[np.unique(self.labels[rows], return_index=True)[1]]

    def add(self, edges, weights):
        """Joins parts by (m, 2) edges, one a part at most, that are the lightest of their parts; none makes a ring."""
        order = np.argsort(weights, kind="stable")
        ends = np.sort(self.labels[edges[order]], axis=1).astype(np.int64)
        _, first = np.unique(ends[:, 0] * self.parts + ends[:, 1], return_index=True)
        # Ranks in place of weights: a weight of 0 is no edge there.
        graph = coo_array((first + 1, tuple(ends[first].T)), shape=(self.parts, self.parts)).tocsr()
        chosen = order[csgraph.minimum_spanning_tree(graph).data.astype(np.int64) - 1]
        self.edges.append(edges[chosen])
        self.weights.append(weights[chosen])
        self.parts, joined = csgraph.connected_components(graph, directed=False)
        self.labels = joined[self.labels]


class _Lists(NamedTuple):
    """The edges of each row to those nearest to it.

    Attributes:
        index, weights: (n, k) the rows, and what the edges weigh; the lightest first.
        bound: (n,) what the edge to any other row weighs at least.
    """

    index: np.ndarray
    weights: np.ndarray
    bound: np.ndarray

    def leaving(self, labels):
        """The lightest edge of each row that leaves its part: (n,) the other row, (n,) weights; infinite for none."""
        out = labels[self.index] != labels[:, None]
        at = out.argmax(axis=1)[:, None]
        index, weights, there = (np.take_along_axis(each, at, axis=1)[:, 0] for each in (self.index, self.weights, out))
        return index, np.where(there, weights, np.inf)


def _lists(core, index, distances):
    weights = np.maximum(np.maximum(core[:, None], core[index]), distances)
    order = np.argsort(weights, axis=1)
    index, weights = (np.take_along_axis(values, order, axis=1) for values in (index, weights))
    bound = np.maximum(core, distances[:, -1]) if index.shape[1] < len(core) else np.full(len(core), np.inf)
    return _Lists(index, weights, bound)


def _join_listed(forest, lists):
    """Joins the parts whose lightest edge is surely listed; whether there were any."""
    others, weights = lists.leaving(forest.labels)
    lightest = forest.least(weights)
    sure = lightest <= forest.least(lists.bound)
    rows = forest.one_each(np.flatnonzero(sure[forest.labels] & (weights == lightest[forest.labels])))
    if len(rows):
        forest.add(np.stack([rows, others[rows]], axis=1), weights[rows])
    return len(rows) > 0


def _join_crossings(forest, lists, crossings):
    """Joins every part but the largest by its lightest edge, listed or not.

    The largest is where most others end up. It would look for long for what they find.
    """
    labels = forest.labels
    small = labels != np.argmax(np.bincount(labels))
    others, weights = lists.leaving(labels)
    found = crossings.some(labels, small & (lists.bound < forest.least(weights)[labels]))
    known = forest.least(np.minimum(weights, found))[labels]
    found = np.minimum(found, crossings.within(labels, np.where(small & (lists.bound < known), known, -1)))
    lightest = forest.least(np.minimum(weights, found))[labels]
    rows = forest.one_each(np.flatnonzero(small & (np.minimum(weights, found) == lightest)))
    unlisted = rows[weights[rows] > lightest[rows]]
    others[unlisted] = crossings.partners(labels, unlisted, found[unlisted])
    forest.add(np.stack([rows, others[rows]], axis=1), crossings.weights(rows, others[rows]))

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
from scipy.spatial.distance import cdist

from jaxcluster.ops.metric_space import DistanceOracle, MetricSpace, minkowski_sums
from jaxcluster.ops.neighbors.boruvka import NEARLY, Crossings
from jaxcluster.ops.neighbors.exact_knn import nearest_rows

FEW_ROWS = 1 << 12
"""Rows up to which a tree is grown row by row: measured on 2 cores, Borůvka is faster from 2,000 rows of 10 columns on,
by a factor of 2 at 4,000, but compiles for seconds, and of equal edges Prim takes scikit-learn's."""

TIED_ROWS = 1 << 14
"""Rows up to which one with equal edges is grown row by row too: measured, 3 s of 2 columns, as scikit-learn takes."""

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
    space: MetricSpace | DistanceOracle,
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
    if isinstance(space, DistanceOracle) or space.n <= FEW_ROWS:
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
    if forest.tied and space.n <= TIED_ROWS:
        return _grow(space, core)
    return Tree(np.concatenate(forest.edges).astype(np.int32), np.concatenate(forest.weights))


def _grow(space, core):
    """By Prim: one row after the other, each the nearest to those before it, of equally near ones the first.

    One row of distances is held at a time. Whatever ties there are, the order is scikit-learn's.
    """
    n = space.n
    edges, weights = np.empty((n - 1, 2), np.int32), np.empty(n - 1)
    rows, sources = np.arange(n), np.zeros(n, np.int32)
    # Reached rows have −∞ in `best`, so that nothing is nearer, and ∞ in `edge`, so that none is chosen again.
    best, edge, at = np.full(n, np.inf), np.full(n, np.inf), 0
    x = space.x if isinstance(space, MetricSpace) else None
    for step in range(n - 1):
        best[at], edge[at] = -np.inf, np.inf
        if 2 * (n - 1 - step) < len(rows):  # half of them are reached: go on with the others
            kept = np.append(at, np.flatnonzero(best >= 0))
            rows, sources, best, edge, at = rows[kept], sources[kept], best[kept], edge[kept], 0
            x = None if x is None else space.x[rows]
        lengths = space.rows(rows[[at]])[0][rows] if x is None else space.distances(_sums_from(x, at, space.power))
        reach = np.maximum(np.maximum(lengths, core[rows]), core[rows[at]])
        nearer = reach < best
        for values, new in ((best, reach), (edge, reach), (sources, rows[at])):
            np.copyto(values, new, where=nearer)
        at = int(np.argmin(edge))
        if np.isinf(edge[at]):  # of rows at no known distance the first
            at = int(np.argmax(best == np.inf))
        edges[step], weights[step] = (sources[at], rows[at]), edge[at]
    return Tree(edges, weights)


def _sums_from(x, row, power):
    """(n,) Σ|difference|^power of one row from all: added in the order of the columns, as `minkowski_sums` does."""
    name = {1.0: "cityblock", 2.0: "sqeuclidean", np.inf: "chebyshev"}.get(power)
    return minkowski_sums(x[row], x, power) if name is None else cdist(x[row : row + 1], x, name)[0]


class _Forest:
    """A tree in the making: which part each row is in, the edges so far, and whether one could have been another.

    A part whose lightest edge weighs its length is tied where a second edge that leaves it weighs as much. Edges that
    weigh a core distance are not looked at: `jaxcluster.cluster.hdbscan.fit` takes them in order.
    """

    def __init__(self, n):
        self.labels, self.parts = np.arange(n), n
        self.edges, self.weights, self.tied = [], [], False

    def least(self, values):
        """(parts,) least of the (n,) values of each part's rows."""
        least = np.full(self.parts, np.inf)
        np.minimum.at(least, self.labels, values)
        return least

    def one_each(self, rows):
        """The first of some rows in each part."""
        return rows[np.unique(self.labels[rows], return_index=True)[1]]

    def look_for_ties(self, rows, count, long):
        """Of rows, how many edges of the least weight of their part each has, and how many of these weigh a length."""
        edges, lengths = (np.bincount(self.labels[rows], each, self.parts) for each in (count, long))
        self.tied |= bool(((edges > 1) & (lengths > 0)).any())

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
        long: (n, k) which of them weigh their length, and not a core distance.
        bound: (n,) what the edge to any other row weighs at least.
    """

    index: np.ndarray
    weights: np.ndarray
    long: np.ndarray
    bound: np.ndarray

    def leaving(self, labels):
        """The lightest edge of each row that leaves its part: (n,) the other row, (n,) weights; infinite for none."""
        out = labels[self.index] != labels[:, None]
        at = out.argmax(axis=1)[:, None]
        index, weights, there = (np.take_along_axis(each, at, axis=1)[:, 0] for each in (self.index, self.weights, out))
        return index, np.where(there, weights, np.inf)

    def as_light(self, labels, rows, weights):
        """(m,) how many edges of some rows leave their parts at a weight, and how many of these weigh their length."""
        alike = (labels[self.index[rows]] != labels[rows, None]) & (self.weights[rows] == weights[:, None])
        return alike.sum(axis=1), (alike & self.long[rows]).sum(axis=1)


def _lists(core, index, distances):
    cores = np.maximum(core[:, None], core[index])
    weights = np.maximum(cores, distances)
    order = np.argsort(weights, axis=1)
    index, weights, long = (np.take_along_axis(values, order, axis=1) for values in (index, weights, distances > cores))
    bound = np.maximum(core, distances[:, -1]) if index.shape[1] < len(core) else np.full(len(core), np.inf)
    return _Lists(index, weights, long, bound)


def _join_listed(forest, lists):
    """Joins the parts whose lightest edge is surely listed; whether there were any."""
    others, weights = lists.leaving(forest.labels)
    lightest = forest.least(weights)
    sure = lightest < forest.least(lists.bound)
    rows = np.flatnonzero(sure[forest.labels] & (weights == lightest[forest.labels]))
    forest.look_for_ties(rows, *lists.as_light(forest.labels, rows, weights[rows]))
    rows = forest.one_each(rows)
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
    found = crossings.some(labels, small & (lists.bound <= forest.least(weights)[labels]))
    known = forest.least(np.minimum(weights, found))[labels]
    found = np.minimum(found, crossings.within(labels, np.where(small & (lists.bound <= known), known, -1)))
    least = np.minimum(weights, found)
    lightest = forest.least(least)[labels]
    rows = np.flatnonzero(small & (least <= lightest * NEARLY))
    met, count, long = crossings.partners(labels, rows, lightest[rows])
    forest.look_for_ties(rows, count, long)
    unlisted = weights[rows] > lightest[rows]
    others[rows[unlisted]] = met[unlisted]
    rows = forest.one_each(np.flatnonzero(small & (least == lightest)))
    forest.add(np.stack([rows, others[rows]], axis=1), crossings.weights(rows, others[rows]))

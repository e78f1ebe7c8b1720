"""Minimum spanning tree of rows under their distance, or under mutual reachability, exactly.

Few rows: Prim's algorithm. Many rows: Borůvka's algorithm, in which every component of the forest takes the lightest
edge that leaves it. While k-nearest-neighbor edges certainly hold that edge, no other rows are compared. Then pairs of
blocks are: those near enough for an edge lighter than the best known, and not wholly in one component.

>>> from jaxcluster.ops.metric_space import as_metric_space
>>> tree = minimum_spanning_tree(as_metric_space(np.array([[0.0], [1.0], [5.0]])))
>>> tree.edges.tolist(), tree.weights.tolist()
([[0, 1], [1, 2]], [1.0, 4.0])
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.sparse import coo_array, csgraph
from scipy.spatial.distance import cdist

from jaxcluster.ops.metric_space import DistanceOracle, MetricSpace, minkowski_sums
from jaxcluster.ops.neighbors.boruvka import SUM_TOLERANCE, CrossEdgeFinder
from jaxcluster.ops.neighbors.exact_knn import nearest_rows

PRIM_ROWS = 1 << 12
"""Rows up to which Prim's algorithm runs. Measured on 2 cores, Borůvka is faster from 2,000 rows of 10 columns on, by a
factor of 2 at 4,000, but compiles for seconds; and of equal edges Prim takes scikit-learn's."""

TIED_PRIM_ROWS = 1 << 14
"""Rows up to which a tree with equal edges is computed by Prim too, as in scikit-learn: measured, 3 s in 2 columns."""

NEIGHBORS = 6
"""Nearest neighbors for the first steps, beyond those for the core distances."""


class Tree(NamedTuple):
    """Edges of a spanning tree.

    Attributes:
        edges: (n − 1, 2) int32 row numbers of the two ends.
        weights: (n − 1,) float64 distances; infinite between components of a graph that is not connected.
    """

    edges: np.ndarray
    weights: np.ndarray


def minimum_spanning_tree(
    space: MetricSpace | DistanceOracle,
    core: np.ndarray | None = None,
    *,
    neighbors: tuple[np.ndarray, np.ndarray] | None = None,
) -> Tree:
    """Spanning tree of least total weight.

    Args:
        space: n rows.
        core: (n,) float64 core distances; an edge weighs the largest of its length and those of its two rows. None for
            its length alone.
        neighbors: result of `nearest_rows` for these rows, if known.
    """
    core = np.zeros(space.n) if core is None else core
    if isinstance(space, DistanceOracle) or space.n <= PRIM_ROWS:
        return _prim(space, core)
    forest = _Forest(space.n)
    index, distances = nearest_rows(space, min(2 * NEIGHBORS, space.n)) if neighbors is None else neighbors
    lists = _neighbor_edges(core, index, distances)
    # Borůvka: each round joins every component by its lightest edge. Lists of nearest neighbors hold nearly all of
    # these; searches between components find the rest.
    while forest.components > 1 and _join_by_neighbors(forest, lists):
        pass
    if forest.components > 1:
        with jax.enable_x64(True):
            finder = CrossEdgeFinder(space, core)
            while forest.components > 1:
                _join_by_search(forest, lists, finder)
    # Equal edges leave a choice: Prim takes the one that scikit-learn takes.
    if forest.tied and space.n <= TIED_PRIM_ROWS:
        return _prim(space, core)
    return Tree(np.concatenate(forest.edges).astype(np.int32), np.concatenate(forest.weights))


def _prim(space, core):
    """Prim's algorithm: next comes the row nearest to all before, the first of equally near ones, as in scikit-learn.

    One row of distances is in memory at a time.
    """
    n = space.n
    edges, weights = np.empty((n - 1, 2), np.int32), np.empty(n - 1)
    rows, sources = np.arange(n), np.zeros(n, np.int32)
    # Reached rows have −∞ in `best`: nothing is nearer; and ∞ in `edge`: none is chosen again.
    best, edge, at = np.full(n, np.inf), np.full(n, np.inf), 0
    x = space.x if isinstance(space, MetricSpace) else None
    for step in range(n - 1):
        best[at], edge[at] = -np.inf, np.inf
        if 2 * (n - 1 - step) < len(rows):  # compact when half of the rows are reached
            remaining = np.append(at, np.flatnonzero(best >= 0))
            rows, sources, best, edge, at = rows[remaining], sources[remaining], best[remaining], edge[remaining], 0
            x = None if x is None else space.x[rows]
        lengths = space.rows(rows[[at]])[0][rows] if x is None else space.distances(_sums_from(x, at, space.power))
        reach = np.maximum(np.maximum(lengths, core[rows]), core[rows[at]])
        nearer = reach < best
        for values, new in ((best, reach), (edge, reach), (sources, rows[at])):
            np.copyto(values, new, where=nearer)
        at = int(np.argmin(edge))
        if np.isinf(edge[at]):  # the graph is not connected: take the first row
            at = int(np.argmax(best == np.inf))
        edges[step], weights[step] = (sources[at], rows[at]), edge[at]
    return Tree(edges, weights)


def _sums_from(x, row, power):
    """(n,) Minkowski sums from one row to all, added in the order of the columns as in `minkowski_sums`."""
    names: dict[float, Any] = {1.0: "cityblock", 2.0: "sqeuclidean", np.inf: "chebyshev"}
    name = names.get(power)
    return minkowski_sums(x[row], x, power) if name is None else cdist(x[row : row + 1], x, name)[0]


class _Forest:
    """Forest of Borůvka's algorithm: component of each row, edges so far, and a flag for ties.

    A component whose lightest edge weighs its length is tied if a second edge that leaves it weighs as much. Edges that
    weigh a core distance are exempt: `jaxcluster.cluster.hdbscan.fit` puts them in Prim's order.
    """

    def __init__(self, n):
        self.labels, self.components = np.arange(n), n
        self.edges, self.weights, self.tied = [], [], False

    def least(self, values):
        """(components,) least of the (n,) values of each component's rows."""
        least = np.full(self.components, np.inf)
        np.minimum.at(least, self.labels, values)
        return least

    def first_per_component(self, rows):
        """First of some rows in each component."""
        return rows[np.unique(self.labels[rows], return_index=True)[1]]

    def record_ties(self, rows, count, long):
        """Set the flag for ties.

        Args:
            rows: (m,) rows.
            count: (m,) number of edges of each with the least weight of its component.
            long: (m,) number of those that weigh their length.
        """
        edges, lengths = (np.bincount(self.labels[rows], each, self.components) for each in (count, long))
        self.tied |= bool(((edges > 1) & (lengths > 0)).any())

    def add(self, edges, weights):
        """Join components by (m, 2) edges, at most one for each, the lightest that leaves it, without cycles."""
        # Lightest edges of equal weight may close a cycle: a spanning tree of the components drops one of them.
        order = np.argsort(weights, kind="stable")
        ends = np.sort(self.labels[edges[order]], axis=1).astype(np.int64)
        _, first = np.unique(ends[:, 0] * self.components + ends[:, 1], return_index=True)
        # Ranks in place of weights: SciPy treats a weight of 0 as no edge.
        graph = coo_array((first + 1, tuple(ends[first].T)), shape=(self.components, self.components)).tocsr()
        chosen = order[csgraph.minimum_spanning_tree(graph).data.astype(np.int64) - 1]
        self.edges.append(edges[chosen])
        self.weights.append(weights[chosen])
        self.components, joined = csgraph.connected_components(graph, directed=False)
        self.labels = joined[self.labels]


class _NeighborEdges(NamedTuple):
    """Edges of each row to its nearest rows.

    Attributes:
        index, weights: (n, k) rows at the other ends, and weights, lightest first.
        long: (n, k) mask of the edges that weigh their length, and not a core distance.
        bound: (n,) lower bound on the weight of all other edges of the row.
    """

    index: np.ndarray
    weights: np.ndarray
    long: np.ndarray
    bound: np.ndarray

    def lightest_leaving(self, labels):
        """Lightest edge of each row that leaves its component.

        Returns:
            (n,) rows at the other ends; (n,) weights, infinite for rows without such an edge.
        """
        out = labels[self.index] != labels[:, None]
        at = out.argmax(axis=1)[:, None]
        index, weights, there = (np.take_along_axis(each, at, axis=1)[:, 0] for each in (self.index, self.weights, out))
        return index, np.where(there, weights, np.inf)

    def count_ties(self, labels, rows, weights):
        """Edges of given weight from some rows to other components.

        Returns:
            (m,) their number; (m,) the number of those that weigh their length.
        """
        ties = (labels[self.index[rows]] != labels[rows, None]) & (self.weights[rows] == weights[:, None])
        return ties.sum(axis=1), (ties & self.long[rows]).sum(axis=1)


def _neighbor_edges(core, index, distances):
    cores = np.maximum(core[:, None], core[index])
    weights = np.maximum(cores, distances)
    order = np.argsort(weights, axis=1)
    index, weights, long = (np.take_along_axis(values, order, axis=1) for values in (index, weights, distances > cores))
    bound = np.maximum(core, distances[:, -1]) if index.shape[1] < len(core) else np.full(len(core), np.inf)
    return _NeighborEdges(index, weights, long, bound)


def _join_by_neighbors(forest, lists):
    """Join the components whose lightest edge is certainly a neighbor edge; False if there are none."""
    others, weights = lists.lightest_leaving(forest.labels)
    lightest = forest.least(weights)
    # Certain: lighter than any edge that is not a neighbor edge.
    certain = lightest < forest.least(lists.bound)
    rows = np.flatnonzero(certain[forest.labels] & (weights == lightest[forest.labels]))
    forest.record_ties(rows, *lists.count_ties(forest.labels, rows, weights[rows]))
    rows = forest.first_per_component(rows)
    if len(rows):
        forest.add(np.stack([rows, others[rows]], axis=1), weights[rows])
    return len(rows) > 0


def _join_by_search(forest, lists, finder):
    """Join all components by their lightest edges, from neighbor edges and a search over pairs of blocks."""
    labels = forest.labels
    # The largest component needs no edge of its own: all others join something.
    small = labels != np.argmax(np.bincount(labels))
    others, weights = lists.lightest_leaving(labels)
    searched = finder.initial_bounds(labels, small & (lists.bound <= forest.least(weights)[labels]))
    upper = forest.least(np.minimum(weights, searched))[labels]
    searched = np.minimum(searched, finder.lightest_within(labels, np.where(small & (lists.bound <= upper), upper, -1)))
    least = np.minimum(weights, searched)
    lightest = forest.least(least)[labels]
    rows = np.flatnonzero(small & (least <= lightest * SUM_TOLERANCE))
    ends, count, long = finder.endpoints(labels, rows, lightest[rows])
    forest.record_ties(rows, count, long)
    unlisted = weights[rows] > lightest[rows]
    others[rows[unlisted]] = ends[unlisted]
    rows = forest.first_per_component(np.flatnonzero(small & (least == lightest)))
    forest.add(np.stack([rows, others[rows]], axis=1), finder.edge_weights(rows, others[rows]))

"""The condensed tree: of a hierarchy only the splits into parts of some size, and when each row falls out of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class CondensedTree(NamedTuple):
    """Clusters within clusters, as edges from each cluster to what leaves it: rows, and the two it splits into.

    Clusters are numbered from n, the number of rows, on; n is the cluster of all rows. Those nearer to it in the
    hierarchy come first, and so do edges.

    Attributes:
        parent: (e,) int64 cluster.
        child: (e,) int64 row, below n, or cluster.
        lambda_val: (e,) float64 density at which the child leaves: 1 / distance; infinite for a distance of 0.
        child_size: (e,) int64 rows in it.
    """

    parent: np.ndarray
    child: np.ndarray
    lambda_val: np.ndarray
    child_size: np.ndarray

    @property
    def n(self) -> int:
        """How many rows there are."""
        return int(self.parent[0])

    @property
    def clusters(self) -> int:
        """How many clusters there are, that of all rows among them."""
        return len(self.child) - self.n + 1

    def ups(self) -> tuple[np.ndarray, np.ndarray]:
        """The cluster each cluster is part of, both counted from 0, and the density it begins at; −1 and 0 for all."""
        inner = self.child >= self.n
        parents, births = np.full(self.clusters, -1), np.zeros(self.clusters)
        parents[self.child[inner] - self.n] = self.parent[inner] - self.n
        births[self.child[inner] - self.n] = self.lambda_val[inner]
        return parents, births

    def exits(self) -> tuple[np.ndarray, np.ndarray]:
        """The cluster that each row falls out of, counted from 0, and the density at which it does."""
        outer = self.child < self.n
        clusters, levels = np.empty(self.n, np.int64), np.empty(self.n)
        clusters[self.child[outer]] = self.parent[outer] - self.n
        levels[self.child[outer]] = self.lambda_val[outer]
        return clusters, levels

    def deaths(self) -> np.ndarray:
        """The density at which nothing is left of each cluster, or at which it splits."""
        deaths = np.zeros(self.clusters)
        np.maximum.at(deaths, self.parent - self.n, self.lambda_val)
        return deaths


def condense(merges: np.ndarray, min_cluster_size: int) -> CondensedTree:
    """What is left of a hierarchy if parts below some size are only rows that fall out of a larger part.

    Args:
        merges: (n − 1, 4), see `linkage.single_linkage`.
        min_cluster_size: rows of a cluster at least.

    Source: R. Campello, D. Moulavi and J. Sander, Density-based clustering based on hierarchical density estimates,
    PAKDD 2013, algorithm 1.
    """
    n = len(merges) + 1
    root, nodes = 2 * n - 2, np.arange(2 * n - 1)
    parts, sizes = merges[:, :2].astype(np.int64), np.append(np.ones(n, np.int64), merges[:, 3].astype(np.int64))
    above = np.full(2 * n - 1, root)
    above[parts.ravel()] = np.repeat(np.arange(n, 2 * n - 1), 2)
    large = sizes >= min_cluster_size
    large[root] = True
    splits = np.append(np.zeros(n, bool), large[parts].all(axis=1))
    heads = large & splits[above]
    heads[root] = True
    home = _ends(np.where(large, nodes, above))[:n]  # the last large part each row was in
    lead = _ends(np.where(heads | ~large, nodes, above))  # where the cluster of each large part begins
    rank = _breadth_first(parts, sizes, above)
    found = np.flatnonzero(heads)
    found = found[np.argsort(rank[found])]
    numbers = np.empty(2 * n - 1, np.int64)
    numbers[found] = np.arange(n, n + len(found))
    left = np.append(home, above[found[1:]])
    order = np.argsort(rank[left], kind="stable")
    with np.errstate(divide="ignore", over="ignore"):  # the level of rows in one place, or nearly, is infinite
        levels = 1 / merges[left - n, 2]
    children, counts = np.append(np.arange(n), numbers[found[1:]]), np.append(np.ones(n, np.int64), sizes[found[1:]])
    return CondensedTree(numbers[lead[left]][order], children[order], levels[order], counts[order])


def _ends(hops):
    """Where each node ends up that goes from one to the next until it stays."""
    while True:
        further = hops[hops]
        if np.array_equal(further, hops):
            return hops
        hops = further


def _breadth_first(parts, sizes, above):
    """Numbers in whose order nodes come level by level, from left to right."""
    depth = np.ones(len(above), np.int64)
    before = np.zeros(len(above), np.int64)  # rows to the left of it
    depth[-1] = 0
    before[parts[:, 1]] = sizes[parts[:, 0]]
    hops = above
    while depth[hops].any():
        depth, before, hops = depth + depth[hops], before + before[hops], hops[hops]
    return depth * len(above) + before

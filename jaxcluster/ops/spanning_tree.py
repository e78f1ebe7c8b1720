"""The minimum spanning tree of rows under their distance, or under mutual reachability, exactly."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxcluster.ops.pairwise import Pairwise, Space


class Tree(NamedTuple):
    """Edges of a spanning tree.

    Attributes:
        edges: (n − 1, 2) int32 rows that each edge joins.
        weights: (n − 1,) float64 distances; infinite where parts of the rows cannot be reached from each other.
    """

    edges: np.ndarray
    weights: np.ndarray


def minimum_spanning_tree(space: Space | Pairwise, core: np.ndarray | None = None) -> Tree:
    """The tree of least total weight that joins all rows.

    Args:
        space: n rows.
        core: (n,) float64; an edge weighs the greatest of its length and the core distances of its two rows. None for
            its length alone.
    """
    return _grow(space, np.zeros(space.n) if core is None else core)


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
        candidates = np.where(outside, weights, np.nan)
        row = int(np.nanargmin(candidates))
        edges[step], lengths[step] = (parents[row], row), weights[row]
    return Tree(edges, lengths)

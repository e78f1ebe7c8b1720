"""The rows of a spanning tree in the order in which it would grow from row 0: always to the row that is nearest.

The mutual reachability of a row and its neighbors is often its core distance, so many edges weigh the same, and which
parts they join first changes labels at the border of clusters. scikit-learn lets the order decide in which the tree
grew, where of rows that are equally near the first comes first. The same order is found here for any tree.
"""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np

from jaxcluster.ops.spanning_tree import Tree


def grow(tree: Tree, core: np.ndarray, neighbors: tuple[np.ndarray, np.ndarray]) -> Tree:
    """A tree of mutual reachability as one in which every edge leads from a row that was reached before to a new one.

    Edges may be exchanged for others of the same weight: those of a row and its neighbors within its core distance.

    Args:
        tree: over n rows. If it has grown from row 0 itself, it is kept as it is.
        core: (n,) core distances, as the tree was made with.
        neighbors: (n, k) the nearest rows of each row and their distances, up to the core distance or beyond.
    """
    if _has_grown(tree):
        return tree
    index, distances = neighbors
    near = (distances <= core[:, None]) & (core[index] <= core[:, None])
    heights, ranks = np.unique(tree.weights, return_inverse=True)
    core_ranks = np.searchsorted(heights, core)
    # Two rows that are the last neighbors of each other have the same core distance, and the tree may reach either by
    # the other alone. So their edges are all added.
    alike = (np.bincount(core_ranks) > 1)[core_ranks] & (heights[core_ranks] == core)
    row, place = np.nonzero(near & alike[:, None])
    edges = np.concatenate([tree.edges, np.column_stack([row, index[row, place]])])
    adjacent = _adjacent(edges, np.append(ranks, core_ranks[row]), len(core))
    stand_ins = index[near], np.append(0, np.cumsum(near.sum(axis=1))).tolist()
    rows, sources, steps = _visit(*adjacent, core_ranks, *stand_ins)
    rows, sources, weights = np.array(rows), np.array(sources), np.append(0, heights[steps])
    places = np.empty(len(core), np.int64)
    places[rows] = np.arange(len(core))
    # A row that is reached at its core distance could have been from any row within it: it was from the first.
    first = np.where(near, places[index], len(core)).min(axis=1)
    earlier = (weights[places] == core) & (first < places[sources])
    sources[earlier] = rows[first[earlier]]
    return Tree(np.column_stack([sources[rows[1:]], rows[1:]]).astype(np.int32), weights[1:])


def _has_grown(tree):
    """Whether every edge leads from a row that was reached before to a new one, the first from row 0."""
    n = len(tree.weights) + 1
    places = np.zeros(n, np.int64)
    places[tree.edges[:, 1]] = np.arange(1, n)
    reached = np.bincount(tree.edges[:, 1], minlength=n)
    return reached[0] == 0 and (reached[1:] == 1).all() and (places[tree.edges[:, 0]] < np.arange(1, n)).all()


def _adjacent(edges, ranks, n):
    """The edges at each row: where they begin, and each as one number: rank of its weight · 2^bits + its other end."""
    bits = n.bit_length()
    here, there = edges.T.ravel(), edges[:, ::-1].T.ravel().astype(np.int64)
    order = np.argsort(here, kind="stable")
    starts = np.append(0, np.cumsum(np.bincount(here, minlength=n)))
    return starts.tolist(), ((np.tile(ranks, 2) << bits) | there)[order].tolist(), bits


def _visit(starts, edges, bits, core_ranks, stand_ins, firsts):
    """Rows as they are reached, the source of each row, and the rank of the weight of each step.

    Edges of the tree lead everywhere. Where one weighs as much as the core distance of the row it leaves, so do those
    to all rows within that distance: each may stand in for it, and the first row is the one to be reached.
    """
    n, mask = len(core_ranks), (1 << bits) - 1
    best, sources, lows = [n << bits] * n, [0] * n, (core_ranks << bits).tolist()
    rows, steps, heap = [], [], []
    row = 0
    while True:
        rows.append(row)
        best[row] = -1
        reach, tied = lows[row] + mask, False
        for edge in edges[starts[row] : starts[row + 1]]:
            other = edge & mask
            known = best[other]
            if known >= 0:
                tied |= edge < reach
                if edge < known:
                    best[other], sources[other] = edge, row
                    heappush(heap, edge)
        if tied:
            for other in stand_ins[firsts[row] : firsts[row + 1]].tolist():
                edge = lows[row] + other
                if edge < best[other]:
                    best[other], sources[other] = edge, row
                    heappush(heap, edge)
        while heap:
            edge = heappop(heap)
            row = edge & mask
            if best[row] == edge:
                break
        else:
            return rows, sources, steps
        steps.append(edge >> bits)

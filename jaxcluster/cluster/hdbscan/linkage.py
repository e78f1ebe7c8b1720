"""From a spanning tree to the hierarchy of its parts: which parts are joined at which distance, as SciPy writes it."""

from __future__ import annotations

import numpy as np

from jaxcluster.ops.spanning_tree import Tree


def single_linkage(tree: Tree, *, in_turn: bool = False) -> np.ndarray:
    """The merges that the edges of a spanning tree make, the shortest edge first.

    Of the two parts that an edge joins, that with the row it comes from is on the left. Which of equally long edges
    comes first is left to NumPy's sort, as scikit-learn leaves it.

    Args:
        tree: over n rows, grown from row 0: every edge leads from a row that was reached before to a new one.
        in_turn: take the row reached just before for that which an edge comes from. The parts at every distance are the
            same; of equally long edges others come first.

    Returns:
        (n − 1, 4) float64 as `scipy.cluster.hierarchy.linkage` gives it: the two parts of each merge (below n a row,
        from n on an earlier merge), their distance, and how many rows they have together.
    """
    n = len(tree.weights) + 1
    rows = np.append(0, tree.edges[:, 1])
    places = np.empty(n, np.int64)
    places[rows] = np.arange(n)
    order = np.argsort(tree.weights)
    sources = order if in_turn else places[tree.edges[order, 0]]
    left, right, sizes = _merges(sources.tolist(), (order + 1).tolist())
    names = np.append(rows, np.arange(n, 2 * n - 1))
    return np.column_stack([names[left], names[right], tree.weights[order], sizes])


def _merges(near, far):
    """Left part, right part and size of each merge of two places: sets that are joined, the smaller to the larger.

    One step after the other, lists are much faster than arrays, and places along a walk faster than rows: what is
    joined lies close together in memory.
    """
    n = len(near) + 1
    above, names, sizes = list(range(n)), list(range(n)), [1] * n
    left, right, joined = [0] * (n - 1), [0] * (n - 1), [0] * (n - 1)
    for step in range(n - 1):
        a, b = near[step], far[step]
        while above[a] != a:
            above[a] = a = above[above[a]]
        while above[b] != b:
            above[b] = b = above[above[b]]
        left[step], right[step] = names[a], names[b]
        if sizes[a] < sizes[b]:
            a, b = b, a
        above[b] = a
        sizes[a] = joined[step] = sizes[a] + sizes[b]
        names[a] = n + step
    return left, right, joined

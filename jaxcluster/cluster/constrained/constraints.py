"""Must-link and cannot-link constraints: groups of samples, conflicts between them, and a coloring that keeps them.

Must-links are contracted: their connected components are the groups. Cannot-links become the edges of a conflict graph
on the groups, and labels that keep them are a proper coloring of it with k colors. DSATUR finds one: the group with
the fewest colors left is colored first, with backtracking where none is left.

Sources: K. Wagstaff et al., Constrained k-means clustering with background knowledge, ICML 2001, for the constraints;
D. Brélaz, New methods to color the vertices of a graph, Communications of the ACM 22 (1979), for DSATUR.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import breadth_first_order, connected_components

from jaxcluster.core import validation

MAX_COLORINGS = 100_000
"""Bound on the colorings of groups, backtracking included, that are tried in one component."""


class Groups(NamedTuple):
    """Groups of must-linked samples, and the conflicts between groups.

    Attributes:
        of_row: (n,) group of each sample.
        first: (m,) first sample of each group, which names it.
        conflicts: (e, 2) pairs of cannot-linked groups, each once, the lower number first.
    """

    of_row: np.ndarray
    first: np.ndarray
    conflicts: np.ndarray

    def means(self, x: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Weighted means of the groups.

        Σ w·‖x − c‖² = W·‖mean − c‖² + Σ w·‖x − mean‖²: a group is one sample of weight W, but for its constant scatter.

        Returns:
            (m, d) means, plain ones where a group has no weight; (m,) weights; and the scatter Σ w·‖x − mean‖².
        """
        n, m = len(self.of_row), len(self.first)
        total = np.bincount(self.of_row, weights, m)
        if m == n:
            return x, total, 0.0
        parts = np.where(total[self.of_row] > 0, weights, 1.0)
        member = scipy.sparse.csr_array((parts, (self.of_row, np.arange(n))), shape=(m, n))
        # About one of the samples: sums of large coordinates would cancel.
        origin = x[0].astype(np.float64)
        offset = x - origin
        means = (member @ offset) / np.asarray(member.sum(axis=1))[:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            scatter = np.sum(weights * np.sum(np.square(offset - means[self.of_row]), axis=1))
        return means + origin, total, float(scatter)


def group_samples(must_link: Any, cannot_link: Any, n: int) -> Groups:
    """Group n samples by their must-links.

    Raises:
        ValueError, TypeError: pairs of the wrong shape or type, of row numbers out of range, or of a row with itself;
            rows that have to be apart and, by a chain of pairs, together.
    """
    together, apart = _check_pairs("must_link", must_link, n), _check_pairs("cannot_link", cannot_link, n)
    graph = scipy.sparse.coo_array((np.ones(len(together)), (together[:, 0], together[:, 1])), shape=(n, n)).tocsr()
    _, component = connected_components(graph, directed=False)
    _, first, of_row = np.unique(component, return_index=True, return_inverse=True)
    # Groups are numbered by their first sample, so that a fit without must-links keeps the order of the samples.
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    of_row = place[of_row]
    conflicts = np.sort(of_row[apart], axis=1)
    inside = np.flatnonzero(conflicts[:, 0] == conflicts[:, 1])
    if len(inside):
        a, b = apart[inside[0]].tolist()
        chain = "–".join(map(str, _shortest_chain(graph, a, b)))
        raise ValueError(
            f"cannot_link says that rows {a} and {b} are apart, must_link that they are together ({chain}). Drop one "
            "of these pairs."
        )
    return Groups(of_row, first[order], np.unique(conflicts, axis=0))


def _shortest_chain(graph, a, b):
    """Shortest chain of must-links from sample a to sample b."""
    predecessor = breadth_first_order(graph, a, directed=False)[1]
    chain = [b]
    while chain[-1] != a:
        chain.append(int(predecessor[chain[-1]]))
    return chain[::-1]


def _check_pairs(name, pairs, n):
    if pairs is None:
        return np.zeros((0, 2), np.int64)
    if validation.is_traced(pairs):
        raise TypeError(f"{name} is traced: pairs decide what is searched for, so pass concrete row numbers.")
    array = np.asarray(pairs)
    if array.size == 0 and array.ndim <= 2:
        return np.zeros((0, 2), np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold row numbers, integers, got dtype {array.dtype}.")
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"{name} must have shape (m, 2), two row numbers a pair, got {array.shape}.")
    array = array.astype(np.int64)
    outside = np.flatnonzero(((array < 0) | (array >= n)).any(axis=1))
    if len(outside):
        raise ValueError(f"{name} has the pair {array[outside[0]].tolist()}, but rows are numbered from 0 to {n - 1}.")
    alone = np.flatnonzero(array[:, 0] == array[:, 1])
    if len(alone):
        raise ValueError(f"{name} pairs row {array[alone[0], 0]} with itself. Drop that pair.")
    return array


def color(neighbors: list[list[int]], k: int, names: np.ndarray) -> np.ndarray:
    """Proper coloring of one connected component of the conflict graph (DSATUR with backtracking).

    Args:
        neighbors: for each group the groups in conflict with it.
        k: number of colors.
        names: (m,) samples that name the groups in messages.

    Returns:
        (m,) colors from 0 to k − 1.

    Raises:
        ValueError: a clique larger than k; no coloring, or none found in `MAX_COLORINGS`.
    """
    clique = _greedy_clique(neighbors)
    if len(clique) > k:
        raise ValueError(
            f"cannot_link keeps {len(clique)} rows all apart from each other (rows {_listed(names[clique])}), which "
            f"takes {len(clique)} clusters, more than the {k} asked for. Pass more clusters, or drop pairs."
        )
    colors, colored = np.full(len(neighbors), -1), []
    counts = np.zeros((len(neighbors), k), int)  # of neighbors by color; the colors with any are the saturation degree
    degree = np.array([len(around) for around in neighbors])
    for _ in range(MAX_COLORINGS):
        saturation = (counts > 0).sum(axis=1)
        group = int(np.argmax(np.where(colors < 0, saturation * len(neighbors) + degree, -1)))
        # Colors not used yet are interchangeable: only the first of them is an option.
        options = np.flatnonzero(counts[group, : colors.max() + 2] == 0)[::-1].tolist()
        while not options:
            if not colored:
                raise ValueError(
                    f"cannot_link cannot be kept with {k} clusters: every way was tried to keep apart rows "
                    f"{_listed(names)}. Pass more clusters, or drop pairs."
                )
            group, options = colored.pop()
            counts[neighbors[group], colors[group]] -= 1
            colors[group] = -1
        colors[group] = options.pop()
        counts[neighbors[group], colors[group]] += 1
        colored.append((group, options))
        if len(colored) == len(neighbors):
            return colors
    raise ValueError(
        f"No way to keep cannot_link with {k} clusters was found in {MAX_COLORINGS:,} tries, for rows "
        f"{_listed(names)}; there may be one. Pass more clusters, or drop pairs."
    )


def _greedy_clique(neighbors):
    """Largest clique that a greedy search from every group finds."""
    best: list[int] = []
    for start in range(len(neighbors)):
        # A clique through a group has at most one member more than the group has neighbors.
        if len(neighbors[start]) < len(best):
            continue
        clique, candidates = [start], set(neighbors[start])
        while candidates:
            widest = max(candidates, key=lambda v: (len(neighbors[v]), -v))
            clique.append(widest)
            candidates.intersection_update(neighbors[widest])
        best = max(best, clique, key=len)
    return sorted(best)


def _listed(rows):
    rows = np.sort(rows)
    return ", ".join(map(str, rows[:10])) + (" …" if len(rows) > 10 else "")

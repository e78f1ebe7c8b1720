"""Pairs of rows that have to be together or apart: checked, and as groups of rows with conflicts between them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import breadth_first_order, connected_components

from jaxcluster.core import check


class Groups(NamedTuple):
    """Rows that have to be together, as groups, and which groups have to be apart.

    Attributes:
        of_row: (n,) the group of each row.
        first: (m,) the first row of each group, which names it.
        conflicts: (e, 2) pairs of groups that are apart, each once, the lower number first.
    """

    of_row: np.ndarray
    first: np.ndarray
    conflicts: np.ndarray

    def means(self, x: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """(m, d) weighted means and (m,) weights of the groups, and Σ w·‖x − mean‖² of all rows about them.

        A group at its mean costs what its rows do, but for that constant. One without weight is at its plain mean.
        """
        n, m = len(self.of_row), len(self.first)
        total = np.bincount(self.of_row, weights, m)
        if m == n:
            return x, total, 0.0
        parts = np.where(total[self.of_row] > 0, weights, 1.0)
        member = scipy.sparse.csr_array((parts, (self.of_row, np.arange(n))), shape=(m, n))
        origin = x[0].astype(np.float64)
        offset = x - origin
        means = (member @ offset) / np.asarray(member.sum(axis=1))[:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            scatter = np.sum(weights * np.sum(np.square(offset - means[self.of_row]), axis=1))
        return means + origin, total, float(scatter)


def group(must_link: Any, cannot_link: Any, n: int) -> Groups:
    """The groups of n rows.

    Raises:
        ValueError, TypeError: pairs of the wrong shape or type, of row numbers out of range, or of a row with itself;
            rows that have to be apart and, by a chain of pairs, together.
    """
    together, apart = _checked("must_link", must_link, n), _checked("cannot_link", cannot_link, n)
    graph = scipy.sparse.coo_array((np.ones(len(together)), (together[:, 0], together[:, 1])), shape=(n, n)).tocsr()
    _, component = connected_components(graph, directed=False)
    _, first, of_row = np.unique(component, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    of_row = place[of_row]
    conflicts = np.sort(of_row[apart], axis=1)
    inside = np.flatnonzero(conflicts[:, 0] == conflicts[:, 1])
    if len(inside):
        a, b = apart[inside[0]].tolist()
        chain = "–".join(map(str, _chain(graph, a, b)))
        raise ValueError(
            f"cannot_link says that rows {a} and {b} are apart, must_link that they are together ({chain}). Drop one "
            "of these pairs."
        )
    return Groups(of_row, first[order], np.unique(conflicts, axis=0))


def _chain(graph, a, b):
    """The shortest chain of pairs from row a to row b."""
    before = breadth_first_order(graph, a, directed=False)[1]
    chain = [b]
    while chain[-1] != a:
        chain.append(int(before[chain[-1]]))
    return chain[::-1]


def _checked(name, pairs, n):
    if pairs is None:
        return np.zeros((0, 2), np.int64)
    if check.is_traced(pairs):
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

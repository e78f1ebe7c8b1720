"""Tables that compare two labelings: contingency, pair confusion and confusion matrices, exact in int64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxcluster.core.check import check_choice, check_finite
from jaxcluster.metrics.labels import SMALL_RANGE, SPARE_RANGE, Coded, encode_pair


class Contingency(NamedTuple):
    """The non-zero cells of a contingency table, whose rows are true classes and columns predicted clusters.

    Attributes:
        counts: (m,) int64, rows in each non-zero cell.
        row, col: (m,) where the cells are, row by row.
        row_totals, col_totals: int64, rows of each class and of each cluster.
    """

    counts: np.ndarray
    row: np.ndarray
    col: np.ndarray
    row_totals: np.ndarray
    col_totals: np.ndarray

    @property
    def n(self) -> int:
        """How many rows were counted."""
        return int(self.row_totals.sum())

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of classes and clusters."""
        return self.row_totals.size, self.col_totals.size

    def dense(self) -> np.ndarray:
        """The table as a matrix."""
        table = np.zeros(self.shape, self.counts.dtype)
        table[self.row, self.col] = self.counts
        return table


def tabulate(true: Coded, pred: Coded) -> Contingency:
    """Counts the cells, in a table where it has few slots a row, else by sorting."""
    width = pred.counts.size
    cells = true.codes * np.int64(width) + pred.codes
    slots = true.counts.size * width
    if slots <= max(SMALL_RANGE, SPARE_RANGE * cells.size):
        table = np.bincount(cells, minlength=slots)
        occupied = np.flatnonzero(table)
        counts = table[occupied]
    else:
        occupied, counts = np.unique(cells, return_counts=True)
    row, col = np.divmod(occupied, max(width, 1))
    return Contingency(counts, row, col, true.counts, pred.counts)


def compare(labels_true: ArrayLike, labels_pred: ArrayLike) -> Contingency:
    """The contingency table of two labelings. Raises ValueError as `encode_pair` does."""
    return tabulate(*encode_pair(labels_true, labels_pred))


def contingency_matrix(labels_true: ArrayLike, labels_pred: ArrayLike, *, eps=None, sparse=False, dtype=np.int64):
    """How many rows of each true class fell into each predicted cluster.

    Args:
        labels_true, labels_pred: (n,) labels of any sortable type.
        eps: added to every cell; not with ``sparse``.
        sparse: return a ``scipy.sparse.csr_array``.
        dtype: of the counts.

    Returns:
        (classes, clusters) matrix, both in ascending order of their labels.

    Raises:
        ValueError: labels that are not 1-D or differ in length, or ``eps`` together with ``sparse``.
    """
    if eps is not None and sparse:
        raise ValueError(
            f"Cannot set 'eps' when sparse=True: eps={eps} fills every cell. Pass sparse=False or eps=None."
        )
    table = compare(labels_true, labels_pred)
    if sparse:
        from scipy.sparse import csr_array

        return csr_array((table.counts.astype(dtype), (table.row, table.col)), shape=table.shape)
    dense = table.dense().astype(dtype, copy=False)
    return dense if eps is None else dense + eps


def pair_counts(table: Contingency) -> tuple[int, int, int, int]:
    """Ordered pairs of rows as exact Python integers: (apart in both, together in pred only, in true only, in both)."""
    n = table.n
    both, true, pred = (int(np.dot(c, c)) for c in (table.counts, table.row_totals, table.col_totals))
    return n * n - true - pred + both, pred - both, true - both, both - n


def pair_confusion_matrix(labels_true: ArrayLike, labels_pred: ArrayLike) -> np.ndarray:
    """Ordered pairs of rows by whether each labeling puts them together.

    Returns:
        (2, 2) int64: row 1 counts pairs together in ``labels_true``, column 1 pairs together in ``labels_pred``.
        The four sum to n·(n − 1).

    Raises:
        ValueError: labels that are not 1-D or differ in length.

    Source: Hubert and Arabie, Comparing partitions, 1985.
    """
    return np.array(pair_counts(compare(labels_true, labels_pred)), np.int64).reshape(2, 2)


def confusion_matrix(y_true: ArrayLike, y_pred: ArrayLike, *, labels=None, sample_weight=None, normalize=None):
    """How many rows of class i were given label j, over one list of labels for both.

    Clusters carry arbitrary names: rename them by `optimal_matching` first, or take `contingency_matrix`.

    Args:
        y_true, y_pred: (n,) labels.
        labels: which labels, in which order; None for all that occur, ascending.
        sample_weight: (n,) weight of each row.
        normalize: "true" for rows that sum to 1, "pred" for columns, "all" for the whole; None for counts.

    Returns:
        (k, k) int64, or float64 with fractional weights or ``normalize``.

    Raises:
        ValueError: an unknown ``normalize``, labels of mixed type, not 1-D or of unequal length, or none of
            ``labels`` in ``y_true``.
    """
    if normalize is not None:
        check_choice("normalize", normalize, ["true", "pred", "all"])
    true, pred = encode_pair(y_true, y_pred)
    if (true.classes.dtype.kind in "US") != (pred.classes.dtype.kind in "US") and true.codes.size:
        raise ValueError("y_true and y_pred mix strings with numbers. Encode both the same way.")
    order = np.union1d(true.classes, pred.classes) if labels is None else np.asarray(labels)
    if labels is not None and true.codes.size and not np.isin(order, true.classes).any():
        raise ValueError(f"none of labels={order.tolist()} occurs in y_true.")
    i, j = _positions(true, order), _positions(pred, order)
    kept = (i >= 0) & (j >= 0)
    weight = None if sample_weight is None else _row_weights(sample_weight, kept.size)[kept]
    k = order.size
    table = np.bincount(i[kept] * k + j[kept], weight, minlength=k * k).reshape(k, k)
    if sample_weight is not None and np.asarray(sample_weight).dtype.kind in "biu":
        table = table.astype(np.int64)
    return table if normalize is None else _normalized(table, normalize)


def _positions(coded, order):
    """Where in ``order`` the label of each row stands, −1 for nowhere."""
    sorter = np.argsort(order)
    at = np.minimum(np.searchsorted(order, coded.classes, sorter=sorter), order.size - 1)
    return np.where(order[sorter[at]] == coded.classes, sorter[at], -1)[coded.codes]


def _row_weights(sample_weight, n):
    weight = np.asarray(sample_weight, np.float64)
    if weight.shape != (n,):
        raise ValueError(f"sample_weight must have shape ({n},), one a row, got {weight.shape}.")
    check_finite(weight, name="sample_weight")
    return weight


def _normalized(table, normalize):
    total = {"true": table.sum(1, keepdims=True), "pred": table.sum(0, keepdims=True), "all": table.sum()}[normalize]
    return np.divide(table, total, out=np.zeros(table.shape), where=total != 0)

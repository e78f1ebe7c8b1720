"""Encoded labels, and tables that compare two labelings: contingency, pair confusion and confusion, exact in int64.

>>> contingency_matrix(["a", "a", "b"], [1, 1, 0]).tolist()
[[0, 2], [1, 0]]
"""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxcluster.core import memory, validation
from jaxcluster.core.interchange import as_array
from jaxcluster.core.messages import warn

SLOTS_PER_LABEL = 4
"""Integers are counted in a table of their range, in O(n), while it has at most this many slots per label; otherwise
they are sorted."""

MIN_SLOTS = 1 << 16
"""A table of at most this many slots is used however few the labels are: its 512 KiB stay in the cache."""

SINGLE_TYPE_HINT = "Pass labels of one type: integers, or strings."


class EncodedLabels(NamedTuple):
    """A labeling of n samples by k distinct labels.

    Attributes:
        codes: (n,) integers in [0, k).
        classes: (k,) the label of each code, ascending.
        counts: (k,) int64, samples of each code, all at least 1.
    """

    codes: np.ndarray
    classes: np.ndarray
    counts: np.ndarray


class Contingency(NamedTuple):
    """The non-zero cells of a contingency table, whose rows are true classes and columns predicted clusters.

    Attributes:
        counts: (m,) int64, samples in each non-zero cell.
        row, col: (m,) indices of the cells, in row-major order.
        row_totals, col_totals: int64, samples of each class and of each cluster.
    """

    counts: np.ndarray
    row: np.ndarray
    col: np.ndarray
    row_totals: np.ndarray
    col_totals: np.ndarray

    @property
    def n(self) -> int:
        """Number of samples."""
        return int(self.row_totals.sum())

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the table.

        Returns:
            The numbers of classes and of clusters.
        """
        return self.row_totals.size, self.col_totals.size

    def dense(self) -> np.ndarray:
        """The table as a matrix."""
        classes, clusters = self.shape
        subject = f"the counts of {classes:,} classes by {clusters:,} clusters"
        remedy = "Pass sparse=True where there is one, or labels of fewer clusters."
        memory.check(2 * self.counts.dtype.itemsize * classes * clusters, subject, remedy)
        table = np.zeros(self.shape, self.counts.dtype)
        table[self.row, self.col] = self.counts
        return table


def encode(labels: ArrayLike, name: str = "labels") -> EncodedLabels:
    """Codes of labels: integers, strings, booleans, integral floats or dates, in NumPy, JAX or a sequence.

    An array of objects is treated as numbers, or as strings, if all its elements are.

    Raises:
        TypeError: traced labels.
        ValueError: not one-dimensional; NaN, None, infinity or another mark of a missing value among the labels; labels
            that cannot be ordered, such as strings beside numbers.
    """
    if validation.is_traced(labels):
        raise TypeError(
            f"{name} are traced, and scores of labels need concrete ones: the number of clusters decides what is "
            "computed. Compute the score outside of jit, vmap and grad."
        )
    labels = _as_labels(labels, name)
    if labels.dtype.kind in "bui" and labels.size:
        low, high = int(labels.min()), int(labels.max())
        if high - low < max(MIN_SLOTS, SLOTS_PER_LABEL * labels.size):
            # Few slots a label: counting is linear, and the sort below is not.
            return _encode_range(labels, low)
    try:
        classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    except TypeError as error:
        raise ValueError(f"{name} hold values that have no order ({error}). {SINGLE_TYPE_HINT}") from error
    return EncodedLabels(codes, classes, counts)


def encode_pair(labels_true: ArrayLike, labels_pred: ArrayLike) -> tuple[EncodedLabels, EncodedLabels]:
    """Encode two labelings of the same samples.

    Returns:
        ``labels_true`` and ``labels_pred``, encoded.

    Raises:
        ValueError: as `encode`, or unequal lengths.
    """
    true, pred = encode(labels_true, "labels_true"), encode(labels_pred, "labels_pred")
    if true.codes.size != pred.codes.size:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: [{true.codes.size}, {pred.codes.size}]. "
            "Pass labels_true and labels_pred with one label per row."
        )
    return true, pred


def cross_tabulate(true: EncodedLabels, pred: EncodedLabels) -> Contingency:
    """The contingency table of encoded labels: counted where it has few slots per sample, else sorted."""
    width = pred.counts.size
    # One integer for each cell of the table: 64 bits hold the product of two numbers of classes.
    cells = true.codes * np.int64(width) + pred.codes
    slots = true.counts.size * width
    if slots <= max(MIN_SLOTS, SLOTS_PER_LABEL * cells.size):
        table = np.bincount(cells, minlength=slots)
        occupied = np.flatnonzero(table)
        counts = table[occupied]
    else:
        occupied, counts = np.unique(cells, return_counts=True)
    row, col = np.divmod(occupied, max(width, 1))
    return Contingency(counts, row, col, true.counts, pred.counts)


def contingency_table(labels_true: ArrayLike, labels_pred: ArrayLike) -> Contingency:
    """The contingency table of two labelings. Raises ValueError as `encode_pair` does."""
    return cross_tabulate(*encode_pair(labels_true, labels_pred))


def contingency_matrix(
    labels_true: ArrayLike, labels_pred: ArrayLike, *, eps: Any = None, sparse: Any = False, dtype: Any = np.int64
) -> Any:
    """Number of samples of each true class in each predicted cluster.

    Args:
        labels_true, labels_pred: (n_samples,) labels of any sortable type.
        eps: added to every cell; not with ``sparse``.
        sparse: return a ``scipy.sparse.csr_array``.
        dtype: of the counts.

    Returns:
        (n_classes, n_clusters) matrix, both in ascending order of their labels.

    Raises:
        ValueError: labels that are not 1-D or differ in length, or ``eps`` together with ``sparse``.
    """
    if eps is not None and sparse:
        raise ValueError(
            f"Cannot set 'eps' when sparse=True: eps={eps} fills every cell. Pass sparse=False or eps=None."
        )
    table = contingency_table(labels_true, labels_pred)
    if sparse:
        from scipy.sparse import csr_array

        return csr_array((table.counts.astype(dtype), (table.row, table.col)), shape=table.shape)
    dense = table.dense().astype(dtype, copy=False)
    return dense if eps is None else dense + eps


def pair_counts(table: Contingency) -> tuple[int, int, int, int]:
    """Counts of ordered pairs of samples, exact: Python integers, as n² may exceed int64.

    Returns:
        Pairs that are apart in both labelings, together in pred only, together in true only, together in both.
    """
    n = table.n
    both, true, pred = (int(np.dot(c, c)) for c in (table.counts, table.row_totals, table.col_totals))
    return n * n - true - pred + both, pred - both, true - both, both - n


def pair_confusion_matrix(labels_true: ArrayLike, labels_pred: ArrayLike) -> np.ndarray:
    """Ordered pairs of samples by whether each labeling puts them together.

    Returns:
        (2, 2) int64: row 1 counts pairs together in ``labels_true``, column 1 pairs together in ``labels_pred``.
        The four sum to n·(n − 1).

    Raises:
        ValueError: labels that are not 1-D or differ in length.

    Source: Hubert and Arabie, Comparing partitions, 1985.
    """
    return np.array(pair_counts(contingency_table(labels_true, labels_pred)), np.int64).reshape(2, 2)


def confusion_matrix(
    y_true: ArrayLike, y_pred: ArrayLike, *, labels: Any = None, sample_weight: Any = None, normalize: Any = None
) -> np.ndarray:
    """Number of samples of class i that are labeled j, over one list of labels for both.

    Clusters have arbitrary names: rename them by `optimal_matching` first, or use `contingency_matrix`.

    Args:
        y_true, y_pred: (n_samples,) labels.
        labels: the labels to list, in this order; None for all that occur, ascending.
        sample_weight: (n_samples,) weights.
        normalize: "true" for rows that sum to 1, "pred" for columns, "all" for the whole; None for counts.

    Returns:
        (n_labels, n_labels) int64, or float64 with fractional weights or ``normalize``.

    Raises:
        ValueError: an unknown ``normalize``, labels of mixed type, not 1-D or of unequal length, or none of
            ``labels`` in ``y_true``.
    """
    if normalize is not None:
        validation.check_choice("normalize", normalize, ["true", "pred", "all"])
    true, pred = encode_pair(y_true, y_pred)
    if (true.classes.dtype.kind in "US") != (pred.classes.dtype.kind in "US") and true.codes.size:
        raise ValueError("y_true and y_pred mix strings with numbers. Encode both the same way.")
    order = np.union1d(true.classes, pred.classes) if labels is None else np.asarray(labels)
    if labels is not None and true.codes.size and not np.isin(order, true.classes).any():
        raise ValueError(f"none of labels={order.tolist()} occurs in y_true.")
    i, j = _indices_in(order, true), _indices_in(order, pred)
    listed = (i >= 0) & (j >= 0)
    weight = None if sample_weight is None else _check_sample_weight(sample_weight, listed.size)[listed]
    k = order.size
    table = np.bincount(i[listed] * k + j[listed], weight, minlength=k * k).reshape(k, k)
    if sample_weight is not None and validation.as_real_array(sample_weight, name="sample_weight").dtype.kind in "biu":
        # Weights make a float64 table of integer counts; scikit-learn returns integers for them.
        table = table.astype(np.int64)
    if normalize is None:
        return table
    total = {"true": table.sum(1, keepdims=True), "pred": table.sum(0, keepdims=True), "all": table.sum()}[normalize]
    # A class without samples keeps zeros, not 0/0.
    return np.divide(table, total, out=np.zeros(table.shape), where=total != 0)


def _indices_in(order, encoded):
    """The index in ``order`` of each sample's label, −1 where it is absent."""
    sorter = np.argsort(order)
    index = np.minimum(np.searchsorted(order, encoded.classes, sorter=sorter), order.size - 1)
    return np.where(order[sorter[index]] == encoded.classes, sorter[index], -1)[encoded.codes]


def _check_sample_weight(sample_weight, n):
    weight = validation.as_real_array(sample_weight, name="sample_weight").astype(np.float64)
    if weight.shape != (n,):
        raise ValueError(f"sample_weight must have shape ({n},), one per row, got {weight.shape}.")
    validation.check_finite(weight, name="sample_weight")
    return weight


def label_array(labels: Any, name: str) -> np.ndarray:
    """Concrete labels as an array of any type; raises ValueError for rows of different lengths, TypeError for keys."""
    labels = as_array(labels, name=name)
    validation.check_no_keys(labels, name)
    try:
        return np.asarray(labels)
    except ValueError as error:
        raise ValueError(
            f"{name} are rows of different lengths. Pass one label for each row of the samples."
        ) from error


def narrow_labels(labels: Any, name: str = "labels") -> np.ndarray:
    """Labels as an array of numbers or strings, also those of pandas and Arrow; arrays of another shape as they are.

    Raises:
        ValueError: labels of several types, and missing ones.
    """
    array = label_array(labels, name)
    return _as_labels(labels, name) if array.ndim == 1 and array.dtype.kind in "OT" else array


def _as_labels(labels, name) -> np.ndarray:
    """The labels as an array of one type without missing values."""
    if isinstance(labels, np.ma.MaskedArray) and np.ma.getmaskarray(labels).any():
        _raise_missing(int(np.ma.getmaskarray(labels).sum()), "masked", name)
    array = validation.widen(label_array(labels, name))
    if array.ndim != 1:
        hint = f" Flatten it: {name}.ravel()." if array.ndim == 2 and 1 in array.shape else ""
        raise ValueError(f"{name} must be 1D: shape is {array.shape}.{hint}")
    if not hasattr(labels, "dtype") and (
        array.dtype.kind in "US" or (array.dtype.kind == "f" and (np.isfinite(array) & (np.abs(array) >= 2**53)).any())
    ):
        # NumPy makes strings of numbers, and of NaN, in a list of strings, and rounds integers that int64 cannot hold.
        array = np.fromiter(labels, object, array.size)
    if array.dtype.kind in "OT":
        array = _narrow_objects(array.astype(object), name)
    if array.dtype.kind in "mM" and np.isnat(array).any():
        _raise_missing(int(np.isnat(array).sum()), "NaT", name)
    if array.dtype.kind in "fc":
        if np.isnan(array).any():
            _raise_missing(int(np.isnan(array).sum()), "NaN", name)
        if np.isinf(array).any():
            raise ValueError(
                f"{name} contains infinity: {_count_values(int(np.isinf(array).sum()))}. {SINGLE_TYPE_HINT}"
            )
        if not np.array_equal(array, np.floor(np.real(array))):
            warn(f"{name} holds fractions: clustering metrics expect discrete labels.", UserWarning)
    return array


def _narrow_objects(labels, name):
    """Objects as an array of numbers or strings, if they all are; other objects unchanged."""
    values = labels.tolist()
    missing = sum(map(is_missing, values))
    if missing:
        _raise_missing(missing, "NaN or None", name)
    for kind in (str, bytes):
        some = sum(isinstance(value, kind) for value in values)
        if 0 < some < len(values):
            other = next(value for value in values if not isinstance(value, kind))
            raise ValueError(f"{name} mix strings with other values, such as {other!r}. {SINGLE_TYPE_HINT}")
        if some:
            return np.array(values)
    if all(
        issubclass(type(value), numbers.Real) and (abs(value) < 2**63 or abs(value) == math.inf) for value in values
    ):
        return np.array(values)
    # Integers beyond 64 bits, which NumPy would round, and other objects are compared by Python.
    return labels


def is_missing(value: Any) -> bool:
    """True for None, NaN, and pandas' NA and NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, numbers.Number) and value != value  # a NaN of any type, also of decimal


def _raise_missing(count, kind, name):
    raise ValueError(f"{name} contains {kind}: {_count_values(count)}. Drop those rows first.")


def _count_values(count):
    return "1 value" if count == 1 else f"{count} values"


def _encode_range(labels, low):
    """Integer labels encoded by counting, without a sort."""
    # A uint64 label may exceed int64, and a narrow one minus `low` may overflow its own dtype: subtract in uint64, or
    # after widening.
    if labels.dtype == np.uint64:
        # int64 does not hold uint64 from 2^63 on: the least label is subtracted first.
        codes = (labels - np.uint64(low)).astype(np.int64)
    else:
        codes = labels.astype(np.int64, copy=False)
        codes = codes - low if low else codes
    counts = np.bincount(codes)
    present = counts > 0
    classes = np.flatnonzero(present).astype(labels.dtype) + labels.dtype.type(low) if low else np.flatnonzero(present)
    if not present.all():
        # Gaps between labels: codes count the labels that occur.
        codes, counts = (np.cumsum(present) - 1)[codes], counts[present]
    return EncodedLabels(codes, classes.astype(labels.dtype, copy=False), counts)

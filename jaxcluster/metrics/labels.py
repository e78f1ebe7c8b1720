"""Labelings as small integers: checked, then coded 0 … k−1 without sorting where their range allows it."""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxcluster.core import check
from jaxcluster.core.caution import warn

SPARE_RANGE = 4
"""Integer labels are counted in a table of their range, not sorted, while it has at most this many slots a label."""

SMALL_RANGE = 1 << 16
"""… or at most this many slots in all."""


ONE_TYPE = "Pass labels of one type: integers, or strings."


class Coded(NamedTuple):
    """A labeling of n rows with k distinct labels.

    Attributes:
        codes: (n,) integers in [0, k).
        classes: (k,) the label of each code, ascending.
        counts: (k,) int64, rows of each code, all at least 1.
    """

    codes: np.ndarray
    classes: np.ndarray
    counts: np.ndarray


def encode(labels: ArrayLike, name: str = "labels") -> Coded:
    """Codes of the labels: integers, strings, booleans, integral floats or dates, in NumPy, JAX or a sequence.

    An array of objects is one of numbers, or of strings, if all that it holds are.

    Raises:
        ValueError: not one-dimensional; NaN, None, infinity or another mark of a missing value among the labels; labels
            that have no order, such as strings beside numbers.
    """
    labels = _check(labels, name)
    if labels.dtype.kind in "bui" and labels.size:
        low, high = int(labels.min()), int(labels.max())
        if high - low < max(SMALL_RANGE, SPARE_RANGE * labels.size):
            return _count_range(labels, low)
    try:
        classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    except TypeError as error:
        raise ValueError(f"{name} hold values that have no order ({error}). {ONE_TYPE}") from error
    return Coded(codes, classes, counts)


def encode_pair(labels_true: ArrayLike, labels_pred: ArrayLike) -> tuple[Coded, Coded]:
    """Both labelings coded.

    Raises:
        ValueError: as `encode`, or unequal lengths.
    """
    true, pred = encode(labels_true, "labels_true"), encode(labels_pred, "labels_pred")
    if true.codes.size != pred.codes.size:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: [{true.codes.size}, {pred.codes.size}]. "
            "Pass labels_true and labels_pred with one label a row."
        )
    return true, pred


def _check(labels, name):
    """The labels as an array of one type, in which nothing is missing."""
    if isinstance(labels, np.ma.MaskedArray) and np.ma.getmaskarray(labels).any():
        _refuse_missing(int(np.ma.getmaskarray(labels).sum()), "masked", name)
    array = check.widen(np.asarray(labels))
    if array.ndim != 1:
        hint = f" Flatten it: {name}.ravel()." if array.ndim == 2 and 1 in array.shape else ""
        raise ValueError(f"{name} must be 1D: shape is {array.shape}.{hint}")
    if not hasattr(labels, "dtype") and (
        array.dtype.kind in "US" or (array.dtype.kind == "f" and (np.isfinite(array) & (np.abs(array) >= 2**53)).any())
    ):
        # NumPy makes strings of numbers, and of NaN, in a list of strings, and rounds integers that int64 cannot hold.
        array = np.fromiter(labels, object, array.size)
    if array.dtype.kind in "OT":
        array = _of_one_type(array.astype(object), name)
    if array.dtype.kind in "mM" and np.isnat(array).any():
        _refuse_missing(int(np.isnat(array).sum()), "NaT", name)
    if array.dtype.kind in "fc":
        if np.isnan(array).any():
            _refuse_missing(int(np.isnan(array).sum()), "NaN", name)
        if np.isinf(array).any():
            raise ValueError(f"{name} contains infinity: {_how_many(int(np.isinf(array).sum()))}. {ONE_TYPE}")
        if not np.array_equal(array, np.floor(array.real)):
            warn(f"{name} holds fractions: clustering metrics expect discrete labels.", UserWarning)
    return array


def _of_one_type(labels, name):
    """Objects as numbers or strings, if they all are; other objects as they are."""
    values = labels.tolist()
    missing = sum(map(_is_missing, values))
    if missing:
        _refuse_missing(missing, "NaN or None", name)
    for kind in (str, bytes):
        some = sum(isinstance(value, kind) for value in values)
        if 0 < some < len(values):
            other = next(value for value in values if not isinstance(value, kind))
            raise ValueError(f"{name} mix strings with other values, such as {other!r}. {ONE_TYPE}")
        if some:
            return np.array(values)
    if all(isinstance(value, numbers.Real) and (abs(value) < 2**63 or abs(value) == math.inf) for value in values):
        return np.array(values)
    return labels  # larger integers, which NumPy would round, and other objects: compared by Python


def _is_missing(value: Any) -> bool:
    """Whether a label is None, NaN, or pandas' NA or NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, numbers.Real) and math.isnan(value)


def _refuse_missing(count, what, name):
    raise ValueError(f"{name} contains {what}: {_how_many(count)}. Drop those rows first.")


def _how_many(count):
    return "1 value" if count == 1 else f"{count} values"


def _count_range(labels, low):
    # An unsigned 64-bit label may not fit int64, and a narrow one minus `low` may not fit its own type.
    if labels.dtype == np.uint64:
        codes = (labels - np.uint64(low)).astype(np.int64)
    else:
        codes = labels.astype(np.int64, copy=False)
        codes = codes - low if low else codes
    counts = np.bincount(codes)
    present = counts > 0
    classes = np.flatnonzero(present).astype(labels.dtype) + labels.dtype.type(low) if low else np.flatnonzero(present)
    if not present.all():
        codes, counts = (np.cumsum(present) - 1)[codes], counts[present]
    return Coded(codes, classes.astype(labels.dtype, copy=False), counts)

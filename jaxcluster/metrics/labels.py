"""Labelings as small integers: checked, then coded 0 … k−1 without sorting where their range allows it."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

SPARE_RANGE = 4
"""Integer labels are counted in a table of their range, not sorted, while it has at most this many slots a label."""

SMALL_RANGE = 1 << 16
"""… or at most this many slots in all."""


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
    """Codes of the labels: integers, strings, booleans or integral floats, in NumPy, JAX or a sequence.

    Raises:
        ValueError: not one-dimensional, or NaN among the labels.
    """
    labels = _check(np.asarray(labels), name)
    if labels.dtype.kind in "bui" and labels.size:
        low, high = int(labels.min()), int(labels.max())
        if high - low < max(SMALL_RANGE, SPARE_RANGE * labels.size):
            return _count_range(labels, low)
    classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return Coded(codes, classes, counts)


def encode_pair(labels_true: ArrayLike, labels_pred: ArrayLike) -> tuple[Coded, Coded]:
    """Both labelings coded.

    Raises:
        ValueError: as `encode`, or unequal lengths.
    """
    true, pred = encode(labels_true, "labels_true"), encode(labels_pred, "labels_pred")
    if true.codes.size != pred.codes.size:
        raise ValueError(
            "labels_true and labels_pred have inconsistent numbers of samples: "
            f"[{true.codes.size}, {pred.codes.size}]. Pass one label a row in both."
        )
    return true, pred


def _check(labels, name):
    if labels.ndim != 1:
        hint = f" Flatten it: {name}.ravel()." if labels.ndim == 2 and 1 in labels.shape else ""
        raise ValueError(f"{name} must be 1D: shape is {labels.shape}.{hint}")
    if labels.dtype.kind == "f":
        if np.isnan(labels).any():
            raise ValueError(f"{name} contains {int(np.isnan(labels).sum())} NaN values. Drop those rows first.")
        if not np.array_equal(labels, np.floor(labels)):
            warnings.warn(f"{name} holds fractions: clustering metrics expect discrete labels.", UserWarning, 4)
    return labels


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

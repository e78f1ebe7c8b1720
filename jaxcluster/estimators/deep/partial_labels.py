"""Partial labels: the classes of some samples as integers, -1 where they are unknown."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

HINT = "Pass one integer or string a row, with -1, or None among strings, where the class is not known."


class PartialLabels(NamedTuple):
    """Known classes of samples.

    Attributes:
        codes: (n_samples,) int32 index of each sample's class in ``classes``, −1 for unknown.
        classes: (n_classes,) the known classes, ascending.
    """

    codes: np.ndarray
    classes: np.ndarray


def encode_classes(y: Any, n: int) -> PartialLabels:
    """Encode ``y`` as the classes of n samples.

    Classes are integers, integral floats or booleans, with −1 for unknown; or strings, with −1, None or NaN for
    unknown. NaN among numbers is refused: −1 exists for that, and NaN tends to be an accident.

    Raises:
        ValueError: another number than one per sample; integers below −1, fractions or NaN; the string "-1".
        TypeError: other values, or integers and strings together.
    """
    given = np.asarray(y)
    if given.shape != (n,):
        raise ValueError(f"y has shape {given.shape}, but X has {n} rows. {HINT}")
    if given.dtype.kind in "OUT":
        # As objects: NumPy makes strings of all entries of a list with one string, and None would be a class "None".
        known, values = _objects(given if isinstance(y, np.ndarray) else np.asarray(y, object))
    else:
        values = _numbers(given)
        known = values != -1 if values.dtype != bool else np.ones(n, bool)
    classes, codes_of_known = np.unique(values[known], return_inverse=True)
    codes = np.full(n, -1, np.int32)
    codes[known] = codes_of_known
    return PartialLabels(codes, classes)


def _numbers(values):
    """Check numeric classes: integers of at least −1, or booleans."""
    if values.dtype.kind not in "biuf":
        raise TypeError(f"y has dtype {values.dtype}. {HINT}")
    if values.dtype.kind == "f":
        missing = int(np.isnan(values).sum())
        if missing:
            raise ValueError(f"y holds {missing} NaN. {HINT}")
        broken = values != np.floor(values)
        if broken.any() or np.isinf(values).any():
            example = values[broken][0] if broken.any() else "infinity"
            raise ValueError(f"y holds {example}, which is the number of no class. {HINT}")
        values = values.astype(np.int64)
    if values.size and values.min() < -1:
        raise ValueError(f"y holds {values.min()}: no class has a number below -1. {HINT}")
    return values


def _objects(values):
    """Split values of mixed types.

    Returns:
        a mask of the known values, and all values as strings or integers.
    """
    values = values.astype(object)
    known = np.array([not _missing(value) for value in values], bool)
    kinds = {type(value).__name__ for value in values[known]}
    if all(isinstance(value, str) for value in values[known]):
        if "-1" in values[known]:
            raise ValueError(f"y holds the string '-1', which could be a class or none. {HINT}")
        return known, np.where(known, values, "").astype(str)
    if all(isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in values[known]):
        return known, _numbers(np.where(known, values, -1).astype(np.int64))
    raise TypeError(f"y holds values of type {', '.join(sorted(kinds))}. {HINT}")


def _missing(value):
    absent = (
        value is None
        or type(value).__name__ == "NAType"
        or (isinstance(value, (float, np.floating)) and np.isnan(value))
    )
    return absent or (isinstance(value, (int, np.integer)) and value == -1)

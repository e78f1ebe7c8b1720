"""What a caller knows of the classes of rows, as numbers that networks are told."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

HINT = "Pass one integer or string a row, with -1, or None among strings, where the class is not known."


class Known(NamedTuple):
    """The classes of rows, where they are known.

    Attributes:
        codes: (n,) int32 the number of each row's class in ``classes``; −1 for not known.
        classes: (c,) the known ones, ascending.
    """

    codes: np.ndarray
    classes: np.ndarray


def encode_classes(y: Any, n: int) -> Known:
    """``y`` read as classes of n rows.

    They are integers, integral floats or booleans, −1 for not known; or strings, for which −1, None or NaN stand where
    a row has none. NaN among numbers is refused: what is not known there has a number, and NaN tends to be an accident.

    Raises:
        ValueError: not one a row; integers below −1, fractions or NaN; the string "-1".
        TypeError: other values, or integers and strings together.
    """
    given = np.asarray(y)
    if given.shape != (n,):
        raise ValueError(f"y has shape {given.shape}, but X has {n} rows. {HINT}")
    if given.dtype.kind in "OUT":
        # NumPy turns all of a list into strings where one is; what is not known is lost then.
        class_codes, values = _objects(given if isinstance(y, np.ndarray) else np.asarray(y, object))
    else:
        values = _numbers(given)
        class_codes = values != -1 if values.dtype != bool else np.ones(n, bool)
    classes, found = np.unique(values[class_codes], return_inverse=True)
    codes = np.full(n, -1, np.int32)
    codes[class_codes] = found
    return Known(codes, classes)


def _numbers(values):
    """Integers of at least −1, or booleans."""
    if values.dtype.kind not in "biuf":
        raise TypeError(f"y has dtype {values.dtype}. {HINT}")
    if values.dtype.kind == "f":
        missing = int(np.isnan(values).sum())
        if missing:
            raise ValueError(f"y holds {missing} NaN. {HINT}")
        broken = values != np.floor(values)
        if broken.any() or np.isinf(values).any():
            what = values[broken][0] if broken.any() else "infinity"
            raise ValueError(f"y holds {what}, which is the number of no class. {HINT}")
        values = values.astype(np.int64)
    if values.size and values.min() < -1:
        raise ValueError(f"y holds {values.min()}: no class has a number below -1. {HINT}")
    return values


def _objects(values):
    """Which values are known, and all of them as strings or integers."""
    values = values.astype(object)
    class_codes = np.array([not _missing(value) for value in values], bool)
    kinds = {type(value).__name__ for value in values[class_codes]}
    if all(isinstance(value, str) for value in values[class_codes]):
        if "-1" in values[class_codes]:
            raise ValueError(f"y holds the string '-1', which could be a class or none. {HINT}")
        return class_codes, np.where(class_codes, values, "").astype(str)
    if all(isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in values[class_codes]):
        return class_codes, _numbers(np.where(class_codes, values, -1).astype(np.int64))
    raise TypeError(f"y holds values of type {', '.join(sorted(kinds))}. {HINT}")


def _missing(value):
    absent = (
        value is None
        or type(value).__name__ == "NAType"
        or (isinstance(value, (float, np.floating)) and np.isnan(value))
    )
    return absent or (isinstance(value, (int, np.integer)) and value == -1)

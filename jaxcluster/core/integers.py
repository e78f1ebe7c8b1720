"""Integers of more digits than float64 holds, such as nanoseconds since 1970: moved before they are made float64."""

from __future__ import annotations

import numpy as np

EXACT = 2**53
"""Integers up to this one are float64 numbers."""


def beyond_float64(x: np.ndarray) -> bool:
    """Whether some entry is an integer that float64 may round."""
    return x.dtype.kind in "iu" and x.dtype.itemsize == 8 and max(abs(int(x.min())), abs(int(x.max()))) > EXACT


def in_float64(x: np.ndarray, origin: np.ndarray | tuple[int, ...] | None = None) -> np.ndarray:
    """(n_samples, n_features) rows minus ``origin`` as float64, of integers without rounding either.

    Args:
        x: rows.
        origin: (n_features,) integers, or None to only convert. Differences beyond 2^53 are rounded once.
    """
    if origin is None:
        return x.astype(np.float64)
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
        column = np.array([int(value) % 2**64 for value in origin], np.uint64)
        differences = (x.astype(np.uint64) - column).astype(np.int64)  # modulo 2^64: right where they are below 2^63
        wide = x.astype(np.float64) - np.array(origin, np.float64)
        return np.where(np.abs(wide) > 2.0**62, wide, differences)
    return (x - np.array(origin, np.longdouble)).astype(np.float64)


def moved_alike(*tables: np.ndarray) -> tuple[np.ndarray, ...]:
    """Tables of one space as float64, moved by a row of the first where float64 would round their integers.

    For what depends on differences of rows alone.
    """
    held = not any(beyond_float64(table) for table in tables)
    origin = None if held else tuple(int(value) for value in tables[0][0])
    return tuple(in_float64(table, origin) for table in tables)

"""The dtype that samples keep after they are read: one that holds every number of the file exactly.

A fit subtracts an origin before it rounds to the precision of its computation (`jaxcluster.core.frame`). What a reader
rounds is lost before that: float32 has steps of 128 at 1.7e9, today's Unix time in seconds, and float64 steps of 128
at 1e18.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxcluster.core.caution import warn

LARGEST_EXACT = 2**53
"""Up to here float64 holds every integer."""

EXTENDED = np.finfo(np.longdouble).nmant >= 63
"""Whether this platform's long double holds every 64-bit integer."""


def exact(array: np.ndarray) -> np.ndarray:
    """Real numbers as float32 or float64, whichever holds them all; as 64-bit integers where neither does.

    Half precision becomes float32, extended precision float64: nothing here is computed in either. But where numbers
    beyond 2⁵³ came in extended precision all stay in it.
    """
    kind, size = array.dtype.kind, array.dtype.itemsize
    if size <= (4 if kind == "f" else 2):
        return np.ascontiguousarray(array, dtype=np.float32)
    if kind in "iu" and size == 8 and not _holds(array):
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    with np.errstate(over="ignore"):  # beyond float64 becomes infinite, which is reported by column
        narrow = np.ascontiguousarray(array, dtype=np.float64)
    if kind == "f" and size > 8 and _long_integers(array, narrow):
        return np.ascontiguousarray(array)
    return narrow


def side_by_side(columns: Sequence[np.ndarray], names: Sequence[str], where: str) -> np.ndarray:
    """(n, d) numbers from columns, (n,) or (n, width), in one dtype that holds them all; ``names`` are for messages.

    Warns where there is none on this platform: integers beyond 2⁵³ beside fractions.
    """
    columns = [exact(column) for column in columns]
    kinds = {column.dtype.kind for column in columns}
    dtype = np.result_type(*columns) if kinds == {"f"} else _integer_dtype(columns)
    if dtype is None:
        dtype = np.dtype(np.longdouble if EXTENDED else np.float64)
    if dtype == np.float64 and kinds != {"f"}:
        long = ", ".join(name for name, each in zip(names, columns, strict=True) if each.dtype.kind != "f")
        message = f"{where}: column {long} has integers beyond 2^53, which are rounded. Subtract one of them from all."
        warn(message, UserWarning)
    x = np.empty((len(columns[0]), sum(_width(column) for column in columns)), dtype)
    start = 0
    for column in columns:
        stop = start + _width(column)
        x[:, start:stop] = column.reshape(len(x), -1)
        start = stop
    return x


def _width(column):
    return 1 if column.ndim == 1 else column.shape[1]


def _integer_dtype(columns):
    """The 64-bit integers that hold all columns; None where some hold fractions, or there are none wide enough."""
    least, most = 0, 0
    for column in columns:
        if column.dtype.kind == "f" and not (np.isfinite(column) & (column == np.rint(column))).all():
            return None
        least, most = min(least, int(column.min())), max(most, int(column.max()))
    for dtype in (np.int64, np.uint64):
        if np.iinfo(dtype).min <= least and most <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return None


def _holds(array):
    """Whether float64 holds every one of these integers."""
    return array.size == 0 or (int(array.min()) >= -LARGEST_EXACT and int(array.max()) <= LARGEST_EXACT)


def _long_integers(array, narrow):
    """Whether numbers beyond 2⁵³ are among these that float64 rounded."""
    return bool(EXTENDED and ((np.abs(array) > LARGEST_EXACT) & np.isfinite(narrow) & (array != narrow)).any())

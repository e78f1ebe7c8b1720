"""Rows of a table encoded for Gower's distance: numbers divided by their range, categories as codes.

>>> scale, rows = encode_gower([["red", 1.0], ["blue", 3.0], ["red", 5.0]])
>>> rows.tolist()
[[1.0, 0.0], [0.0, 0.5], [1.0, 1.0]]
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxcluster.core.dtypes import in_float64
from jaxcluster.datasets.categories import MISSING, MixedColumns, read_mixed
from jaxcluster.ops.gower import ABSENT

PATTERNS = 1 << 10
"""Patterns of missing cells that are compared with all others at a time."""

BEYOND = 2.0
"""Encoding of a number that differs from a column's only value."""


class GowerScale(NamedTuple):
    """Columns of a fit and the ranges of those of numbers: all that new rows need to be encoded alike.

    Attributes:
        columns: of the table.
        low: (d,) least value of each column of numbers.
        half_range: (d,) half its range, which never overflows; 0 for a constant column.
        origin: integers that are subtracted first where float64 does not hold the numbers, or None.
    """

    columns: MixedColumns
    low: np.ndarray
    half_range: np.ndarray
    origin: tuple[int, ...] | None = None

    def check(self, width: int) -> None:
        """Raise ValueError unless it encodes rows of so many columns: for one that was loaded from a file."""
        if not isinstance(self.columns, MixedColumns):
            raise ValueError("the columns of Gower's distance are not described.")
        self.columns.check(width)
        d, origin = len(self.columns.numeric), self.origin
        for values in (self.low, self.half_range):
            if np.shape(values) != (d,) or np.asarray(values).dtype.kind != "f" or not np.isfinite(values).all():
                raise ValueError(f"the ranges are not those of {d} columns of numbers.")
        if not (origin is None or (isinstance(origin, tuple) and len(origin) == d)):
            raise ValueError(f"the origin is not that of {d} columns of numbers.")

    def encode(self, numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """(n, width) encoded rows from numbers and codes."""
        x = in_float64(numbers, self.origin)
        varies = self.half_range > 0
        with np.errstate(invalid="ignore", over="ignore"):
            differences = x / 2 - self.low / 2
            scaled = differences / np.where(varies, self.half_range, 1)
            scaled = np.where(varies, scaled, BEYOND * np.sign(differences))
        rows = np.empty((len(codes), self.columns.width))
        rows[:, self.columns.numeric] = np.where(np.isnan(x), ABSENT, scaled)
        rows[:, list(self.columns.categorical)] = np.where(codes == MISSING, ABSENT, codes)
        return rows

    def embed(self, rows: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """Encoded rows as numbers whose sums of absolute differences are the distances.

        Returns:
            (n, n_columns) numbers, NaN for missing cells, and the names of their columns.
        """
        columns = self.columns
        rows = np.where(rows == ABSENT, np.nan, rows)
        codes = np.nan_to_num(rows[:, list(columns.categorical)], nan=MISSING).astype(np.int32)
        x, names = columns.one_hot(rows[:, columns.numeric], codes, 0.5)
        return x / columns.width, names


def encode_gower(
    X: Any, *, categorical: Any = None, like: GowerScale | None = None, others: Any = None, name: str = "X"
) -> tuple[GowerScale, np.ndarray]:
    """Encode the rows of a table; missing cells are left out of distances.

    Args:
        X: as in `jaxcluster.datasets.categories.read_mixed`.
        categorical: as there.
        like: scale of a fit, for new rows.
        others: more rows of the same columns, which the ranges span too.
        name: of the table in messages.

    Returns:
        The scale, ``like`` itself for new rows, and (n, width) float64 rows for `jaxcluster.ops.gower.gower`.

    Raises:
        ValueError, TypeError: as `read_mixed`; a row without any cell, or two rows without a common column.
    """
    if like is not None:
        _, table = read_mixed(X, like=like.columns, missing=True, name=name)
        return like, like.encode(*table)
    columns, table = read_mixed(X, categorical=categorical, missing=True, name=name)
    numbers = table.numbers
    if others is not None:
        more = read_mixed(others, like=columns, missing=True, unseen="ignore", name="y")[1].numbers
        numbers = np.concatenate([numbers, more])
    whole = numbers.dtype.kind in "iu" or numbers.dtype.itemsize > 8
    origin = tuple(int(value) for value in np.nan_to_num(numbers[0])) if whole and numbers.size else None
    x = in_float64(numbers, origin)
    low, high = np.fmin.reduce(x, axis=0), np.fmax.reduce(x, axis=0)
    low, high = (np.where(np.isnan(each), 0.0, each) for each in (low, high))
    scale = GowerScale(columns, low, high / 2 - low / 2, origin)
    rows = scale.encode(*table)
    check_overlap(rows, name)
    return scale, rows


def check_overlap(rows: np.ndarray, name: str = "X") -> None:
    """Raise ValueError if two encoded rows have no common column, with the first such pair."""
    present = rows != ABSENT
    if present.all(axis=0).any():
        return
    if not present.any(axis=1).all():
        empty = np.flatnonzero(~present.any(axis=1))
        raise ValueError(f"{name} has {len(empty)} rows without any cell, the first is row {empty[0]}. Drop them.")
    patterns, first = np.unique(present, axis=0, return_index=True)
    patterns = patterns.astype(np.float32)
    for start in range(0, len(patterns), PATTERNS):
        apart = np.argwhere(patterns[start : start + PATTERNS] @ patterns.T == 0)
        if len(apart):
            i, j = sorted((int(first[start + apart[0, 0]]), int(first[apart[0, 1]])))
            raise ValueError(
                f"rows {i} and {j} of {name} have no column that both have cells in, so that their distance is "
                "unknown. Drop rows with many missing cells, or fill some."
            )

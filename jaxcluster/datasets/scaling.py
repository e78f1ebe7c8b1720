"""Scaling of columns or rows, kept so that new rows get the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxcluster.core.integers import in_float64
from jaxcluster.datasets.base import DataError, unknown
from jaxcluster.datasets.numbers import exact

SCALINGS = ("standard", "minmax", "l2", "none")

TILE = 1 << 22
"""Cells worked on at a time: bounds the float64 temporaries at 32 MiB."""


class Scaling(NamedTuple):
    """A fitted scaling: ``apply`` it to new rows, ``undo`` it on centers.

    Attributes:
        how: "standard" (mean 0, deviation 1), "minmax" (0 to 1), "l2" (rows of length 1) or "none".
        shift: (d,) float64 subtracted first, None for "l2" and "none".
        factor: (d,) float64 divided by, 1 for a constant column; None likewise.
        origin: d integers subtracted before that, exactly, from rows that float64 does not hold; None for others.
    """

    how: str
    shift: np.ndarray | None = None
    factor: np.ndarray | None = None
    origin: tuple[int, ...] | None = None

    def apply(self, x: np.ndarray) -> np.ndarray:
        """(n, d) scaled rows: float32 where x is, else float64; computed in float64. Rows that stay are x itself.

        NaN stays NaN. Raises DataError for another number of columns than it was fitted on.
        """
        x = self._checked(x)
        if self.how == "none" and self.origin is None:
            return x
        scaled = np.empty(x.shape, np.float32 if x.dtype == np.float32 else np.float64)
        for rows in _tiles(x):
            moved = in_float64(x[rows], self.origin)
            if self.how == "l2":
                moved = _unit(moved)
            elif self.how != "none":
                moved = (moved - self.shift) / self.factor
            scaled[rows] = moved
        return scaled

    def undo(self, x: np.ndarray) -> np.ndarray:
        """(n, d) rows such as centers back in the data's units, float64; "l2" forgot the lengths and undoes nothing."""
        x = np.asarray(self._checked(x), np.float64)
        x = x if self.shift is None else x * self.factor + self.shift
        return x if self.origin is None else x + np.array(self.origin, np.float64)

    def undo_deviations(self, x: np.ndarray) -> np.ndarray:
        """(n, d) standard deviations back in the data's units; those of "l2" stay as they are."""
        x = np.asarray(self._checked(x), np.float64)
        return x if self.factor is None else x * self.factor

    def _checked(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x)
        width = len(self.shift) if self.shift is not None else len(self.origin) if self.origin is not None else None
        if width is not None and (x.ndim != 2 or x.shape[1] != width):
            raise DataError(f"the rows have shape {x.shape}, but the scaling was fitted on {width} columns.")
        return x

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and text, from which `from_json` makes the same scaling again."""
        shift, factor = (None if value is None else value.tolist() for value in (self.shift, self.factor))
        origin = {} if self.origin is None else {"origin": list(self.origin)}
        return {"how": self.how, "shift": shift, "factor": factor, **origin}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Scaling:
        """Raises DataError for what `to_json` does not write."""
        if values.get("how") not in SCALINGS:
            raise unknown("scaling", values.get("how"), SCALINGS)
        numbers = [values.get(name) for name in ("shift", "factor")]
        needed = values["how"] in ("standard", "minmax")
        if any((value is not None) != needed for value in numbers):
            raise DataError(f"a {values['how']} scaling {'needs' if needed else 'has no'} shift and factor.")
        shift, factor = (None if value is None else np.asarray(value, np.float64) for value in numbers)
        origin = values.get("origin")
        return cls(values["how"], shift, factor, None if origin is None else tuple(map(int, origin)))


def scale(x: np.ndarray, how: str, *, missing: bool = False, movable: bool = True) -> tuple[np.ndarray, Scaling]:
    """(n, d) scaled rows, float32 where x is, else float64, and the scaling itself, to be applied to new rows.

    A constant column becomes 0 and a zero row stays 0. Rows that float64 does not hold, such as integers beyond 2⁵³,
    are moved by integers first, but for "l2".

    Args:
        x: (n, d) rows.
        how: one of `SCALINGS`.
        missing: whether NaN are missing values: they stay, and means, deviations and ranges are of the others.
        movable: False leaves rows that are not scaled where they are, for methods that measure from the origin.

    Raises:
        DataError: an unknown ``how``.
        ValueError: missing or infinite values, which would spread to their whole column.
    """
    if how not in SCALINGS:
        raise unknown("scaling", how, SCALINGS)
    x = np.asarray(x)
    scaling = _fit(x, how, missing, movable)
    return scaling.apply(x), scaling


def _fit(x: np.ndarray, how: str, missing: bool, movable: bool) -> Scaling:
    if how == "l2":
        return Scaling(how)
    origin = _origin(x) if how != "none" or movable else None
    if how == "none":
        return Scaling(how, origin=origin)
    from jaxcluster.core.check import check_finite

    check_finite(x, name="the data", missing=missing)
    tiles = [(_low(tile), _high(tile)) for tile in (in_float64(x[rows], origin) for rows in _tiles(x))]
    low, high = (np.array(each).astype(np.float64) for each in zip(*tiles, strict=True))
    low, high = _low(low), _high(high)
    constant = ~(low < high)  # NaN where a column has no value at all
    low = np.where(np.isnan(low), 0.0, low)
    if how == "minmax":
        return Scaling(how, low, np.where(constant, 1.0, high - low), origin)
    # From differences to an entry of the column, and in units of its range: a sum of numbers near 1e9 would lose the
    # digits that differ, and squares of large or small ones over- or underflow.
    width = np.where(constant, 1.0, high - low)

    def parts() -> Iterator[np.ndarray]:
        return ((in_float64(x[rows], origin) - low) / width for rows in _tiles(x))

    counts = np.maximum(sum((~np.isnan(part)).sum(0) for part in parts()), 1)
    mean = sum(np.nansum(part, axis=0) for part in parts()) / counts
    deviation = np.sqrt(sum(np.nansum(np.square(part - mean), axis=0) for part in parts()) / counts)
    constant |= deviation == 0
    shift, factor = low + mean * width, np.where(constant, 1.0, deviation * width)
    return Scaling(how, np.where(constant, low, shift), factor, origin)


def _origin(x: np.ndarray) -> tuple[int, ...] | None:
    """An integer of each column where the rows are in a dtype that float64 does not hold; else None."""
    return tuple(int(value) for value in x[len(x) // 2]) if exact(x).dtype not in (np.float32, np.float64) else None


def _low(x: np.ndarray) -> np.ndarray:
    return np.fmin.reduce(x, axis=0)


def _high(x: np.ndarray) -> np.ndarray:
    return np.fmax.reduce(x, axis=0)


def _tiles(x: np.ndarray) -> Iterator[slice]:
    step = max(1, TILE // max(1, x.shape[1]))
    return (slice(start, start + step) for start in range(0, len(x), step))


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1, by way of rows whose largest entry is 1: squares of others might over- or underflow."""
    largest = np.max(np.abs(rows), axis=1, keepdims=True, initial=0)
    rows = rows / np.where(largest > 0, largest, 1)
    length = np.sqrt(np.square(rows).sum(1, keepdims=True))
    return rows / np.where(length > 0, length, 1)

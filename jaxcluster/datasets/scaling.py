"""Scaling of columns or rows, kept so that new rows get the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxcluster.datasets.base import DataError, unknown

SCALINGS = ("standard", "minmax", "l2", "none")

TILE = 1 << 22
"""Cells worked on at a time: bounds the float64 temporaries at 32 MiB."""


class Scaling(NamedTuple):
    """A fitted scaling: ``apply`` it to new rows, ``undo`` it on centers.

    Attributes:
        how: "standard" (mean 0, deviation 1), "minmax" (0 to 1), "l2" (rows of length 1) or "none".
        shift: (d,) float64 subtracted first, None for "l2" and "none".
        factor: (d,) float64 divided by, 1 for a constant column; None likewise.
    """

    how: str
    shift: np.ndarray | None = None
    factor: np.ndarray | None = None

    def apply(self, x: np.ndarray) -> np.ndarray:
        """(n, d) scaled rows, float32. Raises DataError for another number of columns than it was fitted on."""
        x = self._checked(x)
        if self.how == "none":
            return x.astype(np.float32)
        scaled = np.empty(x.shape, np.float32)
        for rows in _tiles(x):
            scaled[rows] = _unit(x[rows]) if self.how == "l2" else (x[rows] - self.shift) / self.factor
        return scaled

    def undo(self, x: np.ndarray) -> np.ndarray:
        """(n, d) rows such as centers back in the data's units, float32; "l2" forgot the lengths and undoes nothing."""
        x = self._checked(x)
        return (x if self.shift is None else x * self.factor + self.shift).astype(np.float32)

    def _checked(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x)
        if self.shift is not None and (x.ndim != 2 or x.shape[1] != len(self.shift)):
            raise DataError(f"the rows have shape {x.shape}, but the scaling was fitted on {len(self.shift)} columns.")
        return x

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and text, from which `from_json` makes the same scaling again."""
        shift, factor = (None if value is None else value.tolist() for value in (self.shift, self.factor))
        return {"how": self.how, "shift": shift, "factor": factor}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Scaling:
        """Raises DataError for what `to_json` does not write."""
        if values.get("how") not in SCALINGS:
            raise unknown("scaling", values.get("how"), SCALINGS)
        numbers = [values.get(name) for name in ("shift", "factor")]
        needed = values["how"] in ("standard", "minmax")
        if any((value is not None) != needed for value in numbers):
            raise DataError(f"a {values['how']} scaling {'needs' if needed else 'has no'} shift and factor.")
        return cls(values["how"], *(None if value is None else np.asarray(value, np.float64) for value in numbers))


def scale(x: np.ndarray, how: str) -> tuple[np.ndarray, Scaling]:
    """(n, d) scaled rows, float32, and the scaling itself, to be applied to new rows.

    A constant column becomes 0 and a zero row stays 0. Raises DataError for an unknown ``how``, and ValueError for
    missing or infinite values, which would spread to their whole column.
    """
    if how not in SCALINGS:
        raise unknown("scaling", how, SCALINGS)
    x = np.asarray(x)
    scaling = _fit(x, how)
    return scaling.apply(x), scaling


def _fit(x: np.ndarray, how: str) -> Scaling:
    if how in ("l2", "none"):
        return Scaling(how)
    from jaxcluster.core.check import check_finite

    check_finite(x, name="the data")
    low, high = x.min(0).astype(np.float64), x.max(0).astype(np.float64)
    shift, factor = low, high - low
    if how == "standard":
        shift = np.where(low == high, low, sum(x[rows].sum(0, dtype=np.float64) for rows in _tiles(x)) / len(x))
        factor = np.sqrt(sum(np.square(x[rows] - shift).sum(0) for rows in _tiles(x)) / len(x))
    return Scaling(how, shift, np.where(low == high, 1.0, factor))


def _tiles(x: np.ndarray) -> Iterator[slice]:
    step = max(1, TILE // max(1, x.shape[1]))
    return (slice(start, start + step) for start in range(0, len(x), step))


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; float64 holds the square of any float32."""
    rows = rows.astype(np.float64)
    length = np.sqrt(np.square(rows).sum(1, keepdims=True))
    return rows / np.where(length > 0, length, 1)

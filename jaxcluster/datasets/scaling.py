"""Scaling of columns or rows, stored so that it can be applied to new samples.

>>> scaled, scaling = scale(np.array([[0.0], [4.0]]), "standard")
>>> scaled.tolist(), scaling.undo(np.array([[1.0]])).tolist()
([[-1.0], [1.0]], [[4.0]])
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from jaxcluster.core.dtypes import in_float64
from jaxcluster.core.sparse_input import unit_sparse_rows
from jaxcluster.datasets.base import DataError, to_exact_dtype, unknown_name
from jaxcluster.types import Absent

SCALINGS = ("standard", "minmax", "l2", "none")
AFFINE = SCALINGS[:2]
"""Scalings by a shift and a factor for each feature."""

SPARSE_SCALINGS = ("l2", "none")
"""Those that keep zeros, and so sparse rows sparse."""

WORDS_VARIANCE = 0.5
"""Variance of all columns of 0 and 1 of one column of words, where each column of numbers has 1.

Rows of one word have distance 0 to each other in them, which numbers almost never have: with the same variance such
clumps would decide the clusters. Hennig and Liao (2013) take one half of it for categories without an order.
"""

TILE_CELLS = 1 << 22
"""Matrix entries per tile: bounds the float64 temporaries at 32 MiB."""


class Scaling(NamedTuple):
    """A fitted scaling: ``apply`` it to new samples, ``undo`` it on centers.

    Attributes:
        how: "standard" (mean 0, standard deviation 1), "minmax" (0 to 1), "l2" (rows of length 1) or "none".
        shift: (n_features,) float64 that is subtracted; None for "l2" and "none".
        factor: (n_features,) float64 divisor, 1 for a constant column; None for "l2" and "none".
        origin: n_features integers, subtracted first and exactly from samples that float64 does not hold, or None.
    """

    how: str
    shift: np.ndarray | None = None
    factor: np.ndarray | Absent = None
    origin: tuple[int, ...] | None = None

    def check(self, width: int) -> None:
        """Raise ValueError unless it scales rows of so many features: for one that was loaded from a file."""
        for values in (self.shift, self.factor):
            if self.how not in AFFINE:
                fits = values is None
            else:
                numbers = np.asarray(values)
                fits = numbers.shape == (width,) and numbers.dtype.kind == "f" and bool(np.isfinite(numbers).all())
                fits &= values is not self.factor or bool((numbers > 0).all())
            if not fits:
                raise DataError(f"a scaling by {self.how!r} does not fit {width} columns, or holds NaN or infinity.")
        origin = self.origin
        whole = origin is None or (isinstance(origin, tuple) and all(type(each) is int for each in origin))
        if self.how not in SCALINGS or not whole or (origin is not None and len(origin) != width):
            raise DataError(f"a scaling by {self.how!r} does not fit {width} columns.")

    def apply(self, x: Any) -> Any:
        """Scaled samples, computed in float64: float32 if x is, else float64. "none" returns x itself.

        NaN stays NaN. Raises DataError for another number of features than it was fitted on.
        """
        x = self._checked(x)
        if self.how == "none" and self.origin is None:
            return x
        if scipy.sparse.issparse(x):
            return unit_sparse_rows(x).astype(np.float32 if x.dtype == np.float32 else np.float64)
        scaled = np.empty(x.shape, np.float32 if x.dtype == np.float32 else np.float64)
        # By tiles: a float64 copy of float32 samples would take twice their memory.
        for rows in _tiles(x):
            tile = in_float64(x[rows], self.origin)
            if self.how == "l2":
                tile = _normalize(tile)
            elif self.how != "none":
                tile = (tile - self.shift) / self.factor
            scaled[rows] = tile
        return scaled

    def undo(self, x: np.ndarray) -> np.ndarray:
        """Samples or centers in the units of the data, float64; "l2" has lost the lengths, and undoes nothing."""
        x = np.asarray(self._checked(x), np.float64)
        x = x if self.shift is None else x * self.factor + self.shift
        return x if self.origin is None else x + np.array(self.origin, np.float64)

    def undo_deviations(self, x: np.ndarray) -> np.ndarray:
        """(n, d) standard deviations in the units of the data; unchanged for "l2"."""
        x = np.asarray(self._checked(x), np.float64)
        return x if self.factor is None else x * self.factor

    def _checked(self, x: Any) -> Any:
        if not scipy.sparse.issparse(x):
            x = np.asarray(x)
        elif self.how not in SPARSE_SCALINGS or self.origin is not None:
            raise DataError(f"{self.how} scaling makes sparse rows dense: scale them by 'l2', or not at all.")
        width = len(self.shift) if self.shift is not None else len(self.origin) if self.origin is not None else None
        if width is not None and (x.ndim != 2 or x.shape[1] != width):
            raise DataError(f"the rows have shape {x.shape}, but the scaling was fitted on {width} columns.")
        return x

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and text for JSON; `from_json` restores the scaling."""
        shift, factor = (None if value is None else value.tolist() for value in (self.shift, self.factor))
        origin = {} if self.origin is None else {"origin": list(self.origin)}
        return {"how": self.how, "shift": shift, "factor": factor, **origin}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Scaling:
        """Restore a scaling from `to_json`. Raises DataError for other values."""
        if values.get("how") not in SCALINGS:
            raise unknown_name("scaling", values.get("how"), SCALINGS)
        numbers = [values.get(name) for name in ("shift", "factor")]
        needed = values["how"] in ("standard", "minmax")
        if any((value is not None) != needed for value in numbers):
            raise DataError(f"a {values['how']} scaling {'needs' if needed else 'has no'} shift and factor.")
        shift, factor = (None if value is None else np.asarray(value, np.float64) for value in numbers)
        origin = values.get("origin")
        return cls(values["how"], shift, factor, None if origin is None else tuple(map(int, origin)))


def scale(
    x: Any, how: str, *, missing: bool = False, movable: bool = True, groups: Sequence[slice] = ()
) -> tuple[Any, Scaling]:
    """Scale samples. A constant column becomes 0 and a zero row stays 0.

    Except for "l2", an integer origin is first subtracted from samples that float64 does not hold, such as integers
    beyond 2⁵³.

    Args:
        x: (n_samples, n_features), dense, or a CSR array for "l2" and "none".
        how: one of `SCALINGS`.
        missing: NaN are missing values: they remain, and means, deviations and ranges ignore them.
        groups: columns of the codes of one column of words each. "standard" gives each group the variance
            `WORDS_VARIANCE`, by one divisor for all its columns.
        movable: False subtracts no origin for "none", for methods that depend on the origin.

    Returns:
        Scaled samples, float32 if x is, else float64, and the `Scaling`, to be applied to new samples.

    Raises:
        DataError: an unknown ``how``.
        ValueError: missing or infinite values, which would spread to their whole column.
    """
    if how not in SCALINGS:
        raise unknown_name("scaling", how, SCALINGS)
    if scipy.sparse.issparse(x):
        scaling = Scaling(how)
        return scaling.apply(x), scaling
    x = np.asarray(x)
    scaling = _fit(x, how, missing, movable)
    if how == "standard" and groups:
        scaling = scaling._replace(factor=_group_factors(x, scaling.factor, groups))
    return scaling.apply(x), scaling


def _group_factors(x: np.ndarray, factor: Any, groups: Sequence[slice]) -> np.ndarray:
    """Divisors with which the variances of the columns of a group add up to `WORDS_VARIANCE`.

    Divided each by its own deviation, the columns of m words would have variance m, and rows of a rare word would lie
    far from all others. One divisor for all keeps the distances between any two words alike.

    Source: C. Hennig and T. F. Liao, How to find an appropriate clustering for mixed-type variables with application to
    socio-economic stratification, Journal of the Royal Statistical Society C 62 (2013).
    """
    factor = np.array(factor, np.float64)
    for group in groups:
        variance = np.nanvar(np.asarray(x[:, group], np.float64), axis=0).sum()
        factor[group] = np.sqrt(variance / WORDS_VARIANCE) if variance > 0 else 1.0
    return factor


def _fit(x: np.ndarray, how: str, missing: bool, movable: bool) -> Scaling:
    if how == "l2":
        return Scaling(how)
    origin = _origin(x) if how != "none" or movable else None
    if how == "none":
        return Scaling(how, origin=origin)
    from jaxcluster.core.validation import check_finite

    check_finite(x, name="the data", missing=missing)
    tiles = (in_float64(x[rows], origin) for rows in _tiles(x))
    ranges = [(np.fmin.reduce(tile, axis=0), np.fmax.reduce(tile, axis=0)) for tile in tiles]
    low, high = (np.array(each).astype(np.float64) for each in zip(*ranges, strict=True))
    low, high = np.fmin.reduce(low, axis=0), np.fmax.reduce(high, axis=0)
    constant = ~(low < high)  # true for the NaN of a column without any value
    low = np.where(np.isnan(low), 0.0, low)
    if how == "minmax":
        return Scaling(how, low, np.where(constant, 1.0, high - low), origin)
    # Relative to the minimum and in units of the range: sums of numbers near 1e9 would lose the digits that differ, and
    # squares of large or small numbers would over- or underflow.
    width = np.where(constant, 1.0, high - low)

    def unit_tiles() -> Iterator[np.ndarray]:
        return ((in_float64(x[rows], origin) - low) / width for rows in _tiles(x))

    counts = np.maximum(sum((~np.isnan(tile)).sum(0) for tile in unit_tiles()), 1)
    mean = sum(np.nansum(tile, axis=0) for tile in unit_tiles()) / counts
    # A second pass, from differences to the mean: E[x²] − mean² would cancel.
    deviation = np.sqrt(sum(np.nansum(np.square(tile - mean), axis=0) for tile in unit_tiles()) / counts)
    constant |= deviation == 0
    shift, factor = low + mean * width, np.where(constant, 1.0, deviation * width)
    return Scaling(how, np.where(constant, low, shift), factor, origin)


def _origin(x: np.ndarray) -> tuple[int, ...] | None:
    """One integer sample as the origin of data that float64 does not hold; None for other data."""
    return (
        tuple(int(value) for value in x[len(x) // 2])
        if to_exact_dtype(x).dtype not in (np.float32, np.float64)
        else None
    )


def _tiles(x: np.ndarray) -> Iterator[slice]:
    step = max(1, TILE_CELLS // max(1, x.shape[1]))
    return (slice(start, start + step) for start in range(0, len(x), step))


def _normalize(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1. They are first divided by their largest entry, as squares might over- or underflow."""
    largest = np.max(np.abs(rows), axis=1, keepdims=True, initial=0)
    rows = rows / np.where(largest > 0, largest, 1)
    length = np.sqrt(np.square(rows).sum(1, keepdims=True))
    return rows / np.where(length > 0, length, 1)

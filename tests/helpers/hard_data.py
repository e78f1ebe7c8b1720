"""Samples nobody looked at, with their right labels: other dtypes and units, offsets, far samples, odd columns.

Every problem begins as blobs whose coordinates are multiples of 2⁻⁸: an offset below 2⁴⁴ and a power of two are exact
in float64, and an offset of 1e4 is exact in float32, so that the moved samples hold the same problem and its labels
must be the same. The blobs lie eight standard deviations apart, so any method that sees them finds them; `crowded`
ones overlap, and `lloyd` says what their labels are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import ml_dtypes
import numpy as np

D = 4
"""Features of all problems but bits: one shape compiles once."""

GRID = 256.0
"""Coordinates are multiples of 1/GRID."""

FLOATS = (np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.longdouble)
INTEGERS = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
FAR = (1e3, 1e5, 1e6, 1e9, 1e12)
"""Distances of a far sample, in standard deviations of a blob."""


class Problem(NamedTuple):
    """Samples and what is known of them.

    Attributes:
        x: (n_samples, n_features), float64 unless the problem is about another dtype.
        y: (n_samples,) the group of each sample, 0 … k − 1; groups are numbered by where they begin.
        start: (k, n_features) float64, a sample of each group: centers to start from.
        unit: the length that one standard deviation of a blob has become.
        bound: what a float32 fit may not be able to tell apart, in standard deviations: coordinates over 2²⁴.
    """

    x: np.ndarray
    y: np.ndarray
    start: np.ndarray
    unit: float = 1.0
    bound: float = 0.0

    @property
    def k(self) -> int:
        """Groups."""
        return len(self.start)


def blobs(k: int = 3, size: int = 40, *, separation: float = 8.0, seed: int = 0, d: int = D) -> Problem:
    """Groups of equal size, ``separation`` standard deviations from each other at least."""
    rng = np.random.default_rng(seed)
    corners = np.array([[(i >> j) & 1 for j in range(d)] for i in range(2**d)], float)
    centers = separation * corners[rng.permutation(2**d)[:k]]
    y = np.repeat(np.arange(k), size)
    x = np.round((centers[y] + rng.normal(size=(len(y), d))) * GRID) / GRID
    order = rng.permutation(len(y))
    return numbered(x[order], y[order])


def crowded(k: int = 3, size: int = 40, *, seed: int = 0) -> Problem:
    """Groups that overlap, with the labels that Lloyd's iteration comes to from the start."""
    problem = blobs(k, size, separation=3.0, seed=seed)
    return problem._replace(y=lloyd(problem.x, problem.start)[0])


def numbered(x: np.ndarray, groups: np.ndarray, *, unit: float = 1.0, bound: float = 0.0) -> Problem:
    """A problem whose groups are numbered by their first samples, which are the start."""
    _, first, y = np.unique(groups, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return Problem(x, rank[y], np.asarray(x[np.sort(first)], np.float64), unit, bound)


# dtype --------------------------------------------------------------------------------------------------------------


def in_dtype(problem: Problem, dtype) -> Problem:
    """The samples rounded to a dtype; to integers, eight times as large and without negative numbers."""
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        unit = 4.0 if dtype.itemsize == 1 else 8.0
        x = np.round((problem.x - problem.x.min()) * unit)
        return numbered(x.astype(dtype), problem.y, unit=unit)
    return numbered(problem.x.astype(dtype), problem.y)


def bits(size: int = 40, *, d: int = 12, seed: int = 0) -> Problem:
    """Booleans: three patterns that have nothing in common, in which every twelfth bit is wrong."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(3), size))
    patterns = np.repeat(np.eye(3, dtype=bool), d // 3, axis=1)
    return numbered(patterns[y] ^ (rng.random((len(y), d)) < 1 / 12), y)


# units --------------------------------------------------------------------------------------------------------------


def in_unit(problem: Problem, unit: float) -> Problem:
    """The samples in another unit; a power of two changes no digit."""
    return problem._replace(x=problem.x * unit, start=problem.start * unit, unit=problem.unit * unit)


# Offsets and far samples --------------------------------------------------------------------------------------------


def at(problem: Problem, offset: float | np.ndarray, dtype=np.float64) -> Problem:
    """The samples moved; exact for offsets of the sizes that the module names."""
    x = (problem.x + offset).astype(dtype)
    if not np.array_equal(x.astype(np.float64) - offset, problem.x):
        raise ValueError(f"an offset of {offset} is not exact in {np.dtype(dtype)}.")
    return problem._replace(x=x, start=problem.start + offset)


def with_far_sample(problem: Problem, distance: float, *, place: int = 0, axis: int | None = None) -> Problem:
    """One sample more, a group of its own, along all axes or one."""
    direction = np.ones(problem.x.shape[1]) if axis is None else np.eye(problem.x.shape[1])[axis]
    x = np.insert(problem.x, place, distance * direction, axis=0)
    return numbered(x, np.insert(problem.y, place, problem.k))


def two_far_groups(problem: Problem, distance: float, *, axis: int | None = None) -> Problem:
    """Half of the groups far on one side, half on the other: no origin is near all of them."""
    direction = np.ones(problem.x.shape[1]) if axis is None else np.eye(problem.x.shape[1])[axis]
    side = np.where(problem.y < problem.k // 2, -1.0, 1.0)
    return numbered(problem.x + distance * side[:, None] * direction, problem.y, bound=distance / 2**24)


# Odd columns --------------------------------------------------------------------------------------------------------


def odd_columns(problem: Problem, *, seed: int = 0) -> Iterator[tuple[str, Problem]]:
    """Problems with one column more that is unlike the others; what it is, and the problem."""
    rng = np.random.default_rng(seed)
    n = len(problem.x)
    yield "a constant of 1e9", _joined(problem, np.full(n, 1e9))
    yield "a constant of 1e12", _joined(problem, np.full(n, 1e12))
    seconds = 1_700_000_000 + np.round(rng.normal(size=n) * GRID) / GRID
    yield "epoch seconds within seconds", _joined(problem, seconds)
    flag = np.empty(n, int)  # half of each group, so that all clusters have one size
    flag[np.argsort(problem.y, kind="stable")] = np.arange(n) % 2
    yield "0 or 1e5", _joined(problem, flag * 1e5, problem.y + problem.k * flag, bound=1e5 / 2**24)
    sentinel = np.zeros(n)
    odd = rng.choice(n, 3, replace=False)
    sentinel[odd] = 1e9
    groups = problem.y.copy()
    groups[odd] = problem.k
    # Of the three samples nothing is asked but that they are together: in float32 they are one place.
    yield "a sentinel of 1e9 in three samples", _joined(problem, sentinel, groups)
    yield "a unit of 1e-9", _joined(problem, rng.normal(size=n) * 1e-9)


def unusual(problem: Problem) -> dict[str, Problem]:
    """The samples in other number types and units, and with what a fit in float32 must not be led astray by."""
    return {
        "float16": in_dtype(problem, np.float16),
        "bfloat16": in_dtype(problem, ml_dtypes.bfloat16),
        "longdouble": in_dtype(problem, np.longdouble),
        "uint8": in_dtype(problem, np.uint8),
        "1e30": in_unit(problem, 1e30),
        "1e-30": in_unit(problem, 1e-30),
        "offset of 1e12": at(problem, 1e12),
        "float32 offset of 1e4": at(problem, 1e4, np.float32),
        "constant column": dict(odd_columns(problem))["a constant of 1e12"],
        "far row": with_far_sample(problem, 1e9, place=7),
    }


def _joined(problem, column, groups=None, bound=0.0):
    x = np.column_stack([problem.x, column])
    return numbered(x, problem.y if groups is None else groups, bound=bound)


# Oracles in float64, by differences ---------------------------------------------------------------------------------


def squared_distances(x: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """‖x − c‖² of every pair by differences, in long double where the platform has it."""
    x, centers = np.asarray(x, np.longdouble), np.asarray(centers, np.longdouble)
    return np.square(x[:, None, :] - centers[None, :, :]).sum(axis=2)


def means(x: np.ndarray, labels: np.ndarray, k: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Weighted means of the clusters; those of empty ones are NaN."""
    x = np.asarray(x, np.longdouble)
    weights = np.ones(len(x)) if weights is None else np.asarray(weights, np.longdouble)
    members = (labels[:, None] == np.arange(k)) * weights[:, None]
    with np.errstate(invalid="ignore"):
        return members.T @ x / members.sum(axis=0)[:, None]


def lloyd(x: np.ndarray, start: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, float]:
    """Lloyd's iteration, run until labels repeat; no cluster may become empty.

    Returns:
        Labels, centers and inertia.
    """
    labels, centers = None, np.asarray(start, np.longdouble)
    while True:
        squares = squared_distances(x, centers)
        last, labels = labels, squares.argmin(axis=1)
        if last is not None and np.array_equal(last, labels):
            break
        centers = means(x, labels, len(centers), weights)
    costs = squares.min(axis=1) * (1 if weights is None else weights)
    return labels, centers.astype(np.float64), float(costs.sum())


def inertia(x: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Σ w·‖x − c‖² about the means of the clusters."""
    centers = means(x, labels, int(labels.max()) + 1, weights)
    squares = np.square(np.asarray(x, np.longdouble) - centers[labels]).sum(axis=1)
    return float((squares * (1 if weights is None else weights)).sum())


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    """True if two labelings differ only in the numbers of their clusters."""
    pairs = np.unique(np.column_stack([np.asarray(a), np.asarray(b)]), axis=0)
    return len(pairs) == len(np.unique(a)) == len(np.unique(b))

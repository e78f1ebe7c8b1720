"""The distances that k-medoids looks at: those of a few rows all at once, and of rows from their medoids."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxcluster.core import memory, validation
from jaxcluster.ops.distance import (
    DIFFERENCE_COLUMNS,
    TRANSLATION_INVARIANT,
    distances_between,
    metric_function,
    plain_metric,
    refined_sqeuclidean,
)
from jaxcluster.ops.metric_space import checked_distances, float64_tables, host_distance, tiles
from jaxcluster.ops.precomputed import check_distances
from jaxcluster.types import Array, Float, Int

COPIES, GIVEN_COPIES = 1.2, 3
"""Tables of all distances that exist at a time where they are computed, and where they are given (measured)."""

PRECOMPUTED = "precomputed"

HOST_WORK = 1 << 22
"""Differences, n²·d, up to which the host computes the distances of all pairs, in float64."""

BUDGET = 1 << 19
"""Distances that are computed at a time, and stay in a core's cache while they are looked at for rounding."""

SAMPLE = 64
"""Rows whose distances tell the unit of all of them."""

UNSCALED_EXPONENTS = 20
"""Median distances between 2⁻²⁰ and 2²⁰ keep their unit: sums are far from the limits of float32."""

LARGEST_EXPONENT = 80
"""No distance is above 2⁸⁰: sums of 2²⁴ of them by weights around 1 are finite in float32."""


def check_metric(metric: str | Callable, p: float) -> None:
    """Raises ValueError for an unknown name, or p < 1 for "minkowski"."""
    plain_metric(metric, p, also=(PRECOMPUTED,))


def length_of(metric: str | Callable) -> int:
    """The power of the unit of rows that distances are in."""
    return {"sqeuclidean": 2}.get(metric, 1 if metric in TRANSLATION_INVARIANT else 0)


def check_memory(n: int, table: int, dtype: np.dtype, *, given: bool) -> None:
    """Raises MemoryError where the distances of n rows, in a table of so many, take more than there is."""
    memory.check(
        (GIVEN_COPIES if given else COPIES) * table**2 * np.dtype(dtype).itemsize,
        f"the distances of all pairs of {n:,} rows",
        "Use kmedoids.clara (method='clara' of the estimator), which looks at samples of the rows, or pass fewer rows.",
    )


def checked_matrix(x) -> Array | np.ndarray:
    """(n, n) finite, symmetric, non-negative distances; of traced ones only the shape is looked at.

    Raises:
        ValueError, TypeError: what is wrong, and where.
    """
    if scipy.sparse.issparse(x):
        raise TypeError(
            "metric='precomputed' takes dense distances here: k-medoids needs those of all pairs, and what a sparse "
            "matrix leaves out is infinite. Pass a dense matrix."
        )
    x = validation.check_matrix(x)
    traced = validation.is_traced(x)
    if not traced:
        x = np.asarray(x)
        validation.check_finite(x, name="distances")
    if x.shape[0] != x.shape[1]:
        raise ValueError(f"metric='precomputed' needs a square matrix of distances, got shape {x.shape}.")
    return x if traced else check_distances(x)


def pairs_tile(n: int) -> int:
    """How many of n rows are compared with all at once; a divisor of n if there is one that is nearly as large.

    Tiles that stand over the matrix would be cut off by a copy of it, for half the time again.
    """
    most = min(n, max(1, BUDGET // n))
    return next((size for size in range(most, most // 2, -1) if n % size == 0), most)


def pairwise(x: Float[Array, "n d"], metric: str | Callable, p: float) -> Float[Array, "n n"]:
    """Distances of all pairs of rows, computed in tiles; 0 from a row to itself whatever rounding says."""
    n = x.shape[0]
    function = metric_function(metric, p=p)
    refined = _refined(metric, x.shape[1])
    distances_of = partial(distances_between, function) if refined is None else refined
    tile = pairs_tile(n)
    count = -(-n // tile)
    rows = jnp.pad(x, ((0, count * tile - n), (0, 0)))

    def some(start):
        part = jax.lax.dynamic_slice_in_dim(rows, start, tile)
        own = (start + jnp.arange(tile, dtype=jnp.int32))[:, None] == jnp.arange(n, dtype=jnp.int32)[None, :]
        return distances_of(part, x, own)

    # Every tile is written to its place at once: putting a first one before the others would copy all of them.
    distances = jax.lax.map(some, tile * jnp.arange(count, dtype=jnp.int32)).reshape(-1, n)
    return distances if len(distances) == n else distances[:n]


def _refined(metric, d):
    """The function of rows in a frame, whose origin is that of their expanded squares; None for another metric."""
    if metric not in ("euclidean", "sqeuclidean") or d <= DIFFERENCE_COLUMNS:
        return None

    def distances(a, b, same):
        squares = refined_sqeuclidean(a, b, None, same)
        return squares if metric == "sqeuclidean" else jnp.sqrt(squares)

    return distances


def host_matrix(rows_of: Callable[[np.ndarray], np.ndarray], n: int, size: int, dtype: np.dtype) -> tuple[Array, int]:
    """Distances that the host knows or computes, on the device and filled up to ``size`` rows with zeros.

    They are times the power of two, whose exponent is returned, that brings the median of a few of them near 1: in
    another unit float32 would not hold them, or not their sums.
    """
    sample = rows_of(np.arange(SAMPLE) * n // SAMPLE if n > SAMPLE else np.arange(n))
    positive = np.sort(sample[sample > 0])
    typical = -int(np.frexp(positive[len(positive) // 2])[1]) if positive.size else 0
    exponent = 0 if abs(typical) <= UNSCALED_EXPONENTS else typical
    while True:
        out, largest = np.zeros((size, size), dtype), 0.0
        for index in tiles(n):
            part = rows_of(index)
            largest = max(largest, float(part.max()))
            with np.errstate(over="ignore", under="ignore"):
                out[index, :n] = np.ldexp(part, exponent)
        np.fill_diagonal(out, 0)
        bound = LARGEST_EXPONENT - int(np.frexp(largest)[1])
        if exponent <= bound:
            return jax.device_put(out), exponent
        exponent = bound  # far rows among near ones: sums of all distances have to be finite


def own_distances(
    x: Float[Array, "n d"], medoids: Int[Array, " n"], metric: str | Callable, p: float
) -> Float[Array, " n"]:
    """Distance of each row to the row of the given number, from differences where the metric has them."""
    distances_of = metric_function(metric, p=p)
    own = jax.vmap(lambda row, medoid: distances_of(row[None], medoid[None])[0, 0])(x, x[medoids])
    return jnp.where(medoids == jnp.arange(x.shape[0], dtype=medoids.dtype), 0, own)


def measured_from(metric: str | Callable, x: np.ndarray, others: np.ndarray, *, p: float = 2.0) -> np.ndarray:
    """(n, m) float64 distances of concrete rows from others, a tile of rows at a time.

    Raises:
        ValueError: a function gives another shape, NaN or something negative.
    """
    others, x = float64_tables(metric, np.asarray(others), np.asarray(x))
    function = host_distance(metric, np.concatenate([others, x[:5]]), p=p)
    return np.concatenate(
        [checked_distances(function, x[index], others, index) for index in tiles(len(x), len(others))]
    )

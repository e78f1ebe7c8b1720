"""Distances of k-medoids: the matrix of all pairs, and distances from rows to medoids."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxcluster.core import memory, validation
from jaxcluster.core.sparse_input import as_csr
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.ops.distance import (
    DIFFERENCE_COLUMNS,
    TRANSLATION_INVARIANT,
    distances_between,
    metric_function,
    refined_sqeuclidean,
)
from jaxcluster.ops.metric_space import checked_distances, float64_tables, host_distance, tiles
from jaxcluster.ops.precomputed import check_distances
from jaxcluster.ops.sparse_distance import distances_to_all
from jaxcluster.types import Array, Float, Int, Published

PEAK_MATRICES, PRECOMPUTED_PEAK_MATRICES = 1.2, 3
"""Peak memory of a fit in matrices of all pairs, measured: with computed and with precomputed distances."""

PRECOMPUTED = "precomputed"
"""Name of the metric of given distances."""

BUDGET = 1 << 19
"""Distances of one tile: they stay in a core's cache while their rounding is checked."""

SAMPLE_ROWS = 64
"""Number of sampled rows for the typical distance."""

UNSCALED_EXPONENTS = 20
"""Largest |exponent| of the typical distance with no change of unit: sums stay far from the limits of float32."""

LARGEST_EXPONENT = 80
"""Bound on the exponent of a rescaled distance: a sum of 2²⁴ distances of 2⁸⁰ is finite in float32."""


def distance_degree(metric: str | Callable) -> int:
    """Degree of distances in the unit of the rows: 2 for squares, 0 for angles and the like."""
    return 2 if metric == "sqeuclidean" else int(metric in TRANSLATION_INVARIANT)


def check_memory(n: int, table: int, dtype: np.dtype, *, precomputed: bool) -> None:
    """Raise MemoryError if the distances of n rows, in a matrix of ``table`` rows, do not fit."""
    memory.check(
        (PRECOMPUTED_PEAK_MATRICES if precomputed else PEAK_MATRICES) * table**2 * np.dtype(dtype).itemsize,
        f"the distances of all pairs of {n:,} rows",
        "Use kmedoids.clara (method='clara' of the estimator), which takes samples of the rows, or pass fewer rows.",
    )


def check_precomputed(x: Any) -> Published:
    """(n, n) finite, symmetric, non-negative distances; of traced ones only the shape is checked.

    Raises:
        ValueError, TypeError: a defect of the matrix, and its entry.
    """
    if scipy.sparse.issparse(x):
        raise TypeError(
            "metric='precomputed' takes dense distances here: k-medoids needs those of all pairs, and a missing entry "
            "of a sparse matrix is infinite. Pass a dense matrix."
        )
    x = validation.check_matrix(x)
    traced = validation.is_traced(x)
    if not traced:
        x = np.asarray(x)
        validation.check_finite(x, name="distances")
    if x.shape[0] != x.shape[1]:
        raise ValueError(f"metric='precomputed' needs a square matrix of distances, got shape {x.shape}.")
    return x if traced else check_distances(x)


def check_medoid_rows(x: Any) -> Any:
    """Samples of either kind: a matrix, or a canonical CSR matrix, which must be concrete.

    Raises:
        ValueError, TypeError: see `jaxcluster.core.validation.check_matrix`; traced sparse rows.
    """
    if not is_sparse(x):
        return validation.check_matrix(x)
    if validation.is_traced(x):
        raise TypeError(
            "x is sparse and traced, and k-medoids computes distances of sparse rows on the host. Call it outside jit, "
            "vmap and grad, or pass dense rows."
        )
    return as_csr(x)


def tile_divisor(n: int) -> int:
    """Rows of one tile of all pairs: a divisor of n if one is nearly as large as the budget allows."""
    # With another tile size the matrix would be padded, and cut by a copy: half the time again.
    most = min(n, max(1, BUDGET // n))
    return next((size for size in range(most, most // 2, -1) if n % size == 0), most)


def all_pairs(x: Float[Array, "n d"], metric: str | Callable, p: float) -> Float[Array, "n n"]:
    """Distances of all pairs of rows, in tiles; exactly 0 on the diagonal."""
    n = x.shape[0]
    function = metric_function(metric, p=p)
    refined = _refined(metric, x.shape[1])
    distances_of = partial(distances_between, function) if refined is None else refined
    tile = tile_divisor(n)
    count = -(-n // tile)
    rows = jnp.pad(x, ((0, count * tile - n), (0, 0)))

    def some(start):
        part = jax.lax.dynamic_slice_in_dim(rows, start, tile)
        own = (start + jnp.arange(tile, dtype=jnp.int32))[:, None] == jnp.arange(n, dtype=jnp.int32)[None, :]
        return distances_of(part, x, own)

    # One map over all tiles: to concatenate a first tile of another size would copy the whole matrix.
    distances = jax.lax.map(some, tile * jnp.arange(count, dtype=jnp.int32)).reshape(-1, n)
    return distances if len(distances) == n else distances[:n]


def _refined(metric, d):
    """Refined expanded squares for rows in a frame, whose origin is theirs; None for another metric."""
    if metric not in ("euclidean", "sqeuclidean") or d <= DIFFERENCE_COLUMNS:
        return None

    def distances(a, b, same):
        squares = refined_sqeuclidean(a, b, None, same)
        return squares if metric == "sqeuclidean" else jnp.sqrt(squares)

    return distances


def host_matrix(rows_of: Callable[[np.ndarray], np.ndarray], n: int, size: int, dtype: np.dtype) -> tuple[Array, int]:
    """Distances from the host on the device, padded with zeros to ``size`` rows.

    Returns:
        (size, size) distances times 2^exponent, and the exponent that brings the median of a sample near 1: in another
        unit the distances, or their sums, could leave the range of float32.
    """
    sample = rows_of(np.arange(SAMPLE_ROWS) * n // SAMPLE_ROWS if n > SAMPLE_ROWS else np.arange(n))
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
        exponent = bound  # a few rows are far: the sums of all distances have to be finite


def medoid_distances(
    x: Float[Array, "n d"], medoids: Int[Array, " n"], metric: str | Callable, p: float
) -> Float[Array, " n"]:
    """Distance of each row to its medoid, by differences if the metric has them."""
    distances_of = metric_function(metric, p=p)
    own = jax.vmap(lambda row, medoid: distances_of(row[None], medoid[None])[0, 0])(x, x[medoids])
    return jnp.where(medoids == jnp.arange(x.shape[0], dtype=medoids.dtype), 0, own)


def rows_of_medoids(x: Any, medoids: np.ndarray) -> np.ndarray:
    """(…, d) dense rows of medoids in the dtype of x; 0 for a medoid −1."""
    rows = x[medoids.ravel()]
    rows = (rows.toarray() if is_sparse(rows) else rows).reshape(*medoids.shape, -1)
    return np.where((medoids >= 0)[..., None], rows, 0).astype(x.dtype)


def distances_to(metric: str | Callable, x: Any, others: Any, *, p: float = 2.0) -> np.ndarray:
    """(n, m) float64 distances from concrete rows to others, in tiles; one of the two may be sparse, or both.

    Raises:
        ValueError, TypeError: a function that returns another shape, NaN or a negative number; a metric that sparse
            rows do not have.
    """
    if is_sparse(x) or is_sparse(others):
        both = scipy.sparse.vstack([scipy.sparse.csr_array(each) for each in (others, x)])
        m, rows = others.shape[0], distances_to_all(both, metric)
        return np.concatenate([rows(index)[:, m:] for index in tiles(m, m + x.shape[0])]).T
    others, x = float64_tables(metric, np.asarray(others), np.asarray(x))
    function = host_distance(metric, np.concatenate([others, x[:5]]), p=p)
    return np.concatenate(
        [checked_distances(function, x[index], others, index) for index in tiles(len(x), len(others))]
    )

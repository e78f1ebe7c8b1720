"""The distances that k-medoids looks at: those of a few rows all at once, and of rows from their medoids."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxcluster.core import check
from jaxcluster.core.fold import tile_rows
from jaxcluster.core.rows import float_dtype
from jaxcluster.ops.distance import (
    FEW_COLUMNS,
    METRICS,
    expanded_sqeuclidean,
    metric_function,
    normalize,
    row_products,
    squared_norms,
)
from jaxcluster.ops.pairwise import Pairwise, check_distances, tiles
from jaxcluster.types import Array, Float, Int

MEMORY = 1 << 33
"""Bytes that the distances of all pairs of rows may take."""

PRECOMPUTED = "precomputed"

ROUNDING = 8
"""Units of rounding of the terms of an expanded square that a distance of 0 may come out as."""

BUDGET = 1 << 20
"""Distances that are computed at a time."""


def check_metric(metric: str | Callable, p: float) -> None:
    """Raises ValueError for an unknown name, or p < 1 for "minkowski"."""
    if callable(metric):
        return
    check.check_choice("metric", metric, [*METRICS, PRECOMPUTED])
    if metric != PRECOMPUTED:
        metric_function(metric, p=p)


def centered(metric: str | Callable) -> bool:
    """Whether distances are those between directions from nowhere, so that rows may be moved to around the origin."""
    return not callable(metric) and metric != "cosine"


def check_memory(n: int, dtype: np.dtype) -> None:
    """Raises MemoryError where the distances of n rows take more than `MEMORY`."""
    size = n * n * np.dtype(dtype).itemsize
    if size > MEMORY:
        raise MemoryError(
            f"The distances of all pairs of {n:,} rows take {size:,} bytes, more than {MEMORY:,}. Use "
            "kmedoids.clara (method='clara' of the estimator), which looks at samples of the rows, or pass fewer rows."
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
    x = check.check_matrix(x)
    traced = check.is_traced(x)
    if not traced:
        x = np.asarray(x)
        check.check_finite(x, name="distances")
    if x.shape[0] != x.shape[1]:
        raise ValueError(f"metric='precomputed' needs a square matrix of distances, got shape {x.shape}.")
    return x if traced else check_distances(x)


def pairwise(x: Float[Array, "n d"], metric: str | Callable, p: float) -> Float[Array, "n n"]:
    """Distances of all pairs of rows, computed in tiles; 0 from a row to itself whatever rounding says."""
    n = x.shape[0]
    x, distances_of = _prepared(x, metric, p)
    tile = tile_rows(n, n, BUDGET)
    count = -(-n // tile)
    rows = jnp.pad(x, ((0, count * tile - n), (0, 0)))

    def some(start):
        part = jax.lax.dynamic_slice_in_dim(rows, start, tile)
        own = (start + jnp.arange(tile))[:, None] == jnp.arange(n)
        return jnp.where(own, 0, distances_of(part, x))

    # Every tile is written to its place at once: putting a first one before the others would copy all of them.
    distances = jax.lax.map(some, tile * jnp.arange(count)).reshape(-1, n)
    return distances if len(distances) == n else distances[:n]


def _prepared(x, metric, p):
    """Rows and a function of a few and all of them; what is expanded is 0 where nothing but rounding is left of it.

    Rows that are equal would else be a little apart, and in clusters of their own.
    """
    tiny = ROUNDING * jnp.finfo(x.dtype).eps
    if metric == "cosine":
        unit = normalize(x)
        return unit, lambda a, b: _unless_tiny(jnp.clip(1 - row_products(a, b), 0, 2), tiny)
    if metric not in ("euclidean", "sqeuclidean") or x.shape[1] <= FEW_COLUMNS:
        return x, metric_function(metric, p=p)

    def expanded(a, b):
        norms = squared_norms(a)
        square = _unless_tiny(expanded_sqeuclidean(a, b, norms), tiny * (norms[:, None] + squared_norms(b)))
        return square if metric == "sqeuclidean" else jnp.sqrt(square)

    return x - jnp.mean(x, axis=0), expanded


def _unless_tiny(value, tiny):
    return jnp.where(value <= tiny, 0, value)


def host_matrix(measured: Pairwise | np.ndarray, size: int, dtype: np.dtype) -> Float[Array, "n n"]:
    """Distances that are known or computed on the host, on the device and filled up to ``size`` rows with zeros."""
    out = np.zeros((size, size), dtype)
    if isinstance(measured, Pairwise):
        for index in tiles(measured.n):
            out[index, : measured.n] = measured.rows(index)
        np.fill_diagonal(out, 0)
    else:
        n = len(measured)
        out[:n, :n] = measured
    return jax.device_put(out)


def own_distances(
    x: Float[Array, "n d"], medoids: Int[Array, " n"], metric: str | Callable, p: float
) -> Float[Array, " n"]:
    """Distance of each row to the row of the given number, from differences where the metric has them."""
    distances_of = metric_function(metric, p=p)
    own = jax.vmap(lambda row, medoid: distances_of(row[None], medoid[None])[0, 0])(x, x[medoids])
    return jnp.where(medoids == jnp.arange(x.shape[0]), 0, own)


def measured_from(metric: Callable, x, others) -> np.ndarray:
    """(n, m) distances that a function gives for concrete rows and others, a tile of rows at a time.

    Raises:
        ValueError: the function gives another shape, NaN or something negative.
    """
    x, others = np.asarray(x), np.asarray(others)
    parts = []
    for index in tiles(len(x), len(others)):
        part = np.asarray(metric(x[index], others), float)
        if part.shape != (len(index), len(others)):
            raise ValueError(
                f"metric gave shape {part.shape} for matrices of {len(index)} and {len(others)} rows; "
                f"({len(index)}, {len(others)}) distances are wanted."
            )
        if not (part >= 0).all():
            raise ValueError(f"metric gave {part[~(part >= 0)][0]}: a distance is a number >= 0.")
        parts.append(part.astype(float_dtype(x.dtype)))
    return np.concatenate(parts)

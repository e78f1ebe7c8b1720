"""Exact k nearest neighbors, nearer rows first, ties by row number: on the host in float64, and under jit in tiles.

In few columns a k-d tree excludes nearly all rows. In many columns it excludes none and is slow: there blocks of rows
are compared by float32 matrix products with a rounding bound, and the few candidates again in float64.
Neither builds n×n.

>>> from jaxcluster.ops.metric_space import as_metric_space
>>> index, distances = nearest_rows(as_metric_space(np.array([[0.0], [1.0], [5.0]])), 2)
>>> index.tolist(), distances.tolist()
([[0, 1], [1, 0], [2, 1]], [[0.0, 1.0], [0.0, 1.0], [0.0, 4.0]])
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree  # pyright: ignore[reportAttributeAccessIssue]  # compiled, without a stub
from threadpoolctl import threadpool_limits

from jaxcluster.core import chunks, memory, signals, validation
from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.ops.distance import distances_between, metric_function
from jaxcluster.ops.metric_space import DistanceOracle, MetricSpace, minkowski_sums, pair_minkowski_sums, tiles
from jaxcluster.ops.neighbors.kd_blocks import BLOCK, MAX_KD_COLUMNS, UNIT_ROUNDOFF, Blocks, box_distances, partition
from jaxcluster.types import Array, Float, Int

QUERY_BLOCKS = 4
"""Blocks of queries of one matrix product."""

QUERY_WORK = 1 << 18
"""Products and sums for which the search of a row in a tree counts: 2,048 rows are searched before the first look at
the clock."""

SAMPLE_ROWS = 512
"""Number of sampled rows for the typical distance from their median."""

MAX_EXPONENT = 500
"""Largest exponent of the scale: the square of 2⁵⁰⁰ is finite in float64."""

FLOAT32_LIMIT = np.float32(1e15)
"""Coordinate, where most are about 1, beyond which float32 squares may overflow."""

FLOAT32_TINY = float(np.finfo(np.float32).tiny)
"""Squares below may underflow to 0 in float32."""

NEIGHBOR_BYTES = 64
"""Bytes for each neighbor of each row while they are searched for (measured)."""

FIRST_BLOCKS = 3
"""Nearest blocks for the first bound on the k-th distance."""


def nearest_rows(
    space: MetricSpace | DistanceOracle, k: int, *, queries: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """k nearest of n rows for each of them, or for each query.

    A row is among its own nearest, unless k rows before it coincide with it. Of more rows at the k-th distance it is
    not defined which are returned.

    Args:
        space: n rows.
        k: number of neighbors.
        queries: (m, d) float64 rows of the same space; None for those of ``space``.

    Returns:
        (m, k) int32 row numbers and (m, k) float64 distances.

    Raises:
        ValueError: k is not between 1 and n.
        TypeError: ``queries`` with a distance oracle.
        MemoryError: so many neighbors of so many rows do not fit.
    """
    k = validation.check_clusters(k, space.n)
    rows = space.n if queries is None else len(queries)
    subject = f"the {k:,} nearest neighbors of {rows:,} rows"
    memory.check(NEIGHBOR_BYTES * rows * k, subject, "Lower n_neighbors or min_samples, or pass fewer rows.")
    if isinstance(space, DistanceOracle):
        if queries is not None:
            raise TypeError("queries need a metric space: a distance oracle holds distances, not coordinates.")
        parts = [_k_first(space.rows(index), k) for index in tiles(space.n)]
        numbers, distances = (np.concatenate(part) for part in zip(*parts, strict=True))
        return numbers, distances
    queries = space.x if queries is None else np.asarray(queries, np.float64)
    if not _sums_are_finite(space, queries):
        parts = [
            _k_first(minkowski_sums(queries[at, None], space.x, space.power), k) for at in tiles(len(queries), space.n)
        ]
        index, sums = (np.concatenate(part) for part in zip(*parts, strict=True))
    elif space.x.shape[1] <= MAX_KD_COLUMNS or space.power != 2:
        index, sums = _by_tree(space, k, queries)
    else:
        index, sums = _by_products(space.x, k, queries)
    return index, space.distances(sums)


def _sums_are_finite(space, queries):
    """True if no Minkowski sum can overflow: a k-d tree has no neighbors at infinity."""
    farthest = max(np.abs(space.x).max(), np.abs(queries).max())
    with np.errstate(over="ignore"):
        return np.isfinite((2 * farthest) ** space.power * space.x.shape[1])


def _k_first(distances, k):
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order.astype(np.int32), np.take_along_axis(distances, order, axis=1)


def _by_tree(space, k, queries):
    """k nearest rows by a k-d tree. It may round sums otherwise: one more row keeps the k-th in float64."""
    count, tree = min(k + 1, space.n), cKDTree(space.x)
    index = np.empty((len(queries), count), np.intp)

    def search(start, stop):
        some = slice(start, stop)
        _, index[some] = tree.query(queries[some], k=np.arange(1, count + 1), p=space.power, workers=-1)

    chunks.in_parts(search, len(queries), QUERY_WORK)
    return sorted_nearest(index, minkowski_sums(queries[:, None], space.x[index], space.power), k)


def sorted_nearest(index, sums, k):
    """First k of the candidates in each row of (m, c) numbers and sums, by sum and then by number.

    Returns:
        (m, k) int32 numbers and (m, k) sums.
    """
    order = np.lexsort((index, sums))[:, :k]
    return np.take_along_axis(index, order, axis=1).astype(np.int32), np.take_along_axis(sums, order, axis=1)


def _by_products(x, k, queries):
    """k nearest rows by float32 matrix products, and float64 sums of the candidates that these leave."""
    home, away = partition(x), partition(queries)
    columns, unit = np.ascontiguousarray(x.T), sample_scale(x)
    index, sums = np.empty((len(queries), k), np.int32), np.empty((len(queries), k))

    def search(start):
        signals.check_stopped()
        rows = away.index[start : start + QUERY_BLOCKS]
        rows = rows[rows >= 0]
        index[rows], sums[rows] = _search_blocks(home, columns, unit, k, queries[rows])

    # BLAS threads within the threads of the search would wait for each other.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(search, range(0, len(away.index), QUERY_BLOCKS)))
    return index, sums


def sample_scale(x):
    """Power of two that brings most rows near 1: float32 squares overflow at 1e19, and underflow at 1e-19."""
    some = x[:: -(-len(x) // SAMPLE_ROWS)]
    lengths = np.abs(some - np.median(some, axis=0)).max(axis=1)
    exponent = int(np.frexp(np.median(lengths) or lengths.max())[1])
    return float(np.ldexp(1.0, -max(exponent, -MAX_EXPONENT)))


def _search_blocks(home: Blocks, columns, unit, k, rows):
    """k nearest rows of queries that lie close together: the nearest blocks give a bound for all blocks."""
    gap = box_distances(rows.min(axis=0)[None], rows.max(axis=0)[None], home.low, home.high, 2.0)[0]
    closest = np.argsort(gap, kind="stable")[: FIRST_BLOCKS + -(-k // BLOCK)]
    _, _, bound = _compare(home, unit, rows, closest, k)
    limit = np.float64(bound.max()) / unit**2 * (1 + 1e-9)
    # A block farther from the box of the queries than the largest bound holds no candidate.
    squares, index, bound = _compare(home, unit, rows, np.flatnonzero(gap <= limit), k)
    # `flatnonzero` and `divmod` are ten times as fast as `nonzero` of the matrix.
    which, column = np.divmod(np.flatnonzero((squares <= bound[:, None]) & (index >= 0)), squares.shape[1])
    index = index[column]
    return _k_nearest_candidates(
        which, index, pair_minkowski_sums(rows.T.copy(), columns, which, index, 2.0), len(rows), k
    )


def _compare(home, unit, rows, blocks, k):
    """Squared distances from m queries to the rows of some blocks in float32, in the unit ``unit``.

    Returns:
        (m, c) squares, (c,) row numbers, (m,) bounds within which at least k rows are, with the rounding error.
    """
    # The median as the origin: with a mean, one far row would cost all others their float32 digits.
    middle, d = np.median(rows, axis=0), rows.shape[1]
    index = home.index[blocks].ravel()
    a, own = _float32((rows - middle) * unit)
    b, other = _float32(np.where(index[:, None] >= 0, home.x[blocks].reshape(-1, d) - middle, 0) * unit)
    other = np.where(index >= 0, other, np.float32(np.inf))
    # ‖a‖² + ‖b‖² − 2a·b as one matrix product, with the norms as two more columns.
    left = np.concatenate([-2 * a, own[:, None], np.ones_like(own)[:, None]], axis=1)
    right = np.concatenate([b.T, np.ones_like(other)[None], other[None]])
    squares = left @ right
    # The least of each group of columns: the k-th of these bounds the k-th nearest, and is cheaper to find.
    groups = squares.reshape(len(rows), BLOCK, -1)
    least = groups.min(axis=1) if groups.shape[2] >= k else squares
    bound = np.partition(least, k - 1, axis=1)[:, k - 1]
    error = (d + 8) * UNIT_ROUNDOFF * np.square(2 * np.sqrt(own) + np.sqrt(np.maximum(bound, 0)))
    bound = bound + 8 * error + np.float32((d + 8) * FLOAT32_TINY)
    # Beyond this, clipped rows may be as near as others: no bound.
    return squares, index, np.where(bound < np.square(FLOAT32_LIMIT / 4), bound, np.float32(np.inf))


def _float32(rows):
    """Rows in float32, and their squared lengths; infinite for those beyond half of `FLOAT32_LIMIT`."""
    rows = np.clip(rows, -FLOAT32_LIMIT, FLOAT32_LIMIT).astype(np.float32)
    lengths = np.einsum("ij,ij->i", rows, rows)
    return rows, np.where(np.abs(rows).max(axis=1) < FLOAT32_LIMIT / 2, lengths, np.float32(np.inf))


def _k_nearest_candidates(which, index, sums, m, k):
    """First k of the candidates of each of m queries, which are sorted by query in ``which``."""
    # The last key is the primary one: by query, then by sum, then by row number.
    order = np.lexsort((index, sums, which))
    first = np.searchsorted(which, np.arange(m))
    kept = order[first[:, None] + np.arange(k)]
    return index[kept].astype(np.int32), sums[kept]


BUDGET = 1 << 23
"""Distances of one tile."""


def k_nearest(
    x: Float[Array, "n d"],
    k: int,
    *,
    metric: str | Callable = "euclidean",
    p: float = 2.0,
    include_self: bool = True,
    tile: int | None = None,
) -> tuple[Int[Array, "n k"], Float[Array, "n k"]]:
    """k nearest of n rows for each row, nearer ones first; ties by row number.

    A row is at distance 0 from itself, whatever the rounding. Rows whose distances differ by less than the rounding of
    ``x.dtype`` may be exchanged.

    Args:
        x: (n_samples, n_features) rows, traced or not.
        k: number of neighbors, static; at most n, or n − 1 without the row itself.
        metric: a name in `jaxcluster.ops.distance.METRICS`, or a traceable function of (m, d) and (n, d) that returns
            (m, n).
        p: the power of "minkowski", at least 1.
        include_self: False excludes each row from its own neighbors.
        tile: rows of one tile; None for as many as fit a fixed budget. The result is the same.

    Returns:
        (n, k) int32 row numbers and (n, k) distances in the units of the metric.

    Raises:
        ValueError: an unknown metric, or k that is not between 1 and the number of possible neighbors.
    """
    n = x.shape[0]
    k = validation.check_count("k", k)
    most = n if include_self else n - 1
    if k > most:
        raise ValueError(f"k={k} nearest rows were asked for, but a row has {most}. Ask for fewer, or pass more rows.")
    distances_of = metric_function(metric, p=p)

    def nearest_of(rows):
        part, numbers = rows
        own = numbers[:, None] == jnp.arange(n, dtype=jnp.int32)[None, :]
        # The own distance is 0 by definition, and not by the rounding of a product.
        distances = distances_between(distances_of, part, x, own)
        if not include_self:
            distances = jnp.where(own, jnp.inf, distances)
        negative, index = jax.lax.top_k(-distances, k)
        return index.astype(jnp.int32), -negative

    numbers = jnp.arange(n, dtype=jnp.int32)
    return map_rows(nearest_of, (x, numbers), tile=tile or tile_rows(n, n, BUDGET))

"""The nearest rows of each row, exactly: in float64, the nearer first, and of equally near ones the lower number.

In few columns a kd-tree leaves out nearly all rows. In many columns it leaves out none and is slow; there blocks of
rows are compared by matrix products, and the few pairs that may matter once more in float64.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.spatial import cKDTree
from threadpoolctl import threadpool_limits

from jaxcluster.core import validation
from jaxcluster.ops.metric_space import DistanceOracle, MetricSpace, minkowski_sums, pair_minkowski_sums, tiles
from jaxcluster.ops.neighbors.kd_blocks import BLOCK, FEW_COLUMNS, UNIT, Blocks, gaps, partition

SIDE_BY_SIDE = 4
"""Blocks whose rows are compared at a time with all that may be near them."""

UNIT_ROWS = 512
"""Rows by whose median distance from their middle the size of all is told."""

LEAST_EXPONENT = 500
"""The square of the inverse of 2 to the minus so much is finite."""

FLOAT32_FAR = np.float32(1e15)
"""Coordinates, where most are about 1, beyond which float32 tells nothing: squares may leave its range."""

SMALLEST = float(np.finfo(np.float32).tiny)
"""A square that is less may be taken for 0 in float32."""

SOME_BLOCKS = 3
"""Blocks that are looked at first, for a bound on how far the nearest rows are."""


def nearest_rows(
    space: MetricSpace | DistanceOracle, k: int, *, queries: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of n rows to each of them, or to each of other rows.

    A row is among its own nearest, unless k rows before it lie in the same place. Where more rows are as far as the
    k-th, it is left open which of them are given.

    Args:
        space: n rows.
        k: how many.
        queries: (m, d) float64 rows of the same space; None for those of ``space``.

    Returns:
        (m, k) int32 row numbers and (m, k) float64 distances.

    Raises:
        ValueError: k is not between 1 and n.
        TypeError: ``queries`` of rows of which only the distances are known.
    """
    k = validation.check_clusters(k, space.n)
    if isinstance(space, DistanceOracle):
        if queries is not None:
            raise TypeError("queries lie nowhere where only the distances of the rows are known.")
        parts = [_first(space.rows(index), k) for index in tiles(space.n)]
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))
    queries = space.x if queries is None else np.asarray(queries, np.float64)
    if not _can_be_added(space, queries):
        parts = [
            _first(minkowski_sums(queries[at, None], space.x, space.power), k) for at in tiles(len(queries), space.n)
        ]
        index, sums = (np.concatenate(part) for part in zip(*parts, strict=True))
    elif space.x.shape[1] <= FEW_COLUMNS or space.power != 2:
        index, sums = _by_tree(space, k, queries)
    else:
        index, sums = _by_products(space.x, k, queries)
    return index, space.distances(sums)


def _can_be_added(space, queries):
    """Whether sums are finite, however far two rows are from each other: a tree has no neighbors at infinity."""
    farthest = max(np.abs(space.x).max(), np.abs(queries).max())
    with np.errstate(over="ignore"):
        return np.isfinite((2 * farthest) ** space.power * space.x.shape[1])


def _first(distances, k):
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order.astype(np.int32), np.take_along_axis(distances, order, axis=1)


def _by_tree(space, k, queries):
    """From a kd-tree. It may add up otherwise than a plain loop: one row more, lest rounding choose at the end."""
    asked = min(k + 1, space.n)
    _, index = cKDTree(space.x).query(queries, k=np.arange(1, asked + 1), p=space.power, workers=-1)
    return _sorted(index, minkowski_sums(queries[:, None], space.x[index], space.power), k)


def _sorted(index, sums, k):
    order = np.lexsort((index, sums))[:, :k]
    return np.take_along_axis(index, order, axis=1).astype(np.int32), np.take_along_axis(sums, order, axis=1)


def _by_products(x, k, queries):
    """By matrix products of tiles in float32, and again in float64 where they leave open which are nearest."""
    home, away = partition(x), partition(queries)
    columns, unit = np.ascontiguousarray(x.T), _unit(x)
    index, sums = np.empty((len(queries), k), np.int32), np.empty((len(queries), k))

    def search(start):
        rows = away.index[start : start + SIDE_BY_SIDE]
        rows = rows[rows >= 0]
        index[rows], sums[rows] = _search(home, columns, unit, k, queries[rows])

    # Threads of the product within threads of the search would wait for each other.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(search, range(0, len(away.index), SIDE_BY_SIDE)))
    return index, sums


def _unit(x):
    """The power of two that brings most rows near 1: squares of float32 leave its range at 1e19 and 1e-19."""
    some = x[:: -(-len(x) // UNIT_ROWS)]
    lengths = np.abs(some - np.median(some, axis=0)).max(axis=1)
    exponent = int(np.frexp(np.median(lengths) or lengths.max())[1])
    return float(np.ldexp(1.0, -max(exponent, -LEAST_EXPONENT)))


def _search(home: Blocks, columns, unit, k, rows):
    """The nearest of rows that lie close together: of the blocks nearest to them, then of all that may be as near."""
    gap = gaps(rows.min(axis=0)[None], rows.max(axis=0)[None], home.low, home.high, 2.0)[0]
    closest = np.argsort(gap, kind="stable")[: SOME_BLOCKS + -(-k // BLOCK)]
    _, _, within = _compare(home, unit, rows, closest, k)
    limit = np.float64(within.max()) / unit**2 * (1 + 1e-9)
    squares, index, within = _compare(home, unit, rows, np.flatnonzero(gap <= limit), k)
    # A flat search is ten times as fast as one for rows and columns.
    which, column = np.divmod(np.flatnonzero((squares <= within[:, None]) & (index >= 0)), squares.shape[1])
    index = index[column]
    return _nearest_of(which, index, pair_minkowski_sums(rows.T.copy(), columns, which, index, 2.0), len(rows), k)


def _compare(home, unit, rows, blocks, k):
    """Squared distances of m rows from those of some blocks in float32, in a unit, and what the k nearest are within.

    Returns:
        (m, c) squares, (c,) which rows they are from, (m,) that at least k are within, whatever rounding did.
    """
    # A median: a far row among them would move all others to where float32 has no digits for them.
    middle, d = np.median(rows, axis=0), rows.shape[1]
    index = home.index[blocks].ravel()
    a, own = _float32((rows - middle) * unit)
    b, other = _float32(np.where(index[:, None] >= 0, home.x[blocks].reshape(-1, d) - middle, 0) * unit)
    other = np.where(index >= 0, other, np.float32(np.inf))
    left = np.concatenate([-2 * a, own[:, None], np.ones_like(own)[:, None]], axis=1)
    right = np.concatenate([b.T, np.ones_like(other)[None], other[None]])
    squares = left @ right
    # The least of each group: k groups have k rows that are no farther than the k-th of these.
    groups = squares.reshape(len(rows), BLOCK, -1)
    least = groups.min(axis=1) if groups.shape[2] >= k else squares
    within = np.partition(least, k - 1, axis=1)[:, k - 1]
    error = (d + 8) * UNIT * np.square(2 * np.sqrt(own) + np.sqrt(np.maximum(within, 0)))
    within = within + 8 * error + np.float32((d + 8) * SMALLEST)
    # So far away a row that was left out may be as near as one that was not.
    return squares, index, np.where(within < np.square(FLOAT32_FAR / 4), within, np.float32(np.inf))


def _float32(rows):
    """Rows in float32, and their squared lengths; infinite for those that float32 is not asked about."""
    rows = np.clip(rows, -FLOAT32_FAR, FLOAT32_FAR).astype(np.float32)
    lengths = np.einsum("ij,ij->i", rows, rows)
    return rows, np.where(np.abs(rows).max(axis=1) < FLOAT32_FAR / 2, lengths, np.float32(np.inf))


def _nearest_of(which, index, sums, m, k):
    """The first k of the candidates of each of m rows, which are given row by row."""
    order = np.lexsort((index, sums, which))
    first = np.searchsorted(which, np.arange(m))
    kept = order[first[:, None] + np.arange(k)]
    return index[kept].astype(np.int32), sums[kept]

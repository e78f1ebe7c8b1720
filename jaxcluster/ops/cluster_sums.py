"""Weighted sums of rows by label: the reduction of every update step.

On a CPU a scatter-add is fast. On a GPU a float scatter-add is a compare-and-swap loop, and the product with a one-hot
matrix is faster. Each entry of sparse rows is added at its label and column.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcluster.core.fold import fold_rows, tile_rows
from jaxcluster.core.sparse_rows import SparseRows
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.types import Array, Float, Int, Points

PRODUCT_TILE = 2048
"""Number of rows whose weighted copy stays in a core's cache."""

DENSE_TILE = 1 << 22
"""Coordinates of sparse rows that are made dense at a time for differences: 16 MB."""

ENTRIES_TILE = 1 << 22
"""Entries of sparse rows whose places in the sums are held at a time: 32 MB."""


def cluster_sums(
    points: Points, labels: Int[Array, " n"], k: int, *, uniform: bool = False
) -> tuple[Float[Array, "k d"], Float[Array, " k"]]:
    """Weighted sum and weight of each cluster.

    Args:
        points: (n, d) rows of either kind and their weights.
        labels: (n,); labels outside [0, k) count nowhere.
        k: number of clusters.
        uniform: every weight is 0 or 1, so that rows need no product with their weight.

    Returns:
        (k, d) sums Σ w·x and (k,) weights Σ w.
    """

    def scatter(x, weight, labels):
        if uniform:
            return _scatter_uniform(x, weight, labels, k)
        return _scatter_weighted(x, weight, labels, k)

    def product(x, weight, labels):
        member = jnp.where(labels[:, None] == jnp.arange(k, dtype=labels.dtype)[None, :], weight[:, None], 0)
        sums = jax.lax.dot_general(member, x, (((0,), (0,)), ((), ())), precision=HIGHEST)
        return sums, jnp.sum(member, axis=0)

    if isinstance(points.x, SparseRows):
        return _sparse_sums(points.x, points.weight, labels, k), _weights(points.weight, labels, k, uniform)
    # A CPU adds rows to their sums one by one; an accelerator serializes such additions, and multiplies by the one-hot
    # matrix of the labels instead.
    return jax.lax.platform_dependent(points.x, points.weight, labels, cpu=scatter, default=product)


def cluster_offsets(
    points: Points, centers: Float[Array, "k d"], labels: Int[Array, " n"], *, tile: int | None = None
) -> tuple[Float[Array, "k d"], Float[Array, " k"]]:
    """Σ w·(x − c) and Σ w of each cluster: rounded in proportion to the differences, not to the rows.

    Args:
        points: (n, d) rows of either kind and their weights.
        centers: (k, d).
        labels: (n,); labels outside [0, k) count nowhere.
        tile: number of dense rows whose differences are held at once; None for all. Sparse rows have their own.

    Returns:
        (k, d) sums and (k,) weights.
    """

    def of_tile(rows):
        (x, weight), labels = rows
        x = x.dense() if isinstance(x, SparseRows) else x
        return cluster_sums(Points(x - centers[labels], weight), labels, centers.shape[0]), ()

    if isinstance(points.x, SparseRows):
        n, d = points.x.shape
        tile = tile_rows(n, d, DENSE_TILE)
    return fold_rows(of_tile, (points, labels), tile=tile)[0]


def total_sum(points: Points) -> Float[Array, " d"]:
    """Weighted sum Σ w·x of all rows, of either kind."""
    if isinstance(points.x, SparseRows):
        return cluster_sums(points, jnp.zeros_like(points.weight, jnp.int32), 1)[0][0]
    # Not as a product: XLA's CPU multiplies a vector and a matrix on one core.
    return jnp.sum(points.x * points.weight[:, None], axis=0)


def _scatter_uniform(x, weight, labels, k):
    sums = jax.ops.segment_sum(x, jnp.where(weight > 0, labels, k), k)
    return sums, _weights(weight, labels, k, True)


def _weights(weight, labels, k, uniform):
    if not uniform:
        return jax.ops.segment_sum(weight, labels, k)
    # Counted as integers: float32 sums of ones stop at 2²⁴.
    counts = jax.ops.segment_sum((weight > 0).astype(jnp.int32), jnp.where(weight > 0, labels, k), k)
    return counts.astype(weight.dtype)


def _scatter_weighted(x, weight, labels, k):
    def tile(rows):
        x, weight, labels = rows
        return (jax.ops.segment_sum(x * weight[:, None], labels, k), jax.ops.segment_sum(weight, labels, k)), ()

    return fold_rows(tile, (x, weight, labels), tile=PRODUCT_TILE)[0]


def _sparse_sums(x, weight, labels, k):
    n, d = x.shape
    labels = jnp.where((labels >= 0) & (labels < k), labels, k)
    # One index takes a sixth of the time of two on a CPU, where 32 bits hold it.
    flat = (k + 1) * d < 2**31

    def add(sums, labels, columns, values):
        if flat:
            return sums.at[(labels[:, None] * d + columns).ravel()].add(values.ravel(), mode="drop")
        return sums.at[labels[:, None], columns].add(values, mode="drop")

    def add_piece(row, columns, values, _, sums):
        inside = jnp.minimum(row, n - 1)
        return add(sums, labels[inside], columns, values * weight[inside][:, None])

    # Tiles are added in place: as summaries of tiles, (k, d) numbers would be added for each.
    tile = tile_rows(n, x.columns.shape[1], ENTRIES_TILE)

    def add_tile(number, sums):
        start = jnp.minimum(number * tile, n - tile)
        rows = (labels, x.columns, x.values, weight)
        labels_, columns, values, weights = (jax.lax.dynamic_slice_in_dim(leaf, start, tile) for leaf in rows)
        # The last tile starts earlier, to be whole: its rows of the tile before it weigh nothing.
        fresh = start + jnp.arange(tile, dtype=jnp.int32) >= number * tile
        return add(sums, labels_, columns, values * jnp.where(fresh, weights, 0)[:, None])

    sums = jax.lax.fori_loop(0, -(-n // tile), add_tile, jnp.zeros((k * d,) if flat else (k, d), x.dtype))
    return x.fold_tail(add_piece, sums).reshape(k, d)

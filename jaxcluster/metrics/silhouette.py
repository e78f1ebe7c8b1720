"""Silhouettes by one pass over row tiles × clusters: nothing larger than a tile of distances exists.

The distances of a tile of rows to one cluster are summed before the next cluster's are computed, so a row carries
only its mean distance within its own cluster and the least one to any other. The rows of a cluster are laid out in
blocks of one static size, and how many clusters, blocks and tiles there are is traced: another k or n in the same
bucket compiles nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core.fold import tile_rows
from jaxcluster.core.rows import Placed, bucket
from jaxcluster.metrics.labels import Coded
from jaxcluster.ops.distance import metric_function, normalize, row_products, squared_norms
from jaxcluster.types import Array, Float, Int

BLOCKS = (32, 64, 128, 256)
"""Rows of one cluster taken at a time: the largest that an average cluster fills."""

FUSED_ELEMENTS, CACHED_ELEMENTS, DEVICE_ELEMENTS = 1 << 21, 1 << 19, 1 << 24
"""Distances a tile: fused into their sum on a CPU, kept in its cache, and enough to fill an accelerator."""


class Layout(NamedTuple):
    """The rows cluster by cluster, each cluster padded to whole blocks.

    Attributes:
        index: which row stands in each slot, −1 for padding.
        owner: the cluster of each block; the capacity of clusters for a block of padding.
        first: the first block of each cluster, and one past its last.
        size: rows of each cluster.
    """

    index: Int[Array, " slots"]
    owner: Int[Array, " blocks"]
    first: Int[Array, " clusters_and_1"]
    size: Int[Array, " clusters"]


class Tile(NamedTuple):
    """Rows, which ones they are, and their clusters (−1 for padding)."""

    x: Float[Array, "t d"]
    index: Int[Array, " t"]
    label: Int[Array, " t"]


Sums = Callable[[Tile, Int[Array, ""]], Float[Array, " t"]]
"""The sum of the distances of each row of a tile to the rows of one cluster, itself left out."""


def problem(placed: Placed, coded: Coded, metric: str | Callable, p: float) -> tuple[tuple, dict[str, Any]]:
    """The arguments of `silhouettes`, positional and by name, for labeled rows."""
    rows, k = placed.points.x.shape[0], coded.counts.size
    capacity = bucket(k, least=8)
    block = max((b for b in BLOCKS if b <= rows // capacity), default=BLOCKS[0])
    label = np.full(rows, -1, np.int32)
    label[: placed.n] = coded.codes
    if jax.default_backend() == "cpu":
        elements = FUSED_ELEMENTS if metric == "euclidean" else CACHED_ELEMENTS
    else:
        elements = DEVICE_ELEMENTS
    tile = tile_rows(rows, block, elements)
    counts = np.array([k, -(-placed.n // tile)], np.int32)
    layout = _lay_out(coded, block, capacity, rows // block + capacity)
    power = p if metric == "minkowski" else 2.0
    return (placed.points.x, label, layout, *counts), {"metric": metric, "p": power, "block": block, "tile": tile}


def _lay_out(coded, block, capacity, blocks):
    k = coded.counts.size
    codes = coded.codes.astype(np.uint16) if k <= 1 << 16 else coded.codes  # 16 bits are sorted by radix
    used = -(-coded.counts // block)
    first = np.full(capacity + 1, used.sum(), np.int32)
    first[: k + 1] = np.concatenate([[0], np.cumsum(used)])
    shift = first[:k] * block - (np.cumsum(coded.counts) - coded.counts)
    index = np.full(blocks * block, -1, np.int32)
    index[np.arange(codes.size) + np.repeat(shift, coded.counts)] = np.argsort(codes, kind="stable")
    owner = np.full(blocks, capacity, np.int32)
    owner[: used.sum()] = np.repeat(np.arange(k), used)
    size = np.zeros(capacity, np.int32)
    size[:k] = coded.counts
    return Layout(index, owner, first, size)


@partial(jax.jit, static_argnames=("metric", "p", "block", "tile"))
def silhouettes(
    x: Float[Array, "n d"],
    label: Int[Array, " n"],
    layout: Layout,
    k: Int[Array, ""],
    tiles: Int[Array, ""],
    *,
    metric: str | Callable,
    p: float,
    block: int,
    tile: int,
) -> Float[Array, " n"]:
    """(b − a) / max(a, b) of each row: a its mean distance within its cluster, b the least to another cluster.

    Args:
        x: rows. Where they lie and their unit make no difference, except to "cosine" and to a callable.
        label: cluster of each row in [0, k), −1 for padding.
        layout: the rows by cluster.
        k, tiles: how many clusters and tiles of rows there are.
        metric: a name in ``ops.distance.METRICS`` or a function (n, d), (m, d) -> (n, m).
        p: Minkowski's power.
        block: rows of a block of the layout.
        tile: rows of a tile.

    Returns:
        The silhouettes; 0 for a cluster of one row and where all distances are 0. Padding holds anything.
    """
    if metric == "cosine":
        x = _on_sphere(_unit_scale(x, x))
    elif isinstance(metric, str):
        x = _unit_scale(x, jnp.where(label[:, None] >= 0, x - x[0], 0))
    sums_to = _sums_function(x, layout, metric, p, block)

    def of_tile(t, out):
        start = jnp.minimum(t * tile, x.shape[0] - tile)
        rows = Tile(
            jax.lax.dynamic_slice_in_dim(x, start, tile),
            start + jnp.arange(tile, dtype=jnp.int32),
            jax.lax.dynamic_slice_in_dim(label, start, tile),
        )
        return jax.lax.dynamic_update_slice_in_dim(out, _of_rows(sums_to, rows, layout.size, k), start, 0)

    return jax.lax.fori_loop(0, tiles, of_tile, jnp.zeros_like(x[:, 0]))


def _of_rows(sums_to, rows, size, k):
    def visit(cluster, means):
        within, between = means
        total, count = sums_to(rows, cluster), size[cluster].astype(rows.x.dtype)
        own = rows.label == cluster
        within = jnp.where(own, total / jnp.maximum(count - 1, 1), within)
        return within, jnp.where(own, between, jnp.minimum(between, total / count))

    zero = jnp.zeros_like(rows.x[:, 0])
    within, between = jax.lax.fori_loop(0, k, visit, (zero, zero + jnp.inf))
    larger = jnp.maximum(within, between)
    defined = (larger > 0) & (size[rows.label] > 1)
    return jnp.where(defined, (between - within) / jnp.where(defined, larger, 1), 0)


def _sums_function(x, layout, metric, p, block) -> Sums:
    if metric == "euclidean":
        return _euclidean_sums(x, layout, block)
    if metric == "sqeuclidean":
        return _sqeuclidean_sums(x, layout, block)
    if metric == "cosine":
        return _cosine_sums(x, layout, block)
    return _metric_sums(x, layout, metric_function(metric, p=p), block)


def _euclidean_sums(x, layout, block) -> Sums:
    """Sums of ‖x − y‖, the square root of ‖x‖² − 2x·y + ‖y‖² with the mean of y as the origin.

    Around that origin cancellation costs digits only where a distance is far below the mean distance it is added to.
    Lengths are shortened by a little more than the rounding of the expansion, so that a row is at distance exactly 0
    from itself and its copies: a mask would do the same, but keeps the compiler from fusing product, root and sum
    into one loop that never writes the distances.
    """
    mean, rows = _around_means(x, layout, block)
    shorten = _shortening(x)
    length = jnp.where(layout.index >= 0, shorten * squared_norms(rows), -jnp.inf)

    def sums_to(tile, cluster):
        centered = tile.x - mean[cluster]
        norms = shorten * squared_norms(centered)

        def add(j, total):
            y, norms_y = (jax.lax.dynamic_slice_in_dim(part, j * block, block) for part in (rows, length))
            squared = norms[:, None] + norms_y[None, :] - 2 * row_products(centered, y)
            return total + jnp.sum(jnp.sqrt(jnp.maximum(squared, 0)), axis=1)

        return jax.lax.fori_loop(layout.first[cluster], layout.first[cluster + 1], add, jnp.zeros_like(norms))

    return sums_to


def _sqeuclidean_sums(x, layout, block) -> Sums:
    """Sums of ‖x − y‖² from three sums over y alone: m‖x‖² − 2x·Σy + Σ‖y‖², with about the mean of y as the origin.

    Shortened as above, so that rows without any scatter are at distance exactly 0.
    """
    shorten = _shortening(x)
    mean, rows = _around_means(x, layout, block)
    rest = _per_cluster(rows.reshape(-1, block, rows.shape[1]).sum(axis=1), layout)
    scatter = _per_cluster(squared_norms(rows).reshape(-1, block).sum(axis=1), layout)

    def sums_to(tile, cluster):
        centered = tile.x - mean[cluster]
        cross = jnp.sum(centered * rest[cluster], axis=1)
        return jnp.maximum(shorten * (layout.size[cluster] * squared_norms(centered) + scatter[cluster]) - 2 * cross, 0)

    return sums_to


def _cosine_sums(x, layout, block) -> Sums:
    """Sums of 1 − cos, half the squared distance on the sphere; a row of zeros is at 1 from every other row."""
    halves = _sqeuclidean_sums(x, layout, block)

    def sums_to(tile, cluster):
        others = layout.size[cluster] - (tile.label == cluster)
        return jnp.where(tile.x[:, -1] > 0, others.astype(tile.x.dtype), halves(tile, cluster) / 2)

    return sums_to


def _metric_sums(x, layout, distance, block) -> Sums:
    """Sums of any distance, block by block, with padding and the row itself masked."""
    rows = _gather(x, layout)

    def sums_to(tile, cluster):
        def add(j, total):
            y, index = (jax.lax.dynamic_slice_in_dim(part, j * block, block) for part in (rows, layout.index))
            counted = (index >= 0)[None, :] & (index[None, :] != tile.index[:, None])
            return total + jnp.sum(jnp.where(counted, distance(tile.x, y), 0), axis=1).astype(total.dtype)

        return jax.lax.fori_loop(layout.first[cluster], layout.first[cluster + 1], add, jnp.zeros_like(tile.x[:, 0]))

    return sums_to


def _around_means(x, layout, block):
    """The mean of each cluster, to rounding, and the laid-out rows minus the mean of theirs; padding is 0."""
    rows = _gather(x, layout).reshape(-1, block, x.shape[1])
    size = jnp.maximum(layout.size, 1).astype(x.dtype)
    mean = _per_cluster(rows.sum(axis=1), layout) / size[:, None]
    rows = (rows - mean[layout.owner][:, None, :]).reshape(-1, x.shape[1])
    return mean, jnp.where(layout.index[:, None] >= 0, rows, 0)


def _shortening(x):
    """A factor below 1 by a little more than the rounding of a squared length of d entries."""
    return 1 - (4 + 2 * float(np.sqrt(x.shape[1]))) * float(jnp.finfo(x.dtype).eps)


def _gather(x, layout):
    return jnp.where(layout.index[:, None] >= 0, x[layout.index], 0)


def _per_cluster(of_block, layout):
    return jax.ops.segment_sum(of_block, layout.owner, layout.size.shape[0])


def _unit_scale(x, lengths):
    """The rows divided by a power of two near the largest of the lengths: no square of one overflows or vanishes."""
    _, exponent = jnp.frexp(jnp.max(jnp.abs(lengths)))
    return jnp.ldexp(x, -exponent)


def _on_sphere(x):
    """Rows of length 1; rows of zeros all go to the pole of one dimension more, at a right angle to the others."""
    return jnp.concatenate([normalize(x), (squared_norms(x) == 0)[:, None].astype(x.dtype)], axis=1)

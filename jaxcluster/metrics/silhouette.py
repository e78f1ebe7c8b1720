"""Silhouettes by one pass over row tiles × clusters: nothing larger than a tile of distances exists.

The distances of a tile of rows to one cluster are summed before the next cluster's are computed, so a row carries
only its mean distance within its own cluster and the least one to any other. The rows of a cluster are laid out in
blocks of one static size, and how many clusters, blocks and tiles there are is traced: another k or n in the same
bucket compiles nothing.

Rows are held relative to an origin within their own cluster, which the host takes off in the precision they come in;
a row that is compared with another cluster is moved by the difference of the two origins. So neither an offset, nor a
far row or cluster, nor the unit takes digits from a distance.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core.fold import tile_rows
from jaxcluster.core.frame import bucket, float_dtype
from jaxcluster.metrics.labels import Coded
from jaxcluster.ops.distance import distances_between, inner_products, metric_function, squared_norms
from jaxcluster.ops.host_distance import standardized_rows, unit_rows
from jaxcluster.types import Array, Bool, Float, Int

BLOCKS = (32, 64, 128, 256)
"""Rows of one cluster taken at a time: the largest that an average cluster fills."""

FUSED_ELEMENTS, CACHED_ELEMENTS, DEVICE_ELEMENTS = 1 << 21, 1 << 19, 1 << 24
"""Distances a tile: fused into their sum on a CPU, kept in its cache, and enough to fill an accelerator."""


ORIGIN_SAMPLE = 17
"""Rows of a cluster whose median is its origin."""

SAMPLED_COORDINATES = 1 << 20
"""Coordinates of such samples, of all clusters, up to which they are as large."""

LEAST_SAMPLE = 3
"""The fewest of them."""

UNSCALED_EXPONENTS = 20
"""Rows whose spread is between 2⁻²⁰ and 2²⁰ keep their unit: their squares are far from the limits of float32."""

LARGEST_EXPONENT = 40
"""No coordinate is above 2⁴⁰: sums of squares of 2²⁴ rows in 2¹¹ columns are below 2¹¹⁶."""

SUM_ERROR = 1e-5
"""Relative error of sums of distances from which on these are computed by differences where products are too rounded.
Of clusters without far groups of their own it is about 1e-7."""


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


class Rows(NamedTuple):
    """Rows relative to the origin of their cluster.

    Attributes:
        x: (n, d) rows, in a unit in which most coordinates are about 1 or less.
        label: cluster of each, −1 for padding.
        high, low: (k, d) the origins, in two parts whose sum has more digits than either.
        apart: (n,) mask of rows without a direction, at distance 1 from all; None where rows need none.
        unit: () what a distance of 1 without a unit, of unit rows, is here.
    """

    x: Float[Array, "n d"]
    label: Int[Array, " n"]
    high: Float[Array, "k d"]
    low: Float[Array, "k d"]
    apart: Bool[Array, " n"] | None
    unit: Float[Array, ""]


class Tile(NamedTuple):
    """Rows of a tile, which ones they are, and their clusters (−1 for padding) and the origins of these.

    Attributes:
        apart: see `Rows`.
    """

    x: Float[Array, "t d"]
    index: Int[Array, " t"]
    label: Int[Array, " t"]
    high: Float[Array, "t d"]
    low: Float[Array, "t d"]
    apart: Bool[Array, " t"] | None

    def seen_from(self, rows: Rows, cluster: Int[Array, ""]) -> Float[Array, "t d"]:
        """The rows relative to the origin of a cluster."""
        return self.x + ((self.high - rows.high[cluster][None, :]) + (self.low - rows.low[cluster][None, :]))


Sums = Callable[[Tile, Int[Array, ""]], Float[Array, " t"]]
"""The sum of the distances of each row of a tile to the rows of one cluster, itself left out."""


def problem(x: np.ndarray, coded: Coded, metric: str | Callable, p: float) -> tuple[tuple, dict[str, Any]]:
    """The arguments of `silhouettes`, positional and by name, for finite floating rows on the host and their labels.

    Args:
        metric: a plain name of one that depends on differences of rows alone, "cosine", "correlation", or a callable
            that JAX can trace.
    """
    size, k = bucket(len(x)), coded.counts.size
    capacity = bucket(k, least=8)
    block = max((b for b in BLOCKS if b <= size // capacity), default=BLOCKS[0])
    order = _by_cluster(coded)
    rows, far_groups = _relative_rows(x, coded, order, metric, size, capacity)
    euclidean = metric == "euclidean" and not far_groups
    on_cpu = FUSED_ELEMENTS if euclidean else CACHED_ELEMENTS
    tile = tile_rows(size, block, on_cpu if jax.default_backend() == "cpu" else DEVICE_ELEMENTS)
    counts = np.array([k, -(-len(x) // tile)], np.int32)
    layout = _lay_out(coded, order, block, capacity, size // block + capacity)
    named = "cosine" if metric == "correlation" else "refined" if metric == "euclidean" and far_groups else metric
    program = {"metric": named, "p": p if metric == "minkowski" else 2.0, "block": block, "tile": tile}
    return (rows, layout, *counts), program


def _by_cluster(coded):
    """The rows in the order of their clusters."""
    codes = coded.codes.astype(np.uint16) if coded.counts.size <= 1 << 16 else coded.codes  # sorted by radix
    return np.argsort(codes, kind="stable")


def _relative_rows(x, coded, order, metric, size, capacity):
    """The `Rows`, and whether some cluster has far groups of rows, within which products are too rounded."""
    apart = None
    if metric in ("cosine", "correlation"):
        x = unit_rows(x) if metric == "cosine" else standardized_rows(x)
        apart = np.zeros(size, bool)
        apart[: len(x)] = ~x.any(axis=1)
    dtype, k = float_dtype(x.dtype), coded.counts.size
    out = np.zeros((size, x.shape[1]), dtype)
    label = np.full(size, -1, np.int32)
    label[: len(x)] = coded.codes
    high, low = np.zeros((2, capacity, x.shape[1]), dtype)
    if callable(metric):
        out[: len(x)] = x
        return Rows(out, label, high, low, apart, dtype.type(1)), False
    origins, sample = _origins(x, coded, order)
    with np.errstate(under="ignore"):
        relative = x - np.take(origins, coded.codes, axis=0)
        away = sample.astype(np.float64) - origins[:, None]
        exponent = _exponent(np.abs(away).max(axis=2), max(-relative.min(), relative.max()))
        out[: len(x)] = np.ldexp(relative, exponent) if exponent else relative
        away = np.ldexp(away, exponent)
        origins = np.ldexp(origins.astype(np.float64) - origins[0], exponent)
        high[:k] = origins
        low[:k] = origins - high[:k]
        unit = dtype.type(1 if apart is None else np.ldexp(1.0, 2 * exponent))
    return Rows(out, label, high, low, apart, unit), metric == "euclidean" and _has_far_groups(away, dtype)


def _origins(x, coded, order):
    """The lower median, column by column, of a sample of each cluster, and the samples, (k, s, d)."""
    counts, starts = coded.counts[:, None], (np.cumsum(coded.counts) - coded.counts)[:, None]
    size = int(np.clip(SAMPLED_COORDINATES // (counts.size * x.shape[1]), LEAST_SAMPLE, ORIGIN_SAMPLE))
    sample = x[order[starts + np.arange(size) * counts // size]]
    return np.sort(sample, axis=1)[:, (size - 1) // 2], sample


def _exponent(radii, largest):
    """That of the power of two that brings the median of the positive radii near 1, and nothing beyond the largest."""
    positive = np.sort(radii[radii > 0], axis=None)
    typical = -int(np.frexp(positive[positive.size // 2] if positive.size else largest)[1])
    near_one = 0 if abs(typical) <= UNSCALED_EXPONENTS else typical
    return min(near_one, LARGEST_EXPONENT - int(np.frexp(largest)[1]))


def _has_far_groups(away, dtype):
    """Whether rounding of squares of sampled rows, (k, s, d) from their origins, tells in sums of their distances.

    A square is off by about eps·(‖x‖² + ‖y‖²), its root by that over twice the distance, or by the root of that.
    """
    norms = np.sum(away * away, axis=2)
    bound = np.finfo(dtype).eps * (norms[:, :, None] + norms[:, None, :])
    distances = np.sqrt(sum((part[:, :, None] - part[:, None, :]) ** 2 for part in np.moveaxis(away, 2, 0)))
    apart = distances > 0  # copies come out at distance 0 all the same
    error = np.where(apart, np.minimum(bound / (2 * np.where(apart, distances, 1)), np.sqrt(bound)), 0)
    return bool((error.sum(axis=(1, 2)) > SUM_ERROR * distances.sum(axis=(1, 2))).any())


def _lay_out(coded, order, block, capacity, blocks):
    k = coded.counts.size
    used = -(-coded.counts // block)
    first = np.full(capacity + 1, used.sum(), np.int32)
    first[: k + 1] = np.concatenate([[0], np.cumsum(used)])
    shift = first[:k] * block - (np.cumsum(coded.counts) - coded.counts)
    index = np.full(blocks * block, -1, np.int32)
    index[np.arange(order.size) + np.repeat(shift, coded.counts)] = order
    owner = np.full(blocks, capacity, np.int32)
    owner[: used.sum()] = np.repeat(np.arange(k), used)
    size = np.zeros(capacity, np.int32)
    size[:k] = coded.counts
    return Layout(index, owner, first, size)


@partial(jax.jit, static_argnames=("metric", "p", "block", "tile"))
def silhouettes(
    rows: Rows,
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
        rows: see there; clusters are in [0, k).
        layout: the rows by cluster.
        k, tiles: how many clusters and tiles of rows there are.
        metric: as in `problem`; "refined" is "euclidean" for clusters with far groups.
        p: Minkowski's power.
        block: rows of a block of the layout.
        tile: rows of a tile.

    Returns:
        The silhouettes; 0 for a cluster of one row and where all distances are 0. Padding holds anything.
    """
    sums_to = _sums_function(rows, layout, metric, p, block)

    def of_tile(t, out):
        start = jnp.minimum(t * tile, out.shape[0] - tile)

        def cut(per_row):
            return jax.lax.dynamic_slice_in_dim(per_row, start, tile)

        label = cut(rows.label)
        apart = None if rows.apart is None else cut(rows.apart)
        index = start + jnp.arange(tile, dtype=jnp.int32)
        some = Tile(cut(rows.x), index, label, rows.high[label], rows.low[label], apart)
        return jax.lax.dynamic_update_slice_in_dim(out, _of_rows(sums_to, some, layout.size, k), start, 0)

    return jax.lax.fori_loop(0, tiles, of_tile, jnp.zeros_like(rows.x[:, 0]))


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


def _sums_function(rows, layout, metric, p, block) -> Sums:
    if metric == "euclidean":
        return _euclidean_sums(rows, layout, block)
    if metric == "sqeuclidean":
        return _sqeuclidean_sums(rows, layout, block)
    if metric == "cosine":
        return _cosine_sums(rows, layout, block)
    return _metric_sums(rows, layout, metric_function("euclidean" if metric == "refined" else metric, p=p), block)


def _euclidean_sums(rows, layout, block) -> Sums:
    """Sums of ‖x − y‖, the square root of ‖x‖² − 2x·y + ‖y‖² about the origin of y's cluster.

    Around that origin cancellation costs digits only where a distance is far below the mean distance it is added to.
    Lengths are shortened by a little more than the rounding of the expansion, so that a row is at distance exactly 0
    from itself and its copies: a mask would do the same, but keeps the compiler from fusing product, root and sum
    into one loop that never writes the distances.
    """
    laid_out, shorten = _gather(rows.x, layout), _shortening(rows.x)
    length = jnp.where(layout.index >= 0, shorten * squared_norms(laid_out), -jnp.inf)

    def sums_to(tile, cluster):
        centered = tile.seen_from(rows, cluster)
        norms = shorten * squared_norms(centered)

        def add(j, total):
            y, norms_y = (jax.lax.dynamic_slice_in_dim(part, j * block, block) for part in (laid_out, length))
            squared = norms[:, None] + norms_y[None, :] - 2 * inner_products(centered, y)
            return total + jnp.sum(jnp.sqrt(jnp.maximum(squared, 0)), axis=1)

        return jax.lax.fori_loop(layout.first[cluster], layout.first[cluster + 1], add, jnp.zeros_like(norms))

    return sums_to


def _sqeuclidean_sums(rows, layout, block) -> Sums:
    """Sums of ‖x − y‖² from three sums over y alone: m‖x‖² − 2x·Σy + Σ‖y‖², with about the mean of y as the origin.

    Shortened as above, so that rows without any scatter are at distance exactly 0.
    """
    shorten = _shortening(rows.x)
    mean, laid_out = _around_means(rows.x, layout, block)
    rest = _per_cluster(laid_out.reshape(-1, block, laid_out.shape[1]).sum(axis=1), layout)
    scatter = _per_cluster(squared_norms(laid_out).reshape(-1, block).sum(axis=1), layout)

    def sums_to(tile, cluster):
        centered = tile.seen_from(rows, cluster) - mean[cluster][None, :]
        cross = jnp.sum(centered * rest[cluster][None, :], axis=1)
        squares = layout.size[cluster].astype(mean.dtype) * squared_norms(centered)
        return jnp.maximum(shorten * (squares + scatter[cluster]) - 2 * cross, 0)

    return sums_to


def _cosine_sums(rows, layout, block) -> Sums:
    """Sums of 1 − cos, half the squared distance on the sphere; a row of zeros is at 1 from every other row."""
    halves = _sqeuclidean_sums(rows, layout, block)
    apart = ((layout.index >= 0) & rows.apart[layout.index]).astype(rows.x.dtype)
    without = _per_cluster(apart.reshape(-1, block).sum(axis=1), layout)

    def sums_to(tile, cluster):
        size = layout.size[cluster]
        others = size.astype(tile.x.dtype) - (tile.label == cluster).astype(tile.x.dtype)
        # On the sphere a row of zeros, the middle, is half a squared length of 1 from all that have a direction.
        rest = halves(tile, cluster) / 2 + without[cluster] * rows.unit / 2
        return jnp.where(tile.apart, others * rows.unit, rest)

    return sums_to


def _metric_sums(rows, layout, distance, block) -> Sums:
    """Sums of any distance, block by block, with padding and the row itself masked."""
    laid_out = _gather(rows.x, layout)

    def sums_to(tile, cluster):
        seen = tile.seen_from(rows, cluster)

        def add(j, total):
            y, index = (jax.lax.dynamic_slice_in_dim(part, j * block, block) for part in (laid_out, layout.index))
            counted = (index >= 0)[None, :] & (index[None, :] != tile.index[:, None])
            distances = distances_between(distance, seen, y, ~counted)
            return total + jnp.sum(distances, axis=1).astype(total.dtype)

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

"""Silhouettes on the device, by one pass over tiles of samples × clusters: no array exceeds a tile of distances.

The distances of a tile of samples to one cluster are summed before the next cluster's are computed, so that a sample
carries only its mean distance within its own cluster and the least one to any other. The samples of a cluster are laid
out in blocks of one static size, and the numbers of clusters, blocks and tiles are traced: another k or n in the same
bucket compiles nothing.

Samples are stored relative to an origin within their own cluster, which the host subtracts in their own precision; a
sample that is compared with another cluster is shifted by the difference of the two origins. So neither an offset, nor
a far sample or cluster, nor the unit costs digits of a distance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcluster.core import chunks
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import float_dtype
from jaxcluster.core.fold import tile_rows
from jaxcluster.core.frame import Frame, is_crushed
from jaxcluster.core.preparation import padded_size
from jaxcluster.core.shard import automatic, axis_of
from jaxcluster.metrics.contingency import EncodedLabels
from jaxcluster.ops.distance import distances_between, inner_products, metric_function, squared_norms
from jaxcluster.ops.metric_space import standardized_rows, unit_rows
from jaxcluster.types import Array, Bool, Float, Int, Published

BLOCK_SIZES = (32, 64, 128, 256)
"""Samples of one cluster per block: the largest size that an average cluster fills."""

FUSED_ELEMENTS, CACHED_ELEMENTS, DEVICE_ELEMENTS = 1 << 21, 1 << 19, 1 << 24
"""Distances per tile: fused into their sum on a CPU (never written), kept in its cache (2 MiB), and enough to fill an
accelerator (64 MiB)."""

ORIGIN_SAMPLE, MIN_ORIGIN_SAMPLE = 17, 3
"""Samples of a cluster whose median is its origin, and the fewest, for very many or very wide clusters."""

ORIGIN_COORDINATES = 1 << 20
"""Coordinates of the origin samples of all clusters, beyond which there are fewer samples per cluster."""

UNSCALED_EXPONENTS = 20
"""Data whose spread is between 2⁻²⁰ and 2²⁰ keep their unit: squares up to 2⁴⁰ are far from float32's 2^±126."""

MAX_EXPONENT = 40
"""No coordinate is above 2⁴⁰: sums of squares of 2²⁴ samples in 2¹¹ columns are at most 2¹¹⁵, below 2¹²⁸."""

HEADROOM = 8
"""Exponents left to sums of squares over columns, below the limit of the dtype."""

MAX_SUM_ERROR = 1e-5
"""Relative error of sums of distances above which these are computed from differences instead of products. For clusters
without far groups it is about 1e-7."""


class BlockLayout(NamedTuple):
    """The samples cluster by cluster, each cluster padded to whole blocks.

    Attributes:
        index: the sample in each slot, −1 for padding.
        owner: the cluster of each block; the capacity of clusters for a block of padding.
        first: the first block of each cluster, and one past its last.
        size: samples of each cluster.
    """

    index: Int[Published, " slots"]
    owner: Int[Published, " blocks"]
    first: Int[Published, " clusters_and_1"]
    size: Int[Published, " clusters"]


class CenteredSamples(NamedTuple):
    """Samples relative to the origin of their cluster.

    Attributes:
        x: (n, d) samples, in a unit in which most coordinates are about 1 or less.
        label: cluster of each, −1 for padding.
        high, low: (k, d) the origins as unevaluated sums high + low, which have the digits of two floats.
        is_zero: (n,) mask of zero vectors, at cosine distance 1 from all; None for other metrics.
        unit: () a cosine distance of 1 in the unit of x.
    """

    x: Float[Published, "n d"]
    label: Int[Published, " n"]
    high: Float[Published, "k d"]
    low: Float[Published, "k d"]
    is_zero: Bool[Published, " n"] | None
    unit: Float[Published, ""]


class SampleTile(NamedTuple):
    """A tile of samples with their indices, clusters (−1 for padding) and cluster origins; see `CenteredSamples`."""

    x: Float[Published, "t d"]
    index: Int[Published, " t"]
    label: Int[Published, " t"]
    high: Float[Published, "t d"]
    low: Float[Published, "t d"]
    is_zero: Bool[Published, " t"] | None

    def centered_on(self, rows: CenteredSamples, cluster: Int[Array, ""]) -> Float[Array, "t d"]:
        """The samples relative to the origin of a cluster."""
        # High and low parts are subtracted separately: between near origins, high − high is exact (Sterbenz).
        return self.x + ((self.high - rows.high[cluster][None, :]) + (self.low - rows.low[cluster][None, :]))


DistanceSums = Callable[[SampleTile, Int[Array, ""]], Float[Array, " t"]]
"""The sum of the distances of each sample of a tile to the samples of one cluster, itself excluded."""


def silhouette_arguments(
    x: np.ndarray, encoded: EncodedLabels, metric: str | Callable, p: float
) -> tuple[tuple, dict[str, Any]] | None:
    """Arguments of `tiled_silhouettes` for finite floating samples on the host and their labels.

    Args:
        x: (n, d) samples.
        encoded: their labels.
        metric: a plain name of one that depends on differences of samples alone, "cosine", "correlation", or a callable
            that JAX can trace.
        p: Minkowski's power.

    Returns:
        The positional and the static keyword arguments; None if some samples are so far away that squared
        differences of the others underflow beside them, or theirs overflow.
    """
    size, k = padded_size(len(x)), encoded.counts.size
    capacity = padded_size(k, least=8)
    block = max((b for b in BLOCK_SIZES if b <= size // capacity), default=BLOCK_SIZES[0])
    # NumPy sorts 16-bit integers by radix, in O(n).
    codes = encoded.codes.astype(np.uint16) if encoded.counts.size <= 1 << 16 else encoded.codes
    order = np.argsort(codes, kind="stable")
    rows, far_groups = _center_samples(x, encoded, order, metric, size, capacity)
    if rows is None:
        return None
    euclidean = metric == "euclidean" and not far_groups
    cpu_elements = FUSED_ELEMENTS if euclidean else CACHED_ELEMENTS
    tile = tile_rows(size, block, cpu_elements if jax.default_backend() == "cpu" else DEVICE_ELEMENTS)
    # Traced: other numbers of clusters and tiles run the same program.
    counts = np.array([k, -(-len(x) // tile)], np.int32)
    layout = _block_layout(encoded, order, block, capacity, size // block + capacity)
    # Correlation is the cosine of standardized rows; "refined" is "euclidean" from differences.
    kernel = "cosine" if metric == "correlation" else "refined" if metric == "euclidean" and far_groups else metric
    program = {"metric": kernel, "p": p if metric == "minkowski" else 2.0, "block": block, "tile": tile}
    return (rows, layout, *counts), program


def _center_samples(x, encoded, order, metric, size, capacity):
    """Subtract the origin of each cluster.

    Returns:
        The `CenteredSamples`, None if they do not fit one unit; and True if a cluster has far
        groups of samples, for which products round too much.
    """
    is_zero = None
    if metric in ("cosine", "correlation"):
        x = unit_rows(x) if metric == "cosine" else standardized_rows(x)
        is_zero = np.zeros(size, bool)
        is_zero[: len(x)] = ~x.any(axis=1)
    dtype, k = float_dtype(x.dtype), encoded.counts.size
    out = np.zeros((size, x.shape[1]), dtype)
    label = np.full(size, -1, np.int32)
    label[: len(x)] = encoded.codes
    high, low = np.zeros((2, capacity, x.shape[1]), dtype)
    if callable(metric):
        out[: len(x)] = x
        return CenteredSamples(out, label, high, low, is_zero, dtype.type(1)), False
    origins, sample = _origins(x, encoded, order)
    with np.errstate(under="ignore"):
        centered = x - np.take(origins, encoded.codes, axis=0)
        centered_sample = sample.astype(np.float64) - origins[:, None]
        exponent, typical = _scale_exponent(np.abs(centered_sample).max(axis=2), max(-centered.min(), centered.max()))
        if is_crushed(Frame(origins[0], exponent), typical, dtype):
            return None, False
        out[: len(x)] = np.ldexp(centered, exponent) if exponent else centered
        centered_sample = np.ldexp(centered_sample, exponent)
        with np.errstate(over="ignore"):
            origins = np.ldexp(origins.astype(np.float64) - origins[0], exponent)
        if not np.abs(origins).max() < np.ldexp(1.0, int(np.finfo(dtype).maxexp) // 2 - HEADROOM):
            return None, False
        # The rounding of the first part is the second part.
        high[:k] = origins
        low[:k] = origins - high[:k]
        # A cosine distance is half a squared length on the sphere, and scales by the square.
        unit = dtype.type(1 if is_zero is None else np.ldexp(1.0, 2 * exponent))
    far_groups = metric == "euclidean" and _has_far_groups(centered_sample, dtype)
    return CenteredSamples(out, label, high, low, is_zero, unit), far_groups


def _origins(x, encoded, order):
    """The lower median, column by column, of a sample of each cluster, and the samples, (k, s, d)."""
    counts, starts = encoded.counts[:, None], (np.cumsum(encoded.counts) - encoded.counts)[:, None]
    size = int(np.clip(ORIGIN_COORDINATES // (counts.size * x.shape[1]), MIN_ORIGIN_SAMPLE, ORIGIN_SAMPLE))
    sample = x[order[starts + np.arange(size) * counts // size]]
    return np.sort(sample, axis=1)[:, (size - 1) // 2], sample


def _scale_exponent(radii, largest):
    """Exponent of the power of two that brings the median positive radius near 1, and no entry above 2^MAX_EXPONENT.

    Returns:
        The exponent, and that of the median radius.
    """
    positive = np.sort(radii[radii > 0], axis=None)
    typical = int(np.frexp(positive[positive.size // 2] if positive.size else largest)[1])
    near_one = 0 if abs(typical) <= UNSCALED_EXPONENTS else -typical
    return min(near_one, MAX_EXPONENT - int(np.frexp(largest)[1])), typical


def _has_far_groups(centered_sample, dtype):
    """True if ‖x‖² − 2x·y + ‖y‖² of (k, s, d) sampled pairs is too inexact for sums of their distances.

    The square is off by about eps·(‖x‖² + ‖y‖²), its root by that over twice the distance, or by the root of that.
    """
    norms = np.sum(centered_sample * centered_sample, axis=2)
    bound = np.finfo(dtype).eps * (norms[:, :, None] + norms[:, None, :])
    distances = np.sqrt(sum((part[:, :, None] - part[:, None, :]) ** 2 for part in np.moveaxis(centered_sample, 2, 0)))
    distinct = distances > 0  # duplicates get distance exactly 0, see `_euclidean_sums`
    error = np.where(distinct, np.minimum(bound / (2 * np.where(distinct, distances, 1)), np.sqrt(bound)), 0)
    return bool((error.sum(axis=(1, 2)) > MAX_SUM_ERROR * distances.sum(axis=(1, 2))).any())


def _block_layout(encoded, order, block, capacity, blocks):
    """The `BlockLayout` of samples in the order of their clusters."""
    k = encoded.counts.size
    # A block holds samples of one cluster, so that the sums to a cluster are over whole blocks; the last block of a
    # cluster is filled up with −1, which no sum counts.
    used = -(-encoded.counts // block)
    first = np.full(capacity + 1, used.sum(), np.int32)
    first[: k + 1] = np.concatenate([[0], np.cumsum(used)])
    shift = first[:k] * block - (np.cumsum(encoded.counts) - encoded.counts)
    index = np.full(blocks * block, -1, np.int32)
    index[np.arange(order.size) + np.repeat(shift, encoded.counts)] = order
    owner = np.full(blocks, capacity, np.int32)
    owner[: used.sum()] = np.repeat(np.arange(k), used)
    size = np.zeros(capacity, np.int32)
    size[:k] = encoded.counts
    return BlockLayout(index, owner, first, size)


def silhouettes(
    rows: CenteredSamples,
    layout: BlockLayout,
    k: Any,
    tiles: Any,
    *,
    tile: int,
    mesh: Mesh | None = None,
    own: slice = slice(None),
    **program: Any,
) -> np.ndarray:
    """`tiled_silhouettes` on the host, (n,), computed in parts between which Ctrl-C raises KeyboardInterrupt.

    With a mesh each device has all samples and computes an equal share of the tiles of a part. Of a slice ``own`` only
    the tiles with its samples are computed.
    """
    mesh = None if mesh is None else automatic(mesh)
    rows, layout = jax.device_put((rows, layout), None if mesh is None else NamedSharding(mesh, PartitionSpec()))
    out, devices = np.zeros(rows.x.shape[0], rows.x.dtype), 1 if mesh is None else mesh.size
    program["tile"] = tile

    tiles = int(tiles)
    begun, tiles = (0, tiles) if own == slice(None) else (own.start // tile, min(tiles, -(-own.stop // tile)))

    def run(first, stop):
        first, stop = first + begun, stop + begun
        limits = _split_range(first, stop, devices)
        if mesh is None:
            parts = [tiled_silhouettes(rows, layout, k, np.int32(stop), np.int32(first), **program)]
        else:
            parts = _spread_silhouettes(rows, layout, k, limits[1:], limits[:-1], mesh=mesh, **program)
        for begin, end, part in zip(limits[:-1], limits[1:], np.asarray(parts), strict=True):
            # The last tile of all reaches to the last row.
            done = slice(begin * tile, end * tile)
            out[done] = part[done]

    chunks.in_parts(run, tiles - begun, work=tile * rows.x.size / devices)
    return out


def _split_range(first, stop, devices):
    """(devices + 1,) limits of equal shares of a range of tiles."""
    return np.minimum(first + np.arange(devices + 1) * -(-(stop - first) // devices), stop).astype(np.int32)


@persistent_jit(static_argnames=("mesh", "metric", "p", "block", "tile"))
def _spread_silhouettes(rows, layout, k, stops, firsts, *, mesh, **program):
    """(devices, n) silhouettes of the tiles of each device."""

    def share(rows, layout, k, stop, first):
        return tiled_silhouettes(rows, layout, k, stop[0], first[0], **program)[None]

    one, all_of_them = PartitionSpec(axis_of(mesh)), PartitionSpec()
    in_specs = (all_of_them, all_of_them, all_of_them, one, one)
    # Devices exchange nothing, so that there is nothing to check.
    spread = jax.shard_map(share, mesh=mesh, in_specs=in_specs, out_specs=one, check_vma=False)
    return spread(rows, layout, k, stops, firsts)


@persistent_jit(static_argnames=("metric", "p", "block", "tile"))
def tiled_silhouettes(
    rows: CenteredSamples,
    layout: BlockLayout,
    k: Int[Array, ""],
    tiles: Int[Array, ""],
    first: Int[Array, ""] | int = 0,
    *,
    metric: str | Callable,
    p: float,
    block: int,
    tile: int,
) -> Float[Array, " n"]:
    """Silhouettes (b − a) / max(a, b): a the mean distance within the cluster, b the least to another cluster.

    Args:
        rows: the samples; labels are in [0, k).
        layout: the samples by cluster.
        k, tiles: numbers of clusters and of tiles.
        first: number of the first tile to compute; silhouettes of the tiles before it are 0.
        metric: as in `silhouette_arguments`; "refined" is "euclidean" for clusters with far groups.
        p: Minkowski's power.
        block: samples per block of the layout.
        tile: samples per tile.

    Returns:
        (n,) silhouettes; 0 for a cluster of one sample and where all distances are 0. Padding holds anything.
    """
    sums_to = _distance_sums(rows, layout, metric, p, block)

    def update_tile(t, out):
        # The last tile overlaps the one before it, so that all have one static size.
        start = jnp.minimum(t * tile, out.shape[0] - tile)

        def cut(per_row):
            return jax.lax.dynamic_slice_in_dim(per_row, start, tile)

        label = cut(rows.label)
        is_zero = None if rows.is_zero is None else cut(rows.is_zero)
        index = start + jnp.arange(tile, dtype=jnp.int32)
        samples = SampleTile(cut(rows.x), index, label, rows.high[label], rows.low[label], is_zero)
        return jax.lax.dynamic_update_slice_in_dim(out, _tile_scores(sums_to, samples, layout.size, k), start, 0)

    return jax.lax.fori_loop(first, tiles, update_tile, jnp.zeros_like(rows.x[:, 0]))


def _tile_scores(sums_to, rows, size, k):
    """Silhouettes of one tile, from a loop over the k clusters."""

    def visit(cluster, means):
        within, between = means
        total, count = sums_to(rows, cluster), size[cluster].astype(rows.x.dtype)
        own = rows.label == cluster
        # The distance of a sample from itself is 0, so that the mean over the others divides by one less.
        within = jnp.where(own, total / jnp.maximum(count - 1, 1), within)
        return within, jnp.where(own, between, jnp.minimum(between, total / count))

    zero = jnp.zeros_like(rows.x[:, 0])
    within, between = jax.lax.fori_loop(0, k, visit, (zero, zero + jnp.inf))
    larger = jnp.maximum(within, between)
    # A sample alone in its cluster has silhouette 0 by definition (Rousseeuw, 1987), and so has one at distance 0 from
    # all.
    defined = (larger > 0) & (size[rows.label] > 1)
    return jnp.where(defined, (between - within) / jnp.where(defined, larger, 1), 0)


def _distance_sums(rows, layout, metric, p, block) -> DistanceSums:
    if metric == "euclidean":
        return _euclidean_sums(rows, layout, block)
    if metric == "sqeuclidean":
        return _sqeuclidean_sums(rows, layout, block)
    if metric == "cosine":
        return _cosine_sums(rows, layout, block)
    return _metric_sums(rows, layout, metric_function("euclidean" if metric == "refined" else metric, p=p), block)


def _euclidean_sums(rows, layout, block) -> DistanceSums:
    """Sums of ‖x − y‖, the square root of ‖x‖² − 2x·y + ‖y‖² about the origin of y's cluster.

    Around that origin cancellation costs digits only where a distance is far below the mean distance it is added to.
    Squared norms are shortened by a little more than the rounding of the expansion, so that a sample is at distance
    exactly 0 from itself and its duplicates: a mask would do the same, but keeps the compiler from fusing product, root
    and sum into one loop that never writes the distances.
    """
    blocks, shorten = _gather_blocks(rows.x, layout), _shortening(rows.x)
    # Padding has norm −∞: the square is clipped to 0 and adds nothing.
    block_norms = jnp.where(layout.index >= 0, shorten * squared_norms(blocks), -jnp.inf)

    def sums_to(tile, cluster):
        centered = tile.centered_on(rows, cluster)
        norms = shorten * squared_norms(centered)

        def add(j, total):
            y, norms_y = (jax.lax.dynamic_slice_in_dim(part, j * block, block) for part in (blocks, block_norms))
            squared = norms[:, None] + norms_y[None, :] - 2 * inner_products(centered, y)
            return total + jnp.sum(jnp.sqrt(jnp.maximum(squared, 0)), axis=1)

        return jax.lax.fori_loop(layout.first[cluster], layout.first[cluster + 1], add, jnp.zeros_like(norms))

    return sums_to


def _sqeuclidean_sums(rows, layout, block) -> DistanceSums:
    """Sums of ‖x − y‖² from three sums over y alone: m‖x‖² − 2x·Σy + Σ‖y‖², with about the mean of y as the origin.

    The mean is rounded, so that Σy is small but not 0. Shortened as above, so that samples of a cluster without scatter
    are at distance exactly 0.
    """
    shorten = _shortening(rows.x)
    mean, blocks = _center_on_means(rows.x, layout, block)
    residual = _sum_per_cluster(blocks.reshape(-1, block, blocks.shape[1]).sum(axis=1), layout)
    scatter = _sum_per_cluster(squared_norms(blocks).reshape(-1, block).sum(axis=1), layout)

    def sums_to(tile, cluster):
        centered = tile.centered_on(rows, cluster) - mean[cluster][None, :]
        cross = jnp.sum(centered * residual[cluster][None, :], axis=1)
        squares = layout.size[cluster].astype(mean.dtype) * squared_norms(centered)
        # Not negative, whatever rounding leaves of the difference.
        return jnp.maximum(shorten * (squares + scatter[cluster]) - 2 * cross, 0)

    return sums_to


def _cosine_sums(rows, layout, block) -> DistanceSums:
    """Sums of 1 − cos, half the squared distance on the sphere; a zero vector is at 1 from every other sample."""
    squared_sums = _sqeuclidean_sums(rows, layout, block)
    is_zero = ((layout.index >= 0) & rows.is_zero[layout.index]).astype(rows.x.dtype)
    zero_count = _sum_per_cluster(is_zero.reshape(-1, block).sum(axis=1), layout)

    def sums_to(tile, cluster):
        size = layout.size[cluster]
        others = size.astype(tile.x.dtype) - (tile.label == cluster).astype(tile.x.dtype)
        # A zero vector is the center of the sphere: half its squared distance to a unit vector is 1/2, not 1.
        sums = squared_sums(tile, cluster) / 2 + zero_count[cluster] * rows.unit / 2
        return jnp.where(tile.is_zero, others * rows.unit, sums)

    return sums_to


def _metric_sums(rows, layout, distance, block) -> DistanceSums:
    """Sums of any distance, block by block, with padding and the sample itself masked."""
    blocks = _gather_blocks(rows.x, layout)

    def sums_to(tile, cluster):
        centered = tile.centered_on(rows, cluster)

        def add(j, total):
            y, index = (jax.lax.dynamic_slice_in_dim(part, j * block, block) for part in (blocks, layout.index))
            # A sample is masked, as distance(x, x) of a callable may be NaN or above 0.
            counted = (index >= 0)[None, :] & (index[None, :] != tile.index[:, None])
            distances = distances_between(distance, centered, y, ~counted)
            return total + jnp.sum(distances, axis=1).astype(total.dtype)

        return jax.lax.fori_loop(layout.first[cluster], layout.first[cluster + 1], add, jnp.zeros_like(tile.x[:, 0]))

    return sums_to


def _center_on_means(x, layout, block):
    """The rounded mean of each cluster, and the blocks of samples minus the mean of theirs; padding is 0."""
    rows = _gather_blocks(x, layout).reshape(-1, block, x.shape[1])
    size = jnp.maximum(layout.size, 1).astype(x.dtype)
    mean = _sum_per_cluster(rows.sum(axis=1), layout) / size[:, None]
    rows = (rows - mean[layout.owner][:, None, :]).reshape(-1, x.shape[1])
    return mean, jnp.where(layout.index[:, None] >= 0, rows, 0)


def _shortening(x):
    """A factor below 1 by a little more than the relative rounding of a squared norm of d entries.

    The roundings of d terms partly cancel: they add up like √d·eps, not d·eps.
    """
    return 1 - (4 + 2 * float(np.sqrt(x.shape[1]))) * float(jnp.finfo(x.dtype).eps)


def _gather_blocks(x, layout):
    return jnp.where(layout.index[:, None] >= 0, x[layout.index], 0)


def _sum_per_cluster(block_sums, layout):
    return jax.ops.segment_sum(block_sums, layout.owner, layout.size.shape[0])

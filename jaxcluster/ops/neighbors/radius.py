"""Neighbors within a radius, exactly: core masks, weighted counts and least labels; the (n, n) mask never exists.

Rows lie in k-d blocks, and dense work is done on the pairs of blocks whose boxes are near enough.

The device compares in float32. Each block is stored relative to its own origin, and the shift between two origins is
computed in float64 on the host: a far row, an odd column or an offset costs no digits of other blocks. A rounding bound
separates certain neighbors from possible ones. Where a result depends on the latter, the host compares in float64,
column by column: results are those of a plain float64 loop.

>>> from jaxcluster.ops.metric_space import as_metric_space
>>> space = as_metric_space(np.array([[0.0], [1.0], [5.0]]))
>>> core_mask(prepare_blocks(space.x, radius_query(space, 1.5)), 2).tolist()
[True, True, False]
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core.compilation import persistent_jit
from jaxcluster.ops.metric_space import MetricSpace
from jaxcluster.ops.neighbors.block_kernels import (
    NO_INDEX,
    PairBatch,
    block_sums,
    chunk_size,
    fold_pairs,
    pad_blocks,
    product_squares,
)
from jaxcluster.ops.neighbors.kd_blocks import BLOCK, UNIT_ROUNDOFF, partition
from jaxcluster.ops.neighbors.radius_pairs import (
    BANDS,
    FLOAT32_LIMIT,
    BlockPairs,
    BlockValue,
    PairFilter,
    RadiusBlocks,
    RadiusQuery,
    all_pairs,
    band_pairs,
    pair_batches,
)

PRODUCT_COLUMNS = 24
"""Columns beyond which squares come from matrix products. Measured: a third of the time in 32 columns, 1.5× in 16."""

HOST_PRODUCT_COLUMNS = 16
"""Columns beyond which the host computes squares by a matrix product first."""

HOST_TILE = 1 << 13
"""Rows of one tile of the host, each compared with a block."""

MAX_THRESHOLD = 2.0**64
"""Threshold beyond which lengths are in radii: a high power of them could overflow."""

MAX_EXPONENT = 1020
"""Powers of two up to this exponent are finite in float64, and so are their inverses."""

MEDIAN_ROWS = 5
"""Rows of a block whose median is its origin."""

COUNT_PACKING_BITS = 16
"""Bits of the certain count in an int32 of two counts, the possible one above it; both are at most `BLOCK`."""


def radius_query(space: MetricSpace, eps: float) -> RadiusQuery:
    """Closed ball of radius ``eps`` > 0, in the units of the metric, around the rows of a space.

    For the powers 1 and 2 the scale changes no comparison: a power of two is exact.
    """
    if eps == np.inf:
        return RadiusQuery(space.power, np.inf, 1.0)
    degree = 1 if space.power == np.inf else round(space.power * space.root)  # a distance is a length to this power
    # eps = scaled · 2^(exponent·degree): in the unit 2^exponent the radius is near 1.
    exponent = int(np.clip((np.frexp(eps)[1] - 1) // degree, -MAX_EXPONENT, MAX_EXPONENT))
    scaled, scale = np.ldexp(np.float64(eps), -exponent * degree), np.ldexp(1.0, -exponent)
    if space.power == np.inf:
        return RadiusQuery(space.power, float(scaled), float(scale))
    with np.errstate(over="ignore"):
        threshold = float(scaled ** (1 / space.root) / space.scale)
    if threshold > MAX_THRESHOLD:
        return RadiusQuery(space.power, 1.0, float(scale / scaled))
    return RadiusQuery(space.power, threshold, float(scale))


def query_sums(a: np.ndarray, b: np.ndarray, query: RadiusQuery) -> np.ndarray:
    """Σ(|a − b|·scale)^power over the last axis of two arrays that broadcast, added column by column."""
    total = np.zeros(np.broadcast_shapes(a.shape[:-1], b.shape[:-1]))
    with np.errstate(over="ignore", invalid="ignore"):
        for column in range(a.shape[-1]):
            # The difference is scaled, not the rows: a far row in the unit of a small radius would overflow.
            difference = (a[..., column] - b[..., column]) * query.scale
            if query.power == np.inf:
                np.maximum(total, np.abs(difference), out=total)
            elif query.power == 2:
                total += difference * difference
            else:
                total += np.abs(difference) if query.power == 1 else np.abs(difference) ** query.power
    return total


def neighbor_mask(x: np.ndarray, index: np.ndarray, query: RadiusQuery) -> np.ndarray:
    """(m, n) mask of the neighbors of some of n rows, compared in float64 on the host."""
    if query.power != 2 or x.shape[1] <= HOST_PRODUCT_COLUMNS:
        return query_sums(x[index, None], x[None], query) <= query.threshold
    # A matrix product is faster than a loop over columns. Pairs within its rounding error are compared by differences.
    with np.errstate(over="ignore", invalid="ignore"):
        centered = (x - np.median(x[index], axis=0)) * query.scale
        norms = np.einsum("ij,ij->i", centered, centered)
        both = norms[index, None] + norms
        squares = both - 2 * (centered[index] @ centered.T)
        error = (2 * x.shape[1] + 16) * np.finfo(float).eps * both
        inside = squares + error <= query.threshold
        first, second = np.nonzero(~inside & ~(squares - error > query.threshold))
    for start in range(0, len(first), HOST_TILE):
        some = slice(start, start + HOST_TILE)
        inside[first[some], second[some]] = query_sums(x[index[first[some]]], x[second[some]], query) <= query.threshold
    return inside


def prepare_blocks(x: np.ndarray, query: RadiusQuery) -> RadiusBlocks:
    """Prepare (n, d) finite concrete rows for radius searches."""
    blocks = partition(x)
    filled = (blocks.index >= 0)[:, :, None]
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (np.ascontiguousarray(bound.T * query.scale) for bound in (blocks.low, blocks.high))
        # The median of a few rows: a far row of the block is rounded itself, and costs the others no digits.
        some = slice(None, None, BLOCK // MEDIAN_ROWS)
        middle = np.median(np.where(filled[:, some], blocks.x[:, some], blocks.low[:, None]), axis=1)
        rows = np.where(filled, blocks.x - middle[:, None], 0)
        rows *= query.scale / query.radius
        extent = np.abs(rows).max(axis=(1, 2))
        # Blocks beyond float32 get an infinite extent: the host compares their pairs.
        extent = np.where(extent < FLOAT32_LIMIT, extent, np.inf)
        rows = np.where(np.isfinite(extent)[:, None, None], rows, 0).astype(np.float32)
    return RadiusBlocks(blocks, query, low, high, middle, extent, pad_blocks(np.swapaxes(rows, 1, 2), 0))


def split_weights(weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Split finite weights into two parts whose sums are exact together.

    The high part holds multiples of a unit so large that no sum of them is rounded; the low part is so small that the
    rounding of its sums does not matter. The sum of both is the exact one, rounded once, in any order of additions.

    Returns:
        A power of two that brings the weights near 1, and the high and low parts of the scaled weights.
    """
    exponent = int(np.clip(np.frexp(np.abs(weights).max())[1], -MAX_EXPONENT, MAX_EXPONENT))
    scale = float(np.ldexp(1.0, -exponent))
    scaled = weights.astype(np.float64) * scale
    # |Σ| <= n < 2^bits: a sum of multiples of 2^(bits − 51) has at most 52 bits, and float64 does not round it.
    unit = np.ldexp(1.0, len(weights).bit_length() - 51)
    high = np.rint(scaled / unit) * unit
    return scale, high, scaled - high


def core_mask(data: RadiusBlocks, at_least: float, weights: np.ndarray | None = None) -> np.ndarray:
    """(n,) mask of the core rows: those with at least so many neighbors, themselves included, or so much weight.

    Blocks whose rows are all core rows are skipped; in dense clusters that is soon. With negative weights all blocks
    are needed: a neighbor may lower the sum again.

    Args:
        data: n rows.
        at_least: least count or sum.
        weights: (n,) finite weights of the rows; None to count them.
    """
    blocks = data.blocks
    n, real = int((blocks.index >= 0).sum()), blocks.index >= 0
    error = underflow = 0.0
    if weights is None:
        signed = [blocks.to_blocks(np.ones(n, np.int32), 0)]
    else:
        scale, high, low = split_weights(weights)
        at_least = at_least * scale
        scaled = blocks.to_blocks(high + low, 0)
        # Positive and negative weights are summed apart: without cancellation the relative error is bounded.
        signed = [np.maximum(scaled, 0), *([np.maximum(-scaled, 0)] if (scaled < 0).any() else [])]
        # Relative error of float32 sums over a block and then over all blocks, and absolute error of underflow.
        error, underflow = 2 * UNIT_ROUNDOFF * (BLOCK + len(blocks.x)), n * float(np.finfo(np.float32).tiny)
    values = tuple(pad_blocks(part.astype(np.int32 if weights is None else np.float32), 0) for part in signed)
    certain, possible = ([np.zeros(real.shape) for _ in signed] for _ in range(2))
    wanted = real.any(axis=1)

    def add_whole(pairs):
        for part, of_certain, of_possible in zip(signed, certain, possible, strict=True):
            whole_sums = pairs.sums(part.sum(axis=1))[:, None]
            of_certain += whole_sums
            of_possible += whole_sums

    for band in range(len(BANDS)):
        # The filter of this band excludes blocks that earlier bands decided.
        pair_filter = PairFilter((BlockValue(wanted, np.logical_or),), lambda first, _, wanted: wanted[first])
        totals = tuple((jnp.zeros_like(value), jnp.zeros_like(value)) for value in values)
        for batch in pair_batches(data, band_pairs(data, band, pair_filter), add_whole):
            totals = _add_values(data.query.power, data.rows, values, batch, totals)
        for part, both in enumerate(totals):
            certain[part] += np.asarray(both[0])[: len(real)]
            possible[part] += np.asarray(both[1])[: len(real)]
        lower = certain[0] * (1 - error) - underflow
        if len(signed) == 1:
            wanted = ((lower < at_least) & real).any(axis=1)
    upper = possible[0] * (1 + error) + underflow
    if len(signed) == 2:
        lower, upper = lower - possible[1] * (1 + error) - underflow, upper - certain[1] * (1 - error) + underflow
    core = blocks.rows(lower >= at_least, n)
    undecided = ~core & blocks.rows(upper >= at_least, n)
    if undecided.any():
        parts = (np.ones(n),) if weights is None else (high, low)
        core[undecided] = exact_sums(data, undecided, parts) >= at_least
    return core


def exact_sums(data: RadiusBlocks, rows: np.ndarray, parts: tuple[np.ndarray, ...]) -> np.ndarray:
    """(m,) float64 sums over the neighbors of the rows of an (n,) mask, compared on the host.

    Args:
        data: n rows.
        rows: the mask.
        parts: (n,) values that are summed separately, and then added: see `split_weights`.
    """
    values = [data.blocks.to_blocks(part, 0) for part in parts]
    wanted = data.blocks.to_blocks(rows, False)
    sums_of_parts = [np.zeros(wanted.shape) for _ in parts]
    pair_filter = PairFilter((BlockValue(wanted.any(axis=1), np.logical_or),), lambda first, _, wanted: wanted[first])
    for pairs in all_pairs(data, pair_filter):
        for value, total in zip(values, sums_of_parts, strict=True):
            total += pairs.sums(value.sum(axis=1))[:, None]
        for slots, second, inside in _compare(data, pairs.near, wanted):
            for value, total in zip(values, sums_of_parts, strict=True):
                np.add.at(total, slots, np.einsum("pj,pj->p", inside, value[second]))
    return data.blocks.rows(sum(sums_of_parts), len(rows))[rows]


class LeastLabels(NamedTuple):
    """Least labels among the neighbors of each slot, `NO_INDEX` for none.

    Attributes:
        labels: (b, BLOCK) over the near pairs of blocks.
        whole: (b, 1) over the whole pairs.
        touching: (p, 2) near pairs in which a wanted slot has a labeled neighbor.
    """

    labels: np.ndarray
    whole: np.ndarray
    touching: np.ndarray


def least_labels(
    data: RadiusBlocks, labels: np.ndarray, wanted: np.ndarray, parts: Iterable[BlockPairs], *, certain: bool
) -> LeastLabels:
    """Least label among the neighbors of each slot, over some pairs of blocks.

    Args:
        data: n rows.
        labels: (b, BLOCK) int32 labels of slots, `NO_INDEX` for none.
        wanted: (b, BLOCK) mask of the slots of interest, for ``touching``; the others get labels too.
        parts: pairs of blocks.
        certain: False counts possible neighbors too.
    """
    on_device, mask = pad_blocks(labels, NO_INDEX), pad_blocks(wanted, False)
    least = jnp.full_like(on_device, NO_INDEX)
    of_blocks, of_whole = labels.min(axis=1), np.full(len(labels), NO_INDEX, labels.dtype)
    touching: list[Any] = [np.empty((0, 2), np.int32)]

    def fold_whole(pairs):
        np.minimum(of_whole, pairs.least(of_blocks, NO_INDEX), out=of_whole)

    for batch in pair_batches(data, parts, fold_whole):
        least, touch = _least(data.query.power, data.rows, on_device, mask, batch, np.bool_(certain), least)
        touching.append(batch.pairs[: batch.count][np.asarray(touch)[: batch.count]])
    return LeastLabels(np.asarray(least)[: len(labels)], of_whole[:, None], np.concatenate(touching))


def exact_least_labels(data: RadiusBlocks, labels: np.ndarray, wanted: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(b, BLOCK) least label near each wanted slot over (p, 2) pairs of blocks, compared on the host."""
    least = np.full(labels.shape, NO_INDEX, labels.dtype)
    for slots, second, inside in _compare(data, pairs, wanted):
        np.minimum.at(least, slots, np.where(inside, labels[second], NO_INDEX).min(axis=1))
    return least


def _compare(data, pairs, wanted):
    """Wanted slots in tiles, the block that each is compared with, and the mask of its neighbors there in float64."""
    x, first = data.blocks.x, pairs[:, 0]
    counts = wanted.sum(axis=1)[first]
    which = np.repeat(np.arange(len(pairs)), counts)
    rows = np.nonzero(wanted)
    starts = np.concatenate([[0], np.cumsum(wanted.sum(axis=1))])
    at = starts[first[which]] + np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    for start in range(0, len(which), HOST_TILE):
        some = slice(start, start + HOST_TILE)
        slots, second = (rows[0][at[some]], rows[1][at[some]]), pairs[which[some], 1]
        inside = query_sums(x[slots][:, None], x[second], data.query) <= data.query.threshold
        yield slots, second, inside & (data.blocks.index[second] >= 0)


def _fold_batch(power, rows, batch, chunk, start):
    """Fold over the pairs of a batch: chunk(carry, a, b, limits, first, second, real) -> carry."""
    size, most = chunk_size(rows.shape[1], power), batch.pairs.shape[0] - 1

    def shifted(at):
        slots = jnp.minimum(at + jnp.arange(size, dtype=jnp.int32), most)
        return rows[batch.pairs[slots, 0]] + batch.shift[slots][:, :, None]

    def with_rows(carry, first, second, real, at):
        # The rows of the next chunk are shifted here and carried. Else XLA fuses the gather with the comparison of each
        # pair of rows, and computes its index anew for all of them: measured, 40 times slower.
        a, values = carry
        slots = at + jnp.arange(size, dtype=jnp.int32)
        values = chunk(values, a, rows[second], batch.limits[slots], first, second, real)
        return shifted(at + size), values

    return fold_pairs(PairBatch(batch.pairs, batch.count), with_rows, (shifted(jnp.int32(0)), start), size=size)[1]


def _sums(power, a, b):
    """(c, BLOCK, BLOCK) sums of the rows of the first blocks (last axis) and the second, and their rounding error."""
    if power != 2 or a.shape[1] <= PRODUCT_COLUMNS:
        return block_sums(power, a, b), 0
    squares, norms = product_squares(a, b)
    return squares, np.float32(2 * (a.shape[1] + 8) * UNIT_ROUNDOFF) * norms


def _is_certain(sums, error, limits):
    return sums + error <= limits[:, 0][:, None, None]


def _is_possible(sums, error, limits):
    return ~(sums - error > limits[:, 1][:, None, None])  # what overflows is possible


@persistent_jit(static_argnums=0)
def _add_values(power, rows, values, batch, sums):
    """Add the values near each slot over a batch of pairs, of certain and of possible neighbors.

    Int32 values are 1 for a row and 0 for none.
    """

    def chunk(sums, a, b, limits, first, second, real):
        sums_and_error = _sums(power, a, b)
        masks = _is_certain(*sums_and_error, limits), _is_possible(*sums_and_error, limits)
        out = []
        for value, (certain, possible) in zip(values, sums, strict=True):
            block_values = jnp.where(real[:, None], value[second], 0)[:, :, None]
            if value.dtype == jnp.int32:
                # Both counts in one int32: two sums would take twice as long.
                both = masks[0].astype(jnp.int32) + masks[1].astype(jnp.int32) * (1 << COUNT_PACKING_BITS)
                counts = jnp.sum(both * block_values, axis=1, dtype=jnp.int32)
                added = counts % (1 << COUNT_PACKING_BITS), counts >> COUNT_PACKING_BITS
            else:
                added = tuple(jnp.sum(jnp.where(each, block_values, 0), axis=1) for each in masks)
            out.append((certain.at[first].add(added[0]), possible.at[first].add(added[1])))
        return tuple(out)

    return _fold_batch(power, rows, batch, chunk, sums)


@persistent_jit(static_argnums=0)
def _least(power, rows, labels, wanted, batch, certain, least):
    """Least labels near each slot, and mask of the pairs in which a wanted slot has such a neighbor."""
    # One program for both masks. A possible neighbor is one whose sum is not above the limit, which includes NaN.
    sign, limits = jnp.where(certain, 1, -1).astype(jnp.float32), batch.limits[:, jnp.where(certain, 0, 1)]
    batch = batch._replace(limits=limits)

    def chunk(carry, a, b, limits, first, second, real):
        least, touch, at = carry
        sums, error = _sums(power, a, b)
        inside = ~(sums + sign * error > limits[:, None, None])
        candidates = jnp.where(inside & real[:, None, None], labels[second][:, :, None], NO_INDEX)
        smallest = jnp.min(candidates, axis=1)
        touches = jnp.any((smallest < NO_INDEX) & wanted[first], axis=1)
        touch = jax.lax.dynamic_update_slice_in_dim(touch, touches, at, 0)
        return least.at[first].min(smallest), touch, at + len(first)

    start = least, jnp.zeros(batch.pairs.shape[0], bool), jnp.int32(0)
    least, touch, _ = _fold_batch(power, rows, batch, chunk, start)
    return least, touch

"""Neighbors within a radius of each row, exactly: counts, sums of weights and least labels; n×n is never built.

Rows are put in blocks, and dense work is done on the pairs of blocks whose boxes are near enough.

The device compares in float32. Each block is held relative to its own middle, and of each pair of blocks the host says
how far the middles are apart, in float64: a far row, an odd column or an offset takes no digits from other blocks. A
bound on the rounding tells the pairs of rows that are near for sure from those that may be near. Where an answer
depends on the latter, the host compares in float64, column by column: the answers are a plain float64 loop's.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.ops.metric_space import MetricSpace
from jaxcluster.ops.neighbors.block_kernels import (
    NOBODY,
    Todo,
    chunk_size,
    fold_pairs,
    room,
    squares_by_products,
    sums_of_blocks,
)
from jaxcluster.ops.neighbors.kd_blocks import BLOCK, UNIT, partition
from jaxcluster.ops.neighbors.radius_pairs import (
    BANDS,
    LARGEST,
    Asked,
    Ball,
    Near,
    Pairs,
    PerBlock,
    all_pairs,
    batches,
    pairs_of_band,
)

PRODUCT_COLUMNS = 24
"""Columns beyond which squares come from matrix products: measured, of 32 a third of the time, of 16 one and a half."""

HOST_PRODUCT_COLUMNS = 16
"""Columns beyond which the host finds squares by a matrix product first."""

HOST_ROWS = 1 << 13
"""Rows that the host compares with a block each at a time."""

LARGEST_REACH = 2.0**64
"""Reach beyond which lengths are measured in radii, lest a high power of them overflow."""

EXPONENTS = 1020
"""Powers of two up to so many are float64 numbers, and so are their inverses."""

MEDIAN_ROWS = 5
"""Rows of a block whose median is its middle."""

COUNT_BITS = 16
"""Two counts of at most `BLOCK` rows are added up in one int32, the possible one so many bits above the sure one."""


def ball_of(space: MetricSpace, eps: float) -> Ball:
    """The closed ball of radius ``eps`` > 0, in the units of the metric, around the rows of a space.

    For the powers 1 and 2 the scale changes no comparison: a power of two is exact.
    """
    if eps == np.inf:
        return Ball(space.power, np.inf, 1.0)
    degree = 1 if space.power == np.inf else round(space.power * space.root)  # a distance is a length to this power
    exponent = int(np.clip((np.frexp(eps)[1] - 1) // degree, -EXPONENTS, EXPONENTS))
    scaled, scale = np.ldexp(np.float64(eps), -exponent * degree), np.ldexp(1.0, -exponent)
    if space.power == np.inf:
        return Ball(space.power, float(scaled), float(scale))
    with np.errstate(over="ignore"):
        reach = float(scaled ** (1 / space.root) / space.scale)
    if reach > LARGEST_REACH:
        return Ball(space.power, 1.0, float(scale / scaled))
    return Ball(space.power, reach, float(scale))


def sums(a: np.ndarray, b: np.ndarray, ball: Ball) -> np.ndarray:
    """Σ(|a − b|·scale)^power over the last axis of two arrays that broadcast, added as a plain loop adds."""
    total = np.zeros(np.broadcast_shapes(a.shape[:-1], b.shape[:-1]))
    with np.errstate(over="ignore", invalid="ignore"):
        for column in range(a.shape[-1]):
            # The difference is scaled, not the rows: a far row in the unit of a small ball would be infinite.
            difference = (a[..., column] - b[..., column]) * ball.scale
            if ball.power == np.inf:
                np.maximum(total, np.abs(difference), out=total)
            elif ball.power == 2:
                total += difference * difference
            else:
                total += np.abs(difference) if ball.power == 1 else np.abs(difference) ** ball.power
    return total


def within(x: np.ndarray, index: np.ndarray, ball: Ball) -> np.ndarray:
    """(m, n) mask: the neighbors of some of n rows, compared in float64 on the host."""
    if ball.power != 2 or x.shape[1] <= HOST_PRODUCT_COLUMNS:
        return sums(x[index, None], x[None], ball) <= ball.reach
    # A matrix product is faster than a loop over columns. Where its rounding could decide, differences do.
    with np.errstate(over="ignore", invalid="ignore"):
        moved = (x - np.median(x[index], axis=0)) * ball.scale
        norms = np.einsum("ij,ij->i", moved, moved)
        both = norms[index, None] + norms
        squares = both - 2 * (moved[index] @ moved.T)
        error = (2 * x.shape[1] + 16) * np.finfo(float).eps * both
        near = squares + error <= ball.reach
        first, second = np.nonzero(~near & ~(squares - error > ball.reach))
    for start in range(0, len(first), HOST_ROWS):
        some = slice(start, start + HOST_ROWS)
        near[first[some], second[some]] = sums(x[index[first[some]]], x[second[some]], ball) <= ball.reach
    return near


def prepare(x: np.ndarray, ball: Ball) -> Near:
    """Prepares (n, d) finite concrete rows."""
    blocks = partition(x)
    filled = (blocks.index >= 0)[:, :, None]
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (np.ascontiguousarray(bound.T * ball.scale) for bound in (blocks.low, blocks.high))
        # A median of some: a far row among those of a block is rounded itself, and leaves the others their digits.
        some = slice(None, None, BLOCK // MEDIAN_ROWS)
        middle = np.median(np.where(filled[:, some], blocks.x[:, some], blocks.low[:, None]), axis=1)
        rows = np.where(filled, blocks.x - middle[:, None], 0)
        rows *= ball.scale / ball.radius
        extent = np.abs(rows).max(axis=(1, 2))
        extent = np.where(extent < LARGEST, extent, np.inf)
        rows = np.where(np.isfinite(extent)[:, None, None], rows, 0).astype(np.float32)
    return Near(blocks, ball, low, high, middle, extent, room(np.swapaxes(rows, 1, 2), 0))


def split_weights(weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """A power of two that brings finite weights near 1, and the scaled weights as sums of two parts.

    The first part holds multiples of a unit so large that no sum of them is rounded; what it leaves is so small that
    rounding of its sums does not matter. Their sum is the exact one, rounded once, in whatever order it is taken.
    """
    exponent = int(np.clip(np.frexp(np.abs(weights).max())[1], -EXPONENTS, EXPONENTS))
    scale = float(np.ldexp(1.0, -exponent))
    scaled = weights.astype(np.float64) * scale
    unit = np.ldexp(1.0, len(weights).bit_length() - 51)
    high = np.rint(scaled / unit) * unit
    return scale, high, scaled - high


def core_mask(near: Near, at_least: float, weights: np.ndarray | None = None) -> np.ndarray:
    """(n,) mask of the rows with so many neighbors, themselves among these, or so much of their weight.

    Blocks of which all rows are known to have enough are looked at no more. Where clusters are, that is soon. Where
    weights are negative all is looked at: a neighbor may take away what others gave.

    Args:
        near: n rows.
        at_least: count or sum.
        weights: (n,) finite numbers to be added up in place of counting.
    """
    blocks = near.blocks
    n, real = int((blocks.index >= 0).sum()), blocks.index >= 0
    error = lost = 0.0
    if weights is None:
        signed = [blocks.places(np.ones(n, np.int32), 0)]
    else:
        scale, high, low = split_weights(weights)
        at_least = at_least * scale
        scaled = blocks.places(high + low, 0)
        signed = [np.maximum(scaled, 0), *([np.maximum(-scaled, 0)] if (scaled < 0).any() else [])]
        # Of a float32 sum over a block, then over all blocks; and what float32 takes for zero.
        error, lost = 2 * UNIT * (BLOCK + len(blocks.x)), n * float(np.finfo(np.float32).tiny)
    values = tuple(room(part.astype(np.int32 if weights is None else np.float32), 0) for part in signed)
    sure, possible = ([np.zeros(real.shape) for _ in signed] for _ in range(2))
    wanted = real.any(axis=1)

    def add_whole(pairs):
        for part, of_sure, of_possible in zip(signed, sure, possible, strict=True):
            given = pairs.sums(part.sum(axis=1))[:, None]
            of_sure += given
            of_possible += given

    for band in range(len(BANDS)):
        asked = Asked((PerBlock(wanted, np.logical_or),), lambda first, _, wanted: wanted[first])
        found = tuple((jnp.zeros_like(value), jnp.zeros_like(value)) for value in values)
        for batch in batches(near, pairs_of_band(near, band, asked), add_whole):
            found = _add_up(near.ball.power, near.rows, values, batch, found)
        for part, both in enumerate(found):
            sure[part] += np.asarray(both[0])[: len(real)]
            possible[part] += np.asarray(both[1])[: len(real)]
        lower = sure[0] * (1 - error) - lost
        if len(signed) == 1:
            wanted = ((lower < at_least) & real).any(axis=1)
    upper = possible[0] * (1 + error) + lost
    if len(signed) == 2:
        lower, upper = lower - possible[1] * (1 + error) - lost, upper - sure[1] * (1 - error) + lost
    core = blocks.rows(lower >= at_least, n)
    unclear = ~core & blocks.rows(upper >= at_least, n)
    if unclear.any():
        parts = (np.ones(n),) if weights is None else (high, low)
        core[unclear] = exact_sums(near, unclear, parts) >= at_least
    return core


def exact_sums(near: Near, rows: np.ndarray, parts: tuple[np.ndarray, ...]) -> np.ndarray:
    """(m,) float64 sums over the neighbors of those rows that an (n,) mask picks, compared on the host.

    Args:
        near: n rows.
        rows: mask.
        parts: (n,) values that are added up one by one, and their sums then: see `split_weights`.
    """
    values = [near.blocks.places(part, 0) for part in parts]
    wanted = near.blocks.places(rows, False)
    sums_of_parts = [np.zeros(wanted.shape) for _ in parts]
    asked = Asked((PerBlock(wanted.any(axis=1), np.logical_or),), lambda first, _, wanted: wanted[first])
    for pairs in all_pairs(near, asked):
        for value, total in zip(values, sums_of_parts, strict=True):
            total += pairs.sums(value.sum(axis=1))[:, None]
        for places, second, inside in _compare(near, pairs.near, wanted):
            for value, total in zip(values, sums_of_parts, strict=True):
                np.add.at(total, places, np.einsum("pj,pj->p", inside, value[second]))
    return near.blocks.rows(sum(sums_of_parts), len(rows))[rows]


class Least(NamedTuple):
    """The least labels among the neighbors of each place, `NOBODY` for none.

    Attributes:
        labels: (b, BLOCK) over the near pairs of blocks.
        whole: (b, 1) over the whole pairs.
        touching: (p, 2) those near pairs in which a wanted place has a neighbor with a label.
    """

    labels: np.ndarray
    whole: np.ndarray
    touching: np.ndarray


def least_labels(near: Near, labels: np.ndarray, wanted: np.ndarray, parts: Iterable[Pairs], *, surely: bool) -> Least:
    """The least label among the neighbors of each place, over some pairs of blocks.

    Args:
        near: n rows.
        labels: (b, BLOCK) int32 labels of places, `NOBODY` for none.
        wanted: (b, BLOCK) mask of the places whose neighbors are asked for; the others have labels too.
        parts: pairs of blocks.
        surely: False takes for neighbors the rows that may be some.
    """
    on_device, mask = room(labels, NOBODY), room(wanted, False)
    least = jnp.full_like(on_device, NOBODY)
    of_blocks, of_whole = labels.min(axis=1), np.full(len(labels), NOBODY, labels.dtype)
    touching = [np.empty((0, 2), np.int32)]

    def look_at_whole(pairs):
        np.minimum(of_whole, pairs.least(of_blocks, NOBODY), out=of_whole)

    for batch in batches(near, parts, look_at_whole):
        least, touch = _least(near.ball.power, near.rows, on_device, mask, batch, np.bool_(surely), least)
        touching.append(batch.pairs[: batch.count][np.asarray(touch)[: batch.count]])
    return Least(np.asarray(least)[: len(labels)], of_whole[:, None], np.concatenate(touching))


def exact_least_labels(near: Near, labels: np.ndarray, wanted: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(b, BLOCK) the least label near each wanted place over (p, 2) pairs of blocks, compared on the host."""
    least = np.full(labels.shape, NOBODY, labels.dtype)
    for places, second, inside in _compare(near, pairs, wanted):
        np.minimum.at(least, places, np.where(inside, labels[second], NOBODY).min(axis=1))
    return least


def _compare(near, pairs, wanted):
    """Some picked places at a time, the block that each is compared with, and which of its rows are near in float64."""
    x, first = near.blocks.x, pairs[:, 0]
    counts = wanted.sum(axis=1)[first]
    which = np.repeat(np.arange(len(pairs)), counts)
    rows = np.nonzero(wanted)
    starts = np.concatenate([[0], np.cumsum(wanted.sum(axis=1))])
    at = starts[first[which]] + np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    for start in range(0, len(which), HOST_ROWS):
        some = slice(start, start + HOST_ROWS)
        places, second = (rows[0][at[some]], rows[1][at[some]]), pairs[which[some], 1]
        inside = sums(x[places][:, None], x[second], near.ball) <= near.ball.reach
        yield places, second, inside & (near.blocks.index[second] >= 0)


def _fold_batch(power, rows, batch, chunk, start):
    """Goes over the pairs of a batch: chunk(carry, a, b, limits, first, second, real) -> carry."""
    size, most = chunk_size(rows.shape[1], power), batch.pairs.shape[0] - 1

    def shifted(at):
        places = jnp.minimum(at + jnp.arange(size, dtype=jnp.int32), most)
        return rows[batch.pairs[places, 0]] + batch.shift[places][:, :, None]

    def with_rows(carry, first, second, real, at):
        # The next chunk's rows are made here and carried. XLA would fuse a sum or a slice with the comparison of each
        # two rows, and compute its index anew for all of them: measured, 40 times slower.
        a, values = carry
        places = at + jnp.arange(size, dtype=jnp.int32)
        values = chunk(values, a, rows[second], batch.limits[places], first, second, real)
        return shifted(at + size), values

    return fold_pairs(Todo(batch.pairs, batch.count), with_rows, (shifted(jnp.int32(0)), start), size=size)[1]


def _sums(power, a, b):
    """(c, BLOCK, BLOCK) sums of the rows of the first blocks (last axis) and the second, and their rounding error."""
    if power != 2 or a.shape[1] <= PRODUCT_COLUMNS:
        return sums_of_blocks(power, a, b), 0
    squares, norms = squares_by_products(a, b)
    return squares, np.float32(2 * (a.shape[1] + 8) * UNIT) * norms


def _is_sure(sums, error, limits):
    return sums + error <= limits[:, 0][:, None, None]


def _is_possible(sums, error, limits):
    return ~(sums - error > limits[:, 1][:, None, None])  # what overflows is possible


@partial(jax.jit, static_argnums=0)
def _add_up(power, rows, values, batch, sums):
    """Adds up the values near each place over some pairs, of sure and of possible neighbors.

    Int32 values are 1 for a row and 0 for none.
    """

    def chunk(sums, a, b, limits, first, second, real):
        near = _sums(power, a, b)
        near = _is_sure(*near, limits), _is_possible(*near, limits)
        out = []
        for value, (sure, possible) in zip(values, sums, strict=True):
            given = jnp.where(real[:, None], value[second], 0)[:, :, None]
            if value.dtype == jnp.int32:
                # Both counts in one number: a sum for each would take twice as long.
                both = near[0].astype(jnp.int32) + near[1].astype(jnp.int32) * (1 << COUNT_BITS)
                counts = jnp.sum(both * given, axis=1, dtype=jnp.int32)
                added = counts % (1 << COUNT_BITS), counts >> COUNT_BITS
            else:
                added = tuple(jnp.sum(jnp.where(each, given, 0), axis=1) for each in near)
            out.append((sure.at[first].add(added[0]), possible.at[first].add(added[1])))
        return tuple(out)

    return _fold_batch(power, rows, batch, chunk, sums)


@partial(jax.jit, static_argnums=0)
def _least(power, rows, labels, wanted, batch, surely, least):
    """Least labels near each place, and in which pairs a wanted place has such a neighbor."""
    # One program for both questions: what is possible is all that is not beyond the limit, not a number too.
    sign, limits = jnp.where(surely, 1, -1).astype(jnp.float32), batch.limits[:, jnp.where(surely, 0, 1)]
    batch = batch._replace(limits=limits)

    def chunk(carry, a, b, limits, first, second, real):
        least, touch, at = carry
        sums, error = _sums(power, a, b)
        near = ~(sums + sign * error > limits[:, None, None])
        given = jnp.where(near & real[:, None, None], labels[second][:, :, None], NOBODY)
        met = jnp.min(given, axis=1)
        touches = jnp.any((met < NOBODY) & wanted[first], axis=1)
        touch = jax.lax.dynamic_update_slice_in_dim(touch, touches, at, 0)
        return least.at[first].min(met), touch, at + len(first)

    start = least, jnp.zeros(batch.pairs.shape[0], bool), jnp.int32(0)
    least, touch, _ = _fold_batch(power, rows, batch, chunk, start)
    return least, touch

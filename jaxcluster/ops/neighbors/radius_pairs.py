"""Pairs of blocks within a radius, generated in parts and sent to the device in batches.

Boxes of 32 consecutive blocks (superblocks) are compared before those of the blocks: if two of them are apart, or
wholly within the radius, one comparison decides a thousand pairs. The list of all pairs never exists, for any radius.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxcluster.core import signals
from jaxcluster.ops.neighbors.block_kernels import BATCH_PAIRS, chunk_size
from jaxcluster.ops.neighbors.kd_blocks import (
    BOX_PAIRS,
    GAP_SLACK,
    SUPERBLOCK,
    UNIT_ROUNDOFF,
    Blocks,
    add_power,
    box_distances,
    box_tiles,
)
from jaxcluster.types import Array, Float, Int, Published

BANDS = (0, 1, 2, SUPERBLOCK // 4 + 1, SUPERBLOCK + 1)
"""Offsets between two block numbers at which each band begins. Near blocks come first: their result saves others."""

FAR_BAND = len(BANDS) - 1
"""Band of the pairs whose block numbers differ by more than a superblock."""

SHIFT_BUDGET = 1 << 20
"""Coordinates of the shifts between block centers of one batch: 4 MB."""

BOX_COLUMNS = 4
"""Columns after which pairs of boxes that are apart already are removed."""

FLOAT32_LIMIT = float(np.finfo(np.float32).max) / 4
"""Coordinate beyond which float32 is not used: sums of a few such numbers are finite."""


class RadiusQuery(NamedTuple):
    """Closed ball: rows with Σ(|difference|·scale)^power <= threshold, or max|difference|·scale for an infinite power.

    The scale brings the radius near 1, so that no square that matters over- or underflows.
    """

    power: float
    threshold: float
    scale: float

    @property
    def radius(self) -> float:
        """Length of a scaled difference on the sphere."""
        return self.threshold if self.power == np.inf else self.threshold ** (1 / self.power)


class RadiusBlocks(NamedTuple):
    """Rows in blocks, prepared for radius searches.

    Attributes:
        blocks: the rows in blocks.
        query: the neighborhood of a row.
        low, high: (d, b) boxes of the blocks in the unit of the query, each column contiguous.
        middle: (b, d) origin of each block.
        extent: (b,) largest coordinate of a block relative to its origin, in radii; infinite if it overflows.
        rows: (b, d, BLOCK) float32 rows on the device relative to the origin, in radii, each column contiguous.
    """

    blocks: Blocks
    query: RadiusQuery
    low: np.ndarray
    high: np.ndarray
    middle: np.ndarray
    extent: np.ndarray
    rows: Float[Array, "b d w"]


class BlockValue(NamedTuple):
    """Value of each block that a filter of pairs depends on, and its reduction over the blocks of a superblock."""

    values: Any
    reduce: np.ufunc


class PairFilter(NamedTuple):
    """Filter of pairs of blocks.

    Attributes:
        values: of each block.
        among: (first, second, *values) -> mask of pairs; for superblocks it must keep a pair that holds one of
            interest.
    """

    values: tuple[BlockValue, ...]
    among: Callable[..., np.ndarray]

    def blocks(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(p,) mask of the pairs of blocks of interest."""
        return self.among(first, second, *(each.values for each in self.values))

    def boxes(self, first: np.ndarray, second: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """(p,) mask of the pairs of superblocks that may hold pairs of interest."""
        return self.among(first, second, *(each.reduce.reduceat(each.values, starts) for each in self.values))


class BlockPairs(NamedTuple):
    """Ordered pairs of blocks.

    Attributes:
        near: (p, 2) pairs between which some rows may be neighbors.
        whole: (w, 2) pairs in which all rows of one are neighbors of all rows of the other.
        whole_boxes: (v, 2) such pairs of superblocks.
    """

    near: np.ndarray
    whole: np.ndarray
    whole_boxes: np.ndarray

    def sums(self, totals: np.ndarray) -> np.ndarray:
        """(b,) sums over the whole pairs of (b,) totals of the second blocks."""
        totals = totals.astype(np.float64)
        sums = np.bincount(self.whole[:, 0], totals[self.whole[:, 1]], len(totals)).astype(np.float64)
        if len(self.whole_boxes):
            # Whole superblocks count by one sum each, not by a pair for each block in them.
            boxes = np.add.reduceat(totals, _superblock_starts(len(totals)))
            of_boxes = np.bincount(self.whole_boxes[:, 0], boxes[self.whole_boxes[:, 1]], len(boxes))
            sums += np.repeat(of_boxes, SUPERBLOCK)[: len(totals)]
        return sums

    def least(self, values: np.ndarray, default: int) -> np.ndarray:
        """(b,) least values of the second blocks over the whole pairs; ``default`` for blocks without a pair."""
        least = np.full(len(values), default, values.dtype)
        np.minimum.at(least, self.whole[:, 0], values[self.whole[:, 1]])
        if len(self.whole_boxes):
            boxes = np.minimum.reduceat(values, _superblock_starts(len(values)))
            of_boxes = np.full(len(boxes), default, values.dtype)
            np.minimum.at(of_boxes, self.whole_boxes[:, 0], boxes[self.whole_boxes[:, 1]])
            least = np.minimum(least, np.repeat(of_boxes, SUPERBLOCK)[: len(values)])
        return least


class RadiusBatch(NamedTuple):
    """Pairs of blocks on the device; those from ``count`` on are padding.

    Attributes:
        pairs: (p, 2) int32 block numbers.
        shift: (p, d) float32 origin of the first block minus that of the second, in radii.
        limits: (p, 2) float32 sums up to which rows are certain neighbors, and up to which they are possible ones.
        count: () int32 number of pairs.
    """

    pairs: Int[Published, "p 2"]
    shift: Float[Published, "p d"]
    limits: Float[Published, "p 2"]
    count: Int[Published, ""]


def band_pairs(data: RadiusBlocks, band: int, pair_filter: PairFilter) -> Iterator[BlockPairs]:
    """Filtered pairs of blocks of one band, in both directions, in parts."""
    parts = (
        _far_band_pairs(data, pair_filter) if band == FAR_BAND else _near_band_pairs(data, BANDS[band], BANDS[band + 1])
    )
    for first, second, whole_boxes in parts:
        kept = pair_filter.blocks(first, second)
        first, second = _reachable_pairs(data.query, data.low, data.high, first[kept], second[kept])
        whole = _whole_mask(data.query, data.low, data.high, first, second)
        pairs = np.stack([first, second], axis=1).astype(np.int32)
        yield BlockPairs(pairs[~whole], pairs[whole], whole_boxes)


def all_pairs(data: RadiusBlocks, pair_filter: PairFilter) -> Iterator[BlockPairs]:
    """Filtered pairs of blocks of all bands."""
    for band in range(len(BANDS)):
        yield from band_pairs(data, band, pair_filter)


def as_block_pairs(pairs: np.ndarray) -> list[BlockPairs]:
    """Wrap (p, 2) near pairs of an earlier search."""
    none = np.empty((0, 2), np.int32)
    return [BlockPairs(pairs, none, none)]


def whole_only(parts: Iterable[BlockPairs]) -> Iterator[BlockPairs]:
    """Only the whole pairs."""
    return (pairs._replace(near=pairs.near[:0]) for pairs in parts)


def pair_batches(
    data: RadiusBlocks, parts: Iterable[BlockPairs], whole: Callable[[BlockPairs], None]
) -> Iterator[RadiusBatch]:
    """Near pairs in batches of one length; whole pairs are passed to the callback ``whole``."""
    size = pairs_per_batch(data.middle.shape[1], data.query.power)
    pending, count = [], 0
    for pairs in parts:
        whole(pairs)
        pending.append(pairs.near)
        count += len(pairs.near)
        if count >= size:
            joined = np.concatenate(pending)
            for start in range(0, count - count % size, size):
                yield _make_batch(data, joined[start : start + size], size)
            pending, count = [joined[count - count % size :]], count % size
    if count:
        yield _make_batch(data, np.concatenate(pending), size)


def pairs_per_batch(columns: int, power: float) -> int:
    """Pairs of a batch for rows of so many columns."""
    chunk = chunk_size(columns, power)
    return max(chunk, min(BATCH_PAIRS, SHIFT_BUDGET // columns) // chunk * chunk)


def _near_band_pairs(data, least, most):
    """Pairs of blocks whose numbers differ by ``least`` or more and less than ``most``."""
    count = data.low.shape[1]
    offsets = np.arange(least, most)
    offsets = np.unique(np.concatenate([-offsets, offsets]))
    step = max(1, BOX_PAIRS // len(offsets))
    none = np.empty((0, 2), np.int32)
    for start in range(0, count, step):
        first = np.arange(start, min(start + step, count))[:, None]
        second = first + offsets
        real = (second >= 0) & (second < count)
        yield np.broadcast_to(first, second.shape)[real], second[real], none


def _far_band_pairs(data, pair_filter):
    """Pairs of the far band, from pairs of superblocks that are not apart."""
    count = data.low.shape[1]
    if count <= BANDS[FAR_BAND]:
        return
    starts = _superblock_starts(count)
    low, high = np.minimum.reduceat(data.low, starts, axis=1), np.maximum.reduceat(data.high, starts, axis=1)
    inner = np.arange(SUPERBLOCK)
    none = np.empty(0, np.int64)
    for some in box_tiles(len(starts), len(starts)):
        gap = box_distances(low[:, some].T, high[:, some].T, low.T, high.T, data.query.power)
        # Not `gap <= …`: a distance that overflows to NaN must keep the pair.
        first, second = np.nonzero(~(gap > data.query.threshold * GAP_SLACK))
        first += some.start
        kept = pair_filter.boxes(first, second, starts)
        first, second = first[kept], second[kept]
        # Some blocks of adjacent superblocks are in a near band: those pairs are expanded.
        whole = np.abs(first - second) > 1
        whole[whole] = _whole_mask(data.query, low, high, first[whole], second[whole])
        yield none, none, np.stack([first[whole], second[whole]], axis=1)
        first, second = first[~whole], second[~whole]
        step = BOX_PAIRS // SUPERBLOCK**2
        for start in range(0, len(first), step):
            one = first[start : start + step, None, None] * SUPERBLOCK + inner[:, None]
            other = second[start : start + step, None, None] * SUPERBLOCK + inner
            one, other = (each.ravel() for each in np.broadcast_arrays(one, other))
            real = (one < count) & (other < count) & (np.abs(one - other) >= BANDS[FAR_BAND])
            yield one[real], other[real], np.empty((0, 2), np.int64)


def _reachable_pairs(query, low, high, first, second):
    """Pairs of (d, b) boxes whose nearest points are within the query, or whose distance overflows."""
    gap = np.zeros(len(first))
    with np.errstate(over="ignore", invalid="ignore"):
        for column, (a, b) in enumerate(zip(low, high, strict=True), start=1):
            gap = add_power(gap, np.maximum(np.maximum(a[second] - b[first], a[first] - b[second]), 0), query.power)
            # Most pairs are apart in the first columns already: removed early, they cost no more.
            if column % BOX_COLUMNS == 0 or column == len(low):
                kept = ~(gap > query.threshold * GAP_SLACK)
                first, second, gap = first[kept], second[kept], gap[kept]
    return first, second


def _whole_mask(query, low, high, first, second):
    """(p,) mask of the pairs of (d, b) boxes whose farthest points are within the query."""
    span = np.zeros(len(first))
    with np.errstate(over="ignore", invalid="ignore"):
        for a, b in zip(low, high, strict=True):
            span = add_power(span, np.maximum(b[first] - a[second], b[second] - a[first]), query.power)
    return span <= query.threshold / GAP_SLACK


def _superblock_starts(count):
    return np.arange(0, count, SUPERBLOCK)


def _make_batch(data, pairs, size):
    """Batch of pairs with their shifts, and with limits that bound the float32 rounding.

    The difference of two rows is (a + shift) − b. Of these a, b and the shift are rounded, and both results: a
    coordinate is off by at most u·(2|a| + 2|shift| + |b| + 1), u = 2⁻²⁴. By Minkowski's inequality the length is off by
    that times d^(1/power); the terms of the sum and its additions add a relative error of (d + 2·power + 8)·u.
    """
    signals.check_stopped()
    power, columns = data.query.power, data.middle.shape[1]
    first, second = pairs.T
    with np.errstate(over="ignore", invalid="ignore"):
        shift = (data.middle[first] - data.middle[second]) * (data.query.scale / data.query.radius)
        far = np.abs(shift).max(axis=1)
        coordinate = UNIT_ROUNDOFF * (2 * data.extent[first] + data.extent[second] + 2 * far + 2)
        length = coordinate * (1.0 if power == np.inf else columns ** (1 / power))
        terms = (columns + 8 + (0 if power == np.inf else 2 * power)) * UNIT_ROUNDOFF
        exponent = 1.0 if power == np.inf else power
        certain = np.maximum(1 - length, 0) ** exponent * (1 - terms)
        possible = (1 + length) ** exponent * (1 + terms)
    # Where float32 may overflow no row is certain (limit −1) and all are possible (limit ∞): the host decides.
    usable = (far < FLOAT32_LIMIT) & (possible < FLOAT32_LIMIT)
    batch = RadiusBatch(
        np.zeros((size, 2), np.int32),
        np.zeros((size, columns), np.float32),
        np.zeros((size, 2), np.float32),
        np.int32(len(pairs)),
    )
    batch.pairs[: len(pairs)] = pairs
    batch.shift[: len(pairs)] = np.where(usable[:, None], shift, 0)
    batch.limits[: len(pairs), 0] = np.where(usable & (length < 1), certain, -1)
    batch.limits[: len(pairs), 1] = np.where(usable, possible, np.inf)
    return batch

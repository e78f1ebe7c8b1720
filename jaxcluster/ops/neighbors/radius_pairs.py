"""Pairs of blocks within a radius of each other, made a few at a time and handed to the device in batches.

The boxes of 32 consecutive blocks are compared before those of the blocks: where two such boxes are apart, or wholly
within the radius, a thousand pairs are settled at once. No list of all pairs is held, however large the radius.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from jaxcluster.ops.neighbors.block_kernels import GROUP, chunk_size
from jaxcluster.ops.neighbors.kd_blocks import A_HAIR, BOX_PAIRS, SUPERBLOCK, UNIT, Blocks, add_power, box_groups, gaps
from jaxcluster.types import Array, Float, Int

BANDS = (0, 1, 2, SUPERBLOCK // 4 + 1, SUPERBLOCK + 1)
"""Places between two blocks at which a band of pairs begins. The nearest come first: what they tell spares others."""

FAR_BAND = len(BANDS) - 1
"""The band of all pairs that are farther apart in the order of the blocks than a box of 32 is long."""

SHIFTS = 1 << 20
"""Coordinates of the differences between middles that go to the device at a time: 4 MB."""

GAP_COLUMNS = 4
"""Columns after which pairs of boxes that are apart already are left out."""

LARGEST = float(np.finfo(np.float32).max) / 4
"""Coordinate beyond which float32 is not asked."""


class Ball(NamedTuple):
    """Closed ball: the rows with Σ(|difference|·scale)^power <= reach, or max|difference|·scale for an infinite power.

    The scale brings the radius near 1, so that no square over- or underflows that matters.
    """

    power: float
    reach: float
    scale: float

    @property
    def radius(self) -> float:
        """Length of a scaled difference on the sphere."""
        return self.reach if self.power == np.inf else self.reach ** (1 / self.power)


class Near(NamedTuple):
    """Rows prepared for the search of their neighbors.

    Attributes:
        blocks: the rows in blocks.
        ball: the neighborhood of a row.
        low, high: (d, b) boxes of the blocks, scaled as the ball is, each column a line.
        middle: (b, d) coordinates that the rows of each block are held relative to.
        extent: (b,) largest coordinate of a block relative to its middle, in radii; infinite where it overflows.
        rows: (b, d, BLOCK) float32 rows on the device relative to the middle, in radii, each column a line.
    """

    blocks: Blocks
    ball: Ball
    low: np.ndarray
    high: np.ndarray
    middle: np.ndarray
    extent: np.ndarray
    rows: Float[Array, "b d w"]


class PerBlock(NamedTuple):
    """A value of each block that decides which pairs are asked for, and its reduction over the blocks of a box."""

    values: np.ndarray
    reduce: np.ufunc


class Asked(NamedTuple):
    """The pairs of blocks that are asked for.

    Attributes:
        values: of each block.
        among: (first, second, *values) -> mask of pairs; of boxes it must not refuse a pair that holds one asked for.
    """

    values: tuple[PerBlock, ...]
    among: Callable[..., np.ndarray]

    def blocks(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(p,) which pairs of blocks are asked for."""
        return self.among(first, second, *(each.values for each in self.values))

    def boxes(self, first: np.ndarray, second: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """(p,) which pairs of boxes of 32 blocks may hold such pairs."""
        return self.among(first, second, *(each.reduce.reduceat(each.values, starts) for each in self.values))


class Pairs(NamedTuple):
    """Some ordered pairs of blocks.

    Attributes:
        near: (p, 2) pairs between which some rows may be near.
        whole: (w, 2) other pairs: each row of the one is near each of the other.
        whole_boxes: (v, 2) such pairs of boxes of 32 blocks.
    """

    near: np.ndarray
    whole: np.ndarray
    whole_boxes: np.ndarray

    def sums(self, totals: np.ndarray) -> np.ndarray:
        """(b,) sums over the whole pairs of (b,) totals of the second blocks."""
        totals = totals.astype(np.float64)
        sums = np.bincount(self.whole[:, 0], totals[self.whole[:, 1]], len(totals)).astype(np.float64)
        if len(self.whole_boxes):
            boxes = np.add.reduceat(totals, _starts(len(totals)))
            of_boxes = np.bincount(self.whole_boxes[:, 0], boxes[self.whole_boxes[:, 1]], len(boxes))
            sums += np.repeat(of_boxes, SUPERBLOCK)[: len(totals)]
        return sums

    def least(self, values: np.ndarray, nobody: int) -> np.ndarray:
        """(b,) least values of the second blocks over the whole pairs, ``nobody`` where there is none."""
        least = np.full(len(values), nobody, values.dtype)
        np.minimum.at(least, self.whole[:, 0], values[self.whole[:, 1]])
        if len(self.whole_boxes):
            boxes = np.minimum.reduceat(values, _starts(len(values)))
            of_boxes = np.full(len(boxes), nobody, values.dtype)
            np.minimum.at(of_boxes, self.whole_boxes[:, 0], boxes[self.whole_boxes[:, 1]])
            least = np.minimum(least, np.repeat(of_boxes, SUPERBLOCK)[: len(values)])
        return least


class Batch(NamedTuple):
    """Some pairs of blocks on their way to the device; those from ``count`` on are room.

    Attributes:
        pairs: (p, 2) int32 numbers of the blocks.
        shift: (p, d) float32 middle of the first block minus that of the second, in radii.
        limits: (p, 2) float32 sums up to which rows are near for sure, and up to which they may be near.
        count: () int32 how many pairs there are.
    """

    pairs: Int[Array, "p 2"]
    shift: Float[Array, "p d"]
    limits: Float[Array, "p 2"]
    count: Int[Array, ""]


def pairs_of_band(near: Near, band: int, asked: Asked) -> Iterator[Pairs]:
    """The asked pairs of blocks of a band, both ways, a few at a time."""
    parts = _far_pairs(near, asked) if band == FAR_BAND else _close_pairs(near, BANDS[band], BANDS[band + 1], asked)
    for first, second, whole_boxes in parts:
        kept = asked.blocks(first, second)
        first, second = _not_apart(near.ball, near.low, near.high, first[kept], second[kept])
        whole = _are_whole(near.ball, near.low, near.high, first, second)
        pairs = np.stack([first, second], axis=1).astype(np.int32)
        yield Pairs(pairs[~whole], pairs[whole], whole_boxes)


def all_pairs(near: Near, asked: Asked) -> Iterator[Pairs]:
    """The asked pairs of all bands."""
    for band in range(len(BANDS)):
        yield from pairs_of_band(near, band, asked)


def listed(pairs: np.ndarray) -> list[Pairs]:
    """(p, 2) near pairs that are at hand already."""
    none = np.empty((0, 2), np.int32)
    return [Pairs(pairs, none, none)]


def without_near(parts: Iterable[Pairs]) -> Iterator[Pairs]:
    """The whole pairs alone."""
    return (pairs._replace(near=pairs.near[:0]) for pairs in parts)


def batches(near: Near, parts: Iterable[Pairs], whole: Callable[[Pairs], None]) -> Iterator[Batch]:
    """The near pairs in batches of one length; the whole ones are given to ``whole``."""
    size = batch_size(near.middle.shape[1], near.ball.power)
    held, count = [], 0
    for pairs in parts:
        whole(pairs)
        held.append(pairs.near)
        count += len(pairs.near)
        if count >= size:
            together = np.concatenate(held)
            for start in range(0, count - count % size, size):
                yield _batch(near, together[start : start + size], size)
            held, count = [together[count - count % size :]], count % size
    if count:
        yield _batch(near, np.concatenate(held), size)


def batch_size(columns: int, power: float) -> int:
    """Pairs of a batch for rows of so many columns."""
    chunk = chunk_size(columns, power)
    return max(chunk, min(GROUP, SHIFTS // columns) // chunk * chunk)


def _close_pairs(near, least, most, asked):
    """Pairs of blocks whose numbers differ by ``least`` or more and less than ``most``."""
    count = near.low.shape[1]
    offsets = np.arange(least, most)
    offsets = np.unique(np.concatenate([-offsets, offsets]))
    step = max(1, BOX_PAIRS // len(offsets))
    none = np.empty((0, 2), np.int32)
    for start in range(0, count, step):
        first = np.arange(start, min(start + step, count))[:, None]
        second = first + offsets
        real = (second >= 0) & (second < count)
        yield np.broadcast_to(first, second.shape)[real], second[real], none


def _far_pairs(near, asked):
    """All other pairs, from those of boxes of 32 blocks that are not apart."""
    count = near.low.shape[1]
    if count <= BANDS[FAR_BAND]:
        return
    starts = _starts(count)
    low, high = np.minimum.reduceat(near.low, starts, axis=1), np.maximum.reduceat(near.high, starts, axis=1)
    inner = np.arange(SUPERBLOCK)
    none = np.empty(0, np.int64)
    for some in box_groups(len(starts), len(starts)):
        gap = gaps(low[:, some].T, high[:, some].T, low.T, high.T, near.ball.power)
        first, second = np.nonzero(~(gap > near.ball.reach * A_HAIR))
        first += some.start
        kept = asked.boxes(first, second, starts)
        first, second = first[kept], second[kept]
        # Of neighboring boxes some blocks are close, and were in another band.
        whole = np.abs(first - second) > 1
        whole[whole] = _are_whole(near.ball, low, high, first[whole], second[whole])
        yield none, none, np.stack([first[whole], second[whole]], axis=1)
        first, second = first[~whole], second[~whole]
        step = BOX_PAIRS // SUPERBLOCK**2
        for start in range(0, len(first), step):
            one = first[start : start + step, None, None] * SUPERBLOCK + inner[:, None]
            other = second[start : start + step, None, None] * SUPERBLOCK + inner
            one, other = (each.ravel() for each in np.broadcast_arrays(one, other))
            real = (one < count) & (other < count) & (np.abs(one - other) >= BANDS[FAR_BAND])
            yield one[real], other[real], np.empty((0, 2), np.int64)


def _not_apart(ball, low, high, first, second):
    """The pairs of (d, b) boxes whose nearest points are within the ball, or whose gap overflows."""
    gap = np.zeros(len(first))
    with np.errstate(over="ignore", invalid="ignore"):
        for column, (a, b) in enumerate(zip(low, high, strict=True), start=1):
            gap = add_power(gap, np.maximum(np.maximum(a[second] - b[first], a[first] - b[second]), 0), ball.power)
            if column % GAP_COLUMNS == 0 or column == len(low):
                kept = ~(gap > ball.reach * A_HAIR)
                first, second, gap = first[kept], second[kept], gap[kept]
    return first, second


def _are_whole(ball, low, high, first, second):
    """(p,) which pairs of (d, b) boxes have their farthest points within the ball."""
    span = np.zeros(len(first))
    with np.errstate(over="ignore", invalid="ignore"):
        for a, b in zip(low, high, strict=True):
            span = add_power(span, np.maximum(b[first] - a[second], b[second] - a[first]), ball.power)
    return span <= ball.reach / A_HAIR


def _starts(count):
    return np.arange(0, count, SUPERBLOCK)


def _batch(near, pairs, size):
    """Pairs with what float32 must know of them.

    The difference of two rows is (a + shift) − b. Of these a, b and the shift are rounded, and both results: the
    coordinate is off by at most u·(2|a| + 2|shift| + |b| + 1), u = 2⁻²⁴. By Minkowski's inequality the length is off
    by that times d^(1/power); the terms of the sum and its additions add (d + 2·power + 8)·u of itself.
    """
    power, columns = near.ball.power, near.middle.shape[1]
    first, second = pairs.T
    with np.errstate(over="ignore", invalid="ignore"):
        shift = (near.middle[first] - near.middle[second]) * (near.ball.scale / near.ball.radius)
        far = np.abs(shift).max(axis=1)
        coordinate = UNIT * (2 * near.extent[first] + near.extent[second] + 2 * far + 2)
        length = coordinate * (1.0 if power == np.inf else columns ** (1 / power))
        terms = (columns + 8 + (0 if power == np.inf else 2 * power)) * UNIT
        exponent = 1.0 if power == np.inf else power
        sure = np.maximum(1 - length, 0) ** exponent * (1 - terms)
        possible = (1 + length) ** exponent * (1 + terms)
    usable = (far < LARGEST) & (possible < LARGEST)
    batch = Batch(
        np.zeros((size, 2), np.int32),
        np.zeros((size, columns), np.float32),
        np.zeros((size, 2), np.float32),
        np.int32(len(pairs)),
    )
    batch.pairs[: len(pairs)] = pairs
    batch.shift[: len(pairs)] = np.where(usable[:, None], shift, 0)
    batch.limits[: len(pairs), 0] = np.where(usable & (length < 1), sure, -1)
    batch.limits[: len(pairs), 1] = np.where(usable, possible, np.inf)
    return batch

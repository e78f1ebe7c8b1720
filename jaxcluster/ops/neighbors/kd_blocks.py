"""Rows in small spatial blocks, and the pairs of blocks that are near enough to each other to matter.

In few columns nearly all pairs of rows are too far apart to be looked at. Rows are put in the order of a kd-partition
and cut into blocks; a pair of blocks whose bounding boxes are farther apart than asked is left out, and dense work is
done on the others alone. This is bookkeeping for concrete rows, on the host.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BLOCK = 64
"""Rows of a block."""

UNIT = 2.0**-24
"""Rounding of a float32 relative to itself."""

FEW_COLUMNS = 8
"""Columns up to which boxes and trees leave out nearly all that is far."""

GROUP = 256
"""Rows for each of those that rows are grouped about, in many columns."""

MOST_GROUPS = 1024
"""Groups of rows, in many columns."""

A_HAIR = 1 + 1e-9
"""Rounding may make a gap too large by less; one pair too many does no harm."""

SUPERBLOCK = 32
"""Consecutive blocks whose common box is compared before their own: a pair of boxes spares a thousand."""

BOX_PAIRS = 1 << 16
"""Pairs of boxes that are compared at a time: what a core's cache holds."""

SAMPLE = 512
"""Rows whose median is the middle about which rows are grouped: a far row cannot drag it."""


class Blocks(NamedTuple):
    """Rows in blocks of a kd-partition.

    Attributes:
        x: (b, BLOCK, d) float64 rows; places that hold no row are infinite, at no finite distance from any.
        index: (b, BLOCK) which row lies in a place; -1 for none.
        low, high: (b, d) bounding boxes.
    """

    x: np.ndarray
    index: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def rows(self, values: np.ndarray, n: int) -> np.ndarray:
        """(b, BLOCK) values of places, in the order of the n rows."""
        out = np.empty(n, values.dtype)
        filled = self.index >= 0
        out[self.index[filled]] = values[filled]
        return out

    def places(self, values: np.ndarray, empty) -> np.ndarray:
        """(n,) values of rows, by place; ``empty`` where there is no row."""
        return np.where(self.index >= 0, values[self.index], np.asarray(empty, values.dtype))


def partition(x: np.ndarray) -> Blocks:
    """Cuts (n, d) rows in halves along the widest column, and those again, down to a block.

    In many columns so few cuts go through the middle of what belongs together. There rows are first put with the
    nearest of some of them, and then each group is cut.
    """
    x = np.asarray(x, np.float64)
    if x.shape[1] <= FEW_COLUMNS or len(x) <= GROUP:
        return _cut(x)
    nearest = _nearest_of_some(x)
    order = np.argsort(nearest, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(nearest[order])) + 1)
    parts = [_cut(x[rows]) for rows in groups]
    index = [np.where(part.index >= 0, rows[part.index], -1) for part, rows in zip(parts, groups, strict=True)]
    x, _, low, high = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Blocks(x, np.concatenate(index), low, high)


def _nearest_of_some(x):
    """(n,) which of some rows, one in so many, is nearest to each; in float32, for it decides nothing."""
    sample = x[:: -(-len(x) // SAMPLE)]
    middle = np.median(sample, axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        # In the unit of the rows themselves: squares of float32 leave its range beyond 1e19 and below 1e-19.
        lengths = np.abs(sample - middle).max(axis=1)
        unit = np.median(lengths) or lengths.max() or 1.0
        x = ((x - middle) / unit).astype(np.float32)
    some = _chained(x[:: max(GROUP, -(-len(x) // MOST_GROUPS))])
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = np.sum(some * some, axis=1)
        tiles = [x[start : start + GROUP] for start in range(0, len(x), GROUP)]
        return np.concatenate([np.argmin(sizes - 2 * (tile @ some.T), axis=1) for tile in tiles])


def _chained(x):
    """The rows in another order, each the nearest of those that are left to the one before."""
    left, order = np.ones(len(x), bool), [0]
    with np.errstate(over="ignore", invalid="ignore"):
        sizes, products = np.sum(x * x, axis=1), x @ x.T
        for _ in range(len(x) - 1):
            left[order[-1]] = False
            order.append(int(np.argmin(np.where(left, sizes - 2 * products[order[-1]], np.inf))))
    return x[order]


def _cut(x):
    n = len(x)
    halvings = max(0, -(-n // BLOCK) - 1).bit_length()
    # Every half of a half must have the same size: the places that are left over hold copies of the last row.
    order = np.minimum(np.arange(BLOCK << halvings), n - 1)
    filled = np.arange(order.size) < n
    # `take` lays its result out row by row, where an index would leave columns side by side.
    columns = np.take(x.T, order, axis=1)
    for level in range(halvings):
        moved = _halve(columns.reshape(columns.shape[0], 1 << level, -1))
        order, filled, columns = order[moved], filled[moved], np.take(columns, moved, axis=1)
    order, filled = order.reshape(-1, BLOCK), filled.reshape(-1, BLOCK)
    kept = filled.any(axis=1)
    order, filled = order[kept], filled[kept]
    rows = x[order]
    low = np.where(filled[:, :, None], rows, np.inf).min(axis=1)
    high = np.where(filled[:, :, None], rows, -np.inf).max(axis=1)
    rows[~filled] = np.inf
    return Blocks(rows, np.where(filled, order, -1), low, high)


def gaps(low: np.ndarray, high: np.ndarray, others_low: np.ndarray, others_high: np.ndarray, power: float):
    """(m, b) Σ|difference|^power between the nearest points of m boxes and b others."""
    gap = np.zeros((len(low), len(others_low)))
    with np.errstate(over="ignore", invalid="ignore"):
        for a, b, c, d in zip(low.T, high.T, others_low.T, others_high.T, strict=True):
            gap = add_power(gap, np.maximum(np.maximum(c[None] - b[:, None], a[:, None] - d[None]), 0), power)
    return gap


def box_groups(count: int, others: int) -> list[slice]:
    """So many of ``count`` boxes at a time that their gaps to others may be held."""
    step = max(1, BOX_PAIRS // others)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def add_power(total, lengths, power):
    """A sum and one term more, lengths ≥ 0 to a power; for an infinite power the larger of both: Chebyshev's metric."""
    if power == np.inf:
        return np.maximum(total, lengths, out=total)
    total += lengths * lengths if power == 2 else lengths**power
    return total


def _halve(columns):
    """Where the places of (d, s, m) segments go when each is cut at the median of its widest column."""
    _, segments, size = columns.shape
    with np.errstate(over="ignore"):
        widest = np.argmax(columns.max(axis=2) - columns.min(axis=2), axis=0)
    halves = np.argpartition(columns[widest, np.arange(segments)], size // 2, axis=1)
    return (halves + size * np.arange(segments)[:, None]).ravel()

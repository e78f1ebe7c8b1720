"""k-d partition of rows into small blocks with bounding boxes, and distances between boxes.

In few columns nearly all pairs of rows are too far apart to matter. A pair of blocks whose boxes are farther apart than
the radius is skipped, and dense work is done on the other pairs. All of this is bookkeeping for concrete rows on the
host.

>>> blocks = partition(np.array([[0.0], [1.0], [5.0]]))
>>> blocks.low.tolist(), blocks.high.tolist()
([[0.0]], [[5.0]])
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

BLOCK = 64
"""Number of rows of a block."""

UNIT_ROUNDOFF = 2.0**-24
"""Largest relative rounding error of float32."""

MAX_KD_COLUMNS = 8
"""Columns up to which boxes and k-d trees exclude nearly all far rows."""

GROUP_ROWS = 256
"""Average number of rows of a group around one seed, in many columns."""

MAX_GROUPS = 1024
"""Largest number of groups, in many columns."""

GAP_SLACK = 1 + 1e-9
"""Bound on the ratio by which rounding enlarges a box distance; a superfluous pair does no harm."""

SUPERBLOCK = 32
"""Consecutive blocks with a common box: one comparison of two such boxes may save 32² of blocks."""

BOX_PAIRS = 1 << 16
"""Pairs of boxes compared at a time: their distances fit a core's cache."""

SAMPLE_ROWS = 512
"""Number of sampled rows for the median center, which a far row cannot shift."""


class Blocks(NamedTuple):
    """Rows in the blocks of a k-d partition.

    A slot (block, position) holds one row or none.

    Attributes:
        x: (b, BLOCK, d) float64 rows; empty slots are infinite, so that they are near no row.
        index: (b, BLOCK) row number of each slot; -1 for empty ones.
        low, high: (b, d) bounding boxes.
    """

    x: np.ndarray
    index: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def rows(self, values: Any, n: int) -> np.ndarray:
        """Values (b, BLOCK) of slots, in the order of the n rows."""
        out = np.empty(n, values.dtype)
        filled = self.index >= 0
        out[self.index[filled]] = values[filled]
        return out

    def to_blocks(self, values: Any, empty: Any) -> np.ndarray:
        """Values (n,) of rows, by slot (b, BLOCK); ``empty`` for slots without a row."""
        return np.where(self.index >= 0, values[self.index], np.asarray(empty, values.dtype))


def partition(x: np.ndarray) -> Blocks:
    """Partition of (n, d) rows into blocks, by halving along the widest column down to `BLOCK` rows.

    In many columns so few cuts would divide what belongs together. There rows are first grouped around their nearest
    seed, and then each group is cut.
    """
    x = np.asarray(x, np.float64)
    if x.shape[1] <= MAX_KD_COLUMNS or len(x) <= GROUP_ROWS:
        return _kd_cut(x)
    # In many columns halves by one column stay wide in all others: groups around seeds have smaller boxes.
    nearest = _nearest_seed(x)
    order = np.argsort(nearest, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(nearest[order])) + 1)
    parts = [_kd_cut(x[rows]) for rows in groups]
    index = [np.where(part.index >= 0, rows[part.index], -1) for part, rows in zip(parts, groups, strict=True)]
    x, _, low, high = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Blocks(x, np.concatenate(index), low, high)


def _nearest_seed(x):
    """Nearest seed row of each row, (n,) positions in a chain of seeds; float32 suffices for a heuristic."""
    sample = x[:: -(-len(x) // SAMPLE_ROWS)]
    middle = np.median(sample, axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        # In the unit of the rows: float32 squares overflow beyond 1e19 and underflow below 1e-19.
        lengths = np.abs(sample - middle).max(axis=1)
        unit = np.median(lengths) or lengths.max() or 1.0
        x = ((x - middle) / unit).astype(np.float32)
    some = _greedy_chain(x[:: max(GROUP_ROWS, -(-len(x) // MAX_GROUPS))])
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = np.sum(some * some, axis=1)
        tiles = [x[start : start + GROUP_ROWS] for start in range(0, len(x), GROUP_ROWS)]
        return np.concatenate([np.argmin(sizes - 2 * (tile @ some.T), axis=1) for tile in tiles])


def _greedy_chain(x):
    """Rows in a greedy nearest-neighbor chain, so that near groups get adjacent block numbers."""
    left, order = np.ones(len(x), bool), [0]
    with np.errstate(over="ignore", invalid="ignore"):
        sizes, products = np.sum(x * x, axis=1), x @ x.T
        for _ in range(len(x) - 1):
            left[order[-1]] = False
            order.append(int(np.argmin(np.where(left, sizes - 2 * products[order[-1]], np.inf))))
    return x[order]


def _kd_cut(x):
    """Blocks of rows by medians along the widest columns."""
    n = len(x)
    halvings = max(0, -(-n // BLOCK) - 1).bit_length()
    # All segments need the same size: surplus slots hold copies of the last row.
    order = np.minimum(np.arange(BLOCK << halvings), n - 1)
    filled = np.arange(order.size) < n
    # `take` returns C order, where fancy indexing of the transpose would keep the strides of x.
    columns = np.take(x.T, order, axis=1)
    for level in range(halvings):
        permutation = _median_split(columns.reshape(columns.shape[0], 1 << level, -1))
        order, filled, columns = order[permutation], filled[permutation], np.take(columns, permutation, axis=1)
    order, filled = order.reshape(-1, BLOCK), filled.reshape(-1, BLOCK)
    occupied = filled.any(axis=1)
    order, filled = order[occupied], filled[occupied]
    rows = x[order]
    low = np.where(filled[:, :, None], rows, np.inf).min(axis=1)
    high = np.where(filled[:, :, None], rows, -np.inf).max(axis=1)
    rows[~filled] = np.inf
    return Blocks(rows, np.where(filled, order, -1), low, high)


def box_distances(low: np.ndarray, high: np.ndarray, others_low: np.ndarray, others_high: np.ndarray, power: float):
    """(m, b) Minkowski sums between the nearest points of m boxes and b other boxes."""
    gap = np.zeros((len(low), len(others_low)))
    with np.errstate(over="ignore", invalid="ignore"):
        for a, b, c, d in zip(low.T, high.T, others_low.T, others_high.T, strict=True):
            gap = add_power(gap, np.maximum(np.maximum(c[None] - b[:, None], a[:, None] - d[None]), 0), power)
    return gap


def box_tiles(count: int, others: int) -> list[slice]:
    """Slices of ``count`` boxes whose distances to ``others`` boxes fit `BOX_PAIRS`."""
    step = max(1, BOX_PAIRS // others)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def add_power(total, lengths, power):
    """Add lengths ≥ 0 to a power to Minkowski sums, in place; their maximum for an infinite power."""
    if power == np.inf:
        return np.maximum(total, lengths, out=total)
    total += lengths * lengths if power == 2 else lengths**power
    return total


def _median_split(columns):
    """Permutation of (d, s, m) segments that splits each at the median of its widest column."""
    _, segments, size = columns.shape
    with np.errstate(over="ignore"):
        widest = np.argmax(columns.max(axis=2) - columns.min(axis=2), axis=0)
    # Halves need not be sorted: a partition around the median takes linear time.
    halves = np.argpartition(columns[widest, np.arange(segments)], size // 2, axis=1)
    return (halves + size * np.arange(segments)[:, None]).ravel()

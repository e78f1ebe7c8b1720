"""Borůvka step for minimum spanning trees: lightest edges between the components of a forest, by pairs of blocks.

An edge weighs the largest of its length and the core distances of its two rows. Float32 sums with a rounding bound
exclude most edges, and float64 sums decide among the others.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxcluster.core.compilation import persistent_jit
from jaxcluster.ops.metric_space import MetricSpace, minkowski_sums
from jaxcluster.ops.neighbors.block_kernels import NO_INDEX, chunk_size, fold_pairs, groups, pad_blocks, pair_sums
from jaxcluster.ops.neighbors.kd_blocks import (
    BLOCK,
    GAP_SLACK,
    MAX_KD_COLUMNS,
    UNIT_ROUNDOFF,
    box_distances,
    box_tiles,
    partition,
)

SUM_TOLERANCE = 1 + 1e-12
"""Ratio up to which two float64 sums count as equal: rounding of the additions."""

FLOAT32_LIMIT = 1e15
"""Coordinate or length, in the unit of the rows, beyond which float32 squares may overflow."""

NEAREST_BLOCKS = 3
"""Nearest blocks of each block for the initial upper bounds."""


class CrossEdgeFinder:
    """Rows in blocks on the device, float64, for lightest edges between components; use under ``jax.enable_x64(True)``.

    Args:
        space: n rows.
        core: (n,) core distances, lower bounds on the weights of a row's edges.
    """

    def __init__(self, space: MetricSpace, core: np.ndarray):
        self._space, self._core = space, core
        self._blocks = partition(space.x)
        by_slot = self._blocks.to_blocks(space.threshold(core), np.inf)
        # No edge weighs less than the core distance of either end.
        self._floor = by_slot.min(axis=1)
        wide = space.x.shape[1] > MAX_KD_COLUMNS and space.power == 2
        self._row_bound = _row_distances(self._blocks) if wide else None
        columns = np.swapaxes(self._blocks.x, 1, 2)
        self._exact = pad_blocks(columns, np.inf), pad_blocks(by_slot, np.inf)
        self._degree = 1.0 if np.isinf(space.power) else space.power  # sums are lengths to this power
        self._scale, self._far, self._float32 = 1.0, None, self._exact
        if space.power in (1, 2, np.inf):  # other powers may leave the range of float32
            self._make_float32(columns, by_slot)

    def _make_float32(self, columns, core):
        """Rows in float32 about a robust center, in a unit in which most coordinates are about 1.

        The rounding of a coordinate is relative to itself, so the error bound of an edge depends on the position of its
        row.
        """
        middle, self._scale = _center_and_unit(self._blocks)
        with np.errstate(invalid="ignore", over="ignore"):
            columns = (columns - middle[:, None]) / self._scale
            self._far = self._blocks.rows(np.abs(columns).max(axis=1), self._space.n)
            # Far coordinates are clipped, and their rows searched by the host in float64: an infinity would make NaN of
            # differences.
            columns = np.clip(columns, -FLOAT32_LIMIT, FLOAT32_LIMIT).astype(np.float32)
            core = (core / self._scale**self._degree).astype(np.float32)
        self._float32 = pad_blocks(columns, np.inf), pad_blocks(core, np.inf)

    def edge_weights(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(m,) weights of the edges between rows ``first`` and ``second``."""
        lengths = self._space.distances(minkowski_sums(self._space.x[first], self._space.x[second], self._space.power))
        return np.maximum(lengths, np.maximum(self._core[first], self._core[second]))

    def initial_bounds(self, labels: np.ndarray, active_rows: np.ndarray) -> np.ndarray:
        """(n,) weights of some edges to other components.

        At least one for each component with a row in the mask ``active_rows``: upper bounds on its lightest edge.
        """
        blocks, components = self._blocks, self._block_components(labels)
        active = np.flatnonzero(blocks.to_blocks(active_rows, False).any(axis=1))
        # A block with rows of several components is also compared with itself.
        mixed = active[components[active] < 0]
        pairs = [np.stack([mixed, mixed], axis=1)]
        for some, bound in self._lower_bounds(active, components):
            second = np.argpartition(bound, min(NEAREST_BLOCKS, bound.shape[1] - 1), axis=1)[:, :NEAREST_BLOCKS]
            first = np.repeat(some, second.shape[1])
            finite = np.isfinite(np.take_along_axis(bound, second, axis=1)).ravel()
            pairs.append(np.stack([first, second.ravel()], axis=1)[finite])
        _, upper = self._error_bounds(self._lightest(labels, np.concatenate(pairs).astype(np.int32), self._float32))
        return self._space.distances(upper)

    def lightest_within(self, labels: np.ndarray, limits: np.ndarray) -> np.ndarray:
        """(n,) weights of edges from rows to other components: the lightest of each component, infinite for most rows.

        Float32 excludes rows that cannot have the lightest edge of their component, float64 decides among the others.

        Args:
            labels: (n,) component of each row.
            limits: (n,) upper bounds on the weights; negative for rows to skip.
        """
        reach = np.where(limits >= 0, self._space.threshold(np.maximum(limits, 0)), -1.0)
        lower, upper = self._error_bounds(self._lightest(labels, self._candidate_pairs(labels, reach), self._float32))
        least = np.full(labels.max() + 1, np.inf)
        np.minimum.at(least, labels, upper)
        # A row can have the lightest edge only if its lower bound is not above the least upper bound of its component.
        may = lower <= np.minimum(least[labels], reach)
        reach = np.where(may, np.minimum(upper, reach), -1.0)
        sums = self._lightest(labels, self._candidate_pairs(labels, reach), self._exact)
        return np.where(may, self._space.distances(sums), np.inf)

    def endpoints(
        self, labels: np.ndarray, rows: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows at the other ends of edges of given weights.

        Args:
            labels: (n,) component of each row.
            rows: (m,) rows at the known ends.
            weights: (m,) weights of the lightest edges of their components.

        Returns:
            (m,) a row at the other end, −1 for none; (m,) number of such rows; (m,) number of those to which the edge
            weighs its length, and not a core distance.
        """
        reach = np.full(len(labels), -1.0)
        # The tolerance lets the edge itself pass: its weight was rounded from the sum.
        reach[rows] = self._space.threshold(weights) * SUM_TOLERANCE
        shape, limits = self._exact[1].shape, pad_blocks(self._blocks.to_blocks(reach, -1.0), -1.0)
        ends = jnp.full(shape, NO_INDEX, jnp.int32), jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.int32)
        for batch in groups(self._candidate_pairs(labels, reach)):
            ends = _count_endpoints(self._space.power, *self._exact, self._label_blocks(labels), limits, batch, ends)
        place, count, long = (self._to_rows(each, len(labels))[rows] for each in ends)
        index = self._blocks.index.ravel()
        return np.where(count > 0, index[np.minimum(place, index.size - 1)], -1), count, long

    def _lightest(self, labels, pairs, rows):
        """(n,) sums of the lightest edge of each row over some pairs of blocks, in the precision of ``rows``."""
        best = jnp.full(rows[1].shape, jnp.inf, rows[1].dtype)
        for batch in groups(pairs):
            best = _lightest(self._space.power, *rows, self._label_blocks(labels), batch, best)
        return self._to_rows(best, len(labels))

    def _error_bounds(self, sums):
        """Lower and upper bounds (n,) on the sum of each row's lightest edge, from the least float32 sum.

        Coordinates were rounded, and each term of the sum. The other end of an edge of length l from a row at c (both
        largest over columns) lies within c + l: a difference is off by at most (2c + l) units of roundoff.
        """
        if self._far is None:
            return sums / SUM_TOLERANCE, sums * SUM_TOLERANCE
        degree, columns = self._degree, self._space.x.shape[1]
        with np.errstate(invalid="ignore"):
            lengths = sums.astype(np.float64) ** (1 / degree)
            apart = 2 * UNIT_ROUNDOFF * columns ** (1 / self._space.power) * (2 * self._far + lengths)
            terms = (columns + 2 * degree + 8) * UNIT_ROUNDOFF
            lower = np.maximum(lengths - apart, 0) ** degree * (1 - terms)
            upper = (lengths + apart) ** degree * (1 + terms)
        # Clipped rows have no float32 bound: anything between 0 and ∞ is possible.
        far, none = self._far >= FLOAT32_LIMIT / 2, np.isinf(sums)
        lower = np.where(far, 0, np.where(none, np.inf, lower))
        upper = np.where(far | none | (lengths >= FLOAT32_LIMIT / 2), np.inf, upper)
        return lower * self._scale**degree, upper * self._scale**degree

    def _candidate_pairs(self, labels, reach):
        """(p, 2) pairs of blocks of which the first may hold a row within its (n,) reach of another component."""
        reach = self._blocks.to_blocks(reach, -1.0).max(axis=1)
        pairs = [np.empty((0, 2), np.int32)]
        for some, bound in self._lower_bounds(np.flatnonzero(reach >= 0), self._block_components(labels)):
            first, second = np.nonzero(bound <= reach[some, None] * GAP_SLACK)
            pairs.append(np.stack([some[first], second], axis=1).astype(np.int32))
        return np.concatenate(pairs)

    def _lower_bounds(self, active_rows, components):
        """Blocks in tiles, and lower bounds on the sums of their edges to all blocks; infinite within a component."""
        blocks, power = self._blocks, self._space.power
        for some in (active_rows[group] for group in box_tiles(len(active_rows), len(blocks.low))):
            bound = box_distances(blocks.low[some], blocks.high[some], blocks.low, blocks.high, power)
            if self._row_bound is not None:
                bound = np.maximum(bound, self._row_bound[some])
            bound = np.maximum(bound, self._floor)
            # Blocks wholly in one component have no edge that leaves it.
            bound[(components[some, None] == components) & (components >= 0)] = np.inf
            yield some, bound

    def _block_components(self, labels):
        """(b,) component of all rows of a block; -1 if there are several."""
        by_slot = self._blocks.to_blocks(labels.astype(np.int32), -1)
        least = np.where(by_slot < 0, NO_INDEX, by_slot).min(axis=1)
        return np.where(least == by_slot.max(axis=1), least, -1)

    def _label_blocks(self, labels):
        return pad_blocks(self._blocks.to_blocks(labels.astype(np.int32), -1), -1)

    def _to_rows(self, by_slot, n):
        return self._blocks.rows(np.asarray(by_slot)[: len(self._blocks.index)], n)


def _center_and_unit(blocks):
    """Center of all rows, and typical distance from it as a power of two: medians, which a far row cannot shift."""
    middle = np.median((blocks.low + blocks.high) / 2, axis=0)
    lengths = np.maximum(np.abs(blocks.low - middle), np.abs(blocks.high - middle)).max(axis=1)
    return middle, float(np.exp2(np.round(np.log2(np.median(lengths) or lengths.max() or 1.0))))


def _row_distances(blocks):
    """(b, b) lower bounds on squared distances between rows of two blocks: from rows to the ball of the other block.

    In many columns rows lie far from the center of their block, and bounds between two boxes, or two balls, are weak.
    """
    center, _ = _center_and_unit(blocks)
    middle = (blocks.low + blocks.high) / 2 - center
    sizes, (count, columns) = np.sum(np.square(middle), axis=1), middle.shape
    nearest, radius = np.empty((count, count)), np.empty(count)
    for block, rows in enumerate(blocks.x):
        rows = rows[blocks.index[block] >= 0] - center
        own = np.sum(np.square(rows), axis=1)
        squares = own[:, None] + sizes - 2 * (rows @ middle.T)
        error = 4 * (columns + 8) * np.finfo(float).eps * (own.max() + sizes)  # rounding error of a square
        nearest[block], radius[block] = squares.min(axis=0) - error, squares[:, block].max() + error[block]
    # Triangle inequality: d(x, y) ≥ d(x, middle) − radius for every row y of the other block.
    apart = np.sqrt(np.maximum(nearest, 0)) - np.sqrt(np.maximum(radius, 0))[None, :]
    return np.square(np.maximum(np.maximum(apart, apart.T), 0)) / GAP_SLACK


@persistent_jit(static_argnums=0)
def _lightest(power, columns, core, labels, batch, best):
    def chunk(best, first, second, real, at):
        sums, cores, crossing = _edges(power, columns, core, labels, first, second, real)
        return best.at[first].min(jnp.min(jnp.where(crossing, jnp.maximum(sums, cores), jnp.inf), axis=1))

    return fold_pairs(batch, chunk, best, size=chunk_size(columns.shape[1], power))


@persistent_jit(static_argnums=0)
def _count_endpoints(power, columns, core, labels, reach, batch, ends):
    """First slot at the other end of an edge within the reach of each slot, number of ends, and of ends by length."""

    def chunk(ends, first, second, real, at):
        sums, cores, crossing = _edges(power, columns, core, labels, first, second, real)
        slots = second[:, None, None] * BLOCK + jnp.arange(BLOCK, dtype=jnp.int32)[None, :, None]
        reached = crossing & (jnp.maximum(sums, cores) <= reach[first][:, None, :])
        # Edges that weigh a core distance tie with others; those that weigh their length do not.
        long = reached & (sums > cores * SUM_TOLERANCE)
        least, *counts = ends
        least = least.at[first].min(jnp.min(jnp.where(reached, slots, NO_INDEX), axis=1))
        added = (jnp.sum(each, axis=1, dtype=jnp.int32) for each in (reached, long))
        return least, *(count.at[first].add(more) for count, more in zip(counts, added, strict=True))

    return fold_pairs(batch, chunk, ends, size=chunk_size(columns.shape[1], power))


def _edges(power, columns, core, labels, first, second, real):
    """Edges between the rows of two lists of blocks.

    Returns:
        (c, BLOCK, BLOCK) sums to rows of the second blocks, larger core distances, and mask of edges between
        components.
    """
    sums, cores = pair_sums(power, columns, first, second), core[first][:, None, :]
    # Padding and empty slots have the component −1, and so no edge.
    others = jnp.where(real[:, None], labels[second], -1)[:, :, None]
    return sums, jnp.maximum(cores, core[second][:, :, None]), (others >= 0) & (others != labels[first][:, None, :])

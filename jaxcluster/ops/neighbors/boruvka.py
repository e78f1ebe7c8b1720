"""Edges between rows of different parts of a forest: for each row the lightest, among pairs of near blocks."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.ops.metric_space import MetricSpace, minkowski_sums
from jaxcluster.ops.neighbors.block_kernels import NOBODY, chunk_size, fold_pairs, groups, room, sums_between
from jaxcluster.ops.neighbors.kd_blocks import A_HAIR, BLOCK, FEW_COLUMNS, UNIT, box_groups, gaps, partition

NEARLY = 1 + 1e-12
"""Ratio of two float64 sums that are the same but for their rounding."""

FLOAT32_FAR = 1e15
"""Coordinates and lengths, in the unit of the rows, beyond which float32 tells nothing: squares may leave its range."""

CLOSEST = 3
"""Blocks nearest to a block that are looked at for an edge at all, before those that may hold a lighter one."""


class Crossings:
    """Rows in blocks, on the device in float64: to be used under ``jax.enable_x64(True)``.

    Args:
        space: n rows.
        core: (n,) distances that an edge of each row weighs at least.
    """

    def __init__(self, space: MetricSpace, core: np.ndarray):
        self._space, self._core = space, core
        self._blocks = partition(space.x)
        placed = self._blocks.places(space.threshold(core), np.inf)
        self._floor = placed.min(axis=1)
        wide = space.x.shape[1] > FEW_COLUMNS and space.power == 2
        self._apart = _row_gaps(self._blocks) if wide else None
        columns = np.swapaxes(self._blocks.x, 1, 2)
        self._exact = room(columns, np.inf), room(placed, np.inf)
        self._degree = 1.0 if np.isinf(space.power) else space.power  # sums are lengths to this power
        self._scale, self._far, self._coarse = 1.0, None, self._exact
        if space.power in (1, 2, np.inf):  # other powers leave the range of float32
            self._make_coarse(columns, placed)

    def _make_coarse(self, columns, core):
        """Rows in float32 about a middle that a far row cannot drag, in a unit in which most coordinates are about 1.

        Each coordinate is rounded in proportion to itself, so how far an edge may be off depends on where its row is.
        """
        middle, self._scale = _frame(self._blocks)
        with np.errstate(invalid="ignore", over="ignore"):
            columns = (columns - middle[:, None]) / self._scale
            self._far = self._blocks.rows(np.abs(columns).max(axis=1), self._space.n)
            columns = np.clip(columns, -FLOAT32_FAR, FLOAT32_FAR).astype(np.float32)
            core = (core / self._scale**self._degree).astype(np.float32)
        self._coarse = room(columns, np.inf), room(core, np.inf)

    def weights(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(m,) what the edges between rows weigh."""
        lengths = self._space.distances(minkowski_sums(self._space.x[first], self._space.x[second], self._space.power))
        return np.maximum(lengths, np.maximum(self._core[first], self._core[second]))

    def some(self, labels: np.ndarray, looking: np.ndarray) -> np.ndarray:
        """(n,) bounds on edges to other parts, at least one of every part that has a row in the mask ``looking``."""
        blocks, parts = self._blocks, self._parts(labels)
        active = np.flatnonzero(blocks.places(looking, False).any(axis=1))
        mixed = active[parts[active] < 0]
        found = [np.stack([mixed, mixed], axis=1)]
        for some, bound in self._bounds(active, parts):
            second = np.argpartition(bound, min(CLOSEST, bound.shape[1] - 1), axis=1)[:, :CLOSEST]
            first = np.repeat(some, second.shape[1])
            kept = np.isfinite(np.take_along_axis(bound, second, axis=1)).ravel()
            found.append(np.stack([first, second.ravel()], axis=1)[kept])
        _, upper = self._bracket(self._lightest(labels, np.concatenate(found).astype(np.int32), self._coarse))
        return self._space.distances(upper)

    def within(self, labels: np.ndarray, limits: np.ndarray) -> np.ndarray:
        """(n,) weights of edges from rows to other parts: of the lightest of each part, and infinite for most others.

        Float32 tells which rows may have the lightest edge of their part, float64 which of them has.

        Args:
            labels: (n,) the part that each row is in.
            limits: (n,) distances beyond which an edge is not looked for; negative for rows that need none.
        """
        reach = np.where(limits >= 0, self._space.threshold(np.maximum(limits, 0)), -1.0)
        lower, upper = self._bracket(self._lightest(labels, self._pairs(labels, reach), self._coarse))
        least = np.full(labels.max() + 1, np.inf)
        np.minimum.at(least, labels, upper)
        may = lower <= np.minimum(least[labels], reach)
        reach = np.where(may, np.minimum(upper, reach), -1.0)
        found = self._lightest(labels, self._pairs(labels, reach), self._exact)
        return np.where(may, self._space.distances(found), np.inf)

    def partners(
        self, labels: np.ndarray, rows: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows at the other ends of the edges of given weights that were found from some rows.

        Returns:
            (m,) a row at such an end, −1 for none; (m,) how many there are; (m,) to how many of them the edge weighs
            its length, and not a core distance.
        """
        reach = np.full(len(labels), -1.0)
        reach[rows] = self._space.threshold(weights) * NEARLY
        shape, placed = self._exact[1].shape, room(self._blocks.places(reach, -1.0), -1.0)
        met = jnp.full(shape, NOBODY, jnp.int32), jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.int32)
        for todo in groups(self._pairs(labels, reach)):
            met = _met(self._space.power, *self._exact, self._placed(labels), placed, todo, met)
        place, count, long = (self._on_host(each, len(labels))[rows] for each in met)
        index = self._blocks.index.ravel()
        return np.where(count > 0, index[np.minimum(place, index.size - 1)], -1), count, long

    def _lightest(self, labels, pairs, rows):
        """(n,) sums of the lightest edges over some pairs of blocks, in the precision of the rows."""
        best = jnp.full(rows[1].shape, jnp.inf, rows[1].dtype)
        for todo in groups(pairs):
            best = _lightest(self._space.power, *rows, self._placed(labels), todo, best)
        return self._on_host(best, len(labels))

    def _bracket(self, sums):
        """(n,) what the sum of each row's lightest edge is at least and at most, if the float32 sum is the least.

        Coordinates were rounded, and each term of the sum. The other end of an edge of length l from a row at c, all
        lengths the largest of the columns, lies within c + l: so a difference is off by at most (2c + l) roundings.
        """
        if self._far is None:
            return sums / NEARLY, sums * NEARLY
        degree, columns = self._degree, self._space.x.shape[1]
        with np.errstate(invalid="ignore"):
            lengths = sums.astype(np.float64) ** (1 / degree)
            apart = 2 * UNIT * columns ** (1 / self._space.power) * (2 * self._far + lengths)
            terms = (columns + 2 * degree + 8) * UNIT
            lower = np.maximum(lengths - apart, 0) ** degree * (1 - terms)
            upper = (lengths + apart) ** degree * (1 + terms)
        far, none = self._far >= FLOAT32_FAR / 2, np.isinf(sums)
        lower = np.where(far, 0, np.where(none, np.inf, lower))
        upper = np.where(far | none | (lengths >= FLOAT32_FAR / 2), np.inf, upper)
        return lower * self._scale**degree, upper * self._scale**degree

    def _pairs(self, labels, reach):
        """(p, 2) pairs of blocks of which the first may hold a row within its (n,) reach of one of another part."""
        reach = self._blocks.places(reach, -1.0).max(axis=1)
        found = [np.empty((0, 2), np.int32)]
        for some, bound in self._bounds(np.flatnonzero(reach >= 0), self._parts(labels)):
            first, second = np.nonzero(bound <= reach[some, None] * A_HAIR)
            found.append(np.stack([some[first], second], axis=1).astype(np.int32))
        return np.concatenate(found)

    def _bounds(self, looking, parts):
        """Some blocks at a time, and the sums below which they have no edge to each other; infinite within a part."""
        blocks, power = self._blocks, self._space.power
        for some in (looking[group] for group in box_groups(len(looking), len(blocks.low))):
            bound = gaps(blocks.low[some], blocks.high[some], blocks.low, blocks.high, power)
            if self._apart is not None:
                bound = np.maximum(bound, self._apart[some])
            bound = np.maximum(bound, self._floor)
            bound[(parts[some, None] == parts) & (parts >= 0)] = np.inf
            yield some, bound

    def _parts(self, labels):
        """(b,) the part that a block is wholly in; -1 where there are several."""
        placed = self._blocks.places(labels.astype(np.int32), -1)
        least = np.where(placed < 0, NOBODY, placed).min(axis=1)
        return np.where(least == placed.max(axis=1), least, -1)

    def _placed(self, labels):
        return room(self._blocks.places(labels.astype(np.int32), -1), -1)

    def _on_host(self, placed, n):
        return self._blocks.rows(np.asarray(placed)[: len(self._blocks.index)], n)


def _frame(blocks):
    """A middle of all rows, and how far most blocks are from it, as a power of two: a far row changes neither."""
    middle = np.median((blocks.low + blocks.high) / 2, axis=0)
    lengths = np.maximum(np.abs(blocks.low - middle), np.abs(blocks.high - middle)).max(axis=1)
    return middle, float(np.exp2(np.round(np.log2(np.median(lengths) or lengths.max() or 1.0))))


def _row_gaps(blocks):
    """(b, b) no row of a block is nearer to one of another, squared: the rows to the other's ball, and the other way.

    In many columns rows lie far from the middle of their block, and two boxes, or two balls, say little.
    """
    center, _ = _frame(blocks)
    middle = (blocks.low + blocks.high) / 2 - center
    sizes, (count, columns) = np.sum(np.square(middle), axis=1), middle.shape
    nearest, radius = np.empty((count, count)), np.empty(count)
    for block, rows in enumerate(blocks.x):
        rows = rows[blocks.index[block] >= 0] - center
        own = np.sum(np.square(rows), axis=1)
        squares = own[:, None] + sizes - 2 * (rows @ middle.T)
        hair = 4 * (columns + 8) * np.finfo(float).eps * (own.max() + sizes)  # by which rounding may change a square
        nearest[block], radius[block] = squares.min(axis=0) - hair, squares[:, block].max() + hair[block]
    apart = np.sqrt(np.maximum(nearest, 0)) - np.sqrt(np.maximum(radius, 0))[None, :]
    return np.square(np.maximum(np.maximum(apart, apart.T), 0)) / A_HAIR


@partial(jax.jit, static_argnums=0)
def _lightest(power, columns, core, labels, todo, best):
    def chunk(best, first, second, real, at):
        sums, cores, crossing = _edges(power, columns, core, labels, first, second, real)
        return best.at[first].min(jnp.min(jnp.where(crossing, jnp.maximum(sums, cores), jnp.inf), axis=1))

    return fold_pairs(todo, chunk, best, size=chunk_size(columns.shape[1], power))


@partial(jax.jit, static_argnums=0)
def _met(power, columns, core, labels, reach, todo, met):
    """The first place at the other end of an edge within the reach of each place, how many, and how many long ones."""

    def chunk(met, first, second, real, at):
        sums, cores, crossing = _edges(power, columns, core, labels, first, second, real)
        places = second[:, None, None] * BLOCK + jnp.arange(BLOCK, dtype=jnp.int32)[None, :, None]
        within = crossing & (jnp.maximum(sums, cores) <= reach[first][:, None, :])
        long = within & (sums > cores * NEARLY)
        least, *counts = met
        least = least.at[first].min(jnp.min(jnp.where(within, places, NOBODY), axis=1))
        held = (jnp.sum(each, axis=1, dtype=jnp.int32) for each in (within, long))
        return least, *(count.at[first].add(more) for count, more in zip(counts, held, strict=True))

    return fold_pairs(todo, chunk, met, size=chunk_size(columns.shape[1], power))


def _edges(power, columns, core, labels, first, second, real):
    """(c, BLOCK, BLOCK) sums to rows of the second blocks, the greater core distance, and which join two parts."""
    sums, cores = sums_between(power, columns, first, second), core[first][:, None, :]
    others = jnp.where(real[:, None], labels[second], -1)[:, :, None]
    return sums, jnp.maximum(cores, core[second][:, :, None]), (others >= 0) & (others != labels[first][:, None, :])

"""Edges between rows of different parts of a forest: for each row the lightest, among pairs of near blocks."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.ops.block_pairs import fold_pairs, groups, room, sums_between
from jaxcluster.ops.blocks import BLOCK, partition, reachable_pairs
from jaxcluster.ops.pairwise import Space, power_sums

NEARLY = 1 + 1e-12
"""Ratio of two float64 sums that are the same but for their rounding."""

NOBODY = np.iinfo(np.int32).max
"""In place of a row number where there is none."""


class Crossings:
    """Rows in blocks, on the device in float64: to be used under ``jax.enable_x64(True)``.

    Args:
        space: n rows.
        core: (n,) distances that an edge of each row weighs at least.
    """

    def __init__(self, space: Space, core: np.ndarray):
        self._space, self._core = space, core
        self._blocks = partition(space.x)
        placed = self._blocks.places(space.reach(core), np.inf)
        self._floor = placed.min(axis=1)
        columns = np.swapaxes(self._blocks.x, 1, 2)
        self._device = jax.device_put((room(columns, np.inf), room(placed, np.inf)))

    def weights(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(m,) what the edges between rows weigh."""
        lengths = self._space.distances(power_sums(self._space.x[first], self._space.x[second], self._space.power))
        return np.maximum(lengths, np.maximum(self._core[first], self._core[second]))

    def some(self, labels: np.ndarray) -> np.ndarray:
        """(n,) weights of some edges to other parts, of every part at least one: those of rows side by side."""
        order = self._blocks.index[self._blocks.index >= 0]
        out = np.full(len(labels), np.inf)
        for apart in (1, BLOCK // 2):
            first, second = order[:-apart], order[apart:]
            across = labels[first] != labels[second]
            first, second = first[across], second[across]
            weights = self.weights(first, second)
            np.minimum.at(out, first, weights)
            np.minimum.at(out, second, weights)
        return out

    def lightest(self, labels: np.ndarray, limits: np.ndarray) -> np.ndarray:
        """(n,) weights of the lightest edges from rows to other parts; only those within a row's limit are sure.

        Args:
            labels: (n,) the part that each row is in.
            limits: (n,) distances; negative for rows that need no edge.
        """
        reach = np.where(limits >= 0, self._space.reach(np.maximum(limits, 0)), -1.0)
        pairs, placed = self._pairs(labels, self._blocks.places(reach, -1.0).max(axis=1))
        best = jnp.full(self._device[1].shape, jnp.inf)
        for _, todo in groups(pairs):
            best = _lightest(self._space.power, *self._device, placed, todo, best)
        return self._space.distances(self._on_host(best, len(labels)))

    def partners(self, labels: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(m,) rows at the other ends of the edges that `lightest` found from some rows."""
        reach = np.full(len(labels), -1.0)
        reach[rows] = self._space.reach(weights) * NEARLY
        placed_reach = self._blocks.places(reach, -1.0)
        pairs, placed = self._pairs(labels, placed_reach.max(axis=1))
        met = jnp.full(self._device[1].shape, NOBODY, jnp.int32)
        for _, todo in groups(pairs):
            met = _met(self._space.power, *self._device, placed, room(placed_reach, -1.0), todo, met)
        return self._blocks.index.ravel()[self._on_host(met, len(labels))[rows]]

    def _pairs(self, labels, reach):
        """Pairs of blocks within reach that are not wholly in one part, and the labels by place."""
        placed = self._blocks.places(labels.astype(np.int32), -1)
        least = np.where(placed < 0, NOBODY, placed).min(axis=1)
        seen = np.where(least == placed.max(axis=1), least, -1)
        return reachable_pairs(self._blocks, reach, self._floor, self._space.power, seen), room(placed, -1)

    def _on_host(self, placed, n):
        return self._blocks.rows(np.asarray(placed)[: len(self._blocks.index)], n)


@partial(jax.jit, static_argnums=0)
def _lightest(power, columns, core, labels, todo, best):
    def chunk(best, first, second, real, at):
        weights, crossing = _edges(power, columns, core, labels, first, second, real)
        return best.at[first].min(jnp.min(jnp.where(crossing, weights, jnp.inf), axis=1))

    return fold_pairs(todo, chunk, best)


@partial(jax.jit, static_argnums=0)
def _met(power, columns, core, labels, reach, todo, met):
    """The first place at the other end of an edge within the reach of each place."""

    def chunk(met, first, second, real, at):
        weights, crossing = _edges(power, columns, core, labels, first, second, real)
        places = second[:, None, None] * BLOCK + jnp.arange(BLOCK, dtype=jnp.int32)[:, None]
        within = crossing & (weights <= reach[first][:, None, :])
        return met.at[first].min(jnp.min(jnp.where(within, places, NOBODY), axis=1))

    return fold_pairs(todo, chunk, met)


def _edges(power, columns, core, labels, first, second, real):
    """(c, BLOCK, BLOCK) weights, as sums, of edges to rows of the second blocks, and which join two parts."""
    weights = jnp.maximum(sums_between(power, (columns,), first, second), core[second][:, :, None])
    others = jnp.where(real[:, None], labels[second], -1)[:, :, None]
    return jnp.maximum(weights, core[first][:, None, :]), (others >= 0) & (others != labels[first][:, None, :])

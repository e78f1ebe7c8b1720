"""Dense work on pairs of blocks, on the device: one way to go over them, and the distances between their rows.

The arrays are as long as a bucket of blocks and the pairs come in groups of one length, so that other rows, or more of
them, seldom need another program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core.rows import bucket
from jaxcluster.ops.blocks import BLOCK
from jaxcluster.types import Array, Float, Int

CHUNK = 256
"""Pairs that are compared at a time: few enough that what they need stays in a core's cache."""

GROUP = 1 << 14
"""Pairs that are handed to the device at a time."""

NOBODY = np.iinfo(np.int32).max
"""In place of a label or a number of a row, where there is none."""

LEAST_BLOCKS = 16
"""Blocks that the fewest are padded up to."""


class Todo(NamedTuple):
    """Some pairs of blocks; those from ``count`` on are room."""

    pairs: Int[Array, "p 2"]
    count: Int[Array, ""]


def room(values: np.ndarray, empty: Any) -> Array:
    """(b, …) values of blocks on the device, and ``empty`` up to a bucket of blocks."""
    out = np.full((bucket(len(values), LEAST_BLOCKS), *values.shape[1:]), empty, values.dtype)
    out[: len(values)] = values
    return jax.device_put(out)


def groups(pairs: np.ndarray) -> Iterator[Todo]:
    """So many of (p, 2) int32 pairs at a time, with room after them."""
    for start in range(0, len(pairs), GROUP):
        some = pairs[start : start + GROUP]
        padded = np.zeros((GROUP, 2), np.int32)
        padded[: len(some)] = some
        yield Todo(padded, np.int32(len(some)))


def fold_pairs(todo: Todo, chunk: Callable, start: Any) -> Any:
    """Goes over pairs a chunk at a time: chunk(carry, first, second, real, at) -> carry.

    ``first`` and ``second`` are the numbers of the blocks, ``real`` tells pairs from room, ``at`` where they lie.
    """

    def advance(carry):
        at, values = carry
        first, second = jax.lax.dynamic_slice_in_dim(todo.pairs, at, CHUNK).T
        return at + CHUNK, chunk(values, first, second, at + jnp.arange(CHUNK) < todo.count, at)

    return jax.lax.while_loop(lambda carry: carry[0] < todo.count, advance, (jnp.int32(0), start))[1]


def sums_between(
    power: float, parts: tuple[Float[Array, "b d w"], ...], first: Int[Array, " c"], second: Int[Array, " c"]
) -> Float[Array, "c w w"]:
    """Σ|difference|^power of the rows of some blocks (last axis) from those of others (middle axis), column by column.

    That is compiled into one pass with what is made of the sums, which a matrix product is not: measured, it is faster
    up to 32 columns, and exact to the rounding of the differences.

    Args:
        power: see above.
        parts: the rows, each column a line: one array, or several that add up to them.
        first, second: the blocks.
    """
    between = [(part[first][:, :, None, :], part[second][:, :, :, None]) for part in parts]
    total = jnp.zeros((first.shape[0], BLOCK, BLOCK), parts[0].dtype)
    for column in range(parts[0].shape[1]):
        difference = sum(a[:, column] - b[:, column] for a, b in between)
        total += difference * difference if power == 2 else jnp.abs(difference) ** power
    return total

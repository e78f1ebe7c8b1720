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

from jaxcluster.core.preparation import padded_size
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.neighbors.kd_blocks import BLOCK
from jaxcluster.types import Array, Float, Int

CHUNK = 256
"""Pairs that are compared at a time: few enough that what they need stays in a core's cache."""

CHUNK_COLUMNS = 16
"""Columns from which on a chunk has fewer pairs in proportion, so that few pairs cost little."""

POWER_COST = 8
"""Columns of squares that one column of other powers takes the time of."""

GROUP = 1 << 14
"""Pairs that are handed to the device at a time."""

UNROLLED = 16
"""Columns that are added in one pass over the sums: the time to compile grows with them, and not with all columns."""

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
    out = np.full((padded_size(len(values), LEAST_BLOCKS), *values.shape[1:]), empty, values.dtype)
    out[: len(values)] = values
    return jax.device_put(out)


def groups(pairs: np.ndarray) -> Iterator[Todo]:
    """So many of (p, 2) int32 pairs at a time, with room after them."""
    for start in range(0, len(pairs), GROUP):
        some = pairs[start : start + GROUP]
        padded = np.zeros((GROUP, 2), np.int32)
        padded[: len(some)] = some
        yield Todo(padded, np.int32(len(some)))


def chunk_size(columns: int, power: float = 2.0) -> int:
    """Pairs of a chunk for rows of so many columns: a power of two, at least 4."""
    cost = columns if power in (1, 2, np.inf) else columns * POWER_COST
    return max(min(4, CHUNK), CHUNK >> (cost // CHUNK_COLUMNS).bit_length())


def fold_pairs(todo: Todo, chunk: Callable, start: Any, *, size: int | None = None) -> Any:
    """Goes over pairs a chunk at a time: chunk(carry, first, second, real, at) -> carry.

    ``first`` and ``second`` are the numbers of the blocks, ``real`` tells pairs from room, ``at`` is the place of the
    chunk among the pairs.

    Args:
        todo: pairs of blocks.
        chunk: see above.
        start: the carry before the first chunk.
        size: pairs of a chunk, a divisor of the number of pairs; None for `CHUNK`.
    """
    size = CHUNK if size is None else size

    def advance(carry):
        at, values = carry
        first, second = jax.lax.dynamic_slice_in_dim(todo.pairs, at, size).T
        return at + size, chunk(values, first, second, at + jnp.arange(size, dtype=jnp.int32) < todo.count, at)

    return jax.lax.while_loop(lambda carry: carry[0] < todo.count, advance, (jnp.int32(0), start))[1]


def sums_between(
    power: float, rows: Float[Array, "b d w"], first: Int[Array, " c"], second: Int[Array, " c"]
) -> Float[Array, "c w w"]:
    """`sums_of_blocks` of some blocks of ``rows`` (last axis) and others (middle axis)."""
    return sums_of_blocks(power, rows[first], rows[second])


def sums_of_blocks(power: float, a: Float[Array, "c d w"], b: Float[Array, "c d w"]) -> Float[Array, "c w w"]:
    """Σ|difference|^power of the rows of blocks ``a`` (last axis) from those of ``b`` (middle axis), column by column.

    The sums are compiled into one pass with what is made of them, which a matrix product is not: measured, that is
    faster up to 24 columns, and exact to the rounding of the differences. Beyond `UNROLLED` columns a loop takes so
    many at a time. An infinite power is Chebyshev's: the largest difference.
    """
    columns = a.shape[1]
    total = jnp.zeros((a.shape[0], BLOCK, BLOCK), a.dtype)
    whole = columns - columns % UNROLLED if columns > 2 * UNROLLED else 0

    def some(step, total):
        near, far = (jax.lax.dynamic_slice_in_dim(rows, step * UNROLLED, UNROLLED, axis=1) for rows in (a, b))
        return _add_columns(power, total, near, far)

    if whole:
        total = jax.lax.fori_loop(0, whole // UNROLLED, some, total)
    return _add_columns(power, total, a[:, whole:], b[:, whole:])


def squares_by_products(
    a: Float[Array, "c d w"], b: Float[Array, "c d w"]
) -> tuple[Float[Array, "c w w"], Float[Array, "c w w"]]:
    """Squared distances of the rows of blocks ``a`` (last axis) and ``b`` (middle axis), by a matrix product.

    Returns:
        The squares ‖a‖² + ‖b‖² − 2a·b, and ‖a‖² + ‖b‖². Rounding changes the former by at most 2(d + 8) units of
        roundoff of the latter, since (‖a‖ + ‖b‖)² is at most twice as much.
    """
    norms = jnp.sum(a * a, axis=1)[:, None, :] + jnp.sum(b * b, axis=1)[:, :, None]
    products = jax.lax.dot_general(b, a, (((1,), (1,)), ((0,), (0,))), precision=HIGHEST)
    return norms - 2 * products, norms


def _add_columns(power, total, a, b):
    for column in range(a.shape[1]):
        difference = a[:, column][:, None, :] - b[:, column][:, :, None]
        if power == 2:
            total = total + difference * difference
        elif power == np.inf:
            total = jnp.maximum(total, jnp.abs(difference))
        else:
            total = total + (jnp.abs(difference) if power == 1 else jnp.abs(difference) ** power)
    return total

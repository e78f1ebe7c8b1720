"""Kernels on pairs of blocks, on the device: a loop over batches of pairs, and Minkowski sums between their rows.

Arrays are padded to a bucket of blocks, and pairs come in batches of one length, so that other rows, or more of them,
seldom need another program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import signals
from jaxcluster.core.preparation import padded_size
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.neighbors.kd_blocks import BLOCK
from jaxcluster.types import Array, Float, Int, Published

CHUNK = 256
"""Pairs of a chunk in few columns: its sums stay in a core's cache."""

CHUNK_COLUMNS = 16
"""Columns from which on a chunk has fewer pairs in proportion, so that few pairs cost little."""

POWER_COST = 8
"""Cost of a column of another power, in columns of squares."""

BATCH_PAIRS = 1 << 14
"""Pairs of a batch, one call of a kernel."""

UNROLLED = 16
"""Columns that are added in one unrolled pass: compile time grows with them, not with the number of columns."""

NO_INDEX = np.iinfo(np.int32).max
"""Label or row number for none: the largest int32, neutral for minima."""

MIN_BLOCKS = 16
"""Smallest bucket of blocks."""


class PairBatch(NamedTuple):
    """Pairs of blocks; those from ``count`` on are padding."""

    pairs: Int[Published, "p 2"]
    count: Int[Published, ""]


def pad_blocks(values: np.ndarray, empty: Any) -> Array:
    """(b, …) values of blocks on the device, padded with ``empty`` to a bucket of blocks."""
    out = np.full((padded_size(len(values), MIN_BLOCKS), *values.shape[1:]), empty, values.dtype)
    out[: len(values)] = values
    return jax.device_put(out)


def groups(pairs: np.ndarray) -> Iterator[PairBatch]:
    """Batches of (p, 2) int32 pairs, the last one padded."""
    for start in range(0, len(pairs), BATCH_PAIRS):
        signals.check_stopped()
        some = pairs[start : start + BATCH_PAIRS]
        padded = np.zeros((BATCH_PAIRS, 2), np.int32)
        padded[: len(some)] = some
        yield PairBatch(padded, np.int32(len(some)))


def chunk_size(columns: int, power: float = 2.0) -> int:
    """Pairs of a chunk for rows of so many columns: a power of two, at least 4."""
    cost = columns if power in (1, 2, np.inf) else columns * POWER_COST
    return max(min(4, CHUNK), CHUNK >> (cost // CHUNK_COLUMNS).bit_length())


def fold_pairs(batch: PairBatch, chunk: Callable, start: Any, *, size: int | None = None) -> Any:
    """Fold over the pairs of a batch, a chunk at a time: chunk(carry, first, second, real, at) -> carry.

    ``first`` and ``second`` are block numbers, ``real`` is False for padding, ``at`` is the position of the chunk.

    Args:
        batch: pairs of blocks.
        chunk: see above.
        start: initial carry.
        size: pairs of a chunk, a divisor of the number of pairs; None for `CHUNK`.
    """
    size = CHUNK if size is None else size

    def advance(carry):
        at, values = carry
        first, second = jax.lax.dynamic_slice_in_dim(batch.pairs, at, size).T
        return at + size, chunk(values, first, second, at + jnp.arange(size, dtype=jnp.int32) < batch.count, at)

    return jax.lax.while_loop(lambda carry: carry[0] < batch.count, advance, (jnp.int32(0), start))[1]


def pair_sums(
    power: float, rows: Float[Array, "b d w"], first: Int[Array, " c"], second: Int[Array, " c"]
) -> Float[Array, "c w w"]:
    """`block_sums` between blocks ``first`` (last axis) and ``second`` (middle axis) of ``rows``."""
    return block_sums(power, rows[first], rows[second])


def block_sums(power: float, a: Float[Array, "c d w"], b: Float[Array, "c d w"]) -> Float[Array, "c w w"]:
    """Minkowski sums Σ|difference|^power between the rows of blocks ``a`` (last axis) and ``b`` (middle axis).

    XLA fuses these sums with their consumer, unlike a matrix product: measured, this is faster up to 24 columns, and
    exact to the rounding of the differences. Beyond 2 × `UNROLLED` columns a loop adds `UNROLLED` at a time. An
    infinite power is the Chebyshev distance, the largest difference.
    """
    columns = a.shape[1]
    total = jnp.zeros((a.shape[0], BLOCK, BLOCK), a.dtype)
    # Few columns are unrolled altogether; of many the program has one group, whatever their number.
    whole = columns - columns % UNROLLED if columns > 2 * UNROLLED else 0

    def some(step, total):
        parts = (jax.lax.dynamic_slice_in_dim(rows, step * UNROLLED, UNROLLED, axis=1) for rows in (a, b))
        return _add_columns(power, total, *parts)

    if whole:
        total = jax.lax.fori_loop(0, whole // UNROLLED, some, total)
    return _add_columns(power, total, a[:, whole:], b[:, whole:])


def product_squares(
    a: Float[Array, "c d w"], b: Float[Array, "c d w"]
) -> tuple[Float[Array, "c w w"], Float[Array, "c w w"]]:
    """Squared distances between the rows of blocks ``a`` (last axis) and ``b`` (middle axis), by a matrix product.

    Returns:
        (c, w, w) squares ‖a‖² + ‖b‖² − 2a·b, and (c, w, w) norms ‖a‖² + ‖b‖². The rounding error of a square is at most
        2(d + 8) units of roundoff of its norms, as (‖a‖ + ‖b‖)² is at most twice as much.
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

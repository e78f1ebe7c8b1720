"""Small random batches: drawing them, and telling from what they say when nothing gets better any more."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp

from jaxcluster.core.fold import MAX, across
from jaxcluster.core.shard import shard_index, take_row
from jaxcluster.types import Array, Float, Int, KeyArray, Points

State = TypeVar("State")


def draw_batch(key: KeyArray, points: Points, size: int, n: Int[Array, ""], axis_name: str | None) -> Points:
    """``size`` rows drawn with replacement from the first n, the same ones on every device."""
    local = points.weight.shape[0]
    drawn = jax.random.randint(key, (size,), 0, n, jnp.int32)
    index = drawn - shard_index(axis_name) * local
    mine = (index >= 0) & (index < local)
    index = jnp.clip(index, 0, local - 1)
    return Points(*(take_row(rows, index, mine, axis_name) for rows in points))


def count_rows(weight: Float[Array, " n"], axis_name: str | None) -> Int[Array, ""]:
    """Rows up to the last that counts: padding, on one device or spread over many, comes after it."""
    local = weight.shape[0]
    ends = jnp.arange(1, local + 1, dtype=jnp.int32) + shard_index(axis_name) * local
    return across(jnp.max(jnp.where(weight > 0, ends, 0)), axis_name, MAX)


def smooth(state: State, value: Float[Array, ""], alpha, *, margin=0.0, fresh=False) -> State:
    """Folds a batch's value, of which less is better, into the exponentially smoothed one.

    Args:
        state: a NamedTuple with ``smoothed`` (infinite at first), ``least`` (the least smoothed value that counted as
            better, infinite at first) and ``stale`` (batches since then).
        value: () of this batch.
        alpha: the share of this batch, in (0, 1].
        margin: how far below ``least`` is better.
        fresh: pass over this batch, the first after a seeding.
    """
    before = jnp.where(jnp.isinf(state.smoothed), value, state.smoothed)
    smoothed = before * (1 - alpha) + value * alpha
    better = smoothed < state.least - margin
    return state._replace(
        smoothed=jnp.where(fresh, jnp.asarray(jnp.inf, smoothed.dtype), smoothed),
        least=jnp.where(better & ~jnp.asarray(fresh), smoothed, state.least),
        stale=jnp.where(better | fresh, 0, state.stale + 1),
    )


def going_on(done, watched: Float[Array, ""]) -> Float[Array, ""]:
    """The residual of a loop over batches: 1 while it should go on, 0 once ``done``, NaN where ``watched`` is."""
    return jnp.where(jnp.isnan(watched), jnp.nan, jnp.where(done, 0, 1)).astype(watched.dtype)

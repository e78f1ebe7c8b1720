"""Streamed log-sum-exp over clusters: responsibilities exist in tiles, and are folded into statistics there.

Logits are (k, n), with clusters as rows and samples as columns, so that sums over clusters run along whole vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcluster.core.fold import Monoid, fold_rows
from jaxcluster.types import Array, Float


def responsibilities(logits: Float[Array, "k n"]) -> tuple[Float[Array, " n"], Float[Array, "k n"]]:
    """Log-sum-exp and softmax over clusters.

    Returns:
        (n,) log Σ_j exp(logits_j) of each sample, -inf for one whose logits all are; and (k, n) responsibilities, 0 for
        such a sample.
    """
    most = jnp.max(logits, axis=0)
    # The shift cancels in the value, and so it does in the gradient.
    most = jax.lax.stop_gradient(jnp.where(jnp.isfinite(most), most, 0))
    powers = jnp.exp(logits - most[None, :])
    total = jnp.sum(powers, axis=0)
    # Where every logit is −inf the softmax would be 0/0: all responsibilities are 0 there.
    possible = total > 0
    safe = jnp.where(possible, total, 1)
    return jnp.where(possible, most + jnp.log(safe), -jnp.inf), powers / safe[None, :]


def fold_responsibilities(
    responsibilities_of: Callable[[Any], tuple[Float[Array, " t"], Float[Array, "k t"]]],
    contribution: Callable[[Float[Array, " t"], Float[Array, "k t"], Any], tuple[Any, Any]],
    rows: Any,
    *,
    tile: int,
) -> tuple[Any, Any]:
    """Sum of statistics over samples by their responsibilities, which exist in one tile at a time.

    Args:
        responsibilities_of: tile of samples -> log-sum-exp of each, and responsibilities.
        contribution: (log-sum-exp, responsibilities, tile) -> (summary, per_row).
        rows: pytree of arrays with n samples along their last axis.
        tile: number of samples in a tile.

    Returns:
        As `jaxcluster.core.fold.fold_rows`. A gradient computes each tile again instead of storing n×k.
    """

    @jax.checkpoint
    def fold_tile(tile_of_rows):
        return contribution(*responsibilities_of(tile_of_rows), tile_of_rows)

    return fold_rows(fold_tile, rows, tile=tile, axis=-1)


def _log_sum_exp_all_reduce(value, axis_name):
    """Log-sum-exp over devices; -inf where all are."""
    most = jax.lax.pmax(jax.lax.stop_gradient(value), axis_name)
    most = jnp.where(jnp.isfinite(most), most, 0)
    total = jax.lax.psum(jnp.exp(value - most), axis_name)
    return jnp.where(total > 0, most + jnp.log(jnp.where(total > 0, total, 1)), -jnp.inf)


LOG_SUM_EXP = Monoid(combine=jnp.logaddexp, all_reduce=_log_sum_exp_all_reduce)
"""Log-sum-exp as the reduction of `jaxcluster.core.fold.fold_rows`."""

"""A step of soft k-means: the statistics of a tile of rows, and the centers that they lead to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.gmm import em
from jaxcluster.core.fold import fold_rows
from jaxcluster.ops import logsumexp
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.gaussian import COVARIANCE_TYPES, form_of
from jaxcluster.ops.gaussian.covariance_type import product_over_rows, with_ones
from jaxcluster.ops.gaussian.diagonal import square_distances
from jaxcluster.types import Array, Float, Int

FAR = 750.0
"""Squared distances, in units of 2σ², beyond that to the nearest center at which a share is 0 in float64 too."""


class SoftStats(NamedTuple):
    """What rows contribute: Σ r·w·x and Σ r·w by cluster, and the free energy."""

    sums: Float[Array, "*batch k d"]
    weight: Float[Array, "*batch k"]
    energy: Float[Array, "*batch"]


def soften(distance: Float[Array, "k n"], variance: Float[Array, ""]) -> tuple[Float[Array, " n"], Float[Array, "k n"]]:
    """Each column's free energy (data units²) and shares, from squared distances (data units²).

    Distances are taken from the least one, which then stands outside of the logarithm: at a small variance both stay
    finite, and so do their derivatives.
    """
    k = distance.shape[0]
    least = jnp.min(distance, axis=0)
    gap = distance - least[None, :]
    twice = 2 * variance
    soft = twice > 4 * FAR * jnp.finfo(distance.dtype).tiny
    hard = jnp.arange(k, dtype=jnp.int32)[:, None] == jnp.argmin(distance, axis=0).astype(jnp.int32)[None, :]
    near = jnp.where(soft, gap <= FAR * twice, hard)
    held = jnp.where(soft, jax.lax.stop_gradient(twice), 1)
    # 1, with the derivative of held/twice: that of a quotient would square a small variance, and underflow.
    scale = jnp.exp(jnp.log(held) - jnp.log(jnp.where(soft, twice, 1)))
    logits = jnp.where(near, -jnp.where(near & soft, gap, 0) / held * scale, -jnp.inf)
    log_sum, shares = logsumexp.responsibilities(logits)
    return least + jnp.where(soft, twice, 0) * (jnp.log(jnp.asarray(k, distance.dtype)) - log_sum), shares


def soft_stats(
    centers: Float[Array, "k d"],
    columns: em.Columns,
    variance: Float[Array, ""],
    *,
    known: Int[Array, " n"] | None = None,
    mass: Float[Array, " k"] | None = None,
    axis_name: str | None = None,
) -> SoftStats:
    """The shares of centered rows, folded into statistics; no more than a tile of them exists at a time.

    Args:
        centers, columns: in one frame.
        variance: σ².
        known: the cluster that has all of a row, −1 where the shares tell.
        mass: makes k clusters of different weight: shares are in proportion to mass·exp(−‖x − c‖²/2σ²).
        axis_name: the mapped axis over which rows are spread.
    """
    distances = distances_to(centers, variance, mass)

    @jax.checkpoint
    def tile(rows):
        (x, weight), known = rows
        distance = distances(x)
        energy, shares = soften(distance, variance)
        if known is not None:
            own = known[None, :] == jnp.arange(centers.shape[0], dtype=jnp.int32)[:, None]
            shares = jnp.where(known[None, :] >= 0, own.astype(shares.dtype), shares)
            all_in_own = jnp.sum(jnp.where(own, distance, 0), axis=0) + 2 * variance * math.log(centers.shape[0])
            energy = jnp.where(known >= 0, all_in_own, energy)
        sums = product_over_rows(shares * weight[None, :], with_ones(x))
        return SoftStats(sums[:, 1:], sums[:, 0], weight @ energy), ()

    size = em.em_tile(em.EMOptions("spherical"), columns.weight.shape[0], *centers.shape)
    return fold_rows(tile, (columns, known), tile=size, axis=-1, axis_name=axis_name)[0]


def soft_update(stats: SoftStats, centers: Float[Array, "k d"]) -> Float[Array, "k d"]:
    """Means of the shares; a cluster without any keeps its center."""
    filled = stats.weight > jnp.finfo(centers.dtype).tiny
    means = stats.sums / jnp.where(filled, stats.weight, 1)[:, None]
    return jnp.where(filled[:, None], means, centers)


def distances_to(
    centers: Float[Array, "k d"], variance: Float[Array, ""], mass: Float[Array, " k"] | None = None
) -> Callable[[Float[Array, "d n"]], Float[Array, "k n"]]:
    """Columns to squared distances, by products where their rounding is small beside the variance.

    Less 2σ²·log mass, where there is one, so that the shares are in proportion to it.
    """
    k, d = centers.shape
    covariance_type = COVARIANCE_TYPES["spherical"]
    _, factor, _ = covariance_type.factor(jnp.broadcast_to(jax.lax.stop_gradient(variance), (k,)), d)
    form = form_of(covariance_type, centers, factor)
    if mass is None:
        return lambda x: square_distances(centers, x, form, HIGHEST)
    nearer = 2 * variance * jnp.log(jnp.maximum(mass, jnp.finfo(mass.dtype).tiny))
    return lambda x: square_distances(centers, x, form, HIGHEST) - nearer[:, None]

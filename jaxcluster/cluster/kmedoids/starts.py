"""Where k-medoids starts: the greedy BUILD of PAM, or random rows.

Source: L. Kaufman and P. J. Rousseeuw, Finding Groups in Data, Wiley 1990, chapter 2. What a candidate gains only falls
as medoids are added, so that gains of earlier steps are bounds, and few have to be computed anew: M. Minoux,
Accelerated greedy algorithms for maximizing submodular set functions, 1978.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcluster.cluster.kmedoids.swap import Table
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.types import Array, Float, Int, KeyArray

INITS = ("build", "random")

LOOKED_AT = 64
"""Candidates whose gains are computed together."""


def random_medoids(key: KeyArray, weight: Float[Array, " n"], k: int) -> Int[Array, " k"]:
    """k distinct rows drawn by weight (the Gumbel top-k form of drawing without replacement)."""
    noise = jax.random.gumbel(key, weight.shape, weight.dtype)
    return jax.lax.top_k(jnp.log(weight) + noise, k)[1].astype(jnp.int32)


def build(table: Table, k: int) -> Int[Array, " k"]:
    """The row with the least weighted sum of distances, then k − 1 times the row that lowers the loss most."""
    possible = table.weight > 0
    sums = jnp.matmul(table.distances, table.weight, precision=HIGHEST)
    first = jnp.argmin(jnp.where(possible, sums, jnp.inf)).astype(jnp.int32)
    bounds = jnp.where(possible, jnp.inf, -jnp.inf).astype(sums.dtype).at[first].set(-jnp.inf)
    medoids = jnp.full((k,), first)

    def add(place, carry):
        medoids, nearest, bounds = carry
        best, bounds = _most_gained(table, nearest, bounds)
        nearest = jnp.minimum(nearest, table.distances[best])
        return medoids.at[place].set(best), nearest, bounds.at[best].set(-jnp.inf)

    return jax.lax.fori_loop(1, k, add, (medoids, table.distances[first], bounds))[0]


def _most_gained(table, nearest, bounds):
    """The candidate that lowers the loss most, and the bounds with what was found of the gains; −∞ is none."""

    def settled(carry):
        bounds, fresh = carry
        return jnp.max(jnp.where(fresh, bounds, -jnp.inf)) >= jnp.max(jnp.where(fresh, -jnp.inf, bounds))

    def look(carry):
        bounds, fresh = carry
        highest, index = jax.lax.top_k(jnp.where(fresh, -jnp.inf, bounds), min(LOOKED_AT, bounds.shape[0]))
        gain = jnp.sum(jnp.maximum(nearest[None, :] - table.distances[index], 0) * table.weight[None, :], axis=1)
        new = jnp.where(highest == -jnp.inf, bounds[index], gain)
        return bounds.at[index].set(new), fresh.at[index].set(True)

    start = (bounds, jnp.zeros(bounds.shape, bool))
    bounds, fresh = jax.lax.while_loop(lambda carry: ~settled(carry), look, start)
    return jnp.argmax(jnp.where(fresh, bounds, -jnp.inf)).astype(jnp.int32), bounds

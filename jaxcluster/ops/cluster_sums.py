"""Weighted sums of rows by label, in the form that is fast on the platform."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcluster.core.fold import fold_rows
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.types import Array, Float, Int, Points

PRODUCT_TILE = 2048
"""Rows whose weighted copy stays in a core's cache."""


def cluster_sums(
    points: Points, labels: Int[Array, " n"], k: int, *, uniform: bool = False
) -> tuple[Float[Array, "k d"], Float[Array, " k"]]:
    """Σ w·x and Σ w of each of k clusters; labels outside [0, k) count nowhere.

    Args:
        uniform: every weight is 0 or 1, so that rows need no product with their weight.
    """

    def scatter(x, weight, labels):
        if uniform:
            return _scatter_uniform(x, weight, labels, k)
        return _scatter_weighted(x, weight, labels, k)

    def product(x, weight, labels):
        # On GPUs a float scatter-add is a compare-and-swap loop; a product with a one-hot matrix is not.
        member = jnp.where(labels[:, None] == jnp.arange(k, dtype=labels.dtype)[None, :], weight[:, None], 0)
        sums = jax.lax.dot_general(member, x, (((0,), (0,)), ((), ())), precision=HIGHEST)
        return sums, jnp.sum(member, axis=0)

    return jax.lax.platform_dependent(points.x, points.weight, labels, cpu=scatter, default=product)


def _scatter_uniform(x, weight, labels, k):
    labels = jnp.where(weight > 0, labels, k)
    counts = jax.ops.segment_sum((weight > 0).astype(jnp.int32), labels, k)
    return jax.ops.segment_sum(x, labels, k), counts.astype(x.dtype)


def _scatter_weighted(x, weight, labels, k):
    def tile(rows):
        x, weight, labels = rows
        return (jax.ops.segment_sum(x * weight[:, None], labels, k), jax.ops.segment_sum(weight, labels, k)), ()

    return fold_rows(tile, (x, weight, labels), tile=PRODUCT_TILE)[0]

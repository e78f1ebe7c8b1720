"""Weighted sums of rows by label: the reduction of every update step.

On a CPU a scatter-add is fast. On a GPU a float scatter-add is a compare-and-swap loop, and the product with a one-hot
matrix is faster.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcluster.core.fold import fold_rows
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.types import Array, Float, Int, Points

PRODUCT_TILE = 2048
"""Number of rows whose weighted copy stays in a core's cache."""


def cluster_sums(
    points: Points, labels: Int[Array, " n"], k: int, *, uniform: bool = False
) -> tuple[Float[Array, "k d"], Float[Array, " k"]]:
    """Weighted sum and weight of each cluster.

    Args:
        points: (n, d) rows and their weights.
        labels: (n,); labels outside [0, k) count nowhere.
        k: number of clusters.
        uniform: every weight is 0 or 1, so that rows need no product with their weight.

    Returns:
        (k, d) sums Σ w·x and (k,) weights Σ w.
    """

    def scatter(x, weight, labels):
        if uniform:
            return _scatter_uniform(x, weight, labels, k)
        return _scatter_weighted(x, weight, labels, k)

    def product(x, weight, labels):
        member = jnp.where(labels[:, None] == jnp.arange(k, dtype=labels.dtype)[None, :], weight[:, None], 0)
        sums = jax.lax.dot_general(member, x, (((0,), (0,)), ((), ())), precision=HIGHEST)
        return sums, jnp.sum(member, axis=0)

    return jax.lax.platform_dependent(points.x, points.weight, labels, cpu=scatter, default=product)


def _scatter_uniform(x, weight, labels, k):
    # Counted as integers: float32 sums of ones stop at 2²⁴.
    labels = jnp.where(weight > 0, labels, k)
    counts = jax.ops.segment_sum((weight > 0).astype(jnp.int32), labels, k)
    return jax.ops.segment_sum(x, labels, k), counts.astype(x.dtype)


def _scatter_weighted(x, weight, labels, k):
    def tile(rows):
        x, weight, labels = rows
        return (jax.ops.segment_sum(x * weight[:, None], labels, k), jax.ops.segment_sum(weight, labels, k)), ()

    return fold_rows(tile, (x, weight, labels), tile=PRODUCT_TILE)[0]

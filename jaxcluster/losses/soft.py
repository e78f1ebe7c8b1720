"""Soft clustering against a target: how far the shares of clusters are from those that they are to be.

Source: S. Kullback and R. A. Leibler, On information and sufficiency, Annals of Mathematical Statistics 22 (1951), for
the divergence; the shares are those of soft k-means (C. M. Bishop, Pattern Recognition and Machine Learning, 9.3.2).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from jaxcluster.core import check
from jaxcluster.losses.inputs import as_matching, as_rows, as_weights, in_one_dtype, present
from jaxcluster.losses.reduce import reduce
from jaxcluster.ops.differences import squared_distances, squared_excess
from jaxcluster.types import Array, Float


def soft_clustering_loss(
    z, centers, target, *, temperature=1.0, weights=None, reduction: str = "mean"
) -> Float[Array, "*n"]:
    """KL(t‖r) = Σ_j t_j·log(t_j/r_j) of each row (nats), r = softmax(−‖z − μ‖²/T), with 0·log 0 = 0.

    Less the target's entropy it is the cross-entropy: it has the same gradient, and is 0 where the shares are what they
    are to be. The target is a constant.

    Args:
        z: (n, d) rows.
        centers: (k, d) μ.
        target: (n, k) t >= 0; rows sum to 1. One-hot for known clusters.
        temperature: T > 0 (units of z²), twice the variance of soft k-means. Traced.
        weights: (n,) >= 0, or None for 1 each.
        reduction: "mean" (per row), "sum", or "none" for (n,) terms.

    Raises:
        ValueError, TypeError: wrong shapes or weights, a temperature that is not positive, an unknown reduction.
    """
    z, centers = as_rows(z=z, centers=centers)
    n = z.shape[0]
    target = as_matching(target, (n, centers.shape[0]), name="target", of="z and centers")
    z, centers, target = in_one_dtype(z, centers, target)
    temperature = jnp.asarray(check.check_positive("temperature", temperature), z.dtype)
    weights = as_weights(weights, n)
    target = jax.lax.stop_gradient(present(target, weights))
    # Less the least of each row, which no softmax sees: of a far row it has all the digits.
    z = present(z, weights)
    nearest = jnp.argmin(jax.lax.stop_gradient(squared_distances(z, centers)), axis=1)
    log_shares = jax.nn.log_softmax(-squared_excess(z, centers[nearest], centers) / temperature, axis=1)
    return reduce(jnp.sum(xlogy(target, target) - target * log_shares, axis=1), reduction, weights=weights)

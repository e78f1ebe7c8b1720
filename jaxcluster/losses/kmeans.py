"""Losses of k-means, of soft k-means and deep k-means, and of responsibilities against a target.

>>> import numpy as np
>>> float(kmeans_loss(np.array([[0.0], [3.0]]), np.array([[1.0]])))
2.5

Sources: S. Lloyd, Least squares quantization in PCM, IEEE Trans. Information Theory 28 (1982); C. M. Bishop, Pattern
Recognition and Machine Learning (2006), 9.3.2, for soft k-means; S. Kullback and R. A. Leibler, On information and
sufficiency, Annals of Mathematical Statistics 22 (1951); M. Moradi Fard, T. Thonet and E. Gaussier, Deep k-means:
jointly clustering with k-means and learning representations, Pattern Recognition Letters 138 (2020).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from jaxcluster.cluster.soft_kmeans import soft_assign
from jaxcluster.core import validation
from jaxcluster.core.dtypes import times_power_of_two
from jaxcluster.core.frame import frame_of
from jaxcluster.losses.validation import (
    as_positive,
    as_samples,
    as_shaped,
    as_weights,
    exponent_out_of_range,
    promote,
    reduce,
    zero_unweighted,
)
from jaxcluster.ops.differences import distances, squared_excess
from jaxcluster.ops.distance import distances_to_assigned
from jaxcluster.ops.nearest import nearest
from jaxcluster.types import Array, Float


def kmeans_loss(x: Any, centers: Any, *, weights: Any = None, reduction: str = "mean") -> Float[Array, "*n"]:
    """min_j ‖x − μ_j‖² of each sample (data units²); the "sum" is the inertia.

    Labels are constants: the gradient of a sample goes to its nearest center alone. That is the exact gradient wherever
    no two centers are equally near.

    Args:
        x: (n_samples, n_features).
        centers: (n_clusters, n_features) μ.
        weights: (n_samples,) >= 0, or None for 1 each.
        reduction: "mean" (per sample), "sum", or "none" for (n_samples,) terms.

    Raises:
        ValueError, TypeError: wrong shapes or weights, an unknown reduction.
    """
    x, centers = as_samples(x=x, centers=centers)
    weights = as_weights(weights, x.shape[0])
    x = zero_unweighted(x, weights)
    constant_x, constant_centers = jax.lax.stop_gradient((x, centers))
    frame = frame_of(constant_centers)
    # The loss is piecewise quadratic: its gradient is that of a piece, so the search for the labels has none.
    labels, _ = nearest(frame.enter(constant_x), frame.enter(constant_centers))
    return reduce(distances_to_assigned(x, centers, labels), reduction, weights=weights)


def soft_kmeans_loss(
    x: Any, centers: Any, *, variance: Any, weights: Any = None, reduction: str = "mean"
) -> Float[Array, "*n"]:
    """−2σ²·log[(1/k)·Σ_j exp(−‖x − μ_j‖²/2σ²)] of each sample (data units²), its free energy.

    The "sum" is the objective of ``soft_kmeans.fit``, ``soft_kmeans.free_energy``. As σ² → 0 it tends to `kmeans_loss`,
    which is its value at 0.

    Args:
        x: (n_samples, n_features).
        centers: (n_clusters, n_features) μ.
        variance: σ² >= 0 (data units²), half of the temperature of a softmax of −‖x − μ‖². Traced, differentiable.
        weights: (n_samples,) >= 0, or None for 1 each.
        reduction: "mean" (per sample), "sum", or "none" for (n_samples,) terms.

    Raises:
        ValueError, TypeError: wrong shapes or weights, a negative variance, an unknown reduction.
    """
    x, centers = as_samples(x=x, centers=centers)
    variance = validation.check_positive("variance", variance, zero=True)
    weights = as_weights(weights, x.shape[0])
    x = zero_unweighted(x, weights)
    nearest_center, excess = _excess_over_nearest(x, centers)
    # Of the excess, the least of which is 0: its sum of exponentials is at least 1, where exp(−‖x − μ‖²/2σ²) of a far
    # sample is 0 for all centers, and its logarithm infinite.
    energy, _ = soft_assign(excess.T, jnp.asarray(variance, x.dtype))
    return reduce(jnp.sum(jnp.square(x - nearest_center), axis=1) + energy, reduction, weights=weights)


def deep_kmeans_loss(
    z: Any, centers: Any, *, alpha: Any = 1000.0, weights: Any = None, reduction: str = "mean"
) -> Float[Array, "*n"]:
    """Σ_j r_j·‖z − μ_j‖² of each sample (data units²), r = softmax(−α·‖z − μ‖²): the clustering term of deep k-means.

    As α → ∞ it tends to `kmeans_loss`. It is smooth in samples and centers, and the gradient goes through r too.

    Args:
        z: (n_samples, n_features) embeddings.
        centers: (n_clusters, n_features) μ.
        alpha: α > 0 (1/data units²), inverse temperature of the softmax. Traced, differentiable.
        weights: (n_samples,) >= 0, or None for 1 each.
        reduction: "mean" (per sample), "sum", or "none" for (n_samples,) terms.

    Raises:
        ValueError, TypeError: wrong shapes or weights, an alpha that is not positive, an unknown reduction.

    Source: M. Moradi Fard, T. Thonet and E. Gaussier, Deep k-means: jointly clustering with k-means and learning
    representations, Pattern Recognition Letters 138 (2020).
    """
    z, centers = as_samples(z=z, centers=centers)
    alpha = as_positive("alpha", alpha, z.dtype)
    weights = as_weights(weights, z.shape[0])
    z = zero_unweighted(z, weights)
    nearest_center, excess = _excess_over_nearest(z, centers)
    responsibilities = jax.nn.softmax(-alpha * excess, axis=1)
    # The responsibilities sum to 1, so the least squared distance is a term of its own, and the rest is of the excess.
    # A center that is infinitely far has responsibility 0, and 0·∞ would be NaN.
    excess = jnp.where(responsibilities > 0, excess, 0)
    least = jnp.sum(jnp.square(z - nearest_center), axis=1)
    return reduce(least + jnp.sum(responsibilities * excess, axis=1), reduction, weights=weights)


def soft_clustering_loss(
    z: Any, centers: Any, target: Any, *, temperature: Any = 1.0, weights: Any = None, reduction: str = "mean"
) -> Float[Array, "*n"]:
    """KL(t‖r) = Σ_j t_j·log(t_j/r_j) of each sample (nats), r = softmax(−‖z − μ‖²/T), with 0·log 0 = 0.

    It is the cross-entropy less the entropy of the target: the gradient is the same, and the loss is 0 at r = t. The
    target is a constant.

    Args:
        z: (n_samples, n_features) embeddings.
        centers: (n_clusters, n_features) μ.
        target: (n_samples, n_clusters) t >= 0; rows sum to 1. One-hot for known clusters.
        temperature: T > 0 (units of z²), twice the variance of soft k-means. Traced.
        weights: (n_samples,) >= 0, or None for 1 each.
        reduction: "mean" (per sample), "sum", or "none" for (n_samples,) terms.

    Raises:
        ValueError, TypeError: wrong shapes or weights, a temperature that is not positive, an unknown reduction.
    """
    z, centers = as_samples(z=z, centers=centers)
    n = z.shape[0]
    target = as_shaped(target, (n, centers.shape[0]), name="target", of="z and centers")
    z, centers, target = promote(z, centers, target)
    temperature = as_positive("temperature", temperature, z.dtype)
    weights = as_weights(weights, n)
    target = jax.lax.stop_gradient(zero_unweighted(target, weights))
    # A softmax does not change when its logits are shifted: the excess keeps digits that distances of far samples lose.
    _, excess = _excess_over_nearest(zero_unweighted(z, weights), centers)
    log_r = jax.nn.log_softmax(-excess / temperature, axis=1)
    return reduce(jnp.sum(xlogy(target, target) - target * log_r, axis=1), reduction, weights=weights)


def _excess_over_nearest(x, centers):
    """The nearest center of each sample, (n, d), and ‖x − μ_j‖² less its squared distance, (n, k).

    A softmax depends on the excess only. The squared distances of a far sample agree in all the digits of float32; the
    excess, computed from differences of centers, keeps its own.
    """
    # Of lengths, not squares: the squares of far or of small differences would be infinite or 0 for all centers.
    nearest_index = jnp.argmin(distances(*jax.lax.stop_gradient((x, centers))), axis=1)
    exponent = exponent_out_of_range(x, centers)
    scaled = [times_power_of_two(each, -exponent) for each in (x, centers)]
    excess = times_power_of_two(squared_excess(scaled[0], scaled[1][nearest_index], scaled[1]), 2 * exponent)
    # The nearest alone has 0: a search for the least must find it where the excess of others underflows.
    others = nearest_index[:, None] != jnp.arange(centers.shape[0], dtype=nearest_index.dtype)[None, :]
    return centers[nearest_index], jnp.where(others, excess + jnp.finfo(excess.dtype).tiny, 0)

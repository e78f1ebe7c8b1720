"""What k-means and soft k-means minimize, as losses of rows and centers.

Sources: S. Lloyd, Least squares quantization in PCM, IEEE Trans. Information Theory 28 (1982); C. M. Bishop, Pattern
Recognition and Machine Learning (2006), 9.3.2, for the soft form.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcluster.cluster.soft_kmeans import soften
from jaxcluster.core import check
from jaxcluster.core.frame import frame_of
from jaxcluster.losses.inputs import as_rows, as_weights, present
from jaxcluster.losses.reduce import reduce
from jaxcluster.ops.differences import squared_distances, squared_excess
from jaxcluster.ops.distance import own_distances
from jaxcluster.ops.nearest import nearest
from jaxcluster.types import Array, Float


def kmeans_loss(x, centers, *, weights=None, reduction: str = "mean") -> Float[Array, "*n"]:
    """min_j ‖x − μ_j‖² of each row (data units²); with "sum" it is the inertia.

    Labels are constants: the gradient of a row goes to its nearest center alone, which makes it exact wherever no two
    centers are equally near.

    Args:
        x: (n, d) rows.
        centers: (k, d) μ.
        weights: (n,) >= 0, or None for 1 each.
        reduction: "mean" (per row), "sum", or "none" for (n,) terms.

    Raises:
        ValueError, TypeError: wrong shapes or weights, an unknown reduction.
    """
    x, centers = as_rows(x=x, centers=centers)
    weights = as_weights(weights, x.shape[0])
    x = present(x, weights)
    held, fixed = jax.lax.stop_gradient((x, centers))
    frame = frame_of(fixed)
    labels, _ = nearest(frame.enter(held), frame.enter(fixed))
    return reduce(own_distances(x, centers, labels), reduction, weights=weights)


def soft_kmeans_loss(x, centers, *, variance, weights=None, reduction: str = "mean") -> Float[Array, "*n"]:
    """−2σ²·log[(1/k)·Σ_j exp(−‖x − μ_j‖²/2σ²)] of each row (data units²), its free energy.

    The "sum" is what ``soft_kmeans.fit`` minimizes, ``soft_kmeans.free_energy``; "mean" is that per row. As σ² → 0 it
    tends to `kmeans_loss`, which it is at 0.

    Args:
        x: (n, d) rows.
        centers: (k, d) μ.
        variance: σ² >= 0 (data units²), half of the temperature of a softmax of −‖x − μ‖². Traced, with a gradient.
        weights: (n,) >= 0, or None for 1 each.
        reduction: "mean" (per row), "sum", or "none" for (n,) terms.

    Raises:
        ValueError, TypeError: wrong shapes or weights, a negative variance, an unknown reduction.
    """
    x, centers = as_rows(x=x, centers=centers)
    variance = check.check_positive("variance", variance, zero=True)
    weights = as_weights(weights, x.shape[0])
    # About the nearest center: of a far row the squared distances agree in all the digits that the shares depend on.
    x = present(x, weights)
    nearest_center = centers[jnp.argmin(jax.lax.stop_gradient(squared_distances(x, centers)), axis=1)]
    energy, _ = soften(squared_excess(x, nearest_center, centers).T, jnp.asarray(variance, x.dtype))
    return reduce(jnp.sum(jnp.square(x - nearest_center), axis=1) + energy, reduction, weights=weights)

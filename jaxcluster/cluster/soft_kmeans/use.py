"""Using soft centres: how rows are shared out among them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.soft_kmeans.step import distances_to, soften
from jaxcluster.core import check
from jaxcluster.core.fold import map_rows
from jaxcluster.core.rows import place, trim
from jaxcluster.types import Array, Float


def responsibilities(centers, x, variance) -> Float[Array, "n k"]:
    """The share of each of (k, d) centres in each of (n, d) rows; one-hot at variance 0, ties to the lower index.

    Differentiable with respect to all three.
    """
    centers = check.check_matrix(centers, name="centers")
    x = check.check_matrix(x)
    check.check_width(x, centers.shape[1])
    check.check_positive("variance", variance, zero=True)
    if check.is_traced(centers):
        origin = jax.lax.stop_gradient(jnp.mean(centers, axis=0))
    else:
        origin = np.mean(np.asarray(centers), axis=0)
    placed = place(x, origin=origin)
    shares = _shares(jnp.asarray(centers, placed.origin.dtype), placed.origin, placed.points.x, variance)
    return trim(shares, placed.n, axis=0)


@jax.jit
def _shares(centers, origin, x, variance):
    variance = jnp.asarray(variance, x.dtype)
    distances = distances_to(centers - origin, variance)
    tile = em.em_tile(em.EMOptions("spherical"), x.shape[0], *centers.shape)
    return map_rows(lambda rows: soften(distances(rows.T), variance)[1].T, x, tile=tile)

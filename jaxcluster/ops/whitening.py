"""Principal components of rows, scaled so that each varies alike."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.core.frame import exponent_of, times_power_of_two
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.types import Array, Float

LEAST = 1e-6
"""Of the variance of the first component: components with less are rounding, and are left out."""


class Whitening(NamedTuple):
    """Rows to whitened principal components: ``(x - mean) @ matrix``.

    Attributes:
        mean: (d,) of the rows.
        matrix: (d, m) components, each divided by its deviation; columns of 0 for those that rows hardly vary along.
    """

    mean: Float[Array, " d"]
    matrix: Float[Array, "d m"]

    def apply(self, x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        """Whitened components of rows."""
        return jnp.matmul(x - self.mean[None, :], self.matrix, precision=HIGHEST)


def whitening(x: Float[Array, "n d"], components: int) -> Whitening:
    """The whitening of rows by their first ``components`` <= d principal components.

    Whitened rows have mean 0 and, along each component that is kept, variance 1 (divided by n).
    """
    # The mean of what is left of the first row's distance: a sum of rows far from the origin is rounded by their size.
    mean = x[0] + jnp.mean(x - x[0][None, :], axis=0)
    apart = x - mean[None, :]
    # In units of about 1: squares of rows near 1e-20 are 0 in float32, and those near 1e20 infinite.
    exponent = exponent_of(jax.lax.stop_gradient(jnp.max(jnp.abs(apart))))
    apart = times_power_of_two(apart, -exponent)
    variances, axes = jnp.linalg.eigh(jnp.matmul(apart.T, apart, precision=HIGHEST) / x.shape[0])
    variances, axes = variances[::-1][:components], axes[:, ::-1][:, :components]
    kept = variances > LEAST * jnp.maximum(variances[0], jnp.finfo(x.dtype).tiny)
    inverse = jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, variances, 1)), 0)
    return Whitening(mean, axes * times_power_of_two(inverse, -exponent)[None, :])

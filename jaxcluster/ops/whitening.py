"""Whitening: principal components of unit variance."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.core.dtypes import exponent_of, times_power_of_two
from jaxcluster.ops.components import principal_axes, scatter
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.types import Array, Float

MIN_VARIANCE_RATIO = 1e-6
"""Least variance of a component, as a fraction of that of the first: less is rounding, and left out."""


class Whitening(NamedTuple):
    """Affine map ``(x - mean) @ matrix`` to whitened principal components.

    Attributes:
        mean: (d,) mean of the rows.
        matrix: (d, m) components, each divided by its standard deviation; 0 for components that are left out.
    """

    mean: Float[Array, " d"]
    matrix: Float[Array, "d m"]

    def apply(self, x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        """Whitened components of rows."""
        return jnp.matmul(x - self.mean[None, :], self.matrix, precision=HIGHEST)


def whitening(x: Float[Array, "n d"], components: int) -> Whitening:
    """Whitening by the first ``components`` <= d principal components of the rows.

    Whitened rows have mean 0 and, along each component that is kept, variance 1 (divided by n).
    """
    # A mean of differences from the first row: a sum of rows far from the origin is rounded by their size.
    mean = x[0] + jnp.mean(x - x[0][None, :], axis=0)
    centered = x - mean[None, :]
    # In units of about 1: squares of rows near 1e-20 are 0 in float32, and those near 1e20 infinite.
    exponent = exponent_of(jax.lax.stop_gradient(jnp.max(jnp.abs(centered))))
    centered = times_power_of_two(centered, -exponent)
    variances, axes = principal_axes(scatter(centered) / x.shape[0], components)
    kept = variances > MIN_VARIANCE_RATIO * jnp.maximum(variances[0], jnp.finfo(x.dtype).tiny)
    inverse = jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, variances, 1)), 0)
    return Whitening(mean, axes * times_power_of_two(inverse, -exponent)[None, :])

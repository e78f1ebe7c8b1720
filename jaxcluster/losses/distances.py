"""Distances that gradients go through: from differences, and with a gradient of 0, not NaN, at distance 0."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.core.implicit import with_derivative_of
from jaxcluster.ops.distance import row_products, squared_norms
from jaxcluster.types import Array, Float


def to_centers(
    x: Float[Array, "n d"], centers: Float[Array, "k d"], scale: Float[Array, "k d"] | None = None
) -> Float[Array, "n k"]:
    """Σ_j scale_cj·(x_ij − μ_cj)², squared distances without a scale (data units²).

    By differences: ‖x‖² − 2x·μ + ‖μ‖² cancels near a centre, where shares and their slopes are decided. Slopes are by
    products all the same: they are linear in x − μ, and of n×k×d no more than a tile ever exists.
    """
    held, fixed, weights = jax.lax.stop_gradient((x, centers, scale))

    # Scaled before they are squared: where a scale follows the square, XLA on the CPU (jaxlib 0.10.2) gives wrong sums
    # from row 32,768/k on, for some shapes, once something elementwise comes after.
    roots = None if weights is None else jnp.sqrt(weights)

    def tile(rows):
        gaps = rows[:, None] - fixed
        return jnp.sum(jnp.square(gaps if roots is None else gaps * roots), axis=2)

    squares = map_rows(tile, held, tile=tile_rows(x.shape[0], centers.size))
    return with_derivative_of(_expanded, squares, x, centers, scale)


def between(a: Float[Array, "*n d"], b: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    """Euclidean distances along the last axis (data units); equal rows have gradient 0."""
    return root(jnp.sum(jnp.square(a - b), axis=-1))


def root(squares: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """√, with a gradient of 0 at 0."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)


def _expanded(x, centers, scale):
    """About the mean of the centres, near which there is little to cancel."""
    origin = jax.lax.stop_gradient(jnp.mean(centers, axis=0))
    x, centers = x - origin, centers - origin
    if scale is None:
        return squared_norms(x)[:, None] - 2 * row_products(x, centers) + squared_norms(centers)
    scaled = scale * centers
    return row_products(jnp.square(x), scale) - 2 * row_products(x, scaled) + jnp.sum(scaled * centers, axis=1)

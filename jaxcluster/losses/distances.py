"""Distances that gradients go through: from differences, and with a gradient of 0, not NaN, at distance 0."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.types import Array, Float


def to_centers(
    x: Float[Array, "n d"], centers: Float[Array, "k d"], scale: Float[Array, "k d"] | None = None
) -> Float[Array, "n k"]:
    """Σ_j scale_cj·(x_ij − μ_cj)², squared distances without a scale (data units²).

    By differences: ‖x‖² − 2x·μ + ‖μ‖² cancels near a centre, where shares and their slopes are decided. Of n×k×d no
    more than a tile exists at a time, and for the gradient it is computed anew.
    """

    @jax.checkpoint
    def tile(rows, centers, scale):
        squares = jnp.square(rows[:, None] - centers)
        return jnp.sum(squares if scale is None else scale * squares, axis=2)

    return map_rows(lambda rows: tile(rows, centers, scale), x, tile=tile_rows(x.shape[0], centers.size))


def between(a: Float[Array, "*n d"], b: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    """Euclidean distances along the last axis (data units); equal rows have gradient 0."""
    return root(jnp.sum(jnp.square(a - b), axis=-1))


def root(squares: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """√, with a gradient of 0 at 0."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)

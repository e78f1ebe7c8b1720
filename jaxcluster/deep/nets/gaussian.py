"""Encoders whose codes are Gaussians: a mean and a variance of every row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.deep.nets.initial import glorot
from jaxcluster.types import Array, ArrayLike, Float


class GaussianHead(nnx.Module):
    """Mean and log-variance of a Gaussian code, two linear maps of the same features.

    Args:
        width: of the features.
        latent: of the code.
        rngs: its stream "params" draws the weights.
    """

    def __init__(self, width: int, latent: int, *, rngs: nnx.Rngs):
        self.mean = nnx.Linear(width, latent, kernel_init=glorot, rngs=rngs)
        self.log_variance = nnx.Linear(width, latent, kernel_init=glorot, rngs=rngs)

    def __call__(self, features: Float[Array, "n m"]) -> tuple[Float[Array, "n l"], Float[Array, "n l"]]:
        """Mean and log-variance, float32."""
        return jnp.float32(self.mean(features)), jnp.float32(self.log_variance(features))

    def settle(self, variance: ArrayLike) -> None:
        """Makes ``variance`` that of every column of every code, to begin with: a drawn one may blur all clusters."""
        self.log_variance.kernel[...] = jnp.zeros_like(self.log_variance.kernel[...])
        self.log_variance.bias[...] = jnp.full_like(self.log_variance.bias[...], jnp.log(variance))


class VariationalEncoder(nnx.Module):
    """A trunk of features, and a Gaussian code of them.

    Args:
        trunk: rows to features; its last layer is followed by the non-linearity.
        head: features to (mean, log-variance).
        activation: after the trunk.
    """

    def __init__(self, trunk: nnx.Module, head: nnx.Module, *, activation: Callable[[Any], Any] = jax.nn.relu):
        self.trunk, self.head, self.activation = trunk, head, activation

    def __call__(self, x: Float[Array, "n ..."]) -> tuple[Float[Array, "n l"], Float[Array, "n l"]]:
        """Mean and log-variance of the code of each row."""
        return self.head(self.activation(self.trunk(x)))

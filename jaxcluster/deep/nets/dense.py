"""Dense networks: rows to codes, and back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import check
from jaxcluster.deep.nets.layers import batch_norm, glorot, he
from jaxcluster.types import Array, ArrayLike, Float


class MLP(nnx.Module):
    """Dense layers with a non-linearity between them and none after the last.

    Args:
        widths: of the input, the hidden layers and the output: at least two.
        activation: between layers.
        kernel_init: of the weights; biases start at 0.
        rngs: its stream "params" draws them.

    Raises:
        ValueError, TypeError: fewer than two widths, or one that is no count.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        activation: Callable[[Any], Any] = jax.nn.relu,
        kernel_init: Callable[..., Any] = glorot,
        rngs: nnx.Rngs,
    ):
        self.widths = _checked(widths)
        self.activation = activation
        pairs = itertools.pairwise(self.widths)
        self.layers = nnx.List([nnx.Linear(a, b, kernel_init=kernel_init, rngs=rngs) for a, b in pairs])

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        """What the last layer gives, float32."""
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return jnp.float32(self.layers[-1](x))


class Projector(nnx.Module):
    """Dense layers with batch normalization and ReLU between them and neither after the last.

    The head that SwAV and SimCLR put on an encoder, where their losses are; and an encoder of tables.

    Args:
        widths: of the input, the hidden layers and the output: at least two.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: fewer than two widths, or one that is no count.
    """

    def __init__(self, widths: Sequence[int], *, rngs: nnx.Rngs):
        self.widths = _checked(widths)
        *inner, last = itertools.pairwise(self.widths)
        # Normalization takes the mean off, and a bias with it.
        self.layers = nnx.List([nnx.Linear(a, b, use_bias=False, kernel_init=he, rngs=rngs) for a, b in inner])
        self.norms = nnx.List([batch_norm(b, rngs=rngs) for _, b in inner])
        self.last = nnx.Linear(*last, kernel_init=glorot, rngs=rngs)

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        """What the last layer gives, float32."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = jax.nn.relu(norm(layer(x)))
        return jnp.float32(self.last(x))


def mirror(widths: Sequence[int]) -> tuple[int, ...]:
    """The widths of the decoder of an encoder."""
    return tuple(reversed(widths))


def _checked(widths):
    widths = [check.check_count("a width", width) for width in widths]
    if len(widths) < 2:
        raise ValueError(f"widths={widths} must hold at least the width of the input and that of the output.")
    return tuple(widths)


# Encoders whose codes are Gaussians: a mean and a variance of every row.


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

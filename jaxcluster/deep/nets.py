"""Networks that the methods use unless they are given others: any `nnx.Module` from rows to codes, or back, will do.

Layers compute in their ``dtype``, parameters are float32; what a network returns is float32 in any case.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import check
from jaxcluster.types import Array, ArrayLike, Float

glorot = nnx.initializers.glorot_uniform()


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
        widths = [check.check_count("a width", width) for width in widths]
        if len(widths) < 2:
            raise ValueError(f"widths={widths} must hold at least the width of the input and that of the output.")
        self.widths = tuple(widths)
        self.activation = activation
        pairs = itertools.pairwise(widths)
        self.layers = nnx.List([nnx.Linear(a, b, kernel_init=kernel_init, rngs=rngs) for a, b in pairs])

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        """What the last layer gives, float32."""
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return jnp.float32(self.layers[-1](x))


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


class ConvEncoder(nnx.Module):
    """Strided convolutions and a linear code, for images that come as flat rows or as they are.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image.
        latent: width of the code.
        channels: of each convolution; each but the first halves height and width, as the first does.
        rngs: its stream "params" draws the weights.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent: int,
        *,
        channels: Sequence[int] = (32, 64, 128),
        rngs: nnx.Rngs,
    ):
        self.image_shape = as_image_shape(image_shape)
        widths = (self.image_shape[2], *channels)
        pairs = itertools.pairwise(widths)
        self.convolutions = nnx.List(
            [nnx.Conv(a, b, (3, 3), strides=2, kernel_init=glorot, rngs=rngs) for a, b in pairs]
        )
        height, width = halved(self.image_shape[:2], len(channels))
        self.linear = nnx.Linear(height * width * channels[-1], latent, kernel_init=glorot, rngs=rngs)

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """The code of each image, float32."""
        x = x.reshape(x.shape[0], *self.image_shape)
        for convolution in self.convolutions:
            x = jax.nn.relu(convolution(x))
        return jnp.float32(self.linear(x.reshape(x.shape[0], -1)))


class ConvDecoder(nnx.Module):
    """The mirror of `ConvEncoder`: codes to flat images.

    Args:
        latent: width of the code.
        image_shape: (height, width) or (height, width, channels) of an image.
        channels: as the encoder has them.
        rngs: its stream "params" draws the weights.
    """

    def __init__(
        self,
        latent: int,
        image_shape: Sequence[int],
        *,
        channels: Sequence[int] = (32, 64, 128),
        rngs: nnx.Rngs,
    ):
        self.image_shape = as_image_shape(image_shape)
        self.sizes = tuple(halved(self.image_shape[:2], times) for times in reversed(range(len(channels))))
        self.start = (*halved(self.image_shape[:2], len(channels)), channels[-1])
        widths = (*reversed(channels), self.image_shape[2])
        pairs = itertools.pairwise(widths)
        self.linear = nnx.Linear(latent, math.prod(self.start), kernel_init=glorot, rngs=rngs)
        self.convolutions = nnx.List(
            [nnx.ConvTranspose(a, b, (3, 3), strides=2, kernel_init=glorot, rngs=rngs) for a, b in pairs]
        )

    def __call__(self, z: Float[Array, "n l"]) -> Float[Array, "n d"]:
        """The flat image of each code, float32."""
        x = self.linear(z).reshape(z.shape[0], *self.start)
        for convolution, (height, width) in zip(self.convolutions, self.sizes, strict=True):
            x = convolution(jax.nn.relu(x))[:, :height, :width]
        return jnp.float32(x).reshape(z.shape[0], -1)


def mirror(widths: Sequence[int]) -> tuple[int, ...]:
    """The widths of the decoder of an encoder."""
    return tuple(reversed(widths))


def halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    """Height and width after so many convolutions of stride 2, which round up."""
    for _ in range(times):
        size = (-(-size[0] // 2), -(-size[1] // 2))
    return size


def as_image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """(height, width, channels); a shape of two has one channel.

    Raises:
        ValueError: a shape of another length.
    """
    shape = tuple(check.check_count("a side of image_shape", side) for side in shape)
    if len(shape) not in (2, 3):
        raise ValueError(f"image_shape={shape} must be (height, width) or (height, width, channels).")
    return shape if len(shape) == 3 else (*shape, 1)

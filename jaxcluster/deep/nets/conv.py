"""Convolutions to a code and their mirror: the networks of an autoencoder of images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.deep.nets.convolve import convolve
from jaxcluster.deep.nets.images import as_image_shape
from jaxcluster.deep.nets.initial import glorot
from jaxcluster.deep.nets.transposed import Double
from jaxcluster.types import Array, Float


class ConvEncoder(nnx.Module):
    """Strided convolutions and a linear code, for images that come as flat rows or as they are.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image.
        latent: width of the code.
        channels: of each convolution; each halves height and width.
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
            [
                nnx.Conv(a, b, (3, 3), strides=2, conv_general_dilated=convolve, kernel_init=glorot, rngs=rngs)
                for a, b in pairs
            ]
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
        self.convolutions = nnx.List([Double(a, b, kernel_init=glorot, rngs=rngs) for a, b in pairs])

    def __call__(self, z: Float[Array, "n l"]) -> Float[Array, "n d"]:
        """The flat image of each code, float32."""
        x = self.linear(z).reshape(z.shape[0], *self.start)
        for convolution, (height, width) in zip(self.convolutions, self.sizes, strict=True):
            x = convolution(jax.nn.relu(x))[:, :height, :width]
        return jnp.float32(x).reshape(z.shape[0], -1)


def halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    """Height and width after so many convolutions of stride 2, which round up."""
    for _ in range(times):
        size = (-(-size[0] // 2), -(-size[1] // 2))
    return size

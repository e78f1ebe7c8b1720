"""Convolutions with batch normalization and a pooled code, for images of any size."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import check
from jaxcluster.deep.nets.convolve import convolve
from jaxcluster.deep.nets.images import as_image_shape, as_images
from jaxcluster.deep.nets.initial import glorot, he
from jaxcluster.deep.nets.normed import batch_norm
from jaxcluster.types import Array, Float


class ConvNet(nnx.Module):
    """Strided convolutions with batch normalization and ReLU, the mean over pixels, and a linear code.

    Args:
        image_shape: (height, width) or (height, width, channels) of flat rows. Images that come as images,
            (n, h, w, channels), may have any size: crops of several sizes go through one network.
        width: of the code.
        channels: of each convolution; each halves height and width.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: a shape that is none; a width or channels that are no counts, or no channels at all.
            Called: rows that are no such images.
    """

    def __init__(
        self, image_shape: Sequence[int], width: int, *, channels: Sequence[int] = (32, 64, 128), rngs: nnx.Rngs
    ):
        self.image_shape = as_image_shape(image_shape)
        channels = checked_channels(channels)
        pairs = itertools.pairwise((self.image_shape[2], *channels))
        self.convolutions = nnx.List(
            [
                nnx.Conv(
                    a, b, (3, 3), strides=2, use_bias=False, conv_general_dilated=convolve, kernel_init=he, rngs=rngs
                )
                for a, b in pairs
            ]
        )
        self.norms = nnx.List([batch_norm(b, rngs=rngs) for b in channels])
        self.linear = nnx.Linear(channels[-1], check.check_count("width", width), kernel_init=glorot, rngs=rngs)

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """The code of each image, float32."""
        x = as_images(x, self.image_shape)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = jax.nn.relu(norm(convolution(x)))
        return jnp.float32(self.linear(jnp.mean(x, axis=(1, 2))))


def checked_channels(channels: Sequence[int]) -> tuple[int, ...]:
    """``channels`` as counts, at least one of them."""
    channels = tuple(check.check_count("a number of channels", count) for count in channels)
    if not channels:
        raise ValueError("channels=() must hold at least one number of channels.")
    return channels

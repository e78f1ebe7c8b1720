"""Images in rows: what shape they are, and how flat ones get it back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import check
from jaxcluster.deep.nets.layers import Double, batch_norm, convolve, glorot, he
from jaxcluster.types import Array, Float


def as_image_shape(shape: Any) -> tuple[int, int, int]:
    """(height, width, channels); a shape of two has one channel.

    Raises:
        ValueError, TypeError: a shape of another length, or that is none.
    """
    if not isinstance(shape, Sequence):
        raise TypeError(f"image_shape={shape!r} must be (height, width) or (height, width, channels).")
    shape = tuple(check.check_count("a side of image_shape", side) for side in shape)
    if len(shape) not in (2, 3):
        raise ValueError(f"image_shape={shape} must be (height, width) or (height, width, channels).")
    return shape if len(shape) == 3 else (*shape, 1)


def as_images(x: Any, image_shape: tuple[int, int, int]) -> Any:
    """Rows as (n, height, width, channels).

    Flat rows, (n, d), are of ``image_shape``. Images that come as images, (n, h, w, channels) or (n, h, w) of one
    channel, keep their own height and width, which crops may have made others.

    Raises:
        ValueError: rows that are no images of that shape, or of another number of channels.
    """
    channels = image_shape[2]
    if x.ndim == 2 and x.shape[1] == math.prod(image_shape):
        return x.reshape(-1, *image_shape)
    if x.ndim == 3 and channels == 1:
        return x[..., None]
    if x.ndim == 4 and x.shape[3] == channels:
        return x
    seen = f"{x.shape[1]} columns" if x.ndim == 2 else f"the shape {x.shape}"
    if x.ndim == 4 and x.shape[1] == channels:
        seen += " with the channels first (bring them to the end by x.transpose(0, 2, 3, 1))"
    raise ValueError(
        f"rows have {seen}, which image_shape={image_shape} does not make images of: it wants {math.prod(image_shape)} "
        f"columns, or the shape (n, height, width, {channels}). Pass image_shape=(height, width) of images of one "
        "channel, (height, width, channels) of others."
    )


# Convolutions to a code and their mirror: the networks of an autoencoder of images.


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


# Convolutions with batch normalization and a pooled code, for images of any size.


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

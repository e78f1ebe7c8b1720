"""Convolutional and residual networks, and the layout of images in rows.

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> from jaxcluster.deep.nets import ConvEncoder
>>> ConvEncoder((8, 8), 3, channels=(4, 8), rngs=nnx.Rngs(0))(jnp.ones((2, 64))).shape
(2, 3)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import validation
from jaxcluster.deep.nets.layers import UpsampleConv2x, batch_norm, convolve, glorot, he
from jaxcluster.types import Array, Float


class ConvEncoder(nnx.Module):
    """Strided convolutions with ReLU and a linear layer: images, flat or not, to codes.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image.
        latent: width of the code.
        channels: of each convolution; each halves height and width.
        rngs: its stream "params" draws the weights.
    """

    def __init__(
        self, image_shape: Sequence[int], latent: int, *, channels: Sequence[int] = (32, 64, 128), rngs: nnx.Rngs
    ):
        self.image_shape = as_image_shape(image_shape)
        pairs = itertools.pairwise((self.image_shape[2], *channels))
        options = {"strides": 2, "conv_general_dilated": convolve, "kernel_init": glorot, "rngs": rngs}
        self.convolutions = nnx.List([nnx.Conv(a, b, (3, 3), **options) for a, b in pairs])
        height, width = downsampled_size(self.image_shape[:2], len(channels))
        self.linear = nnx.Linear(height * width * channels[-1], latent, kernel_init=glorot, rngs=rngs)

    def get_config(self) -> dict[str, Any]:
        """Arguments of a network of the same layers, besides ``rngs``."""
        return {"image_shape": self.image_shape, "latent": self.linear.out_features, "channels": _channels(self)}

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """Code of each image, float32."""
        x = x.reshape(x.shape[0], *self.image_shape)
        for convolution in self.convolutions:
            x = jax.nn.relu(convolution(x))
        return jnp.float32(self.linear(x.reshape(x.shape[0], -1)))


class ConvDecoder(nnx.Module):
    """A linear layer and transposed convolutions with ReLU: codes to flat images, the mirror of `ConvEncoder`.

    Args:
        latent: width of the code.
        image_shape: (height, width) or (height, width, channels) of an image.
        channels: of the encoder.
        rngs: its stream "params" draws the weights.
    """

    def __init__(
        self, latent: int, image_shape: Sequence[int], *, channels: Sequence[int] = (32, 64, 128), rngs: nnx.Rngs
    ):
        self.image_shape = as_image_shape(image_shape)
        size, depth = self.image_shape[:2], len(channels)
        self.sizes = tuple(downsampled_size(size, times) for times in reversed(range(depth)))
        self.initial_shape = (*downsampled_size(size, depth), channels[-1])
        pairs = itertools.pairwise((*reversed(channels), self.image_shape[2]))
        self.linear = nnx.Linear(latent, math.prod(self.initial_shape), kernel_init=glorot, rngs=rngs)
        self.convolutions = nnx.List([UpsampleConv2x(a, b, kernel_init=glorot, rngs=rngs) for a, b in pairs])

    def get_config(self) -> dict[str, Any]:
        """Arguments of a network of the same layers, besides ``rngs``."""
        channels = tuple(layer.kernel.shape[2] for layer in reversed(self.convolutions))
        return {"latent": self.linear.in_features, "image_shape": self.image_shape, "channels": channels}

    def __call__(self, z: Float[Array, "n l"]) -> Float[Array, "n d"]:
        """Flat image of each code, float32."""
        x = self.linear(z).reshape(z.shape[0], *self.initial_shape)
        # Each upsampling doubles the sides; odd sizes, which the encoder rounded up, are cut back.
        for convolution, (height, width) in zip(self.convolutions, self.sizes, strict=True):
            x = convolution(jax.nn.relu(x))[:, :height, :width]
        return jnp.float32(x).reshape(z.shape[0], -1)


class ConvNet(nnx.Module):
    """Strided convolutions with batch normalization and ReLU, global average pooling, and a linear layer.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image in a flat row. Images in the shape
            (n_samples, height, width, channels) may have any size, so crops of several sizes fit one network.
        width: of the code.
        channels: of each convolution; each halves height and width.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: an invalid shape; a width or channels below 1 or not integers, or no channels. A call
            raises ValueError for rows that are not images of this shape.
    """

    def __init__(
        self, image_shape: Sequence[int], width: int, *, channels: Sequence[int] = (32, 64, 128), rngs: nnx.Rngs
    ):
        self.image_shape = as_image_shape(image_shape)
        channels = check_channels(channels)
        pairs = itertools.pairwise((self.image_shape[2], *channels))
        # Without a bias: the normalization subtracts it again.
        options = {"strides": 2, "use_bias": False, "conv_general_dilated": convolve, "kernel_init": he, "rngs": rngs}
        self.convolutions = nnx.List([nnx.Conv(a, b, (3, 3), **options) for a, b in pairs])
        self.norms = nnx.List([batch_norm(b, rngs=rngs) for b in channels])
        self.linear = nnx.Linear(channels[-1], validation.check_count("width", width), kernel_init=glorot, rngs=rngs)

    def get_config(self) -> dict[str, Any]:
        """Arguments of a network of the same layers, besides ``rngs``."""
        return {"image_shape": self.image_shape, "width": self.linear.out_features, "channels": _channels(self)}

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """Code of each image, float32."""
        x = as_images(x, self.image_shape)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = jax.nn.relu(norm(convolution(x)))
        return jnp.float32(self.linear(jnp.mean(x, axis=(1, 2))))


def as_image_shape(shape: Any) -> tuple[int, int, int]:
    """Check the shape of an image.

    Returns:
        (height, width, channels), with one channel for a shape of two numbers.

    Raises:
        ValueError, TypeError: not two or three positive integers.
    """
    if not isinstance(shape, Sequence):
        raise TypeError(f"image_shape={shape!r} must be (height, width) or (height, width, channels).")
    shape = tuple(validation.check_count("a side of image_shape", side) for side in shape)
    if len(shape) not in (2, 3):
        raise ValueError(f"image_shape={shape} must be (height, width) or (height, width, channels).")
    return shape if len(shape) == 3 else (*shape, 1)


def as_images(x: Any, image_shape: Sequence[int]) -> Any:
    """Rows as images (n_samples, height, width, channels).

    Flat rows (n_samples, n_features) get the shape ``image_shape``. Images (n_samples, height, width, channels), or
    without the last axis for one channel, keep their height and width, which crops may have changed.

    Raises:
        ValueError: rows that are not images of this shape, or of another number of channels.
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


def downsampled_size(size: tuple[int, int], times: int) -> tuple[int, int]:
    """Size of an image after convolutions of stride 2, which round up.

    Returns:
        (height, width).
    """
    for _ in range(times):
        size = (-(-size[0] // 2), -(-size[1] // 2))
    return size


def check_channels(channels: Sequence[int]) -> tuple[int, ...]:
    """``channels`` as a tuple of one or more counts.

    Returns:
        The counts.

    Raises:
        ValueError, TypeError: no channels; numbers below 1 or not integers.
    """
    channels = tuple(validation.check_count("a number of channels", count) for count in channels)
    if not channels:
        raise ValueError("channels=() must hold at least one number of channels.")
    return channels


class ResNet(nnx.Module):
    """Residual network: a convolution, stages of pre-activation blocks, global average pooling, and a linear layer.

    The first stage has the size of the image; each later stage halves height and width.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image in a flat row. Images in the shape
            (n_samples, height, width, channels) may have any size, so crops of several sizes fit one network.
        width: of the code.
        channels: of each stage.
        blocks: number in each stage; each has two convolutions.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: an invalid shape; a width, channels or blocks below 1 or not integers; not as many blocks
            as channels. A call raises ValueError for rows that are not images of this shape.

    Source: K. He, X. Zhang, S. Ren and J. Sun, Identity mappings in deep residual networks, ECCV 2016.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        width: int,
        *,
        channels: Sequence[int] = (32, 64, 128),
        blocks: Sequence[int] = (1, 1, 1),
        rngs: nnx.Rngs,
    ):
        self.image_shape = as_image_shape(image_shape)
        channels = check_channels(channels)
        blocks = tuple(validation.check_count("a number of blocks", count) for count in blocks)
        if len(blocks) != len(channels):
            raise ValueError(f"blocks={blocks} must hold one number for each stage, as channels={channels} does.")
        in_channels, self.stages = channels[0], tuple(zip(blocks, channels, strict=True))
        self.stem = _convolution(self.image_shape[2], in_channels, rngs=rngs)
        self.blocks = nnx.List()
        for stage, (count, out_channels) in enumerate(self.stages):
            for i in range(count):
                # The first block of a stage halves the image; the first stage keeps it.
                strides = 2 if stage > 0 and i == 0 else 1
                self.blocks.append(Block(in_channels, out_channels, strides=strides, rngs=rngs))
                in_channels = out_channels
        self.norm = batch_norm(in_channels, rngs=rngs)
        self.linear = nnx.Linear(in_channels, validation.check_count("width", width), kernel_init=glorot, rngs=rngs)

    def get_config(self) -> dict[str, Any]:
        """Arguments of a network of the same layers, besides ``rngs``."""
        blocks, channels = zip(*self.stages, strict=True)
        shape, width = self.image_shape, self.linear.out_features
        return {"image_shape": shape, "width": width, "channels": channels, "blocks": blocks}

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """Code of each image, float32."""
        x = self.stem(as_images(x, self.image_shape))
        for block in self.blocks:
            x = block(x)
        return jnp.float32(self.linear(jnp.mean(jax.nn.relu(self.norm(x)), axis=(1, 2))))


class Block(nnx.Module):
    """Residual block: x + two convolutions of x, each after batch normalization and ReLU.

    Where channels or size change, the shortcut is a 1×1 convolution of the normalized x.
    """

    def __init__(self, in_channels: int, out_channels: int, *, strides: int = 1, rngs: nnx.Rngs):
        self.norms = nnx.List([batch_norm(in_channels, rngs=rngs), batch_norm(out_channels, rngs=rngs)])
        self.convolutions = nnx.List(
            [
                _convolution(in_channels, out_channels, strides=strides, rngs=rngs),
                _convolution(out_channels, out_channels, rngs=rngs),
            ]
        )
        same = strides == 1 and in_channels == out_channels
        self.shortcut = None if same else _convolution(in_channels, out_channels, size=1, strides=strides, rngs=rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n g v m"]:
        """Images with the block's channels, of half the size with a stride of 2."""
        active = jax.nn.relu(self.norms[0](x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        inner = jax.nn.relu(self.norms[1](self.convolutions[0](active)))
        return shortcut + self.convolutions[1](inner)


def _convolution(in_channels, out_channels, *, size=3, strides=1, rngs):
    # Without a bias: the normalization after it subtracts it again.
    options = {"strides": strides, "use_bias": False, "conv_general_dilated": convolve, "kernel_init": he}
    return nnx.Conv(in_channels, out_channels, (size, size), **options, rngs=rngs)


def _channels(network):
    return tuple(layer.out_features for layer in network.convolutions)

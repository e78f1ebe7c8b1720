"""Residual network with pre-activation blocks, for images of any size.

Source: K. He, X. Zhang, S. Ren and J. Sun, Identity mappings in deep residual networks, ECCV 2016.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import validation
from jaxcluster.deep.nets.conv import as_image_shape, as_images, check_channels
from jaxcluster.deep.nets.layers import batch_norm, convolve, glorot, he
from jaxcluster.types import Array, Float


class ResNet(nnx.Module):
    """A convolution, stages of residual blocks, global average pooling, and a linear layer.

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
        in_channels = channels[0]
        self.stem = _convolution(self.image_shape[2], in_channels, rngs=rngs)
        self.blocks = nnx.List()
        for stage, (count, out_channels) in enumerate(zip(blocks, channels, strict=True)):
            for i in range(count):
                strides = 2 if stage > 0 and i == 0 else 1
                self.blocks.append(Block(in_channels, out_channels, strides=strides, rngs=rngs))
                in_channels = out_channels
        self.norm = batch_norm(in_channels, rngs=rngs)
        self.linear = nnx.Linear(in_channels, validation.check_count("width", width), kernel_init=glorot, rngs=rngs)

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

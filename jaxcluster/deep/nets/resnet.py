"""A small residual network for images of any size.

Source: K. He, X. Zhang, S. Ren and J. Sun, Identity mappings in deep residual networks, ECCV 2016.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import check
from jaxcluster.deep.nets.conv import as_image_shape, as_images, checked_channels
from jaxcluster.deep.nets.layers import batch_norm, convolve, glorot, he
from jaxcluster.types import Array, Float


class ResNet(nnx.Module):
    """A convolution, stages of residual blocks, the mean over pixels, and a linear code.

    The first stage has the size of the image; each later one halves height and width.

    Args:
        image_shape: (height, width) or (height, width, channels) of flat rows. Images that come as images,
            (n, h, w, channels), may have any size: crops of several sizes go through one network.
        width: of the code.
        channels: of each stage.
        blocks: of each stage; each is two convolutions.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: a shape that is none; a width, channels or blocks that are no counts, or not as many
            blocks as channels. Called: rows that are no such images.
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
        channels = checked_channels(channels)
        blocks = tuple(check.check_count("a number of blocks", count) for count in blocks)
        if len(blocks) != len(channels):
            raise ValueError(f"blocks={blocks} must hold one number for each stage, as channels={channels} does.")
        before = channels[0]
        self.stem = _convolution(self.image_shape[2], before, rngs=rngs)
        self.blocks = nnx.List()
        for stage, (count, after) in enumerate(zip(blocks, channels, strict=True)):
            for i in range(count):
                strides = 2 if stage > 0 and i == 0 else 1
                self.blocks.append(Block(before, after, strides=strides, rngs=rngs))
                before = after
        self.norm = batch_norm(before, rngs=rngs)
        self.linear = nnx.Linear(before, check.check_count("width", width), kernel_init=glorot, rngs=rngs)

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """The code of each image, float32."""
        x = self.stem(as_images(x, self.image_shape))
        for block in self.blocks:
            x = block(x)
        return jnp.float32(self.linear(jnp.mean(jax.nn.relu(self.norm(x)), axis=(1, 2))))


class Block(nnx.Module):
    """x + two convolutions of x, each after batch normalization and ReLU.

    Where width or size change, x takes a 1×1 convolution of its normalized self as the way past.
    """

    def __init__(self, before: int, after: int, *, strides: int = 1, rngs: nnx.Rngs):
        self.norms = nnx.List([batch_norm(before, rngs=rngs), batch_norm(after, rngs=rngs)])
        self.convolutions = nnx.List(
            [_convolution(before, after, strides=strides, rngs=rngs), _convolution(after, after, rngs=rngs)]
        )
        same = strides == 1 and before == after
        self.past = None if same else _convolution(before, after, size=1, strides=strides, rngs=rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n g v m"]:
        """Images of the block's channels, of half the size where it has strides."""
        active = jax.nn.relu(self.norms[0](x))
        past = x if self.past is None else self.past(active)
        inner = jax.nn.relu(self.norms[1](self.convolutions[0](active)))
        return past + self.convolutions[1](inner)


def _convolution(before, after, *, size=3, strides=1, rngs):
    """Without a bias: normalization takes it off again."""
    options = {"strides": strides, "use_bias": False, "conv_general_dilated": convolve, "kernel_init": he}
    return nnx.Conv(before, after, (size, size), **options, rngs=rngs)

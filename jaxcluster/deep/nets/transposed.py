"""Transposed convolutions of 4×4 and stride 2, as products of matrices.

Products are what XLA differentiates well: the gradients of convolutions in the loop of a training, and the second
derivatives that a gradient penalty takes, are several times slower on the CPU where they are left to be convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn import dtypes

from jaxcluster.deep.nets.initial import glorot
from jaxcluster.types import Array, Float

SHIFTS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Of the four 2×2 blocks of pixels that a 4×4 window covers."""


class Double(nnx.Module):
    """Pixel (i, j) of the input is spread over the 4×4 pixels of the output from (2i − 1, 2j − 1) on.

    Args:
        before, after: channels.
        kernel_init: of the weights; biases start at 0.
        rngs: its stream "params" draws them.

    Attributes:
        kernel: (4, 4, before, after).
    """

    def __init__(self, before: int, after: int, *, kernel_init: Callable[..., Any] = glorot, rngs: nnx.Rngs):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (4, 4, before, after), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(after, jnp.float32))
        self.dtype = None

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n g v m"]:
        """Images of twice the height and width."""
        x, kernel, bias = dtypes.promote_dtype((x, self.kernel[...], self.bias[...]), dtype=self.dtype)
        n, height, width, channels = x.shape
        after = kernel.shape[3]
        spread = x @ _by_blocks(kernel).transpose(2, 0, 1, 3).reshape(channels, 16 * after)
        spread = spread.reshape(n, height, width, 4, 4 * after)
        blocks = sum(
            jnp.pad(spread[:, :, :, s], ((0, 0), (i, 1 - i), (j, 1 - j), (0, 0))) for s, (i, j) in enumerate(SHIFTS)
        )
        blocks = blocks.reshape(n, height + 1, width + 1, 2, 2, after).transpose(0, 1, 3, 2, 4, 5)
        images = blocks.reshape(n, 2 * height + 2, 2 * width + 2, after)
        return images[:, 1:-1, 1:-1] + bias[None, None, None]


def _by_blocks(kernel):
    """The 16 pixels of a window in the order of its four blocks: (4 blocks, 4 pixels, before, after)."""
    return kernel.reshape(2, 2, 2, 2, *kernel.shape[2:]).transpose(0, 2, 1, 3, 4, 5).reshape(4, 4, *kernel.shape[2:])

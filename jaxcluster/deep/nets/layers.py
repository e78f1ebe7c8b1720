"""How weights are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn import dtypes

from jaxcluster.types import Array, Float

glorot = nnx.initializers.glorot_uniform()
"""For layers whose outputs go on as they are (X. Glorot and Y. Bengio, AISTATS 2010)."""

he = nnx.initializers.he_normal()
"""For layers before a ReLU (K. He et al., Delving deep into rectifiers, ICCV 2015)."""


# Batch normalization that keeps its numbers in float32.

MOMENTUM = 0.9
"""Of the running statistics: trainings here take hundreds of steps, of which 0.99 would remember the first ones."""


def batch_norm(width: int, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Normalization of ``width`` channels, the last axis.

    In training each channel gets the mean 0 and the variance 1 over all rows and pixels of the batch, then a learned
    scale and shift; running means of both statistics, as `nnx.BatchStat`, stand for them in evaluation. Rows spread
    over devices under `jax.jit` are one batch: the statistics are those of all of them.

    Source: S. Ioffe and C. Szegedy, Batch normalization, ICML 2015.
    """
    # The variance from differences: E[x²] − E[x]² cancels in float32 where the mean is large.
    return nnx.BatchNorm(width, momentum=MOMENTUM, use_fast_variance=False, promote_dtype=in_float32, rngs=rngs)


def in_float32(arrays: tuple[Any, ...], *, dtype: Any = None) -> tuple[Any, ...]:
    """Arrays in float32, whatever ``dtype`` the layer gives back: a running mean in bfloat16 would be 0.4 % off."""
    return tuple(None if array is None else jnp.asarray(array, jnp.float32) for array in arrays)


# Convolutions in the form that is fast on the platform.


def convolve(
    images: Float[Array, "n h w c"],
    kernel: Float[Array, "a b c m"],
    strides: tuple[int, int],
    padding: str,
    **options: Any,
) -> Float[Array, "n p q m"]:
    """What `jax.lax.conv_general_dilated` gives, for `nnx.Conv` to call: padding "SAME", no dilation, one group.

    On the CPU it is a product with the columns that the kernel sees. In a compiled loop, as the trainer's, XLA (jaxlib
    0.10.2) takes 10 to 20 times as long for the gradient of a convolution as outside of one; not so for products.
    """

    def by_columns(images, kernel):
        height, width, channels, many = kernel.shape
        columns = _columns(images, (height, width), strides)
        return jnp.matmul(columns, kernel.reshape(height * width * channels, many), precision=options["precision"])

    def as_it_is(images, kernel):
        return jax.lax.conv_general_dilated(images, kernel, strides, padding, **options)

    return jax.lax.platform_dependent(images, kernel, cpu=by_columns, default=as_it_is)


def _columns(images, size, strides):
    """(n, p, q, a·b·c) what a kernel of ``size`` sees at each place, zeros outside of the image."""
    counts = [-(-side // stride) for side, stride in zip(images.shape[1:3], strides, strict=True)]
    ends = [(count - 1) * stride + 1 for count, stride in zip(counts, strides, strict=True)]
    short = [max(end - 1 + k - side, 0) for end, k, side in zip(ends, size, images.shape[1:3], strict=True)]
    padded = jnp.pad(images, ((0, 0), *((gap // 2, gap - gap // 2) for gap in short), (0, 0)))
    seen = [
        padded[:, i : i + ends[0] : strides[0], j : j + ends[1] : strides[1]]
        for i in range(size[0])
        for j in range(size[1])
    ]
    return jnp.concatenate(seen, axis=3)


# Transposed convolutions of 4×4 and stride 2, as products of matrices.
#
# Products are what XLA differentiates well: the gradients of convolutions in the loop of a training, and the second
# derivatives that a gradient penalty takes, are several times slower on the CPU where they are left to be convolutions.

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

"""Building blocks of networks: initializers, batch normalization, and convolutions as matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn import dtypes

from jaxcluster.types import Array, Float

glorot = nnx.initializers.glorot_uniform()
"""Initializer of layers without a ReLU after them (X. Glorot and Y. Bengio, AISTATS 2010)."""

he = nnx.initializers.he_normal()
"""Initializer of layers before a ReLU (K. He et al., Delving deep into rectifiers, ICCV 2015)."""

BATCH_NORM_MOMENTUM = 0.9
"""Momentum of the running statistics: trainings here take hundreds of steps, of which 0.99 would remember the first."""

BLOCK_OFFSETS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Row and column, in blocks of 2×2 pixels, of the four blocks of a 4×4 window."""


def batch_norm(width: int, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Batch normalization of ``width`` channels, the last axis, in float32.

    In training each channel gets mean 0 and variance 1 over all samples and pixels of the batch, then a learned scale
    and shift. Running means of both statistics, as `nnx.BatchStat`, are used in evaluation. Samples sharded over
    devices under `jax.jit` are one batch.

    Source: S. Ioffe and C. Szegedy, Batch normalization, ICML 2015.
    """
    # The fast variance E[x²] − E[x]² cancels in float32 where the mean is large against the deviation.
    return nnx.BatchNorm(
        width, momentum=BATCH_NORM_MOMENTUM, use_fast_variance=False, promote_dtype=promote_to_float32, rngs=rngs
    )


def promote_to_float32(arrays: Any, /, *, dtype: Any = None, inexact: bool = True) -> Any:
    """Arrays in float32, whatever the output ``dtype`` of the layer.

    Returns:
        The arrays; None where there was None.
    """
    # bfloat16 has 8 significant bits: a running mean in it would be off by 0.4 %.
    return tuple(None if array is None else jnp.asarray(array, jnp.float32) for array in arrays)


def convolve(
    images: Float[Array, "n h w c"],
    kernel: Float[Array, "a b c m"],
    strides: tuple[int, int],
    padding: str,
    **options: Any,
) -> Float[Array, "n p q m"]:
    """Convolution as `jax.lax.conv_general_dilated`, for `nnx.Conv`: padding "SAME", no dilation, one group.

    On the CPU it is a matrix product (im2col); on other platforms XLA's convolution.
    """

    # In a compiled loop, as the trainer's, XLA for CPUs (jaxlib 0.10.2) takes 10 to 20 times as long for the gradient
    # of a convolution as outside of one. Matrix products do not suffer from it.
    def matmul(images, kernel):
        height, width, channels, out_channels = kernel.shape
        columns = _im2col(images, (height, width), strides)
        return jnp.matmul(
            columns, kernel.reshape(height * width * channels, out_channels), precision=options["precision"]
        )

    def convolution(images, kernel):
        return jax.lax.conv_general_dilated(images, kernel, strides, padding, **options)

    return jax.lax.platform_dependent(images, kernel, cpu=matmul, default=convolution)


def _im2col(images, size, strides):
    """(n, p, q, a·b·c) input window of each output pixel, for a kernel of ``size`` (a, b); zeros outside the image."""
    counts = [-(-side // stride) for side, stride in zip(images.shape[1:3], strides, strict=True)]
    ends = [(count - 1) * stride + 1 for count, stride in zip(counts, strides, strict=True)]
    # Padding "SAME": an odd number of rows or columns has its larger half at the end.
    missing = [max(end - 1 + k - side, 0) for end, k, side in zip(ends, size, images.shape[1:3], strict=True)]
    padded = jnp.pad(images, ((0, 0), *((pad // 2, pad - pad // 2) for pad in missing), (0, 0)))
    shifted = [
        padded[:, i : i + ends[0] : strides[0], j : j + ends[1] : strides[1]]
        for i in range(size[0])
        for j in range(size[1])
    ]
    return jnp.concatenate(shifted, axis=3)


class UpsampleConv2x(nnx.Module):
    """Transposed convolution of 4×4 and stride 2: input pixel (i, j) adds to the 4×4 output pixels from (2i−1, 2j−1).

    It is computed by matrix products: on the CPU the gradients of convolutions in a compiled loop, and the second
    derivatives of a gradient penalty, are several times slower.

    Args:
        in_channels, out_channels: of the images.
        kernel_init: of the weights; biases start at 0.
        rngs: its stream "params" draws the weights.

    Attributes:
        kernel: (4, 4, in_channels, out_channels).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_init: Callable[..., Any] = glorot, rngs: nnx.Rngs
    ):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (4, 4, in_channels, out_channels), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_channels, jnp.float32))
        self.dtype = None

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n g v m"]:
        """Images of twice the height and width."""
        x, kernel, bias = dtypes.promote_dtype((x, self.kernel[...], self.bias[...]), dtype=self.dtype)
        n, height, width, in_channels = x.shape
        out_channels = kernel.shape[3]
        windows = x @ _by_blocks(kernel).transpose(2, 0, 1, 3).reshape(in_channels, 16 * out_channels)
        windows = windows.reshape(n, height, width, 4, 4 * out_channels)
        # Windows overlap by half: as blocks of 2×2 pixels they are four images, added with offsets of one block.
        blocks = jnp.asarray(
            sum(
                jnp.pad(windows[:, :, :, s], ((0, 0), (i, 1 - i), (j, 1 - j), (0, 0)))
                for s, (i, j) in enumerate(BLOCK_OFFSETS)
            )
        )
        blocks = blocks.reshape(n, height + 1, width + 1, 2, 2, out_channels).transpose(0, 1, 3, 2, 4, 5)
        images = blocks.reshape(n, 2 * height + 2, 2 * width + 2, out_channels)
        return images[:, 1:-1, 1:-1] + bias[None, None, None]


def _by_blocks(kernel):
    """The 16 pixels of a window by its four blocks: (4 blocks, 4 pixels, in_channels, out_channels)."""
    return kernel.reshape(2, 2, 2, 2, *kernel.shape[2:]).transpose(0, 2, 1, 3, 4, 5).reshape(4, 4, *kernel.shape[2:])

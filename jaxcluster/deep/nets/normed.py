"""Batch normalization that keeps its numbers in float32."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

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

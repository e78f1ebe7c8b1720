"""From a user's matrix to `Points`: checked, padded up to a bucket, centred, and on the device, in one copy."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import check
from jaxcluster.core.fold import across
from jaxcluster.types import Array, Float, Points

ALIGNMENT = 64
"""Bytes: XLA's CPU buffers start on this boundary, and a host array that does is used without another copy."""

MEAN_BLOCK = 4096
"""Rows that are summed in their own dtype before the sums are added up in float64."""


class Placed(NamedTuple):
    """Rows ready for a kernel.

    Attributes:
        points: the rows minus ``origin``, padded with rows of weight 0.
        origin: (d,) what was subtracted.
        n: how many rows are real.
        uniform: whether every weight is 0 or 1, so that a weighted sum needs no product.
    """

    points: Points
    origin: Float[Array, " d"]
    n: int
    uniform: bool


def bucket(n: int) -> int:
    """The row count that n is padded up to, at most an eighth more: 8 sizes for each power of two, multiples of 8."""
    step = max(8, 1 << ((n - 1).bit_length() - 4)) if n > 16 else 8
    return -(-n // step) * step


def float_dtype(dtype) -> np.dtype:
    """The dtype rows of ``dtype`` are computed in: float64 where JAX allows it and the rows have it, else float32."""
    return np.dtype(jax.dtypes.canonicalize_dtype(jnp.promote_types(dtype, jnp.float32)))


def place(x, weights=None, *, origin=None, center: bool = True, axis_name: str | None = None) -> Placed:
    """Checks and places a matrix of rows, traced or not.

    Args:
        x: (n, d) real numbers. Concrete rows are padded up to a bucket, so that another n compiles nothing; traced
            rows are taken as they are.
        weights: (n,) non-negative, or None for 1 each.
        origin: (d,) to subtract; None for the mean of the rows.
        center: False leaves the rows where they are.
        axis_name: a mapped axis over which the rows are spread.

    Raises:
        ValueError, TypeError: see `jaxcluster.core.check`.
    """
    x = check.check_matrix(x)
    if check.is_traced(x, weights, origin):
        return _place_traced(jnp.asarray(x), weights, origin, center, axis_name)
    check.check_finite(x)
    if weights is not None:
        weights = check.check_weights(weights, x.shape[0])
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        raise ValueError("x is spread over several processes. Fit it inside shard_map, with axis_name=.")
    device = next(iter(x.devices())) if isinstance(x, jax.Array) else None
    return _place_host(np.asarray(x), weights, origin, center, device)


def trim(per_row: Array, n: int, *, axis: int = -1) -> Array:
    """The first n entries of a padded per-row result; cut on the host, where a new n compiles nothing."""
    if per_row.shape[axis] == n:
        return per_row
    if isinstance(per_row, jax.core.Tracer):
        return jax.lax.slice_in_dim(per_row, 0, n, axis=axis)
    kept = [slice(None)] * per_row.ndim
    kept[axis] = slice(n)
    return jax.device_put(np.asarray(per_row)[tuple(kept)], next(iter(per_row.devices())))


def _place_traced(x, weights, origin, center, axis_name):
    n, d = x.shape
    x = x.astype(float_dtype(x.dtype))
    if weights is None:
        weight = jnp.ones_like(x[:, 0])
    else:
        weight = jnp.asarray(weights).astype(x.dtype)
        if weight.shape != (n,):
            raise ValueError(f"weights must have shape ({n},), one a row, got {weight.shape}.")
    if not center:
        origin = jnp.zeros((d,), x.dtype)
    elif origin is None:
        kept = jax.lax.stop_gradient(jnp.where(weight > 0, 1, 0).astype(x.dtype))
        total = across(jnp.sum(jax.lax.stop_gradient(x) * kept[:, None], axis=0), axis_name)
        origin = total / jnp.maximum(across(jnp.sum(kept), axis_name), 1)
    else:
        origin = jnp.asarray(origin, x.dtype)
    return Placed(Points(x - origin, weight), origin, n, weights is None)


def _place_host(x, weights, origin, center, device):
    n, d = x.shape
    dtype = float_dtype(x.dtype)
    if not center:
        origin = np.zeros(d, dtype)
    else:
        origin = (_column_means(x) if origin is None else np.asarray(origin)).astype(dtype)
    rows = bucket(n)
    out = _aligned((rows, d), dtype)
    # In the wider dtype of the two: float64 rows far from the origin keep their digits into float32.
    np.subtract(x, origin, out=out[:n], casting="same_kind")
    out[n:] = 0
    weight = _aligned((rows,), dtype)
    weight[:n] = 1 if weights is None else weights
    weight[n:] = 0
    placed = jax.device_put((Points(out, weight), origin), device)
    return Placed(*placed, n, weights is None)


def _column_means(x):
    """Means of the columns by blocks: long float32 sums would lose the digits that centring is there to save."""
    total = np.zeros(x.shape[1])
    for start in range(0, x.shape[0], MEAN_BLOCK):
        block = x[start : start + MEAN_BLOCK]
        # For floats a product with ones: several times as fast as a sum down the columns.
        total += np.ones(len(block), x.dtype) @ block if x.dtype.kind == "f" else block.sum(axis=0, dtype=float)
    return total / x.shape[0]


def _aligned(shape, dtype):
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)

"""From a user's matrix to `Points`: checked, padded up to a bucket, centred, and on the device, in one copy."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import check
from jaxcluster.core.fold import across
from jaxcluster.types import Array, Float, Points

ALIGNMENT = 64
"""Bytes: XLA's CPU buffers start on this boundary, and a host array that does is used without another copy."""

LEAST_ROWS = 128
"""Rows that the smallest problems are padded up to: they cost nothing, and all share one program."""

HOST_BLOCK = 4096
"""Rows a host thread takes at a time; their sums are added up in float64."""

SUM_WIDTH = 1024
"""Columns that NumPy adds up at full speed."""


class Placed(NamedTuple):
    """Rows ready for a kernel.

    Attributes:
        points: the rows minus ``origin``, padded with rows of weight 0.
        origin: (d,) what was subtracted.
        n: how many rows are real.
        uniform: whether every row weighs 1 and padding 0, so that a weighted sum needs no product.
    """

    points: Points
    origin: Float[Array, " d"]
    n: int
    uniform: bool


def bucket(n: int, least: int = LEAST_ROWS) -> int:
    """The count that n is padded up to: ``least``, then at most an eighth more, 8 sizes for each power of two."""
    n = max(n, least)
    step = max(8, 1 << max(0, (n - 1).bit_length() - 4))
    return -(-n // step) * step


def float_dtype(dtype) -> np.dtype:
    """The dtype rows of ``dtype`` are computed in: float64 where JAX allows it and the rows have it, else float32."""
    return np.dtype(jax.dtypes.canonicalize_dtype(jnp.promote_types(dtype, jnp.float32)))


def place(
    x, weights=None, *, origin=None, center: bool = True, missing: bool | None = None, axis_name: str | None = None
) -> Placed:
    """Checks and places a matrix of rows, traced or not.

    Args:
        x: (n, d) real numbers. Concrete rows are padded up to a bucket, so that another n compiles nothing; traced
            rows are taken as they are.
        weights: (n,) non-negative, or None for 1 each.
        origin: (d,) to subtract; None for the mean of the rows.
        center: False leaves the rows where they are.
        missing: True lets NaN cells through, which do not count in the mean of their column; see `check.check_finite`.
        axis_name: a mapped axis over which the rows are spread.

    Raises:
        ValueError, TypeError: see `jaxcluster.core.check`.
    """
    x = check.check_matrix(x)
    if check.is_traced(x, weights, origin):
        return _place_traced(jnp.asarray(x), weights, origin, center, missing, axis_name)
    if weights is not None:
        weights = check.check_weights(weights, x.shape[0])
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        raise ValueError("x is spread over several processes. Fit it inside shard_map, with axis_name=.")
    device = next(iter(x.devices())) if isinstance(x, jax.Array) else None
    return _place_host(np.asarray(x), weights, origin, center, missing, device)


def trim(per_row: Array, n: int, *, axis: int = -1) -> Array:
    """The first n entries of a padded per-row result; cut on the host, where a new n compiles nothing."""
    if per_row.shape[axis] == n:
        return per_row
    if isinstance(per_row, jax.core.Tracer):
        return jax.lax.slice_in_dim(per_row, 0, n, axis=axis)
    kept = [slice(None)] * per_row.ndim
    kept[axis] = slice(n)
    return jax.device_put(np.asarray(per_row)[tuple(kept)], next(iter(per_row.devices())))


def _place_traced(x, weights, origin, center, missing, axis_name):
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
        held = jax.lax.stop_gradient(x)
        kept = jnp.broadcast_to(jax.lax.stop_gradient(weight > 0)[:, None], x.shape)
        kept = kept & ~jnp.isnan(held) if missing else kept
        total = across(jnp.sum(jnp.where(kept, held, 0), axis=0), axis_name)
        origin = total / jnp.maximum(across(jnp.sum(kept, axis=0), axis_name), 1)
    else:
        origin = jnp.asarray(origin, x.dtype)
    return Placed(Points(x - origin, weight), origin, n, weights is None)


def _place_host(x, weights, origin, center, missing, device):
    n, d = x.shape
    dtype = float_dtype(x.dtype)
    means = _column_means(x)
    if not np.isfinite(means).all():
        check.check_finite(x, missing=missing)
        means = _observed_means(x) if missing and origin is None else means
    origin = means if origin is None else np.asarray(origin)
    origin = origin.astype(dtype) if center else np.zeros(d, dtype)
    out = _aligned((bucket(n), d), dtype)
    # In the wider dtype of the two: float64 rows far from the origin keep their digits into float32.
    _by_blocks(n, lambda rows: _subtract(x[rows], origin, out[rows]))
    out[n:] = 0
    weight = _aligned(out.shape[:1], dtype)
    weight[:n] = 1 if weights is None else weights
    weight[n:] = 0
    uniform = bool((weight[:n] == 1).all())  # weights that say nothing need no program of their own
    placed = jax.device_put((Points(out, weight), origin), device)
    return Placed(*placed, n, uniform)


def _subtract(x, origin, out):
    """Values beyond the dtype become infinite here, and a status of the fit."""
    with np.errstate(over="ignore", invalid="ignore"):
        np.subtract(x, origin, out=out, casting="same_kind")


def _column_means(x):
    """Means of the columns by blocks: long float32 sums would lose the digits that centring is there to save.

    A column that holds NaN or infinity has a mean that is neither; so may one whose sum overflows.
    """
    d = x.shape[1]
    wide = max(1, SUM_WIDTH // d)
    dtype = None if x.dtype.kind == "f" else float

    def total(rows):
        block = x[rows]
        whole = len(block) - len(block) % wide
        # Narrow rows side by side: NumPy adds long rows several times as fast as short ones.
        sums = block[:whole].reshape(-1, wide * d).sum(axis=0, dtype=dtype).reshape(wide, d).sum(axis=0, dtype=dtype)
        return sums + block[whole:].sum(axis=0, dtype=dtype)

    with np.errstate(over="ignore", invalid="ignore"):
        return np.sum(_by_blocks(x.shape[0], total), axis=0, dtype=float) / x.shape[0]


def _observed_means(x):
    """Means of what is observed in each column. Raises ValueError for a column of which nothing is."""
    observed = ~np.isnan(x)
    counts = observed.sum(axis=0)
    if not counts.all():
        empty = np.flatnonzero(counts == 0)
        raise ValueError(f"x has no observed value in column {', '.join(map(str, empty[:8]))}. Drop such columns.")
    return np.where(observed, x, 0).sum(axis=0, dtype=float) / counts


def _by_blocks(n, work):
    """What ``work`` makes of each block of n rows; NumPy lets go of the interpreter, so the cores share them."""
    blocks = [slice(start, min(start + HOST_BLOCK, n)) for start in range(0, n, HOST_BLOCK)]
    if len(blocks) == 1:
        return [work(blocks[0])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, blocks))


def _aligned(shape, dtype):
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)

"""Preparation of a caller's samples for a kernel, and the way back of its results.

`prepare` checks samples and puts them into a `jaxcluster.core.frame.Frame`, and `finalize` takes a fit out of it. For
concrete arrays both compute on the host in float64; results have the dtype of the caller's samples.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding

from jaxcluster.core import memory, validation
from jaxcluster.core.dtypes import MAX_EXACT_INTEGER, exponent_of, float_dtype, published_dtype, times_power_of_two
from jaxcluster.core.fold import MAX, all_reduce
from jaxcluster.core.frame import (
    Frame,
    binary_exponent,
    bound_between,
    center_and_spread,
    fill_unobserved,
    frame_about,
    frame_reaching,
    is_crushed,
    sample_rows,
    traced_frame,
    typical_exponent,
    typical_exponent_in,
    warn_of_crushed,
)
from jaxcluster.core.messages import warn
from jaxcluster.core.padding import padded_columns
from jaxcluster.core.processes import is_spread, localize, spread
from jaxcluster.core.programs import limit_programs
from jaxcluster.core.shard import row_sharding
from jaxcluster.core.sparse_input import check_rows, check_values, pack
from jaxcluster.core.sparse_rows import SparseRows, is_sparse
from jaxcluster.types import Array, Bool, Fit, Int, Points, Published, Status

ALIGNMENT = 64
"""Alignment of XLA's CPU buffers in bytes: an aligned host array is used without another copy."""

MIN_PADDED_ROWS = 128
"""Samples that the smallest problems are padded to: they cost nothing, and all share one program."""

SMALL_ROWS = 1024
"""Samples up to which half as many more cost less than another program: parts of a cross-validation share theirs."""

HOST_BLOCK = 4096
"""Most samples of a block of a host thread."""

BLOCK_NUMBERS = 1 << 20
"""Most entries of a block of wide samples, which is read more than once and should stay in cache."""

FIT_COPIES = 4
"""Copies of the rows at the peak of a fit: in their frame, on the device, and in tiles (measured)."""


SPARSE_COPIES = 3
"""Copies of the entries of sparse rows, of 12 bytes, while they are prepared."""


class Prepared(NamedTuple):
    """Samples in a frame, ready for a kernel.

    Attributes:
        points: samples in ``frame``, padded with weight 0.
        frame: frame of the samples.
        n: number of samples without padding.
        unit_weights: True if every sample has weight 1 in the frame and padding 0: a weighted sum needs no product.
        dtype: dtype of results: float64 where the samples are float64 or integers in NumPy, else the dtype of the
            computation.
        narrowed: True if samples may have lost digits in the frame, as JAX computes in float32.
        is_part: True if the samples are those of one of several processes.
        crushed: True if the frame had to reach samples so far away that the differences of the others are lost.
    """

    points: Points
    frame: Frame
    n: int
    unit_weights: bool
    dtype: np.dtype
    narrowed: bool = False
    is_part: bool = False
    crushed: bool | Bool[Array, ""] = False

    def unscale(self, value: Any, *, length: int = 0, weight: int = 0) -> Published:
        """`Frame.unscale` in the dtype of results."""
        return self.frame.unscale(value, length=length, weight=weight, dtype=self.dtype)

    def local(self) -> Prepared:
        """The same with the points of this process alone."""
        return self._replace(points=jax.tree.map(localize, self.points)) if self.is_part else self

    def unpad(self, per_row: Published, *, axis: int = -1) -> Published:
        """Per-sample result without its padding."""
        return unpad(per_row, self.n, axis=axis)


def prepare(
    x,
    weights=None,
    *,
    center: bool = True,
    missing: bool | None = None,
    axis_name: str | None = None,
    frame: Frame | None = None,
    unit_rows: bool = False,
    pad_columns: bool = False,
    mesh: Mesh | None = None,
    gathered: bool = False,
) -> Prepared:
    """Check of samples, traced or not, and their coordinates in a frame.

    Args:
        x: (n_samples, n_features) real numbers, dense or sparse. Concrete samples are padded to `padded_size`, so that
            another number of them compiles nothing; traced samples are not padded. Sparse ones are scaled but never
            centered, which would fill them.
        weights: (n_samples,) weights >= 0, or None for 1 each.
        center: False keeps the origin of the caller.
        missing: True accepts NaN as missing values; see `validation.check_finite`.
        axis_name: mapped axis over which the samples are sharded.
        frame: frame of a fit, for samples to compare with it; its exponent is lowered for samples beyond its range.
        unit_rows: True if only directions matter (cosine): each sample is scaled by its own power of two, not centered.
        pad_columns: True adds columns of zeros to a few concrete dense samples on one device, up to `padded_columns`.
        mesh: mesh over whose devices concrete dense samples are spread; where it spans processes, the samples are those
            of this one.
        gathered: True where they are the samples of all processes, in each of them.

    Returns:
        `Prepared` samples.

    Raises:
        ValueError, TypeError: see `jaxcluster.core.validation`.
    """
    x = check_rows(x)
    if validation.is_traced(x, weights, frame):
        x = x if isinstance(x, SparseRows) else _traced_rows(x)
        return _prepare_traced(x, weights, center and not unit_rows, missing, axis_name, frame, unit_rows)
    limit_programs()
    if weights is not None:
        weights = validation.check_weights(weights, x.shape[0])
    if is_sparse(x):
        return _prepare_sparse(x, weights, frame, unit_rows)
    if is_spread(x):
        raise ValueError("x is spread over several processes. Fit it inside shard_map, with axis_name=.")
    device = _device_of(x) if isinstance(x, jax.Array) else None
    place = device if mesh is None else row_sharding(mesh)
    center = center and not unit_rows
    if mesh is not None and mesh.is_multi_process and not gathered:
        from jaxcluster.core.parts import prepare_part  # which imports this module

        if missing:
            raise ValueError("missing=True is not supported over several processes: impute the rows first.")
        return prepare_part(np.asarray(x), weights, center, frame, unit_rows, published_dtype(x), mesh)
    x, published = np.asarray(x), published_dtype(x)
    columns = padded_columns(*x.shape) if pad_columns and mesh is None else x.shape[1]
    return _prepare_host(x, weights, center, missing, frame, unit_rows, published, place, columns)


def finalize(
    fitted: Fit, prepared: Prepared, leave: Callable[[Any, Frame], Any], *, length: int = 0, weight: int = 0
) -> Fit:
    """Fit in the caller's coordinates and units, its labels without padding.

    Args:
        fitted: fit in the frame.
        prepared: samples of the fit.
        leave: (state in the frame, frame) -> public state.
        length, weight: unit of the objective in the history; see `Frame.unscale`.

    Returns:
        `Fit` with the public state.
    """
    return fitted._replace(
        status=crushed_status(fitted.status, prepared),
        state=leave(fitted.state, prepared.frame),
        labels=None if fitted.labels is None else prepared.unpad(fitted.labels),
        history=prepared.frame.unscale(fitted.history, length=length, weight=weight),
    )


def crushed_status(status: Int[Published, "*batch"], prepared: Prepared) -> Int[Published, "*batch"]:
    """Status of fits, PRECISION where the frame lost the differences of samples."""
    if not validation.is_traced(status, prepared.crushed) and not bool(prepared.crushed):
        return status
    lost = prepared.crushed & (status != Status.NOT_FINITE) & (status != Status.INTERRUPTED)
    return jnp.where(lost, jnp.asarray(Status.PRECISION, status.dtype), status)


def padded_size(n: int, least: int = MIN_PADDED_ROWS) -> int:
    """Padded number of samples: at least ``least``; 8 sizes for each power of two, 2 up to `SMALL_ROWS`."""
    n = max(n, least)
    step = max(8, 1 << max(0, (n - 1).bit_length() - (2 if n <= SMALL_ROWS else 4)))
    return -(-n // step) * step


def unpad(per_row: Published, n: int, *, axis: int = -1) -> Published:
    """First n entries of a padded per-sample result; sliced on the host, where another n compiles nothing."""
    if per_row.shape[axis] == n:
        return per_row
    if isinstance(per_row, Tracer):
        return jax.lax.slice_in_dim(per_row, 0, n, axis=axis)
    kept = [slice(None)] * per_row.ndim
    kept[axis] = slice(n)
    if isinstance(per_row, np.ndarray):
        return per_row[tuple(kept)]
    return jax.device_put(np.asarray(per_row)[tuple(kept)], _device_of(per_row))


def _device_of(x):
    """Device of an array; None for one over several, so that results go to the devices they are computed with."""
    devices = x.devices()
    return next(iter(devices)) if len(devices) == 1 else None


def _prepare_host(x, weights, center, missing, frame, unit_rows, published, place, columns):
    n, d = x.shape
    rows = padded_size(n)
    rows += -rows % (place.num_devices if isinstance(place, NamedSharding) else 1)
    dtype = float_dtype(x.dtype)
    memory.check(FIT_COPIES * x.size * dtype.itemsize, f"{n:,} rows of {d:,} columns", "Pass fewer of them.")
    weights, weight_exponent = scaled_weights(weights)
    out = aligned((rows, columns), dtype)
    inside = out[:, :d]
    if unit_rows:
        entry_range(x, missing)
        frame, exponents, crushed = Frame(np.zeros(d, published)), row_exponents(x), False
        _by_blocks(x, lambda rows: enter_block(x[rows], frame.origin, exponents[rows, None], inside[rows]))
    else:
        frame, crushed = enter_rows(x, weights, center, missing, frame, published, inside)
    frame = frame._replace(weight_exponent=weight_exponent)
    out[n:], out[:, d:] = 0, 0
    weight, unit_weights = _padded_weights(weights, n, dtype, rows)
    put = spread if isinstance(place, NamedSharding) else jax.device_put
    points = Points(*put((out, weight), place))
    narrowed = dtype.itemsize < x.dtype.itemsize
    return Prepared(points, frame, n, unit_weights, published, narrowed, crushed=crushed)


def _padded_weights(weights, n, dtype, rows):
    """Weights with padding, and True if every sample weighs 1: equal weights share the program without weights."""
    weight = aligned((rows,), dtype)
    weight[:n] = 1 if weights is None else weights
    weight[n:] = 0
    if weights is not None and (lost := int(((weights > 0) & (weight[:n] < np.finfo(dtype).tiny)).sum())):
        warn(
            f"{lost:,} weights are positive, but too small beside the largest for {dtype}: they count as 0. "
            "Weights should differ by less than 1e38."
        )
    return weight, bool((weight[:n] == 1).all())


def _prepare_sparse(x, weights, frame, unit_rows):
    """Canonical CSR rows times a power of two: one of the frame, or one for each row."""
    n, d = x.shape
    check_values(x)
    memory.check(SPARSE_COPIES * 12 * x.nnz, f"{x.nnz:,} entries of sparse rows", "Pass fewer rows.")
    dtype, published = float_dtype(x.dtype), published_dtype(x.data)
    values = x.data.astype(np.float64)
    lengths = np.diff(x.indptr)
    largest = np.zeros(n)
    largest[lengths > 0] = np.maximum.reduceat(np.abs(values), x.indptr[:-1][lengths > 0]) if len(values) else 0
    bound, crushed = np.abs(values).max(initial=0), False
    if unit_rows:
        exponent, frame = np.repeat(-np.frexp(largest)[1], lengths), Frame(np.zeros(d, published))
    else:
        if frame is None:
            _, spread = center_and_spread(sample_rows(largest[:, None], weights), largest[:, None], center=False)
            frame = frame_about(np.zeros(d), spread, bound, published)
            typical = typical_exponent(spread)
        else:
            typical = typical_exponent_in(frame, sample_rows(largest[:, None], weights))
        frame = frame_reaching(frame._replace(origin=np.zeros(d, frame.dtype)), bound)
        exponent = frame.exponent
        if crushed := is_crushed(frame, typical, dtype):
            warn_of_crushed(bound)
    with np.errstate(under="ignore"):
        values = np.ldexp(values, exponent).astype(dtype)
    weights, weight_exponent = scaled_weights(weights)
    weight, unit_weights = _padded_weights(weights, n, dtype, padded_size(n))
    points = Points(*jax.device_put((pack(x, values, len(weight), padded_size), weight)))
    frame = frame._replace(weight_exponent=weight_exponent)
    narrowed = dtype.itemsize < x.dtype.itemsize
    return Prepared(points, frame, n, unit_weights, published, narrowed, crushed=crushed)


def enter_rows(x, weights, center, missing, frame, published, out):
    """Write samples into ``out`` in a frame, by default their own.

    Returns:
        The frame, and `is_crushed`.
    """
    # A sample nearly always determines the frame of all, so that these are read once: the least and the greatest entry
    # are computed on the way, and if they require another exponent, all samples are mapped again.
    sample, fitted_frame = sample_rows(x, weights), frame
    long, finite = x.dtype.kind in "iu" and x.dtype.itemsize == 8, np.isfinite(sample).all()
    extremes = entry_range(x, missing, every_column=fitted_frame is None) if long or not finite else None
    if fitted_frame is None:
        origin, spread = center_and_spread(sample, x, center)
        typical = typical_exponent(spread)
    else:
        origin, typical = np.asarray(fitted_frame.origin, np.float64), typical_exponent_in(fitted_frame, sample)

    def frame_within(bound):
        if fitted_frame is not None:
            return frame_reaching(fitted_frame, bound)
        return frame_about(origin, spread, bound, published)

    def frame_between(least, most):
        bound = bound_between(origin, least, most)
        frame = frame_within(bound)
        # The bound takes the entries of one column with the origin of another: a column of equal numbers is no farther
        # from its origin than any other.
        if is_crushed(frame, typical, out.dtype):
            bound = _farthest(x, origin)
            frame = frame_within(bound)
        return frame, bound

    def enter(frame, wide=None):
        origin = np.asarray(frame.origin)

        def block(rows):
            samples = x[rows] if wide is None else x[rows].astype(wide)
            enter_block(samples, origin, frame.exponent, out[rows])
            return samples.min(), samples.max()

        return _by_blocks(x, block)

    if extremes is not None:
        frame, bound = frame_between(*extremes)
        # Integers beyond 2^53 in the widest float there is: on most platforms its 64 bits hold them all.
        enter(frame, np.longdouble if long and max(map(abs, extremes)) > MAX_EXACT_INTEGER else None)
    else:
        guess = frame_within(bound_between(origin, sample.min(), sample.max()))  # nearly always the frame
        extremes = entry_range(x, missing, every_column=fitted_frame is None, by_block=enter(guess))
        frame, bound = frame_between(*extremes)
        if frame.exponent != guess.exponent:
            enter(frame)
    if crushed := is_crushed(frame, typical, out.dtype):
        warn_of_crushed(bound)
    return frame, crushed


def _farthest(x, origin):
    """Largest |x − origin|, NaN ignored, column by column."""
    with np.errstate(over="ignore", invalid="ignore"):
        farthest = max(np.nanmax(np.abs(x[rows] - origin), initial=0.0) for rows in _blocks(x))
    return min(float(farthest), np.finfo(float).max)


def enter_block(x, origin, exponent, out):
    """Write (x − origin)·2^exponent into ``out``."""
    # Large numbers are scaled down before the subtraction, which could overflow, and small ones up after it.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if np.ndim(exponent):
            np.copyto(out, np.ldexp(x if x.dtype.kind == "f" else x.astype(float), exponent), casting="same_kind")
        elif exponent == 0:
            np.subtract(x, origin, out=out, casting="same_kind")
        elif exponent > 0:
            np.copyto(out, np.ldexp(np.subtract(x, origin), exponent), casting="same_kind")
        else:
            x = x if x.dtype.kind == "f" else x.astype(float)
            np.subtract(np.ldexp(x, exponent), np.ldexp(origin, exponent), out=out, casting="same_kind")


def entry_range(x, missing, *, every_column=True, by_block=None):
    """Least and greatest entry, NaN ignored if missing values are accepted; raises ValueError for other values.

    Args:
        by_block: least and greatest entry of each block, if known.
    """
    flat = x.dtype.kind != "f"
    if by_block is None:
        by_block = _by_blocks(x, lambda rows: (x[rows].min(), x[rows].max()))
    least, most = np.min([least for least, _ in by_block]), np.max([most for _, most in by_block])
    if flat or (np.isfinite(least) and np.isfinite(most)):
        return (int(least), int(most)) if x.dtype.kind in "iu" else (least, most)
    validation.check_finite(x, missing=missing)
    if every_column:
        fill_unobserved(x, np.full(x.shape[1], np.nan))
    observed = x[~np.isnan(x)]
    return (observed.min(), observed.max()) if observed.size else (0.0, 0.0)


def scaled_weights(weights):
    """Weights scaled so that the mean of the positive ones is near 1, in float64, and the exponent of the scale."""
    if weights is None:
        return None, 0
    weights = np.asarray(weights, np.float64)
    # The mean relative to the largest: a sum of weights near 1e308 would overflow.
    positive = weights[weights > 0]
    largest = binary_exponent(positive.max())
    exponent = 1 - largest - binary_exponent(np.ldexp(positive, -largest).mean())
    return np.ldexp(weights, exponent), exponent


def counting(weights: Any, dtype: np.dtype) -> np.ndarray:
    """Mask (n,) of concrete weights that do not underflow to 0 in a frame of this dtype."""
    scaled, _ = scaled_weights(weights)
    return scaled >= np.finfo(dtype).tiny


def row_exponents(x):
    """Exponent for each sample that scales its largest absolute coordinate into [1/2, 1)."""
    most = np.concatenate(_by_blocks(x, lambda rows: np.nanmax(np.abs(x[rows].astype(float)), axis=1)))
    return -np.frexp(most)[1]


def _by_blocks(x, work):
    """Results of ``work`` on blocks of samples, in threads: NumPy releases the interpreter lock."""
    blocks = _blocks(x)
    if len(blocks) == 1:
        return [work(blocks[0])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, blocks))


def _blocks(x):
    n, d = x.shape
    size = min(HOST_BLOCK, max(16, BLOCK_NUMBERS // d))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def aligned(shape, dtype):
    """Uninitialized array on an `ALIGNMENT` boundary."""
    # NumPy aligns to 16 bytes only; the view starts at the next boundary of a larger buffer.
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def _traced_rows(x):
    """Device form of samples that are computed with inside a trace; concrete CSR ones are constants there."""
    if not is_sparse(x):
        return jnp.asarray(x)
    check_values(x)
    return jax.tree.map(jnp.asarray, pack(x, x.data.astype(float_dtype(x.dtype)), x.shape[0]))


def _prepare_traced(x, weights, center, missing, axis_name, frame, unit_rows):
    n, d = x.shape
    dtype = float_dtype(x.dtype if frame is None else np.result_type(x.dtype, frame.dtype))
    x = x.astype(dtype)
    if isinstance(x, SparseRows):
        return _prepare_traced_sparse(x, weights, frame, unit_rows)
    weight, weight_exponent = _traced_weights(x[:, 0], weights, axis_name)
    if unit_rows:
        largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=1, keepdims=True))
        points = Points(times_power_of_two(x, -exponent_of(largest)), weight)
        return Prepared(points, Frame(jnp.zeros((d,), dtype), 0, weight_exponent), n, weights is None, dtype)
    crushed = False
    if frame is None:
        constant_x = jax.lax.stop_gradient(x)
        counted = jnp.broadcast_to(jax.lax.stop_gradient(weight > 0)[:, None], x.shape)
        counted = counted & ~jnp.isnan(constant_x) if missing else counted
        frame, crushed = traced_frame(constant_x, counted, axis_name, center)
    frame = frame._replace(weight_exponent=weight_exponent)
    return Prepared(Points(frame.enter(x), weight), frame, n, weights is None, dtype, crushed=crushed)


def _prepare_traced_sparse(x, weights, frame, unit_rows):
    largest = x.largest()
    weight, weight_exponent = _traced_weights(largest, weights, None)
    if unit_rows:
        x = x.scaled(times_power_of_two(jnp.ones_like(largest), -exponent_of(largest)))
        exponent = 0
    elif frame is None:
        counted = jnp.ones_like(largest, bool)[:, None]
        exponent = traced_frame(largest[:, None], counted, None, center=False)[0].exponent
    else:
        exponent = frame.exponent
    if not unit_rows:
        x = x.map_values(lambda values: times_power_of_two(values, exponent))
    frame = Frame(jnp.zeros((x.shape[1],), x.dtype), exponent, weight_exponent)
    return Prepared(Points(x, weight), frame, x.shape[0], weights is None, x.dtype)


def _traced_weights(like, weights, axis_name):
    if weights is None:
        return jnp.ones_like(like), 0
    weight = jnp.asarray(weights)
    if weight.shape != like.shape:
        raise ValueError(f"weights must have shape ({like.shape[0]},), one a row, got {weight.shape}.")
    weight = weight.astype(like.dtype)
    constant = jax.lax.stop_gradient(weight)
    largest = all_reduce(jnp.max(constant), axis_name, MAX)
    relative = constant / jnp.where(largest > 0, largest, 1)  # so that no sum overflows
    total, count = all_reduce((jnp.sum(relative), jnp.sum((constant > 0).astype(like.dtype))), axis_name)
    exponent = 1 - exponent_of(largest) - exponent_of(total / jnp.maximum(count, 1))
    return times_power_of_two(weight, exponent), exponent

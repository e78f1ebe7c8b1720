"""The frame of a fit: samples minus an origin, times a power of two, so that float32 holds what tells them apart.

Squared distances by matrix products, ‖x‖² − 2x·c + ‖c‖², are rounded in proportion to ‖x‖². So the origin lies among
the samples: the median, column by column, of a sample of them, which one far sample or one odd column cannot drag away
as it does a mean. Powers of two, of the samples and of their weights, bring the median distance from the origin and
the mean weight near 1; they change no digit, so a fit does not depend on the units of either.

`prepare` puts the samples of a caller into a frame and `finalize` takes a fit out of it. For concrete arrays both
compute on the host in float64; what is published has the dtype of the caller's samples.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import check, memory
from jaxcluster.core.caution import warn
from jaxcluster.core.fold import MAX, across
from jaxcluster.core.integers import EXACT
from jaxcluster.core.programs import make_room
from jaxcluster.types import Array, Fit, Float, Int, Points, Published

ALIGNMENT = 64
"""Bytes: XLA's CPU buffers start on this boundary, and a host array that does is used without another copy."""

LEAST_ROWS = 128
"""Samples that the smallest problems are padded up to: they cost nothing, and all share one program."""

HOST_BLOCK = 4096
"""Samples that a host thread takes at a time, at most."""

CACHED_NUMBERS = 1 << 20
"""Numbers that it takes at a time where samples are wide: it reads them more than once."""

SAMPLE, TRACED_SAMPLE = 1024, 256
"""Samples whose median is the origin, on the host and in a traced computation, where sorting costs more."""

FIT_COPIES = 4
"""Copies of the rows at the peak of a fit: in their frame, on the device, and in tiles (measured)."""

SAMPLED_NUMBERS = 1 << 18
"""Numbers of so wide samples that fewer of them, `TRACED_SAMPLE` at least, are taken on the host too."""

UNSCALED_EXPONENTS = 20
"""Median distances from the origin between 2⁻²⁰ and 2²⁰ are left as they are: their squares are far from the limits of
float32, 2⁻¹²⁶ and 2¹²⁸."""

LARGEST_EXPONENT = 40
"""No coordinate in a frame of `prepare` is above 2⁴⁰: Σ w·x² of 2²⁴ samples in 2¹¹ columns is below 2¹¹⁶."""

_GOLDEN = 0.6180339887498949


class Frame(NamedTuple):
    """x ↦ (x − origin)·2^exponent and w ↦ w·2^weight_exponent.

    Attributes:
        origin: (n_features,) in the caller's coordinates; its dtype is that in which results are published: float64
            where the samples were float64 or integers, else float32.
        exponent: of the samples.
        weight_exponent: of the sample weights.
    """

    origin: Float[Published, " d"]
    exponent: int | Int[Array, ""] = 0
    weight_exponent: int | Int[Array, ""] = 0

    @property
    def dtype(self) -> np.dtype:
        """The dtype in which results are published."""
        return np.dtype(self.origin.dtype)

    def enter(self, x: Any) -> Array:
        """Coordinates (…, n_features) of the caller in this frame, in the dtype of the computation."""
        dtype = float_dtype(self.dtype)
        if check.is_traced(x, self):
            x = jnp.asarray(x).astype(dtype)
            return times_power_of_two(x - jnp.asarray(self.origin).astype(dtype)[_leading(x)], self.exponent)
        x = np.asarray(x, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            moved = np.ldexp(x, self.exponent) - np.ldexp(np.asarray(self.origin, np.float64), self.exponent)
            return jax.device_put(moved.astype(dtype))

    def leave(self, x: Any) -> Published:
        """Coordinates (…, n_features) of this frame in the caller's, in the dtype that is published."""
        if check.is_traced(x, self):
            origin = jnp.asarray(self.origin).astype(x.dtype)
            return times_power_of_two(x, -self.exponent) + origin[_leading(x)]
        with np.errstate(over="ignore", under="ignore"):
            moved = np.ldexp(np.asarray(x, np.float64), -self.exponent) + np.asarray(self.origin, np.float64)
            return publish(moved, self.dtype)

    def unscale(self, value: Any, *, length: int = 0, weight: int = 0, dtype: np.dtype | None = None) -> Published:
        """Numbers in units of length^length · weight^weight in the caller's units.

        A distance has ``length=1``, an inertia ``length=2, weight=1``, a sum of weights ``weight=1``. Concrete numbers
        come in ``dtype``, by default that which is published.
        """
        exponent = -(length * self.exponent + weight * self.weight_exponent)
        if check.is_traced(value, self):
            return times_power_of_two(value, exponent)
        dtype = self.dtype if dtype is None else dtype
        if exponent == 0 and getattr(value, "dtype", None) == dtype:
            return value
        with np.errstate(over="ignore", under="ignore"):
            return publish(np.ldexp(np.asarray(value, np.float64), exponent), dtype)

    def scale(self, value: Any, *, length: int = 0, weight: int = 0) -> Any:
        """The inverse of `unscale`: a number in the caller's units in those of the frame."""
        exponent = length * self.exponent + weight * self.weight_exponent
        if check.is_traced(value, self):
            return times_power_of_two(jnp.asarray(value, float_dtype(self.dtype)), exponent)
        with np.errstate(over="ignore", under="ignore"):
            return np.ldexp(np.asarray(value, np.float64), exponent)


class Prepared(NamedTuple):
    """Samples ready for a kernel.

    Attributes:
        points: the samples in ``frame``, padded with samples of weight 0.
        frame: where they are.
        n: how many samples are real.
        uniform: whether every sample weighs 1 in the frame and padding 0, so that a weighted sum needs no product.
        dtype: in which results about these samples are published: float64 where they are float64 or integers in
            NumPy, else the dtype of the computation.
        narrowed: whether samples may have lost digits on their way into the frame, as JAX computes in float32.
    """

    points: Points
    frame: Frame
    n: int
    uniform: bool
    dtype: np.dtype
    narrowed: bool = False

    def unscale(self, value: Any, *, length: int = 0, weight: int = 0) -> Published:
        """`Frame.unscale` in the dtype of these samples."""
        return self.frame.unscale(value, length=length, weight=weight, dtype=self.dtype)

    def trim(self, per_row: Published, *, axis: int = -1) -> Published:
        """The entries of a padded per-sample result that are real."""
        return trim(per_row, self.n, axis=axis)


def prepare(
    x,
    weights=None,
    *,
    center: bool = True,
    missing: bool | None = None,
    axis_name: str | None = None,
    frame: Frame | None = None,
    unit_rows: bool = False,
) -> Prepared:
    """Checks samples and puts them into a frame, traced or not.

    Args:
        x: (n_samples, n_features) real numbers. Concrete samples are padded up to a bucket, so that another number of
            them compiles nothing; traced samples are taken as they are.
        weights: (n_samples,) non-negative, or None for 1 each.
        center: False keeps the origin of the caller.
        missing: True lets NaN cells through; see `check.check_finite`.
        axis_name: a mapped axis over which the samples are spread.
        frame: of a fit, for samples that are compared with it; its exponent is lowered where they are too far for it.
        unit_rows: only directions matter (cosine): each sample is scaled by a power of two of its own, the origin kept.

    Raises:
        ValueError, TypeError: see `jaxcluster.core.check`.
    """
    x = check.check_matrix(x)
    if check.is_traced(x, weights, frame):
        return _prepare_traced(jnp.asarray(x), weights, center and not unit_rows, missing, axis_name, frame, unit_rows)
    make_room()
    if weights is not None:
        weights = check.check_weights(weights, x.shape[0])
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        raise ValueError("x is spread over several processes. Fit it inside shard_map, with axis_name=.")
    device = next(iter(x.devices())) if isinstance(x, jax.Array) else None
    center = center and not unit_rows
    return _prepare_host(np.asarray(x), weights, center, missing, frame, unit_rows, published_dtype(x), device)


def finalize(
    fitted: Fit, prepared: Prepared, leave: Callable[[Any, Frame], Any], *, length: int = 0, weight: int = 0
) -> Fit:
    """A fit in the caller's coordinates and units, its labels cut to the samples that are real.

    Args:
        leave: (state in the frame, frame) to the public state.
        length, weight: the unit of the objective that the history holds; see `Frame.unscale`.
    """
    return fitted._replace(
        state=leave(fitted.state, prepared.frame),
        labels=None if fitted.labels is None else prepared.trim(fitted.labels),
        history=prepared.frame.unscale(fitted.history, length=length, weight=weight),
    )


def frame_of(centers: Any) -> Frame:
    """The frame of (k, n_features) centers, their median its origin, for functions that are given no fit.

    Args:
        centers: finite coordinates, or traced ones.
    """
    if check.is_traced(centers):
        held = jax.lax.stop_gradient(jnp.asarray(centers).astype(float_dtype(centers.dtype)))
        return _traced_frame(held, jnp.ones_like(held, bool), None)
    dtype = published_dtype(centers)
    wide = np.asarray(centers).astype(np.float64)
    origin = _lower_median(wide)
    radii = np.abs(wide - origin).max(axis=1)
    exponent = _exponent(_typical(radii), radii.max())
    return Frame(origin.astype(dtype), exponent, 0)


def bucket(n: int, least: int = LEAST_ROWS) -> int:
    """The count that n is padded up to: ``least``, then at most an eighth more, 8 sizes for each power of two."""
    n = max(n, least)
    step = max(8, 1 << max(0, (n - 1).bit_length() - 4))
    return -(-n // step) * step


def float_dtype(dtype) -> np.dtype:
    """The dtype samples of ``dtype`` are computed in: float64 where JAX allows it and they have it, else float32."""
    double = jnp.issubdtype(dtype, jnp.floating) and np.dtype(dtype).itemsize >= 8
    return np.dtype(jax.dtypes.canonicalize_dtype(np.float64 if double else np.float32))


def publish(value: Any, dtype: np.dtype) -> Published:
    """Host numbers as a result of this dtype: a JAX array, or a NumPy array where JAX has no such dtype.

    Numbers beyond the range of ``dtype``, such as the inertia of samples near 1e-30 or of weights near 1e40, come in
    float64.
    """
    wide = np.asarray(value)
    with np.errstate(over="ignore", under="ignore"):
        value = wide.astype(dtype)
    if ((np.isinf(value) & np.isfinite(wide)) | ((value == 0) & (wide != 0))).any():
        return wide
    return jax.device_put(value) if jax.dtypes.canonicalize_dtype(dtype) == dtype else value


def trim(per_row: Published, n: int, *, axis: int = -1) -> Published:
    """The first n entries of a padded per-sample result; cut on the host, where a new n compiles nothing."""
    if per_row.shape[axis] == n:
        return per_row
    if isinstance(per_row, jax.core.Tracer):
        return jax.lax.slice_in_dim(per_row, 0, n, axis=axis)
    kept = [slice(None)] * per_row.ndim
    kept[axis] = slice(n)
    if isinstance(per_row, np.ndarray):
        return per_row[tuple(kept)]
    return jax.device_put(np.asarray(per_row)[tuple(kept)], next(iter(per_row.devices())))


def times_power_of_two(value: Any, exponent: Any) -> Array:
    """``value``·2^exponent without rounding, in two factors, either of which float32 can hold."""
    value = jnp.asarray(value)
    if isinstance(exponent, int) and exponent == 0:
        return value
    half = exponent >> 1
    return value * _power_of_two(half, value.dtype) * _power_of_two(exponent - half, value.dtype)


def exponent_of(value: Float[Array, ...]) -> Int[Array, ...]:
    """The exponent e with 2^(e − 1) ≤ |value| < 2^e, and 0 for 0: `jnp.frexp`'s, in a tenth of the operations.

    Numbers below the least normal one have its exponent.
    """
    info = jnp.finfo(value.dtype)
    bits = jax.lax.bitcast_convert_type(jnp.abs(value), jnp.int64 if info.bits == 64 else jnp.int32)
    exponent = (bits >> info.nmant).astype(jnp.int32) - (info.maxexp - 2)
    return jnp.where(value == 0, 0, exponent)


def _power_of_two(exponent, dtype):
    """2^exponent as a scalar of ``dtype``, from its bits: XLA's exp2 is not exact. Clipped to normal numbers."""
    info = jnp.finfo(dtype)
    exponent = jnp.clip(jnp.asarray(exponent, jnp.int32), info.minexp, info.maxexp - 1)
    integer = jnp.int64 if info.bits == 64 else jnp.int32
    bits = (exponent.astype(integer) + (info.maxexp - 1)) << info.nmant
    return jax.lax.bitcast_convert_type(bits, dtype)


def published_dtype(x: Any) -> np.dtype:
    """The dtype of results about samples x: a JAX array's are computed and published in one.

    For NumPy's it is float32 where they have no more precision, else float64, as scikit-learn has it for integers too.
    """
    dtype = x.dtype if isinstance(x, (jax.Array, np.ndarray)) else np.asarray(x).dtype
    if isinstance(x, jax.Array):
        return float_dtype(dtype)
    return np.dtype(np.float32 if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize <= 4 else np.float64)


def _leading(x):
    """An index that gives (n_features,) numbers the leading axes of x, which JAX may be told not to do by itself."""
    return (None,) * (x.ndim - 1)


# On the host -------------------------------------------------------------------------------------------------------


def _prepare_host(x, weights, center, missing, frame, unit_rows, published, device):
    n, d = x.shape
    dtype = float_dtype(x.dtype)
    memory.check(FIT_COPIES * x.size * dtype.itemsize, f"{n:,} rows of {d:,} columns", "Pass fewer of them.")
    weights, weight_exponent = _scaled_weights(weights)
    out = _aligned((bucket(n), d), dtype)
    if unit_rows:
        _range(x, missing)
        frame, exponents = Frame(np.zeros(d, published)), _row_exponents(x)
        _by_blocks(x, lambda rows: _enter_block(x[rows], frame.origin, exponents[rows, None], out[rows]))
    else:
        frame = _enter_rows(x, weights, center, missing, frame, published, out)
    frame = frame._replace(weight_exponent=weight_exponent)
    out[n:] = 0
    weight = _aligned(out.shape[:1], dtype)
    weight[:n] = 1 if weights is None else weights
    weight[n:] = 0
    if weights is not None and (lost := int(((weights > 0) & (weight[:n] < np.finfo(dtype).tiny)).sum())):
        warn(
            f"{lost:,} weights are positive, but too small beside the largest for {dtype}: they count as 0. "
            "Weights should differ by less than 1e38."
        )
    uniform = bool((weight[:n] == 1).all())  # weights that say nothing need no program of their own
    points = jax.device_put(Points(out, weight), device)
    return Prepared(points, frame, n, uniform, published, dtype.itemsize < x.dtype.itemsize)


def _enter_rows(x, weights, center, missing, frame, published, out):
    """Writes samples in a frame, by default their own, into ``out``; and the frame.

    A few samples nearly always tell the frame of all, so that these are read once: the least and the greatest entry are
    found on the way, and where they call for another exponent, samples enter anew.
    """
    sample, given = _sample(x, weights), frame
    long, finite = x.dtype.kind in "iu" and x.dtype.itemsize == 8, np.isfinite(sample).all()
    known = _range(x, missing, every_column=given is None) if long or not finite else None
    middle = _middle(sample, x, center) if given is None else None

    def frame_between(least, most):
        return _frame_about(*middle, least, most, published) if given is None else _reach(given, least, most)

    def enter(frame, wide=None):
        origin = np.asarray(frame.origin)

        def block(rows):
            own = x[rows] if wide is None else x[rows].astype(wide)
            _enter_block(own, origin, frame.exponent, out[rows])
            return own.min(), own.max()

        return _by_blocks(x, block)

    if known is not None:
        frame = frame_between(*known)
        # Integers beyond 2^53 in the widest float there is: on most platforms its 64 bits hold them all.
        enter(frame, np.longdouble if long and max(map(abs, known)) > EXACT else None)
        return frame
    guess = frame_between(sample.min(), sample.max())  # nearly always the frame
    frame = frame_between(*_range(x, missing, every_column=given is None, found=enter(guess)))
    if frame.exponent != guess.exponent:
        enter(frame)
    return frame


def _enter_block(x, origin, exponent, out):
    """(x − origin)·2^exponent, large numbers made smaller before they are subtracted, and small ones larger after."""
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


def _middle(sample, x, center):
    """The median of some of the samples x, and the median distance from it."""
    origin = _lower_median(sample).astype(np.float64) if center else np.zeros(x.shape[1])
    if np.isnan(origin).any():
        origin = _observed(x, origin)
    with np.errstate(invalid="ignore", over="ignore"):  # what is infinite is refused once it is counted
        return origin, _typical(_radii(sample - origin))


def _frame_about(origin, spread, least, most, published):
    """The frame about an origin of samples whose entries lie between ``least`` and ``most``."""
    bound = _bound(origin, least, most)
    return Frame(origin.astype(published), _exponent(spread if spread > 0 else bound, bound))


def _reach(frame, least, most):
    """The frame of a fit, its exponent as much lower as other samples between ``least`` and ``most`` need it."""
    return frame._replace(
        exponent=min(int(frame.exponent), LARGEST_EXPONENT - _log2(_bound(frame.origin, least, most)))
    )


def _bound(origin, least, most):
    """A bound on the coordinates about ``origin`` of samples between ``least`` and ``most``."""
    with np.errstate(over="ignore"):
        bound = max(abs(float(most) - float(origin.min())), abs(float(origin.max()) - float(least)))
    return bound if np.isfinite(bound) else np.finfo(float).max


def _exponent(spread, bound):
    """The exponent that brings ``spread`` near 1, 0 where it is not far from it, and no number above 2^40."""
    size = _log2(spread)
    exponent = 0 if abs(size) <= UNSCALED_EXPONENTS else -size
    return min(exponent, LARGEST_EXPONENT - _log2(bound))


def _log2(value) -> int:
    """The exponent of the power of two above a non-negative number; 0 for 0."""
    return int(np.frexp(float(value))[1])


def _range(x, missing, *, every_column=True, found=None):
    """The least and the greatest entry, NaN left out where they may be missing. Raises on other values.

    Args:
        found: those of each block, where they are at hand.
    """
    flat = x.dtype.kind != "f"
    if found is None:
        found = _by_blocks(x, lambda rows: (x[rows].min(), x[rows].max()))
    least, most = np.min([least for least, _ in found]), np.max([most for _, most in found])
    if flat or (np.isfinite(least) and np.isfinite(most)):
        return (int(least), int(most)) if x.dtype.kind in "iu" else (least, most)
    check.check_finite(x, missing=missing)
    if every_column:
        _observed(x, np.full(x.shape[1], np.nan))
    observed = x[~np.isnan(x)]
    return (observed.min(), observed.max()) if observed.size else (0.0, 0.0)


def _observed(x, origin):
    """``origin`` with NaN replaced by the first observed entry of the column. Raises where nothing is observed."""
    observed = ~np.isnan(x)
    if not observed.any(axis=0).all():
        empty = ", ".join(map(str, np.flatnonzero(~observed.any(axis=0))[:8]))
        raise ValueError(f"x has no observed value in column {empty}. Drop such columns.")
    first = x[observed.argmax(axis=0), np.arange(x.shape[1])]
    return np.where(np.isnan(origin), first, origin).astype(float)


def _sample(x, weights):
    """A few samples of positive weight, spread over all of them without a period."""
    rows = None if weights is None else np.flatnonzero(weights)
    n = x.shape[0] if rows is None else len(rows)
    index = _spread_indices(n, min(n, SAMPLE, max(TRACED_SAMPLE, SAMPLED_NUMBERS // x.shape[1])))
    return x[index if rows is None else rows[index]]


def _spread_indices(n, count):
    """``count`` of n indices, one in each of as many equal parts, at places that have no period."""
    steps = np.arange(count)
    return np.minimum(((steps + (steps * _GOLDEN) % 1) * (n / count)).astype(np.int64), n - 1)


def _lower_median(sample):
    """The lower median of each column, an entry of it; of those that are not NaN."""
    columns = np.ascontiguousarray(sample.T)
    counts = np.maximum((~np.isnan(columns)).sum(axis=1), 1)
    middle = (counts - 1) // 2
    columns = np.partition(columns, np.unique(middle), axis=1)  # NaN last
    return columns[np.arange(len(columns)), middle]


def _radii(differences):
    """The largest absolute coordinate of each sample, missing ones left out."""
    return np.nan_to_num(np.abs(differences), nan=0.0, posinf=np.finfo(float).max).max(axis=1)


def _typical(radii):
    """The median of the positive ones; 0 if there is none."""
    positive = radii[radii > 0]
    return np.sort(positive)[len(positive) // 2] if positive.size else 0.0


def _scaled_weights(weights):
    """Weights times a power of two that brings the mean of the positive ones near 1, in float64; and its exponent."""
    if weights is None:
        return None, 0
    weights = np.asarray(weights, np.float64)
    positive = weights[weights > 0]
    largest = _log2(positive.max())
    exponent = 1 - largest - _log2(np.ldexp(positive, -largest).mean())
    return np.ldexp(weights, exponent), exponent


def counting(weights: Any, dtype: np.dtype) -> np.ndarray:
    """(n,) mask of concrete weights that are positive in a frame of this dtype too."""
    scaled, _ = _scaled_weights(weights)
    return scaled >= np.finfo(dtype).tiny


def _row_exponents(x):
    """For each sample the exponent that brings its largest absolute coordinate into [1/2, 1)."""
    most = np.concatenate(_by_blocks(x, lambda rows: np.nanmax(np.abs(x[rows].astype(float)), axis=1)))
    return -np.frexp(most)[1]


def _by_blocks(x, work):
    """What ``work`` makes of each block of samples; NumPy lets go of the interpreter, so the cores share them."""
    n, d = x.shape
    size = min(HOST_BLOCK, max(16, CACHED_NUMBERS // d))
    blocks = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    if len(blocks) == 1:
        return [work(blocks[0])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, blocks))


def _aligned(shape, dtype):
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


# Traced ------------------------------------------------------------------------------------------------------------


def _prepare_traced(x, weights, center, missing, axis_name, frame, unit_rows):
    n, d = x.shape
    dtype = float_dtype(x.dtype if frame is None else np.result_type(x.dtype, frame.dtype))
    x = x.astype(dtype)
    weight, weight_exponent = _traced_weights(x, weights, axis_name)
    if unit_rows:
        largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=1, keepdims=True))
        points = Points(times_power_of_two(x, -exponent_of(largest)), weight)
        return Prepared(points, Frame(jnp.zeros((d,), dtype), 0, weight_exponent), n, weights is None, dtype)
    if frame is None:
        held = jax.lax.stop_gradient(x)
        counted = jnp.broadcast_to(jax.lax.stop_gradient(weight > 0)[:, None], x.shape)
        counted = counted & ~jnp.isnan(held) if missing else counted
        frame = _traced_frame(held, counted, axis_name, center)
    frame = frame._replace(weight_exponent=weight_exponent)
    return Prepared(Points(frame.enter(x), weight), frame, n, weights is None, dtype)


def _traced_weights(x, weights, axis_name):
    if weights is None:
        return jnp.ones_like(x[:, 0]), 0
    weight = jnp.asarray(weights)
    if weight.shape != (x.shape[0],):
        raise ValueError(f"weights must have shape ({x.shape[0]},), one a row, got {weight.shape}.")
    weight = weight.astype(x.dtype)
    held = jax.lax.stop_gradient(weight)
    largest = across(jnp.max(held), axis_name, MAX)
    share = held / jnp.where(largest > 0, largest, 1)  # relative to the largest, so that no sum overflows
    total, count = across((jnp.sum(share), jnp.sum((held > 0).astype(x.dtype))), axis_name)
    exponent = 1 - exponent_of(largest) - exponent_of(total / jnp.maximum(count, 1))
    return times_power_of_two(weight, exponent), exponent


def _traced_frame(x, counted, axis_name, center=True):
    """The frame of traced samples, from entries that are counted."""
    index = _spread_indices(x.shape[0], min(x.shape[0], TRACED_SAMPLE))
    sample, counts = _gather(x[index], axis_name), _gather(counted[index], axis_name)
    infinite = jnp.asarray(jnp.inf, x.dtype)
    columns = jnp.sort(jnp.where(counts, sample, infinite).T, axis=1)
    middle = (jnp.maximum(jnp.sum(counts, axis=0, dtype=jnp.int32), 1) - 1) >> 1
    origin = jnp.take_along_axis(columns, middle[:, None], axis=1)[:, 0]
    origin = jnp.where(jnp.isfinite(origin), origin, 0) if center else jnp.zeros_like(origin)
    radii = jnp.sort(jnp.max(jnp.where(counts, jnp.abs(sample - origin[None, :]), 0), axis=1))
    none = jnp.sum(radii <= 0, dtype=jnp.int32)
    middle = np.arange(radii.shape[0], dtype=np.int32) == (none + radii.shape[0]) >> 1
    reach = jnp.max(jnp.where(counted, jnp.abs(x - origin[None, :]), 0), axis=1)
    # Exponents before the reductions: what comes after them XLA computes again in each operation that reads it.
    reach = across(jnp.max(exponent_of(reach)), axis_name, MAX)
    size = jnp.where(none < radii.shape[0], jnp.sum(exponent_of(radii), where=middle, dtype=jnp.int32), reach)
    exponent = jnp.where(jnp.abs(size) <= UNSCALED_EXPONENTS, 0, -size)
    return Frame(origin, jnp.minimum(exponent, LARGEST_EXPONENT - reach))


def _gather(table, axis_name):
    """The tables of all devices below each other, typed as the same on every device."""
    if axis_name is None:
        return table
    gathered = jax.lax.all_gather(table, axis_name, tiled=True)
    return (
        across(gathered.astype(jnp.int8), axis_name, MAX) > 0
        if table.dtype == bool
        else across(gathered, axis_name, MAX)
    )

"""Frame of a fit: samples minus an origin, times a power of two, so that float32 resolves their differences.

Squared distances by matrix products, ‖x‖² − 2x·c + ‖c‖², are rounded in proportion to ‖x‖². So the origin lies among
the samples: the median, column by column, of a sample of them, which one far sample or one odd column cannot move as it
moves a mean. Powers of two, of the samples and of their weights, bring the median distance from the origin and the mean
weight near 1; they change no digit, so a fit does not depend on the units of either.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import validation
from jaxcluster.core.dtypes import exponent_of, float_dtype, publish, published_dtype, times_power_of_two
from jaxcluster.core.fold import MAX, all_reduce
from jaxcluster.core.messages import warn
from jaxcluster.types import Array, Float, Int, Published

SAMPLE, TRACED_SAMPLE = 1024, 256
"""Samples whose median is the origin, on the host and in a traced computation, where sorting costs more."""

SAMPLED_NUMBERS = 1 << 18
"""Entries of a sample of wide rows on the host, beyond which it has fewer than `SAMPLE`, at least `TRACED_SAMPLE`."""

UNSCALED_EXPONENTS = 20
"""Median distances from the origin between 2⁻²⁰ and 2²⁰ are not scaled: their squares are far from the limits of
float32, 2⁻¹²⁶ and 2¹²⁸."""

LARGEST_EXPONENT = 40
"""Coordinates in a frame are at most 2⁴⁰: Σ w·x² of 2²⁴ samples in 2¹¹ columns is below 2¹¹⁶."""

LARGEST_SHIFT = 1 << 12
"""Largest exponent of any frame: beyond it no float64 is left of samples or weights."""

LEAST_TYPICAL_EXPONENT = -56
"""Median distances from the origin below 2⁻⁵⁶ in a frame of float32 are crushed: squares of the differences in a
cluster, a hundredth of them, are below 2⁻¹²⁶, the least normal number."""

_GOLDEN = 0.6180339887498949
"""Golden ratio less 1, whose multiples are spread evenly modulo 1."""


class Frame(NamedTuple):
    """Affine map x ↦ (x − origin)·2^exponent of samples, and w ↦ w·2^weight_exponent of their weights.

    Attributes:
        origin: (n_features,) in the caller's coordinates; its dtype is that of results: float64 where the samples were
            float64 or integers, else float32.
        exponent: exponent of the scale of samples.
        weight_exponent: exponent of the scale of weights.
    """

    origin: Float[Published, " d"]
    exponent: int | Int[Array, ""] = 0
    weight_exponent: int | Int[Array, ""] = 0

    @property
    def dtype(self) -> np.dtype:
        """Dtype of results."""
        return np.dtype(self.origin.dtype)

    def check(self, width: int) -> None:
        """Raise ValueError unless it is one of samples of so many features: for one that was loaded from a file."""
        origin, exponents = self.origin, (self.exponent, self.weight_exponent)
        fits = isinstance(origin, (np.ndarray, jax.Array)) and origin.shape == (width,) and origin.dtype.kind == "f"
        whole = [np.ndim(each) == 0 and np.asarray(each).dtype.kind in "iu" for each in exponents]
        if not fits or not np.isfinite(origin).all() or not all(whole) or max(map(abs, exponents)) > LARGEST_SHIFT:
            raise ValueError(f"the frame is not one of {width} columns, or holds NaN or infinity.")

    def enter(self, x: Any) -> Array:
        """Map coordinates (…, n_features) of the caller into this frame, in the dtype of the computation."""
        dtype = float_dtype(self.dtype)
        if validation.is_traced(x, self):
            x = jnp.asarray(x).astype(dtype)
            return times_power_of_two(x - jnp.asarray(self.origin).astype(dtype)[_leading(x)], self.exponent)
        x = np.asarray(x, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            # Scaled before the subtraction: the difference of two large coordinates may overflow, and a power of two
            # rounds neither.
            inside = np.ldexp(x, self.exponent) - np.ldexp(np.asarray(self.origin, np.float64), self.exponent)
            return jax.device_put(inside.astype(dtype))

    def leave(self, x: Any) -> Published:
        """Map coordinates (…, n_features) of this frame back to the caller's, in the dtype of results.

        Columns beyond n_features, the padding of `prepare`, are left out.
        """
        if validation.is_traced(x, self):
            origin = jnp.asarray(self.origin).astype(x.dtype)
            return times_power_of_two(x[..., : len(origin)], -self.exponent) + origin[_leading(x)]
        origin = np.asarray(self.origin, np.float64)
        inside = np.asarray(x, np.float64)[..., : len(origin)]
        with np.errstate(over="ignore", under="ignore"):
            return publish(np.ldexp(inside, -self.exponent) + origin, self.dtype)

    def unscale(self, value: Any, *, length: int = 0, weight: int = 0, dtype: np.dtype | None = None) -> Published:
        """Convert numbers of the unit length^``length`` · weight^``weight`` to the caller's units.

        A distance has ``length=1``, an inertia ``length=2, weight=1``, a sum of weights ``weight=1``. Concrete numbers
        are returned in ``dtype``, by default that of results.
        """
        exponent = -(length * self.exponent + weight * self.weight_exponent)
        if validation.is_traced(value, self):
            return times_power_of_two(value, exponent)
        dtype = self.dtype if dtype is None else dtype
        if exponent == 0 and getattr(value, "dtype", None) == dtype:
            return value
        with np.errstate(over="ignore", under="ignore"):
            return publish(np.ldexp(np.asarray(value, np.float64), exponent), dtype)

    def scale(self, value: Any, *, length: int = 0, weight: int = 0) -> Any:
        """Convert a number from the caller's units to those of the frame: the inverse of `unscale`."""
        exponent = length * self.exponent + weight * self.weight_exponent
        if validation.is_traced(value, self):
            return times_power_of_two(jnp.asarray(value, float_dtype(self.dtype)), exponent)
        with np.errstate(over="ignore", under="ignore"):
            return np.ldexp(np.asarray(value, np.float64), exponent)


def frame_of(centers: Any, *, digits: bool = False) -> Frame:
    """Frame about the median of (k, n_features) centers, for functions without a fit.

    Args:
        centers: finite coordinates, or traced ones.
        digits: keep an origin of 0 in columns where x − median has fewer digits than x, as a center is farther from
            the median than 0 is: for distances by differences, which need no origin near the samples.
    """
    if validation.is_traced(centers):
        centers = jax.lax.stop_gradient(jnp.asarray(centers).astype(float_dtype(centers.dtype)))
        return traced_frame(centers, jnp.ones_like(centers, bool), None, digits=digits)[0]
    dtype = published_dtype(centers)
    wide = np.asarray(centers).astype(np.float64)
    origin = _lower_median(wide)
    if digits:
        origin = np.where(np.abs(origin) <= np.abs(wide - origin).max(axis=0), 0, origin)
    radii = np.abs(wide - origin).max(axis=1)
    exponent = _exponent(_typical(radii), radii.max())
    return Frame(origin.astype(dtype), exponent, 0)


def _leading(x):
    """Index that adds leading axes to (n_features,) numbers, as JAX may be configured to refuse rank promotion."""
    return (None,) * (x.ndim - 1)


def center_and_spread(sample, x, center):
    """Origin and scale of a frame.

    Returns:
        The lower median of a sample of x, and the median distance from it.
    """
    origin = _lower_median(sample).astype(np.float64) if center else np.zeros(x.shape[1])
    if np.isnan(origin).any():
        origin = fill_unobserved(x, origin)
    with np.errstate(invalid="ignore", over="ignore"):  # `check_finite` refuses infinite entries later
        return origin, _typical(_radii(sample - origin))


def fill_unobserved(x, origin):
    """Origin with NaN replaced by the first observed entry of the column; raises ValueError for an empty column."""
    observed = ~np.isnan(x)
    if not observed.any(axis=0).all():
        empty = ", ".join(map(str, np.flatnonzero(~observed.any(axis=0))[:8]))
        raise ValueError(f"x has no observed value in column {empty}. Drop such columns.")
    first = x[observed.argmax(axis=0), np.arange(x.shape[1])]
    return np.where(np.isnan(origin), first, origin).astype(float)


def frame_about(origin, spread, bound, published):
    """Frame about an origin, of samples with |x − origin| up to ``bound``."""
    return Frame(origin.astype(published), _exponent(spread if spread > 0 else bound, bound))


def frame_reaching(frame, bound):
    """Frame of a fit, its exponent lowered as far as other samples, with |x − origin| up to ``bound``, require."""
    return frame._replace(exponent=min(int(frame.exponent), LARGEST_EXPONENT - binary_exponent(bound)))


def is_crushed(frame: Frame, typical: Any, dtype: np.dtype) -> Any:
    """True if samples so far away set the exponent of a frame that squared differences of the others underflow.

    Args:
        frame: of all samples.
        typical: exponent of the median distance from the origin, or None where it is 0.
        dtype: of the computation.
    """
    least = LEAST_TYPICAL_EXPONENT * jnp.finfo(dtype).minexp // jnp.finfo(np.float32).minexp
    return typical is not None and typical + frame.exponent < least


def warn_of_crushed(bound: float, name: str = "x") -> None:
    """Warn of samples so far away that the differences of the others are lost."""
    warn(
        f"{name} has numbers {bound:.3g} away from the others, beside which float32 does not hold the differences of "
        "these: labels and distances may be wrong. If such a number stands for a missing value, drop its row or make "
        "it NaN; else scale the columns."
    )


def bound_between(origin, least, most):
    """Upper bound of |x − origin| for samples between ``least`` and ``most``."""
    with np.errstate(over="ignore"):
        bound = max(abs(float(most) - float(origin.min())), abs(float(origin.max()) - float(least)))
    return bound if np.isfinite(bound) else np.finfo(float).max


def _exponent(spread, bound):
    """Exponent that scales ``spread`` to about 1, or 0 if it is not far from 1; it keeps all numbers below 2^40."""
    # Near 1 squares neither overflow nor underflow. A frame without scaling is the common case, and its samples need no
    # multiplication.
    size = binary_exponent(spread)
    exponent = 0 if abs(size) <= UNSCALED_EXPONENTS else -size
    return min(exponent, LARGEST_EXPONENT - binary_exponent(bound))


def binary_exponent(value) -> int:
    """Exponent of the power of two above a non-negative number; 0 for 0."""
    return int(np.frexp(float(value))[1])


def typical_exponent(spread: float) -> int | None:
    """`binary_exponent` of a median distance, None for 0."""
    return binary_exponent(spread) if spread > 0 else None


def typical_exponent_in(frame: Frame, sample: np.ndarray) -> int | None:
    """Exponent of the unit of a fit, where some of other samples are as near to its origin as its own; else None."""
    with np.errstate(invalid="ignore", over="ignore"):
        radii = _radii(sample - np.asarray(frame.origin, np.float64))
    exponent = -int(frame.exponent)
    return exponent if (radii < np.ldexp(1.0, exponent + UNSCALED_EXPONENTS)).any() else None


def sample_rows(x, weights):
    """Sample of rows of positive weight, spread over all of them without a period."""
    rows = None if weights is None else np.flatnonzero(weights)
    n = x.shape[0] if rows is None else len(rows)
    index = spread_indices(n, sample_size(n, x.shape[1]))
    return x[index if rows is None else rows[index]]


def sample_size(n: int, d: int) -> int:
    """Number of rows, of n, whose median is the origin of a frame."""
    return min(n, SAMPLE, max(TRACED_SAMPLE, SAMPLED_NUMBERS // d))


def spread_indices(n, count):
    """Sample of ``count`` of n indices, one in each of as many equal parts, at positions without a period."""
    # One index in each part, at a golden-ratio sequence of offsets: even, and in no resonance with periodic rows.
    steps = np.arange(count)
    return np.minimum(((steps + (steps * _GOLDEN) % 1) * (n / count)).astype(np.int64), n - 1)


def _lower_median(sample):
    """Lower median of each column, an entry of it, NaN ignored."""
    columns = np.ascontiguousarray(sample.T)
    counts = np.maximum((~np.isnan(columns)).sum(axis=1), 1)
    # The lower median is an entry of the column, so that x − origin is exact for entries near it.
    middle = (counts - 1) // 2
    columns = np.partition(columns, np.unique(middle), axis=1)  # NaN last
    return columns[np.arange(len(columns)), middle]


def _radii(differences):
    """Largest absolute coordinate of each sample, missing ones ignored."""
    return np.nan_to_num(np.abs(differences), nan=0.0, posinf=np.finfo(float).max).max(axis=1)


def _typical(radii):
    """Median of the positive radii; 0 without any."""
    positive = radii[radii > 0]
    return np.sort(positive)[len(positive) // 2] if positive.size else 0.0


def traced_frame(x, counted, axis_name, center=True, *, digits=False):
    """Frame of traced samples, by the entries where ``counted`` is True, and `is_crushed`; see `frame_of`."""
    index = spread_indices(x.shape[0], min(x.shape[0], TRACED_SAMPLE))
    sample, counts = _gather(x[index], axis_name), _gather(counted[index], axis_name)
    infinite = jnp.asarray(jnp.inf, x.dtype)
    columns = jnp.sort(jnp.where(counts, sample, infinite).T, axis=1)
    middle = (jnp.maximum(jnp.sum(counts, axis=0, dtype=jnp.int32), 1) - 1) >> 1
    origin = jnp.take_along_axis(columns, middle[:, None], axis=1)[:, 0]
    origin = jnp.where(jnp.isfinite(origin), origin, 0) if center else jnp.zeros_like(origin)
    if digits:
        farthest = jnp.max(jnp.where(counts, jnp.abs(sample - origin[None, :]), 0), axis=0)
        origin = jnp.where(jnp.abs(origin) <= farthest, 0, origin)
    radii = jnp.sort(jnp.max(jnp.where(counts, jnp.abs(sample - origin[None, :]), 0), axis=1))
    none = jnp.sum(radii <= 0, dtype=jnp.int32)
    middle = np.arange(radii.shape[0], dtype=np.int32) == (none + radii.shape[0]) >> 1
    reach = jnp.max(jnp.where(counted, jnp.abs(x - origin[None, :]), 0), axis=1)
    # Exponents before the reductions: XLA repeats elementwise operations after a reduction in each consumer.
    reach = all_reduce(jnp.max(exponent_of(reach)), axis_name, MAX)
    size = jnp.where(none < radii.shape[0], jnp.sum(exponent_of(radii), where=middle, dtype=jnp.int32), reach)
    exponent = jnp.where(jnp.abs(size) <= UNSCALED_EXPONENTS, 0, -size)
    frame = Frame(origin, jnp.minimum(exponent, LARGEST_EXPONENT - reach))
    return frame, is_crushed(frame, size, x.dtype)


def _gather(table, axis_name):
    """Concatenation of the tables of all devices, typed as equal on every device."""
    if axis_name is None:
        return table
    gathered = jax.lax.all_gather(table, axis_name, tiled=True)
    return (
        all_reduce(gathered.astype(jnp.int8), axis_name, MAX) > 0
        if table.dtype == bool
        else all_reduce(gathered, axis_name, MAX)
    )

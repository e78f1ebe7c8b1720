"""Means and standard deviations of columns that may have missing values, by blocks of rows.

A block is computed relative to the least value of each column and in units of its range, so that neither a large offset
nor the unit of a column costs digits: in NumPy in float64, where moving the rows would take longer than their sums, and
a JAX array on its device. Blocks are merged in float64.

>>> x = np.array([[1e9], [1e9 + 2], [np.nan]])
>>> units = column_units(*column_extremes(x)[:2])
>>> units.leave(column_moments(units.enter(x), np.ones(3)))
Moments(weight=array([2.]), mean=array([1.e+09]), deviation=array([1.]))
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import float_dtype, times_power_of_two
from jaxcluster.types import Array, Float, Int, Published

SUMMED_ROWS = 256
"""Rows that are added one after the other: the rounding of a sum grows with the root of their number."""


class Moments(NamedTuple):
    """Moments of columns, missing values ignored.

    Attributes:
        weight: (d,) sum of the weights of the observed values.
        mean: (d,) weighted mean; 0 for a column of weight 0.
        deviation: (d,) standard deviation, divided by the weight.
    """

    weight: Float[Published, " d"]
    mean: Float[Published, " d"]
    deviation: Float[Published, " d"]


class Units(NamedTuple):
    """Map x ↦ (x − origin)·2^−exponent of columns, exact but for one rounding.

    Attributes:
        origin: (d,) least value of each column, float64.
        exponent: (d,) exponent of the power of two above the range, 0 for a constant column.
    """

    origin: Float[np.ndarray, " d"]
    exponent: Int[np.ndarray, " d"]

    def enter(self, x: Any) -> Any:
        """Rows in these units: float64 for rows in NumPy; a JAX array stays on its device in its dtype."""
        if isinstance(x, jax.Array):
            dtype = float_dtype(x.dtype)
            return _enter(x.astype(dtype), jnp.asarray(self.origin, dtype), jnp.asarray(self.exponent, jnp.int32))
        with np.errstate(under="ignore"):
            return np.ldexp(x.astype(np.float64), -self.exponent) - np.ldexp(self.origin, -self.exponent)

    def leave(self, moments: Moments) -> Moments:
        """Moments in the units of the columns, in float64."""
        weight, mean, deviation = (np.asarray(each, np.float64) for each in moments)
        mean, deviation = (np.ldexp(each, self.exponent) for each in (mean, deviation))
        return Moments(weight, np.where(weight > 0, mean + self.origin, 0), deviation)


@persistent_jit
def _enter(x: Float[Array, "n d"], origin: Float[Array, " d"], exponent: Int[Array, " d"]) -> Float[Array, "n d"]:
    # Scaled before the subtraction, which could overflow.
    return times_power_of_two(x, -exponent[None, :]) - times_power_of_two(origin, -exponent)[None, :]


def column_units(least: Float[np.ndarray, " d"], most: Float[np.ndarray, " d"]) -> Units:
    """Units of columns with values between ``least`` and ``most``, which are NaN for a column without any."""
    least, most = (np.where(np.isnan(each), 0.0, each) for each in (least, most))
    half = np.ldexp(most, -1) - np.ldexp(least, -1)  # the range itself could overflow
    return Units(least, np.where(half > 0, np.frexp(half)[1] + 1, 0))


def column_extremes(
    x: Any, weight: Float[np.ndarray, " n"] | None = None
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Least and greatest value of each column in float64, NaN for a column without any, and the weight of its values.

    Args:
        x: (n, d) rows, in NumPy or on a device.
        weight: (n,) positive weights, or None for 1 each.

    Returns:
        Three (d,) arrays.
    """
    if isinstance(x, jax.Array):
        x = x.astype(float_dtype(x.dtype))
        found = _device_extremes(x, None if weight is None else jax.device_put(weight.astype(x.dtype)))
    else:
        observed = ~np.isnan(x)
        total = observed.sum(axis=0) if weight is None else weight @ observed
        found = np.fmin.reduce(x, axis=0), np.fmax.reduce(x, axis=0), total
    least, most, total = (np.asarray(each).astype(np.float64) for each in found)
    return least, most, total


@persistent_jit
def _device_extremes(x, weight):
    missing = jnp.isnan(x)
    least, most = jnp.min(jnp.where(missing, jnp.inf, x), axis=0), jnp.max(jnp.where(missing, -jnp.inf, x), axis=0)
    least, most = (jnp.where(jnp.all(missing, axis=0), jnp.nan, each) for each in (least, most))
    if weight is None:
        return least, most, jnp.sum(~missing, axis=0, dtype=jnp.int32)
    return least, most, _sum_rows(jnp.where(missing, 0, weight[:, None]))


def column_moments(x: Float[Published, "n d"], weight: Float[Published, " n"]) -> Moments:
    """Moments of the columns of a block, in NumPy or on a device, as the block is.

    Args:
        x: (n, d) rows in units of about 1, NaN where a value is missing.
        weight: (n,) weights; rows of weight 0 count nowhere.
    """
    xp: Any = np if isinstance(x, np.ndarray) else jnp
    observed = ~xp.isnan(x) & (weight > 0)[:, None]
    weights = xp.where(observed, weight[:, None], 0)
    total = _sum_rows(weights)
    divisor = xp.where(total > 0, total, 1)
    mean = _sum_rows(weights * xp.where(observed, x, 0)) / divisor
    offsets = xp.where(observed, x - mean[None, :], 0)
    # The mean of the offsets is the rounding of the mean; without it their squares would be too large.
    error = _sum_rows(weights * offsets) / divisor
    variance = _sum_rows(weights * xp.square(xp.where(observed, offsets - error[None, :], 0))) / divisor
    return Moments(total, mean + error, xp.sqrt(variance))


column_moments_on_device = persistent_jit(column_moments)


def merge_moments(first: Moments, second: Moments) -> Moments:
    """Moments of the rows of both, in float64.

    Source: T. F. Chan, G. H. Golub and R. J. LeVeque, Algorithms for computing the sample variance, The American
    Statistician 37 (1983).
    """
    weight = first.weight + second.weight
    share = np.divide(second.weight, weight, out=np.zeros_like(weight), where=weight > 0)
    between = second.mean - first.mean
    # By roots, not squares, which over- or underflow for numbers far from 1.
    within = np.hypot(np.sqrt(1 - share) * first.deviation, np.sqrt(share) * second.deviation)
    deviation = np.hypot(within, np.sqrt(share * (1 - share)) * np.abs(between))
    return Moments(weight, np.where(first.weight > 0, first.mean + share * between, second.mean), deviation)


def _sum_rows(x: Any) -> Any:
    """Sum over rows; in float32 in groups, then over groups: a sum of millions one by one would lose all its digits."""
    while not isinstance(x, np.ndarray) and (n := x.shape[0]) > SUMMED_ROWS:
        x = jnp.pad(x, ((0, -n % SUMMED_ROWS), (0, 0)))
        x = jnp.sum(x.reshape(-1, SUMMED_ROWS, x.shape[1]), axis=1)
    return x.sum(axis=0)


def standardize(x: Any, shift: Any, rest: Any, divisor: Any, offset: Any = 0.0, gain: Any = 1.0) -> Any:
    """Rows (x − shift − rest) / divisor·gain + offset, in NumPy or on a device.

    Args:
        x: (n, d) rows; NaN stays NaN.
        shift, rest: (d,) two numbers whose sum is subtracted, the second one what the dtype of the first cannot hold.
        divisor, gain, offset: (d,) or one number.
    """
    return (x - shift - rest) / divisor * gain + offset


def unstandardize(x: Any, shift: Any, rest: Any, divisor: Any, offset: Any = 0.0, gain: Any = 1.0) -> Any:
    """Inverse of `standardize`."""
    return (x - offset) / gain * divisor + rest + shift


standardize_on_device = persistent_jit(standardize)
unstandardize_on_device = persistent_jit(unstandardize)

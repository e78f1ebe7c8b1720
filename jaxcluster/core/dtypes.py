"""Dtypes of computations and of results, exact scaling by powers of two, and exact sums.

Integers of more digits than float64 has, such as nanoseconds since 1970, are translated before they become float64.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.types import Array, Float, Int, Published

MAX_EXACT_INTEGER = 2**53
"""Integers up to this one are exact in float64."""


def float_dtype(dtype) -> np.dtype:
    """Dtype of computations with samples of ``dtype``: float64 where JAX allows it and they have it, else float32."""
    double = jnp.issubdtype(dtype, jnp.floating) and np.dtype(dtype).itemsize >= 8
    return np.dtype(jax.dtypes.canonicalize_dtype(np.float64 if double else np.float32))


def published_dtype(x: Any) -> np.dtype:
    """Dtype of results for samples x: that of the computation for a JAX array.

    For NumPy arrays it is float32 for floats of at most 32 bits, else float64, as in scikit-learn for integers too.
    """
    dtype = x.dtype if isinstance(x, (jax.Array, np.ndarray)) else np.asarray(x).dtype
    if isinstance(x, jax.Array):
        return float_dtype(dtype)
    return np.dtype(np.float32 if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize <= 4 else np.float64)


def publish(value: Any, dtype: np.dtype) -> Published:
    """Result of this dtype from host numbers: a JAX array, or a NumPy array where JAX has no such dtype.

    Numbers beyond the range of ``dtype``, such as the inertia of samples near 1e-30 or of weights near 1e40, stay in
    float64.
    """
    # Infinite, 0 or subnormal in ``dtype``, but not in float64: such a result would be wrong in most of its digits.
    wide = np.asarray(value)
    with np.errstate(over="ignore", under="ignore"):
        value = wide.astype(dtype)
    if value.dtype.kind == "f":
        lost = (np.isinf(value) & np.isfinite(wide)) | ((np.abs(value) < np.finfo(dtype).tiny) & (value != wide))
        if lost.any():
            return wide
    return jax.device_put(value) if jax.dtypes.canonicalize_dtype(dtype) == dtype else value


def times_power_of_two(value: Any, exponent: Any) -> Array:
    """Product ``value``·2^exponent without rounding."""
    value = jnp.asarray(value)
    if isinstance(exponent, int) and exponent == 0:
        return value
    half = exponent >> 1  # two factors, each within the range of float32
    return value * _power_of_two(half, value.dtype) * _power_of_two(exponent - half, value.dtype)


def exponent_of(value: Float[Array, ...]) -> Int[Array, ...]:
    """Exponent e with 2^(e − 1) ≤ |value| < 2^e, and 0 for 0; subnormal numbers have that of the least normal one."""
    # From the bits: a tenth of the operations of `jnp.frexp`.
    info = jnp.finfo(value.dtype)
    bits = jax.lax.bitcast_convert_type(jnp.abs(value), jnp.int64 if info.bits == 64 else jnp.int32)
    exponent = (bits >> info.nmant).astype(jnp.int32) - (info.maxexp - 2)
    return jnp.where(value == 0, 0, exponent)


def _power_of_two(exponent, dtype):
    """Power 2^exponent of ``dtype``, clipped to normal numbers."""
    # From its bits: XLA's exp2 is not exact.
    info = jnp.finfo(dtype)
    exponent = jnp.clip(jnp.asarray(exponent, jnp.int32), info.minexp, info.maxexp - 1)
    integer = jnp.int64 if info.bits == 64 else jnp.int32
    bits = (exponent.astype(integer) + (info.maxexp - 1)) << info.nmant
    return jax.lax.bitcast_convert_type(bits, dtype)


def sum_and_rounding(first: Any, *others: Any) -> tuple[Any, Any]:
    """Sum of numbers, and the error of its rounding, which a sum of far smaller numbers needs.

    Returns:
        The rounded sum and the error, NaN where the sum is infinite.

    Source: D. E. Knuth, The art of computer programming, 4.2.2, theorem B.
    """
    total, rest = first, 0
    for other in others:
        raised = total + other
        taken = raised - total
        rest = rest + ((total - (raised - taken)) + (other - taken))
        total = raised
    return total, rest


def beyond_float64(x: np.ndarray) -> bool:
    """True if some entry is an integer that float64 may round."""
    return (
        x.dtype.kind in "iu"
        and x.dtype.itemsize == 8
        and max(abs(int(x.min(initial=0))), abs(int(x.max(initial=0)))) > MAX_EXACT_INTEGER
    )


def in_float64(x: np.ndarray, origin: np.ndarray | tuple[int, ...] | None = None) -> np.ndarray:
    """Rows minus ``origin`` in float64, exact for integers too.

    Args:
        x: (n_samples, n_features) rows.
        origin: (n_features,) integers, or None for 0. Differences beyond 2^53 are rounded once.
    """
    if origin is None:
        return x.astype(np.float64)
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
        # Differences modulo 2^64 are exact below 2^63, which float64 subtraction of such integers is not.
        column = np.array([int(value) % 2**64 for value in origin], np.uint64)
        differences = (x.astype(np.uint64) - column).astype(np.int64)
        wide = x.astype(np.float64) - np.array(origin, np.float64)
        return np.where(np.abs(wide) > 2.0**62, wide, differences)
    return (x - np.array(origin, np.longdouble)).astype(np.float64)


def translated_alike(*tables: np.ndarray) -> tuple[np.ndarray, ...]:
    """Tables of one space in float64, translated by a row of the first if float64 would round their integers.

    For results that depend on differences of rows only.

    Returns:
        The tables in float64.
    """
    exact = not any(beyond_float64(table) for table in tables)
    origin = None if exact else tuple(int(value) for value in tables[0][0])
    return tuple(in_float64(table, origin) for table in tables)

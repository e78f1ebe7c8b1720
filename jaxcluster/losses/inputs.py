"""What losses are given: arrays of the right shape in a dtype to sum in, weights, and labels of which some are unknown.

Shapes are checked always, values only where they are concrete: nothing here keeps a loss from being traced.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcluster.core import check
from jaxcluster.core.rows import float_dtype
from jaxcluster.types import Array, Float, Int


def as_matrix(x: Any, *, name: str = "x") -> Float[Array, "n d"]:
    """``x`` as (n, d) floating numbers; half precision becomes float32, in which a sum over rows keeps its digits.

    Raises:
        ValueError, TypeError: see `jaxcluster.core.check.check_matrix`.
    """
    x = check.check_matrix(x, name=name)
    return jnp.asarray(x, float_dtype(x.dtype))


def as_matching(x: Any, shape: tuple[int, ...], *, name: str, of: str) -> Float[Array, ...]:
    """``x`` as floating numbers of this shape, that of the argument called ``of``."""
    x = x if hasattr(x, "dtype") else np.asarray(x)
    if x.shape != shape:
        raise ValueError(f"{name} must have the shape {shape} to go with {of}, got {x.shape}.")
    return jnp.asarray(x, float_dtype(x.dtype))


def as_centers(centers: Any, x: Float[Array, "n d"], *, name: str = "centers", of: str = "z") -> Float[Array, "k d"]:
    """``centers`` as (k, d) floating numbers, as wide as the rows that they are compared with."""
    centers = as_matrix(centers, name=name)
    if centers.shape[1] != x.shape[1]:
        raise ValueError(f"{name} has {centers.shape[1]} columns, but {of} has {x.shape[1]}. Both must be as wide.")
    return centers


def as_weights(weights: Any, n: int) -> Float[Array, " n"] | None:
    """``weights`` as n floating numbers, or None as it is. They may all be 0: what is summed is then 0 too.

    Raises:
        ValueError, TypeError: another shape; concrete weights that are negative, not finite or no numbers.
    """
    if weights is None:
        return None
    if check.is_traced(weights):
        weights = jnp.asarray(weights)
        if weights.shape != (n,):
            raise ValueError(f"weights must have shape ({n},), one a row, got {weights.shape}.")
    else:
        weights = np.asarray(weights)
        if weights.shape != (n,) or weights.any():
            check.check_weights(weights, n)
    return jnp.asarray(weights, float_dtype(weights.dtype))


def as_labels(labels: Any, n: int, k: int | None = None, *, name: str = "labels") -> Int[Array, " n"]:
    """``labels`` as n int32 numbers, −1 for a row whose label is not known.

    Raises:
        TypeError: they are not integers.
        ValueError: another shape; concrete labels below −1, or, where there are k classes, not below k.
    """
    labels = labels if check.is_traced(labels) else np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, -1 for not known, got dtype {labels.dtype}.")
    if labels.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one a row, got {labels.shape}.")
    if not check.is_traced(labels) and n:
        least, most = labels.min(), labels.max()
        if least < -1 or (k is not None and most >= k):
            where = f"between -1 (not known) and {k - 1}" if k is not None else "at least -1 (not known)"
            raise ValueError(f"{name} must be {where}, got {least} to {most}.")
    return jnp.asarray(labels, jnp.int32)


def present(x: Float[Array, "n ..."], weights: Float[Array, " n"] | None) -> Float[Array, "n ..."]:
    """Rows, those of weight 0 as zeros: they may hold anything, NaN too, and no gradient may see it."""
    if weights is None:
        return x
    return jnp.where((weights > 0).reshape(-1, *(1,) * (x.ndim - 1)), x, 0)

"""Arguments of losses: arrays of the right shape in a dtype to sum in, weights, and labels of which some are unknown.

Half precision becomes float32, in which a loss is returned too. Shapes are checked always, values only where they are
concrete: nothing here keeps a loss from being traced. Concrete float64 is narrowed to float32 only after what the loss
does not depend on has been subtracted: an origin of rows, the largest logit of a row, the unit of weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxcluster.core import check
from jaxcluster.core.frame import float_dtype
from jaxcluster.metrics.labels import encode
from jaxcluster.types import Array, Float, Int

SAMPLE = 1024
"""Rows whose median is the origin of concrete ones."""


class Weights(NamedTuple):
    """Weights of rows over 2^exponent, so that float32 holds them whatever their unit is.

    Attributes:
        values: (n,) >= 0; concrete ones have a mean of about 1.
        exponent: 0 where the weights are traced.
    """

    values: Float[Array, " n"]
    exponent: int = 0


def as_matrix(x: Any, *, name: str = "x") -> Float[Array, "n d"]:
    """``x`` as (n, d) floating numbers.

    Raises:
        ValueError, TypeError: see `jaxcluster.core.check.check_matrix`.
    """
    x = check.check_matrix(x, name=name)
    return jnp.asarray(x, float_dtype(x.dtype))


def as_matching(x: Any, shape: tuple[int, ...], *, name: str, of: str) -> Float[Array, ...]:
    """``x`` as floating numbers of this shape, that of the argument called ``of``."""
    x = check_shape(x, shape, name=name, of=of)
    return jnp.asarray(x, float_dtype(x.dtype))


def as_logits(x: Any, *, name: str = "logits") -> Float[Array, "n k"]:
    """``x`` as (n, k) floating numbers up to a constant for each row, of which no softmax depends."""
    x = check.check_matrix(x, name=name)
    if _loses_digits(x):
        largest = np.max(x, axis=1, keepdims=True)
        x = x.astype(np.float64) - np.where(np.isfinite(largest), largest, 0)
    return jnp.asarray(x, float_dtype(x.dtype))


def as_rows(**rows: Any) -> list[Float[Array, "n d"]]:
    """Matrices of rows as wide as the first, in one dtype, of which only differences count.

    Where all are concrete, float64 (or integers) among them, the median of the first is subtracted from each.

    Raises:
        ValueError, TypeError: see `jaxcluster.core.check.check_matrix`; other widths.
    """
    names = list(rows)
    arrays = [check.check_matrix(array, name=name) for name, array in rows.items()]
    for name, array in zip(names[1:], arrays[1:], strict=True):
        if array.shape[1] != arrays[0].shape[1]:
            raise ValueError(
                f"{name} has {array.shape[1]} columns, but {names[0]} has {arrays[0].shape[1]}. Both must be as wide."
            )
    return _about_one_origin(arrays)


def as_alike(**rows: Any) -> list[Float[Array, "n d"]]:
    """`as_rows` of matrices that all have the shape of the first."""
    names = list(rows)
    first = check.check_matrix(rows[names[0]], name=names[0])
    others = [check_shape(rows[name], first.shape, name=name, of=names[0]) for name in names[1:]]
    return _about_one_origin([first, *others])


def in_one_dtype(*arrays: Float[Array, ...]) -> list[Float[Array, ...]]:
    """Floating arrays in the widest dtype among them."""
    dtype = np.result_type(*(array.dtype for array in arrays))  # explicit, also where JAX promotes nothing
    return [array.astype(dtype) for array in arrays]


def as_weights(weights: Any, n: int) -> Weights | None:
    """``weights`` of n rows, or None as it is. They may all be 0: what is summed is then 0 too.

    Raises:
        ValueError, TypeError: another shape; concrete weights that are negative, not finite or no numbers.
    """
    if weights is None:
        return None
    if check.is_traced(weights):
        weights = check.widen(jnp.asarray(weights))
        if weights.shape != (n,):
            raise ValueError(f"weights must have shape ({n},), one a row, got {weights.shape}.")
        return Weights(weights.astype(float_dtype(weights.dtype)))
    weights = np.asarray(weights)
    if weights.shape == (n,) and not weights.any():
        return Weights(jnp.zeros(n, float_dtype(check.widen(weights).dtype)))
    weights = check.check_weights(weights, n)
    dtype, wide = float_dtype(weights.dtype), weights.astype(np.float64)
    # The mean without a sum, which may be infinite.
    largest = int(np.frexp(wide.max())[1])
    exponent = largest + int(np.frexp(np.ldexp(wide[wide > 0], -largest).mean())[1])
    return Weights(jnp.asarray(np.ldexp(wide, -exponent), dtype), exponent)


def as_labels(labels: Any, n: int, k: int | None = None, *, name: str = "labels") -> Int[Array, " n"]:
    """n labels as integers, −1 for a row whose label is not known.

    Labels of k classes are positions from 0 to k − 1. Others only say which rows are alike: concrete ones may be
    integers of any width, strings or objects, and are numbered.

    Raises:
        TypeError: they are not integers (or, where they only say which rows are alike, strings or objects); they are
            strings or objects, and traced.
        ValueError: another shape; concrete labels below −1, not below k, or NaN or None among objects.
    """
    if check.is_traced(labels):
        if labels.dtype.kind not in "iu":
            raise TypeError(f"{name} must be integers, -1 for not known, got dtype {labels.dtype}.")
        _check_length(labels, n, name)
        return labels
    codes = concrete_labels(labels, n, k, name=name)
    return jnp.asarray(codes, jnp.int32)


def concrete_labels(labels: Any, n: int, k: int | None = None, *, name: str = "labels") -> np.ndarray:
    """`as_labels` of concrete labels, on the host."""
    labels = np.asarray(labels)
    if labels.dtype.kind == "O":
        labels = _plain(labels, name)
    if labels.dtype.kind not in ("biu" if k is not None else "biuUSTO"):
        expected = "integers, -1 for not known" + (f", positions among {k} classes" if k is not None else "")
        raise TypeError(f"{name} must be {expected}, got dtype {labels.dtype}.")
    _check_length(labels, n, name)
    if labels.dtype.kind in "biu":
        _check_range(labels, k, name)
        unknown = labels == -1 if labels.dtype.kind == "i" else np.zeros(labels.shape, bool)
        if k is not None:
            return labels.astype(np.int32)
    elif labels.dtype.kind == "O":
        unknown = np.array([isinstance(label, (int, np.integer)) and label == -1 for label in labels], bool)
    else:
        unknown = np.zeros(labels.shape, bool)
    codes = np.full(labels.shape, -1, np.int64)
    known = labels[~unknown]
    codes[~unknown] = _first_seen(known) if known.dtype.kind == "O" else encode(known, name).codes
    return codes.astype(np.int32)


def present(x: Float[Array, "n ..."], weights: Weights | None) -> Float[Array, "n ..."]:
    """Rows, those of weight 0 as zeros: they may hold anything, NaN too, and no gradient may see it."""
    return x if weights is None else where_rows(weights.values > 0, x)


def where_rows(mask, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    """Rows of a mask, others as zeros."""
    return jnp.where(mask.reshape(-1, *(1,) * (x.ndim - 1)), x, jnp.zeros((), x.dtype))


def check_shape(x: Any, shape: tuple[int, ...], *, name: str, of: str) -> Any:
    """``x`` as an array of this shape, half precision widened; raises ValueError for another."""
    x = check.widen(x if hasattr(x, "dtype") else np.asarray(x))
    if x.shape != shape:
        raise ValueError(f"{name} must have the shape {shape} to go with {of}, got {x.shape}.")
    return x


def _loses_digits(x):
    """Whether a concrete array has more digits than JAX computes with."""
    return not check.is_traced(x) and np.promote_types(x.dtype, np.float32).itemsize > float_dtype(x.dtype).itemsize


def _about_one_origin(arrays):
    if not check.is_traced(arrays) and any(_loses_digits(array) for array in arrays):
        wide = [np.asarray(array, np.float64) for array in arrays]
        sample = wide[0][:: -(-len(wide[0]) // SAMPLE)]
        # Rows of weight 0 may hold anything.
        median = np.sort(np.where(np.isfinite(sample), sample, np.inf), axis=0)[(len(sample) - 1) // 2]
        origin = np.where(np.isfinite(median), median, 0)
        with np.errstate(invalid="ignore", over="ignore"):
            arrays = [array - origin for array in wide]
    return in_one_dtype(*(jnp.asarray(array, float_dtype(array.dtype)) for array in arrays))


def _check_length(labels, n, name):
    if labels.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one a row, got {labels.shape}.")


def _check_range(labels, k, name):
    if not labels.size:
        return
    least, most = int(labels.min()), int(labels.max())
    if least < -1 or (k is not None and most >= k):
        where = f"between -1 (not known) and {k - 1}" if k is not None else "at least -1 (not known)"
        raise ValueError(f"{name} must be {where}, got {least} to {most}.")


def _plain(labels, name):
    """An array of objects as integers where all are; raises ValueError for what is no label."""
    missing = [label is None or (isinstance(label, (float, np.floating)) and np.isnan(label)) for label in labels.flat]
    if any(missing):
        raise ValueError(
            f"{name} hold {sum(missing)} NaN or None. A label that is not known is -1; drop such rows otherwise."
        )
    if all(isinstance(label, (int, np.integer)) for label in labels.flat):
        _check_range(labels, None, name)
        most = max(map(int, labels.flat), default=0)
        return labels if most > np.iinfo(np.uint64).max else labels.astype(np.int64 if most < 2**63 else np.uint64)
    if any(isinstance(label, (float, np.floating)) for label in labels.flat):
        return np.asarray([float(label) for label in labels.flat])  # refused as floating numbers are
    return labels


def _first_seen(labels):
    """Objects numbered in the order in which they come up, as they need not have another."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.int64)

"""Validation of the arguments of losses, and the reduction of their terms to one number.

Half precision becomes float32, which is also the dtype of the loss. Shapes are always checked, values only where they
are concrete, so that every loss can be traced. Concrete float64 is narrowed to float32 only after subtracting what the
loss does not depend on: an origin of the samples, the largest logit of a row, the unit of the weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import validation
from jaxcluster.core.dtypes import exponent_of, float_dtype, times_power_of_two
from jaxcluster.metrics.contingency import encode, is_missing, label_array
from jaxcluster.types import Array, Bool, Float, Int, Integer

REDUCTIONS = ("mean", "sum", "none")

ORIGIN_SAMPLES = 1024
"""Number of samples whose median is the origin of concrete data."""


class Weights(NamedTuple):
    """Sample weights divided by 2^exponent, so that float32 holds them whatever their unit is.

    Attributes:
        values: (n,) >= 0; concrete ones have a mean of about 1.
        exponent: 0 where the weights are traced.
    """

    values: Float[Array, " n"]
    exponent: int = 0


def reduce(
    terms: Float[Array, "*n"],
    reduction: str = "mean",
    *,
    weights: Weights | None = None,
    mask: Bool[Array, "*n"] | None = None,
) -> Float[Array, "*m"]:
    """Σ w·t / Σ w ("mean"), Σ w·t ("sum"), each w·t ("none"), or Σ w·t / Σ w over the terms above 0 ("nonzero").

    Terms of weight 0 add nothing, whatever they are. A mean over no terms is 0, and so is its gradient.

    Args:
        terms: of any shape.
        reduction: one of "mean", "sum", "none" and "nonzero".
        weights: of the terms' shape; None for 1 each.
        mask: False for terms to leave out; None for all True.

    Raises:
        ValueError: an unknown reduction.
    """
    validation.check_choice("reduction", reduction, (*REDUCTIONS, "nonzero"))
    exponent = 0 if weights is None else weights.exponent
    values = jnp.ones_like(terms) if weights is None else weights.values.astype(terms.dtype)
    if mask is not None:
        values = jnp.where(mask, values, 0)
    # Not values * terms alone: 0 · NaN is NaN, and a sample of weight 0 may hold NaN.
    weighted = jnp.where(values > 0, values * terms, 0)
    if reduction == "none":
        return times_power_of_two(weighted, exponent)
    if reduction == "nonzero":
        values = jnp.where(terms > 0, values, 0)
    total = jnp.sum(weighted)
    if reduction == "sum":
        return times_power_of_two(total, exponent)
    # The exponent cancels in a mean, so that weights of any unit neither overflow nor underflow there.
    count = jnp.sum(values)
    return total / jnp.where(count > 0, count, 1)


def as_matrix(x: Any, *, name: str = "x") -> Float[Array, "n d"]:
    """``x`` as an (n, d) floating matrix.

    Raises:
        ValueError, TypeError: see `jaxcluster.core.validation.check_matrix`.
    """
    x = validation.check_matrix(x, name=name)
    return jnp.asarray(x, float_dtype(x.dtype))


def as_directions(x: Any, *, name: str = "x") -> Float[Array, "n d"]:
    """`as_matrix` of rows whose lengths do not matter: concrete float64 is scaled before it is narrowed."""
    x = validation.check_matrix(x, name=name)
    if _exceeds_precision(x):
        largest = np.max(np.abs(x), axis=1, keepdims=True)
        x = np.ldexp(x, -np.frexp(np.where(np.isfinite(largest), largest, 1))[1])
    return as_matrix(x, name=name)


def as_features(x: Any, *, name: str = "x") -> Float[Array, "n d"]:
    """`as_matrix` of columns whose origins and units do not matter: those of concrete float64 are removed before."""
    x = validation.check_matrix(x, name=name)
    if _exceeds_precision(x):
        x = np.asarray(x, np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            x = x - _origin(x)
        largest = np.max(np.where(np.isfinite(x), np.abs(x), 0), axis=0)
        x = np.ldexp(x, -np.frexp(largest)[1])
    return as_matrix(x, name=name)


def as_floats(x: Any, *, name: str = "x") -> Float[Array, ...]:
    """``x`` as a floating array of any shape.

    Raises:
        ValueError, TypeError: see `jaxcluster.core.validation.check_numeric`.
    """
    x = validation.check_numeric(x, name=name)
    return jnp.asarray(x, float_dtype(x.dtype))


def as_shaped(x: Any, shape: tuple[int, ...], *, name: str, of: str) -> Float[Array, ...]:
    """``x`` as a floating array of this shape, that of the argument called ``of``."""
    x = check_shape(x, shape, name=name, of=of)
    return jnp.asarray(x, float_dtype(x.dtype))


def as_logits(x: Any, *, name: str = "logits") -> Float[Array, "n k"]:
    """``x`` as (n, k) logits; concrete float64 is first shifted by each row's maximum, which no softmax depends on."""
    x = validation.check_matrix(x, name=name)
    if _exceeds_precision(x):
        largest = np.max(x, axis=1, keepdims=True)
        x = x.astype(np.float64) - np.where(np.isfinite(largest), largest, 0)
    return jnp.asarray(x, float_dtype(x.dtype))


def as_samples(**matrices: Any) -> list[Float[Array, "n d"]]:
    """Matrices with as many columns as the first, in one dtype, for losses that depend on differences of rows only.

    Where all are concrete, float64 (or integers) among them, the median of the first is subtracted from each.

    Raises:
        ValueError, TypeError: see `jaxcluster.core.validation.check_matrix`; unequal numbers of columns.
    """
    names = list(matrices)
    arrays = [validation.check_matrix(array, name=name) for name, array in matrices.items()]
    for name, array in zip(names[1:], arrays[1:], strict=True):
        if array.shape[1] != arrays[0].shape[1]:
            raise ValueError(
                f"{name} has {array.shape[1]} columns, but {names[0]} has {arrays[0].shape[1]}. "
                "Both need the same number."
            )
    return _center_together(arrays)


def as_paired_samples(**matrices: Any) -> list[Float[Array, "n d"]]:
    """`as_samples` of matrices that all have the shape of the first."""
    names = list(matrices)
    first = validation.check_matrix(matrices[names[0]], name=names[0])
    others = [check_shape(matrices[name], first.shape, name=name, of=names[0]) for name in names[1:]]
    return _center_together([first, *others])


def promote(*arrays: Float[Array, ...]) -> list[Float[Array, ...]]:
    """Floating arrays in the widest dtype among them."""
    # Explicit: JAX does not promote under jax_numpy_dtype_promotion="strict".
    dtype = np.result_type(*(array.dtype for array in arrays))
    return [array.astype(dtype) for array in arrays]


def exponent_out_of_range(*arrays: Float[Array, ...]) -> Int[Array, ""]:
    """Least e >= 0 such that squared distances of the arrays' rows divided by 2^e are finite; a constant.

    It is 0 up to numbers of 2^56 in float32: the squares of their differences are below 2^115.
    """
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(jax.lax.stop_gradient(array))) for array in arrays]))
    return jnp.maximum(exponent_of(largest) - (jnp.finfo(largest.dtype).maxexp // 2 - 8), 0)


def as_weights(weights: Any, n: int) -> Weights | None:
    """`Weights` of n samples, or None for None. They may all be 0: weighted sums are then 0 too.

    Raises:
        ValueError, TypeError: another shape; concrete weights that are negative, not finite or not numeric.
    """
    if weights is None:
        return None
    if validation.is_traced(weights):
        weights = validation.widen(jnp.asarray(weights))
        if weights.shape != (n,):
            raise ValueError(f"weights must have shape ({n},), one per row, got {weights.shape}.")
        return Weights(weights.astype(float_dtype(weights.dtype)))
    weights = validation.as_real_array(weights)
    if weights.shape == (n,) and not weights.any():
        return Weights(jnp.zeros(n, float_dtype(validation.widen(weights).dtype)))
    weights = validation.check_weights(weights, n)
    dtype, wide = float_dtype(weights.dtype), weights.astype(np.float64)
    # Divided by the largest first: the sum of weights near the limit of float64 would be infinite.
    largest = int(np.frexp(wide.max())[1])
    exponent = largest + int(np.frexp(np.ldexp(wide[wide > 0], -largest).mean())[1])
    return Weights(jnp.asarray(np.ldexp(wide, -exponent), dtype), exponent)


def as_positive(name: str, value: Any, dtype: Any, *, zero: bool = False) -> Float[Array, ""]:
    """A parameter of a loss, in the loss's dtype: positive, or 0 with ``zero``; a traced one is not checked.

    Raises:
        ValueError, TypeError: see `jaxcluster.core.validation.check_positive`; a concrete number that is 0 or infinite
            in the dtype, so that the loss would be NaN.
    """
    value = validation.check_positive(name, value, zero=zero)
    if not validation.is_traced(value):
        info = jnp.finfo(dtype)
        if float(value) > float(info.max) or (not zero and float(value) < float(info.tiny)):
            raise ValueError(
                f"{name}={float(value):g} is beyond {np.dtype(dtype)}, which holds {float(info.tiny):.1e} to "
                f"{float(info.max):.1e}. Scale the samples, and {name} with them."
            )
    return jnp.asarray(value, dtype)


def as_labels(labels: Any, n: int | None, k: int | None = None, *, name: str = "labels") -> Integer[Array, " n"]:
    """Integer labels of n samples, of any number for None; −1 for an unknown label.

    Labels of k classes are positions from 0 to k − 1. With k None only their equality counts: concrete ones may be
    integers of any width, strings or objects, and are encoded as integers.

    Raises:
        TypeError: labels that are not integers (or, with k None, strings or objects); traced strings or objects.
        ValueError: another shape; concrete labels below −1, not below k, or NaN or None among objects.
    """
    if validation.is_traced(labels):
        return _traced_labels(labels, n, k, name)
    return jnp.asarray(encode_labels(labels, n, k, name=name), jnp.int32)


def as_label_pair(labels: Any, n: int, others: Any, m: int) -> tuple[Integer[Array, " n"], Integer[Array, " m"]]:
    """`as_labels` of n samples and of m references, with one number for equal labels in both.

    Returns:
        the labels of the samples, and those of the references.

    Raises:
        TypeError, ValueError: see `as_labels`; concrete labels of two kinds; beside traced labels, see `class_numbers`.
    """
    if validation.is_traced(labels, others):
        return class_numbers(labels, n), class_numbers(others, m, name="reference_labels")
    arrays = [_plain_labels(labels, n, None, "labels"), _plain_labels(others, m, None, "reference_labels")]
    kinds = ["integers" if each.dtype.kind in "biu" else each.dtype.kind for each in arrays]
    if kinds[0] != kinds[1] and "O" not in kinds:
        raise TypeError(
            f"labels have dtype {arrays[0].dtype}, and reference_labels {arrays[1].dtype}: equal labels must name one "
            "class in both. Pass both as integers, or both as strings."
        )
    known = [~_unknown(each) for each in arrays]
    # Python's own objects: integers of two widths would meet in a floating dtype.
    numbers = _number_objects(arrays[0][known[0]].tolist() + arrays[1][known[1]].tolist())
    codes = [np.full(each.shape, -1, np.int32) for each in arrays]
    first = int(known[0].sum())
    codes[0][known[0]], codes[1][known[1]] = numbers[:first], numbers[first:]
    return jnp.asarray(codes[0]), jnp.asarray(codes[1])


def class_numbers(labels: Any, n: int, *, name: str = "labels") -> Integer[Array, " n"]:
    """Integer labels of n samples as they are: those of other batches are compared with them.

    Raises:
        TypeError: labels that are not integers.
        ValueError: another shape; concrete labels below −1 or beyond int32.
    """
    if validation.is_traced(labels):
        return _traced_labels(labels, n, None, name)
    labels = _plain_labels(labels, n, None, name)
    if labels.dtype.kind not in "biu":
        raise TypeError(
            f"{name} must be integers, the same number for a class in all batches, got dtype {labels.dtype}. Number "
            "them by np.unique(labels, return_inverse=True) over all batches."
        )
    if labels.size and int(labels.max()) > np.iinfo(np.int32).max:
        raise ValueError(f"{name} must be at most {np.iinfo(np.int32).max}, the largest int32, got {labels.max()}.")
    return jnp.asarray(labels.astype(np.int32))


def encode_labels(labels: Any, n: int | None, k: int | None = None, *, name: str = "labels") -> np.ndarray:
    """`as_labels` of concrete labels, as an int32 array on the host."""
    labels = _plain_labels(labels, n, k, name)
    if k is not None:
        return labels.astype(np.int32)
    unknown = _unknown(labels)
    codes = np.full(labels.shape, -1, np.int64)
    known = labels[~unknown]
    codes[~unknown] = _number_objects(known) if known.dtype.kind == "O" else encode(known, name).codes
    return codes.astype(np.int32)


def zero_unweighted(x: Float[Array, "n ..."], weights: Weights | None) -> Float[Array, "n ..."]:
    """Samples, with zeros for those of weight 0.

    These may hold anything, NaN too, and must be replaced before the loss: a `where` behind it would keep its value
    finite but not its gradient, which is 0 · NaN = NaN.
    """
    return x if weights is None else mask_rows(weights.values > 0, x)


def mask_rows(mask, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    """Rows of the mask as they are, and zeros for the others."""
    return jnp.where(mask.reshape(-1, *(1,) * (x.ndim - 1)), x, jnp.zeros((), x.dtype))


def check_shape(x: Any, shape: tuple[int, ...], *, name: str, of: str) -> Any:
    """``x`` as an array of numbers, half precision widened; raises ValueError unless it has this shape."""
    x = validation.check_numeric(x, name=name)
    if x.shape != shape:
        raise ValueError(f"{name} must have the shape {shape} to go with {of}, got {x.shape}.")
    return x


def _exceeds_precision(x):
    """True for a concrete array whose dtype has more digits than the one JAX computes in."""
    return (
        not validation.is_traced(x) and np.promote_types(x.dtype, np.float32).itemsize > float_dtype(x.dtype).itemsize
    )


def _origin(x):
    """Lower median of up to `ORIGIN_SAMPLES` samples."""
    sample = x[:: -(-len(x) // ORIGIN_SAMPLES)]
    # A median, as single far samples do not move it; +inf for NaN, as samples of weight 0 may hold anything.
    median = np.sort(np.where(np.isfinite(sample), sample, np.inf), axis=0)[(len(sample) - 1) // 2]
    return np.where(np.isfinite(median), median, 0)


def _center_together(arrays):
    """Subtract one origin, that of the first array, from all."""
    if not validation.is_traced(arrays) and any(_exceeds_precision(array) for array in arrays):
        wide = [np.asarray(array, np.float64) for array in arrays]
        origin = _origin(wide[0])
        with np.errstate(invalid="ignore", over="ignore"):
            arrays = [array - origin for array in wide]
    with np.errstate(over="ignore"):  # an infinite loss says so
        return promote(*(jnp.asarray(array, float_dtype(array.dtype)) for array in arrays))


def _traced_labels(labels, n, k, name):
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, -1 for not known, got dtype {labels.dtype}.")
    _check_length(labels, n, name)
    # Positions are compared with those of all classes, of which int8 or uint8 may not hold the number.
    return labels if k is None or labels.dtype.itemsize >= 4 else labels.astype(np.int32)


def _plain_labels(labels, n, k, name):
    """Concrete labels of n samples as an array of integers, strings or other objects; of integers alone with k."""
    array = label_array(labels, name)
    _check_length(array, n, name)
    if not hasattr(labels, "dtype") and array.dtype.kind in "USf":
        # NumPy makes strings of all that a list of strings holds, also of -1 and NaN, and rounds large integers.
        array = np.fromiter(labels, object, array.size)
    if array.dtype.kind == "O":
        array = _check_objects(array, name)
    if array.dtype.kind not in ("biu" if k is not None else "biuUSTO"):
        expected = "integers or strings" if k is None else f"integers, positions among {k} classes"
        raise TypeError(f"{name} must be {expected}, -1 for not known, got dtype {array.dtype}.")
    if array.dtype.kind in "biu":
        _check_range(array, k, name)
    return array


def _unknown(labels):
    """Mask of −1, which means unknown, in integers with a sign and in objects; elsewhere each value is a class."""
    if labels.dtype.kind == "O":
        return np.array([isinstance(label, (int, np.integer)) and label == -1 for label in labels], bool)
    return labels == -1 if labels.dtype.kind == "i" else np.zeros(labels.shape, bool)


def _check_length(labels, n, name):
    if labels.ndim != 1 or (n is not None and labels.shape != (n,)):
        raise ValueError(f"{name} must have shape ({'n' if n is None else n},), one per row, got {labels.shape}.")


def _check_range(labels, k, name):
    if not labels.size:
        return
    least, greatest = int(labels.min()), int(labels.max())
    if least < -1 or (k is not None and greatest >= k):
        expected = f"between -1 (not known) and {k - 1}" if k is not None else "at least -1 (not known)"
        raise ValueError(f"{name} must be {expected}, got {least} to {greatest}.")


def _check_objects(labels, name):
    """An array of objects, as integers if all are; raises ValueError for missing values."""
    missing = sum(map(is_missing, labels.flat))
    if missing:
        raise ValueError(
            f"{name} hold {missing} NaN or None. A label that is not known is -1; drop such rows otherwise."
        )
    if all(isinstance(label, (int, np.integer)) for label in labels.flat):
        _check_range(labels, None, name)
        # Larger integers stay Python's: no type of NumPy holds them together with -1.
        return labels.astype(np.int64) if max(map(int, labels.flat), default=0) < 2**63 else labels
    if any(isinstance(label, (float, np.floating)) for label in labels.flat):
        return np.asarray([float(label) for label in labels.flat])  # the caller refuses floating labels
    return labels.astype(str) if all(isinstance(label, str) for label in labels.flat) else labels


def _number_objects(labels):
    """Objects numbered by first occurrence: they need not be sortable, only hashable."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.int64)

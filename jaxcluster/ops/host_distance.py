"""Distances between the rows of two matrices in float64 on the host: what the exact methods measure by.

The definitions are those of `jaxcluster.ops.distance`. Callables are taken in both of the forms that are in use: of
two matrices of rows, as here, and of two rows, as in scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import cdist

from jaxcluster.core.integers import moved_alike
from jaxcluster.ops.distance import LARGEST_POWER, TRANSLATION_INVARIANT, check_haversine, plain_metric

HostDistance = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(m, d) rows, (n, d) rows -> (m, n) float64 distances."""

NOT_THIS_FORM = (TypeError, ValueError, IndexError, AttributeError)
"""What a function of two rows raises when it is called with matrices, and the other way round."""


def host_distance(metric: str | Callable, x: np.ndarray, *, p: float = 2.0) -> HostDistance:
    """The distance function of a name in `jaxcluster.ops.distance.METRICS`, or of a callable.

    Args:
        metric: a name, or a symmetric function of two matrices of rows, (m, d) and (n, d), that gives (m, n)
            distances, or of two rows that gives a number.
        x: (n, d) rows, of which a few are used to tell the two forms of callables apart.
        p: the power of "minkowski", at least 1.

    Raises:
        ValueError, TypeError: an unknown name, p < 1, columns that the metric does not take, a callable of neither
            form.

    What a callable gives is looked at by `checked`.
    """
    metric = plain_metric(metric, p)
    if callable(metric):
        return metric if _takes_matrices(metric, x) else partial(_pair_by_pair, metric)
    if metric == "haversine":
        check_haversine(x)
    return partial(_minkowski, p=float(p)) if metric == "minkowski" else FUNCTIONS[metric]


def wide_rows(metric: str | Callable, *tables: np.ndarray) -> tuple[np.ndarray, ...]:
    """Tables of one space as a host metric wants them: in float64, or as they are for a function of the caller.

    Integers that float64 would round are moved first where the metric depends on differences of rows alone.
    """
    if callable(metric):
        return tables
    if plain_metric(metric) in TRANSLATION_INVARIANT:
        return moved_alike(*tables)
    return tuple(table.astype(np.float64) for table in tables)


def checked(function: HostDistance, x: np.ndarray, y: np.ndarray, numbers: np.ndarray | None = None) -> np.ndarray:
    """(m, n) float64 distances that a function gives.

    Args:
        numbers: (m,) what messages call the rows of x; by default they are counted from 0.

    Raises:
        ValueError: another shape, or an entry that is no number >= 0.
    """
    found = function(x, y)
    distances = real_numbers(found)
    if distances is None:
        raise ValueError(f"metric gave {named(found)} for rows of X: a distance is a number >= 0.")
    if distances.shape != (len(x), len(y)):
        raise ValueError(
            f"metric gave shape {distances.shape} for matrices of {len(x)} and {len(y)} rows; ({len(x)}, {len(y)}) "
            "distances are wanted, of every row of the first from every row of the second."
        )
    wrong = ~(distances >= 0)
    if wrong.any():
        i, j = np.argwhere(wrong)[0]
        row = i if numbers is None else numbers[i]
        raise ValueError(f"metric gave {distances[i, j]} for rows {row} and {j}: a distance is a number >= 0.")
    return distances


def real_numbers(value: Any) -> np.ndarray | None:
    """What a function of the caller gave as float64 numbers of any shape; None where it is no real numbers."""
    try:
        value = np.asarray(value)
        if value.dtype.kind == "O" and not any(each is None for each in value.flat):  # such as fractions
            value = value.astype(np.float64)
    except (TypeError, ValueError):  # lists of different lengths, or objects of some other kind
        return None
    real = value.dtype == bool or jnp.issubdtype(value.dtype, jnp.integer) or jnp.issubdtype(value.dtype, jnp.floating)
    return value.astype(np.float64, copy=False) if real else None


def named(value: Any) -> str:
    """What a message calls a value of which `real_numbers` makes nothing."""
    if value is None or isinstance(value, (str, bytes, complex)):
        return repr(value)[:40]
    try:
        array = np.asarray(value)
    except ValueError:
        return "lists of different lengths"
    if array.ndim and array.dtype.kind == "O":
        return f"{named(next(each for each in array.flat if real_numbers(each) is None))} among its values"
    return f"an array of dtype {array.dtype}" if array.ndim else f"an object of type {type(value).__name__}"


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Rows of length 1, whatever their length; rows of zeros stay zero."""
    x = np.asarray(x, np.float64)
    x = np.ldexp(x, -np.frexp(np.abs(x).max(axis=1, keepdims=True))[1])
    lengths = np.sqrt(np.sum(x * x, axis=1, keepdims=True))
    return x / np.where(lengths > 0, lengths, 1)


def standardized_rows(x: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and length 1; rows of equal entries become zero."""
    x = np.asarray(x, np.float64)
    x = np.ldexp(x, -np.frexp(np.abs(x).max(axis=1, keepdims=True))[1])
    x = x - x[:, :1]
    return unit_rows(x - x.mean(axis=1, keepdims=True))


def _takes_matrices(metric, x):
    """Whether a callable gives (2, 3) distances for 2 and 3 rows; if not, it has to give a number for two rows."""
    rows = x[np.arange(5) % len(x)]
    seen = []
    for arguments, shape in (((rows[:2], rows[2:]), (2, 3)), ((rows[0], rows[-1]), ())):
        try:
            found = metric(*arguments)
        except NOT_THIS_FORM as error:
            seen.append(error)
            continue
        numbers = real_numbers(found)
        if numbers is not None and numbers.shape == shape:
            return shape != ()
        seen.append(named(found) if numbers is None else f"shape {numbers.shape}")
    matrices, pair = (each if isinstance(each, str) else repr(each) for each in seen)
    raise ValueError(
        f"metric gave {matrices} for matrices of 2 and 3 rows, and {pair} for two rows. Pass a function of two "
        "matrices of rows, (m, d) and (n, d), that gives (m, n) distances, or of two rows that gives a number."
    ) from next((each for each in seen if isinstance(each, Exception)), None)


def _pair_by_pair(metric, x, y):
    return [[metric(a, b) for b in y] for a in x]


def _minkowski(x, y, *, p):
    """The differences over the largest of each pair, so that no power of them overflows."""
    largest = cdist(x, y, "chebyshev")
    if p >= LARGEST_POWER:
        return largest
    unit, total = np.where(largest > 0, largest, 1), np.zeros_like(largest)
    with np.errstate(under="ignore"):
        for a, b in zip(x.T, y.T, strict=True):
            total += (np.abs(a[:, None] - b) / unit) ** p
    return unit * total ** (1 / p)


def _euclidean(x, y):
    """Of any size: rows are brought near 1 before differences are squared."""
    exponent = -np.frexp(max(np.abs(x).max(), np.abs(y).max()))[1]
    return np.ldexp(cdist(np.ldexp(x, exponent), np.ldexp(y, exponent)), -exponent)


def _cosine(x, y):
    return _half_squares(unit_rows(x), unit_rows(y))


def _correlation(x, y):
    return _half_squares(standardized_rows(x), standardized_rows(y))


def _half_squares(x, y):
    """1 − cos of unit rows by differences; 1 from and to rows of zeros."""
    zero = ~(x.any(axis=1)[:, None] & y.any(axis=1))
    return np.where(zero, 1, np.minimum(cdist(x, y, "sqeuclidean") / 2, 2))


def _braycurtis(x, y):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(cdist(x, y, "braycurtis"), nan=0.0, posinf=np.inf)


def _jaccard(x, y):
    return cdist(x != 0, y != 0, "jaccard")


def _haversine(x, y):
    latitude, longitude = (x[:, j, None] - y[:, j] for j in (0, 1))
    both = np.cos(x[:, 0])[:, None] * np.cos(y[:, 0])
    half = np.sin(latitude / 2) ** 2 + both * np.sin(longitude / 2) ** 2
    return 2 * np.arcsin(np.sqrt(np.minimum(half, 1)))


FUNCTIONS: dict[str, HostDistance] = {
    "sqeuclidean": partial(cdist, metric="sqeuclidean"),
    "euclidean": _euclidean,
    "manhattan": partial(cdist, metric="cityblock"),
    "chebyshev": partial(cdist, metric="chebyshev"),
    "cosine": _cosine,
    "correlation": _correlation,
    "canberra": partial(cdist, metric="canberra"),
    "braycurtis": _braycurtis,
    "hamming": partial(cdist, metric="hamming"),
    "jaccard": _jaccard,
    "haversine": _haversine,
}
"""By their plain names, all metrics but "minkowski"."""

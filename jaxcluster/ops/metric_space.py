"""Metric spaces in float64 on the host: rows under a metric, and callables of the user.

The distance of two rows of a `MetricSpace` is a function of Σ|difference|^power, so that a search may exclude far rows
by their bounding boxes. A `DistanceOracle` knows distances only and is asked for a few rows at a time. The definitions
of the metrics are those of `jaxcluster.ops.distance`.

>>> space = as_metric_space(np.array([[0.0, 0.0], [3.0, 4.0]]))
>>> space.rows(np.array([0])).tolist()
[[0.0, 5.0]]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import cdist

from jaxcluster.core import signals, validation
from jaxcluster.core.dtypes import translated_alike
from jaxcluster.core.frame import warn_of_crushed
from jaxcluster.core.programs import limit_programs
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.ops.distance import LARGEST_POWER, TRANSLATION_INVARIANT, check_haversine, plain_metric
from jaxcluster.ops.precomputed import distance_matrix, matrix_rows
from jaxcluster.ops.sparse_distance import distances_to_all

HostDistance = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(m, d) rows, (n, d) rows -> (m, n) float64 distances."""

TILE = 1 << 22
"""Number of distances of one tile: 32 MB in float64."""

PLAIN_EXPONENTS = (-30, 40)
"""Range of the exponent of the typical length in which no unit is changed: distances are rounded as in scikit-learn."""

LARGEST_EXPONENT = 1000
"""Bound on the exponent of a rescaled coordinate: differences up to 2¹⁰⁰⁰ are finite in float64."""

SIZE_ROWS = 1024
"""Number of sampled rows for the typical length."""

SIZE_DISTANCES = 1 << 16
"""Number of sampled distances for that of a `DistanceOracle`."""

LEAST_ROOT = 2.0**-480
"""Least distance from squares in float64 that is not rounded: theirs are far above 2⁻¹⁰²²."""

LARGEST_SUMMED_POWER = 8.0
"""Largest finite power of a `MetricSpace`: differences up to 10³⁰ stay below 10³⁰⁸, the limit of float64."""


class MetricSpace(NamedTuple):
    """Rows with the distance (scale · Σ|difference|^power)^root, or the largest difference for an infinite power.

    Attributes:
        x: (n, d) float64 rows; of unit length for "cosine" and "correlation".
        power, scale, root: see above; scale and root are 1 for an infinite power.
    """

    x: np.ndarray
    power: float
    scale: float
    root: float

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.x)

    def distances(self, sums: np.ndarray) -> np.ndarray:
        """Distances from Minkowski sums Σ|difference|^power."""
        scaled = sums if self.scale == 1 else sums * self.scale
        return np.sqrt(scaled) if self.root == 0.5 else scaled**self.root if self.root != 1 else scaled

    def threshold(self, distances: Any) -> Any:
        """Minkowski sums at given distances, the inverse of `distances`; infinite beyond float64."""
        with np.errstate(over="ignore"):
            return np.float64(distances) ** (1 / self.root) / self.scale

    def rows(self, index: np.ndarray) -> np.ndarray:
        """(m, n) distances from the rows ``index`` to all rows."""
        return self.distances(minkowski_sums(self.x[index, None], self.x[None], self.power))


class DistanceOracle(NamedTuple):
    """Distances of n rows without coordinates.

    Attributes:
        rows: (m,) row numbers -> (m, n) float64 distances to all rows; infinite for missing entries.
    """

    n: int
    rows: Callable[[np.ndarray], np.ndarray]


def as_metric_space(
    x: Any, metric: str | Callable = "euclidean", *, p: float = 2.0, symmetric: bool = True
) -> MetricSpace | DistanceOracle:
    """Metric space of rows under a metric.

    Args:
        x: (n_samples, n_features) finite concrete rows, sparse ones for metrics in `jaxcluster.ops.sparse_distance`; or
            (n_samples, n_samples) distances, dense or sparse, for the metric "precomputed". A missing entry of a sparse
            matrix is infinite, 0 on the diagonal; a missing or infinite entry of a pair is as the other one.
        metric: a name in `jaxcluster.ops.distance.METRICS`, "precomputed", or a function of two matrices of rows,
            (m, d) and (n, d), that returns (m, n) distances, or of two rows that returns a number.
        p: the power of "minkowski", at least 1.
        symmetric: False lets the two entries of a pair differ, with a warning: see
            `jaxcluster.ops.precomputed.distance_matrix`.

    Returns:
        A `MetricSpace` where the metric is a function of Minkowski sums, else a `DistanceOracle`.

    Raises:
        ValueError, TypeError: wrong shapes, names or values; a matrix of distances that is not square, symmetric or
            non-negative, with the first such entry; traced rows.
    """
    metric = plain_metric(metric, p, also=("precomputed",))
    limit_programs()
    if metric == "precomputed":
        if validation.is_traced(x):
            concrete_rows(x)  # raises
        matrix = distance_matrix(x, symmetric=symmetric)
        return DistanceOracle(matrix.shape[0], partial(matrix_rows, matrix))
    if is_sparse(x):
        return DistanceOracle(x.shape[0], distances_to_all(x, metric))
    x = concrete_rows(x)
    if callable(metric):
        function = host_distance(metric, x)
        return DistanceOracle(len(x), lambda index: checked_distances(function, x[index], x, index))
    (rows,) = float64_tables(metric, x)
    if metric in ("cosine", "correlation"):
        unit = unit_rows(rows) if metric == "cosine" else standardized_rows(rows)
        # 1 − cos = ‖a − b‖² / 2 for unit rows. No point has the distance 1 to every unit row, as a row of zeros has.
        return MetricSpace(unit, 2.0, 0.5, 1.0) if unit.any(axis=1).all() else _pairwise(metric, rows)
    powers = {"manhattan": 1.0, "minkowski": float(p), "chebyshev": np.inf, "euclidean": 2.0, "sqeuclidean": 2.0}
    power = powers.get(metric)
    if power is None or LARGEST_SUMMED_POWER < power < np.inf:
        return _pairwise(metric, rows, p)
    return MetricSpace(rows, power, 1.0, 1.0 if metric == "sqeuclidean" or power == np.inf else 1 / power)


def rescale_space(space: MetricSpace | DistanceOracle) -> tuple[MetricSpace | DistanceOracle, int]:
    """Multiply rows or distances by a power of two that brings the typical distance near 1, if it is not ordinary.

    In float64 squares of numbers below 1e-162 are 0 and above 1e154 infinite: distances in such a unit would all be
    equal. A power of two changes no digit.

    Returns:
        The rescaled space, and the exponent of the factor of its distances.
    """
    if isinstance(space, DistanceOracle):
        exponent = -_median_exponent(_sample_distances(space))
        rows = space.rows
        return (space._replace(rows=lambda index: np.ldexp(rows(index), exponent)) if exponent else space), exponent
    if space.scale != 1:  # unit rows
        return space, 0
    exponent = unit_exponent(space.x, LARGEST_EXPONENT)
    if not exponent:
        return space, 0
    degree = 1 if space.power == np.inf else round(space.power * space.root)
    with np.errstate(under="ignore"):
        return space._replace(x=np.ldexp(space.x, exponent)), degree * exponent


def unit_exponent(x: np.ndarray, largest: int) -> int:
    """Exponent of the power of two that brings the typical length of rows near 1, 0 if it is ordinary.

    Args:
        x: (n, d) float64 rows.
        largest: exponent of the largest coordinate that is left.
    """
    some = x[:: -(-len(x) // SIZE_ROWS)]
    with np.errstate(over="ignore"):
        typical = _median_exponent(np.abs(some - np.median(some, axis=0)).max(axis=1))
    farthest = np.abs(x).max()
    exponent = min(-typical, largest - int(np.frexp(farthest)[1]))
    if typical + exponent < -LARGEST_EXPONENT // 2:  # squares underflow
        warn_of_crushed(farthest)
    return exponent


def _sample_distances(space):
    """Distances from a few rows, evenly spread over all rows."""
    index = np.unique(np.linspace(0, space.n - 1, min(space.n, max(1, SIZE_DISTANCES // space.n)), dtype=np.int64))
    return space.rows(index).ravel()


def _median_exponent(lengths):
    """Exponent of the median of the positive finite lengths; 0 within `PLAIN_EXPONENTS`."""
    lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
    exponent = int(np.frexp(np.median(lengths))[1]) if len(lengths) else 0
    least, most = PLAIN_EXPONENTS
    return 0 if least <= exponent <= most else exponent


def concrete_rows(x: Any, *, name: str = "x") -> np.ndarray:
    """(n, d) finite rows on the host; raises TypeError for traced rows."""
    if validation.is_traced(x):
        raise TypeError(
            f"{name} is traced, and this method takes concrete rows: the number of neighbors depends on their values, "
            "and its labels have no gradient. Call it outside jit, vmap and grad."
        )
    x = np.asarray(validation.check_matrix(x, name=name))
    validation.check_finite(x, name=name)
    return x


def minkowski_sums(a: np.ndarray, b: np.ndarray, power: float) -> np.ndarray:
    """Σ|a − b|^power over the last axis of two arrays that broadcast, added column by column."""
    # The order of a plain loop: NumPy's pairwise summation would round otherwise, and change ties of distances.
    return _add_up(((a[..., column], b[..., column]) for column in range(a.shape[-1])), power)


def pair_minkowski_sums(
    a: np.ndarray, b: np.ndarray, first: np.ndarray, second: np.ndarray, power: float
) -> np.ndarray:
    """(m,) `minkowski_sums` of pairs of rows of (d, n) and (d, m) columns, without a copy of the rows."""
    return _add_up(((x[first], y[second]) for x, y in zip(a, b, strict=True)), power)


def _add_up(columns, power) -> Any:
    total = 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        for a, b in columns:
            difference = a - b
            if power == np.inf:
                total = np.maximum(total, np.abs(difference))
            else:
                total += difference * difference if power == 2 else np.abs(difference) ** power
    return total


def tiles(n: int, others: int | None = None) -> Iterator[np.ndarray]:
    """Row numbers in groups whose distances to all n rows, or to ``others`` rows, fit `TILE`; each looks for Ctrl-C."""
    step = max(1, TILE // (n if others is None else others))
    for start in range(0, n, step):
        signals.check_stopped()
        yield np.arange(start, min(start + step, n))


def _pairwise(metric, rows, p=2.0):
    function = host_distance(metric, rows, p=p)

    def distances(index):
        some = function(rows[index], rows)
        some[np.arange(len(index)), index] = 0
        return some

    return DistanceOracle(len(rows), distances)


WRONG_FORM_ERRORS = (TypeError, ValueError, IndexError, AttributeError)
"""Errors of a function of two rows that is called with matrices, or the other way round."""


def host_distance(metric: str | Callable, x: np.ndarray, *, p: float = 2.0) -> HostDistance:
    """Distance function of a name in `jaxcluster.ops.distance.METRICS`, or of a callable.

    The values of a callable are checked by `checked_distances`.

    Args:
        metric: a name, or a symmetric function of two matrices of rows, (m, d) and (n, d), that returns (m, n)
            distances, or of two rows that returns a number.
        x: (n, d) rows; the form of a callable is tried on a few of them.
        p: the power of "minkowski", at least 1.

    Raises:
        ValueError, TypeError: an unknown name, p < 1, columns that the metric does not accept, a callable of neither
            form.
    """
    metric = plain_metric(metric, p)
    if callable(metric):
        return metric if _accepts_matrices(metric, x) else partial(_all_pairs, metric)
    if metric == "haversine":
        check_haversine(x)
    return partial(_minkowski, p=float(p)) if metric == "minkowski" else HOST_METRICS[metric]


def float64_tables(metric: str | Callable, *tables: np.ndarray) -> tuple[np.ndarray, ...]:
    """Tables of rows in float64, the dtype of the host metrics; unchanged for a callable metric.

    Returns:
        The tables, one for each argument. Integers that float64 would round are translated first if the metric depends
        on differences of rows only.
    """
    if callable(metric):
        return tables
    if plain_metric(metric) in TRANSLATION_INVARIANT:
        return translated_alike(*tables)
    return tuple(table.astype(np.float64) for table in tables)


def checked_distances(
    function: HostDistance, x: np.ndarray, y: np.ndarray, numbers: np.ndarray | None = None
) -> np.ndarray:
    """(m, n) float64 distances of a function, after a check of their shape and values.

    Args:
        function: the distance function.
        x: (m, d) rows.
        y: (n, d) rows.
        numbers: (m,) row numbers of x for messages; None for 0, 1, ...

    Raises:
        ValueError: another shape, or an entry that is not a number >= 0.
    """
    value = function(x, y)
    distances = as_real_numbers(value)
    if distances is None:
        raise ValueError(f"metric gave {describe_value(value)} for rows of X: a distance is a number >= 0.")
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


def as_real_numbers(value: Any) -> np.ndarray | None:
    """Value of a user's function as float64 numbers of any shape; None if it is not real numbers."""
    try:
        value = np.asarray(value)
        if value.dtype.kind == "O" and not any(each is None for each in value.flat):  # such as fractions
            value = value.astype(np.float64)
    except (TypeError, ValueError):  # lists of different lengths, or objects of some other kind
        return None
    real = value.dtype == bool or jnp.issubdtype(value.dtype, jnp.integer) or jnp.issubdtype(value.dtype, jnp.floating)
    return value.astype(np.float64, copy=False) if real else None


def describe_value(value: Any) -> str:
    """Description for messages of a value that `as_real_numbers` cannot convert."""
    if value is None or isinstance(value, (str, bytes, complex)):
        return repr(value)[:40]
    try:
        array = np.asarray(value)
    except ValueError:
        return "lists of different lengths"
    if array.ndim and array.dtype.kind == "O":
        return f"{describe_value(next(each for each in array.flat if as_real_numbers(each) is None))} among its values"
    return f"an array of dtype {array.dtype}" if array.ndim else f"an object of type {type(value).__name__}"


def unit_rows(x: np.ndarray) -> np.ndarray:
    """(n, d) rows divided by their lengths; rows of zeros stay zero."""
    x = np.asarray(x, np.float64)
    # A power of two for each row first: squares of numbers beyond 1e154 would overflow.
    x = np.ldexp(x, -np.frexp(np.abs(x).max(axis=1, keepdims=True))[1])
    lengths = np.sqrt(np.sum(x * x, axis=1, keepdims=True))
    return x / np.where(lengths > 0, lengths, 1)


def row_lengths(x: np.ndarray) -> np.ndarray:
    """(n,) lengths of float64 rows, from squares in a unit of each row, so that none over- or underflows."""
    exponents = np.frexp(np.abs(x).max(axis=1))[1]
    return np.ldexp(np.sqrt(np.sum(np.square(np.ldexp(x, -exponents[:, None])), axis=1)), exponents)


def standardized_rows(x: np.ndarray) -> np.ndarray:
    """(n, d) rows of mean 0 and length 1; rows of equal entries become zero."""
    x = np.asarray(x, np.float64)
    x = np.ldexp(x, -np.frexp(np.abs(x).max(axis=1, keepdims=True))[1])
    x = x - x[:, :1]  # so that the mean of equal entries is exact, and the row becomes zero without rounding
    return unit_rows(x - x.mean(axis=1, keepdims=True))


def _accepts_matrices(metric, x):
    """True for a callable that returns (2, 3) distances for 2 and 3 rows, False for a number for two rows."""
    # The shape (2, 3) differs from that of one number, of pairs of rows, and of the transpose.
    rows = x[np.arange(5) % len(x)]
    seen = []
    for arguments, shape in (((rows[:2], rows[2:]), (2, 3)), ((rows[0], rows[-1]), ())):
        try:
            value = metric(*arguments)
        except WRONG_FORM_ERRORS as error:
            seen.append(error)
            continue
        numbers = as_real_numbers(value)
        if numbers is not None and numbers.shape == shape:
            return shape != ()
        seen.append(describe_value(value) if numbers is None else f"shape {numbers.shape}")
    matrices, pair = (each if isinstance(each, str) else repr(each) for each in seen)
    raise ValueError(
        f"metric gave {matrices} for matrices of 2 and 3 rows, and {pair} for two rows. Pass a function of two "
        "matrices of rows, (m, d) and (n, d), that gives (m, n) distances, or of two rows that gives a number."
    ) from next((each for each in seen if isinstance(each, Exception)), None)


def _all_pairs(metric, x, y):
    return [[metric(a, b) for b in y] for a in x]


def _minkowski(x, y, *, p):
    """Minkowski distances; the differences are divided by the largest of each pair, so that no power overflows."""
    largest = cdist(x, y, "chebyshev")
    if p >= LARGEST_POWER:
        return largest
    unit, total = np.where(largest > 0, largest, 1), np.zeros_like(largest)
    with np.errstate(under="ignore"):
        for a, b in zip(x.T, y.T, strict=True):
            total += (np.abs(a[:, None] - b) / unit) ** p
    return unit * total ** (1 / p)


def _euclidean(x, y):
    """Euclidean distances; rows are scaled near 1 by a power of two, so that no square over- or underflows."""
    exponent = -np.frexp(max(np.abs(x).max(), np.abs(y).max()))[1]
    a, b = np.ldexp(x, exponent), np.ldexp(y, exponent)
    distances = cdist(a, b)
    first, second = np.nonzero(distances < LEAST_ROOT)
    # Most are pairs of equal rows; beside a far row the squares of all other pairs underflow.
    if len(first) > len(x) + len(y) or (a[first] != b[second]).any():
        distances = np.where(distances < LEAST_ROOT, _minkowski(a, b, p=2.0), distances)
    with np.errstate(over="ignore"):
        return np.ldexp(distances, -exponent)


def _cosine(x, y):
    return _half_squares(unit_rows(x), unit_rows(y))


def _correlation(x, y):
    return _half_squares(standardized_rows(x), standardized_rows(y))


def _half_squares(x, y):
    """1 − cos of unit rows as ‖a − b‖² / 2, without cancellation for nearly parallel rows; 1 with a row of zeros."""
    zero = ~(x.any(axis=1)[:, None] & y.any(axis=1))
    return np.where(zero, 1, np.minimum(cdist(x, y, "sqeuclidean") / 2, 2))


def _braycurtis(x, y):
    with np.errstate(invalid="ignore", divide="ignore"):
        # 0/0 for two rows of zeros, which are equal.
        return np.nan_to_num(cdist(x, y, "braycurtis"), nan=0.0, posinf=np.inf)


def _jaccard(x, y):
    return cdist(x != 0, y != 0, "jaccard")


def _haversine(x, y):
    latitude, longitude = (x[:, j, None] - y[:, j] for j in (0, 1))
    both = np.cos(x[:, 0])[:, None] * np.cos(y[:, 0])
    half = np.sin(latitude / 2) ** 2 + both * np.sin(longitude / 2) ** 2
    # Rounding may bring the haversine of antipodes above 1.
    return 2 * np.arcsin(np.sqrt(np.minimum(half, 1)))


HOST_METRICS: dict[str, HostDistance] = {
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
"""Distance functions of all metrics but "minkowski", by their plain names."""

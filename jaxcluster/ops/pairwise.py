"""How far rows are from each other, in float64 on the host: what the exact methods measure by.

Rows of a `Space` lie somewhere, and their distance is a function of Σ|difference|^power, so that far ones can be left
out unseen. Of `Pairwise` rows only the distances are known, and they are asked for a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from jaxcluster.core import check
from jaxcluster.core.programs import make_room
from jaxcluster.ops.distance import plain_metric
from jaxcluster.ops.host_distance import checked, host_distance, standardized_rows, unit_rows, wide_rows
from jaxcluster.ops.precomputed import check_symmetry, check_values, distance_matrix

TILE = 1 << 22
"""Distances that are held at a time."""

PLAIN_EXPONENTS = (-30, 40)
"""Sizes from 2⁻³⁰ to 2⁴⁰ are left as they are, so that distances are rounded where scikit-learn rounds them."""

LARGEST_EXPONENT = 1000
"""Coordinates are made no larger than 2¹⁰⁰⁰, and their differences are finite."""

SIZE_ROWS = 1024
"""Rows by which the size of all is told."""

SIZE_DISTANCES = 1 << 16
"""Distances by which the size of all is told, where only distances are known."""

LARGEST_SUMMED_POWER = 8.0
"""Powers of differences of float64 numbers 10³⁰ apart that stay within their range, 10³⁰⁸; infinity is a maximum."""


class Space(NamedTuple):
    """Rows whose distance is (scale · Σ|difference|^power)^root, or the largest difference where power is infinite.

    Attributes:
        x: (n, d) float64 rows; of unit length where only directions count.
        power, scale, root: see above; scale and root are 1 where power is infinite.
    """

    x: np.ndarray
    power: float
    scale: float
    root: float

    @property
    def n(self) -> int:
        """How many rows there are."""
        return len(self.x)

    def distances(self, sums: np.ndarray) -> np.ndarray:
        """Distances of rows from what |difference|^power of them adds up to."""
        scaled = sums if self.scale == 1 else sums * self.scale
        return np.sqrt(scaled) if self.root == 0.5 else scaled**self.root if self.root != 1 else scaled

    def reach(self, distances):
        """What |difference|^power adds up to at a distance, or at each of some; infinite beyond float64."""
        with np.errstate(over="ignore"):
            return np.float64(distances) ** (1 / self.root) / self.scale

    def rows(self, index: np.ndarray) -> np.ndarray:
        """(m, n) distances of some rows from all."""
        return self.distances(power_sums(self.x[index, None], self.x[None], self.power))


class Pairwise(NamedTuple):
    """Rows of which only the distances are known.

    Attributes:
        n: how many rows there are.
        rows: (m,) row numbers -> (m, n) float64 distances from all rows; infinite where there is none.
    """

    n: int
    rows: Callable[[np.ndarray], np.ndarray]


def measure(
    x: Any, metric: str | Callable = "euclidean", *, p: float = 2.0, symmetric: bool = True
) -> Space | Pairwise:
    """Rows and a metric as something to measure by.

    Args:
        x: (n, d) finite concrete rows, or (n, n) distances, dense or SciPy sparse, where the metric is "precomputed".
            What a sparse matrix leaves out is infinitely far, but for a row from itself. Where an entry is absent or
            infinite on one side of a pair, the other side counts for both.
        metric: a name in `jaxcluster.ops.distance.METRICS`, "precomputed", or a function of two matrices of rows,
            (m, d) and (n, d), that gives (m, n) distances, or of two rows that gives a number.
        p: the power of "minkowski", at least 1.
        symmetric: False lets the two entries of a pair differ, with a warning: see
            `jaxcluster.ops.precomputed.distance_matrix`.

    Raises:
        ValueError, TypeError: wrong shapes, names or values; a matrix of distances that is not square, symmetric or
            non-negative, and where; rows that are traced.
    """
    metric = plain_metric(metric, p, also=("precomputed",))
    make_room()
    if metric == "precomputed":
        return _precomputed(x, symmetric)
    x = concrete_rows(x)
    if callable(metric):
        function = host_distance(metric, x)
        return Pairwise(len(x), lambda index: checked(function, x[index], x, index))
    (rows,) = wide_rows(metric, x)
    if metric in ("cosine", "correlation"):
        unit = unit_rows(rows) if metric == "cosine" else standardized_rows(rows)
        # A row of zeros is at distance 1 from every other, which no place in space is.
        return Space(unit, 2.0, 0.5, 1.0) if unit.any(axis=1).all() else _pairwise(metric, rows)
    powers = {"manhattan": 1.0, "minkowski": float(p), "chebyshev": np.inf, "euclidean": 2.0, "sqeuclidean": 2.0}
    power = powers.get(metric)
    if power is None or LARGEST_SUMMED_POWER < power < np.inf:
        return _pairwise(metric, rows, p)
    return Space(rows, power, 1.0, 1.0 if metric == "sqeuclidean" or power == np.inf else 1 / power)


def framed(space: Space | Pairwise) -> tuple[Space | Pairwise, int]:
    """The rows, or their distances, times the power of two that brings most distances near 1, where they are not plain.

    Squares of float64 numbers below 1e-162 are 0, and above 1e154 infinite: of rows in such a unit no row would be
    nearer than another. A power of two changes no digit.

    Returns:
        The space, and the exponent by which its distances are larger than those given.
    """
    if isinstance(space, Pairwise):
        exponent = -_extra_exponent(_some_distances(space))
        rows = space.rows
        return (space._replace(rows=lambda index: np.ldexp(rows(index), exponent)) if exponent else space), exponent
    if space.scale != 1:  # of directions the lengths are 1
        return space, 0
    some = space.x[:: -(-space.n // SIZE_ROWS)]
    with np.errstate(over="ignore"):
        lengths = np.abs(some - np.median(some, axis=0)).max(axis=1)
    exponent = -_extra_exponent(lengths)
    if not exponent:
        return space, 0
    exponent = min(exponent, LARGEST_EXPONENT - int(np.frexp(np.abs(space.x).max())[1]))
    degree = 1 if space.power == np.inf else round(space.power * space.root)
    with np.errstate(under="ignore"):
        return space._replace(x=np.ldexp(space.x, exponent)), degree * exponent


def _some_distances(space):
    """The known distances of a few rows, spread over all."""
    index = np.unique(np.linspace(0, space.n - 1, min(space.n, max(1, SIZE_DISTANCES // space.n)), dtype=np.int64))
    return space.rows(index).ravel()


def _extra_exponent(lengths):
    """The exponent of the median of the lengths that are not 0; 0 where it is plain."""
    lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
    exponent = int(np.frexp(np.median(lengths))[1]) if len(lengths) else 0
    least, most = PLAIN_EXPONENTS
    return 0 if least <= exponent <= most else exponent


def concrete_rows(x: Any, *, name: str = "x") -> np.ndarray:
    """(n, d) finite rows on the host. Raises TypeError where they are traced."""
    if check.is_traced(x):
        raise TypeError(
            f"{name} is traced, and this method takes concrete rows: how many are near each other is known only when "
            "they are, and its labels have no gradient. Call it outside jit, vmap and grad."
        )
    x = np.asarray(check.check_matrix(x, name=name))
    check.check_finite(x, name=name)
    return x


def power_sums(a: np.ndarray, b: np.ndarray, power: float) -> np.ndarray:
    """Σ|a − b|^power over the last axis of two arrays that broadcast, added column by column as a plain loop adds."""
    return _add_up(((a[..., column], b[..., column]) for column in range(a.shape[-1])), power)


def sums_of_pairs(a: np.ndarray, b: np.ndarray, first: np.ndarray, second: np.ndarray, power: float) -> np.ndarray:
    """(m,) the same of pairs of rows of (d, n) and (d, m) columns, without a copy of the rows."""
    return _add_up(((x[first], y[second]) for x, y in zip(a, b, strict=True)), power)


def _add_up(columns, power):
    total = 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        for a, b in columns:
            difference = a - b
            if power == np.inf:
                total = np.maximum(total, np.abs(difference))
            else:
                total += difference * difference if power == 2 else np.abs(difference) ** power
    return total


def tiles(n: int, others: int | None = None) -> list[np.ndarray]:
    """The numbers of n rows in groups whose distances from all rows, or so many others, may be held at a time."""
    step = max(1, TILE // (n if others is None else others))
    return [np.arange(start, min(start + step, n)) for start in range(0, n, step)]


def _pairwise(metric, rows, p=2.0):
    function = host_distance(metric, rows, p=p)

    def distances(index):
        some = function(rows[index], rows)
        some[np.arange(len(index)), index] = 0
        return some

    return Pairwise(len(rows), distances)


def _precomputed(matrix, symmetric):
    if check.is_traced(matrix):
        concrete_rows(matrix)
    matrix = distance_matrix(matrix, symmetric=symmetric)
    sparse = scipy.sparse.issparse(matrix)
    return Pairwise(matrix.shape[0], _sparse_rows(matrix) if sparse else lambda index: matrix[index].astype(np.float64))


def check_distances(matrix: Any, *, name: str = "distances") -> Any:
    """A square matrix, dense or CSR, of symmetric entries >= 0. Raises ValueError that says where it is not."""
    check_values(matrix, name=name)
    check_symmetry(matrix, name=name)
    return matrix


def _sparse_rows(matrix):
    def distances(index):
        part = scipy.sparse.coo_array(matrix[index])
        out = np.full(part.shape, np.inf)
        out[np.arange(len(index)), index] = 0
        out[part.row, part.col] = part.data
        return out

    return distances

"""How far rows are from each other, in float64 on the host: what the exact methods measure by.

Rows of a `Space` lie somewhere, and their distance is a function of Σ|difference|^power, so that far ones can be left
out unseen. Of `Pairwise` rows only the distances are known, and they are asked for a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from jaxcluster.core import check
from jaxcluster.ops.distance import METRICS, metric_function

SYMMETRY = 1e-6
"""Relative difference of two entries of a matrix of distances that are taken for the same distance."""

TILE = 1 << 24
"""Distances that are held at a time."""


class Space(NamedTuple):
    """Rows whose distance is (scale · Σ|difference|^power)^root.

    Attributes:
        x: (n, d) float64 rows; of unit length where only directions count.
        power, scale, root: see above.
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
        """What |difference|^power adds up to at a distance, or at each of some."""
        return distances ** (1 / self.root) / self.scale

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


def measure(x: Any, metric: str | Callable = "euclidean", *, p: float = 2.0) -> Space | Pairwise:
    """Rows and a metric as something to measure by.

    Args:
        x: (n, d) finite concrete rows, or (n, n) distances, dense or SciPy sparse, where the metric is "precomputed".
            What a sparse matrix leaves out is infinitely far, but for a row from itself.
        metric: a name in `jaxcluster.ops.distance.METRICS`, "precomputed", or a function of two matrices of rows,
            (m, d) and (n, d), that gives (m, n) distances.
        p: the power of "minkowski", at least 1.

    Raises:
        ValueError, TypeError: wrong shapes, names or values; a matrix of distances that is not square, symmetric or
            non-negative, and where; rows that are traced.
    """
    if not callable(metric):
        check.check_choice("metric", metric, [*METRICS, "precomputed"])
    if metric == "precomputed":
        return _precomputed(x)
    x = concrete_rows(x)
    if callable(metric):
        return Pairwise(len(x), partial(_measured, metric, x))
    metric_function(metric, p=p)  # looks at p
    rows = x.astype(np.float64)
    if metric == "cosine":
        return _directions(rows)
    power = {"manhattan": 1.0, "minkowski": float(p)}.get(metric, 2.0)
    return Space(rows, power, 1.0, 1.0 if metric == "sqeuclidean" else 1 / power)


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
            total += difference * difference if power == 2 else np.abs(difference) ** power
    return total


def tiles(n: int, others: int | None = None) -> list[np.ndarray]:
    """The numbers of n rows in groups whose distances from all rows, or so many others, may be held at a time."""
    step = max(1, TILE // (n if others is None else others))
    return [np.arange(start, min(start + step, n)) for start in range(0, n, step)]


def _measured(metric, x, index):
    """What a function makes of some rows and all."""
    distances = np.asarray(metric(x[index], x), float)
    if distances.shape != (len(index), len(x)):
        raise ValueError(
            f"metric gave shape {distances.shape} for matrices of {len(index)} and {len(x)} rows; ({len(index)}, "
            f"{len(x)}) distances are wanted, of every row of the first from every row of the second."
        )
    wrong = ~(distances >= 0)
    if wrong.any():
        i, j = np.argwhere(wrong)[0]
        raise ValueError(f"metric gave {distances[i, j]} for rows {index[i]} and {j}: a distance is a number >= 0.")
    return distances


def _directions(rows):
    lengths = np.sqrt(np.sum(rows * rows, axis=1))
    if lengths.all():
        return Space(rows / lengths[:, None], 2.0, 0.5, 1.0)
    # A row of zeros is at distance 1 from every other, which no place in space is.
    unit = rows / np.where(lengths > 0, lengths, 1)[:, None]

    def distances(index):
        away = np.clip(1 - unit[index] @ unit.T, 0, 2)
        away[np.arange(len(index)), index] = 0
        return away

    return Pairwise(len(rows), distances)


def _precomputed(matrix):
    if check.is_traced(matrix):
        concrete_rows(matrix)
    sparse = scipy.sparse.issparse(matrix)
    matrix = scipy.sparse.csr_array(matrix) if sparse else np.asarray(check.check_matrix(matrix))
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"metric='precomputed' needs a square matrix of distances, got shape {matrix.shape}.")
    n = matrix.shape[0]
    if sparse:
        return Pairwise(n, _sparse_rows(check_distances(matrix)))
    check_distances(matrix)
    return Pairwise(n, lambda index: matrix[index].astype(np.float64))


def check_distances(matrix: Any, *, name: str = "distances") -> Any:
    """A square matrix, dense or CSR, of symmetric entries >= 0. Raises ValueError that says where it is not."""
    values = matrix.data if scipy.sparse.issparse(matrix) else matrix
    if np.isnan(values).any():
        raise ValueError(f"{name} hold {int(np.isnan(values).sum())} NaN. A distance that is not known is infinite.")
    if (values < 0).any():
        i, j = _first(matrix, lambda part: part < 0)
        raise ValueError(f"{name} must not be negative: entry ({i}, {j}) is {matrix[i, j]}.")
    if scipy.sparse.issparse(matrix):
        apart = scipy.sparse.csr_array(abs(matrix - matrix.T))
        bound = scipy.sparse.csr_array(SYMMETRY * abs(matrix))
        uneven = scipy.sparse.coo_array(apart > bound)
        if uneven.nnz:
            _refuse_uneven(matrix, int(uneven.row[0]), int(uneven.col[0]), name)
        return matrix
    for index in tiles(len(matrix)):
        part, mirror = matrix[index], matrix[:, index].T
        with np.errstate(invalid="ignore"):
            uneven = ~(np.abs(part - mirror) <= SYMMETRY * np.abs(part)) & (part != mirror)
        if uneven.any():
            i, j = np.argwhere(uneven)[0]
            _refuse_uneven(matrix, int(index[i]), int(j), name)
    return matrix


def _refuse_uneven(matrix, i, j, name):
    raise ValueError(
        f"{name} must be symmetric: entry ({i}, {j}) is {matrix[i, j]}, entry ({j}, {i}) is {matrix[j, i]}. "
        "Pass (D + D.T) / 2 if that is what is meant."
    )


def _first(matrix, wrong):
    if scipy.sparse.issparse(matrix):
        entries = matrix.tocoo()
        at = np.flatnonzero(wrong(entries.data))[0]
        return int(entries.row[at]), int(entries.col[at])
    return tuple(map(int, np.argwhere(wrong(matrix))[0]))


def _sparse_rows(matrix):
    def distances(index):
        part = scipy.sparse.coo_array(matrix[index])
        out = np.full(part.shape, np.inf)
        out[np.arange(len(index)), index] = 0
        out[part.row, part.col] = part.data
        return out

    return distances

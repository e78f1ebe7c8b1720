"""Parts of profiles and reports that differ for sparse rows: columns are chosen before any cell is made dense.

>>> import scipy.sparse
>>> x = scipy.sparse.csr_array([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
>>> [each.column for each in sparse_columns(x, ["goal", "bread"], np.array([0, 0, 1])).terms[0]]
['goal']
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from jaxcluster.core.sparse_input import as_csr, unit_sparse_rows

MOST_TERMS = 10
"""Columns with the greatest means that are named for a cluster."""

MOST_TELLING = 200
"""Columns that clusters are told apart by, of which all cells are made dense."""

MOST_CELLS, MOST_DIRECTIONS = 1 << 23, 50
"""Cells up to which sparse rows are drawn as they are, and the leading directions in which more are drawn."""


class Term(NamedTuple):
    """A column of sparse rows, such as the term of a text, with its mean in a cluster."""

    column: str
    mean: float


class SparseColumns(NamedTuple):
    """The columns by which the clusters of sparse rows are described.

    Attributes:
        numbers: (n_samples,) cells by name, of columns in which clusters differ most.
        terms: for each cluster the columns with the greatest means.
    """

    numbers: dict[str, np.ndarray]
    terms: list[list[Term]]


def sparse_columns(x: Any, names: Sequence[str] | None, labels: np.ndarray, each: int = MOST_TERMS) -> SparseColumns:
    """Choose the columns that describe the clusters of sparse rows.

    Args:
        x: (n_samples, n_features) sparse matrix.
        names: of its columns; their numbers by default.
        labels: (n_samples,) clusters, negative for noise.
        each: columns that are chosen for each cluster by the greatest standardized difference.
    """
    x = as_csr(x, name="X").astype(np.float64)
    (n, d), clusters = x.shape, np.unique(labels[labels >= 0])
    names = [f"column {j}" for j in range(d)] if names is None else list(map(str, names))
    total, squares = np.asarray(x.sum(axis=0)).ravel(), np.asarray(x.power(2).sum(axis=0)).ravel()
    # Cells of sparse rows are 0 for the most part: no common offset that the squares would drown in.
    deviation = np.sqrt(np.maximum(squares / n - (total / n) ** 2, 0))
    deviation = np.where(deviation > 1e-12 * np.sqrt(squares / n), deviation, 0)
    chosen: list[int] = []
    terms = []
    most = max(1, min(each, MOST_TELLING // len(clusters)))
    for cluster in clusters:
        inside = labels == cluster
        sums = np.asarray(x[inside].sum(axis=0)).ravel()
        mean = sums / inside.sum()
        rest = (total - sums) / max(1, n - int(inside.sum()))
        difference = np.where(deviation > 0, np.abs(mean - rest) / np.where(deviation > 0, deviation, 1), 0)
        chosen += [int(j) for j in np.argsort(-difference, kind="stable")[:most] if difference[j] > 0]
        terms.append([Term(names[j], float(mean[j])) for j in np.argsort(-mean, kind="stable")[:each] if mean[j] > 0])
    columns = sorted(set(chosen))
    cells = x[:, columns].toarray() if columns else np.zeros((n, 0))
    titles = [f"{names[j]} ({j})" if names.count(names[j]) > 1 else names[j] for j in columns]
    return SparseColumns(dict(zip(titles, cells.T, strict=True)), terms)


def sparse_distances(x: Any, labels: np.ndarray, *, cosine: bool) -> np.ndarray:
    """(n_samples,) Euclidean distance of sparse rows to the mean of their cluster; NaN for noise.

    Args:
        x: (n_samples, n_features) sparse matrix.
        labels: (n_samples,) clusters, negative for noise.
        cosine: of rows divided by their lengths.
    """
    x = as_csr(x, name="X").astype(np.float64)
    x = unit_sparse_rows(x) if cosine else x
    distances = np.full(len(labels), np.nan)
    for cluster in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == cluster)
        own = x[rows]
        mean = np.asarray(own.mean(axis=0)).ravel()
        squares = np.asarray(own.power(2).sum(axis=1)).ravel() - 2 * (own @ mean) + mean @ mean
        distances[rows] = np.sqrt(np.maximum(squares, 0))
    return distances


class Drawable(NamedTuple):
    """Sparse rows as a report draws them.

    Attributes:
        x: (n_samples, n_columns) dense.
        basis: (n_features, n_columns) directions that they were projected on; None for the rows as they are.
    """

    x: np.ndarray
    basis: np.ndarray | None


def drawable(x: Any) -> Drawable:
    """Sparse rows as dense ones: as they are if they are few cells, else in their leading singular directions."""
    n, d = x.shape
    if n * d <= MOST_CELLS or d <= MOST_DIRECTIONS:
        return Drawable(as_csr(x, name="X").toarray(), None)
    from sklearn.utils.extmath import randomized_svd

    count = min(MOST_DIRECTIONS, n - 1)
    _, _, directions = randomized_svd(scipy.sparse.csr_matrix(x, dtype=np.float64), count, random_state=0)
    return Drawable(x @ directions.T, directions.T)

"""Distances between sparse rows in float64 on the host, from products of CSR blocks; rows are never made dense.

‖x − y‖² = ‖x‖² − 2x·y + ‖y‖² cancels for near rows. Pairs for which it is rounded by more than `RELATIVE_ERROR` of
itself are computed again from the differences of their entries.

>>> import numpy as np, scipy.sparse
>>> rows = scipy.sparse.csr_array(np.array([[3.0, 0.0, 0.0], [0.0, 0.0, 4.0]]))
>>> distances_to_all(rows, "euclidean")(np.array([0])).tolist()
[[0.0, 5.0]]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse

from jaxcluster.core import validation
from jaxcluster.core.sparse_input import as_csr, check_values, shape_of

METRICS = ("euclidean", "sqeuclidean", "cosine")
"""Metrics of sparse rows, by their plain names."""

RELATIVE_ERROR = 1e-9
"""Rounding error of a squared distance, relative to the distance, above which it is computed from differences."""

PAIRS = 1 << 12
"""Pairs whose differences are held at once."""

DENSE_ELEMENTS = 1 << 20
"""Coordinates of rows that are made dense at once for differences: 8 MB."""


def distances_to_all(x: Any, metric: str | Callable) -> Callable[[np.ndarray], np.ndarray]:
    """Function from (m,) row numbers to their (m, n) float64 distances to all rows, 0 to themselves.

    Args:
        x: (n, d) finite sparse rows in any format.
        metric: "euclidean", "sqeuclidean" or "cosine".

    Raises:
        ValueError, TypeError: entries that are not finite; another metric.
    """
    if metric not in METRICS:
        raise TypeError(
            f"x is sparse, and metric={metric!r} takes dense rows: for sparse ones choose {', '.join(METRICS)}. "
            f"{validation.dense_remedy(x, 'x')}"
        )
    x = as_csr(x)
    check_values(x)
    unit, exponent = _scaled(x, rows=metric == "cosine")
    norms = _squared_norms(unit)
    if metric == "cosine":
        # Of unit rows 1 − cos is half the squared distance, which keeps the digits of small angles.
        lengths = np.sqrt(norms)
        unit = scipy.sparse.csr_array(scipy.sparse.diags_array(1 / np.where(lengths > 0, lengths, 1)) @ unit)
        norms = (norms > 0).astype(np.float64)
    columns = scipy.sparse.csr_array(unit.T)

    def rows(index: np.ndarray) -> np.ndarray:
        squares = _squares(unit, columns, norms, index)
        if metric == "cosine":
            zero = (norms[index] == 0)[:, None] | (norms == 0)
            squares = np.where(zero, 1, np.minimum(squares / 2, 2))
        squares[np.arange(len(index)), index] = 0
        with np.errstate(over="ignore", under="ignore"):
            if metric == "euclidean":
                return np.ldexp(np.sqrt(squares), -exponent)
            return np.ldexp(squares, -2 * exponent)

    return rows


def means_and_squares(x: Any, codes: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of clusters, and squared distances of rows to the mean of their cluster, in one power of two of the unit.

    Args:
        x: (n, d) finite sparse rows in any format.
        codes: (n,) cluster of each row.
        counts: (k,) rows of each cluster.

    Returns:
        (k, d) and (n,) float64.
    """
    x = as_csr(x)
    check_values(x, name="X")
    x, _ = _scaled(x, rows=False)
    n, d = shape_of(x)
    member = scipy.sparse.csr_array((np.ones(n), (codes, np.arange(n))), shape=(len(counts), n))
    means = (member @ x).toarray() / counts[:, None]
    # Stored entries by differences; the entries of the mean at other columns are absent from the row.
    rows = np.repeat(np.arange(n), np.diff(x.indptr))
    at = means[codes[rows], x.indices]
    near, stored = (np.bincount(rows, np.square(each), n) for each in (x.data - at, at))
    whole = np.sum(np.square(means), axis=1)[codes]
    squares = near + np.maximum(whole - stored, 0)
    rounded = np.flatnonzero(8 * np.finfo(np.float64).eps * whole > RELATIVE_ERROR * squares)
    step = max(1, DENSE_ELEMENTS // d)
    for some in (rounded[start : start + step] for start in range(0, len(rounded), step)):
        squares[some] = np.sum(np.square(x[some].toarray() - means[codes[some]]), axis=1)
    return means, squares


def _scaled(x, rows):
    """Rows in float64 times a power of two, so that no square over- or underflows; and its exponent, 0 if by row."""
    values = x.data.astype(np.float64)
    if not rows:
        exponent = -int(np.frexp(np.abs(values).max(initial=0))[1])
        return scipy.sparse.csr_array((np.ldexp(values, exponent), x.indices, x.indptr), x.shape), exponent
    # By row: a cosine does not depend on the lengths, which may differ by any factor.
    largest = abs(x.astype(np.float64)).max(axis=1).toarray().ravel()
    values = np.ldexp(values, np.repeat(-np.frexp(largest)[1], np.diff(x.indptr)))
    return scipy.sparse.csr_array((values, x.indices, x.indptr), x.shape), 0


def _squared_norms(x):
    return np.asarray(x.multiply(x).sum(axis=1)).ravel()


def _squares(x, columns, norms, index):
    products = (x[index] @ columns).toarray()
    total = norms[index, None] + norms
    squares = np.maximum(total - 2 * products, 0)
    # Terms of a product and of a norm are each rounded by eps of their sum, which the norms bound.
    near = 8 * np.finfo(np.float64).eps * total > RELATIVE_ERROR * squares
    near[np.arange(len(index)), index] = False
    first, second = np.nonzero(near)
    for start in range(0, len(first), PAIRS):
        a, b = first[start : start + PAIRS], second[start : start + PAIRS]
        squares[a, b] = _squared_norms(x[index[a]] - x[b])
    return squares

"""Precomputed distances, dense or sparse: checks of values and symmetry, and completion of one-sided entries.

A k-nearest-neighbor graph holds a pair once if only one of the two rows is a neighbor of the other. An entry that is
missing from a sparse matrix, or infinite in a dense one, is unknown: the entry of the other side counts for both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from jaxcluster.core import validation
from jaxcluster.core.messages import warn

MAX_ASYMMETRY = 1e-6
"""Largest relative difference of the two entries of a pair that counts as rounding."""

TILE = 1 << 22
"""Number of entries of one tile: 32 MB in float64."""


def distance_matrix(matrix: Any, *, symmetric: bool = True) -> Any:
    """Square matrix of distances as a NumPy array or as float64 CSR, with one-sided entries on both sides.

    Args:
        matrix: (n_samples, n_samples) concrete distances, dense or SciPy sparse. It is not changed.
        symmetric: False lets the two finite entries of a pair differ, with a warning.

    Raises:
        ValueError, TypeError: entries that are not numbers, negative or NaN; a matrix that is not square, or not
            symmetric if it has to be, with the first such entry.

    Warns:
        UserWarning: the two entries of a pair differ; the message names the pair.
    """
    if scipy.sparse.issparse(matrix):
        if matrix.dtype.kind not in "fiub":
            raise TypeError(f"distances must be real numbers, got dtype {matrix.dtype}.")
        matrix = scipy.sparse.csr_array(matrix).astype(np.float64)
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            # On a copy: the caller's matrix keeps its entries.
            matrix.sum_duplicates()
    else:
        matrix = np.asarray(validation.check_matrix(matrix))
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"metric='precomputed' needs a square matrix of distances, got shape {matrix.shape}.")
    check_values(matrix)
    matrix = two_sided(matrix)
    if symmetric:
        check_symmetry(matrix)
    elif (pair := uneven_pair(matrix)) is not None:
        warn(
            f"distances are not {_entries(matrix, *pair)}. The distances from a row are read from its own row.",
            UserWarning,
        )
    return matrix


def check_distances(matrix: Any, *, name: str = "distances") -> Any:
    """The square matrix, dense or CSR; raises ValueError that names an entry that is negative or not symmetric."""
    check_values(matrix, name=name)
    check_symmetry(matrix, name=name)
    return matrix


def check_values(matrix: Any, *, name: str = "distances") -> None:
    """Raises ValueError where entries of a dense or CSR matrix are NaN or negative."""
    values = matrix.data if scipy.sparse.issparse(matrix) else matrix
    if np.isnan(values).any():
        raise ValueError(f"{name} hold {int(np.isnan(values).sum())} NaN. Pass infinity for an unknown distance.")
    if (values < 0).any():
        i, j = _first_negative(matrix)
        raise ValueError(f"{name} must not be negative: entry ({i}, {j}) is {matrix[i, j]}.")


def check_symmetry(matrix: Any, *, name: str = "distances") -> None:
    """Raises ValueError that names a pair whose two entries differ by more than rounding."""
    pair = uneven_pair(matrix)
    if pair is not None:
        raise ValueError(f"{name} must be {_entries(matrix, *pair)}. Pass (D + D.T) / 2 if that is what is meant.")


def uneven_pair(matrix: Any) -> tuple[int, int] | None:
    """First pair whose two entries in a square matrix, dense or CSR, differ by more than rounding.

    Returns:
        Row and column of the entry; None for a symmetric matrix.
    """
    if scipy.sparse.issparse(matrix):
        with np.errstate(invalid="ignore"):
            uneven = scipy.sparse.coo_array(abs(matrix - matrix.T) > MAX_ASYMMETRY * abs(matrix))
        return (int(uneven.coords[0][0]), int(uneven.coords[1][0])) if uneven.nnz else None
    for index in _tiles(len(matrix)):
        part, mirror = matrix[index], matrix[:, index].T
        with np.errstate(invalid="ignore"):
            # ∞ − ∞ is NaN: two infinite entries are equal by the second comparison.
            uneven = ~(np.abs(part - mirror) <= MAX_ASYMMETRY * np.abs(part)) & (part != mirror)
        if uneven.any():
            i, j = np.argwhere(uneven)[0]
            return int(index[i]), int(j)
    return None


def _entries(matrix, i, j):
    return f"symmetric: entry ({i}, {j}) is {matrix[i, j]}, entry ({j}, {i}) is {matrix[j, i]}"


def two_sided(matrix: Any) -> Any:
    """The matrix with one-sided entries copied to the other side; the same object if there is none."""
    if not scipy.sparse.issparse(matrix):
        mirror = matrix.T
        if not any(_one_sided(matrix[index], mirror[index]).any() for index in _tiles(len(matrix))):
            return matrix
        return np.where(_one_sided(matrix, mirror), mirror, matrix)
    if np.isinf(matrix.data).any():  # an infinite entry means the same as a missing one
        entries = scipy.sparse.coo_array(matrix)
        finite = ~np.isinf(entries.data)
        index = tuple(axis[finite] for axis in entries.coords)
        matrix = scipy.sparse.csr_array((entries.data[finite], index), shape=matrix.shape)
    # The pattern of stored entries, not of nonzero ones: a stored 0 is the distance of two equal rows.
    stored = scipy.sparse.csr_array((np.ones(matrix.nnz, np.int8), matrix.indices, matrix.indptr), shape=matrix.shape)
    absent = scipy.sparse.coo_array(scipy.sparse.csr_array(stored.T) > stored)
    if not absent.nnz:
        return matrix
    entries = scipy.sparse.coo_array(matrix)
    row, column = (np.concatenate(pair) for pair in zip(entries.coords, absent.coords, strict=True))
    values = np.concatenate([entries.data, np.asarray(matrix[absent.coords[1], absent.coords[0]]).ravel()])
    return scipy.sparse.csr_array((values, (row, column)), shape=matrix.shape)


def _one_sided(part, mirror):
    return np.isinf(part) & ~np.isinf(mirror)


def _tiles(n):
    step = max(1, TILE // n)
    return [np.arange(start, min(start + step, n)) for start in range(0, n, step)]


def _first_negative(matrix):
    if scipy.sparse.issparse(matrix):
        entries = scipy.sparse.coo_array(matrix)
        at = np.flatnonzero(entries.data < 0)[0]
        return int(entries.coords[0][at]), int(entries.coords[1][at])
    return tuple(map(int, np.argwhere(matrix < 0)[0]))


def matrix_rows(matrix: Any, index: np.ndarray) -> np.ndarray:
    """(m, n) float64 rows of a dense or CSR matrix; missing entries are infinite, and 0 on the diagonal."""
    if not scipy.sparse.issparse(matrix):
        return matrix[index].astype(np.float64)
    part = scipy.sparse.coo_array(matrix[index])
    out = np.full((len(index), matrix.shape[1]), np.inf)
    # Before the entries: a stored one on the diagonal wins.
    out[np.arange(len(index)), index] = 0
    out[part.row, part.col] = part.data
    return out

"""Sparse rows of tests, and the formats that they may come in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from jax.experimental import sparse as jax_sparse

from jaxcluster.core.sparse_input import sparse_rows


def topics(n: int = 200, d: int = 120, k: int = 4, seed: int = 0) -> np.ndarray:
    """(n, d) float32 rows of k topics, as a dense matrix, and one row of zeros."""
    rng = np.random.default_rng(seed)
    pure = rng.uniform(0.5, 1.5, (k, d)) * (rng.random((k, d)) < 0.15)
    x = pure[rng.integers(0, k, n)] * (rng.random((n, d)) < 0.8) * rng.uniform(0.8, 1.2, (n, d))
    x[3] = 0
    return x.astype(np.float32)


def with_twins(x: np.ndarray) -> scipy.sparse.coo_array:
    """COO matrix in which each entry is stored in two halves, in no order, beside stored zeros."""
    entries = scipy.sparse.coo_array(x)
    row, column = (np.concatenate([index, index, index[:7]]) for index in entries.coords)
    value = np.concatenate([entries.data / 2, entries.data / 2, 0 * entries.data[:7]])
    order = np.random.default_rng(1).permutation(len(value))
    return scipy.sparse.coo_array((value[order], (row[order], column[order])), shape=x.shape)


def unsorted(x: np.ndarray) -> scipy.sparse.csr_array:
    """CSR matrix whose columns are in falling order in each row."""
    matrix = scipy.sparse.csr_array(x)
    parts = [slice(*ends) for ends in np.column_stack([matrix.indptr[:-1], matrix.indptr[1:]])]
    order = np.concatenate([np.arange(matrix.nnz)[part][::-1] for part in parts])
    return scipy.sparse.csr_array((matrix.data[order], matrix.indices[order], matrix.indptr), shape=x.shape)


def long_indices(x: np.ndarray) -> scipy.sparse.csr_array:
    """CSR matrix with indices of 64 bits."""
    matrix = scipy.sparse.csr_array(x)
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
    return matrix


FORMATS: dict[str, Callable[[np.ndarray], Any]] = {
    **{f"{kind}_array": getattr(scipy.sparse, f"{kind}_array") for kind in ("csr", "csc", "coo", "lil", "dok", "bsr")},
    "csr_matrix": scipy.sparse.csr_matrix,
    "int64 indices": long_indices,
    "twins": with_twins,
    "unsorted": unsorted,
    "BCOO": lambda x: jax_sparse.BCOO.fromdense(x, nse=np.count_nonzero(x) + 3),
    "BCSR": jax_sparse.BCSR.fromdense,
    "SparseRows": sparse_rows,
}
"""Functions that put a dense matrix into each format, with entries equal to the last bit."""

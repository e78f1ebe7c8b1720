"""Sparse matrices of the caller: their check and canonical form on the host, and their layout for the device."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import scipy.sparse

from jaxcluster.core import memory, validation
from jaxcluster.core.dtypes import float_dtype
from jaxcluster.core.sparse_rows import TAIL_WIDTH, SparseRows, is_sparse

ENTRY_GROUP = 8
"""Entries of a row that a product adds up in one pass: the width of the rectangle is a multiple of it."""

TAIL_COST = 3
"""Time of an entry in the tail, in multiples of that of one in the rectangle (measured on a CPU: 2 to 4)."""

SMALL_ENTRIES = 1 << 18
"""Entries of a rectangle that is as wide as the longest row, up to which there is no tail: the loops over a tail take
half of the time in which k-means compiles, and so few entries a millisecond or two in a step."""

LARGEST_INDEX = 2**31 - 1
"""Most columns: column numbers are 32-bit integers on the device."""


def sparse_rows(x: Any) -> SparseRows:
    """Rows of a concrete matrix, sparse or dense, in the layout of kernels: for calls inside jit, vmap and scan.

    Args:
        x: (n_samples, n_features), SciPy sparse of any format, JAX's BCOO or BCSR, or dense.

    Returns:
        `SparseRows` of float32 values, or float64 where JAX allows it and x has them.

    Raises:
        ValueError, TypeError: as for dense rows.
    """
    matrix = as_csr(x if is_sparse(x) else scipy.sparse.csr_array(np.asarray(validation.check_matrix(x))))
    check_values(matrix)
    return jax.device_put(pack(matrix, matrix.data.astype(float_dtype(matrix.dtype)), shape_of(matrix)[0]))


def as_csr(x: Any, *, name: str = "x") -> scipy.sparse.csr_array:
    """Canonical CSR matrix of a concrete sparse one: sorted columns, duplicates summed, no stored zeros.

    ``x`` is not changed. Integers become 64 bits wide and half precision 32 before entries are summed.

    Raises:
        ValueError, TypeError: another shape than rows by columns, or no real numbers.
    """
    if validation.is_traced(x):
        raise TypeError(
            f"{name} is a traced sparse matrix, of which the longest row is not known. Make SparseRows of it before: "
            "jaxcluster.sparse_rows(x), which can be passed to a jitted or vmapped function."
        )
    x = _as_scipy(x)
    if x.ndim != 2:
        raise ValueError(f"{name} must be 2-D (rows, columns), got shape {x.shape}.")
    if 0 in x.shape:
        short = "rows" if x.shape[0] == 0 else "columns"
        raise ValueError(f"{name} has no {short} (shape {x.shape}); at least 1 is needed.")
    if x.shape[1] > LARGEST_INDEX:
        raise ValueError(
            f"{name} has {x.shape[1]:,} columns; at most {LARGEST_INDEX:,} are possible. Hash them to fewer."
        )
    # Before the conversion, which sums entries of one place in their own dtype. SciPy has no arithmetic in float16.
    wide = {"i": np.int64, "u": np.uint64}.get(x.dtype.kind, np.float32 if x.dtype == np.float16 else None)
    matrix = scipy.sparse.csr_array(x if wide is None else x.astype(wide))
    data = validation.check_numeric(matrix.data, name=name)
    if not (data is matrix.data and matrix.has_canonical_format and data.all()):
        matrix = scipy.sparse.csr_array((data.copy(), matrix.indices.copy(), matrix.indptr.copy()), matrix.shape)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
    return matrix


def check_rows(x: Any, *, name: str = "x") -> Any:
    """Check of samples of either kind: a dense matrix, a canonical CSR matrix, or traced `SparseRows`."""
    if not is_sparse(x):
        return validation.check_matrix(x, name=name)
    return x if isinstance(x, SparseRows) and validation.is_traced(x) else as_csr(x, name=name)


def check_sparse_samples(x: Any, k: Any, axis_name: str | None = None, mesh: Any = None) -> tuple[Any, int]:
    """`validation.check_samples` for methods that take samples of either kind, dense or sparse.

    Returns:
        ``x`` as `check_rows` has it, and ``k`` as an int.
    """
    if not is_sparse(x):
        return validation.check_samples(x, k, axis_name, mesh)
    if axis_name is not None:
        raise TypeError(
            "x is sparse, and sparse rows are not spread over devices. Fit them on one, or pass dense rows. "
            f"{validation.dense_remedy(x, 'x')}"
        )
    x = check_rows(x)
    k = validation.check_clusters(k, x.shape[0])
    memory.check_centers(k, x.shape[1], float_dtype(x.dtype))
    return x, k


def _as_scipy(x):
    """SciPy's form of a sparse matrix of JAX; padding of BCOO and BCSR, at indices out of range, is dropped."""
    if isinstance(x, SparseRows):
        return _unpack(x)
    if scipy.sparse.issparse(x):
        return x
    if getattr(x, "n_batch", 0) or getattr(x, "n_dense", 0) or x.ndim != 2:
        raise ValueError(f"x of shape {x.shape} has batch or dense dimensions. Pass a matrix of rows by columns.")
    entries = x.to_bcoo() if hasattr(x, "to_bcoo") else x
    data, index = np.asarray(entries.data), np.asarray(entries.indices)
    inside = (index < np.array(x.shape)).all(axis=1)
    return scipy.sparse.coo_array((data[inside], tuple(index[inside].T)), shape=x.shape)


def check_values(matrix: scipy.sparse.csr_array, *, name: str = "x") -> None:
    """Raise ValueError for NaN or infinite entries, with their columns."""
    if matrix.dtype.kind != "f" or np.isfinite(matrix.data).all():
        return
    bad = ~np.isfinite(matrix.data)
    columns = np.unique(matrix.indices[bad]).tolist()
    infinite = int(np.isinf(matrix.data).sum())
    counts = [
        f"{count} {kind}" for count, kind in ((int(bad.sum()) - infinite, "NaN"), (infinite, "infinity")) if count
    ]
    listed = ", ".join(map(str, columns[:8])) + (" …" if len(columns) > 8 else "")
    raise ValueError(
        f"{name} contains {' and '.join(counts)} values in column{'s' if len(columns) > 1 else ''} {listed}. Drop or "
        "impute those rows first: a sparse matrix has no missing values, an absent entry is 0."
    )


def unit_sparse_rows(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Rows divided by their lengths, in float64; rows of zeros stay zero."""
    lengths = np.diff(matrix.indptr)
    row = np.repeat(np.arange(len(lengths)), lengths)
    data = np.asarray(matrix.data, np.float64)
    # A power of two for each row first: squares of numbers beyond 1e154 would overflow.
    largest = np.zeros(len(lengths))
    np.maximum.at(largest, row, np.abs(data))
    data = np.ldexp(data, -np.frexp(largest)[1][row])
    norms = np.sqrt(np.bincount(row, data * data, minlength=len(lengths)))
    return scipy.sparse.csr_array((data / norms[row], matrix.indices, matrix.indptr), shape=matrix.shape)


def shape_of(matrix: Any) -> tuple[int, int]:
    """Shape of a SciPy matrix, whose stubs say that it may be None.

    Returns:
        The numbers of rows and of columns.
    """
    return matrix.shape


def pack(
    matrix: scipy.sparse.csr_array, values: np.ndarray, rows: int, tail: Any = lambda pieces: pieces
) -> SparseRows:
    """Layout of a canonical matrix for the device, in NumPy.

    Args:
        matrix: (n, d).
        values: of its entries, in the dtype of the computation.
        rows: number of rows with padding, at least n.
        tail: number of pieces -> number with padding.
    """
    (_, d), lengths = shape_of(matrix), np.diff(matrix.indptr)
    width = _width(lengths)
    pieces = -(-np.maximum(lengths - width, 0) // TAIL_WIDTH)
    total = int(pieces.sum())
    padded = tail(total) if total else 0
    memory.check(12 * (rows * width + padded * TAIL_WIDTH), f"{rows:,} sparse rows in their layout", "Pass fewer rows.")
    starts, counts = np.zeros((2, rows), np.int32)
    counts[: len(pieces)], starts[: len(pieces)] = pieces, np.cumsum(pieces) - pieces
    within = np.arange(width) < lengths[:, None]
    if not total:
        columns, entries = (_filled(each, within, rows) for each in (matrix.indices.astype(np.int32), values))
        return SparseRows(columns, entries, starts, counts, *_no_tail(values.dtype), n_columns=d)
    place = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], lengths)
    head = place < width
    last = np.repeat(lengths[pieces > 0] - width, pieces[pieces > 0])  # entries of the row in the tail
    number = np.arange(total) - np.repeat(starts[: len(pieces)], pieces)
    in_piece = np.arange(TAIL_WIDTH) < (last - TAIL_WIDTH * number)[:, None]
    tables = matrix.indices.astype(np.int32), values
    columns, entries = (_filled(each[head], within, rows) for each in tables)
    tail_columns, tail_values = (_filled(each[~head], in_piece, padded) for each in tables)
    return SparseRows(columns, entries, starts, counts, tail_columns, tail_values, n_columns=d)


def _filled(entries, within, rows):
    """(rows, width) table of zeros, ``entries`` at the places of the mask ``within``."""
    table = np.zeros((rows, within.shape[1]), entries.dtype)
    table[: len(within)][within] = entries
    return table


def _no_tail(dtype):
    return np.zeros((0, TAIL_WIDTH), np.int32), np.zeros((0, TAIL_WIDTH), dtype)


def _width(lengths):
    """Width of the rectangle with which it and the tail cost least; that of the longest row where rows are few."""
    longest = int(lengths.max(initial=0))
    # Half and whole powers of two: few widths, and so few programs.
    widths = [ENTRY_GROUP]
    while widths[-1] < longest:
        last = widths[-1]
        widths.append(
            last * 3 // 2 if last & (last - 1) == 0 and last * 3 // 2 % ENTRY_GROUP == 0 else 1 << last.bit_length()
        )
    if len(lengths) * widths[-1] <= SMALL_ENTRIES:
        return widths[-1]
    counts = np.bincount(lengths)
    length = np.arange(len(counts))
    cost = [
        len(lengths) * width
        + TAIL_COST * TAIL_WIDTH * int((counts * -(-np.maximum(length - width, 0) // TAIL_WIDTH)).sum())
        for width in widths
    ]
    return widths[int(np.argmin(cost))]


def _unpack(x):
    """CSR matrix of concrete `SparseRows`."""
    columns, values, starts, counts, tail_columns, tail_values = map(
        np.asarray, (x.columns, x.values, x.starts, x.counts, x.tail_columns, x.tail_values)
    )
    row = np.repeat(np.arange(len(values)), values.shape[1])
    piece_row = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum(counts)
    piece = np.arange(len(piece_row)) - np.repeat(ends - counts, counts) + np.repeat(starts, counts)
    entries = np.concatenate([values.ravel(), tail_values[piece].ravel()])
    index = (
        np.concatenate([row, np.repeat(piece_row, TAIL_WIDTH)]),
        np.concatenate([columns.ravel(), tail_columns[piece].ravel()]),
    )
    stored = entries != 0
    return scipy.sparse.coo_array((entries[stored], tuple(part[stored] for part in index)), shape=x.shape)

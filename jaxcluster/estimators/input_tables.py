"""Input tables: conversion to numbers with a reason where there are none, and the canonical order of rows."""

from __future__ import annotations

import datetime
import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from sklearn.utils import _safe_indexing, check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxcluster.core import validation
from jaxcluster.core.dtypes import MAX_EXACT_INTEGER
from jaxcluster.core.processes import count_rows, spans_processes
from jaxcluster.core.programs import limit_programs
from jaxcluster.core.shard import check_mesh
from jaxcluster.core.sources import RowSource
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.core.streaming import over_blocks
from jaxcluster.datasets.base import to_exact_dtype
from jaxcluster.datasets.dataframes import WORDS_REMEDY, as_rows, column_names, number_matrix
from jaxcluster.datasets.scaling import SPARSE_SCALINGS
from jaxcluster.datasets.texts import is_texts
from jaxcluster.estimators import CLASSES

if TYPE_CHECKING:
    from jaxcluster.datasets.encoding import Encoding
    from jaxcluster.datasets.imputation import Imputation
    from jaxcluster.datasets.scaling import Scaling

INPUT_STEPS = ("input_vectorizer_", "input_encoding_", "input_imputation_", "input_scaling_")
"""Attributes of what the command line does to samples before a fit, in that order."""


def forget_steps(estimator: Any) -> None:
    """Remove what the command line does to samples, before a fit of others."""
    for name in INPUT_STEPS:
        vars(estimator).pop(name, None)


def numeric_table(estimator: Any, X: Any, *, reset: bool = True, **options: Any) -> Any:
    """Numbers of a table or an array, checked as scikit-learn does, in a dtype that sums can be taken in.

    Names and number of columns are stored in the estimator by ``reset``, else compared with those of the fit. A JAX
    array of floats stays on its device.

    Args:
        estimator: of which X are the samples.
        X: as `as_rows` returns it.
        reset: as in scikit-learn's ``validate_data``.
        options: of scikit-learn's ``check_array``.

    Raises:
        ValueError, TypeError: no real numbers, with the cause and its column where they can be determined.
    """
    _check_table(X)
    if _stays_on_device(X, options.get("ensure_min_samples", 1)):
        X = validation.check_matrix(X, name="X")
        _check_columns(estimator, X, reset)
        return X
    if column_names(X) is not None:
        _check_columns(estimator, X.to_native(), reset)
        return check_array(number_matrix(X), estimator=estimator, input_name="X", **_dense_options(options))
    if isinstance(X, jax.Array) or (isinstance(X, np.ndarray) and X.dtype.kind not in "OSU"):
        X = validation.check_numeric(X, name="X")  # scikit-learn takes the dtypes of ml_dtypes for text
    try:
        validated = _validate(estimator, X, reset=reset, **options)
        if isinstance(validated, np.ndarray) and (validated.dtype.kind == "O" or _is_rounded(X, validated)):
            validated = validation.narrow_objects(np.asarray(X, object))
    except (TypeError, ValueError, OverflowError) as error:
        if reason := _describe_bad_table(X):
            raise (TypeError if isinstance(error, TypeError) else ValueError)(reason) from error
        raise
    return validation.check_numeric(validated, name="X") if isinstance(validated, np.ndarray) else validated


def _validate(estimator: Any, table: Any, **options: Any) -> Any:
    """Scikit-learn's ``validate_data``, which takes more than its annotations say."""
    return validate_data(estimator, table, **options)


def _check_columns(estimator, table, reset):
    """Store names and number of columns in the estimator, or compare them with those of the fit."""
    _validate(estimator, table, reset=reset, skip_check_array=True)


def _stays_on_device(X, least):
    """True for a JAX array that a fit computes with; integers are computed as differences in float64 on the host."""
    floats = isinstance(X, jax.Array) and jnp.issubdtype(X.dtype, jnp.floating)
    return floats and X.ndim == 2 and X.shape[0] >= least and X.shape[1] > 0


def _dense_options(options):
    return {key: value for key, value in options.items() if key != "accept_sparse"}


def _is_rounded(X, validated):
    """True if objects or lists of numbers became float64, which may have rounded integers."""
    if validated.dtype != np.float64 or (isinstance(X, np.ndarray) and X.dtype.kind != "O"):
        return False
    if not (np.abs(validated) > MAX_EXACT_INTEGER).any():
        return False
    cells = np.asarray(X, object)
    return all(isinstance(cell, (int, float, np.integer, np.floating)) for cell in cells.flat)


def encoded_table(X: Any, encoding: Encoding) -> Any:
    """Features of a table with the columns of an encoding, under their names; any other ``X`` as it is."""
    names = column_names(X)
    if names is None or not set(encoding.names) <= set(names) or names == encoding.features:
        return X
    import pyarrow as pa

    from jaxcluster.datasets.tables import encode_table

    features = encode_table(X.select(encoding.names).to_arrow(), encoding)
    return as_rows(pa.table(dict(zip(encoding.features, features.T, strict=True))))


def term_weights(estimator: Any, X: Any, reset: bool = False) -> Any:
    """Texts as the rows of term weights that the command line fitted the estimator to; any other ``X`` as it is."""
    vectorizer = None if reset else estimator.input_vectorizer_
    return X if vectorizer is None or not is_texts(X) else vectorizer.apply(X)


def imputed_and_scaled(table: Any, X: Any, imputation: Imputation | None, scaling: Scaling | None) -> Any:
    """Samples in the units of a fit of the command line.

    Args:
        table: (n_samples, n_features) numbers.
        X: the same in the caller's dtype.
        imputation, scaling: of the fit, or None.
    """
    if scaling is not None and scaling.origin is not None:
        # The origin is subtracted from the caller's own dtype: integers beyond 2^53 lose digits in float64.
        table = to_exact_dtype(np.asarray(X))
    table = table if imputation is None else imputation.apply(table)
    return table if scaling is None else scaling.apply(table)


def check_names(X: Any, known: Iterable[str]) -> None:
    """Raise ValueError if a table or a source has other columns than that of the fit, or another order of columns."""
    names, known = X.columns if isinstance(X, RowSource) else column_names(X), list(known)
    if names is None or not all(isinstance(name, str) for name in names):
        return
    if names == known:
        return
    missing, new = ([name for name in ours if name not in others] for ours, others in ((known, names), (names, known)))
    differences = [f"{_quote_names(each)} {state}" for each, state in ((missing, "missing"), (new, "new")) if each]
    cause = " and ".join(differences) or f"the columns come as {_quote_names(names)}, not as {_quote_names(known)}"
    remedy = "Pass the columns of the fit" if missing else "Pass X[list(model.feature_names_in_)]"
    raise ValueError(f"The feature names should match those that were passed during fit: {cause}. {remedy}.")


def check_sparse(estimator: Any, X: Any, *, reset: bool = True, accept_sparse: Any = False, **_: Any) -> None:
    """Raise TypeError, with what to do, where an estimator does not take a sparse matrix."""
    name = type(estimator).__name__
    if not accept_sparse:
        others = ", ".join(entry.location.split(":")[1] for entry in CLASSES.values() if entry.sparse)
        raise TypeError(
            f"Sparse data was passed for X, and {name} takes dense rows. {validation.dense_remedy(X, 'X')} "
            f"Or take a method for sparse rows: {others}."
        )
    scaling = estimator.input_scaling_
    changed = estimator.input_encoding_ is not None or estimator.input_imputation_ is not None
    if not reset and (changed or (scaling is not None and scaling.how not in SPARSE_SCALINGS)):
        raise TypeError(
            f"Sparse data was passed for X, and this {name} was fitted on columns that were changed before. "
            f"{validation.dense_remedy(X, 'X')}"
        )


def of_samples_or_source(method: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a method with one result by sample: that of a source of rows is computed block by block."""
    by_blocks = over_blocks(method)

    @functools.wraps(method)
    def checked(self, X, *arguments, **options):
        if not isinstance(X, RowSource):
            return method(self, X, *arguments, **options)
        check_is_fitted(self)
        if hasattr(self, "feature_names_in_"):
            check_names(X, self.feature_names_in_)
        with warnings.catch_warnings():
            # The names were compared: blocks are arrays without any.
            warnings.filterwarnings("ignore", "X does not have valid feature names")
            return by_blocks(self, X, *arguments, **options)

    return checked


def check_mixed_table(estimator: Any, X: Any, *, reset: bool) -> None:
    """Check the shape and the names of a table of any cells; ``reset`` stores them, else they are compared.

    Args:
        estimator: of which X are the samples.
        X: as `as_rows` returns it.
        reset: True in a fit.
    """
    limit_programs()
    if reset:
        forget_steps(estimator)
    table: Any = X
    if isinstance(X, RowSource):
        estimator._validate_source(X, reset)
    _check_table(table)
    if not reset and hasattr(estimator, "feature_names_in_"):
        check_names(table, estimator.feature_names_in_)
    if len(getattr(table, "shape", (0, 0))) == 2:  # the readers of tables refuse other shapes
        _check_columns(estimator, table if column_names(table) is None else table.to_native(), reset)


def _quote_names(names):
    return ", ".join(map(repr, names[:8])) + (" …" if len(names) > 8 else "")


def _check_table(X):
    """Raise ValueError unless X is a table of rows and columns with distinct names."""
    wanted = "Pass rows by columns: an array, a table of pandas, polars or Arrow, or a list of lists."
    if scipy.sparse.issparse(X):  # of which one kind is a dict
        return
    if X is None or isinstance(X, (str, bytes, Mapping, Set, Iterator)):
        raise ValueError(f"X is {'None' if X is None else f'of type {type(X).__name__}'}, not a table. {wanted}")
    if column_names(X) == []:
        raise ValueError(f"X has no columns. {wanted}")


def _describe_bad_table(X):
    """Description of the first entry of an array that is no number, with a remedy; None if there is none."""
    cells = np.asarray(X, object)
    # An object array of one dimension is what NumPy makes of rows of different lengths.
    if cells.ndim == 1 and any(isinstance(row, (list, tuple, np.ndarray)) for row in cells):
        return "X is no table: its rows have different lengths. Make them one length."
    if cells.ndim != 2:
        return None
    for j, column in enumerate(cells.T):
        for cell in column:
            if reason := _describe_bad_cell(cell):
                return f"X has {reason[0]} in column {j}, such as {str(cell)[:40]!r}. {reason[1]}"
    if text := next((cell for cell in cells.flat if isinstance(cell, (str, bytes))), None):
        convert = "X.astype(float)" if hasattr(X, "astype") else "np.array(X).astype(float)"
        return f"X holds numbers as text, such as {str(text)[:40]!r}: pass {convert}."
    return None


def _describe_bad_cell(cell):
    if isinstance(cell, (datetime.date, datetime.timedelta, np.datetime64, np.timedelta64)):
        return "dates or durations", "Pass numbers, such as seconds since the first."
    try:
        float(cell)
    except OverflowError:
        return "integers beyond float64", "Pass smaller numbers, such as differences or logarithms."
    except (TypeError, ValueError):
        return ("text", WORDS_REMEDY) if isinstance(cell, (str, bytes)) else None
    return None


CANONICAL = "canonical"


def rows_of_fit(estimator: Any, n: int) -> int:
    """Number of rows of a fit whose part in this process has n, kept as ``_n_rows`` where the mesh spans several.

    A saved model is checked against it, as ``labels_`` has the rows of one process.
    """
    vars(estimator).pop("_n_rows", None)
    if not spans_processes(check_mesh(estimator.mesh)):
        return n
    estimator._n_rows = count_rows(estimator.mesh, n)
    return estimator._n_rows


PER_ROW_ATTRIBUTES = ("labels_", "embedding_", "_rows")
"""Fitted attributes with one entry per sample."""

ROW_INDEX_ATTRIBUTES = ("medoid_indices_",)
"""Fitted attributes that hold indices of samples."""


def canonical_order(x: Any, weights: np.ndarray | None = None) -> np.ndarray:
    """(n_samples,) indices that sort samples by their first feature, ties by the second, and so on, last by weight.

    Sparse samples are sorted by the bytes of their columns and entries.
    """
    if is_sparse(x):
        keys = list(zip(row_bytes(x), np.zeros(x.shape[0]) if weights is None else weights, strict=True))
        return np.array(sorted(range(x.shape[0]), key=keys.__getitem__))
    # np.lexsort sorts by the last key first. Weights break ties, or equal samples of different weights would keep the
    # caller's order.
    keys = list(x.T[::-1])
    return np.lexsort(keys if weights is None else [weights, *keys])


def row_bytes(x: scipy.sparse.csr_array) -> list[tuple[bytes, bytes]]:
    """Columns and entries of each row of a canonical CSR matrix as bytes: equal for equal rows."""
    ends = list(pairwise(x.indptr))
    return [(x.indices[start:end].tobytes(), x.data[start:end].tobytes()) for start, end in ends]


def canonical(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a ``fit``: with ``order="canonical"`` it sees the samples sorted, and results are put back in order."""
    signature = inspect.signature(fit)

    @functools.wraps(fit)
    def ordered_fit(self, *args, **kwargs):
        if self.order is None:
            return fit(self, *args, **kwargs)
        validation.check_choice("order", self.order, (CANONICAL,))
        return _fit_sorted(fit, signature.bind(self, *args, **kwargs))

    return ordered_fit


def _fit_sorted(fit, bound):
    estimator, arguments = bound.arguments["self"], bound.arguments
    if "precomputed" in (getattr(estimator, "metric", None), getattr(estimator, "affinity", None)):
        raise ValueError(
            "order='canonical' sorts rows by their values, and precomputed ones have none. Pass order=None."
        )
    if isinstance(arguments["X"], RowSource):
        raise ValueError("order='canonical' sorts rows in memory. Pass order=None for a source of rows.")
    read = getattr(estimator, "_rows_or_distances", estimator._validate)
    arguments["X"] = as_rows(arguments["X"])
    x = read(arguments["X"], reset=True)
    weights = arguments.get("sample_weight")
    weights = None if weights is None else validation.as_real_array(weights, name="sample_weight")
    weights = None if weights is None or weights.ndim == 0 else weights
    n = x.shape[0]
    order = canonical_order(x, None if weights is None or weights.shape != (n,) else weights)
    # The inverse permutation: rank[i] is the position of sample i in the sorted order.
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    if column_names(arguments["X"]) is not None:
        arguments["X"] = arguments["X"][order]
    else:
        arguments["X"] = x[order] if is_sparse(x) else _safe_indexing(arguments["X"], order)
    for name in ("y", "sample_weight"):
        if np.shape(arguments.get(name))[:1] == (n,):
            arguments[name] = np.asarray(arguments[name])[order]
    for name in ("must_link", "cannot_link"):
        if arguments.get(name) is not None:
            arguments[name] = rank[np.asarray(arguments[name])]
    # The estimator sees sorted samples only; below, results per sample return to the caller's order.
    fit(*bound.args, **bound.kwargs)
    for name in PER_ROW_ATTRIBUTES:
        value = vars(estimator).get(name)
        if value is not None:
            setattr(estimator, name, value[rank])
    for name in ROW_INDEX_ATTRIBUTES:
        if hasattr(estimator, name):
            setattr(estimator, name, order[getattr(estimator, name)].astype(getattr(estimator, name).dtype))
    if "snapshots_" in vars(estimator):
        estimator.snapshots_["rows"] = order[estimator.snapshots_["rows"]].astype(np.int32)
    return estimator

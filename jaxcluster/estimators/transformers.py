"""Base of `jaxcluster.preprocessing`: rows of any kind in, and rows of the same kind out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from inspect import isfunction
from typing import Any

import jax
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxcluster.core import memory, validation
from jaxcluster.core.dtypes import float_dtype
from jaxcluster.core.preparation import padded_size
from jaxcluster.core.programs import limit_programs
from jaxcluster.core.sources import RowSource, check_source
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.core.streaming import rows_of_block
from jaxcluster.datasets.dataframes import as_rows
from jaxcluster.estimators import output, persistence  # noqa: F401  (registers JAX's arrays for `set_output`)
from jaxcluster.estimators.input_tables import check_names, numeric_table


class RowTransformer(TransformerMixin, BaseEstimator):
    """Base of scalers and decompositions.

    `fit` and `transform` take NumPy arrays, tables, JAX arrays and sources of rows. A JAX array is transformed on its
    device to a JAX array; the others become NumPy arrays, float32 for float32 and half precision, else float64.
    Fitted attributes are NumPy arrays.
    """

    _takes_missing = False
    """True if NaN are missing values."""

    _dense_reason = "needs dense rows"
    """Words after the name of the class where sparse rows are refused."""

    _required_attributes: tuple[str, ...] = ()
    """Fitted attributes that rows are transformed by: a saved one without them is refused."""

    # Set by `fit`.
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init_subclass__(cls, **options: Any) -> None:
        """Wrap every public method by `memory.guarded`."""
        for name, method in list(vars(cls).items()):
            if isfunction(method) and not name.startswith("_"):
                setattr(cls, name, memory.guarded(method))
        super().__init_subclass__(**options)  # scikit-learn's wrapper of `set_output` is the outer one

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted transformer to the folder ``path``, completely or not at all; see `Estimator.save`.

        Read it back with ``jaxcluster.load``.

        Args:
            path: of a new folder, or of a saved model, which is replaced.

        Raises:
            NotFittedError: before `fit`.
            FileExistsError: ``path`` exists and is not a saved model.
        """
        check_is_fitted(self)
        persistence.save(self, path)

    def _check_attributes(self) -> None:
        """Raise ValueError if the fitted attributes of a loaded transformer are unusable."""
        width = getattr(self, "n_features_in_", None)
        if not isinstance(width, int) or isinstance(width, bool) or width < 1:
            raise ValueError(f"n_features_in_ is {width!r}, not a number of columns.")
        for name in self._required_attributes:
            values: Any = getattr(self, name)
            for part in values if isinstance(values, tuple) else (values,):
                if not isinstance(part, np.ndarray) or part.dtype.kind != "f" or part.shape[-1:] != (width,):
                    raise ValueError(f"{name} holds no numbers of {width} columns.")
                if np.isinf(part).any() or (np.isnan(part).any() and not self._takes_missing):
                    raise ValueError(f"{name} holds NaN or infinity.")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.allow_nan = self._takes_missing
        return tags

    def _rows(self, X: Any, *, reset: bool) -> Any:
        """Rows as a source, a JAX array on its device, or a NumPy array, of finite or missing numbers."""
        limit_programs()
        X = as_rows(X)
        if is_sparse(X):
            raise TypeError(f"X is sparse, and {type(self).__name__} {self._dense_reason}.")
        if isinstance(X, RowSource):
            return self._source(X, reset)
        if isinstance(X, jax.Array):  # of integers too
            X = validation.check_numeric(X, name="X")
            if X.ndim != 2:
                raise ValueError(f"Expected 2D array, got an array of shape {X.shape}. Reshape your data.")
            X = validation.check_matrix(X, name="X")
            validate_data(self, X, reset=reset, skip_check_array=True)
        else:
            X = numeric_table(self, X, dtype="numeric", ensure_all_finite=False, reset=reset)
        self._check_finite(X, "X")
        return X

    def _source(self, source: RowSource, reset: bool) -> RowSource:
        check_source(source)
        if reset:
            self.n_features_in_ = source.shape[1]
            vars(self).pop("feature_names_in_", None)
            if source.columns is not None:
                self.feature_names_in_ = np.array(source.columns, object)
        elif source.shape[1] != self.n_features_in_:
            raise ValueError(f"X has {source.shape[1]} features, but the fit had {self.n_features_in_}.")
        elif hasattr(self, "feature_names_in_"):
            check_names(source, self.feature_names_in_)
        return source

    def _check_finite(self, x: Any, name: str) -> None:
        names = list(self.feature_names_in_) if hasattr(self, "feature_names_in_") else None
        validation.check_finite(x, name=name, missing=self._takes_missing or None, columns=names)

    def _blocks(self, X: Any) -> Iterator[tuple[slice, Any]]:
        """Blocks of rows and their places; those of a source are checked."""
        if isinstance(X, RowSource):
            source: Any = X
            start = 0
            for block in source.blocks(rows_of_block(source)):
                block = validation.widen(np.asarray(block))
                self._check_finite(block, source.name)
                yield slice(start, start + len(block)), block
                start += len(block)
            return
        size = rows_of_block(X)
        for start in range(0, X.shape[0], size):
            rows = slice(start, min(start + size, X.shape[0]))
            yield rows, X[rows] if size < X.shape[0] else X


def padded(x: Any) -> Any:
    """Rows of a NumPy array with rows of zeros after them, so that few programs serve all numbers of rows."""
    if isinstance(x, jax.Array):
        return x
    return np.pad(x, ((0, padded_size(len(x)) - len(x)), (0, 0)))


def output_dtype(x: Any) -> np.dtype:
    """Dtype of transformed rows: that of the computation for a JAX array, else float32 for short floats or float64."""
    if isinstance(x, jax.Array):
        return float_dtype(x.dtype)
    return np.dtype(np.float32 if x.dtype.kind == "f" and x.dtype.itemsize <= 4 else np.float64)

"""`TruncatedSVD` with scikit-learn's interface, over `jaxcluster.ops.components`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxcluster.core import memory, validation
from jaxcluster.core.preparation import padded_size, prepare
from jaxcluster.core.sources import RowSource
from jaxcluster.core.sparse_input import as_csr, check_values, pack
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.datasets.dataframes import as_rows
from jaxcluster.estimators.base import as_key
from jaxcluster.estimators.decomposition import Decomposition, coordinates_of, published
from jaxcluster.estimators.transformers import output_dtype
from jaxcluster.ops.components import flip_signs, lanczos_axes, project_sparse, randomized_axes

ALGORITHMS = ("randomized", "arpack")
"""Algorithms of `TruncatedSVD`."""

COMPONENT_BYTES = 40
"""Bytes of each entry of a component, or of a row on it: subspaces and their QR and SVD in float32, axes in float64."""


@dataclass(eq=False, repr=False)
class TruncatedSVD(Decomposition):
    """Truncated singular value decomposition: components of largest singular values of rows that are not centered.

    Sparse rows stay sparse: of the weights of terms it is latent semantic analysis.

    Args:
        n_components: number of components, at most n_features.
        algorithm: "randomized", power iterations on a random subspace on the device; "arpack", SciPy's Lanczos
            iterations in float64 on the host.
        n_iter: power iterations of "randomized".
        n_oversamples: dimensions of its subspace beyond the components.
        random_state: None, an int, a NumPy RandomState or a JAX key.
        tol: tolerance of "arpack"; 0 for the precision of float64.

    Attributes:
        components_: (n_components, n_features) orthonormal axes, the largest entry of each positive.
        explained_variance_: (n_components,) variances of the transformed rows, divided by n.
        explained_variance_ratio_: (n_components,) the same as fractions of the variance of all columns.
        singular_values_: (n_components,) singular values.
        n_features_in_: number of columns.

    Source: S. Deerwester, S. T. Dumais, G. W. Furnas, T. K. Landauer and R. Harshman, Indexing by latent semantic
    analysis, Journal of the American Society for Information Science 41 (1990).

    >>> svd = TruncatedSVD(1, random_state=0).fit(scipy.sparse.csr_array([[3.0, 0.0], [0.0, 1.0]]))
    >>> svd.singular_values_.round(4).tolist(), svd.components_.round(4).tolist()
    ([3.0], [[1.0, 0.0]])
    """

    n_components: Any = 2
    _: KW_ONLY
    algorithm: Any = "randomized"
    n_iter: Any = 5
    n_oversamples: Any = 10
    random_state: Any = None
    tol: Any = 0.0

    def fit(self, X: Any, y: Any = None) -> TruncatedSVD:
        """Compute the components.

        Args:
            X: (n_samples, n_features) rows, dense or sparse.
            y: not used.
        """
        self.fit_transform(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Compute the components and the coordinates of the rows on them.

        Args:
            X: (n_samples, n_features) rows, dense or sparse.
            y: not used.

        Returns:
            (n_samples, n_components) coordinates, a JAX array for a JAX array, else NumPy.
        """
        validation.check_choice("algorithm", self.algorithm, ALGORITHMS)
        x = self._any_rows(X, reset=True)
        n, d = x.shape
        k = validation.check_count("n_components", self.n_components)
        if k > min(n, d) or (self.algorithm == "arpack" and k == min(n, d)):
            least = "less than" if self.algorithm == "arpack" else "at most"
            raise ValueError(f"n_components={k} must be {least} min(n_samples, n_features)={min(n, d)}.")
        subject = f"{k:,} components of {n:,} rows and {d:,} columns"
        memory.check(COMPONENT_BYTES * k * (n + d), subject, "Lower n_components, or pass fewer rows or columns.")
        values, axes = self._lanczos(x, k) if self.algorithm == "arpack" else self._randomized(x, k)
        dtype = output_dtype(x.data if is_sparse(x) else x)
        self.components_ = flip_signs(axes[:k]).astype(dtype)
        self.singular_values_ = published(values[:k], dtype)
        coordinates = self._project(x)
        variances = np.asarray(coordinates, np.float64).var(axis=0)
        whole = float(_column_variances(x).sum())
        self.explained_variance_ = published(variances, dtype)
        self.explained_variance_ratio_ = (variances / whole if whole > 0 else np.zeros(k)).astype(dtype)
        return coordinates

    def _any_rows(self, X: Any, *, reset: bool) -> Any:
        if isinstance(X, RowSource):
            raise TypeError(
                "TruncatedSVD needs all rows in memory, and X is a source of rows. Take PCA, which reads it in blocks."
            )
        X = as_rows(X)
        if not is_sparse(X):
            return self._rows(X, reset=reset)
        x = as_csr(X, name="X")
        check_values(x, name="X")
        table: Any = x
        validate_data(self, table, reset=reset, skip_check_array=True)
        return x

    def _randomized(self, x: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        prepared = prepare(x, center=False)
        rows: Any = prepared.points.x
        exponent = int(prepared.frame.exponent)
        if is_sparse(x):
            # Products with the transpose gather too, which is the same on every device; a scatter would not be.
            turned = scipy.sparse.csr_array(x.T)
            turned.resize((x.shape[1], rows.shape[0]))
            scaled = np.ldexp(turned.data.astype(np.float64), exponent).astype(rows.dtype)
            transposed: Any = jax.device_put(pack(turned, scaled, x.shape[1], padded_size))
        else:
            transposed = rows.T
        width = min(k + int(self.n_oversamples), *x.shape)
        values, axes = randomized_axes(as_key(self.random_state), rows, transposed, width, int(self.n_iter))
        values = np.ldexp(np.asarray(values, np.float64), -exponent)
        return values, np.asarray(axes, np.float64)

    def _lanczos(self, x: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        wide = x.astype(np.float64) if is_sparse(x) else np.asarray(x, np.float64)
        return lanczos_axes(as_key(self.random_state), wide, k, float(self.tol))

    def _project(self, x: Any) -> Any:
        axes = self.components_.T
        if not is_sparse(x):
            return self._multiply(x, axes.astype(np.float64), np.zeros(x.shape[1]))
        prepared = prepare(x, center=False)
        sparse: Any = prepared.points.x
        product = prepared.unpad(project_sparse(sparse, jnp.asarray(axes, sparse.dtype)), axis=0)
        return np.asarray(prepared.unscale(product, length=1))

    def transform(self, X: Any) -> Any:
        """Compute the coordinates of rows on the components.

        Args:
            X: (n_samples, n_features) rows, dense or sparse.

        Returns:
            (n_samples, n_components) coordinates, a JAX array for a JAX array, else NumPy.
        """
        check_is_fitted(self)
        return self._project(self._any_rows(X, reset=False))

    def inverse_transform(self, X: Any) -> Any:
        """Compute the dense rows that lie at coordinates on the components.

        Args:
            X: (n_samples, n_components) coordinates.

        Returns:
            (n_samples, n_features) rows, a JAX array for a JAX array, else NumPy.
        """
        check_is_fitted(self)
        k = self.components_.shape[0]
        return self._multiply(coordinates_of(X, k), self.components_.astype(np.float64), np.zeros(k))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _column_variances(x: Any) -> np.ndarray:
    """Variances of the columns in float64."""
    if not is_sparse(x):
        return np.asarray(x, np.float64).var(axis=0)
    n, (columns, values) = x.shape[0], (x.indices, x.data.astype(np.float64))
    count = np.bincount(columns, minlength=x.shape[1])
    mean = np.bincount(columns, values, minlength=x.shape[1]) / n
    squares = np.bincount(columns, np.square(values - mean[columns]), minlength=x.shape[1])
    return (squares + (n - count) * np.square(mean)) / n

"""`PCA` with scikit-learn's interface, over `jaxcluster.ops.components`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.utils.validation import check_is_fitted

from jaxcluster.core import memory, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import float_dtype, publish
from jaxcluster.core.preparation import FIT_COPIES, padded_size
from jaxcluster.core.sources import ArraySource, RowSource
from jaxcluster.core.streaming import Stream
from jaxcluster.estimators.base import as_key
from jaxcluster.estimators.transformers import RowTransformer, output_dtype, padded
from jaxcluster.ops.components import (
    flip_signs,
    lanczos_axes,
    likely_dimension,
    principal_axes,
    project,
    randomized_axes,
    scatter,
    singular_axes,
    split,
)
from jaxcluster.ops.moments import column_moments
from jaxcluster.types import Points

SVD_SOLVERS = ("auto", "full", "covariance_eigh", "randomized", "arpack")
"""Solvers of `PCA`."""

FEWER = "Take another svd_solver, or pass fewer columns."
"""Remedy where memory is missing."""

COVARIANCE_COLUMNS, COVARIANCE_ROWS = 1000, 10
"""Most columns, and least rows for each, for which "auto" takes the covariance matrix; scikit-learn's."""

MAX_EXACT_SIZE, MOST_COMPONENTS = 500, 0.8
"""Largest side of rows of which "auto" takes all components, and the fraction of them from which it does; as above."""


class Decomposition(ClassNamePrefixFeaturesOutMixin, RowTransformer):
    """Base of decompositions: products of rows with components."""

    _required_attributes = ("components_",)

    components_: np.ndarray

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]

    def fit(self, X: Any, y: Any = None) -> Decomposition:
        """Fit to the rows."""
        raise NotImplementedError

    def _multiply(self, x: Any, matrix: np.ndarray, shift: np.ndarray, offset: Any = None) -> Any:
        """Rows (x − shift)·matrix + offset of the kind of ``x``: differences and sums in float64 for NumPy's."""
        compute = float_dtype(x.dtype)
        axes = jax.device_put(matrix.astype(compute))
        none = np.zeros(len(shift), compute)
        if isinstance(x, jax.Array):
            product = project(x.astype(compute), *split(shift, compute), axes)
            if offset is None:
                return product
            first, rest = split(offset, compute)
            return product + rest[None] + first[None]
        out = np.empty((x.shape[0], matrix.shape[1]), output_dtype(x))
        for rows, block in self._blocks(x):
            centered = block.astype(np.float64) - shift
            if computes_in_float64():
                product = centered @ matrix
                out[rows] = product if offset is None else product + offset
                continue
            # A power of two near the largest entry: float32 ends at 1e38.
            exponent = int(np.frexp(np.abs(centered).max(initial=0.0))[1])
            inside = jax.device_put(padded(np.ldexp(centered, -exponent).astype(compute)))
            product = np.ldexp(np.asarray(project(inside, none, none, axes), np.float64)[: len(block)], exponent)
            out[rows] = product if offset is None else product + offset
        return out


@dataclass(eq=False, repr=False)
class PCA(Decomposition):
    """Principal component analysis: axes of largest variance of centered rows.

    Rows are centered by their mean in float64, so that a large offset costs no digits. On the CPU all is computed in
    float64, but for the solver "randomized". On accelerators products are of float32 unless JAX's x64 mode is on, and
    are added up in float64: their relative error is about 1e-6, and variances below 1e-6 of the largest are rounding.

    Args:
        n_components: number of components; a fraction of the variance between 0 and 1, which they explain at least;
            "mle" for the number of largest evidence; or None for min(n_samples, n_features).
        copy: not used: rows are never changed in place.
        whiten: give each component variance 1.
        svd_solver: "covariance_eigh", the eigenvectors of the covariance matrix, in blocks of rows; "full", a singular
            value decomposition of all rows; "randomized", one of a random subspace; "arpack", SciPy's Lanczos
            iterations in float64 on the host; "auto" for the first one where rows are many and columns few and for
            sources, else the second or the third.
        tol: tolerance of "arpack"; 0 for the precision of float64.
        iterated_power: power iterations of "randomized", or "auto" for 7 for few components and 4 for many.
        n_oversamples: dimensions of its subspace beyond the components.
        random_state: None, an int, a NumPy RandomState or a JAX key, for "randomized" and "arpack".

    Attributes:
        components_: (n_components, n_features) orthonormal axes, the largest entry of each positive.
        explained_variance_: (n_components,) their variances, divided by n − 1.
        explained_variance_ratio_: (n_components,) the same as fractions of the total variance.
        singular_values_: (n_components,) singular values of the centered rows.
        mean_: (n_features,) float64 means.
        n_components_, n_samples_, n_features_in_: numbers of components, rows and columns.
        noise_variance_: mean variance of the components that are left out.

    Sources: M. E. Tipping and C. M. Bishop, Mixtures of probabilistic principal component analysers, Neural Computation
    11 (1999), for the noise variance; T. P. Minka, Automatic choice of dimensionality for PCA, NIPS 13 (2000).

    >>> pca = PCA(1).fit([[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]])
    >>> pca.components_.round(4).tolist(), float(pca.explained_variance_[0].round(4))
    ([[0.7071, 0.7071]], 8.0)
    """

    _dense_reason = (
        "subtracts the mean, which would fill the zeros. Take jaxcluster.preprocessing.TruncatedSVD, which does not, "
        "or pass X.toarray()"
    )

    _required_attributes = ("components_", "mean_")

    n_components: Any = None
    _: KW_ONLY
    copy: Any = True
    whiten: Any = False
    svd_solver: Any = "auto"
    tol: Any = 0.0
    iterated_power: Any = "auto"
    n_oversamples: Any = 10
    random_state: Any = None

    def fit(self, X: Any, y: Any = None) -> PCA:
        """Compute the components.

        Args:
            X: (n_samples, n_features) rows, at least 2, or a source of them.
            y: not used.
        """
        validation.check_choice("svd_solver", self.svd_solver, SVD_SOLVERS)
        x = self._rows(X, reset=True)
        n, d = x.shape
        if n < 2:
            raise ValueError(f"X has n_samples={n}; a variance needs at least 2.")
        solver = self._solver(x)
        if solver != "covariance_eigh" and isinstance(x, RowSource):
            raise ValueError(f"svd_solver={solver!r} needs all rows in memory. Pass 'covariance_eigh' for a source.")
        wanted = self._wanted(n, d, solver)
        # One path for memory and files: blocks about the origin of a frame, whose sums are of float64.
        source = x if isinstance(x, RowSource) else ArraySource(np.asarray(x), "X")
        stream = Stream(source)
        wide = computes_in_float64()
        shift = (sum(block.sum(axis=0) for block in stream.wide_blocks()) if wide else stream.fold(_sums)[0]) / n
        if solver == "covariance_eigh":
            memory.check(3 * 8 * d * d, f"the covariance matrix of {d:,} columns", FEWER)
            matrix, shift = (_wide_scatter if wide else _scatter_by_blocks)(stream, shift)
            whole = float(np.trace(matrix))
            values, axes = principal_axes(matrix, min(n, d))
            values, axes = np.maximum(values, 0), axes.T
        else:
            wide = wide and solver != "randomized"
            itemsize = 8 if wide else stream.compute_dtype.itemsize
            memory.check(FIT_COPIES * n * d * itemsize, f"{n:,} rows of {d:,} columns", FEWER)
            if wide:
                centered = np.concatenate(list(stream.wide_blocks())) - shift
            else:
                centered = _centered(stream.enter(np.asarray(source.x), None, padded_size(n)), shift)  # pyright: ignore
            whole = float(np.square(np.asarray(centered, np.float64)).sum())
            values, axes = self._decompose(centered, wanted, solver, min(n, d))
            values = np.square(values)
        self._publish(values / (n - 1), axes, whole / (n - 1), wanted, stream, shift)
        return self

    def _solver(self, x: Any) -> str:
        n, d = x.shape
        if self.svd_solver != "auto":
            return self.svd_solver
        if isinstance(x, RowSource) or (d <= COVARIANCE_COLUMNS and n >= COVARIANCE_ROWS * d):
            return "covariance_eigh"
        whole = isinstance(self.n_components, (int, np.integer))
        few = whole and 1 <= self.n_components < MOST_COMPONENTS * min(n, d)
        return "randomized" if few and max(n, d) > MAX_EXACT_SIZE else "full"

    def _wanted(self, n: int, d: int, solver: str) -> Any:
        """Number of components, the fraction that they explain, or "mle"."""
        wanted, most = self.n_components, min(n, d) - (solver == "arpack")
        if wanted is None:
            return most
        if wanted == "mle" or (isinstance(wanted, (float, np.floating)) and 0 < wanted < 1):
            if solver in ("randomized", "arpack"):
                raise ValueError(
                    f"n_components={wanted!r} needs all components: pass svd_solver='full', not {solver!r}."
                )
            if wanted == "mle" and n < d:
                raise ValueError(f"n_components='mle' needs n_samples >= n_features, got {n} and {d}.")
            return wanted
        if isinstance(wanted, (bool, float, np.floating)) or not isinstance(wanted, (int, np.integer)):
            raise TypeError(f"n_components={wanted!r} must be an integer, a fraction, 'mle' or None.")
        if not 1 <= wanted <= most:
            minus = " - 1" if solver == "arpack" else ""
            raise ValueError(f"n_components={wanted} must be between 1 and min(n_samples, n_features){minus}={most}.")
        return int(wanted)

    def _decompose(self, centered, wanted, solver, most):
        if solver == "full":
            host = isinstance(centered, np.ndarray)
            values, axes = np.linalg.svd(centered, full_matrices=False)[1:] if host else singular_axes(centered)
        elif solver == "arpack":
            wide = np.asarray(centered, np.float64)
            values, axes = lanczos_axes(as_key(self.random_state), wide, wanted, float(self.tol))
        else:
            iterations = self.iterated_power
            if iterations == "auto":
                iterations = 7 if wanted < 0.1 * most else 4
            width = min(int(wanted) + self.n_oversamples, most)
            values, axes = randomized_axes(as_key(self.random_state), centered, centered.T, width, iterations)
        return np.asarray(values, np.float64)[:most], np.asarray(axes, np.float64)[:most]

    def _publish(self, variances, axes, whole, wanted, stream, shift):
        ratios = variances / whole if whole > 0 else np.zeros_like(variances)
        if wanted == "mle":
            wanted = likely_dimension(variances, stream.n)
        elif isinstance(wanted, (float, np.floating)):
            # Rounding, at most, keeps the sum from the fraction.
            wanted = min(int(np.searchsorted(np.cumsum(ratios), wanted, side="right")) + 1, len(ratios))
        n, most = stream.n, min(stream.n, stream.d)
        unit, dtype = -int(stream.frame.exponent), stream.dtype
        others = variances[wanted:].sum() if len(variances) == most else whole - variances[:wanted].sum()
        rest = max(0.0, float(others)) / (most - wanted) if wanted < most else 0.0
        self.n_components_, self.n_samples_ = wanted, n
        self.components_ = flip_signs(np.asarray(axes[:wanted])).astype(dtype)
        self.explained_variance_ratio_ = ratios[:wanted].astype(dtype)
        self.mean_ = np.asarray(stream.frame.origin, np.float64) + np.ldexp(shift, unit)
        with np.errstate(over="ignore", under="ignore"):  # beyond float64 only the squares are infinite or 0
            self.explained_variance_ = published(np.ldexp(variances[:wanted], 2 * unit), dtype)
            self.singular_values_ = published(np.ldexp(np.sqrt(variances[:wanted] * (n - 1)), unit), dtype)
            self.noise_variance_ = float(np.ldexp(rest, 2 * unit))

    def _deviations(self) -> Any:
        """Divisors of whitened components."""
        variances = self.explained_variance_.astype(np.float64)
        return np.sqrt(np.maximum(variances, np.finfo(self.components_.dtype).eps * variances.max(initial=0)))

    def transform(self, X: Any) -> Any:
        """Compute the coordinates of rows on the components.

        Args:
            X: (n_samples, n_features) rows, or a source of them.

        Returns:
            (n_samples, n_components) coordinates, a JAX array for a JAX array, else NumPy.
        """
        check_is_fitted(self)
        axes = self.components_.T.astype(np.float64)
        if self.whiten:
            deviations = self._deviations()
            axes = np.divide(axes, deviations, out=np.zeros_like(axes), where=deviations > 0)
        return self._multiply(self._rows(X, reset=False), axes, self.mean_)

    def inverse_transform(self, X: Any) -> Any:
        """Compute the rows that lie at coordinates on the components.

        Args:
            X: (n_samples, n_components) coordinates.

        Returns:
            (n_samples, n_features) rows, a JAX array for a JAX array, else NumPy.
        """
        check_is_fitted(self)
        x = coordinates_of(X, self.n_components_)
        axes = self.components_.astype(np.float64)
        axes = axes * self._deviations()[:, None] if self.whiten else axes
        return self._multiply(x, axes, np.zeros(self.n_components_), self.mean_)

    def get_covariance(self) -> np.ndarray:
        """Compute the covariance of the probabilistic model, (n_features, n_features): components and equal noise."""
        check_is_fitted(self)
        axes = self.components_.astype(np.float64)
        excess = np.maximum(self.explained_variance_ - self.noise_variance_, 0)
        return (axes.T * excess) @ axes + self.noise_variance_ * np.eye(self.n_features_in_)

    def get_precision(self) -> np.ndarray:
        """Compute the inverse of the covariance of the probabilistic model, (n_features, n_features)."""
        return np.linalg.inv(self.get_covariance())


def published(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Numbers of float64 in the dtype of results, in NumPy, where it can hold them."""
    return np.asarray(publish(values, dtype))


def coordinates_of(X: Any, k: int) -> Any:
    """Coordinates of a caller on k components, checked."""
    x = validation.check_matrix(X if isinstance(X, jax.Array) else np.asarray(X), name="X")
    validation.check_width(x, k, name="X")
    return x


def computes_in_float64() -> bool:
    """True where rows are multiplied in float64 on the host: without an accelerator."""
    # Sums of 1024 products of float32, as in `scatter`, are off by 1e-6. BLAS has half the speed in float64.
    return jax.default_backend() == "cpu"


def _wide_scatter(stream: Stream, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scatter matrix about the mean, and the mean, in float64.

    Returns:
        (d, d) matrix and (d,) mean in the frame.
    """
    matrix, rest = np.zeros((stream.d, stream.d)), np.zeros(stream.d)
    for block in stream.wide_blocks():
        block -= shift
        matrix += block.T @ block
        rest += block.sum(axis=0)
    rest /= stream.n  # what the mean lost in sums
    return matrix - stream.n * np.outer(rest, rest), shift + rest


def _scatter_by_blocks(stream: Stream, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scatter matrix about the mean, and the mean, of products in the dtype of the computation.

    Returns:
        (d, d) matrix and (d,) mean in the frame.
    """
    (matrix, rest), _ = stream.fold(_scatter, shift.astype(stream.compute_dtype))
    rest = rest / stream.n  # what the mean lost in the dtype of the computation
    return matrix - stream.n * np.outer(rest, rest), shift.astype(stream.compute_dtype) + rest


# Kernels: one block of samples ----------------------------------------------------------------------------------------


@persistent_jit
def _sums(points: Points) -> Any:
    moments = column_moments(points.x, points.weight)
    return moments.mean * moments.weight, ()


@persistent_jit
def _scatter(points: Points, mean: Any) -> Any:
    centered = (points.x - mean[None, :]) * points.weight[:, None]
    return (scatter(centered), jnp.sum(centered, axis=0)), ()


@persistent_jit
def _center(points: Points, mean: Any, rest: Any) -> Any:
    return (points.x - mean[None, :] - rest[None, :]) * points.weight[:, None]


def _centered(points: Points, shift: np.ndarray) -> Any:
    return _center(points, *split(shift, points.x.dtype))

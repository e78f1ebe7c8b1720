"""scikit-learn's `SpectralClustering` and `SpectralEmbedding` over `jaxcluster.spectral`."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import scipy.sparse
from scipy.spatial.distance import cdist
from sklearn.base import ClusterMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import KERNEL_PARAMS, pairwise_kernels
from sklearn.utils.validation import check_is_fitted

from jaxcluster.cluster import kmeans, spectral
from jaxcluster.cluster.spectral.affinity_input import affinity_matrix, check_dense_memory
from jaxcluster.core import check
from jaxcluster.core.caution import warn
from jaxcluster.core.frame import published_dtype
from jaxcluster.estimators.base import Estimator, as_key
from jaxcluster.estimators.input_tables import canonical
from jaxcluster.estimators.registry import register
from jaxcluster.ops.metric_space import as_real_numbers, describe_value, unit_rows
from jaxcluster.ops.precomputed import uneven_pair
from jaxcluster.types import Status

SOLVERS = ("arpack", "lobpcg", "amg")
"""What scikit-learn calls the ways to the eigenvectors; there is one here, in place of all."""


EXACT_TOL = 1e-13
"""Residual of what is as exact as can be: a few hundred roundings of float64, which products of many rows leave."""


EIGENVALUE_ROUNDING = 64 * float(np.finfo(np.float64).eps)
"""Rounding of an eigenvalue, in whose place one of equal weights may be."""


class _SpectralEstimator(Estimator):
    """What clustering and embedding share: rows or matrices as input, the affinity, and what the eigensolver found."""

    info = Estimator.info._replace(family="graph", reported=("n_iter_",), objective="sum of the least eigenvalues")

    _affinities: tuple[str, ...] = spectral.AFFINITIES
    """Names that ``affinity`` may have."""

    _required_attributes = ("embedding_",)

    _n_trivial = 0
    """Whether the first eigenvalue, 0, is among those that are published."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = tags.input_tags.sparse = self._precomputed
        return tags

    @property
    def affinity_matrix_(self) -> np.ndarray | scipy.sparse.csr_array:
        """(n_samples, n_samples) weights; those of "rbf" are computed when they are asked for, as nothing needs them.

        Raises:
            MemoryError: so many rows that their dense weights would not fit.
        """
        check_is_fitted(self)
        if self._weights is not None:
            return self._weights
        check_dense_memory(len(self._rows), "rbf")
        # By differences: the expanded squares of rows far from the origin hold no digit of their distances.
        # In a unit near 1, where squares are neither 0 nor infinite.
        exponent = int(np.frexp(np.abs(self._rows).max())[1])
        rows = np.ldexp(self._rows.astype(np.float64), -exponent)
        with np.errstate(over="ignore", under="ignore"):
            gamma = min(np.ldexp(float(self.gamma_), 2 * exponent), np.finfo(float).max)
            weights = np.exp(-gamma * cdist(rows, rows, "sqeuclidean"))
        return weights.astype(published_dtype(self._rows))

    @property
    def _precomputed(self):
        return isinstance(self.affinity, str) and self.affinity.startswith("precomputed")

    def _checked(self, X):
        """The rows, or the matrix, as a NumPy or CSR array."""
        if not self._precomputed:
            X = self._validate(X, reset=True)
            if len(X) < 2:
                raise ValueError("Found array with 1 sample(s) while a minimum of 2 is required: one row has no graph.")
            return X
        formats = ["csr", "csc", "coo"]
        X = self._to_numeric(X, accept_sparse=formats, ensure_min_samples=2)
        return self._symmetric(X) if self.affinity == "precomputed" else X

    @staticmethod
    def _symmetric(X):
        """Weights as they are, or ½(W + Wᵀ) where the two of a pair differ, with a warning, as in scikit-learn."""
        if X.shape[0] != X.shape[1]:
            return X
        X = X.astype(np.float32 if X.dtype == np.float32 else np.float64)
        pair = uneven_pair(scipy.sparse.csr_array(X) if scipy.sparse.issparse(X) else X)
        if pair is None:
            return X
        warn(
            f"Array is not symmetric, and will be converted to symmetric by average with its transpose: entries {pair} "
            "and the other way round differ.",
            UserWarning,
        )
        return 0.5 * (X + X.T)

    def _check_params(self, n, d):
        super()._check_params(n, d)
        if self.eigen_solver is not None:
            check.check_choice("eigen_solver", self.eigen_solver, SOLVERS)
        if not callable(self.affinity):
            check.check_choice("affinity", self.affinity, self._affinities)
        if self.gamma is not None and isinstance(self.affinity, str) and self.affinity == "rbf":
            check.check_positive("gamma", self.gamma)
        self._tol()

    def _tol(self):
        """The largest residual of an eigenvector."""
        if isinstance(self.eigen_tol, str):
            check.check_choice("eigen_tol", self.eigen_tol, ["auto"])
            return 1e-4
        check.check_positive("eigen_tol", self.eigen_tol, zero=True)
        return self.eigen_tol or EXACT_TOL  # scikit-learn's 0 is "as exact as can be"

    def _graph_input(self, X, gamma, n_neighbors):
        """What the function is given: rows for "rbf", else the matrix, which is kept."""
        self._rows, self._weights, self.gamma_ = None, None, gamma
        if self.affinity == "rbf":
            self._rows = X
            return X, {"affinity": "rbf", "gamma": gamma}
        if "nearest_neighbors" in str(self.affinity) and n_neighbors > X.shape[0]:
            raise ValueError(f"n_neighbors={n_neighbors} must be at most n_samples={X.shape[0]}. Pass fewer.")
        self._weights = self._matrix(X, n_neighbors)
        return self._weights, {"affinity": "precomputed"}

    def _matrix(self, X, n_neighbors):
        return affinity_matrix(X, self.affinity, n_neighbors)

    def _publish(self, embedding, dtype):
        """Copies to attributes what the eigensolver found, and says what the graph did not allow."""
        host = jax.device_get(embedding)
        self.embedding_ = np.array(host.vectors, dtype)
        self.eigenvalues_, self.residuals_ = np.array(host.eigenvalues), np.array(host.residuals)
        self.n_connected_components_ = int(host.components)
        self.n_iter_, self.history_ = int(host.steps), np.array(host.history[: int(host.steps)])
        if self.n_connected_components_ > 1:
            warn(
                f"The graph is not fully connected: it has {self.n_connected_components_} components, between which "
                "there are no weights. As many eigenvalues are 0, and their eigenvectors only tell the components "
                "apart. If that is not meant, raise n_neighbors, or lower gamma.",
                UserWarning,
            )
        elif self.n_connected_components_ == 0:
            warn(
                "No two rows have a weight between them: the graph has no edges, and eigenvectors and labels say "
                "nothing of the rows. Lower gamma, raise n_neighbors, or scale the columns of X.",
                UserWarning,
            )
        elif self._weights_are_equal():
            warn(
                "All rows have the same weight between them, to the last digit, so that eigenvectors and labels say "
                "nothing of the rows. Raise gamma, lower n_neighbors, or scale the columns of X.",
                UserWarning,
            )
        residual, tol = f"the largest residual is {self.residuals_.max():.2g}", f"eigen_tol={self.eigen_tol!r}"
        message = None
        if int(host.status) == Status.PRECISION:
            message = f"The eigenvectors are not found to {tol} in float64: {residual}. Raise eigen_tol."
        elif int(host.status) == Status.MAX_STEPS and self.residuals_.max() > self._tol():
            message = f"The eigenvectors were not found to {tol} in {self.n_iter_} steps: {residual}."
        elif int(host.status) == Status.MAX_STEPS:
            message = (
                f"In {self.n_iter_} steps {residual}, within {tol}, but the eigenvalue after the last lies too close "
                "to it for their vectors to be told apart. Another number of components may have a wider gap."
            )
        if message:
            warn(message, ConvergenceWarning)

    def _weights_are_equal(self):
        """Whether the second eigenvalue is n / (n − 1), which it is of equal weights between all rows alone."""
        n, further = len(self.embedding_), self.eigenvalues_[self._n_trivial :]
        return n > 2 and len(further) > 0 and further[0] * (n - 1) / n > 1 - EIGENVALUE_ROUNDING

    def _summary_metrics(self):
        return [f"largest residual {self.residuals_.max():.2g}"]


@register("spectral", "a small cut of the graph of rows, by its eigenvectors", clusters="n_clusters")
class SpectralClustering(ClusterMixin, _SpectralEstimator):
    """Clusters that have little weight between them, by eigenvectors of their graph, as scikit-learn's estimator.

    Eigenvectors are computed in float64 by one solver, whatever ``eigen_solver`` names. Nothing of n_samples² is built
    for "nearest_neighbors", nor for "rbf" of many rows; for more rows still see `jaxcluster.spectral.nystrom`.

    Args:
        n_clusters: number of clusters.
        eigen_solver: None, "arpack", "lobpcg" or "amg": accepted for scikit-learn's sake.
        n_components: eigenvectors to embed by; None for ``n_clusters``.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        order: None, or "canonical" to fit the rows sorted by their values: permuted rows then have the same labels.
        n_init: starts of k-means.
        gamma: of "rbf" and the other kernels that have it, in units of 1 / data units².
        affinity: "nearest_neighbors", "rbf", "precomputed" (symmetric weights, dense or sparse),
            "precomputed_nearest_neighbors" (distances), the name of another kernel of
            ``sklearn.metrics.pairwise.pairwise_kernels``, or a function of two rows that gives their weight.
        n_neighbors: of the graphs of neighbors, each row itself among them.
        eigen_tol: the largest residual of an eigenvector; "auto" for 1e-4. Closer eigenvalues are resolved further.
        assign_labels: "kmeans", "discretize" or "cluster_qr".
        degree, coef0, kernel_params: of other kernels, as in scikit-learn.
        n_jobs: accepted for scikit-learn's sake: all cores take part.
        verbose: print the sum of the eigenvalues after every step, and how labels are assigned, after the fit. Small
            graphs take no steps.

    Attributes:
        labels_: (n_samples,) int32.
        affinity_matrix_: (n_samples, n_samples) weights, dense or CSR.
        embedding_: (n_samples, n_components) eigenvectors divided by √degree.
        eigenvalues_: (n_components,) of the normalized Laplacian, ascending.
        residuals_: (n_components,) ‖Lv − λv‖.
        n_connected_components_: components of more than one row.
        n_iter_, history_: steps of the eigensolver, and the sum of the eigenvalues that it looked for after each.
        status_: a `jaxcluster.types.Status`, how the eigensolver and k-means ended.
        n_features_in_, feature_names_in_: as in scikit-learn.
    """

    _affinities = (*spectral.AFFINITIES, *KERNEL_PARAMS)

    _required_attributes = ("labels_", "embedding_")

    _n_trivial = 1

    def __init__(
        self,
        n_clusters=8,
        *,
        eigen_solver=None,
        n_components=None,
        random_state=None,
        order=None,
        n_init=10,
        gamma=1.0,
        affinity="rbf",
        n_neighbors=10,
        eigen_tol="auto",
        assign_labels="kmeans",
        degree=3,
        coef0=1,
        kernel_params=None,
        n_jobs=None,
        verbose=False,
    ):
        self.n_clusters = n_clusters
        self.eigen_solver = eigen_solver
        self.n_components = n_components
        self.random_state = random_state
        self.order = order
        self.n_init = n_init
        self.gamma = gamma
        self.affinity = affinity
        self.n_neighbors = n_neighbors
        self.eigen_tol = eigen_tol
        self.assign_labels = assign_labels
        self.degree = degree
        self.coef0 = coef0
        self.kernel_params = kernel_params
        self.n_jobs = n_jobs
        self.verbose = verbose

    @canonical
    def fit(self, X: Any, y: Any = None) -> SpectralClustering:
        """Clusters the rows.

        Args:
            X: (n_samples, n_features) array-like or DataFrame, or (n_samples, n_samples) weights or distances, dense or
                sparse, where the affinity is precomputed.
            y: ignored.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values; weights that are not symmetric or negative, and
                where.
            MemoryError: so many rows that the dense weights of a kernel would not fit.

        Warns:
            UserWarning: the graph is not connected.
            ConvergenceWarning: eigenvectors that were not found, or fewer distinct rows than clusters.
        """
        X = self._checked(X)
        self._check_params(*X.shape)
        x, options = self._graph_input(X, self.gamma, self.n_neighbors)
        fit = spectral.fit(
            as_key(self.random_state),
            x,
            self.n_clusters,
            n_components=self.n_components,
            assign_labels=self.assign_labels,
            n_init=self.n_init,
            tol=self._tol(),
            **options,
        )
        self._publish(fit.state, published_dtype(X.data if scipy.sparse.issparse(X) else X))
        self.labels_ = np.array(fit.labels)
        self.status_ = Status(int(fit.status))
        if self.status_ == Status.EMPTY_CLUSTERS:
            warn(
                f"Number of distinct clusters ({np.unique(self.labels_).size}) found smaller than n_clusters "
                f"({self.n_clusters}): the embedding has too few distinct rows. Pass fewer clusters.",
                ConvergenceWarning,
            )
        self._print_history()
        if self.verbose:
            print(f"Computing label assignment using {self.assign_labels}")
        return self

    def _check_params(self, n, d):
        super()._check_params(n, d)
        check.check_clusters(self.n_clusters, n, name="n_clusters")
        check.check_count("n_neighbors", self.n_neighbors)
        check.check_choice("assign_labels", self.assign_labels, spectral.ASSIGNMENTS)
        kmeans.check_runs("k-means++", self.n_init)
        if self.n_components is not None:
            check.check_count("n_components", self.n_components)

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """Fits, and returns ``labels_``."""
        return self.fit(X).labels_

    def _matrix(self, X, n_neighbors):
        if self.affinity in spectral.AFFINITIES:
            return super()._matrix(X, n_neighbors)
        check_dense_memory(X.shape[0], self.affinity)
        params = dict(self.kernel_params or {})
        if callable(self.affinity):
            weights = pairwise_kernels(X, metric=_one_weight(self.affinity), **params)
            return affinity_matrix(weights, "precomputed", 1)
        params |= {"gamma": self.gamma, "degree": self.degree, "coef0": self.coef0}
        rows = unit_rows(X) if self.affinity == "cosine" else X  # the squares of rows near 1e160 are infinite
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            weights = pairwise_kernels(rows, metric=self.affinity, filter_params=True, **params)
        if not np.isfinite(weights).all():
            raise ValueError(
                f"affinity={self.affinity!r} gives weights beyond {weights.dtype} for rows of entries up to "
                f"{np.abs(X).max():.3g}. Scale the columns of X."
            )
        return affinity_matrix(weights, "precomputed", 1)


def _one_weight(affinity):
    """A function of two rows, whose weight is looked at."""

    def weight(a, b, **params):
        found = affinity(a, b, **params)
        number = as_real_numbers(found)
        if number is None or number.ndim:
            got = describe_value(found) if number is None else f"shape {number.shape}"
            raise ValueError(f"affinity gave {got} for two rows. Pass a function of two rows that gives a number >= 0.")
        return float(number)

    return weight


@register("spectral-embedding", "no clusters: places by eigenvectors of a graph, in Python alone", labels=False)
class SpectralEmbedding(_SpectralEstimator):
    """Rows by the smoothest vectors over their graph (Laplacian eigenmaps), as scikit-learn's estimator.

    Args:
        n_components: columns of the embedding. The first eigenvector, which is constant where the graph is connected,
            is left out.
        affinity: "nearest_neighbors", "rbf", "precomputed", "precomputed_nearest_neighbors", or a function of the rows
            that gives all weights.
        gamma: of "rbf", in units of 1 / data units²; None for 1 / n_features.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        order: None, or "canonical" to fit the rows sorted by their values: permuted rows then have the same labels.
        eigen_solver, n_jobs: accepted for scikit-learn's sake.
        eigen_tol: the largest residual of an eigenvector; "auto" for 1e-4. Closer eigenvalues are resolved further.
        n_neighbors: of the graphs of neighbors, each row itself among them; None for a tenth of the rows.

    Attributes:
        embedding_: (n_samples, n_components) eigenvectors divided by √degree.
        affinity_matrix_: (n_samples, n_samples) weights, dense or CSR.
        n_neighbors_: neighbors that were used, for graphs of them.
        eigenvalues_, residuals_, n_connected_components_, n_iter_, history_: as in `SpectralClustering`.
        status_: a `jaxcluster.types.Status`, how the eigensolver ended.
        n_features_in_, feature_names_in_: as in scikit-learn.
    """

    def __init__(
        self,
        n_components=2,
        *,
        affinity="nearest_neighbors",
        gamma=None,
        random_state=None,
        order=None,
        eigen_solver=None,
        eigen_tol="auto",
        n_neighbors=None,
        n_jobs=None,
    ):
        self.n_components = n_components
        self.affinity = affinity
        self.gamma = gamma
        self.random_state = random_state
        self.order = order
        self.eigen_solver = eigen_solver
        self.eigen_tol = eigen_tol
        self.n_neighbors = n_neighbors
        self.n_jobs = n_jobs

    @canonical
    def fit(self, X: Any, y: Any = None) -> SpectralEmbedding:
        """Embeds the rows.

        Args:
            X: (n_samples, n_features) array-like or DataFrame, or (n_samples, n_samples) weights or distances, dense or
                sparse, where the affinity is precomputed.
            y: ignored.

        Raises:
            ValueError, TypeError, MemoryError: as `SpectralClustering.fit`.

        Warns:
            UserWarning, ConvergenceWarning: the graph is not connected; eigenvectors that were not found.
        """
        X = self._checked(X)
        self._check_params(*X.shape)
        neighbors = max(X.shape[0] // 10, 1) if self.n_neighbors is None else self.n_neighbors
        self.n_neighbors_ = check.check_count("n_neighbors", neighbors)
        gamma = 1 / X.shape[1] if self.gamma is None else self.gamma
        x, options = self._graph_input(X, gamma, self.n_neighbors_)
        embedding = spectral.embed(
            as_key(self.random_state), x, self.n_components, drop_first=True, tol=self._tol(), **options
        )
        self._publish(embedding, published_dtype(X.data if scipy.sparse.issparse(X) else X))
        self.status_ = Status(int(embedding.status))
        return self

    def _check_params(self, n, d):
        super()._check_params(n, d)
        check.check_count("n_components", self.n_components)
        if self.n_neighbors is not None:
            check.check_count("n_neighbors", self.n_neighbors)

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Fits, and returns ``embedding_``."""
        return self.fit(X).embedding_

    def _matrix(self, X, n_neighbors):
        affinity = (lambda x, _: self.affinity(x)) if callable(self.affinity) else self.affinity
        return affinity_matrix(X, affinity, n_neighbors)

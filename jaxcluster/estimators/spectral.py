"""`SpectralClustering` and `SpectralEmbedding` with scikit-learn's interface, over `jaxcluster.spectral`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
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
from jaxcluster.core import validation
from jaxcluster.core.dtypes import published_dtype
from jaxcluster.core.messages import warn
from jaxcluster.core.processes import agree_on_key, count_rows, gather_parts, spans_processes
from jaxcluster.core.shard import own_mesh
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.datasets.dataframes import as_rows
from jaxcluster.estimators.base import Estimator, as_key
from jaxcluster.estimators.input_tables import canonical, rows_of_fit
from jaxcluster.estimators.registry import register
from jaxcluster.ops.metric_space import as_real_numbers, describe_value, unit_rows
from jaxcluster.ops.precomputed import uneven_pair
from jaxcluster.types import Absent, Status

NEIGHBORS = {"sparse": {"affinity": ("nearest_neighbors",)}}
"""Affinity of sparse samples."""

SOLVERS = ("arpack", "lobpcg", "amg")
"""Eigensolvers of scikit-learn. One solver is used here, whichever is named."""

EXACT_TOL = 1e-13
"""Residual for ``eigen_tol=0``: a few hundred roundings of float64, which products with many rows accumulate."""

EIGENVALUE_ROUNDING = 64 * float(np.finfo(np.float64).eps)
"""Relative rounding of an eigenvalue: so close to n / (n − 1) it is that of a graph of equal weights."""


REPORTED_ROWS = 5_000
"""Rows up to which a report shows eigenvalues beyond the number of clusters: these need all weights at once."""

FURTHER_EIGENVALUES = 6
"""Eigenvalues beyond the number of clusters in a report, to show the gap after it."""


class _SpectralEstimator(Estimator):
    """Base of spectral estimators: input, affinity matrix, and publication of the eigenvectors."""

    info = Estimator.info._replace(reported=("n_iter_",), objective="sum of the least eigenvalues")

    _affinities: tuple[str, ...] = spectral.AFFINITIES
    """Accepted names of ``affinity``."""

    _required_attributes = ("embedding_",)

    _n_trivial = 0
    """Number of published eigenvalues that are 0 by construction: the first one, or none."""

    # Parameters that both subclasses have, and the graph of the last fit: its rows for "rbf", else its weights.
    affinity: Any
    gamma: Any
    eigen_solver: Any
    eigen_tol: Any
    mesh: Any
    _rows: np.ndarray | Absent
    _weights: Any

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self._precomputed
        tags.input_tags.sparse = self._precomputed or self._by_neighbors
        return tags

    @property
    def affinity_matrix_(self) -> np.ndarray | scipy.sparse.csr_array:
        """(n_samples, n_samples) weights; those of "rbf" are computed on access, as the fit does not need them.

        Raises:
            MemoryError: n_samples² dense weights do not fit.
        """
        check_is_fitted(self)
        if self._weights is not None:
            return self._weights
        check_dense_memory(len(self._rows), "rbf")
        # By differences: ‖x‖² − 2x·y + ‖y‖² loses all digits of the distance of samples far from the origin. Scaled by
        # a power of 2 to entries near 1, of which squares neither underflow nor overflow.
        exponent = int(np.frexp(np.abs(self._rows).max())[1])
        rows = np.ldexp(self._rows.astype(np.float64), -exponent)
        with np.errstate(over="ignore", under="ignore"):
            # gamma in the scaled unit, but finite: ∞·0 for equal samples would be NaN, where the weight is 1.
            gamma = min(np.ldexp(float(self.gamma_), 2 * exponent), np.finfo(float).max)
            weights = np.exp(-gamma * cdist(rows, rows, "sqeuclidean"))
        return weights.astype(published_dtype(self._rows))

    @property
    def _precomputed(self):
        return isinstance(self.affinity, str) and self.affinity.startswith("precomputed")

    @property
    def _by_neighbors(self):
        return isinstance(self.affinity, str) and self.affinity == "nearest_neighbors"

    def _rows_or_matrix(self, X):
        """Samples, or the matrix, as an array or in CSR."""
        X = as_rows(X)
        if not self._precomputed:
            if is_sparse(X) and not self._by_neighbors:
                raise TypeError(
                    f"Sparse data was passed for X, and affinity={self.affinity!r} takes dense rows. "
                    f"{validation.dense_remedy(X, 'X')} Or pass affinity='nearest_neighbors', or take KMeans."
                )
            X = self._validate(X, reset=True)
            if X.shape[0] < 2:
                raise ValueError("Found array with 1 sample(s) while a minimum of 2 is required: one row has no graph.")
            return X
        formats = ["csr", "csc", "coo"]
        X = self._to_numeric(X, accept_sparse=formats, ensure_min_samples=2)
        return self._symmetric(X) if self.affinity == "precomputed" else X

    @staticmethod
    def _symmetric(X):
        """W if it is symmetric, else ½(W + Wᵀ) with a warning, as in scikit-learn."""
        if X.shape[0] != X.shape[1]:
            return X
        # In floating point first: W + Wᵀ of small integer dtypes overflows.
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
            validation.check_choice("eigen_solver", self.eigen_solver, SOLVERS)
        if not callable(self.affinity):
            validation.check_choice("affinity", self.affinity, self._affinities)
        if self.gamma is not None and isinstance(self.affinity, str) and self.affinity == "rbf":
            validation.check_positive("gamma", self.gamma)
        self._tol()

    def _tol(self):
        """Largest accepted residual of an eigenvector."""
        if isinstance(self.eigen_tol, str):
            validation.check_choice("eigen_tol", self.eigen_tol, ["auto"])
            return 1e-4
        validation.check_positive("eigen_tol", self.eigen_tol, zero=True)
        return self.eigen_tol or EXACT_TOL  # 0 means "as exact as possible" in scikit-learn

    def _graph_input(self, X, gamma, n_neighbors) -> tuple[Any, dict[str, Any]]:
        """Input of the function and its options: the samples for "rbf", else the affinity matrix, which is stored."""
        self._rows, self._weights, self.gamma_ = None, None, gamma
        if self.affinity == "rbf":
            self._rows = X
            return X, {"affinity": "rbf", "gamma": gamma}
        if "nearest_neighbors" in str(self.affinity) and n_neighbors > X.shape[0]:
            raise ValueError(f"n_neighbors={n_neighbors} must be at most n_samples={X.shape[0]}. Pass fewer.")
        self._weights = self._matrix(X, n_neighbors)
        return self._weights, {"affinity": "precomputed"}

    def _matrix(self, X, n_neighbors):
        return affinity_matrix(X, self.affinity, n_neighbors, self.mesh)

    def _gathered(self, X):
        """Rows of all processes where the mesh spans several, and the slice of the rows of this one."""
        rows_of_fit(self, X.shape[0])
        if spans_processes(self.mesh) and self._precomputed:
            raise ValueError(f"affinity={self.affinity!r} is for one process, which has all pairs: pass rows.")
        return gather_parts(self.mesh, X)

    def _publish(self, embedding, dtype, own):
        """Set the attributes of the eigenvectors; warn of an unusable graph and of vectors that did not converge."""
        host = jax.device_get(embedding)
        self.embedding_ = np.array(host.vectors[own], dtype)
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
        """True if the second eigenvalue is n / (n − 1), its maximum, which only equal weights of all pairs reach."""
        # For n = 2 the second eigenvalue is n / (n − 1) = 2 for any weight, so it says nothing there.
        n, further = count_rows(self.mesh, len(self.embedding_)), self.eigenvalues_[self._n_trivial :]
        return n > 2 and len(further) > 0 and further[0] * (n - 1) / n > 1 - EIGENVALUE_ROUNDING

    def _summary_metrics(self):
        return [f"largest residual {self.residuals_.max():.2g}"]


@register(
    "spectral",
    clusters="n_clusters",
    needs=NEIGHBORS,
    choices={"affinity": ("rbf", "nearest_neighbors"), "assign_labels": spectral.ASSIGNMENTS},
)
@dataclass(eq=False, repr=False)
class SpectralClustering(ClusterMixin, _SpectralEstimator):
    """Spectral clustering: k-means, or another assignment, of eigenvectors of the normalized graph Laplacian.

    Eigenvectors are computed in float64 by one solver, whatever ``eigen_solver`` names. No n_samples² array is built
    for "nearest_neighbors", nor for "rbf" of many samples; for even more samples see `jaxcluster.spectral.nystrom`.

    Args:
        n_clusters: number of clusters.
        eigen_solver: None, "arpack", "lobpcg" or "amg": accepted for compatibility with scikit-learn.
        n_components: number of eigenvectors; None for ``n_clusters``.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        order: None, or "canonical" to fit the samples sorted by value: permuted samples then have the same labels.
        n_init: number of initializations of k-means.
        gamma: coefficient of "rbf" and of other kernels, in 1 / data units².
        affinity: "nearest_neighbors", "rbf", "precomputed" (symmetric weights, dense or sparse),
            "precomputed_nearest_neighbors" (distances), the name of another kernel of
            ``sklearn.metrics.pairwise.pairwise_kernels``, or a function from two samples to their weight.
        n_neighbors: neighbors per sample in the graph, itself included.
        eigen_tol: largest residual ‖Lv − λv‖; "auto" for 1e-4. Close eigenvalues are resolved further.
        assign_labels: "kmeans", "discretize" or "cluster_qr".
        degree, coef0, kernel_params: parameters of other kernels, as in scikit-learn.
        n_jobs: accepted for compatibility with scikit-learn; all cores are used.
        mesh: devices over which the rows of the graph and of its vectors are spread, such as
            ``jaxcluster.sharding.row_mesh()``; None for one device. The neighbors of dense samples are searched there.
        verbose: print the sum of the eigenvalues of every step, and the assignment of labels, after the fit. Small
            graphs are solved without steps.

    Attributes:
        labels_: (n_samples,) int32.
        affinity_matrix_: (n_samples, n_samples) weights, dense or CSR.
        embedding_: (n_samples, n_components) eigenvectors divided by √degree.
        eigenvalues_: (n_components,) of the normalized Laplacian, ascending.
        residuals_: (n_components,) ‖Lv − λv‖.
        n_connected_components_: number of components with more than one sample.
        n_iter_, history_: steps of the eigensolver, and the sum of the least eigenvalues after each.
        status_: `jaxcluster.types.Status` of the eigensolver and of k-means.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> import numpy as np
        >>> X = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
        >>> np.bincount(SpectralClustering(n_clusters=2, gamma=0.1, random_state=0).fit_predict(X)).tolist()
        [3, 3]
    """

    _affinities = (*spectral.AFFINITIES, *KERNEL_PARAMS)

    _required_attributes = ("labels_", "embedding_")

    _n_trivial = 1

    n_clusters: Any = 8
    _: KW_ONLY
    eigen_solver: Any = None
    n_components: Any = None
    random_state: Any = None
    order: Any = None
    n_init: Any = 10
    gamma: Any = 1.0
    affinity: Any = "rbf"
    n_neighbors: Any = 10
    eigen_tol: Any = "auto"
    assign_labels: Any = "kmeans"
    degree: Any = 3
    coef0: Any = 1
    kernel_params: Any = None
    n_jobs: Any = None
    mesh: Any = None
    verbose: Any = False

    @canonical
    def fit(self, X: Any, y: Any = None) -> SpectralClustering:
        """Cluster the samples.

        Args:
            X: (n_samples, n_features) array-like or DataFrame, or (n_samples, n_samples) precomputed weights or
                distances, dense or sparse.
            y: ignored.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values; asymmetric or negative weights, with their
                position.
            MemoryError: n_samples² dense weights of a kernel do not fit.

        Warns:
            UserWarning: the graph is not connected.
            ConvergenceWarning: eigenvectors that did not converge, or fewer distinct samples than clusters.
        """
        X, own = self._gathered(self._rows_or_matrix(X))
        self._check_params(*X.shape)
        x, options = self._graph_input(X, self.gamma, self.n_neighbors)
        fit = spectral.fit(
            agree_on_key(as_key(self.random_state), self.mesh),
            x,
            self.n_clusters,
            n_components=self.n_components,
            assign_labels=self.assign_labels,
            n_init=self.n_init,
            tol=self._tol(),
            mesh=own_mesh(self.mesh),
            **options,
        )
        self._publish(fit.state, published_dtype(X.data if scipy.sparse.issparse(X) else X), own)
        labels = np.array(fit.labels)
        self.labels_ = labels[own]
        self.status_ = Status(int(fit.status))
        if self.status_ == Status.EMPTY_CLUSTERS:
            warn(
                f"Number of distinct clusters ({np.unique(labels).size}) found smaller than n_clusters "
                f"({self.n_clusters}): the embedding has too few distinct rows. Pass fewer clusters.",
                ConvergenceWarning,
            )
        self._print_history()
        if self.verbose:
            print(f"Computing label assignment using {self.assign_labels}")
        return self

    def _check_params(self, n, d):
        super()._check_params(n, d)
        validation.check_clusters(self.n_clusters, n, name="n_clusters")
        validation.check_count("n_neighbors", self.n_neighbors)
        validation.check_choice("assign_labels", self.assign_labels, spectral.ASSIGNMENTS)
        kmeans.check_runs("k-means++", self.n_init)
        if self.n_components is not None:
            validation.check_count("n_components", self.n_components)

    def report_parts(self, X: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The least eigenvalues of the Laplacian, a few more than there are clusters, and the graph if it is sparse."""
        n = len(self.labels_)
        if n > REPORTED_ROWS:
            return {"structure": {"eigenvalues": self.eigenvalues_}}
        weights = self.affinity_matrix_
        wanted = min(n, len(self.eigenvalues_) + FURTHER_EIGENVALUES)
        embedding = spectral.embed(jax.random.key(0), weights, wanted, affinity="precomputed")
        graph = {"graph": weights} if scipy.sparse.issparse(weights) else {}
        return {"structure": {"eigenvalues": np.asarray(embedding.eigenvalues), **graph}}

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit, and return ``labels_``."""
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
        rows = unit_rows(X) if self.affinity == "cosine" else X  # squares of entries near 1e160 overflow
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            weights = pairwise_kernels(rows, metric=self.affinity, filter_params=True, **params)
        if not np.isfinite(weights).all():
            raise ValueError(
                f"affinity={self.affinity!r} gives weights beyond {weights.dtype} for rows of entries up to "
                f"{np.abs(X).max():.3g}. Scale the columns of X."
            )
        return affinity_matrix(weights, "precomputed", 1)


def _one_weight(affinity) -> Any:
    """The caller's function of two samples, with a check that its weight is a real number."""

    def weight(a, b, **params):
        value = affinity(a, b, **params)
        number = as_real_numbers(value)
        if number is None or number.ndim:
            got = describe_value(value) if number is None else f"shape {number.shape}"
            raise ValueError(f"affinity gave {got} for two rows. Pass a function of two rows that gives a number >= 0.")
        return float(number)

    return weight


@register("spectral-embedding", needs=NEIGHBORS)
@dataclass(eq=False, repr=False)
class SpectralEmbedding(_SpectralEstimator):
    """Laplacian eigenmaps: samples embedded by the smoothest vectors over their graph; scikit-learn's interface.

    Args:
        n_components: dimension of the embedding. The first eigenvector, which is constant for a connected graph, is
            dropped.
        affinity: "nearest_neighbors", "rbf", "precomputed", "precomputed_nearest_neighbors", or a function from the
            samples to all weights.
        gamma: coefficient of "rbf", in 1 / data units²; None for 1 / n_features.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        order: None, or "canonical" to fit the samples sorted by value: permuted samples then have the same labels.
        eigen_solver, n_jobs: accepted for compatibility with scikit-learn.
        eigen_tol: largest residual ‖Lv − λv‖; "auto" for 1e-4. Close eigenvalues are resolved further.
        n_neighbors: neighbors per sample in the graph, itself included; None for n_samples / 10.
        mesh: as in `SpectralClustering`.

    Attributes:
        embedding_: (n_samples, n_components) eigenvectors divided by √degree.
        affinity_matrix_: (n_samples, n_samples) weights, dense or CSR.
        n_neighbors_: effective ``n_neighbors``.
        eigenvalues_, residuals_, n_connected_components_, n_iter_, history_: as in `SpectralClustering`.
        status_: `jaxcluster.types.Status` of the eigensolver.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> import numpy as np
        >>> X = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
        >>> SpectralEmbedding(n_components=1, affinity="rbf", random_state=0).fit_transform(X).shape
        (6, 1)
    """

    n_components: Any = 2
    _: KW_ONLY
    affinity: Any = "nearest_neighbors"
    gamma: Any = None
    random_state: Any = None
    order: Any = None
    eigen_solver: Any = None
    eigen_tol: Any = "auto"
    n_neighbors: Any = None
    n_jobs: Any = None
    mesh: Any = None

    @canonical
    def fit(self, X: Any, y: Any = None) -> SpectralEmbedding:
        """Embed the samples.

        Args:
            X: (n_samples, n_features) array-like or DataFrame, or (n_samples, n_samples) precomputed weights or
                distances, dense or sparse.
            y: ignored.

        Raises:
            ValueError, TypeError, MemoryError: as `SpectralClustering.fit`.

        Warns:
            UserWarning, ConvergenceWarning: a graph that is not connected; eigenvectors that did not converge.
        """
        X, own = self._gathered(self._rows_or_matrix(X))
        self._check_params(*X.shape)
        neighbors = max(X.shape[0] // 10, 1) if self.n_neighbors is None else self.n_neighbors
        self.n_neighbors_ = validation.check_count("n_neighbors", neighbors)
        gamma = 1 / X.shape[1] if self.gamma is None else self.gamma
        x, options = self._graph_input(X, gamma, self.n_neighbors_)
        options |= {"drop_first": True, "tol": self._tol(), "mesh": own_mesh(self.mesh)}
        embedding = spectral.embed(agree_on_key(as_key(self.random_state), self.mesh), x, self.n_components, **options)
        self._publish(embedding, published_dtype(X.data if scipy.sparse.issparse(X) else X), own)
        self.status_ = Status(int(embedding.status))
        return self

    def _check_params(self, n, d):
        super()._check_params(n, d)
        validation.check_count("n_components", self.n_components)
        if self.n_neighbors is not None:
            validation.check_count("n_neighbors", self.n_neighbors)

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit, and return ``embedding_``."""
        return self.fit(X).embedding_

    def _matrix(self, X, n_neighbors):
        affinity = (lambda x, _: self.affinity(x)) if callable(self.affinity) else self.affinity
        return affinity_matrix(X, affinity, n_neighbors, self.mesh)

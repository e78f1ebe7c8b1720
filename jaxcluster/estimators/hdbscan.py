"""`HDBSCAN` with scikit-learn's interface, over `jaxcluster.hdbscan`."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from sklearn.neighbors import BallTree, KDTree
from sklearn.utils.validation import check_is_fitted

from jaxcluster.cluster import hdbscan
from jaxcluster.cluster.hdbscan.fit import check_selection, check_sizes
from jaxcluster.cluster.hdbscan.tree import CondensedTree
from jaxcluster.core import validation
from jaxcluster.core.processes import own_rows
from jaxcluster.core.sparse_input import as_csr
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.datasets.dataframes import as_rows
from jaxcluster.estimators.input_tables import rows_of_fit
from jaxcluster.estimators.metric_base import METRIC_CHOICES, METRIC_NEEDS, MetricEstimator
from jaxcluster.estimators.registry import register
from jaxcluster.ops.distance import plain_metric
from jaxcluster.ops.gower import gower
from jaxcluster.ops.spanning_tree import Tree
from jaxcluster.types import Status

ALGORITHMS = ("auto", "brute", "kd_tree", "ball_tree")
"""Neighbor searches of scikit-learn. One exact search is used here, whichever is named."""

TREES = {"kd_tree": KDTree, "ball_tree": BallTree}
"""Neighbor searches that accept only some metrics in scikit-learn."""

CENTERS = ("centroid", "medoid", "both")
"""Values of ``store_centers``."""


@register(
    "hdbscan",
    takes_missing=True,
    needs={kind: METRIC_NEEDS[kind] for kind in ("sparse", "categories")},
    choices={"metric": METRIC_CHOICES, "cluster_selection_method": hdbscan.METHODS},
)
@dataclass(eq=False, repr=False)
class HDBSCAN(MetricEstimator):
    """Hierarchical density-based clustering: clusters of any shape and density by their stability, and noise.

    Labels and probabilities equal those of scikit-learn's estimator, element by element. Its keywords of the neighbor
    search (``algorithm``, ``leaf_size``, ``n_jobs``) are checked in the same way and have no effect, and X is never
    changed, whatever ``copy`` says. The method is deterministic. `predict`, `approximate_predict` and
    `membership_vectors` are additions, for new samples.

    Args:
        min_cluster_size: minimum number of samples of a cluster, at least 2.
        min_samples: number of nearest samples, the sample itself included, that define its core distance; None for
            ``min_cluster_size``.
        cluster_selection_epsilon: minimum distance of a split, in the units of the metric.
        max_cluster_size: maximum number of samples of a cluster, where "eom" can choose; None for no bound.
        metric: a name that `jaxcluster.hdbscan.fit` accepts, such as "euclidean"; "precomputed" if X holds distances;
            "gower" for a table of numbers and categories that may have missing cells; or a function from two samples
            to their distance, or from two matrices (m, d) and (n, d) to (m, n) distances.
        metric_params: None, or parameters of the metric: ``{"p": …}`` or ``{"V": …}``, as in scikit-learn; for "gower"
            ``{"categorical": …}``, the categorical columns by position or name, if their types do not say.
        alpha: divisor of distances, and of core distances where scikit-learn divides them.
        algorithm: "auto", "brute", "kd_tree" or "ball_tree"; the trees accept only some metrics.
        leaf_size, n_jobs, copy: as in scikit-learn, whose "warn" is taken too.
        cluster_selection_method: "eom" (excess of mass: the most stable clusters) or "leaf" (those that split no
            further).
        allow_single_cluster: True if all samples may be one cluster.
        store_centers: "centroid", "medoid" or "both" to have ``centroids_``, ``medoids_``; None for neither.
        p: power of "minkowski", at least 1, if ``metric_params`` has none.
        mesh: devices over which dense samples of a fit are spread, such as ``jaxcluster.sharding.row_mesh()``, for
            Euclidean and cosine distances; None for one device.

    Attributes:
        labels_: (n_samples,) int32: -1 for noise, -2 for samples with infinity, -3 for samples with NaN.
        probabilities_: (n_samples,) strength of membership in the cluster, 0 for noise and samples with infinity, NaN
            for samples with NaN.
        outlier_scores_: (n_samples,) GLOSH outlier scores in [0, 1]; 1 for samples with infinity, NaN for samples with
            NaN.
        condensed_tree_: `jaxcluster.hdbscan.CondensedTree` of the finite samples.
        single_linkage_tree_: (n_finite - 1, 4) hierarchy in the format of `scipy.cluster.hierarchy`.
        minimum_spanning_tree_: ``edges`` (n_finite - 1, 2) and their ``weights``, by mutual reachability.
        core_distances_: (n_finite,) distance to the ``min_samples``-th nearest sample.
        finite_: (n_finite,) indices of the finite samples, which the trees number.
        centroids_, medoids_: (n_clusters, n_features), if ``store_centers`` asks for them; medoids are encoded for
            "gower".
        status_: `jaxcluster.types.Status`, always CONVERGED: nothing iterates.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> import numpy as np
        >>> X = np.array([[1, 1], [1, 2], [2, 1], [2, 2], [8, 8], [8, 9], [9, 8], [25, 80]])
        >>> HDBSCAN(min_cluster_size=3).fit(X).labels_.tolist()
        [0, 0, 0, 0, 1, 1, 1, -1]
    """

    _required_attributes = (
        *("labels_", "minimum_spanning_tree_", "single_linkage_tree_", "condensed_tree_", "core_distances_", "finite_"),
        *("_fitted_rows", "_clusters", "_settings"),
    )

    min_cluster_size: Any = 5
    min_samples: Any = None
    cluster_selection_epsilon: Any = 0.0
    max_cluster_size: Any = None
    metric: Any = "euclidean"
    metric_params: Any = None
    alpha: Any = 1.0
    algorithm: Any = "auto"
    leaf_size: Any = 40
    n_jobs: Any = None
    cluster_selection_method: Any = "eom"
    allow_single_cluster: Any = False
    store_centers: Any = None
    copy: Any = True
    _: KW_ONLY
    p: Any = 2.0
    mesh: Any = None

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = not self._precomputed
        return tags

    def fit(self, X: Any, y: Any = None) -> HDBSCAN:
        """Cluster the samples.

        Args:
            X: (n_samples, n_features) array-like or DataFrame, for Euclidean and cosine distances also a sparse matrix,
                in which samples with NaN or infinity get separate labels; or (n_samples, n_samples) symmetric
                precomputed distances. Distances that a sparse matrix does not store are infinite.
            y: ignored.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values; a sparse matrix of distances whose graph is not
                connected.

        Warns:
            UserWarning: a dense matrix of distances whose finite entries make no connected graph.
        """
        X = self._rows_or_distances(X, reset=True)
        self._check_params(rows_of_fit(self, X.shape[0]), X.shape[1])
        fit = hdbscan.fit(
            X,
            min_cluster_size=self.min_cluster_size,
            min_samples=self.min_samples,
            cluster_selection_method=self.cluster_selection_method,
            cluster_selection_epsilon=self.cluster_selection_epsilon,
            max_cluster_size=self.max_cluster_size,
            allow_single_cluster=self.allow_single_cluster,
            alpha=self.alpha,
            metric=gower if self._by_gower else self.metric,
            metric_params=None if self._by_gower else self.metric_params,
            p=self.p,
            mesh=self.mesh,
        )
        self._publish(fit.state, own_rows(self.mesh, X.shape[0]))
        self._keep_labels(fit.labels)
        self.status_ = Status(int(fit.status))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Label new samples, (n_samples,) int32, -1 for noise: see `approximate_predict`."""
        return self.approximate_predict(X)[0]

    def approximate_predict(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Label new samples in the fitted hierarchy, which each leaves unchanged, with their strength of membership.

        Args:
            X: (n_samples, n_features) array-like, or precomputed distances to all samples of the fit.

        Returns:
            (n_samples,) int32 labels, -1 for noise, and (n_samples,) probabilities.
        """
        check_is_fitted(self)
        return hdbscan.approximate_predict(self._state(), self._rows_or_distances(X, reset=False))

    def membership_vectors(self, X: Any = None) -> np.ndarray:
        """Membership of each sample in each cluster, (n_samples, n_clusters); the rest to 1 is noise.

        Args:
            X: (n_samples, n_features) array-like, or precomputed distances to all samples of the fit. None for the
                samples of the fit.
        """
        check_is_fitted(self)
        return hdbscan.membership_vectors(self._state(), None if X is None else self._rows_or_distances(X, reset=False))

    def dbscan_clustering(self, cut_distance: float, min_cluster_size: int = 5) -> np.ndarray:
        """Clusters of a cut at one distance, (n_samples,) int32: those of DBSCAN, with border samples as noise.

        Args:
            cut_distance: distance of the cut, in the units of the metric.
            min_cluster_size: minimum number of samples of a cluster; smaller ones are noise.
        """
        check_is_fitted(self)
        return hdbscan.dbscan_clustering(self._state(), cut_distance, min_cluster_size=min_cluster_size)

    def report_parts(self, X: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The condensed tree; the dendrogram too where any cluster in the tree splits."""
        tree = self.condensed_tree_
        splits = bool((np.asarray(tree.child_size) > 1).any())
        merges = {"merges": self.single_linkage_tree_, "least_branch": self.min_cluster_size} if splits else {}
        return {"structure": {"condensed_tree": tree, **merges}}

    def _check_params(self, n, d):
        super()._check_params(n, d)
        check_sizes(self.min_cluster_size, self.min_samples, self.max_cluster_size)
        check_selection(self.cluster_selection_method, self.cluster_selection_epsilon, self.alpha)
        validation.check_choice("algorithm", self.algorithm, ALGORITHMS)
        validation.check_count("leaf_size", self.leaf_size)
        if self.n_jobs is not None and not isinstance(self.n_jobs, (int, np.integer)):
            raise TypeError(f"n_jobs must be None or an integer, got {self.n_jobs!r}.")
        copy = False if self.copy == "warn" else self.copy  # scikit-learn's default
        for name, value in (("allow_single_cluster", self.allow_single_cluster), ("copy", copy)):
            if not isinstance(value, (bool, np.bool_)):
                raise TypeError(f"{name} must be True or False, got {value!r}.")
        if not isinstance(self.metric_params, (dict, type(None))):
            raise TypeError(f"metric_params must be None or a dict, got {self.metric_params!r}.")
        tree = TREES.get(self.algorithm)
        if tree is not None and self.metric not in tree.valid_metrics:
            raise ValueError(
                f"{self.metric} is not a valid metric for a {tree.__name__}-based algorithm. Please select a different "
                "metric. algorithm='auto' takes every metric."
            )
        self._check_metric()
        if self.store_centers is None:
            return
        validation.check_choice("store_centers", self.store_centers, CENTERS)
        if self._by_gower and self.store_centers != "medoid":
            raise ValueError("metric='gower' has no centroids: pass store_centers='medoid'.")
        if self._precomputed:
            raise ValueError(
                "Cannot store centers when using a precomputed distance matrix. Rows of which only distances are known "
                f"lie nowhere: leave out store_centers={self.store_centers!r}."
            )

    def _check_attributes(self):
        super()._check_attributes()
        # Predictions use indices from one array in another, so the sizes of all must agree.
        state = self._state()
        n = len(state.finite)
        if not isinstance(state.condensed, CondensedTree) or not isinstance(state.tree, Tree):
            raise ValueError(f"the trees are not those of {n} rows.")
        state.condensed.check(n)
        selected, threshold = state.selected, state.root_threshold
        whole = isinstance(selected, np.ndarray) and selected.ndim == 1 and selected.dtype.kind == "i"
        if not whole or not ((selected >= n) & (selected < n + state.condensed.clusters)).all():
            raise ValueError("the selected clusters are not those of the tree.")
        if np.unique(selected).size != selected.size or not isinstance(threshold, float) or math.isnan(threshold):
            raise ValueError("the selected clusters are not those of the tree.")
        self._check_settings(state)
        if np.shape(state.merges) != (n - 1, 4):
            raise ValueError(f"single_linkage_tree_ is not that of {n} rows.")
        whole = isinstance(state.finite, np.ndarray) and state.finite.dtype.kind in "iu" and n > 1
        if not whole or np.shape(state.core) != (n,) or np.shape(state.x)[0] < n or len(state.labels) < n:
            raise ValueError(f"finite_, core_distances_ and the rows are not those of {n} rows.")

    def _check_settings(self, state):
        """Raise ValueError unless the metric of the fit, which was bound to its parameters, is one of its rows."""
        metric, numbers = self._settings["metric"], (state.p, state.alpha)
        if not isinstance(metric, str) or not isinstance(state.params, (dict, type(None))):
            raise ValueError(f"the metric of the fit is {metric!r}.")
        if not all(isinstance(each, (int, float)) and each > 0 for each in numbers):
            raise ValueError(f"p={state.p!r} and alpha={state.alpha!r} of the fit are no positive numbers.")
        validation.check_count("min_samples", state.min_samples)
        function = state.function
        if callable(function) and not self._by_gower:
            function(state.x[:1], state.x[:1])
        elif not self._by_gower:
            plain_metric(function, state.p, also=("precomputed",))

    def _rows_or_distances(self, X, *, reset):
        """Samples, possibly with NaN or infinity, or distances, as a NumPy or CSR array."""
        if self._by_gower:
            return self._encode(X, reset=reset)
        X = as_rows(X)
        if not self._precomputed and is_sparse(X):
            X = as_csr(X, name="X")
        return self._to_numeric(X, reset=reset, accept_sparse="csr" if reset or not self._precomputed else False)

    def _publish(self, state, own):
        self.probabilities_ = hdbscan.probabilities(state)[own]
        self.outlier_scores_ = hdbscan.outlier_scores(state)[own]
        self.condensed_tree_ = state.condensed
        self.single_linkage_tree_ = state.merges
        self.finite_ = state.finite
        self.minimum_spanning_tree_ = state.tree
        self.core_distances_ = state.core
        self._clusters = {"selected": state.selected, "root_threshold": float(state.root_threshold)}
        # Samples are copied, for the caller may change X after the fit; n² distances are too many to copy.
        self._fitted_rows = state.x if self._precomputed else state.x.copy()
        self._settings = {name: getattr(state, name) for name in ("metric", "params", "p", "alpha", "min_samples")}
        if self._by_gower:
            self._settings["metric"] = self.metric  # a function cannot be saved
        if self.store_centers in ("centroid", "both"):
            self.centroids_ = hdbscan.centroids(state)
        if self.store_centers in ("medoid", "both"):
            self.medoids_ = hdbscan.medoids(state)

    def _state(self):
        check_is_fitted(self)
        settings: dict[str, Any] = self._settings | ({"metric": gower} if self._by_gower else {})
        return hdbscan.HDBSCANState(
            tree=self.minimum_spanning_tree_,
            merges=self.single_linkage_tree_,
            condensed=self.condensed_tree_,
            labels=self._labels_of_all,
            finite=self.finite_,
            core=self.core_distances_,
            x=self._fitted_rows,
            **self._clusters,
            **settings,
        )

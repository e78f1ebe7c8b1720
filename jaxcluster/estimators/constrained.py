"""k-means under constraints: `BalancedKMeans` (sizes of clusters) and `ConstrainedKMeans` (pairs of rows)."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from jaxcluster.cluster import balanced, constrained
from jaxcluster.cluster.balanced.dual_newton import check_sizes
from jaxcluster.cluster.seeding import AUTO_RESTARTS
from jaxcluster.core.processes import gather_parts
from jaxcluster.estimators.base import CenterEstimator
from jaxcluster.estimators.input_tables import canonical, rows_of_fit
from jaxcluster.estimators.registry import register


@register("balanced-kmeans")
@dataclass(eq=False, repr=False)
class BalancedKMeans(CenterEstimator):
    """k-means with bounds on cluster sizes; by default sizes differ by at most one.

    The bounds hold exactly for the samples of the fit, and each step finds the assignment of least cost within them (a
    minimum-cost flow). `predict` and `score` use the nearest center: no bounds apply there, not even to the samples of
    the fit. There are no sample weights: a fractional weight would have to be split between clusters.

    Args:
        n_clusters: number of clusters.
        size_min: minimum number of samples of a cluster, or (n_clusters,) one per cluster.
        size_max: maximum number. None for both is ⌊n/k⌋ and ⌈n/k⌉; None for one of them is no bound.
        init: "k-means++", "random", "k-means||", (n_clusters, n_features) centers, or a callable
            ``init(X, n_clusters, random_state)`` that returns them.
        n_init: number of runs with different initializations, of which the least inertia wins. "auto" is 10 if ``init``
            is "random" or a callable, else 1.
        max_iter: maximum number of steps of a run.
        tol: stop when Σ‖Δc‖² <= tol × the mean variance of the features.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        order: None, or "canonical" to fit the samples sorted by value: permuted samples then have the same labels.
        mesh: devices over which the samples are spread, such as ``jaxcluster.sharding.row_mesh()``; None for one. The
            host assigns them all the same.

    Attributes:
        cluster_centers_: (n_clusters, n_features).
        labels_: (n_samples,) int32.
        cluster_sizes_: (n_clusters,) int32 number of samples of each cluster.
        inertia_: Σ‖x − c‖² (data units²).
        n_iter_: steps of the best run.
        history_: (n_iter_,) inertia after each step.
        status_: `jaxcluster.types.Status` of the iteration.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> import numpy as np
        >>> X = np.array([[0.0], [1.0], [2.0], [3.0], [100.0], [101.0]])
        >>> BalancedKMeans(n_clusters=2, random_state=0).fit(X).cluster_sizes_.tolist()
        [3, 3]
    """

    n_clusters: Any = 8
    _: KW_ONLY
    size_min: Any = None
    size_max: Any = None
    init: Any = "k-means++"
    n_init: Any = "auto"
    max_iter: Any = 300
    tol: Any = 1e-4
    random_state: Any = None
    order: Any = None
    mesh: Any = None

    @canonical
    def fit(self, X: Any, y: Any = None) -> BalancedKMeans:
        """Cluster the samples.

        Args:
            X: (n_samples, n_features) array-like or DataFrame; sparse matrices are refused.
            y: ignored.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values; bounds that n_samples cannot satisfy.

        Warns:
            ConvergenceWarning: empty clusters, if ``size_min`` allows them, or values beyond float32.
        """
        X = self._validate(X, reset=True)
        rows_of_fit(self, X.shape[0])
        X, own = gather_parts(self.mesh, X)
        self._check_params(*X.shape)
        bounds = {"size_min": self.size_min, "size_max": self.size_max}
        options = {"tol": self.tol, "max_steps": self.max_iter, "mesh": self.mesh, **bounds}
        runs = self._n_runs(auto=AUTO_RESTARTS)
        fit, frame = self._fit_from_starts(balanced.fit_framed, X, runs, **options)
        fit = self._publish(fit, frame, X, None)
        self.labels_ = self.labels_[own]
        self.cluster_sizes_ = np.array(fit.state.sizes)
        self.n_iter_ = int(fit.steps)
        return self

    def _check_params(self, n, d):
        super()._check_params(n, d)
        check_sizes(self.size_min, self.size_max, n, self.n_clusters)

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit, and return ``labels_``."""
        return self.fit(X).labels_

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Fit, and return the distance of each sample to each center."""
        return self.fit(X).transform(X)


@register("constrained-kmeans")
@dataclass(eq=False, repr=False)
class ConstrainedKMeans(CenterEstimator):
    """k-means with must-link and cannot-link pairs of samples.

    The pairs hold exactly for the samples of the fit. `predict` and `score` use the nearest center: no pairs apply
    there, not even to the samples of the fit.

    Args:
        n_clusters: number of clusters.
        init: "k-means++", "random", "k-means||", (n_clusters, n_features) centers, or a callable
            ``init(X, n_clusters, random_state)`` that returns them.
        n_init: number of runs with different initializations, of which the least inertia wins. "auto" is 10 if ``init``
            is "random" or a callable, else 1.
        max_iter: maximum number of steps of a run.
        tol: stop when Σ‖Δc‖² <= tol × the mean variance of the features.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        order: None, or "canonical" to fit the samples sorted by value: permuted samples then have the same labels.

    Attributes:
        cluster_centers_: (n_clusters, n_features).
        labels_: (n_samples,) int32.
        cluster_sizes_: (n_clusters,) int32 number of samples of each cluster.
        inertia_: Σ w·‖x − c‖² (data units²).
        n_iter_: steps of the best run.
        history_: (n_iter_,) inertia after each step.
        status_: `jaxcluster.types.Status` of the iteration.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> import numpy as np
        >>> X = np.array([[0.0], [1.0], [2.0], [100.0], [101.0], [102.0]])
        >>> labels = ConstrainedKMeans(n_clusters=2, random_state=0).fit_predict(X, cannot_link=[[0, 1]])
        >>> bool(labels[0] != labels[1])
        True
    """

    n_clusters: Any = 8
    _: KW_ONLY
    init: Any = "k-means++"
    n_init: Any = "auto"
    max_iter: Any = 300
    tol: Any = 1e-4
    random_state: Any = None
    order: Any = None

    @canonical
    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, must_link: Any = None, cannot_link: Any = None
    ) -> ConstrainedKMeans:
        """Cluster the samples.

        Args:
            X: (n_samples, n_features) array-like or DataFrame; sparse matrices are refused.
            y: ignored.
            sample_weight: (n_samples,) non-negative weights, or None for 1 each.
            must_link: (m, 2) indices of samples that share a cluster.
            cannot_link: (m, 2) indices of samples in different clusters.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values; contradictory pairs, and pairs that need more
                clusters.

        Warns:
            ConvergenceWarning: fewer distinct samples than clusters, or values beyond float32.
        """
        X = self._validate(X, reset=True)
        self._check_params(*X.shape)
        weights = self._check_weights(sample_weight, X.shape[0])
        pairs = {"must_link": must_link, "cannot_link": cannot_link}
        options = {"weights": weights, "tol": self.tol, "max_steps": self.max_iter, **pairs}
        runs = self._n_runs(auto=AUTO_RESTARTS)
        fit, frame = self._fit_from_starts(constrained.fit_framed, X, runs, **options)
        fit = self._publish(fit, frame, X, weights)
        self.cluster_sizes_ = np.bincount(self.labels_, minlength=self.n_clusters).astype(np.int32)
        self.n_iter_ = int(fit.steps)
        return self

    def fit_predict(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, must_link: Any = None, cannot_link: Any = None
    ) -> np.ndarray:
        """Fit, and return ``labels_``."""
        return self.fit(X, None, sample_weight, must_link=must_link, cannot_link=cannot_link).labels_

    def fit_transform(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, must_link: Any = None, cannot_link: Any = None
    ) -> Any:
        """Fit, and return the distance of each sample to each center."""
        return self.fit(X, None, sample_weight, must_link=must_link, cannot_link=cannot_link).transform(X)

"""`DBSCAN` and `OPTICS` with scikit-learn's interface, over `jaxcluster.dbscan` and `jaxcluster.optics`."""

from __future__ import annotations

import math
import os
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from sklearn.exceptions import DataConversionWarning
from sklearn.metrics.pairwise import PAIRWISE_BOOLEAN_FUNCTIONS
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from jaxcluster.cluster import dbscan, optics
from jaxcluster.cluster.optics.extract import as_count
from jaxcluster.cluster.optics.reachability import check_limits
from jaxcluster.core import memory, validation
from jaxcluster.core.messages import warn
from jaxcluster.estimators.input_tables import rows_of_fit
from jaxcluster.estimators.metric_base import METRIC_CHOICES, MetricEstimator
from jaxcluster.estimators.registry import register
from jaxcluster.model_selection import sampled_rows
from jaxcluster.ops.metric_space import MetricSpace, as_metric_space, rescale_space
from jaxcluster.ops.neighbors.exact_knn import nearest_rows
from jaxcluster.types import Status

CURVE_ROWS = 5_000
"""Rows whose neighbor distances make the curve of a report, by which a radius is chosen."""


def _can_predict(estimator) -> bool:
    """True if new samples can be labeled; else AttributeError, as for a missing method, with the reason."""
    if estimator._precomputed:
        raise AttributeError("metric='precomputed' knows no distances of new rows: fit rows with a metric, to predict.")
    return True


@register("dbscan")
@dataclass(eq=False, repr=False)
class DBSCAN(MetricEstimator):
    """Density-based clustering: clusters of any shape around core samples, and noise between them.

    Labels and core samples equal those of scikit-learn's estimator, element by element, for any dtype of the samples.
    Its keywords of the neighbor search (``algorithm``, ``leaf_size``, ``n_jobs``) are checked in the same way and have
    no effect. The method is deterministic. `predict` is an addition: it labels new samples.

    Args:
        eps: maximum distance between neighbors, in the units of the metric.
        min_samples: minimum total weight of the samples within ``eps`` of a core sample, itself included.
        metric: a name that `jaxcluster.dbscan.fit` accepts, such as "euclidean", "seuclidean", "mahalanobis" or one of
            SciPy's boolean metrics; "precomputed" if X holds distances; "gower" for a table of numbers and categories
            that may have missing cells; or a function from two samples to their distance, or from two matrices (m, d)
            and (n, d) to (m, n) distances.
        metric_params: None, or parameters of the metric: ``{"p": …}`` or ``{"V": …}``, as in scikit-learn; for "gower"
            ``{"categorical": …}``, the categorical columns by position or name, if their types do not say.
        algorithm: "auto", "brute", "kd_tree" or "ball_tree"; the trees accept only some metrics.
        leaf_size, n_jobs: as in scikit-learn.
        p: power of "minkowski", at least 1, if ``metric_params`` has none; None for 2.
        mesh: devices over which dense samples of a fit are spread, such as ``jaxcluster.sharding.row_mesh()``, for
            Euclidean and cosine distances; None for one device.

    Attributes:
        core_sample_indices_: (n_core,) ascending indices of the core samples.
        components_: (n_core, n_features) the core samples; sparse for a sparse matrix of distances, encoded for
            "gower".
        labels_: (n_samples,) int32, -1 for noise; clusters are numbered by their first core sample.
        status_: `jaxcluster.types.Status`, always CONVERGED: nothing iterates. All samples may be noise; the repr says
            so.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> import numpy as np
        >>> X = np.array([[1, 2], [2, 2], [2, 3], [8, 7], [8, 8], [25, 80]])
        >>> DBSCAN(eps=3, min_samples=2).fit(X).labels_.tolist()
        [0, 0, 0, 1, 1, -1]
    """

    _required_attributes = ("labels_", "core_sample_indices_", "components_")

    eps: Any = 0.5
    _: KW_ONLY
    min_samples: Any = 5
    metric: Any = "euclidean"
    metric_params: Any = None
    algorithm: Any = "auto"
    leaf_size: Any = 30
    p: Any = None
    n_jobs: Any = None
    mesh: Any = None

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> DBSCAN:
        """Cluster the samples.

        Args:
            X: (n_samples, n_features) array-like or DataFrame, or (n_samples, n_samples) precomputed distances. Entries
                that a sparse matrix does not store are infinite, and an entry of only one side of a pair counts for
                both. Sparse samples are taken for Euclidean and cosine distances.
            y: ignored.
            sample_weight: (n_samples,) weights, or None for 1 each; weight 2 equals the sample twice, a negative weight
                keeps its neighbors from being core samples.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values.

        Warns:
            UserWarning: an asymmetric matrix of distances; the neighbors of a sample are those of its own row.
        """
        X = self._rows_or_distances(X, reset=True)
        self._check_params(rows_of_fit(self, X.shape[0]), X.shape[1])
        weights = self._check_signed_weights(sample_weight, X.shape[0])
        metric, p = self._resolve_metric()
        options = {"eps": self.eps, "min_samples": self.min_samples, "weights": weights, "metric": metric, "p": p}
        fit = dbscan.fit(X, **options, mesh=self.mesh)
        self._keep_labels(fit.labels)
        self.core_sample_indices_ = np.flatnonzero(fit.state.core)
        components = fit.state.components
        self.components_ = components if scipy.sparse.issparse(components) else np.array(components)
        self.status_ = Status(int(fit.status))
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Fit, and return ``labels_``."""
        return self.fit(X, sample_weight=sample_weight).labels_

    @available_if(_can_predict)
    @memory.guarded
    def predict(self, X: Any) -> np.ndarray:
        """Label each sample, (n_samples,) int32: the first cluster with a core sample within ``eps``, -1 for none.

        For the samples of the fit these are ``labels_``.
        """
        check_is_fitted(self)
        X = self._rows_or_distances(X, reset=False)
        metric, p = self._resolve_metric()
        return np.array(dbscan.predict(self._state(), X, metric=metric, p=p))

    def _check_params(self, n, d):
        super()._check_params(n, d)
        self._check_search()
        self._check_metric()
        validation.check_positive("eps", self.eps)
        validation.check_positive("min_samples", self.min_samples)

    def _check_attributes(self):
        super()._check_attributes()
        core, n = np.asarray(self.core_sample_indices_), len(self._labels_of_all)
        if core.ndim != 1 or core.dtype.kind not in "iu" or not ((core >= 0) & (core < n)).all():
            raise ValueError(f"core_sample_indices_ are not numbers of the {n} samples.")
        if self.components_.shape != (len(core), self.n_features_in_):
            raise ValueError(f"components_ are not the {len(core)} core samples.")

    @staticmethod
    def _check_signed_weights(sample_weight, n):
        """Sample weights as in other estimators, except that they may be negative, as in scikit-learn's DBSCAN."""
        if sample_weight is None:
            return None
        weights = validation.as_real_array(sample_weight, name="sample_weight")
        weights = np.full(n, weights) if weights.ndim == 0 else weights
        validation.check_finite(weights, name="sample_weight")
        if weights.shape != (n,):
            raise ValueError(f"sample_weight must have shape ({n},), one a row, got {weights.shape}.")
        if not weights.any():
            raise ValueError("sample_weight: all are zero. Sample weights must contain at least one non-zero number.")
        return weights

    def report_parts(self, X: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The sorted distances of some rows to the neighbor that makes them core samples, for fits without weights."""
        nearest = math.ceil(self.min_samples)
        if sample_weight is not None or nearest > np.shape(X)[0]:
            return {}
        X = self._encode(X, reset=False) if self._by_gower else X
        metric, p = self._resolve_metric()
        space, exponent = rescale_space(as_metric_space(X, metric, p=p))
        rows = sampled_rows(np.shape(X)[0], CURVE_ROWS)
        if isinstance(space, MetricSpace):
            distances = nearest_rows(space, nearest, queries=space.x[rows])[1][:, -1]
        else:
            distances = nearest_rows(space, nearest)[1][rows, -1]
        distances = np.ldexp(distances, -exponent)
        return {"structure": {"neighbor_distances": distances, "min_samples": nearest, "eps": self.eps}}

    def _state(self):
        # New samples take the label of a core sample, never of a border sample.
        every = self._labels_of_all
        core = np.zeros(len(every), bool)
        core[self.core_sample_indices_] = True
        labels = jnp.asarray(every[core])
        return dbscan.DBSCANState(jnp.asarray(core), self.components_, labels, np.asarray(self.eps, np.float64))


@register(
    "optics",
    choices={"metric": METRIC_CHOICES, "cluster_method": optics.METHODS},
)
@dataclass(eq=False, repr=False, kw_only=True)
class OPTICS(MetricEstimator):
    """Reachability ordering of the samples, in which clusters of any density are valleys, and clusters cut from it.

    Order and clusters equal those of scikit-learn's estimator, element by element, where it sums differences:
    "manhattan", and "minkowski" of up to 15 features and fewer than n // 2 neighbors, or with ``algorithm="kd_tree"``.
    Elsewhere it expands the square, and distances differ in the last digits. Its keywords of the neighbor search
    (``algorithm``, ``leaf_size``, ``memory``, ``n_jobs``) are checked in the same way and have no effect. The method is
    deterministic.

    Args:
        min_samples: number of samples in a neighborhood, at least 2, the sample itself included; or a fraction of
            n_samples.
        max_eps: maximum reachability, in the units of the metric.
        metric: a name that `jaxcluster.optics.fit` accepts, such as "euclidean", "seuclidean", "mahalanobis" or one of
            SciPy's boolean metrics; "precomputed" if X holds distances; "gower" for a table of numbers and categories
            that may have missing cells; or a function from two samples to their distance, or from two matrices (m, d)
            and (n, d) to (m, n) distances.
        p: power of "minkowski", at least 1, if ``metric_params`` has none.
        metric_params: None, or parameters of the metric: ``{"p": …}`` or ``{"V": …}``, as in scikit-learn; for "gower"
            ``{"categorical": …}``, the categorical columns by position or name, if their types do not say.
        cluster_method: "xi" for the valleys of the reachability plot, "dbscan" for a cut at one distance.
        eps: distance of the cut by "dbscan"; None for ``max_eps``.
        xi: for "xi", the minimum relative change of reachability between successive samples that is steep, in [0, 1].
        predecessor_correction: for "xi", True to cut off last samples that were not reached from within the cluster.
        min_cluster_size: for "xi", minimum number of samples, at least 2, or a fraction of n_samples; None for
            ``min_samples``.
        algorithm: "auto", "brute", "kd_tree" or "ball_tree"; the trees accept only some metrics.
        leaf_size, memory, n_jobs: as in scikit-learn.
        mesh: devices over which dense samples of a fit are spread, such as ``jaxcluster.sharding.row_mesh()``, for
            Euclidean and cosine distances; None for one device.

    Attributes:
        ordering_: (n_samples,) indices of the samples in the order of the walk.
        reachability_: (n_samples,) distance from the samples before each in the order; infinite for the first of a
            component.
        core_distances_: (n_samples,) distance to the ``min_samples``-th nearest sample, infinite above ``max_eps``.
        predecessor_: (n_samples,) index of the sample each was reached from, -1 for the first of a component.
        labels_: (n_samples,) int32, -1 for noise.
        cluster_hierarchy_: for "xi", (n_hierarchy, 2) first and last position of each cluster in the order, inner
            clusters before outer ones.
        status_: `jaxcluster.types.Status`, always CONVERGED: nothing iterates. All samples may be noise; the repr says
            so.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> import numpy as np
        >>> X = np.array([[1, 2], [2, 5], [3, 6], [8, 7], [8, 8], [7, 3]])
        >>> OPTICS(min_samples=2).fit(X).labels_.tolist()
        [0, 0, 0, 1, 1, 1]
    """

    _required_attributes = ("labels_", "ordering_", "reachability_", "core_distances_", "predecessor_")

    min_samples: Any = 5
    max_eps: Any = np.inf
    metric: Any = "minkowski"
    p: Any = 2
    metric_params: Any = None
    cluster_method: Any = "xi"
    eps: Any = None
    xi: Any = 0.05
    predecessor_correction: Any = True
    min_cluster_size: Any = None
    algorithm: Any = "auto"
    leaf_size: Any = 30
    memory: Any = None
    n_jobs: Any = None
    mesh: Any = None

    def _check_params(self, n, d):
        super()._check_params(n, d)
        self._check_search()
        if not (self.memory is None or isinstance(self.memory, (str, os.PathLike)) or hasattr(self.memory, "cache")):
            raise TypeError(f"memory must be None, a folder or an object with a method cache, got {self.memory!r}.")
        validation.check_choice("cluster_method", self.cluster_method, optics.METHODS)
        self._check_metric()
        check_limits(self.max_eps, self.eps, self.xi)
        as_count("min_samples", self.min_samples, n)
        if self.min_cluster_size is not None and self.cluster_method == "xi":
            as_count("min_cluster_size", self.min_cluster_size, n)

    def report_parts(self, X: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The reachability plot, with the distance it is cut at if it is cut at one."""
        eps = {"eps": self.eps} if self.cluster_method == "dbscan" and self.eps is not None else {}
        return {"structure": {"reachability": self.reachability_, "ordering": self.ordering_, **eps}}

    def _check_attributes(self):
        super()._check_attributes()
        n = len(self._labels_of_all)
        if any(np.shape(getattr(self, name)) != (n,) for name in self._required_attributes if name != "labels_"):
            raise ValueError(f"the order is not that of {n} rows.")

    def fit(self, X: Any, y: Any = None) -> OPTICS:
        """Order and cluster the samples.

        Args:
            X: (n_samples, n_features) array-like or DataFrame, or (n_samples, n_samples) precomputed distances. Entries
                that a sparse matrix does not store are infinite, and an entry of only one side of a pair counts for
                both. Sparse samples are taken for Euclidean and cosine distances.
            y: ignored.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values.

        Warns:
            UserWarning: no sample is reached from another; or an asymmetric matrix of distances, of which each sample's
                own row is used.
            DataConversionWarning: a boolean metric converts numbers to booleans.
        """
        X = self._rows_or_distances(X, reset=True)
        self._check_params(rows_of_fit(self, X.shape[0]), X.shape[1])
        if isinstance(self.metric, str) and self.metric in PAIRWISE_BOOLEAN_FUNCTIONS and X.dtype != bool:
            message = f"Data will be converted to boolean for metric {self.metric}"
            warn(f"{message}; to avoid this warning, convert it before.", DataConversionWarning)
        metric, p = self._resolve_metric()
        by_valleys = {"xi": self.xi, "min_cluster_size": self.min_cluster_size}
        by_valleys["predecessor_correction"] = self.predecessor_correction
        fit = optics.fit(
            X,
            min_samples=self.min_samples,
            max_eps=self.max_eps,
            metric=metric,
            p=p,
            method=self.cluster_method,
            eps=self.eps,
            mesh=self.mesh,
            **by_valleys,
        )
        self.ordering_, self.reachability_, self.core_distances_, self.predecessor_ = fit.state
        self._keep_labels(fit.labels)
        if self.cluster_method == "xi":
            # The fit returns labels only; the extraction costs little beside the ordering and is repeated.
            _, clusters = optics.extract_xi(fit.state, min_samples=self.min_samples, **by_valleys)
            # Where there are none, scikit-learn has an array of no length.
            self.cluster_hierarchy_ = clusters if len(clusters) else np.empty(0)
        self.status_ = Status(int(fit.status))
        return self

"""scikit-learn's `DBSCAN` over `jaxcluster.dbscan`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from jaxcluster.cluster import dbscan
from jaxcluster.core import check, memory
from jaxcluster.estimators.measured import MeasuredEstimator
from jaxcluster.estimators.registry import register
from jaxcluster.types import Status


def _places_new_rows(estimator) -> bool:
    """Whether new rows can be labeled. Raises AttributeError, which says that there is no such method, and why."""
    if estimator._precomputed:
        raise AttributeError("metric='precomputed' knows no distances of new rows: fit rows with a metric, to predict.")
    return True


@register("dbscan", "dense regions of any shape, at a density given by a radius")
class DBSCAN(MeasuredEstimator):
    """Clusters of any shape, each a region where samples lie close together, and noise between them.

    Labels and core samples are those of scikit-learn's estimator, to the element, whatever the dtype of the samples.
    Its keywords for the search of neighbors (``algorithm``, ``leaf_size``, ``n_jobs``) are checked as it checks them
    and change nothing. There is no chance in it. A method of its own, `predict`, finds the clusters of new samples.

    Args:
        eps: how far apart two samples may be and still be neighbors, in the units of the metric.
        min_samples: the weight that samples within ``eps`` of a sample, itself among them, must have for it to be a
            core sample.
        metric: a name that `jaxcluster.dbscan.fit` knows, such as "euclidean", "seuclidean", "mahalanobis" or one of
            SciPy's of booleans; "precomputed", where X holds distances; or a function of two samples that gives their
            distance, or of two matrices of samples, (m, d) and (n, d), that gives (m, n) distances.
        metric_params: None, or what the metric is given: ``{"p": …}`` or ``{"V": …}``, as in scikit-learn.
        algorithm: "auto", "brute", "kd_tree" or "ball_tree"; the trees do not take every metric.
        leaf_size, n_jobs: as in scikit-learn.
        p: the power of "minkowski", at least 1, where ``metric_params`` has none; None for 2.

    Attributes:
        core_sample_indices_: (n_core,) numbers of the core samples, in order.
        components_: (n_core, n_features) these samples; of a sparse matrix of distances as sparse rows.
        labels_: (n_samples,) int32, -1 for noise; clusters are numbered by their first core sample.
        status_: a `jaxcluster.types.Status`: CONVERGED, for nothing can go wrong once the samples are accepted. All of
            them may be noise, which the repr tells.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> import numpy as np
        >>> X = np.array([[1, 2], [2, 2], [2, 3], [8, 7], [8, 8], [25, 80]])
        >>> DBSCAN(eps=3, min_samples=2).fit(X).labels_.tolist()
        [0, 0, 0, 1, 1, -1]
    """

    _labels_by = ("labels_", "core_sample_indices_", "components_")

    def __init__(
        self,
        eps=0.5,
        *,
        min_samples=5,
        metric="euclidean",
        metric_params=None,
        algorithm="auto",
        leaf_size=30,
        p=None,
        n_jobs=None,
    ):
        self.eps = eps
        self.min_samples = min_samples
        self.metric = metric
        self.metric_params = metric_params
        self.algorithm = algorithm
        self.leaf_size = leaf_size
        self.p = p
        self.n_jobs = n_jobs

    def fit(self, X, y=None, sample_weight=None):
        """Clusters the samples.

        Args:
            X: (n_samples, n_features) array-like or DataFrame, or (n_samples, n_samples) distances where they are
                precomputed. Those that a sparse matrix leaves out are infinite, and where only one side of a pair has
                an entry it counts for both; other sparse matrices are refused.
            y: ignored.
            sample_weight: (n_samples,) weights, or None for 1 each; a weight of 2 is the sample twice, a negative one
                keeps its neighbors from being core samples.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values.

        Warns:
            UserWarning: the distances of a pair differ; each sample's neighbors are then those of its own row.
        """
        X = self._rows_or_distances(X)
        self._check_params(*X.shape)
        weights = self._check_signed_weights(sample_weight, X.shape[0])
        fit = dbscan.fit(X, min_samples=self.min_samples, weights=weights, **self._ball())
        self.labels_ = np.array(fit.labels)
        self.core_sample_indices_ = np.flatnonzero(fit.state.core)
        components = fit.state.components
        self.components_ = components if scipy.sparse.issparse(components) else np.array(components)
        self.status_ = Status(int(fit.status))
        return self

    def fit_predict(self, X, y=None, sample_weight=None):
        """Fits, and returns ``labels_``."""
        return self.fit(X, sample_weight=sample_weight).labels_

    @available_if(_places_new_rows)
    @memory.in_one_sentence()
    def predict(self, X):
        """The cluster of each sample, (n_samples,) int32: the first with a core sample within ``eps``, -1 for none.

        For the samples of the fit these are ``labels_``.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        return np.array(dbscan.predict(self._state(), X, **self._ball()))

    def _check_params(self, n, d):
        super()._check_params(n, d)
        self._check_search()
        self._check_metric()
        check.check_positive("eps", self.eps)
        check.check_positive("min_samples", self.min_samples)

    def _check_attributes(self):
        super()._check_attributes()
        core, n = np.asarray(self.core_sample_indices_), len(self.labels_)
        if core.ndim != 1 or core.dtype.kind not in "iu" or not ((core >= 0) & (core < n)).all():
            raise ValueError(f"core_sample_indices_ are not numbers of the {n} samples.")
        if self.components_.shape != (len(core), self.n_features_in_):
            raise ValueError(f"components_ are not the {len(core)} core samples.")

    @staticmethod
    def _check_signed_weights(sample_weight, n):
        """Weights as in other estimators, but that some may be negative."""
        if sample_weight is None:
            return None
        weights = check.widen(np.asarray(sample_weight))
        weights = np.full(n, weights) if weights.ndim == 0 else weights
        if weights.dtype.kind not in "fiub":
            raise TypeError(f"sample_weight must be real numbers, got dtype {weights.dtype}.")
        check.check_finite(weights, name="sample_weight")
        if weights.shape != (n,):
            raise ValueError(f"sample_weight must have shape ({n},), one a row, got {weights.shape}.")
        if not weights.any():
            raise ValueError("sample_weight: all are zero. Sample weights must contain at least one non-zero number.")
        return weights

    def _ball(self):
        """The neighborhood of a sample."""
        metric, p = self._measure()
        return {"eps": self.eps, "metric": metric, "p": p}

    def _state(self):
        core = np.zeros(len(self.labels_), bool)
        core[self.core_sample_indices_] = True
        labels = jnp.asarray(self.labels_[core])
        return dbscan.DBSCANState(jnp.asarray(core), self.components_, labels)

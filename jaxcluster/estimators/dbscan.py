"""scikit-learn's `DBSCAN` over `jaxcluster.dbscan`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from jaxcluster.cluster import dbscan
from jaxcluster.estimators.measured import MeasuredEstimator
from jaxcluster.types import Status


def _places_new_rows(estimator) -> bool:
    """Whether new rows can be labelled. Raises AttributeError, which says that there is no such method, and why."""
    if estimator._precomputed:
        raise AttributeError("metric='precomputed' knows no distances of new rows: fit rows with a metric, to predict.")
    return True


class DBSCAN(MeasuredEstimator):
    """Clusters of any shape, each a region where rows lie close together, and noise between them.

    Labels and core rows are those of scikit-learn's estimator, to the element, whatever the dtype of the rows. What it
    says of how neighbours are searched for (``algorithm``, ``leaf_size``, ``n_jobs``) means nothing here. There is no
    chance in it. A method of its own, `predict`, finds the clusters of new rows.

    Args:
        eps: how far apart two rows may be and still be neighbours, in the units of the metric.
        min_samples: the weight that rows within ``eps`` of a row, itself among them, must have for it to be a core row.
        metric: "euclidean", "sqeuclidean", "manhattan", "minkowski" or "cosine"; "precomputed", where X holds
            distances; or a function of two matrices of rows, (m, d) and (n, d), that gives (m, n) distances.
        p: the power of "minkowski", at least 1; without a meaning for the others.

    Attributes:
        core_sample_indices_: (n_core,) which rows are core rows, in order.
        components_: (n_core, n_features) these rows; of a sparse matrix of distances as sparse ones.
        labels_: (n_samples,) int32, -1 for noise; clusters are numbered by their first core row.
        status_: a `jaxcluster.types.Status`: CONVERGED, for nothing can go wrong once the rows are accepted.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> import numpy as np
        >>> X = np.array([[1, 2], [2, 2], [2, 3], [8, 7], [8, 8], [25, 80]])
        >>> DBSCAN(eps=3, min_samples=2).fit(X).labels_.tolist()
        [0, 0, 0, 1, 1, -1]
    """

    def __init__(self, eps=0.5, *, min_samples=5, metric="euclidean", p=2.0):
        self.eps = eps
        self.min_samples = min_samples
        self.metric = metric
        self.p = p

    def fit(self, X, y=None, sample_weight=None):
        """Clusters the rows.

        Args:
            X: (n_samples, n_features) array-like or DataFrame, or (n_samples, n_samples) symmetric distances where they
                are precomputed. Those that a sparse matrix leaves out are infinite; other sparse matrices are refused.
            y: ignored.
            sample_weight: (n_samples,) non-negative weights, or None for 1 each; a weight of 2 is the row twice.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values.
        """
        X = self._rows_or_distances(X)
        weights = self._check_weights(sample_weight, X.shape[0])
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
    def predict(self, X):
        """The cluster of each row, (n_samples,) int32: the first that has a core row within ``eps``, -1 for none.

        For the rows of the fit these are ``labels_``.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        return np.array(dbscan.predict(self._state(), X, **self._ball()))

    def _ball(self):
        """What says which rows are neighbours."""
        return {"eps": self.eps, "metric": self.metric, "p": self.p}

    def _state(self):
        core = np.zeros(len(self.labels_), bool)
        core[self.core_sample_indices_] = True
        labels = jnp.asarray(self.labels_[core])
        return dbscan.DBSCANState(jnp.asarray(core), self.components_, labels)

"""What estimators share that measure rows by a metric, or take a matrix of distances in their place."""

from __future__ import annotations

from sklearn.base import ClusterMixin
from sklearn.utils.validation import validate_data

from jaxcluster.estimators.base import Estimator, found


class MeasuredEstimator(ClusterMixin, Estimator):
    """An estimator with a parameter ``metric`` that may be "precomputed"."""

    @property
    def _precomputed(self):
        return isinstance(self.metric, str) and self.metric == "precomputed"

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inputs = tags.input_tags
        inputs.pairwise = inputs.sparse = inputs.positive_only = self._precomputed
        return tags

    def _rows_or_distances(self, X):
        """The rows of a fit as finite numbers; distances, dense or sparse, may be infinite and are looked at later."""
        if not self._precomputed:
            return self._validate(X, reset=True)
        return validate_data(self, X, accept_sparse="csr", dtype="numeric", ensure_all_finite=False)

    def _reached(self):
        return found(self.labels_)

"""Base class of estimators with a parameter ``metric``, which also take a matrix of precomputed distances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import ClusterMixin
from sklearn.neighbors import VALID_METRICS

from jaxcluster.core import validation
from jaxcluster.core.messages import warn
from jaxcluster.estimators.base import Estimator
from jaxcluster.ops.distance import METRICS, plain_metric
from jaxcluster.ops.metric_space import bind_metric_params

SEARCHES = ("auto", "ball_tree", "kd_tree", "brute")
"""Neighbor searches of scikit-learn. One exact search is used here, whichever is named."""


class MetricEstimator(ClusterMixin, Estimator):
    """Base of estimators with a parameter ``metric`` that may be "precomputed"."""

    info = Estimator.info._replace(choices={"metric": METRICS})

    # Parameters and attributes that every subclass has, and those of `_check_search`.
    metric: Any
    metric_params: Any
    p: Any
    algorithm: Any
    leaf_size: Any
    n_jobs: Any
    labels_: np.ndarray

    @property
    def _precomputed(self):
        return isinstance(self.metric, str) and self.metric == "precomputed"

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inputs = tags.input_tags
        inputs.pairwise = inputs.positive_only = self._precomputed
        inputs.sparse = self._precomputed or self.info.takes_sparse
        return tags

    def _rows_or_distances(self, X: Any, *, reset: bool) -> Any:
        """Samples of a fit as finite numbers; distances, dense or sparse, may be infinite and are checked later."""
        if not self._precomputed:
            return self._validate(X, reset=reset)
        return self._to_numeric(X, reset=reset, accept_sparse="csr")

    def _check_search(self) -> None:
        """Raise on keywords of the neighbor search that scikit-learn refuses too; they change nothing here."""
        validation.check_choice("algorithm", self.algorithm, SEARCHES)
        validation.check_count("leaf_size", self.leaf_size)
        if not isinstance(self.n_jobs, (int, np.integer, type(None))) or isinstance(self.n_jobs, bool):
            raise TypeError(f"n_jobs must be None or an integer, got {self.n_jobs!r}.")
        if self.p is not None:
            validation.check_positive("p", self.p)
        if not isinstance(self.metric_params, (dict, type(None))):
            raise TypeError(f"metric_params must be None or a dict, got {self.metric_params!r}.")
        if self.algorithm not in ("ball_tree", "kd_tree"):
            return
        if callable(self.metric) and self.algorithm == "kd_tree":
            raise ValueError("kd_tree does not support a callable metric. Pass algorithm='auto'.")
        if not callable(self.metric) and self.metric not in VALID_METRICS[self.algorithm]:
            raise ValueError(
                f"Metric {self.metric!r} not valid for algorithm={self.algorithm!r}. 'auto' takes every metric."
            )

    def _check_metric(self) -> None:
        """Raise ValueError or TypeError on an unknown metric, and on parameters that it does not take."""
        metric, p = bind_metric_params(self.metric, self.metric_params, 2.0 if self.p is None else self.p)
        plain_metric(metric, p, also=("precomputed",))

    def _resolve_metric(self) -> tuple[str | Callable, float]:
        """Metric and power of "minkowski", after ``metric_params`` is applied.

        Returns:
            the metric, a name or a function, and the power p.

        Warns:
            SyntaxWarning: the power is given there and as ``p`` too.
        """
        if self.metric_params and "p" in self.metric_params and self.p is not None:
            warn(
                "Parameter p is found in metric_params. The corresponding parameter from __init__ is ignored.",
                SyntaxWarning,
            )
        return bind_metric_params(self.metric, self.metric_params, 2.0 if self.p is None else self.p)

    def _summary_metrics(self):
        clusters, noise = np.unique(self.labels_[self.labels_ >= 0]).size, int(np.sum(self.labels_ < 0))
        rows = [f"{noise:,} row{'' if noise == 1 else 's'} of noise"] if noise else []
        return [f"{clusters:,} cluster{'' if clusters == 1 else 's'}", *rows]

    def _summary(self):
        """Summary of other fits; if every row is noise, that fact in place of the status."""
        # Without any cluster, "converged" would read like success: eps or min_cluster_size is probably wrong.
        if not (self.labels_ == -1).all():
            return super()._summary()
        return f"fitted on {len(self.labels_)}×{self.n_features_in_}: no cluster, every row is noise"

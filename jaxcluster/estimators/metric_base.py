"""Base class of estimators with a parameter ``metric``, which also take a matrix of precomputed distances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import ClusterMixin
from sklearn.neighbors import VALID_METRICS

from jaxcluster.core import validation
from jaxcluster.core.messages import warn
from jaxcluster.core.processes import gather_rows, spans_processes
from jaxcluster.datasets.dataframes import as_rows
from jaxcluster.datasets.gower import GowerScale, encode_gower
from jaxcluster.estimators.base import Estimator
from jaxcluster.estimators.input_tables import check_mixed_table
from jaxcluster.ops.distance import GOWER, METRICS, plain_metric
from jaxcluster.ops.gower import gower
from jaxcluster.ops.metric_params import bind_metric_params
from jaxcluster.ops.sparse_distance import METRICS as SPARSE_METRICS
from jaxcluster.types import Absent

SEARCHES = ("auto", "ball_tree", "kd_tree", "brute")
"""Neighbor searches of scikit-learn. One exact search is used here, whichever is named."""


METRIC_CHOICES = (*METRICS, GOWER)
"""Names of metrics that the estimators take."""

METRIC_NEEDS = {
    "sparse": {"metric": SPARSE_METRICS},
    "missing": {"metric": (GOWER,)},
    "categories": {"metric": (GOWER,)},
}
"""Metrics with which samples may be sparse, have missing cells, or categories."""


class MetricEstimator(ClusterMixin, Estimator):
    """Base of estimators with a parameter ``metric`` that may be "precomputed", or "gower" for tables of any cells."""

    info = Estimator.info._replace(choices={"metric": METRIC_CHOICES}, needs=METRIC_NEEDS)

    _gower: GowerScale | Absent = None
    """Columns and ranges of the last fit by Gower's distance."""

    # Parameters and attributes that every subclass has, and those of `_check_search`.
    metric: Any
    metric_params: Any
    p: Any
    algorithm: Any
    leaf_size: Any
    n_jobs: Any
    mesh: Any
    labels_: np.ndarray

    @property
    def _labels_of_all(self):
        """Labels of the samples of the fit; of a mesh of several processes those of all, whose own part is labels_."""
        return getattr(self, "_gathered_labels", self.labels_)

    def _keep_labels(self, labels):
        """Set ``labels_``, and the labels of all processes where the samples are spread over several."""
        self.labels_ = np.array(labels)
        vars(self).pop("_gathered_labels", None)
        if spans_processes(self.mesh):
            self._gathered_labels = gather_rows(self.labels_)

    @property
    def _precomputed(self):
        return isinstance(self.metric, str) and self.metric == "precomputed"

    @property
    def _by_gower(self):
        return isinstance(self.metric, str) and self.metric == GOWER

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inputs = tags.input_tags
        inputs.pairwise = inputs.positive_only = self._precomputed
        inputs.sparse = self._precomputed or self.info.takes_sparse
        inputs.categorical = inputs.string = inputs.allow_nan = self._by_gower
        return tags

    def _rows_or_distances(self, X: Any, *, reset: bool) -> Any:
        """Samples of a fit as finite numbers; distances, dense or sparse, may be infinite and are checked later."""
        if self._by_gower:
            return self._encode(X, reset=reset)
        if not self._precomputed:
            return self._validate(X, reset=reset)
        return self._to_numeric(X, reset=reset, accept_sparse="csr")

    def _encode(self, X: Any, *, reset: bool) -> np.ndarray:
        """Rows of a table encoded for Gower's distance; ``reset`` stores columns and ranges, else those are used."""
        X = as_rows(X)
        check_mixed_table(self, X, reset=reset)
        if not reset:
            return encode_gower(X, like=self._gower)[1]
        self._gower, rows = encode_gower(X, **(self.reading_options() or {}))
        return rows

    def reading_options(self) -> dict[str, Any] | None:
        """The columns that ``metric_params`` names, for Gower's distance."""
        params = self.metric_params if isinstance(self.metric_params, dict) else {}
        return {"categorical": params.get("categorical")} if self._by_gower else None

    def embed(self, X: Any) -> tuple[np.ndarray, list[str]]:
        """Embed samples so that sums of absolute differences are Gower's distances: columns of 0 and ½ for categories.

        Returns:
            (n_samples, n_columns) numbers, NaN for missing cells, and the names of their columns.
        """
        return self._gower.embed(self._encode(X, reset=False))

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
        metric, p = self._bind_metric()
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
        return self._bind_metric()

    def _bind_metric(self):
        """Metric with its parameters, and the power; Gower's are in the encoded rows."""
        params, p = self.metric_params, 2.0 if self.p is None else self.p
        if not self._by_gower:
            return bind_metric_params(self.metric, params, p)
        if not isinstance(params, (dict, type(None))):
            raise TypeError(f"metric_params must be None or a dict, got {params!r}.")
        if unknown := sorted(set(params or {}) - {"categorical"}):
            names = ", ".join(map(repr, unknown))
            raise ValueError(f"metric_params has {names}, but metric='gower' takes categorical.")
        return gower, p

    def _check_attributes(self):
        super()._check_attributes()
        if not self._by_gower:
            return
        if not isinstance(self._gower, GowerScale):
            raise ValueError(f"_gower is {self._gower!r}, not the columns of a fit.")
        self._gower.check(self.n_features_in_)

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

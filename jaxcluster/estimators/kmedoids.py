"""`KMedoids` with scikit-learn's interface, over `jaxcluster.kmedoids`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from jaxcluster.cluster import kmedoids
from jaxcluster.cluster.kmedoids.clara import sample_rows
from jaxcluster.cluster.kmedoids.fit import check_init
from jaxcluster.core import validation
from jaxcluster.core.messages import warn
from jaxcluster.estimators.base import as_key
from jaxcluster.estimators.fit_messages import PRECISION_MESSAGE, empty_message
from jaxcluster.estimators.input_tables import canonical, rows_of_fit
from jaxcluster.estimators.metric_base import METRIC_CHOICES, MetricEstimator
from jaxcluster.estimators.registry import register
from jaxcluster.types import Status

METHODS = ("fasterpam", "clara")
"""Values of ``method``: all pairs of samples, or subsamples of them."""


@register(
    "kmedoids",
    clusters="n_clusters",
    steps="max_iter",
    init="init",
    reported=("inertia_", "n_iter_"),
    objective="sum of distances",
    choices={"metric": METRIC_CHOICES, "method": METHODS},
)
@dataclass(eq=False, repr=False)
class KMedoids(ClassNamePrefixFeaturesOutMixin, TransformerMixin, MetricEstimator):
    """k-medoids: centers are samples, and no single swap lowers the sum of (not squared) distances to them.

    Args:
        n_clusters: number of clusters.
        metric: a name in `jaxcluster.ops.distance.METRICS`; "precomputed" if X holds distances; "gower" for a table of
            numbers and categories that may have missing cells; or a symmetric function from two matrices (m, d) and
            (n, d) to (m, n) distances, or from two samples to their distance.
        metric_params: None, or parameters of the metric: for "gower" ``{"categorical": …}``, the categorical columns by
            position or name, if their types do not say; others as in `DBSCAN`.
        p: power of "minkowski", at least 1; other metrics ignore it.
        method: "fasterpam", which stores the distances of all pairs, or "clara", which searches in subsamples.
        init: "build" (greedy), "random", or for "fasterpam" (n_clusters,) distinct indices of samples.
        max_iter: maximum number of rounds of swaps.
        n_init: for "fasterpam", number of runs with different random initializations; for "clara", number of
            subsamples; the least inertia wins. "auto" is 1, or 10 if ``init`` is "random", and 5 for "clara".
        sample_size: for "clara", size of a subsample; None for 80 + 4 × n_clusters.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        order: None, or "canonical" to fit the samples sorted by value: permuted samples then have the same labels.
        mesh: for "clara", devices that share the subsamples and the assignment of dense samples, such as
            ``jaxcluster.sharding.row_mesh()``; None for one device.

    Attributes:
        medoid_indices_: (n_clusters,) int32 indices of the medoids.
        cluster_centers_: (n_clusters, n_features) the medoids; missing with precomputed distances, and for "gower",
            whose medoids are the rows ``medoid_indices_`` of X.
        labels_: (n_samples,) int32.
        inertia_: Σ w·d(x, medoid), in the units of the metric, not squared.
        n_iter_: rounds of the best run.
        history_: (n_iter_,) inertia after each round; for "clara" that of the subsample.
        status_: `jaxcluster.types.Status` of the search.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> import numpy as np
        >>> X = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
        >>> sorted(KMedoids(n_clusters=2).fit(X).medoid_indices_.tolist())
        [0, 3]
    """

    n_clusters: Any = 8
    _: KW_ONLY
    metric: Any = "euclidean"
    p: Any = 2
    method: Any = "fasterpam"
    init: Any = "build"
    max_iter: Any = 100
    n_init: Any = "auto"
    sample_size: Any = None
    random_state: Any = None
    order: Any = None
    metric_params: Any = None
    mesh: Any = None

    @property
    def _n_features_out(self):
        return len(self.medoid_indices_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.info.takes_sparse and not self._precomputed
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @canonical
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> KMedoids:
        """Cluster the samples.

        Args:
            X: (n_samples, n_features) array-like or DataFrame, for Euclidean and cosine distances also a sparse matrix;
                or (n_samples, n_samples) dense, finite, symmetric precomputed distances.
            y: ignored.
            sample_weight: (n_samples,) non-negative weights, or None for 1 each.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values.
            MemoryError: n_samples² distances do not fit; "clara" does not need them.

        Warns:
            ConvergenceWarning: fewer distinct samples than clusters, distances beyond float32, or no convergence in
                ``max_iter``.
        """
        X = self._rows_or_distances(X, reset=True)
        self._check_params(rows_of_fit(self, X.shape[0]), X.shape[1])
        weights = self._check_weights(sample_weight, X.shape[0])
        fit = jax.device_get(self._call_function(X, weights))
        self.medoid_indices_ = np.array(fit.state.medoids)
        for name in ("cluster_centers_", "_medoid_rows"):
            vars(self).pop(name, None)
        if self._by_gower:
            self._medoid_rows = np.array(fit.state.centers)
        elif fit.state.centers is not None:
            self.cluster_centers_ = np.array(fit.state.centers)
        self._keep_labels(fit.labels)
        self.inertia_ = float(fit.state.loss)
        self.n_iter_ = int(fit.steps)
        self.history_ = np.array(fit.history[: self.n_iter_])
        self.status_ = Status(int(fit.status))
        self._warn_of_status(X, weights)
        return self

    def model_scores(self, X: Any, sample_weight: Any = None) -> dict[str, float]:
        """The sum of the distances to the medoids, as the inertia."""
        return {"inertia": self.inertia_}

    def report_parts(self, X: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The medoids: their rows, where X had any, and their numbers."""
        return {"centers": getattr(self, "cluster_centers_", None), "structure": {"medoids": self.medoid_indices_}}

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Fit, and return ``labels_``."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit, and return the distance of each sample to each medoid."""
        return self.fit(X, sample_weight=sample_weight).transform(X)

    def predict(self, X: Any) -> Any:
        """Label each sample by its nearest medoid, (n_samples,) int32.

        With metric="precomputed", X holds (n_samples, n_fitted) distances to the samples of the fit.
        """
        check_is_fitted(self)
        X = self._rows_or_distances(X, reset=False)
        return np.array(kmedoids.predict(self._medoids(), X, **self._metric_options()))

    def transform(self, X: Any) -> np.ndarray:
        """Compute the distance of each sample to each medoid, (n_samples, n_clusters), in the units of the metric."""
        check_is_fitted(self)
        X = self._rows_or_distances(X, reset=False)
        return np.array(kmedoids.transform(self._medoids(), X, **self._metric_options()))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Compute the negative sum of distances to the nearest medoid: higher is better."""
        nearest = self.transform(X).min(axis=1)
        weights = self._check_weights(sample_weight, len(nearest))
        return -float(np.sum(nearest if weights is None else weights * nearest, dtype=float))

    def _rows_or_distances(self, X, *, reset):
        """Samples as finite numbers; a matrix of distances is checked by the functions."""
        if self._by_gower:
            return self._encode(X, reset=reset)
        if not self._precomputed:
            return self._validate(X, reset=reset)
        return self._to_numeric(X, reset=reset)

    def _call_function(self, X, weights):
        key, options = as_key(self.random_state), {**self._metric_options(), "init": self.init}
        options.update(weights=weights, max_steps=self.max_iter)
        if self.method == "clara":
            runs = self._n_runs(auto=5)
            return kmedoids.clara(
                key, X, self.n_clusters, n_samples=runs, sample_size=self.sample_size, mesh=self.mesh, **options
            )
        runs = self._n_runs(auto=10 if isinstance(self.init, str) and self.init == "random" else 1)
        return kmedoids.fit(key, X, self.n_clusters, n_init=runs, **options)

    def _check_params(self, n, d):
        super()._check_params(n, d)
        validation.check_choice("method", self.method, METHODS)
        validation.check_count("max_iter", self.max_iter)
        k = validation.check_clusters(self.n_clusters, n, name="n_clusters")
        self._check_metric()
        if self.method != "clara" and self.mesh is not None:
            raise ValueError("mesh= is for method='clara': the distances of all pairs are held by one device.")
        if self.method == "clara":
            validation.check_choice("init", self.init, kmedoids.INITS)
            sample_rows(self.sample_size, k, n)
        else:
            check_init(self.init, k, n, None)
        self._n_runs(auto=1)

    def _check_attributes(self):
        super()._check_attributes()
        medoids, n = self.medoid_indices_, len(self._labels_of_all)
        whole = isinstance(medoids, np.ndarray) and medoids.ndim == 1 and medoids.dtype.kind in "iu"
        if not whole or not ((medoids >= 0) & (medoids < n)).all():
            raise ValueError(f"medoid_indices_ are not numbers of the {n} rows.")
        if self._by_gower and np.shape(self._medoid_rows) != (len(medoids), self.n_features_in_):
            raise ValueError(f"_medoid_rows are not those of {len(medoids)} medoids.")

    @property
    def _required_attributes(self):
        rows = () if self._precomputed else ("_gower", "_medoid_rows") if self._by_gower else ("cluster_centers_",)
        return ("medoid_indices_", *rows)

    def _n_runs(self, *, auto):
        if isinstance(self.n_init, str):
            validation.check_choice("n_init", self.n_init, ["auto"])
            return auto
        return validation.check_count("n_init", self.n_init)

    def _metric_options(self):
        metric, p = self._resolve_metric()
        return {"metric": metric, "p": p}

    def _medoids(self):
        """Medoids as the functions take them: samples, or with precomputed distances a state with their indices."""
        if not self._precomputed:
            return self._medoid_rows if self._by_gower else self.cluster_centers_
        # Predictions use the indices only; the other fields complete the state.
        unknown = jax.numpy.zeros(())
        return kmedoids.KMedoidsState(jax.numpy.asarray(self.medoid_indices_), None, unknown, unknown[None], unknown)

    def _summary_metrics(self):
        return [f"inertia {self.inertia_:.4g}", f"{self.n_iter_} round{'' if self.n_iter_ == 1 else 's'}"]

    def _warn_of_status(self, X, weights):
        """Warn of a status other than convergence, with its cause and a remedy."""
        if self.status_ == Status.NOT_FINITE:
            message = "The inertia is not finite: distances are too large for float32. Scale the columns."
        elif self.status_ == Status.PRECISION:
            message = PRECISION_MESSAGE
        elif self.status_ == Status.EMPTY_CLUSTERS:
            message = empty_message(self.n_clusters, X, weights, self.labels_)
        elif self.status_ == Status.MAX_STEPS:
            message = f"Swaps still lowered the inertia in round max_iter={self.max_iter}. Raise max_iter."
        else:
            return
        warn(message, ConvergenceWarning)

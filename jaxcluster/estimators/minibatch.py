"""`MiniBatchKMeans` with scikit-learn's interface, over `jaxcluster.minibatch`."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import numpy as np
from sklearn.utils.validation import check_is_fitted

from jaxcluster.cluster import kmeans, minibatch
from jaxcluster.core import validation
from jaxcluster.core.messages import warn
from jaxcluster.core.preparation import prepare
from jaxcluster.core.processes import gather_parts
from jaxcluster.estimators.base import CenterEstimator, as_key
from jaxcluster.estimators.fit_messages import distinct_rows
from jaxcluster.estimators.input_tables import canonical, rows_of_fit
from jaxcluster.estimators.registry import register
from jaxcluster.types import Status

AUTO_RESTARTS = 3
"""Initializations for ``n_init="auto"`` when ``init`` is random or a callable: scikit-learn's number."""


@register(
    "minibatch-kmeans",
    reported=("inertia_", "n_iter_", "n_steps_"),
    starts=10,
    objective="smoothed inertia per row",
)
@dataclass(eq=False, repr=False)
class MiniBatchKMeans(CenterEstimator):
    """k-means on small random batches, with scikit-learn's parameters, attributes and methods.

    Computes in float32, or in float64 if the samples are float64 and JAX's x64 mode is on, relative to their median;
    ``cluster_centers_`` and `transform` have the dtype of the samples.

    Args:
        n_clusters: number of clusters.
        init: "k-means++", "random", "k-means||", (n_clusters, n_features) centers, or a callable
            ``init(X, n_clusters, random_state)`` that returns them.
        max_iter: maximum number of epochs (passes over the samples).
        batch_size: samples per batch, at most n_samples.
        verbose: 1 to print the smoothed inertia after every batch while the fit runs, and the longest time that
            it may still take.
        compute_labels: True to keep ``labels_``; in `partial_fit` also to compute labels and inertia.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        order: None, or "canonical" to fit the samples sorted by value: permuted samples then have the same labels.
        tol: stop when Σ‖Δc‖² of a batch <= tol × the mean variance of the features; 0 to disable.
        max_no_improvement: early stopping after this many batches without a lower smoothed inertia; None to disable.
        init_size: samples that initial centers are drawn from and scored on; None for three batches, at least
            3 × n_clusters.
        n_init: number of initializations scored on ``init_size`` samples; the best is used. "auto" is 3 if ``init`` is
            "random" or a callable, else 1.
        reassignment_ratio: a center whose count is below this fraction of the largest is drawn anew from the batch.
        mesh: devices over which the samples of a fit are spread, such as ``jaxcluster.sharding.row_mesh()``; None for
            one device.

    Attributes:
        cluster_centers_: (n_clusters, n_features).
        labels_: (n_samples,) int32; after `partial_fit` those of the last batch.
        inertia_: Σ w·‖x − c‖² (data units²) of the samples of ``labels_``.
        n_iter_: epochs, rounded up; set by `fit` only.
        n_steps_: number of batches.
        history_: (n_steps_,) smoothed inertia per unit of weight after each batch; the first entry is that of the
            initial centers.
        status_: `jaxcluster.types.Status` of the iteration; MAX_STEPS after `partial_fit`.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> import numpy as np
        >>> X = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
        >>> np.bincount(MiniBatchKMeans(n_clusters=2, random_state=0).fit_predict(X)).tolist()
        [3, 3]
    """

    n_clusters: Any = 8
    _: KW_ONLY
    init: Any = "k-means++"
    max_iter: Any = 100
    batch_size: Any = 1024
    verbose: Any = 0
    compute_labels: Any = True
    random_state: Any = None
    order: Any = None
    tol: Any = 0.0
    max_no_improvement: Any = 10
    init_size: Any = None
    n_init: Any = "auto"
    reassignment_ratio: Any = 0.01
    mesh: Any = None

    @canonical
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> MiniBatchKMeans:
        """Cluster the samples by random batches.

        Args:
            X: (n_samples, n_features) array-like, DataFrame or sparse matrix.
            y: ignored.
            sample_weight: (n_samples,) non-negative weights, or None for 1 each.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values.

        Warns:
            ConvergenceWarning: fewer distinct samples than clusters, or values beyond float32.
        """
        X = self._validate(X, reset=True)
        rows_of_fit(self, X.shape[0])
        X, weights, own = gather_parts(self.mesh, X, self._check_weights(sample_weight, X.shape[0]))
        self._check_params(*X.shape)
        batch_size = min(self.batch_size, X.shape[0])
        with self._printed_live():
            fit, frame = minibatch.fit_framed(
                as_key(self.random_state),
                X,
                self.n_clusters,
                weights=weights,
                batch_size=batch_size,
                max_epochs=self.max_iter,
                tol=self.tol,
                max_no_improvement=self.max_no_improvement,
                init_size=self._n_init_rows(),
                reassignment_ratio=self.reassignment_ratio,
                mesh=self.mesh,
                **self._start(X, weights),
            )
        self._store_stream_state(fit.state)
        if self._lacks_distinct_rows(fit, X, weights):
            fit = fit._replace(status=jax.numpy.int32(Status.EMPTY_CLUSTERS))
        fit = self._publish(fit, frame, X, weights)
        self.labels_ = self.labels_[own]
        if not self.compute_labels:
            del self.labels_
        self.n_steps_ = int(fit.steps)
        # scikit-learn's n_iter_ counts epochs, not batches.
        self.n_iter_ = math.ceil(self.n_steps_ * batch_size / X.shape[0])
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> MiniBatchKMeans:
        """Average one more batch into the centers; the first call chooses them from its batch.

        Args:
            X: (n_samples, n_features), any number of samples; at least n_clusters in the first call.
            y: ignored.
            sample_weight: (n_samples,) non-negative weights, or None for 1 each.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values.
        """
        first = not self.__sklearn_is_fitted__()
        X = self._validate(X, reset=first)
        weights = self._check_weights(sample_weight, X.shape[0])
        key = as_key(self.random_state)
        if first:
            self._check_params(*X.shape)
            start = self._start(X, weights)
            self._frame = prepare(X).frame
            options = {"weights": weights, "frame": self._frame, **start}
            state = minibatch.init(jax.random.fold_in(key, 0), X, self.n_clusters, **options)
            self.n_steps_, self.history_ = 0, np.zeros(0, np.asarray(state.smoothed).dtype)
        else:
            state = self._restore_stream_state()
        # The key depends on the number of batches only: with an integer seed, a loaded model continues as the saved
        # one.
        step_key = jax.random.fold_in(key, self.n_steps_ + 1)
        options = {"reassignment_ratio": self.reassignment_ratio, "frame": self._frame}
        state = jax.device_get(minibatch.partial_fit(step_key, state, X, weights=weights, **options))
        self.cluster_centers_ = np.array(state.centers)
        self.n_steps_ += 1
        self.history_ = np.append(self.history_, state.smoothed)
        self.status_ = Status.MAX_STEPS if np.isfinite(state.centers).all() else Status.NOT_FINITE
        self._store_stream_state(state)
        if self.compute_labels:
            self.labels_ = np.array(kmeans.predict(self.cluster_centers_, X, frame=self._frame))
            self.inertia_ = -self._score(X, weights)
        self._warn_of_status(X, weights)
        return self

    def _lacks_distinct_rows(self, fit, X, weights):
        """True if clusters are empty because there are fewer distinct samples than clusters.

        Random batches can also leave a cluster empty by chance; that is no fault of the data and no warning.
        """
        # A failed fit has a status of its own, which an empty cluster must not hide.
        if int(fit.status) not in (Status.CONVERGED, Status.MAX_STEPS):
            return False
        counted = np.ones(X.shape[0], bool) if weights is None else weights > 0
        if np.unique(np.asarray(fit.labels)[counted]).size == self.n_clusters:
            return False
        return distinct_rows(X, counted) < self.n_clusters

    def _step_line(self, step, objective):
        return f"Minibatch step {step + 1}: ewa inertia: {objective:.6g}"

    def _print_history(self):
        """Print the smoothed inertia of batches that were not shown, and the criterion, if ``verbose`` is set."""
        super()._print_history()
        if self.verbose and self.status_ == Status.CONVERGED:
            reason = "lack of improvement in inertia" if self._lacks_improvement() else "small centers change"
            print(f"Converged ({reason}) at step {len(self.history_)}")

    def _lacks_improvement(self):
        return self.max_no_improvement is not None and self._stream_state["stale"] >= self.max_no_improvement

    def _check_params(self, n, d):
        super()._check_params(n, d)
        validation.check_count("batch_size", self.batch_size)
        validation.check_positive("reassignment_ratio", self.reassignment_ratio, zero=True)
        if self.max_no_improvement is not None:
            validation.check_positive("max_no_improvement", self.max_no_improvement, zero=True)
        if self.init_size is not None:
            validation.check_count("init_size", self.init_size)

    def _n_init_rows(self):
        """Number of samples for the initialization: ``init_size``, or 3 × n_clusters if it is less than n_clusters."""
        if self.init_size is None or self.init_size >= self.n_clusters:
            return self.init_size
        warn(
            f"init_size={self.init_size} should be larger than n_clusters={self.n_clusters}. Setting it to "
            f"{3 * self.n_clusters}.",
            RuntimeWarning,
        )
        return 3 * self.n_clusters

    def _start(self, X, weights):
        """Options of the initialization: a name and a number of runs, or the best centers of a callable ``init``."""
        runs = self._n_runs(auto=AUTO_RESTARTS)
        if not callable(self.init):
            return {"init": self.init, "n_init": runs}
        starts = self._starts_from_callable(X, runs)
        return {"init": max(starts, key=lambda start: float(kmeans.score(start, X, weights=weights))), "n_init": 1}

    def _store_stream_state(self, state):
        """Store all that `partial_fit` continues from besides the centers: counts, smoothed inertia, patience."""
        self._stream_state = {name: np.array(value) for name, value in state._asdict().items() if name != "centers"}

    def _restore_stream_state(self):
        check_is_fitted(self)
        return minibatch.MiniBatchState(centers=self.cluster_centers_, **self._stream_state)

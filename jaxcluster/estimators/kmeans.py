"""`KMeans` and `BisectingKMeans` with scikit-learn's interface, over `jaxcluster.kmeans` and `jaxcluster.bisecting`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from jaxcluster.cluster import bisecting, kmeans, kpod
from jaxcluster.cluster.seeding import AUTO_RESTARTS, INITS
from jaxcluster.core import validation
from jaxcluster.core.messages import warn
from jaxcluster.core.sources import RowSource
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.estimators.base import CenterEstimator, as_key, as_random_state
from jaxcluster.estimators.input_tables import canonical, rows_of_fit
from jaxcluster.estimators.registry import register
from jaxcluster.ops.distance import matrix_precision
from jaxcluster.types import Status

ALGORITHMS = ("lloyd", "elkan")
"""Values of ``algorithm``, as in scikit-learn. One iteration with its own distance bounds computes both."""


IGNORE = "ignore"
"""Value of ``missing`` for k-POD, which leaves missing cells out."""


@register(
    "kmeans",
    takes_sources=True,
    takes_missing=True,
    needs={"missing": {"missing": (IGNORE,)}},
    starts=10,
    choices={
        "algorithm": ALGORITHMS,
        "metric": kmeans.METRICS,
        "precision": ("none", "fast"),
        "missing": ("none", IGNORE),
    },
)
@dataclass(eq=False, repr=False)
class KMeans(CenterEstimator):
    """k-means clustering with scikit-learn's parameters, attributes and methods.

    Computes in float32, or in float64 if the samples are float64 and JAX's x64 mode is on, relative to their median;
    ``cluster_centers_`` and `transform` have the dtype of the samples.

    Args:
        n_clusters: number of clusters.
        init: "k-means++", "random", "k-means||", (n_clusters, n_features) centers, or a callable
            ``init(X, n_clusters, random_state)`` that returns them; X is passed as it is.
        n_init: number of runs with different initializations, of which the least inertia wins. "auto" is 10 if ``init``
            is "random" or a callable, else 1.
        max_iter: maximum number of steps of a run.
        tol: stop when Σ‖Δc‖² <= tol × the mean variance of the features.
        verbose: 1 to print the inertia after every step of each start while the fit runs, and the longest time
            that it may still take.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        order: None, or "canonical" to fit the samples sorted by value: permuted samples then have the same labels.
        copy_x: accepted for compatibility with scikit-learn; X is never changed.
        algorithm: "lloyd" or "elkan". Both run the same iteration, which skips distances by its own bounds where that
            is faster, and give the same result.
        metric: "sqeuclidean", or "cosine" for spherical k-means on samples scaled to unit length.
        precision: precision of matrix products: None for full float32, "fast" for the fastest of the platform.
        frozen: fixed centers: an (n_clusters,) mask over the centers passed as ``init``, or (m, n_features) centers
            that become the first m.
        mesh: devices over which the samples of a fit are spread, such as ``jaxcluster.sharding.row_mesh()``; None for
            one device.
        missing: None, or "ignore" for cells that are NaN: distances are of the observed cells, and a missing one is
            that of the assigned center (k-POD). Each sample needs an observed cell; not with "cosine", ``frozen``,
            ``mesh``, sparse matrices or sources of rows.

    Attributes:
        cluster_centers_: (n_clusters, n_features).
        labels_: (n_samples,) int32.
        inertia_: Σ w·‖x − c‖² (data units²), or Σ w·(1 − cos).
        n_iter_: steps of the best run.
        history_: (n_iter_,) inertia after each step.
        status_: `jaxcluster.types.Status` of the iteration.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> import numpy as np
        >>> X = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
        >>> KMeans(n_clusters=2, random_state=0).fit(X).inertia_
        16.0
    """

    n_clusters: Any = 8
    _: KW_ONLY
    init: Any = "k-means++"
    n_init: Any = "auto"
    max_iter: Any = 300
    tol: Any = 1e-4
    verbose: Any = 0
    random_state: Any = None
    order: Any = None
    copy_x: Any = True
    algorithm: Any = "lloyd"
    metric: Any = "sqeuclidean"
    precision: Any = None
    frozen: Any = None
    mesh: Any = None
    missing: Any = None

    _missing_option = "missing='ignore'"

    @property
    def _metric(self):
        return self.metric

    @property
    def _takes_missing(self):
        return self.missing is not None

    @property
    def _functions(self):
        return kpod if self._takes_missing else kmeans

    def _row_options(self):
        return {"frame": self._frame} if self._takes_missing else super()._row_options()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._takes_missing
        tags.input_tags.sparse &= not self._takes_missing
        return tags

    @canonical
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> KMeans:
        """Cluster the samples.

        Args:
            X: (n_samples, n_features) array-like, DataFrame or sparse matrix, or a source of rows
                (`jaxcluster.datasets.scan`), which is read block by block in every step.
            y: ignored.
            sample_weight: (n_samples,) non-negative weights, or None for 1 each.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values.

        Warns:
            ConvergenceWarning: fewer distinct samples than clusters, or values beyond float32.
        """
        X = self._validate(X, reset=True)
        self._check_params(rows_of_fit(self, X.shape[0]), X.shape[1])
        if isinstance(X, RowSource) and (callable(self.init) or self.frozen is not None):
            raise ValueError("init= as a function and frozen= are not supported for a source of rows.")
        if self.algorithm == "elkan" and self.n_clusters == 1:
            warn(
                "algorithm='elkan' doesn't make sense for a single cluster. Using 'lloyd' instead.",
                RuntimeWarning,
            )
        if self._takes_missing:
            self._check_missing(X)
        weights = self._check_weights(sample_weight, X.shape[0])
        runs = self._n_runs(auto=AUTO_RESTARTS)
        with self._printed_live():
            fit, frame = self._best_fit(X, weights, runs)
        fit = self._publish(fit, frame, X, weights)
        self.n_iter_ = int(fit.steps)
        self._print_convergence(float(fit.state.residual))
        return self

    def _check_params(self, n, d):
        super()._check_params(n, d)
        validation.check_choice("algorithm", self.algorithm, ALGORITHMS)
        validation.check_choice("metric", self.metric, kmeans.METRICS)
        matrix_precision(self.precision)
        if self.missing is None:
            return
        validation.check_choice("missing", self.missing, (IGNORE,))
        if self.metric == "cosine" or self.frozen is not None or self.mesh is not None:
            raise ValueError(
                "missing='ignore' compares observed cells by squared differences, on one device, and moves all "
                "centers: leave out metric='cosine', frozen= and mesh=."
            )

    def _check_missing(self, X):
        if isinstance(X, RowSource) or is_sparse(X):
            kind = "a source of rows" if isinstance(X, RowSource) else "sparse, where an absent cell is 0"
            raise TypeError(f"missing='ignore' takes dense rows in memory, and X is {kind}. Pass missing=None.")

    _start_line = "Initialization complete"

    def _step_line(self, step, objective):
        """Line of a step in scikit-learn's format."""
        return f"Iteration {step}, inertia {objective:.6g}."

    def _print_convergence(self, shift):
        if not self.verbose or self.status_ != Status.CONVERGED:
            return
        reason = "strict convergence" if shift == 0 else f"center shift {shift:.4g} within tolerance"
        print(f"Converged at iteration {self.n_iter_ - 1}: {reason}.")

    def _best_fit(self, X, weights, runs):
        options = {
            "weights": weights,
            "tol": self.tol,
            "max_steps": self.max_iter,
        }
        if self._takes_missing:
            kpod.check_observed(X, name="X")
            return self._fit_from_starts(kpod.fit_framed, X, runs, **options)
        options |= {"metric": self.metric, "precision": self.precision, "frozen": self.frozen, "mesh": self.mesh}
        return self._fit_from_starts(kmeans.fit_framed, X, runs, **options)


@register(
    "bisecting-kmeans",
    choices={"algorithm": ALGORITHMS, "bisecting_strategy": bisecting.STRATEGIES},
)
@dataclass(eq=False, repr=False)
class BisectingKMeans(CenterEstimator):
    """Bisecting k-means: split one cluster in two until there are ``n_clusters``, with scikit-learn's parameters.

    Computes in float32, or in float64 if the samples are float64 and JAX's x64 mode is on; ``cluster_centers_`` and
    `transform` have the dtype of the computation.

    Args:
        n_clusters: number of clusters.
        init: initialization of each split: "random", "k-means++", "k-means||", or a callable
            ``init(X, 2, random_state)`` from the samples of the cluster to (2, n_features) centers. All splits run in
            one compiled program unless it is a callable.
        n_init: number of initializations tried for each split.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        order: None, or "canonical" to fit the samples sorted by value: permuted samples then have the same labels.
        max_iter: maximum number of steps of a split.
        verbose: print the inertia of every split after the fit.
        tol: stop a split when Σ‖Δc‖² <= tol × the mean variance of the features.
        copy_x: accepted for compatibility with scikit-learn; X is never changed.
        algorithm: "lloyd" or "elkan", with the same result, as in `KMeans`.
        bisecting_strategy: cluster to split: that of the "biggest_inertia", or the "largest_cluster" by weight.
        mesh: devices over which the samples of a fit are spread, such as ``jaxcluster.sharding.row_mesh()``; None for
            one device.

    Attributes:
        cluster_centers_: (n_clusters, n_features).
        labels_: (n_samples,) int32.
        inertia_: Σ w·‖x − c‖² (data units²).
        n_iter_: splits made, n_clusters − 1.
        history_: (n_iter_,) total inertia after each split.
        status_: `jaxcluster.types.Status` of the splits.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> import numpy as np
        >>> X = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
        >>> BisectingKMeans(n_clusters=2, random_state=0).fit(X).inertia_
        16.0
    """

    n_clusters: Any = 8
    _: KW_ONLY
    init: Any = "random"
    n_init: Any = 1
    random_state: Any = None
    order: Any = None
    max_iter: Any = 300
    verbose: Any = 0
    tol: Any = 1e-4
    copy_x: Any = True
    algorithm: Any = "lloyd"
    bisecting_strategy: Any = "biggest_inertia"
    mesh: Any = None

    @canonical
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> BisectingKMeans:
        """Cluster the samples.

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
        self._check_params(rows_of_fit(self, X.shape[0]), X.shape[1])
        weights = self._check_weights(sample_weight, X.shape[0])
        # One RandomState for all splits: the callable draws other numbers at each.
        random_state = as_random_state(self.random_state) if callable(self.init) else None

        def starts(rows):
            return np.stack(self._call_init(rows, self.n_init, 2, random_state))

        fit, frame = bisecting.fit_framed(
            as_key(self.random_state),
            X,
            self.n_clusters,
            weights=weights,
            strategy=self.bisecting_strategy,
            init=starts if callable(self.init) else self.init,
            n_init=self.n_init,
            tol=self.tol,
            max_steps=self.max_iter,
            mesh=self.mesh,
        )
        fit = self._publish(fit, frame, X, weights)
        self.n_iter_ = int(fit.steps)
        self._tree = {name: np.array(getattr(fit.state, name)) for name in ("weight", "parents", "pairs")}
        return self

    _required_attributes = ("cluster_centers_", "inertia_", "_tree")

    def predict(self, X: Any) -> np.ndarray:
        """Label each sample by descending the tree of splits, (n_samples,) int32."""
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        return np.array(bisecting.predict(self._state(), X, frame=self._frame))

    def _state(self):
        return bisecting.BisectingState(self.cluster_centers_, np.asarray(self.inertia_), **self._tree)

    def _check_attributes(self):
        super()._check_attributes()
        # Split i makes cluster i + 1 of a cluster that exists by then, so parents[i] <= i: else `predict` would read
        # beyond the centers.
        state, (k, d) = self._state(), self.cluster_centers_.shape
        parents = np.asarray(state.parents)
        whole = parents.dtype.kind in "iu" and parents.shape == (k - 1,)
        if not whole or not ((parents >= 0) & (parents <= np.arange(k - 1))).all():
            raise ValueError(f"the splits are not those of {k} clusters.")
        if np.shape(state.pairs) != (k - 1, 2, d) or not np.isfinite(state.pairs).all():
            raise ValueError(f"the splits are not between centers of {d} columns.")

    def _check_params(self, n, d):
        super()._check_params(n, d)
        validation.check_choice("algorithm", self.algorithm, ALGORITHMS)
        validation.check_choice("bisecting_strategy", self.bisecting_strategy, bisecting.STRATEGIES)

    def _check_init(self, d):
        if not isinstance(self.init, str) and not callable(self.init):
            raise TypeError(
                f"init={self.init!r} must be a name or a callable for BisectingKMeans, whose splits start from two "
                "centers each. Pass 'random' or 'k-means++'."
            )
        if isinstance(self.init, str):
            validation.check_choice("init", self.init, INITS)
        validation.check_count("n_init", self.n_init)

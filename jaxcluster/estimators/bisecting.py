"""scikit-learn's `BisectingKMeans` over `jaxcluster.bisecting`."""

from __future__ import annotations

import numpy as np
from sklearn.utils.validation import check_is_fitted

from jaxcluster.cluster import bisecting
from jaxcluster.cluster.seeding import INITS
from jaxcluster.core import check
from jaxcluster.estimators.base import CenterEstimator, as_key, as_random_state
from jaxcluster.estimators.kmeans import ALGORITHMS
from jaxcluster.estimators.order import canonical
from jaxcluster.estimators.registry import register


@register("bisecting-kmeans", "k-means that splits one cluster in two until there are enough")
class BisectingKMeans(CenterEstimator):
    """k-means that splits one cluster in two until there are enough, with scikit-learn's parameters and methods.

    Rows are computed in float32, or in float64 where they are float64 and JAX's x64 mode is on; ``cluster_centers_``
    and `transform` have the dtype of the computation.

    Args:
        n_clusters: number of clusters.
        init: how each split starts: "random", "k-means++", "k-means||", or a callable ``init(X, 2, random_state)``
            that is given the rows of the cluster as they are and returns (2, n_features) centers. All splits run in
            one program unless it is a callable.
        n_init: starts tried for each split.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        order: None, or "canonical" to fit the rows sorted by their values: permuted rows then have the same labels.
        max_iter: the most steps of a split.
        verbose: print the inertia after every split, after the fit.
        tol: stop a split when Σ‖Δc‖² <= tol × the mean variance of the columns.
        copy_x: accepted for scikit-learn's sake; X is never changed.
        algorithm: "lloyd" or "elkan", with the same result, as in `KMeans`.
        bisecting_strategy: which cluster is split: the one of "biggest_inertia", or the "largest_cluster" by weight.

    Attributes:
        cluster_centers_: (n_clusters, n_features).
        labels_: (n_samples,) int32.
        inertia_: Σ w·‖x − c‖² (data units²).
        n_iter_: splits made, n_clusters − 1.
        history_: (n_iter_,) total inertia after each split.
        status_: a `jaxcluster.types.Status`, how the splits ended.
        n_features_in_, feature_names_in_: as in scikit-learn.
    """

    def __init__(
        self,
        n_clusters=8,
        *,
        init="random",
        n_init=1,
        random_state=None,
        order=None,
        max_iter=300,
        verbose=0,
        tol=1e-4,
        copy_x=True,
        algorithm="lloyd",
        bisecting_strategy="biggest_inertia",
    ):
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.random_state = random_state
        self.order = order
        self.max_iter = max_iter
        self.verbose = verbose
        self.tol = tol
        self.copy_x = copy_x
        self.algorithm = algorithm
        self.bisecting_strategy = bisecting_strategy

    @canonical
    def fit(self, X, y=None, sample_weight=None):
        """Clusters the rows.

        Args:
            X: (n_samples, n_features) array-like or DataFrame; sparse matrices are refused.
            y: ignored.
            sample_weight: (n_samples,) non-negative weights, or None for 1 each.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values.

        Warns:
            ConvergenceWarning: fewer distinct rows than clusters, or values beyond float32.
        """
        X = self._validate(X, reset=True)
        self._check_params(*X.shape)
        weights = self._check_weights(sample_weight, X.shape[0])
        random_state = as_random_state(self.random_state) if callable(self.init) else None

        def starts(rows):
            return np.stack(self._called(rows, self.n_init, 2, random_state))

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
        )
        fit = self._publish(fit, frame, X, weights)
        self.n_iter_ = int(fit.steps)
        self._tree = {name: np.array(getattr(fit.state, name)) for name in ("weight", "parents", "pairs")}
        return self

    _labels_by = ("cluster_centers_", "inertia_", "_tree")

    def predict(self, X):
        """The cluster of each row by going down the splits, (n_samples,) int32."""
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        return np.array(bisecting.predict(self._state(), X, frame=self._frame))

    def _state(self):
        return bisecting.BisectingState(self.cluster_centers_, np.asarray(self.inertia_), **self._tree)

    def _check_attributes(self):
        super()._check_attributes()
        state, (k, d) = self._state(), self.cluster_centers_.shape
        parents = np.asarray(state.parents)
        if parents.dtype.kind not in "iu" or not ((parents >= 0) & (parents <= np.arange(k - 1))).all():
            raise ValueError(f"the splits are not those of {k} clusters.")
        if np.shape(state.pairs) != (k - 1, 2, d) or not np.isfinite(state.pairs).all():
            raise ValueError(f"the splits are not between centers of {d} columns.")

    def _check_params(self, n, d):
        super()._check_params(n, d)
        check.check_choice("algorithm", self.algorithm, ALGORITHMS)
        check.check_choice("bisecting_strategy", self.bisecting_strategy, bisecting.STRATEGIES)

    def _check_start(self, d):
        if not isinstance(self.init, str) and not callable(self.init):
            raise TypeError(
                f"init={self.init!r} must be a name or a callable for BisectingKMeans, whose splits start from two "
                "centers each. Pass 'random' or 'k-means++'."
            )
        if isinstance(self.init, str):
            check.check_choice("init", self.init, INITS)
        check.check_count("n_init", self.n_init)

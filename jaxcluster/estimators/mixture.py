"""`GaussianMixture` with scikit-learn's interface, over `jaxcluster.gmm`, and the base class of mixtures."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from jaxcluster.cluster import gmm
from jaxcluster.cluster.gmm.fit import em_options, fit_framed
from jaxcluster.cluster.gmm.init import check_init
from jaxcluster.cluster.gmm.online_em import check_decay, minibatch_fit_framed
from jaxcluster.cluster.gmm.state import covariance_type_named, covariance_type_of
from jaxcluster.core import validation
from jaxcluster.core.dtypes import publish
from jaxcluster.core.frame import Frame
from jaxcluster.core.messages import warn
from jaxcluster.core.sources import RowSource
from jaxcluster.estimators.base import Estimator, as_key
from jaxcluster.estimators.fit_messages import PRECISION_MESSAGE
from jaxcluster.estimators.input_tables import canonical, rows_of_fit
from jaxcluster.estimators.registry import register
from jaxcluster.ops.gaussian import COVARIANCE_TYPES
from jaxcluster.types import Absent, Fit, Status

MAX_LOWER_BOUNDS = 10_000
"""Number of batches of `partial_fit` whose lower bounds are kept: a stream has no end, and memory has."""


class MixtureEstimator(DensityMixin, Estimator):
    """Base of Gaussian mixtures: each sample belongs to each component with a probability, its responsibility.

    A subclass sets ``_functions``, the module whose ``predict``, ``predict_proba`` and ``score_samples`` take its state
    and samples, and defines `_state`.
    """

    info = Estimator.info._replace(
        clusters="n_components",
        steps="max_iter",
        init="init_params",
        reported=("lower_bound_", "n_iter_"),
        best="max",
        choices={"covariance_type": tuple(COVARIANCE_TYPES), "precision": ("none", "fast")},
    )

    _functions: Any = gmm

    _required_attributes = ("weights_", "means_", "covariances_")

    _frame: Frame | None = None
    """Origin and unit of the last fit, in which samples are compared with its components."""

    # Parameters that every subclass has.
    n_components: Any
    covariance_type: Any
    tol: Any
    reg_covar: Any
    max_iter: Any
    n_init: Any
    init_params: Any
    random_state: Any
    precision: Any

    _stream_state: dict[str, Any] | None
    """State of `partial_fit` after the last batch; None after a fit."""

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> MixtureEstimator:
        """Fit to the samples."""
        raise NotImplementedError

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.info.takes_sparse and self.covariance_type in ("diag", "spherical")
        return tags

    @property
    def _takes_missing(self):
        return getattr(self, "missing", None)

    def _state(self) -> Any:
        """State of the functions, from the fitted attributes."""
        raise NotImplementedError

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Fit, and return ``labels_``: the most probable component of each sample, (n_samples,) int32."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def predict(self, X: Any) -> np.ndarray:
        """Label each sample by its most probable component, (n_samples,) int32; ties go to the lower index."""
        return np.array(self._functions.predict(*self._state_and_rows(X), **self._row_options()))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Compute the responsibilities, (n_samples, n_components): probabilities of components given the samples."""
        return np.array(self._functions.predict_proba(*self._state_and_rows(X), **self._row_options()))

    def score_samples(self, X: Any) -> np.ndarray:
        """Compute the log-density of each sample (nats), (n_samples,)."""
        return np.array(self._functions.score_samples(*self._state_and_rows(X), **self._row_options()))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Compute the weighted mean log-density (nats per sample): higher is better."""
        check_is_fitted(self)
        densities = self.score_samples(X).astype(np.float64)
        return float(np.average(densities, weights=self._check_weights(sample_weight, len(densities))))

    def model_scores(self, X: Any, sample_weight: Any = None) -> dict[str, float]:
        """The mean log-likelihood (nats per row), and the lower bound that a variational fit raises."""
        return {"log_likelihood": self.score(X, sample_weight=sample_weight), "lower_bound": float(self.lower_bound_)}

    def report_parts(self, X: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The means and the components."""
        components = {"weights": self.weights_, "covariances": self.covariances_}
        return {"centers": self.means_, "components": components | {"covariance_type": self.covariance_type}}

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draw samples from the mixture, in the order of their components.

        Args:
            n_samples: number of samples.

        Returns:
            (n_samples, n_features) samples, and (n_samples,) int32 components.
        """
        check_is_fitted(self)
        n_samples = validation.check_count("n_samples", n_samples)
        x, labels = map(np.asarray, gmm.sample(as_key(self.random_state), self._mixture(), n_samples))
        # scikit-learn returns the samples grouped by component; a stable sort keeps the order of draws within each.
        order = np.argsort(labels, kind="stable")
        return x[order], labels[order]

    def _state_and_rows(self, X):
        check_is_fitted(self)
        return self._state(), self._validate(X, reset=False)

    def _row_options(self):
        return {"frame": self._frame} | ({"missing": True} if self._takes_missing else {})

    def _mixture(self) -> gmm.GMMState:
        """Fitted weights, means and covariances as a state of `jaxcluster.gmm`."""
        # The functions have an axis of components, of length 1 for a tied covariance.
        covariances = self.covariances_[None] if self.covariance_type == "tied" else self.covariances_
        # Predictions use weights, means and covariances; the other fields only complete the state.
        collapsed, dtype = np.zeros(self.weights_.shape, bool), self.weights_.dtype
        bound, zero = np.asarray(self.lower_bound_, dtype), np.zeros((), dtype)
        return gmm.GMMState(self.weights_, self._exact_means(), covariances, bound, collapsed, zero)

    def _store_exact_means(self, means):
        """Store the rounding error of ``means_``, so that predictions use the exact means.

        A mean near 1e4 has an error of 5e-4 in float32 and a mean near 1e18 one of 64 in float64: more than the
        standard deviation of narrow components.
        """
        self._published_means = self.means_.copy()
        self._means_residual = (means - self.means_.astype(np.longdouble)).astype(np.float64)

    def _exact_means(self):
        """``means_`` with their rounding errors added back, unless ``means_`` was replaced since the fit."""
        if not np.array_equal(getattr(self, "_published_means", ()), self.means_):
            return self.means_
        return self.means_.astype(np.longdouble) + self._means_residual

    def _check_params(self, n, d):
        super()._check_params(n, d)
        validation.check_clusters(self.n_components, n, name="n_components")
        validation.check_choice("covariance_type", self.covariance_type, COVARIANCE_TYPES)
        validation.check_choice("init_params", self.init_params, gmm.METHODS)
        # 0 keeps the initialization; any other value that is no positive integer is refused by `check_count`.
        validation.check_count("max_iter", self.max_iter if type(self.max_iter) is bool or self.max_iter != 0 else 1)
        validation.check_count("n_init", self.n_init)
        validation.check_positive("tol", self.tol, zero=True)
        validation.check_positive("reg_covar", self.reg_covar, zero=True)
        em_options(self.covariance_type, self.precision, getattr(self, "missing", False))

    def _check_attributes(self):
        super()._check_attributes()
        # `covariance_type_of` checks means and covariances; weights are not part of its test.
        if np.shape(self.weights_) != (len(self.means_),):
            raise ValueError(f"weights_ are not those of {len(self.means_)} components.")
        covariance_type_of(self._mixture())

    def _publish(self, fit: Fit, frame: Frame, means: np.ndarray | Absent) -> Fit:
        """Set the fitted attributes that all mixtures have; return the fit as NumPy arrays."""
        fit = jax.device_get(fit)
        self._frame = frame
        self._publish_mixture(fit.state)
        self._store_exact_means(means)
        self.labels_ = np.array(fit.labels)
        # The functions minimize: their history is the negative lower bound.
        self.lower_bounds_ = -np.array(fit.history[: int(fit.steps)])
        self.history_ = self.lower_bounds_
        self.lower_bound_ = float(fit.state.lower_bound)
        self.n_iter_ = int(fit.steps)
        self.status_ = Status(int(fit.status))
        # A run may reach tol although one of its components collapsed.
        reached = bool(fit.state.residual <= self.tol)
        self.converged_ = self.status_ == Status.CONVERGED or (self.status_ == Status.COLLAPSED and reached)
        self._print_history()
        self._warn_of_status(fit.state)
        return fit

    def _publish_mixture(self, state: Any) -> None:
        """Set weights, means, covariances and precisions, in scikit-learn's shapes."""
        state = jax.device_get(state)
        covariances = state.covariances[0] if self.covariance_type == "tied" else state.covariances
        self.weights_, self.means_, self.covariances_ = map(np.array, (state.weights, state.means, covariances))
        largest = _largest_variance(self.covariance_type, self.covariances_)
        # Below the least normal float64, variances have lost digits and a Cholesky factor is meaningless.
        if not np.finfo(np.float64).tiny <= largest < np.inf:
            raise ValueError(
                "The variances of the columns of X are beyond float64, which holds 1e-308 to 1e308. Scale the columns."
            )
        self.precisions_cholesky_, self.precisions_ = _roots_and_precisions(self.covariance_type, self.covariances_)

    def _warn_of_status(self, state):
        """Warn of a status other than convergence, with its cause and a remedy."""
        if self.status_ == Status.NOT_FINITE:
            message = (
                "The log-likelihood is not finite: rows of X, or sample_weight, are too far apart in size for float32. "
                "The last finite mixture is kept. Scale the columns, drop rows that are too far away, or compute in "
                "float64 with jax.config.update('jax_enable_x64', True)."
            )
        elif self.status_ == Status.PRECISION:
            message = PRECISION_MESSAGE
        elif self.status_ == Status.COLLAPSED:
            bad = np.flatnonzero(state.collapsed)
            named = f"component{'s' * (bad.size > 1)} {', '.join(map(str, bad[:8]))}{' …' * (bad.size > 8)}"
            message = (
                f"{type(self).__name__}: {named} of {self.n_components} collapsed: no rows are left, or their variance "
                f"is no more than reg_covar={self.reg_covar} or rounding. Pass fewer components, a larger reg_covar, "
                "columns of a larger scale, or covariance_type='diag'."
            )
        elif self.status_ == Status.MAX_STEPS and self.max_iter > 0:
            message = (
                f"{type(self).__name__} did not converge in max_iter={self.max_iter} steps. Raise max_iter or tol, or "
                "look for degenerate data."
            )
        elif _largest_variance(self.covariance_type, self.covariances_) < 2 * self.reg_covar:
            message = (
                f"reg_covar={self.reg_covar} is more than the variance of the rows in every component, so that it "
                "decides the result. Scale the columns of X, or pass a smaller reg_covar."
            )
        else:
            return
        warn(message, ConvergenceWarning)

    def _summary_metrics(self):
        steps = f"{self.n_iter_} step{'' if self.n_iter_ == 1 else 's'}"
        return [f"lower bound {self.lower_bound_:.4g}", steps]


def _largest_variance(covariance, covariances):
    """Largest mean variance of a feature within a component, from covariances in scikit-learn's shapes."""
    if covariance in ("full", "tied"):
        covariances = np.diagonal(covariances, axis1=-2, axis2=-1)
    with np.errstate(over="ignore"):  # variances whose sum is beyond float64 are refused
        return np.max(covariances if covariance == "spherical" else np.mean(covariances, axis=-1))


def _roots_and_precisions(covariance, covariances):
    """Factors and precisions of covariances in scikit-learn's shapes.

    They are computed on the host in float64: float32 holds lengths of 1e30, but not their squares.

    Returns:
        upper triangular R with precision R·Rᵀ, and the precisions.
    """
    wide = np.asarray(covariances, np.float64)
    exponent = int(np.frexp(np.abs(wide).max())[1]) // 2
    wide = np.ldexp(wide, -2 * exponent)  # scaled by a power of 2, so that most inverses are near 1
    with np.errstate(over="ignore", divide="ignore"):  # a precision beyond float64 is infinite
        if covariance in ("diag", "spherical"):
            roots = 1 / np.sqrt(wide)
            precisions = np.square(roots)
        else:
            lower = np.linalg.cholesky(wide)
            roots = np.swapaxes(np.linalg.inv(lower), -1, -2)
            precisions = roots @ np.swapaxes(roots, -1, -2)
        roots, precisions = np.ldexp(roots, -exponent), np.ldexp(precisions, -2 * exponent)
    return tuple(np.array(publish(each, covariances.dtype)) for each in (roots, precisions))


@register(
    "gmm",
    starts=3,
    objective="lower bound (nats per row)",
    takes_missing=True,
    needs={"sparse": {"covariance_type": ("diag", "spherical")}, "missing": {"missing": (True,)}},
    takes_sources=True,
)
@dataclass(eq=False, repr=False)
class GaussianMixture(MixtureEstimator):
    """Gaussian mixture by expectation–maximization, with scikit-learn's parameters, attributes and methods.

    Computes in float32, or in float64 if the samples are float64 and JAX's x64 mode is on, relative to their median;
    fitted attributes have the dtype of the samples.

    Args:
        n_components: number of components.
        covariance_type: "full", "tied" (one matrix for all), "diag" or "spherical".
        tol: stop when the lower bound (nats per sample) changes by no more.
        reg_covar: added to every variance (data units²).
        max_iter: maximum number of steps of a run; 0 keeps the initialization.
        n_init: number of runs with different initializations, of which the highest lower bound wins.
        init_params: "kmeans", "k-means++", "random_from_data" or "random".
        weights_init: (n_components,) initial weights, or None for those of ``init_params``.
        means_init: (n_components, n_features), or None.
        precisions_init: inverse covariances in the shape of ``covariances_``, or None.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        order: None, or "canonical" to fit the samples sorted by value: permuted samples then have the same labels.
        warm_start: initialize by the mixture of the last fit, if there is one.
        verbose: 1 to print the lower bound after every step while the fit runs, and the longest time that it may
            still take.
        verbose_interval: accepted for compatibility with scikit-learn.
        missing: True to integrate out NaN cells, in the fit and for new samples.
        precision: precision of matrix products: None for full float32, "fast" for the fastest of the platform.
        batch_size: samples per batch of online EM, for at most ``max_iter`` epochs; None for EM on all samples.
        decay: exponent of online EM and `partial_fit`, in (0.5, 1]: the t-th batch has weight (t + 2)^-decay.
        mesh: devices over which the samples of a fit are spread, such as ``jaxcluster.sharding.row_mesh()``; None for
            one device.

    Attributes:
        weights_: (n_components,).
        means_: (n_components, n_features).
        covariances_: (n_components, n_features, n_features) full, (n_features, n_features) tied,
            (n_components, n_features) diag or (n_components,) spherical.
        precisions_, precisions_cholesky_: their inverses, and the factors of these, in the same shapes.
        labels_: (n_samples,) int32, the most probable component of each sample.
        lower_bound_: mean log-likelihood (nats per sample) before the last step of the best run.
        lower_bounds_, history_: (n_iter_,) lower bound after each step.
        n_iter_: steps of the best run, or batches.
        converged_: True if ``tol`` was reached.
        status_: `jaxcluster.types.Status` of the iteration.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> import numpy as np
        >>> X = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
        >>> sorted(GaussianMixture(n_components=2, random_state=0).fit(X).means_[:, 0].round(3).tolist())
        [1.0, 10.0]
    """

    n_components: Any = 1
    _: KW_ONLY
    covariance_type: Any = "full"
    tol: Any = 1e-3
    reg_covar: Any = 1e-6
    max_iter: Any = 100
    n_init: Any = 1
    init_params: Any = "kmeans"
    weights_init: Any = None
    means_init: Any = None
    precisions_init: Any = None
    random_state: Any = None
    order: Any = None
    warm_start: Any = False
    verbose: Any = 0
    verbose_interval: Any = 10
    missing: Any = False
    precision: Any = None
    batch_size: Any = None
    decay: Any = 0.7
    mesh: Any = None

    @canonical
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> GaussianMixture:
        """Fit the mixture to the samples.

        Args:
            X: (n_samples, n_features) array-like or DataFrame, for "diag" and "spherical" also a sparse matrix, or a
                source of rows (`jaxcluster.datasets.scan`), which is read block by block in every step; the last two
                without batch_size.
            y: ignored.
            sample_weight: (n_samples,) non-negative weights, or None for 1 each; weight 2 equals the sample twice.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values.

        Warns:
            ConvergenceWarning: components collapsed (which are named), the step limit was reached, or values are
                beyond float32.
        """
        warm = self.warm_start and self.__sklearn_is_fitted__()
        X = self._validate(X, reset=True)
        self._check_params(rows_of_fit(self, X.shape[0]), X.shape[1])
        options = {
            "weights": self._check_weights(sample_weight, X.shape[0]),
            "init": self._mixture() if warm else self._start(),
            "tol": self.tol,
            "reg_covar": self.reg_covar,
        }
        em = em_options(self.covariance_type, self.precision, self.missing)
        key = as_key(self.random_state)
        if isinstance(X, RowSource) and self.batch_size is not None:
            raise ValueError("batch_size= draws batches of rows in memory: pass None for a source of rows.")
        if self.mesh is not None and self.batch_size is not None:
            raise ValueError("batch_size= draws batches of rows on one device: pass None with mesh=.")
        if self.batch_size is None:
            options |= {"n_init": self.n_init, "max_steps": self.max_iter, "mesh": self.mesh}
            with self._printed_live():
                fitted = fit_framed(key, X, self.n_components, em, **options)
        else:
            options |= {"decay": self.decay, "max_epochs": self.max_iter, "init_size": None, "max_no_improvement": 10}
            options["batch_size"] = min(validation.check_count("batch_size", self.batch_size), X.shape[0])
            with self._printed_live():
                fitted = minibatch_fit_framed(key, X, self.n_components, em, **options)
        self._publish(*fitted)
        self._stream_state = None
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> GaussianMixture:
        """Update the mixture by one more batch, a step of online EM; the first call initializes from its batch.

        ``labels_`` and ``lower_bound_`` are then those of the batch, ``lower_bound_`` as it was before the update.

        Args:
            X: (n_samples, n_features), any number of samples; at least n_components in the first call.
            y: ignored.
            sample_weight: (n_samples,) non-negative weights, or None for 1 each.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values.

        Warns:
            ConvergenceWarning: components collapsed, which are named.
        """
        first = not self.__sklearn_is_fitted__()
        X = self._validate(X, reset=first)
        self._check_params(X.shape[0] if first else self.n_components, X.shape[1])
        weights = self._check_weights(sample_weight, X.shape[0])
        options: dict[str, Any] = {**self._shared_options(), "weights": weights}
        if first:
            key = as_key(self.random_state)
            state = gmm.init(key, X, self.n_components, init=self._start(), **options)
            self.lower_bounds_ = np.zeros(0, np.float64)
        else:
            del options["covariance"]
            state = gmm.partial_fit(self._restore_stream_state(), X, decay=self.decay, **options)
        self._frame = state.frame
        self._publish_mixture(state.mixture())
        self._store_exact_means(state.wide_means())
        self._stream_state = {
            name: value if name == "frame" else np.array(value) for name, value in state._asdict().items()
        }
        self.lower_bound_ = float(state.lower_bound)
        self.lower_bounds_ = np.append(self.lower_bounds_, state.lower_bound)[-MAX_LOWER_BOUNDS:]
        self.history_, self.n_iter_, self.converged_ = self.lower_bounds_, int(state.steps), False
        self.status_ = Status.COLLAPSED if state.collapsed.any() else Status.MAX_STEPS
        self.labels_ = self.predict(X)
        if self.status_ == Status.COLLAPSED:
            self._warn_of_status(state)
        return self

    def model_scores(self, X: Any, sample_weight: Any = None) -> dict[str, float]:
        """The mean log-likelihood (nats per row) and the information criteria."""
        criteria = {"bic": self.bic(X, sample_weight), "aic": self.aic(X, sample_weight)}
        return {"log_likelihood": self.score(X, sample_weight=sample_weight), **criteria}

    def aic(self, X: Any, sample_weight: Any = None) -> float:
        """Compute Akaike's information criterion of the samples: lower is better."""
        return self._criterion(gmm.aic, X, sample_weight)

    def bic(self, X: Any, sample_weight: Any = None) -> float:
        """Compute the Bayesian information criterion of the samples: lower is better."""
        return self._criterion(gmm.bic, X, sample_weight)

    def _criterion(self, function, X, sample_weight):
        state, X = self._state_and_rows(X)
        weights = self._check_weights(sample_weight, X.shape[0])
        return float(function(state, X, weights=weights, **self._row_options()))

    def _state(self):
        return self._mixture()

    def _shared_options(self):
        return {"covariance": self.covariance_type, "reg_covar": self.reg_covar, "missing": self.missing}

    def _restore_stream_state(self):
        """State that `partial_fit` continues from: that after the last batch, or one derived from a fit."""
        if self._stream_state is not None:
            arrays = {name: jnp.asarray(value) for name, value in self._stream_state.items() if name != "frame"}
            return gmm.StepwiseState(frame=self._stream_state["frame"], **arrays)
        return gmm.from_fit(self._mixture(), steps=self.n_iter_, reg_covar=self.reg_covar, frame=self._frame)

    def _check_params(self, n, d):
        super()._check_params(n, d)
        check_init(self._start(), covariance_type_named(self.covariance_type), n, self.n_components, d)
        if self.batch_size is not None:
            validation.check_count("batch_size", self.batch_size)
        check_decay(self.decay)

    def _start(self):
        return gmm.GMMInit(self.means_init, self.weights_init, self.precisions_init, method=self.init_params)

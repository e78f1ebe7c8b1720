"""`BayesianGaussianMixture` with scikit-learn's interface, over `jaxcluster.bayesian_gmm`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from jaxcluster.cluster import bayesian_gmm
from jaxcluster.cluster.bayesian_gmm import prior as priors
from jaxcluster.cluster.bayesian_gmm.fit import PRIOR_TYPES, fit_framed
from jaxcluster.cluster.gmm.fit import em_options
from jaxcluster.cluster.gmm.state import covariance_type_named
from jaxcluster.core import validation
from jaxcluster.estimators.base import as_key
from jaxcluster.estimators.input_tables import canonical, rows_of_fit
from jaxcluster.estimators.mixture import MixtureEstimator
from jaxcluster.estimators.registry import register

PRIORS = (
    "weight_concentration_prior",
    "mean_precision_prior",
    "mean_prior",
    "degrees_of_freedom_prior",
    "covariance_prior",
)
"""Parameters of the prior; the fitted attributes of these names end with "_"."""


@register(
    "bayesian-gmm",
    objective="lower bound (up to a constant)",
)
@dataclass(eq=False, repr=False)
class BayesianGaussianMixture(MixtureEstimator):
    """Gaussian mixture by variational inference, with scikit-learn's parameters, attributes and methods.

    Components that the data do not need end with a weight near 0. Computes in float32, or in float64 if the samples are
    float64 and JAX's x64 mode is on, relative to their median; fitted attributes have the samples' dtype.

    Args:
        n_components: maximum number of components.
        covariance_type: "full", "tied" (one matrix for all), "diag" or "spherical".
        tol: stop when the lower bound (nats, sum over samples) changes by no more, or by no more than its rounding.
        reg_covar: added to every variance (data units²).
        max_iter: maximum number of steps of a run.
        n_init: number of runs with different initializations, of which the highest lower bound wins.
        init_params: "kmeans", "k-means++", "random_from_data" or "random".
        weight_concentration_prior_type: "dirichlet_process" or "dirichlet_distribution".
        weight_concentration_prior: smaller values use fewer components; None for 1 / n_components.
        mean_precision_prior: number of samples that the prior of a mean is worth; None for 1.
        mean_prior: (n_features,) prior of the means; None for the mean of the samples.
        degrees_of_freedom_prior: of the precisions, more than n_features − 1; None for n_features.
        covariance_prior: (n_features, n_features) full or tied, (n_features,) diag, a number spherical; None for the
            covariance of the samples.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        order: None, or "canonical" to fit the samples sorted by value: permuted samples then have the same labels.
        warm_start: initialize by the last fit, if there is one.
        verbose: 1 to print the lower bound after every step while the fit runs, and the longest time that it may
            still take.
        verbose_interval: accepted for compatibility with scikit-learn.
        precision: precision of matrix products: None for full float32, "fast" for the fastest of the platform.
        mesh: devices over which the samples of a fit are spread, such as ``jaxcluster.sharding.row_mesh()``; None for
            one device.

    Attributes:
        weights_: (n_components,) expected mixture weights.
        weight_concentration_: (n_components,) of a Dirichlet distribution; of a process a tuple of two
            such arrays, the Beta parameters of the stick-breaking weights.
        mean_precision_: (n_components,) number of samples that each mean is worth, prior included.
        means_: (n_components, n_features).
        degrees_of_freedom_: (n_components,), or a number if tied.
        covariances_: (n_components, n_features, n_features) full, (n_features, n_features) tied,
            (n_components, n_features) diag or (n_components,) spherical.
        precisions_, precisions_cholesky_: their inverses, and the factors of these, in the same shapes.
        weight_concentration_prior_, mean_precision_prior_, mean_prior_, degrees_of_freedom_prior_, covariance_prior_:
            the priors, with the defaults in place of None.
        labels_: (n_samples,) int32, the most probable component of each sample.
        lower_bound_: evidence lower bound (nats, sum over samples), without its constants.
        lower_bounds_, history_: (n_iter_,) lower bound after each step.
        n_iter_: steps of the best run.
        converged_: True if ``tol`` was reached.
        status_: `jaxcluster.types.Status` of the iteration.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).normal(size=(100, 2))
        >>> X = noise + 10 * (np.arange(100) % 2)[:, None]
        >>> mixture = BayesianGaussianMixture(n_components=5, weight_concentration_prior=0.01, random_state=0).fit(X)
        >>> int((mixture.weights_ > 0.05).sum())
        2
    """

    _functions = bayesian_gmm

    n_components: Any = 1
    _: KW_ONLY
    covariance_type: Any = "full"
    tol: Any = 1e-3
    reg_covar: Any = 1e-6
    max_iter: Any = 100
    n_init: Any = 1
    init_params: Any = "kmeans"
    weight_concentration_prior_type: Any = "dirichlet_process"
    weight_concentration_prior: Any = None
    mean_precision_prior: Any = None
    mean_prior: Any = None
    degrees_of_freedom_prior: Any = None
    covariance_prior: Any = None
    random_state: Any = None
    order: Any = None
    warm_start: Any = False
    verbose: Any = 0
    verbose_interval: Any = 10
    precision: Any = None
    mesh: Any = None

    @canonical
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> BayesianGaussianMixture:
        """Fit the mixture to the samples.

        Args:
            X: (n_samples, n_features) array-like or DataFrame; sparse matrices are refused.
            y: ignored.
            sample_weight: (n_samples,) non-negative weights, or None for 1 each; weight 2 equals the sample twice.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values.

        Warns:
            ConvergenceWarning: singular components (which are named), the step limit was reached, or values are beyond
                float32.
        """
        warm = self.warm_start and self.__sklearn_is_fitted__()
        X = self._validate(X, reset=True)
        self._check_params(rows_of_fit(self, X.shape[0]), X.shape[1])
        with self._printed_live():
            fitted = fit_framed(
                as_key(self.random_state),
                X,
                self.n_components,
                em_options(self.covariance_type, self.precision, False),
                weights=self._check_weights(sample_weight, X.shape[0]),
                init=self._state() if warm else self.init_params,
                n_init=self.n_init,
                tol=self.tol,
                max_steps=self.max_iter,
                reg_covar=self.reg_covar,
                prior_type=self.weight_concentration_prior_type,
                prior_params=self._priors(),
                mesh=self.mesh,
            )
        self._publish(*fitted)
        return self

    def _check_params(self, n, d):
        super()._check_params(n, d)
        validation.check_choice("weight_concentration_prior_type", self.weight_concentration_prior_type, PRIOR_TYPES)
        priors.check_prior(self._priors(), covariance_type_named(self.covariance_type), d)

    def _check_attributes(self):
        super()._check_attributes()
        state, k = self._state(), len(self.means_)
        parts = (state.weight_concentration, state.mean_precision, state.degrees_of_freedom)
        if [np.shape(part)[-1:] for part in parts] != [(k,), (k,), (1 if self.covariance_type == "tied" else k,)]:
            raise ValueError(f"the posterior is not that of {k} components.")

    def _priors(self):
        return priors.PriorParams(*(getattr(self, name) for name in PRIORS))

    def _publish_mixture(self, state):
        super()._publish_mixture(state)
        concentration = np.array(state.weight_concentration)
        self.weight_concentration_ = tuple(concentration) if concentration.ndim == 2 else concentration
        self.mean_precision_ = np.array(state.mean_precision)
        # A tied covariance has one Wishart posterior, of which scikit-learn publishes a number.
        degrees = np.array(state.degrees_of_freedom)
        self.degrees_of_freedom_ = float(degrees[0]) if self.covariance_type == "tied" else degrees
        for name in PRIORS:
            value = np.array(getattr(state.prior, name.removesuffix("_prior")))
            setattr(self, f"{name}_", value if value.ndim else float(value))

    def _state(self):
        concentration, precision, degrees, *priors = (
            np.asarray(value, self.means_.dtype)
            for value in (
                self.weight_concentration_,
                self.mean_precision_,
                np.atleast_1d(self.degrees_of_freedom_),
                *(getattr(self, f"{name}_") for name in PRIORS),
                self.reg_covar,
            )
        )
        return bayesian_gmm.BayesianGMMState(
            weight_concentration=concentration,
            mean_precision=precision,
            degrees_of_freedom=degrees,
            prior=bayesian_gmm.Prior(*priors),
            **self._mixture()._asdict(),
        )

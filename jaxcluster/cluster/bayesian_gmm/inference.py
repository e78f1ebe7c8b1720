"""State of a Bayesian mixture for the user, and inference with it: labels, responsibilities, scores and sampling."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster import gmm
from jaxcluster.cluster.bayesian_gmm.variational_em import Posterior, Prior, components_of, expected_weights
from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.inference import FramedPosterior, mean_log_p, rows_in_frame
from jaxcluster.cluster.gmm.state import (
    GMMState,
    Ridge,
    covariance_type_of,
    enter_means,
    frame_log_jacobian,
    public_covariances,
    published_weights,
)
from jaxcluster.core import validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import publish
from jaxcluster.core.frame import Frame
from jaxcluster.core.implicit import non_differentiable
from jaxcluster.core.padding import pad_active
from jaxcluster.core.preparation import unpad
from jaxcluster.ops.gaussian import COVARIANCE_TYPES, Components, CovarianceType
from jaxcluster.types import Array, Bool, Float, Int, KeyArray, Published


class BayesianGMMState(NamedTuple):
    """Posterior of a mixture: Gaussian–Wishart for each component, Dirichlet or stick-breaking for the weights.

    Attributes:
        weight_concentration: (k,) of a Dirichlet distribution; (2, k) both beta parameters of each stick of a process.
        mean_precision: (n_components,) weight of the samples and the prior that each mean rests on.
        means: (n_components, n_features).
        degrees_of_freedom: (k,); (1,) tied.
        covariances: inverses of the mean precisions: (k, d, d) full, (1, d, d) tied, (k, d) diagonal or (k,) spherical;
            the shape tells the type.
        weights: (n_components,) expected mixture weights, summing to 1.
        lower_bound: () of the evidence of all samples, without its constants (nats), as scikit-learn defines it.
        collapsed: (n_components,) mask of those whose covariance was singular and was kept finite.
        residual: () change of the lower bound in the last step.
        prior: of the fit, with the defaults of the parameters that were None.
    """

    weight_concentration: Float[Published, ...]
    mean_precision: Float[Published, "*batch k"]
    means: Float[Published, "*batch k d"]
    degrees_of_freedom: Float[Published, ...]
    covariances: Float[Published, ...]
    weights: Float[Published, "*batch k"]
    lower_bound: Float[Published, "*batch"]
    collapsed: Bool[Published, "*batch k"]
    residual: Float[Published, "*batch"]
    prior: Prior

    @property
    def objective(self) -> Float[Published, "*batch"]:
        """Negative lower bound (nats), by which runs are compared."""
        return -self.lower_bound

    def leave(self, frame: Frame, covariance_type: CovarianceType, ridge: Ridge, shift: Any) -> BayesianGMMState:
        """The same posterior in the caller's coordinates and units.

        Args:
            frame: of the fit.
            covariance_type: of the mixture.
            ridge: of the fit.
            shift: () lower bound in data units less that in the frame (nats).
        """
        prior = self.prior
        return BayesianGMMState(
            frame.unscale(self.weight_concentration),
            frame.unscale(self.mean_precision),
            frame.leave(self.means),
            frame.unscale(self.degrees_of_freedom),
            ridge.leave(covariance_type, self.covariances, frame),
            published_weights(self.weights, frame),
            shift_bound(self.lower_bound, shift, frame),
            self.collapsed,
            frame.unscale(self.residual),
            Prior(
                frame.unscale(prior.weight_concentration),
                frame.unscale(prior.mean_precision),
                frame.leave(prior.mean),
                frame.unscale(prior.degrees_of_freedom),
                frame.unscale(prior.covariance, length=2),
                publish(np.asarray(ridge.reg), frame.dtype) if not validation.is_traced(ridge.reg) else ridge.reg,
            ),
        )

    def of_components(self, k: int) -> BayesianGMMState:
        """The same without the padding that follows the first k components."""
        if self.weights.shape[-1] == k:
            return self
        tied = self.covariances.shape[0] == 1
        return self._replace(
            weight_concentration=unpad(self.weight_concentration, k),
            mean_precision=unpad(self.mean_precision, k),
            means=unpad(self.means, k, axis=-2),
            degrees_of_freedom=self.degrees_of_freedom if tied else unpad(self.degrees_of_freedom, k),
            covariances=self.covariances if tied else unpad(self.covariances, k, axis=0),
            weights=unpad(self.weights, k),
            collapsed=unpad(self.collapsed, k),
        )


def plug_in(state: BayesianGMMState) -> GMMState:
    """Mixture of the posterior means: expected weights, means, and inverses of the expected precisions."""
    return GMMState(state.weights, state.means, state.covariances, state.lower_bound, state.collapsed, state.residual)


def shift_bound(bound: Any, shift: Any, frame: Frame) -> Published:
    """Lower bound in data units, from that in a frame and the result of `bound_shift`."""
    if validation.is_traced(bound, shift):
        return bound + jnp.asarray(shift).astype(bound.dtype)
    return publish(np.asarray(bound, np.float64) + np.asarray(shift, np.float64), frame.dtype)


def bound_shift(frame: Frame, degrees: Any, d: int) -> Any:
    """Lower bound of the evidence in data units less that in a frame (nats).

    Args:
        frame: of the fit.
        degrees: () sum of the degrees of freedom ν of all components.
        d: number of features.
    """
    # The bound contains ν·log |R| of each component, with R in units of 1/length. No other term has a unit.
    log_jacobian = frame_log_jacobian(frame)
    if validation.is_traced(log_jacobian, degrees):
        return jnp.asarray(log_jacobian).astype(degrees.dtype) * (d * degrees)
    return log_jacobian * d * float(degrees)


def posterior_in_frame(state: BayesianGMMState, frame: Frame, dtype: np.dtype, covariance: str | None = None):
    """Posterior of a state in a frame.

    Args:
        state: a fitted posterior.
        frame: of the samples.
        dtype: of the samples.
        covariance: the type, if known: with one component the shapes of "tied" and "full" are the same.

    Returns:
        The `CovarianceType`, and the `Posterior`, whose factor is None.
    """
    covariance_type, covariances = covariance_type_of(plug_in(state))
    k = state.means.shape[0]
    if covariance == "tied" != covariance_type.name:
        covariance_type, covariances = COVARIANCE_TYPES["tied"], covariances[0]
    degrees = state.degrees_of_freedom
    arrays = (
        state.weight_concentration,
        state.mean_precision,
        enter_means(state.means, frame),
        degrees.reshape(() if covariance_type.name == "tied" else (k,)),
        frame.scale(covariances, length=2),
    )
    if not validation.is_traced(arrays):
        arrays = tuple(np.asarray(each).astype(dtype) for each in arrays)
    return covariance_type, Posterior(*(jnp.asarray(each).astype(dtype) for each in arrays), factor=None)


def pad_posterior(covariance_type: CovarianceType, posterior: Posterior, padded: int) -> Posterior:
    """The same concrete posterior with ``padded`` components, those beyond its own inactive copies of the last."""
    k = posterior.means.shape[0]

    def pad(values: Any, axis: int = 0) -> Any:
        extra = [(0, 0)] * np.ndim(values)
        extra[axis] = (0, padded - k)
        return np.pad(np.asarray(values), extra, mode="edge")

    tied = covariance_type.name == "tied"
    return Posterior(
        pad(posterior.weight_concentration, -1),
        pad(posterior.mean_precision),
        pad(posterior.means),
        posterior.degrees_of_freedom if tied else pad(posterior.degrees_of_freedom),
        posterior.covariances if tied else pad(posterior.covariances),
        None,
        pad_active(None, k, padded),
    )


def with_factor(covariance_type: CovarianceType, posterior: Posterior) -> Posterior:
    """The posterior with the factor of its covariances."""
    covariances, factor, _ = covariance_type.factor(posterior.covariances, posterior.means.shape[1])
    return posterior._replace(covariances=covariances, factor=factor)


def state_in_frame(
    covariance_type: CovarianceType, posterior: Posterior, prior: Prior, lower_bound: Any, collapsed: Any, residual: Any
) -> BayesianGMMState:
    """`BayesianGMMState` of a posterior, still in the frame of the fit."""
    return BayesianGMMState(
        weight_concentration=posterior.weight_concentration,
        mean_precision=posterior.mean_precision,
        means=posterior.means,
        degrees_of_freedom=jnp.atleast_1d(posterior.degrees_of_freedom),
        covariances=public_covariances(covariance_type, posterior.covariances),
        weights=expected_weights(posterior.weight_concentration, posterior.active),
        lower_bound=lower_bound,
        collapsed=collapsed,
        residual=residual,
        prior=prior,
    )


def predict(state: BayesianGMMState, x: Any, *, frame: Frame | None = None) -> Int[Array, " n"]:
    """Most probable component of each sample, (n_samples,); ties go to the lower index.

    Args:
        state: a fitted posterior.
        x: (n_samples, n_features) data.
        frame: of the fit of the posterior; None for a frame about its means.

    Raises:
        ValueError, TypeError: a wrong number of features; a gradient with respect to labels, which have none.
    """
    return non_differentiable(_posterior(state, x, frame=frame).labels(), state, x)


def predict_proba(state: BayesianGMMState, x: Any, *, frame: Frame | None = None) -> Float[Published, "n k"]:
    """Responsibilities (n_samples, n_components), which sum to 1 for each sample; see `predict`."""
    return _posterior(state, x, frame=frame).responsibilities()


def score_samples(state: BayesianGMMState, x: Any, *, frame: Frame | None = None) -> Float[Published, " n"]:
    """Variational counterpart of the log-density of each sample: log Σ exp E log(weight·density) (nats), (n_samples,).

    It is below the log-density, by less the more samples the posterior rests on. See `predict`.
    """
    return _posterior(state, x, frame=frame).log_p()


def score(state: BayesianGMMState, x: Any, *, weights: Any = None, frame: Frame | None = None) -> Float[Published, ""]:
    """Weighted mean of `score_samples` (nats per sample): higher is better. ``weights`` is (n_samples,), or None."""
    return mean_log_p(_posterior(state, x, weights, frame=frame))


def sample(key: KeyArray, state: BayesianGMMState, n: int) -> tuple[Float[Published, "n d"], Int[Array, " n"]]:
    """Draws samples from the mixture of the posterior means.

    Args:
        key: random key.
        state: a fitted posterior.
        n: number of samples, static.

    Returns:
        Samples (n_samples, n_features), and the component of each, (n_samples,) int32.
    """
    return gmm.sample(key, plug_in(state), n)


def _posterior(state, x, weights=None, *, frame=None):
    """`FramedPosterior` of a caller's samples under a posterior."""
    prepared, x, outside = rows_in_frame(plug_in(state), x, weights, frame=frame)
    covariance_type, posterior = posterior_in_frame(state, prepared.frame, prepared.points.x.dtype)
    options = em.EMOptions(covariance_type.name)
    k = state.means.shape[0]
    if (padded := em.padded_components(options, k, prepared.points, posterior)) is not None:
        posterior = pad_posterior(covariance_type, posterior, padded)
    components = posterior_components(covariance_type, posterior)
    return FramedPosterior(options, components, prepared, x, outside, state.means, k)


@persistent_jit(static_argnums=0)
def posterior_components(covariance_type: CovarianceType, posterior: Posterior) -> Components:
    """Components of a posterior whose factor is not computed yet."""
    return components_of(with_factor(covariance_type, posterior))

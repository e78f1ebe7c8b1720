"""The public posterior of a mixture."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.bayesian_gmm.posterior import Posterior, Prior, mean_weights
from jaxcluster.cluster.gmm.state import (
    GMMState,
    Ridge,
    covariance_type_of,
    enter_means,
    public_covariances,
    published_shares,
    volume,
)
from jaxcluster.core import check
from jaxcluster.core.frame import Frame, publish
from jaxcluster.ops.gaussian import COVARIANCE_TYPES, CovarianceType
from jaxcluster.types import Bool, Float, Published


class BayesianGMMState(NamedTuple):
    """The posterior of a mixture: Gaussian–Wishart for each component, Dirichlet or stick-breaking for the shares.

    Attributes:
        weight_concentration: (k,) of a Dirichlet distribution; (2, k) both Beta parameters of each stick of a process.
        mean_precision: (k,) how many rows each mean rests on.
        means: (k, d).
        degrees_of_freedom: (k,); (1,) tied.
        covariances: inverses of the mean precisions: (k, d, d) full, (1, d, d) tied, (k, d) diagonal or (k,) spherical;
            the shape tells the type.
        weights: (k,) expected share of each component, summing to 1.
        lower_bound: () of the evidence of all rows, without its constants (nats), as scikit-learn defines it.
        collapsed: (k,) components whose covariance was singular and was kept finite.
        residual: () change of the lower bound in the last step.
        prior: the priors of the fit, with what stood in for those not given.
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
        """The negative lower bound, by which runs are compared."""
        return -self.lower_bound

    def leave(self, frame: Frame, covariance_type: CovarianceType, ridge: Ridge, shift: Any) -> BayesianGMMState:
        """The same posterior out of the frame of its fit.

        Args:
            frame: of the fit.
            covariance_type: the type of the covariances.
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
            published_shares(self.weights, frame),
            plus(self.lower_bound, shift, frame),
            self.collapsed,
            frame.unscale(self.residual),
            Prior(
                frame.unscale(prior.weight_concentration),
                frame.unscale(prior.mean_precision),
                frame.leave(prior.mean),
                frame.unscale(prior.degrees_of_freedom),
                frame.unscale(prior.covariance, length=2),
                publish(np.asarray(ridge.reg), frame.dtype) if not check.is_traced(ridge.reg) else ridge.reg,
            ),
        )


def plug_in(state: BayesianGMMState) -> GMMState:
    """The mixture of the posterior's means: its expected shares, means, and inverses of the expected precisions."""
    return GMMState(state.weights, state.means, state.covariances, state.lower_bound, state.collapsed, state.residual)


def plus(bound: Any, shift: Any, frame: Frame) -> Published:
    """A bound in a frame plus what makes one in data units of it."""
    if check.is_traced(bound, shift):
        return bound + jnp.asarray(shift).astype(bound.dtype)
    return publish(np.asarray(bound, np.float64) + np.asarray(shift, np.float64), frame.dtype)


def bound_shift(frame: Frame, degrees: Any, d: int) -> Any:
    """Lower bound of the evidence in data units less that in a frame (nats).

    The bound has ν·log |R| of each component, R in units of a length⁻¹, and no other term has a unit.

    Args:
        degrees: () degrees of freedom ν of all components together.
    """
    cell = volume(frame)
    if check.is_traced(cell, degrees):
        return jnp.asarray(cell).astype(degrees.dtype) * (d * degrees)
    return cell * d * float(degrees)


def posterior_of(state: BayesianGMMState, frame: Frame, dtype: np.dtype, covariance: str | None = None):
    """The type of a state's covariances and its posterior in a frame, as arrays of ``dtype``.

    Args:
        state: a fitted posterior.
        frame: where the rows are.
        dtype: of the rows.
        covariance: the type, which the shapes do not tell of one component: "tied" and "full" look alike.

    Returns:
        The `CovarianceType`, and the `Posterior` but for its factor, which is None.
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
    if not check.is_traced(arrays):
        arrays = tuple(np.asarray(each).astype(dtype) for each in arrays)
    return covariance_type, Posterior(*(jnp.asarray(each).astype(dtype) for each in arrays), None)


def with_factor(covariance_type: CovarianceType, posterior: Posterior) -> Posterior:
    """A posterior with the factor of its covariances."""
    covariances, factor, _ = covariance_type.factor(posterior.covariances, posterior.means.shape[1])
    return posterior._replace(covariances=covariances, factor=factor)


def frame_state(
    covariance_type: CovarianceType, posterior: Posterior, prior: Prior, lower_bound: Any, collapsed: Any, residual: Any
) -> BayesianGMMState:
    """The state of a posterior, still in the frame of its fit."""
    return BayesianGMMState(
        weight_concentration=posterior.weight_concentration,
        mean_precision=posterior.mean_precision,
        means=posterior.means,
        degrees_of_freedom=jnp.atleast_1d(posterior.degrees_of_freedom),
        covariances=public_covariances(covariance_type, posterior.covariances),
        weights=mean_weights(posterior.weight_concentration),
        lower_bound=lower_bound,
        collapsed=collapsed,
        residual=residual,
        prior=prior,
    )

"""The posterior of a mixture as its users see it."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from jaxcluster.cluster.bayesian_gmm.posterior import Posterior, Prior, mean_weights
from jaxcluster.cluster.gmm.state import GMMState, family_of, public_covariances
from jaxcluster.ops.gaussian import FAMILIES, Family
from jaxcluster.types import Array, Bool, Float


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

    weight_concentration: Float[Array, ...]
    mean_precision: Float[Array, "*batch k"]
    means: Float[Array, "*batch k d"]
    degrees_of_freedom: Float[Array, ...]
    covariances: Float[Array, ...]
    weights: Float[Array, "*batch k"]
    lower_bound: Float[Array, "*batch"]
    collapsed: Bool[Array, "*batch k"]
    residual: Float[Array, "*batch"]
    prior: Prior

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """The negative lower bound, by which runs are compared."""
        return -self.lower_bound


def plug_in(state: BayesianGMMState) -> GMMState:
    """The mixture of the posterior's means: its expected shares, means, and inverses of the expected precisions."""
    return GMMState(state.weights, state.means, state.covariances, state.lower_bound, state.collapsed, state.residual)


def posterior_of(
    state: BayesianGMMState, origin: Float[Array, " d"], covariance: str | None = None
) -> tuple[Family, Posterior]:
    """The type of a state's covariances and its posterior, for rows that had ``origin`` subtracted.

    Args:
        state: a fitted posterior.
        origin: (d,).
        covariance: the type, which the shapes do not tell of one component: "tied" and "full" look alike.
    """
    family, covariances = family_of(plug_in(state))
    k, d = state.means.shape
    if covariance == "tied" != family.name:
        family, covariances = FAMILIES["tied"], covariances[0]
    degrees = jnp.reshape(state.degrees_of_freedom, () if family.name == "tied" else (k,))
    arrays = (state.weight_concentration, state.mean_precision, state.means - origin, degrees, covariances)
    *arrays, covariances = (jnp.asarray(each, origin.dtype) for each in arrays)
    covariances, factor, _ = family.factor(covariances, d)
    return family, Posterior(*arrays, covariances, factor)


def public_state(
    family: Family, posterior: Posterior, prior: Prior, origin: Float[Array, " d"], lower_bound, collapsed, residual
) -> BayesianGMMState:
    """The state of a posterior, in the frame of rows that had ``origin`` subtracted."""
    return BayesianGMMState(
        weight_concentration=posterior.weight_concentration,
        mean_precision=posterior.mean_precision,
        means=posterior.means + origin,
        degrees_of_freedom=jnp.atleast_1d(posterior.degrees_of_freedom),
        covariances=public_covariances(family, posterior.covariances),
        weights=mean_weights(posterior.weight_concentration),
        lower_bound=lower_bound,
        collapsed=collapsed,
        residual=residual,
        prior=prior._replace(mean=prior.mean + origin),
    )

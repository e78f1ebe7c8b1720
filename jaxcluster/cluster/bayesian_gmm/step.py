"""Coordinate ascent of the lower bound in a frame: statistics of a tile of rows, and one step of the posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.bayesian_gmm.posterior import (
    Model,
    Posterior,
    Prior,
    bound_of,
    log_offsets,
    mean_weights,
    row_entropy,
    update,
)
from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.settle import settle
from jaxcluster.cluster.gmm.state import Mixture
from jaxcluster.ops.gaussian import Components, Moments
from jaxcluster.types import Array, Bool, Float

NOISE = 2
"""Rounding errors by which a lower bound has to rise to be known to have done so."""


class VBStats(NamedTuple):
    """What rows contribute: moments about a reference, and −Σ w·r·log r (nats)."""

    moments: Moments
    entropy: Float[Array, ""]


class VBUpdate(NamedTuple):
    """What one round leads to.

    Attributes:
        posterior: the new one.
        collapsed: (k,) components whose covariance is singular to the precision at hand.
        besides: () what came with the moments.
    """

    posterior: Posterior
    collapsed: Bool[Array, " k"]
    besides: Float[Array, ""]


class VBState(NamedTuple):
    """A posterior and its lower bound.

    Attributes:
        posterior: what the last step led to.
        lower_bound: () of the evidence (nats).
        collapsed: (k,) components whose covariance was kept from being singular.
        residual: () change of the lower bound; 0 once no step raises it.
        fall: () by how much the last step would have lowered it, beyond what rounding and ``reg_covar`` allow; 0 for a
            step that was taken.
    """

    posterior: Posterior
    lower_bound: Float[Array, "*batch"]
    collapsed: Bool[Array, "*batch k"]
    residual: Float[Array, "*batch"]
    fall: Float[Array, "*batch"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """The negative lower bound."""
        return -self.lower_bound


def components_of(posterior: Posterior) -> Components:
    """The Gaussians of a posterior, raised by what E log(weight·density) has beyond the log-density (nats)."""
    return Components(log_offsets(posterior), posterior.means, posterior.covariances, posterior.factor)


def vb_stats(model: Model, posterior: Posterior, reference: Float[Array, "k d"], columns: em.Columns) -> VBStats:
    """The responsibilities under a posterior, folded into moments about a reference, each row read once.

    Args:
        model: how rows are gone over.
        posterior: in the frame of the rows.
        reference: near the means to come.
        columns: the rows, weights as counts.
    """

    def summary(moments, log_sum, r, weight):
        # A row that is beyond reach of every component has no responsibilities; its status must not be CONVERGED.
        entropy = jnp.where(jnp.isfinite(log_sum), row_entropy(r), jnp.nan)
        return VBStats(moments, weight @ jnp.where(weight > 0, entropy, 0))

    return em.fold_e_step(model.em, components_of(posterior), plain(posterior), reference, columns, summary)


def fit_moments(
    model: Model,
    moments_about: Callable[[Float[Array, "k d"]], tuple[Moments, Float[Array, ""]]],
    reference: Float[Array, "k d"],
    prior: Prior,
) -> tuple[VBUpdate, Float[Array, ""]]:
    """The posterior from moments about a reference, and what the way to its means adds to the lower bound (nats).

    Args:
        moments_about: reference -> moments of the rows about it, and a number that comes with them.
        reference: near the means to come.
    """

    def once(reference):
        moments, besides = moments_about(reference)
        posterior, collapsed, shift = update(model, moments, reference, prior)
        return VBUpdate(posterior, collapsed, besides), posterior.means, shift

    found, way = settle(once, reference)
    return found, found.posterior.mean_precision @ way / 2


def step(model: Model, columns: em.Columns, prior: Prior, state: VBState) -> VBState:
    """One round of responsibilities and posterior. One that lowered the bound, or is not finite, is given up.

    The bound of many rows has few digits left for its changes. Where these are lost, the part of them that the means
    brought, which is known by itself, decides whether to go on.
    """
    (posterior, collapsed, entropy), gain = fit_moments(
        model,
        lambda reference: vb_stats(model, state.posterior, reference, columns),
        state.posterior.means,
        prior,
    )
    bound = entropy + bound_of(posterior)
    broken = ~jnp.isfinite(bound)
    ulp = jnp.finfo(bound.dtype).eps * jnp.maximum(jnp.abs(bound), 1)
    change = bound - state.lower_bound
    cost = em.ridge_cost(model.em.covariance_type, plain(state.posterior), state.collapsed, prior.reg)
    given_up = broken | (change < -em.bound_slack(bound) - cost * jnp.sum(state.posterior.mean_precision))
    fall = jnp.where(given_up & ~broken, -change, 0)
    known = (change > NOISE * ulp) | (change < -em.FALL_NOISE * ulp)
    change = jnp.where(known, jnp.abs(change), gain)
    residual = jnp.where(broken, jnp.nan, jnp.where(given_up, 0, change))
    raised = VBState(posterior, bound, collapsed, residual, fall)
    stayed = state._replace(residual=residual, fall=fall)
    return jax.tree.map(lambda old, new: jnp.where(given_up, old, new), stayed, raised)


def begin(posterior: Posterior, collapsed: Bool[Array, " k"]) -> VBState:
    """The state before the first step."""
    infinite = jnp.asarray(jnp.inf, posterior.means.dtype)
    return VBState(posterior, -infinite, collapsed, infinite, jnp.zeros_like(infinite))


def plain(posterior: Posterior) -> Mixture:
    """The mixture of the posterior's means."""
    return Mixture(
        mean_weights(posterior.weight_concentration), posterior.means, posterior.covariances, posterior.factor
    )

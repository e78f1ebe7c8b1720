"""Coordinate ascent of the lower bound on centred rows: what a tile contributes, and one step of the posterior."""

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
from jaxcluster.cluster.gmm.state import Mixture
from jaxcluster.ops.gaussian import Moments, expandable, log_densities
from jaxcluster.ops.logsumexp import fold_responsibilities
from jaxcluster.types import Array, Bool, Float

NOISE, FALL_NOISE = 2, 16
"""Rounding errors by which a lower bound has to rise, or to fall, to be known to have done so."""


class VBStats(NamedTuple):
    """What rows contribute: moments about a reference, and −Σ w·r·log r (nats)."""

    moments: Moments
    entropy: Float[Array, ""]


class VBUpdate(NamedTuple):
    """What one round leads to.

    Attributes:
        posterior: the new one.
        collapsed: (k,) components whose covariance is singular to the precision at hand.
        gain: () what the way to the new means adds to the lower bound (nats).
        besides: () what came with the moments.
        far: () whether the moments' reference was too far from the new means.
    """

    posterior: Posterior
    collapsed: Bool[Array, " k"]
    gain: Float[Array, ""]
    besides: Float[Array, ""]
    far: Bool[Array, ""]


class VBState(NamedTuple):
    """A posterior and its lower bound.

    Attributes:
        posterior: what the last step led to.
        lower_bound: () of the evidence (nats).
        collapsed: (k,) components whose covariance was kept from being singular.
        residual: () change of the lower bound; 0 once no step raises it.
    """

    posterior: Posterior
    lower_bound: Float[Array, "*batch"]
    collapsed: Bool[Array, "*batch k"]
    residual: Float[Array, "*batch"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """The negative lower bound."""
        return -self.lower_bound


def log_joint(model: Model, posterior: Posterior) -> Callable[[Float[Array, "d n"]], Float[Array, "k n"]]:
    """Columns to E log(weight·density) of every component under the posterior (nats)."""
    family, precision = model.em.family, model.em.precision
    _, _, means, _, _, factor = posterior
    offsets = log_offsets(posterior)[:, None]
    expanded = expandable(family, means, factor)
    return lambda x: offsets + log_densities(family, means, factor, x, expanded, precision)


def vb_stats(model: Model, posterior: Posterior, reference: Float[Array, "k d"], columns: em.Columns) -> VBStats:
    """The responsibilities under a posterior, folded into moments about a reference, each row read once."""
    logits, moments = log_joint(model, posterior), em.moments_about(model.em, plain(posterior), reference)

    def contribution(log_sum, r, columns):
        # A row that is beyond reach of every component has no responsibilities; its status must not be CONVERGED.
        entropy = jnp.where(jnp.isfinite(log_sum), row_entropy(r), jnp.nan)
        entropy = columns.weight @ jnp.where(columns.weight > 0, entropy, 0)
        return VBStats(moments(r * columns.weight, columns.x), entropy), ()

    tile = em.em_tile(model.em, columns.weight.shape[0], *reference.shape)
    return fold_responsibilities(
        lambda columns: logits(columns.x), contribution, columns, tile=tile, axis_name=model.em.axis_name
    )[0]


def settle(
    model: Model,
    moments_about: Callable[[Float[Array, "k d"]], tuple[Moments, Float[Array, ""]]],
    reference: Float[Array, "k d"],
    prior: Prior,
) -> VBUpdate:
    """The posterior, its moments taken anew about the new means where these lie too far from the reference.

    Args:
        moments_about: reference -> moments of the rows about it, and a number that comes with them.
        reference: near the means to come.
    """

    def once(reference):
        moments, besides = moments_about(reference)
        posterior, collapsed, shift = update(model, moments, reference, prior)
        gain = posterior.mean_precision @ shift / 2
        far = jnp.max(shift) * jnp.finfo(reference.dtype).eps > em.SHIFT_ERROR
        return VBUpdate(posterior, collapsed, gain, besides, far)

    def again(carry):
        last, rounds = carry
        found = once(last.posterior.means)
        return found._replace(gain=last.gain + found.gain), rounds + 1

    def unfinished(carry):
        last, rounds = carry
        return (rounds == 0) | (last.far & (rounds == 1))

    # A loop, though a second round is rare: so there is one copy of the pass over the rows to compile.
    none = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(once, reference))
    start = none._replace(posterior=none.posterior._replace(means=reference))
    return jax.lax.while_loop(unfinished, again, (start, jnp.int32(0)))[0]


def step(model: Model, columns: em.Columns, prior: Prior, state: VBState) -> VBState:
    """One round of responsibilities and posterior. One that lowered the bound, or is not finite, is given up.

    The bound of many rows has few digits left for its changes. Where these are lost, the part of them that the means
    brought, which is known by itself, decides whether to go on.
    """
    posterior, collapsed, gain, entropy, _ = settle(
        model,
        lambda reference: vb_stats(model, state.posterior, reference, columns),
        state.posterior.means,
        prior,
    )
    bound = entropy + bound_of(posterior)
    broken = ~jnp.isfinite(bound)
    ulp = jnp.finfo(bound.dtype).eps * jnp.maximum(jnp.abs(bound), 1)
    change = bound - state.lower_bound
    slack = jnp.maximum(em.FALL * jnp.maximum(jnp.abs(bound), 1), FALL_NOISE * ulp)
    cost = em.ridge_cost(model.em.family, plain(state.posterior), state.collapsed, prior.reg)
    given_up = broken | (change < -slack - cost * jnp.sum(state.posterior.mean_precision))
    known = (change > NOISE * ulp) | (change < -FALL_NOISE * ulp)
    change = jnp.where(known, jnp.abs(change), gain)
    residual = jnp.where(broken, jnp.nan, jnp.where(given_up, 0, change))
    raised = VBState(posterior, bound, collapsed, residual)
    return jax.tree.map(lambda old, new: jnp.where(given_up, old, new), state._replace(residual=residual), raised)


def begin(posterior: Posterior, collapsed: Bool[Array, " k"]) -> VBState:
    """The state before the first step."""
    infinite = jnp.asarray(jnp.inf, posterior.means.dtype)
    return VBState(posterior, -infinite, collapsed, infinite)


def plain(posterior: Posterior) -> Mixture:
    """The mixture of the posterior's means."""
    return Mixture(
        mean_weights(posterior.weight_concentration), posterior.means, posterior.covariances, posterior.factor
    )

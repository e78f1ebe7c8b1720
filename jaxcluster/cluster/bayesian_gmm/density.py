"""Using a fitted posterior: labels, probabilities and densities of rows, and samples."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxcluster.cluster import gmm
from jaxcluster.cluster.bayesian_gmm.posterior import Model, Posterior
from jaxcluster.cluster.bayesian_gmm.state import BayesianGMMState, plug_in, posterior_of
from jaxcluster.cluster.bayesian_gmm.step import log_joint
from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.state import place_about_means
from jaxcluster.core.fold import fold_rows
from jaxcluster.core.implicit import without_derivative
from jaxcluster.core.rows import trim
from jaxcluster.ops.logsumexp import responsibilities
from jaxcluster.types import Array, Float, Int, KeyArray


def predict(state: BayesianGMMState, x) -> Int[Array, " n"]:
    """The most probable component of each of (n, d) rows; ties go to the lower index.

    Args:
        state: a fitted posterior.
        x: (n, d) rows.

    Raises:
        ValueError, TypeError: rows of another width; a gradient with respect to labels, which have none.
    """
    placed = place_about_means(state, x)
    labels = trim(_per_row(label, state, placed.points.x, placed.origin)[0], placed.n)
    return without_derivative(labels, state, x)


def predict_proba(state: BayesianGMMState, x) -> Float[Array, "n k"]:
    """The responsibility of each component for each row; see `predict`."""
    placed = place_about_means(state, x)
    return trim(_per_row(_shares, state, placed.points.x, placed.origin).T, placed.n, axis=0)


def score_samples(state: BayesianGMMState, x) -> Float[Array, " n"]:
    """log Σ exp E log(weight·density) of each row (nats): what the lower bound has in place of a log-density.

    It is below the log-density, by less the more rows the posterior rests on. See `predict`.
    """
    placed = place_about_means(state, x)
    return trim(_per_row(label, state, placed.points.x, placed.origin)[1], placed.n)


def score(state: BayesianGMMState, x, *, weights=None) -> Float[Array, ""]:
    """The weighted mean of `score_samples` (nats per row): higher is better. ``weights`` is (n,), or None."""
    placed = place_about_means(state, x, weights)
    weight = placed.points.weight
    _, log_sums = _per_row(label, state, placed.points.x, placed.origin)
    return jnp.sum(jnp.where(weight > 0, weight * log_sums, 0)) / jnp.sum(weight)


def sample(key: KeyArray, state: BayesianGMMState, n: int) -> tuple[Float[Array, "n d"], Int[Array, " n"]]:
    """Draws n rows, static, and the component of each from the mixture of the posterior's means."""
    return gmm.sample(key, plug_in(state), n)


def per_row(
    model: Model, posterior: Posterior, of_logits: Callable[[Float[Array, "k t"]], Any], x: Float[Array, "d n"]
) -> Any:
    """What a function makes of the columns of E log(weight·density), a tile of them at a time; (…, n)."""
    logits = log_joint(model, posterior)
    tile = em.em_tile(model.em, x.shape[1], *posterior.means.shape)
    return fold_rows(lambda x: ((), of_logits(logits(x))), x, tile=tile, axis=-1)[1]


def label(logits: Float[Array, "k n"]) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """The first component of the highest logit of each column, and the column's log-sum-exp."""
    return jnp.argmax(logits, axis=0).astype(jnp.int32), responsibilities(logits)[0]


def _shares(logits):
    return responsibilities(logits)[1]


@partial(jax.jit, static_argnums=0)
def _per_row(of_logits, state, x, origin):
    family, posterior = posterior_of(state, origin)
    model = Model(em.EMOptions(family.name), process=state.weight_concentration.ndim == 2)
    return per_row(model, posterior, of_logits, x.T)

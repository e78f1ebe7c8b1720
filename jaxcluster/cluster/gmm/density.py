"""Using a fitted mixture: labels, probabilities, densities, samples and information criteria of rows."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.state import GMMState, Mixture, family_of, place_about_means
from jaxcluster.core import check
from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.core.implicit import without_derivative
from jaxcluster.core.rows import Placed, trim
from jaxcluster.ops.logsumexp import responsibilities
from jaxcluster.types import Array, Float, Int, KeyArray

SAMPLE_TILE = 1 << 24
"""Elements of the factors that a tile of drawn rows looks up."""


class InFrame(NamedTuple):
    """Rows with the mixture they are compared with, both about the mean of the component means."""

    options: em.EMOptions
    mixture: Mixture
    placed: Placed


def predict(state: GMMState, x, *, missing: bool = False) -> Int[Array, " n"]:
    """The most probable component of each of (n, d) rows; ties go to the lower index.

    Args:
        state: a fitted mixture.
        x: (n, d) rows.
        missing: NaN cells are integrated out.

    Raises:
        ValueError, TypeError: rows of another width; a gradient with respect to labels, which have none.
    """
    here = _place(state, x, missing=missing)
    labels = trim(_label(here.options, here.mixture, here.placed.points.x)[0], here.placed.n)
    return without_derivative(labels, state, x)


def predict_proba(state: GMMState, x, *, missing: bool = False) -> Float[Array, "n k"]:
    """The probability of each component given each row; see `predict`."""
    here = _place(state, x, missing=missing)
    return trim(_probabilities(here.options, here.mixture, here.placed.points.x), here.placed.n, axis=0)


def score_samples(state: GMMState, x, *, missing: bool = False) -> Float[Array, " n"]:
    """The log-density of each row (nats), of its observed cells alone if some are missing; see `predict`."""
    here = _place(state, x, missing=missing)
    return trim(_label(here.options, here.mixture, here.placed.points.x)[1], here.placed.n)


def score(state: GMMState, x, *, weights=None, missing: bool = False) -> Float[Array, ""]:
    """The weighted mean log-density of the rows (nats per row): higher is better. ``weights`` is (n,), or None."""
    here = _place(state, x, weights, missing=missing)
    return _score(here.options, here.mixture, here.placed.points)


def negative_log_likelihood(state: GMMState, x, *, weights=None, missing: bool = False) -> Float[Array, ""]:
    """The weighted mean negative log-density of the rows (nats per row): a loss.

    Differentiable with respect to the state's weights, means and covariances and to ``x``, for any `GMMState`, not
    only a fitted one.
    """
    return -score(state, x, weights=weights, missing=missing)


def aic(state: GMMState, x, *, weights=None, missing: bool = False) -> Float[Array, ""]:
    """Akaike's criterion −2·log L + 2·p of the rows: lower is better. A row of weight w counts w times."""
    return _criterion(state, x, weights, missing, lambda n: 2.0)


def bic(state: GMMState, x, *, weights=None, missing: bool = False) -> Float[Array, ""]:
    """The Bayesian (Schwarz) criterion −2·log L + p·log n of the rows: lower is better; see `aic`."""
    return _criterion(state, x, weights, missing, jnp.log)


def n_parameters(covariance: str, k: int, d: int) -> int:
    """Free numbers of a mixture: covariances, means, and weights that sum to 1."""
    return em.EMOptions(covariance).family.parameters(k, d) + k * d + k - 1


def sample(key: KeyArray, state: GMMState, n: int) -> tuple[Float[Array, "n d"], Int[Array, " n"]]:
    """Draws n rows and the component of each.

    Args:
        key: random key.
        state: a fitted mixture.
        n: how many, static.
    """
    n = check.check_count("n", n)
    family, covariances = family_of(state)
    return _sample(family.name, n, key, state.weights, state.means, covariances)


def _place(state, x, weights=None, *, missing=False):
    placed = place_about_means(state, x, weights, missing=missing)
    family, covariances = family_of(state)
    options = em.EMOptions(family.name, missing=missing)
    mixture = _mixture(options, state.weights, state.means, covariances, placed.origin)
    return InFrame(options, mixture, placed)


@partial(jax.jit, static_argnums=0)
def _mixture(options, weights, means, covariances, origin):
    means, covariances, weights = (jnp.asarray(each, origin.dtype) for each in (means - origin, covariances, weights))
    covariances, factor, _ = options.family.factor(covariances, means.shape[1])
    return Mixture(weights, means, covariances, factor)


@partial(jax.jit, static_argnums=0)
def _label(options, mixture, x):
    return em.label(options, mixture, x.T)


@partial(jax.jit, static_argnums=0)
def _probabilities(options, mixture, x):
    logits = em.log_joint(options, mixture)
    tile = em.em_tile(options, x.shape[0], *mixture.means.shape)
    return map_rows(lambda rows: responsibilities(logits(rows.T))[1].T, x, tile=tile)


@partial(jax.jit, static_argnums=0)
def _score(options, mixture, points):
    _, log_p = em.label(options, mixture, points.x.T)
    counted = points.weight > 0
    return jnp.sum(jnp.where(counted, points.weight * log_p, 0)) / jnp.sum(points.weight)


def _criterion(state, x, weights, missing, price):
    here = _place(state, x, weights, missing=missing)
    n = jnp.sum(here.placed.points.weight)
    free = n_parameters(here.options.covariance, *state.means.shape)
    return -2 * n * _score(here.options, here.mixture, here.placed.points) + price(n) * free


@partial(jax.jit, static_argnums=(0, 1))
def _sample(covariance, n, key, weights, means, covariances):
    family = em.EMOptions(covariance).family
    k, d = means.shape
    label_key, noise_key = jax.random.split(key)
    labels = jax.random.categorical(label_key, em.log_weights(weights), shape=(n,)).astype(jnp.int32)
    noise = jax.random.normal(noise_key, (n, d), means.dtype)
    if covariance in ("diag", "spherical"):
        deviations = jnp.sqrt(jnp.broadcast_to(covariances.reshape(k, -1), (k, d)))
        return means[labels] + noise * deviations[labels], labels
    lower = jnp.linalg.cholesky(family.dense(covariances, k, d))

    def move(rows):
        noise, labels = rows
        return means[labels] + jnp.einsum("nij,nj->ni", lower[labels], noise)

    return map_rows(move, (noise, labels), tile=tile_rows(n, d * d, SAMPLE_TILE)), labels

"""Labels, probabilities, densities, samples and information criteria of rows under a fitted mixture."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.compare import Compared, mixture_components, rows_in_frame
from jaxcluster.cluster.gmm.state import GMMState, covariance_type_of, frame_of_mixture, parts_in_frame
from jaxcluster.core import check
from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.core.frame import Frame, float_dtype, publish
from jaxcluster.core.implicit import without_derivative
from jaxcluster.types import Array, Float, Int, KeyArray, Published

SAMPLE_TILE = 1 << 24
"""Elements of the factors that a tile of drawn rows looks up."""


def predict(state: GMMState, x, *, missing: bool = False, frame: Frame | None = None) -> Int[Array, " n"]:
    """The most probable component of each of (n, d) rows; ties go to the lower index.

    Args:
        state: a fitted mixture.
        x: (n, d) rows.
        missing: NaN cells are integrated out.
        frame: of the fit that the mixture is from; None for one about its means.

    Raises:
        ValueError, TypeError: rows of another width; a gradient with respect to labels, which have none.
    """
    return without_derivative(_compare(state, x, missing=missing, frame=frame).labels(), state, x)


def predict_proba(state: GMMState, x, *, missing: bool = False, frame: Frame | None = None) -> Float[Published, "n k"]:
    """The probability of each component given each row; see `predict`. Rows sum to 1."""
    return _compare(state, x, missing=missing, frame=frame).responsibilities()


def score_samples(state: GMMState, x, *, missing: bool = False, frame: Frame | None = None) -> Float[Published, " n"]:
    """The log-density of each row (nats), of its observed cells alone if some are missing; see `predict`."""
    return _compare(state, x, missing=missing, frame=frame).log_p()


def score(
    state: GMMState, x, *, weights=None, missing: bool = False, frame: Frame | None = None
) -> Float[Published, ""]:
    """The weighted mean log-density of the rows (nats per row): higher is better.

    Args:
        state, x, missing, frame: as in `predict`.
        weights: (n,) non-negative, or None for 1 each.
    """
    return mean_log_p(_compare(state, x, weights, missing=missing, frame=frame))


def negative_log_likelihood(
    state: GMMState, x, *, weights=None, missing: bool = False, frame: Frame | None = None
) -> Float[Published, ""]:
    """The weighted mean negative log-density of the rows (nats per row): a loss.

    Differentiable with respect to the state's weights, means and covariances and to ``x``, for any `GMMState`, not
    only a fitted one.
    """
    return _combined(score(state, x, weights=weights, missing=missing, frame=frame), -1.0, 0.0)


def aic(state: GMMState, x, *, weights=None, missing: bool = False, frame: Frame | None = None) -> Float[Published, ""]:
    """Akaike's criterion −2·log L + 2·p of the rows: lower is better. A row of weight w counts w times."""
    mean, n = score(state, x, weights=weights, missing=missing, frame=frame), _count(x, weights)
    return _combined(mean, -2 * n, 2.0 * _free(state))


def bic(state: GMMState, x, *, weights=None, missing: bool = False, frame: Frame | None = None) -> Float[Published, ""]:
    """The Bayesian (Schwarz) criterion −2·log L + p·log n of the rows: lower is better; see `aic`."""
    mean, n = score(state, x, weights=weights, missing=missing, frame=frame), _count(x, weights)
    log_n = jnp.log(n) if check.is_traced(n) else math.log(n)
    return _combined(mean, -2 * n, log_n * _free(state))


def n_parameters(covariance: str, k: int, d: int) -> int:
    """Free numbers of a mixture: covariances, means, and weights that sum to 1."""
    return em.EMOptions(covariance).covariance_type.n_parameters(k, d) + k * d + k - 1


def sample(key: KeyArray, state: GMMState, n: int) -> tuple[Float[Published, "n d"], Int[Array, " n"]]:
    """Draws n rows and the component of each.

    Args:
        key: random key.
        state: a fitted mixture.
        n: how many, static.
    """
    key = check.check_key(key)
    n = check.check_count("n", n)
    frame = frame_of_mixture(state)
    covariance_type, weights, means, covariances = parts_in_frame(state, frame, float_dtype(frame.dtype))
    x, labels = _sample(covariance_type.name, n, key, weights, means, covariances)
    return frame.leave(x), labels


def mean_log_p(rows: Compared) -> Float[Published, ""]:
    """The weighted mean log-density of rows (nats per row); in float64 where they are concrete."""
    log_p, weight = rows.log_p(), rows.prepared.trim(rows.prepared.points.weight)
    if check.is_traced(log_p, weight):
        return jnp.sum(jnp.where(weight > 0, weight * log_p, 0)) / jnp.sum(weight)
    weight = np.asarray(weight, np.float64)
    counted = weight > 0
    mean = np.average(np.asarray(log_p, np.float64)[counted], weights=weight[counted])
    return publish(np.asarray(mean), rows.prepared.dtype)


def _compare(state, x, weights=None, *, missing=False, frame=None):
    """Rows and the components of a mixture."""
    prepared, x, remote = rows_in_frame(state, x, weights, missing=missing, frame=frame)
    covariance_type, *parts = parts_in_frame(state, prepared.frame, prepared.points.x.dtype)
    options = em.EMOptions(covariance_type.name, missing=missing)
    return Compared(options, mixture_components(options, *parts), prepared, x, remote, state.means)


def _combined(mean, factor, term):
    """factor·mean + term, an array whatever the mean is: NumPy makes a scalar of one."""
    if check.is_traced(mean, factor):
        return jnp.asarray(factor).astype(mean.dtype) * mean + jnp.asarray(term).astype(mean.dtype)
    return publish(np.asarray(factor * np.asarray(mean, np.float64) + term), mean.dtype)


def _count(x, weights):
    """Rows, by their weights."""
    if weights is None:
        return np.shape(x)[0]
    if check.is_traced(weights):
        return jnp.sum(weights)
    return float(np.sum(np.asarray(weights), dtype=np.float64))


def _free(state):
    covariance_type, _ = covariance_type_of(state)
    return n_parameters(covariance_type.name, *state.means.shape)


@partial(jax.jit, static_argnums=(0, 1))
def _sample(covariance, n, key, weights, means, covariances):
    covariance_type = em.EMOptions(covariance).covariance_type
    k, d = means.shape
    label_key, noise_key = jax.random.split(key)
    labels = jax.random.categorical(label_key, em.log_weights(weights), shape=(n,)).astype(jnp.int32)
    noise = jax.random.normal(noise_key, (n, d), means.dtype)
    if covariance in ("diag", "spherical"):
        deviations = jnp.sqrt(jnp.broadcast_to(covariances.reshape(k, -1), (k, d)))
        return means[labels] + noise * deviations[labels], labels
    lower = jnp.linalg.cholesky(covariance_type.dense(covariances, k, d))

    def move(rows):
        noise, labels = rows
        return means[labels] + jnp.einsum("nij,nj->ni", lower[labels], noise)

    return map_rows(move, (noise, labels), tile=tile_rows(n, d * d, SAMPLE_TILE)), labels

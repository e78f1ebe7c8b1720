"""Log-densities and expected moments of samples with missing values (NaN), which are integrated out.

The observed values of a sample select a block of each covariance, so full and tied types factor a matrix for each
sample: O(n·k·d³) and O(n·d³), against O(n·k·d²) without missing values.

Source: Z. Ghahramani and M. I. Jordan, Supervised learning from incomplete data via an EM approach, NIPS 1993.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.gaussian.covariance_type import LOG_2PI, CovarianceType, Moments
from jaxcluster.ops.gaussian.full import invert_lower
from jaxcluster.types import Array, Bool, Float


class ObservedBlocks(NamedTuple):
    """Inverse Cholesky factors of the observed blocks of covariances; c is k, or 1 for a tied one.

    Attributes:
        observed: (n, d).
        offset: (k, n, d) x − mean where observed, else 0.
        inverse: (c, n, d, d) inverse Cholesky factor of the observed block, identity elsewhere.
    """

    observed: Bool[Array, "n d"]
    offset: Float[Array, "k n d"]
    inverse: Float[Array, "c n d d"]


def log_densities(
    covariance_type: CovarianceType, means: Float[Array, "k d"], covariances: Array, x: Float[Array, "d n"]
) -> Float[Array, "k n"]:
    """Log-density of the observed values of each sample under every component (nats); 0 if none is observed."""
    if covariance_type.name in ("diag", "spherical"):
        observed, offset, variances = _observed_offsets(means, covariances, x)
        terms = jnp.square(offset) / variances + jnp.log(variances) + LOG_2PI
        return -jnp.sum(jnp.where(observed, terms, 0), axis=1) / 2
    # The marginal of a Gaussian is the Gaussian of the observed block; one that is not observed is the identity, which
    # adds nothing to logarithm or square.
    blocks = _blocks(means, _matrices(covariances), x)
    white = jnp.matmul(blocks.inverse, blocks.offset[..., None], precision=HIGHEST)[..., 0]
    log_det = jnp.sum(jnp.log(jnp.diagonal(blocks.inverse, axis1=-2, axis2=-1)), axis=-1)
    constant = jnp.sum(blocks.observed, axis=1, dtype=means.dtype) * LOG_2PI / 2
    return log_det - constant[None, :] - jnp.sum(jnp.square(white), axis=-1) / 2


def moments(
    covariance_type: CovarianceType,
    r: Float[Array, "k n"],
    means: Float[Array, "k d"],
    covariances: Array,
    reference: Float[Array, "k d"],
    x: Float[Array, "d n"],
) -> Moments:
    """Expected moments about a reference: the E-step of missing values under the mixture given the observed ones."""
    weight = jnp.sum(r, axis=1)
    shift = means - reference
    if covariance_type.name in ("diag", "spherical"):
        observed, offset, variances = _observed_offsets(means, covariances, x)
        distance = offset + shift[:, :, None]
        # E(x − m)²: the variance is added where x is missing, whose expectation is the mean (offset 0).
        squares = jnp.square(distance) + jnp.where(observed, 0, variances)
        second = jnp.sum(r[:, None, :] * squares, axis=2)
        first = jnp.sum(r[:, None, :] * distance, axis=2)
        return Moments(weight, first, second if covariance_type.name == "diag" else jnp.sum(second, axis=1))
    matrices = _matrices(covariances)
    blocks = _blocks(means, matrices, x)
    white = jnp.matmul(blocks.inverse, blocks.offset[..., None], precision=HIGHEST)
    # E[x | observed] − mean = Σ·Σ_oo⁻¹·(x_o − mean_o): observed values are reproduced, missing ones are predicted.
    solved = jnp.matmul(jnp.swapaxes(blocks.inverse, -1, -2), white, precision=HIGHEST)
    expected = jnp.matmul(matrices[:, None], solved, precision=HIGHEST)[..., 0] + shift[:, None, :]
    # The conditional covariance is Σ − Σ·Σ_oo⁻¹·Σ, whose second term is a square: LᵀL with L = inverse·Σ_o.
    observed_rows = jnp.where(blocks.observed[None, :, :, None], matrices[:, None], 0)
    explained = jnp.matmul(blocks.inverse, observed_rows, precision=HIGHEST)
    weights = r if matrices.shape[0] > 1 or r.shape[0] == 1 else jnp.sum(r, axis=0, keepdims=True)
    total = jnp.sum(weights, axis=1)[:, None, None] * matrices
    conditional = total - jnp.einsum("cn,cnij,cnil->cjl", weights, explained, explained, precision=HIGHEST)
    scatter = jnp.einsum("kn,kni,knj->kij", r, expected, expected, precision=HIGHEST)
    second = scatter + conditional if covariance_type.name == "full" else jnp.sum(scatter, axis=0) + conditional[0]
    return Moments(weight, jnp.einsum("kn,kni->ki", r, expected, precision=HIGHEST), second)


def observed_blocks(matrices: Float[Array, "*c d d"], observed: Bool[Array, "*n d"]) -> Float[Array, "*m d d"]:
    """Block of the observed features of each sample, the identity elsewhere; leading axes are broadcast."""
    eye = jnp.eye(matrices.shape[-1], dtype=matrices.dtype)
    both = observed[..., :, None] & observed[..., None, :]
    return jnp.where(both, matrices, eye.reshape((1,) * (matrices.ndim - 2) + eye.shape))


def _observed_offsets(means, covariances, x):
    """Mask of the observed values (1, d, n), their offsets from the means (k, d, n), and variances (k, d, 1)."""
    observed = ~jnp.isnan(x)[None]
    filled = jnp.where(observed[0], x, 0)[None]
    offset = jnp.where(observed, filled - means[:, :, None], 0)
    variances = covariances if covariances.ndim == 2 else covariances[:, None]
    return observed, offset, jnp.broadcast_to(variances, means.shape)[:, :, None]


def _matrices(covariances):
    return covariances if covariances.ndim == 3 else covariances[None]


def _blocks(means, matrices, x):
    observed = ~jnp.isnan(x).T
    filled = jnp.where(observed, x.T, 0)
    offset = jnp.where(observed[None], filled[None] - means[:, None, :], 0)
    lower = jnp.linalg.cholesky(observed_blocks(matrices[:, None], observed[None]))
    return ObservedBlocks(observed, offset, invert_lower(lower))

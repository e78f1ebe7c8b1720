"""Densities and moments of rows with missing cells, which are integrated out.

A missing cell is NaN. Each row's observed cells select a block of each covariance, so full and tied types factor a
matrix a row: O(n·k·d³) and O(n·d³), against O(n·k·d²) where everything is observed.

Source: Z. Ghahramani and M. I. Jordan, Supervised learning from incomplete data via an EM approach, NIPS 1993.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.gaussian.dense import invert_lower
from jaxcluster.ops.gaussian.family import LOG_2PI, Family, Moments
from jaxcluster.types import Array, Bool, Float


class Blocks(NamedTuple):
    """What the observed cells of rows make of covariances; c is k, or 1 for one that is shared.

    Attributes:
        observed: (n, d).
        offset: (k, n, d) x − mean where observed, else 0.
        inverse: (c, n, d, d) inverse Cholesky factor of the observed block, identity elsewhere.
    """

    observed: Bool[Array, "n d"]
    offset: Float[Array, "k n d"]
    inverse: Float[Array, "c n d d"]


def log_densities(
    family: Family, means: Float[Array, "k d"], covariances: Array, x: Float[Array, "d n"]
) -> Float[Array, "k n"]:
    """log density of each row's observed cells under every component (nats); 0 for a row without any."""
    if family.name in ("diag", "spherical"):
        observed, offset, variances = _cells(means, covariances, x)
        terms = jnp.square(offset) / variances + jnp.log(variances) + LOG_2PI
        return -jnp.sum(jnp.where(observed, terms, 0), axis=1) / 2
    blocks = _blocks(means, _matrices(covariances), x)
    white = jnp.matmul(blocks.inverse, blocks.offset[..., None], precision=HIGHEST)[..., 0]
    log_det = jnp.sum(jnp.log(jnp.diagonal(blocks.inverse, axis1=-2, axis2=-1)), axis=-1)
    constant = jnp.sum(blocks.observed, axis=1, dtype=means.dtype) * LOG_2PI / 2
    return log_det - constant[None, :] - jnp.sum(jnp.square(white), axis=-1) / 2


def moments(
    family: Family,
    r: Float[Array, "k n"],
    means: Float[Array, "k d"],
    covariances: Array,
    reference: Float[Array, "k d"],
    x: Float[Array, "d n"],
) -> Moments:
    """Expected moments about a reference, missing cells distributed as the mixture has them given the observed ones."""
    weight = jnp.sum(r, axis=1)
    shift = means - reference
    if family.name in ("diag", "spherical"):
        observed, offset, variances = _cells(means, covariances, x)
        distance = offset + shift[:, :, None]
        spread = jnp.square(distance) + jnp.where(observed, 0, variances)
        second = jnp.sum(r[:, None, :] * spread, axis=2)
        first = jnp.sum(r[:, None, :] * distance, axis=2)
        return Moments(weight, first, second if family.name == "diag" else jnp.sum(second, axis=1))
    matrices = _matrices(covariances)
    blocks = _blocks(means, matrices, x)
    white = jnp.matmul(blocks.inverse, blocks.offset[..., None], precision=HIGHEST)
    solved = jnp.matmul(jnp.swapaxes(blocks.inverse, -1, -2), white, precision=HIGHEST)
    filled = jnp.matmul(matrices[:, None], solved, precision=HIGHEST)[..., 0] + shift[:, None, :]
    known = jnp.where(blocks.observed[None, :, :, None], matrices[:, None], 0)
    explained = jnp.matmul(blocks.inverse, known, precision=HIGHEST)
    share = r if matrices.shape[0] > 1 or r.shape[0] == 1 else jnp.sum(r, axis=0, keepdims=True)
    total = jnp.sum(share, axis=1)[:, None, None] * matrices
    left = total - jnp.einsum("cn,cnij,cnil->cjl", share, explained, explained, precision=HIGHEST)
    about = jnp.einsum("kn,kni,knj->kij", r, filled, filled, precision=HIGHEST)
    second = about + left if family.name == "full" else jnp.sum(about, axis=0) + left[0]
    return Moments(weight, jnp.einsum("kn,kni->ki", r, filled, precision=HIGHEST), second)


def observed_blocks(matrices: Float[Array, "*c d d"], observed: Bool[Array, "*n d"]) -> Float[Array, "*m d d"]:
    """Each row's block of observed cells, the identity elsewhere; leading axes are matched by broadcasting."""
    eye = jnp.eye(matrices.shape[-1], dtype=matrices.dtype)
    both = observed[..., :, None] & observed[..., None, :]
    return jnp.where(both, matrices, eye.reshape((1,) * (matrices.ndim - 2) + eye.shape))


def _cells(means, covariances, x):
    """Which cells are observed, their offsets from the means, and variances, (1, d, n), (k, d, n) and (k, d, 1)."""
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
    return Blocks(observed, offset, invert_lower(lower))

"""Cholesky factors of covariance matrices, in which a singular one is mended and pointed out instead of turning NaN."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.gaussian.family import Factor
from jaxcluster.types import Array, Bool, Float

LEAST_PIVOT = 4
"""A pivot below so many rounding errors of its own variance is no longer a number to divide by."""

MOST_RIDGE = 64
"""Doublings of a ridge, from a rounding error to beyond any covariance."""


def factor_dense(covariances: Float[Array, "*k d d"]) -> tuple[Array, Factor, Bool[Array, "*k"]]:
    """Covariances with the ridge that they need, their `Factor`, and which needed one."""
    ridge = _ridge(jax.lax.stop_gradient(covariances))
    eye = jnp.eye(covariances.shape[-1], dtype=covariances.dtype)
    covariances = covariances + ridge[..., None, None] * _leading(eye, covariances)
    lower = jnp.linalg.cholesky(covariances)
    inverse = invert_lower(lower)
    log_det = jnp.sum(jnp.log(jnp.diagonal(inverse, axis1=-2, axis2=-1)), axis=-1)
    return covariances, Factor(jnp.swapaxes(inverse, -1, -2), log_det), ridge > 0


def invert_lower(lower: Float[Array, "*k d d"]) -> Float[Array, "*k d d"]:
    """Inverses of lower triangular matrices, by products of their blocks.

    [[A, 0], [C, B]]⁻¹ = [[A⁻¹, 0], [−B⁻¹·C·A⁻¹, B⁻¹]], from single cells up: log₂ d batched products. On a CPU a
    triangular solve would go to a BLAS whose threads wait for XLA's, a hundred times slower for d = 50.
    """
    d = lower.shape[-1]
    size = 1 << (d - 1).bit_length()
    batch = lower.shape[:-2]
    lower = lower.reshape(-1, d, d)
    padded = jnp.zeros((lower.shape[0], size, size), lower.dtype).at[:, :d, :d].set(lower)
    padded = padded + jnp.diag((jnp.arange(size, dtype=jnp.int32) >= d).astype(lower.dtype))[None]
    inverse = 1 / jnp.diagonal(padded, axis1=1, axis2=2)[:, :, None, None]
    block = 1
    while block < size:
        pairs = jnp.arange(size // (2 * block), dtype=jnp.int32)
        cells = padded.reshape(-1, pairs.size, 2, block, pairs.size, 2, block)
        below = jnp.moveaxis(cells[:, pairs, 1, :, pairs, 0, :], 0, 1)
        first, last = inverse[:, 0::2], inverse[:, 1::2]
        corner = -jnp.matmul(last, jnp.matmul(below, first, precision=HIGHEST), precision=HIGHEST)
        top = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
        inverse = jnp.concatenate([top, jnp.concatenate([corner, last], axis=-1)], axis=-2)
        block *= 2
    return inverse[:, 0, :d, :d].reshape(*batch, d, d)


def positive_definite(matrices: Float[Array, "*k d d"]) -> Bool[Array, "*k"]:
    """Whether a Cholesky decomposition exists whose pivots all stand clear of rounding."""
    lower = jnp.linalg.cholesky(matrices)
    pivots = jnp.square(jnp.diagonal(lower, axis1=-2, axis2=-1))
    variances = jnp.diagonal(matrices, axis1=-2, axis2=-1)
    least = LEAST_PIVOT * jnp.finfo(matrices.dtype).eps * variances
    return jnp.all((pivots > least) & (variances > jnp.sqrt(jnp.finfo(matrices.dtype).tiny)), axis=-1)


def _ridge(covariances):
    """What has to be added to each diagonal: 0 for nearly all."""
    dtype = covariances.dtype
    eye = jnp.eye(covariances.shape[-1], dtype=dtype)
    # Of what canceled, an entry off the diagonal may be the largest.
    scale = jnp.max(jnp.abs(covariances), axis=(-2, -1))
    least = jnp.maximum(scale * jnp.finfo(dtype).eps, jnp.sqrt(jnp.finfo(dtype).tiny))
    start = jnp.where(jnp.isfinite(least), 2 * LEAST_PIVOT * least, 1)
    finite = jnp.all(jnp.isfinite(covariances), axis=(-2, -1))

    def singular(ridge):
        return finite & ~positive_definite(covariances + ridge[..., None, None] * _leading(eye, covariances))

    def raise_ridge(carry):
        ridge, bad, rounds = carry
        ridge = jnp.where(bad, jnp.maximum(2 * ridge, start), ridge)
        return ridge, singular(ridge), rounds + 1

    def unfinished(carry):
        _, bad, rounds = carry
        return jnp.any(bad) & (rounds < MOST_RIDGE)

    none = jnp.zeros_like(start)
    return jax.lax.while_loop(unfinished, raise_ridge, (none, singular(none), jnp.int32(0)))[0]


def _leading(matrix, like):
    """A matrix with the leading axes of a batch, which JAX may be told not to add by itself."""
    return matrix.reshape((1,) * (like.ndim - 2) + matrix.shape)

"""The smallest eigenpairs of a symmetric operator that is known by its products with blocks of vectors.

Subspace iteration, with a Chebyshev polynomial of the operator as the filter: it damps all that lies above the block's
largest Ritz value and lets grow what lies below, so that a step gains what would take a power iteration thousands of
products. Whole blocks find multiple eigenvalues; vectors beyond those asked for, the guard, keep the rate up and show
how wide the gap is after the last one that is wanted.

Sources: Y. Zhou, Y. Saad, M. L. Tiago and J. R. Chelikowsky, Self-consistent-field calculations using
Chebyshev-filtered subspace iteration, J. Comput. Phys. 219 (2006); C. Davis and W. M. Kahan, The rotation of
eigenvectors by a perturbation III, SIAM J. Numer. Anal. 7 (1970), for how well a residual settles a subspace.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.core.iterate import iterate
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.types import Array, Float, Int, KeyArray, Status

DENSE = 512
"""Up to this many rows the operator is written out and decomposed whole."""

LANES = 8
"""Blocks are as wide as a multiple of this: narrower ones are not faster."""

ANGLE = 1e-3
"""How far, in radians, the subspace found may be turned against the true one."""

MAX_DEGREE = 4000
"""The most products of a step."""


class Eigenpairs(NamedTuple):
    """The k smallest eigenvalues and their vectors.

    Attributes:
        values: (k,) ascending.
        vectors: (n, k) orthonormal columns.
        residuals: (k,) ‖Av − λv‖: an eigenvalue lies within it.
        steps: () int32, steps of the iteration; 0 where the operator was decomposed whole.
        status: () int32, a `Status`: CONVERGED where every residual is at most the tolerance, and, where there were
            steps, the gap after the k-th eigenvalue is resolved; MAX_STEPS where steps ran out before; PRECISION where
            the dtype resolves no better.
        history: (capacity,) the sum of the k smallest Ritz values after each step; 0 from ``steps`` on.
    """

    values: Float[Array, " k"]
    vectors: Float[Array, "n k"]
    residuals: Float[Array, " k"]
    steps: Int[Array, ""]
    status: Int[Array, ""]
    history: Float[Array, " capacity"]


class SubspaceState(NamedTuple):
    """A block of Ritz vectors, ascending by their values.

    Attributes:
        vectors: (n, b) orthonormal columns.
        values, residuals: (b,) of each.
        objective: the sum of the values that are wanted, which never rises but for rounding.
        residual: the largest residual that is wanted, raised where the gap asks for a smaller one.
    """

    vectors: Float[Array, "n b"]
    values: Float[Array, " b"]
    residuals: Float[Array, " b"]
    objective: Float[Array, ""]
    residual: Float[Array, ""]


def block_width(k: int, n: int) -> int:
    """Columns of the block that k eigenpairs of n are looked for with; n where the operator is decomposed whole."""
    width = -(-(k + max(4, k // 2)) // LANES) * LANES
    return n if n <= DENSE or 3 * width > n else width


def smallest(
    product: Callable[[Float[Array, "n b"]], Float[Array, "n b"]],
    start: Float[Array, "n b"],
    k: int,
    *,
    upper: float,
    null: Float[Array, "n m"] | None = None,
    tol=1e-4,
    max_steps=100,
) -> Eigenpairs:
    """The k smallest eigenpairs of a symmetric operator whose eigenvalues lie between 0 and ``upper``.

    A residual of ``tol`` says little about vectors whose eigenvalues are nearer to each other than that. It stops
    where all residuals are at most ``tol``, and moreover a thousandth of the gap after the k-th eigenvalue, so that the
    subspace is the right one; a gap that the dtype cannot resolve is not waited for.

    Args:
        product: the operator times a block of vectors.
        start: a block of `block_width` columns, such as random ones; only its dtype and shape matter where that is n.
            The iteration stays among vectors that are 0 where all of these are.
        k: how many, static.
        upper: a bound on the eigenvalues.
        null: m <= k orthonormal eigenvectors of eigenvalue 0 that are known beforehand, and are taken first; columns of
            zeros, after all others, stand for none. None for none.
        tol: the largest residual, in the units of the operator. Traced.
        max_steps: the most steps. Traced.
    """
    null = jnp.zeros((start.shape[0], 1), start.dtype) if null is None else null
    wanted = k - jnp.sum(jnp.any(null != 0, axis=0), dtype=jnp.int32)
    if start.shape[0] == start.shape[1]:
        vectors, fit = _decomposed(product, null, upper), None
    else:
        step = partial(_step, product, null, wanted, upper, tol)
        fit = iterate(step, _before(start, wanted, upper), tol=tol, max_steps=max_steps)
        vectors = fit.state.vectors
    place = jnp.arange(k, dtype=jnp.int32) - (k - wanted)
    place = jnp.where(place < 0, jnp.arange(k, dtype=jnp.int32), null.shape[1] + place)
    vectors = jnp.concatenate([null, vectors], axis=1)[:, place]
    values, residuals = rayleigh(product, vectors)
    steps, history = (jnp.int32(0), jnp.zeros((0,), start.dtype)) if fit is None else (fit.steps, fit.history)
    status = settled(residuals, tol, None if fit is None else fit.status)
    return Eigenpairs(values, vectors, residuals, steps, status, history)


def rayleigh(
    product: Callable[[Float[Array, "n b"]], Float[Array, "n b"]], vectors: Float[Array, "n k"]
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """The Rayleigh quotient λ of each column, of length 1, and its residual ‖Av − λv‖."""
    image = product(vectors)
    values = jnp.sum(vectors * image, axis=0)
    return values, _lengths(image - vectors * values[None, :])


def settled(residuals: Float[Array, " k"], tol, status: Int[Array, ""] | None = None) -> Int[Array, ""]:
    """The status of eigenpairs with these residuals, found by an iteration that ended with ``status``, or without one.

    What has converged by its own bookkeeping has not if the residual of what is given is larger: rounding is in it.
    """
    status = jnp.int32(Status.CONVERGED) if status is None else status
    short = jnp.where(status == Status.CONVERGED, jnp.int32(Status.PRECISION), status)
    status = jnp.where(jnp.max(residuals) <= tol, status, short)
    return jnp.where(jnp.all(jnp.isfinite(residuals)), status, Status.NOT_FINITE).astype(jnp.int32)


def random_start(key: KeyArray, n: int, k: int, dtype) -> Float[Array, "n b"]:
    """A block of random vectors to look for k eigenpairs with."""
    return jax.random.normal(key, (n, block_width(k, n)), dtype)


def _decomposed(product, null, upper):
    """All eigenvectors of the operator, those that are known last."""
    matrix = product(jnp.eye(null.shape[0], dtype=null.dtype)) + 2 * upper * _multiply(null, null.T)
    return jnp.linalg.eigh((matrix + matrix.T) / 2)[1]


def _before(start, wanted, upper):
    """A state that has not been looked at: the spectrum is filtered as if evenly filled."""
    values = jnp.linspace(0, upper / 2, start.shape[1], dtype=start.dtype)
    residual = jnp.where(wanted > 0, jnp.inf, 0.0).astype(start.dtype)
    return SubspaceState(start, values, jnp.full_like(values, jnp.inf), jnp.sum(values), residual)


def _step(product, null, wanted, upper, tol, state):
    block = _filtered(product, state, upper)
    return _ritz(product, block - _multiply(null, _multiply(null.T, block)), wanted, tol)


def _filtered(product, state, upper):
    """The block times a polynomial that is at most 1 between its largest Ritz value and ``upper``, and grows below."""
    x, dtype = state.vectors, state.vectors.dtype
    lowest = state.values[0]
    edge = jnp.clip(state.values[-1], lowest + 1e-3 * upper / MAX_DEGREE, 0.9 * upper)
    center, half = (upper + edge) / 2, (upper - edge) / 2
    # What grows more than this drowns the rest of its column in rounding.
    growth = float(jnp.finfo(dtype).eps) ** -0.4
    degree = jnp.arccosh(growth) / jnp.arccosh((center - lowest) / half)
    degree = jnp.clip(jnp.ceil(jnp.nan_to_num(degree)), 4.0, float(MAX_DEGREE)).astype(jnp.int32)

    # The three-term recurrence, scaled so that the polynomial is 1 at the lowest Ritz value and nothing overflows.
    first = half / (lowest - center)

    def advance(index, carry):
        before, now, sigma = carry
        following = jnp.where(index == 0, first, 1 / (2 / first - sigma))
        grown = jnp.where(index == 0, 1, 2) * following / half
        return now, grown * (product(now) - center * now) - sigma * following * before, following

    return jax.lax.fori_loop(0, degree, advance, (jnp.zeros_like(x), x, jnp.zeros_like(first)))[1]


def _ritz(product, block, wanted, tol):
    """Rayleigh and Ritz: the best eigenpairs that the columns of a block add up to."""
    basis = _orthonormal(_orthonormal(block))
    image = product(basis)
    small = _multiply(basis.T, image)
    values, turn = jnp.linalg.eigh((small + small.T) / 2)
    vectors = _multiply(basis, turn)
    residuals = _lengths(_multiply(image, turn) - vectors * values[None, :])
    among = jnp.arange(len(values), dtype=jnp.int32) < wanted
    # sin(angle) <= residual / gap, and the gap is known only as well as the value after it.
    gap = values[wanted] - residuals[wanted] - values[wanted - 1]
    least = jnp.minimum(jnp.finfo(block.dtype).eps ** 0.75, tol)
    allowed = jnp.clip(ANGLE * gap, least, tol)
    residual = jnp.max(jnp.where(among, residuals, 0)) * (tol / allowed)
    return SubspaceState(vectors, values, residuals, jnp.sum(jnp.where(among, values, 0)), residual)


def _orthonormal(block):
    """A basis of what the columns span, by the eigenvectors of their inner products; do it twice."""
    lengths = _lengths(block)
    block = block / jnp.where(lengths > 0, lengths, 1)[None, :]
    values, vectors = jnp.linalg.eigh(_multiply(block.T, block))
    least = jnp.finfo(block.dtype).eps * values[-1]
    return _multiply(block, vectors * jax.lax.rsqrt(jnp.maximum(values, least))[None, :])


def _lengths(block):
    return jnp.sqrt(jnp.sum(jnp.square(block), axis=0))


def _multiply(a, b):
    return jnp.matmul(a, b, precision=HIGHEST)

"""Smallest eigenpairs of a symmetric operator, by its products with blocks of vectors.

Subspace iteration, with a Chebyshev polynomial of the operator as the filter: it damps eigenvectors above the largest
Ritz value of the block and amplifies those below, so that a step gains as much as thousands of products of a power
iteration. Blocks resolve multiple eigenvalues. Guard vectors, beyond those asked for, speed up convergence and show the
gap after the last wanted eigenvalue.

Sources: Y. Zhou, Y. Saad, M. L. Tiago and J. R. Chelikowsky, Self-consistent-field calculations using
Chebyshev-filtered subspace iteration, J. Comput. Phys. 219 (2006); C. Davis and W. M. Kahan, The rotation of
eigenvectors by a perturbation III, SIAM J. Numer. Anal. 7 (1970), for the angle of a subspace by its residual.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.core.iterate import iterate
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Status

MAX_DENSE_ROWS = 512
"""Number of rows up to which the operator is a dense matrix, decomposed by LAPACK."""

BLOCK_MULTIPLE = 8
"""Block widths are multiples of this: narrower ones are not faster."""

MAX_ANGLE = 1e-3
"""Largest angle, in radians, between the computed subspace and the true one."""

MAX_DEGREE = 4000
"""Largest degree of the Chebyshev filter: products of a step."""


class Eigenpairs(NamedTuple):
    """Smallest k eigenvalues and their eigenvectors.

    Attributes:
        values: (k,) ascending.
        vectors: (n, k) orthonormal columns.
        residuals: (k,) ‖Av − λv‖: an eigenvalue lies within it.
        steps: () int32, steps of the iteration; 0 for a dense decomposition.
        status: () int32, a `Status`: CONVERGED where every residual is at most the tolerance, and, of an iteration, the
            gap after the k-th eigenvalue is resolved; MAX_STEPS where steps ran out before; PRECISION where the dtype
            resolves no better.
        history: (capacity,) the sum of the k smallest Ritz values after each step; 0 from ``steps`` on.
    """

    values: Float[Array, " k"]
    vectors: Float[Array, "n k"]
    residuals: Float[Array, " k"]
    steps: Int[Array, ""]
    status: Int[Array, ""]
    history: Float[Array, " capacity"]


class SubspaceState(NamedTuple):
    """Block of Ritz vectors, ascending by their values.

    Attributes:
        vectors: (n, b) orthonormal columns.
        values, residuals: (b,) Ritz values and their residuals.
        objective: () sum of the wanted values, which never rises but for rounding.
        residual: () largest wanted residual, scaled up where the gap requires a smaller one.
    """

    vectors: Float[Array, "n b"]
    values: Float[Array, " b"]
    residuals: Float[Array, " b"]
    objective: Float[Array, ""]
    residual: Float[Array, ""]


def block_width(k: int, n: int) -> int:
    """Number of columns of a block for k eigenpairs of n rows; n for a dense decomposition."""
    width = -(-(k + max(4, k // 2)) // BLOCK_MULTIPLE) * BLOCK_MULTIPLE
    return n if n <= MAX_DENSE_ROWS or 3 * width > n else width


def smallest_eigenpairs(
    product: Callable[[Float[Array, "n b"]], Float[Array, "n b"]],
    start: Float[Array, "n b"],
    k: int,
    *,
    upper: float,
    null: Float[Array, "n m"] | None = None,
    tol=1e-4,
    max_steps=100,
) -> Eigenpairs:
    """Smallest k eigenpairs of a symmetric operator whose eigenvalues lie between 0 and ``upper``.

    A residual of ``tol`` says little about vectors whose eigenvalues are closer than that. So the iteration stops where
    all residuals are at most ``tol`` and `MAX_ANGLE` of the gap after the k-th eigenvalue, unless the dtype cannot
    resolve the gap.

    Args:
        product: product of the operator with a block of vectors.
        start: initial block of `block_width` columns, such as `random_start`; for a dense decomposition only its dtype
            and shape matter. Rows of zeros stay zero.
        k: number of eigenpairs, static.
        upper: upper bound of the eigenvalues.
        null: (n, m) orthonormal eigenvectors of eigenvalue 0, m <= k, which are the first; columns of zeros at the end
            are ignored. None for none.
        tol: largest residual, in the units of the operator. Traced.
        max_steps: most steps. Traced.

    Returns:
        `Eigenpairs`.
    """
    null = jnp.zeros((start.shape[0], 1), start.dtype) if null is None else null
    wanted = count_wanted(k, null)
    if is_dense(start):
        return eigenpairs_of(product, k, null, wanted, tol, all_eigenvectors(product, null, upper))
    state = initial_state(start, wanted, upper)
    fit = iterate(partial(step, product, null, wanted, upper, tol), state, tol=tol, max_steps=max_steps)
    return eigenpairs_of(product, k, null, wanted, tol, fit.state.vectors, fit)


def is_dense(start: Float[Array, "n b"]) -> bool:
    """True if the block has a column for each row, for a dense decomposition in place of an iteration."""
    return start.shape[0] == start.shape[1]


def count_wanted(k: int, null: Float[Array, "n m"]) -> Int[Array, ""]:
    """Number of the k eigenpairs that are not given by ``null``, as `smallest_eigenpairs` takes it."""
    return k - jnp.sum(jnp.any(null != 0, axis=0), dtype=jnp.int32)


def eigenpairs_of(product, k: int, null, wanted, tol, vectors: Float[Array, "n b"], fit: Fit | None = None):
    """`Eigenpairs` of an iteration that has ended, or of a dense decomposition, which has no ``fit``."""
    # Eigenvectors of 0 that are known come first; the wanted ones of the iteration follow behind all of those.
    place = jnp.arange(k, dtype=jnp.int32) - (k - wanted)
    place = jnp.where(place < 0, jnp.arange(k, dtype=jnp.int32), null.shape[1] + place)
    vectors = jnp.concatenate([null, vectors], axis=1)[:, place]
    values, residuals = rayleigh(product, vectors)
    steps, history = (jnp.int32(0), jnp.zeros((0,), vectors.dtype)) if fit is None else (fit.steps, fit.history)
    status = status_of(residuals, tol, None if fit is None else fit.status)
    return Eigenpairs(values, vectors, residuals, steps, status, history)


def rayleigh(
    product: Callable[[Float[Array, "n b"]], Float[Array, "n b"]], vectors: Float[Array, "n k"]
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """Rayleigh quotients of columns of length 1.

    Returns:
        The quotient λ = vᵀAv of each column, and its residual ‖Av − λv‖.
    """
    image = product(vectors)
    values = jnp.sum(vectors * image, axis=0)
    return values, _lengths(image - vectors * values[None, :])


def status_of(residuals: Float[Array, " k"], tol: Any, status: Any = None) -> Int[Array, ""]:
    """`Status` of eigenpairs by their residuals, after an iteration with ``status``, or None for a dense one."""
    # An iteration may have converged by its own residuals, and the returned vectors have larger ones, by rounding.
    status = jnp.int32(Status.CONVERGED) if status is None else status
    short = jnp.where(status == Status.CONVERGED, jnp.int32(Status.PRECISION), status)
    status = jnp.where(jnp.max(residuals) <= tol, status, short)
    return jnp.where(jnp.all(jnp.isfinite(residuals)), status, Status.NOT_FINITE).astype(jnp.int32)


def random_start(key: KeyArray, n: int, k: int, dtype) -> Float[Array, "n b"]:
    """Initial block of random vectors for k eigenpairs."""
    return jax.random.normal(key, (n, block_width(k, n)), dtype)


def all_eigenvectors(product, null, upper):
    """All eigenvectors of the operator, ascending, those of ``null`` last."""
    matrix = product(jnp.eye(null.shape[0], dtype=null.dtype)) + 2 * upper * _multiply(null, null.T)
    return jnp.linalg.eigh((matrix + matrix.T) / 2)[1]


def initial_state(start, wanted, upper):
    """State before the first step: the filter takes the spectrum for evenly distributed."""
    values = jnp.linspace(0, upper / 2, start.shape[1], dtype=start.dtype)
    residual = jnp.where(wanted > 0, jnp.inf, 0.0).astype(start.dtype)
    return SubspaceState(start, values, jnp.full_like(values, jnp.inf), jnp.sum(values), residual)


def step(product, null, wanted, upper, tol, state: SubspaceState) -> SubspaceState:
    """One step of the iteration: filter the block, and take its Ritz vectors."""
    filtering = begin_filter(state, upper)
    return end_step(product, null, wanted, tol, filter_block(product, filtering, 0, filtering.degree))


class Filtering(NamedTuple):
    """Chebyshev polynomial of the operator times a block: at most 1 between the largest Ritz value and the upper bound.

    Attributes:
        before, now: (n, b) the block times the polynomials of the last two degrees.
        sigma: () their scale.
        center, half: () center and half length of the interval.
        first: () scale of the first polynomial.
        degree: () int32 degree to be reached.
    """

    before: Float[Array, "n b"]
    now: Float[Array, "n b"]
    sigma: Float[Array, ""]
    center: Float[Array, ""]
    half: Float[Array, ""]
    first: Float[Array, ""]
    degree: Int[Array, ""]


def begin_filter(state: SubspaceState, upper: float) -> Filtering:
    """The filter of a block before its first product."""
    x, dtype = state.vectors, state.vectors.dtype
    lowest = state.values[0]
    edge = jnp.clip(state.values[-1], lowest + 1e-3 * upper / MAX_DEGREE, 0.9 * upper)
    center, half = (upper + edge) / 2, (upper - edge) / 2
    # More growth than this would lose the other eigenvectors of a column in rounding.
    growth = float(jnp.finfo(dtype).eps) ** -0.4
    degree = jnp.arccosh(growth) / jnp.arccosh((center - lowest) / half)
    degree = jnp.clip(jnp.ceil(jnp.nan_to_num(degree)), 4.0, float(MAX_DEGREE)).astype(jnp.int32)
    # The three-term recurrence, scaled so that the polynomial is 1 at the lowest Ritz value and nothing overflows.
    first = half / (lowest - center)
    return Filtering(jnp.zeros_like(x), x, jnp.zeros_like(first), center, half, first, degree)


def filter_block(product, filtering: Filtering, start: Any, stop: Any) -> Filtering:
    """The filter after the products from number ``start`` to ``stop``."""
    center, half, first = filtering.center, filtering.half, filtering.first

    def advance(index, carry):
        before, now, sigma = carry
        # The scaled recurrence of Zhou and Saad: the filter is 1 at the smallest eigenvalue, where the Chebyshev
        # polynomial itself grows exponentially with its degree and overflows.
        following = jnp.where(index == 0, first, 1 / (2 / first - sigma))
        grown = jnp.where(index == 0, 1, 2) * following / half
        return now, grown * (product(now) - center * now) - sigma * following * before, following

    carry = filtering.before, filtering.now, filtering.sigma
    before, now, sigma = jax.lax.fori_loop(start, stop, advance, carry)
    return filtering._replace(before=before, now=now, sigma=sigma)


def end_step(product, null, wanted, tol, filtering: Filtering) -> SubspaceState:
    """Ritz vectors of a filtered block."""
    block = filtering.now
    return _rayleigh_ritz(product, block - _multiply(null, _multiply(null.T, block)), wanted, tol)


def _rayleigh_ritz(product, block, wanted, tol):
    """Rayleigh–Ritz: best eigenpairs in the span of a block."""
    basis = _orthonormal(_orthonormal(block))
    image = product(basis)
    small = _multiply(basis.T, image)
    values, rotation = jnp.linalg.eigh((small + small.T) / 2)
    vectors = _multiply(basis, rotation)
    residuals = _lengths(_multiply(image, rotation) - vectors * values[None, :])
    among = jnp.arange(len(values), dtype=jnp.int32) < wanted
    # Davis and Kahan: sin(angle) <= residual / gap. The gap is uncertain by the residual of the value after it.
    gap = values[wanted] - residuals[wanted] - values[wanted - 1]
    least = jnp.minimum(jnp.finfo(block.dtype).eps ** 0.75, tol)
    allowed = jnp.clip(MAX_ANGLE * gap, least, tol)
    # A tolerance of 0 allows nothing and stops nowhere: 0/0 would end the iteration as not finite.
    strictness = jnp.where(allowed > 0, tol / jnp.where(allowed > 0, allowed, 1), 1)
    residual = jnp.max(jnp.where(among, residuals, 0)) * strictness
    return SubspaceState(vectors, values, residuals, jnp.sum(jnp.where(among, values, 0)), residual)


def _orthonormal(block):
    """Orthonormal basis of the span of the columns, by the eigenvectors of their Gram matrix."""
    # The Gram matrix squares the condition number, so a second pass is needed for orthogonality to rounding.
    lengths = _lengths(block)
    block = block / jnp.where(lengths > 0, lengths, 1)[None, :]
    values, vectors = jnp.linalg.eigh(_multiply(block.T, block))
    least = jnp.finfo(block.dtype).eps * values[-1]
    return _multiply(block, vectors * jax.lax.rsqrt(jnp.maximum(values, least))[None, :])


def _lengths(block):
    return jnp.sqrt(jnp.sum(jnp.square(block), axis=0))


def _multiply(a, b):
    return jnp.matmul(a, b, precision=HIGHEST)

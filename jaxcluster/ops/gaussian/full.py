"""Full and tied covariance matrices: Cholesky factors, Mahalanobis distances and moments.

Full: distances and second moments are one or two large matrix products for a tile. One operand is a difference from the
component's mean, so rounding grows with the distance between means in standard deviations, not with its square. Beyond
some thousands of standard deviations both operands are differences.

Tied: samples are whitened once by the common factor, and then compared with the whitened means.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.gaussian.covariance_type import (
    DIFFERENCES,
    EXPANDED,
    HALF_EXPANDED,
    CovarianceType,
    Factor,
    Form,
    Moments,
    isotropic,
    product,
    product_over_rows,
    switch_form,
    switched_row_cost,
    with_ones,
)
from jaxcluster.types import Array, Bool, Float

MIN_PIVOT_ULPS = 4
"""Smallest squared Cholesky pivot that counts as positive, in rounding errors of the variance it is taken from."""

MAX_RIDGE_DOUBLINGS = 64
"""Upper bound for the doublings of a ridge: from a rounding error to beyond any covariance (2⁶⁴ of them)."""

SUBSTITUTION_COLUMNS = 16
"""Columns up to which triangular matrices are inverted row by row: a program of a quarter of the size."""

BANDED_FROM = 32
"""Number of columns from which triangular products are split into two bands: this saves a quarter of the work, which
for fewer columns is worth less than the second product costs."""

FULL_FORMS, TIED_FORMS = (HALF_EXPANDED, DIFFERENCES), (EXPANDED, HALF_EXPANDED, DIFFERENCES)


def factor_dense(covariances: Float[Array, "*k d d"]) -> tuple[Array, Factor, Bool[Array, "*k"]]:
    """Cholesky factors of the precisions; a singular covariance gets a ridge instead of a NaN.

    Returns:
        The covariances, with a ridge where they needed one; their `Factor`; and a mask of those that needed one.
    """
    # A constant for the gradient: the ridge mends rounding, and is no function of the parameters.
    ridge = _ridge(jax.lax.stop_gradient(covariances))
    eye = jnp.eye(covariances.shape[-1], dtype=covariances.dtype)
    covariances = covariances + ridge[..., None, None] * _leading(eye, covariances)
    lower = jnp.linalg.cholesky(covariances)
    inverse = invert_lower(lower)
    log_det = jnp.sum(jnp.log(jnp.diagonal(inverse, axis1=-2, axis2=-1)), axis=-1)
    return covariances, Factor(jnp.swapaxes(inverse, -1, -2), log_det), ridge > 0


def invert_lower(lower: Float[Array, "*k d d"]) -> Float[Array, "*k d d"]:
    """Inverses of lower triangular matrices: row by row, or by recursive block products, log₂ d of them."""
    if lower.shape[-1] <= SUBSTITUTION_COLUMNS:
        return _invert_by_rows(lower)
    # [[A, 0], [C, B]]⁻¹ = [[A⁻¹, 0], [−B⁻¹·C·A⁻¹, B⁻¹]], from 1×1 blocks up. A triangular solve on a CPU would call a
    # BLAS whose threads wait for XLA's: a hundred times slower for d = 50.
    d = lower.shape[-1]
    size = 1 << (d - 1).bit_length()
    batch = lower.shape[:-2]
    lower = lower.reshape(-1, d, d)
    padded = jnp.zeros((lower.shape[0], size, size), lower.dtype).at[:, :d, :d].set(lower)
    # Identity in the padding: it is its own inverse, and leaves the other blocks as they are.
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


def _invert_by_rows(lower):
    """Forward substitution: row i of the inverse is (e_i − Σ_j<i L_ij·row j) / L_ii."""
    d = lower.shape[-1]
    eye = jnp.eye(d, dtype=lower.dtype)

    def add_row(i, inverse):
        coefficients = jax.lax.dynamic_index_in_dim(lower, i, -2, keepdims=False)  # (*k, d); rows i to d are still 0
        pivot = jax.lax.dynamic_index_in_dim(coefficients, i, -1)
        product = jnp.matmul(coefficients[..., None, :], inverse, precision=HIGHEST)[..., 0, :]
        unit = jax.lax.dynamic_index_in_dim(eye, i, 0, keepdims=False)
        row = (jnp.broadcast_to(unit, product.shape) - product) / pivot
        return jax.lax.dynamic_update_index_in_dim(inverse, row[..., None, :], i, -2)

    return jax.lax.fori_loop(0, d, add_row, jnp.zeros_like(lower))


def positive_definite(matrices: Float[Array, "*k d d"]) -> Bool[Array, "*k"]:
    """Mask of the matrices with a Cholesky factor whose pivots are all larger than their rounding error."""
    lower = jnp.linalg.cholesky(matrices)
    pivots = jnp.square(jnp.diagonal(lower, axis1=-2, axis2=-1))
    variances = jnp.diagonal(matrices, axis1=-2, axis2=-1)
    # Pivot i is the variance less the squares of row i of the factor, each rounded by eps·variance. The bound √tiny
    # keeps the inverse variance and its square finite.
    min_pivot = MIN_PIVOT_ULPS * jnp.finfo(matrices.dtype).eps * variances
    return jnp.all((pivots > min_pivot) & (variances > jnp.sqrt(jnp.finfo(matrices.dtype).tiny)), axis=-1)


def _ridge(covariances):
    """Ridge that makes each matrix positive definite: 0 if it is already, or a first guess doubled until it does."""
    dtype = covariances.dtype
    eye = jnp.eye(covariances.shape[-1], dtype=dtype)
    # The largest entry of all, not of the diagonal: variances that have canceled may be smaller than a covariance.
    scale = jnp.max(jnp.abs(covariances), axis=(-2, -1))
    rounding = jnp.maximum(scale * jnp.finfo(dtype).eps, jnp.sqrt(jnp.finfo(dtype).tiny))
    first = jnp.where(jnp.isfinite(rounding), 2 * MIN_PIVOT_ULPS * rounding, 1)
    finite = jnp.all(jnp.isfinite(covariances), axis=(-2, -1))

    def add(carry):
        ridge, bad, steps = carry
        # The first try is without a ridge. As a step like the others it compiles nothing.
        larger = jnp.where(bad, jnp.maximum(2 * ridge, first), ridge)
        ridge = jnp.where(steps > 0, larger, ridge)
        bad = finite & ~positive_definite(covariances + ridge[..., None, None] * _leading(eye, covariances))
        return ridge, bad, steps + 1

    def unfinished(carry):
        _, bad, steps = carry
        return jnp.any(bad) & (steps <= MAX_RIDGE_DOUBLINGS)

    none = jnp.zeros_like(first)
    # The first condition holds wherever there is a matrix, and varies over the devices of a mapped axis if they do.
    return jax.lax.while_loop(unfinished, add, (none, none == 0, jnp.int32(0)))[0]


def _leading(matrix, like):
    """The matrix with leading axes of length 1 for a batch; JAX may be configured not to promote ranks by itself."""
    return matrix.reshape((1,) * (like.ndim - 2) + matrix.shape)


def full_mahalanobis_sq(
    means: Float[Array, "k d"], factor: Factor, x: Float[Array, "d n"], form: Form, precision=HIGHEST
) -> Float[Array, "k n"]:
    """See `CovarianceType.mahalanobis_sq`."""
    d = means.shape[1]

    def half_expanded(means, root, x):
        k = means.shape[0]
        whiten = jnp.swapaxes(root, 1, 2)
        centers = jnp.einsum("kij,kj->ki", whiten, means, precision=HIGHEST)
        total = jnp.zeros((), x.dtype)
        for start, stop in _bands(d):
            white = product(whiten[:, start:stop, :stop].reshape(-1, stop), x[:stop], precision)
            offset = white.reshape(k, stop - start, -1) - centers[:, start:stop, None]
            total = total + jnp.sum(jnp.square(offset), axis=1)
        return total

    def differences(means, root, x):
        white = jnp.einsum("kij,kin->kjn", root, x[None] - means[:, :, None], precision=precision)
        return jnp.sum(jnp.square(white), axis=1)

    return switch_form(form, FULL_FORMS, (half_expanded, differences), means, factor.root, x)


def full_moments(
    r: Float[Array, "k n"], means: Float[Array, "k d"], x: Float[Array, "d n"], form: Form, precision=HIGHEST
) -> Moments:
    """See `CovarianceType.moments`."""
    d = means.shape[1]

    def half_expanded(r, means, x):
        # Σ r·(x − m)(x − m)ᵀ = Σ r·(x − m)·xᵀ − (Σ r·(x − m))·mᵀ: one product with [1; x] gives both sums.
        k = means.shape[0]
        firsts, rows_of_second = [], []
        for start, stop in _bands(d):
            weighted = r[:, None, :] * (x[None, start:stop] - means[:, start:stop, None])
            sums = product_over_rows(weighted.reshape(k * (stop - start), -1), with_ones(x[:stop]), precision)
            sums = sums.reshape(k, stop - start, stop + 1)
            second = sums[:, :, 1:] - sums[:, :, :1] * means[:, None, :stop]
            firsts.append(sums[:, :, 0])
            rows_of_second.append(jnp.pad(second, ((0, 0), (0, 0), (0, d - stop))))
        second = jnp.concatenate(rows_of_second, axis=1)
        # The first band lacks the upper right block, which is the transpose of the lower left one.
        computed = [np.broadcast_to(np.arange(d) < stop, (stop - start, d)) for start, stop in _bands(d)]
        second = jnp.where(np.concatenate(computed)[None], second, jnp.swapaxes(second, 1, 2))
        return jnp.concatenate(firsts, axis=1), second

    def differences(r, means, x):
        offset = x[None] - means[:, :, None]
        weighted = r[:, None, :] * offset
        return jnp.sum(weighted, axis=2), jnp.einsum("kin,kjn->kij", weighted, offset, precision=precision)

    return Moments(jnp.sum(r, axis=1), *switch_form(form, FULL_FORMS, (half_expanded, differences), r, means, x))


def _bands(d: int) -> list[tuple[int, int]]:
    """Bands (start, stop) of the rows of a triangular matrix, so that products leave out most of its zeros."""
    return [(0, d)] if d < BANDED_FROM else [(0, d // 2), (d // 2, d)]


def full_covariances(moments: Moments, delta: Float[Array, "k d"], weight: Float[Array, " k"]) -> Float[Array, "k d d"]:
    """See `CovarianceType.covariances`."""
    # The scatter about the new mean: that about the reference less delta·deltaᵀ. Products round both triangles apart.
    raw = moments.second / weight[:, None, None] - delta[:, :, None] * delta[:, None, :]
    return (raw + jnp.swapaxes(raw, 1, 2)) / 2


FULL_COVARIANCE = CovarianceType(
    name="full",
    factor=lambda covariances, d: factor_dense(covariances),
    mahalanobis_sq=full_mahalanobis_sq,
    moments=full_moments,
    covariances=full_covariances,
    shape=lambda k, d: (k, d, d),
    n_parameters=lambda k, d: k * d * (d + 1) // 2,
    dense=lambda covariances, k, d: covariances,
    isotropic=lambda variance, k, d: jnp.broadcast_to(isotropic(variance, d), (k, d, d)),
    mean_variance=lambda covariances: jnp.trace(covariances, axis1=1, axis2=2) / covariances.shape[-1],
    precisions=lambda factor: jnp.einsum("kij,klj->kil", factor.root, factor.root, precision=HIGHEST),
    row_cost=lambda k, d: k * d,
)


def tied_mahalanobis_sq(
    means: Float[Array, "k d"], factor: Factor, x: Float[Array, "d n"], form: Form, precision=HIGHEST
) -> Float[Array, "k n"]:
    """See `CovarianceType.mahalanobis_sq`."""
    relative, shared = tied_relative_mahalanobis_sq(means, factor, x, form, precision)
    return relative + shared[None, :]


def tied_relative_mahalanobis_sq(
    means: Float[Array, "k d"], factor: Factor, x: Float[Array, "d n"], form: Form, precision=HIGHEST
) -> tuple[Float[Array, "k n"], Float[Array, " n"]]:
    """Squared Mahalanobis distances less a shared term.

    Returns:
        See `CovarianceType.relative_mahalanobis_sq`.
    """

    def expanded(means, root, x):
        # ‖Rᵀx‖² is the shared term: added to each distance, it would round away the differences of far samples.
        white, centers = product(root.T, x, precision), product(means, root)
        lengths = jnp.sum(jnp.square(centers), axis=1)[:, None]
        return lengths - product(2 * centers, white, precision), jnp.sum(jnp.square(white), axis=0)

    def half_expanded(means, root, x):
        white, centers = product(root.T, x, precision), product(means, root)
        return jnp.sum(jnp.square(white[None] - centers[:, :, None]), axis=1), jnp.zeros_like(x[0])

    def differences(means, root, x):
        white = jnp.einsum("ij,kin->kjn", root, x[None] - means[:, :, None], precision=precision)
        return jnp.sum(jnp.square(white), axis=1), jnp.zeros_like(x[0])

    return switch_form(form, TIED_FORMS, (expanded, half_expanded, differences), means, factor.root, x)


def tied_moments(
    r: Float[Array, "k n"], means: Float[Array, "k d"], x: Float[Array, "d n"], form: Form, precision=HIGHEST
) -> Moments:
    """See `CovarianceType.moments`."""
    weight = jnp.sum(r, axis=1)

    def expanded(r, means, x):
        first = product_over_rows(r, x, precision) - weight[:, None] * means
        scatter = product_over_rows(x * jnp.sum(r, axis=0)[None, :], x, precision)
        return first, scatter - product(means.T, first + weight[:, None] * means) - product(first.T, means)

    def half_expanded(r, means, x):
        weighted = r[:, None, :] * (x[None] - means[:, :, None])
        first = jnp.sum(weighted, axis=2)
        return first, product_over_rows(jnp.sum(weighted, axis=0), x, precision) - product(first.T, means)

    def differences(r, means, x):
        offset = x[None] - means[:, :, None]
        weighted = r[:, None, :] * offset
        return jnp.sum(weighted, axis=2), jnp.einsum("kin,kjn->ij", weighted, offset, precision=precision)

    return Moments(weight, *switch_form(form, TIED_FORMS, (expanded, half_expanded, differences), r, means, x))


def tied_covariances(moments: Moments, delta: Float[Array, "k d"], weight: Float[Array, " k"]) -> Float[Array, "d d"]:
    """See `CovarianceType.covariances`."""
    raw = (moments.second - product(delta.T * weight[None, :], delta)) / jnp.sum(weight)
    return (raw + raw.T) / 2


TIED_COVARIANCE = CovarianceType(
    name="tied",
    factor=lambda covariances, d: factor_dense(covariances),
    mahalanobis_sq=tied_mahalanobis_sq,
    relative_mahalanobis_sq=tied_relative_mahalanobis_sq,
    moments=tied_moments,
    covariances=tied_covariances,
    shape=lambda k, d: (d, d),
    n_parameters=lambda k, d: d * (d + 1) // 2,
    dense=lambda covariances, k, d: jnp.broadcast_to(covariances, (k, d, d)),
    isotropic=lambda variance, k, d: isotropic(variance, d),
    mean_variance=lambda covariances: jnp.trace(covariances) / covariances.shape[-1],
    precisions=lambda factor: product(factor.root, factor.root.T),
    row_cost=lambda k, d: switched_row_cost(2 * d, k, d),
)

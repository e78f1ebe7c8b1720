"""Diagonal and spherical covariances: variances along the axes, or one variance for all axes.

Near the origin distances are one product of [x², x] with the parameters. Where means lie many standard deviations from
it, the squares would cancel, and distances are sums of squared differences instead. Sparse rows, which are not columns,
have their own sums (`ops.gaussian.sparse`).
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxcluster.core.sparse_rows import SparseRows
from jaxcluster.ops import rows
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.gaussian import sparse
from jaxcluster.ops.gaussian.covariance_type import (
    DIFFERENCES,
    EXPANDED,
    CovarianceType,
    Factor,
    Form,
    Moments,
    floor_variances,
    product,
    product_over_rows,
    switch_form,
    switched_row_cost,
    with_ones,
)
from jaxcluster.ops.gaussian.sparse import Columns
from jaxcluster.types import Array, Bool, Float

FORMS = (EXPANDED, DIFFERENCES)


def diagonal_factor(covariances: Float[Array, "k d"], d: int) -> tuple[Array, Factor, Bool[Array, " k"]]:
    """Factor of diagonal covariances.

    Returns:
        See `CovarianceType.factor`.
    """
    covariances, raised = floor_variances(covariances)
    log_det = -jnp.sum(jnp.log(covariances), axis=1) / 2
    return covariances, Factor(jnp.sqrt(1 / covariances), log_det), jnp.any(raised, axis=1)


def diagonal_mahalanobis_sq(
    means: Float[Array, "k d"], factor: Factor, x: Columns, form: Form, precision=HIGHEST
) -> Float[Array, "k n"]:
    """See `CovarianceType.mahalanobis_sq`."""
    if isinstance(x, SparseRows):
        return sparse.mahalanobis_sq(means, factor.root, x)

    def expanded(means, root, x):
        # Σ_j p_j·(x_j − μ_j)² = [p, −2·p·μ]·[x²; x] + Σ_j p_j·μ_j².
        precisions = jnp.square(root)
        weights = jnp.concatenate([precisions, -2 * precisions * means], axis=1)
        constant = jnp.sum(precisions * jnp.square(means), axis=1)
        return product(weights, jnp.concatenate([jnp.square(x), x]), precision) + constant[:, None]

    def differences(means, root, x):
        return jnp.sum(jnp.square((x[None] - means[:, :, None]) * root[:, :, None]), axis=1)

    return switch_form(form, FORMS, (expanded, differences), means, factor.root, x)


def diagonal_moments(
    r: Float[Array, "k n"], means: Float[Array, "k d"], x: Columns, form: Form, precision=HIGHEST
) -> Moments:
    """See `CovarianceType.moments`."""
    if isinstance(x, SparseRows):
        return Moments(*sparse.moments(r, means, x))
    d = means.shape[1]

    def expanded(r, means, x):
        sums = product_over_rows(r, with_ones(jnp.concatenate([x, jnp.square(x)])), precision)
        weight, of_x, of_squares = sums[:, 0], sums[:, 1 : d + 1], sums[:, d + 1 :]
        # Σ r·(x − m)² = Σ r·x² − m·(Σ r·x + Σ r·(x − m)).
        first = of_x - weight[:, None] * means
        return Moments(weight, first, of_squares - (of_x + first) * means)

    def differences(r, means, x):
        difference = x[None] - means[:, :, None]
        weighted = r[:, None, :] * difference
        return Moments(jnp.sum(r, axis=1), jnp.sum(weighted, axis=2), jnp.sum(weighted * difference, axis=2))

    return switch_form(form, FORMS, (expanded, differences), r, means, x)


def diagonal_covariances(
    moments: Moments, delta: Float[Array, "k d"], weight: Float[Array, " k"]
) -> Float[Array, "k d"]:
    """See `CovarianceType.covariances`."""
    # Not below 0, which rounding may give a component of one sample.
    return jnp.maximum(moments.second / weight[:, None] - jnp.square(delta), 0)


DIAGONAL_COVARIANCE = CovarianceType(
    name="diag",
    factor=diagonal_factor,
    mahalanobis_sq=diagonal_mahalanobis_sq,
    moments=diagonal_moments,
    covariances=diagonal_covariances,
    shape=lambda k, d: (k, d),
    n_parameters=lambda k, d: k * d,
    dense=lambda covariances, k, d: covariances[:, :, None] * jnp.eye(d, dtype=covariances.dtype)[None],
    isotropic=lambda variance, k, d: jnp.broadcast_to(variance, (k, d)),
    mean_variance=lambda covariances: jnp.mean(covariances, axis=1),
    precisions=lambda factor: jnp.square(factor.root),
    row_cost=lambda k, d: switched_row_cost(2 * d, k, d),
)


def spherical_factor(covariances: Float[Array, " k"], d: int) -> tuple[Array, Factor, Bool[Array, " k"]]:
    """Factor of spherical covariances.

    Returns:
        See `CovarianceType.factor`.
    """
    covariances, raised = floor_variances(covariances)
    return covariances, Factor(jnp.sqrt(1 / covariances), -d * jnp.log(covariances) / 2), raised


def square_distances(means: Float[Array, "k d"], x: Columns, form: Form, precision=HIGHEST) -> Float[Array, "k n"]:
    """Squared Euclidean distances (data units²), expanded or by differences; never negative.

    Args:
        means: in the frame of the samples.
        x: samples as columns.
        form: `EXPANDED` or `DIFFERENCES`.
        precision: of the matrix product.
    """
    if isinstance(x, SparseRows):
        return rows.distances_to_few(x, means).T

    def expanded(means, x):
        # One product in place of k·n·d differences. It rounds by the lengths: the form by differences is for means far
        # from the origin.
        lengths = jnp.sum(jnp.square(x), axis=0)[None, :] + jnp.sum(jnp.square(means), axis=1)[:, None]
        return jnp.maximum(lengths - product(2 * means, x, precision), 0)

    def differences(means, x):
        return jnp.sum(jnp.square(x[None] - means[:, :, None]), axis=1)

    return switch_form(form, FORMS, (expanded, differences), means, x)


def spherical_mahalanobis_sq(
    means: Float[Array, "k d"], factor: Factor, x: Columns, form: Form, precision=HIGHEST
) -> Float[Array, "k n"]:
    """See `CovarianceType.mahalanobis_sq`."""
    return jnp.square(factor.root)[:, None] * square_distances(means, x, form, precision)


def spherical_moments(
    r: Float[Array, "k n"], means: Float[Array, "k d"], x: Columns, form: Form, precision=HIGHEST
) -> Moments:
    """See `CovarianceType.moments`."""
    if isinstance(x, SparseRows):
        weight, first, second = sparse.moments(r, means, x)
        return Moments(weight, first, jnp.sum(second, axis=1))
    d = means.shape[1]

    def expanded(r, means, x):
        lengths = jnp.sum(jnp.square(x), axis=0, keepdims=True)
        sums = product_over_rows(r, with_ones(jnp.concatenate([x, lengths])), precision)
        weight, of_x = sums[:, 0], sums[:, 1 : d + 1]
        first = of_x - weight[:, None] * means
        return Moments(weight, first, sums[:, d + 1] - jnp.sum((of_x + first) * means, axis=1))

    def differences(r, means, x):
        difference = x[None] - means[:, :, None]
        first = jnp.sum(r[:, None, :] * difference, axis=2)
        second = jnp.sum(r * jnp.sum(jnp.square(difference), axis=1), axis=1)
        return Moments(jnp.sum(r, axis=1), first, second)

    return switch_form(form, FORMS, (expanded, differences), r, means, x)


def spherical_covariances(
    moments: Moments, delta: Float[Array, "k d"], weight: Float[Array, " k"]
) -> Float[Array, " k"]:
    """See `CovarianceType.covariances`."""
    spread = moments.second / weight - jnp.sum(jnp.square(delta), axis=1)
    return jnp.maximum(spread, 0) / delta.shape[1]


SPHERICAL_COVARIANCE = CovarianceType(
    name="spherical",
    factor=spherical_factor,
    mahalanobis_sq=spherical_mahalanobis_sq,
    moments=spherical_moments,
    covariances=spherical_covariances,
    shape=lambda k, d: (k,),
    n_parameters=lambda k, d: k,
    dense=lambda covariances, k, d: covariances[:, None, None] * jnp.eye(d, dtype=covariances.dtype)[None],
    isotropic=lambda variance, k, d: jnp.broadcast_to(variance, (k,)),
    mean_variance=lambda covariances: covariances,
    precisions=lambda factor: jnp.square(factor.root),
    row_cost=lambda k, d: switched_row_cost(d, k, d),
)

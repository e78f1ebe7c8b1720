"""Variances along the axes, of every component its own.

Near the origin distances are one product of [x², x]; where means lie many standard deviations from it, and the squares
would cancel, they are sums of squared differences.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.gaussian.family import (
    DIFFERENCES,
    PRODUCTS,
    Factor,
    Family,
    Moments,
    either_cost,
    in_form,
    product,
    product_over_rows,
    variance_floor,
    with_ones,
)
from jaxcluster.types import Array, Bool, Float, Int

FORMS = (PRODUCTS, DIFFERENCES)


def factor(covariances: Float[Array, "k d"], d: int) -> tuple[Array, Factor, Bool[Array, " k"]]:
    """See `Family.factor`."""
    covariances, raised = variance_floor(covariances)
    log_det = -jnp.sum(jnp.log(covariances), axis=1) / 2
    return covariances, Factor(jnp.sqrt(1 / covariances), log_det), jnp.any(raised, axis=1)


def squares(
    means: Float[Array, "k d"], factor: Factor, x: Float[Array, "d n"], form: int | Int[Array, ""], precision=HIGHEST
) -> Float[Array, "k n"]:
    """See `Family.squares`."""

    def by_products(means, root, x):
        precisions = jnp.square(root)
        weights = jnp.concatenate([precisions, -2 * precisions * means], axis=1)
        constant = jnp.sum(precisions * jnp.square(means), axis=1)
        return product(weights, jnp.concatenate([jnp.square(x), x]), precision) + constant[:, None]

    def by_differences(means, root, x):
        return jnp.sum(jnp.square((x[None] - means[:, :, None]) * root[:, :, None]), axis=1)

    return in_form(form, FORMS, (by_products, by_differences), means, factor.root, x)


def moments(
    r: Float[Array, "k n"],
    means: Float[Array, "k d"],
    x: Float[Array, "d n"],
    form: int | Int[Array, ""],
    precision=HIGHEST,
) -> Moments:
    """See `Family.moments`."""
    d = means.shape[1]

    def by_products(r, means, x):
        sums = product_over_rows(r, with_ones(jnp.concatenate([x, jnp.square(x)])), precision)
        weight, of_x, of_squares = sums[:, 0], sums[:, 1 : d + 1], sums[:, d + 1 :]
        first = of_x - weight[:, None] * means
        return Moments(weight, first, of_squares - (of_x + first) * means)

    def by_differences(r, means, x):
        difference = x[None] - means[:, :, None]
        pulled = r[:, None, :] * difference
        return Moments(jnp.sum(r, axis=1), jnp.sum(pulled, axis=2), jnp.sum(pulled * difference, axis=2))

    return in_form(form, FORMS, (by_products, by_differences), r, means, x)


def covariances(moments: Moments, delta: Float[Array, "k d"], weight: Float[Array, " k"]) -> Float[Array, "k d"]:
    """See `Family.covariances`."""
    return jnp.maximum(moments.second / weight[:, None] - jnp.square(delta), 0)


DIAGONAL_COVARIANCE = Family(
    name="diag",
    factor=factor,
    squares=squares,
    moments=moments,
    covariances=covariances,
    shape=lambda k, d: (k, d),
    parameters=lambda k, d: k * d,
    dense=lambda covariances, k, d: covariances[:, :, None] * jnp.eye(d, dtype=covariances.dtype)[None],
    isotropic=lambda variance, k, d: jnp.broadcast_to(variance, (k, d)),
    spread=lambda covariances: jnp.mean(covariances, axis=1),
    invert=lambda factor: jnp.square(factor.root),
    row_cost=lambda k, d: either_cost(2 * d, k, d),
)

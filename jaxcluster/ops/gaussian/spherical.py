"""One variance for all directions, of every component its own."""

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


def factor(covariances: Float[Array, " k"], d: int) -> tuple[Array, Factor, Bool[Array, " k"]]:
    """See `Family.factor`."""
    covariances, raised = variance_floor(covariances)
    return covariances, Factor(jnp.sqrt(1 / covariances), -d * jnp.log(covariances) / 2), raised


def square_distances(
    means: Float[Array, "k d"], x: Float[Array, "d n"], form: int | Int[Array, ""], precision=HIGHEST
) -> Float[Array, "k n"]:
    """Squared distances (data units²), by products or by differences; never negative."""

    def by_products(means, x):
        lengths = jnp.sum(jnp.square(x), axis=0)[None, :] + jnp.sum(jnp.square(means), axis=1)[:, None]
        return jnp.maximum(lengths - product(2 * means, x, precision), 0)

    def by_differences(means, x):
        return jnp.sum(jnp.square(x[None] - means[:, :, None]), axis=1)

    return in_form(form, FORMS, (by_products, by_differences), means, x)


def squares(
    means: Float[Array, "k d"], factor: Factor, x: Float[Array, "d n"], form: int | Int[Array, ""], precision=HIGHEST
) -> Float[Array, "k n"]:
    """See `Family.squares`."""
    return jnp.square(factor.root)[:, None] * square_distances(means, x, form, precision)


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
        lengths = jnp.sum(jnp.square(x), axis=0, keepdims=True)
        sums = product_over_rows(r, with_ones(jnp.concatenate([x, lengths])), precision)
        weight, of_x = sums[:, 0], sums[:, 1 : d + 1]
        first = of_x - weight[:, None] * means
        return Moments(weight, first, sums[:, d + 1] - jnp.sum((of_x + first) * means, axis=1))

    def by_differences(r, means, x):
        difference = x[None] - means[:, :, None]
        first = jnp.sum(r[:, None, :] * difference, axis=2)
        second = jnp.sum(r * jnp.sum(jnp.square(difference), axis=1), axis=1)
        return Moments(jnp.sum(r, axis=1), first, second)

    return in_form(form, FORMS, (by_products, by_differences), r, means, x)


def covariances(moments: Moments, delta: Float[Array, "k d"], weight: Float[Array, " k"]) -> Float[Array, " k"]:
    """See `Family.covariances`."""
    spread = moments.second / weight - jnp.sum(jnp.square(delta), axis=1)
    return jnp.maximum(spread, 0) / delta.shape[1]


SPHERICAL_COVARIANCE = Family(
    name="spherical",
    factor=factor,
    squares=squares,
    moments=moments,
    covariances=covariances,
    shape=lambda k, d: (k,),
    parameters=lambda k, d: k,
    dense=lambda covariances, k, d: covariances[:, None, None] * jnp.eye(d, dtype=covariances.dtype)[None],
    isotropic=lambda variance, k, d: jnp.broadcast_to(variance, (k,)),
    spread=lambda covariances: covariances,
    invert=lambda factor: jnp.square(factor.root),
    row_cost=lambda k, d: either_cost(d, k, d),
)

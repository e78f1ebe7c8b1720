"""One covariance matrix that all components share: rows are whitened once, and only then compared with the means."""

from __future__ import annotations

import jax.numpy as jnp

from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.gaussian.dense import factor_dense
from jaxcluster.ops.gaussian.family import (
    DIFFERENCES,
    HALVES,
    PRODUCTS,
    Factor,
    Family,
    Moments,
    either_cost,
    in_form,
    isotropic,
    product,
    product_over_rows,
)
from jaxcluster.types import Array, Bool, Float, Int

FORMS = (PRODUCTS, HALVES, DIFFERENCES)


def factor(covariances: Float[Array, "d d"], d: int) -> tuple[Array, Factor, Bool[Array, ""]]:
    """See `Family.factor`."""
    return factor_dense(covariances)


def squares(
    means: Float[Array, "k d"], factor: Factor, x: Float[Array, "d n"], form: int | Int[Array, ""], precision=HIGHEST
) -> Float[Array, "k n"]:
    """See `Family.squares`."""
    relative, shared = relative_squares(means, factor, x, form, precision)
    return relative + shared[None, :]


def relative_squares(
    means: Float[Array, "k d"], factor: Factor, x: Float[Array, "d n"], form: int | Int[Array, ""], precision=HIGHEST
) -> tuple[Float[Array, "k n"], Float[Array, " n"]]:
    """See `Family.relative_squares`: by products ‖Rᵀx‖², in which what tells far rows apart is lost, is left out."""

    def by_products(means, root, x):
        white, centers = product(root.T, x, precision), product(means, root)
        lengths = jnp.sum(jnp.square(centers), axis=1)[:, None]
        return lengths - product(2 * centers, white, precision), jnp.sum(jnp.square(white), axis=0)

    def by_halves(means, root, x):
        white, centers = product(root.T, x, precision), product(means, root)
        return jnp.sum(jnp.square(white[None] - centers[:, :, None]), axis=1), jnp.zeros_like(x[0])

    def by_differences(means, root, x):
        white = jnp.einsum("ij,kin->kjn", root, x[None] - means[:, :, None], precision=precision)
        return jnp.sum(jnp.square(white), axis=1), jnp.zeros_like(x[0])

    return in_form(form, FORMS, (by_products, by_halves, by_differences), means, factor.root, x)


def moments(
    r: Float[Array, "k n"],
    means: Float[Array, "k d"],
    x: Float[Array, "d n"],
    form: int | Int[Array, ""],
    precision=HIGHEST,
) -> Moments:
    """See `Family.moments`."""
    weight = jnp.sum(r, axis=1)

    def by_products(r, means, x):
        first = product_over_rows(r, x, precision) - weight[:, None] * means
        scatter = product_over_rows(x * jnp.sum(r, axis=0)[None, :], x, precision)
        return first, scatter - product(means.T, first + weight[:, None] * means) - product(first.T, means)

    def by_halves(r, means, x):
        pulled = r[:, None, :] * (x[None] - means[:, :, None])
        first = jnp.sum(pulled, axis=2)
        return first, product_over_rows(jnp.sum(pulled, axis=0), x, precision) - product(first.T, means)

    def by_differences(r, means, x):
        offset = x[None] - means[:, :, None]
        pulled = r[:, None, :] * offset
        return jnp.sum(pulled, axis=2), jnp.einsum("kin,kjn->ij", pulled, offset, precision=precision)

    return Moments(weight, *in_form(form, FORMS, (by_products, by_halves, by_differences), r, means, x))


def covariances(moments: Moments, delta: Float[Array, "k d"], weight: Float[Array, " k"]) -> Float[Array, "d d"]:
    """See `Family.covariances`."""
    raw = (moments.second - product(delta.T * weight[None, :], delta)) / jnp.sum(weight)
    return (raw + raw.T) / 2


TIED_COVARIANCE = Family(
    name="tied",
    factor=factor,
    squares=squares,
    relative_squares=relative_squares,
    moments=moments,
    covariances=covariances,
    shape=lambda k, d: (d, d),
    parameters=lambda k, d: d * (d + 1) // 2,
    dense=lambda covariances, k, d: jnp.broadcast_to(covariances, (k, d, d)),
    isotropic=lambda variance, k, d: isotropic(variance, d),
    spread=lambda covariances: jnp.trace(covariances) / covariances.shape[-1],
    invert=lambda factor: product(factor.root, factor.root.T),
    row_cost=lambda k, d: either_cost(2 * d, k, d),
)

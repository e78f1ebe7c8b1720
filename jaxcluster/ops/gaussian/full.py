"""A covariance matrix of its own for every component.

Distances and second moments are each one large matrix product a tile. Its operands are differences from the component's
mean on one side, so their rounding grows with how far means lie apart in standard deviations, not with its square.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxcluster.ops.distance import FULL
from jaxcluster.ops.gaussian.dense import factor_dense
from jaxcluster.ops.gaussian.family import Factor, Family, Moments, product, product_over_rows, with_ones
from jaxcluster.types import Array, Bool, Float


def factor(covariances: Float[Array, "k d d"], d: int) -> tuple[Array, Factor, Bool[Array, " k"]]:
    """See `Family.factor`."""
    return factor_dense(covariances)


def squares(
    means: Float[Array, "k d"], factor: Factor, x: Float[Array, "d n"], expanded: Bool[Array, ""], precision=FULL
) -> Float[Array, "k n"]:
    """See `Family.squares`."""
    k, d = means.shape
    whiten = jnp.swapaxes(factor.root, 1, 2)
    centers = jnp.einsum("kij,kj->ki", whiten, means, precision=FULL)
    white = product(whiten.reshape(k * d, d), x, precision).reshape(k, d, -1)
    return jnp.sum(jnp.square(white - centers[:, :, None]), axis=1)


def moments(
    r: Float[Array, "k n"],
    means: Float[Array, "k d"],
    x: Float[Array, "d n"],
    expanded: Bool[Array, ""],
    precision=FULL,
) -> Moments:
    """See `Family.moments`: Σ r·(x − m)·[1, x]ᵀ in one product, and the rest of it by what is known of m."""
    k, d = means.shape
    pulled = r[:, None, :] * (x[None] - means[:, :, None])
    sums = product_over_rows(pulled.reshape(k * d, -1), with_ones(x), precision).reshape(k, d, d + 1)
    first = sums[:, :, 0]
    return Moments(jnp.sum(r, axis=1), first, sums[:, :, 1:] - first[:, :, None] * means[:, None, :])


def covariances(moments: Moments, delta: Float[Array, "k d"], weight: Float[Array, " k"]) -> Float[Array, "k d d"]:
    """See `Family.covariances`."""
    raw = moments.second / weight[:, None, None] - delta[:, :, None] * delta[:, None, :]
    return (raw + jnp.swapaxes(raw, 1, 2)) / 2


FULL_COVARIANCE = Family(
    name="full",
    factor=factor,
    squares=squares,
    moments=moments,
    covariances=covariances,
    shape=lambda k, d: (k, d, d),
    parameters=lambda k, d: k * d * (d + 1) // 2,
    dense=lambda covariances, k, d: covariances,
    isotropic=lambda variance, k, d: jnp.broadcast_to(variance * jnp.eye(d), (k, d, d)),
    spread=lambda covariances: jnp.trace(covariances, axis1=1, axis2=2) / covariances.shape[-1],
    invert=lambda factor: jnp.einsum("kij,klj->kil", factor.root, factor.root, precision=FULL),
)

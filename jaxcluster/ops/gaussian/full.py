"""A covariance matrix of its own for every component.

Distances and second moments are one or two large matrix products a tile. On one side their operands are differences
from the component's mean, so rounding grows with how far means lie apart in standard deviations, not with its square.
Where even that is too much, beyond some thousand of them, both operands are differences.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.gaussian.dense import factor_dense
from jaxcluster.ops.gaussian.family import (
    DIFFERENCES,
    HALVES,
    Factor,
    Family,
    Moments,
    in_form,
    isotropic,
    product,
    product_over_rows,
    with_ones,
)
from jaxcluster.types import Array, Bool, Float, Int

WIDE = 32
"""Columns from which a quarter of the work is worth a second product."""

FORMS = (HALVES, DIFFERENCES)


def factor(covariances: Float[Array, "k d d"], d: int) -> tuple[Array, Factor, Bool[Array, " k"]]:
    """See `Family.factor`."""
    return factor_dense(covariances)


def squares(
    means: Float[Array, "k d"], factor: Factor, x: Float[Array, "d n"], form: int | Int[Array, ""], precision=HIGHEST
) -> Float[Array, "k n"]:
    """See `Family.squares`."""
    d = means.shape[1]

    def by_products(means, root, x):
        k = means.shape[0]
        whiten = jnp.swapaxes(root, 1, 2)
        centers = jnp.einsum("kij,kj->ki", whiten, means, precision=HIGHEST)
        total = jnp.zeros((), x.dtype)
        for start, stop in _bands(d):
            white = product(whiten[:, start:stop, :stop].reshape(-1, stop), x[:stop], precision)
            offset = white.reshape(k, stop - start, -1) - centers[:, start:stop, None]
            total = total + jnp.sum(jnp.square(offset), axis=1)
        return total

    def by_differences(means, root, x):
        white = jnp.einsum("kij,kin->kjn", root, x[None] - means[:, :, None], precision=precision)
        return jnp.sum(jnp.square(white), axis=1)

    return in_form(form, FORMS, (by_products, by_differences), means, factor.root, x)


def moments(
    r: Float[Array, "k n"],
    means: Float[Array, "k d"],
    x: Float[Array, "d n"],
    form: int | Int[Array, ""],
    precision=HIGHEST,
) -> Moments:
    """See `Family.moments`: Σ r·(x − m)·[1, x]ᵀ by products, and the rest of it by what is known of m."""
    d = means.shape[1]

    def by_products(r, means, x):
        k = means.shape[0]
        firsts, rows_of_second = [], []
        for start, stop in _bands(d):
            pulled = r[:, None, :] * (x[None, start:stop] - means[:, start:stop, None])
            sums = product_over_rows(pulled.reshape(k * (stop - start), -1), with_ones(x[:stop]), precision)
            sums = sums.reshape(k, stop - start, stop + 1)
            second = sums[:, :, 1:] - sums[:, :, :1] * means[:, None, :stop]
            firsts.append(sums[:, :, 0])
            rows_of_second.append(jnp.pad(second, ((0, 0), (0, 0), (0, d - stop))))
        second = jnp.concatenate(rows_of_second, axis=1)
        known = np.concatenate([np.broadcast_to(np.arange(d) < stop, (stop - start, d)) for start, stop in _bands(d)])
        second = jnp.where(known[None], second, jnp.swapaxes(second, 1, 2))
        return jnp.concatenate(firsts, axis=1), second

    def by_differences(r, means, x):
        offset = x[None] - means[:, :, None]
        pulled = r[:, None, :] * offset
        return jnp.sum(pulled, axis=2), jnp.einsum("kin,kjn->kij", pulled, offset, precision=precision)

    return Moments(jnp.sum(r, axis=1), *in_form(form, FORMS, (by_products, by_differences), r, means, x))


def _bands(d: int) -> list[tuple[int, int]]:
    """Rows of a triangular matrix in bands, so that products leave out most of its zeros, where they are large."""
    return [(0, d)] if d < WIDE else [(0, d // 2), (d // 2, d)]


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
    isotropic=lambda variance, k, d: jnp.broadcast_to(isotropic(variance, d), (k, d, d)),
    spread=lambda covariances: jnp.trace(covariances, axis1=1, axis2=2) / covariances.shape[-1],
    invert=lambda factor: jnp.einsum("kij,klj->kil", factor.root, factor.root, precision=HIGHEST),
    row_cost=lambda k, d: k * d,
)

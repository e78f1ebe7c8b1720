"""The soft silhouette, differentiable in the samples (or distances) and in the soft assignments.

>>> import numpy as np
>>> round(float(soft_silhouette(np.array([[0.0], [1.0], [9.0], [10.0]]), np.eye(2)[[0, 0, 1, 1]])), 4)
0.8885
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxcluster.core import validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import float_dtype
from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.core.preparation import prepare
from jaxcluster.core.programs import limit_programs
from jaxcluster.ops.distance import HIGHEST, TRANSLATION_INVARIANT, distances_between, metric_function, plain_metric
from jaxcluster.types import Array, Float

PRECOMPUTED = "precomputed"

TILE_ELEMENTS = 1 << 19
"""Distances in memory at a time (2 MiB), of a tile of samples to all. A gradient takes some 16 times as much memory."""


def soft_silhouette(
    x: ArrayLike, q: ArrayLike, *, metric: str | Callable = "euclidean", p: float = 2.0
) -> Float[Array, ""]:
    """The mean of `soft_silhouette_samples`, in [−1, 1]: its negative is a loss for compact, separate clusters.

    Args:
        x, q, metric, p: as for `soft_silhouette_samples`. Rows of ``q`` that are all zero are padding and not counted.

    Raises:
        ValueError, TypeError: as `soft_silhouette_samples`.
    """
    values = soft_silhouette_samples(x, q, metric=metric, p=p)
    mask = jnp.any(jnp.asarray(q) > 0, axis=-1)
    return jnp.sum(values) / jnp.maximum(jnp.sum(mask.astype(values.dtype)), 1)


def soft_silhouette_samples(
    x: ArrayLike, q: ArrayLike, *, metric: str | Callable = "euclidean", p: float = 2.0
) -> Float[Array, " n"]:
    """The soft silhouette of each sample, in [−1, 1].

    Sample i has the mean distance m_ij = Σ_l q_lj d(x_i, x_l) / Σ_l q_lj, l ≠ i, to cluster j, and scores
    Σ_j q_ij (b − a) / max(a, b) with a = m_ij and b the least m_ij' of another cluster. With one-hot assignments this
    is the usual silhouette. It works under ``jit``, ``vmap`` and ``grad``; reverse mode recomputes each tile of
    distances, so that memory stays O(n·(d + k)) there too.

    If the metric depends on differences alone, an origin is subtracted from concrete samples in float64.

    Args:
        x: (n_samples, n_features), or (n_samples, n_samples) distances with a zero diagonal if ``metric`` is
            "precomputed".
        q: (n_samples, n_clusters) soft assignments >= 0 to at least 2 clusters; rows sum to 1, or to 0 for padding.
        metric: a name in ``ops.distance.METRICS``, "precomputed", or a JAX function (n, d), (m, d) -> (n, m).
        p: Minkowski's power.

    Returns:
        (n_samples,) scores. A cluster without any other sample counts as in the usual silhouette: 0 for its sample, and
        never the nearest of others.

    Raises:
        ValueError: shapes that do not fit, fewer than 2 clusters, an unknown metric; concrete values that are not
            finite, or negative memberships.
        TypeError: values that are not numeric.

    Source: Vardakas, Papakostas and Likas, Deep clustering using the soft silhouette score, 2024, arXiv:2402.00608.
    """
    metric = plain_metric(metric, p, also=(PRECOMPUTED,))
    x, q = _check(x, q, metric)
    power = float(p) if metric == "minkowski" else 2.0
    return _samples(x, q, metric=metric, p=power, tile=tile_rows(x.shape[0], x.shape[0], TILE_ELEMENTS))


@persistent_jit(static_argnames=("metric", "p", "tile"))
def _samples(x, q, *, metric, p, tile):
    mass = jnp.sum(q, axis=0)
    distance = None if metric == PRECOMPUTED else metric_function(metric, p=p)
    index = jnp.arange(x.shape[0], dtype=jnp.int32)

    # Reverse mode would keep the distances of all tiles, n² in all: it computes one tile at a time again.
    @jax.checkpoint
    def score_tile(rows):
        x_rows, q_rows, index_rows = rows
        same = index_rows[:, None] == index[None, :]
        distances = jnp.where(same, 0, x_rows) if distance is None else distances_between(distance, x_rows, x, same)
        return _scores(jnp.matmul(distances, q, precision=HIGHEST), q_rows, mass)

    return map_rows(score_tile, (x, q, index), tile=tile)


def _scores(totals: Float[Array, "t k"], q: Float[Array, "t k"], mass: Float[Array, " k"]) -> Float[Array, " t"]:
    """The scores of samples from their summed distances to each cluster."""
    # The mass of a cluster without the sample itself. A few eps of the mass are the rounding of an empty cluster.
    others = mass[None, :] - q
    present = others > 4 * jnp.finfo(q.dtype).eps * mass[None, :]
    mean = jnp.where(present, totals / jnp.where(present, others, 1), jnp.inf)
    nearest = jnp.argmin(mean, axis=1).astype(jnp.int32)[:, None] == jnp.arange(mean.shape[1], dtype=jnp.int32)[None, :]
    least = jnp.min(mean, axis=1, keepdims=True)
    second = jnp.min(jnp.where(nearest, jnp.inf, mean), axis=1, keepdims=True)
    other = jnp.where(nearest, second, least)
    larger = jnp.maximum(mean, other)
    # Undefined quotients are replaced before the division: behind it, their gradient would be NaN.
    defined = present & jnp.isfinite(other) & (larger > 0)
    mean, other, larger = (jnp.where(defined, value, fill) for value, fill in ((mean, 0), (other, 0), (larger, 1)))
    return jnp.sum(q * (other - mean) / larger, axis=1)


def _check(x, q, metric):
    x, q = validation.check_matrix(x), validation.check_matrix(q, name="q")
    n, k = q.shape
    if x.shape[0] != n:
        raise ValueError(f"x has {x.shape[0]} rows but q has {n}: pass one row of assignments per sample.")
    if k < 2:
        raise ValueError(f"q has {k} column: a silhouette compares at least 2 clusters.")
    if metric == PRECOMPUTED and x.shape != (n, n):
        raise ValueError(f"precomputed distances must have shape ({n}, {n}), got {x.shape}.")
    for name, values in (("x", x), ("q", q)):
        if not validation.is_traced(values):
            validation.check_finite(values, name=name)
    if not validation.is_traced(q) and (np.asarray(q) < 0).any():
        raise ValueError(f"q must not be negative: {int((np.asarray(q) < 0).sum())} of its entries are.")
    floating = [each.dtype for each in (x, q) if each.dtype.kind == "f"]
    dtype = float_dtype(np.result_type(np.float32, *floating))
    if metric in TRANSLATION_INVARIANT and not validation.is_traced(x):
        x = prepare(x).points.x[:n]  # a silhouette has no unit
    limit_programs()
    return jnp.asarray(x).astype(dtype), jnp.asarray(q).astype(dtype)

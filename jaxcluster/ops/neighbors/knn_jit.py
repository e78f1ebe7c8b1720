"""The nearest rows of each row under jit, in tiles: n×n is never built."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxcluster.core import validation
from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.ops.distance import distances_between, metric_function
from jaxcluster.types import Array, Float, Int

BUDGET = 1 << 23
"""Distances of one tile."""


def k_nearest(
    x: Float[Array, "n d"],
    k: int,
    *,
    metric: str | Callable = "euclidean",
    p: float = 2.0,
    include_self: bool = True,
    tile: int | None = None,
) -> tuple[Int[Array, "n k"], Float[Array, "n k"]]:
    """k nearest of n rows for each row, nearer ones first; ties by row number.

    A row is at distance 0 from itself, whatever the rounding. Rows whose distances differ by less than the rounding of
    ``x.dtype`` may be exchanged.

    Args:
        x: (n_samples, n_features) rows, traced or not.
        k: number of neighbors, static; at most n, or n − 1 without the row itself.
        metric: a name in `jaxcluster.ops.distance.METRICS`, or a traceable function of (m, d) and (n, d) that returns
            (m, n).
        p: the power of "minkowski", at least 1.
        include_self: False excludes each row from its own neighbors.
        tile: rows of one tile; None for as many as fit a fixed budget. The result is the same.

    Returns:
        (n, k) int32 row numbers and (n, k) distances in the units of the metric.

    Raises:
        ValueError: an unknown metric, or k that is not between 1 and the number of possible neighbors.
    """
    n = x.shape[0]
    k = validation.check_count("k", k)
    most = n if include_self else n - 1
    if k > most:
        raise ValueError(f"k={k} nearest rows were asked for, but a row has {most}. Ask for fewer, or pass more rows.")
    distances_of = metric_function(metric, p=p)

    def nearest_of(rows):
        part, numbers = rows
        own = numbers[:, None] == jnp.arange(n, dtype=jnp.int32)[None, :]
        distances = distances_between(distances_of, part, x, own)
        if not include_self:
            distances = jnp.where(own, jnp.inf, distances)
        negative, index = jax.lax.top_k(-distances, k)
        return index.astype(jnp.int32), -negative

    numbers = jnp.arange(n, dtype=jnp.int32)
    return map_rows(nearest_of, (x, numbers), tile=tile or tile_rows(n, n, BUDGET))

"""What it costs to move a row onto a column, in tiles: from points, or as a matrix that is at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import check
from jaxcluster.core.fold import tile_rows
from jaxcluster.core.rows import float_dtype
from jaxcluster.ops import distance
from jaxcluster.types import Array, Float

TILE = 1 << 19
"""Elements of a tile: its costs and its shares of the plan pass through a core's cache together."""

KEPT = 1 << 24
"""Elements up to which all costs fit into what the rest of the package takes for one tile, and are computed once."""

CENTERED = ("sqeuclidean", "euclidean")
"""Costs that are computed from products, which cancel far from the origin."""

TileCost = Callable[[Any, Any], Float[Array, "t m"]]
"""(tile of rows, columns) -> their costs."""


def tile_cost(cost: str | Callable) -> TileCost:
    """The function of tiles of a cost by name or callable; the same object each time, so that nothing compiles twice.

    Raises:
        ValueError: an unknown name, with the known ones listed.
    """
    return distance.metric_function(cost) if cost != "sqeuclidean" else sqeuclidean_tile


def sqeuclidean_tile(x: Float[Array, "t d"], y: Float[Array, "m d"]) -> Float[Array, "t m"]:
    """Squared distances of rows that are centred already, by one matrix product where there are many columns."""
    if x.shape[1] <= distance.FEW_COLUMNS:
        return distance.sqeuclidean(x, y)
    return distance.expanded_sqeuclidean(x, y, distance.squared_norms(x))


def matrix_tile(rows: Float[Array, "t m"], columns: tuple) -> Float[Array, "t m"]:
    """Rows of a cost matrix are their own costs."""
    return rows


def tile_for(n: int, m: int) -> int:
    """Rows a tile against m columns."""
    return tile_rows(n, m, TILE)


def as_cost_matrix(costs: Any) -> Float[Array, "n m"]:
    """A checked (n, m) matrix of finite costs, of either sign.

    Raises:
        ValueError, TypeError: not 2-D, not real numbers, NaN or infinite entries and where.
    """
    costs = check.check_matrix(costs, name="costs")
    if not check.is_traced(costs):
        check.check_finite(np.asarray(costs), name="costs")
        costs = np.asarray(costs, float_dtype(costs.dtype)) if isinstance(costs, np.ndarray) else costs
    return jnp.asarray(costs, float_dtype(costs.dtype))


def check_callable(cost: TileCost, x: Any, y: Any) -> None:
    """Raises unless ``cost`` maps (2, d) and (3, d) rows to (2, 3) real numbers; nothing is computed."""

    def rows(like, count):
        return jax.ShapeDtypeStruct((count, like.shape[1]), like.dtype)

    seen = jax.eval_shape(cost, rows(x, 2), rows(y, 3))
    shape, dtype = getattr(seen, "shape", None), getattr(seen, "dtype", None)
    if shape != (2, 3) or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"cost must map (t, d) and (m, d) rows to (t, m) real costs; of (2, d) and (3, d) it made "
            f"shape {shape} of {dtype}."
        )

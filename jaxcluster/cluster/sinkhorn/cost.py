"""The cost of moving a row onto a column, in tiles: of points, or from a matrix that is at hand.

A cost of +inf forbids its pair: no mass moves there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.ops import differences, distance
from jaxcluster.types import Array, Bool, Float

TILE = 1 << 19
"""Elements of a tile: its costs and its part of the plan pass through a core's cache together."""

KEPT = 1 << 24
"""Elements up to which all costs fit into what the rest of the package takes for one tile, and are computed once."""

DEGREES = {"sqeuclidean": 2, "euclidean": 1, "manhattan": 1, "chebyshev": 1, "minkowski": 1} | dict.fromkeys(
    ("cosine", "correlation", "canberra", "braycurtis", "hamming", "jaccard"), 0
)
"""The power of a factor of all points that a cost by name grows with. Other costs take the points as they are."""

TileCost = Callable[[Any, Any], Float[Array, "t m"]]
"""(tile of rows, columns) -> their costs."""


class Rounding(NamedTuple):
    """Error of a cost C by which the points and their distances are rounded, about ``fixed`` + ``rooted``·√C.

    Both are means over the points by weight (units of the cost).
    """

    fixed: Float[Array, ""]
    rooted: Float[Array, ""]


def tile_cost(cost: str | Callable) -> TileCost:
    """The function of tiles of a cost by name or callable; the same object each time, so that nothing compiles twice.

    Raises:
        ValueError: an unknown name, with the known ones listed.
    """
    return sqeuclidean_tile if cost == "sqeuclidean" else distance.metric_function(cost)


def exact_tile(cost: TileCost) -> TileCost:
    """The same cost from differences of points where ``cost`` expands their squares."""
    return {sqeuclidean_tile: differences.squared_distances, distance.euclidean: differences.distances}.get(cost, cost)


def sqeuclidean_tile(x: Float[Array, "t d"], y: Float[Array, "m d"]) -> Float[Array, "t m"]:
    """Squared distances of rows that are centered already, by one matrix product where there are many columns."""
    if x.shape[1] <= distance.FEW_COLUMNS:
        return distance.sqeuclidean(x, y)
    return distance.expanded_sqeuclidean(x, y, distance.squared_norms(x))


def matrix_tile(rows: Float[Array, "t m"], columns: tuple) -> Float[Array, "t m"]:
    """Rows of a cost matrix are their own costs."""
    return rows


def all_costs(cost: TileCost, rows: Any, columns: Any) -> Float[Array, "n m"]:
    """The matrix of costs, in tiles and from differences: made once, it need not be made by products."""
    n, m = (jax.tree.leaves(side)[0].shape[0] for side in (rows, columns))
    function = exact_tile(cost)
    return map_rows(jax.checkpoint(lambda rows: function(rows, columns)), rows, tile=tile_for(n, m))


def tile_for(n: int, m: int) -> int:
    """Rows a tile against m columns."""
    return tile_rows(n, m, TILE)


def split(costs: Float[Array, "t m"]) -> tuple[Float[Array, "t m"], Bool[Array, "t m"]]:
    """Costs with 0 where they are infinite, and which are: no derivative may see an infinite number."""
    forbidden = jnp.isposinf(costs)
    return jnp.where(forbidden, 0, costs), forbidden


def logits_of(costs: Float[Array, "t m"], potential: Array, epsilon: Array) -> Float[Array, "t m"]:
    """(potential − C)/ε, -inf of forbidden pairs."""
    finite, forbidden = split(costs)
    return jnp.where(forbidden, -jnp.inf, (potential - finite) / epsilon)


def rounding_of(cost: TileCost, rows: Any, columns: Any, a: Array, b: Array, typical: Array) -> Rounding:
    """How far costs are rounded, from the lengths of the points: each coordinate by half a unit in its last place.

    Args:
        typical: a cost that is neither small nor large among them, for costs of which nothing else is known.
    """
    zero, eps = jnp.zeros_like(a[0]), jnp.finfo(a.dtype).eps
    if cost is matrix_tile:
        return Rounding(zero, zero)

    def mean(weight, values):
        return weight @ values / jnp.sum(weight)

    if cost in (sqeuclidean_tile, differences.squared_distances):
        squares = mean(a, distance.squared_norms(rows)), mean(b, distance.squared_norms(columns))
        # d‖x − y‖² = 2(x − y)·(dx − dy); an expanded square is a sum of numbers as large as ‖x‖² and ‖y‖².
        expanded = cost is sqeuclidean_tile and rows.shape[1] > distance.FEW_COLUMNS
        fixed = eps * (squares[0] + squares[1]) if expanded else zero
        return Rounding(fixed, eps * (jnp.sqrt(squares[0]) + jnp.sqrt(squares[1])))
    if cost in (distance.manhattan, distance.chebyshev, distance.euclidean, differences.distances):
        fixed = eps * (mean(a, jnp.sum(jnp.abs(rows), axis=1)) + mean(b, jnp.sum(jnp.abs(columns), axis=1)))
        if cost is distance.euclidean and rows.shape[1] > distance.FEW_COLUMNS:
            squares = mean(a, distance.squared_norms(rows)), mean(b, distance.squared_norms(columns))
            fixed = fixed + eps * (squares[0] + squares[1]) / (2 * jnp.where(typical > 0, typical, 1))
        return Rounding(fixed, zero)
    # The other metrics are angles, shares or quotients, about 1 at most; of a caller's cost nothing is known.
    return Rounding(eps * (typical if cost not in distance.METRICS.values() else jnp.ones_like(typical)), zero)


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

"""Distances from differences of rows, values and gradients, and norms whose squares neither over- nor underflow.

‖x‖² − 2x·y + ‖y‖² loses the digits of ‖x − y‖² that ‖x‖² has before it, and its derivatives lose as many: with respect
to a scale of the columns, which is a sum of (x − y)², all of them once ‖x‖ is 3,000 times ‖x − y‖ in float32 (1/√eps).
From differences every relative error is a few units in the last place.

>>> import jax.numpy as jnp
>>> squared_distances(jnp.array([[1e4, 1.0]]), jnp.array([[1e4, 3.0]])).tolist()
[[4.0]]
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.types import Array, Float

TILE = 1 << 18
"""Pairs in a tile: their sums over columns stay in a core's cache."""


def squared_distances(
    x: Float[Array, "n d"], y: Float[Array, "m d"], scale: Float[Array, "m d"] | None = None
) -> Float[Array, "n m"]:
    """Σ_j (scale_cj·(x_ij − y_cj))² of all pairs: the squared Euclidean distance without a scale (data units²).

    Differentiable to any order; of the n×m×d differences one column of a tile exists at a time.
    """

    def add(total, a, b, scale):
        # Scaled before they are squared: where a scale follows the square, XLA on the CPU (jaxlib 0.10.2) gave wrong
        # sums from row 32,768/m on, for some shapes, once something elementwise came after.
        return total + jnp.square(a - b if scale is None else (a - b) * scale)

    return _by_tiles(lambda rows: _over_columns(add, rows, y, scale), x, y)


def squared_excess(
    x: Float[Array, "n d"], reference: Float[Array, "n d"], y: Float[Array, "m d"]
) -> Float[Array, "n m"]:
    """‖x_i − y_j‖² − ‖x_i − reference_i‖² of all pairs, as Σ (reference − y)·((x − y) + (x − reference)).

    For a row far from all of y the two squares agree in their leading digits, and their difference, all that a softmax
    or a triplet loss sees, would be rounding. Differentiable to any order.
    """

    def tile(rows):
        x, reference = rows

        def add(total, a, b, _):
            a, r = a
            # a² − r² = (a − r)·(a + r) of differences: squares of rows far from both would cancel, and leave rounding.
            return total + (r - b) * ((a - b) + (a - r))

        return _over_columns(add, (x, reference), y)

    return map_rows(jax.checkpoint(tile), (x, reference), tile=tile_rows(x.shape[0], y.shape[0], TILE))


def distances(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Euclidean distances of all pairs (data units), each the `length` of a difference."""
    return _by_tiles(lambda rows: _distances_of_tile(rows, y), x, y)


@jax.custom_jvp
def _distances_of_tile(x, y):
    unit, relative = _unit_and_relative_distances(x, y)
    return relative * unit


@_distances_of_tile.defjvp
def _tangent_of_distances(primals, tangents):
    # As in `_tangent_of_length`.
    (x, y), (of_x, of_y) = primals, tangents
    unit, relative = _unit_and_relative_distances(x, y)
    divisor = jnp.where(relative > 0, relative, 1)

    def add(total, a, b, _):
        (a, of_a), (b, of_b) = a, b
        return total + (a - b) / unit / divisor * (of_a - of_b)

    return relative * unit, _over_columns(add, (x, of_x), (y, of_y))


def _unit_and_relative_distances(x, y):
    largest = _over_columns(lambda largest, a, b, _: jnp.maximum(largest, jnp.abs(a - b)), x, y)
    unit = _unit(largest)
    return unit, root(_over_columns(lambda total, a, b, _: total + jnp.square((a - b) / unit), x, y))


@jax.custom_jvp
def length(x: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    """Euclidean norm along the last axis (data units), even where its square is beyond the range of the dtype.

    The gradient is x/‖x‖, and 0 for zeros.
    """
    unit, relative = _unit_and_relative_length(x)
    return relative * unit


@length.defjvp
def _tangent_of_length(primals, tangents):
    # By the chain rule a gradient of a loss would be multiplied by the unit before it is divided by it, which is beyond
    # the dtype where the gradient is as large as the length: that of a squared length.
    (x,), (of_x,) = primals, tangents
    unit, relative = _unit_and_relative_length(x)
    direction = x / (unit * jnp.where(relative > 0, relative, 1))[..., None]
    return relative * unit, jnp.sum(direction * of_x, axis=-1)


def _unit_and_relative_length(x):
    unit = _unit(jnp.max(jnp.abs(x), axis=-1))
    return unit, root(jnp.sum(jnp.square(x / unit[..., None]), axis=-1))


def _unit(largest):
    """Unit of numbers up to ``largest``; a constant for derivatives, as no length depends on it."""
    largest = jax.lax.stop_gradient(largest)
    return jnp.where(largest > 0, largest, 1)


def root(squares: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Square root, with a gradient of 0 at 0."""
    # The inner select keeps 0 out of the root, whose infinite slope times 0 would be NaN.
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)


def _by_tiles(tile: Callable, x, y):
    return map_rows(jax.checkpoint(tile), x, tile=tile_rows(x.shape[0], y.shape[0], TILE))


def _over_columns(step: Callable, x, y, scale=None):
    """Total, from 0, after ``step(total, (n, 1) columns of x, (1, m) column of y, of the scale)`` for each column."""
    # A gradient computes each step again and keeps nothing of it. One column a step: with groups of 16, as in
    # `jaxcluster.ops.distance.over_columns`, a gradient takes twice as long on a CPU (1,024² pairs of 128 columns:
    # 73 ms and 140 ms).

    @jax.checkpoint
    def of_column(total, a, b, scale):
        a = jax.tree.map(lambda column: column[:, None], a)
        b, scale = jax.tree.map(lambda column: column[None, :], (b, scale))
        return step(total, a, b, scale)

    # Zeros made of both: inside shard_map the carry must vary over devices from the start as it does later.
    zero = jnp.zeros_like(jax.tree.leaves(x)[0][:, :1]) + jnp.zeros_like(jax.tree.leaves(y)[0][:, 0])[None, :]
    columns = jax.tree.map(jnp.transpose, (x, y, scale))
    return jax.lax.scan(lambda total, column: (of_column(total, *column), None), zero, columns)[0]

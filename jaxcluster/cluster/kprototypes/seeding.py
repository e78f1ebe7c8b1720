"""Initial prototypes of k-prototypes and k-modes, each a row: by Huang, by Cao, or at random.

Every draw is by sample weight, so that padding (weight 0) is never drawn and does not change a draw.

Sources: Z. Huang, Extensions to the k-means algorithm for clustering large data sets with categorical values, Data
Mining and Knowledge Discovery 2 (1998), sec. 3.3; F. Cao, J. Liang and L. Bai, A new initialization method for
categorical data clustering, Expert Systems with Applications 36 (2009). Both are stated for categories; numbers enter
through the cost of the whole row.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcluster.cluster.kprototypes.iteration import MixedPoints, Problem, Prototypes, squared_distances
from jaxcluster.cluster.seeding import draw_by_mass, draw_distinct
from jaxcluster.core.fold import all_reduce
from jaxcluster.core.shard import gather_tables, shard_index, take_row
from jaxcluster.ops.matching import category_weights, mismatches
from jaxcluster.types import Array, Float, KeyArray

INITS = ("cao", "huang", "random")


def seed_prototypes(key: KeyArray, problem: Problem, k: int, *, init: str, axis_name: str | None) -> Prototypes:
    """k initial prototypes by the method ``init``, one of `INITS`."""
    points = problem.points
    if init == "random":
        rows = Prototypes(points.x, points.codes)
        return draw_distinct(key, points.weight, rows, k, axis_name)
    return (cao if init == "cao" else huang)(key, problem, k, axis_name)


def cao(key: KeyArray, problem: Problem, k: int, axis_name: str | None) -> Prototypes:
    """Rows that are both frequent and far from each other; without chance.

    The first is the row of largest density, the mean frequency of its categories. Each next one has the largest product
    of its density and of its cost with the nearest row so far. The lowest row of equals.
    """
    points = problem.points
    density = _density(problem, axis_name)
    first = _take_largest(jnp.where(points.weight > 0, density, -1), points, axis_name)
    chosen = jax.tree.map(lambda row: jnp.zeros((k, row.shape[1]), row.dtype).at[0].set(row[0]), first)

    def add(j, carry):
        chosen, row, closest = carry
        closest = jnp.minimum(closest, costs(problem, row)[:, 0])
        row = _take_largest(jnp.where(points.weight > 0, closest * density, -1), points, axis_name)
        return jax.tree.map(lambda all_rows, one: all_rows.at[j].set(one[0]), chosen, row), row, closest

    # Its first value has the device-varying type that it has inside shard_map.
    infinite = jnp.full_like(density, jnp.inf)
    return jax.lax.fori_loop(1, _count(problem, k), add, (chosen, first, infinite + 0 * density))[0]


def huang(key: KeyArray, problem: Problem, k: int, axis_name: str | None) -> Prototypes:
    """Prototypes of drawn entries, each replaced by the row nearest to it that equals none of those before.

    The entry of a column is that of a row drawn by weight: a category in proportion to its frequency.
    """
    points = problem.points
    d = points.x.shape[1]
    width = d + points.codes.shape[1]
    index, mine = (each.reshape(k, width) for each in draw_by_mass(key, points.weight, k * width, axis_name))
    drawn = Prototypes(
        _take_entries(points.x, index[:, :d], mine[:, :d], axis_name),
        _take_entries(points.codes, index[:, d:], mine[:, d:], axis_name),
    )

    def add(j, carry):
        chosen, taken = carry
        wanted = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, j, 1), drawn)
        cost = costs(problem, wanted)[:, 0]
        # A row that was taken already only where all rows of positive weight were, one of weight 0 never.
        score = jnp.where(taken, jnp.finfo(cost.dtype).min / 2, -cost)
        row = _take_largest(jnp.where(points.weight > 0, score, -jnp.inf), points, axis_name)
        same = jnp.all(points.x == row.means, axis=1) & jnp.all(points.codes == row.modes, axis=1)
        return jax.tree.map(lambda all_rows, one: all_rows.at[j].set(one[0]), chosen, row), taken | same

    chosen = jax.tree.map(jnp.zeros_like, drawn)
    return jax.lax.fori_loop(0, _count(problem, k), add, (chosen, points.weight < 0))[0]


def _count(problem, k):
    """Number of the clusters that are no padding."""
    return k if problem.active is None else jnp.sum(problem.active, dtype=jnp.int32)


def costs(problem: Problem, prototypes: Prototypes) -> Float[Array, "n k"]:
    """Cost of each row with each prototype."""
    points = problem.points
    squares = squared_distances(points.x, prototypes.means)
    differing = mismatches(points.codes, prototypes.modes).astype(squares.dtype)
    return squares + problem.factors.gamma * differing


def _density(problem, axis_name):
    """Mean over the columns of the relative frequency of each row's categories; 1 without categories."""
    points, slots = problem.points, problem.slots
    n, q = points.codes.shape
    if q == 0:
        return jnp.ones_like(points.weight)
    weights = category_weights(slots, points.codes, points.weight, jnp.zeros((n,), jnp.int32), 1)
    weights, total = all_reduce((weights[0], jnp.sum(points.weight)), axis_name)
    return jnp.sum(weights[slots.first[None, :] + points.codes], axis=1) / (total * q)


def _take_largest(score, points: MixedPoints, axis_name) -> Prototypes:
    """The row of largest score, the first of equals, on every device, with a leading axis."""
    local = jnp.argmax(score)[None].astype(jnp.int32)
    owner = jnp.argmax(gather_tables(score[local], axis_name)).astype(jnp.int32)
    mine = (owner == shard_index(axis_name))[None]
    return Prototypes(*(take_row(rows, local, mine, axis_name) for rows in (points.x, points.codes)))


def _take_entries(rows, index, mine, axis_name):
    """Entries rows[index[j, c], c], on every device."""
    taken = jnp.take_along_axis(rows, index, axis=0)
    return taken if axis_name is None else all_reduce(jnp.where(mine, taken, 0), axis_name)

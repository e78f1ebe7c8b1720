"""Exact neighbor search with the rows spread over devices: blocks of rows go around a ring of all devices.

Each device keeps its own rows, compares them with the block that it holds, and passes the block on, so that after as
many steps as there are devices every pair was compared and no device ever held all rows. Squares are float32 products
with a bound on their rounding; the host computes what that leaves open in float64, so that the result is exact.

>>> import numpy as np
>>> from jaxcluster.core.shard import row_mesh
>>> from jaxcluster.ops.metric_space import as_metric_space
>>> index, distances = nearest_rows_over(as_metric_space(np.array([[0.0], [1.0], [5.0]])), 2, row_mesh())
>>> index.tolist(), distances.tolist()
([[0, 1], [1, 0], [2, 1]], [[0.0, 1.0], [0.0, 1.0], [0.0, 4.0]])
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.core.processes import spread
from jaxcluster.core.shard import check_mesh, row_sharding, rows_of, solve_over_rows
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.metric_space import DistanceOracle, MetricSpace, minkowski_sums, tiles
from jaxcluster.ops.neighbors.block_kernels import NO_INDEX
from jaxcluster.ops.neighbors.exact_knn import FLOAT32_LIMIT, FLOAT32_TINY, nearest_rows, sample_scale, sorted_nearest
from jaxcluster.ops.neighbors.kd_blocks import UNIT_ROUNDOFF

SLACK = 16
"""Least number of candidates beyond k: where more are within the rounding of the k-th, the host searches the row."""

BUDGET = 1 << 22
"""Squares of one tile."""

ROUNDING_FACTOR = 8
"""Factor of the bound (d + 8)·u·(‖a‖ + ‖b‖)² on the rounding of a square, as in `exact_knn`."""


class RowsOnRing(NamedTuple):
    """Rows of all devices in float32, relative to their median and in a unit in which most are near 1.

    Attributes:
        x: (n, d) rows, padded with zeros.
        square: (n,) squared lengths; infinite for padding and for rows beyond the range of float32.
        number: (n,) row numbers.
    """

    x: jax.Array
    square: jax.Array
    number: jax.Array


class Ring(NamedTuple):
    """Rows of a metric space on a ring of devices.

    Attributes:
        rows: `RowsOnRing` over the mesh.
        square: (n,) squared lengths on the host, without padding.
        unit: factor of lengths.
        mesh: of one axis.
    """

    rows: RowsOnRing
    square: np.ndarray
    unit: float
    mesh: Mesh


def on_ring(space: Any, mesh: Any) -> Ring:
    """Put the rows of a metric space on the devices of a mesh; where it spans processes, each has all rows.

    Raises:
        ValueError: a metric that is not a function of Euclidean distances.
    """
    if isinstance(space, DistanceOracle) or space.power != 2:
        raise ValueError(
            "mesh= is for Euclidean, cosine and correlation distances of dense rows: leave it out for this metric."
        )
    mesh = check_mesh(mesh)
    unit = sample_scale(space.x)
    centered = (space.x - np.median(space.x, axis=0)) * unit
    x = np.clip(centered, -FLOAT32_LIMIT, FLOAT32_LIMIT).astype(np.float32)
    square = np.einsum("ij,ij->i", x, x)
    # Infinite lengths mark clipped rows: no bound holds for them, so that the host searches them.
    square[np.abs(x).max(axis=1) >= FLOAT32_LIMIT / 2] = np.inf
    short = -space.n % mesh.size
    padded = (
        np.pad(x, ((0, short), (0, 0))),
        np.pad(square, (0, short), constant_values=np.inf),
        np.arange(space.n + short, dtype=np.int32),
    )
    return Ring(RowsOnRing(*spread(padded, row_sharding(mesh))), square, unit, mesh)


def nearest_rows_over(space: Any, k: int, mesh: Any) -> tuple[np.ndarray, np.ndarray]:
    """`nearest_rows` of all rows, by the devices of a mesh; without one by the host.

    Returns:
        (n, k) int32 row numbers and (n, k) float64 distances.
    """
    if mesh is None:
        return nearest_rows(space, k)
    ring = on_ring(space, mesh)
    n, d = space.x.shape
    count = min(n, k + max(SLACK, k))
    specs = rows_of(ring.mesh)
    static = count, ring.mesh.axis_names[0]
    out_specs = specs.row, specs.row
    found = solve_over_rows(_nearest, static, ring.mesh, (specs.row,), out_specs, ring.rows, gathered=True)
    squares, candidates = (np.asarray(part)[:n] for part in found)
    kth = np.maximum(squares[:, k - 1].astype(np.float64), 0)
    # A candidate is safe only if the farthest one kept is beyond the k-th by more than the rounding of both squares.
    rounding = ROUNDING_FACTOR * (d + 8) * UNIT_ROUNDOFF * np.square(2 * np.sqrt(ring.square) + np.sqrt(kth))
    limit = kth + 2 * rounding + (d + 8) * FLOAT32_TINY
    complete = limit < np.square(FLOAT32_LIMIT / 4)
    complete &= (squares[:, -1] > limit) | (count == n)
    index, sums = np.zeros((n, k), np.int32), np.zeros((n, k))
    done = np.flatnonzero(complete)
    for part in tiles(len(done), count * d):
        some = done[part]
        exact = minkowski_sums(space.x[some, None], space.x[candidates[some]], 2.0)
        index[some], sums[some] = sorted_nearest(candidates[some], exact, k)
    distances, rest = space.distances(sums), np.flatnonzero(~complete)
    if len(rest):
        index[rest], distances[rest] = nearest_rows(space, k, queries=space.x[rest])
    return index, distances


class RadiusCounts(NamedTuple):
    """Neighbors of each row within a radius: those that are so for certain, and those that are possible.

    Attributes:
        certain, possible: (n,) numbers of neighbors, the row included.
        least, possible_least: (n,) least label of them; `NO_INDEX` for none.
    """

    certain: np.ndarray
    possible: np.ndarray
    least: np.ndarray
    possible_least: np.ndarray


def radius_counts(space: MetricSpace, ring: Ring, eps: float, labels: np.ndarray) -> RadiusCounts:
    """Number and least label of the neighbors of each row.

    Args:
        space: n rows.
        ring: the rows on devices.
        eps: radius, in the units of the metric.
        labels: (n,) int32 labels of rows, `NO_INDEX` for rows whose label does not count.

    Raises:
        ValueError: rows beyond the range of float32.
    """
    n, d = space.x.shape
    if not np.isfinite(ring.square).all():
        raise ValueError("some rows are too far from the others for float32: leave out mesh=, or drop them.")
    limit = np.float32(min(float(space.threshold(eps)) * ring.unit**2, 1e37))
    # The limit is rounded to float32: the certain count takes the number below it, the possible one that above.
    limits = np.array([np.nextafter(limit, np.float32(-1)), np.nextafter(limit, np.float32(np.inf))])
    padded = np.full(ring.rows.number.shape, NO_INDEX, np.int32)
    padded[:n] = labels
    specs, mesh = rows_of(ring.mesh), ring.mesh
    static = ROUNDING_FACTOR * (d + 8) * UNIT_ROUNDOFF, n, mesh.axis_names[0]
    arguments = ring.rows, spread(padded, row_sharding(mesh)), limits
    in_specs = (specs.row, specs.row, specs.whole)
    found = solve_over_rows(_count, static, mesh, in_specs, (specs.row,) * 4, *arguments, gathered=True)
    return RadiusCounts(*(np.asarray(part)[:n] for part in found))


def _around(block: Any, carry: Any, compare: Any, axis_name: str) -> Any:
    """Carry after ``compare(block, carry)`` with the blocks of all devices, one after the other."""
    devices = jax.lax.axis_size(axis_name)
    # Each device passes its block on, and has met all of them after as many steps as there are devices.
    to_next = [(i, (i - 1) % devices) for i in range(devices)]

    def step(_, state):
        block, carry = state
        carry = compare(block, carry)
        return jax.tree.map(lambda leaf: jax.lax.ppermute(leaf, axis_name, to_next), block), carry

    return jax.lax.fori_loop(0, devices, step, (block, carry))[1]


def _squares(rows: RowsOnRing, block: RowsOnRing) -> jax.Array:
    products = jnp.matmul(rows.x, block.x.T, precision=HIGHEST)
    return rows.square[:, None] + block.square[None, :] - 2 * products


def _nearest(static, rows):
    """(m, count) least squares of the rows of a device, and the numbers of the rows that they are to."""
    count, axis_name = static
    m = rows.x.shape[0]
    tile = tile_rows(m, m + count, BUDGET)
    # Made of the rows, so that it varies over the devices from the start.
    none = 0 * rows.number[:, None] + jnp.zeros((1, count), jnp.int32)

    def compare(block, carry):
        def of_tile(part):
            some, squares, numbers = part
            new = _squares(some, block)
            squares = jnp.concatenate([squares, new], axis=1)
            numbers = jnp.concatenate([numbers, jnp.broadcast_to(block.number[None, :], new.shape)], axis=1)
            # NaN of two infinite lengths is as far as can be.
            least, at = jax.lax.top_k(-jnp.where(jnp.isnan(squares), jnp.inf, squares), count)
            return -least, jnp.take_along_axis(numbers, at, axis=1)

        return map_rows(of_tile, (rows, *carry), tile=tile)

    return _around(rows, (jnp.where(none == 0, jnp.inf, 0).astype(rows.x.dtype), none), compare, axis_name)


def _count(static, rows, labels, limits):
    """`RadiusCounts` of the rows of a device."""
    factor, n, axis_name = static
    m = rows.x.shape[0]
    zero = 0 * rows.number

    def compare(block, carry):
        others, labels = block

        def of_tile(part):
            some, (certain, possible, least, possible_least) = part
            squares = _squares(some, others)
            lengths = jnp.sqrt(some.square)[:, None] + jnp.sqrt(others.square)[None, :]
            rounding, real = factor * jnp.square(lengths), (others.number < n)[None, :]
            # A row within the rounding of the limit is possible and not certain: the host compares those in float64.
            sure = (squares + rounding <= limits[0]) & real
            maybe = (squares - rounding <= limits[1]) & real

            def least_of(mask, before):
                return jnp.minimum(before, jnp.min(jnp.where(mask, labels[None, :], NO_INDEX), axis=1))

            certain = certain + jnp.sum(sure, axis=1, dtype=jnp.int32)
            possible = possible + jnp.sum(maybe, axis=1, dtype=jnp.int32)
            return certain, possible, least_of(sure, least), least_of(maybe, possible_least)

        return map_rows(of_tile, (rows, carry), tile=tile_rows(m, m, BUDGET))

    return _around((rows, labels), (zero, zero, zero + NO_INDEX, zero + NO_INDEX), compare, axis_name)

"""Folds over the rows of a transport problem: in tiles, and over devices where its rows are spread over a mesh.

A plan has a row for each point x, so that a device that has some of these points computes their rows of the plan. What
the columns need of all rows is reduced over devices, (m,) numbers in each iteration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxcluster.cluster.sinkhorn.problem import TILE, CheckedProblem, Problem, TileCost, exact_tile
from jaxcluster.core import validation
from jaxcluster.core.fold import SUM, Monoid, fold_rows, tile_rows
from jaxcluster.core.processes import spread
from jaxcluster.core.shard import automatic, axis_of, check_mesh, row_sharding, rows_of
from jaxcluster.types import Array, Float


@jax.tree_util.register_static
@dataclass(frozen=True)
class RowDevices:
    """Devices that have the rows of a problem: a part of the program, not of its arrays."""

    mesh: Mesh


def fold_problem(
    problem: Problem, tile_function: Callable[[Any], tuple[Any, Any]], rows: Any, *, monoid: Monoid = SUM
) -> tuple[Any, Any]:
    """`jaxcluster.core.fold.fold_rows` over the rows of a problem, on the devices that have them.

    Args:
        problem: of the rows; what else the tile function needs of it is on every device.
        tile_function: tile of rows -> (summary, per_row).
        rows: arrays with n rows.
        monoid: operation that reduces summaries.

    Returns:
        The reduced summary, the same on every device, and the per-row results, where the rows are.
    """
    n, m = problem.a.shape[0], problem.b.shape[0]
    if problem.devices is None:
        return fold_rows(tile_function, rows, tile=tile_rows(n, m, TILE), monoid=monoid)
    mesh = problem.devices.mesh
    specs, tile = rows_of(mesh), tile_rows(n // mesh.size, m, TILE)
    fold = partial(fold_rows, tile_function, tile=tile, monoid=monoid, axis_name=axis_of(mesh))
    return jax.shard_map(fold, mesh=mesh, in_specs=specs.row, out_specs=(specs.whole, specs.row))(rows)


def spread_problem(checked: CheckedProblem, mesh: Any) -> CheckedProblem:
    """The problem with its rows spread over a mesh, padded with weight 0; None leaves it as it is.

    Over several processes each has the rows of all.

    Raises:
        TypeError: no mesh.
        ValueError: several axes, or traced arguments.
    """
    if check_mesh(mesh) is None:
        return checked
    problem, mesh = checked.problem, automatic(mesh)
    if validation.is_traced(checked):
        raise ValueError("mesh= takes concrete points and costs: call it outside of jit.")
    short = -problem.a.shape[0] % mesh.size

    def put(leaf):
        return spread(jnp.pad(leaf, [(0, short), *[(0, 0)] * (leaf.ndim - 1)]), row_sharding(mesh))

    rows, a, constant_a = jax.tree.map(put, (problem.rows, problem.a, problem.constant_a))
    spread_rows = problem._replace(rows=rows, a=a, constant_a=constant_a, devices=RowDevices(mesh))
    return checked._replace(problem=spread_rows)


def all_costs(cost: TileCost, problem: Problem) -> Float[Array, "n m"]:
    """Cost matrix, in tiles and by differences: computed once, it need not be as fast as products."""
    function = exact_tile(cost)
    tile = jax.checkpoint(lambda rows: ((), function(rows, problem.columns)))
    return fold_problem(problem, tile, problem.rows)[1]

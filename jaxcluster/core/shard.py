"""Sharding of samples over devices: fits under shard_map, with the results of a single device.

A fit with ``mesh=`` prepares its samples on the host, in the frame of all of them, and `solve_over_rows` runs the same
kernel on the part of each device. `fit_sharded` does so by the same argument, and shards any other function of samples
too, which then finds a frame inside the trace.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcluster.core import validation
from jaxcluster.core.fold import MAX, all_reduce
from jaxcluster.core.processes import localize, replicate, whole
from jaxcluster.core.sparse_rows import SparseRows, is_sparse
from jaxcluster.types import Array, Bool, Fit, Float, Int

ROWS = "rows"
"""Name of the mesh axis of the samples."""


def row_mesh(devices: list[Any] | None = None) -> Mesh:
    """Mesh with one axis, "rows", over the devices; None for all devices."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (ROWS,), axis_types=(AxisType.Auto,), devices=devices)


def check_mesh(mesh: Any, x: Any = None) -> Mesh | None:
    """Check of a mesh for samples, and that they are dense; None stands for no mesh.

    Raises:
        TypeError: no mesh; sparse rows.
        ValueError: more than one axis, or devices of other processes.
    """
    if mesh is None:
        return None
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a mesh of devices, such as jaxcluster.sharding.row_mesh(), got {mesh!r}.")
    if len(mesh.axis_names) != 1:
        raise ValueError(f"mesh has the axes {', '.join(map(repr, mesh.axis_names))}, and samples are spread over one.")
    if is_sparse(x):
        raise TypeError("Sparse rows are not spread over devices: leave out mesh=, or pass dense rows.")
    return mesh


def check_own_mesh(mesh: Any, x: Any = None) -> Mesh | None:
    """`check_mesh` for methods of one process, whose mesh has no devices of others."""
    if check_mesh(mesh, x) is not None and mesh.is_multi_process:
        raise ValueError(
            "the mesh has devices of other processes, and this method runs in one: pass row_mesh of its own."
        )
    return mesh


def own_mesh(mesh: Mesh | None) -> Mesh | None:
    """Mesh of the devices of this process in a mesh of several, for what each computes by itself; else that mesh."""
    if mesh is None or not mesh.is_multi_process:
        return mesh
    return row_mesh([device for device in mesh.devices.flat if device.process_index == jax.process_index()])


def axis_of(mesh: Mesh | None) -> str | None:
    """Name of the axis of a mesh; None without one."""
    return None if mesh is None else mesh.axis_names[0]


def automatic(mesh: Mesh) -> Mesh:
    """Mesh of the same devices whose axis XLA shards.

    `jax.make_mesh` makes an explicit axis unless told otherwise, and then arrays must lie as a program says.
    """
    types = (AxisType.Auto,) * len(mesh.axis_names)
    return mesh if mesh.axis_types == types else Mesh(mesh.devices, mesh.axis_names, axis_types=types)


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays with one row for each sample."""
    return NamedSharding(automatic(mesh), PartitionSpec(axis_of(mesh)))


class Rows(NamedTuple):
    """Specs of shard_map for arguments and results: one row for each sample, or the same on every device."""

    row: PartitionSpec
    whole: PartitionSpec

    @property
    def column(self) -> PartitionSpec:
        """Spec of a matrix with one column for each sample."""
        return PartitionSpec(None, *self.row)

    @property
    def fit(self) -> Fit:
        """Specs of a `Fit`, whose labels alone have rows."""
        return Fit._make([self.whole, self.row, self.whole, self.whole, self.whole])


def rows_of(mesh: Mesh) -> Rows:
    """Specs over the axis of a mesh."""
    return Rows(PartitionSpec(axis_of(mesh)), PartitionSpec())


def solve_over_rows(
    solve: Callable[..., Any],
    static: Any,
    mesh: Mesh,
    in_specs: Any,
    out_specs: Any,
    *arguments: Any,
    gathered: bool = False,
) -> Any:
    """Result of ``solve(static, *arguments)`` with the samples spread over the devices of a mesh, one program.

    Args:
        solve: kernel whose static options hold the name of the mesh's axis.
        static: its hashable options.
        mesh: of one axis.
        in_specs, out_specs: of the arguments and the result, made of `Rows`.
        arguments: of the kernel. Where the mesh spans processes, the result has the rows of this one.
        gathered: True where each process has the rows of all (`gather_parts`): the result has all of them, too.
    """
    solved = over_rows(solve, static, mesh, in_specs, out_specs, *arguments)
    return jax.tree.map(whole if gathered else localize, solved) if mesh.is_multi_process else solved


def over_rows(
    solve: Callable[..., Any], static: Any, mesh: Mesh, in_specs: Any, out_specs: Any, *arguments: Any
) -> Any:
    """Result of `solve_over_rows` as it lies on the devices: where the mesh spans processes, with the rows of all."""
    mesh = automatic(mesh)
    if mesh.is_multi_process:
        arguments = jax.tree.map(lambda leaf: replicate(leaf, mesh), arguments)
    return _spread(solve, static, mesh, in_specs, out_specs, *arguments)


def shapes_over_rows(
    solve: Callable[..., Any], static: Any, mesh: Mesh, in_specs: Any, out_specs: Any, *arguments: Any
) -> Any:
    """Shapes and dtypes of the result of `over_rows`."""
    return _spread.eval_shape(solve, static, automatic(mesh), in_specs, out_specs, *arguments)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _spread(solve, static, mesh, in_specs, out_specs, *arguments):
    return jax.shard_map(partial(solve, static), mesh=mesh, in_specs=in_specs, out_specs=out_specs)(*arguments)


def fit_sharded(
    fit: Callable[..., Fit], key: Any, x: Any, k: int, *, weights: Any = None, mesh: Mesh | None = None, **options: Any
) -> Fit:
    """Fit with the samples sharded over the devices of a mesh.

    A fit that takes ``mesh=`` is called with it: its samples enter their frame on the host, in float64. Any other one
    is called as ``fit(key, x, k, weights=, axis_name=, **options)`` on each device, with the samples in JAX's dtype:
    subtract a large offset first, as float32 has no digits for small differences beside it. The samples are padded with
    weight 0 to equal shards. Everything but the labels is the same on every device.

    Args:
        fit: functional fit, such as ``kmeans.fit``, or one of your own.
        key: random key.
        x: (n_samples, n_features) samples.
        k: number of clusters.
        weights: (n_samples,) weights, or None for 1 each.
        mesh: mesh with one axis; None for all devices.
        options: further arguments of ``fit``.

    Returns:
        `Fit` of all samples.
    """
    mesh = automatic(check_mesh(mesh, x) or row_mesh())
    if "mesh" in inspect.signature(fit).parameters:
        return fit(key, x, k, weights=weights, mesh=mesh, **options)
    (axis,) = mesh.axis_names
    x = validation.check_matrix(x)
    validation.check_finite(x)
    n = x.shape[0]
    validation.check_clusters(k, n)
    weights = np.ones(n, np.float32) if weights is None else validation.check_weights(weights, n)
    short = -n % mesh.size
    rows, whole = PartitionSpec(axis), PartitionSpec()
    x = jax.device_put(np.pad(np.asarray(x), ((0, short), (0, 0))), NamedSharding(mesh, rows))
    weights = jax.device_put(np.pad(weights, (0, short)), NamedSharding(mesh, rows))
    specs = Fit._make([whole, rows, whole, whole, whole])  # state, labels, steps, status, history
    local = partial(_local_fit, fit, k=k, axis_name=axis, options=options)
    spread = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(whole, rows, rows), out_specs=specs))
    fitted = spread(key, x, weights)
    return fitted._replace(labels=fitted.labels[:n])


def _local_fit(fit, key, x, weights, *, k, axis_name, options):
    return fit(key, x, k, weights=weights, axis_name=axis_name, **options)


def shard_index(axis_name: str | None) -> Int[Array, ""]:
    """Index of the shard of this device; 0 without an axis."""
    return jnp.int32(0) if axis_name is None else jax.lax.axis_index(axis_name)


def row_numbers(weight: Float[Array, " n"], axis_name: str | None) -> Int[Array, " n"]:
    """Number of each sample among all that weigh anything, on all devices; what a random draw may depend on.

    Places would not do: where samples are parts of several processes, each part is padded.
    """
    counted = (weight > 0).astype(jnp.int32)
    number = jnp.cumsum(counted) - counted
    if axis_name is None:
        return number
    counts = gather_tables(jnp.sum(counted)[None], axis_name)
    before = jnp.arange(counts.shape[0], dtype=jnp.int32) < shard_index(axis_name)
    return number + jnp.sum(jnp.where(before, counts, 0))


def take_row(
    rows: Array | SparseRows, index: Int[Array, " m"], mine: Bool[Array, " m"], axis_name: str | None
) -> Array:
    """Rows ``rows[index]``, on every device, each from the one device where ``mine`` is True."""
    taken = rows[index]
    if axis_name is None:
        return taken
    return all_reduce(jnp.where(mine.reshape(mine.shape + (1,) * (taken.ndim - mine.ndim)), taken, 0), axis_name)


def gather_tables(table: Array, axis_name: str | None) -> Array:
    """Concatenation of the (m, …) tables of all devices, in order, typed as equal on every device."""
    if axis_name is None:
        return table
    return all_reduce(jax.lax.all_gather(table, axis_name, tiled=True), axis_name, MAX)

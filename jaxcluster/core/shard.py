"""Rows spread over devices: a fit that takes ``axis_name`` runs under shard_map and gives the single-device answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcluster.core import check
from jaxcluster.core.fold import MAX, across
from jaxcluster.types import Array, Bool, Fit, Int

ROWS = "rows"


def row_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A one-axis mesh named "rows" over the given devices, or all of them."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (ROWS,), axis_types=(AxisType.Auto,), devices=devices)


def fit_sharded(fit: Callable[..., Fit], key, x, k: int, *, weights=None, mesh: Mesh | None = None, **options) -> Fit:
    """Runs ``fit(key, x, k, weights=, axis_name=, **options)`` with the rows spread over the devices of a mesh.

    Rows that do not divide evenly are filled up with rows of weight 0. Everything but the labels comes back the same
    on every device.

    Args:
        fit: a functional fit, such as ``kmeans.fit``.
        x: (n, d) rows.
        weights: (n,) or None.
        mesh: one axis; all local devices by default.
        options: passed on to ``fit``.
    """
    mesh = row_mesh() if mesh is None else mesh
    (axis,) = mesh.axis_names
    x = check.check_matrix(x)
    check.check_finite(x)
    n = x.shape[0]
    check.check_clusters(k, n)
    weights = np.ones(n, np.float32) if weights is None else check.check_weights(weights, n)
    short = -n % mesh.size
    rows, whole = PartitionSpec(axis), PartitionSpec()
    x = jax.device_put(np.pad(np.asarray(x), ((0, short), (0, 0))), NamedSharding(mesh, rows))
    weights = jax.device_put(np.pad(weights, (0, short)), NamedSharding(mesh, rows))
    specs = Fit(state=whole, labels=rows, steps=whole, status=whole, history=whole)
    local = partial(_local_fit, fit, k=k, axis_name=axis, options=options)
    spread = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(whole, rows, rows), out_specs=specs))
    fitted = spread(key, x, weights)
    return fitted._replace(labels=fitted.labels[:n])


def _local_fit(fit, key, x, weights, *, k, axis_name, options):
    return fit(key, x, k, weights=weights, axis_name=axis_name, **options)


def shard_index(axis_name: str | None) -> Int[Array, ""]:
    """Which part of the rows this device holds; 0 without an axis."""
    return jnp.int32(0) if axis_name is None else jax.lax.axis_index(axis_name)


def take_row(rows: Array, index: Int[Array, " m"], mine: Bool[Array, " m"], axis_name: str | None) -> Array:
    """``rows[index]`` where each of the m rows lies on one device, the one that calls it ``mine``; on every device."""
    taken = rows[index]
    if axis_name is None:
        return taken
    return across(jnp.where(mine.reshape(mine.shape + (1,) * (taken.ndim - mine.ndim)), taken, 0), axis_name)


def gather_tables(table: Array, axis_name: str | None) -> Array:
    """The (m, …) tables of all devices below each other, in order, typed as the same on every device."""
    if axis_name is None:
        return table
    return across(jax.lax.all_gather(table, axis_name, tiled=True), axis_name, MAX)

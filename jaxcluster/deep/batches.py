"""Batches: the sample order of an epoch, and the transfer of samples to the device."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcluster.core import validation
from jaxcluster.core.processes import spread
from jaxcluster.core.shard import automatic
from jaxcluster.deep.protocol import Batch
from jaxcluster.types import Array, Float, Int, KeyArray

MAX_MEMORY_FRACTION = 0.4
"""Greatest fraction of the device's memory that samples may take to be kept there."""

CHUNK_BYTES = 1 << 26
"""Bytes of samples sent to the device at a time, where it does not hold them all."""


@partial(jax.jit, static_argnames=("steps", "n", "batch"))
def shuffled_batches(
    key: KeyArray, first: Int[Array, ""], *, steps: int, n: int, batch: int
) -> Int[Array, "steps batch"]:
    """Positions of the samples of ``steps`` batches, without replacement, from batch ``first`` on.

    Batches pass over the n samples again and again, each pass in a random order of its own. The n mod batch samples at
    the end of an order are left out of that pass.
    """
    per_pass = n // batch
    # The order of a pass depends on the key and its number only, so a run may be interrupted anywhere and resumed.
    passes = first // per_pass + jnp.arange(-(-steps // per_pass) + 1, dtype=jnp.int32)

    def order(number):
        return jax.random.permutation(jax.random.fold_in(key, number), n)[: per_pass * batch]

    batches = jax.vmap(order)(passes).reshape(-1, batch)
    return jax.lax.dynamic_slice_in_dim(batches, first % per_pass, steps).astype(jnp.int32)


@partial(jax.jit, static_argnames=("steps", "batch"))
def weighted_batches(
    key: KeyArray, first: Int[Array, ""], weight: Float[Array, " n"], *, steps: int, batch: int
) -> Int[Array, "steps batch"]:
    """Positions of the samples of ``steps`` batches, drawn by weight with replacement, from batch ``first`` on.

    A batch depends on the key, its number and the weights only.
    """
    # Inverse of the cumulative distribution. In float32 a probability is resolved to 2⁻²³ of the sum of all weights.
    ends = jnp.cumsum(weight)

    def draw(number):
        points = ends[-1] * jax.random.uniform(jax.random.fold_in(key, number), (batch,), ends.dtype)
        return jnp.searchsorted(ends, points, side="right").astype(jnp.int32)

    # Rounding may put a point at the very end, past the last sample of positive weight.
    last = jnp.max(jnp.where(weight > 0, jnp.arange(weight.size, dtype=jnp.int32), 0))
    return jnp.minimum(jax.vmap(draw)(first + jnp.arange(steps, dtype=jnp.int32)), last)


def as_rows(x: Any) -> np.ndarray | jax.Array:
    """``x`` as an array of real numbers with at least one row, in a dtype that JAX has.

    Raises:
        TypeError: values that are not real numbers.
        ValueError: no rows, empty rows, or no axis of rows.
    """
    if not isinstance(x, (np.ndarray, jax.Array)):
        x = np.asarray(x)
    x = validation.widen(x)
    if x.dtype.kind not in "fiub":
        raise TypeError(
            f"x has dtype {x.dtype}, which is not numeric. Pass real numbers: encode or drop other columns."
        )
    if x.ndim == 0 or 0 in x.shape:
        raise ValueError(f"x must have rows, (n, …), at least one, and none of them empty; got shape {x.shape}.")
    return x


class DeviceRows:
    """Samples of a data set, on the device or on the host.

    Args:
        x: (n_samples, …) numbers, see `as_rows`.
        resident: keep the samples on the device; None to do so where they fit.
        y: (n_samples,) labels or the like, or None.
        mesh: devices along one axis that share each batch; each holds all resident samples. None for one device. Where
            they are those of several processes, each process has all samples.
    """

    def __init__(self, x: Any, resident: bool | None = None, *, y: Any = None, mesh: Mesh | None = None) -> None:
        self.n, self.shape, self.mesh = x.shape[0], x.shape[1:], mesh
        self.bytes_per_row = 4 * int(np.prod(self.shape))
        self.resident = fits_on_device(self.n * self.bytes_per_row) if resident is None else resident
        self.batch_sharding = None if mesh is None else NamedSharding(automatic(mesh), PartitionSpec(*mesh.axis_names))
        self.first_device = None if mesh is None else mesh.local_devices[0]
        self._replicated = None if mesh is None else NamedSharding(automatic(mesh), PartitionSpec())
        self.x: Any = self.replicate(jnp.asarray(x, jnp.float32)) if self.resident else np.asarray(x)
        self.y = None if y is None else self.replicate(jnp.asarray(y))

    def replicate(self, tree: Any) -> Any:
        """Copy arrays to each device of the mesh."""
        return tree if self._replicated is None else spread(tree, self._replicated)

    def chunks(self, rows: Int[Array, "steps batches batch"], target: Any) -> Iterator[Batch]:
        """Batches of the samples at ``rows``, stacked, in pieces of at most `CHUNK_BYTES`; resident samples in one."""
        if self.resident:
            yield Batch(self.x, target, self.replicate(rows), self.y)
            return
        for piece in np.array_split(np.asarray(rows), self._pieces(len(rows), rows.size)):
            x, index = self.replicate((jax.device_put(self.x[piece].astype(np.float32)), jnp.asarray(piece)))
            yield Batch(x, target, index, self.y)

    def tiles(self) -> Iterator[Any]:
        """All samples in order, in pieces of at most `CHUNK_BYTES`; resident samples in one."""
        if self.resident:
            yield self.x
            return
        for piece in np.array_split(np.arange(self.n), self._pieces(self.n, self.n)):
            yield jax.device_put(self.x[piece[0] : piece[-1] + 1].astype(np.float32))

    def _pieces(self, most: int, rows: int) -> int:
        """Number of pieces in which ``rows`` samples are sent, at most ``most``, so that none is empty."""
        return min(most, -(-rows * self.bytes_per_row // CHUNK_BYTES))


def fits_on_device(size: int) -> bool:
    """True if ``size`` bytes are a small enough part of the device's memory; always on CPUs, which report no limit."""
    stats = jax.local_devices()[0].memory_stats() or {}
    limit = stats.get("bytes_limit")
    return limit is None or size <= MAX_MEMORY_FRACTION * limit


def gather_batch(resident: bool, chunk: Batch, rows: Any, sharding: Any = None) -> Batch:
    """One batch of a chunk, gathered on the device if samples are resident, sharded over devices by ``sharding``."""
    x, index = (None, rows) if resident else rows
    # Positions sharded before the gather: each device then gathers its own samples only.
    if sharding is not None:
        x, index = jax.lax.with_sharding_constraint((x, index), sharding)
    target, y = jax.tree.map(lambda leaf: leaf[index], (chunk.target, chunk.y))
    return Batch(chunk.x[index] if x is None else x, target, index, y)

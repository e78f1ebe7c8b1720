"""Batches: which rows a step sees, and how they come to the device."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcluster.core import check
from jaxcluster.deep.protocol import Batch
from jaxcluster.types import Array, Float, Int, KeyArray

SHARE = 0.4
"""Of a device's memory that rows may take, for a run to keep them there."""

CHUNK_BYTES = 1 << 26
"""Rows sent to the device at a time, where it does not hold them all."""


@partial(jax.jit, static_argnames=("steps", "n", "batch"))
def batch_rows(key: KeyArray, first: Int[Array, ""], *, steps: int, n: int, batch: int) -> Int[Array, "steps batch"]:
    """The rows of ``steps`` batches from step ``first`` on.

    Steps go through the n rows in passes, each in an order of its own that depends on nothing but the key and the
    number of the pass: a run may be cut anywhere and goes on alike. The n mod batch rows at the end of an order are
    left out of that pass.
    """
    per_pass = n // batch
    passes = first // per_pass + jnp.arange(-(-steps // per_pass) + 1, dtype=jnp.int32)

    def order(number):
        return jax.random.permutation(jax.random.fold_in(key, number), n)[: per_pass * batch]

    batches = jax.vmap(order)(passes).reshape(-1, batch)
    return jax.lax.dynamic_slice_in_dim(batches, first % per_pass, steps).astype(jnp.int32)


@partial(jax.jit, static_argnames=("steps", "batch"))
def drawn_rows(
    key: KeyArray, first: Int[Array, ""], weight: Float[Array, " n"], *, steps: int, batch: int
) -> Int[Array, "steps batch"]:
    """The rows of ``steps`` batches from batch ``first`` on, each drawn in proportion to its weight, with replacement.

    What a batch holds depends on nothing but the key, its number and the weights. In float32 the share of a row is kept
    to one part in 2²³ of the sum of all.
    """
    ends = jnp.cumsum(weight)

    def draw(number):
        at = ends[-1] * jax.random.uniform(jax.random.fold_in(key, number), (batch,), ends.dtype)
        return jnp.searchsorted(ends, at, side="right").astype(jnp.int32)

    # Rounding may put a point at the very end, past the last row that weighs anything.
    last = jnp.max(jnp.where(weight > 0, jnp.arange(weight.size, dtype=jnp.int32), 0))
    return jnp.minimum(jax.vmap(draw)(first + jnp.arange(steps, dtype=jnp.int32)), last)


def as_rows(x: Any) -> np.ndarray | jax.Array:
    """``x`` as an array of numbers, one row or more; those that JAX has no dtype for in one that it has.

    Raises:
        TypeError: values that are no real numbers.
        ValueError: no rows, or no axis of rows.
    """
    if not isinstance(x, (np.ndarray, jax.Array)):
        x = np.asarray(x)
    x = check.widen(x)
    if x.dtype.kind not in "fiub":
        raise TypeError(
            f"x has dtype {x.dtype}, which is not numeric. Pass real numbers: encode or drop other columns."
        )
    if x.ndim == 0 or 0 in x.shape:
        raise ValueError(f"x must have rows, (n, …), at least one, and none of them empty; got shape {x.shape}.")
    return x


class Rows:
    """The rows of a data set, on the device or on the host.

    Args:
        x: (n, …) numbers, as `as_rows` gives them.
        resident: whether they live on the device; None for where they fit.
        y: (n,) what is known of the rows, or None.
        mesh: devices, along its one axis, that batches are spread over; each holds all resident rows. None for one.
    """

    def __init__(self, x: Any, resident: bool | None = None, *, y: Any = None, mesh: Mesh | None = None) -> None:
        self.n, self.shape = x.shape[0], x.shape[1:]
        self.bytes_per_row = 4 * int(np.prod(self.shape))
        self.resident = fits(self.n * self.bytes_per_row) if resident is None else resident
        self.of_batch = None if mesh is None else NamedSharding(mesh, PartitionSpec(*mesh.axis_names))
        self._whole = None if mesh is None else NamedSharding(mesh, PartitionSpec())
        self.x = self.everywhere(jnp.asarray(x, jnp.float32)) if self.resident else np.asarray(x)
        self.y = None if y is None else self.everywhere(jnp.asarray(y))

    def everywhere(self, tree: Any) -> Any:
        """Arrays with a copy on each device of the mesh."""
        return tree if self._whole is None else jax.device_put(tree, self._whole)

    def chunks(self, rows: Int[Array, "steps batches batch"], target: Any) -> Iterator[Batch]:
        """The batches of ``rows``, stacked, in as many pieces as it takes."""
        if self.resident:
            yield Batch(self.x, target, self.everywhere(rows), self.y)
            return
        rows = np.asarray(rows)
        for some in np.array_split(rows, self._pieces(len(rows), rows.size)):
            x, index = self.everywhere((jax.device_put(self.x[some].astype(np.float32)), jnp.asarray(some)))
            yield Batch(x, target, index, self.y)

    def tiles(self) -> Iterator[Any]:
        """All rows in order, in as many pieces as it takes."""
        if self.resident:
            yield self.x
            return
        for some in np.array_split(np.arange(self.n), self._pieces(self.n, self.n)):
            yield jax.device_put(self.x[some[0] : some[-1] + 1].astype(np.float32))

    def _pieces(self, most: int, rows: int) -> int:
        """In how many pieces so many rows are sent: none is empty, where rows come in ``most`` lots that stay whole."""
        return min(most, -(-rows * self.bytes_per_row // CHUNK_BYTES))


def fits(wanted: int) -> bool:
    """Whether so many bytes are a small enough part of the device's memory; always where that is the host's own."""
    stats = jax.local_devices()[0].memory_stats() or {}
    limit = stats.get("bytes_limit")
    return limit is None or wanted <= SHARE * limit


def take(resident: bool, chunk: Batch, rows: Any, sharding: Any = None) -> Batch:
    """One batch of a chunk: gathered on the device, or as the host gathered it, spread over devices by ``sharding``."""
    x, index = (None, rows) if resident else rows
    if sharding is not None:
        x, index = jax.lax.with_sharding_constraint((x, index), sharding)
    target, y = jax.tree.map(lambda leaf: leaf[index], (chunk.target, chunk.y))
    return Batch(chunk.x[index] if resident else x, target, index, y)

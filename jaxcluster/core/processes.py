"""Arrays of several processes: values that all of them know, and the parts that each of them has.

Functions that communicate must be called by every process of the job, in the same order.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcluster.types import Fit, Status


def gather(value: Any) -> np.ndarray:
    """(n_processes, …) value of every process, bit by bit: float64 too, which JAX may round."""
    value = np.array(value, order="C")
    every = multihost_utils.process_allgather(np.frombuffer(value.tobytes(), np.uint8))
    return np.asarray(every).reshape(-1).view(value.dtype).reshape(-1, *value.shape)


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of all processes, in the order of the processes; each may have another number of them."""
    counts = gather(len(rows))
    padded = np.zeros((max(1, int(counts.max())), *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    return np.concatenate([part[:count] for part, count in zip(gather(padded), counts, strict=True)])


def replicate(value: Any, mesh: Mesh) -> Any:
    """Array on all devices of a mesh, each process with the same value; a random key is that of the first process.

    Arrays over the mesh are returned as they are.
    """
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return value
    value = jnp.asarray(value)
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        # Processes that draw from fresh entropy have different keys, and each would run another fit.
        words = gather(np.asarray(jax.random.key_data(value)))[0]
        return jax.random.wrap_key_data(replicate(words, mesh), impl=jax.random.key_impl(value))
    host = np.asarray(value)
    return jax.make_array_from_callback(host.shape, NamedSharding(mesh, PartitionSpec()), lambda index: host[index])


def localize(value: Any) -> Any:
    """Rows of this process, of an array with a row for each sample; the whole of one that all processes have."""
    if not isinstance(value, jax.Array) or value.is_fully_addressable:
        return value
    if value.is_fully_replicated:
        return value.addressable_data(0)
    parts = sorted(value.addressable_shards, key=lambda part: part.index[0].start or 0)
    return jax.device_put(np.concatenate([np.asarray(part.data) for part in parts]))


def agree_on_status(fit: Fit, mesh: Mesh | None) -> Fit:
    """Fit with the status PRECISION where the rows of any process have it; each has looked at its own."""
    if mesh is None or not mesh.is_multi_process:
        return fit
    lost = (gather(np.asarray(fit.status)) == Status.PRECISION).any()
    return fit._replace(status=jnp.int32(Status.PRECISION)) if lost else fit

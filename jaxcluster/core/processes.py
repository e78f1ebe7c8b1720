"""Arrays of several processes: values that all of them know, and the parts that each of them has.

Functions that communicate must be called by every process of the job, in the same order.
"""

from __future__ import annotations

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcluster.core import signals, validation
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


def gather_parts(mesh: Mesh | None, x: Any, *per_row: Any) -> tuple[Any, ...]:
    """Rows of all processes of a mesh, for fits that need them on each host: in the order of the processes.

    All processes compute the same fit of these rows, and each keeps its own labels. Every process must call it; each
    needs memory for all rows, and for twice as many while they are gathered.

    Args:
        mesh: of the fit. None, or one of this process alone, leaves rows and arrays as they are.
        x: (n_samples, n_features) rows of this process, not checked yet.
        per_row: arrays with an entry for each row, or None in every process.

    Returns:
        The rows, the arrays, and the slice of the rows of this process.

    Raises:
        ValueError, TypeError: see `validation.check_matrix`; parts of different widths or dtypes.
    """
    if not spans_processes(mesh):
        return x, *per_row, slice(None)
    x = np.asarray(validation.check_matrix(x))
    per_row = tuple(None if each is None else np.asarray(each) for each in per_row)
    # Digests of dtypes: parts that do not fit together would be read as other numbers.
    kinds = [x.shape[1], *(0 if each is None else zlib.crc32(each.dtype.str.encode()) for each in (x, *per_row))]
    if (gather(np.array(kinds)) != kinds).any():
        raise ValueError("the processes have rows of different columns or dtypes, or weights in some of them only.")
    every = (None if each is None else gather_rows(each) for each in per_row)
    return gather_rows(x), *every, own_rows(mesh, len(x))


def own_rows(mesh: Mesh | None, n: int) -> slice:
    """Slice of the n rows of this process among those of all processes of a mesh."""
    if not spans_processes(mesh):
        return slice(None)
    start = int(gather(n)[: jax.process_index()].sum())
    return slice(start, start + n)


def spans_processes(mesh: Mesh | None) -> bool:
    """True for a mesh with devices of several processes."""
    return mesh is not None and mesh.is_multi_process


def writes_files(mesh: Mesh | None) -> bool:
    """True in the process that writes the files of a fit over a mesh: the first of several."""
    return not spans_processes(mesh) or jax.process_index() == 0


def agree_to_stop(mesh: Mesh | None) -> int:
    """Number of the signal that requests any process of a mesh to stop, which becomes a request to each; 0 for none."""
    number = signals.stop_requested() or 0
    if spans_processes(mesh):
        number = int(gather(number).max())
    if number:
        signals.request_stop(number)
    return number


def check_stopped(mesh: Mesh | None) -> None:
    """`signals.check_stopped` by all processes of a mesh at once."""
    if not spans_processes(mesh) or agree_to_stop(mesh):
        signals.check_stopped()


def keep_own_labels(fit: Fit, own: slice) -> Fit:
    """Fit of the rows of all processes with the labels of this one alone: those of a slice by `own_rows`."""
    return fit if own == slice(None) else fit._replace(labels=jax.device_put(np.asarray(fit.labels)[own]))


def count_rows(mesh: Mesh | None, n: int) -> int:
    """Number of rows of all processes of a mesh, of which this one has n."""
    return int(gather(n).sum()) if spans_processes(mesh) else n


def spread(tree: Any, shardings: Any) -> Any:
    """Arrays on the devices of shardings, those of other processes among them, of values that every process has.

    `jax.device_put` would send the values to all processes, to compare them.
    """

    def put(value, sharding):
        if sharding.is_fully_addressable:
            return jax.device_put(value, sharding)
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            words = put(jax.random.key_data(value), sharding)
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(value))
        host = np.asarray(whole(value))
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    one = isinstance(shardings, jax.sharding.Sharding)
    return jax.tree.map(lambda leaf: put(leaf, shardings), tree) if one else jax.tree.map(put, tree, shardings)


def is_spread(value: Any) -> bool:
    """True for an array over the devices of several processes; a traced one says nothing of its devices."""
    return isinstance(value, jax.Array) and not validation.is_traced(value) and not value.is_fully_addressable


def whole(value: Any) -> Any:
    """Array with the rows of all processes, in each of them, of one over their devices; every process must call it."""
    if not is_spread(value):
        return value
    if value.is_fully_replicated:
        return value.addressable_data(0)
    return jax.device_put(multihost_utils.process_allgather(value, tiled=True))


def agree_on_key(key: Any, mesh: Mesh | None) -> Any:
    """Random key of the first process: processes that draw from fresh entropy have different ones."""
    if not spans_processes(mesh):
        return key
    return jax.random.wrap_key_data(gather(np.asarray(jax.random.key_data(key)))[0], impl=jax.random.key_impl(key))


def from_first(value: Any) -> np.ndarray:
    """Array of the first process, bit by bit; those of the others have the same shape and dtype."""
    value = np.array(value, order="C")
    if not value.size:
        return value
    words = multihost_utils.broadcast_one_to_all(np.frombuffer(value.tobytes(), np.uint8))
    return np.asarray(words).view(value.dtype).reshape(value.shape)


def replicate(value: Any, mesh: Mesh) -> Any:
    """Array on all devices of a mesh, each process with the same value; a random key is that of the first process.

    Arrays over the mesh are returned as they are.
    """
    if is_spread(value):
        return value
    value = jnp.asarray(value)
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        words = jax.random.key_data(agree_on_key(value, mesh))
        return jax.random.wrap_key_data(replicate(words, mesh), impl=jax.random.key_impl(value))
    return spread(value, NamedSharding(mesh, PartitionSpec()))


def localize(value: Any) -> Any:
    """Rows of this process, of an array with a row for each sample; the whole of one that all processes have."""
    if not is_spread(value):
        return value
    if value.is_fully_replicated:
        return value.addressable_data(0)
    parts = sorted(value.addressable_shards, key=lambda part: part.index[0].start or 0)
    return jax.device_put(np.concatenate([np.asarray(part.data) for part in parts]))


def as_words(value: Any) -> np.ndarray:
    """An array on the host, and a random key as its words."""
    is_key = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(value) if is_key else value)


def check_equal(tree: Any, mesh: Mesh | None, names: str) -> None:
    """Raise ValueError unless all processes of a mesh have the same arrays, called by ``names``."""
    if not spans_processes(mesh):
        return
    digest = 0
    for leaf in jax.tree.leaves(tree):
        digest = zlib.crc32(as_words(leaf).tobytes(), digest)
    if (gather(digest) != digest).any():
        raise ValueError(f"the processes have different {names}: pass the same in each.")


def agree_on_status(fit: Fit, mesh: Mesh | None) -> Fit:
    """Fit with the status PRECISION where the rows of any process have it; each has looked at its own."""
    if not spans_processes(mesh):
        return fit
    lost = (gather(np.asarray(fit.status)) == Status.PRECISION).any()
    return fit._replace(status=jnp.int32(Status.PRECISION)) if lost else fit

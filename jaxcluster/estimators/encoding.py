"""Parameters and fitted attributes as JSON values, with their arrays set aside; nothing is ever unpickled.

What JSON has is written as it is. Everything else is an object of one key that begins with "$" and names its kind.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.types import Status

Arrays = dict[str, np.ndarray]


def encode(name: str, value: Any, arrays: Arrays) -> Any:
    """``value`` as JSON; the arrays in it are put into ``arrays`` under names that begin with ``name``.

    Raises:
        TypeError: a function, or another object that is not data.
    """
    if isinstance(value, Status):
        return {"$status": value.name}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, np.generic):
        return encode(name, value.item(), arrays)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, (list, tuple)):
        items = [encode(f"{name}.{i}", item, arrays) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"$dict": {key: encode(f"{name}.{key}", item, arrays) for key, item in value.items()}}
    if isinstance(value, np.random.RandomState):
        return {"$random_state": encode(name, value.get_state(legacy=False), arrays)}
    if isinstance(value, (np.ndarray, jax.Array)):
        return _encode_array(name, value, arrays)
    raise TypeError(
        f"{name}={value!r} of type {type(value).__name__} cannot be saved: a model file holds data, not code. Replace "
        "it before saving, for instance set_params(init='k-means++') after a fit with a callable."
    )


def _encode_array(name, value, arrays):
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        arrays[name] = np.asarray(jax.random.key_data(value))
        return {"$key": {"array": name, "impl": str(jax.random.key_impl(value))}}
    host = np.asarray(value)
    if host.dtype.kind in "OU" and all(isinstance(item, str) for item in host.ravel()):
        return {"$strings": host.tolist()}
    if host.dtype.kind not in "fiub":
        raise TypeError(f"{name} is an array of dtype {host.dtype}, which cannot be saved. Convert it to numbers.")
    arrays[name] = np.array(host, dtype=host.dtype.newbyteorder("="), order="C")
    return {"$jax_array" if isinstance(value, jax.Array) else "$array": name}


def decode(value: Any, arrays: Arrays) -> Any:
    """The inverse of `encode`.

    Raises:
        ValueError: a kind that is not known.
    """
    if isinstance(value, list):
        return [decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind not in _DECODERS:
        raise ValueError(f"values of kind {kind!r} are not known; those known are {', '.join(_DECODERS)}.")
    return _DECODERS[kind](content, arrays)


def _decode_random_state(content, arrays):
    random_state = np.random.RandomState()
    random_state.set_state(decode(content, arrays))
    return random_state


_DECODERS = {
    "$status": lambda content, arrays: Status[content],
    "$float": lambda content, arrays: float(content),
    "$tuple": lambda content, arrays: tuple(decode(content, arrays)),
    "$dict": lambda content, arrays: {key: decode(item, arrays) for key, item in content.items()},
    "$strings": lambda content, arrays: np.array(content, dtype=object),
    "$array": lambda content, arrays: arrays[content],
    "$jax_array": lambda content, arrays: jnp.asarray(arrays[content]),
    "$key": lambda content, arrays: jax.random.wrap_key_data(arrays[content["array"]], impl=content["impl"]),
    "$random_state": _decode_random_state,
}

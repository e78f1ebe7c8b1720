"""Serialization of parameters and fitted attributes: JSON values, and arrays beside them. Nothing is unpickled.

Values that JSON has are written as they are. Every other value is an object with one key, "$" and the kind.
"""

from __future__ import annotations

import importlib
import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.sharding import Mesh

from jaxcluster.core import validation
from jaxcluster.estimators import saved_code
from jaxcluster.types import Status

Arrays = dict[str, np.ndarray]

NAMED_TUPLES = {
    "ColumnCode": "jaxcluster.datasets.encoding",
    "CondensedTree": "jaxcluster.cluster.hdbscan.tree",
    "Encoding": "jaxcluster.datasets.encoding",
    "Frame": "jaxcluster.core.frame",
    "GowerScale": "jaxcluster.datasets.gower",
    "Imputation": "jaxcluster.datasets.imputation",
    "Moments": "jaxcluster.ops.moments",
    "MixedColumns": "jaxcluster.datasets.categories",
    "Scaling": "jaxcluster.datasets.scaling",
    "Start": "jaxcluster.deep.start",
    "TextVectorizer": "jaxcluster.datasets.texts",
    "Tree": "jaxcluster.ops.spanning_tree",
}
"""Named tuples in fitted attributes, and their modules. A file cannot name any other class: loading one imports and
calls nothing that the file chooses."""

COMPRESSED_FORMATS = ("csr", "csc", "bsr")
"""Sparse formats that are saved by their own three arrays; others are saved as coordinates."""


def encode(name: str, value: Any, arrays: Arrays) -> Any:
    """Encode ``value`` as JSON; its arrays are added to ``arrays`` under names that begin with ``name``.

    Raises:
        TypeError: a function, or another object that is not data.
    """
    # Before int, as a Status is one.
    if isinstance(value, Status):
        return {"$status": value.name}
    if isinstance(value, Mesh):
        return None  # devices belong to a machine, and no model depends on them
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if type(value) is np.longdouble:
        return encode(name, float(value), arrays)  # its item() is a longdouble again, not a float
    if isinstance(value, np.generic):
        return encode(name, value.item(), arrays)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if NAMED_TUPLES.get(type(value).__name__) == type(value).__module__:
        return {"$named": {"class": type(value).__name__, "fields": encode(name, value._asdict(), arrays)}}
    if scipy.sparse.issparse(value):
        return _encode_sparse(name, value, arrays)
    # A named tuple that is not listed is refused below: a plain tuple would come back as another class.
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        items = [encode(f"{name}.{i}", item, arrays) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"$dict": {key: encode(f"{name}.{key}", item, arrays) for key, item in value.items()}}
    if isinstance(value, np.random.RandomState):
        return {"$random_state": encode(name, value.get_state(legacy=False), arrays)}
    if isinstance(value, (np.ndarray, jax.Array)):
        return _encode_array(name, value, arrays)
    if isinstance(value, (np.dtype, type(jnp.float32))) or (isinstance(value, type) and issubclass(value, np.generic)):
        dtype: Any = value
        return {"$dtype": str(np.dtype(dtype))}
    if callable(value) and name.partition(".")[0] in saved_code.PARAMETERS:
        if (described := saved_code.describe(name, value)) is not None:
            return {"$code": {key: encode(f"{name}.{key}", part, arrays) for key, part in described.items()}}
        raise TypeError(
            f"{name} of type {type(value).__name__} cannot be saved: networks need a method get_config() that returns "
            "what their class takes besides rngs, and views are functions of a module or dataclasses. Their classes "
            "stand in modules, too."
        )
    raise TypeError(
        f"{name}={value!r} of type {type(value).__name__} cannot be saved: a model file holds data, not code. Replace "
        "it before saving, for instance set_params(init='k-means++') after a fit with a callable."
    )


def _encode_array(name, value, arrays):
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        arrays[name] = np.asarray(jax.random.key_data(value))
        return {"$key": {"array": name, "impl": str(jax.random.key_impl(value))}}
    host = np.asarray(value)
    if host.dtype.names is None and (host.dtype.kind == "V" or host.dtype == np.longdouble):
        host = validation.widen(host)  # bfloat16 as float32, extended precision as float64
    if host.dtype.names is not None:
        fields = {field: encode(f"{name}.{field}", host[field], arrays) for field in host.dtype.names}
        return {"$records": {"shape": list(host.shape), "fields": fields}}
    if host.dtype.kind in "OU" and all(isinstance(item, str) for item in host.ravel()):
        return {"$strings": host.tolist()}
    if host.dtype.kind not in "fiub":
        raise TypeError(f"{name} is an array of dtype {host.dtype}, which cannot be saved. Convert it to numbers.")
    # safetensors takes C-ordered arrays in native byte order.
    arrays[name] = np.array(host, dtype=host.dtype.newbyteorder("="), order="C")
    return {"$jax_array" if isinstance(value, jax.Array) else "$array": name}


def _encode_sparse(name, value, arrays):
    """Encode a sparse matrix by its class, shape and arrays."""
    if value.ndim != 2:
        raise TypeError(f"{name} is a sparse array of shape {value.shape}, which cannot be saved. Make it 2-D.")
    if value.format in COMPRESSED_FORMATS:
        parts = {"data": value.data, "indices": value.indices, "indptr": value.indptr}
    else:
        entries = value.tocoo()
        parts = {"data": entries.data, "row": entries.row, "col": entries.col}
    kind = "array" if issubclass(type(value), scipy.sparse.sparray) else "matrix"
    described = {"format": value.format, "kind": kind, "shape": list(value.shape)}
    return {"$sparse": described | {key: encode(f"{name}.{key}", part, arrays) for key, part in parts.items()}}


def decode(value: Any, arrays: Arrays) -> Any:
    """Decode a value that `encode` made.

    Raises:
        ValueError: an unknown kind.
    """
    if isinstance(value, list):
        return [decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind not in _DECODERS:
        raise ValueError(f"values of kind {kind!r} are not known; those known are {', '.join(_DECODERS)}.")
    return _DECODERS[kind](content, arrays)


def _as_jax(array):
    """JAX array; a NumPy array if JAX, without x64, would round it."""
    return jnp.asarray(array) if jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype else array


def _decode_random_state(content, arrays):
    random_state = np.random.RandomState()
    random_state.set_state(decode(content, arrays))
    return random_state


def _decode_named(content, arrays):
    name = content["class"]
    return getattr(importlib.import_module(NAMED_TUPLES[name]), name)(**decode(content["fields"], arrays))


def _decode_records(content, arrays):
    shape = tuple(content["shape"])
    fields = {name: decode(field, arrays) for name, field in content["fields"].items()}
    if any(field.shape[: len(shape)] != shape for field in fields.values()):
        raise ValueError(f"records of shape {shape} do not fit their fields.")
    records = np.empty(shape, [(name, field.dtype, field.shape[len(shape) :]) for name, field in fields.items()])
    for name, field in fields.items():
        records[name] = field
    return records


def _decode_sparse(content, arrays):
    kind, shape = content["kind"], tuple(content["shape"])
    if kind not in ("array", "matrix") or not hasattr(scipy.sparse, f"{content['format']}_{kind}"):
        raise ValueError(f"sparse matrices of the form {content['format']!r} are not known.")
    data = decode(content["data"], arrays)
    if content["format"] not in COMPRESSED_FORMATS:
        indices = decode(content["row"], arrays), decode(content["col"], arrays)
        return getattr(scipy.sparse, f"coo_{kind}")((data, indices), shape=shape).asformat(content["format"])
    parts = (data, decode(content["indices"], arrays), decode(content["indptr"], arrays))
    matrix = getattr(scipy.sparse, f"{content['format']}_{kind}")(parts, shape=shape)
    matrix.check_format(full_check=True)  # an index beyond the shape would read beyond the arrays
    return matrix


def _decode_code(content, arrays):
    return saved_code.rebuild(content, lambda value: decode(value, arrays), sum(x.size for x in arrays.values()))


_DECODERS = {
    "$status": lambda content, arrays: Status[content],
    "$float": lambda content, arrays: float(content),
    "$tuple": lambda content, arrays: tuple(decode(content, arrays)),
    "$dict": lambda content, arrays: {key: decode(item, arrays) for key, item in content.items()},
    "$strings": lambda content, arrays: np.array(content, dtype=object),
    "$array": lambda content, arrays: arrays[content],
    "$jax_array": lambda content, arrays: _as_jax(arrays[content]),
    "$key": lambda content, arrays: jax.random.wrap_key_data(arrays[content["array"]], impl=content["impl"]),
    "$random_state": _decode_random_state,
    "$named": _decode_named,
    "$records": _decode_records,
    "$sparse": _decode_sparse,
    "$code": _decode_code,
    "$dtype": lambda content, arrays: jnp.dtype(content),
}

"""Text of what determines a compiled program, the same in each process, by which `persistent_jit` finds it.

>>> text_of((1, "euclidean", 1.5))
"builtins.tuple(1, 'euclidean', 1.5)"
"""

from __future__ import annotations

import enum
import functools
import importlib
import itertools
import os
import platform
import types
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
import numpy as np

PACKAGE = Path(__file__).parents[1]


class NotStorableError(ValueError):
    """A static argument that another process may know by another name."""


@functools.cache
def environment() -> str:
    """Text of what determines a program beside the function and its arguments."""
    device = jax.devices()[0]
    sources = sorted((str(path.relative_to(PACKAGE)), path.stat()) for path in PACKAGE.rglob("*.py"))
    versions = [platform.python_version(), jax.__version__, jaxlib.version.__version__, np.__version__]
    flags = [os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_PLATFORMS")]
    parts = [
        *versions,
        *flags,
        device.platform,
        device.device_kind,
        str(getattr(device.client, "platform_version", "")),
        _processor(),
        _threads(),
        str(jax.config.values.get("jax_disable_most_optimizations")),
        str(PACKAGE),
        *(f"{name} {status.st_size} {status.st_mtime_ns}" for name, status in sources),
    ]
    return "\n".join(parts)


def _processor():
    """Model and instructions of the processor: code compiled for one with more of them would crash."""
    known = ("model name", "flags", "CPU implementer", "CPU part", "Features")
    with suppress(OSError), open("/proc/cpuinfo") as lines:
        first = itertools.takewhile(str.strip, lines)  # the lines of one core
        if found := [line for line in first if line.startswith(known)]:
            return "".join(found)
    return platform.processor()


def _threads():
    """Text of the number of cores for which XLA splits its loops."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} {os.environ.get('NPROC', '')} {os.environ.get('PJRT_NPROC', '')}"


def text_of(value: Any) -> str:
    """Text of a static argument that is the same in each process, and differs between unequal values."""
    kind = type(value)
    if value is None or kind in (bool, int, float, complex, str, bytes):
        return repr(value)
    if isinstance(value, (np.dtype, np.generic)):
        return f"{kind.__name__} {value!r}"
    if isinstance(value, enum.Enum):
        return f"{_name_of(kind)}.{value.name}"
    if isinstance(value, functools.partial):
        return f"partial {text_of((value.func, value.args, value.keywords))}"
    if isinstance(value, (type, types.FunctionType)) or isinstance(
        getattr(value, "__wrapped__", None), types.FunctionType
    ):
        return _name_of(value)
    if isinstance(value, (tuple, list)):
        return f"{_name_of(kind)}({', '.join(map(text_of, value))})"
    if isinstance(value, (set, frozenset)):
        return f"{_name_of(kind)}({', '.join(sorted(map(text_of, value)))})"
    if isinstance(value, dict):
        return f"{_name_of(kind)}({', '.join(f'{text_of(key)}: {text_of(each)}' for key, each in value.items())})"
    if is_dataclass(value):
        return f"{_name_of(kind)}({', '.join(text_of(getattr(value, field.name)) for field in fields(value))})"
    raise NotStorableError(kind)


def _name_of(value):
    """Module and name of a class or function, if they say which it is: a module's own, of a known source."""
    module, name = value.__module__, value.__qualname__
    if module.partition(".")[0] not in ("jaxcluster", "jax", "jaxlib", "numpy", "builtins", "ml_dtypes"):
        raise NotStorableError(name)
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not value and getattr(found, "__wrapped__", None) is not value:
        raise NotStorableError(name)
    return f"{module}.{name}"


def tree_text(tree: Any) -> str:
    """Text of the structure of the arguments."""
    node = tree.node_data()
    if node is None:
        return "*"
    kind, data = node
    if kind is type(None):
        return "None"
    aux = "" if data is kind else text_of(data)
    return f"{_name_of(kind)}[{aux}]({', '.join(map(tree_text, tree.children()))})"

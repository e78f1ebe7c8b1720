"""Memory checks before allocations: bytes that a method needs, against bytes that the process may allocate.

A process that allocates too much is ended by the system, or by C++ inside a program, without a Python exception. So all
functions that allocate more than their rows call `check` first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from inspect import isfunction
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import psutil

from jaxcluster.core import signals
from jaxcluster.core.programs import limit_programs

MIN_CHECKED_BYTES = 1 << 25
"""Bytes below which nothing is checked: any process that runs JAX has them."""

CENTER_COPIES = 12
"""Copies of centers in a fit: in the loop, their transposes and sums, and in float64 out of the frame (measured)."""

FEWER_COLUMNS = "Pass fewer clusters or columns: TruncatedSVD or HashingVectorizer of scikit-learn have fewer."
"""Remedy for centers that do not fit."""

TABLE_COPIES = 3
"""Copies of a table by row and cluster while it is computed, unpadded and converted (measured: 1.5 to 4)."""

CONTROL_GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Linux's folder of control groups with the limits of containers, and the file with those of a process."""

UNLIMITED = 1 << 60
"""Limits from here on mean none: version 1 of control groups has a huge number for it."""

OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "bad_alloc", "IsConcrete")
"""Parts of messages of XLA's exceptions when memory runs out."""

GUARD_ATTRIBUTE = "_memory_guard"
"""Attribute of functions with a guard of `guard_functions`."""

FEWER_ROWS = "Pass fewer rows or columns."
"""Remedy where no other method needs less memory."""

DEFAULT_REMEDY = "Pass fewer rows or columns, or use MiniBatchKMeans (minibatch-kmeans), which needs few at a time."


class Available(NamedTuple):
    """Available memory.

    Attributes:
        free: bytes.
        where: its owner, as the subject of a sentence.
    """

    free: int
    where: str


def check(needed: float, what: str, remedy: str) -> None:
    """Raise MemoryError if ``needed`` bytes are more than the process may allocate.

    Args:
        needed: bytes at the peak, in addition to those in use.
        what: name of the arrays, in the plural: the subject of the message.
        remedy: argument to lower, or alternative; a sentence.
    """
    if needed < MIN_CHECKED_BYTES:
        return
    free, where = available()
    if needed > free:
        raise MemoryError(f"{what} take {format_bytes(needed)}, and {where} has {format_bytes(free)} left. {remedy}")


def check_table(n: int, k: int, dtype: Any, what: str, remedy: str = "Pass the rows in parts.") -> None:
    """`check` of a table of n rows and k columns, of which some copies exist while it is computed."""
    check(TABLE_COPIES * n * k * max(4, np.dtype(dtype).itemsize), f"{what} of {n:,} rows by {k:,}", remedy)


def check_centers(k: int, d: int, dtype: Any) -> None:
    """`check` of k dense centers of d columns, of which a fit has several copies: sparse rows may have many columns."""
    check(CENTER_COPIES * k * d * np.dtype(dtype).itemsize, f"{k:,} centers of {d:,} columns", FEWER_COLUMNS)


def shortage_message(error: BaseException, remedy: str = DEFAULT_REMEDY) -> str | None:
    """Message for an exception of XLA or NumPy when memory runs out, a sentence; None for other exceptions."""
    if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in OUT_OF_MEMORY):
        return None
    if type(error) is MemoryError and error.args:
        return str(error)  # of `check`
    free, where = available()
    return f"this took more memory than there was: {where} has {format_bytes(free)} left. {remedy}"


@contextmanager
def memory_errors(remedy: str = DEFAULT_REMEDY) -> Iterator[None]:
    """Context that raises MemoryError with one sentence when XLA or NumPy run out of memory in spite of `check`.

    Other exceptions pass unchanged, and so does a MemoryError of such a context inside.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        message = shortage_message(error, remedy)
        if message is None or error.args == (message,):
            raise
        raise MemoryError(message) from error


def guard_functions(module: str, remedy: str = DEFAULT_REMEDY, *, compiled: bool = True) -> None:
    """Guard every public function of a module, each once, by `limit_programs`, `memory_errors` and `stoppable`.

    It is called at the end of the module. Public are the names in its ``__all__``, or else the functions that it
    defines without an underscore.

    Args:
        module: ``__name__`` of the module.
        remedy: as in `check`.
        compiled: True if its functions run compiled programs. In modules where only some do, these call
            `limit_programs` themselves.
    """
    names = vars(sys.modules[module])
    functions = {name: value for name, value in names.items() if isfunction(value)}
    own = [name for name, value in functions.items() if value.__module__ == module and not name.startswith("_")]
    for name in functions.keys() & names.get("__all__", own):
        if not hasattr(functions[name], GUARD_ATTRIBUTE):
            names[name] = guarded(functions[name], remedy, compiled)
            setattr(names[name], GUARD_ATTRIBUTE, True)


def guarded(function: Callable[..., Any], remedy: str = DEFAULT_REMEDY, compiled: bool = False) -> Callable[..., Any]:
    """A function whose failures are one sentence each: no memory left, or Ctrl-C.

    Args:
        function: a public one.
        remedy, compiled: as in `guard_functions`.
    """

    @wraps(function)
    def call(*args, **kwargs):
        if compiled:
            limit_programs()
        with signals.stoppable(), memory_errors(remedy):
            return function(*args, **kwargs)

    return call


def available() -> Available:
    """Available memory: the least of the machine, its control group, the limits of the process and the device."""
    limits = [Available(psutil.virtual_memory().available, "the machine"), *_control_group_limits(), *_process_limits()]
    device = jax.devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        limits.append(
            Available(stats["bytes_limit"] - stats.get("bytes_in_use", 0), f"the device ({device.device_kind})")
        )
    free, where = min(limits)
    return Available(max(0, free), where)


def format_bytes(size: float) -> str:
    """Bytes with a unit.

    >>> format_bytes(3.2e10)
    '32.0 GB'
    """
    for unit, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1e6:,.1f} MB"


def _process_limits() -> Iterator[Available]:
    """Available memory by ``ulimit -v`` and ``ulimit -d``."""
    process = psutil.Process()
    for name in ("RLIMIT_AS", "RLIMIT_DATA"):
        if hasattr(psutil, name):
            limit = process.rlimit(getattr(psutil, name))[0]
            if 0 <= limit < UNLIMITED:
                used = process.memory_info().vms if name == "RLIMIT_AS" else process.memory_info().data
                yield Available(limit - used, f"this process, by its limit {name},")


def _control_group_limits() -> Iterator[Available]:
    """Available memory by Linux's control groups of containers and services, version 1 or 2, and their parents."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        first = "memory" in controllers.split(",")
        if not (first or not controllers):
            continue
        base = CONTROL_GROUPS / "memory" if first else CONTROL_GROUPS
        limit, used = ("memory.limit_in_bytes", "memory.usage_in_bytes") if first else ("memory.max", "memory.current")
        own = base / path.lstrip("/")
        for folder in (own, *own.parents):
            with suppress(OSError, ValueError):  # "max" means no limit
                most = int((folder / limit).read_text())
                if most < UNLIMITED:
                    free = most - int((folder / used).read_text()) + _reclaimable(folder)
                    yield Available(free, "the control group (container) of this process")
            if folder == base:
                break


def _reclaimable(folder: Path) -> int:
    """Bytes of the page cache that count as used but can be reclaimed."""
    with suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0

"""Memory is asked for before it is taken: what a method will need, against what the process may have.

A process that takes too much is ended by the system, or by C++ in the middle of a program, without a Python exception.
So whatever builds more than the rows themselves says here first how many bytes it needs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from inspect import isfunction
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import psutil

from jaxcluster.core.programs import make_room

SMALL = 1 << 25
"""Bytes that are not asked for: any process that runs JAX has them."""

TABLE_COPIES = 3
"""Copies of a result by row and cluster while it is computed, cut and given its dtype (measured: 1.5 to 4)."""

CONTROL_GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where Linux tells the limits of containers, and in which of them a process is."""

UNLIMITED = 1 << 60
"""What the first version of control groups says where there is no limit is more."""

FAILURES = ("RESOURCE_EXHAUSTED", "Out of memory", "bad_alloc", "IsConcrete")
"""What the messages of XLA's exceptions hold where memory ran out."""

GUARDED = "_says_shortages"
"""The attribute of a function that `guard_functions` has been through."""

FEWER_ROWS = "Pass fewer rows or columns."
"""The remedy where no method does with less."""

FEWER = "Pass fewer rows or columns, or use MiniBatchKMeans (minibatch-kmeans), which needs few at a time."


class Room(NamedTuple):
    """Memory that may still be taken.

    Attributes:
        free: bytes.
        where: whose they are, as the subject of a sentence.
    """

    free: int
    where: str


def check(needed: float, what: str, remedy: str) -> None:
    """Raises MemoryError where ``needed`` bytes are more than the process may still take.

    Args:
        needed: bytes at the peak, beyond what there is already.
        what: will take them, in the plural: the subject of the message.
        remedy: which argument to lower, or what to use instead; a sentence.
    """
    if needed < SMALL:
        return
    free, where = room()
    if needed > free:
        raise MemoryError(f"{what} take {in_words(needed)}, and {where} has {in_words(free)} left. {remedy}")


def check_table(n: int, k: int, dtype: Any, what: str, remedy: str = "Pass the rows in parts.") -> None:
    """`check` of a table of n rows and k columns, of which some copies exist while it is made."""
    check(TABLE_COPIES * n * k * max(4, np.dtype(dtype).itemsize), f"{what} of {n:,} rows by {k:,}", remedy)


def shortage(error: BaseException, remedy: str = FEWER) -> str | None:
    """What an exception of XLA or NumPy says of memory that ran out, as a sentence; None for other exceptions."""
    if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in FAILURES):
        return None
    if type(error) is MemoryError and error.args:
        return str(error)  # of `check`
    free, where = room()
    return f"this took more memory than there was: {where} has {in_words(free)} left. {remedy}"


@contextmanager
def in_one_sentence(remedy: str = FEWER) -> Iterator[None]:
    """Around what computes: where XLA or NumPy run out of memory in spite of `check`, a MemoryError says so.

    Other exceptions pass unchanged, and so does a MemoryError that another block within has raised.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        told = shortage(error, remedy)
        if told is None or error.args == (told,):
            raise
        raise MemoryError(told) from error


def guard_functions(module: str, remedy: str = FEWER, *, compiled: bool = True) -> None:
    """Puts a guard around every public function of a module, each once: for the end of the module.

    The guard is `in_one_sentence`, after it has made room for the programs of the function. Public are the names in
    the module's ``__all__``, or else the functions that it defines without an underscore.

    Args:
        module: its ``__name__``.
        remedy: as in `check`.
        compiled: whether its functions run compiled programs. Those of a module of which only some do make room
            themselves.
    """
    names = vars(sys.modules[module])
    functions = {name: value for name, value in names.items() if isfunction(value)}
    own = [name for name, value in functions.items() if value.__module__ == module and not name.startswith("_")]
    for name in functions.keys() & names.get("__all__", own):
        if not hasattr(functions[name], GUARDED):
            names[name] = _guarded(functions[name], remedy, compiled)
            setattr(names[name], GUARDED, True)


def _guarded(function, remedy, compiled):
    @wraps(function)
    def guarded(*args, **kwargs):
        if compiled:
            make_room()
        with in_one_sentence(remedy):
            return function(*args, **kwargs)

    return guarded


def room() -> Room:
    """The least of what the machine, its control group, the limits of the process and the device leave."""
    rooms = [Room(psutil.virtual_memory().available, "the machine"), *_of_control_groups(), *_of_limits()]
    device = jax.devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        rooms.append(Room(stats["bytes_limit"] - stats.get("bytes_in_use", 0), f"the device ({device.device_kind})"))
    free, where = min(rooms)
    return Room(max(0, free), where)


def in_words(size: float) -> str:
    """Bytes as people say them.

    >>> in_words(3.2e10)
    '32.0 GB'
    """
    for unit, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1e6:,.1f} MB"


def _of_limits() -> Iterator[Room]:
    """Of ``ulimit -v`` and ``ulimit -d``."""
    process = psutil.Process()
    for name in ("RLIMIT_AS", "RLIMIT_DATA"):
        if hasattr(psutil, name):
            limit = process.rlimit(getattr(psutil, name))[0]
            if 0 <= limit < UNLIMITED:
                used = process.memory_info().vms if name == "RLIMIT_AS" else process.memory_info().data
                yield Room(limit - used, f"this process, by its limit {name},")


def _of_control_groups() -> Iterator[Room]:
    """Of containers and services, in either version of Linux's control groups, the outer ones too."""
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
            with suppress(OSError, ValueError):  # "max" stands for no limit
                most = int((folder / limit).read_text())
                if most < UNLIMITED:
                    free = most - int((folder / used).read_text()) + _reclaimable(folder)
                    yield Room(free, "the control group (container) of this process")
            if folder == base:
                break


def _reclaimable(folder: Path) -> int:
    """Bytes of files that were read and can be let go of, which count as used."""
    with suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0

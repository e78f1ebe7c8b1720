"""Compiled programs: a cache on the disk, and a limit on their number in a process.

Every new shape adds programs to the process, and on a CPU each takes dozens of memory maps: about 340 for a new k of
k-means, 780 for a mixture. Linux allows a process 65,530. Beyond them LLVM ends it, without a Python exception.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.experimental.compilation_cache import compilation_cache

from jaxcluster.core.compilation import cache_folder, clear_programs

MAPS_FILE = Path("/proc/self/maps")
"""File with one line for each memory map, on Linux; no other platform has such a limit."""

MAX_MEMORY_MAPS = 12_000
"""Memory maps of a process above which its programs are dropped, far below the limit: other libraries need maps too."""

CHECK_SECONDS = 0.5
"""Least time in seconds between two counts of the maps, in which at most a few thousand are added."""

COUNT_SHARE = 0.01
"""Largest share of the time that counts may take. Measured: a count of 20,000 maps takes 24 ms."""

MIN_COMPILE_SECONDS = 0.005
"""Least compile time, in seconds, of programs in the disk cache."""

FORK_WARNING = (
    "this process has computed with JAX, whose threads a fork does not copy: a child that computes may hang. Start "
    "children by multiprocessing.get_context('spawn') or 'forkserver'; joblib's loky, which n_jobs of scikit-learn "
    "uses, does so by itself."
)

_lock = threading.Lock()
_initialized = False
_next_check = 0.0


def limit_programs() -> None:
    """Drop all compiled programs of the process if they take too many memory maps.

    For the beginning of work on concrete arrays. Programs that are needed again are compiled again, or read from
    JAX's persistent compilation cache if it is on. Programs that run in other threads are not stopped.
    """
    global _next_check
    if not _initialized:
        _initialize()
    if time.monotonic() < _next_check or not _lock.acquire(blocking=False):
        return
    try:
        start = time.monotonic()
        count = memory_maps()
        pause = max(CHECK_SECONDS, (time.monotonic() - start) / COUNT_SHARE)
        if count > MAX_MEMORY_MAPS and not isinstance(jnp.zeros(()), Tracer):
            clear_programs()
            gc.collect()  # programs are in reference cycles
            _trim_heap()
        _next_check = time.monotonic() + pause
    finally:
        _lock.release()


def enable_disk_cache() -> None:
    """Enable JAX's persistent compilation cache, so that processes share programs.

    A cache that the caller has set (``JAX_COMPILATION_CACHE_DIR``) or disabled (``JAX_ENABLE_COMPILATION_CACHE=false``)
    is not changed, and there is none if the folder is not writable.
    """
    settings = jax.config.values
    if settings["jax_compilation_cache_dir"] is not None or not settings["jax_enable_compilation_cache"]:
        return
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a disk that cannot be written to, a user without a home
        return
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
        compilation_cache.reset_cache()  # after a first compilation JAX would not read the setting again


def _initialize() -> None:
    """Enable the disk cache and a warning on forks, at the first computation of the process."""
    global _initialized
    with _lock:
        if _initialized:
            return
        _initialized = True
        enable_disk_cache()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=lambda: warnings.warn(FORK_WARNING, RuntimeWarning, stacklevel=2))


def _trim_heap() -> None:
    """Return freed memory to the system, for glibc, which keeps it otherwise."""
    # Measured: after dropping 4,000 maps of silhouettes the process falls from 405 MB to 265 MB, otherwise not at all.
    with suppress(OSError, AttributeError, TypeError):  # another C library; Windows
        ctypes.CDLL(None).malloc_trim(0)


def memory_maps() -> int:
    """Number of memory maps of the process; 0 if unknown."""
    try:
        with MAPS_FILE.open("rb") as lines:
            return sum(1 for _ in lines)
    except OSError:
        return 0

"""Compiled programs are kept on the disk, and let go before there are so many that the process dies.

Every new shape leaves its programs in the process, and on a CPU each holds dozens of memory maps: about 340 for a new
k of k-means, 780 for a mixture. Linux gives a process 65,530. Beyond them LLVM ends it, without a Python exception.
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
from jax.experimental.compilation_cache import compilation_cache

MAPS = Path("/proc/self/maps")
"""One line a memory map, on Linux; no other platform has such a limit."""

MOST_MAPS = 12_000
"""Memory maps of the process from which compiled programs are let go, far below the limit: others need maps too."""

INTERVAL = 0.5
"""Seconds between two looks, in which no more than a few thousand maps are made. A look takes some milliseconds."""

KEPT_SECONDS = 0.1
"""Programs that compile faster are not kept on the disk."""

FORKED = (
    "this process has computed with JAX, whose threads a fork does not copy: a child that computes may hang. Start "
    "children by multiprocessing.get_context('spawn') or 'forkserver'; joblib's loky, which n_jobs of scikit-learn "
    "uses, does so by itself."
)

_lock = threading.Lock()
_used = False
_next_look = 0.0


def make_room() -> None:
    """Lets go of all compiled programs of the process where they hold too many memory maps; else does next to nothing.

    For the beginning of work on concrete arrays. Programs that are needed again are compiled again, or read from
    JAX's persistent compilation cache where that is on. What runs in other threads goes on.
    """
    global _next_look
    if not _used:
        _begin()
    if time.monotonic() < _next_look or not _lock.acquire(blocking=False):
        return
    try:
        if memory_maps() > MOST_MAPS and not isinstance(jnp.zeros(()), jax.core.Tracer):
            jax.clear_caches()
            gc.collect()  # programs are held in cycles
            _trim()
        _next_look = time.monotonic() + INTERVAL
    finally:
        _lock.release()


def keep_on_disk() -> None:
    """Turns JAX's persistent compilation cache on, so that no process compiles what another one has.

    One that the caller has set (``JAX_COMPILATION_CACHE_DIR``) or switched off (``JAX_ENABLE_COMPILATION_CACHE=false``)
    stays as it is, and so does all where the folder cannot be written to.
    """
    if jax.config.jax_compilation_cache_dir is not None or not jax.config.jax_enable_compilation_cache:
        return
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a disk that cannot be written to, a user without a home
        return
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", KEPT_SECONDS)
        compilation_cache.reset_cache()  # it does not look at the folder again where something has been compiled


def cache_folder() -> Path:
    """The folder of programs within the user's cache: XDG_CACHE_HOME, or ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME")
    base = Path(home) if home and Path(home).is_absolute() else Path("~").expanduser() / ".cache"
    return base / "jaxcluster" / "xla"


def _begin() -> None:
    """At the first work of the process: programs are kept on the disk, and a fork is warned of from now on."""
    global _used
    with _lock:
        if _used:
            return
        _used = True
        keep_on_disk()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=lambda: warnings.warn(FORKED, RuntimeWarning, stacklevel=2))


def _trim() -> None:
    """Gives freed memory back to the system, where the C library is glibc: it keeps it for itself otherwise.

    Measured: with 4,000 maps of silhouettes let go, the process goes from 405 MB to 265 MB, and without this stays.
    """
    with suppress(OSError, AttributeError, TypeError):  # another C library; Windows
        ctypes.CDLL(None).malloc_trim(0)


def memory_maps() -> int:
    """How many memory maps the process has; 0 where that is not known."""
    try:
        with MAPS.open("rb") as lines:
            return sum(1 for _ in lines)
    except OSError:
        return 0

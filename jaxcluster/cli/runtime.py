"""What a command runs on: versions, devices, and the cache that spares a second run its compiling."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from jaxcluster.cli.errors import MistakeError, one_line

CACHE_MIN_SECONDS = 0.1
"""Programs that compile faster are not kept."""


def cache_folder() -> Path:
    """Where compiled programs are kept: JAX_COMPILATION_CACHE_DIR, or a folder of the user's cache."""
    if given := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME")
    base = Path(home) if home and Path(home).is_absolute() else Path.home() / ".cache"
    return base / "jaxcluster" / "xla"


def start() -> None:
    """Starts JAX, with its persistent compilation cache on if its folder can be written to."""
    import jax

    folder = cache_folder()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", CACHE_MIN_SECONDS)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where JAX_PLATFORMS names what is not installed
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise MistakeError(f"JAX finds no device with JAX_PLATFORMS={asked!r}: {one_line(error)}.") from error


def versions() -> dict[str, str]:
    """Of this package, of what it computes with, and of Python."""
    import jaxcluster

    installed = {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy", "scikit-learn")}
    return {"jaxcluster": jaxcluster.__version__, **installed, "python": platform.python_version()}


def device() -> dict[str, Any]:
    """The devices that JAX uses by default."""
    import jax

    devices = jax.devices()
    return {"backend": jax.default_backend(), "kind": devices[0].device_kind, "count": len(devices)}

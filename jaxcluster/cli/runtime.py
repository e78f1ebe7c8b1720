"""What a command runs on: versions and devices."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

from jaxcluster.cli.errors import MistakeError, one_line


def start() -> None:
    """Starts JAX, with its persistent compilation cache on."""
    import jax

    from jaxcluster.core.programs import enable_disk_cache

    enable_disk_cache()
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

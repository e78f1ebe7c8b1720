"""Provenance of a measurement: commit, versions, device, cores, date."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("jaxcluster", "jax", "jaxlib", "numpy", "scikit-learn")


def provenance(peers: Mapping[str, str], *, quick: bool, commit: str | None = None) -> dict[str, Any]:
    """The part of a record that all cases of one run have in common.

    Args:
        peers: versions of the peers that are installed.
        quick: whether the cases were shrunk; such figures are never published.
        commit: the commit to record where there is no repository to ask.
    """
    device = jax.devices()[0]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        **_commit(commit),
        "versions": {name: version(name) for name in LIBRARIES} | dict(peers),
        "python": platform.python_version(),
        "platform": device.platform,
        "device": cpu_model() if device.platform == "cpu" else device.device_kind,
        "devices": jax.device_count(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "dtype": "float32",
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def version(distribution: str) -> str:
    """The installed version; "checkout" for a package that is used without being installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "checkout"


def cpu_model() -> str:
    """The processor's own name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _commit(given: str | None) -> dict[str, Any]:
    if given:
        return {"commit": given, "dirty": None}
    commit = _git("rev-parse", "HEAD")
    # Results and their pages are written while the bench runs: they do not change what is measured.
    changed = _git("status", "--porcelain", "--", ".", ":(exclude)bench/results", ":(exclude)docs")
    return {"commit": commit or "unknown", "dirty": None if commit is None else bool(changed)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()

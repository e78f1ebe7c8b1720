"""The source tree to measure (this checkout, or a copy of a commit), and XLA flags for fast compilation."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from bench.provenance import ROOT


@contextmanager
def source(ref: str | None) -> Iterator[Path]:
    """The folder of the package: this checkout, or a temporary copy of the package and its tests at a commit."""
    if ref is None:
        yield ROOT
        return
    with tempfile.TemporaryDirectory(prefix="checkout-") as folder:
        # All tests: the registry of algorithms among them has moved between commits.
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", ref, "jaxcluster", "tests"], check=True, capture_output=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


def commit_of(ref: str | None) -> str | None:
    """The commit that a name stands for; None for this checkout.

    Raises:
        ValueError: it stands for none.
    """
    if ref is None:
        return None
    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{ref!r} is not a commit of this repository.")
    return done.stdout.strip()


def quick_to_compile() -> dict[str, str]:
    """Variables under which XLA compiles for a processor and optimizes little: most of the time of tests is its."""
    flags = [
        "--xla_backend_optimization_level=0",
        "--xla_disable_hlo_passes=while-loop-invariant-code-motion,simplify-while-loops",
    ]
    if version("jaxlib").startswith("0.10."):  # a flag that XLA does not know ends the process
        flags.append("--xla_cpu_use_fusion_emitters=false")
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join([*flags, os.environ.get("XLA_FLAGS", "")])}

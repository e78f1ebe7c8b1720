"""Versions, devices and processes of a command; ``jaxcluster info`` shows them, and ``launch`` starts some more."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib import metadata
from typing import Annotated, Any

import typer

from jaxcluster.cli.errors import UserError, one_line
from jaxcluster.core import signals

ADDRESS, COUNT, INDEX = "JAXCLUSTER_ADDRESS", "JAXCLUSTER_PROCESSES", "JAXCLUSTER_PROCESS"
"""Environment variables of `jaxcluster.distributed`, whose import takes longer than an error should."""

COMPILATION = "/jax/core/compile/"
"""Prefix of the events of JAX that trace, lower and compile a program."""

_clock = {"began": time.perf_counter(), "compiled": 0.0}


def begin() -> None:
    """Start the clock of a command."""
    _clock.update(began=time.perf_counter(), compiled=0.0)


def compile_seconds() -> float:
    """Seconds that this command has spent on compilation so far."""
    return _clock["compiled"]


def _count(event: str, duration_secs: float, **kwargs: Any) -> None:
    if event.startswith(COMPILATION):
        _clock["compiled"] += duration_secs


def seconds() -> float:
    """Seconds since the command began."""
    return time.perf_counter() - _clock["began"]


def start() -> None:
    """Start JAX, with its persistent compilation cache on."""
    import jax

    from jaxcluster.core.programs import enable_disk_cache

    enable_disk_cache()
    if "listens" not in _clock:
        jax.monitoring.register_event_duration_secs_listener(_count)
        _clock["listens"] = True
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where JAX_PLATFORMS names what is not installed
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(f"JAX finds no device with JAX_PLATFORMS={asked!r}: {one_line(error)}.") from error


def joined_by_launch(method: str) -> bool:
    """True in a process of `jaxcluster launch`; the method must take rows that are spread over processes.

    Raises:
        UserError: it does not.
    """
    if ADDRESS not in os.environ:
        return False
    from jaxcluster.estimators import ESTIMATORS
    from jaxcluster.estimators.registry import one_process_error

    if not ESTIMATORS.info(method).takes_processes:
        raise UserError(str(one_process_error(ESTIMATORS.info(method))))
    return True


def follows() -> bool:
    """True in a process of `jaxcluster launch` that is not the first."""
    return os.environ.get(INDEX, "0") != "0"


def join() -> None:
    """Join the job of several processes, before JAX starts."""
    from jaxcluster import distributed

    try:
        distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise UserError(one_line(error)) from error
    if not distributed.is_first():
        signals.set_stop_message("")


def versions() -> dict[str, str]:
    """Versions of this package, of the packages that it computes with, and of Python."""
    import jaxcluster

    installed = {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy", "scikit-learn")}
    return {"jaxcluster": jaxcluster.__version__, **installed, "python": platform.python_version()}


def device() -> dict[str, Any]:
    """Backend, kind and number of the devices that JAX uses by default."""
    import jax

    devices = jax.devices()
    return {"backend": jax.default_backend(), "kind": devices[0].device_kind, "count": len(devices)}


def info() -> None:
    """Show versions, devices, algorithms and where compiled programs are kept."""
    import jax

    from jaxcluster.cli import console
    from jaxcluster.estimators import ESTIMATORS

    printer = console.stdout()
    start()
    devices = device()
    facts = [
        *versions().items(),
        ("backend", devices["backend"]),
        ("devices", f"{devices['count']} × {devices['kind']}"),
        ("64-bit numbers", "on" if jax.config.values["jax_enable_x64"] else "off"),
    ]
    console.show_table(printer, "What runs here", ("", ""), facts, text=(0, 1))
    algorithms = [(name, ESTIMATORS.info(name).title) for name in ESTIMATORS]
    console.show_table(printer, "Algorithms", ("", ""), algorithms, text=(0, 1))
    console.say(printer, f"Compiled programs: {jax.config.values['jax_compilation_cache_dir'] or 'not kept'}")


def launch(
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND", show_default=False, help="A command, without jaxcluster.")
    ],
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            "-p",
            metavar="N",
            min=1,
            show_default=False,
            help="Number of processes: 2 by default, and with --ray one on each node.",
        ),
    ] = None,
    by_ray: Annotated[
        bool, typer.Option("--ray", help="Start them by Ray, on its cluster or on this machine. Needs the extra ray.")
    ] = False,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="With --ray: give each process all GPUs of a node, else the CPU.")
    ] = False,
    restarts: Annotated[
        int, typer.Option("--restarts", metavar="N", min=0, help="With --ray: begin again where a process is lost.")
    ] = 0,
) -> None:
    """Run a fit as several processes, each with its part of the rows.

    One of them prints and writes. Where one ends with an error or is killed, the job ends. On many machines let Ray
    start the command, by --ray, or Slurm, Open MPI or Kubernetes, with --distributed.

    For example:

      jaxcluster launch --processes 2 -- fit kmeans rows.npy --k 10 --out runs/rows

      jaxcluster launch --ray -- fit kmeans /shared/rows.npy --k 10 --out /shared/rows
    """
    from jaxcluster import distributed

    if command[0] != "fit":
        raise UserError(f"launch runs fit, and not {command[0]}.")
    if not by_ray and (gpu or restarts):
        raise UserError(f"{'--gpu' if gpu else '--restarts'} is for --ray: without it the processes share the CPU.")
    signals.set_stop_message("")  # the first process of the job says what it leaves
    try:
        if by_ray:
            from jaxcluster import ray

            ray.launch(command, processes, use_gpu=gpu, max_failures=restarts)
        else:
            distributed.launch([sys.executable, "-m", "jaxcluster", *command], processes or 2)
    except (distributed.LaunchError, ImportError) as error:
        raise UserError(str(error)) from error

"""Fits of several processes, on one machine or many: the same estimators, with ``mesh=`` over the devices of all.

Each process passes its own rows and gets their labels; centers and other results are the same in all of them. `launch`
starts processes on this machine; Slurm, Open MPI and Kubernetes start them on many.

>>> from jaxcluster import distributed
>>> distributed.is_first(), distributed.count()
(True, 1)
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

import jax

from jaxcluster.core import signals
from jaxcluster.core.processes import gather, gather_rows

__all__ = [
    "LaunchError",
    "count",
    "gather",
    "gather_rows",
    "has_joined",
    "index",
    "initialize",
    "is_first",
    "launch",
    "leave",
]

ADDRESS, COUNT, INDEX = "JAXCLUSTER_ADDRESS", "JAXCLUSTER_PROCESSES", "JAXCLUSTER_PROCESS"
"""Environment variables by which `launch` tells a process of its job."""

PIPE = "JAXCLUSTER_PIPE"
"""Environment variable with the number of the end of a pipe that closes when the process of `launch` is gone."""

NOTICE = "JAXCLUSTER_NOTICE"
"""Environment variable with the number of the end of a pipe by which the first process says that it fails."""

START_SECONDS, HEARTBEAT_SECONDS, SHUTDOWN_SECONDS = 60, 10, 20
"""Time to wait for all processes at the start, for a sign of life of each, and for all of them at the end."""

SPARE_SECONDS = 10
"""Time beyond ``start_timeout`` after which XLA would abort the process itself."""

POLL_SECONDS, GRACE_SECONDS = 0.1, 5.0
"""Time between two looks at the processes, and time that one has to end before it is killed."""

_notice: int | None = None


def __dir__() -> list[str]:
    return __all__


class LaunchError(RuntimeError):
    """A job that did not end well; the message names the process."""


def initialize(
    address: str | None = None,
    processes: int | None = None,
    index: int | None = None,
    *,
    expected: int | None = None,
    start_timeout: int = START_SECONDS,
    heartbeat_timeout: int = HEARTBEAT_SECONDS,
    shutdown_timeout: int = SHUTDOWN_SECONDS,
) -> None:
    """Join the job, before anything is computed; afterwards `jaxcluster.sharding.row_mesh` has the devices of all.

    An exception that nobody catches ends this process at once, and so the job: the others would wait for it. SIGTERM
    ends it too, as any other process: JAX's preemption service, which would only take note of the signal, is off.
    Where the process of `launch` is gone, the processes of its job end. A process that has joined a job already, as a
    worker of Ray has, stays as it is.

    Args:
        address: "host:port" of the first process; None for that of `launch`, of Slurm, Open MPI or Kubernetes.
        processes: number of processes; None as ``address``.
        index: number of this process, from 0; None as ``address``.
        expected: number of processes that the job must have, where it is found out; None for any.
        start_timeout: seconds to wait for all processes.
        heartbeat_timeout: seconds without a sign of life after which a process counts as dead, and the job ends.
        shutdown_timeout: seconds that a process waits at its end for the others.

    Raises:
        ValueError: no address was given, and no job was found.
        RuntimeError: the job has more or fewer processes than were asked for. Where not all of them come in time, the
            process says so and ends with exit code 1.
    """
    if jax.distributed.is_initialized():
        _check_number(expected if expected is not None else processes)
        return
    if address is None and ADDRESS in os.environ:
        address, processes, index = os.environ[ADDRESS], int(os.environ[COUNT]), int(os.environ[INDEX])
    timeouts: dict[str, Any] = {
        "initialization_timeout": start_timeout + SPARE_SECONDS,
        "heartbeat_timeout_seconds": heartbeat_timeout,
        "shutdown_timeout_seconds": shutdown_timeout,
    }
    # XLA's own end of a job that is not complete is an abort with a stack of C++.
    watch = threading.Timer(start_timeout, _end_incomplete, (address, processes, start_timeout))
    watch.daemon = True
    watch.start()
    preemption = jax.config.values["jax_enable_preemption_service"]
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(address, processes, index, **timeouts)
    except ValueError as error:
        raise ValueError(
            "no job of several processes was found: neither Slurm, Open MPI nor Kubernetes has started this one. Pass "
            "address=, processes= and index=, or start it by jaxcluster launch."
        ) from error
    finally:
        watch.cancel()
        jax.config.update("jax_enable_preemption_service", preemption)
    _check_number(expected if expected is not None else processes)
    sys.excepthook = _end_on_error
    # Taken out: the pipes are not open in what this process starts.
    global _notice
    _notice = int(os.environ.pop(NOTICE)) if NOTICE in os.environ else None
    if (end := os.environ.pop(PIPE, None)) is not None:
        threading.Thread(target=_end_without_launcher, args=(int(end),), daemon=True).start()


def _check_number(wanted):
    if wanted is not None and jax.process_count() != wanted:
        raise RuntimeError(f"the job has {jax.process_count()} processes, and {wanted} were asked for.")


def _end_without_launcher(pipe):
    """End this process when the other end of a pipe is closed: by SIGTERM, so that it saves what it can."""
    os.read(pipe, 1)
    if signals.stop_requested() is None:  # a second signal would break off what it saves
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    leave(1)


def _end_incomplete(address, processes, seconds):
    of = "" if processes is None else f" of {processes}"
    where = "" if address is None else f" at {address}"
    print(f"jaxcluster: not all processes{of} came within {seconds} seconds{where}.", file=sys.stderr)
    leave(1)


def _end_on_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.__excepthook__(kind, error, trace)
    leave(1)


def leave(code: int) -> None:
    """End this process without Python's own end: after an error, which ends the others too, or with 0, as they end.

    Args:
        code: exit code. With 0 it first waits for the others to end too, for ``shutdown_timeout`` of `initialize`; with
            any other it waits for nobody. The first process of `launch` lets that end the others before itself, as XLA
            would abort them with a page of its own messages.
    """
    if code == 0 and has_joined():
        # The process that coordinates the job must not be gone before the others have said that they leave.
        jax.distributed.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    if _notice is not None and code not in (0, *signals.EXIT_CODES.values()) and is_first():
        _wait_to_be_ended(_notice, code)
    os._exit(code)


def _wait_to_be_ended(notice, code):
    """Let the process of `launch` end the others, and then this one, by SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGTERM, lambda *_: os._exit(code))
    with suppress(OSError):  # that process is gone
        os.write(notice, b"\0")
        time.sleep(2 * GRACE_SECONDS)


def count() -> int:
    """Number of processes of the job; 1 without one."""
    return jax.process_count()


def index() -> int:
    """Number of this process in the job, from 0."""
    return jax.process_index()


def has_joined() -> bool:
    """True in a process that `initialize` has made one of a job."""
    return sys.excepthook is _end_on_error


def is_first() -> bool:
    """True in the one process that prints and writes."""
    return jax.process_index() == 0


def launch(command: Sequence[str], processes: int, *, environment: Mapping[str, str] | None = None) -> None:
    """Run a command as several processes of one job on this machine, on its CPU, until all have ended.

    Each process finds its job by `initialize`. Where one ends with an error or is killed, the others are ended; and all
    of them are where this process is gone.

    Args:
        command: program and arguments, the same for each process.
        processes: their number.
        environment: variables beside those of this process.

    Raises:
        LaunchError: a process ended with an error, or was killed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    shared = {"JAX_PLATFORMS": "cpu", **os.environ, **(environment or {}), ADDRESS: address, COUNT: str(processes)}
    started: list[Any] = []
    ending = threading.Lock()

    def end():
        with ending:  # only the first call finds processes that run: a second signal would break off what they save
            _end(started)

    # By the hook this process waits for the others at a signal, which ends it otherwise after half a second.
    with _pipe() as watched, _pipe() as notices, signals.on_stop(end):
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL}
        if watched and notices:
            shared |= {PIPE: str(watched[0]), NOTICE: str(notices[1])}
            # In groups of their own: Ctrl-C of the terminal reaches this process alone, which passes it on once.
            options |= {"pass_fds": (watched[0], notices[1]), "process_group": 0}
        try:
            for number in range(processes):
                started.append(subprocess.Popen(list(command), env={**shared, INDEX: str(number)}, **options))
            _wait(started, notices)
        finally:
            end()


@contextmanager
def _pipe():
    """The ends of a pipe, to read from and to write to; None where processes cannot share it."""
    if os.name != "posix":
        yield None
        return
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _wait(started, notices):
    """Wait until all processes have ended well.

    Raises:
        LaunchError: one has not.
    """
    while True:
        signals.check_stopped()
        noticed = notices and select.select(notices[:1], [], [], 0)[0]
        # A process that ended by itself is why the first one, which misses it, asks for the end of the job.
        if noticed and not any(process.poll() for process in started[1:]):
            _end(started[1:])
            _end(started[:1])
            raise LaunchError(
                f"process 0 of {len(started)} ended with exit code {started[0].returncode}, so the others were ended."
            )
        codes = [process.poll() for process in started]
        if any(codes):
            # The end of one ends the others soon: the cause is a signal of someone else, before an error, before an
            # abort of XLA, which misses a process.
            number, code = min(enumerate(codes), key=lambda each: _rank(each[1]))
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            how += " as another one gave no sign of life" if code == -signal.SIGABRT else ""
            raise LaunchError(f"process {number} of {len(started)} {how}, so the others were ended.")
        if all(code == 0 for code in codes):
            return
        time.sleep(POLL_SECONDS)


def _rank(code: int | None) -> int:
    """Order of exit codes as the cause of the end of a job."""
    if not code:
        return 3
    return 1 if code > 0 else 2 if code == -signal.SIGABRT else 0


def _end(started: Sequence[Any]) -> None:
    """End the processes that still run: by the signal to this one, or SIGTERM, and by SIGKILL if they do not answer."""
    running = [process for process in started if process.poll() is None]
    for process in running:
        process.send_signal(signals.stop_requested() or signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

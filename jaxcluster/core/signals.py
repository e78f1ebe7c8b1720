"""Graceful shutdown on SIGINT, SIGTERM and SIGHUP, within two seconds, whatever the main thread is doing.

Python runs signal handlers between two instructions of the main thread, also inside callbacks of JAX, the garbage
collector or a finalizer, where an exception is printed and dropped. So the handlers here only set a flag, and long
loops call `check_stopped` where they can be left.

Inside a compiled program or the compiler Python runs no handler for minutes. There the operating system's handler
writes the signal's number to a socket, and a thread that reads from it ends the process.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType

from jaxcluster.core.messages import warn

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""Signals that request a process to stop; SIGHUP is that of a terminal that was closed."""

COMMIT_LOCK = threading.RLock()
"""Lock around the renames of finished files, so that a process does not end between two of them."""

NOTHING_WRITTEN = "nothing was written."

EXIT_CODES: dict[int, int] = {number: 130 if number == signal.SIGINT else 75 for number in STOP_SIGNALS}
"""Exit codes: 128 + the signal's number, as in shells, and EX_TEMPFAIL of sysexits.h: run again to resume."""

EXIT_WORDS = {130: "Interrupted", 75: "Terminated"}
"""Word for each exit code in messages."""

GRACE_SECONDS = 0.5
"""Seconds for the main thread to reach its next `check_stopped`; checkpoints are saved in the rest of two seconds."""

SECOND_PRESS_SECONDS = 2.0
"""Seconds after Ctrl-C in which another one raises KeyboardInterrupt, also in the next fit of a loop over fits."""

INTERRUPTED_MESSAGE = (
    "Ctrl-C ended the fit early: its result is the best state so far, and its status INTERRUPTED. Press Ctrl-C twice "
    "to leave a program that fits again and again."
)
"""Warning of a fit that Ctrl-C ended."""

FRAGILE = ("jax", "jaxlib", "scipy", "threading", "concurrent")
"""Packages in which an exception of a signal handler does harm.

JAX's callbacks drop it, so that the program goes on for minutes; and its compiler works in threads: one that the main
thread no longer waits for goes on, and the process crashes if it ends before. So do the threads of a search in SciPy's
trees when the main thread has left with the arrays that they work on."""

_requested: int | None = None
_keeps_result = False
_stoppable = False
_answered = False
_last_press = -math.inf
_stop_message = NOTHING_WRITTEN
_hooks: list[Callable[[], None]] = []


class Stopped(KeyboardInterrupt):
    """Exception of a process that a signal requests to stop.

    Attributes:
        signal: number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


def request_stop(number: int, frame: object = None) -> None:
    """Signal handler that sets the flag."""
    global _requested
    _requested = number


def stop_requested() -> int | None:
    """Number of the signal that requested to stop; None without one."""
    return _requested


def check_stopped() -> None:
    """Raise `Stopped` if the process is requested to stop, unless a fit already ends for it with what it has."""
    if _requested is not None and not (_keeps_result and _answered):
        raise Stopped(_requested)


@contextmanager
def on_stop(hook: Callable[[], None]) -> Iterator[None]:
    """Context in which ``hook`` is called, from another thread, if the process has to end inside the block.

    It is not called when the block is left, be it by an exception.
    """
    _hooks.append(hook)
    try:
        yield
    finally:
        _hooks.remove(hook)


def run_hooks() -> None:
    """Call the hooks of all active blocks, the innermost first, in spite of exceptions."""
    for hook in reversed(_hooks):
        with suppress(Exception):
            hook()


@contextmanager
def interruptible() -> Iterator[None]:
    """Context in which Ctrl-C sets the flag, so that the block ends at its next `check_stopped`.

    A second Ctrl-C raises where that does no harm (see `stoppable`), a third anywhere. Handlers of the caller and
    threads other than the main one are not changed.
    """
    global _stoppable
    if not _takes_over():
        yield
        return
    outer, _stoppable = _stoppable, False
    try:
        with nullcontext() if outer else _handler():
            yield
            check_stopped()  # for a signal at the end of the block
    finally:
        _stoppable = outer


@contextmanager
def stoppable() -> Iterator[None]:
    """Context of a public function, in which Ctrl-C raises KeyboardInterrupt where that does no harm.

    Inside the packages of `FRAGILE` the flag is set, and the exception is raised by the next `check_stopped` or at the
    end of the block. A fit in the block ends as it does without it.
    """
    global _stoppable
    if _stoppable or not _takes_over():
        yield
        return
    _stoppable = True
    try:
        with _handler():
            yield
            check_stopped()
    finally:
        _stoppable = False


def _takes_over():
    """True where a block of the main thread may answer Ctrl-C, as nobody else has a handler for it."""
    if threading.current_thread() is not threading.main_thread():
        return False
    return _stoppable or signal.getsignal(signal.SIGINT) is signal.default_int_handler


@contextmanager
def _handler():
    """The handler: the first Ctrl-C sets the flag, the second raises where that does no harm, the third anywhere."""
    presses = 0

    def press(number: int, frame: FrameType | None) -> None:
        global _keeps_result
        nonlocal presses
        presses += 1
        request_stop(number)
        if presses > 1:
            _keeps_result = False
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if (_stoppable or presses > 1) and _is_safe(frame):
            check_stopped()

    signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        clear_request()


def _is_safe(frame):
    """True if no package of `FRAGILE` is at work in a frame or in one of its callers."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in FRAGILE:
            return False
        frame = frame.f_back
    return True


@contextmanager
def keeping_result() -> Iterator[None]:
    """Context of a fit that Ctrl-C ends early, with its best state so far and a warning, where it asks `interrupted`.

    A second Ctrl-C raises KeyboardInterrupt, as `interruptible` has it. In such a context, in that of a process with
    handlers of its own and in other threads than the main one nothing changes.
    """
    global _keeps_result, _answered, _last_press
    pressed_again = time.monotonic() - _last_press < SECOND_PRESS_SECONDS
    if pressed_again or not _takes_over():
        yield
        return
    _keeps_result, _answered = True, False
    try:
        with interruptible():
            yield
            if _answered:
                _last_press = time.monotonic()
                clear_request()
                warn(INTERRUPTED_MESSAGE)
    finally:
        _keeps_result = False


def interrupted() -> bool:
    """True if Ctrl-C asks the fit to end with what it has; raises `Stopped` where it asks the whole process to end."""
    global _answered
    if _requested is None:
        return False
    if not _keeps_result:
        check_stopped()
    _answered = True
    return True


def clear_request() -> None:
    """Clear the flag."""
    global _requested
    _requested = None


def set_stop_message(message: str) -> None:
    """Set the message on what the process leaves if it is stopped from now on; "" where another one says so."""
    global _stop_message
    _stop_message = message


def stop_message() -> str:
    """Message on what the process leaves if it is stopped."""
    return _stop_message


def exit_message(code: int) -> str:
    """Message of a stopped process: the signal, and what it leaves; "" where another one says so."""
    return f"{EXIT_WORDS[code]}: {stop_message()}\n" if stop_message() else ""


class SignalWatcher:
    """Thread that waits for signals, and ends the process if the main thread does not."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._signals, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)

    def start(self) -> None:
        """Install the handlers; a signal that the parent process ignores stays ignored."""
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, request_stop)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._wait, name="signals", daemon=True).start()

    def end(self) -> None:
        """Declare that the main thread ends the process itself."""
        self._ended.set()

    def _wait(self) -> None:
        first = True
        while received := self._signals.recv(1):
            if received[0] not in EXIT_CODES:
                continue
            request_stop(received[0])  # the main thread may run its handler much later
            if not first:
                _exit(EXIT_CODES[received[0]])
            first = False
            threading.Thread(target=self._end_soon, args=(received[0],), name="stop", daemon=True).start()

    def _end_soon(self, number: int) -> None:
        if self._ended.wait(GRACE_SECONDS):
            return
        # Without the lock: a hook waits for a checkpoint of the main thread, which takes the lock to rename it.
        run_hooks()
        with COMMIT_LOCK:
            # The process may have ended by itself while this thread waited for the lock.
            if self._ended.is_set():
                return
            with suppress(OSError, ValueError, AttributeError):  # stderr is closed, or its terminal
                sys.stderr.write(exit_message(EXIT_CODES[number]))
            _exit(EXIT_CODES[number])


def _exit(code: int) -> None:
    """End the process without waiting for any thread."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # closed, or a pipe without a reader
            continue
    os._exit(code)

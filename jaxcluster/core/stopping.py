"""Stopping a long computation on request, by a flag: a signal handler that raises may raise where nobody hears it.

Python runs signal handlers between two instructions of the main thread, also inside callbacks that JAX, the garbage
collector or an object's finalizer calls. An exception that is raised there is printed and dropped, and the computation
goes on. So the handlers here only set a flag. Long loops look at it (`look`) where they can be left.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""The signals that ask a process to stop."""

COMMIT = threading.RLock()
"""Held while finished files are renamed to their places, so that a process does not end between two renames."""

NOTHING = "nothing was written."

_asked: int | None = None
_left = NOTHING
_hooks: list[Callable[[], None]] = []


class Stopped(KeyboardInterrupt):
    """A signal has asked the process to stop.

    Attributes:
        signal: its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


def ask(number: int, frame: object = None) -> None:
    """Sets the flag: a signal handler."""
    global _asked
    _asked = number


def asked() -> int | None:
    """The signal that has asked to stop; None without one."""
    return _asked


def look() -> None:
    """Raises `Stopped` where the process has been asked to stop."""
    if _asked is not None:
        raise Stopped(_asked)


@contextmanager
def on_stop(hook: Callable[[], None]) -> Iterator[None]:
    """While the block runs, ``hook`` is called if the process has to end before the block can be left.

    It is called from another thread. What is done when the block is left in the ordinary way, by an exception too, is
    not its business.
    """
    _hooks.append(hook)
    try:
        yield
    finally:
        _hooks.remove(hook)


def run_hooks() -> None:
    """Calls the hooks of all blocks that are running, the innermost first. One that fails does not stop the others."""
    for hook in reversed(_hooks):
        with suppress(Exception):
            hook()


@contextmanager
def interruptible() -> Iterator[None]:
    """Lets Ctrl-C set the flag while the block runs, which then ends at its next `look`; a second one ends it at once.

    Handlers of the caller's own are left alone, and so are threads other than the main one.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def once(number: int, frame: object) -> None:
        ask(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, once)
    try:
        yield
        look()  # a signal in the last moments of the block is not lost
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        clear()


def clear() -> None:
    """Takes the flag back."""
    global _asked
    _asked = None


def leave(words: str) -> None:
    """Says what the process leaves if it is stopped from now on."""
    global _left
    _left = words


def left() -> str:
    """What the process leaves if it is stopped, in words."""
    return _left

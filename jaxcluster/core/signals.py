"""How a process ends when a signal asks it to: within two seconds, whatever the main thread is doing.

The main thread may be inside a compiled program or the compiler for minutes, where Python runs no handler. The
operating system's handler writes the signal's number to a socket, and a thread that reads from it sees to the end.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

from jaxcluster.core import stopping

CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}
"""Exit codes: 128 + the signal's number, as shells have it, and EX_TEMPFAIL of sysexits.h: run again to go on."""

WORDS = {130: "Interrupted", 75: "Terminated"}
"""What is said of each."""

GRACE = 0.5
"""Seconds that the main thread has to come to its next look at the flag. Checkpoints are saved in the rest of two."""


def last_words(code: int) -> str:
    """What a process says that is stopped: how, and what it leaves."""
    return f"{WORDS[code]}: {stopping.left()}\n"


class Watch:
    """Waits for signals, and ends the process where the main thread does not."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._signals, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)

    def start(self) -> None:
        """From now on signals set the flag. One that the caller of the process has switched off stays so."""
        for number in stopping.SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, stopping.ask)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._wait, name="signals", daemon=True).start()

    def end(self) -> None:
        """The main thread is about to end the process itself."""
        self._ended.set()

    def _wait(self) -> None:
        first = True
        while received := self._signals.recv(1):
            if received[0] not in CODES:
                continue
            stopping.ask(received[0])  # at once: the main thread may be long in running its handler
            if not first:
                _exit(CODES[received[0]])
            first = False
            threading.Thread(target=self._end_soon, args=(received[0],), name="stop", daemon=True).start()

    def _end_soon(self, number: int) -> None:
        if self._ended.wait(GRACE):
            return
        with stopping.COMMIT:
            if self._ended.is_set():
                return
            stopping.run_hooks()
            sys.stderr.write(last_words(CODES[number]))
            _exit(CODES[number])


def _exit(code: int) -> None:
    """Ends the process without waiting for any thread."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # closed, or a pipe that nobody reads
            continue
    os._exit(code)

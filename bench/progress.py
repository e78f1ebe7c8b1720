"""Progress of a long run on stderr, on a terminal or in a file."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS = 30.0
"""Seconds between two lines."""


@contextmanager
def progress(text: Callable[[], str], seconds: float = SECONDS) -> Iterator[None]:
    """Context in which a thread prints a line every so many seconds: the run is followed even within a long trial.

    Args:
        text: () -> the state of the run in words.
        seconds: between two lines.
    """
    stream, begin, ended = sys.stderr, time.monotonic(), threading.Event()  # trials may replace sys.stderr

    def tell() -> None:
        while not ended.wait(seconds):
            print(f"{text()}, after {time.monotonic() - begin:.0f} s", file=stream, flush=True)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

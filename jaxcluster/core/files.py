"""Files and folders that are there whole or not at all, and places that one process at a time may write to."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import secrets
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from jaxcluster.core.signals import COMMIT_LOCK

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LONGEST_NAME = 200
"""Bytes of a file's name to which something may be added. Most disks take 255."""

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Of Linux: paths as the process has them; two names change places in one step."""


class HeldError(OSError):
    """Another process has a place.

    Attributes:
        holder: what it said of itself; empty where that cannot be read.
    """

    def __init__(self, path: Path, holder: dict[str, Any]) -> None:
        super().__init__(errno.EWOULDBLOCK, "another process holds it", str(path))
        self.holder = holder


class Lock:
    """A place that one process at a time may have: a locked file, which the system lets go of when the process ends.

    The file says who has it. It is deleted when it is let go.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self, holder: dict[str, Any]) -> None:
        """Takes the place.

        Raises:
            HeldError: another process has it.
            OSError: the file cannot be made.
        """
        said = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), **holder}).encode()
        while self._descriptor is None:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _lock(descriptor, self._path)
                with suppress(FileNotFoundError):  # deleted by the one that had it, between opening and locking
                    if os.path.samestat(os.fstat(descriptor), os.stat(self._path)):
                        os.ftruncate(descriptor, 0)
                        os.write(descriptor, said)
                        self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    os.close(descriptor)

    def let_go(self) -> None:
        """Gives the place back."""
        if self._descriptor is not None:
            with suppress(OSError):
                self._path.unlink()
            os.close(self._descriptor)
            self._descriptor = None


def _lock(descriptor: int, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            holder = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            holder = {}
        raise HeldError(path, holder if isinstance(holder, dict) else {}) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # some network disks have no locks
            raise


def take_place(new: Path, place: Path, aside: Path) -> None:
    """Renames a finished folder to its place. What was there goes to ``aside``, and stays where it is if that fails.

    On Linux the two folders change places in one step, so that there is a whole one at every moment. Elsewhere the old
    one goes aside first, and comes back if the other does not take its place.
    """
    with COMMIT_LOCK:
        if not place.exists():
            with suppress(OSError):  # another has taken it since: see below
                new.rename(place)
                return
        if _exchange(new, place):
            with suppress(OSError):  # the new one is in its place
                new.rename(aside)
            return
        if place.exists():
            place.rename(aside)
        try:
            new.rename(place)
        except BaseException:  # an interrupt too must not lose what was there
            if aside.exists():
                aside.rename(place)
            raise


def _exchange(a: Path, b: Path) -> bool:
    """Lets two folders change places; False where the system cannot."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return rename is not None and rename(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) == 0


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file beside its place, to the disk, and renames it: a reader sees the old one or the new one."""
    beside = path.with_name(f".{short_name(path.name)}.{secrets.token_hex(4)}")
    try:
        write_new(beside, content)
        with COMMIT_LOCK:
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_new(path: Path, content: bytes) -> None:
    """Writes a file that is not there yet, to the disk."""
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def short_name(name: str) -> str:
    """A file's name, to which something can be added: a long one is cut, and ends in a digest of the whole."""
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST_NAME:
        return name
    start = encoded[: LONGEST_NAME - 17].decode("utf-8", errors="ignore")
    return f"{start}-{hashlib.sha256(encoded).hexdigest()[:16]}"


def check_regular(path: Path) -> None:
    """Raises ValueError for what is there but is no file with a length: a pipe, a socket or a device.

    Reading one may wait for ever, or never come to an end.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(
            f"{path} is a pipe, a socket or a device, not a file. Write its content to a file first, and give that."
        )

"""Atomic replacement of files and folders, and locks on paths that one process at a time may write to."""

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

MAX_NAME_BYTES = 200
"""Longest file name in bytes to which a suffix may be added; most file systems allow 255."""

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Arguments of Linux's renameat2: paths relative to the working directory; exchange of two names in one step."""


class LockedError(OSError):
    """A path is locked by another process.

    Attributes:
        holder: content of its lock file; empty if it cannot be read.
    """

    def __init__(self, path: Path, holder: dict[str, Any]) -> None:
        super().__init__(errno.EWOULDBLOCK, "another process holds it", str(path))
        self.holder = holder


class Lock:
    """Lock file of a path, which the system unlocks when the process ends.

    It contains the identity of its holder, and is deleted on release.

    Args:
        path: lock file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self, holder: dict[str, Any]) -> None:
        """Lock the file.

        Args:
            holder: values on the holder, written to the file.

        Raises:
            LockedError: another process has the lock.
            OSError: the file cannot be created.
        """
        content = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), **holder}).encode()
        while self._descriptor is None:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _lock(descriptor, self._path)
                with suppress(FileNotFoundError):  # deleted by its last holder, between opening and locking
                    if os.path.samestat(os.fstat(descriptor), os.stat(self._path)):
                        os.ftruncate(descriptor, 0)
                        os.write(descriptor, content)
                        self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    os.close(descriptor)

    def release(self) -> None:
        """Unlock and delete the file."""
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
        raise LockedError(path, holder if isinstance(holder, dict) else {}) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # some network file systems have no locks
            raise


def replace_dir(new: Path, place: Path, backup: Path) -> None:
    """Replace a folder atomically.

    On Linux the two folders are exchanged in one step, so that a complete one exists at every moment. Elsewhere the old
    one is renamed first, and renamed back if the replacement fails.

    Args:
        new: complete new folder.
        place: path to replace, which need not exist.
        backup: path for the old folder, which stays at ``place`` if the replacement fails.
    """
    with COMMIT_LOCK:
        if not place.exists():
            with suppress(OSError):  # another process has created it since: see below
                new.rename(place)
                return
        if _exchange(new, place):
            with suppress(OSError):  # the replacement is done
                new.rename(backup)
            return
        if place.exists():
            place.rename(backup)
        try:
            new.rename(place)
        except BaseException:  # on an interrupt too the old folder must not be lost
            if backup.exists():
                backup.rename(place)
            raise


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two folders; returns False if the system cannot."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return rename is not None and rename(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) == 0


def write_atomic(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file atomically: a reader sees the old content or the new one.

    Args:
        path: of the file.
        content: of the file.
        durable: wait until the disk has the content; without it a crash of the machine may leave a part of it.
    """
    beside = path.with_name(f".{short_name(path.name)}.{secrets.token_hex(4)}")
    try:
        write_new(beside, content, durable=durable)
        with COMMIT_LOCK:
            beside.replace(path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        beside.unlink(missing_ok=True)


def write_new(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file that does not exist, synchronized to the disk if ``durable``."""
    try:
        with path.open("xb") as stream:
            stream.write(content)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
    except OSError as error:
        error.filename = str(path)  # a write does not know it
        raise


def short_name(name: str) -> str:
    """File name to which a suffix can be added: a long one is truncated, with a digest of the whole at its end."""
    encoded = os.fsencode(name)
    if len(encoded) <= MAX_NAME_BYTES:
        return name
    start = encoded[: MAX_NAME_BYTES - 17].decode("utf-8", errors="ignore")
    return f"{start}-{hashlib.sha256(encoded).hexdigest()[:16]}"


def check_regular(path: Path) -> None:
    """Raise ValueError for a pipe, a socket or a device: reading it may never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(
            f"{path} is a pipe, a socket or a device, not a file. Write its content to a file first, and give that."
        )

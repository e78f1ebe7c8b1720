"""Output folders and files, written whole or not at all: in a folder beside their place, then renamed.

The folder beside, ``.NAME.jaxcluster``, is locked while a command runs, so that one at a time writes to a place. It is
made when the command begins, so that a place that cannot be written to is reported before the work.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jaxcluster.cli.errors import UserError, user_errors
from jaxcluster.core import signals
from jaxcluster.core.atomic import Lock, LockedError, check_regular, replace_dir, short_name, write_atomic

CONFIG = "config.json"
"""The file that makes a folder a run: `write_config` writes it last."""

RESULTS = ("metrics.json", "sweep.json", "transport.json")
"""Further files, of which every run has one."""

SEAL = "sha256"
"""The key of a sealed file's own checksum, its last."""

FILES = "files"
"""The key of config.json that lists all files of a run, with the bytes and the SHA-256 of each."""


class Claim:
    """A place that is locked for this command until it ends.

    Args:
        out: as the user wrote it.
        beside: the folder beside it, on the same disk, so that a rename is atomic.
        overwrite: whether it may take the place of another output of this command line.
    """

    def __init__(self, out: Path, beside: Path, *, overwrite: bool) -> None:
        self.out, self._place, self._beside, self._overwrite = out, out.resolve(), beside, overwrite

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder to fill: it replaces the place when the block ends, and is removed if the block fails."""
        new, old = self._beside / "new", self._beside / "old"
        with user_errors():
            new.mkdir()
        try:
            yield new
            with user_errors():
                check_folder(self.out, overwrite=self._overwrite)
                replace_dir(new, self._place, backup=old)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)

    @contextmanager
    def file(self) -> Iterator[Path]:
        """A path to write to, which replaces the place when the block ends."""
        new = self._beside / f"new{self._place.suffix}"
        try:
            yield new
            with user_errors(), signals.COMMIT_LOCK:
                check_file(self.out, overwrite=self._overwrite)
                new.replace(self._place)
        finally:
            new.unlink(missing_ok=True)


@contextmanager
def claimed_folder(out: Path, *, overwrite: bool) -> Iterator[Claim]:
    """Lock the place of a run while the block runs.

    Raises:
        UserError: as `check_folder`; another command writes there, or was killed while it replaced a run; a disk
            that is full, or cannot be written to.
    """
    check_folder(out, overwrite=overwrite)
    with _claimed(out, overwrite=overwrite) as claim:
        yield claim


@contextmanager
def claimed_file(out: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> Iterator[Claim]:
    """Lock the place of a file while the block runs, as `claimed_folder` does; it may be none of the inputs."""
    _check_no_input(out, inputs)
    check_file(out, overwrite=overwrite)
    with _claimed(out, overwrite=overwrite) as claim:
        yield claim


def check_folder(out: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse a folder that cannot be made, or that holds something which must not be lost. Writes nothing."""
    place = _checked_place(out)
    with suppress(FileNotFoundError):  # the current folder was removed
        if Path.cwd().is_relative_to(place):
            raise UserError(f"{out} is the current folder or around it. Name a new one.")
    if not place.exists():
        return
    if not place.is_dir():
        raise UserError(f"{out} is a file. Name a folder.")
    with user_errors():
        if not any(place.iterdir()):
            return
    if not is_run(place):
        raise UserError(f"{out} exists and is no run of jaxcluster. Name another folder.")
    if not overwrite:
        raise UserError(f"{out} holds a finished run. Pass --overwrite to replace it, or name another folder.")
    _check_no_input(out, inputs)
    with user_errors():
        inside = sorted(config.parent for config in place.glob(f"*/**/{CONFIG}") if is_run(config.parent))
    if inside:
        raise UserError(
            f"{out} holds another run, {out / inside[0].relative_to(place)}, which --overwrite would remove too. Move "
            "it, or name another folder."
        )


def check_file(out: Path, *, overwrite: bool) -> None:
    """Refuse a file that cannot be written, or that exists already. Writes nothing."""
    place = _checked_place(out)
    if place.is_dir():
        raise UserError(f"{out} is a folder. Name a file.")
    if place.exists() and not place.is_file():
        raise UserError(f"{out} is a pipe, a socket or a device. Name a file.")
    if place.exists() and not overwrite:
        raise UserError(f"{out} exists. Pass --overwrite to replace it, or name another file.")


def _check_no_input(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse a place that is, or holds, a file which the command reads."""
    place = _checked_place(out)
    for path in inputs if place.exists() else ():
        with suppress(OSError, RuntimeError, ValueError):  # an input that cannot be found is named by its reader
            if path.exists() and path.resolve().is_relative_to(place):
                raise UserError(f"{path} is read by this command, and {out} would take its place. Name another one.")


def files_of(*places: str | Path | None) -> Iterator[Path]:
    """Files that a command reads: runs and models with all that belongs to them, files, and those of a pattern."""
    from jaxcluster.datasets.files import matching_files

    for place in map(Path, filter(None, places)):
        with suppress(OSError, ValueError):
            folder = place if place.is_dir() else place.parent
            config = next((each for each in (folder, folder.parent) if (each / CONFIG).is_file()), None)
            if place.is_dir() and config is not None:
                yield config / CONFIG
                yield from (config / name for name in read_json(config / CONFIG).get(FILES) or ())
            elif place.is_dir():
                yield from place.rglob("*")
            else:
                yield from matching_files(str(place)) or (place, Path(str(place).rpartition(":")[0]))  # file.npz:key


def check_space(claim: Claim, needed: int) -> None:
    """Refuse a disk with less free bytes than the output needs."""
    free = shutil.disk_usage(claim.out.resolve().parent).free
    if free < needed:
        raise UserError(
            f"the disk of {claim.out} has {_in_words(free)} left, and this needs about {_in_words(needed)}. Free some "
            "space, or name another --out."
        )


def is_run(folder: Path) -> bool:
    """True if this command line wrote a folder, even if its config.json is damaged."""
    config = folder / CONFIG
    return config.is_file() and (
        "jaxcluster" in (read_json(config).get("versions") or {}) or any((folder / name).is_file() for name in RESULTS)
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file holds something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def read_sealed(path: Path, remedy: str = "Fit the run again.") -> dict[str, Any]:
    """Read what `write_sealed` wrote.

    Raises:
        UserError: the file is missing, or not byte for byte what was written.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: the folder was copied only in part. {remedy}")
    with user_errors():
        text = path.read_bytes()
    values = read_json(path)
    seal = values.pop(SEAL, None)
    # Compared byte for byte: the values alone would not notice a change of white space or of the order of keys.
    if seal is None or _sealed(values) != text:
        raise UserError(_changed(path, remedy))
    return values


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    """Write values as JSON with the SHA-256 of the rest of the text, by which `read_sealed` finds any change."""
    write_atomic(path, _sealed(values))


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write config.json, sealed, with a list of the files of the run so far. Only the report comes after it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = {path.relative_to(folder).as_posix(): _listed(path) for path in files}
    write_sealed(folder / CONFIG, {**config, FILES: listed})


def read_config(folder: Path) -> dict[str, Any]:
    """Read what `write_config` wrote, in a folder whose files are unchanged since.

    Raises:
        UserError: a file is missing, or not byte for byte what was written.
    """
    config = read_sealed(folder / CONFIG)
    files = config.get(FILES)
    if not isinstance(files, dict) or not files:
        raise UserError(
            f"{folder / CONFIG} does not list the files of the run with their SHA-256: an older version of jaxcluster "
            "wrote it, so a damaged file would not be found. Fit the run again."
        )
    for name, written in files.items():
        path = folder / name
        # A crafted config.json must not make a command read files elsewhere.
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{folder / CONFIG} lists {name}, which is outside of the folder. Fit the run again.")
        with user_errors():
            check_regular(path)
            if not path.is_file():
                raise UserError(f"{path} is missing: the folder was copied only in part. Fit the run again.")
            there = _listed(path)
        if there != written:
            raise UserError(f"{path} was changed since it was written: its SHA-256 does not match. Fit the run again.")
    return config


def write_json(path: Path, values: Any) -> None:
    """Write values as indented JSON, whole or not at all."""
    write_atomic(path, _json(values))


def _listed(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        return {"bytes": path.stat().st_size, SEAL: hashlib.file_digest(stream, "sha256").hexdigest()}


def _changed(path: Path, remedy: str) -> str:
    return f"{path} was changed since it was written: its SHA-256 does not match. {remedy}"


def _sealed(values: Mapping[str, Any]) -> bytes:
    return _json({**values, SEAL: hashlib.sha256(_json(values)).hexdigest()})


def _json(values: Any) -> bytes:
    """Indented, a list of numbers or words on one line; NaN is an error, JSON has no word for it."""
    text = json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False)
    text = re.sub(r"\[\n *([^][{}]*)\n *\]", lambda found: "[" + re.sub(r"\n *", " ", found[1]) + "]", text) + "\n"
    try:
        return text.encode()
    except UnicodeEncodeError:  # bytes of a file's name that are no text
        return json.dumps(values, indent=2, allow_nan=False).encode() + b"\n"


def _checked_place(out: Path) -> Path:
    """The resolved path of ``out``; refused where nothing can be written."""
    try:
        place = out.resolve()
    except FileNotFoundError as error:
        raise UserError(f"the current folder was removed, so there can be no {out}. Name a path from / on.") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise _unwritable(out, error) from error
    try:
        os.stat(place)
    except (FileNotFoundError, NotADirectoryError):
        pass  # there is nothing yet; a file in the way has a message of its own below
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, links in a circle, a null character
        raise _unwritable(out, error) from error
    ancestor = _existing(place.parent)
    if not ancestor.is_dir():
        raise UserError(f"{ancestor} is a file, so there can be no {place}. Name another place.")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise UserError(f"{ancestor} cannot be written to. Name another place.")
    return place


def _unwritable(out: Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or str(error)
    return UserError(f"{out} cannot be written to: {reason}. Name another place.")


def _existing(folder: Path) -> Path:
    """The nearest folder that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


@contextmanager
def _claimed(out: Path, *, overwrite: bool) -> Iterator[Claim]:
    place = out.resolve()
    beside = place.with_name(f".{short_name(place.name)}.jaxcluster")
    parents = [parent for parent in place.parents if not parent.exists()]
    lock = Lock(beside / "lock")
    if beside.is_symlink():  # what lies where it leads to would be cleared
        raise UserError(f"{out} cannot be written to: {beside} is a link. Remove it, or name another place.")

    def clear() -> None:
        for entry in (*beside.glob("new*"), *([beside / "old"] if place.exists() else [])):
            shutil.rmtree(entry, ignore_errors=True)
            with suppress(OSError):
                entry.unlink()
        lock.release()
        for folder in (beside, *parents):
            with suppress(OSError):  # something is in it: another command may have the place already
                folder.rmdir()

    # Cleared in this order also by a signal: temporary files first, then the lock, then empty folders.
    with ExitStack() as stack:
        stack.callback(clear)
        try:
            beside.mkdir(parents=True, exist_ok=True)
            lock.acquire({"command": _command(), "began": datetime.now(UTC).isoformat(timespec="seconds")})
        except LockedError as error:
            stack.pop_all()
            raise UserError(f"{out} is being written by {_who(error.holder)}. Wait, or name another.") from error
        except OSError as error:
            raise UserError(f"{out} cannot be written to: {error.strerror}. Name another place.") from error
        stack.enter_context(signals.on_stop(clear))
        _restore(out, place, beside)
        yield Claim(out, beside, overwrite=overwrite)


def _restore(out: Path, place: Path, beside: Path) -> None:
    """Remove what a killed command has left; the run that it was about to replace comes back."""
    shutil.rmtree(beside / "new", ignore_errors=True)
    old = beside / "old"
    if not old.exists():
        return
    if place.exists():
        shutil.rmtree(old, ignore_errors=True)
        return
    with user_errors():
        old.rename(place)
    raise UserError(
        f"a command that was replacing the run in {out} was killed: the old run is back in its place. Pass --overwrite "
        "to replace it, or name another folder."
    )


def _command() -> str:
    from jaxcluster.cli.run import command_line

    return command_line()


def _who(holder: dict[str, Any]) -> str:
    complete = {"pid", "host", "command", "began"} <= holder.keys()
    words = "process {pid} on {host} since {began} ({command})" if complete else "another process"
    return words.format(**{name: str(value) for name, value in holder.items()})


def _in_words(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"

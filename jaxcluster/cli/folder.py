"""Outputs that are there whole or not at all: made beside their place, then renamed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jaxcluster.cli.errors import MistakeError, mistakes
from jaxcluster.core.files import take_place

CONFIG = "config.json"
"""The file that makes a folder a run: `write_json` puts it into every one."""


def check_folder(out: Path, *, overwrite: bool) -> None:
    """Refuses a folder that cannot be made, or that holds something which must not be lost. Writes nothing."""
    place = out.resolve()
    if Path.cwd().is_relative_to(place):
        raise MistakeError(f"{out} is the current folder or around it. Name a new one.")
    _check_ancestor(place)
    if not place.exists():
        return
    if not place.is_dir():
        raise MistakeError(f"{out} is a file. Name a folder.")
    if not any(place.iterdir()):
        return
    if not is_run(place):
        raise MistakeError(f"{out} exists and is no run of jaxcluster. Name another folder.")
    if not overwrite:
        raise MistakeError(f"{out} holds a finished run. Pass --overwrite to replace it, or name another folder.")


@contextmanager
def new_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to fill, which takes the place of ``out`` when the block ends, and vanishes if it fails."""
    check_folder(out, overwrite=overwrite)
    place = out.resolve()
    with _beside(place) as beside:
        new, old = beside / "new", beside / "old"
        new.mkdir()
        yield new
        with mistakes():
            place.parent.mkdir(parents=True, exist_ok=True)
            check_folder(out, overwrite=overwrite)
            take_place(new, place, aside=old)


def check_file(out: Path, *, overwrite: bool) -> None:
    """Refuses a file that cannot be written, or that is there already. Writes nothing."""
    _check_ancestor(out.resolve())
    if out.is_dir():
        raise MistakeError(f"{out} is a folder. Name a file.")
    if out.exists() and not overwrite:
        raise MistakeError(f"{out} exists. Pass --overwrite to replace it, or name another file.")


@contextmanager
def new_file(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A path to write to, which takes the place of ``out`` when the block ends."""
    check_file(out, overwrite=overwrite)
    place = out.resolve()
    with _beside(place) as beside:
        yield beside / place.name
        with mistakes():
            place.parent.mkdir(parents=True, exist_ok=True)
            (beside / place.name).replace(place)


def is_run(folder: Path) -> bool:
    """Whether a folder was written by this command line."""
    config = folder / CONFIG
    return config.is_file() and "jaxcluster" in (read_json(config).get("versions") or {})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file holds something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def write_json(path: Path, values: Any) -> None:
    """Values as indented JSON, a list of numbers or words on one line; NaN is an error, JSON has no word for it."""
    text = json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False)
    text = re.sub(r"\[\n *([^][{}]*)\n *\]", lambda found: "[" + re.sub(r"\n *", " ", found[1]) + "]", text)
    path.write_text(text + "\n", encoding="utf-8")


def _check_ancestor(place: Path) -> None:
    ancestor = _existing(place.parent)
    if not ancestor.is_dir():
        raise MistakeError(f"{ancestor} is a file, so there can be no {place}. Name another place.")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise MistakeError(f"{ancestor} cannot be written to. Name another place.")


def _existing(folder: Path) -> Path:
    """The nearest folder that is there: what is made beside it is on the same disk, and leaves no parents behind."""
    return next(path for path in (folder, *folder.parents) if path.exists())


@contextmanager
def _beside(place: Path) -> Iterator[Path]:
    with TemporaryDirectory(prefix=f".{place.name}-", dir=_existing(place.parent)) as folder:
        yield Path(folder)

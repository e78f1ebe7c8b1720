"""What a long fit keeps beside its folder until it is done, so that it can be cut short and go on."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxcluster.cli import run as runs
from jaxcluster.cli.errors import MistakeError, mistakes
from jaxcluster.cli.folder import read_sealed, write_sealed
from jaxcluster.core import signals
from jaxcluster.core.atomic import short_name

SETTINGS = "settings.json"
"""The file that makes a folder one of these: what the command was, and what it worked on."""

FREE = {"epochs", "tol", "verbose", "checkpoint_every"}
"""Parameters that a run may go on with other values of."""

AFRESH = "Pass the same again, or --overwrite without --resume to start afresh."


def partial_of(out: Path) -> Path:
    """Where a run that goes to ``out`` keeps its checkpoints."""
    place = out.resolve()
    return place.with_name(f"{short_name(place.name)}.partial")


def check_partial(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuses to begin where checkpoints would be lost, and to go on where there are none. Writes nothing."""
    folder = partial_of(out)
    if not folder.exists() or all(entry.name.startswith(f".{SETTINGS}.") for entry in folder.iterdir()):
        if resume:
            raise MistakeError(f"--resume finds nothing to go on from: there is no {folder}. Leave it out to start.")
        return
    if not (folder / SETTINGS).is_file():
        raise MistakeError(f"{folder} exists and holds no checkpoints of jaxcluster. Name another --out.")
    if not (resume or overwrite):
        raise MistakeError(
            f"{folder} holds an unfinished run. Pass --resume to go on with it, or --overwrite to start afresh."
        )


@contextmanager
def unfinished(out: Path, settings: Mapping[str, Any], *, resume: bool) -> Iterator[Path]:
    """The folder for a run's checkpoints: it goes when the block ends, and stays if that fails and there are any.

    Args:
        out: where the run itself is written to in the block.
        settings: what config.json will say of the run; one that goes on must have the same.
        resume: whether to go on with what is there, or to do away with it.

    Raises:
        MistakeError: settings that differ, the first of them named, or a folder that cannot be made.
    """
    folder = partial_of(out)
    settings = json.loads(json.dumps(settings))
    if resume:
        _check_same(folder, read_sealed(folder / SETTINGS, AFRESH), settings)
    else:
        with mistakes():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_sealed(folder / SETTINGS, settings)

    def leave() -> None:
        if _has_checkpoints(folder):
            signals.set_stop_message(f"checkpoints are kept in {folder}. To go on: {_command()}")
        else:
            shutil.rmtree(folder, ignore_errors=True)

    try:
        with signals.on_stop(leave):
            yield folder
    except BaseException:
        leave()
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _check_same(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    for name in ("algorithm", "scaling"):
        if there.get(name) != here[name]:
            raise MistakeError(f"{folder} was begun with another {name} than this run. {AFRESH}")
    if (there.get("data") or {}).get("sha256") != here["data"]["sha256"]:
        raise MistakeError(f"{folder} was begun with other rows than {here['data']['name']} has now. {AFRESH}")
    before, now = there.get("parameters") or {}, here["parameters"]
    for name in sorted((before.keys() | now.keys()) - FREE):
        if before.get(name) != now.get(name):
            raise MistakeError(f"{folder} was begun with {name}={before.get(name)}, not {now.get(name)}. {AFRESH}")


def _has_checkpoints(folder: Path) -> bool:
    from jaxcluster.core.checkpoint import MANIFEST

    return any(folder.rglob(f"checkpoint-*/{MANIFEST}"))


def _command() -> str:
    words = list(runs.WORDS.get())
    return shlex.join(["jaxcluster", *words, *([] if "--resume" in words else ["--resume"])])

"""Fits that train a network: checks before them, progress, and checkpoints that a later command goes on from."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcluster.cli import run as runs
from jaxcluster.cli.errors import UserError, user_errors
from jaxcluster.cli.output_dir import read_sealed, write_sealed
from jaxcluster.cli.runtime import COUNT
from jaxcluster.core import signals
from jaxcluster.core.atomic import short_name

if TYPE_CHECKING:
    from jaxcluster.cli.console import Stages
    from jaxcluster.cli.inputs import Rows
    from jaxcluster.deep import EpochReport, TrainResult

SETTINGS = "settings.json"
"""The file that makes a folder a partial run: the command, and the data that it worked on."""

RESUMABLE_PARAMS = {"epochs", "tol", "verbose", "checkpoint_every"}
"""Parameters that may change when a run goes on: they do not change the steps taken so far."""

RESUME_HINT = "Pass the same again, or --overwrite without --resume to start afresh."


RESUMABLE_METHODS = frozenset(
    ("kmeans", "minibatch-kmeans", "bisecting-kmeans", "kmedoids", "kmodes", "kprototypes", "gmm", "bayesian-gmm")
)
"""Methods besides those of networks whose loops are saved, by `jaxcluster.core.loop_checkpoints`."""


def keeps_checkpoints(method: str, family: str) -> bool:
    """True if a run of a method goes on from checkpoints, by --resume."""
    return family == "deep" or method in RESUMABLE_METHODS


def trains_network(estimator: Any) -> bool:
    """True if an estimator trains a network, epoch by epoch, with checkpoints."""
    return estimator.info.family == "deep"


def check_rows(estimator: Any, rows: Rows) -> None:
    """Refuse rows that the network cannot take, in words of the command line."""
    x = rows.x
    least, most = float(x.min()), float(x.max())
    unscaled = estimator.scaling in ("auto", "none")
    if getattr(estimator, "likelihood", None) == "bernoulli" and unscaled and (least < 0 or most > 1):
        raise UserError(
            f"--likelihood bernoulli needs values from 0 to 1, and {rows.dataset.name} has {least:g} to {most:g}: "
            "pass --scale minmax."
        )
    if getattr(estimator, "augment", False) and estimator.image_shape is None:
        example = rows.dataset.image_shape or (8, 8)
        raise UserError(
            f"--augment shifts and turns images: pass --image-shape too, such as {','.join(map(str, example))}."
        )


def run_arguments(
    estimator: Any, title: str, stage: Stages, folder: Path, *, resume: bool, tensorboard: Path | None
) -> dict[str, Any]:
    """Arguments of ``fit``: checkpoints go to ``folder``, and the terminal shows the progress of the training."""
    phases = phases_of(estimator)
    callbacks: list[Any] = [ConsoleProgress(title, phases, stage)]
    if tensorboard is not None:
        callbacks.append(TensorBoardPhases(tensorboard, phases))
    return {"callbacks": callbacks, "checkpoint_dir": folder, "resume": resume}


def phase_with_clusters(estimator: Any) -> bool:
    """True if a fitted estimator trained its network for the clusters too, and not for reconstruction alone."""
    return any(record["phase"] in ("cluster", "train") for record in estimator.epoch_history_)


def phases_of(estimator: Any) -> list[str]:
    """Names of the phases of a training, in order."""
    if not hasattr(estimator, "pretrain"):
        return ["training"]
    layers = len(estimator.hidden) + 1
    first = [f"layer {i} of {layers}" for i in range(1, layers + 1)] if estimator.pretrain == "stacked" else []
    return [*first, "pretraining", "clustering"] if estimator.pretrain_epochs != 0 else ["clustering"]


class ConsoleProgress:
    """Callback that shows phase, epoch, loss and changed labels on the last line of the terminal."""

    def __init__(self, title: str, phases: list[str], stage: Stages) -> None:
        self._title, self._phases, self._stage = title, iter(phases), stage
        self._phase = ""

    def on_train_begin(self, history: list[dict[str, float]], epochs: int) -> None:
        """Begin the next phase."""
        self._phase = next(self._phases)
        self._stage.say(f"{self._title}: {self._phase}, {epochs:,} epochs")

    def __call__(self, report: EpochReport) -> None:
        """Show an epoch that has ended."""
        from jaxcluster.deep.callbacks import format_record

        epoch = f"epoch {len(report.history):,}/{report.epochs:,}"
        self._stage.say(f"{self._title}: {self._phase}, {epoch}, {format_record(report.record)}")


class TensorBoardPhases:
    """Callback that writes scalars for TensorBoard, a run for each phase, as each phase counts its steps from 1.

    Raises:
        UserError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path, phases: list[str]) -> None:
        from importlib.util import find_spec

        if find_spec("tensorboardX") is None:
            raise UserError("--tensorboard needs tensorboardX: pip install 'jaxcluster[tensorboard]'.")
        self._folder, self._phases = folder, iter(phases)
        self._board: Any = None

    def on_train_begin(self, history: list[dict[str, float]], epochs: int) -> None:
        """Begin the next phase."""
        from jaxcluster.deep import TensorBoard

        self._board = TensorBoard(self._folder / next(self._phases).replace(" ", "-"))

    def __call__(self, report: EpochReport) -> None:
        """Write an epoch that has ended."""
        self._board(report)

    def on_train_end(self, result: TrainResult) -> None:
        """End the phase."""
        self._board.on_train_end(result)


def partial_folder(out: Path) -> Path:
    """The folder for the checkpoints of a run that goes to ``out``."""
    place = out.resolve()
    return place.with_name(f"{short_name(place.name)}.partial")


def check_partial(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to begin where checkpoints would be lost, and to resume where there are none. Writes nothing."""
    folder = partial_folder(out)
    # A command that is killed while it writes SETTINGS leaves a temporary file of this name, and no checkpoints.
    if not folder.is_dir() and os.path.lexists(folder):
        raise UserError(f"{folder} is in the way of checkpoints, and no folder. Name another --out.")
    if not folder.exists() or all(entry.name.startswith(f".{SETTINGS}.") for entry in folder.iterdir()):
        if resume:
            raise UserError(f"--resume finds nothing to go on from: there is no {folder}. Leave it out to start.")
        return
    if not (folder / SETTINGS).is_file():
        raise UserError(f"{folder} exists and holds no checkpoints of jaxcluster. Name another --out.")
    if not (resume or overwrite):
        raise UserError(
            f"{folder} holds an unfinished run. Pass --resume to go on with it, or --overwrite to start afresh."
        )


@contextmanager
def partial_run(out: Path, settings: Mapping[str, Any], *, resume: bool) -> Iterator[Path]:
    """The folder for a run's checkpoints: removed when the block ends, kept if it fails and there are any.

    Args:
        out: folder of the run, which the block writes.
        settings: entries of config.json that are known before the fit; a resumed run must have the same.
        resume: go on with the checkpoints in the folder instead of removing them.

    Raises:
        UserError: settings that differ, the first of them named, or a folder that cannot be made.
    """
    folder = partial_folder(out)
    # As they are read back: tuples become lists, so that the settings of a resumed run compare as equal.
    settings = json.loads(json.dumps(settings))
    if resume:
        _check_same(folder, read_sealed(folder / SETTINGS, RESUME_HINT), settings)
    else:
        with user_errors():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                write_sealed(folder / SETTINGS, settings)
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
                raise

    def leave() -> None:
        if _has_checkpoints(folder):
            signals.set_stop_message(f"checkpoints are kept in {folder}. To go on: {_resume_command()}")
        else:
            shutil.rmtree(folder, ignore_errors=True)

    try:
        with signals.on_stop(leave):
            yield folder
    except BaseException:
        leave()
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to resume a run of another method, other rows or other parameters."""
    for name in ("algorithm", "scaling"):
        if before.get(name) != now[name]:
            raise UserError(f"{folder} was begun with another {name} than this run. {RESUME_HINT}")
    if (before.get("data") or {}).get("sha256") != now["data"]["sha256"]:
        raise UserError(f"{folder} was begun with other rows than {now['data']['name']} has now. {RESUME_HINT}")
    old, new = before.get("parameters") or {}, now["parameters"]
    for name in sorted((old.keys() | new.keys()) - RESUMABLE_PARAMS):
        if old.get(name) != new.get(name):
            raise UserError(f"{folder} was begun with {name}={old.get(name)}, not {new.get(name)}. {RESUME_HINT}")


def _has_checkpoints(folder: Path) -> bool:
    from jaxcluster.core.checkpoint import MANIFEST

    return any(folder.rglob(f"checkpoint-*/{MANIFEST}"))


def _resume_command() -> str:
    words = list(runs.ARGV.get())
    launched = ["launch", "--processes", os.environ[COUNT], "--"] if COUNT in os.environ else []
    return shlex.join(["jaxcluster", *launched, *words, *([] if "--resume" in words else ["--resume"])])

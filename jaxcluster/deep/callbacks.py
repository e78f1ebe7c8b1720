"""Training callbacks: progress bar, JSON lines, TensorBoard and snapshots of the latent codes.

A callback is called with an `EpochReport` after every epoch. Its methods ``on_train_begin``, ``on_train_end`` and
``on_exception``, all optional, are called at the start, at the end, and at an error or interrupt.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.core.atomic import write_atomic
from jaxcluster.core.messages import warn
from jaxcluster.deep.inference import map_module

if TYPE_CHECKING:
    from jaxcluster.deep.trainer import EpochReport, TrainResult

SNAPSHOT_ROWS = 1_000
"""Greatest number of samples in a snapshot."""


LINE_SECONDS = 2.0
"""Least time, in seconds, between two lines of a progress that is no terminal's."""


class ProgressBar:
    """Progress bar of epochs on stderr, with the loss and the fraction of samples that changed their cluster.

    Where stderr is no terminal, as in a notebook, it is a line now and then.

    Args:
        title: name of the training.
    """

    def __init__(self, title: str = "Training") -> None:
        self.title = title
        self._progress: Any = None
        self._line, self._next_line = "", 0.0

    def on_train_begin(self, history: list[dict[str, float]], epochs: int) -> None:
        """Show the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[record]}", markup=False),
        )
        # As text in a notebook too: widgets need another package.
        console = Console(stderr=True, force_jupyter=False)
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._progress.start()
        self._task = self._progress.add_task(self.title, total=epochs, completed=len(history), record="")

    def __call__(self, report: EpochReport) -> None:
        """Advance the bar."""
        record = format_record(report.record)
        self._line = f"{self.title}: {len(report.history):,}/{report.epochs:,}, {record}"
        if time.monotonic() >= self._next_line:
            self._print_line()
        self._progress.update(self._task, completed=len(report.history), record=record)

    def on_train_end(self, result: TrainResult) -> None:
        """Stop the bar, and leave it on the terminal."""
        self.on_exception()

    def on_exception(self) -> None:
        """Stop the bar, and leave it on the terminal."""
        if self._progress is not None:
            self._progress.stop()
            self._print_line()

    def _print_line(self):
        """Print the last epoch, unless it has been printed or is on the bar of a terminal."""
        if self._progress.disable and self._line:
            print(self._line, file=sys.stderr, flush=True)
        self._line, self._next_line = "", time.monotonic() + LINE_SECONDS


class JsonLines:
    """History of a run in a file, one JSON object in a line; a resumed run keeps the records before it.

    Args:
        path: of the file; its folder is created.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)

    def on_train_begin(self, history: list[dict[str, float]], epochs: int) -> None:
        """Write the file anew, with the records of the checkpoint that the run resumes from."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _warn_on_error(self.path):
            write_atomic(self.path, "".join(map(_line, history)).encode())

    def __call__(self, report: EpochReport) -> None:
        """Append a line."""
        with _warn_on_error(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_line(report.record))


class TensorBoard:
    """All numbers of the history as TensorBoard scalars.

    Args:
        folder: of the event files.

    Raises:
        ImportError: tensorboardX, an optional dependency, is not installed.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        try:
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]  # optional
        except ImportError as error:
            raise ImportError("TensorBoard needs tensorboardX: pip install 'jaxcluster[tensorboard]'.") from error
        self._writer = SummaryWriter(os.fspath(folder))

    def __call__(self, report: EpochReport) -> None:
        """Write the numbers of a record."""
        step = int(report.record["step"])
        for name, value in report.record.items():
            if name not in ("epoch", "step"):
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def on_train_end(self, result: TrainResult) -> None:
        """Close the files."""
        self._writer.close()


class Snapshots:
    """Latent codes of some samples after epochs 1, 2, 4, 8 and so on.

    Args:
        x: (n_samples, n_features) samples; at most `SNAPSHOT_ROWS`, evenly spaced, are encoded.
        folder: of files with the codes, for a run that is interrupted and resumed; None for no files.

    Attributes:
        rows: positions of these samples.
        codes: codes by "phase-epoch".
    """

    def __init__(self, x: np.ndarray, folder: str | os.PathLike | None = None) -> None:
        self.rows = np.unique(np.linspace(0, len(x) - 1, min(SNAPSHOT_ROWS, len(x))).astype(np.int32))
        self.codes: dict[str, np.ndarray] = {}
        self.folder = None if folder is None else Path(folder)
        self.x = x[self.rows]

    def for_phase(self, phase: str, method: str) -> Callable[[EpochReport], None]:
        """A callback for one phase of training; the codes are the output of the module's ``method``."""
        return _PhaseSnapshots(self, phase, method)


class _PhaseSnapshots:
    def __init__(self, snapshots: Snapshots, phase: str, method: str) -> None:
        self._snapshots, self._phase, self._method = snapshots, phase, method

    def on_train_begin(self, history: list[dict[str, float]], epochs: int) -> None:
        """Read the snapshots of the epochs before a resumption."""
        powers_of_two = (1 << power for power in range(len(history).bit_length()))
        for name in (f"{self._phase}-{epoch}" for epoch in powers_of_two):
            path = self._path(name)
            if path is not None and path.is_file():
                with _warn_on_error(path, "read"):
                    self._snapshots.codes[name] = np.load(path, allow_pickle=False)

    def __call__(self, report: EpochReport) -> None:
        """Take a snapshot after an epoch whose number is a power of two."""
        epoch = len(report.history)
        if epoch & (epoch - 1):
            return
        name = f"{self._phase}-{epoch}"
        codes = np.asarray(map_module(report.module(), self._method, self._snapshots.x))
        self._snapshots.codes[name] = codes
        path = self._path(name)
        if path is not None:
            content = io.BytesIO()
            np.save(content, codes)
            with _warn_on_error(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, content.getvalue())

    def _path(self, name: str) -> Path | None:
        folder = self._snapshots.folder
        return None if folder is None else folder / f"{name}.npy"


@contextmanager
def _warn_on_error(path: Path, done: str = "written") -> Iterator[None]:
    """Turn a file error into a warning: a training can do without the file."""
    try:
        yield
    except (OSError, ValueError, EOFError) as error:
        warn(f"{path} could not be {done} ({error}). The training goes on without it.")


def format_record(record: dict[str, float]) -> str:
    """The loss of a record, and its fraction of changed labels, as a text."""
    changed = f", {record['changed']:.2%} of rows changed" if "changed" in record else ""
    return f"loss {record['loss']:.4g}{changed}"


def _line(record: dict[str, float]) -> str:
    """A record as a line of JSON, which has no NaN: null stands for it."""
    plain = {name: value if math.isfinite(value) else None for name, value in record.items()}
    return json.dumps(plain) + "\n"

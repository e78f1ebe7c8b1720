"""What may look on while a module is trained: a bar on the terminal, a file of records, TensorBoard, pictures' codes.

A callback is called with a `Report` after every epoch; one with ``begin``, ``end`` or ``cut`` is told of these too.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.core.caution import warn
from jaxcluster.core.files import write_whole
from jaxcluster.deep.inference import map_module

if TYPE_CHECKING:
    from jaxcluster.deep.trainer import Report, Trained

SNAPSHOT_ROWS = 1_000


class ProgressBar:
    """A bar of epochs on stderr, with the loss and the share of rows that changed their cluster.

    Args:
        title: what is trained.
    """

    def __init__(self, title: str = "Training") -> None:
        self.title = title
        self._progress: Any = None

    def begin(self, history: list[dict[str, float]], epochs: int) -> None:
        """Shows the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}", markup=False),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._progress.start()
        self._task = self._progress.add_task(self.title, total=epochs, completed=len(history), said="")

    def __call__(self, report: Report) -> None:
        """Moves the bar."""
        self._progress.update(self._task, completed=len(report.history), said=said(report.record))

    def end(self, trained: Trained) -> None:
        """Leaves the last state of the bar behind."""
        self.cut()

    def cut(self) -> None:
        """Leaves the bar behind as it is."""
        if self._progress is not None:
            self._progress.stop()


class JsonLines:
    """All records of a run in a file, a JSON object a line; what a run that goes on had before stays as it was.

    Args:
        path: of the file; its folder is made.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)

    def begin(self, history: list[dict[str, float]], epochs: int) -> None:
        """Begins the file anew, with the records of the checkpoint that the run goes on from."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _spared(self.path):
            write_whole(self.path, "".join(map(_line, history)).encode())

    def __call__(self, report: Report) -> None:
        """Adds a line."""
        with _spared(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_line(report.record))


class TensorBoard:
    """All numbers of the records as scalars for TensorBoard, by their step.

    Args:
        folder: for its event files.

    Raises:
        ImportError: tensorboardX is not installed, which is not one of this package's own needs.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError("TensorBoard needs tensorboardX: pip install 'jaxcluster[tensorboard]'.") from error
        self._writer = SummaryWriter(os.fspath(folder))

    def __call__(self, report: Report) -> None:
        """Writes the numbers of a record."""
        step = int(report.record["step"])
        for name, value in report.record.items():
            if name not in ("epoch", "step"):
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self, trained: Trained) -> None:
        """Closes the files."""
        self._writer.close()


class Snapshots:
    """Codes of some rows after epochs 1, 2, 4, 8, …, to show how they move.

    Args:
        x: (n, d) rows, of which up to 1,000 spread over them are looked at.
        folder: where codes are kept as files too, for a run that is cut short and goes on; None for nowhere.

    Attributes:
        rows: their numbers.
        taken: codes by "phase-epoch".
    """

    def __init__(self, x: np.ndarray, folder: str | os.PathLike | None = None) -> None:
        self.rows = np.unique(np.linspace(0, len(x) - 1, min(SNAPSHOT_ROWS, len(x))).astype(np.int32))
        self.taken: dict[str, np.ndarray] = {}
        self.folder = None if folder is None else Path(folder)
        self.x = x[self.rows]

    def of(self, phase: str, method: str) -> Callable[[Report], None]:
        """A callback for one phase; ``method`` of the module gives the codes."""
        return _SnapshotsOfPhase(self, phase, method)


class _SnapshotsOfPhase:
    def __init__(self, snapshots: Snapshots, phase: str, method: str) -> None:
        self._snapshots, self._phase, self._method = snapshots, phase, method

    def begin(self, history: list[dict[str, float]], epochs: int) -> None:
        """Takes over what was taken in the epochs that a run goes on from."""
        moments = (1 << power for power in range(len(history).bit_length()))
        for name in (f"{self._phase}-{epoch}" for epoch in moments):
            path = self._path(name)
            if path is not None and path.is_file():
                with _spared(path, "read"):
                    self._snapshots.taken[name] = np.load(path, allow_pickle=False)

    def __call__(self, report: Report) -> None:
        """Looks at the rows, if it is time."""
        epoch = len(report.history)
        if epoch & (epoch - 1):
            return
        name = f"{self._phase}-{epoch}"
        codes = np.asarray(map_module(report.module(), self._method, self._snapshots.x))
        self._snapshots.taken[name] = codes
        path = self._path(name)
        if path is not None:
            content = io.BytesIO()
            np.save(content, codes)
            with _spared(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, content.getvalue())

    def _path(self, name: str) -> Path | None:
        folder = self._snapshots.folder
        return None if folder is None else folder / f"{name}.npy"


@contextmanager
def _spared(path: Path, done: str = "written") -> Iterator[None]:
    """Around what a training can do without: a file that fails is a warning."""
    try:
        yield
    except (OSError, ValueError, EOFError) as error:
        warn(f"{path} could not be {done} ({error}). The training goes on without it.")


def said(record: dict[str, float]) -> str:
    """A record in a few words."""
    changed = f", {record['changed']:.2%} of rows changed" if "changed" in record else ""
    return f"loss {record['loss']:.4g}{changed}"


def _line(record: dict[str, float]) -> str:
    """A record as a line of JSON, which has no word for NaN."""
    plain = {name: value if math.isfinite(value) else None for name, value in record.items()}
    return json.dumps(plain) + "\n"

"""Where a training stands, and how it is saved and gone on from."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcluster.core import check
from jaxcluster.core.caution import warn
from jaxcluster.core.checkpoint import Checkpoints, fingerprint, prepare
from jaxcluster.deep.run import Run, TrainState
from jaxcluster.types import Status


class Progress(NamedTuple):
    """Where a training stands.

    Attributes:
        state: of the run.
        labels: (n,) int32 those of the last look at all rows; None before one, or without clusters.
        history: the records.
        status: how it ended; None while it goes on.
        looked: whether the state is that after its last look, so that labels are those of the module.
    """

    state: TrainState
    labels: np.ndarray | None
    history: list[dict[str, float]]
    status: Status | None
    looked: bool


class Keeper:
    """Keeps a training: where it stands, and its checkpoints.

    Args:
        where: they are kept; None for nowhere.
        progress: that the training begins with, of which there is a checkpoint already, or nothing to keep.
    """

    def __init__(self, where: Checkpoints | None, progress: Progress) -> None:
        self._where, self._progress, self._saved = where, progress, self._name(progress)
        self._lock = threading.Lock()  # a thread that ends the process may save while the training goes on
        if where is not None:
            prepare()

    def stand(self, progress: Progress) -> None:
        """Says where the training stands, of which `save` makes a checkpoint."""
        self._progress = progress._replace(history=list(progress.history))

    def save(self) -> None:
        """Writes a checkpoint of where the training stands, unless there is one.

        A disk that is full is no reason to lose the training: it goes on, and a warning says so.
        """
        with self._lock:
            progress = self._progress
            if self._where is None or self._saved == self._name(progress):
                return
            try:
                save(self._where, progress)
            except OSError as error:
                warn(
                    f"the checkpoint of epoch {len(progress.history)} could not be written ({error}). The training "
                    "goes on, and those before it are kept.",
                )
                return
            self._saved = self._name(progress)

    @staticmethod
    def _name(progress):
        return progress.status, len(progress.history)


def placed(checkpoints: Checkpoints | None, run: Run, x: Any) -> Checkpoints | None:
    """The checkpoints of this very run: with what its steps depend on in their configuration."""
    if checkpoints is None:
        return None
    check.check_count("every", checkpoints.every)
    check.check_count("keep", checkpoints.keep)
    own = {
        "batch_size": run.batch,
        "steps_per_epoch": run.steps,
        "precision": run.precision,
        "n": run.rows.n,
        "rows": fingerprint(x),
        "y": None if run.rows.y is None else fingerprint(np.asarray(run.rows.y)),
        "key": np.asarray(jax.random.key_data(run.key)).tolist(),
        "model": type(run.module).__name__,
    }
    return checkpoints._replace(config={**own, **checkpoints.config})


def begun(run: Run, where: Checkpoints | None, resume: bool) -> Progress:
    """Where to start from: nothing, or the newest checkpoint."""
    fresh = Progress(run.start, None, [], None, False)
    if where is None or not where.any():
        return fresh
    if not resume:
        raise ValueError(
            f"{where.folder} holds checkpoints of an unfinished or finished run. Pass resume=True to go on from the "
            "newest, or another folder."
        )
    (state, labels), saved = where.restore((run.start, _filled(run.rows.n)))
    status = None if saved["status"] is None else Status(saved["status"])
    state = run.rows.everywhere(state)
    return Progress(state, labels if saved["labels"] else None, list(saved["history"]), status, saved["looked"])


def save(where: Checkpoints, progress: Progress) -> None:
    """Writes the checkpoint of an epoch."""
    state, labels, history, status, looked = progress
    known = labels is not None
    kept = labels if known else _filled(where.config["n"])
    said = {"history": history, "labels": known, "status": None if status is None else int(status), "looked": looked}
    where.save(len(history), (state, kept), said)


def _filled(n):
    return np.full(n, -1, np.int32)

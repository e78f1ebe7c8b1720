"""Around the fit of a method that trains a network: what is looked at before, and who looks on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcluster.cli.errors import MistakeError

if TYPE_CHECKING:
    from jaxcluster.cli.console import Stages
    from jaxcluster.cli.inputs import Rows
    from jaxcluster.deep import EpochReport, TrainResult


def trains(estimator: Any) -> bool:
    """Whether an estimator trains a network, epoch by epoch, with checkpoints."""
    return "checkpoint_dir" in estimator.get_params(deep=False)


def check_rows(estimator: Any, rows: Rows) -> None:
    """Refuses rows that the network cannot take, in words of the command line."""
    x = rows.x
    least, most = float(x.min()), float(x.max())
    as_they_are = estimator.scaling in ("auto", "none")
    if getattr(estimator, "likelihood", None) == "bernoulli" and as_they_are and (least < 0 or most > 1):
        raise MistakeError(
            f"--likelihood bernoulli needs values from 0 to 1, and {rows.dataset.name} has {least:g} to {most:g}: "
            "pass --scale minmax."
        )
    if getattr(estimator, "augment", False) and estimator.image_shape is None:
        known = rows.dataset.image_shape or (8, 8)
        raise MistakeError(
            f"--augment shifts and turns images: pass --image-shape too, such as {','.join(map(str, known))}."
        )


@contextmanager
def followed(
    estimator: Any, title: str, stage: Stages, folder: Path, *, resume: bool, tensorboard: Path | None
) -> Iterator[None]:
    """Around ``fit``: checkpoints go to ``folder``, and the terminal says how far the training has come.

    Afterwards the estimator is as it was, and can be saved.
    """
    phases = phases_of(estimator)
    callbacks: list[Any] = [Told(title, phases, stage)]
    if tensorboard is not None:
        callbacks.append(Boards(tensorboard, phases))
    estimator.set_params(callbacks=callbacks, checkpoint_dir=str(folder), resume=resume)
    try:
        yield
    finally:
        estimator.set_params(callbacks=None, checkpoint_dir=None, resume=False)


def phase_with_clusters(estimator: Any) -> bool:
    """Whether a fitted estimator trained its network for its clusters' sake too."""
    return any(record["phase"] in ("cluster", "train") for record in estimator.epoch_history_)


def phases_of(estimator: Any) -> list[str]:
    """What is trained, in order; of autoencoder-kmeans there is no clustering."""
    if not hasattr(estimator, "pretrain"):
        return ["training"]
    layers = len(estimator.hidden) + 1
    first = [f"layer {i} of {layers}" for i in range(1, layers + 1)] if estimator.pretrain == "stacked" else []
    return [*first, "pretraining", "clustering"] if estimator.pretrain_epochs != 0 else ["clustering"]


class Told:
    """Says on the terminal's last line what is trained, the epoch, the loss and how many rows changed their cluster."""

    def __init__(self, title: str, phases: list[str], stage: Stages) -> None:
        self._title, self._phases, self._stage = title, iter(phases), stage
        self._phase = ""

    def on_train_begin(self, history: list[dict[str, float]], epochs: int) -> None:
        """The next phase begins."""
        self._phase = next(self._phases)
        self._stage.say(f"{self._title}: {self._phase}, {epochs:,} epochs")

    def __call__(self, report: EpochReport) -> None:
        """An epoch has ended."""
        from jaxcluster.deep.callbacks import format_record

        epoch = f"epoch {len(report.history):,}/{report.epochs:,}"
        self._stage.say(f"{self._title}: {self._phase}, {epoch}, {format_record(report.record)}")


class Boards:
    """Scalars for TensorBoard, of each phase a run of its own: each counts its steps from 1.

    Raises:
        MistakeError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path, phases: list[str]) -> None:
        from importlib.util import find_spec

        if find_spec("tensorboardX") is None:
            raise MistakeError("--tensorboard needs tensorboardX: pip install 'jaxcluster[tensorboard]'.")
        self._folder, self._phases = folder, iter(phases)
        self._board: Any = None

    def on_train_begin(self, history: list[dict[str, float]], epochs: int) -> None:
        """The next phase begins."""
        from jaxcluster.deep import TensorBoard

        self._board = TensorBoard(self._folder / next(self._phases).replace(" ", "-"))

    def __call__(self, report: EpochReport) -> None:
        """An epoch has ended."""
        self._board(report)

    def on_train_end(self, result: TrainResult) -> None:
        """The phase has ended."""
        self._board.on_train_end(result)

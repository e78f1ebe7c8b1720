"""What a finished fit leaves in its folder, and how another command finds it there again."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxcluster.cli.errors import MistakeError, mistakes, one_line
from jaxcluster.cli.folder import CONFIG, is_run, read_config

if TYPE_CHECKING:
    import numpy as np

    from jaxcluster.cli.console import Stages

MODEL, LABELS, METRICS, HISTORY, REPORT = "model", "labels.csv", "metrics.json", "history.jsonl", "report.html"

LABELS_HEAD = "row,label\n"
"""The first line of the file of labels."""

WORDS: ContextVar[Sequence[str]] = ContextVar("WORDS", default=())
"""What was typed after ``jaxcluster``."""

FILES = {
    REPORT: "scores and pictures: open it in a browser",
    LABELS: "the cluster of each row",
    f"{MODEL}/": "for jaxcluster predict, and jaxcluster.load in Python",
    METRICS: "the scores above",
    HISTORY: "the objective, step by step or epoch by epoch",
    CONFIG: "all that is needed to run this again; checksums",
}
"""What is in a run's folder, and what for."""


class SavedRun(NamedTuple):
    """A run as other commands find it: the model's folder, and what config.json says, empty for a model alone."""

    model: Path
    config: dict[str, Any]


def find_run(path: Path) -> SavedRun:
    """The run in a folder that `jaxcluster fit` wrote, or the model in a folder that an estimator was saved to.

    Raises:
        MistakeError: neither, or a run of which a file is missing or damaged.
    """
    with mistakes():
        there = path.exists()
    if not there:
        raise MistakeError(f"{path} does not exist. Name the folder that jaxcluster fit wrote (its --out).")
    folder = path.resolve().parent if path.name == MODEL and is_run(path.resolve().parent) else path
    if is_run(folder) or (folder / MODEL).is_dir():
        config = read_config(folder)
        if not (folder / MODEL).is_dir():
            raise MistakeError(f"{path} holds a run without a model. Name one that jaxcluster fit wrote.")
        return SavedRun(folder / MODEL, config)
    return SavedRun(path, {})


def add_report(stage: Stages, again: str, draw: Callable[[], object]) -> None:
    """Draws the report of results that are written. What goes wrong is a warning: they are as good without it.

    Args:
        stage: says what is done.
        again: what to type to draw it once more.
        draw: writes the page.
    """
    from jaxcluster.cli.console import complain

    with stage("report", "Drawing the report"):
        try:
            draw()
        except Exception as error:
            told = f"the results are written, but their report could not be drawn: {type(error).__name__}: {error}"
            complain("Warning", f"{one_line(told).rstrip('.')}. To try again: {again}", "yellow")


def command_line() -> str:
    """The command that is running, to be typed again."""
    return shlex.join(["jaxcluster", *WORDS.get()])


def told(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a report shows of a configuration: what was chosen, and what the data were."""
    data = {name: value for name, value in config["data"].items() if value is not None and name != "column_names"}
    parameters = {name: value for name, value in config["parameters"].items() if value is not None}
    chosen = {name: config[name] for name in ("command", "algorithm", "ks", "seeds") if name in config}
    return chosen | {"parameters": parameters, "data": data, "scaling": config["scaling"]["how"]}


def write_labels(path: Path, labels: np.ndarray) -> None:
    """One line a row: its number from 0, and its cluster."""
    with path.open("w", encoding="utf-8") as file:
        file.write(LABELS_HEAD)
        file.writelines(f"{row},{label}\n" for row, label in enumerate(labels.tolist()))


def write_history(path: Path, history: Iterable[Any]) -> None:
    """One line a step: its number from 1, and the objective after it."""
    with path.open("w", encoding="utf-8") as file:
        for step, value in enumerate(history, 1):
            file.write(json.dumps({"step": step, "objective": _finite(float(value))}) + "\n")


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """One line an epoch of a training: its phase, and all that was followed in it."""
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps({name: _finite(value) for name, value in record.items()}) + "\n")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sizes_of(labels: np.ndarray) -> dict[int, int]:
    """How many rows each cluster has, the clusters in order."""
    import numpy as np

    names, counts = np.unique(labels, return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def clusters_and_noise(labels: np.ndarray) -> tuple[dict[int, int], int]:
    """How many rows each cluster has, the clusters in order, and how many are in none."""
    sizes = sizes_of(labels)
    return {name: count for name, count in sizes.items() if name != -1}, sizes.get(-1, 0)

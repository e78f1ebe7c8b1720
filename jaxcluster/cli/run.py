"""Files of a finished run: writing them, and finding a run or model in a folder."""

from __future__ import annotations

import csv
import json
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxcluster.cli.errors import UserError, one_line, user_errors
from jaxcluster.cli.output_dir import CONFIG, is_run, read_config

if TYPE_CHECKING:
    import numpy as np

    from jaxcluster.cli.console import Stages
    from jaxcluster.datasets import Dataset

MODEL, LABELS, METRICS, HISTORY, REPORT = "model", "labels.csv", "metrics.json", "history.jsonl", "report.html"

ARGV: ContextVar[Sequence[str]] = ContextVar("ARGV", default=())
"""Words on the command line after ``jaxcluster``."""

RESERVED = ("label", "probability", "outlier_score", "distance")
"""Columns of labels.csv behind the name of the row."""

FILES = {
    REPORT: "scores and pictures: open it in a browser",
    LABELS: "the cluster of each row",
    f"{MODEL}/": "for jaxcluster predict, and jaxcluster.load in Python",
    METRICS: "the scores above",
    HISTORY: "the objective, step by step or epoch by epoch",
    CONFIG: "all that is needed to run this again; checksums",
}
"""Files in the folder of a run, and their purpose."""


class SavedRun(NamedTuple):
    """A saved run: the folder of its model, and its config.json, empty for a model alone."""

    model: Path
    config: dict[str, Any]


def find_run(path: Path) -> SavedRun:
    """The run in a folder that `jaxcluster fit` wrote, or the model in a folder that an estimator was saved to.

    Raises:
        UserError: neither, or a run of which a file is missing or damaged.
    """
    with user_errors():
        exists = path.exists()
    if not exists:
        raise UserError(f"{path} does not exist. Name the folder that jaxcluster fit wrote (its --out).")
    folder = path.resolve().parent if path.name == MODEL and is_run(path.resolve().parent) else path
    if is_run(folder) or (folder / MODEL).is_dir():
        config = read_config(folder)
        if not (folder / MODEL).is_dir():
            raise UserError(f"{path} holds a run without a model. Name one that jaxcluster fit wrote.")
        return SavedRun(folder / MODEL, config)
    return SavedRun(path, {})


def no_run_error(path: Path, lacks: str = "") -> UserError:
    """The error for a folder that holds a model alone, with what that lacks, or neither model nor run."""
    from jaxcluster.estimators.persistence import MODEL_FILE

    if not (path / MODEL_FILE).is_file():
        return UserError(f"{path} is no run of jaxcluster. Name a folder of fit.")
    return UserError(f"{path} holds a model and no run{f': {lacks}' if lacks else ''}. Name a folder of fit.")


def add_report(stage: Stages, again: str, draw: Callable[[], object]) -> None:
    """Draw the report of results that are written. An error is only a warning: the results are complete without it.

    Args:
        stage: shows the progress.
        again: the command that draws the report again.
        draw: writes the page.
    """
    from jaxcluster.cli.console import complain

    with stage("report", "Drawing the report"):
        try:
            draw()
        except Exception as error:
            message = f"the results are written, but their report could not be drawn: {type(error).__name__}: {error}"
            complain("Warning", f"{one_line(message).rstrip('.')}. To try again: {again}", "yellow")


def command_line() -> str:
    """The command that is running, as one would type it again."""
    return shlex.join(["jaxcluster", *ARGV.get()])


def summarize_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a configuration that a report shows: the choices of the user, and the data."""
    hidden = ("column_names", "codes", *([] if config["data"].get("dates") else ["dates"]))
    data = {name: value for name, value in config["data"].items() if value not in (None, []) and name not in hidden}
    parameters = {name: value for name, value in config["parameters"].items() if value is not None}
    chosen = {name: config[name] for name in ("command", "algorithm", "ks", "seeds") if name in config}
    return chosen | {"parameters": parameters, "data": data, "scaling": config["scaling"]["how"]}


def row_names(dataset: Dataset) -> dict[str, np.ndarray]:
    """The first column of labels.csv: the names of the rows under that of their column, or their numbers from 0."""
    import numpy as np

    if dataset.ids is None or dataset.id_name is None:
        return {"row": np.arange(dataset.x.shape[0])}
    # Joined with the table by its own name, unless that is one of the columns beside it.
    return {"id" if dataset.id_name in RESERVED else dataset.id_name: dataset.ids}


def write_columns(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns of equal length to a .csv or .parquet file; a number that is not finite is an empty cell of CSV."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table(dict(columns)), path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*map(_cells, columns.values()), strict=True))


def _cells(column: np.ndarray) -> list[Any]:
    """Cells of a column for CSV: floats by 7 digits, as many as float32 has."""
    if column.dtype.kind != "f":
        return column.tolist()
    return [f"{value:.7g}" if math.isfinite(value) else "" for value in column.tolist()]


def is_labels_file(path: Path) -> bool:
    """True for a file that `write_columns` wrote with a label behind the name of each row."""
    return columns_of_labels(path)[1:2] == ["label"]


def columns_of_labels(path: Path) -> list[str]:
    """Names of the columns of a file of labels; none if it cannot be read."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return next(csv.reader(file), [])
    except (OSError, UnicodeError, csv.Error):
        return []


def write_history(path: Path, history: Iterable[Any]) -> None:
    """Write a line for each step: its number from 1, and the objective after it."""
    with path.open("w", encoding="utf-8") as file:
        for step, value in enumerate(history, 1):
            file.write(json.dumps({"step": step, "objective": finite(float(value))}) + "\n")


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a line for each epoch of a training: its phase, and all numbers recorded in it."""
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps({name: finite(value) for name, value in record.items()}) + "\n")


def as_json(value: Any) -> Any:
    """A parameter as JSON has it, which has no word for an infinite number."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def finite(value: Any) -> Any:
    """A result as JSON has it: None for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def clusters_and_noise(labels: np.ndarray) -> tuple[dict[int, int], int]:
    """Sizes of the clusters, and the number of rows of noise.

    Returns:
        The number of rows by cluster, in order of the clusters, and the number of rows labeled -1.

    >>> import numpy as np
    >>> clusters_and_noise(np.array([0, 0, 1, -1]))
    ({0: 2, 1: 1}, 1)
    """
    import numpy as np

    names, counts = np.unique(labels, return_counts=True)
    sizes = dict(zip(names.tolist(), counts.tolist(), strict=True))
    return {name: count for name, count in sizes.items() if name != -1}, sizes.get(-1, 0)

"""Scores of a labeling, from itself and against known classes, and ``jaxcluster score``, which compares two files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jaxcluster.cli import options as opt
from jaxcluster.cli import run as runs
from jaxcluster.cli.errors import UserError, user_errors
from jaxcluster.cli.inputs import LAYOUT
from jaxcluster.cli.output_dir import is_run, read_config

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console


@opt.gather("layout", dict, LAYOUT)
def score(
    labels: Annotated[
        str,
        typer.Argument(
            metavar="LABELS", show_default=False, help="A file of clusters, one a row, such as a run's labels.csv."
        ),
    ],
    truth: Annotated[
        str,
        typer.Argument(
            metavar="TRUTH",
            show_default=False,
            help="A file of classes in the same order, or a built-in set that has them, such as digits.",
        ),
    ],
    *,
    labels_column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", show_default=False, help="The column of LABELS, where it has several."),
    ] = None,
    truth_column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", show_default=False, help="The column of TRUTH, where it has several."),
    ] = None,
    layout: dict[str, Any],
    json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", rich_help_panel=opt.OUTPUT, show_default=False, help="Write the scores here as JSON."
        ),
    ] = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Compare clusters with known classes, which may have other names or numbers.

    The layout of text tables is the same for both files, but for a labels.csv that jaxcluster wrote.

    For example:

      jaxcluster score runs/digits/labels.csv digits

      jaxcluster score labels.npy flowers.csv --truth-column species --json scores.json
    """
    from jaxcluster.cli import console
    from jaxcluster.cli.output_dir import claimed_file, files_of, write_json
    from jaxcluster.plots.style import is_noise
    from jaxcluster.report.scores import external_scores

    place = nullcontext() if json is None else claimed_file(json, overwrite=overwrite, inputs=files_of(labels, truth))
    with place as claim, console.stages(quiet) as stage, stage("score", "Scoring"):
        clusters, classes = _read_both((labels, labels_column), (truth, truth_column), layout)
        scores = external_scores(classes, clusters)
        if claim is not None:
            with claim.file() as path, user_errors():
                write_json(path, scores)
    printer = console.stdout(quiet)
    noise = ", noise as one more cluster" if is_noise(clusters).any() else ""
    show_scores(printer, f"{len(clusters):,} rows against the truth{noise}", scores)
    if json is not None:
        console.say(printer, f"Written to {json}.", "bold")


def _read_both(
    labels: tuple[str, str | None], truth: tuple[str, str | None], layout: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Clusters and classes, one of each for a row, of two files and columns of theirs."""
    from jaxcluster.datasets import load_labels

    with user_errors(column="--labels-column"):
        _check_run(labels[0])
        clusters = load_labels(labels[0], column=labels[1], **_layout_of(labels[0], layout))
    with user_errors(column="--truth-column"):
        classes = load_labels(truth[0], column=truth[1], **_layout_of(truth[0], layout))
    if len(clusters) != len(classes):
        raise UserError(
            f"{labels[0]} has {len(clusters):,} labels and {truth[0]} {len(classes):,}. They must go together."
        )
    return clusters, classes


def _check_run(labels: str) -> None:
    """Refuse the labels of a run that were changed since."""
    path = Path(labels)
    if path.name == runs.LABELS and is_run(path.parent):
        read_config(path.parent)


def _layout_of(name: str, layout: dict[str, Any]) -> dict[str, Any]:
    """The layout for a text table; nothing for other files, or for labels that a run has written."""
    from jaxcluster.datasets.loading import is_text_table

    if not is_text_table(name):
        return {}
    return {} if runs.is_labels_file(Path(name)) else layout


def finite(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Scores for JSON, which has no NaN: None where one is undefined."""
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}


def show_scores(console: Console, title: str, scores: Mapping[str, Any]) -> None:
    """Print a table of scores, each with its range and the better end of it."""
    from jaxcluster.cli.console import show_table
    from jaxcluster.report.scores import score_info

    rows = [(score_info(name).title, value, score_info(name).range) for name, value in scores.items()]
    show_table(console, title, ("score", "value", "range"), rows, text=(0, 2))

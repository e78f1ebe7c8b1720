"""``jaxcluster score``: clusters against known classes."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from jaxcluster.cli import options as opt
from jaxcluster.cli import run as runs
from jaxcluster.cli.errors import MistakeError, mistakes
from jaxcluster.cli.folder import is_run, read_config


def score(
    labels: Annotated[
        str,
        typer.Argument(
            metavar="LABELS", show_default=False, help="A file of clusters, one a row, such as a run's labels.csv."
        ),
    ],
    truth: Annotated[
        str,
        typer.Argument(metavar="TRUTH", show_default=False, help="A file of classes in the same order, or digits, …"),
    ],
    labels_column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", show_default=False, help="The column of LABELS, where it has several."),
    ] = None,
    truth_column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", show_default=False, help="The column of TRUTH, where it has several."),
    ] = None,
    header: opt.Header = None,
    delimiter: opt.Delimiter = None,
    decimal: opt.Decimal = None,
    encoding: opt.Encoding = None,
    json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", rich_help_panel=opt.OUTPUT, show_default=False, help="Write the scores here as JSON."
        ),
    ] = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Compare clusters with known classes; what either are called does not matter.

    What is told of the layout of a text table holds for both files, but for a labels.csv that jaxcluster wrote.

    For example:

      jaxcluster score runs/digits/labels.csv digits

      jaxcluster score labels.npy flowers.csv --truth-column species --json scores.json
    """
    from jaxcluster.cli import console
    from jaxcluster.cli.folder import claimed_file, write_json
    from jaxcluster.cli.scores import external_scores, show_scores
    from jaxcluster.datasets import load_labels
    from jaxcluster.plots.style import is_noise

    place = nullcontext() if json is None else claimed_file(json, overwrite=overwrite)
    with place as claim, console.stages(quiet) as stage, stage("score", "Scoring"):
        with mistakes():
            layout = {"header": header, "delimiter": delimiter, "decimal": decimal, "encoding": encoding}
            _check_run(labels)
            found = load_labels(labels, column=labels_column, **_layout_of(labels, layout))
            known = load_labels(truth, column=truth_column, **_layout_of(truth, layout))
        if len(found) != len(known):
            raise MistakeError(f"{labels} has {len(found):,} labels and {truth} {len(known):,}. They must go together.")
        scores = external_scores(known, found)
        if claim is not None:
            with claim.file() as path, mistakes():
                write_json(path, scores)
    printer = console.stdout(quiet)
    noise = ", noise as one more cluster" if is_noise(found).any() else ""
    show_scores(printer, f"{len(found):,} rows against the truth{noise}", scores)
    if json is not None:
        console.say(printer, f"Written to {json}.", "bold")


def _check_run(labels: str) -> None:
    """Where the labels are those that a run has written, that they are still the same."""
    path = Path(labels)
    if path.name == runs.LABELS and is_run(path.parent):
        read_config(path.parent)


def _layout_of(name: str, layout: dict[str, Any]) -> dict[str, Any]:
    """The layout of a text table as it was told; nothing for other files, and for labels that a run has written."""
    from jaxcluster.datasets.loading import is_text_table

    if not is_text_table(name):
        return {}
    path = Path(name)
    with path.open("rb") if path.is_file() else nullcontext() as file:
        own = file is not None and file.readline() == runs.LABELS_HEAD.encode()
    return {} if own else layout

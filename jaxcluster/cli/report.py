"""``jaxcluster report``: the report of a finished run, drawn again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jaxcluster.cli import options as opt
from jaxcluster.cli import run as runs
from jaxcluster.cli.errors import UserError, user_errors
from jaxcluster.cli.inputs import STDIN, Rows, Source, describe, read
from jaxcluster.cli.output_dir import read_sealed


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", show_default=False, help="The folder that fit wrote.")],
    quiet: opt.Quiet = False,
) -> None:
    """Draw the report of a finished run again, from its model and the data that it was fitted to.

    The data must be where they were, and the same. Call it from the folder in which the run was begun.

    For example:

      jaxcluster report runs/flowers
    """
    from jaxcluster.cli import console
    from jaxcluster.cli.fit_pipeline import FitResult, draw_report, reading_options
    from jaxcluster.cli.runtime import start

    saved = runs.find_run(run)
    if not saved.config:
        raise UserError(f"{run} holds a model and no run: there is nothing to report of. Name a folder of fit.")
    start()
    with console.stages(quiet) as stage:
        with stage("load", f"Loading {run}"), user_errors():
            from jaxcluster.estimators import load
            from jaxcluster.estimators.base import INPUT_STEPS

            estimator = load(saved.model)
            scores = read_sealed(saved.model.parent / runs.METRICS)
        with stage("read", "Reading the data"), user_errors():
            rows = rows_of_run(saved.config, **reading_options(estimator))
        for name in INPUT_STEPS:
            vars(estimator).pop(name, None)  # the rows are encoded, imputed and scaled already
        kept = {name: scores[name] for name in ("internal", "external", "silhouette_rows")}
        result = FitResult(saved.config["algorithm"], estimator, rows, seconds=saved.config["seconds"], **kept)
        draw_report(stage, saved.model.parent, result, saved.config)
    if (saved.model.parent / runs.REPORT).exists():
        console.say(console.stdout(quiet), f"Written to {saved.model.parent / runs.REPORT}.", "bold")


def rows_of_run(config: dict[str, Any], **options: Any) -> Rows:
    """The rows of a run, imputed and scaled as they were; refused if they have changed."""
    source = Source(**{name: config["data"].get(name) for name in Source._fields})
    if source.data == STDIN:
        raise UserError("the rows of this run came on standard input, and are not kept. Fit a file of them.")
    rows = read(source, config["scaling"]["how"], **options)
    if describe(source, rows.dataset)["sha256"] != config["data"]["sha256"]:
        raise UserError(f"{source.data} has other rows now than when the run was fitted. Fit it again.")
    return rows

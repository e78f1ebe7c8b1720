"""``jaxcluster report`` and ``profile``: the report of a finished run, and the profile of its clusters."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jaxcluster.cli import options as opt
from jaxcluster.cli import run as runs
from jaxcluster.cli.errors import UserError, user_errors
from jaxcluster.cli.inputs import STDIN, Rows, Source, describe, read
from jaxcluster.cli.output_dir import read_sealed

if TYPE_CHECKING:
    from jaxcluster.cli.console import Stages


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
    from jaxcluster.cli.fit_pipeline import FitResult, draw_report
    from jaxcluster.cli.runtime import start

    saved = _find_run(run, "there is nothing to report of")
    start()
    with console.stages(quiet) as stage:
        estimator, rows = load_run(stage, run, saved)
        with user_errors():
            scores = read_sealed(saved.model.parent / runs.METRICS)
        kept = {name: scores[name] for name in ("internal", "external", "silhouette_rows")}
        result = FitResult(saved.config["algorithm"], estimator, rows, seconds=saved.config["seconds"], **kept)
        draw_report(stage, saved.model.parent, result, saved.config)
    if (saved.model.parent / runs.REPORT).exists():
        console.say(console.stdout(quiet), f"Written to {saved.model.parent / runs.REPORT}.", "bold")


def _find_run(run: Path, lacks: str) -> runs.SavedRun:
    """The run in a folder; refused, with what is missing, if it holds a model alone."""
    saved = runs.find_run(run)
    if not saved.config:
        raise runs.no_run_error(run, lacks)
    return saved


def load_run(stage: Stages, run: Path, saved: runs.SavedRun) -> tuple[Any, Rows]:
    """Load a run as `jaxcluster fit` had it.

    Returns:
        The fitted estimator, which takes rows as they were clustered, and the rows.

    Raises:
        UserError: a damaged model, or rows that have changed.
    """
    from jaxcluster.cli.fit_pipeline import reading_options
    from jaxcluster.estimators import load
    from jaxcluster.estimators.input_tables import INPUT_STEPS

    with stage("load", f"Loading {run}"), user_errors():
        estimator = load(saved.model)
    with stage("read", "Reading the data"), user_errors():
        rows = rows_of_run(saved.config, **reading_options(estimator))
    names = () if hasattr(rows.cells, "column_names") else ("feature_names_in_",)
    for name in (*INPUT_STEPS, *names):
        vars(estimator).pop(name, None)  # the rows are an array, and encoded, imputed and scaled already
    return estimator, rows


def rows_of_run(config: dict[str, Any], **options: Any) -> Rows:
    """The rows of a run, imputed and scaled as they were; refused if they have changed."""
    source = Source(**{name: config["data"].get(name) for name in Source._fields})
    if source.data == STDIN:
        raise UserError("the rows of this run came on standard input, and are not kept. Fit a file of them.")
    rows = read(source, config["scaling"]["how"], **options)
    if describe(source, rows.dataset)["sha256"] != config["data"]["sha256"]:
        raise UserError(f"{source.data} has other rows now than when the run was fitted. Fit it again.")
    return rows


def profile(
    run: Annotated[Path, typer.Argument(metavar="RUN", show_default=False, help="The folder that fit wrote.")],
    json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", rich_help_panel=opt.OUTPUT, show_default=False, help="Write all numbers here as JSON."
        ),
    ] = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Show for each cluster its size, the columns that set it apart, a rule, and typical, border and outlying rows.

    The data must be where they were, and the same. Call it from the folder in which the run was begun.

    For example:

      jaxcluster profile runs/flowers
    """
    from jaxcluster.cli import console
    from jaxcluster.cli.fit_pipeline import profile_of
    from jaxcluster.cli.output_dir import claimed_file, files_of, write_json
    from jaxcluster.cli.runtime import start

    saved = _find_run(run, "its rows are not known")
    start()
    place = nullcontext() if json is None else claimed_file(json, overwrite=overwrite, inputs=files_of(run))
    with place as claim, console.stages(quiet) as stage:
        estimator, rows = load_run(stage, run, saved)
        with stage("profile", "Profiling"), user_errors():
            found: Any = profile_of(estimator, rows)
        if found is None:
            noise = not (estimator.labels_ >= 0).any()
            seen = f"every row of {run} is noise" if noise else f"the rows of {run} are images"
            raise UserError(f"{seen}: there is no profile of columns.")
        if claim is not None:
            with claim.file() as path, user_errors():
                write_json(path, found.to_dict())
    printer = console.stdout(quiet)
    console.say(printer, str(found))
    if json is not None:
        console.say(printer, f"\nWritten to {json}.", "bold")

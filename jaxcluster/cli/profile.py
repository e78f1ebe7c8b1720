"""``jaxcluster profile``: what the clusters of a finished run are, in the units and words of its table."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from jaxcluster.cli import options as opt
from jaxcluster.cli import run as runs
from jaxcluster.cli.errors import UserError, user_errors


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
    from jaxcluster.cli.output_dir import claimed_file, write_json
    from jaxcluster.cli.report import load_run
    from jaxcluster.cli.runtime import start

    saved = runs.find_run(run)
    if not saved.config:
        raise UserError(f"{run} holds a model and no run: its rows are not known. Name a folder of fit.")
    start()
    place = nullcontext() if json is None else claimed_file(json, overwrite=overwrite)
    with place as claim, console.stages(quiet) as stage:
        estimator, rows = load_run(stage, run, saved)
        with stage("profile", "Profiling"), user_errors():
            found: Any = profile_of(estimator, rows)
        if found is None:
            raise UserError(f"the rows of {run} are images, or all noise: there is no profile of columns.")
        if claim is not None:
            with claim.file() as path, user_errors():
                write_json(path, found.to_dict())
    printer = console.stdout(quiet)
    console.say(printer, str(found))
    if json is not None:
        console.say(printer, f"\nWritten to {json}.", "bold")

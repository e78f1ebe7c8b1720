"""``jaxcluster compare``: one page on several finished runs."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jaxcluster.cli import options as opt
from jaxcluster.cli import run as runs
from jaxcluster.cli.errors import UserError, user_errors
from jaxcluster.cli.output_dir import read_sealed

if TYPE_CHECKING:
    import numpy as np

    from jaxcluster.report.compare import RunSummary

UNCOMPARED = ("command", "versions", "device", "written", "seconds", "compile_seconds", "warnings", "files", "codes")
"""Entries of config.json that are no settings."""


def compare(
    run: Annotated[
        list[Path], typer.Argument(metavar="RUN…", show_default=False, help="Folders that fit wrote, at least two.")
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", rich_help_panel=opt.OUTPUT, show_default=False, help="The page to write, .html."),
    ],
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Compare finished runs on one page: settings that differ, scores, agreement of the clusters, and maps.

    Maps need the data of the first run where they were. Call it from the folder in which that run was begun.

    For example:

      jaxcluster compare runs/* --out compare.html
    """
    from jaxcluster.cli import console
    from jaxcluster.cli.output_dir import claimed_file, files_of
    from jaxcluster.cli.runtime import start
    from jaxcluster.report.compare import compare_page

    if len(run) < 2:
        raise UserError("one run has nothing to be compared with. Name two or more folders that fit wrote.")
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out} is written as HTML. Let its name end in .html.")
    with claimed_file(out, overwrite=overwrite, inputs=files_of(*run)) as claim, console.stages(quiet) as stage:
        with stage("read", "Reading the runs"):
            summaries = _summaries(run)
        start()
        x, notes = _rows_of_first(stage, run[0])
        with stage("compare", "Comparing"), claim.file() as path, user_errors():
            path.write_text(compare_page(summaries, x, notes), encoding="utf-8")
    console.say(console.stdout(quiet), f"Written to {out}.", "bold")


def _summaries(folders: Sequence[Path]) -> list[RunSummary]:
    """The runs under the names of their folders, or under their paths where these repeat."""
    from jaxcluster.report.compare import RunSummary

    short = [Path(os.path.realpath(folder)).name for folder in folders]  # a link to itself raises later, with its name
    names = short if len(set(short)) == len(short) else list(map(str, folders))
    if len(set(names)) < len(names):
        raise UserError("a run is named twice. Name each folder once.")
    summaries = []
    for name, folder in zip(names, folders, strict=True):
        saved = runs.find_run(folder)
        if not saved.config:
            raise runs.no_run_error(folder)
        place = saved.model.parent
        with user_errors():
            scores = read_sealed(place / runs.METRICS)
            rows, labels = _read_labels(place / runs.LABELS)
        settings = dict(_flat({key: value for key, value in saved.config.items() if key not in UNCOMPARED}))
        seconds = sum(saved.config.get("seconds", {}).values())
        both = {**scores["internal"], **(scores["external"] or {})}
        method = (saved.config.get("algorithm"), saved.config.get("parameters", {}).get("metric"))
        data = saved.config.get("data", {})
        summaries.append(RunSummary(name, settings, both, labels, rows, seconds, data, method))
    return summaries


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Settings with dotted names; arrays that belong to a scaling are left out."""
    found = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        elif name not in ("shift", "factor", "origin", "values", "sha256", "column_names", "notes"):
            found.append((f"{prefix}{name}", value))
    return found


def _read_labels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read labels.csv.

    Returns:
        (n_samples,) names of the rows as text, and their labels.
    """
    import numpy as np

    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        next(lines)
        columns = list(zip(*(line[:2] for line in lines), strict=True))
    return np.array(columns[0]), np.array(columns[1]).astype(np.int64)


def _rows_of_first(stage: Any, folder: Path) -> tuple[np.ndarray | None, list[str]]:
    """Read the rows of the first run as it clustered them.

    Returns:
        The rows, None where they cannot be read, and then a sentence on the reason.
    """
    from jaxcluster.cli.report import load_run

    try:
        estimator, rows = load_run(stage, folder, runs.find_run(folder))
    except UserError as error:
        return None, [f"There are no maps: {error}"]
    if rows.is_sparse:
        from jaxcluster.report.sparse_profiles import drawable

        return drawable(rows.x).x, []
    return (rows.x if rows.cells is None else estimator.embed(rows.cells)[0]), []

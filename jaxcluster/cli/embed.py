"""``jaxcluster embed``: coordinates of rows by a finished run, such as the codes of a network."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jaxcluster.cli import options as opt
from jaxcluster.cli import run as runs
from jaxcluster.cli.errors import UserError, user_errors
from jaxcluster.cli.inputs import Source

if TYPE_CHECKING:
    import numpy as np

    from jaxcluster.datasets import Dataset


@opt.gather("source", Source, opt.NEW_ROWS)
def embed(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", show_default=False, help="The folder that jaxcluster fit wrote, or a saved model."
        ),
    ],
    *,
    out: Annotated[
        Path, typer.Option(metavar="FILE", show_default=False, help="The file to write: .csv, .parquet or .npy.")
    ],
    source: Source,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write coordinates of the rows of a data set: the codes of a network, or the distances to all centers.

    Spectral clustering has coordinates of the rows of its fit alone.

    For example:

      jaxcluster embed runs/dec digits --out codes.npy
    """
    from jaxcluster.cli import console
    from jaxcluster.cli.output_dir import claimed_file
    from jaxcluster.cli.predict import check_ending, load_and_read
    from jaxcluster.cli.runtime import start

    check_ending(out)
    saved = runs.find_run(model)
    start()
    with claimed_file(out, overwrite=overwrite) as claim, console.stages(quiet) as stage:
        estimator, rows = load_and_read(stage, model, saved, source)
        with stage("embed", f"Embedding {rows.x.shape[0]:,} rows"), user_errors(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "X does not have valid feature names")  # `rows_like` has looked
            coordinates = _coordinates(estimator, rows, saved.config.get("data", {}))
        with claim.file() as path, user_errors():
            _write(path, rows, coordinates)
    printer = console.stdout(quiet)
    console.say(printer, f"{len(coordinates):,} columns of {rows.x.shape[0]:,} rows, written to {out}.", "bold")


def _coordinates(estimator: Any, rows: Dataset, data: dict[str, Any]) -> dict[str, np.ndarray]:
    """Columns of coordinates, of new rows or, where a method has none for these, of the rows of the fit."""
    from jaxcluster.cli.row_columns import coordinates
    from jaxcluster.cli.sparse_inputs import digest_of

    if hasattr(estimator, "transform") or not hasattr(estimator, "embedding_"):
        return coordinates(estimator, rows.samples)
    if digest_of(rows.x).hexdigest() != data.get("sha256"):
        raise UserError(f"{type(estimator).__name__} has coordinates of the rows of its fit alone: name their file.")
    return {f"code_{j}": column for j, column in enumerate(estimator.embedding_.T)}


def _write(path: Path, rows: Dataset, columns: dict[str, np.ndarray]) -> None:
    import numpy as np

    if path.suffix == ".npy":
        np.save(path, np.column_stack(list(columns.values())))
    else:
        runs.write_columns(path, runs.row_names(rows) | columns)

"""``jaxcluster predict``: labels of new rows by a finished run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jaxcluster.cli import options as opt
from jaxcluster.cli import run as runs
from jaxcluster.cli.errors import UserError, user_errors
from jaxcluster.cli.inputs import Source, read_like

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from jaxcluster.cli.console import Stages
    from jaxcluster.cli.output_dir import Claim
    from jaxcluster.datasets import Dataset

ENDINGS = (".csv", ".npy", ".parquet")
"""Endings of files of labels."""

MOST_CLUSTERS = 30
"""Clusters in the table, the largest ones if there are more."""


@opt.gather("source", Source, opt.NEW_ROWS)
def predict(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", show_default=False, help="The folder that jaxcluster fit wrote, or a saved model."
        ),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=opt.OUTPUT,
            show_default=False,
            help="Write the cluster of each row here: .csv, .parquet or .npy.",
        ),
    ] = None,
    proba: Annotated[
        bool, opt.option("--proba", panel=opt.OUTPUT, help="Add the probability of each cluster.")
    ] = False,
    distances: Annotated[
        bool,
        opt.option("--distances", panel=opt.OUTPUT, help="Add the distance to the center, in the units of the fit."),
    ] = False,
    transform: Annotated[
        bool,
        opt.option(
            "--transform", panel=opt.OUTPUT, help="Add the codes of a network, or the distances to all centers."
        ),
    ] = False,
    report: Annotated[
        Path | None,
        opt.option(
            "--report",
            metavar="FILE",
            panel=opt.OUTPUT,
            help="Write a page here, .html: whether the rows are still like those of the run, column by column.",
        ),
    ] = None,
    source: Source,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Find the cluster of each row of a data set, with a model fitted before.

    The columns, codes, imputation and scaling of the run are used again: give the rows in their own units and words. A
    text table has the layout of that of the run, unless any of it is given.

    For example:

      jaxcluster predict runs/flowers new.csv --out labels.csv

      jaxcluster predict runs/flowers new.csv --out labels.parquet --distances

      jaxcluster predict runs/flowers new.csv --report drift.html
    """
    from jaxcluster.cli import console
    from jaxcluster.cli.drift import check_page
    from jaxcluster.cli.output_dir import claimed_file
    from jaxcluster.cli.runtime import start

    added = {"proba": proba, "transform": transform, "distance": distances}
    _check_out(out, any(added.values()))
    saved = runs.find_run(model)
    if report is not None:
        check_page(report, saved)
    place, page = (nullcontext() if path is None else claimed_file(path, overwrite=overwrite) for path in (out, report))
    start()
    with place as claim, page as page_claim, console.stages(quiet) as stage:
        estimator, rows = load_and_read(stage, model, saved, source, check=_check_predicts)
        _check_report(report, rows)
        labels, more = _label(stage, estimator, rows, added)
        if claim is not None:
            with claim.file() as path, user_errors():
                _write(path, runs.row_names(rows) | {"label": labels} | more)
        if page_claim is not None:
            _write_report(stage, page_claim, saved, estimator, rows, labels)
    printer = console.stdout(quiet)
    _show_counts(printer, rows.name, labels)
    for path in filter(None, (out, report)):
        console.say(printer, f"Written to {path}.", "bold")


def _check_out(out: Path | None, columns: bool) -> None:
    """Refuse a file of another kind than tables and .npy, and more columns for what has only labels."""
    if out is not None:
        check_ending(out)
    if columns and (out is None or out.suffix == ".npy"):
        raise UserError("--proba, --distances and --transform add columns to a table: pass --out FILE.csv or .parquet.")


def check_ending(out: Path) -> None:
    """Refuse a file of another kind than those of `ENDINGS`."""
    if out.suffix not in ENDINGS:
        raise UserError(f"--out {out} must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}.")


def load_and_read(
    stage: Stages, model: Path, saved: runs.SavedRun, source: Source, check: Callable[[Any], None] | None = None
) -> tuple[Any, Dataset]:
    """Load a model, and read rows as those of its fit were.

    Args:
        stage: shows the progress.
        model: the folder, in the user's words.
        saved: the run in it.
        source: of the new rows.
        check: of the model, before the rows are read.

    Returns:
        The fitted estimator, and the rows in their own units.
    """
    from jaxcluster.estimators import load

    with stage("load", f"Loading {model}"), user_errors():
        estimator = load(saved.model)
        if check is not None:
            check(estimator)
    with stage("read", f"Reading {source.data}"), user_errors():
        rows = rows_like(saved.config, source, estimator)
    stage.note(rows.notes)
    return estimator, rows


def _check_predicts(estimator: Any) -> None:
    if not hasattr(estimator, "predict"):
        raise UserError(f"{type(estimator).__name__} cannot label new rows. Fit another method for that.")


def _check_report(report: Path | None, rows: Dataset) -> None:
    from jaxcluster.core.sparse_rows import is_sparse

    if report is not None and is_sparse(rows.x):
        raise UserError(f"--report compares columns of dense rows, and those of {rows.name} are sparse: leave it out.")


def _label(
    stage: Stages, estimator: Any, rows: Dataset, added: Mapping[str, bool]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels (n_samples,) of new rows, and the columns that are asked for besides."""
    from jaxcluster.cli.row_columns import new_columns

    with stage("predict", f"Labeling {rows.x.shape[0]:,} rows"), user_errors(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")  # `read_like` has looked
        labels = estimator.predict(rows.samples)
        return labels, new_columns(estimator, rows.samples, labels, **added)


def _write_report(
    stage: Stages, claim: Claim, saved: runs.SavedRun, estimator: Any, rows: Dataset, labels: np.ndarray
) -> None:
    from jaxcluster.cli.drift import drift_text

    with stage("report", "Comparing with the rows of the run"), claim.file() as path, user_errors():
        path.write_text(drift_text(saved.config, estimator, rows, labels), encoding="utf-8")


def rows_like(config: Mapping[str, Any], source: Source, estimator: Any) -> Dataset:
    """New rows, in their own units: the model imputes and scales them as those of the run were."""
    from jaxcluster.cli.sparse_inputs import check_sparse
    from jaxcluster.core.sparse_rows import is_sparse
    from jaxcluster.core.validation import check_finite, check_width

    categories = estimator.reading_options() is not None
    steps = {"encoding": estimator.input_encoding_, "vectorizer": estimator.input_vectorizer_}
    dataset = read_like(config.get("data", {}), source, categories=categories, **steps)
    check_width(dataset.x, estimator.n_features_in_, name=dataset.name)
    fills = getattr(estimator, "missing", False) or estimator.input_imputation_ is not None
    by_gower = categories and getattr(estimator, "metric", None) == "gower"  # whose terms leave missing cells out
    missing = True if fills or by_gower else None
    if is_sparse(dataset.x):
        check_sparse(estimator.info, estimator.get_params(deep=False), dataset)
        return dataset
    check_finite(dataset.x, name=dataset.name, missing=missing, columns=dataset.columns)
    return dataset


def _write(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    import numpy as np

    if path.suffix == ".npy":
        np.save(path, columns["label"])
    else:
        runs.write_columns(path, columns)


def _show_counts(console: Console, name: str, labels: np.ndarray) -> None:
    """Print the number of rows of each cluster, of the largest ones if there are many, and of noise."""
    from jaxcluster.cli.console import show_table

    sizes, noise = runs.clusters_and_noise(labels)
    shown = sorted(sorted(sizes, key=sizes.__getitem__, reverse=True)[:MOST_CLUSTERS])
    rows = [(str(cluster), sizes[cluster], f"{sizes[cluster] / len(labels):.1%}") for cluster in shown]
    rows += [("noise", noise, f"{noise / len(labels):.1%}")] if noise else []
    which = "" if len(shown) == len(sizes) else f", the {len(shown)} largest of {len(sizes):,} clusters"
    show_table(console, f"{len(labels):,} rows of {name}{which}", ("cluster", "rows", "share"), rows, text=())

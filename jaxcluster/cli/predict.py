"""``jaxcluster predict``: labels of new rows by a finished run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
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

    from jaxcluster.datasets import Dataset

ENDINGS = (".csv", ".npy", ".parquet")
"""Endings of files of labels."""

MOST_CLUSTERS = 30
"""Clusters in the table, the largest ones if there are more."""


def predict(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", show_default=False, help="The folder that jaxcluster fit wrote, or a saved model."
        ),
    ],
    data: opt.Data,
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
    columns: opt.Columns = None,
    row_id: opt.RowId = None,
    na: opt.NA = None,
    text: opt.Text = None,
    key: opt.Key = None,
    header: opt.Header = None,
    delimiter: opt.Delimiter = None,
    decimal: opt.Decimal = None,
    encoding: opt.Encoding = None,
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
    from jaxcluster.cli.drift import check_page, drift_text
    from jaxcluster.cli.output_dir import claimed_file
    from jaxcluster.cli.row_columns import new_columns
    from jaxcluster.cli.runtime import start
    from jaxcluster.core.sparse_rows import is_sparse

    added = {"proba": proba, "transform": transform, "distance": distances}
    if out is not None:
        check_ending(out)
    if any(added.values()) and (out is None or out.suffix == ".npy"):
        raise UserError("--proba, --distances and --transform add columns to a table: pass --out FILE.csv or .parquet.")
    saved = runs.find_run(model)
    if report is not None:
        check_page(report, saved)
    place, page = (nullcontext() if path is None else claimed_file(path, overwrite=overwrite) for path in (out, report))
    start()
    with place as claim, page as page_claim, console.stages(quiet) as stage:
        with stage("load", f"Loading {model}"), user_errors():
            estimator = _load(saved.model)
        with stage("read", f"Reading {data}"), user_errors():
            layout = {"header": header, "delimiter": delimiter, "decimal": decimal, "encoding": encoding}
            rows = rows_like(
                saved.config, Source(data, key, columns, row_id=row_id, na=na, text=text, **layout), estimator
            )
        stage.note(rows.notes)
        if report is not None and is_sparse(rows.x):
            raise UserError(
                f"--report compares columns of dense rows, and those of {rows.name} are sparse: leave it out."
            )
        with stage("predict", f"Labeling {rows.x.shape[0]:,} rows"), user_errors(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "X does not have valid feature names")  # `read_like` has looked
            labels = estimator.predict(rows.samples)
            more = new_columns(estimator, rows.samples, labels, **added)
        if claim is not None:
            with claim.file() as path, user_errors():
                _write(path, runs.row_names(rows) | {"label": labels} | more)
        if page_claim is not None:
            with stage("report", "Comparing with the rows of the run"), page_claim.file() as path, user_errors():
                path.write_text(drift_text(saved.config, estimator, rows, labels), encoding="utf-8")
    printer = console.stdout(quiet)
    _show_counts(printer, rows.name, labels)
    for path in filter(None, (out, report)):
        console.say(printer, f"Written to {path}.", "bold")


def check_ending(out: Path) -> None:
    """Refuse a file of another kind than those of `ENDINGS`."""
    if out.suffix not in ENDINGS:
        raise UserError(f"--out {out} must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}.")


def _load(model: Path) -> Any:
    from jaxcluster.estimators import load

    estimator = load(model)
    if not hasattr(estimator, "predict"):
        raise UserError(f"{type(estimator).__name__} cannot label new rows. Fit another method for that.")
    return estimator


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

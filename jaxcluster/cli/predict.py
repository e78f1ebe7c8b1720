"""``jaxcluster predict`` and ``embed``: labels and coordinates of new rows, and how they differ from a run's rows."""

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
    from jaxcluster.cli.run import SavedRun
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
    from jaxcluster.cli.output_dir import claimed_file, files_of
    from jaxcluster.cli.runtime import start

    added = {"proba": proba, "transform": transform, "distance": distances}
    _check_out(out, any(added.values()))
    saved = runs.find_run(model)
    if report is not None:
        check_page(report, saved)
    read = list(files_of(model, source.data))
    place, page = (
        nullcontext() if path is None else claimed_file(path, overwrite=overwrite, inputs=read)
        for path in (out, report)
    )
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

    with stage("report", "Comparing with the rows of the run"), claim.file() as path, user_errors():
        path.write_text(drift_text(saved.config, estimator, rows, labels), encoding="utf-8")


def rows_like(config: Mapping[str, Any], source: Source, estimator: Any) -> Dataset:
    """New rows, in their own units: the model imputes and scales them as those of the run were."""
    from jaxcluster.cli.table_checks import check_sparse
    from jaxcluster.core.sparse_rows import is_sparse
    from jaxcluster.core.validation import check_finite, check_width

    categories = estimator.reading_options() is not None
    steps = {"encoding": estimator.input_encoding_, "vectorizer": estimator.input_vectorizer_}
    # A model that Python saved has no run, but may have names of columns.
    names = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
    data = config.get("data", {"column_names": names or None})
    dataset = read_like(data, source, categories=categories, **steps)
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
    from jaxcluster.cli.output_dir import claimed_file, files_of
    from jaxcluster.cli.runtime import start

    check_ending(out)
    saved = runs.find_run(model)
    start()
    with (
        claimed_file(out, overwrite=overwrite, inputs=files_of(model, source.data)) as claim,
        console.stages(quiet) as stage,
    ):
        estimator, rows = load_and_read(stage, model, saved, source)
        with stage("embed", f"Embedding {rows.x.shape[0]:,} rows"), user_errors(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "X does not have valid feature names")  # `rows_like` has looked
            coordinates = _coordinates(estimator, rows, saved.config.get("data", {}))
        with claim.file() as path, user_errors():
            _write_coordinates(path, rows, coordinates)
    printer = console.stdout(quiet)
    console.say(printer, f"{len(coordinates):,} columns of {rows.x.shape[0]:,} rows, written to {out}.", "bold")


def _coordinates(estimator: Any, rows: Dataset, data: dict[str, Any]) -> dict[str, np.ndarray]:
    """Columns of coordinates, of new rows or, where a method has none for these, of the rows of the fit."""
    from jaxcluster.cli.row_columns import coordinates
    from jaxcluster.cli.table_checks import digest_of

    if hasattr(estimator, "transform") or not hasattr(estimator, "embedding_"):
        return coordinates(estimator, rows.samples)
    if digest_of(rows.x).hexdigest() != data.get("sha256"):
        raise UserError(f"{type(estimator).__name__} has coordinates of the rows of its fit alone: name their file.")
    return {f"code_{j}": column for j, column in enumerate(estimator.embedding_.T)}


def _write_coordinates(path: Path, rows: Dataset, columns: dict[str, np.ndarray]) -> None:
    import numpy as np

    if path.suffix == ".npy":
        np.save(path, np.column_stack(list(columns.values())))
    else:
        runs.write_columns(path, runs.row_names(rows) | columns)


def check_page(path: Path, saved: SavedRun) -> None:
    """Refuse another ending than that of a page, and a model without a run."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--report {path} is written as HTML. Let its name end in .html.")
    if not saved.config:
        raise UserError("--report compares with the rows of a run, and a model alone has none: name a folder of fit.")


def drift_text(config: Mapping[str, Any], estimator: Any, rows: Dataset, labels: np.ndarray) -> str:
    """The page on new rows as HTML.

    Args:
        config: of the run, whose rows are read again.
        estimator: fitted, as it was saved: it takes rows in the units of the data.
        rows: new rows, in these units.
        labels: (n_samples,) their clusters.

    Raises:
        UserError: rows of the run that are not where they were, or have changed.
    """
    from jaxcluster.cli.fit_pipeline import reading_options
    from jaxcluster.cli.report import rows_of_run
    from jaxcluster.report.drift import NewRows, drift_of, drift_page

    fitted = rows_of_run(dict(config), **reading_options(estimator)).dataset
    old, dates = readable(fitted)
    new, _ = readable(rows)
    new = dict(zip(old, new.values(), strict=True))  # in the order of the run; columns of an array have no names
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")  # the readers have looked
        far, what = far_share(estimator, fitted, rows, labels)
    shown = NewRows(
        rows.name, type(estimator).__name__, estimator.labels_, labels, drift_of(old, new), dates, far, what
    )
    return drift_page(shown)


def readable(dataset: Dataset) -> tuple[dict[str, np.ndarray], frozenset[str]]:
    """Columns of rows as a person reads them.

    Returns:
        By name float64 numbers, or text as objects; and names of the numbers that are dates, as days since 1970-01-01.
    """
    import numpy as np

    from jaxcluster.report.readable import readable_columns

    if dataset.cells is not None:
        table = {name: np.array(dataset.cells.column(name).to_pylist()) for name in dataset.cells.column_names}
    elif dataset.encoding is not None:
        table = dataset.encoding.decode(dataset.x)
    else:
        names = dataset.columns or [f"column {j}" for j in range(dataset.x.shape[1])]
        unique = len(set(names)) == len(names)
        names = names if unique else [f"{name} ({j})" for j, name in enumerate(names)]
        table = dict(zip(map(str, names), np.asarray(dataset.x, np.float64).T, strict=True))
    columns = readable_columns(None, table)
    both = {**columns.numbers, **columns.words}
    return {str(name): both[name] for name in table}, columns.dates | frozenset(dataset.dates)


def far_share(estimator: Any, fitted: Dataset, rows: Dataset, labels: np.ndarray) -> tuple[float | None, str]:
    """Share of the new rows that are farther from every center, or less dense, than almost all rows of the run.

    Returns:
        The share, None for a method with neither centers nor densities; and what was compared.
    """
    import numpy as np

    from jaxcluster.cli.row_columns import distances, has_distances
    from jaxcluster.report.drift import far_bound

    if has_distances(estimator):
        old = distances(estimator, fitted.samples, estimator.labels_)
        return float(np.mean(distances(estimator, rows.samples, labels) > far_bound(old))), "distance to the center"
    if estimator.info.family == "mixture":
        old = -np.asarray(estimator.score_samples(fitted.samples))
        new = -np.asarray(estimator.score_samples(rows.samples))
        return float(np.mean(new > far_bound(old))), "negative log-density"
    return None, ""

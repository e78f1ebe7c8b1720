"""The fit of the command line: load, fit, score, write and report."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxcluster.cli import run as runs
from jaxcluster.cli import runtime
from jaxcluster.cli.errors import as_options, user_errors
from jaxcluster.cli.inputs import Rows, Source, describe, imputation_entry, partial_labels, read
from jaxcluster.cli.output_dir import Claim, check_space, write_config, write_sealed
from jaxcluster.cli.table_checks import check_sparse, has_missing
from jaxcluster.cli.training import (
    check_partial,
    check_rows,
    keeps_checkpoints,
    partial_run,
    run_arguments,
    trains_network,
)
from jaxcluster.core import signals

if TYPE_CHECKING:
    from jaxcluster.cli.console import Stages

BYTES, BYTES_PER_ROW = 4 << 20, 48
"""Bytes that a run takes on the disk at least: a small model with a report, and a line of labels.csv for each row."""

NOISE_IN_SCORES = "one more cluster in the scores against the truth, left out of the others"
"""Note of a report on rows in no cluster."""


class FitTask(NamedTuple):
    """A fit as it was asked for.

    Attributes:
        method: name of the method.
        estimator: unfitted, with its parameters set.
        source: of the rows.
        scale: one of `jaxcluster.datasets.SCALINGS`.
        out: the folder of the run.
        overwrite: replace another run there.
        resume: go on from checkpoints.
        report: write one.
        tensorboard: a folder for TensorBoard's files, or None.
        labels: a file of classes to learn from, or a fraction of the truth; None for none.
        links: pairs of rows, (n_pairs, 2), by the name of the argument of ``fit`` that takes them.
    """

    method: str
    estimator: Any
    source: Source
    scale: str
    out: Path
    overwrite: bool = False
    resume: bool = False
    report: bool = True
    tensorboard: Path | None = None
    labels: str | None = None
    links: Mapping[str, Any] = MappingProxyType({})


class FitResult(NamedTuple):
    """A finished fit and its scores.

    Attributes:
        method: name of the method.
        estimator: fitted.
        rows: of the fit.
        internal: scores without the truth.
        external: scores against the truth, None without one.
        silhouette_rows: number of rows that the silhouette is computed from.
        seconds: by stage.
        warned: the estimator has warned of how its fit ended.
        warnings: of things about the rows that make clusters say little.
    """

    method: str
    estimator: Any
    rows: Rows
    internal: dict[str, float | None]
    external: dict[str, float] | None
    silhouette_rows: int
    seconds: dict[str, float]
    warned: bool = False
    warnings: Sequence[str] = ()

    @property
    def scores_in_words(self) -> dict[str, Any]:
        """The scores without the truth, by the names under which they are explained."""
        from jaxcluster.report.scores import explained

        return explained(self.estimator, self.internal)

    @property
    def remarks(self) -> list[str]:
        """Sentences on how to read the clusters and their scores."""
        remarks = _many_small_clusters(self.estimator)
        if self.rows.weights is not None:
            remarks.append("Weights count in the fit and its objective; other scores count each row once.")
        if has_missing(self.rows.x):
            by_gower = getattr(self.estimator, "metric", None) == "gower"
            what = "means" if by_gower else "distances"
            remarks.append(
                f"Rows with missing cells have no {what}, so that scores by {what.removesuffix('s')} are left out."
            )
        return remarks


MANY_NOISE, FEW_ROWS = 0.25, 0.1
"""Fraction of noise from which, and fraction of the rows in the largest cluster below which, OPTICS gets a hint."""


def _many_small_clusters(estimator: Any) -> list[str]:
    """A hint for OPTICS where its steep areas cut the rows into splinters, as they do by default in even clusters."""
    chosen = estimator.get_params()
    if "xi" not in chosen or chosen["cluster_method"] != "xi" or chosen["min_cluster_size"] is not None:
        return []
    clusters, noise = runs.clusters_and_noise(estimator.labels_)
    rows = len(estimator.labels_)
    if not clusters or noise < MANY_NOISE * rows or max(clusters.values()) > FEW_ROWS * rows:
        return []
    return [
        "The clusters are small and many rows are noise, because every small dip of the reachability plot is one. For "
        "larger clusters set --min-cluster-size (0.2 is a fifth of the rows), raise --min-samples, or cut the plot "
        "at one distance: --cluster-method dbscan --eps DISTANCE."
    ]


def run_fit(stage: Stages, task: FitTask, claim: Claim) -> FitResult:
    """Load the rows, fit, score, write the run and then its report."""
    rows = load(stage, task, claim)
    with checkpoint_folder(task, rows) as (settings, folder):
        warned = fit(stage, task, rows, folder)
        result = score(stage, task, rows, warned)
        config = write(stage, claim, result, settings)
    if task.report:
        draw_report(stage, task.out, result, config)
    return result


def load(stage: Stages, task: FitTask, claim: Claim) -> Rows:
    """Read and scale the rows, and check that the fit can take them and the disk the run."""
    if keeps_checkpoints(task.method, task.estimator.info.family):
        check_partial(task.out, resume=task.resume, overwrite=task.overwrite)
    with stage("read", f"Reading {task.source.data}"), user_errors():
        rows = read(task.source, task.scale, **reading_options(task.estimator))
        check_sparse(task.estimator.info, task.estimator.get_params(deep=False), rows.dataset)
    stage.note(rows.dataset.notes)
    check_space(claim, BYTES + rows.n * BYTES_PER_ROW)
    if trains_network(task.estimator):
        check_rows(task.estimator, rows)
    return rows


def reading_options(estimator: Any) -> dict[str, Any]:
    """Options of `jaxcluster.cli.inputs.read`: how an estimator treats missing cells and text, and its metric."""
    parameters = estimator.get_params(deep=False)
    options = {"metric": parameters["metric"]} if "metric" in parameters else {}
    if "missing" in parameters:
        value = type(estimator).info.needs["missing"]["missing"][0]
        options |= {"missing": parameters["missing"] == value, "missing_option": f"missing={value!r}"}
    categories = estimator.reading_options()
    if categories is None:
        return options
    by_gower = parameters.get("metric") == "gower"  # whose terms leave missing cells out
    return options | {"categories": categories, "missing": True if by_gower else None}


@contextmanager
def checkpoint_folder(task: FitTask, rows: Rows) -> Iterator[tuple[dict[str, Any], Path | None]]:
    """The entries of config.json that are known before the fit, and a folder for checkpoints of a training.

    The folder is removed once the block has written the run, and kept if it fails.
    """
    settings = {
        "command": runs.command_line(),
        "algorithm": task.method,
        "parameters": {name: runs.as_json(value) for name, value in task.estimator.get_params().items()},
        "data": describe(task.source, rows.dataset),
        **({} if task.labels is None else {"labels": task.labels}),
        "scaling": rows.scaling.to_json(),
        **imputation_entry(rows),
        "versions": runtime.versions(),
        "device": runtime.device(),
    }
    keeps = keeps_checkpoints(task.method, task.estimator.info.family)
    keep = partial_run(task.out, settings, resume=task.resume) if keeps else nullcontext()
    with keep as folder:
        yield settings, folder


def fit(stage: Stages, task: FitTask, rows: Rows, folder: Path | None) -> bool:
    """Fit the estimator; True if it has warned of how the fit ended.

    Args:
        stage: shows the progress.
        task: the estimator, and the classes and pairs that it learns from.
        rows: to fit.
        folder: for the checkpoints of a training; None for other methods.
    """
    arguments = {} if rows.weights is None else {"sample_weight": rows.weights}
    if task.labels is not None:
        arguments["y"] = partial_labels(task.labels, rows, task.estimator.random_state)
    from jaxcluster.core import chunks
    from jaxcluster.core.loop_checkpoints import resumable

    title = f"Fitting {task.method} to {rows.n:,} rows"
    progress = chunks.watching(partial(show_steps, stage, title, task.estimator.info.objective), short=False)
    saved: Any = nullcontext()
    if folder is not None and not trains_network(task.estimator):
        saved = resumable(folder)
    elif folder is not None:
        options = {"resume": task.resume, "tensorboard": task.tensorboard}
        arguments |= run_arguments(task.estimator, title, stage, folder, **options)
    with stage("fit", title), user_errors(), convergence_warnings() as warned, progress, saved:
        task.estimator.fit(rows.samples, **arguments, **task.links)
    return bool(warned)


def show_steps(stage: Stages, title: str, objective: str | None, progress: Any) -> None:
    """Show the progress of a fit in chunks."""
    from jaxcluster.estimators.fit_messages import left_in_words

    value = f", {objective} {progress.objectives[-1]:.6g}" if len(progress.objectives) else ""
    stage.say(f"{title}: {left_in_words(progress)}{value}")


@contextmanager
def convergence_warnings() -> Iterator[list[str]]:
    """Show warnings, and collect those of how the fit ended."""
    from sklearn.exceptions import ConvergenceWarning

    warned: list[str] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*did not converge")  # `show` says it in the words of the command line
        shown = warnings.showwarning

        def listen(message, category, *where, **more):
            if issubclass(category, ConvergenceWarning):
                warned.append(str(message))
            shown(message, category, *where, **more)

        warnings.showwarning = listen
        yield warned


def score(stage: Stages, task: FitTask, rows: Rows, warned: bool) -> FitResult:
    """Score the labels of the fitted estimator."""
    from jaxcluster import model_selection
    from jaxcluster.cli.score import finite
    from jaxcluster.cli.table_checks import table_warnings
    from jaxcluster.report.scores import external_scores, internal_scores

    estimator = task.estimator
    with stage("score", "Scoring"):
        x = rows.x if rows.cells is None else estimator.embed(rows.cells)[0]
        scores = estimator.model_scores(rows.samples, rows.weights) | internal_scores(estimator, x, rows.cells)
        external = None if rows.dataset.y is None else external_scores(rows.dataset.y, estimator.labels_)
        parameters = estimator.get_params(deep=False)
        k, metric = parameters.get(estimator.info.clusters), parameters.get("metric")
        doubts = table_warnings(rows, k, info=estimator.info, metric=metric)
    sampled = min(int((estimator.labels_ >= 0).sum()), model_selection.SILHOUETTE_SAMPLE)
    return FitResult(task.method, estimator, rows, finite(scores), external, sampled, stage.seconds, warned, doubts)


def write(stage: Stages, claim: Claim, result: FitResult, settings: dict[str, Any]) -> dict[str, Any]:
    """Write model, labels, history, scores and config.json to the claimed folder; the configuration as written."""
    import numpy as np

    from jaxcluster.cli import console
    from jaxcluster.cli.row_columns import fit_columns

    estimator = result.estimator
    with claim.folder() as folder, stage("write", "Writing"), user_errors():
        now = datetime.now(UTC).isoformat(timespec="seconds")
        config = {**settings, "written": now, "seconds": dict(result.seconds)}
        config |= {"compile_seconds": dict(stage.compile_seconds)} if stage.compile_seconds else {}
        if doubts := [*console.WARNED, *result.warnings]:
            config["warnings"] = doubts
        # The model takes new rows in the data's units; the estimator itself goes on with scaled ones, for the report.
        to_save = copy(estimator)
        rows = result.rows
        steps = {"scaling": rows.scaling, "imputation": rows.imputation, "encoding": rows.encoding}
        steps["vectorizer"] = rows.dataset.vectorizer
        vars(to_save).update({f"input_{name}_": step for name, step in steps.items() if step is not None})
        names = rows.dataset.columns
        if names is not None and not rows.is_sparse and all(names) and len(set(names)) == len(names):
            to_save.feature_names_in_ = np.array(names, dtype=object)
        to_save.save(folder / runs.MODEL)
        columns = runs.row_names(rows.dataset) | {"label": estimator.labels_} | fit_columns(estimator, rows.samples)
        runs.write_columns(folder / runs.LABELS, columns)
        if trains_network(estimator):
            runs.write_records(folder / runs.HISTORY, estimator.epoch_history_)
        elif len(getattr(estimator, "history_", ())):
            runs.write_history(folder / runs.HISTORY, estimator.history_)
        clusters, noise = runs.clusters_and_noise(estimator.labels_)
        scores = {"internal": result.internal, "external": result.external, "silhouette_rows": result.silhouette_rows}
        write_sealed(folder / runs.METRICS, {"clusters": len(clusters), "noise_rows": noise, **scores})
        write_config(folder, config)
    return config


def draw_report(stage: Stages, out: Path, result: FitResult, config: dict[str, Any]) -> None:
    """Add the report to a run that is written."""
    again = shlex.join(["jaxcluster", "report", str(out)])
    signals.set_stop_message(f"the run in {out} is complete but for its report. To draw it: {again}")
    runs.add_report(stage, again, lambda: _write_report(out.resolve() / runs.REPORT, result, config))


def _write_report(path: Path, result: FitResult, config: dict[str, Any]) -> None:
    """Write the report, on the rows as they were clustered."""
    from jaxcluster.report import write_report
    from jaxcluster.report.html import fitted_parts

    estimator, rows = result.estimator, result.rows
    notes = tuple(map(as_options, rows.dataset.notes))
    dataset, scaling = rows.dataset._replace(x=rows.x, notes=notes), rows.scaling
    parts = fitted_parts(estimator, rows.samples, rows.weights, dataset.image_shape)
    remarks = result.remarks
    if rows.is_sparse:
        dataset, parts, remark = drawn_sparse(dataset, parts)
        remarks = [*remarks, *remark]
    if rows.cells is not None:
        x, names = estimator.embed(rows.cells)
        dataset, scaling = dataset._replace(x=x, columns=names), None
        remarks = [*remarks, "Categories are drawn as columns of two values, at the distances of the method."]
        if hasattr(estimator, "center_rows"):
            parts["center_rows"] = estimator.center_rows(rows.scaling)
            parts["center_columns"] = rows.dataset.columns
    table = None if rows.is_sparse else readable_table(estimator, rows)
    write_report(
        path,
        title=f"{type(estimator).__name__} on {rows.dataset.name}",
        config=runs.summarize_config(config) | ({"noise": NOISE_IN_SCORES} if -1 in estimator.labels_ else {}),
        scores=result.scores_in_words | (result.external or {}),
        dataset=dataset._replace(image_shape=parts.pop("image_shape")),
        labels=estimator.labels_,
        timing=config["seconds"],
        compile_seconds=config.get("compile_seconds"),
        messages=config.get("warnings", ()),
        scaling=scaling,
        remarks=remarks,
        profile=profile_of(estimator, rows),
        table=table,
        **parts,
    )


def drawn_sparse(dataset: Any, parts: dict[str, Any]) -> tuple[Any, dict[str, Any], list[str]]:
    """Sparse rows, and what is drawn beside them, as a report draws them.

    Returns:
        The data set of dense rows, the parts in its columns, and a remark on the directions that were left out.
    """
    from jaxcluster.report.sparse_profiles import drawable

    drawn = drawable(dataset.x)
    names = dataset.columns if dataset.vectorizer is None else list(dataset.vectorizer.vocabulary)
    if drawn.basis is None:
        return dataset._replace(x=drawn.x, columns=names), parts, []
    width = drawn.x.shape[1]
    parts = {name: part for name, part in parts.items() if name != "components"}
    if parts.get("centers") is not None:
        parts |= {"center_rows": parts["centers"], "center_columns": names, "centers": parts["centers"] @ drawn.basis}
    dataset = dataset._replace(x=drawn.x, columns=[f"direction {j}" for j in range(width)])
    remark = f"Pictures, and the silhouettes in them, show the rows in their {width} leading directions (truncated SVD)"
    return dataset, parts, [f"{remark}; scores and profiles are of all columns."]


def readable_table(estimator: Any, rows: Rows) -> Any:
    """The rows in the units and words of their file: a mapping of columns, or an array of numbers alone."""
    import numpy as np

    from jaxcluster.datasets.categories import read_mixed
    from jaxcluster.datasets.dates import as_moments

    dataset = rows.dataset
    if rows.cells is None:
        return dataset.x if dataset.encoding is None else dataset.encoding.decode(dataset.x)
    columns, cells = read_mixed(dataset.samples, **estimator.reading_options(), missing=True)
    table = columns.by_name(cells)
    return table | {name: as_moments(table[name]) for name in dataset.dates if table[name].dtype == np.float64}


def profile_of(estimator: Any, rows: Rows) -> Any:
    """Profile of the clusters of a run in the units and words of its table; None for images and for noise alone."""
    from jaxcluster import profile

    dataset = rows.dataset
    if dataset.image_shape is not None or not (estimator.labels_ >= 0).any():
        return None
    table = None if rows.is_sparse else readable_table(estimator, rows)
    names = dataset.columns if dataset.vectorizer is None else dataset.vectorizer.vocabulary
    return profile(estimator, rows.samples, table=table, columns=names, ids=dataset.ids)

"""A fit as the command line carries it out: from rows to labels, scores, and a folder that holds them."""

from __future__ import annotations

import math
import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxcluster.cli import partition_options as partition
from jaxcluster.cli import run as runs
from jaxcluster.cli import runtime
from jaxcluster.cli.errors import MistakeError, as_options, mistakes
from jaxcluster.cli.folder import Claim, check_space, write_config, write_sealed
from jaxcluster.cli.inputs import Rows, Source, describe
from jaxcluster.cli.known import check_learns, known_labels
from jaxcluster.cli.parameters import takes
from jaxcluster.cli.training import check_rows, followed, trains
from jaxcluster.cli.unfinished import check_partial, unfinished
from jaxcluster.core import signals

if TYPE_CHECKING:
    from jaxcluster.cli.console import Stages

BYTES, BYTES_OF_A_ROW = 4 << 20, 24
"""What a run takes of the disk at the least: a small model with a report, and a line of labels.csv for each row."""

NOISE_IN_SCORES = "one more cluster in the scores against the truth, left out of the others"
"""What a report says of rows in no cluster."""


class Task(NamedTuple):
    """What was asked for.

    Attributes:
        algorithm: its name.
        estimator: with its parameters set.
        source: of the rows.
        out: the folder that the run goes to.
        overwrite: whether it may take the place of another run.
        resume: whether to go on from checkpoints.
        report: whether to write one.
        tensorboard: a folder for TensorBoard's files, or None.
        labels: a file of classes to learn from, or a share of the truth; None for none.
    """

    algorithm: str
    estimator: Any
    source: Source
    out: Path
    overwrite: bool = False
    resume: bool = False
    report: bool = True
    tensorboard: Path | None = None
    labels: str | None = None


class Result(NamedTuple):
    """A finished fit and what came of it.

    Attributes:
        algorithm: its name.
        estimator: fitted.
        rows: that it was fitted to.
        internal: scores of the rows themselves.
        external: scores against the truth, None without one.
        silhouette_rows: how many rows the silhouette is of.
        seconds: by stage.
        warned: whether the estimator has warned of how its fit ended.
    """

    algorithm: str
    estimator: Any
    rows: Rows
    internal: dict[str, float | None]
    external: dict[str, float] | None
    silhouette_rows: int
    seconds: dict[str, float]
    warned: bool = False

    @property
    def scores_in_words(self) -> dict[str, Any]:
        """The scores of the rows themselves, by the names under which they are explained."""
        from jaxcluster.cli.scores import in_words

        return in_words(self.estimator, self.internal)

    @property
    def remarks(self) -> list[str]:
        """What must be known to read the scores."""
        import numpy as np

        said = []
        if self.rows.weights is not None:
            said.append("Weights count in the fit and its objective; other scores count each row once.")
        if np.isnan(self.rows.x).any():
            said.append("Rows with missing cells have no distances, so that scores by distance are left out.")
        return said


def check(task: Task) -> None:
    """Raises MistakeError on options that do not go together, and where something would be lost."""
    if task.source.weights is not None and not takes(task.estimator, "sample_weight"):
        raise MistakeError(f"{task.algorithm} counts each row once: leave out --weights.")
    if task.labels is not None:
        check_learns(task.algorithm)
    if trains(task.estimator):
        check_partial(task.out, resume=task.resume, overwrite=task.overwrite)
    elif task.tensorboard is not None:
        raise MistakeError(f"--tensorboard means nothing to {task.algorithm}, which trains no network.")


def ways_of(estimator: Any) -> dict[str, Any]:
    """What an estimator makes of missing cells and of distances, as `jaxcluster.cli.inputs.read` takes it."""
    parameters = estimator.get_params(deep=False)
    return {name: parameters[name] for name in ("missing", "metric") if name in parameters}


def links_of(task: Task, files: dict[str, Path | None]) -> dict[str, Any]:
    """The pairs of rows in files that were given, where the method takes them."""
    links = {}
    for name, path in files.items():
        option = f"--{name.replace('_', '-')}"
        if path is not None and not takes(task.estimator, name):
            raise MistakeError(f"{option} means nothing to {task.algorithm}; constrained-kmeans takes it.")
        if path is not None:
            with mistakes():
                links[name] = partition.read_pairs(path, option)
    return links


def carry_out(stage: Stages, task: Task, rows: Rows, links: dict[str, Any], claim: Claim) -> Result:
    """Fits, scores and writes, then draws the report; a training keeps checkpoints until its results are written."""
    check_space(claim, BYTES + len(rows.x) * BYTES_OF_A_ROW)
    if not trains(task.estimator):
        result, config = _carry_out(stage, task, rows, _settings(task, rows), nullcontext(), links, claim)
    else:
        result, config = _train(stage, task, rows, links, claim)
    if task.report:
        draw_report(stage, task.out, result, config)
    return result


def _train(stage, task, rows, links, claim):
    check_rows(task.estimator, rows)
    task.estimator.set_params(resume=False)  # of this call alone, and no part of what the run is
    settings, options = _settings(task, rows), {"resume": task.resume, "tensorboard": task.tensorboard}
    with unfinished(task.out, settings, resume=task.resume) as folder:
        around = followed(task.estimator, _title(task, rows), stage, folder, **options)
        return _carry_out(stage, task, rows, settings, around, links, claim)


def _carry_out(stage, task, rows, settings, around, links, claim):
    result = _fit(stage, task, rows, around, links)
    with claim.folder() as folder, stage("write", "Writing"), mistakes():
        now = datetime.now(UTC).isoformat(timespec="seconds")
        config = {**settings, "written": now, "seconds": dict(result.seconds)}
        _write(folder, result, config)
    return result, config


def draw_report(stage: Stages, out: Path, result: Result, config: dict[str, Any]) -> None:
    """Adds the report to a run that is written."""
    again = shlex.join(["jaxcluster", "report", str(out)])
    signals.set_stop_message(f"the run in {out} is complete but for its report. To draw it: {again}")
    runs.add_report(stage, again, lambda: _write_report(out.resolve() / runs.REPORT, result, config))


def _title(task: Task, rows: Rows) -> str:
    return f"Fitting {task.algorithm} to {len(rows.x):,} rows"


def _fit(stage: Stages, task: Task, rows: Rows, around: Any, links: dict[str, Any]) -> Result:
    from jaxcluster import model_selection
    from jaxcluster.cli.scores import external_scores, finite, internal_scores, model_scores

    estimator = task.estimator
    told = {} if rows.weights is None else {"sample_weight": rows.weights}
    if task.labels is not None:
        told["y"] = known_labels(task.labels, rows, estimator.random_state)
    with stage("fit", _title(task, rows)), mistakes(), _warnings_of_fit() as warned, around:
        estimator.fit(rows.x, **told, **links)
    labels = estimator.labels_
    with stage("score", "Scoring"):
        scores = model_scores(estimator, rows.x, rows.weights)
        scores |= internal_scores(estimator, rows.x)
        external = None if rows.dataset.y is None else external_scores(rows.dataset.y, labels)
    sampled = min(int((labels >= 0).sum()), model_selection.SILHOUETTE_SAMPLE)
    return Result(task.algorithm, estimator, rows, finite(scores), external, sampled, stage.seconds, bool(warned))


@contextmanager
def _warnings_of_fit() -> Iterator[list[str]]:
    """Shows warnings, and collects those of how the fit ended."""
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


def _settings(task: Task, rows: Rows) -> dict[str, Any]:
    """What config.json says that is known before the fit."""
    return {
        "command": runs.command_line(),
        "algorithm": task.algorithm,
        "parameters": {name: _as_json(value) for name, value in task.estimator.get_params().items()},
        "data": describe(task.source, rows.dataset),
        **({} if task.labels is None else {"labels": task.labels}),
        "scaling": rows.scaling.to_json(),
        "versions": runtime.versions(),
        "device": runtime.device(),
    }


def _as_json(value: Any) -> Any:
    """A parameter as JSON has it, which has no word for an infinite number."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _write(folder: Path, result: Result, config: dict[str, Any]) -> None:
    import numpy as np

    estimator = result.estimator
    to_save = copy(estimator)
    to_save.input_scaling_ = result.rows.scaling
    names = result.rows.dataset.columns
    if names is not None and all(names) and len(set(names)) == len(names):
        to_save.feature_names_in_ = np.array(names, dtype=object)
    to_save.save(folder / runs.MODEL)
    runs.write_labels(folder / runs.LABELS, estimator.labels_)
    if trains(estimator):
        runs.write_records(folder / runs.HISTORY, estimator.epoch_history_)
    elif len(getattr(estimator, "history_", ())):
        runs.write_history(folder / runs.HISTORY, estimator.history_)
    clusters, noise = runs.clusters_and_noise(estimator.labels_)
    scores = {"internal": result.internal, "external": result.external, "silhouette_rows": result.silhouette_rows}
    write_sealed(folder / runs.METRICS, {"clusters": len(clusters), "noise_rows": noise, **scores})
    write_config(folder, config)


def _write_report(path: Path, result: Result, config: dict[str, Any]) -> None:
    """The report, on the rows as they were clustered."""
    from jaxcluster.cli.deep_report import training_of, with_images
    from jaxcluster.cli.scores import objective_of, silhouette_metric
    from jaxcluster.cli.structure import structure_of
    from jaxcluster.estimators import ESTIMATORS
    from jaxcluster.report import Components, write_report

    estimator, rows, info = result.estimator, result.rows, ESTIMATORS.info(result.algorithm)
    mixture, trained = hasattr(estimator, "covariances_"), trains(estimator)
    components = Components(estimator.weights_, estimator.covariances_, estimator.covariance_type) if mixture else None
    way = {"status": None}  # nothing iterates in methods without an objective
    if info.objective:
        objective = objective_of(estimator, info.objective)
        way = {"history": estimator.history_, "objective": objective, "best": info.best, "status": estimator.status_}
    centers = estimator.means_ if mixture else getattr(estimator, "cluster_centers_", None)
    notes = tuple(map(as_options, rows.dataset.notes))
    dataset = rows.dataset._replace(x=rows.x, notes=notes)
    if trained:  # its centers lie among the codes, not among the rows
        centers, dataset = None, with_images(dataset, estimator)
        way = {"training": training_of(estimator, rows.x), "status": estimator.status_}
    metric, p = silhouette_metric(estimator)
    write_report(
        path,
        title=f"{type(estimator).__name__} on {rows.dataset.name}",
        config=runs.told(config) | ({"noise": NOISE_IN_SCORES} if (estimator.labels_ == -1).any() else {}),
        scores=result.scores_in_words | (result.external or {}),
        dataset=dataset,
        labels=estimator.labels_,
        centers=centers,
        components=components,
        structure=structure_of(estimator, rows.x, rows.weights),
        **way,
        timing=config["seconds"],
        scaling=rows.scaling,
        metric=metric,
        p=p,
        remarks=result.remarks,
    )

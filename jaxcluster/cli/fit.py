"""``jaxcluster fit``: from a data set to labels, a model, scores and a report."""

from __future__ import annotations

import math
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from jaxcluster.cli import graph_options as graph
from jaxcluster.cli import options as opt
from jaxcluster.cli import partition_options as partition
from jaxcluster.cli import run as runs
from jaxcluster.cli.errors import MistakeError, mistakes
from jaxcluster.cli.inputs import Rows, Source, describe, read

if TYPE_CHECKING:
    from jaxcluster.cli.console import Stages

NOISE_IN_SCORES = "one more cluster in the scores against the truth, left out of the others"
"""What a report says of rows in no cluster."""


def fit(
    algo: Annotated[
        str,
        typer.Argument(metavar="ALGO", show_default=False, help="How to cluster: kmeans, or another that info lists."),
    ],
    data: opt.Data,
    *,
    k: Annotated[
        int | None,
        typer.Option(
            "--k",
            "-k",
            metavar="K",
            min=1,
            show_default=False,
            help="How many clusters to find; methods by density find out.",
        ),
    ] = None,
    out: opt.Out,
    seed: opt.Seed = 0,
    scale: opt.Scaling = opt.Scale.none,
    columns: opt.Columns = None,
    truth: opt.Truth = None,
    weights: opt.Weights = None,
    key: opt.Key = None,
    init: opt.Init = None,
    n_init: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            rich_help_panel=opt.METHOD,
            show_default=False,
            help="How many starts to try; the best result is kept.",
        ),
    ] = None,
    max_iter: opt.MaxIter = None,
    tol: opt.Tol = None,
    metric: graph.DistanceChoice = None,
    covariance: opt.CovarianceChoice = None,
    reg_covar: opt.RegCovar = None,
    precision: opt.PrecisionChoice = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel=opt.METHOD,
            show_default=False,
            help="Rows in a step of minibatch-kmeans.",
        ),
    ] = None,
    method: partition.MethodChoice = None,
    size_min: partition.SizeMin = None,
    size_max: partition.SizeMax = None,
    must_link: partition.MustLink = None,
    cannot_link: partition.CannotLink = None,
    eps: graph.Eps = None,
    min_samples: graph.MinSamples = None,
    min_cluster_size: graph.MinClusterSize = None,
    max_eps: graph.MaxEps = None,
    xi: graph.Xi = None,
    cluster_method: graph.ClusterMethod = None,
    cluster_selection_method: graph.ClusterSelectionMethod = None,
    affinity: graph.AffinityChoice = None,
    n_neighbors: graph.Neighbors = None,
    gamma: graph.Gamma = None,
    assign_labels: graph.AssignLabels = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            rich_help_panel=opt.METHOD,
            show_default=False,
            help="Any other parameter; may be repeated. A wrong name is answered with all the right ones.",
        ),
    ] = None,
    overwrite: opt.Overwrite = False,
    no_report: opt.NoReport = False,
    quiet: opt.Quiet = False,
) -> None:
    """Cluster the rows of a data set; write labels, model, scores and a report to a folder.

    For example:

      jaxcluster fit kmeans digits --k 10 --out runs/digits

      jaxcluster fit kmeans flowers.csv --k 3 --truth species --out runs/flowers

      jaxcluster fit gmm flowers.csv --k 3 --truth species --covariance tied --out runs/flowers

      jaxcluster fit minibatch-kmeans big.npy --k 100 --out runs/big

      jaxcluster fit kmedoids flowers.csv --k 3 --truth species --metric manhattan --out runs/flowers

      jaxcluster fit balanced-kmeans digits --k 10 --out runs/even

      jaxcluster fit dbscan moons:n=1000 --eps 0.15 --out runs/moons
    """
    from jaxcluster.cli import console
    from jaxcluster.cli.folder import check_folder, new_folder
    from jaxcluster.cli.parameters import make_estimator, takes
    from jaxcluster.cli.runtime import start
    from jaxcluster.cli.summary import show

    check_folder(out, overwrite=overwrite)
    start()
    chosen = {
        "random_state": seed,
        "n_init": n_init,
        "tol": tol,
        "metric": metric,
        "covariance_type": covariance,
        "reg_covar": reg_covar,
        "precision": precision,
        "batch_size": batch_size,
        "method": method,
        "size_min": size_min,
        "size_max": size_max,
        "eps": eps,
        "min_samples": min_samples,
        "min_cluster_size": min_cluster_size,
        "max_eps": max_eps,
        "xi": xi,
        "cluster_method": cluster_method,
        "cluster_selection_method": cluster_selection_method,
        "affinity": affinity,
        "n_neighbors": n_neighbors,
        "gamma": gamma,
        "assign_labels": assign_labels,
    }
    estimator = make_estimator(algo, chosen, clusters=k, steps=max_iter, init=init, params=param or [])
    if weights is not None and not takes(estimator, "sample_weight"):
        raise MistakeError(f"{algo} counts each row once: leave out --weights.")
    links = _links(algo, estimator, {"must_link": must_link, "cannot_link": cannot_link})
    source = Source(data, key, columns, truth, weights)
    with console.stages(quiet) as stage:
        with stage("read", f"Reading {data}"), mistakes():
            rows = read(source, scale.value)
        result = _fit(stage, algo, estimator, rows, links)
        with new_folder(out, overwrite=overwrite) as folder:
            config = _config(result, describe(source, rows.dataset))
            _write(stage, folder, result, config, report=not no_report)
    show(console.stdout(quiet), result, out)


class Result(NamedTuple):
    """A finished fit and what came of it; the silhouette is that of ``silhouette_rows`` rows."""

    algorithm: str
    estimator: Any
    rows: Rows
    internal: dict[str, float | None]
    external: dict[str, float] | None
    silhouette_rows: int
    seconds: dict[str, float]


def _links(algo: str, estimator: Any, files: dict[str, Path | None]) -> dict[str, Any]:
    """The pairs of rows in files that were given, where the method takes them."""
    from jaxcluster.cli.parameters import takes

    links = {}
    for name, path in files.items():
        option = f"--{name.replace('_', '-')}"
        if path is not None and not takes(estimator, name):
            raise MistakeError(f"{option} means nothing to {algo}; constrained-kmeans takes it.")
        if path is not None:
            with mistakes():
                links[name] = partition.read_pairs(path, option)
    return links


def _fit(stage: Stages, algo: str, estimator: Any, rows: Rows, links: dict[str, Any]) -> Result:
    from jaxcluster import select
    from jaxcluster.cli.scores import external_scores, finite, internal_scores, model_scores

    weighted = {} if rows.weights is None else {"sample_weight": rows.weights}
    with stage("fit", f"Fitting {algo} to {len(rows.x):,} rows"), mistakes(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*did not converge")  # `_show` says it in the words of the command line
        estimator.fit(rows.x, **weighted, **links)
    labels = estimator.labels_
    with stage("score", "Scoring"):
        scores = model_scores(estimator, rows.x, rows.weights)
        scores |= internal_scores(estimator, rows.x)
        external = None if rows.dataset.y is None else external_scores(rows.dataset.y, labels)
    sampled = min(int((labels >= 0).sum()), select.SAMPLE)
    return Result(algo, estimator, rows, finite(scores), external, sampled, stage.seconds)


def _config(result: Result, data: dict[str, Any]) -> dict[str, Any]:
    from jaxcluster.cli import runtime

    return {
        "command": runs.command_line(),
        "algorithm": result.algorithm,
        "parameters": {name: _as_json(value) for name, value in result.estimator.get_params().items()},
        "data": data,
        "scaling": result.rows.scaling.to_json(),
        "versions": runtime.versions(),
        "device": runtime.device(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": dict(result.seconds),
    }


def _as_json(value: Any) -> Any:
    """A parameter as JSON has it, which has no word for an infinite number."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _write(stage: Stages, folder: Path, result: Result, config: dict[str, Any], *, report: bool) -> None:
    from jaxcluster.cli.folder import CONFIG, write_json

    estimator = result.estimator
    with stage("write", "Writing"):
        estimator.save(folder / runs.MODEL)
        runs.write_labels(folder / runs.LABELS, estimator.labels_)
        if len(getattr(estimator, "history_", ())):
            runs.write_history(folder / runs.HISTORY, estimator.history_)
        clusters, noise = runs.clusters_and_noise(estimator.labels_)
        scores = {"internal": result.internal, "external": result.external, "silhouette_rows": result.silhouette_rows}
        write_json(folder / runs.METRICS, {"clusters": len(clusters), "noise_rows": noise, **scores})
        write_json(folder / CONFIG, config)
    if report:
        with stage("report", "Drawing the report"):
            _write_report(folder / runs.REPORT, result, config)


def _write_report(path: Path, result: Result, config: dict[str, Any]) -> None:
    """The report, on the rows as they were clustered."""
    from jaxcluster.cli.structure import structure_of
    from jaxcluster.estimators import ESTIMATORS
    from jaxcluster.report import Components, write_report
    from jaxcluster.types import Status

    estimator, rows, info = result.estimator, result.rows, ESTIMATORS.info(result.algorithm)
    mixture = hasattr(estimator, "covariances_")
    components = Components(estimator.weights_, estimator.covariances_, estimator.covariance_type) if mixture else None
    way = {"history": estimator.history_, "objective": info.objective, "best": info.best} if info.objective else {}
    write_report(
        path,
        title=f"{type(estimator).__name__} on {rows.dataset.name}",
        config=runs.told(config) | ({"noise": NOISE_IN_SCORES} if (estimator.labels_ == -1).any() else {}),
        scores=result.internal | (result.external or {}),
        dataset=rows.dataset._replace(x=rows.x),
        labels=estimator.labels_,
        centers=estimator.means_ if mixture else getattr(estimator, "cluster_centers_", None),
        components=components,
        structure=structure_of(estimator, rows.x, rows.weights),
        **way,
        status=getattr(estimator, "status_", Status.CONVERGED),
        timing=config["seconds"],
    )

"""``jaxcluster sweep``: many numbers of clusters in one compile, scored, so that one can be chosen."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from jaxcluster.cli import options as opt
from jaxcluster.cli import run as runs
from jaxcluster.cli.errors import MistakeError, mistakes
from jaxcluster.cli.inputs import Rows, Source, describe, read

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from jaxcluster.cli.console import Stages
    from jaxcluster.select import SweepScores

TABLE, RESULTS = "sweep.csv", "sweep.json"

FILES = {
    runs.REPORT: "the curves: open it in a browser",
    TABLE: "the scores of each k",
    RESULTS: "the same, with the inertia of every start and the choices",
    "config.json": "all that is needed to run this again",
}
"""What is in a sweep's folder, and what for."""

SCORES = ("inertia", "silhouette", "davies_bouldin", "calinski_harabasz")


def sweep(
    data: opt.Data,
    *,
    k: Annotated[
        str,
        typer.Option(
            "--k", "-k", metavar="KS", show_default=False, help="2:15 for 2 to 15, 2:20:3 for every third, or 2,4,8."
        ),
    ],
    out: opt.Out,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Starts for each k; the best one counts.")] = 5,
    seed: opt.Seed = 0,
    scale: opt.Scaling = opt.Scale.none,
    columns: opt.Columns = None,
    truth: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            rich_help_panel=opt.INPUT,
            show_default=False,
            help="The column that holds the known classes, so that it is not clustered.",
        ),
    ] = None,
    weights: opt.Weights = None,
    key: opt.Key = None,
    init: opt.Init = None,
    max_iter: opt.MaxIter = None,
    tol: opt.Tol = None,
    metric: opt.MetricChoice = None,
    precision: opt.PrecisionChoice = None,
    overwrite: opt.Overwrite = False,
    no_report: opt.NoReport = False,
    quiet: opt.Quiet = False,
) -> None:
    """Try many numbers of clusters with k-means, all at once, to choose one.

    For example:

      jaxcluster sweep digits --k 2:15 --out runs/how-many
    """
    from jaxcluster.cli import console
    from jaxcluster.cli.folder import check_folder, new_folder
    from jaxcluster.cli.runtime import start

    ks = parse_ks(k)
    check_folder(out, overwrite=overwrite)
    start()
    options = {
        "init": init,
        "max_steps": max_iter,
        "tol": tol,
        "metric": metric and metric.value,
        "precision": precision if precision is opt.Precision.fast else None,
    }
    options = {name: value for name, value in options.items() if value is not None}
    source = Source(data, key, columns, truth, weights)
    with console.stages(quiet) as stage:
        with stage("read", f"Reading {data}"), mistakes():
            rows = read(source, scale.value)
        result = _sweep(stage, rows, ks, seeds, seed, options)
        with new_folder(out, overwrite=overwrite) as folder:
            config = _config(result, options | {"seed": seed}, describe(source, rows.dataset))
            _write(stage, folder, result, config, report=not no_report)
    _show(console.stdout(quiet), result, out, report=not no_report)


def parse_ks(text: str) -> list[int]:
    """Numbers of clusters, ascending: "2:5" is 2, 3, 4, 5, "2:10:4" is 2, 6, 10, and commas join such parts.

    Raises:
        MistakeError: anything else, or a number below 1.
    """
    ks: set[int] = set()
    for part in text.split(","):
        try:
            bounds = [int(number) for number in part.split(":")]
        except ValueError:
            bounds = []
        if not 1 <= len(bounds) <= 3 or min(bounds) < 1:
            raise MistakeError(f"--k {text!r} must be like 2:15 or 2,4,8: numbers of clusters, at least 1.")
        start, stop, step = (*bounds, bounds[0], 1)[:3] if len(bounds) == 1 else (*bounds, 1)[:3]
        ks.update(range(start, stop + 1, step))
    if not ks:
        raise MistakeError(f"--k {text!r} holds no number: write the lesser one first, as in 2:15.")
    return sorted(ks)


class Result(NamedTuple):
    """A finished sweep.

    Attributes:
        scores: of the best start of each k.
        inertias: (len(ks), seeds) of all starts.
        choices: the k that each rule picks; None where it picks none.
        silhouette_rows: how many rows the silhouettes are of.
    """

    rows: Rows
    scores: SweepScores
    inertias: np.ndarray
    choices: dict[str, int | None]
    silhouette_rows: int
    seconds: dict[str, float]


def _sweep(stage: Stages, rows: Rows, ks: list[int], seeds: int, seed: int, options: dict[str, Any]) -> Result:
    import jax
    import numpy as np

    from jaxcluster import kmeans, select

    with stage("fit", f"Fitting k-means {len(ks) * seeds} times to {len(rows.x):,} rows"), mistakes():
        key = jax.random.key(seed)
        fits = jax.device_get(kmeans.sweep(key, rows.x, ks, n_seeds=seeds, weights=rows.weights, **options))
    _warn(ks, fits)
    with stage("score", "Scoring"):
        scores = select.score_sweep(rows.x, ks, fits, metric=options.get("metric", "sqeuclidean"))
        by_silhouette = select.choose_k(ks, scores.silhouette) if np.isfinite(scores.silhouette).any() else None
        choices = {"silhouette": by_silhouette, "elbow": select.choose_k(ks, scores.inertia, "elbow")}
    sampled = min(len(rows.x), select.SAMPLE)
    return Result(rows, scores, np.asarray(fits.state.inertia), choices, sampled, stage.seconds)


def _warn(ks: list[int], fits: Any) -> None:
    """Says what the data or the limit of steps did not allow."""
    import numpy as np

    from jaxcluster.cli.console import complain
    from jaxcluster.types import Status

    causes = {
        Status.EMPTY_CLUSTERS: "there are fewer distinct rows than clusters for k = {}.",
        Status.MAX_STEPS: "some starts stopped at their limit of steps for k = {}. Raise --max-iter, or --tol.",
    }
    for status, cause in causes.items():
        found = (np.asarray(fits.status) == status).any(axis=1)
        if found.any():
            complain(
                "Warning", cause.format(", ".join(str(k) for k, hit in zip(ks, found, strict=True) if hit)), "yellow"
            )


def _config(result: Result, options: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    from jaxcluster.cli import runtime

    return {
        "command": runs.command_line(),
        "algorithm": "kmeans",
        "ks": result.scores.ks.tolist(),
        "seeds": result.inertias.shape[1],
        "parameters": options,
        "data": data,
        "scaling": result.rows.scaling.to_json(),
        "versions": runtime.versions(),
        "device": runtime.device(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": dict(result.seconds),
    }


def _write(stage: Stages, folder: Path, result: Result, config: dict[str, Any], *, report: bool) -> None:
    from jaxcluster.cli.folder import CONFIG, write_json

    lines = table_of(result.scores)
    with stage("write", "Writing"):
        with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, lines[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
        each = [{**line, "inertias": list(map(float, row))} for line, row in zip(lines, result.inertias, strict=True)]
        write_json(
            folder / RESULTS, {"choices": result.choices, "silhouette_rows": result.silhouette_rows, "scores": each}
        )
        write_json(folder / CONFIG, config)
    if report:
        from jaxcluster.cli.sweep_report import write_sweep_report

        with stage("report", "Drawing the report"):
            write_sweep_report(folder / runs.REPORT, result, config)


def table_of(scores: SweepScores) -> list[dict[str, Any]]:
    """The scores of each k; None for one that is undefined."""
    from jaxcluster.cli.scores import finite

    return [
        {"k": int(k), **finite({name: float(getattr(scores, name)[i]) for name in SCORES})}
        for i, k in enumerate(scores.ks)
    ]


def _show(out: Console, result: Result, folder: Path, *, report: bool) -> None:
    from jaxcluster.cli.console import say, show_table
    from jaxcluster.report.scores import meaning

    lines = []
    for line in table_of(result.scores):
        rules = [rule for rule, k in result.choices.items() if k == line["k"]]
        lines.append([*line.values(), "both" if len(rules) == 2 else "".join(rules)])
    heads = ("k", *(meaning(name).title for name in SCORES), "chosen by")
    n = len(result.rows.x)
    title = f"k-means on {n:,} rows, the best of {result.inertias.shape[1]} starts for each k"
    show_table(out, title, heads, lines, text=(5,))
    if result.silhouette_rows < n:
        say(out, f"The silhouettes are those of {result.silhouette_rows:,} rows drawn at random.", "dim")
    say(out, advice(result.choices) + "\n")
    say(out, f"Written to {folder}:", "bold")
    for name, purpose in FILES.items():
        if report or name != runs.REPORT:
            say(out, f"  {name:15}{purpose}")


def advice(choices: dict[str, int | None]) -> str:
    """What the rules say, in a sentence."""
    by_silhouette, by_elbow = choices["silhouette"], choices["elbow"]
    if by_silhouette is None:
        return "No k has 2 or more clusters, so there is no silhouette to choose by."
    if by_silhouette == by_elbow:
        return f"Both rules choose k = {by_silhouette}."
    elbow = "the inertia shows no elbow" if by_elbow is None else f"the elbow of the inertia is at k = {by_elbow}"
    return f"The silhouette is best at k = {by_silhouette}; {elbow}."

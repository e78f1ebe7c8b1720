"""Sweeps over k of rows with categories: k-modes, k-prototypes, and k-medoids by Gower's distance."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster import model_selection, plots
from jaxcluster.cli.errors import user_errors
from jaxcluster.cli.score import finite
from jaxcluster.cli.sweep_results import Curve, SweepResult, Table
from jaxcluster.estimators import ESTIMATORS
from jaxcluster.report.scores import score_info
from jaxcluster.report.scoring import internal_scores, objective_of

if TYPE_CHECKING:
    from jaxcluster.cli.console import Stages
    from jaxcluster.cli.inputs import Rows

MIXED = ("kmodes", "kprototypes")
"""Methods that take categories whatever their options."""

PARAMETERS = {"init": "init", "max_steps": "max_iter", "tol": "tol", "metric": "metric"}
"""Parameters of the estimators, by the names that the other sweeps have for them."""


def takes_categories(method: str, metric: str | None) -> bool:
    """True for a sweep of rows whose columns may be words."""
    return method in MIXED or (method == "kmedoids" and metric == "gower")


def make(method: str, k: int, seeds: int, seed: int, options: dict[str, Any]) -> Any:
    """The estimator of one number of clusters."""
    options = {PARAMETERS[name]: value for name, value in options.items()}
    return ESTIMATORS[method](n_clusters=k, n_init=seeds, random_state=seed, **options)


def sweep_mixed(
    method: str, stage: Stages, rows: Rows, ks: list[int], seeds: int, seed: int, options: dict[str, Any]
) -> SweepResult:
    """Fits of a method for each k, chosen by the silhouette of its distances and by the elbow of its objective."""
    lines, name, title = [], "", ESTIMATORS.info(method).title.split(":")[0]
    for k in ks:
        with stage("fit", f"Fitting {method} with k = {k} to {rows.n:,} rows"), user_errors():
            estimator = make(method, k, seeds, seed, options).fit(rows.samples, sample_weight=rows.weights)
        with stage("score", "Scoring"):
            x = rows.x if rows.cells is None else estimator.embed(rows.cells)[0]
            silhouette = internal_scores(estimator, x, rows.cells)["silhouette"]
        name = objective_of(estimator, "inertia")
        lines.append({"k": k, **finite({"inertia": float(estimator.inertia_), "silhouette": silhouette})})
    costs = np.array([line["inertia"] for line in lines])
    widths = np.array([np.nan if line["silhouette"] is None else line["silhouette"] for line in lines])
    choices = {
        "silhouette": model_selection.choose_k(ks, widths) if np.isfinite(widths).any() else None,
        "elbow": model_selection.choose_k(ks, costs, "elbow"),
    }
    heads = ["k", score_info(name).title, score_info("silhouette").title]
    shown = [[*line.values(), ", ".join(rule for rule, k in choices.items() if k == line["k"])] for line in lines]
    curves = [
        Curve(partial(plots.elbow, ks, costs, name=name), f"{heads[1]} by number of clusters.", {"name": "elbow"})
    ]
    if np.isfinite(widths).sum() > 1:
        kept = np.isfinite(widths)
        draw = partial(plots.sweep, np.asarray(ks)[kept], widths[kept], name=heads[2])
        curves.append(Curve(draw, "Silhouette by number of clusters.", {"name": "silhouette"}))
    elbow = f"the elbow of the {name} is at k = {choices['elbow']}" if choices["elbow"] else f"the {name} has no elbow"
    best = (
        "no k has a silhouette"
        if choices["silhouette"] is None
        else f"the silhouette is best at k = {choices['silhouette']}"
    )
    return SweepResult(
        ks,
        seeds,
        lead=f"{title} with {min(ks)} to {max(ks)} clusters on {rows.n:,} rows, {seeds} starts for each.",
        choices=choices,
        lines=lines,
        starts=[{} for _ in ks],
        details={},
        shown=(f"{title} on {rows.n:,} rows, the best of {seeds} starts for each k", [*heads, "chosen by"], shown),
        remarks=[f"{best[0].upper()}{best[1:]}; {elbow}."],
        curves=curves if len(ks) > 1 else [],
        tables=[Table("Scores", heads, [(str(line["k"]), list(line.values())[1:]) for line in lines])],
    )

"""The page of a report, its sections in order in one HTML file, and its arguments from a fitted estimator."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jaxcluster.core.atomic import write_atomic
from jaxcluster.core.validation import check_choice
from jaxcluster.datasets.base import Dataset
from jaxcluster.datasets.scaling import Scaling
from jaxcluster.report import sections
from jaxcluster.report.context import Components, ReportContext, version
from jaxcluster.report.exploration import payload, view_of
from jaxcluster.report.page import page
from jaxcluster.report.profiles import Profile
from jaxcluster.report.scores import objective_of, silhouette_metric
from jaxcluster.report.structure import Structure
from jaxcluster.report.training import Training
from jaxcluster.types import Status


def write_report(
    path: str | os.PathLike,
    *,
    title: str,
    config: Mapping[str, Any],
    scores: Mapping[str, Any],
    dataset: Dataset,
    labels: Any,
    centers: Any = None,
    components: Components | None = None,
    structure: Structure | None = None,
    training: Training | None = None,
    history: Any = None,
    objective: str = "inertia",
    best: str = "min",
    status: Status | int | None = None,
    timing: Mapping[str, float] | float | None = None,
    scaling: Scaling | None = None,
    metric: str = "euclidean",
    p: float = 2,
    remarks: Sequence[str] = (),
    profile: Profile | None = None,
    center_rows: Any = None,
    center_columns: Sequence[str] | None = None,
    tsne: bool | None = None,
    table: Any = None,
    messages: Sequence[str] = (),
    compile_seconds: Mapping[str, float] | None = None,
) -> Path:
    """Write one HTML file that needs no other and no network: configuration, scores, figures and tables.

    Args:
        path: where to. It is written beside it first and then renamed, so that it is there whole or not at all.
        title: what the page is called.
        config: the configuration of the run; mappings inside are spread out.
        scores: by the names of `jaxcluster.metrics`, with or without ``_score``; known ones are explained.
        dataset: the rows as they were clustered, with the truth in ``y`` if there is one.
        labels: (n_samples,) clusters, -1 for noise.
        centers: (n_clusters, n_features), row j the center of label j.
        components: weights and covariances of a mixture, whose means are then the centers.
        structure: orders, trees or graphs that the method computed its labels from.
        training: the trained network, and its codes of the rows.
        history: the objective after each step: ``history_`` of an estimator, or a `jaxcluster.types.Fit`.
        objective: name of the objective.
        best: "min" or "max", the direction in which it improves.
        status: of the end of the run; anything but CONVERGED is pointed out.
        timing: seconds, by stage or in all.
        scaling: of the rows before they were clustered, undone in the tables of centers.
        metric, p: that silhouettes are of, as `jaxcluster.plots.silhouette` takes them.
        remarks: sentences on what must be known to read the page.
        profile: of the clusters.
        center_rows: (n_clusters, n) centers as the table shows them, where ``centers`` are drawn in other columns, as
            categories are; None for ``centers``.
        center_columns: names of its columns.
        tsne: draw maps by t-SNE too, which is slow; None for up to 2,500 rows.
        table: the same rows as a person reads them: a table of pandas, a mapping of columns, or an array; None for the
            rows of the dataset with the scaling undone.
        messages: warnings and notes that the run gave.
        compile_seconds: seconds of ``timing`` that went to compilation, by stage.

    Returns:
        The path written.

    Raises:
        ValueError: where labels, centers, components, structure, training and rows do not fit, or ``best`` is unknown.
    """
    check_choice("best", best, ("min", "max"))
    run = ReportContext(
        config=config,
        scores=scores,
        dataset=dataset,
        labels=labels,
        centers=centers,
        components=components,
        history=history,
        objective=objective,
        best=best,
        status=status,
        timing=timing,
        structure=structure,
        training=training,
        scaling=scaling,
        metric=metric,
        p=p,
        remarks=remarks,
        profile=profile,
        center_rows=center_rows,
        center_columns=center_columns,
        table=table,
        messages=messages,
        compile_seconds=compile_seconds or {},
    )
    path = Path(path)
    write_atomic(path, report_html(run.normalized(), title=title, tsne=tsne).encode())
    return path


def report_html(run: ReportContext, *, title: str, tsne: bool | None = None) -> str:
    """The page of a run; ``title`` and ``tsne`` as for `write_report`."""
    view = view_of(run, tsne)
    structure, orders = sections.structure(run)
    parts = [
        sections.warning(run),
        sections.tiles(run),
        sections.remarks(run),
        sections.scores(run),
        sections.maps(run, view),
        sections.clusters(run, view),
        sections.profiles(run),
        *sections.training(run, view),
        *structure,
        sections.components(run),
        sections.centers(run),
        sections.classes(run),
        sections.data(run),
        sections.run_details(run),
    ]
    footer = f"Written by jaxcluster {version('jaxcluster')} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    return page(title, sections.lead(run), parts, footer, data=payload(run, view, orders))


def fitted_parts(estimator: Any, X: Any, sample_weight: Any, image_shape: tuple[int, ...] | None) -> dict[str, Any]:
    """Arguments of `jaxcluster.report.write_report` on the fit of an estimator, and ``image_shape`` of its rows.

    Args:
        estimator: fitted.
        X: (n_samples, n_features) the rows of the fit as they were clustered.
        sample_weight: (n_samples,) their weights in the fit, or None.
        image_shape: of the data set, or None.
    """
    info = estimator.info
    parts = estimator.report_parts(X, sample_weight)
    for name, kind in (("components", Components), ("structure", Structure), ("training", Training)):
        if name in parts:
            parts[name] = kind(**parts[name])
    if info.objective:
        # Methods without an objective do not iterate: their status says nothing about convergence.
        parts["status"] = estimator.status_
    if info.family == "deep":
        image_shape = picture_shape(image_shape, getattr(estimator, "image_shape", None))
    elif info.objective:
        objective = objective_of(estimator, info.objective)
        parts |= {"history": estimator.history_, "objective": objective, "best": info.best}
    metric, p = silhouette_metric(estimator)
    return parts | {"metric": metric, "p": p, "image_shape": image_shape}


def picture_shape(of_data: tuple[int, ...] | None, of_estimator: Any) -> tuple[int, ...] | None:
    """Shape of rows that are images, (height, width) or (height, width, channels); None for other rows.

    Args:
        of_data: shape in the data set, or None.
        of_estimator: shape in the parameters of the estimator, or None.

    Returns:
        The shape; None also for 2 or more than 4 channels, which cannot be drawn.
    """
    if of_data is not None or of_estimator is None:
        return of_data
    shape = tuple(of_estimator[:2] if tuple(of_estimator[2:]) == (1,) else of_estimator)
    return shape if shape[2:] in ((), (3,), (4,)) else None

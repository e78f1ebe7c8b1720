"""The page of a report: its sections in order, in one HTML file."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from jaxcluster.core.atomic import write_atomic
from jaxcluster.core.messages import valid_html
from jaxcluster.core.validation import check_choice
from jaxcluster.datasets.base import Dataset
from jaxcluster.datasets.scaling import Scaling
from jaxcluster.plots.curves import finite_history
from jaxcluster.plots.style import as_float
from jaxcluster.report import sections
from jaxcluster.report.context import Components, ReportContext, version
from jaxcluster.report.profiles import Profile
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

    Returns:
        The path written.

    Raises:
        ValueError: where labels, centers, components, structure, training and rows do not fit, or ``best`` is unknown.
    """
    check_choice("best", best, ("min", "max"))
    run = ReportContext(
        config=config,
        scores=scores,
        dataset=dataset._replace(x=as_float(dataset.x)),
        labels=np.asarray(labels),
        centers=None if centers is None else np.asarray(centers),
        components=components,
        history=_steps(history),
        objective=objective,
        best=best,
        status=None if status is None else Status(int(status)),
        timing={"all": timing} if isinstance(timing, (int, float)) else dict(timing or {}),
        structure=structure,
        training=training,
        scaling=scaling,
        metric=metric,
        p=p,
        remarks=remarks,
        profile=profile,
        center_rows=center_rows,
        center_columns=center_columns,
    )
    run.check()
    parts = [
        sections.warning(run),
        sections.tiles(run),
        sections.remarks(run),
        sections.scores(run),
        sections.maps(run, tsne),
        sections.clusters(run),
        sections.profiles(run),
        *sections.training(run, tsne),
        *sections.structure(run),
        sections.components(run),
        sections.centers(run),
        sections.classes(run),
        sections.run_details(run),
    ]
    template = resources.files("jaxcluster.report").joinpath("template.html").read_text(encoding="utf-8")
    page = Template(template).substitute(
        title=html.escape(title),
        lead=html.escape(sections.lead(run)),
        body="\n".join(filter(None, parts)),
        footer=f"Written by jaxcluster {version('jaxcluster')} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
    )
    path = Path(path)
    write_atomic(path, valid_html(page).encode())
    return path


def _steps(history: Any) -> np.ndarray | None:
    """The finite objectives of a history; None where there are none."""
    values = None if history is None else finite_history(history)
    return values if values is not None and values.size else None

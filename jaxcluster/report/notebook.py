"""Report of a fitted estimator for a notebook, or for a file.

>>> from jaxcluster import KMeans
>>> x = np.array([[0.0, 5.0], [0.1, 6.0], [9.0, 5.0], [9.1, 6.0]])
>>> KMeans(2, random_state=0).fit(x).report(x, title="Two pairs")
<Report 'Two pairs': a notebook shows it, save(path) writes it>
"""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from jaxcluster.core.atomic import write_atomic
from jaxcluster.core.sources import RowSource
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.datasets.base import DataError, Dataset
from jaxcluster.datasets.dataframes import as_rows
from jaxcluster.estimators.input_tables import INPUT_STEPS
from jaxcluster.metrics.contingency import narrow_labels
from jaxcluster.plots.style import as_float
from jaxcluster.report.context import ReportContext
from jaxcluster.report.html import fitted_parts, report_html
from jaxcluster.report.profiles import clustered_rows, profile
from jaxcluster.report.readable import readable_columns
from jaxcluster.report.scores import explained, external_scores, internal_scores, silhouette_metric
from jaxcluster.report.widget import explorer

MAX_CELLS = 200_000_000
"""Cells of sparse rows that are made dense for a report."""


class Report:
    """A report as one HTML page that needs no other file and no network; a notebook shows it in a frame.

    Attributes:
        title: of the page.
        html: the page.
        n_samples: number of samples of the fit.
    """

    def __init__(self, title: str, html: str, n_samples: int) -> None:
        self.title, self.html, self.n_samples = title, html, n_samples

    def save(self, path: str | os.PathLike) -> Path:
        """Write the page, whole or not at all; return the path."""
        path = Path(path)
        write_atomic(path, self.html.encode())
        return path

    def explore(self) -> Any:
        """Show the report as a widget, whose ``selection`` is the numbers of the samples that are selected on the page.

        Raises:
            ImportError: anywidget is not installed (the extra ``notebook``).
        """
        return explorer(self.title, self.html, self.n_samples)

    def __repr__(self) -> str:
        return f"<Report {self.title!r}: a notebook shows it, save(path) writes it>"

    def _repr_html_(self) -> str:
        # A frame of its own: styles and scripts of the page and of the notebook do not meet.
        return (
            f'<iframe title="{html.escape(self.title)}" sandbox="allow-scripts allow-downloads" '
            f'style="width:100%;height:820px;border:0" srcdoc="{html.escape(self.html)}"></iframe>'
        )


def report(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    columns: Sequence[str] | None = None,
    ids: Any = None,
    title: str | None = None,
    image_shape: tuple[int, ...] | None = None,
    tsne: bool | None = None,
) -> Report:
    """Report on a fitted estimator and the rows of its fit.

    Args:
        model: fitted, with ``labels_``.
        X: (n_samples, n_features) the rows of the fit.
        y: (n_samples,) known classes, or None.
        sample_weight: (n_samples,) weights of the fit, or None.
        columns: names of the columns of an array.
        ids: (n_samples,) names of the rows.
        title: of the page; the estimator's name by default.
        image_shape: (height, width) or (height, width, channels) of rows that are images.
        tsne: as for `jaxcluster.report.write_report`.

    Raises:
        NotFittedError: before a fit.
        TypeError: a source of rows, or a model without labels.
        ValueError: rows of another number than in the fit, or distances in place of rows.
    """
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(model)
    if isinstance(X, RowSource) or not hasattr(model, "labels_"):
        raise TypeError("a report needs the rows in memory, and a model with labels_. Pass an array or a table.")
    if silhouette_metric(model)[0] == "precomputed":
        raise DataError("a report needs rows, and this model was fitted to distances. Fit it to rows, with a metric.")
    labels = np.asarray(model.labels_)
    X = as_rows(X)
    n = X.shape[0] if hasattr(X, "shape") else len(X)
    if n != len(labels):
        raise DataError(f"X has {n:,} rows, and the model was fitted to {len(labels):,}. Pass the rows of the fit.")
    if is_sparse(X):
        if np.prod(X.shape, dtype=float) > MAX_CELLS:
            raise DataError(f"X of shape {X.shape} is too large to be made dense for a report. Pass fewer columns.")
        X = X.toarray()
    mixed, bare = model.reading_options() is not None, copy(model)
    if mixed:
        x, names = model.embed(X)
        rows = X
        scaling = None
    else:
        rows = x = as_float(clustered_rows(model, X))
        names, scaling = _names(model, X, columns), model.input_scaling_
        # The estimator is asked about rows that are encoded, imputed and scaled already.
        for name in (*INPUT_STEPS, "feature_names_in_"):
            vars(bare).pop(name, None)
    title = title or type(model).__name__
    y = None if y is None else narrow_labels(y, "y")
    dataset = Dataset("rows", np.asarray(x), y, names, image_shape)
    parts = fitted_parts(bare, rows, sample_weight, image_shape)
    dataset = dataset._replace(image_shape=parts.pop("image_shape"))
    if ids is not None:
        dataset = dataset._replace(ids=np.asarray(ids), id_name="id")
    scores = bare.model_scores(rows, sample_weight) | internal_scores(bare, dataset.x, X if mixed else None)
    described = dataset.image_shape is None and (labels >= 0).any()
    table = readable_columns(model, X, columns)
    run = ReportContext(
        config={"estimator": type(model).__name__, "parameters": model.get_params(deep=False)},
        scores=explained(model, scores) | ({} if y is None else external_scores(y, labels)),
        dataset=dataset,
        labels=labels,
        scaling=scaling,
        profile=profile(model, X, columns=columns, ids=ids) if described else None,
        table=table.numbers | table.words if described else None,
        **parts,
    ).normalized()
    return Report(title, report_html(run, title=title, tsne=tsne), n)


def _names(model: Any, X: Any, columns: Sequence[str] | None) -> list[str] | None:
    """Names of the columns as they were clustered, or None."""
    width = getattr(model, "n_features_in_", None)
    for names in (columns, getattr(model, "feature_names_in_", None), getattr(X, "columns", None)):
        if names is not None and len(names) == width:
            return [str(name) for name in names]
    return None

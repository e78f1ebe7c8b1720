"""Columns beside the labels of rows: probabilities, outlier scores, distances and coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxcluster.cli.errors import UserError

MOST_ENTRIES = 1 << 24
"""Entries of a matrix of rows by clusters that is computed at a time."""


def fit_columns(estimator: Any, x: Any) -> dict[str, np.ndarray]:
    """Columns of labels.csv that a fitted method has for its own rows.

    ``probability`` is that of the label, ``outlier_score`` that of HDBSCAN, and ``distance`` that to the center or
    medoid of the cluster, by the metric of the fit and in the units of the rows as they were clustered.

    Args:
        estimator: fitted to ``x``, without scaling and imputation of its own.
        x: (n_samples, n_features), or a table of Arrow for a method that takes categories.
    """
    columns = {}
    if hasattr(estimator, "probabilities_"):
        columns["probability"] = estimator.probabilities_
    elif hasattr(estimator, "predict_proba"):
        columns["probability"] = _by_rows(lambda rows: estimator.predict_proba(rows).max(axis=1), x, _width(estimator))
    if hasattr(estimator, "outlier_scores_"):
        columns["outlier_score"] = estimator.outlier_scores_
    if has_distances(estimator):
        columns["distance"] = distances(estimator, x, estimator.labels_)
    return columns


def has_distances(estimator: Any) -> bool:
    """True for a method whose clusters have a center or medoid among the rows' own columns."""
    return (
        estimator.info.family == "partition"
        and hasattr(estimator, "transform")
        and getattr(estimator, "metric", None) != "precomputed"
    )


def distances(estimator: Any, x: Any, labels: np.ndarray) -> np.ndarray:
    """(n_samples,) distance of each row to the center of its label."""

    def to_own(rows: Any, own: np.ndarray) -> np.ndarray:
        return np.take_along_axis(estimator.transform(rows), own[:, None].astype(np.intp), axis=1)[:, 0]

    return _by_rows(to_own, x, _width(estimator), labels)


def _width(estimator: Any) -> int:
    return int(getattr(estimator, estimator.info.clusters or "", None) or 1)


def _by_rows(function: Any, x: Any, width: int, *more: np.ndarray) -> np.ndarray:
    """Results of a function of rows, computed for so many at a time that a matrix of rows by clusters is small."""
    step, n = max(1, MOST_ENTRIES // max(1, width)), x.shape[0]
    part = x.slice if hasattr(x, "column_names") else lambda start, length: x[start : start + length]  # Arrow's tables
    parts = [function(part(i, step), *(each[i : i + step] for each in more)) for i in range(0, n, step)]
    return np.concatenate(parts)


def new_columns(
    estimator: Any, x: Any, labels: np.ndarray, *, proba: bool, transform: bool, distance: bool
) -> dict[str, np.ndarray]:
    """Columns beside the labels of new rows, as they were asked for.

    Args:
        estimator: fitted; it takes ``x`` in the units of the data.
        x: (n_samples, n_features).
        labels: (n_samples,) of the rows.
        proba: the probability of each cluster.
        transform: the coordinates of ``transform``.
        distance: the distance to the center of the label.

    Raises:
        UserError: a method that has none of these.
    """
    name, columns = type(estimator).__name__, {}
    if proba and not hasattr(estimator, "predict_proba"):
        raise UserError(f"{name} has no probabilities of new rows: leave out --proba.")
    if distance and not has_distances(estimator):
        raise UserError(f"{name} has no centers among the rows: leave out --distances.")
    if distance:
        columns["distance"] = distances(estimator, x, labels)
    if proba:
        columns |= _named("probability", estimator.predict_proba(x))
    if transform:
        columns |= coordinates(estimator, x)
    return columns


def coordinates(estimator: Any, x: Any) -> dict[str, np.ndarray]:
    """Columns of ``transform``: codes of a network, or distances to all centers.

    Raises:
        UserError: a method without ``transform``.
    """
    if not hasattr(estimator, "transform"):
        raise UserError(
            f"{type(estimator).__name__} gives new rows no coordinates. Fit a method that does, such as kmeans or dec."
        )
    return _named("distance" if has_distances(estimator) else "code", estimator.transform(x))


def _named(word: str, matrix: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{word}_{j}": column for j, column in enumerate(np.asarray(matrix).T)}

"""Scores of a fitted estimator's labels, from themselves and against known classes, and the name of its objective."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcluster import metrics, model_selection
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.report.scores import silhouette_metric


def external_scores(truth: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Agreement of labels with known classes, by name of the score; names of clusters and classes do not matter."""
    functions = {
        "accuracy": metrics.clustering_accuracy,
        "adjusted_rand": metrics.adjusted_rand_score,
        "adjusted_mutual_info": metrics.adjusted_mutual_info_score,
        "normalized_mutual_info": metrics.normalized_mutual_info_score,
        "v_measure": metrics.v_measure_score,
        "purity": metrics.purity_score,
    }
    return {name: float(function(truth, labels)) for name, function in functions.items()}


def internal_scores(estimator: Any, x: Any, cells: Any = None) -> dict[str, float]:
    """Silhouette, Davies–Bouldin and Calinski–Harabasz scores; NaN where one is undefined.

    Noise is left out, as it is no cluster and lies between the others. The silhouette uses the metric of the estimator,
    the other two use squared Euclidean distances, or cosine distances if the estimator does. Missing cells leave no
    distances and so none of the three, but for the silhouette by Gower's distance, which leaves such cells out.

    Args:
        estimator: fitted to ``x``, or to ``cells``.
        x: (n_samples, n_features), dense or sparse; of a table with categories the embedded rows.
        cells: table that Gower's distance is of, or None.
    """
    labels, (metric, p) = estimator.labels_, silhouette_metric(estimator)
    if not is_sparse(x) and np.isnan(x).any():
        silhouette = math.nan if cells is None else _gower_silhouette(estimator, cells)
        return {"silhouette": silhouette, "davies_bouldin": math.nan, "calinski_harabasz": math.nan}
    # Noise lies between the clusters: as a cluster of its own it would lower all three scores.
    kept = labels >= 0
    x, labels = x[kept], labels[kept]
    scores = model_selection.internal_scores(x, labels, metric="cosine" if metric == "cosine" else "sqeuclidean")
    # The quadratic cost of a silhouette by any metric is bounded by a sample, the same one as for squared distances.
    if metric not in ("euclidean", "cosine") and not math.isnan(scores["silhouette"]):
        rows = model_selection.sampled_rows(len(labels))
        scores["silhouette"] = metrics.silhouette_score(x[rows], labels[rows], metric=metric, p=p)
    return scores


def _gower_silhouette(estimator: Any, cells: Any) -> float:
    """Mean silhouette by Gower's distance of the rows in clusters, or of a sample of them; NaN where undefined."""
    import pyarrow as pa

    kept = np.flatnonzero(estimator.labels_ >= 0)
    kept = kept[model_selection.sampled_rows(len(kept))]
    labels = estimator.labels_[kept]
    if not 2 <= len(np.unique(labels)) < len(labels):
        return math.nan
    rows = cells.take(pa.array(kept)) if isinstance(cells, pa.Table) else cells[kept]
    return metrics.silhouette_score(rows, labels, metric="gower", **estimator.reading_options())


def explained(estimator: Any, scores: Mapping[str, Any]) -> dict[str, Any]:
    """The scores under the names by which `jaxcluster.report.scores` explains them.

    ``inertia_`` is a sum of squares only for an estimator that uses squared distances.
    """
    name = objective_of(estimator, "inertia").replace(" ", "_")
    return {name if key == "inertia" else key: value for key, value in scores.items()}


def objective_of(estimator: Any, objective: str) -> str:
    """Name of an estimator's objective: that of its registry, more precise where the metric decides it."""
    if objective != "inertia":
        return objective
    if str(estimator.info.objective).startswith("sum of"):
        return estimator.info.objective
    return "sum of cosine distances" if getattr(estimator, "metric", None) == "cosine" else objective

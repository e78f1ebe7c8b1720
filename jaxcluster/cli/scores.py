"""Scores of a labeling, from itself and against the truth, and how they are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console


def external_scores(truth: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How well labels agree with known classes, whatever either are called."""
    from jaxcluster import metrics

    functions = {
        "accuracy": metrics.clustering_accuracy,
        "adjusted_rand": metrics.adjusted_rand_score,
        "adjusted_mutual_info": metrics.adjusted_mutual_info_score,
        "normalized_mutual_info": metrics.normalized_mutual_info_score,
        "v_measure": metrics.v_measure_score,
        "purity": metrics.purity_score,
    }
    return {name: float(function(truth, labels)) for name, function in functions.items()}


def model_scores(estimator: Any, x: np.ndarray, weights: np.ndarray | None) -> dict[str, float]:
    """What a fitted model says of its own rows: its inertia, or a mixture's log-likelihood and information criteria.

    Without such criteria the lower bound, which a variational fit raises, takes their place.

    Args:
        estimator: fitted to the rows.
        x: (n, d) rows.
        weights: (n,), or None for 1 each.
    """
    import numpy as np

    if hasattr(estimator, "inertia_"):
        return {"inertia": estimator.inertia_}
    if not hasattr(estimator, "score_samples"):
        return {}
    scores = {"log_likelihood": float(np.average(estimator.score_samples(x), weights=weights))}
    if not hasattr(estimator, "bic"):
        return scores | {"lower_bound": float(estimator.lower_bound_)}
    weighted = {} if weights is None else {"sample_weight": weights}
    return scores | {name: float(getattr(estimator, name)(x, **weighted)) for name in ("bic", "aic")}


def internal_scores(estimator: Any, x: np.ndarray) -> dict[str, float]:
    """Silhouette, Davies–Bouldin and Calinski–Harabasz of the rows in clusters; NaN where one is undefined.

    Noise is left out: it is no cluster, and lies between the others. The silhouette is of the distances that the
    estimator measures by, the other two are of Euclidean ones, but of directions where only they count. With missing
    cells there are no distances, and none of the three.
    """
    import numpy as np

    from jaxcluster import metrics, model_selection

    labels, (metric, p) = estimator.labels_, silhouette_metric(estimator)
    if np.isnan(x).any():
        return dict.fromkeys(("silhouette", "davies_bouldin", "calinski_harabasz"), math.nan)
    kept = labels >= 0
    x, labels = x[kept], labels[kept]
    scores = model_selection.internal_scores(x, labels, metric="cosine" if metric == "cosine" else "sqeuclidean")
    if metric not in ("euclidean", "cosine") and not math.isnan(scores["silhouette"]):
        rows = model_selection.sampled_rows(len(x))
        scores["silhouette"] = metrics.silhouette_score(x[rows], labels[rows], metric=metric, p=p)
    return scores


def silhouette_metric(estimator: Any) -> tuple[str, float]:
    """The metric that silhouettes are of, and Minkowski's power: the estimator's, Euclidean for its square."""
    metric = getattr(estimator, "metric", "euclidean")
    p = getattr(estimator, "p", None)
    return "euclidean" if metric in ("sqeuclidean", "l2") else metric, 2 if p is None else p


def in_words(estimator: Any, scores: Mapping[str, Any]) -> dict[str, Any]:
    """The same under the names by which `jaxcluster.report.scores` explains them.

    What an estimator publishes as its inertia is a sum of squares only where it measures by squares.
    """
    name = objective_of(estimator, "inertia").replace(" ", "_")
    return {name if key == "inertia" else key: value for key, value in scores.items()}


def objective_of(estimator: Any, objective: str) -> str:
    """What an estimator's objective is called; ``objective`` but where that is no inertia."""
    if objective != "inertia":
        return objective
    if hasattr(estimator, "medoid_indices_"):
        return "sum of distances"
    return "sum of cosine distances" if getattr(estimator, "metric", None) == "cosine" else objective


def finite(scores: Mapping[str, float]) -> dict[str, float | None]:
    """The same, with None for what is undefined: JSON has no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}


def show_scores(console: Console, title: str, scores: Mapping[str, Any]) -> None:
    """Prints a table of scores, each with its range and which end of it is good."""
    from jaxcluster.cli.console import show_table
    from jaxcluster.report.scores import meaning

    rows = [(meaning(name).title, value, meaning(name).range) for name, value in scores.items()]
    show_table(console, title, ("score", "value", "range"), rows, text=(0, 2))

"""Scores of a labelling, from itself and against the truth, and how they are shown."""

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
    estimator measures by, the other two are of Euclidean ones, but of directions where only they count.
    """
    from jaxcluster import metrics, select

    labels, metric = estimator.labels_, getattr(estimator, "metric", "sqeuclidean")
    kept = labels >= 0
    x, labels = x[kept], labels[kept]
    scores = select.internal_scores(x, labels, metric=metric if metric == "cosine" else "sqeuclidean")
    if metric in ("manhattan", "minkowski") and not math.isnan(scores["silhouette"]):
        rows = select.sampled_rows(len(x))
        scores["silhouette"] = metrics.silhouette_score(x[rows], labels[rows], metric=metric, p=estimator.p)
    return scores


def finite(scores: Mapping[str, float]) -> dict[str, float | None]:
    """The same, with None for what is undefined: JSON has no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}


def show_scores(console: Console, title: str, scores: Mapping[str, Any]) -> None:
    """Prints a table of scores, each with its range and which end of it is good."""
    from jaxcluster.cli.console import show_table
    from jaxcluster.report.scores import meaning

    rows = [(meaning(name).title, value, meaning(name).range) for name, value in scores.items()]
    show_table(console, title, ("score", "value", "range"), rows, text=(0, 2))

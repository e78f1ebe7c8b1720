"""Scores of a fitted estimator's labels, and the titles, ranges and descriptions of scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxcluster import metrics, model_selection
from jaxcluster.core.sparse_rows import is_sparse


class ScoreInfo(NamedTuple):
    """Title, range and description of a score.

    Attributes:
        title: its name in words.
        range: its values, and the better end of them.
        description: one line on what it measures.
        truth: True for a comparison with the truth.
        unit: True if it lies between 0 and 1, so that a bar can show it.
    """

    title: str
    range: str
    description: str
    truth: bool = True
    unit: bool = True


SCORE_INFO = {
    "accuracy": ScoreInfo(
        "Accuracy",
        "0 to 1, higher is better",
        "rows of the class that their cluster is matched with",
    ),
    "adjusted_rand": ScoreInfo(
        "Adjusted Rand index", "-0.5 to 1, 0 is chance", "pairs of rows treated as in the truth, above chance"
    ),
    "adjusted_mutual_info": ScoreInfo(
        "Adjusted mutual information", "up to 1, 0 is chance", "information of clusters about the truth, above chance"
    ),
    "normalized_mutual_info": ScoreInfo(
        "Normalized mutual information",
        "0 to 1, higher is better",
        "information of clusters about the truth, as a fraction",
    ),
    "homogeneity": ScoreInfo("Homogeneity", "0 to 1, higher is better", "clusters that hold one class only"),
    "completeness": ScoreInfo("Completeness", "0 to 1, higher is better", "classes that lie in one cluster only"),
    "v_measure": ScoreInfo("V-measure", "0 to 1, higher is better", "harmonic mean of homogeneity and completeness"),
    "fowlkes_mallows": ScoreInfo(
        "Fowlkes-Mallows", "0 to 1, higher is better", "geometric mean of pairwise precision and recall"
    ),
    "purity": ScoreInfo("Purity", "0 to 1, easier with more clusters", "rows of their cluster's commonest class"),
    "rand": ScoreInfo(
        "Rand index",
        "0 to 1, higher is better",
        "pairs of rows treated as in the truth",
    ),
    "mutual_info": ScoreInfo(
        "Mutual information", "0 up (nats), higher is better", "information of clusters about the truth", unit=False
    ),
    "silhouette": ScoreInfo(
        "Silhouette",
        "-1 to 1, higher is better",
        "how much nearer its own cluster is than the next",
        False,
    ),
    "davies_bouldin": ScoreInfo(
        "Davies-Bouldin",
        "0 up, lower is better",
        "how wide clusters are against their distances",
        False,
        False,
    ),
    "calinski_harabasz": ScoreInfo(
        "Calinski-Harabasz", "0 up, higher is better", "spread between clusters against spread within", False, False
    ),
    "inertia": ScoreInfo(
        "Inertia",
        "0 up, lower is better at equal k",
        "sum of squared distances to the centers",
        False,
        False,
    ),
    "sum_of_distances": ScoreInfo(
        "Sum of distances",
        "0 up, lower is better at equal k",
        "distances of rows to their medoids, by the metric of the fit",
        False,
        False,
    ),
    "sum_of_mismatches": ScoreInfo(
        "Sum of mismatches",
        "0 up, lower is better at equal k",
        "columns in which rows differ from the mode of their cluster",
        False,
        False,
    ),
    "sum_of_costs": ScoreInfo(
        "Sum of costs",
        "0 up, lower is better at equal k",
        "squared distances to the means, and a cost for each category that differs from the mode",
        False,
        False,
    ),
    "sum_of_cosine_distances": ScoreInfo(
        "Sum of cosine distances",
        "0 up, lower is better at equal k",
        "1 less the cosine between each row and its center",
        False,
        False,
    ),
    "log_likelihood": ScoreInfo(
        "Log-likelihood",
        "nats per row, higher is better",
        "how probable the mixture makes a row, on average",
        False,
        False,
    ),
    "lower_bound": ScoreInfo(
        "Lower bound",
        "higher is better, up to a constant",
        "what the fit raises: likelihood against the prior",
        False,
        False,
    ),
    "bic": ScoreInfo(
        "BIC", "lower is better on the same rows", "misfit, and a price for each parameter: log n", False, False
    ),
    "aic": ScoreInfo(
        "AIC", "lower is better on the same rows", "misfit, and a price for each parameter: 2", False, False
    ),
}

ALIASES = {
    "ari": "adjusted_rand",
    "ami": "adjusted_mutual_info",
    "nmi": "normalized_mutual_info",
    "acc": "accuracy",
    "clustering_accuracy": "accuracy",
    "v": "v_measure",
    "fmi": "fowlkes_mallows",
}


def canonical(name: str) -> str:
    """The name in `SCORE_INFO` of a score called by its function's name, without ``_score``, or by its initials."""
    short = name.lower().replace(" ", "_").removesuffix("_score")
    return ALIASES.get(short, short)


def score_info(name: str) -> ScoreInfo:
    """Title, range and description of a score; of an unknown one, its name in words."""
    info = SCORE_INFO.get(canonical(name))
    words = name.replace("_", " ")
    return info or ScoreInfo(words[:1].upper() + words[1:], "", "", False, False)


def split(scores: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate scores against the truth from the others.

    Returns:
        Scores against the truth, and the others; each in the order of `SCORE_INFO`, unknown ones last.

    >>> split({"inertia": 9.0, "ari": 0.5})
    ({'ari': 0.5}, {'inertia': 9.0})
    """
    order = {name: i for i, name in enumerate(SCORE_INFO)}
    ranked = sorted(scores, key=lambda name: order.get(canonical(name), len(order)))
    against = {name: scores[name] for name in ranked if score_info(name).truth}
    return against, {name: scores[name] for name in ranked if name not in against}


def silhouette_metric(estimator: Any) -> tuple[str, float]:
    """Metric and power of "minkowski" for silhouettes: those of the estimator, Euclidean for squared Euclidean.

    Returns:
        The name of the metric, and the power, 2 unless the estimator has another one.
    """
    metric = getattr(estimator, "metric", "euclidean")
    p = getattr(estimator, "p", None)
    if metric == "gower":  # of embedded rows
        return "manhattan", 2
    return "euclidean" if metric in ("sqeuclidean", "l2") else metric, 2 if p is None else p


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

"""Selection of the number of clusters: scores of a sweep over k, and rules that choose k by them.

>>> from jaxcluster import model_selection
>>> model_selection.choose_k([2, 3, 4], [0.4, 0.7, 0.5], rule="silhouette")
3
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxcluster import metrics
from jaxcluster.core import memory, validation
from jaxcluster.core.sparse_input import as_csr, unit_sparse_rows
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.ops.metric_space import unit_rows
from jaxcluster.types import Fit

__all__ = [
    "MIN_ELBOW_DISTANCE",
    "RULES",
    "SILHOUETTE_SAMPLE",
    "SweepScores",
    "choose_k",
    "elbow",
    "highest",
    "internal_scores",
    "lowest",
    "sampled_rows",
    "score_sweep",
]

SILHOUETTE_SAMPLE = 10_000
"""Default number of samples of a silhouette, whose cost grows with its square."""

MIN_ELBOW_DISTANCE = 0.05
"""Least distance of an elbow from the chord of its curve, as a fraction of the height of the curve."""


def __dir__() -> list[str]:
    return __all__


class SweepScores(NamedTuple):
    """Scores of the best run for each k; NaN where a score is undefined.

    Attributes:
        ks: (m,) numbers of clusters.
        best: (m,) index of the run of least inertia.
        inertia, silhouette, davies_bouldin, calinski_harabasz: (m,) float64 scores.
    """

    ks: np.ndarray
    best: np.ndarray
    inertia: np.ndarray
    silhouette: np.ndarray
    davies_bouldin: np.ndarray
    calinski_harabasz: np.ndarray


def elbow(ks: ArrayLike, inertias: ArrayLike) -> int | None:
    """Elbow of a decreasing curve: the k at which it is farthest below the chord between its ends.

    Both axes are scaled to [0, 1] first, so that their units do not matter.

    Args:
        ks: (m,) distinct numbers of clusters, in any order.
        inertias: (m,) inertia of each.

    Returns:
        The k of the elbow, or None: for fewer than 3 points, a curve that does not decrease, or one that stays within
        `MIN_ELBOW_DISTANCE` of its chord.

    Source: Satopää, Albrecht, Irwin and Raghavan, Finding a "kneedle" in a haystack, 2011, without the smoothing.
    """
    ks, inertias = _by_k(ks, inertias)
    drop = inertias[0] - inertias[-1]
    if ks.size < 3 or not drop > 0:
        return None
    bend = (inertias[0] - inertias) / drop - (ks - ks[0]) / (ks[-1] - ks[0])
    return int(ks[np.argmax(bend)]) if bend.max() > MIN_ELBOW_DISTANCE else None


def highest(ks: ArrayLike, values: ArrayLike) -> int:
    """Number k of the greatest value; the least of equals."""
    ks, values = _by_k(ks, values)
    return int(ks[np.argmax(values)])


def lowest(ks: ArrayLike, values: ArrayLike) -> int:
    """Number k of the least value; the least of equals."""
    ks, values = _by_k(ks, values)
    return int(ks[np.argmin(values)])


RULES: Mapping[str, Callable[[ArrayLike, ArrayLike], int | None]] = {
    "silhouette": highest,
    "davies_bouldin": lowest,
    "calinski_harabasz": highest,
    "elbow": elbow,
}
"""Rules to choose k: the best of a score, or the elbow of the inertia."""


def choose_k(ks: ArrayLike, values: ArrayLike, rule: str = "silhouette") -> int | None:
    """Number of clusters by a rule.

    Args:
        ks: (m,) distinct numbers of clusters, in any order.
        values: (m,) inertia for "elbow", else the score of the rule's name. Values that are not finite are left out.
        rule: "silhouette", "davies_bouldin", "calinski_harabasz" or "elbow".

    Returns:
        The chosen k; None for a curve without an elbow.

    Raises:
        ValueError: an unknown rule, shapes that differ, or no finite value.
    """
    validation.check_choice("rule", rule, RULES)
    return RULES[rule](ks, values)


def _by_k(ks, values):
    """Finite values with their k, in ascending order of k."""
    ks, values = np.asarray(ks), np.asarray(values, np.float64)
    if ks.ndim != 1 or ks.shape != values.shape:
        raise ValueError(f"ks and values must be 1-D and equally long, got shapes {ks.shape} and {values.shape}.")
    kept = np.isfinite(values)
    if not kept.any():
        raise ValueError(f"none of the {values.size} values is finite: there is nothing to choose k by.")
    order = np.argsort(ks[kept], kind="stable")
    return ks[kept][order], values[kept][order]


def score_sweep(
    x: Any,
    ks: Sequence[int],
    fits: Fit,
    *,
    metric: str = "sqeuclidean",
    sample: int = SILHOUETTE_SAMPLE,
    seed: int = 0,
) -> SweepScores:
    """Scores of the best run for each k of `jaxcluster.kmeans.sweep`.

    Args:
        x: (n_samples, n_features) rows that were clustered.
        ks: (m,) numbers of clusters, as passed to the sweep.
        fits: result of the sweep, with leading axes (m, n_seeds).
        metric: "sqeuclidean" or "cosine", as in the sweep.
        sample, seed: see `internal_scores`.

    Returns:
        `SweepScores`.
    """
    inertia = np.asarray(fits.state.inertia, np.float64)
    best = np.argmin(np.where(np.isnan(inertia), np.inf, inertia), axis=1)
    labels = (np.asarray(fits.labels[i, j]) for i, j in enumerate(best))
    scores = [internal_scores(x, each, metric=metric, sample=sample, seed=seed) for each in labels]
    columns = {name: np.array([score[name] for score in scores]) for name in scores[0]}
    return SweepScores(np.asarray(ks), best, inertia[np.arange(best.size), best], **columns)


def internal_scores(
    x: Any, labels: np.ndarray, *, metric: str = "sqeuclidean", sample: int = SILHOUETTE_SAMPLE, seed: int = 0
) -> dict[str, float]:
    """Internal scores of a labeling: silhouette, Davies–Bouldin and Calinski–Harabasz.

    Args:
        x: (n_samples, n_features) rows, dense or a sparse matrix.
        labels: (n_samples,) labels.
        metric: "sqeuclidean" or "cosine".
        sample: most samples of the silhouette, drawn without replacement.
        seed: seed of the sample.

    Returns:
        The scores by name; NaN where one is undefined.
    """
    if metric == "cosine":
        # On rows of unit length squared Euclidean distances are twice the cosine ones.
        x = unit_sparse_rows(as_csr(x)) if is_sparse(x) else unit_rows(x)
    rows = sampled_rows(x.shape[0], sample, seed)
    distance = "cosine" if metric == "cosine" else "euclidean"
    return {
        "silhouette": _defined(metrics.silhouette_score, x[rows], labels[rows], metric=distance),
        "davies_bouldin": _defined(metrics.davies_bouldin_score, x, labels),
        "calinski_harabasz": _defined(metrics.calinski_harabasz_score, x, labels),
    }


def sampled_rows(n: int, most: int = SILHOUETTE_SAMPLE, seed: int = 0) -> np.ndarray | slice:
    """Samples of the silhouette in `internal_scores`: all, or ``most`` sorted random positions."""
    if n <= most:
        return slice(None)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def _defined(score, x, labels, **options):
    """Score, or NaN for fewer than 2 clusters or as many as samples."""
    clusters = np.unique(labels).size
    return float(score(x, labels, **options)) if 2 <= clusters < len(labels) else float("nan")


memory.guard_functions(__name__, compiled=False)

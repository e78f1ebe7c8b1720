"""Choosing the number of clusters: scores of a sweep over k, and the rules that pick k from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxcluster import metrics
from jaxcluster.core import check, memory
from jaxcluster.ops.host_distance import unit_rows
from jaxcluster.types import Fit

SAMPLE = 10_000
"""Rows of which a silhouette is taken: its cost grows with their square."""

LEAST_BEND = 0.05
"""A curve that stays this near to its chord, in units of its height, has no elbow."""


class SweepScores(NamedTuple):
    """How well each k did, by its best start; NaN where a score is undefined.

    Attributes:
        ks: (m,) numbers of clusters.
        best: (m,) which start had the least inertia.
        inertia, silhouette, davies_bouldin, calinski_harabasz: (m,) float64.
    """

    ks: np.ndarray
    best: np.ndarray
    inertia: np.ndarray
    silhouette: np.ndarray
    davies_bouldin: np.ndarray
    calinski_harabasz: np.ndarray


def elbow(ks: ArrayLike, inertias: ArrayLike) -> int | None:
    """The k at which a falling curve bends most: where it is farthest below the chord between its ends.

    Both axes are scaled to [0, 1] first, so that neither unit counts. None where there is no elbow: fewer than 3
    points, a curve that does not fall, or one that stays within `LEAST_BEND` of its chord.

    Source: Satopää, Albrecht, Irwin and Raghavan, Finding a "kneedle" in a haystack, 2011, without the smoothing.
    """
    ks, inertias = _by_k(ks, inertias)
    drop = inertias[0] - inertias[-1]
    if ks.size < 3 or not drop > 0:
        return None
    bend = (inertias[0] - inertias) / drop - (ks - ks[0]) / (ks[-1] - ks[0])
    return int(ks[np.argmax(bend)]) if bend.max() > LEAST_BEND else None


def highest(ks: ArrayLike, values: ArrayLike) -> int:
    """The k of the greatest value; the lesser k of equals."""
    ks, values = _by_k(ks, values)
    return int(ks[np.argmax(values)])


def lowest(ks: ArrayLike, values: ArrayLike) -> int:
    """The k of the least value; the lesser k of equals."""
    ks, values = _by_k(ks, values)
    return int(ks[np.argmin(values)])


RULES: Mapping[str, Callable[[ArrayLike, ArrayLike], int | None]] = {
    "silhouette": highest,
    "davies_bouldin": lowest,
    "calinski_harabasz": highest,
    "elbow": elbow,
}
"""Ways to choose k: the best of a score, or the elbow of the inertia."""


def choose_k(ks: ArrayLike, values: ArrayLike, rule: str = "silhouette") -> int | None:
    """The number of clusters that a rule picks; None where a curve has no elbow.

    Args:
        ks: (m,) distinct numbers of clusters, in any order.
        values: (m,) what the rule looks at: the inertia for "elbow", else the score of that name. NaN are left out.
        rule: "silhouette", "davies_bouldin", "calinski_harabasz" or "elbow".

    Raises:
        ValueError: an unknown rule, shapes that differ, or no finite value.
    """
    check.check_choice("rule", rule, RULES)
    return RULES[rule](ks, values)


def _by_k(ks, values):
    """Both in ascending order of k, without those whose value is not finite."""
    ks, values = np.asarray(ks), np.asarray(values, np.float64)
    if ks.ndim != 1 or ks.shape != values.shape:
        raise ValueError(f"ks and values must be 1-D and equally long, got shapes {ks.shape} and {values.shape}.")
    kept = np.isfinite(values)
    if not kept.any():
        raise ValueError(f"none of the {values.size} values is finite: there is nothing to choose k by.")
    order = np.argsort(ks[kept], kind="stable")
    return ks[kept][order], values[kept][order]


def score_sweep(
    x: np.ndarray, ks: Sequence[int], fits: Fit, *, metric: str = "sqeuclidean", sample: int = SAMPLE, seed: int = 0
) -> SweepScores:
    """Scores what `jaxcluster.kmeans.sweep` returned, taking the best start of each k.

    Args:
        x: (n, d) the rows that were clustered.
        ks: (m,) as they were given to the sweep.
        fits: its fits, with leading axes (m, n_seeds).
        metric: "sqeuclidean" or "cosine", as the sweep's.
        sample, seed: see `internal_scores`.
    """
    inertia = np.asarray(fits.state.inertia, np.float64)
    best = np.argmin(np.where(np.isnan(inertia), np.inf, inertia), axis=1)
    labels = (np.asarray(fits.labels[i, j]) for i, j in enumerate(best))
    scores = [internal_scores(x, each, metric=metric, sample=sample, seed=seed) for each in labels]
    columns = {name: np.array([score[name] for score in scores]) for name in scores[0]}
    return SweepScores(np.asarray(ks), best, inertia[np.arange(best.size), best], **columns)


def internal_scores(
    x: np.ndarray, labels: np.ndarray, *, metric: str = "sqeuclidean", sample: int = SAMPLE, seed: int = 0
) -> dict[str, float]:
    """Silhouette, Davies–Bouldin and Calinski–Harabasz of a labeling; NaN where one is undefined.

    Under the cosine metric the silhouette is taken of cosine distances and the other two of rows of unit length, on
    which squared Euclidean distances are twice the cosine ones.

    Args:
        x: (n, d) rows.
        labels: (n,) cluster of each.
        metric: "sqeuclidean" or "cosine".
        sample: the silhouette is taken of at most that many rows, drawn without replacement.
        seed: of the drawing.
    """
    if metric == "cosine":
        x = unit_rows(x)
    rows = sampled_rows(len(x), sample, seed)
    distance = "cosine" if metric == "cosine" else "euclidean"
    return {
        "silhouette": _defined(metrics.silhouette_score, x[rows], labels[rows], metric=distance),
        "davies_bouldin": _defined(metrics.davies_bouldin_score, x, labels),
        "calinski_harabasz": _defined(metrics.calinski_harabasz_score, x, labels),
    }


def sampled_rows(n: int, most: int = SAMPLE, seed: int = 0) -> np.ndarray | slice:
    """Which rows `internal_scores` takes the silhouette of: all of them, or ``most`` drawn positions in order."""
    if n <= most:
        return slice(None)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def _defined(score, x, labels, **options):
    """A score, or NaN where there are fewer than 2 clusters, or as many as rows."""
    clusters = np.unique(labels).size
    return float(score(x, labels, **options)) if 2 <= clusters < len(x) else float("nan")


memory.guard_functions(__name__, compiled=False)

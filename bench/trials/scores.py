"""Trials of scores: each beside the same sums in long double, by differences."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from bench.trials.kinds import KINDS, Case, Trial, attempted
from bench.trials.kinds import lengths as minkowski
from jaxcluster import metrics

LIMIT = 1e-3
"""Error of a score, relative above 1; a wrong distance makes more."""

SCALED = (
    "calinski-harabasz",
    "davies-bouldin",
    "silhouette",
    "silhouette-manhattan",
    "silhouette-p20",
    "silhouette-inf",
)


def trials() -> Iterator[Trial]:
    """Every score on every case without weights."""
    for kind, cases in KINDS.items():
        if kind == "weights":
            continue
        for case in cases():
            for name in SCALED:
                yield Trial(kind, f"metric:{name}", case.name, partial(attempted, partial(_compare, name, case)))


def _compare(name: str, case: Case) -> str:
    x, y = case.problem.x, case.problem.y
    value = np.asarray(_ours(name, x, y), np.float64)
    # Summed in long double about a sample: far beyond what any offset here takes from float64.
    right = np.asarray(_right(name, np.asarray(x, np.longdouble) - np.asarray(x[0], np.longdouble), y), np.float64)
    error = np.abs(value - right) / np.maximum(1, np.abs(right))
    if (error <= LIMIT).all():
        return ""
    worst = int(np.nan_to_num(error, nan=np.inf).argmax())
    return f"{value.ravel()[worst]:.6g} for {right.ravel()[worst]:.6g} (entry {worst} of {error.size})"


def _ours(name, x, y):
    if name == "calinski-harabasz":
        return metrics.calinski_harabasz_score(x, y)
    if name == "davies-bouldin":
        return metrics.davies_bouldin_score(x, y)
    _, _, metric = name.partition("-")
    options = {"": {}, "manhattan": {"metric": "manhattan"}}
    power = {"metric": "minkowski", "p": np.inf if metric == "inf" else 20}
    return metrics.silhouette_samples(x, y, **options.get(metric, power))


def _right(name, x, y):
    k = int(y.max()) + 1
    sizes = np.bincount(y)
    if name in ("calinski-harabasz", "davies-bouldin"):
        centers = np.array([x[y == j].mean(axis=0) for j in range(k)])
        if name == "davies-bouldin":
            spreads = np.array([minkowski(x[y == j] - centers[j], 2).mean() for j in range(k)])
            gaps = np.array([minkowski(centers - center, 2) for center in centers])
            np.fill_diagonal(gaps, np.inf)
            return ((spreads[:, None] + spreads) / gaps).max(axis=1).mean()
        within = sum(np.square(x[y == j] - centers[j]).sum() for j in range(k))
        between = (sizes[:, None] * np.square(centers - x.mean(axis=0))).sum()
        # scikit-learn's convention where no cluster has any extent.
        return between / within * (len(x) - k) / (k - 1) if within > 0 else np.longdouble(1)
    power = {"silhouette": 2, "silhouette-manhattan": 1, "silhouette-p20": 20, "silhouette-inf": np.inf}[name]
    means = np.empty((len(x), k), np.longdouble)
    for i, row in enumerate(x):
        distances = minkowski(x - row, power)
        means[i] = [distances[y == j].sum() for j in range(k)]
    own = means[np.arange(len(x)), y] / np.maximum(sizes[y] - 1, 1)
    others = means / sizes
    others[np.arange(len(x)), y] = np.inf
    nearest = others.min(axis=1)
    larger = np.maximum(own, nearest)
    return np.where((sizes[y] > 1) & (larger > 0), (nearest - own) / np.where(larger > 0, larger, 1), 0)

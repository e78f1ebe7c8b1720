"""A cut through the hierarchy at one distance: DBSCAN without border rows, for any radius once a fit is there."""

from __future__ import annotations

import numpy as np

from jaxcluster.cluster.hdbscan.state import INFINITE, MISSING, HDBSCANState
from jaxcluster.core import check


def labels_at(state: HDBSCANState, distance: float, *, min_cluster_size: int = 5) -> np.ndarray:
    """The clusters at a distance: rows that edges of mutual reachability below it join.

    Args:
        state: of a fit on n rows.
        distance: in the units of the metric.
        min_cluster_size: rows of a cluster at least; smaller ones are noise.

    Returns:
        (N,) int32 labels: −1 for noise, −2 for infinite rows, −3 for rows with a missing value. Clusters are numbered
        as scikit-learn does in ``dbscan_clustering``.

    Raises:
        ValueError, TypeError: a distance that is not a positive number, or ``min_cluster_size`` below 1.
    """
    check.check_positive("distance", distance)
    check.check_count("min_cluster_size", min_cluster_size)
    n = len(state.merges) + 1
    joined = int(np.searchsorted(state.merges[:, 2], distance))
    parts = state.merges[:joined, :2].astype(np.int64)
    above = np.arange(n + joined)
    above[parts.ravel()] = np.repeat(np.arange(n, n + joined), 2)
    while not np.array_equal(above[above], above):
        above = above[above]
    chiefs = np.array(_chiefs(parts, n))[above[:n]]
    _, numbers, counts = np.unique(chiefs, return_inverse=True, return_counts=True)
    kept = counts >= min_cluster_size
    labels = np.where(kept, np.cumsum(kept) - 1, -1)
    return state.of_all(labels[numbers].astype(np.int32), infinite=INFINITE, missing=MISSING)


def _chiefs(parts, n):
    """The row that stands for each row and merge: clusters are numbered by these.

    It is the one that sets joined by rank end up with, where a merge is itself joined to its left part, then its right
    part to both: of two equal ranks the right part's, which rises by one.
    """
    chiefs, ranks = list(range(n)), [0] * n
    for left, right in parts.tolist():
        a, b = max(ranks[left], 1), ranks[right]
        chiefs.append(chiefs[left if b < a else right])
        ranks.append(max(a, b) + (a == b))
    return chiefs

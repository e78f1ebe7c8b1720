"""What a fit keeps, and the clusters and labels of rows that are read off it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxcluster.cluster.hdbscan.condense import CondensedTree
from jaxcluster.ops.metric_space import bind_metric_params
from jaxcluster.ops.spanning_tree import Tree

BY_EDGES = (
    *("euclidean", "l2", "manhattan", "l1", "cityblock", "chebyshev", "minkowski", "seuclidean", "mahalanobis"),
    *("haversine", "hamming", "canberra", "braycurtis", "jaccard", "dice", "rogerstanimoto", "russellrao"),
    "sokalsneath",
)
"""Metrics of scikit-learn's trees. For these it joins the ends of the edges, and ``alpha`` does not divide core
distances; for others it joins rows in the order it reaches them, and ``alpha`` divides core distances too."""

INFINITE, MISSING = -2, -3
"""Labels of rows that hold an infinity, and of those that hold NaN: scikit-learn's."""


class HDBSCANState(NamedTuple):
    """A hierarchy of clusters, those selected from it, and what new rows are placed by. All of it is on the host.

    It is a hierarchy of the n finite rows among the N of the fit, numbered in their order.

    Attributes:
        tree: the minimum spanning tree of mutual reachability over n rows, grown from row 0: `Tree`.
        merges: (n − 1, 4) float64 the single-linkage hierarchy, as `scipy.cluster.hierarchy` has it.
        condensed: the `CondensedTree`.
        selected: (k,) int64 clusters, numbered as in ``condensed``; the label of each is its place here.
        labels: (N,) int32 the label of each row: −1 for noise, `INFINITE` or `MISSING` for rows that are not finite.
        finite: (n,) int64 which of the N rows are finite.
        core: (n,) float64 core distances.
        least: density a row must stay to, to be in the cluster of all rows, if that is selected; else 0.
        x: (n, d) the finite rows, or (n, n) distances, in the dtype they came in.
        metric, params, p, alpha, min_samples: as in the fit.
    """

    tree: Tree
    merges: np.ndarray
    condensed: CondensedTree
    selected: np.ndarray
    labels: np.ndarray
    finite: np.ndarray
    core: np.ndarray
    least: float
    x: Any
    metric: str | Callable
    params: dict[str, Any]
    p: float
    alpha: float
    min_samples: int

    @property
    def function(self) -> str | Callable:
        """The metric with its parameters: see `jaxcluster.ops.metric_space.bind_metric_params`."""
        return bind_metric_params(self.metric, self.params, self.p)[0]

    @property
    def core_alpha(self) -> float:
        """What core distances are divided by."""
        return 1.0 if isinstance(self.metric, str) and self.metric in BY_EDGES else self.alpha

    def of_all(self, values: np.ndarray, *, infinite: float, missing: float) -> np.ndarray:
        """(N, …) values of the n finite rows, and what the others have in their place."""
        out = np.empty((len(self.labels), *values.shape[1:]), values.dtype)
        out[self.labels == INFINITE], out[self.labels == MISSING] = infinite, missing
        out[self.finite] = values
        return out


def owners(tree: CondensedTree, selected: np.ndarray) -> np.ndarray:
    """(c,) the label of each cluster: that of itself, or of the nearest above it that is selected; −1 for none.

    Args:
        tree: of c clusters.
        selected: (k,) clusters, counted from 0.
    """
    labels = np.full(tree.clusters, -1)
    labels[selected] = np.arange(len(selected))
    owned = labels.tolist()
    for cluster, parent in enumerate(tree.ups()[0].tolist()):
        if owned[cluster] < 0 <= parent:
            owned[cluster] = owned[parent]
    return np.array(owned)


def least_level(tree: CondensedTree, selected: np.ndarray, epsilon: float) -> float:
    """The density that a row must stay to, to be labeled as one of all rows; 0 where that cluster is not selected.

    It is the density of ``epsilon``, or the last at which something leaves the cluster. Where others are selected
    too, there is no such density.
    """
    if len(selected) == 0 or selected[0] > 0:
        return 0.0
    if len(selected) > 1:
        return np.inf
    return 1 / epsilon if epsilon > 0 else float(tree.deaths()[0])


def settle(labels: np.ndarray, levels: np.ndarray, selected: np.ndarray, least: float) -> np.ndarray:
    """Labels of rows that leave their clusters at some densities: −1 for those in the cluster of all not that dense."""
    if len(selected) == 0 or selected[0] > 0:
        return labels
    return np.where((labels == 0) & (levels < least), -1, labels)

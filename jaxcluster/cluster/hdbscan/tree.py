"""HDBSCAN's condensed tree, cluster selection, the fitted state, and the DBSCAN cut of the hierarchy.

Clusters of the tree leave their parent, and samples leave their cluster, at a density λ = 1 / distance.

Sources: R. Campello, D. Moulavi and J. Sander, Density-based clustering based on hierarchical density estimates, PAKDD
2013; C. Malzer and M. Baum, A hybrid approach to hierarchical density-based cluster selection, MFI 2020, for
``cluster_selection_epsilon``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxcluster.core import validation
from jaxcluster.ops.metric_params import bind_metric_params
from jaxcluster.ops.spanning_tree import Tree

METHODS = ("eom", "leaf")
"""Cluster selection methods: excess of mass, or the leaves of the condensed tree."""

EDGE_LINKAGE_METRICS = (
    *("euclidean", "l2", "manhattan", "l1", "cityblock", "chebyshev", "minkowski", "seuclidean", "mahalanobis"),
    *("haversine", "hamming", "canberra", "braycurtis", "jaccard", "dice", "rogerstanimoto", "russellrao"),
    "sokalsneath",
)
"""Metrics of scikit-learn's trees. For these it links the two ends of each edge, and ``alpha`` does not divide core
distances; for other metrics it links samples in Prim's order, and ``alpha`` divides core distances too."""

INFINITE, MISSING = -2, -3
"""scikit-learn's labels of samples with an infinite value, and of those with NaN."""


class CondensedTree(NamedTuple):
    """Edges from each cluster to its children: samples that fall out of it, and the two clusters that it splits into.

    Clusters are numbered from n, the number of samples, breadth first; n is the root, the cluster of all samples. Edges
    are in the breadth-first order of the hierarchy of all merges: the first is one of the root.

    Attributes:
        parent: (e,) int64 cluster.
        child: (e,) int64 sample, below n, or cluster.
        lambda_val: (e,) float64 density λ = 1 / distance at which the child leaves; infinite for a distance of 0.
        child_size: (e,) int64 number of samples of the child.
    """

    parent: np.ndarray
    child: np.ndarray
    lambda_val: np.ndarray
    child_size: np.ndarray

    @property
    def n(self) -> int:
        """Number of samples."""
        return int(self.parent[0])

    @property
    def clusters(self) -> int:
        """Number of clusters, with the root."""
        return len(self.child) - self.n + 1

    def check(self, n: int) -> None:
        """Raise ValueError unless it is a tree of n samples: for one that was loaded from a file."""
        parent, child = self.parent, self.child
        arrays = [isinstance(values, np.ndarray) and values.shape == np.shape(child) for values in self]
        kinds = [np.asarray(values).dtype.kind for values in self]
        if not all(arrays) or np.ndim(child) != 1 or kinds != ["i", "i", "f", "i"] or len(child) < n:
            raise ValueError(f"the condensed tree is not one of {n} rows.")
        clusters, inner = len(child) - n + 1, child >= n
        # Each sample leaves one cluster, and each cluster but the root has one parent, of a lower number: no circles.
        nodes = np.array_equal(np.sort(child), np.delete(np.arange(n + clusters), n))
        clusters_leave = parent[0] == n and ((parent >= n) & (parent < n + clusters)).all()
        if not nodes or not clusters_leave or (parent[inner] >= child[inner]).any() or np.isnan(self.lambda_val).any():
            raise ValueError(f"the condensed tree is not one of {n} rows.")

    def parents_and_births(self) -> tuple[np.ndarray, np.ndarray]:
        """Parent and birth of each cluster.

        Returns:
            (c,) parents, counted from 0, and −1 for the root; (c,) λ at which each cluster begins, 0 for the root.
        """
        inner = self.child >= self.n
        parents, births = np.full(self.clusters, -1), np.zeros(self.clusters)
        parents[self.child[inner] - self.n] = self.parent[inner] - self.n
        births[self.child[inner] - self.n] = self.lambda_val[inner]
        return parents, births

    def row_exits(self) -> tuple[np.ndarray, np.ndarray]:
        """Exit of each sample from the tree.

        Returns:
            (n,) cluster that the sample falls out of, counted from 0; (n,) λ at which it does.
        """
        outer = self.child < self.n
        clusters, lambdas = np.empty(self.n, np.int64), np.empty(self.n)
        clusters[self.child[outer]] = self.parent[outer] - self.n
        lambdas[self.child[outer]] = self.lambda_val[outer]
        return clusters, lambdas

    def cluster_deaths(self) -> np.ndarray:
        """(c,) λ at which each cluster loses its last sample or splits."""
        deaths = np.zeros(self.clusters)
        np.maximum.at(deaths, self.parent - self.n, self.lambda_val)
        return deaths


def condense(merges: np.ndarray, min_cluster_size: int) -> CondensedTree:
    """Condensed tree of a hierarchy: parts below ``min_cluster_size`` are samples that fall out of their cluster.

    Args:
        merges: (n − 1, 4), see `fit.single_linkage`.
        min_cluster_size: smallest number of samples of a cluster.

    Source: Campello et al. 2013, algorithm 1.
    """
    n = len(merges) + 1
    root, nodes = 2 * n - 2, np.arange(2 * n - 1)
    parts, sizes = merges[:, :2].astype(np.int64), np.append(np.ones(n, np.int64), merges[:, 3].astype(np.int64))
    parent = np.full(2 * n - 1, root)
    parent[parts.ravel()] = np.repeat(np.arange(n, 2 * n - 1), 2)
    large = sizes >= min_cluster_size
    large[root] = True
    splits = np.append(np.zeros(n, bool), large[parts].all(axis=1))
    # A cluster begins at the root, and at each large part of a merge of two large parts.
    heads = large & splits[parent]
    heads[root] = True
    last_large = _path_ends(np.where(large, nodes, parent))[:n]  # smallest large part that holds each sample
    head = _path_ends(np.where(heads | ~large, nodes, parent))  # node at which the cluster of each large part begins
    rank = _breadth_first(parts, sizes, parent)
    clusters = np.flatnonzero(heads)
    clusters = clusters[np.argsort(rank[clusters])]
    numbers = np.empty(2 * n - 1, np.int64)
    numbers[clusters] = np.arange(n, n + len(clusters))
    left = np.append(last_large, parent[clusters[1:]])
    order = np.argsort(rank[left], kind="stable")
    with np.errstate(divide="ignore", over="ignore"):  # λ of a distance of 0, or of a subnormal one, is infinite
        lambdas = 1 / merges[left - n, 2]
    children = np.append(np.arange(n), numbers[clusters[1:]])
    counts = np.append(np.ones(n, np.int64), sizes[clusters[1:]])
    return CondensedTree(numbers[head[left]][order], children[order], lambdas[order], counts[order])


def _path_ends(hops):
    """Last node of the path from each node, by pointer jumping: O(log depth) passes."""
    while True:
        further = hops[hops]
        if np.array_equal(further, hops):
            return hops
        hops = further


def _breadth_first(parts, sizes, parent):
    """Rank of each node, level by level and from left to right, by pointer jumping."""
    depth = np.ones(len(parent), np.int64)
    before = np.zeros(len(parent), np.int64)  # number of samples to the left of the node
    depth[-1] = 0
    before[parts[:, 1]] = sizes[parts[:, 0]]
    hops = parent
    while depth[hops].any():
        depth, before, hops = depth + depth[hops], before + before[hops], hops[hops]
    return depth * len(parent) + before


# --- cluster selection


def stabilities(tree: CondensedTree) -> np.ndarray:
    """(c,) stability of each cluster: Σ over its samples of (λ at which the sample leaves − λ of the cluster's birth).

    NaN for a cluster that begins at a distance of 0, and whose samples leave at once: ∞ − ∞.
    """
    clusters = tree.parent - tree.n
    _, births = tree.parents_and_births()
    with np.errstate(invalid="ignore"):
        masses = (tree.lambda_val - births[clusters]) * tree.child_size
        return np.bincount(clusters, masses, minlength=tree.clusters)


def select_clusters(
    tree: CondensedTree,
    method: str,
    *,
    epsilon: float = 0.0,
    max_cluster_size: int | None = None,
    allow_single_cluster: bool = False,
) -> np.ndarray:
    """Selected clusters of the condensed tree, counted from 0, in ascending order.

    Args:
        tree: of c clusters.
        method: one of `METHODS`. "eom" selects a cluster that is at least as stable as all selected ones below it.
        epsilon: clusters that begin below this distance are replaced by their last ancestor that begins above it.
        max_cluster_size: largest number of samples of a cluster that "eom" selects.
        allow_single_cluster: True lets "eom" and ``epsilon`` select the root.

    Sources: Campello et al. 2013, section 3.3; Malzer and Baum 2020 for ``epsilon``.
    """
    parents, births = (values.tolist() for values in tree.parents_and_births())
    if method == "eom":
        chosen = _excess_of_mass(tree, parents, max_cluster_size, allow_single_cluster)
    else:
        chosen = sorted(set(range(1, len(parents))) - set(parents))
    if epsilon > 0 and chosen != [0]:
        chosen = _merge_below_epsilon(epsilon, chosen, parents, births, allow_single_cluster)
    return np.array(chosen, np.int64)


def _excess_of_mass(tree, parents, max_cluster_size, allow_single_cluster):
    best, sizes = stabilities(tree).tolist(), _cluster_sizes(tree)
    below, taken = [0.0] * len(parents), [False] * len(parents)
    most = tree.n if max_cluster_size is None else max_cluster_size
    for cluster in range(len(parents) - 1, -1 if allow_single_cluster else 0, -1):
        # The comparison with NaN is false: a cluster of copies is selected.
        if below[cluster] > best[cluster] or sizes[cluster] > most:
            best[cluster] = below[cluster]
        else:
            taken[cluster] = True
        below[parents[cluster]] += best[cluster]
    chosen, covered = [], [False] * len(parents)
    for cluster, parent in enumerate(parents):
        covered[cluster] = parent >= 0 and (covered[parent] or taken[parent])
        if taken[cluster] and not covered[cluster]:
            chosen.append(cluster)
    return chosen


def _cluster_sizes(tree):
    """Number of samples of each cluster; for the root only those of its child clusters, as in scikit-learn."""
    inner = tree.child >= tree.n
    sizes = np.zeros(tree.clusters, np.int64)
    sizes[tree.child[inner] - tree.n] = tree.child_size[inner]
    sizes[0] = tree.child_size[inner & (tree.parent == tree.n)].sum()
    return sizes.tolist()


def _merge_below_epsilon(epsilon, chosen, parents, births, allow_single_cluster):
    """Replace clusters that begin at a distance below epsilon by their last ancestor that begins above it."""
    with np.errstate(divide="ignore"):
        distances = (1 / np.array(births)).tolist()
    selected = set()
    for cluster in chosen:
        if distances[cluster] < epsilon:
            while parents[cluster] > 0:
                cluster = parents[cluster]
                if distances[cluster] > epsilon:
                    break
            else:
                cluster = 0 if allow_single_cluster else cluster
        selected.add(cluster)
    return sorted(selected)


# --- the fitted state and its labels


class HDBSCANState(NamedTuple):
    """Fitted hierarchy, its selected clusters, and the data for predictions; NumPy arrays on the host.

    The hierarchy is that of the n finite samples among the N of the fit, numbered in their order.

    Attributes:
        tree: minimum spanning `Tree` of mutual reachability over n samples, in Prim's order from sample 0.
        merges: (n − 1, 4) float64 single-linkage hierarchy in the format of `scipy.cluster.hierarchy`.
        condensed: the `CondensedTree`.
        selected: (k,) int64 clusters, numbered as in ``condensed``; the label of each is its position here.
        labels: (N,) int32 label of each sample: −1 for noise, `INFINITE` or `MISSING` for samples that are not finite.
        finite: (n,) int64 numbers of the finite samples.
        core: (n,) float64 core distances.
        root_threshold: λ that a sample must reach to belong to the root, if that is selected; else 0.
        x: (n, d) finite samples, or (n, n) distances, in the dtype of the input.
        metric, params, p, alpha, min_samples: as in the fit.
    """

    tree: Tree
    merges: np.ndarray
    condensed: CondensedTree
    selected: np.ndarray
    labels: np.ndarray
    finite: np.ndarray
    core: np.ndarray
    root_threshold: float
    x: Any
    metric: str | Callable
    params: dict[str, Any]
    p: float
    alpha: float
    min_samples: int

    @property
    def function(self) -> str | Callable:
        """Metric with its parameters: see `jaxcluster.ops.metric_params.bind_metric_params`."""
        return bind_metric_params(self.metric, self.params, self.p)[0]

    @property
    def core_alpha(self) -> float:
        """Divisor of core distances."""
        return 1.0 if isinstance(self.metric, str) and self.metric in EDGE_LINKAGE_METRICS else self.alpha

    def of_all(self, values: np.ndarray, *, infinite: float, missing: float) -> np.ndarray:
        """(N, …) values of the n finite samples, and constants for infinite and missing ones."""
        out = np.empty((len(self.labels), *values.shape[1:]), values.dtype)
        out[self.labels == INFINITE], out[self.labels == MISSING] = infinite, missing
        out[self.finite] = values
        return out


def cluster_to_label(tree: CondensedTree, selected: np.ndarray) -> np.ndarray:
    """(c,) label of each cluster: the position of its nearest selected ancestor, or of itself; −1 for none.

    Args:
        tree: of c clusters.
        selected: (k,) clusters, counted from 0.
    """
    labels = np.full(tree.clusters, -1)
    labels[selected] = np.arange(len(selected))
    label_of = labels.tolist()
    for cluster, parent in enumerate(tree.parents_and_births()[0].tolist()):
        if label_of[cluster] < 0 <= parent:
            label_of[cluster] = label_of[parent]
    return np.array(label_of)


def root_lambda_threshold(tree: CondensedTree, selected: np.ndarray, epsilon: float) -> float:
    """λ that a sample must reach to be labeled as one of the root; 0 if the root is not selected.

    It is 1 / ``epsilon``, or else the death of the root. With other clusters selected beside it, no sample reaches it.
    """
    if len(selected) == 0 or selected[0] > 0:
        return 0.0
    if len(selected) > 1:
        return np.inf
    return 1 / epsilon if epsilon > 0 else float(tree.cluster_deaths()[0])


def apply_root_threshold(labels: np.ndarray, lambdas: np.ndarray, selected: np.ndarray, threshold: float) -> np.ndarray:
    """Labels with noise, −1, for the samples of a selected root whose λ stays below the threshold."""
    if len(selected) == 0 or selected[0] > 0:
        return labels
    return np.where((labels == 0) & (lambdas < threshold), -1, labels)


# --- DBSCAN cut


def dbscan_clustering(state: HDBSCANState, cut_distance: float, *, min_cluster_size: int = 5) -> np.ndarray:
    """Clusters at one distance, those of DBSCAN without border points: single linkage cut below ``cut_distance``.

    Args:
        state: of a fit on n samples.
        cut_distance: of mutual reachability, in the units of the metric.
        min_cluster_size: smallest number of samples of a cluster; smaller ones are noise.

    Returns:
        (n_samples,) int32 labels: −1 for noise, −2 for infinite samples, −3 for samples with a missing value, in the
        numbering of scikit-learn's ``dbscan_clustering``.

    Raises:
        ValueError, TypeError: a ``cut_distance`` that is not a positive number, or ``min_cluster_size`` below 1.
    """
    validation.check_positive("cut_distance", cut_distance)
    validation.check_count("min_cluster_size", min_cluster_size)
    n = len(state.merges) + 1
    joined = int(np.searchsorted(state.merges[:, 2], cut_distance))
    parts = state.merges[:joined, :2].astype(np.int64)
    parent = np.arange(n + joined)
    parent[parts.ravel()] = np.repeat(np.arange(n, n + joined), 2)
    # Numbered by the representatives of the parts, so that labels come in scikit-learn's order.
    representatives = np.array(_representatives(parts, n))[_path_ends(parent)[:n]]
    _, numbers, counts = np.unique(representatives, return_inverse=True, return_counts=True)
    large = counts >= min_cluster_size
    labels = np.where(large, np.cumsum(large) - 1, -1)
    return state.of_all(labels[numbers].astype(np.int32), infinite=INFINITE, missing=MISSING)


def _representatives(parts, n):
    """Union-find representative of each sample and merge, by which scikit-learn numbers clusters.

    It unites by rank, a merge first with its left part and then with its right part: of two equal ranks the
    representative of the right part stays, and its rank rises by one.
    """
    representatives, ranks = list(range(n)), [0] * n
    for left, right in parts.tolist():
        a, b = max(ranks[left], 1), ranks[right]
        representatives.append(representatives[left if b < a else right])
        ranks.append(max(a, b) + (a == b))
    return representatives

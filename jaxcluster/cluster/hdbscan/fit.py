"""HDBSCAN: fit, minimum spanning tree in Prim's order, and single linkage.

The mutual reachability of two samples is the largest of their distance and their two core distances. HDBSCAN cuts the
single-linkage hierarchy of its minimum spanning tree: the condensed tree keeps splits into clusters of at least
``min_cluster_size`` samples, and cluster selection takes the most stable ones (excess of mass), or the leaves.

>>> import numpy as np
>>> from jaxcluster import hdbscan
>>> x = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2], [99.0]])
>>> hdbscan.fit(x, min_cluster_size=3, min_samples=2).labels.tolist()
[0, 0, 0, 1, 1, 1, -1]

Sources: R. Campello, D. Moulavi and J. Sander, Density-based clustering based on hierarchical density estimates, PAKDD
2013; L. McInnes and J. Healy, Accelerated hierarchical density based clustering, ICDMW 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.sharding import Mesh

from jaxcluster.cluster.hdbscan.row_input import check_finite, check_precomputed, finite_rows, scaled_space
from jaxcluster.cluster.hdbscan.tree import (
    EDGE_LINKAGE_METRICS,
    METHODS,
    HDBSCANState,
    apply_root_threshold,
    cluster_to_label,
    condense,
    root_lambda_threshold,
    select_clusters,
)
from jaxcluster.core import signals, validation
from jaxcluster.core.messages import warn
from jaxcluster.core.processes import gather_parts
from jaxcluster.core.shard import check_mesh
from jaxcluster.ops.metric_params import bind_metric_params
from jaxcluster.ops.neighbors.ring import nearest_rows_over
from jaxcluster.ops.spanning_tree import NEIGHBORS, Tree, minimum_spanning_tree
from jaxcluster.types import Fit, Status


@signals.stoppable()
def fit(
    x: Any,
    *,
    min_cluster_size: int = 5,
    min_samples: int | None = None,
    cluster_selection_method: str = "eom",
    cluster_selection_epsilon: float = 0.0,
    max_cluster_size: int | None = None,
    allow_single_cluster: bool = False,
    alpha: float = 1.0,
    metric: str | Callable = "euclidean",
    metric_params: Mapping[str, Any] | None = None,
    p: float = 2.0,
    mesh: Mesh | None = None,
) -> Fit:
    """Cluster samples by density, whatever the density of each cluster.

    The fit is deterministic and has no gradient. Of spanning tree edges with equal weights the order of the samples
    decides, as in scikit-learn.

    Args:
        x: (n_samples, n_features) concrete samples, also sparse for Euclidean and cosine distances; or (n_samples,
            n_samples) distances, dense or SciPy sparse, for the metric "precomputed": an infinite entry, or a missing
            one of a sparse matrix, is unknown. Samples with NaN or infinity take no part.
        min_cluster_size: smallest number of samples of a cluster, at least 2.
        min_samples: rank of the neighbor, with the sample itself as the first, whose distance is the core distance;
            None for ``min_cluster_size``.
        cluster_selection_method: "eom" for the most stable clusters, "leaf" for those that split no further.
        cluster_selection_epsilon: clusters are not split below this distance, in the units of the metric.
        max_cluster_size: largest number of samples of a cluster that "eom" selects; None for no bound.
        allow_single_cluster: True lets all samples be one cluster.
        alpha: divisor of distances, and of core distances as in scikit-learn, see `tree.EDGE_LINKAGE_METRICS`.
        metric, p: see `ops.metric_space.as_metric_space`; also "seuclidean", "mahalanobis" and SciPy's metrics of
            booleans, "dice", "rogerstanimoto", "russellrao" and "sokalsneath".
        metric_params: see `jaxcluster.ops.metric_params.bind_metric_params`.
        mesh: over whose devices concrete dense samples are spread for core distances, for metrics by matrix products:
            Euclidean, cosine and correlation; None for one device. Where they are those of several processes, ``x`` has
            the samples of this one, and so have the labels; the state is of the samples of all, in the order of the
            processes, and each needs memory for all of them.

    Returns:
        `Fit` with an `HDBSCANState`, labels (n_samples,) int32 with −1 for noise, −2 for infinite samples and −3 for
        samples with a missing value, steps (merges in the hierarchy), status CONVERGED, and an empty history.

    Raises:
        ValueError, TypeError: wrong shapes, values or names; no finite sample; NaN distances; traced samples; a sparse
            matrix of distances in which a sample has fewer than ``min_samples`` finite entries, or whose graph is not
            connected.

    Warns:
        UserWarning: a dense matrix of distances with these defects. Its components are linked at infinite distance.
    """
    check_sizes(min_cluster_size, min_samples, max_cluster_size)
    check_selection(cluster_selection_method, cluster_selection_epsilon, alpha)
    function, p = bind_metric_params(metric, metric_params, p)
    check_mesh(mesh, x)
    x, own = gather_parts(mesh, x)
    x, finite, labels = _check_input(x, metric)
    scaled = scaled_space(x, function, p)
    n, min_samples = scaled.space.n, min_cluster_size if min_samples is None else min_samples
    _check_rows(n, min_samples)
    by_edges = isinstance(metric, str) and metric in EDGE_LINKAGE_METRICS
    tree, core = _spanning_tree(scaled, min_samples, alpha, 1.0 if by_edges else alpha, mesh)
    unknown = metric == "precomputed" or callable(metric)
    _check_connected(tree.weights, core, x, unknown=unknown, min_samples=min_samples)
    merges = single_linkage(tree, prim_order=not by_edges)
    condensed = condense(merges, min_cluster_size)
    bounds = {"max_cluster_size": max_cluster_size, "allow_single_cluster": allow_single_cluster}
    selected = select_clusters(condensed, cluster_selection_method, epsilon=cluster_selection_epsilon, **bounds)
    threshold = root_lambda_threshold(condensed, selected, cluster_selection_epsilon)
    labels[finite] = _labels(condensed, selected, threshold)
    of_tree = (tree, merges, condensed, selected + n, labels, finite, core, threshold)
    of_metric = (x, metric, dict(metric_params or {}), float(p), float(alpha), min_samples)
    empty = jnp.zeros((0,), jnp.float32)
    state = HDBSCANState(*of_tree, *of_metric)
    return Fit(state, jax.device_put(labels[own]), jnp.int32(n - 1), jnp.int32(Status.CONVERGED), empty)


def _labels(condensed, selected, threshold):
    """Labels (n,) of the finite samples: of the selected cluster at or above the one that a sample falls out of."""
    clusters, lambdas = condensed.row_exits()
    label_of = cluster_to_label(condensed, selected)
    return apply_root_threshold(label_of[clusters], lambdas, selected, threshold)


def _check_input(x, metric):
    """Finite samples or distances, their numbers, and labels (N,) with those of the other samples in place."""
    if isinstance(metric, str) and metric == "precomputed":
        x = check_precomputed(x)
        return x, np.arange(x.shape[0]), np.zeros(x.shape[0], np.int32)
    rows = finite_rows(x)
    if not rows.x.shape[0]:
        check_finite(x)  # raises, and counts NaN and infinity
    return rows


def _spanning_tree(scaled, min_samples, alpha, core_alpha, mesh):
    """Minimum spanning tree in Prim's order, and core distances divided by ``core_alpha``."""
    space = scaled.space
    neighbors = nearest_rows_over(space, min(space.n, min_samples + NEIGHBORS), mesh)
    core = neighbors[1][:, min_samples - 1] / core_alpha
    # With all weights times alpha the tree is the same, and equal core distances stay equal: no division rounds them.
    lifted = neighbors[1][:, min_samples - 1] * (alpha / core_alpha)
    tree = reorder_as_prim(minimum_spanning_tree(space, lifted, neighbors=neighbors), lifted, neighbors)
    return Tree(tree.edges, scaled.distances(tree.weights / alpha)), scaled.distances(core)


def check_selection(method: str, epsilon: float, alpha: float) -> None:
    """Raise ValueError or TypeError for options of the cluster selection that are out of range."""
    validation.check_choice("cluster_selection_method", method, METHODS)
    validation.check_positive("cluster_selection_epsilon", epsilon, zero=True)
    validation.check_positive("alpha", alpha)


def check_sizes(min_cluster_size: int, min_samples: int | None, max_cluster_size: int | None) -> None:
    """Raise ValueError or TypeError for sizes of clusters or neighborhoods that are out of range."""
    if validation.check_count("min_cluster_size", min_cluster_size) < 2:
        raise ValueError(f"min_cluster_size={min_cluster_size} must be at least 2: one row has no density of its own.")
    for name, value in (("min_samples", min_samples), ("max_cluster_size", max_cluster_size)):
        if value is not None:
            validation.check_count(name, value)


def _check_rows(n, min_samples):
    if n == 1:
        raise ValueError("n_samples=1, but HDBSCAN needs at least 2 rows: one has no distance to any other.")
    if min_samples > n:
        raise ValueError(
            f"min_samples ({min_samples}) must be at most n_samples={n}: no row has more neighbors. Pass a "
            "smaller min_samples (by default it is min_cluster_size) or more rows."
        )


def _check_connected(weights, core, x, *, unknown, min_samples):
    """Raise for a sparse graph of distances that is not connected; warn for a dense one."""
    infinite = int(np.isinf(weights).sum())
    if not infinite:
        return
    edges = f"{infinite:,} of the {len(weights):,} edges of the spanning tree are infinite: "
    isolated = int(np.isinf(core).sum())
    if not unknown:
        message = "distances between rows leave the range of float64. Scale the columns."
    elif isolated:
        message = (
            f"There exists points with fewer than {min_samples} neighbors at a known distance, themselves among them: "
            f"{isolated:,}. Pass more distances, or a smaller min_samples."
        )
    else:
        message = (
            f"the matrix of distances falls into {infinite + 1:,} parts with no known distance between them. "
            "Pass more distances: HDBSCAN cannot be performed on a disconnected graph."
        )
    if scipy.sparse.issparse(x):
        raise ValueError(edges + message)
    warn(edges + message, UserWarning)


# --- single linkage


def single_linkage(tree: Tree, *, prim_order: bool = False) -> np.ndarray:
    """Single-linkage hierarchy of a spanning tree: its edges are merged in ascending order.

    The part that holds the source of an edge is on the left. The order of edges of equal weight is that of NumPy's
    sort, as in scikit-learn.

    Args:
        tree: over n samples, in Prim's order from sample 0: every edge leads from a reached sample to a new one.
        prim_order: True takes the sample reached just before for the source of an edge. The parts at every distance
            are the same; the left and right parts of equal edges differ.

    Returns:
        (n − 1, 4) float64 in the format of `scipy.cluster.hierarchy.linkage`: the two parts of each merge (below n a
        sample, from n on an earlier merge), their distance, and their number of samples together.
    """
    n = len(tree.weights) + 1
    rows = np.append(0, tree.edges[:, 1])
    places = np.empty(n, np.int64)
    places[rows] = np.arange(n)
    order = np.argsort(tree.weights)
    sources = order if prim_order else places[tree.edges[order, 0]]
    left, right, sizes = _merges(sources.tolist(), (order + 1).tolist())
    names = np.append(rows, np.arange(n, 2 * n - 1))
    return np.column_stack([names[left], names[right], tree.weights[order], sizes])


def _merges(sources, targets):
    """Left part, right part and size of each merge, by union-find with union by size and path halving.

    Nodes are positions in Prim's order, not sample numbers: merged sets then lie close together in memory.
    """
    # A sequential loop over Python lists is much faster than one over NumPy arrays.
    n = len(sources) + 1
    parent, names, sizes = list(range(n)), list(range(n)), [1] * n
    left, right, merged = [0] * (n - 1), [0] * (n - 1), [0] * (n - 1)
    for step in range(n - 1):
        a, b = sources[step], targets[step]
        while parent[a] != a:
            parent[a] = a = parent[parent[a]]
        while parent[b] != b:
            parent[b] = b = parent[parent[b]]
        # Named before the roots are swapped by size: the order of the two parts is scikit-learn's.
        left[step], right[step] = names[a], names[b]
        if sizes[a] < sizes[b]:
            a, b = b, a
        parent[b] = a
        sizes[a] = merged[step] = sizes[a] + sizes[b]
        names[a] = n + step
    return left, right, merged


# --- Prim's order


def reorder_as_prim(tree: Tree, core: np.ndarray, neighbors: tuple[np.ndarray, np.ndarray]) -> Tree:
    """Spanning tree of mutual reachability with its edges in Prim's order from sample 0.

    Many edges weigh the same, as mutual reachability often equals a core distance, and the order of their merges
    changes labels at the border of clusters. scikit-learn takes the order of Prim's algorithm, the first of equally
    near samples first; this finds the same order for any minimum spanning tree.

    Args:
        tree: over n samples. A tree in Prim's order is returned as it is.
        core: (n,) core distances of the tree.
        neighbors: (n, k) nearest samples of each sample and their distances, up to the core distance or beyond.

    Returns:
        The tree, in which each edge leads from a reached sample to a new one. An edge may be exchanged for another of
        the same weight, between a sample and a neighbor within its core distance.
    """
    if _is_prim_order(tree):
        return tree
    index, distances = neighbors
    near = (distances <= core[:, None]) & (core[index] <= core[:, None])
    heights, ranks = np.unique(tree.weights, return_inverse=True)
    core_ranks = np.searchsorted(heights, core)
    # Two samples that are the k-th neighbors of each other have the same core distance, and the tree may reach either
    # by the other alone. So all their edges are added.
    shared = (np.bincount(core_ranks) > 1)[core_ranks] & (heights[core_ranks] == core)
    row, column = np.nonzero(near & shared[:, None])
    edges = np.concatenate([tree.edges, np.column_stack([row, index[row, column]])])
    adjacent = _adjacent(edges, np.append(ranks, core_ranks[row]), len(core))
    alternatives = index[near], np.append(0, np.cumsum(near.sum(axis=1))).tolist()
    rows, sources, steps = _visit(*adjacent, core_ranks, *alternatives)
    rows, sources, weights = np.array(rows), np.array(sources), np.append(0, heights[steps])
    positions = np.empty(len(core), np.int64)
    positions[rows] = np.arange(len(core))
    # A sample reached at its core distance has several possible sources within it: Prim's is the one reached first.
    first = np.where(near, positions[index], len(core)).min(axis=1)
    earlier = (weights[positions] == core) & (first < positions[sources])
    sources[earlier] = rows[first[earlier]]
    return Tree(np.column_stack([sources[rows[1:]], rows[1:]]).astype(np.int32), weights[1:])


def _is_prim_order(tree):
    """True if every edge leads from a reached sample to a new one, the first from sample 0."""
    n = len(tree.weights) + 1
    positions = np.zeros(n, np.int64)
    positions[tree.edges[:, 1]] = np.arange(1, n)
    reached = np.bincount(tree.edges[:, 1], minlength=n)
    return reached[0] == 0 and (reached[1:] == 1).all() and (positions[tree.edges[:, 0]] < np.arange(1, n)).all()


def _adjacent(edges, ranks, n):
    """Adjacency lists: offsets of each sample, edges as integers, rank of the weight · 2^bits + other end, and bits."""
    # The least of such integers is the lightest edge, and of equal ones that to the first sample: Prim's choice.
    bits = n.bit_length()
    here, there = edges.T.ravel(), edges[:, ::-1].T.ravel().astype(np.int64)
    order = np.argsort(here, kind="stable")
    starts = np.append(0, np.cumsum(np.bincount(here, minlength=n)))
    return starts.tolist(), ((np.tile(ranks, 2) << bits) | there)[order].tolist(), bits


def _visit(starts, edges, bits, core_ranks, alternatives, firsts):
    """Prim's algorithm on the tree: samples in the order reached, source of each, rank of the weight of each step.

    If an edge weighs as much as the core distance of the sample it leaves, so do the edges to all samples within that
    distance. Each may be taken in its place, and the one to the first sample is.
    """
    n, mask = len(core_ranks), (1 << bits) - 1
    best, sources, lows = [n << bits] * n, [0] * n, (core_ranks << bits).tolist()
    rows, steps, heap = [], [], []
    row = 0
    while True:
        rows.append(row)
        best[row] = -1
        reach, tied = lows[row] + mask, False
        for edge in edges[starts[row] : starts[row + 1]]:
            other = edge & mask
            current = best[other]
            if current >= 0:
                tied |= edge < reach
                if edge < current:
                    best[other], sources[other] = edge, row
                    heappush(heap, edge)
        if tied:
            for other in alternatives[firsts[row] : firsts[row + 1]].tolist():
                edge = lows[row] + other
                if edge < best[other]:
                    best[other], sources[other] = edge, row
                    heappush(heap, edge)
        while heap:
            edge = heappop(heap)
            row = edge & mask
            # An entry that is not the best of its row any more was replaced by a lighter one: it is dropped here, as a
            # heap cannot lower a key.
            if best[row] == edge:
                break
        else:
            return rows, sources, steps
        steps.append(edge >> bits)

"""HDBSCAN: clusters of every density, the stable parts of the hierarchy that single linkage of dense rows makes.

Rows are joined by the shortest edges of mutual reachability, which is the distance of two rows, but no less than what
either needs to have enough rows around it. Parts that are too small are rows that fall out of a larger part, and of
what remains those parts are the clusters that stay longest as the density they must have rises.

Sources: R. Campello, D. Moulavi and J. Sander, Density-based clustering based on hierarchical density estimates, PAKDD
2013; L. McInnes and J. Healy, Accelerated hierarchical density based clustering, ICDMW 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxcluster.cluster.hdbscan.condense import condense
from jaxcluster.cluster.hdbscan.linkage import single_linkage
from jaxcluster.cluster.hdbscan.metric import measure_rows
from jaxcluster.cluster.hdbscan.rows import finite_rows, known_distances
from jaxcluster.cluster.hdbscan.select import METHODS, select
from jaxcluster.cluster.hdbscan.state import BY_EDGES, HDBSCANState, least_level, owners, settle
from jaxcluster.cluster.hdbscan.walk import grow
from jaxcluster.core import check
from jaxcluster.core.caution import warn
from jaxcluster.ops.metric_space import bind_metric_params
from jaxcluster.ops.neighbors.exact_knn import nearest_rows
from jaxcluster.ops.spanning_tree import NEIGHBORS, Tree, minimum_spanning_tree
from jaxcluster.types import Fit, Status


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
) -> Fit:
    """Clusters rows by density, whatever the density of each cluster.

    There is no chance in it, and no gradient. Where several edges of the spanning tree weigh the same, the order of
    the rows decides, as it does in scikit-learn.

    Args:
        x: (N, d) concrete rows, or (N, N) distances, dense or SciPy sparse, where the metric is "precomputed": what is
            infinite or left out of a sparse matrix is not known. Rows that hold NaN or infinity are left out.
        min_cluster_size: rows of a cluster at least, 2 or more.
        min_samples: the core distance of a row is that to the nearest row of this number, counting itself; None for
            ``min_cluster_size``.
        cluster_selection_method: "eom" takes the most stable clusters, "leaf" those that split no further.
        cluster_selection_epsilon: clusters are not split below this distance, in the units of the metric.
        max_cluster_size: rows of a cluster at most, where "eom" can choose; None for any number.
        allow_single_cluster: whether all rows may be one cluster.
        alpha: distances are divided by it, and core distances are where scikit-learn does so, see `state.BY_EDGES`.
        metric, p: see `ops.metric_space.as_metric_space`; also "seuclidean", "mahalanobis" and SciPy's metrics
            of booleans, "dice", "rogerstanimoto", "russellrao" and "sokalsneath".
        metric_params: see `jaxcluster.ops.metric_space.bind_metric_params`.

    Returns:
        `Fit` with an `HDBSCANState`, labels (N,) int32 with −1 for noise, −2 for infinite rows and −3 for rows with a
        missing value, steps (merges in the hierarchy), status CONVERGED, and an empty history.

    Raises:
        ValueError, TypeError: wrong shapes, values or names; no finite row; distances that are NaN; rows that are
            traced; a sparse matrix of distances in which some row has fewer than ``min_samples`` others near it, or of
            parts with none between.

    Warns:
        UserWarning: a dense matrix of distances, for the same reason. Such parts are joined at an infinite distance.
    """
    check_sizes(min_cluster_size, min_samples, max_cluster_size)
    check_selection(cluster_selection_method, cluster_selection_epsilon, alpha)
    function, p = bind_metric_params(metric, metric_params, p)
    x, finite, outliers = _rows(x, metric)
    measured = measure_rows(x, function, p)
    space = measured.space
    min_samples = min_cluster_size if min_samples is None else min_samples
    _check_rows(space.n, min_samples)
    by_edges = isinstance(metric, str) and metric in BY_EDGES
    tree, core = _tree(measured, min_samples, alpha, 1.0 if by_edges else alpha)
    _check_reached(tree.weights, core, x, known=metric == "precomputed" or callable(metric), min_samples=min_samples)
    merges = single_linkage(tree, in_turn=not by_edges)
    condensed = condense(merges, min_cluster_size)
    selected = select(
        condensed,
        cluster_selection_method,
        epsilon=cluster_selection_epsilon,
        max_cluster_size=max_cluster_size,
        allow_single_cluster=allow_single_cluster,
    )
    least = least_level(condensed, selected, cluster_selection_epsilon)
    clusters, levels = condensed.exits()
    labels = outliers
    labels[finite] = settle(owners(condensed, selected)[clusters], levels, selected, least)
    state = HDBSCANState(
        tree=tree,
        merges=merges,
        condensed=condensed,
        selected=selected + space.n,
        labels=labels,
        finite=finite,
        core=core,
        least=least,
        x=x,
        metric=metric,
        params=dict(metric_params or {}),
        p=float(p),
        alpha=float(alpha),
        min_samples=min_samples,
    )
    empty = jnp.zeros((0,), jnp.float32)
    return Fit(state, jax.device_put(labels), jnp.int32(space.n - 1), jnp.int32(Status.CONVERGED), empty)


def _rows(x, metric):
    """The rows or distances to cluster, which of all rows they are, and labels with those of the others in place."""
    if isinstance(metric, str) and metric == "precomputed":
        x = known_distances(x)
        return x, np.arange(x.shape[0]), np.zeros(x.shape[0], np.int32)
    rows = finite_rows(x)
    if not len(rows.x):
        check.check_finite(check.check_matrix(x))  # says what is in its place
    return rows


def _tree(measured, min_samples, alpha, core_alpha):
    """The spanning tree, as it grows from row 0, and the core distances, which are ``core_alpha`` times smaller."""
    space = measured.space
    neighbors = nearest_rows(space, min(space.n, min_samples + NEIGHBORS))
    core = neighbors[1][:, min_samples - 1] / core_alpha
    # All is multiplied by alpha: the tree is the same, and core distances that are equal stay so.
    lifted = neighbors[1][:, min_samples - 1] * (alpha / core_alpha)
    tree = grow(minimum_spanning_tree(space, lifted, neighbors=neighbors), lifted, neighbors)
    return Tree(tree.edges, measured.distances(tree.weights / alpha)), measured.distances(core)


def check_selection(method: str, epsilon: float, alpha: float) -> None:
    """Raises ValueError or TypeError on what clusters cannot be chosen by."""
    check.check_choice("cluster_selection_method", method, METHODS)
    check.check_positive("cluster_selection_epsilon", epsilon, zero=True)
    check.check_positive("alpha", alpha)


def check_sizes(min_cluster_size: int, min_samples: int | None, max_cluster_size: int | None) -> None:
    """Raises ValueError or TypeError on what no sizes of clusters and neighborhoods are."""
    if check.check_count("min_cluster_size", min_cluster_size) < 2:
        raise ValueError(f"min_cluster_size={min_cluster_size} must be at least 2: one row has no density of its own.")
    for name, value in (("min_samples", min_samples), ("max_cluster_size", max_cluster_size)):
        if value is not None:
            check.check_count(name, value)


def _check_rows(n, min_samples):
    if n == 1:
        raise ValueError("n_samples=1, but HDBSCAN needs at least 2 rows: one has no distance to any other.")
    if min_samples > n:
        raise ValueError(
            f"min_samples ({min_samples}) must be at most n_samples={n}: no row has that many around it. Pass a "
            "smaller min_samples (by default it is min_cluster_size) or more rows."
        )


def _check_reached(weights, core, x, *, known, min_samples):
    """Tells of rows that no path of known distances leads to."""
    far = int(np.isinf(weights).sum())
    if not far:
        return
    edges = f"{far:,} of the {len(weights):,} edges of the spanning tree are infinite: "
    lone = int(np.isinf(core).sum())
    if not known:
        message = "distances between rows leave the range of float64. Scale the columns."
    elif lone:
        message = (
            f"There exists points with fewer than {min_samples} neighbors at a known distance, themselves among them: "
            f"{lone:,}. Pass more distances, or a smaller min_samples."
        )
    else:
        message = (
            f"the matrix of distances falls into {far + 1:,} parts with no known distance between them. "
            "Pass more distances: HDBSCAN cannot be performed on a disconnected graph."
        )
    if scipy.sparse.issparse(x):
        raise ValueError(edges + message)
    warn(edges + message, UserWarning)

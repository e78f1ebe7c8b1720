"""HDBSCAN: clusters of every density, the stable parts of the hierarchy that single linkage of dense rows makes.

Rows are joined by the shortest edges of mutual reachability, which is the distance of two rows, but no less than what
either needs to have enough rows around it. Parts that are too small are rows that fall out of a larger part, and of
what remains those parts are the clusters that stay longest as the density they must have rises.

Sources: R. Campello, D. Moulavi and J. Sander, Density-based clustering based on hierarchical density estimates, PAKDD
2013; L. McInnes and J. Healy, Accelerated hierarchical density based clustering, ICDMW 2017.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxcluster.cluster.hdbscan.condense import condense
from jaxcluster.cluster.hdbscan.linkage import single_linkage
from jaxcluster.cluster.hdbscan.select import METHODS, select
from jaxcluster.cluster.hdbscan.state import HDBSCANState, least_level, owners, settle
from jaxcluster.cluster.hdbscan.walk import grow
from jaxcluster.core import check
from jaxcluster.ops.neighbors import nearest_rows
from jaxcluster.ops.pairwise import measure
from jaxcluster.ops.spanning_tree import NEIGHBORS, Tree, minimum_spanning_tree
from jaxcluster.types import Fit, Status

BY_EDGES = ("euclidean", "manhattan", "minkowski")
"""Metrics for which scikit-learn joins the ends of the edges; for others it joins rows in the order it reaches them."""


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
    p: float = 2.0,
) -> Fit:
    """Clusters rows by density, whatever the density of each cluster.

    There is no chance in it, and no gradient. Where several edges of the spanning tree weigh the same, the order of
    the rows decides, as it does in scikit-learn.

    Args:
        x: (n, d) finite concrete rows, or (n, n) distances, dense or SciPy sparse, where the metric is "precomputed":
            what is infinite or left out of a sparse matrix is not known.
        min_cluster_size: rows of a cluster at least, 2 or more.
        min_samples: the core distance of a row is that to the nearest row of this number, counting itself; None for
            ``min_cluster_size``.
        cluster_selection_method: "eom" takes the most stable clusters, "leaf" those that split no further.
        cluster_selection_epsilon: clusters are not split below this distance, in the units of the metric.
        max_cluster_size: rows of a cluster at most, where "eom" can choose; None for any number.
        allow_single_cluster: whether all rows may be one cluster.
        alpha: distances, but not core distances, are divided by it.
        metric, p: see `jaxcluster.ops.pairwise.measure`.

    Returns:
        `Fit` with an `HDBSCANState`, labels (n,) int32 with −1 for noise, steps (merges in the hierarchy), status
        CONVERGED, and an empty history.

    Raises:
        ValueError, TypeError: wrong shapes, values or names, NaN or infinity; rows that are traced; a sparse matrix of
            distances in which some row has fewer than ``min_samples`` others near it, or of parts with none between.

    Warns:
        UserWarning: a dense matrix of distances, for the same reason. Such parts are joined at an infinite distance.
    """
    _check_sizes(min_cluster_size, min_samples, max_cluster_size)
    check.check_choice("cluster_selection_method", cluster_selection_method, METHODS)
    check.check_positive("cluster_selection_epsilon", cluster_selection_epsilon, zero=True)
    check.check_positive("alpha", alpha)
    space = measure(x, metric, p=p)
    min_samples = min_cluster_size if min_samples is None else min_samples
    _check_rows(space.n, min_samples)
    tree, core = _tree(space, min_samples, alpha)
    _check_reached(tree.weights, x)
    merges = single_linkage(tree, in_turn=metric not in BY_EDGES)
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
    labels = settle(owners(condensed, selected)[clusters], levels, selected, least).astype(np.int32)
    state = HDBSCANState(
        tree=tree,
        merges=merges,
        condensed=condensed,
        selected=selected + space.n,
        labels=labels,
        core=core,
        least=least,
        x=x if scipy.sparse.issparse(x) else np.asarray(x),
        metric=metric,
        p=float(p),
        alpha=float(alpha),
        min_samples=min_samples,
    )
    empty = jnp.zeros((0,), jnp.float32)
    return Fit(state, jax.device_put(labels), jnp.int32(space.n - 1), jnp.int32(Status.CONVERGED), empty)


def _tree(space, min_samples, alpha):
    """The spanning tree, as it grows from row 0, and the core distances."""
    neighbors = nearest_rows(space, min(space.n, min_samples + NEIGHBORS))
    core = neighbors[1][:, min_samples - 1].copy()
    # All is multiplied by alpha: the tree is the same, and core distances that are equal stay so.
    tree = minimum_spanning_tree(space, core * alpha, neighbors=neighbors)
    tree = grow(tree, core * alpha, neighbors)
    return Tree(tree.edges, tree.weights / alpha), core


def _check_sizes(min_cluster_size, min_samples, max_cluster_size):
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
            f"min_samples={min_samples} must be at most n_samples={n}: no row has that many around it. Pass a smaller "
            "min_samples (by default it is min_cluster_size) or more rows."
        )


def _check_reached(weights, x):
    """Tells of rows that no path of known distances leads to."""
    far = int(np.isinf(weights).sum())
    if not far:
        return
    message = (
        f"{far:,} of the {len(weights):,} edges of the spanning tree are infinite: the matrix of distances falls into "
        f"{far + 1:,} parts with no known distance between them, or has rows with fewer than min_samples known ones. "
        "Pass more distances, or a smaller min_samples."
    )
    if scipy.sparse.issparse(x):
        raise ValueError(message)
    warnings.warn(message, UserWarning, stacklevel=3)

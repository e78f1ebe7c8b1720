"""What a report can show of how a method came to its clusters, from what the estimator published."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse

from jaxcluster.report import Structure

CURVE_ROWS = 5_000
"""Rows whose distances make the curve by which a radius is chosen."""

SPECTRUM_ROWS = 5_000
"""Up to so many rows the eigenvalues beyond the chosen number of clusters are computed too, to show the gap: that
takes all weights at once."""

FURTHER = 6
"""How many of them."""


def structure_of(estimator: Any, x: np.ndarray, weights: np.ndarray | None) -> Structure | None:
    """The medoids, orders, trees and graphs of an estimator fitted to ``x``; None where it has none of them."""
    found: dict[str, Any] = {}
    if hasattr(estimator, "ordering_"):
        by_radius = estimator.cluster_method == "dbscan" and estimator.eps is not None
        found |= {"reachability": estimator.reachability_, "ordering": estimator.ordering_}
        found |= {"eps": estimator.eps} if by_radius else {}
    elif hasattr(estimator, "core_sample_indices_") and weights is None:
        found |= _neighbor_distances(estimator, x)
    if hasattr(estimator, "medoid_indices_"):
        found |= {"medoids": estimator.medoid_indices_}
    if hasattr(estimator, "condensed_tree_"):
        found |= _trees(estimator)
    if hasattr(estimator, "eigenvalues_"):
        found |= _spectrum(estimator)
    return Structure(**found) if found else None


def _neighbor_distances(estimator: Any, x: np.ndarray) -> dict[str, Any]:
    """Of some rows the distance to the neighbor that makes them core rows."""
    from jaxcluster.ops.metric_space import MetricSpace, as_metric_space, rescale_space
    from jaxcluster.ops.neighbors.exact_knn import nearest_rows
    from jaxcluster.plots.style import sample_indices

    nearest = math.ceil(estimator.min_samples)
    if nearest > len(x):
        return {}
    metric, p = estimator._resolve_metric()
    space, exponent = rescale_space(as_metric_space(x, metric, p=p))
    rows = sample_indices(len(x), CURVE_ROWS)
    if isinstance(space, MetricSpace):
        distances = nearest_rows(space, nearest, queries=space.x[rows])[1][:, -1]
    else:
        distances = nearest_rows(space, nearest)[1][rows, -1]
    distances = np.ldexp(distances, -exponent)
    return {"neighbor_distances": distances, "min_samples": nearest, "eps": estimator.eps}


def _trees(estimator: Any) -> dict[str, Any]:
    """The condensed tree and, where any cluster in it splits, the hierarchy of parts as large as clusters must be."""
    tree, merges = estimator.condensed_tree_, estimator.single_linkage_tree_
    splits = bool((np.asarray(tree.child_size) > 1).any())
    hierarchy = {"merges": merges, "least_branch": estimator.min_cluster_size} if splits else {}
    return {"condensed_tree": tree, **hierarchy}


def _spectrum(estimator: Any) -> dict[str, Any]:
    """The least eigenvalues, a few more than there are clusters, and the graph where it is sparse."""
    import jax

    from jaxcluster import spectral

    n = len(estimator.labels_)
    if n > SPECTRUM_ROWS:
        return {"eigenvalues": estimator.eigenvalues_}
    weights = estimator.affinity_matrix_
    wanted = min(n, len(estimator.eigenvalues_) + FURTHER)
    embedding = spectral.embed(jax.random.key(0), weights, wanted, affinity="precomputed")
    graph = {"graph": weights} if scipy.sparse.issparse(weights) else {}
    return {"eigenvalues": np.asarray(embedding.eigenvalues), **graph}

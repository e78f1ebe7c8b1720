"""Inference with a fitted HDBSCAN: query distances, labels of new samples, memberships, outlier scores and centers.

The definitions are those of the package hdbscan; λ = 1 / distance is the density at which a sample leaves its cluster.

Sources: R. Campello, D. Moulavi, A. Zimek and J. Sander, Hierarchical density estimates for data clustering,
visualization, and outlier detection, ACM TKDD 10 (2015), for the outlier scores (GLOSH); L. McInnes, J. Healy and
S. Astels, hdbscan: Hierarchical density based clustering, JOSS 2 (2017), for predictions and memberships.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from jaxcluster.cluster.hdbscan.row_input import ScaledSpace, finite_rows, scaled_space
from jaxcluster.cluster.hdbscan.tree import MISSING, CondensedTree, HDBSCANState, apply_root_threshold, cluster_to_label
from jaxcluster.core import validation
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.ops.metric_space import (
    MetricSpace,
    as_metric_space,
    checked_distances,
    concrete_rows,
    float64_tables,
    host_distance,
    tiles,
)
from jaxcluster.ops.neighbors.exact_knn import nearest_rows
from jaxcluster.types import Absent

DENSITY_EPS = 1e-8
"""Added to densities in denominators, relative to the greatest finite λ at which a cluster ends."""


class QueryDistances(NamedTuple):
    """Distances from m query samples to the n samples of a fit, by a common metric space or a function.

    Attributes:
        m: number of queries.
        fitted: samples of the fit in their metric space; None without coordinates.
        queries: (m, d) queries in that space.
        distances: (t,) query numbers -> (t, n) float64 distances, without a space.
    """

    m: int
    fitted: ScaledSpace | None
    queries: np.ndarray | Absent
    distances: Callable[[np.ndarray], np.ndarray] | Absent

    def least(self, groups: list[np.ndarray]) -> np.ndarray:
        """(m, k) distances of the queries to the nearest of each of k groups of fitted samples."""
        if self.fitted is not None and isinstance(space := self.fitted.space, MetricSpace):
            parts = [space._replace(x=space.x[group]) for group in groups]
            nearest = [nearest_rows(part, 1, queries=self.queries)[1] for part in parts]
            return self.fitted.distances(np.column_stack(nearest))
        return self.by_tiles(lambda tile: np.column_stack([tile[:, group].min(axis=1) for group in groups]))

    def by_tiles(self, work: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Apply ``work`` to (t, n) distances of all m queries, a tile at a time, and concatenate the results."""
        n = self.distances(np.arange(1)).shape[1]
        return np.concatenate([work(self.distances(index)) for index in tiles(self.m, n)])


def query_distances(state: HDBSCANState, x: Any = None) -> QueryDistances:
    """Distances from new samples, or from the fitted ones without ``x``, to the samples of a fit.

    Args:
        state: of a fit on n samples.
        x: (m, d) samples, or (m, n) distances for the metric "precomputed".

    Raises:
        ValueError, TypeError: samples of another width, or that are not finite; distances that are NaN or negative.
    """
    metric, p = state.function, state.p
    if metric == "precomputed" and x is not None:
        return _precomputed_queries(x, len(state.core))
    old = state.x
    if x is not None and (is_sparse(x) or is_sparse(old)):
        n = old.shape[0]
        validation.check_width(x, old.shape[1])
        both = scipy.sparse.vstack([scipy.sparse.csr_array(each) for each in (old, x)])
        rows = as_metric_space(both, metric, p=p).rows
        return QueryDistances(x.shape[0], None, None, lambda index: rows(n + index)[:, :n])
    if x is not None:
        x = concrete_rows(x)
        validation.check_width(x, old.shape[1])
        old, x = float64_tables(metric, old, x)
    own = scaled_space(old, metric, p)
    if x is None:
        if isinstance(own.space, MetricSpace):
            return QueryDistances(own.space.n, own, own.space.x, None)
        return QueryDistances(own.space.n, None, None, own.space.rows)
    if isinstance(own.space, MetricSpace):
        # New samples in the unit of the fitted ones: distances between the two need one unit.
        others = scaled_space(x, metric, p, exponent=own.exponent)
        if isinstance(others.space, MetricSpace):
            return QueryDistances(len(x), own, others.space.x, None)
    function = host_distance(metric, old, p=p)
    return QueryDistances(len(x), None, None, lambda index: checked_distances(function, x[index], old, index))


def nearest_reachable(state: HDBSCANState, queries: QueryDistances) -> tuple[np.ndarray, np.ndarray]:
    """Nearest fitted sample of each query by mutual reachability; of several that with the least distance.

    The core distance of a query is the distance to its ``min_samples``-th nearest fitted sample: a copy of a sample has
    the core distance of that sample.

    Returns:
        (m,) int64 numbers of the samples, and (m,) mutual reachabilities.
    """
    if queries.fitted is None:
        pairs = queries.by_tiles(lambda tile: np.column_stack(_nearest_of_tile(state, tile)))
        return pairs[:, 0].astype(np.int64), pairs[:, 1]
    n, remaining = len(state.core), np.arange(queries.m)
    neighbors, reach = np.empty(queries.m, np.int64), np.empty(queries.m)
    # Few neighbors first, and four times as many for the queries that these do not decide.
    k = min(n, 2 * state.min_samples)
    while len(remaining):
        farther = []
        for some in (remaining[part] for part in tiles(len(remaining), k)):
            index, distances = nearest_rows(queries.fitted.space, k, queries=queries.queries[some])
            distances = queries.fitted.distances(distances)
            core = distances[:, state.min_samples - 1, None] / state.core_alpha
            mutual = np.maximum(np.maximum(distances / state.alpha, core), state.core[index])
            best = mutual.argmin(axis=1)[:, None]
            neighbors[some] = np.take_along_axis(index, best, axis=1)[:, 0]
            reach[some] = np.take_along_axis(mutual, best, axis=1)[:, 0]
            # Any other sample is at least distances[:, -1] away. With a smaller core distance it could be the nearest.
            farther.append(some[(reach[some] > distances[:, -1] / state.alpha) & (k < n)])
        remaining, k = np.concatenate(farther), min(n, 4 * k)
    return neighbors, reach


def _nearest_of_tile(state, distances):
    core = np.partition(distances, state.min_samples - 1, axis=1)[:, state.min_samples - 1, None] / state.core_alpha
    mutual = np.maximum(np.maximum(distances / state.alpha, core), state.core)
    reach = mutual.min(axis=1)
    return np.where(mutual == reach[:, None], distances, np.inf).argmin(axis=1), reach


def _precomputed_queries(distances, n):
    distances = np.asarray(validation.check_matrix(distances))
    if distances.shape[1] != n:
        raise ValueError(
            f"x has shape {distances.shape}, but metric='precomputed' needs the distances of each new row to all {n} "
            f"rows of the fit: (m, {n})."
        )
    if np.isnan(distances).any() or (distances < 0).any():
        raise ValueError("x has distances that are NaN or negative. Pass infinity for an unknown distance.")
    return QueryDistances(len(distances), None, None, lambda index: distances[index].astype(np.float64))


# --- labels of new samples


def approximate_predict(state: HDBSCANState, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Labels and strengths of new samples, without a change of the hierarchy.

    A sample belongs where its nearest fitted sample by mutual reachability is: in the cluster of that one if they are
    linked before it falls out, else in the first ancestor that is born earlier. Unlike in the package hdbscan no fitted
    sample is excluded as too far.

    Args:
        state: of a fit on n samples.
        x: (n_queries, n_features) samples, or (n_queries, n_samples) distances to the samples of the fit for the metric
            "precomputed".

    Returns:
        (n_queries,) int32 labels and (n_queries,) float64 strengths in [0, 1] as in `probabilities`. Samples with NaN
        or infinity are labeled as in the fit.

    Raises:
        ValueError, TypeError: samples of another width; distances that are NaN or negative.
    """
    if isinstance(state.metric, str) and state.metric == "precomputed":
        return _predict_finite(state, x)
    rows = finite_rows(x)
    validation.check_width(rows.x, state.x.shape[1])
    labels, strengths = rows.labels, np.where(rows.labels == MISSING, np.nan, 0)
    if len(rows.index):
        labels[rows.index], strengths[rows.index] = _predict_finite(state, rows.x)
    return labels, strengths


def _predict_finite(state, x):
    tree, selected = state.condensed, state.selected - state.condensed.n
    neighbors, reach = nearest_reachable(state, query_distances(state, x))
    with np.errstate(divide="ignore", over="ignore"):  # λ of a distance of 0, or of a subnormal one, is infinite
        lambdas = 1 / reach
    clusters, exits = (values[neighbors] for values in tree.row_exits())
    parents, births = tree.parents_and_births()
    ascending = exits > lambdas
    while ascending.any():
        ascending &= (clusters > 0) & (births[clusters] >= lambdas)
        clusters = np.where(ascending, parents[clusters], clusters)
    labels = cluster_to_label(tree, selected)[clusters]
    labels = apply_root_threshold(labels, np.minimum(lambdas, exits), selected, state.root_threshold)
    strengths = np.zeros(len(labels))
    inside = labels >= 0
    strengths[inside] = _relative(lambdas[inside], tree.cluster_deaths()[selected[labels[inside]]])
    return labels.astype(np.int32), strengths


# --- strengths, outlier scores and memberships


def probabilities(state: HDBSCANState) -> np.ndarray:
    """(n_samples,) float64 strengths in [0, 1]: λ at which each sample leaves, relative to the death of its cluster.

    0 for noise and infinite samples, NaN for samples with a missing value, as in scikit-learn.
    """
    tree, labels = state.condensed, state.labels[state.finite]
    _, lambdas = tree.row_exits()
    strengths = np.zeros(tree.n)
    inside = labels >= 0
    deaths = tree.cluster_deaths()[state.selected - tree.n]
    strengths[inside] = _relative(lambdas[inside], deaths[labels[inside]])
    return state.of_all(strengths, infinite=0.0, missing=np.nan)


def _relative(lambdas: np.ndarray, deaths: np.ndarray) -> np.ndarray:
    """λ relative to the deaths of clusters, at most 1; 1 for an infinite λ, or a death of 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((deaths == 0) | np.isinf(lambdas), 1.0, np.minimum(lambdas, deaths) / deaths)


def outlier_scores(state: HDBSCANState) -> np.ndarray:
    """GLOSH outlier scores: (n_samples,) float64 in [0, 1], greater for samples that leave early.

    The score is 1 − λ of the sample / the greatest λ in its cluster and all below it. Enough copies never leave, and
    score 0. An infinite sample scores 1, one with a missing value NaN.

    Source: Campello et al. 2015.
    """
    clusters, lambdas = state.condensed.row_exits()
    scores = 1 - _relative(lambdas, _subtree_deaths(state.condensed)[clusters])
    return state.of_all(scores, infinite=1.0, missing=np.nan)


def _subtree_deaths(tree: CondensedTree) -> np.ndarray:
    """(c,) greatest λ at which a sample leaves each cluster or one below it."""
    deaths = tree.cluster_deaths().tolist()
    parents = tree.parents_and_births()[0].tolist()
    for cluster in range(len(parents) - 1, 0, -1):
        deaths[parents[cluster]] = max(deaths[parents[cluster]], deaths[cluster])
    return np.array(deaths)


def membership_vectors(state: HDBSCANState, x: Any = None) -> np.ndarray:
    """Soft clustering: probability of each cluster for each sample; the rest to 1 is the probability of noise.

    It combines the distance to the exemplars of each cluster, the outlier score within each cluster, and the
    probability to be in any cluster. As in the package hdbscan these are weighted otherwise for new samples.

    Args:
        state: of a fit with k clusters.
        x: (n_queries, n_features) samples, or (n_queries, n_samples) distances to the samples of the fit for the metric
            "precomputed". None for the samples of the fit.

    Returns:
        (n_queries, k) or (n_samples, k) float64; 0 for samples with NaN or infinity.

    Raises:
        ValueError, TypeError: samples of another width; distances that are NaN or negative.
    """
    if x is None:
        return state.of_all(_memberships(state, None), infinite=0.0, missing=0.0)
    if isinstance(state.metric, str) and state.metric == "precomputed":
        return _memberships(state, x)
    rows = finite_rows(x)
    validation.check_width(rows.x, state.x.shape[1])
    vectors = np.zeros((len(rows.labels), len(state.selected)))
    if len(rows.index):
        vectors[rows.index] = _memberships(state, rows.x)
    return vectors


def _memberships(state, x):
    tree, selected = state.condensed, state.selected - state.condensed.n
    clusters, lambdas = tree.row_exits()
    deaths = tree.cluster_deaths()
    eps = DENSITY_EPS * deaths[np.isfinite(deaths)].max(initial=0.0)
    queries = query_distances(state, x)
    if x is not None:
        neighbors, reach = nearest_reachable(state, queries)
        with np.errstate(divide="ignore"):
            lambdas = np.minimum(lambdas[neighbors], 1 / reach)
        clusters = clusters[neighbors]
    if len(selected) == 0:
        return np.zeros((len(clusters), 0))
    near = _inverse_distance_weights(queries.least(_exemplars(state)))
    heights = _merge_lambdas(tree, selected)[clusters]
    heights = np.where(np.isnan(heights), lambdas[:, None], heights)
    nearest, own = deaths[selected[heights.argmax(axis=1)]], deaths[clusters][:, None]
    if x is None:
        scores = np.exp(-_ratio(own + eps, heights))
        # The package subtracts the maximum of all samples here, and of each sample below.
        odds = near * _normalize_rows(np.exp(scores - scores.max()))
        inside = _ratio(heights.max(axis=1), np.maximum(nearest, lambdas))
    else:
        with np.errstate(invalid="ignore"):
            margin = own - heights
        scores = _ratio(own, np.where(margin > 0, margin, eps))
        odds = np.sqrt(near) * _normalize_rows(np.exp(scores - scores.max(axis=1, keepdims=True))) ** 2
        inside = _ratio(heights.max(axis=1), np.maximum(nearest, lambdas) + eps)
    return _normalize_rows(odds) * inside[:, None]


def _exemplars(state):
    """Exemplars of each selected cluster: the samples with the greatest λ in each leaf below it."""
    tree = state.condensed
    clusters, lambdas = tree.row_exits()
    labels = cluster_to_label(tree, state.selected - tree.n)[clusters]
    leaf = np.ones(tree.clusters, bool)
    leaf[tree.parent[tree.child >= tree.n] - tree.n] = False
    exemplar = leaf[clusters] & (lambdas == tree.cluster_deaths()[clusters])
    return [np.flatnonzero(exemplar & (labels == label)) for label in range(len(state.selected))]


def _inverse_distance_weights(distances):
    """1 / distance, normalized over clusters; equal weights for those at a distance of 0, and 0 for the others."""
    with np.errstate(divide="ignore"):
        inverse = 1 / distances
    coincident = np.isinf(inverse)
    return _normalize_rows(np.where(coincident.any(axis=1, keepdims=True), coincident, inverse))


def _merge_lambdas(tree, selected):
    """(c, k) λ at which each cluster and each selected one split; NaN if one is an ancestor of the other."""
    parents, births = tree.parents_and_births()
    above = np.zeros((tree.clusters, len(selected)), bool)
    above[selected, np.arange(len(selected))] = True
    inside = above.copy()
    # Children have higher numbers than their parents: one pass backwards marks all ancestors.
    for cluster in range(tree.clusters - 1, 0, -1):
        above[parents[cluster]] |= above[cluster]
    heights = np.full(above.shape, np.nan)
    for cluster in range(1, tree.clusters):
        parent = parents[cluster]
        inside[cluster] |= inside[parent]
        split = np.where(np.isnan(heights[parent]), births[cluster], heights[parent])
        heights[cluster] = np.where(above[cluster] | inside[cluster], np.nan, split)
    return heights


def _ratio(a, b):
    """a / b of densities: 1 if both are infinite, 0 for a = 0, and at most the largest float64."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratio = np.minimum(a / b, np.finfo(float).max)
    return np.where(a == 0, 0.0, np.where(np.isinf(a) & np.isinf(b), 1.0, ratio))


def _normalize_rows(values):
    """Rows of values divided by their sums; rows of zeros stay zero."""
    sums = values.sum(axis=1, keepdims=True)
    return values / np.where(sums > 0, sums, 1)


# --- centers


def centroids(state: HDBSCANState) -> np.ndarray:
    """(k, n_features) float64 means of the samples of each cluster, weighted by their probabilities.

    Raises:
        ValueError: a fit of precomputed distances, which has no coordinates.
    """
    return np.array([strength @ x / strength.sum() for x, strength in _members(state)]).reshape(-1, state.x.shape[1])


def medoids(state: HDBSCANState) -> np.ndarray:
    """(k, n_features) sample of each cluster with the least sum of distances, weighted by probabilities, to the others.

    Raises:
        ValueError: a fit of precomputed distances, which has no coordinates.
    """
    medoids = np.empty((len(state.selected), state.x.shape[1]), state.x.dtype)
    for label, (x, strength) in enumerate(_members(state)):
        space = scaled_space(x, state.function, state.p).space
        sums = np.concatenate([space.rows(index) @ strength for index in tiles(x.shape[0])])
        medoid = x[[np.argmin(sums)]]
        medoids[label] = medoid.toarray() if is_sparse(x) else medoid
    return medoids


def _members(state):
    """Samples of each cluster and their probabilities."""
    if isinstance(state.metric, str) and state.metric == "precomputed":
        raise ValueError("There are no centers where metric='precomputed': distances alone give no coordinates.")
    strengths = probabilities(state)
    for label in range(len(state.selected)):
        rows = state.labels == label
        yield state.x[rows[state.finite]], strengths[rows]

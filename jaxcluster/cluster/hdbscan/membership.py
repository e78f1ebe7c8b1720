"""How strongly rows belong: to their cluster, to none, or to each of all clusters."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxcluster.cluster.hdbscan.condense import CondensedTree
from jaxcluster.cluster.hdbscan.meet import meet, nearest_reachable
from jaxcluster.cluster.hdbscan.rows import finite_rows
from jaxcluster.cluster.hdbscan.state import HDBSCANState, owners
from jaxcluster.core import check

A_TRACE = 1e-8
"""Of the greatest finite density at which a cluster ends: added to a density that something is divided by."""


def probabilities(state: HDBSCANState) -> np.ndarray:
    """(N,) float64 in [0, 1]: the density to which each row stays, relative to the last of its cluster.

    It is 0 for noise and for infinite rows, and NaN for rows with a missing value, as scikit-learn has it.
    """
    tree, labels = state.condensed, state.labels[state.finite]
    _, levels = tree.exits()
    strengths = np.zeros(tree.n)
    inside = labels >= 0
    deaths = tree.deaths()[state.selected - tree.n]
    strengths[inside] = relative(levels[inside], deaths[labels[inside]])
    return state.of_all(strengths, infinite=0.0, missing=np.nan)


def relative(levels: np.ndarray, deaths: np.ndarray) -> np.ndarray:
    """Densities relative to the last of their clusters, at most 1; 1 where both are infinite, or the last is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((deaths == 0) | np.isinf(levels), 1.0, np.minimum(levels, deaths) / deaths)


def outlier_scores(state: HDBSCANState) -> np.ndarray:
    """GLOSH: (N,) float64 in [0, 1], the greater the earlier a row falls out of a cluster, which in parts goes on.

    It is 1 − the density at which the row leaves / the last in its cluster or any part of that. A row that has copies
    enough never leaves and scores 0. An infinite row scores 1, and one with a missing value NaN.

    Source: R. Campello, D. Moulavi, A. Zimek and J. Sander, Hierarchical density estimates for data clustering,
    visualization, and outlier detection, ACM TKDD 10 (2015).
    """
    clusters, levels = state.condensed.exits()
    scores = 1 - relative(levels, _last_levels(state.condensed)[clusters])
    return state.of_all(scores, infinite=1.0, missing=np.nan)


def _last_levels(tree: CondensedTree) -> np.ndarray:
    """(c,) the last density at which something leaves each cluster or a part of it."""
    last = tree.deaths().tolist()
    parents = tree.ups()[0].tolist()
    for cluster in range(len(parents) - 1, 0, -1):
        last[parents[cluster]] = max(last[parents[cluster]], last[cluster])
    return np.array(last)


def membership_vectors(state: HDBSCANState, x: Any = None) -> np.ndarray:
    """How much each row belongs to each cluster, as probabilities; what is missing to 1 is that it belongs to none.

    It is made of how near the row is to the rows in which each cluster is densest, of how much it would stand out in
    each cluster, and of how near it comes to be in some cluster at all. This is the definition of the package hdbscan,
    which weighs these parts otherwise for new rows.

    Args:
        state: of a fit with k clusters.
        x: (m, d) rows, or (m, n) distances from the rows of the fit where the metric is "precomputed". None for the N
            rows of the fit.

    Returns:
        (m, k) or (N, k) float64; rows that hold NaN or infinity belong to none.

    Raises:
        ValueError, TypeError: rows of another width; distances that are NaN or negative.
    """
    if x is None:
        return state.of_all(_memberships(state, None), infinite=0.0, missing=0.0)
    if isinstance(state.metric, str) and state.metric == "precomputed":
        return _memberships(state, x)
    rows = finite_rows(x)
    check.check_width(rows.x, state.x.shape[1])
    vectors = np.zeros((len(rows.labels), len(state.selected)))
    if len(rows.x):
        vectors[rows.index] = _memberships(state, rows.x)
    return vectors


def _memberships(state, x):
    tree, selected = state.condensed, state.selected - state.condensed.n
    clusters, levels = tree.exits()
    last = tree.deaths()
    trace = A_TRACE * last[np.isfinite(last)].max(initial=0.0)
    meeting = meet(state, x)
    if x is not None:
        neighbors, reach = nearest_reachable(state, meeting)
        with np.errstate(divide="ignore"):
            levels = np.minimum(levels[neighbors], 1 / reach)
        clusters = clusters[neighbors]
    if len(selected) == 0:
        return np.zeros((len(clusters), 0))
    near = _nearness(meeting.least(_exemplars(state)))
    heights = _heights(tree, selected)[clusters]
    heights = np.where(np.isnan(heights), levels[:, None], heights)
    nearest, last = last[selected[heights.argmax(axis=1)]], last[clusters][:, None]
    if x is None:
        scores = np.exp(-_ratio(last + trace, heights))
        odds = near * _shares(np.exp(scores - scores.max()))
        inside = _ratio(heights.max(axis=1), np.maximum(nearest, levels))
    else:
        with np.errstate(invalid="ignore"):
            margin = last - heights
        scores = _ratio(last, np.where(margin > 0, margin, trace))
        odds = np.sqrt(near) * _shares(np.exp(scores - scores.max(axis=1, keepdims=True))) ** 2
        inside = _ratio(heights.max(axis=1), np.maximum(nearest, levels) + trace)
    return _shares(odds) * inside[:, None]


def _exemplars(state):
    """The rows of each selected cluster that stay longest in the parts of it that split no further."""
    tree = state.condensed
    clusters, levels = tree.exits()
    labels = owners(tree, state.selected - tree.n)[clusters]
    whole = np.ones(tree.clusters, bool)
    whole[tree.parent[tree.child >= tree.n] - tree.n] = False
    stay = whole[clusters] & (levels == tree.deaths()[clusters])
    return [np.flatnonzero(stay & (labels == label)) for label in range(len(state.selected))]


def _nearness(distances):
    """1 / distance as shares; those at a distance of 0 share it all."""
    with np.errstate(divide="ignore"):
        inverse = 1 / distances
    at = np.isinf(inverse)
    return _shares(np.where(at.any(axis=1, keepdims=True), at, inverse))


def _heights(tree, selected):
    """(c, k) density at which each cluster and each selected one part; not a number if one is in the other."""
    parents, births = tree.ups()
    above = np.zeros((tree.clusters, len(selected)), bool)
    above[selected, np.arange(len(selected))] = True
    inside = above.copy()
    for cluster in range(tree.clusters - 1, 0, -1):
        above[parents[cluster]] |= above[cluster]
    heights = np.full(above.shape, np.nan)
    for cluster in range(1, tree.clusters):
        parent = parents[cluster]
        inside[cluster] |= inside[parent]
        parted = np.where(np.isnan(heights[parent]), births[cluster], heights[parent])
        heights[cluster] = np.where(above[cluster] | inside[cluster], np.nan, parted)
    return heights


def _ratio(a, b):
    """a / b of densities: 1 where both are infinite, 0 where a is 0, never infinite."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratio = np.minimum(a / b, np.finfo(float).max)
    return np.where(a == 0, 0.0, np.where(np.isinf(a) & np.isinf(b), 1.0, ratio))


def _shares(values):
    """Rows of values over their sums; a row of zeros stays one."""
    sums = values.sum(axis=1, keepdims=True)
    return values / np.where(sums > 0, sums, 1)

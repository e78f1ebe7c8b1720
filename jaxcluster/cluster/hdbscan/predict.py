"""Clusters of new rows, from a fit that knows nothing of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxcluster.cluster.hdbscan.meet import meet, nearest_reachable
from jaxcluster.cluster.hdbscan.membership import relative
from jaxcluster.cluster.hdbscan.rows import finite_rows
from jaxcluster.cluster.hdbscan.state import MISSING, HDBSCANState, owners, settle
from jaxcluster.core import check


def approximate_predict(state: HDBSCANState, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """The cluster of each new row, as if it were the last to come: the hierarchy does not change for it.

    The row is where the row of the fit is that it reaches first by mutual reachability: in its cluster if they meet
    while that one is there, else in the one above that holds both. This is the definition of the package hdbscan, but
    that no row is left out as too far to be the first that is reached.

    Args:
        state: of a fit on n rows.
        x: (m, d) rows, or (m, n) distances from the rows of the fit where the metric is "precomputed".

    Returns:
        (m,) int32 labels and (m,) float64 strengths in [0, 1] as in `probabilities`. Rows that hold NaN or infinity
        are labeled as in the fit.

    Raises:
        ValueError, TypeError: rows of another width; distances that are NaN or negative.
    """
    if isinstance(state.metric, str) and state.metric == "precomputed":
        return _predicted(state, x)
    rows = finite_rows(x)
    check.check_width(rows.x, state.x.shape[1])
    labels, strengths = rows.labels, np.where(rows.labels == MISSING, np.nan, 0)
    if len(rows.x):
        labels[rows.index], strengths[rows.index] = _predicted(state, rows.x)
    return labels, strengths


def _predicted(state, x):
    tree, selected = state.condensed, state.selected - state.condensed.n
    neighbors, reach = nearest_reachable(state, meet(state, x))
    with np.errstate(divide="ignore", over="ignore"):  # the level of rows in one place, or nearly, is infinite
        levels = 1 / reach
    clusters, left = (values[neighbors] for values in tree.exits())
    parents, births = tree.ups()
    up = left > levels
    while up.any():
        up &= (clusters > 0) & (births[clusters] >= levels)
        clusters = np.where(up, parents[clusters], clusters)
    labels = settle(owners(tree, selected)[clusters], np.minimum(levels, left), selected, state.least)
    strengths = np.zeros(len(labels))
    inside = labels >= 0
    strengths[inside] = relative(levels[inside], tree.deaths()[selected[labels[inside]]])
    return labels.astype(np.int32), strengths

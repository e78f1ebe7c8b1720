"""One point for each cluster: the mean of its rows, or the row among them that is nearest to all."""

from __future__ import annotations

import numpy as np

from jaxcluster.cluster.hdbscan.membership import probabilities
from jaxcluster.cluster.hdbscan.metric import measure_rows
from jaxcluster.cluster.hdbscan.state import HDBSCANState
from jaxcluster.ops.metric_space import tiles


def centroids(state: HDBSCANState) -> np.ndarray:
    """(k, d) float64 means of the rows of each cluster, weighted by their probabilities; they may lie outside of it.

    Raises:
        ValueError: a fit of distances, whose rows lie nowhere.
    """
    return np.array([strength @ x / strength.sum() for x, strength in _clusters(state)]).reshape(-1, state.x.shape[1])


def medoids(state: HDBSCANState) -> np.ndarray:
    """(k, d) the row of each cluster whose distances from the others, weighted by their probabilities, are the least.

    Raises:
        ValueError: a fit of distances, whose rows lie nowhere.
    """
    found = np.empty((len(state.selected), state.x.shape[1]), state.x.dtype)
    for label, (x, strength) in enumerate(_clusters(state)):
        space = measure_rows(x, state.function, state.p).space
        sums = np.concatenate([space.rows(index) @ strength for index in tiles(len(x))])
        found[label] = x[np.argmin(sums)]
    return found


def _clusters(state):
    """The rows of each cluster and their probabilities."""
    if isinstance(state.metric, str) and state.metric == "precomputed":
        raise ValueError(
            "There are no centers where metric='precomputed': rows of which only distances are known lie nowhere."
        )
    strengths = probabilities(state)
    for label in range(len(state.selected)):
        rows = state.labels == label
        yield state.x[rows[state.finite]], strengths[rows]

"""How far rows, old or new, are from those of a fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxcluster.cluster.hdbscan.metric import Measure, measure_rows
from jaxcluster.cluster.hdbscan.state import HDBSCANState
from jaxcluster.core import check
from jaxcluster.ops.metric_space import (
    TILE,
    MetricSpace,
    checked_distances,
    concrete_rows,
    float64_tables,
    host_distance,
)
from jaxcluster.ops.neighbors.exact_knn import nearest_rows


class Meeting(NamedTuple):
    """m rows among the n of a fit, as rows of one space or by their distances.

    Attributes:
        m: how many rows there are.
        measure: the rows of the fit; None where only distances are known.
        queries: (m, d) the other rows, in the space of the measure.
        distances: (t,) row numbers -> (t, n) float64 distances from the rows of the fit, where there is no space.
    """

    m: int
    as_metric_space: Measure | None
    queries: np.ndarray | None
    distances: Callable[[np.ndarray], np.ndarray] | None

    def least(self, groups: list[np.ndarray]) -> np.ndarray:
        """(m, k) distances of the rows from the nearest of each of k groups of rows of the fit."""
        if self.measure is not None:
            space = self.measure.space
            parts = [space._replace(x=space.x[group]) for group in groups]
            nearest = [nearest_rows(part, 1, queries=self.queries)[1] for part in parts]
            return self.measure.distances(np.column_stack(nearest))
        return self.by_tiles(lambda tile: np.column_stack([tile[:, group].min(axis=1) for group in groups]))

    def by_tiles(self, work: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """What is made of (t, n) distances, for all m rows."""
        step = max(1, TILE // self.distances(np.arange(1)).shape[1])
        starts = range(0, self.m, step)
        return np.concatenate([work(self.distances(np.arange(i, min(i + step, self.m)))) for i in starts])


def meet(state: HDBSCANState, x: Any = None) -> Meeting:
    """The rows of a fit and others, or themselves if there are no others.

    Args:
        state: of a fit on n rows.
        x: (m, d) rows, or (m, n) distances where the metric is "precomputed".

    Raises:
        ValueError, TypeError: rows of another width, or that are not finite; distances that are NaN or negative.
    """
    metric, p = state.function, state.p
    if metric == "precomputed" and x is not None:
        return _given(x, len(state.core))
    old = state.x
    if x is not None:
        x = concrete_rows(x)
        check.check_width(x, old.shape[1])
        old, x = float64_tables(metric, old, x)
    own = measure_rows(old, metric, p)
    if x is None:
        if isinstance(own.space, MetricSpace):
            return Meeting(own.space.n, own, own.space.x, None)
        return _by_distances(own.space.n, own.space.rows)
    if isinstance(own.space, MetricSpace):
        others = measure_rows(x, metric, p, exponent=own.exponent)
        if isinstance(others.space, MetricSpace):
            return Meeting(len(x), own, others.space.x, None)
    function = host_distance(metric, old, p=p)
    return _by_distances(len(x), lambda index: checked_distances(function, x[index], old, index))


def nearest_reachable(state: HDBSCANState, meeting: Meeting) -> tuple[np.ndarray, np.ndarray]:
    """The row of the fit that each of m rows reaches first, of several the nearest, and their mutual reachability.

    The core distance of a new row is that to the nearest row of number ``min_samples`` among those of the fit: so a
    copy of a row has its core distance.
    """
    if meeting.measure is None:
        found = meeting.by_tiles(lambda tile: np.column_stack(_first(state, tile)))
        return found[:, 0].astype(np.int64), found[:, 1]
    n, asked = len(state.core), np.arange(meeting.m)
    neighbors, reach = np.empty(meeting.m, np.int64), np.empty(meeting.m)
    k = min(n, 2 * state.min_samples)
    while len(asked):
        farther = []
        step = max(1, TILE // k)
        for some in (asked[start : start + step] for start in range(0, len(asked), step)):
            index, distances = nearest_rows(meeting.measure.space, k, queries=meeting.queries[some])
            distances = meeting.measure.distances(distances)
            core = distances[:, state.min_samples - 1, None] / state.core_alpha
            mutual = np.maximum(np.maximum(distances / state.alpha, core), state.core[index])
            best = mutual.argmin(axis=1)[:, None]
            neighbors[some] = np.take_along_axis(index, best, axis=1)[:, 0]
            reach[some] = np.take_along_axis(mutual, best, axis=1)[:, 0]
            # A row farther away than all of these may be dense enough to be reached before.
            farther.append(some[(reach[some] > distances[:, -1] / state.alpha) & (k < n)])
        asked, k = np.concatenate(farther), min(n, 4 * k)
    return neighbors, reach


def _first(state, distances):
    core = np.partition(distances, state.min_samples - 1, axis=1)[:, state.min_samples - 1, None] / state.core_alpha
    mutual = np.maximum(np.maximum(distances / state.alpha, core), state.core)
    reach = mutual.min(axis=1)
    return np.where(mutual == reach[:, None], distances, np.inf).argmin(axis=1), reach


def _by_distances(m, distances):
    return Meeting(m, None, None, distances)


def _given(distances, n):
    distances = np.asarray(check.check_matrix(distances))
    if distances.shape[1] != n:
        raise ValueError(
            f"x has shape {distances.shape}, but metric='precomputed' needs the distances of each new row from all {n} "
            f"rows of the fit: (m, {n})."
        )
    if np.isnan(distances).any() or (distances < 0).any():
        raise ValueError("x has distances that are NaN or negative. One that is not known is infinite.")
    return _by_distances(len(distances), lambda index: distances[index].astype(np.float64))

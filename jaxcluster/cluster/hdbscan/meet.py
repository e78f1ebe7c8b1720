"""How far rows, old or new, are from those of a fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxcluster.cluster.hdbscan.state import HDBSCANState
from jaxcluster.core import check
from jaxcluster.ops.neighbors import nearest_rows
from jaxcluster.ops.pairwise import TILE, Space, concrete_rows, measure


class Meeting(NamedTuple):
    """m rows among the n of a fit, as rows of one space or by their distances.

    Attributes:
        m: how many rows there are.
        space: the rows of the fit; None where only distances are known.
        queries: (m, d) the other rows.
        distances: (t,) row numbers -> (t, n) float64 distances from the rows of the fit, where there is no space.
    """

    m: int
    space: Space | None
    queries: np.ndarray | None
    distances: Callable[[np.ndarray], np.ndarray] | None

    def least(self, groups: list[np.ndarray]) -> np.ndarray:
        """(m, k) distances of the rows from the nearest of each of k groups of rows of the fit."""
        if self.space is not None:
            parts = [self.space._replace(x=self.space.x[group]) for group in groups]
            return np.column_stack([nearest_rows(part, 1, queries=self.queries)[1] for part in parts])
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
    metric, p = state.metric, state.p
    if x is None:
        space = measure(state.x, metric, p=p)
        return (
            Meeting(space.n, space, space.x, None) if isinstance(space, Space) else _by_distances(space.n, space.rows)
        )
    if metric == "precomputed":
        return _given(x, len(state.labels))
    x = concrete_rows(x)
    check.check_width(x, state.x.shape[1])
    if callable(metric):
        return _by_distances(len(x), lambda index: np.asarray(metric(x[index], state.x), float))
    old, new = measure(state.x, metric, p=p), measure(x, metric, p=p)
    if isinstance(old, Space) and isinstance(new, Space):
        return Meeting(len(x), old, new.x, None)
    old, new = _units(state.x), _units(x)
    return _by_distances(len(x), lambda index: np.clip(1 - new[index] @ old.T, 0, 2))


def nearest_reachable(state: HDBSCANState, meeting: Meeting) -> tuple[np.ndarray, np.ndarray]:
    """The row of the fit that each of m rows reaches first, of several the nearest, and their mutual reachability.

    The core distance of a new row is that to the nearest row of number ``min_samples`` among those of the fit: so a
    copy of a row has its core distance.
    """
    if meeting.space is None:
        found = meeting.by_tiles(lambda tile: np.column_stack(_first(state, tile)))
        return found[:, 0].astype(np.int64), found[:, 1]
    n, asked = len(state.core), np.arange(meeting.m)
    neighbors, reach = np.empty(meeting.m, np.int64), np.empty(meeting.m)
    k = min(n, 2 * state.min_samples)
    while len(asked):
        index, distances = nearest_rows(meeting.space, k, queries=meeting.queries[asked])
        mutual = np.maximum(distances / state.alpha, distances[:, state.min_samples - 1, None])
        mutual = np.maximum(mutual, state.core[index])
        best = mutual.argmin(axis=1)[:, None]
        neighbors[asked] = np.take_along_axis(index, best, axis=1)[:, 0]
        reach[asked] = np.take_along_axis(mutual, best, axis=1)[:, 0]
        # A row farther away than all of these may be dense enough to be reached before.
        asked = asked[(reach[asked] > distances[:, -1] / state.alpha) & (k < n)]
        k = min(n, 4 * k)
    return neighbors, reach


def _first(state, distances):
    core = np.partition(distances, state.min_samples - 1, axis=1)[:, state.min_samples - 1, None]
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


def _units(x):
    x = x.astype(np.float64)
    lengths = np.sqrt(np.sum(x * x, axis=1, keepdims=True))
    return x / np.where(lengths > 0, lengths, 1)

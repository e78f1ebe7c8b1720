"""Clusters from the order of OPTICS: a cut at one distance, or the valleys of the reachability plot.

Source: M. Ankerst, M. Breunig, H.-P. Kriegel and J. Sander, OPTICS: ordering points to identify the clustering
structure, SIGMOD 1999, figure 19; E. Schubert and M. Gertz, Improving the cluster structure extracted from OPTICS
plots, LWDA 2018, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


def at_distance(ordering: np.ndarray, reachability: np.ndarray, core: np.ndarray, eps: float) -> np.ndarray:
    """(n,) int32 labels: a cluster begins where a core row is reached from farther than ``eps``; -1 for noise.

    Args:
        ordering: (n,) rows in their order.
        reachability, core: (n,) by row.
        eps: distance.
    """
    far, dense = reachability > eps, core <= eps
    labels = np.empty(len(core), np.int32)
    labels[ordering] = np.cumsum((far & dense)[ordering]) - 1
    labels[far & ~dense] = -1
    return labels


def in_valleys(
    ordering: np.ndarray,
    reachability: np.ndarray,
    predecessor: np.ndarray,
    *,
    xi: float,
    min_samples: int,
    min_cluster_size: int,
    predecessor_correction: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Clusters between a steep way down and a steep way up of the reachability plot.

    Args:
        ordering: (n,) rows in their order.
        reachability, predecessor: (n,) by row.
        xi: relative change from one place of the plot to the next, from which on it is steep.
        min_samples: so many places in a row may be less than steep within a steep area.
        min_cluster_size: rows of a cluster, at least.
        predecessor_correction: whether a cluster's last rows must have been reached from within it.

    Returns:
        (n,) int32 labels, those of the smallest clusters, -1 for noise; (c, 2) int64 first and last place of each
        cluster in the order, the smaller ones before those that hold them.
    """
    plot = _Plot(reachability[ordering], 1 - float(xi), min_samples)
    places = np.full(len(ordering) + 1, -1)
    places[ordering] = np.arange(len(ordering))
    reached_from = places[predecessor[ordering]].tolist() if predecessor_correction else None
    clusters: list[tuple[int, int]] = []
    for up, downs in plot.ways_up():
        found = []
        for down in downs:
            cluster = plot.between(down, up)
            if cluster and reached_from:
                cluster = plot.without_strangers(*cluster, reached_from)
            if cluster and plot.is_whole(*cluster, down, up) and cluster[1] - cluster[0] + 1 >= min_cluster_size:
                found.append(cluster)
        clusters.extend(reversed(found))
    return _smallest(ordering, clusters), np.array(clusters, np.int64).reshape(-1, 2)


class _Area(NamedTuple):
    """Places from start to end, both included, over which the plot goes one way, steeply."""

    start: int
    end: int


class _Down:
    """A steep way down that a cluster may begin with, and how high the plot has been since."""

    def __init__(self, area):
        self.start, self.end = area
        self.since = 0.0


class _Plot:
    """Reachability by place, and a place of infinite height after the last."""

    def __init__(self, heights, complement, min_samples):
        heights = np.append(heights, np.inf)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = heights[:-1] / heights[1:]
        self.heights, self._array = heights.tolist(), heights
        self.complement, self.min_samples = complement, min_samples
        with np.errstate(divide="ignore"):
            self.steep_down = ratio >= np.divide(1.0, complement)
        self.steep_up = ratio <= complement
        self.up, self.down = ratio < 1, ratio > 1

    def ways_up(self) -> Iterator[tuple[_Area, list[_Down]]]:
        """Every steep way up, and the ways down before it that nothing in between rises above."""
        downs: list[_Down] = []
        place, highest = 0, 0.0
        for steep in np.flatnonzero(self.steep_up | self.steep_down).tolist():
            if steep < place:
                continue
            highest = max(highest, float(self._array[place : steep + 1].max()))
            downs = self._still_open(downs, highest)
            if self.steep_down[steep]:
                area = self._extend(self.steep_down, self.up, steep)
                downs.append(_Down(area))
            else:
                area = self._extend(self.steep_up, self.down, steep)
                yield area, downs
            place = area.end + 1
            highest = self.heights[place]

    def _still_open(self, downs, highest):
        if highest == np.inf:
            return []
        downs = [down for down in downs if highest <= self.heights[down.start] * self.complement]
        for down in downs:
            down.since = max(down.since, highest)
        return downs

    def _extend(self, steep, against, start):
        """As far as the plot goes the same way, but for a few places that are less than steep."""
        end, gentle = start, 0
        for place in range(start, len(steep)):
            if steep[place]:
                end, gentle = place, 0
            elif against[place]:
                break
            else:
                gentle += 1
                if gentle > self.min_samples:
                    break
        return _Area(start, end)

    def between(self, down, up):
        """The cluster from a way down to a way up, cut where the higher of the two reaches the height of the other."""
        heights, start, end = self.heights, down.start, up.end
        left, right = heights[start], heights[end + 1]
        if right * self.complement < down.since:
            return None
        if left * self.complement >= right:
            while heights[start + 1] > right and start < down.end:
                start += 1
        elif right * self.complement >= left:
            while heights[end - 1] > left and end > up.start:
                end -= 1
        return start, end

    @staticmethod
    def is_whole(start, end, down, up):
        """Whether a cluster still begins with its way down and ends with its way up."""
        return start <= down.end and end >= up.start

    def without_strangers(self, start, end, reached_from):
        """The cluster without last rows that were not reached from within; None where no row is left."""
        while start < end:
            if self.heights[start] > self.heights[end] or start <= reached_from[end] < end:
                return start, end
            end -= 1
        return None


def _smallest(ordering, clusters):
    """Labels of the clusters that hold no other."""
    places = np.full(len(ordering), -1, np.int32)
    label = 0
    for start, end in clusters:
        if (places[start : end + 1] == -1).all():
            places[start : end + 1] = label
            label += 1
    labels = np.empty_like(places)
    labels[ordering] = places
    return labels

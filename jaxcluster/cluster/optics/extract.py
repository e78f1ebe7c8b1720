"""Extraction of clusters from the OPTICS ordering: a cut at one distance, or the xi method on the reachability plot.

Sources: M. Ankerst, M. Breunig, H.-P. Kriegel and J. Sander, OPTICS: ordering points to identify the clustering
structure, SIGMOD 1999, figure 19; E. Schubert and M. Gertz, Improving the cluster structure extracted from OPTICS
plots, LWDA 2018, algorithm 2, for the predecessor correction.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from jaxcluster.core import validation
from jaxcluster.types import Array, Int


class OPTICSState(NamedTuple):
    """Reachability ordering of n samples, as NumPy arrays: float32 would round distances that decide.

    Attributes:
        ordering: (n,) int64 sample numbers in the cluster order.
        reachability: (n,) float64 reachability distance, by sample; infinite for the first of a connected component.
        core_distances: (n,) float64 distance to the ``min_samples``-th nearest sample; infinite beyond ``max_eps``.
        predecessor: (n,) int64 sample that each sample was reached from; -1 for none.
    """

    ordering: np.ndarray
    reachability: np.ndarray
    core_distances: np.ndarray
    predecessor: np.ndarray


def extract_dbscan(state: OPTICSState, eps: float) -> Int[Array, " n"]:
    """Labels of a cut at ``eps``, like those of DBSCAN with this radius; −1 for noise.

    A border sample may belong to another cluster than in DBSCAN, or to none.

    Args:
        state: of a fit, with ``max_eps`` of at least ``eps``.
        eps: the radius, in the units of the metric.

    Raises:
        ValueError: ``eps`` is negative.
    """
    validation.check_positive("eps", eps, zero=True)
    # A cluster begins at each core sample that is not reachable within eps.
    far, core = state.reachability > eps, state.core_distances <= eps
    labels = np.empty(len(core), np.int32)
    labels[state.ordering] = np.cumsum((far & core)[state.ordering]) - 1
    labels[far & ~core] = -1
    return jax.device_put(labels)


def extract_xi(
    state: OPTICSState,
    *,
    xi: float = 0.05,
    min_samples: float = 5,
    min_cluster_size: float | None = None,
    predecessor_correction: bool = True,
) -> tuple[Int[Array, " n"], np.ndarray]:
    """Labels and nested clusters between a steep down area and a steep up area of the reachability plot.

    Args:
        state: of a fit on n samples.
        xi: relative change between adjacent positions of the plot that counts as steep, in [0, 1].
        min_samples: as in the fit; so many consecutive positions of a steep area may be less than steep.
        min_cluster_size: smallest number of samples of a cluster, at least 2, or a fraction of the samples; None for
            ``min_samples``.
        predecessor_correction: True cuts off last samples of a cluster that were not reached from within it.

    Returns:
        (n,) int32 labels of the clusters that hold no other, −1 for noise; (c, 2) int64 first and last position of each
        cluster in the ordering, both included, smaller clusters before those that hold them.

    Raises:
        ValueError: a value out of its range.
    """
    check_xi(xi)
    ordering, n = state.ordering, len(state.ordering)
    count = as_count("min_samples", min_samples, n)
    size = count if min_cluster_size is None else as_count("min_cluster_size", min_cluster_size, n)
    plot = _ReachabilityPlot(state.reachability[ordering], 1 - float(xi), count)
    positions = np.full(n + 1, -1)  # one more: position −1 of the predecessor −1
    positions[ordering] = np.arange(n)
    reached_from = positions[state.predecessor[ordering]].tolist() if predecessor_correction else None
    clusters: list[tuple[int, int]] = []
    for up, downs in plot.steep_ups():
        ending = []
        for down in downs:
            cluster = plot.between(down, up)
            if cluster and reached_from:
                cluster = plot.corrected(*cluster, reached_from)
            if cluster and cluster[0] <= down.end and cluster[1] >= up.start and cluster[1] - cluster[0] + 1 >= size:
                ending.append(cluster)
        clusters.extend(reversed(ending))
    return jax.device_put(_leaf_labels(ordering, clusters)), np.array(clusters, np.int64).reshape(-1, 2)


def as_count(name: str, value: float, n: int) -> int:
    """Number of samples, at least 2 and at most n, from a number or a fraction of n."""
    validation.check_positive(name, value)
    if value <= 1 and not isinstance(value, (int, np.integer)):
        count = max(2, int(value * n))
    elif value < 2 or value % 1:  # inf % 1 is NaN, which is true
        raise ValueError(f"{name}={value} must be a whole number of at least 2, or a fraction of the rows in (0, 1].")
    else:
        count = int(value)
    if count > n:
        raise ValueError(
            f"{name} must be no greater than the number of samples ({n}). Got {count}: n_samples={n} should be >= "
            f"{name}={count}. Pass a smaller {name}, or more rows."
        )
    return count


def check_xi(xi: float) -> None:
    """Raise ValueError for xi outside [0, 1]."""
    validation.check_positive("xi", xi, zero=True)
    if not xi <= 1:
        raise ValueError(f"xi={xi} must be at most 1.")


class _Area(NamedTuple):
    """Steep area of the plot, from start to end, both included."""

    start: int
    end: int


class _SteepDown:
    """Steep down area that a cluster may begin with, and the maximum in between (mib) since its end."""

    def __init__(self, area):
        self.start, self.end = area
        self.mib = 0.0


class _ReachabilityPlot:
    """Reachability by position, with an infinite one after the last, and its steep areas (1 − xi: ``complement``)."""

    def __init__(self, heights, complement, min_samples):
        heights = np.append(heights, np.inf)
        with np.errstate(invalid="ignore", divide="ignore"):
            # ∞/∞ is NaN, which is neither steep nor up nor down.
            ratio = heights[:-1] / heights[1:]
        self.heights, self._array = heights.tolist(), heights
        self.complement, self.min_samples = complement, min_samples
        with np.errstate(divide="ignore"):
            self.steep_down = ratio >= np.divide(1.0, complement)
        self.steep_up = ratio <= complement
        self.up, self.down = ratio < 1, ratio > 1

    def steep_ups(self) -> Iterator[tuple[_Area, list[_SteepDown]]]:
        """Each steep up area, with the steep down areas before it that are still open (Ankerst et al., figure 19)."""
        downs: list[_SteepDown] = []
        position, highest = 0, 0.0
        for steep in np.flatnonzero(self.steep_up | self.steep_down).tolist():
            if steep < position:
                continue
            highest = max(highest, float(self._array[position : steep + 1].max()))
            downs = self._still_open(downs, highest)
            if self.steep_down[steep]:
                area = self._extend(self.steep_down, self.up, steep)
                downs.append(_SteepDown(area))
            else:
                area = self._extend(self.steep_up, self.down, steep)
                yield area, downs
            position = area.end + 1
            highest = self.heights[position]

    def _still_open(self, downs, highest):
        """Steep down areas that begin high enough above the maximum since, with their updated mib."""
        if highest == np.inf:
            return []
        downs = [down for down in downs if highest <= self.heights[down.start] * self.complement]
        for down in downs:
            down.mib = max(down.mib, highest)
        return downs

    def _extend(self, steep, against, start):
        """Steep area from ``start``: at most ``min_samples`` consecutive positions in it are less than steep."""
        end, gentle = start, 0
        for position in range(start, len(steep)):
            if steep[position]:
                end, gentle = position, 0
            elif against[position]:
                break
            else:
                gentle += 1
                if gentle > self.min_samples:
                    break
        return _Area(start, end)

    def between(self, down, up):
        """Cluster from a steep down to a steep up area, its higher side cut to the height of the other; or None."""
        heights, start, end = self.heights, down.start, up.end
        left, right = heights[start], heights[end + 1]
        # Condition 3b of the paper: between the two areas a cluster stays ξ below both of its ends.
        if right * self.complement < down.mib:
            return None
        if left * self.complement >= right:
            while heights[start + 1] > right and start < down.end:
                start += 1
        elif right * self.complement >= left:
            while heights[end - 1] > left and end > up.start:
                end -= 1
        return start, end

    def corrected(self, start, end, reached_from):
        """Cluster without last samples whose predecessor is not in it; None if no sample is left."""
        while start < end:
            if self.heights[start] > self.heights[end] or start <= reached_from[end] < end:
                return start, end
            end -= 1
        return None


def _leaf_labels(ordering, clusters):
    """Labels of the clusters that hold no other."""
    by_position = np.full(len(ordering), -1, np.int32)
    label = 0
    for start, end in clusters:
        # Clusters come before those that hold them, so that a position is labeled by its smallest cluster.
        if (by_position[start : end + 1] == -1).all():
            by_position[start : end + 1] = label
            label += 1
    labels = np.empty_like(by_position)
    labels[ordering] = by_position
    return labels

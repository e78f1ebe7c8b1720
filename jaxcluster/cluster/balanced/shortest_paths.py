"""Exact assignment under size bounds: successive shortest paths from nearly optimal dual variables.

A minimum-cost flow between clusters. The graph has a node for each cluster, and a pool for the free places between the
lower and the upper bound of every cluster. The arc from cluster i to j costs what the cheapest sample of i to move
adds; its reduced cost is cost + u_i − u_j. With dual variables u (potentials) no reduced cost is negative, and moving
samples along shortest paths keeps it so: each labeling on the way is the cheapest of its sizes, and the last one has
the sizes asked for.

Source: R. K. Ahuja, T. L. Magnanti and J. B. Orlin, Network Flows, Prentice Hall 1993, chapter 9; here all ends of one
search are served before the next.
"""

from __future__ import annotations

import numpy as np

from jaxcluster.cluster.balanced.dual_newton import DualAssignment, SizeBounds, maximize_dual
from jaxcluster.core import signals

INITIAL_CANDIDATES = 10
"""Samples per cluster that may move at first, those of the smallest margins."""

CANDIDATE_GROWTH = 4
"""Factor on the number of candidates where they do not reach far enough."""


def solve_assignment(costs: np.ndarray, bounds: SizeBounds, duals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cheapest labels with sizes within the bounds, and dual variables that prove it.

    Args:
        costs: (n, k) finite costs, float32 or float64; differences are taken in float64.
        bounds: on the sizes.
        duals: (k,) float64 start of the search; 0 if nothing is known.

    Returns:
        (n,) int32 labels, and (k,) dual variables u: each sample's label has the least cost − u, a cluster with u > 0
        its lower bound and one with u < 0 its upper bound.
    """
    duals, assignment = maximize_dual(costs, bounds, duals)
    if bounds.infeasibility(assignment.sizes, duals) == 0:
        return assignment.labels, duals
    network = _ResidualNetwork(costs, bounds, duals, assignment)
    while network.has_excess:
        signals.check_stopped()
        network.augment()
    return network.labels, network.potential[:-1] - network.potential[-1]


class _ResidualNetwork:
    """Residual network of the flow of samples between clusters.

    Only candidates may move, the samples of small margin. A sample keeps its label while dual variables change by less
    than its margin, wherever it would go; paths are short, and most samples are never looked at. Where potentials go
    further, more samples become candidates.

    Attributes:
        labels: (n,) the cluster of each sample.
        max_margin: samples of a margin up to this are candidates.
        rows: (m,) the candidates, ascending.
        costs: (m, k) float64 their costs.
        members: for each cluster its candidates, as places in ``rows``.
        target: (k,) size that each cluster should have, with what the pool gives it.
        excess: (k + 1,) size less target, the pool last.
        potential: (k + 1,) dual variables, the pool's last.
        arc_cost: (k + 1, k + 1) least cost of moving one sample; infinite where there is none.
        changed: clusters whose candidates changed since their arcs were computed.
    """

    def __init__(self, costs: np.ndarray, bounds: SizeBounds, duals: np.ndarray, assignment: DualAssignment):
        k = self.k = len(duals)
        self.all_costs, self.bounds, self.initial_duals, self.margin = costs, bounds, duals, assignment.margin
        self.labels = assignment.labels
        self.target = bounds.target_sizes(assignment.sizes, duals)
        self.excess = np.append(assignment.sizes - self.target, self.target.sum() - bounds.n)
        self.potential = np.append(duals, 0.0)
        self.arc_cost = np.full((k + 1, k + 1), np.inf)
        self.changed: set[int] = set()
        self._update_pool_arcs(np.arange(k))
        self._select_candidates(INITIAL_CANDIDATES * k)

    @property
    def has_excess(self) -> bool:
        return bool((self.excess > 0).any())

    def augment(self) -> None:
        """Find shortest paths from excess to deficit, with candidates enough, and move samples along them."""
        length, predecessor, forward = self._shortest_paths()
        while not self._is_exact(length, forward):
            self._select_candidates(CANDIDATE_GROWTH * len(self.rows))
            length, predecessor, forward = self._shortest_paths()
        self._augment_along(length, predecessor, forward)

    def _select_candidates(self, count):
        """Make about ``count`` samples of the smallest margins candidates; all of them where that is most of them."""
        n, k = len(self.margin), self.k
        # Samples of the smallest margin cost the least to move. A path beyond the margin of the last candidate asks for
        # more of them.
        self.max_margin = np.partition(self.margin, count)[count] if 2 * count < n else np.inf
        self.rows = np.flatnonzero(self.margin <= self.max_margin)
        self.costs = self.all_costs[self.rows].astype(np.float64)
        labels = self.labels[self.rows]
        order = np.argsort(labels, kind="stable")
        ends = np.cumsum(np.bincount(labels, minlength=k)).tolist()
        self.members = [order[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        self._update_arcs(range(k))

    def _update_arcs(self, clusters):
        """Compute the costs of all arcs from some clusters to others."""
        clusters = np.array(clusters)
        counts = np.array([len(self.members[i]) for i in clusters])
        rows, filled = np.concatenate([self.members[i] for i in clusters]), counts > 0
        self.arc_cost[clusters, : self.k] = np.inf
        if len(rows):
            costs = self.costs[rows]
            costs -= costs[np.arange(len(rows)), np.repeat(clusters, counts), None]
            # Candidates are grouped by cluster: one minimum over segments gives all arcs.
            starts = (np.cumsum(counts) - counts)[filled]
            self.arc_cost[clusters[filled], : self.k] = np.minimum.reduceat(costs, starts, axis=0)
            self.arc_cost[clusters, clusters] = np.inf

    def _update_pool_arcs(self, i):
        k = self.k
        self.arc_cost[i, k] = np.where(self.target[i] < self.bounds.upper[i], 0, np.inf)
        self.arc_cost[k, i] = np.where(self.target[i] > self.bounds.lower[i], 0, np.inf)

    def _is_exact(self, length, forward):
        """True if potentials changed by these lengths leave all samples that are no candidates where they are."""
        if self.max_margin == np.inf:
            return True
        # A sample leaves its cluster only if another dual variable rises against its own by the margin. A constant
        # added to all of them moves nothing, so the peak-to-peak change counts.
        duals = self._new_potential(length, forward)[:-1]
        return bool(np.ptp(duals - self.initial_duals) <= self.max_margin) if np.isfinite(duals).all() else False

    def _new_potential(self, length, forward):
        """Potentials by which the shortest paths to the ends, of these lengths, have reduced cost 0."""
        sign = 1 if forward else -1
        return self.potential + sign * np.minimum(length, length[sign * self.excess < 0].max())

    def _shortest_paths(self):
        """Shortest paths between nodes with an excess and nodes with a deficit (Bellman–Ford over a frontier).

        Returns:
            The length of each node's path, its neighbor on that path or −1, and the direction: forward from the
            excess where fewer nodes have one, else backward from the deficit. So each of the more numerous nodes has a
            path of its own; nodes beyond the last of them are not looked at.
        """
        forward = bool(np.sum(self.excess > 0) <= np.sum(self.excess < 0))
        sign, cost = (1, self.arc_cost) if forward else (-1, self.arc_cost.T)
        starts, ends = sign * self.excess > 0, sign * self.excess < 0
        length, predecessor = np.where(starts, 0.0, np.inf), np.full(self.k + 1, -1)
        # Rounding leaves reduced costs slightly below 0, and a cycle of those would have no shortest path.
        reduced = np.maximum(cost + sign * (self.potential[:, None] - self.potential), 0)
        frontier = np.flatnonzero(starts)
        while len(frontier):
            candidates = reduced[frontier] + length[frontier, None]
            best = candidates.min(axis=0)
            shorter = np.flatnonzero((best < length) & (best < length[ends].max()))
            predecessor[shorter] = frontier[candidates[:, shorter].argmin(axis=0)]
            length[shorter] = best[shorter]
            frontier = shorter
        return length, predecessor, forward

    def _augment_along(self, length, predecessor, forward):
        """Change potentials so that the paths have reduced cost 0, and move samples along while that holds."""
        sign = 1 if forward else -1
        ends = np.flatnonzero(sign * self.excess < 0)
        ends = ends[np.argsort(length[ends], kind="stable")].tolist()
        nodes, predecessor = np.arange(self.k + 1), predecessor.tolist()
        # Arc costs of the search: samples up to these move along a path without making it longer.
        max_cost = self.arc_cost[predecessor, nodes] if forward else self.arc_cost[nodes, predecessor]
        self.potential = self._new_potential(length, forward)
        progress = True
        while progress:
            paths = [self._path(end, predecessor, forward) for end in ends if self.excess[end]]
            progress = sum(self._push(path, max_cost[path[1:] if forward else path[:-1]]) for path in paths) > 0
        if self.changed:
            self._update_arcs(sorted(self.changed))
            self.changed.clear()

    @staticmethod
    def _path(end, predecessor, forward):
        path = [end]
        while predecessor[path[-1]] >= 0:
            path.append(predecessor[path[-1]])
        return path[::-1] if forward else path

    def _push(self, path, max_costs):
        """Move as many samples as excess, deficit and arcs allow, none dearer than the ``max_costs`` of its arc."""
        count, arcs = min(self.excess[path[0]], -self.excess[path[-1]]), []
        # The arc of the least capacity bounds what the whole path carries.
        for i, j, max_cost in zip(path, path[1:], max_costs, strict=False):
            if count <= 0:
                return False
            rows, capacity = self._residual_capacity(i, j, max_cost)
            arcs.append((i, j, rows))
            count = min(count, capacity)
        if count <= 0:
            return False
        for i, j, rows in arcs:
            self._move(i, j, rows if rows is None else rows[:count], count)
        self.excess[path[0]] -= count
        self.excess[path[-1]] += count
        return True

    def _residual_capacity(self, i, j, max_cost):
        """Candidates of i that cost at most ``max_cost`` to move to j, None for the pool, and their number."""
        if i == self.k:
            return None, self.target[j] - self.bounds.lower[j]
        if j == self.k:
            return None, self.bounds.upper[i] - self.target[i]
        rows = self.members[i]
        rows = rows[self.costs[rows, j] - self.costs[rows, i] <= max_cost]
        return rows, len(rows)

    def _move(self, i, j, rows, count):
        if rows is None:
            cluster, change = (j, -count) if i == self.k else (i, count)
            self.target[cluster] += change
            self._update_pool_arcs(cluster)
            return
        self.labels[self.rows[rows]] = j
        members = self.members[i]
        self.members[i] = members[self.labels[self.rows[members]] == i]
        self.members[j] = np.append(self.members[j], rows)
        self.changed.update((i, j))

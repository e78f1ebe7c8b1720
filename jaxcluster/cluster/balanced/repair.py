"""From nearly right prices to the exact optimum: rows move along shortest paths between clusters.

The graph has a node for each cluster, and one for a pool of the places between the least and the most rows of every
cluster. The way from cluster i to j costs what the row of i that is the cheapest to move adds. By prices no way costs
less than nothing, and moving rows along shortest paths keeps it so: each labeling on the way is the cheapest of its
sizes, and the last one has the sizes asked for.

Source: R. K. Ahuja, T. L. Magnanti and J. B. Orlin, Network Flows, Prentice Hall 1993, chapter 9: successive shortest
paths; all ends of one search are served before the next.
"""

from __future__ import annotations

import numpy as np

from jaxcluster.cluster.balanced.prices import Choice, ascend
from jaxcluster.cluster.balanced.sizes import Sizes

NEAR = 10
"""Rows a cluster that take part in the repair at first."""

MORE = 4
"""How many times as many take part where those do not reach far enough."""


def solve(costs: np.ndarray, sizes: Sizes, prices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest labels with sizes in their bounds, and prices that prove it.

    Args:
        costs: (n, k) finite costs, float32 or float64; differences are taken in float64.
        sizes: the bounds.
        prices: (k,) float64 where the search starts; 0 if nothing is known.

    Returns:
        (n,) int32 labels, and (k,) prices: each row's label has the least cost − price, a cluster that has a price
        above 0 its least rows and one below 0 its most.
    """
    prices, choice = ascend(costs, sizes, prices)
    if sizes.missed(choice.counts, prices) == 0:
        return choice.labels, prices
    network = _Network(costs, sizes, prices, choice)
    while network.unsettled:
        network.advance()
    return network.labels, network.potential[:-1] - network.potential[-1]


class _Network:
    """Rows in clusters while they move: of all rows, those that hardly prefer their own.

    A row keeps its label while prices change by less than its gap, wherever it would go; paths are short, and most rows
    are never looked at. Where potentials go further, more rows join.

    Attributes:
        labels: (n,) the cluster of each row.
        reach: rows of a gap up to this take part.
        rows: (m,) the rows that do, ascending.
        costs: (m, k) float64 what they cost.
        members: for each cluster those of it, by their place in ``rows``.
        places: (k,) how many rows each cluster should have, by what the pool gives it.
        excess: (k + 1,) how many more there are than that, the pool last; where negative, fewer.
        potential: (k + 1,) prices, the pool's last: lengths are weight + potential of the start − that of the end.
        weight: (k + 1, k + 1) what it costs to move one row; infinite where there is none.
        changed: clusters whose rows are others than those that were weighed.
    """

    def __init__(self, costs: np.ndarray, sizes: Sizes, prices: np.ndarray, choice: Choice):
        k = self.k = len(prices)
        self.all_costs, self.sizes, self.begun, self.gap = costs, sizes, prices, choice.gap
        self.labels = choice.labels
        self.places = sizes.wanted(choice.counts, prices)
        self.excess = np.append(choice.counts - self.places, self.places.sum() - sizes.n)
        self.potential = np.append(prices, 0.0)
        self.weight = np.full((k + 1, k + 1), np.inf)
        self.changed: set[int] = set()
        self._weigh_pool(np.arange(k))
        self._join(NEAR * k)

    @property
    def unsettled(self) -> bool:
        return bool((self.excess > 0).any())

    def advance(self) -> None:
        """Shortens the paths between clusters that are too large and too small, and moves rows along them."""
        while not self._holds(*(found := self.search())):
            self._join(MORE * len(self.rows))
        self.settle(*found)

    def _join(self, count):
        """Takes in about as many rows, those of the smallest gaps; all of them where that is most of them."""
        n, k = len(self.gap), self.k
        self.reach = np.partition(self.gap, count)[count] if 2 * count < n else np.inf
        self.rows = np.flatnonzero(self.gap <= self.reach)
        self.costs = self.all_costs[self.rows].astype(np.float64)
        labels = self.labels[self.rows]
        order = np.argsort(labels, kind="stable")
        ends = np.cumsum(np.bincount(labels, minlength=k)).tolist()
        self.members = [order[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        self._weigh(range(k))

    def _weigh(self, clusters):
        """Weighs all ways from some clusters to others."""
        clusters = np.array(clusters)
        counts = np.array([len(self.members[i]) for i in clusters])
        rows, filled = np.concatenate([self.members[i] for i in clusters]), counts > 0
        self.weight[clusters, : self.k] = np.inf
        if len(rows):
            costs = self.costs[rows]
            costs -= costs[np.arange(len(rows)), np.repeat(clusters, counts), None]
            starts = (np.cumsum(counts) - counts)[filled]
            self.weight[clusters[filled], : self.k] = np.minimum.reduceat(costs, starts, axis=0)
            self.weight[clusters, clusters] = np.inf

    def _holds(self, length, following, onwards):
        """Whether potentials changed by these lengths keep all rows that take no part where they are."""
        if self.reach == np.inf:
            return True
        new = self._shifted(length, onwards)[:-1]
        return bool(np.ptp(new - self.begun) <= self.reach) if np.isfinite(new).all() else False

    def _shifted(self, length, onwards):
        """Potentials by which the shortest paths to the ends, of these lengths, have length 0."""
        sign = 1 if onwards else -1
        return self.potential + sign * np.minimum(length, length[sign * self.excess < 0].max())

    def search(self) -> tuple[np.ndarray, np.ndarray, bool]:
        """The shortest paths between nodes with an excess and those that lack rows.

        Returns:
            The length of each node's path, the next node on it or −1, and whether paths come from the excess: each of
            the nodes that are more in number has one of its own, and nodes beyond the last of them are not looked at.
        """
        onwards = bool(np.sum(self.excess > 0) <= np.sum(self.excess < 0))
        sign, weight = (1, self.weight) if onwards else (-1, self.weight.T)
        starts, ends = sign * self.excess > 0, sign * self.excess < 0
        length, following = np.where(starts, 0.0, np.inf), np.full(self.k + 1, -1)
        # Rounding leaves lengths a trifle below 0, on which a search would go round for ever.
        net = np.maximum(weight + sign * (self.potential[:, None] - self.potential), 0)
        front = np.flatnonzero(starts)
        while len(front):
            ways = net[front] + length[front, None]
            found = ways.min(axis=0)
            shorter = np.flatnonzero((found < length) & (found < length[ends].max()))
            length[shorter], following[shorter] = found[shorter], front[ways[:, shorter].argmin(axis=0)]
            front = shorter
        return length, following, onwards

    def settle(self, length: np.ndarray, following: np.ndarray, onwards: bool) -> None:
        """Changes potentials so that the paths found have length 0, and moves rows along while they have."""
        sign = 1 if onwards else -1
        ends = np.flatnonzero(sign * self.excess < 0)
        ends = ends[np.argsort(length[ends], kind="stable")].tolist()
        nodes, following = np.arange(self.k + 1), following.tolist()
        allowed = self.weight[following, nodes] if onwards else self.weight[nodes, following]
        self.potential = self._shifted(length, onwards)
        moved = True
        while moved:
            paths = [self._path(end, following, onwards) for end in ends if self.excess[end]]
            moved = sum(self._push(path, allowed[path[1:] if onwards else path[:-1]]) for path in paths) > 0
        if self.changed:
            self._weigh(sorted(self.changed))
            self.changed.clear()

    @staticmethod
    def _path(end, following, onwards):
        path = [end]
        while following[path[-1]] >= 0:
            path.append(following[path[-1]])
        return path[::-1] if onwards else path

    def _push(self, path, allowed):
        """Moves as many rows as there can be along a path of which each way costs no more than ``allowed``."""
        count, ways = min(self.excess[path[0]], -self.excess[path[-1]]), []
        for i, j, most in zip(path, path[1:], allowed, strict=False):
            if count <= 0:
                return False
            rows, room = self._movable(i, j, most)
            ways.append((i, j, rows))
            count = min(count, room)
        if count <= 0:
            return False
        for i, j, rows in ways:
            self._move(i, j, rows if rows is None else rows[:count], count)
        self.excess[path[0]] -= count
        self.excess[path[-1]] += count
        return True

    def _movable(self, i, j, allowed):
        """The rows of i that cost no more than ``allowed`` to move to j, and how many; places of the pool are None."""
        if i == self.k:
            return None, self.places[j] - self.sizes.least[j]
        if j == self.k:
            return None, self.sizes.most[i] - self.places[i]
        rows = self.members[i]
        rows = rows[self.costs[rows, j] - self.costs[rows, i] <= allowed]
        return rows, len(rows)

    def _move(self, i, j, rows, count):
        k = self.k
        if rows is None:
            cluster, more = (j, -count) if i == k else (i, count)
            self.places[cluster] += more
            self._weigh_pool(cluster)
            return
        self.labels[self.rows[rows]] = j
        members = self.members[i]
        self.members[i] = members[self.labels[self.rows[members]] == i]
        self.members[j] = np.append(self.members[j], rows)
        self.changed.update((i, j))

    def _weigh_pool(self, i):
        k = self.k
        self.weight[i, k] = np.where(self.places[i] < self.sizes.most[i], 0, np.inf)
        self.weight[k, i] = np.where(self.places[i] > self.sizes.least[i], 0, np.inf)

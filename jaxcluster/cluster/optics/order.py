"""The order of OPTICS: every row once, each the one that is reached most easily from those before it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxcluster.ops.metric_space import DistanceOracle, MetricSpace

DECIMALS = np.finfo(np.float64).precision
"""Decimals that distances are rounded to, so that sums in another order do not decide which row comes next."""

SLACK = 1 + 1e-12
"""Rounding changes a distance by less, relative to itself: what is farther than so much is no improvement."""

STALE = 0.2
"""Share of rows in hand that may be done with before they are put away."""


class Order(NamedTuple):
    """An order of n rows.

    Attributes:
        ordering: (n,) rows in the order they come.
        reachability: (n,) by row, how far it was from those before it; infinite where a walk begins.
        predecessor: (n,) by row, the row it was reached from; -1 where a walk begins.
    """

    ordering: np.ndarray
    reachability: np.ndarray
    predecessor: np.ndarray


def walk(space: MetricSpace | DistanceOracle, core: np.ndarray, max_eps: float) -> Order:
    """Orders rows by how easily each is reached.

    From a row p another row q is reached at max(core(p), d(p, q)), rounded. The first of the rows that are reached most
    easily comes next; where none is reached, the first that is left.

    Args:
        space: n rows.
        core: (n,) core distances; infinite for rows from which no other is reached.
        max_eps: distance beyond which no row is reached.
    """
    ahead = _Spatial(space, max_eps) if isinstance(space, MetricSpace) else _Listed(space, max_eps)
    n = space.n
    ordering, reachability, predecessor = np.empty(n, np.int64), np.full(n, np.inf), np.full(n, -1, np.int64)
    for step in range(n):
        row, reachability[step] = ahead.take()
        ordering[step] = row
        if core[row] < np.inf:
            ahead.reach_from(row, core[row], predecessor)
    by_row = np.empty(n)
    by_row[ordering] = reachability
    return Order(ordering, by_row, predecessor)


class _Ahead:
    """The rows that are still to come, in the order of their numbers, among some that are done with."""

    def __init__(self, n):
        self.rows = np.arange(n)
        self.reach = np.full(n, np.inf)  # of rows done with: infinite
        self.left = np.ones(n, bool)
        self.done, self.first = 0, 0

    def take(self):
        """The row that comes next, and how far it was."""
        at = int(self.reach.argmin())
        reach = self.reach[at]
        if reach == np.inf:
            while not self.left[self.first]:
                self.first += 1
            at = self.first
        row = int(self.rows[at])
        self.left[at], self.reach[at] = False, np.inf
        self.leave(at)
        self.done += 1
        if self.done > STALE * len(self.rows):
            self.keep(np.flatnonzero(self.left))
        return row, reach

    def leave(self, at):
        """Row ``at`` is done with."""

    def keep(self, kept):
        """Puts the others away."""
        self.rows, self.reach, self.left = self.rows[kept], self.reach[kept], self.left[kept]
        self.done = self.first = 0

    def improve(self, at, distances, row, core, predecessor):
        """Rows ``at`` are so far from a row."""
        reach = np.maximum(distances, core)
        np.around(reach, DECIMALS, out=reach)
        better = reach < self.reach[at]
        at = at[better]
        self.reach[at] = reach[better]
        predecessor[self.rows[at]] = row
        return at


class _Spatial(_Ahead):
    """Rows of a space: compared by sums, of which roots are taken only where they may improve."""

    def __init__(self, space, max_eps):
        super().__init__(space.n)
        self.space, self.most = space, space.threshold(max_eps)
        self.columns = np.ascontiguousarray(space.x.T)
        self.bound = np.full(space.n, np.inf)  # what a sum must be below to improve; of rows done with: negative

    def leave(self, at):
        self.bound[at] = -1

    def keep(self, kept):
        super().keep(kept)
        self.columns, self.bound = np.take(self.columns, kept, axis=1), self.bound[kept]

    def reach_from(self, row, core, predecessor):
        """Finds what is reached more easily from a row than from those before it."""
        sums = self._sums(self.space.x[row])
        near = sums < self.bound
        if self.most < np.inf:
            near &= sums <= self.most
        at = near.nonzero()[0]
        at = self.improve(at, self.space.distances(sums[at]), row, core, predecessor)
        self.bound[at] = self.space.threshold(self.reach[at]) * SLACK

    def _sums(self, x):
        power, total = self.space.power, None
        for column, value in zip(self.columns, x, strict=True):
            difference = column - value
            if power == 2:
                difference *= difference
            else:
                difference = np.abs(difference) if power in (1, np.inf) else np.abs(difference) ** power
            if total is None:
                total = difference
            elif power == np.inf:
                np.maximum(total, difference, out=total)
            else:
                total += difference
        return total


class _Listed(_Ahead):
    """Rows of which only the distances are known."""

    def __init__(self, space, max_eps):
        super().__init__(space.n)
        self.space, self.max_eps = space, max_eps

    def reach_from(self, row, core, predecessor):
        """The same."""
        distances = self.space.rows(np.array([row]))[0][self.rows]
        at = np.flatnonzero(self.left & (distances <= self.max_eps) & (distances < np.inf))
        self.improve(at, distances[at], row, core, predecessor)

"""Labels of groups that conflict, part by part of the graph of their conflicts.

Small parts are solved exactly by branch and bound. Large ones are improved by Kempe's chains: two clusters change
places along a chain of groups that hold each other in them, which keeps every pair apart.

Sources: A. H. Land and A. G. Doig, An automatic method of solving discrete programming problems, Econometrica 28
(1960); for the constraints K. Wagstaff et al., Constrained k-means clustering with background knowledge, ICML 2001,
whose one greedy pass may end without labels where there are some.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components

from jaxcluster.cluster.constrained.coloring import color

SMALL = 64
"""Groups of a part up to which the best labels are searched for."""

BRANCHES = 500
"""Branches after which a search is left with the best labels found."""


class Part(NamedTuple):
    """One connected part of the conflicts.

    Attributes:
        groups: (m,) numbers of its groups.
        near: for each of them those it is apart from, by place in ``groups``.
        colors: (m,) labels that keep all pairs apart.
    """

    groups: np.ndarray
    near: list[list[int]]
    colors: np.ndarray


def parts_of(conflicts: np.ndarray, count: int, k: int, names: np.ndarray) -> list[Part]:
    """The parts of ``count`` groups that have conflicts, with ``names`` for messages.

    Raises:
        ValueError: k clusters are too few, see `color`.
    """
    ones = np.ones(len(conflicts))
    graph = scipy.sparse.coo_array((ones, (conflicts[:, 0], conflicts[:, 1])), shape=(count, count)).tocsr()
    _, component = connected_components(graph, directed=False)
    bound = np.unique(conflicts)
    order = bound[np.argsort(component[bound], kind="stable")]
    cuts = np.flatnonzero(np.diff(component[order])) + 1
    members = [np.sort(part) for part in np.split(order, cuts)] if len(order) else []
    place = np.zeros(count, int)
    for part in members:
        place[part] = np.arange(len(part))
    near: dict[int, list[int]] = {u: [] for u in bound.tolist()}
    for u, v in conflicts.tolist():
        near[u].append(int(place[v]))
        near[v].append(int(place[u]))
    around = [[near[u] for u in part.tolist()] for part in members]
    return [Part(part, own, color(own, k, names[part])) for part, own in zip(members, around, strict=True)]


def label(part: Part, costs: np.ndarray, last: np.ndarray | None) -> np.ndarray:
    """Labels of a part that keep all pairs apart, none dearer than the last ones.

    Args:
        part: see there.
        costs: (m, k) what each group costs in each cluster.
        last: (m,) labels that were good for other costs; None at first.
    """
    nearest = costs.argmin(axis=1)
    if all((nearest[around] != nearest[u]).all() for u, around in enumerate(part.near)):
        return nearest
    known = [matched(part.colors, costs)] + ([] if last is None else [last])
    best = min(known, key=lambda labels: _total(costs, labels))
    if len(costs) <= SMALL:
        best, finished = _branch(part.near, costs, best)
        if finished:
            return best
    return _chained(part.near, costs, best)


def matched(colors: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The same labels by other names: which of the k clusters each color is, at the least cost."""
    k = costs.shape[1]
    by_color = np.zeros((k, k))
    np.add.at(by_color, colors, costs)
    return linear_sum_assignment(by_color)[1][colors]


def _total(costs, labels):
    return costs[np.arange(len(labels)), labels].sum()


def _branch(near, costs, best):
    """The best labels, and whether it is known that they are: depth first, the group with most to lose first."""
    value, m = _total(costs, best), len(costs)
    tried, stack = 0, [(0.0, np.full(m, -1), costs)]
    while stack:
        spent, labels, allowed = stack.pop()
        tried += 1
        if tried > BRANCHES:
            return best, False
        left = np.flatnonzero(labels < 0)
        if not len(left):
            # Compared by sums in one order, so that a cost that is the same does not look lower.
            total = _total(costs, labels)
            best, value = (labels, total) if total < value else (best, value)
            continue
        least = np.partition(allowed[left], 1, axis=1)[:, :2] if costs.shape[1] > 1 else allowed[left]
        if not spent + least[:, 0].sum() < value:
            continue
        with np.errstate(invalid="ignore"):
            regret = np.nan_to_num(least[:, -1] - least[:, 0], nan=np.inf)
        group = left[regret.argmax()]
        around = [v for v in near[group] if labels[v] < 0]
        for cluster in np.argsort(-allowed[group], kind="stable"):
            if np.isfinite(allowed[group, cluster]):
                chosen, narrower = labels.copy(), allowed.copy()
                chosen[group] = cluster
                narrower[around, cluster] = np.inf
                stack.append((spent + costs[group, cluster], chosen, narrower))
    return best, True


def _chained(near, costs, labels):
    """Labels that no change along a chain lowers the cost of."""
    labels, rows, changed = labels.copy(), np.arange(len(labels)), True
    trifle = 1e-12 * np.abs(costs).max()  # what rounding makes of nothing would be changed to and fro
    while changed:
        changed = False
        for group in np.argsort(costs.min(axis=1) - costs[rows, labels]).tolist():
            for cluster in np.flatnonzero(costs[group] < costs[group, labels[group]]).tolist():
                chain = _chain(near, labels, group, cluster)
                swapped = labels[group] + cluster - labels[chain]
                if (costs[chain, swapped] - costs[chain, labels[chain]]).sum() < -trifle * len(chain):
                    labels[chain], changed = swapped, True
                    break
    return labels


def _chain(near, labels, start, cluster):
    """The groups that have to change if ``start`` takes another cluster and its own is given for it."""
    pair = {int(labels[start]), cluster}
    chain, seen = [start], {start}
    for u in chain:
        for v in near[u]:
            if v not in seen and int(labels[v]) in pair:
                seen.add(v)
                chain.append(v)
    return chain

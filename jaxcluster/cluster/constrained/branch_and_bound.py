"""Assignment of groups in conflict, one connected component of the conflict graph at a time.

Small components are solved exactly by branch and bound. Large ones are improved by Kempe chains: two colors are swapped
in a connected part of the groups that have them, which keeps the coloring proper.

Sources: A. H. Land and A. G. Doig, An automatic method of solving discrete programming problems, Econometrica 28
(1960). The one greedy pass of Wagstaff et al. (ICML 2001) may end without labels where there are some.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components

from jaxcluster.cluster.constrained.constraints import color
from jaxcluster.core import signals

MAX_EXACT_GROUPS = 64
"""Groups of a component up to which branch and bound is tried."""

MAX_BRANCHES = 500
"""Branches after which the search ends with the best labels so far."""


class Component(NamedTuple):
    """Connected component of the conflict graph.

    Attributes:
        groups: (m,) numbers of its groups.
        neighbors: for each group those in conflict with it, by place in ``groups``.
        colors: (m,) labels that keep all conflicts.
    """

    groups: np.ndarray
    neighbors: list[list[int]]
    colors: np.ndarray


def conflict_components(conflicts: np.ndarray, count: int, k: int, names: np.ndarray) -> list[Component]:
    """Components, of more than one group, of the conflict graph on ``count`` groups, with ``names`` for messages.

    Raises:
        ValueError: k clusters are too few, see `color`.
    """
    ones = np.ones(len(conflicts))
    graph = scipy.sparse.coo_array((ones, (conflicts[:, 0], conflicts[:, 1])), shape=(count, count)).tocsr()
    _, component = connected_components(graph, directed=False)
    in_conflict = np.unique(conflicts)
    order = in_conflict[np.argsort(component[in_conflict], kind="stable")]
    cuts = np.flatnonzero(np.diff(component[order])) + 1
    members = [np.sort(part) for part in np.split(order, cuts)] if len(order) else []
    place = np.zeros(count, int)
    for part in members:
        place[part] = np.arange(len(part))
    adjacency: dict[int, list[int]] = {u: [] for u in in_conflict.tolist()}
    for u, v in conflicts.tolist():
        adjacency[u].append(int(place[v]))
        adjacency[v].append(int(place[u]))
    around = [[adjacency[u] for u in part.tolist()] for part in members]
    return [Component(part, near, color(near, k, names[part])) for part, near in zip(members, around, strict=True)]


def label_component(component: Component, costs: np.ndarray, prev: np.ndarray | None) -> np.ndarray:
    """Labels of a component that keep all conflicts and cost no more than the previous ones.

    Args:
        component: of m groups.
        costs: (m, k) cost of each group in each cluster.
        prev: (m,) labels of the previous assignment; None at first.

    Returns:
        (m,) labels.
    """
    # Where the nearest centers keep all conflicts no other labels can cost less.
    nearest = costs.argmin(axis=1)
    if all((nearest[around] != nearest[u]).all() for u, around in enumerate(component.neighbors)):
        return nearest
    # The previous labels are feasible too: with them among the candidates the inertia never rises.
    feasible = [match_colors(component.colors, costs)] + ([] if prev is None else [prev])
    best = min(feasible, key=lambda labels: _total(costs, labels))
    if len(costs) <= MAX_EXACT_GROUPS:
        best, optimal = _branch_and_bound(component.neighbors, costs, best)
        if optimal:
            return best
    return _improve_by_kempe_chains(component.neighbors, costs, best)


def match_colors(colors: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Colors renamed to clusters at the least cost (linear assignment)."""
    k = costs.shape[1]
    by_color = np.zeros((k, k))
    np.add.at(by_color, colors, costs)
    return linear_sum_assignment(by_color)[1][colors]


def _total(costs, labels):
    return costs[np.arange(len(labels)), labels].sum()


def _branch_and_bound(neighbors, costs, best):
    """Best labels, and whether they are proven optimal: depth first, the group of the largest regret first.

    The lower bound of a branch is its cost so far plus the least allowed cost of every group without a label.
    """
    value, m = _total(costs, best), len(costs)
    branches, stack = 0, [(0.0, np.full(m, -1), costs)]
    while stack:
        signals.check_stopped()
        spent, labels, allowed = stack.pop()
        branches += 1
        if branches > MAX_BRANCHES:
            return best, False
        free = np.flatnonzero(labels < 0)
        if not len(free):
            # Compared by sums in one order, so that rounding does not make an equal cost look lower.
            total = _total(costs, labels)
            best, value = (labels, total) if total < value else (best, value)
            continue
        least = np.partition(allowed[free], 1, axis=1)[:, :2] if costs.shape[1] > 1 else allowed[free]
        if not spent + least[:, 0].sum() < value:
            continue
        with np.errstate(invalid="ignore"):
            regret = np.nan_to_num(least[:, -1] - least[:, 0], nan=np.inf)
        group = free[regret.argmax()]
        around = [v for v in neighbors[group] if labels[v] < 0]
        # The cheapest cluster last: it is on top of the stack, and a good solution early prunes the rest.
        for cluster in np.argsort(-allowed[group], kind="stable"):
            if np.isfinite(allowed[group, cluster]):
                branch, narrowed = labels.copy(), allowed.copy()
                branch[group] = cluster
                narrowed[around, cluster] = np.inf
                stack.append((spent + costs[group, cluster], branch, narrowed))
    return best, True


def _improve_by_kempe_chains(neighbors, costs, labels):
    """Labels whose cost no swap along a Kempe chain lowers: a local optimum."""
    labels, rows, changed = labels.copy(), np.arange(len(labels)), True
    # A swap must gain more than rounding, or equal labels would be swapped to and fro without end.
    min_gain = 1e-12 * np.abs(costs).max()
    while changed:
        changed = False
        for group in np.argsort(costs.min(axis=1) - costs[rows, labels]).tolist():
            signals.check_stopped()
            for cluster in np.flatnonzero(costs[group] < costs[group, labels[group]]).tolist():
                chain = _kempe_chain(neighbors, labels, group, cluster)
                swapped = labels[group] + cluster - labels[chain]
                if (costs[chain, swapped] - costs[chain, labels[chain]]).sum() < -min_gain * len(chain):
                    labels[chain], changed = swapped, True
                    break
    return labels


def _kempe_chain(neighbors, labels, start, cluster):
    """Groups connected to ``start`` through groups of its own cluster and ``cluster``: they all have to swap."""
    pair = {int(labels[start]), cluster}
    chain, seen = [start], {start}
    for u in chain:
        for v in neighbors[u]:
            if v not in seen and int(labels[v]) in pair:
                seen.add(v)
                chain.append(v)
    return chain

"""Which clusters of the condensed tree are those that are told: the stable ones, or the last ones."""

from __future__ import annotations

import numpy as np

from jaxcluster.cluster.hdbscan.condense import CondensedTree

METHODS = ("eom", "leaf")
"""Ways to select clusters: excess of mass, or those that do not split."""


def stabilities(tree: CondensedTree) -> np.ndarray:
    """(c,) of each cluster, its rows times how long each stays: Σ (λ at which it leaves − λ at which it begins).

    Not a number where rows leave in the moment at which the cluster begins, and that is at a distance of 0.
    """
    clusters = tree.parent - tree.n
    _, births = tree.ups()
    with np.errstate(invalid="ignore"):
        stays = (tree.lambda_val - births[clusters]) * tree.child_size
        return np.bincount(clusters, stays, minlength=tree.clusters)


def select(
    tree: CondensedTree,
    method: str,
    *,
    epsilon: float = 0.0,
    max_cluster_size: int | None = None,
    allow_single_cluster: bool = False,
) -> np.ndarray:
    """The selected clusters, counted from 0 as the tree numbers them, in ascending order.

    Args:
        tree: of c clusters.
        method: one of `METHODS`. "eom" takes a cluster if it is at least as stable as all that is selected below it.
        epsilon: clusters that begin at a smaller distance give way to the last above them that begins at a greater.
        max_cluster_size: rows that "eom" takes as one cluster at most.
        allow_single_cluster: whether "eom" and ``epsilon`` may select all rows.

    Sources: Campello et al. 2013, section 3.3; C. Malzer and M. Baum, A hybrid approach to hierarchical density-based
    cluster selection, MFI 2020, for ``epsilon``.
    """
    parents, births = (values.tolist() for values in tree.ups())
    if method == "eom":
        chosen = _excess_of_mass(tree, parents, max_cluster_size, allow_single_cluster)
    else:
        chosen = sorted(set(range(1, len(parents))) - set(parents))
    if epsilon > 0 and chosen != [0]:
        chosen = _at_least(epsilon, chosen, parents, births, allow_single_cluster)
    return np.array(chosen, np.int64)


def _excess_of_mass(tree, parents, max_cluster_size, allow_single_cluster):
    best, sizes = stabilities(tree).tolist(), _sizes(tree)
    below, taken = [0.0] * len(parents), [False] * len(parents)
    most = tree.n if max_cluster_size is None else max_cluster_size
    for cluster in range(len(parents) - 1, -1 if allow_single_cluster else 0, -1):
        # One that is not a number is not less stable than what is below it.
        if below[cluster] > best[cluster] or sizes[cluster] > most:
            best[cluster] = below[cluster]
        else:
            taken[cluster] = True
        below[parents[cluster]] += best[cluster]
    chosen, covered = [], [False] * len(parents)
    for cluster, parent in enumerate(parents):
        covered[cluster] = parent >= 0 and (covered[parent] or taken[parent])
        if taken[cluster] and not covered[cluster]:
            chosen.append(cluster)
    return chosen


def _sizes(tree):
    """Rows of each cluster; of that of all rows, those that do not fall out of it."""
    inner = tree.child >= tree.n
    sizes = np.zeros(tree.clusters, np.int64)
    sizes[tree.child[inner] - tree.n] = tree.child_size[inner]
    sizes[0] = tree.child_size[inner & (tree.parent == tree.n)].sum()
    return sizes.tolist()


def _at_least(epsilon, chosen, parents, births, allow_single_cluster):
    """The clusters that take the place of those that begin at a distance below epsilon, and the others."""
    with np.errstate(divide="ignore"):
        distances = (1 / np.array(births)).tolist()
    instead = set()
    for cluster in chosen:
        if distances[cluster] < epsilon:
            while parents[cluster] > 0:
                cluster = parents[cluster]
                if distances[cluster] > epsilon:
                    break
            else:
                cluster = 0 if allow_single_cluster else cluster
        instead.add(cluster)
    return sorted(instead)

"""Scores that count pairs or match clusters to classes, exact on the host for millions of labels.

Every score takes two (n,) labelings, any sortable labels, and does not care what they are called. Two empty
labelings agree perfectly: 1. Unequal lengths, and labels that are not 1-D, raise ValueError.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from jaxcluster.metrics.contingency import Contingency, compare, pair_counts, tabulate
from jaxcluster.metrics.labels import encode_pair


def rand_score(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Share of pairs of rows on which the labelings agree, in [0, 1].

    Source: Rand, Objective criteria for the evaluation of clustering methods, 1971.
    """
    apart, pred_only, true_only, together = pair_counts(compare(labels_true, labels_pred))
    pairs = apart + pred_only + true_only + together
    return (apart + together) / pairs if pairs else 1.0


def adjusted_rand_score(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """The Rand index corrected for chance: 1 for equal partitions, 0 on average for random ones, at least −0.5.

    The products of pair counts reach n⁴, far beyond int64, and are Python integers here.

    Source: Hubert and Arabie, Comparing partitions, 1985.
    """
    apart, pred_only, true_only, together = pair_counts(compare(labels_true, labels_pred))
    if pred_only == 0 and true_only == 0:
        return 1.0
    agreement = 2 * (together * apart - true_only * pred_only)
    return agreement / ((together + true_only) * (true_only + apart) + (together + pred_only) * (pred_only + apart))


def fowlkes_mallows_score(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Geometric mean of the pair precision and recall, in [0, 1]; 0 when no pair is together in both.

    Source: Fowlkes and Mallows, A method for comparing two hierarchical clusterings, 1983.
    """
    _, pred_only, true_only, together = pair_counts(compare(labels_true, labels_pred))
    if together == 0:
        return 0.0
    return math.sqrt(together / (together + pred_only)) * math.sqrt(together / (together + true_only))


def purity_score(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Share of rows that belong to the commonest class of their cluster, in (0, 1].

    More clusters never lower it: one cluster a row scores 1.

    Source: Zhao and Karypis, Criterion functions for document clustering, 2001.
    """
    table = compare(labels_true, labels_pred)
    if table.n == 0:
        return 1.0
    commonest = np.zeros(table.col_totals.size, np.int64)
    np.maximum.at(commonest, table.col, table.counts)
    return int(commonest.sum()) / table.n


def clustering_accuracy(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Share of rows labeled right once clusters are matched to classes, one to one, as well as possible.

    With more clusters than classes, or fewer, the rows of whatever stays unmatched count as wrong.

    Source: Kuhn, The Hungarian method for the assignment problem, 1955.
    """
    table = compare(labels_true, labels_pred)
    if table.n == 0:
        return 1.0
    dense = table.dense()
    return int(dense[_match(dense)].sum()) / table.n


def optimal_matching(labels_true: ArrayLike, labels_pred: ArrayLike) -> dict:
    """The one-to-one naming of clusters by classes that gets the most rows right.

    Returns:
        ``{cluster: class}`` over the min(classes, clusters) matched pairs. Renaming ``labels_pred`` by it puts the
        matched rows on the diagonal of `confusion_matrix`.
    """
    true, pred = encode_pair(labels_true, labels_pred)
    table: Contingency = tabulate(true, pred)
    classes, clusters = _match(table.dense())
    return dict(zip(pred.classes[clusters].tolist(), true.classes[classes].tolist(), strict=True))


def _match(dense):
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(dense, maximize=True)

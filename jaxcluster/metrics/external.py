"""Scores against known classes: pair counts, matching, information (nats); exact, on the host.

Every score takes two (n_samples,) labelings of any sortable type and is invariant to renaming. Two empty labelings
agree perfectly: 1. Unequal lengths, and labels that are not 1-D, raise ValueError.

>>> adjusted_rand_score([0, 0, 1, 1], ["b", "b", "a", "a"])
1.0
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxcluster.core.validation import check_choice, check_positive
from jaxcluster.metrics.contingency import (
    Contingency,
    contingency_table,
    cross_tabulate,
    encode_pair,
    pair_counts,
)
from jaxcluster.types import Absent

MAX_INT64_SAMPLES = 3_037_000_499
"""Largest number of samples whose square is within int64: ⌊√(2⁶³ − 1)⌋."""

TAIL_EXPONENT = 40.0
"""Counts whose probability is below e^−40 ≈ 4e-18, under float64's resolution of 2e-16, are not summed."""

CHUNK_TERMS = 1 << 18
"""Terms of the expectation evaluated at a time: temporaries of 2 MiB, which stay in the cache."""

AVERAGES = {
    "arithmetic": lambda u, v: (u + v) / 2,
    "geometric": lambda u, v: math.sqrt(u * v),
    "min": min,
    "max": max,
}
"""Means of the two entropies that the normalized and adjusted scores divide by."""


def rand_score(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Fraction of pairs of samples on which the labelings agree, in [0, 1].

    Source: Rand, Objective criteria for the evaluation of clustering methods, 1971.
    """
    apart, pred_only, true_only, together = pair_counts(contingency_table(labels_true, labels_pred))
    pairs = apart + pred_only + true_only + together
    return (apart + together) / pairs if pairs else 1.0


def adjusted_rand_score(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """The Rand index corrected for chance: 1 for equal partitions, 0 on average for random ones, at least −0.5.

    Source: Hubert and Arabie, Comparing partitions, 1985.
    """
    apart, pred_only, true_only, together = pair_counts(contingency_table(labels_true, labels_pred))
    if pred_only == 0 and true_only == 0:
        return 1.0
    # Products of pair counts reach n⁴, far beyond int64: these are Python integers, and the quotient is rounded once.
    agreement = 2 * (together * apart - true_only * pred_only)
    return agreement / ((together + true_only) * (true_only + apart) + (together + pred_only) * (pred_only + apart))


def fowlkes_mallows_score(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Geometric mean of the pair precision and recall, in [0, 1]; 0 when no pair is together in both.

    Source: Fowlkes and Mallows, A method for comparing two hierarchical clusterings, 1983.
    """
    _, pred_only, true_only, together = pair_counts(contingency_table(labels_true, labels_pred))
    if together == 0:
        return 0.0
    return math.sqrt(together / (together + pred_only)) * math.sqrt(together / (together + true_only))


def purity_score(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Fraction of samples that belong to the most frequent class of their cluster, in (0, 1].

    More clusters never lower it: one cluster per sample scores 1.

    Source: Zhao and Karypis, Criterion functions for document clustering, 2001.
    """
    table = contingency_table(labels_true, labels_pred)
    if table.n == 0:
        return 1.0
    largest = np.zeros(table.col_totals.size, np.int64)
    np.maximum.at(largest, table.col, table.counts)
    return int(largest.sum()) / table.n


def clustering_accuracy(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Fraction of samples labeled correctly under the best one-to-one matching of clusters to classes.

    Samples of unmatched clusters or classes, where their numbers differ, count as wrong.

    Source: Kuhn, The Hungarian method for the assignment problem, 1955.
    """
    table = contingency_table(labels_true, labels_pred)
    if table.n == 0:
        return 1.0
    dense = table.dense()
    return int(dense[_hungarian(dense)].sum()) / table.n


def optimal_matching(labels_true: ArrayLike, labels_pred: ArrayLike) -> dict:
    """The one-to-one matching of clusters to classes with the most samples labeled correctly.

    Returns:
        ``{cluster: class}`` over the min(n_classes, n_clusters) matched pairs. Renaming ``labels_pred`` by it puts the
        matched samples on the diagonal of `confusion_matrix`.
    """
    true, pred = encode_pair(labels_true, labels_pred)
    classes, clusters = _hungarian(cross_tabulate(true, pred).dense())
    return dict(zip(pred.classes[clusters].tolist(), true.classes[classes].tolist(), strict=True))


def mutual_info_score(
    labels_true: ArrayLike | Absent, labels_pred: ArrayLike | Absent, *, contingency: Any = None
) -> float:
    """Mutual information of the labelings (nats), at least 0.

    Args:
        labels_true, labels_pred: (n_samples,) labels; ignored if ``contingency`` is passed.
        contingency: (n_classes, n_clusters) integer counts, dense or ``scipy.sparse``.

    Raises:
        ValueError: see the module; a contingency that is not a matrix of non-negative integers.
    """
    if contingency is not None:
        return _mutual_information(_as_contingency(contingency))
    return _mutual_information(contingency_table(labels_true, labels_pred))


def normalized_mutual_info_score(
    labels_true: ArrayLike, labels_pred: ArrayLike, *, average_method: str = "arithmetic"
) -> float:
    """Mutual information over a mean of the two entropies, in [0, 1]; not adjusted for chance.

    Args:
        average_method: "arithmetic", "geometric", "min" or "max".

    Source: Strehl and Ghosh, Cluster ensembles, 2002.
    """
    check_choice("average_method", average_method, AVERAGES)
    table = contingency_table(labels_true, labels_pred)
    if max(table.shape) <= 1:
        return 1.0
    information = _mutual_information(table)
    if information == 0:
        return 0.0
    # Rounding may lift the quotient above 1.
    return min(1.0, information / _average_entropy(table, average_method))


def adjusted_mutual_info_score(
    labels_true: ArrayLike, labels_pred: ArrayLike, *, average_method: str = "arithmetic"
) -> float:
    """Mutual information corrected for chance: 1 for equal partitions, 0 on average for random ones.

    (MI − E[MI]) / (mean entropy − E[MI]), the expectation over all labelings with the same cluster sizes.

    Args:
        average_method: "arithmetic", "geometric", "min" or "max".

    Source: Vinh, Epps and Bailey, Information theoretic measures for clusterings comparison, 2010.
    """
    check_choice("average_method", average_method, AVERAGES)
    table = contingency_table(labels_true, labels_pred)
    if max(table.shape) <= 1:
        return 1.0
    if min(table.shape) == 1:
        return 0.0
    # Expected under random labelings with the same cluster sizes, the hypergeometric model (Vinh, Epps and Bailey,
    # 2010).
    expected = expected_mutual_information(table.row_totals, table.col_totals)
    gain = _mutual_information(table) - expected
    return float(_avoid_zero(gain) / _avoid_zero(_average_entropy(table, average_method) - expected))


def homogeneity_completeness_v_measure(
    labels_true: ArrayLike, labels_pred: ArrayLike, *, beta: float = 1.0
) -> tuple[float, float, float]:
    """Homogeneity, completeness and their weighted harmonic mean, the V-measure.

    Args:
        beta: above 1 completeness weighs more, below 1 homogeneity.

    Returns:
        homogeneity: 1 − H(class | cluster) / H(class), 1 if every cluster holds one class only.
        completeness: 1 − H(cluster | class) / H(cluster), 1 if every class lies in one cluster.
        v_measure: in [0, 1], as the others.

    Source: Rosenberg and Hirschberg, V-measure, 2007.
    """
    check_positive("beta", beta, zero=True)
    table = contingency_table(labels_true, labels_pred)
    if table.n == 0:
        return 1.0, 1.0, 1.0
    information = _mutual_information(table)
    homogeneity, completeness = (
        # An entropy of 0 is a single class, or cluster: homogeneous, or complete, by definition.
        min(1.0, information / entropy) if entropy else 1.0
        for entropy in (_entropy(table.row_totals), _entropy(table.col_totals))
    )
    if homogeneity + completeness == 0:
        return homogeneity, completeness, 0.0
    v = (1 + beta) * homogeneity * completeness / (beta * homogeneity + completeness)
    return homogeneity, completeness, float(v)


def homogeneity_score(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Homogeneity 1 − H(class | cluster) / H(class), in [0, 1]: 1 if every cluster holds one class only."""
    return homogeneity_completeness_v_measure(labels_true, labels_pred)[0]


def completeness_score(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """Completeness 1 − H(cluster | class) / H(cluster), in [0, 1]: 1 if every class lies in one cluster."""
    return homogeneity_completeness_v_measure(labels_true, labels_pred)[1]


def v_measure_score(labels_true: ArrayLike, labels_pred: ArrayLike, *, beta: float = 1.0) -> float:
    """Weighted harmonic mean of homogeneity and completeness, in [0, 1]; with beta 1 the arithmetic NMI."""
    return homogeneity_completeness_v_measure(labels_true, labels_pred, beta=beta)[2]


def expected_mutual_information(row_totals: np.ndarray, col_totals: np.ndarray) -> float:
    """E[MI] (nats) of a table with these margins and samples assigned at random.

    The count m in a cell with margins a and b is hypergeometric, and the cell contributes E[m/n · log(n·m / (a·b))].
    Three things make the sum fast and exact: cells of equal margins are summed once; m runs only where a Bernstein
    bound leaves any probability; and the probabilities come from the ratios of neighbors, normalized to 1, which
    needs no factorial (at n = 10⁶ the logarithm of one loses 9 of float64's 16 digits).

    Args:
        row_totals: (n_classes,) positive integers, samples of each class.
        col_totals: (n_clusters,) positive integers, samples of each cluster, with the same sum n.

    Source: Vinh, Epps and Bailey, Information theoretic measures for clusterings comparison, 2010, equation 24a.
    """
    n = float(row_totals.sum())
    a, row_copies = np.unique(row_totals, return_counts=True)
    b, col_copies = np.unique(col_totals, return_counts=True)
    a, b = (side.ravel().astype(np.float64) for side in np.meshgrid(a, b, indexing="ij"))
    copies = np.outer(row_copies, col_copies).ravel()
    low, high = _likely_counts(a, b, n)
    # Cells of similar width share a chunk, which is padded to its widest.
    order = np.argsort(high - low)
    total, start = 0.0, 0
    while start < order.size:
        widths = (high - low)[order[start : start + CHUNK_TERMS]] + 1
        size = max(1, int(np.searchsorted(widths * np.arange(1, widths.size + 1), CHUNK_TERMS, side="right")))
        cells = order[start : start + size]
        total += float(np.dot(copies[cells], _expected_terms(a[cells], b[cells], low[cells], high[cells], n)))
        start += cells.size
    return total


def _likely_counts(a, b, n):
    """The counts of a cell with probability above e^−TAIL_EXPONENT, by Bernstein's inequality, if possible at all."""
    mean = a * b / n
    variance = mean * (1 - np.maximum(a, b) / n)
    # P(|m − mean| >= t) <= 2·exp(−t²/(2·variance + 2t/3)): t solves t² = TAIL·(2·variance + 2t/3).
    deviation = TAIL_EXPONENT / 3 + np.sqrt(TAIL_EXPONENT**2 / 9 + 2 * TAIL_EXPONENT * variance)
    low = np.maximum(np.floor(mean - deviation), np.maximum(0, a + b - n))
    high = np.minimum(np.ceil(mean + deviation), np.minimum(a, b))
    return low, high


def _expected_terms(a, b, low, high, n):
    """E[m/n · log(n·m / (a·b))] of each cell."""
    a, b, low, high = a[:, None], b[:, None], low[:, None], high[:, None]
    m = low + np.arange(int((high - low).max()) + 1)
    # P(m + 1)/P(m) of the hypergeometric distribution; 0 from `high` on, whose log −∞ ends the padding.
    ratio = np.where(m < high, (a - m) * (b - m), 0) / ((m + 1) * (n - a - b + m + 1))
    with np.errstate(divide="ignore"):
        log_probability = np.cumsum(np.log(ratio), axis=1)
    log_probability = np.concatenate([np.zeros_like(low), log_probability[:, :-1]], axis=1)
    probability = np.exp(log_probability - log_probability.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    log_ratio = np.log(n * np.maximum(m, 1) / (a * b))
    return np.sum(probability * m * log_ratio, axis=1) / n


def _hungarian(dense):
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(dense, maximize=True)


def _mutual_information(table: Contingency) -> float:
    if min(table.shape) <= 1:
        return 0.0
    n = table.n
    # Both products are exact in int64: a cell that chance alone explains contributes exactly 0.
    rows, cols, counts = table.row_totals, table.col_totals, table.counts
    if n > MAX_INT64_SAMPLES:
        rows, cols, counts = (each.astype(np.float64) for each in (rows, cols, counts))
    log_ratio = np.log(n * counts / (rows[table.row] * cols[table.col]))
    return max(0.0, float(np.dot(table.counts, log_ratio)) / n)


def _entropy(totals):
    n = totals.sum()
    return 0.0 if totals.size <= 1 else float(np.dot(totals, np.log(n / totals))) / int(n)


def _average_entropy(table, average_method):
    return AVERAGES[average_method](_entropy(table.row_totals), _entropy(table.col_totals))


def _avoid_zero(value):
    """Move a value at least machine epsilon away from 0.

    Partitions whose sizes leave chance no choice have gain 0 and range 0; their score is 1 by convention.
    """
    eps = np.finfo(np.float64).eps
    return min(value, -eps) if value < 0 else max(value, eps)


def _as_contingency(contingency) -> Contingency:
    matrix = contingency.toarray() if hasattr(contingency, "toarray") else np.asarray(contingency)
    whole = matrix.dtype.kind in "biu" or (
        matrix.dtype.kind == "f" and bool(np.all((matrix == np.floor(matrix)) & (np.abs(matrix) < 2.0**63)))
    )
    if matrix.ndim != 2 or not whole or (matrix < 0).any():
        raise ValueError(
            f"contingency must be a matrix of non-negative integers, got shape {matrix.shape} and dtype {matrix.dtype}."
        )
    matrix = matrix.astype(np.int64)
    row, col = np.nonzero(matrix)
    return Contingency(matrix[row, col], row, col, matrix.sum(axis=1), matrix.sum(axis=0))

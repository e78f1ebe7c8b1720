"""Scores from information theory, in natural units (nats), exact to float64 for millions of labels.

Every score takes two (n,) labelings, any sortable labels, and does not care what they are called. Unequal lengths,
and labels that are not 1-D, raise ValueError.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from jaxcluster.core.check import check_choice, check_positive
from jaxcluster.metrics.contingency import Contingency, compare
from jaxcluster.metrics.expected import expected_mutual_information

EXACT_ROWS = 3_037_000_499
"""Rows whose number squared is within int64."""

AVERAGES = {
    "arithmetic": lambda u, v: (u + v) / 2,
    "geometric": lambda u, v: math.sqrt(u * v),
    "min": min,
    "max": max,
}
"""Means of the two entropies that the normalized and adjusted scores divide by."""


def mutual_info_score(labels_true: ArrayLike | None, labels_pred: ArrayLike | None, *, contingency=None) -> float:
    """Mutual information of the labelings, at least 0.

    Args:
        labels_true, labels_pred: (n,) labels; not looked at when ``contingency`` is given.
        contingency: (classes, clusters) integer counts, dense or ``scipy.sparse``.

    Raises:
        ValueError: see the module; a contingency that is not a matrix of non-negative integers.
    """
    table = compare(labels_true, labels_pred) if contingency is None else _from_matrix(contingency)
    return _mutual_information(table)


def normalized_mutual_info_score(
    labels_true: ArrayLike, labels_pred: ArrayLike, *, average_method: str = "arithmetic"
) -> float:
    """Mutual information over a mean of the two entropies, in [0, 1]; not adjusted for chance.

    Args:
        average_method: "arithmetic", "geometric", "min" or "max".

    Source: Strehl and Ghosh, Cluster ensembles, 2002.
    """
    check_choice("average_method", average_method, AVERAGES)
    table = compare(labels_true, labels_pred)
    if max(table.shape) <= 1:
        return 1.0
    information = _mutual_information(table)
    if information == 0:
        return 0.0
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
    table = compare(labels_true, labels_pred)
    if max(table.shape) <= 1:
        return 1.0
    if min(table.shape) == 1:
        return 0.0
    expected = expected_mutual_information(table.row_totals, table.col_totals)
    gain = _mutual_information(table) - expected
    return float(_away_from_zero(gain) / _away_from_zero(_average_entropy(table, average_method) - expected))


def homogeneity_completeness_v_measure(
    labels_true: ArrayLike, labels_pred: ArrayLike, *, beta: float = 1.0
) -> tuple[float, float, float]:
    """Homogeneity, completeness and their weighted harmonic mean, each in [0, 1].

    Homogeneity is 1 when every cluster holds one class only, completeness when every class lies in one cluster.

    Args:
        beta: above 1 completeness weighs more, below 1 homogeneity.

    Source: Rosenberg and Hirschberg, V-measure, 2007.
    """
    check_positive("beta", beta, zero=True)
    table = compare(labels_true, labels_pred)
    if table.n == 0:
        return 1.0, 1.0, 1.0
    information = _mutual_information(table)
    homogeneity, completeness = (
        min(1.0, information / entropy) if entropy else 1.0
        for entropy in (_entropy(table.row_totals), _entropy(table.col_totals))
    )
    if homogeneity + completeness == 0:
        return homogeneity, completeness, 0.0
    v = (1 + beta) * homogeneity * completeness / (beta * homogeneity + completeness)
    return homogeneity, completeness, float(v)


def homogeneity_score(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """How far every cluster holds one class only: 1 − H(class | cluster) / H(class), in [0, 1]."""
    return homogeneity_completeness_v_measure(labels_true, labels_pred)[0]


def completeness_score(labels_true: ArrayLike, labels_pred: ArrayLike) -> float:
    """How far every class lies in one cluster: 1 − H(cluster | class) / H(cluster), in [0, 1]."""
    return homogeneity_completeness_v_measure(labels_true, labels_pred)[1]


def v_measure_score(labels_true: ArrayLike, labels_pred: ArrayLike, *, beta: float = 1.0) -> float:
    """Weighted harmonic mean of homogeneity and completeness, in [0, 1]; with beta 1 the arithmetic NMI."""
    return homogeneity_completeness_v_measure(labels_true, labels_pred, beta=beta)[2]


def _mutual_information(table: Contingency) -> float:
    if min(table.shape) <= 1:
        return 0.0
    n = table.n
    # Both products are exact in int64: a cell that chance alone explains contributes exactly 0.
    rows, cols, counts = table.row_totals, table.col_totals, table.counts
    if n > EXACT_ROWS:
        rows, cols, counts = (each.astype(np.float64) for each in (rows, cols, counts))
    surprise = np.log(n * counts / (rows[table.row] * cols[table.col]))
    return max(0.0, float(np.dot(table.counts, surprise)) / n)


def _entropy(totals):
    n = totals.sum()
    return 0.0 if totals.size <= 1 else float(np.dot(totals, np.log(n / totals))) / int(n)


def _average_entropy(table, average_method):
    return AVERAGES[average_method](_entropy(table.row_totals), _entropy(table.col_totals))


def _away_from_zero(value):
    """Two partitions that chance fixes completely give 0 / 0, which by convention is 1."""
    eps = np.finfo(np.float64).eps
    return min(value, -eps) if value < 0 else max(value, eps)


def _from_matrix(contingency) -> Contingency:
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

"""Messages of fits whose status is no convergence: the cause, and what to do."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxcluster.core.dtypes import float_dtype
from jaxcluster.core.preparation import counting
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.estimators.input_tables import row_bytes


def empty_message(n_clusters: int, X: Any, weights: np.ndarray | None, labels: np.ndarray | None) -> str:
    """Cause of empty clusters, in words: too few distinct samples, too few of positive weight, or precision."""
    # The first cause that explains the count is reported: duplicates, zero weights, weights below the dtype's
    # resolution, precision.
    positive = np.ones(X.shape[0], bool) if weights is None else weights > 0
    occupied = "fewer" if labels is None else np.unique(labels[positive]).size
    message = f"Number of distinct clusters ({occupied}) found smaller than n_clusters ({n_clusters}). "
    distinct = distinct_rows(X, positive)
    if distinct < n_clusters and distinct < positive.sum():
        return message + (
            f"Possibly due to duplicate points in X. X has {distinct} distinct row{'' if distinct == 1 else 's'} "
            "of positive weight: pass fewer clusters."
        )
    if distinct < n_clusters:
        return message + f"Only {distinct} row{' has' if distinct == 1 else 's have'} a positive sample_weight."
    dtype = float_dtype(X.dtype)
    counted = positive if weights is None else counting(weights, dtype)
    if (heavy := distinct_rows(X, counted)) < n_clusters:
        return message + (
            f"Only {heavy} of {distinct} distinct rows count: the other weights are too small beside the largest for "
            f"{dtype}. Pass weights that differ by less than 1e38, or fewer clusters."
        )
    return message + (
        f"X has {distinct} distinct rows, so some cannot be told apart in the precision of the computation, or "
        "were never nearest to a center: scale the columns, pass another init, or compute in float64 with "
        "jax.config.update('jax_enable_x64', True)."
    )


def distinct_rows(X: Any, counted: np.ndarray) -> int:
    """Number of distinct rows among those that the mask ``counted`` selects."""
    if is_sparse(X):
        return len(set(row_bytes(X[counted])))
    return len(np.unique(X[counted], axis=0))


PRECISION_MESSAGE = (
    "Rows of X differ by less than float32 can tell apart beside their distance from the other rows, so labels may not "
    "be those of exact arithmetic. Scale the columns, drop rows that are far away, subtract what integers beyond 2^53 "
    "have in common, or compute in float64 with jax.config.update('jax_enable_x64', True)."
)
"""Warning of a fit whose status is PRECISION, with its remedies."""

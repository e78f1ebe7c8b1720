"""Rows that are clustered, and those that hold NaN or infinity, which are labeled apart as scikit-learn does it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from jaxcluster.cluster.hdbscan.state import INFINITE, MISSING
from jaxcluster.core import check
from jaxcluster.ops.metric_space import concrete_rows


class FiniteRows(NamedTuple):
    """The finite rows among N.

    Attributes:
        x: (n, d) the rows.
        index: (n,) int64 their numbers.
        labels: (N,) int32 0 for them, `INFINITE` or `MISSING` for the others.
    """

    x: np.ndarray
    index: np.ndarray
    labels: np.ndarray


def finite_rows(x: Any) -> FiniteRows:
    """Separates rows that hold NaN or infinity from a concrete matrix.

    A row with NaN is missing, whatever else it holds, and so is one with infinities of both signs: its sum is NaN, by
    which scikit-learn tells them.

    Raises:
        ValueError, TypeError: see `jaxcluster.core.check.check_matrix`; rows that are traced.
    """
    x = concrete_rows(x) if check.is_traced(x) else np.asarray(check.check_matrix(x))
    finite = np.isfinite(x).all(axis=1)
    labels = np.zeros(len(x), np.int32)
    if finite.all():
        return FiniteRows(x, np.arange(len(x)), labels)
    others = x[~finite]
    missing = np.isnan(others).any(axis=1) | (np.isposinf(others).any(axis=1) & np.isneginf(others).any(axis=1))
    labels[~finite] = np.where(missing, MISSING, INFINITE)
    return FiniteRows(x[finite], np.flatnonzero(finite), labels)


def known_distances(x: Any) -> np.ndarray | scipy.sparse.csr_array:
    """A matrix of distances, dense or CSR, that holds no NaN.

    Raises:
        ValueError, TypeError: NaN; see `jaxcluster.core.check.check_matrix` for dense ones.
    """
    if check.is_traced(x):
        concrete_rows(x)
    sparse = scipy.sparse.issparse(x)
    x = scipy.sparse.csr_array(x) if sparse else np.asarray(check.check_matrix(x))
    missing = int(np.isnan(x.data if sparse else x).sum())
    if missing:
        kind = "sparse" if sparse else "dense"
        raise ValueError(
            f"np.nan values found in precomputed-{kind} distances: {missing:,}. One that is not known is infinite."
        )
    return x

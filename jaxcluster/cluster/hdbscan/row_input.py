"""Input of HDBSCAN: finite samples and their metric space, at a scale at which no square over- or underflows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from jaxcluster.cluster.hdbscan.tree import INFINITE, MISSING
from jaxcluster.core import validation
from jaxcluster.core.sparse_input import as_csr, check_values
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.ops.metric_space import DistanceOracle, MetricSpace, as_metric_space, concrete_rows

SAMPLE_ROWS = 1024
"""Number of sampled rows for the typical distance from their median."""

PLAIN_EXPONENTS = 20
"""Largest |exponent| of the typical distance with no change of unit: its powers are far from the limits of float32."""

OVERFLOW_EXPONENT = 1 << 9
"""Exponent of the unit where even the typical distance overflows: half of float64's 1024."""


class FiniteRows(NamedTuple):
    """The n finite samples among N.

    Attributes:
        x: (n, d) samples, dense or CSR.
        index: (n,) int64 their numbers.
        labels: (N,) int32, 0 for them, `INFINITE` or `MISSING` for the others.
    """

    x: Any
    index: np.ndarray
    labels: np.ndarray


def finite_rows(x: Any) -> FiniteRows:
    """Separate samples with NaN or infinity from a concrete matrix, and label them as scikit-learn does.

    Raises:
        ValueError, TypeError: see `jaxcluster.core.validation.check_matrix`; traced samples.
    """
    if is_sparse(x):
        x = as_csr(x)
        stored = np.flatnonzero(~np.isfinite(x.data))
        finite = np.ones(x.shape[0], bool)
        finite[np.searchsorted(x.indptr, stored, side="right") - 1] = False
    else:
        x = concrete_rows(x) if validation.is_traced(x) else np.asarray(validation.check_matrix(x))
        finite = np.isfinite(x).all(axis=1)
    labels = np.zeros(x.shape[0], np.int32)
    if finite.all():
        return FiniteRows(x, np.arange(x.shape[0]), labels)
    others = x[~finite].toarray() if is_sparse(x) else x[~finite]
    # scikit-learn tests the sum of a sample: infinities of both signs add up to NaN, and count as missing too.
    missing = np.isnan(others).any(axis=1) | (np.isposinf(others).any(axis=1) & np.isneginf(others).any(axis=1))
    labels[~finite] = np.where(missing, MISSING, INFINITE)
    return FiniteRows(x[finite], np.flatnonzero(finite), labels)


def check_finite(x: Any) -> None:
    """Raise ValueError for samples of either kind with NaN or infinity, with their columns."""
    if is_sparse(x):
        check_values(as_csr(x))
    else:
        validation.check_finite(validation.check_matrix(x))


def check_precomputed(x: Any) -> Any:
    """Matrix of distances, dense or CSR, without NaN.

    Raises:
        ValueError, TypeError: NaN; see `jaxcluster.core.validation.check_matrix` for dense ones.
    """
    if validation.is_traced(x):
        concrete_rows(x)  # raises
    sparse = scipy.sparse.issparse(x)
    x = scipy.sparse.csr_array(x) if sparse else np.asarray(validation.check_matrix(x))
    missing = int(np.isnan(x.data if sparse else x).sum())
    if missing:
        kind = "sparse" if sparse else "dense"
        raise ValueError(
            f"np.nan values found in precomputed-{kind} distances: {missing:,}. Pass infinity for an unknown distance."
        )
    return x


class ScaledSpace(NamedTuple):
    """Metric space of samples divided by a power of two.

    Attributes:
        space: the samples times 2^−exponent, or a distance oracle.
        exponent: exponent of the unit of the samples.
        distance_exponent: exponent of the unit of distances.
    """

    space: MetricSpace | DistanceOracle
    exponent: int
    distance_exponent: int

    def distances(self, values: np.ndarray) -> np.ndarray:
        """Distances of the space in the unit of the metric; squares of long ones are infinite there."""
        with np.errstate(over="ignore", under="ignore"):
            return np.ldexp(values, self.distance_exponent) if self.distance_exponent else values


def scaled_space(x: Any, metric: str | Callable, p: float, *, exponent: int | None = None) -> ScaledSpace:
    """`jaxcluster.ops.metric_space.as_metric_space` for samples of any size.

    In float64 squares of numbers below 1e-160 are 0, and above 1e154 infinite. A power of two changes no digit.

    Args:
        x: (n, d) samples, or (n, n) distances.
        metric, p: as in the fit.
        exponent: exponent of the unit of the fit, for new samples; None for that of the typical distance in x.
    """
    space = as_metric_space(x, metric, p=p)
    if isinstance(space, DistanceOracle) or space.scale != 1:  # unit rows need no scale
        return ScaledSpace(space, 0, 0)
    exponent = _typical_exponent(space.x) if exponent is None else exponent
    if not exponent:
        return ScaledSpace(space, 0, 0)
    degree = 2 if space.power == 2 and space.root == 1 else 1
    with np.errstate(over="ignore", under="ignore"):  # new samples may be infinitely far in the unit of the fit
        return ScaledSpace(space._replace(x=np.ldexp(space.x, -exponent)), exponent, degree * exponent)


def _typical_exponent(x):
    """Exponent of the median distance of sampled rows from their median; 0 within `PLAIN_EXPONENTS`."""
    some = x[:: -(-len(x) // SAMPLE_ROWS)]
    with np.errstate(over="ignore"):
        lengths = np.abs(some - np.median(some, axis=0)).max(axis=1)
    size = np.median(lengths) or lengths.max()
    exponent = int(np.frexp(size)[1]) if np.isfinite(size) else OVERFLOW_EXPONENT
    return exponent if abs(exponent) > PLAIN_EXPONENTS else 0

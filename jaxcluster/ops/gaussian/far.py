"""Exact posteriors of samples far from every component, by differences of distances in float64 on the host.

A squared Mahalanobis distance q is rounded by up to about 8·eps·q. A few hundred standard deviations away from every
component this error may exceed the difference between components, and still farther away q overflows. The difference

    q_i − q_j = Δ·(2u_j + Δ),  u_j = R_jᵀ(x − μ_j),  Δ = u_i − u_j = (R_i − R_j)ᵀ(x − μ_j) + R_iᵀ(μ_j − μ_i),

is rounded relative to itself. In float64 it is right at any distance. Ordinary data have no such samples, and pay one
comparison for each sample.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxcluster.ops.gaussian.covariance_type import LOG_2PI, CovarianceType, Factor
from jaxcluster.types import Array, Float

LOG_DENSITY_MAX_ERROR = 1e-2
"""Rounding error of a log-density (nats) above which a sample may have to be computed on the host."""

ORDINARY_MAHALANOBIS_SQ = 16
"""Squared Mahalanobis distance, in multiples of the number of features (its mean), up to which a sample is ordinary."""

NEGLIGIBLE_LOG_RATIO = 40.0
"""Nats below the largest logit, rounding apart, at which a responsibility is 0: e⁻⁴⁰ is below eps² of float32."""

MAX_COORDINATE = 1e60
"""Bound for coordinates in a frame (units of the frame): their squares, 1e120, leave float64 room for precisions."""

CHUNK_ELEMENTS = 1 << 20
"""Upper bound for the numbers held of a chunk of samples."""


class Components(NamedTuple):
    """Weighted Gaussian components, as an E-step needs them.

    Attributes:
        log_weights: (k,) log of the weight of each, or its variational counterpart (nats); -inf for an inactive one.
        means: (k, d).
        covariances: in the shape of their type.
        factor: of the covariances.
    """

    log_weights: Float[Array, " k"]
    means: Float[Array, "k d"]
    covariances: Array
    factor: Factor


class FarPosterior(NamedTuple):
    """Posterior of samples under components, in float64.

    Attributes:
        labels: (m,) the component of the largest responsibility, the lower index of equals.
        log_p: (m,) log Σ_j weight_j·density_j (nats); -inf where that is beyond float64.
        responsibilities: (m, k).
    """

    labels: np.ndarray
    log_p: np.ndarray
    responsibilities: np.ndarray


def distance_limit(eps: float, d: int) -> float:
    """Log-density below that at the mean (nats) beyond which rounding may confuse components.

    Args:
        eps: rounding unit of the dtype.
        d: number of features.
    """
    # A log-density q/2 below its maximum is rounded by up to 8·eps·q/2, and a difference of two by 16·eps·q/2.
    return max(LOG_DENSITY_MAX_ERROR / (16 * eps), ORDINARY_MAHALANOBIS_SQ * d / 2)


def posterior_by_differences(covariance_type: CovarianceType, components: Components, x: np.ndarray) -> FarPosterior:
    """Posterior of samples under components by differences of distances.

    Args:
        covariance_type: of the components.
        components: concrete arrays.
        x: (m, d) samples in the frame of the components, in the widest float there is; NaN values are integrated out.
    """
    size = max(1, CHUNK_ELEMENTS // (x.shape[1] ** 2 if covariance_type.name in ("full", "tied") else x.shape[1]))
    parts = [_chunk_posterior(covariance_type, components, x[start : start + size]) for start in range(0, len(x), size)]
    return FarPosterior(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _chunk_posterior(covariance_type, components, x):
    """`FarPosterior` of a chunk: distances choose the nearest component, differences to it decide."""
    observed = ~np.isnan(x)
    x = np.where(observed, x, 0)
    # Samples beyond MAX_COORDINATE are scaled back along their direction: so far away only q, not μ, matters.
    scale = np.maximum(np.abs(x).max(axis=1) / MAX_COORDINATE, 1)
    x = (x / scale[:, None]).astype(np.float64)
    candidates = [_HostComponent(covariance_type, components, j, observed) for j in range(len(components.means))]
    with np.errstate(over="ignore"):  # as good as infinitely far from a component that is a point
        squares = np.stack([np.square(each.whiten(x)).sum(axis=1) for each in candidates])
    log_peaks = np.stack([np.broadcast_to(each.log_peak, scale.shape) for each in candidates])
    best = np.argmin(squares / 2 - log_peaks, axis=0)
    differences = np.empty(squares.shape)
    for j in np.unique(best):
        rows = np.flatnonzero(best == j)
        for i, candidate in enumerate(candidates):
            differences[i, rows] = candidate.log_ratio(candidates[j], x[rows], rows)
    log_max = differences.max(axis=0)
    # Softmax of the differences to the nearest component, whose own difference is 0.
    powers = np.exp(differences - log_max)
    total = powers.sum(axis=0)
    nearest = best, np.arange(len(x))
    with np.errstate(over="ignore"):
        squares = (squares[nearest] * np.square(scale)).astype(np.float64)
    log_p = log_peaks[nearest] - (squares + observed.sum(axis=1) * LOG_2PI) / 2 + log_max + np.log(total)
    return FarPosterior(np.argmax(differences, axis=0).astype(np.int32), log_p, (powers / total).T)


class _HostComponent:
    """One component, marginalized for each sample over its missing values.

    ``root`` is (d,), (d, d) or, with missing values, (m, d, d); ``log_peak`` is the log of weight·|R|, () or (m,).
    """

    def __init__(self, covariance_type, components, j, observed):
        root, log_det = (np.asarray(each, np.float64) for each in components.factor)
        self.mean = np.asarray(components.means[j], np.float64)
        self.observed = observed
        self.root = root if covariance_type.name == "tied" else root[j]
        if covariance_type.name == "spherical":
            self.root = np.broadcast_to(self.root, self.mean.shape)
        self.log_peak: Any = float(components.log_weights[j]) + float(
            log_det if covariance_type.name == "tied" else log_det[j]
        )
        if observed.all():
            return
        if covariance_type.name in ("diag", "spherical"):
            self.log_peak = float(components.log_weights[j]) + np.where(observed, np.log(self.root), 0).sum(axis=1)
            return
        covariance = np.asarray(components.covariances, np.float64)
        covariance = covariance if covariance_type.name == "tied" else covariance[j]
        both = observed[:, :, None] & observed[:, None, :]
        lower = np.linalg.cholesky(np.where(both, covariance, np.eye(len(self.mean))))
        self.root = np.swapaxes(np.linalg.inv(lower), 1, 2)
        diagonals = np.diagonal(self.root, axis1=1, axis2=2)
        self.log_peak = float(components.log_weights[j]) + np.log(diagonals).sum(axis=1)

    def whiten(self, x):
        """Whitened samples Rᵀ(x − mean), (m, d)."""
        return _times(np.where(self.observed, x - self.mean, 0), self.root)

    def log_ratio(self, best, x, rows):
        """log(weight·density) of these samples less that under the ``best`` component (nats)."""
        if np.all(self.log_peak == -np.inf):
            return np.full(len(rows), -np.inf)
        observed = self.observed[rows]
        mine, other = (each.root[rows] if each.root.ndim == 3 else each.root for each in (self, best))
        offset = np.where(observed, x - best.mean, 0)
        between = np.where(observed, best.mean - self.mean, 0)
        # a² − b² = (a − b)·(a + b): for far samples the two squares agree in all digits, and only their difference
        # counts.
        white = _times(offset, other)
        change = _times(offset, mine - other) + _times(between, mine)
        with np.errstate(over="ignore"):
            squares = (change * (2 * white + change)).sum(axis=1)
        log_peaks = [each.log_peak[rows] if np.ndim(each.log_peak) else each.log_peak for each in (self, best)]
        return log_peaks[0] - log_peaks[1] - squares / 2


def _times(vectors, root):
    """Rᵀv for each vector v, a row of ``vectors``."""
    if root.ndim == 1:
        return vectors * root
    return vectors @ root if root.ndim == 2 else np.einsum("mi,mij->mj", vectors, root)

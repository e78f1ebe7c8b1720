"""Rows far from every component, settled on the host: what tells the components apart there is a difference.

A squared Mahalanobis distance q is rounded by up to about 8·eps·q. A few hundred standard deviations from every
component this may be more than what tells them apart, and far enough out q is beyond the dtype. The difference of two,

    q_i − q_j = Δ·(2u_j + Δ),  u_j = R_jᵀ(x − μ_j),  Δ = u_i − u_j = (R_i − R_j)ᵀ(x − μ_j) + R_iᵀ(μ_j − μ_i),

is rounded in proportion to itself. In float64 on the host it tells components apart at any distance. Of ordinary rows
there are none to be settled, and they pay one comparison each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxcluster.ops.gaussian.family import LOG_2PI, Factor, Family
from jaxcluster.types import Array, Float

ROUNDING = 1e-2
"""Rounding of a log-density (nats) from which on a row may have to be settled."""

ORDINARY = 16
"""Squared Mahalanobis distances up to so many times the number of columns are ordinary: their mean is that number."""

REACH = 40.0
"""Nats below the largest logit, rounding apart, beyond which a responsibility is 0: e⁻⁴⁰ is below float32's eps²."""

REMOTE = 1e60
"""Coordinates in a frame beyond which a row is as good as infinitely far."""

CHUNK_ELEMENTS = 1 << 20
"""Numbers that are held at a time of the rows that are settled."""


class Components(NamedTuple):
    """Gaussians and what their log-densities are raised by.

    Attributes:
        heights: (k,) logarithm of the weight of each, or what stands in for it (nats); -inf for one that takes no part.
        means: (k, d).
        covariances: in the shape of their family.
        factor: of the covariances.
    """

    heights: Float[Array, " k"]
    means: Float[Array, "k d"]
    covariances: Array
    factor: Factor


class Settled(NamedTuple):
    """Rows under components, in float64.

    Attributes:
        labels: (m,) the component of the largest responsibility, the lower index of equals.
        log_p: (m,) log Σ_j exp of what `Components` says (nats); -inf where that is beyond float64.
        responsibilities: (m, k).
    """

    labels: np.ndarray
    log_p: np.ndarray
    responsibilities: np.ndarray


def distance_limit(eps: float, d: int) -> float:
    """Nats below the density at a mean from which on rows in d columns may be too rounded to be told apart."""
    return max(ROUNDING / (16 * eps), ORDINARY * d / 2)


def settle(family: Family, components: Components, x: np.ndarray) -> Settled:
    """Rows under components by differences.

    Args:
        family: the type of covariance.
        components: concrete.
        x: (m, d) rows in the frame of the components, in the widest float there is; NaN cells are integrated out.
    """
    size = max(1, CHUNK_ELEMENTS // (x.shape[1] ** 2 if family.name in ("full", "tied") else x.shape[1]))
    parts = [_settle(family, components, x[start : start + size]) for start in range(0, len(x), size)]
    return Settled(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _settle(family, components, x):
    observed = ~np.isnan(x)
    x = np.where(observed, x, 0)
    # Rows beyond REMOTE are brought back to there along their direction: all that is left of them is q.
    length = np.maximum(np.abs(x).max(axis=1) / REMOTE, 1)
    x = (x / length[:, None]).astype(np.float64)
    owns = [_Own(family, components, j, observed) for j in range(len(components.means))]
    with np.errstate(over="ignore"):  # as good as infinitely far from a component that is a point
        squares = np.stack([np.square(own.whiten(x)).sum(axis=1) for own in owns])
    heights = np.stack([np.broadcast_to(own.height, length.shape) for own in owns])
    best = np.argmin(squares / 2 - heights, axis=0)
    differences = np.empty(squares.shape)
    for j in np.unique(best):
        rows = np.flatnonzero(best == j)
        for i, own in enumerate(owns):
            differences[i, rows] = own.above(owns[j], x[rows], rows)
    highest = differences.max(axis=0)
    powers = np.exp(differences - highest)
    total = powers.sum(axis=0)
    own = best, np.arange(len(x))
    with np.errstate(over="ignore"):
        squares = (squares[own] * np.square(length)).astype(np.float64)
    log_p = heights[own] - (squares + observed.sum(axis=1) * LOG_2PI) / 2 + highest + np.log(total)
    return Settled(np.argmax(differences, axis=0).astype(np.int32), log_p, (powers / total).T)


class _Own:
    """One component for rows of which some cells are observed."""

    def __init__(self, family, components, j, observed):
        root, log_det = (np.asarray(each, np.float64) for each in components.factor)
        self.mean = np.asarray(components.means[j], np.float64)
        self.observed = observed
        self.root = root if family.name == "tied" else root[j]
        if family.name == "spherical":
            self.root = np.broadcast_to(self.root, self.mean.shape)
        self.height = float(components.heights[j]) + float(log_det if family.name == "tied" else log_det[j])
        if observed.all():
            return
        if family.name in ("diag", "spherical"):
            self.height = float(components.heights[j]) + np.where(observed, np.log(self.root), 0).sum(axis=1)
            return
        covariance = np.asarray(components.covariances, np.float64)
        covariance = covariance if family.name == "tied" else covariance[j]
        both = observed[:, :, None] & observed[:, None, :]
        lower = np.linalg.cholesky(np.where(both, covariance, np.eye(len(self.mean))))
        self.root = np.swapaxes(np.linalg.inv(lower), 1, 2)
        diagonals = np.diagonal(self.root, axis1=1, axis2=2)
        self.height = float(components.heights[j]) + np.log(diagonals).sum(axis=1)

    def whiten(self, x):
        """(m, d) rows less the mean, in its own units."""
        return _times(np.where(self.observed, x - self.mean, 0), self.root)

    def above(self, best, x, rows):
        """log(weight·density) of these rows less that under another component (nats)."""
        if np.all(self.height == -np.inf):
            return np.full(len(rows), -np.inf)
        observed = self.observed[rows]
        mine, other = (own.root[rows] if own.root.ndim == 3 else own.root for own in (self, best))
        offset = np.where(observed, x - best.mean, 0)
        between = np.where(observed, best.mean - self.mean, 0)
        white = _times(offset, other)
        change = _times(offset, mine - other) + _times(between, mine)
        with np.errstate(over="ignore"):
            squares = (change * (2 * white + change)).sum(axis=1)
        heights = [own.height[rows] if np.ndim(own.height) else own.height for own in (self, best)]
        return heights[0] - heights[1] - squares / 2


def _times(vectors, root):
    """Rᵀv of each row."""
    if root.ndim == 1:
        return vectors * root
    return vectors @ root if root.ndim == 2 else np.einsum("mi,mij->mj", vectors, root)

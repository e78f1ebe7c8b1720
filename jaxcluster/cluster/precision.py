"""Status PRECISION: labels that rounding to float32 may have decided.

A fit marks the samples that its frame has rounded by much of their distance to their center, and
`with_precision_status` compares these again on the host, in the precision of the caller.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import memory, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import beyond_float64
from jaxcluster.core.frame import Frame
from jaxcluster.core.preparation import HOST_BLOCK
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.ops.cluster_sums import cluster_offsets
from jaxcluster.ops.rows import distances_to_assigned, squared_norms
from jaxcluster.types import Array, Bool, Fit, Float, Int, Points, Status

LABEL_TOLERANCE = 1e-4
"""Relative difference of two distances below which either center may have the sample."""

MAX_ROUNDING_RATIO = 0.05
"""Bound on the rounding of a sample's coordinates relative to its distance to its center: above it the sample is
unresolved."""


def unresolved_samples(
    weight: Float[Array, " n"], norms: Float[Array, " n"], squared_distances: Float[Array, " n"]
) -> Bool[Array, " n"]:
    """Mask of the samples rounded by more than `MAX_ROUNDING_RATIO` of the distance to their center.

    On the way into the frame each coordinate of a sample is rounded by at most eps/2 of itself, and so is its center's.
    `with_precision_status` looks at these samples again.

    Args:
        weight: (n,) sample weights.
        norms: (n,) squared norms.
        squared_distances: (n,) squared distances to the assigned centers.
    """
    return (jnp.finfo(norms.dtype).eps * jnp.sqrt(norms) > MAX_ROUNDING_RATIO * jnp.sqrt(squared_distances)) & (
        weight > 0
    )


@persistent_jit
def unresolved_about_means(points: Points, centers: Float[Array, "k d"], labels: Int[Array, " n"]) -> Bool[Array, " n"]:
    """`unresolved_samples` about the means of the clusters, for centers that may be far from them.

    A running mean, or a mean of soft assignments, adds up the rounding of many steps.
    """
    sums, weight = cluster_offsets(points, centers, labels)
    means = centers + sums / jnp.where(weight > 0, weight, 1)[:, None]
    return unresolved_samples(points.weight, squared_norms(points.x), distances_to_assigned(points.x, means, labels))


def with_precision_status(fitted: Fit, x: Any, frame: Frame, unresolved: Any, *, nearest: bool = True) -> Fit:
    """A finished fit, its status PRECISION where rounding decided labels or may have.

    Unresolved samples are compared again on the host, in the precision of the caller. Rounding decided a label where
    another center is nearer, and may have where samples of one cluster differ by less than their rounding. For
    integers beyond 2⁵³ the labels are right, but float64 may not hold centers that tell new samples apart.

    Args:
        fitted: in the caller's coordinates, with labels (…, n) and centers (…, k, n_features).
        x: (n, n_features) samples of the caller.
        frame: of the fit.
        unresolved: (…, n) mask of `unresolved_samples`, or None where samples were not rounded.
        nearest: whether each label should be that of the nearest center.
    """
    if unresolved is None or validation.is_traced(fitted, unresolved):
        return fitted
    sparse = is_sparse(x)
    x, unresolved, status = x if sparse else np.asarray(x), np.asarray(unresolved), np.array(fitted.status)
    labels, centers = np.asarray(fitted.labels), np.asarray(fitted.state.centers, np.float64)
    sound = np.isin(status, (Status.CONVERGED, Status.MAX_STEPS, Status.EMPTY_CLUSTERS))
    for fit in map(tuple, np.argwhere(sound & unresolved.any(axis=-1))):
        rows = np.flatnonzero(unresolved[fit][: x.shape[0]])
        compared = (x[rows], centers[fit], frame.origin)
        parts = _cluster_parts(labels[fit][rows], *compared) if sparse else [(labels[fit][rows], *compared)]
        for some, *numbers in parts:
            # In the unit of the frame: the squares of lengths near 1e160 are infinite.
            unit = (np.ldexp(np.asarray(each, np.float64), frame.exponent) for each in numbers)
            if _is_decided_by_rounding(some, *unit, nearest=nearest):
                status[fit] = Status.PRECISION
                break
    if beyond_float64(x.data if sparse else x):
        for fit in map(tuple, np.argwhere(sound)):
            if np.spacing(np.abs(centers[fit]).max()) > MAX_ROUNDING_RATIO * _min_separation(centers[fit]):
                status[fit] = Status.PRECISION
    return fitted._replace(status=jax.device_put(status.astype(np.int32)))


def _cluster_parts(labels, x, centers, origin):
    """Labels, rows, centers and origin for the sparse rows of each cluster, dense in the columns that they have.

    One more column holds what the centers have elsewhere, where these rows are 0.
    """
    for label in np.unique(labels):
        part = x[labels == label]
        columns = np.unique(part.indices)
        rest = np.sqrt(np.maximum(0, np.square(np.delete(centers, columns, axis=1)).sum(axis=1)))
        memory.check(
            8.0 * part.shape[0] * len(columns), f"{part.shape[0]:,} rows that rounding may have decided", "Pass fewer."
        )
        dense = np.pad(part[:, columns].toarray(), ((0, 0), (0, 1)))
        number = np.full(part.shape[0], label)
        yield number, dense, np.column_stack([centers[:, columns], rest]), np.append(origin[columns], 0)


def _is_decided_by_rounding(labels, x, centers, origin, nearest):
    order = np.argsort(labels, kind="stable")
    x, labels = x[order], labels[order]
    rounding = np.finfo(np.float32).eps * np.sqrt(np.square(x - origin).sum(axis=1))
    starts, sizes = np.unique(labels, return_index=True, return_counts=True)[1:]
    means = np.add.reduceat(x, starts, axis=0) / sizes[:, None]
    # Of samples whose rounding exceeds their distance to the mean nothing but noise is left. It cannot have decided
    # anything where all of them in a cluster are equal.
    severe = rounding > np.sqrt(np.square(x - np.repeat(means, sizes, axis=0)).sum(axis=1))
    if severe.any():
        starts = np.flatnonzero(np.diff(labels[severe], prepend=-1))
        upper, lower = (ufunc.reduceat(x[severe], starts, axis=0) for ufunc in (np.maximum, np.minimum))
        if (upper != lower).any():
            return True
    if not nearest:
        return False
    assigned = np.sqrt(np.square(x - centers[labels]).sum(axis=1)) * (1 - LABEL_TOLERANCE)
    blocks = (slice(start, start + HOST_BLOCK) for start in range(0, len(x), HOST_BLOCK))
    return any((_min_distances(x[rows], centers) < assigned[rows]).any() for rows in blocks)


def _min_distances(x, centers):
    """Distance of each sample to the nearest center, from differences, one center after the other."""
    return np.sqrt(np.min([np.square(x - center).sum(axis=1) for center in centers], axis=0))


def _min_separation(centers):
    """Least distance between two centers; infinite for one center."""
    return min(
        (_min_distances(centers[j + 1 :], centers[j][None]).min() for j in range(len(centers) - 1)), default=np.inf
    )

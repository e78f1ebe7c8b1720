"""Centroids as functions of their rows: exact inertia, the gradient of means, and the scale of a tolerance."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import check
from jaxcluster.core.fold import across
from jaxcluster.core.frame import HOST_BLOCK, Frame
from jaxcluster.core.integers import beyond_float64
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.distance import distances_to_assigned, normalize, squared_norms
from jaxcluster.types import Array, Bool, Fit, Float, Int, Points, Status

RESOLVED = 1e-4
"""Of a sample's distance to its center, by how much another must be nearer for its label to be wrong: labels of
distances closer than that are not promised."""

RESOLUTION = 0.05
"""Of a sample's distance to its center, the rounding of coordinates up to which it is told apart from its neighbors."""


def inertia_of(
    points: Points,
    centers: Float[Array, "k d"],
    labels: Int[Array, " n"],
    *,
    spherical: bool = False,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Σ w·distance of rows to their own centers, from differences."""
    return across(points.weight @ distances_to_assigned(points.x, centers, labels, spherical=spherical), axis_name)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def differentiable_means(
    axis_name: str | None, centers: Float[Array, "k d"], points: Points, members: Int[Array, " n"]
) -> Float[Array, "k d"]:
    """``centers`` themselves, with the derivative that they have as weighted means of their members.

    Labels outside [0, k) belong to no center; a center without members is constant.
    """
    return centers


@differentiable_means.defjvp
def _differentiable_means_jvp(axis_name, primals, tangents):
    centers, points, members = primals
    _, moved, _ = tangents
    centers = differentiable_means(axis_name, centers, points, members)  # known to move, for second derivatives
    k = centers.shape[0]
    inside = (members >= 0) & (members < k)
    members = jnp.where(inside, members, k)
    weight = across(jax.ops.segment_sum(points.weight, members, k), axis_name)
    offset = points.x - centers[jnp.where(inside, members, 0)]
    pull = points.weight[:, None] * moved.x + moved.weight[:, None] * offset
    total = across(jax.ops.segment_sum(pull, members, k), axis_name)
    return centers, total / jnp.where(weight > 0, weight, 1)[:, None]


def differentiable_directions(
    axis_name: str | None, centers: Float[Array, "k d"], points: Points, members: Int[Array, " n"]
) -> Float[Array, "k d"]:
    """Unit centers recomputed from their members, so that they differentiate; those without members stay."""
    sums, _ = cluster_sums(points, members, centers.shape[0])
    directions = normalize(across(sums, axis_name))
    return jnp.where(jnp.any(directions != 0, axis=1, keepdims=True), directions, centers)


def mean_variance(points: Points, norms: Float[Array, " n"], *, axis_name: str | None = None) -> Float[Array, ""]:
    """Mean over the columns of their weighted variance (data units²): the unit of ``tol``.

    Args:
        norms: squared lengths of the rows.
    """
    weight = points.weight
    # Not as a product: XLA's CPU multiplies a vector and a matrix on one core.
    sums = jnp.sum(points.x * weight[:, None], axis=0)
    return variance_of_sums(*across((jnp.sum(weight), weight @ norms, sums), axis_name))


def variance_of_sums(total: Float[Array, ""], squares: Float[Array, ""], sums: Float[Array, " d"]) -> Float[Array, ""]:
    """`mean_variance` from Σ w, Σ w·‖x‖² and Σ w·x."""
    variance = squares / total - jnp.sum(jnp.square(sums / total))
    return jnp.maximum(variance, 0) / sums.shape[0]


def coarse_samples(weight: Float[Array, " n"], norms: Float[Array, " n"], own: Float[Array, " n"]) -> Bool[Array, " n"]:
    """Samples whose coordinates were rounded by more than `RESOLUTION` of their distance to their own center.

    Each coordinate of a sample is rounded by at most eps/2 of itself on its way into the frame, and so is its center's.
    See `with_precision` for what becomes of them.

    Args:
        norms, own: squared lengths of the samples, and squared distances to their own centers.
    """
    return (jnp.finfo(norms.dtype).eps * jnp.sqrt(norms) > RESOLUTION * jnp.sqrt(own)) & (weight > 0)


@jax.jit
def coarse_of_labels(points: Points, centers: Float[Array, "k d"], labels: Int[Array, " n"]) -> Bool[Array, " n"]:
    """`coarse_samples` about the means of the clusters, for centers that may be further from them than rounding.

    A running mean, or one of soft assignments, adds up the rounding of many steps.
    """
    apart = Points(points.x - centers[labels], points.weight)
    offset, weight = cluster_sums(apart, labels, centers.shape[0])
    means = centers + offset / jnp.where(weight > 0, weight, 1)[:, None]
    return coarse_samples(points.weight, squared_norms(points.x), distances_to_assigned(points.x, means, labels))


def with_precision(fitted: Fit, x: Any, frame: Frame, coarse: Any, *, nearest: bool = True) -> Fit:
    """A finished fit, its status PRECISION where rounding has, or may have, decided about labels.

    Samples that are coarse are looked at again on the host, in the precision they came in. Rounding decided where
    another center is nearer to them, and may have where those of one cluster differ by less than it left of them.
    Of integers beyond 2^53 the labels are right, but float64 may not hold centers that tell new samples apart.

    Args:
        fitted: in the caller's coordinates, with labels (…, n) and centers (…, k, n_features).
        x: (n, n_features) samples of the caller.
        frame: of the fit.
        coarse: (…, n) of `coarse_samples`, or None where samples were not rounded.
        nearest: whether each label should be that of the nearest center.
    """
    if coarse is None or check.is_traced(fitted, coarse):
        return fitted
    x, coarse, status = np.asarray(x), np.asarray(coarse), np.array(fitted.status)
    labels, centers = np.asarray(fitted.labels), np.asarray(fitted.state.centers, np.float64)
    sound = np.isin(status, (Status.CONVERGED, Status.MAX_STEPS, Status.EMPTY_CLUSTERS))
    for fit in map(tuple, np.argwhere(sound & coarse.any(axis=-1))):
        rows = np.flatnonzero(coarse[fit][: len(x)])
        # In the unit of the frame: the squares of lengths near 1e160 are infinite.
        unit = (
            np.ldexp(np.asarray(each, np.float64), frame.exponent) for each in (x[rows], centers[fit], frame.origin)
        )
        if _decided_by_rounding(labels[fit][rows], *unit, nearest):
            status[fit] = Status.PRECISION
    if beyond_float64(x):
        for fit in map(tuple, np.argwhere(sound)):
            if np.spacing(np.abs(centers[fit]).max()) > RESOLUTION * _least_separation(centers[fit]):
                status[fit] = Status.PRECISION
    return fitted._replace(status=jax.device_put(status.astype(np.int32)))


def _decided_by_rounding(labels, x, centers, origin, nearest):
    order = np.argsort(labels, kind="stable")
    x, labels = x[order], labels[order]
    rounding = np.finfo(np.float32).eps * np.sqrt(np.square(x - origin).sum(axis=1))
    starts, sizes = np.unique(labels, return_index=True, return_counts=True)[1:]
    means = np.add.reduceat(x, starts, axis=0) / sizes[:, None]
    severe = rounding > np.sqrt(np.square(x - np.repeat(means, sizes, axis=0)).sum(axis=1))
    if severe.any():
        starts = np.flatnonzero(np.diff(labels[severe], prepend=-1))
        most, least = (ufunc.reduceat(x[severe], starts, axis=0) for ufunc in (np.maximum, np.minimum))
        if (most != least).any():
            return True
    own = np.sqrt(np.square(x - centers[labels]).sum(axis=1))
    return nearest and any((_least(x[rows], centers) < own[rows] * (1 - RESOLVED)).any() for rows in _chunks(len(x)))


def _least(x, centers):
    """Distances to the nearest center by differences, one center after the other."""
    return np.sqrt(np.min([np.square(x - center).sum(axis=1) for center in centers], axis=0))


def _least_separation(centers):
    """The least distance between two centers; infinite for one."""
    return min((_least(centers[j + 1 :], centers[j][None]).min() for j in range(len(centers) - 1)), default=np.inf)


def _chunks(n):
    return [slice(start, start + HOST_BLOCK) for start in range(0, n, HOST_BLOCK)]

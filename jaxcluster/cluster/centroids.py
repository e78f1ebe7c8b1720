"""Centroids as functions of their rows: exact inertia, the gradient of means, and the scale of a tolerance."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from jaxcluster.core.fold import across
from jaxcluster.ops.distance import normalize, own_distances
from jaxcluster.ops.nearest import at_most_once, separations
from jaxcluster.ops.segments import cluster_sums
from jaxcluster.types import Array, Bool, Float, Int, Points

RESOLUTION = 0.05
"""Rounding errors of coordinates up to this share of a sample's distance to its center are taken for resolved."""


def inertia_of(
    points: Points,
    centers: Float[Array, "k d"],
    labels: Int[Array, " n"],
    *,
    spherical: bool = False,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Σ w·distance of rows to their own centres, from differences."""
    return across(points.weight @ own_distances(points.x, centers, labels, spherical=spherical), axis_name)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def differentiable_means(
    axis_name: str | None, centers: Float[Array, "k d"], points: Points, members: Int[Array, " n"]
) -> Float[Array, "k d"]:
    """``centers`` themselves, with the derivative that they have as weighted means of their members.

    Labels outside [0, k) belong to no centre; a centre without members is constant.
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
    """Unit centres recomputed from their members, so that they differentiate; those without members stay."""
    sums, _ = cluster_sums(points, members, centers.shape[0])
    directions = normalize(across(sums, axis_name))
    return jnp.where(jnp.any(directions != 0, axis=1, keepdims=True), directions, centers)


def mean_variance(points: Points, norms: Float[Array, " n"], *, axis_name: str | None = None) -> Float[Array, ""]:
    """Mean over the columns of their weighted variance (data units²): the unit of ``tol``.

    Args:
        norms: squared lengths of the rows.
    """
    weight = points.weight
    total, squares, sums = across((jnp.sum(weight), weight @ norms, weight @ points.x), axis_name)
    variance = squares / total - jnp.sum(jnp.square(sums / total))
    return jnp.maximum(variance, 0) / points.x.shape[1]


def unresolved_weight(
    weight: Float[Array, " n"],
    norms: Float[Array, " n"],
    own: Float[Array, " n"],
    labels: Int[Array, " n"],
    centers: Float[Array, "k d"],
    active: Bool[Array, " k"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Weight of samples whose label may be another because their coordinates were rounded.

    A coordinate is rounded by at most eps/2 of itself, a sample so by ‖x‖·eps/2 and a center likewise. A label is
    certain where the sample, with that error, is nearer than half the distance between its center and the next one.

    Args:
        norms, own: squared lengths of the samples, and squared distances to their own centers.
    """
    rounding = 2 * jnp.finfo(norms.dtype).eps * jnp.sqrt(norms)
    distance = jnp.sqrt(own)
    coarse = (rounding > RESOLUTION * distance) & (weight > 0)

    def compare(total):
        certain = 2 * (distance + rounding) < separations(centers, active)[labels]
        return total + jnp.sum(jnp.where(coarse & ~certain, weight, 0))

    return across(at_most_once(jnp.any(coarse), compare, jnp.sum(weight) * 0), axis_name)

"""Lloyd's iteration in a frame: assignment step, update step, relocation of empty clusters; gradients; precision.

    assignment   label_i = argmin_j ‖x_i − c_j‖²
    update       c_j = Σ w_i x_i / Σ w_i over the samples with label_i = j
    inertia      Σ w_i ‖x_i − c_label_i‖²

Neither step raises the inertia, so the iteration ends: once no label changes, or once Σ‖Δc‖² <= tol. Under the
spherical metric samples and centers are unit vectors, ‖x − c‖² = 2·(1 − cos): the assignment is the same, the update
scales the mean to unit length, and the inertia is Σ w·(1 − cos).

Distances come from matrix products, ‖x‖² − 2x·c + ‖c‖², which are rounded in proportion to ‖x‖². So samples are
centered first (`core.frame`), and what is still too rounded is computed again from differences (`ops.nearest`).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.seeding import CenterConstraints
from jaxcluster.core.fold import SUM, all_reduce, fold_rows
from jaxcluster.core.shard import gather_tables, shard_index
from jaxcluster.core.sparse_rows import SparseRows
from jaxcluster.ops.cluster_sums import cluster_offsets, cluster_sums, total_sum
from jaxcluster.ops.distance import HIGHEST, at_most_once
from jaxcluster.ops.nearest import Nearest, elkan_bounds, nearest_tile, tile_size
from jaxcluster.ops.rows import distances_to_assigned, normalize, squared_norms
from jaxcluster.types import Absent, Array, Bool, Float, Int, Points

MAX_MEAN_ERROR = 1e-4
"""Bound on the rounding error of a mean, relative to the root mean squared distance; above it `refine_means` runs."""

REFINEMENT_TILE = 2048
"""Samples whose differences from their centers are held at once."""


class LloydOptions(NamedTuple):
    """Static options of a step: they change the compiled program.

    Attributes:
        spherical: samples and centers are unit vectors.
        uniform: every weight is 0 or 1.
        precision: of matrix products.
        axis_name: the mapped axis over which samples are spread, or None.
    """

    spherical: bool = False
    uniform: bool = False
    precision: jax.lax.Precision = HIGHEST
    axis_name: str | None = None


class Samples(NamedTuple):
    """Weighted samples in a frame, and their squared norms, which no step changes."""

    points: Points
    norms: Float[Array, " n"]


class LloydStats(NamedTuple):
    """Sufficient statistics of an assignment: Σ w·x and Σ w of each cluster, and the inertia Σ w·distance²."""

    sums: Float[Array, "*batch k d"]
    weight: Float[Array, "*batch k"]
    inertia: Float[Array, "*batch"]


class LloydState(NamedTuple):
    """Centers, and the assignment of the samples to them.

    Attributes:
        centers: (k, d).
        stats: of the assignment.
        assignment: nearest center of each sample.
        prev_labels: (n,) labels of the assignment before, of which the centers are the means; -1 before the first step.
        shift: () Σ‖Δc‖² of the last step.
        stable: () whether the last step changed no label.
    """

    centers: Float[Array, "*batch k d"]
    stats: LloydStats
    assignment: Nearest
    prev_labels: Int[Array, "*batch n"]
    shift: Float[Array, "*batch"]
    stable: Bool[Array, "*batch"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """The inertia of the present assignment."""
        return self.stats.inertia

    @property
    def residual(self) -> Float[Array, "*batch"]:
        """The last shift; 0 once no label changes."""
        # A product, not a select: a NaN of the shift stays NaN and ends the iteration as NOT_FINITE.
        return jnp.where(self.stable, 0, 1) * self.shift


def init_state(
    centers: Float[Array, "k d"], samples: Samples, constraints: CenterConstraints, options: LloydOptions
) -> LloydState:
    """State before the first step: the samples assigned to the initial centers."""
    stats, assignment = assignment_step(centers, samples, active=constraints.active, options=options)
    infinite = jnp.asarray(jnp.inf, centers.dtype)
    return LloydState(centers, stats, assignment, jnp.full_like(assignment.labels, -1), infinite, jnp.asarray(False))


def step(state: LloydState, samples: Samples, constraints: CenterConstraints, options: LloydOptions) -> LloydState:
    """One step: relocate empty clusters, update the centers, assign the samples."""
    stats, labels = relocate_empty_clusters(state, samples.points, constraints, options.axis_name)
    centers = update_step(stats, state.centers, movable=constraints.movable, spherical=options.spherical)
    if not options.spherical:
        centers = refine_means(centers, labels, stats, samples.points, constraints, options.axis_name)
    squared_shifts = jnp.sum(jnp.square(centers - state.centers), axis=1)
    stats, assignment = assignment_step(
        centers,
        samples,
        prev=state.assignment,
        shifts=jnp.sqrt(squared_shifts),
        active=constraints.active,
        options=options,
    )
    changed = jnp.any((assignment.labels != state.assignment.labels) & (samples.points.weight > 0))
    stable = all_reduce(changed.astype(jnp.int32), options.axis_name) == 0
    return LloydState(centers, stats, assignment, labels, jnp.sum(squared_shifts), stable)


def assignment_step(
    centers: Float[Array, "k d"],
    samples: Samples,
    *,
    prev: Nearest | None = None,
    shifts: Float[Array, " k"] | Absent = None,
    active: Bool[Array, " k"] | None = None,
    options: LloydOptions,
) -> tuple[LloydStats, Nearest]:
    """Assign each sample to its nearest center and sum up the clusters, in one pass over the samples.

    Args:
        centers: (k, d).
        samples: in the frame of the centers.
        prev: the assignment of the step before.
        shifts: (k,) ‖Δc‖ since then. With ``prev`` it bounds the new distances, which saves a pass over (n, k).
        active: (k,) mask of the centers that take part.
        options: static options.

    Returns:
        The statistics, the same on every device, and the nearest center of each sample.
    """
    k = centers.shape[0]
    size = tile_size(samples.points.x, k)

    def tile(samples_and_prev):
        (points, norms), prev = samples_and_prev
        bounds = None if prev is None or prev.error is None else elkan_bounds(prev, shifts, points.x, centers)
        assignment = nearest_tile(
            points.x,
            centers,
            active=active,
            norms=norms,
            bounds=bounds,
            precision=options.precision,
            unit=options.spherical,
            whole=size >= samples.points.x.shape[0],
        )
        sums: Any = ()
        weight: Any = ()
        if not isinstance(points.x, SparseRows):
            sums, weight = cluster_sums(points, assignment.labels, k, uniform=options.uniform)
        distance = assignment.distance
        if options.spherical:
            # ‖x − c‖²/2 = 1 − cos for unit vectors (norm 1); a sample of zeros (norm 0) counts as 1 − cos = 1.
            distance = (distance + 1 - norms) / 2
        if assignment.error is None:
            # No bounds will be made of it, so the loop need not carry it.
            assignment = assignment._replace(distance=None)
        return LloydStats(sums, weight, points.weight @ distance), assignment

    stats, assignment = fold_rows(tile, (samples, prev), tile=size, monoid=SUM, axis_name=options.axis_name)
    if isinstance(samples.points.x, SparseRows):
        # After the tiles: (k, d) sums of each tile would cost more than its few entries.
        sums, weight = cluster_sums(samples.points, assignment.labels, k, uniform=options.uniform)
        stats = stats._replace(sums=sums, weight=weight)
    return stats, assignment


def update_step(
    stats: LloydStats, centers: Float[Array, "k d"], *, movable: Bool[Array, " k"] | None, spherical: bool
) -> Float[Array, "k d"]:
    """Means of the clusters, of unit length where ``spherical``; an empty or frozen cluster keeps its center."""
    updated = stats.weight > 0
    means = stats.sums / jnp.where(updated, stats.weight, 1)[:, None]
    if spherical:
        means = normalize(means)
        updated &= jnp.any(means != 0, axis=1)
    if movable is not None:
        updated &= movable
    return jnp.where(updated[:, None], means, centers)


def refine_means(
    means: Float[Array, "k d"],
    labels: Int[Array, " n"],
    stats: LloydStats,
    points: Points,
    constraints: CenterConstraints,
    axis_name: str | None,
) -> Float[Array, "k d"]:
    """One step of iterative refinement of the means: c + Σ w·(x − c) / Σ w over the samples of each cluster.

    Sums of x are rounded by eps·‖c‖, sums of x − c by eps times the spread. The pass over the samples is taken only
    where eps·max‖c‖ is above `MAX_MEAN_ERROR` of the spread, which float32 needs to tell clusters apart.
    """
    spread = jnp.sqrt(stats.inertia / jnp.sum(stats.weight))
    rounded = jnp.finfo(means.dtype).eps * jnp.sqrt(jnp.max(squared_norms(means))) > MAX_MEAN_ERROR * spread

    def refine(means):
        sums, weight = all_reduce(cluster_offsets(points, means, labels, tile=REFINEMENT_TILE), axis_name)
        delta = sums / jnp.where(weight > 0, weight, 1)[:, None]
        if constraints.movable is not None:
            delta = jnp.where(constraints.movable[:, None], delta, 0)
        return means + delta

    return at_most_once(rounded, refine, means)


def relocate_empty_clusters(
    state: LloydState, points: Points, constraints: CenterConstraints, axis_name: str | None
) -> tuple[LloydStats, Int[Array, " n"]]:
    """Give the e-th empty cluster the sample that is e-th farthest from its own center, and take it from its cluster.

    Nothing is relocated where every distance is 0.

    Returns:
        The statistics, and the (n,) labels that they belong to.
    """
    empty = state.stats.weight <= 0
    for mask in (constraints.active, constraints.movable):
        empty = empty if mask is None else empty & mask

    def relocate(carry):
        stats, labels = carry
        distance = distances_to_assigned(points.x, state.centers, labels)
        labels = relocated_labels(labels, empty, jnp.where(points.weight > 0, distance, -1), axis_name)
        # Summed anew: subtracting a far sample from the sum of its old cluster would leave its rounding error there.
        sums, weight = cluster_sums(points, labels, empty.shape[0])
        sums, weight = all_reduce((sums, weight), axis_name)
        return LloydStats(sums, weight, stats.inertia), labels

    return at_most_once(jnp.any(empty), relocate, (state.stats, state.assignment.labels))


def relocated_labels(
    labels: Int[Array, " n"], empty: Bool[Array, " k"], distance: Float[Array, " n"], axis_name: str | None
) -> Int[Array, " n"]:
    """Labels after the e-th empty cluster has taken the sample of e-th largest positive distance to its own center."""
    n, k = labels.shape[0], empty.shape[0]
    local_distance, local_row = jax.lax.top_k(distance, min(k, n))
    owner = jnp.full_like(local_row, 0) + shard_index(axis_name)
    far_distance, row, owner = (gather_tables(table, axis_name) for table in (local_distance, local_row, owner))
    _, order = jax.lax.top_k(far_distance, min(k, far_distance.shape[0]))
    rank = jnp.cumsum(empty) - 1
    far = order[jnp.minimum(rank, order.shape[0] - 1)]
    relocated = empty & (far_distance[far] > 0) & (rank < order.shape[0])
    here = relocated & (owner[far] == shard_index(axis_name))
    return labels.at[jnp.where(here, row[far], n)].set(jnp.arange(k, dtype=labels.dtype), mode="drop")


# Scale of a tolerance, inertia, and gradients with the labels held constant ------------------------------------------


def mean_variance(points: Points, norms: Float[Array, " n"], *, axis_name: str | None = None) -> Float[Array, ""]:
    """Mean over the features of their weighted variance (data units²): the unit of ``tol``.

    Args:
        points: weighted samples.
        norms: (n,) their squared norms.
        axis_name: the mapped axis over which samples are spread.
    """
    weight = points.weight
    return variance_from_sums(*all_reduce((jnp.sum(weight), weight @ norms, total_sum(points)), axis_name))


def variance_from_sums(
    total: Float[Array, ""], squares: Float[Array, ""], sums: Float[Array, " d"]
) -> Float[Array, ""]:
    """`mean_variance` from Σ w, Σ w·‖x‖² and Σ w·x."""
    variance = squares / total - jnp.sum(jnp.square(sums / total))
    return jnp.maximum(variance, 0) / sums.shape[0]


def inertia_of(
    points: Points,
    centers: Float[Array, "k d"],
    labels: Int[Array, " n"],
    *,
    spherical: bool = False,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Inertia Σ w·distance² of labels, from differences (1 − cos where ``spherical``)."""
    return all_reduce(points.weight @ distances_to_assigned(points.x, centers, labels, spherical=spherical), axis_name)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def differentiable_means(
    axis_name: str | None, centers: Float[Array, "k d"], points: Points, labels: Int[Array, " n"]
) -> Float[Array, "k d"]:
    """``centers`` unchanged, with the derivative of weighted means: dc = Σ (w·dx + dw·(x − c)) / Σ w.

    Labels outside [0, k) belong to no center; a center without samples is constant.
    """
    return centers


@differentiable_means.defjvp
def _differentiable_means_jvp(axis_name, primals, tangents):
    centers, points, labels = primals
    _, tangent, _ = tangents
    # The centers must depend on the samples here too, for second derivatives.
    centers = differentiable_means(axis_name, centers, points, labels)
    k = centers.shape[0]
    inside = (labels >= 0) & (labels < k)
    labels = jnp.where(inside, labels, k)
    weight = all_reduce(jax.ops.segment_sum(points.weight, labels, k), axis_name)
    offset = points.x - centers[jnp.where(inside, labels, 0)]
    terms = points.weight[:, None] * tangent.x + tangent.weight[:, None] * offset
    total = all_reduce(jax.ops.segment_sum(terms, labels, k), axis_name)
    return centers, total / jnp.where(weight > 0, weight, 1)[:, None]


def differentiable_directions(
    axis_name: str | None, centers: Float[Array, "k d"], points: Points, labels: Int[Array, " n"]
) -> Float[Array, "k d"]:
    """Unit centers computed again from their samples, for their derivative; those without samples are constant."""
    sums, _ = cluster_sums(points, labels, centers.shape[0])
    directions = normalize(all_reduce(sums, axis_name))
    return jnp.where(jnp.any(directions != 0, axis=1, keepdims=True), directions, centers)

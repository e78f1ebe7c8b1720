"""Lloyd's iteration on centered rows: what a tile of rows contributes, and what the centers become of it.

k-means, its sweep, bisecting k-means and streams are made of these functions. Under the spherical metric rows and
centers are unit vectors; their squared distance is twice the cosine distance, so nothing here but the update differs.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.centroids import variance_of_sums
from jaxcluster.cluster.given import Given
from jaxcluster.core.fold import SUM, across, fold_rows
from jaxcluster.core.iterate import iterate
from jaxcluster.core.shard import gather_tables, shard_index
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.distance import HIGHEST, at_most_once, distances_to_assigned, normalize, squared_norms
from jaxcluster.ops.nearest import Nearest, search, search_tile, widen
from jaxcluster.types import Array, Bool, Fit, Float, Int, Points

MEAN_ERROR = 1e-4
"""Of the root mean squared distance to the centers, the rounding error of a mean from which on it is `sharpen`ed."""

SHARPEN_TILE = 2048
"""Samples whose differences from their centers are held at once."""


class LloydOptions(NamedTuple):
    """What changes the program of a step."""

    spherical: bool = False
    uniform: bool = False
    precision: jax.lax.Precision = HIGHEST
    axis_name: str | None = None


class Rows(NamedTuple):
    """Rows of an iteration with what does not change in it."""

    points: Points
    norms: Float[Array, " n"]


class LloydStats(NamedTuple):
    """What rows contribute to their nearest centers: Σ w·x and Σ w of each, and Σ w·distance² (data units²)."""

    sums: Float[Array, "*batch k d"]
    weight: Float[Array, "*batch k"]
    inertia: Float[Array, "*batch"]


class LloydState(NamedTuple):
    """Centers with the rows assigned to them.

    Attributes:
        centers: (k, d).
        stats: of the rows by their nearest center.
        found: each row's nearest center.
        members: (n,) the labels whose means the centers are; -1 before the first step.
        shift: () Σ‖Δc‖² of the last step.
        stable: () whether the last step changed no label.
    """

    centers: Float[Array, "*batch k d"]
    stats: LloydStats
    found: Nearest
    members: Int[Array, "*batch n"]
    shift: Float[Array, "*batch"]
    stable: Bool[Array, "*batch"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """The inertia of the present assignment."""
        return self.stats.inertia

    @property
    def residual(self) -> Float[Array, "*batch"]:
        """The last shift; 0 once no label changes. NaN stays NaN."""
        return jnp.where(self.stable, 0, 1) * self.shift


def lloyd_stats(
    centers: Float[Array, "k d"],
    rows: Rows,
    *,
    last: Nearest | None = None,
    moved: Float[Array, " k"] | None = None,
    active: Bool[Array, " k"] | None = None,
    options: LloydOptions,
) -> tuple[LloydStats, Nearest]:
    """Assigns rows to centers and sums them up, each row read once.

    Args:
        last, moved: the last assignment of these rows and how far each center has moved since; they save a pass.
    """
    k, d = centers.shape

    def tile(rows_and_last):
        (points, norms), last = rows_and_last
        window = None if last is None or last.slack is None else widen(last, moved, points.x, centers)
        found = search(
            points.x,
            centers,
            active=active,
            norms=norms,
            window=window,
            precision=options.precision,
            unit=options.spherical,
        )
        sums, weight = cluster_sums(points, found.labels, k, uniform=options.uniform)
        distance = found.distance
        if options.spherical:
            distance = (distance + 1 - norms) / 2
        if found.slack is None:
            found = found._replace(distance=None)  # no window will be made of it, so it need not be carried
        return LloydStats(sums, weight, points.weight @ distance), found

    size = search_tile(rows.norms.shape[0], k, d, rows.norms.dtype)
    return fold_rows(tile, (rows, last), tile=size, monoid=SUM, axis_name=options.axis_name)


def lloyd_update(
    stats: LloydStats, centers: Float[Array, "k d"], *, movable: Bool[Array, " k"] | None, spherical: bool
) -> Float[Array, "k d"]:
    """Means of the clusters; an empty or frozen one keeps its center."""
    filled = stats.weight > 0
    means = stats.sums / jnp.where(filled, stats.weight, 1)[:, None]
    if spherical:
        means = normalize(means)
        filled &= jnp.any(means != 0, axis=1)
    if movable is not None:
        filled &= movable
    return jnp.where(filled[:, None], means, centers)


def sharpen(
    means: Float[Array, "k d"],
    members: Int[Array, " n"],
    stats: LloydStats,
    points: Points,
    given: Given,
    axis_name: str | None,
) -> Float[Array, "k d"]:
    """Means with the rounding of their sums taken off: c + Σ w·(x − c)/Σ w of the samples they are means of.

    A pass over the samples, taken only where a center lies so far from the origin, for the spread of the samples, that
    float32 sums lose what tells clusters apart.
    """
    k = means.shape[0]
    spread = jnp.sqrt(stats.inertia / jnp.sum(stats.weight))
    far = jnp.finfo(means.dtype).eps * jnp.sqrt(jnp.max(squared_norms(means))) > MEAN_ERROR * spread

    def tile(rows):
        (x, weight), members = rows
        return cluster_sums(Points(x - means[members], weight), members, k), ()

    def correct(means):
        sums, weight = fold_rows(tile, (points, members), tile=SHARPEN_TILE, axis_name=axis_name)[0]
        delta = sums / jnp.where(weight > 0, weight, 1)[:, None]
        return means + (delta if given.movable is None else jnp.where(given.movable[:, None], delta, 0))

    return at_most_once(far, correct, means)


def start(centers: Float[Array, "k d"], rows: Rows, given: Given, options: LloydOptions) -> LloydState:
    """The state before the first step: rows assigned to the given centers."""
    stats, found = lloyd_stats(centers, rows, active=given.active, options=options)
    infinite = jnp.asarray(jnp.inf, centers.dtype)
    return LloydState(centers, stats, found, jnp.full_like(found.labels, -1), infinite, jnp.asarray(False))


def step(state: LloydState, rows: Rows, given: Given, options: LloydOptions) -> LloydState:
    """Refills empty clusters, moves the centers to their means and assigns the rows anew."""
    stats, members = refill(state, rows.points, given, options.axis_name)
    centers = lloyd_update(stats, state.centers, movable=given.movable, spherical=options.spherical)
    if not options.spherical:
        centers = sharpen(centers, members, stats, rows.points, given, options.axis_name)
    squared_moves = jnp.sum(jnp.square(centers - state.centers), axis=1)
    moved = jnp.sqrt(squared_moves)
    stats, found = lloyd_stats(centers, rows, last=state.found, moved=moved, active=given.active, options=options)
    changed = jnp.any((found.labels != state.found.labels) & (rows.points.weight > 0))
    stable = across(changed.astype(jnp.int32), options.axis_name) == 0
    return LloydState(centers, stats, found, members, jnp.sum(squared_moves), stable)


def run(
    centers: Float[Array, "k d"],
    rows: Rows,
    given: Given,
    *,
    tol,
    max_steps,
    capacity: int,
    options: LloydOptions,
    absolute: bool = False,
) -> Fit:
    """Steps from given centers until no label changes or the shift is at most ``tol``.

    Counts the step that would only find that no label changes, as the usual libraries do; it is not taken.

    Args:
        tol: in units of the mean variance of the columns, or in data units² where ``absolute``.
    """
    state = start(centers, rows, given, options)
    if not absolute:
        squares = across(rows.points.weight @ rows.norms, options.axis_name)
        tol = tol * variance_of_sums(jnp.sum(state.stats.weight), squares, jnp.sum(state.stats.sums, axis=0))
    fit = iterate(
        lambda state: step(state, rows, given, options), state, tol=tol, max_steps=max_steps, capacity=capacity
    )
    state = fit.state
    more = state.stable & (state.shift > tol) & (fit.steps < max_steps)
    history = fit.history.at[jnp.where(more, fit.steps, capacity)].set(state.objective, mode="drop")
    return fit._replace(steps=fit.steps + more.astype(jnp.int32), history=history)


def refill(
    state: LloydState, points: Points, given: Given, axis_name: str | None
) -> tuple[LloydStats, Int[Array, " n"]]:
    """Gives the e-th empty cluster the e-th row farthest from its own center; the row leaves its donor.

    Nothing moves where every distance is 0. Returns the statistics and the labels that they belong to.
    """
    empty = state.stats.weight <= 0
    for mask in (given.active, given.movable):
        empty = empty if mask is None else empty & mask

    def move(carry):
        _, stats, members = carry
        members = _move_far_rows(members, empty, state, points, axis_name)
        # Added up anew: a far row taken off the sum of its donor would leave its rounding error there.
        sums, weight = cluster_sums(points, members, empty.shape[0])
        stats = LloydStats(*across((sums, weight), axis_name), stats.inertia)
        return jnp.asarray(False), stats, members

    # A loop of at most one round, not a cond: under vmap a cond always pays for both of its branches.
    carry = (jnp.any(empty), state.stats, state.found.labels)
    _, stats, members = jax.lax.while_loop(lambda carry: carry[0], move, carry)
    return stats, members


def _move_far_rows(members, empty, state, points, axis_name):
    n, k = members.shape[0], empty.shape[0]
    distance = jnp.where(points.weight > 0, distances_to_assigned(points.x, state.centers, members), -1)
    local_distance, local_row = jax.lax.top_k(distance, min(k, n))
    owner = jnp.full_like(local_row, 0) + shard_index(axis_name)
    far_distance, row, owner = (gather_tables(table, axis_name) for table in (local_distance, local_row, owner))
    _, order = jax.lax.top_k(far_distance, min(k, far_distance.shape[0]))
    taken = order[jnp.minimum(jnp.cumsum(empty) - 1, order.shape[0] - 1)]
    rank = jnp.cumsum(empty) - 1
    moves = empty & (far_distance[taken] > 0) & (rank < order.shape[0])
    here = moves & (owner[taken] == shard_index(axis_name))
    return members.at[jnp.where(here, row[taken], n)].set(jnp.arange(k, dtype=members.dtype), mode="drop")

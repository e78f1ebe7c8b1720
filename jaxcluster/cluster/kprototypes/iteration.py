"""Alternation of k-prototypes in a frame: assignment step, update step, relocation of empty clusters.

    assignment   label_i = argmin_j ‖x_i − c_j‖² + γ·(mismatches of the categories of row i with mode j)
    update       c_j: weighted mean of the numbers of the rows with label_i = j; mode_j: their heaviest categories
    inertia      Σ w_i·(‖x_i − c_label_i‖² + γ·mismatches_i)

Neither step raises the inertia, so the iteration ends: once no label changes, or once the shift is at most tol. Without
numbers this is k-modes, without categories Lloyd's iteration.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster import lloyd
from jaxcluster.cluster.lloyd_run import PASS_CENTERS
from jaxcluster.cluster.seeding import CenterConstraints
from jaxcluster.core import chunks, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import exponent_of, float_dtype, times_power_of_two
from jaxcluster.core.fold import all_reduce, fold_rows
from jaxcluster.core.frame import Frame
from jaxcluster.core.iterate import advance, begin
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.distance import at_most_once, sqeuclidean
from jaxcluster.ops.matching import CategorySlots, category_weights, heaviest_categories, mismatches
from jaxcluster.ops.nearest import Nearest, relabel_far, tile_size
from jaxcluster.types import Array, Bool, Fit, Float, Int, Points

GAMMA_EXPONENTS = (-100, 100)
"""Range of the exponent of γ in the unit of a frame. Squared distances there are 2⁻⁴⁰ to 2⁸⁰ for all but a few rows:
beyond the range one part of the cost decides alone, and the other breaks ties."""


class MixedPoints(NamedTuple):
    """Weighted rows of numbers and categories.

    Attributes:
        x: (n, d) numbers in a frame.
        codes: (n, q) codes of categories.
        weight: (n,) weights >= 0.
    """

    x: Float[Array, "n d"]
    codes: Int[Array, "n q"]
    weight: Float[Array, " n"]


class Prototypes(NamedTuple):
    """Centers of clusters of mixed rows.

    Attributes:
        means: (k, d) means of the numbers.
        modes: (k, q) codes of the heaviest categories.
    """

    means: Float[Array, "*batch k d"]
    modes: Int[Array, "*batch k q"]


class CostFactors(NamedTuple):
    """Factors of the two parts of a cost, squared distances in a frame and mismatches.

    Attributes:
        gamma: () squared distance in the frame that a mismatch counts as, to compare costs of one row.
        numeric, mismatch: () the factors 1 and γ, divided by a power of two so that neither is above 2, for sums.
        exponent: () exponent of that power of two.
    """

    gamma: Float[Array | np.ndarray, ""]
    numeric: Float[Array | np.ndarray, ""]
    mismatch: Float[Array | np.ndarray, ""]
    exponent: Int[Array, ""] | int


class PrototypeStats(NamedTuple):
    """Sufficient statistics of an assignment.

    Attributes:
        sums: (k, d) Σ w·x of each cluster.
        weight: (k,) Σ w of each cluster.
        categories: (k, slots) Σ w of each cluster in each category.
        squares, mismatches: () the two parts of the inertia, Σ w·‖x − c‖² and Σ w·mismatches.
    """

    sums: Float[Array, "*batch k d"]
    weight: Float[Array, "*batch k"]
    categories: Float[Array, "*batch k slots"]
    squares: Float[Array, "*batch"]
    mismatches: Float[Array, "*batch"]


class Assignment(NamedTuple):
    """Cluster of each row, and the cost of the row there."""

    labels: Int[Array, "*batch n"]
    cost: Float[Array, "*batch n"]


class PrototypeState(NamedTuple):
    """Prototypes, and the assignment of the rows to them.

    Attributes:
        prototypes: means and modes.
        stats: of the assignment.
        assignment: of the rows.
        prev_labels: (n,) labels of the assignment before, of which the prototypes are the means and modes.
        objective: () inertia of the present assignment, by the factors for sums.
        shift: () Σ‖Δmean‖² + γ·(entries of modes that changed) of the last step.
        stable: () whether the last step changed no label.
    """

    prototypes: Prototypes
    stats: PrototypeStats
    assignment: Assignment
    prev_labels: Int[Array, "*batch n"]
    objective: Float[Array, "*batch"]
    shift: Float[Array, "*batch"]
    stable: Bool[Array, "*batch"]

    @property
    def residual(self) -> Float[Array, "*batch"]:
        """The last shift; 0 once no label changes."""
        # A product, not a select: a NaN of the shift stays NaN and ends the iteration as NOT_FINITE.
        return jnp.where(self.stable, 0, 1) * self.shift


class Problem(NamedTuple):
    """All that the steps of one fit read.

    Attributes:
        points: the rows, in a frame.
        slots: of their categories.
        factors: of the costs.
        active: (k,) mask of the clusters that are no padding; None for all.
    """

    points: MixedPoints
    slots: CategorySlots
    factors: CostFactors
    active: Bool[Array, " k"] | None = None


def cost_factors(gamma, frame: Frame, n_categorical: int) -> CostFactors:
    """Factors of costs in a frame, for a mismatch that counts as ``gamma`` in data units²; 0 without categories."""
    gamma = gamma if n_categorical else 0.0
    least, most = GAMMA_EXPONENTS
    dtype = float_dtype(frame.dtype)
    if validation.is_traced(gamma, frame):
        inside = frame.scale(jnp.asarray(gamma, dtype), length=2)
        clipped = jnp.clip(inside, 2.0**least, 2.0**most)
        inside = jnp.where(inside > 0, clipped, 0)
        exponent = jnp.maximum(exponent_of(inside), 0)
        one = jnp.ones((), dtype)
        return CostFactors(inside, times_power_of_two(one, -exponent), times_power_of_two(inside, -exponent), exponent)
    mantissa, exponent = np.frexp(np.float64(gamma))
    exponent = int(exponent) + 2 * int(frame.exponent) if gamma > 0 else 0
    inside = np.ldexp(mantissa, int(np.clip(exponent, least, most)))
    # The factors for sums hold γ itself, unless it is so small that it changes no sum.
    exponent_of_sums = max(exponent, 0)
    with np.errstate(under="ignore"):
        numeric, mismatch = np.ldexp(1.0, -exponent_of_sums), np.ldexp(mantissa, exponent - exponent_of_sums)
        inside, numeric, mismatch = (np.asarray(each).astype(dtype) for each in (inside, numeric, mismatch))
    return CostFactors(inside, numeric, mismatch, exponent_of_sums)


def run(start: Prototypes, problem: Problem, *, tol, max_steps, capacity: int, uniform: bool, axis_name) -> Fit:
    """Iterate from initial prototypes until no label changes or the shift is at most ``tol``.

    Args:
        start: initial prototypes.
        problem: rows and factors.
        tol: in units of the mean variance of the columns of numbers.
        max_steps: maximum number of steps.
        capacity: static length of the history.
        uniform: every weight is 0 or 1.
        axis_name: the mapped axis over which the rows are spread, or None.

    Returns:
        `Fit` with a `PrototypeState`, without labels.
    """
    fit, tol = begin_run(capacity, uniform, axis_name, start, problem, tol)
    return advance(partial(step, uniform, axis_name, problem), fit, tol=tol, max_steps=max_steps)


def run_in_chunks(
    start: Prototypes,
    problem: Problem,
    *,
    tol,
    max_steps,
    capacity: int,
    uniform: bool,
    shown: Callable[..., Any],
    end: chunks.End,
) -> Fit:
    """`run` of concrete rows, which Ctrl-C can end.

    ``shown`` is that of `chunks.resume`, and ``end`` what the caller calls with the fit.
    """
    fit, tol = _compiled_begin(capacity, uniform, None, start, problem, tol)
    end.compile(fit)
    bound = chunks.bind(_bound_step, uniform, problem)
    work = step_work(problem.points, start.modes.shape[0])
    return chunks.resume(bound, fit, tol=tol, max_steps=max_steps, work=work, shown=shown)


def step_work(points: MixedPoints, k: int) -> int:
    """Products, comparisons and sums of a step."""
    return (points.x.size + points.codes.size) * (k + PASS_CENTERS)


def begin_run(
    capacity: int, uniform: bool, axis_name: str | None, start: Prototypes, problem: Problem, tol
) -> tuple[Fit, Any]:
    """Begin a run.

    Returns:
        The fit before its first step, and the tolerance in the units of its residual.
    """
    state = init_state(start, problem, uniform, axis_name)
    points = problem.points
    if points.x.shape[1]:
        tol = tol * lloyd.mean_variance(
            Points(points.x, points.weight), jnp.sum(jnp.square(points.x), axis=1), axis_name=axis_name
        )
    else:
        tol = tol * jnp.zeros_like(state.shift)
    return begin(state, capacity), tol


def init_state(start: Prototypes, problem: Problem, uniform: bool, axis_name: str | None) -> PrototypeState:
    """State before the first step: the rows assigned to the initial prototypes."""
    stats, assignment = assignment_step(start, problem, uniform, axis_name)
    infinite = jnp.asarray(jnp.inf, start.means.dtype)
    labels = jnp.full_like(assignment.labels, -1)
    return PrototypeState(
        start, stats, assignment, labels, _objective(stats, problem.factors), infinite, jnp.asarray(False)
    )


def step(uniform: bool, axis_name: str | None, problem: Problem, state: PrototypeState) -> PrototypeState:
    """One step: relocate empty clusters, update the prototypes, assign the rows."""
    points = problem.points
    stats, labels = relocate_empty_clusters(state, problem, uniform, axis_name)
    prototypes = update_step(stats, labels, state.prototypes, problem, axis_name)
    changed_modes = jnp.sum(prototypes.modes != state.prototypes.modes, dtype=jnp.int32)
    shift = jnp.sum(jnp.square(prototypes.means - state.prototypes.means))
    shift = shift + problem.factors.gamma * changed_modes.astype(shift.dtype)
    stats, assignment = assignment_step(prototypes, problem, uniform, axis_name)
    changed = jnp.any((assignment.labels != state.assignment.labels) & (points.weight > 0))
    stable = all_reduce(changed.astype(jnp.int32), axis_name) == 0
    return PrototypeState(prototypes, stats, assignment, labels, _objective(stats, problem.factors), shift, stable)


def _bound_step(uniform, problem, state):
    return step(uniform, None, problem, state)


_compiled_begin = persistent_jit(begin_run, static_argnums=(0, 1, 2))


def assign(
    prototypes: Prototypes, points: MixedPoints, factors: CostFactors, active: Bool[Array, " k"] | None
) -> tuple[Array, Array, Array]:
    """Cluster of each row of a tile, one of those in the mask ``active``; the lowest index of equals.

    Returns:
        (n,) labels, squared distances and mismatches.
    """
    squares = squared_distances(points.x, prototypes.means)
    differing = mismatches(points.codes, prototypes.modes)
    if active is not None:
        squares = jnp.where(active, squares, jnp.inf)
        differing = jnp.where(active, differing, points.codes.shape[1])
    # Relative to the fewest mismatches of the row: however large γ is, distances decide where these are equal.
    more = (differing - jnp.min(differing, axis=1, keepdims=True)).astype(squares.dtype)
    costs = jnp.asarray(factors.gamma * more)
    labels = jnp.argmin(squares + costs, axis=1).astype(jnp.int32)
    if points.x.shape[1]:
        own = Nearest(labels, jnp.take_along_axis(squares, labels[:, None], axis=1)[:, 0], None)
        labels = relabel_far(own, points.x, prototypes.means, active=active, costs=costs).labels
    own = labels[:, None]
    return (
        labels,
        jnp.take_along_axis(squares, own, axis=1)[:, 0],
        jnp.take_along_axis(differing, own, axis=1)[:, 0].astype(squares.dtype),
    )


def squared_distances(x: Float[Array, "n d"], means: Float[Array, "k d"]) -> Float[Array, "n k"]:
    """Squared distances of the numbers; 0 without any."""
    return sqeuclidean(x, means) if x.shape[1] else jnp.zeros((x.shape[0], means.shape[0]), x.dtype)


def assignment_step(
    prototypes: Prototypes, problem: Problem, uniform: bool, axis_name: str | None
) -> tuple[PrototypeStats, Assignment]:
    """Assign each row to its nearest prototype and sum up the clusters, in one pass over the rows.

    Returns:
        The statistics, the same on every device, and the assignment.
    """
    k, d = prototypes.means.shape
    points, slots, factors, active = problem

    def tile(points):
        labels, squares, differing = assign(prototypes, points, factors, active)
        sums, weight, categories = _cluster_stats(points, slots, labels, k, uniform)
        stats = PrototypeStats(sums, weight, categories, points.weight @ squares, points.weight @ differing)
        return stats, Assignment(labels, squares + factors.gamma * differing)

    n, q = points.codes.shape
    size = tile_size(jax.ShapeDtypeStruct((n, d + q), points.weight.dtype), k)
    return fold_rows(tile, points, tile=size, axis_name=axis_name)


def update_step(
    stats: PrototypeStats, labels, prototypes: Prototypes, problem: Problem, axis_name: str | None
) -> Prototypes:
    """Means and modes of the clusters; an empty cluster keeps its own."""
    points = problem.points
    numeric = lloyd.LloydStats(stats.sums, stats.weight, stats.squares)
    means = lloyd.update_step(numeric, prototypes.means, movable=None, spherical=False)
    rows = Points(points.x, points.weight)
    if points.x.shape[1]:
        means = lloyd.refine_means(means, labels, numeric, rows, CenterConstraints(), axis_name)
    modes = heaviest_categories(problem.slots, stats.categories)
    return Prototypes(means, jnp.where((stats.weight > 0)[:, None], modes, prototypes.modes))


def relocate_empty_clusters(
    state: PrototypeState, problem: Problem, uniform: bool, axis_name: str | None
) -> tuple[PrototypeStats, Int[Array, " n"]]:
    """Give the e-th empty cluster the row of e-th largest cost, and take it from its cluster; as in `lloyd`.

    Returns:
        The statistics, and the (n,) labels that they belong to.
    """
    points, slots, _, active = problem
    empty = state.stats.weight <= 0
    empty = empty if active is None else empty & active

    def relocate(carry):
        stats, labels = carry
        cost = jnp.where(points.weight > 0, state.assignment.cost, -1)
        labels = lloyd.relocated_labels(labels, empty, cost, axis_name)
        parts = _cluster_stats(points, slots, labels, empty.shape[0], uniform)
        sums, weight, categories = all_reduce(parts, axis_name)
        return PrototypeStats(sums, weight, categories, stats.squares, stats.mismatches), labels

    return at_most_once(jnp.any(empty), relocate, (state.stats, state.assignment.labels))


def _cluster_stats(points, slots, labels, k, uniform):
    """Sums, weights and weights of categories of the clusters."""
    d = points.x.shape[1]
    # Without numbers the sums have no columns; a column of weights keeps their device-varying type inside shard_map.
    x = points.x if d else points.weight[:, None]
    sums, weight = cluster_sums(Points(x, points.weight), labels, k, uniform=uniform)
    return sums[:, :d], weight, category_weights(slots, points.codes, points.weight, labels, k)


def _objective(stats: PrototypeStats, factors: CostFactors) -> Any:
    return factors.numeric * stats.squares + factors.mismatch * stats.mismatches

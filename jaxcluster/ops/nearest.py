"""Nearest center of each sample, in three forms of XLA, with a refinement where expanded squares are too rounded.

- *unrolled*: squared differences, written out for a handful of centers and features; exact, and free of temporaries.
- *packed*: for the CPU. XLA fuses a matrix product with a plain minimum into one kernel that never writes n×k, but
  not with an argmin. So distances are cut into whole steps of a quantum and the center's index is put below them:
  one minimum of ``step·k + index`` brings both out. Bounds on the least distance make the quantum small; without them
  a first minimum finds it.
- *direct*: tiles of n×k and an argmin; for accelerators, float64, and on a CPU for small problems of few centers.

The last two expand ‖x‖² − 2x·c + ‖c‖², which is rounded by up to about 8·eps·(‖x‖² + its value). Where that is more
than `RELATIVE_ERROR` of the value, `refine` computes the distance to the center again from the difference. By the
triangle inequality the center is the nearest for certain if it is nearer than half its distance to the next center
(C. Elkan, Using the triangle inequality to accelerate k-means, ICML 2003). Only the rest is compared with all centers
by differences. Samples near the origin of a frame need no refinement, and pay one comparison each.

All three lose a center beside a sample far from it: (x − c)² is rounded in proportion to ‖x − c‖², and the distances to
all centers become equal. `relabel_far` compares these samples by products, rounded in proportion to ‖x − c‖ only.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.fold import fold_selected, map_rows, tile_rows, zeros_like
from jaxcluster.core.sparse_rows import SparseRows
from jaxcluster.ops.distance import (
    HIGHEST,
    RELATIVE_ERROR,
    at_most_once,
    expanded_sqeuclidean,
)
from jaxcluster.ops.rows import Rows, distances_to_assigned, inner_products, squared_norms
from jaxcluster.types import Absent, Array, Bool, Float, Int

UNROLLED_TERMS = 64
"""Centers × features up to which distances are written out; compile time grows with it."""

DIRECT_CENTERS = 18
"""Up to this many centers XLA's compiler for CPUs writes out the loop of an argmin, which then takes a third of the
time of the packed form; from the next one on it is a loop, and takes up to three times that."""

PACKED_CENTERS, BOUNDED_CENTERS = 1 << 12, 1 << 10
"""More centers than this leave too few of float32's 24 bits for the distance; and for bounds, which are wider apart."""

EXACT_CENTERS = 64
"""Up to this many centers the bits that are left tell distances apart as well as float32 does, within any bounds."""

MAX_UPPER_BOUND_RATIO = 1.25
"""Ratio of upper bounds to distances above which a pass that tightens the bounds pays."""

FUSED_ELEMENTS, CACHED_ELEMENTS, DEVICE_ELEMENTS = 1 << 28, 1 << 21, 1 << 26
"""Distances in a tile: fused into their minimum on a CPU and never written (cutting rows into tiles copies them), kept
in its cache, and enough to fill an accelerator."""

SPARSE_ELEMENTS = 1 << 24
"""Distances of sparse rows in a tile on a CPU, 64 MB, which are written: more tiles would take longer to compile."""

DISTANCES_PER_COORDINATE = 16
"""Distances that a tile may hold for each coordinate of its copied rows: 2²⁴ coordinates, 64 MB, in a fused tile."""

MAX_ERROR_RATIO = 1e-2
"""Error of a packed distance, from cutting it into whole steps, relative to the distance: above it the distance is
refined. Steps are that wide only while centers make long moves."""

SELECTION_WORK = 1 << 22
"""Differences up to which all samples are compared, not only those at risk: to select these takes a program that
compiles for a second, and all take a few milliseconds."""

FAR_RATIO = 2.0**8
"""Distance of a sample, in diameters of the set of centers, beyond which products tell distances apart better than
squares. Up to it squares of float32 tell distances apart that differ by one part in 2¹³."""

SEPARATION_TILE = 1 << 22
"""Squared distances between centers that are held at once."""

DIFFERENCE_MARGIN = 1 + 1e-4
"""Factor on a distance that covers the rounding of differences, a few eps for each of thousands of features."""


class Nearest(NamedTuple):
    """Nearest center of each sample.

    Attributes:
        labels: index of the nearest center; ties, to within rounding, go to the lower index.
        distance: squared distance to it (data units²).
        error: bound on the error of ``distance`` (data units²); None from a form that has no use for bounds.
    """

    labels: Int[Array, "*batch n"]
    distance: Float[Array, "*batch n"] | Absent
    error: Float[Array, "*batch n"] | Absent


class DistanceBounds(NamedTuple):
    """Lower and upper bound (data units²) on the least squared distance of each sample."""

    lower: Float[Array, "*batch n"]
    upper: Float[Array, "*batch n"]


def nearest(
    x: Rows,
    centers: Float[Array, "k d"],
    *,
    active: Bool[Array, " k"] | None = None,
    precision: jax.lax.Precision = HIGHEST,
    unit: bool = False,
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Nearest center of each sample; ties go to the lower index.

    n×k is never built. Samples far from the origin relative to their distances are refined, which costs: `core.frame`
    puts the origin among them first.

    Args:
        x: (n, d) samples, dense or sparse.
        centers: (k, d).
        active: (k,) mask of the centers that take part; None for all.
        precision: of matrix products.
        unit: samples and centers have length 1, or are zeros; see `nearest_tile`.

    Returns:
        (n,) int32 labels and (n,) squared distances (data units²).
    """
    size = tile_size(x, centers.shape[0])
    whole = size >= x.shape[0]

    def assign(rows):
        assignment = nearest_tile(rows, centers, active=active, precision=precision, unit=unit, whole=whole)
        return assignment.labels, assignment.distance

    return map_rows(assign, x, tile=size)


def tile_size(x: Any, k: int) -> int:
    """Number of samples that `nearest_tile` should get at once for k centers.

    Args:
        x: rows of either kind, or their `jax.ShapeDtypeStruct`.
        k: number of centers.
    """
    n, d = x.shape
    on_cpu = jax.default_backend() == "cpu"
    if isinstance(x, SparseRows):
        return tile_rows(n, max(k, x.values.shape[1]), SPARSE_ELEMENTS if on_cpu else DEVICE_ELEMENTS)
    if k * d <= UNROLLED_TERMS:
        return n
    fused = on_cpu and x.dtype == jnp.float32 and k <= PACKED_CENTERS
    budget = FUSED_ELEMENTS if fused else CACHED_ELEMENTS if on_cpu else DEVICE_ELEMENTS
    # One of several tiles is a copy of its rows, which wide rows make larger than the distances of a fused tile.
    return n if n * k <= budget else tile_rows(n, max(k, DISTANCES_PER_COORDINATE * d), budget)


def nearest_tile(
    x: Rows,
    centers: Float[Array, "k d"],
    *,
    active: Bool[Array, " k"] | None = None,
    norms: Float[Array, " n"] | None = None,
    bounds: DistanceBounds | None = None,
    precision: jax.lax.Precision = HIGHEST,
    unit: bool = False,
    whole: bool = False,
) -> Nearest:
    """`nearest` for one tile of samples.

    Args:
        x, centers, active, precision: as in `nearest`.
        norms: (n,) squared norms of the samples, if they are at hand.
        bounds: on the least distance of each sample, which save a pass.
        unit: samples and centers have length 1, or are zeros. All centers are equally far from a sample of zeros,
            which their rounded norms would not say.
        whole: the tile is all samples, which a shorter program suits if they are few.
    """
    k, d = centers.shape
    if k * d <= UNROLLED_TERMS and not isinstance(x, SparseRows):
        assignment = _unrolled(x, centers, active, unit)
        return assignment if unit else relabel_far(assignment, x, centers, active=active, whole=True)
    norms = squared_norms(x) if norms is None else norms
    bias = jnp.ones_like(centers[:, 0]) if unit else squared_norms(centers)
    # An inactive center is infinitely far, at no cost to the product.
    bias = bias if active is None else jnp.where(active, bias, jnp.inf)
    assignment = _by_expansion(x, centers, norms, bias, bounds, precision)
    assignment = refine(assignment, x, centers, norms, active=active, whole=whole)
    return assignment if unit else relabel_far(assignment, x, centers, active=active, whole=whole)


def elkan_bounds(
    prev: Nearest, shifts: Float[Array, " k"], x: Float[Array, "n d"], centers: Float[Array, "k d"]
) -> DistanceBounds:
    """Bounds on the least distance of each sample after center j has moved by ``shifts[j]`` (data units).

    By the triangle inequality the assigned center is at most its shift farther away than it was, and no center is
    nearer than the nearest one was, less the longest shift. After long shifts the upper bound is loose, and many
    centers leave no bits for that: then the distance to the assigned center is computed instead.
    """
    # The triangle inequality: a center that moves by δ comes nearer by δ at most, and goes farther by δ at most.
    least = jnp.sqrt(jnp.maximum(prev.distance - prev.error, 0))
    most = jnp.sqrt(prev.distance + prev.error)
    lower = jnp.square(jnp.maximum(least - jnp.max(shifts), 0))
    upper = jnp.square(most + shifts[prev.labels])
    if centers.shape[0] <= EXACT_CENTERS:
        return DistanceBounds(lower, upper)

    def computed():
        return (1 + 16 * jnp.finfo(x.dtype).eps) * distances_to_assigned(x, centers, prev.labels)

    # One pass over the own centers is cheaper than the searches that loose bounds fail to spare.
    loose = jnp.sum(upper) > MAX_UPPER_BOUND_RATIO * jnp.sum(prev.distance)
    return DistanceBounds(lower, jax.lax.cond(loose, computed, lambda: upper))


@persistent_jit(static_argnums=3)  # an iteration calls it twice: traced and lowered once
def _unrolled(x, centers, active, unit):
    labels = distance = None
    norms = squared_norms(x) if unit else 0
    # Unstacked once: tracing an index takes longer than tracing all the arithmetic of a term.
    columns = jnp.unstack(x, axis=1)
    for j, center in enumerate(jnp.unstack(centers)):
        pairs = zip(columns, jnp.unstack(center), strict=True)
        if unit:
            # ‖c‖² = 1 exactly, so that a sample of zeros is as far from all centers.
            to_j = norms + 1 - 2 * reduce(jnp.add, (column * entry for column, entry in pairs))
        else:
            to_j = reduce(jnp.add, (jnp.square(column - entry) for column, entry in pairs))
        if active is not None:
            to_j = jnp.where(active[j], to_j, jnp.inf)
        if labels is None or distance is None:
            labels, distance = jnp.zeros(to_j.shape, jnp.int32), to_j
        else:
            labels, distance = jnp.where(to_j < distance, j, labels), jnp.minimum(to_j, distance)
    # Cheap to write out: fused into everything that reads labels, all of this would be computed over and over.
    labels, distance = jax.lax.optimization_barrier((labels, distance))
    return Nearest(labels, distance, None)


def _by_expansion(x, centers, norms, bias, bounds, precision):
    """Nearest centers by expanded squares, in the form that is fast on the platform."""
    k = centers.shape[0]
    doubled = -2 * centers

    def direct(x, norms, bias, doubled, bounds):
        assignment = _direct(x, norms, bias, doubled, precision)
        return assignment._replace(error=rounding_bound(norms, assignment.distance))

    def packed(x, norms, bias, doubled, bounds):
        return _packed(x, norms, bias, doubled, bounds, precision)

    few = k <= DIRECT_CENTERS and x.shape[0] * k <= CACHED_ELEMENTS
    if few or isinstance(x, SparseRows) or x.dtype != jnp.float32 or k > PACKED_CENTERS:
        return _direct(x, norms, bias, doubled, precision)
    return jax.lax.platform_dependent(x, norms, bias, doubled, bounds, cpu=packed, default=direct)


def _direct(x, norms, bias, doubled, precision):
    relative = inner_products(x, doubled, precision) + bias[None, :]
    # In whole steps of the rounding error, so that ties are ties. The center nearest the origin bounds the least.
    quantum = 4 * jnp.finfo(x.dtype).eps * (norms + jnp.min(bias)) + jnp.finfo(x.dtype).tiny
    steps = jnp.floor((relative + norms[:, None]) * (1 / quantum)[:, None])
    distance = jnp.maximum((jnp.min(steps, axis=1) + 0.5) * quantum, 0)
    return Nearest(jnp.argmin(steps, axis=1).astype(jnp.int32), distance, None)


def _packed(x, norms, bias, doubled, bounds, precision):
    k = bias.shape[0]
    # step·k + index must be a whole number that float32 holds: below 2²⁴.
    levels = 2.0**24 / k
    bounds = bounds if k <= BOUNDED_CENTERS else None
    # Fused with its own broadcast, the bias would be written out as n×k before the product is. And JAX 0.12 confuses a
    # fused iota with that of an earlier compile for another k, and mislabels rows.
    bias, index = jax.lax.optimization_barrier((bias, jnp.arange(k, dtype=x.dtype)))
    if bounds is None:
        least = jnp.maximum(jnp.min(inner_products(x, doubled, precision) + bias[None, :], axis=1) + norms, 0)
        bounds = DistanceBounds(least, least)
        # Two products of the same operands would be merged into one that writes n×k.
        x, bias, doubled, bounds = jax.lax.optimization_barrier((x, bias, doubled, bounds))
    rounding = rounding_bound(norms, bounds.upper)
    lower = bounds.lower - rounding
    quantum = (bounds.upper - lower + rounding) / (levels - 2)
    # Steps finer than the rounding would tell ties apart by noise; tiny keeps the reciprocal finite.
    quantum = jnp.maximum(quantum, rounding / 4) + jnp.finfo(x.dtype).tiny
    scale, offset = 1 / quantum, norms - lower
    scaled = (inner_products(x, doubled, precision) + bias[None, :] + offset[:, None]) * scale[:, None]
    least = jnp.min(jnp.floor(scaled) * k + index[None, :], axis=1)
    # Taken apart as integers: a float quotient may round up to the next step.
    step, labels = jnp.divmod(least.astype(jnp.int32), k)
    distance = jnp.maximum(lower + (step.astype(x.dtype) + 0.5) * quantum, 0)
    return Nearest(labels, distance, quantum + rounding)


# Refinement by differences -------------------------------------------------------------------------------------------


def rounding_bound(norms: Float[Array, "*n"], distance: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Bound on the rounding error of an expanded squared distance: ‖c‖ is at most √norm + √distance."""
    return 8 * jnp.finfo(norms.dtype).eps * (norms + distance)


def refine(
    assignment: Nearest,
    x: Rows,
    centers: Float[Array, "k d"],
    norms: Float[Array, " n"],
    *,
    active: Bool[Array, " k"] | None = None,
    whole: bool = False,
) -> Nearest:
    """Labels and squared distances from differences, where those of expanded squares are too rounded; constants."""
    assignment, x, centers, norms = jax.lax.stop_gradient((assignment, x, centers, norms))
    labels, distance, error = assignment
    rounded = rounding_bound(norms, distance) > RELATIVE_ERROR * distance
    if error is not None:
        rounded |= error > MAX_ERROR_RATIO * distance

    def compare_every_sample(carry):
        labels, distance, error = carry
        dense: Any = x
        new_labels, squares = nearest_by_differences(dense, centers, active)
        labels, distance = jnp.where(rounded, new_labels, labels), jnp.where(rounded, squares, distance)
        return Nearest(labels, distance, exact_error(distance, error))

    def compare(carry):
        labels, distance, error = carry
        separation = separations(centers, active)

        def remeasure(index, rows, carry):
            distance, unsure = carry
            assigned = labels[jnp.minimum(index, len(labels) - 1)]
            squares = distances_to_assigned(rows, centers, assigned)
            # Elkan: ‖x − c‖ <= ½·min ‖c − c'‖ proves that no other center c' is nearer.
            far = 2 * DIFFERENCE_MARGIN * jnp.sqrt(squares) >= separation[assigned]
            return distance.at[index].set(squares, mode="drop"), unsure.at[index].set(far, mode="drop")

        def compare_with_all(index, rows, carry):
            labels, distance = carry
            new_labels, squares = nearest_by_differences(rows, centers, active)
            return labels.at[index].set(new_labels, mode="drop"), distance.at[index].set(squares, mode="drop")

        distance, unsure = fold_selected(rounded, x, remeasure, (distance, rounded & ~rounded), often=True)
        labels, distance = at_most_once(
            jnp.any(unsure), lambda carry: fold_selected(unsure, x, compare_with_all, carry), (labels, distance)
        )
        return Nearest(labels, distance, exact_error(distance, error))

    def exact_error(distance, error):
        return None if error is None else jnp.where(rounded, 16 * jnp.finfo(x.dtype).eps * distance, error)

    small = whole and _is_small(x, centers)
    return at_most_once(jnp.any(rounded), compare_every_sample if small else compare, Nearest(labels, distance, error))


def _is_small(x, centers):
    return not isinstance(x, SparseRows) and x.shape[0] * centers.size <= SELECTION_WORK


def separations(centers: Float[Array, "k d"], active: Bool[Array, " k"] | None = None) -> Float[Array, " k"]:
    """Lower bound on the distance (data units) of each center to the nearest other active center.

    Expanded squares less their rounding bound: 0 for centers that are closer than it.
    """
    k = centers.shape[0]
    index, norms = jnp.arange(k, dtype=jnp.int32), squared_norms(centers)
    infinite = jnp.asarray(jnp.inf, centers.dtype)

    def nearest_other(rows):
        tile, tile_norms, numbers = rows
        other = numbers[:, None] != index[None, :]
        other = other if active is None else other & active[None, :]
        squares = expanded_sqeuclidean(tile, centers, tile_norms)
        # A lower bound must not be too large: what rounding may have added is taken off.
        squares -= rounding_bound(tile_norms[:, None] + norms[None, :], squares)
        return jnp.sqrt(jnp.maximum(jnp.min(jnp.where(other, squares, infinite), axis=1), 0))

    return map_rows(nearest_other, (centers, norms, index), tile=tile_rows(k, k, SEPARATION_TILE))


def nearest_by_differences(
    x: Float[Array, "n d"], centers: Float[Array, "k d"], active: Bool[Array, " k"] | None = None
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Nearest center of each sample, one center after the other; ties go to the lower index.

    Returns:
        (n,) int32 labels and (n,) squared distances (data units²).
    """
    infinite = jnp.asarray(jnp.inf, x.dtype)

    def compare(j, best):
        labels, least = best
        squares = squared_norms(x - jax.lax.dynamic_index_in_dim(centers, j, 0, keepdims=True))
        squares = squares if active is None else jnp.where(active[j], squares, infinite)
        return jnp.where(squares < least, j.astype(jnp.int32), labels), jnp.minimum(squares, least)

    zero = zeros_like(x[:, 0])
    return jax.lax.fori_loop(0, centers.shape[0], compare, (zero.astype(jnp.int32), zero + infinite))


# Samples far from all centers ----------------------------------------------------------------------------------------


def relabel_far(
    assignment: Nearest,
    x: Rows,
    centers: Float[Array, "k d"],
    *,
    active: Bool[Array, " k"] | None = None,
    whole: bool = False,
    costs: Float[Array, "n k"] | None = None,
) -> Nearest:
    """Labels of samples beyond `FAR_RATIO`, by products with the differences of centers; constants.

    ‖x − c‖² − ‖x − r‖² = ‖c − r‖² − 2(x − r)·(c − r), with the first active center as r, has no square of x.

    Args:
        assignment: by squared distances.
        x, centers, active, whole: as in `nearest_tile`.
        costs: added to the squared distances, as those of categories are.
    """
    labels, distance, x, centers = jax.lax.stop_gradient((assignment.labels, assignment.distance, x, centers))
    first = 0 if active is None else jnp.argmax(active)
    reference = jax.lax.dynamic_index_in_dim(centers, first, 0, keepdims=True)
    offsets = centers - reference
    offsets = offsets if active is None else jnp.where(active[:, None], offsets, 0)
    squares = squared_norms(offsets)
    reach = jnp.max(squares)
    far = distance > FAR_RATIO**2 * reach
    far = far if costs is not None else far & (reach > 0)
    infinite = jnp.asarray(jnp.inf, centers.dtype)

    def nearest_of(rows, costs):
        rows = 2 * (rows - reference)

        def compare(j, best):
            labels, least = best
            value = squares[j] - jnp.sum(rows * jax.lax.dynamic_index_in_dim(offsets, j, 0, keepdims=True), axis=1)
            value = value if costs is None else value + jax.lax.dynamic_index_in_dim(costs, j, 1, keepdims=False)
            value = value if active is None else jnp.where(active[j], value, infinite)
            return jnp.where(value < least, j.astype(jnp.int32), labels), jnp.minimum(value, least)

        zero = zeros_like(rows[:, 0])
        return jax.lax.fori_loop(0, centers.shape[0], compare, (zero.astype(jnp.int32), zero + infinite))[0]

    def relabel_all(labels):
        dense: Any = x
        return jnp.where(far, nearest_of(dense, costs), labels)

    def relabel_rows(index, rows, labels):
        own = None if costs is None else costs[jnp.minimum(index, len(labels) - 1)]
        return labels.at[index].set(nearest_of(rows, own), mode="drop")

    def relabel(labels):
        return fold_selected(far, x, relabel_rows, labels)

    # With few centers in few columns all samples take no longer than the selection of some.
    few = centers.size <= UNROLLED_TERMS and not isinstance(x, SparseRows)
    small = whole and (few or _is_small(x, centers))
    return assignment._replace(labels=at_most_once(jnp.any(far), relabel_all if small else relabel, labels))

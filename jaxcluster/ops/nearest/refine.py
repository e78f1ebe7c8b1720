"""Nearest centers by differences, where expanded squared distances are too rounded to be trusted.

‖x‖² − 2x·c + ‖c‖² is rounded by up to about 8·eps·(‖x‖² + its value). Where that is more than `RELATIVE_ERROR` of the
value, the sample's distance to its center is computed anew from the difference. By the triangle inequality the center
is the nearest for certain if it is nearer than half its distance to the next center (C. Elkan, Using the triangle
inequality to accelerate k-means, ICML 2003). Only what remains is compared with all centers by differences. Samples
near the origin of a frame have nothing to be refined, and pay one comparison each.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.ops.distance import (
    RELATIVE_ERROR,
    at_most_once,
    distances_to_assigned,
    expanded_sqeuclidean,
    squared_norms,
)
from jaxcluster.types import Array, Bool, Float, Int

RELATIVE_SLACK = 1e-2
"""Of a squared distance, the error from cutting it into whole steps (`xla`) from which on it is refined. Steps are that
wide only while centers make long moves."""

SEPARATION_TILE = 1 << 22
"""Squared distances between centers that are held at once."""

CHUNK_ELEMENTS = 1 << 16
"""Coordinates of the samples that are compared with all centers at a time: what a core's cache holds."""

GROUP = 32
"""Samples among which one that is chosen is looked for."""

MARGIN = 1 + 1e-4
"""Factor on a distance that covers the rounding of differences, a few eps for each of thousands of columns."""


def rounding_bound(norms: Float[Array, "*n"], distance: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """A bound on the rounding error of an expanded squared distance: the center is at most √norm + √distance long."""
    return 8 * jnp.finfo(norms.dtype).eps * (norms + distance)


def is_rounded(norms: Float[Array, "*n"], distance: Float[Array, "*n"]) -> Bool[Array, "*n"]:
    """Whether a squared distance is rounded by more than `RELATIVE_ERROR` of itself."""
    return rounding_bound(norms, distance) > RELATIVE_ERROR * distance


def refine(
    labels: Int[Array, " n"],
    distance: Float[Array, " n"],
    slack: Float[Array, " n"] | None,
    x: Float[Array, "n d"],
    centers: Float[Array, "k d"],
    norms: Float[Array, " n"],
    *,
    active: Bool[Array, " k"] | None = None,
) -> tuple[Int[Array, " n"], Float[Array, " n"], Float[Array, " n"] | None]:
    """Labels and squared distances as differences tell them, from those of expanded squares. They are constants.

    Args:
        slack: how far the squared distances may be from the truth, where more than rounding stands in the way.

    Returns:
        labels, squared distances and their slack (data units²).
    """
    labels, distance, x, centers, norms, slack = jax.lax.stop_gradient((labels, distance, x, centers, norms, slack))
    rounded = is_rounded(norms, distance)
    if slack is not None:
        rounded |= slack > RELATIVE_SLACK * distance

    def compare(carry):
        labels, distance, slack = carry
        separation = separations(centers, active)

        def measure(index, rows, carry):
            distance, unsure = carry
            own_labels = labels[jnp.minimum(index, len(labels) - 1)]
            own = distances_to_assigned(rows, centers, own_labels)
            far = 2 * MARGIN * jnp.sqrt(own) >= separation[own_labels]
            return distance.at[index].set(own, mode="drop"), unsure.at[index].set(far, mode="drop")

        def compare_with_all(index, rows, carry):
            labels, distance = carry
            near, squares = nearest_by_differences(rows, centers, active)
            return labels.at[index].set(near, mode="drop"), distance.at[index].set(squares, mode="drop")

        distance, unsure = _by_chunks(rounded, x, measure, (distance, rounded & ~rounded), often=True)
        labels, distance = at_most_once(
            jnp.any(unsure), lambda carry: _by_chunks(unsure, x, compare_with_all, carry), (labels, distance)
        )
        exact = 16 * jnp.finfo(x.dtype).eps * distance
        return labels, distance, None if slack is None else jnp.where(rounded, exact, slack)

    return at_most_once(jnp.any(rounded), compare, (labels, distance, slack))


def separations(centers: Float[Array, "k d"], active: Bool[Array, " k"] | None = None) -> Float[Array, " k"]:
    """A lower bound on the distance (data units) of each center to the nearest other one that is active.

    Expanded squares less what rounding may have added to them: 0 for centers that are closer than it.
    """
    k = centers.shape[0]
    index, norms = jnp.arange(k, dtype=jnp.int32), squared_norms(centers)
    infinite = jnp.asarray(jnp.inf, centers.dtype)

    def nearest_other(rows):
        tile, own_norms, numbers = rows
        other = numbers[:, None] != index[None, :]
        other = other if active is None else other & active[None, :]
        squares = expanded_sqeuclidean(tile, centers, own_norms)
        squares -= rounding_bound(own_norms[:, None] + norms[None, :], squares)
        return jnp.sqrt(jnp.maximum(jnp.min(jnp.where(other, squares, infinite), axis=1), 0))

    return map_rows(nearest_other, (centers, norms, index), tile=tile_rows(k, k, SEPARATION_TILE))


def _by_chunks(chosen, x, work, carry, *, often=False):
    """``work(index, samples, carry)`` for the chosen samples, a chunk of them at a time; an index of n stands for none.

    Args:
        often: a few chosen samples are found by groups, in an eighth of the time but with a longer compile. It pays
            where every fit has such a few, as the samples at which centers start.
    """
    n, d = x.shape
    size = min(n, max(128, CHUNK_ELEMENTS // d))
    count = jnp.sum(chosen, dtype=jnp.int32)
    nobody = jnp.full((n + size,), n, jnp.int32)

    def few():
        return jax.lax.dynamic_update_slice(nobody, _first_chosen(chosen, size), (jnp.int32(0),))

    def many():
        place = jnp.where(chosen, jnp.cumsum(chosen.astype(jnp.int32)) - 1, n + size)
        return nobody.at[place].set(jnp.arange(n, dtype=jnp.int32), mode="drop")

    rows = jax.lax.cond(count <= size, few, many) if often else many()

    def advance(carry):
        chunk, carry = carry
        index = jax.lax.dynamic_slice_in_dim(rows, chunk * size, size)
        return chunk + 1, work(index, x[jnp.minimum(index, n - 1)], carry)

    return jax.lax.while_loop(lambda carry: carry[0] * size < count, advance, (_zeros_like(count), carry))[1]


def _first_chosen(chosen, size):
    """(size,) the first samples that are chosen, and n where there are no more: by groups, which are few to add up."""
    n = chosen.shape[0]
    groups = jnp.pad(chosen, (0, -n % GROUP)).reshape(-1, GROUP)
    ends = jnp.cumsum(jnp.sum(groups, axis=1, dtype=jnp.int32))
    rank = jnp.arange(size, dtype=jnp.int32)
    group = jnp.searchsorted(ends, rank, side="right").astype(jnp.int32)
    before = jnp.where(group > 0, ends[jnp.maximum(group - 1, 0)], 0)
    passed = jnp.cumsum(groups[jnp.minimum(group, len(groups) - 1)], axis=1, dtype=jnp.int32)
    place = jnp.argmax(passed > (rank - before)[:, None], axis=1).astype(jnp.int32)
    return jnp.where(rank < ends[-1], group * GROUP + place, n)


def nearest_by_differences(
    x: Float[Array, "n d"], centers: Float[Array, "k d"], active: Bool[Array, " k"] | None = None
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Label and squared distance of the nearest center, one center after the other; ties go to the lower index."""
    k = centers.shape[0]
    infinite = jnp.asarray(jnp.inf, x.dtype)

    def compare(j, best):
        labels, least = best
        squares = squared_norms(x - jax.lax.dynamic_index_in_dim(centers, j, 0, keepdims=True))
        squares = squares if active is None else jnp.where(active[j], squares, infinite)
        return jnp.where(squares < least, j.astype(jnp.int32), labels), jnp.minimum(squares, least)

    zero = _zeros_like(x[:, 0])
    return jax.lax.fori_loop(0, k, compare, (zero.astype(jnp.int32), zero + infinite))


def _zeros_like(value):
    """Zeros that vary over the devices of a mapped axis where the value does, as the carry of a loop must."""
    return jnp.where(value == 0, 0, 0).astype(value.dtype)

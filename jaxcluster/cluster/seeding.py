"""Where centroid methods start: k-means++, k-means‖, random rows.

All draws are by weight and do not depend on padding. Rows come centered.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxcluster.core.fold import across
from jaxcluster.core.shard import gather_tables, shard_index, take_row
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.distance import refined_sqeuclidean
from jaxcluster.ops.nearest import nearest
from jaxcluster.types import Array, Bool, Float, Int, KeyArray, Points

INITS = ("k-means++", "random", "k-means||")

PARALLEL_ROUNDS = 5
OVERSAMPLING = 2

_BLOCK = 1024


def seed_centers(
    key: KeyArray,
    points: Points,
    k: int,
    *,
    init: str = "k-means++",
    active: Bool[Array, " k"] | None = None,
    fixed: Float[Array, "m d"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, "k d"]:
    """k starting centers, the first of them ``fixed`` where centers are given."""
    if init == "random":
        return random_rows(key, points, k, fixed=fixed, axis_name=axis_name)
    if init == "k-means||":
        return kmeans_parallel(key, points, k, active=active, fixed=fixed, axis_name=axis_name)
    return kmeans_plus_plus(key, points, k, active=active, fixed=fixed, axis_name=axis_name)


def random_rows(
    key: KeyArray,
    points: Points,
    k: int,
    *,
    fixed: Float[Array, "m d"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, "k d"]:
    """k distinct rows drawn by weight (the Gumbel top-k form of drawing without replacement).

    Source: W. Kool et al., Stochastic Beams and Where to Find Them, ICML 2019.
    """
    n = points.weight.shape[0]
    shards = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    noise = jax.random.gumbel(key, (shards * n,), points.x.dtype)
    noise = jax.lax.dynamic_slice_in_dim(noise, shard_index(axis_name) * n, n)
    score, local = jax.lax.top_k(jnp.log(points.weight) + noise, min(k, n))
    scores = gather_tables(score, axis_name)
    _, chosen = jax.lax.top_k(scores, k)
    rows = gather_tables(points.x[local], axis_name)[chosen]
    return rows if fixed is None else jnp.concatenate([fixed, rows])[:k]


def kmeans_plus_plus(
    key: KeyArray,
    points: Points,
    k: int,
    *,
    active: Bool[Array, " k"] | None = None,
    fixed: Float[Array, "m d"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, "k d"]:
    """Greedy k-means++: of 2 + ⌊ln k⌋ rows drawn by w·D², the one that lowers Σ w·D² most.

    Args:
        active: the first places, which are seeded; the others stay 0.
        fixed: centers that are there already and take the first places.

    Source: D. Arthur and S. Vassilvitskii, k-means++: The Advantages of Careful Seeding, SODA 2007.
    """
    places = jnp.int32(k) if active is None else jnp.sum(active, dtype=jnp.int32)
    candidates = 2 + int(math.log(k))
    tried = jnp.arange(candidates, dtype=jnp.int32) < 2 + jnp.log(places.astype(points.x.dtype)).astype(jnp.int32)
    centers = jnp.zeros((k, points.x.shape[1]), points.x.dtype)
    if fixed is None:
        first = _draw(jax.random.fold_in(key, 0), points.weight, 1, axis_name)
        start = take_row(points.x, *first, axis_name)
        closest = _distances_to_drawn(points.x, start, *first)[:, 0]
    else:
        start = fixed
        _, closest = nearest(points.x, fixed)
    centers = centers.at[: start.shape[0]].set(start)

    def add(carry):
        centers, closest, place = carry
        index, mine = _draw(jax.random.fold_in(key, place), points.weight * closest, candidates, axis_name)
        rows = take_row(points.x, index, mine, axis_name)
        after = jnp.minimum(closest[:, None], _distances_to_drawn(points.x, rows, index, mine))
        potential = across(points.weight @ after, axis_name)
        best = jnp.argmin(jnp.where(tried, potential, jnp.inf))
        return centers.at[place].set(rows[best]), after[:, best], place + 1

    carry = (centers, closest, jnp.int32(start.shape[0]))
    return jax.lax.while_loop(lambda carry: carry[2] < places, add, carry)[0]


def kmeans_parallel(
    key: KeyArray,
    points: Points,
    k: int,
    *,
    active: Bool[Array, " k"] | None = None,
    fixed: Float[Array, "m d"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, "k d"]:
    """k-means‖: five rounds that each draw 2k rows by w·D², then k-means++ over what was drawn.

    Each candidate weighs what its nearest rows weigh. Few passes over the rows, so it suits many devices.

    Source: B. Bahmani et al., Scalable K-Means++, VLDB 2012, with a fixed number of draws a round.
    """
    round_keys = jax.random.split(key, PARALLEL_ROUNDS + 2)
    if fixed is None:
        first = _draw(round_keys[0], points.weight, 1, axis_name)
        start = take_row(points.x, *first, axis_name)
    else:
        start = fixed
    drawn = max(1, OVERSAMPLING * k)
    _, closest = nearest(points.x, start)
    found = [start]
    for round_key in round_keys[1:-1]:
        index, mine = _draw(round_key, points.weight * closest, drawn, axis_name)
        rows = take_row(points.x, index, mine, axis_name)
        closest = jnp.minimum(closest, nearest(points.x, rows)[1])
        found.append(rows)
    candidates = jnp.concatenate(found)
    labels, _ = nearest(points.x, candidates)
    _, weight = cluster_sums(points, labels, candidates.shape[0])
    drawn_points = Points(candidates, across(weight, axis_name))
    return kmeans_plus_plus(round_keys[-1], drawn_points, k, active=active, fixed=fixed)


def _distances_to_drawn(x, rows, index, mine):
    """Squared distances to samples that were drawn, each 0 from itself: rounding must not have it drawn again."""
    same = mine[None, :] & (jnp.arange(x.shape[0], dtype=index.dtype)[:, None] == index[None, :])
    return refined_sqeuclidean(x, rows, None, same)


def _draw(
    key: KeyArray, mass: Float[Array, " n"], count: int, axis_name: str | None
) -> tuple[Int[Array, " count"], Bool[Array, " count"]]:
    """``count`` rows drawn by mass: their index on the device that holds them, and whether that is this one.

    The inverse of the cumulative sum is looked up in two levels, blocks and then rows of a block: cheaper than one
    long cumulative sum, and more exact. A row of mass 0 is not drawn unless all are 0.
    """
    n = mass.shape[0]
    blocks = jnp.pad(mass, (0, -n % _BLOCK)).reshape(-1, _BLOCK)
    block_sums = jnp.sum(blocks, axis=1)
    totals = gather_tables(jnp.sum(block_sums)[None], axis_name)
    ends = jnp.cumsum(totals)
    target = jax.random.uniform(key, (count,), mass.dtype) * ends[-1]
    owner = _first_above(jnp.broadcast_to(ends, (count, ends.shape[0])), target, totals > 0)
    mine = owner == shard_index(axis_name)
    rest = target - (ends - totals)[owner]
    block_ends = jnp.cumsum(block_sums)
    block = _first_above(jnp.broadcast_to(block_ends, (count, block_ends.shape[0])), rest, block_sums > 0)
    rest = rest - (block_ends - block_sums)[block]
    inside = _first_above(jnp.cumsum(blocks[block], axis=1), rest, blocks[block] > 0)
    return jnp.minimum(block * _BLOCK + inside, n - 1), mine


def _first_above(ends, target, possible):
    """Index of the first possible end above the target; the last possible one where rounding leaves none."""
    possible = jnp.broadcast_to(possible, ends.shape)
    above = possible & (ends > target[:, None])
    last = ends.shape[1] - 1 - jnp.argmax(possible[:, ::-1], axis=1)
    return jnp.where(jnp.any(above, axis=1), jnp.argmax(above, axis=1), last).astype(jnp.int32)

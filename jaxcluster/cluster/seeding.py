"""Initial centers: checked where the caller passes them, else seeded by k-means++, k-means‖ or at random.

Every draw is by sample weight, so padding (weight 0) is never drawn and does not change a draw. Samples come centered.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import chunks, signals, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import publish
from jaxcluster.core.fold import all_reduce
from jaxcluster.core.frame import Frame
from jaxcluster.core.iterate import advance, begin
from jaxcluster.core.padding import pad_active
from jaxcluster.core.shard import gather_tables, row_numbers, shard_index, take_row
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.nearest import nearest
from jaxcluster.ops.rows import distances_to_few, normalize
from jaxcluster.types import Absent, Array, Bool, Float, Int, KeyArray, Points, Published, Status

INITS = ("k-means++", "random", "k-means||")

FROM_CENTERS = "centers"
"""Name of an initialization from centers that the caller passes, beside the names in `INITS`."""

AUTO_RESTARTS = 10
"""Runs of ``n_init="auto"`` from random samples; the careful seedings are run once."""

PARALLEL_ROUNDS = 5
"""Sampling rounds of k-means‖: with five, its authors found the inertia of k-means++ or better."""

OVERSAMPLING = 2
"""Oversampling factor of k-means‖: candidates drawn in each round, in multiples of k."""

AUTO_RESTARTS = 10
"""Runs of ``n_init="auto"`` from random samples; the careful seedings are run once."""

SUM_BLOCK = 1024
"""Samples in a block of the two-level cumulative sum that draws are looked up in."""


class CenterConstraints(NamedTuple):
    """Centers and masks that the caller fixes; None where nothing is fixed.

    Attributes:
        initial: (k, d) initial centers.
        frozen: (m, d) centers that take the first m places before the others are seeded, and never move.
        movable: (k,) mask of the centers that an update may move.
        active: (k,) mask of the centers that take part.
    """

    initial: Any = None
    frozen: Any = None
    movable: Bool[Array, " k"] | Absent = None
    active: Bool[Array, " k"] | None = None

    def padded(self, k: int, padded: int | None) -> CenterConstraints:
        """The same for ``padded`` centers, of which those beyond k are inactive; None for no padding."""
        # Copies, not zeros: the frame of the samples may reach no zero.
        if padded is None:
            return self
        initial, movable, extra = self.initial, self.movable, (0, padded - k)
        initial = None if initial is None else np.pad(np.asarray(initial), (extra, (0, 0)), mode="edge")
        movable = None if movable is None else np.pad(np.asarray(movable), extra)
        return CenterConstraints(initial, self.frozen, movable, pad_active(self.active, k, padded))

    def enter(self, frame: Frame, spherical: bool = False, columns: int | None = None) -> CenterConstraints:
        """The same centers in a frame, constant for gradients; unit vectors where ``spherical``.

        ``columns`` is their padded number of columns, or None.
        """

        def transformed(centers):
            if centers is None:
                return None
            traced = validation.is_traced(centers)
            if spherical and not traced:
                # In float64 by the largest entry first: directions of lengths beyond float32 survive its range.
                centers = np.asarray(centers, np.float64)
                for length_of in (lambda rows: np.abs(rows).max(axis=1), lambda rows: np.linalg.norm(rows, axis=1)):
                    length = length_of(centers)[:, None]
                    centers = centers / np.where(length > 0, length, 1)
            centers = jax.lax.stop_gradient(frame.enter(centers))
            centers = normalize(centers) if spherical and traced else centers
            extra = 0 if columns is None else columns - centers.shape[1]
            if extra and not traced:
                return jax.device_put(np.pad(np.asarray(centers), ((0, 0), (0, extra))))
            return jnp.pad(centers, ((0, 0), (0, extra))) if extra else centers

        return self._replace(initial=transformed(self.initial), frozen=transformed(self.frozen))

    def restore_frozen(self, centers: Published) -> Published:
        """``centers`` (…, k, d), the frozen ones bit by bit those of the caller, free of the frame's rounding."""
        frozen = self.initial if self.frozen is None else self.frozen
        m = frozen.shape[0]
        if validation.is_traced(self, centers):
            frozen = jnp.asarray(frozen).astype(centers.dtype)
            first = jnp.where(self.movable[:m, None], centers[..., :m, :], frozen)
            return jnp.concatenate([first, centers[..., m:, :]], axis=-2)
        out = np.array(centers)
        fixed = ~np.asarray(self.movable)[:m]
        out[..., :m, :][..., fixed, :] = np.asarray(frozen)[fixed]
        return publish(out, out.dtype)


def check_centers(init, frozen, active, k: int, d: int) -> tuple[str, CenterConstraints]:
    """Check the options ``init``, ``frozen`` and ``active`` of a fit.

    Returns:
        The name of the initialization, one of `INITS` or `FROM_CENTERS`, and the `CenterConstraints`.

    Raises:
        ValueError: an unknown name, or an array of the wrong shape or with values that are not finite.
    """
    name, initial = FROM_CENTERS, None
    if isinstance(init, str):
        validation.check_choice("init", init, INITS)
        name = init
    else:
        initial = _check_array("init", init, k, d)
    frozen, movable = _check_frozen(frozen, initial, k, d)
    if initial is not None and frozen is not None:
        initial, frozen = _replace_first(initial, frozen), None
    if active is not None:
        active = validation.check_mask("active", active, k)
    return name, CenterConstraints(initial, frozen, movable, active)


def check_runs(name: str, n_init: int | str) -> int:
    """Number of runs that ``n_init`` asks for with the initialization ``name``; 1 from centers of the caller."""
    if n_init == "auto":
        return AUTO_RESTARTS if name == "random" else 1
    if isinstance(n_init, str):
        raise ValueError(f"n_init={n_init!r} must be 'auto' or a number of runs.")
    runs = validation.check_count("n_init", n_init)
    return 1 if name == FROM_CENTERS else runs


def _check_frozen(frozen, initial, k, d):
    """The frozen centers, or None for a mask over the initial ones, and the mask of the movable centers."""
    if frozen is None:
        return None, None
    frozen = frozen if isinstance(frozen, jax.Array) else np.asarray(frozen)
    if frozen.dtype != bool:
        frozen = _check_array("frozen", frozen, k, d, fewer=True)
        return frozen, jnp.arange(k, dtype=jnp.int32) >= frozen.shape[0]
    if initial is None:
        raise ValueError(
            "frozen is a mask, which needs initial centers: pass init=(k, d) centers too, or as frozen the centers "
            "themselves to have the others seeded around them."
        )
    return None, ~validation.check_mask("frozen", frozen, k)


def _check_array(name, centers, k, d, *, fewer=False) -> Any:
    centers = validation.check_matrix(centers, name=name)
    if not validation.is_traced(centers):
        validation.check_finite(centers, name=name)
    kind = "initial" if name == "init" else name
    if centers.shape[0] > k if fewer else centers.shape[0] != k:
        raise ValueError(f"The shape of the {kind} centers {centers.shape} does not match the number of clusters {k}.")
    if centers.shape[1] != d:
        raise ValueError(
            f"The shape of the {kind} centers {centers.shape} does not match the number of features of the data {d}."
        )
    return centers


def _replace_first(initial, frozen):
    """``initial`` with its first rows replaced by ``frozen``."""
    if validation.is_traced(initial, frozen):
        return jnp.asarray(initial).at[: frozen.shape[0]].set(jnp.asarray(frozen).astype(initial.dtype))
    return np.concatenate([np.asarray(frozen, np.float64), np.asarray(initial, np.float64)[len(frozen) :]])


def seed_centers(
    key: KeyArray,
    points: Points,
    k: int,
    *,
    init: str = "k-means++",
    active: Bool[Array, " k"] | None = None,
    frozen: Float[Array, "m d"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, "k d"]:
    """k initial centers by the method ``init``, the first of them ``frozen`` if there are any."""
    if init == "random":
        return random_rows(key, points, k, frozen=frozen, axis_name=axis_name)
    method = kmeans_parallel if init == "k-means||" else kmeans_plus_plus
    return method(key, points, k, active=active, frozen=frozen, axis_name=axis_name)


def random_rows(
    key: KeyArray,
    points: Points,
    k: int,
    *,
    frozen: Float[Array, "m d"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, "k d"]:
    """k distinct samples drawn by weight without replacement; see `draw_distinct`."""
    centers = draw_distinct(key, points.weight, points.x, k, axis_name)
    return centers if frozen is None else jnp.concatenate([frozen, centers])[:k]


def draw_distinct(key: KeyArray, weight: Float[Array, " n"], rows: Any, k: int, axis_name: str | None) -> Any:
    """k distinct rows drawn by weight without replacement (the Gumbel top-k trick).

    Args:
        key: random key.
        weight: (n,) weights.
        rows: pytree of arrays with n rows.
        k: number of rows.
        axis_name: the mapped axis over which the rows are spread, or None.

    Source: W. Kool et al., Stochastic Beams and Where to Find Them, ICML 2019.
    """
    n = weight.shape[0]
    shards = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    # Noise for the samples of all devices, of which each takes its own: sharding changes no draw.
    noise = jax.random.gumbel(key, (shards * n,), weight.dtype)[row_numbers(weight, axis_name)]
    # log 0 = −inf: a sample of weight 0 is drawn only where fewer than k have any weight.
    score, local = jax.lax.top_k(jnp.log(weight) + noise, min(k, n))
    scores = gather_tables(score, axis_name)
    _, drawn = jax.lax.top_k(scores, k)
    # A few sparse rows are a dense matrix.
    return jax.tree.map(lambda leaf: gather_tables(leaf[local], axis_name)[drawn], rows, is_leaf=is_sparse)


def is_long_seeding(points: Points, k: int) -> bool:
    """True if k-means++ of concrete samples may take longer than an answer to Ctrl-C should."""
    return chunks.is_long(points.x.size * candidates_tried(k), k, points)


def seed_in_chunks(
    key: KeyArray,
    points: Points,
    k: int,
    *,
    init: str,
    active: Bool[Array, " k"] | None = None,
    frozen: Float[Array, "m d"] | None = None,
) -> Float[Array, "k d"]:
    """`seed_centers` of concrete samples in chunks. Where Ctrl-C ends them, random samples take the places left."""
    if init == "random":
        return _compiled_random(key, points, k, frozen=frozen)
    if init == "k-means++":
        seeded = _plus_plus_in_chunks(key, points, k, active, frozen)
    else:
        keys, (candidates, closest) = _compiled_first_candidate(key, points, frozen, None)
        for round_key in keys[1:-1]:
            if signals.interrupted():
                return _compiled_random(key, points, k, frozen=frozen)
            rows, closest = _compiled_round(k, None, round_key, points, closest)
            candidates = jnp.concatenate([candidates, rows])
        seeded = _plus_plus_in_chunks(keys[-1], _compiled_weights(points, candidates, None), k, active, frozen)
    if int(seeded.status) != Status.INTERRUPTED:
        return seeded.state.centers
    rest = _compiled_random(key, points, k, frozen=frozen)
    return jnp.where(jnp.arange(k)[:, None] < seeded.state.number, seeded.state.centers, rest)


def _plus_plus_in_chunks(key, points, k, active, frozen):
    tried, fit = _compiled_begin(points, k, active, frozen)
    step = chunks.bind(_add_center, None, key, points, tried)
    return chunks.resume(step, fit, tol=0, max_steps=k, work=points.x.size * candidates_tried(k))


def kmeans_plus_plus(
    key: KeyArray,
    points: Points,
    k: int,
    *,
    active: Bool[Array, " k"] | None = None,
    frozen: Float[Array, "m d"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, "k d"]:
    """Greedy k-means++: of 2 + ⌊ln k⌋ candidates drawn by w·D², the one that lowers the potential Σ w·D² most.

    D is the distance of a sample to the nearest center so far.

    Args:
        active: mask of the centers to seed, which come first; the others stay 0.
        frozen: (m, d) centers that take the first m places.

    Source: D. Arthur and S. Vassilvitskii, k-means++: The Advantages of Careful Seeding, SODA 2007.
    """
    tried, fit = _begin(points, k, active, frozen)
    add = partial(_add_center, axis_name, key, points, tried)
    return advance(add, fit, tol=0, max_steps=k).state.centers


class SeedingState(NamedTuple):
    """State of k-means++.

    Attributes:
        centers: (k, d), those to come 0.
        closest: (n,) squared distance of each sample to its nearest center, infinite before the first.
        number: () int32 number of centers so far.
        wanted: () int32 number of centers to seed.
    """

    centers: Float[Array, "*batch k d"]
    closest: Float[Array, "*batch n"]
    number: Int[Array, "*batch"]
    wanted: Int[Array, "*batch"]

    @property
    def residual(self) -> Float[Array, "*batch"]:
        """Number of centers to come."""
        return (self.wanted - self.number).astype(self.centers.dtype)

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """0: no history is kept."""
        return jnp.zeros_like(self.residual)


def _begin(points, k, active, frozen):
    """Mask of the candidates that are tried for each center, and the seeding before its first step."""
    n_active = jnp.int32(k) if active is None else jnp.sum(active, dtype=jnp.int32)
    # The number of candidates must be static, so it follows k; of them 2 + ⌊ln n_active⌋ are tried.
    tried = jnp.arange(candidates_tried(k), dtype=jnp.int32) < 2 + jnp.log(n_active.astype(points.x.dtype)).astype(
        jnp.int32
    )
    centers = jnp.zeros((k, points.x.shape[1]), points.x.dtype)
    closest, number = jnp.full_like(points.weight, jnp.inf), 0
    if frozen is not None:
        centers, number = centers.at[: frozen.shape[0]].set(frozen), frozen.shape[0]
        _, closest = nearest(points.x, frozen)
    return tried, begin(SeedingState(centers, closest, jnp.int32(number), n_active), 1)


def _add_center(axis_name, key, points, tried, state):
    centers, closest, j, _ = state
    # The first center is drawn by weight, and is the first candidate. As a step like the others it compiles nothing.
    first = j == 0
    mass = points.weight * jnp.where(first, 1, closest)
    tried = jnp.where(first, jnp.arange(tried.shape[0], dtype=jnp.int32) == 0, tried)
    index, is_local = draw_by_mass(jax.random.fold_in(key, j), mass, tried.shape[0], axis_name)
    rows = take_row(points.x, index, is_local, axis_name)
    squares = jnp.minimum(closest[:, None], _distances_to_drawn(points.x, rows, index, is_local))
    potential = all_reduce(points.weight @ squares, axis_name)
    best = jnp.argmin(jnp.where(tried, potential, jnp.inf))
    return state._replace(centers=centers.at[j].set(rows[best]), closest=squares[:, best], number=j + 1)


def candidates_tried(k: int) -> int:
    """Candidates for each center of greedy k-means++, of which the best is taken."""
    return 2 + int(math.log(k))


_compiled_random = persistent_jit(random_rows, static_argnums=2)
_compiled_begin = persistent_jit(_begin, static_argnums=1)


def kmeans_parallel(
    key: KeyArray,
    points: Points,
    k: int,
    *,
    active: Bool[Array, " k"] | None = None,
    frozen: Float[Array, "m d"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, "k d"]:
    """k-means‖: five rounds that each draw 2k candidates by w·D², then k-means++ over the candidates.

    A candidate weighs as much as the samples nearest to it. Few passes over the samples, so it suits many devices.

    Source: B. Bahmani et al., Scalable K-Means++, VLDB 2012, with a fixed number of draws in each round.
    """
    keys, (first, closest) = _first_candidate(key, points, frozen, axis_name)
    candidates = [first]
    for round_key in keys[1:-1]:
        rows, closest = _draw_candidates(k, axis_name, round_key, points, closest)
        candidates.append(rows)
    weighted = _weighted_candidates(points, jnp.concatenate(candidates), axis_name)
    return kmeans_plus_plus(keys[-1], weighted, k, active=active, frozen=frozen)


def _first_candidate(key, points, frozen, axis_name):
    """Keys of the rounds, and the first candidate, or the frozen centers, with the distances of the samples to it."""
    keys = jax.random.split(key, PARALLEL_ROUNDS + 2)
    first: Any = frozen
    if frozen is None:
        first = take_row(points.x, *draw_by_mass(keys[0], points.weight, 1, axis_name), axis_name)
    return keys, (first, nearest(points.x, first)[1])


def _draw_candidates(k, axis_name, key, points, closest):
    """Candidates of a round, and the distances of the samples to the nearest of all so far."""
    index, is_local = draw_by_mass(key, points.weight * closest, max(1, OVERSAMPLING * k), axis_name)
    rows = take_row(points.x, index, is_local, axis_name)
    return rows, jnp.minimum(closest, nearest(points.x, rows)[1])


def _weighted_candidates(points, candidates, axis_name):
    """Candidates, each with the weight of the samples nearest to it."""
    labels, _ = nearest(points.x, candidates)
    _, weight = cluster_sums(points, labels, candidates.shape[0])
    return Points(candidates, all_reduce(weight, axis_name))


_compiled_first_candidate = persistent_jit(_first_candidate, static_argnums=3)
_compiled_round = persistent_jit(_draw_candidates, static_argnums=(0, 1))
_compiled_weights = persistent_jit(_weighted_candidates, static_argnums=2)


def _distances_to_drawn(x, rows, index, is_local):
    """Squared distances to samples that were drawn.

    The distance of a drawn sample to itself is exactly 0: a rounded one could have it drawn again.
    """
    same = is_local[None, :] & (jnp.arange(x.shape[0], dtype=index.dtype)[:, None] == index[None, :])
    return distances_to_few(x, rows, same)


def draw_by_mass(
    key: KeyArray, mass: Float[Array, " n"], count: int, axis_name: str | None
) -> tuple[Int[Array, " count"], Bool[Array, " count"]]:
    """Draw ``count`` samples with replacement, with probability in proportion to ``mass``, by inverting its sums.

    Returns:
        The index of each drawn sample on the device that holds it, and whether that is this device. A sample of mass 0
        is not drawn unless all masses are 0.
    """
    # Two levels, blocks and then the samples of one block: cheaper than one cumulative sum of n terms, and its rounding
    # error grows with n/SUM_BLOCK + SUM_BLOCK terms in place of n.
    n = mass.shape[0]
    blocks = jnp.pad(mass, (0, -n % SUM_BLOCK)).reshape(-1, SUM_BLOCK)
    block_sums = jnp.sum(blocks, axis=1)
    totals = gather_tables(jnp.sum(block_sums)[None], axis_name)
    ends = jnp.cumsum(totals)
    target = jax.random.uniform(key, (count,), mass.dtype) * ends[-1]
    owner = _first_above(jnp.broadcast_to(ends, (count, ends.shape[0])), target, totals > 0)
    is_local = owner == shard_index(axis_name)
    rest = target - (ends - totals)[owner]
    block_ends = jnp.cumsum(block_sums)
    block = _first_above(jnp.broadcast_to(block_ends, (count, block_ends.shape[0])), rest, block_sums > 0)
    rest = rest - (block_ends - block_sums)[block]
    inside = _first_above(jnp.cumsum(blocks[block], axis=1), rest, blocks[block] > 0)
    return jnp.minimum(block * SUM_BLOCK + inside, n - 1), is_local


def _first_above(ends, target, possible):
    """Index of the first possible end above the target; the last possible one where rounding leaves none."""
    possible = jnp.broadcast_to(possible, ends.shape)
    above = possible & (ends > target[:, None])
    last = ends.shape[1] - 1 - jnp.argmax(possible[:, ::-1], axis=1)
    return jnp.where(jnp.any(above, axis=1), jnp.argmax(above, axis=1), last).astype(jnp.int32)

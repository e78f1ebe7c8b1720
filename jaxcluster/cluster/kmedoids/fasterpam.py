"""FasterPAM, and the initializations of k-medoids: greedy BUILD, or random rows.

The change of the loss by a swap of a medoid for a candidate is a sum over rows of terms in the distances to the nearest
medoid, the second nearest, and the candidate. For a block of candidates these sums are one pass over their distances
and one product with the cluster indicators, and give the gain of every candidate for every medoid. The search is eager:
it scans the rows in their order, makes the best swap of the first candidate that gains, and goes on with the new
medoids. It ends when no candidate has gained since the last swap.

Sources: E. Schubert and P. J. Rousseeuw, Fast and eager k-medoids clustering: O(k) runtime improvement of the PAM,
CLARA, and CLARANS algorithms, Information Systems 101 (2021), here with blocks of candidates; L. Kaufman and P. J.
Rousseeuw, Finding Groups in Data, Wiley 1990, chapter 2, for BUILD; M. Minoux, Accelerated greedy algorithms for
maximizing submodular set functions, 1978, for its lazy evaluation.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.core import chunks
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.iterate import begin, iterate, status_of
from jaxcluster.ops.distance import HIGHEST, inner_products
from jaxcluster.types import Array, Bool, Fit, Float, Int, KeyArray, Status

CPU_BLOCK = 16
"""Candidates of a block on a CPU: enough for a matrix product, few enough for its cache. A swap discards the gains of
the candidates after it in the block."""

ACCELERATOR_BLOCK = 256
"""Candidates of a block on an accelerator, which 16 would leave idle."""

MEDOID_GROUP = 4
"""Medoids compared in one pass over the rows."""

ROUNDING_FACTOR = 16
"""Least gain of a swap, in units of roundoff of the sum: rounding alone could make swaps cycle."""

MAX_SWAPS = 2**31 - 1
"""Bound on the swaps of a search, beyond any: the number of rounds ends it first."""

INITS = ("build", "random")
"""Initializations of the medoids."""
"""Initializations of the medoids."""

BUILD_BLOCK = 64
"""Candidates of BUILD evaluated together."""


class WeightedDistances(NamedTuple):
    """Input of the search: distances of all pairs, and weights.

    Attributes:
        distances: (n, n) symmetric distances.
        weight: (n,) row weights; a row of weight 0 neither counts nor becomes a medoid.
    """

    distances: Float[Array, "n n"]
    weight: Float[Array, " n"]

    @property
    def block(self) -> int:
        """Number of candidates of a block."""
        return min(CPU_BLOCK if jax.default_backend() == "cpu" else ACCELERATOR_BLOCK, self.weight.shape[0])

    def candidates(self) -> Int[Array, ""]:
        """Number of rows up to the last with positive weight: rows after it fill the bucket."""
        rows = jnp.arange(self.weight.shape[0], dtype=jnp.int32)
        return jnp.max(jnp.where(self.weight > 0, rows + 1, 0))


class NearestTwo(NamedTuple):
    """The two nearest medoids of each row.

    Attributes:
        labels: (n,) int32 nearest medoid; ties go to the first.
        nearest, second: (n,) distances; the second is infinite with a single medoid.
    """

    labels: Int[Array, " n"]
    nearest: Float[Array, " n"]
    second: Float[Array, " n"]


class SwapScan(NamedTuple):
    """Scan of the candidates for the next swap.

    Attributes:
        position: () int32 next candidate.
        since_swap: () int32 number of candidates scanned since the last swap.
        candidate, slot: () int32 row that gains, and index of the medoid that it replaces.
        improves: () True if such a row exists.
    """

    position: Int[Array, "*batch"]
    since_swap: Int[Array, "*batch"]
    candidate: Int[Array, "*batch"]
    slot: Int[Array, "*batch"]
    improves: Bool[Array, "*batch"]


class SwapState(NamedTuple):
    """State of the search.

    Attributes:
        medoids: (k,) int32 row numbers.
        count: () int32 number of active medoids, the first ones: problems of different k share a program.
        near: the two nearest medoids of each row.
        members: (k, n) weight of each row in its cluster, 0 in others.
        loss: () Σ w·d to the nearest medoid.
        residual: () decrease of the loss in the last round.
        since_swap: () int32 number of candidates scanned since the last swap.
    """

    medoids: Int[Array, "*batch k"]
    count: Int[Array, "*batch"]
    near: NearestTwo
    members: Float[Array, "*batch k n"]
    loss: Float[Array, "*batch"]
    residual: Float[Array, "*batch"]
    since_swap: Int[Array, "*batch"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """The loss, which the history keeps."""
        return self.loss


def fasterpam(
    table: WeightedDistances, medoids: Int[Array, " k"], count: Int[Array, ""], *, tol, max_steps, capacity: int
) -> Fit:
    """Swap medoids until no swap lowers the loss, or a round does by at most ``tol`` × the initial loss.

    A round scans every row as a candidate; the last round stops early, after a full circle without a swap.
    """
    start = _state_of(table, medoids, count, nearest_two(table, medoids, count))
    limits = {"tol": tol * start.loss, "max_steps": max_steps, "capacity": capacity}
    return iterate(lambda state: _round(table, state), start, **limits)


class SwapLoop(NamedTuple):
    """A search whose steps are swaps, as a round may take longer than an answer to Ctrl-C should.

    Attributes:
        search: the state; its residual is that of the round so far.
        position: () int32 next candidate of the round.
        rounds: () int32 number of rounds that have ended.
        history: (capacity,) loss after each round.
        residual: () 1 until the search has ended, then 0.
    """

    search: SwapState
    position: Int[Array, ""]
    rounds: Int[Array, ""]
    history: Float[Array, " capacity"]
    residual: Float[Array, ""]

    @property
    def objective(self) -> Float[Array, ""]:
        """The loss."""
        return self.search.loss


def fasterpam_in_chunks(
    table: WeightedDistances, medoids: Int[Array, " k"], count: Int[Array, ""], *, tol, max_steps, capacity: int
) -> Fit:
    """`fasterpam` of a concrete table, with the same result. Ctrl-C ends it between two swaps."""
    fit, limit = _compiled_start(capacity, table, medoids, count, tol)
    _compiled_end.compile(fit, limit)
    step = chunks.bind(_swap_step, None, table, limit, jnp.int32(max_steps))
    work = table.distances.size * medoids.shape[0]
    return _compiled_end(chunks.resume(step, fit, tol=0, max_steps=MAX_SWAPS, work=work), limit)


def _start(capacity, table, medoids, count, tol):
    search = _state_of(table, medoids, count, nearest_two(table, medoids, count))
    none, one = jnp.int32(0), jnp.ones_like(search.loss)
    return begin(SwapLoop(search, none, none, jnp.zeros((capacity,), one.dtype), one), 1), tol * search.loss


def _swap_step(static, table, tol, max_rounds, state):
    candidates = table.candidates()
    search = state.search._replace(residual=jnp.where(state.position == 0, 0, state.search.residual))
    scan = _scan(table, search, state.position, candidates)
    search = _apply_swap(table, search, scan)
    # A pass ends behind the last candidate, or where every candidate has been tried since the last swap.
    over = (scan.position >= candidates) | (search.since_swap >= candidates)
    rounds = state.rounds + over.astype(jnp.int32)
    at = jnp.where(over, state.rounds, state.history.shape[0])
    done = over & (~(search.residual > tol) | (rounds >= max_rounds))
    position, residual = jnp.where(over, 0, scan.position), jnp.where(done, 0, jnp.ones_like(state.residual))
    return SwapLoop(search, position, rounds, state.history.at[at].set(search.loss, mode="drop"), residual)


def _end(fit, tol):
    search, _, rounds, history, _ = fit.state
    status = jnp.where(fit.status == Status.INTERRUPTED, fit.status, status_of(search.residual, tol))
    return Fit(search, None, rounds, status, history)


_compiled_start = persistent_jit(_start, static_argnums=0)
_compiled_end = persistent_jit(_end)


def nearest_two(table: WeightedDistances, medoids: Int[Array, " k"], count: Int[Array, ""]) -> NearestTwo:
    """Nearest and second nearest of the first ``count`` medoids for every row."""
    medoids = jnp.pad(medoids, (0, -len(medoids) % MEDOID_GROUP))

    def add(slot, near):
        distance = jnp.where(slot < count, table.distances[medoids[slot]], jnp.inf)
        closer = distance < near.nearest
        # What was nearest becomes second: the two suffice for the gain of any swap (Schubert and Rousseeuw, 2021).
        second = jnp.where(closer, near.nearest, jnp.minimum(near.second, distance))
        return NearestTwo(jnp.where(closer, slot, near.labels), jnp.minimum(near.nearest, distance), second)

    def add_group(group, near):
        for slot in range(MEDOID_GROUP):
            near = add(group * MEDOID_GROUP + slot, near)
        return near

    far = jnp.full_like(table.weight, jnp.inf)
    return jax.lax.fori_loop(
        0, -(-count // MEDOID_GROUP), add_group, NearestTwo(jnp.zeros(far.shape, jnp.int32), far, far)
    )


def swap_gains(table: WeightedDistances, state: SwapState, start: Int[Array, ""]) -> Float[Array, "b k"]:
    """Decrease of the loss by each swap of a candidate of a block for a medoid.

    Returns:
        (b, k) gains; −∞ for rows that are no candidates, and for gains that may be rounding.
    """
    index = start + jnp.arange(table.block, dtype=jnp.int32)
    distances = jax.lax.dynamic_slice_in_dim(table.distances, start, table.block)
    # Gain of medoid m for candidate c: Σ w·max(d1 − d(c), 0) over all rows, plus Σ w·clip(d1 − d(c), d1 − d2, 0) over
    # the rows of m, which fall to c or to their second nearest. Both are differences of distances: no sum holds the
    # distance of a far medoid itself, beside which the gain would be lost to rounding.
    nearer = state.near.nearest[None] - distances
    # A matrix product in place of a sum: XLA would fuse the sum with the operand of the other product, at twice the
    # time on a CPU.
    shared = inner_products(jnp.maximum(nearer, 0), table.weight[None])
    lost = jnp.clip(nearer, (state.near.nearest - state.near.second)[None], 0)
    gain = shared + inner_products(lost, state.members)
    active = jnp.arange(gain.shape[1], dtype=jnp.int32) < state.count
    medoid = jnp.any((index[:, None] == state.medoids[None]) & active[None], axis=1)
    possible = (table.weight[index] > 0) & ~medoid
    possible = possible[:, None] & active[None] & (gain > ROUNDING_FACTOR * jnp.finfo(gain.dtype).eps * shared)
    return jnp.where(possible, gain, -jnp.inf)


def _state_of(table, medoids, count, near):
    places = jnp.arange(medoids.shape[0], dtype=jnp.int32)
    members = jnp.where(places[:, None] == near.labels[None, :], table.weight[None, :], 0)
    loss = jnp.vdot(table.weight, near.nearest, precision=HIGHEST)
    return SwapState(medoids, count, near, members, loss, jnp.full_like(loss, jnp.inf), jnp.int32(0))


def _round(table, state):
    candidates = table.candidates()

    def unfinished(carry):
        state, position = carry
        return (position < candidates) & (state.since_swap < candidates)

    def advance(carry):
        state, position = carry
        scan = _scan(table, state, position, candidates)
        return _apply_swap(table, state, scan), scan.position

    # A round ends at the last candidate, or after a full circle without a swap.
    state = state._replace(residual=jnp.zeros_like(state.residual))
    return jax.lax.while_loop(unfinished, advance, (state, jnp.int32(0)))[0]


def _scan(table, state, position, candidates):
    """Next candidate from a position on that gains. The state is not in the carry, so that it is not copied."""

    def unfinished(scan):
        return ~scan.improves & (scan.position < candidates) & (scan.since_swap < candidates)

    def advance(scan):
        start = jnp.minimum(scan.position, table.weight.shape[0] - table.block)
        gain = swap_gains(table, state, start)
        index = start + jnp.arange(table.block, dtype=jnp.int32)
        gainful = (gain > 0) & (index >= scan.position)[:, None]
        winners = jnp.any(gainful, axis=1)
        first, improves = jnp.argmax(winners), jnp.any(winners)
        # The first candidate that gains is swapped at once, with the medoid that gains most: not the best of all pairs,
        # as in PAM.
        slot = jnp.argmax(jnp.where(gainful[first], gain[first], -jnp.inf)).astype(jnp.int32)
        after = jnp.where(improves, index[first] + 1, jnp.minimum(start + table.block, candidates))
        return SwapScan(after, scan.since_swap + after - scan.position, index[first], slot, improves)

    nothing = jnp.int32(0)
    return jax.lax.while_loop(
        unfinished, advance, SwapScan(position, state.since_swap, nothing, nothing, jnp.bool_(False))
    )


def _apply_swap(table, state, scan):
    """Make the swap of a scan, unless its gain is within rounding."""
    medoids = jnp.where(scan.improves, state.medoids.at[scan.slot].set(scan.candidate), state.medoids)
    near = nearest_two(table, medoids, state.count)
    change = table.weight * (state.near.nearest - near.nearest)
    # The gain again, as one sum over the rows; the sum of the absolute changes is the scale of its rounding.
    fall, turnover = jnp.sum(change), jnp.sum(jnp.abs(change))
    gained = fall > ROUNDING_FACTOR * jnp.finfo(fall.dtype).eps * turnover
    medoids, near = jax.tree.map(partial(jnp.where, gained), (medoids, near), (state.medoids, state.near))
    swapped = _state_of(table, medoids, state.count, near)
    residual = state.residual + jnp.where(gained, fall, 0)
    return swapped._replace(residual=residual, since_swap=jnp.where(gained, 0, scan.since_swap))


# --- initialization


def random_medoids(key: KeyArray, weight: Float[Array, " n"], k: int) -> Int[Array, " k"]:
    """k distinct rows drawn by weight, by the Gumbel top-k method of sampling without replacement."""
    noise = jax.random.gumbel(key, weight.shape, weight.dtype)
    return jax.lax.top_k(jnp.log(weight) + noise, k)[1].astype(jnp.int32)


def build(table: WeightedDistances, k: int) -> Int[Array, " k"]:
    """BUILD of PAM: the row with the least weighted sum of distances, then each time the row of the largest gain."""
    possible = table.weight > 0
    sums = jnp.matmul(table.distances, table.weight, precision=HIGHEST)
    first = jnp.argmin(jnp.where(possible, sums, jnp.inf)).astype(jnp.int32)
    # Lazy greedy: a gain only shrinks as medoids are added, so that its last value bounds it, and few are computed
    # anew.
    bounds = jnp.where(possible, jnp.inf, -jnp.inf).astype(sums.dtype).at[first].set(-jnp.inf)
    medoids = jnp.full((k,), first)

    def add(slot, carry):
        medoids, nearest, bounds = carry
        best, bounds = _best_candidate(table, nearest, bounds)
        nearest = jnp.minimum(nearest, table.distances[best])
        return medoids.at[slot].set(best), nearest, bounds.at[best].set(-jnp.inf)

    return jax.lax.fori_loop(1, k, add, (medoids, table.distances[first], bounds))[0]


def _best_candidate(table, nearest, bounds):
    """Candidate that lowers the loss most, and the updated upper bounds of all gains; −∞ excludes a row."""

    # Gains only fall as medoids are added (submodularity): old gains are upper bounds, and few are evaluated anew.
    def converged(carry):
        bounds, fresh = carry
        # The greatest gain that is fresh beats the bounds of all others.
        return jnp.max(jnp.where(fresh, bounds, -jnp.inf)) >= jnp.max(jnp.where(fresh, -jnp.inf, bounds))

    def evaluate(carry):
        bounds, fresh = carry
        highest, index = jax.lax.top_k(jnp.where(fresh, -jnp.inf, bounds), min(BUILD_BLOCK, bounds.shape[0]))
        gain = jnp.sum(jnp.maximum(nearest[None, :] - table.distances[index], 0) * table.weight[None, :], axis=1)
        new = jnp.where(highest == -jnp.inf, bounds[index], gain)
        return bounds.at[index].set(new), fresh.at[index].set(True)

    start = (bounds, jnp.zeros(bounds.shape, bool))
    bounds, fresh = jax.lax.while_loop(lambda carry: ~converged(carry), evaluate, start)
    return jnp.argmax(jnp.where(fresh, bounds, -jnp.inf)).astype(jnp.int32), bounds

"""FasterPAM: swaps of a medoid for another row until none lowers the loss.

The change that any swap makes falls apart into sums over rows of a row's distances to its nearest medoid, its second
nearest, and the candidate. For a block of candidates those sums are one pass over their distances and one product with
the clusters' indicators, and give the gain of every candidate in the place of every medoid. The search is eager: it
goes over the rows in their order, the first candidate that gains takes the place of the medoid with which it gains
most, and the next one is looked at around the new medoids. It ends when no row has gained since the last swap.

Source: E. Schubert and P. J. Rousseeuw, Fast and eager k-medoids clustering: O(k) runtime improvement of the PAM,
CLARA, and CLARANS algorithms, Information Systems 101 (2021); with the sums of a block of candidates in place of those
of one.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.core.iterate import iterate
from jaxcluster.ops.distance import HIGHEST, inner_products
from jaxcluster.types import Array, Bool, Fit, Float, Int

BLOCK = 16
"""Candidates whose gains are computed together: enough for a product, few enough to stay in a CPU's cache, and all of
them but the first that gains are looked at again after a swap."""

WIDE_BLOCK = 256
"""The same on an accelerator, for which a few are too little work."""

GROUP = 4
"""Medoids whose distances are compared in one pass over the rows."""

ROUNDING = 16
"""Units of rounding of a sum that a swap must gain to be one: below it swaps could go round in a circle."""


class Table(NamedTuple):
    """What the search looks at.

    Attributes:
        distances: (n, n) symmetric distances.
        weight: (n,) row weights; a row of weight 0 neither counts nor becomes a medoid.
    """

    distances: Float[Array, "n n"]
    weight: Float[Array, " n"]

    @property
    def block(self) -> int:
        """Candidates of a block."""
        return min(BLOCK if jax.default_backend() == "cpu" else WIDE_BLOCK, self.weight.shape[0])

    def candidates(self) -> Int[Array, ""]:
        """How many rows there are up to the last that has weight."""
        rows = jnp.arange(self.weight.shape[0], dtype=jnp.int32)
        return jnp.max(jnp.where(self.weight > 0, rows + 1, 0))


class Near(NamedTuple):
    """The two nearest medoids of each row.

    Attributes:
        labels: (n,) int32 which medoid is nearest; of equally near ones the first.
        nearest, second: (n,) distances; the second is infinite where there is one medoid.
    """

    labels: Int[Array, " n"]
    nearest: Float[Array, " n"]
    second: Float[Array, " n"]


class Look(NamedTuple):
    """How far the search has looked for a swap.

    Attributes:
        position: () int32 the next candidate.
        quiet: () int32 candidates looked at since the last swap, this one among them if it gains nothing.
        candidate, place: () int32 the row that gains, and which medoid it takes the place of.
        found: () whether there is one.
    """

    position: Int[Array, "*batch"]
    quiet: Int[Array, "*batch"]
    candidate: Int[Array, "*batch"]
    place: Int[Array, "*batch"]
    found: Bool[Array, "*batch"]


class Search(NamedTuple):
    """Where the search stands.

    Attributes:
        medoids: (k,) int32 row numbers.
        count: () int32 how many of them take part, the first ones: problems of different k share a program.
        near: the medoids near each row.
        members: (k, n) weight of each row in the cluster it belongs to, 0 in others.
        loss: () Σ w·d to the nearest medoid.
        residual: () what the last round lowered the loss by.
        quiet: () int32 candidates looked at since the last swap.
    """

    medoids: Int[Array, "*batch k"]
    count: Int[Array, "*batch"]
    near: Near
    members: Float[Array, "*batch k n"]
    loss: Float[Array, "*batch"]
    residual: Float[Array, "*batch"]
    quiet: Int[Array, "*batch"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """The loss, which the history keeps."""
        return self.loss


def search(table: Table, medoids: Int[Array, " k"], count: Int[Array, ""], *, tol, max_steps, capacity: int) -> Fit:
    """Swaps from a start until none lowers the loss, a round does by at most tol × the first, or ``max_steps`` rounds.

    A round looks at every row as a candidate; the last one stops where the search has come full circle.
    """
    start = _stand(table, medoids, count, near_medoids(table, medoids, count))
    limits = {"tol": tol * start.loss, "max_steps": max_steps, "capacity": capacity}
    return iterate(lambda state: _round(table, state), start, **limits)


def near_medoids(table: Table, medoids: Int[Array, " k"], count: Int[Array, ""]) -> Near:
    """The nearest and second nearest of the first ``count`` medoids to every row."""
    medoids = jnp.pad(medoids, (0, -len(medoids) % GROUP))

    def add(place, near):
        distance = jnp.where(place < count, table.distances[medoids[place]], jnp.inf)
        closer = distance < near.nearest
        second = jnp.where(closer, near.nearest, jnp.minimum(near.second, distance))
        return Near(jnp.where(closer, place, near.labels), jnp.minimum(near.nearest, distance), second)

    def add_group(group, near):
        for place in range(GROUP):
            near = add(group * GROUP + place, near)
        return near

    far = jnp.full_like(table.weight, jnp.inf)
    return jax.lax.fori_loop(0, -(-count // GROUP), add_group, Near(jnp.zeros(far.shape, jnp.int32), far, far))


def gains(table: Table, state: Search, start: Int[Array, ""]) -> Float[Array, "b k"]:
    """What the loss falls by when each candidate of a block takes the place of each medoid; −∞ for no candidates.

    Falls that may be rounding are none either.
    """
    index = start + jnp.arange(table.block, dtype=jnp.int32)
    distances = jax.lax.dynamic_slice_in_dim(table.distances, start, table.block)
    # Rows that come nearer gain by any swap. Those of the medoid that is taken away lose the way to the candidate, or
    # to their second nearest. Neither sum holds the distance of a far medoid, beside which a gain would be rounding.
    nearer = state.near.nearest[None] - distances
    # A product, not a sum: a sum would be fused with what the other product is made of, at twice the time on a CPU.
    shared = inner_products(jnp.maximum(nearer, 0), table.weight[None])
    lost = jnp.clip(nearer, (state.near.nearest - state.near.second)[None], 0)
    gain = shared + inner_products(lost, state.members)
    taking_part = jnp.arange(gain.shape[1], dtype=jnp.int32) < state.count
    medoid = jnp.any((index[:, None] == state.medoids[None]) & taking_part[None], axis=1)
    possible = (table.weight[index] > 0) & ~medoid
    possible = possible[:, None] & taking_part[None] & (gain > ROUNDING * jnp.finfo(gain.dtype).eps * shared)
    return jnp.where(possible, gain, -jnp.inf)


def _stand(table, medoids, count, near):
    places = jnp.arange(medoids.shape[0], dtype=jnp.int32)
    members = jnp.where(places[:, None] == near.labels[None, :], table.weight[None, :], 0)
    loss = jnp.vdot(table.weight, near.nearest, precision=HIGHEST)
    return Search(medoids, count, near, members, loss, jnp.full_like(loss, jnp.inf), jnp.int32(0))


def _round(table, state):
    candidates = table.candidates()

    def unfinished(carry):
        state, position = carry
        return (position < candidates) & (state.quiet < candidates)

    def advance(carry):
        state, position = carry
        look = _look(table, state, position, candidates)
        return _swap(table, state, look), look.position

    state = state._replace(residual=jnp.zeros_like(state.residual))
    return jax.lax.while_loop(unfinished, advance, (state, jnp.int32(0)))[0]


def _look(table, state, position, candidates):
    """The first candidate from a position on that gains. What it is looked up in stays as it is, and is not copied."""

    def unfinished(look):
        return ~look.found & (look.position < candidates) & (look.quiet < candidates)

    def advance(look):
        start = jnp.minimum(look.position, table.weight.shape[0] - table.block)
        gain = gains(table, state, start)
        index = start + jnp.arange(table.block, dtype=jnp.int32)
        gainful = (gain > 0) & (index >= look.position)[:, None]
        winners = jnp.any(gainful, axis=1)
        first, found = jnp.argmax(winners), jnp.any(winners)
        place = jnp.argmax(jnp.where(gainful[first], gain[first], -jnp.inf)).astype(jnp.int32)
        after = jnp.where(found, index[first] + 1, jnp.minimum(start + table.block, candidates))
        return Look(after, look.quiet + after - look.position, index[first], place, found)

    nothing = jnp.int32(0)
    return jax.lax.while_loop(unfinished, advance, Look(position, state.quiet, nothing, nothing, jnp.bool_(False)))


def _swap(table, state, look):
    """Makes the swap that was found, unless what it gains is rounding."""
    medoids = jnp.where(look.found, state.medoids.at[look.place].set(look.candidate), state.medoids)
    near = near_medoids(table, medoids, state.count)
    change = table.weight * (state.near.nearest - near.nearest)
    fall, turnover = jnp.sum(change), jnp.sum(jnp.abs(change))
    gained = fall > ROUNDING * jnp.finfo(fall.dtype).eps * turnover
    medoids, near = jax.tree.map(partial(jnp.where, gained), (medoids, near), (state.medoids, state.near))
    swapped = _stand(table, medoids, state.count, near)
    residual = state.residual + jnp.where(gained, fall, 0)
    return swapped._replace(residual=residual, quiet=jnp.where(gained, 0, look.quiet))

"""FasterPAM: swaps of a medoid for another row until none lowers the loss.

The change that any swap makes falls apart into sums over rows of a row's distances to its nearest medoid, its second
nearest, and the candidate. For a block of candidates those sums are one pass over their distances and one product with
the clusters' indicators, and give the gain of every candidate in the place of every medoid. The best swap of a block is
made at once, and the search ends when all blocks in a row have none.

Source: E. Schubert and P. J. Rousseeuw, Fast and eager k-medoids clustering: O(k) runtime improvement of the PAM,
CLARA, and CLARANS algorithms, Information Systems 101 (2021); with the swaps of a block of candidates in place of those
of one.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.core.iterate import iterate
from jaxcluster.ops.distance import FULL, row_products
from jaxcluster.types import Array, Fit, Float, Int

BLOCK = 64
"""Candidates whose distances from all rows are looked at together: a tile that stays in the cache."""

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
        return min(BLOCK, self.weight.shape[0])

    def blocks(self) -> Int[Array, ""]:
        """How many blocks hold all the rows that have weight."""
        rows = jnp.arange(self.weight.shape[0], dtype=jnp.int32)
        return jnp.max(jnp.where(self.weight > 0, rows, 0)) // self.block + 1


class Near(NamedTuple):
    """The two nearest medoids of each row.

    Attributes:
        labels: (n,) int32 which medoid is nearest; of equally near ones the first.
        nearest, second: (n,) distances; the second is infinite where there is one medoid.
    """

    labels: Int[Array, " n"]
    nearest: Float[Array, " n"]
    second: Float[Array, " n"]


class Search(NamedTuple):
    """Where the search stands.

    Attributes:
        medoids: (k,) int32 row numbers.
        count: () int32 how many of them take part, the first ones: problems of different k share a program.
        near: the medoids near each row.
        members: (k, n) weight of each row in the cluster it belongs to, 0 in others.
        removal: (k,) what the loss rises by when a medoid is taken away and none put in its place.
        loss: () Σ w·d to the nearest medoid.
        residual: () what the last round lowered the loss by.
        quiet: () int32 blocks looked at since the last swap.
    """

    medoids: Int[Array, "*batch k"]
    count: Int[Array, "*batch"]
    near: Near
    members: Float[Array, "*batch k n"]
    removal: Float[Array, "*batch k"]
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
    first = table.distances[medoids[0]]

    def add(place, near):
        distance = table.distances[medoids[place]]
        closer = distance < near.nearest
        second = jnp.where(closer, near.nearest, jnp.minimum(near.second, distance))
        return Near(jnp.where(closer, place, near.labels), jnp.minimum(near.nearest, distance), second)

    start = Near(jnp.zeros(first.shape, jnp.int32), first, jnp.full_like(first, jnp.inf))
    return jax.lax.fori_loop(1, count, add, start)


def gains(table: Table, state: Search, start: Int[Array, ""]) -> Float[Array, "b k"]:
    """What the loss falls by when each candidate of a block takes the place of each medoid; −∞ for no candidates."""
    index = start + jnp.arange(table.block, dtype=jnp.int32)
    distances = jax.lax.dynamic_slice_in_dim(table.distances, start, table.block)
    near = state.near
    if state.medoids.shape[0] == 1:
        gain = row_products(near.nearest[None] - distances, table.weight[None])
    else:
        # Rows that come nearer gain by any swap. Those of the medoid that is taken away lose what is left of the way
        # to their second nearest, which the candidate may shorten.
        # A product, not a sum: a sum would be fused with what the other product is made of, at twice the time on a CPU.
        shared = row_products(jnp.maximum(near.nearest - distances, 0), table.weight[None])
        kept = jnp.clip(near.second - distances, 0, near.second - near.nearest)
        gain = shared + row_products(kept, state.members) - state.removal
    taking_part = jnp.arange(gain.shape[1]) < state.count
    medoid = jnp.any((index[:, None] == state.medoids) & taking_part, axis=1)
    possible = (table.weight[index] > 0) & ~medoid
    return jnp.where(possible[:, None] & taking_part, gain, -jnp.inf)


def _stand(table, medoids, count, near):
    places = jnp.arange(medoids.shape[0], dtype=jnp.int32)
    members = jnp.where(places[:, None] == near.labels, table.weight, 0)
    loss = jnp.vdot(table.weight, near.nearest, precision=FULL)
    # Beside one medoid there is no second, and nothing is left when it is taken away: `gains` asks for neither.
    removal = members @ jnp.where(jnp.isinf(near.second), 0, near.second - near.nearest)
    return Search(medoids, count, near, members, removal, loss, jnp.full_like(loss, jnp.inf), jnp.int32(0))


def _round(table, state):
    blocks = table.blocks()

    def unfinished(carry):
        state, block = carry
        return (block < blocks) & (state.quiet < blocks)

    def advance(carry):
        state, block = carry
        return _visit(table, state, block), block + 1

    state = state._replace(residual=jnp.zeros_like(state.residual))
    return jax.lax.while_loop(unfinished, advance, (state, jnp.int32(0)))[0]


def _visit(table, state, block):
    """Makes the best swap of a block of candidates, if it gains anything."""
    start = jnp.minimum(block * table.block, table.weight.shape[0] - table.block)
    gain = gains(table, state, start)
    candidate, place = jnp.divmod(jnp.argmax(gain).astype(jnp.int32), gain.shape[1])
    state = state._replace(quiet=state.quiet + 1)

    def swap(state):
        medoids = state.medoids.at[place].set(start + candidate)
        near = near_medoids(table, medoids, state.count)
        change = table.weight * (state.near.nearest - near.nearest)
        fall, turnover = jnp.sum(change), jnp.sum(jnp.abs(change))
        swapped = _stand(table, medoids, state.count, near)._replace(residual=state.residual + fall)
        gained = fall > ROUNDING * jnp.finfo(fall.dtype).eps * turnover
        return jax.tree.map(lambda new, old: jnp.where(gained, new, old), swapped, state)

    return jax.lax.cond(jnp.max(gain) > 0, swap, lambda state: state, state)

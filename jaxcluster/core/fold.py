"""Reductions over samples, in tiles on a device and by collectives over devices.

A *tile function* maps a tile of rows to ``(summary, per_row)``: its contribution to the reduction, and the results of
its rows. Summaries are reduced by a monoid, over tiles in a scan and over devices by a collective.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.core.sparse_rows import SparseRows


class Monoid(NamedTuple):
    """Associative operation on summaries, and its collective over a mapped axis."""

    combine: Callable[[Any, Any], Any]
    all_reduce: Callable[[Any, str], Any]


SUM = Monoid(combine=jnp.add, all_reduce=jax.lax.psum)
MIN = Monoid(combine=jnp.minimum, all_reduce=jax.lax.pmin)
MAX = Monoid(combine=jnp.maximum, all_reduce=jax.lax.pmax)


CHUNK_ELEMENTS = 1 << 16
"""Coordinates of selected rows that are taken at a time: as many as a core's cache holds."""

MIN_CHUNK_ROWS, DENSE_ELEMENTS = 128, 1 << 20
"""Least rows of such a chunk, and most coordinates where rows are sparse and become dense in it: 4 MB."""

SELECTION_GROUP = 32
"""Samples in a group whose selected ones are counted together."""

LINE, SHARE = 64, 16
"""Rows whose entries, even bytes, fill whole cache lines of 64 bytes; tiles below 16 times as many are not rounded."""


def tile_rows(n: int, row_cost: int, budget: int = 1 << 24) -> int:
    """Number of rows in a tile whose temporaries hold at most ``budget`` elements, ``row_cost`` for each row.

    It is n where all rows fit.
    """
    most = max(1, budget // max(1, row_cost))
    if n <= most:
        return n
    # Tiles of equal size, with a remainder of at least one row and few for each tile, which `fold_rows` takes first. A
    # large tile is a whole number of cache lines, for aligned vector instructions.
    tile = max(1, (n - 1) // -(-n // most))
    return tile - tile % LINE if tile >= SHARE * LINE else tile


def fold_rows(
    tile_function: Callable[[Any], tuple[Any, Any]],
    rows: Any,
    *,
    tile: int | None = None,
    monoid: Monoid = SUM,
    axis: int = 0,
    axis_name: str | None = None,
) -> tuple[Any, Any]:
    """Reduction of ``tile_function`` over the rows, in tiles.

    Args:
        tile_function: tile of rows -> (summary, per_row).
        rows: pytree of arrays with n rows along ``axis``, and of sparse rows, which have them in front.
        tile: number of rows in a tile; the remainder, at least one row, comes first. None for one tile of all rows.
        monoid: operation that reduces summaries.
        axis: 0, or -1 for samples as columns, (d, n), in the per-row results too.
        axis_name: mapped axis over which the rows are sharded, if any.

    Returns:
        The reduced summary, the same on every device, and the per-row results in the order of the rows.
    """
    n = _count(rows, axis)
    if tile is None or tile >= n:
        summary, per_row = tile_function(rows)
    else:
        summary, per_row = _fold_tiles(tile_function, rows, n, tile, monoid, axis)
    return all_reduce(summary, axis_name, monoid), per_row


def map_rows(row_function: Callable[[Any], Any], rows: Any, *, tile: int | None = None) -> Any:
    """Per-row results of ``row_function``, applied to tiles of rows."""
    _, per_row = fold_rows(lambda tile_of_rows: ((), row_function(tile_of_rows)), rows, tile=tile)
    return per_row


def map_leaves(function: Callable[[Any, int], Any], rows: Any, axis: int = 0) -> Any:
    """``function(leaf, axis)`` of every array that has one entry per row; the shared tail of sparse rows is kept."""

    def of_leaf(leaf):
        if isinstance(leaf, SparseRows):
            return leaf.map_rows(lambda each: function(each, 0))
        return function(leaf, axis)

    return jax.tree.map(of_leaf, rows, is_leaf=_is_sparse_rows)


def _is_sparse_rows(leaf):
    return isinstance(leaf, SparseRows)


def _count(rows, axis):
    first = jax.tree.leaves(rows, is_leaf=_is_sparse_rows)[0]
    return first.shape[0 if _is_sparse_rows(first) else axis]


def all_reduce(summary: Any, axis_name: str | None, monoid: Monoid = SUM) -> Any:
    """Reduction of summaries over a mapped axis; the identity without one."""
    if axis_name is None:
        return summary
    return jax.tree.map(lambda leaf: monoid.all_reduce(leaf, axis_name), summary)


def _fold_tiles(tile_function, rows, n, tile, monoid, axis):
    count = (n - 1) // tile
    first = n - count * tile

    def cut(start, size):
        # Sliced inside the loop: tiles as inputs of the scan would copy all rows first.
        return map_leaves(lambda leaf, axis: jax.lax.dynamic_slice_in_dim(leaf, start, size, axis), rows, axis)

    def advance(summary, index):
        contribution, per_row = tile_function(cut(first + index * tile, tile))
        return jax.tree.map(monoid.combine, summary, contribution), per_row

    # The remainder comes first: no rows have to be padded, which would copy them all, and the carry starts with the
    # device-varying type that it has inside shard_map. It is at least one row and, by `tile_rows`, few: XLA fuses a
    # product with its minimum inside a loop but not outside, so that a whole tile here would be stored (400,000×16 rows
    # and 1,000 centers: 2.5 GB of temporaries instead of 69 MB).
    start, first_out = tile_function(cut(0, first))
    summary, rest_out = jax.lax.scan(advance, start, jnp.arange(count, dtype=jnp.int32))
    return summary, jax.tree.map(lambda a, b: _join(a, b, axis), first_out, rest_out)


def _join(first, rest, axis):
    axis %= first.ndim
    rest = jnp.moveaxis(rest, 0, axis)
    rest = rest.reshape(*first.shape[:axis], -1, *first.shape[axis + 1 :])
    return jnp.concatenate([first, rest], axis)


def fold_selected(selected: jax.Array, x: Any, update: Callable[..., Any], carry: Any, *, often: bool = False) -> Any:
    """``update(index, samples, carry)`` for the selected samples, a chunk at a time; an index of n stands for none.

    Args:
        often: few selected samples are listed by groups, in an eighth of the time but with a longer compile. It pays
            where every fit has a few, as the samples at which centers start.
    """
    n, d = x.shape
    rows = MIN_CHUNK_ROWS if not isinstance(x, SparseRows) else min(MIN_CHUNK_ROWS, max(8, DENSE_ELEMENTS // d))
    size = min(n, max(rows, CHUNK_ELEMENTS // d))
    count = jnp.sum(selected, dtype=jnp.int32)
    empty = jnp.full((n + size,), n, jnp.int32)

    def list_few():
        return jax.lax.dynamic_update_slice(empty, _first_selected(selected, size), (jnp.int32(0),))

    def list_many():
        place = jnp.where(selected, jnp.cumsum(selected.astype(jnp.int32)) - 1, n + size)
        return empty.at[place].set(jnp.arange(n, dtype=jnp.int32), mode="drop")

    rows = jax.lax.cond(count <= size, list_few, list_many) if often else list_many()

    def advance(carry):
        chunk, carry = carry
        index = jax.lax.dynamic_slice_in_dim(rows, chunk * size, size)
        return chunk + 1, update(index, x[jnp.minimum(index, n - 1)], carry)

    return jax.lax.while_loop(lambda carry: carry[0] * size < count, advance, (zeros_like(count), carry))[1]


def _first_selected(selected, size):
    """(size,) indices of the first selected samples, and n where there are no more.

    Counts are summed over groups of samples, which are far fewer than samples.
    """
    n = selected.shape[0]
    groups = jnp.pad(selected, (0, -n % SELECTION_GROUP)).reshape(-1, SELECTION_GROUP)
    ends = jnp.cumsum(jnp.sum(groups, axis=1, dtype=jnp.int32))
    rank = jnp.arange(size, dtype=jnp.int32)
    group = jnp.searchsorted(ends, rank, side="right").astype(jnp.int32)
    before = jnp.where(group > 0, ends[jnp.maximum(group - 1, 0)], 0)
    passed = jnp.cumsum(groups[jnp.minimum(group, len(groups) - 1)], axis=1, dtype=jnp.int32)
    place = jnp.argmax(passed > (rank - before)[:, None], axis=1).astype(jnp.int32)
    return jnp.where(rank < ends[-1], group * SELECTION_GROUP + place, n)


def zeros_like(value):
    """Zeros that vary over the devices of a mapped axis where the value does, as the carry of a loop must."""
    return jnp.where(value == 0, 0, 0).astype(value.dtype)

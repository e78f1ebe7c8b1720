"""Sparse rows on the device: column numbers and values of the non-zero entries, padded to a rectangle and a tail.

The rectangle holds the first m entries of each row. Rows of more entries go on in the tail, which all rows share, in
pieces of `TAIL_WIDTH` entries: one long row widens no other. Everything that has a row for each sample can be cut into
tiles and drawn from, in the order of the rows; the tail stays whole.

>>> import numpy as np
>>> from jaxcluster.core.sparse_input import sparse_rows
>>> sparse_rows(np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])).dense().tolist()
[[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxcluster.types import Array, Float, Int

TAIL_WIDTH = 32
"""Entries in a piece of a row that is longer than the rectangle."""

TAIL_CHUNK = 512
"""Pieces of long rows that are read at a time."""

PER_ROW = ("columns", "values", "starts", "counts")
"""Fields with one entry per row."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class SparseRows:
    """Rows of which only the entries other than 0 are stored; a pytree, made by `jaxcluster.sparse_rows`.

    Padding is an entry of value 0 in column 0. No column occurs twice in a row but for it. Fields are of type Any, as
    JAX makes such objects of tracers, shapes and None too.

    Attributes:
        columns: (n, m) column of each entry.
        values: (n, m) entries.
        starts: (n,) first piece of each row in the tail.
        counts: (n,) pieces of each row in the tail.
        tail_columns: (t, `TAIL_WIDTH`) columns of the entries of the tail.
        tail_values: (t, `TAIL_WIDTH`) entries of the tail.
        n_columns: number of columns, static.
    """

    columns: Any
    values: Any
    starts: Any
    counts: Any
    tail_columns: Any
    tail_values: Any
    n_columns: int = field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix.

        Returns:
            The numbers of rows and of columns.
        """
        return self.values.shape[0], self.n_columns

    @property
    def size(self) -> int:
        """Number of entries that are held, padding included."""
        return self.values.size + self.tail_values.size

    @property
    def ndim(self) -> int:
        """2."""
        return 2

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the values."""
        return self.values.dtype

    def astype(self, dtype: Any) -> SparseRows:
        """The same rows with values of ``dtype``."""
        return self.map_values(lambda values: values.astype(dtype))

    def map_values(self, function: Callable[[Array], Array]) -> SparseRows:
        """Rows whose entries are those of ``function``, which maps 0 to 0."""
        return replace(self, values=function(self.values), tail_values=function(self.tail_values))

    def map_rows(self, function: Callable[[Array], Array]) -> SparseRows:
        """Rows whose fields of one entry per row are those of ``function``, such as a cut."""
        return replace(self, **{name: function(getattr(self, name)) for name in PER_ROW})

    def take(self, index: Int[Array, " r"]) -> SparseRows:
        """The rows ``index``, which may repeat."""
        return self.map_rows(lambda leaf: leaf[index])

    def __getitem__(self, index: Int[Array, " r"]) -> Float[Array, "r d"]:
        """The rows ``index`` as a dense matrix: of a tile or a few centers, never of all rows."""
        return self.take(index).dense()

    def largest(self) -> Float[Array, " n"]:
        """Largest absolute entry of each row."""

        def compare(row, _, values, __, largest):
            return largest.at[row].max(jnp.max(jnp.abs(values), axis=1), mode="drop")

        return self.fold_tail(compare, jnp.max(jnp.abs(self.values), axis=1))

    def dense(self) -> Float[Array, "n d"]:
        """All rows as a dense matrix."""
        row = jnp.arange(self.shape[0], dtype=jnp.int32)[:, None]
        matrix = jnp.zeros(self.shape, self.dtype).at[row, self.columns].add(self.values)

        def add(row, columns, values, _, matrix):
            return matrix.at[row[:, None], columns].add(values, mode="drop")

        return self.fold_tail(add, matrix)

    def scaled(self, factors: Float[Array, " n"]) -> SparseRows:
        """Each row times its factor."""

        def scale(row, _, values, piece, tail):
            # Set, not multiplied in place: a row that was drawn twice has one tail.
            return tail.at[piece].set(values * factors[jnp.minimum(row, len(factors) - 1), None], mode="drop")

        tail = self.fold_tail(scale, self.tail_values)
        return replace(self, values=self.values * factors[:, None], tail_values=tail)

    def fold_tail(self, update: Callable[..., Any], carry: Any) -> Any:
        """``update(row, columns, values, piece, carry)`` for the pieces of these rows in the tail, a chunk at a time.

        Args:
            update: from the row (r,) of each piece, its columns and values (r, w), and its place (r,) in the tail.
                Where there is no piece, the row is n, the place is beyond the end of the tail, and the values are 0.
            carry: to start with.
        """
        n, t = self.values.shape[0], self.tail_values.shape[0]
        if t == 0:
            return carry
        ends = jnp.cumsum(self.counts)
        size = min(TAIL_CHUNK, t)

        def advance(state):
            chunk, carry = state
            number = chunk * size + jnp.arange(size, dtype=jnp.int32)
            row = jnp.searchsorted(ends, number, side="right").astype(jnp.int32)
            inside = jnp.minimum(row, n - 1)
            after = take_rows(self.starts + self.counts - ends, inside)
            piece = jnp.where(row < n, after + number, t)
            columns, values = (
                take_rows(table, jnp.minimum(piece, t - 1)) for table in (self.tail_columns, self.tail_values)
            )
            return chunk + 1, update(row, columns, jnp.where((row < n)[:, None], values, 0), piece, carry)

        return jax.lax.while_loop(lambda state: state[0] * size < ends[-1], advance, (jnp.int32(0), carry))[1]


def take_rows(table: Array, index: Int[Array, " r"]) -> Array:
    """Rows of a table by numbers that are known to be there: without checks of bounds, which take long to compile."""
    return table.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


def is_sparse(x: Any) -> bool:
    """True for rows or a matrix in a sparse format: SciPy's, JAX's (BCOO, BCSR) or `SparseRows`."""
    # By the name of the module: importing JAX's formats takes time that others need not spend.
    return (
        isinstance(x, SparseRows)
        or scipy.sparse.issparse(x)
        or type(x).__module__.startswith("jax.experimental.sparse")
    )

"""Squared Mahalanobis distances and moments of sparse rows under diagonal and spherical covariances.

Sums run over stored entries, in terms that are never negative; what absent entries add is known from the parameters:

    Σ_j p_j·(x_j − μ_j)² = Σ_stored p_j·(x_j − μ_j)² + (Σ_j p_j·μ_j² − Σ_stored p_j·μ_j²),
    Σ_i r_i·(x_i − m)²   = Σ_stored r_i·(x_i − m)²   + m²·(Σ_i r_i − Σ_stored r_i).

Only the differences in parentheses cancel, for columns that nearly every row stores. Distances for which this matters
are computed again from rows that are dense, a few at a time; moments count the rows, which is exact where all store a
column.

>>> import numpy as np
>>> from jaxcluster.core.sparse_input import sparse_rows
>>> x = sparse_rows(np.array([[0.0, 3.0, 0.0], [1.0, 0.0, 0.0]]))
>>> mahalanobis_sq(jnp.ones((1, 3)), jnp.ones((1, 3)), x).tolist()
[[6.0, 2.0]]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxcluster.core.fold import fold_selected, tile_rows
from jaxcluster.core.sparse_input import ENTRY_GROUP
from jaxcluster.core.sparse_rows import SparseRows
from jaxcluster.ops.distance import RELATIVE_ERROR
from jaxcluster.types import Array, Float

if TYPE_CHECKING:
    # Any for a checker: functions of missing values take columns alone, and options decide that they get them.
    Columns: TypeAlias = Any
else:
    Columns: TypeAlias = Float[Array, "d n"] | SparseRows
"""Samples as columns, or sparse rows."""

MAX_ERROR = 1e-4
"""Error of a squared distance of about the number of columns, or less, that is accepted: 10⁻⁴, or `RELATIVE_ERROR`."""

SUMS = 3
"""Numbers by component for an entry: its responsibility, and that times its difference and squared difference."""


def as_columns(x: Any) -> Any:
    """Samples as columns (d, n); sparse rows stay rows."""
    return x if isinstance(x, SparseRows) else x.T


def sparse_tile(n: int, k: int, budget: int) -> int:
    """Number of sparse rows in a tile: products hold a group of their entries at a time, for each component."""
    return tile_rows(n, ENTRY_GROUP * SUMS * k, budget)


def mahalanobis_sq(means: Float[Array, "k d"], root: Float[Array, "k d"], x: SparseRows) -> Float[Array, "k n"]:
    """Squared Mahalanobis distances of sparse rows; ``root`` are the inverse standard deviations."""
    k = means.shape[0]
    precisions = jnp.square(root)
    at_origin = jnp.sum(precisions * jnp.square(means), axis=1)
    table = jnp.concatenate([precisions, means]).T

    def terms(columns, values):
        def add(entry, totals):
            column, value = entry
            precision, mean = jnp.split(table.at[column].get(mode="promise_in_bounds"), [k], axis=1)
            near, at = totals
            stored = jnp.where(value[:, None] != 0, precision, 0)
            return near + stored * jnp.square(value[:, None] - mean), at + stored * jnp.square(mean)

        zeros = jnp.zeros((columns.shape[0], k), table.dtype)
        return _fold_entries(columns, values, add, (zeros, zeros))

    def add_piece(row, columns, values, _, totals):
        return tuple(
            total.at[row].add(part, mode="drop") for total, part in zip(totals, terms(columns, values), strict=True)
        )

    near, at = x.fold_tail(add_piece, terms(x.columns, x.values))
    # Absent entries are 0 and differ by the mean: their part is the whole sum at the origin less that of the stored
    # entries.
    squares = near + jnp.maximum(at_origin[None, :] - at, 0)
    # That subtraction cancels for rows with most of their weight in stored entries: such rows are computed again,
    # dense.
    error = 8 * jnp.finfo(squares.dtype).eps * at
    rounded = jnp.any(error > jnp.maximum(MAX_ERROR, RELATIVE_ERROR * squares), axis=1)

    def remeasure(index, rows, squares):
        def of_component(component):
            mean, root = component
            return jnp.sum(jnp.square((rows - mean[None, :]) * root[None, :]), axis=1)

        return squares.at[index].set(jax.lax.map(of_component, (means, root)).T, mode="drop")

    return fold_selected(rounded, x, remeasure, squares).T


def moments(
    r: Float[Array, "k n"], means: Float[Array, "k d"], x: SparseRows
) -> tuple[Float[Array, " k"], Float[Array, "k d"], Float[Array, "k d"]]:
    """Moments of sparse rows about the means.

    Returns:
        Σ r, Σ r·(x − m) and the diagonal of Σ r·(x − m)(x − m)ᵀ.
    """
    k, d = means.shape
    table, of_rows = means.T, r.T

    def sums_of(columns, values, weights, sums):
        def add(entry, sums):
            column, value = entry
            difference = value[:, None] - table.at[column].get(mode="promise_in_bounds")
            weight = jnp.where(value[:, None] != 0, weights, 0)
            first = weight * difference
            row = (jnp.sum(weight, axis=1, keepdims=True) > 0).astype(value.dtype)
            return sums.at[column].add(jnp.concatenate([weight, first, first * difference, row], axis=1))

        return _fold_entries(columns, values, add, sums)

    def add_piece(row, columns, values, _, sums):
        return sums_of(columns, values, of_rows[jnp.minimum(row, of_rows.shape[0] - 1)], sums)

    sums = sums_of(x.columns, x.values, of_rows, jnp.zeros((d, SUMS * k + 1), table.dtype))
    *sums, rows = jnp.split(x.fold_tail(add_piece, sums).T, [k, 2 * k, 3 * k])
    stored, first, second = sums
    weight = jnp.sum(r, axis=1)
    # A column that every row stores has no absent entry, whatever the rounding of the two sums.
    full = rows[0] == jnp.sum(jnp.sum(r, axis=0) > 0, dtype=rows.dtype)
    absent = jnp.where(full[None, :], 0, jnp.maximum(weight[:, None] - stored, 0))
    return weight, first - absent * means, second + absent * jnp.square(means)


def _fold_entries(columns, values, add: Callable[[Any, Any], Any], carry):
    """``add((column, value), carry)`` over the places of entries in rows; `ENTRY_GROUP` of them are written out."""

    def group(number, carry):
        first = number * ENTRY_GROUP
        c, v = (jax.lax.dynamic_slice_in_dim(part, first, ENTRY_GROUP, 1) for part in (columns, values))
        for j in range(ENTRY_GROUP):
            carry = add((c[:, j], v[:, j]), carry)
        return carry

    return jax.lax.fori_loop(0, columns.shape[1] // ENTRY_GROUP, group, carry)

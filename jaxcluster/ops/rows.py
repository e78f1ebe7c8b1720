"""Products, norms and distances to centers of rows of either kind, dense matrices and `SparseRows`.

Algorithms say what they compute in these words, and know neither kind. Sparse rows are never made dense but for a few
at a time: products gather the entries of the centers at their columns, and what is too rounded to tell centers apart is
computed again from differences, row by row, as for dense rows (`ops.nearest`).

>>> import numpy as np
>>> from jaxcluster.core.sparse_input import sparse_rows
>>> x = sparse_rows(np.array([[0.0, 3.0, 4.0]]))
>>> squared_norms(x).tolist(), inner_products(x, jnp.eye(3)).tolist()
([25.0], [[0.0, 3.0, 4.0]])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxcluster.core.fold import fold_selected
from jaxcluster.core.sparse_input import ENTRY_GROUP
from jaxcluster.core.sparse_rows import SparseRows, take_rows
from jaxcluster.ops import distance
from jaxcluster.ops.distance import HIGHEST, RELATIVE_ERROR
from jaxcluster.types import Array, Bool, Float, Int

Rows: TypeAlias = Float[Array, "n d"] | SparseRows
"""Rows of either kind."""


def inner_products(x: Rows, y: Float[Array, "m d"], precision: jax.lax.Precision = HIGHEST) -> Float[Array, "n m"]:
    """Inner products of all pairs of rows; those of sparse rows are always in full precision."""
    if not isinstance(x, SparseRows):
        return distance.inner_products(x, y, precision)
    table = y.T  # the entries of all y in one column are read together

    def products(columns, values):
        def add(group, total):
            first = group * ENTRY_GROUP
            c, v = (jax.lax.dynamic_slice_in_dim(part, first, ENTRY_GROUP, 1) for part in (columns, values))
            # Written out: XLA's CPU adds up a group in one pass over (n, m), and no gather is stored.
            for j in range(ENTRY_GROUP):
                total += take_rows(table, c[:, j]) * v[:, j, None]
            return total

        zeros = jnp.zeros((columns.shape[0], table.shape[1]), table.dtype)
        return jax.lax.fori_loop(0, columns.shape[1] // ENTRY_GROUP, add, zeros)

    def add_piece(row, columns, values, _, total):
        return total.at[row].add(products(columns, values), mode="drop")

    return x.fold_tail(add_piece, products(x.columns, x.values))


def squared_norms(x: Rows) -> Float[Array, " n"]:
    """Squared Euclidean length of each row."""
    if not isinstance(x, SparseRows):
        return distance.squared_norms(x)
    return _entry_sums(x, lambda _, columns, values: jnp.square(values))


def normalize(x: Rows) -> Any:
    """Rows scaled to length 1; rows of zeros stay zero. Sparse ones are near 1 already, by `prepare`."""
    if not isinstance(x, SparseRows):
        return distance.normalize(x)
    norms = squared_norms(x)
    positive = norms > 0
    return x.scaled(jnp.where(positive, jax.lax.rsqrt(jnp.where(positive, norms, 1)), 0))


def distances_to_assigned(
    x: Rows, centers: Float[Array, "k d"], labels: Int[Array, " n"], *, spherical: bool = False
) -> Float[Array, " n"]:
    """Squared distance (data units²) of each row to the center of its label; see `distance.distances_to_assigned`."""
    if not isinstance(x, SparseRows):
        return distance.distances_to_assigned(x, centers, labels, spherical=spherical)
    norms, center_norms = squared_norms(x), distance.squared_norms(centers)

    def terms(row, columns, values):
        # At the columns of the row (v − c)² in place of c²; elsewhere the distance has c².
        at = centers[labels[row][:, None], columns]
        return jnp.square(values - at) - jnp.square(at)

    squares = jnp.maximum(center_norms[labels] + _entry_sums(x, terms), 0)

    def remeasure(index, rows, squares):
        assigned = centers[labels[jnp.minimum(index, len(labels) - 1)]]
        return squares.at[index].set(distance.squared_norms(rows - assigned), mode="drop")

    squares = fold_selected(_is_rounded(norms, squares), x, remeasure, squares)
    return jnp.where((norms == 0) | (center_norms[labels] == 0), 1, squares / 2) if spherical else squares


def distances_to_few(x: Rows, y: Float[Array, "m d"], same: Bool[Array, "n m"] | None = None) -> Float[Array, "n m"]:
    """Squared distances (data units²) of all pairs of centered rows, from differences where products are too rounded.

    Args:
        x: rows.
        y: (m, d) dense rows.
        same: mask of pairs that are one row, at distance 0.
    """
    if not isinstance(x, SparseRows):
        return distance.refined_sqeuclidean(x, y, None, same)
    norms = squared_norms(x)
    squares = jnp.maximum(norms[:, None] - 2 * inner_products(x, y) + distance.squared_norms(y)[None, :], 0)
    squares = squares if same is None else jnp.where(same, 0, squares)
    # Sparse rows are made dense only where the product cancels too far: few, near a center.
    rounded = _is_rounded(norms[:, None], squares)
    rounded = rounded if same is None else rounded & ~same

    def remeasure(index, rows, squares):
        return squares.at[index].set(distance.squared_differences(rows, y), mode="drop")

    squares = fold_selected(jnp.any(rounded, axis=1), x, remeasure, squares)
    return squares if same is None else jnp.where(same, 0, squares)


def distances_to_centers(x: Rows, centers: Float[Array, "k d"], metric: str) -> Float[Array, "n k"]:
    """Distances of a tile of rows to all centers, by the name of the metric: "euclidean" or "cosine"."""
    if not isinstance(x, SparseRows):
        return distance.METRICS[metric](x, centers)
    if metric == "euclidean":
        return jnp.sqrt(distances_to_few(x, centers))
    zero = (squared_norms(x) == 0)[:, None] | (distance.squared_norms(centers) == 0)[None, :]
    squares = distances_to_few(normalize(x), distance.normalize(centers), zero)
    return jnp.where(zero, 1, jnp.minimum(squares / 2, 2))


def _entry_sums(x: SparseRows, terms: Callable[..., Any]) -> Float[Array, " n"]:
    """Sum over each row of ``terms(row, columns, values)`` of its entries, which must be 0 for padding."""
    n = x.shape[0]

    def add_piece(row, columns, values, _, total):
        return total.at[row].add(jnp.sum(terms(jnp.minimum(row, n - 1), columns, values), axis=1), mode="drop")

    of_rows = jnp.sum(terms(jnp.arange(n, dtype=jnp.int32), x.columns, x.values), axis=1)
    return x.fold_tail(add_piece, of_rows)


def _is_rounded(norms, squares):
    """True where 8·eps·(‖x‖² + ‖x − c‖²), a bound of the rounding, is above `RELATIVE_ERROR` of ‖x − c‖²."""
    return 8 * jnp.finfo(squares.dtype).eps * (norms + squares) > RELATIVE_ERROR * squares

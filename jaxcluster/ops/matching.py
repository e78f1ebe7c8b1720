"""Categorical rows: mismatches with modes, weights of the categories of clusters, and the modes of clusters.

A row holds the code of its category in each column, an integer from 0. A code that no mode has, such as −1, is a
mismatch with every mode.

>>> mismatches(jnp.array([[0, 1], [2, 1]]), jnp.array([[0, 1], [0, 0]])).tolist()
[[0, 1], [1, 2]]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core.preparation import padded_size
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.distance import over_columns
from jaxcluster.types import Array, Float, Int, Points

LEAST_SLOTS = 8
"""Fewest slots of `CategorySlots`."""


class CategorySlots(NamedTuple):
    """The categories of all columns in one line of slots, column by column, padded to a bucket.

    Tables of counts are (k, slots): columns with few categories take no more room than these need.

    Attributes:
        column: (slots,) column of each slot; the number of columns for padding.
        code: (slots,) code of its category.
        first: (n_columns,) first slot of each column.
    """

    column: Int[Array | np.ndarray, " slots"]
    code: Int[Array | np.ndarray, " slots"]
    first: Int[Array | np.ndarray, " q"]


def category_slots(n_categories: Sequence[int]) -> CategorySlots:
    """Slots of columns with these numbers of categories."""
    sizes = np.asarray(n_categories, np.int32).reshape(-1)
    first = np.cumsum(sizes, dtype=np.int32) - sizes
    column = np.repeat(np.arange(sizes.size, dtype=np.int32), sizes)
    padding = (0, padded_size(column.size, least=LEAST_SLOTS) - column.size)
    code = np.arange(column.size, dtype=np.int32) - first[column]
    return CategorySlots(np.pad(column, padding, constant_values=sizes.size), np.pad(code, padding), first)


def mismatches(codes: Int[Array, "n q"], modes: Int[Array, "k q"]) -> Int[Array, "n k"]:
    """Number of columns in which each row differs from each mode."""
    if codes.shape[1] == 0:
        return jnp.zeros((codes.shape[0], modes.shape[0]), jnp.int32)
    return over_columns(lambda a, b: (a != b).astype(jnp.int32), (codes,), (modes,))


def category_weights(
    slots: CategorySlots, codes: Int[Array, "n q"], weight: Float[Array, " n"], labels: Int[Array, " n"], k: int
) -> Float[Array, "k slots"]:
    """Total weight of the rows of each cluster in each category.

    Args:
        slots: of the columns.
        codes: (n, n_columns) categories, each with a slot.
        weight: (n,) row weights.
        labels: (n,); labels outside [0, k) count nowhere.
        k: number of clusters.
    """
    width = slots.column.shape[0]
    if codes.shape[1] == 0:
        return jnp.zeros((k, width), weight.dtype)

    def scatter(codes, weight, labels):
        inside = (labels >= 0) & (labels < k)
        places = jnp.where(inside, labels * width, k * width)[:, None] + slots.first[None, :] + codes
        heavy = jnp.broadcast_to(weight[:, None], places.shape)
        return jax.ops.segment_sum(heavy.ravel(), places.ravel(), k * width).reshape(k, width)

    def product(codes, weight, labels):
        # Columns of padding repeat the last column: no mode reads them.
        present = codes[:, jnp.minimum(slots.column, codes.shape[1] - 1)] == slots.code[None, :]
        return cluster_sums(Points(present.astype(weight.dtype), weight), labels, k)[0]

    return jax.lax.platform_dependent(codes, weight, labels, cpu=scatter, default=product)


def heaviest_categories(slots: CategorySlots, weights: Float[Array, "k slots"]) -> Int[Array, "k q"]:
    """Mode of each cluster: the category of largest weight in each column, the lowest code of equals."""
    n_columns = slots.first.shape[0]
    by_slot = weights.T
    largest = jax.ops.segment_max(by_slot, slots.column, n_columns)
    is_largest = by_slot == largest[jnp.minimum(slots.column, max(n_columns - 1, 0))] if n_columns else by_slot < 0
    codes = jnp.where(is_largest, jnp.asarray(slots.code, jnp.int32)[:, None], jnp.iinfo(jnp.int32).max)
    return jax.ops.segment_min(codes, slots.column, n_columns).T

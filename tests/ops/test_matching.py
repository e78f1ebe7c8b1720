"""Mismatches, weights of categories and modes, against loops in NumPy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster.ops.matching import category_slots, category_weights, heaviest_categories, mismatches

SIZES = (2, 5, 1, 3)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, size, 40) for size in SIZES], axis=1).astype(np.int32)
    return codes, rng.integers(1, 4, 40).astype(np.float32), rng.integers(-1, 4, 40).astype(np.int32)


def test_mismatches_are_columns_that_differ(rows):
    codes = rows[0]
    expected = (codes[:, None] != codes[None, :3]).sum(-1)
    np.testing.assert_array_equal(mismatches(jnp.asarray(codes), jnp.asarray(codes[:3])), expected)
    unseen = mismatches(jnp.full((1, 4), -1, jnp.int32), jnp.asarray(codes[:3]))
    np.testing.assert_array_equal(unseen, [[4, 4, 4]])
    assert mismatches(jnp.zeros((2, 0), jnp.int32), jnp.zeros((3, 0), jnp.int32)).tolist() == [[0, 0, 0]] * 2


def test_weights_and_modes_equal_loops(rows):
    codes, weight, labels = rows
    slots = category_slots(SIZES)
    table = np.asarray(category_weights(slots, *map(jnp.asarray, (codes, weight, labels)), 3))
    modes = np.asarray(heaviest_categories(slots, jnp.asarray(table)))
    for j in range(3):
        for column, size in enumerate(SIZES):
            own = labels == j
            counts = np.bincount(codes[own, column], weight[own], size)
            start = slots.first[column]
            np.testing.assert_array_equal(table[j, start : start + size], counts)
            assert modes[j, column] == counts.argmax()


def test_the_lowest_code_of_equals_is_the_mode():
    codes = jnp.array([[2, 1], [0, 1], [2, 0], [0, 0]], jnp.int32)
    slots = category_slots((3, 2))
    table = category_weights(slots, codes, jnp.ones(4), jnp.zeros(4, jnp.int32), 1)
    assert heaviest_categories(slots, table).tolist() == [[0, 0]]

"""Spatial blocks leave no near rows out, and what lies within a radius is what a float64 loop finds."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster.ops import radius
from jaxcluster.ops.blocks import BLOCK, near_pairs, partition
from jaxcluster.ops.radius import NOBODY, Ball, least_near, look_around

RNG = np.random.default_rng(0)
ROWS = {
    "cloud": RNG.normal(size=(700, 3)),
    "line": np.linspace(0, 1, 300)[:, None] * np.ones(2),
    "lattice": np.round(RNG.normal(size=(500, 2)), 1),
    "duplicates": np.repeat(RNG.normal(size=(5, 2)), 60, axis=0),
    "two far apart": np.concatenate([RNG.normal(size=(200, 2)), RNG.normal(size=(200, 2)) + 1e8]),
    "few": RNG.normal(size=(3, 4)),
    "wide": RNG.normal(size=(200, 40)),
}


def within(x, ball):
    return (np.abs(x[:, None] - x[None]) ** ball.power).sum(axis=2) <= ball.reach


@pytest.mark.parametrize("name", ROWS)
def test_a_partition_holds_every_row_once_in_its_box(name):
    x = ROWS[name]
    blocks = partition(x)
    filled = blocks.index >= 0
    np.testing.assert_array_equal(np.sort(blocks.index[filled]), np.arange(len(x)))
    np.testing.assert_array_equal(blocks.x[filled], x[blocks.index[filled]])
    assert np.isinf(blocks.x[~filled]).all()
    assert filled.any(axis=1).all()
    assert len(filled) <= 2 * -(-len(x) // BLOCK)
    for rows, real, low, high in zip(blocks.x, filled, blocks.low, blocks.high, strict=True):
        np.testing.assert_array_equal(rows[real].min(axis=0), low)
        np.testing.assert_array_equal(rows[real].max(axis=0), high)
    np.testing.assert_array_equal(blocks.rows(blocks.places(np.arange(len(x)), -1), len(x)), np.arange(len(x)))


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("name", ROWS)
def test_no_near_rows_are_in_blocks_left_out(name, power):
    x, ball = ROWS[name], Ball(power, 0.3**power)
    blocks = partition(x)
    block_of = blocks.rows(np.broadcast_to(np.arange(len(blocks.x))[:, None], blocks.index.shape), len(x))
    pairs = near_pairs(blocks, ball.reach, power)
    assert (pairs[:, 0] <= pairs[:, 1]).all()
    listed = np.zeros((len(blocks.x), len(blocks.x)), bool)
    listed[pairs[:, 0], pairs[:, 1]] = listed[pairs[:, 1], pairs[:, 0]] = True
    first, second = np.nonzero(within(x, ball))
    assert listed[block_of[first], block_of[second]].all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)


def test_few_blocks_are_near_each_other_in_few_columns():
    blocks = partition(np.random.default_rng(1).uniform(size=(20_000, 2)))
    assert len(near_pairs(blocks, 0.02**2, 2.0)) < 0.05 * len(blocks.x) ** 2 / 2


@pytest.mark.parametrize("power", [1.0, 2.0, 2.5])
@pytest.mark.parametrize("name", ROWS)
def test_counts_sums_and_least_labels(name, power):
    x, ball = ROWS[name], Ball(power, {"wide": 8.0, "lattice": 0.3}.get(name, 0.5) ** power)
    near = within(x, ball)
    prepared, counts = look_around(x, ball)
    np.testing.assert_array_equal(counts, near.sum(axis=1))
    weights = RNG.integers(0, 5, len(x)) / 4
    _, sums = look_around(x, ball, weights)
    np.testing.assert_array_equal(sums, near @ weights)
    labels = np.where(RNG.random(len(x)) < 0.5, RNG.integers(0, 1000, len(x)), NOBODY).astype(np.int32)
    placed = jnp.asarray(prepared.blocks.places(labels, NOBODY))
    least = prepared.blocks.rows(np.asarray(least_near(prepared, placed, prepared.pairs)), len(x))
    np.testing.assert_array_equal(least, np.where(near, labels, NOBODY).min(axis=1))


def test_the_host_is_asked_only_where_float32_cannot_tell(monkeypatch):
    asked, settle = [], radius._settle

    def settle_and_tell(near, pairs, values):
        asked.append(len(pairs))
        return settle(near, pairs, values)

    monkeypatch.setattr(radius, "_settle", settle_and_tell)
    x, ball = np.random.default_rng(2).normal(size=(3_000, 2)), Ball(2.0, 0.25)
    near, counts = look_around(x, ball)
    assert asked.pop() < 0.1 * len(near.pairs)
    assert len(near.columns) == 1
    far, twice = look_around(np.concatenate([x, x + 1e6]), ball)
    assert asked.pop() < 0.1 * len(far.pairs)
    assert len(far.columns) == 2
    np.testing.assert_array_equal(twice[:3_000], counts)
    lost, _ = look_around(np.concatenate([x, x + 1e14]), ball)
    assert asked.pop() == len(lost.pairs)


def test_a_radius_far_below_the_rounding_of_the_rows():
    x = np.repeat(RNG.normal(size=(40, 2)) * 1e10, 3, axis=0)
    for reach in (1e-60, 0.0):
        near, counts = look_around(x, Ball(2.0, reach))
        np.testing.assert_array_equal(counts, 3)
        placed = jnp.asarray(near.blocks.places(np.arange(120, dtype=np.int32), NOBODY))
        least = near.blocks.rows(np.asarray(least_near(near, placed, near.pairs)), 120)
        np.testing.assert_array_equal(least, np.arange(120) // 3 * 3)


def test_sums_of_weights_to_the_last_bit():
    x, ball = RNG.normal(size=(300, 2)), Ball(2.0, 0.25)
    weights = RNG.random(300)
    near, sums = look_around(x, ball, weights)
    expected = within(x, ball) @ weights
    np.testing.assert_allclose(sums, expected, rtol=radius.sum_error(near))
    rows = RNG.random(300) < 0.1
    np.testing.assert_allclose(radius.exact_sums(near, rows, weights), expected[rows], rtol=1e-14)


@pytest.mark.parametrize("chunk", [1, 7])
def test_the_size_of_a_chunk_does_not_matter(chunk, monkeypatch):
    x, ball = RNG.normal(size=(501, 2)), Ball(2.0, 0.25)
    expected = look_around(x, ball)[1]
    monkeypatch.setattr(radius, "CHUNK", chunk)
    radius._add_up.clear_cache()
    np.testing.assert_array_equal(look_around(x, ball)[1], expected)
    radius._add_up.clear_cache()

"""Spatial blocks leave no near rows out, and what lies within a radius is what a float64 loop finds."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcluster.ops import block_pairs, blocks, radius
from jaxcluster.ops.block_pairs import room
from jaxcluster.ops.blocks import BLOCK, near_pairs, partition
from jaxcluster.ops.radius import NOBODY, Ball, exact_least, exact_mass, least_near, least_of_whole, look_around

RNG = np.random.default_rng(0)
ROWS = {
    "cloud": RNG.normal(size=(700, 3)),
    "line": np.linspace(0, 1, 300)[:, None] * np.ones(2),
    "lattice": np.round(RNG.normal(size=(500, 2)), 1),
    "duplicates": np.repeat(RNG.normal(size=(5, 2)), 60, axis=0),
    "two far apart": np.concatenate([RNG.normal(size=(200, 2)), RNG.normal(size=(200, 2)) + 1e8]),
    "few": RNG.normal(size=(3, 4)),
    "wide": RNG.normal(size=(200, 40)),
    "wide, in groups": RNG.normal(size=(700, 12)) + 9 * RNG.integers(0, 3, (700, 1)),
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


def test_in_many_columns_blocks_hold_what_belongs_together():
    truth = np.arange(2_000) % 7
    x = 30 * RNG.normal(size=(7, 16))[truth] + RNG.normal(size=(2_000, 16))
    blocks = partition(x)
    np.testing.assert_array_equal(np.sort(blocks.index[blocks.index >= 0]), np.arange(2_000))
    assert all(len(set(truth[rows[rows >= 0]])) == 1 for rows in blocks.index)
    assert len(blocks.x) < 2 * 2_000 / BLOCK


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


def test_blocks_that_are_wholly_near_are_not_looked_into():
    x = np.random.default_rng(1).uniform(size=(1_000, 2))
    near, mass = look_around(x, Ball(2.0, 2.0))
    assert len(near.pairs) == 0
    assert len(near.whole) == len(near.blocks.x) ** 2
    np.testing.assert_array_equal(mass.least, 1_000)
    near, mass = look_around(x, Ball(2.0, 0.25))
    assert len(near.pairs) > 0
    block_of = near.blocks.rows(np.broadcast_to(np.arange(len(near.blocks.x))[:, None], near.blocks.index.shape), 1_000)
    inside = within(x, Ball(2.0, 0.25))
    for first, second in near.whole:
        assert inside[np.ix_(block_of == first, block_of == second)].all()


def test_more_pairs_than_can_be_held(monkeypatch):
    monkeypatch.setattr(blocks, "MOST_PAIRS", 10)
    with pytest.raises(MemoryError, match="GiB. Pass a smaller eps, or fewer rows"):
        look_around(np.random.default_rng(1).uniform(size=(1_000, 2)), Ball(2.0, 1.0))


def test_few_blocks_are_near_each_other_in_few_columns():
    blocks = partition(np.random.default_rng(1).uniform(size=(20_000, 2)))
    assert len(near_pairs(blocks, 0.02**2, 2.0)) < 0.05 * len(blocks.x) ** 2 / 2


@pytest.mark.parametrize("power", [1.0, 2.0, 2.5])
@pytest.mark.parametrize("name", ROWS)
def test_counts_sums_and_least_labels(name, power):
    x, ball = ROWS[name], Ball(power, {"wide": 8.0, "wide, in groups": 4.0, "lattice": 0.3}.get(name, 0.5) ** power)
    near = within(x, ball)
    prepared, mass = look_around(x, ball)
    counts, everyone = near.sum(axis=1), np.ones(len(x), bool)
    assert (mass.least <= counts).all()
    assert (counts <= mass.most).all()
    np.testing.assert_array_equal(exact_mass(prepared, everyone), counts)
    weights = RNG.integers(0, 5, len(x)) / 4
    np.testing.assert_array_equal(exact_mass(prepared, everyone, weights), near @ weights)
    labels = np.where(RNG.random(len(x)) < 0.5, RNG.integers(0, 1000, len(x)), NOBODY).astype(np.int32)
    expected = np.where(near, labels, NOBODY).min(axis=1)
    sure, maybe, exact = least_labels(prepared, labels)
    assert (maybe <= expected).all()
    assert (expected <= sure).all()
    np.testing.assert_array_equal(exact, expected)


def least_labels(near, labels):
    """Least labels near each row: for sure, maybe, and exactly."""
    placed = near.blocks.places(labels, NOBODY)
    on_device = room(placed, NOBODY)
    sure, maybe = (np.asarray(least_near(near, on_device, near.pairs, surely=surely)) for surely in (True, False))
    exact = exact_least(near, placed, near.pairs, near.blocks.index >= 0)
    whole = least_of_whole(near, placed)
    return [near.blocks.rows(np.minimum(values[: len(placed)], whole), len(labels)) for values in (sure, maybe, exact)]


@pytest.mark.parametrize("columns", [2, 9])
def test_float32_leaves_little_open(columns):
    x, ball = np.random.default_rng(2).normal(size=(3_000, columns)), Ball(2.0, columns / 8)
    counts = within(x, ball).sum(axis=1)
    near, mass = look_around(x, ball)
    assert len(near.device.parts) == 1
    assert (mass.most - mass.least).sum() < 1e-4 * counts.sum()
    np.testing.assert_array_equal(exact_mass(near, mass.least < mass.most), counts[mass.least < mass.most])
    far, twice = look_around(np.concatenate([x, x + 1e6]), ball)
    assert len(far.device.parts) == 2
    assert (twice.most - twice.least).sum() < 1e-4 * counts.sum()
    assert (twice.least[:3_000] <= counts).all()


def test_float32_that_tells_nothing_leaves_all_open():
    x, ball = np.random.default_rng(2).normal(size=(300, 2)), Ball(2.0, 0.25)
    near, mass = look_around(np.concatenate([x, x + 1e14]), ball)
    assert near.doubtful.all()
    assert (mass.least <= 1).all()  # a row that is alone in its block, with itself
    counts = exact_mass(near, np.arange(600) < 300)
    np.testing.assert_array_equal(counts, within(x, ball).sum(axis=1))


def test_a_radius_far_below_the_rounding_of_the_rows():
    x = np.repeat(RNG.normal(size=(40, 2)) * 1e10, 3, axis=0)
    for reach in (1e-60, 0.0):
        near, _ = look_around(x, Ball(2.0, reach))
        np.testing.assert_array_equal(exact_mass(near, np.ones(120, bool)), 3)
        np.testing.assert_array_equal(least_labels(near, np.arange(120, dtype=np.int32))[2], np.arange(120) // 3 * 3)


def test_sums_of_weights_are_bounded_and_exact_where_asked():
    x, ball = RNG.normal(size=(300, 2)), Ball(2.0, 0.25)
    weights = RNG.random(300)
    near, mass = look_around(x, ball, weights)
    expected = within(x, ball) @ weights
    assert (mass.least <= expected).all()
    assert (expected <= mass.most).all()
    np.testing.assert_allclose(mass.least, mass.most, rtol=1e-4)
    rows = RNG.random(300) < 0.1
    np.testing.assert_allclose(exact_mass(near, rows, weights), expected[rows], rtol=1e-14)


@pytest.mark.parametrize("chunk", [1, 7])
def test_the_size_of_a_chunk_does_not_matter(chunk, monkeypatch):
    x, ball = RNG.normal(size=(501, 2)), Ball(2.0, 0.25)
    expected = look_around(x, ball)[1]
    monkeypatch.setattr(block_pairs, "CHUNK", chunk)
    monkeypatch.setattr(block_pairs, "GROUP", 5 * chunk)
    radius._add_up.clear_cache()
    found = look_around(x, ball)[1]
    radius._add_up.clear_cache()
    np.testing.assert_array_equal(found.least, expected.least)
    np.testing.assert_array_equal(found.most, expected.most)

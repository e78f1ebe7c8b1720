"""Spatial blocks leave no near rows out, and what lies within a radius is what a float64 loop finds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from jaxcluster.ops import block_pairs, blocks, radius
from jaxcluster.ops.block_pairs import NOBODY, room
from jaxcluster.ops.blocks import BLOCK, near_pairs, partition
from jaxcluster.ops.radius import (
    Ball,
    dense_rows,
    exact_least,
    exact_mass,
    least_near,
    least_of_whole,
    prepare,
)

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
    near = prepare(x, Ball(2.0, 2.0))
    assert len(near.pairs) == 0
    assert len(near.whole) == len(near.blocks.x) ** 2
    assert dense_rows(near, 1_000)[1].all()
    assert not dense_rows(near, 1_001)[1].any()
    near = prepare(x, Ball(2.0, 0.25))
    assert len(near.pairs) > 0
    block_of = near.blocks.rows(np.broadcast_to(np.arange(len(near.blocks.x))[:, None], near.blocks.index.shape), 1_000)
    inside = within(x, Ball(2.0, 0.25))
    for first, second in near.whole:
        assert inside[np.ix_(block_of == first, block_of == second)].all()


def test_more_pairs_than_can_be_held(monkeypatch):
    monkeypatch.setattr(blocks, "MOST_PAIRS", 10)
    with pytest.raises(MemoryError, match="GiB. Pass a smaller eps, or fewer rows"):
        prepare(np.random.default_rng(1).uniform(size=(1_000, 2)), Ball(2.0, 1.0))


def test_few_blocks_are_near_each_other_in_few_columns():
    blocks = partition(np.random.default_rng(1).uniform(size=(20_000, 2)))
    assert len(near_pairs(blocks, 0.02**2, 2.0)) < 0.05 * len(blocks.x) ** 2 / 2


@pytest.mark.parametrize("power", [1.0, 2.0, 2.5])
@pytest.mark.parametrize("name", ROWS)
def test_counts_sums_and_least_labels(name, power):
    x, ball = ROWS[name], Ball(power, {"wide": 8.0, "wide, in groups": 4.0, "lattice": 0.3}.get(name, 0.5) ** power)
    inside = within(x, ball)
    near, counts, everyone = prepare(x, ball), inside.sum(axis=1), np.ones(len(x), bool)
    np.testing.assert_array_equal(exact_mass(near, everyone), counts)
    weights = RNG.integers(0, 5, len(x)) / 4
    np.testing.assert_array_equal(exact_mass(near, everyone, weights), inside @ weights)
    for at_least in np.unique(np.quantile(counts, [0.1, 0.5, 0.9]).round()):
        np.testing.assert_array_equal(dense_rows(near, at_least)[1], counts >= at_least)
        np.testing.assert_array_equal(dense_rows(near, at_least, weights)[1], inside @ weights >= at_least)
    labels = np.where(RNG.random(len(x)) < 0.5, RNG.integers(0, 1000, len(x)), NOBODY).astype(np.int32)
    expected = np.where(inside, labels, NOBODY).min(axis=1)
    sure, maybe, exact = least_labels(near, labels)
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


def asked_of_the_host(monkeypatch):
    """How many rows the host is asked for, call by call."""
    asked, mass = [], radius.exact_mass

    def exact_mass_and_tell(near, rows, weights):
        asked.append(int(rows.sum()))
        return mass(near, rows, weights)

    monkeypatch.setattr(radius, "exact_mass", exact_mass_and_tell)
    return asked


@pytest.mark.parametrize("columns", [2, 9])
def test_float32_leaves_little_to_the_host(columns, monkeypatch):
    asked = asked_of_the_host(monkeypatch)
    x, ball = np.random.default_rng(2).normal(size=(3_000, columns)), Ball(2.0, columns / 8)
    counts = within(x, ball).sum(axis=1)
    at_least = int(np.median(counts))
    near, dense = dense_rows(prepare(x, ball), at_least)
    assert len(near.device.parts) == 1
    np.testing.assert_array_equal(dense, counts >= at_least)
    far = prepare(np.concatenate([x, x + 1e6]), ball)
    assert len(far.device.parts) == 2
    np.testing.assert_array_equal(dense_rows(far, at_least)[1][:3_000], dense)
    assert sum(asked) < 30


def test_float32_that_tells_nothing_leaves_all_to_the_host(monkeypatch):
    asked = asked_of_the_host(monkeypatch)
    x, ball = np.random.default_rng(2).normal(size=(300, 2)), Ball(2.0, 0.25)
    near, dense = dense_rows(prepare(np.concatenate([x, x + 1e14]), ball), 5)
    assert near.doubtful.all()
    assert asked == [600]
    np.testing.assert_array_equal(dense[:300], within(x, ball).sum(axis=1) >= 5)


def test_what_is_dense_is_looked_at_no_more(monkeypatch):
    looked, groups = [], radius.groups
    monkeypatch.setattr(radius, "groups", lambda pairs: looked.append(len(pairs)) or groups(pairs))
    near = prepare(np.random.default_rng(4).normal(size=(4_000, 2)), Ball(2.0, 1.0))
    assert dense_rows(near, 5)[1].mean() > 0.99
    assert sum(looked) < 0.3 * len(near.pairs)


def test_bands_hold_every_pair_once_and_the_nearest_first():
    pairs = prepare(np.random.default_rng(4).normal(size=(9_000, 2)), Ball(2.0, 1.0)).pairs
    bands = radius.bands(pairs)
    np.testing.assert_array_equal(np.sort(np.concatenate(bands)), np.arange(len(pairs)))
    apart = [np.abs(pairs[band, 0] - pairs[band, 1]) for band in bands]
    for nearer, farther in pairwise(apart):
        assert nearer.max() < farther.min()


def test_a_radius_far_below_the_rounding_of_the_rows():
    x = np.repeat(RNG.normal(size=(40, 2)) * 1e10, 3, axis=0)
    for reach in (1e-60, 0.0):
        near = prepare(x, Ball(2.0, reach))
        np.testing.assert_array_equal(exact_mass(near, np.ones(120, bool)), 3)
        np.testing.assert_array_equal(least_labels(near, np.arange(120, dtype=np.int32))[2], np.arange(120) // 3 * 3)


def test_sums_of_weights_are_exact():
    x, ball = RNG.normal(size=(300, 2)), Ball(2.0, 0.25)
    weights = RNG.random(300)
    near, expected = prepare(x, ball), within(x, ball) @ weights
    rows = RNG.random(300) < 0.1
    np.testing.assert_allclose(exact_mass(near, rows, weights), expected[rows], rtol=1e-14)
    for at_least in (0.5, 1 + weights.mean(), expected[7] * (1 - 1e-12), expected[7] * (1 + 1e-12)):
        np.testing.assert_array_equal(dense_rows(near, at_least, weights)[1], expected >= at_least)


@pytest.mark.parametrize("chunk", [1, 7])
def test_the_size_of_a_chunk_does_not_matter(chunk, monkeypatch):
    x, ball = RNG.normal(size=(501, 2)), Ball(2.0, 0.25)
    monkeypatch.setattr(block_pairs, "CHUNK", chunk)
    monkeypatch.setattr(block_pairs, "GROUP", 5 * chunk)
    radius._add_up.clear_cache()
    found = dense_rows(prepare(x, ball), 20)[1]
    radius._add_up.clear_cache()
    np.testing.assert_array_equal(found, within(x, ball).sum(axis=1) >= 20)

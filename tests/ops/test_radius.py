"""Spatial blocks leave no near rows out, and what lies within a radius is what a float64 loop finds."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcluster.ops.metric_space import MetricSpace
from jaxcluster.ops.neighbors import block_kernels, radius, radius_pairs
from jaxcluster.ops.neighbors.block_kernels import NO_INDEX
from jaxcluster.ops.neighbors.kd_blocks import BLOCK, SUPERBLOCK, partition
from jaxcluster.ops.neighbors.radius import (
    core_mask,
    exact_least_labels,
    exact_sums,
    least_labels,
    neighbor_mask,
    prepare_blocks,
    radius_query,
)
from jaxcluster.ops.neighbors.radius_pairs import BlockValue, PairFilter, RadiusQuery, all_pairs, as_block_pairs

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
    "a far row": np.concatenate([RNG.normal(size=(300, 2)), [[1e12, -1e12]]]),
    "an odd column": np.stack([RNG.normal(size=300), 1e9 * RNG.integers(0, 2, 300)], axis=1),
    "far from the origin": RNG.normal(size=(300, 2)) + 1e9,
}
EVERYTHING = PairFilter((), lambda first, second: np.ones(len(first), bool))


def near_ball(power, length):
    """The ball of rows at Minkowski's distance up to a length."""
    root = 1.0 if power == np.inf else 1 / power
    return radius_query(MetricSpace(np.zeros((1, 1)), power, 1.0, root), length)


def inside_of(x, ball):
    """(n, n) mask by a loop over columns, as the definition has it."""
    total = np.zeros((len(x), len(x)))
    for column in x.T:
        difference = np.abs(column[:, None] - column) * ball.scale
        if ball.power == np.inf:
            total = np.maximum(total, difference)
        else:
            total += difference * difference if ball.power == 2 else difference**ball.power
    return total <= ball.threshold


def block_numbers(blocks, n):
    return blocks.rows(np.broadcast_to(np.arange(len(blocks.x))[:, None], blocks.index.shape), n)


def expanded(near):
    """All near pairs and all whole pairs of blocks, those of boxes written out."""
    count, pairs, whole = len(near.middle), [], []
    inner = np.arange(SUPERBLOCK)
    for part in all_pairs(near, EVERYTHING):
        pairs.append(part.near)
        whole.append(part.whole)
        for first, second in part.whole_boxes:
            both = np.stack(np.meshgrid(first * SUPERBLOCK + inner, second * SUPERBLOCK + inner), -1).reshape(-1, 2)
            whole.append(both[(both < count).all(axis=1)])
    return np.concatenate(pairs), np.concatenate(whole)


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
    np.testing.assert_array_equal(blocks.rows(blocks.to_blocks(np.arange(len(x)), -1), len(x)), np.arange(len(x)))


@pytest.mark.parametrize("scale", [1.0, 1e30, 1e-30])
@pytest.mark.parametrize("far", [0.0, 1e12])
def test_blocks_of_many_columns_hold_neighbors(scale, far):
    truth = np.arange(2_000) % 7
    x = 30 * RNG.normal(size=(7, 16))[truth] + RNG.normal(size=(2_000, 16))
    x[0] += far
    blocks = partition(x * scale)
    np.testing.assert_array_equal(np.sort(blocks.index[blocks.index >= 0]), np.arange(2_000))
    # The far row may share its block with rows of another group.
    assert sum(len(set(truth[rows[rows >= 0]])) == 1 for rows in blocks.index) >= len(blocks.index) - (far > 0)
    assert len(blocks.x) < 2 * 2_000 / BLOCK


@pytest.mark.parametrize("power", [2.0, 3.0, np.inf])
@pytest.mark.parametrize("name", ROWS)
def test_pairs_hold_all_near_rows_once(name, power):
    x, ball = ROWS[name], near_ball(power, 0.3)
    near = prepare_blocks(x, ball)
    block_of = block_numbers(near.blocks, len(x))
    pairs, whole = expanded(near)
    listed_once = np.zeros((len(near.middle),) * 2, int)
    np.add.at(listed_once, tuple(np.concatenate([pairs, whole]).T), 1)
    assert listed_once.max() == 1
    inside = inside_of(x, ball)
    first, second = np.nonzero(inside)
    assert listed_once[block_of[first], block_of[second]].all()
    for first, second in whole:
        assert inside[np.ix_(block_of == first, block_of == second)].all()


def test_wholly_near_blocks_are_skipped():
    x = np.random.default_rng(1).uniform(size=(9_000, 2))
    near = prepare_blocks(x, near_ball(2.0, 1.5))
    pairs, whole = expanded(near)
    assert len(near.middle) > 3 * SUPERBLOCK
    assert len(pairs) == 0
    assert len(whole) == len(near.middle) ** 2
    assert core_mask(near, 9_000).all()
    assert not core_mask(near, 9_001).any()
    weights = np.random.default_rng(2).integers(-2, 9, 9_000) / 4
    assert core_mask(near, weights.sum(), weights).all()
    assert not core_mask(near, np.nextafter(weights.sum(), np.inf), weights).any()


def test_no_list_grows_with_the_radius():
    """However many pairs of blocks are near each other, only some are held at a time."""
    x = np.random.default_rng(1).uniform(size=(50_000, 3))
    near = prepare_blocks(x, near_ball(2.0, 0.6))
    sizes = [len(part.near) + len(part.whole) for part in all_pairs(near, EVERYTHING)]
    assert max(sizes) <= radius_pairs.BOX_PAIRS < sum(sizes) / 3


def test_few_blocks_are_near_each_other_in_few_columns():
    near = prepare_blocks(np.random.default_rng(1).uniform(size=(20_000, 2)), near_ball(2.0, 0.02))
    pairs, _ = expanded(near)
    assert len(pairs) < 0.05 * len(near.middle) ** 2


@pytest.mark.parametrize(
    ("name", "power"),
    [*((name, 2.0) for name in ROWS), ("lattice", 1.0), ("lattice", np.inf), ("wide", 2.5), ("wide", np.inf)],
)
def test_counts_sums_and_least_labels(name, power):
    length = {"wide": 8.0, "wide, in groups": 4.0, "lattice": 0.3}.get(name, 0.5)
    x, ball = ROWS[name], near_ball(power, length)
    inside = inside_of(x, ball)
    np.testing.assert_array_equal(neighbor_mask(x, np.arange(len(x)), ball), inside)
    near, counts, everyone = prepare_blocks(x, ball), inside.sum(axis=1), np.ones(len(x), bool)
    np.testing.assert_array_equal(exact_sums(near, everyone, (np.ones(len(x)),)), counts)
    weights = RNG.integers(-1, 5, len(x)) / 4
    np.testing.assert_array_equal(exact_sums(near, everyone, (weights,)), inside @ weights)
    for at_least in np.unique(np.quantile(counts, [0.1, 0.5, 0.9]).round()):
        np.testing.assert_array_equal(core_mask(near, at_least), counts >= at_least)
        for signed in (weights, np.abs(weights)):
            np.testing.assert_array_equal(core_mask(near, at_least / 4, signed), inside @ signed >= at_least / 4)
    labels = np.where(RNG.random(len(x)) < 0.5, RNG.integers(0, 1000, len(x)), NO_INDEX).astype(np.int32)
    expected = np.where(inside, labels, NO_INDEX).min(axis=1)
    certain, possible, exact = all_least_labels(near, labels)
    assert (possible <= expected).all()
    assert (expected <= certain).all()
    np.testing.assert_array_equal(exact, expected)


def all_least_labels(near, labels):
    """Least labels near each row: of sure and of possible neighbors, and exactly."""
    block_labels = near.blocks.to_blocks(labels, NO_INDEX)
    everywhere = near.blocks.index >= 0
    possible = least_labels(near, block_labels, everywhere, all_pairs(near, EVERYTHING), certain=False)
    certain = least_labels(near, block_labels, everywhere, as_block_pairs(possible.touching), certain=True)
    exact = exact_least_labels(near, block_labels, everywhere, possible.touching)
    return [
        near.blocks.rows(np.minimum(each, possible.whole), len(labels))
        for each in (certain.labels, possible.labels, exact)
    ]


def record_host_rows(monkeypatch):
    """Record the number of samples that the host compares in each call."""
    compared_rows, sums = [], radius.exact_sums

    def exact_sums_and_tell(near, rows, parts):
        compared_rows.append(int(rows.sum()))
        return sums(near, rows, parts)

    monkeypatch.setattr(radius, "exact_sums", exact_sums_and_tell)
    return compared_rows


@pytest.mark.parametrize("columns", [2, 9, 30])
def test_float32_leaves_little_to_the_host(columns, monkeypatch):
    """Wherever the rows are: an offset, two far groups and a far row round nothing away."""
    compared_rows = record_host_rows(monkeypatch)
    x, ball = np.random.default_rng(2).normal(size=(2_000, columns)), near_ball(2.0, np.sqrt(2 * columns) * 0.7)
    counts = neighbor_mask(x, np.arange(2_000), ball).sum(axis=1)
    at_least = int(np.median(counts))
    for rows in (x, x + 1e6, np.concatenate([x, x + 1e9]), np.concatenate([x, np.full((1, columns), 1e12)])):
        rounded = neighbor_mask(rows[:2_000], np.arange(2_000), ball).sum(axis=1)  # as float64 rounds far rows
        np.testing.assert_array_equal(core_mask(prepare_blocks(rows, ball), at_least)[:2_000], rounded >= at_least)
    assert sum(compared_rows) < 800


def test_host_decides_beyond_float32(monkeypatch):
    """Blocks of rows that are a billion radii apart are compared with their own rows, not with all."""
    compared_rows = record_host_rows(monkeypatch)
    x = np.repeat(np.random.default_rng(2).uniform(size=(600, 1)), 2, axis=0)
    compared, sums = [], radius.query_sums
    monkeypatch.setattr(radius, "query_sums", lambda a, b, ball: compared.append(sums(a, b, ball)) or compared[-1])
    assert core_mask(prepare_blocks(x, near_ball(2.0, 1e-9)), 2).all()
    assert 1_190 < sum(compared_rows) <= 1_200
    assert sum(part.size for part in compared) < 0.2 * 1_200**2


def test_what_is_dense_is_looked_at_no_more(monkeypatch):
    looked, batch = [], radius_pairs._make_batch
    monkeypatch.setattr(
        radius_pairs, "_make_batch", lambda near, pairs, size: looked.append(len(pairs)) or batch(near, pairs, size)
    )
    near = prepare_blocks(np.random.default_rng(4).normal(size=(4_000, 2)), near_ball(2.0, 1.0))
    assert core_mask(near, 5).mean() > 0.99
    assert sum(looked) < 0.3 * len(expanded(near)[0])


def test_pairs_are_those_asked_for():
    near = prepare_blocks(np.random.default_rng(4).normal(size=(9_000, 2)), near_ball(2.0, 1.0))
    some = np.arange(len(near.middle)) % 50 == 7
    pair_filter = PairFilter((BlockValue(some, np.logical_or),), lambda first, second, some: some[first])
    found = np.concatenate([part.near for part in all_pairs(near, pair_filter)])
    every = expanded(near)[0]
    assert set(map(tuple, found)) == set(map(tuple, every[some[every[:, 0]]]))


@pytest.mark.parametrize("scale", [1e-200, 2.0**-60, 1.0, 2.0**60, 1e200])
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, 20.0, 200.0, np.inf])
def test_no_unit_over_or_underflows(power, scale):
    x = np.array([[0.0, 0], [1, 2], [150, 100], [151, 103], [150, 100], [0, 3]])
    ball = near_ball(power, 3.5 * scale)
    expected = np.abs(x[:, None] - x).max(axis=2) <= 3.5 if power > 3 else inside_of(x, near_ball(power, 3.5))
    np.testing.assert_array_equal(neighbor_mask(x * scale, np.arange(6), ball), expected)
    near = prepare_blocks(x * scale, ball)
    for at_least in (1, 2, 3):
        np.testing.assert_array_equal(core_mask(near, at_least), expected.sum(axis=1) >= at_least)


def test_a_radius_of_any_size():
    x = np.array([[0.0], [1], [2], [1e200]])
    for length, counts in ((1e-200, 1), (1e155, [3, 3, 3, 1]), (1e250, 4), (np.inf, 4)):
        ball = near_ball(2.0, length)
        np.testing.assert_array_equal(neighbor_mask(x, np.arange(4), ball).sum(axis=1), counts)
        np.testing.assert_array_equal(exact_sums(prepare_blocks(x, ball), np.ones(4, bool), (np.ones(4),)), counts)
        np.testing.assert_array_equal(core_mask(prepare_blocks(x, ball), 3), np.broadcast_to(counts, 4) >= 3)


def test_a_radius_far_below_the_rounding_of_the_rows():
    x = np.repeat(RNG.normal(size=(40, 2)) * 1e10, 3, axis=0)
    near = prepare_blocks(x, near_ball(2.0, 1e-30))
    np.testing.assert_array_equal(exact_sums(near, np.ones(120, bool), (np.ones(120),)), 3)
    np.testing.assert_array_equal(all_least_labels(near, np.arange(120, dtype=np.int32))[2], np.arange(120) // 3 * 3)


@pytest.mark.parametrize("unit", [1e-300, 1e-40, 1.0, 1e40, 1e300])
def test_sums_of_weights_are_exact_in_any_unit(unit):
    """Float64 sums, rounded once: with float32's the first of the thresholds would be missed."""
    x, ball = RNG.normal(size=(300, 2)), near_ball(2.0, 0.5)
    weights = RNG.random(300)
    near, expected = prepare_blocks(x, ball), inside_of(x, ball) @ weights
    for at_least in (expected[7] * (1 - 1e-12), expected[7] * (1 + 1e-12), 0.5, 1 + weights.mean()):
        np.testing.assert_array_equal(core_mask(near, at_least * unit, weights * unit), expected >= at_least)


def test_ten_tenths_are_one():
    """A float64 loop over them gives 0.9999999999999999."""
    near = prepare_blocks(np.zeros((10, 1)), near_ball(2.0, 1.0))
    assert core_mask(near, 1.0, np.full(10, 0.1)).all()
    assert not core_mask(near, np.nextafter(1.0, 2), np.full(10, 0.1)).any()


@pytest.mark.parametrize("columns", [2, 70])
def test_the_size_of_a_chunk_does_not_matter(columns, monkeypatch):
    x, ball = RNG.normal(size=(501, columns)), near_ball(2.0, 0.5 if columns == 2 else 11.5)
    expected = neighbor_mask(x, np.arange(501), ball).sum(axis=1) >= 20
    assert 0 < expected.sum() < 501
    for chunk in (1, 8):
        monkeypatch.setattr(block_kernels, "CHUNK", chunk)
        monkeypatch.setattr(radius_pairs, "BATCH_PAIRS", 5 * chunk)
        radius._add_values.clear_cache()
        np.testing.assert_array_equal(core_mask(prepare_blocks(x, ball), 20), expected)
    radius._add_values.clear_cache()


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_many_columns_compile_no_longer(power, monkeypatch):
    """The text of the program does not grow with the columns beyond the first few."""
    lengths = []
    for columns in (64, 512):
        near = prepare_blocks(RNG.normal(size=(130, columns)), near_ball(power, 40.0))
        monkeypatch.setattr(
            radius, "_least", lambda *given: lengths.append(len(LEAST.lower(*given).as_text())) or LEAST(*given)
        )
        all_least_labels(near, np.arange(130, dtype=np.int32))
    assert max(lengths) < 1.1 * min(lengths)


LEAST = radius._least


def test_a_ball_of_a_power_of_two():
    """The scale of a ball is a power of two, so that sums of squares are those of the rows."""
    assert near_ball(2.0, 3.0) == RadiusQuery(2.0, 2.25, 0.5)
    assert radius_query(MetricSpace(np.zeros((1, 1)), 2.0, 1.0, 1.0), 9.0) == RadiusQuery(2.0, 2.25, 0.5)
    assert near_ball(np.inf, 3.0) == RadiusQuery(np.inf, 1.5, 0.5)

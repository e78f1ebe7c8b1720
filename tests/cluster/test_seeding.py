"""Seeding of centers: distribution of the draws, padding, weights of zero."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from jaxcluster.cluster import seeding
from jaxcluster.types import Points

STARTS = {
    "k-means++": seeding.kmeans_plus_plus,
    "k-means||": seeding.kmeans_parallel,
    "random": seeding.random_rows,
}


@partial(jax.jit, static_argnums=(0, 3))
def start(name, key, points, k, **options):
    """One program for all tests of a start: 64 rows, of which some weigh nothing, and 12 centers."""
    return STARTS[name](key, points, k, **options)


def padded(x, weight=None):
    """`points_of` these and as many more of no weight as make 64."""
    weight = np.ones(len(x)) if weight is None else weight
    return points_of(np.pad(x, ((0, 64 - len(x)), (0, 0))), np.pad(weight, (0, 64 - len(x))))


def points_of(x, weight=None):
    return Points(jnp.asarray(x, jnp.float32), jnp.ones(len(x)) if weight is None else jnp.asarray(weight, jnp.float32))


@pytest.mark.parametrize("name", STARTS)
def test_starts_are_distinct_rows_that_weigh_something(name, key):
    x = np.random.default_rng(0).normal(size=(50, 3))
    weight = (np.arange(50) % 2).astype(float)
    centers = np.asarray(start(name, key, padded(x, weight), 12))
    match = (np.abs(centers[:, None] - x[None]) < 1e-6).all(2)
    assert (match.sum(1) == 1).all()
    rows = match.argmax(1)
    assert len(set(rows)) == 12
    assert (weight[rows] > 0).all()


@pytest.mark.parametrize("name", STARTS)
def test_frozen_centers_come_first(name, key):
    x = np.random.default_rng(0).normal(size=(50, 3))
    frozen = jnp.full((2, 3), 9.0)
    centers = start(name, key, padded(x), 12, frozen=frozen)
    assert centers.shape == (12, 3)
    np.testing.assert_array_equal(centers[:2], frozen)
    assert (np.abs(np.asarray(centers[2:])) < 5).all()


@pytest.mark.parametrize("blocks", [1, 3])
def test_rows_are_drawn_by_mass(blocks):
    n = 1024 * (blocks - 1) + 6
    mass = np.zeros(n, np.float32)
    drawn_rows = np.linspace(0, n - 1, 6).astype(int)
    mass[drawn_rows] = [1, 2, 3, 0, 4, 10]
    index, mine = seeding.draw_by_mass(jax.random.key(0), jnp.asarray(mass), 4000, None)
    assert np.asarray(mine).all()
    counts = np.bincount(np.asarray(index), minlength=n)
    assert counts.sum() == counts[drawn_rows].sum() == 4000
    expected = mass[drawn_rows] / mass.sum() * 4000
    assert counts[drawn_rows[3]] == 0
    keep = expected > 0
    assert chisquare(counts[drawn_rows][keep], expected[keep]).pvalue > 1e-3


def test_random_rows_follow_the_weights():
    weight = np.array([1, 1, 2, 4], np.float32)
    x = np.arange(4.0)[:, None]
    keys = jax.random.split(jax.random.key(0), 4000)
    first = jax.jit(jax.vmap(lambda k: seeding.random_rows(k, points_of(x, weight), 1)))(keys)
    counts = np.bincount(np.asarray(first).ravel().astype(int), minlength=4)
    assert chisquare(counts, weight / weight.sum() * 4000).pvalue > 1e-3


def test_greedy_choice_spreads_over_far_blobs():
    # Ten far blobs of five rows: plain sampling misses one now and then, the greedy choice does not.
    x = np.repeat(np.eye(10) * 100, 5, axis=0) + np.random.default_rng(0).normal(size=(50, 10)) * 0.01
    keys = jax.random.split(jax.random.key(0), 50)
    starts = jax.jit(jax.vmap(lambda k: seeding.kmeans_plus_plus(k, points_of(x), 10)))(keys)
    hit = np.asarray(starts).argmax(2)
    assert all(len(set(row)) == 10 for row in hit)


@pytest.mark.parametrize("name", STARTS)
def test_padding_changes_no_draw(name, key):
    x = np.random.default_rng(0).normal(size=(40, 3))
    np.testing.assert_array_equal(start(name, key, points_of(x), 12), start(name, key, padded(x), 12))


def test_masked_places_stay_zero_and_change_no_draw(key):
    x = padded(np.random.default_rng(0).normal(size=(40, 3)))
    four = start("k-means++", key, x, 4)
    masked = start("k-means++", key, x, 12, active=jnp.arange(12) < 4)
    np.testing.assert_array_equal(masked[:4], four)
    assert (np.asarray(masked[4:]) == 0).all()

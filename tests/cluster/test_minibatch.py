"""Mini-batch k-means: each formula on one batch, and the whole against scikit-learn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets
from sklearn.cluster import MiniBatchKMeans

from jaxcluster import kmeans, minibatch
from jaxcluster.types import Status

BATCH = 256
"""Rows in a batch of fits that share one program."""


@pytest.fixture(scope="module")
def digits():
    return datasets.load_digits().data.astype(np.float32)


def test_a_batch_moves_centers_as_running_means(key):
    rng = np.random.default_rng(0)
    init = np.array([[0, 0], [10, 10]], np.float32)
    state = minibatch.init(key, init, 2, init=init)
    centers, counts = init.astype(float), np.zeros(2)
    for _ in range(3):
        x = (rng.normal(size=(30, 2)) + rng.choice([0, 10], size=(30, 1))).astype(np.float32)
        w = rng.uniform(0.5, 2, 30).astype(np.float32)
        labels = ((x[:, None] - centers) ** 2).sum(2).argmin(1)
        for j in range(2):
            own = labels == j
            centers[j] = (counts[j] * centers[j] + w[own] @ x[own]) / (counts[j] + w[own].sum())
            counts[j] += w[own].sum()
        state = minibatch.partial_fit(key, state, x, weights=w)
        np.testing.assert_allclose(state.centers, centers, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(state.counts, counts, rtol=1e-5)


def test_rare_centers_are_redrawn_from_the_batch(key):
    init = np.array([[0, 0], [500, 500], [900, 0]], np.float32)
    state = minibatch.init(key, init, 3, init=init)
    x = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    state = minibatch.partial_fit(key, state, x)
    drawn = np.asarray(state.centers[1:])
    assert (np.abs(drawn[:, None] - x).max(2).min(1) < 1e-4).all()
    np.testing.assert_allclose(state.counts, [100, 100, 100])
    kept = minibatch.partial_fit(key, minibatch.init(key, init, 3, init=init), x, reassignment_ratio=0.0)
    np.testing.assert_array_equal(kept.centers[1:], init[1:])


def test_at_most_half_a_batch_is_redrawn(key):
    init = np.concatenate([np.zeros((1, 2)), 100 + np.arange(18).reshape(9, 2)]).astype(np.float32)
    state = minibatch.init(key, init, 10, init=init)
    x = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    state = minibatch.partial_fit(key, state, x)
    assert (np.asarray(state.centers) != init).any(1).sum() == 1 + 4


def test_a_fit_is_as_good_as_scikit_learns(digits):
    ours = [minibatch.fit(jax.random.key(s), digits, 10, n_init=3) for s in range(5)]
    theirs = [MiniBatchKMeans(10, n_init=3, random_state=s).fit(digits).inertia_ for s in range(5)]
    inertias = [float(fit.state.inertia) for fit in ours]
    assert np.mean(inertias) < 1.03 * np.mean(theirs)
    for fit in ours:
        np.testing.assert_allclose(fit.state.inertia, -kmeans.score(fit.state.centers, digits), rtol=1e-5)
        np.testing.assert_array_equal(fit.labels, kmeans.predict(fit.state.centers, digits))


def test_stops_after_batches_without_gain(digits, key):
    early = minibatch.fit(key, digits, 10, batch_size=BATCH, max_no_improvement=3)
    late = minibatch.fit(key, digits, 10, batch_size=BATCH, max_no_improvement=None)
    assert Status(int(early.status)) is Status.CONVERGED
    assert Status(int(late.status)) is Status.MAX_STEPS
    assert int(late.steps) == 100 * len(digits) // BATCH
    assert int(early.steps) < int(late.steps)


def test_stops_on_small_shifts(digits, key):
    fit = minibatch.fit(key, digits, 10, batch_size=BATCH, tol=1.0, max_no_improvement=None)
    assert Status(int(fit.status)) is Status.CONVERGED


def test_partial_fit_continues_a_fit(digits, key):
    fit = minibatch.fit(key, digits, 10, batch_size=BATCH)
    state = minibatch.partial_fit(key, fit.state, digits[:200])
    np.testing.assert_allclose(state.counts.sum(), fit.state.counts.sum() + 200, rtol=1e-6)


def test_partial_fit_compiles_once_for_a_bucket(digits, key, compiles):
    state = minibatch.init(key, digits[:100], 5)
    state = minibatch.partial_fit(key, state, digits[:100])
    with compiles() as seen:
        jax.block_until_ready(minibatch.partial_fit(key, state, digits[100:197]))
    assert seen.count == 0


def test_vmap_over_states(digits, key):
    keys = jax.random.split(key, 2)

    @jax.jit
    @jax.vmap
    def begin_and_go_on(key):
        state = minibatch.init(key, jnp.asarray(digits[:64]), 4)
        return minibatch.partial_fit(key, state, jnp.asarray(digits[64:128]))

    resumed = begin_and_go_on(keys)
    assert resumed.centers.shape == (2, 4, 64)


def test_width_is_checked(digits, key):
    state = minibatch.init(key, digits[:100], 5)
    with pytest.raises(ValueError, match="x has 3 columns, but the model was fitted on 64"):
        minibatch.partial_fit(key, state, np.ones((4, 3)))

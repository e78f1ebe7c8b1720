"""Bisecting k-means: its splits, its tree and its quality."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from sklearn import datasets
from sklearn.cluster import BisectingKMeans

from jaxcluster import bisecting
from jaxcluster.types import Status


@pytest.fixture(scope="module")
def digits():
    return datasets.load_digits().data.astype(np.float32)


@pytest.fixture(scope="module")
def fit(digits):
    return bisecting.fit(jax.random.key(0), digits, 8, n_init=3)


def test_every_split_lowers_the_inertia(fit):
    history = np.asarray(fit.history)
    assert history.shape == (7,)
    assert (np.diff(history) < 0).all()
    np.testing.assert_allclose(history[-1], fit.state.inertia, rtol=1e-5)


def test_centers_are_means_and_inertia_is_theirs(fit, digits):
    labels, centers = np.asarray(fit.labels), np.asarray(fit.state.centers)
    means = np.stack([digits[labels == j].mean(0) for j in range(8)])
    np.testing.assert_allclose(centers, means, atol=0.05)
    np.testing.assert_allclose(fit.state.weight, np.bincount(labels), rtol=1e-6)
    np.testing.assert_allclose(fit.state.inertia, ((digits - centers[labels]) ** 2).sum(), rtol=1e-4)


def test_prediction_goes_down_the_tree(fit, digits):
    np.testing.assert_array_equal(bisecting.predict(fit.state, digits), fit.labels)
    labels = np.zeros(len(digits), int)
    for s, (parent, pair) in enumerate(zip(fit.state.parents, np.asarray(fit.state.pairs, float), strict=True)):
        second = ((digits - pair[1]) ** 2).sum(1) < ((digits - pair[0]) ** 2).sum(1)
        labels[(labels == int(parent)) & second] = s + 1
    np.testing.assert_array_equal(labels, fit.labels)


@pytest.mark.parametrize("strategy", bisecting.STRATEGIES)
def test_the_right_cluster_is_split(strategy, key):
    # A large tight blob and a small wide one: the strategies differ on which is worse.
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(200, 2)) * 0.1, [50, 0] + rng.normal(size=(40, 2)) * 5]).astype(np.float32)
    fit = bisecting.fit(key, x, 3, strategy=strategy, init="k-means++")
    large = np.asarray(fit.labels)[:200]
    assert (len(np.unique(large)) == 1) == (strategy == "biggest_inertia")


def test_quality_is_scikit_learns(digits):
    ours = [float(bisecting.fit(jax.random.key(s), digits, 10).state.inertia) for s in range(6)]
    theirs = [BisectingKMeans(10, random_state=s).fit(digits).inertia_ for s in range(6)]
    assert np.mean(ours) < 1.02 * np.mean(theirs)


def test_one_cluster_and_too_many(key):
    x = np.array([[0.0, 0], [2, 2], [2, 2]], np.float32)
    one = bisecting.fit(key, x, 1)
    np.testing.assert_allclose(one.state.centers, [x.mean(0)], rtol=1e-6)
    np.testing.assert_allclose(one.state.inertia, ((x - x.mean(0)) ** 2).sum(), rtol=1e-5)
    np.testing.assert_array_equal(bisecting.predict(one.state, x), [0, 0, 0])
    assert Status(int(bisecting.fit(key, x, 3).status)) is Status.EMPTY_CLUSTERS


def test_unknown_strategy_lists_the_known(key):
    with pytest.raises(ValueError, match=r"strategy='biggest' is not known; choose one of 'biggest_inertia'"):
        bisecting.fit(key, np.eye(3), 2, strategy="biggest")

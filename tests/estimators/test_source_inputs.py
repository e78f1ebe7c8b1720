"""Estimators on row sources: the results of the same rows in memory."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

import jaxcluster as jc
from jaxcluster.core import streaming
from jaxcluster.core.sources import ArraySource
from jaxcluster.datasets import scan
from jaxcluster.estimators import ESTIMATORS

RNG = np.random.default_rng(0)
CENTERS = RNG.normal(size=(4, 3)) * 5 + 100
X = CENTERS[RNG.integers(4, size=700)] + RNG.normal(size=(700, 3))
WEIGHTS = RNG.uniform(size=700) * (RNG.uniform(size=700) > 0.1)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Blocks of 128 rows: six, the last one padded."""
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 128 * 3 * 4)


MODELS = {
    "kmeans": lambda: jc.KMeans(4, random_state=0),
    "cosine": lambda: jc.KMeans(4, random_state=0, metric="cosine", tol=0),
    "centers": lambda: jc.KMeans(4, init=X[:4]),
    "empty": lambda: jc.KMeans(4, init=np.concatenate([X[:2], X[:2] + 1e6])),
    "full": lambda: jc.GaussianMixture(4, random_state=0),
    "tied": lambda: jc.GaussianMixture(4, random_state=0, covariance_type="tied"),
    "diag": lambda: jc.GaussianMixture(4, random_state=0, covariance_type="diag"),
    "spherical": lambda: jc.GaussianMixture(4, random_state=0, covariance_type="spherical"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_is_that_of_the_rows_in_memory(name):
    weights = None if name in ("cosine", "empty") else WEIGHTS
    x = X - 100 if name == "cosine" else X
    expected = MODELS[name]().fit(x, sample_weight=weights)
    model = MODELS[name]().fit(scan([x[:300], x[300:]]), sample_weight=weights)
    np.testing.assert_array_equal(model.labels_, expected.labels_)
    assert (model.n_iter_, model.status_) == (expected.n_iter_, expected.status_)
    parameters = "cluster_centers_" if hasattr(model, "cluster_centers_") else "means_"
    np.testing.assert_allclose(getattr(model, parameters), getattr(expected, parameters), rtol=1e-5)
    np.testing.assert_allclose(model.history_, expected.history_, rtol=1e-5)
    source = ArraySource(x)
    # The types of covariances differ in the densities alone.
    of_densities = ("score_samples",) if name in ("tied", "diag", "spherical") else ("predict_proba", "score_samples")
    for method in ("predict", "transform", *of_densities):
        if hasattr(model, method):
            np.testing.assert_allclose(getattr(model, method)(source), getattr(model, method)(x), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(model.score(source), model.score(x), rtol=1e-6)


def test_parallel_seeds_and_runs_find_the_clusters():
    truth = jc.KMeans(4, init=CENTERS).fit(X).labels_
    for options in ({"init": "k-means||", "n_init": 3}, {"init": "random", "n_init": 4}):
        model = jc.KMeans(4, random_state=1, **options).fit(ArraySource(X))
        assert adjusted_rand_score(truth, model.labels_) > 0.99


def test_missing_values_are_integrated_out():
    x = np.where(RNG.uniform(size=X.shape) < 0.1, np.nan, X)
    options = {"covariance_type": "diag", "missing": True, "random_state": 0}
    expected = jc.GaussianMixture(4, **options).fit(x)
    model = jc.GaussianMixture(4, **options).fit(ArraySource(x))
    np.testing.assert_allclose(model.means_, expected.means_, rtol=1e-5)


def test_rows_that_float32_cannot_tell_apart_are_told():
    x = np.concatenate([np.arange(8.0), np.arange(8) + 1e12])[:, None]
    with pytest.warns(match="differ by less than float32"):
        model = jc.KMeans(4, init=x[[0, 7, 8, 15]]).fit(ArraySource(x))
    assert model.status_ == jc.types.Status.PRECISION


def test_methods_without_streams_say_so():
    source = ArraySource(X)
    for name in ("dbscan", "minibatch-kmeans", "spectral"):
        with pytest.raises(TypeError, match="needs all rows in memory"):
            ESTIMATORS[name]().fit(source)
    with pytest.raises(ValueError, match="frozen"):
        jc.KMeans(2, frozen=X[:1]).fit(source)
    with pytest.raises(ValueError, match="batch_size"):
        jc.GaussianMixture(2, batch_size=10).fit(source)
    with pytest.raises(ValueError, match="canonical"):
        jc.KMeans(2, order="canonical").fit(source)

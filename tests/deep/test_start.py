"""Simple clusters of a table, and the choice between them and those of a network."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.metrics import adjusted_rand_score

from jaxcluster import DEC, load
from jaxcluster.deep.start import Start, fit_start, gains_agreement, gains_stability, neighbor_agreement
from jaxcluster.estimators.deep import selection
from jaxcluster.estimators.deep.selection import is_table

KEY = jax.random.key(0)
TINY = {
    "hidden": (8,),
    "latent": 2,
    "pretrain_epochs": 1,
    "epochs": 1,
    "batch_size": 50,
    "random_state": 0,
    "n_init": 1,
}


def crossed(n=300):
    """Rows of two long Gaussian clusters that cross, in the shape of the blobs."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    x = rng.normal(size=(n, 5)) * 0.3
    x[np.arange(n), y] *= 20
    return np.float32(x), y


def test_start_is_the_mixture_of_long_clusters():
    x, y = crossed()
    start = fit_start(KEY, x, 2)
    assert start.name == "mixture"
    assert adjusted_rand_score(y, start.predict(x)) > 0.8


def test_start_of_discrete_columns_is_kmeans():
    x, _ = crossed()
    assert fit_start(KEY, np.round(np.clip(x, -2, 2)), 2).name == "k-means"


def test_densities_of_a_start_are_those_of_scipy():
    rng = np.random.default_rng(0)
    means, weights, x = rng.normal(size=(2, 3)), np.array([0.3, 0.7]), rng.normal(size=(4, 3))
    factors = rng.normal(size=(2, 3, 3))
    covariances = factors @ factors.transpose(0, 2, 1) + np.eye(3)
    for start, each in (
        (Start("mixture", weights, means, covariances), covariances),
        (Start("k-means", weights, means, np.array([0.5])), [0.5 * np.eye(3)] * 2),
    ):
        density = np.stack(
            [w * multivariate_normal(m, c).pdf(x) for w, m, c in zip(weights, means, each, strict=True)], 1
        )
        np.testing.assert_allclose(start.log_joint(x), np.log(density))
        np.testing.assert_allclose(start.predict_proba(x), density / density.sum(axis=1, keepdims=True))
        np.testing.assert_allclose(start.score(x), np.log(density.sum(axis=1)).mean())


def test_agreement_is_corrected_for_chance():
    labels = np.array([0, 0, 0, 1])
    neighbors = np.array([[1], [0], [3], [2]])
    np.testing.assert_allclose(neighbor_agreement(labels, neighbors), (0.5 - 10 / 16) / (1 - 10 / 16))
    assert neighbor_agreement(np.zeros(4, int), neighbors) == 0


def test_both_criteria_compare_with_the_start(blobs):
    mixed = np.where(np.arange(300) % 3 == 0, 0, blobs.y)
    assert gains_agreement(blobs.x, blobs.y, mixed)
    assert not gains_agreement(blobs.x, mixed, blobs.y)
    assert not gains_agreement(blobs.x, blobs.y, blobs.y)
    assert gains_stability(blobs.y, blobs.y, blobs.y, mixed)
    assert not gains_stability(blobs.y, blobs.y, blobs.y, blobs.y)


@pytest.fixture(scope="module")
def kept():
    """A network of a few steps on the crossed clusters, which it does not find."""
    with pytest.warns(
        UserWarning, match="DEC: X has 300 rows, and a network needs about 1,000.*GaussianMixture does as"
    ):
        return DEC(2, **TINY).fit(crossed()[0])


def test_a_table_keeps_the_start(kept, tmp_path):
    x, y = crossed()
    assert kept.chosen_ == "start"
    assert adjusted_rand_score(y, kept.labels_) > 0.8
    np.testing.assert_array_equal(kept.predict(x), kept.labels_)
    codes = kept.transform(x)
    np.testing.assert_allclose(kept.cluster_centers_[1], codes[kept.labels_ == 1].mean(axis=0), rtol=1e-4, atol=1e-6)
    kept.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(x), kept.labels_)


def test_start_takes_the_numbers_of_the_network(kept):
    x, _ = crossed()
    trained = DEC(2, **TINY, select="trained").fit(x)
    assert trained.chosen_ == "trained"
    assert np.mean(trained.labels_ == kept.labels_) >= 0.5


def test_network_is_kept_where_both_criteria_rise(monkeypatch):
    monkeypatch.setattr(selection, "gains_agreement", lambda *_: True)
    monkeypatch.setattr(selection, "gains_stability", lambda labels, second, *_: second.shape == labels.shape)
    assert DEC(2, **TINY).fit(crossed()[0]).chosen_ == "trained"


def test_images_and_embeddings_are_no_tables(kept):
    pixels = np.random.default_rng(0).uniform(size=(50, 64))
    model = DEC(2, scaling="none")
    model.scaling_ = kept.scaling_._replace(how="none", shift=None, factor=None)
    assert not is_table(model, pixels)
    assert is_table(model, pixels[:, :63])
    assert is_table(model, pixels * 10.0 ** np.arange(64))
    assert not is_table(DEC(2, image_shape=(3, 3)), pixels[:, :9])

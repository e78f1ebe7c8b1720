"""Neighbor embedding: its graph and its gradients by their formulas, maps that keep neighbors, and N2D on them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_switches import IN_64_BITS, STRICT, switched
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from jaxcluster import kmeans, neighbor_embedding
from jaxcluster.cluster.neighbor_embedding import attraction, repulsion
from jaxcluster.deep.heads import nearest_neighbors
from jaxcluster.estimators.neighbor_embedding import N2D, NeighborEmbedding
from jaxcluster.types import Status

RNG = np.random.default_rng(0)
CURVE = neighbor_embedding.curve_parameters(0.1, 1.0)


def test_the_curve_is_that_of_the_reference():
    """The numbers that umap-learn prints for its defaults."""
    np.testing.assert_allclose(CURVE, (1.577, 0.895), atol=1e-3)
    a, b = neighbor_embedding.curve_parameters(0.0, 1.0)
    np.testing.assert_allclose(1 / (1 + a * 1.0 ** (2 * b)), np.exp(-1.0), atol=0.05)
    with pytest.raises(ValueError, match="min_dist=3.0 must be less than three times spread=1.0"):
        neighbor_embedding.curve_parameters(3.0, 1.0)


def test_widths_make_the_sum_of_weights_a_logarithm():
    distances = np.sort(RNG.exponential(size=(20, 8)), axis=1)
    distances[0, :2] = 0
    nearest, width = (
        np.asarray(each, np.float64)
        for each in neighbor_embedding.smooth_distances(jnp.asarray(distances, jnp.float32))
    )
    np.testing.assert_allclose(nearest, [distances[0, 2], *distances[1:, 0]], rtol=1e-6)
    sums = np.exp(-np.maximum(distances - nearest[:, None], 0) / width[:, None]).sum(axis=1)
    np.testing.assert_allclose(sums, np.log2(8), rtol=1e-4)


def test_both_ends_join_their_weights():
    x = RNG.normal(size=(15, 3))
    squares = np.linalg.norm(x[:, None] - x, axis=2)
    index = np.argsort(squares, axis=1)[:, :5]
    distances = np.take_along_axis(squares, index, axis=1)
    nearest, width = (np.asarray(each)[:, None] for each in neighbor_embedding.smooth_distances(distances[:, 1:]))
    one_way = np.zeros((15, 15))
    np.put_along_axis(one_way, index[:, 1:], np.exp(-np.maximum(distances[:, 1:] - nearest, 0) / width), axis=1)
    graph = neighbor_embedding.fuzzy_graph(index, distances).toarray()
    np.testing.assert_allclose(graph, one_way + one_way.T - one_way * one_way.T, rtol=1e-4, atol=1e-6)


def test_forces_are_gradients_of_the_cross_entropy():
    a, b = CURVE
    difference = np.array([[1.0, -0.6], [2.0, 1.0], [-0.7, 3.0]])
    attracted = [lambda y: -np.log(1 + a * (y @ y) ** b)]
    repelled = [lambda y: np.log(a * (y @ y) ** b / (1 + a * (y @ y) ** b))]
    for functions, force in ((attracted, attraction), (repelled, repulsion)):
        found = np.asarray(force(jnp.asarray(difference, jnp.float32), CURVE))
        for row, y in enumerate(difference):
            steps = 1e-5 * np.eye(2)
            slopes = [(functions[0](y + step) - functions[0](y - step)) / 2e-5 for step in steps]
            np.testing.assert_allclose(found[row], slopes, rtol=2e-3)
    zero = jnp.zeros((1, 2))
    assert not attraction(zero, CURVE).any()
    assert not repulsion(zero, CURVE).any()
    assert float(jnp.abs(repulsion(jnp.full((1, 2), 1e-3), CURVE)).max()) <= 4


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(n_class=4, return_X_y=True)
    return x[:300], y[:300]


@pytest.fixture(scope="module")
def model(digits):
    return N2D(4, n_components=2, n_neighbors=10, epochs=50, n_init=2, random_state=0).fit(digits[0])


def test_n2d_separates_more_digits_than_kmeans(digits, model):
    x, y = digits
    of_centers = np.asarray(kmeans.fit(jax.random.key(0), x, 4, n_init=5).labels)
    assert adjusted_rand_score(y, model.labels_) > adjusted_rand_score(y, of_centers) + 0.05
    np.testing.assert_allclose(model.predict_proba(x).sum(axis=1), 1, rtol=1e-5)


def test_new_rows_lie_by_their_neighbors(digits, model):
    x, _ = digits
    np.testing.assert_array_equal(model.transform(x), model.embedding_)
    near = model.transform(x + 1e-7)
    extent = np.ptp(model.embedding_, axis=0).max()
    assert np.median(np.linalg.norm(near - model.embedding_, axis=1)) < 0.05 * extent
    np.testing.assert_allclose(model.transform(x[3:4] + 1e-7)[0], near[3], rtol=1e-5)


def test_a_key_fixes_the_map_and_neighbors_stay_near():
    x = np.concatenate([RNG.normal(size=(40, 4)), RNG.normal(size=(40, 4)) + 3])
    maps = [NeighborEmbedding(n_neighbors=8, epochs=10, random_state=0).fit_transform(x) for _ in range(2)]
    np.testing.assert_array_equal(*maps)
    nearest = nearest_neighbors(maps[0], 1)[:, 0]
    assert np.mean((nearest < 40) == (np.arange(80) < 40)) > 0.95


class Halved:
    """An encoder that is not one of the library's."""

    def get_params(self, deep=True):
        return {}

    def fit(self, X):
        return self

    def transform(self, X):
        return X / 2


def test_an_encoder_comes_first(digits, tmp_path):
    x, _ = digits
    options = {"n_components": 2, "n_neighbors": 10, "epochs": 5, "init": "pca", "n_init": 2, "random_state": 0}
    model, plain = N2D(4, encoder=Halved(), **options).fit(x), N2D(4, **options).fit(x)
    np.testing.assert_array_equal(model.embedding_, plain.embedding_)
    with pytest.raises(TypeError, match="cannot be saved"):
        model.save(tmp_path / "model")
    with pytest.raises(TypeError, match="encoder=3 must be None or an estimator"):
        N2D(4, encoder=3, **options).fit(x)


def test_integers_beyond_float64_are_placed():
    x = np.round(RNG.normal(size=(80, 4)) * 256).astype(np.int64)
    for rows in (x + 2**62, x.astype(np.uint64) + np.uint64(2**63)):  # told apart, without a warning that they are not
        model = NeighborEmbedding(n_neighbors=8, epochs=10, init="pca", random_state=0).fit(rows)
        np.testing.assert_array_equal(model.transform(rows), model.embedding_)
        nearest = nearest_neighbors(model.embedding_, 1)[:, 0]
        assert np.median(np.linalg.norm(x - x[nearest], axis=1)) < np.median(np.linalg.norm(x, axis=1))


def test_equal_rows_and_too_few_are_named():
    with pytest.warns(ConvergenceWarning, match="all rows of X are equal, so that the map says nothing"):
        model = NeighborEmbedding(epochs=5, init="pca", random_state=0).fit(np.ones((20, 3)))
    assert model.status_ == Status.CONVERGED
    with pytest.raises(ValueError, match="one row has no neighbors"):
        NeighborEmbedding().fit(np.ones((1, 3)))
    with pytest.raises(ValueError, match="n_samples=3 should be >= n_clusters=4"):
        N2D(4).fit(RNG.normal(size=(3, 2)))
    with pytest.raises(ValueError, match="x has 2 columns, and the map 3"):
        neighbor_embedding.transform(model._state(), np.ones((2, 2)))


def test_a_far_row_does_not_hide_the_others(key):
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 9], 20)
    x = np.vstack([groups[:, None] + rng.normal(size=(40, 2)) * 0.3, [[1e200, 1e200]]])
    places = neighbor_embedding.fit(key, x, epochs=50).embedding[:40]
    assert adjusted_rand_score(groups, kmeans.fit(key, places, 2, n_init=3).labels) == 1


def test_jaxs_switches():
    x = RNG.normal(size=(80, 4)).astype(np.float32)
    with switched(STRICT | IN_64_BITS):
        model = NeighborEmbedding(n_neighbors=8, epochs=10, init="pca", random_state=0).fit(x)
        assert np.isfinite(model.transform(x)).all()


def test_other_samples_share_the_program():
    counts = []
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(60, 4))
        neighbor_embedding.fit(jax.random.key(0), x, 2, n_neighbors=5, epochs=2, init="pca")
        counts.append(neighbor_embedding._steps._cache_size())
    assert counts[1:] == counts[:2]

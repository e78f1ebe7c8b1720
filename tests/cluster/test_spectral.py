"""Spectral clustering finds scikit-learn's eigenvectors and clusters, whatever the gap and the number of pieces."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import sklearn.cluster
from sklearn.datasets import make_blobs, make_circles, make_moons
from sklearn.manifold import spectral_embedding
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import kneighbors_graph

from jaxcluster import metrics
from jaxcluster.cluster import spectral
from jaxcluster.core import memory
from jaxcluster.ops import eigen
from jaxcluster.ops.affinity import as_affinity
from jaxcluster.sharding import row_mesh
from jaxcluster.types import Status


def neighbor_weights(x, k=10):
    ones = kneighbors_graph(x, k, include_self=True)
    return scipy.sparse.csr_array((ones + ones.T) / 2)


SETS = {
    "moons": (*make_moons(300, noise=0.05, random_state=0), 2),
    "touching moons": (*make_moons(600, noise=0.13, random_state=0), 2),
    "rings": (*make_circles(300, noise=0.04, factor=0.6, random_state=0), 2),
    "blobs": (*make_blobs(600, 8, centers=2, random_state=1), 2),
    "touching blobs": (*make_blobs(600, 3, centers=2, cluster_std=1.6, random_state=0), 2),
}


@pytest.mark.parametrize(
    ("name", "assign_labels"),
    [*((name, "kmeans") for name in SETS), ("touching moons", "discretize"), ("touching moons", "cluster_qr")],
)
def test_clusters_are_scikit_learns(key, name, assign_labels):
    x, y, k = SETS[name]
    options = {"affinity": "nearest_neighbors", "assign_labels": assign_labels}
    fit = spectral.fit(key, x, k, **options)
    theirs = sklearn.cluster.SpectralClustering(k, random_state=0, **options).fit(x).labels_
    assert adjusted_rand_score(y, fit.labels) >= adjusted_rand_score(y, theirs) - 0.01
    assert Status(int(fit.status)) == Status.CONVERGED
    assert float(fit.state.residuals.max()) <= 1e-4
    assert fit.labels.dtype == np.int32


@pytest.mark.parametrize(("affinity", "n"), [("rbf", 300), ("rbf", 600), ("nearest_neighbors", 600)])
def test_the_embedding_is_scikit_learns(key, affinity, n):
    x = make_moons(n, noise=0.12, random_state=1)[0]
    weights = rbf_kernel(x, gamma=8.0) if affinity == "rbf" else neighbor_weights(x)
    embedding = spectral.embed(key, x, 4, affinity=affinity, gamma=8.0, tol=1e-9)
    theirs = spectral_embedding(weights, n_components=4, drop_first=False, random_state=0)
    scale = abs(theirs).max(axis=0)
    np.testing.assert_allclose(embedding.vectors / scale, theirs / scale, atol=2e-4)
    laplacian = scipy.sparse.csgraph.laplacian(weights, normed=True)
    laplacian = laplacian.toarray() if scipy.sparse.issparse(laplacian) else laplacian
    np.testing.assert_allclose(embedding.eigenvalues, np.linalg.eigvalsh(laplacian)[:4], atol=1e-7)
    dropped = spectral.embed(key, x, 3, affinity=affinity, gamma=8.0, tol=1e-9, drop_first=True)
    np.testing.assert_allclose(dropped.vectors / scale[1:], theirs[:, 1:] / scale[1:], atol=2e-4)
    assert dropped.eigenvalues.shape == dropped.residuals.shape == (3,)


def test_a_gap_of_a_millionth_is_resolved(key):
    """Two long chains that one weak edge joins: the second eigenvalue is far below float32's rounding."""
    n = 400
    chain = scipy.sparse.diags_array([1.0, 1.0], offsets=[-1, 1], shape=(2 * n, 2 * n)).tolil()
    chain[n - 1, n] = chain[n, n - 1] = 1e-5
    fit = spectral.fit(key, scipy.sparse.csr_array(chain), 2, affinity="precomputed", assign_labels="cluster_qr")
    assert 0 < float(fit.state.eigenvalues[1]) < 1e-7
    np.testing.assert_array_equal(fit.labels, np.repeat(np.asarray(fit.labels)[[0, -1]], n))
    assert fit.labels[0] != fit.labels[-1]


@pytest.mark.parametrize(("k", "rows"), [(2, 120), (5, 40), (7, 40)])
def test_components_stay_whole(key, k, rows):
    """Five pieces: as many clusters, fewer, or more; decomposed whole, and iterated on."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(rows, 2)) * 0.1 + 10 * piece for piece in range(5)])
    y = np.repeat(np.arange(5), rows)
    fit = spectral.fit(key, x, k, affinity="nearest_neighbors")
    assert int(fit.state.components) == 5
    labels, least = np.asarray(fit.labels), min(k, 5)
    np.testing.assert_allclose(fit.state.eigenvalues[:least], 0, atol=1e-12)
    assert len(np.unique(labels)) == k
    if k <= 5:
        assert all(len(np.unique(labels[y == piece])) == 1 for piece in range(5))
        assert spectral.ncut(labels, neighbor_weights(x)) == 0
    else:
        assert all(len(np.unique(y[labels == label])) == 1 for label in range(k))


def test_a_row_without_neighbors_has_eigenvalue_one(key):
    weights = np.zeros((5, 5))
    weights[:4, :4] = 1
    embedding = spectral.embed(key, weights, 5, affinity="precomputed")
    np.testing.assert_allclose(embedding.eigenvalues, [0, 1, 4 / 3, 4 / 3, 4 / 3], atol=1e-7)
    np.testing.assert_allclose(abs(embedding.vectors[:, 1]), [0, 0, 0, 0, 1], atol=1e-7)
    assert int(embedding.components) == 1


def test_every_affinity_has_its_door(key):
    x, y = make_moons(200, noise=0.05, random_state=0)
    weights, distances = rbf_kernel(x, gamma=30.0), np.sqrt(np.square(x[:, None] - x).sum(axis=-1))
    expected = spectral.fit(key, x, 2, gamma=30.0).labels
    for given in (weights, scipy.sparse.csr_array(weights), as_affinity(weights)):
        np.testing.assert_array_equal(spectral.fit(key, given, 2, affinity="precomputed").labels, expected)
    called = spectral.fit(key, x, 2, affinity=lambda a, b: rbf_kernel(a, b, gamma=30.0)).labels
    np.testing.assert_array_equal(called, expected)
    near = spectral.embed(key, x, 2, affinity="nearest_neighbors", n_neighbors=7)
    by_distance = spectral.embed(key, distances, 2, affinity="precomputed_nearest_neighbors", n_neighbors=7)
    np.testing.assert_allclose(near.vectors, by_distance.vectors, atol=1e-6)
    assert adjusted_rand_score(y, expected) > 0.9


def test_a_kernel_in_tiles_is_the_kernel_written_out(key, monkeypatch):
    x = make_moons(600, noise=0.05, random_state=0)[0]
    whole = spectral.embed(key, x, 4, gamma=20.0)
    monkeypatch.setattr("jaxcluster.cluster.spectral.affinity_input.MAX_DENSE_KERNEL", 0)
    monkeypatch.setattr("jaxcluster.ops.affinity.TILE", 100_000)
    tiled = spectral.embed(key, x, 4, gamma=20.0)
    np.testing.assert_allclose(tiled.vectors, whole.vectors, atol=1e-5)


@pytest.mark.parametrize(
    ("affinity", "assign_labels"),
    [("nearest_neighbors", "discretize"), ("rbf", "cluster_qr")],  # k-means: test_few_landmarks_under_jit
)
def test_under_jit_it_finds_the_same(key, affinity, assign_labels):
    x = make_moons(200, noise=0.06, random_state=2)[0]
    options = {"affinity": affinity, "gamma": 30.0, "assign_labels": assign_labels}
    labels = jax.jit(lambda key, x: spectral.fit(key, x, 2, **options).labels)(key, jnp.asarray(x, jnp.float32))
    assert adjusted_rand_score(spectral.fit(key, x, 2, **options).labels, labels) > 0.97


def test_another_set_of_its_size_compiles_nothing(key, compiles):
    fit = lambda seed, n: spectral.fit(key, make_moons(n, noise=0.1, random_state=seed)[0], 2, gamma=9.0, n_init=1)  # noqa: E731
    fit(0, 600)
    with compiles() as seen:
        fit(1, 600)
    assert seen.count == 0


@pytest.mark.parametrize("name", ["discretize", "cluster_qr"])
def test_rotated_indicators_are_read_off(key, name):
    y = np.random.default_rng(0).integers(0, 4, 200)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    vectors = jnp.asarray(np.eye(4)[y] @ turn, jnp.float32)
    labels = spectral.cluster_qr(vectors) if name == "cluster_qr" else spectral.discretize(key, vectors)
    assert adjusted_rand_score(y, labels) == 1


@pytest.mark.parametrize("affinity", ["rbf", "nearest_neighbors"])
def test_rows_that_are_all_equal_are_said_to_be(key, affinity):
    fit = spectral.fit(key, np.ones((200, 2)), 2, affinity=affinity)
    assert np.isfinite(fit.state.vectors).all()
    assert set(np.unique(fit.labels)) <= {0, 1}


def test_one_row(key):
    fit = spectral.fit(key, np.ones((1, 2)), 1, affinity="nearest_neighbors", n_neighbors=1)
    assert fit.labels.tolist() == [0]


def test_many_rows_by_few_of_them(key):
    x, y = make_moons(1000, noise=0.05, random_state=0)
    fit = spectral.nystrom(key, x, 2, gamma=30.0, landmarks=150)
    assert metrics.adjusted_rand_score(y, fit.labels) > 0.98
    new, truth = make_moons(300, noise=0.05, random_state=1)
    assert metrics.adjusted_rand_score(truth, spectral.predict(fit.state, new)) > 0.97
    np.testing.assert_array_equal(spectral.predict(fit.state, x), fit.labels)
    np.testing.assert_allclose(fit.state.eigenvalues[0], 0, atol=1e-10)


def test_nystrom_over_devices_equals_one(key):
    x = make_moons(299, noise=0.05, random_state=0)[0]
    one, two = (spectral.nystrom(key, x, 2, gamma=30.0, landmarks=60, mesh=mesh) for mesh in (None, row_mesh()))
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_allclose(two.state.eigenvalues, one.state.eigenvalues, atol=1e-12)
    with pytest.raises(ValueError, match="call it outside of jit"):
        jax.eval_shape(lambda x: spectral.nystrom(key, x, 2, mesh=row_mesh()), x)


def test_with_all_rows_as_landmarks_it_is_exact(key):
    x = make_moons(200, noise=0.1, random_state=0)[0]
    fit = spectral.nystrom(key, x, 3, gamma=15.0, landmarks=200)
    weights = rbf_kernel(x, gamma=15.0)
    roots = np.sqrt(weights.sum(axis=1))
    values, vectors = np.linalg.eigh(np.eye(200) - weights / roots[:, None] / roots)
    np.testing.assert_allclose(fit.state.eigenvalues, values[:3], atol=1e-8)
    theirs = vectors[:, :3] / roots[:, None]
    ours = np.asarray(spectral.transform(fit.state, x))
    np.testing.assert_allclose(abs(ours), abs(theirs), atol=1e-6)


def test_few_landmarks_under_jit(key):
    x, y = make_moons(300, noise=0.05, random_state=0)
    run = jax.jit(lambda key, x: spectral.nystrom(key, x, 2, gamma=20.0, landmarks=100, n_init=3).labels)
    assert adjusted_rand_score(y, run(key, jnp.asarray(x, jnp.float32))) > 0.97


BAD = [
    (np.eye(4), 2, {"affinity": "knn"}, "affinity='knn' is not known; choose one of 'rbf', 'nearest_neighbors'"),
    (np.eye(4), 2, {"assign_labels": "means"}, "'means' is not known; choose one of 'kmeans', 'discretize'"),
    (np.eye(4), 2, {"n_init": 0}, "n_init=0 must be at least 1"),
    (np.eye(4), 2, {"n_init": "many"}, "n_init='many' must be 'auto' or a number of runs"),
    (np.eye(4), 2, {"gamma": 0}, "gamma=0 must be greater than 0"),
    (np.eye(4), 2, {"max_steps": 0}, "max_steps=0 must be greater than 0"),
    (np.eye(4), 2, {"affinity": "nearest_neighbors"}, "n_neighbors=10 must be at most the number of rows, 4"),
    (np.eye(4), 2, {"n_components": 5}, "n_samples=4 should be >= 5, the eigenvectors asked for"),
    (np.eye(4), 2, {"n_components": 3, "assign_labels": "cluster_qr"}, "n_components=3 must be k=2"),
    (np.ones((3, 2)), 2, {"affinity": "precomputed"}, r"square matrix.*got \(3, 2\)"),
    (np.triu(np.ones((3, 3))), 2, {"affinity": "precomputed"}, r"symmetric: entry \(0, 1\) is 1.0, entry \(1, 0\)"),
    (-np.eye(3), 2, {"affinity": "precomputed"}, r"not be negative: entry \(0, 0\) is -1.0"),
    (scipy.sparse.eye_array(3), 2, {}, "x is sparse, which affinity='rbf' does not take"),
    (as_affinity(np.eye(3)), 2, {}, "pass affinity='precomputed', not 'rbf'"),
    (np.ones((3, 2)), 2, {"affinity": lambda a, b: a}, r"square matrix.*got \(3, 2\)"),
]


@pytest.mark.parametrize(("x", "k", "options", "message"), BAD)
def test_bad_input(key, x, k, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        spectral.fit(key, x, k, **options)


@pytest.mark.parametrize(
    ("k", "options", "message"),
    [
        (3, {"landmarks": 2}, "k=3 must be at most landmarks=2"),
        (5, {}, "n_samples=4 should be >= k=5"),
        (2, {"landmarks": 0}, "landmarks=0 must be at least 1"),
        (2, {"gamma": -1}, "gamma=-1 must be greater than 0"),
        (2, {"n_init": -1}, "n_init=-1 must be at least 1"),
    ],
)
def test_bad_input_of_nystrom(key, k, options, message):
    with pytest.raises(ValueError, match=message):
        spectral.nystrom(key, np.eye(4), k, **options)


def test_rows_of_another_width(key):
    x = make_moons(200, noise=0.1, random_state=0)[0]
    state = spectral.nystrom(key, x, 3, landmarks=200).state
    with pytest.raises(ValueError, match="x has 3 columns, but the model was fitted on 2"):
        spectral.predict(state, np.ones((2, 3)))


def test_a_matrix_that_would_not_fit_is_not_begun(key, monkeypatch):
    monkeypatch.setattr(memory, "MIN_CHECKED_BYTES", 0)
    monkeypatch.setattr(memory, "available", lambda: memory.Available(1000, "the machine"))
    with pytest.raises(MemoryError, match=r"all pairs of 12 rows .*affinity='nearest_neighbors'"):
        spectral.fit(key, np.ones((12, 2)), 2, affinity=lambda a, b: pytest.fail("it was called"))


def test_many_rows_are_iterated_on(key):
    x = make_moons(600, noise=0.13, random_state=0)[0]
    embedding = spectral.embed(key, x, 2, affinity="nearest_neighbors")
    steps = int(embedding.steps)
    assert eigen.MAX_DENSE_ROWS < 600
    assert steps > 0
    assert np.isfinite(embedding.history[:steps]).all()
    assert not embedding.history[steps:].any()
    all_steps = spectral.embed(key, x, 2, affinity="nearest_neighbors", tol=0.0, max_steps=steps + 1)
    assert (int(all_steps.status), int(all_steps.steps)) == (Status.MAX_STEPS, steps + 1)

"""The spectral estimators behave as scikit-learn's, and compute nothing that the functions under them do not."""

from __future__ import annotations

import warnings

import jax
import numpy as np
import pytest
import scipy.sparse
import sklearn.cluster
import sklearn.manifold
from sklearn.datasets import make_blobs, make_moons
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.utils.estimator_checks import parametrize_with_checks

from jaxcluster.cluster import spectral
from jaxcluster.core import memory
from jaxcluster.estimators.spectral import SpectralClustering, SpectralEmbedding
from jaxcluster.types import Status

CHECKED = [
    SpectralClustering(3, affinity="nearest_neighbors", n_neighbors=5, n_init=1),
    SpectralEmbedding(n_neighbors=5),
]


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(CHECKED)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def moons():
    return make_moons(200, noise=0.1, random_state=1)


AFFINITIES = {
    "rbf": ({"gamma": 12.0}, lambda x: x),
    "nearest_neighbors": ({"n_neighbors": 8}, lambda x: x),
    "precomputed": ({}, lambda x: rbf_kernel(x, gamma=12.0)),
    "precomputed, sparse": ({}, lambda x: scipy.sparse.csr_matrix(rbf_kernel(x, gamma=12.0))),
    "precomputed_nearest_neighbors": ({"n_neighbors": 8}, lambda x: np.sqrt(np.square(x[:, None] - x).sum(axis=-1))),
    "laplacian": ({"gamma": 6.0}, lambda x: x),
}


@pytest.mark.parametrize("name", AFFINITIES)
def test_clusters_and_weights_are_scikit_learns(moons, name):
    options, given = AFFINITIES[name]
    options = {**options, "affinity": name.split(",")[0], "random_state": 0}
    x = given(moons[0])
    ours, theirs = SpectralClustering(2, **options).fit(x), sklearn.cluster.SpectralClustering(2, **options).fit(x)
    assert adjusted_rand_score(theirs.labels_, ours.labels_) > 0.97
    weights, expected = ours.affinity_matrix_, theirs.affinity_matrix_
    assert scipy.sparse.issparse(weights) == scipy.sparse.issparse(expected)
    if scipy.sparse.issparse(weights):
        weights, expected = weights.toarray(), expected.toarray()
    np.testing.assert_allclose(weights, expected, atol=1e-12)
    assert ours.n_features_in_ == theirs.n_features_in_
    assert ours.labels_.dtype == theirs.labels_.dtype
    assert ours.status_ == Status.CONVERGED


@pytest.mark.parametrize("name", ["rbf", "nearest_neighbors", "precomputed"])
def test_embeddings_are_scikit_learns(moons, name):
    options, given = AFFINITIES[name]
    options = {**options, "affinity": name, "random_state": 0, "n_components": 3}
    x = given(moons[0])
    ours, theirs = SpectralEmbedding(**options), sklearn.manifold.SpectralEmbedding(**options)
    embedding, expected = ours.fit_transform(x), theirs.fit_transform(x)
    np.testing.assert_allclose(embedding, expected, atol=1e-5)
    np.testing.assert_array_equal(ours.embedding_, embedding)
    assert (ours.eigenvalues_.shape, ours.residuals_.shape) == ((3,), (3,))
    assert getattr(ours, "n_neighbors_", None) == (options.get("n_neighbors") or 20)


def test_functions_are_called_like_scikit_learns(moons):
    x, calls = moons[0][:30], []

    def pair(a, b):
        calls.append(a.shape)
        return np.exp(-np.abs(a - b).sum())

    clustering = SpectralClustering(2, affinity=pair, random_state=0).fit(x)
    assert set(calls) == {(2,)}
    np.testing.assert_allclose(clustering.affinity_matrix_, np.exp(-np.abs(x[:, None] - x).sum(axis=-1)))
    embedding = SpectralEmbedding(affinity=lambda x: rbf_kernel(x, gamma=2.0)).fit(x)
    np.testing.assert_allclose(embedding.affinity_matrix_, rbf_kernel(x, gamma=2.0))


def test_numbers_are_those_of_the_function(moons):
    estimator = SpectralClustering(2, affinity="nearest_neighbors", n_neighbors=8, random_state=7).fit(moons[0])
    fit = spectral.fit(jax.random.key(7), moons[0], 2, affinity="nearest_neighbors", n_neighbors=8)
    np.testing.assert_array_equal(estimator.labels_, fit.labels)
    np.testing.assert_allclose(estimator.embedding_, fit.state.vectors, atol=1e-7)
    np.testing.assert_allclose(estimator.eigenvalues_, fit.state.eigenvalues, atol=1e-12)
    assert estimator.status_ == int(fit.status)
    assert estimator.n_iter_ == len(estimator.history_) == int(fit.steps)
    np.testing.assert_array_equal(
        SpectralClustering(2, gamma=9.0, random_state=3).fit_predict(moons[0]),
        SpectralClustering(2, gamma=9.0, random_state=3).fit(moons[0]).labels_,
    )


def test_a_graph_in_pieces_is_warned_of_and_clustered():
    x, y = make_blobs(90, 2, centers=[[0, 0], [50, 0], [0, 50]], random_state=0)
    with pytest.warns(UserWarning, match=r"not fully connected: it has 3 components.*raise n_neighbors"):
        estimator = SpectralClustering(3, affinity="nearest_neighbors", random_state=0).fit(x)
    assert adjusted_rand_score(y, estimator.labels_) == 1
    assert estimator.n_connected_components_ == 3


def test_a_graph_in_one_piece_is_no_reason_to_warn(moons):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator = SpectralClustering(2, gamma=10.0, random_state=0).fit(moons[0])
    assert estimator.n_connected_components_ == 1
    assert repr(estimator).endswith("converged")
    assert "fitted on 200×2: largest residual" in repr(estimator)


def test_rows_that_are_all_equal_are_warned_of():
    with pytest.warns(ConvergenceWarning, match=r"distinct clusters \(\d\) found smaller than n_clusters \(3\)"):
        SpectralClustering(3, affinity="precomputed", random_state=0, n_components=1).fit(np.ones((20, 20)))


def test_steps_are_told(moons, capsys):
    x = make_moons(600, noise=0.1, random_state=0)[0]
    SpectralClustering(2, affinity="nearest_neighbors", verbose=True, random_state=0).fit(x)
    out = capsys.readouterr().out
    assert out.startswith("SpectralClustering step 1: ")
    assert out.endswith("Computing label assignment using kmeans\n")
    SpectralClustering(2, assign_labels="cluster_qr", verbose=True, random_state=0).fit(x[:20])
    assert capsys.readouterr().out == "Computing label assignment using cluster_qr\n"


BAD = [
    (SpectralClustering, np.ones((1, 2)), {}, r"1 sample\(s\) while a minimum of 2 is required"),
    (SpectralClustering, np.eye(6), {"n_clusters": 7}, "n_samples=6 should be >= n_clusters=7"),
    (SpectralClustering, np.eye(6), {"affinity": "knn"}, "'knn' is not known; choose one of 'rbf', 'nearest_neigh"),
    (SpectralClustering, np.eye(6), {"assign_labels": "x"}, "'x' is not known; choose one of 'kmeans', 'discretize'"),
    (SpectralClustering, np.eye(6), {"eigen_solver": "x"}, "eigen_solver='x' is not known"),
    (SpectralClustering, np.eye(6), {"eigen_tol": "x"}, "eigen_tol='x' is not known"),
    (SpectralClustering, np.eye(6), {"n_init": 0}, "n_init=0 must be at least 1"),
    (SpectralClustering, np.eye(6), {"affinity": "nearest_neighbors"}, "n_neighbors=10 must be at most n_samples=6"),
    (SpectralClustering, np.full((6, 2), np.nan), {}, "X contains 12 NaN values in columns 0, 1"),
    (SpectralClustering, np.ones((6, 3)), {"affinity": "precomputed"}, r"square matrix.*got \(6, 3\)"),
    (SpectralClustering, -np.eye(3), {"affinity": "precomputed"}, r"negative: entry \(0, 0\) is -1.0"),
    (SpectralClustering, np.array([[-1.0], [1.0]]), {"affinity": "linear"}, r"negative: entry \(0, 1\) is -1.0"),
    (SpectralClustering, scipy.sparse.csr_array(np.eye(6)), {}, "Sparse data was passed"),
    (SpectralEmbedding, np.eye(6), {"n_components": 6}, "n_samples=6 should be >= 7, the eigenvectors.*is dropped"),
    (SpectralEmbedding, np.eye(6), {"affinity": "laplacian"}, "affinity='laplacian' is not known"),
    (SpectralEmbedding, np.eye(6), {"n_neighbors": 0}, "n_neighbors=0 must be at least 1"),
]


@pytest.mark.parametrize(("cls", "x", "options", "message"), BAD)
def test_bad_input(cls, x, options, message):
    if cls is SpectralClustering:
        options = {"n_clusters": 2, **options}
    with pytest.raises((ValueError, TypeError), match=message):
        cls(**options).fit(x)


def test_weights_that_would_not_fit_are_not_begun(moons, monkeypatch):
    estimator = SpectralClustering(2, gamma=10.0, random_state=0).fit(moons[0])
    monkeypatch.setattr(memory, "MIN_CHECKED_BYTES", 0)
    monkeypatch.setattr(memory, "available", lambda: memory.Available(10**6, "the machine"))
    with pytest.raises(
        MemoryError, match=r"all pairs of 200 rows \(affinity='rbf'\) take 1\.3 MB, and the machine has 1\.0"
    ):
        _ = estimator.affinity_matrix_
    with pytest.raises(MemoryError, match=r"affinity='laplacian'\) take 1\.3 MB"):
        SpectralClustering(2, affinity="laplacian").fit(moons[0])


def test_before_a_fit_there_is_nothing():
    with pytest.raises(NotFittedError):
        _ = SpectralClustering().affinity_matrix_
    assert not hasattr(SpectralEmbedding(), "embedding_")

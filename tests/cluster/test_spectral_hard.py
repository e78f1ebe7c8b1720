"""Spectral clustering of samples and graphs nobody looked at: no unit, offset or far row changes what is right."""

from __future__ import annotations

import hard_data
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax_switches import IN_64_BITS, LEAKS, STRICT, switched
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import kneighbors_graph

from jaxcluster.cluster import spectral
from jaxcluster.estimators.spectral import SpectralClustering, SpectralEmbedding
from jaxcluster.losses import soft_ncut
from jaxcluster.ops.affinity import as_affinity, gaussian_weights, kernel
from jaxcluster.ops.components import whitening
from jaxcluster.types import Status

BLOBS = hard_data.blobs(d=12)
GAMMA = 0.05
WEIGHTS = rbf_kernel(BLOBS.x, gamma=GAMMA)

ROWS = {
    "2^60": (hard_data.in_unit(BLOBS, 2.0**60), GAMMA * 2.0**-120),
    "1e30": (hard_data.in_unit(BLOBS, 1e30), GAMMA * 1e-60),
    "1e-30": (hard_data.in_unit(BLOBS, 1e-30), GAMMA * 1e60),
    "an offset of 1e9": (hard_data.at(BLOBS, 1e9), GAMMA),
    "an offset of 1e4 in float32": (hard_data.at(BLOBS, 1e4, np.float32), GAMMA),
    "two groups at 1e9": (hard_data.two_far_groups(BLOBS, 1e9), GAMMA),
    "float16": (hard_data.in_dtype(BLOBS, np.float16), GAMMA),
    "longdouble": (hard_data.in_dtype(BLOBS, np.longdouble), GAMMA),
    "int16": (hard_data.in_dtype(BLOBS, np.int16), GAMMA / 64),
}


@pytest.mark.parametrize("affinity", ["rbf", "nearest_neighbors"])
@pytest.mark.parametrize("name", ROWS)
def test_hard_rows(key, name, affinity):
    problem, gamma = ROWS[name]
    fit = spectral.fit(key, problem.x, 3, affinity=affinity, gamma=gamma)
    assert hard_data.same_partition(fit.labels, problem.y)
    assert Status(int(fit.status)) == Status.CONVERGED
    wide = problem.x.dtype.itemsize >= 8 or problem.x.dtype.kind == "i"
    assert fit.state.vectors.dtype == (np.float64 if wide else np.float32)


@pytest.mark.parametrize("far", [1e3, 1e9, 1e12])
def test_a_far_row_leaves_the_weights_of_the_others(far):
    problem = hard_data.with_far_sample(BLOBS, far)
    with jax.enable_x64(True):
        weights = np.asarray(kernel(problem.x, GAMMA).matrix().weights)
    expected = WEIGHTS - np.diag(np.diag(WEIGHTS))
    np.testing.assert_allclose(weights[1:, 1:], expected, rtol=1e-5, atol=1e-12)
    assert not weights[0].any()


def test_a_row_of_little_weight_is_with_its_neighbor(key):
    """Its degree is e^-60: its entry of an eigenvector of length 1 is below rounding."""
    x = np.concatenate([BLOBS.x, BLOBS.x[:1] + 20 * np.eye(12)[:1]])
    weights = rbf_kernel(x, gamma=0.15)
    assert 0 < weights[-1, :-1].sum() < 1e-20
    embedding = spectral.embed(key, weights, 3, affinity="precomputed", tol=1e-12)
    expected = weights[-1, :-1] @ embedding.vectors[:-1] / weights[-1, :-1].sum() / (1 - embedding.eigenvalues)
    np.testing.assert_allclose(embedding.vectors[-1], expected, rtol=1e-6)
    assert Status(int(embedding.status)) == Status.CONVERGED


@pytest.mark.parametrize("unit", [1e100, 1e-100, 1e200, 1e-200])
@pytest.mark.parametrize("assign_labels", ["kmeans", "discretize", "cluster_qr"])
def test_a_graph_has_no_unit(key, unit, assign_labels):
    for given in (WEIGHTS * unit, scipy.sparse.csr_array(WEIGHTS * unit)):
        fit = spectral.fit(key, given, 3, affinity="precomputed", assign_labels=assign_labels)
        assert hard_data.same_partition(fit.labels, BLOBS.y)
    plain = spectral.embed(key, WEIGHTS, 3, affinity="precomputed")
    np.testing.assert_allclose(fit.state.eigenvalues, plain.eigenvalues, atol=1e-12)
    # The first vector, 1/√volume everywhere, tells the unit; the others may be turned among themselves.
    np.testing.assert_allclose(fit.state.vectors[:, 0] * unit**0.5, plain.vectors[:, 0], rtol=1e-9)
    expected = spectral.ncut(BLOBS.y, WEIGHTS), spectral.ratio_cut(BLOBS.y, WEIGHTS) * unit
    np.testing.assert_allclose(spectral.ncut(BLOBS.y, given), expected[0], rtol=1e-12)
    np.testing.assert_allclose(spectral.ratio_cut(BLOBS.y, given), expected[1], rtol=1e-9)
    for label in (spectral.discretize, lambda _, vectors: spectral.cluster_qr(vectors)):
        assert hard_data.same_partition(label(key, fit.state.vectors), BLOBS.y)


def test_estimator_publishes_the_dtype_of_the_samples():
    for dtype in (np.float32, np.float64):
        estimator = SpectralClustering(3, gamma=GAMMA, random_state=0).fit(hard_data.at(BLOBS, 1e4).x.astype(dtype))
        assert hard_data.same_partition(estimator.labels_, BLOBS.y)
        assert estimator.embedding_.dtype == estimator.affinity_matrix_.dtype == dtype
        np.testing.assert_allclose(estimator.affinity_matrix_, WEIGHTS, rtol=1e-5)


def test_weights_beyond_a_dtype():
    with pytest.raises(ValueError, match="affinity has weights up to 1e\\+40, beyond what float32 holds"):
        as_affinity(WEIGHTS * 1e40)
    scaled = as_affinity(WEIGHTS * 1e40, any_unit=True)
    assert 0.25 <= float(scaled.diagonal.max()) <= 4
    members = jnp.eye(3)[BLOBS.y]
    expected = spectral.ncut(BLOBS.y, WEIGHTS)
    for unit in (1e100, 1e-100):
        np.testing.assert_allclose(soft_ncut(members, WEIGHTS * unit), expected, rtol=1e-4)


def test_asymmetric_weights_are_averaged_and_warn():
    one_sided = kneighbors_graph(BLOBS.x, 12, include_self=True)
    with pytest.warns(UserWarning, match="not symmetric, and will be converted to symmetric by average"):
        estimator = SpectralClustering(3, affinity="precomputed", random_state=0).fit(one_sided)
    assert hard_data.same_partition(estimator.labels_, BLOBS.y)


def test_one_sided_distances_count_for_both_sides():
    graph = kneighbors_graph(BLOBS.x, 15, mode="distance")
    options = {"affinity": "precomputed_nearest_neighbors", "n_neighbors": 10, "random_state": 0}
    assert hard_data.same_partition(SpectralClustering(3, **options).fit(graph).labels_, BLOBS.y)


@pytest.mark.parametrize("adjacency", [bool, np.uint8, np.int64])
def test_adjacency_of_other_dtypes(key, adjacency):
    near = (WEIGHTS > 0.01).astype(adjacency)
    for given in (near, scipy.sparse.csr_array(near)):
        assert hard_data.same_partition(spectral.fit(key, given, 3, affinity="precomputed").labels, BLOBS.y)


HARD_PROBLEMS = ["2^60", "1e30", "1e-30", "an offset of 1e9", "an offset of 1e4 in float32", "float16"]


@pytest.mark.parametrize("name", HARD_PROBLEMS)
def test_nystrom_predicts_in_the_frame_of_its_fit(key, name):
    problem, gamma = ROWS[name]
    fit = spectral.nystrom(key, problem.x, 3, gamma=gamma, landmarks=60)
    assert hard_data.same_partition(fit.labels, problem.y)
    np.testing.assert_array_equal(spectral.predict(fit.state, problem.x), fit.labels)
    np.testing.assert_array_equal(spectral.predict(fit.state, problem.x[7:9]), fit.labels[7:9])


def test_what_float64_does_not_reach_is_said():
    with pytest.warns(ConvergenceWarning, match="not found to eigen_tol=1e-18 in float64.*Raise eigen_tol"):
        estimator = SpectralEmbedding(2, affinity="rbf", gamma=GAMMA, eigen_tol=1e-18, random_state=0).fit(BLOBS.x)
    assert estimator.status_ == Status.PRECISION
    assert SpectralEmbedding(2, affinity="rbf", gamma=GAMMA, eigen_tol=0).fit(BLOBS.x).status_ == Status.CONVERGED


def test_weights_of_tiles_in_float32():
    """Distances are taken by a matrix product for near samples, by differences for far ones."""
    x = BLOBS.x.astype(np.float32) * np.float32(GAMMA**0.5)
    far = np.concatenate([x, x + np.float32(4096)])
    weights = np.asarray(jax.jit(gaussian_weights)(far, far))
    np.testing.assert_allclose(weights[: len(x), : len(x)], WEIGHTS, atol=1e-2)
    assert not weights[: len(x), len(x) :].any()


@pytest.mark.parametrize("unit", [1e-20, 1.0, 1e15])
def test_whitened_rows_have_no_unit(unit):
    x = np.random.default_rng(0).normal(size=(200, 4)) * [1, 2, 3, 4] + 100
    rows = jnp.asarray(x * unit, jnp.float32)
    white = np.asarray(whitening(rows, 3).apply(rows))
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(3), atol=1e-3)
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-3)


@pytest.mark.parametrize("switches", [STRICT | LEAKS, IN_64_BITS], ids=["all but x64", "x64"])
def test_jaxs_switches(key, switches):
    """Each way to affinities and to labels once."""
    graph = scipy.sparse.csr_array(WEIGHTS)
    with switched(switches):
        for given, affinity, assign_labels in (
            (BLOBS.x, "rbf", "kmeans"),
            (BLOBS.x, "nearest_neighbors", "discretize"),
            (graph, "precomputed", "cluster_qr"),
        ):
            options = {"affinity": affinity, "assign_labels": assign_labels, "gamma": GAMMA, "n_init": 1}
            fit = spectral.fit(key, given, 3, **options)
            assert hard_data.same_partition(fit.labels, BLOBS.y)
            assert np.isfinite(fit.history).all()
        fit = spectral.nystrom(key, BLOBS.x, 3, gamma=GAMMA, landmarks=60, n_init=1)
        np.testing.assert_array_equal(spectral.predict(fit.state, BLOBS.x), fit.labels)
        traced = jax.jit(lambda x: spectral.embed(key, x, 3, gamma=GAMMA).vectors)(jnp.asarray(BLOBS.x, jnp.float32))
        assert np.isfinite(traced).all()
        assert np.isfinite(spectral.ncut(BLOBS.y, WEIGHTS))


@pytest.mark.filterwarnings("ignore:The graph is not fully connected")
@pytest.mark.parametrize("unit", [1e160, 1e-160, 1e200, 1e-200, 1e300, 1e-300])
def test_nearest_neighbors_have_no_unit(unit):
    far = hard_data.with_far_sample(BLOBS, 1e3).x
    plain = SpectralClustering(3, affinity="nearest_neighbors", random_state=0).fit(far)
    assert hard_data.same_partition(plain.labels_[1:], BLOBS.y)
    scaled = SpectralClustering(3, affinity="nearest_neighbors", random_state=0).fit(far * unit)
    np.testing.assert_array_equal(scaled.labels_, plain.labels_)
    assert (scaled.affinity_matrix_ != plain.affinity_matrix_).nnz == 0
    cosine = [SpectralClustering(3, affinity="cosine", random_state=0).fit(abs(BLOBS.x) * u) for u in (1, unit)]
    np.testing.assert_allclose(cosine[1].affinity_matrix_, cosine[0].affinity_matrix_, atol=1e-12)


@pytest.mark.parametrize("make", [SpectralClustering, SpectralEmbedding])
def test_weights_that_say_nothing_are_told(make):
    with pytest.warns(UserWarning, match="No two rows have a weight between them.*Lower gamma"):
        assert make(2, affinity="rbf", gamma=1.0).fit(BLOBS.x * 1e160).n_connected_components_ == 0
    with pytest.warns(UserWarning, match="All rows have the same weight between them.*Raise gamma"):
        make(2, affinity="rbf", gamma=1.0).fit(BLOBS.x * 1e-200)
    with pytest.raises(ValueError, match="gamma=inf must be finite"):
        make(2, affinity="rbf", gamma=np.inf).fit(BLOBS.x)


def test_kernels_beyond_float64_are_refused():
    with pytest.raises(
        ValueError, match="affinity='linear' gives weights beyond float64 for rows of entries up to .*e\\+16"
    ):
        SpectralClustering(3, affinity="linear").fit(BLOBS.x * 1e160)
    for wrong, description in ((None, "None"), ("x", "'x'"), (np.zeros(2), r"shape \(2,\)")):
        with pytest.raises(ValueError, match=f"affinity gave {description} for two rows"):
            SpectralClustering(3, affinity=lambda a, b, wrong=wrong: wrong).fit(BLOBS.x)


def test_published_weights_of_a_narrow_kernel():
    estimator = SpectralClustering(3, gamma=GAMMA * 1e-300, random_state=0).fit(BLOBS.x * 1e150)
    np.testing.assert_allclose(estimator.affinity_matrix_, WEIGHTS, rtol=1e-9)

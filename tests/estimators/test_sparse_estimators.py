"""Estimators give sparse rows what they give the same rows dense, or say that they take none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from algorithms import make
from saved_models import saved_and_loaded
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances
from sparse_problems import FORMATS, topics

from jaxcluster import kmeans, sparse_rows
from jaxcluster.core import memory, sparse_input
from jaxcluster.estimators import ESTIMATORS, KMeans, MiniBatchKMeans
from jaxcluster.types import Status

X = topics(120, 80)
X[5] = 0.1  # a row that is long enough for a tail
MATRIX = scipy.sparse.csr_array(X)
WEIGHTS = np.random.default_rng(1).uniform(0.5, 2, len(X))

SPARSE = [name for name in ESTIMATORS if ESTIMATORS.info(name).takes_sparse]

OPTIONS = {
    "gmm": {"covariance_type": "diag", "reg_covar": 1e-2, "init_params": "random_from_data"},
    "spectral": {"affinity": "nearest_neighbors"},
    "spectral-embedding": {"affinity": "nearest_neighbors"},
    "dbscan": {"eps": 2.0, "min_samples": 5},
    "optics": {"eps": 2.0, "min_samples": 5, "cluster_method": "dbscan"},
    "hdbscan": {"min_cluster_size": 8, "store_centers": "both"},
}
"""Options with which estimators find the topics."""

CASES = [
    *((name, {}) for name in SPARSE),
    ("kmeans", {"metric": "cosine", "init": X[[0, 1, 2, 4]]}),
    ("kmedoids", {"metric": "cosine", "method": "clara"}),
    ("dbscan", {"metric": "cosine", "eps": 0.25}),
    ("hdbscan", {"metric": "cosine", "store_centers": None}),
]
"""Estimators, and options besides `OPTIONS`."""

FITTED = ("labels_", "embedding_", "cluster_centers_", "means_", "centroids_", "medoids_", "probabilities_")


@pytest.mark.parametrize(("name", "options"), CASES)
def test_sparse_rows_get_what_dense_rows_get(name, options, tmp_path, monkeypatch):
    if name == "gmm" or options.get("metric") == "cosine":  # of so few rows, others have no tail
        monkeypatch.setattr(sparse_input, "SMALL_ENTRIES", 0)
    sparse, dense = (make(name, **{**OPTIONS.get(name, {}), **options}) for _ in range(2))
    weights = {"sample_weight": WEIGHTS} if name in ("gmm", "kmedoids", "dbscan") else {}
    sparse.fit(MATRIX, **weights)
    dense.fit(X, **weights)
    assert len(np.unique(getattr(sparse, "labels_", range(4)))) >= 4
    for attribute in FITTED:
        if hasattr(dense, attribute):
            ours, theirs = getattr(sparse, attribute), getattr(dense, attribute)
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=attribute)
    if hasattr(sparse, "predict"):
        labels = sparse.predict(MATRIX)
        for fit, rows in ((sparse, X), (dense, MATRIX)):
            np.testing.assert_array_equal(fit.predict(rows), labels)
        assert np.mean(labels == dense.labels_) > 0.95  # a new row of HDBSCAN's may leave the cluster of its twin
    assert sparse.status_ == dense.status_
    assert sparse.__sklearn_tags__().input_tags.sparse
    _check_formulas(sparse, name, weights.get("sample_weight", np.ones(len(X))))
    saved_and_loaded(sparse, MATRIX, tmp_path / "model")


def _check_formulas(fit, name, weights):
    """Results for each sparse row are those of the formula in float64, by the fitted attributes."""
    if name == "gmm":
        squares = ((X[:, None] - fit.means_) ** 2 / fit.covariances_).sum(axis=2)
        logs = np.log(fit.weights_) - (squares + np.log(2 * np.pi * fit.covariances_).sum(axis=1)) / 2
        density = np.logaddexp.reduce(logs, axis=1)
        np.testing.assert_allclose(fit.score_samples(MATRIX), density, rtol=1e-4)
        np.testing.assert_allclose(fit.predict_proba(MATRIX), np.exp(logs - density[:, None]), atol=1e-4)
        assert fit.score(MATRIX, sample_weight=weights) == pytest.approx(np.average(density, weights=weights), rel=1e-5)
    elif hasattr(fit, "transform"):
        metric = "cosine" if getattr(fit, "metric", None) == "cosine" else "euclidean"
        distances = pairwise_distances(X, fit.cluster_centers_, metric)
        np.testing.assert_allclose(fit.transform(MATRIX), distances, rtol=1e-3, atol=1e-3)
        nearest = distances.min(axis=1) ** (1 if name == "kmedoids" or metric == "cosine" else 2)
        assert -fit.score(MATRIX, sample_weight=weights) == pytest.approx(weights @ nearest, rel=1e-3)


REFUSED = {
    "gmm": ({"covariance_type": "full"}, "full covariances take dense rows: 4 matrices of 80 columns take 0.2 MB"),
    "spectral": ({"affinity": "rbf"}, "affinity='rbf' takes dense rows.*pass affinity='nearest_neighbors'"),
    "spectral-embedding": ({"affinity": "rbf"}, "affinity='rbf' takes dense rows"),
    **dict.fromkeys(
        ("kmedoids", "dbscan", "optics", "hdbscan"), ({"metric": "manhattan"}, "metric='manhattan' takes dense rows")
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_for_dense_rows_are_named(name):
    options, message = REFUSED[name]
    with pytest.raises(TypeError, match=message):
        make(name, **{**OPTIONS.get(name, {}), **options}).fit(MATRIX)


def test_missing_values_have_no_place_in_sparse_rows():
    with pytest.raises(TypeError, match="missing=True takes dense rows: in a sparse matrix an absent entry is 0"):
        make("gmm", missing=True, covariance_type="diag").fit(MATRIX)
    marked = MATRIX.copy()
    marked.data[[0, -1]] = np.nan, np.inf
    labels = make("hdbscan", **OPTIONS["hdbscan"]).fit(marked).labels_
    assert (labels[0], labels[-1]) == (-3, -2)


@pytest.mark.parametrize("name", ["csc_array", "twins", "int64 indices", "BCOO", "SparseRows"])
def test_every_format_has_the_same_fit(name, fitted):
    given = FORMATS[name](X)
    fit = KMeans(4, random_state=0).fit(given)
    np.testing.assert_array_equal(fit.labels_, fitted.labels_)
    assert fit.cluster_centers_.dtype == np.float32
    np.testing.assert_array_equal(fit.predict(given), fitted.labels_)


@pytest.fixture(scope="module")
def fitted():
    return KMeans(4, random_state=0).fit(MATRIX)


@pytest.mark.parametrize("dtype", [bool, np.float16])
def test_number_types_are_those_of_dense_rows(dtype):
    rows = np.ceil(X).astype(dtype)
    matrix = scipy.sparse.csr_array(np.ceil(X))
    matrix.data = matrix.data.astype(dtype)
    sparse, expected = KMeans(4, random_state=0).fit(matrix), KMeans(4, random_state=0).fit(rows)
    np.testing.assert_array_equal(sparse.labels_, expected.labels_)
    assert sparse.cluster_centers_.dtype == expected.cluster_centers_.dtype
    np.testing.assert_allclose(sparse.inertia_, expected.inertia_, rtol=1e-5)


@pytest.mark.parametrize("unit", [2.0**531, 2.0**-664])
def test_labels_do_not_depend_on_the_unit(unit):
    matrix = scipy.sparse.csr_array(X.astype(np.float64))
    starts = X[[0, 1, 2, 4]].astype(np.float64)
    plain, scaled = (KMeans(4, init=starts * by, n_init=1).fit_predict(matrix * by) for by in (1, unit))
    np.testing.assert_array_equal(plain, scaled)


def test_partial_fit_on_the_same_batches():
    sparse, dense = MiniBatchKMeans(4, random_state=0), MiniBatchKMeans(4, random_state=0)
    for start in range(0, 120, 40):
        sparse.partial_fit(MATRIX[start : start + 40])
        dense.partial_fit(X[start : start + 40])
    np.testing.assert_allclose(sparse.cluster_centers_, dense.cluster_centers_, atol=1e-5)
    np.testing.assert_array_equal(sparse.labels_, dense.labels_)


def test_sorted_rows_have_the_same_labels_in_any_order():
    order = np.random.default_rng(2).permutation(len(X))
    one, two = (KMeans(4, order="canonical", random_state=0).fit(x) for x in (MATRIX, MATRIX[order]))
    np.testing.assert_array_equal(one.labels_[order], two.labels_)


def test_rows_that_are_far_for_float32_have_a_status():
    """Beside 1e9 float32 has no differences of 1; dense rows are centered before they are rounded, sparse ones not."""
    x = X.astype(np.float64)
    x[:, 0] = 1e9 + np.arange(120) % 2
    with pytest.warns(ConvergenceWarning):
        fit = KMeans(4, random_state=0).fit(scipy.sparse.csr_array(x))
    assert fit.status_ in (Status.PRECISION, Status.EMPTY_CLUSTERS)


def test_differences_beside_an_offset():
    x = np.zeros((40, 6), np.float32)
    x[:, 0], x[::2, 1], x[1::2, 2] = 1e4, 1, 1

    def init(rows, k, random_state):
        assert scipy.sparse.issparse(rows)
        return rows[:k].toarray()

    fit = KMeans(2, init=init, n_init=1).fit(scipy.sparse.csr_array(x))
    assert fit.status_ == Status.CONVERGED
    assert fit.inertia_ == pytest.approx(0, abs=1e-6)
    np.testing.assert_array_equal(fit.labels_, fit.labels_[np.arange(40) % 2])
    with pytest.warns(ConvergenceWarning, match="X has 1 distinct row of positive weight"):
        KMeans(2, init=x[:2], n_init=1).fit(scipy.sparse.csr_array(np.repeat(x[:1], 40, axis=0)))


def test_functions_of_traced_sparse_rows(fitted):
    rows, keys = sparse_rows(X), jax.random.split(jax.random.key(0), 2)
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), rows)
    start = {"init": fitted.cluster_centers_}
    fits = jax.jit(jax.vmap(lambda key, rows: kmeans.fit(key, rows, 4, **start)))(keys, both)
    for labels, inertia in zip(fits.labels, fits.state.inertia, strict=True):
        np.testing.assert_array_equal(labels, fitted.labels_)
        np.testing.assert_allclose(inertia, fitted.inertia_, rtol=1e-5)
    with pytest.raises(TypeError, match="A gradient through a fit of sparse rows"):
        jax.jit(jax.grad(lambda w: kmeans.fit(keys[0], rows, 4, weights=w, **start).state.inertia))(np.ones(120))


DENSE = [name for name, estimator in ESTIMATORS.items() if name not in SPARSE and not estimator.info.takes_categories]


@pytest.mark.parametrize("name", DENSE)
def test_others_say_that_they_take_dense_rows(name):
    matrix = scipy.sparse.csr_array((10**6, 10**6))
    with pytest.raises(TypeError, match=r"Sparse data was passed for X, .*X\.toarray\(\), which takes 8\.0 TB.*KMeans"):
        make(name).fit(matrix)


def test_bad_rows_are_named(monkeypatch, fitted):
    matrix = MATRIX.copy()
    matrix.data[3] = np.nan
    with pytest.raises(ValueError, match=f"X contains 1 NaN values in column {matrix.indices[3]}"):
        KMeans(4).fit(matrix)
    with pytest.raises(ValueError, match="X has 5 features, but KMeans is expecting 80"):
        fitted.predict(MATRIX[:, :5])
    with pytest.raises(TypeError, match="sparse rows are not spread over devices"):
        kmeans.fit(jax.random.key(0), MATRIX, 4, axis_name="rows")
    monkeypatch.setattr(memory, "available", lambda: memory.Available(1 << 30, "the machine"))
    with pytest.raises(MemoryError, match="4 centers of 1,000,000,000 columns take .* GB"):
        KMeans(4).fit(scipy.sparse.csr_array((10, 10**9)))

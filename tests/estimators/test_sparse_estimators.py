"""Estimators give sparse rows what they give the same rows dense, or say that they take none."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from algorithms import make
from saved_models import saved_and_loaded
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sparse_problems import FORMATS, topics

from jaxcluster import kmeans, sparse_rows
from jaxcluster.core import memory
from jaxcluster.estimators import ESTIMATORS, KMeans, MiniBatchKMeans
from jaxcluster.types import Status

X = topics()
WEIGHTS = np.random.default_rng(1).uniform(0.5, 2, len(X))

SPARSE = [name for name in ESTIMATORS if ESTIMATORS.info(name).takes_sparse]

CENTERS = [name for name in SPARSE if ESTIMATORS.info(name).clusters]

CASES = [
    *((name, {}, None) for name in CENTERS),
    ("kmeans", {}, WEIGHTS),
    ("kmeans", {"metric": "cosine"}, None),
    ("kmeans", {"metric": "cosine", "frozen": X[:2]}, WEIGHTS),
]
"""Names of estimators, options and weights."""


@pytest.mark.parametrize(("name", "options", "weights"), CASES)
def test_sparse_rows_get_what_dense_rows_get(name, options, weights, tmp_path):
    sparse, dense = make(name, **options), make(name, **options)
    X = topics()
    X[5] = 0.1 if weights is not None else X[5]  # a long row
    matrix = scipy.sparse.csr_array(X)
    options = {} if weights is None else {"sample_weight": weights}
    sparse.fit(matrix, **options)
    dense.fit(X, **options)
    np.testing.assert_array_equal(sparse.labels_, dense.labels_)
    np.testing.assert_array_equal(sparse.predict(matrix), dense.labels_)
    np.testing.assert_allclose(sparse.cluster_centers_, dense.cluster_centers_, atol=1e-5)
    np.testing.assert_allclose(sparse.inertia_, dense.inertia_, rtol=1e-5)
    np.testing.assert_allclose(sparse.transform(matrix), dense.transform(X), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(sparse.score(matrix, **options), dense.score(X, **options), rtol=1e-5)
    np.testing.assert_array_equal(dense.predict(matrix), dense.labels_)
    np.testing.assert_array_equal(sparse.predict(X), dense.labels_)
    assert (sparse.status_, sparse.n_iter_) == (dense.status_, dense.n_iter_)
    assert sparse.__sklearn_tags__().input_tags.sparse
    if weights is None:
        saved_and_loaded(sparse, matrix, tmp_path / "model")


@pytest.mark.parametrize("name", [name for name in SPARSE if name not in CENTERS])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_density_of_sparse_rows_is_that_of_dense_ones(name, metric, tmp_path):
    eps = 2.0 if metric == "euclidean" else 0.25
    options = {"metric": metric, "min_samples": 5, "eps": eps}
    options |= {"cluster_method": "dbscan"} if name == "optics" else {}
    matrix, sparse, dense = scipy.sparse.csr_array(X), ESTIMATORS[name](**options), ESTIMATORS[name](**options)
    np.testing.assert_array_equal(sparse.fit(matrix).labels_, dense.fit(X).labels_)
    assert len(set(dense.labels_)) > 2
    saved_and_loaded(sparse, X, tmp_path / "model")
    if name == "dbscan":
        assert scipy.sparse.issparse(sparse.components_)
        for rows in (matrix, X):
            np.testing.assert_array_equal(sparse.predict(rows), dense.labels_)
        np.testing.assert_array_equal(dense.predict(matrix), dense.labels_)
    with pytest.raises(TypeError, match="metric='manhattan' takes dense rows"):
        ESTIMATORS[name](metric="manhattan").fit(matrix)


@pytest.mark.parametrize("name", ["csc_array", "twins", "int64 indices", "BCOO", "SparseRows"])
def test_every_format_has_the_same_fit(name):
    given = FORMATS[name](X)
    fit = KMeans(4, random_state=0).fit(given)
    dense = KMeans(4, random_state=0).fit(X)
    np.testing.assert_array_equal(fit.labels_, dense.labels_)
    assert fit.cluster_centers_.dtype == np.float32
    np.testing.assert_array_equal(fit.predict(given), dense.labels_)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16])
def test_number_types_are_those_of_dense_rows(dtype):
    rows = np.ceil(X).astype(dtype)
    matrix = scipy.sparse.csr_array(np.ceil(X))
    matrix.data = matrix.data.astype(dtype)
    sparse, expected = KMeans(4, random_state=0).fit(matrix), KMeans(4, random_state=0).fit(rows)
    np.testing.assert_array_equal(sparse.labels_, expected.labels_)
    assert sparse.cluster_centers_.dtype == expected.cluster_centers_.dtype
    np.testing.assert_allclose(sparse.inertia_, expected.inertia_, rtol=1e-5)


@pytest.mark.parametrize("unit", [2.0**531, 2.0**-664])
@pytest.mark.parametrize("metric", kmeans.METRICS)
def test_labels_do_not_depend_on_the_unit(unit, metric):
    matrix = scipy.sparse.csr_array(X.astype(np.float64))
    plain = KMeans(4, metric=metric, random_state=0).fit(matrix)
    np.testing.assert_array_equal(KMeans(4, metric=metric, random_state=0).fit_predict(matrix * unit), plain.labels_)


def test_partial_fit_on_the_same_batches():
    sparse, dense = MiniBatchKMeans(4, random_state=0), MiniBatchKMeans(4, random_state=0)
    for start in range(0, 200, 50):
        sparse.partial_fit(scipy.sparse.csr_array(X[start : start + 50]))
        dense.partial_fit(X[start : start + 50])
    np.testing.assert_allclose(sparse.cluster_centers_, dense.cluster_centers_, atol=1e-5)
    np.testing.assert_array_equal(sparse.labels_, dense.labels_)


def test_callable_starts_get_sparse_rows():
    def init(rows, k, random_state):
        assert scipy.sparse.issparse(rows)
        return rows[:k].toarray()

    assert KMeans(4, init=init, n_init=1).fit(scipy.sparse.csr_array(X)).inertia_ > 0


def test_sorted_rows_have_the_same_labels_in_any_order():
    order = np.random.default_rng(2).permutation(len(X))
    one, two = (KMeans(4, order="canonical", random_state=0).fit(scipy.sparse.csr_array(x)) for x in (X, X[order]))
    np.testing.assert_array_equal(one.labels_[order], two.labels_)


def test_rows_that_are_far_for_float32_have_a_status():
    """Beside 1e9 float32 has no differences of 1; dense rows are centered before they are rounded, sparse ones not."""
    x = X[:, :120].astype(np.float64)
    x[:, 0] = 1e9 + np.arange(200) % 2
    with pytest.warns(ConvergenceWarning):
        fit = KMeans(4, random_state=0).fit(scipy.sparse.csr_array(x))
    assert fit.status_ in (Status.PRECISION, Status.EMPTY_CLUSTERS)


def test_differences_beside_an_offset():
    x = np.zeros((40, 6), np.float32)
    x[:, 0], x[::2, 1], x[1::2, 2] = 1e4, 1, 1
    fit = KMeans(2, init=x[:2], n_init=1).fit(scipy.sparse.csr_array(x))
    assert fit.status_ == Status.CONVERGED
    assert fit.inertia_ == pytest.approx(0, abs=1e-6)
    np.testing.assert_array_equal(fit.labels_, fit.labels_[np.arange(40) % 2])


def test_fewer_distinct_rows_than_clusters_are_counted():
    x = scipy.sparse.csr_array(np.repeat(np.eye(3, 5), 10, axis=0))
    with pytest.warns(ConvergenceWarning, match="X has 3 distinct rows of positive weight"):
        KMeans(4, random_state=0).fit(x)


def test_functions_of_traced_sparse_rows():
    rows, keys = sparse_rows(X), jax.random.split(jax.random.key(0), 2)
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), rows)
    fits = jax.jit(jax.vmap(lambda key, rows: kmeans.fit(key, rows, 4)))(keys, both)
    for i, key in enumerate(keys):
        one = kmeans.fit(key, X, 4)
        np.testing.assert_array_equal(fits.labels[i], one.labels)
        np.testing.assert_allclose(fits.state.inertia[i], one.state.inertia, rtol=1e-5)
    with pytest.raises(TypeError, match="A gradient through a fit of sparse rows"):
        jax.grad(lambda weights: kmeans.fit(keys[0], rows, 4, weights=weights).state.inertia)(np.ones(200, np.float32))


DENSE = [name for name, estimator in ESTIMATORS.items() if name not in SPARSE and not estimator.info.takes_categories]


@pytest.mark.parametrize("name", DENSE)
def test_others_say_that_they_take_dense_rows(name):
    matrix = scipy.sparse.csr_array((10**6, 10**6))
    options = {"affinity": "rbf"} if "affinity" in ESTIMATORS[name]().get_params() else {}
    with pytest.raises(TypeError, match=r"Sparse data was passed for X, .*X\.toarray\(\), which takes 8\.0 TB.*KMeans"):
        make(name, **options).fit(matrix)


def test_bad_rows_are_named(monkeypatch):
    matrix = scipy.sparse.csr_array(X)
    matrix.data[3] = np.nan
    with pytest.raises(ValueError, match=f"X contains 1 NaN values in column {matrix.indices[3]}"):
        KMeans(4).fit(matrix)
    fit = KMeans(4, random_state=0).fit(scipy.sparse.csr_array(X))
    with pytest.raises(ValueError, match="X has 5 features, but KMeans is expecting 120"):
        fit.predict(scipy.sparse.csr_array(X[:, :5]))
    with pytest.raises(TypeError, match="sparse rows are not spread over devices"):
        kmeans.fit(jax.random.key(0), scipy.sparse.csr_array(X), 4, axis_name="rows")
    monkeypatch.setattr(memory, "available", lambda: memory.Available(1 << 30, "the machine"))
    with pytest.raises(MemoryError, match="4 centers of 1,000,000,000 columns take .* GB"):
        KMeans(4).fit(scipy.sparse.csr_array((10, 10**9)))


def test_a_pipeline_of_texts():
    words = [["cat", "dog", "horse"], ["star", "moon", "sun"], ["salt", "oil", "flour"]]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words[i % 3], 6)) for i in range(60)]
    model = make_pipeline(TfidfVectorizer(), KMeans(3, metric="cosine", random_state=0, n_init=5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = model.fit_predict(texts)
    np.testing.assert_array_equal(labels, labels[np.arange(60) % 3])
    assert set(labels) == {0, 1, 2}
    assert model.predict(["the moon and a star"]) == labels[1]

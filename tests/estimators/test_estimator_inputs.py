"""Input of all estimators: seeds, matrices and tables that are accepted, and the reasons why others are refused."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn.cluster
from algorithms import WEIGHTED, make
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jaxcluster.cluster import kmeans
from jaxcluster.estimators import ESTIMATORS, KMeans

SEEDS = {
    "int": lambda: 11,
    "numpy int": lambda: np.int64(11),
    "key": lambda: jax.random.key(11),
    "raw key": lambda: jax.random.PRNGKey(11),
    "raw key in numpy": lambda: np.asarray(jax.random.PRNGKey(11)),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_an_int_and_its_key_are_the_same_seed(blobs, seed):
    expected = KMeans(4, random_state=11).fit(blobs.x)
    estimator = clone(KMeans(4, random_state=SEEDS[seed]())).fit(blobs.x)
    np.testing.assert_array_equal(estimator.cluster_centers_, expected.cluster_centers_)


def test_a_random_state_advances_and_none_is_fresh():
    x = np.random.default_rng(3).normal(size=(300, 5)).astype(np.float32)
    state = np.random.RandomState(0)
    first, second = (KMeans(4, random_state=state).fit(x).cluster_centers_ for _ in range(2))
    again = KMeans(4, random_state=np.random.RandomState(0)).fit(x).cluster_centers_
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
    fresh = [KMeans(4).fit(x).cluster_centers_ for _ in range(2)]
    assert not np.array_equal(*fresh)


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        (-1, "random_state=-1 must lie between 0 and 4294967295"),
        (2**32, "must lie between"),
        ("1", "must be None, an int, a numpy RandomState or a JAX key, got '1'"),
        (True, "got True of type bool"),
        (np.zeros(2), "must be a JAX key, got dtype float64"),
        (jax.random.split(jax.random.key(0)), r"one JAX key, got keys of shape \(2,\)"),
    ],
)
def test_a_bad_seed_is_refused(blobs, seed, message):
    with pytest.raises((ValueError, TypeError), match=message):
        KMeans(4, random_state=seed).fit(blobs.x)


@pytest.mark.parametrize(
    "convert",
    [np.float64, np.float32, np.float16, jnp.asarray, np.ndarray.tolist, np.asfortranarray],
    ids=lambda convert: convert.__name__,
)
def test_any_matrix_has_the_same_clusters_in_its_dtype(blobs, convert):
    x = np.round(blobs.x)
    estimator = KMeans(4, random_state=0).fit(convert(x))
    np.testing.assert_array_equal(estimator.labels_, KMeans(4, random_state=0).fit(x).labels_)
    published = np.float64 if convert in (np.float64, np.ndarray.tolist) else np.float32
    assert estimator.cluster_centers_.dtype == estimator.transform(convert(x)).dtype == published


def test_float64_is_kept_where_x64_is_on(blobs):
    x = blobs.x.astype(np.float64)
    with jax.enable_x64(True):
        estimator = KMeans(4, init=x[:4], n_init=1).fit(x)
        assert estimator.transform(x).dtype == np.float64
    theirs = sklearn.cluster.KMeans(4, init=x[:4], n_init=1).fit(x)
    assert estimator.cluster_centers_.dtype == np.float64
    np.testing.assert_allclose(estimator.inertia_, theirs.inertia_, rtol=1e-12)
    np.testing.assert_allclose(estimator.cluster_centers_, theirs.cluster_centers_, rtol=1e-12, atol=1e-12)


def test_a_pipeline_and_a_grid_search_take_them(blobs):
    scaled = StandardScaler().fit_transform(blobs.x)
    pipeline = make_pipeline(StandardScaler(), KMeans(4, random_state=0)).fit(blobs.x)
    np.testing.assert_array_equal(pipeline.predict(blobs.x), KMeans(4, random_state=0).fit(scaled).labels_)
    assert "KMeans" in repr(pipeline)
    splits = ShuffleSplit(2, test_size=10, random_state=0)  # the rest of the rows share the program of them all
    search = GridSearchCV(KMeans(4, random_state=0), {"max_iter": [1, 50]}, cv=splits).fit(blobs.x)
    assert np.all(np.diff(search.cv_results_["mean_test_score"]) >= 0)
    assert list(search.best_estimator_.get_feature_names_out()) == ["kmeans0", "kmeans1", "kmeans2", "kmeans3"]


def test_clone_keeps_parameters_and_forgets_the_fit(blobs):
    fitted = KMeans(4, init=blobs.centers, n_init=1, random_state=jax.random.key(3)).fit(blobs.x)
    copy = clone(fitted)
    np.testing.assert_array_equal(copy.init, blobs.centers)
    assert jax.random.key_data(copy.random_state).tolist() == [0, 3]
    with pytest.raises(NotFittedError):
        copy.predict(blobs.x)


def test_a_data_frame_names_the_columns(blobs):
    frame = pd.DataFrame(blobs.x, columns=list("abcde"))
    estimator = KMeans(4, random_state=0).set_output(transform="pandas").fit(frame)
    assert estimator.feature_names_in_.tolist() == list("abcde")
    assert list(estimator.transform(frame).columns) == ["kmeans0", "kmeans1", "kmeans2", "kmeans3"]
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(frame[list("bacde")])
    text = frame.assign(a="red")
    with pytest.raises(ValueError, match="X has text in column 'a', such as 'red'"):
        estimator.fit(text)


def with_value(value, *cells):
    x = np.ones((6, 3))
    for cell in cells:
        x[cell] = value
    return x


BAD_ROWS = {
    "nan": (with_value(np.nan, (0, 1), (4, 1)), "X contains 2 NaN values in column 1"),
    "infinity": (with_value(-np.inf, (0, 0), (4, 2)), "X contains 2 infinity values in columns 0, 2"),
    "complex": (np.ones((6, 3), complex), "Complex data not supported"),
    "strings": ([[1, "2"], [3, "d"]], "X has text in column 1, such as 'd'"),
    "ragged": ([[1, 2], [3]], "X is no table: its rows have different lengths"),
    "masked": (np.ma.masked_equal(np.eye(3), 1), "masked array with 3 masked entries.*filled"),
    "dates": (np.eye(3).astype("datetime64[s]"), "X holds dates or durations"),
    "dates in a frame": (pd.DataFrame({"a": [1, 2], "t": pd.to_datetime(["2020", "2021"])}), "dates.*in column 't'"),
    "long integers": ([[10**400, 1], [2, 3]], "X has integers beyond float64 in column 0"),
    "1-D": (np.ones(6), r"Reshape your data either using array.reshape\(-1, 1\)"),
    "no rows": (np.ones((0, 3)), r"0 sample\(s\)"),
    "no columns": (np.ones((6, 0)), r"0 feature\(s\)"),
    "sparse": (scipy.sparse.csr_array(np.ones((6, 3))), r"Sparse data was passed.*toarray\(\)"),
}


def refuses(name, bad):
    """True unless an estimator has a meaning, or words of its own, for such rows."""
    info = ESTIMATORS.info(name)
    if bad == "sparse" and info.takes_sparse:
        return False
    return not info.takes_categories or bad in ("complex", "no rows", "no columns")


@pytest.mark.parametrize(
    ("name", "bad"),
    # As scikit-learn's, HDBSCAN gives rows with NaN and infinite ones labels of their own.
    [
        pair
        for pair in itertools.product(ESTIMATORS, BAD_ROWS)
        if pair not in {("hdbscan", "nan"), ("hdbscan", "infinity")} and refuses(*pair)
    ],
)
def test_bad_rows_are_refused_with_a_reason(name, bad):
    x, message = BAD_ROWS[bad]
    with pytest.raises((ValueError, TypeError), match=message):
        make(name, 2).fit(x)


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if ESTIMATORS.info(name).clusters])
def test_fewer_rows_than_clusters_are_refused(name):
    with pytest.raises(ValueError, match="n_samples=2 should be >= n_[a-z]*=3"):
        make(name, 3).fit(np.eye(2))


BAD_WEIGHTS = {
    "negative": (np.array([1, -2, 1, 1, -1, 1]), "must not be negative: 2 are, the least -2"),
    "all zero": (np.zeros(6), "sample_weight: all are zero"),
    "wrong length": (np.ones(5), r"shape \(6,\).*got \(5,\)"),
    "nan": (with_value(np.nan, 1)[:, 0], "sample_weight contains 1 NaN"),
    "text": (np.array(list("abcdef")), "sample_weight must be real numbers"),
    "masked": (np.ma.masked_equal([1, 2, 3, 1, 1, 1], 3), "sample_weight has 1 masked entries"),
    "missing": ([1, None, 1, 1, 1, 1], "sample_weight must be real numbers, got None"),
}


@pytest.mark.parametrize(
    ("name", "bad"),
    # As in scikit-learn's DBSCAN, negative weights inhibit core samples.
    [pair for pair in itertools.product(WEIGHTED, BAD_WEIGHTS) if pair != ("dbscan", "negative")],
)
def test_bad_weights_are_refused_with_a_reason(name, bad):
    weights, message = BAD_WEIGHTS[bad]
    with pytest.raises((ValueError, TypeError), match=message):
        make(name, 2).fit(np.eye(6), sample_weight=weights)


BAD_OPTIONS = [
    ("kmeans", {"n_clusters": 0}, "n_clusters=0 must be at least 1"),
    ("kmeans", {"n_clusters": 2.0}, "n_clusters must be an integer, got 2.0"),
    ("kmeans", {"init": "kmeans++"}, r"init='kmeans\+\+' is not known.*'k-means\+\+', 'random', 'k-means\|\|'"),
    ("kmeans", {"init": np.ones((3, 3))}, r"initial centers \(3, 3\) does not match the number of clusters 2"),
    (
        "kmeans",
        {"init": lambda x, k, random_state: x[:1], "n_init": 1},
        r"initial centers \(1, 6\) does not match the number of clusters 2",
    ),
    ("kmeans", {"n_init": "many"}, "n_init='many' must be 'auto' or a number of runs"),
    ("kmeans", {"n_init": 0}, "n_init=0 must be at least 1"),
    ("kmeans", {"max_iter": 0}, "max_iter=0 must be at least 1"),
    ("kmeans", {"tol": -1.0}, "tol=-1.0 must be at least 0"),
    ("kmeans", {"algorithm": "full"}, "algorithm='full' is not known; choose one of 'lloyd', 'elkan'"),
    ("kmeans", {"metric": "euclidean"}, "Did you mean 'sqeuclidean'"),
    ("kmeans", {"precision": "half"}, "half"),
    ("minibatch-kmeans", {"batch_size": 0}, "batch_size=0 must be at least 1"),
    ("minibatch-kmeans", {"init_size": 0}, "init_size=0 must be at least 1"),
    ("minibatch-kmeans", {"max_no_improvement": -1}, "max_no_improvement=-1 must be at least 0"),
    ("minibatch-kmeans", {"reassignment_ratio": -0.1}, "reassignment_ratio=-0.1 must be at least 0"),
    ("bisecting-kmeans", {"bisecting_strategy": "widest"}, "bisecting_strategy='widest' is not known"),
    ("bisecting-kmeans", {"algorithm": "full"}, "algorithm='full' is not known"),
    ("bisecting-kmeans", {"init": np.ones((2, 6))}, "must be a name or a callable for BisectingKMeans"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD_OPTIONS)
def test_bad_options_are_refused_with_a_reason(name, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ESTIMATORS[name](**{"n_clusters": 2, **options}).fit(np.eye(6))


def test_a_fit_that_failed_is_no_fit(blobs):
    estimator = KMeans(4, algorithm="none")
    with pytest.raises(ValueError, match="algorithm"):
        estimator.fit(blobs.x)
    with pytest.raises(NotFittedError):
        estimator.predict(blobs.x)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (None, "X is None, not a table. Pass rows by columns"),
        ("rows.csv", "X is of type str, not a table"),
        ({"a": [1.0, 2.0]}, "X is of type dict, not a table"),
        ((row for row in [[1.0], [2.0]]), "X is of type generator, not a table"),
    ],
)
def test_input_that_is_no_table(X, message):
    with pytest.raises(ValueError, match=message):
        KMeans(2).fit(X)


def test_columns_of_a_data_frame():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match="X has no columns"):
        KMeans(2).fit(pandas.DataFrame())
    with pytest.raises(ValueError, match="X has more than one column of the name 'a'. Rename them."):
        KMeans(2).fit(pandas.DataFrame(np.eye(3), columns=["a", "b", "a"]))


def test_reordered_columns_are_named_in_one_sentence():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(np.eye(3), columns=["a", "b", "c"])
    model = KMeans(2, random_state=0).fit(table)
    for wrong, message in (
        (table[["b", "a", "c"]], "the columns come as 'b', 'a', 'c', not as 'a', 'b', 'c'. Pass X"),
        (table[["a"]], "'b', 'c' missing. Pass the columns of the fit"),
        (table.rename(columns={"b": "d"}), "'b' missing and 'd' new. Pass the columns of the fit"),
        (table.assign(d=1.0), r"'d' new. Pass X\[list\(model.feature_names_in_\)\]"),
    ):
        with pytest.raises(ValueError, match=f"^The feature names should match .* during fit: {message}") as error:
            model.predict(wrong)
        assert "\n" not in str(error.value)
    np.testing.assert_array_equal(model.predict(table), model.labels_)


def test_numbers_as_text():
    text = np.array([["1", "2"], ["3", "4"]])
    with pytest.raises(ValueError, match=r"^X holds numbers as text, such as '1': pass X.astype\(float\)\.$"):
        KMeans(2).fit(text)
    with pytest.raises(ValueError, match=r"^X holds numbers as text, such as '1': pass np.array\(X\).astype\(float\)"):
        KMeans(2).fit(text.tolist())
    with pytest.raises(TypeError, match=r"x has dtype <U1, which is text, not numeric. Pass x.astype\(float\)"):
        kmeans.fit(jax.random.key(0), text, 2)

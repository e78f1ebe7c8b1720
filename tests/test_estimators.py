"""The estimators behave as scikit-learn's, and compute nothing that the functions under them do not."""

from __future__ import annotations

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn.cluster
from algorithms import WEIGHTED, make
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from jaxcluster.cluster import balanced, bisecting, constrained, kmeans, minibatch
from jaxcluster.estimators import ESTIMATORS, BisectingKMeans, KMeans, MiniBatchKMeans
from jaxcluster.estimators.base import CenterEstimator
from jaxcluster.types import Status

CENTERS = [name for name in ESTIMATORS if issubclass(ESTIMATORS[name], CenterEstimator)]
"""Estimators that label rows by the nearest center."""

SETS = {"iris": (load_iris, 3), "wine": (load_wine, 3), "digits": (load_digits, 10)}

# What scikit-learn's own three estimators are excused from: a weighted row is drawn by other random numbers than its
# copies. The contract tests of the functions hold both to the same start instead.
EXCUSED = {f"check_sample_weight_equivalence_on_{kind}_data" for kind in ("dense", "sparse")}

# The cheapest starts: what there is to compile is most of the cost of a check.
CHECKED = [
    KMeans(n_clusters=3, init="random", n_init=1),
    MiniBatchKMeans(n_clusters=3, init="random", n_init=1, batch_size=8),
    BisectingKMeans(n_clusters=3),
]


@parametrize_with_checks(CHECKED)
def test_scikit_learn_contract(estimator, check):
    if getattr(check, "func", check).__name__ in EXCUSED:
        pytest.xfail("random streams differ between weights and copies")
    check(estimator)


@pytest.fixture(scope="module", params=SETS)
def case(request):
    """A real set, weights for its rows, and starting centers that both libraries are given."""
    load, k = SETS[request.param]
    x = load().data
    rng = np.random.default_rng(5)
    return x, rng.integers(1, 5, len(x)).astype(float), x[rng.choice(len(x), k, replace=False)], k


@pytest.mark.parametrize("weighted", [False, True])
def test_kmeans_from_the_same_start_equals_scikit_learn(case, weighted):
    x, weights, init, k = case
    weights = weights if weighted else None
    ours = KMeans(k, init=init, n_init=1).fit(x, sample_weight=weights)
    theirs = sklearn.cluster.KMeans(k, init=init, n_init=1).fit(x, sample_weight=weights)
    assert np.mean(ours.labels_ == theirs.labels_) >= 0.999
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(ours.inertia_, theirs.inertia_, rtol=1e-4)
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, rtol=1e-3, atol=1e-3)
    assert np.mean(ours.predict(x[::2]) == theirs.predict(x[::2])) >= 0.999
    np.testing.assert_allclose(ours.transform(x[:40]), theirs.transform(x[:40]), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(ours.score(x, sample_weight=weights), theirs.score(x, sample_weight=weights), rtol=1e-4)


@pytest.mark.parametrize("name", ["cluster_centers_", "labels_", "inertia_", "n_iter_", "n_features_in_"])
def test_attributes_have_scikit_learns_types(blobs, name):
    ours = getattr(KMeans(4, random_state=0).fit(blobs.x), name)
    theirs = getattr(sklearn.cluster.KMeans(4, random_state=0).fit(blobs.x), name)
    assert isinstance(ours, type(theirs))
    if isinstance(ours, np.ndarray):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert ours.flags.writeable


def test_partial_fit_on_the_same_batches_equals_scikit_learn(blobs):
    options = {"init": blobs.x[:4], "n_init": 1, "reassignment_ratio": 0.0}
    ours, theirs = MiniBatchKMeans(4, **options), sklearn.cluster.MiniBatchKMeans(4, **options)
    weights = np.random.default_rng(2).uniform(0.5, 2, 300)
    for batch in np.split(np.arange(300), 3):
        ours.partial_fit(blobs.x[batch], sample_weight=weights[batch])
        theirs.partial_fit(blobs.x[batch], sample_weight=weights[batch])
        np.testing.assert_array_equal(ours.labels_, theirs.labels_)
        np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ours.inertia_, theirs.inertia_, rtol=1e-4)
    assert ours.n_steps_ == theirs.n_steps_ == len(ours.history_) == 3


@pytest.mark.parametrize("name", CENTERS)
def test_separate_clusters_are_found_as_scikit_learn_finds_them(blobs, name):
    cls = ESTIMATORS[name]
    ours = cls(4, n_init=3, random_state=0).fit(blobs.x)
    # What scikit-learn has no class for is k-means with bounds that four even blobs keep to by themselves.
    theirs = getattr(sklearn.cluster, cls.__name__, sklearn.cluster.KMeans)(4, n_init=3, random_state=0).fit(blobs.x)
    assert adjusted_rand_score(blobs.y, ours.labels_) == adjusted_rand_score(blobs.y, theirs.labels_) == 1
    # Mini-batch centers are noisy means, so their inertia is a little above the least.
    np.testing.assert_allclose(ours.inertia_, theirs.inertia_, rtol=0.02 if cls is MiniBatchKMeans else 1e-4)


FUNCTIONS = {
    "kmeans": lambda key, x: kmeans.fit(key, x, 4, n_init=3),
    "minibatch-kmeans": lambda key, x: minibatch.fit(key, x, 4, n_init=3, batch_size=300),
    "bisecting-kmeans": lambda key, x: bisecting.fit(key, x, 4, n_init=3),
    "balanced-kmeans": lambda key, x: balanced.fit(key, x, 4, n_init=3),
    "constrained-kmeans": lambda key, x: constrained.fit(key, x, 4, n_init=3),
}


@pytest.mark.parametrize("name", CENTERS)
def test_numbers_are_those_of_the_function(blobs, name):
    estimator = ESTIMATORS[name](4, n_init=3, random_state=7).fit(blobs.x)
    fit = FUNCTIONS[name](jax.random.key(7), blobs.x)
    np.testing.assert_array_equal(estimator.cluster_centers_, fit.state.centers)
    np.testing.assert_array_equal(estimator.labels_, fit.labels)
    np.testing.assert_array_equal(estimator.history_, fit.history[: int(fit.steps)])
    assert estimator.inertia_ == float(fit.state.inertia)
    assert estimator.status_ == int(fit.status)
    np.testing.assert_array_equal(estimator.predict(blobs.x), estimator.labels_)


def test_the_cosine_metric_reaches_every_function(blobs):
    start = blobs.x[:4]
    estimator = KMeans(4, init=start, metric="cosine").fit(blobs.x)
    fit = kmeans.fit(jax.random.key(0), blobs.x, 4, init=start, metric="cosine")
    np.testing.assert_array_equal(estimator.cluster_centers_, fit.state.centers)
    np.testing.assert_array_equal(estimator.predict(blobs.x), fit.labels)
    unit = blobs.x / np.linalg.norm(blobs.x, axis=1, keepdims=True)
    np.testing.assert_allclose(estimator.transform(blobs.x), 1 - unit @ estimator.cluster_centers_.T, atol=1e-5)
    np.testing.assert_allclose(estimator.score(blobs.x), -estimator.inertia_, rtol=1e-5)


def test_frozen_centers_stay(blobs):
    start = blobs.centers + 1
    estimator = KMeans(4, init=start, frozen=[True, False, True, False]).fit(blobs.x)
    np.testing.assert_array_equal(estimator.cluster_centers_[::2], start[::2])
    assert np.abs(estimator.cluster_centers_[1::2] - start[1::2]).min() > 0.1


def test_elkan_gives_the_result_of_lloyd(blobs):
    lloyd, elkan = (KMeans(4, algorithm=name, random_state=0).fit(blobs.x) for name in ("lloyd", "elkan"))
    np.testing.assert_array_equal(lloyd.cluster_centers_, elkan.cluster_centers_)


def test_x_is_never_changed(blobs):
    x = blobs.x.astype(np.float64)
    KMeans(4, copy_x=False, random_state=0).fit(x)
    np.testing.assert_array_equal(x, blobs.x)


@pytest.mark.parametrize("cls", [KMeans, MiniBatchKMeans, BisectingKMeans])
def test_fewer_distinct_rows_than_clusters_are_told(cls):
    with pytest.warns(ConvergenceWarning, match="X has 2 distinct rows of positive weight: pass fewer clusters"):
        model = cls(4, random_state=0).fit(np.repeat(np.eye(2), 10, axis=0))
    assert model.status_ == Status.EMPTY_CLUSTERS


@pytest.mark.parametrize("cls", [KMeans, MiniBatchKMeans])
def test_a_callable_is_called_as_scikit_learn_calls_it(blobs, cls):
    calls = []

    def start(x, n_clusters, random_state):
        calls.append(random_state)
        return x[random_state.choice(len(x), n_clusters, replace=False)]

    estimator = cls(4, init=start, n_init=2, random_state=0).fit(blobs.x)
    assert len(calls) == 2
    assert isinstance(calls[0], np.random.RandomState)
    assert adjusted_rand_score(blobs.y, estimator.labels_) > 0.5
    np.testing.assert_array_equal(clone(estimator).fit(blobs.x).labels_, estimator.labels_)


def test_each_split_starts_from_what_a_callable_returns(blobs):
    X = blobs.x.astype(np.float64)
    clusters = []

    def start(x, n_clusters, random_state):
        clusters.append(x)
        return x[random_state.choice(len(x), n_clusters, replace=False)]

    model = BisectingKMeans(n_clusters=3, init=start, n_init=2, random_state=0).fit(X)
    assert len(clusters) == 4
    np.testing.assert_array_equal(clusters[0], X)
    first, second = (X[model.labels_ == j] for j in (1, 2))
    kept = X[model.labels_ != 1] if model._tree["parents"][1] == 0 else np.concatenate([first, second])
    assert sorted(map(tuple, clusters[2])) == sorted(map(tuple, kept))
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    means = [X[model.labels_ == j].mean(0) for j in range(3)]
    np.testing.assert_allclose(model.cluster_centers_, means, rtol=1e-5, atol=1e-5)
    wrong = BisectingKMeans(n_clusters=3, init=lambda x, k, random_state: x[:3])
    with pytest.raises(ValueError, match="does not match the number of clusters 2"):
        wrong.fit(X)


def test_the_best_start_of_a_callable_wins(blobs):
    given = iter([np.repeat(blobs.x[:1], 4, axis=0) + np.arange(4)[:, None] * 0.01, blobs.centers])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator = KMeans(4, init=lambda x, k, random_state: next(given), n_init=2).fit(blobs.x)
    best = KMeans(4, init=blobs.centers, n_init=1).fit(blobs.x)
    assert estimator.inertia_ == best.inertia_


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
def test_any_matrix_gives_the_same_clusters_in_its_dtype(blobs, convert):
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


def test_history_ends_at_the_inertia(blobs):
    estimator = KMeans(4, random_state=0).fit(blobs.x)
    assert estimator.history_.shape == (estimator.n_iter_,)
    assert np.all(np.diff(estimator.history_) <= 1e-3)
    np.testing.assert_allclose(estimator.history_[-1], estimator.inertia_, rtol=1e-4)


def test_verbose_prints_a_line_a_step(blobs, capsys):
    estimator = KMeans(4, random_state=0, verbose=1).fit(blobs.x)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == estimator.n_iter_ + 2
    assert lines[0] == "Initialization complete"
    assert lines[1].startswith("Iteration 0, inertia ")
    assert lines[-1] == f"Converged at iteration {estimator.n_iter_ - 1}: strict convergence."


@pytest.mark.parametrize("name", CENTERS)
def test_the_repr_says_what_was_fitted(blobs, name):
    estimator = ESTIMATORS[name](4, random_state=0)
    unfitted = repr(estimator)
    assert unfitted == f"{type(estimator).__name__}(n_clusters=4, random_state=0)"
    estimator.fit(blobs.x)
    assert repr(estimator).startswith(f"{unfitted} fitted on 300×5: inertia {estimator.inertia_:.4g}, ")
    assert repr(estimator).endswith(" converged")
    assert "fitted on 300×5" in estimator._repr_html_()


def test_labels_are_left_out_on_request(blobs):
    estimator = MiniBatchKMeans(4, random_state=0, compute_labels=False).fit(blobs.x)
    labeled = MiniBatchKMeans(4, random_state=0).fit(blobs.x)
    assert not hasattr(estimator, "labels_")
    assert estimator.inertia_ == labeled.inertia_
    assert "fitted on 5 columns" in repr(estimator)
    assert not hasattr(MiniBatchKMeans(4, compute_labels=False).partial_fit(blobs.x[:100]), "inertia_")


def test_partial_fit_goes_on_from_a_fit(blobs):
    estimator = MiniBatchKMeans(4, random_state=0).fit(blobs.x)
    steps, seen = estimator.n_steps_, estimator._stream_state["counts"].sum()
    estimator.partial_fit(blobs.x[:100])
    assert estimator.n_steps_ == steps + 1 == len(estimator.history_)
    assert estimator._stream_state["counts"].sum() == seen + 100
    assert estimator.status_ == Status.MAX_STEPS


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


@pytest.mark.parametrize(
    ("name", "bad"),
    # As scikit-learn's, HDBSCAN gives rows with NaN and infinite ones labels of their own.
    [
        pair
        for pair in itertools.product(ESTIMATORS, BAD_ROWS)
        if pair not in {("hdbscan", "nan"), ("hdbscan", "infinity")}
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


@pytest.mark.parametrize("name", ["kmeans", "bisecting-kmeans"])
def test_too_few_distinct_rows_are_warned_of(name):
    x = np.repeat(np.eye(3, 5), 100, axis=0)
    message = r"Number of distinct clusters \(3\) found smaller than n_clusters \(4\).*duplicate.*fewer clusters"
    with pytest.warns(ConvergenceWarning, match=message):
        estimator = ESTIMATORS[name](4, random_state=0).fit(x)
    assert estimator.status_ == Status.EMPTY_CLUSTERS


def test_squares_beyond_float32_are_no_matter(blobs):
    estimator = KMeans(4, random_state=0).fit(blobs.x * np.float32(1e37))
    assert estimator.status_ == Status.CONVERGED
    assert adjusted_rand_score(blobs.y, estimator.labels_) == 1
    np.testing.assert_allclose(estimator.inertia_ * 1e-74, KMeans(4, random_state=0).fit(blobs.x).inertia_, rtol=1e-5)


def test_running_out_of_steps_is_a_status_and_no_warning(blobs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator = KMeans(4, init=blobs.x[:4], n_init=1, max_iter=1).fit(blobs.x)
    assert estimator.status_ == Status.MAX_STEPS
    assert repr(estimator).endswith("1 step, max steps")


def test_given_centers_run_once_whatever_n_init_says(blobs):
    with pytest.warns(RuntimeWarning, match="only one init in KMeans instead of n_init=5"):
        KMeans(4, init=blobs.centers, n_init=5).fit(blobs.x)


def test_a_small_init_size_is_raised_with_a_warning(blobs):
    with pytest.warns(RuntimeWarning, match="init_size=2 should be larger than n_clusters=4"):
        MiniBatchKMeans(4, init=blobs.centers, init_size=2).fit(blobs.x)

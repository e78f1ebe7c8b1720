"""HDBSCAN on samples nobody looked at: labels and probabilities are scikit-learn's in float64, to the element."""

from __future__ import annotations

import hard_data
import ml_dtypes
import numpy as np
import pytest
import scipy.sparse
import sklearn.cluster
from jax_switches import LEAKS, STRICT, switched
from scipy.spatial.distance import cdist
from sklearn.datasets import make_blobs
from sklearn.neighbors import kneighbors_graph

import jaxcluster.ops.spanning_tree
from jaxcluster import load
from jaxcluster.cluster import hdbscan
from jaxcluster.estimators.hdbscan import HDBSCAN
from jaxcluster.ops.metric_space import MetricSpace

PLAIN = {"few columns": make_blobs(150, 2, centers=4, random_state=1)[0], "many": hard_data.blobs(d=12).x}


@pytest.fixture
def boruvka(monkeypatch):
    """As if there were many rows: no tree is grown row by row unless it has to be."""
    monkeypatch.setattr(jaxcluster.ops.spanning_tree, "PRIM_ROWS", 10)


def assert_theirs(x, *, like=None, **options):
    """The same labels and probabilities as scikit-learn's of the same rows, or of others that are alike."""
    like = np.asarray(x, np.float64) if like is None else like
    theirs = sklearn.cluster.HDBSCAN(copy=True, **options).fit(like)
    fit = hdbscan.fit(x, **options)
    np.testing.assert_array_equal(fit.labels, theirs.labels_)
    probabilities = hdbscan.probabilities(fit.state)
    np.testing.assert_allclose(probabilities, theirs.probabilities_, rtol=1e-9, atol=1e-12)
    return fit


HARD_PROBLEMS = {
    **{f"a far row of {far:g}": lambda x, far=far: np.vstack([x, np.full(x.shape[1], far)]) for far in hard_data.FAR},
    "a column of 0 and 1e5": lambda x: np.column_stack([x, (np.arange(len(x)) % 2) * 1e5]),
    "a column of 0 and 1e9": lambda x: np.column_stack([x, (np.arange(len(x)) % 2) * 1e9]),
    "two groups at 1e5": lambda x: x + np.where(np.arange(len(x)) % 2, 1e5, -1e5)[:, None],
    "two groups at 1e9": lambda x: x + np.where(np.arange(len(x)) % 2, 1e9, -1e9)[:, None],
    "an offset of 1e4 in float32": lambda x: (x + 1e4).astype(np.float32),
    "an offset of 1e9": lambda x: x + 1e9,
    "an offset of 1e12": lambda x: x + 1e12,
    "a far row in float32": lambda x: np.vstack([x, np.full(x.shape[1], 1e12)]).astype(np.float32),
    "whole numbers": lambda x: np.round(x).astype(np.int32),
    "copies": lambda x: x[np.arange(len(x)) // 4],
    "booleans": lambda x: x > 0,
}


@pytest.mark.parametrize("shape", PLAIN)
@pytest.mark.parametrize("name", HARD_PROBLEMS)
def test_hard_rows(name, shape):
    x = HARD_PROBLEMS[name](PLAIN[shape])
    fit = assert_theirs(x)
    if name not in ("whole numbers", "copies", "booleans"):  # of rows in one place two may be in different clusters
        np.testing.assert_array_equal(hdbscan.approximate_predict(fit.state, x)[0], fit.labels)


@pytest.mark.parametrize("shape", PLAIN)
@pytest.mark.parametrize("name", ["a far row of 1e+12", "two groups at 1e9", "whole numbers", "copies", "booleans"])
def test_hard_rows_where_there_are_many(name, shape, boruvka):
    assert_theirs(HARD_PROBLEMS[name](PLAIN[shape]))


@pytest.mark.parametrize("metric", ["manhattan", "chebyshev"])
def test_far_row_among_many_by_other_metrics(metric, boruvka):
    assert_theirs(HARD_PROBLEMS["a far row of 1e+12"](PLAIN["few columns"]), metric=metric)


def test_two_edges_of_one_length_are_noticed(boruvka):
    """A ladder: all rungs weigh the same, and which is taken first decides the order in which rows are reached."""
    x = np.random.default_rng(0).permutation(np.arange(60) ** 2 % 173)[:, None].astype(float)
    assert_theirs(np.vstack([np.column_stack([x, 0 * x]), np.column_stack([x, 0 * x + 2000])]), min_samples=1)


@pytest.mark.parametrize("shape", PLAIN)
@pytest.mark.parametrize("unit", [2.0**60, 2.0**-60, 1e30, 1e-30, 1e200, 1e-200])
def test_units_do_not_matter(unit, shape):
    x = PLAIN[shape]
    fit = assert_theirs(x * unit, like=x)
    plain = hdbscan.fit(x).state
    np.testing.assert_allclose(fit.state.core, plain.core * unit, rtol=1e-9)
    np.testing.assert_allclose(fit.state.merges[:, 2], plain.merges[:, 2] * unit, rtol=1e-9)
    np.testing.assert_array_equal(hdbscan.approximate_predict(fit.state, x * unit)[0], fit.labels)
    np.testing.assert_allclose(hdbscan.membership_vectors(fit.state), hdbscan.membership_vectors(plain), atol=1e-6)
    np.testing.assert_allclose(hdbscan.medoids(fit.state), hdbscan.medoids(plain) * unit)
    if 1e-38 < unit < 1e38:
        assert_theirs((x * unit).astype(np.float32))


@pytest.mark.parametrize("dtype", [*hard_data.FLOATS, *hard_data.INTEGERS], ids=lambda dtype: np.dtype(dtype).name)
def test_dtypes(dtype):
    x = hard_data.in_dtype(hard_data.blobs(), dtype).x
    fit = assert_theirs(x)
    if dtype in (np.float16, ml_dtypes.bfloat16):
        np.testing.assert_array_equal(HDBSCAN().fit(x).labels_, fit.labels)


@pytest.mark.parametrize("lengths", [1e-20, 1e20, 1e-170, 1e170, "all"])
def test_directions_of_any_length(lengths):
    x = PLAIN["few columns"]
    if lengths == "all":
        lengths = 10.0 ** np.random.default_rng(0).uniform(-20, 20, (len(x), 1))
    theirs = sklearn.cluster.HDBSCAN(metric="cosine", copy=True).fit(x)
    np.testing.assert_array_equal(hdbscan.fit(x * lengths, metric="cosine").labels, theirs.labels_)


# Rows that are not finite.


@pytest.fixture(scope="module")
def with_gaps():
    x = PLAIN["few columns"].copy()
    x[0], x[2], x[5], x[7], x[9] = [np.inf, 1], [1, np.nan], [-np.inf, np.nan], [np.inf, -np.inf], [-np.inf, -np.inf]
    with np.errstate(invalid="ignore"):
        return x, sklearn.cluster.HDBSCAN(copy=True).fit(x)


def test_rows_that_are_not_finite_are_set_apart(with_gaps):
    x, theirs = with_gaps
    fit = hdbscan.fit(x)
    np.testing.assert_array_equal(fit.labels, theirs.labels_)
    np.testing.assert_array_equal(np.flatnonzero(fit.labels < -1), [0, 2, 5, 7, 9])
    np.testing.assert_allclose(hdbscan.probabilities(fit.state), theirs.probabilities_, rtol=1e-12)
    for cut in (0.3, 1.0):
        np.testing.assert_array_equal(hdbscan.dbscan_clustering(fit.state, cut), theirs.dbscan_clustering(cut))
    labels, strengths = hdbscan.approximate_predict(fit.state, x)
    np.testing.assert_array_equal(labels, fit.labels)
    np.testing.assert_array_equal(strengths[[0, 9, 2, 5, 7]], [0, 0, np.nan, np.nan, np.nan])
    finite = np.isfinite(x).all(axis=1)
    alone = hdbscan.fit(x[finite]).state
    for function in (hdbscan.membership_vectors, hdbscan.outlier_scores):
        np.testing.assert_array_equal(function(fit.state)[finite], function(alone))
    assert not hdbscan.membership_vectors(fit.state)[~finite].any()
    np.testing.assert_array_equal(hdbscan.outlier_scores(fit.state)[[0, 9, 2, 5, 7]], [1, 1, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(hdbscan.medoids(fit.state), hdbscan.medoids(alone))
    np.testing.assert_allclose(hdbscan.centroids(fit.state), hdbscan.centroids(alone), rtol=1e-12)


def test_the_estimator_takes_rows_that_are_not_finite(with_gaps, tmp_path):
    x, theirs = with_gaps
    estimator = HDBSCAN(store_centers="both").fit(x)
    np.testing.assert_array_equal(estimator.labels_, theirs.labels_)
    np.testing.assert_array_equal(estimator.dbscan_clustering(0.5), theirs.dbscan_clustering(0.5))
    np.testing.assert_array_equal(estimator.predict(x), theirs.labels_)
    assert estimator.membership_vectors().shape == (len(x), len(estimator.centroids_))
    assert len(estimator.finite_) == len(x) - 5 == len(estimator.core_distances_)
    estimator.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(x), theirs.labels_)


def test_no_finite_row_at_all():
    with pytest.raises(ValueError, match="x contains 12 NaN values in columns 0, 1"):
        hdbscan.fit(np.full((6, 2), np.nan))
    state = hdbscan.fit(PLAIN["few columns"]).state
    labels, strengths = hdbscan.approximate_predict(state, [[np.nan, 0.0], [np.inf, 0.0]])
    np.testing.assert_array_equal(labels, [-3, -2])
    np.testing.assert_array_equal(strengths, [np.nan, 0])


# Matrices of distances.


def test_unknown_distances_are_infinite():
    x = PLAIN["few columns"]
    distances = cdist(x, x)
    distances[distances > np.quantile(distances, 0.4)] = np.inf
    assert_theirs(distances, metric="precomputed")


@pytest.mark.parametrize("metric_unit", [1.0, 1e100, 1e-100])
def test_one_sided_entries_count_for_both_sides(metric_unit):
    x = PLAIN["few columns"]
    graph = kneighbors_graph(x, 40, mode="distance") * metric_unit  # one-sided, and without the rows themselves
    both = scipy.sparse.csr_array(graph.maximum(graph.T))
    found = hdbscan.fit(graph, metric="precomputed")
    np.testing.assert_array_equal(found.labels, hdbscan.fit(both, metric="precomputed").labels)
    dense = np.where(both.toarray() > 0, both.toarray(), np.inf)
    np.fill_diagonal(dense, 0)
    theirs = sklearn.cluster.HDBSCAN(metric="precomputed", copy=True).fit(dense)
    np.testing.assert_array_equal(found.labels, theirs.labels_)


def test_distances_that_are_not_symmetric_are_refused():
    distances = cdist(PLAIN["few columns"], PLAIN["few columns"])
    distances[3, 4] = 7
    with pytest.raises(ValueError, match=r"symmetric: entry \(3, 4\) is 7.0"):
        hdbscan.fit(distances, metric="precomputed")
    distances[3, 4] = np.nan
    with pytest.raises(ValueError, match="np.nan values found in precomputed-dense distances: 1"):
        hdbscan.fit(distances, metric="precomputed")


def test_row_with_few_known_distances():
    few = scipy.sparse.csr_array(np.diag(np.ones(9), 1) + np.diag(np.ones(9), -1))
    with pytest.raises(ValueError, match="points with fewer than 5 neighbors at a known distance"):
        hdbscan.fit(few, metric="precomputed")


# Metrics and their parameters.

BITS = hard_data.bits().x
PLACES = np.random.default_rng(0).uniform([-0.1, 0.2], [0.3, 0.4], (60, 2)).repeat(2, axis=0)
PLACES[::2] += 1e-3
METRICS = {
    **{metric: (PLAIN["few columns"], {}) for metric in ("l1", "l2", "cityblock", "chebyshev", "canberra")},
    "braycurtis": (np.abs(PLAIN["few columns"]), {}),
    "correlation": (PLAIN["many"], {}),
    "hamming": (BITS, {}),
    "jaccard": (BITS, {}),
    "dice": (BITS, {}),
    "rogerstanimoto": (BITS, {}),
    "russellrao": (BITS, {}),
    "sokalsneath": (BITS, {}),
    "haversine": (PLACES, {}),
    "minkowski": (PLAIN["few columns"], {"p": 3}),
    "minkowski, infinite": (PLAIN["few columns"], {"p": np.inf}),
    "minkowski, weighted": (PLAIN["few columns"], {"p": 3, "w": np.array([1.0, 4.0])}),
    "seuclidean": (PLAIN["few columns"], {"V": np.array([1.0, 9.0])}),
    "mahalanobis": (PLAIN["few columns"], {"V": np.array([[2.0, 1.0], [1.0, 3.0]])}),
}


@pytest.mark.parametrize("name", METRICS)
def test_metrics(name):
    x, params = METRICS[name]
    options = {"metric": name.split(",")[0], "metric_params": params or None}
    ours = HDBSCAN(**options).fit(x)
    search = "ball_tree" if "w" in params else "auto"
    theirs = sklearn.cluster.HDBSCAN(copy=True, algorithm=search, **options).fit(np.asarray(x, float))
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    np.testing.assert_allclose(ours.probabilities_, theirs.probabilities_, rtol=1e-6)
    assert ours.predict(x).shape == (len(x),)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "precomputed"])
def test_alpha_divides_what_it_divides_in_scikit_learn(metric, alpha):
    x = PLAIN["few columns"]
    assert_theirs(cdist(x, x) if metric == "precomputed" else x, metric=metric, alpha=alpha)


def test_a_function_of_two_rows_is_a_metric():
    x = PLAIN["few columns"][:60]
    np.testing.assert_array_equal(
        HDBSCAN(metric=lambda a, b: abs(a - b).max()).fit(x).labels_, hdbscan.fit(x, metric="chebyshev").labels
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "trees"}, "algorithm='trees' is not known.*'kd_tree'"),
        ({"algorithm": "kd_tree", "metric": "cosine"}, "cosine is not a valid metric for a KDTree-based algorithm"),
        ({"algorithm": "ball_tree", "metric": "precomputed"}, "precomputed is not a valid metric for a BallTree"),
        ({"leaf_size": 0}, "leaf_size=0 must be at least 1"),
        ({"n_jobs": 1.5}, "n_jobs must be None or an integer, got 1.5"),
        ({"copy": "no"}, "copy must be True or False, got 'no'"),
        ({"metric_params": 3}, "metric_params must be None or a dict, got 3"),
        ({"metric_params": {"p": 3}}, "metric_params has 'p', but metric='euclidean' takes none"),
        ({"metric": "seuclidean"}, "metric='seuclidean' needs metric_params"),
        ({"metric": "mahalanobis", "metric_params": {"V": np.ones((2, 2))}}, r"metric_params\['V'\] is singular"),
    ],
)
def test_keywords_of_scikit_learn_are_checked(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        HDBSCAN(**options).fit(PLAIN["few columns"])


def test_keywords_of_scikit_learn_change_nothing():
    x = PLAIN["few columns"]
    plain = HDBSCAN().fit(x)
    for options in ({"algorithm": "ball_tree", "leaf_size": 3}, {"n_jobs": -1, "copy": False}):
        np.testing.assert_array_equal(HDBSCAN(**options).fit(x).labels_, plain.labels_)


@pytest.mark.parametrize("x64", [False, True])
def test_jaxs_switches(x64, boruvka):
    x, switches = PLAIN["many"], STRICT | LEAKS | {"jax_enable_x64": x64}
    expected = sklearn.cluster.HDBSCAN(copy=True).fit(x).labels_
    with switched(switches):
        fit = hdbscan.fit(x)
        np.testing.assert_array_equal(fit.labels, expected)
        np.testing.assert_array_equal(hdbscan.approximate_predict(fit.state, x)[0], expected)
        assert np.isfinite(hdbscan.membership_vectors(fit.state)).all()


def test_a_space_is_what_many_rows_are_searched_in():
    """Metrics that add up differences are searched by blocks, and no matrix of all distances is made."""
    for metric in ("l1", "l2", "chebyshev"):
        assert isinstance(hdbscan.row_input.scaled_space(PLAIN["few columns"], metric, 2.0).space, MetricSpace)

"""DBSCAN with scikit-learn's face: its labels, its attributes and its contract, and a `predict` that it has not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse
import sklearn.cluster
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine, make_moons
from sklearn.exceptions import NotFittedError
from sklearn.metrics import pairwise_distances
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import jaxcluster
from jaxcluster.estimators import DBSCAN, load

SETS = {
    "iris": (load_iris().data, {"eps": 0.5, "min_samples": 5}),
    "wine": (StandardScaler().fit_transform(load_wine().data), {"eps": 2.3, "min_samples": 6}),
    "moons": (make_moons(400, noise=0.06, random_state=1)[0], {"eps": 0.12, "min_samples": 5}),
    "moons by manhattan": (make_moons(400, noise=0.06, random_state=1)[0], {"eps": 0.15, "metric": "manhattan"}),
    "moons by a power": (make_moons(400, noise=0.06, random_state=1)[0], {"eps": 0.1, "metric": "minkowski", "p": 3}),
    "iris by cosine": (load_iris().data, {"eps": 1e-3, "metric": "cosine"}),
    "nothing but noise": (load_iris().data, {"eps": 1e-3}),
    "one cluster": (load_iris().data, {"eps": 50.0}),
}


def excused(estimator: DBSCAN) -> dict[str, str]:
    """Checks that give rows, or what is no distance, to an estimator that takes distances."""
    checks = ("check_estimators_nan_inf", "check_clustering", "check_positive_only_tag_during_fit")
    reason = "distances may be infinite but not negative, and make a square matrix"
    return dict.fromkeys(checks if estimator.metric == "precomputed" else (), reason)


@parametrize_with_checks([DBSCAN(), DBSCAN(metric="precomputed")], expected_failed_checks=excused)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def moons() -> np.ndarray:
    return SETS["moons"][0]


@pytest.fixture(scope="module")
def fitted(moons) -> DBSCAN:
    return DBSCAN(**SETS["moons"][1]).fit(moons)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", SETS)
def test_everything_published_is_scikit_learns(name, weighted):
    x, options = SETS[name]
    weights = np.random.default_rng(4).integers(1, 4, len(x)) if weighted else None
    ours = DBSCAN(**options).fit(x, sample_weight=weights)
    theirs = sklearn.cluster.DBSCAN(**options).fit(x, sample_weight=weights)
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    np.testing.assert_array_equal(ours.core_sample_indices_, theirs.core_sample_indices_)
    np.testing.assert_array_equal(ours.components_, theirs.components_)
    assert ours.components_.dtype == theirs.components_.dtype
    np.testing.assert_array_equal(ours.fit_predict(x, sample_weight=weights), theirs.labels_)


@pytest.mark.parametrize("name", SETS)
def test_predict_of_fitted_rows_equals_labels(name):
    x, options = SETS[name]
    estimator = DBSCAN(**options).fit(x)
    np.testing.assert_array_equal(estimator.predict(x), estimator.labels_)


@pytest.mark.parametrize("form", ["dense", "infinite", "csr", "coo"])
def test_distances_in_place_of_rows(moons, form):
    distances = pairwise_distances(moons)
    near = np.where(distances <= 0.3, distances, 0)
    given = {
        "dense": distances,
        "infinite": np.where(distances <= 0.3, distances, np.inf),
        "csr": scipy.sparse.csr_array(near),
        "coo": scipy.sparse.coo_matrix(near),
    }[form]
    ours = DBSCAN(0.12, metric="precomputed").fit(given)
    theirs = sklearn.cluster.DBSCAN(eps=0.12).fit(moons)
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    np.testing.assert_array_equal(ours.core_sample_indices_, theirs.core_sample_indices_)
    assert ours.components_.shape == (len(ours.core_sample_indices_), len(moons))
    assert not hasattr(ours, "predict")
    with pytest.raises(AttributeError, match="predict"):
        ours.predict(moons)


def test_distances_come_back_from_a_file(moons, tmp_path):
    near = scipy.sparse.csr_array(np.where(pairwise_distances(moons) <= 0.3, pairwise_distances(moons), 0))
    estimator = DBSCAN(0.12, metric="precomputed").fit(near)
    estimator.save(tmp_path / "model")
    back = load(tmp_path / "model")
    np.testing.assert_array_equal(back.components_.toarray(), estimator.components_.toarray())
    assert repr(back) == repr(estimator)


def test_a_function_of_two_matrices_measures(moons):
    ours = DBSCAN(0.15, metric=lambda a, b: cdist(a, b, "chebyshev")).fit(moons)
    theirs = sklearn.cluster.DBSCAN(eps=0.15, metric="chebyshev").fit(moons)
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    np.testing.assert_array_equal(ours.predict(moons), theirs.labels_)


def test_new_rows_take_the_first_cluster_near_them():
    estimator = DBSCAN(eps=0.25, min_samples=3).fit([[0.0], [0.1], [0.2], [2.0], [2.1], [2.2]])
    np.testing.assert_array_equal(estimator.predict([[0.3], [1.1], [1.9], [9.0]]), [0, -1, 1, -1])


def test_numbers_are_those_of_the_function(moons, fitted):
    fit = jaxcluster.dbscan.fit(moons, **SETS["moons"][1])
    np.testing.assert_array_equal(fitted.labels_, fit.labels)
    np.testing.assert_array_equal(fitted.core_sample_indices_, np.flatnonzero(fit.state.core))
    assert jaxcluster.DBSCAN is DBSCAN


def test_a_saved_model_predicts_the_same(moons, fitted, tmp_path):
    fitted.save(tmp_path / "model")
    back = load(tmp_path / "model")
    new = moons[::3] + 0.03
    np.testing.assert_array_equal(back.predict(new), fitted.predict(new))
    assert (back.predict(new) >= 0).any()
    assert repr(back) == repr(fitted)


def test_the_repr_says_what_was_found(moons, fitted):
    assert repr(DBSCAN(eps=0.1)) == "DBSCAN(eps=0.1)"
    noise = np.sum(fitted.labels_ == -1)
    clusters = fitted.labels_.max() + 1
    assert noise > 1
    assert repr(fitted) == f"DBSCAN(eps=0.12) fitted on 400×2: {clusters} clusters, {noise} rows of noise, converged"
    assert repr(DBSCAN(eps=9.0).fit(moons)) == "DBSCAN(eps=9.0) fitted on 400×2: 1 cluster, converged"


def test_a_clone_is_not_fitted(moons, fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(moons)


def test_a_pipeline_takes_it(moons):
    pipeline = make_pipeline(StandardScaler(), DBSCAN(eps=0.2))
    scaled = StandardScaler().fit_transform(moons)
    np.testing.assert_array_equal(pipeline.fit_predict(moons), DBSCAN(eps=0.2).fit(scaled).labels_)


@pytest.mark.parametrize(
    "options", [{"algorithm": "kd_tree"}, {"leaf_size": 20}, {"n_jobs": 2}, {"algorithm": "brute"}]
)
def test_keywords_of_the_search_change_nothing(moons, fitted, options):
    np.testing.assert_array_equal(DBSCAN(**SETS["moons"][1], **options).fit_predict(moons), fitted.labels_)


def test_metric_params(moons):
    """As scikit-learn's test has it: a power there is the power, and that of the constructor is ignored aloud."""
    options = {"eps": 0.1, "metric": "minkowski"}
    expected = DBSCAN(p=3, **options).fit_predict(moons)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(DBSCAN(metric_params={"p": 3}, **options).fit_predict(moons), expected)
    with pytest.warns(SyntaxWarning, match="Parameter p is found in metric_params"):
        np.testing.assert_array_equal(DBSCAN(metric_params={"p": 3}, p=1, **options).fit_predict(moons), expected)
    spread = {"metric": "seuclidean", "metric_params": {"V": moons.var(axis=0)}, "eps": 0.2}
    theirs = sklearn.cluster.DBSCAN(algorithm="brute", **spread).fit_predict(moons)
    np.testing.assert_array_equal(DBSCAN(**spread).fit_predict(moons), theirs)


def test_weights_may_be_negative_but_not_all_zero(moons):
    weights = np.random.default_rng(1).integers(-2, 5, len(moons))
    ours, theirs = (each(eps=0.12).fit(moons, sample_weight=weights) for each in (DBSCAN, sklearn.cluster.DBSCAN))
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    assert (ours.labels_ < 0).any()
    assert (ours.labels_ >= 0).any()
    with pytest.raises(ValueError, match="at least one non-zero number"):
        DBSCAN().fit(moons, sample_weight=np.zeros(len(moons)))


def test_all_noise_is_called_so(moons):
    assert repr(DBSCAN(eps=1e-9).fit(moons)) == "DBSCAN(eps=1e-09) fitted on 400×2: no cluster, every row is noise"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0}, "eps=0 must be greater than 0"),
        ({"eps": True}, "eps must be a number, got True"),
        ({"min_samples": 0}, "min_samples=0 must be greater than 0"),
        ({"metric": "euclid"}, "metric='euclid' is not known.*Did you mean 'euclidean'"),
        ({"metric": "minkowski", "p": 0.5}, "p=0.5 must be at least 1"),
        ({"metric": "precomputed"}, "square matrix of distances"),
        ({"algorithm": "tree"}, "algorithm='tree' is not known"),
        ({"leaf_size": 0}, "leaf_size=0 must be at least 1"),
        ({"n_jobs": "all"}, "n_jobs must be None or an integer"),
        ({"metric_params": 3}, "metric_params must be None or a dict"),
        ({"metric_params": {"q": 3}}, "metric_params has 'q'"),
        ({"metric": "cosine", "algorithm": "kd_tree"}, "'cosine' not valid for algorithm='kd_tree'"),
    ],
)
def test_bad_options_are_refused_with_a_reason(moons, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        DBSCAN(**options).fit(moons)

"""DBSCAN with scikit-learn's face: its labels, its attributes and its contract, and a `predict` that it has not."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.cluster
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine, make_moons
from sklearn.exceptions import NotFittedError
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
    "nothing but noise": (load_iris().data, {"eps": 1e-3}),
    "one cluster": (load_iris().data, {"eps": 50.0}),
}


@parametrize_with_checks([DBSCAN()])
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
def test_the_rows_of_the_fit_are_predicted_as_they_were_labelled(name):
    x, options = SETS[name]
    estimator = DBSCAN(**options).fit(x)
    np.testing.assert_array_equal(estimator.predict(x), estimator.labels_)


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


@pytest.mark.parametrize("estimator", [{"algorithm": "kd_tree"}, {"leaf_size": 20}, {"n_jobs": 2}])
def test_what_has_no_meaning_here_is_not_taken(estimator):
    with pytest.raises(TypeError, match=next(iter(estimator))):
        DBSCAN(**estimator)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0}, "eps=0 must be greater than 0"),
        ({"eps": True}, "eps must be a number, got True"),
        ({"min_samples": 0}, "min_samples=0 must be greater than 0"),
        ({"metric": "euclid"}, "metric='euclid' is not known.*Did you mean 'euclidean'"),
        ({"metric": "minkowski", "p": 0.5}, "p=0.5 must be at least 1"),
    ],
)
def test_bad_options_are_refused_with_a_reason(moons, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        DBSCAN(**options).fit(moons)

"""OPTICS with scikit-learn's face: its attributes, its contract, and what is saved."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sklearn.cluster
from sklearn.datasets import load_iris
from sklearn.exceptions import DataConversionWarning
from sklearn.metrics import pairwise_distances
from sklearn.utils.estimator_checks import parametrize_with_checks

from jaxcluster.estimators import load
from jaxcluster.estimators.density import OPTICS

ATTRIBUTES = ("ordering_", "reachability_", "core_distances_", "predecessor_", "labels_", "cluster_hierarchy_")


def excused(estimator: OPTICS) -> dict[str, str]:
    """Checks that give rows, or what is no distance, to an estimator that takes distances."""
    checks = ("check_estimators_nan_inf", "check_clustering", "check_positive_only_tag_during_fit")
    reason = "distances may be infinite but not negative, and make a square matrix"
    return dict.fromkeys(checks if estimator.metric == "precomputed" else (), reason)


@parametrize_with_checks([OPTICS(), OPTICS(metric="precomputed")], expected_failed_checks=excused)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "options", [{}, {"cluster_method": "dbscan", "eps": 0.6}, {"min_samples": 0.1, "xi": 0.1}, {"p": 1}]
)
def test_everything_published_is_scikit_learns(options):
    x = load_iris().data
    ours, theirs = OPTICS(**options).fit(x), sklearn.cluster.OPTICS(**options).fit(x)
    for name in ATTRIBUTES:
        assert hasattr(ours, name) == hasattr(theirs, name)
        if hasattr(theirs, name):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.filterwarnings("ignore:No row is within", "ignore:All reachability values")
def test_hierarchy_without_clusters_is_scikit_learns():
    x = load_iris().data
    ours, theirs = (each(max_eps=0.01).fit(x) for each in (OPTICS, sklearn.cluster.OPTICS))
    assert len(theirs.cluster_hierarchy_) == 0
    np.testing.assert_array_equal(ours.cluster_hierarchy_, theirs.cluster_hierarchy_)


def test_distances_give_what_rows_do():
    x = load_iris().data
    matrix = pairwise_distances(x, metric="minkowski")
    by_rows, by_distances = OPTICS().fit(x), OPTICS(metric="precomputed").fit(matrix)
    for name in ATTRIBUTES:
        np.testing.assert_array_equal(getattr(by_distances, name), getattr(by_rows, name))


def test_what_is_saved_is_loaded(tmp_path):
    model = OPTICS(min_samples=8).fit(load_iris().data)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.get_params() == model.get_params()
    for name in ATTRIBUTES:
        np.testing.assert_array_equal(getattr(again, name), getattr(model, name))
        assert getattr(again, name).dtype == getattr(model, name).dtype
    assert repr(again) == repr(model)


@pytest.mark.parametrize("options", [{"algorithm": "brute"}, {"leaf_size": 9}, {"n_jobs": 2}, {"memory": "cache"}])
def test_keywords_of_the_search_change_nothing(options):
    x = load_iris().data[:60]
    np.testing.assert_array_equal(OPTICS(**options).fit(x).ordering_, OPTICS().fit(x).ordering_)


def test_metrics_of_booleans_say_so():
    """As scikit-learn's tests have it: one warning where numbers are taken for booleans, none for booleans."""
    x = np.random.default_rng(0).integers(0, 2, (9, 4))
    with pytest.warns(DataConversionWarning, match="Data will be converted to boolean for metric rogerstanimoto"):
        numbers = OPTICS(metric="rogerstanimoto").fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataConversionWarning)
        booleans = OPTICS(metric="rogerstanimoto").fit(x.astype(bool))
    np.testing.assert_array_equal(numbers.ordering_, booleans.ordering_)


@pytest.mark.filterwarnings("ignore:All reachability values")
def test_all_noise_is_called_so():
    assert repr(OPTICS(max_eps=1e-9).fit(np.eye(6))).endswith("fitted on 6×6: no cluster, every row is noise")


def test_memory_that_is_none():
    with pytest.raises(TypeError, match="memory must be None, a folder or an object with a method cache, got 3"):
        OPTICS(memory=3).fit(np.eye(6))


def test_an_unknown_method_is_told_the_known():
    with pytest.raises(ValueError, match="cluster_method='xii' is not known.*Did you mean 'xi'"):
        OPTICS(cluster_method="xii").fit(np.eye(6))

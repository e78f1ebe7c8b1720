"""HDBSCAN with scikit-learn's face: its labels, its attributes and its contract, and methods that it has not."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import sklearn.cluster
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine, make_blobs, make_moons
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from jaxcluster.cluster import hdbscan
from jaxcluster.estimators.hdbscan import HDBSCAN

BLOBS = make_blobs(300, 3, centers=4, cluster_std=1.2, random_state=5)[0]

SETS = {
    "iris": (load_iris().data, {}),
    "iris, leaves": (load_iris().data, {"cluster_selection_method": "leaf", "min_samples": 3}),
    "wine": (StandardScaler().fit_transform(load_wine().data), {"min_cluster_size": 8, "min_samples": 2}),
    "moons by manhattan": (make_moons(400, noise=0.06, random_state=1)[0], {"metric": "manhattan"}),
    "blobs, none large": (BLOBS, {"min_cluster_size": 6, "max_cluster_size": 50}),
    "one cluster": (load_iris().data[:50], {"min_cluster_size": 20, "allow_single_cluster": True}),
    "nothing but noise": (np.random.default_rng(0).normal(size=(60, 2)), {"min_cluster_size": 30}),
}


@parametrize_with_checks([HDBSCAN()])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def fitted() -> HDBSCAN:
    return HDBSCAN(min_cluster_size=10, store_centers="both").fit(BLOBS)


@pytest.mark.parametrize("name", SETS)
def test_everything_published_is_scikit_learns(name):
    x, options = SETS[name]
    ours = HDBSCAN(**options, store_centers="both").fit(x)
    theirs = sklearn.cluster.HDBSCAN(**options, store_centers="both", copy=True).fit(x)
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    np.testing.assert_allclose(ours.probabilities_, theirs.probabilities_, rtol=1e-9)
    np.testing.assert_allclose(ours.centroids_, theirs.centroids_, rtol=1e-9)
    np.testing.assert_array_equal(ours.medoids_, theirs.medoids_)
    distance = np.quantile(ours.single_linkage_tree_[:, 2], 0.9) + 1e-6
    np.testing.assert_array_equal(ours.dbscan_clustering(distance), theirs.dbscan_clustering(distance))
    np.testing.assert_array_equal(ours.fit_predict(x), theirs.labels_)


@pytest.mark.parametrize("name", SETS)
def test_predict_of_fitted_rows_equals_labels(name):
    x, options = SETS[name]
    estimator = HDBSCAN(**options).fit(x)
    np.testing.assert_array_equal(estimator.predict(x), estimator.labels_)


def test_numbers_are_those_of_the_functions(fitted):
    state = hdbscan.fit(BLOBS, min_cluster_size=10).state
    new = BLOBS + 0.1
    np.testing.assert_array_equal(fitted.labels_, state.labels)
    np.testing.assert_array_equal(fitted.probabilities_, hdbscan.probabilities(state))
    np.testing.assert_array_equal(fitted.outlier_scores_, hdbscan.outlier_scores(state))
    np.testing.assert_array_equal(fitted.core_distances_, state.core)
    np.testing.assert_array_equal(fitted.single_linkage_tree_, state.merges)
    np.testing.assert_array_equal(fitted.condensed_tree_.lambda_val, state.condensed.lambda_val)
    np.testing.assert_array_equal(fitted.minimum_spanning_tree_.edges, state.tree.edges)
    for ours, theirs in zip(fitted.approximate_predict(new), hdbscan.approximate_predict(state, new), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(fitted.predict(new), fitted.approximate_predict(new)[0])
    np.testing.assert_array_equal(fitted.membership_vectors(), hdbscan.membership_vectors(state))
    np.testing.assert_array_equal(fitted.membership_vectors(new), hdbscan.membership_vectors(state, new))


@pytest.mark.parametrize("as_matrix", [np.asarray, scipy.sparse.csr_array], ids=["dense", "sparse"])
def test_distances_in_place_of_rows(as_matrix):
    distances = cdist(BLOBS, BLOBS)
    estimator = HDBSCAN(10, metric="precomputed").fit(as_matrix(distances))
    by_rows = HDBSCAN(10).fit(BLOBS)
    np.testing.assert_array_equal(estimator.labels_, by_rows.labels_)
    new = BLOBS[::7] + 0.05
    np.testing.assert_array_equal(estimator.predict(cdist(new, BLOBS)), by_rows.predict(new))
    np.testing.assert_allclose(estimator.membership_vectors(), by_rows.membership_vectors(), rtol=1e-9, atol=1e-12)


def test_x_may_change_after_the_fit():
    x = BLOBS.copy()
    estimator = HDBSCAN(10).fit(x)
    before = estimator.predict(BLOBS)
    x[:] = 0
    np.testing.assert_array_equal(estimator.predict(BLOBS), before)


def test_parameters_set_after_a_fit_wait_for_the_next(fitted):
    estimator = HDBSCAN(10).fit(BLOBS).set_params(metric="manhattan", alpha=3.0, min_samples=2)
    np.testing.assert_array_equal(estimator.predict(BLOBS + 0.1), fitted.predict(BLOBS + 0.1))


def test_the_repr_says_what_was_found():
    estimator = HDBSCAN(10).fit(BLOBS)
    noise, clusters = np.sum(estimator.labels_ == -1), estimator.labels_.max() + 1
    assert noise > 1
    expected = f"fitted on 300×3: {clusters} clusters, {noise} rows of noise, converged"
    assert repr(estimator) == f"HDBSCAN(min_cluster_size=10) {expected}"


def test_a_clone_is_not_fitted(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    for call in (copy.predict, copy.approximate_predict, copy.membership_vectors, copy.dbscan_clustering):
        with pytest.raises(NotFittedError):
            call(1.0 if call == copy.dbscan_clustering else BLOBS)


def test_a_pipeline_takes_it():
    pipeline = make_pipeline(StandardScaler(), HDBSCAN(10))
    scaled = StandardScaler().fit_transform(BLOBS)
    np.testing.assert_array_equal(pipeline.fit_predict(BLOBS), HDBSCAN(10).fit(scaled).labels_)
    np.testing.assert_array_equal(pipeline.predict(BLOBS), HDBSCAN(10).fit(scaled).labels_)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_cluster_size": 1}, "min_cluster_size=1 must be at least 2"),
        ({"min_samples": 301}, r"min_samples \(301\) must be at most n_samples=300"),
        ({"cluster_selection_method": "leafs"}, "'leafs' is not known.*Did you mean 'leaf'"),
        ({"metric": "l3"}, "metric='l3' is not known"),
        ({"metric": "minkowski", "p": 0.5}, "p=0.5 must be at least 1"),
        ({"alpha": 0.0}, "alpha=0.0 must be greater than 0"),
        ({"store_centers": "mean"}, "store_centers='mean' is not known.*'centroid', 'medoid', 'both'"),
        (
            {"store_centers": "both", "metric": "precomputed"},
            "Cannot store centers when using a precomputed",
        ),
    ],
)
def test_bad_options_are_refused_with_a_reason(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        HDBSCAN(**options).fit(BLOBS)

"""k-medoids with scikit-learn's face: its attributes, its contract, and what is saved."""

from __future__ import annotations

import sys

import hard_data
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, pairwise_distances
from sklearn.utils.estimator_checks import parametrize_with_checks

from jaxcluster.cluster import kmedoids
from jaxcluster.estimators.kmedoids import KMedoids
from jaxcluster.types import Status


def excused(estimator: KMedoids) -> dict[str, str]:
    """Checks that give rows, or what is no distance, to an estimator that takes distances."""
    checks = ("check_clustering", "check_estimators_nan_inf", "check_positive_only_tag_during_fit")
    reason = "distances are not negative, and make a square matrix"
    return dict.fromkeys(checks if estimator.metric == "precomputed" else (), reason)


@parametrize_with_checks([KMedoids(), KMedoids(metric="precomputed")], expected_failed_checks=excused)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("method", ["fasterpam", "clara"])
def test_blobs_are_found_and_published(method, blobs):
    model = KMedoids(4, method=method, random_state=0).fit(blobs.x)
    assert adjusted_rand_score(model.labels_, blobs.y) == 1
    np.testing.assert_array_equal(model.cluster_centers_, blobs.x[model.medoid_indices_])
    np.testing.assert_array_equal(model.predict(blobs.x), model.labels_)
    to_medoids = pairwise_distances(blobs.x, model.cluster_centers_)
    np.testing.assert_allclose(model.transform(blobs.x), to_medoids, atol=5e-3)
    np.testing.assert_allclose(model.inertia_, to_medoids.min(axis=1).sum(), rtol=1e-5)
    np.testing.assert_allclose(model.score(blobs.x), -model.inertia_, rtol=1e-4)
    assert model.status_ == Status.CONVERGED
    assert len(model.history_) == model.n_iter_
    assert model.get_feature_names_out().tolist() == [f"kmedoids{i}" for i in range(4)]


def test_distances_give_what_rows_do(blobs):
    matrix = pairwise_distances(blobs.x)
    by_rows, by_distances = KMedoids(4).fit(blobs.x), KMedoids(4, metric="precomputed").fit(matrix)
    np.testing.assert_array_equal(by_distances.medoid_indices_, by_rows.medoid_indices_)
    np.testing.assert_array_equal(by_distances.labels_, by_rows.labels_)
    np.testing.assert_array_equal(by_distances.predict(matrix[:7]), by_rows.labels_[:7])
    np.testing.assert_allclose(by_distances.transform(matrix), matrix[:, by_rows.medoid_indices_], rtol=1e-6)
    assert not hasattr(by_distances, "cluster_centers_")


def test_weights_are_repetitions(blobs):
    weights = np.random.default_rng(0).integers(1, 4, len(blobs.x))
    weighted = KMedoids(4).fit(blobs.x, sample_weight=weights)
    repeated = KMedoids(4).fit(np.repeat(blobs.x, weights, axis=0))
    np.testing.assert_allclose(weighted.inertia_, repeated.inertia_, rtol=1e-5)
    np.testing.assert_array_equal(np.sort(weighted.cluster_centers_, 0), np.sort(repeated.cluster_centers_, 0))


def test_more_random_starts_do_not_do_worse(blobs):
    one, ten = (KMedoids(9, init="random", n_init=n, random_state=2).fit(blobs.x).inertia_ for n in (1, 10))
    assert ten <= one * (1 + 1e-6)


def test_what_the_data_do_not_allow_is_said():
    with pytest.warns(ConvergenceWarning, match=r"smaller than n_clusters \(3\)"):
        model = KMedoids(3).fit(np.ones((9, 2)))
    assert model.status_ == Status.EMPTY_CLUSTERS
    assert model.inertia_ == 0


@pytest.mark.filterwarnings("ignore:58 weights are positive, but too small")
def test_weights_far_apart_are_not_called_duplicates():
    x = np.random.default_rng(0).normal(size=(59, 2))
    weights = np.where(np.arange(59) == 3, 1e45, 1.0)
    with pytest.warns(ConvergenceWarning, match="Only 1 of 59 distinct rows count: the other weights") as warnings:
        KMedoids(3).fit(x, sample_weight=weights)
    assert not any("duplicate" in str(each.message) for each in warnings)
    with pytest.warns(ConvergenceWarning, match="duplicate points in X. X has 2 distinct rows of positive weight"):
        KMedoids(3).fit(np.repeat(x[:2], 5, axis=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "pam"}, "method='pam' is not known.*'fasterpam', 'clara'"),
        ({"metric": "euclid"}, "metric='euclid' is not known.*Did you mean 'euclidean'"),
        ({"init": "buil"}, "init='buil' is not known"),
        ({"n_init": "some"}, "n_init='some' is not known"),
        ({"n_clusters": 10}, "n_samples=9 should be >= n_clusters=10"),
        ({"method": "clara", "sample_size": 3}, "sample_size=3 must be at least 9"),
    ],
)
def test_wrong_parameters_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        KMedoids(**{"n_clusters": 2, **options}).fit(np.eye(9))


PLAIN = hard_data.blobs()
UNUSUAL = hard_data.unusual(PLAIN) | {"two far groups": hard_data.two_far_groups(hard_data.blobs(4), 1e9)}


@pytest.mark.parametrize("kind", UNUSUAL)
@pytest.mark.parametrize("work", [1 << 22, 0], ids=["host", "device"])
def test_unusual_rows(kind, work, monkeypatch):
    monkeypatch.setattr(sys.modules[kmedoids.fit.__module__], "HOST_WORK", work)
    problem = UNUSUAL[kind]
    if work == 0 and kind == "two far groups":
        with pytest.warns(match="differ by less than float32 can tell apart"):
            KMedoids(problem.k).fit(problem.x)
        return
    wide = np.asarray(problem.x, np.longdouble)
    for metric in ("euclidean", "chebyshev"):
        model = KMedoids(problem.k, metric=metric).fit(problem.x)
        assert hard_data.same_partition(model.labels_, problem.y)
        np.testing.assert_array_equal(model.predict(problem.x), model.labels_)
        np.testing.assert_array_equal(
            model.cluster_centers_, problem.x[model.medoid_indices_].astype(model.cluster_centers_.dtype)
        )
        apart = (wide - wide[model.medoid_indices_][model.labels_]).astype(np.float64)
        right = (np.linalg.norm(apart, axis=1) if metric == "euclidean" else np.abs(apart).max(axis=1)).sum()
        assert model.inertia_ == pytest.approx(right, rel=1e-5)
        assert model.score(problem.x) == pytest.approx(-right, rel=1e-5)
        assert model.status_ == Status.CONVERGED


@pytest.mark.parametrize("unit", [1e-40, 1e40])
def test_units_of_weights_and_distances_do_not_matter(unit):
    weights = np.random.default_rng(0).integers(1, 4, len(PLAIN.x)).astype(float)
    distances = np.linalg.norm(PLAIN.x[:, None] - PLAIN.x, axis=2)
    plain = KMedoids(3, metric="precomputed").fit(distances, sample_weight=weights)
    for scaled, heavy in ((distances * unit, weights), (distances, weights * unit)):
        model = KMedoids(3, metric="precomputed").fit(scaled, sample_weight=heavy)
        np.testing.assert_array_equal(model.medoid_indices_, plain.medoid_indices_)
        np.testing.assert_array_equal(model.labels_, plain.labels_)
        np.testing.assert_array_equal(model.predict(scaled), plain.labels_)
        assert model.inertia_ / unit == pytest.approx(plain.inertia_, rel=1e-6)


@pytest.mark.parametrize("p", [20, np.inf])
def test_minkowski_of_large_powers(p):
    rng = np.random.default_rng(0)
    x = 0.5 * rng.normal(size=(50, 2)) + np.repeat([[0, 0], [4, 4]], 25, axis=0)
    model = KMedoids(2, metric="minkowski", p=p).fit(x)
    apart = np.abs(x - model.cluster_centers_[model.labels_])
    lengths = apart.max(axis=1) if p == np.inf else np.sum(apart**p, axis=1) ** (1 / p)
    assert model.inertia_ == pytest.approx(lengths.sum(), rel=1e-6)
    np.testing.assert_array_equal(model.labels_, np.repeat([0, 1], 25) ^ model.labels_[0])


@pytest.mark.parametrize("metric", ["l1", "l2", "canberra", "braycurtis", "hamming", "correlation", "jaccard"])
def test_other_metrics_of_scikit_learn(metric):
    x = np.abs(np.round(PLAIN.x))
    model = KMedoids(3, metric=metric).fit(x)
    np.testing.assert_array_equal(model.predict(x), model.labels_)
    distances = pairwise_distances(x.astype(bool) if metric == "jaccard" else x, metric=metric)
    distances = np.nan_to_num(distances, nan=0.0) if metric == "braycurtis" else distances
    assert model.inertia_ == pytest.approx(distances[:, model.medoid_indices_].min(axis=1).sum(), rel=1e-6)

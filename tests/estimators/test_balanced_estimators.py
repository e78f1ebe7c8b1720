"""k-means with sizes and with pairs of rows, with scikit-learn's face."""

from __future__ import annotations

import hard_data
import jax
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, pairwise_distances
from sklearn.utils.estimator_checks import parametrize_with_checks

from jaxcluster.cluster import balanced, constrained
from jaxcluster.estimators.constrained import BalancedKMeans, ConstrainedKMeans
from jaxcluster.types import Status


def excused(estimator: BalancedKMeans | ConstrainedKMeans) -> dict[str, str]:
    """Checks of scikit-learn that its own k-means fails too."""
    weighted = "check_sample_weight_equivalence_on_dense_data"
    reason = "random streams differ between weights and copies"
    return {weighted: reason} if isinstance(estimator, ConstrainedKMeans) else {}


@parametrize_with_checks(
    [
        BalancedKMeans(n_clusters=3, init="random", n_init=1),
        ConstrainedKMeans(n_clusters=3, init="random", n_init=1),
    ],
    expected_failed_checks=excused,
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("cls", [BalancedKMeans, ConstrainedKMeans])
def test_blobs_are_found_and_published(cls, blobs):
    model = cls(4, random_state=0).fit(blobs.x)
    assert adjusted_rand_score(model.labels_, blobs.y) == 1
    assert model.labels_.dtype == model.cluster_sizes_.dtype == np.int32
    assert model.cluster_sizes_.tolist() == [75] * 4
    np.testing.assert_array_equal(model.predict(blobs.x), model.labels_)
    to_centers = pairwise_distances(blobs.x, model.cluster_centers_)
    np.testing.assert_allclose(model.transform(blobs.x), to_centers, atol=1e-3)
    np.testing.assert_allclose(model.inertia_, (to_centers.min(axis=1) ** 2).sum(), rtol=1e-5)
    np.testing.assert_allclose(model.score(blobs.x), -model.inertia_, rtol=1e-5)
    np.testing.assert_allclose(cls(4, random_state=0).fit_transform(blobs.x), model.transform(blobs.x))
    assert model.status_ == Status.CONVERGED
    assert len(model.history_) == model.n_iter_
    assert f"{model.n_iter_} step" in repr(model)


def test_sizes_hold_and_are_those_of_the_function(blobs):
    model = BalancedKMeans(7, size_min=30, size_max=60, random_state=3).fit(blobs.x)
    fit = balanced.fit(jax.random.key(np.uint32(3)), blobs.x, 7, size_min=30, size_max=60)
    np.testing.assert_array_equal(model.labels_, fit.labels)
    np.testing.assert_array_equal(model.cluster_sizes_, np.bincount(model.labels_, minlength=7))
    assert model.inertia_ == float(fit.state.inertia)
    assert 30 <= model.cluster_sizes_.min() <= model.cluster_sizes_.max() <= 60
    assert np.bincount(model.predict(blobs.x), minlength=7).max() > 60


def test_pairs_hold_and_are_those_of_the_function(blobs):
    first, second = np.flatnonzero(blobs.y == 0)[:2], np.flatnonzero(blobs.y == 1)[:2]
    pairs = {"must_link": [[first[0], second[0]]], "cannot_link": [first.tolist(), second.tolist()]}
    model = ConstrainedKMeans(4, random_state=3).fit(blobs.x, **pairs)
    fit = constrained.fit(jax.random.key(np.uint32(3)), blobs.x, 4, **pairs)
    np.testing.assert_array_equal(model.labels_, fit.labels)
    assert model.labels_[first[0]] == model.labels_[second[0]]
    assert model.labels_[first[0]] != model.labels_[first[1]]
    assert model.labels_[second[0]] != model.labels_[second[1]]
    np.testing.assert_array_equal(ConstrainedKMeans(4, random_state=3).fit_predict(blobs.x, **pairs), model.labels_)
    weighted = ConstrainedKMeans(4, random_state=3).fit(blobs.x, sample_weight=np.full(300, 2.0), **pairs)
    np.testing.assert_allclose(weighted.inertia_, 2 * model.inertia_, rtol=1e-5)


@pytest.mark.parametrize("cls", [BalancedKMeans, ConstrainedKMeans])
def test_a_start_may_be_a_function(cls, blobs):
    def first_rows(X, n_clusters, random_state):
        return X[random_state.permutation(len(X))[:n_clusters]]

    model = cls(4, init=first_rows, n_init=3, random_state=0).fit(blobs.x)
    random_state = np.random.RandomState(0)
    each = [cls(4, init=first_rows(blobs.x, 4, random_state)).fit(blobs.x).inertia_ for _ in range(3)]
    assert model.inertia_ == min(each)


def test_infeasible_data_raise():
    far = np.array([[0.0, 0.0], [1.0, 0.0], [99.0, 99.0]])
    with pytest.warns(ConvergenceWarning, match=r"smaller than n_clusters \(3\)"):
        model = BalancedKMeans(3, size_min=0, init=far).fit(np.random.default_rng(0).normal(size=(9, 2)))
    assert model.status_ == Status.EMPTY_CLUSTERS
    model = BalancedKMeans(2, random_state=0).fit(np.array([[1e30], [-1e30], [3e30], [0.0]]))
    assert model.cluster_sizes_.tolist() == [2, 2]
    assert model.labels_[0] == model.labels_[2] != model.labels_[1] == model.labels_[3]
    assert model.inertia_ == pytest.approx(2.5e60, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size_max": 2}, "size_max=2 × 2 clusters hold 4 rows, 5 fewer than the 9 given"),
        ({"size_min": 5}, "size_min=5 × 2 clusters need 10 rows, 1 more than the 9 given"),
        ({"n_clusters": 10}, "n_samples=9 should be >= n_clusters=10"),
        ({"n_init": "some"}, "n_init='some' must be 'auto' or a number"),
        ({"init": "rows"}, "init='rows' is not known"),
    ],
)
def test_wrong_parameters_raise(options, message):
    with pytest.raises(ValueError, match=message):
        BalancedKMeans(**{"n_clusters": 2, **options}).fit(np.eye(9))


def test_wrong_pairs_raise():
    with pytest.raises(ValueError, match="cannot_link says that rows 0 and 2 are apart"):
        ConstrainedKMeans(2).fit(np.eye(9), must_link=[[0, 1], [1, 2]], cannot_link=[[0, 2]])


PLAIN = hard_data.blobs()
UNUSUAL = hard_data.unusual(PLAIN)


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_rows(kind):
    problem = UNUSUAL[kind]
    right = hard_data.inertia(problem.x, problem.y)
    published = np.float32 if "float" in kind else np.float64
    for model in (
        BalancedKMeans(problem.k, size_min=1, init=problem.start),
        ConstrainedKMeans(problem.k, init=problem.start),
    ):
        model.fit(problem.x)
        np.testing.assert_array_equal(model.labels_, problem.y)
        np.testing.assert_array_equal(model.predict(problem.x), problem.y)
        assert model.inertia_ == pytest.approx(right, rel=1e-5)
        assert model.score(problem.x) == pytest.approx(-right, rel=1e-5)
        assert model.cluster_centers_.dtype == published
        assert np.isfinite(model.history_).all()
        assert model.status_ == Status.CONVERGED


@pytest.mark.parametrize("unit", [1e-46, 1e-30, 1e40])
def test_the_unit_of_weights_does_not_matter(unit):
    weights = unit * np.random.default_rng(0).integers(1, 4, len(PLAIN.x))
    pairs = {"must_link": [[0, 1]], "cannot_link": [[2, 3], [3, 4]]}
    one = ConstrainedKMeans(3, init=PLAIN.start).fit(PLAIN.x, sample_weight=weights / unit, **pairs)
    other = ConstrainedKMeans(3, init=PLAIN.start).fit(PLAIN.x, sample_weight=weights, **pairs)
    np.testing.assert_array_equal(one.labels_, other.labels_)
    assert other.inertia_ / unit == pytest.approx(one.inertia_, rel=1e-6)

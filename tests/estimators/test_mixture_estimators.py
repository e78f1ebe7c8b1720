"""GaussianMixture behaves as scikit-learn's, and computes nothing that the functions under it do not."""

from __future__ import annotations

import warnings

import jax
import numpy as np
import pytest
import sklearn.mixture
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_sample_weight_equivalence_on_dense_data, parametrize_with_checks

from jaxcluster import gmm
from jaxcluster.estimators import BayesianGaussianMixture, GaussianMixture, load
from jaxcluster.types import Status

TYPES = ("full", "tied", "diag", "spherical")

PUBLISHED = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")

# A start that does not depend on chance: a weighted row is drawn by other random numbers than its copies.
CHECKED = [GaussianMixture(2, covariance_type="diag", init_params="random_from_data")]
CHANCE = "random streams differ between weights and copies"
CLASSIFIER = "the check of sparse rows takes every estimator with predict_proba for a classifier"
EXCUSED = {
    "check_sample_weight_equivalence_on_dense_data": CHANCE,
    "check_sample_weight_equivalence_on_sparse_data": CHANCE,
    "check_estimator_sparse_array": CLASSIFIER,
    "check_estimator_sparse_matrix": CLASSIFIER,
}


@parametrize_with_checks(CHECKED)
def test_scikit_learn_contract(estimator, check):
    if reason := EXCUSED.get(getattr(check, "func", check).__name__):
        pytest.xfail(reason)
    check(estimator)


def test_scikit_learn_weight_contract_without_chance():
    estimator = GaussianMixture(covariance_type="diag", init_params="random_from_data")
    check_sample_weight_equivalence_on_dense_data("GaussianMixture", estimator)


@pytest.fixture(scope="module")
def start(blobs):
    """Parameters that both libraries start from, by type."""
    d = blobs.x.shape[1]
    eye = np.eye(d)
    precisions = {"full": np.stack([eye] * 4), "tied": eye, "diag": np.ones((4, d)), "spherical": np.ones(4)}
    common = {"weights_init": np.full(4, 0.25), "means_init": blobs.centers + 1}
    return {name: {**common, "precisions_init": precisions[name], "covariance_type": name} for name in TYPES}


@pytest.mark.parametrize("name", TYPES)
def test_everything_published_is_scikit_learns(blobs, start, name):
    ours = GaussianMixture(4, **start[name]).fit(blobs.x)
    theirs = sklearn.mixture.GaussianMixture(4, **start[name]).fit(blobs.x)
    for attribute in PUBLISHED:
        value, expected = getattr(ours, attribute), getattr(theirs, attribute)
        assert value.shape == expected.shape
        np.testing.assert_allclose(value, expected, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(ours.lower_bounds_, theirs.lower_bounds_, atol=1e-4)
    assert (ours.n_iter_, ours.converged_) == (theirs.n_iter_, theirs.converged_)
    np.testing.assert_allclose(ours.lower_bound_, theirs.lower_bound_, atol=1e-4)
    for method in ("predict", "predict_proba", "score_samples", "score", "aic", "bic"):
        expected = getattr(theirs, method)(blobs.x)
        np.testing.assert_allclose(getattr(ours, method)(blobs.x), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(ours.labels_, ours.predict(blobs.x))


def test_numbers_are_those_of_the_function(blobs):
    estimator = GaussianMixture(4, n_init=2, random_state=7).fit(blobs.x)
    fit = gmm.fit(jax.random.key(7), blobs.x, 4, n_init=2)
    np.testing.assert_array_equal(estimator.means_, fit.state.means)
    np.testing.assert_array_equal(estimator.labels_, fit.labels)
    np.testing.assert_array_equal(estimator.lower_bounds_, gmm.lower_bounds(fit)[: int(fit.steps)])
    assert adjusted_rand_score(blobs.y, estimator.labels_) == 1


def test_weights_count_as_copies(blobs, start):
    # As a draw with replacement takes the rows, some never and as many as there are: one program serves both fits.
    weights = np.random.default_rng(1).multinomial(300, np.full(300, 1 / 300))
    weighted = GaussianMixture(4, **start["full"]).fit(blobs.x, sample_weight=weights)
    copied = GaussianMixture(4, **start["full"]).fit(np.repeat(blobs.x, weights, axis=0))
    for attribute in PUBLISHED:
        np.testing.assert_allclose(getattr(weighted, attribute), getattr(copied, attribute), rtol=1e-3, atol=1e-3)
    x = np.repeat(blobs.x, weights, axis=0)
    for method in ("score", "aic", "bic"):
        given = getattr(weighted, method)(blobs.x, sample_weight=weights)
        np.testing.assert_allclose(given, getattr(weighted, method)(x), rtol=1e-5)


def test_a_warm_start_goes_on(blobs, start):
    first = GaussianMixture(4, **start["full"], max_iter=2, tol=0, warm_start=True)
    whole = GaussianMixture(4, **start["full"], max_iter=4, tol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        first.fit(blobs.x).fit(blobs.x)
        whole.fit(blobs.x)
    np.testing.assert_allclose(first.means_, whole.means_, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(first.lower_bound_, whole.lower_bound_, rtol=1e-5)


@pytest.mark.parametrize("name", TYPES)
def test_samples_are_of_the_mixture(blobs, start, name):
    estimator = GaussianMixture(4, **start[name], random_state=0).fit(blobs.x)
    x, y = estimator.sample(8_000)
    assert x.shape == (8_000, 5)
    assert (np.diff(y) >= 0).all()
    np.testing.assert_allclose(np.bincount(y) / 8_000, estimator.weights_, atol=0.03)
    for j in range(4):
        np.testing.assert_allclose(x[y == j].mean(0), estimator.means_[j], atol=0.15)
    assert abs(estimator.score(x) - estimator.score(blobs.x)) < 0.2


def test_missing_cells_pass_on_request_alone(blobs):
    x = np.where(np.random.default_rng(0).random(blobs.x.shape) < 0.1, np.nan, blobs.x)
    with pytest.raises(ValueError, match=r"NaN values in columns 0, 1, 2, 3, 4.*or pass missing=True"):
        GaussianMixture(4).fit(x)
    estimator = GaussianMixture(4, covariance_type="diag", missing=True, random_state=0).fit(x)
    assert adjusted_rand_score(blobs.y, estimator.predict(x)) > 0.9
    assert np.isfinite(estimator.bic(x))
    assert np.isfinite(estimator.predict_proba(x[np.isnan(x).any(axis=1)][:1])).all()
    with pytest.raises(ValueError, match="infinity"):
        estimator.predict(np.where(np.isnan(x), np.inf, x))


STREAMED = {"covariance_type": "diag", "init_params": "k-means++", "random_state": 0}


def test_streams_and_batches_come_near_to_the_fit(blobs):
    options = STREAMED
    whole = GaussianMixture(4, **options).fit(blobs.x)
    stream = GaussianMixture(4, **options)
    for batch in np.split(blobs.x, 3) * 2:
        stream.partial_fit(batch)
    assert stream.n_iter_ == 5
    assert len(stream.lower_bounds_) == 6
    batches = GaussianMixture(4, batch_size=64, **options).fit(blobs.x)
    for estimator in (stream, batches):
        assert adjusted_rand_score(blobs.y, estimator.predict(blobs.x)) == 1
        assert estimator.score(blobs.x) > whole.score(blobs.x) - 0.2
    steps = whole.n_iter_
    assert whole.partial_fit(blobs.x[:100]).n_iter_ == steps + 1


def test_a_stream_goes_on_after_a_load(blobs, tmp_path):
    stream = GaussianMixture(4, **STREAMED).partial_fit(blobs.x[:100])
    stream.save(tmp_path / "model")
    stream.partial_fit(blobs.x[100:200])
    back = load(tmp_path / "model").partial_fit(blobs.x[100:200])
    for attribute in PUBLISHED:
        np.testing.assert_array_equal(getattr(back, attribute), getattr(stream, attribute))


def test_collapsed_components_are_named():
    x = np.repeat(np.eye(3, 5), 100, axis=0)
    with pytest.warns(ConvergenceWarning, match=r"components 0, 1, 2, 3 of 4 collapsed.*reg_covar=1e-06.*fewer"):
        estimator = GaussianMixture(4, n_init=2, random_state=0).fit(x)
    assert estimator.status_ == Status.COLLAPSED
    assert all(np.isfinite(getattr(estimator, name)).all() for name in PUBLISHED)
    assert np.isfinite(estimator.score_samples(x)).all()


@pytest.mark.parametrize("unit", [1e30, 2.0**-60])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_unit_of_the_rows_does_not_matter(blobs, unit, dtype):
    plain = GaussianMixture(4, random_state=0, covariance_type="diag").fit(blobs.x)
    scaled = (blobs.x.astype(np.float64) * unit).astype(dtype)
    # In Python's numbers: the ridge of rows near 1e-30 is below what float32 holds.
    estimator = GaussianMixture(4, random_state=0, covariance_type="diag", reg_covar=1e-6 * unit**2).fit(scaled)
    assert estimator.status_ == plain.status_
    np.testing.assert_array_equal(estimator.labels_, plain.labels_)
    np.testing.assert_array_equal(estimator.predict(scaled), estimator.labels_)
    np.testing.assert_allclose(estimator.means_ / unit, plain.means_, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.float64(estimator.covariances_) / unit**2, plain.covariances_, rtol=1e-3)
    shift = 5 * np.log(unit)
    np.testing.assert_allclose(estimator.lower_bound_ + shift, plain.lower_bound_, atol=1e-3)
    np.testing.assert_allclose(estimator.score(scaled) + shift, plain.score(blobs.x), atol=1e-3)


def test_ridge_above_the_variance_warns(blobs):
    with pytest.warns(ConvergenceWarning, match="reg_covar=1e-06 is more than the variance of the rows in every comp"):
        GaussianMixture(4, random_state=0, covariance_type="diag").fit(blobs.x.astype(np.float64) * 1e-4)


def test_max_iter_warning_as_in_scikit_learn(blobs, start):
    with pytest.warns(ConvergenceWarning, match="did not converge in max_iter=1 steps"):
        estimator = GaussianMixture(4, **start["full"], max_iter=1).fit(blobs.x)
    assert not estimator.converged_


def test_float64_is_kept_where_x64_is_on(blobs, start):
    x = blobs.x.astype(np.float64)
    with jax.enable_x64(True):
        ours = GaussianMixture(4, **start["full"]).fit(x)
        assert ours.score_samples(x).dtype == np.float64
    theirs = sklearn.mixture.GaussianMixture(4, **start["full"]).fit(x)
    for attribute in PUBLISHED:
        np.testing.assert_allclose(getattr(ours, attribute), getattr(theirs, attribute), rtol=1e-6, atol=1e-10)


BAD_OPTIONS = [
    ({"n_components": 0}, "n_components=0 must be at least 1"),
    ({"n_components": 7}, "n_samples=6 should be >= n_components=7"),
    ({"covariance_type": "spheric"}, "covariance_type='spheric' is not known.*Did you mean 'spherical'"),
    ({"init_params": "k-mean"}, "init_params='k-mean' is not known"),
    ({"reg_covar": -1e-6}, "reg_covar=-1e-06 must be at least 0"),
    ({"tol": -1.0}, "tol=-1.0 must be at least 0"),
    ({"max_iter": -1}, "max_iter=-1 must be at least 1"),
    ({"n_init": 0}, "n_init=0 must be at least 1"),
    ({"weights_init": [0.5, 0.6]}, r"must not be negative and must sum to 1.*sum 1.1"),
    ({"weights_init": [1.0]}, r"weights of init must have shape \(2,\)"),
    ({"means_init": np.ones((2, 3))}, r"means of init must have shape \(2, 6\)"),
    ({"precisions_init": np.stack([np.eye(6), -np.eye(6)])}, "not positive definite for component 1"),
    ({"precisions_init": np.stack([np.triu(np.ones((6, 6))), np.eye(6)])}, "not symmetric for component 0"),
    ({"batch_size": 0}, "batch_size=0 must be at least 1"),
    ({"decay": 0.3, "batch_size": 4}, "decay=0.3 must be greater than 0.5"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options_are_refused_with_a_reason(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        GaussianMixture(**{"n_components": 2, **options}).fit(np.eye(6))


@pytest.mark.parametrize("heavy", [1e6, 1e9, 1e12])
@pytest.mark.parametrize("name", ["full", "diag", "spherical"])
def test_dominant_weight_collapses_a_component(name, heavy):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(59, 2)) + 12 * (np.arange(59) >= 29)[:, None]
    with pytest.warns(ConvergenceWarning, match=r"component 0 of 2 collapsed"):
        estimator = GaussianMixture(2, covariance_type=name, random_state=0).fit(
            x, sample_weight=np.where(np.arange(59) == 3, heavy, 1.0)
        )
    assert estimator.status_ == Status.COLLAPSED
    np.testing.assert_array_equal(np.flatnonzero(estimator.labels_ == 0), [3])


@pytest.mark.parametrize("make", [GaussianMixture, BayesianGaussianMixture])
def test_published_weights_start_scikit_learn(make, blobs):
    for dtype in (np.float32, np.float64):
        weights = make(4, random_state=0).fit(blobs.x.astype(dtype)).weights_
        assert weights.dtype == dtype
        np.testing.assert_allclose(weights.sum(), 1, rtol=0, atol=1e-6 if dtype == np.float32 else 1e-15)
        sklearn.mixture.GaussianMixture(4, weights_init=weights, max_iter=2, tol=10).fit(blobs.x.astype(dtype))


@pytest.mark.parametrize("partly", [False, True])
def test_weights_of_streams_sum_to_1_in_float64(partly, blobs):
    estimator = GaussianMixture(4, batch_size=64, **STREAMED)
    (estimator.partial_fit if partly else estimator.fit)(blobs.x[: 100 if partly else None].astype(np.float64))
    np.testing.assert_allclose(estimator.weights_.sum(), 1, rtol=0, atol=1e-15)

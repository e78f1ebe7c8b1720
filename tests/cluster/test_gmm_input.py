"""Bad input of mixtures, and problems without a good answer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixture_problems import KEY, TYPES, D, K, N, assert_never_falls, separate, status
from sklearn.metrics import adjusted_rand_score

from jaxcluster import gmm
from jaxcluster.types import Status

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


FULL_START = gmm.GMMInit(np.zeros((2, 3)), [0.5, 0.5], np.broadcast_to(np.eye(3), (2, 3, 3)))
SKEW = np.eye(3) + np.triu(np.full((3, 3), 0.5), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 9}, "n_samples=8 should be >= k=9"),
        ({"reg_covar": -1e-3}, "reg_covar=-0.001 must be at least 0"),
        ({"tol": -1.0}, "tol=-1.0 must be at least 0"),
        ({"tol": np.nan}, "tol=nan must be at least 0"),
        ({"max_steps": -1}, "max_steps=-1 must be at least 0"),
        ({"n_init": 0}, "n_init=0 must be at least 1"),
        ({"covariance": "diagonal"}, "covariance='diagonal' is not known.*'diag'"),
        ({"covariance": "ful"}, "Did you mean 'full'"),
        ({"init": "k-mean"}, "init='k-mean' is not known.*Did you mean"),
        ({"precision": "low"}, "precision='low' is not known"),
        ({"weights": np.ones(7)}, r"weights must have shape \(8,\)"),
        ({"active": np.ones(3, bool)}, r"active must be a \(2,\) mask"),
        ({"init": np.ones((3, 3))}, r"means of init must have shape \(2, 3\) for full, got \(3, 3\)"),
        ({"init": FULL_START._replace(weights=[1.0])}, r"weights of init must have shape \(2,\)"),
        (
            {"init": FULL_START._replace(weights=[0.5, 0.6])},
            "weights of init must not be .* and must sum to 1.*sum 1.1",
        ),
        (
            {"init": FULL_START._replace(weights=[1.5, -0.5])},
            "weights of init must not be negative.*least is -0.5",
        ),
        ({"init": FULL_START._replace(precisions=np.eye(3))}, r"precisions of init must have shape \(2, 3, 3\)"),
        ({"init": FULL_START._replace(precisions=np.stack([np.eye(3), SKEW]))}, "not symmetric for component 1"),
        (
            {"init": FULL_START._replace(precisions=np.stack([-np.eye(3), np.eye(3)]))},
            "not positive definite for component 0",
        ),
        (
            {"init": gmm.GMMInit(precisions=np.array([[1, 1, 1], [1, 0, 1]])), "covariance": "diag"},
            "not positive for component 1",
        ),
        ({"init": gmm.GMMInit(precisions=np.array([0.0, -1])), "covariance": "spherical"}, "for components 0, 1"),
        (
            {"init": gmm.GMMInit(precisions=-np.eye(3)), "covariance": "tied"},
            "precisions of init are not positive",
        ),
        ({"init": gmm.GMMInit(means=np.full((2, 3), np.nan))}, "means contains 6 NaN"),
        ({"init": gmm.GMMInit(responsibilities=np.ones((8, 2)))}, "must sum to 1 for each row.*row 0 sums to 2"),
        ({"init": gmm.GMMInit(responsibilities=np.ones((7, 2)) / 2)}, r"responsibilities .* shape \(8, 2\)"),
        ({"init": {"centers": np.ones((2, 3))}}, r"init has unknown entries \['centers'\]"),
        ({"init": gmm.GMMInit(method="median")}, "init='median' is not known"),
    ],
)
def test_bad_options(options, message):
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    options = {"k": 2, **options}
    with pytest.raises(ValueError, match=message):
        gmm.fit(KEY, x, options.pop("k"), **options)


def test_a_state_of_another_type_is_no_start():
    state = gmm.GMMState(jnp.ones(2) / 2, jnp.zeros((2, 3)), jnp.ones((2, 3)), *[jnp.zeros(())] * 3)
    with pytest.raises(ValueError, match="init is a state with diag covariances, but covariance='full'"):
        gmm.fit(KEY, np.eye(3, dtype=np.float32), 2, init=state)


@pytest.mark.parametrize("reg_covar", [0.0, 1e-6])
@pytest.mark.parametrize("covariance", TYPES)
def test_more_components_than_distinct_rows(covariance, reg_covar):
    x = np.repeat(np.eye(2, D, dtype=np.float32) * 3, N // 2, axis=0)
    fit = gmm.fit(KEY, x, K, covariance=covariance, reg_covar=reg_covar)
    assert status(fit) is Status.COLLAPSED
    assert np.any(fit.state.collapsed)
    for leaf in fit.state[:4]:
        assert np.isfinite(leaf).all()
    assert_never_falls(fit)
    labels = np.asarray(fit.labels)
    assert len(set(labels[: N // 2])) == len(set(labels[N // 2 :])) == 1
    assert np.isfinite(gmm.score_samples(fit.state, x)).all()


@pytest.mark.parametrize("covariance", TYPES)
def test_collapsing_component_leaves_the_others(covariance):
    x, y = separate()
    x[y == 1] = x[y == 1][0]
    fit = gmm.fit(KEY, x, K, covariance=covariance)
    assert adjusted_rand_score(fit.labels, y) == 1
    at = int(fit.labels[1])
    expected = np.zeros(K, bool) if covariance == "tied" else np.arange(K) == at
    np.testing.assert_array_equal(fit.state.collapsed, expected)
    assert status(fit) is (Status.CONVERGED if covariance == "tied" else Status.COLLAPSED)


@pytest.mark.parametrize("covariance", TYPES)
def test_a_constant_column_and_repeated_rows_are_fine(covariance):
    x, y = separate()
    x[:, 3] = 7
    x = np.repeat(x[: N // 2], 2, axis=0)
    fit = gmm.fit(KEY, x, K, covariance=covariance)
    assert adjusted_rand_score(fit.labels, np.repeat(y[: N // 2], 2)) == 1
    assert np.isfinite(fit.state.covariances).all()
    np.testing.assert_allclose(fit.state.means[:, 3], 7, rtol=1e-6)


@pytest.mark.parametrize("reg_covar", [0.0, 1e-6])
@pytest.mark.parametrize("covariance", ["full", "tied"])  # variances need no more rows than columns
def test_more_columns_than_rows(covariance, reg_covar):
    x = np.random.default_rng(0).normal(size=(8, 20)).astype(np.float32)
    fit = gmm.fit(KEY, x, 2, covariance=covariance, reg_covar=reg_covar)
    singular = reg_covar == 0
    # In float32 a ridge of 1e-6 is ten times the rounding of the directions in which there are no rows.
    assert status(fit) in ((Status.COLLAPSED,) if singular else (Status.CONVERGED, Status.PRECISION))
    assert bool(np.all(fit.state.collapsed)) == singular
    for leaf in fit.state[:4]:
        assert np.isfinite(leaf).all()
    assert np.isfinite(gmm.score_samples(fit.state, x)).all()


@pytest.mark.parametrize("scale_of", [1e-30, 1e-15, 1e15, 1e25, 3e38])
@pytest.mark.parametrize("covariance", TYPES)
def test_numbers_at_the_ends_of_float32(covariance, scale_of):
    rows, y = separate()
    x = (rows.astype(np.float64) / 12 * scale_of).astype(np.float32)
    assert np.isfinite(x).all()
    fit = gmm.fit(KEY, x, K, covariance=covariance, reg_covar=0.0)
    assert status(fit) is Status.CONVERGED
    for leaf in fit.state[:4]:
        assert np.isfinite(leaf).all()
    assert adjusted_rand_score(fit.labels, y) == 1
    np.testing.assert_array_equal(gmm.predict(fit.state, x), fit.labels)


def test_nan_inside_jit_is_a_status():
    x = jnp.ones((20, 3)).at[4, 1].set(jnp.nan)
    fit = jax.jit(lambda x: gmm.fit(KEY, x, 2, covariance="spherical", init=x[:2]))(x)
    assert status(fit) is Status.NOT_FINITE

"""Sweeps over mixtures, and what a fitted mixture says of rows: densities, samples, criteria, a loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixture_problems import KEY, SETS, TYPES, D, K, N, dense, parameters, public, separate, theirs_from

from jaxcluster import gmm

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


# Sweeps.


@pytest.fixture(scope="module")
def swept():
    x = separate()[0]
    return x, gmm.sweep(KEY, x, [2, 3, 4], covariances=("tied", "spherical"), n_seeds=2, tol=1e-4)


def test_a_sweep_finds_the_number_of_components(swept):
    _, found = swept
    assert found.bic.shape == found.aic.shape == found.log_likelihood.shape == (2, 3, 2)
    k, covariance, seed = found.best()
    assert k == K
    kind = found.covariances.index(covariance)
    assert found.bic[kind, 1, seed] == found.bic.min()
    assert found.best("aic")[1] in found.covariances
    fit = found.fits["tied"]
    assert fit.labels.shape == (3, 2, N)
    assert fit.state.means.shape == (3, 2, 4, D)
    assert (np.asarray(fit.state.weights)[0, :, 2:] == 0).all()
    np.testing.assert_allclose(np.sum(fit.state.weights, axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize("covariance", ["tied", "spherical"])
def test_a_sweep_equals_single_fits(swept, covariance):
    x, found = swept
    kind, fits = found.covariances.index(covariance), found.fits[covariance]
    keys = jax.random.split(KEY, 6).reshape(3, 2)
    for at, k in ((0, 2), (1, K)):
        for seed in range(2):
            one = gmm.fit(keys[at, seed], x, k, covariance=covariance, tol=1e-4)
            np.testing.assert_array_equal(fits.labels[at, seed], one.labels)
            assert int(fits.steps[at, seed]) == int(one.steps)
            np.testing.assert_allclose(found.bic[kind, at, seed], gmm.bic(one.state, x), rtol=1e-4)
            np.testing.assert_allclose(found.aic[kind, at, seed], gmm.aic(one.state, x), rtol=1e-4)
            np.testing.assert_allclose(found.log_likelihood[kind, at, seed], gmm.score(one.state, x), rtol=1e-4)


@pytest.mark.parametrize(
    ("ks", "options", "message"),
    [
        ([], {}, r"ks=\[\] must be one or more distinct"),
        ([2, 2], {}, r"ks=\[2, 2\] must be one or more distinct"),
        ([2], {"covariances": ()}, r"covariances=\[\] must be"),
        ([2], {"covariances": ("full", "full")}, "covariances=.* must be one or more distinct"),
        ([2], {"covariances": "fulll"}, "covariance='fulll' is not known.*Did you mean 'full'"),
        ([2, 9], {}, "n_samples=5 should be >= ks=9"),
        ([2], {"init": "best"}, "init='best' is not known"),
        ([2], {"tol": -1.0}, "tol=-1.0 must be at least 0"),
    ],
)
def test_bad_sweeps(ks, options, message):
    with pytest.raises(ValueError, match=message):
        gmm.sweep(KEY, np.ones((5, 2), np.float32), ks, **options)


def test_a_bad_criterion(swept):
    with pytest.raises(ValueError, match="criterion='bicc' is not known.*Did you mean 'bic'"):
        swept[1].best("bicc")


# Densities, samples and criteria.


def theirs_as_state(theirs, covariance):
    covariances = jnp.asarray(public(covariance, theirs.covariances_))
    arrays = jnp.asarray(theirs.weights_), jnp.asarray(theirs.means_), covariances
    return gmm.GMMState(*arrays, jnp.asarray(theirs.lower_bound_), jnp.zeros(K, bool), jnp.asarray(0.0))


def test_a_far_row_is_in_some_component():
    x = SETS["iris"]()
    state = theirs_as_state(theirs_from(x, parameters(x, "diag"), "diag"), "diag")
    proba = gmm.predict_proba(state, np.array([[1e3], [1e9], [-1e30]]) * np.ones(D))
    np.testing.assert_allclose(np.sum(proba, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("covariance", TYPES)
def test_densities_agree_with_scikit_learn(covariance):
    x = SETS["iris"]()
    theirs = theirs_from(x, parameters(x, covariance), covariance)
    with jax.enable_x64(True):
        state = theirs_as_state(theirs, covariance)
        np.testing.assert_allclose(gmm.predict_proba(state, x), theirs.predict_proba(x), rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(gmm.score_samples(state, x), theirs.score_samples(x), rtol=1e-9)
        np.testing.assert_array_equal(gmm.predict(state, x), theirs.predict(x))
        assert float(gmm.score(state, x)) == pytest.approx(theirs.score(x), rel=1e-9)
        assert float(gmm.negative_log_likelihood(state, x)) == pytest.approx(-theirs.score(x), rel=1e-9)
        assert float(gmm.aic(state, x)) == pytest.approx(theirs.aic(x), rel=1e-9)
        assert float(gmm.bic(state, x)) == pytest.approx(theirs.bic(x), rel=1e-9)
        assert gmm.n_parameters(covariance, K, D) == theirs._n_parameters()
        repeats = np.arange(N) % 3
        twice = np.repeat(x, repeats, axis=0)
        weights = repeats.astype(float)
        assert float(gmm.score(state, x, weights=weights)) == pytest.approx(theirs.score(twice), rel=1e-9)
        assert float(gmm.bic(state, x, weights=weights)) == pytest.approx(theirs.bic(twice), rel=1e-9)


@pytest.mark.parametrize("covariance", TYPES)
def test_samples_have_the_moments_of_the_mixture(covariance):
    x, n = SETS["iris"](), 20_000
    theirs = theirs_from(x, parameters(x, covariance), covariance)
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), theirs_as_state(theirs, covariance))
    drawn, labels = gmm.sample(KEY, state, n)
    drawn, labels = np.asarray(drawn, np.float64), np.asarray(labels)
    assert drawn.shape == (n, D)
    np.testing.assert_allclose(np.bincount(labels, minlength=K) / n, theirs.weights_, atol=0.015)
    for j, spread in enumerate(dense(state)):
        scale_of = np.sqrt(spread.max())
        np.testing.assert_allclose(drawn[labels == j].mean(0), theirs.means_[j], atol=0.06 * scale_of)
        np.testing.assert_allclose(np.cov(drawn[labels == j].T), spread, atol=0.06 * spread.max())


@pytest.mark.parametrize("covariance", TYPES)
def test_the_loss_has_a_gradient(covariance):
    x = SETS["iris"]()
    theirs = theirs_from(x, parameters(x, covariance), covariance, max_iter=3)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        state = theirs_as_state(theirs, covariance)

        def loss(weights, means, covariances, x):
            full = state._replace(weights=weights, means=means, covariances=covariances)
            return gmm.negative_log_likelihood(full, x)

        at = (*state[:3], jnp.asarray(x))
        gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(*at)
        value = jax.jit(loss)
        for i, gradient in enumerate(gradients):
            direction = rng.normal(size=gradient.shape)
            if direction.ndim == 3:
                direction = direction + np.swapaxes(direction, 1, 2)
            step = 1e-6 * (1e-2 if i == 2 else 1)

            def objective_at(sign, i=i, direction=direction, step=step):
                return value(*at[:i], at[i] + sign * step * direction, *at[i + 1 :])

            difference = (objective_at(1) - objective_at(-1)) / (2 * step)
            # Each value of the objective is rounded by some eps.
            rounding = 8 * np.finfo(float).eps * abs(float(value(*at))) / step
            np.testing.assert_allclose(np.vdot(gradient, direction), difference, rtol=1e-5, atol=rounding)


@pytest.mark.parametrize("field", ["weights", "means", "covariances"])
def test_loss_has_a_gradient_of_one_part_of_a_state(field):
    x = SETS["iris"]().astype(np.float32)
    state = gmm.fit(KEY, x, K, covariance="diag").state
    gradient = jax.grad(lambda part: gmm.negative_log_likelihood(state._replace(**{field: part}), x))
    assert np.isfinite(gradient(getattr(state, field))).all()


def test_a_state_of_other_width_or_shape_is_refused():
    state = gmm.GMMState(
        jnp.ones(1), jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.zeros(()), jnp.zeros(1, bool), jnp.zeros(())
    )
    with pytest.raises(ValueError, match="x has 3 columns, but the model was fitted on 2"):
        gmm.predict(state, np.ones((5, 3)))
    with pytest.raises(ValueError, match=r"covariances of shape \(2, 2\) fit no type"):
        gmm.predict(state._replace(covariances=jnp.ones((2, 2))), np.ones((5, 2)))
    with pytest.raises(ValueError, match="n=0 must be at least 1"):
        gmm.sample(KEY, state, 0)

"""Gaussian mixtures against scikit-learn from the same start, and the promises that every algorithm keeps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixture_problems import (
    KEY,
    SETS,
    TYPES,
    D,
    K,
    N,
    assert_never_falls,
    assert_parity,
    assert_same_fit,
    bounds,
    dense,
    parameters,
    random_responsibilities,
    separate,
    status,
    theirs_from,
)
from sklearn.metrics import adjusted_rand_score

from jaxcluster import gmm
from jaxcluster.cluster.gmm import em
from jaxcluster.core.preparation import padded_size
from jaxcluster.ops.gaussian import COVARIANCE_TYPES
from jaxcluster.sharding import fit_sharded
from jaxcluster.types import Status

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


# Parity with scikit-learn in float64.


@pytest.mark.parametrize(
    ("covariance", "name", "given", "reg_covar"),
    [
        *((covariance, name, "parameters", 0.0) for covariance in TYPES for name in SETS),
        *((covariance, "iris", "parameters", 1e-6) for covariance in TYPES),
        *((covariance, "iris", "responsibilities", 1e-6) for covariance in ("tied", "diag")),  # matrices, and variances
    ],
)
def test_ten_steps_from_the_same_start(covariance, name, given, reg_covar):
    x = SETS[name]()
    start = (
        parameters(x, covariance) if given == "parameters" else gmm.GMMInit(responsibilities=random_responsibilities())
    )
    theirs = theirs_from(x, start, covariance, tol=0, max_iter=10, reg_covar=reg_covar)
    with jax.enable_x64(True):
        ours = gmm.fit(KEY, x, K, covariance=covariance, init=start, tol=0.0, max_steps=10, reg_covar=reg_covar)
        assert_parity(ours, theirs, covariance, x)
        assert status(ours) is Status.MAX_STEPS


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("covariance", TYPES)
def test_converged_fits_agree(covariance, name):
    x = SETS[name]()
    start = parameters(x, covariance)
    theirs = theirs_from(x, start, covariance)
    with jax.enable_x64(True):
        ours = gmm.fit(KEY, x, K, covariance=covariance, init=start)
        assert_parity(ours, theirs, covariance, x)
        assert (status(ours) is Status.CONVERGED) == theirs.converged_


# float32.


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("covariance", TYPES)
def test_float32_stays_by_float64(covariance, name, offset):
    x = SETS[name]().astype(np.float32) + np.float32(offset)
    start = parameters(x, covariance)
    options = {"covariance": covariance, "init": start, "tol": 0.0, "max_steps": 10}
    narrow = gmm.fit(KEY, x, K, **options)
    with jax.enable_x64(True):
        wide = gmm.fit(KEY, x.astype(np.float64), K, **options)
        assert wide.state.lower_bound.dtype == np.float64
        assert narrow.state.lower_bound.dtype == np.float32
        assert abs(float(narrow.state.lower_bound) - float(wide.state.lower_bound)) < 1e-3
        assert (np.asarray(narrow.labels) == np.asarray(wide.labels)).mean() > 0.99


@pytest.mark.parametrize("covariance", ["tied", "diag", "spherical"])
def test_an_offset_breaks_scikit_learn_and_not_us(covariance):
    # E[x²] − μ² in float32: scikit-learn's full type takes differences and bears it, the others turn negative.
    x = (SETS["iris"]() + 1e4).astype(np.float32)
    start = parameters(x - np.float32(1e4), covariance)
    start = start._replace(means=start.means + 1e4)
    exact = theirs_from(x.astype(np.float64), start, covariance, tol=0, max_iter=10)
    with pytest.raises(ValueError, match="ill-defined"):
        theirs_from(x, start, covariance, tol=0, max_iter=10)
    ours = gmm.fit(KEY, x, K, covariance=covariance, init=start, tol=0.0, max_steps=10)
    assert abs(float(ours.state.lower_bound) - exact.lower_bound_) < 1e-3


@pytest.mark.parametrize("reg_covar", [0.0, 1e-6])
@pytest.mark.parametrize("covariance", TYPES)
def test_tight_clusters_far_apart(covariance, reg_covar):
    x, y = separate(distance=10, deviation=1e-3)
    start = parameters(x, covariance)._replace(means=x[:K])
    options = {"covariance": covariance, "init": start, "tol": 0.0, "max_steps": 20, "reg_covar": reg_covar}
    narrow = gmm.fit(KEY, x, K, **options)
    np.testing.assert_array_equal(narrow.labels, y)
    with jax.enable_x64(True):
        wide = gmm.fit(KEY, x.astype(np.float64), K, **options)
        assert float(wide.state.lower_bound) > 18
        assert abs(float(narrow.state.lower_bound) - float(wide.state.lower_bound)) < 1e-3
        np.testing.assert_allclose(dense(narrow.state), dense(wide.state), atol=1e-2 * float(np.max(dense(wide.state))))
    np.testing.assert_allclose(narrow.state.means, [x[y == j].astype(float).mean(0) for j in range(K)], atol=1e-5)


# The promises that every algorithm keeps.


def from_parameters(x, covariance, **options):
    return gmm.fit(KEY, x, K, covariance=covariance, init=parameters(separate()[0], covariance), **options)


@pytest.mark.parametrize("covariance", TYPES)
def test_weights_are_repetitions_and_0_does_not_count(covariance):
    half = N // 2
    x = separate()[0][:half]
    repeats = 1 + np.random.default_rng(0).multinomial(N - half, np.full(half, 1 / half))
    far = np.arange(1, N - half + 1, dtype=np.float32)[:, None] * np.ones(D, np.float32)
    both, weights = np.concatenate([x, far]), np.pad(repeats, (0, N - half)).astype(np.float32)
    options = {"tol": 0.0, "max_steps": 10}
    repeated = from_parameters(np.repeat(x, repeats, axis=0), covariance, **options)
    weighted = from_parameters(both, covariance, weights=weights, **options)
    np.testing.assert_array_equal(np.repeat(np.asarray(weighted.labels)[:half], repeats), repeated.labels)
    assert_same_fit(repeated, weighted._replace(labels=repeated.labels), rtol=1e-3, atol=1e-3)
    assert_same_fit(weighted, from_parameters(both, covariance, weights=7 * weights, **options))


@pytest.mark.parametrize("covariance", ["tied", "spherical"])  # the others: test_contracts.py
def test_vmap_and_jit_equal_eager_in_any_tile(covariance, monkeypatch):
    batch = np.stack([separate(seed=seed, deviation=2.0)[0] for seed in range(3)]) + np.float32([[[0]], [[1]], [[50]]])
    means = batch[:, :K]
    given = parameters(batch[0], covariance)

    def fit(x, means):
        return gmm.fit(KEY, x, K, covariance=covariance, init=given._replace(means=means), tol=1e-4)

    alone, used = [fit(x, start) for x, start in zip(batch, means, strict=True)], []
    monkeypatch.setattr(em, "em_tile", lambda *_: used.append(37) or 37)
    # Traced rows are another program: nothing compiled before comes into play.
    together = jax.jit(jax.vmap(fit))(batch, means)
    assert used
    for i, one in enumerate(alone):
        assert abs(int(one.steps) - int(together.steps[i])) <= 1
        assert_same_fit(one, jax.tree.map(lambda leaf, i=i: leaf[i], together), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("covariance", ["tied", "spherical"])  # the others: test_contracts.py
def test_sharded_equals_single(covariance):
    x, y = separate(N - 1)
    weights = np.random.default_rng(3).integers(1, 4, N - 1).astype(np.float32)
    options = {"covariance": covariance, "weights": weights, "tol": 1e-5, "init": parameters(x, covariance)}
    single = gmm.fit(KEY, x, K, **options)
    assert jax.device_count() == 2
    assert_same_fit(single, fit_sharded(gmm.fit, KEY, x, K, **options), rtol=1e-3, atol=1e-3)
    assert adjusted_rand_score(single.labels, y) == 1


@pytest.mark.parametrize("covariance", ["full", "tied"])  # one matrix for each, and one for all
def test_inactive_components_are_not_there(covariance):
    x = separate(deviation=3.0)[0]
    start = parameters(x, covariance, k=2)
    padded = gmm.GMMInit(
        np.pad(start.means, ((0, 1), (0, 0))),
        np.pad(start.weights, (0, 1)),
        start.precisions if covariance == "tied" else np.concatenate([start.precisions, start.precisions[:1]]),
    )
    options = {"covariance": covariance, "tol": 0.0, "max_steps": 8}
    two = gmm.fit(KEY, x, 2, init=start, **options)
    three = gmm.fit(KEY, x, K, init=padded, active=np.array([True, True, False]), **options)
    np.testing.assert_array_equal(two.labels, three.labels)
    np.testing.assert_allclose(bounds(two), bounds(three), rtol=1e-5)
    np.testing.assert_allclose(two.state.weights, three.state.weights[:2], rtol=1e-4)
    np.testing.assert_allclose(two.state.means, three.state.means[:2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dense(two.state), dense(three.state)[:2], rtol=1e-3, atol=1e-3)
    assert float(three.state.weights[2]) == 0
    assert status(three) is status(two)


@pytest.mark.parametrize("covariance", TYPES)
def test_the_second_fit_compiles_nothing(covariance, compiles):
    x = separate()[0]
    starts = [parameters(x, covariance, seed) for seed in range(2)]
    keys = jax.random.split(KEY, 2)
    assert padded_size(N) == padded_size(N - 5)
    jax.block_until_ready(gmm.fit(keys[0], x, K, covariance=covariance, init=starts[0], tol=1e-4))
    with compiles() as seen:
        limits = {"tol": 1e-2, "max_steps": 50, "reg_covar": 1e-3}
        jax.block_until_ready(gmm.fit(keys[1], x[5:], K, covariance=covariance, init=starts[1], **limits))
    assert seen.count == 0


def test_restarts_keep_the_best():
    x = separate(deviation=3.0)[0]
    options = {"covariance": "spherical", "init": "random_from_data", "max_steps": 3}
    best = gmm.fit(KEY, x, K, n_init=4, **options)
    runs = [gmm.fit(key, x, K, **options) for key in jax.random.split(KEY, 4)]
    reached = [float(run.state.lower_bound) for run in runs]
    assert max(reached) - min(reached) > 1e-3
    np.testing.assert_allclose(best.state.lower_bound, max(reached), rtol=1e-6)
    np.testing.assert_array_equal(best.labels, runs[int(np.argmax(reached))].labels)


@pytest.mark.parametrize("method", gmm.METHODS)
def test_every_start_works(method):
    x, y = separate()
    fits = [gmm.fit(key, x, K, covariance="spherical", init=method, tol=1e-5) for key in jax.random.split(KEY, 4)]
    assert max(adjusted_rand_score(fit.labels, y) for fit in fits) == 1
    for fit in fits:
        assert_never_falls(fit)
    again = gmm.fit(jax.random.split(KEY, 4)[0], x, K, covariance="spherical", init=method, tol=1e-5)
    np.testing.assert_array_equal(again.labels, fits[0].labels)


@pytest.mark.parametrize("covariance", TYPES)
def test_a_state_goes_on_where_it_stopped(covariance):
    x = SETS["wine"]().astype(np.float32)
    start = parameters(x, covariance)
    options = {"covariance": covariance, "tol": 0.0}
    whole = gmm.fit(KEY, x, K, init=start, max_steps=12, **options)
    part = gmm.fit(KEY, x, K, init=start, max_steps=7, **options)
    rest = gmm.fit(KEY, x, K, init=part.state, max_steps=5, **options)
    assert_same_fit(whole, rest, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(bounds(whole)[7:], bounds(rest), rtol=1e-4)


def test_a_start_may_be_given_in_parts():
    x, y = separate()
    means = x[:K]
    fits = [
        gmm.fit(KEY, x, K, covariance="spherical", init=init)
        for init in (gmm.GMMInit(means=means), {"means": means}, (means,), means)
    ]
    for fit in fits:
        np.testing.assert_array_equal(fit.labels, y)
    fit = gmm.fit(KEY, x, K, covariance="spherical", init=gmm.GMMInit(weights=[0.2, 0.3, 0.5], precisions=[1, 1, 1]))
    assert adjusted_rand_score(fit.labels, y) == 1


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_a_fit_never_builds_the_table(covariance):
    n, d, k = 1 << 18, 8, 128

    def fit(key, x, means, weights, precisions):
        return gmm.fit(key, x, k, covariance=covariance, init=gmm.GMMInit(means, weights, precisions))

    shapes = ((n, d), (k, d), (k,), COVARIANCE_TYPES[covariance].shape(k, d))
    compiled = jax.jit(fit).lower(KEY, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < n * k * 4 / 3

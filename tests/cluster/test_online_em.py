"""Stepwise EM: the mixing of batches against NumPy, a whole step against EM, and streams against fits of all rows."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster import gmm
from jaxcluster.cluster.gmm import online_em
from jaxcluster.ops.gaussian import COVARIANCE_TYPES, DIFFERENCES
from jaxcluster.sharding import fit_sharded
from jaxcluster.types import Status

TYPES = ("full", "tied", "diag", "spherical")
REG = 1e-3
SHARES = np.array([0.3, 0.3, 0.2, 0.2], np.float32)


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(3).integers(1, 4, 300).astype(np.float32)


def given(covariance, blobs, offset=0):
    """A start near the truth, of which nothing is left to be found: it costs no compilation of a seeding."""
    precisions = {"full": np.eye(5) / np.ones((4, 1, 1)), "tied": np.eye(5), "diag": np.ones((4, 5))}
    return gmm.GMMInit(blobs.centers + np.float32(offset) + 0.5, SHARES, precisions.get(covariance, np.ones(4)) / 2)


def begin(covariance, blobs, key, offset=0):
    """A stream's state on the first 100 rows."""
    init = given(covariance, blobs, offset)
    return gmm.init(key, blobs.x[:100] + np.float32(offset), 4, covariance=covariance, init=init, reg_covar=REG)


@pytest.fixture(scope="module")
def whole(blobs):
    """Fits of all rows by EM, by type."""
    return cache(
        lambda covariance: gmm.fit(jax.random.key(0), blobs.x, 4, covariance=covariance, init=given(covariance, blobs))
    )


def of_type(name, covariances, proportions):
    """(k, d, d) matrices as `GMMState` holds them."""
    if name == "full":
        return covariances
    if name == "tied":
        return np.einsum("k,kij->ij", proportions / proportions.sum(), covariances)[None]
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    return variances if name == "diag" else variances.mean(1)


def dense(name, covariances, k, d):
    """The covariances of a `GMMState` as (k, d, d) matrices."""
    if name in ("full", "tied"):
        return np.broadcast_to(covariances, (k, d, d))
    return np.asarray(covariances).reshape(k, -1)[:, :, None] * np.eye(d)


def densities(x, means, covariances):
    """(n, k) log-densities."""
    difference = x[:, None] - means
    squares = np.einsum("nki,kij,nkj->nk", difference, np.linalg.inv(covariances), difference)
    return -(squares + np.linalg.slogdet(2 * np.pi * covariances)[1]) / 2


def by_raw_moments(name, state, batches, decay=0.7):
    """Stepwise EM in float64 on sums of r, r·x and r·x·xᵀ: the textbook's form, which cancels in float32."""
    proportions, means = np.asarray(state.weights, float), state.wide_means().astype(float)
    k, d = means.shape
    covariances = dense(name, np.asarray(state.covariances, float), k, d)
    first = proportions[:, None] * means
    raw = covariances - float(state.reg) * np.eye(d)
    second = proportions[:, None, None] * (raw + means[:, :, None] * means[:, None, :])
    for t, (x, w) in enumerate(batches):
        x, w, rate = x.astype(float), w.astype(float), (t + 2) ** -decay
        logits = densities(x, means, covariances) + np.log(proportions)
        log_p = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
        r = np.exp(logits - log_p[:, None]) * w[:, None] / w.sum()
        proportions = (1 - rate) * proportions + rate * r.sum(0)
        first = (1 - rate) * first + rate * r.T @ x
        second = (1 - rate) * second + rate * np.einsum("nk,ni,nj->kij", r, x, x)
        means = first / proportions[:, None]
        raw = second / proportions[:, None, None] - means[:, :, None] * means[:, None, :]
        covariances = dense(name, of_type(name, raw, proportions), k, d) + REG * np.eye(d)
    return proportions, means, of_type(name, covariances, proportions), w @ log_p / w.sum()


def assert_same_state(a, b, atol=1e-5):
    for name in ("weights", "means", "covariances", "lower_bound", "collapsed"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-4, atol=atol)


def cut(x, *more, size=100):
    return [tuple(rows[i : i + size] for rows in (x, *more)) for i in range(0, len(x), size)]


@pytest.mark.parametrize("offset", [0, 1e4])
@pytest.mark.parametrize("covariance", TYPES)
def test_batches_mix_as_the_formula_says(covariance, offset, blobs, weights, key):
    state = begin(covariance, blobs, key, offset)
    batches = cut(blobs.x + np.float32(offset), weights)
    proportions, means, covariances, bound = by_raw_moments(covariance, state, batches)
    for rows, w in batches:
        state = gmm.partial_fit(state, rows, weights=w, reg_covar=REG)
    np.testing.assert_allclose(state.weights, proportions, atol=1e-4)
    np.testing.assert_allclose(state.wide_means(), means, atol=1e-4)
    np.testing.assert_allclose(state.covariances, covariances, atol=1e-3)
    np.testing.assert_allclose(state.lower_bound, bound, rtol=1e-4)
    assert int(state.steps) == len(batches)
    assert not np.asarray(state.collapsed).any()


@pytest.mark.parametrize("covariance", TYPES)
def test_two_sets_add_up_to_their_union(covariance):
    rng = np.random.default_rng(0)
    covariance_type, k, d = COVARIANCE_TYPES[covariance], 3, 2

    @jax.jit
    def both(reference, r, x):
        exact = covariance_type.moments(r, reference, x, jnp.int32(DIFFERENCES))
        offset = exact.first / exact.weight[:, None]
        covariances = covariance_type.covariances(exact, offset, exact.weight)
        return exact, online_em.moments_of_components(covariance_type, exact.weight, offset, covariances)

    drawn = rng.normal(size=(k, d)), rng.uniform(size=(k, 40)), rng.normal(size=(d, 40))
    exact, rebuilt = both(*(each.astype(np.float32) for each in drawn))
    for one, other in zip(exact, rebuilt, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("covariance", ["full", "spherical"])
def test_a_whole_step_is_a_step_of_em(covariance, blobs, weights, key, monkeypatch):
    monkeypatch.setattr(online_em, "check_decay", lambda decay: None)  # 0 makes the step size 1
    x, w = blobs.x[:100], weights[:100]
    options = {"covariance": covariance, "init": given(covariance, blobs), "reg_covar": REG}
    once = gmm.fit(key, x, 4, weights=w, max_steps=1, tol=0.0, **options)
    state = gmm.partial_fit(begin(covariance, blobs, key), x, weights=w, decay=0.0, reg_covar=REG)
    assert_same_state(state, once.state, atol=1e-4)


@pytest.mark.parametrize("covariance", ["full", "tied", "diag"])
def test_a_stream_comes_near_the_fit_of_all_rows(covariance, blobs, key, whole):
    state, goal = begin(covariance, blobs, key), whole(covariance).state
    order = np.random.default_rng(0)
    for _ in range(20):
        for (rows,) in cut(order.permutation(blobs.x)):
            state = gmm.partial_fit(state, rows)
    assert float(gmm.score(state.mixture(), blobs.x)) > float(gmm.score(goal, blobs.x)) - 0.01
    np.testing.assert_allclose(state.means, goal.means, atol=0.1)
    np.testing.assert_allclose(state.weights, goal.weights, atol=0.02)
    np.testing.assert_allclose(state.covariances, goal.covariances, atol=0.15)


def test_a_weight_is_a_repetition(blobs, key):
    state = begin("diag", blobs, key)
    weights = np.repeat([1, 3, 0], [25, 25, 50])
    repeated = gmm.partial_fit(state, np.repeat(blobs.x[:100], weights, axis=0))
    assert_same_state(gmm.partial_fit(state, blobs.x[:100], weights=weights), repeated)


def test_jit_vmap_and_eager_agree_and_compile_once(blobs, key, compiles):
    state = begin("diag", blobs, key)
    eager = gmm.partial_fit(state, blobs.x[:100])
    assert_same_state(eager, jax.jit(gmm.partial_fit)(state, blobs.x[:100]))
    pair = jax.tree.map(lambda a, b: np.stack([a, b]), state, eager)
    both = jax.jit(jax.vmap(gmm.partial_fit))(pair, np.stack([blobs.x[:100], blobs.x[100:200]]))
    again = gmm.partial_fit(eager, blobs.x[100:200])
    with compiles() as seen:
        gmm.partial_fit(again, blobs.x[150:248], decay=0.9, reg_covar=1e-4)
    assert seen.count == 0
    for i, one in enumerate((eager, again)):
        assert_same_state(one, jax.tree.map(lambda leaf, i=i: leaf[i], both))
    assert_same_state(again.mixture(), jax.tree.map(lambda leaf: leaf[1], both.mixture()))


@pytest.mark.parametrize("covariance", TYPES)
def test_a_collapse_stays_finite_and_is_pointed_out(covariance, blobs, key):
    state = begin(covariance, blobs, key)
    same = np.broadcast_to(blobs.x[:1], (100, 5))
    for _ in range(40):
        state = gmm.partial_fit(state, same, decay=0.51)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    after = gmm.partial_fit(state, blobs.x[:100])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    owner = int(np.argmax(state.weights))
    assert not bool(state.collapsed[owner])  # what it began with fades, but is not gone
    state = gmm.partial_fit(state, same, reg_covar=0.5)
    assert bool(state.collapsed[owner])
    np.testing.assert_allclose(state.means[owner], same[0], atol=1e-2)


def test_a_batch_without_a_bound_changes_nothing(blobs, key):
    state = begin("diag", blobs, key)
    step = jax.jit(lambda state, x, w: gmm.partial_fit(state, x, weights=w))
    ones = np.ones(100, np.float32)
    known = step(state, blobs.x[:100], ones)
    broken = step(known, np.full_like(blobs.x[:100], np.nan), ones)
    assert not np.isfinite(broken.lower_bound)
    weightless = step(known, blobs.x[:100], 0 * ones)
    assert_same_state(weightless, known)
    for after in (broken, weightless):
        np.testing.assert_array_equal(after.means, known.means)
        np.testing.assert_array_equal(after.covariances, known.covariances)
        assert int(after.steps) == 2


def test_missing_cells_are_integrated_out(blobs, key):
    state, x = begin("diag", blobs, key), blobs.x[:100]
    complete = gmm.partial_fit(state, x)
    assert_same_state(gmm.partial_fit(state, x, missing=True), complete, atol=1e-4)
    holes = x.copy()
    holes[::3, 2] = np.nan
    after = gmm.partial_fit(state, holes, missing=True)
    assert np.isfinite(after.lower_bound)
    assert float(jnp.abs(after.means - complete.means).max()) < 0.5


@pytest.mark.parametrize("covariance", ["full", "diag"])
@pytest.mark.parametrize("offset", [0, 1e4])
def test_a_fit_by_batches_scores_like_em(covariance, offset, blobs, key, whole):
    x = blobs.x + np.float32(offset)
    init = given(covariance, blobs, offset)
    fitted = gmm.minibatch_fit(key, x, 4, covariance=covariance, init=init, batch_size=100, max_epochs=40)
    state = fitted.state
    assert float(state.lower_bound) > float(whole(covariance).state.lower_bound) - 0.05
    np.testing.assert_allclose(state.lower_bound, gmm.score(state, x), rtol=1e-4)
    np.testing.assert_array_equal(fitted.labels, gmm.predict(state, x))
    assert np.isfinite(fitted.history[: int(fitted.steps)]).all()
    assert (np.asarray(fitted.history)[int(fitted.steps) :] == 0).all()


def test_stops_after_batches_without_gain(blobs, key):
    options = {"covariance": "spherical", "batch_size": 30}
    early = gmm.minibatch_fit(key, blobs.x, 4, max_no_improvement=2, **options)
    late = gmm.minibatch_fit(key, blobs.x, 4, max_no_improvement=None, max_epochs=6, **options)
    assert Status(int(early.status)) is Status.CONVERGED
    assert Status(int(late.status)) is Status.MAX_STEPS
    assert int(late.steps) == 6 * 300 // 30
    assert int(early.steps) < int(late.steps)


def test_a_sharded_fit_is_the_single_one(blobs, weights, key):
    options = {"covariance": "diag", "init": given("diag", blobs), "batch_size": 64, "max_epochs": 5}
    single = gmm.minibatch_fit(key, blobs.x, 4, weights=weights, **options)
    sharded = fit_sharded(gmm.minibatch_fit, key, blobs.x, 4, weights=weights, **options)
    assert_same_state(single.state, sharded.state, atol=1e-3)
    np.testing.assert_array_equal(single.labels, sharded.labels)
    assert int(single.steps) == int(sharded.steps)


def test_a_start_by_responsibilities_takes_all_rows(blobs, key):
    init = {"responsibilities": np.eye(4)[blobs.y]}
    fitted = gmm.minibatch_fit(key, blobs.x, 4, covariance="spherical", init=init, batch_size=100, max_epochs=3)
    np.testing.assert_allclose(fitted.state.means, blobs.centers, atol=0.5)
    np.testing.assert_array_equal(fitted.labels, blobs.y)


def test_float64_is_kept(blobs, key):
    with jax.enable_x64(True):
        x = blobs.x[:100].astype(np.float64)
        state = gmm.init(key, x, 4, covariance="diag", init=given("diag", blobs))
        state = gmm.partial_fit(state, x)
        floats = [leaf for leaf in jax.tree.leaves(state) if np.issubdtype(np.asarray(leaf).dtype, np.floating)]
        assert {leaf.dtype for leaf in floats} == {np.dtype(np.float64)}


def test_mistakes_are_named(blobs, key):
    state = begin("diag", blobs, key)
    with pytest.raises(ValueError, match="decay=0.5 must be greater than 0.5"):
        gmm.partial_fit(state, blobs.x, decay=0.5)
    with pytest.raises(ValueError, match="3 columns, but the model was fitted on 5"):
        gmm.partial_fit(state, blobs.x[:, :3])
    with pytest.raises(ValueError, match="max_no_improvement=-1 must be at least 0"):
        gmm.minibatch_fit(key, blobs.x, 2, max_no_improvement=-1)
    with pytest.raises(ValueError, match="covariance='round' is not known"):
        gmm.init(key, blobs.x, 2, covariance="round")

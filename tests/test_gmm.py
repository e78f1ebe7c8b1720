"""Gaussian mixtures against scikit-learn from the same start, and all that the usual library does not do.

Compiling is what these tests spend their time on. Nearly all fits have one shape, 145 to 160 rows in 4 columns and 3
components, and start from given parameters, so each type and dtype compiles once; fewer rows are rows of weight 0.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn import datasets
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import scale

from jaxcluster import gmm
from jaxcluster.cluster.gmm import em
from jaxcluster.core.rows import bucket
from jaxcluster.core.shard import fit_sharded
from jaxcluster.ops.gaussian import FAMILIES
from jaxcluster.types import Status

TYPES = tuple(FAMILIES)
N, D, K = 150, 4, 3
KEY = jax.random.key(0)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def generated():
    rng = np.random.default_rng(5)
    return rng.normal(size=(N, D)) @ rng.normal(size=(D, D)) + 3 * rng.integers(3, size=(N, 1))


SETS = {
    "iris": lambda: datasets.load_iris().data,
    "wine": lambda: scale(datasets.load_wine().data)[:N, :D],
    "generated": generated,
}


def separate(n=N, seed=0, distance=8.0, deviation=1.0):
    """Rows of K clusters far apart, and the cluster of each."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % K
    centers = distance * np.eye(K, D)
    return (centers[y] + deviation * rng.normal(size=(n, D))).astype(np.float32), y


def parameters(x, covariance, seed=0, k=K):
    """Means at rows, random weights, precisions on the scale of the rows."""
    rng = np.random.default_rng(seed)
    d = x.shape[1]
    root = rng.normal(size=(k, d, d))
    full = (root @ np.swapaxes(root, 1, 2) + d * np.eye(d)) / (d * x.astype(np.float64).var())
    precisions = {
        "full": full,
        "tied": full[0],
        "diag": np.diagonal(full, axis1=1, axis2=2),
        "spherical": full[:, 0, 0],
    }[covariance]
    means = x[rng.choice(len(x), k, replace=False)].astype(np.float64)
    return gmm.Start(means, rng.dirichlet(np.full(k, 5.0)), precisions)


def shares(n=N, k=K, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(k), size=n)


class FromShares(GaussianMixture):
    """scikit-learn's mixture from given responsibilities."""

    def start_from(self, r):
        self.given = r
        return self

    def _initialize_parameters(self, X, random_state, xp=None):
        self._initialize(X, self.given.astype(X.dtype))


def theirs_from(x, start, covariance, **options):
    if start.responsibilities is not None:
        model = FromShares(start.responsibilities.shape[1], covariance_type=covariance, **options)
        return model.start_from(start.responsibilities).fit(x)
    return GaussianMixture(
        len(start.means),
        covariance_type=covariance,
        means_init=start.means,
        weights_init=start.weights,
        precisions_init=start.precisions,
        **options,
    ).fit(x)


def public(covariance, covariances):
    """scikit-learn's covariances as ours are laid out."""
    return covariances[None] if covariance == "tied" else covariances


def matrices(means, covariances):
    """(k, d, d) of any type."""
    k, d = means.shape
    covariances = np.asarray(covariances, np.float64)
    if covariances.shape == (1, d, d):
        return np.repeat(covariances, k, axis=0)
    if covariances.ndim == 3:
        return covariances
    return np.eye(d) * covariances.reshape(k, -1, 1)


def dense(state):
    return matrices(state.means, state.covariances)


def exact_log_likelihood(state, x):
    """log p of each row (nats) under a state, in float64."""
    mixture = zip(np.asarray(state.weights, float), np.asarray(state.means, float), dense(state), strict=True)
    return logsumexp([np.log(w) + multivariate_normal(m, c).logpdf(x.astype(float)) for w, m, c in mixture], axis=0)


def status(fit):
    return Status(int(fit.status))


def bounds(fit):
    return np.asarray(gmm.lower_bounds(fit))[: int(fit.steps)]


def slack(bound, dtype):
    """What a lower bound may fall by, as `em.step` has it."""
    return max(em.FALL, 16 * np.finfo(dtype).eps) * np.maximum(np.abs(bound), 1)


def assert_never_falls(fit):
    history = bounds(fit)
    assert np.isfinite(history).all()
    assert (np.diff(history) >= -slack(history[:-1], history.dtype)).all()


def assert_same_fit(a, b, rtol=1e-4, atol=1e-4):
    assert np.array_equal(np.asarray(a.labels), np.asarray(b.labels))
    for name in ("lower_bound", "weights", "means", "covariances"):
        np.testing.assert_allclose(getattr(a.state, name), getattr(b.state, name), rtol=rtol, atol=atol, err_msg=name)


def assert_parity(ours, theirs, covariance, x, rtol=1e-6):
    np.testing.assert_allclose(ours.state.weights, theirs.weights_, rtol=rtol)
    np.testing.assert_allclose(ours.state.means, theirs.means_, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(ours.state.covariances, public(covariance, theirs.covariances_), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(ours.state.lower_bound, theirs.lower_bound_, rtol=rtol)
    np.testing.assert_array_equal(ours.labels, theirs.predict(x))
    np.testing.assert_allclose(bounds(ours), theirs.lower_bounds_, rtol=rtol)
    assert int(ours.steps) == theirs.n_iter_


# Parity with scikit-learn in float64.


@pytest.mark.parametrize("reg_covar", [0.0, 1e-6])
@pytest.mark.parametrize("given", ["parameters", "responsibilities"])
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("covariance", TYPES)
def test_ten_steps_from_the_same_start(covariance, name, given, reg_covar):
    x = SETS[name]()
    start = parameters(x, covariance) if given == "parameters" else gmm.Start(responsibilities=shares())
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


# The bound never falls, and nothing turns NaN.


class Hard(NamedTuple):
    """A problem that something is wrong with; fewer rows than columns is one of those things."""

    seed: int
    count: int
    gap: float
    duplicates: int
    outlier: float
    constant: int
    reg_covar: float

    def rows(self, dtype):
        """N rows, of which ``count`` have a weight."""
        rng = np.random.default_rng(self.seed)
        x = rng.normal(size=(N, D)) + self.gap * rng.integers(3, size=(N, 1))
        x[: min(self.duplicates, self.count)] = x[0]
        x[self.count - 1] += self.outlier
        x[:, : self.constant] = 3.3
        return x.astype(dtype), (np.arange(N) < self.count).astype(dtype)


HARD = st.builds(
    Hard,
    seed=st.integers(0, 1000),
    count=st.sampled_from([3, 4, 7, 20, N]),
    gap=st.sampled_from([0.0, 4.0]),
    duplicates=st.sampled_from([0, 2, 5, 140, N]),
    outlier=st.sampled_from([0.0, 1e2, 1e4]),
    constant=st.integers(0, 2),
    reg_covar=st.sampled_from([0.0, 1e-6]),
)


def assert_sound(covariance, problem, dtype):
    x, weights = problem.rows(dtype)
    reg_covar = problem.reg_covar
    kept = x[weights > 0]
    spread = max(float(kept.astype(float).var()), 1e-3)
    precisions = np.asarray(FAMILIES[covariance].isotropic(1 / spread, K, D))
    start = gmm.Start(kept[:: len(kept) // K][:K], np.full(K, 1 / K), precisions)
    most = 60
    fit = gmm.fit(
        KEY, x, K, covariance=covariance, weights=weights, init=start, reg_covar=reg_covar, tol=0.0, max_steps=most
    )
    state = fit.state
    for leaf in (state.weights, state.means, state.covariances, state.lower_bound, state.residual):
        assert leaf.dtype == dtype
        assert np.isfinite(leaf).all()
    assert_never_falls(fit)
    assert np.isnan(np.asarray(fit.history)[int(fit.steps) :]).all()
    np.testing.assert_allclose(np.sum(state.weights), 1, rtol=1e-5)
    assert np.isin(fit.labels, np.arange(K)).all()
    assert (np.linalg.eigvalsh(dense(state)) > -1e-6 * np.abs(dense(state)).max()).all()
    collapsed = bool(np.any(state.collapsed))
    assert (status(fit) is Status.COLLAPSED) == collapsed
    if not collapsed:
        assert status(fit) is (Status.CONVERGED if float(state.residual) == 0 else Status.MAX_STEPS)
    variances = np.linalg.eigvalsh(dense(state))
    if variances.min() > 1e-5 * max(1.0, variances.max()):
        # What is reported is what the mixture has: EM can only have raised it once more.
        reached = exact_log_likelihood(state, kept).mean()
        assert reached >= bounds(fit)[-1] - 2e-3 * max(1, abs(reached))


@pytest.mark.parametrize("covariance", TYPES)
@settings(max_examples=25)
@given(problem=HARD)
def test_the_bound_never_falls(covariance, problem):
    assert_sound(covariance, problem, np.float32)


@pytest.mark.parametrize("covariance", TYPES)
@settings(max_examples=8)
@given(problem=HARD)
def test_the_bound_never_falls_in_float64(covariance, problem):
    with jax.enable_x64(True):
        assert_sound(covariance, problem, np.float64)


# Missing cells.


def conditional(row, mean, covariance):
    """What is expected of one row, its covariance, and the log-density of what is observed of it."""
    seen = ~np.isnan(row)
    if not seen.any():
        return mean, covariance, 0.0
    within = covariance[np.ix_(seen, seen)]
    gain = np.linalg.solve(within, covariance[seen]).T
    left = covariance - gain @ covariance[seen]
    return mean + gain @ (row[seen] - mean[seen]), left, multivariate_normal(mean[seen], within).logpdf(row[seen])


def exact_missing_step(covariance, weights, means, wide, x, reg):
    """One step of EM with missing cells, row by row."""
    k, (n, d) = len(weights), x.shape
    expected = [[conditional(row, m, c) for row in x] for m, c in zip(means, wide, strict=True)]
    joint = np.log(weights)[:, None] + np.array([[log_p for _, _, log_p in rows] for rows in expected])
    log_p = logsumexp(joint, axis=0)
    r = np.exp(joint - log_p)
    weight = r.sum(axis=1)
    filled = np.array([[mean for mean, _, _ in rows] for rows in expected])
    left = np.array([[spread for _, spread, _ in rows] for rows in expected])
    means = np.einsum("kn,kni->ki", r, filled) / weight[:, None]
    off = filled - means[:, None]
    scatter = np.einsum("kn,kni,knj->kij", r, off, off) + np.einsum("kn,knij->kij", r, left)
    wide = scatter / weight[:, None, None]
    if covariance == "tied":
        wide = np.repeat(scatter.sum(axis=0)[None] / n, k, axis=0)
    elif covariance != "full":
        variances = np.diagonal(wide, axis1=1, axis2=2)
        variances = variances if covariance == "diag" else np.repeat(variances.mean(axis=1)[:, None], d, axis=1)
        wide = variances[:, :, None] * np.eye(d)
    return weight / n, means, wide + reg * np.eye(d), log_p.mean()


def with_holes(x, share=0.25, seed=0):
    x = np.where(np.random.default_rng(seed).uniform(size=x.shape) < share, np.nan, x)
    x[3] = np.nan
    x[4, 1:] = np.nan
    return x


@pytest.mark.parametrize("covariance", TYPES)
def test_missing_cells_are_integrated_out(covariance):
    whole = SETS["iris"]()
    x, start = with_holes(whole), parameters(whole, covariance)
    flat = covariance in ("diag", "spherical")
    spread = public(covariance, 1 / start.precisions if flat else np.linalg.inv(start.precisions))
    state = start.weights, start.means, matrices(start.means, spread)
    history = []
    for _ in range(6):
        *state, bound = exact_missing_step(covariance, *state, x, 1e-6)
        history.append(bound)
    with jax.enable_x64(True):
        fit = partial(gmm.fit, KEY, covariance=covariance, k=K, init=start, tol=0.0)
        ours = fit(x, max_steps=6, missing=True)
        np.testing.assert_allclose(bounds(ours), history, rtol=1e-8)
        np.testing.assert_allclose(ours.state.weights, state[0], rtol=1e-8)
        np.testing.assert_allclose(ours.state.means, state[1], rtol=1e-8)
        np.testing.assert_allclose(dense(ours.state), state[2], rtol=1e-7, atol=1e-10)
        longer = fit(x, max_steps=100, missing=True)
        assert_never_falls(longer)
        assert np.isfinite(longer.state.covariances).all()
        # A row of which nothing is known falls to the largest component.
        assert int(longer.labels[3]) == int(np.argmax(longer.state.weights))
        assert_same_fit(fit(whole, max_steps=6), fit(whole, max_steps=6, missing=True), rtol=1e-9, atol=1e-11)


def test_missing_cells_in_float32_and_after_the_fit():
    whole, y = separate()
    x = with_holes(whole, 0.1).astype(np.float32)
    fit = gmm.fit(KEY, x, K, covariance="diag", missing=True)
    known = ~np.isnan(x).all(axis=1)
    assert adjusted_rand_score(np.asarray(fit.labels)[known], y[known]) > 0.9
    np.testing.assert_array_equal(gmm.predict(fit.state, x, missing=True), fit.labels)
    proba = np.asarray(gmm.predict_proba(fit.state, x, missing=True))
    np.testing.assert_allclose(proba[3], fit.state.weights, rtol=1e-4)
    log_p = np.asarray(gmm.score_samples(fit.state, x, missing=True))
    assert log_p[3] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(gmm.score(fit.state, x, missing=True), log_p.mean(), rtol=1e-5)
    assert log_p.mean() >= float(fit.state.lower_bound) - 1e-4


def test_refused_missing_values():
    x = separate()[0].copy()
    x[2, 1] = np.nan
    x[5, 3] = np.nan
    with pytest.raises(ValueError, match="x contains 2 NaN values in columns 1, 3"):
        gmm.fit(KEY, x, K)
    x[4, 2] = np.inf
    with pytest.raises(ValueError, match="x contains 1 infinity values in column 2"):
        gmm.fit(KEY, x, K, missing=True)
    x[:, 2] = np.nan
    with pytest.raises(ValueError, match="x has no observed value in column 2. Drop such columns"):
        gmm.fit(KEY, x, K, missing=True)


# The promises that every algorithm keeps.


def from_parameters(x, covariance, **options):
    return gmm.fit(KEY, x, K, covariance=covariance, init=parameters(separate()[0], covariance), **options)


@pytest.mark.parametrize("covariance", TYPES)
def test_weights_are_repetitions_and_rows_without_any_do_not_count(covariance):
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


@pytest.mark.parametrize("covariance", TYPES)
def test_tile_size_does_not_matter(covariance, monkeypatch):
    x, used = separate(deviation=3.0)[0], []
    whole = from_parameters(x, covariance, tol=0.0, max_steps=10)
    monkeypatch.setattr(em, "em_tile", lambda *_: used.append(37) or 37)
    # Traced rows are another program: nothing compiled before comes into play.
    tiled = jax.jit(lambda x: from_parameters(x, covariance, tol=0.0, max_steps=10))(x)
    assert used
    assert_same_fit(whole, tiled, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("covariance", ["tied", "spherical"])  # the others: test_contracts.py
def test_vmap_equals_a_loop_and_jit_equals_eager(covariance):
    batch = np.stack([separate(seed=seed, deviation=2.0)[0] for seed in range(3)]) + np.float32([[[0]], [[1]], [[50]]])
    means = batch[:, :K]
    given = parameters(batch[0], covariance)

    def fit(x, means):
        return gmm.fit(KEY, x, K, covariance=covariance, init=given._replace(means=means), tol=1e-4)

    together = jax.jit(jax.vmap(fit))(batch, means)
    for i in range(3):
        one = fit(batch[i], means[i])
        assert abs(int(one.steps) - int(together.steps[i])) <= 1
        assert_same_fit(one, jax.tree.map(lambda leaf, i=i: leaf[i], together), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("covariance", ["tied", "spherical"])  # the others: test_contracts.py
def test_sharded_equals_single(covariance):
    x, y = separate(N - 1)
    weights = np.random.default_rng(3).integers(1, 4, N - 1).astype(np.float32)
    options = {"covariance": covariance, "weights": weights, "tol": 1e-5}
    single = gmm.fit(KEY, x, K, **options)
    assert jax.device_count() == 2
    assert_same_fit(single, fit_sharded(gmm.fit, KEY, x, K, **options), rtol=1e-3, atol=1e-3)
    assert adjusted_rand_score(single.labels, y) == 1


@pytest.mark.parametrize("covariance", ["full", "tied", "diag"])
def test_inactive_components_are_not_there(covariance):
    x = separate(deviation=3.0)[0]
    start = parameters(x, covariance, k=2)
    padded = gmm.Start(
        np.pad(start.means, ((0, 1), (0, 0))),
        np.pad(start.weights, (0, 1)),
        start.precisions if covariance == "tied" else np.concatenate([start.precisions, start.precisions[:1]]),
    )
    options = {"covariance": covariance, "tol": 0.0, "max_steps": 15}
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
    assert bucket(N) == bucket(N - 5)
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
        for init in (gmm.Start(means=means), {"means": means}, (means,), means)
    ]
    for fit in fits:
        np.testing.assert_array_equal(fit.labels, y)
    fit = gmm.fit(KEY, x, K, covariance="spherical", init=gmm.Start(weights=[0.2, 0.3, 0.5], precisions=[1, 1, 1]))
    assert adjusted_rand_score(fit.labels, y) == 1


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_a_fit_never_builds_the_table(covariance):
    n, d, k = 1 << 18, 8, 128

    def fit(key, x, means, weights, precisions):
        return gmm.fit(key, x, k, covariance=covariance, init=gmm.Start(means, weights, precisions))

    shapes = ((n, d), (k, d), (k,), FAMILIES[covariance].shape(k, d))
    compiled = jax.jit(fit).lower(KEY, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < n * k * 4 / 4


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

            def moved(sign, i=i, direction=direction, step=step):
                return value(*at[:i], at[i] + sign * step * direction, *at[i + 1 :])

            slope = (moved(1) - moved(-1)) / (2 * step)
            np.testing.assert_allclose(np.vdot(gradient, direction), slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("field", ["weights", "means", "covariances"])
def test_the_loss_has_a_gradient_with_respect_to_one_part_of_a_state(field):
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


# Bad input, and problems without a good answer.

FULL_START = gmm.Start(np.zeros((2, 3)), [0.5, 0.5], np.broadcast_to(np.eye(3), (2, 3, 3)))
SKEW = np.eye(3) + np.triu(np.full((3, 3), 0.5), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 9}, "n_samples=8 should be >= k=9"),
        ({"reg_covar": -1e-3}, "reg_covar=-0.001 must be at least 0"),
        ({"tol": -1.0}, "tol=-1.0 must be at least 0"),
        ({"tol": np.nan}, "tol=nan must be at least 0"),
        ({"max_steps": 0}, "max_steps=0 must be greater than 0"),
        ({"n_init": 0}, "n_init=0 must be at least 1"),
        ({"covariance": "diagonal"}, "covariance='diagonal' is not known.*'diag'"),
        ({"covariance": "ful"}, "Did you mean 'full'"),
        ({"init": "k-mean"}, "init='k-mean' is not known.*Did you mean"),
        ({"precision": "low"}, "precision='low' is not known"),
        ({"weights": np.ones(7)}, r"weights must have shape \(8,\)"),
        ({"active": np.ones(3, bool)}, r"active must be a \(2,\) mask"),
        ({"init": np.ones((3, 3))}, r"means of the start must have shape \(2, 3\) for full, got \(3, 3\)"),
        ({"init": FULL_START._replace(weights=[1.0])}, r"weights of the start must have shape \(2,\)"),
        ({"init": FULL_START._replace(weights=[0.5, 0.6])}, "weights of the start must be shares.*sum 1.1"),
        ({"init": FULL_START._replace(weights=[1.5, -0.5])}, "weights of the start must be shares.*least is -0.5"),
        ({"init": FULL_START._replace(precisions=np.eye(3))}, r"precisions of the start must have shape \(2, 3, 3\)"),
        ({"init": FULL_START._replace(precisions=np.stack([np.eye(3), SKEW]))}, "not symmetric for component 1"),
        (
            {"init": FULL_START._replace(precisions=np.stack([-np.eye(3), np.eye(3)]))},
            "not positive definite for component 0",
        ),
        (
            {"init": gmm.Start(precisions=np.array([[1, 1, 1], [1, 0, 1]])), "covariance": "diag"},
            "not positive for component 1",
        ),
        ({"init": gmm.Start(precisions=np.array([0.0, -1])), "covariance": "spherical"}, "for components 0, 1"),
        ({"init": gmm.Start(precisions=-np.eye(3)), "covariance": "tied"}, "precisions of the start are not positive"),
        ({"init": gmm.Start(means=np.full((2, 3), np.nan))}, "means contains 6 NaN"),
        ({"init": gmm.Start(responsibilities=np.ones((8, 2)))}, "shares of each row.*row 0 sums to 2"),
        ({"init": gmm.Start(responsibilities=np.ones((7, 2)) / 2)}, r"responsibilities .* shape \(8, 2\)"),
        ({"init": {"centers": np.ones((2, 3))}}, r"init has unknown entries \['centers'\]"),
        ({"init": gmm.Start(method="median")}, "init='median' is not known"),
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
def test_more_components_than_distinct_rows_is_a_status(covariance, reg_covar):
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
def test_one_collapsing_component_leaves_the_others_alone(covariance):
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
@pytest.mark.parametrize("covariance", TYPES)
def test_more_columns_than_rows(covariance, reg_covar):
    x = np.random.default_rng(0).normal(size=(8, 20)).astype(np.float32)
    fit = gmm.fit(KEY, x, 2, covariance=covariance, reg_covar=reg_covar)
    singular = covariance in ("full", "tied") and reg_covar == 0
    assert status(fit) is (Status.COLLAPSED if singular else Status.CONVERGED)
    assert bool(np.all(fit.state.collapsed)) == singular
    for leaf in fit.state[:4]:
        assert np.isfinite(leaf).all()
    assert np.isfinite(gmm.score_samples(fit.state, x)).all()


@pytest.mark.parametrize("scale_of", [1e-15, 1e15, 1e25, 3e38])
@pytest.mark.parametrize("covariance", TYPES)
def test_numbers_at_the_ends_of_float32(covariance, scale_of):
    x = (separate()[0].astype(np.float64) / 12 * scale_of).astype(np.float32)
    assert np.isfinite(x).all()
    fit = gmm.fit(KEY, x, K, covariance=covariance, reg_covar=0.0)
    if scale_of == 1e15:
        assert status(fit) is Status.CONVERGED
    if scale_of >= 1e25:
        assert status(fit) is Status.NOT_FINITE
    if scale_of == 1e-15:
        assert status(fit) in (Status.CONVERGED, Status.COLLAPSED)
    if scale_of <= 1e15:
        for leaf in fit.state[:4]:
            assert np.isfinite(leaf).all()


def test_nan_inside_jit_is_a_status():
    x = jnp.ones((20, 3)).at[4, 1].set(jnp.nan)
    fit = jax.jit(lambda x: gmm.fit(KEY, x, 2, covariance="spherical"))(x)
    assert status(fit) is Status.NOT_FINITE

"""k-means against scikit-learn from the same start, and all that the usual library does not do."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import datasets
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from jaxcluster import bisecting, kmeans, minibatch
from jaxcluster.cluster import lloyd
from jaxcluster.cluster.seeding import CenterConstraints
from jaxcluster.types import Points, Status


@pytest.fixture(scope="module")
def digits():
    # Whole pixels tie exactly; a little noise leaves one right answer at each step.
    x = datasets.load_digits().data
    return (x + np.random.default_rng(0).normal(scale=0.01, size=x.shape)).astype(np.float32)


def start_rows(x, k, seed=0):
    return x[np.random.default_rng(seed).choice(len(x), k, replace=False)]


def assert_parity(x, init, weights=None, **options):
    """Ours in float32 against scikit-learn's in float64, from the same centers."""
    k = len(init)
    ours = kmeans.fit(jax.random.key(0), x, k, init=init, weights=weights, **options)
    renamed = {"max_steps": "max_iter"}
    theirs = KMeans(k, init=init.astype(float), n_init=1, **{renamed.get(o, o): v for o, v in options.items()})
    theirs.fit(x.astype(float), sample_weight=weights)
    assert (np.asarray(ours.labels) == theirs.labels_).mean() >= 0.999
    np.testing.assert_allclose(ours.state.inertia, theirs.inertia_, rtol=1e-4)
    return ours, theirs


SETS = {
    "iris": (lambda: datasets.load_iris().data, 3),
    "wine": (lambda: datasets.load_wine().data, 5),
    "breast cancer": (lambda: datasets.load_breast_cancer().data, 8),
    "more clusters than blobs": (lambda: datasets.make_blobs(1500, 5, centers=20, random_state=1)[0], 60),
    "moons": (lambda: datasets.make_moons(500, noise=0.05, random_state=0)[0], 9),
}


@pytest.mark.parametrize(
    ("name", "weighted"), [*((name, False) for name in SETS), ("iris", True), ("more clusters than blobs", True)]
)
def test_parity_with_scikit_learn(name, weighted):
    make, k = SETS[name]
    x = make().astype(np.float32)
    weights = np.random.default_rng(1).uniform(0.1, 3, len(x)).astype(np.float32) if weighted else None
    ours, theirs = assert_parity(x, start_rows(x, k), weights)
    assert int(ours.steps) == theirs.n_iter_
    np.testing.assert_allclose(ours.state.centers, theirs.cluster_centers_, rtol=1e-3, atol=1e-3 * np.abs(x).max())


@pytest.mark.parametrize("weighted", [False, True])
def test_parity_on_digits(digits, weighted):
    weights = np.random.default_rng(1).uniform(0.1, 3, len(digits)).astype(np.float32) if weighted else None
    ours, theirs = assert_parity(digits, start_rows(digits, 10), weights)
    assert int(ours.steps) == theirs.n_iter_


@pytest.mark.parametrize("max_steps", [1, 2, 5])
def test_parity_at_each_step(digits, max_steps):
    ours, theirs = assert_parity(digits, start_rows(digits, 10), max_steps=max_steps, tol=0)
    assert int(ours.steps) == max_steps == theirs.n_iter_


def test_parity_at_an_offset(digits):
    x = digits + np.float32(1e4)
    assert_parity(x, start_rows(x, 10))


def test_parity_with_empty_clusters(digits):
    far = np.full((2, 64), 1e3, np.float32) * np.array([[1], [2]], np.float32)
    ours, _ = assert_parity(digits, np.concatenate([start_rows(digits, 8), far]))
    assert (np.bincount(ours.labels, minlength=10) > 0).all()
    assert Status(int(ours.status)) is Status.CONVERGED


def test_parity_in_float64(digits):
    with jax.enable_x64(True):
        x = digits.astype(np.float64)
        init = start_rows(x, 10)
        ours = kmeans.fit(jax.random.key(0), x, 10, init=init, tol=0)
        theirs = KMeans(10, init=init, n_init=1, tol=0).fit(x)
        np.testing.assert_array_equal(ours.labels, theirs.labels_)
        np.testing.assert_allclose(ours.state.inertia, theirs.inertia_, rtol=1e-12)
        np.testing.assert_allclose(ours.state.centers, theirs.cluster_centers_, atol=1e-10)


def test_inertia_of_tight_far_clusters_is_exact():
    # ‖x‖² − 2x·c + ‖c‖² would lose every digit here.
    rng = np.random.default_rng(0)
    x = (np.repeat([[0.0] * 8, [1e4] * 8], 100, axis=0) + 0.01 * rng.normal(size=(200, 8))).astype(np.float32)
    fit = kmeans.fit(jax.random.key(0), x, 2)
    centers = np.stack([x[:100].astype(float).mean(0), x[100:].astype(float).mean(0)])
    exact = sum(
        ((x[s].astype(float) - c) ** 2).sum() for s, c in zip((slice(100), slice(100, 200)), centers, strict=True)
    )
    np.testing.assert_allclose(fit.state.inertia, exact, rtol=0.02)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_fewer_distinct_rows_than_clusters_is_a_status():
    x = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    fit = kmeans.fit(jax.random.key(0), x, 5)
    assert Status(int(fit.status)) is Status.EMPTY_CLUSTERS
    assert fit.state.inertia == 0
    assert np.isfinite(fit.state.centers).all()
    with pytest.warns(ConvergenceWarning):
        KMeans(5, n_init=1, random_state=0).fit(x)


@pytest.mark.parametrize("init", ["k-means++", "random", "k-means||"])
def test_starts_are_as_good_as_scikit_learns(digits, init):
    digits = digits[:600]
    ours = [float(kmeans.fit(jax.random.key(s), digits, 10, init=init).state.inertia) for s in range(8)]
    name = "random" if init == "random" else "k-means++"
    theirs = [KMeans(10, init=name, n_init=1, random_state=s).fit(digits).inertia_ for s in range(8)]
    assert np.mean(ours) < 1.02 * np.mean(theirs)


def test_restarts_keep_the_best(digits):
    key = jax.random.key(0)
    best = kmeans.fit(key, digits, 10, n_init=5, init="random")
    runs = [kmeans.fit(k, digits, 10, init="random") for k in jax.random.split(key, 5)]
    inertias = [float(run.state.inertia) for run in runs]
    np.testing.assert_allclose(best.state.inertia, min(inertias), rtol=1e-6)
    np.testing.assert_array_equal(best.labels, runs[int(np.argmin(inertias))].labels)


def test_a_sweep_is_one_compile_and_equals_single_fits(digits, key, compiles):
    x = digits[:300]
    ks, seeds = [5, 2], 2
    with compiles() as seen:
        fits = jax.block_until_ready(kmeans.sweep(key, x, ks, n_seeds=seeds))
    assert 0 < seen.count <= 3
    with compiles() as seen:
        jax.block_until_ready(kmeans.sweep(jax.random.key(1), x, [3, 5], n_seeds=seeds, tol=1e-2))
    assert seen.count == 0
    assert fits.labels.shape == (2, 2, 300)
    assert fits.state.centers.shape == (2, 2, 5, 64)
    keys = jax.random.split(key, len(ks) * seeds).reshape(len(ks), seeds)
    for i, k in enumerate(ks):
        for j in range(seeds):
            one = kmeans.fit(keys[i, j], x, k)
            np.testing.assert_array_equal(fits.labels[i, j], one.labels)
            np.testing.assert_allclose(fits.state.inertia[i, j], one.state.inertia, rtol=1e-5)
            np.testing.assert_allclose(fits.state.centers[i, j, :k], one.state.centers, atol=1e-3)
            assert (np.asarray(fits.state.centers[i, j, k:]) == 0).all()
            assert int(fits.steps[i, j]) == int(one.steps)


def test_ragged_batch_equals_single_problems(key):
    rng = np.random.default_rng(0)
    sizes, ks = [40, 25, 33], [3, 2, 3]
    problems = [rng.normal(size=(n, 4)).astype(np.float32) for n in sizes]
    x = np.zeros((3, 40, 4), np.float32)
    weights = np.zeros((3, 40), np.float32)
    active = np.arange(3) < np.array(ks)[:, None]
    for i, problem in enumerate(problems):
        x[i, : sizes[i]], weights[i, : sizes[i]] = problem, 1
    inits = np.stack([np.pad(start_rows(p, k), ((0, 3 - k), (0, 0))) for p, k in zip(problems, ks, strict=True)])
    run = jax.jit(jax.vmap(lambda x, w, a, c: kmeans.fit(key, x, 3, weights=w, active=a, init=c)))
    batch = run(x, weights, active, inits)
    for i, problem in enumerate(problems):
        one = kmeans.fit(key, problem, ks[i], init=inits[i, : ks[i]])
        np.testing.assert_array_equal(batch.labels[i, : sizes[i]], one.labels)
        np.testing.assert_allclose(batch.state.inertia[i], one.state.inertia, rtol=1e-5)
        assert (np.asarray(batch.state.weight[i, ks[i] :]) == 0).all()


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
def test_gradient_agrees_with_differences(metric, key):
    # Labels are constant near these rows, so finite differences of the whole fit are exact derivatives.
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = np.repeat(np.eye(3, 4) * 8 + 3, 6, axis=0) + rng.normal(size=(18, 4))
        w = rng.uniform(0.5, 2, 18)
        mix = rng.normal(size=(3, 4))

        def value(x, w):
            fit = kmeans.fit(key, x, 3, weights=w, init=x[::6], metric=metric)
            return jnp.sum(mix * fit.state.centers) + fit.state.inertia

        run = jax.jit(jax.value_and_grad(value, argnums=(0, 1)))
        _, (dx, dw) = run(x, w)
        step = 1e-5
        for i, j in [(0, 0), (7, 2), (17, 3)]:
            at_x, at_w = np.zeros_like(x), np.zeros_like(w)
            at_x[i, j] = at_w[i] = step
            difference = (run(x + at_x, w)[0] - run(x - at_x, w)[0]) / (2 * step)
            np.testing.assert_allclose(dx[i, j], difference, rtol=1e-5, atol=1e-7)
            difference = (run(x, w + at_w)[0] - run(x, w - at_w)[0]) / (2 * step)
            np.testing.assert_allclose(dw[i], difference, rtol=1e-5, atol=1e-7)


def test_gradient_through_vmap_and_forward_mode(key):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 20, 3)), jnp.float32)

    def total(x):
        return jnp.sum(jnp.sin(kmeans.fit(key, x, 3, init=x[:3]).state.centers))

    reverse, forward = jax.jit(lambda x: (jax.vmap(jax.grad(total))(x), jax.vmap(jax.jacfwd(total))(x)))(x)
    np.testing.assert_allclose(reverse, forward, rtol=1e-4, atol=1e-6)
    assert np.abs(reverse).max() > 0


def test_frozen_centers_never_move(digits, key):
    frozen = digits[:3] + 4
    fit = kmeans.fit(key, digits, 10, frozen=frozen)
    np.testing.assert_array_equal(fit.state.centers[:3], frozen)
    mask = np.arange(10) % 2 == 0
    init = start_rows(digits, 10)
    fit = kmeans.fit(key, digits, 10, init=init, frozen=mask)
    np.testing.assert_array_equal(np.asarray(fit.state.centers)[mask], init[mask])
    labels = np.asarray(fit.labels)
    for j in np.flatnonzero(~mask):
        np.testing.assert_allclose(fit.state.centers[j], digits[labels == j].mean(0), atol=0.05)


def test_an_empty_frozen_center_stays(digits, key):
    far = np.float32([[1e4], [2e4], [3e4]]) * np.ones(64, np.float32)
    fit = kmeans.fit(key, digits, 10, frozen=far)
    np.testing.assert_array_equal(fit.state.centers[:3], far)
    assert (np.asarray(fit.labels) >= 3).all()


def test_spherical_assigns_by_angle(digits, key):
    fit = kmeans.fit(key, digits, 10, metric="cosine")
    unit = digits / np.linalg.norm(digits, axis=1, keepdims=True)
    centers = np.asarray(fit.state.centers)
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 1, rtol=1e-5)
    cosines = unit.astype(float) @ centers.T
    assert (np.asarray(fit.labels) == cosines.argmax(1)).mean() > 0.999
    np.testing.assert_allclose(fit.state.inertia, (1 - cosines.max(1)).sum(), rtol=1e-4)
    scaled = kmeans.fit(key, digits * 8, 10, metric="cosine")
    np.testing.assert_array_equal(fit.labels, scaled.labels)
    np.testing.assert_array_equal(kmeans.predict(fit.state.centers, digits * 3, metric="cosine"), fit.labels)


def test_predict_transform_and_score(digits, key):
    fit = kmeans.fit(key, digits, 10)
    centers = fit.state.centers
    np.testing.assert_array_equal(kmeans.predict(centers, digits), fit.labels)
    theirs = KMeans(10, init=np.asarray(centers, float), n_init=1, max_iter=1).fit(digits)
    theirs.cluster_centers_ = np.asarray(centers)
    np.testing.assert_allclose(kmeans.transform(centers, digits), theirs.transform(digits), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(kmeans.score(centers, digits), -fit.state.inertia, rtol=1e-5)
    np.testing.assert_array_equal(jax.jit(kmeans.predict)(centers, digits), fit.labels)


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
def test_small_problems_of_all_shapes_share_programs(metric, key, compiles):
    x = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32) + 1
    x[:100] += 4

    def run(x, k):
        fit = kmeans.fit(key, x, k, metric=metric)
        assert fit.state.centers.shape == (k, x.shape[1])
        assert fit.state.weight.shape == (k,)
        assert kmeans.transform(fit.state, x, metric=metric).shape == (len(x), k)
        np.testing.assert_array_equal(kmeans.predict(fit.state, x, metric=metric), fit.labels)
        np.testing.assert_allclose(kmeans.score(fit.state, x, metric=metric), -fit.state.inertia, rtol=1e-6)
        return fit

    run(x, 3)
    with compiles() as seen:
        fit = run(x[:280, :5], 4)
    assert seen.count == 0
    # Inside another program nothing is padded.
    alone = jax.jit(partial(kmeans.fit, k=4, metric=metric))(key, x[:280, :5])
    np.testing.assert_array_equal(alone.labels, fit.labels)


def test_a_fit_never_builds_the_table():
    n, d, k = 1 << 16, 16, 512

    def fit(x, weights, init):
        return kmeans.fit(jax.random.key(0), x, k, weights=weights, init=init)

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((n, d), (n,), (k, d))]
    compiled = jax.jit(fit).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < n * k * 4 / 4


def test_nan_inside_jit_is_a_status():
    x = jnp.ones((20, 3)).at[4, 1].set(jnp.nan)
    fit = jax.jit(lambda x: kmeans.fit(jax.random.key(0), x, 2, init=x[:2]))(x)
    assert Status(int(fit.status)) is Status.NOT_FINITE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": np.ones((3, 4))}, r"initial centers \(3, 4\) does not match the number of clusters 2"),
        ({"init": np.full((2, 4), np.nan)}, "init contains 8 NaN"),
        ({"metric": "euclid"}, "metric='euclid' is not known"),
        ({"precision": "low"}, "precision='low' is not known"),
        ({"n_init": 0}, "n_init=0 must be at least 1"),
        ({"n_init": "many"}, "n_init='many' must be 'auto'"),
        ({"max_steps": 0}, "max_steps=0 must be greater than 0"),
        ({"frozen": np.array([True, False])}, "frozen is a mask, which needs initial centers"),
        ({"frozen": np.ones((3, 4))}, r"frozen centers \(3, 4\) does not match the number of clusters 2"),
        ({"active": np.ones(3, bool)}, r"active must be a \(2,\) mask"),
    ],
)
def test_bad_options(options, message, key):
    with pytest.raises(ValueError, match=message):
        kmeans.fit(key, np.eye(4, dtype=np.float32), 2, **options)


def test_bad_widths_and_sweeps(key):
    with pytest.raises(ValueError, match="x has 3 columns, but the model was fitted on 4"):
        kmeans.predict(np.ones((2, 4)), np.ones((5, 3)))
    with pytest.raises(ValueError, match="must be one or more distinct"):
        kmeans.sweep(key, np.ones((5, 2)), [2, 2])
    with pytest.raises(ValueError, match="n_samples=5 should be >= ks=6"):
        kmeans.sweep(key, np.ones((5, 2)), [2, 6])


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), duplicates=st.integers(0, 30), outlier=st.sampled_from([0.0, 1e3, 1e6]))
def test_a_step_never_raises_the_inertia(seed, duplicates, outlier):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(64, 3)).astype(np.float32)
    x[:duplicates] = x[0]
    x[-1] += outlier
    fit = kmeans.fit(jax.random.key(seed), x, 6, tol=0)
    history = np.asarray(fit.history)[: int(fit.steps)]
    rounding = 1e-6 * float((x.astype(float) ** 2).sum())
    assert (np.diff(history) <= rounding).all()


def test_statistics_of_blocks_add_up(digits):
    # What a stream or many processes would do: fold the blocks' statistics, then update.
    centers = jnp.asarray(start_rows(digits, 5))
    options = lloyd.LloydOptions(uniform=True)

    @jax.jit
    def stats(block):
        points = Points(block, jnp.ones(len(block)))
        rows = lloyd.Samples(points, jnp.sum(points.x**2, axis=1))
        return lloyd.assignment_step(centers, rows, options=options)[0]

    blocks = jax.tree.map(np.add, *jax.device_get((stats(digits[:898]), stats(digits[898:1796]))))
    whole = stats(digits[:1796])
    for a, b in zip(blocks, whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    means = jax.jit(partial(lloyd.update_step, movable=CenterConstraints().movable, spherical=False))(whole, centers)
    labels = np.asarray(kmeans.predict(centers, digits))[:1796]
    np.testing.assert_allclose(means, [digits[:1796][labels == j].mean(0) for j in range(5)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("module", [bisecting, kmeans, minibatch])
def test_dir_shows_the_public_names_alone(module):
    assert dir(module) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)

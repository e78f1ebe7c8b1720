"""k-medoids: no swap is left that lowers the loss, by any metric and any weights, and the other ways to it."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_rand_score

from jaxcluster.cluster import kmedoids
from jaxcluster.cluster.kmedoids.fasterpam import WeightedDistances, build, fasterpam, swap_gains
from jaxcluster.core import memory
from jaxcluster.types import Status

ROUNDING = 1 + 2e-6
"""Relative rounding error of a sum of distances in float32."""


def cloud(n, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def loss_of(distances, medoids, weights=None):
    nearest = distances[:, list(medoids)].min(axis=1)
    return float(nearest.sum() if weights is None else weights @ nearest)


def best_swap(distances, medoids, weights=None):
    """The least loss that a single swap leads to, by trying them all."""
    medoids = list(medoids)
    allowed = [c for c in range(len(distances)) if c not in medoids and (weights is None or weights[c] > 0)]
    swaps = ([*medoids[:i], c, *medoids[i + 1 :]] for i in range(len(medoids)) for c in allowed)
    return min((loss_of(distances, each, weights) for each in swaps), default=np.inf)


def plain_pam(distances, k):
    """PAM as it is first told: BUILD, then the best of all swaps, over and over."""
    medoids = []
    for _ in range(k):
        left = [c for c in range(len(distances)) if c not in medoids]
        medoids.append(min(left, key=lambda c: loss_of(distances, [*medoids, c])))
    built, swaps = list(medoids), True
    while swaps:
        tried = [
            [*medoids[:i], c, *medoids[i + 1 :]] for i in range(k) for c in range(len(distances)) if c not in medoids
        ]
        best = min(tried, key=lambda each: loss_of(distances, each))
        swaps = loss_of(distances, best) < loss_of(distances, medoids) - 1e-9
        medoids = best if swaps else medoids
    return built, medoids


def plain_fasterpam(distances, medoids, weights):
    """FasterPAM as its source tells it, one candidate after the other, from the losses that swaps lead to."""
    medoids, candidate, quiet = list(medoids), 0, 0
    while quiet < len(distances):
        swaps = [[*medoids[:i], candidate, *medoids[i + 1 :]] for i in range(len(medoids))]
        best = min(swaps, key=lambda each: loss_of(distances, each, weights))
        possible = weights[candidate] > 0 and candidate not in medoids
        if possible and loss_of(distances, best, weights) < loss_of(distances, medoids, weights) - 1e-9:
            medoids, quiet = best, 0
        candidate, quiet = (candidate + 1) % len(distances), quiet + 1
    return medoids


def problems(count):
    """Rows, half of them in clusters, and where to start."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(rng.integers(40, 129), 3))
        x += rng.normal(size=(4, 3))[rng.integers(0, 4, len(x))] * 4 * (seed % 2)
        yield x.astype(np.float32), rng.choice(len(x), 4, replace=False)


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_swaps_are_fasterpams_one_after_the_other(metric, key):
    for seed, (x, start) in enumerate(problems(36)):
        rng = np.random.default_rng(seed)
        weights = rng.integers(0, 4, len(x)) if seed % 3 else np.ones(len(x))
        start = np.flatnonzero(weights)[:4] if seed % 3 else start
        distances = cdist(x, x, {"manhattan": "cityblock"}.get(metric, metric))
        fit = kmedoids.fit(key, x, 4, metric=metric, init=start, weights=weights)
        assert fit.state.medoids.tolist() == plain_fasterpam(distances, start, weights)


def test_medoids_and_losses_are_those_of_the_package(key):
    package = pytest.importorskip("kmedoids")
    ratios, same = [], []
    for x, start in problems(50):
        distances = cdist(x, x)
        for init in ("build", start):
            named = isinstance(init, str)
            begin = {"medoids": 4, "init": init} if named else {"medoids": init.astype(np.uintp)}
            theirs = package.fasterpam(distances, n_cpu=1, **begin).medoids.astype(int)
            ours = np.asarray(kmedoids.fit(key, x, 4, init=init).state.medoids)
            ratios.append(loss_of(distances, ours) / loss_of(distances, theirs))
            same.append(ours.tolist() == theirs.tolist())
    assert max(ratios) < 1.01
    assert np.mean(ratios) <= 1 + 1e-6
    assert np.mean(same) > 0.9


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("init", ["build", "random"])
def test_no_single_swap_lowers_the_loss(init, seed):
    x = cloud(120, seed=seed)
    weights = np.random.default_rng(seed).integers(0, 4, 120) if seed % 2 else None
    fit = kmedoids.fit(jax.random.key(seed), x, 4, init=init, weights=weights)
    distances, medoids = cdist(x.astype(float), x.astype(float)), np.asarray(fit.state.medoids)
    loss = loss_of(distances, medoids, weights)
    assert Status(int(fit.status)) == Status.CONVERGED
    assert float(fit.state.residual) == 0
    np.testing.assert_allclose(fit.state.loss, loss, rtol=1e-5)
    np.testing.assert_array_equal(fit.labels, distances[:, medoids].argmin(axis=1))
    assert loss <= best_swap(distances, medoids, weights) * ROUNDING
    assert len(set(medoids.tolist())) == 4


def test_gains_are_those_of_the_swaps_made():
    x = cloud(70)
    distances = cdist(x, x).astype(np.float32)
    weights = np.random.default_rng(5).integers(0, 3, 70).astype(np.float32)
    medoids = np.flatnonzero(weights)[:4].astype(np.int32)
    table = WeightedDistances(jnp.asarray(distances), jnp.asarray(weights))
    starts = range(0, 70 - table.block + 1, 9)

    @jax.jit
    def gains_of(table, medoids):
        state = fasterpam(table, medoids, jnp.int32(4), tol=0, max_steps=0, capacity=1).state
        return jax.lax.map(lambda start: swap_gains(table, state, start), jnp.asarray(starts, jnp.int32))

    gains = np.asarray(gains_of(table, jnp.asarray(medoids)))
    before = loss_of(distances, medoids, weights)
    for start, block in zip(starts, gains, strict=True):
        for row, candidate in enumerate(range(start, start + table.block)):
            for place in range(4):
                after = loss_of(distances, [*medoids[:place], candidate, *medoids[place + 1 :]], weights)
                allowed = weights[candidate] > 0 and candidate not in medoids
                expected = before - after if allowed and after < before else -np.inf
                np.testing.assert_allclose(block[row, place], expected, atol=1e-3)


def test_a_far_group_hides_no_swap():
    near = cloud(60, seed=3)
    far = cloud(3, seed=4) + np.array([1e9, 0, 0])
    fit = kmedoids.fit(jax.random.key(0), np.concatenate([near, far]), 3)
    distances = cdist(x := np.concatenate([near, far]), x)
    medoids = np.asarray(fit.state.medoids)
    best = min(
        loss_of(distances, [*np.delete(medoids, place), candidate]) for place in range(3) for candidate in range(len(x))
    )
    assert loss_of(distances, medoids) <= best * ROUNDING


def test_the_loss_never_rises():
    x = np.concatenate([cloud(280, 5, seed=1), cloud(20, 5, seed=2) * 20])
    fit = kmedoids.fit(jax.random.key(1), x, 12, init="random")
    history, taken = np.asarray(fit.history), int(fit.steps)
    assert taken >= 3
    assert (np.diff(history[:taken]) <= 0).all()
    assert not history[taken:].any()
    np.testing.assert_allclose(history[taken - 1], fit.state.loss, rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_build_is_pams_and_swaps_do_as_well(seed, key):
    x = cloud(60, seed=seed + 10)
    distances = cdist(x.astype(float), x.astype(float))
    built, medoids = plain_pam(distances, 4)
    table = WeightedDistances(jnp.asarray(distances, jnp.float32), jnp.ones(60, jnp.float32))
    assert jax.jit(build, static_argnums=1)(table, 4).tolist() == built
    fit = kmedoids.fit(key, x, 4)
    # Both end where no swap helps, which may be two places: eager swaps find another way there.
    assert float(fit.state.loss) <= loss_of(distances, medoids) * 1.02


def test_the_optimum_of_tiny_problems(key):
    found = []
    for seed in range(6):
        x = cloud(12, 2, seed=seed)
        distances = cdist(x, x)
        best = min(loss_of(distances, each) for each in itertools.combinations(range(12), 3))
        fit = kmedoids.fit(key, x, 3, init="random", n_init=8)
        assert float(fit.state.loss) >= best / ROUNDING
        found.append(float(fit.state.loss) <= best * ROUNDING)
    assert all(found)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "manhattan", "cosine", "minkowski", "function"])
def test_any_metric_and_its_distances(metric, key):
    x = cloud(90, 6) + 0.5
    names = {"manhattan": "cityblock", "function": "chebyshev"}
    p = {"p": 3.0} if metric == "minkowski" else {}
    distances = cdist(x.astype(float), x.astype(float), names.get(metric, metric), **p)
    ours = (lambda a, b: cdist(a, b, "chebyshev")) if metric == "function" else metric
    by_rows = kmedoids.fit(key, x, 4, metric=ours, **p)
    by_distances = kmedoids.fit(key, distances, 4, metric="precomputed")
    np.testing.assert_array_equal(by_rows.state.medoids, by_distances.state.medoids)
    np.testing.assert_array_equal(by_rows.labels, by_distances.labels)
    np.testing.assert_allclose(by_rows.state.loss, by_distances.state.loss, rtol=1e-5)
    np.testing.assert_array_equal(by_rows.state.centers, x[np.asarray(by_rows.state.medoids)])
    assert by_distances.state.centers is None
    np.testing.assert_array_equal(kmedoids.predict(by_rows.state, x, metric=ours, **p), by_rows.labels)
    np.testing.assert_array_equal(kmedoids.predict(by_distances.state, distances, metric="precomputed"), by_rows.labels)
    expected = distances[:, np.asarray(by_rows.state.medoids)]
    np.testing.assert_allclose(kmedoids.transform(by_rows.state, x, metric=ours, **p), expected, atol=2e-3)


def test_weights_are_repetitions(key):
    x, repeats = cloud(60), np.random.default_rng(0).integers(0, 4, 60)
    weighted = kmedoids.fit(key, x, 4, weights=repeats)
    # Repeated rows are other candidates, met in another order. Where the search ended with weights it ends with them.
    places = (np.cumsum(repeats) - repeats)[np.asarray(weighted.state.medoids)]
    repeated = kmedoids.fit(key, np.repeat(x, repeats, axis=0), 4, init=places)
    np.testing.assert_array_equal(repeated.state.medoids, places)
    np.testing.assert_array_equal(np.repeat(np.asarray(weighted.labels), repeats), repeated.labels)
    np.testing.assert_allclose(weighted.state.loss, repeated.state.loss, rtol=1e-5)
    np.testing.assert_allclose(weighted.state.weight, np.bincount(weighted.labels, repeats, 4))


def test_one_medoid_is_the_row_nearest_to_all(key):
    x = cloud(200)
    fit = kmedoids.fit(key, x, 1, init=np.array([7]))
    assert fit.state.medoids.tolist() == [int(cdist(x, x).sum(axis=1).argmin())]
    assert kmedoids.fit(key, x, 1).state.medoids.tolist() == fit.state.medoids.tolist()


@pytest.mark.parametrize("init", ["build", "random"])
def test_every_row_its_own_medoid(init, key):
    x = cloud(4)
    fit = kmedoids.fit(key, x, 4, init=init)
    assert sorted(fit.state.medoids.tolist()) == list(range(4))
    assert float(fit.state.loss) == 0
    assert Status(int(fit.status)) == Status.CONVERGED


@pytest.mark.parametrize("d", [2, 9])
def test_duplicates_share_a_medoid(d, key):
    distinct = cloud(4, d) * 10
    fit = kmedoids.fit(key, np.repeat(distinct, 20, axis=0), 4)
    assert adjusted_rand_score(fit.labels, np.repeat(np.arange(4), 20)) == 1
    assert float(fit.state.loss) == 0
    more = kmedoids.fit(key, np.repeat(distinct, 20, axis=0), 6)
    assert Status(int(more.status)) == Status.EMPTY_CLUSTERS


def test_equal_rows_have_one_cluster(key):
    fit = kmedoids.fit(key, np.full((50, 3), 2.5), 4, init="random")
    assert np.asarray(fit.labels).max() == 0
    assert float(fit.state.loss) == 0
    assert len(set(fit.state.medoids.tolist())) == 4
    assert Status(int(fit.status)) == Status.EMPTY_CLUSTERS


def test_distances_beyond_the_dtype_are_a_status(key):
    fit = kmedoids.fit(key, cloud(9) * 1e30, 4, metric="sqeuclidean")
    assert Status(int(fit.status)) == Status.NOT_FINITE


def assert_same(one, other):
    np.testing.assert_array_equal(one.state.medoids, other.state.medoids)
    np.testing.assert_array_equal(one.state.centers, other.state.centers)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.state.loss, other.state.loss, rtol=1e-5)


def test_traced_rows_give_the_same(key):
    x, start = cloud(100), np.array([5, 50, 95, 70])
    eager = kmedoids.fit(key, x, 4, init=start)
    assert_same(eager, jax.jit(lambda key, x: kmedoids.fit(key, x, 4, init=start))(key, x))


def test_vmap_equals_a_loop():
    keys, x = jax.random.split(jax.random.key(3), 3), np.stack([cloud(128, seed=s) for s in range(3)])
    together = jax.jit(jax.vmap(lambda key, x: kmedoids.fit(key, x, 4, init="random")))(keys, x)
    for i in range(3):
        # As many rows as their bucket has, so that the same are drawn.
        assert_same(kmedoids.fit(keys[i], x[i], 4, init="random"), jax.tree.map(lambda leaf, i=i: leaf[i], together))


def test_gradient_is_that_of_the_loss_at_fixed_labels(key):
    x = jnp.asarray(cloud(40))

    def loss_and_fit(x):
        fit = kmedoids.fit(key, x, 4)
        return fit.state.loss, fit

    gradient, fit = jax.jit(jax.grad(loss_and_fit, has_aux=True))(x)
    assert_same(kmedoids.fit(key, x, 4), fit)
    own = fit.state.medoids[fit.labels]
    apart = np.asarray(x - x[own])
    lengths = np.linalg.norm(apart, axis=1, keepdims=True)
    expected = np.divide(apart, lengths, out=np.zeros_like(apart), where=lengths > 0)
    np.add.at(expected, np.asarray(own), -expected.copy())
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_another_number_of_rows_compiles_nothing(key, compiles):
    kmedoids.fit(key, cloud(100), 4)
    with compiles() as seen:
        kmedoids.fit(key, cloud(105), 4)
    assert seen.count == 0


def test_float64_is_kept(key):
    with jax.enable_x64(True):
        fit = kmedoids.fit(key, cloud(50).astype(np.float64), 3)
        assert fit.state.loss.dtype == fit.state.centers.dtype == np.float64
        assert fit.labels.dtype == fit.state.medoids.dtype == np.int32


def test_a_tolerance_and_a_limit_stop_the_search():
    x = cloud(300, 5)
    full = kmedoids.fit(jax.random.key(0), x, 12, init="random")
    short = kmedoids.fit(jax.random.key(0), x, 12, init="random", max_steps=1)
    loose = kmedoids.fit(jax.random.key(0), x, 12, init="random", tol=0.5)
    assert (int(short.steps), Status(int(short.status))) == (1, Status.MAX_STEPS)
    assert (int(loose.steps), Status(int(loose.status))) == (1, Status.CONVERGED)
    assert float(short.state.residual) > 0
    assert float(full.state.loss) < float(short.state.loss)


@pytest.mark.parametrize("metric", ["euclidean", "function"])
def test_clara_comes_near_to_the_search_of_all_rows(metric, blobs, key):
    x = np.tile(blobs.x, (4, 1)) + cloud(1200, 5, seed=4)
    ours = (lambda a, b: cdist(a, b)) if metric == "function" else metric
    sampled, full = kmedoids.clara(key, x, 4, metric=ours), kmedoids.fit(key, x, 4)
    assert float(full.state.loss) / ROUNDING <= float(sampled.state.loss) <= 1.05 * float(full.state.loss)
    distances = cdist(x, x[np.asarray(sampled.state.medoids)])
    np.testing.assert_array_equal(sampled.labels, distances.argmin(axis=1))
    np.testing.assert_allclose(sampled.state.loss, distances.min(axis=1).sum(), rtol=1e-5)
    np.testing.assert_array_equal(sampled.state.centers, x[np.asarray(sampled.state.medoids)])


def test_clara_of_a_sample_of_everything_is_the_search(key):
    x, weights = cloud(60), np.random.default_rng(1).integers(1, 5, 60)
    sampled = kmedoids.clara(key, x, 4, weights=weights, sample_size=60, n_samples=3)
    full = kmedoids.fit(key, x, 4, weights=weights)
    np.testing.assert_allclose(sampled.state.loss, full.state.loss, rtol=0.02)
    distances = cdist(x, x)
    assert float(sampled.state.loss) <= best_swap(distances, np.asarray(sampled.state.medoids), weights) * ROUNDING


def test_clara_never_holds_all_pairs(key):
    points = jax.ShapeDtypeStruct((20_000, 4), jnp.float32)
    compiled = jax.jit(lambda x: kmedoids.clara(key, x, 5).state.loss).lower(points).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 20_000 * 20_000 * 4 / 50


def test_medoid_silhouette_by_its_definition(key):
    x = np.concatenate([cloud(50), cloud(1)[[0, 0]]])
    weights = np.random.default_rng(2).integers(1, 4, 52)
    fit = kmedoids.fit(key, x, 4)
    first, second = np.sort(cdist(x, np.asarray(fit.state.centers)), axis=1).T[:2]
    score = kmedoids.medoid_silhouette(fit.state, x, weights=weights)
    np.testing.assert_allclose(score, np.average((second - first) / second, weights=weights), rtol=1e-5)
    assert float(kmedoids.medoid_silhouette(np.ones((2, 3)), np.ones((5, 3)))) == 1


@pytest.mark.parametrize("init", ["build", "random"])
def test_a_sweep_is_its_fits_and_chooses(init, blobs, key):
    swept = kmedoids.sweep(key, blobs.x, [5, 2, 4], init=init, n_init=3)
    assert swept.k == 4
    for place, k in enumerate([5, 2, 4]):
        state = jax.tree.map(lambda leaf, place=place: np.asarray(leaf[place]), swept.fits.state)
        assert (state.medoids[k:] == -1).all()
        if init == "build" and k == 4:
            fit = kmedoids.fit(key, blobs.x, k)
            np.testing.assert_array_equal(state.medoids[:k], fit.state.medoids)
            np.testing.assert_array_equal(swept.fits.labels[place], fit.labels)
            np.testing.assert_allclose(state.loss, fit.state.loss, rtol=1e-6)
        score = kmedoids.medoid_silhouette(state.centers[:k], blobs.x)
        np.testing.assert_allclose(swept.silhouette[place], score, rtol=1e-4)


def uneven(n):
    distances = cdist(cloud(n), cloud(n))
    distances[1, 3] += 1
    return distances


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (cloud(5), {"k": 6}, "n_samples=5 should be >= k=6"),
        (cloud(5), {"metric": "euclid"}, "metric='euclid' is not known.*'precomputed'.*Did you mean 'euclidean'"),
        (cloud(5), {"metric": "minkowski", "p": 0.5}, "p=0.5 must be at least 1"),
        (cloud(5), {"init": "k-means++"}, "init='k-means\\+\\+' is not known; choose one of 'build', 'random'"),
        (cloud(5), {"init": np.array([1, 1])}, "must be 2 different row numbers from 0 to 4"),
        (cloud(5), {"init": np.array([1, 5])}, "must be 2 different row numbers from 0 to 4"),
        (cloud(5), {"init": np.array([1.0, 2.0])}, "integers, got shape \\(2,\\) of float64"),
        (cloud(5), {"weights": np.array([0, 0, 0, 0, 1])}, "only 1 rows have a weight above 0"),
        (cloud(5), {"weights": np.array([0, 1, 1, 1, 1]), "init": np.array([0, 1])}, "rows of weight 0"),
        (np.full((5, 2), np.nan), {}, "x contains 10 NaN"),
        (cloud(5), {"metric": "precomputed"}, "needs a square matrix"),
        (-np.ones((4, 4)), {"metric": "precomputed"}, "must not be negative"),
        (uneven(5), {"metric": "precomputed"}, "must be symmetric"),
        (np.full((4, 4), np.inf), {"metric": "precomputed"}, "distances contains 16 infinity"),
        (cloud(5), {"metric": lambda a, b: cdist(a, b)[:, :2]}, "metric gave shape"),
        (cloud(5), {"tol": -1}, "tol=-1 must be at least 0"),
        (cloud(5), {"n_init": 0, "init": "random"}, "n_init=0 must be at least 1"),
    ],
)
def test_wrong_input_is_told(x, options, message, key):
    with pytest.raises(ValueError, match=message):
        kmedoids.fit(key, x, **{"k": 2, **options})


def test_too_many_rows_are_told_of_clara(key, monkeypatch):
    monkeypatch.setattr(memory, "MIN_CHECKED_BYTES", 0)
    monkeypatch.setattr(memory, "available", lambda: memory.Available(1 << 16, "the machine"))
    with pytest.raises(MemoryError, match=r"all pairs of 200 rows take 0\.\d MB.*kmedoids\.clara"):
        kmedoids.fit(key, cloud(200), 2)


def test_wrong_use_is_told(key):
    x = cloud(20)
    fit = kmedoids.fit(key, cdist(x, x), 2, metric="precomputed")
    with pytest.raises(ValueError, match="have no rows. Pass metric='precomputed'"):
        kmedoids.predict(fit.state, x)
    with pytest.raises(TypeError, match="needs the state of the fit"):
        kmedoids.predict(x[:2], x, metric="precomputed")
    with pytest.raises(ValueError, match="x has 2 columns"):
        kmedoids.predict(x[:2], x[:, :2])
    with pytest.raises(ValueError, match="at least 2 medoids"):
        kmedoids.medoid_silhouette(x[:1], x)
    with pytest.raises(ValueError, match="use fit"):
        kmedoids.clara(key, cdist(x, x), 2, metric="precomputed")
    with pytest.raises(ValueError, match="each at least 2"):
        kmedoids.sweep(key, x, [1, 2])

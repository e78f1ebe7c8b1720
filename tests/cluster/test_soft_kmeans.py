"""Soft k-means: against NumPy, at both ends of the variance, and its gradients against finite differences."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcluster
from jaxcluster import kmeans, soft_kmeans
from jaxcluster.types import Status


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(3).integers(1, 4, 300).astype(np.float32)


@pytest.fixture(scope="module")
def init(blobs):
    return blobs.x[[0, 1, 2, 3]]


@pytest.fixture(scope="module")
def small():
    """24 rows that overlap, and two centers to start from."""
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(size=(12, 2)), rng.normal([2.5, 1], size=(12, 2))])
    return x, np.array([[0.0, 0.0], [2.0, 1.0]]), rng.uniform(0.5, 2, 24)


def textbook(x, w, centers, variance, steps):
    """EM in float64; the free energy before each step, and of the last centers."""
    x, w, centers = x.astype(float), w.astype(float), centers.astype(float)
    energies = []
    for step in range(steps + 1):
        powers = np.exp(-((x[:, None] - centers) ** 2).sum(2) / (2 * variance))
        energies.append(-2 * variance * w @ np.log(powers.mean(1)))
        r = w[:, None] * powers / powers.sum(1, keepdims=True)
        if step < steps:
            centers = r.T @ x / r.sum(0)[:, None]
    return centers, np.array(energies), r.sum(0)


@pytest.mark.parametrize("variance", [0.5, 4.0])
@pytest.mark.parametrize("offset", [0, 1e4])
def test_ten_steps_are_those_of_the_textbook(variance, offset, blobs, init, weights, key):
    shift = np.float32(offset)
    centers, energies, weight = textbook(blobs.x + shift, weights, init + shift, variance, 10)
    options = {"weights": weights, "init": init + shift, "tol": 0.0, "max_steps": 10}
    fitted = soft_kmeans.fit(key, blobs.x + shift, 4, variance=variance, **options)
    assert int(fitted.steps) == 10
    np.testing.assert_allclose(fitted.state.centers, centers, atol=2e-3)
    np.testing.assert_allclose(fitted.history[:10], energies[1:], rtol=1e-3)
    np.testing.assert_allclose(fitted.state.objective, energies[-1], rtol=1e-3)
    np.testing.assert_allclose(fitted.state.weight, weight, rtol=1e-3)


@pytest.mark.parametrize("variance", [0.0, 1e-42, 1e-37, 1e-20, 1e-6, 1e-3])
def test_a_small_variance_gives_k_means(variance, blobs, init, weights, key):
    hard = kmeans.fit(key, blobs.x, 4, weights=weights, init=init, tol=0.0)
    soft = soft_kmeans.fit(key, blobs.x, 4, variance=variance, weights=weights, init=init, tol=0.0)
    np.testing.assert_array_equal(soft.labels, hard.labels)
    np.testing.assert_allclose(soft.state.centers, hard.state.centers, atol=1e-5)
    np.testing.assert_allclose(soft.state.weight, hard.state.weight, rtol=1e-5)
    np.testing.assert_allclose(soft.state.objective, hard.state.inertia, rtol=1e-5 if variance < 1e-3 else 1e-2)
    assert Status(int(soft.status)) is Status.CONVERGED


def test_a_large_variance_puts_all_centers_on_the_mean(blobs, init, weights, key):
    fitted = soft_kmeans.fit(key, blobs.x, 4, variance=1e3, weights=weights, init=init, tol=1e-10)
    mean = np.average(blobs.x, axis=0, weights=weights)
    np.testing.assert_allclose(fitted.state.centers, np.broadcast_to(mean, (4, 5)), atol=1e-3)
    np.testing.assert_allclose(fitted.state.weight, weights.sum() / 4, rtol=1e-3)


@pytest.mark.parametrize("variance", [0.0, 0.1, 1.0, 10.0])
def test_the_objective_never_rises(variance, key):
    x = np.random.default_rng(2).normal(size=(300, 5)).astype(np.float32)
    fitted = soft_kmeans.fit(key, x, 4, variance=variance, init="random", tol=0.0, max_steps=40)
    history = np.asarray(fitted.history[: int(fitted.steps)])
    assert (np.diff(history) <= 1e-5 * np.abs(history[1:])).all()


def test_responsibilities_are_a_softmax(small):
    x, centers, _ = (each.astype(np.float32) for each in small)
    powers = np.exp(-((x[:, None] - centers) ** 2).sum(2) / 3)
    responsibilities = soft_kmeans.responsibilities(centers, x, 1.5)
    np.testing.assert_allclose(responsibilities, powers / powers.sum(1, keepdims=True), rtol=1e-4)
    far = np.float64(1e9) * x
    powers = (far @ centers.T - np.sum(np.square(centers), axis=1) / 2) / 1e9
    powers = np.exp(powers - powers.max(axis=1, keepdims=True))
    responsibilities = soft_kmeans.responsibilities(centers.astype(np.float32), far.astype(np.float32), 1e9)
    np.testing.assert_allclose(responsibilities, powers / powers.sum(1, keepdims=True), rtol=1e-4)
    hard = soft_kmeans.responsibilities(centers, x, 0.0)
    np.testing.assert_array_equal(np.argmax(hard, 1), kmeans.predict(centers, x))
    twice = soft_kmeans.responsibilities(np.zeros((3, 2)), x, 0.0)
    np.testing.assert_array_equal(twice, np.broadcast_to([1, 0, 0], (24, 3)))
    gradient = jax.jit(
        jax.grad(lambda variance: jnp.sum(jnp.square(soft_kmeans.responsibilities(centers, x, variance))))
    )
    assert all(np.isfinite(gradient(variance)) for variance in (0.0, 1e-30, 1e-6, 1.0))


def test_an_empty_cluster_keeps_its_center(blobs, key):
    init = np.concatenate([blobs.centers[:3], np.full((1, 5), 500, np.float32)])
    fitted = soft_kmeans.fit(key, blobs.x, 4, variance=0.1, init=init)
    np.testing.assert_allclose(fitted.state.centers[3], 500, rtol=1e-6)
    assert float(fitted.state.weight[3]) == 0
    assert Status(int(fitted.status)) is Status.EMPTY_CLUSTERS


def test_a_mesh_changes_nothing_but_rounding(blobs, init, weights, key):
    x, known = np.float64(blobs.x[:299]) + 1e9, np.where(np.arange(299) < 20, blobs.y[:299], -1)
    fit = partial(soft_kmeans.fit, key, x, 4, variance=2.0, weights=weights[:299], known=known)
    single, spread = fit(), fit(mesh=jaxcluster.sharding.row_mesh())
    np.testing.assert_array_equal(single.labels, spread.labels)
    np.testing.assert_allclose(single.state.centers - 1e9, spread.state.centers - 1e9, atol=1e-5)


def test_variances_may_be_mapped_over(blobs, weights, key):  # the other transformations: test_contracts.py
    def fit(variance):
        return soft_kmeans.fit(key, blobs.x, 4, variance=variance, weights=weights, init=blobs.centers, tol=1e-8)

    many = jax.jit(jax.vmap(fit))(np.float32([0.0, 2.0]))
    for i, variance in enumerate((0.0, 2.0)):
        one = fit(variance)
        np.testing.assert_allclose(one.state.centers, many.state.centers[i], atol=1e-4)
        np.testing.assert_allclose(one.state.objective, many.state.objective[i], rtol=1e-5)


def test_gradients_are_finite_differences(small, key):
    x, init, w = small
    variances, eps = np.array([0.0, 0.7]), 1e-6
    pull = np.random.default_rng(4).normal(size=(2, 2))

    def loss(x, w, variance):
        fit = soft_kmeans.fit(key, x, 2, variance=variance, weights=w, init=init, tol=1e-28, max_steps=2000)
        return jnp.sum(pull * fit.state.centers) + fit.state.objective / 10 + fit.state.weight @ pull[0]

    with jax.enable_x64(True):
        run = jax.jit(jax.vmap(jax.value_and_grad(loss, argnums=(0, 1, 2)), (None, None, 0)))
        _, gradients = run(x, w, variances)
        assert all(np.isfinite(gradient).all() for gradient in gradients)
        for which, index in ((0, (3, 0)), (0, (20, 1)), (1, (5,)), (2, (1,))):
            ahead, behind = [x.copy(), w.copy(), variances.copy()], [x.copy(), w.copy(), variances.copy()]
            ahead[which][index] += eps
            behind[which][index] -= eps
            found = np.asarray(run(*ahead)[0] - run(*behind)[0]) / (2 * eps)
            if which == 2:  # a variance is not below 0
                np.testing.assert_allclose(gradients[2][1], found[1], rtol=1e-5, atol=1e-7)
            else:
                np.testing.assert_allclose(gradients[which][:, *index], found, rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def many_blobs():
    """400 rows around 12 centers in the plane, some of them near to each other: random starts miss many."""
    rng = np.random.default_rng(5)
    centers = rng.normal(size=(12, 2)) * 6
    return (centers[rng.integers(0, 12, 400)] + rng.normal(size=(400, 2))).astype(np.float32)


def test_annealing_beats_random_starts(many_blobs):
    keys = jax.random.split(jax.random.key(0), 6)
    annealed = jax.jit(jax.vmap(lambda key: soft_kmeans.anneal(key, many_blobs, 12, variance=0.05)))(keys[:2])
    drawn = jax.jit(jax.vmap(lambda key: soft_kmeans.fit(key, many_blobs, 12, variance=0.05, init="random")))(keys)
    low, random = (np.array([-kmeans.score(c, many_blobs) for c in f.state.centers]) for f in (annealed, drawn))
    assert (annealed.status == Status.CONVERGED).all()
    assert np.ptp(low) < 0.05 * low.mean()
    assert low.max() < random.mean()


def test_annealing_ends_in_a_fit_with_its_gradient(small, key):
    x, _, w = (each.astype(np.float32) for each in small)

    options = {"variance": 0.4, "weights": w, "tol": 1e-10, "max_steps": 1000}

    def with_gradient(run, **start):
        def loss(x):
            centers = run(key, x, 2, **start, **options).state.centers
            return jnp.sum(jnp.square(centers)), centers

        return jax.jit(jax.grad(loss, has_aux=True))(x)

    gradient, annealed = with_gradient(soft_kmeans.anneal)
    wanted, fitted = with_gradient(soft_kmeans.fit, init=np.asarray(annealed))
    np.testing.assert_allclose(annealed, fitted, atol=1e-3)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-2, atol=1e-3)
    hard = soft_kmeans.anneal(key, x, 2, **{**options, "variance": 0.0})
    np.testing.assert_array_equal(hard.labels, kmeans.predict(hard.state.centers, x))


def test_mistakes_are_named(blobs, key):
    assert jaxcluster.soft_kmeans is soft_kmeans
    with pytest.raises(ValueError, match="variance=-1 must be at least 0"):
        soft_kmeans.fit(key, blobs.x, 3, variance=-1)
    with pytest.raises(ValueError, match="rate=1.0 must be below 1"):
        soft_kmeans.anneal(key, blobs.x, 3, variance=1.0, rate=1.0)
    with pytest.raises(TypeError, match="known must hold integers"):
        soft_kmeans.fit(key, blobs.x, 3, variance=1.0, known=np.zeros(300))
    with pytest.raises(ValueError, match="init='kmeans' is not known"):
        soft_kmeans.fit(key, blobs.x, 3, variance=1.0, init="kmeans")
    with pytest.raises(ValueError, match="3 columns, but the model was fitted on 5"):
        soft_kmeans.responsibilities(blobs.centers, blobs.x[:, :3], 1.0)

"""Implicit gradients equal those of unrolled steps and of finite differences, of second order too.

In float32 they do so to a thousandth, under jit and vmap, in memory that does not grow with the steps. Labels have no
gradient and raise an error.
"""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster import bayesian_gmm, bisecting, gmm, kmeans, soft_kmeans
from jaxcluster.cluster import kmedoids, sinkhorn
from jaxcluster.cluster.gmm.em import TransposedPoints
from jaxcluster.core.implicit import implicit_fixed_point, with_derivative_of

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = np.repeat([[0.0, 0.0], [4.0, 1.0]], 8, axis=0) + RNG.normal(size=(16, 2))
INIT, ALONG = X[[0, 12]], RNG.normal(size=X.shape)
PULL = RNG.normal(size=(2, 2))
KNOWN = np.where(np.arange(16) % 8 == 0, np.arange(16) // 8, -1)


def of_soft(x, known=None, steps=1000):
    options = {"variance": 0.8, "init": INIT.astype(x.dtype), "known": known, "tol": 0.0, "max_steps": steps}
    return jnp.vdot(PULL.astype(x.dtype), soft_kmeans.fit(KEY, x, 2, **options).state.centers)


def of_soft_unrolled(x, known=None, steps=300):
    pinned = None if known is None else jnp.asarray(known)

    def advance(centers, _):
        stats = soft_kmeans.soft_stats(centers, TransposedPoints(x.T, jnp.ones(16)), jnp.asarray(0.8), known=pinned)
        return soft_kmeans.soft_update(stats, centers), None

    return jnp.vdot(jnp.asarray(PULL), jax.lax.scan(advance, jnp.asarray(INIT), length=steps)[0])


def of_k_means(x, steps=1000):
    state = kmeans.fit(KEY, x, 2, init=INIT.astype(x.dtype), tol=0.0, max_steps=steps).state
    return jnp.vdot(PULL.astype(x.dtype), state.centers) + state.inertia


def of_k_means_unrolled(x, steps=8):
    def advance(centers, _):
        own = jax.nn.one_hot(jnp.argmin(jnp.sum((x[:, None] - centers) ** 2, axis=2), axis=1), 2, dtype=x.dtype)
        return own.T @ x / jnp.sum(own, axis=0)[:, None], jnp.sum(own * jnp.sum((x[:, None] - centers) ** 2, axis=2))

    centers, _ = jax.lax.scan(advance, jnp.asarray(INIT), length=steps)
    return jnp.vdot(jnp.asarray(PULL), centers) + advance(centers, None)[1]


def of_transport(x, steps=2000, num_iters=None):
    options = {
        "epsilon": 1.0,
        "tol": 0.0 if x.dtype == np.float64 else 1e-6,
        "max_steps": steps,
        "num_iters": num_iters,
    }
    solved = sinkhorn.solve(x, (X[:9] + 1).astype(x.dtype), **options)
    return solved.transport_cost + jnp.sum(jnp.sin(solved.f))


# test_gmm_gradients.py has those of mixtures, test_soft_kmeans.py those without known rows.
IMPLICIT = {
    "soft k-means": (partial(of_soft, known=KNOWN), partial(of_soft_unrolled, known=KNOWN)),
    "k-means": (of_k_means, of_k_means_unrolled),
    "transport": (of_transport, partial(of_transport, num_iters=200)),
}


@cache
def wide_run(name):
    """Value and gradient in float64, compiled once for all tests."""
    return jax.jit(jax.value_and_grad(IMPLICIT[name][0]))


@cache
def narrow_run(name, **limit):
    """Compiled gradients of two problems in float32."""
    with jax.enable_x64(False):
        run = jax.jit(jax.vmap(jax.grad(partial(IMPLICIT[name][0], **limit))))
        return run.lower(jax.ShapeDtypeStruct((2, *X.shape), jnp.float32)).compile()


@pytest.mark.parametrize("name", IMPLICIT)
def test_implicit_gradients_are_those_of_the_steps(name):
    _, unrolled = IMPLICIT[name]
    with jax.enable_x64(True):
        run = wide_run(name)
        _, wide = run(jnp.asarray(X))
        steps = jax.jit(jax.grad(unrolled))(jnp.asarray(X))
        assert np.abs(wide).max() > 1e-2
        np.testing.assert_allclose(wide, steps, rtol=1e-5, atol=1e-7)
        ahead, behind = (run(jnp.asarray(X + side * ALONG))[0] for side in (1e-5, -1e-5))
        np.testing.assert_allclose(np.vdot(wide, ALONG), (ahead - behind) / 2e-5, rtol=1e-5)
    narrow = narrow_run(name)(np.stack([X, X + 0.1]).astype(np.float32))
    assert narrow.dtype == np.float32
    assert np.abs(narrow[0] - wide).max() < 1e-3 * np.abs(wide).max()
    assert np.isfinite(narrow[1]).all()


@pytest.mark.parametrize("name", IMPLICIT)
def test_gradient_memory_does_not_grow_with_steps(name):
    def temps(**limit):
        return narrow_run(name, **limit).memory_analysis().temp_size_in_bytes

    few = temps(steps=10)
    # 512 steps of the objective's history are kept whatever the limit; so many floats may be more for 1000 or 2000.
    assert temps() <= few + 16 * 1024
    if name == "transport":
        assert temps(num_iters=1000) > 10 * few


def test_second_derivatives_move_the_solution():
    def solved(a, b):  # s = a·s + b
        return implicit_fixed_point(lambda s, a, b: a * s + b, jax.lax.stop_gradient(b / (1 - a)), a, b)

    found = jax.jit(jax.hessian(solved, argnums=(0, 1)))(jnp.float32(0.5), jnp.float32(3))
    np.testing.assert_allclose(found, [[48, 4], [4, 0]], rtol=1e-4, atol=1e-4)

    def squared(x):
        return with_derivative_of(jnp.sin, jax.lax.stop_gradient(jnp.sin(x)), x) ** 2

    np.testing.assert_allclose(jax.jit(jax.grad(jax.grad(squared)))(jnp.float32(0.5)), 2 * np.cos(1.0), rtol=1e-5)


@pytest.mark.parametrize("name", ["soft k-means", "k-means"])
def test_a_hessian_of_centers_is_that_of_the_gradient(name):
    def squared_gradient(x):  # of the square: the value is linear in the rows where labels stay as they are
        value, gradient = wide_run(name)(x)
        return 2 * value * gradient

    with jax.enable_x64(True):
        _, curve = jax.jit(lambda x: jax.jvp(squared_gradient, (x,), (jnp.asarray(ALONG),)))(jnp.asarray(X))
        expected = (
            squared_gradient(jnp.asarray(X + 1e-5 * ALONG)) - squared_gradient(jnp.asarray(X - 1e-5 * ALONG))
        ) / 2e-5
        np.testing.assert_allclose(curve, expected, rtol=1e-4, atol=1e-6)


def test_states_with_counts_and_steps_with_closures():
    def value(a, b):
        solution = {"s": jax.lax.stop_gradient(b / (1 - a)), "count": jnp.int32(3)}
        found = implicit_fixed_point(lambda state: {"s": a * state["s"] + b, "count": state["count"]}, solution)
        return found["s"] * found["count"]

    for transform in (lambda f: f, jax.jit):
        gradients = transform(jax.grad(value, argnums=(0, 1)))(jnp.float32(0.5), jnp.float32(3))
        np.testing.assert_allclose(gradients, [36, 6], rtol=1e-5)


def test_straight_through_is_hard_with_soft_gradient():
    probabilities = jnp.asarray([[[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]], [[0.0, 0.1, 0.9], [1.0, 0.0, 0.0]]])
    hard = soft_kmeans.straight_through(probabilities)
    np.testing.assert_array_equal(hard, [[[0, 1, 0], [1, 0, 0]], [[0, 0, 1], [1, 0, 0]]])
    weights = jnp.arange(12.0).reshape(2, 2, 3)
    gradient = jax.jit(jax.grad(lambda s: jnp.sum(jnp.square(soft_kmeans.straight_through(s)) * weights)))(
        probabilities
    )
    np.testing.assert_allclose(gradient, 2 * hard * weights)
    centers = jnp.asarray(INIT, jnp.float32)

    def quantized(x, choose):
        return jnp.sum(choose(soft_kmeans.responsibilities(centers, x, 2.0)) @ centers)

    x = jnp.asarray(X, jnp.float32)
    soft, through = (
        jax.jit(jax.grad(partial(quantized, choose=f)))(x) for f in (lambda s: s, soft_kmeans.straight_through)
    )
    np.testing.assert_allclose(through, soft, rtol=1e-5)
    assert np.isnan(soft_kmeans.straight_through(jnp.asarray([jnp.nan, 1.0]))).all()
    with pytest.raises(TypeError, match="dtype int32, which has no gradient"):
        soft_kmeans.straight_through(jnp.arange(3))


def labels_of(name):
    x = X.astype(np.float32)
    if name == "kmeans":
        return partial(kmeans.predict, x[:2])
    if name == "kmedoids":
        return partial(kmedoids.predict, x[:2])
    fit = {
        "gmm": partial(gmm.fit, covariance="spherical", init=x[:2]),
        "bayesian_gmm": partial(bayesian_gmm.fit, covariance="spherical", init=x[:2]),
        "bisecting": bisecting.fit,
    }[name]
    predict = {"gmm": gmm.predict, "bayesian_gmm": bayesian_gmm.predict, "bisecting": bisecting.predict}[name]
    return partial(predict, fit(KEY, x, 2).state)


@pytest.mark.parametrize("name", ["kmeans", "kmedoids", "gmm", "bayesian_gmm", "bisecting"])
def test_a_gradient_through_labels_is_refused(name):
    predict, x = labels_of(name), jnp.asarray(X, jnp.float32)

    def value(x):
        return jnp.sum(predict(x) * 1.0)

    for transform in (jax.grad(value), jax.jit(jax.grad(value)), lambda x: jax.jvp(value, (x,), (x,))):
        with pytest.raises(TypeError, match="labels are integers.*responsibilities.*stop_gradient"):
            transform(x)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(predict(jax.lax.stop_gradient(x))[:, None] * x)))(x)
    np.testing.assert_array_equal(gradient, np.broadcast_to(predict(x)[:, None], x.shape))
    np.testing.assert_array_equal(jax.vmap(predict)(jnp.stack([x, x]))[1], predict(np.asarray(x)))


def test_labels_refuse_gradients_of_the_model():
    with pytest.raises(TypeError, match="labels are integers"):
        jax.grad(lambda centers: jnp.sum(kmeans.predict(centers, X) * 1.0))(jnp.asarray(INIT))

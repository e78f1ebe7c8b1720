"""Gradients of a fitted mixture: the implicit function theorem against unrolled steps and finite differences."""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster import gmm
from jaxcluster.ops.gaussian import COVARIANCE_TYPES

TYPES = tuple(COVARIANCE_TYPES)
N, D, K = 40, 2, 2
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = np.repeat([[0.0, 0.0], [5.0, 1.0]], N // 2, axis=0) + RNG.normal(size=(N, D))
W = RNG.uniform(0.5, 2, N)
MIX = RNG.normal(size=K), RNG.normal(size=(K, D)), RNG.normal(size=(K, D, D))
DX, DW = RNG.normal(size=(N, D)), RNG.normal(size=N)


def start(covariance, dtype):
    precisions = np.ones(COVARIANCE_TYPES[covariance].shape(K, D)) if covariance in ("diag", "spherical") else np.eye(D)
    precisions = np.broadcast_to(precisions, COVARIANCE_TYPES[covariance].shape(K, D))
    return gmm.GMMInit(X[[3, 30]].astype(dtype), np.full(K, 0.5, dtype), precisions.astype(dtype))


def value(covariance, x, w, **options):
    """A number that every parameter has a part in, and the lower bound, whose gradient is that of the likelihood."""
    options = {"tol": 0.0, "max_steps": 200} | options
    state = gmm.fit(KEY, x, K, covariance=covariance, weights=w, init=start(covariance, x.dtype), **options).state
    mix = MIX[2].reshape(K, -1)[:, : state.covariances.size // state.covariances.shape[0]]
    spread = jnp.reshape(state.covariances, (state.covariances.shape[0], -1))
    number = (
        jnp.sum(MIX[0].astype(x.dtype) * state.weights)
        + jnp.sum(MIX[1].astype(x.dtype) * state.means)
        + jnp.sum(mix[: spread.shape[0]].astype(x.dtype) * spread)
    )
    return number + 0.3 * state.lower_bound


def gradient(covariance, **options):
    return jax.grad(partial(value, covariance, **options), argnums=(0, 1))


@cache
def wide(covariance):
    """Value and gradient in float64, compiled once for all tests."""
    return jax.jit(jax.value_and_grad(partial(value, covariance), argnums=(0, 1)))


def differences(run, h=1e-5):
    """Central differences of ``run`` along DX and along DW."""
    x, w = jnp.asarray(X), jnp.asarray(W)
    along_x = (run(x + h * DX, w)[0] - run(x - h * DX, w)[0]) / (2 * h)
    return along_x, (run(x, w + h * DW)[0] - run(x, w - h * DW)[0]) / (2 * h)


def along(gradients):
    return np.sum(gradients[0] * DX, axis=(-2, -1)), np.sum(gradients[1] * DW, axis=-1)


@pytest.mark.parametrize("covariance", TYPES)
def test_implicit_equals_unrolled_and_differences(covariance):
    with jax.enable_x64(True):
        run = wide(covariance)
        implicit = run(X, W)[1]
        expected = differences(run)
        np.testing.assert_allclose(along(implicit), expected, rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(implicit[1] @ W, 0, atol=1e-9)  # only ratios of weights matter
        if covariance == "spherical":  # its program is the smallest
            unrolled = jax.jit(gradient(covariance, unroll=True, max_steps=40))(X, W)
            for a, b in zip(implicit, unrolled, strict=True):
                assert np.abs(b).max() > 1e-3
                np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_float32_gradients_under_vmap():
    narrow = jax.jit(jax.vmap(gradient("full")))(*(np.stack([each] * 2).astype(np.float32) for each in (X, W)))
    with jax.enable_x64(True):
        expected = differences(wide("full"))
    for lane in range(2):
        assert narrow[0].dtype == np.float32
        np.testing.assert_allclose(along([each[lane] for each in narrow]), expected, rtol=1e-3, atol=1e-3)


def test_forward_mode_equals_differences():
    with jax.enable_x64(True):
        push = jax.jit(lambda x, w, dx, dw: jax.jvp(partial(value, "diag"), (x, w), (dx, dw)))
        run = partial(push, dx=np.zeros_like(X), dw=np.zeros_like(W))
        expected = differences(run)
        np.testing.assert_allclose(push(X, W, DX, np.zeros_like(W))[1], expected[0], rtol=1e-5)
        np.testing.assert_allclose(push(X, W, np.zeros_like(X), DW)[1], expected[1], rtol=1e-5, atol=1e-8)


def test_missing_cells_have_no_gradient():
    holes = X.copy()
    holes[[1, 25], [0, 1]] = np.nan
    seen = ~np.isnan(holes)
    with jax.enable_x64(True):
        run = jax.jit(jax.value_and_grad(partial(value, "full", missing=True), argnums=(0, 1)))
        _, (dx, dw) = run(holes, W)
        assert np.isfinite(dx).all()
        assert (np.asarray(dx)[~seen] == 0).all()
        expected = differences(lambda x, w: run(jnp.where(seen, x, jnp.nan), w))
        np.testing.assert_allclose(along((dx, dw)), expected, rtol=1e-5, atol=1e-8)


def test_gradient_memory_does_not_grow_with_steps():
    def temps(steps, unroll=False):
        x, w = jnp.asarray(X, jnp.float32), jnp.asarray(W, jnp.float32)
        compiled = jax.jit(gradient("spherical", unroll=unroll, max_steps=steps)).lower(x, w).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = temps(10), temps(400)
    assert many == few
    assert temps(400, unroll=True) > 1.5 * many

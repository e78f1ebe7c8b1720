"""The smallest eigenpairs are LAPACK's, with multiple eigenvalues and narrow gaps among them."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster.ops import eigen
from jaxcluster.types import Status

N = 520
"""More rows than are decomposed whole."""

SPECTRA = {
    "even": np.linspace(0, 2, N),
    "multiple": np.repeat(np.linspace(0, 2, N // 5), 5),
    "many zeros": np.concatenate([np.zeros(40), np.linspace(0.1, 2, N - 40)]),
    "a narrow gap": np.concatenate([[0, 1e-3, 2e-3, 2e-3 + 1e-5], np.linspace(3e-3, 2, N - 4)]),
    "all alike": np.ones(N),
}


def with_spectrum(values, seed=0):
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))
    return (turn * values) @ turn.T, turn


@partial(jax.jit, static_argnums=2)
def run(matrix, start, k, null, tol, max_steps):
    limits = {"upper": 2.0, "null": null, "tol": tol, "max_steps": max_steps}
    return eigen.smallest_eigenpairs(lambda v: matrix @ v, start, k, **limits)


def solve(matrix, k, *, null=None, tol=1e-4, max_steps=100):
    """In float64."""
    with jax.enable_x64(True):
        matrix = jnp.asarray(matrix)
        start = eigen.random_start(jax.random.key(0), len(matrix), k, matrix.dtype)
        return jax.device_get(run(matrix, start, k, null, tol, max_steps))


@pytest.mark.parametrize("name", SPECTRA)
def test_they_are_those_of_the_spectrum(name):
    values = SPECTRA[name]
    matrix, turn = with_spectrum(values)
    found = solve(matrix, 3)
    np.testing.assert_allclose(found.values, values[:3], atol=1e-7)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(3), atol=1e-10)
    true = np.linalg.norm(matrix @ found.vectors - found.vectors * found.values, axis=0)
    np.testing.assert_allclose(found.residuals, true, atol=1e-12)
    assert (found.residuals <= 1e-4).all()
    assert Status(int(found.status)) == Status.CONVERGED
    assert np.isfinite(found.history[: found.steps]).all()
    among = turn[:, values <= values[2] + 1e-9]  # of multiple eigenvalues any vectors will do
    outside = found.vectors - among @ (among.T @ found.vectors)
    assert np.linalg.norm(outside, 2) <= eigen.MAX_ANGLE


def test_a_residual_alone_would_not_do():
    """Vectors 3 and 4 differ by 1e-5 in their eigenvalues: any mixture of them has a smaller residual than tol."""
    matrix, _ = with_spectrum(SPECTRA["a narrow gap"])
    found = solve(matrix, 3)
    assert found.residuals.max() <= eigen.MAX_ANGLE * 1.1e-5
    loose = solve(matrix, 3, tol=1e-4, max_steps=1)
    assert loose.residuals.max() > found.residuals.max()


def test_few_rows_are_decomposed_whole():
    values = np.linspace(0, 2, 20)
    found = solve(with_spectrum(values)[0], 20)
    np.testing.assert_allclose(found.values, values, atol=1e-12)
    assert found.steps == 0
    assert Status(int(found.status)) == Status.CONVERGED


@pytest.mark.parametrize("n", [60, N])
def test_what_is_known_is_taken_first(n):
    values = np.concatenate([np.zeros(3), np.linspace(0.5, 2, n - 3)])
    matrix, turn = with_spectrum(values)
    with jax.enable_x64(True):
        null = jnp.asarray(np.concatenate([turn[:, [1, 0]], np.zeros((n, 3))], axis=1))
        found = solve(matrix, 5, null=null)
        only = solve(matrix, 2, null=null[:, :2])
    np.testing.assert_allclose(found.values, values[:5], atol=1e-7)
    np.testing.assert_allclose(found.vectors[:, :2], turn[:, [1, 0]], atol=1e-12)
    np.testing.assert_allclose(abs(found.vectors[:, 2] @ turn[:, 2]), 1, atol=1e-6)
    np.testing.assert_allclose(only.vectors, turn[:, [1, 0]], atol=1e-12)
    assert only.steps == 0


def test_float32_gives_what_it_can():
    values = np.linspace(0, 2, N)
    matrix = jnp.asarray(with_spectrum(values)[0], jnp.float32)
    start = eigen.random_start(jax.random.key(1), N, 4, jnp.float32)
    found = run(matrix, start, 4, None, 1e-4, 100)
    np.testing.assert_allclose(found.values, values[:4], atol=1e-5)
    assert found.vectors.dtype == np.float32
    assert float(found.residuals.max()) <= 1e-4


@pytest.mark.parametrize("n", [60, N])
def test_nan_is_a_status(n):
    matrix = np.full((n, n), np.nan)
    assert Status(int(solve(matrix, 3).status)) == Status.NOT_FINITE


def test_running_out_of_steps_is_a_status():
    found = solve(with_spectrum(SPECTRA["a narrow gap"])[0], 3, max_steps=1)
    assert (int(found.steps), Status(int(found.status))) == (1, Status.MAX_STEPS)


@pytest.mark.parametrize("n", [60, N])
def test_status_is_that_of_the_residuals(n):
    found = solve(with_spectrum(np.linspace(0, 2, n))[0], 3, tol=1e-18, max_steps=4)
    assert found.residuals.max() > 1e-18
    assert Status(int(found.status)) in (Status.PRECISION, Status.MAX_STEPS)
    assert np.isfinite(found.history).all()


def test_other_limits_compile_nothing(compiles):
    matrix = jnp.asarray(with_spectrum(SPECTRA["even"])[0], jnp.float32)
    start = eigen.random_start(jax.random.key(1), N, 4, jnp.float32)
    run(matrix, start, 4, None, 1e-3, 50)
    with compiles() as seen:
        run(matrix, start, 4, None, 1e-4, 60)
    assert seen.count == 0

"""The soft silhouette: equal to the usual one for one-hot rows, differentiable, and small in memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as oracle
from scipy.spatial.distance import cdist

from jaxcluster import metrics
from jaxcluster.metrics import soft
from jaxcluster.metrics.contingency import encode

N, D, K = 300, 6, 5
RNG = np.random.default_rng(0)
CENTERS = RNG.normal(size=(K, D)) * 2
Y = RNG.integers(0, K, N)
X = (CENTERS[Y] + RNG.normal(size=(N, D))).astype(np.float32)
LABELINGS = {
    "good": Y,
    "random": RNG.integers(0, 3, N),
    "one_singleton": np.where(np.arange(N) == 7, 9, Y),
    "more": np.arange(N) // 38,
}
ONE_HOT = np.eye(K, dtype=np.float32)[Y]
SOFT = RNG.dirichlet(np.ones(K), N).astype(np.float32)


def soft_oracle(distances, q):
    """Section 3 of Vardakas, Papakostas and Likas, row by row and cluster by cluster."""
    n, k = q.shape
    values = np.zeros(n)
    for i in range(n):
        others = np.arange(n) != i
        mean = np.array([np.average(distances[i, others], weights=q[others, j]) for j in range(k)])
        for j in range(k):
            nearest = min(mean[m] for m in range(k) if m != j)
            values[i] += q[i, j] * (nearest - mean[j]) / max(nearest, mean[j])
    return values


@pytest.mark.parametrize("labeling", LABELINGS)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_one_hot_rows_give_the_usual_silhouette(metric, labeling):
    codes = encode(LABELINGS[labeling]).codes
    one_hot = np.eye(codes.max() + 1)[codes]
    expected = oracle.silhouette_samples(X.astype(np.float64), codes, metric=metric)
    np.testing.assert_allclose(metrics.soft_silhouette_samples(X, one_hot, metric=metric), expected, atol=1e-5)
    assert float(metrics.soft_silhouette(X, one_hot, metric=metric)) == pytest.approx(expected.mean(), abs=1e-5)


def test_soft_silhouettes_equal_the_formula():
    expected = soft_oracle(cdist(X, X), SOFT)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(metrics.soft_silhouette_samples(X, SOFT), expected, atol=1e-6)
    result = metrics.soft_silhouette_samples(cdist(X, X), SOFT, metric="precomputed")
    np.testing.assert_allclose(result, expected, atol=1e-6)
    expected = soft_oracle(cdist(X, X, "minkowski", p=3), SOFT)
    np.testing.assert_allclose(metrics.soft_silhouette_samples(X, SOFT, metric="minkowski", p=3), expected, atol=1e-6)


def test_soft_silhouettes_in_tiles(monkeypatch):
    def value_and_gradients():
        score = jax.value_and_grad(lambda x, q: metrics.soft_silhouette(x, q), argnums=(0, 1))
        value, gradients = jax.jit(score)(X, SOFT)
        return value, *gradients

    whole = value_and_gradients()
    monkeypatch.setattr(soft, "TILE_ELEMENTS", 77 * N)  # 4 tiles of 75
    for one, other in zip(whole, value_and_gradients(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "precomputed"])
def test_gradients_equal_finite_differences(metric):
    n, step = 12, 1e-6
    with jax.enable_x64(True):
        x, q = X[:n].astype(np.float64), SOFT[:n].astype(np.float64)
        x = cdist(x, x) if metric == "precomputed" else x

        def score(x, q):
            return metrics.soft_silhouette(x, q, metric=metric)

        compiled = jax.jit(score)
        for argument, gradient in enumerate(jax.jit(jax.grad(score, argnums=(0, 1)))(x, q)):
            expected = np.zeros(gradient.shape)
            for at in np.ndindex(expected.shape):
                ends = []
                for sign in (1, -1):
                    arguments = [x.copy(), q.copy()]
                    arguments[argument][at] += sign * step
                    ends.append(float(compiled(*arguments)))
                expected[at] = (ends[0] - ends[1]) / (2 * step)
            if metric == "precomputed" and argument == 0:
                np.fill_diagonal(expected, 0)
            assert np.abs(expected).max() > 1e-3
            np.testing.assert_allclose(gradient, expected, atol=1e-7)


def test_gradients_are_finite_where_distances_vanish():
    x = np.repeat(X[:6], 2, axis=0)
    gradients = jax.jit(jax.grad(metrics.soft_silhouette, argnums=(0, 1)))
    for q in (SOFT[:12], ONE_HOT[:12], np.eye(12, K, dtype=np.float32)):
        for gradient in gradients(x, q):
            assert np.isfinite(gradient).all()


def test_ascent_of_soft_silhouette_separates_clusters():
    def score(logits):
        return metrics.soft_silhouette(X, jax.nn.softmax(logits))

    climb = jax.jit(jax.value_and_grad(score))
    logits = jnp.log(0.5 * SOFT + 0.5 * ONE_HOT)
    start, _ = climb(logits)
    for _ in range(50):
        value, gradient = climb(logits)
        logits = logits + 500 * gradient
    assert value > start + 0.05
    assert metrics.adjusted_rand_score(Y, jnp.argmax(logits, axis=1)) > 0.9


def test_soft_silhouettes_under_jit_and_vmap():
    xs, qs = np.stack([X, X[::-1] * 2]), np.stack([SOFT, ONE_HOT])
    loop = np.array([metrics.soft_silhouette_samples(x, q) for x, q in zip(xs, qs, strict=True)])
    np.testing.assert_allclose(jax.vmap(metrics.soft_silhouette_samples)(xs, qs), loop, atol=1e-6)
    np.testing.assert_allclose(jax.jit(metrics.soft_silhouette_samples)(X, SOFT), loop[0], atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(metrics.soft_silhouette))(xs, qs), loop.mean(axis=1), atol=1e-6)


def test_padding_changes_nothing():
    padded = np.concatenate([X, np.full((20, D), 3, np.float32)]), np.concatenate([SOFT, np.zeros((20, K), np.float32)])
    values = metrics.soft_silhouette_samples(*padded)
    np.testing.assert_allclose(values[:N], metrics.soft_silhouette_samples(X, SOFT), atol=1e-6)
    np.testing.assert_array_equal(values[N:], 0)
    assert float(metrics.soft_silhouette(*padded)) == pytest.approx(float(metrics.soft_silhouette(X, SOFT)), abs=1e-6)
    empty_cluster = np.concatenate([SOFT, np.zeros((N, 1), np.float32)], axis=1)
    result = metrics.soft_silhouette(X, empty_cluster)
    assert float(result) == pytest.approx(float(metrics.soft_silhouette(X, SOFT)), abs=1e-6)


def test_soft_silhouettes_never_hold_all_distances():
    n, k = 8192, 4
    x, q = jax.ShapeDtypeStruct((n, 16), jnp.float32), jax.ShapeDtypeStruct((n, k), jnp.float32)
    for program in (metrics.soft_silhouette, jax.grad(metrics.soft_silhouette, argnums=(0, 1))):
        compiled = jax.jit(program).lower(x, q).compile()
        assert compiled.memory_analysis().temp_size_in_bytes < n * n * 4 / 4
        assert f"{n},{n}]" not in compiled.as_text()


def test_soft_silhouettes_check_their_arguments():
    score = metrics.soft_silhouette
    with pytest.raises(ValueError, match="x has 300 rows but q has 299"):
        score(X, SOFT[1:])
    with pytest.raises(ValueError, match="at least 2 clusters"):
        score(X, SOFT[:, :1])
    with pytest.raises(ValueError, match="q must be 2-D"):
        score(X, Y)
    with pytest.raises(ValueError, match="q must not be negative: 5 of"):
        score(X, np.where(np.arange(N)[:, None] == 3, -SOFT, SOFT))
    with pytest.raises(ValueError, match="x contains 6 NaN"):
        score(np.where(np.arange(N)[:, None] == 3, np.nan, X), SOFT)
    with pytest.raises(ValueError, match=r"must have shape \(300, 300\)"):
        score(X, SOFT, metric="precomputed")

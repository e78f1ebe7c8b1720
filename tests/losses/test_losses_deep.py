"""The losses of deep clustering are their formulas in float64, with the gradients of finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.test_util import check_grads

from jaxcluster import losses

N, D, K, WIDE = 7, 3, 4, 5
RNG = np.random.default_rng(0)
Z, CENTERS = RNG.normal(size=(N, D)), RNG.normal(size=(K, D))
WEIGHTS = np.array([1, 2, 0, 0.5, 1, 3, 1.0])
X, LOGITS = RNG.random((N, WIDE)), RNG.normal(size=(N, WIDE))
MEAN, LOG_VARIANCE = Z + 0.1 * RNG.normal(size=Z.shape), RNG.normal(size=Z.shape) - 1
PRIOR = {
    "log_weights": np.log(RNG.dirichlet(np.ones(K))),
    "means": CENTERS,
    "log_variances": RNG.normal(size=(K, D)) / 2,
}


def narrow(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree, is_leaf=lambda node: isinstance(node, list))


def formula_of_assignments(z, centers, alpha):
    q = np.zeros((len(z), len(centers)))
    for i, row in enumerate(z):
        q[i] = [(1 + np.sum((row - center) ** 2) / alpha) ** (-(alpha + 1) / 2) for center in centers]
        q[i] /= q[i].sum()
    return q


def formula_of_target(q, weights):
    p = np.zeros_like(q)
    frequency = sum(w * row for w, row in zip(weights, q, strict=True))
    for i, row in enumerate(q):
        p[i] = row**2 / frequency
        p[i] /= p[i].sum()
    return p


def formula_of_responsibilities(z, log_weights, means, log_variances):
    gamma = np.zeros((len(z), len(means)))
    for i, row in enumerate(z):
        for c in range(len(means)):
            variance = np.exp(log_variances[c])
            density = np.prod(np.exp(-((row - means[c]) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance))
            gamma[i, c] = np.exp(log_weights[c]) * density
    return gamma / gamma.sum(axis=1, keepdims=True)


def formula_of_divergence(gamma, log_weights, means, log_variances):
    """The last two of the three sums by clusters as entropies, row by row."""
    values = []
    for i in range(len(gamma)):
        value = 0.0
        for c in range(len(means)):
            for j in range(means.shape[1]):
                variance = np.exp(log_variances[c, j])
                gap = (MEAN[i, j] - means[c, j]) ** 2
                value += gamma[i, c] / 2 * (log_variances[c, j] + (np.exp(LOG_VARIANCE[i, j]) + gap) / variance)
            value -= gamma[i, c] * (log_weights[c] - np.log(gamma[i, c]))
        values.append(value - np.sum(1 + LOG_VARIANCE[i]) / 2)
    return np.array(values)


@pytest.mark.parametrize("alpha", [1.0, 2.5])
def test_dec_is_the_formula(alpha):
    q = formula_of_assignments(Z, CENTERS, alpha)
    p = formula_of_target(q, np.ones(N))
    result = losses.student_t_assignments(*narrow((Z, CENTERS)), alpha=alpha)
    np.testing.assert_allclose(result, q, rtol=1e-5)
    np.testing.assert_allclose(losses.student_t_log_assignments(*narrow((Z, CENTERS)), alpha=alpha), np.log(q), 1e-4)
    np.testing.assert_allclose(losses.target_distribution(result), p, rtol=1e-5)
    of_rows = np.sum(p * np.log(p / q), axis=1)
    np.testing.assert_allclose(losses.dec_loss(*narrow((q, p))), of_rows.mean(), rtol=1e-4)
    weighted = losses.dec_loss(*narrow((q, p)), weights=WEIGHTS)
    np.testing.assert_allclose(weighted, WEIGHTS @ of_rows / WEIGHTS.sum(), rtol=1e-4)
    target = losses.target_distribution(result, weights=WEIGHTS)
    np.testing.assert_allclose(target, formula_of_target(q, WEIGHTS), rtol=1e-5)


def test_dec_has_the_gradient_of_the_paper():
    """(α+1)/α·Σ_j (1 + d²/α)⁻¹·(p − q)·(z − μ_j), here divided by n, since the loss is a mean."""
    alpha = 2.0
    q = formula_of_assignments(Z, CENTERS, alpha)
    p = formula_of_target(q, np.ones(N))
    expected = np.zeros_like(Z)
    for i in range(N):
        for j in range(K):
            gap = Z[i] - CENTERS[j]
            expected[i] += (alpha + 1) / alpha * (p[i, j] - q[i, j]) * gap / (1 + gap @ gap / alpha) / N

    def loss(z):
        return losses.dec_loss(losses.student_t_assignments(z, narrow(CENTERS), alpha=alpha), narrow(p))

    np.testing.assert_allclose(jax.grad(loss)(narrow(Z)), expected, rtol=1e-4, atol=1e-6)


def test_the_target_is_a_constant():
    def loss(z, stop):
        q = losses.student_t_assignments(z, narrow(CENTERS))
        p = losses.target_distribution(q)
        return losses.dec_loss(q, jax.lax.stop_gradient(p) if stop else p)

    grads = [jax.grad(loss)(narrow(Z), stop) for stop in (True, False)]
    np.testing.assert_array_equal(*grads)
    assert np.abs(grads[0]).max() > 1e-3


def test_dec_far_from_all_centers_and_at_one():
    z = narrow([[1e12, 0, 0], CENTERS[0], [-1e4, 1e4, 0]])

    def loss(z):
        q = losses.student_t_log_assignments(z, narrow(CENTERS))
        return losses.dec_loss(jnp.exp(q), jnp.full_like(q, 1 / K)), q

    (_, log_q), grad = jax.jit(jax.value_and_grad(loss, has_aux=True))(z)
    assert np.isfinite(grad).all()
    np.testing.assert_allclose(log_q[0], np.log(1 / K), rtol=1e-5)
    np.testing.assert_allclose(np.exp(log_q[1]), formula_of_assignments(CENTERS[:1], CENTERS, 1.0)[0], rtol=1e-4)
    heavy = losses.student_t_log_assignments(narrow([[0.0], [9e3]]), narrow([[0.0], [1e4]]), alpha=40.0)
    assert np.isfinite(heavy).all()
    assert heavy[1, 0] < -80  # a share of 0 in float32


def test_offset_does_not_change_gradients_of_dec():
    z, centers = (np.asarray(array + 1e4, np.float32) for array in (Z, CENTERS))
    near = tuple(each.astype(float) - 1e4 for each in (z, centers))
    p = formula_of_target(formula_of_assignments(*near, 1.0), np.ones(N))

    def loss(z, centers):
        return losses.dec_loss(losses.student_t_assignments(z, centers), p)

    grad = jax.jit(jax.grad(loss, argnums=(0, 1)))
    for far, close in zip(grad(z, centers), grad(*narrow(near)), strict=True):
        assert np.abs(close).max() > 1e-3
        np.testing.assert_allclose(far, close, rtol=1e-4, atol=1e-6)


def test_second_derivative_of_distances():
    with jax.enable_x64(True):
        z, centers = jnp.asarray(Z), jnp.asarray(CENTERS)
        grad = jax.jit(jax.grad(lambda z: jnp.sum(losses.student_t_assignments(z, centers)[:, 0])))
        check_grads(grad, (z,), order=1, modes=["fwd"])


def test_zero_target_and_zero_assignment():
    q, p = narrow([[0.0, 1.0], [0.5, 0.5]]), narrow([[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(losses.dec_loss(q, p), np.log(2) / 2, rtol=1e-6)
    assert np.isfinite(jax.grad(losses.dec_loss)(q, p[::-1])).all()
    assert np.isfinite(losses.dec_loss(q, p[::-1]))
    none = losses.target_distribution(narrow([[1e-30, 1.0], [0.0, 1.0]]))
    np.testing.assert_allclose(none, [[2e-30, 1], [0, 1]], rtol=1e-5)  # the square of 1e-30 is 0
    np.testing.assert_array_equal(losses.target_distribution(narrow([[0.0, 1.0]])), [[0, 1]])


@pytest.mark.parametrize("likelihood", losses.mixture.LIKELIHOODS)
def test_vade_is_the_formula(likelihood):
    gamma = formula_of_responsibilities(Z, **PRIOR)
    divergence = formula_of_divergence(gamma, **PRIOR)
    probability = 1 / (1 + np.exp(-LOGITS))
    entropy = -np.sum(X * np.log(probability) + (1 - X) * np.log(1 - probability), axis=1)
    rebuilt = entropy if likelihood == "bernoulli" else np.sum((X - LOGITS) ** 2, axis=1) / 2
    arguments = narrow((X, LOGITS, MEAN, LOG_VARIANCE))
    terms = losses.vade_loss(*arguments, z=narrow(Z), **narrow(PRIOR), likelihood=likelihood)
    np.testing.assert_allclose(terms.responsibilities, gamma, rtol=1e-4)
    np.testing.assert_allclose(losses.vade_responsibilities(narrow(Z), **narrow(PRIOR)), gamma, rtol=1e-4)
    np.testing.assert_allclose(terms.reconstruction, rebuilt.mean(), rtol=1e-5)
    np.testing.assert_allclose(terms.divergence, divergence.mean(), rtol=1e-5)
    np.testing.assert_allclose(terms.loss, (rebuilt + divergence).mean(), rtol=1e-5)
    weighted = losses.vade_loss(*arguments, z=narrow(Z), **narrow(PRIOR), likelihood=likelihood, weights=WEIGHTS)
    np.testing.assert_allclose(weighted.loss, WEIGHTS @ (rebuilt + divergence) / WEIGHTS.sum(), rtol=1e-5)


def test_prior_of_one_cluster_is_that_of_a_vae():
    prior = {"log_weights": jnp.zeros(1), "means": jnp.zeros((1, D)), "log_variances": jnp.zeros((1, D))}
    terms = losses.vade_loss(*narrow((X, LOGITS, MEAN, LOG_VARIANCE)), z=narrow(Z), **prior)
    kl = np.sum(np.exp(LOG_VARIANCE) + MEAN**2 - 1 - LOG_VARIANCE, axis=1) / 2
    np.testing.assert_allclose(terms.divergence, kl.mean(), rtol=1e-5)


@pytest.mark.parametrize("likelihood", losses.mixture.LIKELIHOODS)
def test_gradients_of_vade_are_those_of_differences(likelihood):
    with jax.enable_x64(True):
        arrays = jax.tree.map(jnp.asarray, ((X, LOGITS, MEAN, LOG_VARIANCE), {"z": Z, **PRIOR}))

        def loss(args, kwargs):
            return losses.vade_loss(*args, **kwargs, likelihood=likelihood, weights=WEIGHTS).loss

        check_grads(jax.jit(loss), arrays, order=1, modes=["rev"])


def test_gradients_of_dec_are_those_of_differences():
    with jax.enable_x64(True):
        p = jnp.asarray(formula_of_target(formula_of_assignments(Z, CENTERS, 1.0), np.ones(N)))

        def loss(z, centers, alpha):
            return losses.dec_loss(losses.student_t_assignments(z, centers, alpha=alpha), p, weights=WEIGHTS)

        check_grads(jax.jit(loss), tuple(map(jnp.asarray, (Z, CENTERS, 1.3))), order=1, modes=["rev"])


def test_vade_at_the_edges_of_its_numbers():
    """Codes far from all clusters, a cluster that is shut out, certain logits, one row, rows of weight 0 with NaN."""
    prior = narrow(PRIOR) | {"log_weights": jnp.asarray([0.0, -jnp.inf, -50.0, -1.0])}

    def loss(logits, mean, log_variance, z, prior, weights):
        return losses.vade_loss(
            jnp.round(narrow(X[:2])), logits, mean, log_variance, z=z, **prior, weights=weights
        ).loss

    z = narrow(Z[:2]).at[0].set(1e4)
    arguments = (jnp.full((2, WIDE), 200.0), z, narrow(LOG_VARIANCE[:2]), z, prior)
    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3, 4)))
    value, grads = run(*arguments, jnp.ones(2))
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    with_nan = (arguments[0].at[0].set(jnp.nan), z.at[0].set(jnp.nan), *arguments[2:])
    value, grads = run(*with_nan, jnp.asarray([0.0, 1.0]))
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_many_rows_are_taken_in_tiles():
    rows, centers = RNG.normal(size=(3000, 60)), RNG.normal(size=(100, 60))
    compiled = jax.jit(losses.student_t_assignments).lower(*narrow((np.tile(rows, (10, 1)), centers))).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 30_000 * 100 * 60 * 4 / 4
    result = losses.student_t_assignments(*narrow((np.tile(rows, (2, 1)), centers)))
    np.testing.assert_allclose(result[3000:3005], formula_of_assignments(rows[:5], centers, 1.0), rtol=1e-4)


def test_bad_input_of_the_deep_losses():
    z, centers = narrow((Z, CENTERS))
    with pytest.raises(ValueError, match="centers has 2 columns, but z has 3"):
        losses.student_t_assignments(z, centers[:, :2])
    with pytest.raises(ValueError, match="alpha=0 must be greater than 0"):
        losses.student_t_assignments(z, centers, alpha=0)
    with pytest.raises(ValueError, match=r"p must have the shape \(7, 3\) to go with q, got \(4, 3\)"):
        losses.dec_loss(z, centers)
    with pytest.raises(ValueError, match=r"weights must have shape \(7,\)"):
        losses.dec_loss(z, z, weights=np.ones(3))
    with pytest.raises(ValueError, match=r"weights must have shape \(7,\)"):
        jax.jit(lambda w: losses.target_distribution(z, weights=w))(np.ones(3))
    with pytest.raises(ValueError, match="must not be negative"):
        losses.dec_loss(z, z, weights=-np.ones(N))
    arguments = narrow((X, LOGITS, MEAN, LOG_VARIANCE))
    with pytest.raises(ValueError, match="'gauss' is not known.*Did you mean 'gaussian'"):
        losses.vade_loss(*arguments, z=z, **narrow(PRIOR), likelihood="gauss")
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\].*to 3.*likelihood='gaussian'"):
        losses.vade_loss(arguments[0] * 0 + 3, *arguments[1:], z=z, **narrow(PRIOR))
    with pytest.raises(ValueError, match="mean has 6 rows, but x has 7"):
        losses.vade_loss(*arguments[:2], *(each[:6] for each in arguments[2:]), z=z[:6], **narrow(PRIOR))
    with pytest.raises(ValueError, match=r"log_weights must have the shape \(4,\) to go with means"):
        losses.vade_responsibilities(z, jnp.zeros(3), centers, jnp.zeros((K, D)))


@pytest.mark.parametrize(("n", "k", "d"), [(6400, 10, 10), (2000, 100, 10), (4500, 8, 10)])
def test_assignments_of_many_samples_in_one_program(n, k, d):
    # Shapes for which XLA on the CPU (jaxlib 0.10.2) adds up squares wrongly where a scale follows them.
    rng = np.random.default_rng(0)
    z, means = rng.normal(size=(n, d)), rng.normal(size=(k, d))
    log_variances, log_weights = 0.5 * rng.normal(size=(k, d)), np.full(k, -np.log(k))
    squares = np.square(z[:, None] - means) * np.exp(-log_variances)
    expected = scipy.special.softmax(log_weights - (log_variances.sum(1) + squares.sum(2)) / 2, axis=1)
    rows = (np.float32(value) for value in (z, log_weights, means, log_variances))
    np.testing.assert_allclose(jax.jit(losses.vade_responsibilities)(*rows), expected, atol=1e-5)


def test_gradient_of_tight_clusters_is_of_differences():
    """The gradient in log σ² is −.0007; x² − 2xμ + μ² in float32 gives +.249."""
    noise = np.where(np.arange(8) % 2, 1e-3, -1e-3)[:, None]
    means = np.array([[-10.0], [10.0]])
    z = np.repeat(means, 4, axis=0) + noise
    with jax.enable_x64(True):

        def grad(dtype):
            def loss(log_variances):
                arrays = (jnp.asarray(each, dtype) for each in (0 * z, 0 * z, z, 0 * z + 2 * np.log(1e-3), z))
                x, rebuilt, mean, log_variance, codes = arrays
                prior = {"log_weights": jnp.log(jnp.full(2, 0.5, dtype)), "means": jnp.asarray(means, dtype)}
                return losses.vade_loss(
                    x, rebuilt, mean, log_variance, z=codes, **prior, log_variances=log_variances
                ).divergence

            return np.asarray(jax.jit(jax.grad(loss))(jnp.full((2, 1), 2 * np.log(1e-3), dtype)))

        np.testing.assert_allclose(grad(jnp.float32), grad(jnp.float64), atol=2e-3)

"""Adversarial losses and ClusterGAN's recovery terms match their formulas, and their gradients match differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxcluster import losses

N, D, HIDDEN, K = 7, 3, 5, 4
RNG = np.random.default_rng(0)
REAL, FAKE = RNG.normal(size=(2, N, D))
FIRST, SHIFT, LAST = RNG.normal(size=(D, HIDDEN)), RNG.normal(size=HIDDEN), RNG.normal(size=HIDDEN)
NOISE, ESTIMATE, LOGITS = RNG.normal(size=(N, D)), RNG.normal(size=(N, D)), 3 * RNG.normal(size=(N, K))
LABELS = np.array([0, 3, 1, 1, 2, 0, 3])
WEIGHTS = np.array([1, 2, 0, 0.5, 1, 3, 1.0])


def narrow(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def critic(first, shift, last):
    """One hidden layer of tanh."""
    return lambda x: jnp.tanh(x @ first + shift) @ last


def formula_of_penalty(x):
    """With ∇_x of last·tanh(first·x + shift) written out: Σ_h last_h·(1 − tanh²)·first_h."""
    values = []
    for row in x:
        active = np.tanh(row @ FIRST + SHIFT)
        grad = sum(LAST[h] * (1 - active[h] ** 2) * FIRST[:, h] for h in range(HIDDEN))
        values.append((np.sqrt(grad @ grad) - 1) ** 2)
    return np.mean(values)


def test_scores_are_compared_by_their_means():
    real, fake = RNG.normal(size=5), RNG.normal(size=N)
    expected = np.mean(fake) - np.mean(real)
    np.testing.assert_allclose(losses.wasserstein_critic_loss(*narrow(real, fake)), expected, rtol=1e-5)
    column = losses.wasserstein_critic_loss(*narrow(real[:, None], fake[:, None]))
    np.testing.assert_allclose(column, expected, rtol=1e-5)
    np.testing.assert_allclose(losses.wasserstein_generator_loss(*narrow(fake)), -np.mean(fake), rtol=1e-5)


def test_each_pair_has_its_own_point_between(key):
    real, fake = narrow(REAL, FAKE)
    points = losses.points_between(key, real, fake)
    fractions = np.asarray((points - fake) / (real - fake))
    np.testing.assert_allclose(fractions, np.broadcast_to(fractions[:, :1], fractions.shape), rtol=1e-3)
    assert fractions.min() >= 0
    assert fractions.max() <= 1
    assert np.unique(fractions[:, 0].round(4)).size == N
    images = losses.points_between(key, real.reshape(N, D, 1, 1), fake.reshape(N, D, 1, 1))
    np.testing.assert_array_equal(images.reshape(N, D), points)


def test_the_penalty_is_the_formula():
    score = critic(*narrow(FIRST, SHIFT, LAST))
    expected = formula_of_penalty(REAL)
    np.testing.assert_allclose(losses.gradient_penalty(score, *narrow(REAL)), expected, rtol=1e-5)
    # Of images the norm is over all pixels.
    images = losses.gradient_penalty(lambda x: score(x.reshape(-1, D))[:, None], *narrow(REAL.reshape(N, 1, D, 1)))
    np.testing.assert_allclose(images, expected, rtol=1e-5)


def test_penalty_of_unit_norm_and_of_a_flat_critic():
    unit = jnp.asarray([0.6, 0.0, 0.8])
    np.testing.assert_allclose(losses.gradient_penalty(lambda x: x @ unit, *narrow(REAL)), 0, atol=1e-12)

    def flat(last):
        return losses.gradient_penalty(critic(*narrow(FIRST, SHIFT), last), *narrow(REAL))

    value, grad = jax.jit(jax.value_and_grad(flat))(jnp.zeros(HIDDEN))
    assert value == 1
    np.testing.assert_array_equal(grad, 0)


def test_recovery_losses_match_their_formulas():
    squares = np.array([np.sum((a - b) ** 2) for a, b in zip(NOISE, ESTIMATE, strict=True)])
    np.testing.assert_allclose(losses.noise_recovery_loss(*narrow(NOISE, ESTIMATE)), squares.mean(), rtol=1e-5)
    weighted = losses.noise_recovery_loss(*narrow(NOISE, ESTIMATE), weights=WEIGHTS)
    np.testing.assert_allclose(weighted, WEIGHTS @ squares / WEIGHTS.sum(), rtol=1e-5)
    entropy = np.array([np.log(np.exp(row).sum()) - row[c] for row, c in zip(LOGITS, LABELS, strict=True)])
    np.testing.assert_allclose(losses.cluster_recovery_loss(LABELS, *narrow(LOGITS)), entropy.mean(), rtol=1e-5)
    weighted = losses.cluster_recovery_loss(LABELS, *narrow(LOGITS), weights=WEIGHTS)
    np.testing.assert_allclose(weighted, WEIGHTS @ entropy / WEIGHTS.sum(), rtol=1e-5)
    some = np.where(np.arange(N) < 3, -1, LABELS)
    np.testing.assert_allclose(losses.cluster_recovery_loss(some, *narrow(LOGITS)), entropy[3:].mean(), rtol=1e-5)


def test_gradients_are_those_of_differences():
    """Those of the penalty go through the critic's gradients to its weights and to the rows."""
    with jax.enable_x64(True):
        weights, x = tuple(map(jnp.asarray, (FIRST, SHIFT, LAST))), jnp.asarray(REAL)

        def loss(weights, real, fake, noise, estimate, logits):
            score = critic(*weights)
            gap = losses.wasserstein_critic_loss(score(real), score(fake)) * 0.3
            penalty = losses.gradient_penalty(score, losses.points_between(jax.random.key(0), real, fake))
            code = losses.noise_recovery_loss(noise, estimate, weights=WEIGHTS)
            cluster = losses.cluster_recovery_loss(LABELS, logits, weights=WEIGHTS)
            return gap + penalty + code + cluster + losses.wasserstein_generator_loss(score(estimate))

        others = tuple(map(jnp.asarray, (FAKE, NOISE, ESTIMATE, LOGITS)))
        check_grads(jax.jit(loss), (weights, x, *others), order=1, modes=["rev"])


def test_rows_of_weight_zero_may_hold_anything():
    estimate, logits = (each.at[2].set(jnp.nan) for each in narrow(ESTIMATE, LOGITS))

    def loss(estimate, logits):
        code = losses.noise_recovery_loss(NOISE, estimate, weights=WEIGHTS)
        return code + losses.cluster_recovery_loss(LABELS, logits, weights=WEIGHTS)

    value, grads = jax.value_and_grad(loss, argnums=(0, 1))(estimate, logits)
    np.testing.assert_allclose(value, loss(*narrow(ESTIMATE, LOGITS)), rtol=1e-6)
    assert all(np.isfinite(grad).all() for grad in grads)


def test_half_precision_is_summed_in_single():
    real, fake = (jnp.asarray(each, jnp.bfloat16) for each in (REAL[:, 0], FAKE[:, 0]))
    value = losses.wasserstein_critic_loss(real, fake)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, np.mean(np.float32(fake)) - np.mean(np.float32(real)), rtol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match=r"real_scores must have shape \(n,\) or \(n, 1\).*got \(7, 3\)"):
        losses.wasserstein_critic_loss(REAL, FAKE[:, 0])
    with pytest.raises(ValueError, match=r"critic\(x\) must have shape .* got \(\)"):
        losses.gradient_penalty(jnp.sum, REAL)
    with pytest.raises(ValueError, match=r"fake must have the shape \(7, 3\) to go with real, got \(7, 2\)"):
        losses.points_between(jax.random.key(0), REAL, FAKE[:, :2])
    with pytest.raises(ValueError, match=r"estimate must have the shape \(7, 3\) to go with noise, got \(6, 3\)"):
        losses.noise_recovery_loss(NOISE, ESTIMATE[:6])
    with pytest.raises(ValueError, match=r"labels must be between -1 \(not known\) and 3, got 0 to 4"):
        losses.cluster_recovery_loss(LABELS + (LABELS == 3), LOGITS)
    with pytest.raises(TypeError, match="labels must be integers"):
        losses.cluster_recovery_loss(LABELS.astype(float), LOGITS)
    with pytest.raises(ValueError, match="must not be negative"):
        losses.noise_recovery_loss(NOISE, ESTIMATE, weights=-WEIGHTS)

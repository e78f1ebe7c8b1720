"""Wasserstein adversarial losses with a gradient penalty, and the inverse-encoder terms of ClusterGAN.

A critic D scores samples, high for real ones. The largest difference of its means over real and over generated samples,
among critics whose gradient norm is at most 1, is the Wasserstein-1 distance of both distributions.

>>> import numpy as np
>>> x = np.random.default_rng(0).normal(size=(8, 3))
>>> float(gradient_penalty(lambda x: 2.0 * x[:, 0], x))  # (‖∇D‖ − 1)² with ‖∇D‖ = 2
1.0

Sources: I. Gulrajani, F. Ahmed, M. Arjovsky, V. Dumoulin and A. Courville, Improved training of Wasserstein GANs, NIPS
2017; S. Mukherjee, H. Asnani, E. Lin and S. Kannan, ClusterGAN: latent space clustering in generative adversarial
networks, AAAI 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcluster.core import validation
from jaxcluster.losses.validation import (
    as_floats,
    as_labels,
    as_logits,
    as_paired_samples,
    as_shaped,
    as_weights,
    promote,
    reduce,
    zero_unweighted,
)
from jaxcluster.ops.differences import length
from jaxcluster.types import Array, Float, KeyArray


def wasserstein_critic_loss(real_scores: Any, fake_scores: Any) -> Float[Array, ""]:
    """mean D(x̃) − mean D(x): the negative of the critic's estimate of the Wasserstein distance, without a penalty.

    Args:
        real_scores: (n_real,) or (n_real, 1) D(x) of real samples.
        fake_scores: (n_fake,) or (n_fake, 1) D(x̃) of generated samples.

    Raises:
        ValueError, TypeError: other shapes.
    """
    fake, real = promote(_as_scores(fake_scores, "fake_scores"), _as_scores(real_scores, "real_scores"))
    return jnp.mean(fake) - jnp.mean(real)


def wasserstein_generator_loss(fake_scores: Any) -> Float[Array, ""]:
    """−mean D(x̃) of generated samples, (n_samples,) or (n_samples, 1) scores.

    Raises:
        ValueError, TypeError: other shapes.
    """
    return -jnp.mean(_as_scores(fake_scores, "fake_scores"))


def points_between(key: KeyArray, real: Any, fake: Any) -> Float[Array, "n ..."]:
    """Random interpolates x̂ = ε·x + (1 − ε)·x̃ with ε uniform in [0, 1), one for each pair of samples.

    Args:
        key: draws ε.
        real, fake: (n_samples, …) real and generated samples.

    Raises:
        ValueError: shapes that differ.
    """
    real = as_floats(real, name="real")
    real, fake = promote(real, as_shaped(fake, real.shape, name="fake", of="real"))
    epsilon = jax.random.uniform(key, (real.shape[0],) + (1,) * (real.ndim - 1), real.dtype)
    return epsilon * real + (1 - epsilon) * fake


def gradient_penalty(critic: Callable[[Any], Any], x: Any) -> Float[Array, ""]:
    """Mean over samples of (‖∇_x D(x)‖ − 1)², the Euclidean norm over all entries of a sample.

    Multiply it by the penalty weight, λ = 10 in the papers. Where ∇_x is 0 the norm has gradient 0, not NaN.

    Args:
        critic: maps (n_samples, …) to (n_samples,) or (n_samples, 1) scores, each of its own sample alone: without
            batch normalization.
        x: (n_samples, …) samples; in the paper `points_between` real and generated ones.

    Raises:
        ValueError, TypeError: scores of another shape.
    """
    # A critic in half precision gets its own dtype.
    x = x if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating) else as_floats(x)
    # As no score depends on another sample, the gradient of the sum holds every sample's own gradient.
    gradients = validation.widen(jax.grad(lambda x: jnp.sum(_as_scores(critic(x), "critic(x)")))(x))
    return jnp.mean(jnp.square(length(gradients.reshape(x.shape[0], -1)) - 1))


def noise_recovery_loss(noise: Any, estimate: Any, *, weights: Any = None) -> Float[Array, ""]:
    """Mean over samples of ‖z_n − ẑ_n‖², the error of the noise that the encoder recovers from generated samples.

    Args:
        noise: (n_samples, n_latent) z_n, from which the samples were generated.
        estimate: (n_samples, n_latent) ẑ_n, the encoder's output for the generated samples.
        weights: (n_samples,) >= 0 of the mean; None for 1 each.

    Raises:
        ValueError, TypeError: wrong shapes or weights.
    """
    noise, estimate = as_paired_samples(noise=noise, estimate=estimate)
    weights = as_weights(weights, noise.shape[0])
    difference = zero_unweighted(noise, weights) - zero_unweighted(estimate, weights)
    return reduce(jnp.sum(jnp.square(difference), axis=1), weights=weights)


def cluster_recovery_loss(labels: Any, logits: Any, *, weights: Any = None) -> Float[Array, ""]:
    """Mean over samples of −log softmax(ẑ_c)_c, the cross-entropy (nats) of the cluster a sample was generated from.

    Args:
        labels: (n_samples,) integers, the position c of the 1 in each one-hot z_c; samples of −1 do not count.
        logits: (n_samples, n_clusters) ẑ_c, the encoder's output for the generated samples.
        weights: (n_samples,) >= 0 of the mean; None for 1 each.

    Raises:
        ValueError, TypeError: wrong shapes, labels or weights.
    """
    logits = as_logits(logits)
    labels = as_labels(labels, *logits.shape)
    weights = as_weights(weights, logits.shape[0])
    log_probs = jax.nn.log_softmax(zero_unweighted(logits, weights), axis=1)
    terms = -jnp.take_along_axis(log_probs, jnp.maximum(labels, 0)[:, None], axis=1)[:, 0]
    return reduce(terms, weights=weights, mask=labels >= 0)


def _as_scores(scores, name):
    """One score per sample, as (n,)."""
    scores = as_floats(scores, name=name)
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if scores.ndim != 1 or not scores.size:
        raise ValueError(f"{name} must have shape (n,) or (n, 1), one number per row, got {scores.shape}.")
    return scores

"""Wasserstein adversarial losses with a gradient penalty, and the inverse-encoder terms of ClusterGAN.

A critic D scores rows, high for real ones. The most that its means over real and over generated rows can differ, where
its slope is at most 1, is their Wasserstein distance.

Sources: I. Gulrajani, F. Ahmed, M. Arjovsky, V. Dumoulin and A. Courville, Improved training of Wasserstein GANs, NIPS
2017; S. Mukherjee, H. Asnani, E. Lin and S. Kannan, ClusterGAN: latent space clustering in generative adversarial
networks, AAAI 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcluster.core import check
from jaxcluster.core.frame import float_dtype
from jaxcluster.losses.inputs import as_alike, as_labels, as_logits, as_matching, as_weights, in_one_dtype, present
from jaxcluster.losses.reduce import reduce
from jaxcluster.ops.differences import length
from jaxcluster.types import Array, Float, KeyArray


def wasserstein_critic_loss(real_scores, fake_scores) -> Float[Array, ""]:
    """mean D(x̃) − mean D(x): minus the critic's estimate of the Wasserstein distance, without a penalty.

    Args:
        real_scores: (n,) or (n, 1) D(x) of rows of the data.
        fake_scores: (m,) or (m, 1) D(x̃) of generated ones.

    Raises:
        ValueError, TypeError: other shapes.
    """
    fake, real = in_one_dtype(_scores(fake_scores, "fake_scores"), _scores(real_scores, "real_scores"))
    return jnp.mean(fake) - jnp.mean(real)


def wasserstein_generator_loss(fake_scores) -> Float[Array, ""]:
    """−mean D(x̃): generated rows are to score as real ones do.

    Args:
        fake_scores: (m,) or (m, 1).

    Raises:
        ValueError, TypeError: other shapes.
    """
    return -jnp.mean(_scores(fake_scores, "fake_scores"))


def points_between(key: KeyArray, real, fake) -> Float[Array, "n ..."]:
    """x̂ = ε·x + (1 − ε)·x̃ with ε uniform in [0, 1), one for each pair of rows.

    Args:
        key: draws ε.
        real, fake: (n, …) rows of the data and generated ones.

    Raises:
        ValueError: shapes that differ.
    """
    fake = as_matching(fake, jnp.shape(real), name="fake", of="real")
    real, fake = in_one_dtype(as_matching(real, fake.shape, name="real", of="fake"), fake)
    share = jax.random.uniform(key, (real.shape[0],) + (1,) * (real.ndim - 1), real.dtype)
    return share * real + (1 - share) * fake


def gradient_penalty(critic: Callable[[Any], Any], x) -> Float[Array, ""]:
    """Mean over rows of (‖∇_x D(x)‖ − 1)², ∇_x of a row's own score, its norm Euclidean over all its entries.

    The weight, λ = 10 in the papers, is the caller's. Where ∇_x is 0 the norm has gradient 0, not NaN.

    Args:
        critic: (n, …) rows to (n,) or (n, 1) scores, each of its own row alone: without batch normalization.
        x: (n, …) rows to look at; `points_between` real and generated ones in the paper.

    Raises:
        ValueError, TypeError: scores of another shape.
    """
    x = jnp.asarray(x)
    x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float_dtype(x.dtype))
    gradients = check.widen(jax.grad(lambda x: jnp.sum(_scores(critic(x), "critic(x)")))(x))
    return jnp.mean(jnp.square(length(gradients.reshape(x.shape[0], -1)) - 1))


def noise_recovery_loss(noise, found, *, weights=None) -> Float[Array, ""]:
    """Mean over rows of ‖z_n − ẑ_n‖², how well the noise that a row was generated from is found again.

    Args:
        noise: (n, l) z_n.
        found: (n, l) ẑ_n, what the encoder makes of the generated rows.
        weights: (n,) >= 0 of the rows in the mean; None for 1 each.

    Raises:
        ValueError, TypeError: wrong shapes or weights.
    """
    noise, found = as_alike(noise=noise, found=found)
    weights = as_weights(weights, noise.shape[0])
    noise, found = present(noise, weights), present(found, weights)
    return reduce(jnp.sum(jnp.square(noise - found), axis=1), weights=weights)


def cluster_recovery_loss(labels, logits, *, weights=None) -> Float[Array, ""]:
    """Mean over rows of −log softmax(ẑ_c)_c, the cross-entropy (nats) of the cluster a row was generated from.

    Args:
        labels: (n,) integers, the position c of the 1 in each one-hot z_c; rows of −1 do not count.
        logits: (n, k) ẑ_c, what the encoder makes of the generated rows.
        weights: (n,) >= 0 of the rows in the mean; None for 1 each.

    Raises:
        ValueError, TypeError: wrong shapes, labels or weights.
    """
    logits = as_logits(logits)
    labels = as_labels(labels, *logits.shape)
    weights = as_weights(weights, logits.shape[0])
    log_shares = jax.nn.log_softmax(present(logits, weights), axis=1)
    terms = -jnp.take_along_axis(log_shares, jnp.maximum(labels, 0)[:, None], axis=1)[:, 0]
    return reduce(terms, weights=weights, counted=labels >= 0)


def _scores(scores, name):
    """One number a row, as (n,)."""
    scores = jnp.asarray(scores)
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if scores.ndim != 1 or not scores.size:
        raise ValueError(f"{name} must have shape (n,) or (n, 1), one number a row, got {scores.shape}.")
    return as_matching(scores, scores.shape, name=name, of="rows")

"""Straight-through estimator of a choice among clusters.

>>> straight_through(jnp.array([0.2, 0.8])).tolist()
[0.0, 1.0]
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxcluster.core.implicit import with_derivative_of
from jaxcluster.types import Array, Float


def straight_through(probs: Any) -> Float[Array, "*batch k"]:
    """Straight-through estimator: one-hot of the greatest of k probabilities, with the derivative of the identity.

    Of equal probabilities the first is taken. The gradient is biased, and good enough to train through a choice. NaN
    gives NaN.

    Args:
        probs: (…, k) floating probabilities.

    Returns:
        (…, k) one-hot vectors.

    Raises:
        TypeError: probabilities that are not floating.
        ValueError: no last axis, or an empty one.

    Source: Y. Bengio, N. Léonard and A. Courville, Estimating or propagating gradients through stochastic neurons for
    conditional computation, arXiv:1308.3432 (2013).
    """
    probs = jnp.asarray(probs)
    if not jnp.issubdtype(probs.dtype, jnp.floating):
        raise TypeError(f"probs have dtype {probs.dtype}, which has no gradient. Pass floating numbers.")
    if probs.ndim == 0 or probs.shape[-1] == 0:
        raise ValueError(f"probs must have shape (…, k) with k >= 1, got {probs.shape}.")
    hard = jax.nn.one_hot(jnp.argmax(probs, axis=-1), probs.shape[-1], dtype=probs.dtype)
    unknown = jnp.any(jnp.isnan(probs), axis=-1, keepdims=True)
    return with_derivative_of(_identity, jnp.where(unknown, jnp.nan, hard), probs)


def _identity(probs):
    return probs

"""Hard choices with the gradient of soft ones.

Source: Y. Bengio, N. Léonard and A. Courville, Estimating or propagating gradients through stochastic neurons for
conditional computation, arXiv:1308.3432 (2013).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxcluster.core.implicit import with_derivative_of
from jaxcluster.types import Array, Float


def straight_through(shares: Any) -> Float[Array, "*batch k"]:
    """One-hot of the greatest of k shares, ties to the lower index, with the derivative of the shares themselves.

    The derivative is that of a function which is not the one computed: biased, and good enough to train through a
    choice. Shares of NaN give NaN.

    Args:
        shares: (…, k) floating.

    Raises:
        TypeError: shares that are not floating.
        ValueError: no axis of shares, or an empty one.
    """
    shares = jnp.asarray(shares)
    if not jnp.issubdtype(shares.dtype, jnp.floating):
        raise TypeError(f"shares have dtype {shares.dtype}, which has no gradient. Pass floating numbers.")
    if shares.ndim == 0 or shares.shape[-1] == 0:
        raise ValueError(f"shares must have shape (…, k) with k >= 1, got {shares.shape}.")
    hard = jax.nn.one_hot(jnp.argmax(shares, axis=-1), shares.shape[-1], dtype=shares.dtype)
    unknown = jnp.any(jnp.isnan(shares), axis=-1, keepdims=True)
    return with_derivative_of(_itself, jnp.where(unknown, jnp.nan, hard), shares)


def _itself(shares):
    return shares

"""Noise for any rows: each entry is spoiled on its own."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxcluster.core import check
from jaxcluster.deep.views.checks import check_share
from jaxcluster.types import Array, Float, KeyArray


@dataclass(frozen=True)
class Masking:
    """Sets entries to 0, and scales up the others so that the mean stays: the noise of stacked denoising autoencoders.

    Args:
        rate: in [0, 1), the share of entries set to 0.
    """

    rate: float = 0.2

    def __post_init__(self):
        check_share("rate", self.rate, "the share of entries that are set to 0", whole=False)

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Spoiled rows."""
        kept = jax.random.bernoulli(key, 1 - self.rate, x.shape)
        return jnp.where(kept, x / (1 - self.rate), 0)


@dataclass(frozen=True)
class GaussianNoise:
    """Adds normal noise.

    Args:
        deviation: of the noise, in data units.
    """

    deviation: float = 0.2

    def __post_init__(self):
        check.check_positive("deviation", self.deviation, zero=True)

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Rows with noise."""
        return x + self.deviation * jax.random.normal(key, x.shape, x.dtype)

"""Noise for any rows: each entry is spoiled on its own."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxcluster.core import check
from jaxcluster.deep.views.compose import check_share
from jaxcluster.types import Array, Float, Int, KeyArray


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


# Rows spoiled by what other rows of the batch hold: values that a column does take.


@dataclass(frozen=True)
class Swap:
    """Puts another row's value in the place of entries, each drawn from a row of its own.

    The batch stands for the distribution of each column. A batch of one row stays as it is.

    Args:
        rate: in [0, 1], the share of entries replaced.

    Source: D. Bahri, H. Jiang, Y. Tay and D. Metzler, SCARF: self-supervised contrastive learning using random feature
    corruption, ICLR 2022.
    """

    rate: float = 0.3

    def __post_init__(self):
        check_share("rate", self.rate, "the share of entries that are replaced")

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Rows with entries of others."""
        if self.rate == 0 or x.shape[0] == 1:
            return x
        # One draw for both choices: where it is below the rate, it is uniform there, and says from how far on.
        drawn, n = jax.random.uniform(key, x.shape, jnp.float32), x.shape[0]
        away = 1 + jnp.minimum((drawn * ((n - 1) / self.rate)).astype(jnp.int32), n - 2)
        rows = (jnp.arange(n, dtype=jnp.int32).reshape(n, *(1,) * (x.ndim - 1)) + away) % n
        return jnp.where(drawn < self.rate, jnp.take_along_axis(x, rows, axis=0), x)


@dataclass(frozen=True)
class Mixing:
    """Moves each row a part of the way to another: (1 − λ)·x + λ·x′, λ uniform in [0, amount].

    A batch of one row stays as it is.

    Args:
        amount: in [0, 1], the most of the other row.

    Source: H. Zhang, M. Cisse, Y. Dauphin and D. Lopez-Paz, mixup: beyond empirical risk minimization, ICLR 2018.
    """

    amount: float = 0.2

    def __post_init__(self):
        check_share("amount", self.amount, "the most of another row that is mixed in")

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Rows with a part of others."""
        amount_key, row_key = jax.random.split(key)
        one_a_row = (x.shape[0],) + (1,) * (x.ndim - 1)
        part = self.amount * jax.random.uniform(amount_key, one_a_row, x.dtype)
        return x + part * (x[_others(row_key, x.shape[0])] - x)


def _others(key: KeyArray, n: int) -> Int[Array, " n"]:
    """For each of n rows the number of a random one that is not itself."""
    return (jnp.arange(n, dtype=jnp.int32) + jax.random.randint(key, (n,), 1, max(n, 2), jnp.int32)) % n

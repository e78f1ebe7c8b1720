"""Augmentations of any rows, tables above all: masking, Gaussian noise, feature corruption and mixup.

>>> import jax, jax.numpy as jnp
>>> from jaxcluster.deep.views import Masking
>>> Masking(0.5)(jax.random.key(0), jnp.ones((2, 3))).shape  # entries are 0, or 2: the mean is kept
(2, 3)
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxcluster.core import validation
from jaxcluster.deep.views.compose import check_fraction
from jaxcluster.types import Array, Float, KeyArray


@dataclass(frozen=True)
class Masking:
    """Random entries set to 0 and the others scaled by 1/(1 − rate): the noise of stacked denoising autoencoders.

    Args:
        rate: fraction of entries set to 0, in [0, 1).
    """

    rate: float = 0.2

    def __post_init__(self):
        check_fraction("rate", self.rate, "the share of entries that are set to 0", closed=False)

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Masked rows."""
        kept = jax.random.bernoulli(key, 1 - self.rate, x.shape)
        return jnp.where(kept, x / (1 - self.rate), 0)


@dataclass(frozen=True)
class GaussianNoise:
    """Additive Gaussian noise.

    Args:
        deviation: standard deviation of the noise (data units).
    """

    deviation: float = 0.2

    def __post_init__(self):
        validation.check_positive("deviation", self.deviation, zero=True)

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Noisy rows."""
        return x + self.deviation * jax.random.normal(key, x.shape, x.dtype)


@dataclass(frozen=True)
class FeatureCorruption:
    """Random entries replaced by the value of the same feature in another row of the batch.

    The batch stands for the marginal distribution of each feature; each entry draws a row of its own. A batch of one
    row is returned as it is.

    Args:
        rate: fraction of entries replaced, in [0, 1].

    Source: D. Bahri, H. Jiang, Y. Tay and D. Metzler, SCARF: self-supervised contrastive learning using random feature
    corruption, ICLR 2022.
    """

    rate: float = 0.3

    def __post_init__(self):
        check_fraction("rate", self.rate, "the share of entries that are replaced")

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Corrupted rows."""
        if self.rate == 0 or x.shape[0] == 1:
            return x
        # One draw u serves both choices: an entry is replaced if u < rate, and given that, u/rate is uniform in [0, 1),
        # so it also gives the offset of the other row, 1 to n − 1. The minimum guards against u/rate rounding up to 1.
        u, n = jax.random.uniform(key, x.shape, jnp.float32), x.shape[0]
        offset = 1 + jnp.minimum((u * ((n - 1) / self.rate)).astype(jnp.int32), n - 2)
        rows = (jnp.arange(n, dtype=jnp.int32).reshape(n, *(1,) * (x.ndim - 1)) + offset) % n
        return jnp.where(u < self.rate, jnp.take_along_axis(x, rows, axis=0), x)


@dataclass(frozen=True)
class Mixup:
    """Convex combination of each row with another row of the batch: (1 − λ)·x + λ·x′, λ uniform in [0, amount].

    A batch of one row is returned as it is.

    Args:
        amount: greatest weight of the other row, in [0, 1].

    Source: H. Zhang, M. Cisse, Y. Dauphin and D. Lopez-Paz, mixup: beyond empirical risk minimization, ICLR 2018.
    """

    amount: float = 0.2

    def __post_init__(self):
        check_fraction("amount", self.amount, "the most of another row that is mixed in")

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Mixed rows."""
        amount_key, row_key = jax.random.split(key)
        n = x.shape[0]
        weight = self.amount * jax.random.uniform(amount_key, (n,) + (1,) * (x.ndim - 1), x.dtype)
        # An offset of 1 to n − 1, modulo n, is a uniform draw of the other rows without the row itself.
        offset = jax.random.randint(row_key, (n,), 1, max(n, 2), jnp.int32)
        return x + weight * (x[(jnp.arange(n, dtype=jnp.int32) + offset) % n] - x)

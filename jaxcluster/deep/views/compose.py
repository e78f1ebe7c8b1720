"""Augmentations of any rows, tables above all, and compositions: chains, multi-crop, several views in one pass.

>>> import jax, jax.numpy as jnp
>>> from jaxcluster.deep.views import Masking
>>> Masking(0.5)(jax.random.key(0), jnp.ones((2, 3))).shape  # entries are 0, or 2: the mean is kept
(2, 3)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxcluster.core import validation
from jaxcluster.types import Array, Float, KeyArray

Views = Callable[[KeyArray, Float[Array, "n ..."]], Any]
"""A function of a key and rows that returns one view of the rows, or a tuple of views."""


@dataclass(frozen=True, init=False)
class Chain:
    """Augmentations applied one after the other, each with its own key.

    Args:
        *views: at least one.
    """

    views: tuple[Callable[..., Any], ...]

    def __init__(self, *views: Any):
        object.__setattr__(self, "views", views)
        if not views or not all(map(callable, views)):
            raise TypeError(f"Chain takes one view or more, each called with a key and rows; got {views}.")

    def get_config(self) -> dict[str, Any]:
        """The views, as `from_config` takes them."""
        return {"views": self.views}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Chain:
        """A chain of views."""
        return cls(*config["views"])

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Rows after all augmentations."""
        for view, view_key in zip(self.views, jax.random.split(key, len(self.views)), strict=True):
            x = view(view_key, x)
        return x


@dataclass(frozen=True)
class MultiCrop:
    """Several views of the same rows: global ones that show most of a row, and cheaper local ones that show less.

    Args:
        global_view: an augmentation.
        local_view: another, such as a crop of a smaller ``size``; None for none.
        n_global: number of global views, at least 1.
        n_local: number of local views.

    Source: M. Caron et al., Unsupervised learning of visual features by contrasting cluster assignments, NeurIPS 2020.
    """

    global_view: Callable[..., Any]
    local_view: Callable[..., Any] | None = None
    n_global: int = 2
    n_local: int = 0

    def __post_init__(self):
        validation.check_count("n_global", self.n_global)
        if self.n_local != 0:
            validation.check_count("n_local", self.n_local)
        if (self.local_view is None) != (self.n_local == 0):
            raise ValueError(
                f"n_local={self.n_local} and local_view={self.local_view} do not go together. Pass both a view and "
                "its number, or neither."
            )

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> tuple[Float[Array, "n ..."], ...]:
        """The views of the rows, global ones first.

        Returns:
            One array of n_samples rows for each view.
        """
        return tuple(itertools.chain.from_iterable(self.stacks(key, x)))

    def stacks(self, key: KeyArray, x: Float[Array, "n ..."]) -> tuple[Float[Array, "_ n ..."], ...]:
        """The views of the rows, stacked.

        Returns:
            The global views as one array (n_global, n_samples, …), and the local ones, if any, as another.
        """
        # vmap traces and compiles an augmentation once, a Python loop once for each view.
        global_keys, local_keys = jnp.split(jax.random.split(key, self.n_global + self.n_local), [self.n_global])
        kinds = [(self.global_view, global_keys)]
        kinds += [] if self.local_view is None else [(self.local_view, local_keys)]
        return tuple(jax.vmap(view, in_axes=(0, None))(keys, x) for view, keys in kinds)


def stack_views(views: Views | None, key: KeyArray, x: Float[Array, "n ..."]) -> tuple[Float[Array, "_ n ..."], ...]:
    """Views of rows, stacked wherever consecutive views have one shape.

    Args:
        views: a callable, see `Views`; None for the rows themselves as the only view.
        key: random key.
        x: (n_samples, …) rows.

    Returns:
        Arrays (n_views, n_samples, …), one for each run of views of one shape.
    """
    if views is None:
        return (x[None],)
    # Views that come as stacks are taken as they are: if they were split and stacked again, XLA would compute all views
    # of the stack once for each of them.
    if hasattr(views, "stacks"):
        return views.stacks(key, x)
    augmented = views(key, x)
    augmented = augmented if isinstance(augmented, (tuple, list)) else (augmented,)
    return tuple(jnp.stack(list(run)) for _, run in itertools.groupby(augmented, lambda view: view.shape))


def count_views(stacks: Sequence[Float[Array, "_ n ..."]]) -> int:
    """Number of views of each row in the stacks."""
    return sum(map(len, stacks))


def apply_to_views(
    network: Callable[[Any], Any], stacks: Sequence[Float[Array, "_ n ..."]]
) -> Float[Array, "views n m"]:
    """Outputs of a network, rows to vectors, for all views; the views of one stack are one batch.

    With batch normalization they share their statistics.
    """
    batches = [(stack.shape[:2], network(stack.reshape(-1, *stack.shape[2:]))) for stack in stacks]
    return jnp.concatenate([vectors.reshape(*shape, -1) for shape, vectors in batches])


def check_fraction(name: str, value: Any, meaning: str, *, closed: bool = True) -> None:
    """Raise ValueError, with the ``meaning`` of the number, unless it is in [0, 1], or in [0, 1) if not ``closed``."""
    if not (0 <= value <= 1 if closed else 0 <= value < 1):
        raise ValueError(f"{name}={value} must be in [0, 1{']' if closed else ')'}: it is {meaning}.")


def check_interval(name: str, bounds: Sequence[Any], *, most: float | None = None) -> tuple[float, float]:
    """Check an interval of positive numbers.

    Returns:
        (least, greatest) as floats.

    Raises:
        ValueError: not two bounds, not in increasing order, not positive, or above ``most``.
    """
    bounds = tuple(map(float, bounds))
    limit = float("inf") if most is None else most
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= limit:
        end = "" if most is None else f" <= {most:g}"
        raise ValueError(f"{name}={bounds} must be (least, greatest) with 0 < least <= greatest{end}.")
    return bounds


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

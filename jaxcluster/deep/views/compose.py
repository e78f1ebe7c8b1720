"""Views made of views: one after the other, or several of the same rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxcluster.core import check
from jaxcluster.types import Array, Float, KeyArray


@dataclass(frozen=True, init=False)
class Chain:
    """Views one after the other, each with a key of its own.

    Args:
        *views: at least one.
    """

    views: tuple[Callable[..., Any], ...]

    def __init__(self, *views: Any):
        object.__setattr__(self, "views", views)
        if not views or not all(map(callable, views)):
            raise TypeError(f"Chain takes one view or more, each called with a key and rows; got {views}.")

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """What the last view makes of what those before it make of the rows."""
        for view, view_key in zip(self.views, jax.random.split(key, len(self.views)), strict=True):
            x = view(view_key, x)
        return x


@dataclass(frozen=True)
class MultiCrop:
    """Several views of the same rows: some that show much of them, and some that show less and cost less.

    Args:
        large: a view.
        small: another, such as a crop of a smaller ``size``; None for none.
        n_large: how many of the first, at least 1.
        n_small: how many of the second.

    Source: M. Caron et al., Unsupervised learning of visual features by contrasting cluster assignments, NeurIPS 2020.
    """

    large: Callable[..., Any]
    small: Callable[..., Any] | None = None
    n_large: int = 2
    n_small: int = 0

    def __post_init__(self):
        check.check_count("n_large", self.n_large)
        if self.n_small != 0:
            check.check_count("n_small", self.n_small)
        if (self.small is None) != (self.n_small == 0):
            raise ValueError(
                f"n_small={self.n_small} and small={self.small} do not go together. Pass a view and how many of it, or "
                "neither."
            )

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> tuple[Float[Array, "n ..."], ...]:
        """The views of the rows, the large ones first."""
        return tuple(itertools.chain.from_iterable(self.stacks(key, x)))

    def stacks(self, key: KeyArray, x: Float[Array, "n ..."]) -> tuple[Float[Array, "_ n ..."], ...]:
        """The large views as one array, and the small ones, if there are any, as another."""
        # One program for all of a kind, where a loop would trace and compile it each time.
        large, small = jnp.split(jax.random.split(key, self.n_large + self.n_small), [self.n_large])
        kinds = [(self.large, large)] if self.small is None else [(self.large, large), (self.small, small)]
        return tuple(jax.vmap(view, in_axes=(0, None))(keys, x) for view, keys in kinds)

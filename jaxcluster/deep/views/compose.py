"""Views made of views: one after the other, or several of the same rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
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


# Several views of the same rows on their way through a network: those of one shape are one batch there.

Views = Callable[[KeyArray, Float[Array, "n ..."]], Any]
"""Called with a key and rows: gives a view of them, or a tuple of views."""


def stacked(views: Views | None, key: KeyArray, x: Float[Array, "n ..."]) -> tuple[Float[Array, "_ n ..."], ...]:
    """Views of rows, as one array for each shape that comes several times in a row: the rows themselves for None.

    Those that know how to make them stacked, by a method ``stacks``, are not taken apart before: cut from one array and
    put together again, XLA would compute all views once for each.
    """
    if views is None:
        return (x[None],)
    if hasattr(views, "stacks"):
        return views.stacks(key, x)
    seen = views(key, x)
    seen = seen if isinstance(seen, (tuple, list)) else (seen,)
    return tuple(jnp.stack(list(alike)) for _, alike in itertools.groupby(seen, lambda view: view.shape))


def count_views(stacks: Sequence[Float[Array, "_ n ..."]]) -> int:
    """How many views there are of each row."""
    return sum(map(len, stacks))


def through(network: Callable[[Any], Any], stacks: Sequence[Float[Array, "_ n ..."]]) -> Float[Array, "views n m"]:
    """What a network, from rows to vectors, makes of each view."""
    batches = [(stack.shape[:2], network(stack.reshape(-1, *stack.shape[2:]))) for stack in stacks]
    return jnp.concatenate([vectors.reshape(*shape, -1) for shape, vectors in batches])


# Checks of what views are made with.


def check_share(name: str, value: Any, what: str, *, whole: bool = True) -> None:
    """Raises ValueError, saying ``what`` it is, unless ``value`` is in [0, 1]; below 1 where not ``whole``."""
    if not (0 <= value <= 1 if whole else 0 <= value < 1):
        raise ValueError(f"{name}={value} must be in [0, 1{']' if whole else ')'}: it is {what}.")


def check_interval(name: str, bounds: Sequence[Any], *, most: float | None = None) -> tuple[float, float]:
    """``bounds`` as (least, greatest), both positive and at most ``most``.

    Raises:
        ValueError: bounds in another order, out of range, or of another number.
    """
    bounds = tuple(map(float, bounds))
    limit = float("inf") if most is None else most
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= limit:
        end = "" if most is None else f" <= {most:g}"
        raise ValueError(f"{name}={bounds} must be (least, greatest) with 0 < least <= greatest{end}.")
    return bounds

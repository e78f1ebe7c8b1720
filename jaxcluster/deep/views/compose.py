"""Compositions of augmentations: chains, multi-crop, and several views of a batch in one pass through a network."""

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

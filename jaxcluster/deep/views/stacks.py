"""Several views of the same rows on their way through a network: those of one shape are one batch there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from jaxcluster.types import Array, Float, KeyArray

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

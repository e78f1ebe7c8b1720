"""Moments taken anew where their reference lay too far from the means that they led to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from jaxcluster.types import Array, Float

SHIFT_ERROR = 1e-4
"""Share of a variance that moments about a far reference may lose to rounding before they are taken anew."""

Result = TypeVar("Result")


def settle(
    once: Callable[[Float[Array, "k d"]], tuple[Result, Float[Array, "k d"], Float[Array, " k"]]],
    reference: Float[Array, "k d"],
) -> tuple[Result, Float[Array, " k"]]:
    """What a pass over the rows leads to, once more about the new means where these lie too far from the reference.

    A loop, though a second round is rare: so there is one copy of the pass to compile. Reverse mode cannot follow it.

    Args:
        once: reference -> (what its moments lead to, new means, squared distance of each new mean from the reference
            in that component's own units).
        reference: near the means to come.

    Returns:
        What the last round led to, and the squared distances, summed over the rounds.
    """
    result, _, way = jax.eval_shape(once, reference)
    # A zero that varies over the devices of a mapped axis where the rows do.
    zero = jnp.where(reference[0, 0] == 0, 0, 0)
    nothing, way = jax.tree.map(lambda leaf: jnp.full(leaf.shape, zero, leaf.dtype), (result, way))

    def again(carry):
        _, reference, way, _, rounds = carry
        result, means, shift = once(reference)
        far = jnp.max(shift) * jnp.finfo(reference.dtype).eps > SHIFT_ERROR
        return result, means, way + shift, far, rounds + 1

    def unfinished(carry):
        *_, far, rounds = carry
        return far & (rounds < 2)

    result, _, way, _, _ = jax.lax.while_loop(unfinished, again, (nothing, reference, way, zero == 0, jnp.int32(0)))
    return result, way

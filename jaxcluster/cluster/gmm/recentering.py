"""Moments computed again about the new means, where the reference was too far from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from jaxcluster.types import Array, Float

SHIFT_ERROR = 1e-4
"""Relative error of a variance beyond which moments are computed again, about the new mean."""

Result = TypeVar("Result")


def recenter_moments(
    update: Callable[[Float[Array, "k d"]], tuple[Result, Float[Array, "k d"], Float[Array, " k"]]],
    reference: Float[Array, "k d"],
) -> tuple[Result, Float[Array, " k"]]:
    """Result of an update by moments about a reference, computed again about the new means if these are too far.

    Args:
        update: reference -> (result, new means, squared Mahalanobis distance of each new mean from the reference).
        reference: near the new means.

    Returns:
        The result of the last pass, and the squared distances (k,), summed over the passes.
    """
    # Σ r·(x − m)² is larger than the variance by the squared shift of the mean, whose rounding is eps·shift (in units
    # of the variance). The second pass is rare, but a loop holds one copy of the pass to compile, and cond two. Reverse
    # mode cannot follow it.
    result, _, shift = jax.eval_shape(update, reference)
    # A zero that varies over the devices of a mapped axis if the samples do, as while_loop under shard_map demands.
    zero = jnp.where(reference[0, 0] == 0, 0, 0)
    empty, total_shift = jax.tree.map(lambda leaf: jnp.full(leaf.shape, zero, leaf.dtype), (result, shift))

    def one_pass(carry):
        _, reference, total_shift, _, passes = carry
        result, means, shift = update(reference)
        far = jnp.max(shift) * jnp.finfo(reference.dtype).eps > SHIFT_ERROR
        return result, means, total_shift + shift, far, passes + 1

    def unfinished(carry):
        *_, far, passes = carry
        return far & (passes < 2)

    carry = empty, reference, total_shift, zero == 0, jnp.int32(0)
    result, _, total_shift, _, _ = jax.lax.while_loop(unfinished, one_pass, carry)
    return result, total_shift

"""From a term for each row to one number."""

from __future__ import annotations

import jax.numpy as jnp

from jaxcluster.core import check
from jaxcluster.core.frame import times_power_of_two
from jaxcluster.losses.inputs import Weights
from jaxcluster.types import Array, Bool, Float

REDUCTIONS = ("mean", "sum", "none")


def reduce(
    terms: Float[Array, "*n"],
    reduction: str = "mean",
    *,
    weights: Weights | None = None,
    counted: Bool[Array, "*n"] | None = None,
) -> Float[Array, "*m"]:
    """Σ w·t / Σ w ("mean"), Σ w·t ("sum"), each w·t ("none"), or Σ w·t / Σ w over the terms above 0 ("nonzero").

    Terms of weight 0 add nothing, whatever they are. Where nothing is counted a mean is 0, and so is its gradient.

    Args:
        terms: of any shape.
        reduction: which.
        weights: of the terms' shape; None for 1 each.
        counted: False for terms that are not there; None for all True.

    Raises:
        ValueError: an unknown reduction.
    """
    check.check_choice("reduction", reduction, (*REDUCTIONS, "nonzero"))
    exponent = 0 if weights is None else weights.exponent
    values = jnp.ones_like(terms) if weights is None else weights.values.astype(terms.dtype)
    if counted is not None:
        values = jnp.where(counted, values, 0)
    weighted = jnp.where(values > 0, values * terms, 0)
    if reduction == "none":
        return times_power_of_two(weighted, exponent)
    if reduction == "nonzero":
        values = jnp.where(terms > 0, values, 0)
    total = jnp.sum(weighted)
    if reduction == "sum":
        return times_power_of_two(total, exponent)
    count = jnp.sum(values)
    return total / jnp.where(count > 0, count, 1)

"""The few types everything is said in: weighted rows, a finished fit, and how it ended."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple, TypeAlias

from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, UInt32

__all__ = ["Array", "ArrayLike", "Bool", "Fit", "Float", "Int", "KeyArray", "Points", "Status"]

KeyArray: TypeAlias = Key[Array, ""] | UInt32[Array, " _"]
"""A JAX random key: a typed key (``jax.random.key``) or the older raw pair of words."""


class Points(NamedTuple):
    """Weighted rows, the one data type that kernels see.

    Sample weights, padding, ragged shards and masked rows are all ``weight``: a padded row weighs 0.
    """

    x: Float[Array, "*batch n d"]
    weight: Float[Array, "*batch n"]


class Status(enum.IntEnum):
    """How an iteration ended. A fit holds it as an int32 scalar: ``Status(int(fit.status))``.

    COLLAPSED: a component of a mixture lost its rows or its spread, and was kept from becoming infinite; or nothing was
    left by which a network tells rows apart.
    """

    CONVERGED = 0
    MAX_STEPS = 1
    NOT_FINITE = 2
    EMPTY_CLUSTERS = 3
    COLLAPSED = 4


class Fit(NamedTuple):
    """A finished iteration.

    Attributes:
        state: the algorithm's public state, a NamedTuple of arrays.
        labels: (n,) int32 cluster of each row; None where the method gives none.
        steps: () int32, steps taken, counted from 1.
        status: () int32, a `Status`.
        history: (capacity,) the objective after each step; NaN from ``steps`` on.
    """

    state: Any
    labels: Int[Array, "*batch n"] | None
    steps: Int[Array, "*batch"]
    status: Int[Array, "*batch"]
    history: Float[Array, "*batch capacity"]

"""The few types everything is said in: weighted rows, a finished fit, and how it ended."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, UInt32

__all__ = ["Array", "ArrayLike", "Bool", "Fit", "Float", "Int", "KeyArray", "Points", "Published", "Status"]

Published: TypeAlias = Array | np.ndarray
"""An array that a caller is given: JAX's, or NumPy's where it is float64 and JAX computes in float32."""

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

    PRECISION: rows differ by less than the computation can tell apart, so that the result may not be that of exact
    arithmetic. Scale the columns, or compute in float64 with ``jax.config.update("jax_enable_x64", True)``.
    """

    CONVERGED = 0
    MAX_STEPS = 1
    NOT_FINITE = 2
    EMPTY_CLUSTERS = 3
    COLLAPSED = 4
    PRECISION = 5


class Fit(NamedTuple):
    """A finished iteration.

    Attributes:
        state: the algorithm's public state, a NamedTuple of arrays.
        labels: (n,) int32 cluster of each row; None where the method gives none.
        steps: () int32, steps taken, counted from 1.
        status: () int32, a `Status`.
        history: (capacity,) the objective after each step; 0 from ``steps`` on.
    """

    state: Any
    labels: Int[Array, "*batch n"] | None
    steps: Int[Array, "*batch"]
    status: Int[Array, "*batch"]
    history: Float[Array, "*batch capacity"]

    def __repr__(self) -> str:
        """The names and shapes of what was found, not its numbers: ``Fit(KMeansState, labels (300,), 7 steps, …)``."""
        parts = [type(self.state).__name__]
        if self.labels is not None:
            parts.append(f"labels {tuple(getattr(self.labels, 'shape', ()))}")
        steps, status = self.steps, self.status
        if any(isinstance(each, jax.core.Tracer) or getattr(each, "shape", None) != () for each in (steps, status)):
            parts.append(f"steps and status of shape {tuple(getattr(steps, 'shape', ()))}")
        else:
            parts += [f"{int(steps)} step{'' if int(steps) == 1 else 's'}", Status(int(status)).name]
        return f"Fit({', '.join(parts)})"

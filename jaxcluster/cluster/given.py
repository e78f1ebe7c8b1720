"""Centres and masks that a caller gives: where to start, what never moves, what takes part."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.seeding import INITS
from jaxcluster.core import check
from jaxcluster.ops.distance import normalize
from jaxcluster.types import Array, Bool, Float

GIVEN = "given"
"""The name of a start from given centres, beside those of `seeding.INITS`."""


class Given(NamedTuple):
    """What a caller fixes of the centres; None where nothing.

    Attributes:
        start: where the iteration starts.
        fixed: centres that are there before the others are seeded.
        movable: which centres an update may move.
        active: which centres take part at all.
    """

    start: Float[Array, "k d"] | None = None
    fixed: Float[Array, "m d"] | None = None
    movable: Bool[Array, " k"] | None = None
    active: Bool[Array, " k"] | None = None

    def in_frame(self, origin: Float[Array, " d"], spherical: bool) -> Given:
        """The same centres in the frame of rows that had ``origin`` subtracted, held constant for gradients."""

        def move(centers):
            if centers is None:
                return None
            centers = jax.lax.stop_gradient(centers.astype(origin.dtype) - origin)
            return normalize(centers) if spherical else centers

        return self._replace(start=move(self.start), fixed=move(self.fixed))

    def keep_frozen(self, centers: Float[Array, "k d"]) -> Float[Array, "k d"]:
        """``centers`` with the frozen ones to the bit as they were given, free of the rounding of another frame."""
        frozen = self.start if self.fixed is None else self.fixed
        places = frozen.shape[0]
        kept = jnp.where(self.movable[:places, None], centers[:places], frozen.astype(centers.dtype))
        return centers.at[:places].set(kept)


def check_given(init, frozen, active, k: int, d: int) -> tuple[str, Given]:
    """The name of the start and the checked `Given` of the options ``init``, ``frozen`` and ``active`` of a fit.

    Raises:
        ValueError: an unknown name, or an array of the wrong shape or with values that are not finite.
    """
    name, start = GIVEN, None
    if isinstance(init, str):
        check.check_choice("init", init, INITS)
        name = init
    else:
        start = _check_centers("init", init, k, d)
    fixed, movable = _check_frozen(frozen, start, k, d)
    if start is not None and fixed is not None:
        start, fixed = start.at[: fixed.shape[0]].set(fixed), None
    if active is not None:
        active = check.check_mask("active", active, k)
    return name, Given(start, fixed, movable, active)


def _check_frozen(frozen, start, k, d):
    if frozen is None:
        return None, None
    frozen = jnp.asarray(frozen)
    if frozen.dtype != bool:
        fixed = _check_centers("frozen", frozen, k, d, fewer=True)
        return fixed, jnp.arange(k) >= fixed.shape[0]
    if start is None:
        raise ValueError(
            "frozen is a mask, which needs starting centres: pass init=(k, d) centres too, or as frozen the centres "
            "themselves to have the others seeded around them."
        )
    return None, ~check.check_mask("frozen", frozen, k)


def _check_centers(name, centers, k, d, *, fewer=False) -> Array:
    centers = check.check_matrix(centers, name=name)
    if not check.is_traced(centers):
        check.check_finite(centers, name=name)
    if centers.shape[1] != d or (centers.shape[0] > k if fewer else centers.shape[0] != k):
        raise ValueError(f"{name} must have shape ({'at most ' if fewer else ''}{k}, {d}), got {centers.shape}.")
    return jnp.asarray(centers)

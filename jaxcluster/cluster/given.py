"""Centers and masks that a caller gives: where to start, what never moves, what takes part."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.seeding import INITS
from jaxcluster.core import check
from jaxcluster.core.frame import Frame, publish
from jaxcluster.ops.distance import normalize
from jaxcluster.types import Array, Bool, Published

GIVEN = "given"
"""The name of a start from given centers, beside those of `seeding.INITS`."""


class Given(NamedTuple):
    """What a caller fixes of the centers; None where nothing.

    Attributes:
        start: (k, d) centers to start from.
        fixed: (m, d) centers that are there before the others are seeded.
        movable: which centers an update may move.
        active: which centers take part at all.
    """

    start: Any = None
    fixed: Any = None
    movable: Bool[Array, " k"] | None = None
    active: Bool[Array, " k"] | None = None

    def enter(self, frame: Frame, spherical: bool = False) -> Given:
        """The same centers in a frame, held constant for gradients; unit vectors where ``spherical``."""

        def move(centers):
            if centers is None:
                return None
            if spherical and not check.is_traced(centers):  # directions beyond the range of float32 too
                centers = np.asarray(centers, np.float64)
                largest = np.abs(centers).max(axis=1, keepdims=True)
                centers = centers / np.where(largest > 0, largest, 1)
            centers = jax.lax.stop_gradient(frame.enter(centers))
            return normalize(centers) if spherical else centers

        return self._replace(start=move(self.start), fixed=move(self.fixed))

    def keep_frozen(self, centers: Published) -> Published:
        """``centers`` (…, k, d) with the frozen ones to the bit as they were given, free of the frame's rounding."""
        frozen = self.start if self.fixed is None else self.fixed
        places = frozen.shape[0]
        if check.is_traced(self, centers):
            frozen = jnp.asarray(frozen).astype(centers.dtype)
            kept = jnp.where(self.movable[:places, None], centers[..., :places, :], frozen)
            return jnp.concatenate([kept, centers[..., places:, :]], axis=-2)
        out = np.array(centers)
        fixed = ~np.asarray(self.movable)[:places]
        out[..., :places, :][..., fixed, :] = np.asarray(frozen)[fixed]
        return publish(out, out.dtype)


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
        start, fixed = _with_first(start, fixed), None
    if active is not None:
        active = check.check_mask("active", active, k)
    return name, Given(start, fixed, movable, active)


def _check_frozen(frozen, start, k, d):
    if frozen is None:
        return None, None
    frozen = frozen if isinstance(frozen, jax.Array) else np.asarray(frozen)
    if frozen.dtype != bool:
        fixed = _check_centers("frozen", frozen, k, d, fewer=True)
        return fixed, jnp.arange(k, dtype=jnp.int32) >= fixed.shape[0]
    if start is None:
        raise ValueError(
            "frozen is a mask, which needs starting centers: pass init=(k, d) centers too, or as frozen the centers "
            "themselves to have the others seeded around them."
        )
    return None, ~check.check_mask("frozen", frozen, k)


def _check_centers(name, centers, k, d, *, fewer=False) -> Any:
    centers = check.check_matrix(centers, name=name)
    if not check.is_traced(centers):
        check.check_finite(centers, name=name)
    what = "initial" if name == "init" else name
    if centers.shape[0] > k if fewer else centers.shape[0] != k:
        raise ValueError(f"The shape of the {what} centers {centers.shape} does not match the number of clusters {k}.")
    if centers.shape[1] != d:
        raise ValueError(
            f"The shape of the {what} centers {centers.shape} does not match the number of features of the data {d}."
        )
    return centers


def _with_first(start, fixed):
    """``start`` with its first rows replaced by ``fixed``."""
    if check.is_traced(start, fixed):
        return jnp.asarray(start).at[: fixed.shape[0]].set(jnp.asarray(fixed).astype(start.dtype))
    return np.concatenate([np.asarray(fixed, np.float64), np.asarray(start, np.float64)[len(fixed) :]])

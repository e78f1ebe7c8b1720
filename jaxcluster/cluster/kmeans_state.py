"""State of a finished k-means."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxcluster.core import validation
from jaxcluster.core.dtypes import publish
from jaxcluster.core.frame import Frame
from jaxcluster.types import Array, Float


class KMeansState(NamedTuple):
    """A finished k-means.

    Attributes:
        centers: (k, d) cluster centers; unit rows under the cosine metric.
        inertia: () Σ w·‖x − c‖² (data units²), or Σ w·(1 − cos) under the cosine metric.
        weight: (k,) total weight of the samples of each cluster.
        residual: () Σ‖Δc‖² of the last step (data units²); 0 if it changed no label.
    """

    centers: Float[Array, "*batch k d"]
    inertia: Float[Array, "*batch"]
    weight: Float[Array, "*batch k"]
    residual: Float[Array, "*batch"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """The inertia, by which runs are compared."""
        return self.inertia

    def leave(self, frame: Frame, *, spherical: bool = False) -> KMeansState:
        """The same state out of the frame of its fit."""
        length = 0 if spherical else 2
        return KMeansState(
            frame.leave(self.centers),
            frame.unscale(self.inertia, length=length, weight=1),
            frame.unscale(self.weight, weight=1),
            frame.unscale(self.residual, length=length),
        )


def zero_inactive(centers: Any, active: Any) -> Any:
    """Centers (…, k, d), those outside of the mask ``active`` (…, k) 0."""
    if validation.is_traced(centers, active):
        return jnp.where(jnp.asarray(active)[..., None], centers, 0)
    return publish(np.where(np.asarray(active)[..., None], np.asarray(centers), 0), centers.dtype)

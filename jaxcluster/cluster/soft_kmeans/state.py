"""States of soft k-means: of its iteration, and of a finished fit."""

from __future__ import annotations

from typing import NamedTuple

from jaxcluster.core.frame import Frame
from jaxcluster.core.preparation import unpad
from jaxcluster.types import Array, Float, Published


class SoftKMeansState(NamedTuple):
    """A finished soft k-means.

    Attributes:
        centers: (k, d) cluster centers.
        objective: () free energy −2σ²·Σ w·log((1/k)·Σ_j exp(−‖x − c_j‖²/2σ²)) (data units²): 2σ² times the negative
            log-likelihood, less a constant. It tends to the inertia as σ² → 0, and is the inertia at 0.
        weight: (k,) total responsibility Σ w·r of each cluster.
        residual: () Σ‖Δc‖² of the last step (data units²).
    """

    centers: Float[Published, "*batch k d"]
    objective: Float[Published, "*batch"]
    weight: Float[Published, "*batch k"]
    residual: Float[Published, "*batch"]

    def leave(self, frame: Frame, *, k: int | None = None) -> SoftKMeansState:
        """The same state out of the frame of its fit; of padded clusters the first k."""
        centers, weight = self.centers, self.weight
        if k is not None:
            centers, weight = unpad(centers, k, axis=-2), unpad(weight, k)
        return SoftKMeansState(
            frame.leave(centers),
            frame.unscale(self.objective, length=2, weight=1),
            frame.unscale(weight, weight=1),
            frame.unscale(self.residual, length=2),
        )


class SoftStats(NamedTuple):
    """Sufficient statistics of the E-step: Σ w·r·x and Σ w·r of each cluster, and the free energy."""

    sums: Float[Array, "*batch k d"]
    weight: Float[Array, "*batch k"]
    energy: Float[Array, "*batch"]


class EMState(NamedTuple):
    """Centers, the statistics of the E-step with them, and Σ‖Δc‖² of the last step."""

    centers: Float[Array, "*batch k d"]
    stats: SoftStats
    residual: Float[Array, "*batch"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """The free energy."""
        return self.stats.energy

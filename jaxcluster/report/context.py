"""What a report tells of: one run, its data, and the machine it ran on."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from jaxcluster.datasets.base import Dataset
from jaxcluster.datasets.scaling import Scaling
from jaxcluster.plots.components import as_covariances
from jaxcluster.plots.style import is_noise
from jaxcluster.report.structure import Structure
from jaxcluster.report.training import Training
from jaxcluster.types import Status

CLUSTERED_AS = {"standard": "z-scores of the columns", "minmax": "columns from 0 to 1", "l2": "rows of length 1"}
"""What scaled rows are, in words."""

AXES = {"standard": "z-score", "minmax": "0 to 1", "l2": "rows of length 1"}
"""The same for an axis."""

PACKAGES = ("jaxcluster", "jax", "jaxlib", "numpy", "scikit-learn")


class Components(NamedTuple):
    """The mixture that a run fitted; its means are the run's centers.

    Attributes:
        weights: (k,) mixing proportions.
        covariances: (k, d, d) full, (d, d) tied, (k, d) diag or (k,) spherical, in squared units of the rows.
        covariance_type: which of these.
    """

    weights: Any
    covariances: Any
    covariance_type: str = "full"


class ReportContext(NamedTuple):
    """A run as `write_report` is told of it; the history without its padding, None where it was empty."""

    config: Mapping[str, Any]
    scores: Mapping[str, Any]
    dataset: Dataset
    labels: np.ndarray
    centers: np.ndarray | None
    components: Components | None
    history: np.ndarray | None
    objective: str
    best: str
    status: Status | None
    timing: Mapping[str, float]
    structure: Structure | None = None
    training: Training | None = None
    scaling: Scaling | None = None
    metric: str = "euclidean"
    p: float = 2
    remarks: Sequence[str] = ()

    def check(self) -> None:
        """Raises ValueError where labels, truth, centers, components, structure, training and rows do not fit."""
        n, d = self.dataset.x.shape
        if self.labels.shape != (n,):
            raise ValueError(f"labels {self.labels.shape} do not fit the rows {(n, d)}: one label a row is needed.")
        if self.dataset.y is not None and len(self.dataset.y) != n:
            raise ValueError(f"{len(self.dataset.y)} truth labels do not fit {n} rows: one label a row is needed.")
        if self.centers is not None and (self.centers.ndim != 2 or self.centers.shape[1] != d):
            raise ValueError(f"centers {self.centers.shape} do not fit the rows {(n, d)}: they need {d} columns.")
        if self.components is not None:
            self._check_components(d)
        if self.structure is not None:
            self.structure.check(n)
        if self.training is not None:
            self.training.check(n, d)

    def _check_components(self, d: int) -> None:
        if self.centers is None:
            raise ValueError("components have no means: pass them as centers.")
        k = len(self.centers)
        if np.shape(self.components.weights) != (k,):
            raise ValueError(f"weights {np.shape(self.components.weights)} do not fit {k} centers: one each is needed.")
        as_covariances(self.components.covariances, self.components.covariance_type, k, d)

    @property
    def noise(self) -> np.ndarray:
        """(n,) which rows belong to no cluster."""
        return is_noise(self.labels)

    @property
    def occupied(self) -> np.ndarray:
        """Numbers of the clusters that have a center and rows."""
        k = 0 if self.centers is None else len(self.centers)
        return np.flatnonzero(np.isin(np.arange(k), self.labels))

    @property
    def representative(self) -> str:
        """What the centers are: means, or rows of the data."""
        return "center" if self.structure is None or self.structure.medoids is None else "medoid"

    @property
    def missing(self) -> bool:
        """Whether cells of the rows are missing."""
        return bool(np.isnan(self.dataset.x).any())

    @property
    def clustered_as(self) -> str:
        """What was made of the rows before they were clustered; empty where they stayed in the data's units."""
        return CLUSTERED_AS.get(self.scaling.how, "") if self.scaling is not None else ""

    @property
    def axes(self) -> list[str] | None:
        """Names of the columns for axes, with what was made of them; None where nothing is to be said."""
        columns = self.dataset.columns
        if not self.clustered_as:
            return columns
        columns = [f"column {j}" for j in range(self.dataset.x.shape[1])] if columns is None else columns
        return [f"{name} ({AXES[self.scaling.how]})" for name in columns]

    @property
    def units(self) -> str:
        """The units of `in_data_units`, in words."""
        lost = self.scaling is not None and self.scaling.how == "l2"
        return "of rows scaled to length 1" if lost else "in the data's units"

    def in_data_units(self, centers: np.ndarray) -> np.ndarray:
        """Centers as they were clustered in the units of the data; those of rows of length 1 stay."""
        return centers if self.scaling is None else self.scaling.undo(centers)

    def deviations_in_data_units(self, deviations: np.ndarray) -> np.ndarray:
        """The same of standard deviations."""
        return deviations if self.scaling is None else self.scaling.undo_deviations(deviations)

    @property
    def sizes(self) -> np.ndarray:
        """Rows in each cluster."""
        return np.unique(self.labels[~self.noise], return_counts=True)[1]


def machine() -> dict[str, str]:
    """Device, system, and the versions that matter."""
    import jax

    devices = jax.devices()
    several = f", {len(devices)} of them" if len(devices) > 1 else ""
    return {
        "platform": devices[0].platform,
        "device": devices[0].device_kind + several,
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "Python": sys.version.split()[0],
        **{package: version(package) for package in PACKAGES},
    }


def version(package: str) -> str:
    """Its version; a source tree that was never installed has none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"

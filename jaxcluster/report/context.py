"""Context of a report: the run, its data, the machine that it ran on, and the words for its ending."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jaxcluster.datasets.base import Dataset
from jaxcluster.datasets.scaling import Scaling
from jaxcluster.plots.components import as_covariances
from jaxcluster.plots.curves import finite_history
from jaxcluster.plots.style import as_float, is_noise
from jaxcluster.report.profiles import Profile
from jaxcluster.report.structure import Structure
from jaxcluster.report.training import Training
from jaxcluster.types import Status

CLUSTERED_AS = {"standard": "z-scores of the columns", "minmax": "columns from 0 to 1", "l2": "rows of length 1"}
"""Description of scaled rows."""

AXES = {"standard": "z-score", "minmax": "0 to 1", "l2": "rows of length 1"}
"""Description of scaled columns on an axis."""

PACKAGES = ("jaxcluster", "jax", "jaxlib", "numpy", "scikit-learn")

WARNINGS = {
    Status.MAX_STEPS: "The run reached its limit of steps before it had converged. Allow more steps, or a larger tol.",
    Status.NOT_FINITE: "The run met numbers that are not finite and stopped; what follows is not to be trusted. Scale "
    "the columns.",
    Status.EMPTY_CLUSTERS: "Some clusters have no rows. Ask for fewer clusters, or look whether there are as many "
    "different rows.",
    Status.COLLAPSED: "A component lost its rows, or shrank onto too few of them to have a spread, and was kept from "
    "vanishing. Ask for fewer components, pass a larger reg_covar, or try another covariance type.",
    Status.PRECISION: "Some rows differ by less than the computation can tell apart, so their clusters may not be "
    "those of exact arithmetic. Compute in float64 (jax_enable_x64), or scale the columns.",
    Status.INTERRUPTED: "Ctrl-C ended the run before it had converged: what follows is its best state so far.",
}
"""Warning and remedy for each status, in words of the library."""

SHELL = {
    Status.MAX_STEPS: "the fit stopped at its limit of steps. Raise --max-iter, or --tol.",
    Status.NOT_FINITE: "the fit met numbers that are not finite, and its result is not to be trusted. Pass --scale "
    "standard.",
    Status.EMPTY_CLUSTERS: "some clusters have no rows. Lower --k, or look whether there are as many different rows.",
    Status.COLLAPSED: "a component lost its rows or its spread. Lower --k, raise --reg-covar, or try another "
    "--covariance.",
    Status.PRECISION: "some rows differ by less than the computation can tell apart, so their clusters may not be "
    "those of exact arithmetic. Set JAX_ENABLE_X64=1 before the command, or pass --scale standard.",
    Status.INTERRUPTED: "Ctrl-C ended the fit before it had converged.",
}
"""The same in a line for the command line, in words of its options."""

COLLAPSED_TRAINING = (
    "The training collapsed: the network tells rows apart no more, or puts almost all of them into one cluster. Lower "
    "the learning rate, pass gentler views, or look whether the rows vary."
)

ALL_NOISE = "Every row is noise: there is no cluster. Ask for a lower density: a larger radius, or fewer rows in it."


class Components(NamedTuple):
    """The fitted mixture of a run; its means are the run's centers.

    Attributes:
        weights: (n_components,) mixing proportions.
        covariances: (n_components, n_features, n_features) full, (n_features, n_features) tied,
            (n_components, n_features) diag or (n_components,) spherical, in squared units of the rows.
        covariance_type: one of these.
    """

    weights: Any
    covariances: Any
    covariance_type: str = "full"


class ReportContext(NamedTuple):
    """The arguments of `write_report`; the history without its padding, None if it was empty.

    `normalized` makes one that the sections take.
    """

    config: Mapping[str, Any]
    scores: Mapping[str, Any]
    dataset: Dataset
    labels: np.ndarray
    centers: np.ndarray | None = None
    components: Components | None = None
    history: Any = None
    objective: str = "inertia"
    best: str = "min"
    status: Any = None
    timing: Any = None
    structure: Structure | None = None
    training: Training | None = None
    scaling: Scaling | None = None
    metric: str = "euclidean"
    p: float = 2
    remarks: Sequence[str] = ()
    profile: Profile | None = None
    center_rows: np.ndarray | None = None
    center_columns: Sequence[str] | None = None
    table: Any = None
    messages: Sequence[str] = ()
    compile_seconds: Mapping[str, float] = MappingProxyType({})

    def normalized(self) -> ReportContext:
        """The context with arrays of NumPy and checked: see `write_report`.

        Raises:
            ValueError: where labels, centers, components, structure, training and rows do not fit.
        """
        status, timing = self.status, self.timing
        run = self._replace(
            dataset=self.dataset._replace(x=as_float(self.dataset.x)),
            labels=np.asarray(self.labels),
            centers=None if self.centers is None else np.asarray(self.centers),
            history=_steps(self.history),
            status=None if status is None else Status(int(status)),
            timing={"all": timing} if isinstance(timing, (int, float)) else dict(timing or {}),
        )
        run.check()
        return run

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
            self._check_components(self.components, d)
        if self.structure is not None:
            self.structure.check(n)
        if self.training is not None:
            self.training.check(n, d)

    def _check_components(self, components: Components, d: int) -> None:
        if self.centers is None:
            raise ValueError("components have no means: pass them as centers.")
        k = len(self.centers)
        if np.shape(components.weights) != (k,):
            raise ValueError(f"weights {np.shape(components.weights)} do not fit {k} centers: one each is needed.")
        as_covariances(components.covariances, components.covariance_type, k, d)

    @property
    def noise(self) -> np.ndarray:
        """(n_samples,) True for rows in no cluster."""
        return is_noise(self.labels)

    @property
    def occupied(self) -> np.ndarray:
        """Numbers of the clusters that have a center and rows."""
        k = 0 if self.centers is None else len(self.centers)
        return np.flatnonzero(np.isin(np.arange(k), self.labels))

    @property
    def representative(self) -> str:
        """Name of a center: "medoid" if it is a row of the data."""
        return "center" if self.structure is None or self.structure.medoids is None else "medoid"

    @property
    def missing(self) -> bool:
        """True if cells of the rows are missing."""
        return bool(np.isnan(self.dataset.x).any())

    @property
    def clustered_as(self) -> str:
        """Description of the rows as they were clustered; empty if they stayed in the data's units."""
        return CLUSTERED_AS.get(self.scaling.how, "") if self.scaling is not None else ""

    @property
    def axes(self) -> list[str] | None:
        """Names of the columns for axes, with their scaling; None if the columns have no names and no scaling."""
        columns = self.dataset.columns
        if self.scaling is None or not self.clustered_as:
            return columns
        columns = [f"column {j}" for j in range(self.dataset.x.shape[1])] if columns is None else columns
        return [f"{name} ({AXES[self.scaling.how]})" for name in columns]

    @property
    def units(self) -> str:
        """The units of `in_data_units`, in words."""
        lost = self.scaling is not None and self.scaling.how == "l2"
        return "of rows scaled to length 1" if lost else "in the data's units"

    def in_data_units(self, centers: np.ndarray) -> np.ndarray:
        """Centers in the units of the data; those of rows of length 1 stay as they are."""
        return centers if self.scaling is None else self.scaling.undo(centers)

    def deviations_in_data_units(self, deviations: np.ndarray) -> np.ndarray:
        """Standard deviations in the units of the data."""
        return deviations if self.scaling is None else self.scaling.undo_deviations(deviations)

    @property
    def sizes(self) -> np.ndarray:
        """Rows in each cluster."""
        return np.unique(self.labels[~self.noise], return_counts=True)[1]


def _steps(history: Any) -> np.ndarray | None:
    """The finite objectives of a history; None where there are none."""
    values = None if history is None else finite_history(history)
    return values if values is not None and values.size else None


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
    """Version of an installed package; a source tree that was never installed has none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"

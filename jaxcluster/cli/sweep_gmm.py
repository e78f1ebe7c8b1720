"""Sweeping mixtures of Gaussians: every k, type of covariance and start, chosen by BIC."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxcluster import gmm, plots
from jaxcluster.cli.errors import mistakes
from jaxcluster.cli.scores import finite
from jaxcluster.cli.sweep_warnings import warn_of
from jaxcluster.report import tables
from jaxcluster.report.pictures import picture

if TYPE_CHECKING:
    from jaxcluster.cli.console import Stages
    from jaxcluster.cli.inputs import Rows

CRITERIA = {"bic": "BIC", "aic": "AIC"}


def run(stage: Stages, rows: Rows, ks: list[int], seeds: int, seed: int, options: dict[str, Any]) -> GMMSweep:
    """Fits, and takes the best start of each."""
    with stage("fit", f"Fitting mixtures of {min(ks)} to {max(ks)} components to {len(rows.x):,} rows"), mistakes():
        key = jax.random.key(seed)
        found = gmm.sweep(key, rows.x, ks, n_seeds=seeds, weights=rows.weights, **options)
        statuses = np.concatenate([jax.device_get(found.fits[name].status) for name in found.covariances])
    names = [f"k = {k} {name}" for name in found.covariances for k in ks]
    warn_of(statuses, names, list(ks) * len(found.covariances), rows, by=", with ")
    values = {name: np.asarray(getattr(found, name), np.float64) for name in (*CRITERIA, "log_likelihood")}
    return GMMSweep(rows, ks, seeds, stage.seconds, tuple(found.covariances), **values)


class GMMSweep(NamedTuple):
    """A finished sweep of mixtures, as `jaxcluster.cli.sweep.Sweep` describes it.

    Attributes:
        covariances: types of covariance.
        bic, aic, log_likelihood: (len(covariances), len(ks), seeds).
    """

    rows: Rows
    ks: list[int]
    seeds: int
    seconds: dict[str, float]
    covariances: tuple[str, ...]
    bic: np.ndarray
    aic: np.ndarray
    log_likelihood: np.ndarray

    def choices(self) -> dict[str, dict[str, Any] | None]:
        """The k and the type of covariance at which each criterion is least; None where it is nowhere defined."""
        return {criterion: self._least(criterion) for criterion in CRITERIA}

    def _of_best(self, criterion: str) -> np.ndarray:
        """(len(covariances), len(ks)) the criterion of the best start; infinite where none is defined."""
        return _defined(getattr(self, criterion)).min(axis=2)

    def _least(self, criterion: str) -> dict[str, Any] | None:
        values = self._of_best(criterion)
        if not np.isfinite(values).any():
            return None
        at, i = divmod(int(values.T.argmin()), len(self.covariances))  # the lesser k of equals
        return {"k": self.ks[at], "covariance": self.covariances[i], "value": float(values[i, at])}

    def lead(self) -> str:
        """See `Sweep`."""
        n, ks, types = len(self.rows.x), self.ks, ", ".join(self.covariances)
        return f"Mixtures of {min(ks)} to {max(ks)} Gaussians on {n:,} rows: {types}; {self.seeds} starts for each."

    def lines(self) -> list[dict[str, Any]]:
        """The best start, by BIC, of each type and k."""
        return [{name: value for name, value in each.items() if name != "bics"} for each in self._each()]

    def details(self) -> dict[str, Any]:
        """The same with the BIC of every start."""
        return {"choices": self.choices(), "scores": self._each()}

    def _each(self) -> list[dict[str, Any]]:
        best = _defined(self.bic).argmin(axis=2)
        return [
            {
                "covariance": name,
                "k": k,
                **finite({key: float(getattr(self, key)[i, j, best[i, j]]) for key in (*CRITERIA, "log_likelihood")}),
                "bics": [value if np.isfinite(value) else None for value in self.bic[i, j].tolist()],
            }
            for i, name in enumerate(self.covariances)
            for j, k in enumerate(self.ks)
        ]

    def shown(self) -> tuple[str, list[str], list[list[Any]]]:
        """The BIC by k and type, and what each criterion chose."""
        values, chosen = self._of_best("bic"), self.choices()
        lines = []
        for j, k in enumerate(self.ks):
            rules = [
                f"{CRITERIA[rule]} ({found['covariance']})"
                for rule, found in chosen.items()
                if found is not None and found["k"] == k
            ]
            lines.append([k, *(v if np.isfinite(v) else None for v in values[:, j].tolist()), ", ".join(rules)])
        title = f"BIC of mixtures on {len(self.rows.x):,} rows, the best of {self.seeds} starts for each"
        return title, ["k", *self.covariances, "least"], lines

    def remarks(self) -> list[str]:
        """Where the criteria are least, and whether that is at the end of what was tried."""
        chosen = self.choices()
        if chosen["bic"] is None:
            return ["No mixture has a BIC that is a number, so there is nothing to choose by."]
        bic, aic = (f"k = {found['k']} ({found['covariance']})" for found in chosen.values())
        least = f"BIC and AIC are least at {bic}" if bic == aic else f"The BIC is least at {bic}, the AIC at {aic}"
        most = max(self.ks)
        ends = len(self.ks) > 1 and chosen["bic"]["k"] == most
        return [f"{least}. Lower is better.", *([f"k = {most} is the most that was tried: try more."] if ends else [])]

    def pictures(self) -> list[str]:
        """Both criteria over k, a line for each type."""
        shown = []
        for criterion, title in CRITERIA.items():
            values = getattr(self, criterion)
            if np.isfinite(values).any():
                lines = dict(zip(self.covariances, values, strict=True))
                draw = partial(plots.information_criteria, self.ks, lines, name=title)
                alt = f"{title} by number of components, a line for each type of covariance."
                shown.append(picture(draw, alt, name=criterion, height=4.6))
        return shown

    def tables(self) -> list[str]:
        """Both criteria by k and type."""
        shown = []
        for criterion, title in CRITERIA.items():
            values = self._of_best(criterion)
            lines = [
                (str(k), ["—" if not np.isfinite(value) else tables.number(value) for value in values[:, j]])
                for j, k in enumerate(self.ks)
            ]
            shown.append(tables.grid(title, ["k", *self.covariances], lines, caption=f"{title} by type of covariance"))
        return shown


def _defined(values: np.ndarray) -> np.ndarray:
    """Values to take the least of: infinite where they are undefined."""
    return np.where(np.isfinite(values), values, np.inf)

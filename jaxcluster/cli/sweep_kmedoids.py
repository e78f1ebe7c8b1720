"""Sweeping k-medoids: every k in one compile and from one table of distances, chosen by the medoid silhouette."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxcluster import kmedoids, model_selection, plots
from jaxcluster.cli.errors import mistakes
from jaxcluster.cli.sweep_warnings import warn_of
from jaxcluster.report import tables
from jaxcluster.report.pictures import picture

if TYPE_CHECKING:
    from jaxcluster.cli.console import Stages
    from jaxcluster.cli.inputs import Rows

LOSS, SILHOUETTE = "sum of distances", "medoid silhouette"


def run(stage: Stages, rows: Rows, ks: list[int], seeds: int, seed: int, options: dict[str, Any]) -> KMedoidsSweep:
    """Fits; the greedy start has no chance in it, so that only random ones are tried more than once."""
    with stage("fit", f"Fitting k-medoids for {len(ks)} numbers of clusters to {len(rows.x):,} rows"), mistakes():
        found = kmedoids.sweep(jax.random.key(seed), rows.x, ks, weights=rows.weights, n_init=seeds, **options)
        loss, status = jax.device_get((found.fits.state.loss, found.fits.status))
    warn_of(status[:, None], list(map(str, ks)), ks, rows, by=" for k = ")
    starts = seeds if options.get("init") == "random" else 1
    return KMedoidsSweep(rows, ks, starts, stage.seconds, np.asarray(loss), np.asarray(found.silhouette), found.k)


class KMedoidsSweep(NamedTuple):
    """A finished sweep of k-medoids, as `jaxcluster.cli.sweep.Sweep` describes it.

    Attributes:
        loss: (len(ks),) Σ w·d(x, medoid).
        silhouette: (len(ks),) the medoid silhouette.
        k: the number of clusters at which it is highest.
    """

    rows: Rows
    ks: list[int]
    seeds: int
    seconds: dict[str, float]
    loss: np.ndarray
    silhouette: np.ndarray
    k: int

    def lead(self) -> str:
        """See `Sweep`."""
        n, ks = len(self.rows.x), self.ks
        starts = "a greedy start" if self.seeds == 1 else f"{self.seeds} starts"
        return f"k-medoids with {min(ks)} to {max(ks)} clusters on {n:,} rows, {starts} for each."

    def lines(self) -> list[dict[str, Any]]:
        """The scores of each k."""
        each = zip(self.ks, self.loss.tolist(), self.silhouette.tolist(), strict=True)
        return [{"k": k, "loss": loss, "medoid_silhouette": silhouette} for k, loss, silhouette in each]

    def details(self) -> dict[str, Any]:
        """The same, and the choice."""
        return {"choices": {"medoid_silhouette": self.k, "elbow": self._elbow()}, "scores": self.lines()}

    def shown(self) -> tuple[str, list[str], list[list[Any]]]:
        """The scores, and which rule chose a k."""
        elbow, lines = self._elbow(), []
        for line in self.lines():
            rules = [rule for rule, k in (("silhouette", self.k), ("elbow", elbow)) if k == line["k"]]
            lines.append([*line.values(), "both" if len(rules) == 2 else "".join(rules)])
        return f"k-medoids on {len(self.rows.x):,} rows", ["k", LOSS, SILHOUETTE, "chosen by"], lines

    def remarks(self) -> list[str]:
        """What the rules say."""
        elbow = self._elbow()
        bend = f"the elbow of the {LOSS} is at k = {elbow}" if elbow else f"the {LOSS} shows no elbow"
        return [f"The {SILHOUETTE} is highest at k = {self.k}; {bend}."]

    def pictures(self) -> list[str]:
        """Both over k, where there is more than one."""
        if len(self.ks) < 2:
            return []
        silhouette = partial(plots.sweep, self.ks, self.silhouette, name=SILHOUETTE)
        loss = partial(plots.elbow, self.ks, self.loss, name=LOSS)
        return [
            picture(silhouette, "Medoid silhouette by number of clusters.", name="silhouette"),
            picture(loss, "Sum of distances by number of clusters.", name="loss"),
        ]

    def tables(self) -> list[str]:
        """The scores."""
        lines = [(str(k), [tables.number(value) for value in values]) for k, *values in map(dict.values, self.lines())]
        return [tables.grid("Scores", ["k", LOSS, SILHOUETTE], lines, css="")]

    def _elbow(self) -> int | None:
        return model_selection.elbow(self.ks, self.loss)

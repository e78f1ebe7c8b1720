"""Sweeping k-means: every k and start in one compile, chosen by silhouette and by the elbow of the inertia."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxcluster import kmeans, model_selection, plots
from jaxcluster.cli.errors import mistakes
from jaxcluster.cli.scores import finite
from jaxcluster.cli.sweep_warnings import warn_of
from jaxcluster.report import tables
from jaxcluster.report.pictures import picture
from jaxcluster.report.scores import meaning

if TYPE_CHECKING:
    from jaxcluster.cli.console import Stages
    from jaxcluster.cli.inputs import Rows

SCORES = ("inertia", "silhouette", "davies_bouldin", "calinski_harabasz")


def run(stage: Stages, rows: Rows, ks: list[int], seeds: int, seed: int, options: dict[str, Any]) -> KMeansSweep:
    """Fits and scores."""
    with stage("fit", f"Fitting k-means {len(ks) * seeds} times to {len(rows.x):,} rows"), mistakes():
        key = jax.random.key(seed)
        fits = jax.device_get(kmeans.sweep(key, rows.x, ks, n_seeds=seeds, weights=rows.weights, **options))
    warn_of(fits.status, list(map(str, ks)), ks, rows, by=" for k = ")
    with stage("score", "Scoring"):
        scores = model_selection.score_sweep(rows.x, ks, fits, metric=options.get("metric", "sqeuclidean"))
        by_silhouette = (
            model_selection.choose_k(ks, scores.silhouette) if np.isfinite(scores.silhouette).any() else None
        )
        choices = {"silhouette": by_silhouette, "elbow": model_selection.choose_k(ks, scores.inertia, "elbow")}
    objective = "sum of cosine distances" if options.get("metric") == "cosine" else "inertia"
    return KMeansSweep(rows, ks, seeds, stage.seconds, scores, np.asarray(fits.state.inertia), choices, objective)


class KMeansSweep(NamedTuple):
    """A finished sweep of k-means, as `jaxcluster.cli.sweep.Sweep` describes it.

    Attributes:
        scores: of the best start of each k.
        inertias: (len(ks), seeds) of all starts.
        choices: the k that each rule picks; None where it picks none.
        objective: what the inertia is, in words.
    """

    rows: Rows
    ks: list[int]
    seeds: int
    seconds: dict[str, float]
    scores: model_selection.SweepScores
    inertias: np.ndarray
    choices: dict[str, int | None]
    objective: str = "inertia"

    @property
    def titles(self) -> list[str]:
        """Heads of the columns of scores."""
        return [meaning(name).title for name in (self.objective, *SCORES[1:])]

    @property
    def silhouette_rows(self) -> int:
        """How many rows the silhouettes are of."""
        return min(len(self.rows.x), model_selection.SILHOUETTE_SAMPLE)

    def lead(self) -> str:
        """See `Sweep`."""
        n, ks = len(self.rows.x), self.ks
        return f"k-means with {min(ks)} to {max(ks)} clusters on {n:,} rows, {self.seeds} starts for each."

    def lines(self) -> list[dict[str, Any]]:
        """The scores of each k."""
        return [
            {"k": k, **finite({name: float(getattr(self.scores, name)[i]) for name in SCORES})}
            for i, k in enumerate(self.ks)
        ]

    def details(self) -> dict[str, Any]:
        """The scores with the inertia of every start."""
        each = [
            {**line, "inertias": list(map(float, row))} for line, row in zip(self.lines(), self.inertias, strict=True)
        ]
        return {"choices": self.choices, "silhouette_rows": self.silhouette_rows, "scores": each}

    def shown(self) -> tuple[str, list[str], list[list[Any]]]:
        """The scores, and which rule chose a k."""
        lines = []
        for line in self.lines():
            rules = [rule for rule, k in self.choices.items() if k == line["k"]]
            lines.append([*line.values(), "both" if len(rules) == 2 else "".join(rules)])
        title = f"k-means on {len(self.rows.x):,} rows, the best of {self.seeds} starts for each k"
        return title, ["k", *self.titles, "chosen by"], lines

    def remarks(self) -> list[str]:
        """Whether silhouettes are of a sample, and what the rules say."""
        drawn = f"The silhouettes are those of {self.silhouette_rows:,} rows drawn at random."
        return ([drawn] if self.silhouette_rows < len(self.rows.x) else []) + [_advice(self.choices, self.objective)]

    def pictures(self) -> list[str]:
        """The inertia and its elbow, and the scores that are defined."""
        draw = partial(plots.elbow, self.ks, self.inertias, name=self.objective)
        shown = [picture(draw, f"{self.titles[0]} by number of clusters.", name="elbow")]
        for name in SCORES[1:]:
            values = getattr(self.scores, name)
            defined = np.isfinite(values)
            if defined.sum() < 2:
                continue
            title, best = meaning(name).title, "min" if name == "davies_bouldin" else "max"
            draw = partial(plots.sweep, np.asarray(self.ks)[defined], values[defined], name=title, best=best)
            shown.append(picture(draw, f"{title} by number of clusters.", name=name))
        return shown

    def tables(self) -> list[str]:
        """The scores."""
        lines = []
        for line in self.lines():
            k, *values = line.values()
            lines.append((str(k), ["—" if value is None else tables.number(value) for value in values]))
        return [tables.grid("Scores", ["k", *self.titles], lines, css="")]


def _advice(choices: dict[str, int | None], objective: str) -> str:
    """What the rules say, in a sentence."""
    by_silhouette, by_elbow = choices["silhouette"], choices["elbow"]
    if by_silhouette is None:
        return "No k has 2 or more clusters, so there is no silhouette to choose by."
    if by_silhouette == by_elbow:
        return f"Both rules choose k = {by_silhouette}."
    elbow = (
        f"the {objective} shows no elbow" if by_elbow is None else f"the elbow of the {objective} is at k = {by_elbow}"
    )
    return f"The silhouette is best at k = {by_silhouette}; {elbow}."

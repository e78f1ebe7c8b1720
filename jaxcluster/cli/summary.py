"""What a finished fit says on the terminal: the clusters it found, its scores, and what was written where."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcluster.cli import run as runs
from jaxcluster.cli.console import complain, say
from jaxcluster.cli.scores import show_scores
from jaxcluster.cli.training import phase_with_clusters, trains
from jaxcluster.types import Status

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from jaxcluster.cli.fitting import Result

LOOSER = {
    "eps": "raise --eps",
    "max_eps": "raise --max-eps",
    "min_cluster_size": "lower --min-cluster-size",
    "min_samples": "lower --min-samples",
}
"""What makes fewer rows noise, by parameter."""


def show(out: Console, result: Result, folder: Path) -> None:
    """The clusters, how the fit ended, scores, and what was written where."""
    estimator = result.estimator
    noise = runs.clusters_and_noise(estimator.labels_)[1]
    say(out, f"{_clusters(estimator.labels_)}{_ending(estimator)}.\n")
    if result.external is not None:
        show_scores(out, f"Against the truth{', noise as one more cluster' if noise else ''}", result.external)
    title = "Scores" if result.external is None else "Without the truth"
    show_scores(out, f"{title}{', of the rows in clusters' if noise else ''}", result.scores_in_words)
    if result.silhouette_rows < len(estimator.labels_) - noise:
        say(out, f"The silhouette is that of {result.silhouette_rows:,} rows drawn at random.", "dim")
    for remark in [*_scaled(result.rows.scaling.how), *result.remarks]:
        say(out, remark, "dim")
    say(out, f"Written to {folder}:", "bold")
    files = (
        runs.FILES
        if hasattr(estimator, "predict")
        else runs.FILES | {f"{runs.MODEL}/": "for jaxcluster.load in Python"}
    )
    for name, purpose in files.items():
        if (folder / name).exists():
            say(out, f"  {name:15}{purpose}")
    _warn_of_ending(estimator, warned=result.warned)
    if noise == len(estimator.labels_):
        complain("Warning", f"every row is noise: {_loosened(estimator)}.", "yellow")


def _scaled(how: str) -> list[str]:
    """What scores are of, where rows were scaled."""
    from jaxcluster.report.run import CLUSTERED_AS

    return (
        [f"Scores without the truth are of the rows as clustered: {CLUSTERED_AS[how]}."] if how in CLUSTERED_AS else []
    )


def _warn_of_ending(estimator: Any, *, warned: bool) -> None:
    """Says that a fit did not simply converge, unless the estimator has, or was to take all its epochs."""
    from jaxcluster.report.endings import COLLAPSED_TRAINING, SHELL

    status, trained = getattr(estimator, "status_", Status.CONVERGED), trains(estimator)
    endless = getattr(estimator, "tol", None if trained else 0) is None
    if status == Status.CONVERGED or (status == Status.MAX_STEPS and endless):
        return
    if status == Status.MAX_STEPS and trained:
        complain("Warning", "the fit stopped at its limit of epochs. Raise --epochs, or --tol.", "yellow")
    elif status == Status.MAX_STEPS or not warned:
        collapsed = trained and status == Status.COLLAPSED
        complain("Warning", COLLAPSED_TRAINING if collapsed else SHELL[status], "yellow")


def _clusters(labels: np.ndarray) -> str:
    clusters, noise = runs.clusters_and_noise(labels)
    if not clusters:
        return f"No clusters: all {noise:,} rows are noise"
    least, most = min(clusters.values()), max(clusters.values())
    rows = f"{least:,} to {most:,}" if least < most else f"{least:,}"
    found = f"{len(clusters):,} cluster{'s' * (len(clusters) > 1)} of {rows} rows"
    return (
        f"{found}; {noise:,} row{'s are' if noise > 1 else ' is'} noise ({noise / len(labels):.1%})" if noise else found
    )


def _loosened(estimator: Any) -> str:
    chosen = estimator.get_params()
    return ", or ".join(advice for name, advice in LOOSER.items() if chosen.get(name) is not None)


def _ending(estimator: Any) -> str:
    status, steps = getattr(estimator, "status_", None), len(getattr(estimator, "history_", ()))
    word = "epoch" if trains(estimator) else "step"
    after = f"after {steps:,} {word}{'' if steps == 1 else 's'}"
    if trains(estimator) and (status == Status.MAX_STEPS or not phase_with_clusters(estimator)):
        return f"; trained for {after.removeprefix('after ')}" if steps else ""
    clusters = (estimator.labels_ >= 0).any()
    return f"; converged {after}" if status == Status.CONVERGED and steps and clusters else ""

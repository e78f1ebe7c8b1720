"""Summary of a finished fit on the terminal: clusters, scores, files and warnings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcluster.cli import run as runs
from jaxcluster.cli.console import complain, say
from jaxcluster.cli.score import show_scores
from jaxcluster.cli.training import phase_with_clusters, trains_network
from jaxcluster.types import Status

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from jaxcluster.cli.fit_pipeline import FitResult

LESS_NOISE_HINTS = {
    "eps": "raise --eps",
    "max_eps": "raise --max-eps",
    "min_cluster_size": "lower --min-cluster-size",
    "min_samples": "lower --min-samples",
}
"""Advice that leaves fewer rows of noise, by parameter."""


def show(out: Console, result: FitResult, folder: Path) -> None:
    """Print the clusters, the end of the fit, scores and written files, and warn if the fit did not converge."""
    estimator = result.estimator
    noise = runs.clusters_and_noise(estimator.labels_)[1]
    say(out, f"{clusters_in_words(estimator.labels_)}{ending_in_words(estimator)}.\n")
    if result.external is not None:
        show_scores(out, f"Against the truth{', noise as one more cluster' if noise else ''}", result.external)
    title = "Scores" if result.external is None else "Without the truth"
    show_scores(out, f"{title}{', of the rows in clusters' if noise else ''}", result.scores_in_words)
    if result.silhouette_rows < len(estimator.labels_) - noise:
        say(out, f"The silhouette is that of {result.silhouette_rows:,} rows drawn at random.", "dim")
    for remark in [*_scaled(result), *result.remarks]:
        say(out, remark, "dim")
    say(out, f"Written to {folder}:", "bold")
    files = dict(runs.FILES)
    if not hasattr(estimator, "predict"):
        files[f"{runs.MODEL}/"] = "for jaxcluster.load in Python"
    beside = runs.columns_of_labels(folder / runs.LABELS)[2:]
    if beside:
        files[runs.LABELS] += f", and its {' and '.join(beside).replace('_', ' ')}"
    for name, purpose in files.items():
        if (folder / name).exists():
            say(out, f"  {name:15}{purpose}")
    for warning in result.warnings:
        complain("Warning", warning, "yellow")
    warn_of_ending(estimator, trained=trains_network(estimator), warned=result.warned)
    if noise == len(estimator.labels_):
        complain("Warning", f"every row is noise: {_loosened(estimator)}.", "yellow")


def _scaled(result: FitResult) -> list[str]:
    """A remark on scores of scaled rows."""
    from jaxcluster.report.context import CLUSTERED_AS

    rows = CLUSTERED_AS.get(result.rows.scaling.how)
    scores = "The scores" if result.external is None else "Scores without the truth"
    return [] if rows is None else [f"{scores} are of the scaled rows: {rows}."]


def warn_of_ending(estimator: Any, *, trained: bool = False, warned: bool) -> None:
    """Warn of a fit that did not converge, unless the estimator has, or was to take all its epochs."""
    from jaxcluster.report.context import COLLAPSED_TRAINING, SHELL

    status = getattr(estimator, "status_", Status.CONVERGED)
    endless = getattr(estimator, "tol", None if trained else 0) is None
    if status == Status.CONVERGED or (status == Status.MAX_STEPS and endless):
        return
    if status == Status.MAX_STEPS and trained:
        complain("Warning", "the fit stopped at its limit of epochs. Raise --epochs, or --tol.", "yellow")
    elif status == Status.MAX_STEPS or not warned:
        collapsed = trained and status == Status.COLLAPSED
        complain("Warning", COLLAPSED_TRAINING if collapsed else SHELL[status], "yellow")


def clusters_in_words(labels: np.ndarray) -> str:
    """Number and sizes of clusters, and the share of noise."""
    clusters, noise = runs.clusters_and_noise(labels)
    if not clusters:
        return f"No clusters: all {noise:,} rows are noise"
    least, most = min(clusters.values()), max(clusters.values())
    rows = f"{least:,} to {most:,}" if least < most else f"{least:,}"
    words = f"{len(clusters):,} cluster{'s' * (len(clusters) > 1)} of {rows} row{'s' * (most != 1)}"
    return (
        f"{words}; {noise:,} row{'s are' if noise > 1 else ' is'} noise ({noise / len(labels):.1%})" if noise else words
    )


def _loosened(estimator: Any) -> str:
    chosen = estimator.get_params()
    return ", or ".join(advice for name, advice in LESS_NOISE_HINTS.items() if chosen.get(name) is not None)


def ending_in_words(estimator: Any) -> str:
    """Number of steps of a fit that converged, to follow the words on its clusters; else empty."""
    trained = trains_network(estimator)
    status, steps = getattr(estimator, "status_", None), len(getattr(estimator, "history_", ()))
    length = f"{steps:,} {'epoch' if trained else 'step'}{'' if steps == 1 else 's'}"
    if trained and (status == Status.MAX_STEPS or not phase_with_clusters(estimator)):
        return f"; trained for {length}" if steps else ""
    clusters = (estimator.labels_ >= 0).any()
    return f"; converged after {length}" if status == Status.CONVERGED and steps and clusters else ""

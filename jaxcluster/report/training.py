"""Training of a network and its codes of the rows, and the parts of a report that show them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster import plots
from jaxcluster.plots.curves import PHASES
from jaxcluster.plots.maps import Plane
from jaxcluster.report.figures import figure, map_figures
from jaxcluster.report.page import FILM

if TYPE_CHECKING:
    from jaxcluster.report.context import ReportContext

MAX_SNAPSHOTS = 6
"""Snapshots of codes in a report at most, evenly spread over the training."""

PAIRS = 16
"""Images shown with their reconstructions, at most."""


class Curve(NamedTuple):
    """Title, alternative text and note of the curve of a number that is recorded in every epoch."""

    title: str
    alt: str
    note: str


CURVES = {
    "loss": Curve("Loss by epoch", "loss", "Each phase has a loss of its own."),
    "critic": Curve(
        "Loss of the critic by epoch",
        "critic's loss",
        "Critic and generator play against each other: no loss of theirs tells how good the rows are that are made up.",
    ),
    "changed": Curve(
        "Share of rows that changed their cluster",
        "share of rows that changed their cluster",
        "Training may stop when hardly a row changes its cluster any more.",
    ),
    "nmi": Curve(
        "Normalized mutual information with the clusters before",
        "normalized mutual information of the clusters of an epoch and of the one before",
        "Clusters are found anew each epoch, without names: their mutual information with those before grows to 1 as "
        "they converge.",
    ),
    "anchors": Curve(
        "Views in a batch with a positive and a negative",
        "number of views in a batch that have a positive and a negative",
        "Triplets are made of views that have both.",
    ),
}
"""Recorded numbers that a report draws, in this order."""


class Training(NamedTuple):
    """A trained network, and its codes of the rows.

    Attributes:
        records: a mapping for each epoch: ``phase``, ``epoch``, and any of `CURVES`.
        codes: (n_samples, latent) of all rows, at the end.
        centers: (n_clusters, latent) of the clusters, among the codes.
        rows: (n_tracked,) numbers of the rows whose codes were recorded during the training.
        moments: (n_tracked, latent) codes of these rows by name of the snapshot, in order of time.
        returned: (n_tracked, n_features) reconstructions of these rows, in their units; None without a decoder.
        decoded: (n_clusters, n_features) the decoded centers; None without a decoder.
        samples: (n_clusters, n_examples, n_features) rows drawn from each cluster; None if none can be drawn.
        nearest: (n_examples, n_features) the rows nearest to each prototype or cluster, by its name; None for none.
        nearest_to: name of what they are nearest to.
        endless: True if the training was to take all its epochs, so that reaching the last one is no fault.
    """

    records: Sequence[Mapping[str, Any]]
    codes: Any
    centers: Any
    rows: Any
    moments: Mapping[str, Any]
    returned: Any = None
    decoded: Any = None
    samples: Any = None
    nearest: Mapping[str, Any] | None = None
    nearest_to: str = "cluster"
    endless: bool = False

    @property
    def epochs(self) -> int:
        """Number of epochs of the last phase."""
        return sum(record["phase"] == self.records[-1]["phase"] for record in self.records) if self.records else 0

    def check(self, n: int, d: int) -> None:
        """Raise ValueError if its parts do not fit n rows of d columns."""
        m, k, latent = len(self.rows), len(self.centers), np.shape(self.codes)[-1]
        wanted = {"codes": (n, latent), "centers": (k, latent), "returned": (m, d), "decoded": (k, d)}
        for name, shape in wanted.items():
            value = getattr(self, name)
            if value is not None and np.shape(value) != shape:
                raise ValueError(f"{name} {np.shape(value)} must be {shape}.")
        for name, codes in self.moments.items():
            if np.shape(codes) != (m, latent):
                raise ValueError(f"the codes {np.shape(codes)} of {name} must be {(m, latent)}.")
        if self.samples is not None and (np.ndim(self.samples) != 3 or np.shape(self.samples)[2] != d):
            raise ValueError(f"samples {np.shape(self.samples)} must be (any number, any number, {d}).")
        for name, rows in (self.nearest or {}).items():
            if np.ndim(rows) != 2 or np.shape(rows)[1] != d:
                raise ValueError(f"the rows {np.shape(rows)} nearest to {name} must be (any number, {d}).")


def training_parts(run: ReportContext, planes: Sequence[Plane]) -> list[tuple[str, str, list[str]]]:
    """Title, note and pictures of each part, the codes on ``planes``; nothing for a run without a network."""
    training = run.training
    if training is None:
        return []
    parts = [
        ("Training", *_training(run, training)),
        ("Embedding", *_embedding(run, training, planes)),
        ("Reconstructions", *_reconstructions(run, training)),
        ("Samples", *_samples(run, training)),
        ("Nearest rows", *_nearest(run, training)),
    ]
    return [(title, note, shown) for title, note, shown in parts if shown]


def _training(run: ReportContext, training: Training) -> tuple[str, list[str]]:
    notes, shown = [], []
    recorded = {name for name in CURVES if any(_finite(record.get(name)) for record in training.records)}
    for name, curve in CURVES.items():
        if name in recorded:
            notes.append(curve.note)
            draw = partial(plots.training_curves, training.records, name=name, title=curve.title)
            shown.append(figure(draw, _curve_text(training, name, curve.alt), name=name, width=8, height=3.8))
    moments = _spread(training.moments)
    if len(moments) > 1:
        notes.append("The small maps show the same rows each time, colored by their cluster in the end.")
        draw = partial(plots.embedding_through_training, moments, run.labels[np.asarray(training.rows)])
        alt = f"{len(moments)} maps of the codes of {len(training.rows):,} rows: {', '.join(moments)}."
        tall = 2.9 * (-(-len(moments) // 3)) + 0.4
        shown += [FILM, figure(draw, alt, name="moments", width=8, height=tall, css="still-figure")]
    return " ".join(note for note in notes if note), shown


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _curve_text(training: Training, name: str, what: str) -> str:
    """The first and last value of each phase, in words."""
    phases: dict[str, list[float]] = {}
    for record in training.records:
        if _finite(record.get(name)):
            phases.setdefault(record["phase"], []).append(record[name])
    ranges = (f"{phase} from {values[0]:.4g} to {values[-1]:.4g}" for phase, values in phases.items())
    return f"Curves of the {what} by epoch: {', '.join(ranges)}."


def _spread(moments: Mapping[str, Any]) -> dict[str, Any]:
    names = list(moments)
    chosen = np.unique(np.linspace(0, len(names) - 1, min(MAX_SNAPSHOTS, len(names))).round().astype(int))
    return {moment_title(names[i]): moments[names[i]] for i in chosen}


def moment_title(name: str) -> str:
    """Title of a snapshot: that of an estimator, "pretrain-5", is "pretraining, epoch 5"."""
    phase, _, epoch = name.rpartition("-")
    return f"{PHASES[phase]}, epoch {epoch}" if phase in PHASES else name


def _embedding(run: ReportContext, training: Training, planes: Sequence[Plane]) -> tuple[str, list[str]]:
    latent = np.shape(training.codes)[1]
    shown = map_figures(planes, run.labels, run.dataset.y, prefix="codes-", what="Codes")
    note = f"Rows as the network has them, {latent} number{'s' if latent > 1 else ''} each; a disc is a center."
    return note, shown


def _reconstructions(run: ReportContext, training: Training) -> tuple[str, list[str]]:
    if training.returned is None:
        return "", []
    x, returned, shape = (
        run.dataset.x[np.asarray(training.rows)],
        np.asarray(training.returned),
        run.dataset.image_shape,
    )
    if shape is None:
        if not x.var(axis=0).any():
            return "", []
        draw = partial(plots.reconstruction_errors, x, returned, columns=run.dataset.columns)
        alt = f"Bars of the share of each column's variance that does not come back, of {len(x):,} rows."
        height = 1.3 + 0.24 * min(x.shape[1], 24)
        return (
            "What a column loses on its way through the code; more than all where training left the decoder behind.",
            [figure(draw, alt, name="reconstructions", height=height)],
        )
    chosen = _of_each(run.labels[np.asarray(training.rows)])
    draw = partial(plots.reconstructions, x[chosen], returned[chosen], shape)
    alt = f"{len(chosen)} rows as images, and below each what comes back of it."
    shown = [
        figure(
            partial(draw, names=run.labels[np.asarray(training.rows)][chosen].tolist()),
            alt,
            name="reconstructions",
            width=9.6,
        )
    ]
    draw = partial(plots.centers_as_images, training.decoded, shape, title="Centers, decoded")
    alt = f"The images that the decoder makes of {len(training.decoded)} centers."
    shown.append(figure(draw, alt, name="decoded", width=8, tight=True))
    return (
        "Rows on their way through the code, under the number of their cluster; and what the centers stand for.",
        shown,
    )


def _of_each(labels: np.ndarray) -> np.ndarray:
    """Up to 16 positions, from each cluster in turn."""
    turn = np.zeros(len(labels), int)
    for name in np.unique(labels):
        turn[labels == name] = np.arange(np.sum(labels == name))
    first = np.lexsort((labels, turn))[:PAIRS]
    return first[np.argsort(labels[first], kind="stable")]


def _samples(run: ReportContext, training: Training) -> tuple[str, list[str]]:
    shape = run.dataset.image_shape
    if training.samples is None or shape is None:
        return "", []
    alt = (
        f"{np.shape(training.samples)[1]} images drawn from each of {len(training.samples)} clusters, a line a cluster."
    )
    draw = partial(plots.samples, training.samples, shape)
    note = "New rows that the model makes up, a line a cluster: codes drawn from it, and decoded."
    return note, [figure(draw, alt, name="samples", width=6.4, height=6.4, tight=True)]


def _nearest(run: ReportContext, training: Training) -> tuple[str, list[str]]:
    shape = run.dataset.image_shape
    if training.nearest is None or shape is None:
        return "", []
    rows, names, what = np.stack(list(training.nearest.values())), list(training.nearest), training.nearest_to
    alt = f"{rows.shape[1]} images for each of {len(rows)} lines, those nearest first: {', '.join(names)}."
    draw = partial(plots.samples, rows, shape, names=names, title=f"Nearest to each {what}")
    note = f"The rows that are nearest to each {what}: a line each, the nearest first."
    return note, [figure(draw, alt, name="nearest", width=6.4, height=6.4, tight=True)]

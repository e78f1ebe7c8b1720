"""Training of a network: learning curves, and embeddings at several epochs.

>>> from matplotlib import use
>>> use("Agg")
>>> records = [{"phase": "train", "epoch": epoch, "loss": 1 / epoch} for epoch in (1, 2, 3)]
>>> training_curves(records).get_title(loc="left")
'Loss by epoch'
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.plots.maps import number_clusters, plane, scatter_points
from jaxcluster.plots.style import (
    GRID,
    INK,
    MUTED,
    annotate,
    color_of,
    escape_text,
    format_number,
    halo,
    is_noise,
    new_axes,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PHASES = {"pretrain": "pretraining", "cluster": "clustering", "train": "training"}
"""Titles of the phases of `jaxcluster`'s own estimators; others keep their names."""

LOG_SCALE_RATIO = 20
"""Ratio of the largest to the smallest positive value above which a curve has a logarithmic scale."""

MAX_ACROSS = 3
"""Embeddings per line."""


def training_curves(
    records: Sequence[Mapping[str, Any]], ax: Axes | None = None, *, name: str = "loss", title: str = ""
) -> Axes:
    """Learning curve of a recorded value, with one panel per phase, as each phase has its own loss.

    Args:
        records: ``epoch_history_`` of an estimator: one mapping per epoch with ``phase``, ``epoch`` and numbers.
        name: of the value; phases without it get no panel, and values that are not finite are left out.
        title: of the plot, instead of the name.

    Raises:
        ValueError: no phase has a finite value of this name.
    """
    phases: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        value = record.get(name)
        if value is not None and math.isfinite(value):
            phases.setdefault(record["phase"], []).append((record["epoch"], float(value)))
    if not phases:
        raise ValueError(f"records hold no finite {name!r}: there is no epoch to draw.")
    ax = new_axes(ax, 8.0, 3.6)
    title_only(ax, title or f"{name[:1].upper()}{name[1:]} by epoch")
    width = (1 - 0.16 * (len(phases) - 1)) / len(phases)
    for i, (phase, curve) in enumerate(phases.items()):
        panel = ax.inset_axes((i * (width + 0.16), 0, width, 0.94))
        epochs, values = np.array(curve).T
        _curve(panel, epochs, values, color_of(i))
        style_axes(panel, "", f"epoch of {PHASES.get(phase, phase)}", name if i == 0 else "")
    return ax


def _curve(panel: Axes, epochs: np.ndarray, values: np.ndarray, color: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    panel.plot(epochs, values, color=color, linewidth=2, marker="o" if len(values) <= 60 else None, markersize=3.5)
    positive = values[values > 0]
    if positive.size and values.min() >= 0 and values.max() > LOG_SCALE_RATIO * positive.min():
        # Zeros have no logarithm: symlog is linear up to the smallest positive value.
        scale = {"value": "log"} if values.min() > 0 else {"value": "symlog", "linthresh": positive.min()}
        panel.set_yscale(**scale)
        panel.yaxis.set_minor_formatter(NullFormatter())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=6))
    panel.margins(y=0.14)
    annotate(panel, format_number(values[-1]), (epochs[-1], values[-1]), (0, 8), ha="right", path_effects=halo())


def embedding_through_training(moments: Mapping[str, Any], labels: Any, ax: Axes | None = None) -> Axes:
    """Embeddings of the same samples at several moments, as small maps colored by label.

    Embeddings of two dimensions are drawn unchanged. Others are projected to the principal plane of the last moment,
    so that a direction means the same in every map; each map has its own scale.

    Args:
        moments: names of the moments to (n_samples, n_latent) embeddings, in order of time.
        labels: (n_samples,) integers, -1 for noise.

    Raises:
        ValueError: no moments, or embeddings and labels that do not fit.
    """
    labels, codes = np.asarray(labels), {name: np.asarray(each) for name, each in moments.items()}
    shapes = {each.shape for each in codes.values()}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 2 or labels.shape != shape[:1]:
        shapes_text = ", ".join(f"{name} {each.shape}" for name, each in codes.items()) or "no moments"
        raise ValueError(f"{shapes_text} and labels {labels.shape} do not fit: (m, latent) each and (m,) are needed.")
    across = min(MAX_ACROSS, len(codes))
    down = -(-len(codes) // across)
    ax = new_axes(ax, 2.8 * across, 2.7 * down)
    title_only(ax, "Codes through the training")
    width, height = 1 / across, 1 / down
    last = list(codes.values())[-1]
    basis = plane(last).basis
    for i, (name, each) in enumerate(codes.items()):
        at = (i % across * width, 1 - (i // across + 1) * height, 0.96 * width, 0.88 * height)
        panel = ax.inset_axes(at)
        _draw_embedding(panel, each @ basis, labels, name, numbered=i == len(codes) - 1)
    return ax


def _draw_embedding(panel: Axes, points: np.ndarray, labels: np.ndarray, name: str, *, numbered: bool) -> None:
    # One dimension: vertical jitter, so that equal codes do not hide each other.
    if not points[:, 1].any():
        points = np.column_stack([points[:, 0], np.random.default_rng(0).uniform(-1, 1, len(points))])
    scatter_points(panel, points, labels)
    if numbered and not is_noise(labels).all():
        number_clusters(panel, points, labels)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_color(GRID)
    panel.set_title(escape_text(name), loc="left", fontsize=9.5, color=MUTED, pad=3)


def title_only(ax: Axes, title: str) -> None:
    """Hide everything of ``ax`` but its title, for inset panels."""
    ax.set_axis_off()
    ax.set_title(escape_text(title), loc="left", fontsize=12, fontweight="bold", color=INK, pad=10)

"""How a network was trained: its losses, and how the codes of rows moved meanwhile."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.plots.maps import names, plane, scatter
from jaxcluster.plots.style import GRID, INK, MUTED, color_of, compact, finish, halo, is_noise, new_axes, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PHASES = {"pretrain": "pretraining", "cluster": "clustering", "train": "training"}
"""Phases of `jaxcluster`'s own estimators in words; others are called what they are called."""

WIDE = 20
"""A curve whose greatest value is so many times its least is drawn on a log scale."""

BESIDE = 3
"""Most pictures of moments side by side."""


def training_curves(
    records: Sequence[Mapping[str, Any]], ax: Axes | None = None, *, name: str = "loss", title: str = ""
) -> Axes:
    """What was followed in a training, epoch by epoch: a panel a phase, since each has a loss of its own.

    Args:
        records: ``records_`` of an estimator: ``phase``, ``epoch`` and numbers, a mapping an epoch.
        name: which of the numbers; phases without it get no panel. What is not finite is left out.
        title: of the picture, instead of the name.

    Raises:
        ValueError: no phase has a finite number of this name.
    """
    phases: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        value = record.get(name)
        if value is not None and math.isfinite(value):
            phases.setdefault(record["phase"], []).append((record["epoch"], float(value)))
    if not phases:
        raise ValueError(f"records hold no finite {name!r}: there is no epoch to draw.")
    ax = new_axes(ax, 8.0, 3.6)
    frame(ax, title or f"{name[:1].upper()}{name[1:]} by epoch")
    width = (1 - 0.16 * (len(phases) - 1)) / len(phases)
    for i, (phase, curve) in enumerate(phases.items()):
        panel = ax.inset_axes((i * (width + 0.16), 0, width, 0.94))
        _curve(panel, *np.array(curve).T, color_of(i))
        finish(panel, "", f"epoch of {PHASES.get(phase, phase)}", name if i == 0 else "")
    return ax


def _curve(panel: Axes, epochs: np.ndarray, values: np.ndarray, color: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    panel.plot(epochs, values, color=color, linewidth=2, marker="o" if len(values) <= 60 else None, markersize=3.5)
    positive = values[values > 0]
    if positive.size and values.min() >= 0 and values.max() > WIDE * positive.min():
        scale = {"value": "log"} if values.min() > 0 else {"value": "symlog", "linthresh": positive.min()}
        panel.set_yscale(**scale)
        panel.yaxis.set_minor_formatter(NullFormatter())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=6))
    panel.margins(y=0.14)
    last = {
        "textcoords": "offset points",
        "ha": "right",
        "color": INK,
        "fontsize": 9.5,
        "fontweight": "bold",
        "path_effects": halo(),
    }
    panel.annotate(compact(values[-1]), (epochs[-1], values[-1]), (0, 8), **last)


def embedding_through_training(moments: Mapping[str, Any], labels: Any, ax: Axes | None = None) -> Axes:
    """Codes of the same rows at several moments, small maps beside each other, colored by label.

    Codes of two columns are drawn as they are. Wider ones go to the principal plane of the last moment, the same for
    all, so that a direction means the same in each; every map has a scale of its own.

    Args:
        moments: (m, latent) codes by what the moment is called, in order of time.
        labels: (m,) integers, -1 for noise.

    Raises:
        ValueError: no moments, or codes and labels that do not fit.
    """
    labels, codes = np.asarray(labels), {name: np.asarray(each) for name, each in moments.items()}
    shapes = {each.shape for each in codes.values()}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 2 or labels.shape != shape[:1]:
        told = ", ".join(f"{name} {each.shape}" for name, each in codes.items()) or "no moments"
        raise ValueError(f"{told} and labels {labels.shape} do not fit: (m, latent) each and (m,) are needed.")
    across = min(BESIDE, len(codes))
    down = -(-len(codes) // across)
    ax = new_axes(ax, 2.8 * across, 2.7 * down)
    frame(ax, "Codes through the training")
    width, height = 1 / across, 1 / down
    last = list(codes.values())[-1]
    basis = plane(last).basis
    for i, (name, each) in enumerate(codes.items()):
        at = (i % across * width, 1 - (i // across + 1) * height, 0.96 * width, 0.88 * height)
        panel = ax.inset_axes(at)
        _moment(panel, each @ basis, labels, name, numbered=i == len(codes) - 1)
    return ax


def _moment(panel: Axes, points: np.ndarray, labels: np.ndarray, name: str, *, numbered: bool) -> None:
    if not points[:, 1].any():  # codes of one column, spread out sideways so that equal ones do not hide each other
        points = np.column_stack([points[:, 0], np.random.default_rng(0).uniform(-1, 1, len(points))])
    scatter(panel, points, labels)
    if numbered and not is_noise(labels).all():
        names(panel, points, labels)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_color(GRID)
    panel.set_title(plain(name), loc="left", fontsize=9.5, color=MUTED, pad=3)


def frame(ax: Axes, title: str) -> None:
    """Makes ``ax`` an empty frame with a title, for panels inside."""
    ax.set_axis_off()
    ax.set_title(plain(title), loc="left", fontsize=12, fontweight="bold", color=INK, pad=10)

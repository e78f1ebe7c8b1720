"""Curves: scores over the number of clusters, objectives, Laplacian eigenvalues, and the training of a network.

>>> from matplotlib import use
>>> use("Agg")
>>> elbow([1, 2, 3], [9.0, 2.0, 1.0]).texts[0].get_text()
'elbow at k = 2'
>>> records = [{"phase": "train", "epoch": epoch, "loss": 1 / epoch} for epoch in (1, 2, 3)]
>>> training_curves(records).get_title(loc="left")
'Loss by epoch'
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster import model_selection
from jaxcluster.metrics.contingency import narrow_labels
from jaxcluster.plots.maps import number_clusters, plane, scatter_points
from jaxcluster.plots.style import (
    GRID,
    INK,
    MUTED,
    PALETTE,
    PAPER,
    annotate,
    color_of,
    escape_text,
    format_number,
    halo,
    is_noise,
    new_axes,
    style_axes,
)
from jaxcluster.types import Fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def elbow(ks: Any, inertias: Any, ax: Axes | None = None, *, name: str = "inertia") -> Axes:
    """Inertia by number of clusters, its elbow marked: the point farthest below the chord (Satopää et al., 2011).

    Args:
        ks: (m,) numbers of clusters.
        inertias: (m,), or (m, n_seeds): the line joins the least of each k, and all are dots.
        name: of the objective.

    Raises:
        ValueError: ks and inertias that do not fit.
    """
    ks, inertias = _curve(ks, inertias)
    best = np.nanmin(inertias, axis=1)
    ax = new_axes(ax)
    _line(ax, ks, best, inertias)
    knee = model_selection.elbow(ks, best)
    if knee is not None:
        _callout(ax, float(knee), float(best[ks == knee][0]), f"elbow at k = {knee}")
    return style_axes(ax, f"{_title(name)} by number of clusters", "clusters k", name, integer=True)


def sweep(ks: Any, scores: Any, *, name: str = "score", best: str = "max", ax: Axes | None = None) -> Axes:
    """A score by number of clusters, its best k marked.

    Args:
        ks: (m,) numbers of clusters.
        scores: (m,) or (m, n_seeds), as for `elbow`.
        name: of the score.
        best: "max" or "min".

    Raises:
        ValueError: ks and scores that do not fit, or another ``best``.
    """
    if best not in ("max", "min"):
        raise ValueError(f"best={best!r} is not known; choose 'max' or 'min'.")
    ks, scores = _curve(ks, scores)
    curve = (np.nanmax if best == "max" else np.nanmin)(scores, axis=1)
    at = int((np.argmax if best == "max" else np.argmin)(curve))
    ax = new_axes(ax)
    _line(ax, ks, curve, scores)
    _callout(ax, float(ks[at]), float(curve[at]), f"best at k = {ks[at]:g}")
    return style_axes(ax, f"{_title(name)} by number of clusters", "clusters k", name, integer=True)


def information_criteria(ks: Any, values: Any, *, name: str = "BIC", ax: Axes | None = None) -> Axes:
    """An information criterion by number of components, the minimum marked.

    Args:
        ks: (m,) numbers of components.
        values: (m,) or (m, n_seeds) as for `elbow`, or a mapping of covariance types to such values: a line each.
            Values that are not finite, as of a degenerate mixture, are left out.
        name: of the criterion.

    Raises:
        ValueError: ks and values that do not fit, or no finite value.
    """
    named = isinstance(values, Mapping)
    lines = {label: _curve(ks, each) for label, each in (values if named else {"": values}).items()}
    least = {label: np.where(np.isfinite(each), each, np.inf).min(axis=1) for label, (_, each) in lines.items()}
    best = min(least, key=lambda label: least[label].min(), default=None)
    if best is None or not np.isfinite(least[best]).any():
        raise ValueError("values holds no finite number: there is no line to draw.")
    k, lowest = lines[best][0][least[best].argmin()], least[best].min()
    ax, colors = new_axes(ax), {label: color_of(i) for i, label in enumerate(lines)}
    for label, (at, each) in lines.items():
        curve = np.where(np.isfinite(least[label]), least[label], np.nan)
        _line(ax, at, curve, each, color=colors[label], dots=colors[label] if named else MUTED, label=label)
    # Room for the callout above the lines.
    ax.margins(y=0.12)
    _callout(ax, float(k), float(lowest), f"least at k = {k:g}" + (f", {best}" if named else ""), colors[best])
    style_axes(
        ax, f"{_title(name)} by number of components", "components k", name, integer=True, pad=30 if named else 10
    )
    if named:
        # The legend stands between the title and the axes, where it hides no line.
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.3}
        ax.legend(ncols=len(lines), frameon=False, fontsize=9.5, labelcolor=INK, handlelength=1.4, **place)
    return ax


def history(history: Any, ax: Axes | None = None, *, name: str = "inertia") -> Axes:
    """The objective after each iteration.

    Args:
        history: ``history_`` of an estimator, or a `jaxcluster.types.Fit`; of an array pass
            ``fit.history[: fit.steps]``, as zeros follow. Values that are not finite are left out.
        name: of the objective.

    Raises:
        ValueError: no finite value.
    """
    values = finite_history(history)
    if values.size == 0:
        raise ValueError("history holds no finite value: there is no step to draw.")
    ax = new_axes(ax)
    steps = np.arange(1, len(values) + 1)
    # More than 60 markers would merge into a band.
    marker = "o" if len(values) <= 60 else None
    ax.plot(steps, values, color=PALETTE[0], linewidth=2, marker=marker, markersize=4)
    annotate(ax, format_number(values[-1]), (steps[-1], values[-1]), (0, 9), ha="right")
    plural = "" if len(values) == 1 else "s"
    return style_axes(ax, f"{_title(name)} over {len(values)} step{plural}", "step", name, integer=True)


def finite_history(history: Any) -> np.ndarray:
    """The finite values of a history; that of a `Fit` up to its last iteration."""
    if isinstance(history, Fit):
        history = np.asarray(history.history)[: int(history.steps)]
    values = np.asarray(history, float).ravel()
    return values[np.isfinite(values)]


def _curve(ks: Any, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Check and sort a curve.

    Returns:
        (m,) ks, ascending, and (m, n_seeds) values.
    """
    ks, values = np.asarray(ks), np.asarray(values, float)
    if ks.ndim != 1 or values.ndim not in (1, 2) or len(values) != len(ks) or not values.size:
        raise ValueError(f"ks {ks.shape} and values {values.shape} do not fit: (m,) and (m,) or (m, seeds) are needed.")
    order = np.argsort(ks)
    return ks[order], values.reshape(len(ks), -1)[order]


def _line(
    ax: Axes,
    ks: np.ndarray,
    best: np.ndarray,
    every: np.ndarray,
    *,
    color: str = PALETTE[0],
    dots: str = MUTED,
    label: str = "",
) -> None:
    if every.shape[1] > 1:
        ax.scatter(np.repeat(ks, every.shape[1]), every, s=14, color=dots, alpha=0.45, linewidths=0)
    ax.plot(ks, best, color=color, linewidth=2, marker="o", markersize=5, label=label)


def _callout(ax: Axes, k: float, value: float, text: str, color: str = PALETTE[1]) -> None:
    """Mark one point, with its text on the side that has more room."""
    leftwards = k > np.mean(ax.get_xlim())
    ax.axvline(k, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    style = {"marker": "o", "markersize": 10, "markeredgecolor": PAPER, "markeredgewidth": 1.6}
    ax.plot([k], [value], color=color, zorder=4, **style)
    side = {"ha": "right" if leftwards else "left", "va": "top", "xycoords": ax.get_xaxis_transform()}
    annotate(ax, text, (k, 1), (-10 if leftwards else 10, -4), **side)


def _title(name: str) -> str:
    return name[:1].upper() + name[1:]


def eigengap(eigenvalues: Any, *, k: int | None = None, ax: Axes | None = None) -> Axes:
    """The smallest eigenvalues of a graph Laplacian and their widest gap: k eigenvalues below it suggest k clusters.

    Args:
        eigenvalues: (m,) in any order, at least one.
        k: the chosen number of clusters, marked if the gap after it is among these eigenvalues.

    Raises:
        ValueError: no eigenvalue, or one that is not finite.

    Source: U. von Luxburg, A tutorial on spectral clustering, Statistics and Computing, 2007.
    """
    values = np.sort(np.asarray(eigenvalues, float).ravel())
    if not values.size or not np.isfinite(values).all():
        raise ValueError(
            f"eigenvalues must be finite, at least one of them: got {values.size} of which "
            f"{int(np.isfinite(values).sum())} are."
        )
    ax = new_axes(ax)
    at = np.arange(1, len(values) + 1)
    gaps = np.diff(values)
    widest = int(np.argmax(gaps)) + 1 if gaps.size else None
    # One mark if both are equal: a later key replaces the color, so that the gap wins.
    for number, color in {k: MUTED, widest: PALETTE[1]}.items():
        if number is not None and number < len(values):
            ax.axhspan(values[number - 1], values[number], color=color, alpha=0.16, linewidth=0, zorder=0)
    before = at <= (k or widest or len(values))
    ax.plot(at, values, color=MUTED, linewidth=1, zorder=1)
    style = {"s": 42, "edgecolors": PAPER, "linewidths": 1, "zorder": 3}
    ax.scatter(at[before], values[before], color=PALETTE[0], **style)
    ax.scatter(at[~before], values[~before], color=MUTED, **style)
    ax.margins(y=0.12)
    style_axes(ax, f"Least {len(values)} eigenvalues of the Laplacian", "number", "eigenvalue", integer=True)
    if widest is not None:
        _label_gap(ax, values, widest, k)
    return ax


def _label_gap(ax: Axes, values: np.ndarray, widest: int, k: int | None) -> None:
    """Write the position of the widest gap beside it, on the side that has more room and is clear of the curve."""
    text = f"widest gap after {widest}" + ("" if k in (None, widest) else f"; {k} chosen")
    middle = (values[widest - 1] + values[widest]) / 2
    leftwards = widest + 0.5 > (1 + len(values)) / 2
    side = {"ha": "right" if leftwards else "left", "va": "center"}
    annotate(ax, text, (widest + 0.5, middle), (-14 if leftwards else 14, 0), **side)


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
        _learning_curve(panel, epochs, values, color_of(i))
        style_axes(panel, "", f"epoch of {PHASES.get(phase, phase)}", name if i == 0 else "")
    return ax


def _learning_curve(panel: Axes, epochs: np.ndarray, values: np.ndarray, color: str) -> None:
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
    labels, codes = narrow_labels(labels), {name: np.asarray(each) for name, each in moments.items()}
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

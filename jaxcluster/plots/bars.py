"""Bars: silhouettes and sizes of clusters, and reconstruction errors of columns.

>>> from matplotlib import use
>>> use("Agg")
>>> [int(bar.get_height()) for bar in cluster_sizes([0, 0, 1, -1]).patches]
[2, 1, 1]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.metrics.contingency import narrow_labels
from jaxcluster.plots.maps import check_columns
from jaxcluster.plots.style import (
    INK,
    MAX_NUMBERED,
    MUTED,
    PALETTE,
    annotate,
    check_labeled,
    colors_of,
    escape_text,
    halo,
    is_noise,
    new_axes,
    sample_indices,
    style_axes,
    subset_note,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_SILHOUETTE_ROWS = 10_000
"""Samples of a silhouette plot: its cost is quadratic, and more bars cannot be seen."""

MAX_SILHOUETTE_STEPS = 2_000
"""Steps of all outlines of a silhouette plot together."""

MAX_COLUMNS = 24
"""Columns of a plot of reconstruction errors."""

DASHED = (0, (4, 3))

MAX_BAR_CHARACTERS, MAX_TICK_CHARACTERS = 75, 45
"""Characters that fit side by side over the bars, and, with space between labels, under them."""


def silhouette_values(x: np.ndarray, labels: np.ndarray, *, metric: str = "euclidean", p: float = 2) -> np.ndarray:
    """(n_samples,) silhouettes of samples in clusters, none of them noise."""
    from jaxcluster.metrics import silhouette_samples

    return np.asarray(silhouette_samples(x, labels, metric=metric, p=p))


def silhouette(
    x: Any, labels: Any, *, metric: str = "euclidean", p: float = 2, values: Any = None, ax: Axes | None = None
) -> Axes:
    """Silhouette of each sample (Rousseeuw, 1987), sorted within its cluster, and the mean.

    Noise is left out. At most 10,000 samples are drawn at random, and the title says so.

    Args:
        x: (n_samples, n_features).
        labels: (n_samples,) clusters.
        metric, p: as for `jaxcluster.metrics.silhouette_samples`, except "precomputed".
        values: (n_samples,) silhouettes where they are known already, NaN for samples that are not drawn.

    Raises:
        ValueError: fewer than 2 clusters, or as many as samples.
    """
    x, labels = check_labeled(x, labels)
    rows = np.flatnonzero(~is_noise(labels))
    if values is None:
        kept = rows[sample_indices(len(rows), MAX_SILHOUETTE_ROWS)]
    else:
        kept = rows[np.isfinite(np.asarray(values)[rows])]
    names, cluster = np.unique(labels[kept], return_inverse=True)
    if not 2 <= len(names) < len(kept):
        raise ValueError(f"{len(names)} clusters of {len(kept)} rows have no silhouette: 2 to n - 1 are needed.")
    known = None if values is None else np.asarray(values)[kept]
    values = silhouette_values(x[kept], labels[kept], metric=metric, p=p) if known is None else known
    ax = new_axes(ax, 6.4, 5.2)
    colors, gap, top, middles = colors_of(names), max(1, len(kept) // 80), 0, []
    for j, name in enumerate(names.tolist()):
        bars = np.sort(values[cluster == j])[::-1]
        # One polygon per cluster instead of a bar per sample: thousands of artists are slow to draw. Of many samples
        # some are left out, evenly: more steps than pixels cannot be seen.
        steps = max(2, MAX_SILHOUETTE_STEPS * len(bars) // len(kept))
        shown = np.unique(np.linspace(0, len(bars) - 1, min(len(bars), steps)).round().astype(int))
        edges = top + np.append(shown, len(bars))
        ax.fill_betweenx(edges, 0, np.append(bars[shown], bars[-1]), step="post", color=colors[name], linewidth=0)
        middles.append(top + len(bars) / 2)
        top += len(bars) + gap
    mean = float(values.mean())
    ax.axvline(mean, color=INK, linewidth=1.2, linestyle=DASHED)
    annotate(ax, f"mean {mean:.3f}", (mean, 0), (5, 5), xycoords=ax.get_xaxis_transform(), path_effects=halo())
    style_axes(ax, "Silhouette of each row" + subset_note(len(kept), len(rows)), "silhouette", "cluster")
    ax.set_ylim(top, -gap)
    numbered = len(names) <= MAX_NUMBERED
    ax.set_yticks(middles if numbered else [], list(map(escape_text, names.tolist())) if numbered else [])
    ax.grid(False, axis="y")
    return ax


def cluster_sizes(labels: Any, ax: Axes | None = None) -> Axes:
    """Number of samples of each cluster, noise last and gray; the dashed line is the mean cluster size."""
    labels = narrow_labels(labels)
    names, counts = np.unique(labels, return_counts=True)
    order = np.argsort(is_noise(names), kind="stable")
    names, counts = names[order], counts[order]
    clusters = int(np.sum(~is_noise(names)))
    ax = new_axes(ax)
    at, colors = np.arange(len(names)), colors_of(labels)
    bars = ax.bar(at, counts, width=0.78, color=[colors[name] for name in names.tolist()])
    if len(names) * len(f"{counts.max():,}") <= MAX_BAR_CHARACTERS:
        ax.bar_label(bars, [f"{count:,}" for count in counts], padding=2, fontsize=9, color=MUTED, path_effects=halo())
    if clusters > 1:
        ax.axhline(counts[:clusters].mean(), color=MUTED, linewidth=1, linestyle=DASHED, zorder=0)
    noun = "cluster" if clusters == 1 else "clusters"
    style_axes(ax, f"Rows in {clusters:,} {noun}" if clusters else "All rows are noise", "cluster", "rows")
    # Ticks are thinned so that their labels do not overlap.
    every = -(-len(names) * len(str(len(names))) // MAX_TICK_CHARACTERS)
    ticks = [
        "noise" if noise else escape_text(name) for name, noise in zip(names.tolist(), is_noise(names), strict=True)
    ]
    ax.set_xticks(at[::every], ticks[::every])
    ax.grid(False, axis="x")
    return ax


def reconstruction_errors(
    x: Any, reconstruction: Any, ax: Axes | None = None, *, columns: Sequence[str] | None = None
) -> Axes:
    """Mean squared reconstruction error of each column as a fraction of its variance, the 24 worst from the top.

    0 is a perfect reconstruction, 1 that of a constant mean. Constant columns are left out.

    Args:
        x: (n_samples, n_features).
        reconstruction: (n_samples, n_features), the output of the decoder.
        columns: n_features names, instead of numbers.

    Raises:
        ValueError: arrays that do not fit, or constant columns only.
    """
    x, reconstruction = np.asarray(x, float), np.asarray(reconstruction, float)
    if x.ndim != 2 or x.shape != reconstruction.shape:
        raise ValueError(f"rows {x.shape} and {reconstruction.shape} do not fit: (n, d) both are needed.")
    check_columns(columns, x.shape[1])
    variance = x.var(axis=0)
    varying = np.flatnonzero(variance > 0)
    if not varying.size:
        raise ValueError("no column of x varies: there is no error to compare.")
    errors = np.mean(np.square(x - reconstruction), axis=0)[varying] / variance[varying]
    # Stable: equal errors keep the order of the columns.
    worst = np.argsort(-errors, kind="stable")[:MAX_COLUMNS]
    names = [f"column {j}" if columns is None else escape_text(columns[j]) for j in varying[worst]]
    ax = new_axes(ax, 6.4, 1.2 + 0.24 * len(worst))
    bars = ax.barh(np.arange(len(worst)), errors[worst], color=PALETTE[0], height=0.7)
    ax.bar_label(bars, fmt="{:.1%}", padding=4, color=MUTED, fontsize=8.5)
    ax.set_yticks(np.arange(len(worst)), names)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    more = "" if len(worst) == x.shape[1] else f" ({len(worst)} of {x.shape[1]} columns)"
    style_axes(ax, f"Reconstruction error{more}", "fraction of the column's variance")
    ax.grid(False, axis="y")
    return ax

"""Cluster by cluster: how many rows, and how well they lie in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.plots.style import (
    INK,
    MUTED,
    NUMBERED,
    colors_of,
    finish,
    halo,
    is_noise,
    new_axes,
    of_rows,
    plain,
    rows_and_labels,
    sample,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SILHOUETTE_ROWS = 10_000

DASHED = (0, (4, 3))

OVER, UNDER = 75, 45
"""How many characters fit side by side over the bars and, with room between them, under."""


def silhouette(x: Any, labels: Any, *, metric: str = "euclidean", p: float = 2, ax: Axes | None = None) -> Axes:
    """Each row's silhouette (Rousseeuw, 1987), sorted within its cluster, and the mean of all.

    Noise is left out. Of more than 10,000 rows as many are drawn at random, and the title says so.

    Args:
        x: (n, d) rows.
        labels: (n,) clusters.
        metric, p: as `jaxcluster.metrics.silhouette_samples` takes them, "precomputed" excepted.

    Raises:
        ValueError: for fewer than 2 clusters, or as many as rows.
    """
    from jaxcluster.metrics import silhouette_samples

    x, labels = rows_and_labels(x, labels)
    rows = np.flatnonzero(~is_noise(labels))
    kept = rows[sample(len(rows), SILHOUETTE_ROWS)]
    names, cluster = np.unique(labels[kept], return_inverse=True)
    if not 2 <= len(names) < len(kept):
        raise ValueError(f"{len(names)} clusters of {len(kept)} rows have no silhouette: 2 to n - 1 are needed.")
    values = np.asarray(silhouette_samples(x[kept], labels[kept], metric=metric, p=p))
    ax = new_axes(ax, 6.4, 5.2)
    colors, gap, top, middles = colors_of(names), max(1, len(kept) // 80), 0, []
    for j, name in enumerate(names.tolist()):
        bars = np.sort(values[cluster == j])[::-1]
        edges = np.arange(top, top + len(bars) + 1)
        ax.fill_betweenx(edges, 0, np.append(bars, bars[-1]), step="post", color=colors[name], linewidth=0)
        middles.append(top + len(bars) / 2)
        top += len(bars) + gap
    mean = float(values.mean())
    ax.axvline(mean, color=INK, linewidth=1.2, linestyle=DASHED)
    ax.annotate(
        f"mean {mean:.3f}",
        (mean, 0),
        (5, 5),
        xycoords=ax.get_xaxis_transform(),
        textcoords="offset points",
        color=INK,
        fontsize=9.5,
        fontweight="bold",
        path_effects=halo(),
    )
    finish(ax, "Silhouette of each row" + of_rows(len(kept), len(rows)), "silhouette", "cluster")
    ax.set_ylim(top, -gap)
    numbered = len(names) <= NUMBERED
    ax.set_yticks(middles if numbered else [], list(map(plain, names.tolist())) if numbered else [])
    ax.grid(False, axis="y")
    return ax


def cluster_sizes(labels: Any, ax: Axes | None = None) -> Axes:
    """How many rows each cluster has, noise last and gray; the dashed line is an even split of the rest."""
    labels = np.asarray(labels)
    names, counts = np.unique(labels, return_counts=True)
    order = np.argsort(is_noise(names), kind="stable")
    names, counts = names[order], counts[order]
    clusters = int(np.sum(~is_noise(names)))
    ax = new_axes(ax)
    at, colors = np.arange(len(names)), colors_of(labels)
    bars = ax.bar(at, counts, width=0.78, color=[colors[name] for name in names.tolist()])
    if len(names) * len(f"{counts.max():,}") <= OVER:
        ax.bar_label(bars, [f"{count:,}" for count in counts], padding=2, fontsize=9, color=MUTED, path_effects=halo())
    if clusters > 1:
        ax.axhline(counts[:clusters].mean(), color=MUTED, linewidth=1, linestyle=DASHED, zorder=0)
    noun = "cluster" if clusters == 1 else "clusters"
    finish(ax, f"Rows in {clusters:,} {noun}" if clusters else "All rows are noise", "cluster", "rows")
    every = -(-len(names) * len(str(len(names))) // UNDER)
    ticks = ["noise" if noise else plain(name) for name, noise in zip(names.tolist(), is_noise(names), strict=True)]
    ax.set_xticks(at[::every], ticks[::every])
    ax.grid(False, axis="x")
    return ax

"""Clusters in the plane."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster.plots.style import (
    INK,
    MUTED,
    NOISE,
    NUMBERED,
    PAPER,
    color_of,
    colors_of,
    finish,
    halo,
    is_noise,
    new_axes,
    of_rows,
    on_top,
    plain,
    rows_and_labels,
    sample,
    wide,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = ("pca", "tsne")
PCA_ROWS, TSNE_ROWS = 20_000, 5_000


class Plane(NamedTuple):
    """Rows brought to the plane, to be drawn with any labels.

    Attributes:
        kept: (m,) positions of the rows that were brought there.
        points: (m, 2) where they are.
        centers: (k, 2), empty without centers.
        clusters: (k,) the cluster that each is the center of.
        basis: (d, 2) orthonormal directions that the axes are along, from which a covariance is projected; None where
            the way to the plane is not linear.
        title: what the picture is called.
        xlabel, ylabel: what the axes are; without a name an axis means nothing and gets no ticks.
    """

    kept: np.ndarray
    points: np.ndarray
    centers: np.ndarray
    clusters: np.ndarray
    basis: np.ndarray | None
    title: str
    xlabel: str = ""
    ylabel: str = ""


def clusters_2d(
    x: Any,
    labels: Any,
    *,
    centers: Any = None,
    method: str = "pca",
    ax: Axes | None = None,
    random_state: int = 0,
    columns: Sequence[str] | None = None,
) -> Axes:
    """The rows in the plane, colored by label; each cluster's number stands at its center, or else in its middle.

    Args:
        x: (n, d) rows.
        labels: (n,) integers, -1 for noise, or classes as text.
        centers, method, random_state, columns: as `plane` takes them.

    Raises:
        ValueError: where labels do not fit the rows, and as `plane` does.
    """
    x, labels = rows_and_labels(x, labels)
    return draw(plane(x, centers=centers, method=method, random_state=random_state, columns=columns), labels, ax)


def plane(
    x: Any,
    *,
    centers: Any = None,
    method: str = "pca",
    random_state: int = 0,
    columns: Sequence[str] | None = None,
) -> Plane:
    """Rows and centers brought to the plane, once for several pictures.

    One or two columns stay as they are; more go to their principal components, or by t-SNE, which embeds the centers
    as further rows. Of many rows 20,000 are taken at random, 5,000 for t-SNE. A missing cell (NaN) is drawn at the mean
    of its column.

    Args:
        x: (n, d) rows.
        centers: (k, d), row j the center of label j.
        method: "pca" or "tsne".
        random_state: seeds the choice of rows, PCA and t-SNE.
        columns: d names, for the axes of columns that stay as they are.

    Raises:
        ValueError: for another method, centers or names that do not fit, and t-SNE of fewer than 4 rows.
    """
    x = wide(x)
    if centers is not None and np.shape(centers)[1:] != x.shape[1:]:
        raise ValueError(f"centers {np.shape(centers)} do not fit the rows {x.shape}: they need as many columns.")
    check_columns(columns, x.shape[1])
    if method not in METHODS:
        raise ValueError(f"method={method!r} is not known; choose 'pca' or 'tsne'.")
    kept = sample(len(x), TSNE_ROWS if method == "tsne" else PCA_ROWS, random_state)
    n = len(kept)
    rows = filled(x[kept].astype(np.float64))
    if centers is not None:
        rows = np.concatenate([rows, np.asarray(centers, np.float64)])
    if method == "tsne":
        points, basis, title, *axes = _tsne(rows, n, random_state)
    elif x.shape[1] > 2 and n > 1:
        points, basis, title, *axes = _pca(rows, n, random_state)
    else:
        points, basis, title, *axes = _as_they_are(rows, n, columns, random_state)
    clusters = np.arange(len(points) - n)
    return Plane(kept, points[:n], points[n:], clusters, basis, title + of_rows(n, len(x)), *axes)


def check_columns(columns: Sequence[str] | None, d: int) -> None:
    """Raises ValueError unless there are d names, or none at all."""
    if columns is not None and len(columns) != d:
        raise ValueError(f"{len(columns)} column names do not fit rows of {d} columns.")


def filled(rows: np.ndarray) -> np.ndarray:
    """(n, d) rows with the mean of its column in each missing cell, 0 in a column without any value."""
    missing = np.isnan(rows)
    if not missing.any():
        return rows
    counts = np.maximum((~missing).sum(axis=0), 1)
    return np.where(missing, np.where(missing, 0, rows).sum(axis=0) / counts, rows)


def near_one(rows: np.ndarray, of: slice = slice(None)) -> tuple[np.ndarray, float]:
    """(n, d) rows about the mean of some of them, and over a power of two so that none is above 1; and that power.

    Products of rows far from 0 cancel, and squares of large ones overflow, in what other libraries make of them.
    """
    rows = rows - rows[of].mean(axis=0)
    size = 2.0 ** np.frexp(np.abs(rows).max(initial=0))[1]
    return rows / size, size


def draw(
    plane: Plane,
    labels: np.ndarray,
    ax: Axes | None = None,
    *,
    title: str | None = None,
    colors: Mapping[Any, str] | None = None,
) -> Axes:
    """The plane colored by (n,) labels of all rows; ``title`` and ``colors`` instead of their own."""
    ax = new_axes(ax, 6.4, 5.2)
    labels = np.asarray(labels)[plane.kept]
    scatter(ax, plane.points, labels, colors)
    if len(plane.centers):
        discs(ax, plane.centers, plane.clusters)
    else:
        names(ax, plane.points, labels)
    finish(ax, title or plane.title, plane.xlabel, plane.ylabel)
    ax.grid(False)
    for axis, side, label in ((ax.xaxis, "bottom", plane.xlabel), (ax.yaxis, "left", plane.ylabel)):
        if not label:
            axis.set_ticks([])
            ax.spines[side].set_visible(False)
    return ax


def _pca(rows: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, str, str, str]:
    from sklearn.decomposition import PCA

    rows, size = near_one(rows, slice(n))
    with np.errstate(invalid="ignore"):  # rows that are all the same have no variance to explain
        pca = PCA(2, random_state=seed).fit(rows[:n])
    shares = np.nan_to_num(pca.explained_variance_ratio_)
    names = [f"component {j} ({share:.1%} of the variance)" for j, share in enumerate(shares, 1)]
    return pca.transform(rows) * size, pca.components_.T, "Clusters on the principal plane", *names


def _tsne(rows: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, None, str, str, str]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if n < 4:
        raise ValueError(f"t-SNE needs at least 4 rows, got {n}. Draw them with method='pca'.")
    rows, _ = near_one(rows)
    if rows.shape[1] > 50:  # as van der Maaten and Hinton (2008) do: faster, and less noise in the distances
        rows = PCA(min(50, len(rows)), random_state=seed).fit_transform(rows)
    init = "pca" if rows.shape[1] > 1 and np.ptp(rows, axis=0).any() else "random"
    tsne = TSNE(init=init, perplexity=min(30, (n - 1) / 3), random_state=seed)
    # OpenMP's threads wait busily for each other: with one a core, whatever else runs slows them down manyfold
    with threadpool_limits(max(1, (os.cpu_count() or 1) // 2), user_api="openmp"):
        return tsne.fit_transform(rows), None, "Clusters by t-SNE", "", ""


def _as_they_are(
    rows: np.ndarray, n: int, columns: Sequence[str] | None, seed: int
) -> tuple[np.ndarray, np.ndarray, str, str, str]:
    basis = np.eye(rows.shape[1], 2)
    rows = rows[:, :2]
    names = [f"column {j}" for j in range(rows.shape[1])] if columns is None else list(columns[: rows.shape[1]])
    if rows.shape[1] == 1:  # spread out sideways, so that equal values do not hide each other; centers stay on the line
        spread = np.random.default_rng(seed).uniform(-1, 1, len(rows)) * (np.arange(len(rows)) < n)
        return np.column_stack([rows, spread]), basis, "Clusters", names[0], ""
    return rows, basis, "Clusters", *names


def scatter(ax: Axes, points: np.ndarray, labels: np.ndarray, colors: Mapping[Any, str] | None = None) -> None:
    """Noise below, the rest in random order, so that no cluster is painted over another as a whole.

    ``colors`` gives each label's instead of its own.
    """
    noise, colors, n = is_noise(labels), colors or colors_of(labels), len(points)
    style = {
        "s": float(np.clip(14_000 / n, 3, 34)),
        "alpha": 0.85 if n < 3000 else 0.6,
        "linewidths": 0,
        "rasterized": n > 500,
    }
    if noise.any():
        ax.scatter(*points[noise].T, color=NOISE, label=f"noise, {noise.mean():.1%} of rows", **style)
        legend = ax.legend(loc="best", frameon=False, fontsize=9, labelcolor=MUTED)
        legend.legend_handles[0].set_sizes([30])
    rest = np.random.default_rng(0).permutation(np.flatnonzero(~noise))
    if rest.size:
        ax.scatter(*points[rest].T, c=[colors[label] for label in labels[rest].tolist()], **style)


def discs(ax: Axes, centers: np.ndarray, clusters: np.ndarray) -> None:
    """A disc at each of (k, 2) centers, with the number of its cluster in it where there are few."""
    numbered = len(centers) <= NUMBERED
    colors = [color_of(j) for j in clusters.tolist()]
    ax.scatter(*centers.T, s=170 if numbered else 40, c=colors, edgecolors=PAPER, linewidths=1.6, zorder=4)
    for j, at, color in zip(clusters, centers, colors, strict=True) if numbered else ():
        style = {"ha": "center", "va": "center_baseline", "fontsize": 8.5, "fontweight": "bold", "zorder": 5}
        ax.annotate(str(j), at, color=on_top(color), **style)


def names(ax: Axes, points: np.ndarray, labels: np.ndarray) -> None:
    """Each cluster's name at its row nearest the median: a bent cluster's median may lie in another."""
    names = np.unique(labels[~is_noise(labels)]).tolist()
    for name in names if len(names) <= NUMBERED else ():
        own = points[labels == name]
        at = own[np.argmin(np.hypot(*(own - np.median(own, axis=0)).T))]
        style = {"ha": "center", "va": "center", "fontsize": 10, "fontweight": "bold", "zorder": 5}
        ax.annotate(plain(name), at, color=INK, path_effects=halo(), **style)

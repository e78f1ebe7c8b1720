"""Maps: samples in the plane with their clusters, medoids, or the edges of a neighbor graph.

>>> from matplotlib import use
>>> use("Agg")
>>> ax = clusters_2d(np.array([[0.0, 0.0], [0.0, 1.0], [5.0, 5.0]]), np.array([0, 0, 1]))
>>> ax.get_title(loc="left")
'Clusters'
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster.metrics.contingency import narrow_labels
from jaxcluster.plots.style import (
    INK,
    MAX_NUMBERED,
    MUTED,
    NOISE,
    PAPER,
    as_float,
    check_labeled,
    color_of,
    colors_of,
    contrast_color,
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

    from jaxcluster.types import Absent

METHODS = ("pca", "tsne")

MAX_PCA_ROWS, MAX_TSNE_ROWS, MAX_GRAPH_ROWS = 20_000, 5_000, 2_000
"""Number of samples drawn: beyond, points hide each other, t-SNE is slow, and edges hide the samples."""

MAX_SPOKES = 2_000
"""Number of samples beyond which lines to their medoids would hide everything."""

TSNE_FEATURES = 50
"""Features beyond which PCA precedes t-SNE (van der Maaten and Hinton, 2008): faster, and less noise in distances."""


class Plane(NamedTuple):
    """Samples projected to the plane, to be drawn with any labels.

    Attributes:
        kept: (m,) indices of the projected samples.
        points: (m, 2) their coordinates.
        centers: (k, 2), empty without centers.
        clusters: (k,) the cluster of each center.
        basis: (d, 2) orthonormal directions of the axes, to project a covariance; None for a nonlinear embedding.
        title: of the plot.
        xlabel, ylabel: of the axes; an axis without a label has no meaning and gets no ticks.
    """

    kept: np.ndarray
    points: np.ndarray
    centers: np.ndarray
    clusters: np.ndarray
    basis: np.ndarray | Absent
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
    """Samples in the plane, colored by label, with each cluster's number at its center or median.

    Args:
        x: (n_samples, n_features).
        labels: (n_samples,) integers, -1 for noise, or classes as text.
        centers, method, random_state, columns: as for `plane`.

    Raises:
        ValueError: labels that do not fit the samples, and as `plane`.
    """
    x, labels = check_labeled(x, labels)
    return draw_plane(plane(x, centers=centers, method=method, random_state=random_state, columns=columns), labels, ax)


def plane(
    x: Any,
    *,
    centers: Any = None,
    method: str = "pca",
    random_state: int = 0,
    columns: Sequence[str] | None = None,
) -> Plane:
    """Project samples and centers to the plane, once for several plots.

    One or two columns are drawn unchanged; more are projected to their principal components, or embedded by t-SNE, the
    centers as further samples. At most 20,000 samples are drawn at random, 5,000 for t-SNE. A missing value (NaN) is
    drawn at the mean of its column.

    Args:
        x: (n_samples, n_features).
        centers: (n_clusters, n_features), row j the center of label j.
        method: "pca" or "tsne".
        random_state: seeds the subset, PCA and t-SNE.
        columns: n_features names, for the axes of unchanged columns.

    Raises:
        ValueError: an unknown method, centers or names that do not fit, and t-SNE of fewer than 4 samples.
    """
    x = as_float(x)
    if centers is not None and np.shape(centers)[1:] != x.shape[1:]:
        raise ValueError(
            f"centers {np.shape(centers)} do not fit the rows {x.shape}: they need the same number of columns."
        )
    check_columns(columns, x.shape[1])
    if method not in METHODS:
        raise ValueError(f"method={method!r} is not known; choose 'pca' or 'tsne'.")
    kept = sample_indices(len(x), MAX_TSNE_ROWS if method == "tsne" else MAX_PCA_ROWS, random_state)
    n = len(kept)
    rows = impute_means(x[kept].astype(np.float64))
    if centers is not None:
        rows = np.concatenate([rows, np.asarray(centers, np.float64)])
    if method == "tsne":
        points, basis, title, *axes = _tsne(rows, n, random_state)
    elif x.shape[1] > 2 and n > 1:
        points, basis, title, *axes = _pca(rows, n, random_state)
    else:
        points, basis, title, *axes = _unchanged(rows, n, columns, random_state)
    clusters = np.arange(len(points) - n)
    return Plane(kept, points[:n], points[n:], clusters, basis, title + subset_note(n, len(x)), *axes)


def check_columns(columns: Sequence[str] | None, d: int) -> None:
    """Raise ValueError unless there are d names, or None."""
    if columns is not None and len(columns) != d:
        raise ValueError(f"{len(columns)} column names do not fit rows of {d} columns.")


def impute_means(rows: np.ndarray) -> np.ndarray:
    """(n, d) samples with NaN replaced by the mean of its column, or 0 in a column without any value."""
    missing = np.isnan(rows)
    if not missing.any():
        return rows
    # Not np.nanmean: it warns about columns without any value.
    counts = np.maximum((~missing).sum(axis=0), 1)
    return np.where(missing, np.where(missing, 0, rows).sum(axis=0) / counts, rows)


def center_and_scale(rows: np.ndarray, of: slice = slice(None)) -> tuple[np.ndarray, float]:
    """Subtract the mean of the samples in ``of``, and divide by a power of two so that no entry is above 1.

    scikit-learn multiplies samples as they are: products far from 0 cancel, and squares of large ones overflow.

    Returns:
        (n, d) centered and scaled samples, and the power of two.
    """
    rows = rows - rows[of].mean(axis=0)
    # Powers of two scale exactly.
    size = 2.0 ** np.frexp(np.abs(rows).max(initial=0))[1]
    return rows / size, size


def draw_plane(
    plane: Plane,
    labels: np.ndarray,
    ax: Axes | None = None,
    *,
    title: str | None = None,
    colors: Mapping[Any, str] | None = None,
) -> Axes:
    """Draw a `Plane`, colored by the (n,) labels of all samples; ``title`` and ``colors`` replace the defaults."""
    ax = new_axes(ax, 6.4, 5.2)
    labels = narrow_labels(labels)[plane.kept]
    scatter_points(ax, plane.points, labels, colors)
    if len(plane.centers):
        mark_centers(ax, plane.centers, plane.clusters)
    else:
        number_clusters(ax, plane.points, labels)
    style_axes(ax, title or plane.title, plane.xlabel, plane.ylabel)
    ax.grid(False)
    for axis, side, label in ((ax.xaxis, "bottom", plane.xlabel), (ax.yaxis, "left", plane.ylabel)):
        if not label:
            axis.set_ticks([])
            ax.spines[side].set_visible(False)
    return ax


def _pca(rows: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, str, str, str]:
    from sklearn.decomposition import PCA

    rows, size = center_and_scale(rows, slice(n))
    # Equal samples have no variance to explain: the ratio is 0/0.
    with np.errstate(invalid="ignore"):
        pca = PCA(2, random_state=seed).fit(rows[:n])
    ratios = np.nan_to_num(pca.explained_variance_ratio_)
    xlabel, ylabel = (f"component {j} ({ratio:.1%} of the variance)" for j, ratio in enumerate(ratios, 1))
    basis = np.asarray(pca.components_).T
    return pca.transform(rows) * size, basis, "Clusters on the principal plane", xlabel, ylabel


def _tsne(rows: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, None, str, str, str]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if n < 4:
        raise ValueError(f"t-SNE needs at least 4 rows, got {n}. Draw them with method='pca'.")
    rows, _ = center_and_scale(rows)
    if rows.shape[1] > TSNE_FEATURES:
        rows = PCA(min(TSNE_FEATURES, len(rows)), random_state=seed).fit_transform(rows)
    # scikit-learn divides the PCA start by its deviation, which is 0 for equal samples.
    init = "pca" if rows.shape[1] > 1 and np.ptp(rows, axis=0).any() else "random"
    # The perplexity must be below the number of samples; a third of it is the usual bound.
    tsne = TSNE(init=init, perplexity=min(30, (n - 1) / 3), random_state=seed)
    # OpenMP's threads spin while they wait for each other: with one per core, any other load slows all of them down.
    with threadpool_limits(max(1, (os.cpu_count() or 1) // 2), user_api="openmp"):
        return tsne.fit_transform(rows), None, "Clusters by t-SNE", "", ""


def _unchanged(
    rows: np.ndarray, n: int, columns: Sequence[str] | None, seed: int
) -> tuple[np.ndarray, np.ndarray, str, str, str]:
    basis = np.eye(rows.shape[1], 2)
    rows = rows[:, :2]
    names = [f"column {j}" for j in range(rows.shape[1])] if columns is None else list(columns[: rows.shape[1]])
    # Vertical jitter, so that equal values do not hide each other; centers stay on the line.
    if rows.shape[1] == 1:
        jitter = np.random.default_rng(seed).uniform(-1, 1, len(rows)) * (np.arange(len(rows)) < n)
        return np.column_stack([rows, jitter]), basis, "Clusters", names[0], ""
    return rows, basis, "Clusters", names[0], names[1]


def scatter_points(ax: Axes, points: np.ndarray, labels: np.ndarray, colors: Mapping[Any, str] | None = None) -> None:
    """Draw noise first, and the rest in random order, so that no cluster covers another as a whole.

    ``colors`` maps labels to colors instead of the default.
    """
    noise, colors, n = is_noise(labels), colors or colors_of(labels), len(points)
    style = {
        # Marker area in points²: the total area of all markers is about constant.
        "s": float(np.clip(14_000 / n, 3, 34)),
        "alpha": 0.85 if n < 3000 else 0.6,
        "linewidths": 0,
        # SVG and PDF with thousands of vector markers are slow to open.
        "rasterized": n > 500,
    }
    if noise.any():
        ax.scatter(*points[noise].T, color=NOISE, label=f"noise, {noise.mean():.1%} of rows", **style)
        legend = ax.legend(loc="best", frameon=False, fontsize=9, labelcolor=MUTED)
        legend.legend_handles[0].set(sizes=[30])  # pyright: ignore[reportOptionalMemberAccess]  # it is the noise
    rest = np.random.default_rng(0).permutation(np.flatnonzero(~noise))
    if rest.size:
        ax.scatter(*points[rest].T, c=[colors[label] for label in labels[rest].tolist()], **style)


def mark_centers(ax: Axes, centers: np.ndarray, clusters: np.ndarray) -> None:
    """Draw a disc at each of (k, 2) centers, with the number of its cluster if there are few."""
    numbered = len(centers) <= MAX_NUMBERED
    colors = [color_of(j) for j in clusters.tolist()]
    ax.scatter(*centers.T, s=170 if numbered else 40, c=colors, edgecolors=PAPER, linewidths=1.6, zorder=4)
    for j, at, color in zip(clusters, centers, colors, strict=True) if numbered else ():
        style = {"ha": "center", "va": "center_baseline", "fontsize": 8.5, "fontweight": "bold", "zorder": 5}
        ax.annotate(str(j), at, color=contrast_color(color), **style)


def number_clusters(ax: Axes, points: np.ndarray, labels: np.ndarray) -> None:
    """Write each cluster's label at the sample nearest its median: a bent cluster's median may lie in another."""
    names = np.unique(labels[~is_noise(labels)]).tolist()
    for name in names if len(names) <= MAX_NUMBERED else ():
        at = nearest_to_median(points[labels == name])
        style = {"ha": "center", "va": "center", "fontsize": 10, "fontweight": "bold", "zorder": 5}
        ax.annotate(escape_text(name), at, color=INK, path_effects=halo(), **style)


def nearest_to_median(points: np.ndarray) -> Any:
    """(2,) the point nearest to the median of (n, 2) points."""
    return points[np.argmin(np.hypot(*(points - np.median(points, axis=0)).T))]


def medoids(
    x: Any,
    labels: Any,
    indices: Any,
    *,
    columns: Sequence[str] | None = None,
    random_state: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Samples in the plane, a disc at each medoid, and a line from each sample to the medoid of its cluster.

    Args:
        x: (n_samples, n_features); more than two features are projected to the principal plane.
        labels: (n_samples,) clusters.
        indices: (n_clusters,) index of the medoid of each cluster.
        columns, random_state: as for `jaxcluster.plots.maps.plane`.

    Raises:
        ValueError: samples, labels and medoids that do not fit.
    """
    from matplotlib.collections import LineCollection

    x, labels = check_labeled(x, labels)
    x, indices = impute_means(x), np.asarray(indices)
    if indices.ndim != 1 or indices.dtype.kind not in "iu" or not ((indices >= 0) & (indices < len(x))).all():
        raise ValueError(
            f"indices {indices.tolist()} must be row numbers from 0 to {len(x) - 1}, one for each cluster."
        )
    if labels.max(initial=-1) >= len(indices):
        raise ValueError(f"label {labels.max()} has no medoid: {len(indices)} medoids were passed, for labels from 0.")
    at = plane(x, centers=x[indices], random_state=random_state, columns=columns)
    ax = new_axes(ax, 6.4, 5.2)
    drawn = labels[at.kept]
    clustered = np.flatnonzero(~is_noise(drawn))
    if len(clustered) <= MAX_SPOKES:
        ends = np.stack([at.points[clustered], at.centers[drawn[clustered]]], axis=1)
        colors = [color_of(label) for label in drawn[clustered].tolist()]
        ax.add_collection(LineCollection(list(ends), colors=colors, linewidths=0.7, alpha=0.35, zorder=0.9))
    return draw_plane(at, labels, ax, title=at.title.replace("Clusters", "Medoids and their rows", 1))


def neighbor_graph(
    x: Any,
    labels: Any,
    graph: Any = 10,
    *,
    columns: Sequence[str] | None = None,
    random_state: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Samples in the plane (the principal one of more than two features), and the edges of a graph between them.

    Edges between clusters, which a cut removes, are dark. At most 2,000 samples are drawn at random, with the edges
    among them.

    Args:
        x: (n_samples, n_features).
        labels: (n_samples,) clusters, -1 for noise.
        graph: number of nearest neighbors per sample, itself excluded; or an (n_samples, n_samples) matrix, dense or
            SciPy sparse, whose non-zero entries are edges, in either direction.
        columns, random_state: as for `jaxcluster.plots.maps.plane`.

    Raises:
        ValueError: samples, labels and graph that do not fit.
    """
    from matplotlib.collections import LineCollection

    x, labels = check_labeled(x, labels)
    n = len(x)
    kept = sample_indices(n, MAX_GRAPH_ROWS, random_state)
    ends = _edges(x, graph, kept)
    at = plane(x[kept], random_state=random_state, columns=columns)
    labels = labels[kept]
    between = labels[ends[:, 0]] != labels[ends[:, 1]]
    between &= ~is_noise(labels)[ends].any(axis=1)
    ax = new_axes(ax, 6.4, 5.2)
    # Many opaque edges would hide the samples.
    faint = float(np.clip(1_500 / max(1, between.sum()), 0.15, 0.9))
    for chosen, color, width, alpha in ((~between, NOISE, 0.6, 0.8), (between, INK, 0.9, faint)):
        lines = LineCollection(list(at.points[ends[chosen]]), colors=color, linewidths=width, alpha=alpha, zorder=0.9)
        lines.set_rasterized(len(ends) > 500)
        ax.add_collection(lines)
    title = f"Graph of {len(ends):,} edges, {between.sum():,} between clusters" + subset_note(len(kept), n)
    return draw_plane(at, labels, ax, title=title)


def _edges(x: np.ndarray, graph: Any, kept: np.ndarray) -> np.ndarray:
    """(m, 2) edges, as pairs of positions in ``kept``, each once."""
    import scipy.sparse

    if isinstance(graph, (int, np.integer)):
        from sklearn.neighbors import kneighbors_graph

        if not 1 <= graph < len(x):
            raise ValueError(f"graph={graph} must be between 1 and {len(x) - 1}: each row has so many others.")
        graph = kneighbors_graph(center_and_scale(impute_means(x.astype(np.float64)))[0], int(graph))
    graph = scipy.sparse.csr_array(graph)
    if graph.shape != (len(x), len(x)):
        raise ValueError(f"graph {graph.shape} does not fit {len(x)} rows: ({len(x)}, {len(x)}) is needed.")
    adjacency = graph[kept][:, kept] != 0
    # Neighbor graphs are not symmetric: an edge counts if either end has the other among its neighbors.
    upper = scipy.sparse.triu(adjacency + adjacency.T, k=1).tocoo()
    return np.column_stack([upper.row, upper.col])

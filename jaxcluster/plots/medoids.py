"""Medoids on the map: the rows that stand for clusters, and which rows they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.plots.maps import draw, plane
from jaxcluster.plots.style import color_of, is_noise, new_axes, rows_and_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPOKES = 2_000
"""Beyond this many rows lines to their medoids hide everything."""


def medoids(
    x: Any,
    labels: Any,
    indices: Any,
    *,
    columns: Sequence[str] | None = None,
    random_state: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """The rows in the plane, a disc at each cluster's medoid, and a line from each row to the medoid of its cluster.

    Args:
        x: (n, d) rows; of more than two columns the principal plane is shown.
        labels: (n,) clusters.
        indices: (k,) which row is the medoid of cluster j.
        columns, random_state: as `jaxcluster.plots.maps.plane` takes them.

    Raises:
        ValueError: where rows, labels and medoids do not fit.
    """
    from matplotlib.collections import LineCollection

    x, labels = rows_and_labels(x, labels)
    indices = np.asarray(indices)
    if indices.ndim != 1 or indices.dtype.kind not in "iu" or not ((indices >= 0) & (indices < len(x))).all():
        raise ValueError(
            f"indices {indices.tolist()} must be row numbers from 0 to {len(x) - 1}, one for each cluster."
        )
    if labels.max(initial=-1) >= len(indices):
        raise ValueError(f"label {labels.max()} has no medoid: {len(indices)} are given, for labels from 0.")
    at = plane(x, centers=x[indices], random_state=random_state, columns=columns)
    ax = new_axes(ax, 6.4, 5.2)
    own = labels[at.kept]
    joined = np.flatnonzero(~is_noise(own))
    if len(joined) <= SPOKES:
        ends = np.stack([at.points[joined], at.centers[own[joined]]], axis=1)
        colors = [color_of(label) for label in own[joined].tolist()]
        ax.add_collection(LineCollection(ends, colors=colors, linewidths=0.7, alpha=0.35, zorder=0.9))
    return draw(at, labels, ax, title=at.title.replace("Clusters", "Medoids and their rows", 1))

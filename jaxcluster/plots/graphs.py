"""The graph that spectral clustering cuts, drawn in the plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.plots.maps import draw, filled, near_one, plane
from jaxcluster.plots.style import INK, NOISE, is_noise, new_axes, of_rows, rows_and_labels, sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRAPH_ROWS = 2_000
"""Beyond this edges hide the rows."""


def neighbor_graph(
    x: Any,
    labels: Any,
    graph: Any = 10,
    *,
    columns: Sequence[str] | None = None,
    random_state: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """The rows in the plane, of more than two columns the principal one, and the edges of a graph between them.

    Edges between clusters are dark: they are what a cut cuts. Of more than 2,000 rows as many are drawn at random,
    with the edges among them.

    Args:
        x: (n, d) rows.
        labels: (n,) clusters, -1 for noise.
        graph: how many nearest rows each is joined with, itself not among them; or an (n, n) matrix, dense or SciPy
            sparse, whose entries other than 0 are edges, in either direction.
        columns, random_state: as `jaxcluster.plots.maps.plane` takes them.

    Raises:
        ValueError: where rows, labels and graph do not fit.
    """
    from matplotlib.collections import LineCollection

    x, labels = rows_and_labels(x, labels)
    n = len(x)
    kept = sample(n, GRAPH_ROWS, random_state)
    ends = _edges(x, graph, kept)
    at = plane(x[kept], random_state=random_state, columns=columns)
    labels = labels[kept]
    between = labels[ends[:, 0]] != labels[ends[:, 1]]
    between &= ~is_noise(labels)[ends].any(axis=1)
    ax = new_axes(ax, 6.4, 5.2)
    faint = float(np.clip(1_500 / max(1, between.sum()), 0.15, 0.9))  # or else many of them hide the rows
    for chosen, color, width, alpha in ((~between, NOISE, 0.6, 0.8), (between, INK, 0.9, faint)):
        lines = LineCollection(at.points[ends[chosen]], colors=color, linewidths=width, alpha=alpha, zorder=0.9)
        lines.set_rasterized(len(ends) > 500)
        ax.add_collection(lines)
    title = f"Graph of {len(ends):,} edges, {between.sum():,} between clusters" + of_rows(len(kept), n)
    return draw(at, labels, ax, title=title)


def _edges(x: np.ndarray, graph: Any, kept: np.ndarray) -> np.ndarray:
    """(m, 2) pairs of places among ``kept`` that are joined, each once."""
    import scipy.sparse

    if isinstance(graph, (int, np.integer)):
        from sklearn.neighbors import kneighbors_graph

        if not 1 <= graph < len(x):
            raise ValueError(f"graph={graph} must be between 1 and {len(x) - 1}: each row has so many others.")
        graph = kneighbors_graph(near_one(filled(x.astype(np.float64)))[0], int(graph))
    graph = scipy.sparse.csr_array(graph)
    if graph.shape != (len(x), len(x)):
        raise ValueError(f"graph {graph.shape} does not fit {len(x)} rows: ({len(x)}, {len(x)}) is needed.")
    joined = graph[kept][:, kept] != 0
    upper = scipy.sparse.triu(joined + joined.T, k=1).tocoo()
    return np.column_stack([upper.row, upper.col])

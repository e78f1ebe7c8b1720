"""Structures that a method computes its labels from, medoids, orders, trees and graphs, and the report of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster import plots
from jaxcluster.report.figures import figure
from jaxcluster.report.shapes import branch_shapes, icicle_shapes, valleys

if TYPE_CHECKING:
    from jaxcluster.report.context import ReportContext

TALL: dict[str, Any] = {"height": 5.2}
WIDE: dict[str, Any] = {"width": 8.0, "height": 4.4}
"""Sizes of figures that are nearly square, and of wide ones."""


class Structure(NamedTuple):
    """Medoids, orders, trees and graphs of a run; None for those that its method does not have.

    Attributes:
        reachability, ordering: (n_samples,) reachability distance of each row, and the rows in the order of OPTICS.
        neighbor_distances: (n_sampled,) distance of rows, or of a sample of them, to their min_samples-th neighbor.
        min_samples: number of that neighbor, the row itself counted.
        eps: radius of DBSCAN, or the distance that the reachability is cut at.
        condensed_tree: edges of HDBSCAN's tree, as `jaxcluster.plots.condensed_tree` takes them.
        merges: (n_samples - 1, 4) linkage matrix of a hierarchy, as in ``scipy.cluster.hierarchy``.
        least_branch: rows of the smallest branch of it that is drawn.
        eigenvalues: (n_eigenvalues,) the least of a graph's Laplacian.
        graph: (n_samples, n_samples) weights between rows, SciPy sparse.
        medoids: (n_clusters,) number of the row that is the medoid of each cluster.
    """

    reachability: Any = None
    ordering: Any = None
    neighbor_distances: Any = None
    min_samples: int | None = None
    eps: float | None = None
    condensed_tree: Any = None
    merges: Any = None
    least_branch: int = 1
    eigenvalues: Any = None
    graph: Any = None
    medoids: Any = None

    def check(self, n: int) -> None:
        """Raise ValueError if its parts do not fit n rows."""
        lengths = {"reachability": n, "ordering": n, "merges": n - 1, "graph": n}
        for name, length in lengths.items():
            part = getattr(self, name)
            if part is not None and part.shape[0] != length:
                raise ValueError(f"{name} {part.shape} does not fit {n} rows: its length must be {length}.")
        if (self.reachability is None) != (self.ordering is None):
            raise ValueError("reachability and ordering go together: pass both.")


def structure_parts(run: ReportContext) -> tuple[list[tuple[str, str, list[str]]], dict[str, np.ndarray]]:
    """Parts of a report on the structure of a run.

    Returns:
        Title, note and pictures of each part that there is something for; and by the name of a picture, the numbers of
        all rows in the order to which its shapes refer.
    """
    structure = run.structure
    if structure is None:
        return [], {}
    orders: dict[str, np.ndarray] = {}
    parts = [
        ("Medoids", *_medoids(run, structure)),
        ("Density", *_density(run, structure, orders)),
        ("Tree", *_tree(run, structure, orders)),
        ("Graph", *_graph(run, structure)),
    ]
    return [(title, note, drawn) for title, note, drawn in parts if drawn], orders


def _medoids(run: ReportContext, structure: Structure) -> tuple[str, list[str]]:
    if structure.medoids is None:
        return "", []
    note = "A disc is a medoid: the row of its cluster from which the others are least far away, all together."
    draw = partial(plots.medoids, run.dataset.x, run.labels, structure.medoids, columns=run.axes)
    alt = f"The rows as points in the plane, each joined with one of {len(run.sizes):,} medoids."
    return note, [figure(draw, alt, name="medoids", **TALL)]


def _density(run: ReportContext, structure: Structure, orders: dict[str, np.ndarray]) -> tuple[str, list[str]]:
    """The order of OPTICS, or the distances by which a radius is chosen."""
    notes, drawn = [], []
    if structure.reachability is not None:
        notes.append("A valley is a region where rows lie close together; the peaks between are the ways across.")
        draw = partial(plots.reachability, structure.reachability, structure.ordering, run.labels, eps=structure.eps)
        alt = f"A bar of reachability for each of {len(run.labels):,} rows, in order, colored by cluster."
        orders["reachability"] = np.asarray(structure.ordering)
        shapes = partial(valleys, structure.reachability, structure.ordering, run.labels)
        drawn.append(figure(draw, alt, name="reachability", shapes=shapes, **WIDE))
    if structure.neighbor_distances is not None:
        notes.append("A good radius lies where the curve begins to bend upwards; rows above the line are no core rows.")
        chosen = {"min_samples": structure.min_samples, "eps": structure.eps}
        draw = partial(plots.neighbor_distances, structure.neighbor_distances, **chosen)
        alt = f"Curve of the sorted distances of rows to their neighbor number {structure.min_samples}, and the radius."
        drawn.append(figure(draw, alt, name="neighbor-distances"))
    return " ".join(notes), drawn


def _tree(run: ReportContext, structure: Structure, orders: dict[str, np.ndarray]) -> tuple[str, list[str]]:
    notes, drawn = [], []
    if structure.condensed_tree is not None:
        notes.append("From above to below the density rises that rows must have; a cluster that lasts is a stable one.")
        draw = partial(plots.condensed_tree, structure.condensed_tree, run.labels)
        alt = f"Clusters as icicles, as wide as they have rows, the {len(run.sizes):,} selected ones colored."
        icicles, orders["condensed-tree"] = icicle_shapes(structure.condensed_tree, run.labels)
        drawn.append(figure(draw, alt, name="condensed-tree", shapes=lambda: icicles, **WIDE))
    if structure.merges is not None:
        notes.append("The dendrogram joins the groups that were nearest, from below to above.")
        name = "mutual reachability" if structure.condensed_tree is not None else "distance"
        draw = partial(plots.dendrogram, structure.merges, run.labels, least=structure.least_branch, name=name)
        alt = "The last merges of the hierarchy, their distances, and the rows in each group, colored by cluster."
        branches, orders["dendrogram"] = branch_shapes(structure.merges, run.labels, structure.least_branch)
        drawn.append(figure(draw, alt, name="dendrogram", shapes=lambda: branches, **WIDE))
    return " ".join(notes), drawn


def _graph(run: ReportContext, structure: Structure) -> tuple[str, list[str]]:
    notes, drawn = [], []
    if structure.eigenvalues is not None:
        notes.append("Eigenvalues near 0 count weakly connected parts of the graph: a gap after k suggests k clusters.")
        draw = partial(plots.eigengap, structure.eigenvalues, k=len(run.sizes))
        alt = f"The least {len(np.ravel(structure.eigenvalues))} eigenvalues of the Laplacian and their widest gap."
        drawn.append(figure(draw, alt, name="eigengap"))
    if structure.graph is not None:
        notes.append("Dark edges of the graph join different clusters: the fewer, the better the cut.")
        draw = partial(plots.neighbor_graph, run.dataset.x, run.labels, structure.graph, columns=run.axes)
        alt = "The rows in the plane and the edges of the graph between them, dark where they join clusters."
        drawn.append(figure(draw, alt, name="graph", **TALL))
    return " ".join(notes), drawn

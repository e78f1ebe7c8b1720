"""Plots of a clustering. Each function draws on a matplotlib Axes, or on a new one, and returns it.

A cluster has the color of its label in every plot; noise, labeled -1, is gray. Color-blind readers can tell the colors
apart, and clusters carry their number wherever there is room, so that color is never needed alone.
"""

from jaxcluster.plots.bars import cluster_sizes, reconstruction_errors, silhouette
from jaxcluster.plots.components import densities, ellipses
from jaxcluster.plots.curves import (
    eigengap,
    elbow,
    embedding_through_training,
    history,
    information_criteria,
    sweep,
    training_curves,
)
from jaxcluster.plots.images import centers_as_images, reconstructions, samples
from jaxcluster.plots.maps import clusters_2d, medoids, neighbor_graph
from jaxcluster.plots.neighbors import neighbor_distances, reachability
from jaxcluster.plots.style import PALETTE
from jaxcluster.plots.transport import transport_plan
from jaxcluster.plots.trees import condensed_tree, dendrogram

__all__ = [
    "PALETTE",
    "centers_as_images",
    "cluster_sizes",
    "clusters_2d",
    "condensed_tree",
    "dendrogram",
    "densities",
    "eigengap",
    "elbow",
    "ellipses",
    "embedding_through_training",
    "history",
    "information_criteria",
    "medoids",
    "neighbor_distances",
    "neighbor_graph",
    "reachability",
    "reconstruction_errors",
    "reconstructions",
    "samples",
    "silhouette",
    "sweep",
    "training_curves",
    "transport_plan",
]


def __dir__() -> list[str]:
    return __all__

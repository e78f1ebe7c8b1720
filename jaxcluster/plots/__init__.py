"""Pictures of a clustering. Each function takes and returns a matplotlib Axes, and makes one where none is given.

A cluster has the same color in every picture, that of its label; noise, labeled -1, is gray. The colors differ for
color-blind readers too, and clusters carry their number wherever there is room, so that color is never needed alone.
"""

from jaxcluster.plots.columns import reconstruction_errors
from jaxcluster.plots.components import densities, ellipses
from jaxcluster.plots.condensed import condensed_tree
from jaxcluster.plots.curves import elbow, history, information_criteria, sweep
from jaxcluster.plots.graphs import neighbor_graph
from jaxcluster.plots.groups import cluster_sizes, silhouette
from jaxcluster.plots.images import centers_as_images, reconstructions, samples
from jaxcluster.plots.maps import clusters_2d
from jaxcluster.plots.medoids import medoids
from jaxcluster.plots.neighbors import neighbor_distances, reachability
from jaxcluster.plots.spectrum import eigengap
from jaxcluster.plots.style import PALETTE
from jaxcluster.plots.training import embedding_through_training, training_curves
from jaxcluster.plots.transport import transport_plan
from jaxcluster.plots.trees import dendrogram

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

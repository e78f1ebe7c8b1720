"""Spectral clustering: fit, the embedding it is made of, what a labeling cuts, and Nyström's way for many rows."""

from jaxcluster.cluster.spectral.cuts import ncut, ratio_cut
from jaxcluster.cluster.spectral.embedding import Embedding, embed
from jaxcluster.cluster.spectral.fit import ASSIGNMENTS, fit
from jaxcluster.cluster.spectral.labels import cluster_qr, discretize
from jaxcluster.cluster.spectral.nystrom import NystromState, nystrom, predict, transform
from jaxcluster.cluster.spectral.weights import AFFINITIES
from jaxcluster.core.memory import guard_functions

__all__ = [
    "AFFINITIES",
    "ASSIGNMENTS",
    "Embedding",
    "NystromState",
    "cluster_qr",
    "discretize",
    "embed",
    "fit",
    "ncut",
    "nystrom",
    "predict",
    "ratio_cut",
    "transform",
]

guard_functions(__name__)

"""Spectral clustering: fit, embedding, label assignments, graph cuts, and Nyström's extension for many samples."""

from jaxcluster.cluster.spectral.affinity_input import AFFINITIES
from jaxcluster.cluster.spectral.clustering import ASSIGNMENTS, cluster_qr, discretize, fit, ncut, ratio_cut
from jaxcluster.cluster.spectral.embedding import Embedding, embed
from jaxcluster.cluster.spectral.nystrom import NystromState, nystrom, predict, transform
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


def __dir__() -> list[str]:
    return __all__


guard_functions(__name__)

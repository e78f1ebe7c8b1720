"""HDBSCAN: fit, memberships and outlier scores, DBSCAN cuts of the hierarchy, centers, and labels of new samples."""

from jaxcluster.cluster.hdbscan.fit import fit
from jaxcluster.cluster.hdbscan.inference import (
    approximate_predict,
    centroids,
    medoids,
    membership_vectors,
    outlier_scores,
    probabilities,
)
from jaxcluster.cluster.hdbscan.tree import METHODS, CondensedTree, HDBSCANState, dbscan_clustering, stabilities
from jaxcluster.core.memory import guard_functions

__all__ = [
    "METHODS",
    "CondensedTree",
    "HDBSCANState",
    "approximate_predict",
    "centroids",
    "dbscan_clustering",
    "fit",
    "medoids",
    "membership_vectors",
    "outlier_scores",
    "probabilities",
    "stabilities",
]


def __dir__() -> list[str]:
    return __all__


guard_functions(__name__)

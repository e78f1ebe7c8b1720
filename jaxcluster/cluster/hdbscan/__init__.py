"""HDBSCAN: fit, how strongly rows belong, cuts at one distance, centers, clusters of new rows."""

from jaxcluster.cluster.hdbscan.centers import centroids, medoids
from jaxcluster.cluster.hdbscan.condense import CondensedTree
from jaxcluster.cluster.hdbscan.fit import fit
from jaxcluster.cluster.hdbscan.flat import labels_at
from jaxcluster.cluster.hdbscan.membership import membership_vectors, outlier_scores, probabilities
from jaxcluster.cluster.hdbscan.predict import approximate_predict
from jaxcluster.cluster.hdbscan.select import METHODS, stabilities
from jaxcluster.cluster.hdbscan.state import HDBSCANState
from jaxcluster.core.memory import guard_functions

__all__ = [
    "METHODS",
    "CondensedTree",
    "HDBSCANState",
    "approximate_predict",
    "centroids",
    "fit",
    "labels_at",
    "medoids",
    "membership_vectors",
    "outlier_scores",
    "probabilities",
    "stabilities",
]

guard_functions(__name__)

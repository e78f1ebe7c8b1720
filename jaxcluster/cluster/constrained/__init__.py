"""k-means with pairs of rows that have to be in one cluster, and pairs that must not be."""

from jaxcluster.cluster.constrained.fit import ConstrainedState, fit, fit_framed
from jaxcluster.cluster.kmeans import predict, transform
from jaxcluster.core.memory import guard_functions

__all__ = ["ConstrainedState", "fit", "fit_framed", "predict", "transform"]

guard_functions(__name__)

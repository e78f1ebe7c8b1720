"""OPTICS: an order of rows in which clusters of every density are valleys of reachability."""

from jaxcluster.cluster.optics.fit import METHODS, OPTICSState, extract_dbscan, extract_xi, fit
from jaxcluster.core.memory import guard_functions

__all__ = ["METHODS", "OPTICSState", "extract_dbscan", "extract_xi", "fit"]

guard_functions(__name__)

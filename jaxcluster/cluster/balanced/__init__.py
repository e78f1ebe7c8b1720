"""Balanced k-means: clusters with bounds on their sizes, and the exact assignment that keeps them.

`predict` and `transform` are those of k-means: a new row goes to the nearest center, and no sizes bind there.
"""

from jaxcluster.cluster.balanced.assign import assign, assign_cost
from jaxcluster.cluster.balanced.fit import BalancedState, fit, fit_framed
from jaxcluster.cluster.kmeans import predict, transform
from jaxcluster.core.memory import guard_functions

__all__ = ["BalancedState", "assign", "assign_cost", "fit", "fit_framed", "predict", "transform"]

guard_functions(__name__)

"""Gaussian mixtures by expectation–maximisation: fit, use, sweep."""

from jaxcluster.cluster.gmm.fit import fit, lower_bounds
from jaxcluster.cluster.gmm.start import METHODS, Start
from jaxcluster.cluster.gmm.state import GMMState

__all__ = ["METHODS", "GMMState", "Start", "fit", "lower_bounds"]

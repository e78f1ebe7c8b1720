"""OPTICS: reachability ordering, in which clusters of every density are valleys, and their extraction."""

from jaxcluster.cluster.optics.extract import OPTICSState, extract_dbscan, extract_xi
from jaxcluster.cluster.optics.reachability import METHODS, fit
from jaxcluster.core.memory import guard_functions

__all__ = ["METHODS", "OPTICSState", "extract_dbscan", "extract_xi", "fit"]


def __dir__() -> list[str]:
    return __all__


guard_functions(__name__)

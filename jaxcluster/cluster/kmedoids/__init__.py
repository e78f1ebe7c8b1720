"""k-medoids: clusters around rows of their own, by any metric."""

from jaxcluster.cluster.kmedoids.clara import clara
from jaxcluster.cluster.kmedoids.fasterpam import INITS
from jaxcluster.cluster.kmedoids.fit import KMedoidsState, fit
from jaxcluster.cluster.kmedoids.inference import Sweep, medoid_silhouette, predict, sweep, transform
from jaxcluster.core.memory import guard_functions

__all__ = ["INITS", "KMedoidsState", "Sweep", "clara", "fit", "medoid_silhouette", "predict", "sweep", "transform"]


def __dir__() -> list[str]:
    return __all__


guard_functions(__name__)

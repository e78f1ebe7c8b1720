"""k-prototypes: clusters of rows of numbers and categories, around means and modes."""

from jaxcluster.cluster.kprototypes.fit import KPrototypesState, fit, fit_framed, predict, score
from jaxcluster.cluster.kprototypes.seeding import INITS
from jaxcluster.core.memory import guard_functions

__all__ = ["INITS", "KPrototypesState", "fit", "fit_framed", "predict", "score"]


def __dir__() -> list[str]:
    return __all__


guard_functions(__name__)

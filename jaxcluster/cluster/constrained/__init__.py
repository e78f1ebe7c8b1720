"""Constrained k-means: must-link pairs share a cluster, cannot-link pairs do not.

>>> import jax, jax.numpy as jnp
>>> x = jnp.array([[0.0], [1.0], [9.0], [10.0]])
>>> labels = fit(jax.random.key(0), x, 2, must_link=[(0, 3)], cannot_link=[(0, 1)]).labels.tolist()
>>> labels[0] == labels[3] != labels[1]
True
"""

from jaxcluster.cluster.constrained.fit import ConstrainedState, fit, fit_framed
from jaxcluster.cluster.kmeans import predict, score, transform
from jaxcluster.core.memory import guard_functions

__all__ = ["ConstrainedState", "fit", "fit_framed", "predict", "score", "transform"]


def __dir__() -> list[str]:
    return __all__


guard_functions(__name__)

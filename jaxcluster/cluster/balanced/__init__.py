"""Balanced k-means: bounds on cluster sizes, and the exact assignment under them.

`predict`, `score` and `transform` are those of k-means: a new sample goes to the nearest center, without bounds.

>>> import jax.numpy as jnp
>>> assign(jnp.array([[0.0], [1.0], [2.0], [9.0]]), jnp.array([[0.0], [9.0]])).tolist()
[0, 0, 1, 1]
"""

from jaxcluster.cluster.balanced.fit import BalancedState, assign, assign_cost, fit, fit_framed
from jaxcluster.cluster.kmeans import predict, score, transform
from jaxcluster.core.memory import guard_functions

__all__ = ["BalancedState", "assign", "assign_cost", "fit", "fit_framed", "predict", "score", "transform"]


def __dir__() -> list[str]:
    return __all__


guard_functions(__name__)

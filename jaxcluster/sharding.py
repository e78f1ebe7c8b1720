"""Sharding of samples over devices.

>>> import jax, numpy as np
>>> from jaxcluster import kmeans, sharding
>>> x = np.array([[0.0], [0.1], [5.0], [5.1]])
>>> sharding.fit_sharded(kmeans.fit, jax.random.key(0), x, 2).labels.shape
(4,)
"""

from jaxcluster.core.shard import ROWS, fit_sharded, row_mesh

__all__ = ["ROWS", "fit_sharded", "row_mesh"]


def __dir__() -> list[str]:
    return __all__

"""Soft k-means: EM of a mixture of spherical Gaussians of equal weight and one fixed variance σ²; only means move.

Responsibilities are the softmax of −‖x − c‖²/2σ², and each center becomes the mean of the samples by them. As σ² → 0
the softmax becomes the argmin and the steps become Lloyd's: k-means is the small-variance limit of a mixture. Here
σ² = 0 is that limit itself. The largest responsibility is that of the nearest center, so `predict` is that of k-means.

Sources: C. M. Bishop, Pattern Recognition and Machine Learning (2006), 9.3.2; B. Kulis and M. I. Jordan, Revisiting
k-means: new algorithms via Bayesian nonparametrics, ICML 2012.

>>> import jax.numpy as jnp
>>> responsibilities(jnp.array([[0.0], [2.0]]), jnp.array([[1.0]]), 0.5).tolist()
[[0.5, 0.5]]
"""

from jaxcluster.cluster.kmeans import predict
from jaxcluster.cluster.soft_kmeans.deterministic_annealing import anneal
from jaxcluster.cluster.soft_kmeans.fit import (
    check_known,
    fit,
    free_energy,
    responsibilities,
    soft_assign,
    soft_stats,
    soft_update,
)
from jaxcluster.cluster.soft_kmeans.hard_choice import straight_through
from jaxcluster.cluster.soft_kmeans.state import SoftKMeansState, SoftStats
from jaxcluster.core.memory import guard_functions

__all__ = [
    "SoftKMeansState",
    "SoftStats",
    "anneal",
    "check_known",
    "fit",
    "free_energy",
    "predict",
    "responsibilities",
    "soft_assign",
    "soft_stats",
    "soft_update",
    "straight_through",
]


def __dir__() -> list[str]:
    return __all__


guard_functions(__name__)

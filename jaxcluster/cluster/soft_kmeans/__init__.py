"""Soft k-means: EM of a mixture of spherical Gaussians of equal weight and one fixed variance σ²; only means move.

Each row is shared out by the softmax of −‖x − c‖²/2σ², and each center becomes the mean of its shares. As σ² → 0 the
softmax becomes the argmin and the steps become Lloyd's: k-means is the small-variance limit of a mixture, and this
project derives it so. Here σ² = 0 is that limit itself.

Sources: C. M. Bishop, Pattern Recognition and Machine Learning (2006), 9.3.2; B. Kulis and M. I. Jordan, Revisiting
k-means: new algorithms via Bayesian nonparametrics, ICML 2012.
"""

from jaxcluster.cluster.soft_kmeans.anneal import anneal
from jaxcluster.cluster.soft_kmeans.fit import SoftKMeansState, fit
from jaxcluster.cluster.soft_kmeans.step import SoftStats, soft_stats, soft_update, soften
from jaxcluster.cluster.soft_kmeans.use import check_known, free_energy, responsibilities
from jaxcluster.core.memory import guard_functions
from jaxcluster.ops.straight_through import straight_through

__all__ = [
    "SoftKMeansState",
    "SoftStats",
    "anneal",
    "check_known",
    "fit",
    "free_energy",
    "responsibilities",
    "soft_stats",
    "soft_update",
    "soften",
    "straight_through",
]

guard_functions(__name__)

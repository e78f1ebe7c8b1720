"""Clustering metrics, external (against known classes) and internal. Names and signatures are scikit-learn's.

External (host, exact in int64 and float64): contingency and pair tables, Rand indices, information scores, purity,
accuracy. Internal (JAX, tiled): silhouette, Davies–Bouldin, Calinski–Harabasz, and a differentiable soft silhouette.
"""

from jaxcluster.core.memory import FEWER_ROWS, guard_functions
from jaxcluster.metrics.contingency import confusion_matrix, contingency_matrix, pair_confusion_matrix
from jaxcluster.metrics.external import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    clustering_accuracy,
    completeness_score,
    fowlkes_mallows_score,
    homogeneity_completeness_v_measure,
    homogeneity_score,
    mutual_info_score,
    normalized_mutual_info_score,
    optimal_matching,
    purity_score,
    rand_score,
    v_measure_score,
)
from jaxcluster.metrics.internal import (
    calinski_harabasz_score,
    davies_bouldin_score,
    gower_distances,
    gower_rows,
    silhouette_samples,
    silhouette_score,
)
from jaxcluster.metrics.soft import soft_silhouette, soft_silhouette_samples

__all__ = [
    "adjusted_mutual_info_score",
    "adjusted_rand_score",
    "calinski_harabasz_score",
    "clustering_accuracy",
    "completeness_score",
    "confusion_matrix",
    "contingency_matrix",
    "davies_bouldin_score",
    "fowlkes_mallows_score",
    "gower_distances",
    "gower_rows",
    "homogeneity_completeness_v_measure",
    "homogeneity_score",
    "mutual_info_score",
    "normalized_mutual_info_score",
    "optimal_matching",
    "pair_confusion_matrix",
    "purity_score",
    "rand_score",
    "silhouette_samples",
    "silhouette_score",
    "soft_silhouette",
    "soft_silhouette_samples",
    "v_measure_score",
]


def __dir__() -> list[str]:
    return __all__


guard_functions(__name__, FEWER_ROWS, compiled=False)

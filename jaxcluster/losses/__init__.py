"""Losses: differentiable scalars, each a pure function of arrays, for any model in JAX.

All work under jit, vmap and grad, sum half precision in float32, and have finite gradients on degenerate batches: equal
samples, one class, no positives, one sample.
"""

from jaxcluster.core.memory import FEWER_ROWS, guard_functions
from jaxcluster.losses.contrastive import contrastive_loss, nt_xent_loss, supervised_contrastive_loss
from jaxcluster.losses.dec import (
    JointTerms,
    dec_loss,
    deep_clustering_loss,
    student_t_assignments,
    student_t_log_assignments,
    target_distribution,
)
from jaxcluster.losses.graph_cut import soft_ncut
from jaxcluster.losses.heads import cluster_contrastive_loss, scan_loss, self_label_loss, temi_loss, turtle_loss
from jaxcluster.losses.joint_embedding import (
    barlow_twins_loss,
    dino_center,
    dino_loss,
    negative_cosine_loss,
    vicreg_loss,
)
from jaxcluster.losses.kmeans import deep_kmeans_loss, kmeans_loss, soft_clustering_loss, soft_kmeans_loss
from jaxcluster.losses.mining import (
    CrossBatchMemory,
    angular_triplets,
    class_batches,
    distance_weighted_negatives,
    margin_pairs,
    multi_similarity_pairs,
)
from jaxcluster.losses.mixture import VadeTerms, mixture_nll, vade_loss, vade_responsibilities
from jaxcluster.losses.proxy import (
    arcface_loss,
    cosface_loss,
    proxy_anchor_loss,
    proxy_nca_loss,
    soft_triple_loss,
)
from jaxcluster.losses.similarity import (
    angular_loss,
    circle_loss,
    lifted_structure_loss,
    margin_loss,
    multi_similarity_loss,
    n_pairs_loss,
)
from jaxcluster.losses.swav import swapped_prediction_from_assignments, swapped_prediction_loss
from jaxcluster.losses.triplet import (
    Pairs,
    TripletCounts,
    Triplets,
    count_triplets,
    labels_of_views,
    mined_triplet_loss,
    negative_mask,
    pairs_from_labels,
    pairs_from_views,
    positive_mask,
    triplet_loss,
    triplets_from_labels,
)
from jaxcluster.losses.wasserstein import (
    cluster_recovery_loss,
    gradient_penalty,
    noise_recovery_loss,
    points_between,
    wasserstein_critic_loss,
    wasserstein_generator_loss,
)

__all__ = [
    "CrossBatchMemory",
    "JointTerms",
    "Pairs",
    "TripletCounts",
    "Triplets",
    "VadeTerms",
    "angular_loss",
    "angular_triplets",
    "arcface_loss",
    "barlow_twins_loss",
    "circle_loss",
    "class_batches",
    "cluster_contrastive_loss",
    "cluster_recovery_loss",
    "contrastive_loss",
    "cosface_loss",
    "count_triplets",
    "dec_loss",
    "deep_clustering_loss",
    "deep_kmeans_loss",
    "dino_center",
    "dino_loss",
    "distance_weighted_negatives",
    "gradient_penalty",
    "kmeans_loss",
    "labels_of_views",
    "lifted_structure_loss",
    "margin_loss",
    "margin_pairs",
    "mined_triplet_loss",
    "mixture_nll",
    "multi_similarity_loss",
    "multi_similarity_pairs",
    "n_pairs_loss",
    "negative_cosine_loss",
    "negative_mask",
    "noise_recovery_loss",
    "nt_xent_loss",
    "pairs_from_labels",
    "pairs_from_views",
    "points_between",
    "positive_mask",
    "proxy_anchor_loss",
    "proxy_nca_loss",
    "scan_loss",
    "self_label_loss",
    "soft_clustering_loss",
    "soft_kmeans_loss",
    "soft_ncut",
    "soft_triple_loss",
    "student_t_assignments",
    "student_t_log_assignments",
    "supervised_contrastive_loss",
    "swapped_prediction_from_assignments",
    "swapped_prediction_loss",
    "target_distribution",
    "temi_loss",
    "triplet_loss",
    "triplets_from_labels",
    "turtle_loss",
    "vade_loss",
    "vade_responsibilities",
    "vicreg_loss",
    "wasserstein_critic_loss",
    "wasserstein_generator_loss",
]


def __dir__() -> list[str]:
    return __all__


guard_functions(__name__, FEWER_ROWS)

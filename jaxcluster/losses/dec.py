"""Losses of deep embedded clustering (DEC), and a clustering loss joined with classification.

DEC assigns embeddings to clusters by a Student's t kernel and sharpens the assignments towards their own targets.

>>> import numpy as np
>>> q = np.array([[0.8, 0.2], [0.4, 0.6]])
>>> round(float(target_distribution(q)[0, 0]), 2)  # (0.64/1.2) / (0.64/1.2 + 0.04/0.8)
0.91

Sources: J. Xie, R. Girshick and A. Farhadi, Unsupervised deep embedding for clustering analysis, ICML 2016; J.
Enguehard, P. O'Halloran and A. Gholipour, Semi-supervised learning with deep embedded clustering for image
classification and segmentation, IEEE Access 7 (2019), for the cross-entropy beside a clustering term.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.core import validation
from jaxcluster.core.dtypes import times_power_of_two
from jaxcluster.losses.validation import (
    as_floats,
    as_labels,
    as_logits,
    as_matrix,
    as_positive,
    as_samples,
    as_shaped,
    as_weights,
    exponent_out_of_range,
    mask_rows,
    promote,
    reduce,
    zero_unweighted,
)
from jaxcluster.ops.differences import squared_distances
from jaxcluster.types import Array, Float


class JointTerms(NamedTuple):
    """A weighted sum of a clustering and a classification loss, and both without their weights.

    Attributes:
        loss: () the weighted sum, to be minimized.
        clustering: () the clustering loss.
        classification: () mean cross-entropy of the labeled samples (nats); 0 where there are none.
    """

    loss: Float[Array, ""]
    clustering: Float[Array, ""]
    classification: Float[Array, ""]


def student_t_assignments(z: Any, centers: Any, *, alpha: Any = 1.0) -> Float[Array, "n k"]:
    """Soft assignments q_ij ∝ (1 + ‖z_i − μ_j‖²/α)^(−(α+1)/2), (n_samples, n_clusters); rows sum to 1.

    Args:
        z: (n_samples, n_features) embeddings.
        centers: (n_clusters, n_features) μ, in the units of z.
        alpha: α > 0, degrees of freedom; 1 in the paper. Traced.

    Raises:
        ValueError, TypeError: wrong shapes, or an alpha that is not positive.
    """
    return jnp.exp(student_t_log_assignments(z, centers, alpha=alpha))


def student_t_log_assignments(z: Any, centers: Any, *, alpha: Any = 1.0) -> Float[Array, "n k"]:
    """log q of `student_t_assignments`, finite however far a sample is from all centers."""
    z, centers = as_samples(z=z, centers=centers)
    alpha = as_positive("alpha", alpha, z.dtype)
    # In a unit of 2^e the 1 of the kernel becomes 2^−2e, and the factor 2^2e of all clusters cancels.
    exponent = exponent_out_of_range(z, centers)
    z, centers = (times_power_of_two(each, -exponent) for each in (z, centers))
    far = exponent > 0
    # A quotient that overflows, by a tiny alpha, becomes the largest finite number: all clusters are equally far.
    scaled = jnp.minimum(squared_distances(z, centers) / alpha, jnp.finfo(z.dtype).max)
    one = jnp.maximum(times_power_of_two(jnp.ones((), z.dtype), -2 * exponent), jnp.finfo(z.dtype).tiny)
    log_kernel = jnp.where(far, jnp.log(jnp.where(far, scaled + one, 1)), jnp.log1p(jnp.where(far, 0, scaled)))
    logits = -(alpha + 1) / 2 * log_kernel
    return jax.nn.log_softmax(logits, axis=1)


def target_distribution(q: Any, *, weights: Any = None) -> Float[Array, "n k"]:
    """p_ij ∝ q_ij² / f_j with the soft cluster size f_j = Σ_i w_i·q_ij; (n_samples, n_clusters), rows sum to 1.

    The square emphasizes confident assignments, and f keeps large clusters from growing. Pass the assignments of the
    whole data set: the f of a batch says little about the clusters.

    Args:
        q: (n_samples, n_clusters) soft assignments, >= 0; rows sum to 1.
        weights: (n_samples,) >= 0, the samples' weights in f; None for 1 each. Samples of weight 0 have targets too.

    Raises:
        ValueError, TypeError: wrong shapes or weights.
    """
    q = as_matrix(q, name="q")
    weights = as_weights(weights, q.shape[0])
    weighted = q if weights is None else weights.values.astype(q.dtype)[:, None] * zero_unweighted(q, weights)
    frequency = jnp.sum(weighted, axis=0)
    # q · (q/f), not q²/f: the square of a small q would underflow.
    unnormalized = q * (q / jnp.where(frequency > 0, frequency, 1)[None, :])
    total = jnp.sum(unnormalized, axis=1, keepdims=True)
    return unnormalized / jnp.where(total > 0, total, 1)


def dec_loss(q: Any, p: Any, *, weights: Any = None) -> Float[Array, ""]:
    """KL(P‖Q), the mean over samples of Σ_j p_ij·log(p_ij/q_ij) (nats), with 0·log 0 = 0.

    P is a constant, also where it was computed from q: the gradient is that of q alone.

    Args:
        q: (n_samples, n_clusters) assignments of the batch; see `student_t_assignments`.
        p: (n_samples, n_clusters) targets of the same samples, from a `target_distribution` of the whole data set.
        weights: (n_samples,) >= 0 of the mean; None for 1 each.

    Raises:
        ValueError, TypeError: wrong shapes or weights.
    """
    q = as_matrix(q, name="q")
    q, p = promote(q, jax.lax.stop_gradient(as_shaped(p, q.shape, name="p", of="q")))
    weights = as_weights(weights, q.shape[0])
    positive = p > 0
    # q may have underflowed to 0 where the target, computed from earlier weights, has not: log q stays above log tiny.
    log_q = jnp.log(jnp.maximum(zero_unweighted(q, weights), jnp.finfo(q.dtype).tiny))
    terms = jnp.where(positive, p * (jnp.log(jnp.where(positive, p, 1)) - log_q), 0)
    return reduce(jnp.sum(terms, axis=1), weights=weights)


def deep_clustering_loss(
    clustering: Any, logits: Any, labels: Any, *, clustering_weight: Any = 1.0, classification_weight: Any = 1.0
) -> JointTerms:
    """clustering_weight·L + classification_weight·mean[−log softmax(logits)_label], over the labeled samples.

    Args:
        clustering: () L, any clustering loss: `kmeans_loss`, `dec_loss`, `soft_clustering_loss`, ….
        logits: (n_samples, n_classes).
        labels: (n_samples,) integers below n_classes; samples of unknown label, −1, are left out.
        clustering_weight, classification_weight: >= 0. Traced.

    Raises:
        ValueError, TypeError: wrong shapes, labels that are not integers, negative weights.
    """
    clustering = as_floats(clustering, name="clustering")
    if clustering.ndim:
        raise ValueError(f"clustering must be a scalar, got shape {clustering.shape}. Reduce it over rows first.")
    clustering_weight = validation.check_positive("clustering_weight", clustering_weight, zero=True)
    classification_weight = validation.check_positive("classification_weight", classification_weight, zero=True)
    logits = as_logits(logits)
    labels = as_labels(labels, *logits.shape)
    known = labels >= 0
    # Masked before the softmax: masked behind it, NaN in rows without a label would reach the gradient as 0 · NaN.
    log_probs = jax.nn.log_softmax(mask_rows(known, logits), axis=1)
    # An unknown label takes any position, as its term is masked in the mean.
    log_likelihood = jnp.take_along_axis(log_probs, jnp.where(known, labels, 0)[:, None], axis=1)[:, 0]
    classification = reduce(-log_likelihood, mask=known)
    clustering, classification = promote(clustering, classification)
    weights = [jnp.asarray(weight, clustering.dtype) for weight in (clustering_weight, classification_weight)]
    return JointTerms(weights[0] * clustering + weights[1] * classification, clustering, classification)

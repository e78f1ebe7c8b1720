"""Losses of clustering heads on fixed features: TEMI, SCAN, its self-labeling, TURTLE, and contrastive clustering.

A head maps features to logits of clusters. All losses take several heads at once, along the first axis, and return the
loss of each: heads from different weights are trained together, and the one of the least loss is kept.

>>> import jax.numpy as jnp
>>> from jaxcluster.losses import scan_loss
>>> undecided = jnp.log(jnp.array([[[0.5, 0.5], [0.5, 0.5]]]))
>>> bool(jnp.isclose(scan_loss(undecided, undecided, entropy_weight=0.0)[0], jnp.log(2.0)))
True

Sources: N. Adaloglou, F. Michels, H. Kalisch and M. Kollmann, Exploring the limits of deep image clustering using
pretrained models, BMVC 2023 (TEMI); W. Van Gansbeke, S. Vandenhende, S. Georgoulis, M. Proesmans and L. Van Gool, SCAN:
learning to classify images without labels, ECCV 2020; A. Gadetsky, Y. Jiang and M. Brbić, Let go of your labels with
unsupervised transfer, ICML 2024 (TURTLE); Y. Li, P. Hu, Z. Liu, D. Peng, J. T. Zhou and X. Peng, Contrastive
clustering, AAAI 2021.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import entr, logsumexp

from jaxcluster.losses.contrastive import nt_xent_loss
from jaxcluster.losses.validation import as_floats, as_positive, promote
from jaxcluster.types import Array, Float


def check_heads(**arrays: Any) -> list[Array]:
    """Arrays of one shape (n_heads, n_samples, n_clusters).

    Raises:
        ValueError, TypeError: no numbers, another rank, or shapes that differ.
    """
    checked = dict(zip(arrays, promote(*(as_floats(value, name=name) for name, value in arrays.items())), strict=True))
    shapes = {name: value.shape for name, value in checked.items()}
    first = next(iter(shapes.values()))
    for name, shape in shapes.items():
        if len(shape) != 3:
            raise ValueError(
                f"{name} must have shape (n_heads, n_samples, n_clusters), got {shape}. For one head pass {name}[None]."
            )
        if shape != first:
            raise ValueError(f"{' and '.join(shapes)} must have one shape, got {first} and {shape}.")
    return list(checked.values())


def temi_loss(
    student: Any,
    teacher: Any,
    marginal: Any,
    *,
    beta: Any = 0.6,
) -> Float[Array, " h"]:
    """Negative weighted pointwise mutual information of samples and neighbors of theirs, for each head.

    With q_s and q_t the probabilities of student and teacher and q̃ the teacher's marginal probabilities, the pointwise
    mutual information of a sample x and its neighbor x' is log Σ_c (q_s(c|x)·q_t(c|x'))^β / q̃(c). Pairs are weighted by
    the mean over the heads of Σ_c q_t(c|x)·q_t(c|x'), so that a neighbor in another cluster hardly counts.

    Args:
        student: log-probabilities of n samples and n neighbors, of h heads of the student and k clusters.
        teacher: those of the teacher; constants.
        marginal: > 0, mean probabilities of the clusters by the teacher; constants.
        beta: β in (0, 1]; at 1 one cluster may take all samples at no cost.

    Returns:
        (h,) losses (nats): −½ of the weighted mean of both directions.

    Raises:
        ValueError, TypeError: arrays of another shape, or a parameter out of range.
    """
    arrays = {"student": student, "teacher": teacher, "marginal": marginal}
    student, teacher, marginal = promote(*(as_floats(value, name=name) for name, value in arrays.items()))
    beta = as_positive("beta", beta, student.dtype)
    for name, value in (("student", student), ("teacher", teacher)):
        if value.ndim != 4 or value.shape[0] != 2 or value.shape != student.shape:
            raise ValueError(
                f"student and teacher must have one shape (2, n_heads, n_samples, n_clusters): of samples and of "
                f"neighbors. {name} has {value.shape}."
            )
    if marginal.shape != (student.shape[1], student.shape[3]):
        raise ValueError(
            f"marginal must have shape (n_heads, n_clusters) = {(student.shape[1], student.shape[3])}, got "
            f"{marginal.shape}."
        )
    teacher, marginal = jax.lax.stop_gradient((teacher, marginal))
    weight = jnp.mean(jnp.sum(jnp.exp(teacher[0] + teacher[1]), axis=2), axis=0)
    # The neighbor's probabilities come from the teacher where those of the sample come from the student.
    # A marginal that underflowed to 0 is that of a cluster without samples, whose terms are 0 too.
    log_marginal = jnp.log(jnp.maximum(marginal, jnp.finfo(marginal.dtype).tiny))
    both = beta * (student + teacher[::-1]) - log_marginal[None, :, None, :]
    information = logsumexp(both, axis=3)
    return -jnp.mean(weight[None] * jnp.mean(information, axis=0), axis=1)


def scan_loss(samples: Any, neighbors: Any, *, entropy_weight: Any = 5.0) -> Float[Array, " h"]:
    """SCAN's loss of each head: −mean log⟨p(x), p(x')⟩ − λ·H(mean p), x' a neighbor of x.

    Args:
        samples: log-probabilities of n samples, of h heads and k clusters.
        neighbors: those of a neighbor of each.
        entropy_weight: λ >= 0 of the entropy of the mean probabilities, which keeps all clusters in use.

    Returns:
        (h,) losses (nats).

    Raises:
        ValueError, TypeError: arrays of another shape, or a parameter out of range.
    """
    samples, neighbors = check_heads(samples=samples, neighbors=neighbors)
    entropy_weight = as_positive("entropy_weight", entropy_weight, samples.dtype, zero=True)
    consistency = jnp.mean(logsumexp(samples + neighbors, axis=2), axis=1)
    entropy = _entropy(jnp.mean(jnp.exp(samples), axis=1))
    return -consistency - entropy_weight * entropy


def self_label_loss(
    samples: Any, views: Any, *, threshold: Any = 0.99
) -> tuple[Float[Array, " h"], Float[Array, " h"]]:
    """Cross-entropy of views of the samples whose label is certain, for each head.

    The label of a sample is its most probable cluster, certain if its probability is above the threshold. All clusters
    that have certain samples weigh the same, whatever their number.

    Args:
        samples: log-probabilities of n samples, of h heads and k clusters; constants.
        views: those of a view of each sample.
        threshold: least probability of a certain label, in (0, 1).

    Returns:
        (h,) losses (nats), 0 without a certain sample, and (h,) fractions of certain samples.

    Raises:
        ValueError, TypeError: arrays of another shape, or a parameter out of range.
    """
    samples, views = check_heads(samples=samples, views=views)
    threshold = as_positive("threshold", threshold, samples.dtype, zero=True)
    samples = jax.lax.stop_gradient(samples)
    labels = jnp.argmax(samples, axis=2)
    certain = (jnp.exp(jnp.max(samples, axis=2)) > threshold).astype(views.dtype)
    members = jax.nn.one_hot(labels, samples.shape[2], dtype=views.dtype) * certain[:, :, None]
    counts = jnp.sum(members, axis=1)
    used = jnp.maximum(jnp.sum(counts > 0, axis=1, dtype=views.dtype), 1)
    # Balanced by cluster, as in the paper: one that is learned first would grow by its own labels otherwise.
    # Of the own cluster alone: the logarithm of a probability of 0 in another is −∞, and 0 · −∞ is NaN.
    terms = -jnp.sum(jnp.where(members > 0, views, 0), axis=1) / jnp.maximum(counts, 1)
    return jnp.sum(terms, axis=1) / used, jnp.mean(certain, axis=1)


def turtle_loss(labels: Any, predictions: Any, *, entropy_weight: Any = 10.0) -> Float[Array, " h"]:
    """TURTLE's loss of each head: the cross-entropy of a classifier that learned its labels, −γ·H(mean label).

    Args:
        labels: probabilities of h heads for n samples and k clusters: soft labels.
        predictions: log-probabilities of the classifier of each head; constants.
        entropy_weight: γ >= 0 of the entropy of the mean label, which keeps all clusters in use.

    Returns:
        (h,) losses (nats).

    Raises:
        ValueError, TypeError: arrays of another shape, or a parameter out of range.
    """
    labels, predictions = check_heads(labels=labels, predictions=predictions)
    entropy_weight = as_positive("entropy_weight", entropy_weight, labels.dtype, zero=True)
    # 0·log 0 = 0; selected before the product, so that the gradient is finite too.
    known = jnp.where(labels > 0, jax.lax.stop_gradient(predictions), 0)
    error = -jnp.mean(jnp.sum(labels * known, axis=2), axis=1)
    return error - entropy_weight * _entropy(jnp.mean(labels, axis=1))


def cluster_contrastive_loss(
    a: Any,
    b: Any,
    *,
    temperature: Any = 1.0,
    entropy_weight: Any = 1.0,
) -> Float[Array, " h"]:
    """Contrast of clusters in two views, and the entropy of the mean probabilities, for each head.

    A cluster is the column of its probabilities of all samples. The column of the other view is the positive among the
    columns of both views, as in `jaxcluster.losses.nt_xent_loss`.

    Args:
        a, b: log-probabilities of two views of n samples, of h heads and k clusters.
        temperature: τ > 0, by which cosines are divided.
        entropy_weight: >= 0, weight of the sum of both views' entropies, which keeps all clusters in use.

    Returns:
        (h,) losses (nats).

    Raises:
        ValueError, TypeError: arrays of another shape, or a parameter out of range.
    """
    arrays = check_heads(a=a, b=b)
    temperature = as_positive("temperature", temperature, arrays[0].dtype)
    entropy_weight = as_positive("entropy_weight", entropy_weight, arrays[0].dtype, zero=True)
    columns = [jnp.swapaxes(jnp.exp(each), 1, 2) for each in arrays]
    contrast = jax.vmap(lambda first, second: nt_xent_loss(first, second, temperature=temperature))(*columns)
    entropy = sum(_entropy(jnp.mean(each, axis=2)) for each in columns)
    return contrast - entropy_weight * entropy


def _entropy(mean):
    """(h,) entropies (nats) of (h, k) mean probabilities."""
    # −log p − 1, the derivative, is infinite at 0, the mean of a cluster that all samples have left, and infinite times
    # the 0 of the probabilities' own derivatives is NaN.
    return jnp.sum(entr(jnp.maximum(mean, jnp.finfo(mean.dtype).tiny)), axis=1)

"""Deep embedded clustering: codes shared out by Student's t, and drawn towards what the shares are surest of.

Source: J. Xie, R. Girshick and A. Farhadi, Unsupervised deep embedding for clustering analysis, ICML 2016.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcluster.core import check
from jaxcluster.losses.inputs import as_matching, as_matrix, as_rows, as_weights, in_one_dtype, present
from jaxcluster.losses.reduce import reduce
from jaxcluster.ops.differences import squared_distances
from jaxcluster.types import Array, Float


def student_t_assignments(z, centers, *, alpha=1.0) -> Float[Array, "n k"]:
    """q_ij ∝ (1 + ‖z_i − μ_j‖²/α)^(−(α+1)/2), the share of each cluster in each row; rows sum to 1.

    Args:
        z: (n, d) codes.
        centers: (k, d) μ, in the units of the codes.
        alpha: α > 0, degrees of freedom; the paper has 1. Traced.

    Raises:
        ValueError, TypeError: wrong shapes, or an alpha that is not positive.
    """
    return jnp.exp(student_t_log_assignments(z, centers, alpha=alpha))


def student_t_log_assignments(z, centers, *, alpha=1.0) -> Float[Array, "n k"]:
    """log q of `student_t_assignments`, finite however far a row is from all centers."""
    z, centers = as_rows(z=z, centers=centers)
    alpha = jnp.asarray(check.check_positive("alpha", alpha), z.dtype)
    # A square beyond the dtype is its largest number: the row is as far from all clusters.
    scaled = jnp.minimum(squared_distances(z, centers) / alpha, jnp.finfo(z.dtype).max)
    logits = -(alpha + 1) / 2 * jnp.log1p(scaled)
    return jax.nn.log_softmax(logits, axis=1)


def target_distribution(q, *, weights=None) -> Float[Array, "n k"]:
    """p_ij ∝ q_ij² / f_j with f_j = Σ_i w_i·q_ij; rows sum to 1.

    Squares favor what q is sure of, and f keeps large clusters from growing by their size. f is summed over all rows
    that are given: they are to be those of the whole data set, not of a batch, whose f says little of the clusters.

    Args:
        q: (n, k) shares, >= 0; rows sum to 1.
        weights: (n,) >= 0 of the rows in f; None for 1 each. A row of weight 0 has a target all the same.

    Raises:
        ValueError, TypeError: wrong shapes or weights.
    """
    q = as_matrix(q, name="q")
    weights = as_weights(weights, q.shape[0])
    shares = q if weights is None else weights.values.astype(q.dtype)[:, None] * present(q, weights)
    frequency = jnp.sum(shares, axis=0)
    # q/f comes first: the square of a small share would underflow.
    raised = q * (q / jnp.where(frequency > 0, frequency, 1)[None, :])
    total = jnp.sum(raised, axis=1, keepdims=True)
    return raised / jnp.where(total > 0, total, 1)


def dec_loss(q, p, *, weights=None) -> Float[Array, ""]:
    """KL(P‖Q), the mean over rows of Σ_j p_ij·log(p_ij/q_ij) (nats per row), with 0·log 0 = 0.

    P is a constant, also where it was computed from q: the loss has its gradient through q alone.

    Args:
        q: (n, k) shares of the batch; see `student_t_assignments`.
        p: (n, k) targets of the same rows, from a `target_distribution` of the whole data set.
        weights: (n,) >= 0 of the rows in the mean; None for 1 each.

    Raises:
        ValueError, TypeError: wrong shapes or weights.
    """
    q = as_matrix(q, name="q")
    q, p = in_one_dtype(q, jax.lax.stop_gradient(as_matching(p, q.shape, name="p", of="q")))
    weights = as_weights(weights, q.shape[0])
    positive = p > 0
    # A share may have underflowed where the target, from an earlier state, has not.
    log_q = jnp.log(jnp.maximum(present(q, weights), jnp.finfo(q.dtype).tiny))
    terms = jnp.where(positive, p * (jnp.log(jnp.where(positive, p, 1)) - log_q), 0)
    return reduce(jnp.sum(terms, axis=1), weights=weights)

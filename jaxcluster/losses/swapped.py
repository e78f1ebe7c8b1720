"""SwAV's loss: from each view the cluster is predicted that another view of the row was assigned to.

Source: M. Caron et al., Unsupervised learning of visual features by contrasting cluster assignments, NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxcluster.cluster.sinkhorn import swav_assignments
from jaxcluster.core import check
from jaxcluster.losses.inputs import as_matching, as_matrix, as_weights, present
from jaxcluster.losses.reduce import reduce
from jaxcluster.types import Array, Float


def swapped_prediction_loss(
    scores_a, scores_b, *, temperature=0.1, epsilon=0.05, rounds: int = 3, weights=None
) -> Float[Array, ""]:
    """½·mean over rows of −Σ_j q^a_j·log softmax(s^b/τ)_j − Σ_j q^b_j·log softmax(s^a/τ)_j (nats).

    q are ``sinkhorn.swav_assignments`` of the scores, equal parts for all prototypes, and constants. The paper has the
    sum of both directions, its authors' code their mean, which this is.

    Args:
        scores_a, scores_b: (n, k) cosines of two views of each row to k prototypes: products of rows of length 1.
        temperature: τ > 0 of the predictions. Traced.
        epsilon: > 0, temperature of the assignments. Traced.
        rounds: of Sinkhorn, static.
        weights: (n,) >= 0 of the rows; None for 1 each. Rows of weight 0 have no part in the assignments.

    Raises:
        ValueError, TypeError: wrong shapes, weights or options.
    """
    scores_a = as_matrix(scores_a, name="scores_a")
    scores_b = as_matching(scores_b, scores_a.shape, name="scores_b", of="scores_a")
    weights = as_weights(weights, scores_a.shape[0])
    scores = [present(scores, weights) for scores in (scores_a, scores_b)]
    mask = None if weights is None else weights > 0
    assignments = [swav_assignments(jax.lax.stop_gradient(each), epsilon, rounds, mask) for each in scores]
    return swapped_prediction_from_assignments(assignments, scores, temperature=temperature, weights=weights)


def swapped_prediction_from_assignments(
    assignments: Sequence[Any] | Array, scores: Sequence[Any] | Array, *, temperature=0.1, weights=None
) -> Float[Array, ""]:
    """The same for assignments that are given, and more views than have them, as with small crops of an image.

    The mean over assignments i, and over all views v ≠ i, of the cross-entropy −Σ_j q^i_j·log softmax(s^v/τ)_j.

    Args:
        assignments: m >= 1 arrays (n, k), those of the first m views: rows sum to 1. Constants. Where a queue of
            earlier scores took part in them, only the rows of the batch.
        scores: at least 2 and at least m arrays (n, k), those of all views; n the same rows in each.
        temperature: τ > 0. Traced.
        weights: (n,) >= 0 of the rows; None for 1 each.

    Raises:
        ValueError, TypeError: wrong shapes or numbers of views, weights, or a temperature that is not positive.
    """
    if not 1 <= len(assignments) <= len(scores) or len(scores) < 2:
        raise ValueError(
            f"got {len(assignments)} assignments for {len(scores)} views; expected those of the first views, at least "
            "1, and at least 2 views, so that one predicts the other."
        )
    temperature = check.check_positive("temperature", temperature)
    first = as_matrix(scores[0], name="scores[0]")
    weights = as_weights(weights, first.shape[0])

    def matching(values, name):
        named = [as_matching(value, first.shape, name=f"{name}[{i}]", of="scores[0]") for i, value in enumerate(values)]
        return jnp.stack([present(value, weights) for value in named])

    log_shares = jax.nn.log_softmax(matching(scores, "scores") / temperature, axis=2)
    targets = jax.lax.stop_gradient(matching(assignments, "assignments"))
    # All other views together first: a product for each assignment, not for each pair.
    others = (jnp.sum(log_shares, axis=0) - log_shares[: len(assignments)]) / (len(scores) - 1)
    return reduce(-jnp.mean(jnp.sum(targets * others, axis=2), axis=0), weights=weights)

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
from jaxcluster.losses.inputs import as_logits, as_matching, as_weights, check_shape, in_one_dtype, present
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
    scores_a = check.check_matrix(scores_a, name="scores_a")
    scores_b = check_shape(scores_b, scores_a.shape, name="scores_b", of="scores_a")
    of_rows = as_weights(weights, scores_a.shape[0])
    mask = None if of_rows is None else of_rows.values > 0
    scores = (scores_a, scores_b)
    # As they are given: concrete float64 keeps its digits into the assignments as into the predictions.
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
    shape = check.check_matrix(scores[0], name="scores[0]").shape
    named = [check_shape(value, shape, name=f"scores[{i}]", of="scores[0]") for i, value in enumerate(scores)]
    logits = [as_logits(value, name=f"scores[{i}]") for i, value in enumerate(named)]
    targets = [as_matching(q, shape, name=f"assignments[{i}]", of="scores[0]") for i, q in enumerate(assignments)]
    arrays = in_one_dtype(*logits, *targets)
    temperature = jnp.asarray(check.check_positive("temperature", temperature), arrays[0].dtype)
    weights = as_weights(weights, shape[0])
    arrays = [present(array, weights) for array in arrays]
    log_shares = jax.nn.log_softmax(jnp.stack(arrays[: len(scores)]) / temperature, axis=2)
    targets = jax.lax.stop_gradient(jnp.stack(arrays[len(scores) :]))
    # All other views together first: a product for each assignment, not for each pair.
    others = (jnp.sum(log_shares, axis=0)[None] - log_shares[: len(assignments)]) / (len(scores) - 1)
    return reduce(-jnp.mean(jnp.sum(targets * others, axis=2), axis=0), weights=weights)

"""SwAV's loss: swapped prediction of cluster assignments between the views of a sample.

>>> import numpy as np
>>> scores = np.eye(2)
>>> round(float(swapped_prediction_loss(scores, scores, temperature=1.0)), 3)  # log(1 + e) − 1 for one-hot assignments
0.313

Source: M. Caron et al., Unsupervised learning of visual features by contrasting cluster assignments, NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxcluster.cluster.sinkhorn import swav_assignments
from jaxcluster.core import validation
from jaxcluster.losses.validation import (
    as_logits,
    as_positive,
    as_shaped,
    as_weights,
    check_shape,
    promote,
    reduce,
    zero_unweighted,
)
from jaxcluster.types import Array, Float


def swapped_prediction_loss(
    scores_a: Any,
    scores_b: Any,
    *,
    temperature: Any = 0.1,
    epsilon: Any = 0.05,
    num_iters: int = 3,
    weights: Any = None,
) -> Float[Array, ""]:
    """½·mean over samples of −Σ_j q^a_j·log softmax(s^b/τ)_j − Σ_j q^b_j·log softmax(s^a/τ)_j (nats).

    q are ``sinkhorn.swav_assignments`` of the scores: balanced over the prototypes, and constants. The paper has the
    sum of both directions, its authors' code the mean, as here.

    Args:
        scores_a, scores_b: (n_samples, n_prototypes) cosine similarities of two views of each sample to the prototypes.
        temperature: τ > 0 of the predictions. Traced.
        epsilon: > 0, entropic regularization of the assignments. Traced.
        num_iters: number of Sinkhorn iterations, static.
        weights: (n_samples,) >= 0; None for 1 each. Samples of weight 0 take no part in the assignments.

    Raises:
        ValueError, TypeError: wrong shapes, weights or options.
    """
    scores_a = validation.check_matrix(scores_a, name="scores_a")
    scores_b = check_shape(scores_b, scores_a.shape, name="scores_b", of="scores_a")
    checked = as_weights(weights, scores_a.shape[0])
    mask = None if checked is None else checked.values > 0
    scores = (scores_a, scores_b)
    # Not narrowed before: concrete float64 keeps its digits in the assignments as in the predictions.
    assignments = [swav_assignments(jax.lax.stop_gradient(each), epsilon, num_iters, mask) for each in scores]
    return swapped_prediction_from_assignments(assignments, scores, temperature=temperature, weights=weights)


def swapped_prediction_from_assignments(
    assignments: Sequence[Any] | Array, scores: Sequence[Any] | Array, *, temperature: Any = 0.1, weights: Any = None
) -> Float[Array, ""]:
    """The swapped prediction loss of precomputed assignments, also of more views than have them (multi-crop).

    The mean over assignments i, and over all views v ≠ i, of the cross-entropy −Σ_j q^i_j·log softmax(s^v/τ)_j.

    Args:
        assignments: m >= 1 arrays (n_samples, n_prototypes), of the first m views: rows sum to 1. Constants. If a queue
            of earlier scores took part in them, pass the samples of the batch only.
        scores: at least 2 and at least m arrays (n_samples, n_prototypes), of all views of the same samples.
        temperature: τ > 0. Traced.
        weights: (n_samples,) >= 0; None for 1 each.

    Raises:
        ValueError, TypeError: wrong shapes or numbers of views, weights, or a temperature that is not positive.
    """
    if not 1 <= len(assignments) <= len(scores) or len(scores) < 2:
        raise ValueError(
            f"got {len(assignments)} assignments for {len(scores)} views; expected those of the first views, at least "
            "1, and at least 2 views, so that one predicts the other."
        )
    shape = validation.check_matrix(scores[0], name="scores[0]").shape
    checked = [check_shape(value, shape, name=f"scores[{i}]", of="scores[0]") for i, value in enumerate(scores)]
    logits = [as_logits(value, name=f"scores[{i}]") for i, value in enumerate(checked)]
    targets = [as_shaped(q, shape, name=f"assignments[{i}]", of="scores[0]") for i, q in enumerate(assignments)]
    arrays = promote(*logits, *targets)
    temperature = as_positive("temperature", temperature, arrays[0].dtype)
    weights = as_weights(weights, shape[0])
    arrays = [zero_unweighted(array, weights) for array in arrays]
    log_probs = jax.nn.log_softmax(jnp.stack(arrays[: len(scores)]) / temperature, axis=2)
    targets = jax.lax.stop_gradient(jnp.stack(arrays[len(scores) :]))
    # Predictions of the other views are averaged first: m products with the targets instead of m·(views − 1).
    others = (jnp.sum(log_probs, axis=0)[None] - log_probs[: len(assignments)]) / (len(scores) - 1)
    return reduce(-jnp.mean(jnp.sum(targets * others, axis=2), axis=0), weights=weights)

"""Metric-learning losses of all pairs in a labeled batch, and of pairs with a memory of earlier batches.

Multi-similarity, circle, margin, angular, N-pairs and lifted structure. A label of −1 is unknown, and its sample takes
part in nothing. A batch without the pairs that a loss needs has loss 0 and gradient 0. Memory is n·m for n samples and
m references.

>>> import numpy as np
>>> from jaxcluster.losses import margin_loss
>>> z = np.array([[0.0], [1.0], [1.1]])
>>> round(float(margin_loss(z, [0, 0, 1], beta=1.0, margin=0.2)), 3)  # mean of 0.2, 0.1, 1.1, from both sides
0.467

Sources: X. Wang, X. Han, W. Huang, D. Dong and M. Scott, Multi-similarity loss with general pair weighting for deep
metric learning, CVPR 2019; Y. Sun et al., Circle loss: a unified perspective of pair similarity optimization, CVPR
2020; C.-Y. Wu, R. Manmatha, A. Smola and P. Krähenbühl, Sampling matters in deep embedding learning, ICCV 2017
(margin); J. Wang, F. Zhou, S. Wen, X. Liu and Y. Lin, Deep metric learning with angular loss, ICCV 2017; K. Sohn,
Improved deep metric learning with multi-class N-pair loss objective, NeurIPS 2016; H. Oh Song, Y. Xiang, S. Jegelka and
S. Savarese, Deep metric learning via lifted structured feature embedding, CVPR 2016.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.core import validation
from jaxcluster.core.dtypes import times_power_of_two
from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.losses.triplet import negative_mask, positive_mask
from jaxcluster.losses.validation import (
    as_directions,
    as_label_pair,
    as_labels,
    as_matrix,
    as_positive,
    as_samples,
    check_shape,
    exponent_out_of_range,
    mask_rows,
    promote,
    reduce,
)
from jaxcluster.ops.differences import distances
from jaxcluster.ops.distance import inner_products, normalize, squared_norms
from jaxcluster.types import Array, Bool, Float

MAX_ANGLE = 60.0
"""Largest angle of `angular_loss`, in degrees. Its logits are up to 8·tan² of it: 24 here, and 1,000 at 85 degrees."""


class BatchPairs(NamedTuple):
    """Embeddings of a batch and of its references, and which pairs of them are positive and negative.

    Attributes:
        z: (n_samples, n_features), zeros for samples of unknown label.
        reference: (n_references, n_features), the batch itself without a memory.
        positive, negative: (n_samples, n_references) masks.
        known: (n_samples,) samples whose label is known.
    """

    z: Float[Array, "n d"]
    reference: Float[Array, "m d"]
    positive: Bool[Array, "n m"]
    negative: Bool[Array, "n m"]
    known: Bool[Array, " n"]


def batch_pairs(
    z: Any, labels: Any, reference: Any = None, reference_labels: Any = None, pairs: Any = None, *, unit: bool
) -> BatchPairs:
    """Check a batch and its references, and find its pairs; with ``unit`` all rows get length 1.

    Raises:
        ValueError, TypeError: wrong shapes; references without labels, or labels without references.
    """
    if (reference is None) != (reference_labels is None):
        raise ValueError("reference and reference_labels belong together: pass both of them, or neither.")
    given = {"z": z} if reference is None else {"z": z, "reference": reference}
    if unit:
        # Cosines depend on the origin, so that no median may be subtracted.
        rows = promote(*(as_directions(array, name=name) for name, array in given.items()))
        if rows[-1].shape[1] != rows[0].shape[1]:
            raise ValueError(f"reference has {rows[-1].shape[1]} columns, but z has {rows[0].shape[1]}.")
    else:
        rows = as_samples(**given)
    n = rows[0].shape[0]
    if reference is None:
        labels = as_labels(labels, n)
        known = others = labels >= 0
        positive, negative = positive_mask(labels), negative_mask(labels)
    else:
        labels, other_labels = as_label_pair(labels, n, reference_labels, rows[1].shape[0])
        known, others = labels >= 0, other_labels >= 0
        both = known[:, None] & others[None, :]
        # In the wider of both types: a narrower one would give two classes one number.
        dtype = max(labels.dtype, other_labels.dtype, key=lambda each: each.itemsize)
        same = labels.astype(dtype)[:, None] == other_labels.astype(dtype)[None, :]
        positive, negative = same & both, ~same & both
    if pairs is not None:
        pairs = check_shape(pairs, positive.shape, name="pairs", of="z and reference")
        pairs = jnp.asarray(pairs).astype(bool)
        positive, negative = positive & pairs, negative & pairs
    rows = [mask_rows(mask, each) for mask, each in zip((known, others), (rows[0], rows[-1]), strict=True)]
    if unit:
        rows = [normalize(each) for each in rows]
    return BatchPairs(rows[0], rows[1], positive, negative, known)


def multi_similarity_loss(
    z: Any,
    labels: Any,
    *,
    alpha: Any = 2.0,
    beta: Any = 50.0,
    base: Any = 0.5,
    reference: Any = None,
    reference_labels: Any = None,
    pairs: Any = None,
) -> Float[Array, ""]:
    """Mean over samples of log(1 + Σ_p exp(−α(s_p − λ)))/α + log(1 + Σ_n exp(β(s_n − λ)))/β, s the cosine similarity.

    Args:
        z: (n_samples, n_features) embeddings; normalized here.
        labels: (n_samples,) integers, or concrete strings or objects; samples of unknown label, −1, take no part.
        alpha, beta: > 0, scales of positives and of negatives. Traced.
        base: λ, the similarity that positives should exceed and negatives should not. Traced.
        reference, reference_labels: (m, n_features) embeddings that samples form pairs with, and integer labels of
            both, such as those of a `jaxcluster.losses.CrossBatchMemory`; None for the batch itself.
        pairs: (n_samples, n_samples or m) mask of the pairs to use, such as `multi_similarity_pairs`; None for all.

    Returns:
        () loss.

    Raises:
        ValueError, TypeError: wrong shapes, labels that are not integers, a scale that is not positive.
    """
    batch = batch_pairs(z, labels, reference, reference_labels, pairs, unit=True)
    dtype = batch.z.dtype
    alpha = as_positive("alpha", alpha, dtype)
    beta = as_positive("beta", beta, dtype)
    excess = inner_products(batch.z, batch.reference) - jnp.asarray(base, dtype)
    attract = _log_one_plus_sum(-alpha * excess, batch.positive) / alpha
    repel = _log_one_plus_sum(beta * excess, batch.negative) / beta
    return reduce(attract + repel, mask=batch.known)


def circle_loss(
    z: Any,
    labels: Any,
    *,
    margin: Any = 0.4,
    scale: Any = 80.0,
    reference: Any = None,
    reference_labels: Any = None,
    pairs: Any = None,
) -> Float[Array, ""]:
    """Mean over anchors of log(1 + Σ_n exp(γ·a_n·(s_n − m))·Σ_p exp(−γ·a_p·(s_p − 1 + m))), s the cosine similarity.

    The weights a_p = max(0, 1 + m − s_p) and a_n = max(0, s_n + m) are constants for the gradient. Anchors are the
    samples with a positive and a negative.

    Args:
        z: (n_samples, n_features) embeddings; normalized here.
        margin: m in (0, 1). Traced.
        scale: γ > 0. Traced.
        labels, reference, reference_labels, pairs: see `multi_similarity_loss`.

    Returns:
        () loss.

    Raises:
        ValueError, TypeError: wrong shapes, labels that are not integers, a scale or margin that is not positive.
    """
    batch = batch_pairs(z, labels, reference, reference_labels, pairs, unit=True)
    dtype = batch.z.dtype
    margin = as_positive("margin", margin, dtype)
    scale = as_positive("scale", scale, dtype)
    similarity = inner_products(batch.z, batch.reference)
    fixed = jax.lax.stop_gradient(similarity)
    attract = -scale * jnp.maximum(1 + margin - fixed, 0) * (similarity - 1 + margin)
    repel = scale * jnp.maximum(fixed + margin, 0) * (similarity - margin)
    anchors = jnp.any(batch.positive, axis=1) & jnp.any(batch.negative, axis=1)
    # Rows that are masked in the end take part with all their pairs: a log-sum-exp of nothing has no finite gradient.
    total = sum(
        _log_sum(x, mask | ~anchors[:, None]) for x, mask in ((attract, batch.positive), (repel, batch.negative))
    )
    return reduce(jax.nn.softplus(total), mask=anchors)


def margin_loss(
    z: Any,
    labels: Any,
    *,
    beta: Any = 1.2,
    margin: Any = 0.2,
    reference: Any = None,
    reference_labels: Any = None,
    pairs: Any = None,
    reduction: str = "nonzero",
) -> Float[Array, ""]:
    """max(0, d − β + m) of positive pairs and max(0, β − d + m) of negative ones, d the Euclidean distance.

    Args:
        z: (n_samples, n_features) embeddings; the paper normalizes them first.
        beta: β, the distance between positives and negatives, in the units of z: a number, or (n_samples,), one of
            each sample, such as a learned one of its class. The loss has a gradient with respect to it.
        margin: m > 0, in the units of z. Traced.
        labels, reference, reference_labels, pairs: see `multi_similarity_loss`. Without a reference each pair
            counts twice, once with each of its samples as the anchor.
        reduction: "nonzero" for the mean of the terms above 0, "mean" or "sum" of all terms.

    Returns:
        () loss.

    Raises:
        ValueError, TypeError: wrong shapes, labels that are not integers, a margin that is not positive, an unknown
            reduction.
    """
    validation.check_choice("reduction", reduction, ("nonzero", "mean", "sum"))
    batch = batch_pairs(z, labels, reference, reference_labels, pairs, unit=False)
    dtype = batch.z.dtype
    margin = as_positive("margin", margin, dtype)
    beta = jnp.asarray(beta, dtype)
    if beta.shape not in ((), (batch.z.shape[0],)):
        raise ValueError(f"beta must be a number or have shape ({batch.z.shape[0]},), one a row, got {beta.shape}.")
    beta = jnp.broadcast_to(beta, batch.z.shape[:1])[:, None]
    d = distances(batch.z, batch.reference)
    terms = jnp.maximum(jnp.where(batch.positive, d - beta, beta - d) + margin, 0)
    return reduce(terms, reduction, mask=batch.positive | batch.negative)


def lifted_structure_loss(z: Any, labels: Any, *, margin: Any = 1.0) -> Float[Array, ""]:
    """Half the mean over positive pairs of max(0, d_ij + log(Σ_n exp(m − d_in) + Σ_n exp(m − d_jn)))².

    The sums are over the negatives of both samples of a pair; d is the Euclidean distance. Pairs of a class without
    negatives have no term.

    Args:
        z: (n_samples, n_features) embeddings.
        labels: (n_samples,) integers, or concrete strings or objects; samples of unknown label, −1, take no part.
        margin: m > 0, in the units of z. Traced.

    Returns:
        () loss.

    Raises:
        ValueError, TypeError: wrong shapes, labels that are not integers, a margin that is not positive.
    """
    batch = batch_pairs(z, labels, unit=False)
    margin = as_positive("margin", margin, batch.z.dtype)
    d = distances(batch.z, batch.reference)
    anchors = jnp.any(batch.negative, axis=1)
    # In logarithms: exp of a far negative is 0 in float32, and the logarithm of a sum of zeros has no gradient. Rows
    # without negatives take part with all pairs until they are masked.
    repel = _log_sum(margin - d, batch.negative | ~anchors[:, None])
    terms = jnp.square(jnp.maximum(d + jnp.logaddexp(repel[:, None], repel[None, :]), 0)) / 2
    return reduce(terms, mask=batch.positive & anchors[:, None] & anchors[None, :])


def n_pairs_loss(anchor: Any, positive: Any, labels: Any = None, *, l2_weight: Any = 0.0) -> Float[Array, ""]:
    """Mean cross-entropy of each anchor's own positive among the positives of all, by inner products.

    Args:
        anchor, positive: (n_pairs, n_features) samples of one class each, not normalized.
        labels: (n_pairs,) classes of the pairs; the positives of other pairs of the same class are left out, and
            pairs of unknown class, −1, take no part. None if all classes differ.
        l2_weight: >= 0, weight of the mean of (‖a‖² + ‖p‖²)/4, which bounds the lengths. Traced.

    Returns:
        () loss (nats).

    Raises:
        ValueError, TypeError: wrong shapes, labels that are not integers, a negative weight.
    """
    anchor = as_matrix(anchor, name="anchor")
    positive = check_shape(positive, anchor.shape, name="positive", of="anchor")
    # The cross-entropy does not depend on a·o: about an origin the products of positives have the digits to differ.
    (relative,) = as_samples(positive=positive)
    anchor, positive, relative = promote(anchor, as_matrix(positive, name="positive"), relative)
    n = anchor.shape[0]
    labels = jnp.arange(n, dtype=jnp.int32) if labels is None else as_labels(labels, n)
    l2_weight = as_positive("l2_weight", l2_weight, anchor.dtype, zero=True)
    known = labels >= 0
    anchor, positive, relative = (mask_rows(known, each) for each in (anchor, positive, relative))
    # Rows of unknown class are masked in the end, and see themselves alone until then.
    rivals = negative_mask(labels) | jnp.eye(n, dtype=bool)
    relative = relative - jax.lax.stop_gradient(relative[jnp.argmax(known)])[None, :]
    error = _cross_entropy_of_own(anchor, relative, rivals)
    lengths = squared_norms(anchor) + squared_norms(positive)
    return reduce(error + jnp.where(l2_weight > 0, l2_weight * lengths / 4, 0), mask=known)


def _cross_entropy_of_own(anchor, positive, rivals):
    """(n,) log Σ_j exp(a_i·(p_j − p_i)) over the mask of rivals, which holds i."""
    exponent = exponent_out_of_range(anchor, positive)
    logits = inner_products(times_power_of_two(anchor, -exponent), times_power_of_two(positive, -exponent))
    error = _log_sum(logits, rivals) - jnp.diagonal(logits)
    # Products beyond float32 differ by so much that the largest is the whole sum.
    largest = jnp.argmax(jnp.where(rivals, jax.lax.stop_gradient(logits), -jnp.inf), axis=1)
    return jnp.where(exponent > 0, _row_products(anchor, positive[largest] - positive), error)


@jax.custom_jvp
def _row_products(x: Float[Array, "n d"], y: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Inner product of each row with the other's, infinite only where it is beyond the dtype."""
    exponent = exponent_out_of_range(x, y)
    products = jnp.sum(times_power_of_two(x, -exponent) * times_power_of_two(y, -exponent), axis=1)
    return times_power_of_two(products, 2 * exponent)


@_row_products.defjvp
def _row_products_jvp(rows, tangents):
    # The derivatives are x and y themselves, and finite; those of the program above pass 2^2e, which may not be.
    (x, y), (dx, dy) = rows, tangents
    return _row_products(x, y), jnp.sum(dx * y + x * dy, axis=1)


def angular_loss(z: Any, labels: Any, *, angle: float = 40.0) -> Float[Array, ""]:
    """Mean over positive pairs of log(1 + Σ_n exp(4·tan²α·(a + p)·n − 2·(1 + tan²α)·a·p)), of rows of length 1.

    It bounds the angle at each negative n of the triangle of a, p and n. Pairs of a class without negatives have no
    term. Memory is a tile of n³.

    Args:
        z: (n_samples, n_features) embeddings; normalized here.
        labels: (n_samples,) integers, or concrete strings or objects; samples of unknown label, −1, take no part.
        angle: α, degrees, in (0, 60].

    Returns:
        () loss.

    Raises:
        ValueError, TypeError: wrong shapes, labels that are not integers, an angle out of range.
    """
    if not 0 < float(validation.check_positive("angle", angle)) <= MAX_ANGLE:
        raise ValueError(f"angle={angle} must be in (0, {MAX_ANGLE:g}] degrees.")
    batch = batch_pairs(z, labels, unit=True)
    bound = math.tan(math.radians(float(angle))) ** 2
    similarity = inner_products(batch.z, batch.reference)
    anchors = jnp.any(batch.negative, axis=1)

    # Reverse mode would keep the n³ logits of all tiles; it computes one tile at a time again.
    @jax.checkpoint
    def of_anchors(rows):
        own, negative = rows
        logits = 4 * bound * (own[:, None, :] + similarity[None, :, :]) - 2 * (1 + bound) * own[:, :, None]
        return _log_one_plus_sum(logits, negative[:, None, :])

    n = similarity.shape[0]
    terms = map_rows(of_anchors, (similarity, batch.negative), tile=tile_rows(n, n * n))
    return reduce(terms, mask=batch.positive & anchors[:, None])


def _log_sum(logits, mask):
    """log Σ exp over the last axis and the mask, which must hold something in each row."""
    return jax.nn.logsumexp(jnp.where(mask, logits, -jnp.inf), axis=-1)


def _log_one_plus_sum(logits, mask):
    """log(1 + Σ exp) over the last axis and the mask, which may be empty."""
    logits = jnp.where(mask, logits, -jnp.inf)
    # The 1 is exp(0), one more logit: nothing overflows, and the logarithm over an empty mask is 0.
    return jax.nn.logsumexp(jnp.concatenate([logits, jnp.zeros_like(logits[..., :1])], axis=-1), axis=-1)

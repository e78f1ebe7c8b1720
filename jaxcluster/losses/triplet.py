"""Pairs and triplets of a labeled batch, and the triplet loss of given or mined triplets.

Index arrays (`pairs_from_labels`, `triplets_from_labels`) need concrete labels and are made on the host; masks and
`mined_triplet_loss` may be traced. A label of −1 is unknown, and its sample takes part in nothing. Both distances of
the loss are Euclidean, not squared.

>>> import numpy as np
>>> z, labels = np.array([[0.0], [1.0], [5.0]]), np.array([0, 0, 1])
>>> float(mined_triplet_loss(z, labels, margin=5.0, mining="hard"))  # max(0, 1 − 5 + 5) and max(0, 1 − 4 + 5)
1.5

Sources: F. Schroff, D. Kalenichenko and J. Philbin, FaceNet, CVPR 2015, for semi-hard negatives; A. Hermans, L. Beyer
and B. Leibe, In defense of the triplet loss for person re-identification, arXiv:1703.07737 (2017), for batch-hard
mining and the mean of the non-zero terms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import validation
from jaxcluster.core.dtypes import exponent_of, times_power_of_two
from jaxcluster.core.fold import fold_rows, tile_rows
from jaxcluster.losses.validation import (
    as_labels,
    as_paired_samples,
    as_positive,
    as_samples,
    as_weights,
    encode_labels,
    mask_rows,
    reduce,
    zero_unweighted,
)
from jaxcluster.ops.differences import length, root, squared_distances, squared_excess
from jaxcluster.types import Array, Bool, Float, Int

MINING = ("all", "hard", "semi-hard")

MAX_COUNT = np.iinfo(np.int32).max

MAX_EXPONENT = 100
"""Samples are scaled by 2^100 at most: the margin is scaled with them, and must stay finite in float32 (2^128)."""


class Pairs(NamedTuple):
    """Pairs of samples, each once.

    Attributes:
        first, second: (n_pairs,) indices of samples, first < second.
        same: (n_pairs,) True where both have one label.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


class Triplets(NamedTuple):
    """Ordered triplets of samples.

    Attributes:
        anchor: (n_triplets,) indices of samples.
        positive: (n_triplets,) other samples with the label of the anchor.
        negative: (n_triplets,) samples with another label.
    """

    anchor: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


class TripletCounts(NamedTuple):
    """Number of loss terms of a batch; all 0 where no sample has both a positive and a negative.

    Attributes:
        anchors: () samples with a positive and a negative, the terms of mining="hard".
        pairs: () ordered pairs of such an anchor and a positive, the terms of mining="semi-hard".
        triplets: () all triplets, the terms of mining="all"; 2³¹ − 1 stands for about that many or more.
    """

    anchors: Int[Array, ""]
    pairs: Int[Array, ""]
    triplets: Int[Array, ""]


class _Anchors(NamedTuple):
    """Rows of `_relative_distances`, and masks of the positives and negatives of each anchor."""

    distance: Float[Array, "t n"]
    positive: Bool[Array, "t n"]
    negative: Bool[Array, "t n"]


def pairs_from_labels(labels: Any) -> Pairs:
    """All pairs of samples with known labels, for `contrastive_loss(z[first], z[second], same)`.

    Args:
        labels: (n_samples,) concrete integers, −1 for unknown, strings or objects.

    Raises:
        TypeError, ValueError: labels that are traced, floating, NaN or None, or of another shape.
    """
    labels = _encode_concrete(labels, "pairs_from_labels")
    first, second = np.triu_indices(labels.size, k=1)
    known = (labels[first] >= 0) & (labels[second] >= 0)
    first, second = first[known], second[known]
    return Pairs(first, second, labels[first] == labels[second])


def pairs_from_views(n: int, views: int = 2) -> Pairs:
    """All pairs of n·views rows: the first views of n samples, then their second views, …; views of a sample match.

    Raises:
        TypeError, ValueError: counts below 1, or that are not integers.
    """
    return pairs_from_labels(labels_of_views(n, views))


def labels_of_views(n: int, views: int = 2) -> np.ndarray:
    """(n·views,) int32, the sample of each view: the first views of n samples, then their second views, …."""
    return np.tile(np.arange(validation.check_count("n", n), dtype=np.int32), validation.check_count("views", views))


def triplets_from_labels(labels: Any) -> Triplets:
    """All triplets, for `triplet_loss(z[anchor], z[positive], z[negative])`; up to n³/4 of n samples.

    Args:
        labels: (n_samples,) concrete integers, −1 for unknown, strings or objects.

    Raises:
        TypeError, ValueError: labels that are traced, floating, NaN or None, or of another shape.
    """
    labels = _encode_concrete(labels, "triplets_from_labels")
    same, known = labels[:, None] == labels, labels >= 0
    anchor, positive = np.nonzero(same & known & ~np.eye(labels.size, dtype=bool))
    pair, negative = np.nonzero(~same[anchor] & known)
    return Triplets(anchor[pair], positive[pair], negative)


def positive_mask(labels: Any) -> Bool[Array, "n n"]:
    """Mask of pairs of two different samples with the same, known label. Labels may be traced."""
    labels = as_labels(labels, None)
    distinct = ~jnp.eye(labels.shape[0], dtype=bool)
    return (labels[:, None] == labels[None, :]) & (labels >= 0)[None, :] & distinct


def negative_mask(labels: Any) -> Bool[Array, "n n"]:
    """Mask of pairs of samples with different, known labels. Labels may be traced."""
    labels = as_labels(labels, None)
    known = labels >= 0
    return (labels[:, None] != labels[None, :]) & known[None, :] & known[:, None]


def count_triplets(labels: Any) -> TripletCounts:
    """Number of anchors, pairs and triplets that the labels of a batch give; see `TripletCounts`. May be traced.

    Args:
        labels: (n_samples,) integers, −1 for unknown, or concrete strings or objects.

    Raises:
        TypeError, ValueError: labels that are not integers, or of another shape.
    """
    positives = jnp.sum(positive_mask(labels), axis=1, dtype=jnp.int32)
    negatives = jnp.sum(negative_mask(labels), axis=1, dtype=jnp.int32)
    per_anchor = positives * negatives
    # int32 would wrap. float32 tells before it does: its sum is off by far less than a thousandth.
    overflows = jnp.sum(per_anchor.astype(jnp.float32)) >= 0.999 * MAX_COUNT
    triplets = jnp.where(overflows, MAX_COUNT, jnp.sum(per_anchor, dtype=jnp.int32))
    anchors = jnp.sum(per_anchor > 0, dtype=jnp.int32)
    return TripletCounts(anchors, jnp.sum(jnp.where(per_anchor > 0, positives, 0), dtype=jnp.int32), triplets)


def triplet_loss(
    anchor: Any, positive: Any, negative: Any, *, margin: Any = 1.0, weights: Any = None, reduction: str = "mean"
) -> Float[Array, "*n"]:
    """max(0, d(a, p) − d(a, n) + m) of each triplet, d the Euclidean distance.

    Args:
        anchor, positive, negative: (n_triplets, n_features) the samples of each triplet;
            `jaxcluster.losses.triplets_from_labels` lists the triplets of a batch.
        margin: m > 0, in the units of the samples. Traced.
        weights: (n_triplets,) >= 0, or None for 1 each.
        reduction: "mean", "sum", "none" for (n_triplets,) terms, or "nonzero": the mean of the terms above 0.

    Raises:
        ValueError, TypeError: wrong shapes, a margin that is not positive, an unknown reduction.
    """
    anchor, positive, negative = as_paired_samples(anchor=anchor, positive=positive, negative=negative)
    margin = as_positive("margin", margin, anchor.dtype)
    weights = as_weights(weights, anchor.shape[0])
    anchor, positive, negative = (zero_unweighted(each, weights) for each in (anchor, positive, negative))
    difference = _length_difference(anchor - positive, anchor - negative, negative - positive)
    return reduce(jnp.maximum(difference + margin, 0), reduction, weights=weights)


def mined_triplet_loss(
    z: Any, labels: Any, *, margin: Any = 1.0, mining: str = "semi-hard", reduction: str = "nonzero"
) -> Float[Array, ""]:
    """The triplet loss of triplets that are mined from a batch, also under jit.

    - "all": every triplet is a term.
    - "hard": every anchor is a term, with its farthest positive and its nearest negative.
    - "semi-hard": every pair of an anchor and a positive is a term, with the nearest of the negatives that are farther
      than the positive; where there are none, with the farthest negative, as is usual.

    A batch without triplets, of one class or with no label twice, has loss 0 and gradient 0;
    `jaxcluster.losses.count_triplets` counts them. Memory is n² and a tile of n³.

    Args:
        z: (n_samples, n_features) embeddings.
        labels: (n_samples,) integers, or concrete strings or objects; samples of unknown label, −1, take no part.
        margin: m > 0, in the units of z. Traced.
        mining: "all", "hard" or "semi-hard".
        reduction: "nonzero" for the mean of the terms above 0, "mean" or "sum" of all terms.

    Raises:
        ValueError, TypeError: wrong shapes, labels that are not integers, a margin that is not positive, an unknown
            mining or reduction.
    """
    validation.check_choice("mining", mining, MINING)
    validation.check_choice("reduction", reduction, ("nonzero", "mean", "sum"))
    (z,) = as_samples(z=z)
    margin = as_positive("margin", margin, z.dtype)
    n = z.shape[0]
    labels = as_labels(labels, n)
    z = mask_rows(labels >= 0, z)
    # A power of two, which is exact, brings the largest entry near 1. Then no square overflows, and differences down to
    # 2⁻⁶⁰ have squares above 0.
    exponent = jnp.minimum(-exponent_of(jnp.max(jnp.abs(jax.lax.stop_gradient(z)))), MAX_EXPONENT)
    z, margin = times_power_of_two(z, exponent), times_power_of_two(margin, exponent)
    anchors = _Anchors(_relative_distances(z), positive_mask(labels), negative_mask(labels))
    differences_of = {"all": _all_triplets, "hard": _hard_triplets, "semi-hard": _semi_hard_triplets}[mining]

    # Reverse mode would keep the n³ terms of all tiles; it recomputes one tile at a time instead.
    @jax.checkpoint
    def sum_tile(anchors):
        differences, mask = differences_of(anchors)
        terms = jnp.where(mask, jnp.maximum(differences + margin, 0), 0)
        counted = mask & (terms > 0) if reduction == "nonzero" else mask
        return (jnp.sum(terms), jnp.sum(counted, dtype=terms.dtype)), ()

    size = tile_rows(n, n if mining == "hard" else n * n)
    (total, count), _ = fold_rows(sum_tile, anchors, tile=size)
    total = times_power_of_two(total, -exponent)
    return total if reduction == "sum" else total / jnp.where(count > 0, count, 1)


def _length_difference(first, second, difference):
    """‖first‖ − ‖second‖ for difference = first − second, as difference·(first + second)/(‖first‖ + ‖second‖).

    The lengths themselves would cancel: from a far anchor they agree in all digits, and the difference does not.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.maximum(jnp.abs(first), jnp.abs(second)), axis=1))
    unit = jnp.where(largest > 0, largest, 1)  # so that no square overflows or underflows
    first, second, difference = (vectors / unit[:, None] for vectors in (first, second, difference))
    total = length(first) + length(second)
    return unit * jnp.sum(difference * (first + second), axis=1) / jnp.where(total > 0, total, 1)


def _relative_distances(z):
    """(n, n) distances less the distance of each row's nearest other sample.

    A term needs d(a, p) − d(a, n) only, where a shift of the anchor's row cancels. The distances of a far anchor agree
    in all digits; (d² − d₀²)/(d + d₀) of differences does not lose them.
    """
    squares = squared_distances(z, z)
    others = jnp.where(jnp.eye(z.shape[0], dtype=bool), jnp.inf, jax.lax.stop_gradient(squares))
    nearest = jnp.argmin(others, axis=1)
    excess = squared_excess(z, z[nearest], z)
    total = root(squares) + length(z - z[nearest])[:, None]
    return excess / jnp.where(total > 0, total, 1)


def _all_triplets(anchors):
    """(t, n, n) d(a, p) − d(a, n), and the mask of triplets."""
    differences = anchors.distance[:, :, None] - anchors.distance[:, None, :]
    return differences, anchors.positive[:, :, None] & anchors.negative[:, None, :]


def _hard_triplets(anchors):
    """(t,) differences to the farthest positive and nearest negative, and the mask of anchors that have both."""
    distance, positive, negative = anchors
    mask = jnp.any(positive, axis=1) & jnp.any(negative, axis=1)
    return _masked_max(distance, positive) - _masked_min(distance, negative), mask


def _semi_hard_triplets(anchors):
    """(t, n) differences of each positive to its semi-hard negative, and the mask of pairs with a negative."""
    distance, positive, negative = anchors
    farther = negative[:, None, :] & (distance[:, None, :] > distance[:, :, None])
    # Where all negatives are nearer than the positive, the farthest of them: the nearest would pull all embeddings into
    # one point early in the training (Schroff et al., 2015).
    semi_hard = jnp.where(
        jnp.any(farther, axis=2),
        _masked_min(distance[:, None, :], farther),
        _masked_max(distance, negative)[:, None],
    )
    return distance - semi_hard, positive & jnp.any(negative, axis=1, keepdims=True)


# An empty mask gives 0, not ±inf: inf − inf is NaN, and a later `where` would not keep it from the gradient.
def _masked_min(distance, mask):
    return jnp.where(jnp.any(mask, axis=-1), jnp.min(jnp.where(mask, distance, jnp.inf), axis=-1), 0)


def _masked_max(distance, mask):
    return jnp.where(jnp.any(mask, axis=-1), jnp.max(jnp.where(mask, distance, -jnp.inf), axis=-1), 0)


def _encode_concrete(labels, caller):
    if validation.is_traced(labels):
        raise TypeError(
            f"{caller} lists indices, and how many depends on the labels: call it outside of jit. Traced labels have "
            "positive_mask and negative_mask, and mined_triplet_loss."
        )
    return encode_labels(labels, None)

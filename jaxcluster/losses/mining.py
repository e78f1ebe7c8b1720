"""Which rows of a batch form pairs and triplets.

Index arrays are for a concrete batch and are made on the host; masks are for a traced one. A label of −1 is not known,
and its row takes part in nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxcluster.core import check
from jaxcluster.losses.inputs import as_labels, concrete_labels
from jaxcluster.types import Array, Bool, Int

MOST = np.iinfo(np.int32).max


class Pairs(NamedTuple):
    """Pairs of rows, each once.

    Attributes:
        first, second: (m,) indices of rows, first < second.
        same: (m,) whether both have one label.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


class Triplets(NamedTuple):
    """Ordered triplets of rows.

    Attributes:
        anchor: (m,) indices of rows.
        positive: (m,) other rows with the label of the anchor.
        negative: (m,) rows with another label.
    """

    anchor: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


class TripletCounts(NamedTuple):
    """What a batch has to learn from; all 0 where no row has both a positive and a negative.

    Attributes:
        anchors: () rows with a positive and a negative, the terms of mining="hard".
        pairs: () ordered pairs of such an anchor and a positive, the terms of mining="semi-hard".
        triplets: () all triplets, the terms of mining="all"; 2³¹ − 1 stands for about that many or more.
    """

    anchors: Int[Array, ""]
    pairs: Int[Array, ""]
    triplets: Int[Array, ""]


def pairs_from_labels(labels) -> Pairs:
    """All pairs of rows with known labels, for `contrastive_loss(z[first], z[second], same)`.

    Args:
        labels: (n,) concrete integers, −1 for not known, strings or objects.

    Raises:
        TypeError, ValueError: labels that are traced, floating, NaN or None, or of another shape.
    """
    labels = _concrete(labels, "pairs_from_labels")
    first, second = np.triu_indices(labels.size, k=1)
    known = (labels[first] >= 0) & (labels[second] >= 0)
    first, second = first[known], second[known]
    return Pairs(first, second, labels[first] == labels[second])


def pairs_from_views(n: int, views: int = 2) -> Pairs:
    """All pairs of n·views rows, first views of n rows, then their second ones, …; views of one row are the same.

    Raises:
        TypeError, ValueError: counts below 1, or that are not integers.
    """
    return pairs_from_labels(labels_of_views(n, views))


def labels_of_views(n: int, views: int = 2) -> np.ndarray:
    """(n·views,) int32, the row that each view is of: first views of n rows come first, then their second ones, …."""
    return np.tile(np.arange(check.check_count("n", n), dtype=np.int32), check.check_count("views", views))


def triplets_from_labels(labels) -> Triplets:
    """All triplets, for `triplet_loss(z[anchor], z[positive], z[negative])`; up to n³/4 of n rows.

    Args:
        labels: (n,) concrete integers, −1 for not known, strings or objects.

    Raises:
        TypeError, ValueError: labels that are traced, floating, NaN or None, or of another shape.
    """
    labels = _concrete(labels, "triplets_from_labels")
    same, known = labels[:, None] == labels, labels >= 0
    anchor, positive = np.nonzero(same & known & ~np.eye(labels.size, dtype=bool))
    pair, negative = np.nonzero(~same[anchor] & known)
    return Triplets(anchor[pair], positive[pair], negative)


def positive_mask(labels) -> Bool[Array, "n n"]:
    """Whether two different rows have the same label and it is known. Traced or not."""
    labels = _as_labels(labels)
    apart = ~jnp.eye(labels.shape[0], dtype=bool)
    return (labels[:, None] == labels[None, :]) & (labels >= 0)[None, :] & apart


def negative_mask(labels) -> Bool[Array, "n n"]:
    """Whether two rows have different labels and both are known. Traced or not."""
    labels = _as_labels(labels)
    known = labels >= 0
    return (labels[:, None] != labels[None, :]) & known[None, :] & known[:, None]


def count_triplets(labels) -> TripletCounts:
    """How much a batch has to learn from; see `TripletCounts`. Traced or not.

    Args:
        labels: (n,) integers, −1 for not known, or concrete strings or objects.

    Raises:
        TypeError, ValueError: labels that are not integers, or of another shape.
    """
    positives = jnp.sum(positive_mask(labels), axis=1, dtype=jnp.int32)
    negatives = jnp.sum(negative_mask(labels), axis=1, dtype=jnp.int32)
    of_rows = positives * negatives
    many = jnp.sum(of_rows.astype(jnp.float32)) >= 0.999 * MOST  # float32 does not count so far exactly
    triplets = jnp.where(many, MOST, jnp.sum(of_rows, dtype=jnp.int32))
    count = jnp.sum(of_rows > 0, dtype=jnp.int32)
    return TripletCounts(count, jnp.sum(jnp.where(of_rows > 0, positives, 0), dtype=jnp.int32), triplets)


def _as_labels(labels: Any) -> Int[Array, " n"]:
    return as_labels(labels, np.size(labels))


def _concrete(labels, caller):
    if check.is_traced(labels):
        raise TypeError(
            f"{caller} lists indices, and how many depends on the labels: call it outside of jit. Traced labels have "
            "positive_mask and negative_mask, and mined_triplet_loss."
        )
    return concrete_labels(labels, np.size(labels))

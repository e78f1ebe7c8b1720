"""The triplet loss: an anchor is to be nearer to what belongs to it than to what does not, by a margin.

Sources: F. Schroff, D. Kalenichenko and J. Philbin, FaceNet, CVPR 2015, for semi-hard negatives; A. Hermans, L. Beyer
and B. Leibe, In defense of the triplet loss for person re-identification, arXiv:1703.07737 (2017), for the hardest of
a batch and for the mean of the terms that are not 0. Both distances here are Euclidean, not squared.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.core import check
from jaxcluster.core.fold import fold_rows, tile_rows
from jaxcluster.core.frame import exponent_of, times_power_of_two
from jaxcluster.losses.inputs import as_alike, as_labels, as_rows, as_weights, present, where_rows
from jaxcluster.losses.mining import negative_mask, positive_mask
from jaxcluster.losses.reduce import reduce
from jaxcluster.ops.differences import length, root, squared_distances, squared_excess
from jaxcluster.types import Array, Bool, Float

MINING = ("all", "hard", "semi-hard")

LARGEST_EXPONENT = 100
"""Rows are scaled by 2^100 at most: so is the margin, which is then still finite."""


class _Anchors(NamedTuple):
    """Rows of the matrix of `_relative_distances`, and which columns are positives and negatives of the row."""

    distance: Float[Array, "t n"]
    positive: Bool[Array, "t n"]
    negative: Bool[Array, "t n"]


def triplet_loss(
    anchor, positive, negative, *, margin=1.0, weights=None, reduction: str = "mean"
) -> Float[Array, "*n"]:
    """max(0, d(a, p) − d(a, n) + m) of each triplet, d the Euclidean distance.

    Args:
        anchor, positive, negative: (n, d) the rows of each triplet; `jaxcluster.losses.triplets_from_labels` finds
            them in a batch.
        margin: m > 0, in the units of the rows. Traced.
        weights: (n,) >= 0, or None for 1 each.
        reduction: "mean", "sum", "none" for (n,) terms, or "nonzero": the mean of the terms above 0.

    Raises:
        ValueError, TypeError: wrong shapes, a margin that is not positive, an unknown reduction.
    """
    anchor, positive, negative = as_alike(anchor=anchor, positive=positive, negative=negative)
    margin = jnp.asarray(check.check_positive("margin", margin), anchor.dtype)
    weights = as_weights(weights, anchor.shape[0])
    anchor, positive, negative = (present(each, weights) for each in (anchor, positive, negative))
    hinge = _difference(anchor - positive, anchor - negative, negative - positive)
    terms = jnp.maximum(hinge + margin, 0)
    return reduce(terms, reduction, weights=weights)


def mined_triplet_loss(
    z, labels, *, margin=1.0, mining: str = "semi-hard", reduction: str = "nonzero"
) -> Float[Array, ""]:
    """The triplet loss of the triplets that a batch holds, found while it is traced.

    - "all": every triplet is a term.
    - "hard": every anchor is a term, with its farthest positive and its nearest negative.
    - "semi-hard": every pair of an anchor and a positive is a term, with the nearest of the negatives that are farther
      than the positive; where there are none, with the farthest negative, as is usual.

    A batch without any triplet, of one class or with no label twice, has loss 0 and gradient 0;
    `jaxcluster.losses.count_triplets` tells. Memory is n² and a tile of n³.

    Args:
        z: (n, d) embedded rows.
        labels: (n,) integers, or concrete strings or objects; rows of label −1, not known, take part in nothing.
        margin: m > 0, in the units of z. Traced.
        mining: which triplets are terms.
        reduction: "nonzero" for the mean of the terms above 0, "mean" or "sum" of all terms.

    Raises:
        ValueError, TypeError: wrong shapes, labels that are not integers, a margin that is not positive, an unknown
            mining or reduction.
    """
    check.check_choice("mining", mining, MINING)
    check.check_choice("reduction", reduction, ("nonzero", "mean", "sum"))
    (z,) = as_rows(z=z)
    margin = jnp.asarray(check.check_positive("margin", margin), z.dtype)
    n = z.shape[0]
    labels = as_labels(labels, n)
    z = where_rows(labels >= 0, z)
    z, exponent = _scaled(z)
    margin = times_power_of_two(margin, exponent)
    anchors = _Anchors(_relative_distances(z), positive_mask(labels), negative_mask(labels))
    hinges = {"all": _all_hinges, "hard": _hard_hinges, "semi-hard": _semi_hard_hinges}[mining]

    @jax.checkpoint
    def tile(anchors):
        hinge, there = hinges(anchors)
        terms = jnp.where(there, jnp.maximum(hinge + margin, 0), 0)
        counted = there & (terms > 0) if reduction == "nonzero" else there
        return (jnp.sum(terms), jnp.sum(counted, dtype=terms.dtype)), ()

    size = tile_rows(n, n if mining == "hard" else n * n)
    (total, count), _ = fold_rows(tile, anchors, tile=size)
    total = times_power_of_two(total, -exponent)
    return total if reduction == "sum" else total / jnp.where(count > 0, count, 1)


def _difference(first, second, apart):
    """‖first‖ − ‖second‖ of vectors with first − second = apart, as apart·(first + second)/(‖first‖ + ‖second‖).

    Where both are long beside what they are apart, as those from a far anchor, their lengths agree in all digits.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.maximum(jnp.abs(first), jnp.abs(second)), axis=1))
    unit = jnp.where(largest > 0, largest, 1)
    first, second, apart = (vectors / unit[:, None] for vectors in (first, second, apart))
    total = length(first) + length(second)
    return unit * jnp.sum(apart * (first + second), axis=1) / jnp.where(total > 0, total, 1)


def _scaled(z):
    """Rows times a power of two that brings their largest entry near 1, and its exponent.

    Then no square overflows, and differences down to 2⁻⁶⁰ have squares that are no zeros.
    """
    exponent = jnp.minimum(-exponent_of(jnp.max(jnp.abs(jax.lax.stop_gradient(z)))), LARGEST_EXPONENT)
    return times_power_of_two(z, exponent), exponent


def _relative_distances(z):
    """Distances of all pairs less that of each row from its nearest other row.

    A triplet's term is a difference of two distances from its anchor, those of a far anchor agree in all digits.
    """
    squares = squared_distances(z, z)
    others = jnp.where(jnp.eye(z.shape[0], dtype=bool), jnp.inf, jax.lax.stop_gradient(squares))
    nearest = jnp.argmin(others, axis=1)
    excess = squared_excess(z, z[nearest], z)
    total = root(squares) + length(z - z[nearest])[:, None]
    return excess / jnp.where(total > 0, total, 1)


def _all_hinges(anchors):
    """d(a, p) − d(a, n) as (t, n, n), and which of them are triplets."""
    hinge = anchors.distance[:, :, None] - anchors.distance[:, None, :]
    return hinge, anchors.positive[:, :, None] & anchors.negative[:, None, :]


def _hard_hinges(anchors):
    distance, positive, negative = anchors
    there = jnp.any(positive, axis=1) & jnp.any(negative, axis=1)
    return _most(distance, positive) - _least(distance, negative), there


def _semi_hard_hinges(anchors):
    distance, positive, negative = anchors
    farther = negative[:, None, :] & (distance[:, None, :] > distance[:, :, None])
    chosen = jnp.where(
        jnp.any(farther, axis=2), _least(distance[:, None, :], farther), _most(distance, negative)[:, None]
    )
    return distance - chosen, positive & jnp.any(negative, axis=1, keepdims=True)


def _least(distance, mask):
    """The least number of a mask along the last axis; 0 where there is none."""
    return jnp.where(jnp.any(mask, axis=-1), jnp.min(jnp.where(mask, distance, jnp.inf), axis=-1), 0)


def _most(distance, mask):
    """The greatest."""
    return jnp.where(jnp.any(mask, axis=-1), jnp.max(jnp.where(mask, distance, -jnp.inf), axis=-1), 0)

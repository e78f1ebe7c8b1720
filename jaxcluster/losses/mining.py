"""Miners of pairs and triplets of a labeled batch, batches with several samples of each class, and a memory of batches.

Miners return masks of fixed shape, so that they work under jit, and their masks are constants for the gradient. A label
of −1 is unknown, and its sample takes part in nothing.

>>> import jax, numpy as np
>>> from jaxcluster.losses import multi_similarity_loss, multi_similarity_pairs, class_batches
>>> z, labels = np.array([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.0, 1.0]]), np.array([0, 0, 1, 1])
>>> pairs = multi_similarity_pairs(z, labels)
>>> pairs.sum().item(), bool(multi_similarity_loss(z, labels, pairs=pairs) > 0)
(7, True)
>>> class_batches(jax.random.key(0), labels, 4, per_class=2, n_batches=3).shape
(3, 4)

Sources: X. Wang, X. Han, W. Huang, D. Dong and M. Scott, Multi-similarity loss with general pair weighting for deep
metric learning, CVPR 2019; C.-Y. Wu, R. Manmatha, A. Smola and P. Krähenbühl, Sampling matters in deep embedding
learning, ICCV 2017 (distance-weighted); J. Wang, F. Zhou, S. Wen, X. Liu and Y. Lin, Deep metric learning with angular
loss, ICCV 2017; X. Wang, H. Zhang, W. Huang and M. Scott, Cross-batch memory for embedding learning, CVPR 2020.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import validation
from jaxcluster.losses.similarity import batch_pairs
from jaxcluster.losses.validation import as_matrix, as_positive, class_numbers, encode_labels
from jaxcluster.ops.differences import distances
from jaxcluster.ops.distance import inner_products
from jaxcluster.types import Array, Bool, Float, Int, KeyArray


def multi_similarity_pairs(
    z: Any, labels: Any, *, epsilon: Any = 0.1, reference: Any = None, reference_labels: Any = None
) -> Bool[Array, "n m"]:
    """Mask of the pairs that are hard for their anchor, by the cosine similarity.

    A positive pair less similar than the anchor's most similar negative + ε, and a negative pair more similar than its
    least similar positive − ε. An anchor without positives, or without negatives, has no pairs.

    Args:
        z: (n_samples, n_features) embeddings; normalized here.
        epsilon: ε >= 0. Traced.
        labels, reference, reference_labels: see `jaxcluster.losses.multi_similarity_loss`.

    Returns:
        (n_samples, n_samples or m) mask.

    Raises:
        ValueError, TypeError: wrong shapes, labels that are not integers, a negative ε.
    """
    batch = batch_pairs(z, labels, reference, reference_labels, unit=True)
    similarity = jax.lax.stop_gradient(inner_products(batch.z, batch.reference))
    epsilon = as_positive("epsilon", epsilon, similarity.dtype, zero=True)
    # ∓inf for an anchor without negatives, or without positives: no comparison with it is true.
    nearest = jnp.max(jnp.where(batch.negative, similarity, -jnp.inf), axis=1, keepdims=True)
    farthest = jnp.min(jnp.where(batch.positive, similarity, jnp.inf), axis=1, keepdims=True)
    positive = batch.positive & (similarity - epsilon < nearest)
    return positive | (batch.negative & (similarity + epsilon > farthest))


def margin_pairs(
    z: Any,
    labels: Any,
    *,
    positive_margin: Any = 0.2,
    negative_margin: Any = 0.8,
    reference: Any = None,
    reference_labels: Any = None,
) -> Bool[Array, "n m"]:
    """Mask of the positive pairs farther apart than one margin and the negative pairs nearer than another.

    Args:
        z: (n_samples, n_features) embeddings.
        positive_margin, negative_margin: >= 0, Euclidean distances in the units of z. Traced.
        labels, reference, reference_labels: see `jaxcluster.losses.multi_similarity_loss`.

    Returns:
        (n_samples, n_samples or m) mask.

    Raises:
        ValueError, TypeError: wrong shapes, labels that are not integers, a negative margin.
    """
    batch = batch_pairs(z, labels, reference, reference_labels, unit=False)
    d = jax.lax.stop_gradient(distances(batch.z, batch.reference))
    far = as_positive("positive_margin", positive_margin, d.dtype, zero=True)
    near = as_positive("negative_margin", negative_margin, d.dtype, zero=True)
    return (batch.positive & (d > far)) | (batch.negative & (d < near))


def angular_triplets(z: Any, labels: Any, *, angle: Any = 20.0) -> Bool[Array, "n n n"]:
    """Mask of the triplets whose angle at the negative, arctan(‖a − p‖ / (2·‖n − (a + p)/2‖)), is above a bound.

    Args:
        z: (n_samples, n_features) embeddings; normalized here.
        labels: (n_samples,) integers, or concrete strings or objects.
        angle: the bound, degrees, in (0, 90). Traced.

    Returns:
        (n_samples, n_samples, n_samples) mask by anchor, positive and negative; `jnp.nonzero` lists the triplets for
        `jaxcluster.losses.triplet_loss`.

    Raises:
        ValueError, TypeError: wrong shapes, labels that are not integers, an angle that is not positive.
    """
    batch = batch_pairs(z, labels, unit=True)
    rows = jax.lax.stop_gradient(batch.z)
    n, d = rows.shape
    angle = as_positive("angle", angle, rows.dtype)
    middles = (rows[:, None, :] + rows[None, :, :]) / 2
    heights = distances(middles.reshape(n * n, d), rows).reshape(n, n, n)
    # Not by a quotient: a negative in the middle of its pair has an angle of 90 degrees.
    angles = jnp.arctan2(distances(rows, rows)[:, :, None], 2 * heights)
    wide = angles > angle * (math.pi / 180)
    return wide & batch.positive[:, :, None] & batch.negative[:, None, :]


def distance_weighted_negatives(
    key: KeyArray, z: Any, labels: Any, *, cutoff: Any = 0.5, largest: Any = 1.4
) -> tuple[Int[Array, "n n"], Bool[Array, "n n"]]:
    """Draw a negative for each positive pair, such that all distances are about as frequent.

    The distance of two random points of a sphere has density q(d) ∝ d^(D−2)·(1 − d²/4)^((D−3)/2) in D dimensions. A
    negative is drawn with a probability in proportion to 1/q(d) of its distance from the anchor.

    Args:
        key: random key.
        z: (n_samples, n_features) embeddings; normalized here.
        labels: (n_samples,) integers, or concrete strings or objects.
        cutoff: > 0, distance below which negatives are as probable as at it: their gradients are noise. Traced.
        largest: > cutoff, distance from which on negatives are not drawn: they have no loss. Traced.

    Returns:
        (n_samples, n_samples) int32 position of the negative of each anchor and positive, and the mask of the positive
        pairs that have one.

    Raises:
        ValueError, TypeError: wrong shapes, labels that are not integers, distances that are not positive.
    """
    key = validation.check_key(key)
    batch = batch_pairs(z, labels, unit=True)
    rows = jax.lax.stop_gradient(batch.z)
    cutoff = as_positive("cutoff", cutoff, rows.dtype)
    largest = as_positive("largest", largest, rows.dtype)
    d = distances(rows, rows)
    dimension = rows.shape[1]
    bounded = jnp.maximum(d, cutoff)
    # At d = 2, the diameter, the density of four or more dimensions is 0; such samples are beyond any useful `largest`.
    rest = jnp.maximum(1 - jnp.square(bounded) / 4, jnp.finfo(rows.dtype).eps)
    log_weight = (2 - dimension) * jnp.log(bounded) + (3 - dimension) / 2 * jnp.log(rest)
    drawable = batch.negative & (d < largest)
    some = jnp.any(drawable, axis=1)
    # Rows without such negatives draw from all samples, and are masked.
    logits = jnp.where(drawable | ~some[:, None], log_weight, -jnp.inf)
    drawn = jax.random.categorical(key, logits[:, None, :], axis=2, shape=d.shape)
    return drawn.astype(jnp.int32), batch.positive & some[:, None]


def class_batches(key: KeyArray, labels: Any, batch_size: int, *, per_class: int = 4, n_batches: int) -> np.ndarray:
    """Draw batches with the same number of samples of each of some random classes, on the host.

    Samples of a class are drawn without replacement, or with it where the class has fewer. Samples of unknown
    label, −1, are never drawn.

    Args:
        key: random key.
        labels: (n_samples,) concrete integers, strings or objects.
        batch_size: samples in a batch, a multiple of ``per_class``.
        per_class: samples of each class in a batch.
        n_batches: number of batches.

    Returns:
        (n_batches, batch_size) int32 positions of samples, those of a class side by side.

    Raises:
        ValueError, TypeError: labels that are traced or no classes; fewer classes than a batch needs; a batch size that
            is no multiple.
    """
    key = validation.check_key(key)
    if validation.is_traced(labels):
        raise TypeError("class_batches draws on the host, and needs concrete labels: call it outside of jit.")
    codes = encode_labels(labels, None)
    batch_size, per_class = (
        validation.check_count(*each) for each in (("batch_size", batch_size), ("per_class", per_class))
    )
    n_batches = validation.check_count("n_batches", n_batches)
    if batch_size % per_class:
        raise ValueError(f"batch_size={batch_size} must be a multiple of per_class={per_class}.")
    classes = np.unique(codes[codes >= 0])
    needed = batch_size // per_class
    if classes.size < needed:
        raise ValueError(
            f"batch_size={batch_size} with per_class={per_class} needs {needed} classes, and labels have "
            f"{classes.size}. Lower batch_size, or raise per_class."
        )
    members = {code: np.flatnonzero(codes == code) for code in classes}
    # NumPy draws on the host: 128 bits of the key are its whole seed, so that the batches depend on the key alone.
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,), "uint32")))
    batches = [
        np.concatenate(
            [
                rng.choice(members[code], per_class, replace=members[code].size < per_class)
                for code in rng.choice(classes, needed, replace=False)
            ]
        )
        for _ in range(n_batches)
    ]
    return np.stack(batches).astype(np.int32)


class CrossBatchMemory(NamedTuple):
    """Embeddings and labels of the last samples, the ``reference`` of a loss; a queue of fixed size.

    Attributes:
        z: (size, n_features) embeddings; constants for the gradient.
        labels: (size,) int32 labels, −1 for places that are still empty.
        position: () int32 place of the oldest entry, which the next batch replaces.
    """

    z: Float[Array, "m d"]
    labels: Int[Array, " m"]
    position: Int[Array, ""]

    @classmethod
    def empty(cls, size: int, d: int, dtype: Any = jnp.float32) -> CrossBatchMemory:
        """A memory of ``size`` places for embeddings of d features."""
        size, d = validation.check_count("size", size), validation.check_count("d", d)
        return cls(jnp.zeros((size, d), dtype), jnp.full(size, -1, jnp.int32), jnp.int32(0))

    def push(self, z: Any, labels: Any) -> CrossBatchMemory:
        """A memory in which a batch has replaced the oldest entries; of a batch above its size, the last samples stay.

        Args:
            z: (n_samples, n_features) embeddings.
            labels: (n_samples,) integers, the same number for the same class in all batches; −1 for unknown.

        Raises:
            ValueError, TypeError: embeddings with another number of columns; labels that are not integers.
        """
        z = as_matrix(z, name="z")
        size, d = self.z.shape
        if z.shape[1] != d:
            raise ValueError(f"z has {z.shape[1]} columns, but the memory has {d}.")
        labels = class_numbers(labels, z.shape[0]).astype(jnp.int32)
        z, labels = z[-size:], labels[-size:]
        places = (self.position + jnp.arange(z.shape[0], dtype=jnp.int32)) % size
        rows = self.z.at[places].set(jax.lax.stop_gradient(z).astype(self.z.dtype))
        position = (self.position + z.shape[0]) % size
        return CrossBatchMemory(rows, self.labels.at[places].set(labels), position.astype(jnp.int32))

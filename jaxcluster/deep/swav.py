"""SwAV: swapped prediction of Sinkhorn cluster assignments between views, and the merging of prototypes into clusters.

Sinkhorn balances *prototypes*, so with more prototypes than clusters it says nothing about the sizes of clusters. Few
samples lie between two clusters, so prototypes of two clusters have few samples in common, however close they are: the
co-assignment matrix PᵀP (P: softmax probabilities, (n_samples, n_prototypes)) is cut by spectral clustering.

Source: M. Caron et al., Unsupervised learning of visual features by contrasting cluster assignments, NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcluster.cluster import kmeans, spectral
from jaxcluster.cluster.sinkhorn import swav_assignments
from jaxcluster.core import validation
from jaxcluster.core.fold import fold_rows, map_rows, tile_rows
from jaxcluster.deep.autoencoder import latent_mean
from jaxcluster.deep.inference import TILE
from jaxcluster.deep.latent_kmeans import NonTrainable
from jaxcluster.deep.protocol import Batch, ClusteringModule, RefreshResult
from jaxcluster.deep.views import apply_to_views, count_views, stack_views
from jaxcluster.losses import swapped_prediction_from_assignments
from jaxcluster.metrics import clustering_accuracy
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.distance import HIGHEST, inner_products, normalize, squared_norms
from jaxcluster.types import Array, Bool, Float, Int, KeyArray, Points

COLLAPSE_GRACE_STEPS = 100
"""Number of steps before which all samples may be nearest to one prototype: untrained networks may map them to almost
one direction."""

COLLAPSE_VARIANCE = 1e-5
"""Mean squared distance of vectors of length 1 from their mean, below which they count as equal."""


class SwAV(ClusteringModule):
    """An encoder and prototypes, trained to predict from one view which prototypes another view is assigned to.

    Each view of a sample has an embedding of length 1 and scores, its cosines to the prototypes. Sinkhorn iterations
    turn the scores of a global view into an assignment with equal mass on all prototypes over the batch and the queue.
    The loss is the cross-entropy of this assignment and the softmax of the scores of every other view of the sample.

    Clusters are groups of prototypes, see `merge_prototypes`; each refresh computes them anew. With as many prototypes
    as clusters each prototype is one, and clusters are drawn to equal sizes.

    Args:
        encoder: samples to (n_samples, latent) features.
        views: a function of a key and samples that returns several views, global ones first, as
            `jaxcluster.deep.views.MultiCrop` does. Consecutive views of one shape are one batch of the encoder.
        n_clusters: number of clusters.
        n_prototypes: number of prototypes, at least n_clusters, and at most the samples in batch and queue.
        latent: width of the features.
        head: features to (n_samples, width) vectors, whose directions are the embeddings; None for the features.
        width: of the embeddings; None for ``latent``.
        n_global: number of views that give assignments; None for the ``n_global`` of ``views``.
        temperature: τ > 0 of the predictions.
        epsilon: > 0, temperature of the assignments, in training and in `assign`.
        sinkhorn_iterations: number of Sinkhorn iterations of an assignment.
        queue_size: number of embeddings of earlier samples, for each global view, that join the assignments once there
            are as many; 0 for none. For batches that are small relative to the prototypes.
        queue_from: number of steps before the queue is used.
        freeze_steps: number of steps in which the prototypes are not trained.
        rngs: its stream "params" draws the prototypes.

    Attributes:
        prototypes: (n_prototypes, width) of length 1.
        groups: (n_prototypes,) int32 cluster of each prototype.
        centers: (n_clusters, latent) mean features of each cluster at the last refresh.
        queue: (n_global, queue_size, width) embeddings, newest first; the first ``queued`` of them are valid.
        steps: () int32 number of steps taken.

    Raises:
        ValueError, TypeError: numbers out of range; fewer prototypes than clusters; fewer than two views.
    """

    def __init__(
        self,
        encoder: nnx.Module,
        views: Callable[..., Any],
        n_clusters: int,
        n_prototypes: int,
        latent: int,
        *,
        head: nnx.Module | None = None,
        width: int | None = None,
        n_global: int | None = None,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        sinkhorn_iterations: int = 3,
        queue_size: int = 0,
        queue_from: int = 0,
        freeze_steps: int = 0,
        rngs: nnx.Rngs,
    ):
        self.encoder, self.head, self.views = encoder, head, views
        self.n_clusters, n_prototypes = _check_counts(n_clusters, n_prototypes)
        self.n_global = _check_views(views, n_global)
        self.temperature = float(validation.check_positive("temperature", temperature))
        self.epsilon = float(validation.check_positive("epsilon", epsilon))
        self.sinkhorn_iterations = validation.check_count("sinkhorn_iterations", sinkhorn_iterations)
        self.queue_from = _check_nonnegative("queue_from", queue_from)
        self.freeze_steps = _check_nonnegative("freeze_steps", freeze_steps)
        queue_size = _check_nonnegative("queue_size", queue_size)
        latent = validation.check_count("latent", latent)
        width = latent if width is None else validation.check_count("width", width)
        directions = jax.random.normal(rngs.params(), (n_prototypes, width), jnp.float32)
        self.prototypes = nnx.Param(normalize(directions))
        self.groups = NonTrainable(jnp.arange(n_prototypes, dtype=jnp.int32) % self.n_clusters)
        self.centers = NonTrainable(jnp.zeros((self.n_clusters, latent), jnp.float32))
        self.queue = NonTrainable(jnp.zeros((self.n_global, queue_size, width), jnp.float32))
        self.queued, self.steps = NonTrainable(jnp.int32(0)), NonTrainable(jnp.int32(0))

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """Features of each sample."""
        return jnp.float32(latent_mean(self.encoder(x)))

    def embed(self, z: Float[Array, "n l"]) -> Float[Array, "n w"]:
        """Embeddings (n_samples, width) of features, of length 1."""
        return normalize(z if self.head is None else self.head(z))

    def assign(self, z: Float[Array, "n l"]) -> Float[Array, "n k"]:
        """Responsibilities (n_samples, n_clusters): the sum of softmax(scores/ε) over the prototypes of a cluster."""
        return self._predict_proba(self.embed(z))

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Swapped prediction loss of a batch; updates the queue.

        Returns:
            The cross-entropy (nats), and "used": the perplexity of the mean prediction as a fraction of the prototypes.

        Raises:
            ValueError: fewer than two views; more prototypes than samples in batch and queue.
        """
        stacks = stack_views(self.views, key, batch.x)
        self._check_batch(count_views(stacks), batch.x.shape[0])
        frozen = self.steps[...] < self.freeze_steps
        prototypes = self.prototypes[...]
        # A `where`, not an `if`: the step number is traced. Its gradient is 0 in the branch that is not taken.
        prototypes = jnp.where(frozen, jax.lax.stop_gradient(prototypes), prototypes)
        embeddings = apply_to_views(lambda x: self.embed(self.features(x)), stacks)
        scores = apply_to_views(lambda z: inner_products(z, prototypes), [embeddings])
        global_embeddings = jax.lax.stop_gradient(embeddings[: self.n_global])
        assignments = self._assignments(global_embeddings, jax.lax.stop_gradient(prototypes))
        value = swapped_prediction_from_assignments(assignments, scores, temperature=self.temperature)
        self._enqueue(global_embeddings)
        self.steps[...] += 1
        mean = jnp.mean(jax.nn.softmax(scores / self.temperature), axis=(0, 1))
        return value, {"used": jnp.exp(jnp.sum(jax.scipy.special.entr(mean))) / mean.size}

    def constrain(self) -> None:
        """Normalize the prototypes to length 1."""
        self.prototypes[...] = normalize(self.prototypes[...])

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> RefreshResult:
        """Merge the prototypes into clusters by all samples, and check for collapse."""
        embeddings = map_rows(self.embed, z, tile=TILE)
        statistics = prototype_statistics(embeddings, self.prototypes[...], self.epsilon)
        self.groups[...] = merge_prototypes(key, statistics, self.n_clusters)
        predict = lambda rows: jnp.argmax(self._predict_proba(rows), axis=1).astype(jnp.int32)  # noqa: E731
        labels = map_rows(predict, embeddings, tile=TILE)
        sums, counts = cluster_sums(Points(z, jnp.ones_like(z[:, 0])), labels, self.n_clusters, uniform=True)
        means = sums / jnp.maximum(counts, 1)[:, None]
        self.centers[...] = jnp.where(counts[:, None] > 0, means, self.centers[...])
        single = (jnp.sum(statistics.counts > 0) == 1) & (self.steps[...] >= COLLAPSE_GRACE_STEPS)
        return RefreshResult(labels, collapsed=statistics.collapsed | single)

    def label_agreement(self, old: Int[np.ndarray, " n"], new: Int[np.ndarray, " n"]) -> dict[str, float]:
        """Fraction of samples that changed their cluster, under the best matching of the clusters' numbers."""
        return {"changed": 1 - clustering_accuracy(old, new)}

    def _assignments(self, global_embeddings, prototypes):
        """One (n_samples, n_prototypes) assignment for each global view; a full queue joins after its start."""
        n, size = global_embeddings.shape[1], self.queue.shape[1]
        used = (self.queued[...] == size) & (self.steps[...] >= self.queue_from)
        # The queue has a fixed shape and is masked until it is used: the program is the same at every step.
        mask = jnp.concatenate([jnp.ones(n, bool), jnp.broadcast_to(used, (size,))])
        rows = jnp.concatenate([global_embeddings, self.queue[...]], axis=1)
        scores = apply_to_views(lambda z: inner_products(z, prototypes), [rows])
        return [swav_assignments(each, self.epsilon, self.sinkhorn_iterations, mask)[:n] for each in scores]

    def _enqueue(self, embeddings):
        size = self.queue.shape[1]
        self.queue[...] = jnp.concatenate([embeddings, self.queue[...]], axis=1)[:, :size]
        self.queued[...] = jnp.minimum(self.queued[...] + embeddings.shape[1], size)

    def _predict_proba(self, embeddings):
        probs = jax.nn.softmax(inner_products(embeddings, self.prototypes[...]) / self.epsilon)
        members = jax.nn.one_hot(self.groups[...], self.n_clusters, dtype=probs.dtype)
        return jnp.matmul(probs, members, precision=HIGHEST)

    def _check_batch(self, n_views, n):
        if n_views < max(2, self.n_global):
            raise ValueError(
                f"views gave {n_views} of each row, and {max(2, self.n_global)} are needed: n_global={self.n_global} "
                "give assignments, each of which another view predicts. Pass views that give more."
            )
        check_batch_covers_prototypes(self.prototypes.shape[0], n, self.queue.shape[1])


class PrototypeStats(NamedTuple):
    """Statistics of prototypes over all samples.

    Attributes:
        co_assignment: (n_prototypes, n_prototypes) PᵀP, P the softmax probabilities of prototypes in samples.
        counts: (n_prototypes,) number of samples that each is the nearest to.
        collapsed: () whether all embeddings, or all prototypes, are equal.
    """

    co_assignment: Float[Array, "m m"]
    counts: Float[Array, " m"]
    collapsed: Bool[Array, ""]


def prototype_statistics(
    embeddings: Float[Array, "n w"], prototypes: Float[Array, "m w"], temperature: float
) -> PrototypeStats:
    """Statistics of prototypes over all samples, computed tile by tile.

    Args:
        embeddings: (n_samples, width) of length 1, or 0.
        prototypes: (n_prototypes, width) of length 1.
        temperature: > 0, of the probabilities softmax(cosines/temperature).
    """
    n, count = embeddings.shape[0], prototypes.shape[0]

    def of_tile(rows):
        rows, weight = rows
        scores = inner_products(rows, prototypes)
        probs = jax.nn.softmax(scores / temperature) * weight[:, None]
        nearest = jax.nn.one_hot(jnp.argmax(scores, axis=1), count, dtype=scores.dtype) * weight[:, None]
        return (jnp.matmul(probs.T, probs, precision=HIGHEST), jnp.sum(nearest, axis=0)), ()

    rows = (embeddings, jnp.ones(n, embeddings.dtype))
    (co_assignment, counts), _ = fold_rows(of_tile, rows, tile=tile_rows(n, 3 * count))
    return PrototypeStats(co_assignment, counts, _all_equal(embeddings) | _all_equal(prototypes))


def merge_prototypes(key: KeyArray, statistics: PrototypeStats, k: int) -> Int[Array, " m"]:
    """Cluster of each prototype: a small normalized cut of the co-assignment graph into k parts.

    With as many prototypes as clusters each is one. Otherwise prototypes that are nearest to no sample form no cluster.

    Args:
        key: random key of the cut.
        statistics: over all samples.
        k: static number of clusters, at most n_prototypes.
    """
    n_prototypes = statistics.counts.shape[0]
    if n_prototypes == k:
        return jnp.arange(k, dtype=jnp.int32)
    cut_key, label_key = jax.random.split(key)
    # A graph has no edge from a vertex to itself, so the weight that holds a cluster of one prototype together would be
    # lost. Two copies of each prototype keep it, as the edge between them.
    doubled = jnp.tile(statistics.co_assignment, (2, 2))
    vectors = spectral.embed(cut_key, doubled, k, affinity="precomputed").vectors[:n_prototypes]
    return kmeans.fit(label_key, vectors, k, weights=statistics.counts, n_init=10).labels


def check_batch_covers_prototypes(n_prototypes: int, batch_size: int, queue_size: int) -> None:
    """Raise ValueError if there are more prototypes than samples in batch and queue."""
    if n_prototypes > batch_size + queue_size:
        raise ValueError(
            f"n_prototypes={n_prototypes} cannot have equal parts of a batch of {batch_size} rows and a queue of "
            f"{queue_size}: there is less than a row for each. Raise batch_size or queue_size, or lower n_prototypes."
        )


def _all_equal(vectors):
    center = jnp.mean(vectors, axis=0, keepdims=True)
    return jnp.mean(squared_norms(vectors - center)) <= COLLAPSE_VARIANCE


def _check_views(views, n_global):
    """Number of views that give assignments."""
    if n_global is None:
        if not hasattr(views, "n_global"):
            raise ValueError(f"{views} does not say how many of its views are global: pass n_global=, such as 2.")
        n_global = views.n_global
    n_global = validation.check_count("n_global", n_global)
    total = n_global + getattr(views, "n_local", 1)
    if total < 2:
        raise ValueError(
            "views give 1 view of each row, and 2 are needed, so that one predicts the other. Pass views with "
            "n_global=2, or with local ones."
        )
    return n_global


def _check_counts(n_clusters, n_prototypes):
    n_clusters = validation.check_count("n_clusters", n_clusters)
    n_prototypes = validation.check_count("n_prototypes", n_prototypes)
    if n_prototypes < max(2, n_clusters):
        raise ValueError(
            f"n_prototypes={n_prototypes} must be at least {max(2, n_clusters)}: a cluster has one or more, and of one "
            "there is nothing to predict."
        )
    return n_clusters, n_prototypes


def _check_nonnegative(name, value):
    """``value`` as an int >= 0."""
    return 0 if isinstance(value, int) and value == 0 else validation.check_count(name, value)

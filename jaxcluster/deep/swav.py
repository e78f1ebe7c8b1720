"""SwAV: from one view of a row a network predicts which prototypes another view of it was assigned to.

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
from jaxcluster.core import check
from jaxcluster.core.fold import fold_rows, map_rows, tile_rows
from jaxcluster.deep.autoencoder import code_of
from jaxcluster.deep.inference import TILE
from jaxcluster.deep.latent_kmeans import CenterState
from jaxcluster.deep.protocol import Batch, Refreshed
from jaxcluster.deep.views import count_views, stacked, through
from jaxcluster.losses import swapped_prediction_from_assignments
from jaxcluster.metrics import clustering_accuracy
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.distance import HIGHEST, inner_products, normalize, squared_norms
from jaxcluster.types import Array, Bool, Float, Int, KeyArray, Points

SETTLED = 100
"""Steps before which all rows may be nearest to one prototype: untrained networks may put them in one direction."""


class SwAV(nnx.Module):
    """A network whose features know what their row is assigned to, however it is shown.

    Each view of a row has an embedding of length 1, which is scored by its cosines to the prototypes. Sinkhorn rounds
    turn the scores of a large view into an assignment, such that all prototypes have equal parts of the batch and the
    queue; from every other view of the row it is predicted, by a softmax of the scores. Minimized is the cross-entropy.

    Clusters are groups of prototypes, see `jaxcluster.deep.swav.grouped`: a `refresh` finds them anew. With as
    many prototypes as clusters each is one, and clusters are drawn to equal sizes.

    Args:
        encoder: any module from rows to (n, latent) features.
        views: called with a key and rows, gives several views of them as a tuple, the large ones first: see
            `jaxcluster.deep.views.MultiCrop`. Views of one shape, one after the other, go through the encoder together.
        n_clusters: number of clusters.
        n_prototypes: number of prototypes, at least as many, and no more than rows in batch and queue.
        latent: width of the features.
        head: any module from features to (n, width) vectors, whose directions are embeddings; None for the features
            themselves.
        width: of the embeddings; None for ``latent``.
        n_large: how many of the views give assignments; None for the ``n_large`` of ``views``.
        temperature: τ > 0 of the predictions.
        epsilon: > 0, temperature of the assignments, in training and of clusters to rows.
        rounds: of Sinkhorn.
        queue_size: embeddings of earlier rows that take part in the assignments once there are as many, for each large
            view; 0 for none. For batches that are small against the prototypes.
        queue_from: steps before the queue takes part.
        freeze_steps: steps in which the prototypes stay as they were drawn.
        rngs: its stream "params" draws the prototypes.

    Attributes:
        prototypes: (n_prototypes, width) of length 1.
        groups: (n_prototypes,) int32 the cluster of each.
        centers: (n_clusters, latent) mean features of each cluster's rows, as the last refresh found them.
        queue: (n_large, queue_size, width) the newest first, of which ``queued`` rows are there.
        steps: () int32 steps taken.

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
        n_large: int | None = None,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        rounds: int = 3,
        queue_size: int = 0,
        queue_from: int = 0,
        freeze_steps: int = 0,
        rngs: nnx.Rngs,
    ):
        self.encoder, self.head, self.views = encoder, head, views
        self.n_clusters, count = _check_counts(n_clusters, n_prototypes)
        self.n_large = _check_views(views, n_large)
        self.temperature = float(check.check_positive("temperature", temperature))
        self.epsilon = float(check.check_positive("epsilon", epsilon))
        self.rounds = check.check_count("rounds", rounds)
        self.queue_from, self.freeze_steps = _whole("queue_from", queue_from), _whole("freeze_steps", freeze_steps)
        latent = check.check_count("latent", latent)
        width = latent if width is None else check.check_count("width", width)
        self.prototypes = nnx.Param(normalize(jax.random.normal(rngs.params(), (count, width), jnp.float32)))
        self.groups = CenterState(jnp.arange(count, dtype=jnp.int32) % self.n_clusters)
        self.centers = CenterState(jnp.zeros((self.n_clusters, latent), jnp.float32))
        self.queue = CenterState(jnp.zeros((self.n_large, _whole("queue_size", queue_size), width), jnp.float32))
        self.queued, self.steps = CenterState(jnp.int32(0)), CenterState(jnp.int32(0))

    # Use.

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """What the encoder gives of each row."""
        return jnp.float32(code_of(self.encoder(x)))

    def embed(self, z: Float[Array, "n l"]) -> Float[Array, "n w"]:
        """The direction of each row's features, of length 1, in the space of the prototypes."""
        return normalize(z if self.head is None else self.head(z))

    def assign(self, z: Float[Array, "n l"]) -> Float[Array, "n k"]:
        """The share of each cluster in each row: that of its prototypes in softmax(scores/ε), which grouped them."""
        return self._predicted(self.embed(z))

    # Training.

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The cross-entropy of the predictions (nats); and "used", e^entropy of their mean as a share of prototypes.

        Raises:
            ValueError: fewer than two views; more prototypes than rows in the batch and the queue.
        """
        stacks = stacked(self.views, key, batch.x)
        self._check_rows(count_views(stacks), batch.x.shape[0])
        frozen = self.steps[...] < self.freeze_steps
        prototypes = self.prototypes[...]
        prototypes = jnp.where(frozen, jax.lax.stop_gradient(prototypes), prototypes)
        embeddings = through(lambda x: self.embed(self.features(x)), stacks)
        scores = through(lambda z: inner_products(z, prototypes), [embeddings])
        large = jax.lax.stop_gradient(embeddings[: self.n_large])
        assignments = self._assignments(large, jax.lax.stop_gradient(prototypes))
        value = swapped_prediction_from_assignments(assignments, scores, temperature=self.temperature)
        self._keep(large)
        self.steps[...] += 1
        mean = jnp.mean(jax.nn.softmax(scores / self.temperature), axis=(0, 1))
        return value, {"used": jnp.exp(jnp.sum(jax.scipy.special.entr(mean))) / mean.size}

    def constrain(self) -> None:
        """Brings the prototypes back to length 1."""
        self.prototypes[...] = normalize(self.prototypes[...])

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> Refreshed:
        """Groups the prototypes into clusters, by all rows, and says whether rows are still told apart."""
        embeddings = map_rows(self.embed, z, tile=TILE)
        found = survey(embeddings, self.prototypes[...], self.epsilon)
        self.groups[...] = grouped(key, found, self.n_clusters)
        most = lambda rows: jnp.argmax(self._predicted(rows), axis=1).astype(jnp.int32)  # noqa: E731
        labels = map_rows(most, embeddings, tile=TILE)
        sums, counts = cluster_sums(Points(z, jnp.ones_like(z[:, 0])), labels, self.n_clusters, uniform=True)
        means = sums / jnp.maximum(counts, 1)[:, None]
        self.centers[...] = jnp.where(counts[:, None] > 0, means, self.centers[...])
        lone = (jnp.sum(found.counts > 0) == 1) & (self.steps[...] >= SETTLED)
        return Refreshed(labels, collapsed=found.alike | lone)

    def agreement(self, old: Int[np.ndarray, " n"], new: Int[np.ndarray, " n"]) -> dict[str, float]:
        """The share of rows that have another cluster, whatever the clusters' numbers."""
        return {"changed": 1 - clustering_accuracy(old, new)}

    def _assignments(self, large, prototypes):
        """Of each large view, (n, n_prototypes): the queue's rows are there once it is full and its time has come."""
        n, size = large.shape[1], self.queue.shape[1]
        used = (self.queued[...] == size) & (self.steps[...] >= self.queue_from)
        mask = jnp.concatenate([jnp.ones(n, bool), jnp.broadcast_to(used, (size,))])
        scores = through(lambda z: inner_products(z, prototypes), [jnp.concatenate([large, self.queue[...]], axis=1)])
        return [swav_assignments(each, self.epsilon, self.rounds, mask)[:n] for each in scores]

    def _keep(self, large):
        """Puts embeddings at the head of the queue; the oldest leave it."""
        size = self.queue.shape[1]
        self.queue[...] = jnp.concatenate([large, self.queue[...]], axis=1)[:, :size]
        self.queued[...] = jnp.minimum(self.queued[...] + large.shape[1], size)

    def _predicted(self, embeddings):
        """The share of each cluster."""
        shares = jax.nn.softmax(inner_products(embeddings, self.prototypes[...]) / self.epsilon)
        return jnp.matmul(
            shares, jax.nn.one_hot(self.groups[...], self.n_clusters, dtype=shares.dtype), precision=HIGHEST
        )

    def _check_rows(self, views, n):
        if views < max(2, self.n_large):
            raise ValueError(
                f"views gave {views} of each row, and {max(2, self.n_large)} are needed: n_large={self.n_large} "
                "give assignments, each of which another view predicts. Pass views that give more."
            )
        check_fed(self.prototypes.shape[0], n, self.queue.shape[1])


def check_fed(n_prototypes: int, batch_size: int, queue_size: int) -> None:
    """Raises where there are too few rows for each prototype to have one."""
    if n_prototypes > batch_size + queue_size:
        raise ValueError(
            f"n_prototypes={n_prototypes} cannot have equal parts of a batch of {batch_size} rows and a queue of "
            f"{queue_size}: there is less than a row for each. Raise batch_size or queue_size, or lower n_prototypes."
        )


def _check_views(views, n_large):
    """How many of the views give assignments."""
    if n_large is None:
        if not hasattr(views, "n_large"):
            raise ValueError(f"{views} does not say how many of its views are large: pass n_large=, such as 2.")
        n_large = views.n_large
    n_large = check.check_count("n_large", n_large)
    total = n_large + getattr(views, "n_small", 1)
    if total < 2:
        raise ValueError(
            "views give 1 view of each row, and 2 are needed, so that one predicts the other. Pass views with "
            "n_large=2, or with small ones."
        )
    return n_large


def _check_counts(n_clusters, n_prototypes):
    """Both as numbers that go together."""
    n_clusters = check.check_count("n_clusters", n_clusters)
    n_prototypes = check.check_count("n_prototypes", n_prototypes)
    if n_prototypes < max(2, n_clusters):
        raise ValueError(
            f"n_prototypes={n_prototypes} must be at least {max(2, n_clusters)}: a cluster has one or more, and of one "
            "there is nothing to predict."
        )
    return n_clusters, n_prototypes


def _whole(name, value):
    """``value`` as an int >= 0."""
    return 0 if isinstance(value, int) and value == 0 else check.check_count(name, value)


# From many prototypes to fewer clusters: prototypes that share rows belong together.
#
# Equal parts of all prototypes are no claim about the clusters where a cluster may have several prototypes. Which ones
# are a cluster's is told by the rows: those between two clusters are few, so prototypes of two clusters have few in
# common, however near to each other the prototypes lie.

ALIKE = 1e-5
"""Mean square distance from their mean (length 1 is 1) of vectors that are all taken for the same one."""


class Survey(NamedTuple):
    """What all rows have to say of the prototypes.

    Attributes:
        shared: (m, m) Σ over rows of p_i·p_j, for shares p of the prototypes in a row.
        counts: (m,) how many rows each is the nearest to.
        alike: () whether all embeddings are the same, or all prototypes.
    """

    shared: Float[Array, "m m"]
    counts: Float[Array, " m"]
    alike: Bool[Array, ""]


def survey(embeddings: Float[Array, "n w"], prototypes: Float[Array, "m w"], temperature: float) -> Survey:
    """Goes over all rows, in tiles.

    Args:
        embeddings: of length 1, or 0.
        prototypes: of length 1.
        temperature: > 0 of the shares, softmax(cosines/temperature).
    """
    n, count = embeddings.shape[0], prototypes.shape[0]

    def tile(rows):
        rows, weight = rows
        scores = inner_products(rows, prototypes)
        shares = jax.nn.softmax(scores / temperature) * weight[:, None]
        nearest = jax.nn.one_hot(jnp.argmax(scores, axis=1), count, dtype=scores.dtype) * weight[:, None]
        return (jnp.matmul(shares.T, shares, precision=HIGHEST), jnp.sum(nearest, axis=0)), ()

    rows = (embeddings, jnp.ones(n, embeddings.dtype))
    (shared, counts), _ = fold_rows(tile, rows, tile=tile_rows(n, 3 * count))
    return Survey(shared, counts, _same(embeddings) | _same(prototypes))


def grouped(key: KeyArray, found: Survey, k: int) -> Int[Array, " m"]:
    """The cluster of each prototype, of k: a small normalized cut of the graph of what they share.

    With as many prototypes as clusters each is one. Otherwise those that no row is nearest to make no cluster.

    Args:
        key: random key for the cut.
        found: of all rows.
        k: static, at most m.
    """
    if found.counts.shape[0] == k:
        return jnp.arange(k, dtype=jnp.int32)
    cut_key, label_key = jax.random.split(key)
    # A graph has no weight from a vertex to itself, which is all that holds a cluster of one prototype together: two
    # copies of each prototype have it between them.
    twice = jnp.tile(found.shared, (2, 2))
    vectors = spectral.embed(cut_key, twice, k, affinity="precomputed").vectors[: found.counts.shape[0]]
    return kmeans.fit(label_key, vectors, k, weights=found.counts, n_init=10).labels


def _same(vectors):
    center = jnp.mean(vectors, axis=0, keepdims=True)
    return jnp.mean(squared_norms(vectors - center)) <= ALIKE

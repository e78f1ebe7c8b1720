"""Metric learning: codes of rows that belong together come close, codes of others apart.

Sources: R. Hadsell, S. Chopra and Y. LeCun, Dimensionality reduction by learning an invariant mapping, CVPR 2006
("contrastive"); F. Schroff, D. Kalenichenko and J. Philbin, FaceNet, CVPR 2015, and A. Hermans, L. Beyer and B. Leibe,
In defense of the triplet loss for person re-identification, arXiv:1703.07737 (2017) ("triplet"); T. Chen, S. Kornblith,
M. Norouzi and G. Hinton, A simple framework for contrastive learning of visual representations, ICML 2020 ("nt-xent");
P. Khosla et al., Supervised contrastive learning, NeurIPS 2020 ("supervised-contrastive").
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.cluster import kmeans
from jaxcluster.core import check
from jaxcluster.deep.autoencoder import code_of
from jaxcluster.deep.latent_kmeans import CodeCenters
from jaxcluster.deep.protocol import Batch, Refreshed
from jaxcluster.deep.views import Views, count_views, stacked, through
from jaxcluster.losses.contrastive import contrastive_loss, supervised_contrastive_loss
from jaxcluster.losses.triplet import (
    MINING,
    count_triplets,
    labels_of_views,
    mined_triplet_loss,
    negative_mask,
    positive_mask,
)
from jaxcluster.ops.differences import distances
from jaxcluster.ops.distance import normalize
from jaxcluster.types import Array, Bool, Float, Int, KeyArray

LOSSES = ("contrastive", "triplet", "nt-xent", "supervised-contrastive")

COLLAPSED = 1e-6
"""Variance of all codes, which have length 1, with which they cannot be told apart."""


class MetricEmbedding(CodeCenters):
    """An encoder whose codes are near each other where rows belong together, and k-means of the codes.

    Rows with a label in ``batch.y`` belong to the others with it. Rows of label −1, or all where there is no ``y``,
    learn from their views: those of one row belong together, those of other rows of label −1 do not. What is not known
    to be apart from a labeled row is never pushed away from it: the loss is

        L(rows with a label) + (share of rows of label −1)·L(rows of label −1, each row's views a class of its own),

    L the mean over its own rows, and without views its first part alone. NT-Xent takes all rows as of label −1; the
    supervised contrastive loss of rows of label −1 is NT-Xent too. The history follows how many ``anchors``, views with
    a positive and a negative, and how many ``triplets`` a batch had, and which share of batches was ``barren``: had no
    anchor.

    Codes have length 1, for losses of angles and of distances alike: a margin means the same at any scale of the
    network, and distances go up to 2. k-means of codes is spherical.

    Args:
        encoder: rows to codes, (n, latent).
        k: number of clusters.
        latent: width of a code.
        loss: "contrastive" (pairs that belong together have half of the weight, the others half), "triplet",
            "nt-xent" or "supervised-contrastive".
        margin: of the first two.
        temperature: of the last two (cosines are divided by it); None for 0.5 of "nt-xent" and 0.1 of the other.
        mining: of triplets, see `jaxcluster.losses.mined_triplet_loss`.
        views: called with a key and rows it gives a tuple of two or more views, or one view, and is called twice then.
            None for rows as they are.
        n_init: starts of the k-means that finds the clusters in the end.

    Raises:
        ValueError, TypeError: an unknown loss or mining, a number out of range; "nt-xent" without views. Called with
            neither labels nor views: ValueError.
    """

    def __init__(
        self,
        encoder: nnx.Module,
        k: int,
        latent: int,
        *,
        loss: str = "supervised-contrastive",
        margin: float = 1.0,
        temperature: float | None = None,
        mining: str = "hard",
        views: Views | None = None,
        n_init: int = 20,
    ):
        super().__init__(jnp.zeros((check.check_count("k", k), check.check_count("latent", latent)), jnp.float32))
        check.check_choice("loss", loss, LOSSES)
        check.check_choice("mining", mining, MINING)
        if loss == "nt-xent" and views is None:
            raise ValueError("loss='nt-xent' learns from views of rows alone, and there are none. Pass views.")
        self.encoder, self.kind, self.mining, self.views = encoder, loss, mining, views
        self.n_init = check.check_count("n_init", n_init)
        self.margin = check.check_positive("margin", margin)
        usual = 0.5 if loss == "nt-xent" else 0.1
        self.temperature = usual if temperature is None else check.check_positive("temperature", temperature)

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """The code of each row, of length 1."""
        return normalize(jnp.float32(code_of(self.encoder(x))))

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> Refreshed:
        """Whether all codes are the same; nothing else is looked at before the end."""
        spread = jnp.mean(jnp.sum(jnp.square(z - jnp.mean(z, axis=0, keepdims=True)), axis=1))
        return Refreshed(None, collapsed=spread < COLLAPSED)

    def conclude(self, z: Float[Array, "n l"], key: KeyArray) -> Refreshed:
        """The clusters of all codes, by spherical k-means: its centers become those of the module."""
        fit = kmeans.fit(key, z, self.centers.shape[0], n_init=self.n_init, metric="cosine")
        self.centers[...] = fit.state.centers
        self.measure(z, fit.labels)
        return self.refresh(z, key)._replace(labels=fit.labels)

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss of a batch, and what it had to learn from."""
        if batch.y is None and self.views is None:
            raise ValueError(f"loss={self.kind!r} learns from labels or views, and there are none. Pass y or views.")
        codes = through(self.features, self._stacks(key, batch.x))
        views, n, latent = codes.shape
        z, own = codes.reshape(-1, latent), jnp.asarray(labels_of_views(n, views))
        told = batch.y is not None and self.kind != "nt-xent"
        known = jnp.tile(batch.y, views) if told else jnp.full_like(own, -1)
        parts = [(1.0, known)] if told else []
        if self.views is not None:
            parts.append((jnp.mean(known < 0, dtype=z.dtype), jnp.where(known < 0, own, -1)))
        loss, anchors, triplets = 0.0, 0, 0.0
        for weight, labels in parts:
            loss += weight * jax.lax.cond(jnp.any(labels >= 0), self._of, _no_loss, z, labels)
            counts = count_triplets(labels)
            anchors += counts.anchors
            triplets += jnp.float32(counts.triplets)
        followed = {"anchors": jnp.float32(anchors), "triplets": triplets, "barren": jnp.float32(anchors == 0)}
        return loss, followed

    def _of(self, z: Float[Array, "n l"], labels: Int[Array, " n"]) -> Float[Array, ""]:
        """The loss of codes of which those with a label belong to each other by it."""
        if self.kind in ("nt-xent", "supervised-contrastive"):
            return supervised_contrastive_loss(z, labels, temperature=self.temperature)
        if self.kind == "triplet":
            return mined_triplet_loss(z, labels, margin=self.margin, mining=self.mining)
        same, apart = positive_mask(labels), negative_mask(labels)
        weights = (_shared(same) + _shared(apart)).reshape(-1)
        # Numbers as far from 0 as the codes of a pair from each other: n²×latent is never there.
        gaps = distances(z, z).reshape(-1, 1)
        return contrastive_loss(gaps, jnp.zeros_like(gaps), same.reshape(-1), margin=self.margin, weights=weights)

    def _stacks(self, key, x):
        """Two views or more of the rows, or the rows alone."""
        first_key, second_key = jax.random.split(key)
        stacks = stacked(self.views, first_key, x)
        if self.views is None or count_views(stacks) > 1:
            return stacks
        return (jnp.concatenate([*stacks, *stacked(self.views, second_key, x)]),)


def _no_loss(z, labels):
    return jnp.zeros((), z.dtype)


def _shared(pairs: Bool[Array, "n n"]) -> Float[Array, "n n"]:
    """A weight of 1, shared by these pairs alike."""
    pairs = pairs.astype(jnp.float32)
    return pairs / jnp.maximum(jnp.sum(pairs), 1)

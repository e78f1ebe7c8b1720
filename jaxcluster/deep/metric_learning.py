"""Deep metric learning: an encoder trained by pairs, triplets or contrastive losses, and spherical k-means of codes.

Sources: R. Hadsell, S. Chopra and Y. LeCun, Dimensionality reduction by learning an invariant mapping, CVPR 2006
("contrastive"); F. Schroff, D. Kalenichenko and J. Philbin, FaceNet, CVPR 2015, and A. Hermans, L. Beyer and B. Leibe,
In defense of the triplet loss for person re-identification, arXiv:1703.07737 (2017) ("triplet"); T. Chen, S. Kornblith,
M. Norouzi and G. Hinton, A simple framework for contrastive learning of visual representations, ICML 2020 ("nt-xent");
P. Khosla et al., Supervised contrastive learning, NeurIPS 2020 ("supervised-contrastive").
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import validation
from jaxcluster.deep.cosine_embedding import CosineEmbedding
from jaxcluster.deep.protocol import Batch
from jaxcluster.deep.views import Views, apply_to_views
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
from jaxcluster.types import Array, Bool, Float, Int, KeyArray

LOSSES = ("contrastive", "triplet", "nt-xent", "supervised-contrastive")


class MetricEmbedding(CosineEmbedding):
    """An encoder with codes of length 1, trained by a metric learning loss, and spherical k-means of the codes.

    Samples with the same label in ``batch.y`` are positives of each other. Samples of label −1, or all without ``y``,
    learn from their views: views of one sample are positives, those of other samples of label −1 negatives. A labeled
    and an unlabeled sample are never negatives, since they may have one class. The loss is

        L(labeled samples) + (fraction of unlabeled samples)·L(unlabeled samples, one class for each sample's views),

    L the mean over its own samples; without views it is the first term. NT-Xent ignores all labels. The history has the
    numbers of ``anchors``, views with a positive and a negative, and ``triplets`` of a batch, and the fraction of
    batches that were ``barren``: without an anchor.

    With codes of length 1 a margin means the same at any scale of the network, and distances are at most 2.

    Args:
        encoder: samples to (n_samples, latent) codes.
        k: number of clusters.
        latent: width of a code.
        loss: "contrastive" (positive pairs have half of the weight, negative ones the other half), "triplet", "nt-xent"
            or "supervised-contrastive".
        margin: of the first two losses.
        temperature: of the last two, divisor of the cosines; None for 0.5 with "nt-xent" and 0.1 with the other.
        mining: of triplets, see `jaxcluster.losses.mined_triplet_loss`.
        views: a function of a key and samples that returns two or more views, or one view, and is then called twice.
            None for the samples themselves.
        n_init: starts of the final k-means.

    Raises:
        ValueError, TypeError: an unknown loss or mining, a number out of range; "nt-xent" without views; a call of
            `loss` with neither labels nor views.
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
        super().__init__(encoder, k, latent, views=views, n_init=n_init)
        validation.check_choice("loss", loss, LOSSES)
        validation.check_choice("mining", mining, MINING)
        if loss == "nt-xent" and views is None:
            raise ValueError("loss='nt-xent' learns from views of rows alone, and there are none. Pass views.")
        self.kind, self.mining = loss, mining
        self.margin = validation.check_positive("margin", margin)
        default = 0.5 if loss == "nt-xent" else 0.1
        self.temperature = default if temperature is None else validation.check_positive("temperature", temperature)

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Loss of a batch, see the class.

        Returns:
            The loss, and the metrics "anchors", "triplets" and "barren".

        Raises:
            ValueError: neither labels nor views.
        """
        if batch.y is None and self.views is None:
            raise ValueError(f"loss={self.kind!r} learns from labels or views, and there are none. Pass y or views.")
        codes = apply_to_views(self.features, self._stacks(key, batch.x))
        views, n, latent = codes.shape
        z, own = codes.reshape(-1, latent), jnp.asarray(labels_of_views(n, views))
        known = None if self.kind == "nt-xent" else batch.y
        classes = jnp.full_like(own, -1) if known is None else jnp.tile(known, views)
        terms: list[tuple[Any, Array]] = [] if known is None else [(1.0, classes)]
        if self.views is not None:
            terms.append((jnp.mean(classes < 0, dtype=z.dtype), jnp.where(classes < 0, own, -1)))
        loss, anchors, triplets = 0.0, 0, 0.0
        for weight, labels in terms:
            # Without a labeled sample the loss is 0: the branch then saves its products of all pairs.
            loss += weight * jax.lax.cond(jnp.any(labels >= 0), self._loss_of_labels, _zero_loss, z, labels)
            counts = count_triplets(labels)
            anchors += counts.anchors
            triplets += jnp.float32(counts.triplets)
        metrics = {
            "anchors": jnp.float32(anchors),
            "triplets": jnp.float32(triplets),
            "barren": jnp.float32(anchors == 0),
        }
        return jnp.asarray(loss), metrics

    def _loss_of_labels(self, z: Float[Array, "n l"], labels: Int[Array, " n"]) -> Float[Array, ""]:
        """Loss of codes with class labels; −1 leaves a code out."""
        if self.kind in ("nt-xent", "supervised-contrastive"):
            return supervised_contrastive_loss(z, labels, temperature=self.temperature)
        if self.kind == "triplet":
            return mined_triplet_loss(z, labels, margin=self.margin, mining=self.mining)
        same, apart = positive_mask(labels), negative_mask(labels)
        weights = (_normalized(same) + _normalized(apart)).reshape(-1)
        # The loss depends on the distance d of a pair only, so each pair is passed as the numbers d and 0: the
        # n² × latent differences are never stored.
        pairs = distances(z, z).reshape(-1, 1)
        return contrastive_loss(pairs, jnp.zeros_like(pairs), same.reshape(-1), margin=self.margin, weights=weights)


def _zero_loss(z, labels):
    return jnp.zeros((), z.dtype)


def _normalized(pairs: Bool[Array, "n n"]) -> Float[Array, "n n"]:
    """Equal weights of the pairs, with sum 1; 0 for all other pairs."""
    pairs = pairs.astype(jnp.float32)
    return pairs / jnp.maximum(jnp.sum(pairs), 1)

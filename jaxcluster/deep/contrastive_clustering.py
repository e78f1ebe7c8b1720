"""Contrastive clustering: heads on fixed features that tell rows and clusters apart in two views of a batch.

>>> import jax, numpy as np
>>> from flax import nnx
>>> from jaxcluster.deep import ContrastiveClustering, adam, train
>>> from jaxcluster.deep.views import GaussianNoise
>>> x = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32) + 9 * (np.arange(60) % 2)[:, None]
>>> module = ContrastiveClustering(2, 2, augment=GaussianNoise(0.5), rngs=nnx.Rngs(0))
>>> result = train(jax.random.key(0), module, x - x.mean(axis=0), epochs=60, optimizer=adam(1e-2))
>>> bool((result.labels[::2] == result.labels[0]).all() and (result.labels[1::2] != result.labels[0]).all())
True

Source: Y. Li, P. Hu, Z. Liu, D. Peng, J. T. Zhou and X. Peng, Contrastive clustering, AAAI 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import validation
from jaxcluster.deep.autoencoder import View, apply_view
from jaxcluster.deep.heads import ClusteringHeads, Heads, cluster_perplexity
from jaxcluster.deep.protocol import Batch
from jaxcluster.losses import cluster_contrastive_loss, nt_xent_loss
from jaxcluster.types import Array, Float, KeyArray


class ContrastiveClustering(ClusteringHeads):
    """Heads trained to recognize a sample, and a cluster, in two views.

    The hidden layers of a head end in an instance head, whose outputs for two views of a sample attract each other
    among the batch (`jaxcluster.losses.nt_xent_loss`), and a cluster head
    (`jaxcluster.losses.cluster_contrastive_loss`). The loss of a step is the mean over heads of the sum.

    Args:
        d: number of features.
        n_clusters: number of clusters.
        hidden: widths of the hidden layers, shared by both heads; empty for linear heads.
        projection: dimension of the instance head.
        n_heads: number of pairs of heads.
        temperature: τ > 0 of the instance head.
        cluster_temperature: τ > 0 of the cluster head.
        augment: an augmentation of the samples, drawn twice; None for the samples themselves.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: numbers out of range.
    """

    def __init__(
        self,
        d: int,
        n_clusters: int,
        *,
        hidden: Sequence[int] = (64,),
        projection: int = 32,
        n_heads: int = 8,
        temperature: float = 0.5,
        cluster_temperature: float = 1.0,
        augment: View | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(n_clusters, n_heads)
        self.projection = validation.check_count("projection", projection)
        self.heads = Heads((d, *hidden, self.projection + n_clusters), n_heads, rngs=rngs)
        self.temperature = float(validation.check_positive("temperature", temperature))
        self.cluster_temperature = float(validation.check_positive("cluster_temperature", cluster_temperature))
        self.augment = augment

    def logits(self, z: Float[Array, "n d"]) -> Float[Array, "h n k"]:
        """Logits of the cluster heads."""
        return self.heads(z)[:, :, self.projection :]

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Mean loss of the heads on a batch.

        Returns:
            The loss (nats); "used", the perplexity of the mean probabilities as a fraction of the clusters; "instance",
            the mean loss of the instance heads.
        """
        first_key, second_key = jax.random.split(key)
        views = [apply_view(self.augment, each, batch.x) for each in (first_key, second_key)]
        # One product for both views.
        outputs = self.heads(jnp.concatenate(views))
        first, second = jnp.split(outputs, 2, axis=1)
        of_heads = jax.vmap(partial(nt_xent_loss, temperature=self.temperature))
        instance = of_heads(first[:, :, : self.projection], second[:, :, : self.projection])
        clusters = [jax.nn.log_softmax(each[:, :, self.projection :]) for each in (first, second)]
        losses = instance + cluster_contrastive_loss(*clusters, temperature=self.cluster_temperature)
        self.record_losses(losses)
        return jnp.mean(losses), {"used": cluster_perplexity(jnp.exp(clusters[0])), "instance": jnp.mean(instance)}

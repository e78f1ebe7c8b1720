"""TEMI and SCAN: heads on fixed features that put a sample and its nearest neighbors into one cluster.

>>> import jax, numpy as np
>>> from flax import nnx
>>> from jaxcluster.deep import SCAN, TEMI, adam, train
>>> x = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32) + 9 * (np.arange(60) % 2)[:, None]
>>> neighbors = (np.arange(60)[:, None] + [2, 4, 6]) % 60
>>> for method in (TEMI, SCAN):
...     module = method(2, 2, neighbors, rngs=nnx.Rngs(0))
...     result = train(jax.random.key(0), module, x - x.mean(axis=0), epochs=60, optimizer=adam(1e-2))
...     bool((result.labels[::2] == result.labels[0]).all() and (result.labels[1::2] != result.labels[0]).all())
True
True

Sources: N. Adaloglou, F. Michels, H. Kalisch and M. Kollmann, Exploring the limits of deep image clustering using
pretrained models, BMVC 2023 (TEMI); W. Van Gansbeke, S. Vandenhende, S. Georgoulis, M. Proesmans and L. Van Gool, SCAN:
learning to classify images without labels, ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import validation
from jaxcluster.deep.autoencoder import View, apply_view
from jaxcluster.deep.heads import ClusteringHeads, Heads, apply_heads, cluster_perplexity
from jaxcluster.deep.latent_kmeans import NonTrainable
from jaxcluster.deep.protocol import Batch
from jaxcluster.losses import scan_loss, self_label_loss, temi_loss
from jaxcluster.types import Array, ArrayLike, Float, KeyArray

MARGINAL_MOMENTUM = 0.9
"""Momentum of the running mean of the teacher's probabilities, that of the authors' program."""


class TEMI(ClusteringHeads):
    """Heads trained by the weighted pointwise mutual information of samples and their neighbors.

    Each head has a teacher, whose weights are running means of its own. The loss of a step is the mean over heads of
    `jaxcluster.losses.temi_loss`. Clusters are those of the teacher of the best head.

    Args:
        d: number of features.
        n_clusters, n_heads, neighbors: see `jaxcluster.deep.heads.ClusteringHeads`.
        hidden: widths of the hidden layers of a head; empty for linear heads.
        beta: β in (0, 1].
        temperature: τ > 0, divisor of the logits of student and teacher.
        momentum: of the teacher's weights, in [0, 1).
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: numbers out of range; neighbors that are not a matrix of positions.
    """

    def __init__(
        self,
        d: int,
        n_clusters: int,
        neighbors: ArrayLike | None = None,
        *,
        hidden: Sequence[int] = (),
        n_heads: int = 16,
        beta: float = 0.6,
        temperature: float = 0.1,
        momentum: float = 0.996,
        rngs: nnx.Rngs,
    ):
        super().__init__(n_clusters, n_heads, neighbors)
        self.heads = Heads((d, *hidden, n_clusters), n_heads, scale=temperature, rngs=rngs)
        self.teacher = nnx.List([NonTrainable(leaf) for layer in self.heads.weights() for leaf in layer])
        self.marginal = NonTrainable(jnp.full((n_heads, n_clusters), 1 / n_clusters, jnp.float32))
        self.beta = float(validation.check_positive("beta", beta))
        self.temperature = float(validation.check_positive("temperature", temperature))
        self.momentum = float(validation.check_positive("momentum", momentum, zero=True))
        if self.beta > 1 or self.momentum >= 1:
            raise ValueError(f"beta={beta} must be at most 1, and momentum={momentum} less than 1.")

    def logits(self, z: Float[Array, "n d"]) -> Float[Array, "h n k"]:
        """Logits of the teachers, divided by the temperature."""
        leaves = [variable[...] for variable in self.teacher]
        return apply_heads(list(zip(leaves[::2], leaves[1::2], strict=True)), z) / self.temperature

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Mean loss of the heads on a batch and its neighbors; updates the teacher and its marginal probabilities.

        Returns:
            The loss (nats), and "used": the perplexity of the mean probabilities as a fraction of the clusters.
        """
        self._update_teacher()
        # Samples and neighbors in one product. Each is once the student's side of the pair, and once the teacher's.
        pair = jnp.concatenate([batch.x, batch.target])
        student = self._log_probabilities(self.heads(pair) / self.temperature)
        teacher = self._log_probabilities(jax.lax.stop_gradient(self.logits(pair)))
        mean = jnp.mean(jnp.exp(teacher), axis=(0, 2))
        marginal = MARGINAL_MOMENTUM * self.marginal[...] + (1 - MARGINAL_MOMENTUM) * mean
        self.marginal[...] = marginal
        losses = temi_loss(student, teacher, jnp.maximum(marginal, jnp.finfo(jnp.float32).tiny), beta=self.beta)
        self.record_losses(losses)
        return jnp.mean(losses), {"used": cluster_perplexity(jnp.exp(teacher[0]))}

    def _update_teacher(self):
        leaves = [leaf for layer in self.heads.weights() for leaf in layer]
        for variable, leaf in zip(self.teacher, leaves, strict=True):
            leaf = jax.lax.stop_gradient(leaf)
            variable[...] = self.momentum * variable[...] + (1 - self.momentum) * leaf

    @staticmethod
    def _log_probabilities(logits):
        """(2, n_heads, n, k) log-probabilities of samples and neighbors, which lie one after the other."""
        return jnp.stack(jnp.split(jax.nn.log_softmax(logits), 2, axis=1))


class SCAN(ClusteringHeads):
    """Heads trained by the agreement of neighbors and the entropy of the mean, then by their own sure labels.

    The loss of a step is the mean over heads of `jaxcluster.losses.scan_loss`, then of `self_label_loss` there.
    The best head is the one of the least `scan_loss`.

    Args:
        d: number of features.
        n_clusters, n_heads, neighbors: see `jaxcluster.deep.heads.ClusteringHeads`.
        hidden: widths of the hidden layers of a head; empty for linear heads.
        entropy_weight: λ >= 0 of the entropy.
        self_label_from: number of steps before self-labeling begins; None for never.
        threshold: least probability of a sure label, in (0, 1).
        augment: an augmentation of the samples that self-labeling learns from; None for the samples.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: numbers out of range; neighbors that are not a matrix of positions.
    """

    def __init__(
        self,
        d: int,
        n_clusters: int,
        neighbors: ArrayLike | None = None,
        *,
        hidden: Sequence[int] = (),
        n_heads: int = 10,
        entropy_weight: float = 5.0,
        self_label_from: int | None = None,
        threshold: float = 0.99,
        augment: View | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(n_clusters, n_heads, neighbors)
        self.heads = Heads((d, *hidden, n_clusters), n_heads, rngs=rngs)
        self.entropy_weight = float(validation.check_positive("entropy_weight", entropy_weight, zero=True))
        self.threshold = float(validation.check_positive("threshold", threshold))
        if self.threshold >= 1:
            raise ValueError(f"threshold={threshold} must be less than 1.")
        self.augment = augment
        self.self_label_from = None
        if self_label_from is not None:
            self.self_label_from = validation.check_count("self_label_from", self_label_from)

    def logits(self, z: Float[Array, "n d"]) -> Float[Array, "h n k"]:
        """Logits of the heads."""
        return self.heads(z)

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Mean loss of the heads on a batch.

        Returns:
            The loss (nats); "used", the perplexity of the mean probabilities as a fraction of the clusters; and
            "certain", the fraction of samples that self-labeling learned from.
        """
        samples = jax.nn.log_softmax(self.logits(batch.x))
        metrics = {"used": cluster_perplexity(jnp.exp(samples))}

        def agree():
            neighbors = jax.nn.log_softmax(self.logits(batch.target))
            losses = scan_loss(samples, neighbors, entropy_weight=self.entropy_weight)
            return losses, jnp.zeros_like(losses)

        def learn():
            views = jax.nn.log_softmax(self.logits(apply_view(self.augment, key, batch.x)))
            return self_label_loss(samples, views, threshold=self.threshold)

        if self.self_label_from is None:
            losses, certain = agree()
            self.record_losses(losses)
        else:
            begun = self.steps[...] >= self.self_label_from
            losses, certain = jax.lax.cond(begun, learn, agree)
            # The best head is chosen by the first loss: the second says nothing of clusters that are wrong and sure.
            before = self.losses[...]
            self.record_losses(losses)
            self.losses[...] = jnp.where(begun, before, self.losses[...])
        return jnp.mean(losses), metrics | {"certain": jnp.mean(certain)}

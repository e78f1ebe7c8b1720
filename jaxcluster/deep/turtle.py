"""TURTLE: the labeling of fixed features that a linear classifier learns best.

>>> import jax, numpy as np
>>> from flax import nnx
>>> from jaxcluster.deep import TURTLE, adam, train
>>> x = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32) + 9 * (np.arange(60) % 2)[:, None]
>>> module = TURTLE(2, 2, n_heads=4, rngs=nnx.Rngs(0))
>>> result = train(jax.random.key(0), module, x - x.mean(axis=0), epochs=100, optimizer=adam(1e-2))
>>> bool((result.labels[::2] == result.labels[0]).all() and (result.labels[1::2] != result.labels[0]).all())
True

Source: A. Gadetsky, Y. Jiang and M. Brbić, Let go of your labels with unsupervised transfer, ICML 2024.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import validation
from jaxcluster.deep.heads import ClusteringHeads, apply_heads, cluster_perplexity
from jaxcluster.deep.latent_kmeans import NonTrainable
from jaxcluster.deep.protocol import Batch
from jaxcluster.losses import turtle_loss
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.types import Array, Float, KeyArray

FIRST_DECAY, SECOND_DECAY, EPSILON = 0.9, 0.999, 1e-8
"""Constants of Adam (D. Kingma and J. Ba, ICLR 2015) for the classifier that learns the labels."""


class TURTLE(ClusteringHeads):
    """Linear heads with normalized weights, whose labels a linear classifier of each learns with the least error.

    A step first trains the classifier for ``inner_steps`` steps of Adam on the soft labels of the batch, from where it
    was after the step before, and then moves the head down the gradient of `jaxcluster.losses.turtle_loss`, in which
    the classifier is a constant, as in the authors' program.

    Args:
        d: number of features.
        n_clusters: number of clusters.
        n_heads: number of heads, each with a classifier.
        entropy_weight: γ >= 0, see `jaxcluster.losses.turtle_loss`.
        inner_steps: number of steps of the classifier for each step of the head.
        inner_rate: > 0, learning rate of the classifier.
        rngs: its stream "params" draws the weights.

    Attributes:
        directions: (n_heads, n_features, n_clusters) weights of the heads, used as vectors of length 1 each.
        scales: (n_heads, 1, n_clusters) the lengths of the weights.
        biases: (n_heads, 1, n_clusters).
        classifier: kernels (n_heads, n_features, n_clusters) and biases (n_heads, 1, n_clusters) of the classifiers.

    Raises:
        ValueError, TypeError: numbers out of range.
    """

    def __init__(
        self,
        d: int,
        n_clusters: int,
        *,
        n_heads: int = 4,
        entropy_weight: float = 10.0,
        inner_steps: int = 10,
        inner_rate: float = 0.01,
        rngs: nnx.Rngs,
    ):
        super().__init__(n_clusters, n_heads)
        self.entropy_weight = float(validation.check_positive("entropy_weight", entropy_weight, zero=True))
        self.inner_steps = validation.check_count("inner_steps", inner_steps)
        self.inner_rate = float(validation.check_positive("inner_rate", inner_rate))
        shape = (self.n_heads, validation.check_count("d", d), self.n_clusters)
        directions = jax.random.normal(rngs.params(), shape, jnp.float32)
        self.directions = nnx.Param(directions)
        self.scales = nnx.Param(jnp.full((self.n_heads, 1, self.n_clusters), 0.5, jnp.float32))
        self.biases = nnx.Param(jnp.zeros((self.n_heads, 1, self.n_clusters), jnp.float32))
        zeros = (jnp.zeros(shape, jnp.float32), jnp.zeros((self.n_heads, 1, self.n_clusters), jnp.float32))
        self.classifier = nnx.List([NonTrainable(leaf) for leaf in zeros])
        self.moments = nnx.List([NonTrainable(jnp.copy(leaf)) for leaf in (*zeros, *zeros)])

    def logits(self, z: Float[Array, "n d"]) -> Float[Array, "h n k"]:
        """Logits of the heads."""
        directions = self.directions[...]
        lengths = jnp.sqrt(jnp.sum(jnp.square(directions), axis=1, keepdims=True))
        kernels = self.scales[...] * directions / jnp.maximum(lengths, jnp.finfo(jnp.float32).tiny)
        return apply_heads([(kernels, self.biases[...])], z)

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Mean loss of the heads on a batch, after the steps of their classifiers.

        Returns:
            The loss (nats), and "used": the perplexity of the mean probabilities as a fraction of the clusters.
        """
        labels = jax.nn.softmax(self.logits(batch.x))
        weights = self._train_classifier(batch.x, jax.lax.stop_gradient(labels))
        predictions = jax.nn.log_softmax(apply_heads([weights], batch.x))
        losses = turtle_loss(labels, predictions, entropy_weight=self.entropy_weight)
        self.record_losses(losses)
        return jnp.mean(losses), {"used": cluster_perplexity(labels)}

    def _train_classifier(self, x, labels):
        """Kernels and biases of the classifiers after the steps on a batch."""
        # Steps taken before: Adam corrects its moments for their start from zero.
        before = self.steps[...] * self.inner_steps

        def step(i, state):
            weights, first, second = state
            residual = (jax.nn.softmax(apply_heads([weights], x)) - labels) / x.shape[0]
            kernels = jnp.einsum("nd,hnk->hdk", x, residual, precision=HIGHEST)
            gradients = (kernels, jnp.sum(residual, axis=1, keepdims=True))
            number = (before + i + 1).astype(jnp.float32)
            first = _running_mean(FIRST_DECAY, first, gradients)
            second = _running_mean(SECOND_DECAY, second, jax.tree.map(jnp.square, gradients))
            rates = 1 / (1 - FIRST_DECAY**number), 1 / (1 - SECOND_DECAY**number)

            def move(weight, mean, square):
                return weight - self.inner_rate * rates[0] * mean / (jnp.sqrt(rates[1] * square) + EPSILON)

            return jax.tree.map(move, weights, first, second), first, second

        weights, moments = (tuple(leaf[...] for leaf in part) for part in (self.classifier, self.moments))
        state = jax.lax.fori_loop(0, self.inner_steps, step, (weights, moments[:2], moments[2:]))
        for variable, leaf in zip([*self.classifier, *self.moments], jax.tree.leaves(state), strict=True):
            variable[...] = leaf
        return state[0]


def _running_mean(decay, mean, value):
    return jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, mean, value)

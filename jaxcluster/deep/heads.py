"""Clustering heads on fixed features: several small networks side by side, and the base class of their methods.

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> from jaxcluster.deep.heads import Heads
>>> Heads((4, 3), 5, rngs=nnx.Rngs(0))(jnp.ones((2, 4))).shape
(5, 2, 3)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcluster.core import validation
from jaxcluster.core.fold import map_rows
from jaxcluster.deep.inference import TILE, TrainingRows
from jaxcluster.deep.latent_kmeans import NonTrainable
from jaxcluster.deep.protocol import ClusteringModule, RefreshResult
from jaxcluster.metrics import clustering_accuracy
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.metric_space import as_metric_space
from jaxcluster.ops.neighbors.exact_knn import nearest_rows
from jaxcluster.types import Array, ArrayLike, Float, Int, KeyArray

COLLAPSE_GRACE_STEPS = 100
"""Number of steps before which all samples may be in one cluster: untrained heads may put them there."""

LOSS_MOMENTUM = 0.99
"""Momentum of the mean loss of each head, by which the best one is chosen: the mean of about a hundred batches."""


class Heads(nnx.Module):
    """Several multilayer perceptrons of the same widths, each with weights of its own, on the same input.

    Args:
        widths: of the input, the hidden layers and the output; at least two.
        n_heads: number of perceptrons.
        scale: deviation of the outputs at the start, for features of variance 1; biases start at 0.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: fewer than two widths; a count below 1 or that is not an integer.
    """

    def __init__(self, widths: Sequence[int], n_heads: int, *, scale: float = 1.0, rngs: nnx.Rngs):
        self.widths = tuple(validation.check_count("a width", width) for width in widths)
        if len(self.widths) < 2:
            raise ValueError(f"widths={self.widths} must hold at least the width of the input and that of the output.")
        self.n_heads = validation.check_count("n_heads", n_heads)

        pairs = list(itertools.pairwise(self.widths))
        # He's initialization of the layers before a ReLU; the last one keeps the variance of its input, times scale².
        gains = [2.0] * (len(pairs) - 1) + [scale**2]
        self.kernels = nnx.List(
            nnx.Param(jnp.sqrt(gain / a) * jax.random.normal(rngs.params(), (self.n_heads, a, b), jnp.float32))
            for gain, (a, b) in zip(gains, pairs, strict=True)
        )
        self.biases = nnx.List([nnx.Param(jnp.zeros((self.n_heads, 1, width), jnp.float32)) for _, width in pairs])

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "h n m"]:
        """Output of each head, with ReLU between layers."""
        return apply_heads(self.weights(), x)

    def weights(self) -> list[tuple[Array, Array]]:
        """Kernel and bias of each layer, of all heads."""
        return [(kernel[...], bias[...]) for kernel, bias in zip(self.kernels, self.biases, strict=True)]


def apply_heads(weights: Sequence[tuple[Array, Array]], x: Float[Array, "n d"]) -> Float[Array, "h n m"]:
    """Outputs of perceptrons with these weights, see `Heads.weights`."""
    (kernel, bias), *others = weights
    # One product for all heads, three times as fast on a CPU as one for each.
    columns = jnp.moveaxis(kernel, 0, 1).reshape(kernel.shape[1], -1)
    z = jnp.matmul(x, columns, precision=HIGHEST).reshape(x.shape[0], kernel.shape[0], -1)
    z = jnp.moveaxis(z, 1, 0) + bias
    for kernel, bias in others:
        z = jnp.einsum("hnd,hdm->hnm", jax.nn.relu(z), kernel, precision=HIGHEST) + bias
    return z


class ClusteringHeads(ClusteringModule):
    """Base of methods that train several heads on fixed features and keep the one of the least mean loss.

    Args:
        n_clusters: number of clusters.
        n_heads: number of heads.
        neighbors: (n_samples, m) positions of the nearest other samples of each; None for a method without neighbors,
            and for a module that is not trained. They are no part of a saved model. Each refresh draws one of them for
            each sample.

    Attributes:
        losses: (n_heads,) running mean of the loss of each head.
        steps: () int32 number of steps taken.

    Raises:
        ValueError, TypeError: counts out of range; neighbors that are not a matrix of positions.
    """

    def __init__(self, n_clusters: int, n_heads: int, neighbors: ArrayLike | None = None):
        self.n_clusters = validation.check_count("n_clusters", n_clusters)
        self.n_heads = validation.check_count("n_heads", n_heads)
        self.losses = NonTrainable(jnp.zeros(self.n_heads, jnp.float32))
        self.steps = NonTrainable(jnp.int32(0))
        self.has_neighbors = neighbors is not None
        positions = np.zeros((0, 1), np.int32) if neighbors is None else _check_neighbors(neighbors)
        self.neighbors = TrainingRows(jnp.asarray(positions, jnp.int32))

    @property
    def best(self) -> Int[Array, ""]:
        """Position of the head of the least mean loss."""
        return jnp.argmin(self.losses[...]).astype(jnp.int32)

    def features(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """The samples themselves: they are features already."""
        return jnp.float32(x)

    def logits(self, z: Float[Array, "n d"]) -> Float[Array, "h n k"]:
        """Logits of the clusters by each head, as they are used after the training."""
        raise NotImplementedError

    def embed(self, x: Float[Array, "n d"]) -> Float[Array, "n k"]:
        """Log-probabilities (n_samples, n_clusters) of the clusters by the best head."""
        return jax.nn.log_softmax(self.logits(self.features(x))[self.best])

    def assign(self, z: Float[Array, "n d"]) -> Float[Array, "n k"]:
        """Probabilities (n_samples, n_clusters) by the best head."""
        return jax.nn.softmax(self.logits(z)[self.best])

    def refresh(self, z: Float[Array, "n d"], key: KeyArray) -> RefreshResult:
        """Clusters of all samples by the best head, a neighbor of each sample, and a check for collapse."""
        labels = map_rows(lambda rows: jnp.argmax(self.assign(rows), axis=1).astype(jnp.int32), z, tile=TILE)
        single = jnp.all(labels == labels[0]) & (self.steps[...] >= COLLAPSE_GRACE_STEPS) & (self.n_clusters > 1)
        if not self.has_neighbors:
            return RefreshResult(labels, collapsed=single)
        column = jax.random.randint(key, (z.shape[0],), 0, self.neighbors.shape[1])
        return RefreshResult(labels, z[self.neighbors[...][jnp.arange(z.shape[0]), column]], collapsed=single)

    def label_agreement(self, old: np.ndarray, new: np.ndarray) -> dict[str, float]:
        """Fraction of samples that changed their cluster, under the best matching: another head may be the best."""
        return {"changed": 1 - clustering_accuracy(old, new)}

    def record_losses(self, losses: Float[Array, " h"]) -> None:
        """Count a step, and add its losses to the running means."""
        losses = jax.lax.stop_gradient(losses)
        # Corrected for the start from zero, so that the first steps weigh as later ones.
        before = 1 - LOSS_MOMENTUM ** self.steps[...].astype(jnp.float32)
        after = 1 - LOSS_MOMENTUM ** (self.steps[...] + 1).astype(jnp.float32)
        total = LOSS_MOMENTUM * before * self.losses[...] + (1 - LOSS_MOMENTUM) * losses
        self.losses[...] = total / after
        self.steps[...] += 1


def nearest_neighbors(x: ArrayLike, m: int) -> np.ndarray:
    """Positions (n_samples, m) of the m nearest other samples of each, int32, by exact Euclidean distances.

    Args:
        x: (n_samples, n_features) finite samples; of length 1 for neighbors by the cosine.
        m: number of neighbors, at most n_samples − 1.

    Raises:
        ValueError, TypeError: x that is no matrix of finite numbers; m that is not between 1 and n_samples − 1.
    """
    rows = np.asarray(validation.check_matrix(x, name="x"), np.float64)
    validation.check_finite(rows, name="x")
    n, m = len(rows), validation.check_count("m", m)
    if m > n - 1:
        raise ValueError(f"m={m} neighbors were asked for, but each of {n} rows has {n - 1}. Ask for fewer.")
    index, _ = nearest_rows(as_metric_space(rows), m + 1)
    # A sample is not among its nearest where others coincide with it: then the farthest one is left out.
    others = index != np.arange(n)[:, None]
    others[others.all(axis=1), -1] = False
    return index[others].reshape(n, m)


def cluster_perplexity(probabilities: Float[Array, "h n k"]) -> Float[Array, ""]:
    """Perplexity of the mean probabilities as a fraction of the clusters, the mean over heads: 1 if all are in use."""
    entropy = jnp.sum(jax.scipy.special.entr(jnp.mean(probabilities, axis=1)), axis=1)
    return jnp.mean(jnp.exp(entropy)) / probabilities.shape[2]


def _check_neighbors(neighbors):
    neighbors = np.asarray(neighbors)
    if neighbors.ndim != 2 or neighbors.shape[1] == 0 or neighbors.dtype.kind not in "iu":
        raise ValueError(
            f"neighbors has shape {neighbors.shape} and dtype {neighbors.dtype}. Pass (n_samples, m) integers: the "
            "positions of other samples near each, such as jaxcluster.deep.heads.nearest_neighbors returns."
        )
    if neighbors.size and not 0 <= neighbors.min() <= neighbors.max() < len(neighbors):
        raise ValueError(f"neighbors holds positions that are not from 0 to {len(neighbors) - 1}.")
    return neighbors

"""DeepCluster: a network learns to tell apart the clusters of its own features.

Sources: M. Caron, P. Bojanowski, A. Joulin and M. Douze, Deep clustering for unsupervised learning of visual features,
ECCV 2018 (DeepCluster); M. Caron et al., Unsupervised learning of visual features by contrasting cluster assignments,
NeurIPS 2020, appendix (DeepCluster-v2).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcluster import metrics
from jaxcluster.cluster import kmeans
from jaxcluster.core import check
from jaxcluster.deep.autoencoder import code_of
from jaxcluster.deep.latent_kmeans import CenterState, CodeCenters
from jaxcluster.deep.protocol import Batch, Refreshed
from jaxcluster.deep.views import Views, stacked, through
from jaxcluster.ops.distance import inner_products, normalize
from jaxcluster.ops.whitening import Whitening, whitening
from jaxcluster.types import Array, Bool, Float, Int, KeyArray

HEAD_DEVIATION = 0.01
"""Of the weights of a fresh head."""

LOOK_STEPS = 20
"""Of Lloyd at a look, as the authors have it: the clusters are learned until the next look only."""

FEW = 1e-12
"""Of the mean square of features, their variance: with less, which is rounding, rows cannot be told apart."""


class PseudoLabels(CodeCenters):
    """A network whose targets are the clusters that k-means finds among its features, anew at each look.

    Batches show all of these clusters equally. The clusters that rows are given in the end are others, by k-means of
    their own: there may be many more of those that are learned.

    Args:
        encoder: rows to features, (n, latent).
        n_pseudo: of the clusters that are learned.
        n_clusters: of those that rows are given; None for as many.
        n_init: starts of the k-means that finds those.
        width: of the features as clusters see them.
        view: of the rows that are learned from, an array or several; None for the rows as they are.
    """

    metric = "sqeuclidean"

    def __init__(
        self, encoder: nnx.Module, n_pseudo: int, n_clusters: int | None, n_init: int, width: int, view: Views | None
    ):
        self.n_pseudo = check.check_count("n_pseudo", n_pseudo)
        self.n_clusters = check.check_count("n_clusters", n_pseudo if n_clusters is None else n_clusters)
        self.n_init = check.check_count("n_init", n_init)
        super().__init__(jnp.zeros((self.n_clusters, width), jnp.float32))
        self.encoder, self.view = encoder, view

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """The features of each row."""
        return jnp.float32(code_of(self.encoder(x)))

    def labels(self, z: Float[Array, "n l"]) -> Int[Array, " n"]:
        """The nearest center of each row, by its features as clusters see them."""
        return super().labels(self.place(z))

    def place(self, z: Float[Array, "n l"]) -> Float[Array, "n m"]:
        """Features as clusters see them."""
        raise NotImplementedError

    def assign(self, z: Float[Array, "n l"]) -> Float[Array, "n k"]:
        """The share of each cluster in each row, by its features as clusters see them."""
        return super().assign(self.place(z))

    def conclude(self, z: Float[Array, "n l"], key: KeyArray) -> Refreshed:
        """Finds the clusters that rows are given, by k-means among the features of all of them."""
        placed = self.place(z)
        found = kmeans.fit(key, placed, self.n_clusters, n_init=self.n_init, metric=self.metric)
        self.centers[...] = found.state.centers
        self.measure(placed, found.labels)
        return Refreshed(found.labels, collapsed=_alike(z))

    @staticmethod
    def agreement(old: np.ndarray, new: np.ndarray) -> dict[str, float]:
        """The normalized mutual information of the clusters of two looks, which have no names in common."""
        return {"nmi": metrics.normalized_mutual_info_score(old, new)}

    def _pseudo(self, key, z):
        """k-means of the features: the clusters to be learned. Those that empty are given far rows."""
        return kmeans.fit(key, self.place(z), self.n_pseudo, max_steps=LOOK_STEPS, metric=self.metric)

    def _refreshed(self, z, labels):
        counts = jnp.zeros(self.n_pseudo, jnp.int32).at[labels].add(1)
        lone = jnp.max(counts) == z.shape[0]
        return Refreshed(labels, labels, 1 / counts[labels].astype(z.dtype), _alike(z) | (lone & (self.n_pseudo > 1)))

    def _features(self, key, x):
        """Of each view of the rows, (views, n, latent)."""
        return through(self.features, stacked(self.view, key, x))


class DeepCluster(PseudoLabels):
    """Minimizes the cross-entropy of a linear head and the clusters of whitened features.

    At each look at all rows: features → principal components, whitened, of length 1 → k-means → a fresh head.

    Args:
        encoder: rows to features, (n, latent); with batch norm, as a rule, or features collapse.
        latent: width of the features.
        n_pseudo: clusters that are learned; more than those that are sought serve better.
        n_clusters: clusters that rows are given in the end; None for n_pseudo.
        n_init: starts of the k-means that finds those.
        components: of the whitening; None for a quarter of the features, at most 256: the least of many would be
            noise, scaled up.
        view: of the rows that are learned from; None for the rows as they are.
        rngs: its stream "params" draws the head.

    Raises:
        ValueError, TypeError: counts below 1, or that are not integers; more components than features.
    """

    renewed = ("head",)

    def __init__(
        self,
        encoder: nnx.Module,
        latent: int,
        n_pseudo: int,
        *,
        n_clusters: int | None = None,
        n_init: int = 10,
        components: int | None = None,
        view: Views | None = None,
        rngs: nnx.Rngs,
    ):
        few = min(latent, max(2, -(-latent // 4)), 256)
        width = few if components is None else check.check_count("components", components)
        if width > latent:
            raise ValueError(f"components={width} is more than the {latent} features there are. Pass at most {latent}.")
        super().__init__(encoder, n_pseudo, n_clusters, n_init, width, view)
        drawn = nnx.initializers.normal(HEAD_DEVIATION)
        self.head = nnx.Linear(latent, self.n_pseudo, kernel_init=drawn, rngs=rngs)
        self.mean = CenterState(jnp.zeros(latent, jnp.float32))
        self.whitening = CenterState(jnp.eye(latent, width, dtype=jnp.float32))

    @property
    def trainable(self) -> dict[str, Any]:
        """Two parts: the head begins anew at each look."""
        head = nnx.PathContains("head")
        return {"encoder": nnx.All(nnx.Param, nnx.Not(head)), "head": nnx.All(nnx.Param, head)}

    def place(self, z: Float[Array, "n l"]) -> Float[Array, "n m"]:
        """Whitened features of length 1, by the whitening of the last look."""
        whitened = Whitening(self.mean[...], self.whitening[...]).apply(z)
        return whitened if whitened.shape[1] == 1 else normalize(whitened)  # of one number nothing but its sign is left

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> Refreshed:
        """New clusters of all rows, as targets; a new whitening and a fresh head."""
        cluster_key, head_key = jax.random.split(key)
        self.whiten(z)
        labels = self._pseudo(cluster_key, z).labels
        kernel = self.head.kernel
        kernel[...] = HEAD_DEVIATION * jax.random.normal(head_key, kernel.shape, kernel.dtype)
        self.head.bias[...] = jnp.zeros_like(self.head.bias[...])
        return self._refreshed(z, labels)

    def whiten(self, z: Float[Array, "n l"]) -> None:
        """Takes note of the principal components of all features."""
        self.mean[...], self.whitening[...] = whitening(z, self.whitening.shape[1])

    def conclude(self, z: Float[Array, "n l"], key: KeyArray) -> Refreshed:
        """Finds the clusters that rows are given, by k-means among the whitened features of all of them."""
        self.whiten(z)
        return super().conclude(z, key)

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The mean cross-entropy of a batch and its targets (nats)."""
        return _cross_entropy(jnp.float32(self.head(self._features(key, batch.x))), batch.target)


class DeepClusterV2(PseudoLabels):
    """Minimizes the cross-entropy of features' cosines to the centers of spherical k-means and its clusters.

    No head has to be learned: the centers of the last look are it, and they are constants.

    Args:
        encoder: rows to features, (n, latent); with a projector last, as a rule.
        latent: width of the features.
        n_pseudo: clusters that are learned; more than those that are sought serve better.
        n_clusters: clusters that rows are given in the end; None for n_pseudo.
        n_init: starts of the k-means that finds those.
        temperature: > 0, that cosines are divided by.
        view: of the rows that are learned from, an array or several; None for the rows as they are.

    Raises:
        ValueError, TypeError: counts below 1, or that are not integers; a temperature that is not positive.
    """

    metric = "cosine"

    def __init__(
        self,
        encoder: nnx.Module,
        latent: int,
        n_pseudo: int,
        *,
        n_clusters: int | None = None,
        n_init: int = 10,
        temperature: float = 0.1,
        view: Views | None = None,
    ):
        super().__init__(encoder, n_pseudo, n_clusters, n_init, latent, view)
        self.temperature = float(check.check_positive("temperature", temperature))
        self.prototypes = CenterState(jnp.zeros((self.n_pseudo, latent), jnp.float32))

    def place(self, z: Float[Array, "n l"]) -> Float[Array, "n l"]:
        """Features of length 1."""
        return normalize(z)

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> Refreshed:
        """New clusters of all rows, as targets, and their centers, to tell them apart by."""
        found = self._pseudo(key, z)
        self.prototypes[...] = found.state.centers
        return self._refreshed(self.place(z), found.labels)

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The mean cross-entropy of a batch and its targets (nats)."""
        cosines = through(self._cosines, [self._features(key, batch.x)])
        return _cross_entropy(cosines / self.temperature, batch.target)

    def _cosines(self, z):
        """Of the features of rows to the centers of the last look."""
        return inner_products(self.place(z), self.prototypes[...])


def _alike(z: Float[Array, "n l"]) -> Bool[Array, ""]:
    """Whether features do not differ by more than rounding."""
    return jnp.mean(jnp.var(z, axis=0)) <= FEW * jnp.maximum(jnp.mean(jnp.square(z)), jnp.finfo(z.dtype).tiny)


def _cross_entropy(logits: Float[Array, "v b k"], labels: Int[Array, " b"]):
    """The mean over views and rows of −log softmax(logits)_label, and the share of rows whose label is the greatest."""
    terms = jax.nn.log_softmax(logits)[:, jnp.arange(labels.size, dtype=jnp.int32), labels]
    told = jnp.argmax(logits, axis=2).astype(labels.dtype)
    return -jnp.mean(terms), {"accuracy": jnp.mean(told == labels[None], dtype=logits.dtype)}

"""DeepCluster: a network is trained to classify the k-means clusters of its own features.

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
from jaxcluster.core import validation
from jaxcluster.deep.autoencoder import latent_mean
from jaxcluster.deep.latent_kmeans import LatentCenters, NonTrainable
from jaxcluster.deep.protocol import Batch, RefreshResult
from jaxcluster.deep.views import Views, apply_to_views, stack_views
from jaxcluster.ops.components import Whitening, whitening
from jaxcluster.ops.distance import inner_products, normalize
from jaxcluster.types import Array, Bool, Float, Int, KeyArray

HEAD_DEVIATION = 0.01
"""Standard deviation of the initial weights of a head."""

REFRESH_LLOYD_STEPS = 20
"""Maximum number of Lloyd steps of a refresh, as in the authors' program: its clusters are trained on until the next
refresh only."""

MIN_RELATIVE_VARIANCE = 1e-12
"""Least variance of features relative to their mean square; less is rounding of float32, and features are collapsed."""


class PseudoLabels(LatentCenters):
    """Base of networks whose targets are pseudo-labels: k-means clusters of their features, computed at each refresh.

    Batches draw all pseudo-labels equally often. The clusters of the trained module come from a k-means of their own:
    there may be many more pseudo-labels than clusters.

    Args:
        encoder: samples to (n_samples, latent) features.
        n_pseudo: number of pseudo-labels.
        n_clusters: number of final clusters; None for n_pseudo.
        n_init: starts of the final k-means.
        width: of the preprocessed features.
        view: one or several augmentations of the samples, see `Views`; None for none.
    """

    metric = "sqeuclidean"

    def __init__(
        self, encoder: nnx.Module, n_pseudo: int, n_clusters: int | None, n_init: int, width: int, view: Views | None
    ):
        self.n_pseudo = validation.check_count("n_pseudo", n_pseudo)
        self.n_clusters = validation.check_count("n_clusters", n_pseudo if n_clusters is None else n_clusters)
        self.n_init = validation.check_count("n_init", n_init)
        super().__init__(jnp.zeros((self.n_clusters, width), jnp.float32))
        self.encoder, self.view = encoder, view

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """Features of each sample."""
        return jnp.float32(latent_mean(self.encoder(x)))

    def labels(self, z: Float[Array, "n l"]) -> Int[Array, " n"]:
        """Index of the nearest center of each sample's preprocessed features."""
        return super().labels(self.preprocess_features(z))

    def preprocess_features(self, z: Float[Array, "n l"]) -> Float[Array, "n m"]:
        """Features in the space that k-means clusters."""
        raise NotImplementedError

    def assign(self, z: Float[Array, "n l"]) -> Float[Array, "n k"]:
        """Responsibilities (n_samples, n_clusters) of the final clusters for features."""
        return super().assign(self.preprocess_features(z))

    def finalize(self, z: Float[Array, "n l"], key: KeyArray) -> RefreshResult:
        """Final clusters by k-means on the preprocessed features of all samples."""
        preprocessed = self.preprocess_features(z)
        fit = kmeans.fit(key, preprocessed, self.n_clusters, n_init=self.n_init, metric=self.metric)
        self.centers[...] = fit.state.centers
        self.update_variance(preprocessed, fit.labels)
        return RefreshResult(fit.labels, collapsed=_collapsed(z))

    @staticmethod
    def label_agreement(old: np.ndarray, new: np.ndarray) -> dict[str, float]:
        """Normalized mutual information: the clusters of two refreshes have no numbers in common."""
        return {"nmi": metrics.normalized_mutual_info_score(old, new)}

    def _fit_pseudo_labels(self, key, z):
        return kmeans.fit(
            key, self.preprocess_features(z), self.n_pseudo, max_steps=REFRESH_LLOYD_STEPS, metric=self.metric
        )

    def _refresh_result(self, z, labels):
        counts = jnp.zeros(self.n_pseudo, jnp.int32).at[labels].add(1)
        single = (jnp.max(counts) == z.shape[0]) & (self.n_pseudo > 1)
        # Sampling weights 1/(cluster size): without them a few large clusters would dominate the loss.
        return RefreshResult(labels, labels, 1 / counts[labels].astype(z.dtype), _collapsed(z) | single)

    def _view_features(self, key, x):
        """(n_views, n_samples, latent) features of each view."""
        return apply_to_views(self.features, stack_views(self.view, key, x))


class DeepCluster(PseudoLabels):
    """DeepCluster: cross-entropy of a linear head and the pseudo-labels of whitened features.

    Each refresh: principal components of the features, whitened and normalized → k-means → a new random head.

    Args:
        encoder: samples to (n_samples, latent) features; usually with batch normalization, or features collapse.
        latent: width of the features.
        n_pseudo: number of pseudo-labels; more than the clusters sought works better.
        n_clusters: number of final clusters; None for n_pseudo.
        n_init: starts of the final k-means.
        components: number of principal components; None for a quarter of the features, between 2 and 256: whitening
            scales the least components, which are mostly noise, up to the variance of the others.
        view: one or several augmentations of the samples; None for none.
        rngs: its stream "params" draws the head.

    Raises:
        ValueError, TypeError: counts below 1, or that are not integers; more components than features.
    """

    reset_on_refresh = ("head",)

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
        default = min(latent, max(2, -(-latent // 4)), 256)
        width = default if components is None else validation.check_count("components", components)
        if width > latent:
            raise ValueError(f"components={width} is more than the {latent} features there are. Pass at most {latent}.")
        super().__init__(encoder, n_pseudo, n_clusters, n_init, width, view)
        kernel_init = nnx.initializers.normal(HEAD_DEVIATION)
        self.head = nnx.Linear(latent, self.n_pseudo, kernel_init=kernel_init, rngs=rngs)
        self.mean = NonTrainable(jnp.zeros(latent, jnp.float32))
        self.whitening = NonTrainable(jnp.eye(latent, width, dtype=jnp.float32))

    @property
    def trainable(self) -> dict[str, Any]:
        """Two parts, since the head and its optimizer state start anew at each refresh."""
        head = nnx.PathContains("head")
        return {"encoder": nnx.All(nnx.Param, nnx.Not(head)), "head": nnx.All(nnx.Param, head)}

    def preprocess_features(self, z: Float[Array, "n l"]) -> Float[Array, "n m"]:
        """Features whitened by the last refresh, and normalized to length 1."""
        whitened = Whitening(self.mean[...], self.whitening[...]).apply(z)
        # A single component is not normalized: only its sign would be left.
        return whitened if whitened.shape[1] == 1 else normalize(whitened)

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> RefreshResult:
        """A new whitening, new pseudo-labels as targets, and a new head."""
        cluster_key, head_key = jax.random.split(key)
        self.whiten(z)
        labels = self._fit_pseudo_labels(cluster_key, z).labels
        kernel, bias = self.head.kernel, self.head.bias
        # Pseudo-labels of two refreshes are numbered independently: weights learned for the old ones would mislead.
        kernel[...] = HEAD_DEVIATION * jax.random.normal(head_key, kernel.shape, kernel.dtype)
        if bias is not None:
            bias[...] = jnp.zeros_like(bias[...])
        return self._refresh_result(z, labels)

    def whiten(self, z: Float[Array, "n l"]) -> None:
        """Set the whitening to the principal components of the features."""
        self.mean[...], self.whitening[...] = whitening(z, self.whitening.shape[1])

    def finalize(self, z: Float[Array, "n l"], key: KeyArray) -> RefreshResult:
        """Final clusters by k-means on the whitened features of all samples."""
        self.whiten(z)
        return super().finalize(z, key)

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Cross-entropy of a batch and its pseudo-labels.

        Returns:
            The mean cross-entropy (nats), and the "accuracy" of the head.
        """
        return _cross_entropy(jnp.float32(self.head(self._view_features(key, batch.x))), batch.target)


class DeepClusterV2(PseudoLabels):
    """DeepCluster-v2: cross-entropy of cosines to the centers of spherical k-means, and its clusters.

    The centers of the last refresh, as constants, take the place of a head.

    Args:
        encoder: samples to (n_samples, latent) features; usually with a projector as its last part.
        latent: width of the features.
        n_pseudo: number of pseudo-labels; more than the clusters sought works better.
        n_clusters: number of final clusters; None for n_pseudo.
        n_init: starts of the final k-means.
        temperature: > 0, divisor of the cosines.
        view: one or several augmentations of the samples; None for none.

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
        self.temperature = float(validation.check_positive("temperature", temperature))
        self.prototypes = NonTrainable(jnp.zeros((self.n_pseudo, latent), jnp.float32))

    def preprocess_features(self, z: Float[Array, "n l"]) -> Float[Array, "n l"]:
        """Features normalized to length 1."""
        return normalize(z)

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> RefreshResult:
        """New pseudo-labels as targets, and their centers as prototypes."""
        fit = self._fit_pseudo_labels(key, z)
        self.prototypes[...] = fit.state.centers
        return self._refresh_result(self.preprocess_features(z), fit.labels)

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Cross-entropy of a batch and its pseudo-labels.

        Returns:
            The mean cross-entropy (nats), and the "accuracy" of the prototypes.
        """
        cosines = apply_to_views(self._cosines, [self._view_features(key, batch.x)])
        return _cross_entropy(cosines / self.temperature, batch.target)

    def _cosines(self, z):
        return inner_products(self.preprocess_features(z), self.prototypes[...])


def _collapsed(z: Float[Array, "n l"]) -> Bool[Array, ""]:
    """True if features differ by rounding only."""
    mean_square = jnp.maximum(jnp.mean(jnp.square(z)), jnp.finfo(z.dtype).tiny)
    return jnp.mean(jnp.var(z, axis=0)) <= MIN_RELATIVE_VARIANCE * mean_square


def _cross_entropy(logits: Float[Array, "v b k"], labels: Int[Array, " b"]):
    """The mean over views and samples of −log softmax(logits)_label, and the accuracy of the greatest logit."""
    terms = jax.nn.log_softmax(logits)[:, jnp.arange(labels.size, dtype=jnp.int32), labels]
    predicted = jnp.argmax(logits, axis=2).astype(labels.dtype)
    return -jnp.mean(terms), {"accuracy": jnp.mean(predicted == labels[None], dtype=logits.dtype)}

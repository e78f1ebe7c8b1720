"""k-means in latent space: on fixed codes, or with codes that are trained for it (DCN, DKM, denoising clustering).

Sources: B. Yang, X. Fu, N. Sidiropoulos and M. Hong, Towards k-means-friendly spaces: simultaneous deep learning and
clustering, ICML 2017 (DCN); M. Moradi Fard, T. Thonet and E. Gaussier, Deep k-means: jointly clustering with k-means
and learning representations, Pattern Recognition Letters 138 (2020) (DKM).
"""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.cluster import kmeans, soft_kmeans
from jaxcluster.core import validation
from jaxcluster.deep.autoencoder import Autoencoder, View, apply_view
from jaxcluster.deep.protocol import Batch, ClusteringModule, RefreshResult
from jaxcluster.losses.kmeans import deep_kmeans_loss
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.types import Array, ArrayLike, Float, Int, KeyArray


class NonTrainable(nnx.Variable):
    """A variable with an update rule of its own, outside the optimizer."""


class LatentCenters(ClusteringModule):
    """Cluster centers in latent space, with hard and soft assignments of codes.

    Args:
        centers: (n_clusters, latent).

    Raises:
        ValueError: centers that are not a matrix.
    """

    def __init__(self, centers: ArrayLike):
        self.centers = NonTrainable(jnp.asarray(validation.check_matrix(centers, name="centers"), jnp.float32))
        self.variance = NonTrainable(jnp.ones((), jnp.float32))

    def labels(self, z: Float[Array, "n l"]) -> Int[Array, " n"]:
        """Index of the nearest center of each code."""
        return kmeans.predict(self.centers[...], z)

    def assign(self, z: Float[Array, "n l"]) -> Float[Array, "n k"]:
        """Responsibilities (n_samples, n_clusters) of clusters for codes.

        Those of the mixture whose limit is k-means: equal weights, and the pooled variance of codes in their clusters
        as the variance of all of them.
        """
        return soft_kmeans.responsibilities(self.centers[...], z, self.variance[...])

    def update_variance(self, z: Float[Array, "n l"], labels: Int[Array, " n"]) -> None:
        """Set the variance to the mean square, over samples and features, of codes minus their centers."""
        within = jnp.mean(jnp.square(z - self.centers[...][labels]))
        # Codes that coincide with their centers have variance 0, which `assign` would divide by.
        self.variance[...] = jnp.maximum(within, jnp.finfo(jnp.float32).tiny)


class LatentKMeans(LatentCenters):
    """An autoencoder and k-means centers of its codes: the baseline of deep clustering.

    Args:
        autoencoder: pretrained.
        centers: (n_clusters, latent), from k-means on the codes.

    Raises:
        ValueError: centers that are not a matrix.
    """

    def __init__(self, autoencoder: Autoencoder, centers: ArrayLike):
        super().__init__(centers)
        self.autoencoder = autoencoder

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """Code of each sample."""
        return self.autoencoder.encode(x)

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> RefreshResult:
        """Clusters of all samples; updates the variance within them."""
        labels = self.labels(z)
        self.update_variance(z, labels)
        return RefreshResult(labels)


class DCN(LatentKMeans):
    """Deep clustering network: the mean over samples of Σ_j (x_j − x̂_j)² + (λ/2)·‖z − c_s‖² for code z in cluster s.

    Network and centers are updated alternately: codes by a gradient step towards their centers, and centers by a step
    of online k-means, of size 1/(number of samples that the center had so far).

    Args:
        autoencoder: pretrained; all of it is trained.
        centers: (n_clusters, latent) initial centers.
        counts: (n_clusters,) initial number of samples of each center, those of its cluster.
        weight: λ >= 0 (units of the reconstruction error per squared unit of the codes).
        augment: an augmentation of the samples; None for none.

    Raises:
        ValueError: centers or counts of another shape; a negative weight.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        centers: ArrayLike,
        counts: ArrayLike,
        *,
        weight: float = 1.0,
        augment: View | None = None,
    ):
        super().__init__(autoencoder, centers)
        counts = jnp.asarray(counts, jnp.int32)
        if counts.shape != self.centers.shape[:1]:
            raise ValueError(f"counts must have shape {self.centers.shape[:1]}, one a center, got {counts.shape}.")
        # int32, since a float32 count would stop at 2²⁴.
        self.counts, self.augment = NonTrainable(counts), augment
        self.weight = float(validation.check_positive("weight", weight, zero=True))

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Loss of a batch; updates the centers.

        Returns:
            The loss, and its terms "reconstruction" and "clustering", the latter without λ/2.
        """
        x = apply_view(self.augment, key, batch.x)
        z = self.features(x)
        centers = self.centers[...]
        labels = self.labels(jax.lax.stop_gradient(z))
        # `error` is a mean over features; the paper's term is their sum.
        error = self.autoencoder.error(x, self.autoencoder.decoder(z)) * (x.size // x.shape[0])
        distance = jnp.mean(jnp.sum(jnp.square(z - centers[labels]), axis=1))
        self._update_centers(jax.lax.stop_gradient(z), labels)
        return error + self.weight / 2 * distance, {"reconstruction": error, "clustering": distance}

    def _update_centers(self, z, labels):
        # The batch form of c ← c + (z − c)/n: centers become the mean of all their codes so far, in any order.
        members = jax.nn.one_hot(labels, self.counts.shape[0], dtype=z.dtype)
        new, centers = members.sum(0), self.centers[...]
        self.counts[...] += new.astype(jnp.int32)
        shifts = jnp.matmul(members.T, z, precision=HIGHEST) - new[:, None] * centers
        self.centers[...] = centers + shifts / jnp.maximum(self.counts[...], 1).astype(z.dtype)[:, None]


class DKM(LatentKMeans):
    """Deep k-means: the mean over samples of Σ_j (x_j − x̂_j)² + λ·Σ_j r_j·‖z − c_j‖², r = softmax(−α·‖z − c‖²).

    The loss is smooth, so that network and centers are trained together by its gradient. The larger α, the nearer it is
    to k-means. With ``annealed`` α begins small: each refresh multiplies it by 2^(1/log(m)²), m = 2, 3, …, which is
    the published schedule.

    Args:
        autoencoder: pretrained; all of it is trained.
        centers: (n_clusters, latent) initial centers.
        weight: λ >= 0 (units of the reconstruction error per squared unit of the codes).
        alpha: α > 0 (1/squared unit of the codes), or its largest value.
        annealed: start from α = 0.1, for networks that were not pretrained.
        augment: an augmentation of the samples; None for none.

    Raises:
        ValueError: centers of another shape; a negative weight; an alpha that is not positive.
    """

    ANNEALED_FROM = 0.1

    def __init__(
        self,
        autoencoder: Autoencoder,
        centers: ArrayLike,
        *,
        weight: float = 1.0,
        alpha: float = 1000.0,
        annealed: bool = False,
        augment: View | None = None,
    ):
        super().__init__(autoencoder, centers)
        self.centers = nnx.Param(self.centers[...])
        self.weight = float(validation.check_positive("weight", weight, zero=True))
        self.largest_alpha = float(validation.check_positive("alpha", alpha))
        first = min(self.ANNEALED_FROM, self.largest_alpha) if annealed else self.largest_alpha
        self.alpha, self.refreshes = NonTrainable(jnp.float32(first)), NonTrainable(jnp.int32(0))
        self.augment = augment

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> RefreshResult:
        """Clusters of all samples; updates the variance within them, and α."""
        number = self.refreshes[...] + 1
        grown = self.alpha[...] * jnp.exp2(1 / jnp.square(jnp.log(jnp.maximum(number, 2).astype(jnp.float32))))
        # The refresh before the first step leaves α where it begins.
        self.alpha[...] = jnp.where(number > 1, jnp.minimum(grown, self.largest_alpha), self.alpha[...])
        self.refreshes[...] = number
        return super().refresh(z, key)

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Loss of a batch.

        Returns:
            The loss, and its terms "reconstruction" and "clustering", the latter without λ.
        """
        x = apply_view(self.augment, key, batch.x)
        z = self.features(x)
        error = self.autoencoder.error(x, self.autoencoder.decoder(z)) * (x.size // x.shape[0])
        clustering = deep_kmeans_loss(z, self.centers[...], alpha=self.alpha[...])
        return error + self.weight * clustering, {"reconstruction": error, "clustering": clustering}


class DenoisingClustering(LatentKMeans):
    """A denoising autoencoder whose codes are drawn to their k-means centers.

    Minimizes the mean over samples of (reconstruction error) + λ·‖z − c_s‖²/v. The error is the autoencoder's, a mean
    over features, of corrupted samples. v is the total variance of all codes, so λ has no unit and a smaller scale of
    the codes gains nothing. A refresh runs k-means on all codes, from the present centers; its labels and v hold until
    the next.

    Args:
        autoencoder: pretrained, with ``noise``; all of it is trained.
        centers: (n_clusters, latent) initial centers.
        weight: λ >= 0.

    Raises:
        ValueError: centers of another shape; a negative weight.
    """

    def __init__(self, autoencoder: Autoencoder, centers: ArrayLike, *, weight: float = 0.1):
        super().__init__(autoencoder, centers)
        self.spread = NonTrainable(jnp.ones((), jnp.float32))
        self.weight = float(validation.check_positive("weight", weight, zero=True))

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> RefreshResult:
        """k-means on the codes of all samples; the label of a sample is its target."""
        fit = kmeans.fit(key, z, self.centers.shape[0], init=self.centers[...])
        self.centers[...] = fit.state.centers
        self.update_variance(z, fit.labels)
        self.spread[...] = jnp.maximum(jnp.sum(jnp.var(z, axis=0)), jnp.finfo(jnp.float32).tiny)
        return RefreshResult(fit.labels, fit.labels)

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Loss of a corrupted batch.

        Returns:
            The loss, and its terms "reconstruction" and "clustering", the latter without λ.
        """
        augment_key, noise_key = jax.random.split(key)
        x = apply_view(self.autoencoder.augment, augment_key, batch.x)
        z = self.features(apply_view(self.autoencoder.noise, noise_key, x))
        error = self.autoencoder.error(x, self.autoencoder.decoder(z))
        distance = jnp.mean(jnp.sum(jnp.square(z - self.centers[...][batch.target]), axis=1)) / self.spread[...]
        return error + self.weight * distance, {"reconstruction": error, "clustering": distance}


Network = TypeVar("Network", bound=nnx.Module)


def soft_reset(network: Network, fresh: nnx.Module, *, keep: Any) -> Network:
    """A network with parameters keep·θ + (1 − keep)·φ, of θ the network's and φ the fresh network's.

    Between clusterings it moves codes enough for k-means to find other clusters, and keeps most of what was learned.

    Args:
        network: is not changed; variables that are no parameters are kept.
        fresh: of the same shape.
        keep: in [0, 1].

    Returns:
        the new network.

    Raises:
        ValueError: keep out of range; a fresh network of another shape.

    Example:
        >>> trained, fresh = nnx.Linear(1, 1, rngs=nnx.Rngs(0)), nnx.Linear(1, 1, rngs=nnx.Rngs(1))
        >>> trained.bias[...], fresh.bias[...] = trained.bias[...] + 1, fresh.bias[...] + 3
        >>> float(soft_reset(trained, fresh, keep=0.75).bias[0])
        1.5

    Source: L. Miklautz, T. Klein, K. Sidak, C. Leiber, T. Lang, A. Shkabrii, S. Tschiatschek and C. Plant, Breaking the
    reclustering barrier in centroid-based deep clustering, ICLR 2025.
    """
    if float(validation.check_positive("keep", keep, zero=True)) > 1:
        raise ValueError(f"keep={keep} must be at most 1.")
    changed = nnx.clone(network)
    # Parameters alone: running statistics of fresh networks are those of no data.
    own, other = nnx.state(changed, nnx.Param), nnx.state(fresh, nnx.Param)
    if jax.tree.map(lambda leaf: leaf.shape, own) != jax.tree.map(lambda leaf: leaf.shape, other):
        raise ValueError("fresh must be a network of the same shape as the one to reset.")
    nnx.update(changed, jax.tree.map(lambda a, b: keep * a + (1 - keep) * b, own, other))
    return changed

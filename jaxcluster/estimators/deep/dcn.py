"""The deep clustering network, and denoising-autoencoder clustering."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from jaxcluster import deep
from jaxcluster.estimators.deep import checks
from jaxcluster.estimators.deep.autoencoding import DeepClusterer
from jaxcluster.estimators.registry import register


@register("dcn", "reconstruction and k-means of the codes, in turn")
@dataclass(eq=False, repr=False, kw_only=True)
class DCN(DeepClusterer):
    """The deep clustering network: reconstruction and k-means of the codes, in turn.

    Minimizes Σ_j (x_j − x̂_j)² + (λ/2)·‖z − c_s‖², the mean over rows; centers follow their codes.

    Args:
        n_clusters: number of clusters.
        weight: λ.
        hidden, latent, …: see `jaxcluster.estimators.deep.autoencoding.DeepClusterer`.

    Attributes:
        labels_, cluster_centers_, history_, records_, snapshots_, n_iter_, status_: as of all deep methods.

    Source: B. Yang, X. Fu, N. Sidiropoulos and M. Hong, Towards k-means-friendly spaces: simultaneous deep learning
    and clustering, ICML 2017.
    """

    weight: float = 1.0

    def _check_params(self, n, d):
        super()._check_params(n, d)
        checks.check_number("weight", self.weight, zero=True)

    def _start(self, key, z, autoencoder, rows, known):
        fit = self._kmeans(key, z)
        return {"centers": fit.state.centers, "counts": jnp.bincount(fit.labels, length=self.n_clusters)}

    def _make(self, autoencoder, start):
        return deep.DCN(autoencoder, start["centers"], start["counts"], weight=self.weight, augment=self._view())


@register("denoising-clustering", "a denoising autoencoder whose codes are drawn to k-means centers")
@dataclass(eq=False, repr=False, kw_only=True)
class DenoisingAutoencoderClustering(DeepClusterer):
    """A denoising autoencoder that goes on denoising while k-means on all its codes draws them to their centers.

    Minimizes error + λ·‖z − c_s‖²/v, the mean over rows, v the total variance of the codes: λ has no unit.

    Args:
        n_clusters: number of clusters.
        weight: λ.
        hidden, latent, …: see `jaxcluster.estimators.deep.autoencoding.DeepClusterer`.

    Attributes:
        labels_, cluster_centers_, history_, records_, snapshots_, n_iter_, status_: as of all deep methods.
    """

    weight: float = 0.1

    def _check_params(self, n, d):
        super()._check_params(n, d)
        checks.check_number("weight", self.weight, zero=True)

    def _make(self, autoencoder, start):
        return deep.DenoisingClustering(autoencoder, start["centers"], weight=self.weight)

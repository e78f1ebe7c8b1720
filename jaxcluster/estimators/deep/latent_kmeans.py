"""k-means in a latent space: `AutoencoderKMeans`, `DCN`, `DKM` and `DenoisingAutoencoderClustering`."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from jaxcluster import deep
from jaxcluster.deep.inference import map_module
from jaxcluster.deep.latent_kmeans import LatentKMeans
from jaxcluster.deep.trainer import TrainResult
from jaxcluster.estimators.deep import checks
from jaxcluster.estimators.deep.autoencoder_base import AutoencoderClusterer, ResettingClusterer
from jaxcluster.estimators.registry import register
from jaxcluster.types import Status


@register("autoencoder-kmeans", objective="reconstruction error")
@dataclass(eq=False, repr=False, kw_only=True)
class AutoencoderKMeans(AutoencoderClusterer):
    """k-means on the codes of a (denoising) autoencoder, which is trained without clusters: the baseline.

    Args:
        n_clusters: number of clusters.
        hidden, latent, …: see `AutoencoderClusterer`. Parameters of phase 2 have no effect; ``history_`` is that of
            the pretraining.

    Attributes:
        labels_, cluster_centers_, history_, epoch_history_, snapshots_, n_iter_: see `DeepEstimator`.
        status_: `jaxcluster.types.Status` of k-means.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> AutoencoderKMeans(3, hidden=(16,), latent=2, pretrain_epochs=20, random_state=0).fit_transform(X).shape
        (150, 2)
    """

    def _start(self, key, z, autoencoder, rows, class_codes):
        fit = self._kmeans(key, z)
        return {"centers": fit.state.centers, "status": fit.status}

    def _make(self, autoencoder, start):
        return LatentKMeans(autoencoder, start["centers"])

    def _train(self, key, module, rows, class_codes, snapshots, phases, run):
        z = map_module(module, "features", rows)
        module.update_variance(z, module.labels(z))
        phase, trained = phases[-1] if phases else ("pretrain", None)
        history, steps = ((), 0) if trained is None else (trained.history, trained.steps)
        return (
            module,
            phase,
            TrainResult(module, None, steps, Status(int(self._initial_clusters["status"])), None, history),
        )


@register("dcn")
@dataclass(eq=False, repr=False, kw_only=True)
class DCN(ResettingClusterer):
    """Deep clustering network: reconstruction and k-means of the codes, alternately.

    Minimizes Σ_j (x_j − x̂_j)² + (λ/2)·‖z − c_s‖², the mean over samples; centers are running means of their codes.

    Args:
        n_clusters: number of clusters.
        weight: λ, weight of the distance to the centers.
        reset_interval, reset_keep: see `ResettingClusterer`.
        hidden, latent, …: see `AutoencoderClusterer`.

    Attributes:
        labels_, cluster_centers_, history_, epoch_history_, snapshots_, n_iter_, status_: see `DeepEstimator`.

    Source: B. Yang, X. Fu, N. Sidiropoulos and M. Hong, Towards k-means-friendly spaces: simultaneous deep learning
    and clustering, ICML 2017.
    """

    weight: float = 1.0

    def _check_params(self, n, d):
        super()._check_params(n, d)
        checks.check_number("weight", self.weight, zero=True)

    def _start(self, key, z, autoencoder, rows, class_codes):
        fit = self._kmeans(key, z)
        return {"centers": fit.state.centers, "counts": jnp.bincount(fit.labels, length=self.n_clusters)}

    def _make(self, autoencoder, start):
        return deep.DCN(autoencoder, start["centers"], start["counts"], weight=self.weight, augment=self._view())


@register("dkm")
@dataclass(eq=False, repr=False, kw_only=True)
class DKM(ResettingClusterer):
    """Deep k-means: reconstruction and a smooth k-means loss of the codes, which trains network and centers together.

    Minimizes Σ_j (x_j − x̂_j)² + λ·Σ_j r_j·‖z − c_j‖², the mean over samples, with r = softmax(−α·‖z − c‖²).

    Args:
        n_clusters: number of clusters.
        weight: λ, weight of the clustering term.
        alpha: α > 0, inverse temperature of the soft clusters (1/squared unit of the codes).
        annealed: increase α from 0.1 up to ``alpha``, a step each epoch; for few ``pretrain_epochs``, or none. Training
            ends by ``tol`` before α is at its largest: pass None for all ``epochs``.
        reset_interval, reset_keep: see `ResettingClusterer`.
        hidden, latent, …: see `AutoencoderClusterer`.

    Attributes:
        labels_, cluster_centers_, history_, epoch_history_, snapshots_, n_iter_, status_: see `DeepEstimator`.

    Source: M. Moradi Fard, T. Thonet and E. Gaussier, Deep k-means: jointly clustering with k-means and learning
    representations, Pattern Recognition Letters 138 (2020).
    """

    weight: float = 1.0
    alpha: float = 1000.0
    annealed: bool = False

    def _check_params(self, n, d):
        super()._check_params(n, d)
        checks.check_number("weight", self.weight, zero=True)
        checks.check_number("alpha", self.alpha)
        checks.check_flag("annealed", self.annealed)

    def _make(self, autoencoder, start):
        options = {"weight": self.weight, "alpha": self.alpha, "annealed": self.annealed, "augment": self._view()}
        return deep.DKM(autoencoder, start["centers"], **options)


@register("denoising-clustering")
@dataclass(eq=False, repr=False, kw_only=True)
class DenoisingAutoencoderClustering(AutoencoderClusterer):
    """Denoising autoencoder that goes on denoising while its codes move towards their k-means centers.

    Minimizes error + λ·‖z − c_s‖²/v, the mean over samples, with v the total variance of the codes: λ has no unit.

    Args:
        n_clusters: number of clusters.
        weight: λ, weight of the distance to the centers.
        hidden, latent, …: see `AutoencoderClusterer`.

    Attributes:
        labels_, cluster_centers_, history_, epoch_history_, snapshots_, n_iter_, status_: see `DeepEstimator`.
    """

    weight: float = 0.1

    def _check_params(self, n, d):
        super()._check_params(n, d)
        checks.check_number("weight", self.weight, zero=True)

    def _make(self, autoencoder, start):
        return deep.DenoisingClustering(autoencoder, start["centers"], weight=self.weight)

"""k-means on the codes of an autoencoder: the baseline of deep clustering."""

from __future__ import annotations

from dataclasses import dataclass

from jaxcluster.deep.inference import map_module
from jaxcluster.deep.latent_kmeans import CodeKMeans
from jaxcluster.deep.trainer import Trained
from jaxcluster.estimators.deep.autoencoding import DeepClusterer
from jaxcluster.estimators.registry import register
from jaxcluster.types import Status


@register("autoencoder-kmeans", "k-means on the codes of an autoencoder", objective="reconstruction error")
@dataclass(eq=False, repr=False, kw_only=True)
class AutoencoderKMeans(DeepClusterer):
    """k-means on the codes of a (denoising) autoencoder: nothing is trained for the clusters' sake.

    Args:
        n_clusters: number of clusters.
        hidden, latent, …: see `jaxcluster.estimators.deep.autoencoding.DeepClusterer`. Options of the second
            phase mean nothing here, and ``history_`` is that of the pretraining.

    Attributes:
        labels_, cluster_centers_, history_, records_, snapshots_, n_iter_: as of all deep methods.
        status_: how k-means ended.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> AutoencoderKMeans(3, hidden=(16,), latent=2, pretrain_epochs=20, random_state=0).fit_transform(X).shape
        (150, 2)
    """

    def _start(self, key, z, autoencoder, rows, known):
        fit = self._kmeans(key, z)
        return {"centers": fit.state.centers, "status": fit.status}

    def _make(self, autoencoder, start):
        return CodeKMeans(autoencoder, start["centers"])

    def _train(self, key, module, rows, known, snapshots, endings):
        z = map_module(module, "features", rows)
        module.measure(z, module.labels(z))
        phase, trained = endings[-1] if endings else ("pretrain", None)
        history, steps = ((), 0) if trained is None else (trained.history, trained.steps)
        return module, phase, Trained(module, None, steps, Status(int(self._began["status"])), None, history)

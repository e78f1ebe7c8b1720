"""Deep clustering: losses and layers as Flax modules, and the training loop. Only this package imports Flax.

A method is a `ClusteringModule` with ``loss(batch, key)`` and, if it needs the features of all samples between epochs,
``features(x)`` and ``refresh(z, key)``; `train` trains them all. Names load when they are first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = ("nets", "views")

_OBJECTS = {
    "Autoencoder": "autoencoder",
    "Batch": "protocol",
    "ClusterGAN": "clustergan",
    "ClusterLayer": "cluster_layer",
    "Clustered": "cluster_layer",
    "ClusteringModule": "protocol",
    "ContrastiveClustering": "contrastive_clustering",
    "DCN": "latent_kmeans",
    "DEC": "dec",
    "DKM": "latent_kmeans",
    "DeepCluster": "deepcluster",
    "DeepClusterV2": "deepcluster",
    "DenoisingClustering": "latent_kmeans",
    "EpochReport": "trainer",
    "IDEC": "dec",
    "JointClustering": "dec",
    "JsonLines": "callbacks",
    "LatentKMeans": "latent_kmeans",
    "MetricEmbedding": "metric_learning",
    "ProgressBar": "callbacks",
    "RefreshResult": "protocol",
    "Snapshots": "callbacks",
    "SCAN": "neighbor_heads",
    "SelfSupervised": "self_supervised",
    "SwAV": "swav",
    "TEMI": "neighbor_heads",
    "TURTLE": "turtle",
    "TensorBoard": "callbacks",
    "TrainResult": "trainer",
    "UpdatePhase": "protocol",
    "VaDE": "vade",
    "adam": "optimizers",
    "integrated_gradients": "attribution",
    "map_module": "inference",
    "pretrain_layers": "autoencoder",
    "train": "trainer",
}
"""Public objects, and the module of this package that defines each."""

__all__ = [*_OBJECTS, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _OBJECTS:
        from jaxcluster.core.messages import no_attribute

        raise no_attribute(__name__, name, __all__)
    value = getattr(importlib.import_module(f"{__name__}.{_OBJECTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

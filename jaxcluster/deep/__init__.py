"""Clustering inside of networks and by them, as Flax modules. This folder alone imports Flax.

A method is an `nnx.Module` with ``loss(batch, key)`` and, where it looks at all rows now and then, ``features(x)`` and
``refresh(z, key)``; `train` serves them all.
"""

from jaxcluster.deep.autoencoder import Autoencoder, pretrain_layers
from jaxcluster.deep.callbacks import JsonLines, ProgressBar, Snapshots, TensorBoard
from jaxcluster.deep.cluster_layer import Clustered, ClusterLayer
from jaxcluster.deep.clustergan import ClusterGAN
from jaxcluster.deep.dec import DEC, IDEC, JointClustering
from jaxcluster.deep.deepcluster import DeepCluster, DeepClusterV2
from jaxcluster.deep.inference import map_module
from jaxcluster.deep.latent_kmeans import DCN, CodeKMeans, DenoisingClustering
from jaxcluster.deep.metric_learning import MetricEmbedding
from jaxcluster.deep.optimizers import adam
from jaxcluster.deep.protocol import Batch, Objective, Refreshed, Turn
from jaxcluster.deep.swav import SwAV
from jaxcluster.deep.trainer import Report, Trained, train
from jaxcluster.deep.vade import VaDE

__all__ = [
    "DCN",
    "DEC",
    "IDEC",
    "Autoencoder",
    "Batch",
    "ClusterGAN",
    "ClusterLayer",
    "Clustered",
    "CodeKMeans",
    "DeepCluster",
    "DeepClusterV2",
    "DenoisingClustering",
    "JointClustering",
    "JsonLines",
    "MetricEmbedding",
    "Objective",
    "ProgressBar",
    "Refreshed",
    "Report",
    "Snapshots",
    "SwAV",
    "TensorBoard",
    "Trained",
    "Turn",
    "VaDE",
    "adam",
    "map_module",
    "pretrain_layers",
    "train",
]

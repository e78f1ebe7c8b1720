"""Clustering inside of networks and by them, as Flax modules. This folder alone imports Flax.

A method is an `nnx.Module` with ``loss(batch, key)`` and, where it looks at all rows now and then, ``features(x)`` and
``refresh(z, key)``; `train` serves them all.
"""

from jaxcluster.deep.autoencoder import Autoencoder
from jaxcluster.deep.callbacks import JsonLines, ProgressBar, Snapshots, TensorBoard
from jaxcluster.deep.cluster_layer import Clustered, ClusterLayer
from jaxcluster.deep.clustergan import ClusterGAN
from jaxcluster.deep.codes import CodeKMeans
from jaxcluster.deep.dcn import DCN, DenoisingClustering
from jaxcluster.deep.dec import DEC, IDEC
from jaxcluster.deep.deepcluster import DeepCluster, DeepClusterV2
from jaxcluster.deep.joint import JointClustering
from jaxcluster.deep.metric_learning import MetricEmbedding
from jaxcluster.deep.objective import Batch, Objective, Refreshed, Turn
from jaxcluster.deep.optimizers import adam
from jaxcluster.deep.stacked import pretrain_layers
from jaxcluster.deep.swav import SwAV
from jaxcluster.deep.trainer import Report, Trained, train
from jaxcluster.deep.use import map_module
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

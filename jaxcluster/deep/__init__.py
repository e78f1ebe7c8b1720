"""Clustering inside of networks and by them, as Flax modules. This folder alone imports Flax."""

from jaxcluster.deep.cluster_layer import Clustered, ClusterLayer

__all__ = ["ClusterLayer", "Clustered"]

"""scikit-learn estimators over the functional algorithms: they validate, convert, call the function and publish.

`ESTIMATORS` maps the names used on the command line and in saved models to classes. A class says what it takes in its
`EstimatorInfo`; the table below holds where it is defined and what a list of methods shows, so that neither importing
this package nor listing the methods imports an algorithm.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple


class ClassEntry(NamedTuple):
    """All that is known of a class without importing it.

    Attributes:
        location: its module in this package and its name there, with a colon between.
        family: "partition", "mixture", "graph", "density" or "deep".
        title: a few words for a list of methods.
        labels: True if each row gets a cluster, False for an embedding.
        sparse: True if rows may be sparse.
    """

    location: str
    family: str
    title: str
    labels: bool = True
    sparse: bool = False


CLASSES = {
    "kmeans": ClassEntry(
        "kmeans:KMeans", "partition", "k-means by Lloyd's iteration, Euclidean or spherical", sparse=True
    ),
    "minibatch-kmeans": ClassEntry(
        "minibatch:MiniBatchKMeans", "partition", "k-means on random minibatches", sparse=True
    ),
    "bisecting-kmeans": ClassEntry(
        "kmeans:BisectingKMeans", "partition", "k-means by repeated splits of one cluster in two", sparse=True
    ),
    "balanced-kmeans": ClassEntry("constrained:BalancedKMeans", "partition", "k-means with bounds on cluster sizes"),
    "constrained-kmeans": ClassEntry(
        "constrained:ConstrainedKMeans", "partition", "k-means with must-link and cannot-link pairs of rows"
    ),
    "kmedoids": ClassEntry(
        "kmedoids:KMedoids", "partition", "k-medoids: centers are rows, for any metric", sparse=True
    ),
    "kmodes": ClassEntry("categorical:KModes", "partition", "k-modes: categorical columns, centers are modes"),
    "kprototypes": ClassEntry(
        "categorical:KPrototypes", "partition", "k-prototypes: columns of numbers and of categories"
    ),
    "gmm": ClassEntry(
        "mixture:GaussianMixture", "mixture", "Gaussian mixture by expectation-maximization", sparse=True
    ),
    "bayesian-gmm": ClassEntry(
        "bayesian_mixture:BayesianGaussianMixture",
        "mixture",
        "Gaussian mixture by variational inference, which empties surplus components",
    ),
    "spectral": ClassEntry(
        "spectral:SpectralClustering", "graph", "normalized graph cuts, by eigenvectors of the Laplacian", sparse=True
    ),
    "spectral-embedding": ClassEntry(
        "spectral:SpectralEmbedding",
        "graph",
        "Laplacian eigenmaps: an embedding and no clusters, in Python only",
        labels=False,
        sparse=True,
    ),
    "neighbor-embedding": ClassEntry(
        "neighbor_embedding:NeighborEmbedding",
        "graph",
        "a map that keeps near neighbors near (UMAP): no clusters, in Python only",
        labels=False,
    ),
    "n2d": ClassEntry("neighbor_embedding:N2D", "graph", "Gaussian mixture on a neighbor embedding of the rows"),
    "dbscan": ClassEntry(
        "density:DBSCAN", "density", "density-based clusters of any shape, for one radius", sparse=True
    ),
    "optics": ClassEntry(
        "density:OPTICS", "density", "reachability ordering, and clusters of any density in it", sparse=True
    ),
    "hdbscan": ClassEntry(
        "hdbscan:HDBSCAN", "density", "hierarchy of density-based clusters, selected by stability", sparse=True
    ),
    "autoencoder-kmeans": ClassEntry(
        "deep.latent_kmeans:AutoencoderKMeans", "deep", "k-means on the codes of an autoencoder"
    ),
    "denoising-clustering": ClassEntry(
        "deep.latent_kmeans:DenoisingAutoencoderClustering",
        "deep",
        "denoising autoencoder whose codes move to k-means centers",
    ),
    "dec": ClassEntry("deep.dec:DEC", "deep", "deep embedded clustering: soft assignments trained to a sharper target"),
    "idec": ClassEntry("deep.dec:IDEC", "deep", "DEC that keeps the reconstruction loss"),
    "dcn": ClassEntry(
        "deep.latent_kmeans:DCN", "deep", "deep clustering network: alternating reconstruction and k-means of the codes"
    ),
    "dkm": ClassEntry(
        "deep.latent_kmeans:DKM", "deep", "deep k-means: network and centers trained together by a smooth k-means loss"
    ),
    "vade": ClassEntry(
        "deep.vade:VaDE", "deep", "variational autoencoder with a Gaussian mixture prior; generates rows"
    ),
    "clustergan": ClassEntry(
        "deep.clustergan:ClusterGAN",
        "deep",
        "adversarial network with an encoder that recovers clusters; generates rows",
    ),
    "deepcluster": ClassEntry(
        "deep.self_supervised:DeepCluster",
        "deep",
        "network trained on pseudo-labels, the k-means clusters of its features",
    ),
    "swav": ClassEntry("deep.self_supervised:SwAV", "deep", "swapped prediction of prototypes between augmented views"),
    "temi": ClassEntry(
        "deep.heads:TEMI", "deep", "heads on embeddings: a sample shares its cluster with its nearest neighbors"
    ),
    "scan": ClassEntry(
        "deep.heads:SCAN", "deep", "heads on embeddings that agree with neighbors, then learn from their sure labels"
    ),
    "turtle": ClassEntry(
        "deep.heads:TURTLE", "deep", "heads on embeddings: the labeling that a linear classifier learns best"
    ),
    "contrastive-clustering": ClassEntry(
        "deep.heads:ContrastiveClustering", "deep", "heads on embeddings that tell rows and clusters apart in two views"
    ),
    "metric-embedding": ClassEntry(
        "deep.metric_embedding:MetricEmbedding",
        "deep",
        "metric learning from labels or augmented views, and k-means of the codes",
    ),
    "self-supervised-embedding": ClassEntry(
        "deep.self_supervised_embedding:SelfSupervisedEmbedding",
        "deep",
        "SimCLR, BYOL, SimSiam, Barlow Twins, VICReg or DINO from augmented views, and k-means of the codes",
    ),
    "joint-clustering": ClassEntry(
        "deep.dec:JointClustering", "deep", "semi-supervised deep clustering, with the classes of some rows known"
    ),
}
"""Each registered name, in the order in which methods are listed; a test compares the table with the classes that
`register` was applied to."""

CLASS_MODULES = {
    name: f"{__name__}.{module}" for module, name in (entry.location.split(":") for entry in CLASSES.values())
}
"""The module of each estimator class, by the name of the class."""

_EXPORTS = {
    **CLASS_MODULES,
    **dict.fromkeys(("ESTIMATORS", "EstimatorInfo", "EstimatorRegistry", "register"), f"{__name__}.registry"),
    "load": f"{__name__}.persistence",
}

__all__ = ["CLASSES", "CLASS_MODULES", "ClassEntry", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Imported on first use: every estimator module imports JAX and scikit-learn, deep ones also Flax and optax.
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""scikit-learn estimators over the functional algorithms: they validate, convert, call the function and publish.

`ESTIMATORS` maps the names used on the command line and in saved models to classes. A class says what it is in its
`EstimatorInfo`; the table below only says where it is defined, so that importing this package imports no algorithm.
"""

from __future__ import annotations

import importlib
from typing import Any

CLASSES = {
    "kmeans": "kmeans:KMeans",
    "minibatch-kmeans": "minibatch:MiniBatchKMeans",
    "bisecting-kmeans": "kmeans:BisectingKMeans",
    "balanced-kmeans": "constrained:BalancedKMeans",
    "constrained-kmeans": "constrained:ConstrainedKMeans",
    "kmedoids": "kmedoids:KMedoids",
    "gmm": "mixture:GaussianMixture",
    "bayesian-gmm": "bayesian_mixture:BayesianGaussianMixture",
    "spectral": "spectral:SpectralClustering",
    "spectral-embedding": "spectral:SpectralEmbedding",
    "dbscan": "density:DBSCAN",
    "optics": "density:OPTICS",
    "hdbscan": "hdbscan:HDBSCAN",
    "autoencoder-kmeans": "deep.latent_kmeans:AutoencoderKMeans",
    "denoising-clustering": "deep.latent_kmeans:DenoisingAutoencoderClustering",
    "dec": "deep.dec:DEC",
    "idec": "deep.dec:IDEC",
    "dcn": "deep.latent_kmeans:DCN",
    "vade": "deep.vade:VaDE",
    "clustergan": "deep.clustergan:ClusterGAN",
    "deepcluster": "deep.self_supervised:DeepCluster",
    "swav": "deep.self_supervised:SwAV",
    "metric-embedding": "deep.metric_embedding:MetricEmbedding",
    "joint-clustering": "deep.dec:JointClustering",
}
"""The module and class of each registered name, in the order in which methods are listed; a test compares the table
with the classes that `register` was applied to."""

CLASS_MODULES = {
    name: f"{__name__}.{module}" for module, name in (location.split(":") for location in CLASSES.values())
}
"""The module of each estimator class, by the name of the class."""

_EXPORTS = {
    **CLASS_MODULES,
    **dict.fromkeys(("ESTIMATORS", "EstimatorInfo", "EstimatorRegistry", "register"), f"{__name__}.registry"),
    "load": f"{__name__}.persistence",
}

__all__ = ["CLASSES", "CLASS_MODULES", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Imported on first use: every estimator module imports JAX and scikit-learn, deep ones also Flax and optax.
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])

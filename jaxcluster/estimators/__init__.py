"""scikit-learn's face of the algorithms: they validate, move arrays, call the function and copy its results.

`ESTIMATORS` maps the names used on the command line and in saved models to classes. Nothing is imported until a class
is asked for, so the mapping can be listed at no cost.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jaxcluster.core import check


class EstimatorInfo(NamedTuple):
    """What can be said of an estimator before it is imported.

    Attributes:
        module: where its class is defined.
        class_name: the class in that module.
        title: a few words for a list of methods.
        clusters: the parameter that holds the number of clusters; None where the method finds it, or needs none.
        steps: the parameter that bounds the steps or passes; None where there is none.
        init: the parameter that says how to start; None where there is none.
        reported: fitted scalar attributes worth showing, in order.
        objective: what ``history_`` holds, in words; None where there is no history.
        best: "min" or "max", which way the objective goes.
        labels: whether it gives each row a cluster; an embedding gives it a place.
    """

    module: str
    class_name: str
    title: str
    clusters: str | None = None
    steps: str | None = None
    init: str | None = None
    reported: tuple[str, ...] = ()
    objective: str | None = None
    best: str = "min"
    labels: bool = True


class EstimatorRegistry(Mapping[str, type]):
    """Names to estimator classes, imported when looked up; `info` tells of one without importing it."""

    def __init__(self, entries: dict[str, EstimatorInfo]) -> None:
        self._entries = entries

    def __getitem__(self, name: str) -> type:
        info = self._entries[name]
        return getattr(importlib.import_module(info.module), info.class_name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def info(self, name: str) -> EstimatorInfo:
        """What is known of the estimator called ``name``; ValueError lists the known ones."""
        check.check_choice("estimator", name, self)
        return self._entries[name]

    def name_of(self, estimator: Any) -> str | None:
        """The name under which an estimator's class is registered; None for any other object."""
        cls = type(estimator)
        for name, info in self._entries.items():
            if (cls.__module__, cls.__qualname__) == (info.module, info.class_name):
                return name
        return None


ESTIMATORS = EstimatorRegistry(
    {
        "kmeans": EstimatorInfo(
            "jaxcluster.estimators.kmeans",
            "KMeans",
            "k-means by Lloyd's iteration, Euclidean or spherical",
            clusters="n_clusters",
            steps="max_iter",
            init="init",
            reported=("inertia_", "n_iter_"),
            objective="inertia",
            best="min",
        ),
        "minibatch-kmeans": EstimatorInfo(
            "jaxcluster.estimators.minibatch",
            "MiniBatchKMeans",
            "k-means on small random batches of rows",
            clusters="n_clusters",
            steps="max_iter",
            init="init",
            reported=("inertia_", "n_iter_", "n_steps_"),
            objective="smoothed inertia per row",
            best="min",
        ),
        "bisecting-kmeans": EstimatorInfo(
            "jaxcluster.estimators.bisecting",
            "BisectingKMeans",
            "k-means that splits one cluster in two until there are enough",
            clusters="n_clusters",
            steps="max_iter",
            init="init",
            reported=("inertia_", "n_iter_"),
            objective="inertia",
            best="min",
        ),
        "balanced-kmeans": EstimatorInfo(
            "jaxcluster.estimators.balanced",
            "BalancedKMeans",
            "k-means whose clusters have one size, or sizes within bounds",
            clusters="n_clusters",
            steps="max_iter",
            init="init",
            reported=("inertia_", "n_iter_"),
            objective="inertia",
            best="min",
        ),
        "constrained-kmeans": EstimatorInfo(
            "jaxcluster.estimators.constrained",
            "ConstrainedKMeans",
            "k-means with pairs of rows that stay together, or apart",
            clusters="n_clusters",
            steps="max_iter",
            init="init",
            reported=("inertia_", "n_iter_"),
            objective="inertia",
            best="min",
        ),
        "kmedoids": EstimatorInfo(
            "jaxcluster.estimators.kmedoids",
            "KMedoids",
            "clusters around rows of their own, by any metric",
            clusters="n_clusters",
            steps="max_iter",
            init="init",
            reported=("inertia_", "n_iter_"),
            objective="sum of distances",
            best="min",
        ),
        "gmm": EstimatorInfo(
            "jaxcluster.estimators.mixture",
            "GaussianMixture",
            "a mixture of Gaussians by expectation-maximization",
            clusters="n_components",
            steps="max_iter",
            init="init_params",
            reported=("lower_bound_", "n_iter_"),
            objective="lower bound (nats per row)",
            best="max",
        ),
        "bayesian-gmm": EstimatorInfo(
            "jaxcluster.estimators.bayesian_mixture",
            "BayesianGaussianMixture",
            "a mixture of Gaussians that empties components it does not need",
            clusters="n_components",
            steps="max_iter",
            init="init_params",
            reported=("lower_bound_", "n_iter_"),
            objective="lower bound (up to a constant)",
            best="max",
        ),
        "spectral": EstimatorInfo(
            "jaxcluster.estimators.spectral",
            "SpectralClustering",
            "a small cut of the graph of rows, by its eigenvectors",
            clusters="n_clusters",
            reported=("n_iter_",),
            objective="sum of the least eigenvalues",
        ),
        "spectral-embedding": EstimatorInfo(
            "jaxcluster.estimators.spectral",
            "SpectralEmbedding",
            "no clusters: places by eigenvectors of a graph, in Python alone",
            reported=("n_iter_",),
            objective="sum of the least eigenvalues",
            labels=False,
        ),
        "dbscan": EstimatorInfo(
            "jaxcluster.estimators.dbscan",
            "DBSCAN",
            "dense regions of any shape, at a density given by a radius",
        ),
        "optics": EstimatorInfo(
            "jaxcluster.estimators.optics",
            "OPTICS",
            "dense regions of any density, as valleys of an order of the rows",
        ),
        "hdbscan": EstimatorInfo(
            "jaxcluster.estimators.hdbscan",
            "HDBSCAN",
            "dense regions of any density, the stable parts of a hierarchy",
        ),
        "autoencoder-kmeans": EstimatorInfo(
            "jaxcluster.estimators.deep.autoencoder_kmeans",
            "AutoencoderKMeans",
            "k-means on the codes of an autoencoder",
            clusters="n_clusters",
            steps="epochs",
            reported=("n_iter_",),
            objective="reconstruction error",
        ),
        "denoising-clustering": EstimatorInfo(
            "jaxcluster.estimators.deep.dcn",
            "DenoisingAutoencoderClustering",
            "a denoising autoencoder whose codes are drawn to k-means centers",
            clusters="n_clusters",
            steps="epochs",
            reported=("n_iter_",),
            objective="loss",
        ),
        "dec": EstimatorInfo(
            "jaxcluster.estimators.deep.dec",
            "DEC",
            "deep embedded clustering: codes drawn to the clusters they are surest of",
            clusters="n_clusters",
            steps="epochs",
            reported=("n_iter_",),
            objective="loss",
        ),
        "idec": EstimatorInfo(
            "jaxcluster.estimators.deep.dec",
            "IDEC",
            "DEC that goes on reconstructing the rows",
            clusters="n_clusters",
            steps="epochs",
            reported=("n_iter_",),
            objective="loss",
        ),
        "dcn": EstimatorInfo(
            "jaxcluster.estimators.deep.dcn",
            "DCN",
            "reconstruction and k-means of the codes, in turn",
            clusters="n_clusters",
            steps="epochs",
            reported=("n_iter_",),
            objective="loss",
        ),
        "vade": EstimatorInfo(
            "jaxcluster.estimators.deep.vade",
            "VaDE",
            "an autoencoder whose codes are a mixture of Gaussians; draws new rows",
            clusters="n_clusters",
            steps="epochs",
            reported=("n_iter_",),
            objective="negative evidence bound (nats per row)",
        ),
        "clustergan": EstimatorInfo(
            "jaxcluster.estimators.deep.clustergan",
            "ClusterGAN",
            "a generator of rows, cluster by cluster, and an encoder that finds clusters again",
            clusters="n_clusters",
            steps="epochs",
            reported=("n_iter_",),
            objective="loss",
        ),
        "deepcluster": EstimatorInfo(
            "jaxcluster.estimators.deep.deepcluster",
            "DeepCluster",
            "a network learns to tell apart the clusters of its own features",
            clusters="n_clusters",
            steps="epochs",
            reported=("n_iter_",),
            objective="loss",
        ),
        "swav": EstimatorInfo(
            "jaxcluster.estimators.deep.swav",
            "SwAV",
            "from one view of a row the prototypes of another are predicted",
            clusters="n_clusters",
            steps="epochs",
            reported=("n_iter_",),
            objective="loss",
        ),
        "metric-embedding": EstimatorInfo(
            "jaxcluster.estimators.deep.metric_embedding",
            "MetricEmbedding",
            "k-means on codes that labels, or views of the rows, draw together",
            clusters="n_clusters",
            steps="epochs",
            reported=("n_iter_",),
            objective="loss",
        ),
        "joint-clustering": EstimatorInfo(
            "jaxcluster.estimators.deep.joint",
            "JointClustering",
            "clusters and classes at once, where the classes of some rows are known",
            clusters="n_clusters",
            steps="epochs",
            reported=("n_iter_",),
            objective="loss",
        ),
    }
)

_EXPORTS = {info.class_name: info.module for info in map(ESTIMATORS.info, ESTIMATORS)}
_EXPORTS["load"] = "jaxcluster.estimators.store"

__all__ = ["ESTIMATORS", "EstimatorInfo", "EstimatorRegistry", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])

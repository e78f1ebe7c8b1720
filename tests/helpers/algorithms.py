"""Tables of all functional algorithms and of the settings with which each estimator finds the four blobs.

The promises of test_contracts.py and test_estimator_contracts.py are tested on all of them. Facts about estimators come
from their `jaxcluster.estimators.EstimatorInfo`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import numpy as np

import jaxcluster as jc
from jaxcluster.core import validation
from jaxcluster.estimators import ESTIMATORS


class Algorithm(NamedTuple):
    """A fit(key, x, k, *, tol=…) -> Fit, with ``weights``, ``init`` and ``axis_name`` where it has them; the promises
    it cannot make, with the reason of each; what is added to the shared rows, where the origin means something to it;
    and whether small problems of other numbers of clusters run one program."""

    fit: Callable[..., Any]
    exempt: Mapping[str, str] = MappingProxyType({})
    shift: tuple[float, ...] = (0.0,)
    padded: bool = False

    @property
    def module(self) -> ModuleType:
        """The public module of the fit."""
        function = getattr(self.fit, "func", self.fit)
        return getattr(jc, function.__module__.split(".")[2])

    def predict(self, state: Any, x: Any) -> Any:
        """Labels by the module's predict, with the options that it shares with the fit."""
        options = getattr(self.fit, "keywords", {})
        shared = options.keys() & inspect.signature(self.module.predict).parameters.keys()
        return self.module.predict(state, x, **{name: options[name] for name in shared})

    def takes(self, *arguments: str) -> bool:
        """True if the fit has arguments of these names."""
        return set(arguments) <= inspect.signature(self.fit).parameters.keys()


def fit_mixed(key, x, k, **options):
    """k-prototypes of all columns as numbers, and of the halves that the first two columns lie in as categories."""
    x = validation.check_matrix(x)
    halves = (validation.check_numeric(x)[:, :2] > 4.5).astype(np.int32)
    return jc.kprototypes.fit(
        key, x, k, codes=halves, n_categories=(2,) * halves.shape[1], **{"init": "cao", **options}
    )


fit_mixed.__signature__ = inspect.signature(jc.kprototypes.fit)

DRAWS_BY_INDEX = "batches draw rows by their index, so other rows mean other batches"

ALL_PAIRS = "it looks at the distances of all pairs of rows, or of a sample, which one device holds"

ON_HOST = "its assignments have no fixed shape, so that they are computed on the host"

ALGORITHMS = {
    "kmeans": Algorithm(jc.kmeans.fit, padded=True),
    "kmeans-cosine": Algorithm(
        partial(jc.kmeans.fit, metric="cosine"),
        exempt={"offset": "directions are taken from the origin, so an offset is another problem"},
        shift=(-8.0, -8.0, -8.0, 0.0, 0.0),
        padded=True,
    ),
    "kmeans-restarts": Algorithm(partial(jc.kmeans.fit, n_init=3), padded=True),
    "kmeans-parallel": Algorithm(
        partial(jc.kmeans.fit, init="k-means||"),
        exempt={
            "repetition": "its draws are by mass, but each is of a row, and repeated rows are other rows",
        },
    ),
    "minibatch": Algorithm(
        partial(jc.minibatch.fit, batch_size=64, max_epochs=5),
        exempt={
            "repetition": DRAWS_BY_INDEX,
            "objective": "a batch says nothing of the other rows",
        },
        padded=True,
    ),
    "gmm": Algorithm(jc.gmm.fit, padded=True),
    "gmm-diag": Algorithm(partial(jc.gmm.fit, covariance="diag", init="k-means++"), padded=True),
    "bayesian-gmm": Algorithm(jc.bayesian_gmm.fit, padded=True),
    "soft-kmeans": Algorithm(partial(jc.soft_kmeans.fit, variance=1.0), padded=True),
    "bisecting": Algorithm(partial(jc.bisecting.fit, init="k-means++"), padded=True),
    "kprototypes": Algorithm(fit_mixed, exempt={"predict": "it takes the codes of the categories too"}, padded=True),
    "kmedoids": Algorithm(jc.kmedoids.fit, exempt={"sharded": ALL_PAIRS}, padded=True),
    "clara": Algorithm(
        jc.kmedoids.clara,
        exempt={
            "sharded": ALL_PAIRS,
            "repetition": "samples draw rows by their index, so other rows mean other samples",
            "objective": "the history is that of a sample",
        },
    ),
    "balanced": Algorithm(jc.balanced.fit, exempt={"traced": ON_HOST}, padded=True),
    "constrained": Algorithm(jc.constrained.fit, exempt={"traced": ON_HOST}, padded=True),
    "spectral": Algorithm(
        partial(jc.spectral.fit, gamma=0.05),
        exempt={
            "objective": "so few rows are decomposed whole, without an iteration",
            "predict": "an embedding is of its own rows; the state of nystrom predicts",
        },
    ),
}


def taking(argument: str) -> list[str]:
    """Algorithms whose fit has an argument of this name."""
    return [name for name, algorithm in ALGORITHMS.items() if algorithm.takes(argument)]


class Finder(NamedTuple):
    """A fit(x) -> Fit of concrete rows that finds out how many clusters there are, without chance, set so that it finds
    the four blobs; and whether it takes ``weights``."""

    fit: Callable[..., Any]
    weighted: bool = False


FINDERS = {
    "dbscan": Finder(partial(jc.dbscan.fit, eps=3.0), weighted=True),
    "dbscan-minkowski": Finder(partial(jc.dbscan.fit, eps=2.4, metric="minkowski", p=3.0), weighted=True),
    "optics": Finder(partial(jc.optics.fit, method="dbscan", eps=3.0)),
    "hdbscan": Finder(partial(jc.hdbscan.fit, min_cluster_size=20)),
}

TRANSPORTS = {
    "sinkhorn": partial(jc.sinkhorn.solve, epsilon=0.5),
    "sinkhorn-penalty": partial(jc.sinkhorn.solve, epsilon=0.5, rho_a=2.0),
}
"""Each a solve(x, y, *, a=None, b=None, tol=…, max_steps=…) -> Transport of two weighted clouds."""

AUTOENCODER = {
    "hidden": (16,),
    "latent": 4,
    "noise": 0.0,
    "pretrain_epochs": 50,
    "epochs": 5,
    "batch_size": 50,
    "learning_rate": 0.005,
}
"""An autoencoder large enough for the four blobs."""

SINGLE_PHASE = {"hidden": (32,), "batch_size": 50, "learning_rate": 0.01}
"""A network of a single-phase method, trained long enough to find the four blobs, or nearly."""

SETTINGS: dict[str, dict[str, Any]] = {
    "spectral": {"gamma": 0.05},
    "spectral-embedding": {"affinity": "rbf"},
    "neighbor-embedding": {"epochs": 20, "init": "pca"},
    "n2d": {"epochs": 40, "init": "pca", "n_components": 2, "n_init": 2},
    "dbscan": {"eps": 3.0, "min_samples": 5},
    "optics": {"cluster_method": "dbscan", "eps": 3.0},
    "hdbscan": {"min_cluster_size": 20},
    **dict.fromkeys(("autoencoder-kmeans", "denoising-clustering", "dec", "idec", "dcn", "dkm", "vade"), AUTOENCODER),
    "clustergan": {**SINGLE_PHASE, "latent": 4, "learning_rate": 0.002, "critic_steps": 3, "epochs": 4},
    "deepcluster": {**SINGLE_PHASE, "latent": 8, "update_interval": 20, "epochs": 6},
    "swav": {**SINGLE_PHASE, "latent": 8, "projection": None, "n_prototypes": 12, "freeze_steps": 10, "epochs": 6},
    "metric-embedding": {**SINGLE_PHASE, "latent": 8, "epochs": 20},
    "self-supervised-embedding": {**SINGLE_PHASE, "latent": 8, "projection": 32, "epochs": 10},
    "temi": {"n_heads": 2, "hidden": (), "batch_size": 100, "epochs": 60, "learning_rate": 0.02},
    "scan": {"n_heads": 2, "hidden": (), "batch_size": 100, "epochs": 40, "learning_rate": 0.05},
    "turtle": {"n_heads": 2, "batch_size": 100, "epochs": 30, "learning_rate": 0.05, "inner_rate": 0.05},
    "contrastive-clustering": {"n_heads": 2, "hidden": (16,), "batch_size": 100, "epochs": 40, "learning_rate": 0.01},
    "joint-clustering": AUTOENCODER,
}
"""Parameters besides the number of clusters with which estimators find the four blobs."""


for _name in (name for name in ESTIMATORS if ESTIMATORS.info(name).family == "deep"):
    # The contracts are those of the network; the comparison with a simple method has tests of its own.
    SETTINGS[_name] = {**SETTINGS.get(_name, {}), "select": "trained"}


def make(name: str, k: int = 4, **options: Any) -> Any:
    """An unfitted estimator for the blobs, with k clusters and a seed if it has such parameters."""
    clusters = ESTIMATORS.info(name).clusters
    given = {**SETTINGS.get(name, {}), **({clusters: k} if clusters else {}), **options}
    estimator = ESTIMATORS[name](**given)
    return estimator.set_params(random_state=0) if "random_state" in estimator.get_params() else estimator


def rows_of(name: str, x: np.ndarray) -> np.ndarray:
    """The rows of the blobs for an estimator: for one of categories alone, the halves that the entries lie in."""
    return np.clip(np.round(x / 9), 0, 1) if name == "kmodes" else x


CLUSTERERS = [name for name in ESTIMATORS if ESTIMATORS.info(name).labels]
"""Estimators that give each row a cluster."""

WEIGHTED = [name for name in ESTIMATORS if ESTIMATORS.info(name).takes_weights]
"""Estimators whose rows have weights."""

PREDICTORS = [name for name in ESTIMATORS if hasattr(ESTIMATORS[name], "predict")]
"""Estimators that label new rows."""

MIN_RAND_INDEX = {"hdbscan": 0.98, "clustergan": 0.95, "contrastive-clustering": 0.95}
MIN_RAND_INDEX |= dict.fromkeys(("deepcluster", "swav", "metric-embedding", "self-supervised-embedding"), 0.9)
"""The adjusted Rand index with which methods find the four blobs, in any order of the rows, where it is not 1.

A row that is farther from its neighbors than from two blobs is joined to either by an edge of the same length, and the
order of the rows decides, or the last bit of a distance; one at the edge of a blob may look like those of another in a
view.
"""

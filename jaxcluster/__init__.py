"""jaxcluster: clustering in JAX.

Everything loads when it is first used, so importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

from jaxcluster.estimators import CLASS_MODULES

__version__ = "0.2.0"

_MODULES = {
    "balanced": "jaxcluster.cluster.balanced",
    "bayesian_gmm": "jaxcluster.cluster.bayesian_gmm",
    "bisecting": "jaxcluster.cluster.bisecting",
    "checkpoint": "jaxcluster.checkpoint",
    "constrained": "jaxcluster.cluster.constrained",
    "datasets": "jaxcluster.datasets",
    "dbscan": "jaxcluster.cluster.dbscan",
    "deep": "jaxcluster.deep",
    "distributed": "jaxcluster.distributed",
    "estimators": "jaxcluster.estimators",
    "gmm": "jaxcluster.cluster.gmm",
    "hdbscan": "jaxcluster.cluster.hdbscan",
    "kmeans": "jaxcluster.cluster.kmeans",
    "kmedoids": "jaxcluster.cluster.kmedoids",
    "kmodes": "jaxcluster.cluster.kmodes",
    "kprototypes": "jaxcluster.cluster.kprototypes",
    "losses": "jaxcluster.losses",
    "metrics": "jaxcluster.metrics",
    "minibatch": "jaxcluster.cluster.minibatch",
    "model_selection": "jaxcluster.model_selection",
    "neighbor_embedding": "jaxcluster.cluster.neighbor_embedding",
    "optics": "jaxcluster.cluster.optics",
    "planning": "jaxcluster.planning",
    "plots": "jaxcluster.plots",
    "preprocessing": "jaxcluster.preprocessing",
    "ray": "jaxcluster.ray",
    "report": "jaxcluster.report",
    "sharding": "jaxcluster.sharding",
    "sinkhorn": "jaxcluster.cluster.sinkhorn",
    "soft_kmeans": "jaxcluster.cluster.soft_kmeans",
    "spectral": "jaxcluster.cluster.spectral",
}
"""Public modules: the functional algorithms by their bare name, and what stands on top of them."""

_OBJECTS = {
    **CLASS_MODULES,
    "Fit": "jaxcluster.types",
    "Points": "jaxcluster.types",
    "Status": "jaxcluster.types",
    "SparseRows": "jaxcluster.core.sparse_rows",
    "load": "jaxcluster.estimators",
    "plan": "jaxcluster.planning",
    "profile": "jaxcluster.report.profiles",
    "sparse_rows": "jaxcluster.core.sparse_input",
    "warmup": "jaxcluster.estimators.warmup",
}
"""Public objects, and the module each lives in."""

__all__ = ["__version__", *_MODULES, *_OBJECTS]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    elif name in _OBJECTS:
        value = getattr(importlib.import_module(_OBJECTS[name]), name)
    else:
        from jaxcluster.core.messages import no_attribute

        raise no_attribute(__name__, name, sorted(__all__))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

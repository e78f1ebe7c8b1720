"""jaxcluster: clustering in JAX.

Functional modules (`kmeans`, `minibatch`, `bisecting`, …) are here at once; estimators, metrics and plots load when
they are first used, so that importing the package costs little more than importing JAX.
"""

from __future__ import annotations

import importlib
from typing import Any

from jaxcluster.cluster import bisecting, kmeans, minibatch
from jaxcluster.types import Fit, Points, Status

__version__ = "0.1.0"

_LAZY = {
    "BisectingKMeans": "jaxcluster.estimators",
    "KMeans": "jaxcluster.estimators",
    "MiniBatchKMeans": "jaxcluster.estimators",
    "load": "jaxcluster.estimators",
    "datasets": None,
    "estimators": None,
    "metrics": None,
    "plots": None,
    "report": None,
    "select": None,
}
"""Public names that load on first use: a module's name for an object in it, None for a submodule."""

__all__ = ["Fit", "Points", "Status", "__version__", "bisecting", "kmeans", "minibatch", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'jaxcluster' has no attribute {name!r}; it has {', '.join(sorted(__all__))}.")
    home = _LAZY[name]
    value = (
        importlib.import_module(f"jaxcluster.{name}") if home is None else getattr(importlib.import_module(home), name)
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

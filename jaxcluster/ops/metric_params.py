"""Parameters of metrics, as scikit-learn's ``metric_params`` names them, bound to functions of SciPy.

>>> distance, _ = bind_metric_params("seuclidean", {"V": [4.0]}, 2.0)
>>> distance([[0.0]], [[4.0]]).tolist()
[[2.0]]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

BOOLEAN_METRICS = ("dice", "rogerstanimoto", "russellrao", "sokalsneath")
"""Metrics of SciPy on the pattern of nonzero entries."""

METRIC_PARAMETERS = {"minkowski": ("p", "w"), "seuclidean": ("V",), "mahalanobis": ("V", "VI")}
"""Keys of ``metric_params``, by metric."""


def bind_metric_params(
    metric: str | Callable, params: Mapping[str, Any] | None, p: float
) -> tuple[str | Callable, float]:
    """Bind ``metric_params``, as scikit-learn names them, to a metric.

    Args:
        metric: a name or a function of two matrices of rows.
        params: "p", a power, and "w", weights of the columns, for "minkowski"; "V", variances of the columns, for
            "seuclidean"; "V", a covariance matrix, or "VI", its inverse, for "mahalanobis".
        p: the power if ``params`` has none.

    Returns:
        A name of `jaxcluster.ops.distance.METRICS`, "precomputed" or a function; and the power.

    Raises:
        ValueError: parameters that the metric does not take, or lacks.
    """
    params = dict(params or {})
    accepted = () if callable(metric) else METRIC_PARAMETERS.get(metric, ())
    if unknown := sorted(set(params) - set(accepted)):
        takes = f"takes {' and '.join(accepted)}" if accepted else "takes none"
        raise ValueError(f"metric_params has {', '.join(map(repr, unknown))}, but metric={metric!r} {takes}.")
    p = params.get("p", p)
    if "w" in params:
        return partial(cdist, metric="minkowski", p=p, w=np.asarray(params["w"], float)), p
    if metric in ("seuclidean", "mahalanobis"):
        return partial(cdist, metric=metric, **_spread_arguments(metric, params)), p
    return (partial(_boolean_distances, metric) if metric in BOOLEAN_METRICS else metric), p


def _spread_arguments(metric, params):
    """Arguments of SciPy's "seuclidean" and "mahalanobis": variances V, or the inverse covariance VI."""
    if not params:
        raise ValueError(f"metric={metric!r} needs metric_params={{'V': …}}, its variances or covariance.")
    if "VI" in params:
        return {"VI": np.asarray(params["VI"], float)}
    spread = np.asarray(params["V"], float)
    if metric == "seuclidean":
        return {"V": spread}
    if np.linalg.matrix_rank(spread) < len(spread):
        raise ValueError("metric_params['V'] is singular: pass a covariance matrix that has an inverse.")
    return {"VI": np.linalg.inv(spread)}


def _boolean_distances(metric, a, b):
    distances = cdist(a != 0, b != 0, metric)
    return np.nan_to_num(distances, nan=0.0) if metric == "dice" else distances  # 0/0 of two rows without an entry

"""Metrics with parameters of their own, as scikit-learn's ``metric_params`` name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

OF_BOOLEANS = ("dice", "rogerstanimoto", "russellrao", "sokalsneath")
"""Metrics of SciPy that look at which entries are not 0."""

PARAMETERS = {"minkowski": ("p", "w"), "seuclidean": ("V",), "mahalanobis": ("V", "VI")}
"""What ``metric_params`` may hold, by metric."""


def with_parameters(metric: str | Callable, params: Mapping[str, Any] | None, p: float) -> tuple[str | Callable, float]:
    """A metric and the power of "minkowski" with what ``metric_params`` says of them.

    Args:
        metric: a name or a function of two matrices of rows.
        params: "p", a power, and "w", weights of the columns, for "minkowski"; "V", variances of the columns, for
            "seuclidean"; "V", a covariance matrix, or "VI", its inverse, for "mahalanobis".
        p: the power where ``params`` has none.

    Returns:
        A name of `jaxcluster.ops.distance.METRICS`, "precomputed" or a function, and the power.

    Raises:
        ValueError: parameters that the metric does not take, or lacks.
    """
    params = dict(params or {})
    known = () if callable(metric) else PARAMETERS.get(metric, ())
    if unknown := sorted(set(params) - set(known)):
        takes = f"takes {' and '.join(known)}" if known else "takes none"
        raise ValueError(f"metric_params has {', '.join(map(repr, unknown))}, but metric={metric!r} {takes}.")
    p = params.get("p", p)
    if "w" in params:
        return partial(cdist, metric="minkowski", p=p, w=np.asarray(params["w"], float)), p
    if metric in ("seuclidean", "mahalanobis"):
        return partial(cdist, metric=metric, **_spread(metric, params)), p
    return (partial(_of_booleans, metric) if metric in OF_BOOLEANS else metric), p


def _spread(metric, params):
    """What SciPy wants to know of the spread of the columns."""
    if not params:
        raise ValueError(f"metric={metric!r} needs metric_params={{'V': …}}, the spread that it measures by.")
    if "VI" in params:
        return {"VI": np.asarray(params["VI"], float)}
    spread = np.asarray(params["V"], float)
    if metric == "seuclidean":
        return {"V": spread}
    if np.linalg.matrix_rank(spread) < len(spread):
        raise ValueError("metric_params['V'] is singular: a covariance matrix that has an inverse is wanted.")
    return {"VI": np.linalg.inv(spread)}


def _of_booleans(metric, a, b):
    distances = cdist(a != 0, b != 0, metric)
    return np.nan_to_num(distances, nan=0.0) if metric == "dice" else distances  # 0/0 of two rows without an entry

"""Fits that do not depend on the order in which the rows come: they see them sorted by their values."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing

from jaxcluster.core import check

CANONICAL = "canonical"

BY_ROW = ("labels_", "embedding_", "_rows")
"""Fitted attributes with an entry for each row of the fit."""

ROW_NUMBERS = ("medoid_indices_",)
"""Fitted attributes that are numbers of rows."""


def order_of(x: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """(n,) numbers of rows in ascending order of their first column, of equal ones by the second, and so on.

    Rows that are equal in all columns are in ascending order of their weights.
    """
    keys = list(x.T[::-1])
    return np.lexsort(keys if weights is None else [weights, *keys])


def canonical(fit: Callable[..., Any]) -> Callable[..., Any]:
    """A ``fit`` that takes rows as they are, or sorted where the estimator's ``order`` is "canonical"."""
    signature = inspect.signature(fit)

    @functools.wraps(fit)
    def in_order(self, *args, **kwargs):
        if self.order is None:
            return fit(self, *args, **kwargs)
        check.check_choice("order", self.order, (CANONICAL,))
        return _fit_sorted(fit, signature.bind(self, *args, **kwargs))

    return in_order


def _fit_sorted(fit, bound):
    estimator, given = bound.arguments["self"], bound.arguments
    if "precomputed" in (getattr(estimator, "metric", None), getattr(estimator, "affinity", None)):
        raise ValueError(
            "order='canonical' sorts rows by their values, and precomputed ones have none. Pass order=None."
        )
    x = estimator._validate(given["X"], reset=True)
    weights = given.get("sample_weight")
    weights = None if weights is None or np.ndim(weights) == 0 else np.asarray(weights)
    order = order_of(x, weights if np.shape(weights) == (len(x),) else None)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    given["X"] = _safe_indexing(given["X"], order)
    for name in ("y", "sample_weight"):
        if np.shape(given.get(name))[:1] == (len(x),):
            given[name] = np.asarray(given[name])[order]
    for name in ("must_link", "cannot_link"):
        if given.get(name) is not None:
            given[name] = place[np.asarray(given[name])]
    fit(*bound.args, **bound.kwargs)
    for name in BY_ROW:
        value = vars(estimator).get(name)
        if value is not None:
            setattr(estimator, name, value[place])
    for name in ROW_NUMBERS:
        if hasattr(estimator, name):
            setattr(estimator, name, order[getattr(estimator, name)].astype(getattr(estimator, name).dtype))
    if "snapshots_" in vars(estimator):
        estimator.snapshots_["rows"] = order[estimator.snapshots_["rows"]].astype(np.int32)
    return estimator

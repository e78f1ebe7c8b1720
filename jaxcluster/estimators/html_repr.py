"""The fit of an estimator as HTML, below scikit-learn's diagram in a notebook."""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from jaxcluster.core.html import facts, sizes_in_words, sparkline


def fit_html(estimator: Any) -> str:
    """A table of the last fit: its ending, the sizes of the clusters, and a curve of the objective; empty before it."""
    if not estimator.__sklearn_is_fitted__():
        return ""
    history = getattr(estimator, "history_", None)
    labels = getattr(estimator, "labels_", None)
    objective = estimator.info.objective or "objective"
    rows = {
        "fit": html.escape(estimator._summary()),
        "clusters": "" if labels is None or np.ndim(labels) != 1 or not len(labels) else sizes_in_words(labels),
        objective: "" if history is None or np.ndim(history) != 1 else sparkline(history, objective),
    }
    return facts("", rows)

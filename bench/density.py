"""DBSCAN in each peer. Every one takes the rows and the radius; the value is the number of clusters."""

from __future__ import annotations

import importlib

import numpy as np

from bench.peers import SKLEARN, WANG, Answer, Call

MIN_SAMPLES = 10
"""Rows within the radius, itself among them, that make a row dense."""

MOST_COLUMNS = 20
"""Columns that the grid of Wang, Gu and Shun takes."""


def answer(labels: np.ndarray) -> Answer:
    """Labels, and how many clusters there are."""
    return Answer(float(labels.max() + 1), labels)


def sklearn_dbscan(x: np.ndarray, eps: float) -> Call:
    """DBSCAN in scikit-learn."""
    from sklearn.cluster import DBSCAN

    return lambda: answer(DBSCAN(eps=eps, min_samples=MIN_SAMPLES).fit(x).labels_)


def wang_dbscan(x: np.ndarray, eps: float) -> Call | None:
    """DBSCAN by grid cells; None where there are too many columns.

    It numbers clusters otherwise, and gives a row between two clusters to any of them: labels are not compared.
    """
    if x.shape[1] > MOST_COLUMNS:
        return None
    dbscan = importlib.import_module("dbscan").DBSCAN

    def call() -> Answer:
        labels, _ = dbscan(x, eps=eps, min_samples=MIN_SAMPLES)
        return Answer(float(np.max(labels) + 1))

    return call


DBSCAN = {SKLEARN: sklearn_dbscan, WANG: wang_dbscan}

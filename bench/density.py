"""DBSCAN, OPTICS and HDBSCAN in each peer, of the same rows; the value is the number of clusters."""

from __future__ import annotations

import importlib

import numpy as np

from bench.peers import FAST_HDBSCAN, SKLEARN, WANG, Answer, Call

MIN_SAMPLES = 10
"""Rows within the radius, itself among them, that make a row dense; HDBSCAN's smallest cluster as well."""

MOST_COLUMNS = 20
"""Columns that the grid of Wang, Gu and Shun takes, and beyond which fast_hdbscan's tree takes minutes."""


def answer(labels: np.ndarray) -> Answer:
    """Labels numbered by the first row of each cluster, and how many clusters there are."""
    labels = np.asarray(labels)
    _, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(np.where(labels[first] < 0, -1, first)))
    numbered = order[numbers] - (labels.min() < 0)
    return Answer(float(numbered.max() + 1), numbered)


def sklearn_dbscan(x: np.ndarray, eps: float) -> Call:
    """DBSCAN in scikit-learn."""
    from sklearn.cluster import DBSCAN

    return lambda: answer(DBSCAN(eps=eps, min_samples=MIN_SAMPLES).fit(x).labels_)


def wang_dbscan(x: np.ndarray, eps: float) -> Call | None:
    """DBSCAN by grid cells; None where there are too many columns.

    It gives a row between two clusters to any of them: labels are not compared.
    """
    if x.shape[1] > MOST_COLUMNS:
        return None
    dbscan = importlib.import_module("dbscan").DBSCAN

    def call() -> Answer:
        labels, _ = dbscan(x, eps=eps, min_samples=MIN_SAMPLES)
        return Answer(float(np.max(labels) + 1))

    return call


def sklearn_optics(x: np.ndarray) -> Call:
    """OPTICS in scikit-learn, clusters by xi."""
    from sklearn.cluster import OPTICS

    return lambda: answer(OPTICS(min_samples=MIN_SAMPLES).fit(x).labels_)


def sklearn_hdbscan(x: np.ndarray) -> Call:
    """HDBSCAN in scikit-learn."""
    from sklearn.cluster import HDBSCAN

    return lambda: answer(HDBSCAN(MIN_SAMPLES, min_samples=MIN_SAMPLES, copy=True).fit(x).labels_)


def fast_hdbscan(x: np.ndarray) -> Call | None:
    """HDBSCAN in fast_hdbscan, which does not count a row among its own neighbors; None in too many columns."""
    if x.shape[1] > MOST_COLUMNS:
        return None
    hdbscan = importlib.import_module("fast_hdbscan").HDBSCAN
    return lambda: answer(hdbscan(min_cluster_size=MIN_SAMPLES, min_samples=MIN_SAMPLES - 1).fit(x).labels_)


DBSCAN = {SKLEARN: sklearn_dbscan, WANG: wang_dbscan}
OPTICS = {SKLEARN: sklearn_optics}
HDBSCAN = {SKLEARN: sklearn_hdbscan, FAST_HDBSCAN: fast_hdbscan}

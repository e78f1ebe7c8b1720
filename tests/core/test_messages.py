"""Warnings point at the line of the user, and are shown for each of these."""

from __future__ import annotations

import linecache
import warnings

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import jaxcluster as jc

SAME = np.zeros((6, 2), np.float32)
APART = np.repeat(np.arange(4.0, dtype=np.float32)[:, None], 2, axis=1)
UNCONNECTED = np.kron(np.eye(2), np.ones((3, 3)))

WARNING = {
    "fit": lambda: jc.KMeans(3, n_init=1).fit(SAME),
    "fit_predict": lambda: jc.KMeans(3, n_init=1).fit_predict(SAME),
    "fit_transform": lambda: jc.KMeans(3, n_init=1).fit_transform(SAME),
    "in a pipeline": lambda: make_pipeline(FunctionTransformer(), jc.KMeans(3, n_init=1)).fit_predict(SAME),
    "a parameter": lambda: jc.KMeans(2, init=APART[:2], n_init=3).fit(APART),
    "a batch": lambda: jc.MiniBatchKMeans(2, init_size=1).fit(APART),
    "medoids": lambda: jc.KMedoids(3).fit(SAME),
    "a mixture": lambda: jc.GaussianMixture(2, max_iter=1, tol=0.0).fit(APART),
    "a graph": lambda: jc.SpectralClustering(2, affinity="precomputed").fit(UNCONNECTED),
    "a function": lambda: jc.optics.fit(APART, min_samples=2, max_eps=1e-3),
    "a metric": lambda: jc.metrics.adjusted_rand_score([0.5, 1.5], [0, 1]),
}


@pytest.mark.parametrize("call", WARNING.values(), ids=WARNING)
def test_a_warning_points_at_the_callers_line(call):
    with pytest.warns() as seen:
        call()
    for warning in seen:
        assert warning.filename == __file__
        assert "lambda: " in linecache.getline(warning.filename, warning.lineno)


def test_a_second_model_warns_too():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")  # once a place
        jc.KMeans(3, n_init=1).fit(SAME)
        jc.KMeans(3, n_init=1).fit(SAME)
    assert len(seen) == 2

"""Rows and models of the tests of several processes, the same in each process."""

from __future__ import annotations

from functools import partial

import numpy as np

import jaxcluster as jc

CUT = 120
"""Number of rows of the first process; the second one has the others."""

MODELS = {
    "kmeans": partial(jc.KMeans, 4, random_state=0),
    "gmm": partial(jc.GaussianMixture, 4, covariance_type="diag", init_params="k-means++", random_state=0),
}


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Rows around 4 centers, far from the origin in float64.

    Returns:
        The rows, (301, 5), and their weights.
    """
    rng = np.random.default_rng(0)
    x = 1e6 + 6 * rng.integers(0, 4, (301, 1)) + rng.normal(size=(301, 5))
    return x, rng.integers(1, 4, 301).astype(np.float64)

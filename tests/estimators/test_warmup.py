"""Programs that are compiled before the first rows arrive."""

from __future__ import annotations

import numpy as np
import pytest

import jaxcluster as jc

SHAPES = {"n": 300, "d": 5, "k": 4}


@pytest.mark.parametrize(
    ("method", "cls", "params"),
    [
        ("kmeans", jc.KMeans, {"n_clusters": 4, "random_state": 0}),
        ("gmm", jc.GaussianMixture, {"n_components": 4, "covariance_type": "diag", "random_state": 0}),
    ],
)
def test_a_fit_of_the_shape_compiles_nothing(method, cls, params, blobs, compiles):
    others = {name: value for name, value in params.items() if name not in ("n_clusters", "n_components")}
    assert jc.warmup(method, **SHAPES, predict=[1, 290], **others) > 0
    with compiles() as seen:
        cls(**params).fit(blobs.x[:290]).predict(blobs.x[:1])
    assert seen.count == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "k-means"}, "method='k-means' is not known.*Did you mean 'kmeans'"),
        ({"n": 0}, "n=0 must be at least 1"),
        ({"n": 3}, "n_samples=3 should be >= n_clusters=4"),
        ({"method": "dbscan"}, "dbscan finds out how many clusters there are: leave out k"),
        ({"method": "optics", "k": None, "weights": True}, "optics takes no sample_weight: leave out weights"),
        ({"method": "spectral", "predict": [1]}, "spectral does not predict: leave out predict"),
        ({"predict": [0]}, "predict=0 must be at least 1"),
        ({"dtype": np.complex64}, "Complex data not supported"),
    ],
)
@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
def test_what_makes_no_sense_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        jc.warmup(**{"method": "kmeans", **SHAPES, **arguments})

"""Distances of sparse rows are those of the same rows dense, to their last digits, in any unit."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from scipy.spatial.distance import cdist
from sparse_problems import topics

from jaxcluster.ops.metric_space import as_metric_space
from jaxcluster.ops.sparse_distance import distances_to_all

X = topics(30, 50).astype(np.float64)
X[9] = X[8]
X[11] = X[10] * (1 + 1e-12)
INDEX = np.array([0, 8, 10, 3])


@pytest.mark.parametrize("exponent", [0, -664, 531])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_distances_are_those_of_dense_rows(metric, exponent):
    distances = distances_to_all(scipy.sparse.csc_array(np.ldexp(X, exponent)), metric)(INDEX)
    with np.errstate(over="ignore", under="ignore"):
        expected = np.ldexp(cdist(X[INDEX], X, metric), exponent * (1 if metric == "euclidean" else 2))
    np.testing.assert_allclose(distances, expected, rtol=1e-6)


def test_cosine_distances_are_those_of_dense_rows():
    distances = distances_to_all(scipy.sparse.csc_array(X * 1e-200), "cosine")(INDEX)
    others = np.arange(30) != 3
    np.testing.assert_allclose(distances[:3, others], cdist(X[INDEX[:3]], X[others], "cosine"), rtol=1e-6, atol=1e-15)
    np.testing.assert_array_equal(distances[3], others)  # a row of zeros


def test_spaces_of_sparse_rows():
    space = as_metric_space(scipy.sparse.csr_array(X), "l2")
    assert space.n == 30
    np.testing.assert_allclose(space.rows(INDEX), cdist(X[INDEX], X), rtol=1e-6)
    with pytest.raises(TypeError, match=r"x is sparse, and metric='chebyshev' takes dense rows.*x\.toarray\(\)"):
        as_metric_space(scipy.sparse.csr_array(X), "chebyshev")
    with pytest.raises(ValueError, match="1 infinity values in column 1"):
        as_metric_space(scipy.sparse.csr_array(np.array([[0, np.inf]])))

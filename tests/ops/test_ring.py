"""Neighbors with the rows on a ring of devices: those of the host, pairs at the radius and equal distances included."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcluster import dbscan
from jaxcluster.ops.metric_space import as_metric_space
from jaxcluster.ops.neighbors import ring
from jaxcluster.ops.neighbors.exact_knn import nearest_rows
from jaxcluster.sharding import row_mesh


@pytest.fixture(scope="module")
def far():
    """61 rows, an odd number, at a large offset, and a row so far away that float32 has no square of it."""
    rng = np.random.default_rng(0)
    x = 1e6 + 5 * rng.integers(0, 3, (61, 1)) + rng.normal(size=(61, 4))
    x[7] = 1e25
    return x


@pytest.fixture(scope="module")
def grid():
    """Points of a grid in any order, many pairs of them at distance 1."""
    points = np.stack(np.meshgrid(np.arange(9.0), np.arange(9.0)), -1).reshape(-1, 2)
    return np.random.default_rng(1).permutation(points)[:61]


@pytest.mark.parametrize("slack", [0, 16])
def test_nearest_rows_are_those_of_the_host(slack, far, monkeypatch):
    monkeypatch.setattr(ring, "SLACK", slack)  # without more candidates than k, the host searches rows again
    space = as_metric_space(far)
    for found, expected in zip(ring.nearest_rows_over(space, 7, row_mesh()), nearest_rows(space, 7), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("eps", [1.0, np.nextafter(1, 0), np.inf])
def test_pairs_at_the_radius_are_decided_exactly(eps, grid):
    single, spread = dbscan.fit(grid, eps=eps, min_samples=4), dbscan.fit(grid, eps=eps, min_samples=4, mesh=row_mesh())
    np.testing.assert_array_equal(single.labels, spread.labels)
    np.testing.assert_array_equal(single.state.core, spread.state.core)


def test_what_a_ring_cannot_compute_is_refused(far, grid):
    with pytest.raises(ValueError, match="Euclidean, cosine and correlation"):
        dbscan.fit(grid, eps=1.0, metric="manhattan", mesh=row_mesh())
    with pytest.raises(ValueError, match="weights are not supported with mesh="):
        dbscan.fit(grid, eps=1.0, weights=np.ones(len(grid)), mesh=row_mesh())
    with pytest.raises(ValueError, match="too far from the others"):
        dbscan.fit(far, eps=1.0, mesh=row_mesh())

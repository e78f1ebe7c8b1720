"""Scores of sparse rows are those of the same rows dense."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import scipy.spatial

from jaxcluster import metrics

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 60)
X = (RNG.normal(0, 3, (3, 6))[Y] + RNG.normal(size=(60, 6))).astype(np.float32)


@pytest.mark.parametrize("name", ["silhouette_score", "silhouette_samples"])
def test_sparse_distances_are_of_all_pairs(name):
    twins = np.concatenate([X[:20], X[:5]]).astype(float)  # whose distances of 0 are absent
    labels, score = np.concatenate([Y[:20], Y[:5]]), getattr(metrics, name)
    distances = scipy.spatial.distance.cdist(twins, twins)
    for form in (scipy.sparse.csr_matrix, scipy.sparse.coo_array):
        expected = score(distances, labels, metric="precomputed")
        np.testing.assert_allclose(score(form(distances), labels, metric="precomputed"), expected, rtol=1e-12)
        graph = np.where(distances > np.median(distances), 0, distances)
        with pytest.raises(ValueError, match=r"distances that misses some.*X\.toarray\(\)"):
            score(form(graph), labels, metric="precomputed")


@pytest.mark.parametrize("name", ["davies_bouldin_score", "calinski_harabasz_score"])
@pytest.mark.parametrize(("unit", "offset"), [(1.0, 0.0), (1.0, 1e8), (2.0**600, 0.0)])
def test_scores_of_sparse_rows(name, unit, offset):
    rows = np.where(np.abs(X) > np.median(np.abs(X)), X, 0).astype(float)
    rows[:, 0] += offset
    score = getattr(metrics, name)
    assert score(scipy.sparse.csr_array(rows * unit), Y) == pytest.approx(score(rows, Y), rel=1e-7)
    with pytest.raises(ValueError, match="X contains 1 NaN"):
        score(scipy.sparse.csr_array(np.where(rows == rows.max(), np.nan, rows)), Y)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_silhouettes_of_sparse_rows(metric):
    rows = np.where(np.abs(X) > np.median(np.abs(X)), X, 0)
    matrix, expected = scipy.sparse.csr_array(rows), metrics.silhouette_samples(rows, Y, metric=metric)
    np.testing.assert_allclose(metrics.silhouette_samples(matrix, Y, metric=metric), expected, atol=1e-6)
    for tiny in (matrix.astype(float) * 1e-200, rows.astype(float) * 1e-200):
        np.testing.assert_allclose(metrics.silhouette_samples(tiny, Y, metric=metric), expected, atol=1e-5)
    options = {"metric": metric, "sample_size": len(X) // 2, "random_state": 0}
    score = metrics.silhouette_score(matrix, Y, **options)
    assert score == pytest.approx(metrics.silhouette_score(rows, Y, **options), abs=1e-6)
    with pytest.raises(TypeError, match="metric='manhattan' takes dense rows: for sparse ones choose euclidean"):
        metrics.silhouette_samples(matrix, Y, metric="manhattan")

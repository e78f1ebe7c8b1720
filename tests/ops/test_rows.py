"""Products, norms, distances and sums of sparse rows are those of dense rows, also where rounding needs differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sparse_problems import topics

from jaxcluster.core.sparse_input import sparse_rows
from jaxcluster.ops import cluster_sums as sums
from jaxcluster.ops import rows as words
from jaxcluster.ops.nearest import nearest
from jaxcluster.types import Points

X = topics(90, 200)
X[11, :150] = 2
X[20] = X[5]
CENTERS = jnp.concatenate([X[[0, 5]], topics(9, 200, seed=4)[6:]])
ROWS = sparse_rows(X)
LABELS = jnp.asarray(np.random.default_rng(2).integers(0, 5, 90), jnp.int32)
WEIGHT = jnp.asarray(np.random.default_rng(3).uniform(0, 2, 90), jnp.float32)


def squares(x, y):
    return np.square(x[:, None].astype(np.float64) - y[None]).sum(axis=2)


def test_products_and_norms():
    np.testing.assert_allclose(words.inner_products(ROWS, CENTERS), X @ np.asarray(CENTERS).T, rtol=1e-5)
    np.testing.assert_allclose(words.squared_norms(ROWS), np.square(X).sum(axis=1), rtol=1e-6)
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    np.testing.assert_allclose(words.normalize(ROWS).dense(), X / np.where(lengths > 0, lengths, 1), rtol=1e-6)


@pytest.mark.parametrize("scale", [1, 1000], ids=["near", "far"])
def test_distances_are_those_of_differences(scale):
    """Far rows share a large entry, beside which an expanded square says nothing of the others."""
    x, centers = X.copy(), np.array(CENTERS)
    x[:, 0], centers[:, 0] = scale, scale
    rows, expected = sparse_rows(x), squares(x, centers)
    centers = jnp.asarray(centers)
    labels, distance = nearest(rows, centers)
    np.testing.assert_array_equal(labels, expected.argmin(axis=1))
    np.testing.assert_allclose(distance, expected.min(axis=1), rtol=1e-4)
    np.testing.assert_allclose(jax.jit(words.distances_to_few)(rows, centers), expected, rtol=1e-4)
    assigned = jax.jit(words.distances_to_assigned)(rows, centers, LABELS)
    np.testing.assert_allclose(assigned, expected[np.arange(90), LABELS], rtol=1e-4)
    assert distance[0] == distance[5] == distance[20] == 0


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_distances_to_centers_are_those_of_dense_rows(metric):
    centers = jnp.concatenate([CENTERS, jnp.zeros_like(CENTERS[:1])])
    distances = jax.jit(words.distances_to_centers, static_argnums=2)
    ours, theirs = (distances(rows, centers, metric) for rows in (ROWS, jnp.asarray(X)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("entries", [1 << 22, 300], ids=["one tile", "tiles"])
def test_sums_by_cluster(entries, monkeypatch):
    monkeypatch.setattr(sums, "ENTRIES_TILE", entries)
    member = (np.arange(5)[:, None] == LABELS) * WEIGHT
    labels = jnp.where(LABELS == 4, 7, LABELS)  # no cluster of four
    ours, weight = sums.cluster_sums(Points(ROWS, WEIGHT), labels, 4)
    np.testing.assert_allclose(ours, (member @ X)[:4], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weight, member.sum(axis=1)[:4], rtol=1e-6)
    np.testing.assert_allclose(sums.total_sum(Points(ROWS, WEIGHT)), np.asarray(WEIGHT) @ X, rtol=1e-5)
    offsets, _ = sums.cluster_offsets(Points(ROWS, WEIGHT), CENTERS, LABELS)
    expected = member @ X - member.sum(axis=1, keepdims=True) * np.asarray(CENTERS)
    np.testing.assert_allclose(offsets, expected, rtol=1e-4, atol=1e-4)
    _, counts = sums.cluster_sums(Points(ROWS, jnp.ones_like(WEIGHT)), LABELS, 5, uniform=True)
    np.testing.assert_array_equal(counts, np.bincount(LABELS))

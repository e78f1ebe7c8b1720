"""Gower's distance, against a loop in NumPy: tables, missing cells, silhouettes, and the estimators that take it."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.cluster
import sklearn.metrics
from saved_models import saved_and_loaded

from jaxcluster import DBSCAN, HDBSCAN, OPTICS, KMedoids, kmedoids
from jaxcluster.metrics import gower_distances, gower_rows, silhouette_score
from jaxcluster.ops.gower import ABSENT, gower

CATEGORICAL = (0, 2)


@pytest.fixture(scope="module")
def table():
    """40 rows of a color, a size, a flag and a count around three kinds, as objects; and the kinds."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 40)
    columns = np.array(["red", "green", "blue"])[y], rng.normal(size=40) + 5 * y, y == 1, rng.integers(0, 9, 40)
    return np.array([list(row) for row in zip(*columns, strict=True)], object), y


@pytest.fixture(scope="module")
def holes(table):
    """The table without every seventh cell."""
    cells = table[0].copy()
    cells[np.unravel_index(np.arange(0, cells.size, 7), cells.shape)] = None
    return cells


def oracle(x, y=None):
    """Distances by the formula, cell by cell."""
    y = x if y is None else y
    both = np.concatenate([x, y])
    numbers = [j for j in range(x.shape[1]) if j not in CATEGORICAL]
    ranges = {j: np.ptp([float(each) for each in both[:, j] if each is not None]) for j in numbers}

    def distance(a, b):
        terms = [
            float(a[j] != b[j]) if j in CATEGORICAL else abs(a[j] - b[j]) / ranges[j]
            for j in range(len(a))
            if a[j] is not None and b[j] is not None
        ]
        return np.mean(terms)

    return np.array([[distance(a, b) for b in y] for a in x])


def test_distances_equal_the_formula(table, holes):
    for cells in (table[0], holes):
        np.testing.assert_allclose(gower_distances(cells), oracle(cells), atol=1e-14)
        np.testing.assert_allclose(gower_distances(cells[:9], cells[9:]), oracle(cells[:9], cells[9:]), atol=1e-14)


def test_a_kernel_of_jax_equals_that_of_the_host(holes):
    rows = gower_rows(holes)
    assert (rows == ABSENT).sum() == (holes == None).sum()  # noqa: E711
    traced = jax.jit(gower)(jnp.asarray(rows), jnp.asarray(rows[:5]))
    np.testing.assert_allclose(traced, oracle(holes)[:, :5], atol=1e-6)


def test_columns_by_position_and_numbers_of_any_size(table):
    codes = np.array([[0, 1.5], [1, 2.5], [7, 4.5]])
    expected = np.array([[0, 2 / 3, 1], [2 / 3, 0, 5 / 6], [1, 5 / 6, 0]])
    np.testing.assert_allclose(gower_distances(codes, categorical=[0]), expected)
    for unit in (1e-300, 1e307):
        np.testing.assert_allclose(gower_distances(codes * [1, unit], categorical=[0]), expected)
    moved = np.array([[0, 2**60 + 1], [1, 2**60 + 2], [7, 2**60 + 4]])
    np.testing.assert_allclose(gower_distances(moved, categorical=[0]), expected)
    wide = np.array([[0.0, -1.5e308], [0.0, 1.5e308], [0.0, 0.0]])
    np.testing.assert_allclose(gower_distances(wide), [[0, 0.5, 0.25], [0.5, 0, 0.25], [0.25, 0.25, 0]])


def test_rows_without_a_common_column_are_named():
    with pytest.raises(ValueError, match="rows 0 and 2 of x have no column that both have cells in"):
        gower_distances([["a", None], ["b", 1.0], [None, 2.0]])
    with pytest.raises(ValueError, match="x has 1 rows without any cell, the first is row 1"):
        gower_distances([["a", 2.0], [None, np.nan], [None, 2.0]])


def test_silhouettes(table, holes):
    for cells in (table[0], holes):
        expected = sklearn.metrics.silhouette_score(oracle(cells), table[1], metric="precomputed")
        assert silhouette_score(cells, table[1], metric="gower") == pytest.approx(expected)
    with pytest.raises(ValueError, match="categorical= is for metric='gower'"):
        silhouette_score(np.eye(3), [0, 0, 1], categorical=[0])


def test_medoids(table, holes, tmp_path):
    for cells in (table[0], holes):
        model = KMedoids(3, metric="gower").fit(cells)
        plain = KMedoids(3, metric="precomputed").fit(oracle(cells))
        np.testing.assert_array_equal(model.labels_, plain.labels_)
        np.testing.assert_array_equal(model.medoid_indices_, plain.medoid_indices_)
        assert model.inertia_ == pytest.approx(plain.inertia_)
        np.testing.assert_array_equal(model.predict(cells), model.labels_)
        np.testing.assert_allclose(model.transform(cells), oracle(cells)[:, model.medoid_indices_], atol=1e-14)
        assert not hasattr(model, "cluster_centers_")
        saved_and_loaded(model, cells, tmp_path / "model")
    far = np.array([["pink", 1e6, None, None]], object)
    with pytest.warns(UserWarning, match="1 row has categories that the fit has not seen"):
        assert model.transform(far).tolist() == [[1.0, 1.0, 1.0]]


def test_medoids_of_many_rows_are_those_of_few(monkeypatch, holes):
    plain = KMedoids(3, metric="gower").fit(holes)
    monkeypatch.setattr(sys.modules["jaxcluster.cluster.kmedoids.fit"], "HOST_WORK", 0)
    model = KMedoids(3, metric="gower").fit(holes)
    np.testing.assert_array_equal(model.medoid_indices_, plain.medoid_indices_)
    assert model.inertia_ == plain.inertia_


def test_density(table, holes, tmp_path):
    for cells in (table[0], holes):
        distances = oracle(cells)
        model = DBSCAN(eps=0.2, metric="gower").fit(cells)
        plain = sklearn.cluster.DBSCAN(eps=0.2, metric="precomputed").fit(distances)
        np.testing.assert_array_equal(model.labels_, plain.labels_)
        saved_and_loaded(model, cells, tmp_path / "dbscan")
        model = HDBSCAN(metric="gower", store_centers="medoid").fit(cells)
        np.testing.assert_array_equal(model.labels_, HDBSCAN(metric="precomputed").fit(distances).labels_)
        saved_and_loaded(model, cells, tmp_path / "hdbscan")
        order = OPTICS(metric="gower").fit(cells)
        np.testing.assert_array_equal(order.ordering_, OPTICS(metric="precomputed").fit(distances).ordering_)


def test_parameters(table, key):
    codes = np.array([[0, 1.0], [1, 1.1], [0, 5.0], [1, 5.1]])
    by_number = KMedoids(2, metric="gower").fit(codes)
    by_code = KMedoids(2, metric="gower", metric_params={"categorical": [0, 1]}).fit(codes)
    assert (by_number.inertia_, by_code.inertia_) == (pytest.approx(4 / 4.1), pytest.approx(1.0))
    assert by_code.transform(codes).max() == 1
    with pytest.raises(ValueError, match="metric_params has 'V', but metric='gower' takes categorical"):
        DBSCAN(metric="gower", metric_params={"V": 1}).fit(codes)
    with pytest.raises(ValueError, match="metric='gower' has no centroids"):
        HDBSCAN(metric="gower", store_centers="both").fit(table[0])
    with pytest.raises(ValueError, match="metric='gower' is for tables.*gower_rows"):
        kmedoids.fit(key, codes, 2, metric="gower")
    sorted_rows = KMedoids(2, metric="gower", order="canonical").fit(table[0])
    again = KMedoids(2, metric="gower", order="canonical").fit(table[0][::-1])
    np.testing.assert_array_equal(again.labels_[::-1], sorted_rows.labels_)


def test_other_columns_and_long_integers_are_said():
    with pytest.raises(ValueError, match="y has 1 columns, and 2 are expected"):
        gower_distances([["a", 1]], [["a"]])
    long = np.array([[10**25], [10**25 + 1], [10**25 + 3]], object)
    with pytest.warns(UserWarning, match="column 0 of x has integers of more digits than float64 holds"):
        gower_distances(long)

"""Distances on the host, the nearest rows and the spanning tree are what the whole matrix of distances says."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csgraph
from sklearn.metrics import pairwise_distances

from jaxcluster.ops import metric_space, spanning_tree
from jaxcluster.ops.metric_space import DistanceOracle, as_metric_space
from jaxcluster.ops.neighbors import boruvka
from jaxcluster.ops.neighbors.exact_knn import nearest_rows
from jaxcluster.ops.neighbors.kd_blocks import BLOCK
from jaxcluster.ops.spanning_tree import minimum_spanning_tree

RNG = np.random.default_rng(0)


def strewn(n, d):
    """Rows around a few places far apart."""
    return RNG.uniform(-10, 10, (6, d))[RNG.integers(6, size=n)] + RNG.normal(size=(n, d))


ROWS = {
    "one": np.zeros((1, 2)),
    "a line": np.linspace(0, 1, 130)[:, None] ** 2,
    "plane": strewn(700, 2),
    "lattice": RNG.integers(0, 8, (300, 2)).astype(float),
    "all equal": np.ones((150, 3)),
    "scales": np.concatenate([strewn(150, 3), 1e3 + 1e-3 * strewn(150, 3)]),
    "wide": strewn(600, 12),
    "wide, one cloud": RNG.normal(size=(300, 20)),
    "wide lattice": RNG.integers(0, 2, (300, 9)).astype(float),
    "wide, far away": 1e5 + 1e-2 * RNG.normal(size=(150, 10)),
}


def whole(space):
    return space.rows(np.arange(space.n))


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "manhattan", "cosine", "minkowski"])
def test_distances_are_scikit_learns(metric):
    x = strewn(60, 5)
    options = {"p": 3} if metric == "minkowski" else {}
    expected = pairwise_distances(x, metric=metric, **options)
    np.testing.assert_allclose(whole(as_metric_space(x, metric, p=3.0)), expected, atol=1e-12)
    x[3] = 0
    if metric == "cosine":
        np.testing.assert_allclose(whole(as_metric_space(x, metric)), pairwise_distances(x, metric=metric), atol=1e-12)


def test_distances_that_are_given():
    x = strewn(50, 3)
    matrix = pairwise_distances(x)
    np.testing.assert_array_equal(whole(as_metric_space(matrix, "precomputed")), matrix)
    np.testing.assert_allclose(whole(as_metric_space(x, pairwise_distances)), matrix, atol=1e-6)
    near = scipy.sparse.csr_array(np.where(matrix < 5, matrix, 0))
    np.testing.assert_array_equal(
        whole(as_metric_space(near, "precomputed")), np.where((matrix < 5) | np.eye(50, dtype=bool), matrix, np.inf)
    )


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((2, 3)), r"square matrix of distances, got shape \(2, 3\)"),
        (np.array([[0, 1.0], [2, 0]]), r"entry \(0, 1\) is 1.0, entry \(1, 0\) is 2.0.*\(D \+ D.T\) / 2"),
        (np.array([[0, -3.0], [-3, 0]]), r"must not be negative: entry \(0, 1\) is -3"),
        (np.array([[0, np.nan], [1, 0]]), "hold 1 NaN"),
    ],
)
@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
def test_matrices_that_hold_no_distances(matrix, message, form):
    with pytest.raises(ValueError, match=message):
        as_metric_space(form(matrix), "precomputed")


def test_an_unknown_metric_is_told_the_known():
    with pytest.raises(ValueError, match="'euclid' is not known.*'precomputed'.*Did you mean 'euclidean'"):
        as_metric_space(np.eye(3), "euclid")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda a, b: np.zeros(len(b)), r"metric gave shape \(3,\) for matrices of 2 and 3 rows"),
        (lambda a, b: a @ b.T - 1, "metric gave -1.0 for rows 0 and 1: a distance is a number >= 0"),
        (lambda a, b: a @ b.T * np.nan, "metric gave nan for rows 0 and 0"),
        (
            lambda a, b: "1.5",
            "^metric gave '1.5' for matrices of 2 and 3 rows, and '1.5' for two rows. Pass a function",
        ),
        (lambda a, b: None, "^metric gave None for matrices of 2 and 3 rows, and None for two rows. Pass a function"),
        (
            lambda a, b: np.full((len(a), len(b)), "x"),
            "^metric gave an array of dtype <U1 for matrices of 2 and 3 rows",
        ),
        (lambda a, b: [[1.0], [1.0, 2.0]], "^metric gave lists of different lengths for matrices of 2 and 3 rows"),
        (lambda a, b: 1j * (a @ b.T), "^metric gave an array of dtype complex128 for matrices of 2 and 3 rows"),
        (
            lambda a, b: 1.0 if a[0] else None,
            "^metric gave None among its values for rows of X: a distance is a number",
        ),
    ],
)
def test_functions_that_give_no_distances(metric, message):
    with pytest.raises(ValueError, match=message):
        whole(as_metric_space(np.eye(3), metric))


def test_rows_whose_squares_overflow():
    x = np.array([[0.0, 0], [1e200, 0], [1, 0], [-1e200, 1e200]])
    index, distances = nearest_rows(as_metric_space(x), 3)
    np.testing.assert_array_equal(index[:, 0], np.arange(4))
    np.testing.assert_array_equal(distances[0], [0, 1, np.inf])


@pytest.mark.parametrize("k", [1, 4, 70])
@pytest.mark.parametrize("name", ROWS)
def test_nearest_rows(name, k):
    space = as_metric_space(ROWS[name])
    k = min(k, space.n)
    index, distances = nearest_rows(space, k)
    expected = np.sort(whole(space), axis=1)[:, :k]
    np.testing.assert_array_equal(distances, expected)
    np.testing.assert_array_equal(np.take_along_axis(whole(space), index.astype(int), axis=1), expected)
    assert all(len(np.unique(row)) == k for row in index)
    between = (np.diff(distances) == 0) & (np.diff(index) < 0)
    assert not between.any(), "of rows as near as each other the lower number comes first"


@pytest.mark.parametrize("metric", ["manhattan", "cosine"])
@pytest.mark.parametrize("name", ["plane", "wide"])
def test_nearest_rows_by_other_metrics(name, metric):
    space = as_metric_space(ROWS[name], metric)
    np.testing.assert_array_equal(nearest_rows(space, 5)[1], np.sort(whole(space), axis=1)[:, :5])


def test_nearest_rows_of_distances_alone(monkeypatch):
    monkeypatch.setattr(metric_space, "TILE", 1_000)
    x = ROWS["plane"][:200]
    index, distances = nearest_rows(as_metric_space(pairwise_distances(x), "precomputed"), 5)
    by_place = nearest_rows(as_metric_space(x), 5)
    np.testing.assert_array_equal(index, by_place[0])
    np.testing.assert_allclose(distances, by_place[1], atol=1e-12)


@pytest.mark.parametrize("name", ["plane", "wide"])
def test_nearest_rows_of_others(name):
    space, others = as_metric_space(ROWS[name]), ROWS[name][:80] + 0.1
    index, distances = nearest_rows(space, 3, queries=others)
    between = np.sqrt(metric_space.minkowski_sums(others[:, None], ROWS[name][None], 2.0))
    np.testing.assert_array_equal(distances, np.sort(between, axis=1)[:, :3])
    np.testing.assert_array_equal(np.take_along_axis(between, index.astype(int), axis=1), distances)


@pytest.mark.parametrize("far", [0.0, 1e6, 1e12, 1e30, 1e100])
@pytest.mark.parametrize("unit", [1e-30, 1.0, 1e30])
def test_nearest_rows_in_any_unit_and_with_a_far_row(unit, far):
    """Float32 squares leave their range at 1e19 and 1e-19, and a far row is no middle."""
    x = np.concatenate([ROWS["wide"][:200], [np.full(12, far)]]) * unit
    space = as_metric_space(x)
    index, distances = nearest_rows(space, 4)
    np.testing.assert_array_equal(distances, np.sort(whole(space), axis=1)[:, :4])
    np.testing.assert_array_equal(np.take_along_axis(whole(space), index.astype(int), axis=1), distances)


def test_nearest_rows_by_chebyshev():
    space = as_metric_space(ROWS["wide"][:200], "chebyshev")
    np.testing.assert_array_equal(nearest_rows(space, 5)[1], np.sort(whole(space), axis=1)[:, :5])


@pytest.mark.parametrize("k", [0, 4, 1.5])
def test_more_neighbors_than_rows(k):
    with pytest.raises((ValueError, TypeError), match="k"):
        nearest_rows(as_metric_space(np.eye(3)), k)


def test_precomputed_distances_of_other_rows():
    with pytest.raises(TypeError, match="queries need a metric space"):
        nearest_rows(as_metric_space(np.zeros((3, 3)), "precomputed"), 1, queries=np.eye(3))


def assert_is_tree(tree, reach):
    """Assert that a tree is a minimum spanning tree of the mutual reachability, with the weights of its edges."""
    n = len(reach)
    graph = scipy.sparse.coo_array((np.ones(n - 1), tuple(tree.edges.T)), shape=(n, n))
    assert csgraph.connected_components(graph, directed=False)[0] == 1
    np.testing.assert_array_equal(tree.weights, reach[tuple(tree.edges.T)])
    order = np.argsort(reach, axis=None, kind="stable")
    ranks = np.empty(n * n)
    ranks[order] = np.arange(1, n * n + 1)  # a weight of 0 would be no edge
    ranks = np.minimum(ranks.reshape(n, n), ranks.reshape(n, n).T)
    best = csgraph.minimum_spanning_tree(ranks).tocoo()
    np.testing.assert_array_equal(np.sort(tree.weights), np.sort(reach[best.row, best.col]))


@pytest.mark.parametrize(("samples", "few"), [(1, 1), (6, 1), (6, spanning_tree.PRIM_ROWS)])
@pytest.mark.parametrize("name", ROWS)
def test_spanning_trees(name, samples, few, monkeypatch):
    monkeypatch.setattr(spanning_tree, "PRIM_ROWS", few)
    space = as_metric_space(ROWS[name][:300])
    distances = whole(space)
    core = np.sort(distances, axis=1)[:, min(samples, space.n) - 1]
    reach = np.maximum(np.maximum(distances, core), core[:, None])
    assert_is_tree(minimum_spanning_tree(space, core), reach)


@pytest.mark.parametrize("metric", ["manhattan", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("name", ["plane", "wide"])
def test_spanning_trees_by_other_metrics(name, metric, monkeypatch):
    monkeypatch.setattr(spanning_tree, "PRIM_ROWS", 1)
    space = as_metric_space(ROWS[name][:300], metric)
    distances = whole(space)
    assert_is_tree(minimum_spanning_tree(space), distances)
    core = np.sort(distances, axis=1)[:, 4]
    neighbors = nearest_rows(space, 8)
    reach = np.maximum(np.maximum(distances, core), core[:, None])
    assert_is_tree(minimum_spanning_tree(space, core, neighbors=neighbors), reach)


@given(seed=st.integers(0, 2**32 - 1), columns=st.sampled_from([1, 3]), digits=st.sampled_from([0, 1, 12]))
def test_spanning_trees_of_anything(seed, columns, digits):
    rng = np.random.default_rng(seed)
    n = 2 * BLOCK + 2
    x = np.round(rng.normal(size=(n, columns)) + rng.integers(0, 3, (n, 1)) * rng.choice([0, 9]), digits)
    space = as_metric_space(x)
    lists = nearest_rows(space, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spanning_tree, "PRIM_ROWS", 1)
        tree = minimum_spanning_tree(space, lists[1][:, 2], neighbors=lists)
    core = lists[1][:, 2]
    assert_is_tree(tree, np.maximum(np.maximum(whole(space), core), core[:, None]))


def test_a_tree_of_parts_that_cannot_be_reached():
    matrix = np.where(np.equal.outer(np.arange(6) % 2, np.arange(6) % 2), 1.0, np.inf)
    np.fill_diagonal(matrix, 0)
    tree = minimum_spanning_tree(DistanceOracle(6, lambda index: matrix[index]))
    np.testing.assert_array_equal(np.sort(tree.weights), [1, 1, 1, 1, np.inf])


def test_few_pairs_of_blocks_are_looked_at(monkeypatch):
    """A tree of many rows does not compare them all."""
    looked, groups = [], boruvka.groups
    monkeypatch.setattr(boruvka, "groups", lambda pairs: looked.append(len(pairs)) or groups(pairs))
    minimum_spanning_tree(as_metric_space(np.random.default_rng(3).uniform(size=(6_000, 2))))
    assert 0 < sum(looked) < 0.5 * (6_000 / BLOCK) ** 2

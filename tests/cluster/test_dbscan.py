"""DBSCAN finds what scikit-learn's depth-first search finds, element for element."""

from __future__ import annotations

import sys

import jax
import ml_dtypes
import numpy as np
import pytest
import scipy.sparse
import sklearn.cluster
from hypothesis import given
from hypothesis import strategies as st
from jax_switches import IN_64_BITS, LEAKS, STRICT, switched
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import kneighbors_graph

from jaxcluster import dbscan
from jaxcluster.ops import metric_space
from jaxcluster.types import Status


def theirs(x, eps, min_samples, weights=None, **options):
    return sklearn.cluster.DBSCAN(eps=eps, min_samples=min_samples, **options).fit(x, sample_weight=weights)


def assert_same(x, eps, min_samples, weights=None, **options):
    """Labels, core rows, and the labels of the same rows as new ones."""
    fit = dbscan.fit(x, eps=eps, min_samples=min_samples, weights=weights, **options)
    expected = theirs(x, eps, min_samples, weights, **options)
    np.testing.assert_array_equal(fit.labels, expected.labels_)
    np.testing.assert_array_equal(np.flatnonzero(fit.state.core), expected.core_sample_indices_)
    if fit.state.core.any():
        np.testing.assert_array_equal(dbscan.predict(fit.state, x, **options), expected.labels_)
    return fit


MOONS = make_moons(300, noise=0.05, random_state=0)[0]
BLOBS = make_blobs(300, 12, centers=4, random_state=1)[0]


@pytest.fixture(params=["host", "blocks"])
def search(request, monkeypatch):
    """Both ways to find neighbors, whatever the number of samples."""
    monkeypatch.setattr(sys.modules[dbscan.fit.__module__], "HOST_WORK", -1 if request.param == "blocks" else 1 << 62)


SETS = {
    "moons": (make_moons(600, noise=0.05, random_state=0)[0], 0.1, 5),
    "moons, a small radius": (make_moons(600, noise=0.05, random_state=0)[0], 0.04, 5),
    "blobs": (make_blobs(900, 3, centers=6, random_state=1)[0], 0.8, 8),
    "wide": (make_blobs(500, 20, centers=4, random_state=2)[0], 5.5, 6),
    "one row": (np.zeros((1, 2)), 0.5, 2),
    "one row, and that is enough": (np.zeros((1, 2)), 0.5, 1),
    "all rows equal": (np.full((300, 2), 7.0), 0.5, 5),
    "a line": (np.arange(400.0)[:, None], 1.0, 3),
    "a line with gaps of exactly the radius": (np.arange(400)[:, None] * 0.1, 0.1, 2),
    "a lattice": (np.stack(np.meshgrid(np.arange(25), np.arange(25)), -1).reshape(-1, 2) * 0.1, 0.1, 4),
    "a radius larger than everything": (make_moons(500, random_state=3)[0], 1e3, 5),
    "a radius smaller than every gap": (make_moons(500, noise=0.1, random_state=3)[0], 1e-9, 2),
    "far from the origin": (make_moons(600, noise=0.05, random_state=0)[0] + 1e6, 0.1, 5),
    "far apart": (make_blobs(400, 2, centers=[[0, 0], [1e7, 1e7]], random_state=4)[0], 0.4, 5),
    "a radius far below the rounding of the rows": (np.repeat(np.arange(50.0)[:, None] * 1e10, 3, axis=0), 1e-30, 3),
    "tiny": (make_moons(600, noise=0.05, random_state=0)[0] * 1e-30, 1e-31, 5),
    "huge": (make_moons(600, noise=0.05, random_state=0)[0] * 1e30, 1e29, 5),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.usefixtures("search")
def test_labels_are_scikit_learns(name):
    x, eps, min_samples = SETS[name]
    fit = assert_same(x, eps, min_samples)
    assert fit.labels.dtype == np.int32
    assert int(fit.status) == Status.CONVERGED


@pytest.mark.parametrize(("metric", "eps", "p"), [("manhattan", 0.12, 2), ("sqeuclidean", 0.01, 2)])
def test_other_metrics(metric, eps, p):
    x = make_moons(500, noise=0.05, random_state=0)[0]
    assert_same(x, eps, 5, metric=metric)


@pytest.mark.parametrize("p", [1.0, 1.5, 3.0])
def test_minkowski(p):
    x = make_moons(500, noise=0.05, random_state=0)[0]
    fit = dbscan.fit(x, eps=0.1, min_samples=5, metric="minkowski", p=p)
    expected = theirs(x, 0.1, 5, metric="minkowski", p=p)
    np.testing.assert_array_equal(fit.labels, expected.labels_)


def test_directions():
    """The cosine metric, with samples of zeros, which are at distance 1 from all others."""
    x = make_moons(500, noise=0.1, random_state=0)[0]
    assert_same(x, 1e-4, 5, metric="cosine")
    x[::50] = 0
    fit = dbscan.fit(x, eps=1e-4, min_samples=5, metric="cosine")
    np.testing.assert_array_equal(fit.labels, theirs(x, 1e-4, 5, metric="cosine").labels_)


@pytest.mark.parametrize("eps", [0.04, 0.1])
def test_distances_alone(eps, monkeypatch):
    """A matrix, dense or sparse, and a function give what the rows do; a few rows at a time."""
    monkeypatch.setattr(metric_space, "TILE", 5_000)
    x = make_moons(400, noise=0.1, random_state=0)[0]
    matrix = pairwise_distances(x)
    weights = np.random.default_rng(0).integers(0, 4, len(x))
    for w in (None, weights):
        expected = theirs(x, eps, 5, w).labels_
        near = scipy.sparse.csr_array(np.where(matrix <= 0.2, matrix, 0))
        for given_distances in (matrix, near):
            fit = dbscan.fit(given_distances, eps=eps, min_samples=5, weights=w, metric="precomputed")
            np.testing.assert_array_equal(fit.labels, expected)
        fit = dbscan.fit(x, eps=eps, min_samples=5, weights=w, metric=pairwise_distances)
        np.testing.assert_array_equal(fit.labels, expected)
    again = dbscan.predict(fit.state, x, metric=pairwise_distances)
    np.testing.assert_array_equal(again, expected)
    with pytest.raises(ValueError, match="no distance of new rows"):
        dbscan.predict(fit.state, x, metric="precomputed")


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8])
def test_other_types_of_numbers(dtype):
    x = (make_blobs(300, 2, centers=3, random_state=5)[0] * 5 + 100).astype(dtype)
    assert_same(x, 3.0, 4)


@pytest.mark.parametrize("scale", [1, 0.25])
def test_weights(scale):
    x = make_moons(400, noise=0.1, random_state=0)[0]
    weights = scale * np.random.default_rng(0).integers(0, 4, len(x))
    assert_same(x, 0.08, 5, weights)
    repeated = dbscan.fit(np.repeat(x, np.round(weights / scale).astype(int), axis=0), eps=0.08, min_samples=5 / scale)
    weighted = dbscan.fit(x, eps=0.08, min_samples=5, weights=weights)
    assert int(repeated.state.core.sum()) == weights[np.asarray(weighted.state.core)].sum() / scale


def test_weight_below_the_least_float32():
    x, weights = np.array([[0.0], [5.0], [9.0]]), np.array([1, 1 - 1e-12, 2])
    assert np.float32(weights[1]) == 1
    fit = assert_same(x, 1.0, 1, weights)
    np.testing.assert_array_equal(fit.state.core, [True, False, True])


@st.composite
def rows(draw):
    """Duplicates, ties, lines and clusters, on lattices fine and coarse."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.sampled_from([1, 40, 130, 200])), draw(st.integers(1, 3))
    x = rng.normal(size=(n, d)) * draw(st.sampled_from([0.3, 1.0]))
    x += rng.integers(0, 3, size=(n, 1)) * draw(st.sampled_from([0, 5]))
    if draw(st.booleans()):
        x = np.round(x, draw(st.integers(0, 2)))
    return x


HARD_PROBLEMS = {
    "a far row": (lambda x: np.concatenate([x, np.full((1, x.shape[1]), 1e12)]), np.float64),
    "a far row at the end of the range": (lambda x: np.concatenate([x, np.full((1, x.shape[1]), 1e200)]), np.float64),
    "an odd column": (lambda x: np.column_stack([x, np.arange(len(x)) % 2 * 1e9]), np.float64),
    "two far groups": (lambda x: np.concatenate([x - 1e5, x + 1e9]), np.float64),
    "an offset": (lambda x: x + 1e9, np.float64),
    "a large offset": (lambda x: x + 1e12, np.float64),
    "an offset in float32": (lambda x: x + 1e4, np.float32),
    "half precision": (lambda x: x, np.float16),
    "brain floats": (lambda x: x, ml_dtypes.bfloat16),
    "extended precision": (lambda x: x, np.longdouble),
    "unsigned bytes": (lambda x: np.abs(x * 9), np.uint8),
    "booleans": (lambda x: x > 0, bool),
}


@pytest.mark.parametrize("columns", [2, 12])
@pytest.mark.parametrize("name", HARD_PROBLEMS)
@pytest.mark.usefixtures("search")
def test_labels_are_scikit_learns_of_hard_rows(name, columns):
    make, dtype = HARD_PROBLEMS[name]
    x = make(MOONS if columns == 2 else BLOBS).astype(dtype)
    eps = 3.0 if dtype == np.uint8 and columns == 2 else 0.12 if columns == 2 else 20.0 if dtype == np.uint8 else 4.0
    fit = dbscan.fit(x, eps=eps, min_samples=5)
    expected = sklearn.cluster.DBSCAN(eps=eps, algorithm="kd_tree").fit(x.astype(float)).labels_
    np.testing.assert_array_equal(fit.labels, expected)
    np.testing.assert_array_equal(dbscan.predict(fit.state, x), expected)


@pytest.mark.parametrize("unit", [2.0**-60, 2.0**60, 1e-30, 1e30, 1e-200, 1e200])
@pytest.mark.usefixtures("search")
def test_the_unit_does_not_matter(unit):
    expected = theirs(MOONS, 0.12, 5).labels_
    np.testing.assert_array_equal(dbscan.fit(MOONS * unit, eps=0.12 * unit).labels, expected)


@pytest.mark.parametrize("eps", [1e155, 1e200, np.inf])
@pytest.mark.usefixtures("search")
def test_a_huge_radius_makes_one_cluster(eps):
    assert (np.asarray(dbscan.fit(MOONS, eps=eps).labels) == 0).all()


@pytest.mark.parametrize("eps", [1e-200, 1e-320])
@pytest.mark.usefixtures("search")
def test_a_tiny_radius_joins_equal_rows_alone(eps):
    x = np.repeat(MOONS[:50], 2, axis=0)
    np.testing.assert_array_equal(dbscan.fit(x, eps=eps, min_samples=2).labels, np.arange(100) // 2)


@pytest.mark.parametrize("scale", [1, 1e-20, 1e-180, 1e180])
@pytest.mark.usefixtures("search")
def test_directions_of_rows_of_any_length(scale):
    x = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]])
    np.testing.assert_array_equal(dbscan.fit(x * scale, eps=0.01, min_samples=2, metric="cosine").labels, [0, 0, 1, 1])


@pytest.mark.parametrize(("p", "expected"), [(20, [0, 0, 1, 1]), (200, [0, 0, 1, 1]), (np.inf, [0, 0, 1, 1])])
@pytest.mark.usefixtures("search")
def test_large_powers(p, expected):
    x = np.array([[0.0, 0], [1, 2], [150, 100], [151, 103]])
    np.testing.assert_array_equal(dbscan.fit(x, eps=3.5, min_samples=2, metric="minkowski", p=p).labels, expected)


@pytest.mark.parametrize("unit", [1e-40, 1.0, 1e40])
@pytest.mark.usefixtures("search")
def test_weights_in_any_unit(unit):
    """Negative ones among them: they keep their neighbors from being core samples."""
    weights = np.random.default_rng(0).integers(-2, 5, len(MOONS)) / 4
    expected = theirs(MOONS, 0.12, 1, weights).labels_
    assert (expected < 0).any()
    fit = dbscan.fit(MOONS, eps=0.12, min_samples=unit, weights=weights * unit)
    np.testing.assert_array_equal(fit.labels, expected)


@pytest.mark.usefixtures("search")
def test_without_weight_all_is_noise():
    assert (np.asarray(dbscan.fit(MOONS, eps=0.12, weights=np.zeros(len(MOONS))).labels) == -1).all()


@pytest.mark.parametrize("form", ["csr", "coo", "dense"])
def test_entries_of_one_side_count_for_both(form):
    graph = kneighbors_graph([[0.0], [1.0], [2.1], [3.3]], 2, mode="distance")
    if form == "dense":
        dense = graph.toarray()
        graph = np.where((dense == 0) & ~np.eye(4, dtype=bool), np.inf, dense)
    else:
        graph = graph.asformat(form)
    fit = dbscan.fit(graph, eps=1.15, min_samples=2, metric="precomputed")
    np.testing.assert_array_equal(fit.labels, [0, 0, 0, -1])


def test_a_stored_zero_is_a_distance():
    """Equal samples are neighbors: their distance in a graph is a stored 0."""
    graph = scipy.sparse.csr_array((np.array([0.0, 5.0]), ([0, 2], [1, 1])), shape=(3, 3))
    np.testing.assert_array_equal(dbscan.fit(graph, eps=1, min_samples=2, metric="precomputed").labels, [0, 0, -1])


def test_distances_that_differ_are_those_of_the_row():
    """As in scikit-learn, but with a word."""
    x = np.random.default_rng(0).random((40, 40))
    for matrix in (x, scipy.sparse.csr_array(x)):
        with pytest.warns(UserWarning, match=r"not symmetric: entry \(0, 1\) is 0\.\d+, entry \(1, 0\) is 0\.\d+"):
            fit = dbscan.fit(matrix, eps=0.1, min_samples=5, metric="precomputed")
        expected = theirs(matrix, 0.1, 5, metric="precomputed").labels_
        assert expected.max() >= 0
        np.testing.assert_array_equal(fit.labels, expected)


def test_few_rows_of_many_columns_compile_nothing(compiles):
    x = make_blobs(100, 1024, centers=3, random_state=0)[0]
    dbscan.fit(x[:5], eps=1.0)
    with compiles() as seen:
        fit = dbscan.fit(x, eps=46.0)
    assert seen.count == 0
    np.testing.assert_array_equal(fit.labels, theirs(x, 46.0, 5).labels_)


@pytest.mark.parametrize(
    ("columns", "switches"), [(2, STRICT | LEAKS), (2, IN_64_BITS), (30, STRICT | LEAKS | IN_64_BITS)]
)
def test_under_the_switches_of_jax(columns, switches, monkeypatch):
    monkeypatch.setattr(sys.modules[dbscan.fit.__module__], "HOST_WORK", -1)
    x = MOONS if columns == 2 else np.pad(MOONS, ((0, 0), (0, 28)))
    weights = np.random.default_rng(0).integers(-1, 5, len(MOONS)).astype(float)
    with switched(switches):
        for w in (None, weights):
            fit = dbscan.fit(x, eps=0.12, min_samples=5, weights=w)
            np.testing.assert_array_equal(fit.labels, theirs(MOONS, 0.12, 5, w).labels_)


@given(x=rows(), eps=st.sampled_from([0.1, 0.2, 0.3, 1.0, 2.5]), min_samples=st.integers(1, 12))
def test_labels_are_scikit_learns_on_anything(x, eps, min_samples):
    assert_same(x, eps, min_samples)


def test_new_rows_take_the_first_cluster_near_them():
    x = np.array([[0.0], [0.1], [0.2], [2.0], [2.1], [2.2]])
    state = dbscan.fit(x, eps=0.25, min_samples=3).state
    np.testing.assert_array_equal(dbscan.predict(state, [[0.3], [1.1], [1.9], [9.0]]), [0, -1, 1, -1])
    np.testing.assert_array_equal(dbscan.predict(state._replace(eps=np.asarray(1.0)), [[1.1]]), [0])


def test_no_core_row_is_all_noise():
    fit = dbscan.fit(np.eye(3), eps=0.1, min_samples=2)
    assert (np.asarray(fit.labels) == -1).all()
    assert fit.state.components.shape == (0, 3)
    np.testing.assert_array_equal(dbscan.predict(fit.state, np.eye(3)), [-1, -1, -1])


def test_another_radius_compiles_nothing(compiles):
    x = make_moons(500, noise=0.05, random_state=0)[0]
    dbscan.fit(x, eps=0.1)
    with compiles() as seen:
        dbscan.fit(x * 1.01, eps=0.101, min_samples=6)
    assert seen.count == 0


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.eye(3), {"eps": 0}, "eps=0 must be greater than 0"),
        (np.eye(3), {"eps": -1.0}, "eps=-1.0 must be greater than 0"),
        (np.eye(3), {"min_samples": 0}, "min_samples=0 must be greater than 0"),
        (np.eye(3), {"metric": "euclid"}, "'euclid' is not known.*'manhattan'.*Did you mean 'euclidean'"),
        (np.ones((2, 3)), {"metric": "precomputed"}, r"square matrix of distances, got shape \(2, 3\)"),
        (np.array([[0, -1], [-1, 0]]), {"metric": "precomputed"}, r"negative: entry \(0, 1\) is -1"),
        (np.eye(3), {"metric": "minkowski", "p": 0.5}, "p=0.5 must be at least 1"),
        (np.eye(3), {"weights": [1, 1]}, r"weights must have shape \(3,\)"),
        (np.array([[np.nan, 1]]), {}, "1 NaN"),
        (np.ones(3), {}, "2-D"),
        (np.ones((0, 2)), {}, "no rows"),
    ],
)
def test_bad_input(x, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        dbscan.fit(x, **{"eps": 1.0, **options})


def test_rows_of_another_width():
    state = dbscan.fit(np.eye(3), eps=2.0, min_samples=1).state
    with pytest.raises(ValueError, match="x has 2 columns, but the model was fitted on 3"):
        dbscan.predict(state, np.ones((1, 2)))


@pytest.mark.parametrize("transform", [jax.jit, jax.grad], ids=["jit", "grad"])
def test_under_a_transformation_it_says_why_not(transform):
    with pytest.raises(TypeError, match="its labels have no gradient"):
        transform(lambda x: dbscan.fit(x, eps=1.0).labels.sum().astype(float))(np.eye(3))

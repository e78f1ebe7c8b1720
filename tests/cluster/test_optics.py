"""OPTICS orders and clusters rows as scikit-learn does, element for element."""

from __future__ import annotations

import sys
import warnings
from functools import partial

import jax
import ml_dtypes
import numpy as np
import pytest
import scipy.sparse
import sklearn.cluster
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import kneighbors_graph

from jaxcluster import optics
from jaxcluster.types import Status

THEIR_NAMES = {"method": "cluster_method", "metric": "metric"}


def theirs(x, **options):
    """scikit-learn's fit. Its "euclidean" expands the square and rounds; its "minkowski" adds up differences."""
    options = {THEIR_NAMES.get(name, name): value for name, value in options.items()}
    if options.get("metric", "euclidean") == "euclidean":
        options["metric"] = "minkowski"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sklearn.cluster.OPTICS(**options).fit(x)


def assert_same(x, expected=None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = optics.fit(x, **options)
    expected = theirs(x, **options) if expected is None else expected
    same = np.testing.assert_array_equal
    if options.get("p", 2) != 2:  # powers are the C library's on one side and NumPy's on the other
        same = partial(np.testing.assert_allclose, rtol=1e-14)
    same(fit.state.core_distances, expected.core_distances_)
    np.testing.assert_array_equal(fit.state.ordering, expected.ordering_)
    same(fit.state.reachability, expected.reachability_)
    np.testing.assert_array_equal(fit.state.predecessor, expected.predecessor_)
    np.testing.assert_array_equal(fit.labels, expected.labels_)
    if options.get("method", "xi") == "xi":
        asked = ("xi", "min_samples", "min_cluster_size", "predecessor_correction")
        _, clusters = optics.extract_xi(fit.state, **{name: options[name] for name in asked if name in options})
        assert clusters.dtype == np.int64
        np.testing.assert_array_equal(clusters, np.reshape(expected.cluster_hierarchy_, (-1, 2)))
    return fit


SETS = {
    "moons": make_moons(120, noise=0.05, random_state=0)[0],
    "blobs of different density": make_blobs(120, 2, cluster_std=[0.1, 0.5, 2], random_state=0)[0],
    "columns": make_blobs(90, 6, centers=4, random_state=1)[0],
    "a lattice": np.stack(np.meshgrid(np.arange(9.0), np.arange(9.0)), -1).reshape(-1, 2),
    "a line": np.arange(80.0)[:, None],
    "duplicates": np.repeat(np.random.default_rng(0).normal(size=(8, 2)), 10, axis=0),
    "all rows equal": np.full((60, 2), 7.0),
    "far from the origin": make_moons(90, noise=0.05, random_state=0)[0] + 1e6,
    "tiny": make_moons(90, noise=0.05, random_state=0)[0] * 1e-9,
}
WIDE = make_blobs(130, 12, centers=3, random_state=2)[0]
OPTIONS = {
    "defaults": {},
    "a reach": {"max_eps": 0.3, "min_samples": 4},
    "a cut": {"method": "dbscan", "eps": 0.15},
    "a cut at the reach": {"method": "dbscan", "max_eps": 0.5},
    "steep": {"xi": 0.3, "predecessor_correction": False},
    "gentle": {"xi": 0.01, "min_cluster_size": 20},
    "shares": {"min_samples": 0.05, "min_cluster_size": 0.1},
    "the least neighborhood": {"min_samples": 2},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", SETS)
def test_everything_is_scikit_learns(name, options):
    fit = assert_same(SETS[name], **options)
    assert fit.labels.dtype == np.int32
    assert int(fit.status) == Status.CONVERGED


@pytest.mark.parametrize(("metric", "p"), [("manhattan", 2), ("minkowski", 1), ("minkowski", 3), ("minkowski", 1.5)])
def test_other_metrics(metric, p):
    assert_same(SETS["moons"], metric=metric, p=p)


@pytest.mark.parametrize("metric", ["cosine", "sqeuclidean"])
def test_metrics_that_round_otherwise(metric):
    """Rows that are reached alike, but for the last digit, may come in another order."""
    x = SETS["columns"]
    fit, lengths = optics.fit(x, metric=metric), pairwise_distances(x, metric=metric)
    np.testing.assert_allclose(fit.state.core_distances, np.sort(lengths, axis=1)[:, 4], rtol=1e-9, atol=1e-12)
    assert sorted(fit.state.ordering) == list(range(len(x)))
    reached = fit.state.predecessor >= 0
    assert reached.sum() == len(x) - 1
    sources = fit.state.predecessor[reached]
    by_definition = np.maximum(fit.state.core_distances[sources], lengths[sources, np.flatnonzero(reached)])
    np.testing.assert_allclose(fit.state.reachability[reached], by_definition, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("max_eps", [np.inf, 0.3])
def test_distances_alone(max_eps):
    x = SETS["moons"]
    matrix = pairwise_distances(x, metric="minkowski")
    expected = theirs(matrix, metric="precomputed", max_eps=max_eps)
    assert_same(matrix, expected, metric="precomputed", max_eps=max_eps)
    by_minkowski = lambda a, b: pairwise_distances(a, b, metric="minkowski")  # noqa: E731
    assert_same(x, expected, metric=by_minkowski, max_eps=max_eps)
    near = scipy.sparse.csr_array(np.where(matrix <= 0.3, matrix, 0))
    fit = optics.fit(near, metric="precomputed", max_eps=0.3)
    np.testing.assert_array_equal(fit.state.ordering, optics.fit(x, max_eps=0.3).state.ordering)


HARD_PROBLEMS = {
    "a far row": (lambda x: np.concatenate([x, np.full((1, x.shape[1]), 1e12)]), np.float64),
    "an odd column": (lambda x: np.column_stack([x, np.arange(len(x)) % 2 * 1e9]), np.float64),
    "two far groups": (lambda x: np.concatenate([x - 1e5, x + 1e9]), np.float64),
    "a large offset": (lambda x: x + 1e12, np.float64),
    "an offset in float32": (lambda x: x + 1e4, np.float32),
    "half precision": (lambda x: x, np.float16),
    "brain floats": (lambda x: x, ml_dtypes.bfloat16),
    "extended precision": (lambda x: x, np.longdouble),
    "booleans": (lambda x: x > 0, bool),
}


@pytest.mark.parametrize("columns", [2, 12])
@pytest.mark.parametrize("name", HARD_PROBLEMS)
def test_everything_is_scikit_learns_of_hard_rows(name, columns):
    make, dtype = HARD_PROBLEMS[name]
    x = make(SETS["moons"] if columns == 2 else WIDE).astype(dtype)
    assert_same(x, theirs(x.astype(float), algorithm="kd_tree"))


@pytest.mark.parametrize("unit", [2.0**-60, 2.0**60, 1e-30, 1e30, 1e-200, 1e200])
@pytest.mark.parametrize("columns", [2, 12])
def test_the_unit_does_not_matter(unit, columns):
    """Scikit-learn rounds to 15 decimals, and so finds nothing in rows of a small unit."""
    x = SETS["moons"] if columns == 2 else WIDE
    expected = theirs(x * unit / unit, algorithm="kd_tree")
    fit = optics.fit(x * unit)
    np.testing.assert_array_equal(fit.state.ordering, expected.ordering_)
    np.testing.assert_array_equal(fit.labels, expected.labels_)
    np.testing.assert_allclose(fit.state.reachability, expected.reachability_ * unit, rtol=1e-13)
    np.testing.assert_allclose(fit.state.core_distances, expected.core_distances_ * unit, rtol=1e-13)


@pytest.mark.parametrize("unit", [1e-100, 1e100])
def test_nor_does_that_of_distances(unit):
    matrix = pairwise_distances(SETS["moons"], metric="minkowski")
    expected = theirs(matrix, metric="precomputed", max_eps=0.3)
    fit = optics.fit(matrix * unit, metric="precomputed", max_eps=0.3 * unit)
    np.testing.assert_array_equal(fit.state.ordering, expected.ordering_)
    np.testing.assert_array_equal(fit.labels, expected.labels_)


@pytest.mark.parametrize("max_eps", [1e155, 1e200, 1e308])
def test_a_huge_reach_is_an_infinite_one(max_eps):
    assert_same(SETS["moons"], theirs(SETS["moons"]), max_eps=max_eps)


@pytest.mark.parametrize("form", ["csr", "dense"])
def test_entries_of_one_side_count_for_both(form):
    x = np.array([[0.0], [1.0], [2.1], [3.3], [9.0]])
    graph = kneighbors_graph(x, 2, mode="distance")
    both = np.maximum(graph.toarray(), graph.toarray().T)
    known = np.where((both == 0) & ~np.eye(5, dtype=bool), 1e9, both)  # beyond max_eps: scikit-learn takes no infinity
    one_sided = np.where((graph.toarray() == 0) & ~np.eye(5, dtype=bool), np.inf, graph.toarray())
    fit = optics.fit(graph if form == "csr" else one_sided, metric="precomputed", min_samples=2)
    expected = theirs(known, metric="precomputed", min_samples=2, max_eps=1e8)
    np.testing.assert_array_equal(fit.state.ordering, expected.ordering_)
    np.testing.assert_array_equal(fit.state.reachability, expected.reachability_)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_other_types_of_numbers(dtype):
    assert_same((SETS["blobs of different density"] * 5).astype(dtype))


@st.composite
def rows(draw):
    """Duplicates, ties, lines and clusters, on lattices fine and coarse."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.sampled_from([14, 40, 90])), draw(st.integers(1, 3))
    x = rng.normal(size=(n, d)) + rng.integers(0, 3, size=(n, 1)) * draw(st.sampled_from([0, 5]))
    return np.round(x, draw(st.sampled_from([0, 1, 14])))


@st.composite
def options(draw):
    """Any neighborhood, reach, metric and way to find clusters.

    Not other powers: their last bit, which decides between neighbors that are about as far, is the C library's.
    """
    metric, p = draw(st.sampled_from([("minkowski", 2), ("manhattan", 2)]))
    max_eps = draw(st.sampled_from([np.inf, 1.0, 0.3]))
    chosen = {"metric": metric, "p": p, "max_eps": max_eps}
    chosen["min_samples"] = draw(st.one_of(st.integers(2, 6), st.floats(0.01, 0.4)))
    if draw(st.booleans()):
        return chosen | {"method": "dbscan", "eps": draw(st.sampled_from([None, 0.0, 0.2, 0.3]))}
    chosen["min_cluster_size"] = draw(st.one_of(st.none(), st.integers(2, 14), st.floats(0.01, 1)))
    chosen["predecessor_correction"] = draw(st.booleans())
    return chosen | {"xi": draw(st.sampled_from([0.001, 0.05, 0.5, 0.95]))}


@settings(max_examples=60)
@given(x=rows(), options=options())
def test_everything_is_scikit_learns_on_anything(x, options):
    assert_same(x, **options)


@pytest.mark.parametrize("d", [9, 20])
@pytest.mark.parametrize("min_samples", [2, 50])
def test_tree_search_is_scikit_learns(d, min_samples):
    """Left to itself, scikit-learn expands the square there."""
    x = np.random.default_rng(d).normal(size=(80, d))
    assert_same(x, theirs(x, min_samples=min_samples, algorithm="kd_tree"), min_samples=min_samples)


def test_a_finished_order_can_be_cut_anywhere():
    x = SETS["blobs of different density"]
    fit = optics.fit(x)
    for eps in (0.05, 0.3, 2.0):
        cut = optics.extract_dbscan(fit.state, eps)
        np.testing.assert_array_equal(cut, theirs(x, method="dbscan", eps=eps).labels_)
    np.testing.assert_array_equal(optics.extract_xi(fit.state, xi=0.2)[0], theirs(x, xi=0.2).labels_)


def test_no_row_in_reach_is_told():
    with pytest.warns(UserWarning, match="No row is within max_eps=0.001"):
        fit = optics.fit(np.eye(6), max_eps=0.001)
    assert (np.asarray(fit.labels) == -1).all()
    assert np.isinf(fit.state.reachability).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_samples": 0}, "min_samples=0 must be greater than 0"),
        ({"min_samples": 1}, "min_samples=1 must be a whole number of at least 2, or a fraction"),
        ({"min_samples": 2.5}, "min_samples=2.5 must be a whole number"),
        ({"min_samples": 7}, "n_samples=6 should be >= min_samples=7"),
        ({"min_samples": np.inf}, "min_samples=inf must be a whole number"),
        ({"min_samples": True}, "min_samples must be a number, got True"),
        ({"min_cluster_size": 7}, "n_samples=6 should be >= min_cluster_size=7. Pass a smaller min_cluster_size"),
        ({"min_cluster_size": 1}, "min_cluster_size=1 must be a whole number of at least 2"),
        ({"max_eps": -1.0}, "max_eps=-1.0 must be at least 0"),
        ({"method": "dbscan", "eps": 2.0, "max_eps": 1.0}, "eps=2.0 must be at most max_eps=1.0"),
        ({"xi": -0.1}, "xi=-0.1 must be at least 0"),
        ({"xi": 1.1}, "xi=1.1 must be at most 1"),
        ({"method": "xy"}, "method='xy' is not known.*'xi', 'dbscan'"),
        ({"metric": "euclid"}, "Did you mean 'euclidean'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        optics.fit(np.eye(6), **options)


@pytest.mark.parametrize("xi", [0.0, np.float64(1)])  # of Python's 1.0 scikit-learn divides by zero
@pytest.mark.parametrize("name", ["moons", "duplicates"])
def test_both_ends_of_xi(name, xi):
    assert_same(SETS[name], xi=xi)
    np.testing.assert_array_equal(optics.fit(SETS[name], xi=float(xi)).labels, optics.fit(SETS[name], xi=xi).labels)


@pytest.mark.parametrize("min_cluster_size", [1, 7])
def test_a_wrong_size_is_told_before_the_walk(monkeypatch, min_cluster_size):
    # The package's name for the module is the function's.
    monkeypatch.setattr(sys.modules[optics.fit.__module__], "compute_ordering", lambda *_: pytest.fail("it ordered"))
    with pytest.raises(ValueError, match="min_cluster_size"):
        optics.fit(np.eye(6), min_samples=2, min_cluster_size=min_cluster_size)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([[np.nan, 1]]), "1 NaN"),
        (np.ones(3), "2-D"),
        (np.ones((1, 2)), "n_samples=1 should be >= min_samples"),
    ],
)
def test_bad_rows(x, message):
    with pytest.raises(ValueError, match=message):
        optics.fit(x)


@pytest.mark.parametrize("transform", [jax.jit, jax.grad], ids=["jit", "grad"])
def test_under_a_transformation_it_says_why_not(transform):
    with pytest.raises(TypeError, match="its labels have no gradient"):
        transform(lambda x: optics.fit(x).labels.sum().astype(float))(np.eye(6))

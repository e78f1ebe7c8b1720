"""OPTICS orders and clusters rows as scikit-learn does, element for element."""

from __future__ import annotations

import warnings

import jax
import numpy as np
import pytest
import scipy.sparse
import sklearn.cluster
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics import pairwise_distances

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
    np.testing.assert_array_equal(fit.state.core_distances, expected.core_distances_)
    np.testing.assert_array_equal(fit.state.ordering, expected.ordering_)
    np.testing.assert_array_equal(fit.state.reachability, expected.reachability_)
    np.testing.assert_array_equal(fit.state.predecessor, expected.predecessor_)
    np.testing.assert_array_equal(fit.labels, expected.labels_)
    if options.get("method", "xi") == "xi":
        asked = ("xi", "min_samples", "min_cluster_size", "predecessor_correction")
        _, clusters = optics.extract_xi(fit.state, **{name: options[name] for name in asked if name in options})
        assert clusters.dtype == np.int64
        np.testing.assert_array_equal(clusters, np.reshape(expected.cluster_hierarchy_, (-1, 2)))
    return fit


SETS = {
    "moons": make_moons(300, noise=0.05, random_state=0)[0],
    "blobs of different density": make_blobs(300, 2, cluster_std=[0.1, 0.5, 2], random_state=0)[0],
    "columns": make_blobs(200, 6, centers=4, random_state=1)[0],
    "a lattice": np.stack(np.meshgrid(np.arange(12.0), np.arange(12.0)), -1).reshape(-1, 2),
    "a line": np.arange(150.0)[:, None],
    "duplicates": np.repeat(np.random.default_rng(0).normal(size=(12, 2)), 12, axis=0),
    "all rows equal": np.full((60, 2), 7.0),
    "far from the origin": make_moons(200, noise=0.05, random_state=0)[0] + 1e6,
    "tiny": make_moons(200, noise=0.05, random_state=0)[0] * 1e-9,
}
OPTIONS = {
    "defaults": {},
    "a reach": {"max_eps": 0.3, "min_samples": 4},
    "a cut": {"method": "dbscan", "eps": 0.15},
    "a cut at the reach": {"method": "dbscan", "max_eps": 0.5},
    "steep": {"xi": 0.3, "predecessor_correction": False},
    "gentle": {"xi": 0.01, "min_cluster_size": 20},
    "shares": {"min_samples": 0.05, "min_cluster_size": 0.1},
    "the least neighbourhood": {"min_samples": 2},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", SETS)
def test_everything_is_scikit_learns(name, options):
    fit = assert_same(SETS[name], **options)
    assert fit.labels.dtype == np.int32
    assert int(fit.status) == Status.CONVERGED


@pytest.mark.parametrize(("metric", "p"), [("manhattan", 2), ("minkowski", 1), ("minkowski", 2)])
def test_other_metrics(metric, p):
    assert_same(SETS["moons"], metric=metric, p=p)


@pytest.mark.parametrize("metric", ["cosine", "sqeuclidean"])
def test_metrics_that_round_otherwise(metric):
    """Rows that are reached alike, but for the last digit, may come in another order."""
    x = SETS["columns"]
    fit, expected = optics.fit(x, metric=metric), theirs(x, metric=metric)
    np.testing.assert_allclose(fit.state.core_distances, expected.core_distances_, rtol=1e-9, atol=1e-12)
    assert sorted(fit.state.ordering) == list(range(len(x)))
    reached = fit.state.predecessor >= 0
    sources = fit.state.predecessor[reached]
    lengths = pairwise_distances(x, metric=metric)[sources, np.flatnonzero(reached)]
    by_definition = np.maximum(fit.state.core_distances[sources], lengths)
    np.testing.assert_allclose(fit.state.reachability[reached], by_definition, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("max_eps", [np.inf, 0.3])
def test_distances_alone(max_eps):
    x = SETS["moons"][:200]
    matrix = pairwise_distances(x, metric="minkowski")
    expected = theirs(matrix, metric="precomputed", max_eps=max_eps)
    assert_same(matrix, expected, metric="precomputed", max_eps=max_eps)
    by_minkowski = lambda a, b: pairwise_distances(a, b, metric="minkowski")  # noqa: E731
    assert_same(x, expected, metric=by_minkowski, max_eps=max_eps)
    near = scipy.sparse.csr_array(np.where(matrix <= 0.3, matrix, 0))
    fit = optics.fit(near, metric="precomputed", max_eps=0.3)
    np.testing.assert_array_equal(fit.state.ordering, optics.fit(x, max_eps=0.3).state.ordering)


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


@given(
    x=rows(),
    min_samples=st.integers(2, 6),
    max_eps=st.sampled_from([np.inf, 1.0, 0.3]),
    xi=st.sampled_from([0.001, 0.05, 0.5, 0.95]),
    predecessor_correction=st.booleans(),
)
def test_everything_is_scikit_learns_on_anything(x, **options):
    assert_same(x, **options)


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
        ({"min_samples": 1}, "min_samples=1 must be a whole number of at least 2, or a share"),
        ({"min_samples": 2.5}, "min_samples=2.5 must be a whole number"),
        ({"min_samples": 7}, "n_samples=6 should be >= min_samples=7"),
        ({"min_cluster_size": 7}, "n_samples=6 should be >= min_cluster_size=7"),
        ({"max_eps": -1.0}, "max_eps=-1.0 must be at least 0"),
        ({"method": "dbscan", "eps": 2.0, "max_eps": 1.0}, "eps=2.0 must be at most max_eps=1.0"),
        ({"xi": 0}, "xi=0 must be greater than 0"),
        ({"xi": 1.0}, "xi=1.0 must be less than 1"),
        ({"method": "xy"}, "method='xy' is not known.*'xi', 'dbscan'"),
        ({"metric": "euclid"}, "Did you mean 'euclidean'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        optics.fit(np.eye(6), **options)


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

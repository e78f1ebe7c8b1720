"""Distances, nearest centers and sums by label, against SciPy and NumPy in float64."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from jaxcluster.ops import distance
from jaxcluster.ops import nearest as nearest_forms
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.nearest import DistanceBounds, elkan_bounds, nearest
from jaxcluster.types import Points

NAMES = {"sqeuclidean": {}, "euclidean": {}, "cosine": {}, "manhattan": {}, "minkowski": {"p": 3.0}}
SCIPY = {"manhattan": "cityblock"}


@cache
def table(name):
    """The metric, compiled once for each shape."""
    return jax.jit(distance.metric_function(name, **NAMES[name]))


@jax.jit
def with_gradient(x, push):
    """Normalized rows, and the gradient of their product with ``push``."""
    return distance.normalize(x), jax.grad(lambda x: jnp.vdot(distance.normalize(x), push))(x)


jitted_nearest = jax.jit(nearest)
squared_norms = jax.jit(distance.squared_norms)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("d", [1, 17])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_distances_agree_with_scipy(name, d, offset):
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(m, d)).astype(np.float32) + np.float32(offset) for m in (9, 7))
    expected = cdist(x.astype(float), y.astype(float), SCIPY.get(name, name), **NAMES[name])
    got = table(name)(jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_zero_distance_has_a_finite_gradient(name):
    x = jnp.asarray([[1.0, 2.0, 3.0, 4.0, 5.0]])
    function = distance.metric_function(name, **NAMES[name])
    found, gradient = jax.jit(jax.value_and_grad(lambda y: function(x, y).sum()))(x)
    np.testing.assert_allclose(found, 0, atol=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("size", [1e-40, 1e-38, 1e-30, 1e-13, 1.0, 1e19, 1e38])
def test_rows_of_any_length_are_normalized(size):
    rows = np.array([[3, -4, 1], [1, 2, 0], [0, 0, 0], [-1, 1, 2]]) / 4 * size
    x = rows.astype(np.float32)
    exact = x.astype(np.longdouble)
    lengths = np.sqrt(np.sum(np.square(exact), axis=1, keepdims=True))
    unit = exact / np.where(lengths > 0, lengths, 1)
    push = np.array([0.3, 1.0, -2.0])
    found, gradient = with_gradient(x, np.tile(push.astype(np.float32), (4, 1)))
    np.testing.assert_allclose(found, unit.astype(float), rtol=1e-6)
    if not 1e-37 < size < 1e37:
        return  # the derivative, about 1/length, is no normal number of float32
    expected = (push - unit * (unit @ push)[:, None]) / np.where(lengths > 0, lengths, np.inf)
    np.testing.assert_allclose(np.float64(gradient) * size, np.float64(expected * size), rtol=1e-5, atol=1e-6)


def test_one_normal_entry_does_not_hide_smaller_ones():
    x = np.float32([[1.2e-38, 1.1e-38], [1.2e-38, -1e-39]])
    exact = x.astype(float)
    unit = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(jax.jit(distance.normalize)(x), unit, rtol=1e-6)


def test_zero_rows_are_at_cosine_distance_one():
    x = jnp.asarray([[0.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(table("cosine")(x, x), [[1, 1], [1, 0]], atol=1e-6)


def test_unknown_metric_lists_the_known():
    with pytest.raises(ValueError, match=r"'euclidian' is not known.*'manhattan'.*Did you mean 'euclidean'"):
        distance.metric_function("euclidian")
    with pytest.raises(ValueError, match=r"p=0\.5 must be at least 1"):
        distance.metric_function("minkowski", p=0.5)


SHAPES = [(50, 2, 3), (300, 8, 40), (1000, 20, 130)]
"""n, d, k: written out; one packed minimum; a k that is no power of two."""


_direct = jax.jit(nearest_forms._direct, static_argnums=4)
_packed = jax.jit(nearest_forms._packed, static_argnums=5)


def problem(n, d, k, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=size).astype(np.float32) for size in ((n, d), (k, d)))


def exact_distances(x, c):
    return cdist(np.asarray(x, float), np.asarray(c, float), "sqeuclidean")


@pytest.mark.parametrize(("shape", "jit"), [(SHAPES[0], False), *((shape, True) for shape in SHAPES)])
def test_nearest_is_the_nearest(shape, jit):
    x, c = problem(*shape)
    labels, found = (jitted_nearest if jit else nearest)(*map(jnp.asarray, (x, c)))
    exact = exact_distances(x, c)
    np.testing.assert_array_equal(labels, exact.argmin(1))
    np.testing.assert_allclose(found, exact.min(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_direct_and_packed_forms_agree(shape):
    x, c = problem(*shape)
    norms, bias = squared_norms(x), squared_norms(c)
    direct = _direct(x, norms, bias, -2 * c, distance.HIGHEST)
    packed = _packed(x, norms, bias, -2 * c, None, distance.HIGHEST)
    np.testing.assert_array_equal(direct.labels, packed.labels)
    assert (np.abs(direct.distance - packed.distance) <= 2 * np.asarray(packed.error)).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_nearest_within_bounds(shape):
    x, c = problem(*shape)
    exact = exact_distances(x, c)
    least = exact.min(1)
    bounds = DistanceBounds(jnp.asarray(0.7 * least, jnp.float32), jnp.asarray(1.4 * least, jnp.float32))
    norms, bias = squared_norms(x), squared_norms(c)
    found = _packed(x, norms, bias, -2 * c, bounds, distance.HIGHEST)
    chosen = exact[np.arange(len(x)), np.asarray(found.labels)]
    assert (chosen <= least + 2 * np.asarray(found.error)).all()
    assert (np.asarray(found.labels) == exact.argmin(1)).mean() > 0.999
    assert (np.abs(least - np.asarray(found.distance)) <= np.asarray(found.error)).all()


@given(seed=st.integers(0, 10_000), size=st.sampled_from([0.0, 1e-3, 0.1, 3.0]), k=st.sampled_from([40, 70]))
def test_elkan_bounds_hold_after_a_shift(seed, size, k):
    x, c = problem(300, 8, k, seed)
    rng = np.random.default_rng(seed + 1)
    shifts = (size * rng.normal(size=c.shape) * rng.uniform(size=(k, 1))).astype(np.float32)
    found = _packed(x, squared_norms(x), squared_norms(c), -2 * c, None, distance.HIGHEST)
    bounds = jax.jit(elkan_bounds)(found, np.linalg.norm(shifts, axis=1), x, c + shifts)
    least = exact_distances(x, c + shifts).min(1)
    rounding = 1e-4
    assert (np.asarray(bounds.lower) <= least + rounding).all()
    assert (np.asarray(bounds.upper) >= least - rounding).all()


def test_ties_go_to_the_lower_index():
    x, c = problem(300, 8, 20)
    doubled = np.concatenate([c, c])
    assert np.asarray(jitted_nearest(x, doubled)[0]).max() < 20
    _, few = problem(1, 2, 3)
    assert np.asarray(jitted_nearest(x[:, :2], np.concatenate([few, few]))[0]).max() < 3


@pytest.mark.parametrize("shape", SHAPES)
def test_inactive_centers_are_never_nearest(shape):
    x, c = problem(*shape)
    active = np.arange(len(c)) % 3 != 0
    labels, _ = jitted_nearest(x, c, active=active)
    exact = np.where(active, exact_distances(x, c), np.inf)
    np.testing.assert_array_equal(labels, exact.argmin(1))


def test_last_center_of_a_lone_row():
    # A float quotient of the packed minimum by k once rounded up to the next step here.
    rng = np.random.default_rng(0)
    for k in (60, 100, 127):
        c = np.float32(rng.normal(size=(k, 5)) * 10)
        x = c[-1:] + np.linspace(0, 1, 64, dtype=np.float32)[:, None] ** 2 / 2
        exact = exact_distances(x, c).argmin(1)
        np.testing.assert_array_equal(jitted_nearest(x, c)[0], exact)


def test_one_program_after_another_for_other_ks():
    # Large enough for the packed form; a compiler once mixed up the programs of k = 8 and k = 10.
    x, c = problem(250_000, 6, 16)
    for k in (16, 10, 15, 8, 10):
        labels, _ = jitted_nearest(x, c[:k])
        exact = exact_distances(x[:2000], c[:k]).argmin(1)
        np.testing.assert_array_equal(np.asarray(labels)[:2000], exact)


def test_float64_is_exact():
    with jax.enable_x64(True):
        x, c = (a.astype(np.float64) for a in problem(300, 8, 40))
        labels, found = jitted_nearest(x, c)
        assert found.dtype == np.float64
        exact = exact_distances(x, c)
        np.testing.assert_array_equal(labels, exact.argmin(1))
        np.testing.assert_allclose(found, exact.min(1), rtol=1e-10)


def test_nearest_never_builds_the_table():
    n, d, k = 1 << 18, 16, 512
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((n, d), (k, d))]
    compiled = jax.jit(nearest).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < n * k * 4 / 4


@pytest.mark.parametrize("form", ["platform", "product"])
@pytest.mark.parametrize("uniform", [True, False])
def test_sums_by_label(form, uniform, monkeypatch):
    rng = np.random.default_rng(0)
    n, d, k = 5000, 3, 7
    x = rng.normal(size=(n, d)).astype(np.float32)
    weight = (rng.integers(0, 2, n) if uniform else rng.uniform(0, 2, n)).astype(np.float32)
    labels = rng.integers(-1, k + 1, n).astype(np.int32)
    if form == "product":
        monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    sums, total = cluster_sums(Points(jnp.asarray(x), jnp.asarray(weight)), jnp.asarray(labels), k, uniform=uniform)
    for j in range(k):
        own = labels == j
        np.testing.assert_allclose(sums[j], (weight[own, None].astype(float) * x[own]).sum(0), atol=1e-3)
        np.testing.assert_allclose(total[j], weight[own].sum(), rtol=1e-5)

"""Every metric against SciPy and scikit-learn in float64, at every scale, with far rows, and under JAX's switches."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_switches import LEAKS, STRICT, switched
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import haversine_distances

from jaxcluster.ops import distance
from jaxcluster.ops.metric_space import MetricSpace, as_metric_space, checked_distances, host_distance

WIDE = 21
"""Columns: more than are taken together, so that there is a loop over groups of them."""


def rows(name, n, d, seed=0):
    """Rows on which the metric is defined without 0/0."""
    rng = np.random.default_rng(seed)
    if name in ("hamming", "jaccard"):
        return rng.integers(0, 3, (n, d)).astype(np.float32)
    if name == "haversine":
        return rng.uniform([-1.5, -3.1], [1.5, 3.1], (n, 2)).astype(np.float32)
    if name == "braycurtis":
        return rng.uniform(0, 1, (n, d)).astype(np.float32)
    return rng.normal(size=(n, d)).astype(np.float32)


def exact(name, x, y, p=3.0):
    """The distances in float64, as scikit-learn's ``pairwise_distances`` has them."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if name == "haversine":
        return haversine_distances(x, y)
    if name == "jaccard":
        x, y = x.astype(bool), y.astype(bool)
    names = {"l1": "cityblock", "manhattan": "cityblock", "l2": "euclidean"}
    return cdist(x, y, names.get(name, name), **({"p": p} if name == "minkowski" else {}))


PLAIN = tuple(dict.fromkeys(distance.plain_metric(name, 3.0) for name in distance.METRICS))
"""One name of each metric."""


def distances_and_gradients(name):
    """A function of two matrices: their distances, and the gradients of the sum of these."""
    function = distance.metric_function(name, p=3.0)

    def both(x, y):
        value, pull = jax.vjp(function, x, y)
        return value, *pull(jnp.ones_like(value))

    return both


@pytest.mark.parametrize("name", PLAIN)
def test_every_metric_is_scipys(name):
    x, y = rows(name, 9, WIDE), rows(name, 7, WIDE, seed=1)
    got = jax.jit(distance.metric_function(name, p=3.0))(jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(got, exact(name, x, y), rtol=1e-5, atol=1e-6)
    assert got.dtype == jnp.float32


def test_names_for_one_metric_are_one_function():
    for names in (("l1", "cityblock", "manhattan"), ("l2", "euclidean")):
        assert len({distance.metric_function(name) for name in names}) == 1
    for p, name in ((1, "manhattan"), (2, "euclidean"), (np.inf, "chebyshev"), (1e30, "chebyshev")):
        assert distance.metric_function("minkowski", p=p) is distance.METRICS[name]


def with_gradient(function):
    """One program: from x to each of several matrices, the distances and the gradient of their sum by the matrix."""

    def both(x, y):
        value, pull = jax.vjp(partial(function, x), y)
        return value, *pull(jnp.ones_like(value))

    return jax.jit(lambda x, ys: jax.vmap(both, in_axes=(None, 0))(x, jnp.stack(ys)))


@pytest.mark.parametrize("p", [1.5, 3.0, 20.0, 500.0, 1e6])
def test_minkowski_with_any_power(p):
    x = np.float32([[0, 0], [1, 2], [150, 100], [151, 103], [1e-20, 2e-20], [0, 1e30]])
    apart = np.abs(x[:, None].astype(float) - x[None])
    largest = apart.max(axis=2)
    unit = np.where(largest > 0, largest, 1)
    expected = largest * np.sum((apart / unit[..., None]) ** p, axis=2) ** (1 / p) if p else None
    got, gradient = with_gradient(distance.metric_function("minkowski", p=p))(x, [x, x + 1])
    np.testing.assert_allclose(got[0], np.where(largest > 0, expected, 0), rtol=1e-5)
    assert np.isfinite(gradient[1]).all()


def test_gradient_of_minkowski_is_its_formula():
    x, y = rows("minkowski", 5, 4), rows("minkowski", 6, 4, seed=1)
    gradient = jax.jit(jax.grad(lambda x: distance.minkowski(x, jnp.asarray(y), p=3.0).sum()))(x)
    apart = x[:, None].astype(float) - y[None]
    length = np.sum(np.abs(apart) ** 3, axis=2, keepdims=True) ** (1 / 3)
    np.testing.assert_allclose(gradient, np.sum(np.sign(apart) * (np.abs(apart) / length) ** 2, axis=1), rtol=1e-4)


@pytest.mark.parametrize("name", ["euclidean", "manhattan", "chebyshev", "minkowski"])
@pytest.mark.parametrize("d", [3, WIDE])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_distances_follow_the_unit_of_the_rows(name, d, size):
    x, y = (size * rows(name, n, d, seed=n) for n in (5, 6))
    x, y = x.astype(np.float32), y.astype(np.float32)
    got = jax.jit(distance.metric_function(name, p=3.0))(jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(np.float64(got) / size, exact(name, x / size, y / size), rtol=1e-5)


@pytest.mark.parametrize("name", ["cosine", "correlation", "canberra", "braycurtis", "jaccard", "hamming"])
@pytest.mark.parametrize("size", [2.0**-100, 2.0**100])
def test_metrics_without_a_unit_do_not_see_one(name, size):
    x, y = rows(name, 5, WIDE), rows(name, 6, WIDE, seed=1)
    function = distance.metric_function(name)
    got = jax.jit(function)(jnp.asarray(x * np.float32(size)), jnp.asarray(y * np.float32(size)))
    np.testing.assert_allclose(got, exact(name, x, y), rtol=1e-5, atol=1e-6)


def far_rows(kind, d=WIDE):
    """Rows with distances that a product cancels: a far row, two far groups, an offset, an odd column."""
    x = rows("euclidean", 20, d).astype(float)
    if kind == "far row":
        x[7] += 1e6
    elif kind == "two groups":
        x[10:] += 1e5
    elif kind == "offset":
        x += 1e4
    elif kind == "odd column":
        x[::2, 3] += 1e5
    return x.astype(np.float32)


@pytest.mark.parametrize("kind", ["far row", "two groups", "offset", "odd column"])
def test_small_distances_beside_large_ones(kind):
    x = far_rows(kind)
    same = np.eye(len(x), dtype=bool)
    for function in (distance.sqeuclidean, distance.euclidean):
        expected = exact(function.__name__, x, x)
        function = jax.jit(function)
        got = function(jnp.asarray(x), jnp.asarray(x))
        np.testing.assert_allclose(got, expected, rtol=1e-4)
        np.testing.assert_allclose(
            function(jnp.asarray(x), jnp.asarray(x), same=jnp.asarray(same)), expected, rtol=1e-4
        )
    batch = jnp.stack([jnp.asarray(x), jnp.asarray(far_rows("near"))])
    for each, expected in zip(jax.jit(jax.vmap(distance.euclidean))(batch, batch), batch, strict=True):
        np.testing.assert_allclose(each, exact("euclidean", expected, expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["near", "two groups"])
def test_the_gradient_beside_large_distances(kind):
    x = far_rows(kind)
    near = np.zeros((len(x), len(x)))
    near[:10, :10] = near[10:, 10:] = 1
    weight = jnp.asarray(near * np.random.default_rng(1).uniform(size=near.shape), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: jnp.vdot(weight, distance.sqeuclidean(x, x))))(jnp.asarray(x))
    apart = x[:, None].astype(float) - x[None]
    expected = 2 * np.einsum("ij,ijd->id", np.float64(weight + weight.T), apart)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3)
    _, tangent = jax.jit(lambda x, along: jax.jvp(lambda x: distance.sqeuclidean(x, x), (x,), (along,)))(x, x[::-1])
    expected = 2 * np.einsum("ijd,ijd->ij", apart, apart[::-1, ::-1])
    np.testing.assert_allclose(tangent, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max() * (kind == "near"))


def test_small_angles():
    angle = np.float64([0, 1e-5, 3e-4, 1e-2, 1])
    base = np.zeros((5, 12))
    base[:, 0], base[:, 1] = np.cos(angle), np.sin(angle)
    turned = base @ np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
    x = (turned * [[1e-20], [1e20], [1], [1e-3], [7]]).astype(np.float32)
    expected = 2 * np.sin((angle[:, None] - angle) / 2) ** 2
    np.testing.assert_allclose(jax.jit(distance.cosine)(x, x), expected, rtol=2e-3, atol=1e-13)
    shifted = np.float32(x / np.abs(x).max(axis=1, keepdims=True) + 3)
    with np.errstate(divide="ignore"):
        expected = exact("correlation", shifted, shifted)
    np.testing.assert_allclose(jax.jit(distance.correlation)(shifted, shifted), expected, atol=1e-6)


def test_rows_without_direction_or_entry():
    x = np.float32([[0, 0, 0], [2, 2, 2], [1, 0, 3]])
    names = ("correlation", "cosine", "canberra", "braycurtis", "jaccard")
    run = jax.jit(lambda x, y: {name: distance.metric_function(name)(x, y) for name in names})
    found, opposite = run(x, x), run(x, -x)
    np.testing.assert_allclose(found["correlation"][:2], 1, atol=1e-7)
    np.testing.assert_allclose(found["cosine"][0], [1, 1, 1])
    for name in ("canberra", "braycurtis", "jaccard"):
        assert found[name][0, 0] == 0
    assert np.isinf(opposite["braycurtis"][1, 1])


@pytest.mark.parametrize("name", PLAIN)
def test_equal_rows_and_zeros_have_a_finite_gradient(name):
    """With JAX's switches on: there is no NaN on the way either."""
    x = rows(name, 4, WIDE)
    x[1] = 0
    with switched(STRICT):
        value, *gradients = jax.jit(distances_and_gradients(name))(x, x)
    np.testing.assert_allclose(np.diagonal(value)[[0, 2, 3]], 0, atol=1e-6)
    assert all(np.isfinite(each).all() for each in (value, *gradients))


def test_no_metric_leaves_a_tracer_behind():
    """Traced alone: a look for tracers takes the caches of traces away."""
    with switched(STRICT | LEAKS):
        for name in PLAIN:
            x, y = (jax.ShapeDtypeStruct((n, 2 if name == "haversine" else WIDE), jnp.float32) for n in (4, 3))
            shapes = jax.eval_shape(distances_and_gradients(name), x, y)
            assert [each.shape for each in shapes] == [(4, 3), x.shape, y.shape]


@pytest.mark.parametrize("name", PLAIN)
def test_float64_is_kept(name):
    x, y = rows(name, 4, WIDE).astype(float), rows(name, 3, WIDE, seed=1).astype(float)
    jax.config.update("jax_enable_x64", True)
    try:
        got = jax.jit(distance.metric_function(name, p=3.0))(jnp.asarray(x), jnp.asarray(y))
        np.testing.assert_allclose(got, exact(name, x, y), rtol=1e-12, atol=1e-15)
        assert got.dtype == jnp.float64
    finally:
        jax.config.update("jax_enable_x64", False)


def test_an_unknown_metric_raises_with_the_remedy():
    with pytest.raises(ValueError, match=r"'yule' is not known.*'canberra'.*function of two matrices.*precomputed"):
        distance.metric_function("yule")
    with pytest.raises(ValueError, match=r"p=nan must be"):
        distance.metric_function("minkowski", p=float("nan"))
    with pytest.raises(ValueError, match=r"'haversine' takes latitude and longitude in radians, 2 columns"):
        distance.haversine(jnp.ones((2, 3)), jnp.ones((2, 3)))


@pytest.mark.parametrize("name", PLAIN)
def test_the_host_measures_as_scipy(name):
    x = rows(name, 12, 5).astype(float)
    expected = exact(name, x, x)
    np.testing.assert_allclose(host_distance(name, x, p=3.0)(x, x), expected, rtol=1e-12, atol=1e-15)
    measured = as_metric_space(x, name, p=3.0)
    np.testing.assert_allclose(measured.rows(np.arange(12)), expected, rtol=1e-12, atol=1e-15)
    summed = ("sqeuclidean", "euclidean", "manhattan", "chebyshev", "minkowski", "cosine", "correlation")
    assert isinstance(measured, MetricSpace) == (name in summed)


@pytest.mark.parametrize("p", [1, 2, 3, 20, 1000, np.inf])
@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
def test_the_host_measures_by_any_power(p, size):
    x = size * np.array([[0, 0], [1, 2], [150, 100], [151, 103]])
    apart = np.abs(x[:, None] - x) / size
    largest = apart.max(axis=2)
    powers = np.sum((apart / np.where(largest > 0, largest, 1)[..., None]) ** min(p, 1e300), axis=2)
    expected = largest * powers ** (1 / p)
    got = as_metric_space(x, "minkowski", p=p).rows(np.arange(4)) / size
    np.testing.assert_allclose(got, np.where(largest > 0, expected, 0), rtol=1e-12)


def test_a_metric_may_be_a_function_of_two_rows():
    x = rows("euclidean", 6, 3).astype(float)
    expected = exact("euclidean", x, x)
    for metric in (
        lambda a, b: np.sqrt(np.sum((a - b) ** 2)),
        lambda a, b: float(np.linalg.norm(a - b)),
        lambda a, b: np.linalg.norm(a[:, None] - b, axis=-1),
        cdist,
    ):
        np.testing.assert_allclose(as_metric_space(x, metric).rows(np.arange(6)), expected, atol=1e-12)
    with pytest.raises(ValueError, match=r"metric gave shape \(3,\) for matrices of 2 and 3 rows, and .* for two rows"):
        as_metric_space(x, lambda a, b: np.zeros(len(b)))
    with pytest.raises(ValueError, match=r"metric gave -1\.0 for rows 5 and 0: a distance is a number"):
        checked_distances(lambda a, b: np.full((1, 6), -1.0), x[[5]], x, np.array([5]))

"""The nearest rows in tiles are those of a plain loop, under jit, for every metric, and n×n is never there."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from jaxcluster.ops.neighbors.exact_knn import k_nearest

METRICS = ("sqeuclidean", "euclidean", "cosine", "correlation", "manhattan", "chebyshev", "minkowski", "canberra")

NAMES = {"manhattan": ("cityblock", {}), "minkowski": ("minkowski", {"p": 3.0})}


def expected(x, k, metric, *, include_self=True):
    name, options = NAMES.get(metric, (metric, {}))
    distances = cdist(x.astype(float), x.astype(float), name, **options)
    np.fill_diagonal(distances, 0 if include_self else np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(distances, order, axis=1)


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("metric", METRICS)
def test_they_are_those_of_a_plain_loop(metric, include_self):
    x = np.random.default_rng(0).normal(size=(90, 6)).astype(np.float32)
    options = {"metric": metric, "p": 3.0, "include_self": include_self}
    index, distances = jax.jit(lambda x: k_nearest(x, 7, tile=32, **options))(x)
    order, lengths = expected(x, 7, metric, include_self=include_self)
    np.testing.assert_array_equal(index, order)
    np.testing.assert_allclose(distances, lengths, atol=1e-5)
    assert index.dtype == np.int32


def test_ties_go_to_the_lower_row():
    x = jnp.asarray(np.repeat(np.arange(4.0)[:, None], 3, axis=0))
    index, distances = k_nearest(x, 5)
    order, lengths = expected(np.asarray(x), 5, "euclidean")
    np.testing.assert_array_equal(index, order)
    np.testing.assert_array_equal(distances, lengths)
    assert index[1].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("tile", [1, 13, 64, 100, 500])
def test_the_tile_does_not_matter(tile):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(100, 3)), jnp.float32)
    whole, tiled = (jax.jit(partial(k_nearest, k=4, **options))(x) for options in ({}, {"tile": tile}))
    np.testing.assert_array_equal(whole[0], tiled[0])


def test_pairs_of_all_rows_are_never_held():
    n = 20_000
    compiled = jax.jit(lambda x: k_nearest(x, 10)).lower(jax.ShapeDtypeStruct((n, 8), jnp.float32)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < n * n * 4 / 4


def test_vmap_equals_a_loop():
    x = jnp.asarray(np.random.default_rng(2).normal(size=(3, 40, 2)), jnp.float32)
    index, _ = jax.jit(jax.vmap(lambda x: k_nearest(x, 5, tile=16)))(x)
    for one, part in zip(index, x, strict=True):
        np.testing.assert_array_equal(one, k_nearest(part, 5)[0])


@pytest.mark.parametrize(
    ("k", "options", "message"),
    [
        (0, {}, "k=0 must be at least 1"),
        (4, {}, "k=4 nearest rows were asked for, but a row has 3"),
        (3, {"include_self": False}, "k=3 nearest rows were asked for, but a row has 2"),
        (1, {"metric": "euclid"}, "Did you mean 'euclidean'"),
        (1, {"metric": "minkowski", "p": 0.5}, "p=0.5 must be at least 1"),
    ],
)
def test_bad_input(k, options, message):
    with pytest.raises(ValueError, match=message):
        k_nearest(jnp.eye(3), k, **options)

"""Graphs are the matrices they stand for: built, multiplied with, scaled, and taken into components."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components
from sklearn.datasets import make_moons
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import kneighbors_graph

from jaxcluster.core.shard import row_sharding
from jaxcluster.ops import graph
from jaxcluster.ops.affinity import as_affinity, graph_shards, kernel, laplacian, to_shards
from jaxcluster.sharding import row_mesh

COLLECTIVES = r"(all-reduce|all-gather|all-to-all|collective-permute)(?:-start)?\("
"""Collectives in a compiled program."""


@jax.jit
def multiplied(affinity, v):
    return affinity.multiply(v)


def dense(affinity):
    """The whole matrix of an affinity, its diagonal included."""
    return np.asarray(multiplied(affinity, np.eye(affinity.n, dtype=np.float32))) + np.diag(affinity.diagonal)


def sparse_weights(n, density, seed):
    """A symmetric matrix whose first row touches many others, more than a row has slots."""
    rng = np.random.default_rng(seed)
    weights = scipy.sparse.random_array((n, n), density=density, rng=rng).toarray()
    weights[0, : n // 2] = rng.random(n // 2)
    return scipy.sparse.csr_array(weights + weights.T)


AFFINITIES = {
    "graph": lambda: (graph.from_matrix(sparse_weights(70, 0.04, 0)), sparse_weights(70, 0.04, 0).toarray()),
    "matrix": lambda: (as_affinity(sparse_weights(30, 0.4, 1).toarray()), sparse_weights(30, 0.4, 1).toarray()),
    "kernel": lambda: (
        kernel(make_moons(60, random_state=0)[0], 2.0),
        rbf_kernel(make_moons(60, random_state=0)[0], gamma=2.0),
    ),
}


@pytest.fixture(params=AFFINITIES)
def pair(request):
    """An affinity, and the matrix that it stands for."""
    return AFFINITIES[request.param]()


def test_products_and_degrees_are_the_matrixs(pair):
    affinity, matrix = pair
    rng = np.random.default_rng(2)
    v, scale = rng.normal(size=(affinity.n, 3)).astype(np.float32), rng.random(affinity.n).astype(np.float32)
    loose = matrix - np.diag(np.diag(matrix))
    np.testing.assert_allclose(dense(affinity), matrix, atol=1e-5)
    run = jax.jit(lambda affinity, v, scale: (affinity.multiply(v), affinity.degrees(), affinity.scaled(scale)))
    product, degrees, scaled = run(affinity, v, scale)
    np.testing.assert_allclose(product, loose @ v, atol=1e-4)
    np.testing.assert_allclose(degrees, loose.sum(axis=1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dense(scaled), matrix * scale[:, None] * scale, atol=1e-5)


def test_rows_over_devices_are_those_of_one(pair):
    affinity, matrix = pair
    if isinstance(affinity, graph.Graph):
        shards = graph_shards(scipy.sparse.csr_array(matrix), affinity.n, row_mesh())
    else:
        shards = to_shards(affinity, row_mesh())
    block = jax.device_put(jnp.eye(affinity.n), row_sharding(shards.mesh))
    program = jax.jit(lambda shards, v: shards.multiply(v)).lower(shards, block).compile()
    np.testing.assert_allclose(program(shards, block), dense(affinity) - np.diag(affinity.diagonal), atol=1e-6)
    assert re.findall(COLLECTIVES, program.as_text()) == ["all-gather"]  # of the block
    degrees = jax.jit(lambda affinity: affinity.degrees())
    np.testing.assert_allclose(degrees(shards), degrees(affinity), rtol=1e-5, atol=1e-5)
    if isinstance(affinity, graph.Graph):
        np.testing.assert_array_equal(graph.components(shards), graph.components(affinity))


def test_the_laplacian_is_scipys(pair):
    affinity, matrix = pair
    operator = laplacian(affinity)
    expected, roots = scipy.sparse.csgraph.laplacian(matrix, normed=True, return_diag=True)
    np.fill_diagonal(expected, 1)
    np.testing.assert_allclose(operator.product(jnp.eye(affinity.n)), expected, atol=1e-5)
    np.testing.assert_allclose(operator.sqrt_degrees, roots, rtol=1e-5)


def test_rows_that_are_not_there_are_out_of_the_way():
    matrix = sparse_weights(20, 0.2, 3)
    operator = laplacian(graph.from_matrix(matrix, rows=24), jnp.arange(24) < 20)
    product = np.asarray(jax.jit(operator.product)(jnp.eye(24)))
    np.testing.assert_array_equal(product[20:], 3 * np.eye(24)[20:])
    whole = jax.jit(laplacian(graph.from_matrix(matrix)).product)(jnp.eye(20))
    np.testing.assert_allclose(product[:20, :20], whole, atol=1e-6)


def test_a_kernel_is_never_written_out():
    n = 8192
    given = kernel(np.zeros((n, 2), np.float32), 1.0)
    compiled = jax.jit(lambda given, v: given.multiply(v)).lower(given, jnp.zeros((n, 4))).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < n * n * 4 / 4


@pytest.mark.parametrize("traced", [False, True])
def test_neighbors_are_scikit_learns(traced):
    x = np.random.default_rng(4).normal(size=(120, 3)).astype(np.float32)
    build = jax.jit(lambda x: graph.neighbor_graph(x, 7)) if traced else lambda x: graph.neighbor_graph(x, 7)
    ones = kneighbors_graph(x, 7, include_self=True).toarray()
    np.testing.assert_allclose(dense(build(x)), (ones + ones.T) / 2)


def test_neighbors_of_duplicates():
    x = np.zeros((6, 2), np.float32)
    ones = np.zeros((6, 6))
    ones[:, :2] = 1
    for build in (lambda x: graph.neighbor_graph(x, 2), jax.jit(lambda x: graph.neighbor_graph(x, 2))):
        np.testing.assert_allclose(dense(build(x)), (ones + ones.T) / 2)


@settings(max_examples=10)
@given(n=st.sampled_from([1, 60]), density=st.sampled_from([0.0, 0.02, 0.1, 0.6]), seed=st.integers(0, 99))
def test_components_are_scipys(n, density, seed):
    rng = np.random.default_rng(seed)
    matrix = scipy.sparse.random_array((n, n), density=density, rng=rng)
    matrix = scipy.sparse.csr_array(matrix + matrix.T)
    _, expected = connected_components(matrix)
    first = np.array([np.flatnonzero(expected == label)[0] for label in expected])
    for affinity in (graph.from_matrix(matrix), as_affinity(matrix.toarray())):
        np.testing.assert_array_equal(graph.components(affinity), first)


def test_a_long_chain_is_one_component():
    n = 3000
    order = np.random.default_rng(0).permutation(n)
    chain = scipy.sparse.coo_array((np.ones(n - 1), (order[:-1], order[1:])), (n, n))
    assert not np.asarray(graph.components(graph.from_matrix(graph.symmetrized(chain.tocsr())))).any()


def test_rows_far_apart_are_components_of_a_kernel():
    x = np.array([[0.0], [1.0], [1e3], [1e3 + 1]])
    np.testing.assert_array_equal(graph.components(kernel(x, 1.0)), [0, 0, 2, 2])


def with_entry(i, j, value):
    matrix = np.eye(4)
    matrix[i, j] = value
    return matrix


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((3, 4)), r"affinity must be a square matrix.*got \(3, 4\)"),
        (with_entry(1, 2, 5), r"affinity must be symmetric: entry \(1, 2\) is 5.0, entry \(2, 1\) is 0.0"),
        (with_entry(3, 3, -2), r"affinity must not be negative: entry \(3, 3\) is -2.0"),
        (with_entry(0, 1, np.nan), "affinity contains 1 NaN"),
        (with_entry(0, 1, np.inf), "affinity contains 1 infinity"),
        (np.ones(4), "affinity must be 2-D"),
    ],
)
@pytest.mark.parametrize("sparse", [False, True])
def test_bad_matrices_are_refused_and_it_says_where(matrix, message, sparse):
    if sparse and matrix.ndim == 2:
        matrix = scipy.sparse.csr_array(matrix)
    with pytest.raises(ValueError, match=message):
        as_affinity(matrix)


def test_bad_options():
    with pytest.raises(ValueError, match="n_samples=3 should be >= k=4"):
        graph.neighbor_graph(np.eye(3), 4)
    with pytest.raises(ValueError, match="n_samples=3 should be >= n_neighbors=4"):
        jax.jit(lambda x: graph.neighbor_graph(x, 4))(jnp.eye(3))
    with pytest.raises(ValueError, match="square"):
        jax.jit(lambda w: as_affinity(w).degrees())(jnp.ones((2, 3)))

"""The soft cut is the formula in float64, differentiable, and at one-hot assignments the cut of the labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax.test_util import check_grads

from jaxcluster.cluster import spectral
from jaxcluster.losses import soft_ncut
from jaxcluster.ops.affinity import as_affinity, kernel

N, K = 40, 3


@pytest.fixture(scope="module")
def weights():
    """Symmetric weights with a diagonal, four fifths of them 0."""
    rng = np.random.default_rng(0)
    matrix = rng.random((N, N)) * (rng.random((N, N)) < 0.1)
    return matrix + matrix.T + np.diag(rng.random(N))


@pytest.fixture(scope="module")
def assignments():
    return np.random.default_rng(1).dirichlet(np.ones(K), N)


def formula(p, w):
    degrees = w.sum(axis=1)
    return p.shape[1] - sum(p[:, j] @ w @ p[:, j] / (degrees @ p[:, j]) for j in range(p.shape[1]))


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array, as_affinity])
def test_soft_ncut_matches_the_formula(weights, assignments, form):
    p = jnp.asarray(assignments, jnp.float32)
    np.testing.assert_allclose(soft_ncut(p, form(weights)), formula(assignments, weights), rtol=1e-5)


def test_soft_ncut_of_a_kernel_matches_the_formula(assignments):
    x = np.random.default_rng(2).normal(size=(N, 2))
    matrix = np.exp(-0.7 * np.square(x[:, None] - x).sum(axis=-1))
    loss = jax.jit(soft_ncut)(jnp.asarray(assignments, jnp.float32), kernel(x, 0.7))
    np.testing.assert_allclose(loss, formula(assignments, matrix), rtol=1e-5)


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
def test_the_gradient_is_that_of_finite_differences(weights, assignments, form):
    with jax.enable_x64(True):
        affinity, logits = as_affinity(form(weights)), jnp.log(jnp.asarray(assignments))
        cut = jax.jit(lambda logits: soft_ncut(jax.nn.softmax(logits), affinity))
        check_grads(cut, (logits,), order=1, modes=["rev"])


def test_weights_have_a_gradient(weights, assignments):
    with jax.enable_x64(True):
        p = jnp.asarray(assignments)
        check_grads(lambda w: soft_ncut(p, w + w.T), (jnp.asarray(weights + 0.1),), order=1, modes=["rev"])


def test_descent_finds_the_cut(key):
    """Two cliques and one weak edge between them."""
    matrix = np.kron(np.eye(2), np.ones((10, 10)))
    matrix[9, 10] = matrix[10, 9] = 0.1
    affinity = as_affinity(matrix)
    logits = jax.random.normal(key, (20, 2))
    grad = jax.jit(jax.grad(lambda logits: soft_ncut(jax.nn.softmax(logits), affinity)))
    for _ in range(200):
        logits = logits - 5 * grad(logits)
    labels = np.asarray(jnp.argmax(logits, axis=1))
    assert len(set(labels[:10])) == len(set(labels[10:])) == 1
    assert labels[0] != labels[19]
    assert float(soft_ncut(jax.nn.softmax(logits), affinity)) < 0.05


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
def test_the_cut_of_labels(weights, form):
    labels = np.random.default_rng(3).integers(0, K, N)
    apart = labels[:, None] != labels
    cuts = [(weights * apart)[labels == j].sum() for j in range(K)]
    volumes = [weights[labels == j].sum() for j in range(K)]
    counts = np.bincount(labels)
    np.testing.assert_allclose(spectral.ncut(labels, form(weights)), np.sum(np.divide(cuts, volumes)), rtol=1e-12)
    np.testing.assert_allclose(spectral.ratio_cut(labels, form(weights)), np.sum(cuts / counts), rtol=1e-12)
    soft = soft_ncut(jax.nn.one_hot(labels, K), form(weights))
    np.testing.assert_allclose(soft, spectral.ncut(labels, form(weights)), rtol=1e-5)
    assert spectral.ncut(5 - labels, form(weights)) == pytest.approx(spectral.ncut(labels, form(weights)), rel=1e-12)


def test_disconnected_components_have_cut_zero():
    matrix = np.kron(np.eye(3), np.ones((4, 4)))
    labels = np.repeat([0, 1, 2], 4)
    assert spectral.ncut(labels, matrix) == spectral.ratio_cut(labels, matrix) == 0
    assert float(soft_ncut(jax.nn.one_hot(labels, 3), matrix)) == 0


def test_a_cluster_without_weight_adds_nothing():
    matrix = np.zeros((3, 3))
    matrix[0, 1] = matrix[1, 0] = 1.0
    assert spectral.ncut([0, 0, 1], matrix) == 0
    loss, grad = jax.value_and_grad(soft_ncut)(jax.nn.one_hot(jnp.array([0, 0, 1]), 2), as_affinity(matrix))
    assert float(loss) == 0
    assert np.isfinite(grad).all()


def test_bad_input(weights):
    with pytest.raises(ValueError, match=r"assignments must have shape \(40, k\).*got \(39, 2\)"):
        soft_ncut(jnp.ones((39, 2)), weights)
    with pytest.raises(ValueError, match="labels has 3 entries, but the affinity is of 40 rows"):
        spectral.ncut([0, 1, 1], weights)
    with pytest.raises(TypeError, match=r"labels must be \(n,\) integers"):
        spectral.ncut(np.ones(N), weights)
    with pytest.raises(ValueError, match="must be symmetric: entry"):
        spectral.ncut(np.zeros(N, int), np.triu(weights))
    with pytest.raises(TypeError, match="soft_ncut is its differentiable form"):
        jax.jit(lambda labels: spectral.ncut(labels, weights))(np.zeros(N, int))

"""Gaussian densities, moments and factors for tiles of rows, against NumPy and SciPy in float64."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixture_problems import conditional
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from jaxcluster.ops.gaussian import (
    COVARIANCE_TYPES,
    DIFFERENCES,
    EXPANDED,
    HALF_EXPANDED,
    form_of,
    full,
    log_densities,
    missing,
)
from jaxcluster.ops.logsumexp import fold_responsibilities, responsibilities

N, K, D = 60, 3, 4
FORMS = {"expanded": EXPANDED, "half expanded": HALF_EXPANDED, "differences": DIFFERENCES}


def covariances_of(name, k=K, d=D, scale=1.0, seed=0):
    """Well-conditioned covariances in the shape of their type, float32."""
    rng = np.random.default_rng(seed)
    if name in ("diag", "spherical"):
        return (scale * rng.uniform(0.5, 2, COVARIANCE_TYPES[name].shape(k, d))).astype(np.float32)
    root = rng.normal(size=(k, d, d)) / np.sqrt(d)
    matrices = (scale * (root @ np.swapaxes(root, 1, 2) + 0.5 * np.eye(d))).astype(np.float32)
    return matrices[0] if name == "tied" else matrices


def dense_of(name, covariances, k=K, d=D):
    return np.asarray(COVARIANCE_TYPES[name].dense(jnp.asarray(covariances), k, d), np.float64)


def rows_and_means(distance=1.0, deviation=1.0, seed=1, n=N, k=K, d=D):
    rng = np.random.default_rng(seed)
    means = distance * rng.normal(size=(k, d))
    x = means[rng.integers(k, size=n)] + deviation * rng.normal(size=(n, d))
    return x.astype(np.float32), means.astype(np.float32)


def exact_log_densities(x, means, matrices):
    pairs = zip(means.astype(np.float64), matrices, strict=True)
    return np.stack([multivariate_normal(m, c).logpdf(x.astype(np.float64)) for m, c in pairs])


def exact_moments(name, r, about, x):
    """Weight, first and second moments about a reference, as `Moments` lays them out."""
    r, about, x = (np.asarray(each, np.float64) for each in (r, about, x))
    difference = x[None] - about[:, None]
    second = np.einsum("kn,kni,knj->kij", r, difference, difference)
    layout = {
        "full": lambda m: m,
        "tied": lambda m: m.sum(axis=0),
        "diag": lambda m: np.diagonal(m, axis1=1, axis2=2),
        "spherical": lambda m: np.trace(m, axis1=1, axis2=2),
    }
    return r.sum(axis=1), np.einsum("kn,kni->ki", r, difference), layout[name](second)


def random_responsibilities(n=N, k=K, seed=2):
    return np.random.default_rng(seed).dirichlet(np.ones(k), size=n).T.astype(np.float32)


@partial(jax.jit, static_argnums=0)
def densities(name, means, covariances, x, form):
    covariance_type = COVARIANCE_TYPES[name]
    _, factor, _ = covariance_type.factor(covariances, means.shape[1])
    logits, shared = log_densities(covariance_type, means, factor, x, form)
    return logits if shared is None else logits + shared, form_of(covariance_type, means, factor) == EXPANDED


@partial(jax.jit, static_argnums=0)
def moments(name, r, about, x, form):
    return COVARIANCE_TYPES[name].moments(r, about, x, form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", COVARIANCE_TYPES)
def test_log_densities_agree_with_scipy(name, form):
    x, means = rows_and_means()
    covariances = covariances_of(name)
    got, near = densities(name, means, covariances, x.T, jnp.int32(FORMS[form]))
    assert near
    np.testing.assert_allclose(got, exact_log_densities(x, means, dense_of(name, covariances)), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", COVARIANCE_TYPES)
def test_one_column_and_one_component(name):
    x, means = rows_and_means(n=20, k=1, d=1)
    covariances = covariances_of(name, 1, 1)
    got, _ = densities(name, means, covariances, x.T, jnp.int32(DIFFERENCES))
    expected = exact_log_densities(x, means, dense_of(name, covariances, 1, 1))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("d", [40, 47])
def test_many_columns(d):
    x, means = rows_and_means(d=d)
    covariances, r = covariances_of("full", d=d), random_responsibilities()
    got, _ = densities("full", means, covariances, x.T, jnp.int32(DIFFERENCES))
    expected = exact_log_densities(x, means, dense_of("full", covariances, d=d))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)
    found = moments("full", r, means, x.T, jnp.int32(DIFFERENCES))
    for a, b in zip(found, exact_moments("full", r, means, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.second, jnp.swapaxes(found.second, 1, 2), atol=1e-4)


@pytest.mark.parametrize("name", COVARIANCE_TYPES)
def test_differences_keep_tight_far_clusters(name):
    # Ten thousand standard deviations: the squares of products differ by 1e8 of their own rounding errors.
    x, means = rows_and_means(distance=10, deviation=1e-3)
    covariances = covariances_of(name, scale=1e-6)
    got, near = densities(name, means, covariances, x.T, jnp.int32(DIFFERENCES))
    expected = exact_log_densities(x, means, dense_of(name, covariances))
    assert not near
    own = np.argmax(expected, axis=0)
    np.testing.assert_array_equal(np.argmax(got, axis=0), own)
    errors = np.asarray(got)[own, np.arange(N)] - expected[own, np.arange(N)]
    assert np.abs(errors).max() < (1e-4 if name in ("diag", "spherical") else 5e-2)
    assert abs(errors.mean()) < 5e-3
    if name != "full":  # whose only form is both
        lost, _ = densities(name, means, covariances, x.T, jnp.int32(EXPANDED))
        assert np.abs(np.asarray(lost)[own, np.arange(N)] - expected[own, np.arange(N)]).max() > 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", COVARIANCE_TYPES)
def test_moments_agree_with_numpy(name, form):
    x, means = rows_and_means()
    r = random_responsibilities()
    got = moments(name, r, means, x.T, jnp.int32(FORMS[form]))
    for a, b in zip(got, exact_moments(name, r, means, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", COVARIANCE_TYPES)
def test_moments_of_tight_clusters_that_lie_far_apart(name):
    rng = np.random.default_rng(3)
    labels = np.arange(N) % K
    means = 10 * rng.normal(size=(K, D))
    x = (means[labels] + 1e-3 * rng.normal(size=(N, D))).astype(np.float32)
    r = (labels == np.arange(K)[:, None]).astype(np.float32)
    about = (means + 1e-4).astype(np.float32)
    got = moments(name, r, about, x.T, jnp.int32(DIFFERENCES))
    weight, first, second = exact_moments(name, r, about, x)
    np.testing.assert_array_equal(got.weight, weight)
    np.testing.assert_allclose(got.first, first, atol=1e-7 * N)
    if name in ("diag", "spherical"):
        np.testing.assert_allclose(got.second, second, rtol=1e-5)
    else:
        np.testing.assert_allclose(got.second, second, atol=2e-3 * np.abs(second).max())


@pytest.mark.parametrize("name", COVARIANCE_TYPES)
def test_covariances_are_those_of_weighted_rows(name):
    x, means = rows_and_means()
    r = random_responsibilities()
    covariance_type = COVARIANCE_TYPES[name]
    found = moments(name, r, means, x.T, jnp.int32(DIFFERENCES))
    delta = found.first / found.weight[:, None]
    got = covariance_type.covariances(found, delta, found.weight)
    wide = np.stack([np.cov(x.T.astype(np.float64), aweights=each, ddof=0) for each in r.astype(np.float64)])
    expected = {
        "full": lambda: wide,
        "tied": lambda: np.average(wide, axis=0, weights=r.sum(axis=1)),
        "diag": lambda: np.diagonal(wide, axis1=1, axis2=2),
        "spherical": lambda: np.trace(wide, axis1=1, axis2=2) / D,
    }[name]()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert got.shape == covariance_type.shape(K, D)


@pytest.mark.parametrize("name", COVARIANCE_TYPES)
def test_a_factor_is_of_the_inverse(name):
    covariance_type = COVARIANCE_TYPES[name]
    covariances = jnp.asarray(covariances_of(name))
    kept, factor, repaired = jax.jit(covariance_type.factor, static_argnums=1)(covariances, D)
    np.testing.assert_array_equal(kept, covariances)
    assert not np.any(repaired)
    matrices = dense_of(name, covariances)
    precisions = np.linalg.inv(matrices)
    np.testing.assert_allclose(dense_of(name, covariance_type.precisions(factor)), precisions, rtol=1e-4, atol=1e-5)
    log_det = np.broadcast_to(factor.log_det, (K,))
    np.testing.assert_allclose(log_det, np.linalg.slogdet(precisions)[1] / 2, rtol=1e-4, atol=1e-5)
    if name in ("full", "tied"):
        root = np.asarray(factor.root, np.float64)
        np.testing.assert_array_equal(root, np.triu(root))
        np.testing.assert_allclose(
            root @ np.swapaxes(root, -1, -2),
            precisions[: len(root)] if name == "full" else precisions[0],
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.parametrize("name", COVARIANCE_TYPES)
def test_a_covariance_type_agrees_on_shapes_and_counts(name):
    covariance_type = COVARIANCE_TYPES[name]
    variances = covariance_type.isotropic(jnp.float32(2.5), K, D)
    assert variances.shape == covariance_type.shape(K, D)
    np.testing.assert_array_equal(dense_of(name, variances), np.broadcast_to(2.5 * np.eye(D), (K, D, D)))
    np.testing.assert_allclose(np.broadcast_to(covariance_type.mean_variance(variances), (K,)), 2.5)
    free = {"full": K * D * (D + 1) // 2, "tied": D * (D + 1) // 2, "diag": K * D, "spherical": K}
    assert covariance_type.n_parameters(K, D) == free[name]


SINGULAR = {
    "zero": np.zeros((D, D)),
    "rank one": np.ones((D, D)),
    "a constant column": np.diag([1.0, 0, 1, 1]),
    "not positive definite": np.diag([1.0, -0.5, 1, 1]),
    "not positive definite off the diagonal": np.eye(D) + 2 * (np.ones((D, D)) - np.eye(D)),
    "negative": -np.eye(D),
    "rounded away": np.ones((D, D)) + 1e-8 * np.eye(D),
    "large": 1e30 * np.ones((D, D)),
    "subnormal": 1e-40 * np.eye(D),
}


factor_dense = jax.jit(full.factor_dense)
invert_lower = jax.jit(full.invert_lower)


@pytest.mark.parametrize("case", SINGULAR)
def test_singular_matrices_are_repaired_and_flagged(case):
    assert_repaired(SINGULAR[case], np.float32)


@pytest.mark.parametrize("case", [case for case in SINGULAR if case not in ("rounded away", "subnormal")])
def test_singular_matrices_are_repaired_in_float64(case):
    with jax.enable_x64(True):
        assert_repaired(SINGULAR[case], np.float64)
        assert_repaired(SINGULAR[case] * 1e-24, np.float64)


def assert_repaired(matrix, dtype):
    good = np.eye(D, dtype=dtype) * 2
    both = jnp.asarray(np.stack([good, matrix.astype(dtype)]))
    kept, factor, repaired = factor_dense(both)
    np.testing.assert_array_equal(repaired, [False, True])
    np.testing.assert_array_equal(kept[0], good)
    for leaf in (kept, *factor):
        assert np.isfinite(leaf).all()
    assert (np.asarray(jnp.linalg.cholesky(kept)) * np.eye(D) >= 0).all()
    ridge = np.asarray(kept[1], np.float64) - np.asarray(both[1], np.float64)
    np.testing.assert_allclose(ridge, np.diag(np.full(D, ridge[0, 0])), atol=1e-6 * np.abs(kept[1]).max())
    least = max(0, -np.linalg.eigvalsh(matrix)[0])
    assert ridge[0, 0] <= 2 * least + 1e-4 * max(np.abs(matrix).max(), 1e-12)


def test_nonfinite_matrix_leaves_the_others_alone():
    both = jnp.stack([jnp.eye(D), jnp.full((D, D), jnp.nan), jnp.zeros((D, D))])
    kept, factor, repaired = factor_dense(both)
    np.testing.assert_array_equal(repaired, [False, False, True])
    assert np.isnan(factor.log_det[1])
    assert np.isfinite(factor.root[np.array([0, 2])]).all()
    assert np.isnan(kept[1]).all()


@pytest.mark.parametrize("name", ["diag", "spherical"])
@pytest.mark.parametrize("bad", [0.0, -1.0, 1e-40])
def test_variances_that_cannot_be_inverted_are_raised(name, bad):
    covariance_type = COVARIANCE_TYPES[name]
    covariances = jnp.asarray(covariances_of(name)).at[1].set(bad)
    kept, factor, repaired = covariance_type.factor(covariances, D)
    np.testing.assert_array_equal(repaired, [False, True, False])
    assert (np.asarray(kept) > 0).all()
    assert np.isfinite(factor.root).all()
    assert np.isfinite(factor.log_det).all()


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8, 9, 16, 17, 33, 64, 65])
def test_inverse_of_a_triangle(d):
    rng = np.random.default_rng(d)
    lower = np.tril(rng.normal(size=(2, d, d)) / np.sqrt(d), -1) + np.eye(d) * rng.uniform(0.5, 2, (2, d, 1))
    got = invert_lower(jnp.asarray(lower, jnp.float32))
    np.testing.assert_allclose(got, np.linalg.inv(lower), atol=2e-5 * np.abs(np.linalg.inv(lower)).max())
    np.testing.assert_array_equal(got, np.tril(got))


def test_inverse_of_a_triangle_keeps_any_batch():
    lower = jnp.tril(jnp.ones((2, 3, 5, 5)))
    got = invert_lower(lower)
    np.testing.assert_allclose(got, np.linalg.inv(np.asarray(lower)), atol=1e-6)
    np.testing.assert_allclose(invert_lower(lower[0, 0]), got[0, 0], atol=1e-6)


# Missing cells, by the conditional Gaussian of each row written out.


def holes(x, share=0.3, seed=4):
    rng = np.random.default_rng(seed)
    x = x.copy()
    x[rng.uniform(size=x.shape) < share] = np.nan
    x[0] = np.nan
    x[1, 1:] = np.nan
    return x


@pytest.mark.parametrize("name", COVARIANCE_TYPES)
def test_missing_cells_are_integrated_out(name):
    x, means = rows_and_means()
    x = holes(x)
    covariances, r = covariances_of(name), random_responsibilities()
    about = means + np.float32(0.25)
    covariance_type = COVARIANCE_TYPES[name]
    logs = jax.jit(partial(missing.log_densities, covariance_type))(means, covariances, x.T)
    got = jax.jit(partial(missing.moments, covariance_type))(r, means, covariances, about, x.T)

    expected = np.zeros((K, N))
    first, second = np.zeros((K, D)), np.zeros((K, D, D))
    wide = x.astype(np.float64)
    for j, (mean, matrix) in enumerate(zip(means.astype(np.float64), dense_of(name, covariances), strict=True)):
        for i, row in enumerate(wide):
            filled, left, expected[j, i] = conditional(row, mean, matrix)
            off = filled - about[j]
            first[j] += r[j, i] * off
            second[j] += r[j, i] * (np.outer(off, off) + left)
    np.testing.assert_allclose(logs, expected, rtol=1e-4, atol=1e-4)
    assert (np.asarray(logs)[:, 0] == 0).all()
    np.testing.assert_allclose(got.weight, r.sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(got.first, first, rtol=1e-4, atol=1e-3)
    layout = {
        "full": lambda m: m,
        "tied": lambda m: m.sum(axis=0),
        "diag": lambda m: np.diagonal(m, axis1=1, axis2=2),
        "spherical": lambda m: np.trace(m, axis1=1, axis2=2),
    }
    np.testing.assert_allclose(got.second, layout[name](second), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", COVARIANCE_TYPES)
def test_nothing_missing_is_the_plain_density(name):
    x, means = rows_and_means()
    covariances, r = covariances_of(name), random_responsibilities()
    covariance_type = COVARIANCE_TYPES[name]
    logs = jax.jit(partial(missing.log_densities, covariance_type))(means, covariances, x.T)
    np.testing.assert_allclose(logs, exact_log_densities(x, means, dense_of(name, covariances)), rtol=1e-4, atol=1e-4)
    got = jax.jit(partial(missing.moments, covariance_type))(r, means, covariances, means, x.T)
    for a, b in zip(got, exact_moments(name, r, means, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


# Log-sum-exp over clusters.


def test_responsibilities_are_a_softmax_at_any_height():
    logits = np.random.default_rng(5).normal(size=(K, N)) * 50
    logits[:, :10] -= 1e4
    logits[:, 10:20] += 1e4
    logits[0, 20:30] = -np.inf
    logits = logits.astype(np.float32)
    log_sum, r = responsibilities(jnp.asarray(logits))
    wide = logits.astype(np.float64)
    expected = logsumexp(wide, axis=0)
    np.testing.assert_allclose(log_sum, expected, rtol=1e-6)
    np.testing.assert_allclose(r, np.exp(wide - expected), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(np.sum(r, axis=0), 1, rtol=1e-6)


def test_an_impossible_row_is_nobodys():
    logits = jnp.asarray([[-jnp.inf, 0.0], [-jnp.inf, -jnp.inf]])
    log_sum, r = responsibilities(logits)
    np.testing.assert_array_equal(log_sum, [-np.inf, 0])
    np.testing.assert_array_equal(r, [[0, 1], [0, 0]])
    gradient = jax.grad(lambda logits: responsibilities(logits)[0][1])(logits)
    np.testing.assert_array_equal(gradient, [[0, 1], [0, 0]])


@pytest.mark.parametrize("tile", [7, 60])
def test_folded_responsibilities_in_any_tile(tile):
    logits = jnp.asarray(np.random.default_rng(6).normal(size=(K, N)), jnp.float32)

    def total(logits, tile):
        def contribution(log_sum, r, rows):
            return (jnp.sum(log_sum), jnp.sum(r * jnp.arange(rows.shape[1]) ** 0, axis=1)), log_sum

        return fold_responsibilities(responsibilities, contribution, logits, tile=tile)

    (log_likelihood, mass), per_row = jax.jit(total, static_argnums=1)(logits, tile)
    log_sum, r = responsibilities(logits)
    np.testing.assert_allclose(log_likelihood, jnp.sum(log_sum), rtol=1e-5)
    np.testing.assert_allclose(mass, jnp.sum(r, axis=1), rtol=1e-5)
    np.testing.assert_allclose(per_row, log_sum, rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda logits: total(logits, tile)[0][0]))(logits)
    np.testing.assert_allclose(gradient, r, rtol=1e-5, atol=1e-7)

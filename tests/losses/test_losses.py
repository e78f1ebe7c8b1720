"""Contract of all losses: jit and vmap change nothing, the gradient is that of differences, and it is finite on
batches that have nothing to teach: equal rows, one class, no positives, no labels, one row."""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster import losses

N, D = 6, 3
RNG = np.random.default_rng(0)
Z, OTHER, CENTERS = RNG.normal(size=(3, N, D))
ALONG = RNG.normal(size=(3, N, D))
MIXED = np.array([0, 1, 0, 1, 2, -1])
PAIRED = np.array([0, 1, 2, 3, 4, 5, 1, 2, 0, 3, 4, -1])
SHARES = RNG.dirichlet(np.ones(N), (2, N))
STEP = 1e-6


def scores(z, centers):
    return jnp.stack([z, z + 1]) @ centers.T


def mixture(covariance, z, other, centers, labels):
    log_variances = centers / 3
    covariances = {
        "full": jax.vmap(lambda row: jnp.diag(jnp.exp(row)) + jnp.outer(row, row))(log_variances),
        "diag": jnp.exp(log_variances),
    }[covariance]
    weights = jax.nn.softmax(centers[:, 0])
    return losses.mixture_nll(z, weights, other[:1] + centers, covariances, covariance=covariance)


def vade(likelihood, z, other, centers, labels):
    prior = {"log_weights": jax.nn.log_softmax(centers[:, 0]), "means": centers, "log_variances": centers / 2}
    x = jax.nn.sigmoid(z)
    return losses.vade_loss(x, z @ centers.T @ centers, z, other, z=z + other, likelihood=likelihood, **prior).loss


def joint(z, other, centers, labels):
    return losses.deep_clustering_loss(losses.kmeans_loss(z, centers), other @ centers.T, labels).loss


def dec(z, other, centers, labels):
    return losses.dec_loss(losses.student_t_assignments(z, centers), jnp.asarray(SHARES[0, : z.shape[0]], z.dtype))


def mined(mining, reduction, z, other, centers, labels):
    return losses.mined_triplet_loss(z, labels, margin=1.5, mining=mining, reduction=reduction)


def soft_target(z, other, centers, labels):
    return losses.soft_clustering_loss(z, centers, jax.nn.one_hot(labels, N, dtype=z.dtype), temperature=2.0)


def crops(z, other, centers, labels):
    assignments = [jnp.asarray(each[: z.shape[0]], z.dtype) for each in SHARES]
    views = [*scores(z, centers), other @ centers.T]
    return losses.swapped_prediction_from_assignments(assignments, views, temperature=0.7)


def ncut(z, other, centers, labels):
    gaps = z[:, None] - z
    affinity = jnp.exp(-jnp.sum(gaps**2, axis=2)) + jnp.eye(z.shape[0], dtype=z.dtype)
    return losses.soft_ncut(jax.nn.softmax(other @ centers.T), affinity)


def outputs(which, z):
    return jnp.asarray(SHARES[which, : z.shape[0], : z.shape[1]], z.dtype)


def distillation(z, other, centers, labels):
    return losses.dino_loss(z + other @ centers.T @ centers, outputs(0, z), outputs(1, z)[0], teacher_temperature=0.5)


LOSSES = {
    "contrastive": lambda z, other, centers, labels: losses.contrastive_loss(z, other, labels == 0, margin=3.0),
    "triplet": lambda z, other, centers, labels: losses.triplet_loss(z, other, centers[: z.shape[0]], margin=2.0),
    "triplet-all": partial(mined, "all", "nonzero"),
    "triplet-hard": partial(mined, "hard", "mean"),
    "triplet-semi-hard": partial(mined, "semi-hard", "sum"),
    "nt-xent": lambda z, other, centers, labels: losses.nt_xent_loss(z, other),
    "supervised": lambda z, other, centers, labels: losses.supervised_contrastive_loss(z, labels, temperature=0.5),
    "k-means": lambda z, other, centers, labels: losses.kmeans_loss(z, centers),
    "soft k-means": lambda z, other, centers, labels: losses.soft_kmeans_loss(z, centers, variance=0.7),
    "deep k-means": lambda z, other, centers, labels: losses.deep_kmeans_loss(z, centers, alpha=0.7),
    "soft clustering": soft_target,
    "joint": joint,
    "dec": dec,
    "vade": partial(vade, "bernoulli"),
    "vade-gaussian": partial(vade, "gaussian"),
    "mixture-full": partial(mixture, "full"),
    "mixture-diag": partial(mixture, "diag"),
    "swapped": lambda z, other, centers, labels: losses.swapped_prediction_loss(*scores(z, centers), epsilon=0.5),
    "swapped-crops": crops,
    "soft ncut": ncut,
    "barlow twins": lambda z, other, centers, labels: losses.barlow_twins_loss(z, other @ centers.T @ centers),
    "vicreg": lambda z, other, centers, labels: losses.vicreg_loss(z / 2, other @ centers.T @ centers / 9),
    "negative cosine": lambda z, other, centers, labels: losses.negative_cosine_loss(z, outputs(0, z)),
    "dino": distillation,
}

EQUAL = np.broadcast_to(Z[0], Z.shape)
CASES = {
    "general": ((Z, OTHER, CENTERS), MIXED),
    "equal rows": ((EQUAL, EQUAL, CENTERS), MIXED),
    "rows equal to all centers": ((EQUAL, EQUAL, EQUAL), MIXED),
    "zeros": (tuple(np.zeros((3, N, D))), MIXED),
    "far": ((1e4 * Z, OTHER, CENTERS), MIXED),
    "one class": ((Z, OTHER, CENTERS), np.zeros(N, int)),
    "no positives": ((Z, OTHER, CENTERS), np.arange(N)),
    "no labels": ((Z, OTHER, CENTERS), np.full(N, -1)),
}


def value_and_grad_of(loss):
    return jax.value_and_grad(lambda floats, labels: loss(*floats, labels))


@pytest.mark.parametrize("name", LOSSES)
def test_jit_vmap_and_finite_gradients(name):
    loss = LOSSES[name]
    cases = [(tuple(jnp.asarray(each, jnp.float32) for each in floats), y) for floats, y in CASES.values()]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)
    values, grads = jax.jit(jax.vmap(value_and_grad_of(loss)))(*stacked)
    assert values.shape == (len(CASES),)
    assert values.dtype == jnp.float32
    for i, case in enumerate(CASES):
        assert np.isfinite(values[i]), case
        assert all(np.isfinite(grad[i]).all() for grad in grads), case
    for case in ("general", "no labels"):
        floats, labels = cases[list(CASES).index(case)]
        expected = loss(*floats, labels)
        np.testing.assert_allclose(values[list(CASES).index(case)], expected, rtol=2e-5, atol=1e-6, err_msg=case)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "swapped"])
def test_the_gradient_is_that_of_differences(name):
    """All but one whose targets are constants for the gradient alone: test_losses_clusters.py has it."""
    with jax.enable_x64(True):
        points = [np.stack([Z, OTHER, CENTERS]) + side * STEP * ALONG for side in (0, 1, -1)]
        run = jax.jit(jax.vmap(value_and_grad_of(LOSSES[name]), in_axes=(0, None)))
        floats = tuple(jnp.stack([point[i] for point in points]) for i in range(3))
        (_, ahead, behind), grads = jax.device_get(run(floats, jnp.asarray(MIXED)))
    grad = sum(np.vdot(grad[0], along) for grad, along in zip(grads, ALONG, strict=True))
    assert abs(grad) > 1e-3
    np.testing.assert_allclose(grad, (ahead - behind) / (2 * STEP), rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_one(name):
    floats = tuple(jnp.asarray(each, jnp.float32) for each in (Z[:1], OTHER[:1], CENTERS))
    value, grads = jax.jit(value_and_grad_of(LOSSES[name]))(floats, jnp.asarray(MIXED[:1]))
    assert np.isfinite(value)
    assert all(np.isfinite(grad).all() for grad in grads)
    if name.startswith("triplet-") or name in ("nt-xent", "supervised"):
        assert value == 0


OF_ANY_UNIT = {
    "dec": lambda z, other: losses.dec_loss(losses.student_t_assignments(z, other), SHARES[0]),
    "soft k-means": lambda z, other: losses.soft_kmeans_loss(z, other, variance=0.0),
    "n-pairs": lambda z, other: losses.n_pairs_loss(z, other, MIXED),
    "lifted structure": lambda z, other: losses.lifted_structure_loss(jnp.concatenate([z, other]), PAIRED),
}


@cache
def of_any_unit(name):
    return jax.jit(jax.value_and_grad(lambda floats: OF_ANY_UNIT[name](*floats)))


@pytest.mark.parametrize("unit", [1e-22, 3e18, 1e22])
@pytest.mark.parametrize("name", OF_ANY_UNIT)
def test_squares_beyond_float32_are_no_matter(name, unit):
    """A value beyond float32 is infinite, and its gradient is that of float64."""
    floats = [np.asarray(each * unit, np.float32) for each in (Z, OTHER)]
    run = of_any_unit(name)
    value, grads = run([jnp.asarray(each) for each in floats])
    with jax.enable_x64(True):
        right, right_grads = jax.device_get(run([jnp.asarray(each, float) for each in floats]))
    np.testing.assert_allclose(value, right if right < 3e38 else np.inf, rtol=1e-4, atol=1e-37)
    for grad, expected in zip(grads, right_grads, strict=True):
        np.testing.assert_allclose(grad, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_one_far_sample_leaves_the_losses_of_others():
    z = np.vstack([Z, np.full((1, D), 1e30)]).astype(np.float32)
    log_q = losses.student_t_log_assignments(z, CENTERS)
    np.testing.assert_allclose(log_q[:-1], losses.student_t_log_assignments(Z, CENTERS), rtol=1e-4, atol=1e-5)
    terms = losses.soft_kmeans_loss(z, CENTERS, variance=0.5, reduction="none")
    np.testing.assert_allclose(
        terms[:-1], losses.soft_kmeans_loss(Z, CENTERS, variance=0.5, reduction="none"), rtol=1e-4
    )


@pytest.mark.parametrize("number", [1e-60, 1e60])
def test_a_parameter_beyond_float32_is_named(number):
    with pytest.raises(ValueError, match=r"temperature=1e.60 is beyond float32.*Scale the samples"):
        losses.soft_clustering_loss(Z, CENTERS, SHARES[0], temperature=number)


@pytest.mark.parametrize("name", ["contrastive", "k-means", "dec", "nt-xent", "vicreg", "dino"])
def test_half_precision_is_summed_in_single(name):
    floats = [jnp.asarray(each, jnp.bfloat16) for each in (Z, OTHER, CENTERS)]
    value = LOSSES[name](*floats, jnp.asarray(MIXED))
    assert value.dtype == jnp.float32
    wide = LOSSES[name](*(each.astype(jnp.float32) for each in floats), jnp.asarray(MIXED))
    np.testing.assert_allclose(value, wide, rtol=1e-2)


WEIGHTED = {
    "contrastive": lambda z, w: losses.contrastive_loss(z, z[::-1] * 2, np.arange(len(z)) < 2, weights=w),
    "triplet": lambda z, w: losses.triplet_loss(z, z + 1, z * 2, weights=w),
    "k-means": lambda z, w: losses.kmeans_loss(z, jnp.asarray(CENTERS, z.dtype), weights=w),
    "soft k-means": lambda z, w: losses.soft_kmeans_loss(z, jnp.asarray(CENTERS, z.dtype), variance=1.0, weights=w),
    "soft clustering": lambda z, w: losses.soft_clustering_loss(
        z, jnp.asarray(CENTERS, z.dtype), np.full((len(z), N), 1 / N), weights=w
    ),
    "mixture": lambda z, w: losses.mixture_nll(
        z, np.full(N, 1 / N), CENTERS, np.ones((N, D)), covariance="diag", row_weights=w
    ),
    "swapped": lambda z, w: losses.swapped_prediction_loss(*scores(z, jnp.asarray(CENTERS, z.dtype)), weights=w),
    "dec": lambda z, w: losses.dec_loss(z + 5, np.full(z.shape, 1 / D), weights=w),
    "barlow twins": lambda z, w: losses.barlow_twins_loss(z, z[::-1], weights=w),
    "vicreg": lambda z, w: losses.vicreg_loss(z / 2, z[::-1], weights=w),
    "negative cosine": lambda z, w: losses.negative_cosine_loss(z, z[::-1], weights=w),
    "dino": lambda z, w: losses.dino_loss(z, z[::-1], z[0], weights=w),
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_nan_samples_of_weight_zero_are_ignored(name):
    z = jnp.asarray(Z, jnp.float32)
    value_and_grad = jax.jit(jax.value_and_grad(WEIGHTED[name]))
    padded = jnp.concatenate([z[:2], jnp.full((2, D), jnp.nan), z[4:]])
    value, grad = value_and_grad(padded, jnp.asarray([1.0, 1, 0, 0, 1, 1]))
    expected = WEIGHTED[name](jnp.concatenate([z[:2], z[4:]]), None)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.isfinite(grad).all()
    value, grad = value_and_grad(padded, jnp.zeros(N))
    assert value == 0
    assert not grad.any()
    assert WEIGHTED[name](z, np.zeros(N)) == 0

"""The losses of clustering heads are their formulas in float64, row by row."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster import losses
from jaxcluster.losses.heads import check_heads

H, N, K = 2, 5, 3
RNG = np.random.default_rng(0)


def probabilities(*shape):
    return RNG.dirichlet(np.ones(K), size=shape)


def narrow_log(p):
    return jnp.asarray(np.log(p), jnp.float32)


STUDENT, TEACHER, MARGINAL = probabilities(2, H, N), probabilities(2, H, N), probabilities(H)


def test_temi_is_weighted_mutual_information():
    expected = np.zeros(H)
    for i in range(N):
        weight = np.mean([TEACHER[0, h, i] @ TEACHER[1, h, i] for h in range(H)])
        for h in range(H):
            for own, other in ((0, 1), (1, 0)):
                joint = (STUDENT[own, h, i] * TEACHER[other, h, i]) ** 0.6
                expected[h] -= weight * np.log(np.sum(joint / MARGINAL[h])) / (2 * N)
    marginal = jnp.asarray(MARGINAL, jnp.float32)
    arguments = narrow_log(STUDENT), narrow_log(TEACHER), marginal
    np.testing.assert_allclose(losses.temi_loss(*arguments, beta=0.6), expected, rtol=1e-5)
    slopes = jax.grad(lambda *each: losses.temi_loss(*each).sum(), argnums=(0, 1, 2))(*arguments)
    assert [bool(jnp.any(each != 0)) for each in slopes] == [True, False, False]


def test_scan_is_consistency_and_entropy():
    expected = []
    for h in range(H):
        consistency = np.mean([np.log(STUDENT[0, h, i] @ STUDENT[1, h, i]) for i in range(N)])
        mean = STUDENT[0, h].mean(axis=0)
        expected.append(-consistency + 5 * np.sum(mean * np.log(mean)))
    np.testing.assert_allclose(losses.scan_loss(*narrow_log(STUDENT)), expected, rtol=1e-5)


def test_self_labels_weigh_clusters_alike():
    p = np.array([[0.9, 0.1, 0], [0.8, 0.1, 0.1], [0.1, 0.9, 0], [0.4, 0.3, 0.3], [0.75, 0.2, 0.05]])
    q = STUDENT[0, 0]
    of_first = -np.mean(np.log(q[[0, 1, 4], 0]))
    expected = (of_first - np.log(q[2, 1])) / 2
    value, certain = losses.self_label_loss(jnp.log(jnp.asarray(p + 1e-9))[None], narrow_log(q)[None], threshold=0.7)
    np.testing.assert_allclose(value, [expected], rtol=1e-5)
    np.testing.assert_allclose(certain, [0.8])
    value, certain = losses.self_label_loss(narrow_log(q)[None], narrow_log(q)[None], threshold=0.9999)
    assert (float(value[0]), float(certain[0])) == (0.0, 0.0)


def test_contrast_of_clusters_is_its_formula():
    expected = []
    for h in range(H):
        columns = np.concatenate([STUDENT[0, h].T, STUDENT[1, h].T])
        columns /= np.linalg.norm(columns, axis=1, keepdims=True)
        logits = np.exp(columns @ columns.T / 0.7)
        contrast = [np.log((logits[i].sum() - logits[i, i]) / logits[i, (i + K) % (2 * K)]) for i in range(2 * K)]
        means = STUDENT[:, h].mean(axis=1)
        expected.append(np.mean(contrast) + 2 * np.sum(means * np.log(means)))
    value = losses.cluster_contrastive_loss(*narrow_log(STUDENT), temperature=0.7, entropy_weight=2.0)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_turtle_is_error_and_entropy():
    labels, learned = STUDENT[0], TEACHER[0]
    expected = []
    for h in range(H):
        error = -np.mean([labels[h, i] @ np.log(learned[h, i]) for i in range(N)])
        mean = labels[h].mean(axis=0)
        expected.append(error + 10 * np.sum(mean * np.log(mean)))
    value = losses.turtle_loss(jnp.asarray(labels, jnp.float32), narrow_log(learned))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    slope = jax.grad(lambda p: losses.turtle_loss(jnp.asarray(labels, jnp.float32), p).sum())(narrow_log(learned))
    assert not slope.any()


@pytest.mark.parametrize(
    ("shape", "message"),
    [((N, K), r"For one head pass neighbors\[None\]"), ((H, N + 1, K), "samples and neighbors must have one shape")],
)
def test_arrays_of_other_shapes_are_named(shape, message):
    with pytest.raises(ValueError, match=message):
        check_heads(samples=jnp.zeros((H, N, K)), neighbors=jnp.zeros(shape))


def test_a_probability_of_zero_adds_nothing():
    """0 · log 0 = 0, in the value and in the gradient."""
    p = np.array([[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]], np.float32)
    with np.errstate(divide="ignore"):
        log_p = np.log(p)
    np.testing.assert_array_equal(losses.self_label_loss(log_p, log_p), [[0.0], [1.0]])
    value, slope = jax.value_and_grad(lambda p: losses.turtle_loss(p, log_p, entropy_weight=1.0)[0])(jnp.asarray(p))
    np.testing.assert_allclose(value, -np.log(3), rtol=1e-6)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("name", ["scan", "turtle", "contrast", "temi"])
def test_a_cluster_that_all_samples_left_has_gradients(name):
    """exp(−300) is 0 in float32: the derivative of its entropy would be infinite, and so would 1/marginal."""

    def loss(logits):
        log_p = jnp.stack([jax.nn.log_softmax(logits), jax.nn.log_softmax(logits[::-1])])[:, None]
        p = jnp.exp(log_p)
        return {
            "scan": lambda: losses.scan_loss(*log_p),
            "turtle": lambda: losses.turtle_loss(p[0], log_p[1]),
            "contrast": lambda: losses.cluster_contrastive_loss(*log_p),
            "temi": lambda: losses.temi_loss(log_p, log_p[::-1], jnp.mean(p[0], axis=1)),
        }[name]()[0]

    logits = np.array([[5.0, 0.0, -300.0], [1.0, 2.0, -300.0], [0.0, 1.0, -400.0]], np.float32)
    run = jax.jit(jax.value_and_grad(loss))
    value, gradient = run(jnp.asarray(logits))
    assert np.isfinite(gradient).all()
    if name == "contrast":
        return  # a column of zeros has no direction, where float64 still compares exp(−300) with exp(−400)
    with jax.enable_x64(True):
        right, right_gradient = run(jnp.asarray(logits, float))
    np.testing.assert_allclose(value, right, rtol=1e-5)
    np.testing.assert_allclose(gradient, right_gradient, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble, ">f8"])
def test_heads_of_every_dtype(dtype):
    """The sum of 4,000 samples in half precision would be off by 1e-4 of it."""
    p = np.tile(np.log(STUDENT[0]), (1, 800, 1)).astype(dtype)
    other = losses.scan_loss(*[np.asarray(p, np.float32)] * 2)
    np.testing.assert_allclose(losses.scan_loss(p, p), other, rtol=1e-6)


@pytest.mark.parametrize(
    ("samples", "options", "error", "message"),
    [
        (np.ma.masked_less(np.log(STUDENT[0]), -1), {}, ValueError, "samples is a masked array"),
        (STUDENT[0] + 1j, {}, ValueError, "samples is complex"),
        (STUDENT[0].astype(object), {}, TypeError, "samples has dtype object"),
        (np.log(STUDENT[0]), {"entropy_weight": -1}, ValueError, "entropy_weight=-1 must be at least 0"),
        (np.log(STUDENT[0]), {"entropy_weight": np.nan}, ValueError, "entropy_weight=nan"),
    ],
)
def test_what_is_no_number_is_named(samples, options, error, message):
    with pytest.raises(error, match=message):
        losses.scan_loss(samples, np.log(STUDENT[0]), **options)

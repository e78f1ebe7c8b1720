"""Losses of joint embedding are the formulas of their papers in NumPy's float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster import losses

N, D = 7, 4
RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, N, D)) @ RNG.normal(size=(D, D)) / 2
CENTER = RNG.normal(size=D) / 4
WEIGHTS = np.array([1, 2, 0, 0.5, 1, 3, 1.0])
TWO_VIEWS = {
    "barlow twins": losses.barlow_twins_loss,
    "vicreg": losses.vicreg_loss,
    "negative cosine": losses.negative_cosine_loss,
    "dino": losses.dino_loss,
}


def narrow(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def off_diagonal(matrix):
    return [matrix[i, j] for i in range(D) for j in range(D) if i != j]


def barlow_twins(a, b, weights, factor):
    """Features standardized along the batch, and C their products, as in algorithm 1 of the paper."""
    total, correlation = weights.sum(), np.zeros((D, D))
    z = [(each - weights @ each / total) for each in (a, b)]
    z = [each / np.sqrt(weights @ each**2 / total) for each in z]
    for i in range(D):
        for j in range(D):
            correlation[i, j] = np.sum(weights * z[0][:, i] * z[1][:, j]) / total
    return np.sum((1 - np.diag(correlation)) ** 2) + factor * np.sum(np.square(off_diagonal(correlation)))


def vicreg(a, b, weights, factors, target):
    """Equations 1 to 6 of the paper, with the mean over features in the invariance term."""
    value = factors[0] * weights @ np.mean((a - b) ** 2, axis=1) / weights.sum()
    for z in (a, b):
        covariance = np.cov(z.T, aweights=weights)
        value += factors[1] * np.mean(np.maximum(0, target - np.sqrt(np.diag(covariance) + 1e-4)))
        value += factors[2] * np.sum(np.square(off_diagonal(covariance))) / D
    return value


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_decorrelating_losses_are_their_formulas(weights):
    of_rows = np.ones(N) if weights is None else weights
    factors = {"invariance_weight": 2.0, "variance_weight": 3.0, "covariance_weight": 5.0, "target_deviation": 1.5}

    @jax.jit
    def values(a, b):
        barlow = [losses.barlow_twins_loss(a, b, off_diagonal_weight=each, weights=weights) for each in (5e-3, 0.7)]
        return [*barlow, *(losses.vicreg_loss(a, b, weights=weights, **each) for each in ({}, factors))]

    expected = [barlow_twins(A, B, of_rows, factor) for factor in (5e-3, 0.7)]
    expected += [vicreg(A, B, of_rows, (25, 25, 1), 1), vicreg(A, B, of_rows, (2, 3, 5), 1.5)]
    np.testing.assert_allclose(values(*narrow(A, B)), expected, rtol=1e-5)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_predicting_losses_are_their_formulas(weights):
    of_rows = np.ones(N) if weights is None else weights
    cosines = np.array([a @ b / np.sqrt(a @ a * (b @ b)) for a, b in zip(A, B, strict=True)])
    value = losses.negative_cosine_loss(*narrow(A, B), weights=weights)
    np.testing.assert_allclose(value, -(of_rows @ cosines) / of_rows.sum(), rtol=1e-5)
    terms = losses.negative_cosine_loss(*narrow(A, B), weights=weights, reduction="none")
    np.testing.assert_allclose(terms, -of_rows * cosines, rtol=1e-5)
    for center, temperature in ((None, 0.04), (CENTER, 0.07)):
        expected = []
        for student, teacher in zip(A, B, strict=True):
            p = np.exp((teacher - (0 if center is None else center)) / temperature)
            log_q = student / 0.1 - np.log(np.sum(np.exp(student / 0.1)))
            expected.append(-(p / p.sum()) @ log_q)
        value = losses.dino_loss(*narrow(A, B), center, teacher_temperature=temperature, weights=weights)
        np.testing.assert_allclose(value, of_rows @ expected / of_rows.sum(), rtol=1e-4)


def test_a_regression_of_directions_is_byol():
    """BYOL's ‖p/‖p‖ − z/‖z‖‖² is 2 + 2·loss."""
    p, z = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (A, B))
    expected = np.mean(np.sum((p - z) ** 2, axis=1))
    np.testing.assert_allclose(2 + 2 * losses.negative_cosine_loss(A, B), expected, rtol=1e-5)


def test_targets_are_constants():
    def loss(a, b, center):
        return losses.negative_cosine_loss(a, b) + losses.dino_loss(a, b, center)

    of_first, *others = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*narrow(A, B, CENTER))
    assert of_first.any()
    assert not any(each.any() for each in others)


def test_a_center_is_a_moving_average():
    center = losses.dino_center(*narrow(CENTER, B), momentum=0.75)
    np.testing.assert_allclose(center, 0.75 * CENTER + 0.25 * B.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(losses.dino_center(CENTER, B), 0.9 * CENTER + 0.1 * B.mean(axis=0), rtol=1e-5)


def test_correlations_of_any_unit_and_origin():
    """The correlations do not depend on them, nor on features that vary by no more than rounding errors."""
    loss = jax.jit(jax.value_and_grad(losses.barlow_twins_loss, argnums=(0, 1)))
    expected = barlow_twins(A, B, np.ones(N), 5e-3)
    units = np.array([1e-30, 1.0, 1e12, 1e25])
    np.testing.assert_allclose(loss(*narrow(A * units, B * units))[0], expected, rtol=1e-5)
    np.testing.assert_allclose(losses.barlow_twins_loss(A * 1e-100 + 1e-97, B * 1e60), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.barlow_twins_loss(A + 1e8, B + 1e8), expected, rtol=1e-5)
    for constant in (0.1, 1e8, 1e-30, 1e30):
        a, b = np.array(A), np.array(B)
        a[:, 0] = b[:, 0] = constant
        value, grads = loss(*narrow(a, b))
        a[:, 0] = b[:, 0] = 0
        np.testing.assert_allclose(value, loss(*narrow(a, b))[0], rtol=1e-6)
        assert np.isfinite(grads).all()
        assert not np.any([grad[:, 0] for grad in grads])


def test_the_best_values():
    """Equal views without correlations, and a student with the probabilities of its teacher."""
    z = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1.0]])
    names = ("barlow twins", "vicreg", "negative cosine")
    values = jax.jit(lambda z: [TWO_VIEWS[name](z, z) for name in names])(*narrow(z))
    np.testing.assert_allclose(values, [0, 0, -1], atol=1e-6)
    p = np.exp(A) / np.exp(A).sum(axis=1, keepdims=True)
    entropy = np.mean(np.sum(-p * np.log(p), axis=1))
    np.testing.assert_allclose(losses.dino_loss(0.1 * A, 0.04 * A), entropy, rtol=1e-5)


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_wrong_arguments_of_two_views_are_named(name):
    with pytest.raises(ValueError, match=r"must have the shape \(7, 4\) to go with (a|prediction|student), got \(6, 4"):
        TWO_VIEWS[name](A, B[:6])
    with pytest.raises(ValueError, match="weights"):
        TWO_VIEWS[name](A, B, weights=np.ones(3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.barlow_twins_loss(A, B, off_diagonal_weight=-1), "off_diagonal_weight=-1 must be at least 0"),
        (lambda: losses.vicreg_loss(A, B, variance_weight=-1), "variance_weight=-1 must be at least 0"),
        (lambda: losses.vicreg_loss(A, B, target_deviation=0), "target_deviation=0 must be greater than 0"),
        (lambda: losses.dino_loss(A, B, teacher_temperature=0), "teacher_temperature=0 must be greater than 0"),
        (lambda: losses.dino_loss(A, B, np.zeros(3)), r"center must have the shape \(4,\)"),
        (lambda: losses.dino_center(np.zeros(3), B), r"center must have the shape \(4,\)"),
        (lambda: losses.dino_center(CENTER, B, momentum=1), "momentum=1 must be less than 1"),
        (lambda: losses.negative_cosine_loss(A, B, reduction="median"), "reduction='median' is not known"),
    ],
)
def test_parameters_out_of_range_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

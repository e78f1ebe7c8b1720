"""Losses of joint embedding without negatives: Barlow Twins, VICReg, the regression of BYOL and SimSiam, and DINO.

The embeddings of two views of a sample have to agree, and something prevents that all samples have the same one.
Barlow Twins decorrelates the features of the embedding. VICReg keeps their variance, and decorrelates them. BYOL and
SimSiam predict the embedding of one view from that of the other, which is a constant for the gradient. DINO predicts
the probabilities of a teacher network, centered and sharpened.

>>> import numpy as np
>>> a = np.array([[1.0, 2.0], [-1.0, -2.0]])
>>> round(float(negative_cosine_loss(a, 3 * a)), 3)
-1.0
>>> round(float(barlow_twins_loss(a, a)), 3)  # both features are correlated: 2 · 0.005 · 1²
0.01

Sources: J. Zbontar, L. Jing, I. Misra, Y. LeCun and S. Deny, Barlow Twins: self-supervised learning via redundancy
reduction, ICML 2021; A. Bardes, J. Ponce and Y. LeCun, VICReg: variance-invariance-covariance regularization for
self-supervised learning, ICLR 2022; J.-B. Grill et al., Bootstrap your own latent: a new approach to self-supervised
learning, NeurIPS 2020; X. Chen and K. He, Exploring simple Siamese representation learning, CVPR 2021; M. Caron et al.,
Emerging properties in self-supervised vision transformers, ICCV 2021.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxcluster.core import validation
from jaxcluster.losses.validation import (
    as_directions,
    as_features,
    as_logits,
    as_matrix,
    as_paired_samples,
    as_positive,
    as_shaped,
    as_weights,
    check_shape,
    promote,
    reduce,
    zero_unweighted,
)
from jaxcluster.ops.distance import HIGHEST, normalize
from jaxcluster.types import Array, Float

VARIANCE_EPSILON = 1e-4
"""ε of VICReg's standard deviations √(variance + ε), the paper's: the gradient of √ is infinite at 0."""

ROUNDING_ERRORS = 4
"""Deviation from the mean, in units of the rounding error of the largest entry, up to which a feature is constant."""


def barlow_twins_loss(a: Any, b: Any, *, off_diagonal_weight: Any = 5e-3, weights: Any = None) -> Float[Array, ""]:
    """Barlow Twins: Σ_i (1 − C_ii)² + λ·Σ_{i≠j} C_ij², C the correlations of the features of a with those of b.

    C is computed over the batch and lies in [−1, 1], so the loss is at least 0. It does not depend on the origin and
    the scale of a feature. A feature that is constant in the batch has correlation 0 to all others and gradient 0: a
    batch of one sample has loss n_features. Memory is n_features².

    Args:
        a, b: (n_samples, n_features) embeddings of two views of each sample.
        off_diagonal_weight: λ >= 0. The paper's 0.005 is for 8,192 features. Traced.
        weights: (n_samples,) >= 0, or None for 1 each.

    Raises:
        ValueError, TypeError: wrong shapes or weights, a weight λ that is negative.
    """
    a = as_features(a, name="a")
    a, b = promote(a, as_features(check_shape(b, a.shape, name="b", of="a"), name="b"))
    off_diagonal_weight = as_positive("off_diagonal_weight", off_diagonal_weight, a.dtype, zero=True)
    weights = as_weights(weights, a.shape[0])
    fractions = _fractions(weights, a)
    first, second = (_standardized(zero_unweighted(each, weights), fractions) for each in (a, b))
    correlation = jnp.matmul(fractions[None] * first, second.T, precision=HIGHEST)
    diagonal = jnp.eye(a.shape[1], dtype=bool)
    terms = jnp.where(diagonal, jnp.square(1 - correlation), off_diagonal_weight * jnp.square(correlation))
    return jnp.where(jnp.any(fractions > 0), jnp.sum(terms), 0)


def vicreg_loss(
    a: Any,
    b: Any,
    *,
    invariance_weight: Any = 25.0,
    variance_weight: Any = 25.0,
    covariance_weight: Any = 1.0,
    target_deviation: Any = 1.0,
    weights: Any = None,
) -> Float[Array, ""]:
    """VICReg: λ·s(a, b) + μ·[v(a) + v(b)] + ν·[c(a) + c(b)], at least 0.

    With C the covariance matrix of the d features, unbiased (divided by n_samples − 1): s is the mean over samples and
    features of (a − b)², v the mean over features j of max(0, γ − √(C_jj + 10⁻⁴)), and c the sum of C_ij² over i ≠ j,
    divided by d. s is the mean over features, as in the authors' program, for which 25, 25 and 1 are meant; the
    equation of the paper has the sum. The program also halves v, and the paper does not. A batch of one sample has
    variances of 0. Memory is d².

    Args:
        a, b: (n_samples, n_features) embeddings of two views of each sample.
        invariance_weight: λ >= 0. Traced, as the others.
        variance_weight: μ >= 0.
        covariance_weight: ν >= 0.
        target_deviation: γ > 0, the standard deviation from which on a feature has no term v.
        weights: (n_samples,) >= 0, or None for 1 each. Covariances are those of `numpy.cov` with ``aweights``.

    Raises:
        ValueError, TypeError: wrong shapes or weights, a parameter out of range.
    """
    a, b = as_paired_samples(a=a, b=b)
    names = {"invariance_weight": invariance_weight, "variance_weight": variance_weight}
    names["covariance_weight"] = covariance_weight
    factors = [as_positive(name, value, a.dtype, zero=True) for name, value in names.items()]
    target_deviation = as_positive("target_deviation", target_deviation, a.dtype)
    weights = as_weights(weights, a.shape[0])
    a, b = zero_unweighted(a, weights), zero_unweighted(b, weights)
    fractions = _fractions(weights, a)
    invariance = reduce(jnp.mean(jnp.square(a - b), axis=1), weights=weights)
    variance, covariance = jnp.zeros((), a.dtype), jnp.zeros((), a.dtype)
    for each in (a, b):
        matrix = _covariance(each, fractions)
        deviation = jnp.sqrt(jnp.diagonal(matrix) + VARIANCE_EPSILON)
        variance += jnp.mean(jnp.maximum(target_deviation - deviation, 0))
        others = jnp.where(jnp.eye(a.shape[1], dtype=bool), 0, matrix)
        covariance += jnp.sum(jnp.square(others)) / a.shape[1]
    loss = factors[0] * invariance + factors[1] * variance + factors[2] * covariance
    return jnp.where(jnp.any(fractions > 0), loss, 0)


def negative_cosine_loss(
    prediction: Any, target: Any, *, weights: Any = None, reduction: str = "mean"
) -> Float[Array, "*n"]:
    """−cos(p, z) of each prediction p and its target z, in [−1, 1]; the target is a constant for the gradient.

    With p_a the prediction from view a and z_b the embedding of view b, SimSiam minimizes ½·[ℓ(p_a, z_b) + ℓ(p_b, z_a)]
    for this ℓ. BYOL minimizes the squared distance of the directions, ‖p/‖p‖ − z/‖z‖‖² = 2 + 2·ℓ, summed over both
    directions: 4 + 2·[ℓ(p_a, z_b) + ℓ(p_b, z_a)]. A vector of zeros has cosine 0 and gradient 0.

    Args:
        prediction: (n_samples, n_features) outputs of the predictor.
        target: (n_samples, n_features) embeddings of another view; constants.
        weights: (n_samples,) >= 0, or None for 1 each.
        reduction: "mean", "sum", "none" for (n_samples,) terms, or "nonzero".

    Raises:
        ValueError, TypeError: wrong shapes or weights, an unknown reduction.
    """
    prediction, target = as_directions(prediction, name="prediction"), as_directions(target, name="target")
    prediction, target = promote(prediction, check_shape(target, prediction.shape, name="target", of="prediction"))
    weights = as_weights(weights, prediction.shape[0])
    prediction, target = (normalize(zero_unweighted(each, weights)) for each in (prediction, target))
    cosines = jnp.sum(prediction * jax.lax.stop_gradient(target), axis=1)
    return reduce(-cosines, reduction, weights=weights)


def dino_loss(
    student: Any,
    teacher: Any,
    center: Any = None,
    *,
    temperature: Any = 0.1,
    teacher_temperature: Any = 0.04,
    weights: Any = None,
) -> Float[Array, ""]:
    """DINO: mean −Σ_j p_j·log softmax(s/τ)_j (nats), p = softmax((t − c)/τ_t) the teacher's probabilities.

    s and t are the outputs of student and teacher for two views of a sample; p is a constant for the gradient. The loss
    is at least the entropy of p. Centering alone makes all outputs probable, and a low τ_t alone makes one output take
    all samples: together they prevent both. DINO averages the loss over all pairs of a global view for the teacher and
    another view for the student.

    Args:
        student: (n_samples, n_outputs) outputs of the student for one view.
        teacher: (n_samples, n_outputs) outputs of the teacher for another view; constants.
        center: (n_outputs,) c, the moving average of the teacher's outputs, see `jaxcluster.losses.dino_center`; None
            for zeros.
        temperature: τ > 0 of the student. Traced.
        teacher_temperature: τ_t > 0 of the teacher, less than τ. The paper raises it from 0.04 to 0.07 in the first
            epochs. Traced.
        weights: (n_samples,) >= 0, or None for 1 each.

    Raises:
        ValueError, TypeError: wrong shapes or weights, a temperature that is not positive.
    """
    student, teacher = as_logits(student, name="student"), as_logits(teacher, name="teacher")
    student, teacher = promote(student, check_shape(teacher, student.shape, name="teacher", of="student"))
    temperature = as_positive("temperature", temperature, student.dtype)
    teacher_temperature = as_positive("teacher_temperature", teacher_temperature, student.dtype)
    weights = as_weights(weights, student.shape[0])
    student, teacher = (zero_unweighted(each, weights) for each in (student, teacher))
    if center is not None:
        center = as_shaped(center, student.shape[1:], name="center", of="the columns of teacher")
        teacher = teacher - center.astype(teacher.dtype)[None]
    probabilities = jax.lax.stop_gradient(jax.nn.softmax(teacher / teacher_temperature))
    return reduce(-jnp.sum(probabilities * jax.nn.log_softmax(student / temperature), axis=1), weights=weights)


def dino_center(center: Any, teacher: Any, *, momentum: Any = 0.9) -> Float[Array, " k"]:
    """Moving average m·c + (1 − m)·mean of the teacher's outputs, the center of `dino_loss` for the next batch.

    Args:
        center: (n_outputs,) c.
        teacher: (n_samples, n_outputs) outputs of the teacher for a batch; those of several views one after the other.
        momentum: m in [0, 1). Traced.

    Raises:
        ValueError, TypeError: wrong shapes, a momentum out of range.
    """
    teacher = as_matrix(teacher, name="teacher")
    center, teacher = promote(as_shaped(center, teacher.shape[1:], name="center", of="the columns of teacher"), teacher)
    if not validation.is_traced(momentum) and validation.check_positive("momentum", momentum, zero=True) >= 1:
        raise ValueError(f"momentum={momentum} must be less than 1: the center would never move.")
    momentum = as_positive("momentum", momentum, center.dtype, zero=True)
    return momentum * center + (1 - momentum) * jnp.mean(teacher, axis=0)


def _fractions(weights, x):
    """(n_samples,) weights divided by their sum; zeros where all are 0."""
    if weights is None:
        return jnp.full(x.shape[:1], 1 / x.shape[0], x.dtype)
    values = weights.values.astype(x.dtype)
    total = jnp.sum(values)
    return values / jnp.where(total > 0, total, 1)


def _centered(x, fractions):
    """(n_features, n_samples) features less their weighted means; zeros for constant features, and for weight 0."""
    columns, used = x.T, fractions[None] > 0
    centered = columns - jnp.sum(fractions[None] * columns, axis=1, keepdims=True)
    # Twice: the first mean is rounded, and what it leaves of a constant feature would be taken for its deviation.
    centered = centered - jnp.sum(fractions[None] * centered, axis=1, keepdims=True)
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(jnp.where(used, columns, 0)), axis=1, keepdims=True))
    rounding = ROUNDING_ERRORS * jnp.finfo(x.dtype).eps * largest
    varies = jnp.max(jnp.where(used, jnp.abs(jax.lax.stop_gradient(centered)), 0), axis=1, keepdims=True) > rounding
    return jnp.where(used & varies, centered, 0)


def _standardized(x, fractions):
    """(n_features, n_samples) features with mean 0 and variance 1; zeros for constant ones."""
    # Of length 1 first, at whatever scale: squares of others may be infinite in float32, or 0.
    unit = normalize(_centered(x, fractions))
    variance = jnp.sum(fractions[None] * jnp.square(unit), axis=1, keepdims=True)
    varies = variance > 0
    return unit * jnp.where(varies, jax.lax.rsqrt(jnp.where(varies, variance, 1)), 0)


def _covariance(x, fractions):
    """(n_features, n_features) unbiased covariances; zeros for one sample."""
    centered = _centered(x, fractions)
    matrix = jnp.matmul(fractions[None] * centered, centered.T, precision=HIGHEST)
    freedom = 1 - jnp.sum(jnp.square(fractions))
    single = freedom <= jnp.finfo(x.dtype).eps
    return jnp.where(single, 0, matrix / jnp.where(single, 1, freedom))

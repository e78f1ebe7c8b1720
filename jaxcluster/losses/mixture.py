"""Losses of Gaussian mixtures: their negative log-likelihood, and VaDE, an autoencoder with a mixture as its prior.

>>> import numpy as np
>>> nll = mixture_nll(np.zeros((1, 1)), np.ones(1), np.zeros((1, 1)), np.ones((1, 1)), covariance="diag")
>>> round(float(nll), 4)  # ½·log 2π
0.9189

Sources: C. M. Bishop, Pattern Recognition and Machine Learning (2006), 9.2; Z. Jiang, Y. Zheng, H. Tan, B. Tang and H.
Zhou, Variational deep embedding: an unsupervised and generative approach to clustering, IJCAI 2017.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster import gmm
from jaxcluster.cluster.gmm.state import covariance_type_named
from jaxcluster.core import validation
from jaxcluster.losses.validation import (
    as_matrix,
    as_paired_samples,
    as_samples,
    as_shaped,
    as_weights,
    promote,
    reduce,
    zero_unweighted,
)
from jaxcluster.ops.differences import squared_distances
from jaxcluster.types import Array, Float

LIKELIHOODS = ("bernoulli", "gaussian")

NEGATIVE_EIGENVALUE_TOLERANCE = 1e-5
"""Size of a negative eigenvalue, relative to the largest, that is taken for the rounding of a float32 covariance."""


class VadeTerms(NamedTuple):
    """The negative evidence lower bound (nats per sample) and its parts.

    Attributes:
        loss: () reconstruction + divergence.
        reconstruction: () mean over samples of −log p(x|z), less its constant.
        divergence: () mean over samples of KL(q(z, c|x) ‖ p(z, c)).
        responsibilities: (n_samples, n_clusters) γ, of the sampled codes.
    """

    loss: Float[Array, ""]
    reconstruction: Float[Array, ""]
    divergence: Float[Array, ""]
    responsibilities: Float[Array, "n k"]


def mixture_nll(
    x: Any,
    weights: Any,
    means: Any,
    covariances: Any,
    *,
    covariance: str = "full",
    row_weights: Any = None,
    reduction: str = "mean",
) -> Float[Array, "*n"]:
    """−log Σ_j π_j·N(x|μ_j, Σ_j) of each sample (nats), differentiable in x and the mixture.

    Parameterize weights as ``jax.nn.softmax``, variances as ``exp`` and covariances as L·Lᵀ of unconstrained numbers.
    A singular covariance gets the smallest ridge that makes it invertible. For a fitted ``gmm.GMMState`` use
    ``gmm.negative_log_likelihood``.

    Args:
        x: (n_samples, n_features).
        weights: (n_components,) π >= 0, summing to 1.
        means: (n_components, n_features) μ.
        covariances: Σ, (k, d, d) "full", (d, d) "tied", (k, d) variances "diag", or (k,) variances "spherical", for
            k components and d features.
        covariance: the type of the covariances.
        row_weights: (n_samples,) >= 0, or None for 1 each.
        reduction: "mean" (per sample), "sum", or "none" for (n_samples,) terms.

    Raises:
        ValueError, TypeError: wrong shapes or row weights, an unknown type or reduction; concrete negative weights or
            variances, or concrete covariances with a negative eigenvalue.
    """
    covariance_type = covariance_type_named(covariance)
    x, means = as_samples(x=x, means=means)
    k, d = means.shape
    weights = as_shaped(weights, (k,), name="weights", of="means")
    covariances = as_shaped(covariances, covariance_type.shape(k, d), name="covariances", of=f"{covariance} means")
    _check_mixture(weights, covariances, covariance)
    x, means, weights, covariances = promote(x, means, weights, covariances)
    if covariance == "tied":
        covariances = covariances[None]
    row_weights = as_weights(row_weights, x.shape[0])
    # Bound, collapse mask and residual belong to a fit: no density depends on them.
    zero = jnp.zeros((), means.dtype)
    state = gmm.GMMState(weights, means, covariances, zero, jnp.zeros(k, bool), zero)
    return reduce(-gmm.score_samples(state, zero_unweighted(x, row_weights)), reduction, weights=row_weights)


def _check_mixture(weights, covariances, covariance):
    """Raise ValueError for concrete parameters that no mixture has; traced ones cannot be checked."""
    if not validation.is_traced(weights) and (np.asarray(weights) < 0).any():
        raise ValueError(f"weights={np.asarray(weights).tolist()} must not be negative.")
    if validation.is_traced(covariances) or not np.isfinite(covariances).all():
        return
    variances = np.asarray(covariances, np.float64)
    if covariance in ("full", "tied"):
        variances = np.linalg.eigvalsh(variances)
    # The least eigenvalue of a singular L·Lᵀ, 0 exactly, comes out below 0 by rounding.
    if (variances < -NEGATIVE_EIGENVALUE_TOLERANCE * np.abs(variances).max(axis=-1, keepdims=True)).any():
        raise ValueError(
            "covariances must be variances, or symmetric matrices without negative eigenvalues: the least is "
            f"{variances.min():.3g}. Pass exp of free numbers, or L·Lᵀ."
        )


def vade_responsibilities(z: Any, log_weights: Any, means: Any, log_variances: Any) -> Float[Array, "n k"]:
    """γ_ic = π_c·N(z_i|μ_c, σ²_c) / Σ_c' π_c'·N(z_i|μ_c', σ²_c'), (n_samples, n_clusters); rows sum to 1.

    Args:
        z: (n_samples, n_features) codes: samples in the loss, the means of the encoder to label samples.
        log_weights: (n_clusters,) log π; −inf excludes a cluster. ``jax.nn.log_softmax`` makes them of free numbers.
        means: (n_clusters, n_features) μ.
        log_variances: (n_clusters, n_features) log σ², of diagonal covariances.

    Raises:
        ValueError, TypeError: wrong shapes.
    """
    z, means = as_samples(z=z, means=means)
    prior = _check_prior(means, log_weights, log_variances)
    return jnp.exp(_log_responsibilities(*promote(z, *prior)))


def vade_loss(
    x: Any,
    reconstruction: Any,
    mean: Any,
    log_variance: Any,
    *,
    z: Any,
    log_weights: Any,
    means: Any,
    log_variances: Any,
    likelihood: str = "bernoulli",
    weights: Any = None,
) -> VadeTerms:
    """The negative evidence lower bound, to be minimized; a sum over features, a mean over samples.

    Reconstruction of a sample: Σ_j [log(1 + exp l_j) − x_j·l_j] of logits l ("bernoulli", the cross-entropy), or
    ½·Σ_j (x_j − x̂_j)² ("gaussian" of unit variance, less the constant (D/2)·log 2π of D features).

    Divergence of a sample, with γ the `vade_responsibilities` of the sampled code and q(z|x) = N(μ̃, σ̃²):
    ½·Σ_c γ_c·Σ_j [log σ²_cj + σ̃²_j/σ²_cj + (μ̃_j − μ_cj)²/σ²_cj] − Σ_c γ_c·log(π_c/γ_c) − ½·Σ_j (1 + log σ̃²_j).
    It is complete: the (d/2)·log 2π of the prior and of q cancel.

    All array arguments but the weights have gradients, through γ too.

    Args:
        x: (n_samples, D) data; in [0, 1] for "bernoulli".
        reconstruction: (n_samples, D) output of the decoder for z: logits ("bernoulli") or the mean ("gaussian").
        mean: (n_samples, n_features) μ̃ of the encoder.
        log_variance: (n_samples, n_features) log σ̃² of the encoder.
        z: (n_samples, n_features) the sampled codes μ̃ + σ̃·noise that were decoded.
        log_weights: (n_clusters,) log π, a normalized distribution.
        means: (n_clusters, n_features) μ of the clusters.
        log_variances: (n_clusters, n_features) log σ² of the clusters.
        likelihood: of x given z, "bernoulli" or "gaussian".
        weights: (n_samples,) >= 0 of the means; None for 1 each.

    Raises:
        ValueError, TypeError: wrong shapes or weights, an unknown likelihood, concrete data outside of [0, 1] for
            "bernoulli".
    """
    validation.check_choice("likelihood", likelihood, LIKELIHOODS)
    if likelihood == "gaussian":
        x, decoded = as_paired_samples(x=x, reconstruction=reconstruction)
    else:
        x = as_matrix(x)
        x, decoded = promote(x, as_shaped(reconstruction, x.shape, name="reconstruction", of="x"))
    weights = as_weights(weights, x.shape[0])
    # One origin for codes and means of the prior: the divergence depends on their differences alone.
    mean, z, means = as_samples(mean=mean, z=z, means=means)
    if mean.shape[0] != x.shape[0]:
        raise ValueError(f"mean has {mean.shape[0]} rows, but x has {x.shape[0]}. Pass the codes of the same rows.")
    log_variance = as_shaped(log_variance, mean.shape, name="log_variance", of="mean")
    if z.shape != mean.shape:
        raise ValueError(f"z must have the shape {mean.shape} to go with mean, got {z.shape}.")
    arrays = promote(x, decoded, mean, log_variance, z, *_check_prior(means, log_weights, log_variances))
    prior = arrays[5:]
    x, decoded, mean, log_variance, z = (zero_unweighted(each, weights) for each in arrays[:5])
    log_gamma = _log_responsibilities(z, *prior)
    reconstruction_loss = reduce(_reconstruction_terms(likelihood, x, decoded), weights=weights)
    divergence = reduce(_divergence_terms(log_gamma, mean, log_variance, *prior), weights=weights)
    return VadeTerms(reconstruction_loss + divergence, reconstruction_loss, divergence, jnp.exp(log_gamma))


def _check_prior(means, log_weights, log_variances):
    log_variances = as_shaped(log_variances, means.shape, name="log_variances", of="means")
    return as_shaped(log_weights, means.shape[:1], name="log_weights", of="means"), means, log_variances


def _log_responsibilities(z, log_weights, means, log_variances):
    # 1/σ, not 1/σ²: the gradient with respect to log σ² is then −(x − μ)²/2σ² of differences, not of x² − 2xμ + μ².
    squares = squared_distances(z, means, jnp.exp(-log_variances / 2))
    return jax.nn.log_softmax((log_weights - jnp.sum(log_variances, axis=1) / 2)[None, :] - squares / 2, axis=1)


def _reconstruction_terms(likelihood, x, decoded):
    if likelihood == "gaussian":
        return jnp.sum(jnp.square(x - decoded), axis=1) / 2
    if not validation.is_traced(x):
        least, greatest = np.min(np.asarray(x)), np.max(np.asarray(x))
        if not (least >= 0 and greatest <= 1):
            raise ValueError(
                f"x must lie in [0, 1] for likelihood='bernoulli', got {least} to {greatest}. "
                "Scale it, or pass likelihood='gaussian'."
            )
    # −x·log σ(l) − (1 − x)·log(1 − σ(l)) = softplus(l) − x·l, finite for every logit.
    return jnp.sum(jax.nn.softplus(decoded) - x * decoded, axis=1)


def _divergence_terms(log_gamma, mean, log_variance, log_weights, means, log_variances):
    inverse_std = jnp.exp(-log_variances / 2)
    variance_ratio = squared_distances(jnp.exp(log_variance / 2), jnp.zeros_like(means), inverse_std)
    expected = jnp.sum(log_variances, axis=1)[None, :] + variance_ratio + squared_distances(mean, means, inverse_std)
    # log γ − log π of an excluded cluster would be −inf + inf.
    possible = log_weights > -jnp.inf
    log_ratio = jnp.where(possible[None, :], log_gamma - jnp.where(possible, log_weights, 0)[None, :], 0)
    gamma = jnp.exp(log_gamma)
    # Where γ has underflowed to 0 the squared distance may be infinite, and 0 · ∞ is NaN.
    terms = gamma * (jnp.where(gamma > 0, expected, 0) / 2 + jnp.where(gamma > 0, log_ratio, 0))
    return jnp.sum(terms, axis=1) - jnp.sum(1 + log_variance, axis=1) / 2

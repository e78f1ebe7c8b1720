"""Variational deep embedding: an autoencoder with a mixture of Gaussians as its prior, trained by its evidence bound.

Source: Z. Jiang, Y. Zheng, H. Tan, B. Tang and H. Zhou, Variational deep embedding: an unsupervised and generative
approach to clustering, IJCAI 2017.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import check
from jaxcluster.losses.inputs import as_alike, as_matching, as_matrix, as_rows, as_weights, in_one_dtype, present
from jaxcluster.losses.reduce import reduce
from jaxcluster.ops.differences import squared_distances
from jaxcluster.types import Array, Float

LIKELIHOODS = ("bernoulli", "gaussian")


class VadeTerms(NamedTuple):
    """The negative evidence lower bound (nats per row) and its parts.

    Attributes:
        loss: () reconstruction + divergence.
        reconstruction: () mean over rows of −log p(x|z), less its constant.
        divergence: () mean over rows of the divergence of q(z, c|x) from the prior p(z, c).
        responsibilities: (n, k) γ, the cluster of each row as its sample has it.
    """

    loss: Float[Array, ""]
    reconstruction: Float[Array, ""]
    divergence: Float[Array, ""]
    responsibilities: Float[Array, "n k"]


def vade_responsibilities(z, log_weights, means, log_variances) -> Float[Array, "n k"]:
    """γ_ic = π_c·N(z_i|μ_c, σ²_c) / Σ_c' π_c'·N(z_i|μ_c', σ²_c'); rows sum to 1.

    Args:
        z: (n, d) codes: samples in the loss, the means of the encoder to label rows.
        log_weights: (k,) log π, of which −inf shuts a cluster out; ``jax.nn.log_softmax`` makes them of free numbers.
        means: (k, d) μ.
        log_variances: (k, d) log σ², of diagonal covariances.

    Raises:
        ValueError, TypeError: wrong shapes.
    """
    z, means = as_rows(z=z, means=means)
    prior = _prior(means, log_weights, log_variances)
    return jnp.exp(_log_responsibilities(*in_one_dtype(z, *prior)))


def vade_loss(
    x,
    reconstruction,
    mean,
    log_variance,
    *,
    z,
    log_weights,
    means,
    log_variances,
    likelihood: str = "bernoulli",
    weights=None,
) -> VadeTerms:
    """The negative evidence lower bound, to be minimized; sums over columns, the mean over rows.

    Reconstruction of a row: Σ_j [log(1 + exp l_j) − x_j·l_j] from logits l ("bernoulli", the cross-entropy), or
    ½·Σ_j (x_j − x̂_j)² ("gaussian" of unit variance, less the constant (D/2)·log 2π for D columns).

    Divergence of a row, with γ the `vade_responsibilities` of the sample and q(z|x) = N(μ̃, σ̃²):
    ½·Σ_c γ_c·Σ_j [log σ²_cj + σ̃²_j/σ²_cj + (μ̃_j − μ_cj)²/σ²_cj] − Σ_c γ_c·log(π_c/γ_c) − ½·Σ_j (1 + log σ̃²_j).
    Nothing is dropped of it: the (d/2)·log 2π of the prior and of q cancel.

    Gradients go to all array arguments but the weights, through γ too.

    Args:
        x: (n, D) rows; in [0, 1] for "bernoulli".
        reconstruction: (n, D) what the decoder makes of z: logits ("bernoulli") or the mean ("gaussian").
        mean: (n, d) μ̃ of the encoder.
        log_variance: (n, d) log σ̃² of the encoder.
        z: (n, d) the sampled codes, μ̃ + σ̃·noise, from which x was reconstructed.
        log_weights: (k,) log π of the clusters, summing to 1 before the log.
        means: (k, d) μ of the clusters.
        log_variances: (k, d) log σ² of the clusters.
        likelihood: of x given z.
        weights: (n,) >= 0 of the rows in the means; None for 1 each.

    Raises:
        ValueError, TypeError: wrong shapes or weights, an unknown likelihood, concrete rows outside of [0, 1] for
            "bernoulli".
    """
    check.check_choice("likelihood", likelihood, LIKELIHOODS)
    if likelihood == "gaussian":
        x, rebuilt = as_alike(x=x, reconstruction=reconstruction)
    else:
        x = as_matrix(x)
        x, rebuilt = in_one_dtype(x, as_matching(reconstruction, x.shape, name="reconstruction", of="x"))
    weights = as_weights(weights, x.shape[0])
    mean, z, means = as_rows(mean=mean, z=z, means=means)
    if mean.shape[0] != x.shape[0]:
        raise ValueError(f"mean has {mean.shape[0]} rows, but x has {x.shape[0]}. Pass the codes of the same rows.")
    log_variance = as_matching(log_variance, mean.shape, name="log_variance", of="mean")
    if z.shape != mean.shape:
        raise ValueError(f"z must have the shape {mean.shape} to go with mean, got {z.shape}.")
    arrays = in_one_dtype(x, rebuilt, mean, log_variance, z, *_prior(means, log_weights, log_variances))
    prior = arrays[5:]
    x, rebuilt, mean, log_variance, z = (present(each, weights) for each in arrays[:5])
    log_shares = _log_responsibilities(z, *prior)
    rebuilding = reduce(_reconstruction(likelihood, x, rebuilt), weights=weights)
    divergence = reduce(_divergence(log_shares, mean, log_variance, *prior), weights=weights)
    return VadeTerms(rebuilding + divergence, rebuilding, divergence, jnp.exp(log_shares))


def _prior(means, log_weights, log_variances):
    log_variances = as_matching(log_variances, means.shape, name="log_variances", of="means")
    return as_matching(log_weights, means.shape[:1], name="log_weights", of="means"), means, log_variances


def _log_responsibilities(z, log_weights, means, log_variances):
    # 1/σ, not 1/σ²: the gradient with respect to log σ² is then −(x − μ)²/2σ² of differences, not of x² − 2xμ + μ².
    squares = squared_distances(z, means, jnp.exp(-log_variances / 2))
    return jax.nn.log_softmax((log_weights - jnp.sum(log_variances, axis=1) / 2)[None, :] - squares / 2, axis=1)


def _reconstruction(likelihood, x, rebuilt):
    if likelihood == "gaussian":
        return jnp.sum(jnp.square(x - rebuilt), axis=1) / 2
    if not check.is_traced(x):
        least, most = np.min(np.asarray(x)), np.max(np.asarray(x))
        if not (least >= 0 and most <= 1):
            raise ValueError(
                f"x must lie in [0, 1] for likelihood='bernoulli', got {least} to {most}. "
                "Scale it, or pass likelihood='gaussian'."
            )
    return jnp.sum(jax.nn.softplus(rebuilt) - x * rebuilt, axis=1)


def _divergence(log_shares, mean, log_variance, log_weights, means, log_variances):
    inverse = jnp.exp(-log_variances / 2)
    spread = squared_distances(jnp.exp(log_variance / 2), jnp.zeros_like(means), inverse)
    expected = jnp.sum(log_variances, axis=1)[None, :] + spread + squared_distances(mean, means, inverse)
    possible = log_weights > -jnp.inf
    surplus = jnp.where(possible[None, :], log_shares - jnp.where(possible, log_weights, 0)[None, :], 0)
    shares = jnp.exp(log_shares)
    # A distance to a cluster without a share may be infinite.
    terms = shares * (jnp.where(shares > 0, expected, 0) / 2 + jnp.where(shares > 0, surplus, 0))
    return jnp.sum(terms, axis=1) - jnp.sum(1 + log_variance, axis=1) / 2

"""The negative log-likelihood of a Gaussian mixture, for parameters that a network or an optimizer makes.

Source: C. M. Bishop, Pattern Recognition and Machine Learning (2006), 9.2.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster import gmm
from jaxcluster.cluster.gmm.state import family_named
from jaxcluster.core import check
from jaxcluster.losses.inputs import as_matching, as_rows, as_weights, in_one_dtype, present
from jaxcluster.losses.reduce import reduce
from jaxcluster.types import Array, Float

SINGULAR = 1e-5
"""Of the largest eigenvalue of a covariance, how far below 0 rounding in float32 may put the least one."""


def mixture_nll(
    x, weights, means, covariances, *, covariance: str = "full", row_weights=None, reduction: str = "mean"
) -> Float[Array, "*n"]:
    """−log Σ_j π_j·N(x|μ_j, Σ_j) of each row (nats).

    Differentiable with respect to x and the mixture. Of free numbers ``jax.nn.softmax`` makes weights, ``exp``
    variances and L·Lᵀ covariances. A covariance that is singular is given the least ridge that mends it. For a fitted
    ``gmm.GMMState`` it is ``gmm.negative_log_likelihood``.

    Args:
        x: (n, d) rows.
        weights: (k,) π >= 0, summing to 1.
        means: (k, d) μ.
        covariances: Σ, (k, d, d) "full", (d, d) "tied", (k, d) variances "diag", or (k,) variances "spherical".
        covariance: which of these types.
        row_weights: (n,) >= 0, or None for 1 each.
        reduction: "mean" (per row), "sum", or "none" for (n,) terms.

    Raises:
        ValueError, TypeError: wrong shapes or row weights, an unknown type or reduction; concrete weights or
            covariances that are none: negative, or with a negative eigenvalue.
    """
    family = family_named(covariance)
    x, means = as_rows(x=x, means=means)
    k, d = means.shape
    weights = as_matching(weights, (k,), name="weights", of="means")
    covariances = as_matching(covariances, family.shape(k, d), name="covariances", of=f"{covariance} means")
    _check_mixture(weights, covariances, covariance)
    x, means, weights, covariances = in_one_dtype(x, means, weights, covariances)
    if covariance == "tied":
        covariances = covariances[None]
    row_weights = as_weights(row_weights, x.shape[0])
    none = jnp.zeros((), means.dtype)
    state = gmm.GMMState(weights, means, covariances, none, jnp.zeros(k, bool), none)
    return reduce(-gmm.score_samples(state, present(x, row_weights)), reduction, weights=row_weights)


def _check_mixture(weights, covariances, covariance):
    """Raises on concrete numbers that no mixture has; of traced ones nothing is known."""
    if not check.is_traced(weights) and (np.asarray(weights) < 0).any():
        raise ValueError(f"weights={np.asarray(weights).tolist()} must not be negative.")
    if check.is_traced(covariances) or not np.isfinite(covariances).all():
        return
    variances = np.asarray(covariances, np.float64)
    if covariance in ("full", "tied"):
        variances = np.linalg.eigvalsh(variances)
    # Rounding makes a singular matrix's least eigenvalue a little less than 0.
    if (variances < -SINGULAR * np.abs(variances).max(axis=-1, keepdims=True)).any():
        raise ValueError(
            "covariances must be variances, or symmetric matrices without negative eigenvalues: the least is "
            f"{variances.min():.3g}. Pass exp of free numbers, or L·Lᵀ."
        )

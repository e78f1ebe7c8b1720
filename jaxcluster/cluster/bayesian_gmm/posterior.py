"""The variational posterior of a mixture: its update from statistics, what it expects, and its lower bound.

Every component has a Gaussian–Wishart posterior of its mean and precision, and the shares have a Dirichlet or a
truncated Dirichlet-process (stick-breaking) one. A prior of the means weighs as much as ``mean_precision`` rows at
``mean``, and is added to the moments as such.

Source: C. M. Bishop, Pattern Recognition and Machine Learning (2006), section 10.2; D. M. Blei and M. I. Jordan,
Variational inference for Dirichlet process mixtures, Bayesian Analysis 1 (2006).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, entr, gammaln

from jaxcluster.cluster.gmm.em import EMOptions, own_squares
from jaxcluster.ops.gaussian import DIFFERENCES, Factor, Moments
from jaxcluster.ops.gaussian.covariance_type import LOG_2PI
from jaxcluster.types import Array, Bool, Float, Published

STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
"""Coefficients of 1/z, 1/z³, … in Stirling's series of log Γ."""

SERIES_FROM = 8
"""Where the series is used: its error there is 1e-14."""


class Model(NamedTuple):
    """What changes the program: how rows are gone over, and whether the shares have a Dirichlet-process prior."""

    em: EMOptions
    process: bool


class Prior(NamedTuple):
    """Parameters of the prior; while fitting in the frame of the rows.

    Attributes:
        weight_concentration: () of the Dirichlet distribution or process.
        mean_precision: () how many rows the prior of a mean weighs as much as.
        mean: (d,).
        degrees_of_freedom: () of the Wishart prior.
        covariance: (d, d) full or tied, (d,) diagonal, () spherical (data units²).
        reg: () added to every variance of rows (data units²).
    """

    weight_concentration: Float[Published, "*batch"]
    mean_precision: Float[Published, "*batch"]
    mean: Float[Published, "*batch d"]
    degrees_of_freedom: Float[Published, "*batch"]
    covariance: Published
    reg: Float[Published, "*batch"]


class Posterior(NamedTuple):
    """Parameters of the posterior, in a frame.

    Attributes:
        weight_concentration: (k,) of a Dirichlet distribution; (2, k) both parameters of each stick of a process.
        mean_precision: (k,).
        means: (k, d).
        degrees_of_freedom: (k,), or () tied.
        covariances: inverses of the mean precisions, in the shape of their type.
        factor: of the covariances.
    """

    weight_concentration: Float[Array, "*both k"]
    mean_precision: Float[Array, " k"]
    means: Float[Array, "k d"]
    degrees_of_freedom: Float[Array, "*k"]
    covariances: Array
    factor: Factor | None


def update(
    model: Model, moments: Moments, reference: Float[Array, "k d"], prior: Prior
) -> tuple[Posterior, Bool[Array, " k"], Float[Array, " k"]]:
    """The posterior given moments of the rows about a reference.

    Returns:
        The posterior; which components have a covariance that is singular to the precision at hand; and the squared
        distance between reference and new mean in the new component's own units.
    """
    covariance_type, (k, d) = model.em.covariance_type, reference.shape
    pull = jnp.broadcast_to(prior.mean_precision, (k, 1))
    prior_moments = covariance_type.moments(pull, reference, prior.mean[:, None], jnp.asarray(DIFFERENCES, jnp.int32))
    joint = jax.tree.map(jnp.add, moments, prior_moments)
    delta = joint.first / joint.weight[:, None]
    scatter = covariance_type.covariances(joint, delta, joint.weight)
    rows, weight = moments.weight, joint.weight
    if covariance_type.name == "tied":
        rows, weight = jnp.sum(rows) / k, jnp.sum(weight) / k

    def each(values):
        return values.reshape(values.shape + (1,) * (scatter.ndim - values.ndim))

    degrees = prior.degrees_of_freedom + rows
    ridge = covariance_type.isotropic(prior.reg, k, d).astype(scatter.dtype)
    prior_covariance = prior.covariance.reshape((1,) * (scatter.ndim - prior.covariance.ndim) + prior.covariance.shape)
    total = prior_covariance + each(weight) * scatter + each(rows) * ridge
    covariances, factor, repaired = covariance_type.factor(total / each(degrees), d)
    concentration = _concentration(model.process, moments.weight, prior.weight_concentration)
    posterior = Posterior(concentration, joint.weight, reference + delta, degrees, covariances, factor)
    return posterior, jnp.zeros((k,), bool) | repaired, own_squares(covariance_type, delta, factor)


def log_offsets(posterior: Posterior) -> Float[Array, " k"]:
    """What log N(x | mean, covariance) of each component lacks to E log(weight·density) under the posterior (nats)."""
    d, degrees = posterior.means.shape[1], posterior.degrees_of_freedom
    bias = jnp.sum(digamma(_halves(degrees, d)) - jnp.log(degrees / 2)[..., None], axis=-1)
    return mean_log_weights(posterior.weight_concentration) + (bias - d / posterior.mean_precision) / 2


def mean_log_weights(concentration: Float[Array, "*both k"]) -> Float[Array, " k"]:
    """E log of the shares (nats)."""
    if concentration.ndim == 1:
        return digamma(concentration) - digamma(jnp.sum(concentration))
    taken, left, total = digamma(_with_total(concentration))
    return taken - total + _before(left - total)


def mean_weights(concentration: Float[Array, "*both k"]) -> Float[Array, " k"]:
    """The shares of the components, summing to 1: those of the mean sticks, or the mean of the distribution."""
    if concentration.ndim == 1:
        return concentration / jnp.sum(concentration)
    # Sticks are multiplied as logarithms: the product of many short ones underflows.
    taken, left, total = jnp.log(_with_total(concentration))
    return jax.nn.softmax(taken - total + _before(left - total))


def row_entropy(responsibilities: Float[Array, "k n"]) -> Float[Array, " n"]:
    """−Σ r·log r of each row (nats)."""
    return jnp.sum(entr(responsibilities), axis=0)


def bound_of(posterior: Posterior) -> Float[Array, ""]:
    """The lower bound less the entropy of the rows' responsibilities, without its constants, as scikit-learn has it."""
    k, d = posterior.means.shape
    degrees = posterior.degrees_of_freedom
    wishart = jnp.broadcast_to(degrees * posterior.factor.log_det + _log_gamma_excess(degrees, d), (k,))
    means = d * jnp.sum(jnp.log(posterior.mean_precision)) / 2
    return jnp.sum(wishart) + _log_beta(posterior.weight_concentration) - means


def _concentration(process, weight, prior):
    if not process:
        return prior + weight
    return jnp.stack([1 + weight, prior + _after(weight)])


def _with_total(sticks):
    """Both parameters of each stick, (2, k), and their sum."""
    return jnp.concatenate([sticks, jnp.sum(sticks, axis=0, keepdims=True)])


def _before(values):
    """Sums of the values before each."""
    return jnp.concatenate([jnp.zeros_like(values[:1]), jnp.cumsum(values[:-1])])


def _after(values):
    """Sums of the values after each; nothing is taken away from a total, so what is left of it keeps its digits."""
    return _before(values[::-1])[::-1]


def _log_beta(concentration):
    """log B of a Dirichlet distribution, as the sum of those of its sticks; or of the sticks of a process."""
    if concentration.ndim == 1:
        concentration = jnp.stack([concentration[:-1], _after(concentration)[:-1]])
    return jnp.sum(_log_betas(concentration))


# log Γ of large numbers is dominated by z·log z, most of which cancels in the sums below: in float32 it would take
# their digits along. They are written by what is left, and log Γ by its remainder from Stirling's formula.


def _log_betas(sticks):
    """log Γ(a)·Γ(b)/Γ(a + b) of each column a, b."""
    a, b = sticks
    entropy = a * jnp.log1p(b / a) + b * jnp.log1p(a / b)
    all_three = _with_total(sticks)
    of_a, of_b, of_both = _remainder(all_three) - jnp.log(all_three) / 2
    return of_a + of_b - of_both + LOG_2PI / 2 - entropy


def _log_gamma_excess(degrees, d):
    """Σ_i log Γ((ν − i)/2) − (ν/2)·log(ν/2), over i < d."""
    i, nu, z = _ranks(degrees, d), degrees[..., None], _halves(degrees, d)
    terms = nu / 2 * jnp.log1p(-i / nu) - (i + 1) / 2 * jnp.log(z) - z + LOG_2PI / 2 + _remainder(z)
    return jnp.sum(terms, axis=-1)


def _halves(degrees, d):
    return (degrees[..., None] - _ranks(degrees, d)) / 2


def _ranks(degrees, d):
    """0 … d − 1 along a new last axis of the degrees of freedom."""
    return jnp.arange(d, dtype=degrees.dtype).reshape((1,) * degrees.ndim + (d,))


def _remainder(z):
    """log Γ(z) − [(z − ½)·log z − z + ½·log 2π]."""
    large = jnp.maximum(z, SERIES_FROM)
    series = jnp.zeros_like(z)
    for term in reversed(STIRLING):
        series = series / jnp.square(large) + term
    small = jnp.minimum(z, SERIES_FROM)
    direct = gammaln(small) - ((small - 0.5) * jnp.log(small) - small + LOG_2PI / 2)
    return jnp.where(z < SERIES_FROM, direct, series / large)

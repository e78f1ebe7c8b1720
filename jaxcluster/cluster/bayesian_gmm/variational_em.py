"""Variational EM of a Bayesian mixture in a frame: E-step, M-step and lower bound.

Each component has a Gaussian–Wishart posterior of its mean and precision. The mixture weights have a Dirichlet
posterior, or a truncated Dirichlet-process (stick-breaking) one. The prior of the means counts as ``mean_precision``
samples at ``mean``, and its moments are added to those of the samples.

Source: C. M. Bishop, Pattern Recognition and Machine Learning (2006), section 10.2; D. M. Blei and M. I. Jordan,
Variational inference for Dirichlet process mixtures, Bayesian Analysis 1 (2006).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, entr, gammaln

from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.recentering import recenter_moments
from jaxcluster.cluster.gmm.state import Mixture
from jaxcluster.ops.gaussian import DIFFERENCES, Components, Factor, Moments
from jaxcluster.ops.gaussian.covariance_type import LOG_2PI
from jaxcluster.types import Absent, Array, Bool, Float, Published

STIRLING_COEFFICIENTS = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
"""Coefficients of 1/z, 1/z³, … in Stirling's series of log Γ(z): B_2j/(2j·(2j − 1)) with the Bernoulli numbers B."""

STIRLING_FROM = 8
"""Smallest z for which the series is used; its error there is 1e-14."""

MIN_CHANGE_ULPS = 2
"""Smallest rise of a lower bound, in rounding errors of it, that is certain."""


class VBOptions(NamedTuple):
    """Static options of a step.

    Attributes:
        em: options of the E-step.
        process: True for a Dirichlet-process prior of the weights, False for a Dirichlet distribution.
    """

    em: em.EMOptions
    process: bool


class Prior(NamedTuple):
    """Parameters of the prior, in a frame during the fit.

    Attributes:
        weight_concentration: () of the Dirichlet distribution or process.
        mean_precision: () weight of the prior of a mean, in samples.
        mean: (n_features,).
        degrees_of_freedom: () of the Wishart prior.
        covariance: (d, d) full or tied, (d,) diagonal, () spherical (data units²).
        reg: () added to every variance of the samples (data units²).
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
        active: (k,) mask of the components that are no padding, which come first; None for all. Padding has no
            samples: its posterior is the prior, and counts nowhere.
    """

    weight_concentration: Float[Array, "*both k"]
    mean_precision: Float[Array, " k"]
    means: Float[Array, "k d"]
    degrees_of_freedom: Float[Array, "*k"]
    covariances: Array
    factor: Factor | Absent
    active: Bool[Array, " k"] | None = None


def m_step(
    options: VBOptions,
    moments: Moments,
    reference: Float[Array, "k d"],
    prior: Prior,
    active: Bool[Array, " k"] | None,
) -> tuple[Posterior, Bool[Array, " k"], Float[Array, " k"]]:
    """M-step: the posterior from moments of the samples about a reference.

    Returns:
        The posterior; the mask (k,) of the components with a numerically singular covariance; and the squared
        Mahalanobis distances (k,) between reference and new mean under the new component.
    """
    covariance_type, (k, d) = options.em.covariance_type, reference.shape
    # The prior of a mean acts as mean_precision samples at prior.mean. The mean of all is the posterior mean, and their
    # scatter about it includes Bishop's term β₀·N/(β₀ + N)·(x̄ − m₀)(x̄ − m₀)ᵀ.
    prior_weight = jnp.broadcast_to(prior.mean_precision, (k, 1))
    prior_moments = covariance_type.moments(
        prior_weight, reference, prior.mean[:, None], jnp.asarray(DIFFERENCES, jnp.int32)
    )
    joint = jax.tree.map(jnp.add, moments, prior_moments)
    delta = joint.first / joint.weight[:, None]
    scatter = covariance_type.covariances(joint, delta, joint.weight)
    count, weight = moments.weight, joint.weight
    # All components share a tied precision, and its posterior gets the mean number of samples of a component.
    if covariance_type.name == "tied":
        n_active = k if active is None else jnp.sum(active, dtype=weight.dtype)
        count, weight = jnp.sum(count) / n_active, jnp.sum(weight) / n_active

    def each(values):
        return values.reshape(values.shape + (1,) * (scatter.ndim - values.ndim))

    degrees = prior.degrees_of_freedom + count
    ridge = covariance_type.isotropic(prior.reg, k, d).astype(scatter.dtype)
    prior_covariance = prior.covariance.reshape((1,) * (scatter.ndim - prior.covariance.ndim) + prior.covariance.shape)
    total = prior_covariance + each(weight) * scatter + each(count) * ridge
    covariances, factor, repaired = covariance_type.factor(total / each(degrees), d)
    concentration = _concentration(options.process, moments.weight, prior.weight_concentration)
    posterior = Posterior(concentration, joint.weight, reference + delta, degrees, covariances, factor, active)
    shift = masked(em.mahalanobis_norm_sq(covariance_type, delta, factor), active, 0)
    return posterior, masked(jnp.zeros((k,), bool) | repaired, active, False), shift


def variational_log_weights(posterior: Posterior) -> Float[Array, " k"]:
    """E log(weight·density) under the posterior less log N(x | mean, covariance), for each component (nats)."""
    d, degrees = posterior.means.shape[1], posterior.degrees_of_freedom
    bias = jnp.sum(digamma(_half_degrees(degrees, d)) - jnp.log(degrees / 2)[..., None], axis=-1)
    log_weights = expected_log_weights(posterior.weight_concentration, posterior.active)
    return masked(log_weights + (bias - d / posterior.mean_precision) / 2, posterior.active, -jnp.inf)


def masked(values: Array, active: Bool[Array, " k"] | None, other: float) -> Array:
    """``values`` (…, k) of the components in the mask ``active``, ``other`` for padding."""
    return values if active is None else jnp.where(active, values, other)


def expected_log_weights(
    concentration: Float[Array, "*both k"], active: Bool[Array, " k"] | None = None
) -> Float[Array, " k"]:
    """E log of the mixture weights under the posterior (nats)."""
    if concentration.ndim == 1:
        return digamma(concentration) - digamma(jnp.sum(masked(concentration, active, 0)))
    stick, rest, total = digamma(_with_total(concentration))
    return stick - total + _sums_before(rest - total)


def expected_weights(
    concentration: Float[Array, "*both k"], active: Bool[Array, " k"] | None = None
) -> Float[Array, " k"]:
    """Mean of the mixture weights under the posterior, summing to 1; for a process, the weights of the mean sticks."""
    if concentration.ndim == 1:
        concentration = masked(concentration, active, 0)
        return concentration / jnp.sum(concentration)
    # Sums of logarithms: a product of many short sticks would underflow.
    stick, rest, total = jnp.log(_with_total(concentration))
    return jax.nn.softmax(masked(stick - total + _sums_before(rest - total), active, -jnp.inf))


def row_entropy(responsibilities: Float[Array, "k n"]) -> Float[Array, " n"]:
    """Entropy −Σ r·log r of the responsibilities of each sample (nats)."""
    return jnp.sum(entr(responsibilities), axis=0)


def bound_without_entropy(posterior: Posterior) -> Float[Array, ""]:
    """Lower bound without the entropy of the responsibilities and without constants, as in scikit-learn (nats)."""
    k, d = posterior.means.shape
    degrees, active = posterior.degrees_of_freedom, posterior.active
    wishart = jnp.broadcast_to(degrees * posterior.factor.log_det + _log_gamma_excess(degrees, d), (k,))
    means = d * jnp.sum(masked(jnp.log(posterior.mean_precision), active, 0)) / 2
    return jnp.sum(masked(wishart, active, 0)) + _log_beta(posterior.weight_concentration, active) - means


def _concentration(process, weight, prior):
    if not process:
        return prior + weight
    return jnp.stack([1 + weight, prior + _sums_after(weight)])


def _with_total(sticks):
    """Both parameters of each stick, (2, k), and their sum."""
    return jnp.concatenate([sticks, jnp.sum(sticks, axis=0, keepdims=True)])


def _sums_before(values):
    """Sum of the values before each."""
    return jnp.concatenate([jnp.zeros_like(values[:1]), jnp.cumsum(values[:-1])])


def _sums_after(values):
    """Sum of the values after each; not as a difference from the total, which would cancel."""
    return _sums_before(values[::-1])[::-1]


def _log_beta(concentration, active):
    """Log beta function of a Dirichlet distribution, as a sum over its sticks; or that of the sticks of a process."""
    if concentration.ndim == 1:
        concentration = masked(concentration, active, 0)
        concentration = jnp.stack([concentration[:-1], _sums_after(concentration)[:-1]])
        # The last component of a distribution has no stick; those of padding are of length 1.
        active = None if active is None else active[1:]
    return jnp.sum(masked(_log_betas(masked(concentration, active, 1)), active, 0))


# log Γ of a large z is dominated by z·log z, most of which cancels in the sums below; in float32 the digits of the
# result would be lost. The sums are expanded so that these terms cancel exactly: log Γ is Stirling's formula plus its
# remainder.


def _log_betas(sticks):
    """Log beta function log Γ(a)·Γ(b)/Γ(a + b) of each column (a, b)."""
    a, b = sticks
    entropy = a * jnp.log1p(b / a) + b * jnp.log1p(a / b)
    all_three = _with_total(sticks)
    of_a, of_b, of_both = _stirling_remainder(all_three) - jnp.log(all_three) / 2
    return of_a + of_b - of_both + LOG_2PI / 2 - entropy


def _log_gamma_excess(degrees, d):
    """Σ_i log Γ((ν − i)/2) − (ν/2)·log(ν/2), over i < d."""
    i, nu, z = _indices(degrees, d), degrees[..., None], _half_degrees(degrees, d)
    terms = nu / 2 * jnp.log1p(-i / nu) - (i + 1) / 2 * jnp.log(z) - z + LOG_2PI / 2 + _stirling_remainder(z)
    return jnp.sum(terms, axis=-1)


def _half_degrees(degrees, d):
    return (degrees[..., None] - _indices(degrees, d)) / 2


def _indices(degrees, d):
    """Indices 0 … d − 1 along a new last axis of the degrees of freedom."""
    return jnp.arange(d, dtype=degrees.dtype).reshape((1,) * degrees.ndim + (d,))


def _stirling_remainder(z):
    """Remainder of Stirling's formula, log Γ(z) − [(z − ½)·log z − z + ½·log 2π]."""
    large = jnp.maximum(z, STIRLING_FROM)
    series = jnp.zeros_like(z)
    for term in reversed(STIRLING_COEFFICIENTS):
        series = series / jnp.square(large) + term
    small = jnp.minimum(z, STIRLING_FROM)
    direct = gammaln(small) - ((small - 0.5) * jnp.log(small) - small + LOG_2PI / 2)
    return jnp.where(z < STIRLING_FROM, direct, series / large)


class VBStats(NamedTuple):
    """Statistics of the E-step: moments about a reference, and the entropy −Σ w·r·log r of responsibilities (nats)."""

    moments: Moments
    entropy: Float[Array, ""]


class VBUpdate(NamedTuple):
    """Result of an M-step.

    Attributes:
        posterior: the new one.
        collapsed: (k,) mask of the components with a numerically singular covariance.
        entropy: () of the responsibilities that led to it (nats).
    """

    posterior: Posterior
    collapsed: Bool[Array, " k"]
    entropy: Float[Array, ""]


class VBState(NamedTuple):
    """State of variational EM.

    Attributes:
        posterior: result of the last accepted step.
        lower_bound: () of the evidence (nats).
        collapsed: (k,) mask of the components whose covariance got a ridge, as it was singular.
        residual: () change of the lower bound (nats); 0 once no step raises it.
        bound_decrease: () decrease of the bound (nats) by a rejected step; 0 for an accepted one.
    """

    posterior: Posterior
    lower_bound: Float[Array, "*batch"]
    collapsed: Bool[Array, "*batch k"]
    residual: Float[Array, "*batch"]
    bound_decrease: Float[Array, "*batch"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """Negative lower bound (nats)."""
        return -self.lower_bound


def components_of(posterior: Posterior) -> Components:
    """Components of a posterior, as an E-step needs them, with `variational_log_weights`."""
    return Components(variational_log_weights(posterior), posterior.means, posterior.covariances, posterior.factor)


def e_step(
    options: VBOptions, posterior: Posterior, reference: Float[Array, "k d"], samples: em.TransposedPoints
) -> VBStats:
    """E-step of a posterior: moments about a reference, and the entropy of the responsibilities.

    Args:
        options: static options.
        posterior: in the frame.
        reference: near the new means.
        samples: in the frame, with weights as counts.
    """

    def summary(moments, log_sum, r, weight):
        # A sample with log-density -inf has no responsibilities. The NaN keeps the status from being CONVERGED.
        entropy = jnp.where(jnp.isfinite(log_sum), row_entropy(r), jnp.nan)
        return VBStats(moments, weight @ jnp.where(weight > 0, entropy, 0))

    return em.fold_e_step(options.em, components_of(posterior), mean_mixture(posterior), reference, samples, summary)


def recentered_m_step(
    options: VBOptions,
    moments_about: Callable[[Float[Array, "k d"]], tuple[Moments, Float[Array, ""]]],
    reference: Float[Array, "k d"],
    prior: Prior,
    active: Bool[Array, " k"] | None = None,
) -> tuple[VBUpdate, Float[Array, ""]]:
    """M-step whose moments are computed again about the new means if the reference was too far from them.

    Args:
        options: static options.
        moments_about: reference -> (moments of the samples about it, entropy of the responsibilities).
        reference: near the new means.
        prior: in the frame.
        active: as in `Posterior`.

    Returns:
        The `VBUpdate`, and the rise of the lower bound by the shift of the means (nats).
    """

    def update(reference):
        moments, entropy = moments_about(reference)
        posterior, collapsed, shift = m_step(options, moments, reference, prior, active)
        return VBUpdate(posterior, collapsed, entropy), posterior.means, shift

    vb_update, shift = recenter_moments(update, reference)
    return vb_update, vb_update.posterior.mean_precision @ shift / 2  # a shift of 0 for padding


def step(options: VBOptions, samples: em.TransposedPoints, prior: Prior, state: VBState) -> VBState:
    """One step of variational EM. A posterior that lowered the bound, or is not finite, is rejected.

    Args:
        options: static options.
        samples: in the frame, with weights as counts.
        prior: in the frame.
        state: before the step.
    """
    # The bound of many samples is so large that small changes of it are lost to rounding. Then the part of the change
    # that the means contribute decides about stopping: ½·Σ_j κ_j·‖shift_j‖², with the Mahalanobis norm and the mean
    # precision κ_j of component j, is no difference of large numbers.
    (posterior, collapsed, entropy), gain = recentered_m_step(
        options,
        lambda reference: e_step(options, state.posterior, reference, samples),
        state.posterior.means,
        prior,
        state.posterior.active,
    )
    bound = entropy + bound_without_entropy(posterior)
    not_finite = ~jnp.isfinite(bound)
    ulp = jnp.finfo(bound.dtype).eps * jnp.maximum(jnp.abs(bound), 1)
    change = bound - state.lower_bound
    cost = em.ridge_bound_cost(options.em.covariance_type, mean_mixture(state.posterior), state.collapsed, prior.reg)
    total = jnp.sum(masked(state.posterior.mean_precision, state.posterior.active, 0))
    rejected = not_finite | (change < -em.bound_slack(bound) - cost * total)
    bound_decrease = jnp.where(rejected & ~not_finite, -change, 0)
    certain = (change > MIN_CHANGE_ULPS * ulp) | (change < -em.LOWER_BOUND_SLACK_ULPS * ulp)
    change = jnp.where(certain, jnp.abs(change), gain)
    residual = jnp.where(not_finite, jnp.nan, jnp.where(rejected, 0, change))
    accepted = VBState(posterior, bound, collapsed, residual, bound_decrease)
    kept = state._replace(residual=residual, bound_decrease=bound_decrease)
    return jax.tree.map(lambda old, new: jnp.where(rejected, old, new), kept, accepted)


def init_state(posterior: Posterior, collapsed: Bool[Array, " k"]) -> VBState:
    """State before the first step."""
    infinite = jnp.asarray(jnp.inf, posterior.means.dtype)
    return VBState(posterior, -infinite, collapsed, infinite, jnp.zeros_like(infinite))


def mean_mixture(posterior: Posterior) -> Mixture:
    """Mixture of the posterior means."""
    weights = expected_weights(posterior.weight_concentration, posterior.active)
    return Mixture(weights, posterior.means, posterior.covariances, posterior.factor)

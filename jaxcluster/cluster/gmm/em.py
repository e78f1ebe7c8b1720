"""Expectation–maximization (EM) of a Gaussian mixture in a frame: E-step by tiles of samples, M-step, ascent check.

The E-step needs no n×k table: responsibilities exist for one tile at a time and are folded into moments.

Source: A. P. Dempster, N. M. Laird and D. B. Rubin, Maximum likelihood from incomplete data via the EM algorithm,
J. R. Stat. Soc. B 39 (1977).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.gmm.recentering import recenter_moments
from jaxcluster.cluster.gmm.state import Mixture
from jaxcluster.core import memory
from jaxcluster.core.dtypes import float_dtype
from jaxcluster.core.fold import all_reduce, fold_rows, tile_rows
from jaxcluster.core.padding import padded_clusters
from jaxcluster.core.sparse_rows import SparseRows
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.gaussian import (
    COVARIANCE_TYPES,
    DIFFERENCES,
    Components,
    CovarianceType,
    Moments,
    form_of,
    log_densities,
    missing,
)
from jaxcluster.ops.gaussian.sparse import Columns, as_columns, sparse_tile
from jaxcluster.ops.logsumexp import fold_responsibilities, responsibilities
from jaxcluster.types import Absent, Array, Bool, Float, Int, Points, Status

CPU_TILE, DEVICE_TILE, SPARSE_TILE = 1 << 20, 1 << 26, 1 << 24
"""Numbers held of a tile: as many as fit a CPU's cache, as many as fill an accelerator, and of sparse rows, of which
fewer tiles add (k, d) sums less often."""

MATRIX_COPIES = 24
"""Copies of all covariance matrices at the peak of a fit (measured): factors, moments, and the states of a step."""

DEGENERATE_VARIANCE_RATIO = 1e-4
"""Fraction of the variance of the data. A component of less variance than it and ``reg_covar``, is collapsed."""

LOWER_BOUND_SLACK = 1e-7
"""Relative decrease of a lower bound that counts as rounding, whatever the dtype."""

LOWER_BOUND_SLACK_ULPS, PRECISION_FALL_ULPS = 16, 1000
"""Decreases of a lower bound in a step, in rounding errors of the bound: up to the first they count as rounding; beyond
the second the status is PRECISION. `EXPANDED_MAX_ERROR`, 1e-4 nats, is 840 rounding errors of float32."""

WEIGHT_FLOOR = 10 * float(np.finfo(np.float64).eps)
"""Added to the weight of each component, as by scikit-learn: 10·eps of float64, where a sample weighs about 1."""


class EMOptions(NamedTuple):
    """Static options of an EM step.

    Attributes:
        covariance: name of the covariance type.
        precision: of matrix products.
        missing: integrate NaN values out.
        differentiable: use no loop that reverse mode cannot follow.
        axis_name: mapped axis over which samples are spread.
    """

    covariance: str
    precision: jax.lax.Precision = HIGHEST
    missing: bool = False
    differentiable: bool = False
    axis_name: str | None = None

    @property
    def covariance_type(self) -> CovarianceType:
        """Functions of the covariance type."""
        return COVARIANCE_TYPES[self.covariance]


class RowPosterior(NamedTuple):
    """Posterior of samples under a mixture.

    Attributes:
        log_p: (n,) log-density (nats).
        responsibilities: (k, n).
        labels: (n,) component of the largest responsibility; ties go to the lower index.
    """

    log_p: Float[Array, " n"]
    responsibilities: Float[Array, "k n"]
    labels: Int[Array, " n"]


class TiledResponsibilities(NamedTuple):
    """Responsibilities that are computed for a tile at a time: fixed, random or one-hot.

    Attributes:
        rows: pytree of arrays whose last axis has length n: the responsibilities, or labels, or sample indices.
        responsibilities: function from a tile of ``rows`` to (k, t).
    """

    rows: Any
    responsibilities: Callable[[Any], Float[Array, "k t"]]


class TransposedPoints(NamedTuple):
    """Samples as columns, x (n_features, n_samples), so that sums over samples run along contiguous vectors.

    Sparse rows stay rows.
    """

    x: Columns
    weight: Float[Array, " n"]


class EMStats(NamedTuple):
    """Statistics of the E-step: moments about a reference, and the log-likelihood Σ w·log p (nats)."""

    moments: Moments
    log_likelihood: Float[Array, ""]


class EMState(NamedTuple):
    """State of EM. The lower bound lags by one step: the E-step of the next step computes that of ``mixture``.

    Attributes:
        mixture: result of the last M-step.
        previous: the mixture whose lower bound is ``lower_bound``.
        lower_bound: () mean log-likelihood of a sample (nats).
        previous_bound: () bound from which the next change is measured: ``lower_bound``, or before the first step the
            bound of the fit that is continued.
        collapsed: (k,) mask of the components of ``mixture`` that were kept from collapsing.
        residual: () change of the lower bound (nats); 0 once no step raises it.
        bound_decrease: () decrease of the bound (nats) by a rejected step; 0 for an accepted one.
    """

    mixture: Mixture
    previous: Mixture
    lower_bound: Float[Array, "*batch"]
    previous_bound: Float[Array, "*batch"]
    collapsed: Bool[Array, "*batch k"]
    residual: Float[Array, "*batch"]
    bound_decrease: Float[Array, "*batch"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """Mean negative log-likelihood of a sample (nats)."""
        return -self.lower_bound


class MStepParams(NamedTuple):
    """Parameters of the M-step besides the statistics.

    Attributes:
        total: () weight of all samples.
        reg: () added to every variance (frame units²).
        active: (k,) mask of the components that take part; None for all.
        variance: () weighted variance of the data, mean over the features (frame units²); infinite if unknown.
        unweighted_variance: () the same with equal weights. One sample that outweighs all others takes the weighted
            variance to 0, and no component would count as collapsed beside that.
    """

    total: Float[Array, ""]
    reg: Float[Array, ""]
    active: Bool[Array, " k"] | None = None
    variance: float | Float[Array, ""] = math.inf
    unweighted_variance: float | Float[Array, ""] = math.inf


def transpose_points(points: Points) -> TransposedPoints:
    """Samples as columns."""
    return TransposedPoints(as_columns(points.x), points.weight)


def check_memory(options: EMOptions, k: int, d: int, dtype: Any) -> None:
    """Raises MemoryError if the covariance matrices of a fit exceed the memory of the device."""
    matrices = {"full": k, "tied": 1}.get(options.covariance, 0)
    memory.check(
        MATRIX_COPIES * matrices * d * d * float_dtype(np.dtype(dtype)).itemsize,
        f"{matrices:,} covariance matrices of {d:,} columns",
        "Pass covariance='diag' (covariance_type of the estimator), fewer components, or fewer columns.",
    )


def em_tile(options: EMOptions, n: int, k: int, d: int) -> int:
    """Number of samples in a tile."""
    cost = k * d * d if options.missing else options.covariance_type.row_cost(k, d)
    return tile_rows(n, cost, CPU_TILE if jax.default_backend() == "cpu" else DEVICE_TILE)


def tile_of(options: EMOptions, x: Columns, means: Float[Array, "k d"]) -> int:
    """Number of samples in a tile of columns, or of sparse rows."""
    if isinstance(x, SparseRows):
        return sparse_tile(x.shape[0], means.shape[0], SPARSE_TILE)
    return em_tile(options, x.shape[1], *means.shape)


def joint_log_densities(
    options: EMOptions, components: Components
) -> Callable[[Columns], tuple[Float[Array, "k n"], Float[Array, " n"] | None]]:
    """Function from samples (d, n) to log(weight·density) of every component (nats), in the terms of `log_densities`.

    The first term is -inf for a component of weight 0.
    """
    covariance_type, (log_weights, means, covariances, factor) = options.covariance_type, components
    if options.missing:
        return lambda x: (log_weights[:, None] + missing.log_densities(covariance_type, means, covariances, x), None)
    form = form_of(covariance_type, means, factor)

    def logits(x):
        logits, shared = log_densities(covariance_type, means, factor, x, form, options.precision)
        return log_weights[:, None] + logits, shared

    return logits


def row_posterior(options: EMOptions, components: Components) -> Callable[[Columns], RowPosterior]:
    """Function from samples (d, n) to their `RowPosterior`."""
    logits_of = joint_log_densities(options, components)

    def posterior(x):
        logits, shared = logits_of(x)
        log_sum, r = responsibilities(logits)
        log_p = log_sum if shared is None else log_sum + shared
        return RowPosterior(log_p, r, jnp.argmax(logits, axis=0).astype(jnp.int32))

    return posterior


def components_of(mixture: Mixture) -> Components:
    """Components of a mixture, as an E-step needs them."""
    return Components(log_weights(mixture.weights), mixture.means, mixture.covariances, mixture.factor)


def moments_about(
    options: EMOptions, mixture: Mixture | Absent, reference: Float[Array, "k d"], form: int | Int[Array, ""]
) -> Callable[[Float[Array, "k n"], Columns], Moments]:
    """Function from (weighted responsibilities, samples) to moments about a reference; NaN values by the mixture."""
    if options.missing:
        return lambda r, x: missing.moments(
            options.covariance_type, r, mixture.means, mixture.covariances, reference, x
        )
    return lambda r, x: options.covariance_type.moments(r, reference, x, form, options.precision)


def fold_e_step(
    options: EMOptions,
    components: Components,
    mixture: Mixture,
    reference: Float[Array, "k d"],
    samples: TransposedPoints,
    summary: Callable[[Moments, Float[Array, " n"], Float[Array, "k n"], Float[Array, " n"]], Any],
) -> Any:
    """E-step under ``components``, folded into moments about a reference; each sample is read once.

    Args:
        options: static options.
        components: of which the responsibilities are computed.
        mixture: gives the expectation of missing values.
        reference: near the new means.
        samples: in the frame of the mixture.
        summary: (moments, log-densities, responsibilities, weights) of a tile -> statistics to sum over tiles.
    """
    posterior = row_posterior(options, components)
    form = DIFFERENCES if options.missing else form_of(options.covariance_type, reference, components.factor)
    moments = moments_about(options, mixture, reference, form)

    def contribution(log_p, r, samples):
        return summary(moments(r * samples.weight[None, :], samples.x), log_p, r, samples.weight), ()

    # The form is chosen inside of each tile. With one choice outside of the loop, XLA fuses the products of diagonal
    # covariances with their operands, and they take twice the time.
    tile = tile_of(options, samples.x, reference)
    stats = fold_responsibilities(lambda samples: posterior(samples.x)[:2], contribution, samples, tile=tile)[0]
    return all_reduce(stats, options.axis_name)


def e_step(options: EMOptions, mixture: Mixture, reference: Float[Array, "k d"], samples: TransposedPoints) -> EMStats:
    """E-step of a mixture: moments about a reference, and the log-likelihood."""

    def summary(moments, log_p, _, weight):
        # A sample of weight 0 may have log p = -inf, and 0·inf would be NaN.
        return EMStats(moments, weight @ jnp.where(weight > 0, log_p, 0))

    return fold_e_step(options, components_of(mixture), mixture, reference, samples, summary)


def stats_from_responsibilities(
    options: EMOptions,
    mixture: Mixture | None,
    reference: Float[Array, "k d"],
    samples: TransposedPoints,
    responsibilities_of: TiledResponsibilities,
) -> EMStats:
    """Statistics from initial responsibilities, in place of an E-step; the log-likelihood is 0."""
    # By differences: the rounding of products can only be compared with covariances, which are not known yet. The
    # mixture, which is there for missing values, may be far too broad.
    moments = moments_about(options, mixture, reference, DIFFERENCES)

    def tile(rows):
        samples, responsibility_rows = rows
        r = responsibilities_of.responsibilities(responsibility_rows).astype(samples.x.dtype)
        return EMStats(moments(r * samples.weight[None, :], samples.x), jnp.zeros((), samples.x.dtype)), ()

    size = tile_of(options, samples.x, reference)
    return fold_rows(tile, (samples, responsibilities_of.rows), tile=size, axis=-1, axis_name=options.axis_name)[0]


def m_step(
    options: EMOptions, moments: Moments, reference: Float[Array, "k d"], previous: Mixture, params: MStepParams
) -> tuple[Mixture, Bool[Array, " k"], Float[Array, " k"]]:
    """M-step: the mixture of maximum expected log-likelihood, ``reg`` added to its variances.

    Returns:
        The mixture; the mask of the components that were kept from collapsing, (k,); and the squared Mahalanobis
        distance between reference and new mean under the new component, (k,).
    """
    covariance_type, (k, d) = options.covariance_type, reference.shape
    empty = moments.weight <= WEIGHT_FLOOR
    weight = moments.weight + WEIGHT_FLOOR
    delta = jnp.where(empty[:, None], 0, moments.first / weight[:, None])
    raw = covariance_type.covariances(moments, delta, weight)
    variance = covariance_type.mean_variance(raw)
    covariances = raw + covariance_type.isotropic(params.reg, k, d).astype(raw.dtype)
    # A component without samples has no scatter: it keeps its covariance, and its mean.
    if covariance_type.name != "tied":
        covariances = jnp.where(empty.reshape(-1, *(1,) * (raw.ndim - 1)), previous.covariances, covariances)
    covariances, factor, repaired = covariance_type.factor(covariances, d)
    collapsed = (
        empty | repaired | (variance < jnp.minimum(params.reg, DEGENERATE_VARIANCE_RATIO * params.unweighted_variance))
    )
    active_weight = weight
    if params.active is not None:
        active_weight, collapsed = jnp.where(params.active, weight, 0), collapsed & params.active
    mixture = Mixture(active_weight / jnp.sum(active_weight), reference + delta, covariances, factor)
    return mixture, collapsed, jnp.where(empty, 0, mahalanobis_norm_sq(covariance_type, delta, factor))


def mahalanobis_norm_sq(covariance_type: CovarianceType, delta: Float[Array, "k d"], factor: Any) -> Float[Array, " k"]:
    """Squared Mahalanobis length of each component's vector under that component."""
    at_origin = jnp.zeros((delta.shape[1], 1), delta.dtype)
    return covariance_type.mahalanobis_sq(delta, factor, at_origin, DIFFERENCES)[:, 0]


def recentered_m_step(
    options: EMOptions,
    stats_about: Callable[[Float[Array, "k d"]], EMStats],
    reference: Float[Array, "k d"],
    previous: Mixture,
    params: MStepParams,
) -> tuple[Mixture, Bool[Array, " k"], Float[Array, ""]]:
    """M-step whose moments are computed again about the new means if the reference was too far from them.

    Returns:
        The mixture, the mask of the components that were kept from collapsing, and the log-likelihood.
    """

    def update(reference):
        stats = stats_about(reference)
        mixture, collapsed, shift = m_step(options, stats.moments, reference, previous, params)
        return (mixture, collapsed, stats.log_likelihood), mixture.means, shift

    return update(reference)[0] if options.differentiable else recenter_moments(update, reference)[0]


def step(options: EMOptions, samples: TransposedPoints, params: MStepParams, state: EMState) -> EMState:
    """One EM step. A mixture that lowered the bound, or is not finite, is rejected in favor of the one before it.

    Args:
        options: static options.
        samples: in the frame of the state.
        params: of the M-step.
        state: before the step.
    """
    update = recentered_m_step(
        options,
        lambda reference: e_step(options, state.mixture, reference, samples),
        state.mixture.means,
        state.mixture,
        params,
    )
    return accept(options, params, state, *update)


def accept(
    options: EMOptions,
    params: MStepParams,
    state: EMState,
    mixture: Mixture,
    collapsed: Bool[Array, " k"],
    log_likelihood: Float[Array, ""],
) -> EMState:
    """State after an M-step, or that before it if the bound fell or is not finite.

    Args:
        options, params: of the step.
        state: before the step.
        mixture, collapsed, log_likelihood: results of `recentered_m_step`.
    """
    bound = log_likelihood / params.total
    not_finite = ~jnp.isfinite(bound)
    # reg_covar makes the M-step inexact, so it may lower the bound by ``cost``. This is granted only to one that
    # matters beside the variance of the data: a smaller one costs less than rounding, collapsed components apart.
    cost = ridge_bound_cost(options.covariance_type, state.mixture, state.collapsed, params.reg)
    slack = bound_slack(bound) + jnp.where(params.reg > DEGENERATE_VARIANCE_RATIO * params.variance, cost, 0)
    rejected = not_finite | (bound < state.lower_bound - slack)
    residual = jnp.where(not_finite, jnp.nan, jnp.where(rejected, 0, jnp.abs(bound - state.previous_bound)))
    bound_decrease = jnp.where(rejected & ~not_finite, state.lower_bound - bound, 0)
    accepted = EMState(mixture, state.mixture, bound, bound, collapsed, residual, bound_decrease)
    kept = state._replace(mixture=state.previous, residual=residual, bound_decrease=bound_decrease)
    return jax.tree.map(lambda old, new: jnp.where(rejected, old, new), kept, accepted)


def bound_slack(bound: Float[Array, ""], ulps: int = LOWER_BOUND_SLACK_ULPS) -> Float[Array, ""]:
    """Change of a lower bound that may be rounding (nats): so many rounding errors of it."""
    return max(LOWER_BOUND_SLACK, ulps * float(jnp.finfo(bound.dtype).eps)) * jnp.maximum(jnp.abs(bound), 1)


def precision_status(
    status: Int[Array, ""], bound_decrease: Float[Array, ""], bound: Float[Array, ""], tol
) -> Int[Array, ""]:
    """Status of a fit: PRECISION if it ended as a step would lower the bound by more than ``tol`` and rounding."""
    tolerance = bound_slack(bound, PRECISION_FALL_ULPS)
    fell = bound_decrease > jnp.maximum(jnp.asarray(tol).astype(bound.dtype), tolerance)
    return jnp.where(fell & (status == Status.CONVERGED), Status.PRECISION, status).astype(jnp.int32)


def ridge_bound_cost(
    covariance_type: CovarianceType, mixture: Mixture, collapsed: Bool[Array, " k"], reg: Float[Array, ""]
) -> Float[Array, ""]:
    """Upper bound for the decrease of the lower bound in a step by adding ``reg`` to covariances (nats per sample)."""
    # With reg the M-step is not the maximum: the bound may fall by Σ_j w_j·log|I + reg·S_j⁻¹|/2 <= Σ_j w_j·reg·trΣ_j⁻¹
    # as long as the scatter S_j is larger than reg (Σ_j = S_j + reg·I <= 2·S_j).
    k, d = mixture.means.shape
    precision = jnp.broadcast_to(covariance_type.mean_variance(covariance_type.precisions(mixture.factor)), (k,))
    return reg * d * jnp.sum(jnp.where(collapsed, 0, mixture.weights * precision))


def init_state(
    mixture: Mixture, collapsed: Bool[Array, " k"], previous_bound: Float[Array, ""] | None = None
) -> EMState:
    """State before the first step; ``previous_bound`` is the lower bound of a fit that is continued."""
    infinite = jnp.asarray(jnp.inf, mixture.means.dtype)
    previous_bound = -infinite if previous_bound is None else previous_bound
    return EMState(mixture, mixture, -infinite, previous_bound, collapsed, infinite, jnp.zeros_like(infinite))


def label(options: EMOptions, components: Components, x: Columns) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Labels and log-densities of samples.

    Returns:
        The most probable component of each sample, ties to the lower index, and its log-density (nats); both (n,).
    """
    posterior = row_posterior(options, components)

    @jax.checkpoint
    def tile(x):
        log_p, _, labels = posterior(x)
        return (), (labels, log_p)

    return fold_rows(tile, x, tile=tile_of(options, x, components.means), axis=-1)[1]


def log_weights(weights: Float[Array, " k"]) -> Float[Array, " k"]:
    """Logarithms of mixture weights; -inf for 0, without a NaN in the gradient."""
    return jnp.where(weights > 0, jnp.log(jnp.where(weights > 0, weights, 1)), -jnp.inf)


def step_work(options: EMOptions, shape: tuple[int, ...], k: int) -> int:
    """Products and sums of a step on samples of the shape (n, d)."""
    n, d = shape
    dense = options.covariance in ("full", "tied")
    return n * d * k * (4 * d if dense else 8)


def padded_components(options: EMOptions, k: int, points: Points, *arguments: Any) -> int | None:
    """`padded_clusters` of a mixture of k components."""
    shape = points.x.shape
    return padded_clusters(k, shape[0], step_work(options, shape, 1) / 4, points, *arguments)

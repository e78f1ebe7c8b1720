"""Expectation–maximization in a frame: statistics of a tile of rows, and the mixture that they lead to.

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

from jaxcluster.cluster.gmm.settle import settle
from jaxcluster.cluster.gmm.state import Mixture
from jaxcluster.core import memory
from jaxcluster.core.fold import across, fold_rows, tile_rows
from jaxcluster.core.frame import float_dtype
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
from jaxcluster.ops.logsumexp import fold_responsibilities, responsibilities
from jaxcluster.types import Array, Bool, Float, Int, Points, Status

CPU_TILE, DEVICE_TILE = 1 << 20, 1 << 26
"""Numbers that are held of a tile: what a CPU's cache holds, and what fills an accelerator."""

MATRIX_COPIES = 24
"""Copies of all covariance matrices at the peak of a fit: factors, moments, starts and the states of a step
(measured)."""

POINT = 1e-4
"""Share of the rows' variance, each counted once, below which a component that ``reg_covar`` is wider than is hardly
more than a point."""

FALL = 1e-7
"""Share of itself by which a lower bound may fall by rounding, and what is beyond all doubt by ``reg_covar``."""

FALL_NOISE, BOUND_NOISE = 16, 1000
"""Rounding errors of a lower bound by which it may fall in a step, and beyond which a fall shows that the rows are not
resolved: products in place of differences may bring 1e-4 nats, which is 840 of them in float32."""

SPARE = 10 * float(np.finfo(np.float64).eps)
"""Rows that scikit-learn, in float64, adds to the weight of each component. In a frame the mean weight is near 1."""


class EMOptions(NamedTuple):
    """What changes the program of a step.

    Attributes:
        covariance: the type.
        missing: NaN cells are integrated out.
        differentiable: no step that reverse mode cannot follow.
    """

    covariance: str
    precision: jax.lax.Precision = HIGHEST
    missing: bool = False
    differentiable: bool = False
    axis_name: str | None = None

    @property
    def covariance_type(self) -> CovarianceType:
        """The type of covariance."""
        return COVARIANCE_TYPES[self.covariance]


class RowPosterior(NamedTuple):
    """Rows under a mixture.

    Attributes:
        log_p: (n,) log-density (nats).
        responsibilities: (k, n).
        labels: (n,) the component of the largest responsibility, the lower index of equals.
    """

    log_p: Float[Array, " n"]
    responsibilities: Float[Array, "k n"]
    labels: Int[Array, " n"]


class Membership(NamedTuple):
    """Responsibilities that are given, drawn or one-hot: what a row has of them, and how a tile makes them of it.

    Attributes:
        rows: a pytree of arrays with n rows along their last axis.
        responsibilities: a tile of ``rows`` to (k, t).
    """

    rows: Any
    responsibilities: Callable[[Any], Float[Array, "k t"]]


class Columns(NamedTuple):
    """Rows laid side by side, so that sums over rows run along whole vectors: x is (d, n)."""

    x: Float[Array, "d n"]
    weight: Float[Array, " n"]


class EMStats(NamedTuple):
    """What rows contribute to the components: moments about a reference, and Σ w·log p."""

    moments: Moments
    log_likelihood: Float[Array, ""]


class EMState(NamedTuple):
    """A mixture whose lower bound is not known yet, after one whose is.

    Attributes:
        mixture: what the last step led to.
        before: the mixture that ``lower_bound`` is of.
        lower_bound: () mean log-likelihood of a row (nats).
        last_bound: () what the change of the next one is measured from: the lower bound, or before the first step that
            of the fit that is continued.
        collapsed: (k,) components of ``mixture`` that were kept from collapsing.
        residual: () change of the lower bound; 0 once no step raises it.
        fall: () by how much the last step would have lowered it, beyond what rounding and ``reg_covar`` allow; 0 for a
            step that was taken.
    """

    mixture: Mixture
    before: Mixture
    lower_bound: Float[Array, "*batch"]
    last_bound: Float[Array, "*batch"]
    collapsed: Bool[Array, "*batch k"]
    residual: Float[Array, "*batch"]
    fall: Float[Array, "*batch"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """The mean negative log-likelihood."""
        return -self.lower_bound


class Prior(NamedTuple):
    """What an update takes besides the statistics.

    Attributes:
        total: () weight of all rows.
        reg: () added to every variance (data units²).
        active: (k,) which components take part; None for all.
        variance: () of all rows, the mean over the columns (data units²); infinite where it is not known.
        scale: () the same of rows that count once each, whatever their weight. A row that outweighs all others takes
            the weighted variance to 0 with it, and beside that no component would be a point.
    """

    total: Float[Array, ""]
    reg: Float[Array, ""]
    active: Bool[Array, " k"] | None = None
    variance: float | Float[Array, ""] = math.inf
    scale: float | Float[Array, ""] = math.inf


def as_columns(points: Points) -> Columns:
    """Rows laid side by side."""
    return Columns(points.x.T, points.weight)


def check_memory(options: EMOptions, k: int, d: int, dtype: Any) -> None:
    """Raises MemoryError where the covariances of a fit take more than there is."""
    matrices = {"full": k, "tied": 1}.get(options.covariance, 0)
    memory.check(
        MATRIX_COPIES * matrices * d * d * float_dtype(np.dtype(dtype)).itemsize,
        f"{matrices:,} covariance matrices of {d:,} columns",
        "Pass covariance='diag' (covariance_type of the estimator), fewer components, or fewer columns.",
    )


def em_tile(options: EMOptions, n: int, k: int, d: int) -> int:
    """Rows of a tile."""
    cost = k * d * d if options.missing else options.covariance_type.row_cost(k, d)
    return tile_rows(n, cost, CPU_TILE if jax.default_backend() == "cpu" else DEVICE_TILE)


def joint(
    options: EMOptions, components: Components
) -> Callable[[Float[Array, "d n"]], tuple[Float[Array, "k n"], Float[Array, " n"] | None]]:
    """Columns to log(weight·density) of every component (nats) in two parts, as `log_densities` has them.

    The first part is -inf for a component of weight 0.
    """
    covariance_type, (log_weights, means, covariances, factor) = options.covariance_type, components
    if options.missing:
        return lambda x: (log_weights[:, None] + missing.log_densities(covariance_type, means, covariances, x), None)
    form = form_of(covariance_type, means, factor)

    def logits(x):
        logits, shared = log_densities(covariance_type, means, factor, x, form, options.precision)
        return log_weights[:, None] + logits, shared

    return logits


def row_posterior(options: EMOptions, components: Components) -> Callable[[Float[Array, "d n"]], RowPosterior]:
    """Columns to log-densities, responsibilities and labels."""
    logits_of = joint(options, components)

    def posterior(x):
        logits, shared = logits_of(x)
        log_sum, r = responsibilities(logits)
        log_p = log_sum if shared is None else log_sum + shared
        return RowPosterior(log_p, r, jnp.argmax(logits, axis=0).astype(jnp.int32))

    return posterior


def components_of(mixture: Mixture) -> Components:
    """The weighted Gaussians of a mixture."""
    return Components(log_weights(mixture.weights), mixture.means, mixture.covariances, mixture.factor)


def moments_about(
    options: EMOptions, mixture: Mixture | None, reference: Float[Array, "k d"], form: int | Int[Array, ""]
) -> Callable[[Float[Array, "k n"], Float[Array, "d n"]], Moments]:
    """(weighted responsibilities, columns) to moments about a reference; missing cells as the mixture expects them."""
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
    columns: Columns,
    summary: Callable[[Moments, Float[Array, " n"], Float[Array, "k n"], Float[Array, " n"]], Any],
) -> Any:
    """The E-step under ``components``, folded into moments about a reference, each row read once.

    Args:
        options: how rows are gone over.
        components: what the responsibilities are taken under.
        mixture: what missing cells are expected under.
        reference: near the means to come.
        columns: the rows.
        summary: (moments, log-densities, responsibilities, weights) of a tile -> what is summed over all tiles.
    """
    posterior = row_posterior(options, components)
    form = DIFFERENCES if options.missing else form_of(options.covariance_type, reference, components.factor)
    moments = moments_about(options, mixture, reference, form)

    def contribution(log_p, r, columns):
        found = moments(r * columns.weight[None, :], columns.x)
        return summary(found, log_p, r, columns.weight), ()

    # The form is chosen in every tile. Once for all of them, XLA fuses the products of diagonal covariances with their
    # operands and computes them in twice the time.
    tile = em_tile(options, columns.weight.shape[0], *reference.shape)
    found = fold_responsibilities(lambda columns: posterior(columns.x)[:2], contribution, columns, tile=tile)[0]
    return across(found, options.axis_name)


def em_stats(options: EMOptions, mixture: Mixture, reference: Float[Array, "k d"], columns: Columns) -> EMStats:
    """The E-step of a mixture, folded into moments about a reference, each row read once."""

    def summary(moments, log_p, _, weight):
        return EMStats(moments, weight @ jnp.where(weight > 0, log_p, 0))

    return fold_e_step(options, components_of(mixture), mixture, reference, columns, summary)


def given_stats(
    options: EMOptions,
    mixture: Mixture | None,
    reference: Float[Array, "k d"],
    columns: Columns,
    membership: Membership,
) -> EMStats:
    """Moments by responsibilities that are known, of which no more than a tile exists at a time.

    By differences: nothing is known yet of the covariances, beside which the rounding of products would have to be
    small. The mixture, for missing cells, may be far too broad.
    """
    moments = moments_about(options, mixture, reference, DIFFERENCES)

    def tile(rows):
        columns, of_membership = rows
        r = membership.responsibilities(of_membership).astype(columns.x.dtype)
        return EMStats(moments(r * columns.weight[None, :], columns.x), jnp.zeros((), columns.x.dtype)), ()

    size = em_tile(options, columns.weight.shape[0], *reference.shape)
    return fold_rows(tile, (columns, membership.rows), tile=size, axis=-1, axis_name=options.axis_name)[0]


def maximize(
    options: EMOptions, moments: Moments, reference: Float[Array, "k d"], before: Mixture, prior: Prior
) -> tuple[Mixture, Bool[Array, " k"], Float[Array, " k"]]:
    """The M-step.

    Returns:
        The mixture; which components had to be kept from collapsing; and the squared distance between reference and
        new mean in the new component's own units.
    """
    covariance_type, (k, d) = options.covariance_type, reference.shape
    empty = moments.weight <= SPARE
    weight = moments.weight + SPARE
    delta = jnp.where(empty[:, None], 0, moments.first / weight[:, None])
    raw = covariance_type.covariances(moments, delta, weight)
    spread = covariance_type.mean_variance(raw)
    covariances = raw + covariance_type.isotropic(prior.reg, k, d).astype(raw.dtype)
    if covariance_type.name != "tied":
        covariances = jnp.where(empty.reshape(-1, *(1,) * (raw.ndim - 1)), before.covariances, covariances)
    covariances, factor, repaired = covariance_type.factor(covariances, d)
    collapsed = empty | repaired | (spread < jnp.minimum(prior.reg, POINT * prior.scale))
    shares = weight
    if prior.active is not None:
        shares, collapsed = jnp.where(prior.active, weight, 0), collapsed & prior.active
    mixture = Mixture(shares / jnp.sum(shares), reference + delta, covariances, factor)
    return mixture, collapsed, jnp.where(empty, 0, own_squares(covariance_type, delta, factor))


def own_squares(covariance_type: CovarianceType, delta: Float[Array, "k d"], factor: Any) -> Float[Array, " k"]:
    """Squared length of each component's vector in that component's own units."""
    at_origin = jnp.zeros((delta.shape[1], 1), delta.dtype)
    return covariance_type.mahalanobis_sq(delta, factor, at_origin, DIFFERENCES)[:, 0]


def fit_moments(
    options: EMOptions,
    stats_about: Callable[[Float[Array, "k d"]], EMStats],
    reference: Float[Array, "k d"],
    before: Mixture,
    prior: Prior,
) -> tuple[Mixture, Bool[Array, " k"], Float[Array, ""]]:
    """The M-step from moments about a reference near the means to come.

    Returns:
        The mixture, which components were kept from collapsing, and the log-likelihood that the statistics came with.
    """

    def once(reference):
        stats = stats_about(reference)
        mixture, collapsed, shift = maximize(options, stats.moments, reference, before, prior)
        return (mixture, collapsed, stats.log_likelihood), mixture.means, shift

    return once(reference)[0] if options.differentiable else settle(once, reference)[0]


def step(options: EMOptions, columns: Columns, prior: Prior, state: EMState) -> EMState:
    """One round of E and M. A mixture that lowered the bound, or is not finite, is given up for the one before it."""
    mixture, collapsed, log_likelihood = fit_moments(
        options,
        lambda reference: em_stats(options, state.mixture, reference, columns),
        state.mixture.means,
        state.mixture,
        prior,
    )
    bound = log_likelihood / prior.total
    broken = ~jnp.isfinite(bound)
    # A small reg_covar takes less than rounding from all but points, and what these do by it is no ascent.
    cost = ridge_cost(options.covariance_type, state.mixture, state.collapsed, prior.reg)
    slack = bound_slack(bound) + jnp.where(prior.reg > POINT * prior.variance, cost, 0)
    given_up = broken | (bound < state.lower_bound - slack)
    residual = jnp.where(broken, jnp.nan, jnp.where(given_up, 0, jnp.abs(bound - state.last_bound)))
    fall = jnp.where(given_up & ~broken, state.lower_bound - bound, 0)
    raised = EMState(mixture, state.mixture, bound, bound, collapsed, residual, fall)
    stayed = EMState(state.before, state.before, state.lower_bound, state.last_bound, state.collapsed, residual, fall)
    return jax.tree.map(lambda stay, rise: jnp.where(given_up, stay, rise), stayed, raised)


def bound_slack(bound: Float[Array, ""]) -> Float[Array, ""]:
    """The change of a lower bound that its rounding allows (nats)."""
    return max(FALL, FALL_NOISE * float(jnp.finfo(bound.dtype).eps)) * jnp.maximum(jnp.abs(bound), 1)


def with_precision(status: Int[Array, ""], fall: Float[Array, ""], bound: Float[Array, ""], tol) -> Int[Array, ""]:
    """The status, PRECISION where a fit ended since a step would lower its bound by more than ``tol`` and rounding."""
    noise = max(FALL, BOUND_NOISE * float(jnp.finfo(bound.dtype).eps)) * jnp.maximum(jnp.abs(bound), 1)
    fell = fall > jnp.maximum(jnp.asarray(tol).astype(bound.dtype), noise)
    return jnp.where(fell & (status == Status.CONVERGED), Status.PRECISION, status).astype(jnp.int32)


def ridge_cost(
    covariance_type: CovarianceType, mixture: Mixture, collapsed: Bool[Array, " k"], reg: Float[Array, ""]
) -> Float[Array, ""]:
    """The most that adding ``reg`` to sound covariances can take from the lower bound (nats per row).

    With it the M-step is no maximum any more: a lower bound may fall by Σ_j w_j·log|I + reg·S_j⁻¹|/2 <= Σ_j w_j·reg·tr
    Σ_j⁻¹ in a step, as long as the covariance S_j of the rows is larger than ``reg``.
    """
    k, d = mixture.means.shape
    precision = jnp.broadcast_to(covariance_type.mean_variance(covariance_type.precisions(mixture.factor)), (k,))
    return reg * d * jnp.sum(jnp.where(collapsed, 0, mixture.weights * precision))


def begin(mixture: Mixture, collapsed: Bool[Array, " k"], last_bound: Float[Array, ""] | None = None) -> EMState:
    """The state before the first step; ``last_bound`` is that of a fit that is continued."""
    infinite = jnp.asarray(jnp.inf, mixture.means.dtype)
    last_bound = -infinite if last_bound is None else last_bound
    return EMState(mixture, mixture, -infinite, last_bound, collapsed, infinite, jnp.zeros_like(infinite))


def label(
    options: EMOptions, components: Components, x: Float[Array, "d n"]
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """The most probable component of each column, the lower index of equals, and its log p (nats)."""
    posterior = row_posterior(options, components)

    @jax.checkpoint
    def tile(x):
        log_p, _, labels = posterior(x)
        return (), (labels, log_p)

    return fold_rows(tile, x, tile=em_tile(options, x.shape[1], *components.means.shape), axis=-1)[1]


def log_weights(weights: Float[Array, " k"]) -> Float[Array, " k"]:
    """Logarithms, -inf of 0 without a NaN in the gradient."""
    return jnp.where(weights > 0, jnp.log(jnp.where(weights > 0, weights, 1)), -jnp.inf)

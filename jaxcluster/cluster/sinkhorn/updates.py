"""Sinkhorn iterations: updates of both potentials in one pass over tiles of the costs, in the log domain.

With K = exp((f + g − C)/ε), a plan is P = a·K·b. The potential that makes the sum of a row right is a log-sum-exp over
the columns; its exponentials, scaled by it, are the row's part of the plan, and their sums by column are all that the
other potential needs: one exponential for each entry and iteration. Where a column's sum is too small for that to be
exact, the update is computed again with a log-sum-exp on either side.

Sources: M. Cuturi, Sinkhorn distances, NeurIPS 2013; B. Schmitzer, Stabilized sparse scaling algorithms for
entropy regularized transport problems, SIAM J. Sci. Comput. 41 (2019); L. Chizat, G. Peyré, B. Schmitzer and F.-X.
Vialard, Scaling algorithms for unbalanced optimal transport problems, Math. Comp. 87 (2018).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.sinkhorn.folds import fold_problem
from jaxcluster.cluster.sinkhorn.problem import (
    Problem,
    TileCost,
    logits_of,
)
from jaxcluster.core.fold import MAX
from jaxcluster.ops.logsumexp import LOG_SUM_EXP, responsibilities
from jaxcluster.types import Array, Float

COST_SAMPLE = 64
"""Rows, and as many columns, whose costs set the ε of the first iteration."""

TYPICAL_QUANTILE = 0.25
"""Quantile of these costs: up to three in four may be huge, standing for pairs that are forbidden."""

EXPONENT_ROUNDING = 0.5
"""Rounding of f + g − C, in units in the last place of |f| + |g|. Rounding f, g, their sum and the difference is 2 at
most, and less on average: over random points and matrices, with ε from 1e-3 to 1 of the range of the costs, the
marginal error in float64 of the returned plan was within half of this of what float32 measured.
"""

SUM_ROUNDING = 1
"""Rounding of the sums of a plan at any ε, in units in the last place of 1: measured as 0.5 where ε is large."""


class PotentialUpdate(NamedTuple):
    """Potentials after an update, and the marginal error of the plan of the new f and the old g.

    The error is an L1 distance, as a fraction of the weights. An update computes both marginals of that plan, and of
    no other pair of its potentials.
    """

    f: Float[Array, " n"]
    g: Float[Array, " m"]
    error: Float[Array, ""]


class Kernel(NamedTuple):
    """Gibbs kernel around potentials at one ε: powers = exp((g − C)/ε − row_max), at most 1 each."""

    powers: Float[Array, "n m"]
    row_max: Float[Array, " n"]
    g: Float[Array, " m"]


class Rounding(NamedTuple):
    """Mean rounding error ``fixed`` + ``rooted``·√C of a cost C, over the points by weight (units of the cost)."""

    fixed: Float[Array, ""]
    rooted: Float[Array, ""]


# -- one update --------------------------------------------------------------------------------------------------------


def safe_log(weight: Array) -> Array:
    """Logarithm of weights, -inf at 0 with a derivative of 0."""
    some = weight > 0
    return jnp.where(some, jnp.log(jnp.where(some, weight, 1)), -jnp.inf)


def max_exponent(dtype) -> float:
    """Largest exponent that ``exp`` keeps finite, with room (a factor of e⁵) for sums."""
    return math.log(float(jnp.finfo(dtype).max)) - 5


def tile_inputs(problem: Problem, *more: Array) -> tuple[Any, ...]:
    """Arrays of a problem that are cut into tiles.

    Returns:
        The rows, their weights, and ``more``.
    """
    return problem.rows, problem.a, *more


def optimal_potential(log_sum, epsilon, rho, constant):
    """Potential t that meets its marginal: exp(t/ε + log_sum) = exp(−(t + constant)/ρ), or = 1 without a penalty.

    Where nothing is in reach, log_sum = -inf, it is 0: no mass moves whatever it is.
    """
    reachable = ~jnp.isneginf(log_sum)
    log_sum = jnp.where(reachable, log_sum, 0)
    if rho is None:
        return jnp.where(reachable, -epsilon * log_sum, 0)
    # ερ/(ε + ρ), in a form that holds for an infinite ρ too.
    return jnp.where(reachable, -(epsilon / (1 + epsilon / rho)) * (log_sum + constant / rho), 0)


def overrelaxed_update(potential, log_sum, epsilon, rho, constant, omega):
    """Potential moved by ``omega`` times the way to `optimal_potential`."""
    return potential + omega * (optimal_potential(log_sum, epsilon, rho, constant) - potential)


def marginal_error(weight, potential, log_sum, epsilon, rho, full):
    """L1 distance Σ |sum of the plan − its target| / Σ weight of one marginal."""
    top = max_exponent(potential.dtype)
    # weight·expm1 of both: near convergence the sums agree in nearly all digits, and expm1 keeps those that differ.
    excess = jnp.expm1(jnp.minimum(potential / epsilon + log_sum, top))
    target = 0 if rho is None else jnp.expm1(jnp.minimum(-full(potential) / rho, top))
    return weight @ jnp.abs(excess - target) / jnp.sum(weight)


def stable_update(cost: TileCost, problem: Problem, f, g, epsilon, omega) -> PotentialUpdate:
    """Update by a log-sum-exp of rows and of columns: it holds wherever the logits are finite."""

    @jax.checkpoint
    def tile(rows):
        rows, a, f, *constant = rows
        # Costs are computed once for both updates: the new f of a row is all that its part of the column sums needs.
        bare = logits_of(cost(rows, problem.columns), jnp.zeros((1, *g.shape), g.dtype), epsilon)
        row_sum = responsibilities((bare + (g / epsilon + safe_log(problem.b))[None, :]).T)[0]
        f = overrelaxed_update(f, row_sum, epsilon, problem.rho_a, *(constant or (None,)), omega=omega)
        return responsibilities(bare + (f / epsilon + safe_log(a))[:, None])[0], (f, row_sum)

    rows = tile_inputs(problem, f, *_row_constants(problem))
    column_sum, (new_f, row_sum) = fold_problem(problem, tile, rows, monoid=LOG_SUM_EXP)
    return _finish(problem, g, new_f, row_sum, column_sum, epsilon, omega)


def fast_update(cost: TileCost, problem: Problem, f, g, epsilon, omega) -> tuple[PotentialUpdate, Array]:
    """Update by one exponential for each entry.

    Returns:
        The update, and True if no sum of it underflowed.
    """
    least = jnp.finfo(f.dtype).tiny / jnp.finfo(f.dtype).eps
    top = max_exponent(f.dtype)

    @jax.checkpoint
    def tile(rows):
        rows, a, f, *constant = rows
        logits = logits_of(cost(rows, problem.columns), g[None, :], epsilon)
        most = _row_max(logits)
        powers = jnp.exp(logits - most[:, None])
        sums = powers @ problem.b
        row_sum = most + jnp.log(jnp.maximum(sums, least))
        f = overrelaxed_update(f, row_sum, epsilon, problem.rho_a, *(constant or (None,)), omega=omega)
        scale = a * jnp.exp(jnp.minimum(f / epsilon + most, top))
        return (scale @ powers, jnp.sum(scale)), (f, row_sum, sums)

    rows = tile_inputs(problem, f, *_row_constants(problem))
    (columns, scale), (new_f, row_sum, sums) = fold_problem(problem, tile, rows)
    # What underflows in a column is below tiny times the sum of the scales.
    exact = _all(columns > least * scale, problem.b) & _all(sums > least * jnp.sum(problem.b), problem.a)
    column_sum = jnp.log(jnp.maximum(columns, jnp.finfo(f.dtype).tiny)) - g / epsilon
    return _finish(problem, g, new_f, row_sum, column_sum, epsilon, omega), exact


def gibbs_kernel(problem: Problem, g, epsilon) -> Kernel:
    """Gibbs kernel around potentials, of a problem whose rows are its costs."""
    logits = logits_of(problem.rows, g[None, :], epsilon)
    most = _row_max(logits)
    return Kernel(jnp.exp(logits - most[:, None]), most, g)


def kernel_update(problem: Problem, kernel: Kernel, f, g, epsilon, omega) -> tuple[PotentialUpdate, Array]:
    """Update by two products with a cached kernel.

    Returns:
        The update, and True if no sum of it underflowed, as in `fast_update`.
    """
    least = jnp.finfo(f.dtype).tiny / jnp.finfo(f.dtype).eps
    top = max_exponent(f.dtype)
    scales = problem.b * jnp.exp(jnp.minimum((g - kernel.g) / epsilon, top))

    def tile(rows):
        (powers, most), a, f, *constant = rows
        sums = powers @ scales
        row_sum = most + jnp.log(jnp.maximum(sums, least))
        f = overrelaxed_update(f, row_sum, epsilon, problem.rho_a, *(constant or (None,)), omega=omega)
        scale = a * jnp.exp(jnp.minimum(f / epsilon + most, top))
        return (scale @ powers, jnp.sum(scale)), (f, row_sum, sums)

    rows = ((kernel.powers, kernel.row_max), problem.a, f, *_row_constants(problem))
    (columns, scale), (new_f, row_sum, sums) = fold_problem(problem, tile, rows)
    # What underflows, in the kernel or in a product with it, is below tiny times the scales and the entries.
    exact = _all(columns > least * (scale + f.shape[0]), problem.b)
    exact &= _all(sums > least * (jnp.sum(scales) + g.shape[0]), problem.a)
    column_sum = jnp.log(jnp.maximum(columns, jnp.finfo(f.dtype).tiny)) - kernel.g / epsilon
    update = _finish(problem, g, new_f, row_sum, column_sum, epsilon, omega)
    return update, exact & jnp.isfinite(update.error)


def recenter_potentials(problem: Problem, f, g) -> tuple[Array, Array]:
    """Translation of the potentials to the best dual value; none where both marginals are fixed.

    An update alone moves the translation λ by ε/ρ of its remaining way, which takes long where penalties are large.

    Returns:
        f + λ and g − λ.

    Source: T. Séjourné, F.-X. Vialard and G. Peyré, Faster unbalanced optimal transport, AISTATS 2022.
    """
    if problem.rho_a is None and problem.rho_b is None:
        return f, g

    def log_mass(weight, potential, rho, full):
        if rho is None:
            return jnp.log(jnp.sum(weight)), 0
        return jax.nn.logsumexp(safe_log(weight) - full(potential) / rho), 1 / rho

    left, inverse_a = log_mass(problem.a, f, problem.rho_a, problem.full_f)
    right, inverse_b = log_mass(problem.b, g, problem.rho_b, problem.full_g)
    free = inverse_a + inverse_b <= 0  # two infinite penalties
    shift = jnp.where(free, 0, (left - right) / jnp.where(free, 1, inverse_a + inverse_b))
    return f + shift, g - shift


def typical_cost(cost: TileCost, problem: Problem) -> Float[Array, ""]:
    """Lower quantile of the costs above the least of their row and column, of pairs sampled by weight.

    It is the ε of the first iteration. A mean would be that of a few huge costs, and potentials at such an ε are those
    of pairs that no mass moves between.
    """

    def sample(weight):
        cumulative = jnp.cumsum(weight)
        # Midpoints of equal parts of the weight: a sample by weight without a random key.
        marks = (jnp.arange(COST_SAMPLE, dtype=jnp.int32).astype(weight.dtype) + 0.5) / COST_SAMPLE * cumulative[-1]
        return jnp.clip(jnp.searchsorted(cumulative, marks), 0, weight.shape[0] - 1)

    i, j = sample(problem.a), sample(problem.b)
    costs = cost(jax.tree.map(lambda leaf: leaf[i], problem.rows), problem.columns)[:, j]
    costs = jnp.where(jnp.isfinite(costs), costs, jnp.inf)
    for axis in (1, 0):
        least = jnp.min(costs, axis=axis, keepdims=True)
        costs = costs - jnp.where(jnp.isfinite(least), least, 0)
    ordered = jnp.sort(costs.reshape(-1))
    count = jnp.sum(jnp.isfinite(ordered), dtype=jnp.int32)
    return jnp.where(count > 0, ordered[(count.astype(jnp.float32) * TYPICAL_QUANTILE).astype(jnp.int32)], 0)


def _row_constants(problem):
    """Constants that the penalty of the rows is paid on beside their potentials; empty without a penalty."""
    return () if problem.rho_a is None else (problem.full_f(jnp.zeros_like(problem.a)),)


def _finish(problem, g, new_f, row_sum, column_sum, epsilon, omega):
    """The new g and the marginal error, from the log-sum-exps of rows and columns."""
    constant = None if problem.rho_b is None else problem.full_g(jnp.zeros_like(g))
    new_g = overrelaxed_update(g, column_sum, epsilon, problem.rho_b, constant, omega)
    error = marginal_error(problem.a, new_f, row_sum, epsilon, problem.rho_a, problem.full_f)
    error += marginal_error(problem.b, g, column_sum, epsilon, problem.rho_b, problem.full_g)
    return PotentialUpdate(new_f, new_g, error)


def _row_max(logits):
    """The greatest logit of each row; 0 where all are -inf."""
    most = jax.lax.stop_gradient(jnp.max(logits, axis=1))
    return jnp.where(jnp.isfinite(most), most, 0)


def _all(condition, weight):
    """True if the condition holds for all but entries of weight 0, from and to which no mass moves."""
    return jnp.all(condition | ~(weight > 0))


def row_log_sum(cost: TileCost, problem: Problem, g: Float[Array, " m"]) -> Float[Array, " n"]:
    """Log-sum-exp log Σ_j b_j·exp((g_j − C_ij)/ε) of each row, in tiles."""

    @jax.checkpoint
    def tile(rows):
        logits = logits_of(cost(rows, problem.columns), g[None, :], problem.epsilon) + safe_log(problem.b)[None, :]
        return (), responsibilities(logits.T)[0]

    return fold_problem(problem, tile, problem.rows)[1]


def largest_cost(cost: TileCost, problem: Problem) -> Float[Array, ""]:
    """Greatest finite |C|, between rows and columns of any weight."""

    def tile(rows):
        costs = jnp.abs(cost(rows[0], problem.columns))
        return jnp.max(jnp.where(jnp.isfinite(costs), costs, 0)), ()

    return fold_problem(problem, tile, tile_inputs(problem), monoid=MAX)[0]


# -- rounding ----------------------------------------------------------------------------------------------------------


def exponent_rounding(problem: Problem, rounding: Rounding, f, g, epsilon) -> Float[Array, ""]:
    """Rounding error of the marginals of a plan, as a fraction of the weights: the mean error of its exponents."""
    size = weighted_mean(problem.a, jnp.abs(f)) + weighted_mean(problem.b, jnp.abs(g))
    # Costs between which mass moves are about f + g, so that the mean of √C is at most √(⟨a, f⟩ + ⟨b, g⟩).
    moved_cost = jnp.maximum(weighted_mean(problem.a, f) + weighted_mean(problem.b, g), 0)
    eps = jnp.finfo(f.dtype).eps
    exponents = EXPONENT_ROUNDING * eps * size + rounding.fixed + rounding.rooted * jnp.sqrt(moved_cost)
    return SUM_ROUNDING * eps + exponents / epsilon


def weighted_mean(weight, values):
    """Mean of values by weight."""
    return weight @ values / jnp.sum(weight)

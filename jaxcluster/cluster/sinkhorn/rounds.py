"""One round of Sinkhorn: both potentials in one pass over tiles of the costs, in the log domain.

With K = exp((f + g − C)/ε), a plan is P = a·K·b, row by column. A row's potential that makes its sum right is a
log-sum-exp over the columns; the exponentials that it is made of, scaled by it, are the row's part of the plan, and
their sums by column are all that the other potential needs: one exponential an entry and round. Where a column's sum is
too small for that to be exact, the round is taken again with a log-sum-exp on either side.

Sources: M. Cuturi, Sinkhorn distances, NeurIPS 2013; B. Schmitzer, Stabilized sparse scaling algorithms for
entropy regularized transport problems, SIAM J. Sci. Comput. 41 (2019); L. Chizat, G. Peyré, B. Schmitzer and F.-X.
Vialard, Scaling algorithms for unbalanced optimal transport problems, Math. Comp. 87 (2018).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.sinkhorn.cost import TileCost, logits_of, tile_for
from jaxcluster.cluster.sinkhorn.problem import Problem
from jaxcluster.core.fold import MAX, Monoid, fold_rows
from jaxcluster.ops.logsumexp import responsibilities
from jaxcluster.types import Array, Float

SAMPLE = 64
"""Rows, and as many columns, whose costs say where ε begins to fall."""

TYPICAL = 0.25
"""The quantile of these costs: up to three of four may be huge, standing for pairs that are forbidden."""


def _log_sum_exp_across(value, axis_name):
    """Of nothing but -inf it is -inf."""
    most = jax.lax.pmax(jax.lax.stop_gradient(value), axis_name)
    most = jnp.where(jnp.isfinite(most), most, 0)
    total = jax.lax.psum(jnp.exp(value - most), axis_name)
    return jnp.where(total > 0, most + jnp.log(jnp.where(total > 0, total, 1)), -jnp.inf)


LSE = Monoid(combine=jnp.logaddexp, across=_log_sum_exp_across)


class Round(NamedTuple):
    """Potentials after a round, and the marginal error of the plan of the new f and the g before it.

    The error is an L1 distance, as a share of the weights. The round has both sums of that plan at hand; of no other
    pair of its potentials does it know the sums of rows and columns.
    """

    f: Float[Array, " n"]
    g: Float[Array, " m"]
    error: Float[Array, ""]


def safe_log(weight: Array) -> Array:
    """log of weights, -inf at 0 with a derivative of 0."""
    some = weight > 0
    return jnp.where(some, jnp.log(jnp.where(some, weight, 1)), -jnp.inf)


def highest(dtype) -> float:
    """The largest exponent that stays finite, some sums included."""
    return math.log(float(jnp.finfo(dtype).max)) - 5


def best(log_sum, epsilon, rho, constant):
    """The potential whose weight is met, or paid for: exp(t/ε + log_sum) = exp(−(t + constant)/ρ), or 1 without price.

    Where nothing is within reach, log_sum = -inf, it is 0: no mass moves whatever it is.
    """
    within = ~jnp.isneginf(log_sum)
    log_sum = jnp.where(within, log_sum, 0)
    if rho is None:
        return jnp.where(within, -epsilon * log_sum, 0)
    # ερ/(ε + ρ) for an infinite ρ too.
    return jnp.where(within, -(epsilon / (1 + epsilon / rho)) * (log_sum + constant / rho), 0)


def moved(potential, log_sum, epsilon, rho, constant, omega):
    """A potential's next value from its log-sum-exp: omega of the way to its `best`."""
    return potential + omega * (best(log_sum, epsilon, rho, constant) - potential)


def gap(weight, potential, log_sum, epsilon, rho, paid):
    """Σ |sum of the plan − its target| over Σ weight."""
    top = highest(potential.dtype)
    over = jnp.expm1(jnp.minimum(potential / epsilon + log_sum, top))
    target = 0 if rho is None else jnp.expm1(jnp.minimum(-paid(potential) / rho, top))
    return weight @ jnp.abs(over - target) / jnp.sum(weight)


def rows_of(problem: Problem, *more: Array) -> tuple[Any, ...]:
    """The part of a problem that is cut into tiles."""
    return problem.rows, problem.a, *more


def row_constants(problem: Problem) -> tuple[Array, ...]:
    """What the penalty of the rows needs beside their potentials: nothing where their weights hold."""
    return () if problem.rho_a is None else (problem.paid_a(jnp.zeros_like(problem.a)),)


def row_log_sum(cost: TileCost, problem: Problem, g: Float[Array, " m"]) -> Float[Array, " n"]:
    """log Σ_j b_j·exp((g_j − C_ij)/ε) of each row, in tiles."""

    @jax.checkpoint
    def tile(rows):
        logits = logits_of(cost(rows, problem.columns), g[None, :], problem.epsilon) + safe_log(problem.b)[None, :]
        return (), responsibilities(logits.T)[0]

    return fold_rows(tile, problem.rows, tile=_tile(problem))[1]


def exact_round(cost: TileCost, problem: Problem, f, g, epsilon, omega) -> Round:
    """A round with a log-sum-exp of rows and of columns: it holds wherever the logits are finite."""

    @jax.checkpoint
    def tile(rows):
        rows, a, f, *constant = rows
        bare = logits_of(cost(rows, problem.columns), jnp.zeros_like(g)[None, :], epsilon)
        row_sum = responsibilities((bare + (g / epsilon + safe_log(problem.b))[None, :]).T)[0]
        f = moved(f, row_sum, epsilon, problem.rho_a, *(constant or (None,)), omega)
        return responsibilities(bare + (f / epsilon + safe_log(a))[:, None])[0], (f, row_sum)

    rows = rows_of(problem, f, *row_constants(problem))
    column_sum, (new_f, row_sum) = fold_rows(tile, rows, tile=_tile(problem), monoid=LSE)
    return _finish(problem, g, new_f, row_sum, column_sum, epsilon, omega)


def quick_round(cost: TileCost, problem: Problem, f, g, epsilon, omega) -> tuple[Round, Array]:
    """A round by one exponential an entry, and whether no sum of it lost anything."""
    least = jnp.finfo(f.dtype).tiny / jnp.finfo(f.dtype).eps
    top = highest(f.dtype)

    @jax.checkpoint
    def tile(rows):
        rows, a, f, *constant = rows
        logits = logits_of(cost(rows, problem.columns), g[None, :], epsilon)
        most = _largest(logits)
        powers = jnp.exp(logits - most[:, None])
        sums = powers @ problem.b
        row_sum = most + jnp.log(jnp.maximum(sums, least))
        f = moved(f, row_sum, epsilon, problem.rho_a, *(constant or (None,)), omega)
        scale = a * jnp.exp(jnp.minimum(f / epsilon + most, top))
        return (scale @ powers, jnp.sum(scale)), (f, row_sum, sums)

    rows = rows_of(problem, f, *row_constants(problem))
    (columns, scale), (new_f, row_sum, sums) = fold_rows(tile, rows, tile=_tile(problem))
    # What underflows in a column is below tiny times the sum of the scales.
    whole = _all(columns > least * scale, problem.b) & _all(sums > least * jnp.sum(problem.b), problem.a)
    column_sum = jnp.log(jnp.maximum(columns, jnp.finfo(f.dtype).tiny)) - g / epsilon
    return _finish(problem, g, new_f, row_sum, column_sum, epsilon, omega), whole


class Kernel(NamedTuple):
    """Exponentials that many rounds at one ε have in common: powers = exp((g − C)/ε − highest), at most 1 each."""

    powers: Float[Array, "n m"]
    highest: Float[Array, " n"]
    g: Float[Array, " m"]


def kernel_of(problem: Problem, g, epsilon) -> Kernel:
    """The kernel around potentials, of a problem whose rows are its costs."""
    logits = logits_of(problem.rows, g[None, :], epsilon)
    most = _largest(logits)
    return Kernel(jnp.exp(logits - most[:, None]), most, g)


def kernel_round(problem: Problem, kernel: Kernel, f, g, epsilon, omega) -> tuple[Round, Array]:
    """A round by two products with a kernel, and whether no sum of it lost anything: as `quick_round`."""
    least = jnp.finfo(f.dtype).tiny / jnp.finfo(f.dtype).eps
    top = highest(f.dtype)
    scales = problem.b * jnp.exp(jnp.minimum((g - kernel.g) / epsilon, top))

    def tile(rows):
        (powers, most), a, f, *constant = rows
        sums = powers @ scales
        row_sum = most + jnp.log(jnp.maximum(sums, least))
        f = moved(f, row_sum, epsilon, problem.rho_a, *(constant or (None,)), omega)
        scale = a * jnp.exp(jnp.minimum(f / epsilon + most, top))
        return (scale @ powers, jnp.sum(scale)), (f, row_sum, sums)

    rows = ((kernel.powers, kernel.highest), problem.a, f, *row_constants(problem))
    (columns, scale), (new_f, row_sum, sums) = fold_rows(tile, rows, tile=_tile(problem))
    # What underflows, in the kernel or in a product with it, is below tiny times the scales and the entries.
    whole = _all(columns > least * (scale + f.shape[0]), problem.b)
    whole &= _all(sums > least * (jnp.sum(scales) + g.shape[0]), problem.a)
    column_sum = jnp.log(jnp.maximum(columns, jnp.finfo(f.dtype).tiny)) - kernel.g / epsilon
    taken = _finish(problem, g, new_f, row_sum, column_sum, epsilon, omega)
    return taken, whole & jnp.isfinite(taken.error)


def translated(problem: Problem, f, g) -> tuple[Array, Array]:
    """f + λ and g − λ with the λ that the dual is best at; where both sides' weights hold, λ says nothing.

    A round alone moves λ by ε/ρ of what is left of it, which takes long where penalties are large.

    Source: T. Séjourné, F.-X. Vialard and G. Peyré, Faster unbalanced optimal transport, AISTATS 2022.
    """
    if problem.rho_a is None and problem.rho_b is None:
        return f, g

    def side(weight, potential, rho, paid):
        if rho is None:
            return jnp.log(jnp.sum(weight)), 0
        return jax.nn.logsumexp(safe_log(weight) - paid(potential) / rho), 1 / rho

    left, give = side(problem.a, f, problem.rho_a, problem.paid_a)
    right, take = side(problem.b, g, problem.rho_b, problem.paid_b)
    free = give + take <= 0  # two infinite prices
    shift = jnp.where(free, 0, (left - right) / jnp.where(free, 1, give + take))
    return f + shift, g - shift


def sinkhorn_round(cost: TileCost, problem: Problem, f, g, epsilon, omega) -> Round:
    """A round, quickly where that is as good."""
    quick, whole = quick_round(cost, problem, f, g, epsilon, omega)
    arguments = (problem, f, g, epsilon, omega)
    return jax.lax.cond(whole, lambda *_: quick, lambda *given: exact_round(cost, *given), *arguments)


def typical_cost(cost: TileCost, problem: Problem) -> Float[Array, ""]:
    """A lower quantile of the costs over their least of each row and column, of a sample of pairs by weight.

    The scale at which ε begins to fall. A mean would be that of a few huge costs, and potentials found at such an ε are
    those of pairs that no mass moves between.
    """

    def sample(weight):
        reached = jnp.cumsum(weight)
        marks = (jnp.arange(SAMPLE, dtype=jnp.int32).astype(weight.dtype) + 0.5) / SAMPLE * reached[-1]
        return jnp.clip(jnp.searchsorted(reached, marks), 0, weight.shape[0] - 1)

    i, j = sample(problem.a), sample(problem.b)
    costs = cost(jax.tree.map(lambda leaf: leaf[i], problem.rows), problem.columns)[:, j]
    costs = jnp.where(jnp.isfinite(costs), costs, jnp.inf)
    for axis in (1, 0):
        least = jnp.min(costs, axis=axis, keepdims=True)
        costs = costs - jnp.where(jnp.isfinite(least), least, 0)
    ordered = jnp.sort(costs.reshape(-1))
    count = jnp.sum(jnp.isfinite(ordered), dtype=jnp.int32)
    return jnp.where(count > 0, ordered[(count.astype(jnp.float32) * TYPICAL).astype(jnp.int32)], 0)


def largest_cost(cost: TileCost, problem: Problem) -> Float[Array, ""]:
    """The greatest |C| that is finite, between rows and columns of any weight."""

    def tile(rows):
        costs = jnp.abs(cost(rows[0], problem.columns))
        return jnp.max(jnp.where(jnp.isfinite(costs), costs, 0)), ()

    return fold_rows(tile, rows_of(problem), tile=_tile(problem), monoid=MAX)[0]


def _finish(problem, g, new_f, row_sum, column_sum, epsilon, omega):
    constant = None if problem.rho_b is None else problem.paid_b(jnp.zeros_like(g))
    new_g = moved(g, column_sum, epsilon, problem.rho_b, constant, omega)
    error = gap(problem.a, new_f, row_sum, epsilon, problem.rho_a, problem.paid_a)
    error += gap(problem.b, g, column_sum, epsilon, problem.rho_b, problem.paid_b)
    return Round(new_f, new_g, error)


def _largest(logits):
    """The greatest logit of each row; 0 where all are -inf."""
    most = jax.lax.stop_gradient(jnp.max(logits, axis=1))
    return jnp.where(jnp.isfinite(most), most, 0)


def _all(kept, weight):
    """Whether all are kept, but for those of weight 0, from and to which no mass moves."""
    return jnp.all(kept | ~(weight > 0))


def _tile(problem):
    return tile_for(problem.a.shape[0], problem.b.shape[0])

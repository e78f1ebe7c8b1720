"""One round of Sinkhorn: both potentials in one pass over tiles of the costs, in the log domain.

With K = exp((f + g − C)/ε), a plan is P = a·K·b, row by column. A row's potential that makes its sum right is a
log-sum-exp over the columns; the exponentials that it is made of, scaled by what it has found, are the row's shares of
the plan, and their sums by column are all that the other potential needs: one exponential an entry and round. Where a
column's sum is too small for that to be exact, the round is taken again with a log-sum-exp on either side.

Sources: M. Cuturi, Sinkhorn distances, NeurIPS 2013; B. Schmitzer, Stabilized sparse scaling algorithms for
entropy regularized transport problems, SIAM J. Sci. Comput. 41 (2019); L. Chizat, G. Peyré, B. Schmitzer and F.-X.
Vialard, Scaling algorithms for unbalanced optimal transport problems, Math. Comp. 87 (2018).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.sinkhorn.cost import TileCost, tile_for
from jaxcluster.cluster.sinkhorn.problem import Problem
from jaxcluster.core.fold import Monoid, fold_rows
from jaxcluster.ops.logsumexp import responsibilities
from jaxcluster.types import Array, Float


def _log_sum_exp_across(value, axis_name):
    """Of nothing but -inf it is -inf."""
    most = jax.lax.pmax(jax.lax.stop_gradient(value), axis_name)
    most = jnp.where(jnp.isfinite(most), most, 0)
    return most + jnp.log(jax.lax.psum(jnp.exp(value - most), axis_name))


LSE = Monoid(combine=jnp.logaddexp, across=_log_sum_exp_across)


class Round(NamedTuple):
    """Potentials after a round, and how far the plan before it was from its weights (L1, as a share of them)."""

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


def moved(potential, log_sum, epsilon, rho, omega):
    """A potential's next value from its log-sum-exp: omega of the way to where its weights are met, or paid for."""
    give = epsilon if rho is None else epsilon * (rho / (rho + epsilon))
    return potential + omega * (-give * log_sum - potential)


def gap(weight, potential, log_sum, epsilon, rho):
    """Σ |sum of the plan − what it should be| over Σ weight."""
    top = highest(potential.dtype)
    over = jnp.expm1(jnp.minimum(potential / epsilon + log_sum, top))
    wanted = 0 if rho is None else jnp.expm1(jnp.minimum(-potential / rho, top))
    return weight @ jnp.abs(over - wanted) / jnp.sum(weight)


def rows_of(problem: Problem, *more: Array) -> tuple[Any, ...]:
    """What is cut into tiles."""
    return problem.rows, problem.a, *more


def row_log_sum(cost: TileCost, problem: Problem, g: Float[Array, " m"]) -> Float[Array, " n"]:
    """log Σ_j b_j·exp((g_j − C_ij)/ε) of each row, in tiles."""

    @jax.checkpoint
    def tile(rows):
        logits = (g - cost(rows, problem.columns)) / problem.epsilon + safe_log(problem.b)
        return (), responsibilities(logits.T)[0]

    return fold_rows(tile, problem.rows, tile=_tile(problem))[1]


def exact_round(cost: TileCost, problem: Problem, f, g, epsilon, omega) -> Round:
    """A round with a log-sum-exp of rows and of columns: it holds wherever the logits are finite."""

    @jax.checkpoint
    def tile(rows):
        rows, a, f = rows
        bare = -cost(rows, problem.columns) / epsilon
        row_sum = responsibilities((bare + g / epsilon + safe_log(problem.b)).T)[0]
        f = moved(f, row_sum, epsilon, problem.rho_a, omega)
        return responsibilities(bare + (f / epsilon + safe_log(a))[:, None])[0], (f, row_sum)

    column_sum, (new_f, row_sum) = fold_rows(tile, rows_of(problem, f), tile=_tile(problem), monoid=LSE)
    return _finish(problem, f, g, new_f, row_sum, column_sum, epsilon, omega)


def quick_round(cost: TileCost, problem: Problem, f, g, epsilon, omega) -> tuple[Round, Array]:
    """A round by one exponential an entry, and whether no sum of it lost anything."""
    least = jnp.finfo(f.dtype).tiny / jnp.finfo(f.dtype).eps
    top = highest(f.dtype)

    @jax.checkpoint
    def tile(rows):
        rows, a, f = rows
        logits = (g - cost(rows, problem.columns)) / epsilon
        most = jax.lax.stop_gradient(jnp.max(logits, axis=1))
        powers = jnp.exp(logits - most[:, None])
        sums = powers @ problem.b
        row_sum = most + jnp.log(jnp.maximum(sums, least))
        f = moved(f, row_sum, epsilon, problem.rho_a, omega)
        scale = a * jnp.exp(jnp.minimum(f / epsilon + most, top))
        return (scale @ powers, jnp.sum(scale)), (f, row_sum, sums)

    summary, (new_f, row_sum, sums) = fold_rows(tile, rows_of(problem, f), tile=_tile(problem))
    columns, scale = summary
    # What underflows in a column is below tiny times the sum of the scales.
    whole = jnp.all(columns > least * scale) & jnp.all(sums > least * jnp.sum(problem.b))
    column_sum = jnp.log(jnp.maximum(columns, jnp.finfo(f.dtype).tiny)) - g / epsilon
    return _finish(problem, f, g, new_f, row_sum, column_sum, epsilon, omega), whole


class Kernel(NamedTuple):
    """Exponentials that many rounds at one ε have in common: powers = exp((g − C)/ε − highest), at most 1 each."""

    powers: Float[Array, "n m"]
    highest: Float[Array, " n"]
    g: Float[Array, " m"]


def kernel_of(problem: Problem, g, epsilon) -> Kernel:
    """The kernel around potentials, of a problem whose rows are its costs."""
    logits = (g - problem.rows) / epsilon
    most = jnp.max(logits, axis=1)
    return Kernel(jnp.exp(logits - most[:, None]), most, g)


def kernel_round(problem: Problem, kernel: Kernel, f, g, epsilon, omega) -> tuple[Round, Array]:
    """A round by two products with a kernel, and whether no sum of it lost anything: as `quick_round`."""
    least = jnp.finfo(f.dtype).tiny / jnp.finfo(f.dtype).eps
    top = highest(f.dtype)
    scales = problem.b * jnp.exp(jnp.minimum((g - kernel.g) / epsilon, top))

    def tile(rows):
        (powers, most), a, f = rows
        sums = powers @ scales
        row_sum = most + jnp.log(jnp.maximum(sums, least))
        f = moved(f, row_sum, epsilon, problem.rho_a, omega)
        scale = a * jnp.exp(jnp.minimum(f / epsilon + most, top))
        return (scale @ powers, jnp.sum(scale)), (f, row_sum, sums)

    rows = ((kernel.powers, kernel.highest), problem.a, f)
    (columns, scale), (new_f, row_sum, sums) = fold_rows(tile, rows, tile=_tile(problem))
    # What underflows, in the kernel or in a product with it, is below tiny times the scales and the entries.
    whole = jnp.all(columns > least * (scale + f.shape[0])) & jnp.all(sums > least * (jnp.sum(scales) + g.shape[0]))
    column_sum = jnp.log(jnp.maximum(columns, jnp.finfo(f.dtype).tiny)) - kernel.g / epsilon
    taken = _finish(problem, f, g, new_f, row_sum, column_sum, epsilon, omega)
    return taken, whole & jnp.isfinite(taken.error)


def translated(problem: Problem, f, g) -> tuple[Array, Array]:
    """f + λ and g − λ with the λ that the dual is best at; where both sides' weights hold, λ says nothing.

    A round alone moves λ by ε/ρ of what is left of it, which takes long where penalties are large.

    Source: T. Séjourné, F.-X. Vialard and G. Peyré, Faster unbalanced optimal transport, AISTATS 2022.
    """
    if problem.rho_a is None and problem.rho_b is None:
        return f, g

    def side(weight, potential, rho):
        if rho is None:
            return jnp.log(jnp.sum(weight)), 0
        return jax.nn.logsumexp(safe_log(weight) - potential / rho), 1 / rho

    (left, give), (right, take) = side(problem.a, f, problem.rho_a), side(problem.b, g, problem.rho_b)
    shift = (left - right) / (give + take)
    return f + shift, g - shift


def sinkhorn_round(cost: TileCost, problem: Problem, f, g, epsilon, omega) -> Round:
    """A round, quickly where that is as good."""
    quick, whole = quick_round(cost, problem, f, g, epsilon, omega)
    arguments = (problem, f, g, epsilon, omega)
    return jax.lax.cond(whole, lambda *_: quick, lambda *given: exact_round(cost, *given), *arguments)


def mean_cost(cost: TileCost, problem: Problem) -> Float[Array, ""]:
    """The mean |C| over pairs by weight: the scale of the costs."""

    def tile(rows):
        rows, a = rows
        return a @ (jnp.abs(cost(rows, problem.columns)) @ problem.b), ()

    total = fold_rows(tile, rows_of(problem), tile=_tile(problem))[0]
    return total / (jnp.sum(problem.a) * jnp.sum(problem.b))


def _finish(problem, f, g, new_f, row_sum, column_sum, epsilon, omega):
    new_g = moved(g, column_sum, epsilon, problem.rho_b, omega)
    error = gap(problem.a, f, row_sum, epsilon, problem.rho_a) + gap(problem.b, g, column_sum, epsilon, problem.rho_b)
    return Round(new_f, new_g, error)


def _tile(problem):
    return tile_for(problem.a.shape[0], problem.b.shape[0])

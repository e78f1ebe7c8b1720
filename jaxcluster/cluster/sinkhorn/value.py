"""The worth of a plan: its cost, its sums, and the dual of what it minimizes, in the frame of the problem."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.sinkhorn.cost import TileCost, split, tile_for
from jaxcluster.cluster.sinkhorn.problem import Problem
from jaxcluster.cluster.sinkhorn.rounds import highest, rows_of
from jaxcluster.core.fold import fold_rows
from jaxcluster.types import Array, Float


class Summary(NamedTuple):
    """Sums of a plan P over its entries.

    Attributes:
        cost: () ⟨P, C⟩.
        surplus: () ΣP − Σa·Σb, added up from the differences of the entries of P from those of a⊗b: where ε is large it
            is as much smaller than either.
        columns: (m,) sums by column.
    """

    cost: Float[Array, ""]
    surplus: Float[Array, ""]
    columns: Float[Array, " m"]


def densities(cost: TileCost, problem: Problem, rows, f, g):
    """(C, (f + g − C)/ε, K) of a tile, K = exp((f + g − C)/ε) a plan as a density against its weights.

    Forbidden pairs have cost 0, exponent 0 and density 0.
    """
    costs, forbidden = split(cost(rows, problem.columns))
    exponents = (f[:, None] + g[None, :] - costs) / problem.epsilon
    exponents = jnp.where(forbidden, 0, jnp.minimum(exponents, highest(exponents.dtype)))
    return costs, exponents, jnp.where(forbidden, 0, jnp.exp(exponents))


def summarize(cost: TileCost, problem: Problem, f, g) -> tuple[Summary, Float[Array, " n"]]:
    """A plan's summary and its sums by row, in tiles."""

    @jax.checkpoint
    def tile(rows):
        rows, a, f = rows
        costs, exponents, density = densities(cost, problem, rows, f, g)
        surplus = jnp.where(density > 0, jnp.expm1(exponents), -1)
        worth = Summary(a @ ((density * costs) @ problem.b), a @ (surplus @ problem.b), problem.b * (a @ density))
        return worth, a * (density @ problem.b)

    return fold_rows(tile, rows_of(problem, f), tile=tile_for(problem.a.shape[0], problem.b.shape[0]))


def plan_cost(cost: TileCost, f, g, problem: Problem) -> Float[Array, ""]:
    """⟨P, C⟩, with what was taken off the costs of a side whose weights have a price."""
    summary, rows = summarize(cost, problem, f, g)
    return whole_cost(problem, summary, rows)


def whole_cost(problem: Problem, summary: Summary, rows: Array) -> Float[Array, ""]:
    """`plan_cost` from the sums of the plan."""
    total = summary.cost
    for sums, constant in ((rows, problem.constant_a), (summary.columns, problem.constant_b)):
        if constant is not None:
            total = total + sums @ constant
    return total


def dual(problem: Problem, f, g, surplus) -> Float[Array, ""]:
    """The dual objective, given the plan's surplus: the least value of the primal where f and g are best."""
    gain = problem.a @ _gain(f, problem.rho_a, problem.paid_a) + problem.b @ _gain(g, problem.rho_b, problem.paid_b)
    return gain - problem.epsilon * surplus


def dual_value(cost: TileCost, potentials, problem: Problem) -> Float[Array, ""]:
    """`dual` of potentials (f, g) as a function of the problem."""
    return dual(problem, *potentials, summarize(cost, problem, *potentials)[0].surplus)


def plan_error(problem: Problem, f, g, rows: Array, columns: Array) -> Float[Array, ""]:
    """L1 distance of a plan's sums from what they should be, as a share of the weights."""

    def off(sums, weight, potential, rho, paid):
        target = weight if rho is None else weight * jnp.exp(jnp.minimum(-paid(potential) / rho, highest(weight.dtype)))
        return jnp.sum(jnp.abs(sums - target)) / jnp.sum(weight)

    rows_off = off(rows, problem.a, f, problem.rho_a, problem.paid_a)
    return rows_off + off(columns, problem.b, g, problem.rho_b, problem.paid_b)


def _gain(potential, rho, paid):
    """What a unit of weight earns: the potential, or −ρ·(exp(−t/ρ) − 1) of the whole one, t, at a price."""
    if rho is None:
        return potential
    infinite = jnp.isposinf(rho)
    finite = jnp.where(infinite, 1, rho)
    whole = paid(potential)
    return jnp.where(infinite, whole, -finite * jnp.expm1(jnp.minimum(-whole / finite, highest(whole.dtype))))

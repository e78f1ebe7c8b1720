"""What a plan is worth: its cost, its mass, its sums, and the dual of what it minimises."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.sinkhorn.cost import TileCost, tile_for
from jaxcluster.cluster.sinkhorn.problem import Problem
from jaxcluster.cluster.sinkhorn.rounds import highest, rows_of
from jaxcluster.core.fold import fold_rows
from jaxcluster.types import Array, Float


class Summary(NamedTuple):
    """Sums of a plan P over its entries."""

    cost: Float[Array, ""]
    mass: Float[Array, ""]
    columns: Float[Array, " m"]


def densities(cost: TileCost, problem: Problem, rows, f, g):
    """(C, K) of a tile, K = exp((f + g − C)/ε): a plan as a density against its weights."""
    costs = cost(rows, problem.columns)
    logits = (f[:, None] + g - costs) / problem.epsilon
    return costs, jnp.exp(jnp.minimum(logits, highest(logits.dtype)))


def summarize(cost: TileCost, problem: Problem, f, g) -> tuple[Summary, Float[Array, " n"]]:
    """A plan's summary and its sums by row, in tiles."""

    @jax.checkpoint
    def tile(rows):
        rows, a, f = rows
        costs, density = densities(cost, problem, rows, f, g)
        sums = a * (density @ problem.b)
        return Summary(a @ ((density * costs) @ problem.b), jnp.sum(sums), problem.b * (a @ density)), sums

    return fold_rows(tile, rows_of(problem, f), tile=tile_for(problem.a.shape[0], problem.b.shape[0]))


def plan_cost(cost: TileCost, f, g, problem: Problem) -> Float[Array, ""]:
    """⟨P, C⟩."""
    return summarize(cost, problem, f, g)[0].cost


def dual(problem: Problem, f, g, mass) -> Float[Array, ""]:
    """The dual objective, given the plan's mass: the least value of the primal where f and g are best."""
    gain = problem.a @ _paid(f, problem.rho_a) + problem.b @ _paid(g, problem.rho_b)
    return gain - problem.epsilon * (mass - jnp.sum(problem.a) * jnp.sum(problem.b))


def dual_value(cost: TileCost, f, g, problem: Problem) -> Float[Array, ""]:
    """`dual` as a function of the problem alone: by the envelope theorem its derivative at the best f and g is all."""
    return dual(problem, f, g, summarize(cost, problem, f, g)[0].mass)


def plan_error(problem: Problem, f, g, rows: Array, columns: Array) -> Float[Array, ""]:
    """L1 distance of a plan's sums from what they should be, as a share of the weights."""

    def off(sums, weight, potential, rho):
        wanted = weight if rho is None else weight * jnp.exp(jnp.minimum(-potential / rho, highest(weight.dtype)))
        return jnp.sum(jnp.abs(sums - wanted)) / jnp.sum(weight)

    return off(rows, problem.a, f, problem.rho_a) + off(columns, problem.b, g, problem.rho_b)


def _paid(potential, rho):
    return potential if rho is None else -rho * jnp.expm1(-potential / rho)

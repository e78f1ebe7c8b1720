"""Sinkhorn's iteration: from a problem to potentials, what the plan costs, and how it all depends on the problem."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.sinkhorn.cost import TileCost
from jaxcluster.cluster.sinkhorn.iteration import Options, unrolled
from jaxcluster.cluster.sinkhorn.iteration import run as iterated
from jaxcluster.cluster.sinkhorn.problem import Problem, Stated, matrix_problem, points_problem
from jaxcluster.cluster.sinkhorn.rounds import exact_round, row_log_sum
from jaxcluster.cluster.sinkhorn.value import dual, dual_value, plan_cost, plan_error, summarize
from jaxcluster.core import check
from jaxcluster.core.implicit import at_fixed_point, with_derivative_of
from jaxcluster.core.iterate import history_capacity, status_of, status_with
from jaxcluster.core.rows import trim
from jaxcluster.types import Array, Float, Int


class Transport(NamedTuple):
    """A solved problem; its plan is P_ij = a_i·b_j·exp((f_i + g_j − C_ij)/epsilon).

    Attributes:
        f: (n,) potentials of the rows (units of the cost). Where the weights hold exactly f and g are free up to a
            constant, which makes ⟨a, f⟩ = ⟨b, g⟩.
        g: (m,) potentials of the columns.
        a: (n,) weights of the rows.
        b: (m,) weights of the columns.
        epsilon: () strength of the entropy.
        transport_cost: () ⟨P, C⟩.
        regularized_cost: () ⟨P, C⟩ + ε·KL(P | a⊗b), and what it costs to leave the weights; computed as the dual.
        error: () Σ|P1 − a| / Σa + Σ|Pᵀ1 − b| / Σb; with penalties, from the sums that are best for these potentials.
        status: () int32, a `jaxcluster.types.Status`.
        steps: () int32 rounds taken.
        history: (capacity,) the error that each round found; NaN from ``steps`` on.
    """

    f: Float[Array, "*batch n"]
    g: Float[Array, "*batch m"]
    a: Float[Array, "*batch n"]
    b: Float[Array, "*batch m"]
    epsilon: Float[Array, "*batch"]
    transport_cost: Float[Array, "*batch"]
    regularized_cost: Float[Array, "*batch"]
    error: Float[Array, "*batch"]
    status: Int[Array, "*batch"]
    steps: Int[Array, "*batch"]
    history: Float[Array, "*batch capacity"]


def solve(
    x,
    y,
    *,
    a=None,
    b=None,
    cost: str | Callable = "sqeuclidean",
    epsilon,
    rho_a=None,
    rho_b=None,
    tol=1e-3,
    max_steps=5000,
    omega=None,
    anneal=0.5,
    rounds: int | None = None,
    start=None,
) -> Transport:
    """Moves the weight of n rows onto m others at the least cost, with entropy; the costs exist in tiles alone.

    A pure function: it works under jit and vmap. ``regularized_cost`` has its gradient with respect to x, y, a, b,
    epsilon and the penalties by the envelope theorem, the potentials and ``transport_cost`` by the implicit function
    theorem: right where the iteration has converged, so ask for a small tol. Where a and b hold exactly, they may only
    move with their sums alike: a gradient with respect to them is one up to a constant.

    Args:
        x: (n, d) rows.
        y: (m, d) rows.
        a: (n,) non-negative weights of x, or None for 1/n each.
        b: (m,) non-negative weights of y, or None for 1/m each.
        cost: "sqeuclidean", "euclidean" or another name in `jaxcluster.ops.distance.METRICS`, or a callable of
            (t, d) and (m, d) rows that returns (t, m) finite costs of either sign, at rows of zeros too. Static: pass
            the same object again, or all is compiled again.
        epsilon: ε > 0 (units of the cost). Traced.
        rho_a: penalty ρ > 0 (units of the cost) on KL(P1 | a), or None for P1 = a. Traced.
        rho_b: the same for Pᵀ1 and b.
        tol: stop at this error of the sums of the plan, a share of the weights (see `Transport`). Traced.
        max_steps: the most rounds taken. Traced.
        omega: in (0, 2), how far a round goes: above 1 is over-relaxation, which needs fewer rounds at a small ε; near
            2 it need not converge. Traced. None chooses it from the rate at which the error falls (1 with ``rounds``);
            like ``anneal=None`` it is a program of its own.
        anneal: in (0, 1), the factor that ε falls by in the first rounds, from the mean cost down to ``epsilon``; later
            it falls as 1/t², as a plan follows a smaller ε more slowly, in at most about a quarter of ``max_steps``.
            None begins with ``epsilon`` itself. Traced.
        rounds: take exactly this many rounds (static), and differentiate through all of them instead.
        start: (m,) potentials of y to begin with, or None for 0.

    Returns:
        A `Transport`.

    Raises:
        ValueError, TypeError: wrong shapes, values or names, before anything is traced.

    Sources: M. Cuturi, Sinkhorn distances, NeurIPS 2013; A. Thibault, L. Chizat, C. Dossal and N. Papadakis,
    Overrelaxed Sinkhorn-Knopp algorithm for regularized optimal transport, Algorithms 14 (2021);
    T. Lehmann, M.-K. von Renesse, A. Sambale and A. Uschmajew, A note on overrelaxation in the Sinkhorn algorithm,
    Optimization Letters 16 (2022).
    """
    stated = points_problem(x, y, a=a, b=b, cost=cost, epsilon=epsilon, rho_a=rho_a, rho_b=rho_b)
    return solve_stated(stated, tol, max_steps, omega, anneal, rounds, start)


def solve_cost(
    costs,
    *,
    a=None,
    b=None,
    epsilon,
    rho_a=None,
    rho_b=None,
    tol=1e-3,
    max_steps=5000,
    omega=None,
    anneal=0.5,
    rounds: int | None = None,
    start=None,
) -> Transport:
    """`solve` for an (n, m) matrix of finite costs, which may be negative; differentiable with respect to them too."""
    stated = matrix_problem(costs, a=a, b=b, epsilon=epsilon, rho_a=rho_a, rho_b=rho_b)
    return solve_stated(stated, tol, max_steps, omega, anneal, rounds, start)


def solve_stated(
    stated: Stated, tol, max_steps, omega=None, anneal=0.5, rounds=None, start=None, *, symmetric=False
) -> Transport:
    """Solves a checked problem. Symmetric: rows and columns are the same points with the same weights."""
    check_options(tol, max_steps, omega, anneal, rounds)
    dtype = stated.problem.a.dtype
    size = stated.problem.b.shape[0]
    start = jnp.zeros(size, dtype) if start is None else _filled(start, stated.m, size, dtype)
    adaptive = omega is None and rounds is None and not symmetric
    capacity = history_capacity(max_steps) if rounds is None else rounds
    static = Options(stated.cost, rounds, symmetric, anneal is not None, adaptive, capacity)
    omega, anneal = (1.0 if number is None else number for number in (omega, anneal))
    solved = _solve(static, stated.problem, start, omega, anneal, tol, max_steps)
    n, m = stated.n, stated.m
    return solved._replace(f=trim(solved.f, n), g=trim(solved.g, m), a=trim(solved.a, n), b=trim(solved.b, m))


def check_options(tol, max_steps, omega, anneal, rounds) -> None:
    """Raises ValueError or TypeError for what no iteration can run on."""
    check.check_positive("tol", tol, zero=True)
    check.check_positive("max_steps", max_steps)
    for name, value, most in (("omega", omega, 2), ("anneal", anneal, 1)):
        if value is None:
            continue
        check.check_positive(name, value)
        if not check.is_traced(value) and not value < most:
            raise ValueError(f"{name}={value} must be below {most}.")
    if rounds is not None:
        check.check_count("rounds", rounds)


def _filled(start, m, size, dtype):
    start = jnp.asarray(start, dtype)
    if start.shape != (m,):
        raise ValueError(f"start must have shape ({m},), one potential for each row of y, got {start.shape}.")
    return jnp.pad(start, (0, size - m))


@partial(jax.jit, static_argnums=0)
def _solve(static, problem, start, omega, anneal, tol, max_steps):
    cost = static.cost
    held = jax.lax.stop_gradient(problem)
    # A number of rounds is no tolerance: only NaN ends them earlier.
    tol, max_steps = (-1.0, static.rounds) if static.rounds else (tol, max_steps)
    options = jax.lax.stop_gradient((start, omega, anneal))
    run = iterated(static, held, *options, tol, max_steps)
    f, g = run.state.f, run.state.g
    if static.rounds:
        held = problem
        f, g = with_derivative_of(partial(unrolled, static), (f, g), problem, start, omega, anneal)
    f, g = _gauge(held, f, g)
    summary, rows = summarize(cost, held, f, g)
    value = dual(held, f, g, summary.mass)
    transport_cost = summary.cost
    error = plan_error(held, f, g, rows, summary.columns)
    if not static.rounds:
        value = with_derivative_of(partial(dual_value, cost), value, *jax.lax.stop_gradient((f, g)), problem)
        f, g = _differentiable(static, problem, f, g)
        transport_cost = with_derivative_of(partial(plan_cost, cost), transport_cost, f, g, problem)
    status = status_of(run.state.residual, jnp.inf if static.rounds else tol)
    numbers = (transport_cost, value, error, status_with(status, objective=value), run.steps, run.history)
    return Transport(f, g, problem.a, problem.b, problem.epsilon, *numbers)


def _gauge(problem, f, g):
    """The pair with ⟨a, f⟩ = ⟨b, g⟩, where the plan leaves that open."""
    if not _free(problem):
        return f, g
    shift = (problem.a @ f - problem.b @ g) / (2 * jnp.sum(problem.a))
    return f - shift, g + shift


def _free(problem):
    return problem.rho_a is None and problem.rho_b is None


def _differentiable(static, problem, f, g):
    """The same potentials, with their derivatives by the equation that a round leaves them as they are."""
    level = _level(problem, g)
    held_f, held_g = jax.lax.stop_gradient((f + level, g - level))
    inner = at_fixed_point(partial(_next_g, static.cost), held_g, problem)
    outer = with_derivative_of(partial(_best_f, static.cost), held_f, inner, problem)
    return _gauge(problem, outer, inner)


def _level(problem, g):
    """What makes ⟨b, g⟩ = 0, where a constant is free: without it the round's equation would have no one solution."""
    return problem.b @ g / jnp.sum(problem.b) if _free(problem) else jnp.zeros((), g.dtype)


def _next_g(cost: TileCost, g, problem: Problem):
    one = jnp.ones((), g.dtype)
    g = exact_round(cost, problem, jnp.zeros_like(problem.a), g, problem.epsilon, one).g
    return g - _level(problem, g)


def _best_f(cost: TileCost, g, problem: Problem) -> Any:
    give = problem.epsilon
    if problem.rho_a is not None:
        give = give * (problem.rho_a / (problem.rho_a + problem.epsilon))
    return -give * row_log_sum(cost, problem, g)

"""Sinkhorn's iteration: from a problem to potentials, the cost of the plan, and how it all depends on the problem."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.sinkhorn.cost import KEPT, TileCost, all_costs, exact_tile, matrix_tile, rounding_of
from jaxcluster.cluster.sinkhorn.iteration import Options, exponent_rounding, unrolled
from jaxcluster.cluster.sinkhorn.iteration import run as iterated
from jaxcluster.cluster.sinkhorn.problem import Problem, Stated, matrix_problem, points_problem, scaled
from jaxcluster.cluster.sinkhorn.rounds import best, exact_round, largest_cost, row_log_sum, typical_cost
from jaxcluster.cluster.sinkhorn.value import dual, dual_value, plan_cost, plan_error, summarize, whole_cost
from jaxcluster.core import check
from jaxcluster.core.frame import publish, times_power_of_two, trim
from jaxcluster.core.implicit import at_fixed_point, at_optimum, with_derivative_of
from jaxcluster.core.iterate import history_capacity
from jaxcluster.types import Array, Float, Int, Status

INFINITE_EPSILON = 2.0**24
"""The largest cost times this is ε in place of an infinite one: exponents are below a unit in the last place of 1."""


class Transport(NamedTuple):
    """A solved problem; its plan is P_ij = a_i·b_j·exp((f_i + g_j − C_ij)/epsilon).

    Of concrete arguments the numbers are found in a frame of their own and put back into the caller's units on the
    host in float64, and published as the arguments are: as NumPy's float64 where these were float64 or integers.

    Attributes:
        f: (n,) potentials of the rows (units of the cost). Where the weights hold exactly f and g are free up to a
            constant, which makes ⟨a, f⟩ = ⟨b, g⟩.
        g: (m,) potentials of the columns.
        a: (n,) weights of the rows.
        b: (m,) weights of the columns.
        epsilon: () strength of the entropy; in place of an infinite one the finite one that was taken.
        transport_cost: () ⟨P, C⟩, constants of rows and columns of C at the weights that hold, not at the sums of P.
        regularized_cost: () ⟨P, C⟩ + ε·KL(P | a⊗b), and what it costs to leave the weights; computed as the dual.
        error: () Σ|P1 − a| / Σa + Σ|Pᵀ1 − b| / Σb; with penalties, from the sums that are best for these potentials.
        status: () int32, a `jaxcluster.types.Status`: CONVERGED where the error, and what rounding may add to it, is
            within the tolerance; PRECISION where rounding alone is not, as the costs are too large beside ε for the
            precision of the computation: take a larger ε, or ``jax_enable_x64``; NOT_FINITE where no plan exists, as
            all costs of a row are infinite, say.
        steps: () int32 rounds taken.
        history: (capacity,) the error that each round found; 0 from ``steps`` on.
        f_rest: (n,) what rounding took from f: f + f_rest are the potentials of which the error is that of the plan.
        g_rest: (m,) what rounding took from g.
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
    f_rest: Float[Array, "*batch n"]
    g_rest: Float[Array, "*batch m"]


class Solution(NamedTuple):
    """A solved problem in its frame, with its padding; see `Transport`."""

    f: Float[Array, " n"]
    g: Float[Array, " m"]
    epsilon: Float[Array, ""]
    transport_cost: Float[Array, ""]
    regularized_cost: Float[Array, ""]
    error: Float[Array, ""]
    status: Int[Array, ""]
    steps: Int[Array, ""]
    history: Float[Array, " capacity"]


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
    numbers = {"a": a, "b": b, "cost": cost, "epsilon": epsilon, "rho_a": rho_a, "rho_b": rho_b}
    return transport_of(partial(points_problem, x, y, **numbers), tol, max_steps, omega, anneal, rounds, start)


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
    """`solve` for an (n, m) matrix of costs of either sign; differentiable with respect to them too.

    A cost of +inf forbids its pair: no mass moves there. Constants of whole rows or columns change no plan whose sums
    are given, however large they are.
    """
    numbers = {"a": a, "b": b, "epsilon": epsilon, "rho_a": rho_a, "rho_b": rho_b}
    return transport_of(partial(matrix_problem, costs, **numbers), tol, max_steps, omega, anneal, rounds, start)


def transport_of(
    statement: Callable[..., Stated],
    tol,
    max_steps,
    omega=None,
    anneal=0.5,
    rounds=None,
    start=None,
    *,
    symmetric: bool = False,
) -> Transport:
    """The solved problem in the caller's units; where float32 cannot tell its costs apart, concrete, from float64.

    Args:
        statement: called with ``wide``, it states the problem, in float64 where that is True.
        symmetric: rows and columns are the same points with the same weights.
    """
    options = check_options(tol, max_steps, omega, anneal, rounds)
    stated = statement()
    start = _check_start(start, stated.m)
    solution = solve_stated(stated, *options, start=start, symmetric=symmetric)
    if check.is_traced(solution, start):
        return _published(jnp, stated, solution)
    if int(solution.status) in (Status.PRECISION, Status.NOT_FINITE) and stated.problem.a.dtype != np.float64:
        # Costs and potentials need more digits than float32 has; on the host they were always there.
        with jax.enable_x64(True):
            stated = statement(wide=True)
            solution = solve_stated(stated, *options, start=start, symmetric=symmetric)
    with np.errstate(invalid="ignore", over="ignore"):
        return _published(np, stated, jax.device_get(solution))


def solve_stated(
    stated: Stated, tol, max_steps, omega=None, anneal=0.5, rounds=None, start=None, *, symmetric: bool = False
) -> Solution:
    """Solves a checked problem in its frame, by checked options, from potentials in the caller's units."""
    problem, units = stated.problem, stated.units
    dtype, size = problem.a.dtype, problem.b.shape[0]
    if start is None:
        start = jnp.zeros(size, dtype)
    else:
        # As potentials are published, the other way about.
        inside = scaled(start - units.d, -units.exponent, dtype)
        start = jnp.pad(inside + problem.epsilon * (problem.log_mass / 2), (0, size - stated.m))
    adaptive = omega is None and rounds is None and not symmetric
    capacity = history_capacity(max_steps) if rounds is None else rounds
    static = Options(stated.cost, rounds, symmetric, anneal is not None, adaptive, capacity)
    omega, anneal = (1.0 if number is None else number for number in (omega, anneal))
    return _solve(static, problem, _rounding_of_constants(stated), start, omega, anneal, tol, max_steps)


def _rounding_of_constants(stated: Stated):
    """Mean rounding of what is put back on the potentials of points (units of the frame): on the host there is none.

    The least costs of a matrix are entries of it, and what rounding takes from their sum with a potential is published.
    """
    problem, units = stated.problem, stated.units
    if stated.cost is matrix_tile or not check.is_traced(units.c, units.d):
        return 0.0
    sizes = [
        weight @ jnp.abs(jnp.asarray(constant).astype(weight.dtype)) / jnp.sum(weight)
        for weight, constant in ((problem.a[: stated.n], units.c), (problem.b[: stated.m], units.d))
    ]
    # Three roundings of half a unit each: of the product with the points, of the sum, and of its scale.
    rounding = 1.5 * jnp.finfo(problem.a.dtype).eps * times_power_of_two(sizes[0] + sizes[1], -units.exponent)
    return jax.lax.stop_gradient(rounding)


def check_options(tol, max_steps, omega, anneal, rounds) -> tuple[Any, ...]:
    """The options, NumPy's numbers as Python's; raises ValueError or TypeError for what no iteration can run on."""
    tol = check.check_positive("tol", tol, zero=True)
    max_steps = check.check_positive("max_steps", max_steps)
    max_steps = int(max_steps) if isinstance(max_steps, float) and math.isfinite(max_steps) else max_steps
    numbers = []
    for name, value, most in (("omega", omega, 2), ("anneal", anneal, 1)):
        if value is not None:
            value = check.check_positive(name, value)
            if not check.is_traced(value) and not value < most:
                raise ValueError(f"{name}={value} must be below {most}.")
        numbers.append(value)
    return tol, max_steps, *numbers, None if rounds is None else check.check_count("rounds", rounds)


def _check_start(start, m):
    if start is None:
        return None
    start = start if check.is_traced(start) else np.asarray(start, np.float64)
    if start.shape != (m,):
        raise ValueError(f"start must have shape ({m},), one potential for each row of y, got {start.shape}.")
    return start


@partial(jax.jit, static_argnums=0)
def _solve(static, problem, put_back, start, omega, anneal, tol, max_steps):
    dtype = problem.a.dtype
    put_back, omega, anneal, tol = (jnp.asarray(each).astype(dtype) for each in (put_back, omega, anneal, tol))
    cost, problem, rounding = _prepared(static.cost, problem)
    rounding = rounding._replace(fixed=rounding.fixed + put_back)
    problem, stuck, lost = _reachable(cost, problem)
    held = jax.lax.stop_gradient(problem)
    # A number of rounds is no tolerance: only NaN ends them earlier.
    max_steps = static.rounds or max_steps
    options = jax.lax.stop_gradient((rounding, start, omega, anneal))
    run = iterated(cost, static, held, *options, None if static.rounds else tol, max_steps)
    f, g = run.state.f, run.state.g
    if static.rounds:
        held = problem
        f, g = with_derivative_of(partial(unrolled, cost, static), (f, g), problem, rounding, start, omega, anneal)
    f, g = _gauge(held, f, g)
    summary, rows = summarize(cost, held, f, g)
    value = dual(held, f, g, summary.surplus)
    transport_cost = whole_cost(held, summary, rows)
    error = plan_error(held, f, g, rows, summary.columns)
    noise = exponent_rounding(held, rounding, f, g, held.epsilon)
    if not static.rounds:
        f, g = _differentiable(cost, problem, f, g)
        value = at_optimum(partial(dual_value, cost), value, (f, g), problem)
        transport_cost = with_derivative_of(partial(plan_cost, cost), transport_cost, f, g, problem)
    value = value + lost
    value, transport_cost, error = (jnp.where(stuck, jnp.inf, number) for number in (value, transport_cost, error))
    status = _status(error, noise, value, tol, run.steps, max_steps)
    return Solution(f, g, problem.epsilon, transport_cost, value, error, status, run.steps, run.history)


def _status(error, noise, value, tol, steps, max_steps):
    """By the error of the plan that is returned, and what its rounding may add."""
    limited = (steps < max_steps) | (noise > tol)
    status = jnp.where(limited, Status.PRECISION, Status.MAX_STEPS)
    status = jnp.where(error + noise <= tol, Status.CONVERGED, status)
    return jnp.where(jnp.isfinite(value) & jnp.isfinite(error), status, Status.NOT_FINITE).astype(jnp.int32)


def _prepared(cost, problem: Problem):
    """The problem with a finite ε and, where it is small, its costs computed once.

    Returns:
        The function of its costs, the problem, and how far the costs are rounded.
    """
    kept = cost is not matrix_tile and problem.a.shape[0] * problem.b.shape[0] <= KEPT
    points, function = problem, exact_tile(cost) if kept else cost
    if kept:
        cost, problem = matrix_tile, problem._replace(rows=all_costs(cost, problem.rows, problem.columns), columns=())
    held = jax.lax.stop_gradient((points, problem))
    if cost is matrix_tile:
        # A cost that is not a number makes ε one that is not, which ends the first round.
        unknown = jnp.any(jnp.isnan(held[1].rows))
        problem = problem._replace(epsilon=jnp.where(unknown, jnp.nan, problem.epsilon))
        held = (held[0], held[1]._replace(epsilon=jax.lax.stop_gradient(problem.epsilon)))
    typical = typical_cost(cost, held[1])
    rounding = rounding_of(function, held[0].rows, held[0].columns, held[0].a, held[0].b, typical)
    infinite = jnp.isposinf(held[1].epsilon)
    finite = jax.lax.cond(
        infinite,
        lambda problem: INFINITE_EPSILON * jnp.maximum(largest_cost(cost, problem), jnp.finfo(problem.a.dtype).tiny),
        lambda problem: problem.epsilon,
        held[1],
    )
    return cost, problem._replace(epsilon=jnp.where(infinite, finite, problem.epsilon)), rounding


def _reachable(cost, problem: Problem):
    """The problem without mass that can go nowhere, as all costs of its row or column are infinite.

    Returns:
        The problem; whether such mass would have to move, so that there is no plan; and the price of leaving it, which
        is to be added to the dual.
    """
    zero = jnp.zeros_like(problem.epsilon)
    if cost is not matrix_tile:
        return problem, jnp.bool_(False), zero
    a, b, epsilon = problem.a, problem.b, problem.epsilon
    forbidden = jnp.isposinf(jax.lax.stop_gradient(problem.rows))
    reach = jnp.any(~forbidden & (b > 0)[None, :], axis=1), jnp.any(~forbidden & (a > 0)[:, None], axis=0)
    # Without mass, their costs may be anything finite.
    costs = jnp.where(forbidden & ~(reach[0][:, None] & reach[1][None, :]), 0, problem.rows)
    stuck, lost, left = jnp.bool_(False), zero, []
    for weight, within, rho in ((a, reach[0], problem.rho_a), (b, reach[1], problem.rho_b)):
        if rho is None:
            stuck |= jnp.any(~within & (weight > 0))
            left.append(weight)
        else:
            stuck |= jnp.any(~within & (weight > 0)) & jnp.isposinf(rho)
            left.append(jnp.where(within, weight, 0))
            gone = jnp.sum(weight) - jnp.sum(left[-1])
            lost += jnp.where(gone > 0, gone * rho, 0)
    lost += epsilon * (jnp.sum(a) * jnp.sum(b) - jnp.sum(left[0]) * jnp.sum(left[1]))
    return problem._replace(rows=costs, a=left[0], b=left[1]), stuck, lost


def _gauge(problem, f, g):
    """The pair with ⟨a, f⟩ = ⟨b, g⟩, where the plan leaves that open."""
    if not _free(problem):
        return f, g
    shift = (problem.a @ f - problem.b @ g) / (2 * jnp.sum(problem.a))
    return f - shift, g + shift


def _free(problem):
    return problem.rho_a is None and problem.rho_b is None


def _differentiable(cost, problem, f, g):
    """The same potentials, with their derivatives by the equation that a round leaves them as they are."""
    level = _level(problem, g)
    held_f, held_g = jax.lax.stop_gradient((f + level, g - level))
    inner = at_fixed_point(partial(_next_g, cost), held_g, problem)
    outer = with_derivative_of(partial(_best_f, cost), held_f, inner, problem)
    return _gauge(problem, outer, inner)


def _level(problem, g):
    """What makes ⟨b, g⟩ = 0, where a constant is free: without it the round's equation would have no one solution."""
    return problem.b @ g / jnp.sum(problem.b) if _free(problem) else jnp.zeros((), g.dtype)


def _next_g(cost: TileCost, g, problem: Problem):
    one = jnp.ones((), g.dtype)
    g = exact_round(cost, problem, jnp.zeros_like(problem.a), g, problem.epsilon, one).g
    return g - _level(problem, g)


def _best_f(cost: TileCost, g, problem: Problem) -> Any:
    constant = None if problem.rho_a is None else problem.paid_a(jnp.zeros_like(problem.a))
    return best(row_log_sum(cost, problem, g), problem.epsilon, problem.rho_a, constant)


def _published(xp, stated: Stated, solution: Solution) -> Transport:
    """A solution in the caller's units: with ``xp`` NumPy, in float64 on the host."""
    problem, units = stated.problem, stated.units
    traced = xp is jnp
    dtype = problem.a.dtype if traced else np.dtype(np.float64)

    def number(value):
        return xp.asarray(value).astype(dtype)

    def rescaled(value, exponent):
        return times_power_of_two(number(value), exponent) if traced else np.ldexp(number(value), exponent)

    def out(value):
        return value if traced else publish(value, units.dtype)

    a, b, c, d = (number(value) for value in (units.a, units.b, units.c, units.d))
    epsilon = rescaled(solution.epsilon, units.exponent)
    shift = -epsilon * (number(units.mass) * (math.log(2) / 2))
    f, g = (
        rescaled(potential, units.exponent) for potential in (trim(solution.f, stated.n), trim(solution.g, stated.m))
    )
    gauge = ((a @ (f + c)) - (b @ (g + d))) / (2 * xp.sum(a)) if _free(problem) else number(0)
    f, f_rest = _added(f, c, shift - gauge)
    g, g_rest = _added(g, d, shift + gauge)
    if not traced:
        # float64 into what is published, which may be float32.
        parts = [(out(high + low), high, low) for high, low in ((f, f_rest), (g, g_rest))]
        (f, f_rest), (g, g_rest) = [(top, out((high - np.asarray(top, dtype)) + low)) for top, high, low in parts]

    sums = xp.sum(number(problem.a)) * xp.sum(number(problem.b))
    # (1 − M)·M, with the unit M of the weights, in terms that do not overflow before they are multiplied.
    entropy = number(solution.epsilon) * sums
    value = number(solution.regularized_cost) - entropy + rescaled(entropy, units.mass)
    value = rescaled(rescaled(value, units.exponent), units.mass)
    transport_cost = rescaled(rescaled(solution.transport_cost, units.exponent), units.mass)
    for weight, constant, rho in ((a, c, problem.rho_a), (b, d, problem.rho_b)):
        if rho is None:
            value = value + weight @ (constant + shift)
            transport_cost = transport_cost + weight @ constant
    given = number(units.epsilon)
    return Transport(
        f,
        g,
        out(a),
        out(b),
        out(xp.where(xp.isfinite(given), given, epsilon)),
        out(transport_cost),
        out(value),
        out(number(solution.error)),
        solution.status,
        solution.steps,
        solution.history,
        jax.lax.stop_gradient(f_rest) if traced else f_rest,
        jax.lax.stop_gradient(g_rest) if traced else g_rest,
    )


def _added(first, *others):
    """The sum, and what rounding took from it (D. E. Knuth, The art of computer programming, 4.2.2, theorem B)."""
    total, rest = first, 0
    for other in others:
        raised = total + other
        taken = raised - total
        rest = rest + ((total - (raised - taken)) + (other - taken))
        total = raised
    return total, rest

"""Entropic optimal transport: potentials, costs of the plan, and their derivatives with respect to the problem.

>>> import numpy as np
>>> from jaxcluster import sinkhorn
>>> x = np.array([[0.0], [1.0]])
>>> solved = sinkhorn.solve(x, x + 1, epsilon=0.01)
>>> round(float(solved.transport_cost), 3)
1.0
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcluster.cluster.sinkhorn.folds import all_costs, spread_problem
from jaxcluster.cluster.sinkhorn.iteration import (
    Options,
    begin_loop,
    iterate_bursts,
    iterate_in_chunks,
    unrolled_updates,
)
from jaxcluster.cluster.sinkhorn.plan import (
    Solution,
    Transport,
    dual_objective,
    dual_objective_of,
    full_cost,
    full_cost_of,
    plan_marginal_error,
    plan_sums,
    publish_solution,
    rounding_of,
    weights_fixed,
)
from jaxcluster.cluster.sinkhorn.problem import (
    MAX_CACHED_COSTS,
    CheckedProblem,
    Problem,
    TileCost,
    exact_tile,
    matrix_problem,
    matrix_tile,
    points_problem,
    scaled,
)
from jaxcluster.cluster.sinkhorn.updates import (
    exponent_rounding,
    largest_cost,
    optimal_potential,
    row_log_sum,
    stable_update,
    typical_cost,
)
from jaxcluster.core import chunks, signals, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import times_power_of_two
from jaxcluster.core.implicit import at_optimum, implicit_fixed_point, with_derivative_of
from jaxcluster.core.iterate import history_capacity
from jaxcluster.core.processes import gather_parts, spans_processes, whole
from jaxcluster.core.shard import check_mesh
from jaxcluster.types import Status

INFINITE_EPSILON = 2.0**24
"""Finite ε, as a multiple of the largest cost, in place of an infinite one: exponents are then below the unit roundoff
of float32."""


@signals.keeping_result()
def solve(
    x: Any,
    y: Any,
    *,
    a: Any = None,
    b: Any = None,
    cost: str | Callable = "sqeuclidean",
    epsilon: Any,
    rho_a: Any = None,
    rho_b: Any = None,
    tol: Any = 1e-3,
    max_steps: Any = 5000,
    omega: Any = None,
    epsilon_decay: Any = 0.5,
    num_iters: int | None = None,
    start: Any = None,
    mesh: Mesh | None = None,
) -> Transport:
    """Entropic optimal transport of n weighted points onto m others; the cost matrix exists in tiles only.

    A pure function: it works under jit and vmap. ``regularized_cost`` has its gradient with respect to x, y, a, b,
    epsilon and the penalties by the envelope theorem, the potentials and ``transport_cost`` by the implicit function
    theorem. They are right where the iteration has converged, so ask for a small tol. Where both marginals are fixed,
    a and b may change with equal sums only: the gradient with respect to them is defined up to a constant.

    Args:
        x: (n_samples_x, n_features) points.
        y: (n_samples_y, n_features) points.
        a: (n,) non-negative weights of x, or None for 1/n each.
        b: (m,) non-negative weights of y, or None for 1/m each.
        cost: "sqeuclidean", "euclidean" or another name in `jaxcluster.ops.distance.METRICS`, or a callable of
            (t, d) and (m, d) points that returns (t, m) finite costs of either sign, at points of zeros too. Static:
            pass the same object again, or all is compiled again.
        epsilon: ε > 0 (units of the cost). Traced.
        rho_a: penalty ρ > 0 (units of the cost) on KL(P1 | a), or None for P1 = a. Traced.
        rho_b: penalty on KL(Pᵀ1 | b), or None for Pᵀ1 = b. Traced.
        tol: stop at this marginal error, a fraction of the weights (see `Transport`). Traced.
        max_steps: most iterations. Traced.
        omega: relaxation in (0, 2): above 1 is over-relaxation, which needs fewer iterations at a small ε; near 2 it
            may diverge. Traced. None chooses it from the rate of convergence (1 with ``num_iters``); like
            ``epsilon_decay=None`` it is a program of its own.
        epsilon_decay: factor in (0, 1) of the ε of the first iterations, from a typical cost down to ``epsilon``; later
            ε falls as 1/t², as a plan follows a smaller ε more slowly, in at most about a quarter of ``max_steps``.
            None begins with ``epsilon`` itself. Traced.
        num_iters: take exactly this many iterations (static), and differentiate through all of them instead.
        start: (m,) initial potentials of y, or None for 0.
        mesh: over whose devices concrete points x, and the rows of the plan, are spread; None for one. Where they are
            those of several processes, ``x`` and ``a`` are of this one, y and ``b`` the same in all; f is of its
            points, and each process needs memory for the points of all. Ctrl-C is then answered at the end.

    Returns:
        A `Transport`.

    Raises:
        ValueError, TypeError: wrong shapes, values or names, before anything is traced.

    Sources: M. Cuturi, Sinkhorn distances, NeurIPS 2013; A. Thibault, L. Chizat, C. Dossal and N. Papadakis,
    Overrelaxed Sinkhorn-Knopp algorithm for regularized optimal transport, Algorithms 14 (2021);
    T. Lehmann, M.-K. von Renesse, A. Sambale and A. Uschmajew, A note on overrelaxation in the Sinkhorn algorithm,
    Optimization Letters 16 (2022).
    """
    check_mesh(mesh)
    x, a, own = gather_parts(mesh, x, a)
    numbers = {"a": a, "b": b, "cost": cost, "epsilon": epsilon, "rho_a": rho_a, "rho_b": rho_b}
    problem = partial(points_problem, x, y, **numbers)
    return _own_part(transport_of(problem, tol, max_steps, omega, epsilon_decay, num_iters, start, mesh), own)


@signals.keeping_result()
def solve_cost(
    costs: Any,
    *,
    a: Any = None,
    b: Any = None,
    epsilon: Any,
    rho_a: Any = None,
    rho_b: Any = None,
    tol: Any = 1e-3,
    max_steps: Any = 5000,
    omega: Any = None,
    epsilon_decay: Any = 0.5,
    num_iters: int | None = None,
    start: Any = None,
    mesh: Mesh | None = None,
) -> Transport:
    """`solve` for an (n, m) matrix of costs of either sign; differentiable with respect to them too.

    A cost of +inf forbids its pair: no mass moves there. Constants of whole rows or columns change no plan whose
    marginals are fixed, however large they are.

    Args:
        costs: (n, m) cost matrix.
        a, b, epsilon, rho_a, rho_b, tol, max_steps, omega, epsilon_decay, num_iters, start, mesh: as in `solve`.

    Returns:
        A `Transport`.

    Raises:
        ValueError, TypeError: as `solve`; costs that are NaN or -inf; mass that must move and has all costs infinite.
    """
    check_mesh(mesh)
    costs, a, own = gather_parts(mesh, costs, a)
    numbers = {"a": a, "b": b, "epsilon": epsilon, "rho_a": rho_a, "rho_b": rho_b}
    problem = partial(matrix_problem, costs, **numbers)
    return _own_part(transport_of(problem, tol, max_steps, omega, epsilon_decay, num_iters, start, mesh), own)


def _own_part(transport: Transport, own: slice) -> Transport:
    """Transport with the rows of this process of a problem that each process has all rows of."""
    f, a, f_rest = (each if own == slice(None) else each[own] for each in (transport.f, transport.a, transport.f_rest))
    return transport._replace(f=f, a=a, f_rest=f_rest)


def transport_of(
    make_problem: Callable[..., CheckedProblem],
    tol,
    max_steps,
    omega=None,
    epsilon_decay=0.5,
    num_iters=None,
    start=None,
    mesh: Mesh | None = None,
    *,
    symmetric: bool = False,
) -> Transport:
    """Solve a problem in the caller's units; where float32 does not resolve concrete costs, again in float64.

    Args:
        make_problem: returns the checked problem, in float64 if called with ``wide=True``.
        mesh: over which rows are spread, or None.
        symmetric: True if rows and columns are the same points with the same weights.
    """
    options = check_options(tol, max_steps, omega, epsilon_decay, num_iters)
    checked = spread_problem(make_problem(), mesh)
    start = _check_start(start, checked.m)
    solution = solve_checked(checked, *options, start=start, symmetric=symmetric)
    if validation.is_traced(solution, start):
        return publish_solution(jnp, checked, solution)
    if int(solution.status) in (Status.PRECISION, Status.NOT_FINITE) and checked.problem.a.dtype != np.float64:
        # Costs and potentials need more digits than float32 has; the host has them.
        with jax.enable_x64(True):
            checked = spread_problem(make_problem(wide=True), mesh)
            solution = solve_checked(checked, *options, start=start, symmetric=symmetric)
    with np.errstate(invalid="ignore", over="ignore"):
        if spans_processes(mesh):
            solution = jax.tree.map(whole, solution)
            checked = checked._replace(problem=jax.tree.map(whole, checked.problem._replace(rows=())))
        return publish_solution(np, checked, jax.device_get(solution))


def solve_checked(
    checked: CheckedProblem,
    tol: Any,
    max_steps: Any,
    omega: Any = None,
    epsilon_decay: Any = 0.5,
    num_iters: Any = None,
    start: Any = None,
    *,
    symmetric: bool = False,
) -> Solution:
    """Solution of a checked problem in its frame, from initial potentials in the caller's units."""
    problem, units = checked.problem, checked.units
    dtype, size = problem.a.dtype, problem.b.shape[0]
    if start is None:
        start = jnp.zeros(size, dtype)
    else:
        # The inverse of `publish_solution`.
        inside = scaled(start - units.d, -units.exponent, dtype)
        start = jnp.pad(inside + problem.epsilon * (problem.log_mass / 2), (0, size - checked.m))
    adaptive = omega is None and num_iters is None and not symmetric
    capacity = history_capacity(max_steps) if num_iters is None else num_iters
    static = Options(checked.cost, num_iters, symmetric, epsilon_decay is not None, adaptive, capacity)
    omega, epsilon_decay = (1.0 if number is None else number for number in (omega, epsilon_decay))
    arguments = problem, _rounding_of_constants(checked), start, omega, epsilon_decay, tol, max_steps
    width = sum(leaf.shape[-1] for leaf in jax.tree.leaves(problem.columns))
    work = iteration_work(problem.a.shape[0], size, width)
    # The chunks of a process follow its clock, and all processes must run the same programs.
    alone = problem.devices is None or not spans_processes(problem.devices.mesh)
    if num_iters is None and alone and chunks.is_long(work, max_steps, *arguments):
        return _solve_in_chunks(static, *arguments, work=work)
    return _solve(static, *arguments)


def iteration_work(n: int, m: int, width: int) -> int:
    """Products and sums of an iteration on n by m pairs of points of ``width`` columns; an exponential is eight."""
    return n * m * (8 + width)


def _rounding_of_constants(checked: CheckedProblem):
    """Mean rounding of the constants that are added to the potentials of points (units of the frame)."""
    problem, units = checked.problem, checked.units
    if checked.cost is matrix_tile or not validation.is_traced(units.c, units.d):
        # On the host they are float64. Those of a matrix are entries of it, and the rounding of their sum with a
        # potential is published as f_rest and g_rest.
        return 0.0
    sizes = [
        weight @ jnp.abs(jnp.asarray(constant).astype(weight.dtype)) / jnp.sum(weight)
        for weight, constant in ((problem.a[: checked.n], units.c), (problem.b[: checked.m], units.d))
    ]
    # Three roundings of half a unit each: of the product with the points, of the sum, and of its scale.
    rounding = 1.5 * jnp.finfo(problem.a.dtype).eps * times_power_of_two(sizes[0] + sizes[1], -units.exponent)
    return jax.lax.stop_gradient(rounding)


def check_options(tol, max_steps, omega, epsilon_decay, num_iters) -> tuple[Any, ...]:
    """Check of the options of the iteration.

    Returns:
        tol, max_steps, omega, epsilon_decay and num_iters, NumPy's numbers as Python's.

    Raises:
        ValueError, TypeError: numbers out of range.
    """
    tol = validation.check_positive("tol", tol, zero=True)
    max_steps = validation.check_positive("max_steps", max_steps)
    max_steps = int(max_steps) if isinstance(max_steps, float) and math.isfinite(max_steps) else max_steps
    numbers = []
    for name, value, most in (("omega", omega, 2), ("epsilon_decay", epsilon_decay, 1)):
        if value is not None:
            value = validation.check_positive(name, value)
            if not validation.is_traced(value) and not value < most:
                raise ValueError(f"{name}={value} must be below {most}.")
        numbers.append(value)
    return tol, max_steps, *numbers, None if num_iters is None else validation.check_count("num_iters", num_iters)


def _check_start(start, m):
    if start is None:
        return None
    start = start if validation.is_traced(start) else np.asarray(start, np.float64)
    if start.shape != (m,):
        raise ValueError(f"start must have shape ({m},), one potential for each row of y, got {start.shape}.")
    return start


@persistent_jit(static_argnums=0)
def _solve(static, problem, constants_rounding, start, omega, epsilon_decay, tol, max_steps):
    operands, loop = _begin(static, problem, constants_rounding, start, omega, epsilon_decay, tol, max_steps)
    run = iterate_bursts(_cost_of(static, problem), static, operands.numbers, loop)
    return _end(static, problem, operands, run)


def _solve_in_chunks(static, problem, *arguments, work):
    """`_solve` of a concrete problem, which Ctrl-C can end with the potentials so far."""
    operands, loop = _compiled_begin(static, problem, *arguments)
    _compiled_end.compile(static, problem, operands, loop)
    run, interrupted = iterate_in_chunks(_cost_of(static, problem), static, operands.numbers, loop, work)
    solution = _compiled_end(static, problem, operands, run)
    if interrupted and int(solution.status) != Status.NOT_FINITE:
        solution = solution._replace(status=np.int32(Status.INTERRUPTED))
    return solution


class _Operands(NamedTuple):
    """A problem that can be iterated on.

    Attributes:
        problem: with finite ε, and without stranded mass.
        numbers: of the loop: the same problem, constant for gradients, rounding, schedule, tol or None, max_steps.
        options: start, omega and decay, constant too.
        tol: tolerance.
        infeasible: () True if stranded mass must move.
        lost: () penalty on leaving it.
    """

    problem: Problem
    numbers: tuple[Any, ...]
    options: tuple[Any, ...]
    tol: Any
    infeasible: Any
    lost: Any


def _cost_of(static, problem):
    """Cost function of the iterations: of all costs, where they are computed once."""
    cached = static.cost is not matrix_tile and problem.a.shape[0] * problem.b.shape[0] <= MAX_CACHED_COSTS
    return matrix_tile if cached else static.cost


def _begin(static, problem, constants_rounding, start, omega, epsilon_decay, tol, max_steps):
    dtype = problem.a.dtype
    numbers = (constants_rounding, omega, epsilon_decay, tol)
    constants_rounding, omega, epsilon_decay, tol = (jnp.asarray(each).astype(dtype) for each in numbers)
    cost, problem, rounding = _with_finite_epsilon(static.cost, problem)
    rounding = rounding._replace(fixed=rounding.fixed + constants_rounding)
    problem, infeasible, lost = _without_stranded_mass(cost, problem)
    # With a fixed number of iterations there is no tolerance: only NaN ends them earlier.
    max_steps = static.num_iters or max_steps
    detached = jax.lax.stop_gradient(problem)
    rounding, *options = jax.lax.stop_gradient((rounding, start, omega, epsilon_decay))
    loop, schedule = begin_loop(cost, static, detached, *options, max_steps)
    numbers = detached, rounding, schedule, None if static.num_iters else tol, max_steps
    return _Operands(problem, numbers, tuple(options), tol, infeasible, lost), loop


def _end(static, given, operands, run):
    cost, problem = _cost_of(static, given), operands.problem
    detached, rounding, _, _, max_steps = operands.numbers
    f, g = run.state.f, run.state.g
    if static.num_iters:
        detached = problem
        f, g = with_derivative_of(partial(unrolled_updates, cost, static), (f, g), problem, rounding, *operands.options)
    f, g = _gauge(detached, f, g)
    sums, rows = plan_sums(cost, detached, f, g)
    value = dual_objective(detached, f, g, sums.excess)
    transport_cost = full_cost(detached, sums, rows)
    error = plan_marginal_error(detached, f, g, rows, sums.columns)
    noise = exponent_rounding(detached, rounding, f, g, detached.epsilon)
    if not static.num_iters:
        f, g = _differentiable(cost, problem, f, g)
        value = at_optimum(partial(dual_objective_of, cost), value, (f, g), problem)
        transport_cost = with_derivative_of(partial(full_cost_of, cost), transport_cost, f, g, problem)
    value = value + operands.lost
    value, transport_cost, error = (
        jnp.where(operands.infeasible, jnp.inf, number) for number in (value, transport_cost, error)
    )
    status = _status(error, noise, value, operands.tol, run.steps, max_steps)
    return Solution(f, g, problem.epsilon, transport_cost, value, error, status, run.steps, run.history)


_compiled_begin = persistent_jit(_begin, static_argnums=0)
_compiled_end = persistent_jit(_end, static_argnums=0)


def _status(error, noise, value, tol, steps, max_steps):
    """`Status` from the marginal error of the plan, and the rounding that may add to it."""
    limited = (steps < max_steps) | (noise > tol)
    status = jnp.where(limited, Status.PRECISION, Status.MAX_STEPS)
    status = jnp.where(error + noise <= tol, Status.CONVERGED, status)
    return jnp.where(jnp.isfinite(value) & jnp.isfinite(error), status, Status.NOT_FINITE).astype(jnp.int32)


def _with_finite_epsilon(cost, problem: Problem):
    """Problem with a finite ε and, where it is small, its cost matrix.

    Returns:
        The cost function, the problem, and the rounding of the costs.
    """
    cached = cost is not matrix_tile and problem.a.shape[0] * problem.b.shape[0] <= MAX_CACHED_COSTS
    points, function = problem, exact_tile(cost) if cached else cost
    if cached:
        cost, problem = matrix_tile, problem._replace(rows=all_costs(cost, problem), columns=())
    detached = jax.lax.stop_gradient((points, problem))
    if cost is matrix_tile:
        # A NaN among the costs makes ε NaN, which ends the loop after one iteration.
        unknown = jnp.any(jnp.isnan(detached[1].rows))
        problem = problem._replace(epsilon=jnp.where(unknown, jnp.nan, problem.epsilon))
        detached = (detached[0], detached[1]._replace(epsilon=jax.lax.stop_gradient(problem.epsilon)))
    typical = typical_cost(cost, detached[1])
    rounding = rounding_of(function, detached[0].rows, detached[0].columns, detached[0].a, detached[0].b, typical)
    infinite = jnp.isposinf(detached[1].epsilon)
    finite = jax.lax.cond(
        infinite,
        lambda problem: INFINITE_EPSILON * jnp.maximum(largest_cost(cost, problem), jnp.finfo(problem.a.dtype).tiny),
        lambda problem: problem.epsilon,
        detached[1],
    )
    return cost, problem._replace(epsilon=jnp.where(infinite, finite, problem.epsilon)), rounding


def _without_stranded_mass(cost, problem: Problem):
    """Problem without the mass of rows and columns whose costs are all infinite.

    Returns:
        The problem; True if such mass must move, so that there is no plan; and the penalty on leaving it, a term of the
        dual objective.
    """
    zero = jnp.zeros_like(problem.epsilon)
    if cost is not matrix_tile:
        return problem, jnp.bool_(False), zero
    a, b, epsilon = problem.a, problem.b, problem.epsilon
    forbidden = jnp.isposinf(jax.lax.stop_gradient(problem.rows))
    reach = jnp.any(~forbidden & (b > 0)[None, :], axis=1), jnp.any(~forbidden & (a > 0)[:, None], axis=0)
    # Without mass, their costs may be any finite number.
    costs = jnp.where(forbidden & ~(reach[0][:, None] & reach[1][None, :]), 0, problem.rows)
    infeasible, lost, moving = jnp.bool_(False), zero, []
    for weight, within, rho in ((a, reach[0], problem.rho_a), (b, reach[1], problem.rho_b)):
        if rho is None:
            infeasible |= jnp.any(~within & (weight > 0))
            moving.append(weight)
        else:
            infeasible |= jnp.any(~within & (weight > 0)) & jnp.isposinf(rho)
            moving.append(jnp.where(within, weight, 0))
            stranded = jnp.sum(weight) - jnp.sum(moving[-1])
            lost += jnp.where(stranded > 0, stranded * rho, 0)
    lost += epsilon * (jnp.sum(a) * jnp.sum(b) - jnp.sum(moving[0]) * jnp.sum(moving[1]))
    return problem._replace(rows=costs, a=moving[0], b=moving[1]), infeasible, lost


def _gauge(problem, f, g):
    """Potentials with ⟨a, f⟩ = ⟨b, g⟩, where both marginals are fixed."""
    if not weights_fixed(problem):
        return f, g
    shift = (problem.a @ f - problem.b @ g) / (2 * jnp.sum(problem.a))
    return f - shift, g + shift


def _differentiable(cost, problem, f, g):
    """Potentials with implicit derivatives: at the fixed point an update leaves them as they are."""
    level = _level(problem, g)
    detached_f, detached_g = jax.lax.stop_gradient((f + level, g - level))
    inner = implicit_fixed_point(partial(_next_g, cost), detached_g, problem)
    outer = with_derivative_of(partial(_best_f, cost), detached_f, inner, problem)
    return _gauge(problem, outer, inner)


def _level(problem, g):
    """Constant to subtract from g for ⟨b, g⟩ = 0, where a constant is free; else 0."""
    # Without it the fixed point equation would have a line of solutions, and its Jacobian an eigenvalue of 1.
    return problem.b @ g / jnp.sum(problem.b) if weights_fixed(problem) else jnp.zeros((), g.dtype)


def _next_g(cost: TileCost, g, problem: Problem):
    one = jnp.ones((), g.dtype)
    g = stable_update(cost, problem, jnp.zeros_like(problem.a), g, problem.epsilon, one).g
    return g - _level(problem, g)


def _best_f(cost: TileCost, g, problem: Problem) -> Any:
    constant = None if problem.rho_a is None else problem.full_f(jnp.zeros_like(problem.a))
    return optimal_potential(row_log_sum(cost, problem, g), problem.epsilon, problem.rho_a, constant)

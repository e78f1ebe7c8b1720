"""Transport plans: the result of a solve, the objective of its plan, and products with it in tiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.sinkhorn.folds import fold_problem
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
    split,
    sqeuclidean_tile,
)
from jaxcluster.cluster.sinkhorn.updates import (
    Rounding,
    exponent_rounding,
    max_exponent,
    tile_inputs,
    typical_cost,
    weighted_mean,
)
from jaxcluster.core import memory, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import float_dtype, publish, sum_and_rounding, times_power_of_two
from jaxcluster.core.messages import facts, sparkline
from jaxcluster.core.preparation import unpad
from jaxcluster.ops import differences, distance
from jaxcluster.types import Array, Float, Int, ending_in_words

PLAN_ROUNDING = 1e-5
"""Mean error of the exponents of a plan above which a concrete one is computed in float64."""


class Transport(NamedTuple):
    """Solved problem of entropic optimal transport; its plan is P_ij = a_i·b_j·exp((f_i + g_j − C_ij)/epsilon).

    For concrete arguments the numbers are NumPy arrays, computed back into the caller's units on the host in float64,
    in float64 where the arguments were float64 or integers.

    Attributes:
        f: (n,) potentials of the rows (units of the cost). Where both marginals are fixed, f and g are unique up to a
            constant, which is set by ⟨a, f⟩ = ⟨b, g⟩.
        g: (m,) potentials of the columns.
        a: (n,) weights of the rows.
        b: (m,) weights of the columns.
        epsilon: () strength of the entropy; for an infinite one the finite one in its place.
        transport_cost: () ⟨P, C⟩; constants of the rows of C are counted at fixed weights a, not at the sums of P.
        regularized_cost: () ⟨P, C⟩ + ε·KL(P | a⊗b) and the penalties on the marginals; computed as the dual objective.
        error: () marginal error Σ|P1 − a| / Σa + Σ|Pᵀ1 − b| / Σb; with penalties, against the sums that are optimal for
            these potentials.
        status: () int32, a `jaxcluster.types.Status`: CONVERGED where the error and its rounding are within the
            tolerance; PRECISION where rounding alone is not, as the costs are too large beside ε for the precision of
            the computation: take a larger ε, or ``jax_enable_x64``; NOT_FINITE where no plan exists, for example
            because all costs of a row are infinite.
        steps: () int32, iterations.
        history: (capacity,) marginal error of each iteration; 0 from ``steps`` on.
        f_rest: (n,) rounding of f: ``error`` is that of the plan of f + f_rest and g + g_rest.
        g_rest: (m,) rounding of g.
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

    def __repr__(self) -> str:
        """Shapes, cost and ending, not potentials: ``Transport(f (20,), g (30,), transport cost 1.2, 7 steps, …)``."""
        parts = [f"{name} {tuple(np.shape(getattr(self, name)))}" for name in ("f", "g")]
        if np.shape(self.transport_cost) == () and not validation.is_traced(self.transport_cost):
            parts.append(f"transport cost {float(self.transport_cost):.6g}")
        return f"Transport({', '.join([*parts, ending_in_words(self.steps, self.status)])})"

    def _repr_html_(self) -> str:
        """The same with a curve of the marginal error, for a notebook."""
        one = np.shape(self.steps) == () and not validation.is_traced(self.steps)
        errors = sparkline(np.asarray(self.history)[: int(self.steps)], "marginal error") if one else ""
        return facts(repr(self), {"marginal error": errors})


class Solution(NamedTuple):
    """Solved problem in its frame, with padding; see `Transport`."""

    f: Float[Array, " n"]
    g: Float[Array, " m"]
    epsilon: Float[Array, ""]
    transport_cost: Float[Array, ""]
    regularized_cost: Float[Array, ""]
    error: Float[Array, ""]
    status: Int[Array, ""]
    steps: Int[Array, ""]
    history: Float[Array, " capacity"]


def plan(transport: Transport, x: Any, y: Any, *, cost: str | Callable = "sqeuclidean") -> Array | np.ndarray:
    """Transport plan between the points that were solved for.

    Args:
        transport: result of `solve`.
        x: (n_samples_x, n_features) points that were passed to `solve`.
        y: (n_samples_y, n_features) points that were passed to `solve`.
        cost: cost that was passed to `solve`.

    Returns:
        (n_samples_x, n_samples_y) plan, with row sums a and column sums b up to ``transport.error``.

    Raises:
        ValueError, TypeError: another number of points than in ``transport``, or a wrong cost.
        MemoryError: a plan that does not fit.
    """
    return _product_of(transport, None, partial(points_problem, x, y, cost=cost), False)


def plan_cost(transport: Transport, costs: Any) -> Array | np.ndarray:
    """Transport plan (n, m) of a problem that was solved by its (n, m) cost matrix; see `plan`."""
    return _product_of(transport, None, _make_problem(transport, costs), False)


def apply(
    transport: Transport, v: Any, x: Any, y: Any, *, cost: str | Callable = "sqeuclidean", transpose: bool = False
) -> Array | np.ndarray:
    """Product P·v or Pᵀ·v of the plan, which exists in tiles only. Differentiable.

    Args:
        transport: result of `solve`.
        v: (m,) or (m, c) vectors; (n,) or (n, c) for the transpose. With v = y, P·v / a is the barycentric projection.
        x: (n_samples_x, n_features) points that were passed to `solve`.
        y: (n_samples_y, n_features) points that were passed to `solve`.
        cost: cost that was passed to `solve`.
        transpose: True multiplies by Pᵀ.

    Returns:
        (n,) or (n, c) product; (m,) or (m, c) for the transpose.

    Raises:
        ValueError, TypeError: shapes that do not belong together.
    """
    return _product_of(transport, v, partial(points_problem, x, y, cost=cost), transpose)


def apply_cost(transport: Transport, v: Any, costs: Any, *, transpose: bool = False) -> Array | np.ndarray:
    """`apply` for a problem that was solved by its (n, m) cost matrix."""
    return _product_of(transport, v, _make_problem(transport, costs), transpose)


# -- objective and marginals -------------------------------------------------------------------------------------------


class PlanSums(NamedTuple):
    """Sums over the entries of a plan P.

    Attributes:
        cost: () ⟨P, C⟩.
        excess: () mass ΣP − Σa·Σb, summed from the differences of P and a⊗b: at a large ε it is far below either.
        columns: (m,) sums by column.
    """

    cost: Float[Array, ""]
    excess: Float[Array, ""]
    columns: Float[Array, " m"]


def densities(cost: TileCost, problem: Problem, rows, f, g):
    """Density of a plan against its weights, K = exp((f + g − C)/ε), in a tile.

    Returns:
        C, (f + g − C)/ε and K. Forbidden pairs have cost 0, exponent 0 and density 0.
    """
    costs, forbidden = split(cost(rows, problem.columns))
    exponents = (f[:, None] + g[None, :] - costs) / problem.epsilon
    exponents = jnp.where(forbidden, 0, jnp.minimum(exponents, max_exponent(exponents.dtype)))
    return costs, exponents, jnp.where(forbidden, 0, jnp.exp(exponents))


def plan_sums(cost: TileCost, problem: Problem, f, g) -> tuple[PlanSums, Float[Array, " n"]]:
    """Sums of a plan, in tiles.

    Returns:
        The sums over all entries, and the (n,) sums by row.
    """

    @jax.checkpoint
    def tile(rows):
        rows, a, f = rows
        costs, exponents, density = densities(cost, problem, rows, f, g)
        excess = jnp.where(density > 0, jnp.expm1(exponents), -1)
        worth = PlanSums(a @ ((density * costs) @ problem.b), a @ (excess @ problem.b), problem.b * (a @ density))
        return worth, a * (density @ problem.b)

    return fold_problem(problem, tile, tile_inputs(problem, f))


def full_cost_of(cost: TileCost, f, g, problem: Problem) -> Float[Array, ""]:
    """`full_cost` of the plan of potentials, as a function of the problem."""
    return full_cost(problem, *plan_sums(cost, problem, f, g))


def full_cost(problem: Problem, sums: PlanSums, rows: Array) -> Float[Array, ""]:
    """Transport cost ⟨P, C⟩, including the constants of costs whose marginals have a penalty."""
    total = sums.cost
    for marginal, constant in ((rows, problem.constant_a), (sums.columns, problem.constant_b)):
        if constant is not None:
            total = total + marginal @ constant
    return total


def dual_objective(problem: Problem, f, g, excess) -> Float[Array, ""]:
    """Dual objective ⟨a, φ(f)⟩ + ⟨b, φ(g)⟩ − ε·(ΣP − Σa·Σb): the optimal value of the primal at optimal f and g."""
    gain = problem.a @ _gain(f, problem.rho_a, problem.full_f) + problem.b @ _gain(g, problem.rho_b, problem.full_g)
    return gain - problem.epsilon * excess


def dual_objective_of(cost: TileCost, potentials, problem: Problem) -> Float[Array, ""]:
    """`dual_objective` of potentials (f, g), as a function of the problem."""
    f, g = potentials
    return dual_objective(problem, f, g, plan_sums(cost, problem, f, g)[0].excess)


def plan_marginal_error(problem: Problem, f, g, rows: Array, columns: Array) -> Float[Array, ""]:
    """L1 distance of the marginals of a plan from their targets, as a fraction of the weights."""

    def off(sums, weight, potential, rho, full):
        target = (
            weight if rho is None else weight * jnp.exp(jnp.minimum(-full(potential) / rho, max_exponent(weight.dtype)))
        )
        return jnp.sum(jnp.abs(sums - target)) / jnp.sum(weight)

    rows_off = off(rows, problem.a, f, problem.rho_a, problem.full_f)
    return rows_off + off(columns, problem.b, g, problem.rho_b, problem.full_g)


def _gain(potential, rho, full):
    """Conjugate φ of a marginal constraint: the potential itself, or −ρ·(exp(−t/ρ) − 1) of the full one, t."""
    if rho is None:
        return potential
    infinite = jnp.isposinf(rho)
    finite = jnp.where(infinite, 1, rho)
    whole = full(potential)
    return jnp.where(infinite, whole, -finite * jnp.expm1(jnp.minimum(-whole / finite, max_exponent(whole.dtype))))


def rounding_of(cost: TileCost, rows: Any, columns: Any, a: Array, b: Array, typical: Array) -> Rounding:
    """Rounding error of the costs, from the norms of the points.

    Args:
        typical: () a cost that is neither small nor large, for costs of which nothing else is known.
    """
    # Each coordinate is off by half a unit in its last place.
    zero, eps = jnp.zeros_like(a[0]), jnp.finfo(a.dtype).eps
    if cost is matrix_tile:
        return Rounding(zero, zero)

    def squares():
        return weighted_mean(a, distance.squared_norms(rows)), weighted_mean(b, distance.squared_norms(columns))

    if cost in (sqeuclidean_tile, differences.squared_distances):
        left, right = squares()
        # d‖x − y‖² = 2(x − y)·(dx − dy); an expanded square is a sum of numbers as large as ‖x‖² and ‖y‖².
        expanded = cost is sqeuclidean_tile and rows.shape[1] > distance.DIFFERENCE_COLUMNS
        return Rounding(eps * (left + right) if expanded else zero, eps * (jnp.sqrt(left) + jnp.sqrt(right)))
    if cost in (distance.manhattan, distance.chebyshev, distance.euclidean, differences.distances):
        fixed = eps * (
            weighted_mean(a, jnp.sum(jnp.abs(rows), axis=1)) + weighted_mean(b, jnp.sum(jnp.abs(columns), axis=1))
        )
        if cost is distance.euclidean and rows.shape[1] > distance.DIFFERENCE_COLUMNS:
            # d√s = ds/(2√s), s an expanded square.
            fixed = fixed + eps * sum(squares()) / (2 * jnp.where(typical > 0, typical, 1))
        return Rounding(fixed, zero)
    # The other metrics are angles, fractions or quotients, about 1 at most; of a caller's cost nothing is known.
    return Rounding(eps * (typical if cost not in distance.METRICS.values() else jnp.ones_like(typical)), zero)


# -- the caller's units ------------------------------------------------------------------------------------------------


def weights_fixed(problem: Problem) -> bool:
    """True if both marginals are fixed, so that a constant may move from f to g."""
    return problem.rho_a is None and problem.rho_b is None


def publish_solution(xp, checked: CheckedProblem, solution: Solution) -> Transport:
    """Solution in the caller's units; with NumPy as ``xp``, in float64 on the host."""
    problem, units = checked.problem, checked.units
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
        rescaled(potential, units.exponent)
        for potential in (unpad(solution.f, checked.n), unpad(solution.g, checked.m))
    )
    gauge = ((a @ (f + c)) - (b @ (g + d))) / (2 * xp.sum(a)) if weights_fixed(problem) else number(0)
    f, f_rest = sum_and_rounding(f, c, shift - gauge)
    g, g_rest = sum_and_rounding(g, d, shift + gauge)
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
    asked = number(units.epsilon)
    return Transport(
        f,
        g,
        out(a),
        out(b),
        out(xp.where(xp.isfinite(asked), asked, epsilon)),
        out(transport_cost),
        out(value),
        out(number(solution.error)),
        solution.status,
        solution.steps,
        solution.history,
        jax.lax.stop_gradient(f_rest) if traced else f_rest,
        jax.lax.stop_gradient(g_rest) if traced else g_rest,
    )


# -- products ----------------------------------------------------------------------------------------------------------


def _make_problem(transport, costs):
    """Problem with costs C − f − g, which are small wherever there is mass."""
    costs = validation.check_matrix(costs, name="costs")
    if costs.shape != (len(transport.f), len(transport.g)):
        raise ValueError(
            f"costs has shape {costs.shape}, and was ({len(transport.f)}, {len(transport.g)}) where it was solved for."
        )
    return partial(matrix_problem, costs, constants=(transport.f, transport.g))


def _product_of(
    transport: Transport, v, make_problem: Callable[..., CheckedProblem], transpose: bool
) -> Array | np.ndarray:
    """Product of the plan with v, or the plan itself for None."""
    # Penalties on both sides, so that the sums of the weights need not agree.
    numbers = {"a": transport.a, "b": transport.b, "epsilon": transport.epsilon, "rho_a": 1.0, "rho_b": 1.0}
    checked = make_problem(**numbers)
    if v is None:
        remedy = "Use sinkhorn.apply, or fewer rows."
        memory.check_table(checked.n, checked.m, np.float64, "the transport plan", remedy)
    v = _vectors(v, checked, transpose)
    traced = validation.is_traced(transport, v, checked.problem)
    # Concrete float64, and exponents that float32 does not resolve, are computed in float64: it is one pass.
    if not traced and checked.problem.a.dtype != np.float64:
        published = _published_dtype(transport, v, checked)
        if published == np.float64 or float(_rounding(checked.cost, *_inside(transport, checked))) > PLAN_ROUNDING:
            with jax.enable_x64(True):
                checked = make_problem(**numbers, wide=True)
                return publish(np.asarray(_in_tiles(transport, v, checked, transpose)), published)
        return publish(np.asarray(_in_tiles(transport, v, checked, transpose)), published)
    return _in_tiles(transport, v, checked, transpose)


def _published_dtype(transport, v, checked):
    arrays = (transport.f, transport.a) + (() if v is None or isinstance(v, jax.Array) else (v,))
    wide = any(np.asarray(array).dtype == np.float64 for array in arrays)
    return np.dtype(np.float64) if wide else np.promote_types(checked.units.dtype, np.float32)


def _vectors(v, checked, transpose):
    """Check of the vectors; concrete ones as NumPy arrays."""
    if v is None:
        return None
    v = v if validation.is_traced(v) or isinstance(v, jax.Array) else np.asarray(v)
    v = validation.widen(v)
    along = checked.n if transpose else checked.m
    if v.ndim not in (1, 2) or v.shape[0] != along:
        raise ValueError(f"v must have shape ({along},) or ({along}, c) to be multiplied by the plan, got {v.shape}.")
    return v


def _inside(transport, checked):
    """Problem, and potentials f and g in its frame."""
    problem, units = checked.problem, checked.units
    dtype = problem.a.dtype

    traced = validation.is_traced(transport, units, problem)

    def number(value):
        return jnp.asarray(value).astype(dtype) if traced else np.asarray(value, np.float64)

    def inside(potential, rest, size):
        if traced:
            shifted = times_power_of_two(potential + rest, -units.exponent)
        else:
            shifted = scaled(potential + rest, -units.exponent, dtype)
        return jnp.pad(shifted + problem.epsilon * (problem.log_mass / 2), (0, size - shifted.shape[0]))

    # What is left of a potential may be as large as the constants, on one side as much as on the other: a plan fixes
    # potentials up to such a number. It is taken off, with the rounding of each difference, before the sum is rounded.
    (f, f_rest), (g, g_rest) = (
        sum_and_rounding(number(potential), -number(constant))
        for potential, constant in ((transport.f, units.c), (transport.g, units.d))
    )
    gauge = f[0]
    f = inside(f - gauge, f_rest + number(transport.f_rest), problem.a.shape[0])
    g = inside(g + gauge, g_rest + number(transport.g_rest), problem.b.shape[0])
    return problem, f, g


def _in_tiles(transport, v, checked, transpose):
    problem, f, g = _inside(transport, checked)
    dtype, sizes = problem.a.dtype, (problem.a.shape[0], problem.b.shape[0])
    cost = exact_tile(checked.cost) if math.prod(sizes) <= MAX_CACHED_COSTS else checked.cost
    if v is None:
        product = _plan((cost,), problem, f, g)
        product = unpad(unpad(product, checked.n, axis=0), checked.m, axis=1)
    else:
        vectors = jnp.asarray(v, dtype if validation.is_traced(v) else float_dtype(dtype))
        vectors = vectors[:, None] if v.ndim == 1 else vectors
        vectors = jnp.pad(vectors, ((0, sizes[0 if transpose else 1] - vectors.shape[0]), (0, 0)))
        product = unpad(
            _product((cost, bool(transpose)), problem, f, g, vectors), checked.m if transpose else checked.n, axis=0
        )
        product = product[:, 0] if v.ndim == 1 else product
    if validation.is_traced(product, checked.units.mass):
        return times_power_of_two(product, checked.units.mass)
    return np.ldexp(np.asarray(product, np.float64), checked.units.mass)


@persistent_jit(static_argnums=0)
def _plan(static, problem: Problem, f, g):
    (cost,) = static

    @jax.checkpoint
    def tile(rows):
        rows, a, f = rows
        return (), a[:, None] * densities(cost, problem, rows, f, g)[2] * problem.b[None, :]

    return fold_problem(problem, tile, tile_inputs(problem, f))[1]


@persistent_jit(static_argnums=0)
def _product(static, problem: Problem, f, g, vectors):
    cost, transpose = static

    @jax.checkpoint
    def tile(rows):
        if transpose:
            rows, a, f, v = rows
            return densities(cost, problem, rows, f, g)[2].T @ (a[:, None] * v), ()
        rows, a, f = rows
        return (), a[:, None] * (densities(cost, problem, rows, f, g)[2] @ (problem.b[:, None] * vectors))

    rows = tile_inputs(problem, f, vectors) if transpose else tile_inputs(problem, f)
    summary, per_row = fold_problem(problem, tile, rows)
    return problem.b[:, None] * summary if transpose else per_row


@persistent_jit(static_argnums=0)
def _rounding(cost, problem: Problem, f, g):
    rounding = rounding_of(cost, problem.rows, problem.columns, problem.a, problem.b, typical_cost(cost, problem))
    return exponent_rounding(problem, rounding, f, g, problem.epsilon)

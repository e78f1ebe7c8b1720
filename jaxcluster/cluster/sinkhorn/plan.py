"""The plan itself: all of it for small problems, and its products with vectors in tiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.sinkhorn.cost import KEPT, exact_tile, rounding_of, tile_for
from jaxcluster.cluster.sinkhorn.iteration import exponent_rounding
from jaxcluster.cluster.sinkhorn.problem import Problem, Stated, matrix_problem, points_problem, scaled
from jaxcluster.cluster.sinkhorn.rounds import rows_of, typical_cost
from jaxcluster.cluster.sinkhorn.solve import Transport
from jaxcluster.cluster.sinkhorn.value import densities
from jaxcluster.core import check, memory
from jaxcluster.core.fold import fold_rows
from jaxcluster.core.frame import float_dtype, publish, times_power_of_two, trim
from jaxcluster.types import Array

PLAN_ROUNDING = 1e-5
"""Mean error of the exponents of a plan from which on a concrete one is computed in float64."""


def plan(transport: Transport, x, y, *, cost: str | Callable = "sqeuclidean") -> Array | np.ndarray:
    """The (n, m) plan between the rows that ``transport`` was solved for, with the same cost.

    Raises:
        ValueError, TypeError: rows that are not those of ``transport`` in number, or a wrong cost.
    """
    return _product_of(transport, None, partial(points_problem, x, y, cost=cost), False)


def plan_cost(transport: Transport, costs) -> Array | np.ndarray:
    """The (n, m) plan of a problem that was stated by its matrix of costs."""
    return _product_of(transport, None, _statement(transport, costs), False)


def apply(
    transport: Transport, v, x, y, *, cost: str | Callable = "sqeuclidean", transpose: bool = False
) -> Array | np.ndarray:
    """P·v, or Pᵀ·v, without P: costs and plan exist in tiles alone. Differentiable.

    Args:
        transport: the result of `solve`.
        v: (m,) or (m, c); (n,) or (n, c) for the transpose. With v = y, P·v / a are the means of what rows move to.
        x: (n, d) the rows that it was solved for.
        y: (m, d) the same.
        cost: the same.
        transpose: Pᵀ instead of P.

    Raises:
        ValueError, TypeError: shapes that do not belong together.
    """
    return _product_of(transport, v, partial(points_problem, x, y, cost=cost), transpose)


def apply_cost(transport: Transport, v, costs, *, transpose: bool = False) -> Array | np.ndarray:
    """`apply` for a problem that was stated by its matrix of costs."""
    return _product_of(transport, v, _statement(transport, costs), transpose)


def _statement(transport, costs):
    """A problem whose costs are C − f − g: small wherever there is mass, whatever C and the potentials are."""
    costs = check.check_matrix(costs, name="costs")
    if costs.shape != (len(transport.f), len(transport.g)):
        raise ValueError(
            f"costs has shape {costs.shape}, and was ({len(transport.f)}, {len(transport.g)}) where it was solved for."
        )
    return partial(matrix_problem, costs, constants=(transport.f, transport.g))


def _product_of(transport: Transport, v, statement: Callable[..., Stated], transpose: bool) -> Array | np.ndarray:
    """The plan's product with v, or the plan itself where that is None.

    Concrete float64 is computed in float64, and so is what float32 cannot tell apart: it is one pass over the costs.
    """
    # A price on either side, so that nothing is asked of the sums of the weights.
    numbers = {"a": transport.a, "b": transport.b, "epsilon": transport.epsilon, "rho_a": 1.0, "rho_b": 1.0}
    stated = statement(**numbers)
    if v is None:
        remedy = "Use sinkhorn.apply, or fewer rows."
        memory.check_table(stated.n, stated.m, np.float64, "the shares of the plan", remedy)
    v = _vectors(v, stated, transpose)
    traced = check.is_traced(transport, v, stated.problem)
    if not traced and stated.problem.a.dtype != np.float64:
        published = _published_dtype(transport, v, stated)
        if published == np.float64 or float(_rounding(stated.cost, *_inside(transport, stated))) > PLAN_ROUNDING:
            with jax.enable_x64(True):
                stated = statement(**numbers, wide=True)
                return publish(np.asarray(_in_tiles(transport, v, stated, transpose)), published)
        return publish(np.asarray(_in_tiles(transport, v, stated, transpose)), published)
    return _in_tiles(transport, v, stated, transpose)


def _published_dtype(transport, v, stated):
    arrays = (transport.f, transport.a) + (() if v is None or isinstance(v, jax.Array) else (v,))
    wide = any(np.asarray(array).dtype == np.float64 for array in arrays)
    return np.dtype(np.float64) if wide else np.promote_types(stated.units.dtype, np.float32)


def _vectors(v, stated, transpose):
    """v as (m, c) or (n, c) or as it is, concrete numbers on the host."""
    if v is None:
        return None
    v = v if check.is_traced(v) or isinstance(v, jax.Array) else np.asarray(v)
    v = check.widen(v)
    along = stated.n if transpose else stated.m
    if v.ndim not in (1, 2) or v.shape[0] != along:
        raise ValueError(f"v must have shape ({along},) or ({along}, c) to be multiplied by the plan, got {v.shape}.")
    return v


def _inside(transport, stated):
    """The problem and the potentials in its frame."""
    problem, units = stated.problem, stated.units
    dtype = problem.a.dtype

    def inside(potential, rest, constant, size):
        if check.is_traced(potential, rest, constant, problem):
            left = jnp.asarray(potential).astype(dtype) - jnp.asarray(constant).astype(dtype)
            left = times_power_of_two(left + jnp.asarray(rest).astype(dtype), -units.exponent)
        else:
            wide = [np.asarray(part, np.float64) for part in (potential, constant, rest)]
            left = scaled(wide[0] - wide[1] + wide[2], -units.exponent, dtype)
        return jnp.pad(left + problem.epsilon * (problem.log_mass / 2), (0, size - left.shape[0]))

    f = inside(transport.f, transport.f_rest, units.c, problem.a.shape[0])
    g = inside(transport.g, transport.g_rest, units.d, problem.b.shape[0])
    return problem, f, g


def _in_tiles(transport, v, stated, transpose):
    problem, f, g = _inside(transport, stated)
    dtype, sizes = problem.a.dtype, (problem.a.shape[0], problem.b.shape[0])
    cost = exact_tile(stated.cost) if math.prod(sizes) <= KEPT else stated.cost
    if v is None:
        product = _plan((cost,), problem, f, g)
        product = trim(trim(product, stated.n, axis=0), stated.m, axis=1)
    else:
        vectors = jnp.asarray(v, dtype if check.is_traced(v) else float_dtype(dtype))
        vectors = vectors[:, None] if v.ndim == 1 else vectors
        vectors = jnp.pad(vectors, ((0, sizes[0 if transpose else 1] - vectors.shape[0]), (0, 0)))
        product = trim(
            _product((cost, bool(transpose)), problem, f, g, vectors), stated.m if transpose else stated.n, axis=0
        )
        product = product[:, 0] if v.ndim == 1 else product
    if check.is_traced(product, stated.units.mass):
        return times_power_of_two(product, stated.units.mass)
    return np.ldexp(np.asarray(product, np.float64), stated.units.mass)


@partial(jax.jit, static_argnums=0)
def _plan(static, problem: Problem, f, g):
    (cost,) = static

    @jax.checkpoint
    def tile(rows):
        rows, a, f = rows
        return (), a[:, None] * densities(cost, problem, rows, f, g)[2] * problem.b[None, :]

    return fold_rows(tile, rows_of(problem, f), tile=tile_for(problem.a.shape[0], problem.b.shape[0]))[1]


@partial(jax.jit, static_argnums=0)
def _product(static, problem: Problem, f, g, vectors):
    cost, transpose = static

    @jax.checkpoint
    def tile(rows):
        if transpose:
            rows, a, f, v = rows
            return densities(cost, problem, rows, f, g)[2].T @ (a[:, None] * v), ()
        rows, a, f = rows
        return (), a[:, None] * (densities(cost, problem, rows, f, g)[2] @ (problem.b[:, None] * vectors))

    rows = rows_of(problem, f, vectors) if transpose else rows_of(problem, f)
    summary, per_row = fold_rows(tile, rows, tile=tile_for(problem.a.shape[0], problem.b.shape[0]))
    return problem.b[:, None] * summary if transpose else per_row


@partial(jax.jit, static_argnums=0)
def _rounding(cost, problem: Problem, f, g):
    rounding = rounding_of(cost, problem.rows, problem.columns, problem.a, problem.b, typical_cost(cost, problem))
    return exponent_rounding(problem, rounding, f, g, problem.epsilon)

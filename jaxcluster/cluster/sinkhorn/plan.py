"""The plan itself: all of it for small problems, and its products with vectors in tiles."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxcluster.cluster.sinkhorn.cost import tile_for
from jaxcluster.cluster.sinkhorn.problem import Problem, Stated, matrix_problem, points_problem
from jaxcluster.cluster.sinkhorn.rounds import rows_of
from jaxcluster.cluster.sinkhorn.solve import Transport
from jaxcluster.cluster.sinkhorn.value import densities
from jaxcluster.core.fold import fold_rows
from jaxcluster.core.rows import trim
from jaxcluster.types import Array, Float


def plan(transport: Transport, x, y, *, cost: str | Callable = "sqeuclidean") -> Float[Array, "n m"]:
    """The (n, m) plan between the rows that ``transport`` was solved for, with the same cost.

    Raises:
        ValueError, TypeError: rows that are not those of ``transport`` in number, or a wrong cost.
    """
    return apply(transport, jnp.eye(transport.g.shape[0], dtype=transport.g.dtype), x, y, cost=cost)


def plan_cost(transport: Transport, costs) -> Float[Array, "n m"]:
    """The (n, m) plan of a problem that was stated by its matrix of costs."""
    return apply_cost(transport, jnp.eye(transport.g.shape[0], dtype=transport.g.dtype), costs)


def apply(transport: Transport, v, x, y, *, cost: str | Callable = "sqeuclidean", transpose: bool = False) -> Array:
    """P·v, or Pᵀ·v, without P: costs and plan exist in tiles alone. Differentiable.

    Args:
        transport: what `solve` returned.
        v: (m,) or (m, c); (n,) or (n, c) for the transpose. With v = y, P·v / a are the means of what rows move to.
        x: (n, d) the rows that it was solved for.
        y: (m, d) the same.
        cost: the same.
        transpose: Pᵀ instead of P.

    Raises:
        ValueError, TypeError: shapes that do not belong together.
    """
    numbers = {"a": transport.a, "b": transport.b, "epsilon": transport.epsilon, "rho_a": 1.0, "rho_b": 1.0}
    return _apply(transport, v, points_problem(x, y, cost=cost, **numbers), transpose)


def apply_cost(transport: Transport, v, costs, *, transpose: bool = False) -> Array:
    """`apply` for a problem that was stated by its matrix of costs."""
    numbers = {"a": transport.a, "b": transport.b, "epsilon": transport.epsilon, "rho_a": 1.0, "rho_b": 1.0}
    return _apply(transport, v, matrix_problem(costs, **numbers), transpose)


def _apply(transport, v, stated: Stated, transpose):
    v = jnp.asarray(v, transport.f.dtype)
    along = stated.n if transpose else stated.m
    if v.ndim not in (1, 2) or v.shape[0] != along:
        raise ValueError(f"v must have shape ({along},) or ({along}, c) to be multiplied by the plan, got {v.shape}.")
    vectors = v[:, None] if v.ndim == 1 else v
    n, m = stated.problem.a.shape[0], stated.problem.b.shape[0]
    f, g = jnp.pad(transport.f, (0, n - stated.n)), jnp.pad(transport.g, (0, m - stated.m))
    vectors = jnp.pad(vectors, ((0, (n if transpose else m) - along), (0, 0)))
    product = _product((stated.cost, bool(transpose)), stated.problem, f, g, vectors)
    product = trim(product, stated.m if transpose else stated.n, axis=0)
    return product[:, 0] if v.ndim == 1 else product


@partial(jax.jit, static_argnums=0)
def _product(static, problem: Problem, f, g, vectors):
    cost, transpose = static

    @jax.checkpoint
    def tile(rows):
        if transpose:
            rows, a, f, v = rows
            density = densities(cost, problem, rows, f, g)[1]
            return density.T @ (a[:, None] * v), ()
        rows, a, f = rows
        density = densities(cost, problem, rows, f, g)[1]
        return (), a[:, None] * (density @ (problem.b[:, None] * vectors))

    rows = rows_of(problem, f, vectors) if transpose else rows_of(problem, f)
    summary, per_row = fold_rows(tile, rows, tile=tile_for(problem.a.shape[0], problem.b.shape[0]))
    return problem.b[:, None] * summary if transpose else per_row

"""Sinkhorn's divergence: the regularised cost, less what it costs to stay."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from jaxcluster.cluster.sinkhorn.problem import Stated, points_problem
from jaxcluster.cluster.sinkhorn.solve import solve_stated
from jaxcluster.types import Array, Float


def divergence(
    x,
    y,
    *,
    a=None,
    b=None,
    cost: str | Callable = "sqeuclidean",
    epsilon,
    rho=None,
    tol=1e-3,
    max_steps=5000,
    omega=None,
    anneal=0.5,
) -> Float[Array, ""]:
    """OT(x, y) − (OT(x, x) + OT(y, y))/2 + (ε/2)·(Σa − Σb)²: how far two weighted sets of rows are apart.

    OT is the ``regularized_cost`` of `solve`. Never negative and 0 for equal measures where exp(−cost/ε) is a positive
    definite kernel, as it is for both costs by name. Differentiable by the envelope theorem with respect to x, y, a, b,
    epsilon and rho.

    Args:
        x: (n, d) rows.
        y: (m, d) rows.
        a: (n,) weights of x, or None for 1/n each.
        b: (m,) weights of y, or None for 1/m each.
        cost: as in `solve`, symmetric.
        epsilon: ε > 0 (units of the cost).
        rho: penalty on leaving the weights of either side, or None where they hold exactly.
        tol, max_steps, omega, anneal: as in `solve`.

    Raises:
        ValueError, TypeError: as `solve`.

    Source: T. Séjourné, J. Feydy, F.-X. Vialard, A. Trouvé and G. Peyré, Sinkhorn divergences for unbalanced optimal
    transport (2019); J. Feydy et al., Interpolating between optimal transport and MMD using Sinkhorn divergences,
    AISTATS 2019.
    """
    stated = points_problem(x, y, a=a, b=b, cost=cost, epsilon=epsilon, rho_a=rho, rho_b=rho)
    options = (tol, max_steps)
    between = solve_stated(stated, *options, omega, anneal).regularized_cost
    within = [solve_stated(side, *options, 1.0, anneal, symmetric=True).regularized_cost for side in _sides(stated)]
    problem = stated.problem
    masses = jnp.square(jnp.sum(problem.a) - jnp.sum(problem.b)) if rho is not None else 0
    return between - (within[0] + within[1]) / 2 + problem.epsilon / 2 * masses


def _sides(stated: Stated) -> tuple[Stated, Stated]:
    problem = stated.problem
    x = stated._replace(problem=problem._replace(columns=problem.rows, b=problem.a), m=stated.n)
    y = stated._replace(problem=problem._replace(rows=problem.columns, a=problem.b), n=stated.m)
    return x, y

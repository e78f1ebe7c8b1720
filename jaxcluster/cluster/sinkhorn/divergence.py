"""Sinkhorn's divergence: the regularized cost, less what it costs to stay."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.sinkhorn.problem import Stated, points_problem
from jaxcluster.cluster.sinkhorn.solve import transport_of
from jaxcluster.core import check
from jaxcluster.core.caution import warn
from jaxcluster.core.frame import publish
from jaxcluster.types import Array, Status


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
) -> Array | np.ndarray:
    """OT(x, y) − (OT(x, x) + OT(y, y))/2 + (ε/2)·(Σa − Σb)²: how far two weighted sets of rows are apart.

    OT is the ``regularized_cost`` of `solve`. Never negative and 0 for equal measures where exp(−cost/ε) is a positive
    definite kernel, as it is for "sqeuclidean" and "euclidean". Differentiable with respect to x, y, a, b, epsilon and
    rho, twice too.

    Args:
        x: (n, d) rows.
        y: (m, d) rows.
        a: (n,) weights of x, or None for 1/n each.
        b: (m,) weights of y, or None for 1/m each.
        cost: as in `solve`, symmetric.
        epsilon: ε > 0 (units of the cost).
        rho: penalty on leaving the weights of either side, or None where they hold exactly.
        tol, max_steps, omega, anneal: as in `solve`.

    Warns:
        RuntimeWarning: one of the three transports, concrete, did not reach its tolerance; how it ended is said.

    Raises:
        ValueError, TypeError: as `solve`.

    Source: T. Séjourné, J. Feydy, F.-X. Vialard, A. Trouvé and G. Peyré, Sinkhorn divergences for unbalanced optimal
    transport (2019); J. Feydy et al., Interpolating between optimal transport and MMD using Sinkhorn divergences,
    AISTATS 2019.
    """
    statement = partial(points_problem, x, y, a=a, b=b, cost=cost, epsilon=epsilon, rho_a=rho, rho_b=rho)
    options = (tol, max_steps)
    between = transport_of(statement, *options, omega, anneal)
    within = [
        transport_of(lambda side=side, **wide: _side(statement(**wide), side), *options, 1.0, anneal, symmetric=True)
        for side in (0, 1)
    ]
    values = [each.regularized_cost for each in (between, *within)]
    masses = [jnp.sum(each) if check.is_traced(each) else np.sum(np.asarray(each, np.float64)) for each in between[2:4]]
    if check.is_traced(values, masses):
        entropy = between.epsilon / 2 * jnp.square(masses[0] - masses[1]) if rho is not None else 0
        return values[0] - (values[1] + values[2]) / 2 + entropy
    _warn(between, *within)
    values = [float(value) for value in values]
    entropy = float(between.epsilon) / 2 * (masses[0] - masses[1]) ** 2 if rho is not None else 0
    return publish(np.float64(values[0] - (values[1] + values[2]) / 2 + entropy), np.asarray(between.f).dtype)


def _side(stated: Stated, side: int) -> Stated:
    """The problem of moving the rows (0) or the columns (1) onto themselves."""
    problem, units = stated.problem, stated.units
    if side == 0:
        problem = problem._replace(columns=problem.rows, b=problem.a)
        return stated._replace(
            problem=_bare(problem), m=stated.n, units=units._replace(b=units.a, c=0 * units.c, d=0 * units.c)
        )
    problem = problem._replace(rows=problem.columns, a=problem.b)
    return stated._replace(
        problem=_bare(problem), n=stated.m, units=units._replace(a=units.b, c=0 * units.d, d=0 * units.d)
    )


def _bare(problem):
    """Without constants: one set of points has one origin."""
    if problem.rho_a is None:
        return problem
    return problem._replace(constant_a=jnp.zeros_like(problem.a), constant_b=jnp.zeros_like(problem.b))


def _warn(*transports):
    """Says which transports did not reach their tolerance."""
    ends = [Status(int(each.status)) for each in transports]
    names = ("from x to y", "from x to x", "from y to y")
    left = [
        f"{name} ended as {end.name} with sums off by {float(each.error):.2g} of the weights"
        for name, end, each in zip(names, ends, transports, strict=True)
        if end != Status.CONVERGED
    ]
    if left:
        warn(
            f"The divergence may be off: the transport {'; that '.join(left)}. Raise max_steps, tol or epsilon.",
            RuntimeWarning,
        )

"""The point cloud in the middle of several, for entropic transport."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.sinkhorn.cost import TileCost, sqeuclidean_tile, tile_for
from jaxcluster.cluster.sinkhorn.problem import Problem, Stated, Units
from jaxcluster.cluster.sinkhorn.rounds import rows_of
from jaxcluster.cluster.sinkhorn.solve import check_options, solve_stated
from jaxcluster.cluster.sinkhorn.value import densities
from jaxcluster.core import check
from jaxcluster.core.fold import fold_rows
from jaxcluster.core.frame import float_dtype
from jaxcluster.core.iterate import history_capacity, iterate, status_with
from jaxcluster.types import Array, Fit, Float, KeyArray


class BarycenterState(NamedTuple):
    """k points of equal weight.

    Attributes:
        centers: (k, d) the points.
        objective: () Σ λ·OT(points, cloud) of the points before the last step (data units²).
        residual: () mean squared distance that the points moved in the last step (data units²).
    """

    centers: Float[Array, "k d"]
    objective: Float[Array, ""]
    residual: Float[Array, ""]


def barycenter(
    key: KeyArray,
    clouds: Sequence[Any],
    k: int,
    *,
    weights=None,
    masses: Sequence[Any] | None = None,
    start=None,
    epsilon,
    tol=1e-4,
    max_steps=50,
    inner_tol=1e-3,
    inner_steps=500,
) -> Fit:
    """k points of weight 1/k each whose mean entropic transport to the clouds, at the squared distance, is least.

    Each step moves every point to the mean of where its plans send it. Entropy draws points together by about
    sqrt(epsilon/2): take epsilon small beside the squared width of the clouds.

    Args:
        key: random key: the start is k rows of the clouds, drawn by weight and without repetition.
        clouds: at least one (n_i, d) matrix of rows.
        k: number of points, static, at most all rows together unless ``start`` is given.
        weights: one λ >= 0 a cloud, scaled to sum 1; None for equal ones.
        masses: (n_i,) weights of the rows of each cloud, scaled to sum 1; None for equal ones.
        start: (k, d) points to begin with, instead of drawn ones.
        epsilon: ε > 0 (data units²). Traced.
        tol: stop when points move by less than this mean squared distance, as a share of the mean variance of the
            columns. Traced.
        max_steps: the most steps taken. Traced.
        inner_tol, inner_steps: tol and max_steps of each transport.

    Returns:
        `Fit` with a `BarycenterState`, steps, status and the objective of each step; no labels.

    Raises:
        ValueError, TypeError: wrong shapes or values, before anything is traced.

    Source: M. Cuturi and A. Doucet, Fast computation of Wasserstein barycenters, ICML 2014, algorithm 2 with a step
    of 1.
    """
    check.check_positive("epsilon", epsilon)
    check_options(tol, max_steps, 1.0, None, None)
    check_options(inner_tol, inner_steps, 1.0, None, None)
    clouds, masses, shares = _check_clouds(clouds, masses, weights)
    rows, held = np.concatenate(clouds), np.concatenate([w * m for w, m in zip(shares, masses, strict=True)])
    k = check.check_count("k", k)
    if start is None:
        k = check.check_clusters(k, int(np.count_nonzero(held)))
    else:
        start = check.check_matrix(start, name="start")
        if start.shape != (k, rows.shape[1]):
            raise ValueError(f"start must have shape ({k}, {rows.shape[1]}), one row a point, got {start.shape}.")
        check.check_finite(start, name="start")
    dtype = float_dtype(rows.dtype)
    origin = held @ rows
    if start is None:
        start = rows[np.asarray(jax.random.choice(key, len(rows), (k,), replace=False, p=jnp.asarray(held, dtype)))]
    padded = _pad(clouds, masses, origin, dtype)
    spread = float(held @ np.square(rows - origin).mean(1))
    begin = jnp.asarray(start - origin, dtype)
    static = (sqeuclidean_tile, history_capacity(max_steps))
    inner = (inner_tol, inner_steps)
    fitted = _fit(static, begin, *padded, jnp.asarray(shares, dtype), epsilon, tol * spread, max_steps, inner)
    return fitted._replace(state=fitted.state._replace(centers=fitted.state.centers + jnp.asarray(origin, dtype)))


def _check_clouds(clouds, masses, weights):
    """Clouds in float64 or as they are, their rows' weights and their own, each of them summing to 1."""
    if not isinstance(clouds, Sequence) or not len(clouds):
        raise TypeError(f"clouds must be a list of at least one matrix of rows, got {type(clouds).__name__}.")
    if check.is_traced(list(clouds), masses, weights):
        raise TypeError("barycenter takes clouds and weights as they are, not traced: call it outside of jit.")
    clouds = [np.asarray(check.check_matrix(cloud, name=f"clouds[{i}]")) for i, cloud in enumerate(clouds)]
    for i, cloud in enumerate(clouds):
        check.check_finite(cloud, name=f"clouds[{i}]")
        check.check_width(cloud, clouds[0].shape[1], name=f"clouds[{i}]")
    if masses is None:
        masses = [np.ones(len(cloud)) for cloud in clouds]
    if len(masses) != len(clouds):
        raise ValueError(f"masses must hold one array of weights a cloud: {len(clouds)} are needed, got {len(masses)}.")
    named = enumerate(zip(masses, clouds, strict=True))
    masses = [check.check_weights(mass, len(cloud), name=f"masses[{i}]").astype(float) for i, (mass, cloud) in named]
    shares = np.ones(len(clouds)) if weights is None else check.check_weights(weights, len(clouds)).astype(float)
    return clouds, [mass / mass.sum() for mass in masses], shares / shares.sum()


def _pad(clouds, masses, origin, dtype):
    """Clouds of one size, centred, filled up with rows of weight 0."""
    most = max(map(len, clouds))
    rows = np.zeros((len(clouds), most, clouds[0].shape[1]), dtype)
    weight = np.zeros((len(clouds), most), dtype)
    for i, (cloud, mass) in enumerate(zip(clouds, masses, strict=True)):
        rows[i, : len(cloud)] = cloud - origin
        weight[i, : len(cloud)] = mass
    return jnp.asarray(rows), jnp.asarray(weight)


class _Running(NamedTuple):
    """Points, potentials of every cloud to start the next transports from, and what the state holds."""

    centers: Float[Array, "k d"]
    potentials: Float[Array, "c n"]
    objective: Float[Array, ""]
    residual: Float[Array, ""]


@partial(jax.jit, static_argnums=0)
def _fit(static, start, clouds, masses, shares, epsilon, tol, max_steps, inner):
    cost, capacity = static
    k = start.shape[0]
    equal = jnp.full(k, 1 / k, start.dtype)
    epsilon = jnp.asarray(epsilon, start.dtype)

    def advance(state):
        def one(cloud):
            y, b, g = cloud
            problem = Problem(state.centers, y, equal, b, epsilon, None, None, None, None, jnp.zeros_like(epsilon))
            units = Units(0, 0, 0, 0, equal, b, epsilon, y.dtype)
            stated = Stated(problem, cost, k, b.shape[0], units)
            solved = solve_stated(stated, *inner, anneal=None, start=g)
            return _projected(cost, problem, solved.f, solved.g), solved.g, solved.regularized_cost

        # One cloud after another: side by side every round would pay for the careful one too.
        moved, potentials, values = jax.lax.map(one, (clouds, masses, state.potentials))
        centers = jnp.tensordot(shares, moved, 1)
        step = jnp.mean(jnp.square(centers - state.centers))
        return _Running(centers, potentials, shares @ values, step)

    most = jnp.asarray(jnp.inf, start.dtype)
    fitted = iterate(
        advance, _Running(start, jnp.zeros_like(masses), most, most), tol=tol, max_steps=max_steps, capacity=capacity
    )
    state = BarycenterState(fitted.state.centers, fitted.state.objective, fitted.state.residual)
    status = status_with(fitted.status, objective=state.objective)
    return Fit(state, None, fitted.steps, status, fitted.history)


def _projected(cost: TileCost, problem: Problem, f, g):
    """The mean of what each row moves to."""

    def tile(rows):
        rows, _, f = rows
        density = densities(cost, problem, rows, f, g)[2] * problem.b[None, :]
        return (), (density @ problem.columns) / jnp.sum(density, axis=1, keepdims=True)

    return fold_rows(tile, rows_of(problem, f), tile=tile_for(problem.a.shape[0], problem.b.shape[0]))[1]

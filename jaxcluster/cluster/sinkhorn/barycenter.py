"""The point cloud in the middle of several, for entropic transport."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.sinkhorn.cost import TileCost, logits_of, sqeuclidean_tile, tile_for
from jaxcluster.cluster.sinkhorn.problem import Problem, Stated, Units, scaled
from jaxcluster.cluster.sinkhorn.rounds import rows_of, safe_log
from jaxcluster.cluster.sinkhorn.solve import check_options, solve_stated
from jaxcluster.core import check
from jaxcluster.core.fold import fold_rows
from jaxcluster.core.frame import Frame, bucket, float_dtype, prepare, publish, published_dtype
from jaxcluster.core.iterate import history_capacity, iterate, status_with
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Published, Status

SEVERITY = (Status.CONVERGED, Status.MAX_STEPS, Status.PRECISION, Status.NOT_FINITE)
"""How a transport may end, the worst last."""


class BarycenterState(NamedTuple):
    """k points of equal weight.

    Attributes:
        centers: (k, d) the points.
        objective: () Σ λ·OT(points, cloud) of the points before the last step (data units²).
        residual: () mean squared distance that the points moved in the last step (data units²).
        error: () largest marginal error of the transports of the last step (a share of the weights; see `Transport`).
    """

    centers: Float[Published, "k d"]
    objective: Float[Published, ""]
    residual: Float[Published, ""]
    error: Float[Array, ""]


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
        tol: stop when all transports have converged and points move by less than this mean squared distance, as a share
            of the median over the rows of their squared distance from the median of their cloud, per column. Traced.
        max_steps: the most steps taken. Traced.
        inner_tol, inner_steps: tol and max_steps of each transport.

    Returns:
        `Fit` with a `BarycenterState`, steps, status and the objective of each step; no labels. The status is the worst
        among that of the points and those of the last step's transports: MAX_STEPS also where a transport has reached
        ``inner_steps`` but not ``inner_tol``, PRECISION where rounding of its costs is above ``inner_tol``.

    Raises:
        ValueError, TypeError: wrong shapes or values, before anything is traced.

    Source: M. Cuturi and A. Doucet, Fast computation of Wasserstein barycenters, ICML 2014, algorithm 2 with a step
    of 1.
    """
    key = check.check_key(key)
    check.check_positive("epsilon", epsilon)
    check_options(tol, max_steps, 1.0, None, None)
    check_options(inner_tol, inner_steps, 1.0, None, None)
    clouds, masses, shares = _check_clouds(clouds, masses, weights)
    rows, drawn = np.concatenate(clouds), np.concatenate([w * m for w, m in zip(shares, masses, strict=True)])
    k = check.check_count("k", k)
    if start is None:
        k = check.check_clusters(k, int(np.count_nonzero(drawn)))
        drawn = jnp.asarray(drawn, float_dtype(rows.dtype))
        start = rows[np.asarray(jax.random.choice(key, len(rows), (k,), replace=False, p=drawn))]
    else:
        start = check.check_matrix(start, name="start")
        if start.shape != (k, rows.shape[1]):
            raise ValueError(f"start must have shape ({k}, {rows.shape[1]}), one row a point, got {start.shape}.")
        check.check_finite(start, name="start")
    # Without a share in the objective a cloud moves no point, and its transport need not be solved.
    clouds, masses, shares = zip(
        *(part for part in zip(clouds, masses, shares, strict=True) if part[2] > 0), strict=True
    )
    arguments = (start, clouds, masses, np.asarray(shares), epsilon, (tol, max_steps), (inner_tol, inner_steps))
    fitted = _fit(*arguments)
    if check.is_traced(fitted):
        return fitted
    if int(fitted.status) in (Status.PRECISION, Status.NOT_FINITE) and fitted.state.error.dtype != np.float64:
        # On the host the clouds have all their digits, and costs that float32 cannot tell apart float64 can.
        with jax.enable_x64(True):
            return _fit(*arguments, wide=True)
    return fitted


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


def _fit(start, clouds, masses, shares, epsilon, outer, inner, *, wide: bool = False) -> Fit:
    """The fit, in a frame of its own; with ``wide`` in float64.

    The origin of every cloud is its own median o_i, that of the points ō = Σ λ_i·o_i: this changes the costs of a
    transport by constants of rows and columns, which no plan depends on, and what points move to by ō.
    """
    published = np.result_type(*map(published_dtype, clouds))
    clouds = [cloud.astype(np.float64) if wide else cloud for cloud in clouds]
    frames = [prepare(cloud, mass).frame for cloud, mass in zip(clouds, masses, strict=True)]
    origins = np.stack([np.asarray(frame.origin, np.float64) for frame in frames])
    frame = Frame(shares @ origins, min(frame.exponent for frame in frames))
    rows, weights = _padded(clouds, masses, frames, frame.exponent)
    dtype = rows.dtype
    tol, max_steps = outer
    static = (sqeuclidean_tile, history_capacity(max_steps))
    numbers = jnp.asarray(shares, dtype), scaled(epsilon, 2 * frame.exponent, dtype), tol * _spread(rows, weights)
    start = jnp.asarray(frame.enter(start), dtype)
    fitted = _iterated(static, start, jnp.asarray(rows), jnp.asarray(weights), *numbers, max_steps, inner)
    return _published(fitted, frame, _constant(clouds, masses, shares, origins), published)


def _padded(clouds, masses, frames, exponent):
    """Clouds of one size about their own origins, filled up with rows of weight 0."""
    most = bucket(max(map(len, clouds)))
    moved = [
        np.asarray(frame._replace(exponent=exponent).enter(cloud)) for cloud, frame in zip(clouds, frames, strict=True)
    ]
    rows = np.zeros((len(clouds), most, clouds[0].shape[1]), np.result_type(*moved))
    weights = np.zeros(rows.shape[:2], rows.dtype)
    for i, (cloud, mass) in enumerate(zip(moved, masses, strict=True)):
        rows[i, : len(cloud)] = cloud
        weights[i, : len(cloud)] = mass
    return rows, weights


def _spread(rows, weights):
    """The median of the squared coordinates' mean over the rows by weight: unlike a variance, not that of a far row."""
    squares = np.square(rows, dtype=np.float64).mean(axis=2).ravel()
    order = np.argsort(squares)
    reached = np.cumsum(weights.ravel()[order], dtype=np.float64)
    return float(squares[order[np.searchsorted(reached, reached[-1] / 2)]])


def _constant(clouds, masses, shares, origins):
    """Σ λ·OT of the clouds where they are, less that of the clouds about their own origins.

    With Δ_i = ō − o_i, ‖c + ō − y − o_i‖² = ‖c − y‖² + 2(c − y)·Δ_i + ‖Δ_i‖², and Σ λ_i·Δ_i = 0 takes c out of it.
    """
    apart = shares @ origins - origins
    means = np.stack([mass @ (cloud - origin) for cloud, mass, origin in zip(clouds, masses, origins, strict=True)])
    with np.errstate(over="ignore", invalid="ignore"):
        return float(shares @ np.sum(np.square(apart) - 2 * means * apart, axis=1))


def _published(fitted, frame, constant, dtype):
    """The fit in the caller's coordinates."""
    state = fitted.state
    if check.is_traced(fitted):
        squares = partial(frame.unscale, length=2)
        steps = jnp.arange(fitted.history.shape[0], dtype=jnp.int32) < fitted.steps
        history = jnp.where(steps, squares(fitted.history) + constant, 0)
        centers, objective, residual = frame.leave(state.centers), squares(state.objective) + constant, state.residual
        return fitted._replace(
            state=BarycenterState(centers, objective, squares(residual), state.error), history=history
        )

    def squares(value, constant=0.0):
        with np.errstate(over="ignore", under="ignore"):
            return publish(np.ldexp(np.asarray(value, np.float64), -2 * frame.exponent) + constant, dtype)

    centers = publish(np.asarray(frame.leave(state.centers)), dtype)
    history = squares(fitted.history, np.where(np.arange(len(fitted.history)) < int(fitted.steps), constant, 0))
    objective, residual = squares(state.objective, constant), squares(state.residual)
    return fitted._replace(state=BarycenterState(centers, objective, residual, state.error), history=history)


class _Running(NamedTuple):
    """Points, potentials of every cloud to start the next transports from, their status, and what the state holds."""

    centers: Float[Array, "k d"]
    potentials: Float[Array, "c n"]
    objective: Float[Array, ""]
    residual: Float[Array, ""]
    moved: Float[Array, ""]
    error: Float[Array, ""]
    status: Int[Array, ""]


@partial(jax.jit, static_argnums=0)
def _iterated(static, start, clouds, masses, shares, epsilon, tol, max_steps, inner):
    cost, capacity = static
    k = start.shape[0]
    equal = jnp.full(k, 1 / k, start.dtype)

    def advance(state):
        def one(cloud):
            y, b, g = cloud
            problem = Problem(state.centers, y, equal, b, epsilon, None, None, None, None, jnp.zeros_like(epsilon))
            units = Units(0, 0, 0, 0, equal, b, epsilon, y.dtype)
            stated = Stated(problem, cost, k, b.shape[0], units)
            solved = solve_stated(stated, *inner, anneal=None, start=g)
            moved = _projected(cost, problem, solved.g)
            return moved, solved.g, solved.regularized_cost, solved.error, solved.status

        # One cloud after another: side by side every round would pay for the careful one too.
        moved, potentials, values, errors, statuses = jax.lax.map(one, (clouds, masses, state.potentials))
        centers = jnp.tensordot(shares, moved, 1)
        step, status = jnp.mean(jnp.square(centers - state.centers)), _worst(statuses)
        # A transport that needs more rounds gets them from the next step, where it begins with its own potentials.
        residual = jnp.where(status == Status.MAX_STEPS, jnp.inf, step)
        return _Running(centers, potentials, shares @ values, residual, step, jnp.max(errors), status)

    most = jnp.asarray(jnp.inf, start.dtype)
    begin = _Running(start, jnp.zeros_like(masses), most, most, most, most, jnp.int32(Status.CONVERGED))
    fitted = iterate(advance, begin, tol=tol, max_steps=max_steps, capacity=capacity)
    state = BarycenterState(fitted.state.centers, fitted.state.objective, fitted.state.moved, fitted.state.error)
    status = status_with(fitted.status, objective=state.objective)
    return Fit(state, None, fitted.steps, _worst(jnp.stack([status, fitted.state.status])), fitted.history)


def _worst(statuses):
    """The worst of how transports ended, by `SEVERITY`."""
    order = jnp.asarray(SEVERITY, jnp.int32)
    ranks = jnp.argmax(statuses[:, None] == order[None, :], axis=1)
    return order[jnp.max(ranks)]


def _projected(cost: TileCost, problem: Problem, g):
    """The mean of what each row moves to: its part of the plan, by a softmax, whose sum is right whatever g is."""

    def tile(rows):
        logits = logits_of(cost(rows[0], problem.columns), g[None, :], problem.epsilon)
        return (), jax.nn.softmax(logits + safe_log(problem.b)[None, :], axis=1) @ problem.columns

    return fold_rows(tile, rows_of(problem), tile=tile_for(problem.a.shape[0], problem.b.shape[0]))[1]

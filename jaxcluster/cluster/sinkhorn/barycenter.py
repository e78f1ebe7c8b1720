"""Sinkhorn divergence of two point clouds, and the Wasserstein barycenter of several.

>>> import numpy as np
>>> from jaxcluster import sinkhorn
>>> x = np.array([[0.0], [1.0]])
>>> round(float(sinkhorn.divergence(x, x + 1, epsilon=0.01)), 3)
1.0
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.sinkhorn.folds import fold_problem
from jaxcluster.cluster.sinkhorn.problem import (
    CheckedProblem,
    Problem,
    TileCost,
    Units,
    logits_of,
    points_problem,
    scaled,
    sqeuclidean_tile,
)
from jaxcluster.cluster.sinkhorn.solve import check_options, iteration_work, solve_checked, transport_of
from jaxcluster.cluster.sinkhorn.updates import safe_log, tile_inputs
from jaxcluster.core import chunks, signals, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import float_dtype, publish, published_dtype
from jaxcluster.core.frame import Frame
from jaxcluster.core.iterate import begin, history_capacity, iterate, status_of, status_with
from jaxcluster.core.messages import warn
from jaxcluster.core.preparation import padded_size, prepare
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Published, Status

SEVERITY = (Status.CONVERGED, Status.MAX_STEPS, Status.PRECISION, Status.NOT_FINITE)
"""Final statuses of a transport, the worst last."""


class BarycenterState(NamedTuple):
    """Barycenter of k points of equal weight.

    Attributes:
        centers: (k, n_features) points.
        objective: () Σ λ·OT(points, cloud) of the points before the last step (data units²).
        residual: () mean squared distance that the points moved in the last step (data units²).
        error: () largest marginal error of the transports in the last step, a fraction of the weights: see `Transport`.
    """

    centers: Float[Published, "k d"]
    objective: Float[Published, ""]
    residual: Float[Published, ""]
    error: Float[Array, ""]


@signals.keeping_result()
def divergence(
    x: Any,
    y: Any,
    *,
    a: Any = None,
    b: Any = None,
    cost: str | Callable = "sqeuclidean",
    epsilon: Any,
    rho: Any = None,
    tol: Any = 1e-3,
    max_steps: Any = 5000,
    omega: Any = None,
    epsilon_decay: Any = 0.5,
) -> Array | np.ndarray:
    """Sinkhorn divergence OT(x, y) − (OT(x, x) + OT(y, y))/2 + (ε/2)·(Σa − Σb)² of two weighted point clouds.

    OT is the ``regularized_cost`` of `solve`. Never negative and 0 for equal measures where exp(−cost/ε) is a positive
    definite kernel, as it is for "sqeuclidean" and "euclidean". Differentiable with respect to x, y, a, b, epsilon and
    rho, twice too.

    Args:
        x: (n_samples_x, n_features) points.
        y: (n_samples_y, n_features) points.
        a: (n,) weights of x, or None for 1/n each.
        b: (m,) weights of y, or None for 1/m each.
        cost: as in `solve`, symmetric.
        epsilon: ε > 0 (units of the cost).
        rho: penalty ρ > 0 on both marginals (units of the cost), or None for fixed ones.
        tol, max_steps, omega, epsilon_decay: as in `solve`.

    Returns:
        () the divergence (units of the cost).

    Warns:
        RuntimeWarning: one of the three transports, concrete, did not reach its tolerance; its status is named.

    Raises:
        ValueError, TypeError: as `solve`.

    Source: T. Séjourné, J. Feydy, F.-X. Vialard, A. Trouvé and G. Peyré, Sinkhorn divergences for unbalanced optimal
    transport (2019); J. Feydy et al., Interpolating between optimal transport and MMD using Sinkhorn divergences,
    AISTATS 2019.
    """
    make_problem = partial(points_problem, x, y, a=a, b=b, cost=cost, epsilon=epsilon, rho_a=rho, rho_b=rho)
    options = (tol, max_steps)
    between = transport_of(make_problem, *options, omega, epsilon_decay)
    within = [
        transport_of(
            lambda side=side, **wide: _side(make_problem(**wide), side), *options, 1.0, epsilon_decay, symmetric=True
        )
        for side in (0, 1)
    ]
    values = [each.regularized_cost for each in (between, *within)]
    masses = [
        jnp.sum(each) if validation.is_traced(each) else np.sum(np.asarray(each, np.float64)) for each in between[2:4]
    ]
    if validation.is_traced(values, masses):
        # Masses of concrete weights are float64, which strict dtype promotion does not mix with float32.
        masses = [jnp.asarray(each).astype(values[0].dtype) for each in masses]
        entropy = between.epsilon / 2 * jnp.square(masses[0] - masses[1]) if rho is not None else 0
        return values[0] - (values[1] + values[2]) / 2 + entropy
    _warn_unconverged(between, *within)
    values = [float(value) for value in values]
    entropy = float(between.epsilon) / 2 * (masses[0] - masses[1]) ** 2 if rho is not None else 0
    return publish(np.float64(values[0] - (values[1] + values[2]) / 2 + entropy), np.asarray(between.f).dtype)


@signals.keeping_result()
def barycenter(
    key: KeyArray,
    clouds: Sequence[Any],
    k: int,
    *,
    weights: Any = None,
    masses: Sequence[Any] | None = None,
    start: Any = None,
    epsilon: Any,
    tol: Any = 1e-4,
    max_steps: Any = 50,
    inner_tol: Any = 1e-3,
    inner_steps: Any = 500,
) -> Fit:
    """Wasserstein barycenter: k points of weight 1/k whose mean entropic transport cost to the clouds is least.

    The cost is the squared distance. Each step moves every point to its mean barycentric projection. Entropy draws
    points together by about sqrt(epsilon/2): take epsilon small beside the squared width of the clouds.

    Args:
        key: random key for the initial points: k rows of the clouds, drawn by weight without replacement.
        clouds: at least one (n_samples_i, n_features) matrix.
        k: number of points, static, at most the number of all rows together unless ``start`` is passed.
        weights: one λ >= 0 for each cloud, scaled to sum 1; None for equal ones.
        masses: (n_i,) weights of the rows of each cloud, scaled to sum 1; None for equal ones.
        start: (k, n_features) initial points, instead of drawn ones.
        epsilon: ε > 0 (data units²). Traced.
        tol: stop when all transports have converged and points move by less than this mean squared distance, as a
            fraction of the median squared distance of the rows from the median of their cloud, per column. Traced.
        max_steps: most steps. Traced.
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
    key = validation.check_key(key)
    validation.check_positive("epsilon", epsilon)
    check_options(tol, max_steps, 1.0, None, None)
    check_options(inner_tol, inner_steps, 1.0, None, None)
    clouds, masses, lambdas = _check_clouds(clouds, masses, weights)
    rows, drawn = np.concatenate(clouds), np.concatenate([w * m for w, m in zip(lambdas, masses, strict=True)])
    k = validation.check_count("k", k)
    if start is None:
        k = validation.check_clusters(k, int(np.count_nonzero(drawn)))
        drawn = jnp.asarray(drawn, float_dtype(rows.dtype))
        start = rows[np.asarray(jax.random.choice(key, len(rows), (k,), replace=False, p=drawn))]
    else:
        start = validation.check_matrix(start, name="start")
        if start.shape != (k, rows.shape[1]):
            raise ValueError(f"start must have shape ({k}, {rows.shape[1]}), one row a point, got {start.shape}.")
        validation.check_finite(start, name="start")
    # A cloud of weight 0 moves no point, and its transport need not be solved.
    clouds, masses, lambdas = zip(
        *(part for part in zip(clouds, masses, lambdas, strict=True) if part[2] > 0), strict=True
    )
    arguments = (start, clouds, masses, np.asarray(lambdas), epsilon, (tol, max_steps), (inner_tol, inner_steps))
    fitted = _fit(*arguments)
    if validation.is_traced(fitted):
        return fitted
    if int(fitted.status) in (Status.PRECISION, Status.NOT_FINITE) and fitted.state.error.dtype != np.float64:
        # The clouds on the host have all their digits, and float64 resolves costs that float32 does not.
        with jax.enable_x64(True):
            return _fit(*arguments, wide=True)
    return fitted


def _check_clouds(clouds, masses, weights):
    """Check of the clouds.

    Returns:
        The clouds as NumPy arrays, the weights of their rows, and the weights of the clouds; each of sum 1.
    """
    if not isinstance(clouds, Sequence) or not len(clouds):
        raise TypeError(f"clouds must be a list of at least one matrix of rows, got {type(clouds).__name__}.")
    if validation.is_traced(list(clouds), masses, weights):
        raise TypeError("barycenter takes clouds and weights as they are, not traced: call it outside of jit.")
    clouds = [np.asarray(validation.check_matrix(cloud, name=f"clouds[{i}]")) for i, cloud in enumerate(clouds)]
    for i, cloud in enumerate(clouds):
        validation.check_finite(cloud, name=f"clouds[{i}]")
        validation.check_width(cloud, clouds[0].shape[1], name=f"clouds[{i}]")
    if masses is None:
        masses = [np.ones(len(cloud)) for cloud in clouds]
    if len(masses) != len(clouds):
        raise ValueError(f"masses must hold one array of weights a cloud: {len(clouds)} are needed, got {len(masses)}.")
    named = enumerate(zip(masses, clouds, strict=True))
    masses = [
        validation.check_weights(mass, len(cloud), name=f"masses[{i}]").astype(float) for i, (mass, cloud) in named
    ]
    lambdas = np.ones(len(clouds)) if weights is None else validation.check_weights(weights, len(clouds)).astype(float)
    return clouds, [mass / mass.sum() for mass in masses], lambdas / lambdas.sum()


def _fit(start, clouds, masses, lambdas, epsilon, outer, inner, *, wide: bool = False) -> Fit:
    """Barycenter, computed in a frame; with ``wide`` in float64."""
    # The origin of each cloud is its median o_i, that of the points ō = Σ λ_i·o_i. This changes the costs of a
    # transport by constants of rows and columns, which no plan depends on, and the barycentric projections by ō.
    published = np.result_type(*map(published_dtype, clouds))
    clouds = [cloud.astype(np.float64) if wide else cloud for cloud in clouds]
    frames = [prepare(cloud, mass).frame for cloud, mass in zip(clouds, masses, strict=True)]
    origins = np.stack([np.asarray(frame.origin, np.float64) for frame in frames])
    # The barycenter of the origins is known exactly: what is iterated is the rest, about it. One unit for all clouds,
    # that of the widest.
    frame = Frame(lambdas @ origins, min(frame.exponent for frame in frames))
    rows, weights = _padded(clouds, masses, frames, frame.exponent)
    dtype = rows.dtype
    tol, max_steps = outer
    static = (sqeuclidean_tile, history_capacity(max_steps))
    numbers = jnp.asarray(lambdas, dtype), scaled(epsilon, 2 * frame.exponent, dtype), tol * _spread(rows, weights)
    start = jnp.asarray(frame.enter(start), dtype)
    arguments = start, jnp.asarray(rows), jnp.asarray(weights), *numbers, max_steps, inner
    work = len(clouds) * iteration_work(start.shape[0], *rows.shape[1:]) * inner[1]
    fitted = (_iterated_in_chunks if chunks.is_long(work, max_steps, *arguments) else _iterated)(static, *arguments)
    return _published(fitted, frame, _constant(clouds, masses, lambdas, origins), published)


def _padded(clouds, masses, frames, exponent):
    """Clouds about their own origins, padded to one size by rows of weight 0, and the weights of the rows."""
    most = padded_size(max(map(len, clouds)))
    entered = [
        np.asarray(frame._replace(exponent=exponent).enter(cloud)) for cloud, frame in zip(clouds, frames, strict=True)
    ]
    rows = np.zeros((len(clouds), most, clouds[0].shape[1]), np.result_type(*entered))
    weights = np.zeros(rows.shape[:2], rows.dtype)
    for i, (cloud, mass) in enumerate(zip(entered, masses, strict=True)):
        rows[i, : len(cloud)] = cloud
        weights[i, : len(cloud)] = mass
    return rows, weights


def _spread(rows, weights):
    """Weighted median over the rows of the mean of their squared coordinates."""
    # A variance would be that of a few far rows.
    squares = np.square(rows, dtype=np.float64).mean(axis=2).ravel()
    order = np.argsort(squares)
    reached = np.cumsum(weights.ravel()[order], dtype=np.float64)
    return float(squares[order[np.searchsorted(reached, reached[-1] / 2)]])


def _constant(clouds, masses, lambdas, origins):
    """Difference of Σ λ·OT between the clouds where they are and the clouds about their own origins."""
    # With Δ_i = ō − o_i, ‖c + ō − y − o_i‖² = ‖c − y‖² + 2(c − y)·Δ_i + ‖Δ_i‖², and Σ λ_i·Δ_i = 0 removes c.
    delta = lambdas @ origins - origins
    means = np.stack([mass @ (cloud - origin) for cloud, mass, origin in zip(clouds, masses, origins, strict=True)])
    with np.errstate(over="ignore", invalid="ignore"):
        return float(lambdas @ np.sum(np.square(delta) - 2 * means * delta, axis=1))


def _published(fitted, frame, constant, dtype):
    """Fit in the caller's coordinates."""
    state = fitted.state
    if validation.is_traced(fitted):
        squares = partial(frame.unscale, length=2)
        steps = jnp.arange(fitted.history.shape[0], dtype=jnp.int32) < fitted.steps
        history = jnp.where(steps, squares(fitted.history) + constant, 0)
        centers, objective, residual = frame.leave(state.centers), squares(state.objective) + constant, state.residual
        return fitted._replace(
            state=BarycenterState(centers, objective, squares(residual), state.error), history=history
        )

    def squares(value, constant: Any = 0.0):
        with np.errstate(over="ignore", under="ignore"):
            return publish(np.ldexp(np.asarray(value, np.float64), -2 * frame.exponent) + constant, dtype)

    centers = publish(np.asarray(frame.leave(state.centers)), dtype)
    history = squares(fitted.history, np.where(np.arange(len(fitted.history)) < int(fitted.steps), constant, 0))
    objective, residual = squares(state.objective, constant), squares(state.residual)
    return fitted._replace(state=BarycenterState(centers, objective, residual, state.error), history=history)


class _LoopState(NamedTuple):
    """Points, initial potentials of the next transports, and the objective, errors and status of the last step."""

    centers: Float[Array, "k d"]
    potentials: Float[Array, "c n"]
    objective: Float[Array, ""]
    residual: Float[Array, ""]
    shift: Float[Array, ""]
    error: Float[Array, ""]
    status: Int[Array, ""]


@persistent_jit(static_argnums=0)
def _iterated(static, start, clouds, masses, lambdas, epsilon, tol, max_steps, inner):
    cost, capacity = static

    def advance(state):
        # One cloud after another: under vmap every iteration would pay for the stable update too.
        transport = partial(_transport, cost, state.centers, epsilon, inner)
        parts = jax.lax.map(lambda cloud: transport(*cloud), (clouds, masses, state.potentials))
        return _after_transports(lambdas, state, *parts)

    return _finished(iterate(advance, _first_state(start, masses), tol=tol, max_steps=max_steps, capacity=capacity))


def _iterated_in_chunks(static, start, clouds, masses, lambdas, epsilon, tol, max_steps, inner):
    """`_iterated` of concrete clouds. Ctrl-C ends it after the last whole step, or raises KeyboardInterrupt."""
    cost, capacity = static
    fit = begin(_first_state(start, masses), capacity)
    while int(fit.steps) < max_steps and float(fit.state.residual) > tol:
        parts = []
        for cloud in zip(clouds, masses, fit.state.potentials, strict=True):
            if not signals.interrupted():
                parts.append(_compiled_transport(cost, fit.state.centers, epsilon, inner, *cloud))
        if signals.interrupted():
            # No step is whole yet: there is no barycenter to return.
            if int(fit.steps) == 0:
                raise KeyboardInterrupt
            return _compiled_end(fit)._replace(status=np.int32(Status.INTERRUPTED))
        fit = _compiled_step(fit, lambdas, *jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts))
    return _compiled_end(fit._replace(status=status_of(fit.state.residual, tol)))


def _first_state(start, masses):
    most = jnp.asarray(jnp.inf, start.dtype)
    return _LoopState(start, jnp.zeros_like(masses), most, most, most, most, jnp.int32(Status.CONVERGED))


def _transport(cost, centers, epsilon, inner, y, b, g):
    """Transport to a cloud from the potentials g: projections, potentials, value, error and status."""
    k = centers.shape[0]
    equal = jnp.full(k, 1 / k, centers.dtype)
    problem = Problem(centers, y, equal, b, epsilon, None, None, None, None, jnp.zeros_like(epsilon))
    checked = CheckedProblem(problem, cost, k, b.shape[0], Units(0, 0, 0, 0, equal, b, epsilon, y.dtype))
    solved = solve_checked(checked, *inner, epsilon_decay=None, start=g)
    return _projected(cost, problem, solved.g), solved.g, solved.regularized_cost, solved.error, solved.status


def _after_transports(lambdas, state, projections, potentials, values, errors, statuses):
    """State after a step, from the transports to all clouds."""
    centers = jnp.tensordot(lambdas, projections, 1)
    step, status = jnp.mean(jnp.square(centers - state.centers)), _worst(statuses)
    # A transport that needs more iterations gets them in the next step, which begins with its potentials.
    residual = jnp.where(status == Status.MAX_STEPS, jnp.inf, step)
    return _LoopState(centers, potentials, lambdas @ values, residual, step, jnp.max(errors), status)


def _finished(fitted):
    state = BarycenterState(fitted.state.centers, fitted.state.objective, fitted.state.shift, fitted.state.error)
    status = status_with(fitted.status, objective=state.objective)
    return Fit(state, None, fitted.steps, _worst(jnp.stack([status, fitted.state.status])), fitted.history)


_compiled_transport = persistent_jit(_transport, static_argnums=0)


@persistent_jit
def _compiled_step(fit, lambdas, *parts):
    state = _after_transports(lambdas, fit.state, *parts)
    history = fit.history.at[fit.steps].set(state.objective, mode="drop")
    return fit._replace(state=state, steps=fit.steps + 1, history=history)


_compiled_end = persistent_jit(_finished)


def _worst(statuses):
    """Worst status, by `SEVERITY`."""
    order = jnp.asarray(SEVERITY, jnp.int32)
    ranks = jnp.argmax(statuses[:, None] == order[None, :], axis=1)
    return order[jnp.max(ranks)]


@persistent_jit(static_argnums=0)
def _projected(cost: TileCost, problem: Problem, g):
    """Barycentric projection of each row, by a softmax, whose weights sum to 1 whatever g is."""

    def tile(rows):
        logits = logits_of(cost(rows[0], problem.columns), g[None, :], problem.epsilon)
        return (), jax.nn.softmax(logits + safe_log(problem.b)[None, :], axis=1) @ problem.columns

    return fold_problem(problem, tile, tile_inputs(problem))[1]


def _side(checked: CheckedProblem, side: int) -> CheckedProblem:
    """Problem of moving the rows (0) or the columns (1) onto themselves."""
    problem, units = checked.problem, checked.units
    if side == 0:
        problem = problem._replace(columns=problem.rows, b=problem.a)
        return checked._replace(
            problem=_bare(problem), m=checked.n, units=units._replace(b=units.a, c=0 * units.c, d=0 * units.c)
        )
    problem = problem._replace(rows=problem.columns, a=problem.b)
    return checked._replace(
        problem=_bare(problem), n=checked.m, units=units._replace(a=units.b, c=0 * units.d, d=0 * units.d)
    )


def _bare(problem):
    """Problem without constants: one set of points has one origin."""
    if problem.rho_a is None:
        return problem
    return problem._replace(constant_a=jnp.zeros_like(problem.a), constant_b=jnp.zeros_like(problem.b))


def _warn_unconverged(*transports):
    """Warn of the transports that did not reach their tolerance."""
    ends = [Status(int(each.status)) for each in transports]
    names = ("from x to y", "from x to x", "from y to y")
    unconverged = [
        f"{name} ended as {end.name} with a marginal error of {float(each.error):.2g} of the weights"
        for name, end, each in zip(names, ends, transports, strict=True)
        if end != Status.CONVERGED
    ]
    if unconverged:
        warn(
            f"The divergence may be off: the transport {'; that '.join(unconverged)}. Raise max_steps, tol or epsilon.",
            RuntimeWarning,
        )

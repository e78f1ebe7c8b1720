"""Soft k-means by deterministic annealing: σ² falls from a value at which all centers coincide to its target.

On the way clusters have weights p, and responsibilities are in proportion to p·exp(−‖x − c‖²/2σ²), so that coincident
centers count as one. A phase transition: a center splits in two where its samples spread wider than σ in some
direction. Centers that coincide with others are spare; at each temperature they are put beside the centers whose
samples spread widest, to be there when these split.

Sources: K. Rose, E. Gurewitz and G. C. Fox, A deterministic annealing approach to clustering, Pattern Recognition
Letters 11 (1990); K. Rose, Deterministic annealing for clustering, compression, classification, regression, and related
optimization problems, Proc. IEEE 86 (1998), for the weights.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.seeding import FROM_CENTERS, CenterConstraints
from jaxcluster.cluster.soft_kmeans.fit import (
    Static,
    distances_to,
    finish,
    long_fit,
    run_em,
    soft_assign,
    soft_stats,
    soft_update,
    variance_in_frame,
)
from jaxcluster.cluster.soft_kmeans.state import SoftKMeansState
from jaxcluster.core import chunks, signals, validation
from jaxcluster.core.batching import vmap_in_chunks
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.fold import all_reduce, fold_rows
from jaxcluster.core.iterate import advance, begin, history_capacity, iterate
from jaxcluster.core.preparation import finalize, prepare
from jaxcluster.ops.distance import HIGHEST, squared_norms
from jaxcluster.types import Array, Fit, Float, KeyArray, Points, Status

SPLIT_PERTURBATION = 0.1
"""Distance of a spare center from the center it is put beside, in units of σ; centers nearer than that coincide."""

SHIFT_TOLERANCE = 0.05
"""Shift of all centers together below which a temperature is finished, relative to the split perturbation."""

MIN_TEMPERATURE_RATIO = 1e-4
"""Least variance of the schedule, relative to its first: below it there is nothing left to anneal, and a variance of 0
is reached from there."""

USUAL_STEPS = 32
"""Steps that most temperatures take at most, by which the time of a fit is judged."""

POWER_ITERATIONS = 32
"""Steps of the power iteration for the largest eigenvalue of the covariance."""


class _TemperatureState(NamedTuple):
    """Centers and cluster weights at one temperature, Σ‖Δc‖² of the last step, and the variance."""

    centers: Float[Array, "k d"]
    cluster_weight: Float[Array, " k"]
    residual: Float[Array, ""]
    objective: Float[Array, ""]
    variance: Float[Array, ""]


class _ScheduleState(NamedTuple):
    """Centers and cluster weights converged at a variance; the residual is 0 at the last temperature."""

    key: KeyArray
    centers: Float[Array, "k d"]
    cluster_weight: Float[Array, " k"]
    variance: Float[Array, ""]
    residual: Float[Array, ""]
    objective: Float[Array, ""]


@signals.keeping_result()
def anneal(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    variance: Any,
    start: Any = None,
    rate: Any = 0.9,
    weights: Any = None,
    tol: Any = 1e-4,
    max_steps: Any = 300,
    axis_name: str | None = None,
) -> Fit:
    """Soft k-means from the centers that deterministic annealing leads to, which hardly depend on the key.

    A pure function as `fit` is, one compiled program, and with the same gradients. With responsibilities in proportion
    to exp(−‖x − c‖²/T), the temperature is T = 2σ².

    Args:
        key: random key, for the directions in which spare centers are put beside others.
        x: (n_samples, n_features).
        k: number of clusters, static, 1 <= k <= n_samples.
        variance: σ² >= 0 (data units²), the last of the schedule. Traced.
        start: σ² > 0, the first of the schedule where it is above ``variance``; None for the critical variance, the
            largest eigenvalue of the covariance of the samples, above which all centers are at the mean. Traced.
        rate: in (0, 1), the ratio of one variance to the one before. Traced.
        weights: (n_samples,) non-negative sample weights, or None for 1 each.
        tol, axis_name: as in `fit`.
        max_steps: maximum number of steps at each temperature, and of the fit at the last. Traced.

    Returns:
        As `fit` from the annealed centers; steps and history are those of this fit.

    Raises:
        ValueError, TypeError: wrong shapes or values, before anything is traced.
    """
    key = validation.check_key(key)
    x, k = validation.check_samples(x, k, axis_name)
    validation.check_positive("variance", variance, zero=True)
    if start is not None:
        validation.check_positive("start", start)
    validation.check_positive("rate", rate)
    if not validation.is_traced(rate) and not rate < 1:
        raise ValueError(f"rate={rate} must be below 1: the variance has to fall.")
    validation.check_positive("tol", tol, zero=True)
    validation.check_positive("max_steps", max_steps)
    prepared = prepare(x, weights, axis_name=axis_name)
    points, dtype = prepared.points, prepared.points.x.dtype
    variance = variance_in_frame(prepared.frame, variance, dtype)
    start = None if start is None else variance_in_frame(prepared.frame, start, dtype)
    static = Static(k, FROM_CENTERS, history_capacity(max_steps), axis_name)
    schedule = variance, start, jnp.asarray(rate).astype(dtype)
    arguments = static, key, points, schedule, tol, max_steps
    work = 4 * points.x.size * k  # as in `fit`
    traced = validation.is_traced(*arguments[1:])
    if not traced and chunks.is_long(work * _temperatures(rate), min(max_steps, USUAL_STEPS), *arguments[1:]):
        shown = partial(prepared.unscale, length=2, weight=1)
        fitted = _anneal_in_chunks(*arguments, work, shown)
    else:
        fitted = _anneal(*arguments)
    return finalize(fitted, prepared, SoftKMeansState.leave, length=2, weight=1)


def _temperatures(rate):
    """Most temperatures of a schedule, of a concrete ratio between two variances."""
    return math.log(MIN_TEMPERATURE_RATIO) / math.log(rate)


@persistent_jit(static_argnums=0)
def _anneal(static, key, points, schedule, tol, max_steps):
    best = partial(_run, static)
    run = best if static.axis_name else vmap_in_chunks(best)
    fitted = run(*jax.lax.stop_gradient((points, schedule, tol)), max_steps, key)
    return finish(fitted, points, None, schedule[0], static.axis_name)


def _anneal_in_chunks(static, key, points, schedule, tol, max_steps, work, shown):
    """`_anneal` of concrete samples. Ctrl-C ends it at the temperature so far, before a step at the last one."""
    key, total, last, state = _compiled_start(static, points, schedule, key)
    columns = _compiled_columns(points)

    def arguments(state):
        return key, points, CenterConstraints(initial=state.centers), None, schedule[0], tol, max_steps

    long_fit.compile(static, *arguments(state))
    while float(state.residual) > 0:
        split_key, fit, limit = _compiled_cooling(static, points, schedule, last, state)
        step = chunks.bind(_temperature_step, static.axis_name, columns, fit.state.variance, total)
        fit = chunks.resume(step, fit, tol=limit, max_steps=max_steps, work=work)
        state = _compiled_cooled(split_key, last, fit.state)
        if int(fit.status) == Status.INTERRUPTED:
            break
    # An infinite work: in chunks, whose first is one step, however short this last part is.
    return long_fit(static, *arguments(state), work=math.inf, max_steps=max_steps, shown=shown)


def _run(static, points, schedule, tol, max_steps, key):
    """The whole schedule, and the fit at its end."""
    axis_name = static.axis_name
    key, total, last, state = _start(static, points, schedule, key)
    columns = em.transpose_points(points)

    def cool(state):
        split_key, fit, limit = _cooling(static, points, schedule, last, state)
        step = partial(_temperature_step, axis_name, columns, fit.state.variance, total)
        return _cooled(split_key, last, advance(step, fit, tol=limit, max_steps=max_steps).state)

    unbounded = jnp.iinfo(jnp.int32).max  # the schedule ends by itself
    centers = iterate(cool, state, tol=0.0, max_steps=unbounded, capacity=1).state.centers
    return run_em(static, points, CenterConstraints(initial=centers), None, schedule[0], tol, max_steps, key)


def _start(static, points, schedule, key):
    """Key of the last fit, total weight, last variance, and the state at the first."""
    variance, start, _ = schedule
    axis_name = static.axis_name
    total = all_reduce(jnp.sum(points.weight), axis_name)
    mean = all_reduce(points.weight @ points.x, axis_name) / total
    if start is None:
        key, power_key = jax.random.split(key)
        start = _largest_eigenvalue(power_key, points, mean, total, axis_name)
    # From the critical variance: above it EM contracts all centers to the mean, whatever the start.
    first = jnp.maximum(start, variance)
    last = jnp.maximum(variance, MIN_TEMPERATURE_RATIO * first)
    centers = jnp.broadcast_to(mean, (static.k, mean.shape[0]))
    residual = jnp.where(first > last, jnp.inf, 0).astype(first.dtype)
    state = _ScheduleState(key, centers, jnp.full_like(centers[:, 0], 1 / static.k), first, residual, first)
    return key, total, last, state


def _cooling(static, points, schedule, last, state):
    """Key of the next state, the fit before the first step at the next temperature, and its tolerance.

    The tolerance is so small that a center that leaves another, however slowly, goes on.
    """
    key, split_key = jax.random.split(state.key)
    now = jnp.maximum(schedule[2] * state.variance, last)
    spread = _spreads(points, state, static.axis_name)
    centers, cluster_weight = _place_spare_centers(split_key, state.centers, state.cluster_weight, spread, now)
    infinite = jnp.asarray(jnp.inf, now.dtype)
    fit = begin(_TemperatureState(centers, cluster_weight, infinite, infinite, now), 1)
    return key, fit, (SHIFT_TOLERANCE * SPLIT_PERTURBATION) ** 2 * now


def _temperature_step(axis_name, columns, variance, total, state):
    """EM step at one temperature."""
    stats = soft_stats(state.centers, columns, variance, cluster_weight=state.cluster_weight, axis_name=axis_name)
    centers = soft_update(stats, state.centers)
    shift = jnp.sum(jnp.square(centers - state.centers))
    return _TemperatureState(centers, stats.weight / total, shift, stats.energy, variance)


def _cooled(key, last, state):
    """State of the schedule after EM at a temperature."""
    now = state.variance
    residual = jnp.where(now > last, jnp.inf, 0).astype(now.dtype)
    return _ScheduleState(key, state.centers, state.cluster_weight, now, residual, state.objective)


_compiled_start = persistent_jit(_start, static_argnums=0)
_compiled_columns = persistent_jit(em.transpose_points)
_compiled_cooling = persistent_jit(_cooling, static_argnums=0)
_compiled_cooled = persistent_jit(_cooled)


def _place_spare_centers(key, centers, cluster_weight, spread, variance):
    """Put every center that coincides with another beside a distinct center, those of the widest spread first.

    A spare center keeps its direction from the center it coincided with: EM has turned it towards where the samples
    spread widest, as a power iteration would.
    """
    k = centers.shape[0]
    between = jnp.sum(jnp.square(centers[:, None] - centers[None]), axis=2)
    index = jnp.arange(k, dtype=jnp.int32)
    # The first center within the perturbation stands for all; twice, since coincidence is not transitive.
    place_of = jnp.argmax(between <= SPLIT_PERTURBATION**2 * variance, axis=1).astype(jnp.int32)
    place_of = place_of[place_of]
    distinct = place_of == index
    order = jnp.argsort(jnp.where(distinct, -spread, jnp.inf)).astype(jnp.int32)
    rank = jnp.cumsum(~distinct, dtype=jnp.int32) - 1
    target = jnp.where(distinct, index, order[rank % jnp.sum(distinct, dtype=jnp.int32)])
    # A little noise, for centers that coincide exactly and have no direction.
    noise = 1e-2 * SPLIT_PERTURBATION * jnp.sqrt(variance) * jax.random.normal(key, centers.shape, centers.dtype)
    direction = centers - centers[place_of] + noise
    direction = direction / jnp.sqrt(squared_norms(direction))[:, None]
    beside = centers[target] + SPLIT_PERTURBATION * jnp.sqrt(variance) * direction
    cluster_weight = jax.ops.segment_sum(cluster_weight, place_of, k)
    copies = jax.ops.segment_sum(jnp.ones_like(cluster_weight), target, k)
    return jnp.where(distinct[:, None], centers, beside), (cluster_weight / jnp.maximum(copies, 1))[target]


def _spreads(points, state, axis_name):
    """Mean squared distance (data units²) of each cluster's samples from its center."""
    to_centers = distances_to(state.centers, state.variance)
    weighted = distances_to(state.centers, state.variance, state.cluster_weight)

    def tile(columns):
        r = soft_assign(weighted(columns.x), state.variance)[1] * columns.weight[None, :]
        return (jnp.sum(r * to_centers(columns.x), axis=1), jnp.sum(r, axis=1)), ()

    size = em.em_tile(em.EMOptions("spherical"), points.weight.shape[0], *state.centers.shape)
    (squares, weight), _ = fold_rows(tile, em.transpose_points(points), tile=size, axis=-1, axis_name=axis_name)
    return squares / jnp.maximum(weight, jnp.finfo(weight.dtype).tiny)


def _largest_eigenvalue(key, points: Points, mean, total, axis_name):
    """Largest eigenvalue of the covariance, by power iteration."""
    offset = points.x - mean[None, :]

    def advance(_, carry):
        vector, _ = carry
        along = points.weight * jnp.matmul(offset, vector, precision=HIGHEST)
        # X and Xᵀ one after the other: the d×d covariance is never built.
        image = all_reduce(jnp.matmul(along, offset, precision=HIGHEST), axis_name) / total
        length = jnp.linalg.norm(image)
        return image / jnp.where(length > 0, length, 1), length

    vector = jax.random.normal(key, mean.shape, mean.dtype)
    start = (vector / jnp.linalg.norm(vector), jnp.zeros((), mean.dtype))
    return jax.lax.fori_loop(0, POWER_ITERATIONS, advance, start)[1]

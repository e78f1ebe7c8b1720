"""Soft k-means by deterministic annealing: the variance falls from where all centers are one to where it is wanted.

On the way clusters have masses, the shares of rows that they have, so that centers which lie in one place count as one.
One place splits in two where its rows spread wider than σ in some direction. Centers that have not split yet are spare,
and at each temperature they are put beside those places whose rows spread widest, to be there when these split.

Sources: K. Rose, E. Gurewitz and G. C. Fox, A deterministic annealing approach to clustering, Pattern Recognition
Letters 11 (1990); K. Rose, Deterministic annealing for clustering, compression, classification, regression, and related
optimization problems, Proc. IEEE 86 (1998), for the masses.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.given import GIVEN, Given
from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.soft_kmeans.fit import SoftKMeansState, Static, finish, run_once
from jaxcluster.cluster.soft_kmeans.step import distances_to, soft_stats, soft_update, soften
from jaxcluster.cluster.soft_kmeans.use import variance_in
from jaxcluster.core import check
from jaxcluster.core.fold import across, fold_rows
from jaxcluster.core.frame import finalize, prepare
from jaxcluster.core.iterate import history_capacity, iterate
from jaxcluster.core.restart import in_groups
from jaxcluster.ops.distance import HIGHEST, squared_norms
from jaxcluster.types import Array, Fit, Float, KeyArray, Points

NUDGE = 0.1
"""How far from a place a spare center is put, in units of σ; nearer to each other than that, centers are in one."""

STILL = 0.05
"""How far all centers together still move in a step where a temperature is done with, in units of the nudge."""

HARD = 1e-4
"""Share of the first variance below which there is nothing left to anneal: a variance of 0 is reached from there."""

POWERS = 32
"""Products with the covariance that its largest eigenvalue is found by."""


class _Settling(NamedTuple):
    """Centers and their masses at one temperature, and how far they last moved (squared)."""

    centers: Float[Array, "k d"]
    mass: Float[Array, " k"]
    residual: Float[Array, ""]
    objective: Float[Array, ""]


class _Cooling(NamedTuple):
    """Centers and masses as they have settled at a variance; residual is 0 at the last temperature."""

    key: KeyArray
    centers: Float[Array, "k d"]
    mass: Float[Array, " k"]
    variance: Float[Array, ""]
    residual: Float[Array, ""]
    objective: Float[Array, ""]


def anneal(
    key: KeyArray,
    x,
    k: int,
    *,
    variance,
    start=None,
    rate=0.9,
    weights=None,
    tol=1e-4,
    max_steps=300,
    axis_name: str | None = None,
) -> Fit:
    """Soft k-means from where annealing leads to, which hardly depends on chance.

    A pure function as `fit` is, one compiled program, and with the same gradients. Where shares are said to be in
    proportion to exp(−‖x − c‖²/T), it is the temperature T = 2σ² that falls.

    Args:
        key: random key; it decides in which directions spare centers are put beside others.
        x: (n, d) rows.
        k: number of clusters, static, 1 <= k <= n.
        variance: σ² >= 0 (data units²) that is annealed to. Traced.
        start: σ² > 0 to begin with, where it is above ``variance``; None for the critical one, the largest eigenvalue
            of the covariance of the rows, above which the only solution has all centers at the mean. Traced.
        rate: in (0, 1), what σ² is multiplied by from one temperature to the next. Traced.
        weights: (n,) non-negative row weights, or None.
        tol, axis_name: as in `fit`.
        max_steps: the most steps at each temperature, and of the fit at the last. Traced.

    Returns:
        As `fit` from the centers that were annealed; steps and history are those of this fit.

    Raises:
        ValueError, TypeError: wrong shapes or values, before anything is traced.
    """
    key = check.check_key(key)
    x, k = check.check_samples(x, k, axis_name)
    check.check_positive("variance", variance, zero=True)
    if start is not None:
        check.check_positive("start", start)
    check.check_positive("rate", rate)
    if not check.is_traced(rate) and not rate < 1:
        raise ValueError(f"rate={rate} must be below 1: the variance has to fall.")
    check.check_positive("tol", tol, zero=True)
    check.check_positive("max_steps", max_steps)
    prepared = prepare(x, weights, axis_name=axis_name)
    points, frame = prepared.points, prepared.frame
    variance, start = (None if each is None else variance_in(frame, each, points.x.dtype) for each in (variance, start))
    static = Static(k, GIVEN, history_capacity(max_steps), axis_name)
    schedule = variance, start, jnp.asarray(rate).astype(points.x.dtype)
    fitted = _anneal(static, key, points, schedule, tol, max_steps)
    return finalize(fitted, prepared, SoftKMeansState.leave, length=2, weight=1)


@partial(jax.jit, static_argnums=0)
def _anneal(static, key, points, schedule, tol, max_steps):
    best = partial(_run, static)
    run = best if static.axis_name else in_groups(best)
    fitted = run(*jax.lax.stop_gradient((points, schedule, tol)), max_steps, key)
    return finish(fitted, points, None, schedule[0], static.axis_name)


def _run(static, points, schedule, tol, max_steps, key):
    """The whole way down, and the fit at its end."""
    variance, start, rate = schedule
    axis_name = static.axis_name
    total = across(jnp.sum(points.weight), axis_name)
    mean = across(points.weight @ points.x, axis_name) / total
    if start is None:
        key, power_key = jax.random.split(key)
        start = _largest_eigenvalue(power_key, points, mean, total, axis_name)
    first = jnp.maximum(start, variance)
    last = jnp.maximum(variance, HARD * first)

    def fall(state):
        key, push_key = jax.random.split(state.key)
        now = jnp.maximum(rate * state.variance, last)
        spread = _spreads(points, state, axis_name)
        centers, mass = _deal(push_key, state.centers, state.mass, spread, now)
        settled = _settle(points, centers, mass, now, total, max_steps, axis_name)
        left = jnp.where(now > last, jnp.inf, 0).astype(now.dtype)
        return _Cooling(key, settled.centers, settled.mass, now, left, settled.objective)

    centers = jnp.broadcast_to(mean, (static.k, mean.shape[0]))
    left = jnp.where(first > last, jnp.inf, 0).astype(first.dtype)
    state = _Cooling(key, centers, jnp.full_like(centers[:, 0], 1 / static.k), first, left, first)
    most = jnp.iinfo(jnp.int32).max  # the schedule ends by itself
    centers = iterate(fall, state, tol=0.0, max_steps=most, capacity=1).state.centers
    return run_once(static, points, Given(start=centers), None, variance, tol, max_steps, key)


def _settle(points, centers, mass, variance, total, max_steps, axis_name):
    """Steps at one temperature until the centers hardly move; one that leaves its place goes on, however slowly."""
    columns = em.as_columns(points)

    def advance(state):
        stats = soft_stats(state.centers, columns, variance, mass=state.mass, axis_name=axis_name)
        centers = soft_update(stats, state.centers)
        return _Settling(centers, stats.weight / total, jnp.sum(jnp.square(centers - state.centers)), stats.energy)

    most = jnp.asarray(jnp.inf, variance.dtype)
    tol = (STILL * NUDGE) ** 2 * variance
    return iterate(advance, _Settling(centers, mass, most, most), tol=tol, max_steps=max_steps, capacity=1).state


def _deal(key, centers, mass, spread, variance):
    """Puts every center that lies where another does beside a place, those of the widest spread first.

    A spare center keeps the direction in which it stood from its place: there the steps have turned it towards where
    the rows spread widest.
    """
    k = centers.shape[0]
    between = jnp.sum(jnp.square(centers[:, None] - centers[None]), axis=2)
    index = jnp.arange(k, dtype=jnp.int32)
    place_of = jnp.argmax(between <= NUDGE**2 * variance, axis=1).astype(jnp.int32)
    place_of = place_of[place_of]
    single = place_of == index
    order = jnp.argsort(jnp.where(single, -spread, jnp.inf)).astype(jnp.int32)
    turn = jnp.cumsum(~single, dtype=jnp.int32) - 1
    target = jnp.where(single, index, order[turn % jnp.sum(single, dtype=jnp.int32)])
    noise = 1e-2 * NUDGE * jnp.sqrt(variance) * jax.random.normal(key, centers.shape, centers.dtype)
    away = centers - centers[place_of] + noise
    away = away / jnp.sqrt(squared_norms(away))[:, None]
    beside = centers[target] + NUDGE * jnp.sqrt(variance) * away
    mass = jax.ops.segment_sum(mass, place_of, k)
    copies = jax.ops.segment_sum(jnp.ones_like(mass), target, k)
    return jnp.where(single[:, None], centers, beside), (mass / jnp.maximum(copies, 1))[target]


def _spreads(points, state, axis_name):
    """Mean squared distance (data units²) of each cluster's rows from its center."""
    to_centers = distances_to(state.centers, state.variance)
    shares_of = distances_to(state.centers, state.variance, state.mass)

    def tile(columns):
        r = soften(shares_of(columns.x), state.variance)[1] * columns.weight[None, :]
        return (jnp.sum(r * to_centers(columns.x), axis=1), jnp.sum(r, axis=1)), ()

    size = em.em_tile(em.EMOptions("spherical"), points.weight.shape[0], *state.centers.shape)
    (squares, weight), _ = fold_rows(tile, em.as_columns(points), tile=size, axis=-1, axis_name=axis_name)
    return squares / jnp.maximum(weight, jnp.finfo(weight.dtype).tiny)


def _largest_eigenvalue(key, points: Points, mean, total, axis_name):
    """Of the covariance, by the power method."""
    offset = points.x - mean[None, :]

    def advance(_, carry):
        vector, _ = carry
        along = points.weight * jnp.matmul(offset, vector, precision=HIGHEST)
        image = across(jnp.matmul(along, offset, precision=HIGHEST), axis_name) / total
        length = jnp.linalg.norm(image)
        return image / jnp.where(length > 0, length, 1), length

    vector = jax.random.normal(key, mean.shape, mean.dtype)
    start = (vector / jnp.linalg.norm(vector), jnp.zeros((), mean.dtype))
    return jax.lax.fori_loop(0, POWERS, advance, start)[1]

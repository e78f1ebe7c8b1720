"""Mini-batch k-means: each centre is a running mean of the rows that small random batches gave it.

Source: D. Sculley, Web-scale k-means clustering, WWW 2010, with the re-drawing of rare centres and the stopping rule
that scikit-learn made usual.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.batches import count_rows, draw_batch, going_on, smooth
from jaxcluster.cluster.centroids import inertia_of, mean_variance
from jaxcluster.cluster.given import GIVEN, check_given
from jaxcluster.cluster.seeding import seed_centers
from jaxcluster.core import check
from jaxcluster.core.iterate import history_capacity, iterate, status_with
from jaxcluster.core.restart import many
from jaxcluster.core.rows import bucket, place, trim
from jaxcluster.ops.distance import squared_norms
from jaxcluster.ops.nearest import nearest
from jaxcluster.ops.segments import cluster_sums
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Points

REDRAW_PERIOD = 10
"""Rare centres are looked for each time this many rows for each centre have been seen."""


class MiniBatchState(NamedTuple):
    """Centres as running means, and what decides about re-drawing and stopping.

    Attributes:
        centers: (k, d).
        counts: (k,) total weight that each centre has averaged.
        since_redraw: () rows seen since rare centres were last re-drawn.
        inertia: () Σ w·‖x − c‖² (data units²): of the last batch while running, of all rows after a fit.
        smoothed: () exponentially smoothed inertia per unit of weight; NaN before the second batch.
        least: () the least smoothed inertia so far.
        stale: () batches since then.
        shift: () Σ‖Δc‖² of the last batch (data units²).
    """

    centers: Float[Array, "*batch k d"]
    counts: Float[Array, "*batch k"]
    since_redraw: Int[Array, "*batch"]
    inertia: Float[Array, "*batch"]
    smoothed: Float[Array, "*batch"]
    least: Float[Array, "*batch"]
    stale: Int[Array, "*batch"]
    shift: Float[Array, "*batch"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """The smoothed inertia per unit of weight."""
        return self.smoothed


class _Static(NamedTuple):
    """Options that change the program."""

    k: int
    init: str
    runs: int
    batch_size: int
    init_size: int
    capacity: int
    axis_name: str | None


def fit(
    key: KeyArray,
    x,
    k: int,
    *,
    weights=None,
    batch_size: int = 1024,
    init="k-means++",
    n_init: int = 1,
    max_epochs=100,
    tol=0.0,
    max_no_improvement=10,
    init_size: int | None = None,
    reassignment_ratio=0.01,
    axis_name: str | None = None,
) -> Fit:
    """Clusters rows by small batches drawn with replacement; needs a few passes where Lloyd needs many.

    Args:
        key: random key for the start and the batches.
        x: (n, d) rows.
        k: number of clusters, static, 1 <= k <= n.
        weights: (n,) non-negative row weights, or None.
        batch_size: rows a batch, static.
        init: as in ``kmeans.fit``.
        n_init: starts tried on ``init_size`` rows; the one with the least inertia there is used.
        max_epochs: the most batches taken, in passes over the rows. Traced.
        tol: stop when Σ‖Δc‖² of a batch <= tol × the mean variance of the columns; 0 switches this off. Traced.
        max_no_improvement: stop after so many batches without a lower smoothed inertia; None switches this off.
        init_size: rows that starts are drawn from and tried on; None for three batches, at least 3k.
        reassignment_ratio: a centre whose count is below this share of the largest is re-drawn from the batch.
        axis_name: the mapped axis over which rows are spread, inside shard_map.

    Returns:
        `Fit` with a `MiniBatchState`, the labels of all rows, steps (batches), status, and the smoothed inertia per
        unit of weight after each batch.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names, before anything is traced.
    """
    x = check.check_matrix(x)
    n_local = x.shape[0]
    n = n_local if axis_name is None else n_local * jax.lax.axis_size(axis_name)
    k = check.check_clusters(k, n)
    batch_size = check.check_count("batch_size", batch_size)
    init_size = max(3 * batch_size, 3 * k) if init_size is None else init_size
    init_size = max(k, check.check_count("init_size", init_size))
    for name, value in (("tol", tol), ("reassignment_ratio", reassignment_ratio)):
        check.check_positive(name, value, zero=True)
    check.check_positive("max_epochs", max_epochs)
    name, given = check_given(init, None, None, k, x.shape[1])
    runs = 1 if name == GIVEN else check.check_count("n_init", n_init)
    placed = place(x, weights, axis_name=axis_name)
    most = max_epochs if check.is_traced(max_epochs) else max(1, max_epochs * bucket(n) // batch_size)
    rows = n_local if axis_name is None else n
    static = _Static(k, name, runs, batch_size, min(init_size, bucket(rows)), history_capacity(most), axis_name)
    patience = jnp.asarray(jnp.inf if max_no_improvement is None else max_no_improvement, jnp.float32)
    limits = (tol, max_epochs, patience, reassignment_ratio)
    fitted = _fit(static, key, placed.points, placed.origin, given, limits)
    return fitted._replace(labels=trim(fitted.labels, placed.n))


def start(key: KeyArray, x, k: int, *, weights=None, init="k-means++", n_init: int = 1) -> MiniBatchState:
    """A state that has seen nothing yet, its centres chosen from the first batch x (n, d); see `fit`."""
    x = check.check_matrix(x)
    k = check.check_clusters(k, x.shape[0])
    name, given = check_given(init, None, None, k, x.shape[1])
    runs = 1 if name == GIVEN else check.check_count("n_init", n_init)
    placed = place(x, weights)
    static = _Static(k, name, runs, 0, placed.points.x.shape[0], 0, None)
    return _start(static, key, placed.points, placed.origin, given)


def partial_fit(key: KeyArray, state: MiniBatchState, x, *, weights=None, reassignment_ratio=0.01) -> MiniBatchState:
    """The state after one more batch: its rows are averaged into their nearest centres.

    Args:
        key: random key for re-drawing rare centres.
        state: from `start`, `fit` or an earlier call.
        x: (n, d) rows, any number of them.
        weights: (n,) non-negative, or None.
        reassignment_ratio: as in `fit`.
    """
    x = check.check_matrix(x)
    check.check_width(x, state.centers.shape[1])
    check.check_positive("reassignment_ratio", reassignment_ratio, zero=True)
    centers = state.centers
    origin = jnp.mean(centers, axis=0) if check.is_traced(centers, x) else np.mean(np.asarray(centers), axis=0)
    placed = place(x, weights, origin=origin)
    return _partial_fit(key, state, placed.points, placed.origin, jnp.int32(placed.n), reassignment_ratio)


@partial(jax.jit, static_argnums=0)
def _start(static, key, points, origin, given):
    given = given.in_frame(origin, spherical=False)
    return _in_frame(_seed(static, key, points, given), -origin)


@jax.jit
def _partial_fit(key, state, points, origin, n, reassignment_ratio):
    state = step(key, _in_frame(state, origin), points, n=n, n_rows=n, reassignment_ratio=reassignment_ratio)
    return _in_frame(state, -origin)


@partial(jax.jit, static_argnums=0)
def _fit(static, key, points, origin, given, limits):
    tol, max_epochs, patience, reassignment_ratio = limits
    n = count_rows(points.weight, static.axis_name)
    max_steps = jnp.maximum(1, jnp.floor(max_epochs * (n / static.batch_size)).astype(jnp.int32))
    given = given.in_frame(origin, spherical=False)
    init_key, batch_key = jax.random.split(key)
    sample_key, seed_key = jax.random.split(init_key)
    sample = draw_batch(sample_key, points, static.init_size, n, static.axis_name)
    tol = tol * mean_variance(points, squared_norms(points.x), axis_name=static.axis_name)

    def advance(running):
        draw_key, redraw_key = jax.random.split(jax.random.fold_in(batch_key, running.steps))
        batch = draw_batch(draw_key, points, static.batch_size, n, static.axis_name)
        size = jnp.int32(static.batch_size)
        state = step(redraw_key, running.state, batch, n=n, n_rows=size, reassignment_ratio=reassignment_ratio)
        still = (state.shift <= tol) & (tol > 0) & (running.steps > 0)
        done = still | (state.stale >= patience)
        return _Running(state, running.steps + 1, going_on(done, state.shift))

    running = _Running(_seed(static, seed_key, sample, given), jnp.int32(0), jnp.ones((), points.x.dtype))
    fitted = iterate(advance, running, tol=0, max_steps=max_steps, capacity=static.capacity)
    state = fitted.state.state
    labels, _ = nearest(points.x, state.centers)
    inertia = inertia_of(points, state.centers, labels, axis_name=static.axis_name)
    state = _in_frame(state._replace(inertia=inertia), -origin)
    return fitted._replace(state=state, labels=labels, status=status_with(fitted.status, objective=inertia))


class _Running(NamedTuple):
    """A state with the number of batches behind it; the residual is 1 while it should go on."""

    state: MiniBatchState
    steps: Int[Array, ""]
    residual: Float[Array, ""]

    @property
    def objective(self):
        return self.state.objective


def step(key: KeyArray, state: MiniBatchState, batch: Points, *, n, n_rows, reassignment_ratio) -> MiniBatchState:
    """One batch, in the frame of its rows.

    Args:
        n: rows of the whole set, which sets how slowly the inertia is smoothed.
        n_rows: rows of this batch.
    """
    k = state.counts.shape[0]
    labels, distance = nearest(batch.x, state.centers)
    sums, weight = cluster_sums(batch, labels, k)
    counts = state.counts + weight
    grown = weight > 0
    means = (state.centers * state.counts[:, None] + sums) / jnp.where(grown, counts, 1)[:, None]
    centers = jnp.where(grown[:, None], means, state.centers)
    shift = jnp.sum(jnp.square(centers - state.centers))
    since = state.since_redraw + n_rows
    due = jnp.any(state.counts == 0) | (since >= REDRAW_PERIOD * k)
    centers, counts = _redraw_rare(key, centers, counts, batch, n_rows, reassignment_ratio, due)
    inertia = batch.weight @ distance
    return smooth(
        state._replace(
            centers=centers, counts=counts, since_redraw=jnp.where(due, 0, since), inertia=inertia, shift=shift
        ),
        inertia / jnp.sum(batch.weight),
        jnp.minimum(2 * n_rows / (n + 1), 1).astype(inertia.dtype),
        fresh=jnp.sum(state.counts) == 0,
    )


def _redraw_rare(key, centers, counts, batch, n_rows, ratio, due):
    """Puts centres with low counts on random rows of the batch; at most half as many as the batch has rows."""
    k = counts.shape[0]
    rare = due & (counts < ratio * jnp.max(counts))
    rank = jnp.argsort(jnp.argsort(jnp.where(rare, counts, jnp.inf)))
    rows = min(k, batch.weight.shape[0])
    noise = jax.random.gumbel(key, batch.weight.shape, batch.x.dtype)
    _, drawn = jax.lax.top_k(jnp.where(batch.weight > 0, noise, -jnp.inf), rows)
    rare &= (rank < n_rows // 2) & (rank < rows)
    kept_least = jnp.min(jnp.where(rare, jnp.inf, counts))
    centers = jnp.where(rare[:, None], batch.x[drawn[jnp.minimum(rank, rows - 1)]], centers)
    return centers, jnp.where(rare, kept_least, counts)


def _seed(static, key, sample, given):
    """The start with the least inertia on a sample of rows."""
    if given.start is not None:
        return _fresh(given.start)

    def one(key):
        centers = seed_centers(key, sample, static.k, init=static.init)
        return centers, sample.weight @ nearest(sample.x, centers)[1]

    if static.runs == 1:
        return _fresh(one(key)[0])
    centers, inertia = many(one, jax.random.split(key, static.runs))
    return _fresh(centers[jnp.argmin(inertia)])


def _fresh(centers):
    zero, none = jnp.zeros((), centers.dtype), jnp.int32(0)
    infinite = jnp.full((), jnp.inf, centers.dtype)
    counts = jnp.zeros(centers.shape[:1], centers.dtype)
    return MiniBatchState(centers, counts, none, zero, zero * jnp.nan, infinite, none, infinite)


def _in_frame(state, origin):
    return state._replace(centers=state.centers - origin)

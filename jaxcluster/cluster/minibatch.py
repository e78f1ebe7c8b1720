"""Mini-batch k-means: each center is a running mean of the rows that small random batches gave it.

Source: D. Sculley, Web-scale k-means clustering, WWW 2010, with the re-drawing of rare centers and the stopping rule
that scikit-learn made usual.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.batches import count_rows, draw_batch, going_on, smooth
from jaxcluster.cluster.centroids import coarse_of_labels, mean_variance, with_precision
from jaxcluster.cluster.given import GIVEN, check_given
from jaxcluster.cluster.seeding import seed_centers
from jaxcluster.core import check, memory
from jaxcluster.core.fold import across
from jaxcluster.core.frame import Frame, bucket, finalize, frame_of, prepare
from jaxcluster.core.iterate import history_capacity, iterate, status_with
from jaxcluster.core.restart import many
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.distance import distances_to_assigned, squared_norms
from jaxcluster.ops.nearest import nearest
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Points

REDRAW_PERIOD = 10
"""Rare centers are looked for each time this many rows for each center have been seen."""


class MiniBatchState(NamedTuple):
    """Centers as running means, and what decides about re-drawing and stopping.

    Attributes:
        centers: (k, d).
        counts: (k,) total weight that each center has averaged.
        since_redraw: () rows seen since rare centers were last re-drawn.
        inertia: () Σ w·‖x − c‖² (data units²): of the last batch while running, of all rows after a fit.
        smoothed: () exponentially smoothed inertia per unit of weight; infinite before the second batch.
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

    def enter(self, frame: Frame) -> MiniBatchState:
        """The same state in a frame."""
        smoothed, least = (frame.scale(each, length=2) for each in (self.smoothed, self.least))
        return self._replace(
            centers=frame.enter(self.centers),
            counts=frame.scale(self.counts, weight=1),
            inertia=frame.scale(self.inertia, length=2, weight=1),
            smoothed=smoothed,
            least=least,
            shift=frame.scale(self.shift, length=2),
        )

    def leave(self, frame: Frame) -> MiniBatchState:
        """The same state in the caller's coordinates and units."""
        smoothed, least = (frame.unscale(each, length=2) for each in (self.smoothed, self.least))
        return self._replace(
            centers=frame.leave(self.centers),
            counts=frame.unscale(self.counts, weight=1),
            inertia=frame.unscale(self.inertia, length=2, weight=1),
            smoothed=smoothed,
            least=least,
            shift=frame.unscale(self.shift, length=2),
        )


class _Static(NamedTuple):
    """Options that change the program."""

    k: int
    init: str
    runs: int
    batch_size: int
    init_size: int
    narrowed: bool
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
        reassignment_ratio: a center whose count is below this share of the largest is re-drawn from the batch.
        axis_name: the mapped axis over which rows are spread, inside shard_map.

    Returns:
        `Fit` with a `MiniBatchState`, the labels of all rows, steps (batches), status, and the smoothed inertia per
        unit of weight after each batch; of the first that of the start, which is not smoothed.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names, before anything is traced.
    """
    options = {"weights": weights, "batch_size": batch_size, "init": init, "n_init": n_init, "tol": tol}
    options |= {"max_epochs": max_epochs, "max_no_improvement": max_no_improvement, "init_size": init_size}
    return fit_framed(key, x, k, reassignment_ratio=reassignment_ratio, axis_name=axis_name, **options)[0]


def fit_framed(
    key: KeyArray,
    x,
    k: int,
    *,
    weights,
    batch_size,
    init,
    n_init,
    max_epochs,
    tol,
    max_no_improvement,
    init_size,
    reassignment_ratio,
    axis_name=None,
) -> tuple[Fit, Frame]:
    """`fit`, and the frame in which it was computed."""
    key = check.check_key(key)
    x, k = check.check_samples(x, k, axis_name)
    n_local = x.shape[0]
    n = n_local if axis_name is None else n_local * jax.lax.axis_size(axis_name)
    batch_size = check.check_count("batch_size", batch_size)
    init_size = max(3 * batch_size, 3 * k) if init_size is None else init_size
    init_size = max(k, check.check_count("init_size", init_size))
    for name, value in (("tol", tol), ("reassignment_ratio", reassignment_ratio)):
        check.check_positive(name, value, zero=True)
    check.check_positive("max_epochs", max_epochs)
    name, given = check_given(init, None, None, k, x.shape[1])
    runs = 1 if name == GIVEN else check.check_count("n_init", n_init)
    prepared = prepare(x, weights, axis_name=axis_name)
    most = max_epochs if check.is_traced(max_epochs) else max(1, max_epochs * bucket(n) // batch_size)
    rows = n_local if axis_name is None else n
    static = _Static(
        k, name, runs, batch_size, min(init_size, bucket(rows)), prepared.narrowed, history_capacity(most), axis_name
    )
    patience = jnp.asarray(jnp.inf if max_no_improvement is None else max_no_improvement, jnp.float32)
    limits = (tol, max_epochs, patience, reassignment_ratio)
    fitted, coarse = _fit(static, key, prepared.points, given.enter(prepared.frame), limits)
    fitted = finalize(fitted, prepared, MiniBatchState.leave, length=2)
    return with_precision(fitted, x, prepared.frame, coarse), prepared.frame


def start(
    key: KeyArray, x, k: int, *, weights=None, init="k-means++", n_init: int = 1, frame: Frame | None = None
) -> MiniBatchState:
    """A state that has seen nothing yet, its centers chosen from the first batch x (n, d).

    Arguments as in `fit` and `partial_fit`.
    """
    x, k = check.check_samples(x, k)
    name, given = check_given(init, None, None, k, x.shape[1])
    runs = 1 if name == GIVEN else check.check_count("n_init", n_init)
    prepared = prepare(x, weights, frame=frame)
    static = _Static(k, name, runs, 0, prepared.points.x.shape[0], False, 0, None)
    return _start(static, key, prepared.points, given.enter(prepared.frame)).leave(prepared.frame)


def partial_fit(
    key: KeyArray,
    state: MiniBatchState,
    x,
    *,
    weights=None,
    reassignment_ratio=0.01,
    frame: Frame | None = None,
) -> MiniBatchState:
    """The state after one more batch: its rows are averaged into their nearest centers.

    Args:
        key: random key for re-drawing rare centers.
        state: from `start`, `fit` or an earlier call.
        x: (n, d) rows, any number of them.
        weights: (n,) non-negative, or None.
        reassignment_ratio: as in `fit`.
        frame: of the first batch; None for one about the centers.
    """
    x = check.check_matrix(x)
    check.check_width(x, state.centers.shape[1])
    check.check_positive("reassignment_ratio", reassignment_ratio, zero=True)
    prepared = prepare(x, weights, frame=frame_of(state.centers) if frame is None else frame)
    inside = state.enter(prepared.frame)
    return _partial_fit(key, inside, prepared.points, jnp.int32(prepared.n), reassignment_ratio).leave(prepared.frame)


@partial(jax.jit, static_argnums=0)
def _start(static, key, points, given):
    return _seed(static, key, points, given)


@jax.jit
def _partial_fit(key, state, points, n, reassignment_ratio):
    state = jax.tree.map(lambda leaf: leaf.astype(points.x.dtype) if leaf.dtype.kind == "f" else leaf, state)
    return step(key, state, points, n=n, n_rows=n, reassignment_ratio=reassignment_ratio)[0]


@partial(jax.jit, static_argnums=0)
def _fit(static, key, points, given, limits):
    tol, max_epochs, patience, reassignment_ratio = limits
    n = count_rows(points.weight, static.axis_name)
    max_steps = jnp.maximum(1, jnp.floor(max_epochs * (n.astype(jnp.float32) / static.batch_size)).astype(jnp.int32))
    init_key, batch_key = jax.random.split(key)
    sample_key, seed_key = jax.random.split(init_key)
    sample = draw_batch(sample_key, points, static.init_size, n, static.axis_name)
    norms = squared_norms(points.x)
    tol = tol * mean_variance(points, norms, axis_name=static.axis_name)

    def advance(running):
        draw_key, redraw_key = jax.random.split(jax.random.fold_in(batch_key, running.steps))
        batch = draw_batch(draw_key, points, static.batch_size, n, static.axis_name)
        size = jnp.int32(static.batch_size)
        state, value = step(redraw_key, running.state, batch, n=n, n_rows=size, reassignment_ratio=reassignment_ratio)
        still = (state.shift <= tol) & (tol > 0) & (running.steps > 0)
        done = still | (state.stale.astype(patience.dtype) >= patience)
        return _Running(state, running.steps + 1, going_on(done, state.shift), value)

    one = jnp.ones((), points.x.dtype)
    running = _Running(_seed(static, seed_key, sample, given), jnp.int32(0), one, one)
    fitted = iterate(advance, running, tol=0, max_steps=max_steps, capacity=static.capacity)
    state = fitted.state.state
    labels, _ = nearest(points.x, state.centers)
    own = distances_to_assigned(points.x, state.centers, labels)
    inertia = across(points.weight @ own, static.axis_name)
    status = status_with(fitted.status, objective=inertia)
    coarse = coarse_of_labels(points, state.centers, labels) if static.narrowed else None
    return fitted._replace(state=state._replace(inertia=inertia), labels=labels, status=status), coarse


class _Running(NamedTuple):
    """A state with the number of batches behind it; the residual is 1 while it should go on.

    The value is the inertia of the last batch per unit of weight, which stands for the smoothed one of the first batch.
    """

    state: MiniBatchState
    steps: Int[Array, ""]
    residual: Float[Array, ""]
    value: Float[Array, ""]

    @property
    def objective(self):
        return jnp.where(jnp.isinf(self.state.smoothed), self.value, self.state.smoothed)


def step(
    key: KeyArray, state: MiniBatchState, batch: Points, *, n, n_rows, reassignment_ratio
) -> tuple[MiniBatchState, Float[Array, ""]]:
    """One batch, in the frame of its rows.

    Args:
        n: rows of the whole set, which sets how slowly the inertia is smoothed.
        n_rows: rows of this batch.

    Returns:
        The state after the batch, and the inertia of the batch per unit of weight.
    """
    k = state.counts.shape[0]
    fresh = jnp.sum(state.counts) == 0
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
    total = jnp.sum(batch.weight)
    value = inertia / jnp.where(total > 0, total, 1)
    state = state._replace(
        centers=centers, counts=counts, since_redraw=jnp.where(due, 0, since), inertia=inertia, shift=shift
    )
    alpha = jnp.minimum(2 * n_rows / (n + 1), 1).astype(inertia.dtype)
    return smooth(state, value, alpha, fresh=fresh), value


def _redraw_rare(key, centers, counts, batch, n_rows, ratio, due):
    """Puts centers with low counts on random rows of the batch; at most half as many as the batch has rows."""
    k = counts.shape[0]
    rare = due & (counts < ratio * jnp.max(counts))
    rank = jnp.argsort(jnp.argsort(jnp.where(rare, counts, jnp.inf))).astype(jnp.int32)
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
    return MiniBatchState(centers, counts, none, zero, infinite, infinite, none, infinite)


memory.guard_functions(__name__)

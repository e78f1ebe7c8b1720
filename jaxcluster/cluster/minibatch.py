"""Mini-batch k-means: each center is the running mean of the samples that small random batches assigned to it.

    c_j ← (N_j·c_j + Σ w·x) / (N_j + Σ w),   N_j ← N_j + Σ w   over the samples of the batch nearest to c_j

The learning rate of a center is thus 1/N_j per sample. The iteration stops by early stopping: when the exponentially
smoothed inertia of the batches has not fallen for some batches.

Source: D. Sculley, Web-scale k-means clustering, WWW 2010; the reassignment of rare centers and the stopping rule are
those of scikit-learn. `predict`, `score` and `transform` are those of k-means.

>>> import jax, jax.numpy as jnp
>>> x = jnp.array([[0.0], [1.0], [9.0], [10.0]])
>>> fit(jax.random.key(0), x, 2, batch_size=8, max_epochs=40).labels.tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
True
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcluster.cluster.kmeans import predict, score, transform
from jaxcluster.cluster.kmeans_state import padded_number
from jaxcluster.cluster.lloyd import mean_variance
from jaxcluster.cluster.precision import unresolved_about_means, with_precision_status
from jaxcluster.cluster.seeding import FROM_CENTERS, check_centers, seed_centers
from jaxcluster.core import chunks, memory, signals, validation
from jaxcluster.core.batching import map_runs
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.fold import MAX, all_reduce
from jaxcluster.core.frame import Frame, frame_of
from jaxcluster.core.iterate import begin, history_capacity, status_with
from jaxcluster.core.padding import padded_tol
from jaxcluster.core.preparation import finalize, padded_size, prepare, unpad
from jaxcluster.core.processes import gather_parts, keep_own_labels
from jaxcluster.core.shard import axis_of, check_mesh, rows_of, shard_index, solve_over_rows, take_row
from jaxcluster.core.sparse_input import check_rows, check_sparse_samples
from jaxcluster.core.sparse_rows import SparseRows
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.nearest import nearest
from jaxcluster.ops.rows import distances_to_assigned, squared_norms
from jaxcluster.types import Array, Bool, Fit, Float, Int, KeyArray, Points, Published

__all__ = ["MiniBatchState", "fit", "fit_framed", "init", "partial_fit", "predict", "score", "step", "transform"]

State = TypeVar("State", bound=Any)

REASSIGNMENT_PERIOD = 10
"""Samples per center between two reassignments of rare centers, as in scikit-learn."""


def __dir__() -> list[str]:
    return __all__


class MiniBatchState(NamedTuple):
    """Centers as running means, with the counters of reassignment and of early stopping.

    Attributes:
        centers: (k, d) cluster centers.
        counts: (k,) total weight N that each center has averaged.
        since_redraw: () samples seen since rare centers were last reassigned.
        inertia: () Σ w·‖x − c‖² (data units²): of the last batch while running, of all samples after a fit.
        smoothed: () exponentially smoothed inertia per unit of weight; infinite before the second batch.
        least: () least smoothed inertia so far.
        stale: () batches since then.
        shift: () Σ‖Δc‖² of the last batch (data units²).
    """

    centers: Float[Published, "*batch k d"]
    counts: Float[Published, "*batch k"]
    since_redraw: Int[Published, "*batch"]
    inertia: Float[Published, "*batch"]
    smoothed: Float[Published, "*batch"]
    least: Float[Published, "*batch"]
    stale: Int[Published, "*batch"]
    shift: Float[Published, "*batch"]

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

    def leave(self, frame: Frame, *, k: int | None = None) -> MiniBatchState:
        """The same state in the caller's coordinates and units; of padded clusters the first k."""
        smoothed, least = (frame.unscale(each, length=2) for each in (self.smoothed, self.least))
        centers, counts = self.centers, self.counts
        if k is not None:
            centers, counts = unpad(centers, k, axis=-2), unpad(counts, k)
        return self._replace(
            centers=frame.leave(centers),
            counts=frame.unscale(counts, weight=1),
            inertia=frame.unscale(self.inertia, length=2, weight=1),
            smoothed=smoothed,
            least=least,
            shift=frame.unscale(self.shift, length=2),
        )


class _Static(NamedTuple):
    """Static options: they change the compiled program. ``drawn`` is the batch size with its padding."""

    k: int
    init: str
    runs: int
    drawn: int
    init_size: int
    narrowed: bool
    capacity: int
    axis_name: str | None


def fit(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    weights: Any = None,
    batch_size: int = 1024,
    init: Any = "k-means++",
    n_init: int = 1,
    max_epochs: Any = 100,
    tol: Any = 0.0,
    max_no_improvement: Any = 10,
    init_size: int | None = None,
    reassignment_ratio: Any = 0.01,
    axis_name: str | None = None,
    mesh: Mesh | None = None,
) -> Fit:
    """Cluster samples by small batches drawn with replacement; takes a few passes where Lloyd takes many.

    Args:
        key: random key for the initialization and the batches.
        x: (n_samples, n_features), dense or sparse as in ``kmeans.fit``.
        k: number of clusters, static, 1 <= k <= n_samples.
        weights: (n_samples,) non-negative sample weights, or None for 1 each.
        batch_size: samples in a batch, static.
        init: as in ``kmeans.fit``.
        n_init: initializations tried on ``init_size`` samples; the one of least inertia there is used.
        max_epochs: maximum number of passes over the samples, in batches. Traced.
        tol: stop when Σ‖Δc‖² of a batch <= tol × the mean variance of the features; 0 switches this off. Traced.
        max_no_improvement: stop after so many batches without a lower smoothed inertia; None switches this off.
        init_size: samples that initial centers are drawn from and tried on; None for three batches, at least 3k.
        reassignment_ratio: a center whose count is below this fraction of the largest is drawn again from the batch.
        axis_name: the mapped axis over which samples are spread, inside shard_map.
        mesh: over whose devices concrete samples are spread, in the frame of all of them; None for one device. Where
            they are those of several processes, ``x`` has the samples of this one, and so have the labels; batches are
            of the samples of all, and each process needs memory for all of them.

    Returns:
        `Fit` with a `MiniBatchState`, the labels of all samples, steps (batches), status, and the smoothed inertia per
        unit of weight after each batch; after the first the inertia of that batch, which is not smoothed.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names, before anything is traced.
    """
    check_mesh(mesh, x)
    x, weights, own = gather_parts(mesh, x, weights)
    options = {"weights": weights, "batch_size": batch_size, "init": init, "n_init": n_init, "tol": tol}
    options |= {"max_epochs": max_epochs, "max_no_improvement": max_no_improvement, "init_size": init_size}
    options |= {"reassignment_ratio": reassignment_ratio, "axis_name": axis_name, "mesh": mesh}
    return keep_own_labels(fit_framed(key, x, k, **options)[0], own)


@signals.keeping_result()
def fit_framed(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    weights: Any,
    batch_size: Any,
    init: Any,
    n_init: Any,
    max_epochs: Any,
    tol: Any,
    max_no_improvement: Any,
    init_size: Any,
    reassignment_ratio: Any,
    axis_name: str | None = None,
    mesh: Mesh | None = None,
) -> tuple[Fit, Frame]:
    """`fit` for callers that need its frame; over several processes each has the samples of all.

    Returns:
        The fit, and the frame in which it was computed.
    """
    key = validation.check_key(key)
    x, k = check_sparse_samples(x, k, axis_name)
    axis_name = axis_name if check_mesh(mesh, x) is None else axis_of(mesh)
    n_local = x.shape[0]
    n = n_local if axis_name is None or mesh is not None else n_local * jax.lax.axis_size(axis_name)
    batch_size = validation.check_count("batch_size", batch_size)
    init_size = max(3 * batch_size, 3 * k) if init_size is None else init_size
    init_size = max(k, validation.check_count("init_size", init_size))
    for name, value in (("tol", tol), ("reassignment_ratio", reassignment_ratio)):
        validation.check_positive(name, value, zero=True)
    validation.check_positive("max_epochs", max_epochs)
    name, constraints = check_centers(init, None, None, k, x.shape[1])
    runs = 1 if name == FROM_CENTERS else validation.check_count("n_init", n_init)
    prepared = prepare(x, weights, axis_name=axis_name, pad_columns=True, mesh=mesh, gathered=True)
    columns = prepared.points.x.shape[1]
    # Sizes of programs follow the padded number of samples, so that close numbers share a program.
    most = max_epochs if validation.is_traced(max_epochs) else max(1, max_epochs * padded_size(n) // batch_size)
    init_size, drawn = min(init_size, padded_size(n)), padded_size(batch_size, 1)
    padded = padded_number(k, prepared, name, mesh, key, constraints, tol, max_epochs, max_no_improvement)
    padded = None if padded is None or padded > init_size else padded
    static = _Static(padded or k, name, runs, drawn, init_size, prepared.narrowed, history_capacity(most), axis_name)
    patience = np.inf if max_no_improvement is None else max_no_improvement
    patience = patience if validation.is_traced(patience) else np.float32(patience)
    limits = (padded_tol(tol, columns, x.shape[1]), max_epochs, patience, reassignment_ratio, np.int32(batch_size))
    inside = constraints.padded(k, padded).enter(prepared.frame, columns=columns)
    arguments = key, prepared.points, inside, limits
    if mesh is not None:
        specs = rows_of(mesh)
        in_specs = (specs.whole, specs.row, specs.whole, specs.whole)
        out_specs = specs.fit, specs.row
        fitted, unresolved = solve_over_rows(_fit.whole, static, mesh, in_specs, out_specs, *arguments, gathered=True)
    else:
        work, shown = batch_size * x.shape[1] * k, partial(prepared.unscale, length=2)
        fitted, unresolved = _fit(static, *arguments, work=work, max_steps=most, shown=shown)
    fitted = finalize(fitted, prepared, partial(MiniBatchState.leave, k=k), length=2)
    return with_precision_status(fitted, x, prepared.frame, unresolved), prepared.frame


def init(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    weights: Any = None,
    init: Any = "k-means++",
    n_init: int = 1,
    frame: Frame | None = None,
) -> MiniBatchState:
    """Initial state for `partial_fit`, its centers seeded from the first batch x (n_samples, n_features).

    Arguments as in `fit` and `partial_fit`.
    """
    x, k = check_sparse_samples(x, k)
    name, constraints = check_centers(init, None, None, k, x.shape[1])
    runs = 1 if name == FROM_CENTERS else validation.check_count("n_init", n_init)
    prepared = prepare(x, weights, frame=frame)
    static = _Static(k, name, runs, 0, prepared.points.x.shape[0], False, 0, None)
    return _init(static, key, prepared.points, constraints.enter(prepared.frame)).leave(prepared.frame)


def partial_fit(
    key: KeyArray,
    state: MiniBatchState,
    x: Any,
    *,
    weights: Any = None,
    reassignment_ratio: Any = 0.01,
    frame: Frame | None = None,
) -> MiniBatchState:
    """State after one more batch, whose samples are averaged into their nearest centers.

    Args:
        key: random key for the reassignment of rare centers.
        state: from `init`, `fit` or an earlier call.
        x: (n_samples, n_features), any number of samples, dense or sparse.
        weights: (n_samples,) non-negative, or None.
        reassignment_ratio: as in `fit`.
        frame: of the first batch; None for one about the centers.
    """
    x = check_rows(x)
    validation.check_width(x, state.centers.shape[1])
    validation.check_positive("reassignment_ratio", reassignment_ratio, zero=True)
    prepared = prepare(x, weights, frame=frame_of(state.centers) if frame is None else frame)
    inside = state.enter(prepared.frame)
    return _partial_fit(key, inside, prepared.points, jnp.int32(prepared.n), reassignment_ratio).leave(prepared.frame)


@persistent_jit(static_argnums=0)
def _init(static, key, points, constraints):
    return _seed(static, key, points, constraints)


@persistent_jit
def _partial_fit(key, state, points, n, reassignment_ratio):
    state = jax.tree.map(lambda leaf: leaf.astype(points.x.dtype) if leaf.dtype.kind == "f" else leaf, state)
    return step(key, state, points, n=n, n_rows=n, reassignment_ratio=reassignment_ratio)[0]


def _start(static, key, points, constraints, limits):
    tol, max_epochs, patience, reassignment_ratio, size = limits
    n = count_rows(points.weight, static.axis_name)
    max_steps = jnp.maximum(
        1, jnp.floor(max_epochs * (n.astype(jnp.float32) / jnp.asarray(size, jnp.float32))).astype(jnp.int32)
    )
    init_key, batch_key = jax.random.split(key)
    sample_key, seed_key = jax.random.split(init_key)
    sample = draw_batch(sample_key, points, static.init_size, n, static.axis_name)
    tol = tol * mean_variance(points, squared_norms(points.x), axis_name=static.axis_name)
    one = jnp.ones((), points.x.dtype)
    loop = _LoopState(_seed(static, seed_key, sample, constraints), jnp.int32(0), one, one)
    operands = batch_key, points, n, constraints.active, (size, tol, patience, reassignment_ratio)
    return operands, begin(loop, static.capacity), 0, max_steps


def _batch_step(static, batch_key, points, n, active, limits, loop):
    size, tol, patience, reassignment_ratio = limits
    draw_key, reassign_key = jax.random.split(jax.random.fold_in(batch_key, loop.steps))
    batch = draw_batch(draw_key, points, static.drawn, n, static.axis_name)
    # Samples that pad the batch follow those of it, which are drawn as without them.
    in_batch = jnp.arange(static.drawn, dtype=jnp.int32) < size
    batch = batch._replace(weight=jnp.where(in_batch, batch.weight, 0))
    counted = {"n": n, "n_rows": size, "active": active}
    state, value = step(reassign_key, loop.state, batch, **counted, reassignment_ratio=reassignment_ratio)
    converged = (state.shift <= tol) & (tol > 0) & (loop.steps > 0)
    done = converged | (state.stale.astype(patience.dtype) >= patience)
    return _LoopState(state, loop.steps + 1, loop_residual(done, state.shift), value)


def _end(static, fitted, operands, key, points, constraints, limits):
    state = fitted.state.state
    labels, _ = nearest(points.x, state.centers, active=constraints.active)
    inertia = all_reduce(points.weight @ distances_to_assigned(points.x, state.centers, labels), static.axis_name)
    status = status_with(fitted.status, objective=inertia)
    unresolved = unresolved_about_means(points, state.centers, labels) if static.narrowed else None
    return fitted._replace(state=state._replace(inertia=inertia), labels=labels, status=status), unresolved


_fit = chunks.Loop(_start, _batch_step, _end)


class _LoopState(NamedTuple):
    """A state, the number of batches it has seen, and the residual of the loop, 1 until it should stop.

    ``value`` is the inertia of the last batch per unit of weight: the objective until there is a smoothed one.
    """

    state: MiniBatchState
    steps: Int[Array, ""]
    residual: Float[Array, ""]
    value: Float[Array, ""]

    @property
    def objective(self):
        return jnp.where(jnp.isinf(self.state.smoothed), self.value, self.state.smoothed)


def step(
    key: KeyArray,
    state: MiniBatchState,
    batch: Points,
    *,
    n: Any,
    n_rows: Any,
    reassignment_ratio: Any,
    active: Bool[Array, " k"] | None = None,
) -> tuple[MiniBatchState, Float[Array, ""]]:
    """One step on a batch, in the frame of its samples.

    Args:
        key: random key for the reassignment of rare centers.
        state: in the frame of the batch.
        batch: weighted samples.
        n: samples of the whole set, which sets the smoothing factor 2·n_rows/(n + 1) of the inertia.
        n_rows: samples of this batch.
        reassignment_ratio: as in `fit`.
        active: (k,) mask of the centers that take part; None for all.

    Returns:
        The state after the batch, and the inertia of the batch per unit of weight.
    """
    k = state.counts.shape[0]
    fresh = jnp.sum(state.counts) == 0
    labels, distance = nearest(batch.x, state.centers, active=active)
    sums, weight = cluster_sums(batch, labels, k)
    counts = state.counts + weight
    updated = weight > 0
    means = (state.centers * state.counts[:, None] + sums) / jnp.where(updated, counts, 1)[:, None]
    centers = jnp.where(updated[:, None], means, state.centers)
    # The shift of the running means alone: a reassigned center jumps, which says nothing about convergence.
    shift = jnp.sum(jnp.square(centers - state.centers))
    since = state.since_redraw + n_rows
    # As scikit-learn: at once while some center has averaged nothing, else once a period.
    unseen = state.counts == 0 if active is None else (state.counts == 0) & active
    n_active = k if active is None else jnp.sum(active, dtype=jnp.int32)
    due = jnp.any(unseen) | (since >= REASSIGNMENT_PERIOD * n_active)
    centers, counts = _reassign_rare(key, centers, counts, batch, n_rows, reassignment_ratio, due, active)
    # Of the centers before the batch: those after it are fitted to it, and their inertia on it is too low.
    inertia = batch.weight @ distance
    total = jnp.sum(batch.weight)
    value = inertia / jnp.where(total > 0, total, 1)
    state = state._replace(
        centers=centers, counts=counts, since_redraw=jnp.where(due, 0, since), inertia=inertia, shift=shift
    )
    alpha = jnp.minimum(2 * n_rows / (n + 1), 1).astype(inertia.dtype)
    return update_ema(state, value, alpha, fresh=fresh), value


def _reassign_rare(key, centers, counts, batch, n_rows, ratio, due, active):
    """Put centers of low count on random samples of the batch, at most half as many as the batch has samples."""
    k = counts.shape[0]
    active = jnp.ones(k, bool) if active is None else active
    rare = due & (counts < ratio * jnp.max(counts)) & active
    rank = jnp.argsort(jnp.argsort(jnp.where(rare, counts, jnp.inf))).astype(jnp.int32)
    rows = min(k, batch.weight.shape[0])
    # The largest of independent noise: distinct samples, all that have weight equally likely.
    noise = jax.random.gumbel(key, batch.weight.shape, batch.x.dtype)
    _, drawn = jax.lax.top_k(jnp.where(batch.weight > 0, noise, -jnp.inf), rows)
    rare &= (rank < n_rows // 2) & (rank < rows)
    # A reassigned center gets the least count of the others, so that it is not rare again at once.
    least_count = jnp.min(jnp.where(active & ~rare, counts, jnp.inf))
    centers = jnp.where(rare[:, None], batch.x[drawn[jnp.minimum(rank, rows - 1)]], centers)
    return centers, jnp.where(rare, least_count, counts)


def _seed(static, key, sample, constraints):
    """Initial state of the least inertia on a sample."""
    if constraints.initial is not None:
        return _initial_state(constraints.initial)

    def one(key):
        centers = seed_centers(key, sample, static.k, init=static.init, active=constraints.active)
        return centers, sample.weight @ nearest(sample.x, centers, active=constraints.active)[1]

    if static.runs == 1:
        return _initial_state(one(key)[0])
    centers, inertia = map_runs(one, jax.random.split(key, static.runs))
    return _initial_state(centers[jnp.argmin(inertia)])


def _initial_state(centers):
    zero, none = jnp.zeros((), centers.dtype), jnp.int32(0)
    infinite = jnp.full((), jnp.inf, centers.dtype)
    counts = jnp.zeros(centers.shape[:1], centers.dtype)
    return MiniBatchState(centers, counts, none, zero, infinite, infinite, none, infinite)


# Minibatch sampling and early stopping by an exponentially weighted average -------------------------------------------


def draw_batch(key: KeyArray, points: Points, size: int, n: Int[Array, ""], axis_name: str | None) -> Points:
    """``size`` samples drawn with replacement from the first n, the same on every device."""
    local = points.weight.shape[0]
    drawn = jax.random.randint(key, (size,), 0, n, jnp.int32)
    index = drawn - shard_index(axis_name) * local
    is_local = (index >= 0) & (index < local)
    index = jnp.clip(index, 0, local - 1)
    if isinstance(points.x, SparseRows):
        return Points(points.x.take(index), points.weight[index])
    return Points(*(take_row(rows, index, is_local, axis_name) for rows in points))


def count_rows(weight: Float[Array, " n"], axis_name: str | None) -> Int[Array, ""]:
    """Number of samples up to the last with a weight: padding, on one device or over many, comes after it."""
    local = weight.shape[0]
    ends = jnp.arange(1, local + 1, dtype=jnp.int32) + shard_index(axis_name) * local
    return all_reduce(jnp.max(jnp.where(weight > 0, ends, 0)), axis_name, MAX)


def update_ema(state: State, value: Float[Array, ""], alpha, *, margin: Any = 0.0, fresh: Any = False) -> State:
    """Fold a batch's value, of which less is better, into the exponential moving average and the early stopping.

    Args:
        state: a NamedTuple with ``smoothed`` (the average, infinite at first), ``least`` (the least average that
            counted as an improvement, infinite at first) and ``stale`` (batches since then).
        value: () of this batch.
        alpha: smoothing factor in (0, 1], the weight of this batch.
        margin: improvement below ``least`` that counts.
        fresh: skip this batch, the first after a seeding: its value is that of the seeds, not of running means.
    """
    before = jnp.where(jnp.isinf(state.smoothed), value, state.smoothed)
    smoothed = before * (1 - alpha) + value * alpha
    better = smoothed < state.least - margin
    return state._replace(
        smoothed=jnp.where(fresh, jnp.asarray(jnp.inf, smoothed.dtype), smoothed),
        least=jnp.where(better & ~jnp.asarray(fresh), smoothed, state.least),
        stale=jnp.where(better | fresh, 0, state.stale + 1),
    )


def loop_residual(done, monitored: Float[Array, ""]) -> Float[Array, ""]:
    """Residual of a loop over batches: 1 until ``done``, then 0; NaN where ``monitored`` is."""
    return jnp.where(jnp.isnan(monitored), jnp.nan, jnp.where(done, 0, 1)).astype(monitored.dtype)


memory.guard_functions(__name__)

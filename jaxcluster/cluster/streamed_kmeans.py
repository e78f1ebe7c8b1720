"""k-means of a row source: Lloyd's iteration with the samples read block by block, the same steps as in memory.

Each step is one pass over the source. The host keeps sums in float64, the centers, and the label of each sample; see
`jaxcluster.core.streaming`. Initial centers are found on a sample of the rows, or by k-means‖ in a few passes.

>>> import numpy as np
>>> from jaxcluster.core.sources import ArraySource
>>> x = np.array([[0.0], [1.0], [9.0], [10.0]])
>>> fit, _ = fit_framed(jax.random.key(0), ArraySource(x), 2)
>>> np.sort(fit.state.centers, axis=0).tolist()
[[0.5], [9.5]]
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster import lloyd
from jaxcluster.cluster.lloyd import LloydOptions, LloydStats, Samples
from jaxcluster.cluster.precision import unresolved_samples, with_precision_status
from jaxcluster.cluster.seeding import (
    FROM_CENTERS,
    OVERSAMPLING,
    PARALLEL_ROUNDS,
    check_centers,
    is_long_seeding,
    kmeans_plus_plus,
    seed_centers,
    seed_in_chunks,
)
from jaxcluster.core import signals, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.frame import Frame
from jaxcluster.core.loop_checkpoints import SourceLoop
from jaxcluster.core.sources import RowSource
from jaxcluster.core.streaming import PassInterrupted, StepWatch, Stream, evenly, host_fit, mean_variance
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.distance import distances_to_assigned, matrix_precision, normalize, squared_norms
from jaxcluster.ops.nearest import nearest
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Points, Status

SORTED_ROWS = 1 << 20
"""Samples that are sorted at once by their distance."""


class StreamedState(NamedTuple):
    """A finished k-means in the caller's units: the fields of `kmeans.KMeansState`."""

    centers: np.ndarray
    inertia: np.ndarray
    weight: np.ndarray
    residual: np.ndarray

    @property
    def objective(self) -> np.ndarray:
        """The inertia."""
        return self.inertia


class _Step(NamedTuple):
    """Centers, and the assignment of all samples to them, on the host."""

    centers: np.ndarray
    stats: LloydStats
    labels: np.ndarray
    shift: float = np.inf
    stable: bool = False


def fit_framed(
    key: KeyArray,
    source: RowSource,
    k: int,
    *,
    weights: Any = None,
    init: Any = "k-means++",
    n_init: int = 1,
    tol: Any = 1e-4,
    max_steps: Any = 300,
    metric: str = "sqeuclidean",
    precision: str | None = None,
    block_bytes: int | None = None,
) -> tuple[Fit, Frame]:
    """Cluster the rows of a source around k centers that minimize the inertia.

    Args:
        key: random key of the initialization.
        source: (n_samples, n_features) rows.
        k: number of clusters.
        weights: (n_samples,) non-negative weights in memory, or None for 1 each.
        init: "k-means++" or "random" on a sample of `streaming.SAMPLED_ROWS` rows, "k-means||" in five passes over all
            rows, or (k, n_features) centers.
        n_init: runs from different initial centers; the one of least inertia is returned.
        tol, max_steps, metric, precision: as in `kmeans.fit`.
        block_bytes: bytes of a block on the device; None for `streaming.BLOCK_BYTES`.

    Returns:
        `Fit` with NumPy arrays: a `StreamedState`, labels, steps, status and history; and its frame.

    Raises:
        ValueError, TypeError: as `kmeans.fit`; `SourceError` for a source that changes or cannot be read.
        MemoryError: see `Stream`.
    """
    k = validation.check_clusters(k, source.shape[0])
    name, constraints = check_centers(init, None, None, k, source.shape[1])
    seed = np.asarray(jax.random.key_data(key)).ravel().tolist()
    spherical = metric == "cosine"
    stream = Stream(source, weights, unit_rows=spherical, block_bytes=block_bytes, seed=seed)
    options = LloydOptions(spherical, stream.unit_weights, matrix_precision(precision))
    inside = constraints.enter(stream.frame, spherical)
    best = None
    shown = partial(stream.frame.unscale, length=0 if spherical else 2, weight=1)
    try:
        for run in range(1 if name == FROM_CENTERS else n_init):
            run_key = key if n_init == 1 else jax.random.split(key, n_init)[run]
            centers = inside.initial if name == FROM_CENTERS else _seeds(run_key, stream, k, name, options)
            watch = StepWatch(int(max_steps), shown)
            fitted = _run(stream, np.asarray(centers), options, float(tol), int(max_steps), watch)
            if best is None or fitted.state.inertia < best.state.inertia:
                best = fitted
            if fitted.status == Status.INTERRUPTED:
                best = best._replace(status=fitted.status)
                break
    except PassInterrupted:  # before the first step of a run
        if best is None:
            raise
        best = best._replace(status=np.int32(Status.INTERRUPTED))
    stream.interruptible = False
    return _published(best, stream, options), stream.frame


def _run(stream, centers, options, tol, max_steps, watch):
    """One run from initial centers: a `Fit` in the frame, its state a `StreamedState` without the weights' unit."""
    (stats, squares), labels = stream.fold(partial(_assign, options), centers)
    state = _Step(centers, stats, labels)
    if not options.spherical:
        tol *= mean_variance(stats.weight.sum(), squares, stats.sums.sum(axis=0))
    saved = SourceLoop(stream, (options, centers.shape))
    state, steps, history = saved.restore(state)
    try:
        while _residual(state) > tol and steps < max_steps:
            state = _advance(stream, state, options)
            steps += 1
            history.append(float(state.stats.inertia))
            watch.add(steps, history[-1])
            saved.after_step(state, history)
        (inertia, _), unresolved = stream.fold(partial(_evaluate, options), state.centers, per_row=(state.labels,))
    except signals.Stopped:
        saved.stop(state, history)
        raise
    except PassInterrupted:
        saved.stop(state, history)
        # Labels and inertia are those of the last whole pass.
        inertia, unresolved, status = state.stats.inertia, np.zeros(len(state.labels), bool), Status.INTERRUPTED
    else:
        status = _status(state, inertia, tol)
        if state.stable and state.shift > tol and steps < max_steps:  # as `lloyd_run.run` counts
            steps += 1
            history.append(float(state.stats.inertia))
    weight, residual = np.asarray(state.stats.weight), np.asarray(_residual(state))
    public = StreamedState(state.centers, np.asarray(inertia), weight, residual)
    return host_fit(public, (state.labels.astype(np.int32), unresolved), steps, status, history)


def _status(state, inertia, tol):
    """Status of a run that has ended by itself."""
    residual = _residual(state)
    if not np.isfinite(inertia) or np.isnan(residual):
        return Status.NOT_FINITE
    if (state.stats.weight <= 0).any():
        return Status.EMPTY_CLUSTERS
    return Status.CONVERGED if residual <= tol else Status.MAX_STEPS


def _advance(stream, state, options):
    """The next step: relocate empty clusters, update the centers, assign the samples."""
    stats, labels = _relocate(stream, state, options)
    centers = np.asarray(_update(options, stats, state.centers), state.centers.dtype)
    if not options.spherical and _is_rounded(centers, stats):
        (sums, weight), _ = stream.fold(_differences, centers, per_row=(labels,))
        centers = (centers + sums / np.where(weight > 0, weight, 1)[:, None]).astype(centers.dtype)
    (stats, _), assigned = stream.fold(partial(_assign, options), centers)
    changed = assigned != state.labels
    if stream.weights is not None:
        changed &= stream.weights > 0
    shift = float(np.square(centers.astype(np.float64) - state.centers).sum())
    return _Step(centers, stats, assigned, shift, not changed.any())


def _residual(state):
    return 0.0 if state.stable else state.shift


def _update(options, stats, centers):
    """`lloyd.update_step` in float64, on the host."""
    means = stats.sums / np.where(stats.weight > 0, stats.weight, 1)[:, None]
    updated = stats.weight > 0
    if options.spherical:
        lengths = np.sqrt(np.square(means).sum(axis=1))
        updated &= lengths > 0
        means = means / np.where(lengths > 0, lengths, 1)[:, None]
    return np.where(updated[:, None], means, centers)


def _is_rounded(means, stats):
    """True if sums of x are too rounded for the spread: the condition of `lloyd.refine_means`."""
    spread = np.sqrt(stats.inertia / stats.weight.sum())
    largest = np.sqrt(np.square(means.astype(np.float64)).sum(axis=1).max())
    return np.finfo(means.dtype).eps * largest > lloyd.MAX_MEAN_ERROR * spread


def _relocate(stream, state, options):
    """Statistics and labels after each empty cluster got one of the samples that are farthest from their centers."""
    empty = np.flatnonzero(state.stats.weight <= 0)
    if not len(empty):
        return state.stats, state.labels
    farthest = _farthest(stream, state, min(len(empty), stream.block_rows))
    if not len(farthest):
        return state.stats, state.labels
    labels = state.labels.copy()
    labels[farthest] = empty[: len(farthest)]
    (sums, weight), _ = stream.fold(partial(_sums, options, state.centers.shape[0]), per_row=(labels,))
    return LloydStats(sums, weight, state.stats.inertia), labels


def _farthest(stream, state, count):
    """Indices of at most ``count`` samples that are not at their centers, the farthest first."""
    _, distance = stream.fold(_distances, state.centers, per_row=(state.labels,))
    if stream.weights is not None:
        distance = np.where(stream.weights > 0, distance, -1)
    farthest = _greatest(distance, count)
    return farthest[distance[farthest] > 0]


def _greatest(values, count):
    """Indices of the ``count`` greatest values, of equal ones the first; the memory of sorting is that of a part."""
    found = np.empty(0, np.int64)
    for start in range(0, len(values), SORTED_ROWS):
        candidates = np.concatenate([found, np.arange(start, min(start + SORTED_ROWS, len(values)))])
        found = candidates[np.argsort(-values[candidates], kind="stable")[:count]]
    return found


def _seeds(key, stream, k, name, options):
    if name == "k-means||":
        return _parallel_seeds(key, stream, k, options)
    points = stream.sample_points()
    if not is_long_seeding(points, k):
        return _seeds_of_sample(name, k, options.spherical, key, points)
    return seed_in_chunks(key, _compiled_directions(options, points), k, init=name)


def _parallel_seeds(key, stream, k, options):
    """k-means‖ (see `seeding.kmeans_parallel`): each round is a pass that draws 2k samples by w·D²."""
    keys = jax.random.split(key, PARALLEL_ROUNDS + 2)
    drawn = OVERSAMPLING * k
    candidates = np.zeros((1 + PARALLEL_ROUNDS * drawn, stream.d), stream.compute_dtype)
    candidates[0] = np.asarray(_seeds_of_sample("random", 1, options.spherical, keys[0], stream.sample_points()))[0]
    count = 1
    for round_key in keys[1:-1]:
        scores, rows = [], []
        for index, block in enumerate(stream.blocks()):
            active = np.arange(len(candidates)) < count
            found = _draw(options, min(drawn, stream.block_rows), block.points, candidates, active, round_key, index)
            scores.append(np.asarray(found[0]))
            rows.append(np.asarray(found[1]))
        scores, rows = np.concatenate(scores), np.concatenate(rows)
        best = np.argsort(-scores, kind="stable")[:drawn]
        best = best[np.isfinite(scores[best])]
        candidates[count : count + len(best)] = rows[best]
        count += len(best)
    active = np.arange(len(candidates)) < count
    weight, _ = stream.fold(partial(_counts, options), candidates, active)
    weighted = Points(jnp.asarray(candidates), jnp.asarray(weight, stream.compute_dtype))
    if is_long_seeding(weighted, k):
        return seed_in_chunks(keys[-1], weighted, k, init="k-means++")
    return _seeds_of_candidates(k, keys[-1], weighted)


def _published(fitted, stream, options):
    """The fit in the caller's coordinates and units, with the status PRECISION where rounding decided labels."""
    frame, length = stream.frame, 0 if options.spherical else 2
    labels, unresolved = fitted.labels
    unscale = partial(frame.unscale, dtype=np.dtype(np.float64))
    state = StreamedState(
        np.asarray(frame.leave(fitted.state.centers)),
        np.asarray(unscale(fitted.state.inertia, length=length, weight=1)),
        np.asarray(unscale(fitted.state.weight, weight=1)),
        np.asarray(unscale(fitted.state.residual, length=length)),
    )
    history = np.asarray(unscale(fitted.history, length=length, weight=1))
    public = host_fit(state, labels, fitted.steps, fitted.status, history)
    rows = np.flatnonzero(unresolved)
    if options.spherical or not stream.narrowed or not len(rows):
        return public
    rows = evenly(rows)
    some = public._replace(labels=labels[rows])
    compared = with_precision_status(some, stream.rows(rows), frame, np.ones(len(rows), bool))
    return public._replace(status=compared.status)


# Kernels: one block of samples ----------------------------------------------------------------------------------------


def _host_type(k):
    """Least integer type of k labels: those of all samples are on the host, several times in a step."""
    return np.min_scalar_type(k - 1) if k <= 1 << 16 else np.int32


def _directions(options, points):
    return Points(normalize(points.x), points.weight) if options.spherical else points


_compiled_directions = persistent_jit(_directions, static_argnums=0)


@persistent_jit(static_argnums=0)
def _assign(options: LloydOptions, points: Points, centers: Float[Array, "k d"]) -> Any:
    points = _directions(options, points)
    norms = squared_norms(points.x)
    stats, assignment = lloyd.assignment_step(centers, Samples(points, norms), options=options)
    return (stats, points.weight @ norms), assignment.labels.astype(_host_type(centers.shape[0]))


@persistent_jit(static_argnums=0)
def _evaluate(options: LloydOptions, points: Points, centers: Float[Array, "k d"], labels: Int[Array, " n"]) -> Any:
    points = _directions(options, points)
    squares = distances_to_assigned(points.x, centers, labels, spherical=options.spherical)
    return (points.weight @ squares, 0), unresolved_samples(points.weight, squared_norms(points.x), squares)


@persistent_jit
def _differences(points: Points, centers: Float[Array, "k d"], labels: Int[Array, " n"]) -> Any:
    return cluster_sums(Points(points.x - centers[labels], points.weight), labels, centers.shape[0]), ()


@persistent_jit
def _distances(points: Points, centers: Float[Array, "k d"], labels: Int[Array, " n"]) -> Any:
    return (), distances_to_assigned(points.x, centers, labels)


@persistent_jit(static_argnums=(0, 1))
def _sums(options: LloydOptions, k: int, points: Points, labels: Int[Array, " n"]) -> Any:
    return cluster_sums(_directions(options, points), labels, k), ()


@persistent_jit(static_argnums=0)
def _counts(options: LloydOptions, points: Points, candidates: Float[Array, "m d"], active: Any) -> Any:
    points = _directions(options, points)
    labels, _ = nearest(points.x, candidates, active=active)
    return cluster_sums(points, labels, candidates.shape[0])[1], ()


@persistent_jit(static_argnums=(0, 1))
def _draw(options, count, points, candidates, active, key, index):
    """The ``count`` samples of a block with the largest log(w·D²) plus Gumbel noise, and these scores.

    The largest of all blocks are draws by w·D² without replacement, however the rows are cut into blocks.
    """
    points = _directions(options, points)
    _, closest = nearest(points.x, candidates, active=active)
    noise = jax.random.gumbel(jax.random.fold_in(key, index), closest.shape, closest.dtype)
    score, rows = jax.lax.top_k(jnp.log(points.weight * closest) + noise, count)
    return score, points.x[rows]


@persistent_jit(static_argnums=(0, 1, 2))
def _seeds_of_sample(name: str, k: int, spherical: bool, key: KeyArray, points: Points) -> Float[Array, "k d"]:
    points = Points(normalize(points.x), points.weight) if spherical else points
    return seed_centers(key, points, k, init=name)


@persistent_jit(static_argnums=0)
def _seeds_of_candidates(k: int, key: KeyArray, points: Points) -> Float[Array, "k d"]:
    return kmeans_plus_plus(key, points, k)

"""CLARA: k-medoids of samples of the rows, of which the least loss on all rows wins; memory grows with n, not n².

>>> import jax, numpy as np
>>> from jaxcluster import kmedoids
>>> x = np.array([[0.0], [1.0], [2.0], [8.0], [9.0], [10.0]])
>>> kmedoids.clara(jax.random.key(0), x, 2, n_samples=1).state.loss.item()
4.0

Source: L. Kaufman and P. J. Rousseeuw, Clustering large data sets, Pattern Recognition in Practice II, 1986. Here the
samples are drawn independently of each other, so that they can be clustered in parallel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxcluster.cluster.kmedoids.distances import BUDGET, all_pairs, check_medoid_rows
from jaxcluster.cluster.kmedoids.fasterpam import INITS, WeightedDistances, fasterpam
from jaxcluster.cluster.kmedoids.fit import (
    KMedoidsState,
    MetricSpec,
    Problem,
    ProblemScale,
    SearchOptions,
    assign_medoids,
    check_options,
    check_positive_weights,
    finalize,
    fit,
    initial_medoids,
    is_precomputed,
    problem_scale,
    rows_in_frame,
    solve_in_chunks,
    to_public,
)
from jaxcluster.core import chunks, memory, signals, validation
from jaxcluster.core.batching import map_runs
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import float_dtype
from jaxcluster.core.fold import fold_rows, tile_rows
from jaxcluster.core.frame import Frame
from jaxcluster.core.iterate import history_capacity
from jaxcluster.core.preparation import prepare
from jaxcluster.core.processes import agree_on_key, gather_parts, keep_own_labels, whole
from jaxcluster.core.shard import automatic, axis_of, check_mesh, rows_of, solve_over_rows
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.ops.distance import TRANSLATION_INVARIANT, metric_function
from jaxcluster.types import Fit, KeyArray, Points, Status

MIN_SAMPLE = (40, 2)
"""Least number of rows of a sample, and more for each cluster, as in the source."""

DEFAULT_SAMPLE = (80, 4)
"""Default number: twice the source's, still fast, and nearer to the optimum."""


@signals.keeping_result()
def clara(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    n_samples: int = 5,
    sample_size: int | None = None,
    metric: str | Callable = "euclidean",
    p: float = 2.0,
    init: str = "build",
    weights: Any = None,
    tol: Any = 0.0,
    max_steps: Any = 100,
    mesh: Mesh | None = None,
) -> Fit:
    """Cluster samples of the rows by FasterPAM, and all rows by the medoids with the least loss.

    A pure function for named metrics: works under jit. Gradients are those of `fit`.

    Args:
        key: random key of the samples.
        x: (n_samples, n_features) rows, also sparse as in `fit`.
        k: number of clusters, static, 1 <= k <= number of rows.
        n_samples: number of samples drawn.
        sample_size: rows of a sample, at least 40 + 2k if there are as many; None for 80 + 4k. They are drawn without
            regard to their weights, and keep them.
        metric: a name in `jaxcluster.ops.distance.METRICS`, or a function as in `fit`.
        p: the power of "minkowski", at least 1.
        init: "build" or "random".
        weights, tol, max_steps: as in `fit`.
        mesh: whose devices share the samples drawn and the assignment of all concrete dense rows, for metrics that do
            not change where all rows are moved, cosine and correlation; None for one device. Where they are those of
            several processes, ``x`` has the rows of this one, and so have the labels; medoids are numbers of the rows
            of all, in the order of the processes, and each needs memory for all rows.

    Returns:
        `Fit` with a `KMedoidsState`, labels (n_samples,) int32 and, of the best sample, steps, status, residual and the
        loss of the sample after each round. The loss of the state is that of all rows.

    Raises:
        ValueError, TypeError: wrong shapes, values or names, before anything is traced.
    """
    key = validation.check_key(key)
    metric = check_options(metric, p, tol, max_steps)
    if is_precomputed(metric):
        raise ValueError("metric='precomputed' holds all distances already, and clara avoids them: use fit.")
    validation.check_choice("init", init, INITS)
    check_mesh(mesh, x)
    key, (x, weights, own) = agree_on_key(key, mesh), gather_parts(mesh, x, weights)
    x = check_medoid_rows(x)
    n = x.shape[0]
    k = validation.check_clusters(k, n)
    size = sample_rows(sample_size, k, n)
    validation.check_count("n_samples", n_samples)
    if weights is not None and not validation.is_traced(weights):
        check_positive_weights(validation.check_weights(weights, n), k)
    _check_mesh(mesh, x, weights, metric)
    public_spec, config = MetricSpec(metric, float(p)), SearchOptions(k, init, 1, history_capacity(max_steps))
    if validation.is_traced(x, weights):
        prepared, spec = _prepare_traced(x, weights, metric), public_spec
    else:
        if is_sparse(x):
            memory.check_centers(k, x.shape[1], float_dtype(x.dtype))
        else:
            validation.check_finite(x)
        framed = None if callable(metric) or is_sparse(x) else rows_in_frame(x, weights, metric, mesh)
        if framed is None and mesh is not None:
            raise ValueError(f"mesh= is not for metric={metric!r}, whose distances are computed on the host.")
        if framed is None:
            rows = x if is_sparse(x) else np.asarray(x)
            return _on_host(key, rows, weights, public_spec, k, init, n_samples, min(size, n), tol, max_steps)
        prepared, spec = framed[0], MetricSpec(framed[1], float(p))
    points, scale = prepared.points, problem_scale(prepared, metric, spec.metric)
    # A sample of few rows includes the bucket's padding of weight 0: another n needs no other program.
    size = min(size, points.weight.shape[0])
    arguments = key, points, tol, max_steps
    if mesh is not None:
        fitted = _clara_over_devices(spec, config, n_samples, size, mesh, *arguments)
        return keep_own_labels(to_public(fitted, x, weights, public_spec, scale), own)
    # A round of swaps, and the assignment of all rows once for as many rounds as there may be.
    work = n_samples * k * (size * size + points.x.size / max_steps) if not validation.is_traced(max_steps) else 0
    run = _clara_in_chunks if chunks.is_long(work, max_steps, *arguments) else _clara
    fitted = run(spec, config, n_samples, size, *arguments)
    return to_public(fitted, x, weights, public_spec, scale)


def _prepare_traced(x, weights, metric):
    prepared = prepare(x, weights)
    if metric in TRANSLATION_INVARIANT:
        return prepared
    dtype = float_dtype(x.dtype)
    weight = jnp.ones((x.shape[0],), dtype) if weights is None else jnp.asarray(weights).astype(dtype)
    points = Points(jnp.asarray(x).astype(dtype), weight)
    return prepared._replace(points=points, frame=Frame(jnp.zeros((x.shape[1],), dtype)))


@persistent_jit(static_argnums=(0, 1, 2, 3))
def _clara(spec, config, n_samples, size, key, points, tol, max_steps):
    constant = jax.lax.stop_gradient(points)

    def one(key):
        index, table, start_key = _sample(spec, size, key, constant)
        medoids = initial_medoids(config, start_key, table, None)
        limits = {"tol": tol, "max_steps": max_steps, "capacity": config.capacity}
        fitted = fasterpam(table, medoids, jnp.int32(config.k), **limits)
        return _slim(fitted), index[fitted.state.medoids]

    fits, medoids = map_runs(one, jax.random.split(key, n_samples))
    losses, labels = jax.lax.map(partial(_assign_tiles, spec, constant), medoids)
    # A NaN loss must not win.
    best = jnp.argmin(jnp.where(jnp.isnan(losses), jnp.inf, losses))
    fitted = jax.tree.map(lambda leaf: leaf[best], fits)
    return _finalized(spec, config, points, fitted, medoids[best], labels[best])


def _clara_in_chunks(spec, config, n_samples, size, key, points, tol, max_steps):
    """`_clara` of concrete samples, one after the other. Ctrl-C ends it with the best so far."""
    best: Any = None
    least, status = np.inf, None
    for i in range(n_samples):
        index, table, start_key = _compiled_sample(spec, size, chunks.key_of_run(key, n_samples, i), points)
        fitted = solve_in_chunks(config, start_key, table, None, jnp.int32(config.k), tol, max_steps)
        medoids = index[fitted.state.medoids]
        loss, labels = _compiled_assignment(spec, points, medoids)
        if best is None or float(loss) < least:
            best, least = (_slim(fitted), medoids, labels), float(np.nan_to_num(loss, nan=np.inf))
        if signals.interrupted():
            status = jnp.int32(Status.INTERRUPTED)
            break
    fitted, medoids, labels = best
    fitted = fitted if status is None else fitted._replace(status=status)
    return _compiled_end(spec, config, points, fitted, medoids, labels)


def _check_mesh(mesh, x, weights, metric):
    if check_mesh(mesh, x) is None:
        return
    if validation.is_traced(x, weights):
        raise ValueError("mesh= takes concrete rows: call it outside of jit.")
    if callable(metric):
        raise ValueError("mesh= is for named metrics: leave it out for a function.")


def _clara_over_devices(spec, config, n_samples, size, mesh, key, points, tol, max_steps):
    """`_clara` with the samples, and then the rows, spread over devices. Ctrl-C ends it after the search."""
    mesh, count = automatic(mesh), n_samples + -n_samples % mesh.size
    # Each device searches as many samples; those beyond n_samples repeat the first ones.
    keys = jnp.resize(jax.random.split(key, n_samples), (count,))
    index, rows, start_keys = _draw_samples(size, keys, points)
    searched = _search_samples((spec, config), mesh, start_keys, rows, tol, max_steps)
    fits, medoids, centers = jax.tree.map(lambda leaf: np.asarray(whole(leaf))[:n_samples], searched)
    specs = rows_of(mesh)
    labels_spec = PartitionSpec(None, *specs.row)
    in_specs, static = (specs.row, specs.whole), (spec, axis_of(mesh))
    out_specs = specs.whole, labels_spec
    assigned = solve_over_rows(_assign_all, static, mesh, in_specs, out_specs, points, centers, gathered=True)
    losses = np.asarray(assigned[0])
    best = int(np.argmin(np.where(np.isnan(losses), np.inf, losses)))
    fitted = jax.tree.map(lambda leaf: leaf[best], fits)
    medoids = jnp.asarray(np.asarray(whole(index))[best][medoids[best]], jnp.int32)
    status = jnp.int32(Status.INTERRUPTED if signals.interrupted() else fitted.status)
    state = KMedoidsState(medoids, None, jnp.asarray(losses[best]), None, jnp.asarray(fitted.state.residual))
    return Fit(state, None, jnp.asarray(fitted.steps), status, jnp.asarray(fitted.history))


@persistent_jit(static_argnums=0)
def _draw_samples(size, keys, points):
    """Indices of all samples, their rows, and the keys of their initial medoids."""

    def one(key):
        sample_key, start_key = jax.random.split(key)
        return _draw(sample_key, points.weight, size), start_key

    index, start_keys = jax.lax.map(one, keys)
    return index, Points(points.x[index], points.weight[index]), start_keys


@persistent_jit(static_argnums=(0, 1))
def _search_samples(static, mesh, start_keys, rows, tol, max_steps):
    """Fits of all samples, their medoids as indices of a sample, and the rows of these."""
    spec, config = static

    def one(key, rows):
        table = WeightedDistances(all_pairs(rows.x, *spec), rows.weight)
        limits = {"tol": tol, "max_steps": max_steps, "capacity": config.capacity}
        fitted = fasterpam(table, initial_medoids(config, key, table, None), jnp.int32(config.k), **limits)
        medoids = fitted.state.medoids
        return _slim(fitted), medoids, rows.x[medoids]

    row = rows_of(mesh).row
    # Devices do not communicate: there is nothing whose variation over them has to be checked.
    spread = jax.shard_map(partial(map_runs, one), mesh=mesh, in_specs=(row, row), out_specs=row, check_vma=False)
    return spread(start_keys, rows)


def _assign_all(static, points, centers):
    """Losses of all rows with the medoids of each sample, and (n_samples, n) int32 labels."""
    spec, axis_name = static
    return jax.lax.map(lambda centers: _assign_to(spec, points, centers, axis_name), centers)


def _sample(spec, size, key, points):
    """Indices of a sample, the distances within it, and the key of its initial medoids."""
    sample_key, start_key = jax.random.split(key)
    index = _draw(sample_key, points.weight, size)
    return index, WeightedDistances(all_pairs(points.x[index], *spec), points.weight[index]), start_key


def _slim(fitted):
    """A fit without the arrays that have an entry for each row of the sample."""
    return fitted._replace(state=fitted.state._replace(near=None, members=None))


def _finalized(spec, config, points, fitted, medoids, labels):
    return finalize(spec, config.k, Problem(points.x, None, points.weight), fitted, medoids, labels, config.k)


def _draw(key, weight, size):
    """Different rows of positive weight, by the Gumbel top-k method; others only if there are too few."""
    noise = jax.random.gumbel(key, weight.shape, weight.dtype)
    return jax.lax.top_k(jnp.where(weight > 0, noise, -jnp.inf), size)[1]


def _assign_tiles(spec, points, medoids):
    """Assign all rows to some medoids, in tiles.

    Returns:
        The loss, and (n,) int32 labels.
    """
    return _assign_to(spec, points, points.x[medoids])


def _assign_to(spec, points, centers, axis_name=None):
    """`_assign_tiles` to the rows of medoids."""
    distances_of = metric_function(spec.metric, p=spec.p)

    def tile(rows):
        distances = distances_of(rows.x, centers)
        return jnp.sum(rows.weight * jnp.min(distances, axis=1)), jnp.argmin(distances, axis=1).astype(jnp.int32)

    return fold_rows(tile, points, tile=tile_rows(points.x.shape[0], len(centers), BUDGET), axis_name=axis_name)


_compiled_sample = persistent_jit(_sample, static_argnums=(0, 1))
_compiled_assignment = persistent_jit(_assign_tiles, static_argnums=0)
_compiled_end = persistent_jit(_finalized, static_argnums=(0, 1))


def _on_host(key, x, weights, spec, k, init, n_samples, size, tol, max_steps):
    """CLARA for metrics whose distances are computed on the host."""
    weight = np.ones(x.shape[0]) if weights is None else np.asarray(weights, float)
    tried, interrupted = [], False
    for sample_key in jax.random.split(key, n_samples):
        draw_key, start_key = jax.random.split(sample_key)
        index = np.asarray(_draw(draw_key, jnp.asarray(weight > 0, jnp.float32), size))
        # Rows of weight 0 are drawn only where there are too few others, and are no medoids.
        index = index[weight[index] > 0]
        options = {"metric": spec.metric, "p": spec.p, "init": init, "weights": weight[index], "tol": tol}
        fitted = fit(start_key, x[index], k, max_steps=max_steps, **options)
        medoids = index[np.asarray(fitted.state.medoids)]
        tried.append((assign_medoids(medoids, x, weight, spec)[1], fitted, medoids))
        if interrupted := signals.interrupted():
            break
    _, fitted, medoids = min(tried, key=lambda each: each[0])
    state = fitted.state._replace(medoids=jnp.asarray(medoids, jnp.int32))
    if interrupted:
        fitted = fitted._replace(status=jnp.int32(Status.INTERRUPTED))
    return to_public(fitted._replace(state=state), x, weights, spec, ProblemScale(Frame(np.zeros(1)), 0))


def sample_rows(sample_size: int | None, k: int, n: int) -> int:
    """Number of rows of a sample, possibly above n; raises ValueError for fewer than the source recommends."""
    if sample_size is None:
        return DEFAULT_SAMPLE[0] + DEFAULT_SAMPLE[1] * k
    size, least = validation.check_count("sample_size", sample_size), min(n, MIN_SAMPLE[0] + MIN_SAMPLE[1] * k)
    if size < least:
        raise ValueError(f"sample_size={size} must be at least {least} for k={k} clusters of {n} rows.")
    return size

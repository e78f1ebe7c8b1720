"""CLARA: k-medoids of samples, the best of which on all rows wins; memory does not grow with n².

Source: L. Kaufman and P. J. Rousseeuw, Clustering large data sets, Pattern Recognition in Practice II, 1986, with the
samples drawn independently of each other so that they can be clustered side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.kmedoids import matrix
from jaxcluster.cluster.kmedoids.fit import (
    Measure,
    Runs,
    Unit,
    assigned,
    check_options,
    check_weighty,
    finish,
    fit,
    is_precomputed,
    leave,
    placed_rows,
    starting_medoids,
    unit_of,
)
from jaxcluster.cluster.kmedoids.fit import Problem as Rows
from jaxcluster.cluster.kmedoids.starts import INITS
from jaxcluster.cluster.kmedoids.swap import Table, search
from jaxcluster.core import validation
from jaxcluster.core.batching import map_runs
from jaxcluster.core.dtypes import float_dtype
from jaxcluster.core.fold import fold_rows, tile_rows
from jaxcluster.core.frame import Frame
from jaxcluster.core.iterate import history_capacity
from jaxcluster.core.preparation import prepare
from jaxcluster.ops.distance import TRANSLATION_INVARIANT, metric_function
from jaxcluster.types import Fit, KeyArray, Points

LEAST_SAMPLE = (40, 2)
"""Rows of a sample, and how many more for each cluster, as the source has them."""

SAMPLE = (80, 4)
"""The same where nothing is asked for: twice as many, which is still quickly done and lands nearer to the optimum."""


def clara(
    key: KeyArray,
    x,
    k: int,
    *,
    n_samples: int = 5,
    sample_size: int | None = None,
    metric: str | Callable = "euclidean",
    p: float = 2.0,
    init: str = "build",
    weights=None,
    tol=0.0,
    max_steps=100,
) -> Fit:
    """Clusters samples of the rows by FasterPAM, and all rows around the medoids that serve them best.

    A pure function for named metrics: works under jit. Gradients are those of `fit`.

    Args:
        key: random key for the samples.
        x: (n, d) rows.
        k: number of clusters, static, 1 <= k <= n.
        n_samples: how many samples are drawn.
        sample_size: rows of a sample, at least 40 + 2k where there are as many; None for 80 + 4k. They are drawn
            without regard to their weights, and keep them.
        metric: a name in `jaxcluster.ops.distance.METRICS`, or a function as in `fit`.
        p: the power of "minkowski", at least 1.
        init: "build" or "random".
        weights, tol, max_steps: as in `fit`.

    Returns:
        `Fit` with a `KMedoidsState`, labels (n,) int32 and, of the winning sample, steps, status, residual and the loss
        of the sample after each round. The loss of the state is that of all rows.

    Raises:
        ValueError, TypeError: wrong shapes, values or names, before anything is traced.
    """
    key = validation.check_key(key)
    metric = check_options(metric, p, tol, max_steps)
    if is_precomputed(metric):
        raise ValueError("metric='precomputed' holds the distances already, and clara is there to avoid them: use fit.")
    validation.check_choice("init", init, INITS)
    x = validation.check_matrix(x)
    n = x.shape[0]
    k = validation.check_clusters(k, n)
    size = sample_rows(sample_size, k, n)
    validation.check_count("n_samples", n_samples)
    if weights is not None and not validation.is_traced(weights):
        check_weighty(validation.check_weights(weights, n), k)
    given, runs = Measure(metric, float(p)), Runs(k, init, 1, history_capacity(max_steps))
    if validation.is_traced(x, weights):
        prepared, measure = _place_traced(x, weights, metric), given
    else:
        validation.check_finite(x)
        placed = None if callable(metric) else placed_rows(x, weights, metric)
        if placed is None:
            return _on_host(key, np.asarray(x), weights, given, k, init, n_samples, min(size, n), tol, max_steps)
        prepared, measure = placed[0], Measure(placed[1], float(p))
    points, unit = prepared.points, unit_of(prepared, metric, measure.metric)
    # Of few rows a sample takes those that fill the bucket as well, which have no weight: another n compiles nothing.
    size = min(size, points.weight.shape[0])
    fitted = _clara(measure, runs, n_samples, size, key, points, tol, max_steps)
    return leave(fitted, x, weights, given, unit)


def _place_traced(x, weights, metric):
    prepared = prepare(x, weights)
    if metric in TRANSLATION_INVARIANT:
        return prepared
    dtype = float_dtype(x.dtype)
    weight = jnp.ones((x.shape[0],), dtype) if weights is None else jnp.asarray(weights).astype(dtype)
    points = Points(jnp.asarray(x).astype(dtype), weight)
    return prepared._replace(points=points, frame=Frame(jnp.zeros((x.shape[1],), dtype)))


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _clara(measure, runs, n_samples, size, key, points, tol, max_steps):
    held = jax.lax.stop_gradient(points)

    def one(key):
        sample_key, start_key = jax.random.split(key)
        index = _draw(sample_key, held.weight, size)
        table = Table(matrix.pairwise(held.x[index], *measure), held.weight[index])
        medoids = starting_medoids(runs, start_key, table, None)
        limits = {"tol": tol, "max_steps": max_steps, "capacity": runs.capacity}
        fitted = search(table, medoids, jnp.int32(runs.k), **limits)
        kept = fitted._replace(state=fitted.state._replace(near=None, members=None))
        return kept, index[fitted.state.medoids]

    fits, medoids = map_runs(one, jax.random.split(key, n_samples))
    losses, labels = jax.lax.map(partial(_assign, measure, held), medoids)
    best = jnp.argmin(jnp.where(jnp.isnan(losses), jnp.inf, losses))
    fitted = jax.tree.map(lambda leaf: leaf[best], fits)
    return finish(measure, runs.k, Rows(points.x, None, points.weight), fitted, medoids[best], labels[best], runs.k)


def _draw(key, weight, size):
    """Different rows that have weight, as far as there are so many."""
    noise = jax.random.gumbel(key, weight.shape, weight.dtype)
    return jax.lax.top_k(jnp.where(weight > 0, noise, -jnp.inf), size)[1]


def _assign(measure, points, medoids):
    """The loss of all rows around some of them, and the labels."""
    centers = points.x[medoids]
    distances_of = metric_function(measure.metric, p=measure.p)

    def tile(rows):
        distances = distances_of(rows.x, centers)
        return jnp.sum(rows.weight * jnp.min(distances, axis=1)), jnp.argmin(distances, axis=1).astype(jnp.int32)

    return fold_rows(tile, points, tile=tile_rows(points.x.shape[0], len(medoids), matrix.BUDGET))


def _on_host(key, x, weights, measure, k, init, n_samples, size, tol, max_steps):
    """The same for metrics whose distances come from the host."""
    weight = np.ones(len(x)) if weights is None else np.asarray(weights, float)
    best = None
    for sample_key in jax.random.split(key, n_samples):
        draw_key, start_key = jax.random.split(sample_key)
        index = np.asarray(_draw(draw_key, jnp.asarray(weight > 0, jnp.float32), size))
        index = index[weight[index] > 0]
        options = {"metric": measure.metric, "p": measure.p, "init": init, "weights": weight[index], "tol": tol}
        fitted = fit(start_key, x[index], k, max_steps=max_steps, **options)
        medoids = index[np.asarray(fitted.state.medoids)]
        loss = assigned(medoids, x, weight, measure)[1]
        if best is None or loss < best[0]:
            best = loss, fitted, medoids
    _, fitted, medoids = best
    state = fitted.state._replace(medoids=jnp.asarray(medoids, jnp.int32))
    return leave(fitted._replace(state=state), x, weights, measure, Unit(Frame(np.zeros(1)), 0))


def sample_rows(sample_size: int | None, k: int, n: int) -> int:
    """Rows of a sample, which may be more than there are; raises on fewer than the k clusters of n rows need."""
    if sample_size is None:
        return SAMPLE[0] + SAMPLE[1] * k
    size, least = validation.check_count("sample_size", sample_size), min(n, LEAST_SAMPLE[0] + LEAST_SAMPLE[1] * k)
    if size < least:
        raise ValueError(f"sample_size={size} must be at least {least} for k={k} clusters of {n} rows.")
    return size

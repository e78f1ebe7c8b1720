"""Inference with medoids: labels and distances of rows, the medoid silhouette, and the choice of k by it.

Source: L. Lenssen and E. Schubert, Clustering by direct optimization of the medoid silhouette, SISAP 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.kmedoids.distances import (
    BUDGET,
    PRECOMPUTED,
    check_medoid_rows,
    check_precomputed,
    distance_degree,
    distances_to,
)
from jaxcluster.cluster.kmedoids.fasterpam import INITS
from jaxcluster.cluster.kmedoids.fit import (
    KMedoidsState,
    MetricSpec,
    SearchOptions,
    build_problem,
    check_options,
    finalize,
    is_precomputed,
    solve,
    solve_in_chunks,
    to_public,
    weighted_distances,
)
from jaxcluster.core import chunks, memory, validation
from jaxcluster.core.batching import map_runs
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import float_dtype, publish, published_dtype
from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.core.frame import frame_of
from jaxcluster.core.implicit import non_differentiable
from jaxcluster.core.iterate import history_capacity
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.ops.distance import TRANSLATION_INVARIANT, metric_function, plain_metric
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Published


class Sweep(NamedTuple):
    """Fits for several numbers of clusters.

    Attributes:
        ks: (m,) numbers of clusters.
        fits: a `Fit` whose arrays have one more leading axis; of max(ks) medoids those beyond a fit's k are −1.
        silhouette: (m,) medoid silhouette of each fit, in [0, 1]; higher is better.
    """

    ks: np.ndarray
    fits: Fit
    silhouette: Float[Array, " m"]

    @property
    def k(self) -> int:
        """Number of clusters with the highest medoid silhouette; the least of equals."""
        order = np.argsort(self.ks)
        return int(self.ks[order][np.argmax(np.asarray(self.silhouette)[order])])


def predict(
    state: KMedoidsState | Array | np.ndarray, x: Any, *, metric: str | Callable = "euclidean", p: float = 2.0
) -> Int[Array, " n"]:
    """Index of the nearest medoid of each row; ties go to the lower index. Arguments as in `transform`.

    Raises:
        ValueError, TypeError: as `transform`; a gradient with respect to labels, which have none.
    """
    return non_differentiable(_infer(state, x, metric, p, labels=True), state, x)


def transform(
    state: KMedoidsState | Array | np.ndarray, x: Any, *, metric: str | Callable = "euclidean", p: float = 2.0
) -> Float[Published, "n k"]:
    """(n_samples, k) distances from rows to medoids, in the units of the metric; in float64 for concrete rows.

    Args:
        state: of a fit, or (k, n_features) rows of the medoids.
        x: (n_samples, n_features) rows; for the metric "precomputed" (n_samples, m) distances to the m rows of the fit,
            together with its state.
        metric, p: as in the fit.

    Raises:
        ValueError, TypeError: wrong shapes, values or names.
    """
    return _infer(state, x, metric, p, labels=False)


def medoid_silhouette(
    state: KMedoidsState | Array | np.ndarray,
    x: Any,
    *,
    metric: str | Callable = "euclidean",
    p: float = 2.0,
    weights: Any = None,
) -> Float[Array, ""]:
    """Medoid silhouette: mean of (d₂ − d₁) / d₂, d₁ and d₂ the two least distances to medoids; 1 for rows with d₂ = 0.

    Args:
        state, x, metric, p: as in `transform`; at least 2 medoids.
        weights: (n_samples,) non-negative row weights, or None for 1 each.

    Returns:
        () a number in [0, 1]; higher is better.

    Raises:
        ValueError, TypeError: fewer than 2 medoids, or as `transform`.
    """
    distances = transform(state, x, metric=metric, p=p)
    if distances.shape[1] < 2:
        raise ValueError("The medoid silhouette needs at least 2 medoids: with one there is no second nearest.")
    if weights is None:
        weights = np.ones(distances.shape[0])
    elif not validation.is_traced(weights):
        weights = validation.check_weights(weights, distances.shape[0])
        weights = weights / weights.max()
    if not validation.is_traced(distances):
        # The silhouette is a ratio: divided by the largest distance, all stay within float32.
        largest = float(np.max(np.asarray(distances)))
        distances = jnp.asarray(np.asarray(distances, np.float64) / (largest if largest > 0 else 1))
    return _silhouette(distances, jnp.asarray(weights).astype(distances.dtype))


def sweep(
    key: KeyArray,
    x: Any,
    ks: Any,
    *,
    metric: str | Callable = "euclidean",
    p: float = 2.0,
    init: str = "build",
    weights: Any = None,
    tol: Any = 0.0,
    max_steps: Any = 100,
    n_init: int = 1,
) -> Sweep:
    """Fit every k in ``ks`` in one program, from one matrix of distances, and compute their medoid silhouettes.

    Args:
        ks: distinct numbers of clusters, each at least 2.
        key, x, metric, p, init, weights, tol, max_steps, n_init: as in `fit`; ``init`` by name only.

    Returns:
        A `Sweep`; its ``k`` is the best number of clusters.

    Raises:
        ValueError, TypeError, MemoryError: as `fit`, or ``ks`` empty, below 2 or with repetitions.
    """
    key = validation.check_key(key)
    metric = check_options(metric, p, tol, max_steps)
    x = check_precomputed(x) if is_precomputed(metric) else check_medoid_rows(x)
    ks = [validation.check_clusters(k, x.shape[0], name="ks") for k in np.atleast_1d(ks)]
    if not ks or len(set(ks)) < len(ks) or min(ks) < 2:
        raise ValueError(f"ks={ks} must be one or more distinct numbers of clusters, each at least 2.")
    validation.check_choice("init", init, INITS)
    runs = validation.check_count("n_init", n_init) if init == "random" else 1
    problem, spec, scale = build_problem(x, weights, MetricSpec(metric, float(p)), max(ks))
    config = SearchOptions(max(ks), init, runs, history_capacity(max_steps))
    arguments = spec, config, key, problem, jnp.asarray(ks, jnp.int32), tol, max_steps
    long = chunks.is_long(runs * len(ks) * problem.weight.shape[0] ** 2 * config.k, max_steps, *arguments[2:])
    fits, silhouette = (_sweep_in_chunks if long else _sweep)(*arguments)
    return Sweep(np.asarray(ks), to_public(fits, x, weights, MetricSpec(metric, float(p)), scale, ks), silhouette)


@persistent_jit(static_argnums=(0, 1))
def _sweep(spec, config, key, problem, counts, tol, max_steps):
    table = weighted_distances(spec, problem)

    def one(count):
        fitted = solve(config, key, table, None, count, tol, max_steps)
        return _with_silhouette(spec, config, problem, table, fitted, count)

    return map_runs(one, counts)


def _sweep_in_chunks(spec, config, key, problem, counts, tol, max_steps):
    """`_sweep` of a concrete problem, one fit after the other; Ctrl-C raises KeyboardInterrupt."""
    table, results = weighted_distances(spec, problem), []
    for count in counts:
        fitted = solve_in_chunks(config, key, table, None, count, tol, max_steps)
        results.append(_compiled_silhouette(spec, config, problem, table, fitted, count))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)


def _with_silhouette(spec, config, problem, table, fitted, count):
    near = fitted.state.near
    finished = finalize(spec, config.k, problem, fitted, fitted.state.medoids, near.labels, count)
    return finished, _mean_silhouette(near.nearest, near.second, table.weight)


_compiled_silhouette = persistent_jit(_with_silhouette, static_argnums=(0, 1))


def _infer(state, x, metric, p, labels):
    metric = plain_metric(metric, p, also=(PRECOMPUTED,))
    if is_precomputed(metric):
        return _infer_precomputed(state, validation.check_matrix(x), labels)
    x = check_medoid_rows(x)
    centers = state.centers if isinstance(state, KMedoidsState) else state
    if centers is None:
        raise ValueError("The medoids of precomputed distances have no rows. Pass metric='precomputed'.")
    centers = validation.check_matrix(centers, name="medoids")
    validation.check_width(x, centers.shape[1])
    if not labels:
        memory.check_table(x.shape[0], centers.shape[0], x.dtype, "the distances")
    if not validation.is_traced(x, centers):
        if is_sparse(x):
            distances = distances_to(metric, x, np.asarray(centers))
            return _labels_or_distances(distances, labels, published_dtype(x.data))
        validation.check_finite(x)
        distances = distances_to(metric, np.asarray(x), np.asarray(centers), p=p)
        return _labels_or_distances(distances, labels, published_dtype(x))
    dtype = float_dtype(np.result_type(np.float32, *(each.dtype for each in (x, centers) if each.dtype.kind == "f")))
    x, centers = jnp.asarray(x).astype(dtype), jnp.asarray(centers).astype(dtype)
    if metric not in TRANSLATION_INVARIANT:
        return _distances(metric, float(p), labels, centers, x)
    frame = frame_of(centers)
    distances = _distances(metric, float(p), labels, frame.enter(centers), frame.enter(x))
    return distances if labels else frame.unscale(distances, length=distance_degree(metric))


def _labels_or_distances(distances, labels, dtype):
    return jax.device_put(distances.argmin(axis=1).astype(np.int32)) if labels else publish(distances, dtype)


def _infer_precomputed(medoids, x, labels):
    if not isinstance(medoids, KMedoidsState):
        raise TypeError("metric='precomputed' needs the state of the fit, which holds the columns of the medoids.")
    if not validation.is_traced(x):
        validation.check_finite(x, name="distances")
        if (np.asarray(x) < 0).any():
            raise ValueError(f"distances must not be negative, and the least is {np.min(np.asarray(x))}.")
    if not validation.is_traced(medoids.medoids) and int(np.max(np.asarray(medoids.medoids))) >= x.shape[1]:
        raise ValueError(
            f"x has {x.shape[1]} columns, fewer than the fit had rows. Pass the distances to all rows of the fit."
        )
    if not validation.is_traced(x, medoids.medoids):
        distances = np.asarray(x)[:, np.asarray(medoids.medoids)].astype(np.float64)
        return _labels_or_distances(distances, labels, published_dtype(x))
    distances = jnp.asarray(x)[:, medoids.medoids].astype(float_dtype(x.dtype))
    return jnp.argmin(distances, axis=1).astype(jnp.int32) if labels else distances


@persistent_jit(static_argnums=(0, 1, 2))
def _distances(metric, p, labels, centers, x):
    distances_of = metric_function(metric, p=p)

    def tile(rows):
        distances = distances_of(rows, centers)
        return jnp.argmin(distances, axis=1).astype(jnp.int32) if labels else distances

    return map_rows(tile, x, tile=tile_rows(x.shape[0], centers.shape[0], BUDGET))


@persistent_jit
def _silhouette(distances, weight):
    nearest, second = jnp.moveaxis(-jax.lax.top_k(-distances, 2)[0], 1, 0)
    return _mean_silhouette(nearest, second, weight)


def _mean_silhouette(nearest, second, weight):
    """Weighted mean over rows of 1 − nearest / second; 1 for rows where both are 0."""
    positive = second > 0
    per_row = jnp.where(positive, 1 - nearest / jnp.where(positive, second, 1), 1)
    return jnp.sum(weight * per_row) / jnp.sum(weight)

"""What medoids are used for: labels and distances of rows, the medoid silhouette, and choosing k by it.

Source: L. Lenssen and E. Schubert, Clustering by direct optimization of the medoid silhouette, SISAP 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.kmedoids import matrix
from jaxcluster.cluster.kmedoids.fit import (
    KMedoidsState,
    Measure,
    Runs,
    check_options,
    finish,
    is_precomputed,
    leave,
    mean_silhouette,
    pose,
    solve,
    table_of,
)
from jaxcluster.cluster.kmedoids.starts import INITS
from jaxcluster.core import memory, validation
from jaxcluster.core.batching import map_runs
from jaxcluster.core.dtypes import float_dtype, publish, published_dtype
from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.core.frame import frame_of
from jaxcluster.core.implicit import non_differentiable
from jaxcluster.core.iterate import history_capacity
from jaxcluster.ops.distance import TRANSLATION_INVARIANT, metric_function, plain_metric
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Published


class Sweep(NamedTuple):
    """Fits of several numbers of clusters.

    Attributes:
        ks: (m,) numbers of clusters.
        fits: a `Fit` whose arrays have one more leading axis; of max(ks) medoids those beyond a fit's k are −1.
        silhouette: (m,) medoid silhouette of each, in [0, 1]; higher is better.
    """

    ks: np.ndarray
    fits: Fit
    silhouette: Float[Array, " m"]

    @property
    def k(self) -> int:
        """The number of clusters with the highest medoid silhouette; the least of equals."""
        order = np.argsort(self.ks)
        return int(self.ks[order][np.argmax(np.asarray(self.silhouette)[order])])


def predict(
    medoids: KMedoidsState | Array | np.ndarray, x, *, metric: str | Callable = "euclidean", p: float = 2.0
) -> Int[Array, " n"]:
    """Index of the nearest medoid of each row; ties go to the lower index. Arguments as of `transform`.

    Raises:
        ValueError, TypeError: as `transform`; a gradient with respect to labels, which have none.
    """
    return non_differentiable(_use(medoids, x, metric, p, labels=True), medoids, x)


def transform(
    medoids: KMedoidsState | Array | np.ndarray, x, *, metric: str | Callable = "euclidean", p: float = 2.0
) -> Float[Published, "n k"]:
    """Distance of each row to each medoid, in the units of the metric; of concrete rows as float64 has it.

    Args:
        medoids: the state of a fit, or (k, d) rows that are the medoids.
        x: (n, d) rows; under "precomputed" (n, m) distances from the m rows of the fit, whose state is wanted.
        metric, p: as in the fit.

    Raises:
        ValueError, TypeError: wrong shapes, values or names.
    """
    return _use(medoids, x, metric, p, labels=False)


def medoid_silhouette(
    medoids: KMedoidsState | Array | np.ndarray,
    x,
    *,
    metric: str | Callable = "euclidean",
    p: float = 2.0,
    weights=None,
) -> Float[Array, ""]:
    """Mean over rows of (d₂ − d₁) / d₂, of the distances to the nearest and second nearest medoid; 1 where both are 0.

    Args:
        medoids, x, metric, p: as of `transform`; at least 2 medoids.
        weights: (n,) non-negative row weights, or None for 1 each.

    Returns:
        () a number in [0, 1]; higher is better.

    Raises:
        ValueError, TypeError: fewer than 2 medoids, or as `transform`.
    """
    distances = transform(medoids, x, metric=metric, p=p)
    if distances.shape[1] < 2:
        raise ValueError("The medoid silhouette needs at least 2 medoids: with one there is no second nearest.")
    if weights is None:
        weights = np.ones(distances.shape[0])
    elif not validation.is_traced(weights):
        weights = validation.check_weights(weights, distances.shape[0])
        weights = weights / weights.max()
    if not validation.is_traced(distances):
        largest = float(np.max(np.asarray(distances)))
        distances = jnp.asarray(np.asarray(distances, np.float64) / (largest if largest > 0 else 1))
    return _silhouette(distances, jnp.asarray(weights).astype(distances.dtype))


def sweep(
    key: KeyArray,
    x,
    ks,
    *,
    metric: str | Callable = "euclidean",
    p: float = 2.0,
    init: str = "build",
    weights=None,
    tol=0.0,
    max_steps=100,
    n_init: int = 1,
) -> Sweep:
    """Fits every k in ``ks`` and says how clear its clusters are, in one compile and from one table of distances.

    Args:
        ks: distinct numbers of clusters, each at least 2.
        key, x, metric, p, init, weights, tol, max_steps, n_init: as in `fit`; starts are not given but named.

    Returns:
        A `Sweep`; its ``k`` is the number of clusters to choose.

    Raises:
        ValueError, TypeError, MemoryError: as `fit`, or ``ks`` empty, below 2 or with repetitions.
    """
    key = validation.check_key(key)
    metric = check_options(metric, p, tol, max_steps)
    x = matrix.checked_matrix(x) if is_precomputed(metric) else validation.check_matrix(x)
    ks = [validation.check_clusters(k, x.shape[0], name="ks") for k in np.atleast_1d(ks)]
    if not ks or len(set(ks)) < len(ks) or min(ks) < 2:
        raise ValueError(f"ks={ks} must be one or more distinct numbers of clusters, each at least 2.")
    validation.check_choice("init", init, INITS)
    runs = validation.check_count("n_init", n_init) if init == "random" else 1
    problem, measure, unit = pose(x, weights, Measure(metric, float(p)), max(ks))
    runs = Runs(max(ks), init, runs, history_capacity(max_steps))
    fits, silhouette = _sweep(measure, runs, key, problem, jnp.asarray(ks, jnp.int32), tol, max_steps)
    return Sweep(np.asarray(ks), leave(fits, x, weights, Measure(metric, float(p)), unit, ks), silhouette)


@partial(jax.jit, static_argnums=(0, 1))
def _sweep(measure, runs, key, problem, counts, tol, max_steps):
    table = table_of(measure, problem)

    def one(count):
        fitted = solve(runs, key, table, None, count, tol, max_steps)
        near = fitted.state.near
        finished = finish(measure, runs.k, problem, fitted, fitted.state.medoids, near.labels, count)
        return finished, mean_silhouette(near.nearest, near.second, table.weight)

    return map_runs(one, counts)


def _use(medoids, x, metric, p, labels):
    metric = plain_metric(metric, p, also=(matrix.PRECOMPUTED,))
    x = validation.check_matrix(x)
    if is_precomputed(metric):
        return _from_given(medoids, x, labels)
    centers = medoids.centers if isinstance(medoids, KMedoidsState) else medoids
    if centers is None:
        raise ValueError("The medoids were found among distances, and have no rows. Pass metric='precomputed'.")
    centers = validation.check_matrix(centers, name="medoids")
    validation.check_width(x, centers.shape[1])
    if not labels:
        memory.check_table(x.shape[0], centers.shape[0], x.dtype, "the distances")
    if not validation.is_traced(x, centers):
        validation.check_finite(x)
        distances = matrix.measured_from(metric, np.asarray(x), np.asarray(centers), p=p)
        return _labels_or_distances(distances, labels, published_dtype(x))
    dtype = float_dtype(np.result_type(np.float32, *(each.dtype for each in (x, centers) if each.dtype.kind == "f")))
    x, centers = jnp.asarray(x).astype(dtype), jnp.asarray(centers).astype(dtype)
    if metric not in TRANSLATION_INVARIANT:
        return _distances(metric, float(p), labels, centers, x)
    frame = frame_of(centers)
    distances = _distances(metric, float(p), labels, frame.enter(centers), frame.enter(x))
    return distances if labels else frame.unscale(distances, length=matrix.length_of(metric))


def _labels_or_distances(distances, labels, dtype):
    return jax.device_put(distances.argmin(axis=1).astype(np.int32)) if labels else publish(distances, dtype)


def _from_given(medoids, x, labels):
    if not isinstance(medoids, KMedoidsState):
        raise TypeError("metric='precomputed' needs the state of the fit, which says which columns are medoids.")
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


@partial(jax.jit, static_argnums=(0, 1, 2))
def _distances(metric, p, labels, centers, x):
    distances_of = metric_function(metric, p=p)

    def tile(rows):
        distances = distances_of(rows, centers)
        return jnp.argmin(distances, axis=1).astype(jnp.int32) if labels else distances

    return map_rows(tile, x, tile=tile_rows(x.shape[0], centers.shape[0], matrix.BUDGET))


@jax.jit
def _silhouette(distances, weight):
    nearest, second = jnp.moveaxis(-jax.lax.top_k(-distances, 2)[0], 1, 0)
    return mean_silhouette(nearest, second, weight)

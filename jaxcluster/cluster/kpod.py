"""k-means of samples with missing cells (k-POD): minimize Σ w·(x − c)² over the observed cells.

Missing cells are those of the assigned center: they add nothing. Chi, Chi and Baraniuk fill them in, run k-means on the
filled samples, and repeat. The same sum is lowered directly here: an assignment compares the observed cells of a sample
with each center, and an update takes the mean of the observed cells of each cluster and column. Where this stops, so
does k-POD: filled cells only add to the distances from other centers.

>>> import numpy as np
>>> x = np.array([[0.0, np.nan], [1.0, 0.0], [9.0, 8.0], [np.nan, 10.0]])
>>> fit(jax.random.key(0), x, 2, init=x[[1, 2]]).state.centers.tolist()
[[0.5, 0.0], [9.0, 9.0]]

Source: J. T. Chi, E. C. Chi and R. G. Baraniuk, k-POD: a method for k-means clustering of missing data, The American
Statistician 70 (2016).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.kmeans import KMeansState
from jaxcluster.cluster.seeding import CenterConstraints, check_centers, check_runs, seed_centers
from jaxcluster.core import chunks, memory, signals, validation
from jaxcluster.core.batching import best_run
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.fold import fold_rows, map_rows, tile_rows
from jaxcluster.core.frame import Frame, frame_of
from jaxcluster.core.iterate import begin, history_capacity, status_with
from jaxcluster.core.preparation import Prepared, finalize, prepare
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Points, Published

__all__ = ["fit", "predict", "score", "transform"]

CELL_WORK = 16
"""Products and sums of a step for each cell, besides those for each center."""


def __dir__() -> list[str]:
    return __all__


class CellSums(NamedTuple):
    """Sums over the samples of each cluster: Σ w·x and Σ w of the observed cells, Σ w, and Σ w·(x − c)² of all."""

    sums: Float[Array, "k d"]
    cells: Float[Array, "k d"]
    weight: Float[Array, " k"]
    inertia: Float[Array, ""]


def fit(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    weights: Any = None,
    init: Any = "k-means++",
    n_init: int | str = 1,
    tol: Any = 1e-4,
    max_steps: Any = 300,
) -> Fit:
    """Cluster samples by their observed cells.

    Args:
        key: random key for the initialization.
        x: (n_samples, n_features) dense samples, NaN where a cell is missing.
        k: number of clusters, static, 1 <= k <= n_samples.
        weights: (n_samples,) non-negative sample weights, or None for 1 each.
        init: "k-means++", "random" or "k-means||" on samples whose missing cells are the mean of their column; or
            (k, n_features) initial centers.
        n_init: runs from different initial centers; the one of least inertia is returned. "auto" is 10 for "random",
            else 1.
        tol: stop when Σ‖Δc‖² <= tol × the mean variance of the features. Traced.
        max_steps: maximum number of steps. Traced.

    Returns:
        `Fit` with a `KMeansState`, labels (n_samples,) int32, steps, status and the inertia before each step. A center
        keeps the coordinate in a column where its samples have no observed cell.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names; samples or columns without any observed cell.
    """
    return fit_framed(key, x, k, weights=weights, init=init, n_init=n_init, tol=tol, max_steps=max_steps)[0]


@signals.keeping_result()
def fit_framed(key: Any, x: Any, k: Any, *, weights: Any, init: Any, n_init: Any, tol: Any, max_steps: Any) -> Any:
    """`fit` for callers that need its frame.

    Returns:
        The fit, and the frame in which it was computed.
    """
    key = validation.check_key(key)
    x, k = validation.check_samples(x, k)
    tol = validation.check_positive("tol", tol, zero=True)
    validation.check_positive("max_steps", max_steps)
    check_observed(x)
    name, constraints = check_centers(init, None, None, k, x.shape[1])
    prepared = prepare(x, weights, missing=True)
    inside = constraints.enter(prepared.frame, False)
    static = k, name, check_runs(name, n_init), history_capacity(max_steps)
    arguments = key, prepared.points, inside, tol, max_steps
    work = prepared.points.x.size * (2 * k + CELL_WORK)
    if chunks.is_long(static[2] * work, max_steps, *arguments):
        fitted = _fit_in_chunks(static, *arguments, work, partial(prepared.unscale, length=2, weight=1))
    else:
        fitted = _fit(static, *arguments)
    fitted = finalize(fitted, prepared, partial(KMeansState.leave, spherical=False), length=2, weight=1)
    return fitted, prepared.frame


def check_observed(x: Any, *, name: str = "x") -> None:
    """Raise ValueError for samples without any observed cell, with their numbers; traced samples are not looked at."""
    if validation.is_traced(x) or x.dtype.kind != "f":
        return
    empty = np.flatnonzero(np.isnan(np.asarray(x)).all(axis=1))
    if empty.size:
        listed = ", ".join(map(str, empty[:8].tolist())) + (" …" if empty.size > 8 else "")
        raise ValueError(
            f"{name} has no observed cell in row{'s' if empty.size > 1 else ''} {listed}, which may be in any cluster. "
            "Drop such rows."
        )


def predict(state: Any, x: Any, *, frame: Frame | None = None) -> Int[Array, " n"]:
    """Index of the nearest center of each sample by its observed cells; ties go to the lower index.

    Args:
        state: of a fit; or (k, n_features) centers, in the caller's coordinates.
        x: (n_samples, n_features) samples, NaN where a cell is missing.
        frame: of the fit that the centers are from; None for one about the centers.

    Returns:
        (n_samples,) int32 labels.

    Raises:
        ValueError, TypeError: wrong shapes or values; samples without any observed cell.
    """
    centers, prepared = _in_one_frame(state, x, None, frame)
    return prepared.unpad(_assign(prepared.points.x, centers)[0])


def transform(state: Any, x: Any, *, frame: Frame | None = None) -> Float[Published, "n k"]:
    """Euclidean distance (data units) of the observed cells of each sample to each center; arguments as in `predict`.

    Returns:
        (n_samples, k) distances. They are of the observed cells alone, and not scaled up by the number of columns.
    """
    centers, prepared = _in_one_frame(state, x, None, frame)
    memory.check_table(prepared.n, centers.shape[0], prepared.dtype, "the distances")
    return prepared.unscale(prepared.unpad(_distances(prepared.points.x, centers), axis=0), length=1)


def score(state: Any, x: Any, *, weights: Any = None, frame: Frame | None = None) -> Float[Published, ""]:
    """Negative Σ w·(x − c)² of observed cells (higher is better); arguments as in `fit` and `predict`."""
    centers, prepared = _in_one_frame(state, x, weights, frame)
    return prepared.unscale(_score(prepared.points, centers), length=2, weight=1)


def _in_one_frame(state, x, weights, frame) -> tuple[Array, Prepared]:
    centers = validation.check_matrix(state.centers if isinstance(state, KMeansState) else state, name="centers")
    x = validation.check_matrix(x)
    validation.check_width(x, centers.shape[1])
    check_observed(x)
    prepared = prepare(x, weights, missing=True, frame=frame_of(centers) if frame is None else frame)
    return prepared.frame.enter(centers).astype(prepared.points.x.dtype), prepared


def _start(static, key, points, constraints: CenterConstraints, tol, max_steps):
    k, init, _, capacity = static
    observed = ~jnp.isnan(points.x)
    filled = jnp.where(observed, points.x, 0)
    weight = jnp.where(observed, points.weight[:, None], 0)
    total = jnp.maximum(jnp.sum(weight, axis=0), jnp.finfo(filled.dtype).tiny)
    mean = jnp.sum(weight * filled, axis=0) / total
    offset = jnp.where(observed, filled - mean[None, :], 0)
    unit = jnp.mean(jnp.sum(weight * jnp.square(offset), axis=0) / total)
    seeds = Points(offset + mean[None, :], points.weight)
    start = constraints.initial
    start = seed_centers(key, seeds, k, init=init) if start is None else start.astype(filled.dtype)
    infinite = jnp.full((), jnp.inf, filled.dtype)
    state = KMeansState(start, infinite, jnp.zeros((k,), filled.dtype), infinite)
    return (points,), begin(state, capacity), tol * unit, max_steps


def _step(static, points, state):
    sums, _ = _cell_sums(points, state.centers)
    seen = sums.cells > 0
    centers = jnp.where(seen, sums.sums / jnp.where(seen, sums.cells, 1), state.centers)
    return KMeansState(centers, sums.inertia, sums.weight, jnp.sum(jnp.square(centers - state.centers)))


def _end(static, fitted, operands, key, points, constraints, tol, max_steps):
    last, labels = _cell_sums(points, fitted.state.centers)
    state = fitted.state._replace(inertia=last.inertia, weight=last.weight)
    status = status_with(fitted.status, objective=last.inertia, incomplete=jnp.any(last.weight <= 0))
    return fitted._replace(state=state, labels=labels, status=status)


_loop = chunks.Loop(_start, _step, _end)


@persistent_jit(static_argnums=0)
def _fit(static, key, points, constraints: CenterConstraints, tol, max_steps):
    points = jax.lax.stop_gradient(points)
    return best_run(lambda key: _loop.whole(static, key, points, constraints, tol, max_steps), key, static[2])


def _fit_in_chunks(static, key, points, constraints, tol, max_steps, work, shown):
    """`_fit` of concrete samples, one start after the other, which Ctrl-C can end."""

    def run(key):
        return _loop(static, key, points, constraints, tol, max_steps, work=work, max_steps=max_steps, shown=shown)

    return chunks.best_of_starts(run, key, static[2])


def _cell_sums(points, centers):
    """`CellSums` about the centers, and the labels of the samples."""
    k, d = centers.shape

    def of_tile(tile):
        observed = ~jnp.isnan(tile.x)
        labels, squares = _assign_tile(tile.x, centers)
        sums, weight = cluster_sums(Points(jnp.where(observed, tile.x, 0), tile.weight), labels, k)
        cells, _ = cluster_sums(Points(observed.astype(tile.x.dtype), tile.weight), labels, k)
        return CellSums(sums, cells, weight, tile.weight @ squares), labels

    return fold_rows(of_tile, points, tile=tile_rows(points.x.shape[0], k + 6 * d))


def _assign_tile(x, centers):
    """Labels, and squared distances of observed cells to the center of the label, by differences."""
    labels = jnp.argmin(_partial_squares(x, centers), axis=1).astype(jnp.int32)
    return labels, jnp.sum(jnp.square(jnp.where(jnp.isnan(x), 0, x - centers[labels])), axis=1)


def _partial_squares(x, centers):
    """(t, k) squared distances of observed cells: Σ x² − 2·Σ x·c + Σ c² over the observed columns of each sample."""
    observed = ~jnp.isnan(x)
    filled, mask = jnp.where(observed, x, 0), observed.astype(x.dtype)
    products = jnp.matmul(filled, centers.T, precision=HIGHEST)
    lengths = jnp.matmul(mask, jnp.square(centers).T, precision=HIGHEST)
    return jnp.maximum(jnp.sum(jnp.square(filled), axis=1, keepdims=True) - 2 * products + lengths, 0)


def _tile(x, centers):
    return tile_rows(x.shape[0], centers.shape[0] + 6 * x.shape[1])


@persistent_jit
def _assign(x, centers):
    return map_rows(lambda rows: _assign_tile(rows, centers), x, tile=_tile(x, centers))


@persistent_jit
def _distances(x, centers):
    return map_rows(lambda rows: jnp.sqrt(_partial_squares(rows, centers)), x, tile=_tile(x, centers))


@persistent_jit
def _score(points, centers):
    return -(points.weight @ _assign(points.x, centers)[1])


memory.guard_functions(__name__)

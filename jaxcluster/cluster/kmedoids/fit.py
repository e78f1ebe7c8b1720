"""k-medoids: k of the rows that the others are nearest to, by any metric.

Sources: L. Kaufman and P. J. Rousseeuw, Finding Groups in Data, Wiley 1990, for the problem and its start; E. Schubert
and P. J. Rousseeuw, Fast and eager k-medoids clustering, Information Systems 101 (2021), for the search.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.kmedoids import matrix
from jaxcluster.cluster.kmedoids.starts import INITS, build, random_medoids
from jaxcluster.cluster.kmedoids.swap import Table, search
from jaxcluster.core import validation
from jaxcluster.core.batching import best_of, map_runs
from jaxcluster.core.dtypes import float_dtype, publish, published_dtype
from jaxcluster.core.frame import Frame
from jaxcluster.core.iterate import history_capacity, status_with
from jaxcluster.core.preparation import Prepared, padded_size, prepare, unpad
from jaxcluster.ops.distance import TRANSLATION_INVARIANT, plain_metric
from jaxcluster.ops.metric_space import (
    checked_distances,
    float64_tables,
    host_distance,
    standardized_rows,
    tiles,
    unit_rows,
)
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Points, Published, Status

GIVEN = "given"


class KMedoidsState(NamedTuple):
    """A finished k-medoids.

    Attributes:
        medoids: (k,) int32 which rows are the medoids, all different.
        centers: (k, d) those rows, to the bit; None where only distances are known.
        loss: () Σ w·d(x, medoid), in the units of the metric, not squared.
        weight: (k,) total weight of the rows of each cluster.
        residual: () what the last round of swaps lowered the loss by; 0 where no single swap lowers it.
    """

    medoids: Int[Array, "*batch k"]
    centers: Any
    loss: Float[Published, "*batch"]
    weight: Float[Published, "*batch k"]
    residual: Float[Published, "*batch"]

    @property
    def objective(self) -> Float[Published, "*batch"]:
        """The loss, by which runs are compared."""
        return self.loss


class Runs(NamedTuple):
    """Options that change the program of the search, which the metric and the width of the rows do not."""

    k: int
    init: str
    number: int
    capacity: int


class Measure(NamedTuple):
    """The metric, and the power that "minkowski" takes."""

    metric: str | Callable
    p: float


class Unit(NamedTuple):
    """What a problem was made of to be computed in float32.

    Attributes:
        frame: of the rows, or of nothing but their distances.
        length: the power of its unit that distances are in.
        narrowed: whether rows may have lost digits on their way into the frame.
    """

    frame: Frame
    length: int
    narrowed: bool = False

    def leave(self, value: Any) -> Any:
        """Sums of weighted distances in the caller's units."""
        return self.frame.unscale(value, length=self.length, weight=1)


class Problem(NamedTuple):
    """What a fit is made of, on the device and filled up to a bucket with rows of weight 0.

    Attributes:
        x: (n, d) rows; None where distances are given.
        distances: (n, n) distances; None where rows are given.
        weight: (n,) row weights.
    """

    x: Float[Array, "n d"] | None
    distances: Float[Array, "n n"] | None
    weight: Float[Array, " n"]


def fit(
    key: KeyArray,
    x,
    k: int,
    *,
    metric: str | Callable = "euclidean",
    p: float = 2.0,
    init="build",
    weights=None,
    tol=0.0,
    max_steps=100,
    n_init: int = 1,
) -> Fit:
    """Clusters rows around k of them, so that no swap of one medoid for another row lowers the loss (FasterPAM).

    Holds the n×n distances, in float32 (in float64 for float64 rows under JAX's x64 mode); `clara` is for more rows.
    Under jit it works for traced rows. The loss has its exact gradient with respect to rows, or distances, and weights,
    with labels and medoids held fixed.

    Args:
        key: random key for "random"; "build" has no chance in it.
        x: (n, d) rows, or (n, n) dense, finite and symmetric distances where the metric is "precomputed".
        k: number of clusters, static, 1 <= k <= n.
        metric: a name in `jaxcluster.ops.distance.METRICS`, "precomputed", or a symmetric function of two matrices of
            rows, (m, d) and (n, d), that gives (m, n) distances. Of traced rows it must be traceable.
        p: the power of "minkowski", at least 1.
        init: "build" (greedy), "random" (distinct rows by weight), or (k,) numbers of different rows.
        weights: (n,) non-negative row weights; a weight of 2 is the row twice, and a row of weight 0 is labeled but
            neither counts nor becomes a medoid. None for 1 each.
        tol: stop when a round over all rows lowers the loss by at most tol × the loss of the start. Traced.
        max_steps: the most rounds. Traced.
        n_init: runs from different random starts, of which the least loss wins.

    Returns:
        `Fit` with a `KMedoidsState`, labels (n,) int32, steps (rounds), status and the loss after each round. Status
        EMPTY_CLUSTERS says that there were fewer distinct rows than clusters, PRECISION that rows are nearer to their
        medoids than float32 can tell, so that others of them may be better medoids.

    Raises:
        ValueError, TypeError: wrong shapes, values or names, before anything is traced.
        MemoryError: n×n distances would not fit.
    """
    key = validation.check_key(key)
    metric = check_options(metric, p, tol, max_steps)
    x = matrix.checked_matrix(x) if is_precomputed(metric) else validation.check_matrix(x)
    n = x.shape[0]
    k = validation.check_clusters(k, n)
    name, start = check_init(init, k, n, weights)
    runs = validation.check_count("n_init", n_init) if name == "random" else 1
    problem, measure, unit = pose(x, weights, Measure(metric, float(p)), k)
    runs = Runs(k, name, runs, history_capacity(max_steps))
    fitted = _run(runs, key, table_of(measure, problem), start, tol, max_steps)
    return leave(_finish(measure, runs, problem, fitted), x, weights, Measure(metric, float(p)), unit)


def pose(x, weights, measure: Measure, k: int) -> tuple[Problem, Measure, Unit]:
    """Checked rows or distances on the device, in a unit in which most are about 1, and the metric to take there."""
    n, dtype, metric = x.shape[0], float_dtype(x.dtype), measure.metric
    traced = validation.is_traced(x, weights)
    if weights is not None and not validation.is_traced(weights):
        weights = validation.check_weights(weights, n)
        check_weighty(weights, k)
    matrix.check_memory(n, n if traced else padded_size(n), dtype, given=is_precomputed(metric))
    if traced:
        return _pose_traced(x, weights, measure, dtype)
    if not is_precomputed(metric):
        validation.check_finite(x)
        if not callable(metric) and x.size * n > matrix.HOST_WORK and (placed := placed_rows(x, weights, metric)):
            prepared, metric = placed
            problem = Problem(prepared.points.x, None, prepared.points.weight)
            return problem, Measure(metric, measure.p), unit_of(prepared, measure.metric, metric)
    x = np.asarray(x)
    weighted = prepare(np.zeros((n, 1), dtype), weights)
    size = weighted.points.weight.shape[0]
    table, exponent = matrix.host_matrix(_distances_of_rows(x, measure), n, size, dtype)
    frame = weighted.frame._replace(exponent=exponent)
    return Problem(None, table, weighted.points.weight), measure, Unit(frame, 1)


def placed_rows(x, weights, metric: str) -> tuple[Prepared, str] | None:
    """Concrete rows in a frame and the metric to take there, or None for metrics that no frame is right for.

    1 − cos is half the squared distance of rows of length 1, which may be moved; but rows of zeros have no length.
    """
    if metric in TRANSLATION_INVARIANT:
        return prepare(x, weights), metric
    if metric in ("cosine", "correlation"):
        unit = unit_rows(np.asarray(x)) if metric == "cosine" else standardized_rows(np.asarray(x))
        if unit.any(axis=1).all():
            return prepare(np.sqrt(0.5) * unit, weights), "sqeuclidean"
    return None


def unit_of(prepared: Prepared, metric: str, inside: str) -> Unit:
    """The unit of rows that were placed in a frame, to be measured there by ``inside`` in place of ``metric``."""
    return Unit(prepared.frame, matrix.length_of(inside), prepared.narrowed and metric in TRANSLATION_INVARIANT)


def _pose_traced(x, weights, measure, dtype):
    x, metric = jnp.asarray(x).astype(dtype), measure.metric
    if not is_precomputed(metric) and metric in TRANSLATION_INVARIANT:
        prepared = prepare(x, weights)
        problem = Problem(prepared.points.x, None, prepared.points.weight)
        return problem, measure, Unit(prepared.frame, matrix.length_of(metric))
    weight = jnp.ones_like(x[:, 0]) if weights is None else jnp.asarray(weights).astype(dtype)
    points = Points(None, x) if is_precomputed(metric) else Points(x, None)
    return Problem(*points, weight), measure, Unit(Frame(jnp.zeros((1,), dtype)), 0)


def _distances_of_rows(x, measure):
    """(m,) row numbers -> (m, n) float64 distances from all rows."""
    if is_precomputed(measure.metric):
        return lambda index: x[index].astype(np.float64)
    (rows,) = float64_tables(measure.metric, x)
    function = host_distance(measure.metric, rows, p=measure.p)
    return lambda index: checked_distances(function, rows[index], rows, index)


def leave(fitted: Fit, x, weights, measure: Measure, unit: Unit, counts=None) -> Fit:
    """The fit in the caller's units, with labels of the real rows, and with the medoids' rows as the caller has them.

    Of concrete rows labels, loss and weights are those of their distances to the medoids in float64, as `predict` has
    them: the search tells distances apart by float32 alone.

    Args:
        counts: of several fits how many medoids each has; the others are −1.
    """
    state, metric = fitted.state, measure.metric
    history, residual = unit.leave(fitted.history), unit.leave(state.residual)
    if validation.is_traced(fitted, x, weights):
        taking_part = (state.medoids >= 0)[..., None]
        rows = None if is_precomputed(metric) else jnp.where(taking_part, jnp.asarray(x)[state.medoids], 0)
        rows = rows if rows is None else rows.astype(state.loss.dtype)
        weight = unit.frame.unscale(state.weight, weight=1)
        state = KMedoidsState(state.medoids, rows, unit.leave(state.loss), weight, residual)
        return fitted._replace(state=state, labels=unpad(fitted.labels, x.shape[0]), history=history)
    x = np.asarray(x)
    weights = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    medoids = np.asarray(state.medoids)
    flat = medoids.reshape(-1, medoids.shape[-1])
    counts = [flat.shape[1]] * len(flat) if counts is None else counts
    each = [assigned(medoids[:count], x, weights, measure) for medoids, count in zip(flat, counts, strict=True)]
    batch = medoids.shape[:-1]
    labels = np.stack([own for own, _, _ in each]).reshape(*batch, len(x))
    losses = np.array([loss for _, loss, _ in each]).reshape(batch)
    heavy = np.stack([np.pad(weight, (0, flat.shape[1] - len(weight))) for _, _, weight in each]).reshape(medoids.shape)
    empty = np.array([(weight <= 0).any() for _, _, weight in each]).reshape(batch)
    status = np.where(empty, Status.EMPTY_CLUSTERS, np.asarray(fitted.status))
    if unit.narrowed:
        origin = np.asarray(unit.frame.origin, np.float64)[None, :]
        rows = x[weights > 0]
        coarse = [
            _coarse(rows, x[medoids[:count]], origin, measure) for medoids, count in zip(flat, counts, strict=True)
        ]
        sound = np.isin(status, (Status.CONVERGED, Status.MAX_STEPS, Status.EMPTY_CLUSTERS))
        status = np.where(sound & np.array(coarse).reshape(batch), Status.PRECISION, status)
    dtype = np.dtype(np.float64) if is_precomputed(metric) and x.dtype.kind != "f" else published_dtype(x)
    with np.errstate(over="ignore"):
        finite = np.isfinite(losses.astype(dtype))
    status = jax.device_put(np.where(finite, status, Status.NOT_FINITE).astype(np.int32))
    centers = None if is_precomputed(metric) else np.where((medoids >= 0)[..., None], x[medoids], 0).astype(x.dtype)
    state = KMedoidsState(
        state.medoids,
        centers if centers is None else publish(centers, x.dtype),
        publish(losses, dtype),
        publish(heavy, dtype),
        residual,
    )
    return fitted._replace(state=state, labels=jax.device_put(labels), history=history, status=status)


def assigned(medoids: np.ndarray, x: np.ndarray, weights: np.ndarray, measure: Measure):
    """Labels of concrete rows, or of rows of distances, around medoids, their loss, and the weights of the clusters."""
    labels, nearest = np.empty(len(x), np.int32), np.empty(len(x))
    for index in tiles(len(x), len(medoids)):
        if is_precomputed(measure.metric):
            distances = x[index][:, medoids].astype(np.float64)
        else:
            distances = matrix.measured_from(measure.metric, x[index], x[medoids], p=measure.p)
        labels[index], nearest[index] = distances.argmin(axis=1), distances.min(axis=1)
    with np.errstate(over="ignore"):
        return labels, np.float64(weights @ nearest), np.bincount(labels, weights, len(medoids))


def _coarse(x, medoids, origin, measure):
    """Whether rounding in the frame, of float32, hides that a row is another one than its medoid.

    A row is rounded by about eps of its distance from the origin. Where it is nearer than that to its medoid, the
    search cannot tell which of the two is the better one.
    """
    root = np.sqrt if measure.metric == "sqeuclidean" else np.asarray
    for index in tiles(len(x), len(medoids)):
        own = root(matrix.measured_from(measure.metric, x[index], medoids, p=measure.p).min(axis=1))
        rounding = root(matrix.measured_from(measure.metric, x[index], origin, p=measure.p)[:, 0])
        if ((own > 0) & (own < np.finfo(np.float32).eps * rounding)).any():
            return True
    return False


_pairwise = jax.jit(matrix.pairwise, static_argnums=(1, 2))


def table_of(measure: Measure, problem: Problem) -> Table:
    """The distances of a problem, constant for gradients."""
    held: Problem = jax.lax.stop_gradient(problem)
    return Table(_pairwise(held.x, *measure) if held.distances is None else held.distances, held.weight)


# Compiled apart from the distances: rows of any width and by any metric share it.
@partial(jax.jit, static_argnums=0)
def _run(runs, key, table, start, tol, max_steps):
    return solve(runs, key, table, start, jnp.int32(runs.k), tol, max_steps)


@partial(jax.jit, static_argnums=(0, 1))
def _finish(measure, runs, problem, fitted):
    medoids, labels = fitted.state.medoids, fitted.state.near.labels
    return finish(measure, runs.k, problem, fitted, medoids, labels, runs.k)


def solve(runs: Runs, key, table: Table, start, count: Int[Array, ""], tol, max_steps) -> Fit:
    """The best of all runs with the first ``count`` of k medoids, as the search leaves it."""

    def run(key):
        medoids = starting_medoids(runs, key, table, start)
        return search(table, medoids, count, tol=tol, max_steps=max_steps, capacity=runs.capacity)

    fitted = run(key) if runs.number == 1 else best_of(map_runs(run, jax.random.split(key, runs.number)))
    # What only the search needs is large.
    return fitted._replace(state=fitted.state._replace(members=None))


def starting_medoids(runs: Runs, key, table: Table, start) -> Int[Array, " k"]:
    """The medoids that the search begins with."""
    if runs.init == GIVEN:
        return start
    return build(table, runs.k) if runs.init == "build" else random_medoids(key, table.weight, runs.k)


def finish(measure: Measure, k: int, problem: Problem, fitted: Fit, medoids, labels, count) -> Fit:
    """The public state: loss with gradients, weights and status; medoids beyond the first ``count`` are −1."""
    index = medoids[labels]
    if problem.distances is None:
        own = matrix.own_distances(problem.x, index, *measure)
    else:
        own = problem.distances[index, jnp.arange(index.shape[0], dtype=jnp.int32)]
    loss = jnp.sum(problem.weight * own)
    weight = jax.ops.segment_sum(problem.weight, labels, k)
    taking_part = jnp.arange(k, dtype=jnp.int32) < count
    empty = jnp.any(taking_part & (weight <= 0))
    status = status_with(fitted.status, incomplete=empty, objective=loss)
    state = KMedoidsState(jnp.where(taking_part, medoids, -1), None, loss, weight, fitted.state.residual)
    return Fit(state, labels, fitted.steps, status, fitted.history)


def mean_silhouette(nearest, second, weight) -> Float[Array, ""]:
    """The weighted mean over rows of 1 − nearest / second; 1 where both are 0."""
    known = second > 0
    per_row = jnp.where(known, 1 - nearest / jnp.where(known, second, 1), 1)
    return jnp.sum(weight * per_row) / jnp.sum(weight)


def is_precomputed(metric: Any) -> bool:
    """Whether distances are given in place of rows."""
    return isinstance(metric, str) and metric == matrix.PRECOMPUTED


def check_options(metric, p, tol, max_steps) -> str | Callable:
    """The metric by its plain name. Raises on options that all fits have."""
    validation.check_positive("tol", tol, zero=True)
    validation.check_positive("max_steps", max_steps)
    return plain_metric(metric, p, also=(matrix.PRECOMPUTED,))


def check_weighty(weights: np.ndarray, k: int) -> None:
    """Raises ValueError where fewer than k rows have weight, for only those become medoids."""
    if (weighty := int(np.count_nonzero(weights))) < k:
        raise ValueError(f"k={k} medoids were asked for, but only {weighty} rows have a weight above 0. Pass fewer.")


def check_init(init: Any, k: int, n: int, weights: Any) -> tuple[str, Int[Array, " k"] | None]:
    """The name of a start, and the medoids of a given one.

    Raises:
        ValueError, TypeError: an unknown name; not k different row numbers; rows of weight 0.
    """
    if isinstance(init, str):
        validation.check_choice("init", init, INITS)
        return init, None
    shape, dtype = np.shape(init), getattr(init, "dtype", None) or np.asarray(init).dtype
    if shape != (k,) or dtype.kind not in "iu":
        raise ValueError(
            f"init must be 'build', 'random' or ({k},) row numbers, integers, got shape {shape} of {dtype}."
        )
    if not validation.is_traced(init):
        init = np.asarray(init)
        if init.min() < 0 or init.max() >= n or np.unique(init).size < k:
            raise ValueError(f"init={init.tolist()} must be {k} different row numbers from 0 to {n - 1}.")
        if weights is not None and not validation.is_traced(weights) and not (np.asarray(weights)[init] > 0).all():
            raise ValueError(f"init={init.tolist()} holds rows of weight 0, which cannot be medoids. Pass others.")
    return GIVEN, jnp.asarray(init, jnp.int32)

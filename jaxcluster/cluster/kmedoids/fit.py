"""k-medoids: k samples with the least sum of distances from all samples to the nearest of them, by any metric.

>>> import jax, numpy as np
>>> from jaxcluster import kmedoids
>>> x = np.array([[0.0], [1.0], [2.0], [8.0], [9.0], [10.0]])
>>> sorted(kmedoids.fit(jax.random.key(0), x, 2).state.medoids.tolist())
[1, 4]

Sources: L. Kaufman and P. J. Rousseeuw, Finding Groups in Data, Wiley 1990, for the problem and BUILD; E. Schubert
and P. J. Rousseeuw, Fast and eager k-medoids clustering, Information Systems 101 (2021), for the search.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcluster.cluster.kmedoids.distances import (
    PRECOMPUTED,
    all_pairs,
    check_medoid_rows,
    check_memory,
    check_precomputed,
    distance_degree,
    distances_to,
    host_matrix,
    medoid_distances,
    rows_of_medoids,
)
from jaxcluster.cluster.kmedoids.fasterpam import (
    INITS,
    WeightedDistances,
    build,
    fasterpam,
    fasterpam_in_chunks,
    random_medoids,
)
from jaxcluster.core import chunks, memory, signals, validation
from jaxcluster.core.batching import best_run
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import float_dtype, publish, published_dtype
from jaxcluster.core.frame import Frame
from jaxcluster.core.iterate import history_capacity, status_with
from jaxcluster.core.padding import padded_clusters
from jaxcluster.core.preparation import Prepared, padded_size, prepare, unpad
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.ops.distance import TRANSLATION_INVARIANT, plain_metric
from jaxcluster.ops.gower import gower
from jaxcluster.ops.metric_space import (
    checked_distances,
    float64_tables,
    host_distance,
    standardized_rows,
    tiles,
    unit_rows,
)
from jaxcluster.ops.sparse_distance import distances_to_all
from jaxcluster.types import Absent, Array, Fit, Float, Int, KeyArray, Published, Status

HOST_WORK = 1 << 22
"""Differences, n²·d, up to which the host computes the distances of all pairs, in float64."""

EXPLICIT = "explicit"
"""Name of an init by row numbers."""


class KMedoidsState(NamedTuple):
    """Fitted medoids.

    Attributes:
        medoids: (k,) int32 row numbers of the medoids, all different.
        centers: (k, d) rows of the medoids, bit for bit; None for precomputed distances.
        loss: () Σ w·d(x, medoid), in the units of the metric.
        weight: (k,) total weight of the rows of each cluster.
        residual: () decrease of the loss in the last round of swaps; 0 at a local optimum.
    """

    medoids: Int[Array, "*batch k"]
    centers: Any
    loss: Float[Published, "*batch"]
    weight: Float[Published, "*batch k"]
    residual: Float[Published, "*batch"]

    @property
    def objective(self) -> Float[Published, "*batch"]:
        """Loss, by which runs are compared."""
        return self.loss


class SearchOptions(NamedTuple):
    """Options that change the program of the search, unlike the metric and the width of the rows.

    Attributes:
        k: number of clusters.
        init: one of `INITS`, or `EXPLICIT`.
        number: number of runs.
        capacity: rounds that the history holds.
    """

    k: int
    init: str
    number: int
    capacity: int


class MetricSpec(NamedTuple):
    """Metric, and the power of "minkowski"."""

    metric: str | Callable
    p: float


class ProblemScale(NamedTuple):
    """Unit of a float32 problem.

    Attributes:
        frame: frame of the rows, or of their distances alone.
        length: degree of distances in the unit of the frame.
        narrowed: True if rows may have lost digits on their way into the frame.
    """

    frame: Frame
    length: int
    narrowed: bool = False

    def to_original(self, value: Any) -> Any:
        """Sums of weighted distances in the caller's units."""
        return self.frame.unscale(value, length=self.length, weight=1)


class Problem(NamedTuple):
    """Problem on the device, padded to a bucket with rows of weight 0.

    Attributes:
        x: (n, d) rows; None for precomputed distances.
        distances: (n, n) distances; None if they are computed from rows.
        weight: (n,) row weights.
    """

    x: Float[Array, "n d"] | Absent
    distances: Float[Array, "n n"] | Absent
    weight: Float[Array, " n"]


@signals.keeping_result()
def fit(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    metric: str | Callable = "euclidean",
    p: float = 2.0,
    init: Any = "build",
    weights: Any = None,
    tol: Any = 0.0,
    max_steps: Any = 100,
    n_init: int = 1,
) -> Fit:
    """Cluster samples around k of them, to a local optimum of swaps of one medoid (FasterPAM).

    Holds the (n_samples, n_samples) distances in float32 (in float64 for float64 samples under JAX's x64 mode); `clara`
    is for more samples. Works under jit for traced samples. The loss has its exact gradient with respect to samples, or
    distances, and weights, at fixed labels and medoids.

    Args:
        key: random key for "random"; "build" is deterministic.
        x: (n_samples, n_features) samples, also sparse for Euclidean and cosine distances; or (n_samples, n_samples)
            dense, finite and symmetric distances for the metric "precomputed".
        k: number of clusters, static, 1 <= k <= n_samples.
        metric: a name in `jaxcluster.ops.distance.METRICS`, "precomputed", or a symmetric function of two matrices of
            rows, (m, d) and (n, d), that returns (m, n) distances. For traced samples it must be traceable.
        p: the power of "minkowski", at least 1.
        init: "build" (greedy), "random" (distinct rows by weight), or (k,) numbers of different rows.
        weights: (n_samples,) non-negative sample weights; a weight of 2 is the sample twice, and a sample of weight 0
            gets a label but neither counts nor becomes a medoid. None for 1 each.
        tol: stop when a round over all samples lowers the loss by at most tol × the initial loss. Traced.
        max_steps: the largest number of rounds. Traced.
        n_init: number of random initializations, of which the least loss wins.

    Returns:
        `Fit` with a `KMedoidsState`, labels (n_samples,) int32, steps (rounds), status and the loss after each round.
        Status EMPTY_CLUSTERS means fewer distinct samples than clusters; PRECISION means that samples are nearer to
        their medoids than float32 resolves, so that others of them may be better medoids.

    Raises:
        ValueError, TypeError: wrong shapes, values or names, before anything is traced.
        MemoryError: the distances of all pairs would not fit.
    """
    key = validation.check_key(key)
    metric = check_options(metric, p, tol, max_steps)
    x = check_precomputed(x) if is_precomputed(metric) else check_medoid_rows(x)
    n = x.shape[0]
    k = validation.check_clusters(k, n)
    name, start = check_init(init, k, n, weights)
    runs = validation.check_count("n_init", n_init) if name == "random" else 1
    problem, spec, scale = build_problem(x, weights, MetricSpec(metric, float(p)), k)
    rows, count = problem.weight.shape[0], jnp.int32(k)
    padded = None if name == EXPLICIT else padded_clusters(k, rows, rows * rows / 8, key, problem, tol, max_steps)
    config = SearchOptions(padded or k, name, runs, history_capacity(max_steps))
    arguments = config, key, weighted_distances(spec, problem), start, count, tol, max_steps
    long = chunks.is_long(runs * n * n * config.k, max_steps, *arguments[1:-1])
    fitted = solve_in_chunks(*arguments) if long else _run(*arguments)
    fitted = _finalize(spec, config, problem, fitted, count)
    medoids, weight = unpad(fitted.state.medoids, k), unpad(fitted.state.weight, k)
    fitted = fitted._replace(state=fitted.state._replace(medoids=medoids, weight=weight))
    return to_public(fitted, x, weights, MetricSpec(metric, float(p)), scale)


def build_problem(x, weights, spec: MetricSpec, k: int) -> tuple[Problem, MetricSpec, ProblemScale]:
    """Checked problem on the device, in a unit in which most rows or distances are about 1.

    Returns:
        The problem, the metric to compute its distances with, and its scale.
    """
    n, dtype, metric = x.shape[0], float_dtype(x.dtype), spec.metric
    traced = validation.is_traced(x, weights)
    if weights is not None and not validation.is_traced(weights):
        weights = validation.check_weights(weights, n)
        check_positive_weights(weights, k)
    check_memory(n, n if traced else padded_size(n), dtype, precomputed=is_precomputed(metric))
    if traced:
        return _build_traced(x, weights, spec, dtype)
    if is_sparse(x):
        memory.check_centers(k, x.shape[1], dtype)
    elif not is_precomputed(metric):
        validation.check_finite(x)
        if not callable(metric) and x.size * n > HOST_WORK and (framed := rows_in_frame(x, weights, metric)):
            prepared, metric = framed
            problem = Problem(prepared.points.x, None, prepared.points.weight)
            return problem, MetricSpec(metric, spec.p), problem_scale(prepared, spec.metric, metric)
    x = x if is_sparse(x) else np.asarray(x)
    weighted = prepare(np.zeros((n, 1), dtype), weights)
    size = weighted.points.weight.shape[0]
    if metric is gower and x.size * n > HOST_WORK:
        # Encoded rows are in [0, 1], or whole numbers: float32 distances are off by at most 1e-7.
        rows = jax.device_put(np.pad(x.astype(np.float32), ((0, size - n), (0, 0))))
        return Problem(rows, None, weighted.points.weight), spec, ProblemScale(weighted.frame, 0)
    table, exponent = host_matrix(_distances_of_rows(x, spec), n, size, dtype)
    frame = weighted.frame._replace(exponent=exponent)
    return Problem(None, table, weighted.points.weight), spec, ProblemScale(frame, 1)


def rows_in_frame(x, weights, metric: str, mesh: Mesh | None = None) -> tuple[Prepared, str] | None:
    """Concrete rows in a frame, spread over a mesh; where it spans processes, each has all rows.

    Returns:
        The prepared rows, and the metric for them; None for metrics that no translation leaves unchanged.
    """
    if metric in TRANSLATION_INVARIANT:
        return prepare(x, weights, mesh=mesh, gathered=True), metric
    if metric in ("cosine", "correlation"):
        # 1 − cos is half the squared distance of unit rows, which may be translated. Rows of zeros have no direction.
        unit = unit_rows(np.asarray(x)) if metric == "cosine" else standardized_rows(np.asarray(x))
        if unit.any(axis=1).all():
            return prepare(np.sqrt(0.5) * unit, weights, mesh=mesh, gathered=True), "sqeuclidean"
    return None


def problem_scale(prepared: Prepared, metric: str | Callable, inside: str | Callable) -> ProblemScale:
    """Scale of rows in a frame, where ``inside`` is computed in place of ``metric``."""
    return ProblemScale(prepared.frame, distance_degree(inside), prepared.narrowed and metric in TRANSLATION_INVARIANT)


def _build_traced(x, weights, spec, dtype):
    x, metric = jnp.asarray(x).astype(dtype), spec.metric
    if not is_precomputed(metric) and metric in TRANSLATION_INVARIANT:
        prepared = prepare(x, weights)
        problem = Problem(prepared.points.x, None, prepared.points.weight)
        return problem, spec, ProblemScale(prepared.frame, distance_degree(metric))
    weight = jnp.ones_like(x[:, 0]) if weights is None else jnp.asarray(weights).astype(dtype)
    rows, table = (None, x) if is_precomputed(metric) else (x, None)
    return Problem(rows, table, weight), spec, ProblemScale(Frame(jnp.zeros((1,), dtype)), 0)


def _distances_of_rows(x, spec):
    """Function (m,) row numbers -> (m, n) float64 distances to all rows."""
    if is_precomputed(spec.metric):
        return lambda index: x[index].astype(np.float64)
    if is_sparse(x):
        return distances_to_all(x, spec.metric)
    (rows,) = float64_tables(spec.metric, x)
    function = host_distance(spec.metric, rows, p=spec.p)
    return lambda index: checked_distances(function, rows[index], rows, index)


def to_public(fitted: Fit, x, weights, spec: MetricSpec, scale: ProblemScale, counts=None) -> Fit:
    """Fit in the caller's units, with labels of the real rows, and the medoids' rows as in the input.

    For concrete rows labels, loss and weights are computed anew from float64 distances to the medoids, as in `predict`:
    the search resolves distances in float32 only.

    Args:
        fitted: the fit in the unit of the problem.
        x: rows or distances of the caller.
        weights: as in `fit`.
        spec: the caller's metric.
        scale: scale of the problem.
        counts: number of medoids of each of several fits; those beyond are −1.
    """
    state, metric = fitted.state, spec.metric
    history, residual = scale.to_original(fitted.history), scale.to_original(state.residual)
    if validation.is_traced(fitted, x, weights):
        active = (state.medoids >= 0)[..., None]
        rows = None if is_precomputed(metric) else jnp.where(active, jnp.asarray(x)[state.medoids], 0)
        rows = rows if rows is None else rows.astype(state.loss.dtype)
        weight = scale.frame.unscale(state.weight, weight=1)
        state = KMedoidsState(state.medoids, rows, scale.to_original(state.loss), weight, residual)
        return fitted._replace(state=state, labels=unpad(fitted.labels, x.shape[0]), history=history)
    x, n, medoids = x if is_sparse(x) else np.asarray(x), x.shape[0], np.asarray(state.medoids)
    weights = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    flat = medoids.reshape(-1, medoids.shape[-1])
    counts = [flat.shape[1]] * len(flat) if counts is None else counts
    each = [assign_medoids(medoids[:count], x, weights, spec) for medoids, count in zip(flat, counts, strict=True)]
    batch = medoids.shape[:-1]
    labels = np.stack([own for own, _, _ in each]).reshape(*batch, n)
    losses = np.array([loss for _, loss, _ in each]).reshape(batch)
    heavy = np.stack([np.pad(weight, (0, flat.shape[1] - len(weight))) for _, _, weight in each]).reshape(medoids.shape)
    empty = np.array([(weight <= 0).any() for _, _, weight in each]).reshape(batch)
    ended = np.asarray(fitted.status)
    status = np.where(empty & (ended != Status.INTERRUPTED), Status.EMPTY_CLUSTERS, ended)
    if scale.narrowed:
        origin = np.asarray(scale.frame.origin, np.float64)[None, :]
        rows = x[weights > 0]
        coarse = [
            _rounding_hides_medoid(rows, x[medoids[:count]], origin, spec)
            for medoids, count in zip(flat, counts, strict=True)
        ]
        sound = np.isin(status, (Status.CONVERGED, Status.MAX_STEPS, Status.EMPTY_CLUSTERS))
        status = np.where(sound & np.array(coarse).reshape(batch), Status.PRECISION, status)
    integers = is_precomputed(metric) and x.dtype.kind != "f"
    dtype = np.dtype(np.float64) if integers else published_dtype(x.data if is_sparse(x) else x)
    with np.errstate(over="ignore"):
        # The public dtype may overflow where float64 does not.
        finite = np.isfinite(losses.astype(dtype))
    status = jax.device_put(np.where(finite, status, Status.NOT_FINITE).astype(np.int32))
    centers = None if is_precomputed(metric) else rows_of_medoids(x, medoids)
    state = KMedoidsState(
        state.medoids,
        centers if centers is None else publish(centers, x.dtype),
        publish(losses, dtype),
        publish(heavy, dtype),
        residual,
    )
    return fitted._replace(state=state, labels=jax.device_put(labels), history=history, status=status)


def assign_medoids(medoids: np.ndarray, x: Any, weights: np.ndarray, spec: MetricSpec):
    """Labels of concrete rows, or of rows of distances.

    Returns:
        (n,) int32 labels; the loss; (k,) weights of the clusters.
    """
    labels, nearest = np.empty(x.shape[0], np.int32), np.empty(x.shape[0])
    for index in tiles(x.shape[0], len(medoids)):
        if is_precomputed(spec.metric):
            distances = x[index][:, medoids].astype(np.float64)
        else:
            distances = distances_to(spec.metric, x[index], x[medoids], p=spec.p)
        labels[index], nearest[index] = distances.argmin(axis=1), distances.min(axis=1)
    with np.errstate(over="ignore"):
        return labels, np.float64(weights @ nearest), np.bincount(labels, weights, len(medoids))


def _rounding_hides_medoid(x, medoids, origin, spec):
    """True if float32 rounding in the frame may exceed the distance of a row to its medoid.

    A row is rounded by about eps times its distance from the origin. If it is nearer than that to its medoid, the
    search cannot tell which of the two is the better medoid.
    """
    root = np.sqrt if spec.metric == "sqeuclidean" else np.asarray
    for index in tiles(len(x), len(medoids)):
        own = root(distances_to(spec.metric, x[index], medoids, p=spec.p).min(axis=1))
        rounding = root(distances_to(spec.metric, x[index], origin, p=spec.p)[:, 0])
        if ((own > 0) & (own < np.finfo(np.float32).eps * rounding)).any():
            return True
    return False


_all_pairs = persistent_jit(all_pairs, static_argnums=(1, 2))


def weighted_distances(spec: MetricSpec, problem: Problem) -> WeightedDistances:
    """Distances of a problem, constant for gradients."""
    constant: Problem = jax.lax.stop_gradient(problem)
    return WeightedDistances(
        _all_pairs(constant.x, *spec) if constant.distances is None else constant.distances, constant.weight
    )


# Compiled apart from the distances: rows of any width, under any metric, share this program.
@persistent_jit(static_argnums=0)
def _run(config, key, table, start, count, tol, max_steps):
    return solve(config, key, table, start, count, tol, max_steps)


def solve_in_chunks(
    config: SearchOptions, key, table: WeightedDistances, start, count: Int[Array, ""], tol, max_steps
) -> Fit:
    """`solve` of a concrete table, one start after the other, which Ctrl-C can end."""

    def run(key):
        medoids = _compiled_medoids(config._replace(number=1), key, table, start)
        limits = {"tol": tol, "max_steps": max_steps, "capacity": config.capacity}
        return fasterpam_in_chunks(table, medoids, count, **limits)

    fitted = chunks.best_of_starts(run, key, config.number)
    return fitted._replace(state=fitted.state._replace(members=None))


@persistent_jit(static_argnums=(0, 1))
def _finalize(spec, config, problem, fitted, count):
    medoids, labels = fitted.state.medoids, fitted.state.near.labels
    return finalize(spec, config.k, problem, fitted, medoids, labels, count)


def solve(config: SearchOptions, key, table: WeightedDistances, start, count: Int[Array, ""], tol, max_steps) -> Fit:
    """Best of all runs with the first ``count`` of k medoids, in the unit of the problem."""

    def run(key):
        medoids = initial_medoids(config, key, table, start)
        return fasterpam(table, medoids, count, tol=tol, max_steps=max_steps, capacity=config.capacity)

    fitted = best_run(run, key, config.number)
    # The (k, n) member weights are needed by the search only.
    return fitted._replace(state=fitted.state._replace(members=None))


def initial_medoids(config: SearchOptions, key, table: WeightedDistances, start) -> Int[Array, " k"]:
    """Medoids that the search begins with."""
    if config.init == EXPLICIT:
        return start
    return build(table, config.k) if config.init == "build" else random_medoids(key, table.weight, config.k)


_compiled_medoids = persistent_jit(initial_medoids, static_argnums=0)


def finalize(spec: MetricSpec, k: int, problem: Problem, fitted: Fit, medoids, labels, count) -> Fit:
    """Fit with the state of the public type: loss with gradients, weights and status; inactive medoids are −1."""
    index = medoids[labels]
    if problem.distances is None:
        own = medoid_distances(problem.x, index, *spec)
    else:
        own = problem.distances[index, jnp.arange(index.shape[0], dtype=jnp.int32)]
    loss = jnp.sum(problem.weight * own)
    weight = jax.ops.segment_sum(problem.weight, labels, k)
    active = jnp.arange(k, dtype=jnp.int32) < count
    empty = jnp.any(active & (weight <= 0))
    status = status_with(fitted.status, incomplete=empty, objective=loss)
    state = KMedoidsState(jnp.where(active, medoids, -1), None, loss, weight, fitted.state.residual)
    return Fit(state, labels, fitted.steps, status, fitted.history)


def is_precomputed(metric: Any) -> bool:
    """True for the metric "precomputed"."""
    return isinstance(metric, str) and metric == PRECOMPUTED


def check_options(metric, p, tol, max_steps) -> str | Callable:
    """Plain name of the metric; raises for options that all fits have and that are out of range."""
    validation.check_positive("tol", tol, zero=True)
    validation.check_positive("max_steps", max_steps)
    return plain_metric(metric, p, also=(PRECOMPUTED,))


def check_positive_weights(weights: np.ndarray, k: int) -> None:
    """Raise ValueError if fewer than k rows have a positive weight, as only these become medoids."""
    if (weighty := int(np.count_nonzero(weights))) < k:
        raise ValueError(f"k={k} medoids were asked for, but only {weighty} rows have a weight above 0. Pass fewer.")


def check_init(init: Any, k: int, n: int, weights: Any) -> tuple[str, Int[Array, " k"] | None]:
    """Check an initialization.

    Returns:
        Its name, and (k,) medoids for row numbers or None.

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
    return EXPLICIT, jnp.asarray(init, jnp.int32)

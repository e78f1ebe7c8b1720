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
from jaxcluster.core import check
from jaxcluster.core.iterate import history_capacity, status_with
from jaxcluster.core.restart import best_of, many
from jaxcluster.core.rows import bucket, float_dtype, place, trim
from jaxcluster.ops.pairwise import measure
from jaxcluster.types import Array, Fit, Float, Int, KeyArray

GIVEN = "given"


class KMedoidsState(NamedTuple):
    """A finished k-medoids.

    Attributes:
        medoids: (k,) int32 which rows are the medoids, all different.
        centers: (k, d) those rows; None where only distances are known.
        loss: () Σ w·d(x, medoid), in the units of the metric, not squared.
        weight: (k,) total weight of the rows of each cluster.
        residual: () what the last round of swaps lowered the loss by; 0 where no single swap lowers it.
    """

    medoids: Int[Array, "*batch k"]
    centers: Float[Array, "*batch k d"] | None
    loss: Float[Array, "*batch"]
    weight: Float[Array, "*batch k"]
    residual: Float[Array, "*batch"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
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
        weights: (n,) non-negative row weights; a weight of 2 is the row twice, and a row of weight 0 is labelled but
            neither counts nor becomes a medoid. None for 1 each.
        tol: stop when a round over all rows lowers the loss by at most tol × the loss of the start. Traced.
        max_steps: the most rounds. Traced.
        n_init: runs from different random starts, of which the least loss wins.

    Returns:
        `Fit` with a `KMedoidsState`, labels (n,) int32, steps (rounds), status and the loss after each round. Status
        EMPTY_CLUSTERS says that there were fewer distinct rows than clusters.

    Raises:
        ValueError, TypeError: wrong shapes, values or names, before anything is traced.
        MemoryError: n×n distances would not fit.
    """
    check_options(metric, p, tol, max_steps)
    x = matrix.checked_matrix(x) if is_precomputed(metric) else check.check_matrix(x)
    n = x.shape[0]
    k = check.check_clusters(k, n)
    name, start = check_init(init, k, n, weights)
    runs = check.check_count("n_init", n_init) if name == "random" else 1
    measure, problem = Measure(metric, float(p)), pose(x, weights, metric, k)
    runs = Runs(k, name, runs, history_capacity(max_steps))
    fitted = _run(runs, key, table_of(measure, problem), start, tol, max_steps)
    return publish(_finish(measure, runs, problem, fitted), x, metric)


def pose(x, weights, metric, k: int) -> Problem:
    """Checked rows or distances, placed: where the metric is a function, it is asked here for concrete rows."""
    n, dtype = x.shape[0], float_dtype(x.dtype)
    traced = check.is_traced(x, weights)
    if weights is not None and not check.is_traced(weights):
        weights = check.check_weights(weights, n)
        check_weighty(weights, k)
    matrix.check_memory(n if traced else bucket(n), dtype)
    if is_precomputed(metric) or (callable(metric) and not check.is_traced(x)):
        size = n if traced else bucket(n)
        weight = jnp.ones((n,), dtype) if weights is None else jnp.asarray(weights, dtype)
        weight = weight if traced else jax.device_put(np.pad(np.asarray(weight), (0, size - n)))
        if check.is_traced(x):
            return Problem(None, x.astype(dtype), weight)
        measured = x if is_precomputed(metric) else measure(x, metric)
        return Problem(None, matrix.host_matrix(measured, size, dtype), weight)
    points = place(x, weights, center=matrix.centered(metric)).points
    return Problem(points.x, None, points.weight)


def publish(fitted: Fit, x, metric) -> Fit:
    """The fit with labels of the real rows, and with the medoids' rows as the caller has them."""
    state, labels = fitted.state, trim(fitted.labels, x.shape[0])
    if not is_precomputed(metric):
        traced = check.is_traced(x, state.medoids)
        rows = jnp.asarray(x)[state.medoids] if traced else np.asarray(x)[np.asarray(state.medoids)]
        centers = jnp.asarray(rows, state.loss.dtype)
        state = state._replace(centers=jnp.where((state.medoids >= 0)[..., None], centers, 0))
    return fitted._replace(state=state, labels=labels)


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

    fitted = run(key) if runs.number == 1 else best_of(many(run, jax.random.split(key, runs.number)))
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
        own = problem.distances[index, jnp.arange(index.shape[0])]
    loss = jnp.sum(problem.weight * own)
    weight = jax.ops.segment_sum(problem.weight, labels, k)
    taking_part = jnp.arange(k) < count
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


def check_options(metric, p, tol, max_steps) -> None:
    """Raises on options that all fits have."""
    matrix.check_metric(metric, p)
    check.check_positive("tol", tol, zero=True)
    check.check_positive("max_steps", max_steps)


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
        check.check_choice("init", init, INITS)
        return init, None
    shape, dtype = np.shape(init), getattr(init, "dtype", None) or np.asarray(init).dtype
    if shape != (k,) or dtype.kind not in "iu":
        raise ValueError(
            f"init must be 'build', 'random' or ({k},) row numbers, integers, got shape {shape} of {dtype}."
        )
    if not check.is_traced(init):
        init = np.asarray(init)
        if init.min() < 0 or init.max() >= n or np.unique(init).size < k:
            raise ValueError(f"init={init.tolist()} must be {k} different row numbers from 0 to {n - 1}.")
        if weights is not None and not check.is_traced(weights) and not (np.asarray(weights)[init] > 0).all():
            raise ValueError(f"init={init.tolist()} holds rows of weight 0, which cannot be medoids. Pass others.")
    return GIVEN, jnp.asarray(init, jnp.int32)

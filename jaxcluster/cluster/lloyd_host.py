"""Lloyd's iteration with an assignment step on the host: for constrained assignments, which have no fixed shape.

If every assignment costs at most what the one before costs for the new centers, the inertia never rises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from jaxcluster.cluster.kmeans_state import padded_number
from jaxcluster.cluster.lloyd import inertia_of, mean_variance
from jaxcluster.cluster.precision import unresolved_about_means
from jaxcluster.cluster.seeding import FROM_CENTERS, CenterConstraints, check_centers, seed_centers
from jaxcluster.core import memory, signals, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.fold import all_reduce
from jaxcluster.core.iterate import history_capacity, status_with
from jaxcluster.core.padding import pad_active, padded_tol
from jaxcluster.core.preparation import Prepared
from jaxcluster.core.processes import whole
from jaxcluster.core.shard import axis_of, rows_of, solve_over_rows
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.distance import DIFFERENCE_COLUMNS, refined_sqeuclidean, sqeuclidean, squared_norms
from jaxcluster.types import Array, Bool, Fit, Float, KeyArray, Status

Assign = Callable[[Any, Any], tuple[np.ndarray, Any]]
"""(centers, warm start of the last assignment, None at first) -> (n,) labels, warm start of the next assignment.

It calls `signals.check_stopped` where it may take long."""

COST_BYTES = 40
"""Bytes for each sample and cluster at the peak of an assignment (measured)."""


class HostProblem(NamedTuple):
    """Checked arguments of a fit.

    Attributes:
        key: random key of the initialization.
        x: (n, d) concrete samples.
        k: number of clusters.
        init: name of the initialization.
        constraints: the centers of the caller, if it has any.
        runs: number of runs.
    """

    key: KeyArray
    x: Any
    k: int
    init: str
    constraints: CenterConstraints
    runs: int


class HostLloydState(NamedTuple):
    """State of an iteration on the host.

    Attributes:
        centers: (k, d) in the frame of the samples.
        labels: (n,) int32.
        warm_start: of the next assignment.
        inertia: of these labels and centers.
        residual: Σ‖Δc‖² of the last step (data units²); 0 if it changed no label, or could not lower the inertia.
        history: the inertia after each step.
    """

    centers: np.ndarray
    labels: np.ndarray
    warm_start: Any
    inertia: float
    residual: float
    history: tuple


def run_lloyd(
    prepared: Prepared, assign: Assign, starts: list, *, tol: Any, max_steps: Any
) -> tuple[HostLloydState, np.int32]:
    """Iterate from each of several initial centers.

    Args:
        prepared: samples in their frame.
        assign: assignment step.
        starts: (k, d) initial centers of each run.
        tol: stop when Σ‖Δc‖² <= tol × the mean variance of the features.
        max_steps: maximum number of steps of a run.

    Returns:
        The run of least inertia, and its status; Ctrl-C ends the runs with the best so far.
    """
    columns, d = prepared.points.x.shape[1], len(prepared.frame.origin)
    limit = float(padded_tol(float(tol), columns, d)) * float(_over_rows(_variance, _Static(), prepared.points))
    runs = []
    for start in starts:
        try:
            runs.append(_run(prepared, assign, start, limit, max_steps))
        except signals.Stopped:  # in the first assignment of a run
            if not runs:
                raise
        if signals.interrupted():
            break
    # NaN compares as neither less nor greater: such a run must not win by coming first.
    best = min(runs, key=lambda run: run.inertia if np.isfinite(run.inertia) else np.inf)
    unfinished = any(run.residual > limit and len(run.history) < max_steps for run in runs)
    if unfinished or len(runs) < len(starts):
        return best, np.int32(Status.INTERRUPTED)
    return best, np.int32(Status.MAX_STEPS if best.residual > limit else Status.CONVERGED)


def check_problem(
    key: Any, x: Any, k: Any, *, init: Any, n_init: Any, tol: Any, max_steps: Any, weights: Any = None
) -> HostProblem:
    """Checked arguments of a fit; traced ones, weights among them, are refused."""
    key = validation.check_key(key)
    refuse_traced(key, x, weights, init, tol, max_steps)
    x = validation.check_matrix(x)
    k = validation.check_clusters(k, x.shape[0])
    validation.check_positive("tol", tol, zero=True)
    validation.check_positive("max_steps", max_steps)
    name, constraints = check_centers(init, None, None, k, x.shape[1])
    return HostProblem(key, x, k, name, constraints, validation.check_count("n_init", n_init))


def initial_centers(prepared: Prepared, problem: HostProblem) -> list[np.ndarray]:
    """Initial centers of each run, in the frame of the samples; one run from centers of the caller."""
    k, init, columns = problem.k, problem.init, prepared.points.x.shape[1]
    if init == FROM_CENTERS:
        return [np.asarray(problem.constraints.enter(prepared.frame, columns=columns).initial)]
    keys = [problem.key] if problem.runs == 1 else jax.random.split(problem.key, problem.runs)
    padded = padded_number(k, prepared, init, _mesh_of(prepared.points), problem.key)
    static, active = _Static(padded or k, init), None if padded is None else pad_active(None, k, padded)
    return [np.asarray(_over_rows(_seed, static, prepared.points, each, active))[:k] for each in keys]


def fit_of(
    state: Any, run: HostLloydState, status: np.int32, weight: np.ndarray, max_steps: Any, offset: float = 0.0
) -> Fit:
    """The fit in the frame of the samples.

    Args:
        state: of the method.
        run: the best one.
        status: of the runs. Clusters without weight, or an inertia that is not finite, take its place.
        weight: (k,) of the clusters.
        max_steps: capacity of the history.
        offset: added to its inertias.
    """
    ended = _status_with(status, state.inertia, (weight <= 0).any())
    history = _padded_history(run, max_steps, offset)
    return Fit(state, jax.device_put(run.labels), jax.device_put(np.int32(len(run.history))), ended, history)


def _padded_history(run: HostLloydState, max_steps: Any, offset: float = 0.0) -> Float[Array, " capacity"]:
    """Inertia after each step in the frame, plus ``offset``; 0 after the last step."""
    history = np.zeros(history_capacity(max_steps), run.centers.dtype)
    history[: len(run.history)] = np.add(run.history, offset)
    return jax.device_put(history)


def unresolved_of(prepared: Prepared, run: HostLloydState) -> Bool[Array, " n"] | None:
    """Mask of `precision.unresolved_samples`, or None where the frame rounded none."""
    if not prepared.narrowed:
        return None
    centers, labels = _padded_centers(run.centers, prepared), _padded(run.labels, prepared)
    return whole(unresolved_about_means(prepared.points, centers, labels))


def check_costs(n: int, k: int) -> None:
    """Raise MemoryError where the (n, k) costs and the edges of their assignment take too much memory."""
    subject = f"the costs of {n:,} rows in {k:,} clusters"
    memory.check(COST_BYTES * n * k, subject, "Lower k, or pass fewer rows.")


def squared_distances(prepared: Prepared, centers: np.ndarray) -> np.ndarray:
    """(n, k) squared distances of the samples to centers in their frame, on the host.

    Distances beyond the range of the dtype become its largest number: they are ordered all the same, and the inertia
    of such a fit is not finite, which its status says.
    """
    costs = np.asarray(whole(_sqeuclidean(prepared.points.x, _padded_centers(centers, prepared))))
    costs = np.ascontiguousarray(costs[: prepared.n, : len(centers)])
    if np.isfinite(costs).all():
        return costs
    largest = np.finfo(costs.dtype).max
    return np.nan_to_num(costs, nan=largest, posinf=largest)


def refuse_traced(*values: Any) -> None:
    """Raise TypeError where a value is traced."""
    if validation.is_traced(*values):
        raise TypeError(
            "An argument is traced, and this method takes concrete rows: its search for an assignment under "
            "constraints is no program of fixed shape, and its labels have no gradient. Call it outside jit, vmap and "
            "grad, or take sinkhorn.solve, whose soft plan with given column weights can be traced and differentiated."
        )


def _run(prepared, assign, centers, limit, max_steps):
    labels, warm_start = assign(centers, None)
    run = HostLloydState(centers, labels, warm_start, _inertia_of(prepared, centers, labels), np.inf, ())
    while len(run.history) < max_steps and run.residual > limit and not signals.interrupted():
        static, labels = _Static(uniform=prepared.unit_weights), _padded(run.labels, prepared)
        before = _padded_centers(run.centers, prepared)
        means, shift = _over_rows(_means, static, prepared.points, before, labels=labels)
        centers = np.asarray(means)[: len(centers)]
        try:
            labels, warm_start = assign(centers, run.warm_start)
        except signals.Stopped:  # a step may take minutes: the state before it is the result
            continue
        inertia = _inertia_of(prepared, centers, labels)
        unchanged = np.array_equal(labels, run.labels)
        if unchanged or inertia < run.inertia:
            # The new centers are the means of the same labels, whatever rounding makes of the inertia.
            inertia, residual = min(inertia, run.inertia), 0.0 if unchanged else float(shift)
            run = HostLloydState(centers, labels, warm_start, inertia, residual, (*run.history, inertia))
        else:
            # Other labels of the same cost, or rounding: the iteration would cycle through them.
            run = run._replace(residual=0.0, history=(*run.history, run.inertia))
    return run


def _padded(labels, prepared):
    """Labels with label 0 for padding, which weighs nothing."""
    return np.pad(labels, (0, prepared.points.weight.shape[0] - prepared.n))


def _padded_centers(centers, prepared):
    """Centers followed by copies, to which no label belongs, up to `padded_clusters`."""
    k = len(centers)
    padded = padded_number(k, prepared, FROM_CENTERS, _mesh_of(prepared.points)) or k
    return np.pad(centers, ((0, padded - k), (0, 0)), mode="edge")


def _inertia_of(prepared, centers, labels):
    labels, centers = _padded(labels, prepared), _padded_centers(centers, prepared)
    return float(_over_rows(_inertia, _Static(), prepared.points, centers, labels=labels))


@persistent_jit
def _status_with(status, objective, incomplete):
    return status_with(status, objective=objective, incomplete=incomplete)


class _Static(NamedTuple):
    """Static options of the programs of a step."""

    k: int = 0
    init: str = ""
    uniform: bool = False
    axis_name: str | None = None


def _mesh_of(points) -> Any:
    """Mesh over whose devices samples are spread; None for one device."""
    sharding = points.x.sharding
    return sharding.mesh if isinstance(sharding, NamedSharding) else None


def _over_rows(program, static, points, *whole, labels=None):
    """Result of ``program(static, points, *labels, *whole)``, where the samples lie: on a device, or over a mesh."""
    arguments = points, *(() if labels is None else (labels,))
    mesh = _mesh_of(points)
    if mesh is None:
        return _compiled(program, static, *arguments, *whole)
    specs = rows_of(mesh)
    in_specs = *[specs.row for _ in arguments], *[specs.whole for _ in whole]
    static = static._replace(axis_name=axis_of(mesh))
    return solve_over_rows(program, static, mesh, in_specs, specs.whole, *arguments, *whole)


@persistent_jit(static_argnums=(0, 1))
def _compiled(program, static, *arguments):
    return program(static, *arguments)


def _seed(static, points, key, active):
    return seed_centers(key, points, static.k, init=static.init, active=active, axis_name=static.axis_name)


def _variance(static, points):
    return mean_variance(points, squared_norms(points.x), axis_name=static.axis_name)


def _inertia(static, points, labels, centers):
    return inertia_of(points, centers, labels, axis_name=static.axis_name)


def _means(static, points, labels, centers):
    """Mean of each cluster's samples, or its center where it has none, and Σ‖Δc‖²."""
    sums = cluster_sums(points, labels, centers.shape[0], uniform=static.uniform)
    sums, weight = all_reduce(sums, static.axis_name)
    occupied = weight[:, None] > 0
    means = jnp.where(occupied, sums / jnp.where(occupied, weight[:, None], 1), centers)
    return means, jnp.sum(jnp.square(means - centers))


@persistent_jit
def _sqeuclidean(x, centers):
    """Squared distances, from differences where a product is too rounded.

    Products are expanded about the origin of the frame, near which the samples are.
    """
    return sqeuclidean(x, centers) if x.shape[1] <= DIFFERENCE_COLUMNS else refined_sqeuclidean(x, centers)

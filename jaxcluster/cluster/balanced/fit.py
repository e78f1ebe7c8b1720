"""Balanced k-means: Lloyd's iteration with bounds on cluster sizes, and its assignment alone.

Each assignment is the exact optimum under the bounds, so the inertia never rises.

Source: P. S. Bradley, K. P. Bennett and A. Demiriz, Constrained k-means clustering, Microsoft Research
MSR-TR-2000-65, for the iteration; see `dual_newton` and `shortest_paths` for the assignment.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcluster.cluster.balanced.dual_newton import check_sizes
from jaxcluster.cluster.balanced.shortest_paths import solve_assignment
from jaxcluster.cluster.lloyd_host import (
    check_costs,
    check_problem,
    fit_of,
    initial_centers,
    refuse_traced,
    run_lloyd,
    squared_distances,
    unresolved_of,
)
from jaxcluster.cluster.precision import with_precision_status
from jaxcluster.core import signals, validation
from jaxcluster.core.frame import Frame
from jaxcluster.core.preparation import finalize, prepare
from jaxcluster.core.processes import gather_parts, keep_own_labels
from jaxcluster.core.shard import check_mesh
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Published


class BalancedState(NamedTuple):
    """A finished balanced k-means.

    Attributes:
        centers: (k, d) cluster centers.
        inertia: () Σ‖x − c‖² (data units²), the least for these centers of any labels within the bounds.
        sizes: (k,) int32 number of samples of each cluster.
        residual: () Σ‖Δc‖² of the last step (data units²); 0 if it changed no label, or could not lower the inertia.
    """

    centers: Float[Published, "k d"]
    inertia: Float[Published, ""]
    sizes: Int[Array, " k"]
    residual: Float[Published, ""]

    @property
    def objective(self) -> Float[Published, ""]:
        """The inertia, by which runs are compared."""
        return self.inertia

    def leave(self, frame: Frame) -> BalancedState:
        """The state in the caller's coordinates."""
        inertia, residual = (frame.unscale(value, length=2) for value in (self.inertia, self.residual))
        return BalancedState(frame.leave(self.centers), inertia, self.sizes, residual)


def fit(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    size_min: Any = None,
    size_max: Any = None,
    init: Any = "k-means++",
    n_init: int = 1,
    tol: Any = 1e-4,
    max_steps: Any = 300,
    mesh: Mesh | None = None,
) -> Fit:
    """Cluster samples around k centers that minimize the inertia under bounds on the cluster sizes.

    Sizes hold for the samples of the fit without exception; `predict` assigns new samples to the nearest center, where
    nothing bounds sizes. Each sample counts once: weighted samples would have to be split between clusters. Holds the
    (n_samples, k) squared distances, in float32, or in float64 for float64 samples under JAX's x64 mode. Assignments
    are exact for these distances; they are computed on the host, which takes concrete samples.

    Args:
        key: random key for the initialization.
        x: (n_samples, n_features), concrete.
        k: number of clusters, 1 <= k <= n_samples.
        size_min, size_max: bounds on the number of samples of a cluster, or (k,) of each. None for both is sizes that
            differ by one at most, ⌊n/k⌋ and ⌈n/k⌉; None for one of them is no bound.
        init: "k-means++" (greedy), "random" (distinct samples), "k-means||", or (k, n_features) initial centers.
        n_init: runs from different initial centers; the one of least inertia is returned. 1 where ``init`` is an array.
        tol: stop when Σ‖Δc‖² <= tol × the mean variance of the features.
        max_steps: maximum number of steps of a run.
        mesh: over whose devices the samples are spread for seeds, distances and means; assignments are found on the
            host all the same. None for one device. Where they are those of several processes, ``x`` has the samples of
            this one, and so have the labels; each process finds the assignment of all, and needs memory for it.

    Returns:
        `Fit` with a `BalancedState`, labels (n_samples,) int32, steps, status and the inertia after each step. Status
        EMPTY_CLUSTERS, possible only where ``size_min`` is 0: some cluster has no samples, and keeps its center.
        PRECISION: samples of a cluster differ by less than float32 resolves.

    Raises:
        ValueError, TypeError: wrong shapes, values or names; bounds that are infeasible, and by how many samples;
            traced arguments.
    """
    check_mesh(mesh, x)
    x, own = gather_parts(mesh, x)
    options = {"size_min": size_min, "size_max": size_max, "init": init, "n_init": n_init}
    fitted, _ = fit_framed(key, x, k, **options, tol=tol, max_steps=max_steps, mesh=mesh)
    return keep_own_labels(fitted, own)


@signals.keeping_result()
def fit_framed(
    key: Any,
    x: Any,
    k: Any,
    *,
    size_min: Any,
    size_max: Any,
    init: Any,
    n_init: Any,
    tol: Any,
    max_steps: Any,
    mesh: Mesh | None = None,
) -> tuple[Fit, Frame]:
    """`fit` for callers that need its frame; over several processes each has the samples of all.

    Returns:
        The fit, and the frame in which it was computed.
    """
    problem = check_problem(key, x, k, init=init, n_init=n_init, tol=tol, max_steps=max_steps)
    x, k = problem.x, problem.k
    bounds = check_sizes(size_min, size_max, x.shape[0], k)
    # Before anything of that size is allocated.
    check_costs(x.shape[0], k)
    prepared = prepare(x, pad_columns=True, mesh=check_mesh(mesh, x), gathered=True)

    def assign(centers, duals):
        # The dual variables of the last assignment are a warm start: centers have moved little.
        return solve_assignment(squared_distances(prepared, centers), bounds, np.zeros(k) if duals is None else duals)

    best, status = run_lloyd(prepared, assign, initial_centers(prepared, problem), tol=tol, max_steps=max_steps)
    sizes = np.bincount(best.labels, minlength=k).astype(np.int32)
    inertia, residual = (np.asarray(each, best.centers.dtype) for each in (best.inertia, best.residual))
    state = BalancedState(best.centers, inertia, jax.device_put(sizes), residual)
    fitted = finalize(fit_of(state, best, status, sizes, max_steps), prepared, BalancedState.leave, length=2)
    unresolved = unresolved_of(prepared, best)
    return with_precision_status(fitted, x, prepared.frame, unresolved, nearest=False), prepared.frame


def assign(x: Any, centers: Any, *, size_min: Any = None, size_max: Any = None) -> Int[Array, " n"]:
    """Labels of least Σ‖x − c‖² (data units²) among all whose sizes are within the bounds: exact, not rounded.

    Holds the (n_samples, k) squared distances, in float32, or in float64 for float64 samples under JAX's x64 mode.

    Args:
        x: (n_samples, n_features), concrete; each sample counts once.
        centers: (k, n_features).
        size_min, size_max: bounds on the number of samples of a cluster, or (k,) of each. None for both is sizes that
            differ by one at most; None for one of them is no bound.

    Returns:
        (n_samples,) int32 labels.

    Raises:
        ValueError, TypeError: wrong shapes or values; bounds that are infeasible, and by how many samples; traced
            arguments.
    """
    refuse_traced(x, centers)
    centers, x = validation.check_matrix(centers, name="centers"), validation.check_matrix(x)
    validation.check_width(x, centers.shape[1])
    validation.check_finite(centers, name="centers")
    bounds = check_sizes(size_min, size_max, x.shape[0], centers.shape[0])
    prepared = prepare(x)
    costs = squared_distances(prepared, np.asarray(prepared.frame.enter(centers)))
    return jax.device_put(solve_assignment(costs, bounds, np.zeros(len(centers)))[0])


def assign_cost(costs: Any, *, size_min: Any = None, size_max: Any = None) -> Int[Array, " n"]:
    """Labels of least Σ_i costs[i, label_i] among all whose sizes are within the bounds: exact, in float64.

    Args:
        costs: (n_samples, k) cost of each sample in each cluster; concrete, finite, of either sign, in any units.
        size_min, size_max: as in `assign`.

    Returns:
        (n_samples,) int32 labels.

    Raises:
        ValueError, TypeError: wrong shapes or values; bounds that are infeasible, and by how many samples; traced
            costs.
    """
    refuse_traced(costs)
    costs = np.asarray(validation.check_matrix(costs, name="costs"))
    validation.check_finite(costs, name="costs")
    n, k = costs.shape
    bounds = check_sizes(size_min, size_max, n, k)
    costs = costs if costs.dtype in (np.float32, np.float64) else costs.astype(np.float64)
    return jax.device_put(solve_assignment(costs, bounds, np.zeros(k))[0])

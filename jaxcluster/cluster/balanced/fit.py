"""Lloyd's iteration with sizes of clusters kept: each assignment is exact, so that the inertia never rises.

Source: P. S. Bradley, K. P. Bennett and A. Demiriz, Constrained k-means clustering, Microsoft Research
MSR-TR-2000-65, for the iteration; see `prices` and `repair` for the assignment.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.balanced.assign import costs_of, refuse_traced
from jaxcluster.cluster.balanced.repair import solve
from jaxcluster.cluster.balanced.sizes import Sizes, check_sizes
from jaxcluster.cluster.centroids import inertia_of, mean_variance
from jaxcluster.cluster.given import GIVEN, check_given
from jaxcluster.cluster.seeding import seed_centers
from jaxcluster.core import check
from jaxcluster.core.iterate import history_capacity, status_of, status_with
from jaxcluster.core.rows import Placed, place
from jaxcluster.ops.distance import squared_norms
from jaxcluster.ops.segments import cluster_sums
from jaxcluster.types import Array, Fit, Float, Int, KeyArray


class BalancedState(NamedTuple):
    """A finished balanced k-means.

    Attributes:
        centers: (k, d) cluster centres.
        inertia: () Σ‖x − c‖² (data units²), the least that any labels within the bounds have for these centres.
        sizes: (k,) int32 how many rows each cluster has.
        residual: () Σ‖Δc‖² of the last step (data units²); 0 if it changed no label, or could not lower the inertia.
    """

    centers: Float[Array, "k d"]
    inertia: Float[Array, ""]
    sizes: Int[Array, " k"]
    residual: Float[Array, ""]

    @property
    def objective(self) -> Float[Array, ""]:
        """The inertia, by which runs are compared."""
        return self.inertia


class _Run(NamedTuple):
    """One run: centres in the frame of the rows, labels on the host, the prices that the next assignment starts from.

    ``inertia`` and ``residual`` are Python floats; ``history`` has the inertia after each step.
    """

    centers: Float[Array, "k d"]
    labels: np.ndarray
    prices: np.ndarray
    inertia: float
    residual: float
    history: list


def fit(
    key: KeyArray,
    x,
    k: int,
    *,
    size_min=None,
    size_max=None,
    init="k-means++",
    n_init: int = 1,
    tol=1e-4,
    max_steps=300,
) -> Fit:
    """Clusters rows around k centres that minimise the inertia, with as many rows in each cluster as asked for.

    Sizes hold for the rows of the fit without exception; `predict` puts new rows to the nearest centre, where nothing
    bounds sizes. Each row counts once: there are no row weights, whose parts would have to be shared out. Holds the
    (n, k) squared distances, in float32, or in float64 for float64 rows under JAX's x64 mode. Assignments are exact
    for these distances; they are searched for on the host, which takes concrete rows.

    Args:
        key: random key for the start.
        x: (n, d) concrete rows.
        k: number of clusters, 1 <= k <= n.
        size_min, size_max: the fewest and the most rows of a cluster, or (k,) of each. None for both is sizes that
            differ by one at most, ⌊n/k⌋ and ⌈n/k⌉; None for one of them is no bound.
        init: "k-means++" (greedy), "random" (distinct rows), "k-means||", or (k, d) starting centres.
        n_init: runs from different starts, of which the least inertia wins; 1 from given centres.
        tol: stop when Σ‖Δc‖² <= tol × the mean variance of the columns.
        max_steps: the most steps of a run.

    Returns:
        `Fit` with a `BalancedState`, labels (n,) int32, steps, status and the inertia after each step. Status
        EMPTY_CLUSTERS, possible only where ``size_min`` is 0, says that some cluster has no rows; it keeps its centre.

    Raises:
        ValueError, TypeError: wrong shapes, values or names; bounds that n rows cannot keep, and by how many; traced
            arguments.
    """
    refuse_traced(key, x, init, tol, max_steps)
    x = check.check_matrix(x)
    k = check.check_clusters(k, x.shape[0])
    sizes = check_sizes(size_min, size_max, x.shape[0], k)
    check.check_positive("tol", tol, zero=True)
    check.check_positive("max_steps", max_steps)
    name, given = check_given(init, None, None, k, x.shape[1])
    runs = check.check_count("n_init", n_init)
    placed = place(x)
    if name == GIVEN:
        starts = [given.in_frame(placed.origin, spherical=False).start]
    else:
        keys = [key] if runs == 1 else jax.random.split(key, runs)
        starts = [_seed(k, name, each, placed.points) for each in keys]
    limit = float(tol * _variance(placed.points))
    fits = [_run(placed, sizes, start, limit, max_steps) for start in starts]
    best = min(fits, key=lambda run: run.inertia if np.isfinite(run.inertia) else np.inf)
    return _publish(best, placed, limit, max_steps)


def _run(placed: Placed, sizes: Sizes, centers: Any, limit: float, max_steps: Any) -> _Run:
    """Means and assignments in turn, until labels repeat or centres rest."""
    run = _assigned(placed, sizes, centers, np.zeros(len(sizes.least)))
    while len(run.history) < max_steps and run.residual > limit:
        centers, residual = _means(placed.points, _padded(run.labels, placed), run.centers)
        new = _assigned(placed, sizes, centers, run.prices)
        if np.array_equal(new.labels, run.labels):
            run = new._replace(residual=0.0, history=[*run.history, new.inertia])
        elif new.inertia >= run.inertia:
            # Between ties, or by rounding: labels would come round again.
            run = run._replace(residual=0.0, history=[*run.history, run.inertia])
        else:
            run = new._replace(residual=float(residual), history=[*run.history, new.inertia])
    return run


def _assigned(placed, sizes, centers, prices):
    labels, prices = solve(costs_of(placed.points.x, centers, placed.n), sizes, prices)
    inertia = float(_inertia(placed.points, centers, _padded(labels, placed)))
    return _Run(centers, labels, prices, inertia, np.inf, [])


def _padded(labels, placed):
    """Labels with those of padding, which weighs nothing."""
    return np.pad(labels, (0, placed.points.weight.shape[0] - placed.n))


def _publish(run, placed, limit, max_steps):
    """From the frame of the iteration to the caller's, and onto the device."""
    k, dtype = len(run.prices), run.centers.dtype
    sizes = np.bincount(run.labels, minlength=k).astype(np.int32)
    history = np.full(history_capacity(max_steps), np.nan, dtype)
    history[: len(run.history)] = run.history
    inertia, residual = jnp.asarray(run.inertia, dtype), jnp.asarray(run.residual, dtype)
    status = status_of(residual, jnp.asarray(limit, dtype))
    status = status_with(status, objective=inertia, incomplete=bool((sizes == 0).any()))
    state = BalancedState(run.centers + placed.origin, inertia, jnp.asarray(sizes), residual)
    return Fit(state, jnp.asarray(run.labels), jnp.int32(len(run.history)), status, jnp.asarray(history))


@partial(jax.jit, static_argnums=(0, 1))
def _seed(k, init, key, points):
    return seed_centers(key, points, k, init=init)


@jax.jit
def _variance(points):
    return mean_variance(points, squared_norms(points.x), centered=True)


@jax.jit
def _means(points, labels, centers):
    """The mean of each cluster's rows, or its centre where it has none, and Σ‖Δc‖²."""
    sums, weight = cluster_sums(points, labels, centers.shape[0], uniform=True)
    occupied = weight[:, None] > 0
    means = jnp.where(occupied, sums / jnp.where(occupied, weight[:, None], 1), centers)
    return means, jnp.sum(jnp.square(means - centers))


@jax.jit
def _inertia(points, centers, labels):
    return inertia_of(points, centers, labels)

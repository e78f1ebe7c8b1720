"""Lloyd's iteration with sizes of clusters kept: each assignment is exact, so that the inertia never rises.

Source: P. S. Bradley, K. P. Bennett and A. Demiriz, Constrained k-means clustering, Microsoft Research
MSR-TR-2000-65, for the iteration; see `prices` and `repair` for the assignment.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.alternate import (
    alternate,
    check_costs,
    coarse_of,
    costs_of,
    final_status,
    history_of,
    refuse_traced,
    starting_centers,
)
from jaxcluster.cluster.balanced.repair import solve
from jaxcluster.cluster.balanced.sizes import check_sizes
from jaxcluster.cluster.centroids import with_precision
from jaxcluster.cluster.given import check_given
from jaxcluster.core import check
from jaxcluster.core.frame import Frame, finalize, prepare
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Published


class BalancedState(NamedTuple):
    """A finished balanced k-means.

    Attributes:
        centers: (k, d) cluster centers.
        inertia: () Σ‖x − c‖² (data units²), the least that any labels within the bounds have for these centers.
        sizes: (k,) int32 how many rows each cluster has.
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
    """Clusters rows around k centers that minimize the inertia, with as many rows in each cluster as asked for.

    Sizes hold for the rows of the fit without exception; `predict` puts new rows to the nearest center, where nothing
    bounds sizes. Each row counts once: there are no row weights, whose parts would have to be shared out. Holds the
    (n, k) squared distances, in float32, or in float64 for float64 rows under JAX's x64 mode. Assignments are exact
    for these distances; they are searched for on the host, which takes concrete rows.

    Args:
        key: random key for the start.
        x: (n, d) concrete rows.
        k: number of clusters, 1 <= k <= n.
        size_min, size_max: the fewest and the most rows of a cluster, or (k,) of each. None for both is sizes that
            differ by one at most, ⌊n/k⌋ and ⌈n/k⌉; None for one of them is no bound.
        init: "k-means++" (greedy), "random" (distinct rows), "k-means||", or (k, d) starting centers.
        n_init: runs from different starts, of which the least inertia wins; 1 from given centers.
        tol: stop when Σ‖Δc‖² <= tol × the mean variance of the columns.
        max_steps: the most steps of a run.

    Returns:
        `Fit` with a `BalancedState`, labels (n,) int32, steps, status and the inertia after each step. Status
        EMPTY_CLUSTERS, possible only where ``size_min`` is 0, says that some cluster has no rows; it keeps its center.
        PRECISION says that rows of a cluster differ by less than float32 tells.

    Raises:
        ValueError, TypeError: wrong shapes, values or names; bounds that n rows cannot keep, and by how many; traced
            arguments.
    """
    options = {"size_min": size_min, "size_max": size_max, "init": init, "n_init": n_init}
    return fit_framed(key, x, k, **options, tol=tol, max_steps=max_steps)[0]


def fit_framed(
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
) -> tuple[Fit, Frame]:
    """`fit`, and the frame in which it was computed."""
    key = check.check_key(key)
    refuse_traced(key, x, init, tol, max_steps)
    x = check.check_matrix(x)
    k = check.check_clusters(k, x.shape[0])
    sizes = check_sizes(size_min, size_max, x.shape[0], k)
    check.check_positive("tol", tol, zero=True)
    check.check_positive("max_steps", max_steps)
    name, given = check_given(init, None, None, k, x.shape[1])
    runs = check.check_count("n_init", n_init)
    check_costs(x.shape[0], k)
    prepared = prepare(x)

    def assign(centers, prices):
        return solve(costs_of(prepared, centers), sizes, np.zeros(k) if prices is None else prices)

    starts = starting_centers(key, prepared, k, name, given, runs)
    best, status = alternate(prepared, assign, starts, tol=tol, max_steps=max_steps)
    counts = np.bincount(best.labels, minlength=k).astype(np.int32)
    inertia, residual = jnp.asarray(best.inertia, best.centers.dtype), jnp.asarray(best.residual, best.centers.dtype)
    state = BalancedState(best.centers, inertia, jax.device_put(counts), residual)
    status = final_status(status, inertia, counts)
    labels, steps = jax.device_put(best.labels), jnp.int32(len(best.history))
    fitted = Fit(state, labels, steps, status, history_of(best, max_steps))
    fitted = finalize(fitted, prepared, BalancedState.leave, length=2)
    return with_precision(fitted, x, prepared.frame, coarse_of(prepared, best), nearest=False), prepared.frame

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
    costs_of,
    final_status,
    history_of,
    refuse_traced,
    starting_centers,
)
from jaxcluster.cluster.balanced.repair import solve
from jaxcluster.cluster.balanced.sizes import check_sizes
from jaxcluster.cluster.given import check_given
from jaxcluster.core import check
from jaxcluster.core.frame import Frame, frame_of
from jaxcluster.core.rows import place
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

    def assign(centers, prices):
        return solve(costs_of(placed, centers), sizes, np.zeros(k) if prices is None else prices)

    starts = starting_centers(key, placed, k, name, given, runs)
    best, status = alternate(placed, assign, starts, tol=tol, max_steps=max_steps)
    counts = np.bincount(best.labels, minlength=k).astype(np.int32)
    inertia, residual = jnp.asarray(best.inertia, best.centers.dtype), jnp.asarray(best.residual, best.centers.dtype)
    state = BalancedState(best.centers + placed.origin, inertia, jax.device_put(counts), residual)
    status = final_status(status, inertia, counts)
    history = history_of(best, max_steps)
    return Fit(state, jax.device_put(best.labels), jnp.int32(len(best.history)), status, history)


def fit_framed(*arguments, **options) -> tuple[Fit, Frame]:
    """`fit`, and a frame about its centers."""
    fitted = fit(*arguments, **options)
    return fitted, frame_of(fitted.state.centers)

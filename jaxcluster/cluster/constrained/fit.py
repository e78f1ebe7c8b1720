"""k-means under must-link and cannot-link: all pairs are kept, and the inertia never rises.

Rows that have to be together are one row, with their weight and at their mean, which leaves the inertia as it is but
for a constant. Those that have to be apart from others are labeled together with them, see `search`.

Source: K. Wagstaff, C. Cardie, S. Rogers and S. Schrödl, Constrained k-means clustering with background knowledge,
ICML 2001, for the problem.
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
from jaxcluster.cluster.centroids import with_precision
from jaxcluster.cluster.constrained.pairs import group
from jaxcluster.cluster.constrained.search import Part, label, parts_of
from jaxcluster.cluster.given import check_given
from jaxcluster.core import check
from jaxcluster.core.frame import Frame, finalize, prepare
from jaxcluster.types import Fit, Float, KeyArray, Published


class ConstrainedState(NamedTuple):
    """A finished constrained k-means.

    Attributes:
        centers: (k, d) cluster centers.
        inertia: () Σ w·‖x − c‖² (data units²) of rows to the center of their cluster.
        weight: (k,) total weight of the rows of each cluster.
        residual: () Σ‖Δc‖² of the last step (data units²); 0 if it changed no label, or could not lower the inertia.
    """

    centers: Float[Published, "k d"]
    inertia: Float[Published, ""]
    weight: Float[Published, " k"]
    residual: Float[Published, ""]

    @property
    def objective(self) -> Float[Published, ""]:
        """The inertia, by which runs are compared."""
        return self.inertia

    def leave(self, frame: Frame) -> ConstrainedState:
        """The state in the caller's coordinates and units."""
        return ConstrainedState(
            frame.leave(self.centers),
            frame.unscale(self.inertia, length=2, weight=1),
            frame.unscale(self.weight, weight=1),
            frame.unscale(self.residual, length=2),
        )


def fit(
    key: KeyArray,
    x,
    k: int,
    *,
    must_link=None,
    cannot_link=None,
    weights=None,
    init="k-means++",
    n_init: int = 1,
    tol=1e-4,
    max_steps=300,
) -> Fit:
    """Clusters rows around k centers that minimize the inertia, with pairs of rows together or apart as asked for.

    Labels keep every pair. Groups of rows that no cannot-link ties to others go to the nearest center. The others are
    labeled part by part of the graph of cannot-links: exactly for parts of few groups, by descent from the labels of
    the step before for large ones, since the problem is NP-hard. Holds the (n, k) squared distances, in float32, or in
    float64 for float64 rows under JAX's x64 mode.

    Args:
        key: random key for the start.
        x: (n, d) concrete rows.
        k: number of clusters, 1 <= k <= n.
        must_link: (m, 2) row numbers, pairs that share a cluster. If rows a and b do, and b and c, then a and c.
        cannot_link: (m, 2) row numbers, pairs that do not.
        weights: (n,) non-negative row weights; a row of weight 0 keeps its pairs but does not count. None for 1 each.
        init: "k-means++" (greedy), "random" (distinct groups by weight), "k-means||", or (k, d) starting centers.
        n_init: runs from different starts, of which the least inertia wins; 1 from given centers.
        tol: stop when Σ‖Δc‖² <= tol × the mean variance of the columns, taken of groups.
        max_steps: the most steps of a run.

    Returns:
        `Fit` with a `ConstrainedState`, labels (n,) int32, steps, status and the inertia after each step. Status
        EMPTY_CLUSTERS says that some cluster has no rows with weight; it keeps its center. PRECISION says that rows of
        a cluster differ by less than float32 tells.

    Raises:
        ValueError, TypeError: wrong shapes, values or names; pairs out of range, of a row with itself, or that
            contradict each other, by which chain of rows; fewer clusters than cannot-links take, and which rows they
            are; groups fewer than clusters; traced arguments.
    """
    options = {"must_link": must_link, "cannot_link": cannot_link, "weights": weights, "init": init, "n_init": n_init}
    return fit_framed(key, x, k, **options, tol=tol, max_steps=max_steps)[0]


def fit_framed(
    key: KeyArray,
    x,
    k: int,
    *,
    must_link=None,
    cannot_link=None,
    weights=None,
    init="k-means++",
    n_init: int = 1,
    tol=1e-4,
    max_steps=300,
) -> tuple[Fit, Frame]:
    """`fit`, and the frame in which it was computed."""
    key = check.check_key(key)
    refuse_traced(key, x, weights, init, tol, max_steps)
    x = check.check_matrix(x)
    n = x.shape[0]
    k = check.check_clusters(k, n)
    check.check_positive("tol", tol, zero=True)
    check.check_positive("max_steps", max_steps)
    name, given = check_given(init, None, None, k, x.shape[1])
    runs = check.check_count("n_init", n_init)
    weights = np.ones(n) if weights is None else check.check_weights(weights, n).astype(np.float64)
    x = np.asarray(x)
    check.check_finite(x)
    groups = group(must_link, cannot_link, n)
    count = len(groups.first)
    if count < k:
        raise ValueError(f"must_link leaves {count} groups of rows, fewer than k={k} clusters. Pass fewer clusters.")
    parts = parts_of(groups.conflicts, count, k, groups.first)
    means, total, scatter = groups.means(x, weights)
    check_costs(x.shape[0], k)
    prepared = prepare(means if count == n else means.astype(x.dtype if x.dtype.kind == "f" else np.float64), total)
    scaled = np.asarray(prepared.frame.scale(total, weight=1))
    scatter = float(prepared.frame.scale(scatter, length=2, weight=1))

    def assign(centers, last):
        labels = _labels(costs_of(prepared, centers), scaled, parts, last)
        return labels, labels

    starts = starting_centers(key, prepared, k, name, given, runs)
    best, status = alternate(prepared, assign, starts, tol=tol, max_steps=max_steps)
    weight = np.bincount(best.labels, scaled, k)
    dtype = best.centers.dtype
    inertia, residual = jnp.asarray(best.inertia + scatter, dtype), jnp.asarray(best.residual, dtype)
    state = ConstrainedState(best.centers, inertia, weight.astype(dtype), residual)
    status, history = final_status(status, inertia, weight), history_of(best, max_steps, scatter)
    fitted = Fit(state, jax.device_put(best.labels), jnp.int32(len(best.history)), status, history)
    fitted = finalize(fitted, prepared, ConstrainedState.leave, length=2, weight=1)
    fitted = with_precision(fitted, means, prepared.frame, coarse_of(prepared, best), nearest=False)
    return fitted._replace(labels=jax.device_put(best.labels[groups.of_row])), prepared.frame


def _labels(costs: np.ndarray, total: np.ndarray, parts: list[Part], last: np.ndarray | None) -> np.ndarray:
    """(m,) labels of groups: the nearest center, but for those in parts."""
    labels = costs.argmin(axis=1).astype(np.int32)
    for part in parts:
        own = costs[part.groups].astype(np.float64) * total[part.groups, None]
        labels[part.groups] = label(part, own, None if last is None else last[part.groups])
    return labels

"""k-means under must-link and cannot-link constraints: all pairs are kept, and the inertia never rises.

Must-linked samples are contracted to one, at their mean and with their weight, which changes the inertia by a constant.
Groups in conflict are assigned together, see `branch_and_bound`.

Source: K. Wagstaff, C. Cardie, S. Rogers and S. Schrödl, Constrained k-means clustering with background knowledge,
ICML 2001, for the problem.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcluster.cluster.constrained.branch_and_bound import Component, conflict_components, label_component
from jaxcluster.cluster.constrained.constraints import group_samples
from jaxcluster.cluster.lloyd_host import (
    check_costs,
    check_problem,
    fit_of,
    initial_centers,
    run_lloyd,
    squared_distances,
    unresolved_of,
)
from jaxcluster.cluster.precision import with_precision_status
from jaxcluster.core import signals, validation
from jaxcluster.core.frame import Frame
from jaxcluster.core.preparation import finalize, prepare
from jaxcluster.types import Fit, Float, KeyArray, Published


class ConstrainedState(NamedTuple):
    """A finished constrained k-means.

    Attributes:
        centers: (k, d) cluster centers.
        inertia: () Σ w·‖x − c‖² (data units²) of samples to the center of their cluster.
        weight: (k,) total weight of the samples of each cluster.
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
    x: Any,
    k: int,
    *,
    must_link: Any = None,
    cannot_link: Any = None,
    weights: Any = None,
    init: Any = "k-means++",
    n_init: int = 1,
    tol: Any = 1e-4,
    max_steps: Any = 300,
) -> Fit:
    """Cluster samples around k centers that minimize the inertia under must-link and cannot-link pairs.

    Labels keep every pair. Groups of samples without a cannot-link go to the nearest center. The others are assigned
    one connected component of cannot-links at a time: exactly in components of few groups, by local search from the
    labels of the step before in large ones, since the problem is NP-hard. Holds the (n_samples, k) squared distances,
    in float32, or in float64 for float64 samples under JAX's x64 mode.

    Args:
        key: random key for the initialization.
        x: (n_samples, n_features), concrete.
        k: number of clusters, 1 <= k <= n_samples.
        must_link: (m, 2) row numbers, pairs that share a cluster. If rows a and b do, and b and c, then a and c.
        cannot_link: (m, 2) row numbers, pairs that do not.
        weights: (n_samples,) non-negative sample weights; a sample of weight 0 keeps its pairs but does not count. None
            for 1 each.
        init: "k-means++" (greedy), "random" (distinct groups by weight), "k-means||", or (k, n_features) initial
            centers.
        n_init: runs from different initial centers; the one of least inertia is returned. 1 where ``init`` is an array.
        tol: stop when Σ‖Δc‖² <= tol × the mean variance of the features, taken of groups.
        max_steps: maximum number of steps of a run.

    Returns:
        `Fit` with a `ConstrainedState`, labels (n_samples,) int32, steps, status and the inertia after each step.
        Status EMPTY_CLUSTERS: some cluster has no samples with weight, and keeps its center. PRECISION: samples of a
        cluster differ by less than float32 resolves.

    Raises:
        ValueError, TypeError: wrong shapes, values or names; pairs out of range, of a row with itself, or that
            contradict each other, by which chain of rows; fewer clusters than cannot-links take, and which rows they
            are; fewer groups than clusters; traced arguments.
    """
    options = {"must_link": must_link, "cannot_link": cannot_link, "weights": weights, "init": init, "n_init": n_init}
    return fit_framed(key, x, k, **options, tol=tol, max_steps=max_steps)[0]


@signals.keeping_result()
def fit_framed(
    key: Any,
    x: Any,
    k: Any,
    *,
    must_link: Any,
    cannot_link: Any,
    weights: Any,
    init: Any,
    n_init: Any,
    tol: Any,
    max_steps: Any,
) -> tuple[Fit, Frame]:
    """`fit` for callers that need its frame.

    Returns:
        The fit, and the frame in which it was computed.
    """
    options = {"init": init, "n_init": n_init, "tol": tol, "max_steps": max_steps}
    problem = check_problem(key, x, k, weights=weights, **options)
    x, k, n = np.asarray(problem.x), problem.k, problem.x.shape[0]
    weights = np.ones(n) if weights is None else validation.check_weights(weights, n).astype(np.float64)
    validation.check_finite(x)
    groups = group_samples(must_link, cannot_link, n)
    count = len(groups.first)
    if count < k:
        raise ValueError(f"must_link leaves {count} groups of rows, fewer than k={k} clusters. Pass fewer clusters.")
    components = conflict_components(groups.conflicts, count, k, groups.first)
    means, total, scatter = groups.means(x, weights)
    check_costs(x.shape[0], k)
    in_dtype = means if count == n else means.astype(x.dtype if x.dtype.kind == "f" else np.float64)
    prepared = prepare(in_dtype, total, pad_columns=True)
    scaled = np.asarray(prepared.frame.scale(total, weight=1))
    scatter = float(prepared.frame.scale(scatter, length=2, weight=1))

    def assign(centers, prev):
        labels = _labels(squared_distances(prepared, centers), scaled, components, prev)
        return labels, labels

    best, status = run_lloyd(prepared, assign, initial_centers(prepared, problem), tol=tol, max_steps=max_steps)
    weight = np.bincount(best.labels, scaled, k)
    dtype = best.centers.dtype
    # The scatter about the means of the groups is the constant that the contraction left out.
    inertia, residual = (np.asarray(each, dtype) for each in (best.inertia + scatter, best.residual))
    state = ConstrainedState(best.centers, inertia, weight.astype(dtype), residual)
    fitted = finalize(
        fit_of(state, best, status, weight, max_steps, scatter), prepared, ConstrainedState.leave, length=2, weight=1
    )
    fitted = with_precision_status(fitted, means, prepared.frame, unresolved_of(prepared, best), nearest=False)
    return fitted._replace(labels=jax.device_put(best.labels[groups.of_row])), prepared.frame


def _labels(costs: np.ndarray, total: np.ndarray, components: list[Component], prev: np.ndarray | None) -> np.ndarray:
    """(m,) labels of groups: the nearest center, but for those in conflict."""
    labels = costs.argmin(axis=1).astype(np.int32)
    for component in components:
        # Weights matter only here: the nearest center of a group alone does not depend on its weight.
        weighted = costs[component.groups].astype(np.float64) * total[component.groups, None]
        labels[component.groups] = label_component(
            component, weighted, None if prev is None else prev[component.groups]
        )
    return labels

"""OPTICS: fit and reachability ordering.

From a core sample p a sample q has the reachability distance max(core(p), d(p, q)), with core(p) the distance of the
``min_samples``-th nearest sample. The ordering visits next the sample with the least reachability distance so far, so
that clusters of every density are valleys of the reachability plot.

>>> import numpy as np
>>> from jaxcluster import optics
>>> x = np.array([[1, 2], [2, 5], [3, 6], [8, 7], [8, 8], [7, 3]])
>>> optics.fit(x, min_samples=2).labels.tolist()
[0, 0, 0, 1, 1, 1]

Source: M. Ankerst, M. Breunig, H.-P. Kriegel and J. Sander, OPTICS: ordering points to identify the clustering
structure, SIGMOD 1999.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcluster.cluster.optics.extract import OPTICSState, as_count, check_xi, extract_dbscan, extract_xi
from jaxcluster.core import signals, validation
from jaxcluster.core.messages import warn
from jaxcluster.core.processes import gather_parts
from jaxcluster.core.shard import check_mesh
from jaxcluster.ops.metric_space import DistanceOracle, MetricSpace, as_metric_space, rescale_space
from jaxcluster.ops.neighbors.ring import nearest_rows_over
from jaxcluster.types import Fit, Status

METHODS = ("xi", "dbscan")
"""Methods of cluster extraction."""

DECIMALS = np.finfo(np.float64).precision
"""Decimals of rounded distances (15), as in scikit-learn: the order of additions does not decide the next sample."""

SLACK = 1 + 1e-12
"""Bound on the ratio of two roundings of one distance: a distance above the best by more cannot improve it."""

STALE = 0.2
"""Fraction of visited rows among the active ones above which the active ones are compacted."""


@signals.stoppable()
def fit(
    x: Any,
    *,
    min_samples: float = 5,
    max_eps: float = np.inf,
    metric: str | Callable = "euclidean",
    p: float = 2.0,
    method: str = "xi",
    eps: float | None = None,
    xi: float = 0.05,
    min_cluster_size: float | None = None,
    predecessor_correction: bool = True,
    mesh: Mesh | None = None,
) -> Fit:
    """Order samples by reachability, and extract clusters of any density from the ordering.

    The ordering equals that of scikit-learn, element for element, where scikit-learn adds up differences as is done
    here: "minkowski" or "manhattan", in up to 15 columns and with fewer than n // 2 neighbors, or with a tree. There
    distances are rounded to 15 decimals. Here these are decimals in the unit of the samples if that is below 2⁻³⁰ or
    above 2⁴⁰: the ordering does not depend on the unit. The fit is deterministic and has no gradient.

    Args:
        x: (n_samples, n_features) concrete samples; (n_samples, n_samples) distances, dense or SciPy sparse, for the
            metric "precomputed". If one of the two entries of a pair is missing or infinite, the other one counts for
            both. Two different finite entries cause a warning, and the distances from a sample are those of its row, as
            in scikit-learn.
        min_samples: number of samples of a neighborhood, at least 2, or a fraction of the samples in (0, 1].
        max_eps: largest reachability distance, in the units of the metric.
        metric, p: see `jaxcluster.ops.metric_space.as_metric_space`.
        method: "xi" for steep areas of the reachability plot (`extract_xi`), "dbscan" for a cut (`extract_dbscan`).
        eps: cut distance of "dbscan"; None for ``max_eps``.
        xi, min_cluster_size, predecessor_correction: of "xi".
        mesh: over whose devices concrete dense samples are spread for core distances, for metrics by matrix products:
            Euclidean, cosine and correlation; None for one device. Where they are those of several processes, ``x`` has
            the samples of this one, and so have the labels; the state is of the samples of all, in the order of the
            processes, and each needs memory for all of them.

    Returns:
        `Fit` with an `OPTICSState`, labels (n_samples,) int32 with −1 for noise, steps (samples), status CONVERGED, and
        an empty history.

    Raises:
        ValueError, TypeError: wrong shapes, values or names, NaN or infinity, or traced samples.

    Warns:
        UserWarning: no sample is within ``max_eps`` of a core sample.
    """
    validation.check_choice("method", method, METHODS)
    max_eps, eps = check_limits(max_eps, eps, xi)
    check_mesh(mesh, x)
    x, own = gather_parts(mesh, x)
    space = as_metric_space(x, metric, p=p, symmetric=False)
    count = as_count("min_samples", min_samples, space.n)
    if method == "xi" and min_cluster_size is not None:
        as_count("min_cluster_size", min_cluster_size, space.n)  # before the long ordering
    # Rounding to `DECIMALS` decimals would make all distances 0 in a unit of 1e-30.
    space, exponent = rescale_space(space)
    with np.errstate(over="ignore", under="ignore"):  # a radius beyond all distances, or below them
        reach = float(np.ldexp(max_eps, exponent))
    core = nearest_rows_over(space, count, mesh)[1][:, -1].copy()
    core[core > reach] = np.inf
    np.around(core, DECIMALS, out=core)
    order = compute_ordering(space, core, reach)
    with np.errstate(over="ignore", under="ignore"):  # squares of long distances are infinite in the unit of the rows
        reachability, core = np.ldexp(order.reachability, -exponent), np.ldexp(core, -exponent)
    state = OPTICSState(order.ordering, reachability, core, order.predecessor)
    if np.isinf(order.reachability).all() and space.n > 1:
        warn(
            f"All reachability values are inf. Set a larger max_eps. No row is within max_eps={max_eps} of a core row: "
            "all are noise.",
            UserWarning,
        )
    if method == "dbscan":
        labels = extract_dbscan(state, eps)
    else:
        options = {"min_cluster_size": min_cluster_size, "predecessor_correction": predecessor_correction}
        labels, _ = extract_xi(state, xi=xi, min_samples=min_samples, **options)
    steps, status, empty = jnp.int32(space.n), jnp.int32(Status.CONVERGED), jnp.zeros((0,), jnp.float32)
    return Fit(state, jnp.asarray(np.asarray(labels)[own]), steps, status, empty)


def check_limits(max_eps: float, eps: float | None, xi: float) -> tuple[float, float]:
    """Check the limits of a fit.

    Returns:
        ``max_eps``, and ``eps`` or ``max_eps`` in place of None.

    Raises:
        ValueError: limits out of their ranges.
    """
    max_eps = float(validation.check_positive("max_eps", max_eps, zero=True))
    eps = max_eps if eps is None else eps
    validation.check_positive("eps", eps, zero=True)
    if eps > max_eps:
        raise ValueError(
            f"Specify an epsilon smaller than {max_eps}. Got {eps}: eps={eps} must be at most max_eps={max_eps}, for "
            "beyond that no row was reached."
        )
    check_xi(xi)
    return max_eps, eps


class Ordering(NamedTuple):
    """Ordering of n rows; its fields are those of `OPTICSState`."""

    ordering: np.ndarray
    reachability: np.ndarray
    predecessor: np.ndarray


def compute_ordering(space: MetricSpace | DistanceOracle, core: np.ndarray, max_eps: float) -> Ordering:
    """Reachability ordering: next is the first row of the least reachability; with none reachable the first unvisited.

    Args:
        space: n rows.
        core: (n,) core distances; infinite for rows that are not core rows.
        max_eps: largest distance at which a row is reachable.
    """
    queue = _SpaceQueue(space, max_eps) if isinstance(space, MetricSpace) else _OracleQueue(space, max_eps)
    n = space.n
    ordering, reachability, predecessor = np.empty(n, np.int64), np.full(n, np.inf), np.full(n, -1, np.int64)
    for step in range(n):
        signals.check_stopped()
        row, reachability[step] = queue.pop()
        ordering[step] = row
        # Rows that are no core samples extend no cluster: nothing is reached from them.
        if core[row] < np.inf:
            queue.update_from(row, core[row], predecessor)
    by_row = np.empty(n)
    by_row[ordering] = reachability
    return Ordering(ordering, by_row, predecessor)


class _Queue:
    """Priority queue as plain arrays over the unvisited rows, in the order of their numbers, and some visited ones."""

    def __init__(self, n):
        self.rows = np.arange(n)
        self.reach = np.full(n, np.inf)  # infinite for visited rows
        self.unvisited = np.ones(n, bool)
        self.visited, self.first = 0, 0

    def pop(self):
        """Number and reachability of the next row."""
        at = int(self.reach.argmin())
        reach = self.reach[at]
        if reach == np.inf:
            while not self.unvisited[self.first]:
                self.first += 1
            at = self.first
        row = int(self.rows[at])
        self.unvisited[at], self.reach[at] = False, np.inf
        self.mark_visited(at)
        self.visited += 1
        # Visited rows cost a comparison in each step until the queue is packed again.
        if self.visited > STALE * len(self.rows):
            self.keep(np.flatnonzero(self.unvisited))
        return row, reach

    def mark_visited(self, at):
        """Exclude position ``at`` from updates."""

    def keep(self, kept):
        """Compact the arrays to the positions ``kept``."""
        self.rows, self.reach, self.unvisited = self.rows[kept], self.reach[kept], self.unvisited[kept]
        self.visited = self.first = 0

    def improve(self, at, distances, row, core, predecessor):
        """Lower the reachability of the positions ``at`` at these distances from a row; returns the lowered ones."""
        reach = np.maximum(distances, core)
        # Rounded before the comparison, so that ties are those of scikit-learn.
        np.around(reach, DECIMALS, out=reach)
        better = reach < self.reach[at]
        at = at[better]
        self.reach[at] = reach[better]
        predecessor[self.rows[at]] = row
        return at


class _SpaceQueue(_Queue):
    """Rows of a metric space; roots of Minkowski sums are taken only where a row may improve."""

    def __init__(self, space, max_eps):
        super().__init__(space.n)
        self.space, self.limit = space, space.threshold(max_eps)
        self.columns = np.ascontiguousarray(space.x.T)
        self.bound = np.full(space.n, np.inf)  # least sum that cannot improve a row; negative for visited rows

    def mark_visited(self, at):
        self.bound[at] = -1

    def keep(self, kept):
        super().keep(kept)
        self.columns, self.bound = np.take(self.columns, kept, axis=1), self.bound[kept]

    def update_from(self, row, core, predecessor):
        """Lower the reachability of rows that are more reachable from ``row`` than before."""
        sums = self._sums(self.space.x[row])
        # Compared as sums, without roots: the distance is computed for the few rows that it may improve.
        near = sums < self.bound
        if self.limit < np.inf:
            near &= sums <= self.limit
        at = near.nonzero()[0]
        at = self.improve(at, self.space.distances(sums[at]), row, core, predecessor)
        self.bound[at] = self.space.threshold(self.reach[at]) * SLACK

    def _sums(self, x) -> Any:
        power, total = self.space.power, None
        for column, value in zip(self.columns, x, strict=True):
            difference = column - value
            if power == 2:
                difference *= difference
            else:
                difference = np.abs(difference) if power in (1, np.inf) else np.abs(difference) ** power
            if total is None:
                total = difference
            elif power == np.inf:
                np.maximum(total, difference, out=total)
            else:
                total += difference
        return total


class _OracleQueue(_Queue):
    """Rows of a distance oracle."""

    def __init__(self, space, max_eps):
        super().__init__(space.n)
        self.space, self.max_eps = space, max_eps

    def update_from(self, row, core, predecessor):
        """Lower the reachability of rows that are more reachable from ``row`` than before."""
        distances = self.space.rows(np.array([row]))[0][self.rows]
        at = np.flatnonzero(self.unvisited & (distances <= self.max_eps) & (distances < np.inf))
        self.improve(at, distances[at], row, core, predecessor)

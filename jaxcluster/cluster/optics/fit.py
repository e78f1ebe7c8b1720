"""OPTICS from rows to labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.optics import extract
from jaxcluster.cluster.optics.order import DECIMALS, walk
from jaxcluster.core import check
from jaxcluster.core.caution import warn
from jaxcluster.ops.metric_space import as_metric_space, rescale_space
from jaxcluster.ops.neighbors.exact_knn import nearest_rows
from jaxcluster.types import Array, Fit, Int, Status

METHODS = ("xi", "dbscan")
"""Ways to find clusters in an order."""


class OPTICSState(NamedTuple):
    """An order of n rows, as NumPy arrays: float32 would round distances that decide.

    Attributes:
        ordering: (n,) int64 rows in the order they come.
        reachability: (n,) float64, by row, how far it was from those before it; infinite where a walk begins.
        core_distances: (n,) float64, by row, how far the ``min_samples``-th nearest is; infinite beyond ``max_eps``.
        predecessor: (n,) int64, by row, the row it was reached from; -1 where a walk begins.
    """

    ordering: np.ndarray
    reachability: np.ndarray
    core_distances: np.ndarray
    predecessor: np.ndarray


def fit(
    x,
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
) -> Fit:
    """Orders rows so that those of a cluster follow each other, whatever its density, and finds clusters in the order.

    From a row p a row q is reached at max(core(p), d(p, q)), where core(p) is the distance of p's ``min_samples``-th
    nearest row, itself among them. Next comes what is reached most easily from all rows before. The order is that of
    scikit-learn, element for element, where it adds up differences as is done here: by "minkowski" or "manhattan",
    in up to 15 columns and of fewer than n // 2 neighbors, or with a tree. There distances are rounded to 15 decimals;
    here these are counted in the unit of the rows where it is below 2⁻³⁰ or above 2⁴⁰, so that the order does not
    depend on the unit. There is no chance in it, and no gradient.

    Args:
        x: (n, d) concrete rows; (n, n) distances, dense or SciPy sparse, where the metric is "precomputed". Of a pair
            whose distance is absent or infinite on one side, the other side counts. Where both are finite and differ, a
            warning tells so: a row reaches others at the distances of its own row, as in scikit-learn.
        min_samples: rows that make a neighborhood, at least 2; or a share of the rows, in (0, 1].
        max_eps: distance beyond which nothing is reached, in the units of the metric.
        metric, p: see `jaxcluster.ops.metric_space.as_metric_space`.
        method: "xi" for the valleys of the reachability plot (`extract_xi`), "dbscan" for a cut (`extract_dbscan`).
        eps: where "dbscan" cuts; None for ``max_eps``.
        xi, min_cluster_size, predecessor_correction: for "xi".

    Returns:
        `Fit` with an `OPTICSState`, labels (n,) int32 with −1 for noise, steps (rows), status CONVERGED, and an empty
        history. A warning tells that no row is reached from any other.

    Raises:
        ValueError, TypeError: wrong shapes, values or names, NaN or infinity, or rows that are traced.

    Source: see `jaxcluster.cluster.optics.extract`.
    """
    check.check_choice("method", method, METHODS)
    max_eps, eps = check_limits(max_eps, eps, xi)
    space = as_metric_space(x, metric, p=p, symmetric=False)
    count = as_count("min_samples", min_samples, space.n)
    if method == "xi" and min_cluster_size is not None:
        as_count("min_cluster_size", min_cluster_size, space.n)  # the walk is long: what is wrong is told before it
    # Distances are rounded to `DECIMALS` decimals: of rows in a unit of 1e-30 nothing would be left.
    space, exponent = rescale_space(space)
    with np.errstate(over="ignore", under="ignore"):  # beyond all distances, or below them
        reach = float(np.ldexp(max_eps, exponent))
    core = nearest_rows(space, count)[1][:, -1].copy()
    core[core > reach] = np.inf
    np.around(core, DECIMALS, out=core)
    order = walk(space, core, reach)
    with np.errstate(over="ignore", under="ignore"):  # squares of long distances are infinite in the unit of the rows
        lengths = [np.ldexp(each, -exponent) for each in (order.reachability, core)]
    state = OPTICSState(order.ordering, *lengths, order.predecessor)
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
    return Fit(state, labels, steps, status, empty)


def extract_dbscan(state: OPTICSState, eps: float) -> Int[Array, " n"]:
    """Labels like those of DBSCAN with a radius up to ``max_eps`` of the fit, −1 for noise.

    A border row may belong to another cluster than there, or to none.

    Args:
        state: of a fit.
        eps: the radius, in the units of the metric.

    Raises:
        ValueError: ``eps`` is negative.
    """
    check.check_positive("eps", eps, zero=True)
    return jax.device_put(extract.at_distance(state.ordering, state.reachability, state.core_distances, eps))


def extract_xi(
    state: OPTICSState,
    *,
    xi: float = 0.05,
    min_samples: float = 5,
    min_cluster_size: float | None = None,
    predecessor_correction: bool = True,
) -> tuple[Int[Array, " n"], np.ndarray]:
    """Labels and nested clusters from steep changes of reachability.

    Args:
        state: of a fit.
        xi: relative change from one row of the order to the next, from which on it is steep, in [0, 1].
        min_samples: as in the fit: so many rows in a row may be less than steep within a steep area.
        min_cluster_size: rows of a cluster, at least 2; or a share of the rows; None for ``min_samples``.
        predecessor_correction: whether a cluster's last rows must have been reached from within it.

    Returns:
        (n,) int32 labels of the clusters that hold no other, −1 for noise; (c, 2) int64 first and last place of every
        cluster in the order, both included, the smaller before those that hold them.

    Raises:
        ValueError: a value out of its range.
    """
    _check_xi(xi)
    n = len(state.ordering)
    count = as_count("min_samples", min_samples, n)
    size = count if min_cluster_size is None else as_count("min_cluster_size", min_cluster_size, n)
    labels, clusters = extract.in_valleys(
        state.ordering,
        state.reachability,
        state.predecessor,
        xi=xi,
        min_samples=count,
        min_cluster_size=size,
        predecessor_correction=predecessor_correction,
    )
    return jax.device_put(labels), clusters


def as_count(name: str, value: float, n: int) -> int:
    """A count of at least 2 of n rows; of a share of them, so many, but 2 at least."""
    check.check_positive(name, value)
    if value <= 1 and not isinstance(value, (int, np.integer)):
        count = max(2, int(value * n))
    elif value < 2 or value % 1:  # of infinity not a number, which is true
        raise ValueError(f"{name}={value} must be a whole number of at least 2, or a share of the rows in (0, 1].")
    else:
        count = int(value)
    if count > n:
        raise ValueError(
            f"{name} must be no greater than the number of samples ({n}). Got {count}: n_samples={n} should be >= "
            f"{name}={count}. Pass a smaller {name}, or more rows."
        )
    return count


def check_limits(max_eps: float, eps: float | None, xi: float) -> tuple[float, float]:
    """``max_eps`` and ``eps``, which may be None for it; raises on limits that are out of their ranges."""
    max_eps = float(check.check_positive("max_eps", max_eps, zero=True))
    eps = max_eps if eps is None else eps
    _check_eps(eps, max_eps)
    _check_xi(xi)
    return max_eps, eps


def _check_eps(eps, max_eps):
    check.check_positive("eps", eps, zero=True)
    if eps > max_eps:
        raise ValueError(
            f"Specify an epsilon smaller than {max_eps}. Got {eps}: eps={eps} must be at most max_eps={max_eps}, for "
            "beyond that no row was reached."
        )


def _check_xi(xi):
    check.check_positive("xi", xi, zero=True)
    if not xi <= 1:
        raise ValueError(f"xi={xi} must be at most 1.")

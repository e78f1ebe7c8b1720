"""The assignment alone: the cheapest labels of which every cluster has as many rows as it should."""

from __future__ import annotations

import jax
import numpy as np

from jaxcluster.cluster.alternate import costs_of, refuse_traced
from jaxcluster.cluster.balanced.repair import solve
from jaxcluster.cluster.balanced.sizes import check_sizes
from jaxcluster.core import check
from jaxcluster.core.frame import prepare
from jaxcluster.types import Array, Int


def assign(x, centers, *, size_min=None, size_max=None) -> Int[Array, " n"]:
    """Labels of least Σ‖x − c‖² (data units²) among all whose sizes are within the bounds: exact, not rounded.

    Holds the (n, k) squared distances, in float32, or in float64 for float64 rows under JAX's x64 mode.

    Args:
        x: (n, d) concrete rows; each counts once.
        centers: (k, d).
        size_min, size_max: the fewest and the most rows of a cluster, or (k,) of each. None for both is sizes that
            differ by one at most; None for one of them is no bound.

    Returns:
        (n,) int32.

    Raises:
        ValueError, TypeError: wrong shapes or values; bounds that n rows cannot keep, and by how many; traced rows.
    """
    refuse_traced(x, centers)
    centers, x = check.check_matrix(centers, name="centers"), check.check_matrix(x)
    check.check_width(x, centers.shape[1])
    check.check_finite(centers, name="centers")
    sizes = check_sizes(size_min, size_max, x.shape[0], centers.shape[0])
    prepared = prepare(x)
    labels, _ = solve(costs_of(prepared, prepared.frame.enter(centers)), sizes, np.zeros(len(centers)))
    return jax.device_put(labels)


def assign_cost(costs, *, size_min=None, size_max=None) -> Int[Array, " n"]:
    """Labels of least Σ costs[i, label i] among all whose sizes are within the bounds: exact, in float64.

    Args:
        costs: (n, k) concrete and finite, of either sign, in any units: what each row costs in each cluster.
        size_min, size_max: as for `assign`.

    Returns:
        (n,) int32.

    Raises:
        ValueError, TypeError: wrong shapes or values; bounds that n rows cannot keep, and by how many; traced costs.
    """
    refuse_traced(costs)
    costs = np.asarray(check.check_matrix(costs, name="costs"))
    check.check_finite(costs, name="costs")
    n, k = costs.shape
    sizes = check_sizes(size_min, size_max, n, k)
    costs = costs if costs.dtype in (np.float32, np.float64) else costs.astype(np.float64)
    return jax.device_put(solve(costs, sizes, np.zeros(k))[0])

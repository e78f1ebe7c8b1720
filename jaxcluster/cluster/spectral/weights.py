"""From what a user gives, rows or a matrix and the name of an affinity, to an affinity to multiply with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxcluster.core import check
from jaxcluster.core.rows import bucket
from jaxcluster.ops.affinity import Affinity, Matrix, as_affinity, kernel
from jaxcluster.ops.graph import check_affinity, from_matrix, neighbor_graph, neighbor_matrix
from jaxcluster.ops.pairwise import concrete_rows, measure

AFFINITIES = ("rbf", "nearest_neighbors", "precomputed", "precomputed_nearest_neighbors")
"""Affinities by name."""

WRITTEN_OUT = 1 << 25
"""Up to so many pairs of rows a kernel is computed once; beyond, in tiles for every product."""


MEMORY = 1 << 33
"""Bytes that a dense matrix of weights may take."""


def check_input(x: Any, affinity: str | Callable, gamma: Any, n_neighbors: int) -> None:
    """Raises ValueError, TypeError on options that do not fit each other or the rows; values are not looked at."""
    if not callable(affinity):
        check.check_choice("affinity", affinity, AFFINITIES)
    check.check_positive("gamma", gamma)
    if isinstance(x, Affinity) and affinity != "precomputed":
        raise ValueError(f"x is an affinity already: pass affinity='precomputed', not {affinity!r}.")
    if scipy.sparse.issparse(x) and not str(affinity).startswith("precomputed"):
        raise ValueError(f"x is sparse, which affinity={affinity!r} does not take. Pass its rows dense: x.toarray().")
    n = count_rows(x)
    if "nearest_neighbors" in str(affinity) and check.check_count("n_neighbors", n_neighbors) > n:
        raise ValueError(f"n_neighbors={n_neighbors} must be at most the number of rows, {n}. A row is its own first.")


def count_rows(x: Any) -> int:
    """How many rows are to be clustered."""
    if isinstance(x, Affinity):
        return x.n
    return x.shape[0] if scipy.sparse.issparse(x) else check.check_matrix(x).shape[0]


def check_dense(n: int, what: str) -> None:
    """Raises MemoryError where ``what``, a dense matrix of float64 weights of n rows, takes more than `MEMORY`."""
    size = 8 * n**2
    if size > MEMORY:
        raise MemoryError(
            f"{what} takes {size:,} bytes for n_samples={n}, more than {MEMORY:,}. Pass affinity='nearest_neighbors', "
            "which is sparse, or affinity='rbf', which is clustered without it, or use jaxcluster.spectral.nystrom."
        )


def weight_matrix(x: Any, affinity: str | Callable, n_neighbors: int) -> np.ndarray | scipy.sparse.csr_array:
    """The matrix of weights of concrete rows under any affinity but "rbf": float64, dense or CSR, checked.

    Raises:
        ValueError, TypeError: see `jaxcluster.ops.graph.check_affinity` and `jaxcluster.ops.pairwise.measure`.
        MemoryError: so many rows that what a function gives would not fit.
    """
    if affinity == "nearest_neighbors":
        return neighbor_matrix(measure(x), n_neighbors)
    if affinity == "precomputed_nearest_neighbors":
        return neighbor_matrix(measure(x, "precomputed"), n_neighbors)
    if callable(affinity):
        x = concrete_rows(x)
        check_dense(len(x), f"affinity={affinity!r}")
        x = np.asarray(affinity(x, x))
    return check_affinity(x).astype(np.float64)


def padded(x: Any, affinity: str | Callable, gamma: Any, n_neighbors: int) -> Affinity:
    """The affinity of concrete rows in the widest dtype there is, with rows that are not there up to a bucket."""
    if affinity == "rbf":
        x = concrete_rows(x).astype(np.float64)
        rows = bucket(len(x))
        # Distances do not change, and their expansion cancels least about the mean.
        given = kernel(x - x.mean(axis=0), gamma, rows=rows)
        return _written_out(given) if rows**2 <= WRITTEN_OUT else given
    weights = weight_matrix(x, affinity, n_neighbors)
    rows = bucket(weights.shape[0])
    if scipy.sparse.issparse(weights):
        return from_matrix(weights, rows=rows)
    fill = (0, rows - len(weights))
    diagonal = np.diagonal(weights).copy()
    weights = np.pad(weights, fill)
    np.fill_diagonal(weights, 0)
    return Matrix(jnp.asarray(weights), jnp.asarray(np.pad(diagonal, fill)))


def traced(x: Any, affinity: str | Callable, gamma: Any, n_neighbors: int) -> Affinity:
    """The affinity of rows of which some are traced, in their dtype."""
    if affinity == "rbf":
        return kernel(x, gamma)
    if affinity == "nearest_neighbors":
        return neighbor_graph(x, n_neighbors)
    if affinity == "precomputed_nearest_neighbors":
        return from_matrix(neighbor_matrix(measure(x, "precomputed"), n_neighbors))
    return as_affinity(affinity(x, x) if callable(affinity) else x)


@jax.jit
def _written_out(given):
    return given.matrix()

"""From what a user gives, rows or a matrix and the name of an affinity, to an affinity to multiply with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxcluster.core import check, memory
from jaxcluster.core.frame import bucket
from jaxcluster.ops.affinity import Affinity, Matrix, as_affinity, kernel, scale_to_unit
from jaxcluster.ops.graph import check_affinity, from_matrix, neighbor_graph, neighbor_matrix
from jaxcluster.ops.pairwise import concrete_rows, measure

AFFINITIES = ("rbf", "nearest_neighbors", "precomputed", "precomputed_nearest_neighbors")
"""Affinities by name."""

WRITTEN_OUT = 1 << 23
"""Up to so many pairs of rows, 64 MB of weights, a kernel is computed once; beyond, in tiles for every product."""

DENSE_COPIES = 4
"""Tables of dense weights that exist at a time (measured)."""

NEIGHBOR_BYTES = 120
"""Bytes for each neighbor of each row while a graph is made symmetric (measured)."""


def check_input(x: Any, affinity: str | Callable, gamma: Any, n_neighbors: int) -> None:
    """Raises ValueError, TypeError on options that do not fit each other or the rows; values are not looked at."""
    if not callable(affinity):
        check.check_choice("affinity", affinity, AFFINITIES)
    check_gamma(gamma)
    if isinstance(x, Affinity) and affinity != "precomputed":
        raise ValueError(f"x is an affinity already: pass affinity='precomputed', not {affinity!r}.")
    if scipy.sparse.issparse(x) and not str(affinity).startswith("precomputed"):
        raise ValueError(f"x is sparse, which affinity={affinity!r} does not take. Pass its rows dense: x.toarray().")
    n = count_rows(x)
    if "nearest_neighbors" in str(affinity) and check.check_count("n_neighbors", n_neighbors) > n:
        raise ValueError(f"n_neighbors={n_neighbors} must be at most the number of rows, {n}. A row is its own first.")


def check_gamma(gamma: Any) -> None:
    """Raises ValueError, TypeError unless a concrete γ is a positive finite number."""
    if not check.is_traced(check.check_positive("gamma", gamma)) and np.isinf(gamma):
        raise ValueError(f"gamma={gamma} must be finite. Scale the columns of X, so that a smaller gamma does.")


def count_rows(x: Any) -> int:
    """How many rows are to be clustered."""
    if isinstance(x, Affinity):
        return x.n
    return x.shape[0] if scipy.sparse.issparse(x) else check.check_matrix(x).shape[0]


def check_dense(n: int, affinity: Any) -> None:
    """Raises MemoryError where dense float64 weights of all pairs of n rows take more than there is."""
    memory.check(
        DENSE_COPIES * 8 * n**2,
        f"the weights of all pairs of {n:,} rows (affinity={affinity!r})",
        "Pass affinity='nearest_neighbors', which is sparse, or affinity='rbf', which is clustered without them, or "
        "use jaxcluster.spectral.nystrom.",
    )


def check_neighbors(n: int, n_neighbors: int) -> None:
    """Raises MemoryError where the graph of so many neighbors of n rows takes more than there is."""
    what = f"the graph of {n_neighbors:,} neighbors of {n:,} rows"
    memory.check(NEIGHBOR_BYTES * n * n_neighbors, f"the edges of {what}", "Lower n_neighbors, or pass fewer rows.")


def weight_matrix(x: Any, affinity: str | Callable, n_neighbors: int) -> np.ndarray | scipy.sparse.csr_array:
    """The matrix of weights of concrete rows under any affinity but "rbf": float64, dense or CSR, checked.

    Raises:
        ValueError, TypeError: see `jaxcluster.ops.graph.check_affinity` and `jaxcluster.ops.pairwise.measure`.
        MemoryError: so many rows that what a function gives would not fit.
    """
    if "nearest_neighbors" in str(affinity):
        check_neighbors(count_rows(x), n_neighbors)
    if affinity == "nearest_neighbors":
        return neighbor_matrix(measure(x), n_neighbors)
    if affinity == "precomputed_nearest_neighbors":
        return neighbor_matrix(measure(x, "precomputed"), n_neighbors)
    if callable(affinity):
        x = concrete_rows(x)
        check_dense(len(x), affinity)
        x = np.asarray(affinity(x, x))
    elif not scipy.sparse.issparse(x) and not isinstance(x, Affinity):
        check_dense(np.shape(x)[0], affinity)
    return check_affinity(x).astype(np.float64)


class Padded(NamedTuple):
    """The affinity of n concrete rows in float64, with rows that are not there up to a bucket.

    Attributes:
        affinity: the weights over 4^exponent, of which the first n rows are there.
        n: see above.
        exponent: see above; see `jaxcluster.ops.affinity.scale_to_unit`.
    """

    affinity: Affinity
    n: int
    exponent: int


def padded(x: Any, affinity: str | Callable, gamma: Any, n_neighbors: int) -> Padded:
    """The affinity of concrete rows, under ``jax.enable_x64(True)``."""
    if affinity == "rbf":
        x = concrete_rows(x)
        given = kernel(x.astype(np.float64), gamma, padded=True)
        return Padded(_written_out(given) if given.n**2 <= WRITTEN_OUT else given, len(x), 0)
    weights, exponent = scale_to_unit(weight_matrix(x, affinity, n_neighbors))
    n, rows = weights.shape[0], bucket(weights.shape[0])
    if scipy.sparse.issparse(weights):
        return Padded(from_matrix(weights, rows=rows), n, exponent)
    fill = (0, rows - n)
    diagonal = np.diagonal(weights).copy()
    weights = np.pad(weights, fill)
    np.fill_diagonal(weights, 0)
    return Padded(Matrix(jnp.asarray(weights), jnp.asarray(np.pad(diagonal, fill))), n, exponent)


def traced(x: Any, affinity: str | Callable, gamma: Any, n_neighbors: int) -> Affinity:
    """The affinity of rows of which some are traced, in their dtype."""
    if affinity == "rbf":
        return kernel(x, gamma)
    if affinity == "nearest_neighbors":
        return neighbor_graph(x, n_neighbors)
    if affinity == "precomputed_nearest_neighbors":
        return from_matrix(neighbor_matrix(measure(x, "precomputed"), n_neighbors))
    return as_affinity(affinity(x, x) if callable(affinity) else x, any_unit=True)


@jax.jit
def _written_out(given):
    return given.matrix()

"""Affinities of user input: samples or a matrix, and an affinity by name or as a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.sharding import Mesh

from jaxcluster.core import memory, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.preparation import padded_size
from jaxcluster.core.processes import agree_on_key, gather_parts, spans_processes
from jaxcluster.core.shard import own_mesh
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.ops.affinity import (
    Affinity,
    AffinityShards,
    Kernel,
    Matrix,
    as_affinity,
    graph_shards,
    kernel,
    scale_to_unit,
    to_shards,
)
from jaxcluster.ops.graph import check_affinity, from_matrix, neighbor_graph, neighbor_matrix
from jaxcluster.ops.metric_space import as_metric_space, concrete_rows, float64_tables
from jaxcluster.types import KeyArray

AFFINITIES = ("rbf", "nearest_neighbors", "precomputed", "precomputed_nearest_neighbors")
"""Affinities by name."""

MAX_DENSE_KERNEL = 1 << 23
"""Pairs of rows (64 MB of float64) up to which a kernel is computed once; beyond, in tiles for every product."""

DENSE_COPIES = 4
"""Dense weight matrices that exist at a time (measured)."""

NEIGHBOR_BYTES = 120
"""Bytes for each neighbor of each row while a graph is made symmetric (measured)."""


def check_options(x: Any, affinity: str | Callable, gamma: Any, n_neighbors: int) -> None:
    """Raise ValueError, TypeError for options that do not fit each other or the rows; values are not checked."""
    if not callable(affinity):
        validation.check_choice("affinity", affinity, AFFINITIES)
    check_gamma(gamma)
    if isinstance(x, Affinity) and affinity != "precomputed":
        raise ValueError(f"x is an affinity already: pass affinity='precomputed', not {affinity!r}.")
    if is_sparse(x) and not str(affinity).startswith(("precomputed", "nearest_neighbors")):
        raise ValueError(
            f"x is sparse, which affinity={affinity!r} does not take. Pass affinity='nearest_neighbors'. Or: "
            f"{validation.dense_remedy(x, 'x')}"
        )
    n = count_samples(x)
    if "nearest_neighbors" in str(affinity) and validation.check_count("n_neighbors", n_neighbors) > n:
        raise ValueError(f"n_neighbors={n_neighbors} must be at most the number of rows, {n}. A row is its own first.")


def check_gamma(gamma: Any) -> None:
    """Raise ValueError, TypeError unless a concrete γ is a positive finite number."""
    if not validation.is_traced(validation.check_positive("gamma", gamma)) and np.isinf(gamma):
        raise ValueError(f"gamma={gamma} must be finite. Scale the columns of X, so that a smaller gamma does.")


def count_samples(x: Any) -> int:
    """Number of samples."""
    if isinstance(x, Affinity):
        return x.n
    return x.shape[0] if is_sparse(x) else validation.check_matrix(x).shape[0]


def check_dense_memory(n: int, affinity: Any) -> None:
    """Raise MemoryError if dense float64 weights of all pairs of n rows do not fit."""
    memory.check(
        DENSE_COPIES * 8 * n**2,
        f"the weights of all pairs of {n:,} rows (affinity={affinity!r})",
        "Pass affinity='nearest_neighbors', which is sparse, or affinity='rbf', which is clustered without them, or "
        "use jaxcluster.spectral.nystrom.",
    )


def check_neighbors_memory(n: int, n_neighbors: int) -> None:
    """Raise MemoryError if the graph of so many neighbors of n rows does not fit."""
    edges = f"the edges of the graph of {n_neighbors:,} neighbors of {n:,} rows"
    memory.check(NEIGHBOR_BYTES * n * n_neighbors, edges, "Lower n_neighbors, or pass fewer rows.")


def affinity_matrix(
    x: Any, affinity: str | Callable, n_neighbors: int, mesh: Mesh | None = None
) -> np.ndarray | scipy.sparse.csr_array:
    """Checked affinity matrix of concrete rows, float64, dense or CSR, for any affinity but "rbf".

    The nearest neighbors of rows are searched for by the devices of a mesh.

    Raises:
        ValueError, TypeError: see `ops.graph.check_affinity` and `ops.metric_space.as_metric_space`.
        MemoryError: weights that do not fit.
    """
    if "nearest_neighbors" in str(affinity):
        check_neighbors_memory(count_samples(x), n_neighbors)
    if affinity == "nearest_neighbors":
        return neighbor_matrix(as_metric_space(x), n_neighbors, mesh)
    if affinity == "precomputed_nearest_neighbors":
        return neighbor_matrix(as_metric_space(x, "precomputed"), n_neighbors)
    if callable(affinity):
        x = concrete_rows(x)
        check_dense_memory(len(x), affinity)
        x = np.asarray(affinity(x, x))
    elif not scipy.sparse.issparse(x) and not isinstance(x, Affinity):
        check_dense_memory(np.shape(x)[0], affinity)
    return check_affinity(x).astype(np.float64)


class GatheredInput(NamedTuple):
    """Input of a fit in which each process has the rows of all.

    Attributes:
        key: of the first process.
        x: the rows of all, or weights between them.
        affinity: the affinity, or "precomputed".
        mesh: devices of this process.
        own: slice of its rows.
    """

    key: KeyArray
    x: Any
    affinity: Any
    mesh: Mesh | None
    own: slice


def gather_input(key: KeyArray, x: Any, affinity: Any, n_neighbors: int, mesh: Mesh | None) -> GatheredInput:
    """Input of a fit over a mesh; where it spans processes, their devices search for the neighbors of all rows.

    The solver steps until it has converged, in chunks whose sizes follow the clock: each process runs its own.

    Raises:
        ValueError: precomputed weights or distances over several processes.
    """
    if not spans_processes(mesh):
        return GatheredInput(key, x, affinity, mesh, slice(None))
    if isinstance(x, Affinity) or str(affinity).startswith("precomputed"):
        raise ValueError(f"affinity={affinity!r} is for one process, which has the weights of all pairs: pass rows.")
    x, own = gather_parts(mesh, x)
    if affinity == "nearest_neighbors":
        x, affinity = affinity_matrix(x, affinity, n_neighbors, mesh), "precomputed"
    return GatheredInput(agree_on_key(key, mesh), x, affinity, own_mesh(mesh), own)


class PaddedAffinity(NamedTuple):
    """Affinity of n concrete rows in float64, padded to `padded_size`.

    Attributes:
        affinity: weights over 4^exponent; rows from n on are padding. With a mesh, `AffinityShards`.
        n: number of rows.
        exponent: see `jaxcluster.ops.affinity.scale_to_unit`.
    """

    affinity: Affinity | AffinityShards
    n: int
    exponent: int


def padded_affinity(
    x: Any, affinity: str | Callable, gamma: Any, n_neighbors: int, mesh: Mesh | None = None
) -> PaddedAffinity:
    """Padded affinity of concrete rows, under ``jax.enable_x64(True)``; with a mesh its rows are spread over it."""
    if affinity == "rbf":
        # Not astype(float64): integers beyond 2^53 keep their differences.
        (x,) = float64_tables("sqeuclidean", concrete_rows(x))
        weights = kernel(x, gamma, padded=True)
        if mesh is not None:
            weights = to_shards(_padded_kernel(weights, -weights.n % mesh.size), mesh)
        return PaddedAffinity(_dense_kernel(weights) if weights.n**2 <= MAX_DENSE_KERNEL else weights, len(x), 0)
    weights, exponent = scale_to_unit(affinity_matrix(x, affinity, n_neighbors, mesh))
    n, rows = weights.shape[0], padded_size(weights.shape[0])
    rows += 0 if mesh is None else -rows % mesh.size
    if scipy.sparse.issparse(weights):
        graph = from_matrix(weights, rows=rows) if mesh is None else graph_shards(weights, rows, mesh)
        return PaddedAffinity(graph, n, exponent)
    padding = (0, rows - n)
    diagonal = np.diagonal(weights).copy()
    weights = np.pad(weights, padding)
    np.fill_diagonal(weights, 0)
    dense = Matrix._make([weights, np.pad(diagonal, padding)])
    return PaddedAffinity(jax.device_put(dense) if mesh is None else to_shards(dense, mesh), n, exponent)


def traced_affinity(x: Any, affinity: str | Callable, gamma: Any, n_neighbors: int) -> Affinity:
    """Affinity of traced rows, in their dtype."""
    if affinity == "rbf":
        return kernel(x, gamma)
    if affinity == "nearest_neighbors":
        return neighbor_graph(x, n_neighbors)
    if affinity == "precomputed_nearest_neighbors":
        return from_matrix(neighbor_matrix(as_metric_space(x, "precomputed"), n_neighbors))
    return as_affinity(affinity(x, x) if callable(affinity) else x, any_unit=True)


def _padded_kernel(weights, short):
    return Kernel(jnp.pad(weights.x, ((0, short), (0, 0))), jnp.pad(weights.scale, (0, short)))


@persistent_jit
def _dense_kernel(affinity):
    return affinity.matrix()

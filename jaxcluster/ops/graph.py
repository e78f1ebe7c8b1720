"""Sparse graphs as arrays of fixed shape, which work under jit: construction, products, connected components.

A row of a graph has ``width`` slots for its neighbors; further neighbors go to spill lines that are added to it. A
product is then a fixed number of gathers that XLA fuses, with scattered additions for the few rows of many neighbors
only: several times as fast on CPUs as sorted segment sums, and as SciPy's product.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxcluster.core import signals, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import float_dtype
from jaxcluster.core.preparation import padded_size
from jaxcluster.ops.metric_space import DistanceOracle, MetricSpace, as_metric_space, rescale_space
from jaxcluster.ops.neighbors.exact_knn import k_nearest
from jaxcluster.ops.neighbors.ring import nearest_rows_over
from jaxcluster.ops.precomputed import check_distances
from jaxcluster.types import Array, Float, Int

WIDTHS = (4, 8, 16, 32)
"""Numbers of slots of a row: each slot is a gather in the compiled program."""

TRACED_WIDTH = 16
"""Slots of a row in a traced graph, whose numbers of neighbors are unknown when it compiles."""

SPILL_COST = 2
"""Cost of a spill line, in lines of a row's first slots."""


class Graph(NamedTuple):
    """Weighted undirected graph of n rows: a sparse symmetric matrix W.

    Empty slots have weight 0. Two slots of a row may hold the same neighbor: their weights add up. A block of m of n
    rows is a graph too: its columns are numbers of all rows, and it multiplies blocks of vectors of all rows.

    Attributes:
        columns, weights: (n, width) neighbors of each row and the weights of the edges to them.
        spill_rows: (m,) rows with more neighbors than slots.
        spill_columns, spill_weights: (m, width) their further neighbors and weights.
        diagonal: (n,) weights of rows to themselves, which are in no slot.
    """

    columns: Int[Array, "n width"]
    weights: Float[Array, "n width"]
    spill_rows: Int[Array, " m"]
    spill_columns: Int[Array, "m width"]
    spill_weights: Float[Array, "m width"]
    diagonal: Float[Array, " n"]

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.diagonal.shape[0]

    def multiply(self, v: Float[Array, "n b"]) -> Float[Array, "m b"]:
        """Product without the diagonal with a block of vectors."""
        out = _gather_product(self.columns, self.weights, v)
        if not self.spill_rows.shape[0]:
            return out
        return out.at[self.spill_rows].add(_gather_product(self.spill_columns, self.spill_weights, v))

    def degrees(self) -> Float[Array, " n"]:
        """Sum of each row without the diagonal."""
        return jnp.sum(self.weights, axis=1).at[self.spill_rows].add(jnp.sum(self.spill_weights, axis=1))

    def scaled(self, scale: Float[Array, " n"], own: Float[Array, " m"] | None = None) -> Graph:
        """Graph with weights scale_i · w_ij · scale_j; ``own`` is the scale of the rows of a block."""
        own = scale if own is None else own
        return self._replace(
            weights=self.weights * own[:, None] * scale[self.columns],
            spill_weights=self.spill_weights * own[self.spill_rows, None] * scale[self.spill_columns],
            diagonal=self.diagonal * own * own,
        )

    def min_neighbor_label(self, labels: Int[Array, " n"], own: Int[Array, " m"] | None = None) -> Int[Array, " m"]:
        """Least label of each row and its neighbors; ``own`` are the labels of the rows of a block."""
        own = labels if own is None else own
        most = jnp.iinfo(labels.dtype).max
        out = jnp.min(jnp.where(self.weights != 0, labels[self.columns], most), axis=1)
        spilled = jnp.min(jnp.where(self.spill_weights != 0, labels[self.spill_columns], most), axis=1)
        return jnp.minimum(own, out.at[self.spill_rows].min(spilled))


def neighbor_matrix(space: MetricSpace | DistanceOracle, k: int, mesh: Any = None) -> scipy.sparse.csr_array:
    """Adjacency ½(A + Aᵀ), (n, n) float64: A has a 1 at the k nearest rows of each row, itself among them.

    Nearest rows do not depend on the unit of the rows. With a mesh they are searched for by its devices.

    Raises:
        ValueError: k is not between 1 and n; a metric that `jaxcluster.ops.neighbors.ring` does not compute on a mesh.
    """
    if isinstance(space, MetricSpace):
        space, _ = rescale_space(space)
    index, distances = nearest_rows_over(space, k, mesh)
    rows = np.repeat(np.arange(space.n), k)
    there = np.isfinite(distances).ravel()  # a sparse matrix of distances may hold fewer than k of a row
    one_way = scipy.sparse.csr_array((np.ones(there.sum()), (rows[there], index.ravel()[there])), (space.n, space.n))
    return symmetrized(one_way)


def neighbor_graph(x: Float[Array, "n d"] | np.ndarray, k: int, *, metric: str = "euclidean", p: float = 2.0) -> Graph:
    """Graph ½(A + Aᵀ) of k nearest neighbors, with A as scikit-learn's ``kneighbors_graph(include_self=True)``.

    Args:
        x: (n_samples, n_features) rows; distances are float64 for concrete ones, else in their dtype.
        k: neighbors of each row, itself among them; static.
        metric, p: as in `jaxcluster.ops.neighbors.exact_knn.k_nearest`.

    Raises:
        ValueError, TypeError: see `jaxcluster.ops.metric_space.as_metric_space`; k is not between 1 and n.
    """
    if not validation.is_traced(x):
        return from_matrix(neighbor_matrix(as_metric_space(x, metric, p=p), k))
    n, x = x.shape[0], jnp.asarray(validation.widen(x))
    x = x.astype(float_dtype(x.dtype))
    k = validation.check_clusters(k, n, name="n_neighbors")
    index, _ = k_nearest(x, k, metric=metric, p=p)
    here, there = jnp.repeat(jnp.arange(n, dtype=jnp.int32), k), index.ravel()
    rows, columns = jnp.append(here, there), jnp.append(there, here)
    order = jnp.argsort(rows, stable=True)
    rows, columns = rows[order], columns[order]
    weights = jnp.where(rows == columns, 0.0, jnp.full(rows.shape, 0.5, x.dtype)).astype(x.dtype)
    diagonal = jnp.zeros((n,), x.dtype).at[jnp.where(here == there, here, n)].set(1, mode="drop")
    at = _slot_positions(jnp, rows, jnp.bincount(rows, length=n), TRACED_WIDTH)
    # A row of c entries spills to fewer than c / width lines, which bounds the lines of all rows together:
    lines = n + len(rows) // TRACED_WIDTH
    slots = jnp.zeros((lines, TRACED_WIDTH), jnp.int32).at[at].set(columns)
    slot_weights = jnp.zeros((lines, TRACED_WIDTH), x.dtype).at[at].set(weights)
    return _as_graph(slots, slot_weights, jnp.zeros((lines,), jnp.int32).at[at[0]].set(rows), diagonal)


def symmetrized(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Symmetric part ½(A + Aᵀ)."""
    return scipy.sparse.csr_array(0.5 * (matrix + matrix.T))


def from_matrix(matrix: Any, *, rows: int | None = None, name: str = "affinity") -> Graph:
    """Graph of a concrete symmetric matrix of weights >= 0, dense or SciPy sparse.

    Args:
        matrix: (n, n) weights.
        rows: number of rows of the graph, padded by rows without neighbors; None for n.
        name: name of the matrix in messages.

    Raises:
        ValueError, TypeError: a matrix that is not square, symmetric, finite and non-negative, and where; weights
            beyond the range of the dtype of the computation.
    """
    matrix = check_affinity(matrix, name=name)
    check_range(matrix, name)
    return jax.device_put(host_graph(matrix, rows or matrix.shape[0]))


def host_graph(matrix: Any, rows: int, blocks: int = 1) -> Graph:
    """`from_matrix` of a checked matrix, on the host.

    Args:
        matrix: (n, n) weights, dense or SciPy sparse.
        rows: number of rows of the graph.
        blocks: number of blocks of equally many rows, which it divides. The spill lines of each follow each other, as
            many of every block, and ``spill_rows`` count from its first row.
    """
    entries = scipy.sparse.coo_array(scipy.sparse.csr_array(matrix))  # sorted by row
    diagonal = np.zeros(rows)
    diagonal[: matrix.shape[0]] = matrix.diagonal()
    kept = (entries.row != entries.col) & (entries.data != 0)
    here, there, weights = (np.asarray(part)[kept] for part in (entries.row, entries.col, entries.data))
    signals.check_stopped()  # with thousands of neighbors each pass over the edges takes seconds
    counts = np.bincount(here, minlength=rows)
    spills = [int(np.sum(np.maximum(-(-counts // width) - 1, 0))) for width in WIDTHS]
    width, spill = min(zip(WIDTHS, spills, strict=True), key=lambda pair: pair[0] * (rows + SPILL_COST * pair[1]))
    # Spill lines of each block, and the most of any: blocks have the same shape.
    further = np.maximum(-(-counts // width) - 1, 0).reshape(blocks, -1).sum(axis=1)
    room = padded_size(int(further.max())) if spill else 0
    line, slot = _slot_positions(np, here, counts, width)
    block = here // (rows // blocks)
    line = np.where(line < rows, line, line + block * room - (np.cumsum(further) - further)[block])
    signals.check_stopped()
    lines = rows + blocks * room
    slots, slot_weights, owners = (
        np.zeros((lines, width), np.int32),
        np.zeros((lines, width)),
        np.zeros(lines, np.int32),
    )
    slots[line, slot], slot_weights[line, slot], owners[line] = there, weights, here % (rows // blocks)
    dtype = jax.dtypes.canonicalize_dtype(float)
    return _as_graph(slots, slot_weights.astype(dtype), owners, diagonal.astype(dtype))


def check_affinity(matrix: Any, *, name: str = "affinity") -> Any:
    """Check of a matrix of weights, as a NumPy or CSR matrix. Raises ValueError, TypeError, as `from_matrix` does."""
    sparse = scipy.sparse.issparse(matrix)
    if sparse and matrix.ndim != 2:
        raise ValueError(f"{name} must be 2-D (rows, columns), got shape {matrix.shape}.")
    matrix = scipy.sparse.csr_array(matrix) if sparse else np.asarray(validation.check_matrix(matrix, name=name))
    if matrix.dtype not in (np.float32, np.float64):  # booleans and unsigned integers have no difference
        matrix = matrix.astype(np.float64)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} must be a square matrix of the weights of all pairs of rows, got {matrix.shape}.")
    validation.check_finite(matrix.data if sparse else matrix, name=name)
    if sparse and not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return check_distances(matrix, name=name)


def check_range(matrix: Any, name: str) -> None:
    """Raise ValueError if the largest weight is beyond the normal numbers of the dtype of the computation."""
    # Smaller weights that underflow beside it would change nothing.
    info = jnp.finfo(float_dtype(np.float64))
    largest = float((matrix.data if scipy.sparse.issparse(matrix) else matrix).max(initial=0))
    # Less than tiny/eps: weights that are eps times as large would be subnormal, and lose digits.
    if largest > info.max or 0 < largest < info.tiny / info.eps:
        raise ValueError(
            f"{name} has weights up to {largest:.3g}, beyond what {info.dtype} holds. Divide them by {largest:.3g}: "
            "normalized cuts and embeddings have no unit."
        )


@persistent_jit
def components(affinity: Any) -> Int[Array, " n"]:
    """Connected component of each row of an affinity, labeled by the least row in it: (n,) int32.

    Label propagation of minima between neighbors, with pointer jumping: chains of labels halve in each jump.
    """
    rows = jnp.arange(affinity.n, dtype=jnp.int32)

    def jump(parents):
        return parents[parents]

    def join(carry):
        labels, _ = carry
        # Each component takes the least label among its neighbors; pointer jumping then leads every label to the root
        # of its tree in a logarithm of its depth, so that few rounds suffice whatever the diameter of the graph.
        parents = rows.at[labels].min(affinity.min_neighbor_label(labels))
        parents = jax.lax.while_loop(lambda parents: jnp.any(jump(parents) != parents), jump, parents)
        return parents[labels], jnp.any(parents[labels] != labels)

    return jax.lax.while_loop(lambda carry: carry[1], join, (rows, jnp.array(True)))[0]


def _gather_product(columns, weights, v) -> Any:
    """Product Σ_j weights_ij · v[columns_ij] of all rows."""
    # A Python loop over the slots: XLA fuses it into one loop, and would not fuse a sum over an axis.
    total = 0
    for slot in range(columns.shape[1]):
        total = total + weights[:, slot, None] * v.at[columns[:, slot]].get(mode="promise_in_bounds")
    return total


def _slot_positions(xp, rows, counts, width):
    """Positions of edges that are sorted by row; lines from n on are spill lines.

    Args:
        xp: NumPy or jax.numpy: on the host another number of edges compiles nothing.

    Returns:
        The line and the slot of each edge.
    """
    start, further = xp.cumsum(counts) - counts, xp.maximum(-(-counts // width) - 1, 0)
    position = xp.arange(len(rows)) - start[rows]
    line, before = position // width, xp.cumsum(further) - further
    return xp.where(line == 0, rows, len(counts) + before[rows] + line - 1), position % width


def _as_graph(slots, slot_weights, owners, diagonal):
    n = diagonal.shape[0]
    return Graph(slots[:n], slot_weights[:n], owners[n:], slots[n:], slot_weights[n:], diagonal)

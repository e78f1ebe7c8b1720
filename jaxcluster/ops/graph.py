"""Sparse graphs as arrays of fixed shape, so that they work under jit: built, multiplied with, and taken apart.

A row of a graph has ``width`` slots for its neighbors; what a row has more goes to further rows of slots that are
added to it. Multiplying is then a fixed number of gathers that XLA fuses, with scattered additions only for the few
rows of many neighbors: several times as fast on CPUs as sorted segment sums, and as SciPy's product.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxcluster.core import check
from jaxcluster.core.frame import bucket, float_dtype
from jaxcluster.ops.neighbors import nearest_rows
from jaxcluster.ops.pairwise import Pairwise, Space, check_distances, framed, measure, tiles
from jaxcluster.ops.topk import k_nearest
from jaxcluster.types import Array, Float, Int

WIDTHS = (4, 8, 16, 32)
"""Slots a row may have: every one is a gather in the compiled program."""

TRACED_WIDTH = 16
"""Slots of a row where how many neighbors it has is not known when the program is made."""


SPILL_COST = 2
"""A line of slots that is added to its row costs so many that are a row's first."""


class Graph(NamedTuple):
    """A weighted undirected graph of n rows: a symmetric matrix W of which only some entries are there.

    Slots that hold nothing have weight 0. Two slots of one row may hold the same neighbor: their weights add up.

    Attributes:
        columns, weights: (n, width) neighbors of each row and the weights of the edges to them.
        spill_rows: (m,) the rows that have more neighbors than slots.
        spill_columns, spill_weights: (m, width) what else these have.
        diagonal: (n,) the weights of rows to themselves, which are in no slot.
    """

    columns: Int[Array, "n width"]
    weights: Float[Array, "n width"]
    spill_rows: Int[Array, " m"]
    spill_columns: Int[Array, "m width"]
    spill_weights: Float[Array, "m width"]
    diagonal: Float[Array, " n"]

    @property
    def n(self) -> int:
        """How many rows there are."""
        return self.diagonal.shape[0]

    def links(self, v: Float[Array, "n b"]) -> Float[Array, "n b"]:
        """The product of W without its diagonal with a block of vectors."""
        out = _gathered(self.columns, self.weights, v)
        if not self.spill_rows.shape[0]:
            return out
        return out.at[self.spill_rows].add(_gathered(self.spill_columns, self.spill_weights, v))

    def degrees(self) -> Float[Array, " n"]:
        """What the weights of each row add up to, without the diagonal."""
        return jnp.sum(self.weights, axis=1).at[self.spill_rows].add(jnp.sum(self.spill_weights, axis=1))

    def scaled(self, scale: Float[Array, " n"]) -> Graph:
        """The graph of weights scale_i · w_ij · scale_j."""
        return self._replace(
            weights=self.weights * scale[:, None] * scale[self.columns],
            spill_weights=self.spill_weights * scale[self.spill_rows, None] * scale[self.spill_columns],
            diagonal=self.diagonal * scale * scale,
        )

    def least(self, labels: Int[Array, " n"]) -> Int[Array, " n"]:
        """The least of the labels of each row and its neighbors."""
        most = jnp.iinfo(labels.dtype).max
        out = jnp.min(jnp.where(self.weights != 0, labels[self.columns], most), axis=1)
        spilt = jnp.min(jnp.where(self.spill_weights != 0, labels[self.spill_columns], most), axis=1)
        return jnp.minimum(labels, out.at[self.spill_rows].min(spilt))


def neighbor_matrix(space: Space | Pairwise, k: int) -> scipy.sparse.csr_array:
    """½(A + Aᵀ) of concrete rows, (n, n) float64: A has a 1 at the k nearest rows of each row, itself among them.

    Which rows are nearest does not depend on the unit of the rows.

    Raises:
        ValueError: k is not between 1 and n.
    """
    if isinstance(space, Space):
        space, _ = framed(space)
    index, distances = nearest_rows(space, k)
    rows = np.repeat(np.arange(space.n), k)
    there = np.isfinite(distances).ravel()  # a sparse matrix of distances may hold fewer than k of a row
    one_way = scipy.sparse.csr_array((np.ones(there.sum()), (rows[there], index.ravel()[there])), (space.n, space.n))
    return symmetrized(one_way)


def neighbor_graph(x: Float[Array, "n d"] | np.ndarray, k: int, *, metric: str = "euclidean", p: float = 2.0) -> Graph:
    """The graph of k nearest rows, ½(A + Aᵀ), as scikit-learn's ``kneighbors_graph(include_self=True)`` has A.

    Args:
        x: (n, d) rows. Concrete ones are measured in float64, traced ones in their own dtype.
        k: neighbors of each row, itself among them; static.
        metric, p: as in `jaxcluster.ops.topk.k_nearest`.

    Raises:
        ValueError, TypeError: see `jaxcluster.ops.pairwise.measure`; k is not between 1 and n.
    """
    if not check.is_traced(x):
        return from_matrix(neighbor_matrix(measure(x, metric, p=p), k))
    n, x = x.shape[0], check.widen(x)
    x = x.astype(float_dtype(x.dtype))
    k = check.check_clusters(k, n, name="n_neighbors")
    index, _ = k_nearest(x, k, metric=metric, p=p)
    here, there = jnp.repeat(jnp.arange(n, dtype=jnp.int32), k), index.ravel()
    rows, columns = jnp.append(here, there), jnp.append(there, here)
    order = jnp.argsort(rows, stable=True)
    rows, columns = rows[order], columns[order]
    weights = jnp.where(rows == columns, 0.0, jnp.full(rows.shape, 0.5, x.dtype)).astype(x.dtype)
    diagonal = jnp.zeros((n,), x.dtype).at[jnp.where(here == there, here, n)].set(1, mode="drop")
    at = _places(jnp, rows, jnp.bincount(rows, length=n), TRACED_WIDTH)
    # A row of c entries spills to fewer than c / width lines of slots, and all rows together to so many at most:
    lines = n + len(rows) // TRACED_WIDTH
    slots = jnp.zeros((lines, TRACED_WIDTH), jnp.int32).at[at].set(columns)
    held = jnp.zeros((lines, TRACED_WIDTH), x.dtype).at[at].set(weights)
    return _as_graph(slots, held, jnp.zeros((lines,), jnp.int32).at[at[0]].set(rows), diagonal)


def radius_graph(x: Any, radius: float, *, metric: str = "euclidean", p: float = 2.0) -> Graph:
    """The graph whose edges, of weight 1, join concrete rows at most ``radius`` apart, measured in float64.

    Raises:
        ValueError, TypeError: see `jaxcluster.ops.pairwise.measure`; a radius that is not positive.
    """
    check.check_positive("radius", radius)
    space, exponent = framed(measure(x, metric, p=p))
    with np.errstate(over="ignore", under="ignore"):
        reach = np.ldexp(float(radius), exponent)
    near = [scipy.sparse.csr_array((space.rows(index) <= reach).astype(float)) for index in tiles(space.n)]
    return from_matrix(scipy.sparse.csr_array(scipy.sparse.vstack(near)))


def symmetrized(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """½(A + Aᵀ)."""
    return scipy.sparse.csr_array(0.5 * (matrix + matrix.T))


def from_matrix(matrix: Any, *, rows: int | None = None, name: str = "affinity") -> Graph:
    """A symmetric matrix of weights >= 0, dense or SciPy sparse and concrete, as a graph of its entries.

    Args:
        matrix: (n, n).
        rows: filled up to this many rows with rows that have no neighbors; None for n.
        name: what a message calls the matrix.

    Raises:
        ValueError, TypeError: a matrix that is not square, symmetric, finite and non-negative, and where; weights that
            leave the range of the dtype they are computed in.
    """
    matrix = check_affinity(matrix, name=name)
    check_range(matrix, name)
    n = rows or matrix.shape[0]
    entries = scipy.sparse.coo_array(scipy.sparse.csr_array(matrix))  # sorted by row
    diagonal = np.zeros(n)
    diagonal[: matrix.shape[0]] = matrix.diagonal()
    kept = (entries.row != entries.col) & (entries.data != 0)
    here, there, weights = (np.asarray(part)[kept] for part in (entries.row, entries.col, entries.data))
    counts = np.bincount(here, minlength=n)
    spills = [int(np.sum(np.maximum(-(-counts // width) - 1, 0))) for width in WIDTHS]
    width, spill = min(zip(WIDTHS, spills, strict=True), key=lambda pair: pair[0] * (n + SPILL_COST * pair[1]))
    lines = n + (bucket(spill) if spill else 0)
    line, slot = _places(np, here, counts, width)
    slots, held, owners = np.zeros((lines, width), np.int32), np.zeros((lines, width)), np.zeros(lines, np.int32)
    slots[line, slot], held[line, slot], owners[line] = there, weights, here
    dtype = jax.dtypes.canonicalize_dtype(float)
    return jax.device_put(_as_graph(slots, held.astype(dtype), owners, diagonal.astype(dtype)))


def check_affinity(matrix: Any, *, name: str = "affinity") -> Any:
    """``matrix`` as a NumPy or CSR matrix of weights. Raises ValueError, TypeError, as `from_matrix` does."""
    sparse = scipy.sparse.issparse(matrix)
    matrix = scipy.sparse.csr_array(matrix) if sparse else np.asarray(check.check_matrix(matrix, name=name))
    if matrix.dtype not in (np.float32, np.float64):  # of booleans and unsigned integers there is no difference
        matrix = matrix.astype(np.float64)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} must be a square matrix of the weights of all pairs of rows, got {matrix.shape}.")
    check.check_finite(matrix.data if sparse else matrix, name=name)
    if sparse and not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return check_distances(matrix, name=name)


def check_range(matrix: Any, name: str) -> None:
    """Raises ValueError for weights of which the largest is beyond the normal numbers of the dtype of the computation.

    Smaller ones that are lost beside it would change nothing.
    """
    info = jnp.finfo(float_dtype(np.float64))
    largest = float((matrix.data if scipy.sparse.issparse(matrix) else matrix).max(initial=0))
    if largest > info.max or 0 < largest < info.tiny / info.eps:
        raise ValueError(
            f"{name} has weights up to {largest:.3g}, beyond what {info.dtype} holds. Divide them by {largest:.3g}: "
            "normalized cuts and embeddings have no unit."
        )


@jax.jit
def components(affinity: Any) -> Int[Array, " n"]:
    """The connected component of each row, named by the least row in it: (n,) int32.

    Every label gives way to the least that it meets, and what two labels meet in is one component; chains of labels are
    followed to their end in jumps that double. Takes a `Graph`, or another affinity with its ``least``.
    """
    rows = jnp.arange(affinity.n, dtype=jnp.int32)

    def jump(parents):
        return parents[parents]

    def join(carry):
        labels, _ = carry
        parents = rows.at[labels].min(affinity.least(labels))
        parents = jax.lax.while_loop(lambda parents: jnp.any(jump(parents) != parents), jump, parents)
        return parents[labels], jnp.any(parents[labels] != labels)

    return jax.lax.while_loop(lambda carry: carry[1], join, (rows, jnp.array(True)))[0]


def _gathered(columns, weights, v):
    """Σ_j weights_ij · v[columns_ij] written out, which fuses to one loop where a sum over an axis would not."""
    total = 0
    for slot in range(columns.shape[1]):
        total = total + weights[:, slot, None] * v.at[columns[:, slot]].get(mode="promise_in_bounds")
    return total


def _places(xp, rows, counts, width):
    """Where in the slots edges that are sorted by row go: (line, slot). Lines from n on are those that rows spill to.

    Takes NumPy or jax.numpy, whose arrays these are: on the host another number of edges compiles nothing.
    """
    start, further = xp.cumsum(counts) - counts, xp.maximum(-(-counts // width) - 1, 0)
    place = xp.arange(len(rows)) - start[rows]
    line, before = place // width, xp.cumsum(further) - further
    return xp.where(line == 0, rows, len(counts) + before[rows] + line - 1), place % width


def _as_graph(slots, held, owners, diagonal):
    n = diagonal.shape[0]
    return Graph(slots[:n], held[:n], owners[n:], slots[n:], held[n:], diagonal)

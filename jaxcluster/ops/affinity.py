"""Affinity matrices as linear operators: dense, or a Gaussian kernel that is computed in tiles.

`Matrix`, `Kernel` and the sparse `jaxcluster.ops.graph.Graph` have one interface, for `Laplacian` and the graph cuts:

- ``n``, the number of rows, and ``diagonal``, (n,) the weights of rows to themselves;
- ``multiply(v)``, the product without the diagonal with a block of vectors, and ``degrees()``, that with ones;
- ``scaled(scale)``, the affinity with weights scale_i · w_ij · scale_j;
- ``min_neighbor_label(labels)``, the least label of each row and its neighbors.

A block of m of the n rows has the same interface: it takes vectors of all rows and returns those of its own, and the
last two also take ``own``, the part of its rows. `AffinityShards` spreads such blocks over devices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.sharding import Mesh, NamedSharding

from jaxcluster.core import validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import exponent_of, float_dtype, times_power_of_two
from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.core.preparation import prepare
from jaxcluster.core.shard import automatic, rows_of
from jaxcluster.ops.distance import (
    DIFFERENCE_COLUMNS,
    HIGHEST,
    expanded_sqeuclidean,
    over_columns,
    squared_norms,
)
from jaxcluster.ops.graph import Graph, check_affinity, check_range, from_matrix, host_graph
from jaxcluster.types import Absent, Array, Bool, Float, Int

TILE = 1 << 21
"""Number of weights of a kernel in a tile."""

ORIGIN_SAMPLE = 32
"""Rows of a tile whose median is the origin for expanded squares."""


class Matrix(NamedTuple):
    """Dense symmetric affinity.

    Attributes:
        weights: (n, n) weights, with 0 on the diagonal; (m, n) of a block.
        diagonal: (n,) weights of rows to themselves; (m,) of a block.
    """

    weights: Float[Array, "m n"]
    diagonal: Float[Array, " m"]

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.diagonal.shape[0]

    def multiply(self, v: Float[Array, "n b"]) -> Float[Array, "m b"]:
        """Product without the diagonal with a block of vectors."""
        return jnp.matmul(self.weights, v, precision=HIGHEST)

    def degrees(self) -> Float[Array, " m"]:
        """Sum of each row without the diagonal."""
        return jnp.sum(self.weights, axis=1)

    def scaled(self, scale: Float[Array, " n"], own: Float[Array, " m"] | None = None) -> Matrix:
        """Matrix with weights scale_i · w_ij · scale_j."""
        own = scale if own is None else own
        return Matrix(self.weights * own[:, None] * scale[None, :], self.diagonal * own * own)

    def min_neighbor_label(self, labels: Int[Array, " n"], own: Int[Array, " m"] | None = None) -> Int[Array, " m"]:
        """Least label of each row and its neighbors."""
        own, most = labels if own is None else own, jnp.iinfo(labels.dtype).max
        return jnp.minimum(own, jnp.min(jnp.where(self.weights != 0, labels, most), axis=1))


class Kernel(NamedTuple):
    """Gaussian affinity scale_i · exp(−‖x_i − x_j‖²) · scale_j, computed in tiles.

    Attributes:
        x: (n, d) rows times √γ, so that their unit is the width of the kernel: see `kernel`.
        scale: (n,) scales; 0 for padding.
        numbers: (m,) row numbers of a block; None for all rows.
    """

    x: Float[Array, "n d"]
    scale: Float[Array, " n"]
    numbers: Int[Array, " m"] | Absent = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.x.shape[0]

    @property
    def diagonal(self) -> Float[Array, " m"]:
        """Weights of rows to themselves."""
        scale = self.scale if self.numbers is None else self.scale[self.numbers]
        return scale * scale

    def multiply(self, v: Float[Array, "n b"]) -> Float[Array, "m b"]:
        """Product without the diagonal with a block of vectors."""
        return self._tiled(lambda weights: jnp.matmul(weights, v, precision=HIGHEST))

    def degrees(self) -> Float[Array, " m"]:
        """Sum of each row without the diagonal."""
        return self._tiled(lambda weights: jnp.sum(weights, axis=1))

    def scaled(self, scale: Float[Array, " n"], own: Float[Array, " m"] | None = None) -> Kernel:
        """Kernel with weights scale_i · w_ij · scale_j."""
        return self._replace(scale=self.scale * scale)

    def min_neighbor_label(self, labels: Int[Array, " n"], own: Int[Array, " m"] | None = None) -> Int[Array, " m"]:
        """Least label of each row and its neighbors, those whose weight is not rounded to 0."""
        own, most = labels if own is None else own, jnp.iinfo(labels.dtype).max
        near = self._tiled(lambda weights: jnp.min(jnp.where(weights != 0, labels, most), axis=1))
        return jnp.minimum(own, near)

    def matrix(self) -> Matrix:
        """Dense affinity, for few rows."""
        return Matrix(self._tiled(lambda weights: weights), self.diagonal)

    def _tiled(self, use):
        """Results of ``use`` on the weights of each tile of rows to all, with 0 on the diagonal."""

        def tile(rows):
            x, scale, number = rows
            # Computed again at each use, so that n² weights are never held.
            weights = gaussian_weights(x, self.x) * scale[:, None] * self.scale[None, :]
            return use(jnp.where(number[:, None] == numbers[None, :], 0, weights))

        numbers = jnp.arange(self.n, dtype=jnp.int32)
        rows = self.x, self.scale, numbers
        if self.numbers is not None:
            rows = self.x[self.numbers], self.scale[self.numbers], self.numbers
        return map_rows(tile, rows, tile=tile_rows(rows[2].shape[0], self.n, TILE))


Affinity = Graph | Matrix | Kernel
"""Symmetric non-negative weights between rows, as a linear operator."""


@partial(jax.tree_util.register_dataclass, data_fields=["blocks"], meta_fields=["mesh"])
@dataclass(frozen=True)
class AffinityShards:
    """Affinity of n rows in blocks of rows, one on each device; its interface is that of the others.

    Attributes:
        blocks: the blocks of all devices, as arrays over the mesh. The rows of a kernel are on every device.
        mesh: of one axis, whose devices divide n.
    """

    blocks: Graph | Matrix | Kernel
    mesh: Mesh

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.blocks.diagonal.shape[0]

    @property
    def diagonal(self) -> Float[Array, " n"]:
        """Weights of rows to themselves."""
        return self.blocks.diagonal

    def multiply(self, v: Float[Array, "n b"]) -> Float[Array, "n b"]:
        """Product without the diagonal with a block of vectors."""
        return self._spread(lambda block, v: block.multiply(v), v)

    def degrees(self) -> Float[Array, " n"]:
        """Sum of each row without the diagonal."""
        return self._spread(lambda block: block.degrees())

    def scaled(self, scale: Float[Array, " n"]) -> AffinityShards:
        """Affinity with weights scale_i · w_ij · scale_j."""
        specs = _specs(self.blocks, self.mesh)
        spread = partial(self._spread, out_specs=specs)
        return AffinityShards(spread(lambda block, scale, own: block.scaled(scale, own), scale, own=scale), self.mesh)

    def min_neighbor_label(self, labels: Int[Array, " n"]) -> Int[Array, " n"]:
        """Least label of each row and its neighbors."""
        return self._spread(lambda block, labels, own: block.min_neighbor_label(labels, own), labels, own=labels)

    def matrix(self) -> AffinityShards:
        """Dense affinity of a kernel, for few rows."""
        row = rows_of(self.mesh).row
        return AffinityShards(self._spread(lambda block: block.matrix(), out_specs=Matrix._make([row, row])), self.mesh)

    def _spread(self, use: Callable[..., Any], *whole: Array, own: Array | None = None, out_specs: Any = None) -> Any:
        """``use(block, *whole, own)`` on each device: its block, whole arrays, and the part of its rows of ``own``."""
        specs = rows_of(self.mesh)
        parts = () if own is None else (own,)
        in_specs = (_specs(self.blocks, self.mesh), *(specs.whole for _ in whole), *(specs.row for _ in parts))
        out_specs = specs.row if out_specs is None else out_specs
        spread = jax.shard_map(use, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs)
        return spread(self.blocks, *whole, *parts)


class Laplacian(NamedTuple):
    """L = I − D^-½WD^-½ without the diagonal of W: symmetric, with eigenvalues between 0 and 2.

    Attributes:
        normalized: the affinity D^-½WD^-½.
        sqrt_degrees: (n,) √degree; 1 for a row without neighbors, whose eigenvalue is 1.
        has_neighbors: (n,) True for a row with neighbors.
        shift: (n,) added to the diagonal: 0, or 2 for padding, which gives it an eigenvalue of 3, above all others.
    """

    normalized: Affinity | AffinityShards
    sqrt_degrees: Float[Array, " n"]
    has_neighbors: Bool[Array, " n"]
    shift: Float[Array, " n"]

    def product(self, v: Float[Array, "n b"]) -> Float[Array, "n b"]:
        """Product of L with a block of vectors."""
        return (1 + self.shift[:, None]) * v - self.normalized.multiply(v)


def laplacian(affinity: Affinity | AffinityShards, present: Bool[Array, " n"] | None = None) -> Laplacian:
    """Normalized Laplacian of an affinity whose rows are padding where ``present`` is False; None for no padding."""
    degrees = affinity.degrees()
    sqrt_degrees = jnp.sqrt(jnp.where(degrees > 0, degrees, 1))
    shift = jnp.zeros_like(sqrt_degrees) if present is None else jnp.where(present, 0.0, 2.0).astype(sqrt_degrees.dtype)
    return Laplacian(affinity.scaled(1 / sqrt_degrees), sqrt_degrees, degrees > 0, shift)


def as_affinity(matrix: Any, *, name: str = "affinity", any_unit: bool = False) -> Affinity:
    """Affinity of a matrix of weights: a SciPy sparse one as a `Graph`, a dense one as a `Matrix`.

    An affinity is returned as it is, and of a traced matrix only the shape is checked.

    Args:
        matrix: (n, n) weights.
        name: name of the matrix in messages.
        any_unit: multiply the weights by a power of two that brings the largest near 1, for results that do not
            depend on their unit, such as a normalized cut.

    Raises:
        ValueError, TypeError: a matrix that is not square, symmetric, finite and non-negative, and where; weights
            beyond the range of the dtype of the computation.
    """
    if isinstance(matrix, Affinity):
        return matrix
    if validation.is_traced(matrix):
        return _traced_matrix(matrix, name, any_unit)
    weights = scale_to_unit(check_affinity(matrix, name=name))[0] if any_unit else check_affinity(matrix, name=name)
    if scipy.sparse.issparse(weights):
        return from_matrix(weights, name=name)
    check_range(weights, name)
    weights = jnp.asarray(weights)
    weights = weights.astype(float_dtype(weights.dtype))
    return Matrix(*_split(weights))


def scale_to_unit(weights: Any) -> tuple[Any, int]:
    """Concrete weights, dense or sparse, in float64, scaled so that the largest is near 1.

    Returns:
        The weights divided by 4^e, and e.
    """
    # A normalized Laplacian has no unit, but degrees of weights near 1e200 have no square, and those near 1e-200 are 0
    # in float32. A power of four has an exact root.
    weights = weights.astype(np.float64)
    values = weights.data if scipy.sparse.issparse(weights) else weights
    # A power of four: √degree is then divided by a power of two as well, and nothing is rounded.
    exponent = int(np.frexp(values.max(initial=0.0))[1]) // 2
    if not exponent:
        return weights, 0
    if scipy.sparse.issparse(weights):
        weights = weights.copy()
        weights.data = np.ldexp(weights.data, -2 * exponent)
        return weights, exponent
    return np.ldexp(weights, -2 * exponent), exponent


def _traced_matrix(matrix, name, any_unit):
    weights = validation.check_matrix(matrix, name=name)
    if weights.shape[0] != weights.shape[1]:
        raise ValueError(f"{name} must be a square matrix of the weights of all pairs of rows, got {weights.shape}.")
    weights = jnp.asarray(weights)
    weights = weights.astype(float_dtype(weights.dtype))
    if any_unit:
        exponent = exponent_of(jax.lax.stop_gradient(jnp.max(weights)))
        weights = times_power_of_two(weights, -exponent)
    return Matrix(*_split(weights))


def _split(weights):
    """Matrix with 0 on its diagonal, and the diagonal."""
    own = jnp.eye(len(weights), dtype=bool)
    return jnp.where(own, jnp.zeros((), weights.dtype), weights), jnp.diagonal(weights)


def kernel(x: Any, gamma: Any, *, padded: bool = False) -> Kernel:
    """Gaussian kernel exp(−γ‖x − y‖²) of (n_samples, n_features) samples.

    Args:
        x: finite samples, traced or not.
        gamma: γ > 0, in units of 1 / data units², traced or not.
        padded: True pads concrete samples to `padded_size`.
    """
    # In a frame an offset or a far sample takes no digits from the others. exp(−γ‖x − y‖²) does not change if samples
    # are multiplied by c and γ by 1/c², so the unit of the samples is made the width of the kernel.
    prepared = prepare(x)
    width = unit_width(gamma, prepared.frame.exponent, prepared.points.x.dtype)
    kept = slice(None if padded else prepared.n)
    return Kernel(_times(prepared.points.x[kept], width), prepared.points.weight[kept])


@persistent_jit
def _times(x, factor):
    return x * factor


def unit_width(gamma: Any, exponent: Any, dtype: Any) -> Any:
    """Factor √γ / 2^exponent of samples in a frame of that exponent, for a kernel of width 1.

    A concrete one is at most the root of the largest number: all weights are 0 there, and no coordinate is infinite.
    """
    if validation.is_traced(gamma, exponent):
        return times_power_of_two(jnp.sqrt(jnp.asarray(gamma, dtype)), -exponent)
    with np.errstate(over="ignore", under="ignore"):
        width = np.ldexp(np.sqrt(float(gamma)), -int(exponent))
    return np.asarray(min(width, float(np.sqrt(np.finfo(dtype).max))), dtype)


def gaussian_weights(x: Float[Array, "t d"], y: Float[Array, "n d"]) -> Float[Array, "t n"]:
    """Gaussian weights exp(−‖x − y‖²) between a tile of rows and others."""
    # In many columns squares are expanded about the middle of the tile, and rounded by about eps·(‖x‖² + ‖y‖²). For a
    # distant y that is small beside ‖x − y‖² itself, which makes the weight 0. So only a tile of rows that are far from
    # each other, in the unit of the kernel, is computed by differences.
    if x.shape[1] <= DIFFERENCE_COLUMNS:
        return jnp.exp(-_squared_differences(x, y))
    count = min(ORIGIN_SAMPLE, x.shape[0])
    sample = jax.lax.stop_gradient(x[np.arange(count) * x.shape[0] // count])
    origin = jnp.sort(sample, axis=0)[(count - 1) // 2][None, :]
    norms = squared_norms(x - origin)
    squares = expanded_sqeuclidean(x - origin, y - origin, norms)
    eps = jnp.finfo(x.dtype).eps
    # Errors of a weight beyond eps^⅓, 5e-3 in float32 and 6e-6 in float64.
    far = 8 * eps * jnp.max(jax.lax.stop_gradient(norms)) > eps ** (1 / 3)
    return jnp.exp(-jax.lax.cond(far, _squared_differences, lambda x, y: squares, x, y))


def _squared_differences(x, y):
    return over_columns(lambda a, b: jnp.square(a - b), (x,), (y,))


def to_shards(affinity: Matrix | Kernel, mesh: Mesh) -> AffinityShards:
    """Blocks of a dense affinity or a kernel on the devices of a mesh, which divide its rows."""
    mesh = automatic(mesh)
    if isinstance(affinity, Kernel):
        affinity = affinity._replace(numbers=jnp.arange(affinity.n, dtype=jnp.int32))
    return AffinityShards(_put(affinity, mesh), mesh)


def graph_shards(matrix: scipy.sparse.csr_array, rows: int, mesh: Mesh) -> AffinityShards:
    """Blocks of the graph of a checked matrix, of ``rows`` rows, which the devices of a mesh divide."""
    mesh = automatic(mesh)
    return AffinityShards(_put(host_graph(matrix, rows, mesh.size), mesh), mesh)


def _specs(affinity: Graph | Matrix | Kernel, mesh: Mesh) -> Any:
    """Specs of shard_map: all arrays have rows, but those of a kernel, of which the numbers alone have."""
    specs = rows_of(mesh)
    if isinstance(affinity, Kernel):
        return Kernel._make([specs.whole, specs.whole, specs.row])
    return jax.tree.map(lambda _: specs.row, affinity)


def _put(affinity: Any, mesh: Mesh) -> Any:
    shardings = jax.tree.map(partial(NamedSharding, mesh), _specs(affinity, mesh))
    return jax.device_put(affinity, shardings)


def cut_and_volume(
    affinity: Affinity, assignments: Float[Array, "n k"]
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """Cut and volume of soft clusters P: p_jᵀW(1 − p_j) and dᵀp_j, W with its diagonal.

    Args:
        affinity: weights W between the rows, with degrees d.
        assignments: (n, k) soft assignments P; rows sum to 1.

    Returns:
        (k,) cuts and (k,) volumes.
    """
    own = affinity.diagonal[:, None]
    # A sum of non-negative terms: as the difference of the volume and p_jᵀWp_j a small cut would be rounding.
    cut = jnp.sum(assignments * (affinity.multiply(1 - assignments) + own * (1 - assignments)), axis=0)
    return cut, jnp.matmul(affinity.degrees() + affinity.diagonal, assignments, precision=HIGHEST)

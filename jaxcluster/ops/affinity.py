"""The weights between rows as matrices to multiply with: written out, or as a kernel that is computed in tiles.

`Matrix`, `Kernel` and the sparse `jaxcluster.ops.graph.Graph` share what `Laplacian` and the cuts are made of:

- ``n``, and ``diagonal``, (n,) the weights of rows to themselves;
- ``links(v)``, the product of the rest of the weights with a block of vectors, and ``degrees()``, that with ones;
- ``scaled(scale)``, the same with weights scale_i · w_ij · scale_j;
- ``least(labels)``, the least label of each row and its neighbors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxcluster.core import check
from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.core.frame import exponent_of, float_dtype, prepare, times_power_of_two
from jaxcluster.ops.distance import (
    FEW_COLUMNS,
    HIGHEST,
    expanded_sqeuclidean,
    over_columns,
    squared_norms,
)
from jaxcluster.ops.graph import Graph, check_affinity, check_range, from_matrix
from jaxcluster.types import Array, Bool, Float, Int

TILE = 1 << 21
"""Weights of a kernel that are held at a time."""

ORIGIN_SAMPLE = 32
"""Rows of a tile whose median is the origin that its squares are expanded about."""


class Matrix(NamedTuple):
    """A symmetric matrix of weights.

    Attributes:
        weights: (n, n), 0 on the diagonal.
        diagonal: (n,) what belongs there.
    """

    weights: Float[Array, "n n"]
    diagonal: Float[Array, " n"]

    @property
    def n(self) -> int:
        """How many rows there are."""
        return self.diagonal.shape[0]

    def links(self, v: Float[Array, "n b"]) -> Float[Array, "n b"]:
        """The product without the diagonal."""
        return jnp.matmul(self.weights, v, precision=HIGHEST)

    def degrees(self) -> Float[Array, " n"]:
        """The sum of each row without the diagonal."""
        return jnp.sum(self.weights, axis=1)

    def scaled(self, scale: Float[Array, " n"]) -> Matrix:
        """The matrix of scale_i · w_ij · scale_j."""
        return Matrix(self.weights * scale[:, None] * scale[None, :], self.diagonal * scale * scale)

    def least(self, labels: Int[Array, " n"]) -> Int[Array, " n"]:
        """The least of the labels of each row and its neighbors."""
        most = jnp.iinfo(labels.dtype).max
        return jnp.minimum(labels, jnp.min(jnp.where(self.weights != 0, labels, most), axis=1))


class Kernel(NamedTuple):
    """Gaussian weights scale_i · exp(−‖x_i − x_j‖²) · scale_j, computed in tiles where they are needed.

    Attributes:
        x: (n, d) rows times √γ, so that their unit is the width of the kernel: see `kernel`.
        scale: (n,); 0 for a row that is not there.
    """

    x: Float[Array, "n d"]
    scale: Float[Array, " n"]

    @property
    def n(self) -> int:
        """How many rows there are."""
        return self.x.shape[0]

    @property
    def diagonal(self) -> Float[Array, " n"]:
        """The weights of rows to themselves."""
        return self.scale * self.scale

    def links(self, v: Float[Array, "n b"]) -> Float[Array, "n b"]:
        """The product without the diagonal."""
        return self._tiled(lambda weights: jnp.matmul(weights, v, precision=HIGHEST))

    def degrees(self) -> Float[Array, " n"]:
        """The sum of each row without the diagonal."""
        return self._tiled(lambda weights: jnp.sum(weights, axis=1))

    def scaled(self, scale: Float[Array, " n"]) -> Kernel:
        """The kernel of scale_i · w_ij · scale_j."""
        return self._replace(scale=self.scale * scale)

    def least(self, labels: Int[Array, " n"]) -> Int[Array, " n"]:
        """The least of the labels of each row and its neighbors: those whose weight is not rounded to 0."""
        most = jnp.iinfo(labels.dtype).max
        near = self._tiled(lambda weights: jnp.min(jnp.where(weights != 0, labels, most), axis=1))
        return jnp.minimum(labels, near)

    def matrix(self) -> Matrix:
        """All weights at once, for few rows."""
        return Matrix(self._tiled(lambda weights: weights), self.diagonal)

    def _tiled(self, use):
        """What ``use`` makes of the weights of some rows to all, 0 on the diagonal."""

        def tile(rows):
            x, scale, number = rows
            weights = gaussian_weights(x, self.x) * scale[:, None] * self.scale[None, :]
            return use(jnp.where(number[:, None] == numbers[None, :], 0, weights))

        numbers = jnp.arange(self.n, dtype=jnp.int32)
        return map_rows(tile, (self.x, self.scale, numbers), tile=tile_rows(self.n, self.n, TILE))


Affinity = Graph | Matrix | Kernel
"""What says how much rows belong together."""


class Laplacian(NamedTuple):
    """L = I − D^-½WD^-½ without the diagonal of W: symmetric, with eigenvalues between 0 and 2.

    Attributes:
        links: the affinity D^-½WD^-½.
        roots: (n,) √degree; 1 for a row without neighbors, whose eigenvalue is 1.
        linked: (n,) whether a row has neighbors.
        lift: (n,) what is added to the diagonal: 0, or 2 for a row that is not there, which no other then touches.
    """

    links: Affinity
    roots: Float[Array, " n"]
    linked: Bool[Array, " n"]
    lift: Float[Array, " n"]

    def product(self, v: Float[Array, "n b"]) -> Float[Array, "n b"]:
        """L times a block of vectors."""
        return (1 + self.lift[:, None]) * v - self.links.links(v)


def laplacian(affinity: Affinity, present: Bool[Array, " n"] | None = None) -> Laplacian:
    """The normalized Laplacian of an affinity, of which only the rows ``present`` are there; None for all."""
    degrees = affinity.degrees()
    roots = jnp.sqrt(jnp.where(degrees > 0, degrees, 1))
    lift = jnp.zeros_like(roots) if present is None else jnp.where(present, 0.0, 2.0).astype(roots.dtype)
    return Laplacian(affinity.scaled(1 / roots), roots, degrees > 0, lift)


def as_affinity(given: Any, *, name: str = "affinity", any_unit: bool = False) -> Affinity:
    """A matrix of weights as an affinity: a SciPy sparse one as a `Graph`, a dense one as a `Matrix`.

    An affinity is returned as it is, and of a traced matrix only the shape is looked at.

    Args:
        given: (n, n) weights.
        name: what a message calls the matrix.
        any_unit: multiply the weights by a power of two that brings the largest near 1, for what does not depend on
            their unit, such as a normalized cut.

    Raises:
        ValueError, TypeError: a matrix that is not square, symmetric, finite and non-negative, and where; weights that
            leave the range of the dtype they are computed in.
    """
    if isinstance(given, Affinity):
        return given
    if check.is_traced(given):
        return _traced_matrix(given, name, any_unit)
    weights = near_one(check_affinity(given, name=name))[0] if any_unit else check_affinity(given, name=name)
    if scipy.sparse.issparse(weights):
        return from_matrix(weights, name=name)
    check_range(weights, name)
    weights = jnp.asarray(weights)
    weights = weights.astype(float_dtype(weights.dtype))
    return Matrix(*_split(weights))


def near_one(weights: Any) -> tuple[Any, int]:
    """Concrete weights >= 0, dense or sparse, in float64 times a power of four that brings the largest near 1.

    Nothing that is made of a normalized Laplacian has a unit, but degrees of weights near 1e200 have no square, and
    those near 1e-200 are 0 in float32. A power of four has an exact root.

    Returns:
        The weights, and e: they were divided by 4^e.
    """
    weights = weights.astype(np.float64)
    values = weights.data if scipy.sparse.issparse(weights) else weights
    exponent = int(np.frexp(values.max(initial=0.0))[1]) // 2
    if not exponent:
        return weights, 0
    if scipy.sparse.issparse(weights):
        weights = weights.copy()
        weights.data = np.ldexp(weights.data, -2 * exponent)
        return weights, exponent
    return np.ldexp(weights, -2 * exponent), exponent


def _traced_matrix(given, name, any_unit):
    weights = check.check_matrix(given, name=name)
    if weights.shape[0] != weights.shape[1]:
        raise ValueError(f"{name} must be a square matrix of the weights of all pairs of rows, got {weights.shape}.")
    weights = jnp.asarray(weights)
    weights = weights.astype(float_dtype(weights.dtype))
    if any_unit:
        exponent = exponent_of(jax.lax.stop_gradient(jnp.max(weights)))
        weights = times_power_of_two(weights, -exponent)
    return Matrix(*_split(weights))


def _split(weights):
    """A matrix without its diagonal, and the diagonal."""
    own = jnp.eye(len(weights), dtype=bool)
    return jnp.where(own, jnp.zeros((), weights.dtype), weights), jnp.diagonal(weights)


def kernel(x: Any, gamma: Any, *, padded: bool = False) -> Kernel:
    """The Gaussian kernel exp(−γ‖x − y‖²) of (n, d) samples.

    Samples are put into a frame, where a far one or an offset takes no digits from the others, and into the unit of the
    kernel: exp(−γ‖x − y‖²) does not change if samples are multiplied by c and γ by 1/c².

    Args:
        x: finite samples, traced or not.
        gamma: γ > 0, in units of 1 / data units², traced or not.
        padded: concrete samples are padded up to a bucket with rows that are not there.
    """
    prepared = prepare(x)
    width = unit_width(gamma, prepared.frame.exponent, prepared.points.x.dtype)
    kept = slice(None if padded else prepared.n)
    return Kernel(prepared.points.x[kept] * width, prepared.points.weight[kept])


def unit_width(gamma: Any, exponent: Any, dtype: Any) -> Any:
    """√γ / 2^exponent: what samples in a frame of that exponent are multiplied by for a kernel of width 1.

    Of a concrete γ no more than the root of the largest number: all weights are 0 there, and no coordinate is infinite.
    """
    if check.is_traced(gamma, exponent):
        return times_power_of_two(jnp.sqrt(jnp.asarray(gamma, dtype)), -exponent)
    with np.errstate(over="ignore", under="ignore"):
        width = np.ldexp(np.sqrt(float(gamma)), -int(exponent))
    return jnp.asarray(min(width, float(np.sqrt(np.finfo(dtype).max))), dtype)


def gaussian_weights(x: Float[Array, "t d"], y: Float[Array, "n d"]) -> Float[Array, "t n"]:
    """exp(−‖x − y‖²) of a tile of rows and others.

    In many columns squares are expanded about the middle of the tile, and rounded by about eps·(‖x‖² + ‖y‖²). For a
    distant y that is small beside ‖x − y‖² itself, which makes the weight 0. So only a tile of rows that are far from
    each other, in the unit of the kernel, is computed by differences.
    """
    if x.shape[1] <= FEW_COLUMNS:
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


def cut_and_volume(affinity: Affinity, shares: Float[Array, "n k"]) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """Of rows that belong to clusters in shares: p_jᵀW(1 − p_j) and dᵀp_j of each, W with its diagonal.

    The cut is added up from what crosses it: as the difference of the volume and p_jᵀWp_j it would be rounding.
    """
    own = affinity.diagonal[:, None]
    cut = jnp.sum(shares * (affinity.links(1 - shares) + own * (1 - shares)), axis=0)
    return cut, jnp.matmul(affinity.degrees() + affinity.diagonal, shares, precision=HIGHEST)

"""How much rows belong together, as matrices to multiply with: written out, or as a kernel that is computed in tiles.

`Matrix`, `Kernel` and the sparse `jaxcluster.ops.graph.Graph` share what `Laplacian` and the cuts are made of:

- ``n``, and ``diagonal``, (n,) the weights of rows to themselves;
- ``links(v)``, the product of the rest of the weights with a block of vectors, and ``degrees()``, that with ones;
- ``scaled(scale)``, the same with weights scale_i · w_ij · scale_j;
- ``least(labels)``, the least label of each row and its neighbours.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import scipy.sparse

from jaxcluster.core import check
from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.ops.distance import FULL, sqeuclidean
from jaxcluster.ops.graph import Graph, check_affinity, from_matrix
from jaxcluster.types import Array, Bool, Float, Int

TILE = 1 << 22
"""Weights of a kernel that are held at a time."""


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
        return jnp.matmul(self.weights, v, precision=FULL)

    def degrees(self) -> Float[Array, " n"]:
        """The sum of each row without the diagonal."""
        return jnp.sum(self.weights, axis=1)

    def scaled(self, scale: Float[Array, " n"]) -> Matrix:
        """The matrix of scale_i · w_ij · scale_j."""
        return Matrix(self.weights * scale[:, None] * scale, self.diagonal * scale**2)

    def least(self, labels: Int[Array, " n"]) -> Int[Array, " n"]:
        """The least of the labels of each row and its neighbours."""
        most = jnp.iinfo(labels.dtype).max
        return jnp.minimum(labels, jnp.min(jnp.where(self.weights != 0, labels, most), axis=1))


class Kernel(NamedTuple):
    """Gaussian weights scale_i · exp(−γ‖x_i − x_j‖²) · scale_j, computed in tiles where they are needed.

    Attributes:
        x: (n, d) rows.
        gamma: γ, in units of 1 / data units².
        scale: (n,); 0 for a row that is not there.
    """

    x: Float[Array, "n d"]
    gamma: Float[Array, ""]
    scale: Float[Array, " n"]

    @property
    def n(self) -> int:
        """How many rows there are."""
        return self.x.shape[0]

    @property
    def diagonal(self) -> Float[Array, " n"]:
        """The weights of rows to themselves."""
        return self.scale**2

    def links(self, v: Float[Array, "n b"]) -> Float[Array, "n b"]:
        """The product without the diagonal."""
        return self._tiled(lambda weights: jnp.matmul(weights, v, precision=FULL))

    def degrees(self) -> Float[Array, " n"]:
        """The sum of each row without the diagonal."""
        return self._tiled(lambda weights: jnp.sum(weights, axis=1))

    def scaled(self, scale: Float[Array, " n"]) -> Kernel:
        """The kernel of scale_i · w_ij · scale_j."""
        return self._replace(scale=self.scale * scale)

    def least(self, labels: Int[Array, " n"]) -> Int[Array, " n"]:
        """The least of the labels of each row and its neighbours: those whose weight is not rounded to 0."""
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
            weights = jnp.exp(-self.gamma * sqeuclidean(x, self.x)) * scale[:, None] * self.scale
            return use(jnp.where(number[:, None] == jnp.arange(self.n), 0, weights))

        rows = (self.x, self.scale, jnp.arange(self.n, dtype=jnp.int32))
        return map_rows(tile, rows, tile=tile_rows(self.n, self.n, TILE))


Affinity = Graph | Matrix | Kernel
"""What says how much rows belong together."""


class Laplacian(NamedTuple):
    """L = I − D^-½WD^-½ without the diagonal of W: symmetric, with eigenvalues between 0 and 2.

    Attributes:
        links: the affinity D^-½WD^-½.
        roots: (n,) √degree; 1 for a row without neighbours, whose eigenvalue is 1.
        lift: (n,) what is added to the diagonal: 0, or 2 for a row that is not there, which no other then touches.
    """

    links: Affinity
    roots: Float[Array, " n"]
    lift: Float[Array, " n"]

    def product(self, v: Float[Array, "n b"]) -> Float[Array, "n b"]:
        """L times a block of vectors."""
        return (1 + self.lift[:, None]) * v - self.links.links(v)


def laplacian(affinity: Affinity, present: Bool[Array, " n"] | None = None) -> Laplacian:
    """The normalised Laplacian of an affinity, of which only the rows ``present`` are there; None for all."""
    degrees = affinity.degrees()
    roots = jnp.sqrt(jnp.where(degrees > 0, degrees, 1))
    lift = jnp.zeros_like(roots) if present is None else jnp.where(present, 0, 2).astype(roots.dtype)
    return Laplacian(affinity.scaled(1 / roots), roots, lift)


def as_affinity(given: Any, *, name: str = "affinity") -> Affinity:
    """A matrix of weights as an affinity: a SciPy sparse one as a `Graph`, a dense one as a `Matrix`.

    An affinity is returned as it is, and of a traced matrix only the shape is looked at.

    Raises:
        ValueError, TypeError: a matrix that is not square, symmetric, finite and non-negative, and where.
    """
    if isinstance(given, Affinity):
        return given
    if scipy.sparse.issparse(given):
        return from_matrix(given, name=name)
    if check.is_traced(given):
        given = check.check_matrix(given, name=name)
        if given.shape[0] != given.shape[1]:
            raise ValueError(f"{name} must be a square matrix of the weights of all pairs of rows, got {given.shape}.")
    else:
        given = check_affinity(given, name=name)
    weights = jnp.asarray(given)
    weights = weights.astype(jnp.promote_types(weights.dtype, jnp.float32))
    diagonal = jnp.diagonal(weights)
    return Matrix(jnp.where(jnp.eye(len(weights), dtype=bool), 0, weights), diagonal)


def kernel(x: Any, gamma: Any, *, rows: int | None = None) -> Kernel:
    """The Gaussian kernel of (n, d) rows, filled up to ``rows`` with rows that are not there."""
    x = jnp.asarray(x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    fill = (rows or len(x)) - len(x)
    scale = jnp.pad(jnp.ones_like(x[:, 0]), (0, fill))
    return Kernel(jnp.pad(x, ((0, fill), (0, 0))), jnp.asarray(gamma, x.dtype), scale)


def cut_and_volume(affinity: Affinity, shares: Float[Array, "n k"]) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """Of rows that belong to clusters in shares: p_jᵀW(1 − p_j) and dᵀp_j of each, W with its diagonal.

    The cut is added up from what crosses it: as the difference of the volume and p_jᵀWp_j it would be rounding.
    """
    own = affinity.diagonal[:, None]
    cut = jnp.sum(shares * (affinity.links(1 - shares) + own * (1 - shares)), axis=0)
    return cut, jnp.matmul(affinity.degrees() + affinity.diagonal, shares, precision=FULL)

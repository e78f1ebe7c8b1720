"""Principal components, whitening, and truncated singular value decompositions: of a scatter, of rows, of sparse rows.

>>> x = jnp.array([[-3.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
>>> variances, axes = principal_axes(scatter(x) / 4, 2)
>>> variances.tolist(), jnp.abs(axes).tolist()
([4.5, 0.5], [[1.0, 0.0], [0.0, 1.0]])
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import exponent_of, times_power_of_two
from jaxcluster.core.fold import fold_rows
from jaxcluster.core.sparse_rows import SparseRows
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.rows import inner_products
from jaxcluster.types import Array, Float, Int, KeyArray, Published

SCATTER_ROWS = 1024
"""Rows whose products are added up in one matrix product: its rounding grows with the root of their number."""

Transposed: TypeAlias = Float[Array, "d n"] | SparseRows
"""Columns of rows of either kind, as rows."""


def scatter(centered: Float[Array, "n d"]) -> Float[Array, "d d"]:
    """Scatter matrix Σ x·xᵀ of centered rows."""
    return fold_rows(lambda x: (jnp.matmul(x.T, x, precision=HIGHEST), ()), centered, tile=SCATTER_ROWS)[0]


def principal_axes(matrix: Any, components: int) -> tuple[Any, Any]:
    """Eigenpairs of largest eigenvalue of a symmetric matrix, in NumPy or on a device, as the matrix is.

    Args:
        matrix: (d, d) covariance or scatter matrix.
        components: m <= d.

    Returns:
        (m,) eigenvalues, descending, and (d, m) their orthonormal eigenvectors.
    """
    values, axes = (np if isinstance(matrix, np.ndarray) else jnp).linalg.eigh(matrix)
    return values[::-1][:components], axes[:, ::-1][:, :components]


def flip_signs(components: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m d"]:
    """Components whose entry of largest absolute value is positive, which makes them unique."""
    largest = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(len(components)), largest])
    return components * np.where(signs == 0, 1, signs)[:, None]


@persistent_jit
def singular_axes(centered: Float[Array, "n d"]) -> tuple[Float[Array, " r"], Float[Array, "r d"]]:
    """Singular values and right singular vectors of rows, r = min(n, d).

    Returns:
        The values, descending, and the vectors as rows.
    """
    _, values, axes = jnp.linalg.svd(centered, full_matrices=False)
    return values, axes


@persistent_jit(static_argnames=("width",))
def randomized_axes(
    key: KeyArray, x: Any, transposed: Transposed, width: int, n_iter: int | Int[Array, ""]
) -> tuple[Float[Array, " r"], Float[Array, "r d"]]:
    """Approximate singular values and right singular vectors of rows, by power iteration on a random subspace.

    Args:
        key: random key of the subspace.
        x: (n, d) rows of either kind.
        transposed: (d, n) their transpose, of the same kind.
        width: dimension r of the subspace: components that are wanted and some more.
        n_iter: power iterations; more resolve values that lie close together.

    Returns:
        (r,) values, descending, and (r, d) vectors; the last ones, beyond those wanted, are rough.

    Source: N. Halko, P.-G. Martinsson and J. A. Tropp, Finding structure with randomness, SIAM Review 53 (2011).
    """
    start = jax.random.normal(key, (x.shape[1], width), x.dtype)

    def advance(_, basis):
        # Orthonormal after each product: powers of the largest value would drown the others.
        columns = jnp.linalg.qr(_product(transposed, basis))[0]
        return jnp.linalg.qr(_product(x, columns))[0]

    basis = jax.lax.fori_loop(0, n_iter, advance, jnp.linalg.qr(_product(x, start))[0])
    _, values, axes = jnp.linalg.svd(_product(transposed, basis).T, full_matrices=False)
    return values, axes


def _product(x, columns):
    return inner_products(x, columns.T)


def lanczos_axes(key: KeyArray, x: Any, k: int, tol: float) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "k d"]]:
    """Largest singular values and right singular vectors of rows by SciPy's Lanczos iterations, on the host.

    Args:
        key: random key of the first vector.
        x: (n, d) float64 rows in NumPy or in a sparse format of SciPy.
        k: number of values, less than min(n, d).
        tol: tolerance; 0 for the precision of float64.

    Returns:
        The values, descending, and the vectors as rows.
    """
    from scipy.sparse import linalg  # half a second of imports

    svds: Any = linalg.svds
    start = np.asarray(jax.random.normal(key, (min(x.shape),)), np.float64)
    _, values, axes = svds(x, k=k, tol=tol, v0=start)
    order = np.argsort(-values)
    return values[order], axes[order]


def likely_dimension(variances: Float[np.ndarray, " d"], n: int) -> int:
    """Number of principal components of largest evidence, from 1 to d − 1.

    Args:
        variances: (d,) variances of all components, descending.
        n: number of rows.

    Source: T. P. Minka, Automatic choice of dimensionality for PCA, NIPS 13 (2000).
    """
    d = len(variances)
    # Components without variance are rounding, and explain nothing.
    count = int((variances > np.finfo(np.float32).eps * variances[0]).sum()) if variances[0] > 0 else 0
    evidence = [_log_evidence(variances, k, n) for k in range(1, min(d, count + 1))]
    return 1 + int(np.argmax(evidence)) if evidence else 1


def _log_evidence(variances, k, n):
    """Laplace approximation of the logarithm of the evidence of k components."""
    d = len(variances)
    # Components beyond k share one variance, the noise of probabilistic PCA.
    noise = max(float(variances[k:].mean()), np.finfo(float).tiny)
    halves = (d - np.arange(k)) / 2
    prior = -k * np.log(2) + sum(math.lgamma(half) - half * math.log(math.pi) for half in halves)
    fit = -n / 2 * (np.log(variances[:k]).sum() + (d - k) * np.log(noise))
    parameters = d * k - k * (k + 1) / 2
    inverse = 1 / np.where(np.arange(d) < k, variances, noise)
    rows, columns = np.triu_indices(k, 1, d)
    # Curvature of the likelihood along the rotations of two components; equal variances leave their rotation free.
    gaps = (inverse[columns] - inverse[rows]) * (variances[rows] - variances[columns]) * n
    curvature = np.log(np.maximum(gaps, np.finfo(float).tiny)).sum()
    return prior + fit + (parameters + k) / 2 * math.log(2 * math.pi) - curvature / 2 - k / 2 * math.log(n)


@persistent_jit
def project(
    x: Any, shift: Float[Array, " d"], rest: Float[Array, " d"], axes: Float[Array, "d m"]
) -> Float[Array, "n m"]:
    """Products (x − shift − rest)·axes of dense rows, in full precision."""
    return jnp.matmul(x - shift[None, :] - rest[None, :], axes, precision=HIGHEST)


@persistent_jit
def project_sparse(x: SparseRows, axes: Float[Array, "d m"]) -> Float[Array, "n m"]:
    """Products x·axes of sparse rows."""
    return inner_products(x, axes.T)


def split(values: Any, dtype: Any) -> tuple[Float[Published, ...], Float[Published, ...]]:
    """Numbers of float64 as the sum of two of a shorter dtype: x − first − second keeps the digits of both.

    Returns:
        The rounded numbers, and what is left of them.
    """
    values = np.asarray(values, np.float64)
    first = values.astype(dtype)
    return first, (values - first).astype(dtype)


MIN_VARIANCE_RATIO = 1e-6
"""Least variance of a component, as a fraction of that of the first: less is rounding, and left out."""


class Whitening(NamedTuple):
    """Affine map ``(x - mean) @ matrix`` to whitened principal components.

    Attributes:
        mean: (d,) mean of the rows.
        matrix: (d, m) components, each divided by its standard deviation; 0 for components that are left out.
    """

    mean: Float[Array, " d"]
    matrix: Float[Array, "d m"]

    def apply(self, x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        """Whitened components of rows."""
        return jnp.matmul(x - self.mean[None, :], self.matrix, precision=HIGHEST)


def whitening(x: Float[Array, "n d"], components: int) -> Whitening:
    """Whitening by the first ``components`` <= d principal components of the rows.

    Whitened rows have mean 0 and, along each component that is kept, variance 1 (divided by n).
    """
    # A mean of differences from the first row: a sum of rows far from the origin is rounded by their size.
    mean = x[0] + jnp.mean(x - x[0][None, :], axis=0)
    centered = x - mean[None, :]
    # In units of about 1: squares of rows near 1e-20 are 0 in float32, and those near 1e20 infinite.
    exponent = exponent_of(jax.lax.stop_gradient(jnp.max(jnp.abs(centered))))
    centered = times_power_of_two(centered, -exponent)
    variances, axes = principal_axes(scatter(centered) / x.shape[0], components)
    kept = variances > MIN_VARIANCE_RATIO * jnp.maximum(variances[0], jnp.finfo(x.dtype).tiny)
    inverse = jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, variances, 1)), 0)
    return Whitening(mean, axes * times_power_of_two(inverse, -exponent)[None, :])

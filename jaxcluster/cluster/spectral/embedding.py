"""Rows as the smoothest vectors over the graph of who belongs together: the smallest eigenvectors of its Laplacian."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxcluster.cluster.spectral.weights import check_input, count_rows, padded, traced
from jaxcluster.core import check
from jaxcluster.core.frame import publish, published_dtype
from jaxcluster.ops import eigen
from jaxcluster.ops.affinity import Affinity, laplacian
from jaxcluster.ops.graph import components
from jaxcluster.types import Array, Float, Int, KeyArray, Published

UPPER = 2.0
"""The largest eigenvalue that a normalized Laplacian may have."""

MAX_STEPS = 100

SMOOTH = 0.5
"""Eigenvalues up to which smoothing takes from the errors of a vector: each part of them shrinks by (1 − μ)/(1 − λ)."""

SMOOTHING = 3
"""Products by which entries of rows in line, each with little weight to any but the one before, become right."""


class Embedding(NamedTuple):
    """The smallest eigenvectors of the normalized Laplacian, a row of them for each row of the data.

    Attributes:
        vectors: (n, k) divided by √degree; the entry of each column that is largest in size is positive.
        eigenvalues: (k,) ascending, between 0 and 2.
        residuals: (k,) ‖Lv − λv‖ of the eigenvectors, of length 1, in the dtype of the computation.
        components: () int32, connected components of more than one row. Where there are more than k, the vectors tell
            apart the k of most weight.
        steps: () int32, steps of the eigensolver.
        status: () int32, a `Status`: see `jaxcluster.ops.eigen.Eigenpairs`.
        history: (capacity,) the sum of the eigenvalues that were looked for, after each step.
    """

    vectors: Float[Published, "n k"]
    eigenvalues: Float[Published, " k"]
    residuals: Float[Published, " k"]
    components: Int[Array, ""]
    steps: Int[Array, ""]
    status: Int[Array, ""]
    history: Float[Published, " capacity"]


def embed(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    affinity: str | Callable = "rbf",
    gamma=1.0,
    n_neighbors: int = 10,
    drop_first: bool = False,
    tol=1e-4,
    max_steps=MAX_STEPS,
) -> Embedding:
    """The k smallest eigenvectors of L = I − D^-½WD^-½, W without its diagonal, divided by √degree.

    Works under jit, in the dtype of the rows. Of concrete rows all is computed in float64, whatever their dtype: the
    gaps between eigenvalues are often narrower than float32 resolves. Nothing depends on the unit of the rows, if γ is
    in its own, and but for the length of the vectors nothing on that of the weights.

    Args:
        key: random key for the start of the eigensolver.
        x: (n, d) rows, or an (n, n) matrix where the affinity is precomputed: weights, dense or SciPy sparse, or a
            `jaxcluster.ops.affinity.Affinity`; or distances, of which one-sided entries count for both sides.
        k: how many vectors, static, at most n.
        affinity: what W is. "rbf": exp(−γ‖x − y‖²). "nearest_neighbors": ½(A + Aᵀ), with a 1 in A at the
            ``n_neighbors`` nearest rows of each, itself among them. "precomputed": x itself.
            "precomputed_nearest_neighbors": nearest neighbors by the distances x. Or a function of two matrices of
            rows, (m, d) and (n, d), that gives (m, n) weights.
        gamma: γ of "rbf", in units of 1 / data units². Traced.
        n_neighbors: of the graphs of neighbors, static, at most n.
        drop_first: leave out the first eigenvector, which is constant where the graph is connected, and give k others.
        tol: largest residual; smaller where eigenvalues are close, see `jaxcluster.ops.eigen.smallest_eigenpairs`.
        max_steps: the most steps of the eigensolver.

    Returns:
        An `Embedding`; of concrete rows in the dtype in which results about them are published, float64 for float64.

    Raises:
        ValueError, TypeError: wrong shapes, values or names; weights that are not symmetric and >= 0, and where.
    """
    key = check.check_key(key)
    options = {"affinity": affinity, "gamma": gamma, "n_neighbors": n_neighbors, "drop_first": drop_first}
    embedding, exponent = solve(key, x, k, **options, tol=tol, max_steps=max_steps)
    return published(embedding, x, exponent)


def solve(key, x, k, *, affinity, gamma, n_neighbors, drop_first, tol, max_steps) -> tuple[Embedding, int]:
    """`embed` of weights over 4^exponent, and the exponent. Of concrete rows it is on the host, in float64."""
    check_input(x, affinity, gamma, n_neighbors)
    n, count = count_rows(x), check.check_count("k", k) + bool(drop_first)
    if n < count:
        raise ValueError(
            f"n_samples={n} should be >= {count}, the eigenvectors asked for: k={k}"
            f"{' and the first, which is dropped' if drop_first else ''}. Pass a smaller k."
        )
    check.check_positive("tol", tol)
    check.check_positive("max_steps", max_steps)
    static = _Static(count, bool(drop_first))
    if isinstance(x, Affinity) or check.is_traced(key, x, gamma, tol, max_steps):
        return _embed(static, key, traced(x, affinity, gamma, n_neighbors), n, tol, max_steps), 0
    with jax.enable_x64(True):
        weights = padded(x, affinity, gamma, n_neighbors)
        host = jax.device_get(_embed(static, key, weights.affinity, n, tol, max_steps))
    return host._replace(vectors=host.vectors[:n]), weights.exponent


def published(embedding: Embedding, x: Any, exponent: int) -> Embedding:
    """An embedding of `solve` in the unit of the weights of x and in the dtype of results about x."""
    if not isinstance(embedding.vectors, np.ndarray):
        return embedding
    dtype = published_dtype(x.data if scipy.sparse.issparse(x) else x)
    embedding = embedding._replace(vectors=np.ldexp(embedding.vectors, -exponent))
    return Embedding(*(publish(leaf, dtype if leaf.dtype.kind == "f" else np.dtype(np.int32)) for leaf in embedding))


class _Static(NamedTuple):
    """Options that change the program."""

    count: int
    drop_first: bool


@partial(jax.jit, static_argnums=0)
def _embed(static, key, affinity, n, tol, max_steps):
    """Of an affinity of which the first n rows are there."""
    present = jnp.arange(affinity.n, dtype=jnp.int32) < n
    operator = laplacian(affinity, present)
    null, pieces = _null_vectors(affinity, operator.sqrt_degrees, static.count)
    start = eigen.random_start(key, affinity.n, static.count, operator.sqrt_degrees.dtype)
    start = jnp.where(present[:, None], start, 0)
    limits = {"upper": UPPER, "null": null, "tol": tol, "max_steps": max_steps}
    pairs = eigen.smallest_eigenpairs(operator.product, start, static.count, **limits)
    vectors, values, residuals = _smoothed(operator, pairs)
    status = eigen.status_of(residuals, tol, pairs.status)
    kept = slice(int(static.drop_first), None)
    vectors = _signed(vectors / operator.sqrt_degrees[:, None])[:, kept]
    return Embedding(vectors, values[kept], residuals[kept], pieces, pairs.steps, status, pairs.history)


def _smoothed(operator, pairs):
    """Eigenvectors whose small entries are right too, relative to themselves; their eigenvalues and residuals.

    A row with little weight to any other, such as a far one under a Gaussian kernel, has an entry of about √degree,
    below the rounding of the vector, and is divided by √degree. D^-½WD^-½v = (1 − λ)v gives it from those of its
    neighbors without cancellation; where they have little weight themselves it takes as many steps as they are in line.
    """
    near = (pairs.values <= SMOOTH)[None, :]

    def smooth(_, vectors):
        following = operator.normalized.multiply(vectors) / jnp.where(near, 1 - pairs.values[None, :], 1)
        return jnp.where(near & operator.has_neighbors[:, None], following, vectors)

    vectors = jax.lax.fori_loop(0, SMOOTHING, smooth, pairs.vectors)
    vectors = vectors / jnp.sqrt(jnp.sum(jnp.square(vectors), axis=0))[None, :]
    return vectors, *eigen.rayleigh(operator.product, vectors)


def _null_vectors(affinity, roots, count):
    """√degree on each of the components of most weight, of length 1, and how many components there are.

    These are the eigenvectors of eigenvalue 0. A row without neighbors is none of them: its eigenvalue is 1.
    """
    labels = components(affinity)
    volumes = jnp.zeros_like(roots).at[labels].add(affinity.degrees())
    largest, names = jax.lax.top_k(volumes, count)
    members = (labels[:, None] == names[None, :]) & (largest > 0)[None, :]
    vectors = jnp.where(members, roots[:, None], 0) / jnp.sqrt(jnp.where(largest > 0, largest, 1))[None, :]
    return vectors, jnp.sum(volumes > 0).astype(jnp.int32)


def _signed(vectors):
    """Columns whose entry of the largest size is positive: the solver leaves the sign to chance."""
    at = jnp.argmax(jnp.abs(vectors), axis=0)
    negative = jnp.take_along_axis(vectors, at[None], axis=0) < 0
    return jnp.where(negative, -vectors, vectors)

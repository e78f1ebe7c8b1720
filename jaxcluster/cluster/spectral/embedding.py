"""Rows as the smoothest vectors over the graph of who belongs together: the smallest eigenvectors of its Laplacian."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.spectral.weights import check_input, count_rows, padded, traced
from jaxcluster.core import check
from jaxcluster.core.rows import float_dtype
from jaxcluster.ops import eigen
from jaxcluster.ops.affinity import Affinity, laplacian
from jaxcluster.ops.graph import components
from jaxcluster.types import Array, Float, Int, KeyArray

UPPER = 2.0
"""The largest eigenvalue that a normalised Laplacian may have."""

MAX_STEPS = 100


class Embedding(NamedTuple):
    """The smallest eigenvectors of the normalised Laplacian, a row of them for each row of the data.

    Attributes:
        vectors: (n, k) divided by √degree; the entry of each column that is largest in size is positive.
        eigenvalues: (k,) ascending, between 0 and 2.
        residuals: (k,) ‖Lv − λv‖ of the eigenvectors, of length 1.
        components: () int32, connected components of more than one row. Where there are more than k, the vectors tell
            apart the k of most weight.
        steps: () int32, steps of the eigensolver.
        status: () int32, a `Status`.
        history: (capacity,) the sum of the eigenvalues that were looked for, after each step.
    """

    vectors: Float[Array, "n k"]
    eigenvalues: Float[Array, " k"]
    residuals: Float[Array, " k"]
    components: Int[Array, ""]
    steps: Int[Array, ""]
    status: Int[Array, ""]
    history: Float[Array, " capacity"]


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
    gaps between eigenvalues are often narrower than float32 resolves.

    Args:
        key: random key for the start of the eigensolver.
        x: (n, d) rows, or an (n, n) matrix where the affinity is precomputed: weights, dense or SciPy sparse, or a
            `jaxcluster.ops.affinity.Affinity`; or distances.
        k: how many vectors, static, at most n.
        affinity: what W is. "rbf": exp(−γ‖x − y‖²). "nearest_neighbors": ½(A + Aᵀ), with a 1 in A at the
            ``n_neighbors`` nearest rows of each, itself among them. "precomputed": x itself.
            "precomputed_nearest_neighbors": nearest neighbours by the distances x. Or a function of two matrices of
            rows, (m, d) and (n, d), that gives (m, n) weights.
        gamma: γ of "rbf", in units of 1 / data units². Traced.
        n_neighbors: of the graphs of neighbours, static, at most n.
        drop_first: leave out the first eigenvector, which is constant where the graph is connected, and give k others.
        tol: the largest residual; smaller ones are reached where eigenvalues are close, see `ops.eigen.smallest`.
        max_steps: the most steps of the eigensolver.

    Raises:
        ValueError, TypeError: wrong shapes, values or names; weights that are not symmetric and >= 0, and where.
    """
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
        return _embed(static, key, traced(x, affinity, gamma, n_neighbors), n, tol, max_steps)
    with jax.enable_x64(True):
        embedding = _embed(static, key, padded(x, affinity, gamma, n_neighbors), n, tol, max_steps)
        host = jax.device_get(embedding)
    dtype = float_dtype(x.dtype if hasattr(x, "dtype") else np.float64)
    host = host._replace(vectors=host.vectors[:n])
    narrow = (leaf.astype(dtype) if leaf.dtype.kind == "f" else leaf.astype(np.int32) for leaf in host)
    return Embedding(*jax.device_put(list(narrow)))


class _Static(NamedTuple):
    """Options that change the program."""

    count: int
    drop_first: bool


@partial(jax.jit, static_argnums=0)
def _embed(static, key, affinity, n, tol, max_steps):
    """Of an affinity of which the first n rows are there."""
    present = jnp.arange(affinity.n) < n
    operator = laplacian(affinity, present)
    null, pieces = _null_vectors(affinity, operator.roots, static.count)
    start = eigen.random_start(key, affinity.n, static.count, operator.roots.dtype) * present[:, None]
    limits = {"upper": UPPER, "null": null, "tol": tol, "max_steps": max_steps}
    pairs = eigen.smallest(operator.product, start, static.count, **limits)
    kept = slice(int(static.drop_first), None)
    vectors = _signed(pairs.vectors / operator.roots[:, None])[:, kept]
    values, residuals = pairs.values[kept], pairs.residuals[kept]
    return Embedding(vectors, values, residuals, pieces, pairs.steps, pairs.status, pairs.history)


def _null_vectors(affinity, roots, count):
    """√degree on each of the components of most weight, of length 1, and how many components there are.

    These are the eigenvectors of eigenvalue 0. A row without neighbours is none of them: its eigenvalue is 1.
    """
    labels = components(affinity)
    volumes = jnp.zeros_like(roots).at[labels].add(affinity.degrees())
    largest, names = jax.lax.top_k(volumes, count)
    members = (labels[:, None] == names) & (largest > 0)
    vectors = jnp.where(members, roots[:, None], 0) / jnp.sqrt(jnp.where(largest > 0, largest, 1))
    return vectors, jnp.sum(volumes > 0).astype(jnp.int32)


def _signed(vectors):
    """Columns whose entry of the largest size is positive: the solver leaves the sign to chance."""
    at = jnp.argmax(jnp.abs(vectors), axis=0)
    return vectors * jnp.where(jnp.take_along_axis(vectors, at[None], axis=0) < 0, -1, 1)

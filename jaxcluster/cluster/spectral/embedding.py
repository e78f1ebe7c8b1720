"""Laplacian eigenmaps: the smallest eigenvectors of a normalized graph Laplacian.

>>> import jax, numpy as np
>>> from jaxcluster import spectral
>>> x = np.array([[0.0], [0.1], [5.0], [5.1]])
>>> spectral.embed(jax.random.key(0), x, 2).eigenvalues.round(3).tolist()
[0.0, 0.0]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.sharding import Mesh

from jaxcluster.cluster.spectral.affinity_input import (
    check_options,
    count_samples,
    gather_input,
    padded_affinity,
    traced_affinity,
)
from jaxcluster.core import chunks, signals, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import publish, published_dtype
from jaxcluster.core.iterate import advance, begin, status_of
from jaxcluster.core.shard import check_mesh, check_own_mesh
from jaxcluster.ops import eigen
from jaxcluster.ops.affinity import Affinity, laplacian
from jaxcluster.ops.graph import components
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Published, Status

FILTER_DEGREE = 16
"""Products with the affinity in a step, about: the degree of the filter is chosen anew in each."""

MAX_EIGENVALUE = 2.0
"""Upper bound of the eigenvalues of a normalized Laplacian."""

MAX_STEPS = 100
"""Default limit of the steps of the eigensolver."""

MAX_SMOOTHED_EIGENVALUE = 0.5
"""Eigenvalues λ up to which smoothing is applied: it multiplies an error along another one, μ, by (1 − μ)/(1 − λ)."""

SMOOTHING_STEPS = 3
"""Smoothing products: they correct chains of as many rows, each with little weight to any but the one before."""


class Embedding(NamedTuple):
    """Spectral embedding: a row of the smallest eigenvectors of the normalized Laplacian for each sample.

    Attributes:
        vectors: (n, k) eigenvectors divided by √degree; the largest entry of each column by size is positive.
        eigenvalues: (k,) ascending, between 0 and 2.
        residuals: (k,) ‖Lv − λv‖ of eigenvectors of length 1, in the dtype of the computation.
        components: () int32, number of connected components of more than one row. Of more than k components, the
            vectors separate the k of most weight.
        steps: () int32, steps of the eigensolver.
        status: () int32, a `Status`: see `jaxcluster.ops.eigen.Eigenpairs`.
        history: (capacity,) sum of the wanted eigenvalues after each step.
    """

    vectors: Float[Published, "n k"]
    eigenvalues: Float[Published, " k"]
    residuals: Float[Published, " k"]
    components: Int[Array, ""]
    steps: Int[Array, ""]
    status: Int[Array, ""]
    history: Float[Published, " capacity"]


@signals.keeping_result()
def embed(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    affinity: str | Callable = "rbf",
    gamma: Any = 1.0,
    n_neighbors: int = 10,
    drop_first: bool = False,
    tol: Any = 1e-4,
    max_steps: Any = MAX_STEPS,
    mesh: Mesh | None = None,
) -> Embedding:
    """Spectral embedding: the k smallest eigenvectors of L = I − D^-½WD^-½, W without its diagonal, over √degree.

    Works under jit, in the dtype of the rows. For concrete rows it is computed in float64, whatever their dtype: the
    gaps between eigenvalues are often narrower than float32 resolves. The result does not depend on the unit of the
    rows, if γ is in 1 / that unit², and only the length of the vectors on the unit of the weights.

    Args:
        key: random key for the initial block of the eigensolver.
        x: (n_samples, n_features) rows, for "nearest_neighbors" also sparse; or an (n_samples, n_samples) matrix for a
            precomputed affinity: weights, dense or SciPy sparse, or a `jaxcluster.ops.affinity.Affinity`; or distances,
            whose one-sided entries count for both sides.
        k: number of vectors, static, at most n_samples.
        affinity: weights W. "rbf": exp(−γ‖x − y‖²). "nearest_neighbors": ½(A + Aᵀ), with a 1 in A at the
            ``n_neighbors`` nearest rows of each, itself among them. "precomputed": x itself.
            "precomputed_nearest_neighbors": nearest neighbors by the distances x. Or a function of two matrices of
            rows, (m, d) and (n, d), that returns (m, n) weights.
        gamma: γ of "rbf", in units of 1 / data units². Traced.
        n_neighbors: number of neighbors in a graph of neighbors, static, at most n_samples.
        drop_first: True leaves out the first eigenvector, constant for a connected graph, and returns the next k.
        tol: largest residual; smaller where eigenvalues are close, see `jaxcluster.ops.eigen.smallest_eigenpairs`. 0
            takes all steps.
        max_steps: most steps of the eigensolver.
        mesh: over whose devices the rows of the graph, of its vectors and, for "nearest_neighbors", of the search are
            spread; x is concrete, and sparse only where precomputed. None for one device. Where they are those of
            several processes, ``x`` has the rows of this one, and so has the result: all share the search, each solves
            for the eigenvectors of all rows on its own devices, and needs memory for the graph of all.

    Returns:
        An `Embedding`; for concrete rows in float64 if they are float64 or integers, else float32.

    Raises:
        ValueError, TypeError: wrong shapes, values or names; weights that are not symmetric and >= 0, and where.
    """
    key = validation.check_key(key)
    options = {"affinity": affinity, "gamma": gamma, "n_neighbors": n_neighbors, "drop_first": drop_first}
    check_mesh(mesh, None if str(affinity).startswith("precomputed") else x)
    key, every, options["affinity"], mesh, own = gather_input(key, x, affinity, n_neighbors, mesh)
    embedding, exponent = solve_embedding(key, every, k, **options, tol=tol, max_steps=max_steps, mesh=mesh)
    return publish_embedding(embedding, x, exponent, own)


def solve_embedding(
    key, x, k, *, affinity, gamma, n_neighbors, drop_first, tol, max_steps, mesh=None
) -> tuple[Embedding, int]:
    """`embed`, before the unit of the weights is restored.

    Returns:
        The embedding of weights over 4^exponent, for concrete rows on the host in float64; and the exponent.
    """
    check_options(x, affinity, gamma, n_neighbors)
    n, count = count_samples(x), validation.check_count("k", k) + bool(drop_first)
    if n < count:
        raise ValueError(
            f"n_samples={n} should be >= {count}, the eigenvectors asked for: k={k}"
            f"{' and the first, which is dropped' if drop_first else ''}. Pass a smaller k."
        )
    validation.check_positive("tol", tol, zero=True)
    validation.check_positive("max_steps", max_steps)
    static = _Static(count, bool(drop_first))
    check_own_mesh(mesh, None if str(affinity).startswith("precomputed") else x)
    if isinstance(x, Affinity) or validation.is_traced(key, x, gamma, tol, max_steps):
        if mesh is not None:
            raise ValueError("mesh= takes concrete rows or a matrix of weights: call it outside of jit.")
        return _solve(static, key, traced_affinity(x, affinity, gamma, n_neighbors), n, tol, max_steps), 0
    with jax.enable_x64(True):
        weights = padded_affinity(x, affinity, gamma, n_neighbors, mesh)
        host = jax.device_get(_solve(static, key, weights.affinity, n, tol, max_steps))
    return host._replace(vectors=host.vectors[:n]), weights.exponent


def publish_embedding(embedding: Embedding, x: Any, exponent: int, own: slice = slice(None)) -> Embedding:
    """Own rows of an embedding by `solve_embedding`, in the unit of the weights of x and the dtype of the results."""
    if not isinstance(embedding.vectors, np.ndarray):
        return embedding
    dtype = published_dtype(x.data if scipy.sparse.issparse(x) else x)
    embedding = embedding._replace(vectors=np.ldexp(embedding.vectors[own], -exponent))
    return Embedding(*(publish(leaf, dtype if leaf.dtype.kind == "f" else np.dtype(np.int32)) for leaf in embedding))


class _Static(NamedTuple):
    """Static options: each choice compiles a program of its own."""

    count: int
    drop_first: bool


def _solve(static, key, affinity, n, tol, max_steps):
    """Embedding of an affinity whose rows from n on are padding."""
    width = eigen.block_width(static.count, affinity.n)
    if width == affinity.n:
        return _dense_solve(static, key, affinity, n, tol, max_steps)
    # A step multiplies by the affinity as often as the degree of its filter.
    work = FILTER_DEGREE * width * sum(leaf.size for leaf in jax.tree.leaves(affinity))
    arguments = key, affinity, n, tol, max_steps
    if chunks.is_long(work, max_steps, *arguments):
        return _solve_in_chunks(static, *arguments, work=work)
    return _iterative_solve(static, *arguments)


def _solve_in_chunks(static, key, affinity, n, tol, max_steps, *, work):
    """Embedding of a concrete affinity in chunks of products, as one step may take long. Ctrl-C ends it."""
    signals.check_stopped()  # Ctrl-C was pressed while the graph was made: there is no state to end with
    operands, fit, tol, _ = _compiled_start(static, key, affinity, n, tol, max_steps)
    end = chunks.End(_compiled_end, static, operands)
    end.compile(fit)
    budget = chunks.Budget(work / FILTER_DEGREE)
    while int(fit.steps) < max_steps and float(fit.state.residual) > tol:
        filtering, done = _begin_filter(fit.state), 0
        degree = int(filtering.degree)
        while done < degree:
            if signals.interrupted():
                fit = fit._replace(status=jnp.int32(Status.INTERRUPTED))
                return end(fit)
            stop = min(degree, done + budget.steps)
            with budget:
                budget.taken = stop - done
                filtering = jax.block_until_ready(_filter_block(operands, filtering, done, stop))
            done = stop
        fit = _compiled_ritz(operands, fit, filtering)
    return end(fit)


def _start(static, key, affinity, n, tol, max_steps):
    present = jnp.arange(affinity.n, dtype=jnp.int32) < n
    operator = laplacian(affinity, present)
    null, n_components = _null_vectors(affinity, operator.sqrt_degrees, static.count)
    start = eigen.random_start(key, affinity.n, static.count, operator.sqrt_degrees.dtype)
    start = jnp.where(present[:, None], start, 0)
    wanted = eigen.count_wanted(static.count, null)
    state = eigen.initial_state(start, wanted, MAX_EIGENVALUE)
    return (operator, null, n_components, wanted, tol), begin(state), tol, max_steps


@persistent_jit(static_argnums=0)
def _iterative_solve(static, *arguments):
    operands, fit, tol, max_steps = _start(static, *arguments)
    operator, null, _, wanted, _ = operands
    step = partial(eigen.step, operator.product, null, wanted, MAX_EIGENVALUE, tol)
    return _end(static, advance(step, fit, tol=tol, max_steps=max_steps), operands)


def _end(static, fit, operands):
    operator, null, n_components, wanted, tol = operands
    vectors = fit.state.vectors
    pairs = eigen.eigenpairs_of(operator.product, static.count, null, wanted, tol, vectors, fit)
    return _embedding(static, operator, pairs, n_components, tol)


@persistent_jit
def _compiled_ritz(operands, fit, filtering):
    operator, null, _, wanted, tol = operands
    state = eigen.end_step(operator.product, null, wanted, tol, filtering)
    history = fit.history.at[fit.steps].set(state.objective, mode="drop")
    return Fit(state, None, fit.steps + 1, status_of(state.residual, tol), history)


_compiled_start = persistent_jit(_start, static_argnums=0)
_compiled_end = persistent_jit(_end, static_argnums=0)
_begin_filter = persistent_jit(partial(eigen.begin_filter, upper=MAX_EIGENVALUE))


@persistent_jit
def _filter_block(operands, filtering, start, stop):
    return eigen.filter_block(operands[0].product, filtering, start, stop)


@persistent_jit(static_argnums=0)
def _dense_solve(static, key, affinity, n, tol, max_steps):
    (operator, null, n_components, wanted, tol), _, _, _ = _start(static, key, affinity, n, tol, max_steps)
    vectors = eigen.all_eigenvectors(operator.product, null, MAX_EIGENVALUE)
    pairs = eigen.eigenpairs_of(operator.product, static.count, null, wanted, tol, vectors)
    return _embedding(static, operator, pairs, n_components, tol)


def _embedding(static, operator, pairs, n_components, tol):
    vectors, values, residuals = _smooth_small_entries(operator, pairs)
    status = eigen.status_of(residuals, tol, pairs.status)
    kept = slice(int(static.drop_first), None)
    vectors = _with_positive_peaks(vectors / operator.sqrt_degrees[:, None])[:, kept]
    return Embedding(vectors, values[kept], residuals[kept], n_components, pairs.steps, status, pairs.history)


def _smooth_small_entries(operator, pairs):
    """Eigenvectors with small relative errors in small entries too.

    Returns:
        The vectors, their eigenvalues and their residuals.
    """
    # A row with little weight to any other, such as a far one under a Gaussian kernel, has an entry of about √degree,
    # below the rounding of the vector, and is divided by √degree. D^-½WD^-½v = (1 − λ)v yields it from the entries of
    # its neighbors without cancellation; a chain of rows of little weight takes as many steps as it is long.
    small = (pairs.values <= MAX_SMOOTHED_EIGENVALUE)[None, :]

    def smooth(_, vectors):
        following = operator.normalized.multiply(vectors) / jnp.where(small, 1 - pairs.values[None, :], 1)
        return jnp.where(small & operator.has_neighbors[:, None], following, vectors)

    vectors = jax.lax.fori_loop(0, SMOOTHING_STEPS, smooth, pairs.vectors)
    vectors = vectors / jnp.sqrt(jnp.sum(jnp.square(vectors), axis=0))[None, :]
    return vectors, *eigen.rayleigh(operator.product, vectors)


def _null_vectors(affinity, roots, count):
    """Eigenvectors of eigenvalue 0: √degree on each component, for the components of most weight.

    A row without neighbors is no component: its eigenvalue is 1.

    Returns:
        The vectors, of length 1, and the number of components.
    """
    labels = components(affinity)
    volumes = jnp.zeros_like(roots).at[labels].add(affinity.degrees())
    largest, names = jax.lax.top_k(volumes, count)
    members = (labels[:, None] == names[None, :]) & (largest > 0)[None, :]
    vectors = jnp.where(members, roots[:, None], 0) / jnp.sqrt(jnp.where(largest > 0, largest, 1))[None, :]
    return vectors, jnp.sum(volumes > 0).astype(jnp.int32)


def _with_positive_peaks(vectors):
    """Columns with a positive entry of largest size: the solver leaves the sign to chance."""
    at = jnp.argmax(jnp.abs(vectors), axis=0)
    negative = jnp.take_along_axis(vectors, at[None], axis=0) < 0
    return jnp.where(negative, -vectors, vectors)

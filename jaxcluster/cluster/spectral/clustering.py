"""Spectral clustering: fit, the label assignments on an embedding, and the graph cuts that it approximately minimizes.

>>> import jax, numpy as np
>>> from jaxcluster import spectral
>>> x = np.array([[0.0], [0.1], [5.0], [5.1]])
>>> labels = spectral.fit(jax.random.key(0), x, 2).labels
>>> bool(labels[0] == labels[1]) and bool(labels[1] != labels[2])
True

Sources: J. Shi and J. Malik, Normalized cuts and image segmentation, IEEE Trans. PAMI 22 (2000); U. von Luxburg, A
tutorial on spectral clustering, Statistics and Computing 17 (2007); for the assignments S. X. Yu and J. Shi, Multiclass
spectral clustering, ICCV 2003; A. Damle, V. Minden and L. Ying, Simple, direct and efficient multi-way spectral
clustering, Information and Inference 8 (2019).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcluster.cluster import kmeans
from jaxcluster.cluster.spectral.affinity_input import count_samples, gather_input
from jaxcluster.cluster.spectral.embedding import MAX_STEPS, publish_embedding, solve_embedding
from jaxcluster.core import signals, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import exponent_of, times_power_of_two
from jaxcluster.core.iterate import iterate
from jaxcluster.core.processes import keep_own_labels
from jaxcluster.core.shard import check_mesh
from jaxcluster.ops.affinity import Affinity, as_affinity, cut_and_volume, scale_to_unit
from jaxcluster.ops.distance import HIGHEST, normalize
from jaxcluster.ops.graph import check_affinity
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Published, Status

ASSIGNMENTS = ("kmeans", "discretize", "cluster_qr")
"""Label assignments on an embedding."""


class RotationState(NamedTuple):
    """Rotation of unit rows towards the axes.

    Attributes:
        rotation: (k, k) orthonormal columns.
        labels: (n,) int32, nearest axis of each row.
        objective: () Σ 2·(1 − cos) of the rows to their axes, after the best rotation for the labels.
        residual: () decrease of the objective in the last step.
    """

    rotation: Float[Array, "k k"]
    labels: Int[Array, " n"]
    objective: Float[Array, ""]
    residual: Float[Array, ""]


@signals.keeping_result()
def fit(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    affinity: str | Callable = "rbf",
    gamma: Any = 1.0,
    n_neighbors: int = 10,
    n_components: int | None = None,
    assign_labels: str = "kmeans",
    n_init: int | str = 10,
    tol: Any = 1e-4,
    max_steps: Any = MAX_STEPS,
    mesh: Mesh | None = None,
) -> Fit:
    """Spectral clustering: clusters with little weight between them, an approximately minimal normalized cut.

    Works under jit, as `embed` does, in any unit of the rows and of the weights. If the graph has k connected
    components or more, no cluster cuts one.

    Args:
        key: random key for the eigensolver and the labels.
        x, affinity, gamma, n_neighbors, tol, max_steps, mesh: as in `embed`; k-means is spread over the mesh too.
        k: number of clusters, static, 1 <= k <= n_samples.
        n_components: number of eigenvectors of the embedding; None for k, as "discretize" and "cluster_qr" require.
        assign_labels: "kmeans", "discretize" (rotation to indicators) or "cluster_qr" (deterministic).
        n_init: number of initializations of "kmeans".

    Returns:
        `Fit` with an `Embedding`, labels (n,) int32, steps and history of the eigensolver, and its status, or that of
        k-means where the eigensolver has converged.

    Raises:
        ValueError, TypeError: as `embed`; an unknown ``assign_labels``; k, ``n_init`` or ``n_components`` that do not
            fit.
    """
    key = validation.check_key(key)
    validation.check_choice("assign_labels", assign_labels, ASSIGNMENTS)
    check_mesh(mesh, None if str(affinity).startswith("precomputed") else x)
    key, every, affinity, mesh, own = gather_input(key, x, affinity, n_neighbors, mesh)
    k = validation.check_clusters(k, count_samples(every))
    wide = k if n_components is None else validation.check_count("n_components", n_components)
    if assign_labels != "kmeans" and wide != k:
        raise ValueError(
            f"assign_labels={assign_labels!r} makes a cluster of each eigenvector, so n_components={wide} must be "
            f"k={k}. Leave it out, or pass assign_labels='kmeans'."
        )
    kmeans.check_runs("k-means++", n_init)
    solver_key, label_key = _two_keys(key)
    options = {"affinity": affinity, "gamma": gamma, "n_neighbors": n_neighbors, "tol": tol, "max_steps": max_steps}
    # Labels are assigned in the unit of the solver, in which no entry leaves the range of a dtype.
    embedding, exponent = solve_embedding(solver_key, every, wide, drop_first=False, mesh=mesh, **options)
    status = embedding.status
    if assign_labels == "kmeans":
        clusters = kmeans.fit(label_key, embedding.vectors, k, n_init=n_init, mesh=mesh)
        labels = clusters.labels
        status = _joint_status(status, clusters.status)
    elif assign_labels == "discretize":
        labels = discretize(label_key, embedding.vectors)
    else:
        labels = cluster_qr(embedding.vectors)
    embedding = publish_embedding(embedding, x, exponent, own)
    fitted = Fit(embedding, labels, embedding.steps, jnp.asarray(status, jnp.int32), embedding.history)
    return keep_own_labels(fitted, own)


def discretize(
    key: KeyArray, vectors: Float[Published, "n k"], *, tol: Any = 1e-6, max_steps: Any = 30
) -> Int[Array, " n"]:
    """Labels of an embedding by the rotation of its rows that is nearest to cluster indicators.

    Rows are scaled to length 1. The initial axes are nearly orthogonal rows, beginning with a random one. Works under
    jit.

    Args:
        key: random key for the first row.
        vectors: (n_samples, k) eigenvectors of `embed`, in any unit.
        tol: stop when a step lowers the mean squared distance of the rows from their indicators by no more. Traced.
        max_steps: most steps. Traced.

    Returns:
        (n_samples,) int32 labels.
    """
    if validation.is_traced(key, vectors, tol, max_steps):
        return _discretize(key, vectors, tol, max_steps)
    with jax.enable_x64(True):
        return jax.device_put(np.asarray(_discretize(key, _in_unit_frame(vectors), float(tol), max_steps)))


def cluster_qr(vectors: Float[Published, "n k"]) -> Int[Array, " n"]:
    """Labels of an embedding by a pivoted QR decomposition of its transpose.

    The k pivot rows represent the clusters. The eigenvectors are rotated so that these lie along the axes, as nearly as
    an orthonormal matrix allows, and each row is labeled by its largest entry. Deterministic; works under jit.

    Args:
        vectors: (n_samples, k) eigenvectors of `embed`, in any unit.

    Returns:
        (n_samples,) int32 labels.
    """
    if validation.is_traced(vectors):
        exponent = exponent_of(jax.lax.stop_gradient(jnp.max(jnp.abs(vectors))))
        return _cluster_qr(times_power_of_two(vectors, -exponent))
    with jax.enable_x64(True):
        return jax.device_put(np.asarray(_cluster_qr(_in_unit_frame(vectors))))


def status_of_kmeans(status: Int[Array, ""]) -> Int[Array, ""]:
    """Status of k-means on an embedding, with CONVERGED in place of PRECISION."""
    # Rows of one cluster may coincide in an embedding but for rounding, which k-means reports as PRECISION.
    return jnp.where(status == Status.PRECISION, jnp.int32(Status.CONVERGED), status)


@persistent_jit
def _joint_status(solver, clusters):
    return jnp.where(solver == Status.CONVERGED, status_of_kmeans(clusters), solver).astype(jnp.int32)


@persistent_jit
def _two_keys(key):
    first, second = jax.random.split(key)
    return first, second


def _in_unit_frame(vectors):
    """Concrete vectors in float64, times a power of two that brings the largest entry near 1."""
    # They are divided by √degree, which has the unit of √weight: their squares may leave the range of a dtype.
    vectors = np.asarray(validation.check_matrix(vectors, name="vectors"), np.float64)
    validation.check_finite(vectors, name="vectors")
    return jnp.asarray(np.ldexp(vectors, -np.frexp(np.abs(vectors).max())[1]))


@persistent_jit
def _discretize(key, vectors, tol, max_steps):
    rows = normalize(vectors)
    n = rows.shape[0]
    step = partial(_rotation_step, rows)
    infinite = jnp.full((), jnp.inf, rows.dtype)
    start = RotationState(_nearly_orthogonal(key, rows), jnp.zeros((n,), jnp.int32), infinite, infinite)
    return iterate(step, start, tol=tol * n, max_steps=max_steps).state.labels


@persistent_jit
def _cluster_qr(vectors):
    left, _, right = jnp.linalg.svd(vectors[_pivots(vectors)].T)
    rotated = jnp.matmul(vectors, jnp.matmul(left, right, precision=HIGHEST), precision=HIGHEST)
    return jnp.argmax(jnp.abs(rotated), axis=1).astype(jnp.int32)


def _pivots(vectors):
    """Pivots (k,) of a QR decomposition: each is the longest row after projecting out those before it."""

    def choose(residuals, _):
        lengths = jnp.sum(jnp.square(residuals), axis=1)
        pivot = jnp.argmax(lengths)
        direction = residuals[pivot] / jnp.sqrt(jnp.where(lengths[pivot] > 0, lengths[pivot], 1))
        projections = jnp.matmul(residuals, direction, precision=HIGHEST)
        return residuals - projections[:, None] * direction[None, :], pivot

    return jax.lax.scan(choose, vectors, length=vectors.shape[1])[1]


def _nearly_orthogonal(key, rows):
    """Axes (k, k) as columns: a random row, then greedily the row of least sum of cosines to those before it."""
    n, k = rows.shape
    first = rows[jax.random.randint(key, (), 0, n)]

    def choose(carry, _):
        along, last = carry
        # Rows of other clusters are nearly orthogonal to the axes so far (Yu and Shi, 2003).
        along = along + jnp.abs(jnp.matmul(rows, last, precision=HIGHEST))
        following = rows[jnp.argmin(along)]
        return (along, following), following

    others = jax.lax.scan(choose, (jnp.zeros_like(rows[:, 0]), first), length=k - 1)[1]
    return jnp.concatenate([first[None], others]).T


def _rotation_step(rows, state):
    """Labels of a rotation, then the best rotation for them: the polar factor of the sums by label."""
    rotated = jnp.matmul(rows, state.rotation, precision=HIGHEST)
    labels = jnp.argmax(rotated, axis=1).astype(jnp.int32)
    sums = jnp.zeros_like(state.rotation).at[labels].add(rows)
    left, sizes, right = jnp.linalg.svd(sums)
    objective = 2 * (rows.shape[0] - jnp.sum(sizes))
    rotation = jnp.matmul(left, right, precision=HIGHEST).T
    return RotationState(rotation, labels, objective, jnp.abs(state.objective - objective))


def ncut(labels: Any, affinity: Any) -> float:
    """Normalized cut Σ_j cut_j / vol_j of a labeling, from 0 to the number of clusters.

    cut_j is the weight between the rows of cluster j and all others, vol_j the weight of its rows to all. A cluster
    without weight adds 0.

    Args:
        labels: (n_samples,) concrete labels, any integers.
        affinity: symmetric weights >= 0, diagonal included: an (n_samples, n_samples) matrix, dense or SciPy sparse, or
            a `jaxcluster.ops.affinity.Affinity`.

    Raises:
        ValueError, TypeError: labels that are not n integers; a matrix that is not square, symmetric, finite and
            non-negative, and where.

    Source: J. Shi and J. Malik, Normalized cuts and image segmentation, IEEE Trans. PAMI 22 (2000).
    """
    cut, volume, _, _ = _cut_statistics(labels, affinity)
    return float(np.sum(cut[volume > 0] / volume[volume > 0]))


def ratio_cut(labels: Any, affinity: Any) -> float:
    """Ratio cut Σ_j cut_j / n_j of a labeling, n_j the size of cluster j (units of the weights).

    Args:
        labels, affinity: as in `ncut`.

    Raises:
        ValueError, TypeError: as `ncut`.

    Source: L. Hagen and A. B. Kahng, New spectral methods for ratio cut partitioning and clustering, IEEE Trans. CAD 11
    (1992).
    """
    cut, _, counts, exponent = _cut_statistics(labels, affinity)
    return float(np.ldexp(np.sum(cut / counts), 2 * exponent))


def _cut_statistics(labels, affinity):
    """Statistics of the clusters in float64.

    Returns:
        Cuts and volumes, both over 4^exponent, sizes, and the exponent.
    """
    if validation.is_traced(labels, affinity):
        raise TypeError(
            "the cut of a labeling takes concrete labels and weights: it has no gradient. "
            "jaxcluster.losses.soft_ncut is its differentiable form."
        )
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise TypeError(f"labels must be (n,) integers, got shape {labels.shape} of {labels.dtype}.")
    with jax.enable_x64(True):
        exponent = 0
        if not isinstance(affinity, Affinity):
            affinity, exponent = scale_to_unit(check_affinity(affinity))
        weights = as_affinity(affinity)
        if len(labels) != weights.n:
            raise ValueError(f"labels has {len(labels)} entries, but the affinity is of {weights.n} rows.")
        _, clusters, counts = np.unique(labels, return_inverse=True, return_counts=True)
        members = jax.nn.one_hot(jnp.asarray(clusters), len(counts), dtype=weights.diagonal.dtype)
        cut, volume = jax.device_get(jax.jit(cut_and_volume)(weights, members))
    return cut.astype(np.float64), volume.astype(np.float64), counts, exponent

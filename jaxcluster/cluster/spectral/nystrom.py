"""Spectral clustering of many samples by Nyström's extension from a few landmarks, orthogonalized.

With m landmarks Z the affinity matrix is approximated by K(x, Z)·K(Z, Z)⁻¹·K(Z, x). The eigenvectors of its Laplacian
are exact and orthonormal, cost O(n·m²) time and O(m²) memory and tiles, and extend to new rows by the same formula.

>>> import jax, numpy as np
>>> from jaxcluster import spectral
>>> x = np.array([[0.0], [0.1], [5.0], [5.1]])
>>> labels = spectral.nystrom(jax.random.key(0), x, 2).labels
>>> bool(labels[0] == labels[1]) and bool(labels[1] != labels[2])
True

Source: C. Fowlkes, S. Belongie, F. Chung and J. Malik, Spectral grouping using the Nyström method, IEEE Trans. PAMI 26
(2004), its one-shot form.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcluster.cluster import kmeans
from jaxcluster.cluster.spectral.affinity_input import check_gamma, gather_input
from jaxcluster.cluster.spectral.clustering import status_of_kmeans
from jaxcluster.core import validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import publish, published_dtype
from jaxcluster.core.fold import MAX, MIN, all_reduce, fold_rows, map_rows, tile_rows
from jaxcluster.core.frame import Frame
from jaxcluster.core.preparation import padded_size, prepare
from jaxcluster.core.processes import keep_own_labels
from jaxcluster.core.shard import axis_of, check_mesh, rows_of, solve_over_rows
from jaxcluster.ops.affinity import gaussian_weights, unit_width
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.metric_space import concrete_rows
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Published

LANDMARKS = 500
"""Default number of landmarks."""

TILE = 1 << 21
"""Number of weights to landmarks in a tile."""


class NystromState(NamedTuple):
    """Fitted embedding of old and new rows. For concrete rows it is on the host, in float64.

    Attributes:
        frame: frame of the rows of the fit.
        width: √γ in the unit of the frame.
        landmarks: (m, n_features) landmarks in the frame, times the width.
        mix: (m,) factor of the weights to the landmarks: their product is the degree of a row.
        projection: (m, k) factor of the weights to the landmarks: their product over the degree is the embedding.
        eigenvalues: (k,) eigenvalues of the Laplacian, ascending.
        centers: (k, k) centers of the clusters in the embedding.
    """

    frame: Frame
    width: Float[Published, ""]
    landmarks: Float[Published, "m d"]
    mix: Float[Published, " m"]
    projection: Float[Published, "m k"]
    eigenvalues: Float[Published, " k"]
    centers: Float[Published, "k k"]


def nystrom(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    gamma: Any = 1.0,
    landmarks: int = LANDMARKS,
    n_init: int | str = 10,
    mesh: Mesh | None = None,
) -> Fit:
    """Nyström approximation of `fit` with affinity "rbf" and k-means, in time and memory linear in n_samples.

    Unlike in other affinities the diagonal of the weights remains, as a part of the approximation. A row far from all
    landmarks lies at the origin of the embedding. Works under jit; for concrete rows it is computed in float64.

    Args:
        key: random key for the landmarks and k-means.
        x: (n_samples, n_features) rows.
        k: number of clusters, static, at most the number of landmarks.
        gamma: γ of exp(−γ‖x − y‖²), in units of 1 / data units². Traced.
        landmarks: number of landmarks, drawn at random from the rows, static; at most all rows.
        n_init: number of initializations of k-means.
        mesh: over whose devices concrete samples are spread; None for one device. Where they are those of several
            processes, ``x`` has the rows of this one, and so have the labels; each process fits the rows of all.

    Returns:
        `Fit` with a `NystromState`, labels (n_samples,) int32, and steps, status and history of k-means.

    Raises:
        ValueError, TypeError: wrong shapes or values.
    """
    key = validation.check_key(key)
    check_mesh(mesh, x)
    key, x, _, mesh, own = gather_input(key, validation.check_matrix(x), "rbf", 0, mesh)
    m = min(validation.check_count("landmarks", landmarks), x.shape[0])
    if validation.check_clusters(k, x.shape[0]) > m:
        raise ValueError(f"k={k} must be at most landmarks={m}. Pass more landmarks or a smaller k.")
    check_gamma(gamma)
    kmeans.check_runs("k-means++", n_init)
    draw_key, label_key = jax.random.split(key)
    # Without replacement: a landmark drawn twice would make the landmarks' affinities singular.
    chosen = jax.random.permutation(draw_key, x.shape[0])[:m]
    if validation.is_traced(key, x, gamma):
        if mesh is not None:
            raise ValueError("mesh= takes concrete rows: call it outside of jit.")
        state, vectors = _fitted(k, prepare(x), gamma, chosen, None)
        clusters = kmeans.fit(label_key, vectors, k, n_init=n_init)
    else:
        x, dtype = concrete_rows(x), published_dtype(x)
        with jax.enable_x64(True):
            state, vectors = _fitted(k, prepare(x.astype(np.float64), mesh=mesh), gamma, np.asarray(chosen), mesh)
            state, vectors = jax.device_get((state, vectors))
        clusters = kmeans.fit(label_key, publish(vectors[: len(x)], dtype), k, n_init=n_init, mesh=mesh)
    state = state._replace(centers=clusters.state.centers)
    return keep_own_labels(clusters._replace(state=state, status=status_of_kmeans(clusters.status)), own)


def transform(state: NystromState, x: Any) -> Float[Published, "n k"]:
    """Embedding of rows by a fit; that of its own rows is what it clustered.

    Args:
        state: state of `nystrom`.
        x: (n_samples, n_features) rows.

    Returns:
        (n_samples, k) embedding.

    Raises:
        ValueError, TypeError: rows of another width than those of the fit.
    """
    x = validation.check_matrix(x)
    validation.check_width(x, state.landmarks.shape[1])
    if validation.is_traced(x, state):
        return _embed(state.frame.enter(x) * state.width, _projection_of(state))
    x, dtype = concrete_rows(x), published_dtype(x)
    with jax.enable_x64(True):
        rows = np.asarray(state.frame.enter(x)) * np.asarray(state.width)
        rows = np.pad(rows, ((0, padded_size(len(x)) - len(x)), (0, 0)))
        embedded = np.asarray(_embed(jnp.asarray(rows), _projection_of(state)))
    return publish(embedded[: len(x)], dtype)


def predict(state: NystromState, x: Any) -> Int[Array, " n"]:
    """Label of each of (n_samples, n_features) rows by its nearest center in the embedding: (n_samples,) int32."""
    return kmeans.predict(state.centers, transform(state, x))


class _Projection(NamedTuple):
    """Arrays of a `NystromState` that embed rows in its frame, on the device."""

    landmarks: Float[Array, "m d"]
    mix: Float[Array, " m"]
    projection: Float[Array, "m k"]


def _projection_of(state):
    return _Projection(*(jnp.asarray(each) for each in (state.landmarks, state.mix, state.projection)))


def _fitted(k, prepared, gamma, chosen, mesh):
    """State without centers, and the embedding of the rows with padding."""
    points, frame = prepared.points, prepared.frame
    width = unit_width(gamma, frame.exponent, points.x.dtype)
    x = points.x * width
    static, arguments = _Static(k, axis_of(mesh)), (x, x[chosen], points.weight)
    if mesh is None:
        (landmarks, mix, projection), eigenvalues, vectors = _compiled_solve(static, *arguments)
    else:
        specs = rows_of(mesh)
        in_specs, out_specs = (specs.row, specs.whole, specs.row), (specs.whole, specs.whole, specs.row)
        solved = solve_over_rows(_solve, static, mesh, in_specs, out_specs, *arguments)
        (landmarks, mix, projection), eigenvalues, vectors = solved
    centers = jnp.zeros((k, k), points.x.dtype)
    return NystromState(frame, width, landmarks, mix, projection, eigenvalues, centers), vectors


class _Static(NamedTuple):
    """Static options: each choice compiles a program of its own."""

    k: int
    axis_name: str | None


def _solve(static, x, landmarks, present):
    """Projection, eigenvalues and embedding of the rows, of which those with ``present`` 0 are padding."""
    k, axis_name = static
    features = _features(landmarks)
    tile = tile_rows(x.shape[0], landmarks.shape[0], TILE)

    def rows_of_tile(part):
        x, present = part
        return jnp.matmul(gaussian_weights(x, landmarks), features, precision=HIGHEST) * present[:, None]

    def total_of_tile(part):
        return jnp.sum(rows_of_tile(part), axis=0), ()

    total, _ = fold_rows(total_of_tile, (x, present), tile=tile, axis_name=axis_name)

    def products(part):
        rows = rows_of_tile(part)
        degrees = _at_least_one(jnp.matmul(rows, total, precision=HIGHEST))
        return jnp.matmul(rows.T, rows / degrees[:, None], precision=HIGHEST), ()

    gram, _ = fold_rows(products, (x, present), tile=tile, axis_name=axis_name)
    values, rotation = jnp.linalg.eigh((gram + gram.T) / 2)
    values, rotation = values[::-1][:k], rotation[:, ::-1][:, :k]
    # Beyond the rank of the weights the eigenvectors are rounding: their columns are 0.
    sizes = jnp.where(values > jnp.finfo(x.dtype).eps, values, jnp.inf)
    projection = jnp.matmul(features, rotation * jax.lax.rsqrt(sizes)[None, :], precision=HIGHEST)
    mix = jnp.matmul(features, total, precision=HIGHEST)
    vectors = _embed(x, _Projection(landmarks, mix, projection))
    kept = vectors * present[:, None]
    least, greatest = (
        all_reduce(jnp.min(kept, axis=0), axis_name, MIN),
        all_reduce(jnp.max(kept, axis=0), axis_name, MAX),
    )
    negative = greatest < -least
    projection, vectors = (jnp.where(negative, -each, each) for each in (projection, vectors))
    return _Projection(landmarks, mix, projection), 1 - values, vectors


_compiled_solve = persistent_jit(_solve, static_argnums=0)


@persistent_jit
def _embed(x, arrays):
    def embed_tile(x):
        weights = gaussian_weights(x, arrays.landmarks)
        degrees = _at_least_one(jnp.matmul(weights, arrays.mix, precision=HIGHEST))
        return jnp.matmul(weights, arrays.projection, precision=HIGHEST) / degrees[:, None]

    return map_rows(embed_tile, x, tile=tile_rows(x.shape[0], arrays.landmarks.shape[0], TILE))


def _features(landmarks):
    """Square root K(Z, Z)^-½, (m, m): weights to landmarks times it are features with the weights as products."""
    weights = gaussian_weights(landmarks, landmarks)
    values, vectors = jnp.linalg.eigh((weights + weights.T) / 2)
    least = values.shape[0] * jnp.finfo(values.dtype).eps * values[-1]
    return vectors * jax.lax.rsqrt(jnp.where(values > least, values, jnp.inf))[None, :]


def _at_least_one(degrees):
    """Degrees of at least 1, the weight of a row to itself: less is an error of the approximation."""
    return jnp.maximum(degrees, 1)

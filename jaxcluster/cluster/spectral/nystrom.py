"""Spectral clustering of many rows by the weights of all to a few of them: Nyström's extension, orthogonalised.

With landmarks Z the matrix of weights is taken for K(x, Z)·K(Z, Z)⁻¹·K(Z, x). Its Laplacian has eigenvectors that are
exact and orthonormal at a cost of n·m² and a memory of m² and tiles, and that extend to new rows by the same formula.

Source: C. Fowlkes, S. Belongie, F. Chung and J. Malik, Spectral grouping using the Nyström method, IEEE Trans. PAMI 26
(2004), its one-shot form.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster import kmeans
from jaxcluster.cluster.spectral.labels import ending
from jaxcluster.cluster.spectral.weights import check_gamma
from jaxcluster.core import check
from jaxcluster.core.fold import fold_rows, map_rows, tile_rows
from jaxcluster.core.frame import Frame, bucket, prepare, publish, published_dtype
from jaxcluster.ops.affinity import gaussian_weights, unit_width
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.pairwise import concrete_rows
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Published

LANDMARKS = 500

TILE = 1 << 21
"""Weights to landmarks that are held at a time."""


class NystromState(NamedTuple):
    """What embeds and labels rows, old or new. Of concrete rows it is kept on the host, in float64.

    Attributes:
        frame: of the rows of the fit, in which new rows are compared with the landmarks.
        width: √γ in the unit of the frame.
        landmarks: (m, d) rows that all others are compared with, in the frame, times the width.
        mix: (m,) a row's degree is its weights to the landmarks times this.
        projection: (m, k) its place in the embedding is its weights times this, divided by its degree.
        eigenvalues: (k,) of the Laplacian, ascending.
        centers: (k, k) of the clusters in the embedding.
    """

    frame: Frame
    width: Float[Published, ""]
    landmarks: Float[Published, "m d"]
    mix: Float[Published, " m"]
    projection: Float[Published, "m k"]
    eigenvalues: Float[Published, " k"]
    centers: Float[Published, "k k"]


def nystrom(key: KeyArray, x: Any, k: int, *, gamma=1.0, landmarks: int = LANDMARKS, n_init: int | str = 10) -> Fit:
    """Clusters rows as `fit` does with affinity "rbf" and k-means, approximately, in time and memory linear in n.

    The diagonal of the weights stays, as it does in no other affinity: it is part of what the landmarks give. A row
    that no landmark is near lies at the origin of the embedding. Works under jit; of concrete rows all is computed in
    float64.

    Args:
        key: random key for the landmarks and k-means.
        x: (n, d) rows.
        k: number of clusters, static, at most the number of landmarks.
        gamma: γ of exp(−γ‖x − y‖²), in units of 1 / data units². Traced.
        landmarks: how many rows, drawn at random, static; all where there are fewer.
        n_init: starts of k-means.

    Returns:
        `Fit` with a `NystromState`, labels (n,) int32, and steps, status and history of k-means.

    Raises:
        ValueError, TypeError: wrong shapes or values.
    """
    key = check.check_key(key)
    x = check.check_matrix(x)
    m = min(check.check_count("landmarks", landmarks), x.shape[0])
    if check.check_clusters(k, x.shape[0]) > m:
        raise ValueError(f"k={k} eigenvectors are not to be had from landmarks={m}. Pass as many landmarks or more.")
    check_gamma(gamma)
    kmeans.check_runs("k-means++", n_init)
    draw_key, label_key = jax.random.split(key)
    chosen = jax.random.permutation(draw_key, x.shape[0])[:m]
    if check.is_traced(key, x, gamma):
        prepared = prepare(x)
        state, vectors = _fitted(k, prepared, gamma, chosen)
        found = kmeans.fit(label_key, vectors, k, n_init=n_init)
    else:
        x, dtype = concrete_rows(x), published_dtype(x)
        with jax.enable_x64(True):
            state, vectors = _fitted(k, prepare(x.astype(np.float64)), gamma, np.asarray(chosen))
            state, vectors = jax.device_get((state, vectors))
        found = kmeans.fit(label_key, publish(vectors[: len(x)], dtype), k, n_init=n_init)
    return found._replace(state=state._replace(centers=found.state.centers), status=ending(found.status))


def transform(state: NystromState, x: Any) -> Float[Published, "n k"]:
    """The places of (n, d) rows in the embedding of a fit; those of its rows are what it clustered.

    Raises:
        ValueError, TypeError: rows of another width than those of the fit.
    """
    x = check.check_matrix(x)
    check.check_width(x, state.landmarks.shape[1])
    if check.is_traced(x, state):
        return _place(state.frame.enter(x) * state.width, _parts(state))
    x, dtype = concrete_rows(x), published_dtype(x)
    with jax.enable_x64(True):
        rows = np.asarray(state.frame.enter(x)) * np.asarray(state.width)
        rows = np.pad(rows, ((0, bucket(len(x)) - len(x)), (0, 0)))
        places = np.asarray(_place(jnp.asarray(rows), _parts(state)))
    return publish(places[: len(x)], dtype)


def predict(state: NystromState, x: Any) -> Int[Array, " n"]:
    """The cluster of each of (n, d) rows: the nearest center in the embedding."""
    return kmeans.predict(state.centers, transform(state, x))


class _Parts(NamedTuple):
    """What places rows in the frame, on the device."""

    landmarks: Float[Array, "m d"]
    mix: Float[Array, " m"]
    projection: Float[Array, "m k"]


def _parts(state):
    return _Parts(*(jnp.asarray(each) for each in (state.landmarks, state.mix, state.projection)))


def _fitted(k, prepared, gamma, chosen):
    """The state without centers, and the embedding of the rows, those that are not there among them."""
    points, frame = prepared.points, prepared.frame
    width = unit_width(gamma, frame.exponent, points.x.dtype)
    x = points.x * width
    parts, eigenvalues, vectors = _solve(k, x, x[chosen], points.weight)
    centers = jnp.zeros((k, k), points.x.dtype)
    return NystromState(frame, width, *parts, eigenvalues, centers), vectors


@partial(jax.jit, static_argnums=0)
def _solve(k, x, landmarks, present):
    """What places rows, the eigenvalues, and the embedding of the rows, of which those with a 1 are there."""
    features = _features(landmarks)
    tile = tile_rows(x.shape[0], landmarks.shape[0], TILE)

    def rows_of(part):
        x, present = part
        return jnp.matmul(gaussian_weights(x, landmarks), features, precision=HIGHEST) * present[:, None]

    total, _ = fold_rows(lambda part: (jnp.sum(rows_of(part), axis=0), ()), (x, present), tile=tile)

    def products(part):
        rows = rows_of(part)
        degrees = _at_least_one(jnp.matmul(rows, total, precision=HIGHEST))
        return jnp.matmul(rows.T, rows / degrees[:, None], precision=HIGHEST), ()

    gram, _ = fold_rows(products, (x, present), tile=tile)
    values, turn = jnp.linalg.eigh((gram + gram.T) / 2)
    values, turn = values[::-1][:k], turn[:, ::-1][:, :k]
    # Beyond the rank of the weights there is nothing to embed by.
    sizes = jnp.where(values > jnp.finfo(x.dtype).eps, values, jnp.inf)
    projection = jnp.matmul(features, turn * jax.lax.rsqrt(sizes)[None, :], precision=HIGHEST)
    mix = jnp.matmul(features, total, precision=HIGHEST)
    vectors = _place(x, _Parts(landmarks, mix, projection))
    kept = vectors * present[:, None]
    negative = jnp.take_along_axis(kept, jnp.argmax(jnp.abs(kept), axis=0)[None], axis=0) < 0
    projection, vectors = (jnp.where(negative, -each, each) for each in (projection, vectors))
    return _Parts(landmarks, mix, projection), 1 - values, vectors


@jax.jit
def _place(x, parts):
    def place(x):
        weights = gaussian_weights(x, parts.landmarks)
        degrees = _at_least_one(jnp.matmul(weights, parts.mix, precision=HIGHEST))
        return jnp.matmul(weights, parts.projection, precision=HIGHEST) / degrees[:, None]

    return map_rows(place, x, tile=tile_rows(x.shape[0], parts.landmarks.shape[0], TILE))


def _features(landmarks):
    """(m, m) K(Z, Z)^-½: weights to landmarks times it are features whose products are the weights between rows."""
    weights = gaussian_weights(landmarks, landmarks)
    values, vectors = jnp.linalg.eigh((weights + weights.T) / 2)
    least = values.shape[0] * jnp.finfo(values.dtype).eps * values[-1]
    return vectors * jax.lax.rsqrt(jnp.where(values > least, values, jnp.inf))[None, :]


def _at_least_one(degrees):
    """A row's weight to itself is 1: what is less is an error of the approximation."""
    return jnp.maximum(degrees, 1)

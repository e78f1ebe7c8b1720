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
from jaxcluster.core import check
from jaxcluster.core.fold import fold_rows, map_rows, tile_rows
from jaxcluster.core.rows import bucket, float_dtype
from jaxcluster.ops.distance import FULL, sqeuclidean
from jaxcluster.ops.pairwise import concrete_rows
from jaxcluster.types import Array, Fit, Float, Int, KeyArray

LANDMARKS = 500

TILE = 1 << 21
"""Weights to landmarks that are held at a time."""


class NystromState(NamedTuple):
    """What embeds and labels rows, old or new. Of concrete rows it is kept on the host, in float64.

    Attributes:
        landmarks: (m, d) rows that all others are compared with.
        gamma: () of the kernel, in units of 1 / data units².
        mix: (m,) a row's degree is its weights to the landmarks times this.
        projection: (m, k) its place in the embedding is its weights times this, divided by its degree.
        eigenvalues: (k,) of the Laplacian, ascending.
        centers: (k, k) of the clusters in the embedding.
    """

    landmarks: Float[Array, "m d"] | np.ndarray
    gamma: Float[Array, ""] | np.ndarray
    mix: Float[Array, " m"] | np.ndarray
    projection: Float[Array, "m k"] | np.ndarray
    eigenvalues: Float[Array, " k"] | np.ndarray
    centers: Float[Array, "k k"] | np.ndarray


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
    x = check.check_matrix(x)
    m = min(check.check_count("landmarks", landmarks), x.shape[0])
    if check.check_clusters(k, x.shape[0]) > m:
        raise ValueError(f"k={k} eigenvectors are not to be had from landmarks={m}. Pass as many landmarks or more.")
    check.check_positive("gamma", gamma)
    kmeans.check_runs("k-means++", n_init)
    draw_key, label_key = jax.random.split(key)
    chosen = jax.random.permutation(draw_key, x.shape[0])[:m]
    if check.is_traced(key, x, gamma):
        x = jnp.asarray(x)
        x = x.astype(float_dtype(x.dtype))
        state, vectors = _solve(k, x, x[chosen], jnp.asarray(gamma, x.dtype), x.shape[0])
    else:
        x = concrete_rows(x)
        state, vectors = _solve_on_host(k, x, np.asarray(chosen), gamma)
    found = kmeans.fit(label_key, vectors, k, n_init=n_init)
    return found._replace(state=state._replace(centers=found.state.centers))


def transform(state: NystromState, x: Any) -> Float[Array, "n k"]:
    """The places of (n, d) rows in the embedding of a fit; those of its rows are what it clustered.

    Raises:
        ValueError, TypeError: rows of another width than those of the fit.
    """
    x = check.check_matrix(x)
    check.check_width(x, state.landmarks.shape[1])
    if check.is_traced(x, state):
        return _place(jnp.asarray(x, jnp.asarray(state.landmarks).dtype), jax.tree.map(jnp.asarray, state))
    x = concrete_rows(x)
    with jax.enable_x64(True):
        places = np.asarray(_place(jnp.asarray(_filled(x)), jax.tree.map(jnp.asarray, state)))
    return jax.device_put(places[: len(x)].astype(float_dtype(x.dtype)))


def predict(state: NystromState, x: Any) -> Int[Array, " n"]:
    """The cluster of each of (n, d) rows: the nearest centre in the embedding."""
    return kmeans.predict(state.centers, transform(state, x))


def _solve_on_host(k, x, chosen, gamma):
    with jax.enable_x64(True):
        rows = _filled(x)
        solved = _solve(k, jnp.asarray(rows), jnp.asarray(rows[chosen]), jnp.asarray(float(gamma)), len(x))
        state, vectors = jax.device_get(solved)
    return state, vectors[: len(x)].astype(float_dtype(x.dtype))


def _filled(x):
    """Rows in float64, with zeros up to a bucket."""
    return np.pad(x.astype(np.float64), ((0, bucket(len(x)) - len(x)), (0, 0)))


@partial(jax.jit, static_argnums=0)
def _solve(k, x, landmarks, gamma, n):
    """The state without centres, and the embedding of the rows, of which the first n are there."""
    features = _features(landmarks, gamma)
    present = (jnp.arange(len(x)) < n).astype(x.dtype)
    tile = tile_rows(len(x), len(landmarks), TILE)

    def rows_of(part):
        x, present = part
        return jnp.matmul(_weights(x, landmarks, gamma), features, precision=FULL) * present[:, None]

    total, _ = fold_rows(lambda part: (jnp.sum(rows_of(part), axis=0), ()), (x, present), tile=tile)

    def products(part):
        rows = rows_of(part)
        degrees = _at_least_one(jnp.matmul(rows, total, precision=FULL))
        return jnp.matmul(rows.T, rows / degrees[:, None], precision=FULL), ()

    gram, _ = fold_rows(products, (x, present), tile=tile)
    values, turn = jnp.linalg.eigh((gram + gram.T) / 2)
    values, turn = values[::-1][:k], turn[:, ::-1][:, :k]
    # Beyond the rank of the weights there is nothing to embed by.
    sizes = jnp.where(values > jnp.finfo(x.dtype).eps, values, jnp.inf)
    projection = jnp.matmul(features, turn * jax.lax.rsqrt(sizes), precision=FULL)
    mix = jnp.matmul(features, total, precision=FULL)
    state = NystromState(landmarks, gamma, mix, projection, 1 - values, jnp.zeros((k, k), x.dtype))
    vectors = _place(x, state)
    kept = vectors * present[:, None]
    signs = jnp.where(jnp.take_along_axis(kept, jnp.argmax(jnp.abs(kept), axis=0)[None], axis=0) < 0, -1, 1)
    return state._replace(projection=projection * signs), vectors * signs


def _place(x, state):
    def place(x):
        weights = _weights(x, state.landmarks, state.gamma)
        degrees = _at_least_one(jnp.matmul(weights, state.mix, precision=FULL))
        return jnp.matmul(weights, state.projection, precision=FULL) / degrees[:, None]

    return map_rows(place, x, tile=tile_rows(len(x), len(state.landmarks), TILE))


def _features(landmarks, gamma):
    """(m, m) K(Z, Z)^-½: weights to landmarks times it are features whose products are the weights between rows."""
    weights = _weights(landmarks, landmarks, gamma)
    values, vectors = jnp.linalg.eigh((weights + weights.T) / 2)
    least = len(values) * jnp.finfo(values.dtype).eps * values[-1]
    return vectors * jax.lax.rsqrt(jnp.where(values > least, values, jnp.inf))


def _weights(x, landmarks, gamma):
    return jnp.exp(-gamma * sqeuclidean(x, landmarks))


def _at_least_one(degrees):
    """A row's weight to itself is 1: what is less is an error of the approximation."""
    return jnp.maximum(degrees, 1)

"""From many prototypes to fewer clusters: prototypes that share rows belong together.

Equal parts of all prototypes are no claim about the clusters where a cluster may have several prototypes. Which ones
are a cluster's is told by the rows: those between two clusters are few, so prototypes of two clusters have few in
common, however near to each other the prototypes lie.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster import kmeans, spectral
from jaxcluster.core.fold import fold_rows, tile_rows
from jaxcluster.ops.distance import FULL, row_products, squared_norms
from jaxcluster.types import Array, Bool, Float, Int, KeyArray

ALIKE = 1e-5
"""Mean square distance from their mean (length 1 is 1) of vectors that are all taken for the same one."""


class Survey(NamedTuple):
    """What all rows have to say of the prototypes.

    Attributes:
        shared: (m, m) Σ over rows of p_i·p_j, for shares p of the prototypes in a row.
        counts: (m,) how many rows each is the nearest to.
        alike: () whether all embeddings are the same, or all prototypes.
    """

    shared: Float[Array, "m m"]
    counts: Float[Array, " m"]
    alike: Bool[Array, ""]


def survey(embeddings: Float[Array, "n w"], prototypes: Float[Array, "m w"], temperature: float) -> Survey:
    """Goes over all rows, in tiles.

    Args:
        embeddings: of length 1, or 0.
        prototypes: of length 1.
        temperature: > 0 of the shares, softmax(cosines/temperature).
    """
    n, count = embeddings.shape[0], prototypes.shape[0]

    def tile(rows):
        rows, weight = rows
        scores = row_products(rows, prototypes)
        shares = jax.nn.softmax(scores / temperature) * weight[:, None]
        nearest = jax.nn.one_hot(jnp.argmax(scores, axis=1), count, dtype=scores.dtype) * weight[:, None]
        return (jnp.matmul(shares.T, shares, precision=FULL), jnp.sum(nearest, axis=0)), ()

    rows = (embeddings, jnp.ones(n, embeddings.dtype))
    (shared, counts), _ = fold_rows(tile, rows, tile=tile_rows(n, 3 * count))
    return Survey(shared, counts, _same(embeddings) | _same(prototypes))


def grouped(key: KeyArray, found: Survey, k: int) -> Int[Array, " m"]:
    """The cluster of each prototype, of k: a small normalized cut of the graph of what they share.

    With as many prototypes as clusters each is one. Otherwise those that no row is nearest to make no cluster.

    Args:
        key: random key for the cut.
        found: of all rows.
        k: static, at most m.
    """
    if found.counts.shape[0] == k:
        return jnp.arange(k, dtype=jnp.int32)
    cut_key, label_key = jax.random.split(key)
    # A graph has no weight from a vertex to itself, which is all that holds a cluster of one prototype together: two
    # copies of each prototype have it between them.
    twice = jnp.tile(found.shared, (2, 2))
    vectors = spectral.embed(cut_key, twice, k, affinity="precomputed").vectors[: found.counts.shape[0]]
    return kmeans.fit(label_key, vectors, k, weights=found.counts, n_init=10).labels


def _same(vectors):
    center = jnp.mean(vectors, axis=0, keepdims=True)
    return jnp.mean(squared_norms(vectors - center)) <= ALIKE

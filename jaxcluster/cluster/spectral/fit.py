"""Spectral clustering: rows embedded by the smallest eigenvectors of their Laplacian, and labeled there.

Sources: J. Shi and J. Malik, Normalized cuts and image segmentation, IEEE Trans. PAMI 22 (2000), for what it
approximates; U. von Luxburg, A tutorial on spectral clustering, Statistics and Computing 17 (2007).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcluster.cluster import kmeans
from jaxcluster.cluster.spectral.embedding import MAX_STEPS, published, solve
from jaxcluster.cluster.spectral.labels import cluster_qr, discretize, ending
from jaxcluster.cluster.spectral.weights import count_rows
from jaxcluster.core import check
from jaxcluster.types import Fit, KeyArray, Status

ASSIGNMENTS = ("kmeans", "discretize", "cluster_qr")
"""Ways from an embedding to labels."""


def fit(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    affinity: str | Callable = "rbf",
    gamma=1.0,
    n_neighbors: int = 10,
    n_components: int | None = None,
    assign_labels: str = "kmeans",
    n_init: int | str = 10,
    tol=1e-4,
    max_steps=MAX_STEPS,
) -> Fit:
    """Clusters rows so that those of different clusters have little weight between them: a small normalized cut.

    Works under jit, as `embed` does, in any unit of the rows and of the weights. Where the graph falls into k
    components or more, each cluster is made up of whole ones.

    Args:
        key: random key for the eigensolver and the labels.
        x, affinity, gamma, n_neighbors, tol, max_steps: as in `embed`.
        k: number of clusters, static, 1 <= k <= n.
        n_components: eigenvectors to embed by; None for k. "discretize" and "cluster_qr" make a cluster of each.
        assign_labels: "kmeans", "discretize" (rotation to indicators) or "cluster_qr" (no chance in it).
        n_init: starts of "kmeans".

    Returns:
        `Fit` with an `Embedding`, labels (n,) int32, steps and history of the eigensolver, and its status, or that of
        k-means where the eigensolver has converged.

    Raises:
        ValueError, TypeError: as `embed`; an unknown ``assign_labels``; k, ``n_init`` or ``n_components`` that do not
            fit.
    """
    key = check.check_key(key)
    check.check_choice("assign_labels", assign_labels, ASSIGNMENTS)
    k = check.check_clusters(k, count_rows(x))
    wide = k if n_components is None else check.check_count("n_components", n_components)
    if assign_labels != "kmeans" and wide != k:
        raise ValueError(
            f"assign_labels={assign_labels!r} makes a cluster of each eigenvector, so n_components={wide} must be "
            f"k={k}. Leave it out, or pass assign_labels='kmeans'."
        )
    kmeans.check_runs("k-means++", n_init)
    solver_key, label_key = jax.random.split(key)
    options = {"affinity": affinity, "gamma": gamma, "n_neighbors": n_neighbors, "tol": tol, "max_steps": max_steps}
    # Labels are found in the unit of the weights of the solver, in which no entry leaves the range of a dtype.
    embedding, exponent = solve(solver_key, x, wide, drop_first=False, **options)
    status = jnp.asarray(embedding.status, jnp.int32)
    if assign_labels == "kmeans":
        found = kmeans.fit(label_key, embedding.vectors, k, n_init=n_init)
        labels, status = found.labels, jnp.where(status == Status.CONVERGED, ending(found.status), status)
    elif assign_labels == "discretize":
        labels = discretize(label_key, embedding.vectors)
    else:
        labels = cluster_qr(embedding.vectors)
    embedding = published(embedding, x, exponent)
    return Fit(embedding, labels, embedding.steps, status, embedding.history)

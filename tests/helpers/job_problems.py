"""Rows and fits of the tests of several processes, the same in each process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxcluster as jc
from jaxcluster.core import chunks, loop_checkpoints

CUT = 3
"""Number of rows of the first process, fewer than there are clusters; the second one has the others."""

OFFSET = 1e6
"""Distance of all rows from the origin."""


MODELS = {
    "kmeans": partial(jc.KMeans, 4, random_state=0),
    "gmm": partial(jc.GaussianMixture, 4, covariance_type="diag", init_params="k-means++", random_state=0),
}
"""Estimators of jobs with other ways to start."""


SAVED = partial(jc.KMeans, 20, init="random", tol=0, n_init=1, random_state=0)
"""Estimator of a fit of many steps that is saved."""

DEEP = partial(
    *(jc.AutoencoderKMeans, 4),
    hidden=(8,),
    latent=2,
    pretrain_epochs=2,
    batch_size=32,
    n_init=1,
    select="trained",
    random_state=0,
)
"""Estimator of a training, whose epochs are saved."""

saved_fit = partial(jc.checkpoint.resumable, every_seconds=0)


def take_small_chunks() -> None:
    """Take one step in a chunk, and save each."""
    chunks.SHORT_WORK, chunks.FIRST_WORK, chunks.CHUNK_SECONDS = 0, 1, 0.0
    loop_checkpoints.LONG_SECONDS = 0.0


class Results(NamedTuple):
    """Results of a fit, by name: with an entry for each row, integers or numbers, and those that all processes have.

    Centers are published without their `OFFSET`.
    """

    of_rows: dict[str, np.ndarray]
    of_all: dict[str, np.ndarray]


def estimator(
    make: Callable[..., Any],
    *names: str,
    weighted: bool = False,
    saved: bool = False,
    of_rows: tuple[str, ...] = (),
) -> Any:
    """A problem whose results are the labels of an estimator, and some of its attributes.

    Args:
        make: the estimator, from a mesh.
        names: of attributes that all processes have.
        weighted: fit with weights.
        saved: predict by a saved model, too.
        of_rows: names of attributes with an entry for each row.
    """

    def problem(x: np.ndarray, weights: np.ndarray, mesh: Any) -> Results:
        model = make(mesh=mesh).fit(x, **({"sample_weight": weights} if weighted else {}))
        per_row = {name: getattr(model, name) for name in ("labels_", *of_rows)}
        if saved:
            with tempfile.TemporaryDirectory() as folder:
                model.save(f"{folder}/model")
                loaded = jc.load(f"{folder}/model")
            per_row["predicted"] = loaded.predict(x) if hasattr(loaded, "predict") else loaded.labels_
        return Results(per_row, {name: near_origin(name, getattr(model, name)) for name in names})

    return problem


def near_origin(name: str, value: Any) -> np.ndarray:
    """An attribute, coordinates without their offset."""
    return np.asarray(value) - (OFFSET if name in ("cluster_centers_", "means_", "components_") else 0)


def soft_kmeans(x: np.ndarray, weights: np.ndarray, mesh: Any) -> Results:
    """Soft k-means in which the clusters of some rows are known."""
    known = np.where(weights == 3, np.round((x[:, 0] - OFFSET) / 6).clip(0, 3).astype(int), -1)
    fit = jc.soft_kmeans.fit(jax.random.key(0), x, 4, variance=1.0, weights=weights, known=known, mesh=mesh)
    return Results({"labels": np.asarray(fit.labels)}, {"centers": np.asarray(fit.state.centers) - OFFSET})


def transport(x: np.ndarray, weights: np.ndarray, mesh: Any) -> Results:
    """Optimal transport to a few points that all processes have."""
    solved = jc.sinkhorn.solve(x, rows()[0][:7], a=weights, b=np.full(7, rows()[1].sum() / 7), epsilon=5.0, mesh=mesh)
    return Results({"f": solved.f, "a": solved.a}, {"g": solved.g, "transport_cost": solved.transport_cost})


def silhouettes(x: np.ndarray, weights: np.ndarray, mesh: Any) -> Results:
    """Silhouettes of rough clusters."""
    labels = (x[:, 0] > OFFSET + 9).astype(int)
    samples = jc.metrics.silhouette_samples(x, labels, mesh=mesh)
    return Results({"silhouettes": samples}, {"score": jc.metrics.silhouette_score(x, labels, mesh=mesh)})


PROBLEMS: dict[str, Callable[[np.ndarray, np.ndarray, Any], Results]] = {
    "kmeans": estimator(MODELS["kmeans"], "cluster_centers_", saved=True),
    "gmm": estimator(MODELS["gmm"], "means_", weighted=True),
    "soft-kmeans": soft_kmeans,
    "minibatch": estimator(
        partial(jc.MiniBatchKMeans, 4, batch_size=64, random_state=0), "cluster_centers_", "n_iter_", weighted=True
    ),
    "balanced": estimator(partial(jc.BalancedKMeans, 4, random_state=0), "cluster_centers_", "cluster_sizes_"),
    "dbscan": estimator(partial(jc.DBSCAN, eps=2.0, min_samples=4), "core_sample_indices_", "components_", saved=True),
    "hdbscan": estimator(
        *(jc.HDBSCAN, "core_distances_", "finite_"), saved=True, of_rows=("probabilities_", "outlier_scores_")
    ),
    "optics": estimator(jc.OPTICS, "ordering_", "core_distances_", saved=True),
    "clara": estimator(
        partial(jc.KMedoids, 4, method="clara", random_state=0),
        "medoid_indices_",
        "cluster_centers_",
        "inertia_",
        weighted=True,
        saved=True,
    ),
    "spectral": estimator(
        partial(
            jc.SpectralClustering,
            4,
            affinity="nearest_neighbors",
            n_neighbors=80,
            assign_labels="cluster_qr",
            random_state=0,
        ),
        "eigenvalues_",
        of_rows=("embedding_",),
    ),
    "autoencoder-kmeans": estimator(DEEP, "history_"),
    "transport": transport,
    "silhouettes": silhouettes,
}
"""Fits of rows and weights over a mesh, or on one device for None."""


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Rows around 4 centers, far from the origin in float64.

    Returns:
        The rows, (301, 5), and their weights.
    """
    rng = np.random.default_rng(0)
    x = OFFSET + 6 * rng.integers(0, 4, (301, 1)) + rng.normal(size=(301, 5))
    return x, rng.integers(1, 4, 301).astype(np.float64)
